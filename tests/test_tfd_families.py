"""Distributions of tfd, functions and classes of the user as families."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import deepregress as dr
from deepregress.bijectors import link
from deepregress.errors import DeepRegressError, FamilyError, PredictionError
from deepregress.families import Family, Parameter, family
from deepregress.families.distribution import of_distribution

tfd = tfp.distributions
N = 1500


def data(draw, seed=0):
    """x and a response of N rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    return {"x": x, "y": draw(rng, x)}


# class -> formula's parameter, response, the built-in family and its parameter
def weibull(g, x):
    return np.exp(1 + 0.5 * x) * g.weibull(1.5, size=N)


TWINS = {
    "Weibull": ("scale", weibull, "weibull", "scale"),
    "Gumbel": ("loc", lambda g, x: 1 + x + g.gumbel(size=N), "gumbel", "loc"),
    "Normal": ("loc", lambda g, x: 1e3 + x + g.normal(size=N), "normal", "loc"),
    "LogNormal": ("loc", lambda g, x: np.exp(x + g.normal(size=N)), "lognormal", "loc"),
    "Logistic": ("loc", lambda g, x: x + 3.0 * g.logistic(size=N), "logistic", "loc"),
    "Poisson": ("rate", lambda g, x: 1.0 * g.poisson(np.exp(1 + 0.5 * x)), "poisson", "mean"),
    "Bernoulli": ("probs", lambda g, x: 1.0 * (x + g.logistic(size=N) > 0), "bernoulli", "prob"),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_class_is_the_built_in_family(name):
    parameter, draw, twin, own = TWINS[name]
    rows = data(draw)
    given = dr.fit({parameter: "y ~ x"}, rows, getattr(tfd, name))
    known = dr.fit({own: "y ~ x"}, rows, twin, method="ML")
    np.testing.assert_allclose(given.coef[parameter], known.coef[own], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(given.std_error[parameter], known.std_error[own], rtol=5e-3)
    # R reports a normal log-likelihood at the ML scale, which is what the class has
    assert given.loglik == pytest.approx(known.loglik, rel=1e-8)
    assert given.converged


@pytest.mark.parametrize(
    ("name", "links", "bounds", "discrete"),
    [
        ("StudentT", ["log", "identity", "log"], (-np.inf, np.inf), False),
        ("Kumaraswamy", ["log", "log"], (0.0, 1.0), False),
        ("Gamma", ["log", "log"], (0.0, np.inf), False),
        ("InverseGaussian", ["log", "log"], (0.0, np.inf), False),
        ("SinhArcsinh", ["identity", "log", "identity", "log"], (-np.inf, np.inf), False),
        ("NegativeBinomial", ["log", "logit"], (0.0, np.inf), True),
        ("Bernoulli", ["logit"], (0.0, 1.0), True),
        ("Skellam", ["log", "log"], (-np.inf, np.inf), True),
    ],
)
def test_links_and_support_are_derived(name, links, bounds, discrete):
    fam = of_distribution(getattr(tfd, name))
    assert [p.link.name for p in fam.parameters] == links
    assert fam.bounds == bounds
    assert fam.discrete == discrete
    assert of_distribution(getattr(tfd, name)) is fam


def test_a_family_keeps_the_bijector_of_a_parameter_that_is_no_plain_half_line():
    class Tail(tfd.StudentT):
        @classmethod
        def _parameter_properties(cls, dtype, num_classes=None):
            properties = super()._parameter_properties(dtype)
            above = tfp.util.ParameterProperties(
                default_constraining_bijector_fn=lambda: tfp.bijectors.Softplus(low=np.float64(2.0))
            )
            return {**properties, "df": above}

    fam = of_distribution(Tail)
    assert fam.parameters[0].link.name == "custom"
    assert fam.parameters_at(np.array([[-30.0, 0.0, 0.0]]))["df"][0] == pytest.approx(2.0, abs=1e-9)


def test_a_function_of_parameters_is_a_family():
    def truncated(loc, scale):
        return tfd.TruncatedNormal(loc, scale, np.float64(0.0), np.float64(6.0))

    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=4000)
    y = 1.0 + x + rng.normal(size=4000)
    seen = (y > 0) & (y < 6)
    rows = {"x": x[seen], "y": y[seen]}
    model = dr.fit("y ~ x", rows, truncated)
    known = dr.fit("trunc(y, lower=0, upper=6) ~ x", rows, method="ML")
    np.testing.assert_allclose(model.coef, known.coef, rtol=1e-5)
    assert model.loglik == pytest.approx(known.loglik, rel=1e-8)
    assert model.family.name == "truncated"
    assert [p.link.name for p in model.family.parameters] == ["identity", "log"]
    mean = model.predict({"x": [0.3]})[0]
    loc, scale = 1.3, np.exp(model.coef["scale", "(Intercept)"])
    frozen = scipy.stats.truncnorm(-loc / scale, (6 - loc) / scale, loc=loc, scale=scale)
    assert mean == pytest.approx(frozen.mean(), abs=0.15)


def test_an_unusual_parametrisation_gets_its_links_by_trial():
    def gamma(mean, dispersion):
        return tfd.Gamma(1.0 / dispersion, rate=1.0 / (dispersion * mean))

    rows = data(lambda g, x: np.exp(1 + 0.4 * x) * g.gamma(2.0, 0.5, size=N))
    model = dr.fit("y ~ x", rows, gamma)
    known = dr.fit("y ~ x", rows, "gamma")
    np.testing.assert_allclose(model.coef["mean"], known.coef["mean"], rtol=1e-6)
    share = of_distribution(lambda p: tfd.Bernoulli(probs=p, dtype=tf.float64))
    assert [p.link.name for p in share.parameters] == ["logit"]


def test_links_can_be_chosen_and_smooths_and_censoring_come_along():
    rows = data(lambda g, x: np.exp(np.sin(2 * x)) * g.weibull(1.5, size=N))
    rows["d"] = (rows["y"] < 1.5).astype(int)
    rows["t"] = np.minimum(rows["y"], 1.5)
    given = dr.fit({"scale": "Surv(t, d) ~ s(x)"}, rows, tfd.Weibull)
    known = dr.fit({"scale": "Surv(t, d) ~ s(x)"}, rows, "weibull")
    np.testing.assert_allclose(
        given.predict(which="params", parameter="scale"),
        known.predict(which="params", parameter="scale"),
        rtol=1e-4,
    )
    soft = of_distribution(tfd.Weibull).with_links({"scale": "softplus"})
    model = dr.fit({"scale": "y ~ x"}, data(TWINS["Weibull"][1]), soft)
    assert model.family.parameters[1].link.name == "softplus"


def test_a_class_can_be_saved_and_a_function_cannot(tmp_path):
    rows = data(TWINS["Weibull"][1])
    model = dr.fit({"scale": "y ~ x"}, rows, tfd.Weibull)
    model.save(tmp_path / "weibull.zip")
    again = dr.load(tmp_path / "weibull.zip")
    assert np.array_equal(again.predict({"x": [0.1, 2.0]}), model.predict({"x": [0.1, 2.0]}))
    assert again.family == model.family

    def normal(loc, scale):
        return tfd.Normal(loc, scale)

    own = dr.fit("y ~ x", rows, normal)
    with pytest.raises(PredictionError, match="'normal' is made by a function"):
        own.save(tmp_path / "own.zip")


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (tfd.Triangular, "no link is known for"),
        (tfd.Dirichlet, "'concentration' is not a number"),
        (tfd.Categorical, "."),
        (tfd.LKJ, "'dimension' is no parameter that could be modelled, and has no default"),
        (lambda: tfd.Normal(0.0, 1.0), "takes no parameter"),
        (lambda loc: loc, "must return a tfd.Distribution"),
        (lambda loc: tfd.MultivariateNormalDiag(loc * tf.ones([1, 2], tf.float64)), "a vector"),
        (lambda a: tfd.Normal(tf.cast(0.0, tf.float64), -1.0 - a * a), "takes none of"),
        (3, "a name or a Family"),
    ],
)
def test_what_is_no_family_is_refused(given, match):
    with pytest.raises(FamilyError, match=match):
        family(given)


