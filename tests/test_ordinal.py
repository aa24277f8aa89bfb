"""Cumulative link models against ordinal::clm and clmm, MASS::polr, SciPy and mgcv.

Results of R stand in data/reference/ordinal.json. Two implementations of one likelihood that both
converge agree to 1e-5 in coefficients and 1e-6 in its value.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf

import deepregress as dr
from deepregress.errors import FamilyError, FormulaError, PredictionError, ResponseError
from deepregress.families import family
from deepregress.families.base import Family, upper_pairs
from deepregress.families.ordinal import Ordinal
from deepregress.families.standard import BY_LINK
from deepregress.response import Response

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "ordinal.json").read_text())
LINKS = ("logit", "probit", "cloglog", "loglog", "cauchit")
SCIPY = {
    "logit": scipy.stats.logistic,
    "probit": scipy.stats.norm,
    "cloglog": scipy.stats.gumbel_l,
    "loglog": scipy.stats.gumbel_r,
    "cauchit": scipy.stats.cauchy,
}
COEF, LOGLIK = 1e-5, 1e-6
LEVELS = {
    "soupfreq": [">1/week", "1-4/month", "<1/month"],
    "sat": ["Low", "Medium", "High"],
    "gender": ["Male", "Female"],
    "cont": ["Low", "High"],
    "infl": ["Low", "Medium", "High"],
    "type": ["Tower", "Apartment", "Atrium", "Terrace"],
}


@functools.cache
def table(name: str) -> pd.DataFrame:
    data = pd.read_csv(REFERENCE / f"{name}.csv")
    for column, levels in LEVELS.items():
        if column in data:
            data[column] = pd.Categorical(data[column], levels, ordered=True)
            assert data[column].notna().all()
            if column != "sat":
                data[column] = data[column].cat.as_unordered()
    return data


def named(series: pd.Series, parameter: str = "location") -> dict[str, float]:
    """Coefficients by R's names: thresholds 1|2, effects tempwarm."""
    found = {}
    for (group, term), value in series.items():
        if group.startswith("threshold["):
            label = group[len("threshold[") : -1]
            found[label if term == "(Intercept)" else f"{label}.{plain(term)}"] = value
        elif group == parameter:
            found[plain(term)] = value
    return found


def plain(term: str) -> str:
    return term.replace("[T.", "").replace("]", "")


def agree(model, expected, *, coef=COEF, loglik=LOGLIK, parameter="location"):
    assert model.converged
    assert model.loglik == pytest.approx(expected["logLik"], abs=loglik)
    ours, errors = named(model.coef, parameter), named(model.std_error, parameter)
    for name, of_r in expected["coefficients"].items():
        assert ours[name] == pytest.approx(of_r["estimate"], abs=coef), name
        assert errors[name] == pytest.approx(of_r["se"], abs=coef), name


