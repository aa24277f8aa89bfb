"""Residuals and tests of the partial likelihood and cut rows: R's survival, closed forms.

`data/reference/coxph_curves.json` is from `coxph_curves.R` beside it (survival 3.5-3).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import DataError, PredictionError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "coxph_curves.json").read_text())
FORMULAS = {
    "lung": "Surv(time, status) ~ age + sex + ecog",
    "weighted": "Surv(time, status) ~ age + sex + ecog",
    "heart": "Surv(start, stop, event) ~ age + surgery",
    "veteran": "Surv(time, status) ~ trt + C(celltype, contr.treatment('squamous')) + karno",
    "strata": "Surv(time, status) ~ karno + age + strata(celltype)",
}


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


@cache
def fitted(case: str) -> dr.FittedModel:
    data = table({"weighted": "lung", "strata": "veteran"}.get(case, case))
    weights = 1.0 + (1 + np.arange(len(data))) % 3 if case == "weighted" else None
    return dr.fit(FORMULAS[case], data, "coxph", weights=weights)


def test_residuals_are_rs():
    expected, model = R["residuals"], fitted("lung")
    martingale = model.residuals("martingale")
    np.testing.assert_allclose(martingale, expected["lung_martingale"], atol=1e-7)
    np.testing.assert_allclose(model.residuals("deviance"), expected["lung_deviance"], atol=1e-7)
    heart = fitted("heart").residuals("martingale")
    np.testing.assert_allclose(heart, expected["heart_martingale"], atol=1e-7)
    ours = dr.schoenfeld_residuals(model)
    np.testing.assert_allclose(ours, expected["lung_schoenfeld"], atol=1e-6)
    assert list(ours.columns) == ["age", "sex", "ecog"]
    scaled = dr.schoenfeld_residuals(model, scaled=True)
    np.testing.assert_allclose(scaled, expected["lung_scaled"], atol=1e-6)


def test_martingale_residuals_of_a_parametric_model():
    data = table("lung")
    model = dr.fit("Surv(time, status) ~ age", data, "exponential")
    ours = model.residuals("martingale")
    rate = 1.0 / model.predict(which="params")["scale"]
    np.testing.assert_allclose(ours, data["status"] - rate * data["time"], rtol=1e-10)
    # the score equation of the intercept
    assert ours.sum() == pytest.approx(0.0, abs=1e-6)
    left = dr.fit("Surv(time, status, type='left') ~ age", data, "exponential")
    with pytest.raises(PredictionError, match="neither exact nor right censored"):
        left.residuals("martingale")


@pytest.mark.parametrize("time", ["km", "identity", "rank", "log"])
def test_tests_of_terms_are_cox_zphs(time):
    expected, ours = R["zph"][time], dr.proportionality(fitted("veteran"), time=time)
    np.testing.assert_allclose(ours["chisq"], expected["chisq"], rtol=1e-5)
    np.testing.assert_array_equal(ours["df"], expected["df"])
    np.testing.assert_allclose(ours["p_value"], expected["p"], rtol=1e-4)


@pytest.mark.parametrize("case", ["strata", "weighted", "heart"])
def test_strata_weights_and_entry_are_cox_zphs(case):
    ours = dr.proportionality(fitted(case))
    np.testing.assert_allclose(ours["chisq"], R["zph"][case]["chisq"], rtol=1e-5)
    assert list(ours.index) == [*R["zph"][case]["term"][:-1], "all terms"]


def test_a_smooth_term_is_tested_by_its_curve():
    """An effect that is there before the median and not after it is found, a constant one not."""
    rng = np.random.default_rng(3)
    x, z = rng.uniform(-1.0, 1.0, (2, 800))
    early = rng.exponential(size=800) * np.exp(-2.0 * np.sin(2.0 * x) - z)
    y = np.where(early < 0.5, early, 0.5 + rng.exponential(size=800) * np.exp(-z))
    model = dr.fit(
        "Surv(y, d) ~ s(x, k=6) + z", {"y": y, "d": np.ones(800), "x": x, "z": z}, "coxph"
    )
    ours = dr.proportionality(model, time="rank")
    assert ours.loc["s(x)", "p_value"] < 1e-6
    assert ours.loc["z", "p_value"] > 0.01
    assert ours["df"].to_list() == [1, 1, 2]


def test_check_has_what_gam_check_has():
    model = dr.fit("Surv(time, status) ~ s(age, k=5) + sex", table("lung"), "coxph")
    check = model.check(n_rep=50)
    assert check.rank == check.n_coef == 5
    assert np.isfinite(check.residuals.fitted).all()
    assert "fitted mean of at most 883" in check.residuals.labels
    assert len(check.plot().axes) == 4


# -- cut rows --------------------------------------------------------------------------------------


def test_cut_rows_have_the_same_likelihood():
    data = table("heart")
    pieces = dr.split_at(data, [20, 50, 100.5], time="stop", event="event", entry="start")
    whole, cut = fitted("heart"), dr.fit(FORMULAS["heart"], pieces, "coxph")
    assert len(pieces) > len(data)
    assert pieces["event"].sum() == data["event"].sum()
    lengths = (pieces["stop"] - pieces["start"]).groupby(level=0).sum()
    np.testing.assert_allclose(lengths, data["stop"] - data["start"], rtol=1e-12)
    assert cut.loglik == pytest.approx(whole.loglik, abs=1e-9)
    np.testing.assert_allclose(cut.coef, whole.coef, rtol=1e-9)
    shift, hazard = "Surv(start, stop, event) ~ age", "exponential"
    parametric = [dr.fit(shift, each, hazard).loglik for each in (data, pieces)]
    assert parametric[0] == pytest.approx(parametric[1], abs=1e-8)


def test_effects_that_change_are_those_of_survsplit():
    expected = R["split"]
    pieces = dr.split_at(table("veteran"), [90, 180], event="status")
    assert len(pieces) == expected["rows"]
    formula = "Surv(start, time, status) ~ trt + prior + karno + karno:C(period)"
    model = dr.fit(formula, pieces, "coxph")
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-7)
    np.testing.assert_allclose(model.coef, expected["coef"], rtol=1e-3)
    np.testing.assert_allclose(model.std_error, expected["se"], rtol=1e-5)


def test_a_piecewise_exponential_model_is_a_poisson_regression():
    """Hazards without covariates are events over time at risk; curves by the hazards' sums."""
    data, cuts = table("veteran"), [50.0, 120.0]
    pieces = dr.split_at(data, cuts, event="status").assign(exposure=lambda d: d.time - d.start)
    model = dr.fit("status ~ C(period) + offset(log(exposure))", pieces, "poisson")
    sums = pieces.groupby("period")[["status", "exposure"]].sum()
    ours = model.predict({"period": [0, 1, 2], "exposure": [1.0, 1.0, 1.0]})
    # Newton stops within 1e-5 standard errors
    np.testing.assert_allclose(ours, sums["status"] / sums["exposure"], rtol=1e-6)
    # with one period it is the exponential distribution
    one = dr.split_at(data, [], event="status").assign(exposure=lambda d: d.time - d.start)
    counts = dr.fit("status ~ karno + offset(log(exposure))", one, "poisson")
    times = dr.fit("Surv(time, status) ~ karno", data, "exponential")
    np.testing.assert_allclose(counts.coef, -times.coef, rtol=1e-6)


def test_errors_name_what_is_wrong():
    with pytest.raises(PredictionError, match="are for family='coxph' without networks"):
        dr.proportionality(dr.fit(FORMULAS["lung"], table("lung"), "exponential"))
    with pytest.raises(PredictionError, match="time='ranks': functions of time are .*did you mean"):
        dr.proportionality(fitted("lung"), time="ranks")
    with pytest.raises(DataError, match="no column 'event'"):
        dr.split_at(table("lung"), [100])
    with pytest.raises(DataError, match="row 1 ends at 1, not after 2"):
        dr.split_at({"start": [0, 2], "time": [1, 1], "event": [1, 1]}, [0.5])
