"""Penalised Newton for structured predictors (METHODS 3).

    maximise  l(coef) - 1/2 coef' S coef   over the free coefficients

1. H = -d2l/dcoef2, P = H + S. Where P is not positive definite the row-wise positive part of W
   replaces W for this step; where that is still singular a ridge is added.
2. step = P^-1 (gradient - S coef), halved while the penalised log-likelihood falls or is not
   finite. Where steps have become slow, it is doubled while the likelihood rises.
3. Converged when the decrement  1/2 step' P step,  the likelihood still to be gained, is
   negligible.

References: Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepregress.disk.arrow import Arrow, ArrowFactor, Layout
from deepregress.errors import FitError
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Derivatives, Objective, positive_part

MAX_STEPS = 200
MAX_HALVINGS = 40
MAX_DOUBLINGS = 2
SLOW, SLOW_STEPS = 0.5, 5
"""Ratio of two decrements from which a step is too short, and how many in a row make it so:
Newton's fall quadratically, those with the positive part of W, which is too curved far from the
maximum, need not fall at all."""
DECREMENT = 1e-10
"""Log-likelihood still to be gained at which Newton stops: about 1e-5 standard errors."""
RIDGE = 1e-8
"""Relative size of the first ridge for a singular P; it grows tenfold until P factors."""
LARGEST_RIDGE = 1e12
"""Of a P that is made of numbers a far smaller one is enough."""
NOT_FINITE = (
    "the derivatives of the log-likelihood are not finite: the response, a covariate or a weight "
    "is too large or too small for floating-point numbers; change its unit"
)


@dataclass(frozen=True)
class TotalPenalty:
    """The penalty 1/2 coef' S coef of all terms together, S = E' E + diag(weights).

    Its value is taken as 1/2 |E coef|^2: where a smoothing parameter is huge and the term straight,
    coef' S coef is the difference of huge numbers. E (rank, p) belongs to the dense part of S, the
    weights (n_coef,) to penalties that are diagonal.
    """

    S: Arrow
    E: Matrix
    weights: Vector

    def value(self, coef: Vector) -> float:
        """1/2 coef' S coef."""
        rough = self.E @ coef[self.S.layout.dense]
        return 0.5 * float(rough @ rough + self.weights @ coef**2)

    def gradient(self, coef: Vector) -> Vector:
        """S coef."""
        out = self.weights * coef
        dense = self.S.layout.dense
        out[dense] += self.E.T @ (self.E @ coef[dense])
        return np.asarray(out)


@dataclass(frozen=True)
class State:
    """A coefficient vector and the derivatives of the log-likelihood there."""

    coef: Vector
    at: Derivatives

    def penalised(self, penalty: TotalPenalty) -> float:
        """l - 1/2 coef' S coef."""
        return self.at.value - penalty.value(self.coef)


@dataclass(frozen=True)
class Maximum:
    """Where Newton ended."""

    state: State
    steps: int
    converged: bool


def evaluate(objective: Objective, coef: Vector) -> State:
    """The state at `coef`."""
    return State(coef, objective.derivatives(coef))


def curvature(
    objective: Objective, state: State, S: Arrow | None, layout: Layout
) -> tuple[Arrow, ArrowFactor]:
    """A positive definite H + S at the state and its factor, over the coefficients of a layout.

    Returns
    -------
    H : Arrow
        The negative Hessian, or what step 1 puts in its place.
    factor : ArrowFactor
        Of H + S.

    Raises
    ------
    FitError
        H is not finite.
    """
    penalty = None if S is None else S.restrict(layout)

    def factored(H: Arrow) -> ArrowFactor | None:
        return ArrowFactor.of(H if penalty is None else H + penalty)

    H = state.at.information.restrict(layout)
    factor = factored(H)
    if factor is None:
        convex = objective.derivatives(state.coef, convex=positive_part)
        H = convex.information.restrict(layout)
        factor = factored(H)
    ridge, size = RIDGE, np.abs(H.diagonal())
    scale = np.maximum(size, size.sum() / max(layout.size, 1) + np.finfo(float).tiny)
    while factor is None:
        if not ridge < LARGEST_RIDGE or not np.isfinite(scale).all():
            raise FitError(NOT_FINITE)
        ridged = H + Arrow.of_diagonal(layout, ridge * scale)
        factor = factored(ridged)
        H = ridged if factor is not None else H
        ridge *= 10.0
    return H, factor


def step_towards(
    objective: Objective, state: State, target: Vector, penalty: TotalPenalty
) -> tuple[State, bool]:
    """The furthest of target, half way, ... that does not lower the penalised likelihood.

    Returns
    -------
    state : State
    moved : bool
        False where no step was found; the state is then the old one.
    """
    before = state.penalised(penalty)
    # the sum over rows is known to rounding only: a fall below that is none
    slack = 1e-13 * (abs(state.at.value) + objective.n_obs)
    step = target - state.coef
    for _ in range(MAX_HALVINGS):
        trial = evaluate(objective, state.coef + step)
        if np.isfinite(trial.at.value) and trial.penalised(penalty) >= before - slack:
            return trial, True
        step = step / 2.0
    return state, False


def stretched(objective: Objective, before: State, state: State, penalty: TotalPenalty) -> State:
    """The best of the state and 2 and 4 times the step to it, while they rise."""
    step = 2.0 * (state.coef - before.coef)
    best = state.penalised(penalty)
    for _ in range(MAX_DOUBLINGS):
        trial = evaluate(objective, before.coef + step)
        value = trial.penalised(penalty)
        if not (np.isfinite(value) and value > best):
            break
        state, best, step = trial, value, 2.0 * step
    return state


def maximise(
    objective: Objective,
    state: State,
    penalty: TotalPenalty,
    *,
    free: Array,
    tolerance: float = DECREMENT,
    max_steps: int = MAX_STEPS,
) -> Maximum:
    """Penalised maximum likelihood over the coefficients `free`, the others held.

    Parameters
    ----------
    objective : Objective
    state : State
        Where to start.
    penalty : TotalPenalty
    free : array of int, (n_free,)
    tolerance : float
        Decrement at which to stop, log-likelihood units.
    """
    if not len(free):
        return Maximum(state, 0, converged=True)
    layout = objective.layout.restrict(free)
    last, slow = np.inf, 0
    for steps in range(max_steps):
        gradient = state.at.gradient - penalty.gradient(state.coef)
        _, factor = curvature(objective, state, penalty.S, layout)
        if not np.isfinite(gradient).all():
            raise FitError(NOT_FINITE)
        direction = factor.solve(gradient)
        decrement = 0.5 * float(gradient @ direction)
        if decrement < tolerance:
            return Maximum(state, steps, converged=True)
        before = state
        state, moved = step_towards(objective, before, before.coef + direction, penalty)
        if not moved:
            return Maximum(state, steps, converged=False)
        slow = slow + 1 if decrement > SLOW * last else 0
        if slow >= SLOW_STEPS:
            state = stretched(objective, before, state, penalty)
        last = decrement
    return Maximum(state, max_steps, converged=False)
