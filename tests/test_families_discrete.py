"""Count families: densities, tails and derivatives in the limits, draws, recovery, odd responses.

What every family must do is in test_family_contract.py; here is what is particular to counts.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.errors import DeepRegressError, DeepRegressWarning, ResponseError
from deepregress.families import family
from deepregress.families.counting import Count, log_rising
from deepregress.model import fit
from deepregress.response import Response

N = 5000


def response(y, **given):
    y = np.asarray(y, dtype=float)
    columns = {"weights": np.ones(len(y)), "entry": None, "label": "y", "levels": None}
    return Response(**{"lower": y, "upper": y, **columns, **given})


def nbinom(mean, dispersion):
    r = 1.0 / dispersion
    return scipy.stats.nbinom(r, r / (r + mean))


def zero_modified(name, theta):
    """(log f, F) of an inflated or hurdle count from SciPy's count."""
    pi = theta["inflation"]
    count = scipy.stats.poisson(theta["mean"])
    if "dispersion" in theta:
        count = nbinom(theta["mean"], theta["dispersion"])
    hurdle = name.startswith("hurdle")
    factor = (1 - pi) / count.sf(0) if hurdle else 1 - pi
    zero = pi if hurdle else pi + (1 - pi) * count.pmf(0)
    return (
        lambda y: np.where(y == 0, np.log(zero), np.log(factor) + count.logpmf(y)),
        lambda y: np.where(y < 0, 0.0, 1 - factor * count.sf(y)),
    )


ETA = {
    "negative_binomial": [[-1.0, -2.0], [1.0, 0.5], [3.0, 2.0], [0.0, -12.0]],
    "negbin1": [[-1.0, -2.0], [1.0, 0.5], [3.0, 2.0], [0.0, -12.0]],
    "zip": [[1.0, -1.0], [0.5, 3.0], [2.0, -9.0], [-3.0, 0.0]],
    "zinb": [[1.0, -1.0, -1.0], [0.5, 1.0, 3.0], [2.0, -9.0, -9.0]],
    "hurdle": [[1.0, -1.0], [0.5, 3.0], [2.0, -9.0], [-3.0, 0.0]],
    "hurdle_negative_binomial": [[1.0, -1.0, -1.0], [0.5, 1.0, 3.0], [2.0, -9.0, -9.0]],
}


@pytest.mark.parametrize("name", ETA)
def test_density_and_distribution_function_are_those_of_scipys_counts(name):
    fam, eta = family(name), np.array(ETA[name])
    y = np.arange(40.0)
    for row in eta:
        many = np.repeat(row[None], len(y), axis=0)
        theta = {key: value[0] for key, value in fam.parameters_at(many[:1]).items()}
        if "inflation" in theta:
            log_density, cdf = zero_modified(name, theta)
        else:
            dispersion = theta["dispersion"] / (theta["mean"] if name == "negbin1" else 1.0)
            count = nbinom(theta["mean"], dispersion)
            log_density, cdf = count.logpmf, count.cdf
        np.testing.assert_allclose(fam.logpdf(y, many), log_density(y), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(fam.cdf(y, many), cdf(y), rtol=1e-8, atol=1e-10)
        # the tails that censored rows use are another computation, by quadrature
        values = fam.values(tf.constant(many))
        lower = fam.log_cdf(values, tf.constant(y)).numpy()
        upper = fam.log_survival(values, tf.constant(y)).numpy()
        np.testing.assert_allclose(np.exp(lower), fam.cdf(y, many), rtol=1e-8)
        np.testing.assert_allclose(np.exp(upper), fam.survival(y, many), rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("name", [*ETA, "geometric", "generalized_poisson"])
def test_probabilities_sum_to_one_with_the_stated_moments(name):
    fam = family(name)
    y = np.arange(3000.0)
    eta = np.repeat(np.linspace(0.7, -0.6, fam.n_units)[None], len(y), axis=0)
    p = np.exp(fam.logpdf(y, eta))
    mean, variance = p @ y, p @ y**2 - (p @ y) ** 2
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert fam.mean(eta[:1])[0] == pytest.approx(mean, rel=1e-10)
    assert fam.variance(eta[:1])[0] == pytest.approx(variance, rel=1e-10)
    np.testing.assert_allclose(fam.cdf(y, eta), np.cumsum(p), rtol=1e-9)
    draws = fam.sample(eta[:1], 40000, seed=3)[:, 0]
    assert draws.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / 40000))
    share = (draws == 0).mean()
    assert share == pytest.approx(p[0], abs=5 * np.sqrt(p[0] / 40000))


