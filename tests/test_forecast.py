"""Simulated forecasts beside the recursions of R's arima and exact moments of linear models."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import PredictionError

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"
LH = pd.read_csv(REFERENCE / "lh.csv")
# R: predict(arima(lh, c(3, 0, 0), method = "CSS"), 5); its errors leave out the coefficients'
MEAN = [2.44932988625555, 2.25338387872256, 2.17762953740573, 2.24652569473895, 2.3428479342109]
SE = [0.436427804823844, 0.522390066768391, 0.546382790507322, 0.546618283959124, 0.553738173696799]
N = 10_000

pytestmark = pytest.mark.filterwarnings("ignore::deepregress.errors.DroppedRowsWarning")


@pytest.mark.parametrize(
    ("formula", "family"), [("lh ~ lag(lh, 1:3)", "normal"), ("lh ~ lag(h(lh), 1:3)", "lm")]
)
def test_moments_are_those_of_arima(formula: str, family: str) -> None:
    model = dr.fit(formula, LH, family=family)
    found = model.forecast(5, n=N, seed=1)
    assert found.paths.shape == (N, 5)
    assert found.index["row"].tolist() == [48, 49, 50, 51, 52]
    # five standard errors of a mean, and of a standard deviation, of N draws
    np.testing.assert_allclose(found.mean["mean"], MEAN, atol=5 * 0.55 / np.sqrt(N))
    # REML estimates the variance with 45 - 4 degrees of freedom, maximum likelihood with 45
    factor = np.sqrt(45 / 41) if family == "normal" else 1.0
    sd = found.paths.std(axis=0)
    np.testing.assert_allclose(sd, factor * np.array(SE), rtol=5 / np.sqrt(2 * N))
    middle = found.quantiles([0.1, 0.5])
    np.testing.assert_allclose(middle["0.5"], MEAN, atol=0.03)
    again = model.forecast(5, n=N, seed=1)
    np.testing.assert_array_equal(found.paths, again.paths)


def panel() -> pd.DataFrame:
    """Two AR(1) with a covariate, the second of them shorter, and a gap."""
    rng = np.random.default_rng(5)
    tables = []
    for name, length in (("a", 80), ("b", 60)):
        x, y = rng.normal(size=length), np.zeros(length)
        for t in range(1, length):
            y[t] = 0.7 * y[t - 1] + 0.5 * x[t] - 0.3 * x[t - 1] + 0.4 * rng.normal()
        tables.append(pd.DataFrame({"g": name, "t": 2000 + np.arange(length), "x": x, "y": y}))
    return pd.concat(tables).drop(index=[30]).sample(frac=1.0, random_state=1)


def test_series_side_by_side_with_covariates() -> None:
    data = panel()
    model = dr.fit("y ~ lag(y, 1, by=g, time=t) + lag(x, 0:1)", data)
    b, ly, x0, x1 = model.coef["loc"].to_numpy()
    # 138 rows less two first ones and, in each series, the one behind the gap
    assert model.nobs == 134
    rng = np.random.default_rng(0)
    new = pd.DataFrame({"g": ["b", "a", "a", "b"], "t": [2061, 2080, 2081, 2060]})
    new["x"] = rng.normal(size=4)
    found = model.forecast(newdata=new, n=N)
    assert found.index.equals(new[["g", "t"]].astype({"t": float}))
    for name, first, second, end in (("a", 1, 2, 2079), ("b", 3, 0, 2059)):
        last = data[(data["g"] == name) & (data["t"] == end)].iloc[0]
        mean = b + ly * last["y"] + x0 * new["x"][first] + x1 * last["x"]
        further = b + ly * mean + x0 * new["x"][second] + x1 * new["x"][first]
        np.testing.assert_allclose(found.mean["mean"][[first, second]], [mean, further], atol=0.02)
    # paths of one series are joint, those of two are independent
    correlation = np.corrcoef(found.paths.T)
    assert correlation[3, 0] == pytest.approx(ly / np.sqrt(1.0 + ly**2), abs=0.03)
    assert abs(correlation[1, 3]) < 0.03
    with pytest.raises(PredictionError, match="is not known"):
        model.forecast(newdata=new.assign(t=new["t"] + 1))
    with pytest.raises(PredictionError, match=r"lag\(x, 0\) of row"):
        model.forecast(3)


def test_what_cannot_be_forecast() -> None:
    with pytest.raises(PredictionError, match="for formulas with lag"):
        dr.fit("lh ~ t", LH).forecast(2)
    model = dr.fit("lh ~ lag(log(lh), 1)", LH)
    with pytest.raises(PredictionError, match=r"write lag\(lh"):
        model.forecast(2)
    log = dr.fit("log(lh) ~ lag(log(lh), 1)", LH)
    assert log.forecast(2, n=3).paths.shape == (3, 2)
    for steps in (None, 0, 1.5):
        with pytest.raises(PredictionError, match="steps"):
            log.forecast(steps)


def test_a_figure_for_each_series() -> None:
    model = dr.fit("y ~ lag(y, 1, by=g, time=t)", panel())
    figure = model.forecast(8, n=200).plot()
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert len(figure.axes[0].collections) == 3
