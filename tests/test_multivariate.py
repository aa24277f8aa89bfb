"""Classes and vectors as responses: densities, derivatives, references of R, known identities."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

import deepregress as dr
from deepregress.errors import FormulaError, PredictionError, ResponseError
from deepregress.families import family
from deepregress.families.base import upper_pairs
from deepregress.response import Response

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
CASES = json.loads((REFERENCE / "groups.json").read_text())["cases"]
rng = np.random.default_rng


@functools.cache
def table(name):
    data = pd.read_csv(REFERENCE / f"{name}.csv")
    if name == "womenlf":
        data["partic"] = pd.Categorical(data["partic"], ["not.work", "parttime", "fulltime"])
    return data


def response(y, **given):
    y = np.asarray(y, dtype=float)
    names = ",".join("abcdefgh"[: y.shape[1]]) if y.ndim > 1 else ""
    label = f"cbind({names})" if names else "y"
    defaults = {"weights": np.ones(len(y)), "entry": None, "label": label, "levels": None}
    return Response(lower=y, upper=y, **{**defaults, **given})


def random_correlation(d, seed):
    A = rng(seed).normal(size=(d, d + 1))
    S = A @ A.T
    return S / np.sqrt(np.outer(np.diag(S), np.diag(S)))


# -- densities and derivatives ---------------------------------------------------------------------


def at_random(name, d, n=6, seed=0):
    """A family of d elements, predictors and responses that it can take."""
    if name == "categorical":
        y = np.r_[np.arange(d), rng(seed).integers(0, d, n - d)].astype(float)
    elif name == "multinomial":
        y = rng(seed).poisson(3.0, size=(n, d)) + 1.0
    elif name == "dirichlet":
        y = rng(seed).dirichlet(np.ones(d), n)
    else:
        y = rng(seed).normal(size=(n, d))
    fam = family(name).for_response(response(y))
    return fam, y, 0.7 * rng(seed + 1).normal(size=(n, fam.n_units))


KINDS = [("categorical", 4), ("multinomial", 3), ("mvn", 2), ("mvn", 3), ("mvn", 4)]
KINDS += [("dirichlet", 3), ("dirichlet", 6)]


@pytest.mark.parametrize(("name", "d"), KINDS)
def test_density_is_scipys(name, d):
    fam, y, eta = at_random(name, d)
    theta = fam.parameters_at(eta)
    columns = np.column_stack(list(theta.values()))
    if name in ("categorical", "multinomial"):
        p = scipy.special.softmax(np.column_stack([np.zeros(len(y)), columns]), axis=1)
        counts = y if y.ndim > 1 else np.eye(d)[y.astype(int)]
        expected = [
            scipy.stats.multinomial(c.sum(), q).logpmf(c) for c, q in zip(counts, p, strict=True)
        ]
    elif name == "dirichlet":
        expected = [scipy.stats.dirichlet(a).logpdf(v) for a, v in zip(columns, y, strict=True)]
    else:
        S = fam.covariance(eta)
        np.testing.assert_allclose(np.sqrt(np.einsum("ijj->ij", S)), columns[:, d : 2 * d])
        expected = [
            scipy.stats.multivariate_normal(m, s).logpdf(v)
            for m, s, v in zip(columns[:, :d], S, y, strict=True)
        ]
    np.testing.assert_allclose(fam.logpdf(y, eta), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "d"), KINDS)
def test_row_derivatives_are_central_differences(name, d):
    fam, y, eta = at_random(name, d)
    rows, step = response(y).rows(), 1e-5
    value, gradient, W = fam.row_derivatives(rows, eta)
    weight = rng(7).normal(size=W.shape)
    third = fam.contracted_third(rows, eta, weight)
    pairs = upper_pairs(fam.n_units)
    for u in range(fam.n_units):
        shift = step * np.eye(fam.n_units)[u]
        up, down = (fam.row_derivatives(rows, eta + s) for s in (shift, -shift))
        # differences of step 1e-5: truncation 1e-10, rounding 1e-11
        scale = 1e-6 * (1 + np.abs(W).max() + np.abs(third).max())
        np.testing.assert_allclose((up[0] - down[0]) / (2 * step), gradient[:, u], atol=scale)
        for p, (k, m) in enumerate(pairs):
            if k == u:
                slope = (up[1] - down[1])[:, m] / (2 * step)
                np.testing.assert_allclose(-slope, W[:, p], atol=scale)
        contracted = np.sum(weight * (up[2] - down[2]), axis=1) / (2 * step)
        np.testing.assert_allclose(contracted, third[:, u], atol=scale)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_start_values_of_mvn_are_the_moments(d):
    R = random_correlation(d, seed=d)
    sd, mean = np.linspace(0.5, 3.0, d), np.arange(d)
    y = rng(1).multivariate_normal(mean, R * np.outer(sd, sd), size=400)
    fam = family("mvn").for_response(response(y))
    eta = fam.start(response(y))[None]
    np.testing.assert_allclose(fam.mean(eta)[0], y.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(fam.covariance(eta)[0], np.cov(y.T, ddof=0), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        fam.further_quantity("correlation", eta, {})[0], np.corrcoef(y.T), atol=1e-9
    )


def test_correlations_next_to_one_are_exact():
    fam = family("mvn").for_response(response(rng(0).normal(size=(5, 2))))
    # log(1 - tanh(eta)^2) = -2 log cosh(eta), whose digits tanh(eta) = 1 has not
    eta = np.array([[0.0, 0.0, 0.0, 0.0, 25.0]])
    expected = -np.log(2 * np.pi) + 25.0 - np.log(2.0)
    assert fam.logpdf(np.zeros((1, 2)), eta)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "d"), [("mvn", 3), ("dirichlet", 3), ("categorical", 3)])
def test_samples_have_the_moments(name, d):
    fam, _, eta = at_random(name, d)
    draws = fam.sample(eta, 20_000, seed=3)
    if name == "categorical":
        draws = (draws[..., None] == np.arange(3.0)).astype(float)
    else:
        cov = np.stack([np.cov(draws[:, i].T) for i in range(len(eta))])
        size = np.sqrt(np.einsum("ij,ik->ijk", *[fam.variance(eta)] * 2))
        # 6 standard errors of a covariance of 20,000 draws, for the heavier tails of shares too
        assert np.max(np.abs(cov - fam.covariance(eta)) / size) < 0.06
    error = np.sqrt(fam.variance(eta) / 20_000)
    assert np.max(np.abs(draws.mean(axis=0) - fam.mean(eta)) / error) < 5.0


@pytest.mark.parametrize(("name", "d"), [("mvn", 3), ("dirichlet", 4)])
def test_scores_of_draws_are_independent_standard_normals(name, d):
    fam, _, eta = at_random(name, d)
    eta = np.repeat(eta, 4000, axis=0)
    z = fam.scores(fam.sample(eta, 1, seed=2)[0], eta)
    n = len(z)
    assert np.all(scipy.stats.kstest(z, "norm", axis=0).pvalue > 1e-3)
    off = np.corrcoef(z.T) - np.eye(z.shape[1])
    assert np.max(np.abs(off)) < 4.0 / np.sqrt(n)


# -- references of R -------------------------------------------------------------------------------


def ps(name):
    return f"s({name}, bs='ps')"


def compare(model, expected, *, loglik, fitted):
    assert model.converged
    assert model.loglik == pytest.approx(expected["logLik"], abs=loglik)
    mean = np.asarray(model.predict())[:20]
    np.testing.assert_allclose(
        mean, np.column_stack(list(expected["fitted"].values())), atol=fitted
    )


def test_womens_labour_is_vglms():
    expected = CASES["multinomial"]["models"]["womenlf_vglm"]
    model = dr.fit("partic ~ hincome + children", table("womenlf"), "categorical")
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-6)
    for place, level in enumerate(["parttime", "fulltime"], start=1):
        for name, ours in [("(Intercept)", "(Intercept)"), ("hincome", "hincome"),
                           ("childrenpresent", "children[T.present]")]:  # fmt: skip
            reference = expected["coefficients"][f"{name}:{place}"]
            key = (f"logits[{level}]", ours)
            # Newton stops at 1e-5 standard errors
            assert model.coef[key] == pytest.approx(
                reference["estimate"], abs=2e-5 * reference["se"]
            )
            assert model.std_error[key] == pytest.approx(reference["se"], rel=1e-5)
    compare(model, expected, loglik=1e-6, fitted=1e-5)


def test_glass_is_nnets():
    expected = CASES["multinomial"]["models"]["fgl_nnet"]
    model = dr.fit("cls ~ RI + Mg + Al", table("fgl"), "multinomial")
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-5)
    for k in (1, 2, 3):
        for name, estimate in expected["estimate"][f"c{k}"].items():
            # nnet's optimiser leaves 1e-4 of a standard error
            se = expected["se"][f"c{k}"][name]
            assert model.coef[f"logits[{k}]", name] == pytest.approx(estimate, abs=1e-3 * se)


def test_glass_with_smooths_is_mgcvs():
    expected = CASES["multinomial"]["models"]["fgl_gam"]
    formula = {"logits": "cls ~ s(RI, k=5) + s(Mg, k=5)", "logits[3]": "~ s(Al, k=5)"}
    model = dr.fit(formula, table("fgl"), "categorical")
    compare(model, expected, loglik=1e-3, fitted=1e-4)
    assert model.reml == pytest.approx(expected["score"], abs=1e-4)
    smooths = [key for key in model.edf.index if key[1].startswith("s(")]
    np.testing.assert_allclose(model.edf[smooths], list(expected["edf"].values()), atol=1e-3)


BIVARIATE = {
    "sim_ps": ({"loc[y0]": f"cbind(y0, y1) ~ {ps('x0')} + {ps('x2')}",
                "loc[y1]": f"~ {ps('x1')} + {ps('x3')}"}, "mvn_sim"),
    "sim_cr": ({"loc[y0]": "cbind(y0, y1) ~ s(x0, bs='cr') + s(x2, bs='cr')",
                "loc[y1]": "~ s(x1, bs='cr') + s(x3, bs='cr')"}, "mvn_sim"),
    "sim_all_ps": ("cbind(y0, y1) ~ " + " + ".join(ps(f"x{i}") for i in range(4)), "mvn_sim"),
    "iris_smooth": ({"loc[SL]": f"cbind(SL, SW) ~ species + {ps('PL')}",
                     "loc[SW]": f"~ species + {ps('PW')}"}, "iris"),
}  # fmt: skip


@pytest.mark.parametrize("name", BIVARIATE)
def test_smooth_means_of_two_elements_are_mgcvs(name):
    """mgcv integrates its own parameters of the covariance out, so that V differs a little."""
    expected = CASES["mvn_models"]["models"][name]
    formula, data = BIVARIATE[name]
    model = dr.fit(formula, table(data), "mvn")
    compare(model, expected, loglik=0.03, fitted=1e-3)
    np.testing.assert_allclose(model.predict(which="covariance")[0], expected["Sigma"], rtol=1e-3)
    assert model.edf_total == pytest.approx(expected["edf_total"], abs=0.03)


def test_two_linear_means_are_those_of_lm():
    expected = CASES["mvn_models"]["models"]["iris_mlm"]
    model = dr.fit("cbind(SL, SW) ~ species + PL", table("iris"), "mvn")
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-6)
    np.testing.assert_allclose(
        model.predict(which="covariance")[0], expected["Sigma_ml"], rtol=1e-6
    )
    rho = model.predict(which="correlation")[:, 0, 1]
    np.testing.assert_allclose(rho, expected["rho"], rtol=1e-6)
    np.testing.assert_allclose(model.predict(which="params")["correlation[SL,SW]"], rho)
    for element, coefficients in expected["coefficients_matrix"].items():
        np.testing.assert_allclose(
            model.coef[f"loc[{element}]"], list(coefficients.values()), rtol=1e-6
        )
    np.testing.assert_allclose(model.predict(which="logpdf")[:20], expected["logpdf"], atol=1e-6)


def test_every_parameter_of_two_elements_can_have_covariates():
    expected = CASES["ml_families"]["models"]["bivariate_normal"]
    formula = {"loc[mv1]": "cbind(mv1, mv2) ~ x1 + x2", "scale[mv1]": "~ x1", "loc[mv2]": "~ x2",
               "correlation": "~ x2"}  # fmt: skip
    model = dr.fit(formula, table("ml_families"), "mvn")
    names = {"mu1": "loc[mv1]", "sigma1": "scale[mv1]", "mu2": "loc[mv2]", "sigma2": "scale[mv2]",
             "rho": "correlation[mv1,mv2]"}  # fmt: skip
    check_ml(model, expected, names)


def test_dirichlet_regression_is_the_direct_maximum():
    expected = CASES["ml_families"]["models"]["dirichlet"]
    formula = {"concentration[dir1]": "cbind(dir1, dir2, dir3) ~ x1", "concentration[dir3]": "~ x2"}
    model = dr.fit(formula, table("ml_families"), "dirichlet")
    check_ml(model, expected, {f"alpha{k}": f"concentration[dir{k}]" for k in (1, 2, 3)})


def check_ml(model, expected, names):
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-5)
    for key, reference in expected["coefficients"].items():
        parameter, term = key.split(":")
        place = (names[parameter], term)
        assert model.coef[place] == pytest.approx(reference["estimate"], abs=1e-4 * reference["se"])
        assert model.std_error[place] == pytest.approx(reference["se"], rel=1e-3)


# -- identities ------------------------------------------------------------------------------------


def test_two_classes_are_bernoulli():
    data = table("womenlf").assign(works=lambda d: (d["partic"] != "not.work").astype(int))
    ours = dr.fit("works ~ s(hincome, k=6) + children", data, "categorical")
    known = dr.fit("works ~ s(hincome, k=6) + children", data, "bernoulli")
    np.testing.assert_allclose(ours.coef["logits[1]"], known.coef["prob"], atol=1e-4)
    assert ours.loglik == pytest.approx(known.loglik, abs=1e-5)
    np.testing.assert_allclose(ours.predict()["1"], known.predict(), atol=1e-5)


def test_the_reference_class_does_not_matter():
    data = table("womenlf")
    other = data.assign(partic=pd.Categorical(data["partic"].astype(str),
                                              ["fulltime", "not.work", "parttime"]))  # fmt: skip
    formula = "partic ~ hincome + children"
    one, two = dr.fit(formula, data, "categorical"), dr.fit(formula, other, "categorical")
    assert one.loglik == pytest.approx(two.loglik, abs=1e-9)
    p = one.predict()
    np.testing.assert_allclose(two.predict()[p.columns], p, atol=1e-8)
    difference = one.coef["logits[parttime]"] - one.coef["logits[fulltime]"]
    np.testing.assert_allclose(two.coef["logits[parttime]"], difference, atol=1e-6)


def test_counts_of_classes_are_as_many_rows():
    data = table("womenlf")
    counts = pd.crosstab(data["children"], data["partic"]).reset_index()
    counts.columns = ["children", "none", "part", "full"]
    grouped = dr.fit("cbind(none, part, full) ~ children", counts, "multinomial")
    single = dr.fit("partic ~ children", data, "multinomial")
    np.testing.assert_allclose(grouped.coef.to_numpy(), single.coef.to_numpy(), atol=1e-6)
    np.testing.assert_allclose(grouped.std_error.to_numpy(), single.std_error, rtol=1e-6)


def test_independent_elements_are_separate_models():
    data = table("mvn_sim")
    joint = dr.fit({"loc": "cbind(y0, y1) ~ x1 + x2", "scale": "~ x3", "correlation": 0.0},
                   data, "mvn")  # fmt: skip
    alone = [dr.fit({"loc": f"{y} ~ x1 + x2", "scale": "~ x3"}, data) for y in ("y0", "y1")]
    assert joint.loglik == pytest.approx(sum(model.loglik for model in alone), abs=1e-6)
    for name, model in zip(("y0", "y1"), alone, strict=True):
        for parameter in ("loc", "scale"):
            np.testing.assert_allclose(
                joint.coef[f"{parameter}[{name}]"], model.coef[parameter], atol=1e-5
            )


def test_the_order_of_two_elements_does_not_matter():
    data, terms = table("mvn_sim"), "x1 + x2"
    one = dr.fit({"loc": f"cbind(y0, y1) ~ {terms}", "correlation": "~ x3"}, data, "mvn")
    two = dr.fit({"loc": f"cbind(y1, y0) ~ {terms}", "correlation": "~ x3"}, data, "mvn")
    assert one.loglik == pytest.approx(two.loglik, abs=1e-8)
    np.testing.assert_allclose(
        one.coef["correlation[y0,y1]"], two.coef["correlation[y1,y0]"], atol=1e-6
    )


@pytest.mark.parametrize("name", ["categorical", "mvn", "dirichlet"])
def test_simulated_coefficients_are_found(name):
    n, x = 5000, rng(4).uniform(-1, 1, 5000)
    design = np.column_stack([np.ones(n), x])
    d = 3
    fam, _, _ = at_random(name, d)
    truth = rng(9).uniform(-0.8, 0.8, size=(fam.n_units, 2))
    y = fam.sample(design @ truth.T, 1, seed=8)[0]
    data = {"x": x, "Y": y if y.ndim > 1 else y.astype(int)}
    formula = dict.fromkeys(fam.groups, "~ x") | {fam.groups[0]: "Y ~ x"}
    model = dr.fit(formula, data, name)
    z = (model.coef.to_numpy() - truth.ravel()) / model.std_error.to_numpy()
    assert np.max(np.abs(z)) < 3.5  # 18 coefficients: 3 standard errors each, 3.5 for the largest
    assert 0.4 < np.mean(z**2) < 2.0


# -- what users see --------------------------------------------------------------------------------


def test_predictions_of_classes(tmp_path):
    model = dr.fit("partic ~ hincome + children", table("womenlf"), "categorical")
    new = table("womenlf").iloc[[0, 5, 9]]
    p = model.predict(new)
    assert list(p.columns) == ["not.work", "parttime", "fulltime"]
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_allclose(model.predict(new, which="prob"), p, rtol=1e-14)
    linear = model.predict(new, which="linear", parameter="logits")
    expected = scipy.special.softmax(np.column_stack([np.zeros(3), linear]), axis=1)
    np.testing.assert_allclose(p, expected)
    one = model.predict(new, which="linear", parameter="logits[fulltime]")
    np.testing.assert_array_equal(one, linear["logits[fulltime]"])
    bounds = model.predict(new, interval=0.9)
    assert list(bounds["parttime"].columns) == ["estimate", "lower", "upper"]
    own = [model.predict(new)[level].to_numpy()[i] for i, level in enumerate(new["partic"])]
    assert model.log_score(new) == pytest.approx(np.mean(np.log(own)))
    path = tmp_path / "model.zip"
    model.save(path)
    np.testing.assert_array_equal(dr.load(path).predict(new), p)
    assert "--- logits[parttime] ---" in str(model.summary())
    assert model.residuals().shape == (263,)
    assert model.residuals("pearson").shape == (263, 3)
    effect = model.partial_effect("hincome", "logits[fulltime]")
    first = model.partial_effect("hincome", "logits")
    pd.testing.assert_frame_equal(first, model.partial_effect("hincome", "logits[parttime]"))
    assert effect["effect"].iloc[0] > effect["effect"].iloc[-1]
    assert model.sample(new, 5, seed=1).shape == (5, 3)


def test_predictions_of_vectors(tmp_path):
    data = table("iris")
    model = dr.fit({"loc": "cbind(SL, SW, PL) ~ species", "scale[PL]": "~ species"}, data, "mvn")
    assert list(model.predict().columns) == ["SL", "SW", "PL"]
    means = data.groupby("species")[["SL", "SW", "PL"]].mean()
    np.testing.assert_allclose(model.predict(data.iloc[[0]]), means.loc[["setosa"]], atol=0.05)
    assert model.sample(n=2).shape == (2, 150, 3)
    assert model.predict(which="variance").shape == (150, 3)
    assert model.predict(which="correlation").shape == (150, 3, 3)
    assert model.residuals().shape == (150, 3)
    assert model.log_score() == pytest.approx(model.loglik / 150)
    path = tmp_path / "model.zip"
    model.save(path)
    np.testing.assert_array_equal(dr.load(path).predict(data), model.predict(data))
    for which in ("median", "quantile", "cdf"):
        with pytest.raises(PredictionError, match="a response of one number; 'mvn' has a vector"):
            model.predict(which=which, at=None if which == "median" else 0.5)
    model.plot_diagnostics()
    model.plot("loc")


def test_a_column_of_arrays_is_a_vector_with_numbered_elements():
    data = table("iris")
    Y = data[["SL", "SW"]].to_numpy()
    ours = dr.fit("Y ~ x", {"Y": Y, "x": data["PL"].to_numpy()}, "mvn")
    known = dr.fit("cbind(SL, SW) ~ PL", data, "mvn")
    assert ours.family.parameter_names[:2] == ("loc[1]", "loc[2]")
    np.testing.assert_allclose(ours.coef.to_numpy(), known.coef.to_numpy(), rtol=1e-12)


SHARES = rng(0).dirichlet([1.0, 2.0, 3.0], 20)


@pytest.mark.parametrize(
    ("y", "name", "match"),
    [
        (np.zeros(20), "categorical", "one class only"),
        (rng(0).normal(size=20), "categorical", "needs classes, a factor, strings or whole"),
        (SHARES, "categorical", "has 3 columns; family 'categorical' needs classes"),
        (rng(0).normal(size=20), "mvn", "one number per row; family 'mvn' needs vectors"),
        (rng(0).normal(size=(20, 2)), "normal", "needs finite numbers"),
        (2 * SHARES, "dirichlet", "needs positive shares that add up to 1"),
        (np.c_[SHARES, SHARES.sum(axis=1, keepdims=True)][:, [0, 0]], "mvn", "linear function"),
        (SHARES, "multinomial", "needs counts of the classes"),
    ],
)
def test_wrong_responses_are_refused(y, name, match):
    with pytest.raises(ResponseError, match=match):
        dr.fit("y ~ 1", {"y": y}, name)


def test_unknown_members_are_refused():
    with pytest.raises(FormulaError, match=r"'logits\[fultime\]' is not a parameter .* did you"):
        dr.fit({"logits": "partic ~ 1", "logits[fultime]": "~ hincome"}, table("womenlf"),
               "categorical")  # fmt: skip


def test_separated_classes_are_warned_of():
    x = np.linspace(-1, 1, 60)
    y = np.digitize(x, [-0.4, 0.3])
    with pytest.warns(dr.ConvergenceWarning, match="separate the classes"):
        model = dr.fit("y ~ x", {"y": y, "x": x}, "categorical")
    assert np.isfinite(model.predict().to_numpy()).all()
