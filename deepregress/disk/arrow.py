"""Symmetric matrices with a dense part and one small block per level of a factor (floor 0.5).

With the coefficients that belong to the levels l = 1..L of a factor set apart, q for each level, a
Hessian is an arrow: two levels never share a row of the data, so

    P = [ A   B' ]    A (p, p) dense,  B_l (q, p),  D = diag(D_1, ..., D_L), D_l (q, q)
        [ B   D  ]

    T = A - sum_l B_l' D_l^-1 B_l                        Schur complement, (p, p)
    log|P|  = log|T| + sum_l log|D_l|
    P^-1    = G + E V E',   V = T^-1,  E = [I; -C],  C_l = D_l^-1 B_l,  G = diag(0, D_1^-1, ...)

Everything that is needed of P^-1 follows from V, C and D^-1 in O(L q p^2) operations and O(L q p)
memory. An ordinary dense matrix is an arrow without levels.

References: Golub and Van Loan, "Matrix Computations", 4th ed. 2013, sec. 3.2.11 and 4.2; Bates,
Maechler, Bolker and Walker (2015), doi:10.18637/jss.v067.i01 (the same elimination order).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from deepregress.errors import PredictionError
from deepregress.linalg import Array, Factor, Matrix, Vector

LARGEST = 2 << 30
"""Largest dense matrix that is made of an arrow, in bytes."""
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Layout:
    """Which entries of a joint vector belong to levels.

    Parameters
    ----------
    n_coef : int
        Length of the joint vector.
    dense : Array of int, (p,)
        Entries of the dense part, increasing.
    levels : Array of int, (n_levels, q)
        Entries of each level. Entries in neither part are zero.
    """

    n_coef: int
    dense: Array = field(repr=False)
    levels: Array = field(repr=False)

    @classmethod
    def plain(cls, n_coef: int) -> Layout:
        """All entries are dense."""
        return cls(n_coef, np.arange(n_coef), np.zeros((0, 0), dtype=np.int64))

    @cached_property
    def places(self) -> Array:
        """Entries of either part."""
        return np.concatenate([self.dense, self.levels.ravel()])

    @property
    def size(self) -> int:
        """Number of entries of either part."""
        return len(self.dense) + self.levels.size

    @property
    def entire(self) -> bool:
        """Whether the dense part is the joint vector as it is."""
        return len(self.dense) == self.n_coef

    def restrict(self, entries: Array) -> Layout:
        """The same parts without what is not among `entries`; levels lose the same columns."""
        kept = np.zeros(self.n_coef, dtype=bool)
        kept[entries] = True
        columns = kept[self.levels[0]] if len(self.levels) else np.zeros(0, dtype=bool)
        if kept[self.dense].all() and columns.all():
            return self
        levels = self.levels[:, columns] if columns.any() else np.zeros((0, 0), dtype=np.int64)
        return replace(self, dense=self.dense[kept[self.dense]], levels=levels)

    def split(self, vector: Vector) -> tuple[Vector, Matrix]:
        """Dense part (p,) and level part (n_levels, q) of a joint vector."""
        return vector[self.dense], vector[self.levels]

    def join(self, dense: Vector, levels: Matrix) -> Vector:
        """The joint vector, zero in entries of neither part."""
        vector = np.zeros(self.n_coef)
        vector[self.dense] = dense
        vector[self.levels] = levels
        return vector

    def dense_at(self, entries: Array) -> Array:
        """Positions of joint entries in the dense part."""
        return np.searchsorted(self.dense, entries)

    def level_of(self, entries: Array) -> tuple[Array, Array]:
        """Level and column of joint entries; level -1 where they are dense."""
        if not self.levels.size:
            return np.full(len(entries), -1), np.zeros(len(entries), dtype=np.int64)
        flat = self.levels.ravel()
        order = self._order
        at = np.minimum(np.searchsorted(flat[order], entries), len(flat) - 1)
        found = order[at]
        level, column = np.divmod(found, self.levels.shape[1])
        return np.where(flat[found] == entries, level, -1), column

    @cached_property
    def _order(self) -> Array:
        return np.argsort(self.levels.ravel())


@dataclass(frozen=True, eq=False)
class Arrow:
    """A symmetric matrix; B is None where it is zero.

    Parameters
    ----------
    layout : Layout
    A : Matrix, (p, p)
    B : Array or None, (n_levels, q, p)
    D : Array, (n_levels, q, q)
    """

    layout: Layout
    A: Matrix
    B: Array | None
    D: Array

    @classmethod
    def dense(cls, A: Matrix) -> Arrow:
        """An ordinary matrix."""
        return cls(Layout.plain(len(A)), A, None, np.zeros((0, 0, 0)))

    @classmethod
    def of_diagonal(cls, layout: Layout, diagonal: Vector) -> Arrow:
        """A diagonal matrix, given for the joint vector."""
        dense, levels = layout.split(diagonal)
        return cls(layout, np.diag(dense), None, _diagonals(levels))

    def restrict(self, layout: Layout) -> Arrow:
        """Rows and columns of a smaller layout."""
        if layout is self.layout:
            return self
        at = self.layout.dense_at(layout.dense)
        A = self.A if len(at) == len(self.A) else self.A[np.ix_(at, at)]
        if not layout.levels.size:
            return Arrow(layout, A, None, np.zeros((0, 0, 0)))
        columns = np.flatnonzero(np.isin(self.layout.levels[0], layout.levels[0]))
        B = None if self.B is None else self.B[:, columns][:, :, at]
        return Arrow(layout, A, B, self.D[:, columns][:, :, columns])

    def __add__(self, other: Arrow) -> Arrow:
        """The sum of two matrices of one layout."""
        B = self.B if other.B is None else other.B if self.B is None else self.B + other.B
        return Arrow(self.layout, self.A + other.A, B, self.D + other.D)

    def diagonal(self) -> Vector:
        """Diagonal for the joint vector."""
        if self.layout.entire:
            return np.asarray(np.diagonal(self.A).copy())
        return self.layout.join(np.diagonal(self.A), np.diagonal(self.D, axis1=1, axis2=2))

    def times(self, vector: Vector) -> Vector:
        """The product with a joint vector."""
        dense, levels = self.layout.split(vector)
        if self.layout.entire:
            return np.asarray(self.A @ dense)
        top, bottom = self.A @ dense, np.einsum("lab,lb->la", self.D, levels)
        if self.B is not None:
            top = top + np.tensordot(levels, self.B, axes=2)
            bottom = bottom + self.B @ dense
        return self.layout.join(top, bottom)

    def column(self, entry: int) -> Vector:
        """Column of a dense entry of the joint vector."""
        at = int(self.layout.dense_at(np.array([entry]))[0])
        if self.layout.entire:
            return np.asarray(self.A[:, at].copy())
        bottom = np.zeros(self.layout.levels.shape) if self.B is None else self.B[:, :, at]
        return self.layout.join(self.A[:, at], bottom)

    def block(self, rows: Array, columns: Array) -> Matrix:
        """Rows and columns of the joint matrix, (n_rows, n_columns)."""
        if self.layout.entire:
            return np.asarray(self.A[np.ix_(rows, columns)])
        _refuse_large(len(rows) * len(columns))
        out = np.zeros((len(rows), len(columns)))
        (level_r, column_r), (level_c, column_c) = map(self.layout.level_of, (rows, columns))
        known = np.zeros(self.layout.n_coef, dtype=bool)
        known[self.layout.dense] = True
        r, c = np.flatnonzero(known[rows]), np.flatnonzero(known[columns])
        at_r, at_c = self.layout.dense_at(rows[r]), self.layout.dense_at(columns[c])
        out[np.ix_(r, c)] = self.A[np.ix_(at_r, at_c)]
        R, K = np.flatnonzero(level_r >= 0), np.flatnonzero(level_c >= 0)
        if self.B is not None:
            out[np.ix_(R, c)] = self.B[level_r[R], column_r[R]][:, at_c]
            out[np.ix_(r, K)] = self.B[level_c[K], column_c[K]][:, at_r].T
        for a in range(self.D.shape[1]):
            own = R[column_r[R] == a]
            i, j = _same_level(level_r[own], level_c[K])
            out[own[i], K[j]] = self.D[level_c[K[j]], a, column_c[K[j]]]
        return out

    def schur(self) -> Matrix | None:
        """T, (p, p), also where it is singular; None where a block of D is."""
        if not self.layout.levels.size:
            return self.A
        lift = np.diag(np.diagonal(self.A))
        factor = ArrowFactor.of(replace(self, A=self.A + lift))
        return None if factor is None else factor.T - lift

    def matrix(self) -> Matrix:
        """The joint matrix, (n_coef, n_coef)."""
        if self.layout.entire:
            return self.A
        every = np.arange(self.layout.n_coef)
        return self.block(every, every)


@dataclass(frozen=True, eq=False)
class ArrowFactor:
    """Factor of a positive definite arrow.

    Parameters
    ----------
    layout : Layout
    schur : Factor
        Of T.
    T : Matrix, (p, p)
    C, G : Array, (n_levels, q, p) and (n_levels, q, q)
        D^-1 B and D^-1.
    logdet_levels : float
        log|D|.
    """

    layout: Layout
    schur: Factor
    T: Matrix
    C: Array
    G: Array
    logdet_levels: float

    @classmethod
    def of(cls, P: Arrow) -> ArrowFactor | None:
        """Factor P, or None where P is not numerically positive definite."""
        if not P.layout.levels.size:
            schur = Factor.of(P.A)
            none = np.zeros((0, 0, len(P.A)))
            return None if schur is None else cls(P.layout, schur, P.A, none, P.D, 0.0)
        blocks = _inverse_blocks(P.D)
        if blocks is None:
            return None
        G, logdet = blocks
        B = np.zeros((*P.layout.levels.shape, len(P.A))) if P.B is None else P.B
        C = G * B if G.shape[1] == 1 else G @ B
        rows, p = P.layout.levels.size, len(P.A)
        T = P.A - B.reshape(rows, p).T @ C.reshape(rows, p)
        T = (T + T.T) / 2.0
        # what is left of a diagonal entry must be more than the rounding of the difference
        if np.any(np.diagonal(T) <= p * _EPS * np.diagonal(P.A)):
            return None
        schur = Factor.of(T)
        return None if schur is None else cls(P.layout, schur, T, C, G, logdet)

    def solve(self, vector: Vector) -> Vector:
        """P^-1 vector, for a joint vector; zero in entries of neither part."""
        dense, levels = self.layout.split(vector)
        if not self.layout.levels.size:
            if self.layout.entire:
                return np.asarray(self.schur.solve(dense))
            return self.layout.join(self.schur.solve(dense), levels)
        top = self.schur.solve(dense - np.tensordot(levels, self.C, axes=2))
        bottom = np.einsum("lab,lb->la", self.G, levels) - self.C @ top
        return self.layout.join(top, bottom)

    def logdet(self) -> float:
        """log|P|."""
        return self.logdet_levels + self.schur.logdet()

    def inverse(self) -> Inverse:
        """P^-1."""
        return Inverse(self.layout, self.schur.inverse(), self.C, self.G)

    def on(self, U: Matrix) -> ArrowFactor | ProjectedFactor:
        """Factor of the part of P on the columns of U (p, r) and all levels."""
        inner = Factor.of(U.T @ self.T @ U)
        return self if inner is None else ProjectedFactor(self, U, inner)


@dataclass(frozen=True, eq=False)
class ProjectedFactor:
    """Factor of U_*' P U_*, U_* = diag(U, I): `inner` is that of U' T U."""

    factor: ArrowFactor
    U: Matrix
    inner: Factor

    def logdet(self) -> float:
        """log|U_*' P U_*|."""
        return self.factor.logdet_levels + self.inner.logdet()

    def inverse(self) -> Inverse:
        """U_* (U_*' P U_*)^-1 U_*'."""
        V = self.U @ self.inner.inverse() @ self.U.T
        return Inverse(self.factor.layout, V, self.factor.C, self.factor.G)


