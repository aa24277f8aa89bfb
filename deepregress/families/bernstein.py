"""Cumulated Bernstein polynomials: the basis of a transformation that increases in y (METHODS 8).

    b_m(t) = C(M, m) t^m (1 - t)^(M - m),   A_k = sum_(m >= k) b_m,   dA_k / dt = M b_(k-1)^(M-1)

A sum with positive coefficients of A_1, ..., A_M increases from t = 0 to 1; A_0 = 1. Outside [0, 1]
the A_k go on in straight lines, so that it increases everywhere.

References: Farouki (2012), doi:10.1016/j.cagd.2012.03.001;
Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291 (in transformation models).
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor


def cumulated(t: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """A and dA / dt at t (n,), each (n, order + 1), whose columns are k = 0, ..., order.

    Examples
    --------
    >>> A, slope = cumulated(tf.constant([0.0, 0.5, 1.0], tf.float64), 1)
    >>> A[:, 1].numpy().tolist(), slope[:, 1].numpy().tolist()
    ([0.0, 0.5, 1.0], [1.0, 1.0, 1.0])
    """
    inside = tf.clip_by_value(t, tf.zeros([], t.dtype), tf.ones([], t.dtype))
    A = tf.cumsum(_polynomials(inside, order), axis=1, reverse=True)
    slope = order * _polynomials(inside, order - 1)
    slope = tf.concat([tf.zeros_like(slope[:, :1]), slope], axis=1)
    return A + (t - inside)[:, None] * slope, slope


def _polynomials(t: Tensor, order: int) -> Tensor:
    """b_0, ..., b_order at t in [0, 1], (n, order + 1)."""
    m = np.arange(order + 1.0)
    ways = [float(math.comb(order, k)) for k in range(order + 1)]
    return ways * tf.pow(t[:, None], m) * tf.pow(1.0 - t[:, None], order - m)
