"""Family of a proportion: the beta distribution (METHODS 7).

    f(y) = y^(a-1) (1-y)^(b-1) / B(a, b),   a = mean * precision,  b = (1 - mean) * precision

With Stirling's remainder R the Gamma functions of a large precision cancel before they are taken:

    log f = a log(y / mean) + b log((1 - y) / (1 - mean)) - log(y (1 - y))
            + 1/2 log(precision mean (1 - mean) / 2 pi) + R(precision) - R(a) - R(b)

References: Ferrari & Cribari-Neto (2004), doi:10.1080/0266476042000214501.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link, softplus
from deepregress.families.base import Parameter, Value, register
from deepregress.families.formulated import slope
from deepregress.families.integrated import Integrated
from deepregress.families.moments import weighted_moments
from deepregress.families.special import HALF_LOG_2PI, stirling_remainder
from deepregress.linalg import Matrix, Vector

SHARPEST = 1e14
"""Precision beyond which SciPy's beta is no distribution; the sd is 1e-7 there."""
LEAST_PRECISION = 0.1
"""Precision at which to start where the response has almost all its mass at 0 and 1."""


@register
@dataclass(frozen=True)
class Beta(Integrated):
    """Beta distribution with mean and precision.

    f(y) = y^(a-1) (1-y)^(b-1) / B(a, b),  a = mean * precision, b = (1 - mean) * precision;
    mean `mean`, variance mean (1 - mean) / (1 + precision).

    Responses of exactly 0 or 1 have no density: use a zero/one inflated beta, or `interval` bounds.
    """

    name: ClassVar[str] = "beta"
    about: ClassVar[str] = "beta, variance mean (1 - mean) / (1 + precision)"
    support: ClassVar[str] = "numbers strictly between 0 and 1"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    exponential_given: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ("precision",)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("logit"), "mean"),
            Parameter("precision", link("log"), "sum of the two shapes"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_y, log_1y = tf.math.log(y), tf.math.log1p(-y)
        return self._log_kernel(values, log_y, log_1y) - log_y - log_1y

    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return tf.math.log(y) - tf.math.log1p(-y)

    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        return self._log_kernel(values, -softplus(-x), -softplus(x))

    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        logit, log_precision = values["mean"].logit, values["precision"].log
        return logit, tf.exp(0.5 * (softplus(logit) + softplus(-logit) - log_precision))

    @staticmethod
    def _log_kernel(values: Mapping[str, Value], log_y: Tensor, log_1y: Tensor) -> Tensor:
        """Log density of the logit of y, from log y and log(1 - y)."""
        logit, log_precision = values["mean"].logit, values["precision"].log
        log_mean, log_rest = -softplus(-logit), -softplus(logit)
        a, b = tf.exp(log_mean + log_precision), tf.exp(log_rest + log_precision)
        kernel = a * (log_y - log_mean) + b * (log_1y - log_rest)
        remainder = stirling_remainder(a + b) - stirling_remainder(a) - stirling_remainder(b)
        return kernel + 0.5 * (log_precision + log_mean + log_rest) - HALF_LOG_2PI + remainder

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        mean, precision = theta["mean"], np.minimum(theta["precision"], SHARPEST)
        # a shape that rounds to zero, where SciPy knows no limit, is that of a point at 0 or 1
        least = np.finfo(np.float64).tiny
        a, b = mean * precision, (1.0 - mean) * precision
        return scipy.stats.beta(np.maximum(a, least), np.maximum(b, least))

    def fisher_weight(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        mean, precision = theta["mean"], theta["precision"]
        a, b = mean * precision, (1.0 - mean) * precision
        curvature = scipy.special.polygamma(1, a) + scipy.special.polygamma(1, b)
        return np.asarray((slope(self, eta) * precision) ** 2 * curvature)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = weighted_moments(y, weights)
        precision = mean * (1.0 - mean) / variance - 1.0
        return {"mean": mean, "precision": max(precision, LEAST_PRECISION)}
