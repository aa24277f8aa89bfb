"""Pictures of a fitted model: its effects on one page, and four checks of its residuals.

A panel shows the effect of one term on its predictor: a curve with its band, the data as a rug and,
for the first parameter of a continuous response, partial residuals; levels of factors as points
with intervals; a surface as contours; a deep term of many variables as the histogram of its effect.

Figures are plain `matplotlib.figure.Figure` objects: a notebook shows them, `savefig` writes them,
and no display or global state is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import scipy.spatial
import scipy.special
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deepregress.diagnostics import Checks, normal_scores
from deepregress.linalg import Array, Matrix, Vector
from deepregress.panels import MOST_CURVES, Panel

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
CONTOURS = 14
MOST_IN_THREES = 15
"""Of more panels four stand in a row."""
MOST_BARS = 60
"""Intervals of more random effects are pale."""
MANY_NAMES = 20
"""Points of more levels are smaller."""
MOST_NAMES = 40
"""Of more levels the names are left out."""
STYLE = {"labelsize": 8, "titlesize": 9.5}


def effects_figure(panels: Sequence[Panel]) -> Figure:
    """All effects on one page, panels in the order given."""
    n = len(panels)
    n_columns = n if n <= 3 else 2 if n == 4 else 3 if n <= MOST_IN_THREES else 4
    n_rows = math.ceil(n / n_columns)
    figure = Figure(figsize=(4.3 * n_columns, 3.3 * n_rows), layout="constrained", dpi=120)
    groups: dict[str, list[Axes]] = {}
    for i, panel in enumerate(panels):
        ax = figure.add_subplot(n_rows, n_columns, i + 1)
        _dress(ax, panel.title, panel.note)
        alike = [p for p in panels if p is panel or p.together and p.together == panel.together]
        _DRAW[panel.kind](ax, panel, alike)
        if panel.together and panel.kind == "curve":
            groups.setdefault(panel.together, []).append(ax)
    for together in groups.values():
        limits = np.array([ax.get_ylim() for ax in together])
        for ax in together:
            ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    return figure


def _histogram(ax: Axes, panel: Panel, _: Sequence[Panel]) -> None:
    """Distribution over the training rows of an effect."""
    values = panel.table["effect"].to_numpy(dtype=float)
    ax.hist(values, bins=min(40, max(8, int(np.sqrt(len(values))))), color=BAND, ec="white", lw=0.4)
    ax.axvline(0.0, color="0.5", lw=0.7)
    _labels(ax, panel.ylabel, "rows")


def _curves(ax: Axes, panel: Panel, _: Sequence[Panel]) -> None:
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
    few = len(groups) <= MOST_CURVES
    for i, (label, part) in enumerate(groups):
        colour = COLOURS[i % len(COLOURS)] if few else INK
        x = part[name].to_numpy(dtype=float)
        if few:
            band, alpha = (BAND, 0.55) if len(groups) == 1 else (colour, 0.18)
            ax.fill_between(x, part["lower"], part["upper"], color=band, alpha=alpha, lw=0)
        width, opacity = (1.6, 1.0) if few else (0.8, max(0.25, min(0.8, 12 / len(groups))))
        ax.plot(x, part["effect"], color=colour, lw=width, alpha=opacity, label=label)
    if len(groups) > 1 and few:
        title = ", ".join(panel.factors)
        ax.legend(
            title=title, fontsize=7, title_fontsize=7, frameon=False, handlelength=1.2,
            loc="center left", bbox_to_anchor=(1.0, 0.5), borderaxespad=0.2,
        )  # fmt: skip
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
    _labels(ax, name, panel.ylabel)


def _levels(ax: Axes, panel: Panel, _: Sequence[Panel]) -> None:
    """Points with intervals for the levels of factors."""
    table = panel.table
    names = [_level(row) for row in table[list(panel.factors)].to_numpy().tolist()]
    crowded = sum(map(len, names)) > LONG_LABELS
    if len(names) > MOST_NAMES:
        order = np.argsort(table["effect"].to_numpy(dtype=float), kind="stable")[::-1]
        table, names = table.iloc[order], [""] * len(names)
    place = np.arange(len(names))
    value = table["effect"].to_numpy(dtype=float)
    below, above = value - table["lower"], table["upper"] - value
    if crowded:
        place = place[::-1]
        ax.axvline(0.0, color="0.75", lw=0.7, zorder=0)
        size = 4.0 if len(names) <= MANY_NAMES else 2.5
        ax.errorbar(value, place, xerr=(below, above), fmt="o", ms=size, color=INK, lw=0.28 * size)
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


def _surface(ax: Axes, panel: Panel, alike: Sequence[Panel]) -> None:
    """Filled contours of an effect; hatched where its band covers zero."""
    across, up, value, hidden = _on_grid(panel, "effect")
    size = max(float(np.abs(_on_grid(each, "effect")[2]).max()) for each in alike)
    levels = MaxNLocator(CONTOURS, symmetric=True).tick_values(-size, size)
    filled = ax.contourf(across, up, value, cmap="RdBu_r", levels=levels)
    _, _, lower, _ = _on_grid(panel, "lower")
    _, _, upper, _ = _on_grid(panel, "upper")
    unclear = np.ma.masked_where(hidden, ((lower <= 0.0) & (upper >= 0.0)).astype(float))
    if unclear.any():
        with mpl.rc_context({"hatch.linewidth": 0.35, "hatch.color": "0.55"}):
            ax.contourf(across, up, unclear, levels=[0.5, 1.5], colors="none", hatches=["////"])
    _finish_surface(ax, panel, filled, f"{panel.ylabel} (hatched: band covers 0)")


def _error(ax: Axes, panel: Panel, _: Sequence[Panel]) -> None:
    """Filled contours of the standard error of a surface."""
    across, up, value, _hidden = _on_grid(panel, "se")
    levels = MaxNLocator(CONTOURS // 2).tick_values(float(value.min()), float(value.max()))
    filled = ax.contourf(across, up, value, cmap="YlOrBr", levels=levels)
    _finish_surface(ax, panel, filled, panel.ylabel)


def _on_grid(panel: Panel, column: str) -> tuple[Matrix, Matrix, Matrix, Array]:
    """Coordinates of the grid, values on it, and which points are too far from any row."""
    x_name, y_name = panel.numeric
    wide = panel.table.pivot(index=y_name, columns=x_name, values=column)
    across, up = np.meshgrid(wide.columns.to_numpy(float), wide.index.to_numpy(float))
    hidden = _distance(across, up, panel.rug[x_name], panel.rug[y_name]) > TOO_FAR
    return across, up, np.ma.masked_where(hidden, wide.to_numpy()), hidden


def _finish_surface(ax: Axes, panel: Panel, filled: Any, label: str) -> None:
    """Contour lines, training rows, colour bar and labels."""
    x_name, y_name = panel.numeric
    lines = ax.contour(filled, levels=np.asarray(filled.levels)[::2], colors="0.25", linewidths=0.4)
    ax.clabel(lines, fontsize=6)
    x, y = panel.rug[x_name], panel.rug[y_name]
    some = thinned(len(x))
    ax.scatter(x[some], y[some], s=3, color="black", alpha=0.35, lw=0)
    bar = ax.figure.colorbar(filled, ax=ax, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=7.5)
    _labels(ax, x_name, y_name)


def _quantiles(ax: Axes, panel: Panel, _: Sequence[Panel]) -> None:
    """Normal QQ plot of predicted random effects with their intervals."""
    value = panel.table["effect"].to_numpy(dtype=float)
    score = normal_scores(len(value))
    some = _ends_and_middle(len(value))
    bars = np.abs(panel.table[["lower", "upper"]].to_numpy(dtype=float) - value[:, None]).T
    alpha = float(np.clip(30.0 / len(some), 0.12, 0.8))
    ax.axhline(0.0, color="0.75", lw=0.7, zorder=0)
    colour = BAND if len(some) > MOST_BARS else INK
    low, high = value[some] - bars[0, some], value[some] + bars[1, some]
    ax.vlines(score[some], low, high, color=colour, lw=0.9, alpha=max(alpha, 0.35))
    ax.plot(score[some], value[some], "o", ms=3.5, color=INK, alpha=max(alpha, 0.6), mew=0)
    if len(value) > 2:
        # through the quartiles, as R's qqline
        ends = np.quantile(value, [0.25, 0.75])
        slope = float(np.ptp(ends)) / float(np.ptp(scipy.special.ndtri([0.25, 0.75])))
        ax.axline((0.0, float(ends.mean())), slope=slope, color=ACCENT, lw=1.0, zorder=0)
    _labels(ax, "normal score", panel.ylabel)


def _distance(across: Matrix, up: Matrix, x: Vector, y: Vector) -> Matrix:
    """Distance of grid points to the nearest row, both axes scaled to the unit interval."""
    low, size = np.array([x.min(), y.min()]), np.array([np.ptp(x), np.ptp(y)])
    rows = (np.column_stack([x, y]) - low) / size
    points = (np.column_stack([across.ravel(), up.ravel()]) - low) / size
    distance, _ = scipy.spatial.KDTree(rows).query(points)
    return np.asarray(distance).reshape(across.shape)


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
            axis.set_major_formatter(FuncFormatter(_tick))


_DRAW: dict[str, Callable[[Axes, Panel, Sequence[Panel]], None]] = {
    "curve": _curves,
    "levels": _levels,
    "surface": _surface,
    "error": _error,
    "quantiles": _quantiles,
    "rows": _histogram,
}


def _range(lower: pd.Series, upper: pd.Series) -> tuple[float, float]:
    low, high = float(lower.min()), float(upper.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _tick(value: float, _: int | None) -> str:
    """A tick label without a common factor, which would stand in the title's place."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


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
