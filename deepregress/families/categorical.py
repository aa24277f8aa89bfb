"""Families of an unordered class or of counts of classes (METHODS 7).

    P(class k) = exp(eta_k) / (1 + sum_j exp(eta_j)),   k = 2..K;   eta_1 = 0

The first class is the reference: `logits[B]` is the log odds of class B against it, so the K - 1
predictors are log odds ratios of a baseline-category logit model. Fits do not depend on which class
is the reference; coefficients and penalties do. `symmetric_categorical` has no reference: a
predictor for each of the K classes, of which penalties choose those of least size.

References: Agresti (2013), Categorical Data Analysis, section 8.1; McCullagh & Nelder (1989),
section 5.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link
from deepregress.errors import ResponseError
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.groups import element_names, member
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

tfd = tfp.distributions

NUMERICALLY_CERTAIN = 1e-8
"""A class of probability 1 to this says that the likelihood rises towards infinite coefficients."""
LOGITS = "logits"


@dataclass(frozen=True)
class ClassLogits(Family):
    """Distribution over K classes with K - 1 logits against the first; `for_response` finds K.

    Attributes
    ----------
    levels : tuple of str
        Names of the classes, the reference first.
    """

    levels: tuple[str, ...] = ()

    discrete: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter(LOGITS, link("identity"), "log odds of each class against the first"),)

    @property
    def elements(self) -> tuple[str, ...]:
        return self.levels

    def _with_classes(self, response: Response, levels: tuple[str, ...]) -> dict[str, Any]:
        """Fields of the family of these classes."""
        if len(levels) < 2:
            raise ResponseError(
                f"{response.label!r} has one class only ({levels[0]}); family {self.name!r} needs "
                "two at least"
            )
        given = self.parameters[0].link
        parameters = tuple(
            Parameter(member(LOGITS, level), given, f"log odds of {level} against {levels[0]}")
            for level in levels[1:]
        )
        return {"parameters": parameters, "levels": levels}

    def _log_probabilities(self, values: Mapping[str, Value]) -> Tensor:
        """log P(class), (n_obs, K)."""
        logits = [value.value for value in values.values()]
        return tf.nn.log_softmax(tf.stack([tf.zeros_like(logits[0]), *logits], axis=1))

    def probabilities(self, eta: Matrix) -> Matrix:
        """P(class), (n_obs, K)."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        return np.asarray(tf.exp(self._log_probabilities(values)).numpy())

    def _start_logits(self, counts: Vector) -> dict[str, float]:
        # half an observation of each class keeps the start finite
        logits = np.log((counts[1:] + 0.5) / (counts[0] + 0.5))
        return dict(zip(self.parameter_names, logits.tolist(), strict=True))

    def boundary(self, eta: Matrix) -> str | None:
        certain = self.probabilities(eta).max(axis=1) > 1.0 - NUMERICALLY_CERTAIN
        if not certain.any():
            return None
        return (
            f"fitted probabilities numerically 1 in {int(certain.sum())} of {len(eta)} rows: some "
            "terms separate the classes, so that their coefficients are infinite and their "
            "standard errors mean nothing"
        )

    def mean(self, eta: Matrix) -> Matrix:
        return self.probabilities(eta)

    def variance(self, eta: Matrix) -> Matrix:
        p = self.probabilities(eta)
        return np.asarray(p * (1.0 - p))


@register
@dataclass(frozen=True)
class Categorical(ClassLogits):
    """Categorical distribution of an unordered class: a factor, strings or whole numbers.

    P(y = k) = exp(eta_k) / sum_j exp(eta_j), eta of the first class 0. Mean and variance are those
    of the indicators of the classes: p_k and p_k (1 - p_k). The order of the classes has a meaning
    for cdf and quantiles only.

    Attributes
    ----------
    codes : tuple of float
        What stands for the classes in the response: 0, 1, ... for a factor, else the numbers.
    symmetric : bool
        Whether the first class has a predictor too; see `symmetric_categorical`.
    """

    codes: tuple[float, ...] = ()
    symmetric: bool = False

    name: ClassVar[str] = "categorical"
    about: ClassVar[str] = "unordered classes, log odds against the first"
    support: ClassVar[str] = "classes: a factor, strings or whole numbers"
    takes_levels: ClassVar[bool] = True

    def for_response(self, response: Response) -> Family:
        if response.lower.ndim > 1:
            raise ResponseError(
                f"{response.label!r} has {response.lower.shape[1]} columns; family 'categorical' "
                f"needs {self.support} (counts of the classes have family 'multinomial')"
            )
        levels, codes = _classes(response, self.name)
        return replace(self, codes=codes, **self._with_classes(response, levels))

    def _with_classes(self, response: Response, levels: tuple[str, ...]) -> dict[str, Any]:
        found = super()._with_classes(response, levels)
        if self.symmetric:
            first = Parameter(
                member(LOGITS, levels[0]), self.parameters[0].link, f"log weight of {levels[0]}"
            )
            found["parameters"] = (first, *found["parameters"])
        return found

    def _log_probabilities(self, values: Mapping[str, Value]) -> Tensor:
        if not self.symmetric:
            return super()._log_probabilities(values)
        return tf.nn.log_softmax(tf.stack([value.value for value in values.values()], axis=1))

    def _start_logits(self, counts: Vector) -> dict[str, float]:
        if not self.symmetric:
            return super()._start_logits(counts)
        # against a copy of the first class, whose own logit is then 0
        return super()._start_logits(np.concatenate([counts[:1], counts]))

    def density(self, values: Mapping[str, Value]) -> Any:
        codes = tf.constant(self.codes, tf.float64)
        return tfd.FiniteDiscrete(codes, logits=self._log_probabilities(values))

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        indicator = tf.cast(y[:, None] == tf.constant(self.codes, y.dtype), y.dtype)
        return tf.reduce_sum(indicator * self._log_probabilities(values), axis=1)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_sum(values, y[:, None] >= tf.constant(self.codes, y.dtype))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_sum(values, y[:, None] < tf.constant(self.codes, y.dtype))

    def _log_sum(self, values: Mapping[str, Value], which: Tensor) -> Tensor:
        """log of the sum of the probabilities of some classes, (n_obs,)."""
        least = tf.constant(-np.inf, tf.float64)
        return tf.reduce_logsumexp(tf.where(which, self._log_probabilities(values), least), axis=1)

    def in_support(self, y: Array) -> Array:
        return np.isin(y, self.codes)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return self._start_logits(weights @ self.observed(y))

    def observed(self, y: Array) -> Matrix:
        """Indicators of the classes, (n_obs, K)."""
        return np.asarray(np.asarray(y)[:, None] == np.array(self.codes), dtype=np.float64)

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """-2 log P(y), the saturated model being certain of each class."""
        return -2.0 * self.logpdf(rows["lower"], eta)

    def classes(self, levels: tuple[str, ...] | None) -> tuple[tuple[str, ...], Vector]:
        return self.levels, np.array(self.codes)

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        total = np.cumsum(self.probabilities(eta), axis=1)
        place = np.sum(total[:, :-1] < np.asarray(probability)[..., None], axis=1)
        return np.asarray(np.array(self.codes)[place])


