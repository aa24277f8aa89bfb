"""Families of a real response with parameters for skewness and tails (METHODS 7).

    student_t    y = loc + scale t_df: heavy tails, df > 1 so that the mean exists
    shash        sinh(tail asinh(z) - skewness) is standard normal, z = (y - loc) / (scale tail)
    skewnormal   2 phi(z) Phi(skewness z) / scale

Log-densities keep their digits where they tend to the normal: df -> infinity by Stirling's
remainder, the others through functions that are analytic there.

References: Lange, Little & Taylor (1989), doi:10.1080/01621459.1989.10478852 (t); Jones & Pewsey
(2009), doi:10.1093/biomet/asp053 (sinh-arcsinh); Azzalini (1985) (skew normal).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link, log_normal_cdf, softplus
from deepregress.families.base import Parameter, Value, register
from deepregress.families.formulated import Continuous, slope, standardised
from deepregress.families.integrated import Integrated
from deepregress.families.moments import (
    quartile_location_scale,
    weighted_moments,
)
from deepregress.families.special import HALF_LOG_2PI, stirling_remainder
from deepregress.linalg import Array, Matrix, Vector

LOG_2 = math.log(2.0)
_START_DF = 5.0
_START_SKEWNESS = 1.5
"""The skew normal's information matrix is singular at skewness 0: starts are away from it."""


