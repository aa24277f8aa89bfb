"""Metrics of survival predictions: definitions written out, R's concordance and Kaplan-Meier.

R's numbers are of survival 3.5-3 (`data/reference/coxph.R`); concordance with `timewt="n/G2"` is
Uno's. Those of scikit-survival 0.28 are for times without ties of events and censorings, where it
takes G(T) instead of G(T-).
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import survival_metrics as metrics
from deepregress.errors import DataError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R, SKSURV = (
    json.loads((REFERENCE / "coxph.json").read_text())[key]
    for key in ("metrics", "scikit_survival")
)
LUNG = pd.read_csv(REFERENCE / "lung.csv")
RISK = (LUNG[["age", "sex"]].to_numpy() @ np.array(R["lp"])).round(12)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times with ties, events, and risks with ties."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=90).round(1)
    y = np.ceil(10.0 * rng.exponential(size=90) * np.exp(-risk))
    return y, (rng.random(90) < 0.6).astype(float), risk


def censoring_survival(y, d, t):
    """G(t-) by its product, deaths before censorings at the same time."""
    G = 1.0
    for s in np.unique(y[y < t]):
        at_risk = np.sum(y >= s) - np.sum((y == s) & (d > 0))
        censored = np.sum((y == s) & (d == 0))
        G *= 1.0 - censored / at_risk if censored else 1.0
    return G


def pairs(y, d, risk, weight):
    top = bottom = 0.0
    for i in np.flatnonzero(d):
        later = (y > y[i]) | ((y == y[i]) & (d == 0))
        top += weight[i] * np.sum((risk[i] > risk[later]) + 0.5 * (risk[i] == risk[later]))
        bottom += weight[i] * later.sum()
    return top / bottom


@pytest.mark.parametrize("seed", [0, 1])
def test_concordance_is_the_share_of_pairs(seed):
    y, d, risk = drawn(seed)
    assert metrics.concordance(y, d, risk) == pytest.approx(pairs(y, d, risk, d), rel=1e-12)
    tau = np.quantile(y, 0.8)
    G = np.array([censoring_survival(y, d, t) for t in y])
    weight = d * (y < tau) / np.where(G > 0, G, 1.0) ** 2
    expected = pairs(y, d * (y < tau), risk, weight)
    assert metrics.uno_concordance(y, d, risk, tau=tau) == pytest.approx(expected, rel=1e-12)


def test_concordance_of_lung_is_rs():
    y, d = LUNG["time"], LUNG["status"]
    assert metrics.concordance(y, d, RISK) == pytest.approx(R["harrell"], abs=1e-12)
    assert metrics.uno_concordance(y, d, RISK) == pytest.approx(R["uno"], abs=1e-10)


def test_scores_of_lung_are_those_of_scikit_survival():
    d = LUNG["status"].to_numpy()
    y, at = LUNG["time"] + 0.25 * (1 - d), np.array(SKSURV["at"])
    S = np.exp(-(at / 500) * np.exp(RISK - RISK.mean())[:, None])
    assert metrics.concordance(y, d, RISK) == pytest.approx(SKSURV["harrell"], abs=1e-9)
    assert metrics.uno_concordance(y, d, RISK, tau=700.5) == pytest.approx(SKSURV["uno"], abs=1e-9)
    np.testing.assert_allclose(metrics.brier(y, d, S, at), SKSURV["brier"], rtol=1e-9)
    integrated = metrics.integrated_brier(y, d, S, at)
    assert integrated == pytest.approx(SKSURV["integrated"], rel=1e-9)
    np.testing.assert_allclose(metrics.auc(y, d, RISK, at), SKSURV["auc"], rtol=1e-9)


def test_kaplan_meier_of_lung_is_rs():
    curve = metrics.KaplanMeier.of(LUNG["time"], LUNG["status"])
    t = np.array(R["times"])
    np.testing.assert_allclose(curve.at(t), R["km"], rtol=1e-12)
    np.testing.assert_allclose(curve.error_at(t), R["km_se"], rtol=1e-10)


def test_concordance_of_many_rows_needs_no_pairs():
    rng = np.random.default_rng(3)
    n = 50_000
    risk = rng.normal(size=n)
    y = rng.exponential(size=n) * np.exp(-risk)
    # P(risk_i > risk_j | T_i < T_j) = E of 1 / (1 + exp(-|risk_i - risk_j|))
    first, second = rng.normal(size=(2, 400_000))
    expected = np.mean(1.0 / (1.0 + np.exp(-np.abs(first - second))))
    assert metrics.concordance(y, np.ones(n), risk) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("seed", [0, 1])
def test_brier_scores_and_areas_are_those_written_out(seed):
    y, d, risk = drawn(seed)
    at = np.quantile(y, [0.2, 0.5, 0.7])
    S = np.exp(-at * np.exp(risk)[:, None] / 10.0)
    brier, auc = metrics.brier(y, d, S, at), metrics.auc(y, d, risk, at)
    for j, t in enumerate(at):
        total, top, bottom = 0.0, 0.0, 0.0
        for i in range(len(y)):
            if y[i] > t:
                total += (1.0 - S[i, j]) ** 2 / censoring_survival(y, d, np.nextafter(t, np.inf))
            elif d[i]:
                w = 1.0 / censoring_survival(y, d, y[i])
                total += w * S[i, j] ** 2
                controls = risk[y > t]
                top += w * np.sum((risk[i] > controls) + 0.5 * (risk[i] == controls))
                bottom += w * len(controls)
        assert brier[j] == pytest.approx(total / len(y), rel=1e-12)
        assert auc[j] == pytest.approx(top / bottom, rel=1e-12)
    expected = np.sum(0.5 * (brier[1:] + brier[:-1]) * np.diff(at)) / (at[-1] - at[0])
    assert metrics.integrated_brier(y, d, S, at) == pytest.approx(expected, rel=1e-12)


def test_scores_do_not_depend_on_the_censoring():
    """The truth has the same expected scores with and without independent censoring."""
    rng = np.random.default_rng(5)
    n = 20_000
    x = rng.normal(size=n)
    life, censored = rng.exponential(size=n) * np.exp(-x), 2.0 * rng.exponential(size=n)
    y, d = np.minimum(life, censored), (life <= censored).astype(float)
    at = np.array([0.3, 1.0])
    S = np.exp(-at * np.exp(x)[:, None])
    full = metrics.brier(life, np.ones(n), S, at)
    np.testing.assert_allclose(full, np.mean(((life[:, None] > at) - S) ** 2, axis=0), rtol=1e-12)
    # the standard error of a score of 20,000 rows is 0.002
    np.testing.assert_allclose(metrics.brier(y, d, S, at), full, atol=0.006)
    np.testing.assert_allclose(
        metrics.auc(y, d, x, at), metrics.auc(life, np.ones(n), x, at), atol=0.015
    )
    table = metrics.calibration(y, d, S[:, 1], 1.0)
    assert table["n"].sum() == n
    inside = (table["lower"] <= table["predicted"]) & (table["predicted"] <= table["upper"])
    assert inside.sum() >= 8


def test_errors_name_what_is_wrong():
    with pytest.raises(
        DataError, match="of one length, event 0 or 1; got shapes \\(2,\\), \\(3,\\)"
    ):
        metrics.concordance([1.0, 2.0], [1, 0, 1], [0.0, 1.0])
    with pytest.raises(DataError, match="no two rows have a known order"):
        metrics.concordance([1.0, 2.0], [0, 0], [0.0, 1.0])
    with pytest.raises(DataError, match="two or more increasing times"):
        metrics.integrated_brier([1.0, 2.0], [1, 0], [[0.5], [0.5]], [1.0])
    with pytest.raises(DataError, match="ends before the times"):
        metrics.brier([1.0, 2.0], [1, 0], [[0.5], [0.5]], [3.0])
