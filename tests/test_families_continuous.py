"""Continuous families: log-densities against SciPy and 50-digit arithmetic, also at the extremes;
limits, supports and what is special to one family."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from deepregress.errors import FamilyError, FitError, ResponseError
from deepregress.families import family
from deepregress.families.base import upper_pairs
from deepregress.model import fit
from deepregress.response import Response

PRECISE = json.loads(
    (Path(__file__).parents[1] / "data" / "reference" / "families_precise.json").read_text()
)["points"]
"""Log-densities with their derivatives in the predictors, computed with mpmath."""


def response(y):
    y = np.asarray(y, dtype=float)
    return Response(lower=y, upper=y, weights=np.ones(len(y)), entry=None, label="y", levels=None)


# family -> SciPy's distribution at the parameters
SCIPY = {
    "logistic": lambda t: scipy.stats.logistic(t["loc"], t["scale"]),
    "gumbel": lambda t: scipy.stats.gumbel_r(t["loc"], t["scale"]),
    "gumbel_min": lambda t: scipy.stats.gumbel_l(t["loc"], t["scale"]),
    "cauchy": lambda t: scipy.stats.cauchy(t["loc"], t["scale"]),
    "student_t": lambda t: scipy.stats.t(t["df"], t["loc"], t["scale"]),
    "skewnormal": lambda t: scipy.stats.skewnorm(t["skewness"], t["loc"], t["scale"]),
    "lognormal": lambda t: scipy.stats.lognorm(t["scale"], scale=np.exp(t["loc"])),
    "loglogistic": lambda t: scipy.stats.fisk(1 / t["scale"], scale=np.exp(t["loc"])),
    "weibull": lambda t: scipy.stats.weibull_min(t["concentration"], scale=t["scale"]),
    "exponential": lambda t: scipy.stats.expon(scale=t["scale"]),
    "inverse_gaussian": lambda t: scipy.stats.invgauss(
        t["mean"] * t["dispersion"], scale=1 / t["dispersion"]
    ),
    "inverse_gamma": lambda t: scipy.stats.invgamma(t["concentration"], scale=t["scale"]),
    "pareto": lambda t: scipy.stats.pareto(t["concentration"], scale=t["scale"]),
    "gev": lambda t: scipy.stats.genextreme(-t["shape"], t["loc"], t["scale"]),
    "gpd": lambda t: scipy.stats.genpareto(t["shape"], scale=t["scale"]),
    "beta": lambda t: scipy.stats.beta(
        t["mean"] * t["precision"], (1 - t["mean"]) * t["precision"]
    ),
    "von_mises": lambda t: scipy.stats.vonmises(t["concentration"], t["loc"]),
}


@pytest.mark.parametrize("name", SCIPY)
def test_the_density_is_scipys(name):
    fam = family(name)
    eta = np.random.default_rng(1).uniform(-1.0, 1.0, size=(50, fam.n_units))
    frozen = SCIPY[name](fam.parameters_at(eta))
    y = frozen.rvs(random_state=np.random.default_rng(2))
    np.testing.assert_allclose(fam.logpdf(y, eta), frozen.logpdf(y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in SCIPY if n not in ("von_mises", "cauchy")])
def test_mean_and_variance_are_scipys(name):
    fam = family(name)
    eta = np.random.default_rng(3).uniform(-0.6, 0.6, size=(20, fam.n_units))
    frozen = SCIPY[name](fam.parameters_at(eta))
    for ours, theirs in ((fam.mean(eta), frozen.mean()), (fam.variance(eta), frozen.var())):
        finite = np.isfinite(theirs)
        np.testing.assert_allclose(ours[finite], theirs[finite], rtol=1e-8)
        assert np.all(ours[~finite] == np.inf)


@pytest.mark.parametrize("point", PRECISE, ids=lambda p: f"{p['family']}-{p['y']:g}")
def test_log_densities_and_derivatives_have_their_digits_everywhere(point):
    fam = family(point["family"])
    y, eta = np.array([point["y"]]), np.array([point["eta"]])
    data = response(y).rows()
    value, gradient, W = fam.row_derivatives(data, eta)
    size = 1.0 + abs(point["value"])
    assert value[0] == pytest.approx(point["value"], rel=1e-11, abs=1e-12 * size)
    size = 1.0 + np.abs(point["gradient"]).max() + np.abs(point["W"]).max()
    np.testing.assert_allclose(gradient[0], point["gradient"], rtol=1e-9, atol=1e-10 * size)
    np.testing.assert_allclose(W[0], point["W"], rtol=1e-8, atol=1e-9 * size)
    for index, third in enumerate(point["third"]):
        weight = np.zeros_like(W)
        weight[0, index] = 1.0
        size = 1.0 + np.abs(third).max() + np.abs(point["W"]).max()
        got = fam.contracted_third(data, eta, weight)[0]
        np.testing.assert_allclose(got, third, rtol=1e-7, atol=1e-8 * size)
    assert len(point["third"]) == len(upper_pairs(fam.n_units))


def test_the_gumbel_and_exponential_limits_of_shape_0():
    y, eta = np.array([-1.0, 0.3, 4.0]), np.array([[0.2, -0.3]] * 3)
    with_shape = np.column_stack([eta, np.zeros(3)])
    np.testing.assert_allclose(
        family("gev").logpdf(y, with_shape), family("gumbel").logpdf(y, eta), rtol=1e-14
    )
    positive = np.abs(y)
    np.testing.assert_allclose(
        family("gpd").logpdf(positive, with_shape[:, 1:]),
        family("exponential").logpdf(positive, eta[:, 1:]),
        rtol=1e-14,
    )
    for shape in (1e-12, -1e-12, 1e-9, 1e-4):
        with_shape[:, 2] = shape
        mean = family("gev").mean(with_shape)
        np.testing.assert_allclose(mean, 0.2 + np.exp(-0.3) * np.euler_gamma, rtol=1e-3)
        np.testing.assert_allclose(
            family("gev").variance(with_shape), np.exp(-0.6) * np.pi**2 / 6, rtol=1e-3
        )


def test_outside_its_support_a_shape_has_no_density():
    assert family("gev").logpdf(np.array([-20.0]), np.array([[0.0, 0.0, 0.2]]))[0] == -np.inf
    assert family("gev").cdf(np.array([-20.0]), np.array([[0.0, 0.0, 0.2]]))[0] == 0.0
    assert family("gpd").survival(np.array([20.0]), np.array([[0.0, -0.2]]))[0] == 0.0


def test_the_laplace_density_of_fits_is_a_density_with_a_rounded_peak():
    fam, eta = family("laplace"), np.array([[0.3, 0.5]])
    total = scipy.integrate.quad(
        lambda y: np.exp(fam.logpdf(np.array([y]), eta)[0]), -60.0, 60.0, points=[0.3], limit=200
    )[0]
    assert total == pytest.approx(1.0, abs=1e-8)
    y = np.linspace(-5.0, 5.0, 41)
    every = np.tile(eta, (41, 1))
    exact = scipy.stats.laplace(0.3, np.exp(0.5)).logpdf(y)
    beyond = np.abs(y - 0.3) > 0.5 * np.exp(0.5)
    difference = np.abs(fam.logpdf(y, every) - exact)
    assert difference.max() < 0.11
    assert difference[beyond].max() < 0.02


def test_laplace_regression_is_that_of_least_absolute_deviations():
    rng = np.random.default_rng(4)
    x = rng.uniform(-1.0, 1.0, 501)
    y = 1.0 + 2.0 * x + 0.5 * rng.laplace(size=501)
    model = fit("y ~ x", {"x": x, "y": y}, "laplace")
    result = scipy.optimize.linprog(
        np.concatenate([np.zeros(2), np.ones(1002)]),
        A_eq=np.column_stack([np.ones(501), x, np.eye(501), -np.eye(501)]),
        b_eq=y,
        bounds=[(None, None)] * 2 + [(0, None)] * 1002,
    )
    # the rounding of the peak moves estimates by a fraction of their standard errors
    se = model.std_error.to_numpy()[:2]
    assert np.abs((model.coef.to_numpy()[:2] - result.x[:2]) / se).max() < 0.5
    # information comes from the tenth of the rows next to the line
    exact = 0.5 / np.sqrt(501) / np.array([1.0, x.std()])
    np.testing.assert_allclose(se, exact, rtol=0.25)


def test_the_scale_of_a_pareto_is_the_smallest_response_or_the_given_threshold():
    rng = np.random.default_rng(5)
    x = rng.uniform(-1.0, 1.0, 2000)
    y = 3.0 * rng.uniform(size=2000) ** (-1.0 / np.exp(1.0 + 0.5 * x))
    model = fit("y ~ x", {"x": x, "y": y}, "pareto")
    assert model.converged
    assert np.exp(model.coef["scale", "(Intercept)"]) == pytest.approx(y.min(), rel=1e-7)
    known = fit({"concentration": "y ~ x", "scale": 3.0}, {"x": x, "y": y}, "pareto")
    assert known.converged
    errors = (known.coef.to_numpy() - [1.0, 0.5]) / known.std_error.to_numpy()
    assert np.abs(errors).max() < 3.0


def test_tweedie_is_a_sum_of_a_poisson_number_of_gammas():
    fam, eta = family("tweedie"), np.array([[0.4, -0.2, 0.3]])
    theta = {name: float(value[0]) for name, value in fam.parameters_at(eta).items()}
    p, phi, mean = theta["power"], theta["dispersion"], theta["mean"]
    rate, shape = mean ** (2 - p) / (phi * (2 - p)), (2 - p) / (p - 1)
    unit = phi * (p - 1) * mean ** (p - 1)
    number = np.arange(1, 200)
    for y in (0.01, 0.7, 5.0):
        density = np.sum(
            scipy.stats.poisson(rate).pmf(number)
            * scipy.stats.gamma(number * shape, scale=unit).pdf(y)
        )
        assert fam.logpdf(np.array([y]), eta)[0] == pytest.approx(np.log(density), rel=1e-12)
    assert fam.logpdf(np.zeros(1), eta)[0] == pytest.approx(-rate, rel=1e-13)
    assert fam.cdf(np.zeros(1), eta)[0] == pytest.approx(np.exp(-rate), rel=1e-13)
    assert fam.quantile(np.array([0.5 * np.exp(-rate)]), eta)[0] == 0.0


def test_angles_may_be_given_in_either_turn_and_come_back_in_one():
    fam, eta = family("von_mises"), np.array([[4.0, 1.0]] * 3)
    y = np.array([-2.0, 0.5, 3.0])
    for turned in ([-2.0 + 2 * np.pi, 0.5 - 2 * np.pi, 3.0 - 2 * np.pi],):
        np.testing.assert_allclose(fam.logpdf(turned, eta), fam.logpdf(y, eta), rtol=1e-12)
        np.testing.assert_allclose(fam.cdf(turned, eta), fam.cdf(y, eta), rtol=1e-12)
    with pytest.raises(ResponseError, match="angles in radians"):
        fam.check(response([10.0, 90.0, 270.0]))


OUTSIDE = {
    "lognormal": 0.0, "loglogistic": -1.0, "weibull": 0.0, "exponential": -0.1,
    "inverse_gaussian": 0.0, "inverse_gamma": -2.0, "pareto": 0.0, "gpd": -0.1,
    "beta": 1.0, "tweedie": -0.5, "bccg": 0.0, "von_mises": 7.0, "logistic": np.inf,
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_response_outside_the_support_is_refused(name):
    with pytest.raises(ResponseError, match=rf"'y': family '{name}' needs .* row 1 "):
        family(name).check(response([0.3, OUTSIDE[name], 0.5]))


def test_a_family_without_scipy_distribution_says_so():
    with pytest.raises(FamilyError, match="SciPy has no distribution of family 'shash'"):
        family("shash").frozen({})


def test_the_distribution_of_a_family_is_a_tfd_distribution():
    fam, eta = family("gev"), np.array([[0.0, 0.0, 0.1], [1.0, -0.5, -0.1]])
    distribution = fam.distribution(tf.constant(eta))
    draws = distribution.sample(2000, seed=1).numpy()
    assert draws.shape == (2000, 2)
    np.testing.assert_allclose(distribution.mean().numpy(), fam.mean(eta))
    assert np.all(
        np.abs(draws.mean(axis=0) - fam.mean(eta)) < 5 * np.sqrt(fam.variance(eta) / 2000)
    )
    y = distribution.quantile(np.array([0.2, 0.9])).numpy()
    np.testing.assert_allclose(distribution.cdf(y).numpy(), [0.2, 0.9], rtol=1e-12)
    np.testing.assert_allclose(distribution.stddev().numpy() ** 2, fam.variance(eta))


# family -> responses that try it: huge, tiny, nearly constant, outliers, next to the bounds
_RNG = np.random.default_rng(6)
_NORMAL, _POSITIVE, _UNIFORM = (
    _RNG.normal(size=200),
    _RNG.gamma(2.0, size=200),
    _RNG.uniform(size=200),
)
REAL = {
    "huge": 1e6 * _NORMAL, "tiny": 1e-6 * _NORMAL, "far": 1e8 + _NORMAL,
    "outlier": np.append(_NORMAL, 1e4), "two values": np.repeat([0.0, 1.0], 100),
    "ties": np.round(_NORMAL),
}  # fmt: skip
POSITIVE = {
    "huge": 1e6 * _POSITIVE, "tiny": 1e-6 * _POSITIVE, "steady": 5.0 + 1e-4 * _NORMAL,
    "outlier": np.append(_POSITIVE, 1e4), "near 0": np.append(_POSITIVE, 1e-12),
    "decades": np.exp(8.0 * _NORMAL),
}  # fmt: skip
SHARE = {
    "inner": 0.5 + 0.01 * _NORMAL, "edges": np.clip(_UNIFORM**20, 1e-12, None),
    "both": np.clip(np.round(_UNIFORM), 1e-9, 1 - 1e-9), "steady": 0.3 + 1e-5 * _NORMAL,
}  # fmt: skip
EXTREME = [
    *((name, kind, y) for name in ("laplace", "logistic", "gumbel", "gumbel_min", "cauchy",
       "student_t", "skewnormal", "shash", "gev") for kind, y in REAL.items()),
    *((name, kind, y) for name in ("lognormal", "loglogistic", "weibull", "exponential",
       "inverse_gaussian", "inverse_gamma", "pareto", "gpd", "tweedie", "bccg", "gamma")
      for kind, y in POSITIVE.items()),
    *(("beta", kind, y) for kind, y in SHARE.items()),
]  # fmt: skip


REFUSED = {
    ("shash", "outlier"), ("shash", "two values"), ("gev", "two values"), ("gpd", "steady"),
    ("tweedie", "steady"),
}  # fmt: skip
"""No maximum: tails or shapes run to infinity."""
AT_THE_EDGE = {("tweedie", kind) for kind in ("huge", "tiny", "outlier", "decades")}
"""Without zeros a Tweedie power runs to 2, a gamma: flat, or singular where rounding is larger."""


@pytest.mark.filterwarnings("ignore::deepregress.errors.ConvergenceWarning")
@pytest.mark.parametrize(("name", "kind", "y"), EXTREME, ids=[f"{n}-{k}" for n, k, _ in EXTREME])
def test_extreme_responses_end_in_a_finite_fit_or_in_our_error(name, kind, y):
    table = {"x": np.linspace(-1.0, 1.0, len(y)), "y": y}
    if (name, kind) in REFUSED:
        with pytest.raises(FitError, match="singular|information about some coefficients"):
            fit("y ~ x", table, name)
        return
    try:
        model = fit("y ~ x", table, name)
    except FitError as error:
        assert (name, kind) in AT_THE_EDGE and "singular" in str(error)
        return
    assert np.isfinite(model.coef).all()
    assert np.isfinite(model.loglik)
    assert not np.isnan(model.std_error).any()
    for which in ("mean", "median", "params"):
        assert not np.isnan(np.asarray(model.predict(which=which))).any()


def test_at_power_two_a_tweedie_is_a_gamma():
    y = POSITIVE["decades"]
    eta = np.tile([0.7, -0.4, 25.0], (len(y), 1))
    shape = np.exp(0.4)
    gamma = scipy.stats.gamma(shape, scale=np.exp(0.7) / shape)
    np.testing.assert_allclose(family("tweedie").logpdf(y, eta), gamma.logpdf(y), rtol=1e-7)
