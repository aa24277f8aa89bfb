"""Penalised B-splines: `bs="ps"`, `"bs"` (derivative penalties), `"ad"` (adaptive); METHODS 2.

    ps  m = (m0, m1): degree m0 + 1, S = D' D with the differences D = diff(I, m1)
    bs  m = (degree, q1, q2, ..): one S_l = integral of b^(q_l)(x) b^(q_l)(x)' dx for each order q_l
    ad  the squared differences of ps weighted by w(p) = sum_j lam_j v_j(p), a P-spline in the
        position p of the difference: S_j = D' diag(v_j) D for j = 1..m. Each smoothing parameter
        rules its own stretch; as the v_j add up to one, equal ones mean ps. m = 2: w is a line

with polynomials of degree < m1, or < min(q), in the null space (for m1 <= degree + 1). The
k - degree + 1 inner knots span the range of the data, widened by 0.1 % at both ends, in equal
steps, and as many steps follow outside as the degree asks for. The integral runs over the inner
knots, by Gauss-Legendre quadrature that is exact for the pieces. Beyond the inner knots the spline
goes on as the straight line with its value and slope at the end.

References: Eilers and Marx 1996, doi:10.1214/ss/1038425655; Wood 2017, sec. 5.3.3; Wood 2017,
"P-splines with derivative based penalties", doi:10.1007/s11222-016-9666-x; sec. 5.3.5 (adaptive).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.interpolate import BSpline

from deepregress.basis.base import BSplines, Request, register
from deepregress.linalg import Matrix, Vector

DEFAULT_K = 10
ADAPTIVE_K = 40
# mgcv's widening of the range at each end, as a fraction of the range.
WIDENING = 0.001
# Of adaptive splines: number of penalties, order of the differences; m of a straight line of
# weights, and degree of their splines.
ADAPTIVE_M, DIFFERENCE = 5, 2
STRAIGHT, CUBIC = 2, 3


@register("ps")
def p_spline(request: Request) -> BSplines:
    """Construct the P-spline of one covariate."""
    order, difference = request.difference_orders()
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


@register("bs")
def b_spline(request: Request) -> BSplines:
    """Construct the B-spline with integrated derivative penalties of one covariate."""
    degree, orders = _degree_and_derivatives(request)
    x = request.line()
    k = request.size(max(DEFAULT_K, degree + 1), degree + 1, "degree + 1")
    request.unique(k, least=max(2, min(orders)))
    knots = _knots(request, x, k, degree)
    penalties = tuple(integrated_penalty(knots, degree, order) for order in orders)
    return BSplines(knots, degree, penalties, null_dim=min(orders))


@register("ad")
def adaptive_spline(request: Request) -> BSplines:
    """Construct the adaptive P-spline of one covariate; m is the number of penalties."""
    (m, *rest) = request.orders(ADAPTIVE_M)
    k = request.size(ADAPTIVE_K, m + DIFFERENCE, "m + 2")
    if rest or m < 1:
        raise request.refuse(
            f"basis 'ad' needs m >= 1, the number of its smoothing parameters, got {request.m}."
        )
    spline = p_spline(replace(request, m=None, k=k))
    D = np.diff(np.eye(k), n=DIFFERENCE, axis=0)
    penalties = tuple(D.T @ (v[:, None] * D) for v in _weights(k, m, request.label).T)
    return BSplines(spline.knots, spline.degree, penalties, null_dim=DIFFERENCE)


def _weights(k: int, m: int, label: str) -> Matrix:
    """Return v_j at the positions of the differences, (k - 2, m): as in mgcv for m = 2, too."""
    position = np.arange(1.0, k - DIFFERENCE + 1.0)
    if m == 1:
        return np.ones((len(position), 1))
    if m == STRAIGHT:
        return np.column_stack([np.ones(len(position)), position / k])
    degree = min(CUBIC, m - 1)
    return p_spline(Request("ps", position[:, None], m, (degree - 1, 1), None, label)).evaluate(
        position
    )


def integrated_penalty(knots: Vector, degree: int, order: int) -> Matrix:
    """Return S_ij = integral of b_i^(order) b_j^(order) over the inner knots, shape (k, k)."""
    k = len(knots) - degree - 1
    inner = knots[degree : k + 1]
    nodes, weights = np.polynomial.legendre.leggauss(degree - order + 1)
    half, middle = 0.5 * np.diff(inner), 0.5 * (inner[:-1] + inner[1:])
    x = (middle[:, None] + half[:, None] * nodes).ravel()
    roots = np.sqrt((half[:, None] * weights).ravel())
    derivatives = BSpline(knots, np.eye(k), degree)(x, nu=order) * roots[:, None]
    return np.asarray(derivatives.T @ derivatives)


def _degree_and_derivatives(request: Request) -> tuple[int, tuple[int, ...]]:
    m = request.orders(3, 2)
    degree, *orders = m if len(m) > 1 else (m[0], max(0, m[0] - 1))
    if degree < 1 or min(orders) < 0 or max(orders) > degree:
        raise request.refuse(
            "basis 'bs' needs m = (degree, order of the derivative, ..) with orders from 0 to the "
            f"degree, got {request.m}."
        )
    return degree, tuple(orders)


def _knots(request: Request, x: Vector, k: int, degree: int) -> Vector:
    """Return mgcv's knots, or the user's.

    The user gives all of them, the two ends of the range, or for `bs` four: the ends of the range
    that the penalty covers and, between them, of the one with the other inner knots.
    """
    given = request.sorted_knots()
    if given is None:
        given = np.array([x.min(), x.max()])
    if len(given) == k + degree + 1:
        return given
    margin = WIDENING * (given[-1] - given[0])
    if request.bs == "bs" and len(given) == 4 and k > degree + 1:
        inner = np.concatenate(
            [given[:1], np.linspace(given[1], given[2], k - degree - 1), given[3:]]
        )
    elif len(given) == 2:
        inner = np.linspace(given[0] - margin, given[1] + margin, k - degree + 1)
    else:
        raise request.refuse(
            f"basis {request.bs!r} with k = {k} takes 2 knots (the ends of the range) or all "
            f"{k + degree + 1} (k + degree + 1), got {len(given)}."
        )
    step = (inner[-1] - inner[0]) / (k - degree)
    outside = step * np.arange(1, degree + 1)
    return np.concatenate([inner[0] - outside[::-1], inner, inner[-1] + outside])
