"""Contract of every family: density, moments, cdf against SciPy; derivatives by differences."""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf

from deepregress.data import Response
from deepregress.errors import FamilyError, ResponseError
from deepregress.families import Family, family, names
from deepregress.families.base import CHUNK, upper_pairs

# family -> eta of five rows, scipy's distribution at the parameters (theta is a dict of vectors)
CASES = {
    "normal": (
        [[-1.0, -0.5], [0.0, 0.0], [2.0, 1.0], [30.0, 2.0], [0.3, -3.0]],
        lambda t: scipy.stats.norm(t["loc"], t["scale"]),
    ),
    "gamma": (
        [[-1.0, -0.5], [0.0, 0.0], [2.0, 1.0], [5.0, -2.0], [0.3, -4.0]],
        lambda t: scipy.stats.gamma(1 / t["dispersion"], scale=t["mean"] * t["dispersion"]),
    ),
    "bernoulli": (
        [[-3.0], [-0.2], [0.0], [1.0], [6.0]],
        lambda t: scipy.stats.bernoulli(t["prob"]),
    ),
    "poisson": (
        [[-2.0], [0.0], [1.0], [3.0], [6.0]],
        lambda t: scipy.stats.poisson(t["mean"]),
    ),
}


def case(name):
    eta, reference = CASES[name]
    eta = np.array(eta)
    fam = family(name)
    theta = fam.parameters_at(eta)
    frozen = reference(theta)
    y = np.asarray(frozen.rvs(random_state=np.random.default_rng(3)), dtype=float)
    return fam, eta, frozen, y


def response(y, **given):
    y = np.asarray(y, dtype=float)
    defaults = {"weights": np.ones(len(y)), "entry": None, "label": "y", "levels": None}
    return Response(lower=y, upper=y, **{**defaults, **given})


def rows(y):
    return response(y).rows()


def test_every_family_of_the_table_is_registered():
    assert set(CASES) <= set(names())


