"""What pictures of survival show: the numbers of `predict`, steps, bands, names."""

import matplotlib.collections
import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress import survival_metrics
from deepregress.errors import PredictionError

DATA = dr.datasets.load("rossi")
NEW = {"fin": [0, 1], "age": [25.0, 25.0]}
FORMULA = "Surv(time, event) ~ fin + age"


@pytest.fixture(scope="module")
def models() -> dict[str, dr.FittedModel]:
    return {law: dr.fit(FORMULA, DATA, law) for law in ("coxph", "survreg")}


@pytest.mark.parametrize("law", ["coxph", "survreg"])
@pytest.mark.parametrize("which", ["survival", "cumhazard"])
def test_curves_are_those_of_predict(models, law, which):
    at = np.array([5.0, 20.0, 40.0])
    figure = dr.plot_survival(models[law], NEW, at, which=which, level=0.9)
    ax = figure.axes[0]
    expected = models[law].predict(NEW, which, at=at, interval=0.9)
    assert [line.get_label() for line in ax.lines] == ["fin = 0", "fin = 1"]
    bands = [c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection)]
    start = 1.0 if which == "survival" else 0.0
    for i, (line, band) in enumerate(zip(ax.lines, bands, strict=True)):
        estimate = expected.xs("estimate", axis=1, level=1).to_numpy()[i]
        drawn = np.interp(at + 1e-9, *line.get_data())
        if law == "coxph":
            drawn[-1] = line.get_ydata()[-1]
        np.testing.assert_allclose(drawn, estimate, rtol=1e-6)
        assert line.get_ydata()[0] == start
        top = expected.xs("upper", axis=1, level=1).to_numpy()[i]
        corners = band.get_paths()[0].vertices
        for value in top:
            assert np.isclose(corners[:, 1], value, rtol=1e-9).any()


def test_times_are_those_of_the_training_rows(models):
    jumps = dr.plot_survival(models["coxph"], NEW).axes[0].lines[0].get_xdata()
    events = np.unique(DATA.loc[DATA["event"] == 1, "time"])
    assert set(events) <= set(jumps)
    smooth = dr.plot_survival(models["survreg"], NEW, which="hazard").axes[0].lines[0].get_xdata()
    assert smooth[0] == events[0]
    assert smooth[-1] == DATA["time"].max()


def test_many_rows_are_thin_and_have_no_bands(models):
    ax = dr.plot_survival(models["coxph"], DATA.head(20)).axes[0]
    assert len(ax.lines) == 20
    assert len(ax.collections) == 0
    assert ax.get_legend() is None


def test_causes_have_a_panel_each():
    other = np.where(np.arange(len(DATA)) % 3 == 0, 1 - DATA["event"], 0)
    data = DATA.assign(other=other)
    causes = {
        name: dr.fit(f"Surv(time, {column}) ~ fin", data, "coxph")
        for name, column in (("arrest", "event"), ("other", "other"))
    }
    figure = dr.plot_cumulative_incidence(causes, {"fin": [0, 1]}, [10.0, 50.0])
    expected = dr.cumulative_incidence(causes, {"fin": [0, 1]}, [10.0, 50.0], interval=0.95)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["arrest", "other"]
    for ax, name in zip(figure.axes, causes, strict=True):
        assert len(ax.lines) == len(ax.collections) == 2
        for i, (line, band) in enumerate(zip(ax.lines, ax.collections, strict=True)):
            own = expected[name].iloc[i]["50"]
            assert line.get_ydata()[-1] == pytest.approx(own["estimate"])
            assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(own["upper"])
    tallest = max(
        table.xs("upper", axis=1, level=1).to_numpy().max() for table in expected.values()
    )
    assert all(ax.get_ylim()[1] >= tallest for ax in figure.axes)
    without = dr.plot_cumulative_incidence(causes, {"fin": [0, 1]}, [10.0, 50.0], level=None)
    assert not without.axes[0].collections


def test_incidence_is_drawn_at_the_events_of_all_causes():
    data = DATA.assign(early=DATA["event"] * (DATA["time"] < 20), late=DATA["event"])
    data["late"] -= data["early"]
    causes = {k: dr.fit(f"Surv(time, {k}) ~ fin", data, "coxph") for k in ("early", "late")}
    at = dr.plot_cumulative_incidence(causes, {"fin": [0]}).axes[0].lines[0].get_xdata()
    assert set(np.unique(data.loc[data["event"] == 1, "time"])) <= set(at)


def test_calibration_shows_its_table(models):
    S = models["coxph"].predict(DATA, "survival", at=40.0)
    table = survival_metrics.calibration(DATA["time"], DATA["event"], S, 40.0, groups=5)
    ax = dr.plot_calibration({"coxph": table}).axes[0]
    points = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(np.asarray(points.get_xdata(), float), table["predicted"])
    np.testing.assert_allclose(np.asarray(points.get_ydata(), float), table["observed"])


def test_errors_name_what_is_wrong(models):
    with pytest.raises(PredictionError, match="which='survive'.*did you mean 'survival'"):
        dr.plot_survival(models["coxph"], NEW, which="survive")
    with pytest.raises(PredictionError, match="two or more increasing times"):
        dr.plot_survival(models["coxph"], NEW, [3.0, 1.0])
    with pytest.raises(PredictionError, match="1 labels for 2 rows"):
        dr.plot_survival(models["coxph"], NEW, labels=["one"])
    with pytest.raises(PredictionError, match="a model per cause"):
        dr.plot_cumulative_incidence({}, pd.DataFrame(NEW))