@dataclass(frozen=True, eq=False)
class Inverse:
    """The matrix G + E V E', zero in entries of neither part.

    Parameters
    ----------
    layout : Layout
    V : Matrix, (p, p)
    C, G : Array, (n_levels, q, p) and (n_levels, q, q)
    """

    layout: Layout
    V: Matrix = field(repr=False)
    C: Array = field(repr=False)
    G: Array = field(repr=False)

    @classmethod
    def dense(cls, V: Matrix) -> Inverse:
        """An ordinary matrix."""
        return cls(Layout.plain(len(V)), V, np.zeros((0, 0, len(V))), np.zeros((0, 0, 0)))

    @cached_property
    def CV(self) -> Array:
        """C V, (n_levels, q, p)."""
        return self.C @ self.V

    def level_blocks(self) -> Array:
        """Blocks of the levels, (n_levels, q, q)."""
        return np.asarray(self.G + self.CV @ self.C.transpose(0, 2, 1))

    def diagonal(self) -> Vector:
        """Diagonal for the joint vector."""
        if self.layout.entire:
            return np.asarray(np.diagonal(self.V).copy())
        levels = np.diagonal(self.G, axis1=1, axis2=2) + np.einsum("lap,lap->la", self.CV, self.C)
        return self.layout.join(np.diagonal(self.V), levels)

    def sample(self, n: int, *, seed: int) -> Matrix:
        """Draws from N(0, this matrix), (n, n_coef): E times one of V, plus one of G."""
        rng = np.random.default_rng(seed)
        mean = np.zeros(len(self.V))
        top = rng.multivariate_normal(mean, self.V, size=n, method="eigh")
        if self.layout.entire:
            return np.asarray(top)
        out = np.zeros((n, self.layout.n_coef))
        out[:, self.layout.dense] = top
        if self.layout.levels.size:
            roots = np.linalg.cholesky(self.G)
            for draw in range(n):
                noise = rng.standard_normal(self.layout.levels.shape)
                own = np.einsum("lab,lb->la", roots, noise) - self.C @ top[draw]
                out[draw, self.layout.levels] = own
        return out

    def reduced(self, entries: Array) -> Matrix:
        """Rows of E for joint entries, (n_entries, p)."""
        R = np.zeros((len(entries), len(self.V)))
        level, column = self.layout.level_of(entries)
        known = np.zeros(self.layout.n_coef, dtype=bool)
        known[self.layout.dense] = True
        dense = np.flatnonzero(known[entries])
        R[dense, self.layout.dense_at(entries[dense])] = 1.0
        inside = level >= 0
        R[inside] = -self.C[level[inside], column[inside]]
        return R

    def block(self, rows: Array, columns: Array) -> Matrix:
        """Rows and columns of the joint matrix, (n_rows, n_columns).

        Raises
        ------
        PredictionError
            It is larger than LARGEST.
        """
        if self.layout.entire:
            return np.asarray(self.V[np.ix_(rows, columns)])
        _refuse_large(len(rows) * len(columns))
        out = self.reduced(rows) @ self.V @ self.reduced(columns).T
        own = Arrow(self.layout, np.zeros_like(self.V), None, self.G)
        return np.asarray(out + own.block(rows, columns))

    def matrix(self) -> Matrix:
        """The joint matrix, (n_coef, n_coef)."""
        if self.layout.entire:
            return self.V
        if not self.layout.levels.size:
            out = np.zeros((self.layout.n_coef, self.layout.n_coef))
            out[np.ix_(self.layout.dense, self.layout.dense)] = self.V
            return out
        every = np.arange(self.layout.n_coef)
        return self.block(every, every)


