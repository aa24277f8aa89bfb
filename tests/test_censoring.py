"""Censored and truncated rows: one likelihood for all of them, in every univariate family."""

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

import deepregress as dr
from deepregress.errors import ResponseError
from deepregress.families import Family, family, kernels, names
from deepregress.families.censoring import log1mexp, only
from deepregress.families.kernels import upper_pairs
from deepregress.response import Response

# no order on the circle, no distribution function of classes; Tweedie's has no derivatives yet
EXCEPT = ("categorical", "multinomial", "ordinal", "von_mises", "tweedie")
# their coefficients come with the response, or they have no likelihood of rows
EXCEPT += ("cox", "colr", "boxcox", "lehmann", "lm", "cotram", "coxph")
UNIVARIATE = [name for name in names() if not family(name).multivariate and name not in EXCEPT]
# a point of a distribution has no density: intervals hold it or not, however short they are
WITH_POINTS = [name for name in UNIVARIATE if "inflated_beta" in name]
SUMMED = ("betabinomial", "generalized_poisson")  # a distribution function without a formula
CONTINUOUS = [name for name in UNIVARIATE if not family(name).discrete]
DISCRETE = [name for name in UNIVARIATE if family(name).discrete]
# a place where the density of every family is well away from its limits
ETA = {"logits": 0.2, "prob": 0.4, "inflation": -1.0, "power": 0.3, "df": 1.5, "shape": 0.15}


def eta_of(fam: Family, n: int) -> np.ndarray:
    """Predictors (n, U), a little different in every row."""
    first = [ETA.get(p.name, 0.3) for p in fam.parameters]
    return np.array(first) + 0.1 * np.random.default_rng(5).normal(size=(n, fam.n_units))


def response(lower, upper=None, **given):
    lower = np.asarray(lower, dtype=float)
    upper = lower if upper is None else np.asarray(upper, dtype=float)
    fields = {"weights": np.ones(len(lower)), "entry": None, "label": "y", "levels": None}
    return Response(lower, upper, **{**fields, **given})


def likelihood(fam, given, eta):
    """l_i without compilation."""
    rows = {name: tf.constant(column) for name, column in given.rows().items()}
    return fam.log_likelihood(rows, tf.constant(eta)).numpy()


def derivatives(fam, given, eta):
    """l, gradient and packed W without compilation."""
    rows = {name: tf.constant(column) for name, column in given.rows().items()}
    return [each.numpy() for each in kernels.derivatives(fam, rows, tf.constant(eta))]


# -- identities of METHODS 12 ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*CONTINUOUS} - {*WITH_POINTS}))
def test_interval_likelihoods_over_a_partition_sum_to_one(name):
    fam = family(name)
    eta = eta_of(fam, 1)
    cuts = fam.quantile(
        np.array([0.001, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999]), eta_of(fam, 1).repeat(7, 0)
    )
    lower, upper = np.r_[-np.inf, cuts], np.r_[cuts, np.inf]
    total = np.exp(likelihood(fam, response(lower, upper), eta.repeat(8, 0))).sum()
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_intervals_of_counts_hold_both_ends_and_sum_to_one(name):
    fam = family(name)
    eta = eta_of(fam, 1)
    trials = {"trials": np.full(4, 9.0)} if fam.known else {}
    top = 1.0 if fam.bounds[1] == 1.0 else 5.0
    lower, upper = np.array([-np.inf, 1.0, 2.0, top + 1]), np.array([0.0, 1.0, top, np.inf])
    if top == 1.0:
        lower, upper, trials = lower[:2], np.array([0.0, np.inf]), {}
    given = response(lower, upper, **trials)
    assert np.exp(likelihood(fam, given, eta.repeat(len(lower), 0))).sum() == pytest.approx(1.0)
    y = np.arange(2.0, 6.0) if top > 1.0 else np.array([0.0, 1.0])
    trials = {"trials": np.full(len(y), 9.0)} if fam.known else {}
    by_sum = np.exp(likelihood(fam, response(y, **trials), eta.repeat(len(y), 0))).sum()
    one = {"trials": np.full(1, 9.0)} if fam.known else {}
    whole = likelihood(fam, response([y[0]], [y[-1]], **one), eta)
    assert np.exp(whole[0]) == pytest.approx(by_sum, rel=1e-10)


