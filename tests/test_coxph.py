"""The partial likelihood: against sums written out, R's coxph and mgcv's cox.ph.

`data/reference/coxph.json` is from the shared oracles and `coxph.R` (survival 3.5-3, mgcv 1.8-41).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.model_selection import KFold

import deepregress as dr
from deepregress.errors import FamilyError, FormulaError, PredictionError, ResponseError
from deepregress.families.risk_sets import RiskSets
from deepregress.quantities import at_values

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "coxph.json").read_text())
VETERAN = (
    "Surv(time, status) ~ trt + C(celltype, contr.treatment('squamous')) + karno + diagtime + age "
    "+ prior"
)


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.csv")


def estimates(ours: pd.Series, names: list[str]) -> np.ndarray:
    """Our numbers in R's order; levels by the end of their labels."""

    def mine(name: str) -> str:
        level = name.removeprefix("celltype").removeprefix("transplant")
        return next(k for k in ours.index if k == name or k.endswith(f"[T.{level}]"))

    return ours[[mine(name) for name in names]].to_numpy()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_veteran_is_coxphs(ties):
    expected = R["veteran"][ties]
    model = dr.fit(VETERAN, table("veteran"), dr.coxph(ties))
    theirs = expected["coefficients"]
    assert model.converged
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-8)
    for ours, key in ((model.coef, "estimate"), (model.std_error, "se")):
        numbers = [each[key] for each in theirs.values()]
        np.testing.assert_allclose(estimates(ours["log_hazard"], list(theirs)), numbers, rtol=1e-6)


def test_lung_is_that_of_methods():
    model = dr.fit("Surv(time, status) ~ age + sex + ecog", table("lung"), "coxph")
    assert model.loglik == pytest.approx(-729.2301, abs=5e-5)
    np.testing.assert_allclose(model.coef, [0.011067, -0.55261, 0.46373], atol=5e-6)


def test_entry_times_are_coxphs():
    expected = R["heart"]["efron"]
    model = dr.fit(
        "Surv(start, stop, event) ~ (age + surgery) * transplant", table("heart"), "coxph"
    )
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-8)
    # Newton stops within 1e-5 standard errors
    for ours, theirs in zip(model.coef, expected["coefficients"].values(), strict=True):
        assert ours == pytest.approx(theirs["estimate"], abs=1e-5 * theirs["se"])


@pytest.mark.parametrize(
    ("case", "ties"),
    [("lung_weighted", "efron"), ("lung_weighted_breslow", "breslow"), ("heart_weighted", "efron")],
)
def test_weights_are_coxphs(case, ties):
    expected = R["survival"][case]
    data = table(case.partition("_")[0])
    i = 1 + np.arange(len(data))
    if case == "heart_weighted":
        formula, weights = "Surv(start, stop, event) ~ age + surgery", 0.5 + i % 4
    else:
        formula, weights = "Surv(time, status) ~ age + sex + ecog", 1.0 + i % 3
    model = dr.fit(formula, data, dr.coxph(ties), weights=weights)
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-7)
    np.testing.assert_allclose(model.coef, expected["coef"], rtol=1e-6)
    np.testing.assert_allclose(model.std_error, expected["se"], rtol=1e-6)


def test_strata_have_baselines_of_their_own():
    expected, data = R["veteran"]["strata"], table("veteran")
    model = dr.fit("Surv(time, status) ~ trt + karno + age + strata(celltype)", data, "coxph")
    theirs = expected["coefficients"]
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-8)
    numbers = [each["estimate"] for each in theirs.values()]
    np.testing.assert_allclose(
        estimates(model.coef["log_hazard"], list(theirs)), numbers, rtol=1e-6
    )
    curves = pd.DataFrame(expected["baseline"])
    for stratum, curve in curves.groupby("strata"):
        new = pd.DataFrame({**expected["means"], "celltype": [stratum]})
        ours = model.predict(new, which="survival", at=curve.times.to_numpy())[0]
        np.testing.assert_allclose(ours, curve.surv, atol=1e-8)
    with pytest.raises(PredictionError, match=r"strata\(celltype\): 'other' is no stratum"):
        model.predict(new.assign(celltype="other"), which="linear")
    lung = dr.fit("Surv(time, status) ~ age + ecog + strata(sex)", table("lung"), "coxph")
    np.testing.assert_allclose(lung.coef, R["survival"]["lung_strata"]["coef"], rtol=1e-6)


