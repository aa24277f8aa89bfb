"""Cyclic bases: cubic splines `bs="cc"` and P-splines `bs="cp"` on one period (METHODS 2).

Value, slope and curvature agree where the period closes. `cc`: coefficients are the values at the
knots u_1..u_(k-1), and with u_k = u_1 + period and h_i = u_(i+1) - u_i, indices modulo k - 1,

    B g = D v,    integral over a period of f''(x)^2 dx = v' D' B^-1 D v
    D_(i,i-1) = 1 / h_(i-1),  D_(i,i) = -1 / h_(i-1) - 1 / h_i,  D_(i,i+1) = 1 / h_i
    B_(i,i-1) = h_(i-1) / 6,  B_(i,i) = (h_(i-1) + h_i) / 3,     B_(i,i+1) = h_i / 6

`cp`: k + 1 knots in equal steps over the period, B-splines joined at its ends, S = D' D with
circular differences. The period is the range of the data, or goes from the first to the last of the
user's knots. All rows, in training and in prediction, are moved into it: nothing is extrapolated.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.3.2 and 5.3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from deepregress.basis.base import (
    Basis,
    BSplines,
    NaturalCubic,
    Request,
    as_rows,
    distinct,
    register,
    row_chunks,
)
from deepregress.linalg import Matrix, Vector

DEFAULT_K = 10


@dataclass(frozen=True, eq=False)
class Cyclic(Basis):
    """Splines on one period; what goes beyond the last of k functions is joined to the first.

    Parameters
    ----------
    spline : Basis
        k functions or more on the period; column k + j is added to column j.
    start : float
        Where the period starts.
    period : float
        Its length.
    penalties : tuple of Matrix
        Raw penalties, each (k, k).
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    spline: Basis
    start: float
    period: float
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        points = as_rows(x)[:, 0]
        columns = np.empty((len(points), self.k))
        for part in row_chunks(len(points), self.k):
            inside = self.start + np.mod(points[part] - self.start, self.period)
            whole = self.spline.evaluate(inside)
            columns[part] = whole[:, : self.k]
            joined = whole.shape[1] - self.k
            columns[part, :joined] += whole[:, self.k :]
        return columns


@register("cc")
def cyclic_cubic(request: Request) -> Cyclic:
    """Construct the cyclic cubic spline of one covariate: k knots, k - 1 functions."""
    knots = _cubic_knots(request)
    curvatures, S = periodic_spline(knots)
    around = np.arange(len(knots)) % (len(knots) - 1)
    values = np.eye(len(knots) - 1)[around]
    spline = NaturalCubic(knots, values, curvatures[around], (S,), null_dim=1)
    return Cyclic(spline, float(knots[0]), float(knots[-1] - knots[0]), (S,), null_dim=1)


@register("cp")
def cyclic_p_spline(request: Request) -> Cyclic:
    """Construct the cyclic P-spline of one covariate: k + 1 knots, k functions."""
    order, difference = request.difference_orders()
    degree = order + 1
    k = request.size(DEFAULT_K, max(degree, difference + 1), "degree, and order of differences + 1")
    knots = _even_knots(request, k)
    period = knots[-1] - knots[0]
    before, after = knots[-1 - degree : -1] - period, knots[1 : degree + 1] + period
    spline = BSplines(np.concatenate([before, knots, after]), degree, (), null_dim=0)
    circular = np.roll(np.eye(k), -1, axis=0) - np.eye(k)
    D = np.linalg.matrix_power(circular, difference)
    null_dim = 1 if difference else 0
    return Cyclic(spline, float(knots[0]), float(period), (D.T @ D,), null_dim)


def periodic_spline(knots: Vector) -> tuple[Matrix, Matrix]:
    """Return the map from values to curvatures at the knots, and the integral of f''^2.

    Both have shape (k - 1, k - 1) for k knots, the last of which is the first again.
    """
    h = np.diff(knots)
    n = len(h)
    row = np.arange(n)
    previous, following, before = row - 1, (row + 1) % n, np.roll(h, 1)
    B, D = np.zeros((n, n)), np.zeros((n, n))
    for matrix, left, centre, right in (
        (B, before / 6.0, (before + h) / 3.0, h / 6.0),
        (D, 1.0 / before, -1.0 / before - 1.0 / h, 1.0 / h),
    ):
        matrix[row, previous] += left
        matrix[row, row] += centre
        matrix[row, following] += right
    curvatures = scipy.linalg.solve(B, D, assume_a="pos")
    S = D.T @ curvatures
    return curvatures, 0.5 * (S + S.T)


def _cubic_knots(request: Request) -> Vector:
    """Return k knots: quantiles of the unique values and the ends of the period, or the user's."""
    x, given = request.line(), request.sorted_knots()
    default = DEFAULT_K if given is None or len(given) <= 2 else len(given)
    k = request.size(default, 4, "three values and the end of the period")
    if given is not None and len(given) == k:
        return given
    if given is not None:
        first, last = _ends(request, given, k, every=k)
        x = np.append(first + np.mod(x - first, last - first), given)
    values = distinct(x[:, None])[:, 0]
    if len(values) < k:
        request.unique(k, least=k)
    return np.quantile(values, np.linspace(0.0, 1.0, k))


def _even_knots(request: Request, k: int) -> Vector:
    """Return k + 1 knots in equal steps over the period, or all of the user's."""
    x, given = request.line(), request.sorted_knots()
    if given is not None and len(given) == k + 1:
        return given
    request.unique(k, least=2)
    whole = (float(x.min()), float(x.max()))
    first, last = whole if given is None else _ends(request, given, k, every=k + 1)
    return np.linspace(first, last, k + 1)


def _ends(request: Request, given: Vector, k: int, *, every: int) -> tuple[float, float]:
    if len(given) != 2:
        raise request.refuse(
            f"basis {request.bs!r} with k = {k} takes 2 knots (the ends of the period) or all "
            f"{every}, got {len(given)}."
        )
    return float(given[0]), float(given[1])
