"""Families of a continuous response.

Densities in the parameters a user writes formulas for (METHODS 7): the mean where regression users
expect the mean, dispersion in the sense of the generalised linear model.

References: McCullagh & Nelder (1989), Generalized Linear Models, chapters 3 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link, log_normal_cdf
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.incomplete_gamma import log_tails
from deepregress.families.moments import weighted_moments
from deepregress.linalg import Array, Vector

tfd = tfp.distributions

ROUNDING = 1e-12
"""Relative size of residuals that are rounding errors: a few thousand units in the last place."""


@register
@dataclass(frozen=True)
class Normal(Family):
    """Normal distribution with location and scale.

    f(y) = exp(-z^2 / 2) / (scale sqrt(2 pi)),  z = (y - loc) / scale;  mean loc, variance scale^2.
    """

    name: ClassVar[str] = "normal"
    about: ClassVar[str] = "normal, mean loc and standard deviation scale"
    support: ClassVar[str] = "finite numbers"
    exponential: ClassVar[bool] = True
    dispersion: ClassVar[str | None] = "scale"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "mean, units of the response"),
            Parameter("scale", link("log"), "standard deviation, units of the response"),
        )

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Normal(values["loc"].value, values["scale"].value)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log_normal_cdf(_standardised(values, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log_normal_cdf(-_standardised(values, y))

    def in_support(self, y: Array) -> Array:
        return np.isfinite(y)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = weighted_moments(y, weights)
        return {"loc": mean, "scale": np.sqrt(variance)}

    def dispersion_of(self, theta: float) -> float:
        return theta**2

    def least_dispersion(self, y: Vector) -> float:
        return ROUNDING**2 * float(np.vdot(y, y)) / len(y)

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        return (y - mean) ** 2

    def reported_dispersion(self, y: Vector, weights: Vector, mean: Vector, reml: float) -> float:
        """R's logLik of a Gaussian fit is at the maximum likelihood scale sqrt(RSS / n)."""
        return float(np.sqrt(np.average((y - mean) ** 2, weights=weights)))


@register
@dataclass(frozen=True)
class Gamma(Family):
    """Gamma distribution with mean and dispersion.

    f(y) = y^(a-1) exp(-a y / mean) (a / mean)^a / Gamma(a),  a = 1 / dispersion;
    mean `mean`, variance dispersion * mean^2.
    """

    name: ClassVar[str] = "gamma"
    about: ClassVar[str] = "gamma, variance dispersion * mean^2"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    exponential: ClassVar[bool] = True
    dispersion: ClassVar[str | None] = "dispersion"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, units of the response"),
            Parameter("dispersion", link("log"), "squared coefficient of variation"),
        )

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Gamma(**_gamma_arguments(values))

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        # tfd.Gamma takes xlogy(concentration - 1, y), whose derivative TensorFlow sets to zero
        # where concentration is exactly 1; the distribution of log y has no such term
        log_y = tf.math.log(y)
        return tfd.ExpGamma(**_gamma_arguments(values)).log_prob(log_y) - log_y

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[1]

    @staticmethod
    def _log_tails(values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        concentration = tf.exp(-values["dispersion"].log)
        return log_tails(concentration, tf.math.log(y) - values["mean"].log)

    def in_support(self, y: Array) -> Array:
        return np.isfinite(y) & (y > 0)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, _ = weighted_moments(y, weights)
        _, dispersion = weighted_moments(y / mean, weights)
        return {"mean": mean, "dispersion": dispersion}

    def dispersion_of(self, theta: float) -> float:
        return theta

    def least_dispersion(self, y: Vector) -> float:
        # the deviance is a difference of numbers of order one
        return 0.1 * ROUNDING

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        return 2.0 * ((y - mean) / mean - np.log(y / mean))


def _standardised(values: Mapping[str, Value], y: Tensor) -> Tensor:
    return (y - values["loc"].value) * tf.exp(-values["scale"].log)


def _gamma_arguments(values: Mapping[str, Value]) -> dict[str, Tensor]:
    log_concentration = -values["dispersion"].log
    return {
        "concentration": tf.exp(log_concentration),
        "log_rate": log_concentration - values["mean"].log,
    }
