"""Residuals against SciPy: tails, randomisation, bands."""

import numpy as np
import pytest
import scipy.stats

from deepregress import diagnostics
from deepregress.errors import PredictionError
from deepregress.families import family
from deepregress.quantile_residuals import quantile_residuals
from deepregress.response import Response

N = 4000


def exact(y: np.ndarray) -> Response:
    return Response(y, y, np.ones(len(y)), None, "y", None)


def predictors(*values: float, n: int = N) -> np.ndarray:
    return np.tile(np.array(values), (n, 1))


CASES = {
    "normal": (scipy.stats.norm(2.0, np.exp(0.5)), (2.0, 0.5)),
    "gamma": (scipy.stats.gamma(1 / np.exp(-1.0), scale=np.exp(0.7) * np.exp(-1.0)), (0.7, -1.0)),
    "poisson": (scipy.stats.poisson(np.exp(0.4)), (0.4,)),
    "bernoulli": (scipy.stats.bernoulli(1 / (1 + np.exp(0.3))), (-0.3,)),
}
each = pytest.mark.parametrize("name", list(CASES))


@each
def test_quantile_residuals_are_standard_normal_under_the_model(name: str) -> None:
    law, eta = CASES[name]
    y = law.rvs(N, random_state=1).astype(float)
    r = diagnostics.residuals(family(name), exact(y), predictors(*eta), "quantile", seed=0)
    assert scipy.stats.kstest(r, "norm").pvalue > 0.01


@pytest.mark.parametrize("name", ["normal", "gamma"])
def test_quantile_residuals_of_a_continuous_response(name: str) -> None:
    law, eta = CASES[name]
    y = law.ppf([1e-12, 1e-5, 0.1, 0.5, 0.9, 1 - 1e-5])
    r = quantile_residuals(family(name), exact(y), predictors(*eta, n=6), seed=0)
    assert r == pytest.approx(scipy.stats.norm.ppf(law.cdf(y)), abs=1e-5)


@pytest.mark.parametrize("name", ["normal", "gamma"])
def test_the_far_tail_is_finite_and_right(name: str) -> None:
    law, eta = CASES[name]
    y = law.isf([1e-12, 1e-20, 1e-60, 1e-200])
    r = quantile_residuals(family(name), exact(y), predictors(*eta, n=4), seed=0)
    expected = scipy.stats.norm.isf([1e-12, 1e-20, 1e-60, 1e-200])
    assert r == pytest.approx(expected, rel=1e-7)


def test_randomised_residuals_lie_between_the_steps() -> None:
    law, eta = CASES["poisson"]
    y = np.arange(12.0)
    rows = predictors(*eta, n=12)
    r = quantile_residuals(family("poisson"), exact(y), rows, seed=3)
    assert np.all(r >= scipy.stats.norm.ppf(law.cdf(y - 1)) - 1e-9)
    assert np.all(r <= scipy.stats.norm.ppf(law.cdf(y)) + 1e-9)
    again = quantile_residuals(family("poisson"), exact(y), rows, seed=3)
    other = quantile_residuals(family("poisson"), exact(y), rows, seed=4)
    assert np.array_equal(r, again)
    assert not np.array_equal(r, other)
    # a count that is all but impossible has a residual, not infinity
    far = quantile_residuals(family("poisson"), exact(np.array([200.0])), rows[:1], seed=0)
    assert 20 < far[0] < 40


def test_other_residuals() -> None:
    law, eta = CASES["gamma"]
    y = law.rvs(50, random_state=2)
    rows, gamma = predictors(*eta, n=50), family("gamma")
    mean, phi = np.exp(0.7), np.exp(-1.0)
    raw = diagnostics.residuals(gamma, exact(y), rows, "response", seed=0)
    assert raw == pytest.approx(y - mean)
    pearson = diagnostics.residuals(gamma, exact(y), rows, "pearson", seed=0)
    assert pearson == pytest.approx((y - mean) / law.std())
    deviance = diagnostics.residuals(gamma, exact(y), rows, "deviance", seed=0)
    unit = 2 * ((y - mean) / mean - np.log(y / mean))
    assert deviance**2 == pytest.approx(unit / phi)
    assert np.array_equal(np.sign(deviance), np.sign(y - mean))
    with pytest.raises(PredictionError, match="kinds are quantile, response.*did you mean 'pears"):
        diagnostics.residuals(gamma, exact(y), rows, "person", seed=0)


def test_bands_of_ordered_residuals() -> None:
    lower, upper = diagnostics.order_band(40, 0.95)
    draws = np.sort(np.random.default_rng(0).normal(size=(20_000, 40)), axis=1)
    # quantiles of 2e4 draws: standard error below 0.02, more in the outermost
    assert lower[5:-5] == pytest.approx(np.quantile(draws, 0.025, axis=0)[5:-5], abs=0.03)
    assert upper[5:-5] == pytest.approx(np.quantile(draws, 0.975, axis=0)[5:-5], abs=0.03)
    assert diagnostics.normal_scores(40) == pytest.approx(draws.mean(axis=0), abs=0.02)
