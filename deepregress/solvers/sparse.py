"""Penalised likelihood with sparse terms at given strengths, solved to its optimum (METHODS 6).

    minimise  -l(b) + 1/2 b' S b + penalty(c),     b = T c for the sparse coefficients

c are coefficients of columns with sd 1 (of whole groups: of an effect with sd |c_g|), l is on the
sum scale, S are the quadratic penalties. A dispersion and other constants in `held` stay put.

1. Working set: groups that are not zero, and those that violate the optimality conditions.
2. Newton on them: a quadratic model of l; the coefficients without a sparse penalty are projected
   out of it (what remains is Q = H_cc - H_cu P_uu^-1 H_uc), the rest is `quadratic.minimise`; the
   step is halved while the objective rises.
3. Converged when no group violates the conditions: the distance of the gradient from the
   subdifferential, over all groups, is the residual that is reported.
4. D > 2: all gates but one are held, which leaves step 1 to 3; then they follow (`outer_gates`).

Cross products of columns are kept as long as the curvature of the rows does not change, along a
whole path for a normal response, and are made for working sets only.

References: Poon & Peyre (2023), doi:10.1137/22M1496657 (projection); Friedman, Hastie & Tibshirani
(2010), doi:10.18637/jss.v033.i01 (working sets); Zou & Li (2008), doi:10.1214/009053607000000802
(step 4 is their local linear approximation).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse

from deepregress.families.base import upper_pairs
from deepregress.gating import GroupPenalty
from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.objective import Objective, positive_part
from deepregress.solvers import quadratic

CHUNK_ROWS = 8192
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
SAME_CURVATURE = 1e-12
"""Largest relative change of a row's curvature for which cross products are kept."""


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
class Likelihood:
    """The log-likelihood at b (n_coef,), its gradient, and the weighted packed W of the rows."""

    b: Vector
    value: float
    score: Vector = field(repr=False)
    curvature: Matrix = field(repr=False)

    @classmethod
    def at(cls, objective: Objective, b: Vector) -> Likelihood:
        """Evaluate it; one pass over the data."""
        rowwise, g, W = objective.row_derivatives(objective.eta(b))
        weights = objective.response.weights
        g = g * weights[:, None]
        score = np.concatenate([unit.X.T @ g[:, u] for u, unit in enumerate(objective.units)])
        return cls(b, float(weights @ rowwise), score, W * weights[:, None])


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
    c = at.R @ b[at.index] if c is None else c
    pull = problem.S @ b
    gradient = pull - likelihood.score
    loss = -likelihood.value + 0.5 * float(b @ pull) + 0.5 * float(problem.ridge @ c**2)
    sparse_gradient = at.T.T @ gradient[at.index] + problem.ridge * c
    return State(likelihood, c, loss, gradient, sparse_gradient)


class CrossProducts:
    """X' diag(W) X of a growing list of columns, for as long as W stays the same."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        ends = np.cumsum([unit.n_coef for unit in objective.units])
        self._unit = np.searchsorted(ends, np.arange(objective.n_coef), side="right")
        self._start = np.array([index.start for index in objective.slices])
        self._place = np.full(objective.n_coef, -1)
        self._columns = np.zeros(0, dtype=np.int64)
        self._W: Matrix | None = None
        self._H = np.zeros((0, 0))

    def of(self, columns: Array, W: Matrix) -> Matrix:
        """H over the columns (m,) of the joint coefficient vector, (m, m).

        Parameters
        ----------
        columns : Array of int, (m,)
        W : Matrix, (n_obs, U (U + 1) / 2)
            Weighted curvature of the rows, packed.
        """
        if self._W is None or np.abs(W - self._W).max() > SAME_CURVATURE * np.abs(W).max():
            self._place[:] = -1
            self._columns, self._W, self._H = np.zeros(0, dtype=np.int64), W, np.zeros((0, 0))
        added = columns[self._place[columns] < 0]
        if len(added):
            self._add(added, W)
        place = self._place[columns]
        return np.asarray(self._H[np.ix_(place, place)])

    def _add(self, added: Array, W: Matrix) -> None:
        every = np.concatenate([self._columns, added])
        new = np.zeros((len(every), len(added)))
        for start in range(0, len(W), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            new += self._product(every, added, rows, W[rows])
        n = len(self._columns)
        H = np.empty((len(every), len(every)))
        H[:n, :n], H[:, n:], H[n:, :n] = self._H, new, new[:n].T
        self._place[added] = np.arange(n, len(every))
        self._columns, self._H = every, H

    def _product(self, left: Array, right: Array, rows: slice, W: Matrix) -> Matrix:
        """X_left' diag(W) X_right over some rows."""
        out = np.empty((len(left), len(right)))
        n_units = len(self.objective.units)
        for p, (k, m) in enumerate(upper_pairs(n_units)):
            for one, other in {(k, m), (m, k)}:
                i = np.flatnonzero(self._unit[left] == one)
                j = np.flatnonzero(self._unit[right] == other)
                if len(i) and len(j):
                    weighted = W[:, p, None] * self._gather(right[j], other, rows)
                    out[np.ix_(i, j)] = self._gather(left[i], one, rows).T @ weighted
        return out

    def _gather(self, columns: Array, unit: int, rows: slice) -> Matrix:
        X: Matrix = self.objective.units[unit].X[rows]
        own = columns - self._start[unit]
        return X if len(own) == X.shape[1] and np.all(np.diff(own) == 1) else X[:, own]


