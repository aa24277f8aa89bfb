"""Pictures of a fitted model: its effects on one page, and four checks of its residuals.

A panel shows the effect of one term on its predictor: a curve with its band, the data as a rug and,
for the first parameter of a continuous response, partial residuals; levels of factors as points
with intervals; a surface as contours; a deep term of many variables as the histogram of its effect.

Figures are plain `matplotlib.figure.Figure` objects: a notebook shows them, `savefig` writes them,
and no display or global state is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.spatial
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepregress.data import Frame, Response
from deepregress.diagnostics import Checks
from deepregress.effects import effect, partial_effect, working_residuals
from deepregress.grids import Place, Profile, grid_of, shown_at
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictors

INK, BAND, POINTS, ACCENT = "#1f3b57", "#9db8d2", "#8a8a8a", "#b5482a"
COLOURS = ("#1f3b57", "#b5482a", "#3f7d4e", "#8c6bb1", "#c28e0e", "#4c9db0")
MOST_POINTS = 800
"""Of more rows an evenly spaced part is drawn."""
RESIDUAL_ROOM = 1.0
"""Partial residuals may widen a panel by this share of the effect's own range on each side."""
LONG_LABELS = 34
"""Level names of more letters in all stand on the vertical axis."""
LEVELS_HEIGHT = 165.0
"""Points of height that the names of levels share."""
OUTLIERS = 0.005
"""Share of partial residuals at either end that may fall outside a panel."""
TOO_FAR = 0.1
"""A surface is not drawn farther from any row than this share of the panel, as in mgcv."""
STYLE = {"labelsize": 8, "titlesize": 9.5}


@dataclass(frozen=True, eq=False)
class Panel:
    """One effect to draw.

    Parameters
    ----------
    title : str
        Parameter and term.
    note : str
        What stands at the right of the title.
    ylabel : str
    table : DataFrame
        Covariates, effect, se, lower, upper.
    numeric, factors : tuple of str
        Covariates of the table by kind.
    rug : dict of str to Vector
        Values of the numeric covariates in the training rows.
    residuals : Vector or None
        Partial residuals of the training rows, beside `rug`.
    kind : {"grid", "rows"}
        "rows": the table has the training rows, and no curve can show the effect.
    """

    title: str
    note: str
    ylabel: str
    table: pd.DataFrame
    numeric: tuple[str, ...]
    factors: tuple[str, ...]
    rug: dict[str, Vector]
    residuals: Vector | None = None
    kind: str = "grid"


@dataclass(frozen=True, eq=False)
class Source:
    """What panels are made from."""

    predictors: Predictors
    profile: Profile
    frame: Frame
    response: Response
    eta: Matrix
    edf: pd.Series

    def panel(self, place: Place, level: float) -> Panel:
        """The panel of one term."""
        unit = self.predictors.units[place.unit]
        label, link = place.labels[0], self.predictors.family.parameters[place.unit].link.name
        scale = unit.parameter if link == "identity" else f"{link}({unit.parameter})"
        shown = partial_effect(
            self.predictors,
            place,
            shown_at(self.predictors, place, self.profile, training=self.frame, grid=None),
            self.profile,
            level=level,
            simultaneous=False,
        )
        axes, factors = self.profile.axes(place)
        numeric, rows = tuple(axes), self._rows(place)
        on_grid = grid_of(place, self.profile, 2) is not None and (numeric or factors)
        return Panel(
            title=label if len(self.predictors.units) == 1 else f"{unit.parameter}:  {label}",
            note=self._note(place, unit.parameter, factors),
            ylabel=f"effect on {scale}",
            table=shown,
            numeric=numeric,
            factors=tuple(factors),
            rug={name: np.asarray(self.frame[name], dtype=float)[rows] for name in numeric},
            residuals=self._residuals(place, numeric, rows),
            kind="grid" if on_grid else "rows",
        )

    def _rows(self, place: Place) -> Array:
        """Training rows that the term is about: all, or those of the level of its `by`."""
        if not place.levels:
            return np.arange(self.frame.n_obs)
        return np.flatnonzero(np.asarray(self.frame[place.by] == place.levels[0]))

    def _note(self, place: Place, parameter: str, factors: Mapping[str, Sequence[object]]) -> str:
        label = place.labels[0]
        curves = math.prod(map(len, factors.values()))
        each = f", {curves} levels of {' x '.join(factors)}" if curves > len(COLOURS) else ""
        if place.kind == "smooth":
            unit = f", at {place.by} = 1" if place.by and not place.levels else ""
            return f"edf {self.edf[parameter, label]:.1f}{unit}{each}"
        if place.kind == "linear":
            return ""
        value = effect(self.predictors, place, self.frame, self.profile).value
        total = float(self.eta[:, place.unit].var())
        share = float(value.var()) / total if total > 0 else 0.0
        return f"sd {value.std():.2g}, {100 * share:.0f} % of the variance of the predictor"

    def _residuals(self, place: Place, numeric: tuple[str, ...], rows: Array) -> Vector | None:
        """Partial residuals where they can be read: curves of the first parameter, y continuous."""
        single = (
            len(numeric) == 1 and len(place.variables) == 1 and not (place.by and not place.levels)
        )
        if not single or place.unit != 0 or self.predictors.family.discrete:
            return None
        value = effect(self.predictors, place, self.frame, self.profile).value
        added = working_residuals(self.predictors, place.unit, self.eta, self.response.lower)
        return np.asarray((value + added)[rows])