@register
@dataclass(frozen=True)
class StudentT(Integrated):
    """Student's t with location, scale and degrees of freedom: y = loc + scale t_df.

    f(y) = Gamma((df + 1) / 2) / (Gamma(df / 2) sqrt(df pi) scale) (1 + z^2 / df)^(-(df + 1) / 2),
    z = (y - loc) / scale; mean loc, variance scale^2 df / (df - 2) where df > 2, else infinite.

    The default link of df is logshiftto1, df = 1 + exp(eta): the mean exists and the likelihood is
    bounded. With a constant scale and df beside smooth terms errors are those of the expected
    information, as mgcv's. `link={"df": "log"}` allows df below 1; mgcv's `scat` has
    df = min.df + exp(eta) with min.df = 3.
    """

    name: ClassVar[str] = "student_t"
    about: ClassVar[str] = "Student's t, y = loc + scale t_df"
    exponential_given: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ("scale", "df")

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "mean and median, units of the response"),
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("df", link("logshiftto1"), "degrees of freedom"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        df, log_df = values["df"].value, values["df"].log
        z = standardised(values, y)
        half = 0.5 * df
        # log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df / 2) / 2, which vanishes with 1 / df
        inverse = tf.exp(-log_df)
        ratio = half * tf.math.log1p(inverse) - 0.5
        ratio += stirling_remainder(half + 0.5) - stirling_remainder(half)
        tail = 0.5 * (df + 1.0) * tf.math.log1p(z * z * inverse)
        return ratio - HALF_LOG_2PI - values["scale"].log - tail

    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return y

    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        return self.log_density(values, x)

    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["loc"].value, values["scale"].value

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.t(theta["df"], loc=theta["loc"], scale=theta["scale"])

    def mean(self, eta: Matrix) -> Vector:
        return self.parameters_at(eta)["loc"]

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        finite = theta["df"] > 2.0
        ratio = theta["df"] / np.where(finite, theta["df"] - 2.0, 1.0)
        return np.asarray(np.where(finite, theta["scale"] ** 2 * ratio, np.inf))

    def fisher_weight(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        df, scale = theta["df"], theta["scale"]
        return np.asarray((slope(self, eta) / scale) ** 2 * (df + 1.0) / (df + 3.0))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        quartiles = tuple(scipy.stats.t(_START_DF).ppf((0.25, 0.5, 0.75)))
        loc, scale = quartile_location_scale(y, weights, quartiles)
        return {"loc": loc, "scale": scale, "df": _START_DF}


@register
@dataclass(frozen=True)
class SinhArcsinh(Continuous):
    """Sinh-arcsinh distribution with location, scale, skewness and tail weight (mgcv's shash).

    f(y) = sqrt(1 + s^2) exp(-s^2 / 2) / (scale sqrt(2 pi (1 + z^2))),
    s = sinh(tail asinh(z) - skewness),  z = (y - loc) / (scale tail);  s is standard normal.

    With P_q = E sinh-arcsinh moments, P_q = exp(1/4) (K_{(q+1)/2}(1/4) + K_{(q-1)/2}(1/4)) /
    sqrt(8 pi): mean loc + scale tail sinh(skewness / tail) P_{1/tail}, and
    E z^2 = (cosh(2 skewness / tail) P_{2/tail} - 1) / 2. Skewness 0 and tail 1 is the normal;
    tail < 1 has heavier tails than it, tail > 1 lighter ones.
    """

    name: ClassVar[str] = "shash"
    about: ClassVar[str] = "sinh-arcsinh, skewness and tail weight besides location and scale"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "location, units of the response"),
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("skewness", link("identity"), "skewness, 0 where symmetric"),
            Parameter("tail", link("log"), "tail weight, 1 as the normal, heavier below"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        z, u = self._normal_score(values, y)
        log_cosh = u + softplus(-2.0 * u) - LOG_2
        normal = log_cosh - 0.5 * tf.square(tf.sinh(u)) - HALF_LOG_2PI
        return normal - values["scale"].log - 0.5 * tf.math.log1p(z * z)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log_normal_cdf(tf.sinh(self._normal_score(values, y)[1]))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log_normal_cdf(-tf.sinh(self._normal_score(values, y)[1]))

    @staticmethod
    def _normal_score(values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        """Z and asinh of the normal score."""
        z = standardised(values, y) * tf.exp(-values["tail"].log)
        return z, values["tail"].value * tf.asinh(z) - values["skewness"].value

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        score = np.arcsinh(scipy.special.ndtri(probability)) + theta["skewness"]
        z = np.sinh(score / theta["tail"])
        return np.asarray(theta["loc"] + theta["scale"] * theta["tail"] * z)

    def mean(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        return np.asarray(theta["loc"] + theta["scale"] * theta["tail"] * self._moments(theta)[0])

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        first, second = self._moments(theta)
        return np.asarray((theta["scale"] * theta["tail"]) ** 2 * (second - first**2))

    @staticmethod
    def _moments(theta: Mapping[str, Vector]) -> tuple[Vector, Vector]:
        """E z and E z^2."""
        tail, shift = theta["tail"], theta["skewness"] / theta["tail"]
        first = np.sinh(shift) * _bessel_moment(1.0 / tail)
        return first, 0.5 * (np.cosh(2.0 * shift) * _bessel_moment(2.0 / tail) - 1.0)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        quartiles = tuple(scipy.stats.norm.ppf((0.25, 0.5, 0.75)))
        loc, scale = quartile_location_scale(y, weights, quartiles)
        return {"loc": loc, "scale": scale, "skewness": 0.0, "tail": 1.0}


def _bessel_moment(order: Vector) -> Vector:
    """P_q = exp(1/4) (K_{(q + 1) / 2}(1/4) + K_{(q - 1) / 2}(1/4)) / sqrt(8 pi)."""
    scaled = scipy.special.kve((order + 1.0) / 2.0, 0.25) + scipy.special.kve(
        (order - 1.0) / 2.0, 0.25
    )
    return np.asarray(scaled / np.sqrt(8.0 * np.pi))


@register
@dataclass(frozen=True)
class SkewNormal(Integrated):
    """Skew normal distribution (Azzalini) with location, scale and skewness.

    f(y) = 2 phi(z) Phi(skewness z) / scale,  z = (y - loc) / scale;  with
    d = skewness / sqrt(1 + skewness^2): mean loc + scale d sqrt(2 / pi),
    variance scale^2 (1 - 2 d^2 / pi).
    """

    name: ClassVar[str] = "skewnormal"
    about: ClassVar[str] = "skew normal (Azzalini), skewness 0 the normal"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "location, units of the response"),
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("skewness", link("identity"), "slant, 0 where symmetric"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        z = standardised(values, y)
        normal = LOG_2 - HALF_LOG_2PI - 0.5 * z * z - values["scale"].log
        return normal + log_normal_cdf(values["skewness"].value * z)

    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return y

    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        return self.log_density(values, x)

    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["loc"].value, values["scale"].value

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.skewnorm(theta["skewness"], loc=theta["loc"], scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = weighted_moments(y, weights)
        third = float(np.average((y - mean) ** 3, weights=weights))
        skewness = math.copysign(_START_SKEWNESS, third)
        d = skewness / math.hypot(1.0, skewness)
        scale = math.sqrt(variance / (1.0 - 2.0 * d**2 / math.pi))
        return {
            "loc": mean - scale * d * math.sqrt(2.0 / math.pi),
            "scale": scale,
            "skewness": skewness,
        }
