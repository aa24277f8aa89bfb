"""Special functions of log-densities, accurate and differentiable to any order.

Built from elementary functions, or with a gradient that is one of them again, because the solvers
need third derivatives by autodiff and TensorFlow's special functions stop at the second or lose
all digits in limits that fits do reach (shape 0, precision 1e8).

    log Gamma(x) = (x - 1/2) log x - x + 1/2 log 2 pi + R(x)     R(x) Stirling's remainder
    log1p(u) / u,  expm1(u) / u          whole through u = 0
    log I0(k) - k                        I0 the modified Bessel function; derivative A(k) - 1,
                                         A = I1 / I0 with A' = 1 - A / k - A^2

References: Abramowitz & Stegun (1972), 6.1.40 (Stirling), 9.6 and 9.7.1 (Bessel).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deepregress.bijectors import Tensor

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""Coefficients of R(x) in x^-1, x^-3, ...: the next term is below 3e-17 from x = 10 on."""
_STIRLING_FROM = 10
_SERIES_WITHIN = 0.1
_SERIES_TERMS = 18
"""Power series within |u| < 0.1: 0.1^18 is below rounding, also in the third derivative."""
_BESSEL_FROM = 50.0
_BESSEL = tuple(
    math.prod((2 * i - 1) ** 2 / (8.0 * i) for i in range(1, j + 1)) for j in range(1, 16)
)
"""sqrt(2 pi k) exp(-k) I0(k) = 1 + sum_j c_j k^-j, from k = 50 on: the rest is below 1e-18."""


def stirling_remainder(x: Tensor) -> Tensor:
    """R(x) = log Gamma(x) - (x - 1/2) log x + x - 1/2 log 2 pi of x > 0: about 1 / (12 x)."""
    return _remainder(x, 0)


def _remainder(x: Tensor, order: int) -> Tensor:
    """A derivative of R: its series from x = 10 on, Gamma(x) = Gamma(x + 10) / (x ... (x + 9))."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def of(x: Tensor) -> Any:
        small = x < _STIRLING_FROM
        few = tf.where(small, x, tf.ones_like(x))
        below = _stirling_series(few + _STIRLING_FROM, order) + _shift(few, order)
        above = _stirling_series(tf.where(small, _STIRLING_FROM * tf.ones_like(x), x), order)
        return tf.where(small, below, above), lambda upstream: upstream * _remainder(x, order + 1)

    return of(x)


def _stirling_series(x: Tensor, order: int) -> Tensor:
    """A derivative of sum_j c_j x^(1 - 2 j)."""
    inverse = 1.0 / x
    signed = [
        c * (-1.0) ** order * math.prod(range(2 * j - 1, 2 * j - 1 + order))
        for j, c in enumerate(_STIRLING, start=1)
    ]
    return _power(inverse, 1 + order) * _horner(inverse * inverse, signed)


def _shift(x: Tensor, order: int) -> Tensor:
    """A derivative of (x + 9.5) log(x + 10) - (x - 0.5) log x - 10 - sum_k log(x + k), k < 10."""
    end = x + _STIRLING_FROM
    steps = x[..., None] + tf.range(_STIRLING_FROM, dtype=x.dtype)
    if order == 0:
        logs = (end - 0.5) * tf.math.log(end) - (x - 0.5) * tf.math.log(x)
        return logs - _STIRLING_FROM - tf.math.log(tf.reduce_prod(steps, axis=-1))
    m = order
    inverse, inverse_end, inverse_x = 1.0 / steps, 1.0 / end, 1.0 / x
    total = tf.reduce_sum(_power(inverse, m), axis=-1)
    powers = math.factorial(m - 1) * (
        0.5 * _power(inverse_end, m) - 0.5 * _power(inverse_x, m) + total
    )
    if order == 1:
        return tf.math.log(end / x) - powers
    rest = math.factorial(m - 2) * (_power(inverse_end, m - 1) - _power(inverse_x, m - 1))
    return (-1.0) ** m * (powers + rest)


def _power(x: Tensor, exponent: int) -> Tensor:
    """x^exponent by products: tf.pow takes the logarithm."""
    value = x
    for _ in range(exponent - 1):
        value = value * x
    return value


def stirling_derivative(x: Tensor, order: int) -> Tensor:
    """d^order R(x) / dx^order."""
    return _remainder(x, order)


def log_gamma(x: Tensor) -> Tensor:
    """Log Gamma(x) of x > 0."""
    return (x - 0.5) * tf.math.log(x) - x + HALF_LOG_2PI + stirling_remainder(x)


def log1p_ratio(u: Tensor) -> Tensor:
    """log(1 + u) / u of u > -1, which is 1 at 0."""
    return _ratio(u, 0, _log1p_derivative, lambda k: (-1.0) ** k / (k + 1.0))


def expm1_ratio(u: Tensor) -> Tensor:
    """(exp(u) - 1) / u, which is 1 at 0."""
    return _ratio(u, 0, _expm1_derivative, lambda k: 1.0 / math.factorial(k + 1))


def _log1p_derivative(u: Tensor, order: int) -> Tensor:
    if order == 0:
        return tf.math.log1p(u)
    return (-1.0) ** (order - 1) * math.factorial(order - 1) * _power(1.0 / (1.0 + u), order)


def _expm1_derivative(u: Tensor, order: int) -> Tensor:
    return tf.math.expm1(u) if order == 0 else tf.exp(u)


def _ratio(
    u: Tensor,
    order: int,
    derivative: Callable[[Tensor, int], Tensor],
    coefficient: Callable[[int], float],
) -> Tensor:
    """A derivative of g(u) = f(u) / u: u g^(k) + k g^(k-1) = f^(k), or near 0 the series of g."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def of(u: Tensor) -> Any:
        near = tf.abs(u) < _SERIES_WITHIN
        terms = range(order, order + _SERIES_TERMS)
        series = _horner(
            tf.where(near, u, tf.zeros_like(u)),
            [coefficient(k) * math.perm(k, order) for k in terms],
        )
        far = tf.where(near, tf.ones_like(u), u)
        value = derivative(far, 0) / far
        for k in range(1, order + 1):
            value = (derivative(far, k) - k * value) / far
        return (
            tf.where(near, series, value),
            lambda upstream: upstream * _ratio(u, order + 1, derivative, coefficient),
        )

    return of(u)


