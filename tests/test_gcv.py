"""Smoothing parameters by GCV and UBRE against mgcv, and that the criterion is at its minimum."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"
EXPECTED = json.loads((REFERENCE / "gcv.json").read_text())
MODELS = {
    "normal": (
        "y ~ s(x0, bs='ps') + s(x1, bs='ps') + s(x2, bs='ps') + s(x3, bs='ps')",
        "gamsim1",
    ),
    "bernoulli": ("low ~ s(age, bs='cr') + s(lwt, bs='cr')", "birthwt"),
    "gamma": ("Volume ~ s(Height, bs='cr') + s(Girth, bs='cr')", "trees"),
    "poisson": ("y ~ s(x, bs='ps')", None),
}


def fit(family: str, method: str = "GCV", **options: object) -> dr.FittedModel:
    """The model of a family on its data."""
    formula, table = MODELS[family]
    if table is None:
        data = pd.DataFrame({name: EXPECTED[family][name] for name in ("x", "y")})
    else:
        data = pd.read_csv(REFERENCE / f"{table}.csv")
    return dr.fit(formula, data, family, method=method, **options)


@pytest.mark.parametrize("family", MODELS)
def test_the_fit_is_mgcvs(family):
    """Score, degrees of freedom of each smooth and log-likelihood."""
    model, expected = fit(family), EXPECTED[family]
    smooths = [v for (_, term), v in model.edf.items() if term.startswith("s(")]
    assert model.reml == pytest.approx(expected["score"], rel=2e-6)
    np.testing.assert_allclose(smooths, np.atleast_1d(expected["edf"]), atol=2e-3)
    if family != "gamma":  # R's logLik of a gamma is at another dispersion
        assert model.loglik == pytest.approx(expected["loglik"], abs=2e-3)


def test_the_criterion_is_its_formula():
    """n D / (n - edf)^2 of the fitted values."""
    model = fit("normal")
    y, n = model.response.lower, model.nobs
    edf = model.edf_total - 1.0
    gcv = n * np.sum((y - model.predict()) ** 2) / (n - edf) ** 2
    assert model.reml == pytest.approx(gcv, rel=1e-10)
    assert "GCV = 4.356" in str(model.summary())
    assert "UBRE = -0.647" in str(fit("poisson").summary())


def test_reml_predicts_no_better_by_that_criterion():
    """The minimum is below the criterion at REML's smoothing parameters."""
    reml = fit("normal", "REML")
    n = reml.nobs
    gcv = n * np.sum((reml.response.lower - reml.predict()) ** 2) / (n - reml.edf_total + 1.0) ** 2
    assert fit("normal").reml < gcv


def test_models_without_a_deviance_are_refused():
    """Location-scale models have no GCV; corrected covariances need a marginal likelihood."""
    data = pd.read_csv(REFERENCE / "gamsim1.csv")
    with pytest.raises(dr.errors.FitError, match="generalised linear model"):
        dr.fit(["y ~ s(x0)", "scale ~ x1"], data, method="GCV")
    with pytest.raises(dr.errors.FitError, match="fitted by GCV"):
        _ = fit("normal").cov_corrected
