"""Continuous families whose distribution function is an integral without a formula.

Incomplete beta and gamma functions have no derivative in their parameters that TensorFlow could
take three times. So log F and log S, which only censored and truncated rows need, are integrals of
the density by a fixed double exponential rule, differentiable as often as the density is:

    log S(x) = log sum_k w_k f(x + s exp(pi/2 sinh t_k)),   and likewise log F to the left,

on a line x = g(y) where the density has one hump. The rule is scale-free in the distance from x,
so that tails of any weight are covered; each side of the centre integrates its own tail and takes
the other probability as 1 minus it. After the fit probabilities come from SciPy, as do quantiles.

References: Takahasi & Mori (1974), doi:10.2977/prims/1195192451.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.families.base import Value
from deepregress.families.formulated import Continuous
from deepregress.families.special import log1mexp
from deepregress.linalg import Array, Matrix, Vector

STEP = 0.05
_T = STEP * np.arange(-78, 79)
_LOG_DISTANCE = 0.5 * np.pi * np.sinh(_T)
"""log of the distances of the nodes from x in units of s: from 1e-17 to 1e17."""
_LOG_WEIGHT = np.log(STEP * 0.5 * np.pi * np.cosh(_T)) + _LOG_DISTANCE


class Integrated(Continuous):
    """A continuous family that integrates its density on a line x = g(y), g increasing."""

    @abstractmethod
    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """x = g(y), (n_obs,)."""

    @abstractmethod
    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        """Log density of x, (n_obs,)."""

    @abstractmethod
    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        """A centre of the density of x and its width, roughly; (n_obs,) each."""

    def log_atom(self, values: Mapping[str, Value]) -> Tensor | None:
        """log of the probability of a point below the line, (n_obs,)."""
        return None

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.log_tails(values, y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.log_tails(values, y)[1]

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(self.frozen(self.parameters_at(eta)).logcdf(y))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(self.frozen(self.parameters_at(eta)).logsf(y))

    def log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        """log P(Y <= y) and log P(Y > y), the one by integrating the other's complement."""
        x = self.on_line(values, y)
        centre, width = (tf.stop_gradient(part) for part in self.hump(values))
        above = x >= centre
        direction = tf.where(above, tf.ones_like(x), -tf.ones_like(x))
        distance = width[:, None] * tf.exp(tf.constant(_LOG_DISTANCE, x.dtype))
        nodes = x[:, None] + direction[:, None] * distance
        n_nodes = len(_LOG_DISTANCE)
        repeated = {
            name: Value(tf.repeat(value.eta, n_nodes), value.link) for name, value in values.items()
        }
        density = self.log_density_on_line(repeated, tf.reshape(nodes, [-1]))
        terms = tf.reshape(density, tf.shape(nodes)) + tf.constant(_LOG_WEIGHT, x.dtype)
        log_tail = tf.reduce_logsumexp(terms, axis=1) + tf.math.log(width)
        atom = self.log_atom(values)
        if atom is not None:
            below = tf.reduce_logsumexp(tf.stack([log_tail, atom]), axis=0)
            log_tail = tf.where(above, log_tail, below)
        # the quadrature of a whole density may round to more than 1
        other = log1mexp(tf.maximum(-log_tail, np.finfo(float).eps))
        return tf.where(above, other, log_tail), tf.where(above, log_tail, other)
