"""Families of an overdispersed count (METHODS 7): variance quadratic or linear in the mean.

    negative_binomial     variance mean + dispersion mean^2
    negbin1               variance mean (1 + dispersion)
    geometric             variance mean + mean^2

References: Hilbe (2011), Negative Binomial Regression; Cameron & Trivedi (2013), Regression
Analysis of Count Data, 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from deepregress.bijectors import link
from deepregress.families.base import Parameter, Value, register
from deepregress.families.counted import LEAST_DISPERSION, Counted
from deepregress.families.counting import Count
from deepregress.families.moments import weighted_moments
from deepregress.linalg import Vector


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

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return {"mean": count_moments(y, weights)[0]}


def count_moments(y: Vector, weights: Vector) -> tuple[float, float]:
    """Mean and variance; half a count more keeps those of an all-0 response positive."""
    mean, variance = weighted_moments(y, weights)
    total = float(weights.sum())
    return (mean * total + 0.5) / (total + 0.5), variance


def quadratic_dispersion(mean: float, variance: float) -> float:
    """(variance - mean) / mean^2, where it is positive enough to start from."""
    return max((variance - mean) / mean**2, LEAST_DISPERSION)
