"""Cross products of the columns of all predictors, as sums over rows (METHODS 3; floor 6.9).

    H = sum_uv Z_u' diag(w_uv) Z_v,    Z_u = [X_u, columns by level]

Of the factors whose columns are kept by level, the one with the most coefficients is set apart:
its columns, in whatever predictors they stand, make the blocks D_l of an arrow (module `arrow`).
The others belong to its dense part, but their columns are sparse too.

References: Wood, Li, Shaddick, Augustin (2017), doi:10.1080/01621459.2016.1195744 (sums over
chunks of rows); Bates et al. (2015), doi:10.18637/jss.v067.i01.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse

from deepregress.disk.arrow import LARGEST, Arrow, Layout
from deepregress.errors import FitError
from deepregress.families.base import upper_pairs
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import LevelColumns, ModelMatrix

Place = slice | Array
REMEMBERED_ROWS = 1_000_000
"""Rows whose sums by level are kept from one pass to the next, about 20 bytes each."""


@dataclass(frozen=True, eq=False)
class _Own:
    """A column of the factor set apart: its predictor and its value in each row."""

    unit: int
    values: Vector


@dataclass(frozen=True, eq=False)
class _Coded:
    """Columns by level that stay in the dense part."""

    unit: int
    levels: LevelColumns


@dataclass(frozen=True, eq=False)
class JointColumns:
    """The columns of all predictors for the training rows.

    Parameters
    ----------
    units : tuple of ModelMatrix
    layout : Layout
        Of the joint coefficient vector.
    """

    units: tuple[ModelMatrix, ...]
    layout: Layout
    _at: tuple[Array, ...] = field(repr=False)
    _coded: tuple[_Coded, ...] = field(repr=False)
    _own: tuple[_Own, ...] = field(repr=False)
    _codes: Array | None = field(repr=False)
    _sums: dict[int, tuple[Any, Array]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, units: Sequence[ModelMatrix]) -> JointColumns:
        """Choose the factor that is set apart.

        Raises
        ------
        FitError
            What remains is too large for a dense matrix.
        """
        starts = np.cumsum([0, *(unit.n_coef for unit in units)])
        blocks = [(u, each) for u, unit in enumerate(units) for each in unit.levels]
        chosen = _largest(blocks)
        inside = [any(each is other for _, other in chosen) for _, each in blocks]
        own = [block for block, is_own in zip(blocks, inside, strict=True) if is_own]
        coded = tuple(_Coded(*b) for b, is_own in zip(blocks, inside, strict=True) if not is_own)
        if not own:
            layout = Layout.plain(int(starts[-1]))
        else:
            levels = np.hstack([each.places + starts[u] for u, each in own])
            dense = np.setdiff1d(np.arange(starts[-1]), levels)
            layout = Layout(int(starts[-1]), dense, levels)
            _refuse_large(layout)
        dense_places = [unit.dense + starts[u] for u, unit in enumerate(units)]
        dense_places += [each.levels.places.ravel() + starts[each.unit] for each in coded]
        return cls(
            tuple(units),
            layout,
            tuple(layout.dense_at(places) for places in dense_places),
            coded,
            tuple(_Own(u, column) for u, each in own for column in each.values.T),
            own[0][1].codes if own else None,
        )

    def X(self, rows: slice) -> tuple[Matrix, ...]:
        """The dense columns of consecutive rows, of each predictor."""
        return tuple(unit.X[rows] for unit in self.units)

    def rows(self, rows: slice) -> RowColumns:
        """The columns of consecutive rows."""
        X = self.X(rows)
        if not self._coded and self._codes is None:
            return RowColumns(self, X)
        sparse = tuple(_sparse(each.levels.take(rows)) for each in self._coded)
        if self._codes is None:
            return RowColumns(self, X, sparse)
        sums, ids = self._sums.get(rows.start) or _sums(self._codes[rows])
        if rows.stop <= REMEMBERED_ROWS:
            self._sums[rows.start] = sums, ids
        own = tuple(_Own(each.unit, each.values[rows]) for each in self._own)
        return RowColumns(self, X, sparse, own, sums, ids)

    @property
    def pieces(self) -> list[int]:
        """Predictor of each piece of the dense part: dense columns first, then sparse ones."""
        return [*range(len(self.units)), *(each.unit for each in self._coded)]

    def total(self) -> Total:
        """An empty sum."""
        p = len(self.layout.dense)
        n_levels, q = self.layout.levels.shape
        B = np.zeros((n_levels, q, p)) if q else None
        return Total(self, np.zeros((p, p)), B, np.zeros((n_levels, q, q)))

    def place(self, piece: int) -> Place:
        """Where the columns of a piece are in the dense part."""
        at = self._at[piece]
        if len(at) and at[-1] - at[0] + 1 == len(at):
            return slice(int(at[0]), int(at[-1]) + 1)
        return at


@dataclass(frozen=True, eq=False)
class RowColumns:
    """The columns of some rows.

    `X` are the dense columns of each predictor, `sparse` the pieces kept by level, `own` the
    columns of the factor set apart, `sums` (n_ids, n_rows) adds rows of one level, and `ids` are
    the levels that occur.
    """

    joint: JointColumns
    X: tuple[Matrix, ...]
    sparse: tuple[Any, ...] = ()
    own: tuple[_Own, ...] = ()
    sums: Any = None
    ids: Array | None = None

    def products(self, W: Matrix) -> Products:
        """Sums of w_uv z_u z_v' over the rows, W packed (n_rows, U (U + 1) / 2)."""
        units = self.joint.pieces
        packed = _packed(len(self.X))
        every: tuple[Any, ...] = (*self.X, *self.sparse)
        blocks = [
            _product(every[i], every[j], W[:, packed[units[i], units[j]]])
            for i, j in upper_pairs(len(units))
        ]
        if self.ids is None:
            return Products(blocks)
        q, p = len(self.own), len(self.joint.layout.dense)
        B = np.zeros((len(self.ids), q, p))
        D = np.zeros((len(self.ids), q, q))
        for a, left in enumerate(self.own):
            for j, piece in enumerate(every):
                w = W[:, packed[left.unit, units[j]]] * left.values
                weighted = _weighted(piece, w)
                B[:, a, self.joint.place(j)] = _array(self.sums @ weighted)
            for b, right in enumerate(self.own[: a + 1]):
                w = W[:, packed[left.unit, right.unit]] * left.values * right.values
                D[:, a, b] = D[:, b, a] = self.sums @ w
        return Products(blocks, self.ids, B, D)


