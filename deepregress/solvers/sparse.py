"""Penalised likelihood with sparse terms at given strengths, solved to its optimum (METHODS 6).

    minimise  -l(b) + 1/2 b' S b + penalty(c),     b = T c for the sparse coefficients

c are coefficients of columns with sd 1 (of whole groups: of an effect with sd |c_g|), l is on the
sum scale, S are the quadratic penalties. A dispersion and other constants in `held` stay put.

1. Working set: groups that are not zero, and those that violate the optimality conditions or soon
   may. On a path of least squares all, as one Q then serves every lam.
2. Newton on them: a quadratic model of l; the coefficients without a sparse penalty are projected
   out of it (what remains is Q = H_cc - H_cu P_uu^-1 H_uc), the rest is `quadratic.minimise`; the
   step is halved while the objective rises.
3. Converged when no group violates the conditions: the distance of the gradient from the
   subdifferential, over all groups, is the residual that is reported.
4. D > 2: all gates but one are held, which leaves step 1 to 3; then they follow (`outer_gates`).

Cross products of columns are made for working sets only and kept where they serve again (module
`likelihood`).

References: Poon & Peyre (2023), doi:10.1137/22M1496657 (projection); Friedman, Hastie & Tibshirani
(2010), doi:10.18637/jss.v033.i01 (working sets); Zou & Li (2008), doi:10.1214/009053607000000802
(step 4 is their local linear approximation); Tibshirani et al. (2012),
doi:10.1111/j.1467-9868.2011.01004.x (strong rule, who may soon violate them).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse

from deepregress.gating import GroupPenalty
from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.objective import Objective
from deepregress.solvers import quadratic
from deepregress.solvers.likelihood import Likelihood, Likelihoods, Projection

MAX_STEPS, MAX_HALVINGS, MAX_SETS, MAX_GATES = 100, 40, 200, 200
DECREMENT = 1e-9
"""Penalised log-likelihood still to be gained before the last Newton step."""
ROUNDING = 1e-13
"""Relative error of the objective that is rounding."""
STATIONARY = 1e-10
"""Distance from the optimality conditions, in units of the penalty, that counts as none."""
LEAST_SET = 50
"""Groups that may enter the working set at once, or as many as it has."""
SEMIDEFINITE = 1e-8
"""Ridge, relative to the mean diagonal of Q, with which a semi-definite Q has a Cholesky factor."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The sparse coefficients of all predictors, group after group.

    Parameters
    ----------
    index : Array of int, (n_sparse,)
        Their places in the joint coefficient vector.
    group : Array of int, (n_sparse,)
        Their groups, ascending from 0.
    T : csr_array, (n_sparse, n_sparse)
        b = T c, one block per group.
    R : csr_array, (n_sparse, n_sparse)
        c = R b.
    """

    index: Array
    group: Array
    T: scipy.sparse.csr_array
    R: scipy.sparse.csr_array

    @cached_property
    def scale(self) -> Vector | None:
        """The diagonal of T where each group is one coefficient, (n_sparse,)."""
        return self.T.diagonal() if self.group[-1] + 1 == len(self.group) else None

    def standardised(self, b: Vector) -> Vector:
        """c = R b, for b in their order."""
        return np.asarray(self.R @ b if self.scale is None else self._inverse * b)

    def original(self, c: Vector) -> Vector:
        """b = T c."""
        return np.asarray(self.T @ c if self.scale is None else self.scale * c)

    def pulled(self, gradient: Vector) -> Vector:
        """T' gradient: in c, from that in b."""
        return np.asarray(self.T.T @ gradient if self.scale is None else self.scale * gradient)

    @cached_property
    def _inverse(self) -> Vector:
        return np.asarray(self.R.diagonal())

    def times(self, M: Matrix, inside: Array) -> Matrix:
        """M T over some coefficients, whole groups, (k, m) for M (k, m)."""
        if self.scale is not None:
            return np.asarray(M * self.scale[inside])
        return np.asarray(M @ self.T[inside][:, inside])

    def both_sides(self, M: Matrix, inside: Array) -> Matrix:
        """T' M T of a symmetric M (m, m) over some coefficients, whole groups."""
        if self.scale is not None:
            scale = self.scale[inside]
            both = M * scale
            both *= scale[:, None]
            return np.asarray(both)
        return self.times(self.times(M, inside).T, inside)


