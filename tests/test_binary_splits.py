"""Brant's test: R's car, a closed form with one binary covariate, statsmodels' binary fits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm

import deepregress as dr
from deepregress.errors import FitError

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"


def test_weighted_rows_are_rs_glm() -> None:
    housing = pd.read_csv(REFERENCE / "housing.csv")
    levels = {"sat": ["Low", "Medium", "High"], "infl": ["Low", "Medium", "High"]}
    levels |= {"type": ["Tower", "Apartment", "Atrium", "Terrace"], "cont": ["Low", "High"]}
    for name, own in levels.items():
        housing[name] = pd.Categorical(housing[name], own, ordered=name == "sat")
    model = dr.fit("sat ~ infl + type + cont", housing, "ordinal", weights="freq")
    found = dr.brant_test(model)
    # R: Brant's formulas with glm(I(sat > r) ~ infl + type + cont, binomial, weights = freq,
    # control = list(epsilon = 1e-14)). car::poTest has the same by coefficient, and 8.5330 of all
    # together, as its covariance between splits is not symmetric
    expected = [0.901680107281, 5.84747814307, 1.28594033535, 8.53449400127]
    np.testing.assert_allclose(found["chisq"], expected, rtol=1e-8)
    assert found["df"].tolist() == [2, 3, 1, 6]


def test_it_is_cars_with_four_classes() -> None:
    births = pd.read_csv(REFERENCE / "birthwt.csv")
    births["y"] = pd.cut(births["bwt"], [0, 2500, 3000, 3500, 9999], labels=list("abcd"))
    found = dr.brant_test(dr.fit("y ~ age + lwt + smoke", births, "ordinal"))
    # R: car::poTest(polr(y ~ age + lwt + smoke)), whose glm stop at a relative 1e-8
    expected = [2.217880767368, 1.726444482839, 0.527941208354]
    np.testing.assert_allclose(found["chisq"].iloc[:3], expected, rtol=1e-4)
    assert found["df"].tolist() == [2, 2, 2, 6]


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Rows of four classes in two groups, (2, 4)."""
    return np.array([[40, 60, 50, 30], [20, 35, 70, 65]])


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog"])
def test_with_one_binary_covariate_it_has_a_closed_form(counts: np.ndarray, link: str) -> None:
    data = {"y": np.tile(np.arange(4), 2), "x": np.repeat([0.0, 1.0], 4), "w": counts.ravel()}
    found = dr.brant_test(dr.fit("y ~ x", data, "ordinal", link=link, weights="w"))
    quantile, density = {
        "logit": (scipy.stats.logistic.ppf, scipy.stats.logistic.pdf),
        "probit": (scipy.stats.norm.ppf, scipy.stats.norm.pdf),
        "cloglog": (scipy.stats.gumbel_l.ppf, scipy.stats.gumbel_l.pdf),
        "loglog": (scipy.stats.gumbel_r.ppf, scipy.stats.gumbel_r.pdf),
    }[link]
    n = counts.sum(axis=1)
    F = np.cumsum(counts, axis=1)[:, :-1] / n[:, None]
    z = quantile(F)
    b, V = z[0] - z[1], np.zeros((3, 3))
    for group in (0, 1):
        # delta method from the multinomial covariance of the cumulated shares
        cov = np.minimum.outer(F[group], F[group]) - np.outer(F[group], F[group])
        V += cov / n[group] / np.outer(density(z[group]), density(z[group]))
    D = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    chisq = D @ b @ np.linalg.solve(D @ V @ D.T, D @ b)
    np.testing.assert_allclose(found["chisq"], chisq, rtol=1e-7)


def test_crossing_effects_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(7)
    x, z = rng.normal(size=(2, 1500))
    noise = rng.logistic(size=1500)
    y = np.digitize(0.8 * x + noise, [-1.0, 0.5, 2.0])
    # z spreads the classes without moving them: its effect has both signs
    y_crossed = np.digitize((0.8 * x + noise) * np.exp(0.4 * z), [-1.0, 0.5, 2.0])
    data = {"y": y, "crossed": y_crossed, "x": x, "z": z}
    assert (dr.brant_test(dr.fit("y ~ x + z", data, "ordinal"))["p_value"] > 0.01).all()
    found = dr.brant_test(dr.fit("crossed ~ x + z", data, "ordinal"))
    assert found.loc["z", "p_value"] < 1e-8
    # each split is a logistic regression of its own: statsmodels' slopes differ as ours do
    slopes = [
        sm.Logit(1.0 * (y_crossed > r), sm.add_constant(np.column_stack([x, z]))).fit(disp=0).params
        for r in range(3)
    ]
    assert slopes[0][2] < -0.2 < 0.2 < slopes[2][2]


def test_what_cannot_be_tested() -> None:
    wine = pd.read_csv(REFERENCE / "wine.csv")
    with pytest.raises(FitError, match="for family 'ordinal'"):
        dr.brant_test(dr.fit("rating ~ temp", wine))
    with pytest.raises(FitError, match="linear terms in the location"):
        dr.brant_test(dr.fit({"location": "rating ~ temp", "scale": "~ contact"}, wine, "ordinal"))
    # no warm wine has the rating 1
    with pytest.raises(FitError, match=r"at the threshold 1\|2 has no finite coefficients"):
        dr.brant_test(dr.fit("rating ~ temp + contact", wine, "ordinal"))
