"""Tails of counts that have no formula: sums of probabilities over blocks of growing size.

    P(Y > y) = sum_{j > y} f(j),   P(Y <= y) = sum_{j <= y} f(j)

The tail that leads away from the mean is summed, block by block; the other one is 1 minus it.
Within a block of L counts f is smooth in j, and the sum is Gauss's for the weight 1 on 0, 1, ...,
L - 1 (zeros of the discrete Chebyshev polynomials; exact to degree 63), so that 32 values of f
serve a block of any size. L is a power of two: at most the standard deviation or half the way from
the mean, 0.9 of the way to an end of the support, and a few times the distance over which f changes
by a factor e. Blocks of 32 counts and less are summed count by count.

A compiled likelihood has a fixed number of blocks, and their lengths may not depend on parameters:
there a block is as long as the way that has been summed before it, if that is not more than 0.9 of
the way to an end of the support. What is left beyond the last block is nothing.

References: Gautschi (2004), Orthogonal Polynomials: Computation and Approximation, 1.5 and 3.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.errors import FamilyError
from deepregress.families.parameter import Value
from deepregress.families.special import log1mexp
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

_NODES = 32
_LARGEST = 40
"""log2 of the largest block."""
_CHANGE = 8.0
"""Powers of e by which f may change within a block longer than that."""
_NOTHING = np.log(1e-17)
_AT_ONCE = 2**16
"""Rows whose tails are summed at once."""
_COUNTS = ("lower", "upper", "entry", "exit")
"""Columns of a response that hold counts at which tails begin."""
_FURTHER = 8
"""Blocks beyond those that reach 0: 64 times as far as the largest count."""
_NO_LOG, _LEAST, _LOG_2 = -1e10, 1e-300, float(np.log(2.0))
"""A logarithm of nothing that has derivatives, and the least -log of a probability."""


LogDensity = Callable[[Mapping[str, Value], Tensor], Tensor]


def log_tails_by_sums(
    log_density: LogDensity,
    values: Mapping[str, Value],
    y: Tensor,
    *,
    mean: Tensor,
    variance: Tensor,
    most: Tensor,
    n_blocks: int,
) -> tuple[Tensor, Tensor]:
    """log P(Y <= y) and log P(Y > y) of a count without a distribution function, (n_obs,) each.

    Parameters
    ----------
    log_density : callable
        log f at parameters (n,) of counts (m, n), between which it is smooth.
    values : mapping of str to Value
    y : tensor, (n_obs,)
        Counts, not negative.
    mean, variance : tensor, (n_obs,)
    most : tensor, (n_obs,)
        Largest possible counts, or infinite.
    n_blocks : int
        In a compiled likelihood: `blocks_for` its response.

    Raises
    ------
    FamilyError
        In a compiled likelihood that has no blocks, as that of a family within another one.
    """
    if not tf.executing_eagerly():
        if not n_blocks:
            raise FamilyError(
                "within another family this one takes no censored or truncated response: its "
                "distribution function is a sum without a formula"
            )
        away = tf.stop_gradient(mean)
        return _compiled_tails(log_density, values, y, y >= away, most, n_blocks)
    at, ends = np.asarray(y, dtype=np.float64), np.asarray(most)
    centre, deviation = np.asarray(mean), np.sqrt(np.asarray(variance))
    upward = at >= centre
    tail = np.empty(len(at))
    for rows in np.array_split(np.arange(len(at)), len(at) // _AT_ONCE + 1):
        own = _taken(values, rows)
        sums = _Sums(log_density, own, upward[rows], ends[rows], centre[rows], deviation[rows])
        tail[rows] = sums.away_from(at[rows])
    tail = np.minimum(tail, 0.0)
    with np.errstate(divide="ignore"):
        other = np.where(tail > -0.7, np.log(-np.expm1(tail)), np.log1p(-np.exp(tail)))
    lower, upper = np.where(upward, other, tail), np.where(upward, tail, other)
    return tf.constant(lower), tf.constant(upper)


def blocks_for(response: Response) -> int:
    """Number of blocks from the largest count of a response to 0, or as far beyond its tails.

    0 where no row is censored or truncated.
    """
    rows = response.rows()
    if set(rows) <= {"lower", "trials"}:
        return 0
    known = np.concatenate([rows[name] for name in _COUNTS if name in rows])
    largest = np.max(known[np.isfinite(known)], initial=float(_NODES))
    return 2 * int(np.ceil(np.log2(largest / _NODES))) + _FURTHER


def _compiled_tails(
    log_density: LogDensity,
    values: Mapping[str, Value],
    y: Tensor,
    upward: Tensor,
    most: Tensor,
    n_blocks: int,
) -> tuple[Tensor, Tensor]:
    """The same by `n_blocks` blocks, with derivatives."""
    nodes, log_weights = (tf.constant(each, y.dtype) for each in _rules())
    direction = tf.where(upward, tf.ones_like(y), -tf.ones_like(y))
    begin = tf.where(upward, y + 1.0, tf.minimum(y, most))
    done = tf.zeros_like(y)
    counts, weights = [], []
    for _ in range(n_blocks):
        first = begin + direction * done
        left = tf.where(upward, most - first, first) + 1.0
        to_end = 0.9 * tf.minimum(first, most - first)
        length = tf.minimum(tf.minimum(tf.maximum(done, _NODES), to_end), left)
        power = tf.floor(tf.math.log(tf.clip_by_value(length, _NODES, 2.0**_LARGEST)) / _LOG_2)
        place = tf.cast(power, tf.int32)
        offset = tf.transpose(tf.gather(nodes, place))
        inside = offset < left
        counts.append(tf.where(left > 0.0, first + direction * tf.where(inside, offset, 0.0), 0.0))
        weights.append(tf.where(inside, tf.transpose(tf.gather(log_weights, place)), _NO_LOG))
        done += tf.where(left > 0.0, 2.0**power, tf.zeros_like(power))
    terms = log_density(values, tf.concat(counts, axis=0)) + tf.concat(weights, axis=0)
    tail = tf.minimum(tf.reduce_logsumexp(terms, axis=0), -_LEAST)
    other = log1mexp(-tail)
    return tf.where(upward, other, tail), tf.where(upward, tail, other)


def _taken(values: Mapping[str, Value], rows: Array) -> dict[str, Value]:
    return {name: Value(tf.gather(each.eta, rows), each.link) for name, each in values.items()}


@dataclass(frozen=True)
class _Sums:
    """One tail of each row: above a count where `upward`, else up to and with it."""

    log_density: LogDensity
    values: Mapping[str, Value]
    upward: Array
    most: Vector
    mean: Vector
    deviation: Vector

    def away_from(self, y: Vector) -> Vector:
        """Log of the tails that begin at y, (n,)."""
        direction = np.where(self.upward, 1.0, -1.0)
        total = np.full(len(y), -np.inf)
        first = np.where(self.upward, y + 1.0, np.minimum(y, self.most))
        going = np.arange(len(y))
        while True:
            left = np.where(self.upward, self.most - first, first) + 1.0
            going = going[left[going] > 0.0]
            if not going.size:
                return total
            size = self._sizes(going, first[going], left[going], direction[going])
            offset, log_weight = _rules()
            inside = offset[size].T < left[going]
            j = first[going] + direction[going] * np.where(inside, offset[size].T, 0.0)
            terms = np.where(inside, self._terms(going, j) + log_weight[size].T, -np.inf)
            block = np.asarray(scipy.special.logsumexp(terms, axis=0))
            total[going] = np.logaddexp(total[going], block)
            first[going] += direction[going] * 2.0**size
            going = going[~(block - total[going] < _NOTHING)]

    def _sizes(self, own: Array, first: Vector, left: Vector, direction: Vector) -> Array:
        """log2 of the lengths of the next blocks."""
        to_zero, to_most = first, self.most[own] - first
        two = self._terms(own, np.stack([first, first + direction * np.minimum(left - 1.0, 1.0)]))
        with np.errstate(divide="ignore", invalid="ignore"):
            pace = _CHANGE / np.abs(two[1] - two[0])
        way = np.maximum(self.deviation[own], 0.5 * np.abs(first - self.mean[own]))
        smooth = np.minimum(0.9 * np.minimum(to_zero, to_most), way)
        length = np.minimum(np.fmin(smooth, pace), left)
        power = np.floor(np.log2(np.clip(length, _NODES, 2.0**_LARGEST)))
        return np.asarray(power, dtype=np.int64)

    def _terms(self, own: Array, j: Matrix) -> Matrix:
        return np.asarray(self.log_density(_taken(self.values, own), tf.constant(j)))


@functools.cache
def _rules() -> tuple[Matrix, Matrix]:
    """Nodes and log weights of the sums over 0, ..., 2^s - 1, (s, nodes) each."""
    nodes, weights = np.zeros((2, _LARGEST + 1, _NODES))
    for s in range(_LARGEST + 1):
        length = 2.0**s
        if length <= _NODES:
            nodes[s, : int(length)], weights[s, : int(length)] = np.arange(length), 1.0
            continue
        k = np.arange(1, _NODES)
        off = k * np.sqrt((length**2 - k**2) / (4.0 * (4.0 * k**2 - 1.0)))
        nodes[s], vectors = scipy.linalg.eigh_tridiagonal(
            np.full(_NODES, (length - 1.0) / 2.0), off
        )
        weights[s] = length * vectors[0] ** 2
    with np.errstate(divide="ignore"):
        return nodes, np.log(weights)
