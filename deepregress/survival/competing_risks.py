"""Competing risks by cause-specific models: cumulative incidence with its error (METHODS 8).

Each cause has a model of its own, in which the events of the others are censored. With their
cumulative hazards H_k(t | x), S = exp(-sum_k H_k), and rises d_kp of H_k in panels p = (a, b] of
time, d_p = sum_k d_kp,

    F_k(t | x) = integral of S dH_k = sum over panels up to t of S(a) phi(d_p) d_kp,
    phi(d) = (1 - exp(-d)) / d,

where the share of a cause in the hazard is taken as constant inside a panel. Panels end at the
times at which a baseline jumps, else they are short.

The models share no parameter and their likelihood is a product, so that their estimates are
independent: var F_k(t) = sum_j var_j by the delta method, from the errors of the rises of cause j,

    dF_k(t) / dd_jq = A_q - F_k(t),
    A_q = S(a) (phi(d_q) [j = k] + phi'(d_q) d_kq) + F_k(end of q),          q up to t.

References: Putter, Fiocco & Geskus (2007), doi:10.1002/sim.2712, section 3.3; Cheng, Fine & Wei
(1998), doi:10.2307/2534009 (errors and limits of predicted incidence); Aalen & Johansen (1978).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import PredictionError
from deepregress.families.base import Family
from deepregress.families.standard import MINIMUM
from deepregress.fitted import FittedModel
from deepregress.inference.delta import latent_limits, tabulated
from deepregress.linalg import Array, Matrix, Vector
from deepregress.quantities import Error, at_values, check_level, gradient
from deepregress.survival.baseline_errors import Curves

PANELS = 400
"""Panels of a smooth hazard up to the last time asked for."""
SERIES = 1e-3
"""Rise of a hazard below which phi' is its series."""
AT_ONCE = 2**22
"""Rows times panels times directions of a model's error in one array."""


def cumulative_incidence(
    models: Mapping[str, FittedModel],
    newdata: Any,
    at: Any,
    *,
    se: bool = False,
    interval: float | None = None,
) -> dict[str, pd.DataFrame]:
    """P(T <= t and the event is of this cause), of each cause, row and time.

    Parameters
    ----------
    models : mapping of str to FittedModel
        Cause -> model of `Surv(time, cause == this)`.
    newdata : table or dict
    at : array, (m,)
        Times, positive.
    se : bool
        Add standard errors.
    interval : float, optional
        Add pointwise confidence limits of this level, symmetric in log(-log(1 - F_k)).

    Returns
    -------
    dict of str to DataFrame
        Cause -> probabilities, (n_obs, m), with the times as columns; with `se` or `interval`
        columns estimate, se, lower, upper below each time, as of `predict`.

    Raises
    ------
    PredictionError
        There is no model, a time is not positive, or a level not between 0 and 1.

    Examples
    --------
    >>> import deepregress as dr
    >>> rng = np.random.default_rng(1)
    >>> time, relapse = rng.exponential(size=300), 1.0 * (rng.random(300) < 0.7)
    >>> data = {"time": time, "relapse": relapse, "death": 1.0 - relapse}
    >>> causes = ("relapse", "death")
    >>> models = {k: dr.fit(f"Surv(time, {k}) ~ 1", data, "exponential") for k in causes}
    >>> dr.cumulative_incidence(models, {"time": [1.0]}, [50.0])["relapse"].round(2)
       50.0
    0   0.7
    >>> with_error = dr.cumulative_incidence(models, {"time": [1.0]}, [50.0], se=True)
    >>> float(with_error["relapse"]["50", "se"].iloc[0].round(3))
    0.026
    """
    times = np.atleast_1d(np.asarray(at, dtype=float))
    if not models or np.any(times <= 0.0) or not np.isfinite(times).all():
        raise PredictionError("cumulative incidence needs a model per cause and positive times at=")
    check_level(interval, "interval")
    grid = _ends(models, times)
    hazards = {k: model.predict(newdata, which="cumhazard", at=grid) for k, model in models.items()}
    panels = _Panels.of(hazards, np.searchsorted(grid, times))
    estimates = {k: panels.incidence(k)[:, panels.place] for k in models}
    error = Error(se, interval)
    if not error.wanted:
        return {k: pd.DataFrame(F, columns=times) for k, F in estimates.items()}
    variance = _variances(models, newdata, grid, panels)
    tables = {}
    for k, F in estimates.items():
        own = np.sqrt(variance[k])
        limits = latent_limits(MINIMUM, "cdf", F, error.width(own))
        tables[k] = tabulated(times, F, own, limits, error)
    return tables


