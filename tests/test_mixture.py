"""Mixtures of families: densities by sums of SciPy's, known fits, simulated truth, local maxima."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import deepregress as dr
from deepregress.errors import FamilyError, FitError, ResponseError
from deepregress.families.base import upper_pairs
from deepregress.response import Response

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
rng = np.random.default_rng

NORMALS = dr.mixture("normal", "normal", "normal")
CASES = {
    "normals": (
        NORMALS,
        lambda t: [scipy.stats.norm(t[f"loc[{m}]"], t[f"scale[{m}]"]) for m in (1, 2, 3)],
    ),
    "poissons": (
        dr.mixture("poisson", "poisson"),
        lambda t: [scipy.stats.poisson(t["mean[1]"]), scipy.stats.poisson(t["mean[2]"])],
    ),
    "different": (
        dr.mixture("gamma", "lognormal"),
        lambda t: [
            scipy.stats.gamma(1 / t["dispersion[1]"], scale=t["mean[1]"] * t["dispersion[1]"]),
            scipy.stats.lognorm(t["scale[2]"], scale=np.exp(t["loc[2]"])),
        ],
    ),
}


def case(name, n=5):
    fam, parts = CASES[name]
    eta = 0.8 * rng(1).normal(size=(n, fam.n_units)) + 0.3
    frozen = parts(fam.parameters_at(eta))
    pi = fam.gate_probabilities(eta)
    y = fam.sample(eta, 1, seed=3)[0]
    return fam, eta, frozen, pi, y


def response(y):
    y = np.asarray(y, dtype=float)
    return Response(y, y, np.ones(len(y)), None, "y", None)


@pytest.mark.parametrize("name", CASES)
def test_density_cdf_and_moments_are_sums_of_scipys(name):
    fam, eta, frozen, pi, y = case(name)
    density = [f.pmf(y) if fam.discrete else f.pdf(y) for f in frozen]
    np.testing.assert_allclose(
        fam.logpdf(y, eta), np.log(np.sum(pi.T * density, axis=0)), rtol=1e-9
    )
    cdf = np.sum(pi.T * [f.cdf(y) for f in frozen], axis=0)
    np.testing.assert_allclose(fam.cdf(y, eta), cdf, rtol=1e-8)
    np.testing.assert_allclose(fam.survival(y, eta), 1 - cdf, rtol=1e-7, atol=1e-12)
    means = np.array([f.mean() for f in frozen])
    mean = np.sum(pi.T * means, axis=0)
    np.testing.assert_allclose(fam.mean(eta), mean, rtol=1e-9)
    second = np.sum(pi.T * [f.var() + f.mean() ** 2 for f in frozen], axis=0)
    np.testing.assert_allclose(fam.variance(eta), second - mean**2, rtol=1e-8)
    posterior = (pi.T * density / np.sum(pi.T * density, axis=0)).T
    found, loglik = fam.posterior(response(y).rows(), eta)
    np.testing.assert_allclose(found, posterior, rtol=1e-8)
    np.testing.assert_allclose(loglik, fam.logpdf(y, eta), rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_quantiles_invert_the_cdf_and_draws_have_the_moments(name):
    fam, eta, _, _, _ = case(name)
    for p in (0.001, 0.3, 0.5, 0.99):
        q = fam.quantile(np.full(len(eta), p), eta)
        if fam.discrete:
            assert np.all(fam.cdf(q, eta) >= p) and np.all(fam.cdf(q - 1, eta) < p)
        else:
            np.testing.assert_allclose(fam.cdf(q, eta), p, rtol=1e-8)
    draws = fam.sample(eta, 20_000, seed=1)
    error = np.sqrt(fam.variance(eta) / 20_000)
    assert np.max(np.abs(draws.mean(axis=0) - fam.mean(eta)) / error) < 5.0


@pytest.mark.parametrize("name", CASES)
def test_row_derivatives_are_central_differences(name):
    fam, eta, _, _, y = case(name)
    rows, step = response(y).rows(), 1e-5
    _, gradient, W = fam.row_derivatives(rows, eta)
    weight = rng(7).normal(size=W.shape)
    third = fam.contracted_third(rows, eta, weight)
    for u in range(fam.n_units):
        shift = step * np.eye(fam.n_units)[u]
        up, down = (fam.row_derivatives(rows, eta + s) for s in (shift, -shift))
        scale = 1e-6 * (1 + np.abs(W).max() + np.abs(third).max())
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step), gradient[:, u], atol=scale)
        for p, (k, m) in enumerate(upper_pairs(fam.n_units)):
            if k == u:
                slope = (up[1] - down[1])[:, m] / (2 * step)
                np.testing.assert_allclose(-slope, W[:, p], atol=scale)
        contracted = np.sum(weight * (up[2] - down[2]), axis=1) / (2 * step)
        np.testing.assert_allclose(contracted, third[:, u], atol=scale)


# -- fits ----------------------------------------------------------------------------------------


@functools.cache
def faithful():
    data = pd.read_csv(REFERENCE / "cv_faithful.csv")
    return data, dr.fit("eruptions ~ 1", data, dr.mixture("normal", "normal"))


def test_eruptions_are_two_normals():
    """METHODS 9: the maximum that every mixture program finds."""
    _, model = faithful()
    theta = model.predict(which="params").iloc[0]
    pi = model.predict(which="gate_prob").iloc[0]
    assert model.converged
    assert model.loglik == pytest.approx(-276.36, abs=5e-3)
    assert pi["1"] == pytest.approx(0.3484, abs=5e-5)
    np.testing.assert_allclose(theta[["loc[1]", "loc[2]"]], [2.0186, 4.2733], atol=5e-5)
    np.testing.assert_allclose(theta[["scale[1]", "scale[2]"]], [0.23562, 0.43706], atol=5e-6)


def test_class_probabilities_are_those_of_bayes(tmp_path):
    data, model = faithful()
    theta = model.predict(which="params").iloc[0]
    pi = model.predict(which="gate_prob").iloc[0].to_numpy()
    y = data["eruptions"].to_numpy()
    joint = [
        pi[m] * scipy.stats.norm.pdf(y, theta[f"loc[{m + 1}]"], theta[f"scale[{m + 1}]"])
        for m in (0, 1)
    ]
    expected = np.column_stack(joint) / np.sum(joint, axis=0)[:, None]
    np.testing.assert_allclose(model.predict(which="class_prob"), expected, rtol=1e-9)
    new = data.iloc[[3, 10]]
    np.testing.assert_allclose(model.predict(new, which="class_prob"), expected[[3, 10]], rtol=1e-9)
    path = tmp_path / "model.zip"
    model.save(path)
    again = dr.load(path)
    np.testing.assert_array_equal(
        again.predict(new, which="class_prob"), model.predict(new, which="class_prob")
    )
    assert again.family == model.family


def test_the_same_fit_every_time():
    data, model = faithful()
    again = dr.fit("eruptions ~ 1", data, "mixture")
    np.testing.assert_array_equal(again.coef, model.coef)


def test_simulated_coefficients_of_means_and_gate_are_found():
    n, g = 5000, rng(5)
    x, z = g.uniform(-1, 1, n), g.uniform(-1, 1, n)
    second = g.uniform(size=n) < 1 / (1 + np.exp(-(0.4 + 0.9 * z)))
    y = g.poisson(np.exp(np.where(second, 2.4 - 0.3 * x, 0.6 + 0.5 * x)))
    model = dr.fit({"mean": "y ~ x", "gate": "~ z"}, {"y": y, "x": x, "z": z},
                   dr.mixture("poisson", "poisson"))  # fmt: skip
    assert model.converged
    truth = np.array([0.6, 0.5, 2.4, -0.3, 0.4, 0.9])
    z_scores = (model.coef.to_numpy() - truth) / model.std_error.to_numpy()
    assert np.max(np.abs(z_scores)) < 3.0


@pytest.mark.parametrize("seed", range(3))
def test_crossing_regressions_are_told_apart(seed):
    """Without covariates the classes are one: only EM with the regressions finds them."""
    n, g = 600, rng(seed)
    x = g.uniform(-1, 1, n)
    first = g.random(n) < 0.4
    y = np.where(first, 1 + 2 * x, 1 - 2 * x) + 0.3 * g.normal(size=n)
    model = dr.fit("y ~ x", {"y": y, "x": x}, dr.mixture("normal", "normal"))
    slopes = model.coef[[("loc[1]", "x"), ("loc[2]", "x")]].to_numpy()
    errors = model.std_error[[("loc[1]", "x"), ("loc[2]", "x")]].to_numpy()
    assert np.max(np.abs(np.sort(slopes) - [-2, 2]) / errors[np.argsort(slopes)]) < 3.5
    share = model.predict(which="gate_prob")[str(1 + int(slopes[1] > 0))].iloc[0]
    assert share == pytest.approx(first.mean(), abs=0.06)


def test_a_smooth_in_one_component():
    n, g = 1500, rng(3)
    x = g.uniform(-1, 1, n)
    first = g.random(n) < 0.4
    y = np.where(first, np.sin(3 * x), 2 + 0.5 * x) + 0.3 * g.normal(size=n)
    model = dr.fit({"loc[1]": "y ~ s(x)", "loc[2]": "~ x"}, {"y": y, "x": x},
                   dr.mixture("normal", "normal"))  # fmt: skip
    assert model.converged
    assert 4 < model.edf["loc[1]", "s(x)"] < 9
    shown = model.partial_effect("s(x)", "loc[1]")
    truth = np.sin(3 * shown["x"]) - np.mean(np.sin(3 * x))
    assert np.sqrt(np.mean((shown["effect"] - truth) ** 2)) < 0.06
    assert np.mean(np.abs(shown["effect"] - truth) < 2.6 * shown["se"]) > 0.9
    assert model.coef["loc[2]", "x"] == pytest.approx(0.5, abs=3 * model.std_error["loc[2]", "x"])


def test_three_components_are_numbered_by_their_means():
    y = np.concatenate(
        [rng(2).normal(m, s, n) for m, s, n in [(5, 1, 300), (-4, 1, 200), (0, 0.5, 500)]]
    )
    model = dr.fit("y ~ 1", {"y": y}, NORMALS)
    theta = model.predict(which="params").iloc[0]
    np.testing.assert_allclose(theta[["loc[1]", "loc[2]", "loc[3]"]], [-4, 0, 5], atol=0.25)
    np.testing.assert_allclose(model.predict(which="gate_prob").iloc[0], [0.2, 0.5, 0.3], atol=0.03)


def test_components_of_one_mean_and_two_scales():
    y = np.concatenate([rng(2).normal(0, 0.3, 1500), rng(3).normal(0, 3, 1500)])
    model = dr.fit("y ~ 1", {"y": y}, dr.mixture("normal", "normal"))
    scale = np.sort(model.predict(which="params").iloc[0][["scale[1]", "scale[2]"]])
    np.testing.assert_allclose(scale, [0.3, 3.0], rtol=0.1)


def test_different_components():
    g = rng(6)
    y = np.concatenate([g.gamma(20, 0.05, 600), g.lognormal(2.0, 0.3, 400)])
    model = dr.fit("y ~ 1", {"y": y}, dr.mixture("gamma", "lognormal"))
    pi = model.predict(which="gate_prob").iloc[0]
    assert model.converged
    # the other way round fits worse: the components keep the order in which they were given
    assert pi["1"] == pytest.approx(0.6, abs=0.05)
    assert model.predict(which="params").iloc[0]["mean[1]"] == pytest.approx(1.0, abs=0.05)


def test_weights_are_repeated_rows():
    data, _ = faithful()
    w = np.where(np.arange(len(data)) % 3 == 0, 2.0, 1.0)
    weighted = dr.fit("eruptions ~ 1", data, "mixture", weights=w)
    repeated = dr.fit("eruptions ~ 1", data.loc[np.repeat(data.index, w.astype(int))], "mixture")
    np.testing.assert_allclose(weighted.coef.to_numpy(), repeated.coef.to_numpy(), atol=1e-5)


def test_censored_rows_of_a_mixture():
    g = rng(8)
    time = np.concatenate([g.lognormal(0.0, 0.3, 400), g.lognormal(2.0, 0.3, 600)])
    seen = np.minimum(time, 9.0)
    data = {"t": seen, "d": (time < 9.0).astype(float)}
    model = dr.fit("Surv(t, d) ~ 1", data, dr.mixture("lognormal", "lognormal"))
    theta = model.predict(which="params").iloc[0]
    np.testing.assert_allclose(theta[["loc[1]", "loc[2]"]], [0.0, 2.0], atol=0.06)
    np.testing.assert_allclose(theta[["scale[1]", "scale[2]"]], [0.3, 0.3], atol=0.04)


def test_a_mixture_of_binomials_counts_the_trials():
    g = rng(0)
    trials = g.integers(5, 30, 600)
    first = g.random(600) < 0.4
    s = g.binomial(trials, np.where(first, 0.2, 0.8))
    data = {"s": s.astype(float), "f": (trials - s).astype(float)}
    model = dr.fit("cbind(s, f) ~ 1", data, dr.mixture("binomial", "binomial"))
    theta = model.predict(which="params").iloc[0]
    np.testing.assert_allclose(theta[["prob[1]", "prob[2]"]], [0.2, 0.8], atol=0.02)
    pi = model.predict(which="gate_prob").iloc[0].to_numpy()
    joint = pi * np.column_stack(
        [scipy.stats.binom.pmf(s, trials, theta[f"prob[{m}]"]) for m in (1, 2)]
    )
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(which="class_prob"), expected, rtol=1e-7)
    z = model.residuals()
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3


def test_entropy_penalty_sharpens_the_classes():
    data, plain = faithful()
    one = rng(1).normal(size=400)
    free, pulled = (
        dr.fit("y ~ 1", {"y": one}, dr.mixture("normal", "normal", entropy=e)) for e in (0.0, 0.05)
    )

    def entropy(model):
        p = model.predict(which="gate_prob").iloc[0]
        return float(-np.sum(p * np.log(p)))

    assert entropy(pulled) < entropy(free)
    model = dr.fit("eruptions ~ 1", data, dr.mixture("normal", "normal", entropy=0.2))
    assert model.loglik < plain.loglik
    y = data["eruptions"].to_numpy()
    logs = model.predict(which="logpdf", at=y[:, None])
    assert model.loglik == pytest.approx(np.sum(logs), abs=1e-8)


# -- where there is no maximum -------------------------------------------------------------------


@pytest.mark.parametrize("ties", [5, 20])
def test_a_component_that_collapses_onto_tied_values_is_reported(ties):
    """A normal that shrinks onto tied values has an infinite likelihood: there is no fit."""
    y = np.concatenate([rng(4).normal(size=100), np.full(ties, 5.0)])
    with pytest.raises(FitError, match="component 2 of the mixture has collapsed"):
        dr.fit("y ~ 1", {"y": y}, dr.mixture("normal", "normal"))


@pytest.mark.filterwarnings("ignore:Newton steps did not reach")
def test_a_component_that_collapses_onto_an_outlier_is_reported():
    y = np.append(rng(1).normal(size=100), 1e6)
    with pytest.warns(dr.ConvergenceWarning, match="component 2 of the mixture has collapsed"):
        model = dr.fit("y ~ 1", {"y": y}, dr.mixture("normal", "normal"))
    assert not model.converged
    assert np.isfinite(model.coef).all()


def test_a_gate_that_separates_is_reported():
    y = np.concatenate([rng(1).normal(0, 1, 100), rng(2).normal(8, 1, 100)])
    with pytest.warns(dr.ConvergenceWarning, match="the gate is certain of the class"):
        dr.fit({"loc": "y ~ 1", "gate": "~ x"}, {"y": y, "x": np.repeat([0.0, 1.0], 100)},
               dr.mixture("normal", "normal"))  # fmt: skip


def test_a_response_of_one_class_only():
    with pytest.raises(ResponseError, match="use fewer components"):
        dr.fit("y ~ 1", {"y": np.array([1.0, 2.0, 3.0, 4.0])}, dr.mixture("normal", "normal"))


@pytest.mark.parametrize(
    ("components", "match"),
    [
        (["normal"], "two components at least, got 1"),
        (["normal", "gamma"], "different supports"),
        (["normal", "poisson"], "different supports"),
        (["normal", "mvn"], "cannot have the component 'mvn'"),
        (["normal", "mixture"], "cannot have the component 'mixture'"),
        (["normal", "norml"], "did you mean 'normal'"),
    ],
)
def test_components_that_do_not_go_together_are_refused(components, match):
    with pytest.raises(FamilyError, match=match):
        dr.mixture(*components)


def test_a_negative_entropy_penalty_is_refused():
    with pytest.raises(FamilyError, match="entropy must be a number of at least 0"):
        dr.mixture("normal", "normal", entropy=-1.0)
