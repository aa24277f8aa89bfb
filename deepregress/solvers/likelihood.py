"""The log-likelihood at coefficients, and cross products of a few of its columns (METHODS 6).

    l(b),   score dl/db,   H = X' W X over a working set of columns,   W_i = -d2 l_i / deta_i2

Cross products are kept as long as the curvature W of the predictors that move stays the same, along
a whole path for a normal response. There l is a quadratic, so one evaluation a serves all others,

    l(b) = l(a) + g'd - 1/2 d' W d,    dl/db = X' (g - W d),    d = X (b - a).

A partial likelihood has no curvature of rows; its H is that of its risk sets.

References: Friedman, Hastie & Tibshirani (2010), doi:10.18637/jss.v033.i01, section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse

from deepregress.bijectors import link
from deepregress.families.base import upper_pairs
from deepregress.families.continuous import Normal
from deepregress.families.risk_sets import AtRisk
from deepregress.linalg import Array, Factor, Matrix, Vector, submatrix
from deepregress.objective import Objective, positive_part

CHUNK_ROWS = 8192
"""Rows at a time; columns of no more rows than these are kept side by side."""
MOST_WHOLE = 600
"""Columns of which all cross products are made at once, where there are as many rows: with 1000 it
was no faster."""
SAME_CURVATURE = 1e-12
"""Largest relative change of a row's curvature for which cross products are kept."""

Curvature = Matrix | AtRisk
"""Weighted packed W of the rows, (n_obs, U (U + 1) / 2), or the sums over risk sets."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The log-likelihood at b (n_coef,), its gradient in all that moves, and its curvature."""

    b: Vector
    value: float
    score: Vector = field(repr=False)
    curvature: Curvature = field(repr=False)

    def slim(self) -> Likelihood:
        """Coefficients and value alone."""
        return replace(self, score=np.zeros(0), curvature=np.zeros((0, 0)))

    @property
    def is_slim(self) -> bool:
        """Whether nothing else is left."""
        return not len(self.score)


@dataclass(frozen=True, eq=False)
class Projection:
    """A quadratic model of sparse coefficients c, others projected out (module `sparse`).

    Parameters
    ----------
    curvature : Curvature
        Of H in P = H + S.
    S : csr_array
        Of the quadratic penalties.
    ridge : Vector, (m,)
        In the diagonal of P_cc.
    uu : Factor
        Of P_uu, of the coefficients without a sparse penalty.
    uc : Matrix, (n_free, m)
        P_uc.
    Q : Matrix, (m, m)
        P_cc - P_cu P_uu^-1 P_uc.
    """

    curvature: Curvature
    S: scipy.sparse.csr_array
    ridge: Vector
    uu: Factor
    uc: Matrix
    Q: Matrix


@dataclass(frozen=True, eq=False)
class _Anchor:
    """Where a quadratic was evaluated: g and w of the first predictor's rows, weighted."""

    likelihood: Likelihood
    g: Vector
    w: Vector

    def moved(self, objective: Objective, b: Vector) -> Likelihood:
        X, own = objective.units[0].X, objective.slices[0]
        d = X @ (b - self.likelihood.b)[own]
        value = self.likelihood.value + float(d @ (self.g - 0.5 * self.w * d))
        score = np.zeros_like(b)
        score[own] = X.T @ (self.g - self.w * d)
        return Likelihood(b, value, score, self.likelihood.curvature)


