"""Projection of deep terms against NumPy's least squares and the Frisch-Waugh theorem."""

import numpy as np
import pytest

from deepregress import projection


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    n = 500
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 3)) * [1.0, 100.0, 1e-3]])
    weights = rng.gamma(2.0, size=n)
    D = np.column_stack([np.sin(X[:, 1]), X @ [1.0, 2.0, 0.3, 4.0] + rng.normal(size=n)])
    return X, weights, D


def weighted_least_squares(X, weights, D):
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(root * X, root * D, rcond=None)[0]


def test_projection_is_weighted_least_squares(rows):
    X, weights, D = rows
    C = projection.projection(X, weights, D)
    # column scales span 1e5, so the coefficients do too: relative tolerance
    np.testing.assert_allclose(C, weighted_least_squares(X, weights, D), rtol=1e-9)


def test_the_rest_is_orthogonal_to_working_precision(rows):
    X, weights, D = rows
    rest = D - X @ projection.projection(X, weights, D)
    cosine = X.T @ (weights[:, None] * rest)
    cosine /= np.linalg.norm(X, axis=0)[:, None] * np.linalg.norm(weights[:, None] * D, axis=0)
    assert np.abs(cosine).max() < 1e-14


def test_projection_accumulates_over_chunks(rows, monkeypatch):
    whole = projection.projection(*rows)
    monkeypatch.setattr(projection, "ROWS_PER_CHUNK", 17)
    np.testing.assert_allclose(projection.projection(*rows), whole, rtol=1e-10)


def test_dependent_columns_share_their_part(rows):
    X, weights, D = rows
    twice = np.hstack([X, X[:, [1]]])
    C = projection.projection(twice, weights, D)
    expected = X @ weighted_least_squares(X, weights, D)
    np.testing.assert_allclose(twice @ C, expected, atol=1e-9)


def test_no_columns_and_no_weight(rows):
    X, weights, D = rows
    assert projection.projection(X[:, :0], weights, D).shape == (0, 2)
    assert not projection.projection(X, np.zeros_like(weights), D).any()


def test_rows_without_weight_do_not_count(rows):
    X, weights, D = rows
    weights = np.where(np.arange(len(X)) < 100, 0.0, weights)
    C = projection.projection(X, weights, D)
    np.testing.assert_allclose(C, projection.projection(X[100:], weights[100:], D[100:]), rtol=1e-9)


def test_post_hoc_leaves_the_predictor_as_it_is(rows):
    X, weights, D = rows
    beta = np.array([1.0, -1.0, 0.5, 2.0])
    moved, rest, alpha = projection.post_hoc(beta, X, weights=weights, zeta=D[:, 0])
    np.testing.assert_allclose(X @ moved + rest, X @ beta + D[:, 0], atol=1e-12)
    np.testing.assert_allclose(moved - beta, alpha, atol=1e-12)


def test_frisch_waugh(rows):
    """The effect of zeta given X is that of its orthogonal part alone, and beta absorbs alpha."""
    X, weights, D = rows
    zeta = D[:, 0]
    y = X @ [1.0, 2.0, 0.01, 3.0] + 1.5 * zeta + np.random.default_rng(1).normal(size=len(X))
    joint = weighted_least_squares(np.column_stack([X, zeta]), weights, y[:, None])[:, 0]
    without = weighted_least_squares(X, weights, y[:, None])[:, 0]
    moved, rest, _ = projection.post_hoc(joint[:-1], X, weights=weights, zeta=joint[-1] * zeta)
    # orthogonalised, the structured coefficients are those of the model without the network
    np.testing.assert_allclose(moved, without, rtol=1e-9)
    alone = weights @ (rest * y) / (weights @ rest**2)
    assert alone == pytest.approx(1.0, abs=1e-10)
