"""Cumulative incidence: closed forms, the Aalen-Johansen estimate, a sum of one."""

import numpy as np
import pytest

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
