"""Figures: what they show, and that their texts do not run into each other."""

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.figure import Figure

from deepregress import datasets, networks
from deepregress.errors import PredictionError
from deepregress.fitted import FittedModel
from deepregress.model import fit
from deepregress.solvers.base import Training


@pytest.fixture(scope="module")
def mcycle() -> FittedModel:
    formula = {"loc": "accel ~ s(times, k=20)", "scale": "~ s(times, k=10)"}
    return fit(formula, datasets.load("mcycle"))


@pytest.fixture(scope="module")
def houses() -> FittedModel:
    data = datasets.load("sacramento").assign(
        price=lambda d: d["price"] / 1000, large=lambda d: d["sqft"] > 2000
    )
    formula = (
        "price ~ large + city + sqft:type + log(beds) + deep(longitude, latitude)"
        " + deep(sqft, beds, baths)"
    )
    return fit(formula, data, "gamma", seed=1, verbose=0, training=Training(epochs=5))


def axes_of(figure: Figure) -> dict[str, mpl.axes.Axes]:
    return {ax.get_title(loc="left"): ax for ax in figure.axes if ax.get_title(loc="left")}


def overlapping(figure: Figure) -> list[str]:
    """Neighbouring tick labels, and titles, whose boxes meet."""
    figure.draw_without_rendering()
    faults = []
    for title, ax in axes_of(figure).items():
        for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            boxes = [label.get_window_extent() for at, label in ticks if low <= at <= high]
            boxes.sort(key=lambda box, name=name: box.x0 if name == "x" else box.y0)
            for a, b in pairwise(boxes):
                gap = b.x0 - a.x1 if name == "x" else b.y0 - a.y1
                # text boxes have a descender's room below the letters
                if gap < (0 if name == "x" else -0.35 * a.height):
                    faults.append(f"{title}: {name} tick labels")
    heads = [(title, ax.title.get_window_extent(), ax) for title, ax in axes_of(figure).items()]
    for title, _, ax in heads:
        left = ax._left_title.get_window_extent()
        if left.x1 > figure.bbox.x1 or left.y1 > figure.bbox.y1:
            faults.append(f"{title}: title leaves the page")
    return faults


def test_every_term_has_its_panel(mcycle: FittedModel, houses: FittedModel) -> None:
    assert list(axes_of(mcycle.plot())) == ["loc:  s(times)", "scale:  s(times)"]
    assert list(axes_of(mcycle.plot("scale"))) == ["scale:  s(times)"]
    titles = list(axes_of(houses.plot()))
    assert titles == [
        "large", "city", "log(beds)", "sqft:type",
        "deep(longitude,latitude)", "deep(sqft,beds,baths)",
    ]  # fmt: skip


def test_a_curve_is_the_partial_effect_with_its_band(mcycle: FittedModel) -> None:
    ax = axes_of(mcycle.plot(level=0.8))["scale:  s(times)"]
    effect = mcycle.partial_effect("s(times)", "scale", level=0.8)
    curve = next(line for line in ax.lines if len(line.get_xdata()) == 100)
    assert curve.get_ydata() == pytest.approx(effect["effect"].to_numpy())
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(effect["upper"].max())
    assert band[:, 1].min() == pytest.approx(effect["lower"].min())
    assert ax.get_xlabel() == "times"
    assert ax.get_ylabel() == "effect on log(scale)"


def test_partial_residuals_are_what_is_left_of_the_response(mcycle: FittedModel) -> None:
    ax = axes_of(mcycle.plot())["loc:  s(times)"]
    points = np.asarray(ax.collections[-1].get_offsets())
    data = datasets.load("mcycle")
    expected = data["accel"] - mcycle.coef["loc", "(Intercept)"]
    assert points[:, 0] == pytest.approx(data["times"].to_numpy())
    assert points[:, 1] == pytest.approx(expected.to_numpy())


