"""The contract of every univariate family in the registry: what solvers and predictions rely on.

A family joins by being registered. Each is looked at around a centre of its predictors (zero, or
that of `CENTRES` where zero has no moments), at responses drawn from it and at extreme ones:
density, distribution function and quantiles agree with one another by quadrature; derivatives to
the third order are central differences; draws have the stated moments; Newton converges from the
start values and finds simulated coefficients; a change of unit changes nothing else.

Against other software the densities are held in test_families_continuous.py and
test_reference_families.py.
"""

import functools
import zlib

import numpy as np
import pytest
import tensorflow as tf

from deepregress.families import family, kernels, names
from deepregress.families.base import upper_pairs
from deepregress.model import fit
from deepregress.response import Response

# predictors around which variance and fourth moment exist
CENTRES = {
    "student_t": [0.0, 0.0, 3.0],
    "loglogistic": [0.0, -2.0],
    "inverse_gamma": [0.0, 2.5],
    "pareto": [2.5, 0.0],
    "gev": [0.0, 0.0, 0.0],
    "gpd": [0.0, 0.0],
    "lognormal": [0.0, -1.0],
    "bccg": [0.5, -1.5, 0.5],
    "shash": [0.0, 0.0, 0.0, 0.0],
    "poisson": [1.0],
    "von_mises": [0.0, 0.5],
    "skewnormal": [0.0, 0.0, 2.0],
    "zero_inflated_beta": [0.0, 1.5, -1.0],
    "one_inflated_beta": [0.0, 1.5, -1.0],
    "zero_one_inflated_beta": [0.0, 1.5, -1.0, 0.0],
}
SHAPES = {"gev": 2, "gpd": 1}
"""Predictors that stay within 0.1: moments end at 1/4."""
NO_MOMENTS = {"cauchy": "has none", "von_mises": "its mean is a direction"}
ROUNDED = {"laplace": "its log-density has a rounded peak, see test_families_continuous"}
NO_FIT = {
    "pareto": "its scale has no derivative, see test_families_continuous",
    "binomial": "needs trials",
    "betabinomial": "needs trials",
}
N_ROWS = 12
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
_TAIL = np.geomspace(1e-5, 0.3, 26)
PROBABILITIES = np.concatenate([_TAIL, np.linspace(0.32, 0.68, 19), 1.0 - _TAIL[::-1]])
"""Edges of the intervals of quadrature: dense in the tails, where densities may have poles."""
BY_CLASS = ("categorical", "multinomial", "mixture")
"""Families of classes or of components: they have tests of their own."""


OF_THE_RESPONSE = ("transformation", "ordinal", "cox")
"""Modules of families whose transformation of the response is built from its values."""


def univariate():
    """Names of the families of one number whose parameters do not wait for the response."""
    return [
        name
        for name in names()
        if not family(name).multivariate
        and name not in BY_CLASS
        and not type(family(name)).__module__.endswith(OF_THE_RESPONSE)
    ]


def continuous():
    return [name for name in univariate() if not family(name).discrete]


@functools.cache
def case(name):
    """Family, predictors (N_ROWS, U) and one draw at each row."""
    fam = family(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    eta = rng.uniform(-0.4, 0.4, size=(N_ROWS, fam.n_units))
    if name in SHAPES:
        eta[:, SHAPES[name]] *= 0.25
    eta += np.asarray(CENTRES.get(name, [0.0] * fam.n_units))
    return fam, eta, fam.sample(eta, 1, seed=3)[0]


def response(y):
    y = np.asarray(y, dtype=float)
    return Response(lower=y, upper=y, weights=np.ones(len(y)), entry=None, label="y", levels=None)


@pytest.mark.parametrize("name", [n for n in continuous() if n not in ROUNDED])
def test_the_density_integrates_to_the_distribution_function(name):
    fam, eta, _ = case(name)
    eta = eta[:6]
    n = len(eta)
    edges = np.stack([fam.quantile(np.full(n, p), eta) for p in PROBABILITIES])
    F = np.stack([fam.cdf(edge, eta) for edge in edges])
    S = np.stack([fam.survival(edge, eta) for edge in edges])
    np.testing.assert_allclose(F + S, 1.0, rtol=1e-12)
    # not across point masses, nor where y rounds to the end of the support
    whole = (np.abs(edges) > 1e-12) & (np.abs(edges - 1.0) > 1e-9)
    expected = np.broadcast_to(PROBABILITIES[:, None], F.shape)
    np.testing.assert_allclose(F[whole], expected[whole], rtol=1e-7)
    inside = whole[:-1] & whole[1:] & (edges[1:] > edges[:-1])
    half = 0.5 * np.diff(edges, axis=0)
    y = (edges[:-1] + half)[..., None] + half[..., None] * NODES
    rows = np.broadcast_to(eta[None, :, None], (*y.shape, fam.n_units))
    density = np.exp(fam.logpdf(y.ravel(), rows.reshape(-1, fam.n_units)))
    integral = half * (density.reshape(y.shape) @ WEIGHTS)
    assert inside.sum() > len(edges) / 2
    np.testing.assert_allclose(integral[inside], np.diff(F, axis=0)[inside], rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in univariate() if n not in continuous()])