def _ends(models: Mapping[str, FittedModel], times: Vector) -> Vector:
    """Ends of the panels: the times asked for, and jumps or a fine grid."""
    last = float(times.max())
    ends = [times]
    for model in models.values():
        jumps = model.family.jumps
        if jumps is None:
            ends.append(last * np.linspace(0.0, 1.0, PANELS + 1)[1:] ** 2)
        else:
            ends.append(jumps[jumps <= last])
    return np.unique(np.concatenate(ends))


@dataclass(frozen=True, eq=False)
class _Panels:
    """Rises of the cumulative hazards in panels of time.

    Parameters
    ----------
    rises : dict of str to Matrix, (n_obs, G)
        d_k of each cause.
    total, before : Matrix, (n_obs, G)
        d and S(a).
    place : array of int, (m,)
        Panels that end at the times asked for.
    """

    rises: dict[str, Matrix] = field(repr=False)
    total: Matrix = field(repr=False)
    before: Matrix = field(repr=False)
    place: Array

    @classmethod
    def of(cls, hazards: Mapping[str, Matrix], place: Array) -> _Panels:
        """From cumulative hazards at the ends of the panels, each (n_obs, G)."""
        rises = {k: np.diff(H, axis=1, prepend=0.0) for k, H in hazards.items()}
        total = np.sum(list(rises.values()), axis=0)
        gone = np.cumsum(total, axis=1)[:, :-1]
        before = np.exp(-np.column_stack([np.zeros(len(total)), gone]))
        return cls(rises, total, before, place)

    def of_rows(self, rows: slice) -> _Panels:
        """The same of some rows."""
        rises = {k: d[rows] for k, d in self.rises.items()}
        return _Panels(rises, self.total[rows], self.before[rows], self.place)

    @property
    def phi(self) -> Matrix:
        """(1 - exp(-d)) / d, (n_obs, G)."""
        moves = self.total > 0.0
        d = np.where(moves, self.total, 1.0)
        return np.where(moves, -np.expm1(-d) / d, 1.0)

    @property
    def phi_slope(self) -> Matrix:
        """Its derivative in d, (n_obs, G)."""
        small = self.total < SERIES
        d = np.where(small, 1.0, self.total)
        series = -0.5 + self.total / 3.0 - self.total**2 / 8.0
        return np.where(small, series, (d * np.exp(-d) + np.expm1(-d)) / d**2)

    def incidence(self, cause: str) -> Matrix:
        """F_k at the ends of all panels, (n_obs, G)."""
        return np.cumsum(self.before * self.phi * self.rises[cause], axis=1)

    def slope(self, cause: str, other: str) -> Matrix:
        """A of F of one cause in the rises of this or another, (n_obs, G)."""
        own = self.phi if cause == other else 0.0
        moved = self.before * (own + self.phi_slope * self.rises[cause])
        return np.asarray(moved + self.incidence(cause))


# -- errors ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rises:
    """What is uncertain about the rises of one cause.

    Parameters
    ----------
    slope : Array, (n_obs, G, r)
        Derivatives in r independent standard normal numbers.
    jumps : Matrix, (n_obs, G)
        Variances of what is independent from panel to panel.
    """

    slope: Array
    jumps: Matrix

    def variance(self, A: Matrix, F: Matrix, place: Array) -> Matrix:
        """Variance of sum over q up to t of (A_q - F(t)) d_q at the ends of panels, (n_obs, m)."""

        def up_to(values: Array) -> Array:
            return np.asarray(np.cumsum(values, axis=1)[:, place])

        moved = up_to(A[..., None] * self.slope) - F[..., None] * up_to(self.slope)
        own = up_to(A**2 * self.jumps) - 2.0 * F * up_to(A * self.jumps) + F**2 * up_to(self.jumps)
        return np.asarray(np.sum(moved**2, axis=2) + np.maximum(own, 0.0))


