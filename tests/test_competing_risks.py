"""Cumulative incidence: closed forms, the Aalen-Johansen estimate, a sum of one; its errors.

Standard errors are held against the derivative of the closed form, against R's of the
Aalen-Johansen estimate, and against draws of the coefficients and jumps themselves.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

import deepregress as dr
from deepregress.errors import PredictionError


def drawn(n: int) -> dict[str, np.ndarray]:
    """Two causes with constant hazards exp(0.6 x) and 0.5, censoring with hazard 0.3."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=n)
    first = rng.exponential(size=n) * np.exp(-0.6 * x)
    second, censored = 2.0 * rng.exponential(size=n), rng.exponential(size=n) / 0.3
    time = np.minimum(np.minimum(first, second), censored)
    return {"x": x, "time": time, "one": 1.0 * (first == time), "two": 1.0 * (second == time)}


DATA = drawn(400)
AT = np.array([0.2, 1.0, 3.0])


def models(formula: str, law: str) -> dict[str, dr.FittedModel]:
    return {k: dr.fit(f"Surv(time, {k}) ~ {formula}", DATA, law) for k in ("one", "two")}


def test_constant_hazards_have_a_closed_form():
    fits = models("x", "exponential")
    new = {"x": np.array([-1.0, 0.5])}
    ours = dr.cumulative_incidence(fits, new, AT)
    rate = {k: 1.0 / np.exp(fit.predict(new, which="linear")["scale"]) for k, fit in fits.items()}
    total = rate["one"] + rate["two"]
    for k, found in ours.items():
        share = (rate[k] / total).to_numpy()[:, None]
        expected = share * -np.expm1(-total.to_numpy()[:, None] * AT)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_without_covariates_it_is_the_aalen_johansen_estimate():
    ours = dr.cumulative_incidence(models("1", "coxph"), {"x": np.zeros(1)}, AT)
    order = np.argsort(DATA["time"])
    at_risk = np.arange(len(order), 0, -1)
    S = np.cumprod(1.0 - (DATA["one"] + DATA["two"])[order] / at_risk)
    before = np.concatenate([[1.0], S[:-1]])
    place = np.searchsorted(DATA["time"][order], AT, side="right") - 1
    for k, found in ours.items():
        expected = np.cumsum(before * DATA[k][order] / at_risk)[place]
        # exp(-H) and the product of 1 - dH differ by 1 / n
        np.testing.assert_allclose(found.iloc[0], expected, atol=2.0 / len(order))


def test_probabilities_of_causes_and_of_survival_sum_to_one():
    fits = models("x", "coxph")
    new = {"x": np.array([-0.5, 0.0, 1.0])}
    ours = dr.cumulative_incidence(fits, new, AT)
    S = np.prod([fit.predict(new, which="survival", at=AT) for fit in fits.values()], axis=0)
    np.testing.assert_allclose(ours["one"] + ours["two"] + S, 1.0, rtol=1e-12)
    assert list(ours["one"].columns) == AT.tolist()


def test_errors_name_what_is_wrong():
    with pytest.raises(PredictionError, match="a model per cause and positive times"):
        dr.cumulative_incidence({}, {"x": [0.0]}, AT)
    with pytest.raises(PredictionError, match="interval must be a level between 0 and 1"):
        dr.cumulative_incidence(models("1", "exponential"), {"x": [0.0]}, AT, interval=95)


# -- errors ----------------------------------------------------------------------------------------


def test_errors_of_constant_hazards_have_a_closed_form():
    fits, x = models("x", "exponential"), np.array([-1.0, 0.5])
    ours = dr.cumulative_incidence(fits, {"x": x}, AT, se=True, interval=0.9)
    z = np.column_stack([np.ones(2), x])
    # the predictor is the log of the mean time
    rate = {k: np.exp(-z @ fit.coef.to_numpy())[:, None] for k, fit in fits.items()}
    var = {k: np.sum((z @ fit.cov.to_numpy()) * z, axis=1)[:, None] for k, fit in fits.items()}
    total = rate["one"] + rate["two"]
    dead, alive = -np.expm1(-total * AT), np.exp(-total * AT)
    for k, other in (("one", "two"), ("two", "one")):
        F = rate[k] / total * dead
        # dF / d log(rate) of this cause and of the other
        own = rate[k] * (rate[other] / total**2 * dead + rate[k] / total * AT * alive)
        its = rate[k] * rate[other] * (AT * alive / total - dead / total**2)
        se = np.sqrt(own**2 * var[k] + its**2 * var[other])
        np.testing.assert_allclose(ours[k].xs("se", axis=1, level=1), se, rtol=1e-6)
        w = scipy.stats.norm.ppf(0.95) * se / ((1 - F) * -np.log1p(-F))
        upper = -np.expm1(-np.exp(np.log(-np.log1p(-F)) + w))
        np.testing.assert_allclose(ours[k].xs("upper", axis=1, level=1), upper, rtol=1e-6)


