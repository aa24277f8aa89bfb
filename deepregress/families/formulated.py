"""Continuous families given by their formulas, and the `tfd.Distribution` made of them.

A family here states log f, log F and log S as tensor functions of the predictors, differentiable
three times (`special`), and its quantiles and moments as NumPy functions, in closed form or by
SciPy's distribution at the fitted parameters. `Formulated` hands both out as a `tfd.Distribution`.

References: Dillon et al. (2017), arXiv:1711.10604 (the interface of `tfd.Distribution`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor
from deepregress.errors import FamilyError
from deepregress.families import numerical
from deepregress.families.base import Family, Value
from deepregress.families.moments import quartile_location_scale
from deepregress.families.standard import Latent, Standard
from deepregress.families.wrapped import Formulated as Formulated
from deepregress.linalg import Array, Matrix, Vector

tfd = tfp.distributions


class Continuous(Family):
    """A univariate continuous family stated by formulas.

    Subclasses give `log_density`, `log_cdf`, `log_survival` and `frozen`, or, where SciPy has no
    such distribution, `quantile`, `mean` and `variance`.
    """

    support: ClassVar[str] = "finite numbers"

    def density(self, values: Mapping[str, Value]) -> Any:
        return Formulated(self, values)

    @abstractmethod
    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log f(y), (n_obs,), differentiable three times in the predictors."""

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        """SciPy's distribution at the parameters, each (n_obs,)."""
        raise FamilyError(f"SciPy has no distribution of family {self.name!r}")

    def in_support(self, y: Array) -> Array:
        least, most = self.bounds
        return np.asarray(np.isfinite(y) & (y > least) & (y < most))

    def mean(self, eta: Matrix) -> Vector:
        return np.asarray(self.frozen(self.parameters_at(eta)).mean())

    def variance(self, eta: Matrix) -> Vector:
        return np.asarray(self.frozen(self.parameters_at(eta)).var())

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        return np.asarray(self.frozen(self.parameters_at(eta)).ppf(p))

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        u = numerical.generator(seed).uniform(size=(n, len(eta)))
        return self.quantile(u.ravel(), np.tile(eta, (n, 1))).reshape(n, len(eta))

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        """Squared distance from the mean: no exponential family, no deviance in the mean."""
        return np.asarray((y - mean) ** 2)


class LocationScale(Continuous):
    """y = loc + scale * e, e of a standard distribution.

    f(y) = f0(z) / scale,  z = (y - loc) / scale; subclasses name the distribution of e.
    """

    error: ClassVar[Standard]

    @staticmethod
    @abstractmethod
    def standard() -> Any:
        """SciPy's standard distribution."""

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.error.log_density(standardised(values, y)) - values["scale"].log

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.error.log_cdf(standardised(values, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.error.log_survival(standardised(values, y))

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return self.standard()(loc=theta["loc"], scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        quartiles = tuple(self.standard().ppf((0.25, 0.5, 0.75)))
        loc, scale = quartile_location_scale(y, weights, quartiles)
        return {"loc": loc, "scale": scale}


class LogLocationScale(Continuous):
    """log y = loc + scale * e, e of a standard distribution.

    f(y) = f0(z) / (scale y),  z = (log y - loc) / scale.
    """

    error: ClassVar[Standard]
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @property
    def latent_scale(self) -> Latent | None:
        return self.error if isinstance(self.error, Latent) else None

    @abstractmethod
    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        """Location and log scale of log y."""

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_y = tf.math.log(y)
        loc, log_scale = self.of_log(values)
        z = (log_y - loc) * tf.exp(-log_scale)
        return self.error.log_density(z) - log_scale - log_y

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.error.log_cdf(self._standardised(values, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.error.log_survival(self._standardised(values, y))

    def _standardised(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        loc, log_scale = self.of_log(values)
        return (tf.math.log(y) - loc) * tf.exp(-log_scale)


def slope(family: Family, eta: Matrix) -> Vector:
    """Derivative of the first parameter in its predictor, (n_obs,)."""
    first = tf.constant(eta[:, 0])
    with tf.GradientTape() as tape:
        tape.watch(first)
        value = family.parameters[0].link.inverse(first)
    return np.asarray(tape.gradient(value, first).numpy())


def standardised(values: Mapping[str, Value], y: Tensor) -> Tensor:
    """z = (y - loc) / scale."""
    return (y - values["loc"].value) * tf.exp(-values["scale"].log)