def _variances(
    models: Mapping[str, FittedModel], newdata: Any, grid: Vector, panels: _Panels
) -> dict[str, Matrix]:
    """Of F_k at the times asked for, cause -> (n_obs, m)."""
    sources = {k: _source(model, newdata) for k, model in models.items()}
    n, place = len(panels.total), panels.place
    variances = {k: np.zeros((n, len(place))) for k in models}
    size = max(source.size for source in sources.values())
    step = max(1, AT_ONCE // (len(grid) * size))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        part = panels.of_rows(rows)
        for j, source in sources.items():
            rises = source.rises(rows, grid)
            for k in models:
                F = part.incidence(k)[:, place]
                variances[k][rows] += rises.variance(part.slope(k, j), F, place)
    return variances


def _source(model: FittedModel, newdata: Any) -> _Smooth | _Stepped:
    """The errors of the predictors of a model, or of its jumps and coefficients."""
    excluded = model._predictors.excluded(None)
    frame = model._rows(newdata, excluded)
    eta = model._eta(newdata, frame, excluded)
    if model.family.partial:
        baseline = model.family.known_baseline
        return _Stepped(Curves.of(model._predictors, baseline, frame, excluded, eta))
    values, vectors = np.linalg.eigh(model._predictors.eta_cov(frame, excluded))
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return _Smooth(model.family, eta, root)


@dataclass(frozen=True, eq=False)
class _Smooth:
    """A family, predictors (n_obs, U) and a root (n_obs, U, U) of their covariance."""

    family: Family
    eta: Matrix
    root: Array

    @property
    def size(self) -> int:
        """Directions of the error."""
        return int(self.root.shape[2])

    def rises(self, rows: slice, grid: Vector) -> _Rises:
        """Derivatives by central differences, at the ends of panels (G,)."""
        eta, root = self.eta[rows], self.root[rows]
        n, G = len(eta), len(grid)
        y = np.tile(grid, n)[:, None]
        slope = gradient(
            lambda moved: np.asarray(at_values(self.family, "cumhazard", moved, y)[:, 0]),
            np.repeat(eta, G, axis=0),
        )
        # what is known of a row stands after its predictors
        slope = slope[:, : root.shape[1]].reshape(n, G, root.shape[1]) @ root
        return _Rises(np.diff(slope, axis=1, prepend=0.0), np.zeros((n, G)))


@dataclass(frozen=True, eq=False)
class _Stepped:
    """Curves of a partial likelihood."""

    curves: Curves

    @property
    def size(self) -> int:
        """Directions of the error: coefficients, and effects of new levels."""
        return int(self.curves.P.shape[1]) + 1

    def rises(self, rows: slice, grid: Vector) -> _Rises:
        """H = Lambda exp(x'b) moves with b and with the jumps of Lambda, at ends of panels (G,)."""
        own, baseline = self.curves, self.curves.baseline
        ratio, P = own.ratio[rows, None], own.P[rows]
        n, G = len(P), len(grid)
        place = baseline.place(np.tile(grid, n), np.repeat(own.stratum[rows], G)).reshape(n, G) + 1

        def at(jumps: Array) -> Array:
            return np.asarray(np.concatenate([np.zeros((1, *jumps.shape[1:])), jumps])[place])

        H = ratio * at(baseline.cumulative)
        slope = H[..., None] * P[:, None, :] - ratio[..., None] * at(own.Q)
        new = H * np.sqrt(own.further[rows, None])
        slope = np.concatenate([slope, new[..., None]], axis=2)
        variance = ratio**2 * np.diff(at(baseline.variance), axis=1, prepend=0.0)
        return _Rises(np.diff(slope, axis=1, prepend=0.0), variance)
