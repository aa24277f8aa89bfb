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

import numpy as np
import scipy.linalg

from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.objective import Objective
from deepregress.penalty import PlacedPenalty
from deepregress.solvers.newton import DECREMENT, State, TotalPenalty, curvature, maximise

RANGE_TOLERANCE = 1e-9
"""Eigenvalues of a penalty below this fraction of its largest count as its null space."""


@dataclass(frozen=True)
class Penalty:
    """A quadratic penalty placed in the joint coefficient vector."""

    index: slice
    given: PlacedPenalty
    root: Matrix
    """E_j with S_j = E_j' E_j, (rank, p)."""

    @property
    def estimated(self) -> bool:
        """Whether V chooses its smoothing parameter."""
        return self.given.sp is None and self.given.df is None

    def trace(self, V: Matrix) -> float:
        """tr(V S_j)."""
        return float(np.sum(V[self.index, self.index] * self.given.S))

    def balance(self, H: Matrix) -> float:
        """The lam at which penalty and information of the block are of one size."""
        return float(np.trace(H[self.index, self.index]) / np.trace(self.given.S))

    def times(self, coef: Vector) -> Vector:
        """S_j coef, (n_coef,)."""
        out = np.zeros_like(coef)
        out[self.index] = self.root.T @ (self.root @ coef[self.index])
        return out

    def roughness(self, coef: Vector) -> float:
        """coef' S_j coef."""
        rough = self.root @ coef[self.index]
        return float(rough @ rough)


@dataclass(frozen=True)
class Group:
    """Penalties on the same coefficients, in an orthonormal basis U of the space they penalise."""

    index: slice
    members: tuple[int, ...]
    basis: Matrix
    """U, (p, rank)."""
    roots: tuple[Matrix, ...]
    """E_j U with S_j = E_j' E_j, (rank of S_j, rank) each."""
    logdet: float
    """log|U' S U| where there is one penalty."""

    @property
    def rank(self) -> int:
        """Dimension of the penalised space."""
        return int(self.basis.shape[1])

    def log_pseudo_det(self, lam: Vector) -> tuple[float, Vector, Matrix]:
        """log|sum_j lam_j S_j|_+ with gradient and Hessian in the members' log lam.

        From Q R, the stacked lam_j^(1/2) E_j U: with Q_j the rows of Q that belong to S_j, the
        derivatives are |Q_j|^2 and -|Q_j Q_k'|^2 (plus |Q_j|^2 for j = k). The sum is never
        formed, so smoothing parameters of very different size cost no digits; the largest rows go
        first, which makes the Householder steps stable by rows.
        """
        if len(self.members) == 1:
            value = self.rank * np.log(lam[self.members[0]]) + self.logdet
            return float(value), np.array([float(self.rank)]), np.zeros((1, 1))
        parts = [np.sqrt(lam[j]) * root for j, root in zip(self.members, self.roots, strict=True)]
        order = np.argsort([-np.abs(part).max() for part in parts])
        stacked = np.concatenate([parts[i] for i in order])
        Q, R, _ = scipy.linalg.qr(stacked, mode="economic", pivoting=True)
        ends = np.cumsum([len(parts[i]) for i in order])[:-1]
        blocks = dict(zip(order.tolist(), np.split(Q, ends), strict=True))
        Qs = [blocks[i] for i in range(len(parts))]
        first = np.array([np.sum(q**2) for q in Qs])
        second = np.diag(first) - np.array([[np.sum((a @ b.T) ** 2) for b in Qs] for a in Qs])
        return 2.0 * float(np.log(np.abs(np.diagonal(R))).sum()), first, second