def test_a_response_outside_the_support_is_refused():
    with pytest.raises(DeepRegressError, match=r"'tfd.Weibull' needs numbers > 0; row 1 is -1"):
        dr.fit("y ~ 1", {"y": [1.0, -1.0, 2.0]}, tfd.Weibull)
    with pytest.raises(DeepRegressError, match="whole numbers"):
        dr.fit("y ~ 1", {"y": [1.0, 1.5, 2.0]}, tfd.Poisson)


# -- a class of one's own --------------------------------------------------------------------------


class Rayleigh(Family):
    """f(y) = y / scale^2 exp(-y^2 / (2 scale^2)), by log density and log survival only."""

    name = "rayleigh"
    about = "Rayleigh"
    support = "positive numbers"
    bounds = (0.0, np.inf)

    @classmethod
    def default_parameters(cls):
        return (Parameter("scale", link("log"), "mode"),)

    def log_survival(self, values, y):
        return -0.5 * (y * tf.exp(-values["scale"].log)) ** 2

    def log_density(self, values, y):
        return tf.math.log(y) - 2.0 * values["scale"].log + self.log_survival(values, y)


def test_two_formulas_are_a_family_with_all_quantities():
    fam = family(Rayleigh)
    eta = np.log(np.array([[0.5], [2.0], [7.0]]))
    frozen = scipy.stats.rayleigh(scale=np.exp(eta[:, 0]))
    y = np.array([0.4, 3.0, 20.0])
    np.testing.assert_allclose(fam.logpdf(y, eta), frozen.logpdf(y), rtol=1e-12)
    np.testing.assert_allclose(fam.cdf(y, eta), frozen.cdf(y), rtol=1e-12)
    np.testing.assert_allclose(fam.mean(eta), frozen.mean(), rtol=1e-9)
    np.testing.assert_allclose(fam.variance(eta), frozen.var(), rtol=1e-9)
    for p in (1e-9, 0.2, 0.5, 0.99, 1 - 1e-9):
        got = fam.quantile(np.full(3, p), eta)
        np.testing.assert_allclose(got, frozen.ppf(p), rtol=1e-8)
    draws = fam.sample(eta, 4000, seed=1)
    assert draws.mean(axis=0) == pytest.approx(frozen.mean(), rel=0.05)
    assert fam.distribution(eta).survival_function(y).numpy() == pytest.approx(frozen.sf(y))


