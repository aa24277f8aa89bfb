"""Standard distributions F: of location-scale families and of latent scales (METHODS 7, 8).

    normal                  F(z) = Phi(z)                   link "probit"
    logistic                F(z) = 1 / (1 + exp(-z))        link "logit"
    minimum extreme value   F(z) = 1 - exp(-exp(z))         link "cloglog"
    maximum extreme value   F(z) = exp(-exp(-z))            link "loglog"
    Cauchy                  F(z) = 1/2 + atan(z) / pi       link "cauchit"

log f, log F, log S and log(F(b) - F(a)) as tensor functions, accurate in both tails and
differentiable three times.

References: McCullagh (1980), doi:10.1111/j.2517-6161.1980.tb01109.x;
Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Map, Tensor, log_normal_cdf, softplus
from deepregress.families.special import HALF_LOG_2PI, log1mexp
from deepregress.linalg import Array


@dataclass(frozen=True, eq=False)
class Standard:
    """One distribution without parameters.

    Parameters
    ----------
    name : str
    log_density, log_cdf, log_survival : callable
        log f(z), log F(z) and log(1 - F(z)).
    """

    name: str
    log_density: Map = field(repr=False)
    log_cdf: Map = field(repr=False)
    log_survival: Map = field(repr=False)


@dataclass(frozen=True, eq=False)
class Latent(Standard):
    """A standard distribution of a latent scale.

    Parameters
    ----------
    link : str
        Name of the link whose inverse is F.
    log_between : callable
        log(F(b) - F(a)) of a < b; NaN or -inf of others.
    quantile, upper_quantile : callable
        z with F(z) = p, and with 1 - F(z) = p, in NumPy.
    """

    link: str
    log_between: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    quantile: Callable[[Array], Array] = field(repr=False)
    upper_quantile: Callable[[Array], Array] = field(repr=False)

    def log_probability(self, a: Tensor, b: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """log P(a < Z <= b), (n,), with no lower bound where `first`, no upper one where `last`."""
        # where there is no bound any other does: its value is not used
        low, high = tf.where(first, b - 1.0, a), tf.where(last, a + 1.0, b)
        low = tf.where(first & last, tf.zeros_like(low), low)
        high = tf.where(first & last, tf.ones_like(high), high)
        inside = self.log_between(low, high)
        ends = tf.where(last, self.log_survival(low), self.log_cdf(high))
        value = tf.where(first | last, ends, inside)
        return tf.where(first & last, tf.zeros_like(value), value)


def _symmetric_between(log_cdf: Map) -> Callable[[Tensor, Tensor], Tensor]:
    """log(F(b) - F(a)) in the tail where both are small, F being symmetric."""

    def between(a: Tensor, b: Tensor) -> Tensor:
        upper = a + b > 0.0
        low, high = log_cdf(tf.where(upper, -b, a)), log_cdf(tf.where(upper, -a, b))
        return high + log1mexp(high - low)

    return between


def _logistic_between(a: Tensor, b: Tensor) -> Tensor:
    # F(b) - F(a) = F(b) S(a) (1 - exp(a - b))
    return -softplus(-b) - softplus(a) + log1mexp(b - a)


def _minimum_between(a: Tensor, b: Tensor) -> Tensor:
    # S(a) - S(b) = exp(-e^a) (1 - exp(-(e^b - e^a)))
    hazard = tf.exp(a)
    return -hazard + log1mexp(hazard * tf.math.expm1(b - a))


def _log_cauchy_cdf(z: Tensor) -> Tensor:
    # atan2(1, -z) = pi/2 + atan(z) with full relative precision in the lower tail
    return tf.math.log(tf.atan2(tf.ones_like(z), -z)) - math.log(math.pi)


NORMAL = Latent(
    "normal",
    lambda z: -0.5 * z * z - HALF_LOG_2PI,
    log_normal_cdf,
    lambda z: log_normal_cdf(-z),
    "probit",
    _symmetric_between(log_normal_cdf),
    scipy.special.ndtri,
    lambda p: -scipy.special.ndtri(p),
)
LOGISTIC = Latent(
    "logistic",
    lambda z: -z - 2.0 * softplus(-z),
    lambda z: -softplus(-z),
    lambda z: -softplus(z),
    "logit",
    _logistic_between,
    scipy.special.logit,
    lambda p: -scipy.special.logit(p),
)
MINIMUM = Latent(
    "minimum extreme value",
    lambda z: z - tf.exp(z),
    lambda z: log1mexp(tf.exp(z)),
    lambda z: -tf.exp(z),
    "cloglog",
    _minimum_between,
    lambda p: np.log(-np.log1p(-p)),
    lambda p: np.log(-np.log(p)),
)
MAXIMUM = Latent(
    "maximum extreme value",
    lambda z: -z - tf.exp(-z),
    lambda z: -tf.exp(-z),
    lambda z: log1mexp(tf.exp(-z)),
    "loglog",
    lambda a, b: _minimum_between(-b, -a),
    lambda p: -np.log(-np.log(p)),
    lambda p: -np.log(-np.log1p(-p)),
)
CAUCHY = Latent(
    "Cauchy",
    lambda z: -math.log(math.pi) - tf.math.log1p(z * z),
    _log_cauchy_cdf,
    lambda z: _log_cauchy_cdf(-z),
    "cauchit",
    _symmetric_between(_log_cauchy_cdf),
    lambda p: np.tan(math.pi * (np.asarray(p) - 0.5)),
    lambda p: np.tan(math.pi * (0.5 - np.asarray(p))),
)
BY_LINK = {each.link: each for each in (LOGISTIC, NORMAL, MINIMUM, MAXIMUM, CAUCHY)}
"""Standard distributions by the names of their links."""
