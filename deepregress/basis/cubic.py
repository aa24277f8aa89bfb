"""Cubic regression splines, `bs="cr"`: coefficients are the values at k knots (METHODS 2).

With h_i = u_(i+1) - u_i the curvatures g at the knots of the natural cubic spline through the
values v solve a tridiagonal system, and the penalty follows from it:

    B g_interior = D v,    integral of f''(x)^2 dx = v' D' B^-1 D v

    D_(i,i) = 1 / h_i,  D_(i,i+1) = -1 / h_i - 1 / h_(i+1),  D_(i,i+2) = 1 / h_(i+1)
    B_(i,i) = (h_i + h_(i+1)) / 3,  B_(i,i+1) = B_(i+1,i) = h_(i+1) / 6

Knots are the quantiles (type 7) of the unique values. Outside them the spline is linear.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.3.1.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from deepregress.basis.base import NaturalCubic, Request, register
from deepregress.linalg import Matrix, Vector

DEFAULT_K = 10


@register("cr")
def cubic_regression(request: Request) -> NaturalCubic:
    """Construct the cubic regression spline of one covariate."""
    knots = _knots(request)
    curvatures, S = natural_spline(knots)
    return NaturalCubic(knots, np.eye(len(knots)), curvatures, (S,), null_dim=2)


def natural_spline(knots: Vector) -> tuple[Matrix, Matrix]:
    """Return the map from values to curvatures at the knots, and the integral of f''^2.

    Both have shape (k, k): `g = curvatures @ v` and `v @ S @ v`.
    """
    h = np.diff(knots)
    k = len(knots)
    D = np.zeros((k - 2, k))
    row = np.arange(k - 2)
    D[row, row] = 1.0 / h[:-1]
    D[row, row + 1] = -1.0 / h[:-1] - 1.0 / h[1:]
    D[row, row + 2] = 1.0 / h[1:]
    B = np.diag((h[:-1] + h[1:]) / 3.0)
    B[row[1:], row[:-1]] = B[row[:-1], row[1:]] = h[1:-1] / 6.0
    curvatures = np.zeros((k, k))
    curvatures[1:-1] = scipy.linalg.solve(B, D, assume_a="pos")
    S = D.T @ curvatures[1:-1]
    return curvatures, 0.5 * (S + S.T)


def _knots(request: Request) -> Vector:
    request.line()
    given = request.sorted_knots()
    default = DEFAULT_K if given is None else len(given)
    k = request.size(default, 3, "two ends and a knot between")
    if given is None:
        unique = request.unique(k, least=k)[:, 0]
        return np.quantile(unique, np.linspace(0.0, 1.0, k))
    if len(given) != k:
        raise request.refuse(
            f"basis {request.bs!r} with k = {k} needs {k} knots, got {len(given)}."
        )
    return given
