"""Inputs that once ended in NaN, in a foreign error or in minutes (benchmarks/extremes.py).

Sums over counts against direct sums and SciPy, probabilities where factors underflow, points with
a mass, and sizes beyond floating-point numbers.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.disk.arrow import Arrow
from deepregress.errors import ConvergenceWarning, DeepRegressWarning, FitError, ResponseError
from deepregress.families import censoring, family
from deepregress.inference.covariance import Inference
from deepregress.linalg import nearest_semidefinite
from deepregress.model import fit
from deepregress.objective import Derivatives
from deepregress.quantile_residuals import quantile_residuals
from deepregress.response import Response
from deepregress.solvers.newton import State, curvature


def response(y, **further):
    y = np.asarray(y, dtype=float)
    given = {"upper": y, "weights": np.ones(len(y)), "entry": None, "label": "y", "levels": None}
    return Response(lower=y, **{**given, **further})


@pytest.mark.parametrize("trials", [1, 40, 3000])
def test_tails_of_betabinomial_counts_are_sums_of_their_probabilities(trials):
    fam, rng = family("betabinomial"), np.random.default_rng(1)
    prob, precision = rng.uniform(0.01, 0.99, 12), 10.0 ** rng.uniform(-2, 4, 12)
    eta = np.column_stack([np.log(prob / (1 - prob)), np.log(precision), np.full(12, trials)])
    y = rng.integers(0, trials + 1, 12).astype(float)
    mass = scipy.stats.betabinom.pmf(
        np.arange(trials + 1),
        trials,
        (prob * precision)[:, None],
        ((1 - prob) * precision)[:, None],
    )
    below = np.arange(trials + 1) <= y[:, None]
    # SciPy's probabilities are good for nine digits at precision 1e4
    np.testing.assert_allclose(fam.cdf(y, eta), np.sum(mass * below, axis=1), rtol=1e-8)
    expected = np.sum(mass * ~below, axis=1)
    np.testing.assert_allclose(fam.survival(y, eta), expected, rtol=1e-8, atol=1e-15)


def test_tails_of_generalized_poisson_counts_at_any_size():
    fam, j = family("generalized_poisson"), np.arange(400_000.0)
    cases = ((2.0, 30.0, 50.0), (2.0, 3e3, 50.0), (1e5, 0.5, 99_500.0), (1e5, 0.5, 101_000.0))
    for mean, dispersion, y in cases:
        eta = np.log([[mean, dispersion]])
        mass = np.exp(fam.logpdf(j, np.repeat(eta, len(j), axis=0)))
        at = np.array([y])
        # the log-probabilities, of size 1e6, are rounded to ten digits
        np.testing.assert_allclose(fam.cdf(at, eta), mass[j <= y].sum(), rtol=1e-8)
        np.testing.assert_allclose(fam.survival(at, eta), mass[j > y].sum(), rtol=1e-8)
    assert np.isfinite(fam.logsurvival(np.array([1e9]), np.array([[10.0, 0.0]]))).all()


def test_the_geometric_distribution_is_scipys():
    fam, eta = family("geometric"), np.array([[-3.0], [0.5], [11.0]])
    y, p = np.array([0.0, 4.0, 1e5]), 1.0 / (1.0 + np.exp(eta[:, 0]))
    reference = scipy.stats.geom(p, loc=-1)
    np.testing.assert_allclose(fam.logpdf(y, eta), reference.logpmf(y), rtol=1e-9)
    np.testing.assert_allclose(fam.logsurvival(y, eta), reference.logsf(y), rtol=1e-9)
    values = fam.values(tf.constant(eta))
    np.testing.assert_allclose(fam.log_cdf(values, tf.constant(y)), reference.logcdf(y), rtol=1e-9)


def test_a_hurdle_whose_count_has_mean_zero_is_that_of_ones():
    # the zero-truncated Poisson distribution of a vanishing mean is the point 1
    fam, eta, y = family("hurdle"), np.full((3, 2), [-1700.0, 0.0]), np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(fam.mean(eta), 0.5)
    np.testing.assert_allclose(fam.variance(eta), 0.25)
    np.testing.assert_allclose(fam.cdf(y, eta), [0.5, 1.0, 1.0])
    np.testing.assert_allclose(fam.survival(y, eta), [0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("name", "eta", "atom", "upper"),
    [
        ("tweedie", [0.3, 0.3, 0.0], 0.0, 1.0),
        ("zero_inflated_beta", [0.0, 1.0, 0.2], 0.0, 0.5),
        ("zero_one_inflated_beta", [0.0, 1.0, 0.2, 0.5], 0.0, 0.5),
        ("one_inflated_beta", [0.0, 1.0, 0.2], 1.0, np.inf),
    ],
)
def test_a_point_with_a_mass_belongs_to_an_interval_that_begins_with_it(name, eta, atom, upper):
    fam, eta, one = family(name), np.array([eta]), tf.ones(1, tf.float64)
    rows = {"lower": one * atom, "upper": one * upper, "interval": one}
    found = censoring.log_likelihood(fam, rows, tf.constant(eta)).numpy()
    mass = np.exp(fam.logpdf(np.array([atom]), eta))
    whole = fam.cdf(np.array([upper]), eta) if np.isfinite(upper) else mass
    np.testing.assert_allclose(np.exp(found), whole, rtol=1e-7)
    # without it: what is left of the interval
    entry = {"lower": one * 0.7, "entry": one * atom} if atom == 0.0 else None
    if entry is not None:
        truncated = censoring.log_likelihood(fam, entry, tf.constant(eta)).numpy()
        exact = fam.logpdf(np.array([0.7]), eta) - np.log1p(-mass)
        np.testing.assert_allclose(truncated, exact, rtol=1e-7)


def test_quantile_residuals_are_random_where_a_point_has_a_mass():
    fam = family("zero_inflated_beta")
    eta = np.tile([0.0, 1.0, 0.5], (4000, 1))
    y = fam.sample(eta, 1, seed=2)[0]
    found = quantile_residuals(fam, response(y), eta, seed=3)
    assert len(np.unique(found[y == 0.0])) == np.sum(y == 0.0) > 2000
    assert scipy.stats.kstest(found, "norm").pvalue > 1e-3


def test_a_hessian_of_nan_is_an_error_not_a_loop():
    model = fit("y ~ x", {"y": np.arange(9.0) ** 2, "x": np.arange(9.0)}, verbose=0)
    information = model.solution.information
    lost = State(
        model.solution.coef, Derivatives(0.0, model.solution.coef, information + information)
    )
    lost.at.information.A[:] = np.nan

    class Lost:
        def derivatives(self, coef, *, convex):
            return lost.at

    with pytest.raises(FitError, match="not finite"):
        curvature(Lost(), lost, None, information.layout)


def test_weights_that_add_up_to_less_than_the_coefficients_are_refused():
    rng = np.random.default_rng(4)
    data = {"y": rng.normal(size=30), "x": rng.normal(size=30), "w": np.full(30, 1e-8)}
    with pytest.raises(FitError, match="weights that add up to 3e-07 for 2 coefficients"):
        fit("y ~ x", data, weights="w", verbose=0)


def test_moments_that_overflow_are_an_error_of_ours():
    y = np.r_[1e-300, np.linspace(1.0, 2.0, 20)]
    with pytest.raises(FitError, match="moments|not finite"):
        fit("y ~ 1", {"y": y}, "inverse_gamma", verbose=0)


def test_a_negative_information_is_raised_alike_in_all_bases():
    rng = np.random.default_rng(5)
    half, signs = rng.normal(size=(6, 6)), np.array([-0.3, -1e-3, 0.5, 1.0, 3.0, 1e4])
    H, S = (half * signs) @ half.T, half @ half.T
    raised = nearest_semidefinite(H, S)
    np.testing.assert_allclose(raised, (half * np.maximum(signs, 0.0)) @ half.T, atol=1e-9)
    T = rng.normal(size=(6, 6))
    other = nearest_semidefinite(T.T @ H @ T, T.T @ S @ T)
    np.testing.assert_allclose(other, T.T @ raised @ T, atol=1e-8)


def test_two_zero_counts_of_a_negative_binomial_of_tfd_end_in_numbers():
    # the information about the number of failures is 1e-300 there, sums of its reciprocal none
    with pytest.warns(ConvergenceWarning):
        model = fit("y ~ 1", {"y": np.zeros(2)}, tfp.distributions.NegativeBinomial, verbose=0)
    assert np.isfinite(model.std_error).all() and np.isfinite(model.loglik)


def test_a_pivot_whose_reciprocal_leaves_the_floats_is_refused():
    x = np.linspace(-1.0, 1.0, 40)
    solution = fit("y ~ x", {"x": x, "y": x + np.sin(9.0 * x)}, "normal").solution
    A = solution.information.A.copy()
    A[1, :] = A[:, 1] = 0.0
    A[1, 1] = 1e-320
    with pytest.raises(FitError, match="singular"):
        Inference.of(replace(solution, information=Arrow.dense(A)))


def test_the_open_end_of_a_censored_angle_is_opposite_to_its_location():
    fam, eta = family("von_mises"), np.array([[0.5, 1.0], [-2.0, 0.0]])
    for end, below in ((np.inf, 1.0), (-np.inf, 0.0)):
        np.testing.assert_allclose(fam.cdf(np.full(2, end), eta), below, atol=1e-15)
        np.testing.assert_allclose(fam.survival(np.full(2, end), eta), 1.0 - below, atol=1e-15)


@pytest.mark.parametrize("mean", [1e16, 1e25, np.inf])
def test_quantiles_of_counts_beyond_whole_floats_end(mean):
    found = family("poisson").quantile(np.array([0.5]), np.log([[mean]]))
    if np.isfinite(mean):
        np.testing.assert_allclose(found, mean, rtol=1e-6)
    else:
        assert found[0] > 1e99


@pytest.mark.parametrize("name", ["beta", "zero_inflated_beta", "zero_one_inflated_beta"])
def test_a_beta_whose_mean_rounds_to_an_end_is_a_point_there(name):
    own = family(name)
    eta = np.zeros((2, own.n_units))
    eta[:, 0] = [400.0, -800.0]
    rest = 1.0 - own.cdf(np.zeros(2), eta)
    assert np.isfinite(own.quantile(np.array([0.9, 0.9]), eta)).all()
    np.testing.assert_allclose(
        own.cdf(np.full(2, 0.5), eta)[0], own.cdf(np.zeros(2), eta)[0], atol=1e-300
    )
    np.testing.assert_allclose(
        own.cdf(np.full(2, 0.5), eta)[1] + own.survival(np.full(2, 0.5), eta)[1], 1.0
    )
    assert np.isfinite(rest).all()


def test_an_inflated_beta_needs_responses_that_vary_between_its_masses():
    x = np.linspace(0.0, 1.0, 60)
    y = np.where(x > 0.4, 0.3, 0.0)
    with pytest.raises(ResponseError, match=r"constant \(0.3 in all .* not at a point mass\)"):
        fit("y ~ x", {"y": y, "x": x}, family="zero_inflated_beta", verbose=0)


def test_a_beta_sharper_than_scipys_is_a_distribution_still():
    fam, eta = family("beta"), np.array([[0.7, np.log(1e30)]])
    mean = fam.mean(eta)
    assert fam.cdf(mean - 1e-5, eta) == 0.0 and fam.cdf(mean + 1e-5, eta) == 1.0
    np.testing.assert_allclose(fam.quantile(np.array([0.1]), eta), mean, atol=1e-6)


def test_smoothing_ends_where_the_likelihood_branches():
    # the information of a skew normal is singular at skewness 0: V grows without bound there
    rng = np.random.default_rng(1)
    x1, x2 = rng.uniform(size=(2, 10_000))
    wave = np.sin(2 * np.pi * x1[:, None] + np.arange(3)) + 2 * (x2[:, None] - 0.5) ** 2
    fam = family("skewnormal")
    y = np.asarray(fam.sample(0.4 * wave, 1, seed=2))[0]
    smooths = "s(x1, bs='ps') + s(x2, bs='ps')"
    formula = {"loc": f"y ~ {smooths}", "scale": f"~ {smooths}", "skewness": f"~ {smooths}"}
    with pytest.warns(ConvergenceWarning, match="smoothing parameters not converged"):
        model = fit(formula, {"y": y, "x1": x1, "x2": x2}, family="skewnormal", verbose=0)
    assert sum(step.phase == "Newton on V" for step in model.solution.trace) < 20
    assert np.isfinite(model.std_error).all()


@pytest.mark.parametrize("name", ["cotram", "boxcox", "drift"])
def test_a_transformation_of_a_constant_is_refused(name):
    with pytest.raises(ResponseError, match="needs a response that varies"):
        fit("y ~ x", {"y": np.full(20, 3.0), "x": np.arange(20.0)}, name)


def test_counts_whose_tail_falls_by_less_than_their_reciprocal_have_no_mean():
    rng = np.random.default_rng(2)
    y = np.r_[1e9, rng.poisson(5.0, 149)].astype(float)
    model = fit("y ~ 1", {"y": y}, "cotram")
    far, further = model.predict(which="quantile", at=[1.0 - 1e-9, 1.0 - 1e-12])[0]
    assert np.log(1e3) < np.log(further / far)
    assert np.all(np.isinf(model.predict()))


@pytest.mark.slow
def test_drift_ends_with_numbers_beside_an_outlier():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=60)
    y = np.sin(6 * x) + rng.normal(size=60)
    y[0] = 1e12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepRegressWarning)
        model = fit("y ~ s(x)", {"y": y, "x": x}, "drift")
    assert np.isfinite(model.loglik)
    assert not np.isnan(model.predict()).any()


def test_drift_of_huge_responses_has_means():
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    means = [fit("y ~ 1", {"y": scale * y}, "drift").predict()[0] / scale for scale in (1.0, 1e90)]
    assert means[1] == pytest.approx(means[0], abs=1e-3)


def test_a_fit_without_degrees_of_freedom_has_no_adjusted_r_squared():
    y = np.random.default_rng(0).exponential(size=12)
    model = fit("y ~ g", {"y": y, "g": [f"l{i}" for i in range(12)]}, "exponential")
    assert "R-sq" not in str(model.summary())
