"""The waist: predictors eta, and the penalised likelihood as sums over rows.

    eta_u   = offset_u + X_u coef_u                      u = 1..U, X_u (n_obs, n_coef_u)
    value   = sum_i w_i l_i(eta_i)                       sum scale, natural log
    grad_u  = X_u' (w g_u)
    H_uv    = X_u' diag(w W_uv) X_v                      negative Hessian of the value

Rows come in chunks whose statistics add, always in the same order, so a fit is deterministic and
the memory beyond the designs does not grow with the number of rows; those of data on disk are in
files (module `stored_design`), and so is all that has a number for each row. Two threads share the
chunks: XLA and BLAS release the interpreter lock, and each BLAS call stays on one thread
(METHODS 3).

References: Wood, Li, Shaddick, Augustin (2017), doi:10.1080/01621459.2016.1195744 (chunked H).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from deepregress.crossproducts import JointColumns, Products, RowColumns
from deepregress.data import Response
from deepregress.disk.arrow import LARGEST, Arrow, Inverse, Layout
from deepregress.disk.scratch import beside, parts
from deepregress.errors import FitError
from deepregress.families.base import CHUNK, Family, upper_pairs
from deepregress.families.risk_sets import RiskSets
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import LevelColumns, ModelMatrix, Reduced
from deepregress.penalty import PlacedPenalty, as_matrix

_T = TypeVar("_T")
_ALONE = 50_000
"""Rows up to which one thread is as fast as two with the hand-over between them."""
_WAITING = 64
_pool = ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1))


@dataclass(frozen=True)
class Unit:
    """One predictor: its columns, offset and penalties."""

    X: Matrix = field(repr=False)
    offset: Vector = field(repr=False)
    penalties: tuple[PlacedPenalty, ...] = ()
    levels: tuple[LevelColumns, ...] = ()
    """Columns that X does not have: those of factors with many levels."""

    @cached_property
    def matrix(self) -> ModelMatrix:
        """All columns."""
        return ModelMatrix(self.X, self.levels)

    @property
    def n_coef(self) -> int:
        """Number of columns."""
        return self.matrix.n_coef

    def take(self, rows: Array) -> Unit:
        """Some of the rows."""
        levels = tuple(each.take(rows) for each in self.levels)
        X = np.ascontiguousarray(self.X[rows])
        return replace(self, X=X, offset=self.offset[rows], levels=levels)


@dataclass(frozen=True)
class Derivatives:
    """Value, gradient and negative Hessian of the log-likelihood at one coefficient vector."""

    value: float
    gradient: Vector
    information: Arrow

    @property
    def H(self) -> Matrix:
        """The negative Hessian as an array, (n_coef, n_coef)."""
        return self.information.matrix()


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
        eta = beside(self.response.lower, (self.n_obs, len(self.units)))
        for rows in parts(self.n_obs):
            self._predictors(coef, rows, self.columns.X(rows), out=eta[rows])
        return eta

    def derivatives(self, coef: Vector, *, convex: Convexity | None = None) -> Derivatives:
        """Value, gradient (n_coef,) and negative Hessian (n_coef, n_coef) at `coef`.

        Parameters
        ----------
        coef : Vector, (n_coef,)
        convex : callable, optional
            Applied to the row-wise W (n, U, U) before the sum (e.g. its positive part).
        """
        if self.risk_sets is not None:
            return self._partial_derivatives(self.risk_sets, coef)

        def of_rows(rows: slice) -> tuple[float, Vector, Products | None]:
            columns = self.columns.rows(rows)
            eta = self._eta(coef, rows, columns)
            rowwise, g, W = self.family.row_derivatives(self._rows(rows), eta)
            weights = self.response.weights[rows]
            if not all(np.isfinite(part).all() for part in (rowwise, g, W)):
                return np.nan, np.full(self.n_coef, np.nan), None
            if convex is not None:
                W = convex(W)
            gradient = self._cross(rows, columns, g * weights[:, None])
            return float(weights @ rowwise), gradient, columns.products(W * weights[:, None])

        value, gradient, total = 0.0, np.zeros(self.n_coef), self.columns.total()
        for value_c, gradient_c, products in self._over_chunks(of_rows):
            value += value_c
            gradient += gradient_c
            if products is None:
                break
            total.add(products)
        return Derivatives(value, gradient, total.arrow())

    @cached_property
    def risk_sets(self) -> RiskSets | None:
        """Of a partial likelihood, which is no sum over rows; None of any other."""
        if not self.family.partial:
            return None
        return self.family.risk_sets(self.response, self.units[1].offset)

    def fitted_family(self, coef: Vector) -> Family:
        """The family with what a fit finds beside `coef`: the baseline of a partial likelihood."""
        if self.risk_sets is None:
            return self.family
        at = self.risk_sets.at(self.eta(coef)[:, 0])
        return self.family.with_baseline(at, self.units[0].X)

    def _partial_derivatives(self, sets: RiskSets, coef: Vector) -> Derivatives:
        at, X = sets.at(self.eta(coef)[:, 0]), self.units[0].X
        return Derivatives(at.value, X.T @ at.gradient, Arrow.dense(at.information(X)))

    def fisher_weights(self, eta: Matrix, rows: slice) -> Vector:
        """w (dmean / deta)^2 / Var of some rows with these predictors (n_rows, U), (n_rows,)."""
        weight = self.family.fisher_weight(self.family.with_known(eta, self._rows(rows)))
        return np.asarray(weight * self.response.weights[rows])

    def fisher_information(self, coef: Vector) -> Arrow:
        """X' diag(w (dmean / deta)^2 / Var) X of the first predictor's columns, else zero."""

        def of_rows(rows: slice) -> Products:
            columns = self.columns.rows(rows)
            weight = self.fisher_weights(self._eta(coef, rows, columns), rows)
            W = np.zeros((len(weight), len(upper_pairs(len(self.units)))))
            W[:, 0] = weight
            return columns.products(W)

        total = self.columns.total()
        for products in self._over_chunks(of_rows):
            total.add(products)
        return total.arrow()

    def logdet_gradient(self, coef: Vector, V: Inverse | Matrix) -> Vector:
        """t_j = tr(V dH/dcoef_j), (n_coef,): how the curvature moves with each coefficient.

        Parameters
        ----------
        coef : Vector, (n_coef,)
        V : Inverse or Matrix, (n_coef, n_coef)
            Symmetric; zero in coefficients that are held fixed.
        """
        if self.risk_sets is not None:
            at = self.risk_sets.at(self.eta(coef)[:, 0])
            full = V.matrix() if isinstance(V, Inverse) else V
            return at.information_slope(self.units[0].X, full)
        pairs = upper_pairs(len(self.units))
        inverse = V if isinstance(V, Inverse) else Inverse.dense(V)

        def of_rows(rows: slice) -> Vector:
            columns = self.columns.rows(rows)
            spread = self._spread(rows, columns, inverse)
            A = np.column_stack([(1.0 if k == m else 2.0) * spread(k, m) for k, m in pairs])
            eta = self._eta(coef, rows, columns)
            v = self.family.contracted_third(self._rows(rows), eta, A)
            return self._cross(rows, columns, v * self.response.weights[rows][:, None])

        total = np.zeros(self.n_coef)
        for part in self._over_chunks(of_rows):
            total += part
        return total

    def _spread(self, rows: slice, columns: RowColumns, V: Inverse) -> Callable[[int, int], Vector]:
        """Row-wise z_k' V z_m of two predictors' columns."""
        slices, X = self.slices, columns.X
        if self.layout.entire:
            full = V.matrix()
            return lambda k, m: np.einsum("ij,ij->i", X[k] @ full[slices[k], slices[m]], X[m])
        reduced = [
            Reduced.of(unit.matrix.take(rows), np.arange(index.start, index.stop), V)
            for unit, index in zip(self.units, slices, strict=True)
        ]
        return lambda k, m: reduced[k].variance(reduced[m], V)

    def row_derivatives(
        self, eta: Matrix, rows: slice = slice(None)
    ) -> tuple[Vector, Matrix, Matrix]:
        """Unweighted l (n,), gradient (n, U) and packed W (n, U(U+1)/2) at predictors of rows."""
        return self.family.row_derivatives(self._rows(rows), eta)

    def with_offset(self, unit: int, offset: Vector) -> Objective:
        """The objective with `offset` (n_obs,) added to one predictor."""
        old = self.units[unit]
        moved = beside(old.offset, old.offset.shape)
        np.add(old.offset, offset, out=moved)
        return self._with_unit(unit, replace(old, offset=moved))

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
        n_dense = old.X.shape[1]
        X = beside(old.X, (self.n_obs, n_dense + columns.shape[1]))
        X[:, :n_dense], X[:, n_dense:] = old.X, columns
        return self._with_unit(unit, replace(old, X=X, penalties=old.penalties + placed))

    def densely(self) -> Objective:
        """The objective with the columns of all factors as arrays.

        Raises
        ------
        FitError
            They would take more than 2 GiB.
        """
        if not any(unit.levels for unit in self.units):
            return self
        size = self.n_obs * self.n_coef * 8
        if size > LARGEST:
            raise FitError(
                f"{self.n_obs} rows with {self.n_coef} columns take {size / 2**30:.1f} GiB; beside "
                f"sparse terms, factors with many levels are limited to {LARGEST / 2**30:g} GiB"
            )
        units = tuple(
            Unit(
                np.ascontiguousarray(unit.matrix.toarray()),
                unit.offset,
                tuple(replace(p, S=as_matrix(p.S)) for p in unit.penalties),
            )
            for unit in self.units
        )
        return replace(self, units=units)

    def sample(self, n: int) -> Objective:
        """The objective on n random rows, always the same ones; on all where n_obs <= n."""
        rows = self.some(n)
        return self if isinstance(rows, slice) else self.on_rows(rows)

    def some(self, n: int) -> slice | Array:
        """Numbers of n random rows, always the same ones; all where n_obs <= n."""
        if self.n_obs <= n:
            return slice(None)
        return np.sort(np.random.default_rng(0).choice(self.n_obs, n, replace=False))

    def on_rows(self, rows: Array) -> Objective:
        """The objective on some rows, given by their numbers."""
        units = tuple(unit.take(rows) for unit in self.units)
        return replace(self, response=self.response.take(rows), units=units)

    def _with_unit(self, unit: int, changed: Unit) -> Objective:
        units = (*self.units[:unit], changed, *self.units[unit + 1 :])
        return replace(self, units=units)

    def _rows(self, rows: slice) -> dict[str, Array]:
        return {name: column[rows] for name, column in self._known.items()}

    @cached_property
    def _known(self) -> Mapping[str, Array]:
        """What the family sees of all rows."""
        return self.family.columns(self.response)

    @cached_property
    def columns(self) -> JointColumns:
        """The columns of all predictors."""
        return JointColumns.of([unit.matrix for unit in self.units])

    @property
    def layout(self) -> Layout:
        """Which coefficients belong to levels."""
        return self.columns.layout

    def _eta(self, coef: Vector, rows: slice, columns: RowColumns) -> Matrix:
        eta = np.empty((len(columns.X[0]), len(self.units)))
        self._predictors(coef, rows, columns.X, out=eta)
        return eta

    def _predictors(self, coef: Vector, rows: slice, X: Sequence[Matrix], *, out: Matrix) -> None:
        """The predictors of some rows with dense columns X."""
        for u, (unit, index) in enumerate(zip(self.units, self.slices, strict=True)):
            own = coef[index]
            dense = own[unit.matrix.dense] if unit.levels else own
            np.add(X[u] @ dense, unit.offset[rows], out=out[:, u])
            for each in unit.levels:
                out[:, u] += each.take(rows).times(own[each.index])

    def _cross(self, rows: slice, columns: RowColumns, g: Matrix) -> Vector:
        """Sums of z_u g_u over the rows, all predictors one after the other."""
        parts = []
        for u, unit in enumerate(self.units):
            dense = columns.X[u].T @ g[:, u]
            if not unit.levels:
                parts.append(dense)
                continue
            own = np.empty(unit.n_coef)
            own[unit.matrix.dense] = dense
            for each in unit.levels:
                own[each.index] = each.take(rows).cross(g[:, u])
            parts.append(own)
        return np.concatenate(parts)

    def _over_chunks(self, of_rows: Callable[[slice], _T]) -> Iterator[_T]:
        """Results of all chunks in row order."""
        chunks = parts(self.n_obs, CHUNK)
        if self.n_obs <= _ALONE:
            yield from map(of_rows, chunks)
            return
        # so many results at most wait to be added, whatever the number of chunks
        for some in iter(lambda: list(itertools.islice(chunks, _WAITING)), []):
            yield from _pool.map(of_rows, some)


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
