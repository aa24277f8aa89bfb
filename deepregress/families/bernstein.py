"""Cumulated Bernstein polynomials: the basis of a transformation that increases in y (METHODS 8).

    b_m(t) = C(M, m) t^m (1 - t)^(M - m),   A_k = sum_(m >= k) b_m,   dA_k / dt = M b_(k-1)^(M-1)
    b_m^M  = (1 - t) b_m^(M-1) + t b_(m-1)^(M-1)

A sum with positive coefficients of A_1, ..., A_M increases from t = 0 to 1; A_0 = 1. Outside [0, 1]
the A_k go on in straight lines, so that it increases everywhere.

References: Farouki (2012), doi:10.1016/j.cagd.2012.03.001;
Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291 (in transformation models).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.linalg import Matrix, Vector

ROUNDS = 60
"""Of Newton and bisection; bisection alone reaches the precision of a number in so many."""
NEAR = 1e-15
"""Change of t, whose unit is the range of the basis, at which a root is found."""


def cumulated(t: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """A and dA / dt at t (n,), each (n, order + 1), whose columns are k = 0, ..., order.

    Examples
    --------
    >>> A, slope = cumulated(tf.constant([0.0, 0.5, 1.0], tf.float64), 1)
    >>> A[:, 1].numpy().tolist(), slope[:, 1].numpy().tolist()
    ([0.0, 0.5, 1.0], [1.0, 1.0, 1.0])
    """
    inside = tf.clip_by_value(t, tf.zeros([], t.dtype), tf.ones([], t.dtype))
    lower = tf.ones_like(t)[:, None]
    for _ in range(order - 1):
        lower = _raised(lower, inside)
    A = tf.cumsum(_raised(lower, inside), axis=1, reverse=True)
    slope = order * lower
    slope = tf.concat([tf.zeros_like(slope[:, :1]), slope], axis=1)
    return A + (t - inside)[:, None] * slope, slope


def _raised(b: Tensor, t: Tensor) -> Tensor:
    """The polynomials of the next order, (n, M + 1), from those of order M - 1; no powers."""
    s, none = t[:, None], tf.zeros_like(b[:, :1])
    return (1.0 - s) * tf.concat([b, none], axis=1) + s * tf.concat([none, b], axis=1)


def solved(g: Matrix, c: Vector) -> Vector:
    """t with sum_k g_k A_k(t) = c, (n_obs,), by Newton inside of shrinking brackets.

    Parameters
    ----------
    g : Matrix, (n_obs, order + 1)
        All but the first are positive.
    c : Vector, (n_obs,)
        May be infinite, as t then is.

    Examples
    --------
    >>> solved(np.array([[0.0, 2.0]]), np.array([3.0])).tolist()
    [1.5]
    """
    order = g.shape[1] - 1
    beta = np.cumsum(g, axis=1)
    first, last = beta[:, 0], beta[:, -1]
    below = (c - first) / (order * g[:, 1])
    above = 1.0 + (c - last) / (order * g[:, -1])
    t = np.where(c < first, below, np.where(c > last, above, (c - first) / (last - first)))
    inner = (c > first) & (c < last)
    if order > 1 and inner.any():
        t[inner] = _inner_root(beta[inner], c[inner], t[inner])
    return np.asarray(t)


def _inner_root(beta: Matrix, c: Vector, t: Vector) -> Vector:
    """The root in (0, 1) of the polynomial with Bernstein coefficients beta, minus c."""
    low, high = np.zeros_like(t), np.ones_like(t)
    for _ in range(ROUNDS):
        value, slope = _value(beta, t)
        low, high = np.where(value < c, t, low), np.where(value < c, high, t)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = t - (value - c) / slope
        step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
        if np.max(np.abs(step - t)) < NEAR:
            return step
        t = step
    return t


def _value(beta: Matrix, t: Vector) -> tuple[Vector, Vector]:
    """The polynomial and its derivative by de Casteljau's scheme, each (n_obs,)."""
    b, s = beta, t[:, None]
    while b.shape[1] > 2:
        b = (1.0 - s) * b[:, :-1] + s * b[:, 1:]
    slope = (beta.shape[1] - 1.0) * (b[:, 1] - b[:, 0])
    return (1.0 - t) * b[:, 0] + t * b[:, 1], slope
