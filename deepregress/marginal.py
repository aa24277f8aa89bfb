"""The Laplace approximate restricted likelihood V of the smoothing parameters, with derivatives.

    V(log lam, theta) = l(b) - 1/2 b' S b + 1/2 log|S|_+ - 1/2 log|H + S| + M/2 log(2 pi)

b the penalised maximum at S = sum_j lam_j S_j and at constant parameters theta (a dispersion, the
family's extra parameters), P = H + S, M the dimension of the null space of S. That is REML, which
integrates all coefficients out; ML integrates the penalised ones only: U' P U stands for P, U a
basis of the range of S, and M = 0. With t_c = tr(P^-1 dH/db_c), by autodiff of the rows and one
pass over the data,

    dV/dlog lam_j = 1/2 (d log|S|_+ / dlog lam_j - lam_j tr(P^-1 S_j) - lam_j b' S_j b)
                    - 1/2 t' db/dlog lam_j,           db/dlog lam_j = -lam_j P^-1 S_j b,
    dV/dtheta     = dl/dtheta - 1/2 t_theta - 1/2 t' db/dtheta,   db/dtheta = -P^-1 H_b,theta.

The Hessian is that of the quadratic model of l, in which H moves only through the dispersion
(H proportional to exp(-kappa theta)): exact for the normal, a good metric elsewhere. The other
constants have the curvature of the profile likelihood, H_theta,theta + H_theta,b db/dtheta.

References: Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986, section 3;
Wood (2011), doi:10.1111/j.1467-9868.2010.00749.x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from deepregress.disk.arrow import Arrow, ArrowFactor, Inverse, Layout, ProjectedFactor
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.penalty_groups import DiagonalGroup, Group, Penalty, grouped, root
from deepregress.solvers.newton import (
    DECREMENT,
    MAX_STEPS,
    State,
    TotalPenalty,
    curvature,
    maximise,
)

InnerFactor = ArrowFactor | ProjectedFactor


@dataclass(frozen=True)
class Problem:
    """An objective with its penalties placed and its constant parameters, if any, found."""

    objective: Objective
    penalties: tuple[Penalty, ...]
    groups: tuple[Group | DiagonalGroup, ...]
    dispersion: int | None
    free: Array
    """Indices of the coefficients Newton moves: all but the constants."""
    method: str = "REML"
    """What V integrates out: "REML", all free coefficients; "ML", the penalised ones."""
    extra: tuple[int, ...] = ()
    """Constant extra parameters of the family, hyperparameters of V without a part in sp."""

    @classmethod
    def of(cls, objective: Objective, *, method: str = "REML") -> Problem:
        """Place the penalties of all units; `method` is "REML" or "ML"."""
        penalties = tuple(
            Penalty(slice(unit.start + p.index.start, unit.start + p.index.stop), p, root(p.S))
            for unit, given in zip(objective.slices, objective.units, strict=True)
            for p in given.penalties
        )
        family, names = objective.family, objective.family.extra
        dispersion = None
        if objective.response.plain:
            dispersion = _constant_parameter(objective, family.dispersion)
        elif family.dispersion is not None:
            # H is not proportional to 1 / phi where rows are censored or truncated
            names = (*names, family.dispersion)
        extra: tuple[int, ...] = ()
        if any(p.estimated for p in penalties):
            found = [_constant_parameter(objective, name) for name in names]
            extra = tuple(place for place in found if place is not None)
        held = [*([] if dispersion is None else [dispersion]), *extra]
        free = np.delete(np.arange(objective.n_coef), held)
        return cls(objective, penalties, grouped(penalties), dispersion, free, method, extra)

    def on(self, objective: Objective) -> Problem:
        """The same problem on other rows."""
        return replace(self, objective=objective)

    @cached_property
    def layout(self) -> Layout:
        """Of the free coefficients."""
        return self.objective.layout.restrict(self.free)

    @property
    def held(self) -> list[int]:
        """The constants: a dispersion, then the extra parameters."""
        return [*([] if self.dispersion is None else [self.dispersion]), *self.extra]

    @cached_property
    def integrated(self) -> Matrix | None:
        """Basis of the dense coefficients that V integrates out, (p, rank); None: all of them."""
        if self.method != "ML":
            return None
        U = np.zeros((len(self.layout.dense), 0))
        for group in self.groups:
            if isinstance(group, Group):
                places, basis = np.arange(group.index.start, group.index.stop), group.basis
                if not np.isin(places, self.layout.dense).all():
                    continue
            else:
                places = np.intersect1d(group.places, self.layout.dense)
                basis = np.eye(len(places))
            own = np.zeros((len(U), basis.shape[1]))
            own[self.layout.dense_at(places)] = basis
            U = np.hstack([U, own])
        return U

    @property
    def n_integrated(self) -> int:
        """Number of coefficients that V integrates out."""
        U = self.integrated
        return self.layout.size if U is None else U.shape[1] + self.layout.levels.size

    @property
    def null_dim(self) -> int:
        """M: coefficients integrated out that no penalty touches."""
        return self.n_integrated - sum(group.rank for group in self.groups)

    def inner(self, factor: ArrowFactor) -> InnerFactor:
        """Factor of the part of P that V integrates out."""
        return factor if self.integrated is None else factor.on(self.integrated)

    def S(self, lam: Vector) -> Arrow:
        """S = sum_j lam_j S_j."""
        layout = self.objective.layout
        A = np.zeros((len(layout.dense), len(layout.dense)))
        for lam_j, p, at in zip(lam, self.penalties, self._dense_at, strict=True):
            if not p.diagonal:
                A[np.ix_(at, at)] += lam_j * p.given.S
        S = Arrow(layout, A, None, np.zeros((*layout.levels.shape, layout.levels.shape[1])))
        weights = self._weights(lam)
        return S + Arrow.of_diagonal(layout, weights) if weights.any() else S

    def total(self, lam: Vector) -> TotalPenalty:
        """S with its root."""
        matrices = [j for j, p in enumerate(self.penalties) if not p.diagonal]
        rows = sum(len(self.penalties[j].root) for j in matrices)
        E = np.zeros((rows, len(self.objective.layout.dense)))
        first = 0
        for j in matrices:
            root_j = self.penalties[j].root
            E[first : first + len(root_j), self._dense_at[j]] = np.sqrt(lam[j]) * root_j
            first += len(root_j)
        return TotalPenalty(self.S(lam), E, self._weights(lam))

    @cached_property
    def _dense_at(self) -> list[Array]:
        """Positions of the coefficients of each matrix penalty in the dense part."""
        layout = self.objective.layout
        return [
            layout.dense_at(np.arange(p.index.start, 0 if p.diagonal else p.index.stop))
            for p in self.penalties
        ]

    def _weights(self, lam: Vector) -> Vector:
        """Sum of the diagonal penalties, (n_coef,)."""
        weights = np.zeros(self.objective.n_coef)
        for lam_j, p in zip(lam, self.penalties, strict=True):
            if p.diagonal:
                weights[p.index] += lam_j * p.given.S
        return weights

    def log_pseudo_det(self, lam: Vector) -> tuple[float, Vector, Matrix]:
        """log|S|_+, its gradient and Hessian in log lam."""
        value, n = 0.0, len(self.penalties)
        first, second = np.zeros(n), np.zeros((n, n))
        for group in self.groups:
            part, first_g, second_g = group.log_pseudo_det(lam)
            value += part
            first[list(group.members)] = first_g
            second[np.ix_(group.members, group.members)] = second_g
        return value, first, second

    def phi(self, coef: Vector) -> float:
        """Dispersion by which sp is divided to give lam; 1 where none is estimated alone."""
        return 1.0 if self.dispersion is None else self._phi_at(float(coef[self.dispersion]))

    def kappa(self, coef: Vector) -> float:
        """kappa = dlog phi / deta of the constant dispersion: H is proportional to 1 / phi."""
        eta = float(coef[self.dispersion])
        return float(np.log(self._phi_at(eta + 0.5) / self._phi_at(eta - 0.5)))

    def _phi_at(self, eta: float) -> float:
        family = self.objective.family
        link = family.parameter(str(family.dispersion)).link
        return family.dispersion_of(float(link.inverse(np.float64(eta))))


def _constant_parameter(objective: Objective, name: str | None) -> int | None:
    """The coefficient of a parameter that is nothing but an intercept."""
    if name is None:
        return None
    u = objective.family.parameter_names.index(name)
    unit = objective.units[u]
    if unit.n_coef != 1 or unit.penalties or unit.offset.any() or (unit.X != 1.0).any():
        return None
    return int(objective.slices[u].start)


@dataclass(frozen=True)
class Point:
    """V at one set of smoothing parameters: the penalised fit there and its factor."""

    problem: Problem
    lam: Vector
    state: State
    converged: bool
    exhausted: bool
    """Whether Newton took all the steps it may."""
    factor: ArrowFactor
    inner: InnerFactor
    """Of what V integrates out."""
    value: float
    """V, to be maximised."""

    @classmethod
    def at(
        cls,
        problem: Problem,
        lam: Vector,
        state: State,
        *,
        tolerance: float = DECREMENT,
        max_steps: int = MAX_STEPS,
    ) -> Point:
        """Fit the coefficients at `lam` and the state's dispersion, starting from the state."""
        penalty = problem.total(lam)
        fit = maximise(
            problem.objective,
            state,
            penalty,
            free=problem.free,
            tolerance=tolerance,
            max_steps=max_steps,
        )
        _, factor = curvature(problem.objective, fit.state, penalty.S, problem.layout)
        inner = problem.inner(factor)
        logdet, _, _ = problem.log_pseudo_det(lam)
        value = (
            fit.state.penalised(penalty)
            + 0.5 * logdet
            - 0.5 * inner.logdet()
            + 0.5 * problem.null_dim * np.log(2.0 * np.pi)
        )
        exhausted = not fit.converged and fit.steps == max_steps
        return cls(problem, lam, fit.state, fit.converged, exhausted, factor, inner, float(value))


