"""Families of a binary or count response (METHODS 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow_probability as tfp

from deepregress.bijectors import link
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.linalg import Array, Matrix, Vector

tfd = tfp.distributions

NUMERICALLY_ZERO = 1e-8
"""A fitted probability or mean below this says that the likelihood rises towards infinite
coefficients: Newton stops on that way where nothing more is gained."""


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
        return _edge("probabilities numerically 0 or 1", extreme, len(eta))

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        deviance: Vector = -2.0 * (
            scipy.special.xlogy(y, mean) + scipy.special.xlog1py(1.0 - y, -mean)
        )
        return deviance

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        below = 1.0 - self.mean(eta)
        return np.where(y < 0, 0.0, np.where(y < 1, below, 1.0))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        return np.where(probability <= 1.0 - self.mean(eta), 0.0, 1.0)


@register
@dataclass(frozen=True)
class Poisson(Family):
    """Poisson distribution of a count.

    P(y) = mean^y exp(-mean) / y!;  mean and variance `mean`.
    """

    name: ClassVar[str] = "poisson"
    about: ClassVar[str] = "counts, variance equal to the mean"
    support: ClassVar[str] = "counts 0, 1, 2, ..."
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    exponential: ClassVar[bool] = True
    discrete: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("mean", link("log"), "mean, counts"),)

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Poisson(log_rate=values["mean"].log, force_probs_to_zero_outside_support=True)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y) & (y >= 0) & (y == np.floor(y)))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # half a count keeps the start finite for an all-0 response
        total = float(weights.sum())
        return {"mean": (float(weights @ y) + 0.5) / (total + 0.5)}

    def boundary(self, eta: Matrix) -> str | None:
        extreme = int(np.sum(self.mean(eta) < NUMERICALLY_ZERO))
        return _edge("means numerically 0", extreme, len(eta))

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        deviance: Vector = 2.0 * (scipy.special.xlogy(y, y / mean) - (y - mean))
        return deviance

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        return count_quantile(self, probability, eta)


def _edge(what: str, extreme: int, n_obs: int) -> str | None:
    if not extreme:
        return None
    return (
        f"fitted {what} in {extreme} of {n_obs} rows: some terms separate the response, so that "
        "their coefficients are infinite and their standard errors mean nothing"
    )


def count_quantile(family: Family, probability: Array, eta: Matrix) -> Vector:
    """Smallest count y with F(y) >= probability, by doubling and bisection on the cdf.

    Parameters
    ----------
    family : Family
        Of a response on 0, 1, 2, ...
    probability : array, broadcastable to (n_obs,)
    eta : Matrix, (n_obs, U)

    Returns
    -------
    Vector
        (n_obs,); infinite where probability is 1.
    """
    p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
    lower = np.full(len(eta), -1.0)
    upper = np.maximum(1.0, np.ceil(family.mean(eta)))
    while np.any(short := (family.cdf(upper, eta) < p) & (p < 1.0)):
        lower = np.where(short, upper, lower)
        upper = np.where(short, 2.0 * upper, upper)
    while np.any(upper - lower > 1.0):
        middle = np.floor((lower + upper) / 2.0)
        enough = family.cdf(middle, eta) >= p
        upper, lower = np.where(enough, middle, upper), np.where(enough, lower, middle)
    return np.where(p < 1.0, upper, np.inf)
