"""What deep terms gain on rows that their networks did not see, and which of them stay.

    gain of part j    sum_i g_i,  g_i = w_i (l_i(eta + all parts) - l_i(eta + all parts but j))
    it stays          if sum_i g_i > sqrt(n) sd(g): more than one standard error

Training keeps the best of many epochs, so that a network which learned noise shows a small gain as
well; its output is next to nothing and its multiplier, which a fit in the rows chooses, anything.
The weakest part leaves first, and the others are judged again without it.

References: METHODS 5.1; Breiman, Friedman, Olshen & Stone (1984), Classification and Regression
Trees, section 3.4.3 (the rule of one standard error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from deepregress.disk import scratch
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.solvers.base import ScoreDifference

LEAST_GAIN = 1.0
"""Standard errors that a part must gain to stay."""


@dataclass(frozen=True)
class Judgement:
    """Deep parts on held-out rows.

    Parameters
    ----------
    objective : Objective
        Of the structured terms.
    eta : Matrix, (n_obs, U)
        Predictors without the parts, with those that were judged before.
    units : tuple of int
        The predictor of each part.
    columns : Matrix, (n_obs, n_parts)
        Output for each row of a network that did not see it.
    rows : Array of int
        The rows that were held out.
    start : Matrix, (n_obs, U)
        Predictors without these parts and without those that were judged before.
    """

    objective: Objective
    eta: Matrix = field(repr=False)
    units: tuple[int, ...]
    columns: Matrix = field(repr=False)
    rows: Array = field(repr=False)
    start: Matrix = field(repr=False)

    @cached_property
    def joint(self) -> ScoreDifference:
        """Of all parts together, those that were judged before among them."""
        every = range(len(self.units))
        return self._gain(self._loglik(every), self._loglik((), self.start))

    @cached_property
    def each(self) -> tuple[ScoreDifference, ...]:
        """Of each part, given all others."""
        return self._gains(range(len(self.units)))

    @cached_property
    def staying(self) -> tuple[int, ...]:
        """Numbers of the parts that gain more than LEAST_GAIN standard errors."""
        left = list(range(len(self.units)))
        while left:
            ratios = [_standardised(gain) for gain in self._gains(left)]
            weakest = int(np.argmin(ratios))
            if ratios[weakest] > LEAST_GAIN:
                break
            del left[weakest]
        return tuple(left)

    def _gains(self, parts: Sequence[int]) -> tuple[ScoreDifference, ...]:
        full = self._loglik(parts)
        return tuple(self._gain(full, self._loglik([k for k in parts if k != j])) for j in parts)

    def _gain(self, more: Vector, less: Vector) -> ScoreDifference:
        """Of the held-out rows, from w_i l_i of all rows (n_obs,) each."""
        differences = scratch.beside(more, self.rows.shape)
        for some in scratch.parts(len(differences)):
            rows = self.rows[some]
            differences[some] = more[rows] - less[rows]
        return ScoreDifference.of(differences)

    def _loglik(self, parts: Sequence[int], without: Matrix | None = None) -> Vector:
        """w_i l_i of all rows with some of the parts."""
        without = self.eta if without is None else without
        values = scratch.beside(without, without.shape[:1])
        for rows in scratch.parts(len(values)):
            eta = without[rows].copy()
            for j in parts:
                eta[:, self.units[j]] += self.columns[rows, j]
            rowwise = self.objective.row_derivatives(eta, rows)[0]
            np.multiply(self.objective.response.weights[rows], rowwise, out=values[rows])
        return values


def _standardised(gain: ScoreDifference) -> float:
    return gain.value / gain.se if gain.se > 0 else np.copysign(np.inf, gain.value or -1.0)
