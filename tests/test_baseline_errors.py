"""Errors of curves by the partial likelihood: R's survfit, simulation; limits on latent scales.

`data/reference/coxph_curves.json` is from `coxph_curves.R` beside it (survival 3.5-3).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special

import deepregress as dr
from deepregress.errors import PredictionError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "coxph_curves.json").read_text())
FORMULA = "Surv(time, status) ~ age + sex + ecog"


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


@cache
def fitted(case: str) -> dr.FittedModel:
    data = table(case.partition("_")[0])
    if case == "heart":
        return dr.fit("Surv(start, stop, event) ~ age + surgery", data, "coxph")
    if case == "lung_weighted":
        return dr.fit(FORMULA, data, "coxph", weights=1.0 + (1 + np.arange(len(data))) % 3)
    return dr.fit(FORMULA, data, dr.coxph("breslow" if case == "lung_breslow" else "efron"))


@pytest.mark.parametrize("case", R["curves"])
def test_curves_and_limits_are_survfits(case):
    expected, model = R["curves"][case], fitted(case)
    new, at = pd.DataFrame(expected["new"]), np.array(expected["at"], dtype=float)
    S = model.predict(new, "survival", at=at, se=True, interval=0.95)
    columns = {"estimate": "survival", "se": "se", "lower": "lower", "upper": "upper"}
    for ours, theirs in columns.items():
        np.testing.assert_allclose(S.xs(ours, axis=1, level=1), expected[theirs], atol=1e-8)
    H = model.predict(new, "cumhazard", at=at, interval=0.95)
    np.testing.assert_allclose(
        np.exp(-H.xs("upper", axis=1, level=1)), expected["lower"], atol=1e-8
    )
    F = model.predict(new, "cdf", at=at[1], se=True)
    np.testing.assert_allclose(F["se"], np.array(expected["se"])[:, 1], atol=1e-8)
    median = model.predict(new, "median", interval=0.95)
    for ours, theirs in (("estimate", ""), ("lower", "_lower"), ("upper", "_upper")):
        numbers = [x[0] if x[0] != "NA" else np.inf for x in expected[f"median{theirs}"]]
        np.testing.assert_array_equal(median[ours], numbers)


def test_strata_have_errors_of_their_own():
    expected = R["strata"]
    model = dr.fit("Surv(time, status) ~ karno + age + strata(celltype)", table("veteran"), "coxph")
    new = {"karno": [60.0], "age": [58.0], "celltype": ["smallcell"]}
    S = model.predict(new, "survival", at=np.array(expected["at"], dtype=float), se=True)
    np.testing.assert_allclose(S.xs("se", axis=1, level=1).iloc[0], expected["se"], atol=1e-8)


def test_error_of_a_restricted_mean_is_that_of_simulated_curves():
    """Coefficients and jumps drawn from their asymptotic distribution."""
    # covariates with mean zero: drawn baselines stay near theirs
    centre, tau = pd.Series({"age": 62.0, "sex": 1.4, "ecog": 1.0}), 500.0
    data = table("lung")
    data[centre.index] -= centre
    model = dr.fit(FORMULA, data, "coxph")
    new = pd.DataFrame(R["curves"]["lung"]["new"]) - centre
    ours = model.predict(new, "rmst", at=tau, se=True)
    uncentred = fitted("lung").predict(new + centre, "rmst", at=tau, se=True)
    np.testing.assert_allclose(ours, uncentred, rtol=1e-6)
    rng, n = np.random.default_rng(0), 4000
    baseline = model.family.known_baseline
    moved = rng.multivariate_normal(np.zeros(3), model.cov, size=n)
    jumps = np.sqrt(np.diff(baseline.variance, prepend=0.0)) * rng.normal(
        size=(n, len(baseline.times))
    )
    heights = baseline.cumulative + np.cumsum(jumps, axis=1) - moved @ baseline.slope.T
    widths = np.diff(np.concatenate([[0.0], baseline.times[baseline.times < tau], [tau]]))
    for i, x in enumerate(new.to_numpy(dtype=float)):
        ratio = np.exp(x @ model.coef.to_numpy() + moved @ x)
        S = np.exp(-ratio[:, None] * heights[:, : len(widths) - 1])
        area = widths[0] + S @ widths[1:]
        # 4000 draws: the sd is known to 1.1 %
        assert ours["se"][i] == pytest.approx(area.std(), rel=0.04)


def test_terms_can_be_left_out_and_smooths_have_errors():
    data = table("lung")
    model = dr.fit("Surv(time, status) ~ s(age, k=5) + sex", data, "coxph")
    new, at = data.head(3), np.array([0.0, 200.0])
    S = model.predict(new, "survival", at=at, se=True)
    assert (S["0"]["se"] == 0.0).all()
    assert (S["200"]["se"] > 0.0).all()
    other = model.predict(new.assign(sex=0.0), "survival", at=at, se=True)
    left_out = model.predict(new, "survival", at=at, se=True, exclude="sex")
    np.testing.assert_allclose(left_out, other, rtol=1e-12)


def test_full_and_partial_likelihood_have_the_same_bands():
    full = dr.fit(FORMULA, table("lung"), "cox")
    new, at = pd.DataFrame(R["curves"]["lung"]["new"]), np.array([200.0, 500.0])
    ours = full.predict(new, "survival", at=at, se=True).xs("se", axis=1, level=1)
    theirs = fitted("lung").predict(new, "survival", at=at, se=True).xs("se", axis=1, level=1)
    # a smooth baseline is less variable than one of jumps
    np.testing.assert_allclose(ours, theirs, rtol=0.15)


@pytest.mark.parametrize(
    ("law", "to_latent"),
    [
        ("cox", lambda S: np.log(-np.log(S))),
        ("colr", lambda S: -scipy.special.logit(S)),
        ("lehmann", lambda S: -np.log(-np.log1p(-S))),
        ("weibull", lambda S: np.log(-np.log(S))),
        ("lognormal", lambda S: -scipy.special.ndtri(S)),
        ("loglogistic", lambda S: -scipy.special.logit(S)),
    ],
)
def test_limits_are_symmetric_on_the_latent_scale(law, to_latent):
    law = dr.survreg(law) if law in ("weibull", "lognormal", "loglogistic") else law
    model = dr.fit("Surv(time, status) ~ age + sex", table("lung"), law)
    new, at = {"age": [60.0], "sex": [1.0]}, np.array([50.0, 300.0, 900.0])
    S = model.predict(new, "survival", at=at, se=True, interval=0.9)
    middle, lower, upper = (
        S.xs(name, axis=1, level=1).to_numpy()[0] for name in ("estimate", "lower", "upper")
    )
    lower, upper = to_latent(lower), to_latent(upper)
    np.testing.assert_allclose(0.5 * (lower + upper), to_latent(middle), rtol=1e-6)
    # the width by the delta method, the slope of z in S by differences
    slope = np.abs(to_latent(middle * (1 + 1e-6)) - to_latent(middle * (1 - 1e-6))) / (
        2e-6 * middle
    )
    width = 1.6448536269514722 * slope * S.xs("se", axis=1, level=1).to_numpy()[0]
    np.testing.assert_allclose(0.5 * np.abs(upper - lower), width, rtol=1e-5)
    # F, S and the cumulative hazard have one band
    F = model.predict(new, "cdf", at=at, interval=0.9)
    H = model.predict(new, "cumhazard", at=at, interval=0.9)
    top = S.xs("upper", axis=1, level=1)
    np.testing.assert_allclose(1.0 - F.xs("lower", axis=1, level=1), top, rtol=1e-7)
    np.testing.assert_allclose(np.exp(-H.xs("lower", axis=1, level=1)), top, rtol=1e-7)


def test_errors_name_what_is_wrong():
    model = fitted("lung")
    with pytest.raises(PredictionError, match="have limits, interval=0.95, but no standard error"):
        model.predict(which="median", se=True)
    with pytest.raises(PredictionError, match="family='cox' has a smooth one"):
        model.predict(which="hazard", at=100.0, se=True)