# -- the distribution ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINKS)
def test_standard_distributions_are_scipys(name):
    standard, reference = BY_LINK[name], SCIPY[name]
    z = np.linspace(-6.0, 6.0, 49)
    at = tf.constant(z)
    for ours, expected in (
        (standard.log_density, reference.logpdf),
        (standard.log_cdf, reference.logcdf),
        (standard.log_survival, reference.logsf),
    ):
        np.testing.assert_allclose(ours(at).numpy(), expected(z), rtol=1e-11, atol=1e-13)
    p = np.linspace(0.01, 0.99, 33)
    np.testing.assert_allclose(standard.quantile(p), reference.ppf(p), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("centre", [-20.0, -2.0, 0.0, 2.0, 20.0])
def test_probabilities_between_two_points_keep_their_digits_in_both_tails(name, centre):
    # by quadrature of the density on the log scale, which does not cancel
    nodes, weights = np.polynomial.legendre.leggauss(60)
    a, b = centre - 0.2, centre + 0.2
    log_f = SCIPY[name].logpdf(centre + 0.2 * nodes)
    if not np.isfinite(log_f).all() or log_f.max() < -1e6:
        pytest.skip("no probability in float64 there")
    expected = scipy.special.logsumexp(log_f, b=weights) + np.log(0.2)
    found = BY_LINK[name].log_between(tf.constant([a], tf.float64), tf.constant([b], tf.float64))
    # a sum of two functions of size |log F| keeps their rounding
    assert float(found[0]) == pytest.approx(expected, rel=1e-11, abs=1e-10)


def three_classes(link="logit") -> Family:
    y = np.array([1.0, 2.0, 3.0])
    return family("ordinal", link).for_response(Response(y, y, np.ones(3), None, "y", None))


@pytest.mark.parametrize("name", LINKS)
def test_probabilities_are_differences_of_the_distribution_function(name):
    fam = three_classes(name)
    eta = np.array([[0.3, -1.0, 0.5, 0.2], [0.7, -0.1, 0.1, -0.5]])
    F = SCIPY[name].cdf((eta[:, 1:3] - eta[:, :1]) / np.exp(eta[:, 3:]))
    expected = np.diff(np.column_stack([np.zeros(2), F, np.ones(2)]), axis=1)
    # the reference is a difference of numbers near 1
    np.testing.assert_allclose(fam.mean(eta), expected, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(fam.mean(eta).sum(axis=1), 1.0, rtol=1e-12)
    for k, code in enumerate((1.0, 2.0, 3.0)):
        at = np.full(2, code)
        total = expected[:, : k + 1].sum(axis=1)
        np.testing.assert_allclose(fam.cdf(at, eta), total, rtol=1e-9)
        np.testing.assert_allclose(fam.cdf(at, eta) + fam.survival(at, eta), 1.0, rtol=1e-12)
    assert np.all(fam.cdf(np.zeros(2), eta) == 0.0)
    np.testing.assert_array_equal(fam.quantile(np.array([1e-9, 1 - 1e-9]), eta), [1.0, 3.0])


def rows_of_all_kinds() -> dict[str, np.ndarray]:
    lower = np.array([1.0, 2.0, 3.0, -np.inf, 2.0, 1.0, 2.0])
    upper = np.array([1.0, 2.0, 3.0, 2.0, np.inf, 2.0, 3.0])
    return dict(Response(lower, upper, np.ones(7), None, "y", None).rows())


@pytest.mark.parametrize("name", LINKS)
def test_derivatives_by_the_chain_rule_are_those_of_autodiff(name):
    fam, rows = three_classes(name), rows_of_all_kinds()
    rng = np.random.default_rng(0)
    eta = np.column_stack(
        [rng.normal(size=7), -0.5 + 0.1 * rng.normal(size=7), 0.8 + 0.1 * rng.normal(size=7),
         0.3 * rng.normal(size=7)]
    )  # fmt: skip
    weight = rng.normal(size=(7, len(upper_pairs(4))))
    for ours, expected in zip(
        fam.row_derivatives(rows, eta), Family.row_derivatives(fam, rows, eta), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        fam.contracted_third(rows, eta, weight),
        Family.contracted_third(fam, rows, eta, weight),
        rtol=1e-7,
        atol=1e-9,
    )
    F = SCIPY[name].cdf((eta[:, 1:3] - eta[:, :1]) / np.exp(eta[:, 3:]))
    F = np.column_stack([np.zeros(7), F, np.ones(7)])
    low, high = [0, 1, 2, 0, 1, 0, 1], [1, 2, 3, 2, 3, 2, 3]
    every = np.arange(7)
    expected = np.log(F[every, high] - F[every, low])
    np.testing.assert_allclose(fam.row_log_likelihood(rows, eta), expected, rtol=1e-9)


# -- fits against R --------------------------------------------------------------------------------

WINE = "rating ~ temp + contact"


@pytest.mark.parametrize("name", ["logit", "probit", "cloglog", "loglog"])
def test_wine_with_each_link_is_clms(name):
    model = dr.fit(WINE, table("wine"), "ordinal", link=name)
    expected = R["wine"][f"clm_{name}"]
    agree(model, expected)
    new = expected["predict"]["newdata"]
    ours = model.predict(pd.DataFrame(new), which="prob")
    assert list(ours.columns) == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose(ours.to_numpy(), expected["predict"]["prob"], atol=COEF)


def test_a_cauchy_fit_is_the_maximum_that_scipy_finds():
    """The value that clm reports is 2.8e-4 below the likelihood at its own estimates."""
    expected = R["wine"]["clm_cauchit"]
    model = dr.fit(WINE, table("wine"), "ordinal", link="cauchit")
    data = table("wine")
    X = np.column_stack([data.temp == "warm", data.contact == "yes"]).astype(float)

    def loglik(theta):
        edges = np.concatenate([[-np.inf], theta[:4], [np.inf]])
        eta, y = X @ theta[4:], data.rating.to_numpy()
        F = scipy.stats.cauchy.cdf
        return np.log(F(edges[y] - eta) - F(edges[y - 1] - eta)).sum()

    theirs = np.array([each["estimate"] for each in expected["coefficients"].values()])
    assert loglik(theirs) == pytest.approx(expected["logLik"] + 2.766e-4, abs=1e-7)
    found = named(model.coef)
    ours = np.array([found[name] for name in expected["coefficients"]])
    assert loglik(ours) == pytest.approx(model.loglik, abs=1e-9)
    best = scipy.optimize.minimize(lambda t: -loglik(t), theirs, options={"gtol": 1e-9})
    assert model.loglik == pytest.approx(-best.fun, abs=1e-8)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert model.loglik >= loglik(theirs)


def test_scale_effects_are_clms():
    formulas = {"location": WINE, "scale": "~ temp"}
    model = dr.fit(formulas, table("wine"), "ordinal")
    agree(model, R["wine"]["clm_scale"] | {
        # R's table has tempwarm twice, and the JSON kept the second: that of the scale
        "coefficients": {
            name: value
            for name, value in R["wine"]["clm_scale"]["coefficients"].items()
            if name != "tempwarm"
        }
    })  # fmt: skip
    scale = R["wine"]["clm_scale"]["coefficients"]["tempwarm"]
    assert model.coef["scale", "temp[T.warm]"] == pytest.approx(scale["estimate"], abs=COEF)
    assert model.std_error["scale", "temp[T.warm]"] == pytest.approx(scale["se"], abs=COEF)
    both = dr.fit(
        {"location": WINE, "scale": "~ temp + contact"}, table("wine"), "ordinal", link="probit"
    )
    expected = R["wine"]["clm_scale_probit"]
    assert both.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    for name, ours in (("tempwarm", "temp[T.warm]"), ("contactyes", "contact[T.yes]")):
        of_r = expected["coefficients"][name]["estimate"]
        assert both.coef["scale", ours] == pytest.approx(of_r, abs=COEF)


def test_nominal_effects_are_clms():
    formulas = {"location": "rating ~ temp", "threshold": "~ contact"}
    model = dr.fit(formulas, table("wine"), "ordinal")
    expected = R["wine"]["clm_nominal"]
    # clm's thresholds fall with contact where our location rises: the same sign of the threshold
    renamed = {name.replace(".(Intercept)", ""): v for name, v in expected["coefficients"].items()}
    agree(model, expected | {"coefficients": renamed})
    ours = model.predict(pd.DataFrame(expected["predict"]["newdata"]), which="prob")
    np.testing.assert_allclose(ours.to_numpy(), expected["predict"]["prob"], atol=COEF)


def test_the_null_model_has_the_observed_shares():
    model = dr.fit("rating ~ 1", table("wine"), "ordinal")
    assert model.loglik == pytest.approx(-103.71908, abs=5e-6)
    counts = table("wine").rating.value_counts().sort_index().to_numpy()
    np.testing.assert_allclose(
        model.predict(which="prob").to_numpy()[0], counts / counts.sum(), rtol=1e-8
    )
    assert list(model.coef.index.get_level_values(1)) == ["(Intercept)"] * 4


def test_random_judges_are_clmms():
    model = dr.fit(f"{WINE} + (1 | judge)", table("wine"), "ordinal", method="ML")
    expected = R["wine"]["clmm_laplace"]
    # clmm maximises the Laplace approximation in all coefficients; ours is at their joint mode
    assert -model.reml == pytest.approx(expected["logLik"], abs=0.05)
    assert -model.reml < expected["logLik"]
    ours = named(model.coef)
    for name, of_r in expected["coefficients"].items():
        # effects conditional on judges grow with their sd, which the two criteria put 0.006 apart
        assert abs(ours[name] - of_r["estimate"]) < 0.2 * of_r["se"], name
    sd = 1.0 / np.sqrt(model.sp.iloc[0])
    assert sd == pytest.approx(expected["sd_judge"], abs=0.1)


def test_weighted_frequencies_are_polrs():
    model = dr.fit("sat ~ infl + type + cont", table("housing"), "ordinal", weights="freq")
    expected = R["housing"]["polr"]
    assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    assert model.loglik == pytest.approx(-1739.575, abs=5e-4)
    ours, errors = named(model.coef), named(model.std_error)
    for name, estimate, se in zip(
        expected["names"], expected["estimate"], expected["se"], strict=True
    ):
        name = name if "|" in name else name[0].lower() + name[1:]
        assert ours[name] == pytest.approx(estimate, abs=1e-4), name
        # polr's standard errors come from a Hessian by differences
        assert errors[name] == pytest.approx(se, rel=1e-3), name


@pytest.mark.parametrize(
    ("name", "formula", "link"),
    [
        ("logit", "sure ~ prod + soupfreq + agegroup", "logit"),
        ("probit", "sure ~ prod + soupfreq + agegroup", "probit"),
        ("prodid_day", "sure ~ prodid + day + gender", "logit"),
    ],
)
def test_soup_is_clms(name, formula, link):
    agree(dr.fit(formula, table("soup"), "ordinal", link=link), R["soup"][name])


def test_the_signal_detection_model_of_soup_is_clms():
    formulas = {"location": "sure ~ prod", "scale": "~ prod"}
    model = dr.fit(formulas, table("soup"), "ordinal", link="probit")
    expected = R["soup"]["probit_scale"]
    coefficients = dict(expected["coefficients"])
    scale = coefficients.pop("prodTest")
    agree(model, expected | {"coefficients": coefficients})
    assert model.coef["scale", "prod[T.Test]"] == pytest.approx(scale["estimate"], abs=COEF)


def test_random_respondents_are_clmms():
    model = dr.fit("sure ~ prod + (1 | resp)", table("soup"), "ordinal", link="probit", method="ML")
    expected = R["soup"]["clmm"]
    assert -model.reml == pytest.approx(expected["logLik"], abs=0.05)
    assert 1.0 / np.sqrt(model.sp.iloc[0]) == pytest.approx(expected["sd_resp"], abs=0.01)


# -- what a user asks ------------------------------------------------------------------------------


def test_classes_scores_and_tables_of_a_fit(tmp_path):
    data = table("wine")
    model = dr.fit(WINE, data, "ordinal")
    p = model.predict(which="prob").to_numpy()
    chosen = model.predict(which="class")
    assert list(chosen) == [str(k + 1) for k in p.argmax(axis=1)]
    reached = data.rating.to_numpy()[:, None] <= np.arange(1, 6)
    expected = ((p.cumsum(axis=1) - reached) ** 2).sum(axis=1)
    np.testing.assert_allclose(model.predict(data, which="rps"), expected, rtol=1e-10)
    np.testing.assert_allclose(
        model.predict(which="cdf", at=[2.0])[:, 0], p[:, :2].sum(axis=1), rtol=1e-9
    )
    text = str(model.summary())
    assert "--- threshold ---" in text and "\n1|2 " in text
    path = tmp_path / "wine.dr"
    model.save(path)
    again = dr.load(path)
    assert again.family == model.family
    np.testing.assert_array_equal(again.predict(data, which="prob").to_numpy(), p)


def test_levels_of_a_factor_and_numbers_give_the_same_fit():
    data = table("wine").copy()
    names = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "best"}
    order = ["never", *names.values()]
    data["grade"] = pd.Categorical(data.rating.map(names), order, ordered=True)
    model, by_name = (
        dr.fit(f"{response} ~ temp + contact", data, "ordinal") for response in ("rating", "grade")
    )
    np.testing.assert_allclose(model.coef.to_numpy(), by_name.coef.to_numpy(), rtol=1e-9)
    assert list(by_name.predict(which="prob").columns) == list(names.values())
    assert "threshold[poor|fair]" in by_name.coef.index.get_level_values(0)
    assert set(by_name.predict(which="class")) <= set(names.values())


def test_a_smooth_location_finds_a_known_curve():
    rng = np.random.default_rng(4)
    x = rng.uniform(size=1500)
    truth = np.sin(2 * np.pi * x)
    latent = truth + rng.logistic(size=1500)
    y = np.digitize(latent, [-1.0, 0.0, 1.5]) + 1
    model = dr.fit("y ~ s(x)", {"x": x, "y": y}, "ordinal")
    assert model.converged
    curve = model.partial_effect("s(x)")
    expected = np.sin(2 * np.pi * curve["x"].to_numpy())
    expected -= truth.mean()
    assert np.all(np.abs(curve["effect"] - expected) < 4 * curve["se"] + 0.05)
    for name, cut in (("1|2", -1.0), ("2|3", 0.0), ("3|4", 1.5)):
        shift = cut - truth.mean()
        parameter = f"threshold[{name}]"
        error = model.std_error[parameter, "(Intercept)"]
        assert abs(model.coef[parameter, "(Intercept)"] - shift) < 4 * error


def test_two_classes_are_a_logistic_regression():
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    y = rng.binomial(1, scipy.special.expit(0.5 + x))
    data = {"x": x, "y": y}
    ordinal, binary = dr.fit("y ~ x", data, "ordinal"), dr.fit("y ~ x", data, "bernoulli")
    assert ordinal.loglik == pytest.approx(binary.loglik, abs=1e-8)
    assert ordinal.coef["location", "x"] == pytest.approx(binary.coef.iloc[1], abs=1e-6)
    assert ordinal.coef.iloc[-1] == pytest.approx(-binary.coef.iloc[0], abs=1e-6)


def test_errors_name_what_is_wrong():
    data = table("wine")
    with pytest.raises(FamilyError, match="link='logistic': family 'ordinal' has the links logit"):
        dr.fit(WINE, data, "ordinal", link="logistic")
    with pytest.raises(FamilyError, match="the thresholds have none"):
        dr.fit(WINE, data, "ordinal", link={"threshold": "log"})
    with pytest.raises(FormulaError, match="'location' has no intercept of its own"):
        dr.fit("rating ~ 0 + temp", data, "ordinal")
    with pytest.raises(ResponseError, match="has the value 0.5"):
        dr.fit("y ~ 1", {"y": np.array([0.5, 1.0, 2.0])}, "ordinal")
    with pytest.raises(ResponseError, match="has one class only"):
        dr.fit("y ~ 1", {"y": np.ones(5)}, "ordinal")
    with pytest.raises(ResponseError, match="has 2 columns; family 'ordinal' needs ordered"):
        dr.fit("cbind(y, y) ~ 1", {"y": np.array([0.0, 1.0, 2.0])}, "ordinal")
    y = np.array([1.0, 2.0, 3.0])
    truncated = Response(y, y, np.ones(3), np.zeros(3), "y", None)
    with pytest.raises(ResponseError, match="classes cannot be truncated"):
        three_classes().check(truncated)
    crossed = np.array([[0.0, 1.0, -1.0, 0.0]])
    with pytest.raises(PredictionError, match="out of order in row 0"):
        three_classes().mean(crossed)
    assert "out of order in 1 of 1 rows" in str(three_classes().boundary(crossed))
    censored = {"lower": y, "upper": y + 1.0}
    with pytest.raises(PredictionError, match="needs a response without censored rows"):
        three_classes().further_quantity("rps", np.zeros((3, 4)) + [0, -1, 1, 0], censored)


def test_the_family_is_registered():
    assert isinstance(family("ordinal"), Ordinal)