def test_levels_are_points_with_intervals(houses: FittedModel) -> None:
    ax = axes_of(houses.plot())["large"]
    points = next(line for line in ax.lines if line.get_marker() == "o")
    effect = houses.partial_effect("large")
    assert points.get_ydata() == pytest.approx(effect["effect"].to_numpy())
    assert [label.get_text() for label in ax.get_xticklabels()] == ["False", "True"]


def test_texts_do_not_run_into_each_other(mcycle: FittedModel, houses: FittedModel) -> None:
    for figure in (mcycle.plot(), houses.plot(), mcycle.plot_diagnostics()):
        assert overlapping(figure) == []


def test_diagnostics_show_the_residuals(mcycle: FittedModel) -> None:
    figure = mcycle.plot_diagnostics()
    assert len(axes_of(figure)) == 4
    qq = axes_of(figure)["Quantile residuals: normal QQ"]
    points = np.asarray(qq.collections[-1].get_offsets())
    assert points[:, 1] == pytest.approx(np.sort(mcycle.residuals()))
    drawn = axes_of(figure)["Response against fitted"].collections[0]
    fitted = np.asarray(drawn.get_offsets())
    assert fitted[:, 0] == pytest.approx(mcycle.predict())


def test_a_binary_response_gets_a_calibration_plot() -> None:
    data = datasets.load("gbsg2")
    model = fit("event ~ s(age) + nodes", data, "bernoulli")
    ax = axes_of(model.plot_diagnostics())["Calibration"]
    shares = next(line for line in ax.lines if line.get_marker() == "o").get_ydata()
    # groups of equal size, up to one row
    assert shares.mean() == pytest.approx(data["event"].mean(), abs=0.01)


def test_images_are_shown_by_the_distribution_of_their_effect() -> None:
    digits = datasets.load("digits")
    data = {"y": (digits["label"] > 4).astype(float)[:300], "image": digits["image"][:300]}
    network = networks.cnn((4,), hidden=(8,))
    model = fit(
        "y ~ net(image)", data, "bernoulli", networks={"net": network}, seed=1, verbose=0,
        training=Training(epochs=3, folds=2),
    )  # fmt: skip
    assert list(axes_of(model.plot())) == ["net(image)"]
    effect = model.partial_effect("net(image)")
    assert list(effect) == ["effect", "se", "lower", "upper"]
    some = model.partial_effect("net(image)", grid={"image": data["image"][:4]})
    assert some["effect"].to_numpy() == pytest.approx(effect["effect"].to_numpy()[:4], abs=1e-6)


def test_figures_need_no_display(mcycle: FittedModel, tmp_path) -> None:
    assert isinstance(mcycle.plot(), Figure)
    mcycle.plot().savefig(tmp_path / "plot.pdf")
    assert (tmp_path / "plot.pdf").stat().st_size > 5000
    many = fit("y ~ s(x)", pd.DataFrame({"x": np.linspace(0, 1, 5000), "y": np.arange(5000.0) % 7}))
    points = axes_of(many.plot())["s(x)"].collections[-1].get_offsets()
    assert len(points) <= 800


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n = 300
    x, z, v = rng.uniform(size=(3, n))
    g = rng.integers(0, 12, n)
    area = rng.choice(list("ABCD"), n)
    effects = rng.normal(size=12)
    y = np.sin(6 * x) + x * z + effects[g] + 0.5 * (area == "B") + 0.3 * rng.normal(size=n)
    factors = {"g": pd.Categorical(g.astype(str)), "area": area, "o": np.where(x > z, "p", "q")}
    return pd.DataFrame({"x": x, "z": z, "v": v, "y": y, **factors})