def effects_figure(panels: Sequence[Panel]) -> Figure:
    """All effects on one page, panels in the order given."""
    n = len(panels)
    n_columns = n if n <= 3 else 2 if n == 4 else 3
    n_rows = math.ceil(n / n_columns)
    figure = Figure(figsize=(4.3 * n_columns, 3.3 * n_rows), layout="constrained", dpi=120)
    for i, panel in enumerate(panels):
        ax = figure.add_subplot(n_rows, n_columns, i + 1)
        _dress(ax, panel.title, panel.note)
        _draw(ax, panel)
    return figure


def _draw(ax: Axes, panel: Panel) -> None:
    if panel.kind == "rows":
        _histogram(ax, panel.table["effect"].to_numpy(dtype=float))
        ax.set_xlabel(panel.ylabel, fontsize=STYLE["labelsize"])
        ax.set_ylabel("rows", fontsize=STYLE["labelsize"])
        return
    if len(panel.numeric) == 2:
        _surface(ax, panel)
        return
    if panel.numeric:
        _curves(ax, panel)
        ax.set_ylabel(panel.ylabel, fontsize=STYLE["labelsize"])
    else:
        _levels(ax, panel)


def _curves(ax: Axes, panel: Panel) -> None:
    """Curves with bands, rug and partial residuals; one curve per level of factors."""
    name = panel.numeric[0]
    ax.axhline(0.0, color="0.75", lw=0.7, zorder=0)
    groups = [("", panel.table)]
    if panel.factors:
        keys = list(panel.factors)
        groups = [
            (_level(key), part)
            for key, part in panel.table.groupby(keys, observed=True, sort=False)
        ]
    few = len(groups) <= len(COLOURS)
    for i, (label, part) in enumerate(groups):
        colour = COLOURS[i % len(COLOURS)] if few else INK
        x = part[name].to_numpy(dtype=float)
        if few:
            band, alpha = (BAND, 0.55) if len(groups) == 1 else (colour, 0.18)
            ax.fill_between(x, part["lower"], part["upper"], color=band, alpha=alpha, lw=0)
        ax.plot(x, part["effect"], color=colour, lw=1.6 if few else 0.7, label=label)
    if len(groups) > 1 and few:
        title = ", ".join(panel.factors)
        ax.legend(title=title, fontsize=7, title_fontsize=7, frameon=False)
    ends = ("lower", "upper") if few else ("effect", "effect")
    low, high = _range(panel.table[ends[0]], panel.table[ends[1]])
    shown = panel.rug.get(name, np.zeros(0))
    some = thinned(len(shown))
    if panel.residuals is not None:
        values = panel.residuals[some]
        ax.scatter(shown[some], values, s=6, color=POINTS, alpha=0.45, lw=0, zorder=1)
        room = RESIDUAL_ROOM * (high - low)
        least, most = np.quantile(panel.residuals, [OUTLIERS, 1.0 - OUTLIERS])
        low, high = max(low - room, min(low, least)), min(high + room, max(high, most))
    margin = 0.06 * (high - low)
    ax.set_ylim(low - 1.5 * margin, high + margin)
    ax.plot(
        shown[some], np.zeros(len(some)), "|", color="0.35", ms=5, alpha=0.5, mew=0.6,
        transform=ax.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip
    ax.set_xlabel(name, fontsize=STYLE["labelsize"])


def _levels(ax: Axes, panel: Panel) -> None:
    """Points with intervals for the levels of factors."""
    names = [_level(row) for row in panel.table[list(panel.factors)].to_numpy().tolist()]
    place = np.arange(len(names))
    value = panel.table["effect"].to_numpy(dtype=float)
    below, above = value - panel.table["lower"], panel.table["upper"] - value
    crowded = sum(map(len, names)) > LONG_LABELS
    if crowded:
        place = place[::-1]
        ax.axvline(0.0, color="0.75", lw=0.7, zorder=0)
        ax.errorbar(value, place, xerr=(below, above), fmt="o", ms=4, color=INK, ecolor=INK, lw=1.1)
        ax.set_yticks(place, names, fontsize=min(7.0, LEVELS_HEIGHT / len(names)))
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_xlabel(panel.ylabel, fontsize=STYLE["labelsize"])
    else:
        ax.axhline(0.0, color="0.75", lw=0.7, zorder=0)
        ax.errorbar(place, value, yerr=(below, above), fmt="o", ms=4, color=INK, ecolor=INK, lw=1.1)
        ax.set_xticks(place, names)
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_xlabel(", ".join(panel.factors), fontsize=STYLE["labelsize"])
        ax.set_ylabel(panel.ylabel, fontsize=STYLE["labelsize"])


def _level(values: Sequence[object]) -> str:
    """Levels of several factors as one label; 1.0 is shown as 1."""
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _surface(ax: Axes, panel: Panel) -> None:
    """Filled contours over two covariates, with the training rows as points."""
    x_name, y_name = panel.numeric
    part = panel.table
    if panel.factors:
        first = part.iloc[0]
        for factor in panel.factors:
            part = part[part[factor] == first[factor]]
    wide = part.pivot(index=y_name, columns=x_name, values="effect")
    x, y = panel.rug[x_name], panel.rug[y_name]
    across, up = np.meshgrid(wide.columns.to_numpy(float), wide.index.to_numpy(float))
    value = np.ma.masked_where(_distance(across, up, x, y) > TOO_FAR, wide.to_numpy())
    size = float(np.abs(value).max())
    filled = ax.contourf(across, up, value, cmap="RdBu_r", vmin=-size, vmax=size, levels=14)
    every_second = np.asarray(filled.levels)[::2]
    lines = ax.contour(filled, levels=every_second, colors="0.25", linewidths=0.4)
    ax.clabel(lines, fontsize=6)
    some = thinned(len(x))
    ax.scatter(x[some], y[some], s=3, color="black", alpha=0.35, lw=0)
    bar = ax.figure.colorbar(filled, ax=ax, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(panel.ylabel, fontsize=STYLE["labelsize"])
    ax.set_xlabel(x_name, fontsize=STYLE["labelsize"])
    ax.set_ylabel(y_name, fontsize=STYLE["labelsize"])


def _distance(across: Matrix, up: Matrix, x: Vector, y: Vector) -> Matrix:
    """Distance of grid points to the nearest row, both axes scaled to the unit interval."""
    low, size = np.array([x.min(), y.min()]), np.array([np.ptp(x), np.ptp(y)])
    rows = (np.column_stack([x, y]) - low) / size
    points = (np.column_stack([across.ravel(), up.ravel()]) - low) / size
    distance, _ = scipy.spatial.KDTree(rows).query(points)
    return np.asarray(distance).reshape(across.shape)


def _histogram(ax: Axes, values: Vector) -> None:
    ax.hist(values, bins=min(40, max(8, int(np.sqrt(len(values))))), color=BAND, ec="white", lw=0.4)
    ax.axvline(0.0, color="0.5", lw=0.7)


def _dress(ax: Axes, title: str, note: str = "") -> None:
    ax.set_title(title, fontsize=STYLE["titlesize"], loc="left", color=INK, pad=16 if note else 6)
    ax.annotate(
        note, (0.0, 1.0), (0.0, 5.0), xycoords="axes fraction", textcoords="offset points",
        fontsize=7.5, color="0.4",
    )  # fmt: skip
    ax.tick_params(labelsize=7.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        if type(axis.get_major_locator()).__name__ in ("AutoLocator", "MaxNLocator"):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _range(lower: pd.Series, upper: pd.Series) -> tuple[float, float]:
    low, high = float(lower.min()), float(upper.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def thinned(n: int) -> Array:
    """Row numbers that are drawn: all, or evenly spaced ones."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).astype(int)) if n else np.arange(0)


def checks_figure(checks: Checks) -> Figure:
    """QQ plot, residuals against predictor, histogram of residuals, response against fitted."""
    figure = Figure(figsize=(9.0, 7.0), layout="constrained", dpi=120)
    pictures: tuple[tuple[str, Callable[[Axes, Checks], None]], ...] = (
        ("Quantile residuals: normal QQ", _qq),
        ("Quantile residuals against linear predictor", _against_predictor),
        ("Quantile residuals: histogram", _residual_histogram),
        ("Calibration" if checks.binary else "Response against fitted", _response),
    )
    for i, (title, draw) in enumerate(pictures):
        ax = figure.add_subplot(2, 2, i + 1)
        _dress(ax, title)
        draw(ax, checks)
    return figure


def _labels(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=STYLE["labelsize"])
    ax.set_ylabel(y, fontsize=STYLE["labelsize"])


def _qq(ax: Axes, checks: Checks) -> None:
    order = np.sort(checks.residuals)
    some = _ends_and_middle(len(order))
    ax.fill_between(checks.scores, checks.lower, checks.upper, color=BAND, alpha=0.45, lw=0)
    ends = checks.scores[[0, -1]]
    ax.plot(ends, ends, color=ACCENT, lw=1.0)
    ax.scatter(checks.scores[some], order[some], s=8, color=INK, alpha=0.7, lw=0, zorder=3)
    _labels(ax, "normal score", "ordered residual (band: pointwise 95 %)")


def _ends_and_middle(n: int) -> Array:
    """Row numbers of ordered residuals: all of both tails, some of the middle."""
    tail = min(n, MOST_POINTS // 4)
    return np.unique(np.concatenate([np.arange(tail), n - 1 - np.arange(tail), thinned(n)]))


def _against_predictor(ax: Axes, checks: Checks) -> None:
    some = thinned(len(checks.predictor))
    ax.axhline(0.0, color=ACCENT, lw=1.0)
    for bound in (-1.96, 1.96):
        ax.axhline(bound, color="0.7", lw=0.7, ls="--")
    x, y = checks.predictor, checks.residuals
    ax.scatter(x[some], y[some], s=8, color=INK, alpha=0.5, lw=0)
    centres, means = _binned(x, y)
    ax.plot(centres, means, color=ACCENT, lw=1.4, marker="o", ms=3, label="means of groups")
    ax.legend(fontsize=7, frameon=False)
    _labels(ax, checks.labels[0], "quantile residual")


def _binned(x: Vector, y: Vector) -> tuple[Vector, Vector]:
    """Means of y over groups of equal size in the order of x."""
    n_groups = int(np.clip(len(x) // 20, 1, 15))
    groups = np.array_split(np.argsort(x, kind="stable"), n_groups)
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])


def _residual_histogram(ax: Axes, checks: Checks) -> None:
    r = checks.residuals
    bins = min(60, max(8, int(2.0 * len(r) ** (1 / 3))))
    ax.hist(r, bins=bins, density=True, color=BAND, ec="white", lw=0.4)
    z = np.linspace(min(r.min(), -3.2), max(r.max(), 3.2), 200)
    ax.plot(z, np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi), color=ACCENT, lw=1.3, label="N(0, 1)")
    ax.legend(fontsize=7, frameon=False)
    _labels(ax, "quantile residual", "density")


def _response(ax: Axes, checks: Checks) -> None:
    if checks.binary:
        centres, means = _binned(checks.fitted, checks.response)
        ax.plot([0, 1], [0, 1], color=ACCENT, lw=1.0)
        ax.plot(centres, means, "o", ms=4.5, color=INK)
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        _labels(ax, f"{checks.labels[1]}, groups of equal size", "share of ones")
        return
    some = thinned(len(checks.fitted))
    ax.scatter(checks.fitted[some], checks.response[some], s=8, color=INK, alpha=0.5, lw=0)
    ends = np.array([checks.fitted.min(), checks.fitted.max()])
    ax.plot(ends, ends, color=ACCENT, lw=1.0)
    _labels(ax, *checks.labels[1:])
