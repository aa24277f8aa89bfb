"""Penalties on the coefficients of one block, without their smoothing parameters (METHODS 1, 2).

The objective adds, on the sum scale,

    sum_j lam_j * value_j(coef),    value(coef) = 1/2 coef' S coef   for a quadratic penalty,

so a penalty knows its matrix and rank and nothing of lam, which the smoothing selection owns.
Constraints act on penalties as on columns: X Z goes with Z' S Z (`project`).

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.4 and 6.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np

from deepregress.linalg import Matrix, Vector

# Eigenvalues of Z' S Z below this fraction of the largest are rounding error of the product. The
# smallest true ones of a second-difference penalty are (pi / k)^4 of the largest: 1e-8 at k = 300.
RANK_TOLERANCE = 1e-12


class Penalty(ABC):
    """A penalty on the coefficients of a block, to be multiplied by its smoothing parameter."""

    @abstractmethod
    def value(self, coef: Vector) -> float:
        """Return the penalty at `coef` (n_coef,), on the sum scale and for lam = 1."""

    @abstractmethod
    def project(self, Z: Matrix) -> Penalty:
        """Return the penalty of the coefficients c in coef = Z c, Z (n_coef, n_constrained)."""


@dataclass(frozen=True, eq=False)
class Quadratic(Penalty):
    """Quadratic penalty 1/2 coef' S coef.

    Parameters
    ----------
    S : Matrix or Vector
        Symmetric, positive semi-definite penalty matrix, shape (n_coef, n_coef), or the diagonal of
        one that is nothing else, shape (n_coef,).
    rank : int
        Rank of S: n_coef minus the dimension of its null space.
    """

    S: Matrix | Vector
    rank: int

    @classmethod
    def of(cls, S: Matrix | Vector) -> Quadratic:
        """Return the penalty of S, whose rank is counted."""
        return cls(S, _rank(S))

    def value(self, coef: Vector) -> float:
        """Return 1/2 coef' S coef."""
        return 0.5 * float(coef @ (self.S * coef if self.S.ndim == 1 else self.S @ coef))

    def project(self, Z: Matrix) -> Quadratic:
        """Return the penalty Z' S Z, with its rank."""
        projected = Z.T @ as_matrix(self.S) @ Z
        projected = 0.5 * (projected + projected.T)
        return Quadratic(projected, min(self.rank, _rank(projected)))


@dataclass(frozen=True, eq=False)
class PlacedPenalty:
    """A quadratic penalty 1/2 lam c' S c on the coefficients `index` of one predictor.

    Parameters
    ----------
    label : str
        Term it belongs to.
    index : slice
        Its coefficients, counted within the predictor.
    S : Matrix
        In mgcv's scaling, so that lam is mgcv's `sp` where there is no dispersion, shape (p, p), or
        its diagonal (p,).
    rank : int
        Rank of S.
    sp : float or None
        Fixed smoothing parameter.
    df : float or None
        Fixed effective degrees of freedom.
    """

    label: str
    index: slice
    S: Matrix | Vector = field(repr=False)
    rank: int
    sp: float | None = None
    df: float | None = None


def joined(first: PlacedPenalty, second: PlacedPenalty) -> PlacedPenalty:
    """Return the sum of two penalties on different coefficients, the first of which come first."""
    start, stop = first.index.start, second.index.stop
    one_dimensional = first.S.ndim == second.S.ndim == 1
    S = np.zeros(stop - start) if one_dimensional else np.zeros((stop - start, stop - start))
    for each in (first, second):
        index = slice(each.index.start - start, each.index.stop - start)
        if one_dimensional:
            S[index] = each.S
        else:
            S[index, index] = as_matrix(each.S)
    rank = first.rank + second.rank
    return replace(first, index=slice(start, stop), S=S, rank=rank)


def as_matrix(S: Matrix | Vector) -> Matrix:
    """The matrix of which S may be the diagonal only."""
    return np.diag(S) if S.ndim == 1 else S


def _rank(S: Matrix | Vector) -> int:
    if S.ndim == 1:
        return int(np.sum(S > 0.0))
    eigenvalues = np.linalg.eigvalsh(S)
    if eigenvalues.size == 0 or eigenvalues[-1] <= 0.0:
        return 0
    return int(np.sum(eigenvalues > RANK_TOLERANCE * eigenvalues[-1]))
