"""Transformation and coefficients of a DRIFT model at fixed smoothing parameters (METHODS 8).

    maximise   l(w, coef) - 1/2 coef' S coef - 1/2 stiffness R(w) - 1/2 RIDGE |w - w_0|^2
    R(w) = sum_j (g_(j+1) - g_j)^2 / d_j,   g_j = log dphi/du

w are the free weights of a `families.flow.Transformation`; g is taken at quantiles of the response
whose normal scores are d_j apart, so that the penalty counts changes of slope where there are rows.
R is zero where phi is a straight line: the model without a transformation is the limit of a large
stiffness. The units of a general model have R(o_k) of their slopes, and their slopes themselves, in
it.

Levenberg-Marquardt in (w, coef) together: with r_i all that a row sees, the outputs of the
transformation and the predictors, and W_i = -d2 l_i / dr_i2 made positive semi-definite,

    H = sum_i w_i (dr_i / d(w, coef))' W_i (dr_i / d(w, coef)),   P = H + penalties.

Rows at one place of the response share its derivatives, before which they are summed. On the way
the stiffness goes to the fixed point of the restricted likelihood, stiffness = edf / R(w),
edf = tr(P^-1 H) over w, as smoothing parameters do. All steps are deterministic.

References: Kook et al. (2024), arXiv:2405.05429; Marquardt (1963), doi:10.1137/0111030;
Schraudolph (2002), doi:10.1162/08997660260028683 (generalised Gauss-Newton);
Schall (1991), doi:10.1093/biomet/78.4.719.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse
import scipy.special
import tensorflow as tf

from deepregress.disk.scratch import parts
from deepregress.errors import FitError
from deepregress.families import kernels
from deepregress.families.flow import Flow, Transformation, initial
from deepregress.families.flow_likelihood import Given, Seen
from deepregress.families.neural import OUTCOMES, Drift
from deepregress.families.transformed import LOWER, SLOPE, inside
from deepregress.linalg import Array, Factor, Matrix, Vector, one_blas_thread
from deepregress.objective import Objective, Unit, positive_part

STIFFNESS = 10.0
"""To start from."""
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
STEPS = 200
NEAR = 0.5
"""Gain of a step, log-likelihood units, from which on the stiffness follows."""
GAIN = 1e-3
"""Gain of a step that counts; `STALLED` steps without it are the end."""
MANY = 1000.0
"""Rows up to which a gain counts as it is; of more rows, for each so many."""
STALLED = 3
DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9


@dataclass(frozen=True, eq=False)
class State:
    """A transformation, coefficients, and what they are worth."""

    flow: Transformation
    coef: Vector
    loglik: float
    value: float


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows, and the places of the response among them.

    Parameters
    ----------
    rows : slice
    flags : dict of str to array
    distinct : Seen
        The places, each once.
    index : array, (n_rows,)
        Which of them each row has.
    """

    rows: slice
    flags: Mapping[str, Array]
    distinct: Seen
    index: Array

    @classmethod
    def of(cls, seen: Seen, rows: slice) -> _Rows:
        # places that are the same stay so
        cut = {id(y): y[rows] for y in seen.places.values()}
        several = np.column_stack(list(cut.values()))
        distinct, index = np.unique(several, axis=0, return_inverse=True)
        once = dict(zip(cut, distinct.T, strict=True))
        places = {name: once[id(y)] for name, y in seen.places.items()}
        flags = {name: flag[rows] for name, flag in seen.flags.items()}
        return cls(rows, flags, Seen(seen.joint, {}, places), index.ravel())

    @cached_property
    def _summing(self) -> scipy.sparse.csr_matrix:
        n, ones = len(self.index), np.ones(len(self.index))
        shape = (int(self.index.max()) + 1, n)
        return scipy.sparse.csr_matrix((ones, (self.index, np.arange(n))), shape=shape)

    def sums(self, values: Array) -> Array:
        """Sums of values (n_rows, ...) over the rows of each place, (n_places, ...)."""
        flat = self._summing @ values.reshape(len(values), -1)
        return np.asarray(flat).reshape(-1, *values.shape[1:])