def test_betabinomial_is_scipys_and_has_the_binomial_limit():
    fam = family("betabinomial")
    y, n = np.arange(13.0), np.full(13, 12.0)
    eta = np.column_stack([np.full(13, 0.4), np.full(13, 1.2), n])
    p, precision = scipy.special.expit(0.4), np.exp(1.2)
    expected = scipy.stats.betabinom(12, p * precision, (1 - p) * precision)
    np.testing.assert_allclose(fam.logpdf(y, eta), expected.logpmf(y), rtol=1e-9)
    np.testing.assert_allclose(fam.cdf(y, eta), expected.cdf(y), rtol=1e-9)
    np.testing.assert_allclose(fam.mean(eta), expected.mean(), rtol=1e-10)
    np.testing.assert_allclose(fam.variance(eta), expected.var(), rtol=1e-10)
    eta[:, 1] = 30.0
    binomial = scipy.stats.binom(12, p)
    np.testing.assert_allclose(fam.logpdf(y, eta), binomial.logpmf(y), rtol=1e-10)
    many = eta[:, [0, 2]]
    np.testing.assert_allclose(family("binomial").cdf(y, many), binomial.cdf(y), rtol=1e-9)
    np.testing.assert_array_equal(family("binomial").quantile(np.full(13, 1.0), many), n)


@pytest.mark.parametrize("y", [0.0, 1.0, 7.0, 1e5])
def test_a_vanishing_dispersion_is_the_poisson_distribution(y):
    # l(a) - l(0) = a (y (y - 1) / 2 - m y + m^2 / 2) + O(a^2): also its derivative in log a
    mean = {0.0: 1e-6, 1.0: 0.5, 7.0: 4.0, 1e5: 1e5}[y]
    first = y * (y - 1.0) / 2.0 - mean * y + mean**2 / 2.0
    for log_dispersion in (-40.0, -30.0):
        at = tf.constant([log_dispersion], tf.float64)
        log_mean = tf.constant([np.log(mean)], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = Count(log_mean, at).log_probability(tf.constant([y], tf.float64))
        slope = tape.gradient(value, at).numpy()[0]
        poisson = scipy.stats.poisson(mean).logpmf(y)
        near = poisson + np.exp(log_dispersion) * first
        # rounding of sums of size y log y
        assert value.numpy()[0] == pytest.approx(near, abs=1e-15 * (1.0 + 20.0 * y))
        scale = np.exp(log_dispersion) * (y**2 + mean**2)
        assert slope == pytest.approx(np.exp(log_dispersion) * first, abs=1e-9 * scale)


def test_rising_factorials_lose_nothing():
    y, step = np.array([0.0, 1.0, 2.0, 60.0, 60.0]), np.array([3.0, 3.0, 1e-18, 1e-9, 40.0])
    exact = [np.log1p(np.arange(int(k)) * a).sum() for k, a in zip(y, step, strict=True)]
    got = log_rising(tf.constant(y), tf.math.log(tf.constant(step))).numpy()
    # two Stirling remainders of size up to 10 cancel for steps above 1
    np.testing.assert_allclose(got, exact, rtol=1e-9, atol=4e-15)


EXTREME = [
    ("negative_binomial", 1e5, [np.log(1e5), -1.0]),
    ("negative_binomial", 1e5, [np.log(9e4), -20.0]),
    ("negative_binomial", 0.0, [np.log(1e-6), 2.0]),
    ("negative_binomial", 3.0, [np.log(1e5), 5.0]),
    ("negbin1", 1e5, [np.log(1e5), 2.0]),
    ("generalized_poisson", 1000.0, [np.log(1000.0), 1.0]),
    ("zip", 0.0, [np.log(1e5), -20.0]),
    ("zip", 0.0, [np.log(1e-6), 0.0]),
    ("zip", 0.0, [0.0, 30.0]),
    ("zip", 4.0, [0.0, 30.0]),
    ("zinb", 0.0, [np.log(1e-6), 1.0, -30.0]),
    ("zinb", 0.0, [3.0, -1.0, 30.0]),
    ("hurdle", 1.0, [np.log(1e-6), 0.0]),
    ("hurdle", 1e5, [np.log(1e5), -30.0]),
    ("hurdle_negative_binomial", 1.0, [np.log(1e-6), 1.0, 0.0]),
    ("hurdle_negative_binomial", 5.0, [4.0, 6.0, 30.0]),
]


@pytest.mark.parametrize(("name", "y", "eta"), EXTREME)
def test_derivatives_in_the_extremes_are_central_differences(name, y, eta):
    fam, eta, step = family(name), np.array([eta]), 1e-4
    rows = {"lower": np.array([y])}
    value, gradient, W = fam.row_derivatives(rows, eta)
    weight = np.linspace(1.0, 2.0, W.shape[1])[None]
    third = fam.contracted_third(rows, eta, weight)
    assert all(np.isfinite(part).all() for part in (value, gradient, W, third))
    for u in range(fam.n_units):
        shift = np.zeros(fam.n_units)
        shift[u] = step
        up, down = (fam.row_derivatives(rows, eta + s) for s in (shift, -shift))
        # truncation 1e-8, rounding 1e-16 / 1e-4 of the size of what is differenced
        size = 1e-7 * (1.0 + max(abs(y), np.exp(eta[0, 0])))
        assert (up[0] - down[0])[0] / (2 * step) == pytest.approx(gradient[0, u], abs=size)
        column = [u * (2 * fam.n_units - u - 1) // 2 + u]
        assert -(up[1] - down[1])[0, u] / (2 * step) == pytest.approx(W[0, column[0]], abs=size)
        moved = ((up[2] - down[2]) @ weight[0])[0] / (2 * step)
        assert moved == pytest.approx(third[0, u], abs=size)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "zip", "hurdle", "binomial"])