def test_the_probabilities_of_counts_sum_to_the_distribution_function(name):
    fam, eta, _ = case(name)
    top = int(min(np.max(fam.quantile(np.full(N_ROWS, 1 - 1e-9), eta)), 5000))
    counts = np.arange(top + 1.0)
    each = [fam.logpdf(np.full(N_ROWS, k), eta) for k in counts]
    total = np.cumsum(np.exp(each), axis=0)
    for k in (0, top // 2, top):
        np.testing.assert_allclose(fam.cdf(np.full(N_ROWS, float(k)), eta), total[k], rtol=1e-9)


@pytest.mark.parametrize("name", univariate())
def test_quantiles_invert_the_distribution_function(name):
    fam, eta, y = case(name)
    F = fam.cdf(y, eta)
    if fam.discrete:
        np.testing.assert_array_equal(fam.quantile(F * (1 - 1e-9), eta), y)
    else:
        inside = (F > 1e-9) & (F < 1 - 1e-9)
        np.testing.assert_allclose(fam.quantile(F, eta)[inside], y[inside], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(F + fam.survival(y, eta), 1.0, rtol=1e-10)


@pytest.mark.parametrize("name", univariate())
def test_tensor_probabilities_are_the_numpy_ones(name):
    fam, eta, y = case(name)
    values = fam.values(tf.constant(eta))
    for tensor, expected in (
        (fam.log_cdf(values, tf.constant(y)), fam.logcdf(y, eta)),
        (fam.log_survival(values, tf.constant(y)), fam.logsurvival(y, eta)),
    ):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-9, atol=1e-9)


def eager(kernel, fam, data, eta, *weight):
    """A kernel without its compilation, which takes most of the time of a short test."""
    rows = {name: tf.constant(column) for name, column in data.items()}
    found = kernel(fam, rows, tf.constant(eta), *(tf.constant(each) for each in weight))
    return [np.asarray(part) for part in found]


@pytest.mark.parametrize("name", univariate())
def test_row_derivatives_are_central_differences(name):
    fam, eta, y = case(name)
    data = response(y).rows()
    value, gradient, W = eager(kernels.derivatives, fam, data, eta)
    np.testing.assert_allclose(value, fam.logpdf(y, eta), rtol=1e-12, atol=1e-12)
    weight = np.random.default_rng(0).normal(size=W.shape)
    third = eager(kernels.third, fam, data, eta, weight)[0]
    step = 1e-5
    for u in range(fam.n_units):
        shift = np.zeros(fam.n_units)
        shift[u] = step
        up, down = (
            eager(kernels.derivatives, fam, data, eta + sign * shift) for sign in (1.0, -1.0)
        )
        # truncation 1e-10 times a higher derivative, rounding 1e-11 times the function
        size = 1.0 + np.abs(value) + np.abs(gradient).max(axis=1) + np.abs(W).max(axis=1)
        if (name, u) != ("pareto", 1):
            slope = (up[0] - down[0]) / (2 * step)
            np.testing.assert_array_less(np.abs(slope - gradient[:, u]), 1e-6 * size)
        for p, (k, m) in enumerate(upper_pairs(fam.n_units)):
            if u in (k, m) and (name, u) != ("pareto", 1):
                other = m if u == k else k
                slope = -(up[1] - down[1])[:, other] / (2 * step)
                np.testing.assert_array_less(np.abs(slope - W[:, p]), 1e-6 * size)
        slope = np.sum(weight * (up[2] - down[2]), axis=1) / (2 * step)
        size += np.abs(third).max(axis=1)
        if (name, u) != ("pareto", 1):
            np.testing.assert_array_less(np.abs(slope - third[:, u]), 3e-6 * size)


@pytest.mark.parametrize("name", [n for n in univariate() if n not in NO_MOMENTS])
def test_draws_have_the_moments_and_the_seed_decides(name):
    fam, eta, _ = case(name)
    eta, n = eta[:4], 40_000
    draws = fam.sample(eta, n, seed=1)
    mean, variance = fam.mean(eta), fam.variance(eta)
    assert np.isfinite(mean).all() and np.isfinite(variance).all()
    centred = draws - mean
    assert np.all(np.abs(centred.mean(axis=0)) < 5 * np.sqrt(variance / n))
    spread = np.sqrt(np.var(centred**2, axis=0) / n)
    # a fourth moment of a heavy tail is itself uncertain
    assert np.all(np.abs((centred**2).mean(axis=0) - variance) < 8 * spread)
    np.testing.assert_array_equal(draws, fam.sample(eta, n, seed=1))
    assert not np.array_equal(draws, fam.sample(eta, n, seed=2))


def simulated(name, n, slope):
    """A table with one covariate in the first predictor, and the true coefficients."""
    fam, eta, _ = case(name)
    x = np.random.default_rng(5).uniform(-1.0, 1.0, size=n)
    centre = np.asarray(CENTRES.get(name, [0.0] * fam.n_units), dtype=float)
    eta = np.tile(centre, (n, 1))
    eta[:, 0] += slope * x
    truth = np.concatenate([[centre[0], slope], centre[1:]])
    return {"x": x, "y": fam.sample(eta, 1, seed=8)[0]}, truth


def formula(name):
    return dict.fromkeys(family(name).parameter_names, "~ 1") | {
        family(name).parameter_names[0]: "y ~ x"
    }


def recovers(name, n):
    table, truth = simulated(name, n, 0.5)
    model = fit(formula(name), family=name, data=table)
    assert model.converged
    assert np.isfinite(model.std_error).all()
    return np.abs(model.coef.to_numpy() - truth) / model.std_error.to_numpy()


@pytest.mark.parametrize("name", [n for n in univariate() if n not in NO_FIT])
def test_newton_converges_from_the_start_values_to_the_truth(name):
    # 1000 rows and a fixed seed: all families share a chunk size with the other tests
    assert recovers(name, 1000).max() < 4.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in univariate() if n not in NO_FIT])
