"""Family of an angle: the von Mises distribution (METHODS 7).

    f(y) = exp(concentration cos(y - loc)) / (2 pi I0(concentration)),  y in radians

The predictor of loc is the tangent of half the angle, loc = 2 atan(eta), so that it turns once
around the circle as eta goes from -infinity to infinity (Fisher & Lee).

References: Fisher & Lee (1992), doi:10.2307/2532334; Mardia & Jupp (2000), Directional Statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link
from deepregress.families import numerical
from deepregress.families.base import Parameter, Value, register
from deepregress.families.integrated import Integrated
from deepregress.families.special import log_bessel_i0e
from deepregress.linalg import Array, Matrix, Vector

CERTAIN = 1.0 - 1e-12
"""Mean resultant length above which all angles are one: the concentration starts at 1e12 / 2."""


@register
@dataclass(frozen=True)
class VonMises(Integrated):
    """Von Mises distribution of angles in radians, with mean direction and concentration.

    f(y) = exp(k cos(y - loc)) / (2 pi I0(k)),  k = concentration;  mean direction loc, circular
    variance 1 - I1(k) / I0(k), which is what `variance` returns.

    Angles may be given in [-pi, pi] or [0, 2 pi]; predictions are in [-pi, pi]. Probabilities start
    at the direction opposite to loc. A censored angle lies on the arc `interval(lower, upper)`.
    """

    name: ClassVar[str] = "von_mises"
    about: ClassVar[str] = "von Mises distribution of angles, mean direction loc"
    support: ClassVar[str] = "angles in radians, from -2 pi to 2 pi"
    circular: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("tan_half"), "mean direction, radians"),
            Parameter("concentration", link("log"), "concentration, 0 for the uniform"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        # cos(d) - 1 = -2 sin(d / 2)^2
        return self._log_density_at(values, tf.square(tf.sin(0.5 * (y - values["loc"].value))))

    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return tf.tan(0.5 * (y - values["loc"].value))

    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        square = x * x
        sin_square = square / (1.0 + square)
        return self._log_density_at(values, sin_square) + math.log(2.0) - tf.math.log1p(square)

    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        k = values["concentration"].value
        return tf.zeros_like(k), 1.0 / (1.0 + 2.0 * tf.sqrt(k))

    @staticmethod
    def _log_density_at(values: Mapping[str, Value], sin_square: Tensor) -> Tensor:
        k = values["concentration"].value
        return -2.0 * k * sin_square - math.log(2.0 * math.pi) - log_bessel_i0e(k)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y) & (np.abs(y) <= 2.0 * np.pi))

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        return np.asarray(_log(scipy.stats.vonmises(theta["concentration"]).cdf(_turned(y, theta))))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        opposite = -_turned(y, theta)
        return np.asarray(_log(scipy.stats.vonmises(theta["concentration"]).cdf(opposite)))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        return _wrapped(theta["loc"] + scipy.stats.vonmises(theta["concentration"]).ppf(p))

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        theta = self.parameters_at(eta)
        draws = numerical.generator(seed).vonmises(
            theta["loc"], theta["concentration"], size=(n, len(eta))
        )
        return np.asarray(draws)

    def mean(self, eta: Matrix) -> Vector:
        return self.parameters_at(eta)["loc"]

    def variance(self, eta: Matrix) -> Vector:
        k = self.parameters_at(eta)["concentration"]
        i0, i1 = scipy.special.i0e(k), scipy.special.i1e(k)
        return np.asarray((i0 - i1) / i0)

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        """2 (1 - cos(y - mean)), the squared chord between the directions."""
        return np.asarray(2.0 * (1.0 - np.cos(y - mean)))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        vector = np.average(np.exp(1j * y), weights=weights)
        length = min(abs(vector), CERTAIN)
        # Banerjee et al. (2005): within a few percent of maximum likelihood everywhere
        concentration = length * (2.0 - length**2) / (1.0 - length**2)
        return {"loc": float(np.angle(vector)), "concentration": concentration}


def _turned(y: Array, theta: Mapping[str, Vector]) -> Vector:
    """Angle from loc, in [-pi, pi]; the end opposite to loc for the open end of a censored row."""
    angle = np.asarray(y, dtype=np.float64) - theta["loc"]
    known = np.isfinite(angle)
    return np.where(known, _wrapped(np.where(known, angle, 0.0)), np.sign(angle) * np.pi)


def _wrapped(angle: Vector) -> Vector:
    return np.asarray(angle - 2.0 * np.pi * np.round(angle / (2.0 * np.pi)))


def _log(x: Vector) -> Vector:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))
