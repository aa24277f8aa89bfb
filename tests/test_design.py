"""Designs: mgcv's fits at mgcv's sp, nested terms, what networks must not span."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepregress import design as design_module
from deepregress import terms
from deepregress.data import training_set
from deepregress.design import build_designs, dependent_columns, variables
from deepregress.errors import DeepRegressWarning, FormulaError, NetworkError
from deepregress.formula import parse
from deepregress.linalg import triangular_factor
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
MGCV = json.loads((REFERENCE / "design_mgcv.json").read_text())["models"]

RNG = np.random.default_rng(7)
N = 300
DATA = {
    "y": RNG.normal(size=N),
    "x": RNG.random(N),
    "z": RNG.random(N),
    "w": RNG.random(N),
    "g": RNG.choice(["a", "b", "c"], N),
    "image": RNG.random((N, 5, 5)),
}


def build(formula, data=DATA, *, parameters=("loc",), networks=()):
    parsed = parse(
        formula,
        parameters[0],
        parameters=parameters,
        terms=terms.registered(),
        networks=networks,
    )
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    return build_designs(parsed, frame, parameters), frame


def loc(formula, data=DATA, networks=()):
    designs, frame = build(formula, data, networks=networks)
    return designs["loc"], frame


def penalised_fit(design, frame, sp, y):
    """Coefficients and edf of min |y - X c|^2 + sum sp c' S c."""
    X = design.evaluate(frame).X
    S = np.zeros((design.n_coef, design.n_coef))
    for penalty in design.penalties:
        S[penalty.index, penalty.index] += sp[penalty.label] * penalty.S
    gram = X.T @ X
    hat = np.linalg.solve(gram + S, np.column_stack([gram, X.T @ y]))
    return X, hat[:, -1], np.diagonal(hat[:, :-1])


@pytest.mark.parametrize("name", MGCV)
def test_fits_are_those_of_mgcv_at_its_smoothing_parameters(name):
    reference = MGCV[name]
    data = pd.read_csv(REFERENCE / f"{reference['data']}.csv")
    design, frame = loc(reference["formula"], data)
    y = frame["y"] if "y" in frame else frame["accel"]
    X, coef, edf = penalised_fit(design, frame, reference["sp"], y)
    # mgcv's sp of a term that is a line is about 1e10, where the solution has 1e-9 of the data left
    np.testing.assert_allclose((X @ coef)[:20], reference["fitted"], atol=1e-8 * y.std())
    for label, value in reference["edf"].items():
        assert edf[design.slices[label]].sum() == pytest.approx(value, abs=2e-6)
    for label, value in reference["parametric"].items():
        place = design.names.index(label.replace("facf", "fac[T.f") + "]" * ("fac" in label))
        assert coef[place] == pytest.approx(value, rel=1e-8)


def fitted_values(formula, data, sp):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        design, frame = loc(formula, data)
    X, coef, _ = penalised_fit(design, frame, dict.fromkeys(design.slices, sp), frame["y"])
    return X @ coef