@dataclass(frozen=True, eq=False)
class Penalised:
    """Everything in the objective at given strengths.

    Parameters
    ----------
    objective : Objective
    coordinates : Coordinates
    sparse : GroupPenalty
        On c.
    ridge : Vector, (n_sparse,)
        1/2 ridge c^2, of elastic nets.
    S : csr_array, (n_coef, n_coef)
        Of the quadratic penalties on b.
    free : Array of int
        Coefficients without a sparse penalty that are estimated.
    sizes : Vector, (n_free,)
        Root mean squares of their columns.
    """

    objective: Objective
    coordinates: Coordinates
    sparse: GroupPenalty
    ridge: Vector = field(repr=False)
    S: scipy.sparse.csr_array = field(repr=False)
    free: Array = field(repr=False)
    sizes: Vector = field(repr=False)

    @property
    def unit(self) -> float:
        """Largest strength, in which violations are measured; that of lam = 1 where there is none.

        Infinite strengths, of groups that are held at zero, do not count.
        """
        strength = self.sparse.strength + self.sparse.l1
        return float(strength[np.isfinite(strength)].max(initial=0.0)) or self.weight

    @property
    def weight(self) -> float:
        """Sum of the rows' weights: the number of observations."""
        return float(self.objective.response.weights.sum())


