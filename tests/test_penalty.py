"""Penalties: value, projection onto constrained coefficients, rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepregress.linalg import null_space
from deepregress.penalty import Penalty, Quadratic


def second_differences(k):
    D = np.diff(np.eye(k), n=2, axis=0)
    return Quadratic(D.T @ D, k - 2)


PENALTIES = {
    "differences": second_differences(8),
    "differences of a large basis": second_differences(60),
    "ridge": Quadratic(np.eye(5), 5),
    "zero": Quadratic(np.zeros((3, 3)), 0),
}


@pytest.fixture(params=PENALTIES, ids=str)
def penalty(request):
    return PENALTIES[request.param]


def coefficients(penalty, seed=0):
    return np.random.default_rng(seed).normal(size=len(penalty.S))


def test_every_penalty_is_in_the_table():
    concrete = {kind for kind in Penalty.__subclasses__() if kind.__module__.startswith("deepreg")}
    assert {type(penalty) for penalty in PENALTIES.values()} == concrete


def test_value_is_zero_at_zero_and_never_negative(penalty):
    coef = coefficients(penalty)
    assert penalty.value(np.zeros_like(coef)) == 0.0
    assert penalty.value(coef) >= 0.0


def test_projected_penalty_is_the_penalty_of_the_full_coefficients(penalty):
    Z = null_space(np.ones((len(penalty.S), 1)))
    projected = penalty.project(Z)
    free = np.random.default_rng(1).normal(size=Z.shape[1])
    assert projected.value(free) == pytest.approx(penalty.value(Z @ free), rel=1e-12)


def test_projected_rank_is_the_rank_of_the_projected_matrix(penalty):
    Z = null_space(np.arange(1.0, len(penalty.S) + 1.0)[:, None])
    projected = penalty.project(Z)
    assert projected.rank == np.linalg.matrix_rank(projected.S, tol=1e-9)


def test_value_by_hand():
    # Second differences of (0, 0, 1, 0) are 1 and -2: half the sum of squares is 2.5.
    assert second_differences(4).value(np.array([0.0, 0.0, 1.0, 0.0])) == 2.5


def test_centring_costs_a_ridge_one_rank_and_a_difference_penalty_none():
    Z = null_space(np.ones((5, 1)))
    assert Quadratic(np.eye(5), 5).project(Z).rank == 4
    assert second_differences(5).project(Z).rank == 3


@settings(deadline=None, max_examples=50)
@given(k=st.integers(2, 40), m=st.integers(1, 3), seed=st.integers(0, 1000))
def test_null_space_is_orthonormal_and_orthogonal_to_the_constraints(k, m, seed):
    A = np.random.default_rng(seed).normal(size=(k, min(m, k - 1)))
    Z = null_space(A)
    assert Z.shape == (k, k - A.shape[1])
    # Rounding of a product of Householder reflections.
    np.testing.assert_allclose(Z.T @ Z, np.eye(Z.shape[1]), atol=1e-13)
    np.testing.assert_allclose(A.T @ Z, 0.0, atol=1e-12)
