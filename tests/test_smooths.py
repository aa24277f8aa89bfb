"""Smooth terms: `s`, `te` and `ti` beyond what every term does (see test_terms)."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

from deepregress import terms
from deepregress.data import training_set
from deepregress.design import build_designs, variables
from deepregress.errors import DataError, DeepRegressWarning, FormulaError
from deepregress.formula import parse
from deepregress.marginal import Group
from deepregress.model import fit

RNG = np.random.default_rng(5)
N = 300
DATA = {
    "y": RNG.normal(size=N),
    "x": RNG.random(N),
    "z": RNG.random(N),
    "w": RNG.random(N),
    "g": RNG.choice(["a", "b", "c"], N),
}


def design(text, data=DATA):
    parsed = parse(text, "loc", parameters=("loc",), terms=terms.registered())
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        built = build_designs(parsed, frame)["loc"]
    return built, frame


def columns(text, data=DATA):
    built, frame = design(text, data)
    X = built.evaluate(frame).X
    return {label: X[:, index] for label, index in built.slices.items()}


def dependent(A, B):
    """Dimension of what the columns of A and B both span."""
    rank = np.linalg.matrix_rank
    return rank(A) + rank(B) - rank(np.hstack([A, B]))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("y ~ te(x, z)", ["te(x,z)"]),
        ("y ~ ti( x ,z ) + ti(x)", ["ti(x,z)", "ti(x)"]),
        ("y ~ te(x, z, w, k=3)", ["te(x,z,w)"]),
        ("y ~ te(x, z, by=g)", ["te(x,z):ga", "te(x,z):gb", "te(x,z):gc"]),
        ("y ~ te(x, log(z), by=w)", ["te(x,log(z)):w"]),
    ],
)
def test_labels_are_those_of_mgcv(text, labels):
    assert list(design(text)[0].slices)[1:] == labels


def test_penalties_of_one_term_are_numbered_and_share_its_columns():
    built, _ = design("y ~ s(x) + te(x, z, sp=(0.1, None)) + s(w, select=True, sp=[None, 2])")
    assert [(each.label, each.sp) for each in built.penalties] == [
        ("s(x)", None),
        ("te(x,z)1", 0.1),
        ("te(x,z)2", None),
        ("s(w)1", None),
        ("s(w)2", 2.0),
    ]
    assert built.penalties[1].index == built.penalties[2].index == built.slices["te(x,z)"]


def test_a_tensor_product_is_centred_unless_a_number_multiplies_it():
    for text, width in (("te(x, z)", 24), ("te(x, z, by=g)", 24), ("te(x, z, by=w)", 25)):
        for label, X in columns(f"y ~ {text}").items():
            if label != "(Intercept)":
                assert X.shape[1] == width
    centred = columns("y ~ te(x, z)")["te(x,z)"]
    np.testing.assert_allclose(centred.sum(axis=0), 0.0, atol=1e-9)


def test_an_interaction_spans_no_main_effects():
    found = columns("y ~ te(x, z) + s(x, bs='cr', k=5) + s(z, bs='cr', k=5)")
    main = np.hstack([np.ones((N, 1)), found["s(x)"], found["s(z)"]])
    alone = columns("y ~ te(x, z)")["te(x,z)"]
    interaction = columns("y ~ ti(x, z)")["ti(x,z)"]
    assert dependent(main, alone) == 8
    assert dependent(main, interaction) == 0
    assert dependent(main, found["te(x,z)"]) == 0
    assert found["te(x,z)"].shape[1] == interaction.shape[1] == 16
    # te is centred over the rows, ti over those of each margin: they differ by constants
    assert dependent(np.hstack([main, alone]), interaction) == 16


def test_ti_of_its_parts_spans_te():
    parts = columns("y ~ ti(x) + ti(z) + ti(x, z)")
    whole = columns("y ~ te(x, z)")["te(x,z)"]
    together = np.hstack(list(parts.values()))
    assert together.shape[1] == 25
    assert dependent(together, whole) == 24


def test_dropped_columns_belong_to_the_later_larger_term():
    built, _ = design("y ~ te(x, z) + s(x)")
    assert [(label, s.stop - s.start) for label, s in built.slices.items()][1:] == [
        ("te(x,z)", 23),
        ("s(x)", 9),
    ]


def test_select_penalises_what_the_other_penalties_leave_free():
    for text, null_dim in (("s(x)", 1), ("te(x, z)", 3), ("ti(x, z)", 1), ("s(x, by=w)", 2)):
        built, _ = design(f"y ~ {text[:-1]}, select=True)")
        *wiggly, null = built.penalties
        total = sum(each.S / np.linalg.norm(each.S) for each in wiggly)
        assert null.rank == null_dim
        np.testing.assert_allclose(total @ null.S, 0.0, atol=1e-6)
        np.testing.assert_allclose(null.S @ null.S, null.S, atol=1e-12)
        assert np.linalg.matrix_rank(total + null.S) == len(total)


def test_select_adds_nothing_to_a_full_penalty():
    assert len(design("y ~ s(x, bs='ts', select=True)")[0].penalties) == 1


def test_fx_leaves_no_penalty():
    built, _ = design("y ~ s(x, k=5, fx=True) + te(x, z, k=3, fx=True)")
    assert built.penalties == ()
    assert built.n_coef == 1 + 4 + 8 - 1


def test_a_smoothing_parameter_of_zero_leaves_its_penalty_out():
    built, _ = design("y ~ s(x, sp=0) + te(w, z, sp=(0, None))")
    assert [(each.label, each.rank) for each in built.penalties] == [("te(w,z)", 15)]


def test_a_penalty_of_dropped_columns_alone_is_dropped():
    built, _ = design("y ~ x + s(x, select=True)")
    assert [each.label for each in built.penalties] == ["s(x)"]


def test_terms_of_one_id_share_their_smoothing_parameters():
    own, _ = design("y ~ te(x, z, k=4, by=g) + s(w)")
    shared, frame = design("y ~ te(x, z, k=4, by=g, id='a') + s(w)")
    labels = [each.label for each in shared.penalties]
    assert labels == ["te(x,z):ga1", "te(x,z):ga2", "s(w)"]
    first, _, last = shared.penalties
    assert (first.index, last.index) == (slice(1, 46), slice(46, 55))
    assert first.rank == 3 * own.penalties[0].rank
    blocks = [own.penalties[2 * level].S for level in range(3)]
    np.testing.assert_array_equal(first.S, scipy.linalg.block_diag(*blocks))


def test_terms_of_one_id_need_not_stand_together():
    built, _ = design("y ~ s(x, id=1, k=5) + s(w, k=3) + s(z, id=1, k=4)")
    first, middle = built.penalties
    assert (first.label, first.index) == ("s(x)", slice(1, 10))
    assert (middle.label, middle.index) == ("s(w)", slice(5, 7))
    assert not first.S[4:6].any()
    assert not first.S[:, 4:6].any()
    assert np.linalg.matrix_rank(first.S) == first.rank == 3 + 2


def test_several_penalties_of_a_basis_are_all_placed():
    built, _ = design("y ~ s(x, bs='bs', m=(3, 2, 1))")
    assert [each.label for each in built.penalties] == ["s(x)1", "s(x)2"]
    assert [each.rank for each in built.penalties] == [8, 9]


def test_margins_take_options_of_their_own():
    built, _ = design("y ~ te(x, z, k=(4, 6), bs=('cr', 'ps'), knots=((0, .3, .6, 1), (0, 1)))")
    first, second = built.columns[1].recipe.basis.margins
    assert (first.basis.k, second.basis.k) == (4, 6)
    np.testing.assert_array_equal(first.basis.knots, [0.0, 0.3, 0.6, 1.0])
    assert (second.basis.knots[3], second.basis.knots[-4]) == pytest.approx((0.0, 1.0), abs=2e-3)


def test_a_cyclic_smooth_joins_where_its_period_ends():
    built, _ = design("y ~ s(x, bs='cc', k=6, knots=(0, 2))")
    at = np.array([0.3, 2.3, -1.7])
    first, *rest = built.columns[1].recipe.basis.evaluate(at)
    np.testing.assert_allclose(rest, [first, first], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("te()", FormulaError, r"te\(\) needs a covariate, such as te\(x, z\)"),
        ("te(x, z, k='a')", FormulaError, "k must be a whole number, or one per margin, got 'a'"),
        ("te(x, z, k=(3, 2.5))", FormulaError, "k must be a whole number, or one per margin"),
        ("te(x, z, k=(3, 3, 3))", FormulaError, "k needs one entry for each of the 2 margins"),
        ("te(x, z, bs=3)", FormulaError, "bs must be a name in quotes, or one per margin, got 3"),
        ("te(x, z, d=(1, 2))", FormulaError, "d must be counts that sum to the 2 covariates"),
        ("te(x, z, m=('a', 2))", FormulaError, "m must be a whole number or several"),
        ("te(x, z, np=1)", FormulaError, "np must be True or False, got 1"),
        ("te(x, z, sp=1)", FormulaError, "sp needs one value for each of its 2 penalties .* got 1"),
        ("te(x, z, sp=(1, -1))", FormulaError, "sp must be numbers >= 0 or None, got \\(1, -1\\)"),
        ("te(x, z, df=5)", FormulaError, "df fixes one smoothing parameter, .* has 2; fix them by"),
        ("te(x, z, knots=3)", FormulaError, "knots must be a list of numbers, got 3"),
        ("te(x, z, knots=(('a', 'b'), None))", FormulaError, "knots must be numbers"),
        ("te(x, z, xt=1)", FormulaError, "unknown option 'xt'; the options of te"),
        ("te(x, z, bs='bs', m=((3, 2, 1), 2))", FormulaError, "a margin has one penalty"),
        ("te(x, g)", DataError, r"te\(x, g\): 'g' is a factor"),
        ("s(x, fx=1)", FormulaError, "fx must be True or False, got 1"),
        ("s(x, fx=True, sp=1)", FormulaError, "fx=True leaves no penalty; give no sp, df or sel"),
        ("s(x, id=1.5)", FormulaError, "id must be a whole number or a text, got 1.5"),
        ("s(x, id=1, df=3)", FormulaError, "df belongs to one term; with id= fix"),
        ("s(x, bs='cp', m=(2.5, 2))", FormulaError, "m of basis 'cp' must be whole numbers"),
        ("s(x, m=())", FormulaError, r"m must be a whole number or several, .* got \(\)"),
    ],
)
def test_user_errors(text, error, message):
    with pytest.raises(error, match=message):
        design(f"y ~ {text}")


@pytest.mark.parametrize("ratio", [1.0, 1e-6, 1e12, 1e18])
def test_the_determinant_of_two_penalties_is_that_of_their_eigenvalues(ratio):
    # log|lam_1 A (x) I + lam_2 I (x) B|_+ = sum of log(lam_1 a_i + lam_2 b_j) where positive
    D = np.diff(np.eye(6), n=2, axis=0), np.diff(np.eye(5), n=2, axis=0)
    roots = np.kron(D[0], np.eye(5)), np.kron(np.eye(6), D[1])
    a, b = ([0.0, 0.0, *np.linalg.svd(each, compute_uv=False) ** 2] for each in D)
    values, vectors = np.linalg.eigh(sum(E.T @ E for E in roots))
    U = vectors[:, values > 1e-9]
    group = Group(slice(0, 30), (0, 1), U, tuple(E @ U for E in roots), 0.0)
    lam = np.array([1.0, ratio])
    value, first, second = group.log_pseudo_det(lam)
    parts = np.array([[lam[0] * i, lam[1] * j] for i in a for j in b if i + j > 0.0])
    total = parts.sum(axis=1)
    # the two null spaces meet at an angle that is known to rounding: half the digits at 1e18
    assert value == pytest.approx(np.log(total).sum(), rel=1e-6)
    np.testing.assert_allclose(first, (parts / total[:, None]).sum(axis=0), rtol=1e-6)
    shares = parts / total[:, None]
    np.testing.assert_allclose(
        second, np.diag(shares.sum(axis=0)) - shares.T @ shares, rtol=1e-5, atol=1e-6
    )


def test_select_for_the_whole_model_is_select_in_every_smooth() -> None:
    rng = np.random.default_rng(8)
    table = pd.DataFrame(rng.uniform(size=(200, 3)), columns=["x", "z", "w"])
    table["y"] = np.sin(6 * table["x"]) + 0.3 * rng.normal(size=200)
    whole = fit("y ~ s(x) + s(z) + te(x, w, k=3) + s(w, df=3)", table, select=True)
    single = fit(
        "y ~ s(x, select=True) + s(z, select=True) + te(x, w, k=3, select=True) + s(w, df=3)", table
    )
    assert whole.edf.to_numpy() == pytest.approx(single.edf.to_numpy(), abs=1e-6)
    assert whole.edf["loc", "s(z)"] < 0.9
    assert list(whole.sp.index.get_level_values(1)) == [
        "s(x)1", "s(x)2", "s(z)1", "s(z)2", "te(x,w)1", "te(x,w)2", "te(x,w)3", "s(w)",
    ]  # fmt: skip
