"""The distribution function of the gamma distribution, accurate and differentiable in both tails.

TensorFlow's incomplete gamma function stops at the first derivative in its shape; a likelihood of
censored rows needs the third. With the smaller tail as an integral over v >= 0,

    x >= a:  Q(a, x) = C int exp( a v - x (exp( v) - 1)) dv
    x <  a:  P(a, x) = C int exp(-a v - x (exp(-v) - 1)) dv,      C = x^a exp(-x) / Gamma(a)

whose integrand falls from 1, the double exponential rule in v = c exp(pi/2 sinh t) has the same
nodes for all rows, c their scale, and every derivative is that of elementary functions.

References: Takahasi & Mori (1974), doi:10.2977/prims/1195192451; Temme (1994),
doi:10.1017/S0269964800003685.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.families.censoring import log1mexp
from deepregress.families.special import HALF_LOG_2PI, stirling_remainder

STEP = 1.0 / 20.0
_T = STEP * np.arange(-80, 66)
NODES = np.exp(0.5 * np.pi * np.sinh(_T))
LOG_WEIGHTS = np.log(STEP * 0.5 * np.pi * np.cosh(_T)) + np.log(NODES)

LEAST = -745.0
"""Exponents below it are zero in float64."""


def log_tails(a: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """log P(a, x) and log Q(a, x), each (n_obs,).

    Parameters
    ----------
    a : tensor, (n_obs,)
        Shape, positive.
    log_ratio : tensor, (n_obs,)
        log(x / a).
    """
    x = a * tf.exp(log_ratio)
    upper = log_ratio >= 0.0
    sign = tf.where(upper, tf.ones_like(a), -tf.ones_like(a))
    # log C = a (1 + log(x / a) - x / a) + (log a) / 2 - ..., without the size of Gamma(a)
    log_c = a * (log_ratio - tf.math.expm1(log_ratio)) + 0.5 * tf.math.log(a)
    log_c -= HALF_LOG_2PI + stirling_remainder(a)
    # the integral does not depend on the scale of its nodes
    scale = tf.stop_gradient(1.0 / (tf.abs(x - a) + tf.sqrt(x)))
    v = scale[:, None] * tf.constant(NODES, a.dtype)
    exponent = _exponent(a, x, sign[:, None] * v)
    # where the integrand is zero its derivatives would be 0 times infinity
    zero = exponent < LEAST
    exponent = _exponent(a, x, sign[:, None] * tf.where(zero, tf.zeros_like(v), v))
    exponent = tf.where(zero, tf.constant(-np.inf, a.dtype), exponent)
    terms = exponent + tf.constant(LOG_WEIGHTS, a.dtype)
    smaller = log_c + tf.math.log(scale) + tf.reduce_logsumexp(terms, axis=1)
    larger = log1mexp(smaller)
    return tf.where(upper, larger, smaller), tf.where(upper, smaller, larger)


def _exponent(a: Tensor, x: Tensor, v: Tensor) -> Tensor:
    return a[:, None] * v - x[:, None] * tf.math.expm1(v)