def solve(
    problem: Penalised,
    start: Likelihood,
    products: CrossProducts,
    *,
    second_start: Likelihood | None = None,
) -> Optimum:
    """Minimise the objective from `start`.

    Parameters
    ----------
    problem : Penalised
    start : Likelihood
    products : CrossProducts
        Of the same objective; keeps what can be used again.
    second_start : Likelihood, optional
        Another start where D > 2; the lower minimum is taken. The first is the optimum for D = 2.
    """
    if problem.sparse.convex:
        return _working_sets(problem, start, products)
    lasso = replace(problem, sparse=problem.sparse.lasso())
    starts = [_working_sets(lasso, start, products).state.likelihood]
    starts += [] if second_start is None else [second_start]
    ends = [_gates(problem, each, products) for each in starts]
    return min(ends, key=lambda end: end.state.loss + problem.sparse.value(end.state.c))


def _gates(problem: Penalised, start: Likelihood, products: CrossProducts) -> Optimum:
    """Step 4: group lassos whose strengths are the outer gates of the last one.

    Where the groups that are not zero stay the same, Newton on their penalty itself ends it.
    """
    state, converged = state_at(problem, start), False
    for _ in range(MAX_GATES):
        held = replace(problem, sparse=problem.sparse.outer_gates(state.c))
        last, state = state, _working_sets(held, state.likelihood, products).state
        if np.array_equal(last.c != 0, state.c != 0):
            state = _on_support(problem, state, products)
        if residual(problem, state) <= STATIONARY:
            converged = True
            break
    return Optimum(state, residual(problem, state), converged)


def _on_support(problem: Penalised, state: State, products: CrossProducts) -> State:
    """Newton steps on coefficients that are not zero, for as long as they lower the objective."""
    for _ in range(MAX_STEPS):
        support = np.flatnonzero(state.c)
        if not len(support) or residual(problem, state) <= STATIONARY:
            break
        uu, uc, Q = _projected(problem, state, support, products)
        factor = Factor.of(Q + problem.sparse.curvature(state.c, support))
        if factor is None:
            break
        own = uu.solve(state.gradient[problem.free])
        slope = (state.sparse_gradient + problem.sparse.gradient(state.c))[support]
        d = -factor.solve(slope - uc.T @ own)
        c = state.c.copy()
        c[support] += d
        turned = np.bincount(problem.coordinates.group[support], (c * state.c)[support]) < 0.0
        if turned.any():
            break
        moved = _search(problem, state, _Step(-own - uu.solve(uc) @ d, c, 0.0))
        if moved is None:
            break
        state = moved
    return state


def residual(problem: Penalised, state: State) -> float:
    """Distance from the optimality conditions; see `Optimum`."""
    sparse = problem.sparse.violation(state.c, state.sparse_gradient)
    return max(float(sparse.max(initial=0.0)), _slope(problem, state)) / problem.unit


def _slope(problem: Penalised, state: State) -> float:
    """Largest derivative in a free coefficient, for columns of mean square one."""
    slopes = np.abs(state.gradient[problem.free]) / problem.sizes
    return float(slopes.max(initial=0.0))


def _working_sets(problem: Penalised, start: Likelihood, products: CrossProducts) -> Optimum:
    """Steps 1 to 3."""
    state, groups = state_at(problem, start), problem.sparse
    always = groups.strength + groups.l1 == 0.0
    working = (groups.norms(state.c) > 0) | always
    converged = False
    for _ in range(MAX_SETS):
        violation = np.where(working, 0.0, groups.violation(state.c, state.sparse_gradient))
        wrong = np.flatnonzero(violation > STATIONARY * problem.unit)
        most = max(LEAST_SET, int(working.sum()))
        working[wrong[np.argsort(-violation[wrong])[:most]]] = True
        if converged and not len(wrong):
            break
        state, converged = _newton(problem, state, np.flatnonzero(working), products)
        if not converged:
            break
        # what left the set may come back, but a set that only grows makes steps dearer
        working &= (groups.norms(state.c) > 0) | always
    return Optimum(state, residual(problem, state), converged)