@pytest.mark.parametrize("name", sorted({*CONTINUOUS} - {*WITH_POINTS, "laplace"}))
def test_an_interval_becomes_the_density_as_it_shrinks(name):
    fam = family(name)
    eta = eta_of(fam, 5)
    y = fam.quantile(np.array([0.1, 0.2, 0.4, 0.8, 0.9]), eta)
    exact = fam.logpdf(y, eta)
    spread = fam.quantile(np.full(5, 0.75), eta) - fam.quantile(np.full(5, 0.25), eta)
    for width, tolerance in ((1e-3, 1e-3), (1e-5, 1e-6), (1e-7, 1e-6), (1e-10, 1e-6)):
        lower, upper = y - 0.5 * width * spread, y + 0.5 * width * spread
        short = likelihood(fam, response(lower, upper), eta) - np.log(upper - lower)
        # the difference is O(width^2); the middle of a very short interval is rounded
        np.testing.assert_allclose(short, exact, atol=tolerance)


@pytest.mark.parametrize("name", UNIVARIATE)
def test_one_sided_rows_are_the_tails(name):
    fam = family(name)
    eta = eta_of(fam, 4)
    y = fam.quantile(np.array([0.05, 0.4, 0.7, 0.95]), eta)
    # a row censored at a point with a mass may have been that point, as one at a count that count
    minus = y - 1.0 if fam.discrete else np.where(np.isin(y, fam.atoms), y - 1e-15, y)
    none = np.full(4, np.inf)
    np.testing.assert_allclose(
        likelihood(fam, response(y, none), eta), fam.logsurvival(minus, eta), atol=1e-13
    )
    np.testing.assert_allclose(
        likelihood(fam, response(-none, y), eta), fam.logcdf(y, eta), atol=1e-13
    )
    mixed = response(np.where([1, 0, 0, 1], y, -np.inf), np.where([0, 1, 1, 1], y, np.inf))
    expected = [fam.logsurvival(minus, eta)[0], *fam.logcdf(y, eta)[1:3], fam.logpdf(y, eta)[3]]
    np.testing.assert_allclose(likelihood(fam, mixed, eta), expected, atol=1e-13)


@pytest.mark.parametrize("name", UNIVARIATE)
def test_truncation_divides_by_the_probability_of_being_seen(name):
    fam = family(name)
    eta = eta_of(fam, 4)
    y = fam.quantile(np.array([0.6, 0.7, 0.8, 0.95]), eta)
    entry = fam.quantile(np.full(4, 0.3), eta) - (1.0 if fam.discrete else 0.0)
    exit_ = np.array([np.inf, *fam.quantile(np.full(4, 0.99), eta)[1:]])
    plain = likelihood(fam, response(y), eta)
    late = likelihood(fam, response(y, entry=entry), eta)
    np.testing.assert_allclose(late, plain - fam.logsurvival(entry, eta), atol=1e-12)
    both = likelihood(fam, response(y, entry=entry, exit=exit_), eta)
    seen = np.where(np.isinf(exit_), 1.0, fam.cdf(exit_, eta)) - fam.cdf(entry, eta)
    np.testing.assert_allclose(both, plain - np.log(seen), atol=1e-10)
    never = likelihood(fam, response(y, entry=np.full(4, -np.inf)), eta)
    np.testing.assert_allclose(never, plain, atol=1e-14)


@pytest.mark.parametrize("name", sorted({*UNIVARIATE} - {*SUMMED, *WITH_POINTS}))
def test_derivatives_of_censored_and_truncated_rows_are_differences(name):
    fam = family(name)
    eta = eta_of(fam, 6)
    y = fam.quantile(np.array([0.2, 0.45, 0.6, 0.3, 0.45, 0.7]), eta)
    entry = np.where([0, 0, 0, 0, 1, 1], fam.quantile(np.full(6, 0.1), eta) - 1e-3, -np.inf)
    further = fam.quantile(np.full(6, 0.9), eta) + (1.0 if fam.discrete else 0.0)
    if fam.bounds[1] == 1.0 and fam.discrete:
        further = np.full(6, np.inf)
    given = response(
        np.where([1, 0, 1, 1, 1, 1], y, -np.inf),
        np.where([1, 1, 0, 0, 1, 0], y, np.where([0, 0, 0, 1, 0, 0], further, np.inf)),
        entry=entry,
    )
    value, gradient, W = derivatives(fam, given, eta)
    assert all(np.isfinite(each).all() for each in (value, gradient, W))
    weight = np.random.default_rng(0).normal(size=W.shape)
    rows = {key: tf.constant(column) for key, column in given.rows().items()}
    third = kernels.third(fam, rows, tf.constant(eta), tf.constant(weight))[0].numpy()
    step = 1e-5
    for u in range(1 if name == "pareto" else fam.n_units):  # its scale takes no derivatives
        shift = step * np.eye(fam.n_units)[u]
        up, down = derivatives(fam, given, eta + shift), derivatives(fam, given, eta - shift)
        # truncation about 1e-10 and rounding 1e-11 times the size of the function
        size = 1e-6 * (1.0 + np.abs(W).max())
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step), gradient[:, u], atol=size)
        for p, (k, m) in enumerate(upper_pairs(fam.n_units)):
            if k == u:
                difference = -(up[1] - down[1])[:, m] / (2 * step)
                np.testing.assert_allclose(difference, W[:, p], atol=size)
        contracted = np.sum(weight * (up[2] - down[2]), axis=1) / (2 * step)
        size = 1e-6 * (1.0 + np.abs(W).max() + np.abs(third).max())
        np.testing.assert_allclose(contracted, third[:, u], atol=size)