def test_survival_curves_and_quantiles():
    model = dr.fit("Surv(time, status) ~ age + sex", table("lung"), "coxph")
    expected, new = R["survival"]["lung_curve"], {"age": [60.0], "sex": [1.0]}
    S = model.predict(new, which="survival", at=np.array(expected["time"]))[0]
    np.testing.assert_allclose(S, expected["survival"], atol=1e-7)
    median = model.predict(new, which="median")[0]
    around = model.predict(new, which="survival", at=np.array([median - 1e-9, median]))[0]
    assert around[0] > 0.5 >= around[1]
    assert model.predict(new, which="quantile", at=1.0 - 1e-9)[0] == np.inf
    assert model.predict(new, which="survival", at=0.0)[0] == 1.0


def test_smooth_terms_are_mgcvs():
    """mgcv's cox.ph treats ties by Breslow's formula; REML includes the same constants."""
    expected, data = R["gbsg"]["gam_ps"], table("gbsg")
    formula = (
        "Surv(rfstime, status) ~ s(age, bs='ps') + s(nodes, bs='ps') + s(pgr, bs='ps') + hormon"
    )
    model = dr.fit(formula, data, dr.coxph("breslow"))
    assert model.converged
    assert model.reml == pytest.approx(expected["score"], abs=1e-5)
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-3)
    for term, edf in expected["edf"].items():
        assert model.edf["log_hazard", term] == pytest.approx(edf, abs=1e-3)
    hormon = expected["coefficients"]["hormon"]
    assert model.coef["log_hazard", "hormon"] == pytest.approx(hormon["estimate"], abs=1e-4)


# -- against sums written out ----------------------------------------------------------------------


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = 60
    y = np.ceil(8.0 * rng.exponential(size=n))
    return {
        "y": y,
        "event": rng.random(n) < 0.7,
        "entry": np.floor(y * rng.random(n) * 0.9),
        "strata": rng.integers(0, 3, n).astype(float),
        "weights": rng.uniform(0.5, 2.0, n),
        "X": rng.normal(size=(n, 3)),
    }


def written_out(d: dict[str, np.ndarray], eta: np.ndarray, ties: str) -> float:
    """The partial log-likelihood by loops over its definition."""
    value = 0.0
    for s in np.unique(d["strata"]):
        for T in np.unique(d["y"][d["event"] & (d["strata"] == s)]):
            risk = (d["strata"] == s) & (d["entry"] < T) & (T <= d["y"])
            dead = risk & d["event"] & (d["y"] == T)
            r, w, count = np.exp(eta), d["weights"], int(dead.sum())
            value += np.sum(w[dead] * eta[dead])
            for j in range(count):
                f = j / count if ties == "efron" else 0.0
                Z = np.sum((w * r)[risk]) - f * np.sum((w * r)[dead])
                value -= w[dead].mean() * np.log(Z)
    return float(value)


def sets_of(d: dict[str, np.ndarray], ties: str) -> RiskSets:
    return RiskSets.of(
        d["y"], d["event"], entry=d["entry"], strata=d["strata"], weights=d["weights"], ties=ties
    )


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cumulative_sums_are_the_sums_written_out(ties):
    d = drawn(1)
    sets, X, b = sets_of(d, ties), d["X"], np.array([0.3, -0.5, 0.2])
    step = 1e-5
    at = sets.at(X @ b)
    assert at.value == pytest.approx(written_out(d, X @ b, ties), abs=1e-10)
    for i in (0, 7, 31):
        move = step * (np.arange(len(X)) == i)
        slope = (written_out(d, X @ b + move, ties) - written_out(d, X @ b - move, ties)) / (
            2 * step
        )
        assert at.gradient[i] == pytest.approx(slope, abs=1e-8)
    V = np.cov(np.random.default_rng(0).normal(size=(3, 9)))
    H, t = at.information(X), at.information_slope(X, V)
    for j in range(3):
        move = step * np.eye(3)[j]
        up, down = (sets.at(X @ (b + sign * move)) for sign in (1.0, -1.0))
        np.testing.assert_allclose(
            H[j], -(X.T @ (up.gradient - down.gradient)) / (2 * step), atol=1e-7
        )
        change = (up.information(X) - down.information(X)) / (2 * step)
        assert t[j] == pytest.approx(np.sum(V * change), abs=1e-6)


def test_martingale_residuals_sum_to_zero_in_each_stratum():
    d = drawn(2)
    at = sets_of(d, "efron").at(0.4 * d["X"][:, 0])
    for s in np.unique(d["strata"]):
        assert at.gradient[d["strata"] == s].sum() == pytest.approx(0.0, abs=1e-10)