def test_censored_counts_sum_to_one_over_a_partition(name):
    fam = family(name)
    ends = [(0.0, 0.0), (1.0, 3.0), (4.0, 4.0), (5.0, np.inf)]
    lower, upper = (np.array(bound) for bound in zip(*ends, strict=True))
    given = response(lower, upper=upper, trials=np.full(4, 9.0) if name == "binomial" else None)
    eta = np.repeat(np.linspace(0.9, 0.1, fam.n_units)[None], 4, axis=0)
    value, gradient, W = fam.row_derivatives(given.rows(), eta)
    assert np.exp(value).sum() == pytest.approx(1.0, abs=1e-12)
    # so do derivatives of the probabilities: sum P (log P)' = 0, sum P ((log P)'' + (..)'^2) = 0
    np.testing.assert_allclose(np.exp(value) @ gradient, 0.0, atol=1e-11)
    diagonal = [u * (2 * fam.n_units - u - 1) // 2 + u for u in range(fam.n_units)]
    np.testing.assert_allclose(np.exp(value) @ (gradient**2 - W[:, diagonal]), 0.0, atol=1e-10)


def simulated(name, seed=4):
    """x, y and the coefficients {parameter: (intercept, slope)} of n = 5000 rows."""
    fam, rng = family(name), np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, N)
    true = {"mean": (1.0, 0.6), "dispersion": (-0.5, 0.4), "inflation": (-0.8, 0.9),
            "one": (0.4, -0.5), "precision": (1.5, 0.3), "prob": (0.3, 0.8)}  # fmt: skip
    true = {p: true[p] for p in fam.parameter_names}
    eta = np.column_stack([a + b * x for a, b in true.values()])
    trials = rng.integers(1, 12, N).astype(float)
    y = fam.sample(np.column_stack([eta, trials]) if fam.known else eta, 1, seed=seed)[0]
    return pd.DataFrame({"x": x, "y": y, "n": trials}), true


COUNTS = (
    "poisson", "negative_binomial", "negbin1", "geometric", "generalized_poisson", "zip", "zinb",
    "hurdle", "hurdle_negative_binomial",
)  # fmt: skip
OTHERS = (
    "binomial", "betabinomial", "zero_inflated_beta", "one_inflated_beta", "zero_one_inflated_beta",
)  # fmt: skip


@pytest.mark.parametrize("name", [*COUNTS, *OTHERS])
def test_simulated_coefficients_come_back(name):
    data, true = simulated(name)
    left = "y / n" if family(name).known else "y"
    formula = {p: f"{left if i == 0 else ''} ~ x" for i, p in enumerate(true)}
    model = fit(formula, data, name)
    assert model.converged
    for parameter, pair in true.items():
        for coefficient, value in zip(("(Intercept)", "x"), pair, strict=True):
            error = model.std_error[(parameter, coefficient)]
            assert model.coef[(parameter, coefficient)] == pytest.approx(value, abs=3 * error)


def test_the_mean_of_the_negative_binomial_is_its_mean():
    draws = family("negative_binomial").sample(np.array([[1.5, 0.3]]), 200_000, seed=8)
    error = np.sqrt((np.exp(1.5) + np.exp(0.3 + 3.0)) / 200_000)
    assert draws.mean() == pytest.approx(np.exp(1.5), abs=4 * error)


@pytest.mark.parametrize("name", ["zero_inflated_beta", "one_inflated_beta",
                                  "zero_one_inflated_beta"])  # fmt: skip
