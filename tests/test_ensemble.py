"""Deep ensembles: their mixture against scipy, pooling against Rubin's formulas, identities."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st

import deepregress as dr
from deepregress.errors import FamilyError, FitError
from deepregress.families import family
from deepregress.families.averaged import averaged

TRAINING = dr.Training(epochs=10, folds=2)
FORMULA = {"loc": "y ~ s(x) + deep(x, z1, z2)", "scale": "~ x"}


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x, z1, z2 = rng.uniform(-1, 1, n), rng.normal(size=n), rng.normal(size=n)
    y = 1 + x + np.tanh(2 * z1 * z2) + np.exp(-1 + 0.5 * x) * rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "z1": z1, "z2": z2})


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def ensemble(data):
    return dr.ensemble(FORMULA, data, members=3, training=TRAINING, seed=3, verbose=0)


@pytest.fixture(scope="module")
def single(data):
    return dr.fit(FORMULA, data, training=TRAINING, seed=3, verbose=0)


# -- the mixture -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normals():
    rng = np.random.default_rng(1)
    eta = rng.normal(size=(9, 6))
    return averaged(family("normal"), 3), eta, eta[:, 0::2], np.exp(eta[:, 1::2])


def test_mixture_of_normals(normals):
    mixture, eta, loc, scale = normals
    y = np.linspace(-2, 2, 9)
    each = st.norm(loc, scale)
    expected = each.pdf(y[:, None]).mean(axis=1)
    np.testing.assert_allclose(mixture.logpdf(y, eta), np.log(expected), rtol=1e-12)
    np.testing.assert_allclose(mixture.cdf(y, eta), each.cdf(y[:, None]).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(mixture.mean(eta), loc.mean(axis=1), rtol=1e-12)
    second = (scale**2 + loc**2).mean(axis=1) - loc.mean(axis=1) ** 2
    np.testing.assert_allclose(mixture.variance(eta), second, rtol=1e-12)
    distribution = mixture.distribution(eta)
    np.testing.assert_allclose(distribution.log_prob(y).numpy(), np.log(expected), rtol=1e-12)
    np.testing.assert_allclose(distribution.mean().numpy(), loc.mean(axis=1), rtol=1e-12)


def test_quantiles_are_roots_of_the_mixture(normals):
    mixture, eta, loc, scale = normals
    for p in (1e-8, 0.1, 0.5, 0.9, 1 - 1e-8):
        q = mixture.quantile(np.full(9, p), eta)
        each = st.norm(loc, scale)
        tail = each.cdf if p <= 0.5 else each.sf
        # of the smaller tail, to which 1 - p has no digits lost
        np.testing.assert_allclose(tail(q[:, None]).mean(axis=1), min(p, 1 - p), rtol=1e-7)
    np.testing.assert_array_equal(mixture.quantile(np.ones(9), eta), np.inf)


def test_equal_members_are_one(normals):
    _, eta, *_ = normals
    same = np.hstack([eta[:, :2]] * 3)
    mixture, one = averaged(family("normal"), 3), family("normal")
    p = np.linspace(0.05, 0.95, 9)
    np.testing.assert_allclose(mixture.quantile(p, same), one.quantile(p, eta[:, :2]), rtol=1e-12)
    np.testing.assert_allclose(mixture.variance(same), one.variance(eta[:, :2]), rtol=1e-12)
    assert averaged(one, 1) is one


def test_mixture_of_counts():
    rng = np.random.default_rng(2)
    eta = rng.normal(1.0, 1.0, size=(20, 3))
    mixture, means = averaged(family("poisson"), 3), np.exp(eta)
    q = mixture.quantile(np.full(20, 0.9), eta)
    cdf = st.poisson(means)
    assert (cdf.cdf(q[:, None]).mean(axis=1) >= 0.9).all()
    assert (cdf.cdf(q[:, None] - 1).mean(axis=1) < 0.9).all()
    draws = mixture.sample(eta, 20_000, seed=1)
    spread = np.sqrt(mixture.variance(eta) / 20_000)
    assert np.abs((draws.mean(axis=0) - means.mean(axis=1)) / spread).max() < 4


def test_censored_and_truncated_rows(normals):
    mixture, eta, loc, scale = normals
    y, entry = np.linspace(-1, 1, 9), np.linspace(-2, 0, 9)
    right = {"lower": y, "upper": np.full(9, np.inf), "right": np.ones(9), "exact": np.zeros(9)}
    survival = st.norm(loc, scale).sf(y[:, None]).mean(axis=1)
    before = st.norm(loc, scale).sf(entry[:, None]).mean(axis=1)
    found = mixture.row_log_likelihood(right, eta)
    np.testing.assert_allclose(found, np.log(survival), rtol=1e-10)
    found = mixture.row_log_likelihood({**right, "entry": entry}, eta)
    np.testing.assert_allclose(found, np.log(survival / before), rtol=1e-10)


def test_vectors():
    given = family("mvn")
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 2))
    response = dr.families.base.Response(y, y, np.ones(50), None, "cbind(a, b)", None)
    base = given.for_response(response)
    eta = 0.3 * rng.normal(size=(4, 2 * base.n_units))
    mixture = averaged(base, 2)
    halves = np.split(eta, 2, axis=1)
    means = np.stack([base.mean(half) for half in halves])
    second = [
        base.further_quantity("covariance", half, {}) + np.einsum("ij,ik->ijk", mean, mean)
        for half, mean in zip(halves, means, strict=True)
    ]
    expected = np.mean(second, axis=0) - np.einsum("ij,ik->ijk", means.mean(0), means.mean(0))
    found = mixture.further_quantity("covariance", eta, {})
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(mixture.variance(eta), np.einsum("ijj->ij", expected), rtol=1e-10)


def test_directions_are_refused():
    with pytest.raises(FamilyError, match="mean of angles"):
        averaged(family("von_mises"), 2)


# -- identities ------------------------------------------------------------------------------------


def test_mixture_scores_at_least_the_mean_of_its_members(ensemble, data):
    new = table(200, seed=9)
    each = [model.log_score(new) for model in ensemble.members]
    assert ensemble.log_score(new) > np.mean(each)
    rowwise = np.stack([model.predict(new, "logpdf") for model in ensemble.members])
    expected = np.log(np.exp(rowwise).mean(axis=0))
    np.testing.assert_allclose(ensemble.predict(new, "logpdf"), expected, rtol=1e-10)
    assert ensemble.log_score(new) == pytest.approx(expected.mean(), rel=1e-10)
    assert ensemble.log_score() >= np.mean([model.log_score() for model in ensemble.members])


def test_the_first_member_is_the_fit_of_the_seed(ensemble, single, data):
    np.testing.assert_array_equal(ensemble.members[0].predict(), single.predict())
    assert not np.allclose(ensemble.members[1].predict(), single.predict())


def test_cross_fitted_members_hold_the_noise_of_their_networks(ensemble, single):
    """That between members alone is far from what other rows would have given."""
    first, noisy = ensemble.members[0], single.with_uncertainty("members")
    pd.testing.assert_frame_equal(first.cov, noisy.cov)
    new = table(50, seed=2)
    options = {"which": "linear", "parameter": "loc", "se": True}
    given = ensemble.with_uncertainty("conditional").predict(new, **options)
    assert (ensemble.predict(new, **options)["se"] > given["se"]).all()
    pd.testing.assert_frame_equal(
        ensemble.with_uncertainty("conditional").members[0].cov, single.cov, rtol=1e-12
    )


def test_members_of_one_network_are_given_their_network(data):
    training = dr.Training(epochs=5, crossfit=False)
    ensemble = dr.ensemble(FORMULA, data, members=2, training=training, seed=3, verbose=0)
    assert ensemble.members[0].noise is None


def test_one_member_is_the_single_fit(single, data):
    one = dr.Ensemble((single,))
    new = table(7, seed=4)
    for which in ("mean", "variance", "params", "linear", "terms", "median"):
        np.testing.assert_array_equal(one.predict(new, which), single.predict(new, which))
    for which in ("mean", "params", "linear", "terms", "median"):
        found = one.predict(new, which, se=True, interval=0.9)
        expected = single.predict(new, which, se=True, interval=0.9)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    for which in ("quantile", "cdf", "survival", "hazard"):
        found = one.predict(new, which, at=[0.3, 0.7], se=True)
        pd.testing.assert_frame_equal(found, single.predict(new, which, at=[0.3, 0.7], se=True))
    pd.testing.assert_series_equal(one.coef, single.coef)
    pd.testing.assert_series_equal(one.std_error, single.std_error)
    for term in ("s(x)", "deep(x,z1,z2)"):
        for simultaneous in (False, True):
            found = one.partial_effect(term, simultaneous=simultaneous)
            expected = single.partial_effect(term, simultaneous=simultaneous)
            pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    assert one.log_score(new) == single.log_score(new)


def test_structured_ensembles_have_no_variance_between_members(data):
    formula = "y ~ x + s(z1)"
    ensemble, single = dr.ensemble(formula, data, members=4), dr.fit(formula, data)
    assert len(ensemble.members) == 4
    assert not ensemble.cov_between.to_numpy().any()
    pd.testing.assert_frame_equal(ensemble.cov, single.cov, rtol=1e-12)
    found = ensemble.predict(data, "linear", se=True)
    pd.testing.assert_frame_equal(found, single.predict(data, "linear", se=True), rtol=1e-10)
    quantiles = ensemble.predict(data, "quantile", at=[0.1, 0.9])
    np.testing.assert_allclose(quantiles, single.predict(data, "quantile", at=[0.1, 0.9]))


# -- Rubin's rules ---------------------------------------------------------------------------------


def test_coefficients_are_pooled(ensemble):
    index = ensemble.coef.index
    each = pd.concat([model.coef.reindex(index).fillna(0.0) for model in ensemble.members], axis=1)
    np.testing.assert_allclose(ensemble.coef, each.mean(axis=1))
    within = sum(model.cov.reindex(index, columns=index).fillna(0.0) for model in ensemble.members)
    total = within / 3 + (1 + 1 / 3) * np.cov(each.to_numpy())
    np.testing.assert_allclose(ensemble.cov, total, atol=1e-14)
    np.testing.assert_allclose(ensemble.std_error, np.sqrt(np.diag(total)))
    share = ensemble.summary().parametric["between"]
    place = ("scale", "x")
    expected = (1 + 1 / 3) * each.loc[place].var() / ensemble.cov.loc[place, place]
    assert share[place] == pytest.approx(expected)


def test_predictors_and_effects_are_pooled(ensemble):
    new = table(6, seed=5)
    tables = [model.predict(new, "linear", se=True) for model in ensemble.members]
    values = np.stack([each["loc"]["estimate"] for each in tables])
    variances = np.stack([each["loc"]["se"] ** 2 for each in tables])
    found = ensemble.predict(new, "linear", parameter="loc", se=True, interval=0.95)
    se = np.sqrt(variances.mean(axis=0) + 4 / 3 * values.var(axis=0, ddof=1))
    np.testing.assert_allclose(found["estimate"], values.mean(axis=0))
    np.testing.assert_allclose(found["se"], se)
    np.testing.assert_allclose(found["upper"], values.mean(axis=0) + st.norm.ppf(0.975) * se)
    mean = ensemble.predict(new, se=True)
    np.testing.assert_allclose(mean["se"], se, rtol=1e-6)
    for term in ("s(x)", "deep(x,z1,z2)"):
        each = [model.partial_effect(term) for model in ensemble.members]
        found = ensemble.partial_effect(term)
        values = np.stack([one["effect"] for one in each])
        variances = np.stack([one["se"] ** 2 for one in each])
        expected = np.sqrt(variances.mean(axis=0) + 4 / 3 * values.var(axis=0, ddof=1))
        np.testing.assert_allclose(found["effect"], values.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found["se"], expected, atol=1e-12)
    wide, narrow = (ensemble.partial_effect("s(x)", simultaneous=both) for both in (True, False))
    assert (wide["upper"] > narrow["upper"]).all()


def test_limits_hold_the_estimate_and_its_bounds(ensemble):
    new = table(20, seed=6)
    for which, at in (("params", None), ("cdf", [0.5]), ("quantile", [0.01, 0.99])):
        answer = ensemble.predict(new, which, at=at, interval=0.99)
        for name in answer.columns.get_level_values(0).unique():
            own = answer[name]
            assert (own["lower"] <= own["estimate"]).all()
            assert (own["estimate"] <= own["upper"]).all()
    assert (ensemble.predict(new, "params", interval=0.999)["scale"]["lower"] > 0).all()


def test_terms_add_up_to_the_predictor(ensemble):
    new = table(6, seed=7)
    terms = ensemble.predict(new, "terms", parameter="loc")
    linear = ensemble.predict(new, "linear", parameter="loc")
    np.testing.assert_allclose(terms.sum(axis=1), linear, rtol=1e-9)
    without = ensemble.predict(new, "linear", parameter="loc", exclude="deep(x,z1,z2)")
    np.testing.assert_allclose(linear - without, terms["deep(x,z1,z2)"], atol=1e-9)


# -- what a user holds -----------------------------------------------------------------------------


def test_save_and_load(ensemble, tmp_path):
    ensemble.save(tmp_path / "ensemble.zip")
    again = dr.load(tmp_path / "ensemble.zip")
    assert isinstance(again, dr.Ensemble)
    new = table(5, seed=8)
    np.testing.assert_array_equal(again.predict(new), ensemble.predict(new))
    pd.testing.assert_frame_equal(again.cov, ensemble.cov)
    # the training rows are stored once
    assert again.members[0].frame.columns["x"] is again.members[1].frame.columns["x"]
    ensemble.save(tmp_path / "small.zip", data=False)
    np.testing.assert_array_equal(
        dr.load(tmp_path / "small.zip").predict(new, "quantile", at=0.9),
        ensemble.predict(new, "quantile", at=0.9),
    )


def test_summary_and_history(ensemble):
    text = str(ensemble.summary())
    for part in ("Ensemble of 3 fits", "loc: (Intercept)", "s(x)", "deep(x,z1,z2)", "Between"):
        assert part in text
    assert ensemble.history["member"].nunique() == 3
    assert ensemble.edf_total == pytest.approx(np.mean([m.edf_total for m in ensemble.members]))
    assert ensemble.converged
    assert ensemble.nobs == 300


def test_classes():
    data = table(200)
    data["grade"] = pd.Categorical(
        np.where(data["y"] < 0.5, "low", np.where(data["y"] < 1.5, "mid", "high")),
        ["low", "mid", "high"],
        ordered=True,
    )
    training = dr.Training(epochs=3, folds=2)
    ensemble = dr.ensemble(
        "grade ~ x + deep(z1, z2)",
        data,
        "ordinal",
        members=2,
        training=training,
        seed=1,
        verbose=0,
    )
    prob = ensemble.predict(data, "prob")
    each = [model.predict(data, "prob") for model in ensemble.members]
    np.testing.assert_allclose(prob, (each[0] + each[1]) / 2, atol=1e-12)
    assert list(prob.columns) == ["low", "mid", "high"]
    chosen = ensemble.predict(data, "class")
    assert (chosen == np.array(prob.columns)[prob.to_numpy().argmax(axis=1)]).all()
    rps = ensemble.predict(data, "rps")
    below = prob.cumsum(axis=1).to_numpy()
    reached = data["grade"].cat.codes.to_numpy()[:, None] <= np.arange(3)
    np.testing.assert_allclose(rps, ((below - reached) ** 2).sum(axis=1), atol=1e-12)


def test_members_must_fit_together(single, data):
    with pytest.raises(FitError, match="members=0: needs a whole number"):
        dr.ensemble("y ~ x", data, members=0)
    with pytest.raises(FitError, match="needs one member at least"):
        dr.Ensemble(())
    with pytest.raises(FitError, match="one formula and one family"):
        dr.Ensemble((single, dr.fit("y ~ x", data)))
