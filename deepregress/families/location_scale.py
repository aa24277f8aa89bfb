"""Location-scale families: y = loc + scale * e (METHODS 7).

Standard densities f0(z), z = (y - loc) / scale:

    logistic    exp(-z) / (1 + exp(-z))^2       mean loc, variance (pi scale)^2 / 3
    gumbel      exp(-z - exp(-z))               mean loc + gamma scale, variance (pi scale)^2 / 6
    gumbel_min  exp(z - exp(z))                 mean loc - gamma scale, variance (pi scale)^2 / 6
    cauchy      1 / (pi (1 + z^2))              no mean; loc is the median
    laplace     exp(-|z|) / 2                   mean and median loc, variance 2 scale^2

gamma = 0.5772 is Euler's constant. The scale is estimated by maximum likelihood together with the
coefficients, also where it is constant, as gamlss and mgcv's location-scale families do: the
correction n / (n - p) of a residual variance is exact for the normal only.

References: Johnson, Kotz & Balakrishnan (1994, 1995), Continuous Univariate Distributions, ch. 16,
22 to 24; Wood & Fasiolo (2017), doi:10.1111/biom.12666 (gumbls).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link
from deepregress.families.base import Parameter, register
from deepregress.families.formulated import LocationScale
from deepregress.families.moments import gumbel_start
from deepregress.families.special import log1mexp
from deepregress.families.standard import CAUCHY, LOGISTIC, MAXIMUM, MINIMUM, Standard
from deepregress.linalg import Matrix, Vector


def _parameters(loc: str, scale: str) -> tuple[Parameter, ...]:
    return (
        Parameter("loc", link("identity"), f"{loc}, units of the response"),
        Parameter("scale", link("log"), f"{scale}, units of the response"),
    )


@register
@dataclass(frozen=True)
class Logistic(LocationScale):
    """Logistic distribution with location and scale.

    f(y) = exp(-z) / (scale (1 + exp(-z))^2),  z = (y - loc) / scale;
    mean loc, variance pi^2 scale^2 / 3.
    """

    name: ClassVar[str] = "logistic"
    about: ClassVar[str] = "logistic, mean loc, standard deviation 1.81 scale"
    error: ClassVar[Standard] = LOGISTIC

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters("mean", "scale")

    @staticmethod
    def standard() -> Any:
        return scipy.stats.logistic


@register
@dataclass(frozen=True)
class Gumbel(LocationScale):
    """Gumbel distribution of maxima (mgcv's gumbls), with location (the mode) and scale.

    f(y) = exp(-z - exp(-z)) / scale,  z = (y - loc) / scale;
    mean loc + 0.5772 scale, variance pi^2 scale^2 / 6.
    """

    name: ClassVar[str] = "gumbel"
    about: ClassVar[str] = "Gumbel distribution of maxima, long upper tail"
    error: ClassVar[Standard] = MAXIMUM

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters("mode", "scale")

    @staticmethod
    def standard() -> Any:
        return scipy.stats.gumbel_r

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return gumbel_start(y, weights)


@register
@dataclass(frozen=True)
class GumbelMin(LocationScale):
    """Gumbel distribution of minima, with location (the mode) and scale: the log of a Weibull.

    f(y) = exp(z - exp(z)) / scale,  z = (y - loc) / scale;
    mean loc - 0.5772 scale, variance pi^2 scale^2 / 6.
    """

    name: ClassVar[str] = "gumbel_min"
    about: ClassVar[str] = "Gumbel distribution of minima, long lower tail"
    error: ClassVar[Standard] = MINIMUM

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters("mode", "scale")

    @staticmethod
    def standard() -> Any:
        return scipy.stats.gumbel_l

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mirrored = gumbel_start(-y, weights)
        return {"loc": -mirrored["loc"], "scale": mirrored["scale"]}


@register
@dataclass(frozen=True)
class Cauchy(LocationScale):
    """Cauchy distribution with location (the median) and scale (half the interquartile range).

    f(y) = 1 / (pi scale (1 + z^2)),  z = (y - loc) / scale; neither mean nor variance exist:
    `mean` is loc, the centre of symmetry, `variance` is infinite.
    """

    name: ClassVar[str] = "cauchy"
    about: ClassVar[str] = "Cauchy, median loc, half the interquartile range scale"
    error: ClassVar[Standard] = CAUCHY

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters("median", "half the interquartile range")

    @staticmethod
    def standard() -> Any:
        return scipy.stats.cauchy

    def mean(self, eta: Matrix) -> Vector:
        return self.parameters_at(eta)["loc"]

    def variance(self, eta: Matrix) -> Vector:
        return np.full(len(eta), np.inf)


ROUNDING = 0.1
"""Share of the scale over which the peak of a Laplace density is rounded in fits: its logarithm has
no curvature but a jump of slope at loc, so that information must come from a neighbourhood of it,
and a narrower one holds too few responses to measure standard errors (5 % at n = 500)."""
_LOG_MASS = math.log(2.0 * ROUNDING * scipy.special.k1(ROUNDING))


def _log_laplace_cdf(z: Tensor) -> Tensor:
    lower = z < 0.0
    above = log1mexp(tf.where(lower, tf.ones_like(z), z) + math.log(2.0))
    return tf.where(lower, z - math.log(2.0), above)


_ROUNDED_LAPLACE = Standard(
    "Laplace",
    lambda z: -tf.sqrt(z * z + ROUNDING**2) - _LOG_MASS,
    _log_laplace_cdf,
    lambda z: _log_laplace_cdf(-z),
)


@register
@dataclass(frozen=True)
class Laplace(LocationScale):
    """Laplace distribution with location (mean and median) and scale: least absolute deviations.

    f(y) = exp(-|z|) / (2 scale),  z = (y - loc) / scale; mean loc, variance 2 scale^2.

    Fits maximise, and `log_density` is, the density with its peak rounded,

        f(y) = exp(-sqrt(z^2 + c^2)) / (2 c K1(c) scale),  c = 0.1,

    a hyperbolic distribution, whose logarithm has the curvature that Newton's method and standard
    errors need. Probabilities, quantiles and moments are those of the Laplace distribution; log
    densities differ from its by 0.1 at y = loc and by less than 0.01 beyond half a scale.
    """

    name: ClassVar[str] = "laplace"
    about: ClassVar[str] = "Laplace, mean and median loc, mean absolute deviation scale"
    error: ClassVar[Standard] = _ROUNDED_LAPLACE

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters("mean and median", "mean absolute deviation")

    @staticmethod
    def standard() -> Any:
        return scipy.stats.laplace
