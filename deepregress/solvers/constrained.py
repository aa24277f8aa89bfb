"""Newton with exact constraints: means freed of protected covariates (METHODS 5).

    maximise  l(b) - 1/2 b' S b - t' b    subject to   c(b) = A' h(eta_0(b)) = 0

h is the inverse link of the first predictor eta_0 = X b + offset, A (n_obs, q) holds centred
covariates times weights, and t a linear tilt. With f the negative of what is maximised, J = dc/db
and B = d2 f / db2 + sum_k nu_k d2 c_k / db2:

1. multipliers nu: least squares solution of J' nu = -df
2. step d = -J^+ c + Z e,  Z a basis of the null space of J, (Z' B Z) e = -Z' (df - B J^+ c), with
   Z' B Z made positive definite where it is not
3. the longest of d, d / 2, ... that lowers f + pi |c|_1 enough, pi > |nu|; where d itself fails, d
   with c corrected for its curvature is tried first
4. converged when c is zero to rounding and 1/2 e' Z' B Z e, the likelihood still to be gained, is
   negligible

References: Nocedal & Wright, "Numerical Optimization", 2nd ed. 2006, sec. 18.2-18.4 (sequential
quadratic programming); Ruegamer, Kolb et al. (2024), ICML, arXiv 2405.02475 (the constraint).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import tensorflow as tf

from deepregress.bijectors import Link
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.solvers.newton import DECREMENT

MAX_STEPS = 200
MAX_HALVINGS = 40
FEASIBLE = 1e-12
"""Largest c at convergence, relative to the sum of the sizes of its terms."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step must bring."""
DEPENDENT = 1e-10
"""Singular values of J below this share of the largest are zero."""
LEAST_CURVATURE = 1e-10
"""Smallest curvature assumed in a direction, relative to the largest."""


@dataclass(frozen=True)
class Balance:
    """The constraint A' h(eta_0) = 0.

    Parameters
    ----------
    A : Matrix, (n_obs, q)
        Of full column rank.
    link : Link
        Of the first predictor, whose inverse is h.
    """

    A: Matrix
    link: Link

    def value(self, mean: Vector) -> Vector:
        """A' mean, (q,)."""
        return np.asarray(self.A.T @ mean)

    def size(self, mean: Vector) -> float:
        """Sum of the sizes of the terms of the largest constraint: what rounding is relative to."""
        return float((np.abs(self.A).T @ np.abs(mean)).max())


def slopes(link: Link, eta: Vector) -> tuple[Vector, Vector, Vector]:
    """h(eta), dh / deta and d2h / deta2 of an inverse link, each (n_obs,)."""
    first = tf.constant(eta, tf.float64)
    none = tf.UnconnectedGradients.ZERO
    with tf.GradientTape() as outer:
        outer.watch(first)
        with tf.GradientTape() as inner:
            inner.watch(first)
            mean = link.inverse(first)
        slope = inner.gradient(mean, first, unconnected_gradients=none)
    bend = outer.gradient(slope, first, unconnected_gradients=none)
    return mean.numpy(), slope.numpy(), bend.numpy()


@dataclass(frozen=True)
class Constrained:
    """A constrained maximum.

    Parameters
    ----------
    coef : Vector, (n_coef,)
    multipliers : Vector, (q,)
        Nu, log-likelihood per unit of c.
    jacobian : Matrix, (q, n_coef)
        J at `coef`.
    steps : int
    feasible : bool
        Whether the constraint holds to rounding.
    converged : bool
    """

    coef: Vector
    multipliers: Vector
    jacobian: Matrix
    steps: int
    feasible: bool
    converged: bool


@dataclass(frozen=True)
class _Problem:
    objective: Objective
    balance: Balance
    S: Matrix
    tilt: Vector
    free: Array

    def at(self, coef: Vector) -> _Point:
        derivatives = self.objective.derivatives(coef)
        first = self.objective.units[0]
        eta = first.X @ coef[self.objective.slices[0]] + first.offset
        mean, slope, bend = slopes(self.balance.link, eta)
        smooth = self.S @ coef
        value = -derivatives.value + 0.5 * float(coef @ smooth) + float(self.tilt @ coef)
        J = np.zeros((self.balance.A.shape[1], len(coef)))
        J[:, self.objective.slices[0]] = (self.balance.A * slope[:, None]).T @ first.X
        return _Point(
            coef=coef,
            value=value,
            gradient=(-derivatives.gradient + smooth + self.tilt)[self.free],
            hessian=(derivatives.H + self.S)[np.ix_(self.free, self.free)],
            c=self.balance.value(mean),
            size=self.balance.size(mean),
            J=J,
            bend=bend,
        )

    def curvature(self, point: _Point, multipliers: Vector) -> Matrix:
        """B: of f and of the constraints."""
        X = self.objective.units[0].X
        own = (X * (point.bend * (self.balance.A @ multipliers))[:, None]).T @ X
        every = np.zeros_like(self.S)
        index = self.objective.slices[0]
        every[index, index] = own
        return np.asarray(point.hessian + every[np.ix_(self.free, self.free)])

    def moved(self, point: _Point, step: Vector) -> _Point:
        coef = point.coef.copy()
        coef[self.free] += step
        return self.at(coef)