def test_a_class_of_ones_own_fits_and_says_how_it_can_be_saved(tmp_path):
    rng = np.random.default_rng(3)
    x = rng.normal(size=N)
    y = np.exp(0.5 + 0.3 * x) * rng.rayleigh(size=N)
    rows = {"x": x, "t": np.minimum(y, 3.0), "d": (y < 3.0).astype(int)}
    model = dr.fit("Surv(t, d) ~ x", rows, Rayleigh)
    # Rayleigh is Weibull with concentration 2 and scale sqrt(2) times as large
    twin = dr.fit({"scale": "Surv(t, d) ~ x", "concentration": 2.0}, rows, "weibull")
    np.testing.assert_allclose(model.coef["scale"].iloc[1], twin.coef["scale"].iloc[1], rtol=1e-7)
    assert model.loglik == pytest.approx(twin.loglik, rel=1e-10)
    with pytest.raises(PredictionError, match="'rayleigh' is a class of your own"):
        model.save(tmp_path / "own.zip")


def test_a_family_without_a_distribution_function_says_what_is_missing():
    class Density(Family):
        name, about, support = "density", "exponential by its density alone", "positive numbers"
        bounds = (0.0, np.inf)

        @classmethod
        def default_parameters(cls):
            return (Parameter("scale", link("log"), "mean"),)

        def log_density(self, values, y):
            return -values["scale"].log - y / values["scale"].value

    rows = data(lambda g, x: g.exponential(size=N))
    model = dr.fit("y ~ x", rows, Density)
    assert model.coef.to_numpy() == pytest.approx(
        dr.fit("y ~ x", rows, "exponential").coef.to_numpy()
    )
    with pytest.raises(FamilyError, match="give it log_cdf or log_survival"):
        model.predict(which="cdf", at=1.0)


def test_what_tfd_does_not_have_is_told():
    rows = data(lambda g, x: g.gamma(2.0, 1.0 / g.gamma(3.0, size=N)))
    model = dr.fit("y ~ x", rows, tfd.GammaGamma)
    assert np.isfinite(model.predict()).all()
    with pytest.raises(FamilyError, match="GammaGamma of TensorFlow Probability has no distri"):
        model.predict(which="quantile", at=0.5)
    # a sampler for float32 alone, and no distribution function to draw by
    with pytest.raises(FamilyError, match="DoublesidedMaxwell of TensorFlow Probability"):
        family(tfd.DoublesidedMaxwell).sample(np.zeros((3, 2)), 1, seed=1)


def test_all_families_are_in_the_table():
    table = dr.families()
    assert {"normal", "weibull", "poisson"} <= set(table.index)
    assert list(table.columns) == ["parameters", "links", "support", "about", "reference"]
    assert (table != "").all().all(), "a module of families without a reference"
    assert "mean, dispersion" in repr(table)
