"""How well predictions of survival fit right censored responses of other rows (METHODS 8).

    Harrell's C   P(risk_i > risk_j | T_i < T_j) over the pairs whose order is known
    Uno's C       the same up to tau, each pair weighted with 1 / G(T_i)^2
    Brier(t)      mean of S(t)^2 [T <= t, event] / G(T-) + (1 - S(t))^2 [T > t] / G(t)
    AUC(t)        P(risk_i > risk_j | T_i <= t < T_j), cases weighted with 1 / G(T_i)
    calibration   mean predicted survival and Kaplan-Meier estimate in groups of predictions

G is the Kaplan-Meier estimate of the distribution of the censoring times, by default that of the
rows themselves. Pairs are counted by merging sorted blocks, in O(n log^2 n) without n x n arrays.

References: Harrell, Lee & Mark (1996), doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>;
Uno et al. (2011), doi:10.1002/sim.4154; Graf et al. (1999),
doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>; Uno et al. (2007),
doi:10.1198/016214507000000149.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import DataError
from deepregress.linalg import Array, Vector

HALF_WIDTH = 1.959963984540054
"""Of 95 % limits, in standard errors."""


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """A survival curve that falls at some times.

    Parameters
    ----------
    times : Vector, (K,)
        Increasing.
    survival : Vector, (K,)
        After each time.
    std_error : Vector, (K,)
        Greenwood's.
    """

    times: Vector
    survival: Vector
    std_error: Vector

    @classmethod
    def of(cls, time: Any, event: Any, *, last: bool = False) -> KaplanMeier:
        """The estimate from times (n_obs,) and whether an event ended them.

        Parameters
        ----------
        time, event : array, (n_obs,)
        last : bool
            Whether, of a tie, those without an event leave before the others; as the censoring
            distribution asks for.
        """
        y, d = _checked(time, event)
        times, place = np.unique(y, return_inverse=True)
        deaths = np.bincount(place, weights=d)
        left = np.bincount(place, weights=1.0 - d)
        at_risk = len(y) - np.concatenate([[0.0], np.cumsum(deaths + left)[:-1]])
        if last:
            at_risk = at_risk - left
        alive = np.where(at_risk > 0.0, at_risk, 1.0)
        survival = np.asarray(np.cumprod(1.0 - deaths / alive), dtype=np.float64)
        rest = np.where(alive > deaths, alive - deaths, np.inf)
        variance = survival**2 * np.cumsum(deaths / (alive * rest))
        return cls(times, survival, np.sqrt(variance))

    def at(self, t: Array) -> Vector:
        """S(t)."""
        return self._stepped(np.concatenate([[1.0], self.survival]), t, "right")

    def before(self, t: Array) -> Vector:
        """S(t-)."""
        return self._stepped(np.concatenate([[1.0], self.survival]), t, "left")

    def error_at(self, t: Array) -> Vector:
        """Standard error of S(t)."""
        return self._stepped(np.concatenate([[0.0], self.std_error]), t, "right")

    def _stepped(self, heights: Vector, t: Array, side: Any) -> Vector:
        return np.asarray(heights[np.searchsorted(self.times, np.asarray(t), side=side)])


def censoring_distribution(time: Any, event: Any) -> KaplanMeier:
    """Kaplan-Meier estimate of the censoring times, G, from times and events (n_obs,)."""
    y, d = _checked(time, event)
    return KaplanMeier.of(y, 1.0 - d, last=True)


def concordance(time: Any, event: Any, risk: Any) -> float:
    """Harrell's C: share of the pairs of known order in which the higher risk fails first.

    Parameters
    ----------
    time, event : array, (n_obs,)
        `event` is 1 or True where the time is that of an event, else censored.
    risk : array, (n_obs,)
        Larger for those expected to fail earlier, such as a log hazard. Equal risks count one half.

    Examples
    --------
    >>> concordance([1.0, 2.0, 3.0], [1, 1, 0], [0.5, 0.8, 0.1])
    0.6666666666666666
    """
    y, d = _checked(time, event)
    return _concordance(y, d, np.asarray(risk, dtype=float), d)


def uno_concordance(
    time: Any,
    event: Any,
    risk: Any,
    *,
    tau: float | None = None,
    censoring: KaplanMeier | None = None,
) -> float:
    """Uno's C, which does not depend on the censoring.

    Parameters
    ----------
    time, event, risk : array, (n_obs,)
        As for `concordance`.
    tau : float, optional
        Pairs whose first event is at tau or later do not count; by default all count.
    censoring : KaplanMeier, optional
        G, such as that of the training rows.
    """
    y, d = _checked(time, event)
    counted = d if tau is None else d * (y < tau)
    weights = counted * _inverse(censoring or censoring_distribution(y, d), y, counted) ** 2
    return _concordance(y, d, np.asarray(risk, dtype=float), weights)


def brier(
    time: Any, event: Any, survival: Any, at: Any, *, censoring: KaplanMeier | None = None
) -> Vector:
    """Brier scores at some times, weighted for censoring; (m,), smaller is better.

    Parameters
    ----------
    time, event : array, (n_obs,)
    survival : array, (n_obs, m)
        Predicted S(t), as of `predict(which="survival", at=at)`.
    at : array, (m,)
    censoring : KaplanMeier, optional
        G, such as that of the training rows.
    """
    y, d = _checked(time, event)
    t = np.atleast_1d(np.asarray(at, dtype=float))
    S = np.asarray(survival, dtype=float).reshape(len(y), len(t))
    G = censoring or censoring_distribution(y, d)
    case = _inverse(G, y, d)
    control = _inverse(G, np.nextafter(t, np.inf), np.ones(len(t)))
    died, lived = (y[:, None] <= t) & (d[:, None] > 0), y[:, None] > t
    score = S**2 * died * case[:, None] + (1.0 - S) ** 2 * lived * control
    return np.asarray(score.mean(axis=0))


def integrated_brier(
    time: Any, event: Any, survival: Any, at: Any, *, censoring: KaplanMeier | None = None
) -> float:
    """Mean of the Brier score between the first and the last time, by the trapezoidal rule."""
    t = np.asarray(at, dtype=float)
    if t.ndim != 1 or len(t) < 2 or np.any(np.diff(t) <= 0.0):
        raise DataError("the integrated Brier score needs two or more increasing times in at=")
    score = brier(time, event, survival, t, censoring=censoring)
    return float(np.sum(0.5 * (score[1:] + score[:-1]) * np.diff(t)) / (t[-1] - t[0]))


def auc(
    time: Any, event: Any, risk: Any, at: Any, *, censoring: KaplanMeier | None = None
) -> Vector:
    """Area under the cumulative and dynamic ROC curve at some times, (m,); NaN without pairs.

    Parameters
    ----------
    time, event : array, (n_obs,)
    risk : array, (n_obs,) or (n_obs, m)
        Larger for those expected to fail earlier; one for all times, or one for each.
    at : array, (m,)
    censoring : KaplanMeier, optional
        G, such as that of the training rows.
    """
    y, d = _checked(time, event)
    t = np.atleast_1d(np.asarray(at, dtype=float))
    risks = np.asarray(risk, dtype=float)
    risks = np.broadcast_to(risks[:, None] if risks.ndim == 1 else risks, (len(y), len(t)))
    weights = d * _inverse(censoring or censoring_distribution(y, d), y, d)
    found = np.full(len(t), np.nan)
    for j, end in enumerate(t):
        cases, controls = (y <= end) & (d > 0), np.sort(risks[y > end, j])
        if cases.any() and len(controls):
            below = np.searchsorted(controls, risks[cases, j], side="left")
            upto = np.searchsorted(controls, risks[cases, j], side="right")
            share = 0.5 * (below + upto) / len(controls)
            found[j] = np.average(share, weights=weights[cases])
    return found


def calibration(
    time: Any, event: Any, survival: Any, at: float, *, groups: int = 10
) -> pd.DataFrame:
    """Predicted survival beside the Kaplan-Meier estimate, in groups of equal size.

    Parameters
    ----------
    time, event : array, (n_obs,)
    survival : array, (n_obs,)
        Predicted S(at).
    at : float
    groups : int

    Returns
    -------
    DataFrame
        n, predicted, observed, lower, upper (95 % limits on the scale of log S) by group, from the
        lowest prediction to the highest.
    """
    y, d = _checked(time, event)
    S = np.asarray(survival, dtype=float)
    rows = []
    for own in np.array_split(np.argsort(S, kind="stable"), groups):
        curve = KaplanMeier.of(y[own], d[own])
        observed, error = float(curve.at(np.array(at))), float(curve.error_at(np.array(at)))
        factor = np.exp(HALF_WIDTH * error / observed) if observed > 0.0 else 1.0
        lower, upper = observed / factor, min(observed * factor, 1.0)
        rows.append((len(own), float(S[own].mean()), observed, lower, upper))
    return pd.DataFrame(rows, columns=["n", "predicted", "observed", "lower", "upper"])


def _checked(time: Any, event: Any) -> tuple[Vector, Vector]:
    """Times and events as numbers.

    Raises
    ------
    DataError
        They do not belong together.
    """
    y, d = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    if y.ndim != 1 or y.shape != d.shape or not np.isin(d, (0.0, 1.0)).all():
        raise DataError(
            f"time and event must be of one length, event 0 or 1; got shapes {y.shape}, {d.shape}"
        )
    return y, d


def _inverse(G: KaplanMeier, t: Vector, wanted: Vector) -> Vector:
    """1 / G(t-) where wanted, else 0.

    Raises
    ------
    DataError
        G is zero there: no row can have been seen so long.
    """
    height = np.where(wanted > 0, G.before(t), 1.0)
    if np.any(height <= 0.0):
        raise DataError(
            "the censoring distribution ends before the times asked for; use shorter ones"
        )
    return np.where(wanted > 0, 1.0 / height, 0.0)


def _concordance(y: Vector, d: Vector, risk: Vector, weights: Vector) -> float:
    """Weighted share of concordant pairs; `weights` (n_obs,) of the row that fails first."""
    # longest times first; of a tie the censored ones, then the events by falling risk
    order = np.lexsort((-risk, d, -y))
    y, d, risk, weights = y[order], d[order], risk[order], weights[order]
    smaller, equal = _earlier(risk)
    place = np.arange(len(y))
    tied = _run_start(y, d)
    # of the events at the same time, which have no order, the earlier ones have no smaller risk
    same = _run_start(y, d, risk)
    comparable = tied.astype(float)
    concordant = smaller + 0.5 * (equal - (place - same))
    used = d > 0
    total = float(weights[used] @ comparable[used])
    if total == 0.0:
        raise DataError("no two rows have a known order of their events")
    return float(weights[used] @ concordant[used]) / total


def _run_start(*columns: Vector) -> Array:
    """For each place the first of the run of equal values that it is in."""
    new = np.ones(len(columns[0]), dtype=bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.asarray(np.maximum.accumulate(np.where(new, np.arange(len(new)), 0)))


def _earlier(values: Vector) -> tuple[Vector, Vector]:
    """Number of earlier values that are smaller, and that are equal; each (n,)."""
    n = len(values)
    rank = np.unique(values, return_inverse=True)[1]
    smaller, upto = np.zeros(n), np.zeros(n)
    place, size = np.arange(n), 1
    while size < n:
        # of each pair of blocks the left one lies before the right one
        pair, left = place // (2 * size), (place // size) % 2 == 0
        for total, first in ((smaller, ~left), (upto, left)):
            # at equal values the right block comes first, or the left one
            order = np.lexsort((~first, rank, pair))
            counted = np.cumsum(left[order])
            start = np.searchsorted(pair[order], pair[order])
            before = counted - left[order] - (counted[start] - left[order][start])
            total[order] += np.where(left[order], 0, before)
        size *= 2
    return smaller, upto - smaller
