"""Linear algebra shared by the design leg, the objective and the solvers (floor 0).

Type aliases of the package and small dense kernels that occur in several steps of the method.

    Vector (n,), Matrix (n, p): float64 arrays
    null_space(A): Z (k, k - m) with A' Z = 0 and Z' Z = I

References: Golub and Van Loan, "Matrix Computations", 4th ed. 2013, ch. 5.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse.linalg
import threadpoolctl

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


def null_space(A: Matrix) -> Matrix:
    """Orthonormal basis of the vectors orthogonal to the columns of A.

    The last k - m columns of the product of the m Householder reflections that bring A to upper
    triangular form, so Z is a smooth function of A and the same on every machine.

    Parameters
    ----------
    A : Matrix
        Constraint vectors as columns, shape (k, m) with m <= k and full column rank.

    Returns
    -------
    Matrix
        Z with `A.T @ Z = 0` and `Z.T @ Z = I`, shape (k, k - m).
    """
    Q, _ = scipy.linalg.qr(A, mode="full")
    return np.ascontiguousarray(Q[:, A.shape[1] :])


# From this size on, few extreme eigenpairs by Lanczos cost less than all of them.
LANCZOS_SIZE = 100
# The start vector of Lanczos must not change between fits.
_LANCZOS_SEED = 0


def extreme_eigenpairs(E: Matrix, k: int, *, lanczos: int = LANCZOS_SIZE) -> tuple[Matrix, Vector]:
    """Eigenvectors (n, k) and eigenvalues (k,) largest in magnitude of a symmetric E, ascending.

    The order, by signed value, decides the columns of the thin plate basis and with them mgcv's
    penalty scale. `lanczos` is the size from which on they are found by Lanczos iterations.
    """
    n = len(E)
    if n >= lanczos and 4 * k < n:
        start: Vector = np.random.default_rng(_LANCZOS_SEED).standard_normal(n)
        values, vectors = scipy.sparse.linalg.eigsh(E, k, which="LM", v0=start)
    else:
        values, vectors = scipy.linalg.eigh(E)
        kept = np.sort(np.argsort(-np.abs(values), kind="stable")[:k])
        values, vectors = values[kept], vectors[:, kept]
    ascending = np.argsort(values)
    return np.ascontiguousarray(vectors[:, ascending]), values[ascending]


def submatrix(M: Matrix, index: Array) -> Matrix:
    """M[index, index], (m, m): whole rows first, several times as fast as one by one."""
    return np.asarray(M[index].take(index, axis=1))


def sandwich(P: Matrix, M: Matrix) -> Matrix | None:
    """P^-1 M P^-1 of symmetric matrices, or None where P is not positive definite."""
    factor = Factor.of(P)
    if factor is None:
        return None
    V = factor.solve(factor.solve(M).T)
    return np.asarray((V + V.T) / 2.0)


def nearest_semidefinite(H: Matrix, S: Matrix) -> Matrix | None:
    """H with its negative eigenvalues raised to zero, in the metric H + S.

    At a penalised maximum H + S is positive definite but H need not be; a negative information
    would give negative degrees of freedom. mgcv raises them too, in a metric of its own. This one
    is the same for all bases that span the same functions: with H + S = C C',

        (H + S)^-1 H has the eigenvalues of C^-1 H C^-T, of which those below 0 are raised.

    Where H + S is not positive definite, C is the root of its diagonal. None where numbers are too
    small or large for that.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        C = _root(H + S)
        if not (np.isfinite(C).all() and np.isfinite(H).all()):
            return None
        half = scipy.linalg.solve_triangular(C, H, lower=True)
        shares = scipy.linalg.solve_triangular(C, half.T, lower=True)
    if not np.isfinite(shares).all():
        return None
    # halves first: a sum may be larger than any number
    values, vectors = scipy.linalg.eigh(shares / 2.0 + shares.T / 2.0)
    if not np.isfinite(values).all():
        return None
    if values.size == 0 or values[0] >= 0.0:
        return H
    below = C @ (vectors * np.sqrt(np.maximum(-values, 0.0)))
    return np.asarray(H + below @ below.T)