def test_errors_are_those_of_the_aalen_johansen_estimate_in_r():
    folder = Path(__file__).parent.parent / "data" / "reference"
    data = pd.read_csv(folder / "competing.csv")
    known = json.loads((folder / "competing.json").read_text())
    data = data.assign(pcm=1.0 * (data["event"] == 1), death=1.0 * (data["event"] == 2))
    new = pd.DataFrame({"sex": ["F", "M"]})
    for formula, rows in (("1", ("all",)), ("strata(sex)", ("F", "M"))):
        fits = {k: dr.fit(f"Surv(time, {k}) ~ {formula}", data, "coxph") for k in ("pcm", "death")}
        ours = dr.cumulative_incidence(fits, new, known["at"], se=True)
        for k, table in enumerate(ours.values()):
            for i, name in enumerate(rows):
                at = np.array(known[name]["pstate"])[:, k], np.array(known[name]["se"])[:, k]
                row = table.iloc[i].to_numpy().reshape(-1, 2)
                # a product of 1 - dH and exp(-H) differ by 1 / n at risk, of which 700 begin
                np.testing.assert_allclose(row[:, 0], at[0], rtol=0.01)
                np.testing.assert_allclose(row[:, 1], at[1], rtol=0.01)


def draws(fit: dr.FittedModel, rng: np.random.Generator, n: int) -> np.ndarray:
    """Coefficients from their distribution."""
    return rng.multivariate_normal(fit.coef.to_numpy(), fit.cov.to_numpy(), n)


def test_errors_of_smooth_hazards_are_those_of_drawn_coefficients():
    fits, new = models("s(x, k=5)", "weibull"), {"x": np.array([-1.0, 0.5])}
    rng, found = np.random.default_rng(5), {"one": [], "two": []}
    drawn = {k: draws(fit, rng, 400) for k, fit in fits.items()}
    for i in range(400):
        moved = {
            k: replace(fit, solution=replace(fit.solution, coef=drawn[k][i]))
            for k, fit in fits.items()
        }
        for k, F in dr.cumulative_incidence(moved, new, AT).items():
            found[k].append(scipy.special.logit(F.to_numpy()))
    ours = dr.cumulative_incidence(fits, new, AT, se=True)
    for k, table in ours.items():
        F, se = (table.xs(each, axis=1, level=1).to_numpy() for each in ("estimate", "se"))
        # the error of a standard deviation of 400 draws is 3.5 %; the curve bends, too
        np.testing.assert_allclose(np.std(found[k], axis=0), se / (F * (1 - F)), rtol=0.12)


def test_errors_of_steps_are_those_of_drawn_coefficients_and_jumps():
    fits, x = models("x", "coxph"), np.array([-1.0, 0.5])
    ours = dr.cumulative_incidence(fits, {"x": x}, AT, se=True)
    # a tenth of the errors: the last jumps, of few rows at risk, are far from linear otherwise
    rng, n, part = np.random.default_rng(6), 4000, 0.1
    jumps = np.unique(np.concatenate([fit.family.jumps for fit in fits.values()]))
    jumps = jumps[jumps <= AT[-1]]
    rises = {}
    for k, fit in fits.items():
        base, b = fit.family.known_baseline, fit.coef.to_numpy()
        moved = part * (draws(fit, rng, n) - b)
        slope, variance = (np.diff(v, axis=0, prepend=0.0) for v in (base.slope, base.variance))
        heights = np.diff(base.cumulative, prepend=0.0) - moved @ slope.T
        heights = heights + part * np.sqrt(variance) * rng.normal(size=heights.shape)
        own, known = np.zeros((n, len(jumps))), base.times <= AT[-1]
        own[:, np.searchsorted(jumps, base.times[known])] = heights[:, known]
        rises[k] = own[:, None, :] * np.exp((b + moved) * x)[:, :, None]
    d = rises["one"] + rises["two"]
    before = np.exp(d - np.cumsum(d, axis=2))
    lost = before * -np.expm1(-d) / d
    place = np.searchsorted(jumps, AT, side="right") - 1
    for k, table in ours.items():
        drawn = np.cumsum(lost * rises[k], axis=2)[:, :, place]
        se = table.xs("se", axis=1, level=1).to_numpy()
        # 4,000 draws: the error of a standard deviation is 1.1 %
        np.testing.assert_allclose(np.std(drawn, axis=0) / part, se, rtol=0.04)
