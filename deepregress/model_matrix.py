"""The columns of one predictor: a dense part, and columns by level that are kept as codes (0.6).

    Z = [X, Z_1, Z_2, ...],    row i of Z_j: its m values at the columns of its level, else zero

A factor of many levels has a column per level, of which a row has one: its code and its values say
all. Products with Z cost as much as a few columns do, and memory grows with rows plus levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from deepregress.disk.arrow import Inverse
from deepregress.disk.scratch import beside, parts
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class LevelColumns:
    """Columns of the levels of a factor.

    Parameters
    ----------
    start : int
        First of them among the columns of the predictor; levels are outermost.
    n_levels : int
    codes : Array of int, (n_obs,)
        Level of each row; -1 for none of them.
    values : Matrix, (n_obs, m)
    """

    start: int
    n_levels: int
    codes: Array = field(repr=False)
    values: Matrix = field(repr=False)

    @property
    def index(self) -> slice:
        """The columns."""
        return slice(self.start, self.start + self.n_levels * self.values.shape[1])

    @property
    def places(self) -> Array:
        """The columns by level, (n_levels, m)."""
        return np.arange(self.index.start, self.index.stop).reshape(self.n_levels, -1)

    def take(self, rows: slice | Array) -> LevelColumns:
        """Some of the rows."""
        return replace(self, codes=self.codes[rows], values=self.values[rows])

    def times(self, coef: Vector) -> Vector:
        """The product with coefficients of the columns, (n_obs,); zero in rows of no level."""
        by_level = coef.reshape(self.n_levels, -1)
        effect = np.einsum("ij,ij->i", self.values, by_level[self.codes])
        return np.where(self.codes < 0, 0.0, effect)

    def cross(self, weights: Vector) -> Vector:
        """Z' weights, one number per column."""
        known = self.codes >= 0
        codes = np.where(known, self.codes, 0)
        parts = [
            np.bincount(codes, np.where(known, weights * value, 0.0), self.n_levels)
            for value in self.values.T
        ]
        return np.asarray(np.stack(parts, axis=1).ravel(), dtype=np.float64)

    def toarray(self) -> Matrix:
        """The columns, (n_obs, n_levels m)."""
        out = np.zeros((len(self.codes), self.n_levels, self.values.shape[1]))
        rows = np.flatnonzero(self.codes >= 0)
        out[rows, self.codes[rows]] = self.values[rows]
        return out.reshape(len(out), -1)


@dataclass(frozen=True, eq=False)
class ModelMatrix:
    """All columns of a predictor for some rows.

    Parameters
    ----------
    X : Matrix, (n_obs, n_dense)
        Dense columns, in their order.
    levels : tuple of LevelColumns
        The others.
    """

    X: Matrix = field(repr=False)
    levels: tuple[LevelColumns, ...] = ()

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self.X)

    @property
    def n_coef(self) -> int:
        """Number of columns."""
        return dense_and_level_columns(self.X, self.levels)

    @cached_property
    def dense(self) -> Array:
        """Which columns X has, (n_dense,)."""
        return dense_columns(self.n_coef, self.levels)

    def take(self, rows: slice | Array) -> ModelMatrix:
        """Some of the rows."""
        return ModelMatrix(self.X[rows], tuple(each.take(rows) for each in self.levels))

    def times(self, coef: Vector) -> Vector:
        """The product with coefficients (n_coef,)."""
        if not self.levels:
            return np.asarray(self.X @ coef)
        total = self.X @ coef[self.dense]
        for each in self.levels:
            total += each.times(coef[each.index])
        return np.asarray(total)

    def cross(self, weights: Vector) -> Vector:
        """Z' weights, (n_coef,)."""
        out = np.empty(self.n_coef)
        out[self.dense] = self.X.T @ weights
        for each in self.levels:
            out[each.index] = each.cross(weights)
        return out

    def columns(self, index: Array) -> Matrix:
        """Some of the columns as an array, (n_obs, len(index))."""
        if not self.levels:
            return self.X[:, index]
        out = np.zeros((self.n_obs, len(index)))
        at = np.searchsorted(self.dense, index)
        known = np.isin(index, self.dense)
        out[:, known] = self.X[:, at[known]]
        for each in self.levels:
            own = np.flatnonzero((index >= each.index.start) & (index < each.index.stop))
            if not len(own):
                continue
            level, column = np.divmod(index[own] - each.start, each.values.shape[1])
            wanted = np.full((each.n_levels, each.values.shape[1]), -1)
            wanted[level, column] = own
            target = wanted[each.codes]
            rows, m = np.nonzero((target >= 0) & (each.codes >= 0)[:, None])
            out[rows, target[rows, m]] = each.values[rows, m]
        return out

    def select(self, index: Array) -> ModelMatrix:
        """Some of the columns, increasing, and of a factor's either all or none."""
        if not self.levels:
            return ModelMatrix(_some_columns(self.X, index))
        levels = tuple(
            replace(each, start=int(np.searchsorted(index, each.start)))
            for each in self.levels
            if each.start in index
        )
        return ModelMatrix(
            _some_columns(self.X, np.flatnonzero(np.isin(self.dense, index))), levels
        )

    def toarray(self) -> Matrix:
        """All columns, (n_obs, n_coef)."""
        return self.columns(np.arange(self.n_coef))

    def without(self, index: slice) -> ModelMatrix:
        """With zeros in some columns: a term, or several next to each other."""
        if not self.levels:
            X = self.X.copy()
            X[:, index] = 0.0
            return replace(self, X=X)
        X = np.where((self.dense >= index.start) & (self.dense < index.stop), 0.0, self.X)
        levels = tuple(
            replace(each, codes=np.full_like(each.codes, -1))
            if index.start <= each.start < index.stop
            else each
            for each in self.levels
        )
        return ModelMatrix(X, levels)