def test_far_tails_are_exact_on_the_log_scale():
    fam = family("normal")
    lower = np.array([-40.0, 30.0, 9.0, -np.inf, 38.0])
    upper = np.array([-39.0, 31.0, np.inf, -35.0, np.inf])
    a, b = scipy.special.log_ndtr(-np.abs(lower)), scipy.special.log_ndtr(-np.abs(upper))
    with np.errstate(invalid="ignore"):
        interval = np.maximum(a, b) + np.log1p(-np.exp(np.minimum(a, b) - np.maximum(a, b)))
    expected = [*interval[:2], a[2], b[3], a[4]]
    value, gradient, W = derivatives(fam, response(lower, upper), np.zeros((5, 2)))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert np.isfinite(gradient).all() and np.isfinite(W).all()
    # Mills' ratio: d log S(y) / dloc = f(y) / S(y)
    mills = np.exp(scipy.stats.norm.logpdf(lower[2]) - a[2])
    assert gradient[2, 0] == pytest.approx(mills, rel=1e-10)


def test_rows_that_need_no_probability_leave_no_trace_of_it():
    # log(1 - F(y)) is -inf in float64 at the exact outlier, and its derivative is not a number
    x = tf.constant([[40.0], [1.0]], tf.float64)
    where = tf.constant([[False], [True]])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.math.log(1.0 - tf.math.erf(only(x, where)))
            kept = tf.reduce_sum(tf.where(where, value, 0.0))
        first = tape.gradient(kept, x)
    second = outer.gradient(first, x)
    assert first[0, 0] == 0.0 and second[0, 0] == 0.0
    assert np.isfinite(first).all() and np.isfinite(second).all() and first[1, 0] != 0.0


