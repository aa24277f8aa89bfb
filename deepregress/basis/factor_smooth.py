"""Factor-smooth interactions, `bs="fs"`: one smooth per level of a factor (METHODS 2).

All levels share their smoothing parameters, and nothing is left unpenalised, so the smooths are
random curves. From a basis with columns X (n, k) and penalty S over all rows, X = Q R:

    R^-T S R^-1 = U diag(d) U',    penalised functions  X R^-1 U / d^(1/2), scaled to mean square 1
                                   in the mean over them, with the penalty c I
    null space of S                orthonormal over the rows: the constant first, then what is left,
                                   each direction with a penalty of its own, the identity
    columns of level g             those columns in its rows, 0 elsewhere; levels are outermost

mgcv takes other directions of the null space, as they come from its eigendecomposition. Where their
penalties are equal the fits agree; else the constant has its own penalty here, so that random
intercepts and random slopes are separate. A row of no level has zero columns: the mean curve.

References: Wood 2017, sec. 5.10 and 7.7.4; Baayen, van Rij, de Cat and Wood 2018,
doi:10.1007/978-3-319-69830-4_4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from deepregress.basis.base import Basis, LevelBasis, ask, build, diagonal_penalty, row_chunks
from deepregress.linalg import Array, Matrix, Vector, null_space, triangular_factor

DEFAULT_K = 10
NO_LEVEL = -1


@dataclass(frozen=True, eq=False)
class FactorSmooth(LevelBasis):
    """One smooth per level.

    Parameters
    ----------
    spline : Basis
        Basis of the covariates.
    transform : Matrix
        Columns of each level are `spline.evaluate(x) @ transform`, shape (spline.k, p).
    n_levels : int
        Number of levels.
    penalties : tuple
        Raw penalties: of the penalised functions, then of each direction of their null space.
    null_dim : int
        Zero.
    """

    spline: Basis
    transform: Matrix
    n_levels: int
    penalties: tuple[Matrix | Vector, ...]
    null_dim: int

    @property
    def n_values(self) -> int:
        """As many columns of each level as the transform has."""
        return int(self.transform.shape[1])

    def by_level(self, x: Matrix) -> tuple[Array, Matrix]:
        """Return the level of each row and its columns at x (n, d + 1), shape (n, p).

        x holds the covariates and the position of the level; position -1 stands for no level.
        """
        return x[:, -1].astype(np.int64), self.curves(x[:, :-1])

    def curves(self, x: Matrix) -> Matrix:
        """Return the columns that a level has at x (n, d), shape (n, p)."""
        return self.spline.evaluate(x) @ self.transform


def construct(
    x: Matrix,
    n_levels: int,
    *,
    bs: str = "tp",
    k: int | None = None,
    m: int | Sequence[float] | None = None,
    knots: Matrix | Sequence[float] | None = None,
    label: str = "",
) -> FactorSmooth:
    """Construct a factor-smooth interaction from the training rows.

    Parameters
    ----------
    x : Matrix
        Finite covariate values of the training rows, shape (n,) or (n, d).
    n_levels : int
        Number of levels of the factor.
    bs : str, optional
        Basis of the covariates, mgcv's `xt`.
    k : int, optional
        Number of basis functions per level, 10 by default.
    m, knots, label
        As in `basis.construct`.

    Raises
    ------
    FormulaError
        The basis cannot be constructed, or has several penalties.

    Examples
    --------
    >>> import numpy as np
    >>> built = construct(np.linspace(0.0, 1.0, 50), 3, k=5)
    >>> built.evaluate(np.array([[0.2, 0.0], [0.2, 2.0]])).shape, len(built.penalties)
    ((2, 15), 3)
    """
    request = ask(bs, x, k=DEFAULT_K if k is None else k, m=m, knots=knots, label=label)
    spline = build(request.bs, request)
    if len(spline.penalties) != 1:
        raise request.refuse("a factor-smooth interaction takes a basis with one penalty.")
    R = _factor(spline, request.x)
    S = spline.penalties[0]
    n, n_wiggly = len(request.x), spline.k - spline.null_dim
    inverse = scipy.linalg.solve_triangular(R, np.eye(spline.k))
    d, U = scipy.linalg.eigh(inverse.T @ S @ inverse)
    d, U = d[::-1][:n_wiggly], U[:, ::-1]
    mean_square = float(np.mean(1.0 / d)) / n
    wiggly = inverse @ U[:, :n_wiggly] / np.sqrt(d * mean_square)
    null = np.sqrt(n) * inverse @ _constant_first(R, spline, request.x, U[:, n_wiggly:])
    penalties = [np.repeat([1.0 / mean_square, 0.0], [n_wiggly, spline.null_dim])]
    penalties += list(np.eye(spline.k)[n_wiggly:])
    return FactorSmooth(
        spline,
        np.hstack([wiggly, null]),
        n_levels,
        tuple(diagonal_penalty(np.tile(each, n_levels)) for each in penalties),
        null_dim=0,
    )


def _constant_first(R: Matrix, spline: Basis, x: Matrix, null: Matrix) -> Matrix:
    """Return the null space, orthonormal columns (k, null_dim), with the constant first."""
    if null.shape[1] < 2:
        return null
    # The constant is X a = 1, and R a its coefficients in the columns of Q = X R^-1.
    sums = np.zeros(spline.k)
    for part in row_chunks(len(x), spline.k):
        sums += spline.evaluate(x[part]).sum(axis=0)
    constant = null.T @ scipy.linalg.solve_triangular(R, sums, trans="T")
    constant /= np.linalg.norm(constant)
    return np.column_stack([null @ constant, null @ null_space(constant[:, None])])


def _factor(spline: Basis, x: Matrix) -> Matrix:
    """Return R of X = Q R over the rows x."""
    R: Matrix | None = None
    for part in row_chunks(len(x), spline.k):
        R = triangular_factor(spline.evaluate(x[part]), R)
    return np.zeros((spline.k, spline.k)) if R is None else R