def _some_columns(X: Matrix, index: Array) -> Matrix:
    out = beside(X, (len(X), len(index)))
    for rows in parts(len(X)):
        out[rows] = X[rows][:, index]
    return out


def stacked(parts: Sequence[ModelMatrix]) -> ModelMatrix:
    """The rows of several, one after the other; columns are the same in all."""
    if len(parts) == 1:
        return parts[0]
    levels = tuple(
        replace(
            each[0],
            codes=np.concatenate([one.codes for one in each]),
            values=np.concatenate([one.values for one in each]),
        )
        for each in zip(*(part.levels for part in parts), strict=True)
    )
    return ModelMatrix(np.concatenate([part.X for part in parts]), levels)


def dense_and_level_columns(X: Matrix, levels: Sequence[LevelColumns]) -> int:
    """Number of columns of both kinds."""
    return int(X.shape[1] + sum(each.index.stop - each.index.start for each in levels))


def dense_columns(n_coef: int, levels: Sequence[LevelColumns]) -> Array:
    """Which columns are in no block of levels."""
    kept = np.ones(n_coef, dtype=bool)
    for each in levels:
        kept[each.index] = False
    return np.flatnonzero(kept)


@dataclass(frozen=True, eq=False)
class Reduced:
    """Rows Z of some predictor as V sees them: z' (G + E V E') z = r' V r + values' G values.

    Parameters
    ----------
    R : Matrix, (n_obs, p)
        Z E.
    codes : Array, (n_obs,)
        Level of each row among those of the layout; 0 where its values are zero.
    values : Matrix, (n_obs, q)
    """

    R: Matrix
    codes: Array
    values: Matrix

    @classmethod
    def of(cls, rows: ModelMatrix, places: Array, inverse: Inverse) -> Reduced:
        """Rows whose columns stand at `places` (n_coef,) of the joint vector."""
        layout = inverse.layout
        R = np.zeros((rows.n_obs, len(layout.dense)))
        if layout.entire:
            R[:, places[rows.dense]] = rows.X
        else:
            known = np.isin(places[rows.dense], layout.dense)
            R[:, layout.dense_at(places[rows.dense[known]])] = rows.X[:, known]
        values = np.zeros((rows.n_obs, layout.levels.shape[1]))
        codes = np.zeros(rows.n_obs, dtype=np.int64)
        for each in rows.levels:
            own = places[each.places]
            inside = each.codes >= 0
            level, column = layout.level_of(own[0])
            for m in range(own.shape[1]):
                value = np.where(inside, each.values[:, m], 0.0)
                if level[m] >= 0:
                    codes = np.where(inside, each.codes, codes)
                    values[:, column[m]] = value
                elif len(layout.dense) and own[0, m] in layout.dense:
                    at = layout.dense_at(own[:, m])
                    np.add.at(R, (np.arange(len(R)), at[np.where(inside, each.codes, 0)]), value)
        for a in range(values.shape[1]):
            R -= values[:, a, None] * inverse.C[codes, a]
        return cls(R, codes, values)

    def variance(self, other: Reduced, inverse: Inverse) -> Vector:
        """Row-wise z' (G + E V E') z_other, (n_obs,)."""
        total = np.einsum("ij,ij->i", self.R @ inverse.V, other.R)
        if self.values.shape[1]:
            G = inverse.G[self.codes]
            total += np.einsum("ia,iab,ib->i", self.values, G, other.values)
        return np.asarray(total)
