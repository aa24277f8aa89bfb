"""Bases whose penalty has no null space: `bs="ts"` and `bs="cs"` (METHODS 2).

tp and cr with the zero eigenvalues of the penalty S = U diag(d) U' replaced by small multiples of
d_min, its least positive eigenvalue, so that a large smoothing parameter takes the term to zero:

    ts   0.1 d_min for all of them
    cs   0.1 d_min for the line that is zero at the first knot, 0.01 d_min for what is left

The two directions of cs are those that mgcv mostly arrives at; there they hang on the rounding
errors of an eigendecomposition. Columns, knots and extrapolation (linear) are those of tp and cr.

References: Marra and Wood 2011, doi:10.1016/j.csda.2011.02.004; Wood 2017, sec. 5.4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from deepregress.basis.base import Basis, Request, build, register
from deepregress.linalg import Matrix, Vector, null_space

# A zero eigenvalue becomes this multiple of the least positive one; the second of cs, its square.
SHRINKAGE = 0.1


@dataclass(frozen=True, eq=False)
class Shrunk(Basis):
    """A basis with a penalty of full rank instead of its own.

    Parameters
    ----------
    spline : Basis
        The basis whose functions are used.
    penalties : tuple of Matrix
        Raw penalty (k, k), positive definite.
    null_dim : int
        Zero.
    """

    spline: Basis
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        return self.spline.evaluate(x)


@register("ts")
def shrunk_thin_plate(request: Request) -> Shrunk:
    """Construct the thin plate regression spline with a penalised null space."""
    basis = build("tp", request)
    least, null = _null_vectors(basis)
    return _penalised(basis, null, np.full(basis.null_dim, SHRINKAGE * least))


@register("cs")
def shrunk_cubic(request: Request) -> Shrunk:
    """Construct the cubic regression spline with a penalised null space."""
    basis = build("cr", request)
    least, null = _null_vectors(basis)
    at_first_knot = null[:1].T
    first = null @ null_space(at_first_knot)
    second = null @ at_first_knot / np.linalg.norm(at_first_knot)
    shrunk = least * SHRINKAGE ** np.array([1.0, 2.0])
    return _penalised(basis, np.hstack([first, second]), shrunk)


def _null_vectors(basis: Basis) -> tuple[float, Matrix]:
    """Return the least positive eigenvalue of the penalty and its null vectors (k, null_dim)."""
    values, vectors = scipy.linalg.eigh(basis.penalties[0])
    return float(values[basis.null_dim]), vectors[:, : basis.null_dim]


def _penalised(basis: Basis, null: Matrix, eigenvalues: Vector) -> Shrunk:
    """Return the basis with these eigenvalues on the directions `null` of its penalty."""
    S = basis.penalties[0] + (null * eigenvalues) @ null.T
    return Shrunk(basis, (0.5 * (S + S.T),), null_dim=0)
