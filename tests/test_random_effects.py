"""Terms with levels: random effects, random curves, areas; and ridge."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import terms
from deepregress.data import prediction_frame, training_set
from deepregress.design import build_designs, variables
from deepregress.errors import DataError, FormulaError, PredictionError
from deepregress.formula import parse
from deepregress.model import fit
from deepregress.terms import smooth

DATASETS = Path(__file__).parents[1] / "data"
RNG = np.random.default_rng(8)
N = 240
DATA = {
    "y": RNG.normal(size=N),
    "x": RNG.random(N),
    "z": RNG.random(N) + 1.0,
    "g": RNG.choice(["u", "v", "w"], N),
    "a": RNG.choice(["p", "q"], N),
    "k": RNG.integers(1, 5, N) * 10,
    "my g": RNG.choice(["l", "m"], N),
    "one": np.array(["same"] * N),
}
CHAIN = {"u": ["v"], "v": ["u", "w"], "w": ["v", "t"], "t": ["w"]}


def design(text, data=DATA):
    parsed = parse(f"y ~ {text}", "loc", parameters=("loc",), terms=terms.registered())
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    return build_designs(parsed, frame)["loc"], frame


def columns(text, data=DATA):
    built, frame = design(text, data)
    X = built.evaluate(frame).X
    return {label: X[:, index] for label, index in built.slices.items()}


def at(built, **new):
    row = {key: values[:1] for key, values in DATA.items()}
    row |= {key: np.array([value]) for key, value in new.items()}
    X = built.evaluate(prediction_frame(row, built.variables)).X
    return {label: X[0, index] for label, index in built.slices.items()}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("s(g, bs='re')", ["s(g)"]),
        ("s(g, x, bs='re')", ["s(g,x)"]),
        ("(1 | g)", ["s(g)"]),
        ("(x | g)", ["s(g)", "s(g,x)"]),
        ("(1 + x + log(z) || g)", ["s(g)", "s(g,x)", "s(g,log(z))"]),
        ("(0 + x | g)", ["s(g,x)"]),
        ("(1 | g/a)", ["s(g)", "s(g,a)"]),
        ("(1 | g:a)", ["s(g,a)"]),
        ("(x | a/g/k)", ["s(a)", "s(a,x)", "s(a,g)", "s(a,g,x)", "s(a,g,k)", "s(a,g,k,x)"]),
        ("(1 | `my g`)", ["s(`my g`)"]),
        ("(1 | g) + (1 | a)", ["s(g)", "s(a)"]),
        ("s(x, g, bs='fs', k=4)", ["s(x,g)"]),
        ("s(x, by=g, bs='cr') + g", ["g", "s(x):gu", "s(x):gv", "s(x):gw"]),
        (f"s(g, bs='mrf', xt={CHAIN})", ["s(g)"]),
        ("ridge(x, log(z))", ["ridge(x,log(z))"]),
    ],
)
def test_labels(text, labels):
    assert list(design(text)[0].slices)[1:] == labels


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("(1 | g)", ("s(g).u", "s(g).v", "s(g).w")),
        ("(0 + x | k)", ("s(k,x).10", "s(k,x).20", "s(k,x).30", "s(k,x).40")),
        ("(1 | a:my)", ("s(a,my).p:l", "s(a,my).p:m", "s(a,my).q:l", "s(a,my).q:m")),
        ("s(x, z, bs='re')", ("s(x,z).1",)),
        ("s(x, a, bs='fs', k=3)", tuple(f"s(x,a).{a}.{i}" for a in "pq" for i in (1, 2, 3))),
        ("ridge(x, z)", ("ridge(x,z).x", "ridge(x,z).z")),
    ],
)
def test_coefficients_are_named_by_their_levels(text, names):
    assert design(text, {**DATA, "my": DATA["my g"]})[0].names[1:] == names


def test_columns_of_random_effects_are_those_of_the_interaction():
    is_level = DATA["g"][:, None] == np.array(["u", "v", "w"])
    found = columns("(x | g)")
    np.testing.assert_array_equal(found["s(g)"], is_level)
    np.testing.assert_array_equal(found["s(g,x)"], is_level * DATA["x"][:, None])
    np.testing.assert_array_equal(columns("s(x, g, bs='re')")["s(x,g)"], found["s(g,x)"])
    np.testing.assert_array_equal(columns("s(x, bs='re')")["s(x)"][:, 0], DATA["x"])
    np.testing.assert_array_equal(
        columns("s(k, bs='re')")["s(k)"][:, 0], DATA["k"], "numbers are multiplied, as in mgcv"
    )
    assert columns("(1 | k)")["s(k)"].shape == (N, 4)


def test_combinations_without_rows_have_no_column():
    data = {**DATA, "b": np.where(DATA["a"] == "p", DATA["g"], "n")}
    built, _ = design("(1 | a/b)", data)
    assert built.names[3:] == ("s(a,b).p:u", "s(a,b).p:v", "s(a,b).p:w", "s(a,b).q:n")


def test_the_scale_of_the_penalty_is_mgcvs():
    built, _ = design("(x | g)")
    largest = DATA["x"].max()
    np.testing.assert_allclose(built.penalties[0].S, np.eye(3))
    np.testing.assert_allclose(built.penalties[1].S, np.eye(3) * largest**2)


def test_a_new_level_has_the_mean_effect():
    built, _ = design("x + (x | g) + s(x, g, bs='fs', k=4) + (1 | a:k)")
    new = at(built, g="new", k=77)
    for label in ("s(g)", "s(g,x)", "s(x,g)", "s(a,k)"):
        assert not new[label].any()
    assert at(built, g="v")["s(g)"].tolist() == [0.0, 1.0, 0.0]
    assert at(built, k=20.0)["s(a,k)"].sum() == 1.0


def test_areas_without_rows_have_an_effect_and_others_are_refused():
    built, _ = design(f"s(g, bs='mrf', xt={CHAIN})")
    assert built.n_coef == 1 + 3
    assert at(built, g="t")["s(g)"].any()
    with pytest.raises(PredictionError, match="'g' has levels .* not fitted with: 'new'"):
        at(built, g="new")


def test_areas_may_be_numbers():
    near = {10: [20], 20: [10, 30], 30: [20, 40], 40: [30]}
    found = columns(f"s(k, bs='mrf', xt={near})")["s(k)"]
    text = {str(area): [str(each) for each in row] for area, row in near.items()}
    data = {**DATA, "k": DATA["k"].astype(str)}
    np.testing.assert_array_equal(found, columns(f"s(k, bs='mrf', xt={text})", data)["s(k)"])


def test_the_place_of_the_factor_does_not_matter():
    first, second = columns("s(x, g, bs='fs', k=5)"), columns("s(g, x, bs='fs', k=5)")
    np.testing.assert_array_equal(first["s(x,g)"], second["s(g,x)"])
    cubic = columns("s(x, g, bs='fs', k=5, xt='cr')")["s(x,g)"]
    assert cubic.shape == (N, 15)
    assert np.abs(cubic - first["s(x,g)"]).max() > 0.1


def test_ridge_is_an_identity_penalty_on_standardised_columns():
    built, frame = design("ridge(x, z)")
    X = built.evaluate(frame).X[:, 1:]
    sd = X.std(axis=0)
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(sd, [DATA["x"].std(), DATA["z"].std()])
    np.testing.assert_allclose(built.penalties[0].S, np.diag(sd**2))


def test_ridge_fits_at_a_given_sp_are_those_of_the_closed_form():
    data = pd.DataFrame({name: DATA[name] for name in ("x", "z")})
    data["y"] = 3.0 * data["x"] - data["z"] + DATA["y"]
    Z = data[["x", "z"]].to_numpy()
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    expected = np.linalg.solve(Z.T @ Z + 7.0 * np.eye(2), Z.T @ data["y"])
    model = fit("y ~ ridge(x, z, sp=7)", data, "normal")
    np.testing.assert_allclose(
        model.coef.loc["loc"].to_numpy()[1:] * data[["x", "z"]].std(ddof=0), expected, rtol=1e-6
    )


def test_ridge_of_an_array_is_that_of_its_columns():
    X = np.column_stack([DATA["x"], DATA["z"], DATA["x"] ** 2])
    data = {"y": 3.0 * X[:, 0] - X[:, 2] + DATA["y"], "X": X, "z": X[:, 1]}
    whole = fit("y ~ ridge(X)", data, "normal")
    parts = fit("y ~ ridge(X[:, 0], z, X[:, 2])", data, "normal")
    assert whole.coef.loc["loc"].index.tolist()[1:] == [f"ridge(X).X.{j}" for j in (1, 2, 3)]
    np.testing.assert_allclose(whole.coef, parts.coef, rtol=1e-10)
    np.testing.assert_allclose(whole.predict({"X": X[:3]}), whole.predict(data)[:3])
    for wrong in (X[:, :2], np.hstack([X, X])):
        with pytest.raises(PredictionError, match="fitted with 3 columns"):
            whole.predict({"X": wrong})


def test_bars_are_mgcvs_terms():
    sleep = pd.read_csv(DATASETS / "sleepstudy.csv")
    names = {name.lower(): name for name in sleep}
    sleep = sleep.rename(columns={names[low]: low for low in names})
    sleep["subject"] = sleep["subject"].astype(str)
    bar = fit("reaction ~ days + (days | subject)", sleep, "normal")
    mgcv = fit("reaction ~ days + s(subject, bs='re') + s(subject, days, bs='re')", sleep, "normal")
    assert bar.loglik == pytest.approx(mgcv.loglik, abs=1e-8)
    # lme4's sds of the same model (25.0513, 5.98817, 25.5653), as mgcv's sp
    sp = bar.sp["loc"]
    assert sp["s(subject)"] == pytest.approx((25.5653 / 25.0513) ** 2, rel=1e-3)
    assert sp["s(subject,days)"] == pytest.approx((25.5653 / 5.98817) ** 2 / 81.0, rel=1e-3)
    new = pd.DataFrame({"days": [2.0], "subject": ["nobody"]})
    mean = bar.coef["loc", "(Intercept)"] + 2.0 * bar.coef["loc", "days"]
    assert bar.predict(new) == pytest.approx(mean)


def test_too_many_columns_are_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(smooth, "LARGEST", N * 3 * 8 - 1)
    with pytest.raises(DataError, match=r"\(1 \| g\): 240 rows with 3 columns for the levels take"):
        design("(1 | g)")
    with pytest.raises(DataError, match="240 rows with 12 columns for the levels"):
        design("s(x, g, bs='fs', k=4)")
    assert design("(1 | a)")[0].n_coef == 3


NEIGHBOURS = json.dumps({"u": ["v"], "v": ["u", "w"], "w": ["x"]})
ERRORS = [
    ("(1 | one)", DataError, r"\(1 \| one\): 'one' has one level only, 'same'"),
    ("s(one, bs='re')", DataError, "'one' has one level only"),
    ("(0 | g)", FormulaError, r"\(0 \| g\): 0 leaves no effect left of the bar"),
    ("(x + | g)", FormulaError, r"'\|' has no meaning here; random effects are written"),
    ("(x:z | g)", FormulaError, "must be 1, or columns joined by '\\+'"),
    ("(1 | g + a)", FormulaError, r"must name columns, .* such as \(1 \| a\) \+ \(1 \| b\)"),
    ("(1 | )", FormulaError, "'' right of the bar must name columns"),
    ("(1 | g) + s(g, bs='re')", FormulaError, r"s\(g\): this term stands twice"),
    ("s(g, bs='re', k=4)", FormulaError, "unknown option 'k'; the options of s"),
    ("s(x, bs='fs')", FormulaError, "basis 'fs' takes numbers and one factor .* here: none"),
    ("s(x, g, a, bs='fs')", FormulaError, "one factor .* factors here: g, a"),
    ("s(x, k, bs='fs')", FormulaError, "factors here: none"),
    ("s(x, g, bs='fs', xt=3)", FormulaError, "xt must be the name of a basis in quotes, got 3"),
    ("s(g, bs='mrf')", FormulaError, "xt must be a dict area -> list of its neighbours"),
    ("s(g, bs='mrf', xt={'u': 'v'})", FormulaError, "xt must be a dict area"),
    ("s(g, a, bs='mrf', xt={'u': ['v']})", FormulaError, "basis 'mrf' takes one column of areas"),
    ("s(g, bs='mrf', xt={'u': ['v'], 'v': ['u']})", DataError,
     r"s\(g, bs='mrf'\): 'w' is no area of xt"),
    (f"s(g, bs='mrf', xt={NEIGHBOURS})", FormulaError, r"s\(g, bs='mrf'\): 'x', a neighbour of"),
    ("ridge()", FormulaError, r"ridge\(\) needs a covariate, such as ridge\(x1, x2\)"),
    ("ridge(x, g)", DataError, "'g' is a factor"),
    ("ridge(x, k=3)", FormulaError, "unknown option 'k'; the options of ridge"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error", "message"), ERRORS, ids=[each[0] for each in ERRORS])
def test_user_errors(text, error, message):
    with pytest.raises(error, match=message):
        design(text)