@dataclass(frozen=True, eq=False)
class Problem:
    """Transformation and coefficients of an objective at fixed penalties."""

    objective: Objective
    S: Matrix = field(repr=False)
    family: Drift
    chunks: tuple[_Rows, ...] = field(repr=False)
    places: tuple[Vector, Vector]
    """Quantiles of the response (m,), and normal scores between them (m - 1,)."""
    start: Vector
    """Free weights w_0."""

    @classmethod
    def of(cls, objective: Objective, S: Matrix) -> Problem:
        """That of the transformation of the objective's family, with penalty S (n_coef, n_coef)."""
        objective, family = objective.densely(), drift_of(objective)
        seen = family.seen(objective.response.rows())
        size = kernels.CHUNK
        chunks = tuple(_Rows.of(seen, rows) for rows in parts(objective.n_obs, size))
        places, scores = places_of(objective)
        flow = family.flow
        start = first_weights(family) if isinstance(flow, Flow) else np.zeros(len(flow.free))
        return cls(objective, S, family, chunks, (places, np.diff(scores)), start)

    @property
    def stiffness(self) -> float:
        """Of the penalty."""
        return STIFFNESS if self.family.stiffness is None else self.family.stiffness

    @property
    def size(self) -> float:
        """What gains are measured by: 1 for `MANY` rows and less."""
        return max(float(self.objective.response.weights.sum()) / MANY, 1.0)

    def settled(self, state: State, H: Matrix, penalty: Matrix) -> tuple[Problem, float]:
        """The problem at edf / R(w), and by how much the log stiffness has moved."""
        edf = _edf(H, penalty, len(state.flow.free))
        n_ridge = len(state.flow.free)
        rough = self.roughness(state.flow)[n_ridge:]
        R = float(rough @ rough) / self.stiffness
        best = np.clip(edf / max(R, edf / STIFFEST), SOFTEST, STIFFEST)
        moved = float(np.clip(np.log(best / self.stiffness), -LONGEST, LONGEST))
        family = replace(self.family, stiffness=float(self.stiffness * np.exp(moved)))
        return replace(self, family=family), abs(moved)

    def roughness(self, flow: Transformation) -> Vector:
        """Residuals whose half sum of squares is the penalty, (n_residuals,)."""
        if flow.straight:
            return np.zeros(0)
        places, stiff, size = self._scales
        residuals = [np.sqrt(RIDGE) * (flow.free - self.start)]
        residuals.append(stiff * np.diff(np.log(flow.phi(places)[1])))
        if self.family.units:
            for o in (flow.features(places)[1] * flow.spread).T:
                residuals += [stiff * np.diff(o), size * o]
        return np.concatenate(residuals)

    def roughness_jacobian(self, flow: Transformation) -> Matrix:
        """Derivatives of `roughness` in w, (n_residuals, n_w)."""
        if flow.straight:
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

    def at(self, flow: Transformation, coef: Vector) -> State:
        """The value of a transformation and coefficients."""
        family, loglik = replace(self.family, flow=flow), 0.0
        for chunk in self.chunks:
            own = {**chunk.flags, "seen": family.seen_outputs(chunk.distinct)[chunk.index]}
            given, eta = Given(chunk.distinct.joint), self._eta(chunk.rows, coef)
            rowwise = kernels.in_chunks(kernels.value, given, own, (eta,))[0]
            loglik += float(self.objective.response.weights[chunk.rows] @ rowwise)
        rough = self.roughness(flow)
        value = loglik - 0.5 * float(coef @ self.S @ coef) - 0.5 * float(rough @ rough)
        return State(flow, coef, loglik, value)

    def model(self, state: State, *, convex: bool = True) -> tuple[Vector, Matrix, Matrix]:
        """Gradient, H of the log-likelihood and the penalty, in (w, coef).

        `convex`: with the positive part of each W_i.
        """
        n_w, objective = len(state.flow.free), self.objective
        n = n_w + objective.n_coef
        gradient, H, penalty = np.zeros(n), np.zeros((n, n)), np.zeros((n, n))
        for chunk in self.chunks:
            self._add(state, chunk, gradient, H, convex=convex)
        rough, slope = self.roughness(state.flow), self.roughness_jacobian(state.flow)
        penalty[:n_w, :n_w] = slope.T @ slope
        penalty[n_w:, n_w:] = self.S
        gradient[:n_w] -= slope.T @ rough
        gradient[n_w:] -= self.S @ state.coef
        return gradient, H, penalty

    def _add(
        self, state: State, chunk: _Rows, gradient: Vector, H: Matrix, *, convex: bool
    ) -> None:
        """Add the gradient and H of some rows."""
        objective, rows, seen = self.objective, chunk.rows, chunk.distinct
        family = replace(self.family, flow=state.flow)
        r = np.hstack([family.seen_outputs(seen)[chunk.index], self._eta(rows, state.coef)])
        _, g, W = kernels.in_chunks(kernels.derivatives, seen.joint, chunk.flags, (r,))
        weights, m = objective.response.weights[rows], seen.joint.n_seen
        W = positive_part(W) if convex else W
        g, W = g * weights[:, None], _full(W) * weights[:, None, None]
        n_w = len(state.flow.free)
        J = _outputs_jacobian(family, seen)
        flat = J.reshape(-1, n_w).T
        gradient[:n_w] += flat @ chunk.sums(g[:, :m]).ravel()
        H[:n_w, :n_w] += flat @ (chunk.sums(W[:, :m, :m]) @ J).reshape(-1, n_w)
        for u, (unit, own) in enumerate(_units(objective)):
            X, at = unit.X[rows], slice(n_w + own.start, n_w + own.stop)
            gradient[at] += X.T @ g[:, m + u]
            seen_beside = [chunk.sums(W[:, a, m + u][:, None] * X) for a in range(m)]
            cross = flat @ np.stack(seen_beside, axis=1).reshape(-1, X.shape[1])
            H[:n_w, at] += cross
            H[at, :n_w] += cross.T
            for v, (other, its) in enumerate(_units(objective)):
                there = slice(n_w + its.start, n_w + its.stop)
                H[at, there] += X.T @ (W[:, m + u, m + v][:, None] * other.X[rows])

    def _eta(self, rows: slice, coef: Vector) -> Matrix:
        return np.column_stack(
            [u.X[rows] @ coef[s] + u.offset[rows] for u, s in _units(self.objective)]
        )


