"""DRIFT: the network increases, its derivatives are right, and classical models are special cases.

The network is held against central differences; densities against quadrature; fits with the
identity against `normal`, `weibull` and the other families themselves, with many classes or a free
network against `ordinal` and `cox`; the joint fit against a plain numerical optimiser.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import tensorflow as tf

import deepregress as dr
from deepregress.errors import FamilyError, PredictionError, ResponseError
from deepregress.families import numerical
from deepregress.families.flow import WIDTH, Flow, initial
from deepregress.families.neural import BASES
from deepregress.response import Response

drift = dr.families.drift


def network(seed, *, outputs=1, wild=1.0):
    """A network with random weights."""
    rng = np.random.default_rng(seed)
    free = initial(rng, outputs=outputs)
    free = free + wild * rng.normal(size=free.shape)
    return Flow(free, WIDTH, outputs, centre=1.0, spread=2.0, anchors=(-0.5, 2.5))


def rows(lower, upper=None, entry=None):
    upper = lower if upper is None else upper
    return Response(lower, upper, np.ones(len(lower)), entry, "y", None).rows()


# -- the network -----------------------------------------------------------------------------------


def test_the_network_increases_for_any_weights():
    grid = np.linspace(-40.0, 40.0, 1000)
    for seed in range(100):
        flow = network(seed, outputs=3, wild=2.0)
        phi, slope = flow.phi(grid)
        o, slopes = flow.features(grid)
        assert np.all(np.diff(phi) > 0) and np.all(slope > 0)
        assert np.all(np.diff(o, axis=0) > 0) and np.all(slopes > 0)


def test_the_slope_is_the_derivative():
    flow, u, step = network(3, outputs=2), np.linspace(-6.0, 8.0, 200), 1e-5
    for of in (flow.phi, flow.features):
        difference = (of(u + step)[0] - of(u - step)[0]) / (2 * step)
        np.testing.assert_allclose(of(u)[1], difference, rtol=1e-7, atol=1e-9)


def test_derivatives_in_the_weights_are_differences():
    flow, u, step = network(5, outputs=3), np.linspace(-4.0, 6.0, 15), 1e-5
    value, slope = flow.jacobian(u)

    def outputs(free):
        moved = replace(flow, free=free)
        pairs = zip(moved.phi(u), moved.features(u), strict=True)
        return [np.column_stack([phi, o]) for phi, o in pairs]

    for j in range(len(flow.free)):
        e = step * np.eye(len(flow.free))[j]
        up, down = outputs(flow.free + e), outputs(flow.free - e)
        np.testing.assert_allclose(value[:, :, j], (up[0] - down[0]) / (2 * step), atol=1e-8)
        np.testing.assert_allclose(slope[:, :, j], (up[1] - down[1]) / (2 * step), atol=1e-8)


def test_arrays_and_tensors_go_the_same_way_and_the_inverse_returns():
    flow, u = network(7), np.linspace(-30.0, 30.0, 101)
    for a, b in zip(flow.phi(u), flow.phi(tf.constant(u)), strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-13)
    np.testing.assert_allclose(flow.inverse(flow.phi(u)[0]), u, atol=1e-9)
    np.testing.assert_allclose(flow.phi(np.array(flow.anchors))[0], flow.anchors, atol=1e-14)


def test_tails_are_straight_lines():
    flow = network(1)
    _, slope = flow.phi(np.array([-1e6, -1e5, 1e5, 1e6]))
    np.testing.assert_allclose(slope[0], slope[1], rtol=1e-10)
    np.testing.assert_allclose(slope[2], slope[3], rtol=1e-10)


# -- the distribution ------------------------------------------------------------------------------


def model(base="normal", kind="location_scale", outcome="number", seed=2):
    """A family with a random network, and three rows of predictors."""
    units = 2 if kind == "general" else 0
    family = drift(kind, base=base, outcome=outcome, units=2, flow=network(seed, outputs=1 + units))
    eta = np.array([[0.5, 0.1], [1.0, -0.6], [-1.0, 0.3]])
    extra = np.array([[0.3, -0.8], [0.0, 1.0], [-0.5, 0.2]])[:, :units]
    return family, np.hstack([eta, extra])


@pytest.mark.parametrize("kind", ["location_scale", "general"])
@pytest.mark.parametrize("base", BASES)
def test_the_density_integrates_to_one(base, kind):
    family, eta = model(base, kind)
    low, high = (family.quantile(np.full(3, p), eta) for p in (0.001, 0.999))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = low + np.linspace(0, 1, 401)[:, None] * (high - low)
    half = 0.5 * np.diff(edges, axis=0)
    y = (edges[:-1] + half)[..., None] + half[..., None] * nodes
    at = np.broadcast_to(eta[None, :, None], (*y.shape, eta.shape[1]))
    density = np.exp(family.logpdf(y.ravel(), at.reshape(-1, eta.shape[1]))).reshape(y.shape)
    total = np.sum(half * (density @ weights), axis=0)
    np.testing.assert_allclose(total, 0.998, atol=1e-7)


@pytest.mark.parametrize("kind", ["location_scale", "general"])
def test_interval_probabilities_of_a_partition_sum_to_one(kind):
    family, eta = model("logistic", kind)
    cuts = np.array([-np.inf, -3.0, -1.0, 0.0, 0.5, 2.0, 6.0, np.inf])
    total = np.zeros(3)
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        seen = rows(np.full(3, low), np.full(3, high))
        total += np.exp(family.row_log_likelihood(seen, eta))
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


@pytest.mark.parametrize("outcome", ["count", "ordered"])
def test_probabilities_of_discrete_outcomes_sum_to_one(outcome):
    family, eta = model("logistic", outcome=outcome)
    if outcome == "ordered":
        family = replace(family, bounds=(0.0, 5.0))
    each = [np.exp(family.logpdf(np.full(3, float(k)), eta)) for k in range(6)]
    total, cdf = np.cumsum(each, axis=0), [family.cdf(np.full(3, float(k)), eta) for k in range(6)]
    np.testing.assert_allclose(total, cdf, rtol=1e-9)
    if outcome == "ordered":
        np.testing.assert_allclose(total[-1], 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        np.array(cdf) + [family.survival(np.full(3, float(k)), eta) for k in range(6)],
        1.0,
        rtol=1e-12,
    )


def test_rows_of_every_kind_have_the_likelihood_of_the_base_class():
    """The shortcut by precomputed outputs against the general code for any family."""
    family, eta = model("gumbel_min", outcome="positive")
    eta = np.tile(eta, (2, 1))
    inf = np.inf
    lower = np.array([1.0, 2.0, -inf, 0.5, 3.0, 1.5])
    upper = np.array([1.0, inf, 2.0, 0.9, 3.0, 2.5])
    entry = np.array([0.2, 0.1, 0.0, 0.3, 1.0, 0.4])
    for seen in (rows(lower, upper), rows(lower, upper, entry), rows(np.abs(upper[[0, 2, 3]]))):
        at = eta[: len(seen["lower"])]
        tensors = {name: tf.constant(column) for name, column in seen.items()}
        expected = family.log_likelihood(tensors, tf.constant(at)).numpy()
        np.testing.assert_allclose(family.row_log_likelihood(seen, at), expected, rtol=1e-10)
        np.testing.assert_allclose(family.row_derivatives(seen, at)[0], expected, rtol=1e-10)


@pytest.mark.parametrize("base", ["normal", "logistic", "gumbel", "gumbel_min"])
def test_moments_are_those_of_the_density(base):
    """The rule for all rows at once against that of any density, which knows no quantiles."""
    family, eta = model(base)
    eta = np.vstack([eta, [[40.0, -3.0], [-25.0, 2.0]]])
    np.testing.assert_allclose(family.mean(eta), numerical.mean(family, eta), rtol=1e-8, atol=1e-8)
    expected = numerical.variance(family, eta)
    np.testing.assert_allclose(family.variance(eta), expected, rtol=1e-7)


def test_short_intervals_have_the_density():
    family, eta = model()
    y, width = np.array([0.2, 1.0, -0.7]), 1e-6
    interval = family.row_log_likelihood(rows(y - width / 2, y + width / 2), eta)
    np.testing.assert_allclose(interval - np.log(width), family.logpdf(y, eta), atol=1e-6)


# -- classical models as special cases -------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    n = 300
    x, z = rng.uniform(-2, 2, n), rng.uniform(-2, 2, n)
    y = 1.0 + 0.8 * x + np.sin(2 * z) + np.exp(-0.5 + 0.3 * x) * rng.normal(size=n)
    t = np.exp(0.5 + 0.6 * x - 0.8 * rng.gumbel(size=n))
    latent = x + rng.logistic(size=n)
    classes = pd.cut(latent, [-np.inf, -1.5, -0.3, 1.2, np.inf], labels=list("abcd"))
    return pd.DataFrame(
        {"x": x, "z": z, "y": y, "t": np.minimum(t, 3.0), "event": (t < 3.0).astype(int)}
    ).assign(rating=pd.Categorical(classes, ordered=True), skew=np.exp(0.5 * y))


def test_the_identity_is_the_normal_location_scale_model(data):
    formula = {"loc": "y ~ x + s(z)", "scale": "~ x"}
    normal = dr.fit(formula, data)
    identity = dr.fit(formula, data, family=drift(flow="identity"))
    np.testing.assert_allclose(identity.coef, normal.coef, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(identity.std_error, normal.std_error, rtol=1e-6)
    assert identity.loglik == pytest.approx(normal.loglik, abs=1e-8)
    assert identity.edf_total == pytest.approx(normal.edf_total, abs=1e-6)


def test_the_identity_of_log_time_is_the_weibull_model(data):
    formula = "Surv(t, event) ~ x"
    family = drift(base="gumbel_min", outcome="positive", flow="identity")
    ours = dr.fit({"loc": formula, "scale": "~1"}, data, family=family)
    weibull = dr.fit({"scale": formula}, data, family="weibull")
    assert ours.loglik == pytest.approx(weibull.loglik, abs=1e-7)
    np.testing.assert_allclose(ours.coef["loc"], weibull.coef["scale"], rtol=1e-6)


def test_a_free_network_of_log_time_is_a_proportional_hazards_model(data):
    family = drift(base="gumbel_min", outcome="positive")
    ours = dr.fit({"loc": "Surv(t, event) ~ x", "scale": "~1"}, data, family=family)
    cox = dr.fit("Surv(t, event) ~ x", data, family="coxph")
    ratio = -ours.coef["loc", "x"] / np.exp(ours.coef["scale", "(Intercept)"])
    assert ratio == pytest.approx(cox.coef.iloc[0], abs=0.5 * cox.std_error.iloc[0])
    survival = ours.predict(data.head(20), "survival", at=[0.5, 1.0, 2.0])
    expected = cox.predict(data.head(20), "survival", at=[0.5, 1.0, 2.0])
    np.testing.assert_allclose(survival, expected, atol=0.06)


def test_a_flexible_network_of_classes_is_proportional_odds(data):
    family = drift(base="logistic", stiffness=1e-4)
    ours = dr.fit({"loc": "rating ~ x", "scale": "~1"}, data, family=family)
    ordinal = dr.fit("rating ~ x", data, family="ordinal")
    # three cut points: place and width are loc and scale, one is left to the network
    assert ours.loglik == pytest.approx(ordinal.loglik, abs=1e-3)
    slope = ours.coef["loc", "x"] / np.exp(ours.coef["scale", "(Intercept)"])
    assert slope == pytest.approx(ordinal.coef["location", "x"], abs=1e-2)
    probabilities = ours.predict(data.head(9), "prob")
    assert list(probabilities) == list("abcd")
    np.testing.assert_allclose(probabilities, ordinal.predict(data.head(9), "prob"), atol=2e-3)
    assert list(ours.predict(data, "class")) == list(ordinal.predict(data, "class"))
    np.testing.assert_allclose(ours.predict(data, "rps"), ordinal.predict(data, "rps"), atol=5e-3)
    scores = dr.compare(ordinal, ours, newdata=data, scores=["log_score", "rps"])
    assert abs(scores["rps", "difference"].iloc[1]) < 1e-4


def test_whole_numbers_are_classes_by_their_numbers(data):
    numbered = data.assign(grade=data["rating"].cat.codes + 3)
    fitted = dr.fit(
        {"loc": "grade ~ x"}, numbered, family=drift(base="logistic", outcome="ordered")
    )
    p = np.column_stack([fitted.predict(data, "prob", at=float(k)) for k in range(3, 7)])
    assert list(fitted.predict(data, "class")) == [f"{k + 3}" for k in p.argmax(axis=1)]
    reached = numbered["grade"].to_numpy()[:, None] <= np.arange(3, 7)
    expected = np.sum((p.cumsum(axis=1) - reached) ** 2, axis=1)
    np.testing.assert_allclose(fitted.predict(numbered, "rps"), expected, rtol=1e-9)


def test_classes_are_asked_of_ordered_outcomes_only(skewed, data):
    with pytest.raises(PredictionError, match="which='class'"):
        skewed.predict(data, "class")


# -- the fit ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skewed(data):
    return dr.fit({"loc": "skew ~ x + s(z)", "scale": "~ x"}, data, family="drift")


def test_a_transformation_is_found(skewed, data):
    """The logarithm makes the model true; the network costs little against knowing that."""
    known = dr.fit({"loc": "log(skew) ~ x + s(z)", "scale": "~ x"}, data)
    known_score = known.loglik - np.log(data["skew"]).sum()
    wrong = dr.fit({"loc": "skew ~ x + s(z)", "scale": "~ x"}, data)
    assert wrong.loglik < known_score - 30
    assert skewed.converged
    assert abs(skewed.loglik - known_score) < 12
    assert 2 < skewed.family.fitted_edf < 20
    assert skewed.aic < wrong.aic - 30
    grid = np.quantile(data["skew"], np.linspace(0.02, 0.98, 50))
    phi, _ = skewed.family.flow.phi(grid)
    assert np.corrcoef(phi, np.log(grid))[0, 1] > 0.995


def test_the_same_call_gives_the_same_numbers_and_the_seed_changes_them_little(data):
    fits = [
        dr.fit({"loc": "skew ~ x"}, data, family=drift(seed=seed, stiffness=30.0))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(fits[0].coef, fits[1].coef)
    assert abs(fits[2].loglik - fits[0].loglik) < 0.5
    np.testing.assert_allclose(fits[2].coef, fits[0].coef, atol=0.1 * fits[0].std_error.min())


def test_the_joint_fit_is_a_maximum(data):
    """L-BFGS from there finds nothing better: no penalty, network and coefficients together."""
    fitted = dr.fit({"loc": "skew ~ x"}, data, family=drift(stiffness=3.0))
    from_flow = fitted.family.flow
    X = np.column_stack([np.ones(len(data)), data["x"]])
    y, n_w = data["skew"].to_numpy(), len(from_flow.free)

    def loss(theta):
        phi, slope = replace(from_flow, free=theta[:n_w]).phi(y)
        sigma = np.exp(theta[-1])
        z = (phi - X @ theta[n_w : n_w + 2]) / sigma
        return 0.5 * np.sum(z**2) - np.sum(np.log(slope / sigma))

    start = np.concatenate([from_flow.free, fitted.coef])
    ours = -loss(start) - 0.5 * len(y) * np.log(2 * np.pi)
    assert ours == pytest.approx(fitted.loglik, abs=1e-8)
    # along the coefficients alone the penalised fit is the likelihood's maximum
    best = scipy.optimize.minimize(lambda b: loss(np.concatenate([start[:n_w], b])), start[n_w:])
    assert loss(start) - best.fun < 1e-6


def test_errors_allow_for_the_network(data):
    """Standard errors of a fit whose network is estimated are larger than given the network."""
    fitted = dr.fit({"loc": "skew ~ x"}, data, family=drift(stiffness=3.0))
    fixed = dr.fit({"loc": "skew ~ x"}, data, family=drift(flow=fitted.family.flow))
    np.testing.assert_allclose(fixed.coef, fitted.coef, atol=1e-3)
    assert np.all(fitted.std_error > fixed.std_error * 0.999)
    assert fitted.std_error["scale", "(Intercept)"] > 1.05 * fixed.std_error["scale", "(Intercept)"]


def test_a_stiff_network_is_the_straight_line_with_its_errors(data):
    formula = {"loc": "y ~ x + z", "scale": "~ x"}
    stiff = dr.fit(formula, data, family=drift(stiffness=1e7))
    straight = dr.fit(formula, data, family=drift(flow="identity"))
    np.testing.assert_allclose(stiff.coef, straight.coef, atol=1e-3)
    np.testing.assert_allclose(stiff.std_error, straight.std_error, rtol=1e-3)
    assert stiff.family.fitted_edf < 0.01


def test_weight_two_is_the_row_twice(data):
    weights = np.random.default_rng(2).integers(1, 3, len(data))
    once = data.assign(weight=weights.astype(float))
    twice = data.loc[data.index.repeat(weights)].reset_index(drop=True)
    family = drift(stiffness=10.0)
    weighted = dr.fit({"loc": "skew ~ x"}, once, family=family, weights="weight")
    repeated = dr.fit({"loc": "skew ~ x"}, twice, family=family)
    assert weighted.loglik == pytest.approx(repeated.loglik, abs=1e-3)
    np.testing.assert_allclose(weighted.coef, repeated.coef, atol=1e-4)


def test_a_saved_model_predicts_the_same(skewed, data, tmp_path):
    skewed.save(tmp_path / "drift.zip")
    loaded = dr.load(tmp_path / "drift.zip")
    for which in ("mean", "median", "logpdf"):
        np.testing.assert_array_equal(loaded.predict(data, which), skewed.predict(data, which))


def test_predictions_belong_together(skewed, data):
    new = data.head(5)
    y = skewed.predict(new, "quantile", at=[0.1, 0.5, 0.9])
    for j, p in enumerate((0.1, 0.5, 0.9)):
        F = np.diagonal(skewed.predict(new, "cdf", at=y[:, j]))
        np.testing.assert_allclose(F, p, rtol=1e-9)
    draws = skewed.sample(new, 4000, seed=1)
    np.testing.assert_allclose(draws.mean(axis=0), skewed.predict(new), rtol=0.05)
    np.testing.assert_allclose(np.median(draws, axis=0), y[:, 1], rtol=0.05)


@pytest.mark.slow
def test_terms_of_every_kind_stand_beside_the_network(data):
    training = dr.Training(epochs=8, folds=2)
    deep = dr.fit(
        {"loc": "skew ~ x + deep(z)"},
        data,
        family=drift(stiffness=3.0),
        training=training,
        seed=1,
        verbose=0,
    )
    assert np.isfinite(deep.loglik) and deep.family.flow.width
    lasso = dr.fit({"loc": "skew ~ lasso(x, z)"}, data, family=drift(stiffness=3.0))
    straight = dr.fit({"loc": "skew ~ lasso(x, z)"}, data)
    assert lasso.loglik > straight.loglik + 10


def test_the_general_model_changes_the_shape_with_x():
    """Two narrow bumps for half of the rows, a wide one for the others: no place and width do."""
    rng = np.random.default_rng(0)
    n = 300
    two = rng.integers(0, 2, n)
    y = np.where(two, rng.choice([-2.0, 2.0], n), 0.0) + np.where(two, 0.5, 2.0) * rng.normal(
        size=n
    )
    table = pd.DataFrame({"two": two, "y": y})
    formula = {"loc": "y ~ two", "scale": "~ two"}
    place = dr.fit(formula, table, family=drift())
    shape = dr.fit({**formula, "flow": "~ two"}, table, family=drift("general", units=2))
    assert shape.loglik > place.loglik + 20
    new = pd.DataFrame({"two": [1, 1, 0, 0]})
    density = np.diagonal(shape.predict(new, "pdf", at=[0.0, 2.0, 0.0, 2.0]))
    assert density[1] > 2 * density[0]
    assert density[2] > density[3]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "gauss"}, "must be one of normal, logistic"),
        ({"kind": "locationscale"}, "did you mean 'location_scale'"),
        ({"outcome": "counts"}, "did you mean 'count'"),
        ({"units": 0}, "whole number > 0"),
        ({"stiffness": -1.0}, "number > 0"),
        ({"flow": "straight"}, "a Flow or 'identity'"),
        ({"kind": "general", "flow": "identity"}, "has no identity"),
    ],
)
def test_impossible_choices_are_refused(arguments, message):
    with pytest.raises(FamilyError, match=message):
        drift(**arguments)


def test_tied_values_are_refused_and_their_counts_are_not(data):
    counts = data.assign(k=np.random.default_rng(1).poisson(np.exp(0.5 + 0.3 * data["x"])))
    with pytest.raises(ResponseError, match=r"'k': \d+% of the exact rows are \d"):
        dr.fit({"loc": "k ~ x"}, counts, family="drift")
    fitted = dr.fit({"loc": "k ~ x"}, counts, family=drift(outcome="count", base="logistic"))
    poisson = dr.fit("k ~ x", counts, family="poisson")
    assert fitted.loglik > poisson.loglik - 5
    probability = fitted.predict(counts.head(3), "prob", at=np.arange(60.0))
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-6)


def test_two_classes_are_refused(data):
    table = data.assign(good=pd.Categorical(np.where(data["x"] > 0, "b", "a"), ordered=True))
    with pytest.raises(ResponseError, match="two classes"):
        dr.fit({"loc": "good ~ z"}, table, family="drift")
    with pytest.raises(ResponseError, match="2 columns"):
        dr.fit({"loc": "cbind(x, y) ~ z"}, data, family="drift")


# -- several fixed points, and the base ------------------------------------------------------------