FORMULAS = ["y ~ z + s(x)", "y ~ s(x, bs='cr') + s(z, bs='ps')", "y ~ g + s(x, by=g) + z"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_permuted_rows_are_the_same_fit(formula):
    order = np.random.default_rng(3).permutation(N)
    permuted = {key: values[order] for key, values in DATA.items()}
    first, second = (fitted_values(formula, data, 1.5) for data in (DATA, permuted))
    np.testing.assert_allclose(second, first[order], atol=1e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_rescaled_covariate_is_the_same_fit(formula):
    # mgcv's scaling of the penalty makes sp free of the units of x for cr and ps
    rescaled = {**DATA, "z": 1e3 * DATA["z"] + 7.0}
    first, second = (fitted_values(formula, data, 1.5) for data in (DATA, rescaled))
    np.testing.assert_allclose(second, first, atol=1e-7)


def test_a_smooth_without_room_to_bend_is_a_line():
    line = fitted_values("y ~ x", DATA, 0.0)
    for bs in ("tp", "cr", "ps"):
        smooth = fitted_values(f"y ~ s(x, bs='{bs}')", DATA, 1e10)
        np.testing.assert_allclose(smooth, line, atol=1e-6)


# mgcv scales the columns of tp by their mean squares over the rows, so its sp (not the fit at the
# sp that is selected) changes with the rows
@pytest.mark.parametrize("formula", [FORMULAS[1], "y ~ g + s(x, by=g, bs='cr') + z"])
def test_weight_two_is_the_row_twice(formula):
    twice = np.r_[np.arange(N), np.arange(0, N, 3)]
    weight = 1.0 + (np.arange(N) % 3 == 0)
    design, frame = loc(formula)
    X = design.evaluate(frame).X * np.sqrt(weight)[:, None]
    y = DATA["y"] * np.sqrt(weight)
    S = np.zeros((design.n_coef, design.n_coef))
    for penalty in design.penalties:
        S[penalty.index, penalty.index] += 1.5 * penalty.S
    weighted = design.evaluate(frame).X @ np.linalg.solve(X.T @ X + S, X.T @ y)
    repeated = fitted_values(formula, {k: v[twice] for k, v in DATA.items()}, 1.5)
    np.testing.assert_allclose(repeated[:N], weighted, atol=1e-8)


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table, dict])
def test_every_kind_of_table_gives_the_same_design(make):
    formula = "y ~ g*x + s(z) + s(w, by=g)"
    columns = {name: values for name, values in DATA.items() if name != "image"}
    design, frame = loc(formula, make(columns))
    reference, frame_pandas = loc(formula, pd.DataFrame(columns))
    assert design.names == reference.names
    assert design.evaluate(frame).X.tobytes() == reference.evaluate(frame_pandas).X.tobytes()


NESTED = {
    # formula -> columns left of the last smooth, rank of its penalty
    "y ~ x + s(x)": (8, 8),
    "y ~ x + s(x, bs='cr')": (8, 8),
    "y ~ x + s(x, bs='ps')": (8, 8),
    "y ~ poly(x, 2) + s(x)": (8, 8),
    "y ~ x + z + s(x, by=z)": (9, 8),
    "y ~ x:z + s(x, by=z)": (9, 8),
    "y ~ x:z + z + s(x, by=z)": (8, 8),
    "y ~ s(x) + s(x, z, k=20)": (18, 17),
    "y ~ s(x) + s(z) + s(x, z, k=20)": (17, 17),
    "y ~ s(x) + s(z, by=x)": (9, 8),
    "y ~ x + s(x, by=g)": (8, 8),
    "y ~ x*g + s(x, by=g)": (8, 8),
}


@pytest.mark.parametrize("formula", NESTED)
def test_nested_terms_become_identifiable_and_lose_no_function(formula):
    design, frame = loc(formula)
    X = design.evaluate(frame).X
    X = X / np.linalg.norm(X, axis=0)
    assert np.linalg.matrix_rank(X, tol=1e-7) == design.n_coef
    last = design.penalties[-1]
    assert (len(last.S), last.rank) == NESTED[formula]
    kept = [part.strip() for part in formula.split("~")[1].split(" + ")]
    alone, frame_alone = loc(f"y ~ {kept[-1]}")
    whole = alone.evaluate(frame_alone).X
    left = whole - X @ np.linalg.lstsq(X, whole, rcond=None)[0]
    assert np.abs(left).max() < 1e-6 * np.abs(whole).max()


@pytest.mark.parametrize("second", ["s(x, k=20)", "s(x, bs='ps', k=20)"])
def test_a_second_smooth_of_the_same_variable_is_warned_of(second):
    with pytest.warns(DeepRegressWarning, match=r"of its 19 columns dropped, because s\(x\), a"):
        design, frame = loc(f"y ~ s(x) + {second}")
    X = design.evaluate(frame).X
    X = X / np.linalg.norm(X, axis=0)
    assert np.linalg.matrix_rank(X, tol=1e-7) == design.n_coef