def test_models_are_saved_with_their_baseline(tmp_path):
    model = dr.fit("Surv(time, status) ~ age + strata(sex)", table("lung"), "coxph")
    model.save(tmp_path / "m.zip")
    new, at = table("lung").head(4), np.array([100.0, 400.0])
    again = dr.load(tmp_path / "m.zip")
    np.testing.assert_array_equal(
        again.predict(new, which="survival", at=at), model.predict(new, which="survival", at=at)
    )


def test_errors_name_what_is_wrong():
    lung = table("lung")
    with pytest.raises(FamilyError, match="ties='efro': one of efron, breslow; did you mean"):
        dr.coxph("efro")
    with pytest.raises(FormulaError, match=r"strata\(sex\): strata\(\) is for family='coxph'"):
        dr.fit("Surv(time, status) ~ age + strata(sex)", lung, "cox")
    with pytest.raises(FormulaError, match="'stratum' can hold strata"):
        dr.fit({"log_hazard": "Surv(time, status) ~ age", "stratum": "~ sex"}, lung, "coxph")
    with pytest.raises(ResponseError, match="exact and right censored rows"):
        dr.fit("Surv(time, status, type='left') ~ age", lung, "coxph")
    model = dr.fit("Surv(time, status) ~ age", lung, "coxph")
    with pytest.raises(PredictionError, match="family='cox' has a smooth one"):
        model.predict(which="hazard", at=100.0)
    with pytest.raises(PredictionError, match="ask for which='linear', 'survival'"):
        model.predict()


def test_restricted_means_are_areas_under_the_curves():
    data, new = table("lung"), {"age": [50.0, 70.0], "sex": [1.0, 2.0]}
    fine = np.linspace(0.0, 500.0, 1001)
    for law in ("coxph", "cox"):
        model = dr.fit("Surv(time, status) ~ age + sex", data, law)
        S = model.predict(new, which="survival", at=fine)
        # steps lie on the grid: their area is that of rectangles
        heights = S[:, :-1] if law == "coxph" else 0.5 * (S[:, 1:] + S[:, :-1])
        ours = model.predict(new, which="rmst", at=np.array([500.0]))[:, 0]
        np.testing.assert_allclose(ours, 0.5 * heights.sum(axis=1), rtol=1e-5)
    limits = model.predict(new, which="rmst", at=500.0, interval=0.95)
    assert np.all((limits["lower"] < ours) & (ours < limits["upper"]))


def test_restricted_mean_of_a_count():
    eta = np.log(np.array([[2.0], [6.0]]))
    poisson = dr.families.family("poisson")
    ours = at_values(poisson, "rmst", eta, np.array([[4.0], [5.0]]))[:, 0]
    k = np.arange(60.0)
    expected = [
        np.sum(np.minimum(k, tau) * scipy.stats.poisson.pmf(k, mean))
        for tau, mean in ((4.0, 2.0), (5.0, 6.0))
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    with pytest.raises(PredictionError, match="a response that cannot be negative, 'normal' can"):
        at_values(dr.families.family("normal"), "rmst", np.zeros((2, 2)), np.array(1.0))


def log_partial_likelihood(time: np.ndarray, event: np.ndarray, eta: np.ndarray) -> float:
    """Without ties, by its definition."""
    return sum(eta[i] - np.log(np.exp(eta[time >= time[i]]).sum()) for i in np.flatnonzero(event))


def test_cross_validation_of_a_partial_likelihood_is_what_held_out_rows_add() -> None:
    rng = np.random.default_rng(4)
    X, lams = rng.normal(size=(120, 5)), [0.2, 0.1, 0.02]
    time = rng.exponential(size=120) * np.exp(-X[:, 0])
    data = {"time": time, "event": (rng.random(120) < 0.7).astype(int), "X": X}
    formula, splitter = "Surv(time, event) ~ lasso(X)", KFold(3, shuffle=True, random_state=0)
    found = dr.path(formula, data, family="coxph", lam=lams, folds=splitter)
    expected = []
    for train, test in splitter.split(X):
        part = {name: column[train] for name, column in data.items()}
        fits = [dr.fit(formula.replace("X", f"X, lam={lam}"), part, family="coxph") for lam in lams]
        every = [X @ each.coef.to_numpy() for each in fits]
        values = [
            log_partial_likelihood(time, data["event"], eta)
            - log_partial_likelihood(time[train], part["event"], eta[train])
            for eta in every
        ]
        expected.append(-2.0 * np.array(values) / len(test))
    np.testing.assert_allclose(found.table["loss"], np.mean(expected, axis=0), rtol=1e-6)
