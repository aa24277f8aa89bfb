"""Pictures of survival: curves of rows with their bands, causes of events, calibration (METHODS 8).

Curves are those of `predict(which="survival" | "cumhazard" | "hazard")` over a grid of times, steps
where the baseline jumps, with pointwise bands; rows are named by the covariates in which they
differ. With more rows than colours the curves are thin and have no bands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepregress.errors import PredictionError, suggestion
from deepregress.fitted import FittedModel
from deepregress.linalg import Vector
from deepregress.plotting import ACCENT, COLOURS, INK
from deepregress.survival.competing_risks import cumulative_incidence

POINTS = 150
"""Times of a smooth curve."""
LABELS = {
    "survival": "P(T > t)",
    "cumhazard": "cumulative hazard",
    "hazard": "hazard",
}
STEPS = 2
"""Points per time at which a curve that jumps is drawn."""


def plot_survival(
    model: FittedModel,
    newdata: Any,
    at: Any = None,
    *,
    which: str = "survival",
    level: float | None = 0.95,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw the survival curve of each row with its band.

    Parameters
    ----------
    model : FittedModel
        Of a response that cannot be negative.
    newdata : table or dict
        A row per curve.
    at : array, (m,), optional
        Increasing times; from the first event to the last time in training by default.
    which : {"survival", "cumhazard", "hazard"}
    level : float or None
        Of the pointwise bands; None: no bands.
    labels : sequence of str, optional
        Names of the curves.

    Raises
    ------
    PredictionError
        There is no such curve, or the times are not increasing.

    Examples
    --------
    >>> import deepregress as dr
    >>> model = dr.fit("Surv(time, event) ~ fin + age", dr.datasets.load("rossi"), "coxph")
    >>> figure = dr.plot_survival(model, {"fin": [0, 1], "age": [25.0, 25.0]})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['fin = 0', 'fin = 1']
    """
    if which not in LABELS:
        raise PredictionError(
            f"plot_survival(which={which!r}): there are {', '.join(LABELS)}"
            f"{suggestion(str(which), LABELS)}"
        )
    rows = pd.DataFrame(newdata)
    times = _times(model, at)
    named = list(labels) if labels is not None else _names(rows)
    if len(named) != len(rows):
        raise PredictionError(f"{len(named)} labels for {len(rows)} rows.")
    figure, ax = _axes(which, LABELS[which])
    few = len(rows) <= len(COLOURS)
    band = level if few else None
    estimate = model.predict(rows, which, at=times, interval=band)
    stepped = model.family.jumps is not None
    for i, name in enumerate(named):
        colour = COLOURS[i % len(COLOURS)]
        if band is None:
            curves = [estimate[i]]
        else:
            own = [estimate.xs(part, axis=1, level=1) for part in ("estimate", "lower", "upper")]
            curves = [each.to_numpy()[i] for each in own]
        t, curves = _drawn(times, curves, which, stepped=stepped)
        if band is not None:
            ax.fill_between(t, curves[1], curves[2], color=colour, alpha=0.16, lw=0)
        width = 1.6 if few else 0.7
        ax.plot(t, curves[0], color=colour if few else INK, lw=width, alpha=1.0 if few else 0.4,
                label=name)  # fmt: skip
    if few and len(rows) > 1:
        ax.legend(fontsize=7.5, frameon=False)
    _finish(ax, which)
    return figure


def plot_cumulative_incidence(
    models: Mapping[str, FittedModel],
    newdata: Any,
    at: Any = None,
    *,
    level: float | None = 0.95,
) -> Figure:
    """Draw P(T <= t and the event is of this cause) with its band, a panel for each cause.

    Parameters
    ----------
    models : mapping of str to FittedModel
        Cause -> model of `Surv(time, cause == this)`, as of `cumulative_incidence`.
    newdata : table or dict
        A row per curve.
    at : array, (m,), optional
        Increasing times; up to the last one of the training rows by default.
    level : float or None
        Of the pointwise bands; None: no bands.
    """
    rows = pd.DataFrame(newdata)
    if not models:
        raise PredictionError("cumulative incidence needs a model per cause.")
    # a curve of one cause moves where others have events, too
    times = np.unique(np.concatenate([_times(model, at) for model in models.values()]))
    band = level if len(rows) <= len(COLOURS) else None
    found = cumulative_incidence(models, rows, times, interval=band)
    figure = Figure(figsize=(4.3 * len(found), 3.6), layout="constrained", dpi=120)
    axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    names = _names(rows)
    stepped = any(model.family.jumps is not None for model in models.values())
    for ax, (cause, table) in zip(axes, found.items(), strict=True):
        _dress(ax, cause)
        parts = [table.to_numpy()]
        if band is not None:
            columns = ("estimate", "lower", "upper")
            parts = [np.asarray(table.xs(each, axis=1, level=1)) for each in columns]
        for i, name in enumerate(names):
            colour = COLOURS[i % len(COLOURS)]
            own = [each[i] for each in parts]
            t, curves = _drawn(times, own, "cumhazard", stepped=stepped)
            if band is not None:
                ax.fill_between(t, curves[1], curves[2], color=colour, alpha=0.16, lw=0)
            ax.plot(t, curves[0], color=colour, lw=1.6, label=name)
    # the axes share their height: its limits are set when all curves are drawn
    for ax in axes:
        _finish(ax, "cumhazard")
    axes[0].set_ylabel("cumulative incidence", fontsize=8)
    if len(rows) > 1:
        axes[0].legend(fontsize=7.5, frameon=False)
    return figure


