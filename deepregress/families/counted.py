"""Families of a count: what follows from a Poisson or negative binomial distribution of it.

A family says what its parameters make of the count (`count`), and, where zeros have a probability
of their own, how zeros and positive counts are weighted (`zeros`):

    P(0) = p0,   P(y) = c f(y) for y > 0,   P(Y > y) = c (1 - F(y)),
    mean c m,    variance c (v + (1 - c) m^2),

f, F, m, v the probability, distribution function, mean and variance of the count.
References: Lambert (1992), doi:10.2307/1269547; Mullahy (1986), doi:10.1016/0304-4076(86)90002-3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.errors import ResponseError
from deepregress.families import numerical
from deepregress.families.base import Family, Value
from deepregress.families.counting import Count
from deepregress.families.formulated import Formulated
from deepregress.families.special import log1mexp
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

NUMERICALLY_ZERO = 1e-8
"""A fitted probability or mean below this says that the likelihood rises towards infinite
coefficients: Newton stops on that way where nothing more is gained."""
EXTREME_PREDICTOR = 18.4
"""The same of the predictor of a probability: its logit where the probability is 1e-8."""
POISSON_BELOW = 1e-30
"""Dispersion below which a negative binomial is a Poisson distribution to every digit."""
UNDERFLOW = 1e-280
"""Probabilities below this are taken from their logarithm."""
LEAST_DISPERSION, LEAST_MEAN = 0.01, 1e-3
"""Where to start when the moments ask for none."""


def whole(y: Array) -> Array:
    """Which numbers are counts 0, 1, 2, ..."""
    return np.asarray(np.isfinite(y) & (y >= 0) & (y == np.floor(y)))


def edge(what: str, extreme: int, n_obs: int) -> str | None:
    """What to warn of where a response is separated by the terms."""
    if not extreme:
        return None
    return (
        f"fitted {what} in {extreme} of {n_obs} rows: some terms separate the response, so that "
        "their coefficients are infinite and their standard errors mean nothing"
    )


class Counted(Family):
    """A family of a count that has a Poisson or negative binomial distribution."""

    support: ClassVar[str] = "counts 0, 1, 2, ..."
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    discrete: ClassVar[bool] = True

    @abstractmethod
    def count(self, values: Mapping[str, Value]) -> Count:
        """The count at the parameters."""

    def density(self, values: Mapping[str, Value]) -> Any:
        return Formulated(self, values)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.count(values).log_probability(y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.count(values).log_tails(y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.count(values).log_tails(y)[1]

    def in_support(self, y: Array) -> Array:
        return whole(y)

    def boundary(self, eta: Matrix) -> str | None:
        extreme = int(np.sum(self.mean(eta) < NUMERICALLY_ZERO))
        return edge("means numerically 0", extreme, len(eta))

    def mean(self, eta: Matrix) -> Vector:
        return np.asarray(self._count(eta).mean.numpy())

    def variance(self, eta: Matrix) -> Vector:
        return np.asarray(self._count(eta).variance.numpy())

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return _log(self.cdf(y, eta), lambda: super(Counted, self).logcdf(y, eta))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return _log(self.survival(y, eta), lambda: super(Counted, self).logsurvival(y, eta))

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        return _tails(self._count(eta), y)[0]

    def survival(self, y: Array, eta: Matrix) -> Vector:
        return _tails(self._count(eta), y)[1]

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        return draws(self._count(eta), n, numerical.generator(seed))

    def _count(self, eta: Matrix) -> Count:
        return self.count(self.values(tf.convert_to_tensor(eta, tf.float64)))


class ZeroModified(Counted):
    """A count whose zeros have a probability of their own."""

    def check(self, response: Response) -> None:
        super().check(response)
        if not np.any(response.upper > 0.0):
            raise ResponseError(
                f"{response.label!r} is 0 in all {response.n_obs} rows: family {self.name!r} needs "
                "positive counts to tell the count from the zeros"
            )

    @abstractmethod
    def zeros(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        """log p0 and log c, (n_obs,) each."""

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_zero, log_factor = self.zeros(values)
        return tf.where(y > 0.0, log_factor + self.count(values).log_probability(y), log_zero)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[1]

    def _log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        log_zero, log_factor = self.zeros(values)
        count, positive = self.count(values), y > 0.0
        log_cdf, log_survival = count.log_tails(tf.where(positive, y, tf.ones_like(y)))
        between = log_cdf + log1mexp(tf.maximum(log_cdf + count.exposure, np.finfo(float).tiny))
        at_zero = log1mexp(-tf.minimum(log_zero, -np.finfo(float).tiny))
        upper = tf.where(positive, log_factor + log_survival, at_zero)
        below = tf.reduce_logsumexp(tf.stack([log_zero, log_factor + between]), axis=0)
        # from the smaller side, which has all digits
        small = upper < -float(np.log(2.0))
        complement = log1mexp(-tf.where(small, upper, -tf.ones_like(upper)))
        lower = tf.where(small, complement, below)
        return tf.where(positive, lower, log_zero), upper

    def mean(self, eta: Matrix) -> Vector:
        count, _, log_factor = self._parts(eta)
        # one exponential: c is infinite where m underflows, their product is not
        return np.asarray(np.exp(log_factor + count.log_mean.numpy()))

    def variance(self, eta: Matrix) -> Vector:
        mean, count = self.mean(eta), self._count(eta)
        # v = m (1 + a m)
        m, dispersion = _numbers(count)
        return np.asarray(mean * (1.0 + (dispersion + 1.0) * m - mean))

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        count, zero, log_factor = self._parts(eta)
        y = np.asarray(y, dtype=np.float64)
        below, above = _tails(count, y)
        between = below - np.exp(-count.exposure.numpy())
        upper = _product(log_factor, above)
        lower = np.where(upper < 0.5, 1.0 - upper, zero + _product(log_factor, between))
        return np.asarray(np.where(y >= 1.0, lower, np.where(y >= 0.0, zero, 0.0)))

    def survival(self, y: Array, eta: Matrix) -> Vector:
        count, zero, log_factor = self._parts(eta)
        y = np.asarray(y, dtype=np.float64)
        upper = _product(log_factor, _tails(count, y)[1])
        return np.asarray(np.where(y >= 1.0, upper, np.where(y >= 0.0, 1.0 - zero, 1.0)))

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        count, zero, _ = self._parts(eta)
        rng = numerical.generator(seed)
        positive = rng.uniform(size=(n, len(eta))) >= zero
        return np.where(positive, positive_draws(count, n, rng), 0.0)

    def _parts(self, eta: Matrix) -> tuple[Count, Vector, Vector]:
        """The count, p0 and log c."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        log_zero, log_factor = self.zeros(values)
        return self.count(values), np.exp(log_zero.numpy()), log_factor.numpy()