@pytest.mark.parametrize("name", CASES)
def test_density_is_scipys(name):
    fam, eta, frozen, y = case(name)
    expected = frozen.logpmf(y) if fam.discrete else frozen.logpdf(y)
    np.testing.assert_allclose(fam.logpdf(y, eta), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_moments_cdf_and_quantiles_are_scipys(name):
    fam, eta, frozen, y = case(name)
    np.testing.assert_allclose(fam.mean(eta), frozen.mean(), rtol=1e-10)
    np.testing.assert_allclose(fam.variance(eta), frozen.var(), rtol=1e-10)
    np.testing.assert_allclose(fam.cdf(y, eta), frozen.cdf(y), rtol=1e-8, atol=1e-12)
    for p in (0.001, 0.25, 0.5, 0.9, 0.999):
        got = fam.quantile(np.full(len(eta), p), eta)
        np.testing.assert_allclose(got, frozen.ppf(p), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_row_derivatives_are_central_differences(name):
    fam, eta, _, y = case(name)
    value, gradient, W = fam.row_derivatives(rows(y), eta)
    np.testing.assert_allclose(value, fam.logpdf(y, eta), rtol=1e-12, atol=1e-13)
    step = 1e-5
    weight = np.random.default_rng(0).normal(size=W.shape)
    third = fam.contracted_third(rows(y), eta, weight)
    for u in range(fam.n_units):
        shift = np.zeros(fam.n_units)
        shift[u] = step
        up_l, up_g, up_W = fam.row_derivatives(rows(y), eta + shift)
        down_l, down_g, down_W = fam.row_derivatives(rows(y), eta - shift)
        # central differences of step 1e-5: truncation 1e-10, rounding 1e-11 times the size of l
        scale = 1e-6 * (1 + np.abs(value))
        np.testing.assert_array_less(np.abs((up_l - down_l) / (2 * step) - gradient[:, u]), scale)
        for p, (k, m) in enumerate(upper_pairs(fam.n_units)):
            if k == u:
                difference = (up_g - down_g)[:, m] / (2 * step)
                scale = 1e-6 * (1 + np.abs(gradient).max(axis=1) + np.abs(W).max(axis=1))
                np.testing.assert_array_less(np.abs(-difference - W[:, p]), scale)
        contracted = np.sum(weight * (up_W - down_W), axis=1) / (2 * step)
        scale = 1e-6 * (1 + np.abs(W).max(axis=1) + np.abs(third).max(axis=1))
        np.testing.assert_array_less(np.abs(contracted - third[:, u]), scale)


@pytest.mark.parametrize("name", CASES)
def test_log_likelihood_is_the_base_class_one(name):
    fam, eta, _, y = case(name)
    data = {key: tf.constant(column) for key, column in rows(y).items()}
    expected = Family.log_likelihood(fam, data, tf.constant(eta))
    np.testing.assert_allclose(fam.log_likelihood(data, tf.constant(eta)), expected, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_do_not_depend_on_the_chunk_a_row_falls_in(name):
    fam, eta, _, y = case(name)
    n = CHUNK + 7
    index = np.arange(n) % len(y)
    long = fam.row_derivatives(rows(y[index]), eta[index])
    short = fam.row_derivatives(rows(y), eta)
    for many, few in zip(long, short, strict=True):
        np.testing.assert_allclose(many, few[index], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_start_values_are_near_the_intercept_only_maximum(name):
    fam, eta, _, _ = case(name)
    y = fam.sample(np.repeat(eta[1:2], 4000, axis=0), 1, seed=5)[0]
    start = fam.start(response(y))
    np.testing.assert_allclose(start, eta[1], atol=0.2)


@pytest.mark.parametrize("name", CASES)
def test_samples_have_the_moments_and_the_seed_decides(name):
    fam, eta, frozen, _ = case(name)
    draws = fam.sample(eta, 20000, seed=1)
    error = frozen.std() / np.sqrt(20000)
    assert draws.shape == (20000, len(eta))
    assert np.all(np.abs(draws.mean(axis=0) - frozen.mean()) < 5 * error)
    np.testing.assert_array_equal(draws[:3], fam.sample(eta, 20000, seed=1)[:3])
    assert not np.array_equal(draws[0], fam.sample(eta, 20000, seed=2)[0])


@pytest.mark.parametrize("name", CASES)
def test_total_probability_is_one(name):
    fam, eta, frozen, _ = case(name)
    for i in range(len(eta)):
        row = eta[i : i + 1]
        if fam.discrete:
            y = np.arange(frozen.ppf(1 - 1e-13).max() + 1)
            total = np.exp(fam.logpdf(y, np.repeat(row, len(y), axis=0))).sum()
        else:
            low, high = (fam.quantile(np.array([p]), row)[0] for p in (1e-12, 1 - 1e-12))
            # positive responses on the log scale, where a pole at 0 is integrable by trapezoids
            positive = low > 0 and fam.support.startswith("positive")
            grid = (np.geomspace if positive else np.linspace)(low, high, 200_001)
            density = np.exp(fam.logpdf(grid, np.repeat(row, len(grid), axis=0)))
            total = scipy.integrate.trapezoid(
                density * grid if positive else density, np.log(grid) if positive else grid
            )
        assert total == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "outside"), [("gamma", 0.0), ("poisson", 1.5), ("bernoulli", 2.0)]
)
def test_a_response_outside_the_support_is_refused(name, outside):
    with pytest.raises(ResponseError, match=rf"'y': family '{name}' needs .* row 1 .*\(1 of 3"):
        family(name).check(response([1.0, outside, 1.0]))


def test_a_factor_response_is_refused_where_numbers_are_needed():
    with pytest.raises(ResponseError, match="has the levels no, yes"):
        family("normal").check(response([0.0, 1.0], levels=("no", "yes")))


@pytest.mark.parametrize(
    ("given", "links", "match"),
    [
        ("norml", None, "did you mean 'normal'"),
        ("normal", {"scal": "log"}, "'scal' is not a parameter"),
        ("bernoulli", "probbit", "link 'probbit' is not known"),
        (3, None, "a name or a Family"),
    ],
)
def test_unknown_names_are_refused(given, links, match):
    with pytest.raises(FamilyError, match=match):
        family(given, links)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_probability_links_are_exact_in_both_tails(link):
    inverse = {
        "logit": scipy.stats.logistic.cdf,
        "probit": scipy.stats.norm.cdf,
        "cloglog": lambda e: -np.expm1(-np.exp(e)),
        "cauchit": scipy.stats.cauchy.cdf,
    }[link]
    eta = np.array([[-30.0], [-5.0], [0.3], [2.0], [3.4]])
    fam = family("bernoulli", link)
    p = inverse(eta[:, 0])
    np.testing.assert_allclose(fam.mean(eta), p, rtol=1e-9)
    np.testing.assert_allclose(fam.logpdf(np.ones(5), eta), np.log(p), rtol=1e-9, atol=1e-12)
    back = fam.parameters[0].link.forward(p[1:4])
    np.testing.assert_allclose(back, eta[1:4, 0], rtol=1e-9)
    value, gradient, W = fam.row_derivatives(rows(np.ones(5)), eta)
    assert np.isfinite(value).all() and np.isfinite(gradient).all() and np.isfinite(W).all()


def test_unit_deviance_is_twice_the_distance_to_the_saturated_fit():
    y = np.array([0.5, 2.0, 7.0])
    mean = np.array([1.0, 2.5, 4.0])
    for name, phi in (("normal", 0.49), ("gamma", 0.3)):
        fam = family(name)
        dispersion = {"normal": np.sqrt(phi), "gamma": phi}[name]
        link_mean, link_phi = fam.parameters[0].link, fam.parameters[1].link
        at = lambda m, lm=link_mean, lp=link_phi, d=dispersion: np.column_stack(  # noqa: E731
            [lm.forward(m), np.full(3, lp.forward(np.float64(d)))]
        )
        expected = 2 * phi * (fam.logpdf(y, at(y)) - fam.logpdf(y, at(mean)))
        np.testing.assert_allclose(fam.unit_deviance(y, mean), expected, rtol=1e-10)
        assert fam.dispersion_of(dispersion) == pytest.approx(phi)
    counts = np.array([0.0, 2.0, 7.0])
    expected = 2 * (scipy.stats.poisson.logpmf(counts, np.maximum(counts, 1e-300))
                    - scipy.stats.poisson.logpmf(counts, mean))  # fmt: skip
    np.testing.assert_allclose(family("poisson").unit_deviance(counts, mean), expected, rtol=1e-9)


def test_a_softplus_link_of_large_predictors_is_the_identity():
    y, eta = np.array([500.0, 1500.0]), np.array([[600.0, -3.0], [1400.0, -2.0]])
    soft = family("gamma", "softplus").row_derivatives(rows(y), eta)
    plain = family("gamma", "identity").row_derivatives(rows(y), eta)
    for got, expected in zip(soft, plain, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    weight = np.ones((2, 3))
    np.testing.assert_allclose(
        family("gamma", "softplus").contracted_third(rows(y), eta, weight),
        family("gamma", "identity").contracted_third(rows(y), eta, weight),
        rtol=1e-10,
    )