class Likelihoods:
    """Evaluates an objective whose coefficients `moving` move, and keeps what serves again.

    Parameters
    ----------
    objective : Objective
        Its columns as arrays.
    moving : Array of int
        Coefficients that may differ between evaluations without making them all anew.
    many : bool
        Whether many problems without quadratic penalties follow.

    Attributes
    ----------
    is_whole : bool
        Whether all columns are worth having cross products of: many problems, all with the same.
    projection : Projection or None
        Of all columns, kept there by the solver.
    """

    def __init__(self, objective: Objective, moving: Array, *, many: bool = False) -> None:
        self.objective = objective
        self.projection: Projection | None = None
        ends = np.cumsum([unit.n_coef for unit in objective.units])
        self._unit = np.searchsorted(ends, np.arange(objective.n_coef), side="right")
        self._start = np.array([index.start for index in objective.slices])
        self._still = np.setdiff1d(np.arange(objective.n_coef), moving)
        units = set(self._unit[moving].tolist())
        pairs = enumerate(upper_pairs(len(objective.units)))
        self._pairs = {p: pair for p, pair in pairs if units.issuperset(pair)}
        self._quadratic = units == {0} and is_least_squares(objective)
        few = len(moving) <= min(objective.n_obs, MOST_WHOLE)
        self.is_whole = many and few and self._quadratic
        self._anchor: _Anchor | None = None
        self._place = np.full(objective.n_coef, -1)
        self._columns = np.zeros(0, dtype=np.int64)
        self._W: Matrix | None = None
        self._H = np.zeros((0, 0))
        self._kept = np.zeros((0, objective.n_obs))

    # -- values ------------------------------------------------------------------------------------

    def at(self, b: Vector) -> Likelihood:
        """The log-likelihood at b (n_coef,); one pass over the data."""
        anchor = self._anchor
        if anchor is not None and np.array_equal(b[self._still], anchor.likelihood.b[self._still]):
            return anchor.moved(self.objective, b)
        objective, eta = self.objective, self.objective.eta(b)
        if objective.risk_sets is not None:
            sums = objective.risk_sets.at(eta[:, 0])
            score = objective.units[0].X.T @ sums.gradient
            return Likelihood(b, sums.value, score, sums)
        rowwise, g, W = objective.row_derivatives(eta)
        weights = objective.response.weights
        g, W = g * weights[:, None], W * weights[:, None]
        score = np.concatenate([unit.X.T @ g[:, u] for u, unit in enumerate(objective.units)])
        found = Likelihood(b, float(weights @ rowwise), score, W)
        if self._quadratic:
            self._anchor = _Anchor(found, g[:, 0].copy(), W[:, 0].copy())
        return found

    # -- cross products ----------------------------------------------------------------------------

    def convex_rows(self, curvature: Curvature) -> bool:
        """Whether no row has a negative curvature in any direction that is seen without work."""
        if isinstance(curvature, AtRisk):
            return True
        (first, *others) = self._pairs
        return not others and bool(curvature[:, first].min() >= 0.0)

    def products(self, columns: Array, curvature: Curvature) -> Matrix:
        """H over columns (m,) of the joint coefficient vector, (m, m)."""
        if isinstance(curvature, AtRisk):
            return curvature.information(self.objective.units[0].X[:, columns])
        if not self._same(curvature):
            self._place[:] = -1
            self._columns, self._W = np.zeros(0, dtype=np.int64), curvature
        added = columns[self._place[columns] < 0]
        if len(added):
            self._add(added, curvature)
        place = self._place[columns]
        return submatrix(self._H, place)

    def convex_products(self, columns: Array, curvature: Curvature) -> Matrix:
        """The same of rows whose negative curvature is raised to zero."""
        if isinstance(curvature, AtRisk):
            return self.products(columns, curvature)
        every = np.arange(self.objective.n_coef)
        return Likelihoods(self.objective, every).products(columns, positive_part(curvature))

    def _same(self, W: Matrix) -> bool:
        """Whether the curvature is that of the cross products that are kept."""
        if W is self._W or self._W is None:
            return W is self._W
        for p in self._pairs:
            largest = np.abs(W[:, p]).max()
            if np.abs(W[:, p] - self._W[:, p]).max() > SAME_CURVATURE * largest:
                return False
        return True

    def _add(self, added: Array, W: Matrix) -> None:
        n, every = len(self._columns), np.concatenate([self._columns, added])
        self._place[added] = np.arange(n, len(every))
        self._columns = every
        if len(W) <= CHUNK_ROWS:
            self._keep(added, n)
        new = np.zeros((len(every), len(added)))
        for start in range(0, len(W), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            new += self._product(n, rows, W[rows])
        self._grow(len(every))
        self._H[: len(every), n : len(every)], self._H[n : len(every), :n] = new, new[:n].T

    def _grow(self, size: int) -> None:
        """Room for the cross products of `size` columns; those that are there stay."""
        if size > len(self._H):
            room = min(2 * size, self.objective.n_coef)
            H = np.empty((room, room))
            H[: len(self._H), : len(self._H)] = self._H
            self._H = H

    def _keep(self, added: Array, n: int) -> None:
        """Store columns side by side, after the first n."""
        if n + len(added) > len(self._kept):
            kept = np.empty((2 * (n + len(added)), self.objective.n_obs))
            kept[:n] = self._kept[:n]
            self._kept = kept
        for u in np.unique(self._unit[added]).tolist():
            own = np.flatnonzero(self._unit[added] == u)
            self._kept[n + own] = self.objective.units[u].X[:, added[own] - self._start[u]].T

    def _product(self, n: int, rows: slice, W: Matrix) -> Matrix:
        """X_i' diag(W) X_j over some rows, i all columns that are kept, j those after the n-th."""
        unit = self._unit[self._columns]
        out = np.zeros((len(unit), len(unit) - n))
        for p, (k, m) in self._pairs.items():
            for one, other in {(k, m), (m, k)}:
                i = np.flatnonzero(unit == one)
                j = n + np.flatnonzero(unit[n:] == other)
                if k == m and len(i) == len(j) > 0 and W[:, p].min() >= 0.0:
                    # the same columns on both sides: BLAS makes half of the products
                    half = self._gather(j, rows) * np.sqrt(W[:, p])
                    out[np.ix_(i, j - n)] = half @ half.T
                elif len(i) and len(j):
                    weighted = self._gather(j, rows) * W[:, p]
                    out[np.ix_(i, j - n)] = self._gather(i, rows) @ weighted.T
        return out

    def _gather(self, places: Array, rows: slice) -> Matrix:
        """Some columns of one predictor by their places among those that are kept, (m, rows)."""
        if self.objective.n_obs <= CHUNK_ROWS:
            together = places[-1] - places[0] == len(places) - 1
            return self._kept[places[0] : places[-1] + 1] if together else self._kept[places]
        columns = self._columns[places]
        unit = int(self._unit[columns[0]])
        return np.asarray(self.objective.units[unit].X[rows][:, columns - self._start[unit]].T)


def is_least_squares(objective: Objective) -> bool:
    """Whether the log-likelihood is a quadratic in the first predictor."""
    family = objective.family
    identity = family.parameters[0].link is link("identity")
    return isinstance(family, Normal) and identity and objective.response.plain