def _root(P: Matrix) -> Matrix:
    """Lower triangular C with C C' = P, or of its diagonal where P is not positive definite."""
    factor = Factor.of(P)
    if factor is None:
        return np.diag(np.sqrt(np.maximum(np.diagonal(P), np.finfo(float).tiny)))
    return factor.L / factor.d[:, None]


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    # looking the loaded libraries up takes longer than a small fit: once, after NumPy's and SciPy's
    return threadpoolctl.ThreadpoolController()


def one_blas_thread() -> contextlib.AbstractContextManager[object]:
    """Hold BLAS to one thread while the context lasts.

    The products of a fit are tall and thin: a second BLAS thread spins more than it works, and
    rows in chunks keep further cores busy instead.
    """
    limiter: contextlib.AbstractContextManager[object] = _blas().limit(limits=1, user_api="blas")
    return limiter


# Rows per chunk of a QR by rows: a few dozen columns of it stay in cache.
QR_ROWS = 4096


def triangular_factor(X: Matrix, earlier: Matrix | None = None) -> Matrix:
    """R of X = Q R, by rows: R = qr([R; chunk]) chunk after chunk, without Q.

    Parameters
    ----------
    X : Matrix
        Columns, shape (n, p).
    earlier : Matrix, optional
        Factor of the rows before these, shape (m, p).

    Returns
    -------
    Matrix
        Upper triangular R with R'R = X'X (plus that of the earlier rows), shape (min(n, p), p).
    """
    R = np.zeros((0, X.shape[1])) if earlier is None else earlier
    for start in range(0, X.shape[0], QR_ROWS):
        stacked = np.concatenate([R, X[start : start + QR_ROWS]])
        R = scipy.linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0]
        R = R[: min(stacked.shape)]
    return R


@dataclass(frozen=True)
class Factor:
    """Cholesky factor of a positive definite P after scaling its diagonal to one.

    d_i = P_ii^(-1/2),  L L' = diag(d) P diag(d).  Penalised Hessians mix columns of very different
    scale and smoothing parameters over ten decades; the scaling removes that part of the condition.
    """

    L: Matrix
    d: Vector

    @classmethod
    def of(cls, P: Matrix) -> Factor | None:
        """Factor P, or None where P is not numerically positive definite."""
        diagonal = np.diagonal(P)
        if not np.all(np.isfinite(diagonal)) or np.any(diagonal <= 0):
            return None
        d = 1.0 / np.sqrt(diagonal)
        L, info = scipy.linalg.lapack.dpotrf(d[:, None] * P * d, lower=1, clean=1)
        # a pivot below the rounding of the scaled diagonal means P is singular to working precision
        if info != 0 or (len(d) and np.diagonal(L).min() ** 2 < len(d) * np.finfo(float).eps):
            return None
        return cls(L, d)

    def solve(self, b: Array) -> Array:
        """P^-1 b."""
        scaled = (self.d * b.T).T
        return np.asarray((self.d * scipy.linalg.cho_solve((self.L, True), scaled).T).T)

    def half(self, b: Matrix) -> Matrix:
        """A (n, m) with A'A = b' P^-1 b, for b (n, m)."""
        scaled = self.d[:, None] * b
        return np.asarray(scipy.linalg.solve_triangular(self.L, scaled, lower=True))

    def inverse(self) -> Matrix:
        """P^-1."""
        if not len(self.d):
            return np.zeros((0, 0))
        inverse, _ = scipy.linalg.lapack.dpotri(self.L, lower=1)
        lower = np.tril(inverse)
        full = lower + np.tril(inverse, -1).T
        return np.asarray(self.d[:, None] * full * self.d)

    def logdet(self) -> float:
        """log |P|."""
        return float(2.0 * (np.log(np.diagonal(self.L)).sum() - np.log(self.d).sum()))
