"""Censored fits against R: `survreg` (accelerated failure time) and likelihoods in base R.

`data/reference/survreg.json` is from the shared oracles (survival 3.5-3), `censored.json` from
`censored.R`. survreg's model is log T = x'b + scale W; a Weibull distribution has the
concentration 1 / scale.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
SURVREG = json.loads((REFERENCE / "survreg.json").read_text())["cases"]
CENSORED = json.loads((REFERENCE / "censored.json").read_text())
GBSG = "Surv(rfstime, status) ~ age + meno + size + C(grade) + nodes + hormon"
VETERAN = "Surv(time, status) ~ trt + C(celltype, contr.treatment('squamous')) + karno + age"
FIRST = {"weibull": "scale", "exponential": "scale", "lognormal": "loc", "loglogistic": "loc"}


@functools.cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


@pytest.mark.parametrize(
    ("case", "law"),
    [(case, name.removeprefix("aft_")) for case in SURVREG for name in SURVREG[case]],
)
def test_accelerated_failure_times_are_survregs(case, law):
    expected = SURVREG[case][f"aft_{law}"]
    formula, data = {
        "cox_gbsg": (GBSG, table("gbsg")),
        "cox_veteran": (VETERAN, table("veteran")),
    }[case]
    first = FIRST[law]
    model = fit({first: formula}, data, law)
    numbers = {k: v for k, v in expected["coefficients"].items() if k != "Log(scale)"}
    theirs = np.array([v["estimate"] for v in numbers.values()])
    se = np.array([v["se"] for v in numbers.values()])
    ours = reorder(model.coef[first], numbers)
    # R stops at a relative change of 1e-9 of the likelihood: 1e-4 standard errors
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * se.max(), rtol=1e-5)
    np.testing.assert_allclose(reorder(model.std_error[first], numbers), se, rtol=1e-3)
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-5)
    if law != "exponential":
        second, sign = ("concentration", -1.0) if law == "weibull" else ("scale", 1.0)
        log_scale = sign * model.coef[second].iloc[0]
        theirs = expected["coefficients"]["Log(scale)"]
        assert log_scale == pytest.approx(theirs["estimate"], abs=1e-4 * theirs["se"] + 1e-6)
        assert model.std_error[second].iloc[0] == pytest.approx(theirs["se"], rel=1e-3)


def reorder(ours: pd.Series, names: dict) -> np.ndarray:
    """Our numbers in R's order: levels by their names at the end of the label."""

    def mine(name: str) -> str:
        if name in ours.index:
            return name
        for prefix in ("celltype", "gg"):
            if name.startswith(prefix):
                ending = f"[T.{name.removeprefix(prefix)}]"
                return next(label for label in ours.index if label.endswith(ending))
        raise KeyError(name)

    return ours[[mine(name) for name in names]].to_numpy()


@pytest.mark.parametrize("name", CENSORED)
def test_interval_and_doubly_censored_fits_are_rs(name):
    expected = CENSORED[name]
    law = "weibull" if name == "weighted" else name
    left = "cens(clipped, lower=0, upper=4)"
    if law in FIRST:
        left = 'Surv(lower, upper, type="interval2")'
    first = FIRST.get(law, "loc")
    weights = "w" if name == "weighted" else None
    model = fit({first: f"{left} ~ x + g"}, table("censored"), law, weights=weights, method="ML")
    second = "concentration" if law == "weibull" else "scale"
    sign = -1.0 if law == "weibull" else 1.0
    ours = [*model.coef[first], sign * model.coef[second].iloc[0]]
    se = [*model.std_error[first], model.std_error[second].iloc[0]]
    assert model.loglik == pytest.approx(expected["loglik"][0], abs=1e-6)
    # the optimum of optim is good to 1e-4 standard errors, its Hessian to 1e-4
    np.testing.assert_allclose(ours, expected["coef"], atol=2e-4 * max(se))
    np.testing.assert_allclose(se, expected["se"], rtol=1e-3)


def test_bounds_can_be_written_in_several_ways():
    data = table("censored")
    forms = ('Surv(lower, upper, type="interval")', "interval(lower, upper)")
    reference = fit({"scale": 'Surv(lower, upper, type="interval2") ~ x'}, data, "weibull")
    for form in forms:
        model = fit({"scale": f"{form} ~ x"}, data, "weibull")
        np.testing.assert_array_equal(model.coef, reference.coef)
    code = np.where(data.lower == data.upper, 1, 3)
    code = np.where(data.upper.isna(), 0, np.where(data.lower.isna(), 2, code))
    coded = data.assign(code=code, start=data.lower.fillna(data.upper))
    form = 'Surv(start, upper, code, type="interval")'
    model = fit({"scale": f"{form} ~ x"}, coded, "weibull")
    np.testing.assert_allclose(model.coef, reference.coef, rtol=1e-12)