class PenaltyTraces:
    """tr(V S_j) and tr(V S_j V S_k) of V = G + E W E' (module `arrow`).

    With T_j = E' S_j E they are tr(W T_j) + tr(G S_j) and tr(W T_j W T_k) + tr(G S_j G S_k)
    + 2 tr(G S_j (V - G) S_k); the terms with G are sums over levels.
    """

    def __init__(self, problem: Problem, V: Inverse) -> None:
        self._problem, self._V = problem, V
        self._diagonal = V.diagonal()
        self._products: dict[int, tuple[Array, Matrix]] = {}

    def single(self, j: int) -> float:
        """tr(V S_j)."""
        p = self._problem.penalties[j]
        if p.diagonal:
            return float(self._diagonal[p.index] @ p.given.S)
        at = self._at(p)
        return float(np.sum(self._V.V[np.ix_(at, at)] * p.given.S)) if len(at) else 0.0

    def total_edf(self, lam: Vector) -> float:
        """tr F = p - sum_j lam_j tr(V S_j) over the free coefficients, V = (H + S)^-1."""
        spent = sum(lam_j * self.single(j) for j, lam_j in enumerate(lam))
        return self._problem.layout.size - float(spent)

    def pair(self, j: int, k: int) -> float:
        """tr(V S_j V S_k)."""
        (at_j, VT_j), (at_k, VT_k) = self._product(j), self._product(k)
        total = float(np.sum(VT_j[at_k] * VT_k[at_j].T))
        s_j, s_k = self._level_weights(j), self._level_weights(k)
        if s_j is not None and s_k is not None:
            total += float(np.einsum("la,lab,lb->", s_k, self._both, s_j))
        return total

    @cached_property
    def _both(self) -> Array:
        """G_ab^2 + 2 G_ab (V - G)_ab of each level."""
        G = self._V.G
        return np.asarray(G**2 + 2.0 * G * (self._V.CV @ self._V.C.transpose(0, 2, 1)))

    def _at(self, p: Penalty) -> Array:
        places, dense = np.arange(p.index.start, p.index.stop), self._V.layout.dense
        at = np.minimum(self._V.layout.dense_at(places), max(len(dense) - 1, 0))
        inside = len(dense) > 0 and bool((dense[at] == places).all())
        return at if inside else at[:0]

    def _level_weights(self, j: int) -> Matrix | None:
        p, levels = self._problem.penalties[j], self._V.layout.levels
        if not p.diagonal or not levels.size:
            return None
        weights = p.weights(self._V.layout.n_coef)[levels]
        return weights if weights.any() else None

    def _product(self, j: int) -> tuple[Array, Matrix]:
        """Columns on which T_j is not zero, and W T_j there."""
        if j not in self._products:
            p, V, layout = self._problem.penalties[j], self._V.V, self._V.layout
            if not p.diagonal:
                at = self._at(p)
                self._products[j] = at, V[:, at] @ p.given.S if len(at) else V[:, at]
                return self._products[j]
            on_dense = p.weights(layout.n_coef)[layout.dense]
            s = self._level_weights(j)
            if s is None:
                at = np.flatnonzero(on_dense)
                self._products[j] = at, V[:, at] * on_dense[at]
            else:
                C, width = self._V.C, len(layout.dense)
                shape = (layout.levels.size, width)
                T = (C * s[:, :, None]).reshape(shape).T @ C.reshape(shape)
                self._products[j] = np.arange(width), V @ (T + np.diag(on_dense))
        return self._products[j]