def test_log_of_one_minus_exp_keeps_its_digits_and_derivatives():
    x = tf.constant([-1e-12, -0.5, -1.0, -40.0, -800.0, -np.inf], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        value = log1mexp(x)
        slope = tape.gradient(value, x)
    at = x.numpy()
    np.testing.assert_allclose(value[:2], np.log(-np.expm1(at[:2])), rtol=1e-14)
    np.testing.assert_allclose(value[2:], np.log1p(-np.exp(at[2:])), rtol=1e-14)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(slope, -1.0 / np.expm1(-at), rtol=1e-12)
    curvature = tape.gradient(slope, x).numpy()
    assert np.isfinite(curvature).all()
    assert curvature[1] == pytest.approx(-np.exp(0.5) / np.expm1(0.5) ** 2, rel=1e-12)


# -- fits ------------------------------------------------------------------------------------------


def test_right_censored_exponential_has_the_closed_form():
    rng = np.random.default_rng(0)
    group = np.repeat(["a", "b"], 200)
    time = rng.exponential(np.where(group == "a", 2.0, 5.0))
    limit = rng.uniform(1.0, 6.0, size=400)
    data = {"t": np.minimum(time, limit), "d": (time <= limit).astype(int), "g": group}
    model = dr.fit("Surv(t, d) ~ g", data, "exponential")
    rate = [data["d"][group == k].sum() / data["t"][group == k].sum() for k in "ab"]
    loglik = sum(
        data["d"][group == k].sum() * (np.log(r) - 1) for k, r in zip("ab", rate, strict=True)
    )
    np.testing.assert_allclose(
        model.coef.to_numpy(), [-np.log(rate[0]), np.log(rate[0] / rate[1])], rtol=1e-7
    )
    assert model.loglik == pytest.approx(loglik, rel=1e-12)
    events = [data["d"][group == k].sum() for k in "ab"]
    assert model.std_error.iloc[0] == pytest.approx(events[0] ** -0.5, rel=1e-6)


def test_a_weight_of_two_is_a_censored_row_twice():
    rng = np.random.default_rng(1)
    x = rng.normal(size=60)
    y = 1.0 + x + rng.normal(size=60)
    data = {"x": x, "y": np.clip(y, 0.0, 2.5), "w": rng.integers(1, 4, size=60).astype(float)}
    weighted = dr.fit("cens(y, lower=0, upper=2.5) ~ x", data, weights="w")
    twice = {name: np.repeat(column, data["w"].astype(int)) for name, column in data.items()}
    plain = dr.fit("cens(y, lower=0, upper=2.5) ~ x", twice)
    np.testing.assert_allclose(weighted.coef, plain.coef, rtol=1e-8)
    assert weighted.loglik == pytest.approx(plain.loglik, rel=1e-10)


def test_bounds_that_are_equal_are_the_exact_fit():
    rng = np.random.default_rng(2)
    x = rng.normal(size=50)
    y = 1.0 + x + rng.normal(size=50)
    data = {"x": x, "y": y, "lo": y, "up": y}
    exact = dr.fit({"loc": "y ~ x", "scale": "~ x"}, data)
    bounds = dr.fit({"loc": "interval(lo, up) ~ x", "scale": "~ x"}, data)
    np.testing.assert_allclose(bounds.coef, exact.coef, rtol=1e-12)


def test_rounded_values_as_intervals_are_nearly_exact():
    rng = np.random.default_rng(3)
    x = rng.normal(size=300)
    y = 5.0 + x + rng.normal(size=300)
    data = {"x": x, "lo": np.round(y, 3) - 5e-4, "up": np.round(y, 3) + 5e-4, "y": y}
    exact = dr.fit({"loc": "y ~ x", "scale": "~ x"}, data)
    rounded = dr.fit({"loc": "interval(lo, up) ~ x", "scale": "~ x"}, data)
    np.testing.assert_allclose(rounded.coef, exact.coef, atol=1e-4)
    assert rounded.loglik - 300 * np.log(1e-3) == pytest.approx(exact.loglik, abs=0.05)


def test_a_smooth_of_a_censored_response_finds_the_curve():
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(size=600))
    y = np.sin(6.0 * x) + 0.3 * rng.normal(size=600)
    data = {"x": x, "y": np.maximum(y, -0.4)}
    model = dr.fit("cens(y, lower=-0.4) ~ s(x)", data)
    curve = model.predict({"x": x}, which="params", parameter="loc")
    naive = dr.fit("y ~ s(x)", data).predict({"x": x}, which="params", parameter="loc")
    # standard error of the curve about .3 sqrt(10 / 600) = .04, twice that where half is censored
    assert np.sqrt(np.mean((curve - np.sin(6.0 * x)) ** 2)) < 0.06
    assert np.sqrt(np.mean((naive - np.sin(6.0 * x)) ** 2)) > 0.15
    scale = np.exp(model.coef["scale", "(Intercept)"])
    assert scale == pytest.approx(0.3, abs=0.03)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "fam", "match"),
    [
        ("Surv(t, d)", {"t": [-1.0, 2.0], "d": [1, 1]}, "weibull", r"positive.* row 0 is -1"),
        ("Surv(t, d)", {"t": [-1.0, 2.0], "d": [0, 1]}, "weibull", r"a bound of row 0 is -1"),
        ("Surv(t, d)", {"t": [1.0, 2.0], "d": [0, 0]}, "weibull", "all 2 rows are right censored"),
        ("cens(t, lower=5)", {"t": [1.0, 2.0]}, "normal", "all 2 rows are left censored"),
        ("cens(t, lower=0)", {"t": [0.0, 2.0]}, "gamma", r"censored to \[-inf, 0\].*no probab"),
    ],
)
def test_what_a_family_cannot_have_is_refused(text, data, fam, match):
    with pytest.raises(ResponseError, match=match):
        dr.fit(f"{text} ~ 1", data, fam)


# -- counts whose probabilities are summed ---------------------------------------------------------