@dataclass(frozen=True, eq=False)
class Products:
    """Sums over some rows: blocks of the dense part, and those of the levels that occur."""

    blocks: list[Matrix]
    ids: Array | None = None
    B: Array | None = None
    D: Array | None = None


@dataclass(frozen=True, eq=False)
class Total:
    """The running sum of products over chunks of rows; its arrays change in place."""

    joint: JointColumns
    A: Matrix
    B: Array | None
    D: Array

    def add(self, products: Products) -> None:
        """Add the sums over further rows."""
        pairs = upper_pairs(len(self.joint.pieces))
        for (i, j), block in zip(pairs, products.blocks, strict=True):
            if block.size:
                self.A[_block(self.joint.place(i), self.joint.place(j))] += block
        if products.ids is not None and self.B is not None:
            self.B[products.ids] += products.B
            self.D[products.ids] += products.D

    def arrow(self) -> Arrow:
        """The sum as a symmetric matrix."""
        for i, j in upper_pairs(len(self.joint.pieces)):
            left, right = self.joint.place(i), self.joint.place(j)
            block = self.A[_block(left, right)]
            if i == j:
                self.A[_block(left, left)] = (block + block.T) / 2.0
            else:
                self.A[_block(right, left)] = block.T
        return Arrow(self.joint.layout, self.A, self.B, self.D)


def _largest(blocks: Sequence[tuple[int, LevelColumns]]) -> list[tuple[int, LevelColumns]]:
    """The blocks of the factor with the most coefficients."""
    groups: list[list[tuple[int, LevelColumns]]] = []
    for block in blocks:
        for group in groups:
            first, other = group[0][1].codes, block[1].codes
            if first is other or np.array_equal(first, other):
                group.append(block)
                break
        else:
            groups.append([block])
    return max(groups, key=lambda group: sum(b.places.size for _, b in group), default=[])


def _sums(codes: Array) -> tuple[Any, Array]:
    """The matrix (n_ids, n_rows) that adds the rows of each level, and the levels."""
    ids, inverse = np.unique(codes, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(inverse, minlength=len(ids)))])
    shape = (len(ids), len(codes))
    return scipy.sparse.csr_matrix((np.ones(len(codes)), order, ends), shape=shape), ids


def _sparse(levels: LevelColumns) -> Any:
    """Columns by level as a sparse matrix, (n_rows, n_levels m)."""
    n, m = levels.values.shape
    columns = levels.codes[:, None] * m + np.arange(m)
    shape = (n, levels.n_levels * m)
    ends = np.arange(0, n * m + 1, m)
    return scipy.sparse.csr_matrix((levels.values.ravel(), columns.ravel(), ends), shape=shape)


def _weighted(piece: Any, w: Vector) -> Any:
    if isinstance(piece, np.ndarray):
        return w[:, None] * piece
    return scipy.sparse.diags_array(w) @ piece


def _product(left: Any, right: Any, w: Vector) -> Matrix:
    """left' diag(w) right, for dense and sparse columns."""
    if not left.shape[1] or not right.shape[1]:
        return np.zeros((left.shape[1], right.shape[1]))
    if isinstance(left, np.ndarray) and not isinstance(right, np.ndarray):
        return _array(right.T @ _weighted(left, w)).T
    return _array(left.T @ _weighted(right, w))


def _array(product: Any) -> Matrix:
    return np.asarray(product if isinstance(product, np.ndarray) else product.toarray())


def _packed(n_units: int) -> dict[tuple[int, int], int]:
    """Place of each pair of predictors, in either order, in a packed symmetric matrix."""
    places = {}
    for p, (k, m) in enumerate(upper_pairs(n_units)):
        places[k, m] = places[m, k] = p
    return places


def _block(left: Place, right: Place) -> Any:
    """Index of a block of a matrix."""
    if isinstance(left, slice) and isinstance(right, slice):
        return left, right
    return np.ix_(_positions(left), _positions(right))


def _positions(place: Place) -> Array:
    return np.arange(place.start, place.stop) if isinstance(place, slice) else place


def _refuse_large(layout: Layout) -> None:
    p = len(layout.dense)
    if (p * p + layout.levels.size * p) * 8 > LARGEST:
        raise FitError(
            f"the random effects leave {p} coefficients beside the {layout.levels.size} of the "
            f"factor with the most levels, which takes "
            f"{(p * p + layout.levels.size * p) * 8 / 2**30:.1f} GiB; {LARGEST / 2**30:g} GiB are "
            "the limit. Leave a crossed factor out, or give its term fewer levels."
        )
