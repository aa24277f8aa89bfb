"""Extreme value families: maxima of blocks and excesses over a threshold (METHODS 7).

    t = log(1 + shape z) / shape        (t = z at shape 0)
    gev   F(y) = exp(-exp(-t)),         z = (y - loc) / scale
    gpd   S(y) = exp(-t),  y >= 0,      z = y / scale

shape > 0 is the heavy upper tail of S(y) ~ y^(-1 / shape), shape < 0 an upper end of the support at
loc - scale / shape. t is analytic through shape 0 (`special.log1p_ratio`), so that Gumbel and
exponential are inner points of the families, with all derivatives.

References: Coles (2001), An Introduction to Statistical Modeling of Extreme Values, ch. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link
from deepregress.families.base import Parameter, Value, register
from deepregress.families.formulated import Continuous, standardised
from deepregress.families.moments import gumbel_start, weighted_moments
from deepregress.families.special import log1mexp, log1p_ratio
from deepregress.linalg import Array, Matrix, Vector

_NEAR_ZERO = 0.05
"""|shape| below which moments go by the series of log Gamma(1 - shape), which loses no digits."""
_ORDERS = np.arange(2, 16)
_ZETA = scipy.special.zeta(_ORDERS.astype(np.float64))


def _gumbel_scale(shape: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """t = log(1 + shape z) / shape, and whether z is inside the support."""
    u = shape * z
    inside = u > -1.0
    return z * log1p_ratio(tf.where(inside, u, tf.zeros_like(u))), inside


@register
@dataclass(frozen=True)
class GeneralisedExtremeValue(Continuous):
    """Generalised extreme value distribution of maxima, with location, scale and shape.

    f(y) = exp(-(1 + shape) t - exp(-t)) / scale,  t = log(1 + shape z) / shape,
    z = (y - loc) / scale;  mean loc + scale (Gamma(1 - shape) - 1) / shape where shape < 1,
    variance scale^2 (Gamma(1 - 2 shape) - Gamma(1 - shape)^2) / shape^2 where shape < 1/2.

    Shape 0 is the Gumbel distribution. SciPy's `genextreme` has c = -shape. The likelihood is
    unbounded for shapes below -1; fits find the local maximum above it.
    """

    name: ClassVar[str] = "gev"
    about: ClassVar[str] = "generalised extreme value, shape > 0 heavy upper tail"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "37 % quantile, units of the response"),
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("shape", link("identity"), "tail index, 0 for the Gumbel distribution"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        shape = values["shape"].value
        t, inside = _gumbel_scale(shape, standardised(values, y))
        value = -values["scale"].log - (1.0 + shape) * t - tf.exp(-t)
        return tf.where(inside, value, tf.constant(-np.inf, y.dtype))

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        shape = values["shape"].value
        t, inside = _gumbel_scale(shape, standardised(values, y))
        outside = tf.where(shape > 0.0, tf.constant(-np.inf, y.dtype), tf.zeros_like(t))
        return tf.where(inside, -tf.exp(-t), outside)

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        shape = values["shape"].value
        t, inside = _gumbel_scale(shape, standardised(values, y))
        outside = tf.where(shape > 0.0, tf.zeros_like(t), tf.constant(-np.inf, y.dtype))
        return tf.where(inside, log1mexp(tf.exp(-t)), outside)

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.genextreme(-theta["shape"], loc=theta["loc"], scale=theta["scale"])

    def mean(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        shape = np.minimum(theta["shape"], 1.0)
        standard = _over(np.expm1(_log_gamma_1m(shape)), shape, np.euler_gamma)
        return np.asarray(theta["loc"] + theta["scale"] * standard)

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        shape = np.minimum(theta["shape"], 0.5)
        # Gamma(1 - 2 shape) - Gamma(1 - shape)^2, by the ratio of the two
        first = _log_gamma_1m(shape)
        ratio = _over(np.expm1(_log_gamma_ratio(shape)), shape**2, np.pi**2 / 6.0)
        return np.asarray(theta["scale"] ** 2 * np.exp(2.0 * first) * ratio)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # the Gumbel distribution: every response is inside its support
        return {**gumbel_start(y, weights), "shape": 0.0}


@register
@dataclass(frozen=True)
class GeneralisedPareto(Continuous):
    """Generalised Pareto distribution of excesses over a threshold, with scale and shape.

    f(y) = (1 + shape y / scale)^(-1 / shape - 1) / scale, y >= 0;  mean scale / (1 - shape) where
    shape < 1, variance scale^2 / ((1 - shape)^2 (1 - 2 shape)) where shape < 1/2.

    Shape 0 is the exponential distribution. The response is the excess: `y - threshold`.
    """

    name: ClassVar[str] = "gpd"
    about: ClassVar[str] = "generalised Pareto of excesses, shape > 0 heavy upper tail"
    support: ClassVar[str] = "finite numbers >= 0 (excesses over a threshold)"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("shape", link("identity"), "tail index, 0 for the exponential distribution"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        shape, log_scale = values["shape"].value, values["scale"].log
        t, inside = _gumbel_scale(shape, y * tf.exp(-log_scale))
        return tf.where(inside, -log_scale - (1.0 + shape) * t, tf.constant(-np.inf, y.dtype))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        t, inside = _gumbel_scale(values["shape"].value, y * tf.exp(-values["scale"].log))
        return tf.where(inside, -t, tf.constant(-np.inf, y.dtype))

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        t, inside = _gumbel_scale(values["shape"].value, y * tf.exp(-values["scale"].log))
        return tf.where(inside, log1mexp(t), tf.zeros_like(t))

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y) & (y >= 0.0))

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.genpareto(theta["shape"], scale=theta["scale"])

    def mean(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        below = 1.0 - np.minimum(theta["shape"], 1.0)
        return np.asarray(_divided(theta["scale"], below))

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        shape = np.minimum(theta["shape"], 0.5)
        return np.asarray(_divided(theta["scale"] ** 2, (1.0 - shape) ** 2 * (1.0 - 2.0 * shape)))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # a positive shape: every response is inside the support
        mean, variance = weighted_moments(y, weights)
        shape = float(np.clip(0.5 * (1.0 - mean**2 / variance), 0.05, 0.4))
        return {"scale": mean * (1.0 - shape), "shape": shape}


def _log_gamma_1m(x: Vector) -> Vector:
    """Log Gamma(1 - x), x <= 1."""
    near = np.where(np.abs(x) < _NEAR_ZERO, x, 0.0)
    series = np.euler_gamma * near + np.sum(_ZETA * near[:, None] ** _ORDERS / _ORDERS, axis=1)
    exact = scipy.special.gammaln(1.0 - x)
    return np.asarray(np.where(np.abs(x) < _NEAR_ZERO, series, exact))


def _log_gamma_ratio(x: Vector) -> Vector:
    """Log Gamma(1 - 2 x) - 2 log Gamma(1 - x), x <= 1/2: about pi^2 x^2 / 6."""
    near = np.where(np.abs(x) < _NEAR_ZERO, x, 0.0)
    series = np.sum(_ZETA * (2.0**_ORDERS - 2.0) * near[:, None] ** _ORDERS / _ORDERS, axis=1)
    exact = scipy.special.gammaln(1.0 - 2.0 * x) - 2.0 * scipy.special.gammaln(1.0 - x)
    return np.asarray(np.where(np.abs(x) < _NEAR_ZERO, series, exact))


def _over(numerator: Vector, denominator: Vector, limit: float) -> Vector:
    """A quotient whose limit at 0 / 0 is known."""
    zero = denominator == 0.0
    return np.asarray(np.where(zero, limit, numerator / np.where(zero, 1.0, denominator)))


def _divided(numerator: Vector, denominator: Vector) -> Vector:
    """A quotient that is infinite where the denominator is 0."""
    zero = denominator == 0.0
    return np.where(zero, np.inf, numerator / np.where(zero, 1.0, denominator))
