"""Families of a proportion that can be exactly 0 or 1 (METHODS 9): beta with point masses.

    P(0) = p0,  P(1) = p1,  density (1 - p0 - p1) f(y) on (0, 1),  f beta with mean and precision

    zero_inflated_beta        p0 = inflation, p1 = 0
    one_inflated_beta         p0 = 0, p1 = inflation
    zero_one_inflated_beta    p0 = inflation (1 - one), p1 = inflation one

The likelihood is a product of factors: of which rows are 0 or 1, of which of these are 1, and of
the others. References: Ospina & Ferrari (2010), doi:10.1007/s00362-008-0125-4.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor, link, softplus
from deepregress.families.base import Parameter, Value, register
from deepregress.families.counted import EXTREME_PREDICTOR, edge
from deepregress.families.formulated import Continuous
from deepregress.families.proportion import Beta
from deepregress.linalg import Array, Matrix, Vector

_BETA = Beta(Beta.default_parameters())
_MEAN = Parameter("mean", link("logit"), "mean of the responses between 0 and 1")
_PRECISION = Parameter("precision", link("log"), "sum of the two shapes of the beta distribution")


class InflatedBeta(Continuous):
    """A beta distribution with point masses at 0 or 1 or both."""

    extra: ClassVar[tuple[str, ...]] = ("precision",)

    @abstractmethod
    def log_masses(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor, Tensor]:
        """log p0, log p1 and log(1 - p0 - p1), (n_obs,) each; -inf for what cannot be."""

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        zero, one, rest = self.log_masses(values)
        inside = (y > 0.0) & (y < 1.0)
        between = rest + _BETA.log_density(values, _inner(y, inside))
        return tf.where(inside, between, tf.where(y <= 0.0, zero, one))

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        zero, _, rest = self.log_masses(values)
        inside = (y > 0.0) & (y < 1.0)
        below = _log_sum(zero, rest + _BETA.log_cdf(values, _inner(y, inside)))
        nothing = tf.where(y < 0.0, -np.inf * tf.ones_like(y), zero)
        return tf.where(inside, below, tf.where(y < 1.0, nothing, tf.zeros_like(y)))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        _, one, rest = self.log_masses(values)
        inside = (y > 0.0) & (y < 1.0)
        above = _log_sum(one, rest + _BETA.log_survival(values, _inner(y, inside)))
        everything = tf.where(y < 0.0, tf.zeros_like(y), _log_sum(one, rest))
        return tf.where(inside, above, tf.where(y < 1.0, everything, -np.inf * tf.ones_like(y)))

    def in_support(self, y: Array) -> Array:
        return np.asarray(((y > 0.0) & (y < 1.0)) | np.isin(y, self.atoms))

    def varying(self, y: Array) -> Array:
        inside = y[(y > 0.0) & (y < 1.0)]
        return inside if len(inside) else y

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        inside = (y > 0.0) & (y < 1.0)
        # half an observation of each kind keeps the start finite
        total, ones = float(weights.sum()), float(weights[y == 1.0].sum())
        ends = total - float(weights[inside].sum())
        beta = {"mean": 0.5, "precision": 1.0}
        if inside.any():
            beta = dict(_BETA.start_values(y[inside], weights[inside]))
        inflation, one = (ends + 0.5) / (total + 1.0), (ones + 0.5) / (ends + 1.0)
        return {**beta, "inflation": inflation, "one": one}

    def boundary(self, eta: Matrix) -> str | None:
        extreme = np.any(np.abs(eta[:, 2:]) > EXTREME_PREDICTOR, axis=1)
        return edge("probabilities of 0 or 1 numerically 0 or 1", int(extreme.sum()), len(eta))

    def mean(self, eta: Matrix) -> Vector:
        _, one, rest = self._masses(eta)
        return np.asarray(one + rest * self.parameters_at(eta)["mean"])

    def variance(self, eta: Matrix) -> Vector:
        zero, one, rest = self._masses(eta)
        theta = self.parameters_at(eta)
        m, within = theta["mean"], theta["mean"] * (1.0 - theta["mean"])
        within /= 1.0 + theta["precision"]
        # within the beta part and between the three parts
        between = zero * rest * m**2 + one * rest * (1.0 - m) ** 2 + zero * one
        return np.asarray(rest * within + between)

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.cdf(y, eta)))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.survival(y, eta)))

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        zero, _, rest = self._masses(eta)
        below = _BETA.frozen(self.parameters_at(eta)).cdf(np.clip(y, 0.0, 1.0))
        return np.asarray(np.where(y < 0.0, 0.0, np.where(y < 1.0, zero + rest * below, 1.0)))

    def survival(self, y: Array, eta: Matrix) -> Vector:
        _, one, rest = self._masses(eta)
        above = _BETA.frozen(self.parameters_at(eta)).sf(np.clip(y, 0.0, 1.0))
        return np.asarray(np.where(y < 0.0, 1.0, np.where(y < 1.0, one + rest * above, 0.0)))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        zero, one, rest = self._masses(eta)
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        share = np.clip((p - zero) / np.where(rest > 0.0, rest, 1.0), 0.0, 1.0)
        between = _BETA.frozen(self.parameters_at(eta)).ppf(share)
        return np.asarray(np.where(p <= zero, 0.0, np.where(p > 1.0 - one, 1.0, between)))

    def _masses(self, eta: Matrix) -> tuple[Vector, Vector, Vector]:
        """p0, p1 and 1 - p0 - p1."""
        logs = self.log_masses(self.values(tf.convert_to_tensor(eta, tf.float64)))
        zero, one, rest = (np.exp(part.numpy()) for part in logs)
        return zero, one, rest


@register
@dataclass(frozen=True)
class ZeroInflatedBeta(InflatedBeta):
    """Beta distribution with a point mass at 0.

    P(0) = inflation, density (1 - inflation) f(y) on (0, 1), f beta of `mean` and `precision`;
    mean (1 - inflation) mean, variance (1 - inflation) (mean (1 - mean) / (1 + precision)
    + inflation mean^2).
    """

    name: ClassVar[str] = "zero_inflated_beta"
    about: ClassVar[str] = "beta with exact zeros"
    support: ClassVar[str] = "numbers >= 0 and < 1"
    atoms: ClassVar[tuple[float, ...]] = (0.0,)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (_MEAN, _PRECISION, Parameter("inflation", link("logit"), "probability of 0"))

    def log_masses(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor, Tensor]:
        inflation, rest = _log_halves(values["inflation"])
        return inflation, -np.inf * tf.ones_like(rest), rest


@register
@dataclass(frozen=True)
class OneInflatedBeta(InflatedBeta):
    """Beta distribution with a point mass at 1.

    P(1) = inflation, density (1 - inflation) f(y) on (0, 1), f beta of `mean` and `precision`;
    mean inflation + (1 - inflation) mean, variance (1 - inflation)
    (mean (1 - mean) / (1 + precision) + inflation (1 - mean)^2).
    """

    name: ClassVar[str] = "one_inflated_beta"
    about: ClassVar[str] = "beta with exact ones"
    support: ClassVar[str] = "numbers > 0 and <= 1"
    atoms: ClassVar[tuple[float, ...]] = (1.0,)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (_MEAN, _PRECISION, Parameter("inflation", link("logit"), "probability of 1"))

    def log_masses(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor, Tensor]:
        inflation, rest = _log_halves(values["inflation"])
        return -np.inf * tf.ones_like(rest), inflation, rest


@register
@dataclass(frozen=True)
class ZeroOneInflatedBeta(InflatedBeta):
    """Beta distribution with point masses at 0 and 1.

    P(0) = inflation (1 - one), P(1) = inflation one, density (1 - inflation) f(y) on (0, 1), f beta
    of `mean` and `precision`;  mean inflation one + (1 - inflation) mean.
    """

    name: ClassVar[str] = "zero_one_inflated_beta"
    about: ClassVar[str] = "beta with exact zeros and ones"
    support: ClassVar[str] = "numbers from 0 to 1"
    atoms: ClassVar[tuple[float, ...]] = (0.0, 1.0)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            _MEAN,
            _PRECISION,
            Parameter("inflation", link("logit"), "probability of 0 or 1"),
            Parameter("one", link("logit"), "probability of 1 where the response is 0 or 1"),
        )

    def log_masses(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor, Tensor]:
        inflation, rest = _log_halves(values["inflation"])
        one, zero = _log_halves(values["one"])
        return inflation + zero, inflation + one, rest


def _log_halves(value: Value) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p)."""
    return -softplus(-value.logit), -softplus(value.logit)


def _inner(y: Tensor, inside: Tensor) -> Tensor:
    return tf.where(inside, y, 0.5 * tf.ones_like(y))


def _log_sum(a: Tensor, b: Tensor) -> Tensor:
    return tf.reduce_logsumexp(tf.stack([a, b]), axis=0)
