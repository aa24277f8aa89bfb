"""Log-probabilities of counts, exact in the limits that fits reach, differentiable to any order.

Negative binomial with mean m and dispersion a (variance m + a m^2), r = 1 / a, u = a y, x = a m:

    log f(y) = y log m - e(m) (1 + u) + log prod_{j<y} (1 + a j) - log y!,   e(m) = log1p(x) / a,

where e(m) = -log f(0) tends to m and the product to 1 as a -> 0, the Poisson distribution. By
Stirling's formula with its remainder R,

    log prod_{j<y} (1 + a j) = y ((1 + 1/u) log1p(u) - 1) - log1p(u) / 2 + R(r + y) - R(r):

every term vanishes with a, so nothing is lost for small a or for counts of 1e5. Tails by

    P(Y > y) = int_0^m f(y; v) (1 + a y) / (1 + a v) dv,     P(Y <= y) = int_m^inf (the same),

log-concave in log v: the double exponential rule from the end log m, on the side that leads away
from the mode v = y + 1, gives the smaller of the two and its derivatives, to 12 digits for
dispersions up to 1 and to 8 for dispersions of 150.

References: Loader (2000), Fast and accurate computation of binomial probabilities; Takahasi & Mori
(1974), doi:10.2977/prims/1195192451; Johnson, Kemp & Kotz (2005), Univariate Discrete
Distributions, 5.6 (tails).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor, softplus
from deepregress.families.special import log1mexp, stirling_remainder

_TERMS = 18
"""Of the series in z^2 <= 1/9, z = u / (2 + u) and u <= 1: the rest is below rounding."""
_ARTANH = tuple(1.0 / (2 * k + 3) for k in range(_TERMS))
_NONZERO = tuple(
    float(b) / (2 * k * math.factorial(2 * k))
    for k, b in enumerate(scipy.special.bernoulli(22)[2::2], start=1)
)
"""log((1 - exp(-m)) / m) = -m / 2 + sum_k B_2k / (2k (2k)!) m^2k: falls by 40 a term at m = 1."""
_STEP = 0.05
_TAU = np.arange(-3.6, 6.6, _STEP)
_NODES = np.exp(_TAU - np.exp(-_TAU))
_LEAST = -745.0
"""Exponents below it are zero in float64."""
_LOG_WEIGHTS = np.log(_STEP * _NODES * (1.0 + np.exp(-_TAU)))
"""Double exponential rule for int_0^inf of a function that decays like exp(-t)."""


def _series(u: Tensor) -> tuple[Tensor, Tensor]:
    """growth and saturation of 0 <= u <= 1, through z = u / (2 + u)."""
    z = u / (2.0 + u)
    square = z * z
    rest = _ARTANH[-1] * tf.ones_like(u)
    for coefficient in reversed(_ARTANH[:-1]):
        rest = rest * square + coefficient
    half = 0.5 * u * (1.0 - z)
    return half * (1.0 + (z + square) * rest), half * (1.0 - (1.0 - z) * z * rest)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def growth(log_u: Tensor) -> Any:
    """(1 + 1 / u) log1p(u) - 1, about u / 2 near 0; its derivative in log u is `saturation`."""
    u = tf.exp(log_u)
    series, _ = _series(tf.minimum(u, 1.0))
    far = tf.maximum(u, 1.0)
    value = tf.where(u < 1.0, series, (1.0 + 1.0 / far) * tf.math.log1p(far) - 1.0)
    return value, lambda upstream: upstream * saturation(log_u)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def saturation(log_u: Tensor) -> Any:
    """1 - log1p(u) / u, about u / 2 near 0; its derivative in log u is u / (1 + u) minus itself."""
    u = tf.exp(log_u)
    _, series = _series(tf.minimum(u, 1.0))
    far = tf.maximum(u, 1.0)
    value = tf.where(u < 1.0, series, 1.0 - tf.math.log1p(far) / far)
    return value, lambda upstream: upstream * (tf.sigmoid(log_u) - saturation(log_u))


def log_rising(y: Tensor, log_step: Tensor) -> Tensor:
    """log prod_{j < y} (1 + j a) of whole y >= 0, a = exp(log_step); (n_obs,)."""
    size = tf.exp(-log_step)
    log_u = tf.math.log(tf.maximum(y, 1.0)) + log_step
    return (
        y * growth(log_u)
        - 0.5 * tf.math.log1p(y * tf.exp(log_step))
        + stirling_remainder(size + y)
        - stirling_remainder(size)
    )


def log_factorial(y: Tensor) -> Tensor:
    """log y!."""
    return tf.math.lgamma(y + 1.0)


def log_choose(n: Tensor, y: Tensor) -> Tensor:
    """log n! / (y! (n - y)!)."""
    return log_factorial(n) - log_factorial(y) - log_factorial(n - y)


def log_nonzero(log_exposure: Tensor) -> Tensor:
    """log(1 - exp(-m)) with m = exp(log_exposure): of a probability exp(-m) of zero."""
    m = tf.exp(log_exposure)
    near = m < 1.0
    small = tf.where(near, m, tf.zeros_like(m))
    square = small * small
    rest = _NONZERO[-1] * tf.ones_like(m)
    for coefficient in reversed(_NONZERO[:-1]):
        rest = rest * square + coefficient
    series = log_exposure - 0.5 * small + square * rest
    return tf.where(near, series, log1mexp(tf.where(near, tf.ones_like(m), m)))


@dataclass(frozen=True)
class Count:
    """A Poisson or negative binomial count.

    Parameters
    ----------
    log_mean : tensor, (n_obs,)
    log_dispersion : tensor, (n_obs,), or None
        Of variance mean + dispersion * mean^2; None: Poisson.
    """

    log_mean: Tensor
    log_dispersion: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """E(y)."""
        return tf.exp(self.log_mean)

    @property
    def variance(self) -> Tensor:
        """Var(y)."""
        if self.log_dispersion is None:
            return self.mean
        return self.mean * (1.0 + tf.exp(self.log_mean + self.log_dispersion))

    @property
    def exposure(self) -> Tensor:
        """-log P(y = 0)."""
        return self._exposure(self.log_mean)

    @property
    def log_exposure(self) -> Tensor:
        """log(-log P(y = 0))."""
        if self.log_dispersion is None:
            return self.log_mean
        near, inner, outer = self._sides(self.log_mean)
        far = tf.math.log(softplus(outer)) - self.log_dispersion
        return tf.where(near, self.log_mean + tf.math.log1p(-saturation(inner)), far)

    def log_probability(self, y: Tensor) -> Tensor:
        """log f(y), (n_obs,)."""
        if self.log_dispersion is None:
            return y * self.log_mean - self.mean - log_factorial(y)
        a = self.log_dispersion
        near, inner, outer = self._sides(self.log_mean)
        eta = tf.where(near, self.log_mean, tf.zeros_like(a))
        kept = 1.0 - saturation(inner)
        within = y * (eta - tf.exp(inner) * kept) - tf.exp(eta) * kept
        shape = tf.where(near, tf.zeros_like(a), a)
        beyond = -y * (shape + softplus(-outer)) - tf.exp(-shape) * softplus(outer)
        return tf.where(near, within, beyond) + log_rising(y, a) - log_factorial(y)

    def log_tails(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y <= y) and log P(Y > y) of y >= 0, (n_obs,) each."""
        eta, a = self.log_mean, self.log_dispersion
        x = tf.zeros_like(eta) if a is None else tf.exp(eta + a)
        power = tf.ones_like(eta) if a is None else 1.0 + (y + 1.0) * tf.exp(a)
        lower = eta <= tf.math.log1p(y)
        slope = tf.abs(y + 1.0 - self.mean) / (1.0 + x)
        length = 1.0 / (slope + tf.sqrt(power * self.mean) / (1.0 + x))
        start = self.exposure

        def log_ratio(moved: Tensor) -> Tensor:
            return (y + 1.0) * (moved - eta) - power * (self._exposure(moved) - start)

        outer = eta - tf.math.log1p(x) + self.log_probability(y)
        if a is not None:
            outer += tf.math.log1p(y * tf.exp(a))
        tail = outer + log_tail(log_ratio, eta, lower=lower, length=length)
        return _both(tail, lower)

    def _exposure(self, log_mean: Tensor) -> Tensor:
        if self.log_dispersion is None:
            return tf.exp(log_mean)
        near, inner, outer = self._sides(log_mean)
        eta = tf.where(near, log_mean, tf.zeros_like(log_mean))
        within = tf.exp(eta) * (1.0 - saturation(inner))
        shape = tf.where(near, tf.zeros_like(outer), self.log_dispersion)
        return tf.where(near, within, tf.exp(-shape) * softplus(outer))

    def _sides(self, log_mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether dispersion * mean <= 1, and its logarithm on either side (0 on the other)."""
        log_x = log_mean + self.log_dispersion
        near = log_x <= 0.0
        zero = tf.zeros_like(log_x)
        return near, tf.where(near, log_x, zero), tf.where(near, zero, log_x)


@dataclass(frozen=True)
class Successes:
    """A binomial count.

    Parameters
    ----------
    logit : tensor, (n_obs,)
        Log odds of a success.
    trials : tensor, (n_obs,)
    """

    logit: Tensor
    trials: Tensor

    def log_probability(self, y: Tensor) -> Tensor:
        """log f(y), (n_obs,)."""
        chosen = log_choose(self.trials, y)
        return chosen - y * softplus(-self.logit) - (self.trials - y) * softplus(self.logit)

    def log_tails(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y <= y) and log P(Y > y) of y >= 0, (n_obs,) each.

        P(Y > y) = int_{-inf}^logit (n - y) f(y; s) p(s) ds.
        """
        inside = y < self.trials
        y = tf.where(inside, y, tf.zeros_like(y))
        left = tf.where(inside, self.trials - y, tf.ones_like(y))
        own, eta = tf.sigmoid(self.logit), self.logit
        lower = own <= (y + 1.0) / (self.trials + 1.0)
        slope = tf.abs(y + 1.0 - (self.trials + 1.0) * own)
        curvature = (self.trials + 1.0) * own * tf.sigmoid(-eta)
        length = 1.0 / (slope + tf.sqrt(curvature))

        def log_ratio(moved: Tensor) -> Tensor:
            return -(y + 1.0) * (softplus(-moved) - softplus(-eta)) - left * (
                softplus(moved) - softplus(eta)
            )

        trials = tf.where(inside, self.trials, tf.ones_like(y))
        outer = Successes(eta, trials).log_probability(y) + tf.math.log(left) - softplus(-eta)
        log_cdf, log_survival = _both(
            outer + log_tail(log_ratio, eta, lower=lower, length=length), lower
        )
        return (
            tf.where(inside, log_cdf, tf.zeros_like(y)),
            tf.where(inside, log_survival, -np.inf * tf.ones_like(y)),
        )


def log_tail(
    log_ratio: Callable[[Tensor], Tensor], end: Tensor, *, lower: Tensor, length: Tensor
) -> Tensor:
    """log of the integral of exp(log_ratio(s)) over s < end where `lower`, over s > end elsewhere.

    Parameters
    ----------
    log_ratio : callable
        Concave, 0 at `end`, falling in the direction of integration.
    end : tensor, (n_obs,)
    lower : tensor of bool, (n_obs,)
    length : tensor, (n_obs,)
        Over which the integrand falls by an order of one; the result does not depend on it.
    """
    stride = tf.stop_gradient(tf.where(lower, -length, length))
    moved = end + stride * _NODES[:, None]
    # where the integrand is zero its derivatives would be 0 times infinity
    zero = log_ratio(moved) < _LEAST
    ratio = log_ratio(tf.where(zero, end + tf.zeros_like(moved), moved))
    terms = tf.where(zero, tf.constant(-np.inf, end.dtype), ratio) + _LOG_WEIGHTS[:, None]
    return tf.reduce_logsumexp(terms, axis=0) + tf.math.log(tf.stop_gradient(length))


def _both(tail: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """The two tails, where `tail` is log P(Y > y) in `lower` rows and log P(Y <= y) elsewhere."""
    # rounding must not make a probability of one exceed it
    tail = tf.minimum(tail, -np.finfo(np.float64).tiny)
    other = log1mexp(-tail)
    return tf.where(lower, other, tail), tf.where(lower, tail, other)
