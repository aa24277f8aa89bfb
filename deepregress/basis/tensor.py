"""Tensor products of bases, `te` and `ti`: functions of covariates in different units (METHODS 2).

With marginal columns A_j(x_j) (n, k_j) and penalties S_j, after the steps below, the columns are
the row-wise Kronecker product with the first margin outermost, with one penalty per margin:

    X_i = A_1(x_i1) (x) .. (x) A_d(x_id),    S_(j) = I (x) .. (x) S_j / d_max(S_j) (x) .. (x) I

1. `ti`: A_j <- A_j Z_j with Z_j' (sum of the rows of A_j) = 0, so that no main effect is spanned.
2. A_j <- A_j P_j^-1 with P_j the columns at k_j even points over the range: coefficients become
   function values, and the penalties measure wiggliness along lines of the surface. Not for
   bases of values (cr, cs, cc), of several covariates, or whose P_j is singular (cp).
3. S_j is divided by its largest eigenvalue d_max.

Outside the data each margin goes on as its own basis does. Centring `te` is left to the caller.

References: Wood 2006, doi:10.1111/j.1541-0420.2006.00574.x; Wood 2017, sec. 5.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import scipy.linalg

from deepregress.basis.base import Basis, Request, as_rows, ask, build, centre, row_chunks
from deepregress.errors import FormulaError
from deepregress.linalg import Matrix, Vector

DEFAULT_K = 5
# Coefficients of these bases are function values already.
BASES_OF_VALUES = ("cr", "cs", "cc")
# Points at which the functions are this close to dependent cannot stand for the coefficients.
SINGULAR = float(np.finfo(np.float64).eps) ** (2.0 / 3.0)

Order = int | Sequence[float] | None


@dataclass(frozen=True, eq=False)
class Marginal:
    """What is asked of one margin; the options are those of `basis.construct`.

    Parameters
    ----------
    bs : str or None
        Name of the basis; None for "cr", or "tp" of several covariates.
    k : int or None
        Number of basis functions; None for 5 to the power of `dim`.
    m, knots
        Order of the penalty and knots.
    dim : int
        Number of covariates.
    """

    bs: str | None = None
    k: int | None = None
    m: Order = None
    knots: Matrix | Sequence[float] | None = None
    dim: int = 1

    def request(self, x: Matrix, label: str) -> Request:
        """Return the request for the margin's basis on its training rows x (n, dim)."""
        bs = self.bs or ("cr" if self.dim == 1 else "tp")
        k = DEFAULT_K**self.dim if self.k is None else self.k
        return ask(bs, x, k=k, m=self.m, knots=self.knots, label=label)


