"""The network of a DRIFT model, fitted beside its coefficients (METHODS 8).

    maximise   l(w, coef) - 1/2 coef' S coef - 1/2 stiffness R(w) - 1/2 RIDGE |w - w_0|^2
    R(w) = sum_j (g_(j+1) - g_j)^2 / d_j,   g_j = log dphi/du

w are the free weights of `families.flow`; g is taken at quantiles of the response whose normal
scores are d_j apart, so that the penalty counts changes of slope where there are rows. R is zero
where phi is a straight line: the model without a transformation is the limit of a large stiffness.
The units of a general model have R(o_k) of their slopes, and their slopes themselves, in it.

1. Structured fit with phi(u) = u; its smoothing parameters give S.
2. Levenberg-Marquardt in (w, coef) together, S held: with r_i all that a row sees, the outputs of
   the network and the predictors, and W_i = -d2 l_i / dr_i2 made positive semi-definite,
   H = sum_i w_i (dr_i / d(w, coef))' W_i (dr_i / d(w, coef)),   P = H + penalties.
   On the way the stiffness goes to the fixed point of the restricted likelihood,
   stiffness = edf / R(w), edf = tr(P^-1 H) over w, as smoothing parameters do.
3. Structured fit at this network: smoothing parameters and S anew. Back to 2 until nothing is
   gained there.

Network and smoothing parameters are found in turn, which has several fixed points. So 2 and 3 are
gone through from several first stiffnesses, and for each base where that is to be chosen, and the
fit with the largest Laplace approximate marginal likelihood of network and coefficients is taken,

    V = V_structured - 1/2 stiffness R(w) - 1/2 RIDGE |w - w_0|^2 + 1/2 log |J' J|
        - 1/2 log |P_ww - P_wc P_cc^-1 P_cw|,

with the V that smoothing parameters maximise at a fixed network, and J the derivatives in w of the
residuals whose sum of squares the penalty is, so that J' J is the precision of the network's prior.

Standard errors allow for the network: its weights are profiled out of the information,
I = H_cc - H_cw (H_ww + penalty)^-1 H_wc. All steps are deterministic.

References: Kook et al. (2024), arXiv:2405.05429; Marquardt (1963), doi:10.1137/0111030;
Schraudolph (2002), doi:10.1162/08997660260028683 (generalised Gauss-Newton);
Schall (1991), doi:10.1093/biomet/78.4.719; MacKay (1992), doi:10.1162/neco.1992.4.3.415 (V as
evidence, its comparison between models).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.special
import tensorflow as tf

from deepregress.disk.arrow import Arrow
from deepregress.disk.scratch import parts
from deepregress.errors import FitError
from deepregress.families import kernels
from deepregress.families.flow import WIDTH, Flow, initial
from deepregress.families.flow_likelihood import Seen
from deepregress.families.neural import OUTCOMES, Drift
from deepregress.families.transformed import LOWER, SLOPE, inside
from deepregress.linalg import Array, Factor, Matrix, Vector, one_blas_thread
from deepregress.objective import Objective, Unit, positive_part
from deepregress.solvers.base import Solution, Status, StructuredSolver

FIRST = (10.0, 300.0, 0.3)
"""Stiffnesses to start from."""
STIFFEST, SOFTEST = 1e5, 1e-3
SETTLED = 0.1
"""Change of log stiffness that is none."""
LONGEST = 2.0
"""Largest change of log stiffness at once."""
RIDGE = 1e-2
"""On all free weights: costs nothing to see, and leaves none without curvature."""
UNIT_RIDGE = 0.01
"""On the squared slopes of the units of a general model, over the response."""
PLACES = 200
"""Quantiles at which the slope is looked at."""
STEPS, ROUNDS, STIFFNESS_ROUNDS = 200, 20, 2
NEAR = 0.5
"""Gain of a step, log-likelihood units, from which on the stiffness follows."""
GAIN = 5e-3
"""Gain of a step that counts; `STALLED` steps without it are the end."""
STALLED = 3
ROUND_GAIN = 0.2
"""Gain of a round that is worth another."""
SPARSE_ROUNDS, NETWORK_ROUNDS = 4, 1
"""Beside sparse terms and networks the two are fitted in turn, so many times more."""
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9


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
    family = _drift(objective)
    first, *others = FIRST if family.stiffness is None else (family.stiffness,)
    starts = [_Start.of(objective, base, structured) for base in family.bases or (family.base,)]
    found = [start.in_turn(first) for start in starts]
    place = max(range(len(found)), key=lambda k: found[k].V)
    best = found[place]
    for stiffness in others:
        other = starts[place].in_turn(stiffness)
        # a fixed point is known to so much
        if other.V > best.V + ROUND_GAIN:
            best = other
    return best.objective, Profiled(structured, best.converged)


@dataclass(frozen=True, eq=False)
class _Fixed:
    """A fixed point of steps 2 and 3, and V there."""

    objective: Objective
    converged: bool
    V: float


@dataclass(frozen=True, eq=False)
class _Start:
    """Step 1 for one base."""

    objective: Objective
    structured: StructuredSolver
    solution: Solution

    @classmethod
    def of(cls, objective: Objective, base: str, structured: StructuredSolver) -> _Start:
        family = replace(_drift(objective), base=base, bases=())
        objective = replace(objective, family=family)
        return cls(objective, structured, structured(objective))

    def in_turn(self, stiffness: float) -> _Fixed:
        """Steps 2 and 3 from a first stiffness, which stays where the family has its own."""
        objective, solution, converged = self.objective, self.solution, False
        estimated = _drift(objective).stiffness is None
        family = replace(_drift(objective), stiffness=stiffness)
        objective = replace(objective, family=family)
        for number in range(ROUNDS):
            problem = _Problem.of(objective, solution.S)
            before = problem.at(_drift(objective).flow, solution.coef).value
            settling = estimated and number < STIFFNESS_ROUNDS
            state, family = _fit(problem, solution.coef, settling=settling)
            objective = replace(objective, family=family)
            converged = state.value - before < ROUND_GAIN and not settling
            solution = self.structured(objective, state.coef)
            if converged:
                break
        return _Fixed(objective, converged, _marginal(objective, solution))


def _marginal(objective: Objective, solution: Solution) -> float:
    """V of network and coefficients, log-likelihood units."""
    family = _drift(objective)
    problem, n_w = _Problem.of(objective, solution.S), len(family.flow.free)
    state = problem.at(family.flow, solution.coef)
    with one_blas_thread():
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
    problem = _Problem.of(replace(objective, units=units), np.zeros((len(coef), len(coef))))
    _, family = _fit(problem, coef, settling=_drift(objective).stiffness is None)
    return replace(objective, family=family)


def further_rounds(objective: Objective, *, sparse: bool, networks: bool) -> int:
    """How often network and predictors are fitted in turn where they are not fitted together.

    Raises
    ------
    FitError
        The base is to be chosen, which needs a marginal likelihood, beside sparse terms.
    """
    if not learns(objective):
        return 0
    if sparse and _drift(objective).bases:
        raise FitError("drift(base='auto') is not chosen beside sparse terms: name a base")
    return NETWORK_ROUNDS if networks else SPARSE_ROUNDS if sparse else 0


def _drift(objective: Objective) -> Drift:
    family = objective.family
    if not isinstance(family, Drift):
        raise TypeError(f"{family.name!r} has no network of the response")
    return family


# -- 2. Levenberg-Marquardt ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _State:
    """A network, coefficients, and what they are worth."""

    flow: Flow
    coef: Vector
    loglik: float
    value: float


@dataclass(frozen=True, eq=False)
class _Problem:
    """Network and coefficients of an objective at fixed penalties."""

    objective: Objective
    S: Matrix = field(repr=False)
    family: Drift
    seen: Seen
    start: Vector
    """Free weights w_0."""

    @classmethod
    def of(cls, objective: Objective, S: Matrix) -> _Problem:
        objective, family = objective.densely(), _drift(objective)
        start = initial(np.random.default_rng(family.seed), outputs=1 + family.units)
        return cls(objective, S, family, family.seen(objective.response.rows()), start)

    @property
    def stiffness(self) -> float:
        """Of the penalty."""
        return FIRST[0] if self.family.stiffness is None else self.family.stiffness

    def settled(self, state: _State, H: Matrix, penalty: Matrix) -> tuple[_Problem, float]:
        """The problem at edf / R(w), and by how much the log stiffness has moved."""
        edf = _network_edf(H, penalty, len(state.flow.free))
        n_ridge = len(state.flow.free)
        rough = self.roughness(state.flow)[n_ridge:]
        R = float(rough @ rough) / self.stiffness
        best = np.clip(edf / max(R, edf / STIFFEST), SOFTEST, STIFFEST)
        moved = float(np.clip(np.log(best / self.stiffness), -LONGEST, LONGEST))
        family = replace(self.family, stiffness=float(self.stiffness * np.exp(moved)))
        return replace(self, family=family), abs(moved)

    def flow(self) -> Flow:
        """The network to start from: that of the family, or new weights."""
        own = self.family.flow
        return own if own.width else replace(own, free=self.start, width=WIDTH)

    @cached_property
    def places(self) -> tuple[Vector, Vector]:
        """Quantiles of the response, units of u, (m,), and normal scores between them (m - 1,)."""
        response, family = self.objective.response, self.family
        y, weights = response.y, response.weights
        known = np.isfinite(y) & inside(y, family.bounds, discrete=family.discrete)
        values, index = np.unique(y[known], return_inverse=True)
        share = np.bincount(index, weights[known]) / weights[known].sum()
        # between values that occur, too: nothing is free there
        middle = scipy.special.ndtri(np.cumsum(share) - 0.5 * share)
        scores = np.linspace(middle[0], middle[-1], PLACES)
        if family.discrete:
            values = np.maximum(values - 0.5, family.bounds[0])
        places = np.interp(scores, middle, values)
        return OUTCOMES[family.outcome].scale.u(tf.constant(places)).numpy(), np.diff(scores)

    def roughness(self, flow: Flow) -> Vector:
        """Residuals whose half sum of squares is the penalty, (n_residuals,)."""
        if not flow.width:
            return np.zeros(0)
        places, stiff, size = self._scales
        residuals = [np.sqrt(RIDGE) * (flow.free - self.start)]
        residuals.append(stiff * np.diff(np.log(flow.phi(places)[1])))
        if self.family.units:
            for o in (flow.features(places)[1] * flow.spread).T:
                residuals += [stiff * np.diff(o), size * o]
        return np.concatenate(residuals)

    def roughness_jacobian(self, flow: Flow) -> Matrix:
        """Derivatives of `roughness` in w, (n_residuals, n_w)."""
        if not flow.width:
            return np.zeros((0, 0))
        places, stiff, size = self._scales
        slope = flow.jacobian(places)[1]
        of_log = slope[:, 0] / flow.phi(places)[1][:, None]
        jacobian = [np.sqrt(RIDGE) * np.eye(len(flow.free))]
        jacobian.append(stiff[:, None] * np.diff(of_log, axis=0))
        for k in range(1, 1 + self.family.units):
            o = slope[:, k] * flow.spread
            jacobian += [stiff[:, None] * np.diff(o, axis=0), size[:, None] * o]
        return np.concatenate(jacobian)

    @property
    def _scales(self) -> tuple[Vector, Vector, Vector]:
        """Places, and what multiplies changes between them and units at them."""
        places, d = self.places
        return places, np.sqrt(self.stiffness / d), np.sqrt(UNIT_RIDGE * np.append(d, d[-1]))

    def at(self, flow: Flow, coef: Vector) -> _State:
        """The value of a network and coefficients."""
        family = replace(self.family, flow=flow)
        eta = self.objective.eta(coef)
        rowwise = family.row_log_likelihood(self.objective.response.rows(), eta)
        loglik = float(self.objective.response.weights @ rowwise)
        rough = self.roughness(flow)
        value = loglik - 0.5 * float(coef @ self.S @ coef) - 0.5 * float(rough @ rough)
        return _State(flow, coef, loglik, value)

    def model(self, state: _State, *, convex: bool = True) -> tuple[Vector, Matrix, Matrix]:
        """Gradient, H of the log-likelihood and the penalty, in (w, coef).

        `convex`: with the positive part of each W_i.
        """
        n_w, objective = len(state.flow.free), self.objective
        n = n_w + objective.n_coef
        gradient, H, penalty = np.zeros(n), np.zeros((n, n)), np.zeros((n, n))
        for rows in parts(objective.n_obs, kernels.CHUNK):
            self._add(state, rows, gradient, H, convex=convex)
        rough, slope = self.roughness(state.flow), self.roughness_jacobian(state.flow)
        penalty[:n_w, :n_w] = slope.T @ slope
        penalty[n_w:, n_w:] = self.S
        gradient[:n_w] -= slope.T @ rough
        gradient[n_w:] -= self.S @ state.coef
        return gradient, H, penalty

    def _add(
        self, state: _State, rows: slice, gradient: Vector, H: Matrix, *, convex: bool
    ) -> None:
        """Add the gradient and H of some rows."""
        objective, seen = self.objective, self._seen(rows)
        family = replace(self.family, flow=state.flow)
        outputs = family.seen_outputs(seen)
        eta = np.column_stack(
            [u.X[rows] @ state.coef[s] + u.offset[rows] for u, s in _units(objective)]
        )
        r = np.hstack([outputs, eta])
        _, g, W = kernels.in_chunks(kernels.derivatives, seen.joint, seen.flags, (r,))
        weights, m = objective.response.weights[rows], seen.joint.n_seen
        W = positive_part(W) if convex else W
        g, W = g * weights[:, None], _full(W) * weights[:, None, None]
        n_w = len(state.flow.free)
        J = _outputs_jacobian(family, seen) if n_w else np.zeros((len(r), m, 0))
        flat = J.reshape(-1, n_w)
        gradient[:n_w] += flat.T @ g[:, :m].ravel()
        H[:n_w, :n_w] += flat.T @ (W[:, :m, :m] @ J).reshape(-1, n_w)
        for u, (unit, own) in enumerate(_units(objective)):
            X, at = unit.X[rows], slice(n_w + own.start, n_w + own.stop)
            gradient[at] += X.T @ g[:, m + u]
            cross = np.einsum("na,naf->nf", W[:, :m, m + u], J).T @ X
            H[:n_w, at] += cross
            H[at, :n_w] += cross.T
            for v, (other, its) in enumerate(_units(objective)):
                there = slice(n_w + its.start, n_w + its.stop)
                H[at, there] += X.T @ (W[:, m + u, m + v][:, None] * other.X[rows])

    def _seen(self, rows: slice) -> Seen:
        # places that are the same stay so
        cut = {id(y): y[rows] for y in self.seen.places.values()}
        places = {name: cut[id(y)] for name, y in self.seen.places.items()}
        return Seen(self.seen.joint, {k: v[rows] for k, v in self.seen.flags.items()}, places)


def _units(objective: Objective) -> list[tuple[Unit, slice]]:
    return list(zip(objective.units, objective.slices, strict=True))


def _outputs_jacobian(family: Drift, seen: Seen) -> Array:
    """Derivatives of `seen_outputs` in the free weights, (n_obs, n_seen, n_free)."""
    scale = OUTCOMES[family.outcome].scale
    columns: list[Array] = []
    for name, y in seen.places.items():
        u, du = scale.u(tf.constant(y)).numpy(), scale.slope(tf.constant(y)).numpy()
        # exact rows see values and slopes at one place
        if name != SLOPE or y is not seen.places[LOWER]:
            value, slope = family.flow.jacobian(u)
        columns.append(slope * du[:, None, None] if name == SLOPE else value)
    return np.concatenate(columns, axis=1)


def _full(packed: Matrix) -> Array:
    """Symmetric matrices (n, M, M) of packed ones."""
    size = int((np.sqrt(8 * packed.shape[1] + 1) - 1) / 2)
    k, m = np.triu_indices(size)
    full = np.empty((len(packed), size, size))
    full[:, k, m] = full[:, m, k] = packed
    return full


def _fit(problem: _Problem, coef: Vector, *, settling: bool) -> tuple[_State, Drift]:
    """Step 2, from the network of the family or new weights; `settling`: the stiffness, too."""
    with one_blas_thread():
        state = problem.at(problem.flow(), coef)
        damping, stalled = DAMPING, 0
        for _ in range(STEPS):
            gradient, H, penalty = problem.model(state)
            state, gain, damping = _step(problem, state, gradient, H + penalty, damping)
            moved = 0.0
            if settling and gain < NEAR:
                problem, moved = problem.settled(state, H, penalty)
                state = problem.at(state.flow, state.coef)
            stalled = stalled + 1 if gain < GAIN and moved < SETTLED else 0
            if stalled == STALLED or damping > MOST_DAMPING:
                break
    stiffness = problem.stiffness
    edf = _network_edf(H, penalty, len(state.flow.free))
    family = replace(problem.family, flow=state.flow, stiffness=stiffness, fitted_edf=edf)
    return state, family


def _network_edf(H: Matrix, penalty: Matrix, n_w: int) -> float:
    """tr(P^-1 H) over the weights of the network."""
    factor = scipy.linalg.cho_factor(H + penalty)
    return float(np.trace(scipy.linalg.cho_solve(factor, H)[:n_w, :n_w]))


def _step(
    problem: _Problem, state: _State, gradient: Vector, P: Matrix, damping: float
) -> tuple[_State, float, float]:
    """The state after a step that gains, what it gains, and the next damping."""
    diagonal = np.maximum(np.diagonal(P), 1e-12 * float(np.diagonal(P).max()))
    n_w = len(state.flow.free)
    while damping <= MOST_DAMPING:
        damped = P.copy()
        damped[np.diag_indices_from(damped)] += damping * diagonal
        step = scipy.linalg.solve(damped, gradient, assume_a="pos")
        flow = replace(state.flow, free=state.flow.free + step[:n_w])
        trial = problem.at(flow, state.coef + step[n_w:])
        if np.isfinite(trial.value) and trial.value >= state.value:
            return trial, trial.value - state.value, max(damping / 5.0, LEAST_DAMPING)
        damping *= 4.0
    return state, 0.0, damping


# -- The network's share of the information ---------------------------------------------------


def _profiled(objective: Objective, solution: Solution) -> Solution:
    """The solution with the network profiled out of its information.

    Where coefficients are kept by level their errors are those given the network.
    """
    family = _drift(objective)
    n_w = len(family.flow.free)
    if not n_w or not solution.information.layout.entire:
        return solution
    problem = _Problem.of(objective, solution.S)
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