def test_a_beta_with_point_masses(name):
    fam = family(name)
    eta = np.repeat(np.linspace(0.6, -0.9, fam.n_units)[None], 2001, axis=0)
    theta = {key: value[0] for key, value in fam.parameters_at(eta[:1]).items()}
    grid = np.linspace(0.0, 1.0, 2001)
    cdf = fam.cdf(grid, eta)
    share = {"zero_inflated_beta": 0.0, "one_inflated_beta": 1.0}.get(name, theta.get("one"))
    mass = theta["inflation"] * (1.0 - share), theta["inflation"] * share
    inner = scipy.stats.beta(
        theta["mean"] * theta["precision"], (1 - theta["mean"]) * theta["precision"]
    )
    assert cdf[-1] == 1.0
    expected = mass[0] + (1 - theta["inflation"]) * inner.cdf(grid[:-1])
    np.testing.assert_allclose(cdf[:-1], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fam.survival(grid, eta), 1.0 - cdf, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        fam.logpdf(grid[1:-1], eta[1:-1]),
        np.log(1 - theta["inflation"]) + inner.logpdf(grid[1:-1]),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    mean = mass[1] + (1 - theta["inflation"]) * inner.mean()
    second = mass[1] + (1 - theta["inflation"]) * (inner.var() + inner.mean() ** 2)
    assert fam.mean(eta[:1])[0] == pytest.approx(mean)
    assert fam.variance(eta[:1])[0] == pytest.approx(second - mean**2)
    inside = grid[100:-100:97]
    many = eta[: len(inside)]
    np.testing.assert_allclose(fam.quantile(fam.cdf(inside, many), many), inside, rtol=1e-8)
    draws = fam.sample(eta[:1], 20000, seed=2)
    assert draws.mean() == pytest.approx(mean, abs=5 * np.sqrt((second - mean**2) / 20000))


def test_the_loglog_link_is_the_complement_of_the_cloglog_link():
    eta = np.array([[-2.0], [0.3], [3.0], [30.0]])
    one, none = np.ones(4), np.zeros(4)
    complement = family("bernoulli", "cloglog")
    np.testing.assert_allclose(
        family("bernoulli", "loglog").logpdf(one, eta), complement.logpdf(none, -eta), rtol=1e-12
    )
    back = family("bernoulli", "loglog").parameters[0].link
    np.testing.assert_allclose(back.forward(back.inverse(eta[:3])), eta[:3], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "y", "match"),
    [
        ("negative_binomial", [1.0, 2.5], "needs counts 0, 1, 2, ...; row 1 is 2.5"),
        ("zip", [1.0, -1.0], "needs counts 0, 1, 2, ...; row 1 is -1"),
        ("zero_inflated_beta", [0.0, 1.0], "needs numbers >= 0 and < 1; row 1 is 1"),
        ("one_inflated_beta", [1.0, 0.0], "needs numbers > 0 and <= 1; row 1 is 0"),
        ("zip", [0.0, 0.0], "is 0 in all 2 rows: family 'zip' needs positive counts"),
        ("binomial", [0.0, 4.0], "row 1 has 4 successes in 3 trials"),
    ],
)
def test_impossible_responses_are_refused(name, y, match):
    with pytest.raises(ResponseError, match=match):
        family(name).check(response(y, trials=np.full(2, 3.0) if name == "binomial" else None))


def odd_responses():
    """Responses of 40 rows, half of them of level a, at which count models break."""
    rng, n = np.random.default_rng(1), 40
    level, x = np.where(np.arange(n) % 2, "a", "b"), np.linspace(-1.0, 1.0, n)
    single = np.zeros(n)
    single[7] = 1.0
    return {
        "counts of 1e5": rng.poisson(1e5 * np.exp(0.2 * x)),
        "overdispersed counts of 1e5": rng.negative_binomial(2, 2 / (2 + 1e5), n),
        "all zero but one": single,
        "all zero but one large": 1e5 * single,
        "all zero": np.zeros(n),
        "all equal": np.full(n, 3.0),
        "all one": np.ones(n),
        "no zeros": rng.poisson(5.0, n) + 1.0,
        "separated zeros": np.where(level == "a", 0.0, rng.poisson(4.0, n) + 1.0),
        "underdispersed": np.where(level == "a", 4.0, 5.0),
        "zero and 1e5": np.where(level == "a", 0.0, 1e5),
    }, pd.DataFrame({"x": x, "level": level, "row": [f"r{i}" for i in range(n)]})


ODD, FRAME = odd_responses()
FORMULAS = ("y ~ 1", "y ~ level", "y ~ x")


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", COUNTS)
def test_odd_responses_end_in_numbers_or_in_our_own_error(name, what):
    # 9 families x 11 responses x 4 formulas = 396 fits
    data = FRAME.assign(y=np.asarray(ODD[what], dtype=float))
    for formula in (*FORMULAS, "y ~ row"):
        check_fit(name, formula, data)


def check_fit(name, formula, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeepRegressWarning)
        try:
            model = fit(formula, data, name)
        except DeepRegressError:
            return
        assert np.isfinite(model.loglik)
        assert np.isfinite(model.coef).all()
        assert np.isfinite(model.std_error).all()
        assert np.isfinite(model.predict()).all()
