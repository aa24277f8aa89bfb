"""P-splines, `bs="ps"`: B-splines on evenly spaced knots, penalised differences (METHODS 2).

For m = (m0, m1) the B-splines have degree m0 + 1 and the penalty acts on differences of order m1:

    S = D' D,    D = diff(I, m1),    null space: polynomials of degree < m1 (for m1 <= degree + 1)

The k - m0 inner knots span the range of the data, widened by 0.1 % at both ends, in equal steps,
and as many steps follow outside as the degree asks for. Beyond the inner knots the spline goes on
as the straight line with its value and slope at the end.

References: Eilers and Marx 1996, doi:10.1214/ss/1038425655; Wood 2017, sec. 5.3.3.
"""

from __future__ import annotations

import numpy as np

from deepregress.basis.base import BSplines, Request, register
from deepregress.linalg import Vector

DEFAULT_K = 10
# mgcv's widening of the range at each end, as a fraction of the range.
WIDENING = 0.001


@register("ps")
def p_spline(request: Request) -> BSplines:
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
    return BSplines(_knots(request, x, k, degree), degree, (D.T @ D,), null_dim=difference)


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
