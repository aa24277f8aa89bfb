"""Sparse minimum of a quadratic model: the inner problem of the sparse solver (METHODS 6).

    minimise  1/2 c' Q c - r' c + sum_g strength_g |c_g| + l1_g |c_g|_1

1. Groups that violate the optimality conditions take a proximal step each, one after the other,
   c_g <- prox(c_g - (Q c - r)_g / |Q_gg|): this finds which groups are zero.
2. On the coefficients that are not zero the penalty is smooth: a Newton step there, coefficients
   that would change sign (groups that would turn round) set to zero, halved while the value rises.
Once the zeros are right, step 2 ends it; step 1 makes every round a descent, so it always ends.

References: Tseng (2001), doi:10.1023/A:1017501703105 (step 1 converges); Hintermueller, Ito &
Kunisch (2002), doi:10.1137/S1052623401383558 (the active set of step 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deepregress.gating import GroupPenalty
from deepregress.linalg import Array, Factor, Matrix, Vector, submatrix

MAX_ROUNDS = 1000
MAX_NEWTON = 3
MAX_HALVINGS = 6
TOLERANCE = 1e-12
"""Violation of the optimality conditions, relative to the largest strength or the first one."""
SOLVED = 0.1
"""Gradient on the support, relative to the largest violation, at which step 1 is due again."""
EPSILON = float(np.finfo(float).eps)
RIDGE = 1e-10
"""Relative size of the first ridge for a singular Q; it grows a hundredfold until Q factors."""


@dataclass(frozen=True)
class Model:
    """The quadratic 1/2 c' Q c - r' c."""

    Q: Matrix
    r: Vector

    @cached_property
    def sizes(self) -> Vector:
        """sqrt(Q_ii): |Q_ij| is at most the product of two."""
        return np.asarray(np.sqrt(np.maximum(np.diagonal(self.Q), 0.0)))


def minimise(model: Model, penalty: GroupPenalty, start: Vector) -> Vector:
    """The c (n_coef,) that minimises model and penalty; groups lie one after the other."""
    best = _Point.at(model, penalty, start)
    enough = TOLERANCE * max(
        penalty.strength.max(initial=0.0),
        penalty.l1.max(initial=0.0),
        best.violation.max(initial=0.0),
    )
    for _ in range(MAX_ROUNDS):
        if best.violation.max(initial=0.0) <= enough:
            break
        # a Newton step is exact for single coefficients that are not zero, and cheaper; where it is
        # no help, and for larger groups, all that are wrong take step 1
        every = np.ones(penalty.n_groups, dtype=bool)
        first = best.c == 0 if penalty.n_groups == len(best.c) else every
        trial = _on_support(model, penalty, _sweep(model, penalty, best, first), enough)
        if not trial.better(best) and not first.all():
            trial = _on_support(model, penalty, _sweep(model, penalty, best, every), enough)
        if not trial.better(best):
            break
        best = trial
    return best.c


@dataclass(frozen=True)
class _Point:
    """Coefficients, their value and its rounding, the model's gradient, each group's violation."""

    c: Vector
    value: float
    rounding: float
    gradient: Vector
    violation: Vector

    @classmethod
    def at(cls, model: Model, penalty: GroupPenalty, c: Vector) -> _Point:
        Qc = model.Q @ c
        value = 0.5 * float(c @ Qc) - float(model.r @ c) + penalty.value(c)
        size = np.abs(c)
        terms = float(size @ model.sizes) ** 2 + float(np.abs(model.r) @ size)
        gradient = Qc - model.r
        return cls(c, value, EPSILON * terms, gradient, penalty.violation(c, gradient))

    def better(self, other: _Point) -> bool:
        """Lower; where rounding cannot tell, nearer to the conditions."""
        if abs(self.value - other.value) > self.rounding + other.rounding:
            return self.value < other.value
        return float(self.violation.max()) < 0.5 * float(other.violation.max())


def _sweep(model: Model, penalty: GroupPenalty, point: _Point, groups: Array) -> Vector:
    """Step 1: the coefficients after a proximal step of each of the groups that is wrong."""
    ends = np.cumsum(np.bincount(penalty.group, minlength=penalty.n_groups)).tolist()
    c, gradient = point.c.copy(), point.gradient.copy()
    wrong = np.flatnonzero(groups & (point.violation > 0.0))
    for g in wrong[np.argsort(-point.violation[wrong])].tolist():
        place = slice(ends[g - 1] if g else 0, ends[g])
        bound = _largest_eigenvalue(model.Q[place, place])
        moved = penalty.prox(g, c[place] - gradient[place] / bound, 1.0 / bound)
        if np.any(moved != c[place]):
            gradient += model.Q[:, place] @ (moved - c[place])
            c[place] = moved
    return c


def _largest_eigenvalue(Q: Matrix) -> float:
    """Of a positive semi-definite Q; one if Q is zero."""
    largest = float(Q[0, 0]) if len(Q) == 1 else float(np.linalg.eigvalsh(Q)[-1])
    return largest if largest > 0.0 else 1.0


def _on_support(model: Model, penalty: GroupPenalty, c: Vector, enough: float) -> _Point:
    """Step 2, while it helps and the violation is not small enough."""
    point = _Point.at(model, penalty, c)
    for _ in range(MAX_NEWTON):
        support = np.flatnonzero(point.c)
        if not len(support) or point.violation.max() <= enough:
            break
        gradient = (point.gradient + penalty.gradient(point.c))[support]
        if np.abs(gradient).max() <= SOLVED * point.violation.max():
            break
        Q = model.Q if len(support) == len(point.c) else submatrix(model.Q, support)
        factor = _factor(Q, penalty, point.c, support)
        better = _search(model, penalty, point, support, -factor.solve(gradient))
        if better is None:
            break
        point = better
    return point


def _search(
    model: Model, penalty: GroupPenalty, point: _Point, support: Array, direction: Vector
) -> _Point | None:
    """The longest of direction, its half, ... that helps."""
    for halving in range(MAX_HALVINGS):
        after = point.c.copy()
        after[support] += direction / 2**halving
        trial = _Point.at(model, penalty, _without_crossings(penalty, point.c, after))
        if trial.better(point):
            return trial
    return None


def _factor(Q: Matrix, penalty: GroupPenalty, c: Vector, support: Array) -> Factor:
    """Of Q and the penalty's curvature on the support."""
    P = Q
    if np.any(np.bincount(penalty.group[support]) > 1):
        P = Q + penalty.curvature(c, support)
    factor = Factor.of(P)
    ridge, size = RIDGE, np.abs(np.diagonal(P)).mean() + np.finfo(float).tiny
    while factor is None:
        factor = Factor.of(P + ridge * size * np.eye(len(P)))
        ridge *= 100.0
    return factor


def _without_crossings(penalty: GroupPenalty, before: Vector, after: Vector) -> Vector:
    """`after` with zeros where a coefficient changed sign or a group turned round."""
    agree = np.bincount(penalty.group, before * after, penalty.n_groups)
    turned = (agree <= 0.0)[penalty.group] & (penalty.strength > 0)[penalty.group]
    crossed = (penalty.l1 > 0)[penalty.group] & (before * after < 0)
    return np.where(turned | crossed, 0.0, after)