def test_warnings_point_at_the_line_that_calls_fit():
    table = pd.DataFrame({"x": np.linspace(0, 1, 50), "y": np.cos(np.arange(50.0))})
    with pytest.warns(DeepRegressWarning) as caught:
        fit("y ~ s(x, k=5) + s(x, k=8)", table)
        fit("y ~ x", table.assign(x=table["x"].where(table["x"] > 0.1)))
        fit("y ~ x", table, weights=(table["x"] > 0.5).to_numpy(dtype=float))
    assert len(caught) == 3
    assert {Path(each.filename).name for each in caught} == {"test_design.py"}


def test_the_larger_term_loses_columns_whatever_the_order():
    design, _ = loc("y ~ s(x, z, k=20) + s(x)")
    assert list(design.slices) == ["(Intercept)", "s(x,z)", "s(x)"]
    assert design.slices["s(x)"] == slice(19, 28)


@pytest.mark.parametrize(
    "formula", ["y ~ z + s(x)", "y ~ g + s(x, by=g)", "y ~ s(x) + s(z)", "y ~ g + z + s(x)"]
)
def test_terms_that_are_not_nested_keep_all_columns(formula):
    design, _ = loc(formula)
    for label, index in design.slices.items():
        if label.startswith("s("):
            assert index.stop - index.start == 9


def test_a_smooth_that_adds_nothing_is_refused():
    with pytest.raises(FormulaError, match=r"s\(x, k=5\) .* spans nothing that other terms"):
        loc("y ~ s(x) + s(x, k=5)")


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_dependent_columns_are_counted_and_their_removal_leaves_a_basis(seed, p1, p2, common):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(40, p1)) * rng.uniform(1e-3, 1e3, p1)
    own = rng.normal(size=(40, p2)) * rng.uniform(1e-3, 1e3, p2)
    shared = first @ rng.normal(size=(p1, min(common, p1)))
    mixing = rng.normal(size=(p2 + shared.shape[1],) * 2)
    later = np.column_stack([own / np.linalg.norm(own, axis=0), shared / np.linalg.norm(shared)])
    later = later @ mixing
    dropped = dependent_columns(triangular_factor(np.column_stack([first, later])), later.shape[1])
    assert len(dropped) == shared.shape[1]
    kept = np.delete(later, dropped, axis=1)
    together = np.column_stack([first / np.linalg.norm(first, axis=0), kept])
    assert np.linalg.matrix_rank(together, tol=1e-9) == p1 + p2


def test_the_triangular_factor_by_rows_is_that_of_all_rows(monkeypatch):
    X = np.random.default_rng(0).normal(size=(1000, 4))
    monkeypatch.setattr("deepregress.linalg.QR_ROWS", 33)
    R = triangular_factor(X[600:], triangular_factor(X[:600]))
    np.testing.assert_allclose(R.T @ R, X.T @ X, rtol=1e-12)
    np.testing.assert_array_equal(R, np.triu(R))
    assert triangular_factor(X[:2]).shape == (2, 4)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ("", ["(Intercept)", "x", "x:z", "s(x)"]),
        ("orthogonal_to='none'", []),
        ("orthogonal_to='all'", ["(Intercept)", "g", "x", "x:z", "s(x)", "s(w):ga", "s(w):gb"]),
        ("orthogonal_to='s(x)'", ["s(x)"]),
        ("orthogonal_to='s(x) + g'", ["s(x)", "g"]),
        ("orthogonal_to=s(x) + x", ["s(x)", "x"]),
        ("orthogonal_to='1 + x'", ["(Intercept)", "x"]),
        ("orthogonal_to='s(w):g'", ["s(w):ga", "s(w):gb", "s(w):gc"]),
        ("orthogonal_to='s(w):gb'", ["s(w):gb"]),
    ],
)
def test_what_a_network_must_be_orthogonal_to(options, labels):
    text = f"y ~ g + x + x:z + s(x, bs='ps') + s(w, by=g) + deep(x{', ' * bool(options)}{options})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        design, _ = loc(text)
    if "all" in options:
        labels = list(design.slices)
    expected = [np.arange(design.n_coef)[design.slices[label]] for label in labels]
    protected = design.protected("deep(x)")
    assert protected.tolist() == sorted(np.concatenate([[], *expected]).astype(int).tolist())