def _diagonals(values: Matrix) -> Array:
    """Diagonal matrices (n, q, q) of rows (n, q)."""
    out = np.zeros((*values.shape, values.shape[1]))
    index = np.arange(values.shape[1])
    out[:, index, index] = values
    return out


def _inverse_blocks(D: Array) -> tuple[Array, float] | None:
    """D_l^-1 and log|D|, or None where a block is not numerically positive definite."""
    diagonal = np.diagonal(D, axis1=1, axis2=2)
    if not np.all(np.isfinite(diagonal)) or np.any(diagonal <= 0.0):
        return None
    if D.shape[1] == 1:
        return 1.0 / D, float(np.log(diagonal).sum())
    d = 1.0 / np.sqrt(diagonal)
    scaled = D * d[:, :, None] * d[:, None, :]
    try:
        L = np.linalg.cholesky(scaled)
    except np.linalg.LinAlgError:
        return None
    pivots = np.diagonal(L, axis1=1, axis2=2)
    if pivots.min() ** 2 < D.shape[1] * _EPS:
        return None
    inverse = np.linalg.inv(scaled)
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2.0
    logdet = 2.0 * float(np.log(pivots).sum() - np.log(d).sum())
    return inverse * d[:, :, None] * d[:, None, :], logdet


def _same_level(rows: Array, columns: Array) -> tuple[Array, Array]:
    """Pairs (i, j) with rows[i] == columns[j]; levels are distinct among the rows."""
    order = np.argsort(rows, kind="stable")
    if not len(rows):
        return order, order
    at = np.minimum(np.searchsorted(rows[order], columns), len(rows) - 1)
    j = np.flatnonzero(rows[order][at] == columns)
    return order[at[j]], j


def _refuse_large(n: int) -> None:
    """Refuse dense matrices that do not fit into memory."""
    if n * 8 > LARGEST:
        raise PredictionError(
            f"the covariance matrix of these coefficients takes {n * 8 / 2**30:.1f} GiB "
            f"({LARGEST / 2**30:g} GiB are the limit); standard errors, bands and predictions "
            "do not need it."
        )
