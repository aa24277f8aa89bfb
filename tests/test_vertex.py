"""Of several optima of a lasso, the one that is taken."""

import numpy as np
import pytest
import scipy.linalg

import deepregress as dr
from deepregress.solvers.vertex import null_vector

LAM = 0.05


def table(seed: int = 0, n: int = 120) -> dict[str, np.ndarray]:
    """`twice` and `minus` are a and b again."""
    a, b, u, e = np.random.default_rng(seed).normal(size=(4, n))
    return {"y": a - b + 0.3 * e, "a": a, "b": b, "u": u, "twice": 2.0 * a, "minus": -b}


def test_a_null_vector_is_that_of_the_first_dependent_column() -> None:
    X = np.random.default_rng(1).normal(size=(40, 6))
    X[:, 3] = 2.0 * X[:, 0] - X[:, 2]
    X[:, 5] = X[:, 1]
    v = null_vector(X.T @ X)
    np.testing.assert_allclose(v / v[3], [-2.0, 0.0, 1.0, 1.0, 0.0, 0.0], atol=1e-12)
    assert null_vector(X[:, :3].T @ X[:, :3]) is None
    wide = np.random.default_rng(2).normal(size=(4, 7))
    np.testing.assert_allclose(wide @ null_vector(wide.T @ wide), 0.0, atol=1e-9)


@pytest.mark.parametrize("columns", ["a, b, u, twice, minus", "minus, twice, u, b, a"])
def test_copies_of_columns_are_no_obstacle(columns: str) -> None:
    """Fit and penalty are those without the copies, of which one of two stays."""
    data = table()
    alone = dr.fit(f"y ~ lasso(a, b, u, lam={LAM})", data)
    model = dr.fit(f"y ~ lasso({columns}, lam={LAM})", data)
    np.testing.assert_allclose(model.predict(data), alone.predict(data), rtol=0, atol=1e-9)
    assert model.loglik == pytest.approx(alone.loglik, abs=1e-9)
    assert model.edf_total == pytest.approx(alone.edf_total, abs=1e-9)
    kept = model.coef["loc"]
    assert (kept[["a", "twice"]] != 0).sum() == 1 and (kept[["b", "minus"]] != 0).sum() == 1
    assert np.isfinite(model.std_error["loc"][kept != 0]).all()


def test_more_coefficients_than_rows_are_as_many_as_there_is_rank() -> None:
    """Three levels of a factor and all of their contrasts: six columns of rank two."""
    level = np.random.default_rng(3).integers(0, 3, 90)
    G = np.eye(3)[level]
    X = np.column_stack([G, G[:, [0]] - G[:, [1]], G[:, [1]] - G[:, [2]], G[:, [2]] - G[:, [0]]])
    y = np.array([0.0, 1.0, 3.0])[level] + 0.1 * np.random.default_rng(4).normal(size=90)
    model = dr.fit("y ~ lasso(X, lam=0.02)", {"y": y, "X": X})
    on = model.coef["loc"].to_numpy()[1:] != 0
    assert 1 <= np.count_nonzero(on) <= 2
    assert scipy.linalg.svdvals(X[:, on] - X[:, on].mean(axis=0))[-1] > 1e-6
    assert model.sparse.residual < 1e-10
