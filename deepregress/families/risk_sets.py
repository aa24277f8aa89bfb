"""Risk sets of a partial likelihood: sums over who is at risk, by cumulative sums (METHODS 8).

    l = sum_i w_i d_i eta_i - sum_m c_m log Z_m,    Z_m = sum_(i at risk) w_i r_i - f_m D_m,

r = exp(eta), one m for each event: of the d tied at its time the j-th has f = j / d (Efron; 0 by
Breslow), c their mean weight, D their sum of w r. Row i is at risk at T where entry_i < T <= y_i,
in its stratum. With A_m the mean of x in Z_m, Lambda_i = sum of c / Z over the times at risk and
E_i = w_i r_i (Lambda_i - d_i sum_(m tied) f_m c_m / Z_m), which is the expected number of events,

    dl / deta_i = w_i d_i - E_i,    H = X' diag(E) X - sum_m c_m A_m A_m'
    tr(V dH / dcoef) = X' (E q) - sum_m c_m (E_m[q] A_m + 2 E_m[x x'] V A_m - 2 (A_m' V A_m) A_m),

q_i = x_i' V x_i, all O(n p) once the rows are sorted, and O(n p^2) for H.

References: Efron (1977), doi:10.1080/01621459.1977.10480613; Breslow (1974), doi:10.2307/2529620;
Therneau & Grambsch (2000), Modeling Survival Data, section 3.3 (entry, ties, weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deepregress.linalg import Array, Matrix, Vector

TIES = ("efron", "breslow")


@dataclass(frozen=True, eq=False)
class RiskSets:
    """Who is at risk at each distinct time of an event, in each stratum.

    Parameters
    ----------
    order, entry_order : array of int, (n_obs,)
        Rows by stratum and falling time, or falling entry.
    first : array of int, (K,)
        Place in both orders at which the stratum of each time begins.
    stop, entry_stop : array of int, (K,)
        Place at which those with y >= T, or entry >= T, end.
    rank, entry_rank : array of int, (n_obs,)
        Number of times up to y, and up to entry, among all times; the strata one after the other.
    events : array of int, (M,)
        Rows with an event, by time.
    of_event : array of int, (M,)
        The time of each event.
    share : Vector, (M,)
        f.
    strata, times : Vector, (K,)
    weights : Vector, (n_obs,)
    """

    order: Array
    entry_order: Array | None
    first: Array
    stop: Array
    entry_stop: Array | None
    rank: Array
    entry_rank: Array
    events: Array
    of_event: Array
    share: Vector
    strata: Vector
    times: Vector
    weights: Vector

    @classmethod
    def of(
        cls,
        y: Vector,
        event: Array,
        *,
        entry: Vector | None,
        strata: Vector,
        weights: Vector,
        ties: str,
    ) -> RiskSets:
        """Sort the rows; `event` (n_obs,) of bool."""
        codes = np.unique(strata, return_inverse=True)[1]
        order = np.lexsort((-y, codes))
        events = np.flatnonzero(event)
        events = events[np.lexsort((y[events], codes[events]))]
        pairs = np.stack([codes[events].astype(float), y[events]], axis=1)
        distinct, of_event, count = np.unique(
            pairs, axis=0, return_inverse=True, return_counts=True
        )
        of_event = of_event.ravel()
        group, times = distinct[:, 0].astype(int), distinct[:, 1]
        starts = np.searchsorted(codes[order], np.arange(codes.max() + 2))
        begin = np.searchsorted(group, np.arange(codes.max() + 2))
        rank, entry_rank = np.empty(len(y), int), np.empty(len(y), int)
        stop, entry_stop = np.empty(len(times), int), np.empty(len(times), int)
        entry_order = None if entry is None else np.lexsort((-entry, codes))
        for s in range(codes.max() + 1):
            rows, own = order[starts[s] : starts[s + 1]], slice(begin[s], begin[s + 1])
            stop[own] = starts[s] + np.searchsorted(-y[rows], -times[own], side="right")
            rank[rows] = begin[s] + np.searchsorted(times[own], y[rows], side="right")
            entry_rank[rows] = begin[s]
            if entry is not None and entry_order is not None:
                rows = entry_order[starts[s] : starts[s + 1]]
                entry_stop[own] = starts[s] + np.searchsorted(
                    -entry[rows], -times[own], side="right"
                )
                entry_rank[rows] += np.searchsorted(times[own], entry[rows], side="right")
        place = np.arange(len(events)) - np.searchsorted(of_event, of_event)
        share = place / count[of_event] if ties == "efron" else np.zeros(len(events))
        return cls(
            order,
            entry_order,
            starts[group],
            stop,
            None if entry is None else entry_stop,
            rank,
            entry_rank,
            events,
            of_event,
            share,
            np.unique(strata)[group],
            times,
            weights,
        )

    def at(self, eta: Vector) -> AtRisk:
        """The sums at predictors eta (n_obs,)."""
        return AtRisk(self, eta)

    def over_risk_sets(self, x: Array) -> Array:
        """Sums of x (n_obs, ...) over those at risk at each time, (K, ...)."""
        total = _cumulated(x[self.order])
        sums = total[self.stop] - total[self.first]
        if self.entry_order is not None:
            left = _cumulated(x[self.entry_order])
            sums -= left[self.entry_stop] - left[self.first]
        return sums

    def over_events(self, x: Array) -> Array:
        """Sums of x (M, ...) over the events of each time, (K, ...)."""
        starts = np.searchsorted(self.of_event, np.arange(len(self.times)))
        return np.asarray(np.add.reduceat(x, starts, axis=0))

    def over_times(self, x: Array) -> Array:
        """Sums of x (K, ...) over the times at which each row is at risk, (n_obs, ...)."""
        total = _cumulated(x)
        return np.asarray(total[self.rank] - total[self.entry_rank])


@dataclass(frozen=True, eq=False)
class AtRisk:
    """The partial likelihood at predictors (n_obs,); see the module for the letters."""

    sets: RiskSets
    eta: Vector

    @cached_property
    def size(self) -> Vector:
        """w r of each row, over exp of the largest eta; (n_obs,)."""
        return np.asarray(self.sets.weights * np.exp(self.eta - self.eta.max()))

    @cached_property
    def c(self) -> Vector:
        """Mean weight of the events tied with each event, (M,)."""
        sets = self.sets
        weights = sets.weights[sets.events]
        count = np.bincount(sets.of_event)
        return np.asarray((sets.over_events(weights) / count)[sets.of_event])

    def per_event(self, x: Array) -> Array:
        """Sums of w r x (n_obs, ...) over the risk set of each event, less f of its ties."""
        sets = self.sets
        weighted = (self.size * x.T).T
        tied = sets.over_events(weighted[sets.events])[sets.of_event]
        return np.asarray(sets.over_risk_sets(weighted)[sets.of_event] - (sets.share * tied.T).T)

    def per_row(self, x: Array) -> Array:
        """Sums of x (M, ...) over the events each row is at risk of, less f of its own ties."""
        sets = self.sets
        sums = sets.over_times(sets.over_events(x))
        own = sets.over_events((sets.share * x.T).T)
        sums[sets.events] -= own[sets.of_event]
        return sums

    @cached_property
    def Z(self) -> Vector:
        """(M,), over exp of the largest eta."""
        return self.per_event(np.ones(len(self.eta)))

    @cached_property
    def rate(self) -> Vector:
        """c / Z, (M,), times exp of the largest eta."""
        return np.asarray(self.c / self.Z)

    @property
    def value(self) -> float:
        """l, natural log."""
        rows = self.sets.events
        weighted = float(self.sets.weights[rows] @ self.eta[rows])
        return weighted - float(self.c @ (np.log(self.Z) + self.eta.max()))

    @cached_property
    def expected(self) -> Vector:
        """E, (n_obs,)."""
        return np.asarray(self.size * self.per_row(self.rate))

    @property
    def gradient(self) -> Vector:
        """dl / deta, (n_obs,)."""
        g = -self.expected
        g[self.sets.events] += self.sets.weights[self.sets.events]
        return g

    @property
    def increments(self) -> Vector:
        """Jumps of the cumulative baseline hazard at the times, (K,)."""
        return np.asarray(self.sets.over_events(self.rate) * np.exp(-self.eta.max()))

    @property
    def increment_variances(self) -> Vector:
        """Of the jumps given the coefficients, sum of c / Z^2 of each time; (K,)."""
        squared = self.sets.over_events(self.rate / self.Z)
        return np.asarray(squared * np.exp(-2.0 * self.eta.max()))

    def increment_slopes(self, X: Matrix) -> Matrix:
        """By how much the jumps fall where a coefficient rises, sum of c A / Z; (K, p)."""
        sums = self.sets.over_events(self.rate[:, None] * self.means(X))
        return np.asarray(sums * np.exp(-self.eta.max()))

    def means(self, X: Matrix) -> Matrix:
        """A, (M, p)."""
        return np.asarray(self.per_event(X) / self.Z[:, None])

    def information(self, X: Matrix, factor: Vector | None = None) -> Matrix:
        """H, (p, p), or what it is where each event counts `factor` (M,) times."""
        A, c, expected = self.means(X), self.c, self.expected
        if factor is not None:
            c, expected = c * factor, self.size * self.per_row(self.rate * factor)
        return np.asarray(X.T @ (expected[:, None] * X) - A.T @ (c[:, None] * A))

    def information_slope(self, X: Matrix, V: Matrix) -> Vector:
        """tr(V dH / dcoef_j), (p,)."""
        A, q = self.means(X), np.einsum("ij,ij->i", X @ V, X)
        AV = A @ V
        mean_q = self.per_event(q) / self.Z
        spread = np.einsum("mj,mj->m", AV, A)
        passed = self.per_row(self.rate[:, None] * AV)
        product = X.T @ (self.size * np.einsum("ij,ij->i", X, passed))
        return np.asarray(
            X.T @ (self.expected * q) - A.T @ (self.c * (mean_q - 2.0 * spread)) - 2.0 * product
        )


def _cumulated(x: Array) -> Array:
    """0, x_1, x_1 + x_2, ... along the rows."""
    return np.concatenate([np.zeros((1, *x.shape[1:])), np.cumsum(x, axis=0)])
