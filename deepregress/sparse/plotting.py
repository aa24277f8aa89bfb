"""The pictures of a path of lam, as glmnet draws them.

Left, each standardised coefficient against log(lam), with the degrees of freedom along the top;
right, the criterion: bic and ebic, or the loss of held-out rows with one standard error on either
side, dotted lines at its least value and at the largest lam within one standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepregress.linalg import Matrix, Vector

INK, BAND, ACCENT = "#1f3b57", "#9db8d2", "#b5482a"
NAMED = 10
"""So many of the largest coefficients have their names beside the path."""
TICKS = 6


@dataclass(frozen=True, eq=False)
class Curves:
    """What is drawn.

    Parameters
    ----------
    lam : Vector, (n_lam,)
        Descending.
    coef : Matrix, (n_lam, n_sparse)
        Standardised.
    names : sequence of str
    edf : Vector, (n_lam,)
    criteria : dict of str to Vector
        bic and ebic.
    loss, loss_se : Vector or None
    chosen : dict of str to float
        Criterion -> its lam.
    """

    lam: Vector
    coef: Matrix
    names: Sequence[str]
    edf: Vector
    criteria: dict[str, Vector]
    loss: Vector | None
    loss_se: Vector | None
    chosen: dict[str, float]


def path_figure(curves: Curves) -> Figure:
    """Coefficients and criterion side by side."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    _coefficients(left, curves)
    if curves.loss is None or curves.loss_se is None:
        _criteria(right, curves)
    else:
        _loss(right, curves, curves.loss, curves.loss_se)
    for ax in (left, right):
        ax.set_xlabel("log(lam)", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines["right"].set_visible(False)
        _degrees(ax, curves)
    return figure


def _coefficients(ax: Axes, curves: Curves) -> None:
    x = np.log(curves.lam)
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.9, max(curves.coef.shape[1], 1)))
    for j in np.flatnonzero(np.any(curves.coef != 0, axis=0)):
        ax.plot(x, curves.coef[:, j], lw=0.9, color=colours[j])
    ax.axhline(0.0, color="0.5", lw=0.6)
    last = curves.coef[-1]
    order = np.argsort(-np.abs(last))[:NAMED]
    for j in order[last[order] != 0]:
        ax.annotate(
            curves.names[j],
            (x[-1], last[j]),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=6.5,
            color=colours[j],
        )
    ax.set_xlim(x[-1] - 0.22 * (x[0] - x[-1]), x[0])
    ax.set_ylabel("coefficients (columns of sd 1)", fontsize=8)


def _criteria(ax: Axes, curves: Curves) -> None:
    for (name, values), colour in zip(curves.criteria.items(), (INK, ACCENT), strict=True):
        finite = np.isfinite(values)
        ax.plot(np.log(curves.lam[finite]), values[finite], lw=1.2, color=colour, label=name)
        if name in curves.chosen:
            ax.axvline(np.log(curves.chosen[name]), color=colour, lw=0.8, ls=":")
    ax.legend(fontsize=8, frameon=False)
    ax.set_ylabel("criterion", fontsize=8)


def _loss(ax: Axes, curves: Curves, loss: Vector, se: Vector) -> None:
    x = np.log(curves.lam)
    ax.errorbar(x, loss, yerr=se, fmt="o", ms=2.2, lw=0.6, color=ACCENT, ecolor=BAND, capsize=1.5)
    for name in ("cv", "cv1se"):
        if name in curves.chosen:
            ax.axvline(np.log(curves.chosen[name]), color="0.3", lw=0.8, ls=":")
    ax.set_ylabel("loss of held-out rows", fontsize=8)


def _degrees(ax: Axes, curves: Curves) -> None:
    """Degrees of freedom along the top."""
    top = ax.secondary_xaxis("top")
    places = np.linspace(0, len(curves.lam) - 1, min(TICKS, len(curves.lam))).round().astype(int)
    top.set_xticks(np.log(curves.lam[places]), [f"{curves.edf[i]:.3g}" for i in places])
    top.tick_params(labelsize=7, length=2)
    top.set_xlabel("degrees of freedom", fontsize=7)