@dataclass(frozen=True, eq=False)
class Margin:
    """One marginal basis of a tensor product and its reparametrisation.

    Parameters
    ----------
    basis : Basis
        The basis, as it would be on its own.
    transform : Matrix
        Columns of the product are `basis.evaluate(x) @ transform`, shape (basis.k, k).
    dim : int
        Number of covariates.
    """

    basis: Basis
    transform: Matrix
    dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the columns at x (n, dim), shape (n, k)."""
        return self.basis.evaluate(x) @ self.transform


@dataclass(frozen=True, eq=False)
class Tensor(Basis):
    """Tensor product of marginal bases.

    Parameters
    ----------
    margins : tuple of Margin
        Marginal bases, in the order of the covariates.
    penalties : tuple of Matrix
        Raw penalties, one per margin, each (k, k).
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    margins: tuple[Margin, ...]
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x (n, d), shape (n, k)."""
        rows = as_rows(x)
        columns = np.empty((len(rows), self.k))
        for part in row_chunks(len(rows), self.k):
            pieces, start = [], 0
            for margin in self.margins:
                pieces.append(margin.evaluate(rows[part, start : start + margin.dim]))
                start += margin.dim
            columns[part] = reduce(_row_kronecker, pieces)
        return columns


def marginals(
    d: int,
    *,
    bs: str | Sequence[str] | None = None,
    k: int | Sequence[int | None] | None = None,
    m: int | Sequence[Order] | None = None,
    knots: Sequence[Matrix | Sequence[float] | None] | None = None,
    dims: Sequence[int] | None = None,
    label: str = "",
) -> tuple[Marginal, ...]:
    """Spread the options of a tensor product of d covariates over its margins.

    Parameters
    ----------
    d : int
        Number of covariates.
    bs : str or sequence of str, optional
        Basis of all margins, or one per margin; "cr" by default, "tp" for several covariates.
    k : int or sequence of int, optional
        Size of all marginal bases, or one per margin; 5 to the power of its dimension by default.
    m : int or sequence, optional
        Order of the penalty of all margins, or one entry per margin (a number, a tuple, None).
    knots : sequence, optional
        Knots per margin; None for the default ones.
    dims : sequence of int, optional
        Number of covariates per margin, mgcv's `d`; 1 each by default.
    label : str, optional
        The term as the user wrote it, for messages.

    Raises
    ------
    FormulaError
        An option does not fit the number of margins.
    """
    sizes = (1,) * d if dims is None else tuple(dims)
    if sum(sizes) != d or min(sizes, default=0) < 1:
        raise _refusal(label, f"d must be counts that sum to the {d} covariates, got {dims}.")
    n = len(sizes)
    return tuple(
        Marginal(*options)
        for options in zip(
            _per_margin(bs, n, "bs", label),
            _per_margin(k, n, "k", label),
            _per_margin(m, n, "m", label),
            _per_margin(knots, n, "knots", label),
            sizes,
            strict=True,
        )
    )


def construct(
    x: Matrix,
    asked: Sequence[Marginal],
    *,
    centred: bool | Sequence[bool] = False,
    function_values: bool = True,
    label: str = "",
) -> Tensor:
    """Construct a tensor product basis from the training rows.

    Parameters
    ----------
    x : Matrix
        Finite covariate values of the training rows, shape (n, d).
    asked : sequence of Marginal
        The margins, from `marginals`.
    centred : bool or sequence of bool
        Centre the margins first (`ti`), all or some of them; then the product needs no constraint
        of its own.
    function_values : bool
        Reparametrise the margins to function values, mgcv's `np`.
    label : str, optional
        The term as the user wrote it, for messages.

    Returns
    -------
    Tensor
        Its `penalties` are raw: not scaled by `penalty_scale`, not constrained.

    Raises
    ------
    FormulaError
        A margin cannot be constructed.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).uniform(size=(50, 2))
    >>> built = construct(x, marginals(2, k=(4, 5)))
    >>> built.evaluate(x).shape, len(built.penalties), built.null_dim
    ((50, 20), 2, 4)
    """
    rows, start = as_rows(x), 0
    margins, penalties, null_dims = [], [], []
    flags = (centred,) * len(asked) if isinstance(centred, bool) else tuple(centred)
    if len(flags) != len(asked):
        raise _refusal(label, f"mc needs one entry for each of the {len(asked)} margins.")
    for each, flag in zip(asked, flags, strict=True):
        request = each.request(rows[:, start : start + each.dim], label)
        margin, S, null_dim = _margin(request, centred=flag, function_values=function_values)
        margins.append(margin)
        penalties.append(S)
        null_dims.append(null_dim)
        start += each.dim
    return Tensor(tuple(margins), _kronecker_penalties(penalties), math.prod(null_dims))


def _margin(
    request: Request, *, centred: bool, function_values: bool
) -> tuple[Margin, Matrix, int]:
    """Return a margin, its penalty over the largest eigenvalue, and its null space dimension."""
    basis = build(request.bs, request)
    if len(basis.penalties) != 1:
        raise request.refuse(
            f"a margin has one penalty; m = {request.m} of basis {request.bs!r} asks for "
            f"{len(basis.penalties)}."
        )
    null_dim = basis.null_dim
    transform = np.eye(basis.k)
    if centred:
        transform = centre(_column_sums(basis, request.x))
        # The constant is the function that the constraint takes away; ts and cs penalise it.
        null_dim = max(0, null_dim - 1)
    if function_values and request.x.shape[1] == 1 and request.bs not in BASES_OF_VALUES:
        transform = _to_function_values(basis, transform, request.x[:, 0])
    S = transform.T @ basis.penalties[0] @ transform
    S = 0.5 * (S + S.T)
    largest = float(np.linalg.eigvalsh(S)[-1])
    return Margin(basis, transform, request.x.shape[1]), S / largest, null_dim


def _to_function_values(basis: Basis, transform: Matrix, x: Vector) -> Matrix:
    """Return transform P^-1, P the columns at even points over x; transform if P is singular."""
    points = np.linspace(x.min(), x.max(), transform.shape[1])
    U, d, Vt = scipy.linalg.svd(basis.evaluate(points) @ transform)
    if d[-1] < SINGULAR * d[0]:
        return transform
    return np.asarray(transform @ ((Vt.T / d) @ U.T))


def _column_sums(basis: Basis, x: Matrix) -> Vector:
    sums = np.zeros(basis.k)
    for part in row_chunks(len(x), basis.k):
        sums += basis.evaluate(x[part]).sum(axis=0)
    return sums


def _kronecker_penalties(penalties: Sequence[Matrix]) -> tuple[Matrix, ...]:
    """Return I (x) .. (x) S_j (x) .. (x) I for each margin j."""
    products = []
    for j, S in enumerate(penalties):
        product: Matrix = np.ones((1, 1))
        for i, other in enumerate(penalties):
            product = np.asarray(np.kron(product, S if i == j else np.eye(len(other))))
        products.append(product)
    return tuple(products)


def _row_kronecker(A: Matrix, B: Matrix) -> Matrix:
    """Return the Kronecker products of the rows of A (n, a) and B (n, b), shape (n, a b)."""
    return (A[:, :, None] * B[:, None, :]).reshape(len(A), -1)


def _per_margin(value: Any, n: int, option: str, label: str) -> tuple[Any, ...]:
    """Return an option per margin: one for each, or the same for all."""
    if value is None or isinstance(value, (str, int)):
        return (value,) * n
    if not isinstance(value, Sequence) or len(value) != n:
        raise _refusal(label, f"{option} needs one entry for each of the {n} margins, got {value}.")
    return tuple(value)


def _refusal(label: str, reason: str) -> FormulaError:
    return FormulaError(f"{label}: {reason}" if label else reason)