def _product(log_factor: Vector, probability: Vector) -> Vector:
    """exp(log_factor) * probability, 0 where that is not positive."""
    positive = probability > 0.0
    logs = log_factor + np.log(np.where(positive, probability, 1.0))
    return np.where(positive, np.exp(np.where(positive, logs, 0.0)), 0.0)


def _log(probability: Vector, exact: Any) -> Vector:
    """log probability, from `exact` where it would underflow."""
    if np.any(probability < UNDERFLOW):
        found: Vector = exact()
        return np.where(probability < UNDERFLOW, found, np.log(np.maximum(probability, UNDERFLOW)))
    return np.asarray(np.log(probability))


def _numbers(count: Count) -> tuple[Vector, Vector]:
    """Mean and dispersion, (n_obs,) each; 0: Poisson."""
    mean = count.mean.numpy()
    if count.log_dispersion is None:
        return mean, np.zeros_like(mean)
    return mean, np.exp(count.log_dispersion.numpy())


def _tails(count: Count, y: Array) -> tuple[Vector, Vector]:
    """P(Y <= y) and P(Y > y), (n_obs,) each: incomplete beta and gamma functions."""
    mean, dispersion = _numbers(count)
    y = np.asarray(y, dtype=np.float64)
    above = np.floor(np.maximum(y, 0.0)) + 1.0
    poisson = dispersion < POISSON_BELOW
    size = 1.0 / np.where(poisson, 1.0, dispersion)
    share = mean / (size + mean)
    lower = np.where(
        poisson,
        scipy.special.gammaincc(above, mean),
        scipy.special.betaincc(above, size, share),
    )
    upper = np.where(
        poisson, scipy.special.gammainc(above, mean), scipy.special.betainc(above, size, share)
    )
    return np.where(y < 0.0, 0.0, lower), np.where(y < 0.0, 1.0, upper)


def draws(count: Count, n: int, rng: np.random.Generator) -> Array:
    """Counts, (n, n_obs): Poisson, with a gamma distributed mean if there is a dispersion."""
    mean, dispersion = _numbers(count)
    shape = (n, len(mean))
    if count.log_dispersion is None:
        return np.asarray(rng.poisson(mean, shape), dtype=np.float64)
    varies = dispersion > POISSON_BELOW
    size = 1.0 / np.where(varies, dispersion, 1.0)
    rate = np.where(varies, rng.gamma(size, mean / size, shape), mean)
    return np.asarray(rng.poisson(rate), dtype=np.float64)


def positive_draws(count: Count, n: int, rng: np.random.Generator) -> Array:
    """Counts given that they are positive, (n, n_obs).

    A Poisson process on (0, 1) has its first event at s, drawn given that there is one; what
    follows on (s, 1) is again Poisson. With a gamma distributed rate (Polya's process) it is
    negative binomial, the rate's posterior after one event having shape r + 1.
    """
    mean, dispersion = _numbers(count)
    shape = (n, len(mean))
    exposure = count.exposure.numpy()
    # -log P(no event until s), drawn below the whole exposure
    spent = -np.log1p(rng.uniform(size=shape) * np.expm1(-exposure))
    if count.log_dispersion is None:
        return np.asarray(1.0 + rng.poisson(np.maximum(mean - spent, 0.0)))
    varies = dispersion > POISSON_BELOW
    r = 1.0 / np.where(varies, dispersion, 1.0)
    # P(no event until s) = (1 + mean s / r)^-r
    first = np.where(varies, np.expm1(spent / r) * r, spent)
    left = np.maximum(mean - first, 0.0)
    gamma = rng.gamma(r + 1.0, 1.0, shape)
    rate = np.where(varies, gamma * left / (r + first), left)
    return np.asarray(1.0 + rng.poisson(rate))
