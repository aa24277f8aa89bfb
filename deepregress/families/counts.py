"""Families of an overdispersed count (METHODS 7): variance quadratic or linear in the mean.

    negative_binomial     variance mean + dispersion mean^2
    negbin1               variance mean (1 + dispersion)
    generalized_poisson   variance mean (1 + dispersion), another third moment
    geometric             variance mean + mean^2

References: Hilbe (2011), Negative Binomial Regression; Cameron & Trivedi (2013), Regression
Analysis of Count Data, 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor, link, softplus
from deepregress.families import numerical
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.counted import LEAST_DISPERSION, Counted
from deepregress.families.counting import Count, log_factorial
from deepregress.families.moments import weighted_moments
from deepregress.families.special import log1mexp
from deepregress.families.sums import blocks_for, log_tails_by_sums
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response


@register
@dataclass(frozen=True)
class NegativeBinomial(Counted):
    """Negative binomial distribution with mean and dispersion.

    P(y) = Gamma(y + r) / (Gamma(r) y!) (r / (r + mean))^r (mean / (r + mean))^y,
    r = 1 / dispersion;  mean `mean`, variance mean + dispersion * mean^2 (glm.nb's theta is r).
    """

    name: ClassVar[str] = "negative_binomial"
    about: ClassVar[str] = "overdispersed counts, variance mean + dispersion * mean^2"
    exponential_given: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ("dispersion",)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, counts"),
            Parameter("dispersion", link("log"), "(variance - mean) / mean^2"),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log, values["dispersion"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = count_moments(y, weights)
        return {"mean": mean, "dispersion": quadratic_dispersion(mean, variance)}


@register
@dataclass(frozen=True)
class NegativeBinomial1(Counted):
    """Negative binomial distribution whose variance is proportional to the mean.

    P(y) as of `negative_binomial` with r = mean / dispersion;  mean `mean`, variance
    mean * (1 + dispersion)  (glmmTMB's nbinom1).
    """

    name: ClassVar[str] = "negbin1"
    about: ClassVar[str] = "overdispersed counts, variance mean * (1 + dispersion)"
    extra: ClassVar[tuple[str, ...]] = ("dispersion",)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, counts"),
            Parameter("dispersion", link("log"), "variance / mean - 1"),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        log_mean = values["mean"].log
        return Count(log_mean, values["dispersion"].log - log_mean)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = count_moments(y, weights)
        return {"mean": mean, "dispersion": max(variance / mean - 1.0, LEAST_DISPERSION)}


@register
@dataclass(frozen=True)
class Geometric(Counted):
    """Geometric distribution of the failures before a first success.

    P(y) = mean^y / (1 + mean)^(y + 1);  mean `mean`, variance mean + mean^2.
    """

    name: ClassVar[str] = "geometric"
    about: ClassVar[str] = "counts, variance mean + mean^2"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("mean", link("log"), "mean, counts"),)

    def count(self, values: Mapping[str, Value]) -> Count:
        log_mean = values["mean"].log
        return Count(log_mean, 0.0 * log_mean)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return -y * softplus(-values["mean"].log) - softplus(values["mean"].log)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log1mexp(-self.log_survival(values, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return -(y + 1.0) * softplus(-values["mean"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return {"mean": count_moments(y, weights)[0]}


@register
@dataclass(frozen=True)
class GeneralizedPoisson(Counted):
    """Generalized Poisson distribution of Consul, overdispersed.

    P(y) = theta (theta + lambda y)^(y - 1) exp(-theta - lambda y) / y!,
    theta = mean / s, lambda = 1 - 1 / s, s = sqrt(1 + dispersion);  mean `mean`, variance
    mean * (1 + dispersion)  (glmmTMB's genpois, whose parameter is 1 + dispersion).
    """

    n_blocks: int = 0
    """Of the sums of a compiled likelihood with censored rows."""

    name: ClassVar[str] = "generalized_poisson"
    about: ClassVar[str] = "overdispersed counts with a heavier tail than negbin1"
    extra: ClassVar[tuple[str, ...]] = ("dispersion",)

    def for_response(self, response: Response) -> Family:
        return replace(self, n_blocks=blocks_for(response))

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, counts"),
            Parameter("dispersion", link("log"), "variance / mean - 1"),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        # of the same mean and variance: for the moments only
        return Count(values["mean"].log, values["dispersion"].log - values["mean"].log)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_theta, share = _generalized(values)
        theta = tf.exp(log_theta)
        grown = theta + share * y
        return log_theta + (y - 1.0) * tf.math.log(grown) - grown - log_factorial(y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[1]

    def _log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        count = self.count(values)
        return log_tails_by_sums(
            self.log_density,
            values,
            y,
            mean=count.mean,
            variance=count.variance,
            most=np.inf * tf.ones_like(y),
            n_blocks=self.n_blocks,
        )

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(np.exp(self.logcdf(y, eta)))

    def survival(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(np.exp(self.logsurvival(y, eta)))

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return numerical.log_cdf(self, y, eta)

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return numerical.log_survival(self, y, eta)

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        """All descendants of a Poisson(theta) number of founders with Poisson(lambda) children."""
        log_theta, share = _generalized(self.values(tf.convert_to_tensor(eta, tf.float64)))
        rng = numerical.generator(seed)
        born = rng.poisson(np.exp(log_theta.numpy()), (n, len(eta)))
        total = born.astype(np.float64)
        while born.any():
            born = rng.poisson(born * share.numpy())
            total += born
        return total

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = count_moments(y, weights)
        return {"mean": mean, "dispersion": max(variance / mean - 1.0, LEAST_DISPERSION)}


def _generalized(values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
    """log theta and lambda of a generalized Poisson distribution."""
    log_root = 0.5 * tf.math.log1p(tf.exp(values["dispersion"].log))
    return values["mean"].log - log_root, -tf.math.expm1(-log_root)


def count_moments(y: Vector, weights: Vector) -> tuple[float, float]:
    """Mean and variance; half a count more keeps those of an all-0 response positive."""
    mean, variance = weighted_moments(y, weights)
    total = float(weights.sum())
    return (mean * total + 0.5) / (total + 0.5), variance


def quadratic_dispersion(mean: float, variance: float) -> float:
    """(variance - mean) / mean^2, where it is positive enough to start from."""
    return max((variance - mean) / mean**2, LEAST_DISPERSION)
