"""The network of a DRIFT model, fitted beside its coefficients (METHODS 8).

1. Structured fit with phi(u) = u; its smoothing parameters give S.
2. Transformation, coefficients and stiffness at this S (module `flow_problem`).
3. Structured fit at this transformation: smoothing parameters and S anew. Back to 2 until nothing
   is gained there.

2 and 3 are gone through first with a curve, for each base where that is to be chosen, then with a
network that starts near it (module `flow_start`). What is taken has the largest Laplace approximate
marginal likelihood of transformation and coefficients,

    V = V_structured - 1/2 stiffness R(w) - 1/2 RIDGE |w - w_0|^2 + 1/2 log |J' J|
        - 1/2 log |P_ww - P_wc P_cc^-1 P_cw|,

with the V that smoothing parameters maximise at a fixed transformation, and J the derivatives in w
of the residuals whose sum of squares the penalty is, so that J' J is the precision of the prior of
w. A network may have several fixed points. Where it reaches the V of the curve, within `SHORT`,
that is all there is to be had; where it does not, and in general models, which have no curve, it
starts from new weights and several stiffnesses, too.

Standard errors allow for the network: its weights are profiled out of the information,
I = H_cc - H_cw (H_ww + penalty)^-1 H_wc.

References: Kook et al. (2024), arXiv:2405.05429; MacKay (1992), doi:10.1162/neco.1992.4.3.415 (V as
evidence, its comparison between models).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deepregress.deep.flow_problem import STIFFNESS, Problem, drift_of, fitted
from deepregress.deep.flow_start import with_curve, with_network
from deepregress.disk.arrow import Arrow
from deepregress.errors import FitError
from deepregress.families.neural import Drift
from deepregress.linalg import Factor, Matrix, Vector, one_blas_thread
from deepregress.objective import Objective, Unit
from deepregress.solvers.base import Solution, Status, StructuredSolver

FIRST = (STIFFNESS, 300.0, 0.3)
"""Stiffnesses that new weights start from."""
ROUNDS, STIFFNESS_ROUNDS = 20, 2
LOST = 2
"""Rounds one after the other in which step 3 finds no maximum: there is no fixed point."""
ROUND_GAIN = 0.2
"""Gain of a round that is worth another, for each 1,000 rows of more."""
RIDGES = (1e-2, 1e-3)
"""Of a network that is brought near a curve: how far its weights may go for it."""
SHORT = 2.0
"""Of the marginal likelihood of a curve, from which on a network has not reached it."""
SPARSE_ROUNDS, NETWORK_ROUNDS = 4, 1
"""Beside sparse terms and networks the two are fitted in turn, so many times more."""


def learns(objective: Objective) -> bool:
    """Whether the family has a network of the response that is to be fitted."""
    return isinstance(objective.family, Drift) and not objective.family.fixed


@dataclass(frozen=True)
class Profiled:
    """A structured solver whose information allows for the network of the response.

    Parameters
    ----------
    structured : StructuredSolver
    converged : bool
        Whether the network has.
    """

    structured: StructuredSolver
    converged: bool

    def __call__(self, objective: Objective, start: Vector | None = None) -> Solution:
        """Fit `objective` with the network as it is."""
        solution = self.structured(objective, start)
        if not self.converged:
            message = "the network of the transformation has not converged"
            solution = replace(solution, status=Status(False, message, solution.status.warning))
        return _profiled(objective, solution)


def joint(objective: Objective, structured: StructuredSolver) -> tuple[Objective, Profiled]:
    """Steps 1 to 3: the objective with its fitted network, and the solver to use there.

    Parameters
    ----------
    objective : Objective
        Its family is a `Drift` whose network is to be fitted.
    structured : StructuredSolver
    """
    family = drift_of(objective)
    starts = [_Start.of(objective, base, structured) for base in family.bases or (family.base,)]
    found = [start.first() for start in starts]
    place = max(range(len(found)), key=lambda k: found[k].V)
    best = starts[place].near(found[place])
    if best.short and not best.astray:
        for stiffness in FIRST if family.stiffness is None else (family.stiffness,):
            best = best.or_better(starts[place].unguided(stiffness))
    return best.objective, Profiled(structured, best.converged)


@dataclass(frozen=True, eq=False)
class _Fixed:
    """A fixed point of steps 2 and 3, V there, and whether another may have more.

    `astray`: it is none, as step 3 finds no maximum.
    """

    objective: Objective
    solution: Solution
    converged: bool
    V: float
    short: bool = False
    astray: bool = False

    def or_better(self, other: _Fixed) -> _Fixed:
        """The one with the larger V, which is known to `ROUND_GAIN`."""
        return other if other.V > self.V + ROUND_GAIN else self


@dataclass(frozen=True, eq=False)
class _Start:
    """Step 1 for one base."""

    objective: Objective
    structured: StructuredSolver
    solution: Solution

    @classmethod
    def of(cls, objective: Objective, base: str, structured: StructuredSolver) -> _Start:
        family = replace(drift_of(objective), base=base, bases=())
        objective = replace(objective, family=family)
        return cls(objective, structured, structured(objective))

    @property
    def estimated(self) -> bool:
        """Whether the stiffness is."""
        return drift_of(self.objective).stiffness is None

    def first(self) -> _Fixed:
        """Steps 2 and 3 with a curve; of a general model with a network."""
        if drift_of(self.objective).units:
            return replace(self.unguided(self._first), short=self.estimated)
        return self._in_turn(with_curve(self._at(self._first)), self.solution)

    def near(self, curve: _Fixed) -> _Fixed:
        """Steps 2 and 3 with a network near a curve; what has none or went astray as it is."""
        if drift_of(self.objective).units or curve.astray:
            return curve
        best = self._from_near(curve, RIDGES[0])
        if best.V < curve.V - SHORT:
            best = best.or_better(self._from_near(curve, RIDGES[1]))
        return replace(best, short=best.V < curve.V - SHORT)

    def _from_near(self, curve: _Fixed, ridge: float) -> _Fixed:
        network = with_network(curve.objective, curve.solution.coef, ridge=ridge)
        return self._in_turn(network, curve.solution)

    def unguided(self, stiffness: float) -> _Fixed:
        """Steps 2 and 3 from new weights and a first stiffness."""
        return self._in_turn(with_network(self._at(stiffness)), self.solution)

    @property
    def _first(self) -> float:
        own = drift_of(self.objective).stiffness
        return STIFFNESS if own is None else own

    def _at(self, stiffness: float) -> Objective:
        family = replace(drift_of(self.objective), stiffness=stiffness)
        return replace(self.objective, family=family)

    def _in_turn(self, objective: Objective, solution: Solution) -> _Fixed:
        converged, lost = False, 0
        for number in range(ROUNDS):
            problem = Problem.of(objective, solution.S)
            before = problem.at(problem.family.flow, solution.coef).value
            settling = self.estimated and number < STIFFNESS_ROUNDS
            state, family = fitted(problem, solution.coef, settling=settling)
            objective = replace(objective, family=family)
            gain = state.value - before
            converged = gain < ROUND_GAIN * problem.size and not settling
            solution = self.structured(objective, state.coef)
            lost = 0 if solution.status.converged else lost + 1
            if converged or lost == LOST:
                break
        V = _marginal(objective, solution)
        return _Fixed(objective, solution, converged, V, astray=lost == LOST)


def _marginal(objective: Objective, solution: Solution) -> float:
    """V of network and coefficients, log-likelihood units."""
    family = drift_of(objective)
    problem, n_w = Problem.of(objective, solution.S), len(family.flow.free)
    state = problem.at(family.flow, solution.coef)
    with one_blas_thread(), np.errstate(all="ignore"):
        _, H, penalty = problem.model(state)
        P, rough = H + penalty, problem.roughness(family.flow)
        parts = (penalty[:n_w, :n_w], P, P[n_w:, n_w:])
        prior, both, coefficients = (float(np.linalg.slogdet(each)[1]) for each in parts)
    fall = 0.5 * float(rough @ rough)
    return 0.5 * (prior - both + coefficients) - fall - solution.reml


def refitted(objective: Objective, eta: Matrix) -> Objective:
    """The objective with its network fitted at predictors eta (n_obs, U), up to their scale.

    loc may move as a + b loc, the others by constants.
    """
    ones = np.ones((objective.n_obs, 1))
    columns = [np.column_stack([ones, eta[:, 0]]), *[ones] * (eta.shape[1] - 1)]
    offsets = [np.zeros(objective.n_obs), *eta.T[1:]]
    units = tuple(Unit(X, offset) for X, offset in zip(columns, offsets, strict=True))
    coef = np.array([0.0, 1.0, *[0.0] * (eta.shape[1] - 1)])
    narrow, S = replace(objective, units=units), np.zeros((len(coef), len(coef)))
    settling = drift_of(objective).stiffness is None
    if drift_of(narrow).flow.straight:
        state, family = fitted(Problem.of(with_curve(narrow), S), coef, settling=settling)
        narrow, coef = with_network(replace(narrow, family=family), state.coef), state.coef
    _, family = fitted(Problem.of(narrow, S), coef, settling=settling)
    return replace(objective, family=family)


def check_base(objective: Objective, *, sparse: bool) -> None:
    """Refuse a base that is to be chosen, which needs a marginal likelihood, beside sparse terms.

    Raises
    ------
    FitError
    """
    if sparse and learns(objective) and drift_of(objective).bases:
        raise FitError("drift(base='auto') is not chosen beside sparse terms: name a base")


def further_rounds(objective: Objective, *, sparse: bool, networks: bool) -> int:
    """How often network and predictors are fitted in turn where they are not fitted together."""
    if not learns(objective):
        return 0
    return NETWORK_ROUNDS if networks else SPARSE_ROUNDS if sparse else 0


# -- The network's share of the information ---------------------------------------------------


def _profiled(objective: Objective, solution: Solution) -> Solution:
    """The solution with the network profiled out of its information.

    Where coefficients are kept by level their errors are those given the network.
    """
    family = drift_of(objective)
    n_w = len(family.flow.free)
    if not n_w or not solution.information.layout.entire:
        return solution
    problem = Problem.of(objective, solution.S)
    state = problem.at(family.flow, solution.coef)
    # the positive part of W says too much; it is for places where H itself is not positive definite
    for convex in (False, True):
        _, H, penalty = problem.model(state, convex=convex)
        information = _schur(H, penalty, n_w)
        if information is not None:
            return replace(solution, information=Arrow.dense(information))
    return solution


def _schur(H: Matrix, penalty: Matrix, n_w: int) -> Matrix | None:
    """I, the coefficients' part of H without that of the network; None where it is not positive."""
    P = H + penalty
    factor = Factor.of(P[:n_w, :n_w])
    if factor is None:
        return None
    cross = P[:n_w, n_w:]
    information = H[n_w:, n_w:] - cross.T @ factor.solve(cross)
    information = 0.5 * (information + information.T)
    return None if Factor.of(information + penalty[n_w:, n_w:]) is None else information