def test_a_network_that_shares_nothing_is_only_centred():
    design, _ = loc("y ~ x + photo(image)", networks=("photo",))
    assert design.protected("photo(image)").tolist() == [0]
    design, _ = loc("y ~ 0 + x + photo(image)", networks=("photo",))
    assert design.protected("photo(image)").tolist() == []


def test_an_unknown_label_in_orthogonal_to_is_refused():
    with pytest.raises(FormulaError, match=r"names 's\(xx\)', .* did you mean 's\(x\)'\?"):
        loc("y ~ s(x) + deep(x, orthogonal_to='s(xx)')")


@pytest.mark.parametrize(
    ("formula", "networks", "message"),
    [
        ("y ~ deep(x, net='photo')", (), "'loc' uses the network 'photo', which is not in"),
        ("y ~ deep(x, net='foto')", ("photo",), "'foto', .* did you mean 'photo'"),
        ("y ~ x", ("photo",), r"networks\['photo'\] is not used"),
        ("y ~ deep(x)", ("photo",), r"networks\['photo'\] is not used"),
        ("y ~ deep(image)", (), r"array of shape \(300, 5, 5\); the default network takes"),
    ],
)
def test_networks_are_named_and_used(formula, networks, message):
    with pytest.raises(NetworkError, match=message):
        loc(formula, networks=networks)


def test_designs_of_several_parameters():
    designs, frame = build(
        {"loc": "y ~ x + s(z) + deep(w)", "scale": "~ s(z) - 1", "shape": 2.5},
        parameters=("loc", "scale", "shape", "tail"),
    )
    assert list(designs) == ["loc", "scale", "shape", "tail"]
    assert designs["loc"].n_coef == 11
    assert designs["scale"].names[0] == "s(z).1"
    assert designs["scale"].n_coef == 9
    assert (designs["shape"].fixed, designs["shape"].n_coef) == (2.5, 0)
    assert designs["tail"].names == ("(Intercept)",)
    assert designs["loc"].variables == ("x", "z", "w")
    arrays = designs["shape"].evaluate(frame)
    assert (arrays.X.shape, arrays.inputs) == ((N, 0), {})
    assert [each.label for each in designs["loc"].networks] == ["deep(w)"]


def test_the_same_network_may_stand_in_several_terms_and_parameters():
    designs, _ = build(
        {"loc": "y ~ net(x) + net(z)", "scale": "~ net(x)"},
        parameters=("loc", "scale"),
        networks=("net",),
    )
    assert [each.label for each in designs["loc"].networks] == ["net(x)", "net(z)"]
    assert [each.label for each in designs["scale"].networks] == ["net(x)"]


def test_chunks_of_rows_are_the_whole(monkeypatch):
    formula = "y ~ poly(z, 2)*g + s(x) + s(w, by=g) + offset(log(w + 1))"
    design, frame = loc(formula)
    whole = design.evaluate(frame)
    monkeypatch.setattr(design_module, "CHUNK_ROWS", 37)
    again = design.evaluate(frame)
    np.testing.assert_allclose(again.X, whole.X, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(again.offset, whole.offset)
    rebuilt, _ = loc("y ~ x + z + s(w)")
    monkeypatch.setattr("deepregress.terms.smooth._CHUNK_ROWS", 41)
    small, _ = loc("y ~ x + z + s(w)")
    np.testing.assert_allclose(small.evaluate(frame).X, rebuilt.evaluate(frame).X, atol=1e-10)
    np.testing.assert_allclose(small.penalties[0].S, rebuilt.penalties[0].S, atol=1e-12)


@pytest.mark.slow
def test_a_million_rows_take_little_memory():
    tracemalloc = pytest.importorskip("tracemalloc")
    rng = np.random.default_rng(0)
    data = {name: rng.random(1_000_000) for name in ("y", "x1", "x2", "x3", "z")}
    build("y ~ s(x1) + z", {key: values[:500] for key, values in data.items()})
    tracemalloc.start()
    design, frame = loc("y ~ s(x1) + s(x2) + s(x3) + z", data)
    X = design.evaluate(frame).X
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * X.nbytes