def symmetric_categorical() -> Categorical:
    """Categorical family with a predictor for each class, for penalised terms.

    P(y = k) = exp(eta_k) / sum_j exp(eta_j) does not change where all eta move by the same number.
    A lasso or ridge on all of them settles it and treats the classes alike (the "ungrouped"
    multinomial of glmnet). What has no penalty must be left out of one class, the intercept too:

        {"logits": "y ~ lasso(X)", "logits[a]": "~ 0 + lasso(X)"}

    With an even number of classes the coefficients of a column may still move together between two
    medians without changing the sum of their sizes; probabilities and differences of classes are
    unique. A lasso then has the most zeros: of both ends, where one coefficient is zero, `fit`
    takes that with the smaller sum of squares, whatever the order of the classes. R's glmnet
    reports the middle of the interval, where none is zero.

    Examples
    --------
    >>> symmetric_categorical().symmetric
    True
    """
    return Categorical(Categorical.default_parameters(), symmetric=True)


@register
@dataclass(frozen=True)
class Multinomial(ClassLogits):
    """Multinomial distribution of counts of classes, given their total; `cbind(a, b, c) ~ ...`.

    P(y) = N! prod_k p_k^y_k / y_k!,  N = sum_k y_k. Mean and variance, samples and predicted
    probabilities are those of N = 1. A response of classes has the family `categorical`.
    """

    name: ClassVar[str] = "multinomial"
    about: ClassVar[str] = "counts of unordered classes, log odds against the first"
    support: ClassVar[str] = "counts of the classes 0, 1, 2, ..., cbind(a, b, c), or classes"
    multivariate: ClassVar[bool] = True

    def for_response(self, response: Response) -> Family:
        if response.lower.ndim == 1:
            return Categorical(self.parameters).for_response(response)
        levels = element_names(response.label, response.lower.shape[1])
        return replace(self, **self._with_classes(response, levels))

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Multinomial(total_count=1.0, logits=self._log_probabilities(values))

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        ways = tf.math.lgamma(tf.reduce_sum(y, axis=1) + 1.0)
        ways -= tf.reduce_sum(tf.math.lgamma(y + 1.0), axis=1)
        return ways + tf.reduce_sum(y * self._log_probabilities(values), axis=1)

    def in_support(self, y: Array) -> Array:
        whole = np.isfinite(y) & (y >= 0) & (y == np.floor(y))
        return np.asarray(whole.all(axis=1) & (y.sum(axis=1) > 0))

    def start_values(self, y: Matrix, weights: Vector) -> Mapping[str, float]:
        return self._start_logits(weights @ y)

    def observed(self, y: Array) -> Matrix:
        """Shares of the classes, (n_obs, K)."""
        return np.asarray(y / np.sum(y, axis=1, keepdims=True))

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """2 sum_k y_k log(y_k / (N p_k)), the saturated model having the observed shares."""
        y = rows["lower"]
        share = y / y.sum(axis=1, keepdims=True)
        ratio = np.where(y > 0, share / self.probabilities(eta), 1.0)
        return np.asarray(2.0 * np.sum(y * np.log(ratio), axis=1))


def _classes(response: Response, family: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and codes of the classes that occur."""
    if response.levels is not None:
        return response.levels, tuple(float(k) for k in range(len(response.levels)))
    codes = np.unique(response.lower)
    fraction = codes[codes != np.round(codes)]
    if fraction.size:
        raise ResponseError(
            f"{response.label!r}: family {family!r} needs classes, a factor, strings or whole "
            f"numbers; the response has the value {fraction[0]:g}"
        )
    return tuple(f"{code:g}" for code in codes), tuple(codes.tolist())
