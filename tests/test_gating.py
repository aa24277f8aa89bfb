"""Sparse penalties and their gates against closed forms, brute force and flows of their factors."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from deepregress.gating import (
    GroupPenalty,
    collapse,
    column_scales,
    lift,
    smallest_strength,
    standardising,
    surrogate,
)

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
SCALAR = json.loads((REFERENCE / "lasso.json").read_text())["targets"]["scalar"]


def penalty(
    groups: list[int], strength: list[float], *, l1: float = 0.0, depth: int = 2
) -> GroupPenalty:
    n_groups = max(groups) + 1
    return GroupPenalty(
        np.array(groups), np.array(strength), np.full(n_groups, l1), np.full(n_groups, depth)
    )


def test_the_value_is_the_sum_of_its_norms() -> None:
    c = np.array([3.0, 4.0, -2.0])
    assert penalty([0, 0, 1], [1.0, 3.0]).value(c) == pytest.approx(5 + 6)
    assert penalty([0, 0, 1], [1.0, 3.0], l1=0.5).value(c) == pytest.approx(5 + 6 + 4.5)
    assert penalty([0, 0, 1], [1.0, 3.0], depth=3).value(c) == pytest.approx(
        5 ** (2 / 3) + 3 * 2 ** (2 / 3)
    )


def test_the_proximal_point_is_the_least_of_a_numerical_search() -> None:
    rng = np.random.default_rng(0)
    own = penalty([0, 0, 1, 1, 1], [0.6, 0.9], l1=0.2)
    for _ in range(20):
        z = rng.normal(size=5)
        c = np.concatenate([own.prox(0, z[:2], 0.7), own.prox(1, z[2:], 0.7)])

        def value(b: np.ndarray, z: np.ndarray = z) -> float:
            return 0.5 * float((b - z) @ (b - z)) + 0.7 * own.value(b)

        found = scipy.optimize.minimize(
            value, z, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 9999}
        )
        assert value(c) <= found.fun + 1e-12
        assert own.violation(c, (c - z) / 0.7).max() < 1e-12


@pytest.mark.parametrize("depth", [3, 4])
def test_with_one_gate_free_a_group_lasso_remains(depth: int) -> None:
    own = penalty([0, 0, 1, 2], [0.6, 0.9, 0.3], depth=depth)
    c = np.array([0.4, -0.7, 0.0, -1.1])
    left = own.outer_gates(c)
    assert left.convex and not own.convex and np.isinf(left.strength[1])
    finite = left.restrict(np.array([0, 2]))
    on = np.array([0, 1, 3])
    np.testing.assert_allclose(finite.gradient(c[on]), own.gradient(c)[on], rtol=1e-13)
    there = finite.value(c[on]) - own.value(c)
    for factor in (0.5, 0.9, 1.2, 2.0):
        assert finite.value(factor * c[on]) - own.value(factor * c) >= there - 1e-12


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_scalar_solutions_are_those_of_the_paper(depth: int) -> None:
    z, own = np.array([SCALAR["z"]]), penalty([0], [SCALAR["lambda"]], depth=depth)
    c = z
    for _ in range(60):
        c = own.outer_gates(c).prox(0, z, 1.0)
    assert c[0] == pytest.approx(SCALAR["coef"][str(depth)], abs=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_derivatives_are_those_of_the_value(depth: int) -> None:
    own = penalty([0, 0, 1, 2], [0.6, 0.9, 0.3], l1=0.2, depth=depth)
    c = np.array([0.4, -0.7, 0.5, -1.1])
    h = 1e-6
    steps = h * np.eye(4)
    slope = [(own.value(c + e) - own.value(c - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(own.gradient(c), slope, rtol=1e-7)
    bend = [(own.gradient(c + e) - own.gradient(c - e)) / (2 * h) for e in steps]
    np.testing.assert_allclose(own.curvature(c, np.arange(4)), bend, atol=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_balanced_factors_have_the_penalty_of_their_product(depth: int) -> None:
    c = np.array([0.3, -0.4, 1.2])
    omega, gamma = lift(c, depth)
    np.testing.assert_allclose(collapse(omega, gamma), c, rtol=1e-14)
    assert np.linalg.norm(omega) == pytest.approx(gamma[0])
    own = penalty([0, 0, 0], [1.0], depth=depth)
    assert surrogate(omega, gamma) == pytest.approx(own.value(c), rel=1e-14)
    # any other factors of the same product cost more
    assert surrogate(omega / 1.1, gamma * 1.1 ** (1 / (depth - 1))) > own.value(c)
    np.testing.assert_allclose(own.gates(c), gamma[0], rtol=1e-14)
    weight = 2 / depth / gamma[0] ** (2 * depth - 2)
    np.testing.assert_allclose(own.weights(c), weight, rtol=1e-13)


def test_a_group_of_zeros_is_no_start() -> None:
    with pytest.raises(ValueError, match="no factors to start from"):
        lift(np.zeros(2), 3)


@pytest.mark.parametrize("depth", [2, 3])
def test_imbalance_of_the_factors_decays_at_the_known_rate(depth: int) -> None:
    """Under gradient flow |u_1|^2 - |u_d|^2 falls like exp(-4 lam t / D), whatever the loss."""
    lam, z = 0.4, 1.5
    start = np.array([1.4, *np.linspace(0.6, 0.9, depth - 1)])

    def flow(_: float, u: np.ndarray) -> np.ndarray:
        product = np.prod(u)
        return -((product - z) * product / u + 2 * lam / depth * u)

    times = np.array([0.5, 1.0, 2.0])
    path = scipy.integrate.solve_ivp(
        flow, (0, 2), start, t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853"
    ).y
    imbalance = path[0] ** 2 - path[1] ** 2
    expected = (start[0] ** 2 - start[1] ** 2) * np.exp(-4 * lam * times / depth)
    np.testing.assert_allclose(imbalance, expected, rtol=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_descent_of_the_factors_ends_where_the_proximal_point_is(depth: int) -> None:
    """The smooth surrogate has the minimum of the penalty it stands for, with balanced factors."""
    lam, z = SCALAR["lambda"], SCALAR["z"]

    def loss(u: np.ndarray) -> float:
        return 0.5 * (z - np.prod(u)) ** 2 + lam * surrogate(u[:1], u[1:])

    found = scipy.optimize.minimize(loss, np.ones(depth), method="BFGS", options={"gtol": 1e-10})
    assert np.prod(found.x) == pytest.approx(SCALAR["coef"][str(depth)], abs=1e-6)
    np.testing.assert_allclose(np.abs(found.x), np.prod(found.x) ** (1 / depth), rtol=1e-5)


def test_the_least_strength_that_leaves_a_group_zero() -> None:
    g = np.array([3.0, -4.0, 2.0])
    np.testing.assert_allclose(
        smallest_strength(penalty([0, 0, 1], [1.0, 0.5]), g), [5.0, 4.0], rtol=1e-11
    )
    mixed = penalty([0, 0, 1], [1.0, 0.5], l1=0.5)
    t = smallest_strength(mixed, g)
    for factor, inside in ((1.0 + 1e-9, True), (1.0 - 1e-9, False)):
        own = GroupPenalty(mixed.group, t * factor, 0.5 * t * factor, mixed.depth)
        own = GroupPenalty(own.group, mixed.strength * t * factor, mixed.l1 * t * factor, own.depth)
        assert np.all((own.violation(np.zeros(3), g) == 0) == inside)


def test_sizes_count_a_weight_of_two_as_two_rows() -> None:
    rng = np.random.default_rng(1)
    X, weights = rng.normal(size=(30, 3)) + 5, rng.integers(1, 4, 30).astype(float)
    rows, b = np.repeat(X, weights.astype(int), axis=0), rng.normal(size=3)
    inverse, sd = column_scales(X, weights)
    np.testing.assert_allclose(sd, rows.std(axis=0), rtol=1e-13)
    np.testing.assert_allclose(inverse * sd, np.ones(3), rtol=1e-13)
    T, R = standardising(X, weights)
    assert np.linalg.norm(R @ b) == pytest.approx((rows @ b).std(), rel=1e-12)
    np.testing.assert_allclose(T @ R, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("rows", [6, 9000])
def test_a_constant_column_has_no_coefficient(rows: int) -> None:
    X = np.column_stack([np.arange(6.0), np.full(6, 0.1), [1.0, 0, 1, 0, 0, 1]])
    inverse, sd = column_scales(np.tile(X, (rows // 6, 1)), np.ones(rows))
    assert inverse[1] == 0.0 and sd[1] == 0.0
    np.testing.assert_allclose(sd, X.std(axis=0), rtol=1e-12, atol=1e-15)
    T, R = standardising(X, np.ones(6))
    b = T @ np.ones(3)
    assert b[1] == pytest.approx(0.0, abs=1e-12) and np.all(np.abs(b[[0, 2]]) > 0.1)
    assert np.linalg.norm(R @ [0.0, 3.0, 0.0]) == pytest.approx(0.0, abs=1e-9)


def test_more_columns_than_rows_can_be_taken_as_a_whole() -> None:
    X = np.random.default_rng(0).normal(size=(4, 6))
    T, R = standardising(X, np.ones(4))
    assert T.shape == R.shape == (6, 6)
    assert np.linalg.matrix_rank(T, tol=1e-8) == 3