@dataclass(frozen=True)
class _Point:
    """Value and derivatives of f and c; gradient and Hessian over the free coefficients."""

    coef: Vector
    value: float
    gradient: Vector
    hessian: Matrix
    c: Vector
    size: float
    J: Matrix
    bend: Vector

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.isfinite(self.c).all())

    def merit(self, penalty: float) -> float:
        return self.value + penalty * float(np.abs(self.c).sum())


@dataclass(frozen=True)
class _Step:
    """Steps 1 and 2: direction, multipliers after it, likelihood to be gained, J^+."""

    direction: Vector
    multipliers: Vector
    decrement: float
    inverse: Matrix


def maximise(
    objective: Objective,
    start: Vector,
    balance: Balance,
    *,
    S: Matrix,
    tilt: Vector,
    free: Array,
) -> Constrained:
    """Penalised maximum likelihood under the constraint, over the coefficients `free`.

    Parameters
    ----------
    objective : Objective
        Without columns by level.
    start : Vector, (n_coef,)
    balance : Balance
    S : Matrix, (n_coef, n_coef)
        Total penalty.
    tilt : Vector, (n_coef,)
        t: the gradient of l - 1/2 b' S b that counts as zero.
    free : array of int
    """
    problem = _Problem(objective, balance, S, tilt, free)
    point, penalty, steps = problem.at(start), 0.0, 0
    while True:
        step = _step(problem, point)
        feasible = float(np.abs(point.c).max()) <= FEASIBLE * point.size
        converged = feasible and step.decrement < DECREMENT
        penalty = max(penalty, 2.0 * float(np.abs(step.multipliers).max()))
        better = None if converged or steps == MAX_STEPS else _search(problem, point, step, penalty)
        if better is None:
            J = np.where(np.isin(np.arange(len(start)), free), point.J, 0.0)
            return Constrained(point.coef, step.multipliers, J, steps, feasible, converged)
        point, steps = better, steps + 1


def _step(problem: _Problem, point: _Point) -> _Step:
    J = point.J[:, problem.free]
    left, values, right = np.linalg.svd(J)
    kept = int((values > DEPENDENT * values.max(initial=0.0)).sum())
    inverse = right[:kept].T @ (left[:, :kept] / values[:kept]).T
    Z = right[kept:].T
    multipliers = -inverse.T @ point.gradient
    B = problem.curvature(point, multipliers)
    towards = -inverse @ point.c
    if Z.shape[1]:
        sizes, vectors = scipy.linalg.eigh(Z.T @ B @ Z)
        sizes = np.maximum(np.abs(sizes), LEAST_CURVATURE * np.abs(sizes).max())
        slope = vectors.T @ (Z.T @ (point.gradient + B @ towards))
        along = Z @ (vectors @ (-slope / sizes))
        decrement = 0.5 * float(np.sum(slope**2 / sizes))
    else:
        along, decrement = np.zeros(len(towards)), 0.0
    direction = towards + along
    after = -inverse.T @ (point.gradient + B @ direction)
    return _Step(direction, after, decrement, inverse)


def _search(problem: _Problem, point: _Point, step: _Step, penalty: float) -> _Point | None:
    """Step 3: the next point, None where no step helps."""
    before = point.merit(penalty)
    slope = float(point.gradient @ step.direction) - penalty * float(np.abs(point.c).sum())
    # the sum over rows is known to rounding only: a rise below that is none
    slack = 1e-13 * (abs(point.value) + problem.objective.n_obs + penalty * point.size)

    def accepted(trial: _Point, length: float) -> bool:
        allowed = before + SUFFICIENT * length * min(slope, 0.0) + slack
        return trial.finite and trial.merit(penalty) <= allowed

    for halving in range(MAX_HALVINGS):
        length = 0.5**halving
        trial = problem.moved(point, length * step.direction)
        if accepted(trial, length):
            return trial
        if halving == 0 and trial.finite:
            corrected = problem.moved(point, step.direction - step.inverse @ trial.c)
            if accepted(corrected, length):
                return corrected
    return None
