"""The log-likelihood of a row that is exact, censored or truncated: one code path (METHODS 1).

    exact                 log f(y)
    lower <= y <= upper   log P(lower <= Y <= upper), an open bound at -inf or +inf
    entry < Y <= exit     minus log P(entry < Y <= exit)

all by log P(a < Y <= b), on the log scale and from the side where the probabilities are smaller:

    log(F(b) - F(a)) = log F(b) + log(1 - exp(log F(a) - log F(b)))      in the lower tail
                     = log S(a) + log(1 - exp(log S(b) - log S(a)))      in the upper tail
                     = log of the integral of f over (a, b]              where that is short

A function that is not needed in a row may be infinite there or have no derivative: `only` lets no
derivative of any order pass from such rows to the predictors.

References: Klein & Moeschberger (2003), Survival Analysis, section 3.5; Maechler (2012),
"Accurately computing log(1 - exp(-|a|))".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor

KINDS = ("right", "left", "interval")
"""Names of the columns of `Response.rows()` that are 1 where a row is censored in this way."""
SHORT = -1e-4
"""log F(a) - log F(b) above which the difference of the probabilities has lost four digits, while
the density is straight enough for three nodes to integrate it to rounding."""
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(3)


class Distributions(Protocol):
    """What a family gives: its distribution, by log density and both log probabilities."""

    discrete: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]

    def values(self, eta: Tensor, rows: Mapping[str, Tensor]) -> Any:
        """The parameters at predictors (n_obs, U)."""

    def log_density(self, values: Any, y: Tensor) -> Tensor:
        """log f(y), (n_obs,)."""

    def log_cdf(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y <= y), (n_obs,)."""

    def log_survival(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y > y), (n_obs,)."""


def log_likelihood(family: Distributions, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
    """l_i, (n_obs,).

    Parameters
    ----------
    family : Distributions
    rows : mapping of str to tensor
        `Response.rows()`: what is not among its columns is not in the compiled kernel either.
    eta : tensor, (n_obs, U)
    """
    at = _Rows(family, rows, eta)
    kinds = [kind for kind in KINDS if kind in rows]
    if not kinds:
        total = family.log_density(family.values(eta, rows), rows["lower"])
    else:
        total = _censored(at, kinds)
        if "exact" in rows:
            exact = rows["exact"] > 0
            total = tf.where(exact, at.log_density(rows["lower"], exact), total)
    if "entry" in rows or "exit" in rows:
        a, b = rows.get("entry"), rows.get("exit")
        total -= _log_probability(at, (a, b), every=tf.ones_like(total, dtype=tf.bool))
    return total


@dataclass(frozen=True)
class _Rows:
    """The functions of a family at the rows where they are needed."""

    family: Distributions
    rows: Mapping[str, Tensor]
    eta: Tensor

    def log_density(self, y: Tensor, where: Tensor) -> Tensor:
        return self.family.log_density(self._values(where), y)

    def log_cdf(self, y: Tensor, where: Tensor, otherwise: float) -> Tensor:
        return self._masked(self.family.log_cdf, y, where, otherwise)

    def log_survival(self, y: Tensor, where: Tensor, otherwise: float) -> Tensor:
        return self._masked(self.family.log_survival, y, where, otherwise)

    def _masked(
        self, function: Callable[..., Tensor], y: Tensor, where: Tensor, otherwise: float
    ) -> Tensor:
        value = function(self._values(where), y)
        return tf.where(where, value, tf.constant(otherwise, value.dtype))

    def _values(self, where: Tensor) -> Any:
        return self.family.values(only(self.eta, where[:, None]), self.rows)


def _censored(at: _Rows, kinds: list[str]) -> Tensor:
    """log P(lower <= Y <= upper) of the censored rows."""
    lower, upper = at.rows["lower"], at.rows["upper"]
    # P(lower <= Y) = P(Y > lower - 1) where Y is a count
    a = tf.math.ceil(lower) - 1.0 if at.family.discrete else lower
    every = tf.zeros_like(lower, dtype=tf.bool)
    for kind in kinds:
        every = every | (at.rows[kind] > 0)
    if kinds == ["right"]:
        return _log_probability(at, (a, None), every=every)
    if kinds == ["left"]:
        return _log_probability(at, (None, upper), every=every)
    return _log_probability(at, (a, upper), every=every)


def _log_probability(
    at: _Rows, interval: tuple[Tensor | None, Tensor | None], *, every: Tensor
) -> Tensor:
    """log P(a < Y <= b) of the rows in `every`; None is an open end of all rows."""
    a, b = interval
    least, most = at.family.bounds
    if b is None:
        return at.log_survival(a, every & _above(a, least, at.family), 0.0)
    if a is None:
        return at.log_cdf(b, every & (b < most), 0.0)
    below, above = every & _above(a, least, at.family), every & (b < most)
    log_survival = at.log_survival(a, below, 0.0)
    log_cdf = at.log_cdf(b, above, 0.0)
    both = below & above
    upper_tail = both & (log_cdf > log_survival)
    lower_tail = both & ~upper_tail
    further = at.log_survival(b, upper_tail, -np.inf)
    nearer = at.log_cdf(a, lower_tail, -np.inf)
    larger = tf.where(above & ~upper_tail, log_cdf, log_survival)
    smaller = tf.where(upper_tail, further, nearer)
    short = both & (smaller - larger > SHORT)
    if at.family.discrete:
        return larger + log1mexp(smaller - larger)
    difference = larger + log1mexp(
        tf.where(short, tf.constant(SHORT, larger.dtype), smaller - larger)
    )
    return tf.where(short, _quadrature(at, a, b, short), difference)


def _above(a: Tensor, least: float, family: Distributions) -> Tensor:
    return a >= least if family.discrete else a > least


def _quadrature(at: _Rows, a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """log of the integral of f over short (a, b], by Gauss and Legendre's rule."""
    a, b = tf.where(where, a, tf.zeros_like(a)), tf.where(where, b, tf.ones_like(b))
    half, middle = 0.5 * (b - a), 0.5 * (a + b)
    terms = [
        at.log_density(middle + node * half, where) + float(np.log(weight))
        for node, weight in zip(NODES, NODE_WEIGHTS, strict=True)
    ]
    return tf.reduce_logsumexp(tf.stack(terms), axis=0) + tf.math.log(half)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def only(x: Tensor, where: Tensor) -> Any:
    """x, with derivatives of every order that are zero except `where`."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None]:
        return tf.where(where, upstream, tf.zeros_like(upstream)), None

    return tf.identity(x), gradient


@tf.custom_gradient  # type: ignore[untyped-decorator]
def log1mexp(x: Tensor) -> Any:
    """log(1 - exp(x)) for x < 0, -inf included, differentiable to any order.

    Its derivative is -exp(x - log(1 - exp(x))), which vanishes at -inf.
    """

    def gradient(upstream: Tensor) -> Tensor:
        return -upstream * tf.exp(x - log1mexp(x))

    near = x > -float(np.log(2.0))
    value = tf.where(near, tf.math.log(-tf.math.expm1(x)), tf.math.log1p(-tf.exp(x)))
    return value, gradient