def _horner(x: Tensor, coefficients: list[float] | tuple[float, ...]) -> Tensor:
    """sum_k coefficients[k] x^k."""
    value = coefficients[-1] * tf.ones_like(x)
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


@tf.custom_gradient  # type: ignore[untyped-decorator]
def log1mexp(t: Tensor) -> Any:
    """log(1 - exp(-t)) of t > 0."""
    small = t < math.log(2.0)
    value = tf.where(
        small,
        tf.math.log(-tf.math.expm1(-tf.where(small, t, tf.ones_like(t)))),
        tf.math.log1p(-tf.exp(-t)),
    )
    return value, lambda upstream: upstream * tf.exp(-t) / -tf.math.expm1(-t)


def log_bessel_i0e(k: Tensor) -> Tensor:
    """log I0(k) - k of k > 0."""
    large = k >= _BESSEL_FROM
    inverse = 1.0 / tf.where(large, k, _BESSEL_FROM * tf.ones_like(k))
    asymptotic = 0.5 * tf.math.log(inverse) + tf.math.log1p(inverse * _horner(inverse, _BESSEL))
    few = tf.where(large, tf.ones_like(k), k)
    return tf.where(large, asymptotic - HALF_LOG_2PI, _log_bessel_i0e(few))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _log_bessel_i0e(k: Tensor) -> Any:
    value = tf.math.log(tf.math.bessel_i0e(k))
    return value, lambda upstream: upstream * (_bessel_ratio(k) - 1.0)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _bessel_ratio(k: Tensor) -> Any:
    def gradient(upstream: Tensor) -> Tensor:
        ratio = _bessel_ratio(k)
        return upstream * (1.0 - ratio / k - ratio**2)

    return tf.math.bessel_i1e(k) / tf.math.bessel_i0e(k), gradient
