"""The cumulative baseline hazard that a partial likelihood leaves, with its error (METHODS 8).

    Lambda(t) = sum_(T_m <= t) c_m / Z_m                     Breslow's, or with ties Efron's
    var(Lambda(t) given b) = sum c_m / Z_m^2
    dLambda(t) / db = -sum c_m A_m / Z_m

with the letters of module `risk_sets`, at the fitted coefficients b. So the cumulative hazard
H = Lambda exp(x'b) of a row has, V being the covariance of b,

    var(log H) = sum c / Z^2 / Lambda^2 + (x - a)' V (x - a),    a = sum (c A / Z) / Lambda.

References: Breslow (1974), doi:10.2307/2529620; Tsiatis (1981), doi:10.1214/aos/1176345335;
Therneau & Grambsch (2000), Modeling Survival Data, section 10.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deepregress.errors import PredictionError
from deepregress.families.risk_sets import AtRisk
from deepregress.linalg import Array, Matrix, Vector

ROUNDING = 1e-12
"""Relative difference of a height from that of a jump up to which it is reached there."""

AT_ONCE = 2**20
"""Rows times jumps in one array."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Cumulative baseline hazards of all strata, one after the other.

    Parameters
    ----------
    strata, times, cumulative : Vector, (K,)
        Stratum, time and height after each jump.
    variance : Vector, (K,)
        Of `cumulative`, given the coefficients.
    slope : Matrix, (K, n_coef)
        sum c A / Z: `cumulative` falls by so much where a coefficient rises.
    """

    strata: Vector
    times: Vector
    cumulative: Vector
    variance: Vector
    slope: Matrix

    @classmethod
    def of(cls, at: AtRisk, X: Matrix) -> Baseline:
        """From the jumps of a partial likelihood; X (n_obs, n_coef)."""
        sets = at.sets
        first = np.searchsorted(sets.strata, sets.strata)

        def cumulated(jumps: Array) -> Array:
            total = np.concatenate([np.zeros((1, *jumps.shape[1:])), np.cumsum(jumps, axis=0)])
            return np.asarray(total[1:] - total[first])

        return cls(
            sets.strata,
            sets.times,
            cumulated(at.increments),
            cumulated(at.increment_variances),
            cumulated(at.increment_slopes(X)),
        )

    def place(self, y: Vector, stratum: Vector) -> Array:
        """Number of the last jump up to y, (n,) of int; -1 before the first one."""
        found = np.full(len(y), -1)
        for jumps, own in self.parts(stratum):
            before = np.searchsorted(self.times[jumps], y[own], "right")
            found[own] = np.where(before > 0, jumps[0] + before - 1, -1)
        return found

    def at(self, y: Vector, stratum: Vector) -> Vector:
        """Height at y, (n,)."""
        place = self.place(y, stratum)
        return np.where(place < 0, 0.0, self.cumulative[place])

    def first(self, height: Vector, stratum: Vector) -> Vector:
        """The first time at which a height is reached, (n,); infinite where it never is."""
        y = np.full(len(height), np.inf)
        for jumps, own in self.parts(stratum):
            times = np.append(self.times[jumps], np.inf)
            reached = self.cumulative[jumps] * (1.0 + ROUNDING)
            y[own] = times[np.searchsorted(reached, height[own], side="left")]
        return y

    def jumps_of(self, stratum: float) -> Array:
        """Numbers of the jumps of one stratum."""
        return np.flatnonzero(self.strata == stratum)

    def panels(self, jumps: Array, ratio: Vector, tau: Vector) -> Matrix:
        """Areas under S between 0, the jumps of a stratum, and tau, (n, number of jumps + 1).

        Parameters
        ----------
        jumps : array of int
            Of one stratum.
        ratio, tau : Vector, (n,)
            exp(x'b) and the end of the last panel.
        """
        starts = np.concatenate([[0.0], np.maximum(self.times[jumps], 0.0)])
        ends = np.append(starts[1:], np.inf)
        widths = np.clip(np.minimum(ends, tau[:, None]) - starts, 0.0, None)
        heights = np.concatenate([[0.0], self.cumulative[jumps]])
        return np.asarray(widths * np.exp(-ratio[:, None] * heights))

    def blocks(self, stratum: Vector) -> Iterator[tuple[Array, Array]]:
        """Jumps of each stratum and some of its rows, few enough for an array of both."""
        for jumps, own in self.parts(stratum):
            size = max(1, AT_ONCE // (len(jumps) + 1))
            yield from ((jumps, own[start : start + size]) for start in range(0, len(own), size))

    def parts(self, stratum: Vector) -> list[tuple[Array, Array]]:
        """Jumps of each stratum, and the rows that are in it.

        Raises
        ------
        PredictionError
            A stratum had no event in training.
        """
        known = np.unique(self.strata)
        new = np.setdiff1d(stratum, known)
        if new.size:
            raise PredictionError(
                f"the stratum {new[0]:g} had no event in training; there are "
                f"{', '.join(f'{s:g}' for s in known)}"
            )
        return [(self.jumps_of(s), np.flatnonzero(stratum == s)) for s in known]