@pytest.mark.parametrize("name", SUMMED)
def test_censored_counts_without_a_distribution_function_are_sums(name):
    y = np.array([0, 1, 2, 5, 9, 20, 33, 64, 100, 150, 190, 199.0])
    n, row = len(y), np.arange(len(y)) % 3
    lower = np.where(row == 1, -np.inf, y)
    upper = np.where(row == 0, np.inf, np.where(row == 2, np.minimum(y + 7.0, 200.0), y))
    trials = {"trials": np.full(n, 200.0)} if name == "betabinomial" else {}
    given = response(lower, upper, **trials)
    fam = family(name).for_response(given)
    location = np.linspace(-1.0, 1.0, n) if trials else np.log(y + 2.0)
    eta = np.column_stack([location, np.linspace(-2.0, 5.0, n)])
    value, gradient, W = fam.row_derivatives(given.rows(), eta)
    counts = np.arange(201.0 if trials else 40_000.0)
    known = np.column_stack([eta, *trials.values()])
    for i in range(n):
        mass = np.exp(fam.logpdf(counts, np.repeat(known[i : i + 1], len(counts), axis=0)))
        inside = (counts >= lower[i]) & (counts <= upper[i])
        assert value[i] == pytest.approx(np.log(mass[inside].sum()), abs=1e-10)
    step = 1e-5
    differences = []
    for shift in step * np.eye(2):
        up, down = (fam.row_derivatives(given.rows(), eta + d) for d in (shift, -shift))
        differences.append([(high - low) / (2 * step) for high, low in zip(up, down, strict=True)])
    for u, (of_value, of_gradient, _) in enumerate(differences):
        np.testing.assert_allclose(of_value, gradient[:, u], atol=1e-6)
        np.testing.assert_allclose(-of_gradient[:, u], W[:, 2 * u], atol=1e-5)
    if trials:
        return  # its third derivatives take half a minute to compile
    third = fam.contracted_third(given.rows(), eta, np.ones((n, 3)))
    summed = np.stack([of_W.sum(axis=1) for _, _, of_W in differences], axis=1)
    np.testing.assert_allclose(summed, third, atol=1e-4)


def test_a_censored_generalized_poisson_is_recovered():
    rng, n = np.random.default_rng(3), 2000
    x = rng.uniform(size=n)
    eta = np.column_stack([1.0 + x, np.full(n, 0.3)])
    y = family("generalized_poisson").sample(eta, 1, seed=4)[0]
    data = {"x": x, "y": np.minimum(y, 6.0), "high": np.where(y >= 6.0, np.inf, y)}
    model = dr.fit("interval(y, high) ~ x", data, "generalized_poisson")
    error = np.abs(model.coef - np.array([1.0, 1.0, 0.3])) / model.std_error
    assert error.max() < 3.0


def test_censored_sums_within_a_mixture_are_refused():
    data = {"y": np.minimum(np.arange(20.0), 9.0), "high": np.r_[np.arange(9.0), [np.inf] * 11]}
    mixture = dr.mixture("generalized_poisson", "poisson")
    with pytest.raises(dr.errors.FamilyError, match="within another family"):
        dr.fit("interval(y, high) ~ 1", data, mixture)


@pytest.mark.parametrize("loc", [-3.1, -1.0, 0.0, 1.04, 2.5])
@pytest.mark.parametrize("arc", [(-3.0, -2.0), (2.0, 3.0), (3.0, 3.5), (-1.0, 1.9), (-3.0, 3.0)])
def test_a_censored_angle_has_the_probability_of_its_arc(loc, arc):
    # wherever the arc lies to the direction opposite to loc, where the distribution function begins
    fam, eta = family("von_mises"), np.array([[np.tan(loc / 2.0), np.log(2.0)]])
    rows = Response(
        np.array([arc[0]]), np.array([arc[1]]), np.ones(1), None, label="y", levels=None
    ).rows()
    density = scipy.stats.vonmises(2.0).pdf
    expected = scipy.integrate.quad(lambda angle: density(angle - loc), *arc)[0]
    found = fam.row_log_likelihood(rows, eta)[0]
    assert found == pytest.approx(np.log(expected), rel=1e-8)
    h, slope = 1e-5, fam.row_derivatives(rows, eta)[1][0]
    for i, step in enumerate(h * np.eye(2)):
        ends = [fam.row_log_likelihood(rows, eta + s * step)[0] for s in (1.0, -1.0)]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / (2.0 * h), rel=1e-5, abs=1e-8)


def test_angles_are_neither_left_nor_right_censored_and_not_within_mixtures():
    data = {"low": np.linspace(-1.0, 1.0, 20), "high": np.r_[np.linspace(-0.5, 1.0, 19), np.inf]}
    with pytest.raises(ResponseError, match="angles have no order"):
        dr.fit("interval(low, high) ~ 1", data, "von_mises", verbose=0)
    data["high"][-1] = 1.5
    assert dr.fit("interval(low, high) ~ 1", data, "von_mises", verbose=0).converged
    with pytest.raises(dr.errors.FamilyError, match="within a mixture"):
        dr.fit("interval(low, high) ~ 1", data, dr.mixture("von_mises", "von_mises"), verbose=0)
