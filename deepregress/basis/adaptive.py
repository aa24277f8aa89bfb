"""Adaptive P-splines, `bs="ad"`: wiggliness that varies along the covariate (METHODS 2).

A P-spline whose squared differences of second order have weights that are themselves a P-spline in
the position p of the difference, w(p) = sum_j lam_j v_j(p), v_j B-splines on even knots:

    sum_p w(p) (D c)_p^2 = sum_j lam_j c' S_j c,    S_j = D' diag(v_j) D,    j = 1..m

so that each of the m smoothing parameters rules its own stretch of the covariate. With all of them
equal it is the P-spline, as the v_j add up to one; m = 2 means a straight line for w.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.3.5; Eilers and Marx 1996,
doi:10.1214/ss/1038425655.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from deepregress.basis.base import BSplines, Request, register
from deepregress.basis.bspline import p_spline
from deepregress.linalg import Matrix

DEFAULT_K, DEFAULT_M = 40, 5
DIFFERENCE = 2
STRAIGHT, CUBIC = 2, 3


@register("ad")
def adaptive_spline(request: Request) -> BSplines:
    """Construct the adaptive P-spline of one covariate; m is the number of penalties."""
    (m, *rest) = request.orders(DEFAULT_M)
    k = request.size(DEFAULT_K, m + DIFFERENCE, "m + 2")
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
