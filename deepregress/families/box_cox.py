"""Box-Cox Cole-Green family, the distribution of the LMS method (growth curves).

    z = ((y / median)^power - 1) / (power variation)      (log(y / median) / variation at power 0)

is standard normal, truncated to where y > 0. With u = log(y / median) z = u expm1(power u) /
(power u) / variation, analytic through power 0.

References: Cole & Green (1992), doi:10.1002/sim.4780111005; Rigby & Stasinopoulos (2004),
doi:10.1002/sim.1861.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor, link, log_normal_cdf
from deepregress.families.base import Parameter, Value, register
from deepregress.families.formulated import Continuous
from deepregress.families.moments import quartile_location_scale
from deepregress.families.special import HALF_LOG_2PI, expm1_ratio, log1mexp
from deepregress.linalg import Array, Matrix, Vector

_UNTRUNCATED = 0.025
"""|power| variation below which the normal is cut beyond 40 standard deviations: not at all."""
_SCORES = 8.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_NORMAL_QUARTILES = (-0.6744897501960817, 0.0, 0.6744897501960817)


@register
@dataclass(frozen=True)
class BoxCoxColeGreen(Continuous):
    """Box-Cox Cole-Green distribution (LMS) with median, variation and power.

    f(y) = (y / median)^power phi(z) / (y variation Phi(1 / (variation |power|))),
    z = ((y / median)^power - 1) / (power variation), log(y / median) / variation at power 0.
    `median` is the median and `variation` the coefficient of variation, both up to the truncation
    factor Phi, which is 1 in practice. Mean and variance, by quadrature, leave out normal scores
    beyond 8; they are infinite where a negative power has more mass there. gamlss's BCCG has
    mu = median, sigma = variation, nu = power.
    """

    name: ClassVar[str] = "bccg"
    about: ClassVar[str] = "Box-Cox Cole-Green (LMS), Box-Cox transform of y normal"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("median", link("log"), "median, units of the response"),
            Parameter("variation", link("log"), "coefficient of variation"),
            Parameter("power", link("identity"), "Box-Cox power, 1 normal, 0 lognormal"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        power, log_variation = values["power"].value, values["variation"].log
        log_y = tf.math.log(y)
        u = log_y - values["median"].log
        z = u * expm1_ratio(power * u) * tf.exp(-log_variation)
        log_kept, _ = _truncation(power, log_variation)
        return power * u - log_y - log_variation - 0.5 * z * z - HALF_LOG_2PI - log_kept

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """F = (Phi(z) - Phi(-b)) / Phi(b), power > 0; Phi(z) / Phi(b) else; b = 1 / (s |power|)."""
        log_kept, below, z = self._parts(values, y)
        lower = log_normal_cdf(z)
        positive = values["power"].value > 0.0
        gap = tf.where(positive, lower - below, tf.ones_like(z))
        return tf.where(positive, lower + log1mexp(gap), lower) - log_kept

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_kept, below, z = self._parts(values, y)
        upper = log_normal_cdf(-z)
        negative = values["power"].value < 0.0
        gap = tf.where(negative, upper - below, tf.ones_like(z))
        return tf.where(negative, upper + log1mexp(gap), upper) - log_kept

    @staticmethod
    def _parts(values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        power, log_variation = values["power"].value, values["variation"].log
        u = tf.math.log(y) - values["median"].log
        z = u * expm1_ratio(power * u) * tf.exp(-log_variation)
        return *_truncation(power, log_variation), z

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        power, variation = theta["power"], theta["variation"]
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        with np.errstate(divide="ignore"):
            bound = 1.0 / (variation * np.abs(power))
        kept, cut = scipy.special.ndtr(bound), scipy.special.ndtr(-bound)
        # from the side on which the truncated tail is not
        lower = scipy.special.ndtri(p * kept)
        upper = -scipy.special.ndtri((1.0 - p) * kept)
        z = np.where(power > 0.0, upper, lower)
        near = (cut == 0.0) | (power == 0.0)
        z = np.where(near, np.where(p < 0.5, lower, upper), z)
        v = power * variation * z
        safe = np.where(power == 0.0, 1.0, power)
        with np.errstate(divide="ignore"):
            u = np.where(power == 0.0, variation * z, np.log1p(np.maximum(v, -1.0)) / safe)
        return np.asarray(theta["median"] * np.exp(u))

    def mean(self, eta: Matrix) -> Vector:
        return self._moments(eta)[0]

    def variance(self, eta: Matrix) -> Vector:
        return self._moments(eta)[1]

    def _moments(self, eta: Matrix) -> tuple[Vector, Vector]:
        """Mean and variance over normal scores within 8; infinite where power < 0 cuts below 8."""
        theta = self.parameters_at(eta)
        power, variation = theta["power"], theta["variation"]
        with np.errstate(divide="ignore"):
            bound = 1.0 / (variation * np.abs(power))
        heavy = (power < 0.0) & (bound < _SCORES)
        low = -np.where(power > 0.0, np.minimum(bound, _SCORES), _SCORES)
        half = 0.5 * (_SCORES - low)[:, None]
        z = low[:, None] + half * (1.0 + _NODES)
        mass = half * _WEIGHTS * np.exp(-0.5 * z**2 - HALF_LOG_2PI)
        mass /= mass.sum(axis=1, keepdims=True)
        v = np.maximum(power[:, None] * variation[:, None] * z, -1.0)
        zero = power[:, None] == 0.0
        with np.errstate(divide="ignore"):
            u = np.log1p(v) / np.where(zero, 1.0, power[:, None])
        y = np.exp(np.where(zero, variation[:, None] * z, np.where(heavy[:, None], 0.0, u)))
        mean = np.sum(mass * y, axis=1)
        spread = np.sum(mass * (y - mean[:, None]) ** 2, axis=1)
        median = theta["median"]
        return np.where(heavy, np.inf, median * mean), np.where(heavy, np.inf, median**2 * spread)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        loc, scale = quartile_location_scale(np.log(y), weights, _NORMAL_QUARTILES)
        return {"median": np.exp(loc), "variation": scale, "power": 0.0}


def _truncation(power: Tensor, log_variation: Tensor) -> tuple[Tensor, Tensor]:
    """log Phi(b) and log Phi(-b), b = 1 / (variation |power|)."""
    size = tf.abs(power) * tf.exp(log_variation)
    cut = size > _UNTRUNCATED
    bound = 1.0 / tf.where(cut, size, tf.ones_like(size))
    least = tf.constant(-0.5 / _UNTRUNCATED**2, size.dtype)
    kept = tf.where(cut, log_normal_cdf(bound), tf.zeros_like(size))
    return kept, tf.where(cut, log_normal_cdf(-bound), least)
