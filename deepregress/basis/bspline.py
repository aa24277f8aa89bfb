"""P-splines, `bs="ps"`: B-splines on evenly spaced knots, penalised differences (METHODS 2).

For m = (m0, m1) the B-splines have degree m0 + 1 and the penalty acts on differences of order m1:

    S = D' D,    D = diff(I, m1),    null space: polynomials of degree < m1 (for m1 <= degree + 1)

The k - m0 inner knots span the range of the data, widened by 0.1 % at both ends, in equal steps,
and as many steps follow outside as the degree asks for. Beyond the inner knots the spline goes on
as the straight line with its value and slope at the end.

References: Eilers and Marx 1996, doi:10.1214/ss/1038425655; Wood 2017, sec. 5.3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from deepregress.basis.base import Basis, Request, as_rows, register, row_chunks
from deepregress.linalg import Matrix, Vector

DEFAULT_K = 10
# mgcv's widening of the range at each end, as a fraction of the range.
WIDENING = 0.001


@dataclass(frozen=True, eq=False)
class PSpline(Basis):
    """B-splines of one degree on given knots, continued linearly.

    Parameters
    ----------
    knots : Vector
        All knots, shape (k + degree + 1,).
    degree : int
        Degree of the B-splines, 3 for cubic.
    penalties : tuple of Matrix
        Raw penalties, each (k, k).
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    knots: Vector
    degree: int
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        points = as_rows(x)[:, 0]
        first, last = self.knots[self.degree], self.knots[self.k]
        columns = np.zeros((len(points), self.k))
        for part in row_chunks(len(points), self.k):
            self._fill(columns[part], np.clip(points[part], first, last))
        ends = BSpline(self.knots, np.eye(self.k), self.degree)
        for end, beyond in ((first, points < first), (last, points > last)):
            if beyond.any():
                columns[beyond] += (points[beyond] - end)[:, None] * ends(end, nu=1)
        return columns

    def _fill(self, columns: Matrix, x: Vector) -> None:
        """Write the degree + 1 B-splines that are not zero at each x, by Cox-de Boor recursion."""
        t, degree = self.knots, self.degree
        interval = np.clip(np.searchsorted(t, x, side="right") - 1, degree, self.k - 1)
        local = np.ones((1, len(x)))
        for order in range(1, degree + 1):
            raised = np.zeros((order + 1, len(x)))
            for j in range(order):
                low, high = t[interval + 1 + j - order], t[interval + 1 + j]
                share = local[j] / (high - low)
                raised[j] += (high - x) * share
                raised[j + 1] += (x - low) * share
            local = raised
        rows = np.arange(len(x))
        for j in range(degree + 1):
            columns[rows, interval - degree + j] = local[j]


@register("ps")
def p_spline(request: Request) -> PSpline:
    """Construct the P-spline of one covariate."""
    order, difference = _orders(request)
    degree = order + 1
    x = request.line()
    k = request.size(DEFAULT_K, degree + 1, "degree + 1")
    if difference >= k:
        reason = f"needs k > {difference} (order of the differences), got {k}."
        raise request.refuse(f"basis 'ps' {reason}")
    # Fewer unique values than k are enough: the penalty interpolates its null space.
    request.unique(k, least=max(2, difference))
    D = np.diff(np.eye(k), n=difference, axis=0)
    return PSpline(_knots(request, x, k, degree), degree, (D.T @ D,), null_dim=difference)


def _orders(request: Request) -> tuple[int, int]:
    m = (2, 2) if request.m is None else request.m
    pair = (m, m) if isinstance(m, int) else m
    if len(pair) != 2 or min(pair) < 0:
        raise request.refuse(
            "basis 'ps' needs m = (order of the basis, order of the differences), "
            f"both at least 0, got {request.m}."
        )
    return pair[0], pair[1]


def _knots(request: Request, x: Vector, k: int, degree: int) -> Vector:
    """Return mgcv's knots, or the user's: the two ends of the range, or all of them."""
    given = np.array([x.min(), x.max()]) if request.knots is None else np.sort(request.knots[:, 0])
    if np.any(np.diff(given) <= 0.0):
        raise request.refuse("the knots of basis 'ps' must differ.")
    if len(given) == k + degree + 1:
        return given
    if len(given) != 2:
        raise request.refuse(
            f"basis 'ps' with k = {k} takes 2 knots (the ends of the range) or all "
            f"{k + degree + 1} (k + degree + 1), got {len(given)}."
        )
    margin = WIDENING * (given[1] - given[0])
    first, last = given[0] - margin, given[1] + margin
    step = (last - first) / (k - degree)
    return np.linspace(first - step * degree, last + step * degree, k + degree + 1)