def test_five_thousand_rows_recover_the_coefficients(name):
    assert recovers(name, 5000).max() < 3.0


# how predictors move when the response is multiplied by c: times c, plus log c, or not at all
MOVED = {
    **dict.fromkeys(
        ("normal", "laplace", "logistic", "gumbel", "gumbel_min", "cauchy"), ("times", "log")
    ),
    "student_t": ("times", "log", None),
    "skewnormal": ("times", "log", None),
    "gev": ("times", "log", None),
    "shash": ("times", "log", None, None),
    "lognormal": ("plus", None),
    "loglogistic": ("plus", None),
    "weibull": ("log", None),
    "exponential": ("log",),
    "gamma": ("log", None),
    "inverse_gaussian": ("log", "minus"),
    "inverse_gamma": ("log", None),
    "pareto": (None, "log"),
    "gpd": ("log", None),
    "bccg": ("log", None, None),
}


def moved(eta, how, c):
    out = eta.copy()
    for u, kind in enumerate(how):
        if kind == "times":
            out[:, u] *= c
        elif kind is not None:
            out[:, u] += -np.log(c) if kind == "minus" else np.log(c)
    return out


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("c", [1e6, 1e-6])
def test_a_change_of_unit_moves_the_predictors_and_nothing_else(name, c):
    fam, eta, y = case(name)
    expected = fam.logpdf(y, eta) - np.log(c)
    got = fam.logpdf(c * y, moved(eta, MOVED[name], c))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in MOVED if n not in NO_FIT])
@pytest.mark.parametrize("c", [1e6, 1e-6])
def test_responses_of_any_size_converge_to_the_same_fit(name, c):
    table, _ = simulated(name, 400, 0.5)
    plain = fit(formula(name), family=name, data=table)
    scaled = fit(formula(name), family=name, data={**table, "y": c * table["y"]})
    assert plain.converged and scaled.converged
    expected = moved(plain.coef.to_numpy()[None, [0, *range(2, len(plain.coef))]], MOVED[name], c)
    slope = plain.coef.iloc[1] * (c if MOVED[name][0] == "times" else 1.0)
    got = scaled.coef.to_numpy()
    # Newton stops within 1e-5 standard errors
    error = 1e-4 * scaled.std_error.to_numpy()
    assert np.all(np.abs(np.insert(expected[0], 1, slope) - got) < error)
    shift = 0.0 if np.isnan(plain.loglik) else plain.loglik - 400 * np.log(c)
    assert scaled.loglik == pytest.approx(shift, rel=1e-7)
