"""Paths of sparse terms beside smooth and random ones: fast, and the models they choose exact."""

import numpy as np
import pytest

import deepregress as dr
from deepregress.sparse.selection import PAST_VALUES

N = 250
FORMULA = {
    "normal": "y ~ lasso(X) + s(z, k=8) + (1|r)",
    "poisson": "y ~ grouplasso(X, groups=2, depth=3) + s(z, k=8)",
    "gamma": "y ~ lasso(X, depth=3) + s(z, k=8)",
}


def simulated(family: str) -> dict[str, np.ndarray]:
    """Two of ten columns, a curve and 12 levels have effects."""
    rng = np.random.default_rng(3)
    X, z, r = rng.normal(size=(N, 10)), rng.uniform(size=N), rng.integers(0, 12, N)
    eta = 0.8 * X[:, 0] - 0.5 * X[:, 1] + np.sin(6 * z) + 0.5 * rng.normal(size=12)[r]
    noise = rng.normal(size=N)
    y = {
        "normal": eta + noise,
        "poisson": rng.poisson(np.exp(0.7 * eta)).astype(float),
        "gamma": np.exp(0.5 * eta) * rng.gamma(2, size=N),
    }
    return {"y": y[family], "X": X, "z": z, "r": r.astype(str)}


@pytest.fixture(scope="module", params=["normal", "poisson"])
def case(request) -> tuple[str, dict[str, np.ndarray], object]:
    """Family, data and the whole path, which is not ended early."""
    data = simulated(request.param)
    return request.param, data, dr.path(FORMULA[request.param], data, request.param, n_lam=100)


def test_fits_of_a_path_are_those_from_a_cold_start(case):
    """Smoothing parameters follow the path to a looser tolerance: 1e-2 standard errors.

    A constant dispersion is estimated at the end, given what was selected, not along the path.
    """
    family, data, path = case
    for number in (0, 25, 50, 75, len(path.lam) - 1):
        formula = FORMULA[family].replace("(X", f"(X, lam={float(path.lam[number])!r}")
        alone = dr.fit(formula, data, family)
        own = alone.coef.index.get_level_values(0) == alone.coef.index[0][0]
        gap = np.abs(path.coef.iloc[number].to_numpy() - alone.coef.to_numpy())[own]
        se = alone.std_error.to_numpy()[own]
        assert np.max(gap[se > 0] / se[se > 0]) < 1e-2
        assert path.table["edf"].iloc[number] == pytest.approx(alone.edf_total, abs=2e-2)


def test_a_path_that_ends_early_chooses_the_same_model(case):
    family, data, path = case
    chosen, whole = dr.fit(FORMULA[family], data, family), path.model("bic")
    assert chosen.solution.selected.lam[0] == path.best("bic")
    np.testing.assert_allclose(chosen.coef, whole.coef, atol=1e-7)
    # the criterion was far from its minimum for long
    best = int(np.argmin(path.table["bic"]))
    assert best + 2 * PAST_VALUES < len(path.lam)


def test_a_path_is_not_saturated_before_anything_is_selected():
    """The log-likelihood of its first models moves by what smoothing parameters settle."""
    data = simulated("gamma")
    path = dr.path(FORMULA["gamma"], data, "gamma", n_lam=40)
    assert not path.table["n_selected"].iloc[:4].any()
    chosen = dr.fit(FORMULA["gamma"], data, "gamma")
    best = path.best("bic")
    assert best / 2 < chosen.solution.selected.lam[0] < 2 * best