def _newton(
    problem: Penalised, state: State, groups: Array, products: CrossProducts
) -> tuple[State, bool]:
    """Step 2 on some groups; the state and whether it converged."""
    inside = np.flatnonzero(np.isin(problem.coordinates.group, groups))
    sparse = problem.sparse.restrict(groups)
    for _ in range(MAX_STEPS):
        wrong = sparse.violation(state.c[inside], state.sparse_gradient[inside])
        if max(wrong.max(initial=0.0), _slope(problem, state)) <= STATIONARY * problem.unit:
            return state, True
        step = _Step.of(problem, state, inside, sparse, products)
        if not step.gain > -ROUNDING * (abs(state.loss) + problem.weight):
            return state, False
        moved = _search(problem, state, step)
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
        products: CrossProducts,
    ) -> _Step:
        uu, uc, Q = _projected(problem, state, inside, products)
        gradient, slope = state.gradient[problem.free], state.sparse_gradient[inside]
        # u = -P_uu^-1 (gradient + P_uc d) is best for the move d of c
        follow, own = uu.solve(uc), uu.solve(gradient)
        reduced = slope - uc.T @ own
        c = state.c[inside]
        new = quadratic.minimise(quadratic.Model(Q, Q @ c - reduced), sparse, c)
        d = new - c
        gain = sparse.value(c) - sparse.value(new) - float(reduced @ d) - 0.5 * float(d @ (Q @ d))
        full = state.c.copy()
        full[inside] = new
        return cls(-own - follow @ d, full, gain + 0.5 * float(gradient @ own))


def _projected(
    problem: Penalised, state: State, inside: Array, products: CrossProducts
) -> tuple[Factor, Matrix, Matrix]:
    """Factor of P_uu, P_uc, and Q = P_cc - P_cu P_uu^-1 P_uc, where needed of convex rows."""
    at, n_free, W = problem.coordinates, len(problem.free), state.likelihood.curvature
    T = at.T[inside][:, inside]
    columns = np.concatenate([problem.free, at.index[inside]])
    S = problem.S[columns][:, columns].toarray()

    def split(H: Matrix, size: float) -> tuple[Factor, Matrix, Matrix] | None:
        P = H + S
        P[np.diag_indices_from(P)] *= 1.0 + size
        uu, uc = Factor.of(P[:n_free, :n_free]), P[:n_free, n_free:] @ T
        if uu is None:
            return None
        cc = T.T @ (P[n_free:, n_free:] @ T) + np.diag(problem.ridge[inside])
        Q = cc - uc.T @ uu.solve(uc)
        return uu, uc, (Q + Q.T) / 2.0

    parts = split(products.of(columns, W), 0.0)
    if parts is None or not _semidefinite(parts[2], W):
        convex = CrossProducts(problem.objective).of(columns, positive_part(W))
        size = 0.0
        parts = split(convex, size)
        while parts is None:
            size = max(100.0 * size, quadratic.RIDGE)
            parts = split(convex, size)
    return parts


def _semidefinite(Q: Matrix, W: Matrix) -> bool:
    """Whether Q, made of rows' curvature W, has no negative direction."""
    if W.shape[1] == 1 and W.min() >= 0.0:
        return True
    size = np.abs(np.diagonal(Q)).mean() if len(Q) else 0.0
    return not len(Q) or Factor.of(Q + SEMIDEFINITE * size * np.eye(len(Q))) is not None


def _search(problem: Penalised, state: State, step: _Step) -> State | None:
    """The furthest of the step, its half, ... that does not raise the objective."""
    before = state.loss + problem.sparse.value(state.c)
    slack = ROUNDING * (abs(before) + problem.weight)
    at, scale = problem.coordinates, 1.0
    for _ in range(MAX_HALVINGS):
        c = step.c if scale == 1.0 else state.c + scale * (step.c - state.c)
        b = state.b.copy()
        b[problem.free] += scale * step.free
        b[at.index] = at.T @ c
        trial = state_at(problem, Likelihood.at(problem.objective, b), c)
        after = trial.loss + problem.sparse.value(trial.c)
        if np.isfinite(after) and after <= before + slack:
            return trial
        scale /= 2.0
    return None
