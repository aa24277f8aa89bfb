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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor

KINDS = ("right", "left", "interval")
"""Names of the columns of `Response.rows()` that are 1 where a row is censored in this way."""
SHORT = -1e-4
"""log F(a) - log F(b) above which the difference of the probabilities has lost four digits, while
the density is straight enough for three nodes to integrate it to rounding."""
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(3)


class Supported(Protocol):
    """What a family says of the values that have probability."""

    @property
    def discrete(self) -> bool:
        """Whether the response takes whole numbers only."""

    @property
    def atoms(self) -> tuple[float, ...]:
        """Points of a continuous response that have a probability of their own."""


class Distributions(Supported, Protocol):
    """What a family gives: its distribution, by log density and both log probabilities."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the support that do not depend on parameters."""

    @property
    def circular(self) -> bool:
        """Whether the response is an angle, and F begins at one that depends on parameters."""

    def values(self, eta: Tensor, rows: Mapping[str, Tensor]) -> Any:
        """The parameters at predictors (n_obs, U)."""

    def log_density(self, values: Any, y: Tensor) -> Tensor:
        """log f(y), (n_obs,)."""

    def log_cdf(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y <= y), (n_obs,)."""

    def log_survival(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y > y), (n_obs,)."""

    def log_tails(self, values: Any, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Both, where one costs what both do and no derivative of either is infinite."""


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
            total = tf.where(exact, at.log_density([rows["lower"]], [exact])[0], total)
    if "entry" in rows or "exit" in rows:
        every = tf.ones_like(total, dtype=tf.bool)
        total -= _log_probability(at, rows.get("entry"), rows.get("exit"), every)
    return total


@dataclass(frozen=True)
class _Rows:
    """The functions of a family at the rows where they are needed."""

    family: Distributions
    rows: Mapping[str, Tensor]
    eta: Tensor

    def log_density(self, points: Sequence[Tensor], where: Sequence[Tensor]) -> list[Tensor]:
        """log f of each row at some points, each (n_obs,)."""
        return self._stacked(self.family.log_density, points, where)

    def log_cdf(self, points: Sequence[Tensor], where: Sequence[Tensor]) -> list[Tensor]:
        """log F at some points; -inf where it is not wanted."""
        return self._stacked(self.family.log_cdf, points, where)

    def log_survival(self, points: Sequence[Tensor], where: Sequence[Tensor]) -> list[Tensor]:
        """log S at some points; -inf where it is not wanted."""
        return self._stacked(self.family.log_survival, points, where)

    def log_tails(
        self, points: Sequence[Tensor], where: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """log F and log S at some points; -inf where they are not wanted."""
        values, y, mask = self._of(points, where)
        tails = self.family.log_tails(values, y)
        if tails is None:
            return None
        log_F, log_S = (_split(tail, mask, len(points)) for tail in tails)
        return log_F, log_S

    def _stacked(
        self,
        function: Callable[..., Tensor],
        points: Sequence[Tensor],
        where: Sequence[Tensor],
    ) -> list[Tensor]:
        values, y, mask = self._of(points, where)
        return _split(function(values, y), mask, len(points))

    def _of(self, points: Sequence[Tensor], where: Sequence[Tensor]) -> tuple[Any, Tensor, Tensor]:
        # one call for all points: XLA compiles the function and its derivatives once
        times = len(points)
        mask = tf.concat(where, axis=0)
        eta = only(tf.concat([self.eta] * times, axis=0), mask[:, None])
        rows = {name: tf.concat([column] * times, axis=0) for name, column in self.rows.items()}
        return self.family.values(eta, rows), finite(tf.concat(points, axis=0)), mask


@dataclass(frozen=True)
class _Ends:
    """log F and log S at both ends of (a, b], as far as the probability between needs them.

    Attributes
    ----------
    F_a, F_b, S_a, S_b : Tensor, (n_obs,)
        -inf where they are not needed.
    upper : Tensor
        Where F(b) > S(a): the upper tail beyond a is the smaller one.
    around : Tensor
        Where the arc from a to b holds the angle at which F begins.
    """

    F_a: Tensor
    F_b: Tensor
    S_a: Tensor
    S_b: Tensor
    upper: Tensor
    around: Tensor

    @classmethod
    def of(cls, at: _Rows, a: Tensor, b: Tensor, *, below: Tensor, above: Tensor) -> _Ends:
        """At a `below` the rest of the support, at b `above` it."""
        both, circular = below & above, at.family.circular
        joint = at.log_tails([a, b], [below, above])
        if joint is not None:
            (F_a, F_b), (S_a, S_b) = joint
            around = both & (F_b < F_a) & circular
            F_a, S_b = (_unless(around, tail) for tail in (F_a, S_b))
            return cls(F_a, F_b, S_a, S_b, both & ~around & (F_b > S_a), around)
        family, values = at.family, at.family.values(tf.stop_gradient(at.eta), at.rows)
        largest, around = family.log_cdf(values, finite(b)), tf.zeros_like(both)
        if circular:
            around = both & (largest < family.log_cdf(values, finite(a)))
        upper = both & ~around & (largest > family.log_survival(values, finite(a)))
        lower = both & ~around & ~upper
        F_b, F_a = at.log_cdf([b, a], [above & ~upper, lower])
        S_a, S_b = at.log_survival([a, b], [below & ~lower, upper])
        return cls(F_a, F_b, S_a, S_b, upper, around)


def _censored(at: _Rows, kinds: list[str]) -> Tensor:
    """log P(lower <= Y <= upper) of the censored rows, 0 of the others."""
    lower, upper = at.rows["lower"], at.rows["upper"]
    a = before(at.family, lower)
    where = tf.zeros_like(lower, dtype=tf.bool)
    for kind in kinds:
        where = where | (at.rows[kind] > 0)
    if kinds == ["right"]:
        return _log_probability(at, a, None, where)
    if kinds == ["left"]:
        return _log_probability(at, None, upper, where)
    return _log_probability(at, a, upper, where)


def _log_probability(at: _Rows, a: Tensor | None, b: Tensor | None, where: Tensor) -> Tensor:
    """log P(a < Y <= b) of some rows, 0 of the others; None is an open end of all rows."""
    least, most = at.family.bounds
    none = tf.zeros_like(where)
    below, above = none, none
    if a is not None:
        below = where & (a >= least if at.family.discrete else a > least)
    if b is not None:
        above = where & (b < most)
    zero = tf.zeros_like(at.eta[:, 0])
    if b is None:
        return tf.where(below, at.log_survival([a], [below])[0], zero)
    if a is None:
        return tf.where(above, at.log_cdf([b], [above])[0], zero)
    ends, both = _Ends.of(at, a, b, below=below, above=above), below & above
    by_cdf = above & ~ends.upper
    larger = tf.where(by_cdf, ends.F_b, tf.where(below, ends.S_a, zero))
    smaller = tf.where(by_cdf, ends.F_a, ends.S_b)
    if at.family.discrete:
        return larger + log1mexp(smaller - larger)
    short = both & ~ends.around & (smaller - larger > SHORT)
    gap = tf.where(short, tf.constant(SHORT, larger.dtype), smaller - larger)
    difference = tf.where(short, _quadrature(at, a, b, short), larger + log1mexp(gap))
    if not at.family.circular:
        return difference
    tails = [tf.where(ends.around, tail, zero) for tail in (ends.F_b, ends.S_a)]
    return tf.where(ends.around, tf.reduce_logsumexp(tf.stack(tails), axis=0), difference)


def _quadrature(at: _Rows, a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """log of the integral of f over short (a, b], by Gauss and Legendre's rule."""
    a, b = tf.where(where, a, tf.zeros_like(a)), tf.where(where, b, tf.ones_like(b))
    half, middle = 0.5 * (b - a), 0.5 * (a + b)
    points = [middle + node * half for node in NODES]
    terms = tf.stack(at.log_density(points, [where] * len(NODES)), axis=1)
    return tf.reduce_logsumexp(terms + np.log(NODE_WEIGHTS), axis=1) + tf.math.log(half)


def _split(value: Tensor, mask: Tensor, times: int) -> list[Tensor]:
    """One tensor for each point; -inf except where the mask is set."""
    return list(tf.split(_unless(~mask, value), times))


def _unless(where: Tensor, value: Tensor) -> Tensor:
    """-inf in some rows."""
    return tf.where(where, tf.constant(-np.inf, value.dtype), value)


def before(family: Supported, lower: Tensor) -> Tensor:
    """a with P(Y > a) = P(Y >= lower): the count before, or just below where a point has a mass."""
    if family.discrete:
        return tf.math.ceil(lower) - 1.0
    for atom in family.atoms:
        just_below = tf.constant(atom - np.finfo(np.float64).eps, lower.dtype)
        lower = tf.where(lower == atom, just_below, lower)
    return lower


def finite(y: Tensor) -> Tensor:
    """y, with 0 for an open bound, which no function of a family is asked for."""
    return tf.where(tf.math.is_finite(y), y, tf.zeros_like(y))


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
