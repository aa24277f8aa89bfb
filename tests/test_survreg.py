"""`survreg` against R's survival::survreg: veteran, breast cancer and lung data.

`data/reference/survreg.json` is from the shared oracles (survival 3.5-3); the numbers of lung
stand in METHODS 8 (n = 227, age + sex + ph.ecog).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import FamilyError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
VETERAN = json.loads((REFERENCE / "survreg.json").read_text())["cases"]["cox_veteran"]
FORMULA = "Surv(time, status) ~ trt + C(celltype, contr.treatment('squamous')) + karno + age"


@pytest.mark.parametrize("law", ["weibull", "exponential", "lognormal", "loglogistic"])
def test_coefficients_scale_and_log_likelihood_are_survregs(law):
    expected = VETERAN[f"aft_{law}"]
    model = dr.fit(FORMULA, pd.read_csv(REFERENCE / "veteran.csv"), dr.survreg(law))
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-5)
    theirs = expected["coefficients"]
    first = model.coef[model.family.parameter_names[0]]
    for name in ("(Intercept)", "trt", "karno", "age"):
        assert first[name] == pytest.approx(theirs[name]["estimate"], abs=1e-4 * theirs[name]["se"])
    if law != "exponential":
        scale = theirs["Log(scale)"]
        assert model.coef["scale"].iloc[0] == pytest.approx(scale["estimate"], abs=1e-5)
        assert model.std_error["scale"].iloc[0] == pytest.approx(scale["se"], rel=1e-3)


def test_lung():
    lung = pd.read_csv(REFERENCE / "lung.csv")
    weibull = dr.fit("Surv(time, status) ~ age + sex + ecog", lung, "survreg")
    assert weibull.loglik == pytest.approx(-1132.439, abs=5e-4)
    assert np.exp(weibull.coef["scale"].iloc[0]) == pytest.approx(0.73111, abs=5e-6)
    # proportional hazards: the same model with the opposite sign over the scale
    cox = dr.fit("Surv(time, status) ~ age + sex + ecog", lung, "cox")
    ratio = -weibull.coef["loc"][["age", "sex", "ecog"]] / 0.73111
    assert np.all(np.abs(ratio - cox.coef["shift"]) < 0.3 * cox.std_error["shift"])
    lognormal = dr.fit("Surv(time, status) ~ age + sex + ecog", lung, dr.survreg("lognormal"))
    assert lognormal.loglik == pytest.approx(-1146.882, abs=5e-4)


def test_unknown_distributions_are_refused():
    with pytest.raises(FamilyError, match="survreg\\('weibul'\\).*did you mean 'weibull'"):
        dr.survreg("weibul")
