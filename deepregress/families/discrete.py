"""Families of a binary or count response (METHODS 7).

References: McCullagh & Nelder (1989), Generalized Linear Models, chapters 4 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link, softplus
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.counted import NUMERICALLY_ZERO, Counted, edge
from deepregress.families.counting import Count
from deepregress.linalg import Array, Matrix, Vector

tfd = tfp.distributions


@register
@dataclass(frozen=True)
class Bernoulli(Family):
    """Bernoulli distribution of a binary response.

    P(y = 1) = prob, P(y = 0) = 1 - prob;  mean prob, variance prob (1 - prob).
    """

    name: ClassVar[str] = "bernoulli"
    about: ClassVar[str] = "binary response, probability of the second level (or of 1)"
    support: ClassVar[str] = "0 or 1 (or a factor of two levels)"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    exponential: ClassVar[bool] = True
    discrete: ClassVar[bool] = True
    takes_levels: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("prob", link("logit"), "probability of 1 (or of the second level)"),)

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Bernoulli(logits=values["prob"].logit, dtype=values["prob"].eta.dtype)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isin(y, (0.0, 1.0)))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # half an observation of each kind keeps the start finite for an all-0 or all-1 response
        total = float(weights.sum())
        return {"prob": (float(weights @ y) + 0.5) / (total + 1.0)}

    def boundary(self, eta: Matrix) -> str | None:
        mean = self.mean(eta)
        extreme = int(np.sum((mean < NUMERICALLY_ZERO) | (mean > 1.0 - NUMERICALLY_ZERO)))
        return edge("probabilities numerically 0 or 1", extreme, len(eta))

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        deviance: Vector = -2.0 * (
            scipy.special.xlogy(y, mean) + scipy.special.xlog1py(1.0 - y, -mean)
        )
        return deviance

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return tf.where(y < 1.0, -softplus(values["prob"].logit), tf.zeros_like(y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return tf.where(y < 1.0, -softplus(-values["prob"].logit), -np.inf * tf.ones_like(y))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        return np.where(probability <= 1.0 - self.mean(eta), 0.0, 1.0)


@register
@dataclass(frozen=True)
class Poisson(Counted):
    """Poisson distribution of a count.

    P(y) = mean^y exp(-mean) / y!;  mean and variance `mean`.
    """

    name: ClassVar[str] = "poisson"
    about: ClassVar[str] = "counts, variance equal to the mean"
    exponential: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("mean", link("log"), "mean, counts"),)

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log)

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Poisson(log_rate=values["mean"].log, force_probs_to_zero_outside_support=True)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # half a count keeps the start finite for an all-0 response
        total = float(weights.sum())
        return {"mean": (float(weights @ y) + 0.5) / (total + 0.5)}

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        deviance: Vector = 2.0 * np.maximum(scipy.special.kl_div(y, mean), 0.0)
        return deviance