@dataclass(frozen=True, eq=False)
class State:
    """Coefficients and the objective there.

    `loss` is -l + quadratic penalties; `gradient` (n_coef,) its derivative in b (without `ridge`);
    `sparse_gradient` (n_sparse,) its derivative in c, with it.
    """

    likelihood: Likelihood
    c: Vector
    loss: float
    gradient: Vector = field(repr=False)
    sparse_gradient: Vector = field(repr=False)

    @property
    def b(self) -> Vector:
        """Coefficients, (n_coef,)."""
        return self.likelihood.b

    @property
    def loglik(self) -> float:
        """Log-likelihood."""
        return self.likelihood.value


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the solver ended.

    Parameters
    ----------
    state : State
    residual : float
        Largest distance of any coefficient, in standardised units, from the optimality conditions,
        as a share of the largest strength of the penalty.
    converged : bool
    """

    state: State
    residual: float
    converged: bool


def state_at(problem: Penalised, likelihood: Likelihood, c: Vector | None = None) -> State:
    """The state where the likelihood is known; c (n_sparse,) where it is, to the last zero."""
    at, b = problem.coordinates, likelihood.b
    c = at.standardised(b[at.index]) if c is None else c
    pull = problem.S @ b if problem.S.nnz else np.zeros_like(b)
    gradient = pull - likelihood.score
    loss = -likelihood.value + 0.5 * float(b @ pull) + 0.5 * float(problem.ridge @ c**2)
    sparse_gradient = at.pulled(gradient[at.index]) + problem.ridge * c
    return State(likelihood, c, loss, gradient, sparse_gradient)


def solve(
    problem: Penalised,
    start: Likelihood,
    likelihoods: Likelihoods,
    *,
    second_start: Likelihood | None = None,
    near: Vector | None = None,
) -> Optimum:
    """Minimise the objective from `start`.

    Parameters
    ----------
    problem : Penalised
    start : Likelihood
    likelihoods : Likelihoods
        Of the same objective.
    second_start : Likelihood, optional
        Another start where D > 2; the lower minimum is taken. The first is the optimum for D = 2.
    near : Vector, (n_sparse,), optional
        Where the minimum of the first quadratic model is looked for, if not at the start; D = 2.
    """
    if problem.sparse.convex:
        return _working_sets(problem, start, likelihoods, near)
    lasso = replace(problem, sparse=problem.sparse.lasso())
    starts = [_working_sets(lasso, start, likelihoods).state.likelihood]
    starts += [] if second_start is None else [second_start]
    ends = [descend(problem, each, likelihoods) for each in starts]
    return min(ends, key=lambda end: _value(problem, end.state))


def descend(problem: Penalised, start: Likelihood, likelihoods: Likelihoods) -> Optimum:
    """Minimise the objective from `start`, where D > 2 to the minimum it leads to."""
    if problem.sparse.convex:
        return _working_sets(problem, start, likelihoods)
    return _gates(problem, start, likelihoods)


def _gates(problem: Penalised, start: Likelihood, likelihoods: Likelihoods) -> Optimum:
    """Step 4: group lassos whose strengths are the outer gates of the last one.

    Where the groups that are not zero stay the same, Newton on their penalty itself ends it; so
    does an objective that only rounding moves, as where quadratic penalties are very large.
    """
    state, converged = state_at(problem, start), False
    for _ in range(MAX_GATES):
        held = replace(problem, sparse=problem.sparse.outer_gates(state.c))
        last, state = state, _working_sets(held, state.likelihood, likelihoods).state
        same = np.array_equal(last.c != 0, state.c != 0)
        if same:
            state = _on_support(problem, state, likelihoods)
        fell = _value(problem, last) - _value(problem, state) > _rounding(problem, last)
        if residual(problem, state) <= STATIONARY or (same and not fell):
            converged = True
            break
    return Optimum(state, residual(problem, state), converged)


def _on_support(problem: Penalised, state: State, likelihoods: Likelihoods) -> State:
    """Newton steps on coefficients that are not zero, for as long as they lower the objective."""
    for _ in range(MAX_STEPS):
        support = np.flatnonzero(state.c)
        if not len(support) or residual(problem, state) <= STATIONARY:
            break
        at = projected(problem, state, support, likelihoods)
        factor = Factor.of(at.Q + problem.sparse.curvature(state.c, support))
        if factor is None:
            break
        own = at.uu.solve(state.gradient[problem.free])
        slope = (state.sparse_gradient + problem.sparse.gradient(state.c))[support]
        d = -factor.solve(slope - at.uc.T @ own)
        c = state.c.copy()
        c[support] += d
        turned = np.bincount(problem.coordinates.group[support], (c * state.c)[support]) < 0.0
        if turned.any():
            break
        moved = _search(problem, likelihoods, state, _Step(-own - at.uu.solve(at.uc @ d), c, 0.0))
        if moved is None:
            break
        state = moved
    return state


def _value(problem: Penalised, state: State) -> float:
    """The objective."""
    return state.loss + problem.sparse.value(state.c)


def _rounding(problem: Penalised, state: State) -> float:
    """A change of the objective that is rounding."""
    return ROUNDING * (abs(_value(problem, state)) + problem.weight)


def residual(problem: Penalised, state: State) -> float:
    """Distance from the optimality conditions; see `Optimum`."""
    sparse = problem.sparse.violation(state.c, state.sparse_gradient)
    return max(float(sparse.max(initial=0.0)), _slope(problem, state)) / problem.unit


def _slope(problem: Penalised, state: State) -> float:
    """Largest derivative in a free coefficient, for columns of mean square one."""
    slopes = np.abs(state.gradient[problem.free]) / problem.sizes
    return float(slopes.max(initial=0.0))


def _working_sets(
    problem: Penalised, start: Likelihood, likelihoods: Likelihoods, near: Vector | None = None
) -> Optimum:
    """Steps 1 to 3."""
    state, groups = state_at(problem, start), problem.sparse
    always = groups.strength + groups.l1 == 0.0
    if likelihoods.is_whole and np.isfinite(groups.strength).all():
        always[:] = True
    working = (groups.norms(state.c) > 0) | always
    converged = False
    for _ in range(MAX_SETS):
        violation = np.where(working, 0.0, groups.violation(state.c, state.sparse_gradient))
        if converged and not np.any(violation > STATIONARY * problem.unit):
            break
        soon = np.where(working, 0.0, _soon_violated(groups, state, violation))
        wrong = np.flatnonzero(soon > STATIONARY * problem.unit)
        most = max(LEAST_SET, int(working.sum()))
        working[wrong[np.argsort(-soon[wrong])[:most]]] = True
        state, converged = _newton(problem, state, working, likelihoods, near)
        near = None
        if not converged:
            break
        # what left the set may come back, but a set that only grows makes steps dearer
        working &= (groups.norms(state.c) > 0) | always
    return Optimum(state, residual(problem, state), converged)


def _soon_violated(groups: GroupPenalty, state: State, violation: Vector) -> Vector:
    """Violations where strengths are less by the largest share that they are violated by.

    At a lam that is less by a share than the last one, groups that were on their bound violate it
    by that share; those that are as near to the new bound may be on it soon (the strong rule).
    """
    total = groups.strength + groups.l1
    share = float(np.max(violation / np.where(total > 0.0, total, np.inf), initial=0.0))
    if share >= 1.0:
        return violation
    less = replace(groups, strength=(1.0 - share) * groups.strength, l1=(1.0 - share) * groups.l1)
    return less.violation(state.c, state.sparse_gradient)


def _newton(
    problem: Penalised,
    state: State,
    working: Array,
    likelihoods: Likelihoods,
    near: Vector | None,
) -> tuple[State, bool]:
    """Step 2 on the groups of the working set, bool (n_groups,); the state, and if it converged."""
    inside = np.flatnonzero(working[problem.coordinates.group])
    sparse = problem.sparse.restrict(np.flatnonzero(working))
    for _ in range(MAX_STEPS):
        wrong = sparse.violation(state.c[inside], state.sparse_gradient[inside])
        if max(wrong.max(initial=0.0), _slope(problem, state)) <= STATIONARY * problem.unit:
            return state, True
        at = state.c if near is None else near
        step = _Step.of(problem, state, inside, sparse, likelihoods, near=at)
        near = None
        if not step.gain > -ROUNDING * (abs(state.loss) + problem.weight):
            return state, False
        moved = _search(problem, likelihoods, state, step)
        if moved is None:
            return state, step.gain < DECREMENT
        state = moved
        if step.gain < DECREMENT:
            return state, True
    return state, False


@dataclass(frozen=True)
class _Step:
    """A Newton step: where it leads and the gain that the model promises."""

    free: Vector
    """Move of the free coefficients."""
    c: Vector
    """New sparse coefficients, (n_sparse,)."""
    gain: float

    @classmethod
    def of(
        cls,
        problem: Penalised,
        state: State,
        inside: Array,
        sparse: GroupPenalty,
        likelihoods: Likelihoods,
        *,
        near: Vector,
    ) -> _Step:
        at = projected(problem, state, inside, likelihoods)
        gradient, slope = state.gradient[problem.free], state.sparse_gradient[inside]
        # u = -P_uu^-1 (gradient + P_uc d) is best for the move d of c
        own = at.uu.solve(gradient)
        reduced = slope - at.uc.T @ own
        c = state.c[inside]
        new = quadratic.minimise(quadratic.Model(at.Q, at.Q @ c - reduced), sparse, near[inside])
        d = new - c
        gain = sparse.value(c) - sparse.value(new) - float(d @ (reduced + 0.5 * (at.Q @ d)))
        full = state.c.copy()
        full[inside] = new
        return cls(-own - at.uu.solve(at.uc @ d), full, gain + 0.5 * float(gradient @ own))


def projected(
    problem: Penalised, state: State, inside: Array, likelihoods: Likelihoods
) -> Projection:
    """The quadratic model of some sparse coefficients, where needed of convex rows."""
    kept, whole = likelihoods.projection, len(inside) == len(problem.coordinates.index)
    if not (likelihoods.is_whole and whole):
        return _projected(problem, state, inside, likelihoods)
    if not (kept and kept.S is problem.S and kept.curvature is state.likelihood.curvature):
        kept = likelihoods.projection = _projected(problem, state, inside, likelihoods)
    more = problem.ridge - kept.ridge
    return replace(kept, ridge=problem.ridge, Q=kept.Q + np.diag(more)) if more.any() else kept


def _projected(
    problem: Penalised, state: State, inside: Array, likelihoods: Likelihoods
) -> Projection:
    """The same, made anew."""
    at, n_free, curvature = problem.coordinates, len(problem.free), state.likelihood.curvature
    columns = np.concatenate([problem.free, at.index[inside]])
    S = problem.S[columns][:, columns].toarray() if problem.S.nnz else None

    def split(H: Matrix, size: float) -> Projection | None:
        P = H if S is None else H + S
        if size > 0.0:
            P = P.copy()
            P[np.diag_indices_from(P)] *= 1.0 + size
        uu, uc = Factor.of(P[:n_free, :n_free]), at.times(P[:n_free, n_free:], inside)
        if uu is None:
            return None
        Q, half = at.both_sides(P[n_free:, n_free:], inside), uu.half(uc)
        Q -= half.T @ half
        Q[np.diag_indices_from(Q)] += problem.ridge[inside]
        return Projection(curvature, problem.S, problem.ridge[inside], uu, uc, Q)

    found = split(likelihoods.products(columns, curvature), 0.0)
    if found is None or not (likelihoods.convex_rows(curvature) or _semidefinite(found.Q)):
        convex = likelihoods.convex_products(columns, curvature)
        size = 0.0
        found = split(convex, size)
        while found is None:
            size = max(100.0 * size, quadratic.RIDGE)
            found = split(convex, size)
    return found


def _semidefinite(Q: Matrix) -> bool:
    """Whether Q has no negative direction."""
    size = np.abs(np.diagonal(Q)).mean() if len(Q) else 0.0
    return not len(Q) or Factor.of(Q + SEMIDEFINITE * size * np.eye(len(Q))) is not None


def _search(
    problem: Penalised, likelihoods: Likelihoods, state: State, step: _Step
) -> State | None:
    """The furthest of the step, its half, ... that does not raise the objective."""
    before, slack = _value(problem, state), _rounding(problem, state)
    at, scale = problem.coordinates, 1.0
    for _ in range(MAX_HALVINGS):
        c = step.c if scale == 1.0 else state.c + scale * (step.c - state.c)
        b = state.b.copy()
        b[problem.free] += scale * step.free
        b[at.index] = at.original(c)
        trial = state_at(problem, likelihoods.at(b), c)
        after = _value(problem, trial)
        if np.isfinite(after) and after <= before + slack:
            return trial
        scale /= 2.0
    return None
