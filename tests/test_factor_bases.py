"""Bases of factors, Markov random fields and factor-smooth interactions, against mgcv.

`data/reference/bases.json` holds mgcv's numbers, with their origin.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import basis, codec
from deepregress.basis import factor_smooth, markov_field, tensor
from deepregress.errors import FormulaError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
MGCV = json.loads((REFERENCE / "bases.json").read_text())
FIELD, CURVES = MGCV["mrf"], MGCV["fs"]
AT = pd.DataFrame(MGCV["at"])
DATA = pd.read_csv(REFERENCE / "basis.csv")
Y = DATA["y"].to_numpy()
AREAS = np.array(FIELD["rows"], dtype=float)
LEVELS = np.array(CURVES["rows"], dtype=float)

# Case of mgcv: (covariates, options).
FACTOR_SMOOTHS = {
    "tp": ("x", {"k": 6}),
    "cr": ("x", {"k": 6, "bs": "cr"}),
    "ps": ("x", {"k": 7, "bs": "ps", "m": (2, 1)}),
    "plane": ("xz", {"k": 12}),
}


def field(k=None):
    return markov_field.construct(AREAS, FIELD["neighbours"], k=k)


def curves(case):
    letters, options = FACTOR_SMOOTHS[case]
    return factor_smooth.construct(DATA[list(letters)].to_numpy(), 6, **options)


def rows_of(case, data, levels):
    return np.column_stack([data[list(FACTOR_SMOOTHS[case][0])].to_numpy(), levels])


def fit(columns, S):
    gram = columns.T @ columns
    coef = np.linalg.solve(gram + S, columns.T @ Y)
    return coef, np.trace(np.linalg.solve(gram + S, gram))


@pytest.mark.parametrize(("size", "k"), [("full", None), ("full", 7), ("low", 5)])
def test_markov_fields_are_those_of_mgcv(size, k):
    built, expected = field(k), FIELD[size]
    columns = built.evaluate(AREAS)
    assert (built.k, built.null_dim) == (expected["k"], expected["null_dim"])
    scale = basis.penalty_scale(columns, built.penalties[0])
    assert scale == pytest.approx(expected["S_scale"], rel=1e-12)
    # One area has no rows: the penalty alone says what its effect is.
    coef, edf = fit(columns, basis.scale_penalty(columns, built.penalties[0]))
    at = built.evaluate(np.array(FIELD["at"]))
    np.testing.assert_allclose(at @ coef, expected["fitted"], rtol=1e-10)
    assert edf == pytest.approx(expected["edf"], abs=1e-10)


def test_penalty_of_a_field_is_the_sum_over_neighbours():
    built = markov_field.construct(AREAS, FIELD["neighbours"])
    effects = dict(zip(built.areas, np.random.default_rng(0).normal(size=7), strict=True))
    pairs = ["ab", "bc", "cd", "ce", "ef", "fh"]
    total = sum((effects[one] - effects[other]) ** 2 for one, other in pairs)
    coef = np.array(list(effects.values()))
    assert coef @ built.penalties[0] @ coef == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("k", [None, 4])
def test_each_connected_part_has_its_own_level(k):
    islands = {"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c", "e"], "e": ["d"]}
    built = markov_field.construct(np.arange(50.0) % 5, islands, k=k)
    eigenvalues = np.linalg.eigvalsh(built.penalties[0])
    assert built.null_dim == 2
    np.testing.assert_allclose(eigenvalues[:2], 0.0, atol=1e-12)
    assert eigenvalues[2] > 0.1
    part = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    effects = built.evaluate(np.arange(5.0))
    coef = np.linalg.lstsq(effects, part)[0]
    np.testing.assert_allclose(effects @ coef, part, atol=1e-12)
    np.testing.assert_allclose(built.penalties[0] @ coef, 0.0, atol=1e-12)


@pytest.mark.parametrize("case", FACTOR_SMOOTHS)
def test_factor_smooths_are_those_of_mgcv(case):
    built, expected = curves(case), CURVES[case]
    assert built.k == expected["k"]
    ranks = [np.linalg.matrix_rank(S) for S in built.penalties]
    assert ranks == expected["rank"]
    assert built.penalties[0].max() == pytest.approx(expected["wiggly"], rel=1e-9)
    weights = [0.7] + [0.2] * (len(ranks) - 1)
    S = sum(weight * each for weight, each in zip(weights, built.penalties, strict=True))
    coef, edf = fit(built.evaluate(rows_of(case, DATA, LEVELS)), S)
    fitted = built.evaluate(rows_of(case, AT, CURVES["at"])) @ coef
    np.testing.assert_allclose(fitted, expected["fitted"], rtol=1e-8, atol=1e-8)
    assert edf == pytest.approx(expected["edf"], abs=1e-8)


@pytest.mark.parametrize("case", FACTOR_SMOOTHS)
def test_curves_are_orthogonal_and_the_constant_is_a_column(case):
    built = curves(case)
    columns = built.curves(rows_of(case, DATA, LEVELS)[:, :-1])
    squares = columns.T @ columns / len(columns)
    np.testing.assert_allclose(squares, np.diag(np.diag(squares)), atol=1e-8)
    n_wiggly = built.spline.k - built.spline.null_dim
    assert np.diag(squares)[:n_wiggly].mean() == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(np.diag(squares)[n_wiggly:], 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.abs(columns[:, n_wiggly]), 1.0, atol=1e-9)


def test_factor_smooth_of_a_shrunk_basis_has_one_penalty():
    built = factor_smooth.construct(DATA["x"].to_numpy(), 2, bs="ts", k=5)
    assert len(built.penalties) == 1
    assert np.linalg.matrix_rank(built.penalties[0]) == built.k == 10


@pytest.mark.parametrize("case", FACTOR_SMOOTHS)
def test_rows_of_no_level_and_of_others_are_zero(case):
    built = curves(case)
    x = rows_of(case, AT, [0, 1, 2, 3, 4, 5, factor_smooth.NO_LEVEL, 0, 1])
    columns = built.evaluate(x).reshape(len(x), 6, -1)
    np.testing.assert_array_equal(columns[6], 0.0)
    for row, level in enumerate(x[:6, -1].astype(int)):
        np.testing.assert_array_equal(columns[row, level], built.curves(x[:, :-1])[row])
        np.testing.assert_array_equal(np.delete(columns[row], level, axis=0), 0.0)


@pytest.mark.parametrize("bs", basis.registered())
def test_every_basis_survives_saving(bs):
    x = DATA[["x", "z"]].to_numpy()
    built = [(basis.construct(bs, x[:, 0], k=7), x[:, 0])]
    if len(built[0][0].penalties) == 1:  # an adaptive spline is no margin and no random curve
        levels = np.column_stack([x[:, 0], np.arange(200.0) % 3])
        built.append((tensor.construct(x, tensor.marginals(2, bs=bs)), x))
        built.append((factor_smooth.construct(x[:, 0], 3, bs=bs, k=7), levels))
    for each, at in built:
        again = codec.decode(*codec.encode(each))
        np.testing.assert_array_equal(again.evaluate(at), each.evaluate(at))
        np.testing.assert_array_equal(again.penalties[0], each.penalties[0])


def test_a_field_survives_saving():
    built = field(5)
    again = codec.decode(*codec.encode(built))
    assert again.areas == built.areas
    np.testing.assert_array_equal(again.evaluate(AREAS), built.evaluate(AREAS))


@pytest.mark.parametrize(
    ("neighbours", "k", "message"),
    [
        ({"ab": ["cd"], "cd": []}, None, "'cd' is a neighbour of 'ab', but 'ab' is none of 'cd'"),
        ({"north": "south", "south": "nort"}, None, "'nort', a neighbour .*did you mean 'north'"),
        ({"a": ["x"]}, None, "'x', a neighbour of 'a', is no area of the neighbourhood"),
        ({"a": ["b"], "b": ["a"], "c": []}, 2, "needs k from 3 to the 3 areas, got 2"),
        ({"a": ["b"], "b": ["a"], "c": []}, 4, "needs k from 3 to the 3 areas, got 4"),
    ],
)
def test_neighbourhoods_that_are_no_graph_are_refused(neighbours, k, message):
    with pytest.raises(FormulaError, match=message) as caught:
        markov_field.construct(np.zeros(4), neighbours, k=k, label="s(g)")
    assert str(caught.value).startswith("s(g): ")


def test_factor_smooths_take_one_penalty():
    with pytest.raises(FormulaError, match=r"^s\(x, g\): a factor-smooth .* one penalty"):
        x = DATA["x"].to_numpy()
        factor_smooth.construct(x, 3, bs="bs", m=(3, 2, 1), label="s(x, g)")
