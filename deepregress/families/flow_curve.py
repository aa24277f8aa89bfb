"""An increasing curve whose slope is linear between knots: DRIFT without its network (METHODS 8).

    do/dt = A(t) s,   o = C(t) s,   C' = A,   s = exp(free)

A(t) are the hat functions of the knots, constant beyond the ends, so that tails are straight lines
as those of the network. phi of module `flow` from it is a curve that the likelihood, through a
penalty on changes of slope, determines in a few Newton steps from anywhere; the weights of a
network, of which many do the same, take hundreds and stop in many places. So a fit looks for the
transformation among these curves first (module `flow_start`).

Reference: Ramsay (1998), doi:10.1111/1467-9868.00130 (smooth monotone functions).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from deepregress.families.flow import Transformation
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class Curve(Transformation):
    """An increasing curve of one number.

    Parameters
    ----------
    free : Vector, (n_knots,)
        Log slopes at the knots, up to a constant.
    knots : Vector, (n_knots,)
        Increasing, units of u; two at least.
    outputs, centre, spread, anchors
        See `Transformation`; there is one output.
    """

    free: Vector = field(repr=False)
    knots: Vector = field(repr=False)
    outputs: int = 1
    centre: float = 0.0
    spread: float = 1.0
    anchors: tuple[float, float] = (0.0, 1.0)

    def at(self, free: Vector) -> Self:
        return replace(self, free=free)

    def raw(self, u: Array) -> tuple[Array, Array]:
        s = np.exp(self.free)
        C, A = self._hats(u)
        return (C @ s)[:, None], (A @ s)[:, None]

    def raw_jacobian(self, u: Array) -> tuple[Array, Array]:
        s = np.exp(self.free)
        C, A = self._hats(u)
        return (C * s)[:, None, :], (A * s)[:, None, :]

    def _hats(self, u: Array) -> tuple[Matrix, Matrix]:
        """C and A, each (n, n_knots), at u (n,)."""
        t, knots = (u - self.centre) / self.spread, (self.knots - self.centre) / self.spread
        gap, last = np.diff(knots), len(knots) - 1
        j = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, last - 1)
        share, row = np.clip((t - knots[j]) / gap[j], 0.0, 1.0), np.arange(len(t))
        A = np.zeros((len(t), len(knots)))
        A[row, j], A[row, j + 1] = 1.0 - share, share
        # integrals of all hats up to each knot, then on to t
        pieces, at = np.zeros((len(knots), len(knots))), np.arange(last)
        pieces[at + 1, at] = pieces[at + 1, at + 1] = 0.5 * gap
        C = np.cumsum(pieces, axis=0)[j]
        C[row, j] += gap[j] * (share - 0.5 * share**2)
        C[row, j + 1] += gap[j] * 0.5 * share**2
        C[:, 0] += np.minimum(t - knots[0], 0.0)
        C[:, -1] += np.maximum(t - knots[-1], 0.0)
        return C, A
