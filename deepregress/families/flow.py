"""A neural transformation of the response that increases by construction (METHODS 8, DRIFT).

    t = (u - centre) / spread
    h1 = tanh(t W1 + b1),  h2 = tanh(h1 W2 + b2),  o_k = t v_k + h2 V_k,   W1, W2, v, V > 0

All weights are softplus of free numbers, so that every o_k increases; tanh is bounded and v_k is
positive, so that the tails are straight lines of positive slope and a density is never zero. do/dt
is the same pass, carried along:

    dh1 = (1 - h1^2) W1,   dh2 = (1 - h2^2) (dh1 W2),   do_k = v_k + dh2 V_k

The transformation itself is o_0 without its location and scale, which belong to the predictors: it
leaves two points of the response, the anchors, where they are,

    phi(u) = a + (b - a) (o_0(u) - o_0(a)) / (o_0(b) - o_0(a)),

so that it is in units of u, and without hidden units phi(u) = u. The further o_k are the y-side of
a general network (`families.neural`).

References: Kook, Kolb, Schiele, Dold, Arpogaus, Fritz, Baumann, Kopper, Pielok, Dorigatti &
Ruegamer (2024), arXiv:2405.05429; Sill (1997), Monotonic networks, NIPS 10.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import tensorflow as tf

from deepregress.linalg import Array, Vector

WIDTH = 10
"""Units of each of the two hidden layers."""
REACH = 2.0
"""Hidden units start centred between so many spreads below and above the centre."""
EDGE = 1e-12
FLAT = 1e-100
"""Least rise of o_0 between the anchors."""


class Transformation(ABC):
    """An increasing function of one number through its anchors, from any o_0 that increases.

    Attributes
    ----------
    free : Vector, (n_free,)
        Its coefficients; none: phi(u) = u.
    outputs : int
        Number of o_k.
    centre, spread : float
        Of u, units of u.
    anchors : pair of float
        Where phi(u) = u.
    """

    free: Vector
    outputs: int
    centre: float
    spread: float
    anchors: tuple[float, float]

    @abstractmethod
    def at(self, free: Vector) -> Self:
        """The same with other coefficients."""

    @abstractmethod
    def raw(self, u: Any) -> tuple[Any, Any]:
        """o and do / dt at u (n,), each (n, outputs)."""

    @abstractmethod
    def raw_jacobian(self, u: Array) -> tuple[Array, Array]:
        """do / dfree and d2o / dt dfree at u (n,), each (n, outputs, n_free)."""

    @property
    def straight(self) -> bool:
        """Whether phi(u) = u."""
        return not len(self.free)

    def phi(self, u: Any) -> tuple[Any, Any]:
        """phi and dphi / du at u (n,), each (n,), as arrays or tensors as u is."""
        if self.straight:
            return u, 0.0 * u + 1.0
        o, slope = self.raw(u)
        low, rise = self._anchored
        a, _ = self.anchors
        return a + rise * (o[:, 0] - low), rise * slope[:, 0] / self.spread

    def features(self, u: Any) -> tuple[Any, Any]:
        """o_1, o_2, ... and do / du at u (n,), each (n, outputs - 1)."""
        if self.straight:
            zero = 0.0 * u[:, None] * np.ones(self.outputs - 1)
            return zero, zero
        o, slope = self.raw(u)
        return o[:, 1:], slope[:, 1:] / self.spread

    def jacobian(self, u: Array) -> tuple[Array, Array]:
        """Derivatives of (phi, o_1, ...) and of their slopes in `free`, (n, outputs, n_free)."""
        u = np.asarray(u)
        of_o, of_slope = self.raw_jacobian(u)
        o, slope = (each[:, 0] for each in self.raw(u))
        anchored, (low, rise) = self.raw_jacobian(np.array(self.anchors))[0][:, 0], self._anchored
        a, b = self.anchors
        moved = (anchored[1] - anchored[0]) * rise / (b - a)
        of_o[:, 0] = rise * (of_o[:, 0] - anchored[0] - (o - low)[:, None] * moved)
        of_slope[:, 0] = rise * (of_slope[:, 0] - slope[:, None] * moved)
        return of_o, of_slope / self.spread

    def inverse(self, value: Array) -> Vector:
        """u with phi(u) = value, (n,): Newton steps inside a bracket that shrinks."""
        value = np.asarray(value, dtype=np.float64)
        if self.straight:
            return value
        low, high = np.full(value.shape, self.anchors[0]), np.full(value.shape, self.anchors[1])
        width = np.full(value.shape, self.spread)
        while np.any(short := self.phi(low)[0] > value):
            low, width = np.where(short, low - width, low), np.where(short, 2.0 * width, width)
        width = np.full(value.shape, self.spread)
        while np.any(short := self.phi(high)[0] < value):
            high, width = np.where(short, high + width, high), np.where(short, 2.0 * width, width)
        u = 0.5 * (low + high)
        while np.any(high - low > EDGE * (self.spread + np.abs(u))):
            found, slope = self.phi(u)
            low, high = np.where(found <= value, u, low), np.where(found >= value, u, high)
            newton = u - (found - value) / slope
            inside = (newton > low) & (newton < high)
            step = np.abs(newton - u)
            u = np.where(inside, newton, 0.5 * (low + high))
            if np.all(inside & (step < EDGE * (self.spread + np.abs(u))) | (low == high)):
                break
        return np.asarray(u)

    @cached_property
    def _anchored(self) -> tuple[float, float]:
        """o_0 at the first anchor, and what a rise of one in o_0 is in phi."""
        o, _ = self.raw(np.array(self.anchors))
        a, b = self.anchors
        return float(o[0, 0]), (b - a) / max(float(o[1, 0] - o[0, 0]), FLAT)


@dataclass(frozen=True, eq=False)
class Flow(Transformation):
    """An increasing network of one number.

    Parameters
    ----------
    free : Vector, (n_free,)
        All weights: W1, b1, W2, b2, v, V one after the other, those that must be positive before
        their softplus.
    width : int
        Units of each hidden layer; 0: the identity.
    outputs, centre, spread, anchors
        See `Transformation`.
    """

    free: Vector = field(repr=False)
    width: int = 0
    outputs: int = 1
    centre: float = 0.0
    spread: float = 1.0
    anchors: tuple[float, float] = (0.0, 1.0)

    def at(self, free: Vector) -> Self:
        return replace(self, free=free)

    def raw(self, u: Any) -> tuple[Any, Any]:
        return _Pass(self, u).outputs()

    def raw_jacobian(self, u: Array) -> tuple[Array, Array]:
        return _Pass(self, u).jacobian()


def initial(rng: np.random.Generator, *, outputs: int = 1) -> Vector:
    """Free weights before training: positive weights ~ U(0, 3 / max(fan_in, fan_out)).

    Units are centred at places spread over the response; the straight parts have slope 1.
    """
    fan = 3.0 / WIDTH
    first, second = (rng.uniform(0.0, fan, size) for size in (WIDTH, (WIDTH, WIDTH)))
    last = rng.uniform(0.0, fan, (WIDTH, outputs))
    centres = np.linspace(-REACH, REACH, WIDTH)
    hidden = np.tanh(first * (centres[:, None] - centres))
    b2 = -np.sum(hidden.T * second, axis=0)
    straight = np.ones(outputs)
    parts = [_free(first), -first * centres, _free(second).ravel(), b2, _free(straight)]
    return np.concatenate([*parts, _free(last).ravel()])


def _positive(free: Array) -> Array:
    """Softplus."""
    return np.logaddexp(0.0, free)


def _free(weight: Array) -> Array:
    """Numbers whose softplus is `weight`."""
    return np.asarray(np.log(np.expm1(weight)))


class _Pass:
    """One pass of u (n,) through the network of a flow."""

    def __init__(self, flow: Flow, u: Any) -> None:
        m, k = flow.width, flow.outputs
        self.t = (u - flow.centre) / flow.spread
        sizes = [m, m, m * m, m, k, m * k]
        self.free = np.split(flow.free, np.cumsum(sizes)[:-1])
        r1, b1, r2, b2, r0, r3 = self.free
        tanh = np.tanh if isinstance(u, np.ndarray) else tf.tanh
        self.W1, self.W2 = _positive(r1), _positive(r2).reshape(m, m)
        self.v, self.V = _positive(r0), _positive(r3).reshape(m, k)
        self.h1 = tanh(self.t[:, None] * self.W1 + b1)
        self.h2 = tanh(self.h1 @ self.W2 + b2)
        self.dh1 = (1.0 - self.h1**2) * self.W1
        self.dh2 = (1.0 - self.h2**2) * (self.dh1 @ self.W2)

    def outputs(self) -> tuple[Any, Any]:
        """o and do / dt, each (n, outputs)."""
        return self.t[:, None] * self.v + self.h2 @ self.V, self.v + self.dh2 @ self.V

    def jacobian(self) -> tuple[Array, Array]:
        """do / dfree and d2o / dt dfree, each (n, outputs, n_free); the second is d/dt the first.

        Backpropagation of each output and, as t moves, of its derivative.
        """
        t, h1, h2, dh1, dh2, W2, V = (
            *(self.t, self.h1, self.h2, self.dh1, self.dh2),
            *(self.W2, self.V),
        )
        # softplus' = 1 / (1 + exp(-r)) of the numbers that stand for positive weights
        s1, _, s2, _, s0, s3 = (1.0 / (1.0 + np.exp(-each)) for each in self.free)
        n, k = len(t), V.shape[1]
        pieces: list[tuple[Array, Array]] = []
        for j in range(k):
            e2 = V[:, j] * (1.0 - h2**2)
            de2 = -2.0 * V[:, j] * h2 * dh2
            bend = 1.0 - h1**2
            e1, back = bend * (e2 @ W2.T), e2 @ W2.T
            de1 = bend * (de2 @ W2.T) - 2.0 * h1 * dh1 * back
            outer = h1[:, :, None] * e2[:, None, :]
            douter = h1[:, :, None] * de2[:, None, :] + dh1[:, :, None] * e2[:, None, :]
            own = np.zeros((n, k))
            own[:, j] = s0[j]
            last, dlast = np.zeros((n, len(h2[0]), k)), np.zeros((n, len(h2[0]), k))
            last[:, :, j], dlast[:, :, j] = h2, dh2
            value = [e1 * t[:, None] * s1, e1, outer.reshape(n, -1) * s2, e2]
            value += [own * t[:, None], last.reshape(n, -1) * s3]
            slope = [(de1 * t[:, None] + e1) * s1, de1, douter.reshape(n, -1) * s2, de2]
            slope += [own, dlast.reshape(n, -1) * s3]
            pieces.append((np.hstack(value), np.hstack(slope)))
        values, slopes = zip(*pieces, strict=True)
        return np.stack(values, axis=1), np.stack(slopes, axis=1)