def drift_of(objective: Objective) -> Drift:
    """The family of an objective.

    Raises
    ------
    TypeError
        It has no transformation of the response.
    """
    family = objective.family
    if not isinstance(family, Drift):
        raise TypeError(f"{family.name!r} has no network of the response")
    return family


def first_weights(family: Drift) -> Vector:
    """Free weights w_0 of a network, (n_free,)."""
    return initial(np.random.default_rng(family.seed), outputs=1 + family.units)


def places_of(objective: Objective) -> tuple[Vector, Vector]:
    """Quantiles of the response, units of u, and their normal scores, each (`PLACES`,)."""
    response, family = objective.response, drift_of(objective)
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
    return OUTCOMES[family.outcome].scale.u(tf.constant(places)).numpy(), scores


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


def fitted(problem: Problem, coef: Vector, *, settling: bool) -> tuple[State, Drift]:
    """The maximum from the transformation of the family; `settling`: the stiffness, too."""
    # far-off weights leave the floats, and a step that leads there is not taken
    with one_blas_thread(), np.errstate(all="ignore"):
        state = problem.at(problem.family.flow, coef)
        damping, stalled = DAMPING, 0
        for _ in range(STEPS):
            gradient, H, penalty = problem.model(state)
            state, gain, damping = _step(problem, state, gradient, H + penalty, damping)
            moved = 0.0
            if settling and gain < NEAR * problem.size:
                problem, moved = problem.settled(state, H, penalty)
                state = problem.at(state.flow, state.coef)
            stalled = stalled + 1 if gain < GAIN * problem.size and moved < SETTLED else 0
            if stalled == STALLED or damping > MOST_DAMPING:
                break
    edf = _edf(H, penalty, len(state.flow.free))
    family = replace(problem.family, flow=state.flow, stiffness=problem.stiffness, fitted_edf=edf)
    return state, family


def _edf(H: Matrix, penalty: Matrix, n_w: int) -> float:
    """tr(P^-1 H) over the weights of the transformation."""
    P = H + penalty
    # coefficients may determine each other to rounding
    for damping in (0.0, LEAST_DAMPING, np.sqrt(LEAST_DAMPING)):
        factor = Factor.of(P + np.diag(damping * np.diagonal(P)))
        if factor is not None:
            return float(np.trace(factor.solve(H)[:n_w, :n_w]))
    raise FitError("the transformation is not determined by the response")


def _step(
    problem: Problem, state: State, gradient: Vector, P: Matrix, damping: float
) -> tuple[State, float, float]:
    """The state after a step that gains, what it gains, and the next damping."""
    diagonal = np.maximum(np.diagonal(P), 1e-12 * float(np.diagonal(P).max()))
    n_w = len(state.flow.free)
    while damping <= MOST_DAMPING:
        damped = P.copy()
        damped[np.diag_indices_from(damped)] += damping * diagonal
        factor = Factor.of(damped)
        if factor is not None:
            step = factor.solve(gradient)
            flow = state.flow.at(state.flow.free + step[:n_w])
            trial = problem.at(flow, state.coef + step[n_w:])
            if np.isfinite(trial.value) and trial.value >= state.value:
                return trial, trial.value - state.value, max(damping / 5.0, LEAST_DAMPING)
        damping *= 4.0
    return state, 0.0, damping
