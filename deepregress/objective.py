"""The waist: predictors eta, and the penalised likelihood as sums over rows.

    eta_u   = offset_u + X_u coef_u                      u = 1..U, X_u (n_obs, n_coef_u)
    value   = sum_i w_i l_i(eta_i)                       sum scale, natural log
    grad_u  = X_u' (w g_u)
    H_uv    = X_u' diag(w W_uv) X_v                      negative Hessian of the value

Rows come in chunks whose statistics add, always in the same order, so a fit is deterministic and
the memory beyond the designs does not grow with the number of rows. Two threads share the chunks:
XLA and BLAS release the interpreter lock, and each BLAS call stays on one thread (METHODS 3).

References: Wood, Li, Shaddick, Augustin (2017), doi:10.1080/01621459.2016.1195744 (chunked H).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from deepregress.data import Response
from deepregress.families.base import CHUNK_SIZES, Family, upper_pairs
from deepregress.linalg import Array, Matrix, Vector
from deepregress.penalty import PlacedPenalty

_T = TypeVar("_T")
_CHUNK = CHUNK_SIZES[-1]
_ALONE = 50_000
"""Rows up to which one thread is as fast as two with the hand-over between them."""
_pool = ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1))


@dataclass(frozen=True)
class Unit:
    """One predictor: its columns, offset and penalties."""

    X: Matrix = field(repr=False)
    offset: Vector = field(repr=False)
    penalties: tuple[PlacedPenalty, ...] = ()

    @property
    def n_coef(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])


@dataclass(frozen=True)
class Derivatives:
    """Value, gradient and negative Hessian of the log-likelihood at one coefficient vector."""

    value: float
    gradient: Vector
    H: Matrix


@dataclass(frozen=True)
class Objective:
    """Family, response and predictors; everything a structured solver asks of the data.

    Parameters
    ----------
    family : Family
    response : Response
    units : tuple of Unit
        In the order of the family's predictors.
    """

    family: Family
    response: Response
    units: tuple[Unit, ...]

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.response.n_obs

    @property
    def n_coef(self) -> int:
        """Number of coefficients of all predictors."""
        return sum(unit.n_coef for unit in self.units)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Coefficients of each unit in the joint vector."""
        ends = np.cumsum([0, *(unit.n_coef for unit in self.units)])
        return tuple(slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True))

    def eta(self, coef: Vector) -> Matrix:
        """All predictors, (n_obs, U)."""
        return np.column_stack(
            [
                unit.X @ coef[index] + unit.offset
                for unit, index in zip(self.units, self.slices, strict=True)
            ]
        )

    def derivatives(self, coef: Vector, *, convex: Convexity | None = None) -> Derivatives:
        """Value, gradient (n_coef,) and negative Hessian (n_coef, n_coef) at `coef`.

        Parameters
        ----------
        coef : Vector, (n_coef,)
        convex : callable, optional
            Applied to the row-wise W (n, U, U) before the sum (e.g. its positive part).
        """
        slices = self.slices
        pairs = upper_pairs(len(self.units))

        def of_rows(rows: slice) -> tuple[float, Vector, list[Matrix]]:
            X = [unit.X[rows] for unit in self.units]
            rowwise, g, W = self.family.row_derivatives(self._rows(rows), self._eta(coef, rows, X))
            weights = self.response.weights[rows]
            if not (np.isfinite(rowwise).all() and np.isfinite(W).all()):
                return np.nan, np.full(self.n_coef, np.nan), []
            if convex is not None:
                W = convex(W)
            W = W * weights[:, None]
            g = g * weights[:, None]
            gradient = np.concatenate([X_u.T @ g[:, u] for u, X_u in enumerate(X)])
            blocks = [
                X[k].T @ (W[:, p, None] * X[m]) if X[k].size and X[m].size else _empty(X[k], X[m])
                for p, (k, m) in enumerate(pairs)
            ]
            return float(weights @ rowwise), gradient, blocks

        value, gradient = 0.0, np.zeros(self.n_coef)
        H = np.zeros((self.n_coef, self.n_coef))
        for value_c, gradient_c, blocks in self._over_chunks(of_rows):
            value += value_c
            gradient += gradient_c
            if not blocks:
                break
            for (k, m), block in zip(pairs, blocks, strict=True):
                H[slices[k], slices[m]] += block
        for k, m in pairs:
            if k != m:
                H[slices[m], slices[k]] = H[slices[k], slices[m]].T
            else:
                H[slices[k], slices[k]] = (H[slices[k], slices[k]] + H[slices[k], slices[k]].T) / 2
        return Derivatives(value, gradient, H)

    def fisher_information(self, coef: Vector) -> Matrix:
        """X' diag(w (dmean / deta)^2 / Var) X of the first predictor's columns."""
        unit, index = self.units[0], self.slices[0]

        def of_rows(rows: slice) -> Matrix:
            X = unit.X[rows]
            eta = self._eta(coef, rows, [each.X[rows] for each in self.units])
            eta = self.family.with_known(eta, self._rows(rows))
            weight = self.family.fisher_weight(eta) * self.response.weights[rows]
            return X.T @ (weight[:, None] * X)

        size = index.stop - index.start
        return sum(self._over_chunks(of_rows), start=np.zeros((size, size)))

    def logdet_gradient(self, coef: Vector, V: Matrix) -> Vector:
        """t_j = tr(V dH/dcoef_j), (n_coef,): how the curvature moves with each coefficient.

        Parameters
        ----------
        coef : Vector, (n_coef,)
        V : Matrix, (n_coef, n_coef)
            Symmetric; zero rows for coefficients that are held fixed.
        """
        slices = self.slices
        pairs = upper_pairs(len(self.units))

        def of_rows(rows: slice) -> Vector:
            X = [unit.X[rows] for unit in self.units]
            A = np.column_stack(
                [
                    (1.0 if k == m else 2.0)
                    * np.einsum("ij,ij->i", X[k] @ V[slices[k], slices[m]], X[m])
                    for k, m in pairs
                ]
            )
            v = self.family.contracted_third(self._rows(rows), self._eta(coef, rows, X), A)
            v *= self.response.weights[rows][:, None]
            return np.concatenate([X_u.T @ v[:, u] for u, X_u in enumerate(X)])

        total = np.zeros(self.n_coef)
        for part in self._over_chunks(of_rows):
            total += part
        return total

    def row_derivatives(self, eta: Matrix) -> tuple[Vector, Matrix, Matrix]:
        """Unweighted l (n,), gradient (n, U) and packed W (n, U(U+1)/2) at given predictors."""
        return self.family.row_derivatives(self.response.rows(), eta)

    def with_offset(self, unit: int, offset: Vector) -> Objective:
        """The objective with `offset` (n_obs,) added to one predictor."""
        return self._with_unit(
            unit, replace(self.units[unit], offset=self.units[unit].offset + offset)
        )

    def with_columns(
        self, unit: int, columns: Matrix, penalties: Sequence[PlacedPenalty]
    ) -> Objective:
        """The objective with further columns (n_obs, m) at the end of one predictor.

        Indices of `penalties` count within the new columns.
        """
        old = self.units[unit]
        placed = tuple(
            replace(p, index=slice(p.index.start + old.n_coef, p.index.stop + old.n_coef))
            for p in penalties
        )
        X = np.ascontiguousarray(np.hstack([old.X, columns]))
        return self._with_unit(unit, replace(old, X=X, penalties=old.penalties + placed))

    def sample(self, n: int) -> Objective:
        """The objective on n random rows, always the same ones; on all where n_obs <= n."""
        if self.n_obs <= n:
            return self
        return self.on_rows(np.sort(np.random.default_rng(0).choice(self.n_obs, n, replace=False)))

    def on_rows(self, rows: Array) -> Objective:
        """The objective on some rows, given by their numbers."""
        units = tuple(
            replace(unit, X=np.ascontiguousarray(unit.X[rows]), offset=unit.offset[rows])
            for unit in self.units
        )
        return replace(self, response=self.response.take(rows), units=units)

    def _with_unit(self, unit: int, changed: Unit) -> Objective:
        units = (*self.units[:unit], changed, *self.units[unit + 1 :])
        return replace(self, units=units)

    def _rows(self, rows: slice) -> dict[str, Array]:
        return {name: column[rows] for name, column in self.response.rows().items()}

    def _eta(self, coef: Vector, rows: slice, X: Sequence[Matrix]) -> Matrix:
        eta = np.empty((len(X[0]), len(X)))
        for u, index in enumerate(self.slices):
            np.add(X[u] @ coef[index], self.units[u].offset[rows], out=eta[:, u])
        return eta

    def _over_chunks(self, of_rows: Callable[[slice], _T]) -> Iterator[_T]:
        """Results of all chunks in row order."""
        n = self.n_obs
        chunks = [slice(a, min(a + _CHUNK, n)) for a in range(0, n, _CHUNK)]
        return map(of_rows, chunks) if n <= _ALONE else _pool.map(of_rows, chunks)


Convexity = Callable[[Matrix], Matrix]


def positive_part(W: Matrix) -> Matrix:
    """Row-wise nearest positive semi-definite matrices of packed symmetric (n, U(U+1)/2)."""
    n_units = int((np.sqrt(8 * W.shape[1] + 1) - 1) / 2)
    if n_units == 1:
        return np.maximum(W, 0.0)
    k, m = (np.array(index) for index in zip(*upper_pairs(n_units), strict=True))
    full = np.empty((len(W), n_units, n_units))
    full[:, k, m] = W
    full[:, m, k] = W
    values, vectors = np.linalg.eigh(full)
    clamped = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.ascontiguousarray(clamped[:, k, m])


def _empty(left: Matrix, right: Matrix) -> Matrix:
    return np.zeros((left.shape[1], right.shape[1]))
