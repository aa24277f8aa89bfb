"""Terms: one contract for all of them, and what each makes of the training rows."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import codec, terms
from deepregress.data import Frame, prediction_frame, training_set
from deepregress.design import build_designs, variables
from deepregress.errors import DeepRegressWarning, PredictionError
from deepregress.formula import parse
from deepregress.terms.base import ColumnBlock

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
LINEAR = json.loads((REFERENCE / "design_mgcv.json").read_text())["linear"]
BASIS = pd.read_csv(REFERENCE / "basis.csv")

RNG = np.random.default_rng(11)
N = 240
DATA = {
    "y": RNG.normal(size=N),
    "x": RNG.random(N) * 4 + 1,
    "z": RNG.normal(size=N),
    "w": RNG.random(N) + 0.5,
    "k": RNG.integers(1, 4, N),
    "flag": RNG.random(N) > 0.4,
    "g": RNG.choice(["a", "b", "c"], N),
    "o": pd.Categorical(RNG.choice(["u", "v", "w"], N), categories=["w", "u", "v"], ordered=True),
    "m": RNG.normal(size=(N, 3)),
    "image": RNG.integers(0, 255, (N, 4, 4)).astype(np.uint8),
    "s": RNG.random(N),
    "log": RNG.random(N) + 1,
    "my x": RNG.random(N),
}


def design(text, data=DATA, networks=()):
    parsed = parse(text, "loc", parameters=("loc",), terms=terms.registered(), networks=networks)
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    return build_designs(parsed, frame)["loc"], frame


def matrix(text, data=DATA):
    built, frame = design(text, data)
    return built.evaluate(frame).X


# Every registered term must occur; a network of the user stands as photo().
CONTRACT = {
    "intercept only": "y ~ 1",
    "no intercept": "y ~ 0 + x",
    "numbers": "y ~ x + z",
    "whole numbers and truth values": "y ~ k + flag",
    "factor": "y ~ g",
    "factor without intercept": "y ~ g - 1",
    "interaction": "y ~ x*g",
    "interaction alone": "y ~ x:g",
    "nested": "y ~ g/x",
    "coded number": "y ~ C(k)",
    "contrasts": "y ~ C(g, contr.sum) + C(o, Treatment('u'))",
    "logarithm": "y ~ log(x)",
    "numpy": "y ~ np.sqrt(x)",
    "polynomial": "y ~ poly(x, 3)",
    "splines of formulaic": "y ~ bs(x, df=5, extrapolation='extend')",
    "splines that span the intercept": "y ~ bs(x, df=6, include_intercept=True)",
    "splines instead of the intercept": "y ~ 0 + bs(x, df=6, include_intercept=True)",
    "natural splines": "y ~ cr(x, df=4, constraints='center')",
    "cyclic splines": "y ~ cc(x, df=4, constraints='center')",
    "standardised": "y ~ scale(x) + center(z)",
    "identity": "y ~ I(x**2) + I(x * z)",
    "quoted": "y ~ `my x` + log(`my x` + 1)",
    "column called like a function": "y ~ log + log(log) + g",
    "column called like a term": "y ~ s + s(z)",
    "s, tp": "y ~ s(x)",
    "s, cr": "y ~ s(x, k=7, bs='cr')",
    "s, ps": "y ~ s(x, k=12, bs='ps', m=(2, 1))",
    "s of an expression": "y ~ s(log(x), k=6)",
    "networks side by side": "y ~ x + nam(x, z, g, select=True)",
    "s of two": "y ~ s(x, z, k=20)",
    "s by number": "y ~ s(x, by=z)",
    "s by factor": "y ~ g + s(x, by=g)",
    "s by ordered factor": "y ~ o + s(x, by=o)",
    "s quoted": "y ~ s(`my x`, by=`log`)",
    "s nested": "y ~ x + s(x) + s(x, k=20)",
    "s, cc": "y ~ s(x, bs='cc', k=8, knots=(1, 5))",
    "s, cp": "y ~ s(x, bs='cp', k=8)",
    "s, bs of two penalties": "y ~ s(x, bs='bs', m=(3, 2, 0))",
    "s, ts": "y ~ s(x, bs='ts')",
    "s, cs": "y ~ s(x, bs='cs')",
    "s, gp": "y ~ s(x, bs='gp', m=(2, 1.5))",
    "s of two, gp": "y ~ s(x, z, bs='gp', k=20)",
    "s without penalty": "y ~ s(x, k=5, fx=True)",
    "s selected": "y ~ s(x, select=True)",
    "te": "y ~ te(x, z)",
    "te of options": "y ~ te(x, z, w, k=(4, 9), d=(1, 2), bs=('ps', 'tp'), m=((2, 1), None))",
    "te, raw margins": "y ~ te(x, z, k=6, bs='ps', np=False)",
    "te selected by factor": "y ~ te(x, z, k=4, by=g, select=True)",
    "te nested": "y ~ s(x) + s(z) + te(x, z)",
    "ti": "y ~ ti(x) + ti(z) + ti(x, z, k=(4, 5))",
    "te and ti": "y ~ te(x, z, k=4) + ti(x, z, w, k=3)",
    "random effect": "y ~ x + s(g, bs='re')",
    "random slope of a mixed term": "y ~ s(g, o, x, bs='re')",
    "random effects": "y ~ x + (1 + x | g) + (1 | o/k)",
    "random curves": "y ~ s(x) + s(g, x, bs='fs', k=5)",
    "areas": "y ~ s(g, bs='mrf', xt={'a': ['b'], 'b': ['a', 'c'], 'c': ['b']})",
    "ridge": "y ~ ridge(x, log(w), z)",
    "lasso": "y ~ lasso(x, log(w), g, m, z * k)",
    "elastic net": "y ~ elasticnet(x, z, alpha=0.2)",
    "group lasso": "y ~ grouplasso(C(k), x + z, s(w), te(x, z, k=4), l1=0.1)",
    "offset": "y ~ x + offset(log(w))",
    "offset of a number": "y ~ x + offset(2)",
    "strata": "y ~ x + strata(g, k)",
    "deep": "y ~ deep(x, g, log(w), m)",
    "deep, network": "y ~ deep(x, image, z, net='photo')",
    "network as term": "y ~ photo(image)",
}


def contract(name):
    text = CONTRACT[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        return design(text, networks=("photo",) if "photo" in text else ())


def each_case():
    return pytest.mark.parametrize("name", CONTRACT)


def equal(first, second, rows=slice(None)):
    np.testing.assert_allclose(first.X, second.X[rows], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(first.offset, second.offset[rows], rtol=1e-12)
    assert list(first.inputs) == list(second.inputs)
    for label, inputs in first.inputs.items():
        for one, other in zip(inputs, second.inputs[label], strict=True):
            np.testing.assert_array_equal(one, other[rows])


def test_every_registered_term_has_a_case():
    called = " ".join(CONTRACT.values())
    calls = [f"{name}(" if name.isidentifier() else name for name in terms.registered()]
    assert [call for call in calls if call not in called] == []


@each_case()
def test_columns_are_numbers_with_names(name):
    built, frame = contract(name)
    arrays = built.evaluate(frame)
    assert arrays.X.shape == (N, built.n_coef) == (N, len(built.names))
    assert arrays.X.dtype == np.float64
    assert arrays.X.flags.c_contiguous
    assert np.isfinite(arrays.X).all()
    assert arrays.offset.shape == (N,)
    assert len(set(built.names)) == len(built.names)
    for inputs in arrays.inputs.values():
        assert all(len(array) == N for array in inputs)


@each_case()
def test_a_row_alone_has_the_columns_it_has_among_others(name):
    built, frame = contract(name)
    whole = built.evaluate(frame)
    for row in (0, 17, N - 1):
        equal(built.evaluate(frame.rows(slice(row, row + 1))), whole, slice(row, row + 1))
    order = np.random.default_rng(1).permutation(N)
    equal(built.evaluate(frame.rows(order)), whole, order)


@each_case()
def test_new_data_with_other_types_and_levels_in_another_order(name):
    built, frame = contract(name)
    rows = [3, 5]
    new = {key: values[rows] for key, values in DATA.items()}
    new["g"] = pd.Categorical(new["g"], categories=["c", "zzz", "b", "a"])
    new["o"] = np.asarray(new["o"], dtype=object)
    new["k"] = new["k"].astype(np.float64)
    equal(built.evaluate(prediction_frame(new, built.variables)), built.evaluate(frame), rows)


@each_case()
def test_a_design_is_its_saved_self(name):
    built, frame = contract(name)
    again = codec.decode(*codec.encode(built))
    assert again.evaluate(frame).X.tobytes() == built.evaluate(frame).X.tobytes()
    assert again.names == built.names
    assert again.slices == built.slices


@each_case()
def test_no_columns_span_the_same(name):
    built, frame = contract(name)
    X = built.evaluate(frame).X
    if built.n_coef:
        X = X / np.linalg.norm(X, axis=0)
        for block in built.columns:
            # told apart by their penalties
            if block.kind == "sparse" or not getattr(block.recipe, "nested", True):
                X = np.vstack([X, np.eye(built.n_coef)[built.slices[block.label]]])
        assert np.linalg.matrix_rank(X, tol=1e-7) == built.n_coef


@each_case()
def test_penalties_fit_their_columns(name):
    built, _ = contract(name)
    for penalty in built.penalties:
        size = penalty.index.stop - penalty.index.start
        assert penalty.S.shape == (size, size)
        np.testing.assert_array_equal(penalty.S, penalty.S.T)
        values = np.linalg.eigvalsh(penalty.S)
        assert np.sum(values > 1e-10 * values[-1]) == penalty.rank
        assert penalty.index in built.slices.values()
        assert penalty.label.rstrip("123456") in {label.rstrip("123456") for label in built.slices}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("y ~ 1", ("(Intercept)",)),
        ("y ~ 0 + x", ("x",)),
        ("y ~ s(x, k=3) - 1", ("s(x).1", "s(x).2")),
        ("y ~ g + x", ("(Intercept)", "g[T.b]", "g[T.c]", "x")),
        ("y ~ g - 1", ("g[a]", "g[b]", "g[c]")),
        ("y ~ x:g", ("(Intercept)", "x:g[a]", "x:g[b]", "x:g[c]")),
        ("y ~ o", ("(Intercept)", "o[T.u]", "o[T.v]")),
        ("y ~ C(k)", ("(Intercept)", "C(k)[T.2]", "C(k)[T.3]")),
        ("y ~ C(g, Treatment('b'))", ("(Intercept)", "C(g, Treatment('b'))[T.a]", None)),
        ("y ~ poly(x,2)", ("(Intercept)", "poly(x, 2)[1]", "poly(x, 2)[2]")),
        ("y ~ log + log(log)", ("(Intercept)", "log", "log(log)")),
        ("y ~ flag", ("(Intercept)", "flag")),
    ],
)
def test_coefficient_names(text, names):
    built, _ = design(text)
    assert len(built.names) == len(names)
    assert all(want in (None, got) for got, want in zip(built.names, names, strict=True))


def test_linear_columns_are_those_of_lm():
    reference = LINEAR["formula_terms"]
    built, frame = design("y ~ x * z + I(x**2) + log(x + 1)", BASIS)
    X = built.evaluate(frame).X
    renamed = [name.replace("I(x^2)", "I(x ** 2)") for name in reference["columns"]]
    order = [built.names.index(name) for name in renamed]
    np.testing.assert_allclose(X[:3, order], reference["first_rows"], rtol=1e-12)
    coef = np.linalg.lstsq(X, frame["y"], rcond=None)[0]
    estimates = [each["estimate"] for each in reference["coefficients"].values()]
    np.testing.assert_allclose(coef[order], estimates, rtol=1e-8)


def test_poly_is_that_of_r():
    X = matrix("y ~ poly(x, 3)", BASIS)
    np.testing.assert_allclose(X[:5, 1:], LINEAR["poly"]["basis_first5"], rtol=1e-9)


def test_bs_is_that_of_r():
    built, _ = design("y ~ bs(x, df=6)", BASIS)
    at = prediction_frame({"x": LINEAR["bspline"]["at_x"]}, ("x",))
    np.testing.assert_allclose(
        built.evaluate(at).X[:, 1:], LINEAR["bspline"]["basis_at_x"], atol=1e-12
    )


def test_splines_that_span_the_intercept_lose_a_column_beside_it_only():
    beside, _ = design("y ~ bs(x, df=6, include_intercept=True)")
    alone, frame = design("y ~ 0 + bs(x, df=6, include_intercept=True)")
    assert (beside.n_coef, alone.n_coef) == (6, 6)
    assert "(Intercept)" in beside.names
    np.testing.assert_allclose(alone.evaluate(frame).X.sum(axis=1), 1.0, atol=1e-12)
    first = frame.rows(slice(0, 1))
    np.testing.assert_allclose(alone.evaluate(first).X, alone.evaluate(frame).X[:1], atol=1e-12)


def test_a_term_knows_its_columns_and_variables():
    built, _ = design("y ~ x*g + poly(z, 2)")
    (block,) = built.columns
    assert built.slices == {
        "(Intercept)": slice(0, 1),
        "x": slice(1, 2),
        "g": slice(2, 4),
        "poly(z, 2)": slice(4, 6),
        "x:g": slice(6, 8),
    }
    assert block.term_variables["x:g"] == ("x", "g")
    assert block.term_variables["poly(z, 2)"] == ("z",)


def test_a_function_that_has_the_name_of_a_column_is_still_the_function():
    X = matrix("y ~ log + log(log)")
    np.testing.assert_allclose(X[:, 2], np.log(DATA["log"]))


def test_levels_without_rows_have_no_column():
    data = {**DATA, "g": pd.Categorical(DATA["g"], categories=["unused", "c", "b", "a"])}
    built, _ = design("y ~ g", data)
    assert built.names == ("(Intercept)", "g[T.b]", "g[T.a]")


def test_recoding_a_factor_spans_the_same():
    first = matrix("y ~ g*x")
    second = matrix("y ~ g*x", {**DATA, "g": pd.Categorical(DATA["g"], categories=["c", "a", "b"])})
    fitted = [X @ np.linalg.lstsq(X, DATA["y"], rcond=None)[0] for X in (first, second)]
    np.testing.assert_allclose(*fitted, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("y ~ s(x)", ["s(x)"]),
        ("y ~ s( x , z, k=15)", ["s(x,z)"]),
        ("y ~ s(log(x))", ["s(log(x))"]),
        ("y ~ s(x, by=z)", ["s(x):z"]),
        ("y ~ s(x, by='z')", ["s(x):z"]),
        ("y ~ s(x, by=g)", ["s(x):ga", "s(x):gb", "s(x):gc"]),
        ("y ~ s(x, by=o)", ["s(x):ou", "s(x):ov"]),
        ("y ~ s(x, k=5) + s(x, k=20)", ["s(x)", "s(x, k=20)"]),
        (
            "y ~ s(x, by=g, k=5) + s(x, by=g)",
            [f"s(x):g{a}" for a in "abc"] + [f"s(x, by=g):g{a}" for a in "abc"],
        ),
    ],
)
def test_labels_are_those_of_mgcv(text, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        built, _ = design(text)
    assert list(built.slices)[1:] == labels
    assert built.names[1] == f"{labels[0]}.1"


def smooths(text):
    built, frame = design(text)
    X = built.evaluate(frame).X
    return [X[:, index] for label, index in built.slices.items() if label.startswith("s(")]


def test_a_smooth_sums_to_zero_over_the_training_rows():
    for bs in ("tp", "cr", "ps"):
        (columns,) = smooths(f"y ~ s(x, bs='{bs}')")
        assert columns.shape == (N, 9)
        np.testing.assert_allclose(columns.sum(axis=0), 0.0, atol=1e-9)


def test_by_a_number_multiplies_the_whole_basis():
    (columns,) = smooths("y ~ s(x, by=z, bs='cr')")
    assert columns.shape == (N, 10)
    values = columns @ np.ones(10)  # the functions of a cubic regression spline sum to one
    np.testing.assert_allclose(values, DATA["z"], atol=1e-10)


def test_by_a_constant_is_centred():
    (columns,) = smooths_of({**DATA, "z": np.full(N, 2.0)}, "y ~ s(x, by=z)")
    assert columns.shape == (N, 9)
    np.testing.assert_allclose(columns, 2.0 * smooths("y ~ s(x)")[0], atol=1e-10)


def smooths_of(data, text):
    built, frame = design(text, data)
    X = built.evaluate(frame).X
    return [X[:, index] for label, index in built.slices.items() if label.startswith("s(")]


def test_by_a_factor_is_the_smooth_of_all_rows_in_those_of_the_level():
    (whole,) = smooths("y ~ s(x)")
    for level, columns in zip("abc", smooths("y ~ s(x, by=g)"), strict=True):
        np.testing.assert_allclose(columns, whole * (DATA["g"] == level)[:, None], atol=1e-12)


def test_an_ordered_factor_leaves_its_first_level_out():
    (whole,) = smooths("y ~ s(x)")
    for level, columns in zip(["u", "v"], smooths("y ~ s(x, by=o)"), strict=True):
        rows = np.asarray(DATA["o"]) == level
        np.testing.assert_allclose(columns, whole * rows[:, None], atol=1e-12)


def test_fixed_smoothing_reaches_the_penalties():
    built, _ = design("y ~ s(x, sp=0.5) + s(z, df=4) + s(w)")
    assert [(each.sp, each.df) for each in built.penalties] == [
        (0.5, None),
        (None, 4.0),
        (None, None),
    ]


def test_minus_one_asks_for_the_default_size():
    assert smooths("y ~ s(x, k=-1)")[0].shape == smooths("y ~ s(x)")[0].shape


def test_knots_reach_the_basis():
    built, frame = design("y ~ s(x, bs='cr', k=4, knots=[1, 2, 4, 5])")
    at = Frame.read({"x": [1.0, 2.0, 4.0, 5.0]}, ["x"])
    block = built.columns[1]
    assert np.linalg.matrix_rank(block.evaluate(at)) == 3
    assert block.recipe.basis.evaluate(at["x"]) == pytest.approx(np.eye(4), abs=1e-12)


def test_the_default_network_is_fed_standardised_columns():
    built, frame = design("y ~ deep(x, g, m, log(w))")
    ((inputs,),) = built.evaluate(frame).inputs.values()
    assert inputs.dtype == np.float32
    assert inputs.shape == (N, 1 + 3 + 3 + 1)
    numbers = inputs[:, [0, 4, 5, 6, 7]].astype(float)
    np.testing.assert_allclose(numbers.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(numbers.std(axis=0), 1.0, atol=1e-6)
    np.testing.assert_array_equal(inputs[:, 1:4], DATA["g"][:, None] == np.array(["a", "b", "c"]))


def test_constant_columns_of_an_array_become_zero():
    pixels = np.column_stack([np.zeros(N), DATA["x"]])
    built, frame = design("y ~ deep(pixels)", {**DATA, "pixels": pixels})
    ((inputs,),) = built.evaluate(frame).inputs.values()
    assert not inputs[:, 0].any()
    assert inputs[:, 1].std() == pytest.approx(1.0, abs=1e-6)


def test_arrays_reach_a_users_network_as_they_are():
    built, frame = design("y ~ deep(x, image, z, net='photo')", networks=("photo",))
    (block,) = built.networks
    numbers, image = block.evaluate(frame)
    assert (block.label, block.network) == ("deep(x,image,z)", "photo")
    assert numbers.shape == (N, 2)
    assert image is frame["image"]


def test_offsets_add_up():
    built, frame = design("y ~ offset(log(w)) + x + offset(2 * z)")
    expected = np.log(DATA["w"]) + 2 * DATA["z"]
    np.testing.assert_allclose(built.evaluate(frame).offset, expected)
    assert built.names == ("(Intercept)", "x")


@pytest.mark.parametrize(
    ("text", "new", "message"),
    [
        ("y ~ g", {"g": "d"}, r"'g' has levels .* not fitted with: 'd'; its levels are a, b, c"),
        ("y ~ s(x, by=g)", {"g": "d"}, "'g' has levels .* not fitted with: 'd'"),
        ("y ~ deep(g)", {"g": "d"}, "'g' has levels .* not fitted with: 'd'"),
        ("y ~ C(k)", {"k": 9}, "'k' has levels .* not fitted with: 9; its levels are 1, 2, 3"),
        ("y ~ C(k, contr.sum)", {"k": 9}, "'k' has levels .* not fitted with: 9"),
        ("y ~ C(g)", {"g": "d"}, "'g' has levels .* not fitted with: 'd'"),
        ("y ~ C(k * 2)", {"k": 9}, "linear part .*18"),
        ("y ~ g", {"g": 1.0}, "'g' was a factor .*; now it holds float64"),
        ("y ~ x", {"x": "a"}, "'x' held numbers when the model was fitted; now it holds .*'a'"),
        ("y ~ log(x)", {"x": -1.0}, r"log\(x\): not finite in 1 of 1 rows, .* x = -1.0"),
        ("y ~ log(x):g", {"x": 0.0}, r"log\(x\):g: not finite"),
        ("y ~ s(log(x))", {"x": -1.0}, r"s\(log\(x\)\): not finite in 1 of 1 rows"),
        ("y ~ s(x)", {"x": "a"}, r"s\(x\): 'x' is a factor \(levels a\), not numbers"),
        ("y ~ s(x, by=z)", {"z": "a"}, r"s\(x, by=z\): 'z' is a factor"),
        ("y ~ offset(log(w))", {"w": 0.0}, r"offset\(log\(w\)\): not finite"),
        ("y ~ deep(log(x))", {"x": -1.0}, r"deep\(log\(x\)\): not finite"),
        ("y ~ deep(m)", {"m": np.ones((1, 2))}, r"had rows of shape \(3,\) .*, now .* \(2,\)"),
        ("y ~ deep(m)", {"m": "a"}, r"had rows of shape \(3,\)"),
        ("y ~ photo(image)", {"image": np.ones((1, 4, 5))}, r"rows of shape \(4, 4\) .* \(4, 5\)"),
        ("y ~ bs(x, df=5)", {"x": 99.0}, "extend beyond upper and/or lower bounds"),
    ],
)
def test_errors_of_new_rows(text, new, message):
    built, _ = design(text, networks=("photo",) if "photo" in text else ())
    row = {key: values[:1] for key, values in DATA.items()} | {
        key: value if isinstance(value, np.ndarray) else np.array([value])
        for key, value in new.items()
    }
    with pytest.raises(PredictionError, match=message):
        built.evaluate(prediction_frame(row, built.variables))


def test_blocks_say_what_they_are():
    built, _ = design("y ~ x + s(z)")
    assert [(b.label, b.kind, b.variables) for b in built.blocks if isinstance(b, ColumnBlock)] == [
        ("linear", "parametric", ("x",)),
        ("s(z)", "smooth", ("z",)),
    ]