@dataclass(frozen=True)
class Slope:
    """Derivatives of V in the estimated log lam and, last, the predictors of the constants.

    gradient (n_hyper,), Hessian of the quadratic model (n_hyper, n_hyper), and the derivatives of
    the coefficients, (n_coef, n_hyper).
    """

    gradient: Vector
    hessian: Matrix
    coef: Matrix

    @classmethod
    def at(cls, point: Point) -> Slope:
        """Differentiate V at a point; one pass over the data."""
        problem, lam, b = point.problem, point.lam, point.state.coef
        estimated = [j for j, p in enumerate(problem.penalties) if p.estimated]
        n_hyper = len(estimated) + len(problem.held)
        V = point.inner.inverse()
        t = problem.objective.logdet_gradient(b, V)
        traces = PenaltyTraces(problem, V)
        _, first, second = problem.log_pseudo_det(lam)

        Sb = {j: lam[j] * problem.penalties[j].times(b) for j in estimated}
        moves = np.zeros((len(b), n_hyper))
        gradient, hessian = np.zeros(n_hyper), np.zeros((n_hyper, n_hyper))
        for i, j in enumerate(estimated):
            moves[:, i] = -point.factor.solve(Sb[j])
            trace = lam[j] * traces.single(j)
            rough = lam[j] * problem.penalties[j].roughness(b)
            gradient[i] = 0.5 * (first[j] - trace - rough)
            for h, k in enumerate(estimated[: i + 1]):
                mixed = lam[j] * lam[k] * traces.pair(j, k)
                hessian[i, h] = 0.5 * (mixed + second[j, k]) - float(Sb[j] @ moves[:, h])
                hessian[h, i] = hessian[i, h]
            hessian[i, i] -= 0.5 * (trace + rough)
        for i, c in enumerate(problem.held, start=len(estimated)):
            column = point.state.at.information.column(c)
            moves[:, i] = -point.factor.solve(column)
            gradient[i] = point.state.at.gradient[c] - 0.5 * t[c]
            for h, j in enumerate(estimated):
                hessian[i, h] = hessian[h, i] = -float(Sb[j] @ moves[:, i])
            for h, other in enumerate(problem.held[: i - len(estimated) + 1], start=len(estimated)):
                hessian[i, h] = hessian[h, i] = -(column[other] + float(column @ moves[:, h]))
        if problem.dispersion is not None:
            _dispersion_curvature(point, traces, estimated, hessian)
        # the coefficients that are held do not move
        gradient -= 0.5 * moves.T @ t
        return cls(gradient, hessian, moves)


def _dispersion_curvature(
    point: Point, traces: PenaltyTraces, estimated: list[int], hessian: Matrix
) -> None:
    """Add what the curvature of V has from H moving with the dispersion, which follows log lam.

    F = V H = V P - V S with V P the identity on what V integrates out, so that tr(F) = r - tr(V S)
    and tr(F F) = r - 2 tr(V S) + tr(V S V S).
    """
    problem, lam = point.problem, point.lam
    i, kappa = len(estimated), problem.kappa(point.state.coef)
    single = np.array([lam[j] * traces.single(j) for j in range(len(lam))])
    pairs = np.array(
        [[lam[j] * lam[k] * traces.pair(j, k) for k in range(len(lam))] for j in range(len(lam))]
    ).reshape(len(lam), len(lam))
    # tr(F) - tr(F F)
    hessian[i, i] -= 0.5 * kappa**2 * (single.sum() - pairs.sum())
    for h, j in enumerate(estimated):
        through_H = -0.5 * kappa * (single[j] - pairs[j].sum())
        hessian[i, h] = hessian[h, i] = hessian[i, h] + through_H