def test_random_effects_are_drawn_against_normal_scores(table: pd.DataFrame) -> None:
    model = fit("y ~ s(x) + s(g, bs='re')", table)
    ax = axes_of(model.plot())["s(g)"]
    points = next(line for line in ax.lines if line.get_marker() == "o")
    coef = model.coef["loc"].filter(like="s(g)").to_numpy()
    assert points.get_ydata() == pytest.approx(np.sort(coef))
    # Blom's scores of 12 draws
    scores = scipy.stats.norm.ppf((np.arange(1, 13) - 0.375) / 12.25)
    assert points.get_xdata() == pytest.approx(scores)
    bars = np.array([path.vertices[:, 1] for path in ax.collections[0].get_paths()])
    half = scipy.stats.norm.ppf(0.975) * model.std_error["loc"].filter(like="s(g)").to_numpy()
    assert np.ptp(bars, axis=1) == pytest.approx(2 * half[np.argsort(coef)])


def test_a_surface_has_its_standard_error_beside_it(table: pd.DataFrame) -> None:
    figure = fit("y ~ te(x, z, k=3)", table).plot()
    notes = [[t.get_text() for t in ax.texts[:1]] for ax in figure.axes if ax.get_title(loc="left")]
    assert notes[1] == ["standard error"]
    assert notes[0][0].startswith("edf ")
    bars = [ax.get_ylabel() for ax in figure.axes if "colorbar" in ax.get_label()]
    assert bars == ["effect on loc (hatched: band covers 0)", "standard error"]


def test_functions_of_three_numbers_are_cut(table: pd.DataFrame) -> None:
    model = fit("y ~ te(x, z, v, k=3)", table)
    figure = model.plot()
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    quantiles = table["v"].quantile([0.1, 0.5, 0.9])
    for ax, value in zip(panels, quantiles, strict=True):
        assert f"at v = {value:.3g}" in ax.texts[0].get_text()
    # one scale of colours
    limits = {ax.collections[0].get_clim() for ax in panels}
    assert len(limits) == 1


def test_smooths_of_the_levels_of_a_factor_have_one_scale(table: pd.DataFrame) -> None:
    axes = axes_of(fit("y ~ s(x, by=o, k=5)", table).plot())
    assert list(axes) == ["s(x):op", "s(x):oq"]
    assert axes["s(x):op"].get_ylim() == axes["s(x):oq"].get_ylim()


def test_areas_without_rows_are_drawn_by_name(table: pd.DataFrame) -> None:
    near = {"A": ["B", "E"], "B": ["A", "C"], "C": ["B", "D"], "D": ["C", "E"], "E": ["A", "D"]}
    model = fit(f"y ~ s(area, bs='mrf', xt={near})", table)
    ax = axes_of(model.plot())["s(area)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == list("ABCDE")
    drawn = next(line for line in ax.lines if line.get_marker() == "o").get_ydata()
    expected = model.predict({"area": list("ABCDE")}, which="terms", parameter="loc")["s(area)"]
    assert drawn == pytest.approx(expected.to_numpy())
    assert drawn[4] == pytest.approx((drawn[0] + drawn[3]) / 2, abs=1e-6)


def test_terms_are_chosen(table: pd.DataFrame) -> None:
    model = fit("y ~ area + z + s(x)", table)
    assert list(axes_of(model.plot())) == ["area", "z", "s(x)"]
    assert list(axes_of(model.plot(parametric=False))) == ["s(x)"]
    assert list(axes_of(model.plot(terms="z"))) == ["z"]
    assert list(axes_of(model.plot(terms=["s( x )", "area"]))) == ["s(x)", "area"]
    with pytest.raises(PredictionError, match=r"'s\(z\)' is not a term"):
        model.plot(terms="s(z)")
    with pytest.raises(PredictionError, match="nothing to plot"):
        fit("y ~ z", table).plot(parametric=False)


def test_a_page_of_many_terms_is_readable(table: pd.DataFrame) -> None:
    model = fit(
        {
            "loc": "y ~ z + area + o + s(x) + s(v) + s(x, g, bs='fs', k=3, m=1) + te(z, v, k=3)",
            "scale": "~ z + o + s(x, k=5) + s(v, k=5)",
        },
        table,
    )
    figure = model.plot()
    assert len([ax for ax in figure.axes if ax.get_title(loc="left")]) == 12
    assert overlapping(figure) == []
