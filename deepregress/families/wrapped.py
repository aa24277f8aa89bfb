"""The `tfd.Distribution` of a family that is given by its formulas.

A family states log f, log F and log S as tensor functions of the predictors and its quantiles and
moments as NumPy functions; `Formulated` hands both out through the interface of `tfd`.

References: Dillon et al. (2017), arXiv:1711.10604 (the interface of `tfd.Distribution`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor
from deepregress.errors import FamilyError
from deepregress.families.parameter import Parameter, Value
from deepregress.linalg import Array, Matrix, Vector

tfd = tfp.distributions


def tail_of(distribution: Any, which: str, y: Tensor) -> Tensor:
    """`log_cdf` or `log_survival_function` of a distribution of `tfd`.

    Raises
    ------
    FamilyError
        If the distribution has none.
    """
    try:
        return getattr(distribution, which)(y)
    except NotImplementedError as error:
        raise FamilyError(
            f"{type(distribution).__name__} of TensorFlow Probability has no distribution "
            "function, which censored rows, probabilities, quantiles and residuals need"
        ) from error


class Formulas(Protocol):
    """What is needed of a family."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters."""

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log f(y)."""

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log P(Y <= y)."""

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log P(Y > y)."""

    def mean(self, eta: Matrix) -> Vector:
        """E(y)."""

    def variance(self, eta: Matrix) -> Vector:
        """Var(y)."""

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        """Smallest y with F(y) >= probability."""


class Formulated(tfd.Distribution):  # type: ignore[misc,name-defined]
    """The `tfd.Distribution` of a family of formulas at given parameters, batch shape (n_obs,).

    Parameters
    ----------
    family : Formulas
    values : mapping of str to Value
    """

    def __init__(self, family: Formulas, values: Mapping[str, Value]) -> None:
        parameters: dict[str, Any] = {"family": family, "values": values}
        self._family, self._values = family, dict(values)
        etas = [values[parameter.name].eta for parameter in family.parameters]
        self._eta = tf.stack(etas, axis=-1)
        super().__init__(
            dtype=self._eta.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=family.name,
        )

    def _batch_shape(self) -> Any:
        return self._eta.shape[:-1]

    def _batch_shape_tensor(self) -> Tensor:
        return tf.shape(self._eta)[:-1]

    def _event_shape(self) -> Any:
        return tf.TensorShape([])

    def _event_shape_tensor(self) -> Tensor:
        return tf.constant([], tf.int32)

    def _log_prob(self, y: Tensor) -> Tensor:
        return self._family.log_density(self._values, y)

    def _log_cdf(self, y: Tensor) -> Tensor:
        return self._family.log_cdf(self._values, y)

    def _log_survival_function(self, y: Tensor) -> Tensor:
        return self._family.log_survival(self._values, y)

    def _cdf(self, y: Tensor) -> Tensor:
        return tf.exp(self._log_cdf(y))

    def _survival_function(self, y: Tensor) -> Tensor:
        return tf.exp(self._log_survival_function(y))

    def _mean(self) -> Tensor:
        return self._from_numpy(self._family.mean)

    def _variance(self) -> Tensor:
        return self._from_numpy(self._family.variance)

    def _stddev(self) -> Tensor:
        return tf.sqrt(self._variance())

    def _quantile(self, probability: Tensor) -> Tensor:
        p = tf.broadcast_to(probability, tf.broadcast_static_shape(probability.shape, self._shape))
        many = tf.broadcast_to(self._eta, (*p.shape, self._eta.shape[-1]))

        def flat(p: Array, eta: Array) -> Array:
            found = self._family.quantile(p.ravel(), eta.reshape(-1, eta.shape[-1]))
            return np.asarray(found.reshape(p.shape))

        return tf.ensure_shape(tf.numpy_function(flat, (p, many), self.dtype), p.shape)

    def _sample_n(self, n: Tensor, seed: Any = None) -> Tensor:
        shape = tf.concat([[n], self._batch_shape_tensor()], axis=0)
        zero = tf.zeros([], self.dtype)
        return self._quantile(tfd.Uniform(zero, zero + 1.0).sample(shape, seed=seed))

    @property
    def _shape(self) -> Any:
        return self._eta.shape[:-1]

    def _from_numpy(self, function: Callable[[Matrix], Vector]) -> Tensor:
        return tf.ensure_shape(tf.numpy_function(function, (self._eta,), self.dtype), self._shape)