@dataclass(frozen=True)
class Problem:
    """An objective with its penalties placed and its constant parameters, if any, found."""

    objective: Objective
    penalties: tuple[Penalty, ...]
    groups: tuple[Group, ...]
    dispersion: int | None
    free: Array
    """Indices of the coefficients Newton moves: all but the constants."""
    integrated: Matrix | None = None
    """Basis of the free coefficients that V integrates out, (n_free, rank); None: all of them."""
    extra: tuple[int, ...] = ()
    """Constant extra parameters of the family, hyperparameters of V without a part in sp."""

    @classmethod
    def of(cls, objective: Objective, *, method: str = "REML") -> Problem:
        """Place the penalties of all units; `method` is "REML" or "ML"."""
        penalties = tuple(
            Penalty(slice(unit.start + p.index.start, unit.start + p.index.stop), p, _root(p.S))
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
        groups = _groups(penalties)
        U = None if method == "REML" else _penalised_basis(groups, objective.n_coef)[free]
        return cls(objective, penalties, groups, dispersion, free, U, extra)

    def on(self, objective: Objective) -> Problem:
        """The same problem on other rows."""
        return replace(self, objective=objective)

    @property
    def held(self) -> list[int]:
        """The constants: a dispersion, then the extra parameters."""
        return [*([] if self.dispersion is None else [self.dispersion]), *self.extra]

    @property
    def null_dim(self) -> int:
        """M: coefficients integrated out that no penalty touches."""
        n = len(self.free) if self.integrated is None else self.integrated.shape[1]
        return n - sum(group.rank for group in self.groups)

    def inner(self, P: Matrix, factor: Factor) -> Factor:
        """Factor of the part of P (over the free coefficients) that V integrates out."""
        if self.integrated is None:
            return factor
        inner = Factor.of(self.integrated.T @ P @ self.integrated)
        return factor if inner is None else inner

    def inverse(self, inner: Factor) -> Matrix:
        """P^-1, or U (U' P U)^-1 U', over the free coefficients."""
        V = inner.inverse()
        return V if self.integrated is None else self.integrated @ V @ self.integrated.T

    def S(self, lam: Vector) -> Matrix:
        """S = sum_j lam_j S_j, (n_coef, n_coef)."""
        n_coef = self.objective.n_coef
        S = np.zeros((n_coef, n_coef))
        for lam_j, p in zip(lam, self.penalties, strict=True):
            S[p.index, p.index] += lam_j * p.given.S
        return S

    def total(self, lam: Vector) -> TotalPenalty:
        """S with its root."""
        E = np.zeros((sum(len(p.root) for p in self.penalties), self.objective.n_coef))
        at = 0
        for lam_j, p in zip(lam, self.penalties, strict=True):
            E[at : at + len(p.root), p.index] = np.sqrt(lam_j) * p.root
            at += len(p.root)
        return TotalPenalty(self.S(lam), E)

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

    def full(self, V: Matrix) -> Matrix:
        """V over the free coefficients, (n_free, n_free), with zeros for those held."""
        if len(self.free) == self.objective.n_coef:
            return V
        out = np.zeros((self.objective.n_coef, self.objective.n_coef))
        out[np.ix_(self.free, self.free)] = V
        return out


def _constant_parameter(objective: Objective, name: str | None) -> int | None:
    """The coefficient of a parameter that is nothing but an intercept."""
    if name is None:
        return None
    u = objective.family.parameter_names.index(name)
    unit = objective.units[u]
    if unit.n_coef != 1 or unit.penalties or unit.offset.any() or (unit.X != 1.0).any():
        return None
    return int(objective.slices[u].start)


def _root(S: Matrix) -> Matrix:
    values, vectors = scipy.linalg.eigh(S)
    positive = values > RANGE_TOLERANCE * max(values[-1], 0.0)
    return np.asarray(np.sqrt(values[positive])[:, None] * vectors[:, positive].T)


def _groups(penalties: tuple[Penalty, ...]) -> tuple[Group, ...]:
    places: dict[tuple[int, int], list[int]] = {}
    for j, p in enumerate(penalties):
        places.setdefault((p.index.start, p.index.stop), []).append(j)
    groups = []
    for (start, stop), members in places.items():
        matrices = [penalties[j].given.S for j in members]
        joint = sum(S / np.linalg.norm(S) for S in matrices)
        values, vectors = scipy.linalg.eigh(joint)
        U = vectors[:, values > RANGE_TOLERANCE * values[-1]]
        roots = tuple(penalties[j].root @ U for j in members)
        logdet = float(np.linalg.slogdet(U.T @ matrices[0] @ U)[1])
        groups.append(Group(slice(start, stop), tuple(members), U, roots, logdet))
    return tuple(groups)


def _penalised_basis(groups: tuple[Group, ...], n_coef: int) -> Matrix:
    """Orthonormal basis of all penalised directions, (n_coef, sum of ranks)."""
    U = np.zeros((n_coef, sum(group.rank for group in groups)))
    at = 0
    for group in groups:
        U[group.index, at : at + group.rank] = group.basis
        at += group.rank
    return U


@dataclass(frozen=True)
class Point:
    """V at one set of smoothing parameters: the penalised fit there and its factor."""

    problem: Problem
    lam: Vector
    state: State
    converged: bool
    factor: Factor
    inner: Factor
    """Of what V integrates out."""
    value: float
    """V, to be maximised."""

    @classmethod
    def at(
        cls, problem: Problem, lam: Vector, state: State, *, tolerance: float = DECREMENT
    ) -> Point:
        """Fit the coefficients at `lam` and the state's dispersion, starting from the state."""
        penalty = problem.total(lam)
        fit = maximise(problem.objective, state, penalty, free=problem.free, tolerance=tolerance)
        H, factor = curvature(problem.objective, fit.state, penalty.S, problem.free)
        inner = problem.inner(H + penalty.S[np.ix_(problem.free, problem.free)], factor)
        logdet, _, _ = problem.log_pseudo_det(lam)
        value = (
            fit.state.penalised(penalty)
            + 0.5 * logdet
            - 0.5 * inner.logdet()
            + 0.5 * problem.null_dim * np.log(2.0 * np.pi)
        )
        return cls(problem, lam, fit.state, fit.converged, factor, inner, float(value))


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
        free = problem.free
        estimated = [j for j, p in enumerate(problem.penalties) if p.estimated]
        n_hyper = len(estimated) + len(problem.held)
        P_inverse = problem.full(point.factor.inverse())
        V = P_inverse if problem.integrated is None else problem.full(problem.inverse(point.inner))
        t = problem.objective.logdet_gradient(b, V)
        H = point.state.at.H
        _, first, second = problem.log_pseudo_det(lam)

        VS = {j: lam[j] * V[:, p.index] @ p.given.S for j, p in enumerate(problem.penalties)}
        Sb = {j: lam[j] * problem.penalties[j].times(b) for j in estimated}
        moves = np.zeros((len(b), n_hyper))
        gradient, hessian = np.zeros(n_hyper), np.zeros((n_hyper, n_hyper))
        for i, j in enumerate(estimated):
            index_j = problem.penalties[j].index
            moves[:, i] = -(P_inverse @ Sb[j])
            trace = float(np.trace(VS[j][index_j]))
            rough = lam[j] * problem.penalties[j].roughness(b)
            gradient[i] = 0.5 * (first[j] - trace - rough)
            for h, k in enumerate(estimated):
                index_k = problem.penalties[k].index
                mixed = np.sum(VS[j][index_k] * VS[k][index_j].T)
                hessian[i, h] = 0.5 * (mixed + second[j, k]) - float(Sb[j] @ moves[:, h])
            hessian[i, i] -= 0.5 * (trace + rough)
        for i, c in enumerate(problem.held, start=len(estimated)):
            moves[:, i] = -P_inverse @ H[:, c]
            gradient[i] = point.state.at.gradient[c] - 0.5 * t[c]
            for h, j in enumerate(estimated):
                hessian[i, h] = hessian[h, i] = -float(Sb[j] @ moves[:, i])
            for h, other in enumerate(problem.held[: i - len(estimated) + 1], start=len(estimated)):
                hessian[i, h] = hessian[h, i] = -(H[c, other] + float(H[c] @ moves[:, h]))
        if problem.dispersion is not None:
            _dispersion_curvature(point, V, VS, estimated, hessian)
        gradient -= 0.5 * moves[free].T @ t[free]
        return cls(gradient, hessian, moves)


def _dispersion_curvature(
    point: Point, V: Matrix, VS: dict[int, Matrix], estimated: list[int], hessian: Matrix
) -> None:
    """Add what the curvature of V has from H moving with the dispersion, which follows log lam."""
    problem, H = point.problem, point.state.at.H
    i, kappa = len(estimated), problem.kappa(point.state.coef)
    F = V @ H  # zero rows where V is: held coefficients take no part
    F[:, problem.held] = 0.0
    hessian[i, i] -= 0.5 * kappa**2 * (np.trace(F) - np.sum(F * F.T))
    for h, j in enumerate(estimated):
        through_H = -0.5 * kappa * np.sum(F[problem.penalties[j].index] * VS[j].T)
        hessian[i, h] = hessian[h, i] = hessian[i, h] + through_H
