"""Errors of curves by the partial likelihood: S, H, quantiles, restricted means (METHODS 8).

    H = Lambda(t) exp(x'b),   var(log H) = v(t) / Lambda^2 + (x - a(t))' V (x - a(t))

with v, a of module `families.baseline`, as R's survfit. Limits of S and H are symmetric in log H;
those of a quantile are the times at which the limits of S pass it. The restricted mean is
sum_k w_k S_k over the panels between jumps, a function of b and the jumps of Lambda:

    d/db = -sum_k w_k S_k H_k (x - a_k),   d/dLambda_j = -exp(x'b) sum_(k >= j) w_k S_k

References: Tsiatis (1981), doi:10.1214/aos/1176345335; Link (1984), doi:10.2307/2531384;
Zucker (1998), doi:10.2307/2670120 (restricted means).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.errors import PredictionError
from deepregress.families.baseline import ROUNDING, Baseline
from deepregress.inference.delta import limits_of, tabulated
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Labels, Predictors, chunks
from deepregress.quantities import Error, at_values


@dataclass(frozen=True, eq=False)
class Curves:
    """Cumulative hazards of rows and their covariance.

    Parameters
    ----------
    baseline : Baseline
    ratio, stratum : Vector, (n_obs,)
        exp(x'b) and the code of the stratum.
    P, Q : Matrix, (n_obs, r) and (K, r)
        X L and the baseline's slope times L, L L' = V.
    further : Vector, (n_obs,)
        Variance of x'b beside x'V x: of effects of levels that training did not see.
    """

    baseline: Baseline = field(repr=False)
    ratio: Vector
    stratum: Vector
    P: Matrix
    Q: Matrix
    further: Vector

    @classmethod
    def of(
        cls, predictors: Predictors, baseline: Baseline, frame: Frame, excluded: Labels, eta: Matrix
    ) -> Curves:
        """Of the rows of a frame with predictors (n_obs, 2)."""
        unit = predictors.units[0]
        own = frozenset(label for name, label in excluded if name == unit.parameter)
        values, vectors = np.linalg.eigh(predictors.estimate.block(unit.index))
        L = vectors * np.sqrt(np.maximum(values, 0.0))
        P, further = np.empty((frame.n_obs, L.shape[1])), np.empty(frame.n_obs)
        for rows, part in chunks(frame):
            pieces = unit.rows(part, own)
            P[rows] = predictors.gradient(unit, pieces).toarray() @ L
            further[rows] = pieces.new_level_variance
        return cls(baseline, np.exp(eta[:, 0]), eta[:, 1], P, baseline.slope @ L, further)

    def log_hazard_error(self, at: Matrix) -> Matrix:
        """Standard errors of log H at times (n_obs, m); 0 before the first jump."""
        error = np.zeros(at.shape)
        for j in range(at.shape[1]):
            place = self.baseline.place(at[:, j], self.stratum)
            seen = place >= 0
            own, height = place[seen], self.baseline.cumulative[place[seen]]
            apart = self.P[seen] - self.Q[own] / height[:, None]
            variance = self.baseline.variance[own] / height**2
            error[seen, j] = variance + np.sum(apart**2, axis=1) + self.further[seen]
        return np.sqrt(error)

    def restricted_mean_error(self, tau: Vector) -> Vector:
        """Standard errors of E min(Y, tau), (n_obs,)."""
        variance, baseline = np.empty(len(tau)), self.baseline
        for jumps, own in baseline.blocks(self.stratum):
            ratio = self.ratio[own]
            areas = baseline.panels(jumps, ratio, tau[own])[:, 1:]
            risen = ratio * (areas @ baseline.cumulative[jumps])
            slope = risen[:, None] * self.P[own] - ratio[:, None] * (areas @ self.Q[jumps])
            later = np.cumsum(areas[:, ::-1], axis=1)[:, ::-1]
            jumping = ratio**2 * (later**2 @ np.diff(baseline.variance[jumps], prepend=0.0))
            variance[own] = np.sum(slope**2, axis=1) + risen**2 * self.further[own] + jumping
        return np.sqrt(variance)

    def crossings(self, height: Vector, width: float) -> tuple[Vector, Vector]:
        """Times at which the upper and the lower limit of H reach a height, each (n_obs,)."""
        first, last = np.full((2, len(height)), np.inf)
        for jumps, own in self.baseline.blocks(self.stratum):
            H = self.baseline.cumulative[jumps]
            A, times = self.Q[jumps] / H[:, None], np.append(self.baseline.times[jumps], np.inf)
            square = np.sum(self.P[own] ** 2, axis=1) + self.further[own]
            variance = square[:, None] - 2.0 * self.P[own] @ A.T + np.sum(A**2, axis=1)
            variance += self.baseline.variance[jumps] / H**2
            factor = np.exp(width * np.sqrt(np.maximum(variance, 0.0)))
            wanted = height[own, None] / (1.0 + ROUNDING)
            H = self.ratio[own, None] * H
            for found, limit in ((first, H * factor), (last, H / factor)):
                reached = limit >= wanted
                place = np.where(reached.any(axis=1), reached.argmax(axis=1), len(jumps))
                found[own] = times[place]
        return first, last


def with_error(
    predictors: Predictors,
    rows: tuple[Frame, Labels, Matrix],
    which: str,
    *,
    at: Array,
    error: Error,
) -> pd.DataFrame:
    """Quantities of a partial likelihood with standard errors and limits.

    Parameters
    ----------
    predictors : Predictors
        Of a family with a baseline.
    rows : tuple
        The rows, excluded terms, and predictors (n_obs, 2).
    which : {"quantile", "median", "cdf", "survival", "cumhazard", "rmst"}
    at : array
        A number, (m,) for each row, or (n_obs, m).
    error : Error

    Raises
    ------
    PredictionError
        The standard error of a quantile, or anything of a hazard, of a step function.
    """
    frame, excluded, eta = rows
    family = predictors.family
    kind = "quantile" if which == "median" else which
    if kind == "quantile" and error.se:
        raise PredictionError(
            f"predict(which={which!r}): quantiles of a step function have limits, interval=0.95, "
            "but no standard error; family='cox' has both"
        )
    estimates = at_values(family, kind, eta, at)
    shape = (len(eta), estimates.size // max(len(eta), 1))
    values = np.broadcast_to(np.asarray(at, dtype=float), estimates.shape).reshape(shape)
    curves = Curves.of(predictors, family.known_baseline, frame, excluded, eta)
    if kind == "quantile":
        se = np.full(estimates.shape, np.nan)
        width = float(error.width(np.ones(1))[0])
        with np.errstate(divide="ignore"):
            ends = [curves.crossings(-np.log1p(-p), width) for p in values.T]
        lower, upper = (np.stack(each, axis=1) for each in zip(*ends, strict=True))
        limits = lower.reshape(estimates.shape), upper.reshape(estimates.shape)
        return tabulated(at, estimates, se, limits, error)
    if kind == "rmst":
        found = np.stack([curves.restricted_mean_error(tau) for tau in values.T], axis=1)
        se = found.reshape(estimates.shape)
    else:
        H = at_values(family, "cumhazard", eta, at)
        slope = H if kind == "cumhazard" else H * np.exp(-H)
        se = slope * curves.log_hazard_error(values).reshape(estimates.shape)
    return tabulated(at, estimates, se, limits_of(family, kind, estimates, se, error), error)