def plot_calibration(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw predicted against observed survival in groups of predictions, with limits.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Name of a model -> its table by `survival_metrics.calibration`.
    """
    figure, ax = _axes("Calibration", "Kaplan-Meier estimate", size=(4.6, 4.4))
    ax.plot([0.0, 1.0], [0.0, 1.0], color=ACCENT, lw=1.0, zorder=0)
    for i, (name, table) in enumerate(tables.items()):
        x, value = table["predicted"].to_numpy(), table["observed"].to_numpy()
        bars = np.abs(table[["lower", "upper"]].to_numpy() - value[:, None]).T
        ax.errorbar(x, value, yerr=bars, fmt="o-", ms=4, lw=0.9,
                    color=COLOURS[i % len(COLOURS)], label=name)  # fmt: skip
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("predicted survival, groups of equal size", fontsize=8)
    if len(tables) > 1:
        ax.legend(fontsize=7.5, frameon=False)
    return figure


def _times(model: FittedModel, at: Any) -> Vector:
    """The times given, or a grid from the first event to the last time of the training rows.

    Before the first event the log of a smooth cumulative hazard is known by extrapolation only.

    Raises
    ------
    PredictionError
        They are not positive and increasing.
    """
    if at is not None:
        times = np.asarray(at, dtype=float)
        if times.ndim != 1 or len(times) < 2 or np.any(np.diff(times) <= 0.0) or times[0] < 0.0:
            raise PredictionError("at= needs two or more increasing times that are not negative.")
        return times
    _, response = model._training()
    known = np.concatenate([response.lower, response.upper])
    last = float(known[np.isfinite(known)].max())
    jumps = model.family.jumps
    if jumps is not None:
        return np.unique([*jumps[jumps > 0.0], last])
    exact = response.lower[response.lower == response.upper]
    first = float(exact[exact > 0.0].min(initial=last))
    return np.linspace(first if first < last else last / POINTS, last, POINTS)


def _names(rows: pd.DataFrame) -> list[str]:
    """Rows by the covariates in which they differ."""
    varying = [name for name in rows if rows[name].astype(str).nunique() > 1]

    def shown(value: object) -> str:
        return f"{value:g}" if isinstance(value, float | np.floating) else str(value)

    values = rows[varying].to_dict("records")
    return [", ".join(f"{name} = {shown(each[name])}" for name in varying) for each in values]


def _drawn(
    times: Vector, curves: Sequence[Vector], which: str, *, stepped: bool
) -> tuple[Vector, list[Vector]]:
    """Points of curves that begin at 0 where that is known, and jump where they do."""
    if which != "hazard" and times[0] > 0.0:
        start = 1.0 if which == "survival" else 0.0
        times = np.concatenate([[0.0], times])
        curves = [np.concatenate([[start], each]) for each in curves]
    if not stepped:
        return times, list(curves)
    return np.repeat(times, STEPS)[1:], [np.repeat(each, STEPS)[:-1] for each in curves]


def _axes(
    title: str, ylabel: str, *, size: tuple[float, float] = (5.6, 3.9)
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    ax = figure.add_subplot()
    titles = {"survival": "Survival", "cumhazard": "Cumulative hazard", "hazard": "Hazard"}
    _dress(ax, titles.get(title, title))
    ax.set_ylabel(ylabel, fontsize=8)
    return figure, ax


def _dress(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=9.5, loc="left", color=INK)
    ax.tick_params(labelsize=7.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _finish(ax: Axes, which: str) -> None:
    """Limits and the label of time."""
    ax.set_xlabel("time", fontsize=8)
    ax.set_xlim(left=0.0)
    if which == "survival":
        ax.set_ylim(-0.02, 1.02)
    else:
        ax.set_ylim(bottom=0.0)
