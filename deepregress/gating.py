"""Sparse penalties on groups of coefficients, and the gates that make them smooth (METHODS 6).

    penalty(c) = sum_g strength_g |c_g|^(2/D)  +  sum_g l1_g |c_g|_1             D = depth of g

With c_g = omega_g gamma_g1 ... gamma_g,D-1 (one main factor, D - 1 scalar gates) the first part is
the least value of a sum of squares,

    |c_g|^(2/D) = min  (|omega_g|^2 + sum_d gamma_gd^2) / D,     attained at |omega| = gamma_d,

so a stationary point has balanced factors, gamma = |c_g|^(1/D). D = 2 is the (group) lasso, which
is convex; D > 2 is a non-convex penalty of power 2/D, whose minimum in a neighbourhood is meant.
With all gates held the penalty is quadratic; with all but one it is a group lasso.

References: Kolb, Mueller, Bischl & Ruegamer (2023), arXiv:2307.03571; Kolb et al. (2025),
arXiv:2509.23898; Yuan & Lin (2006), doi:10.1111/j.1467-9868.2005.00532.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg

from deepregress.linalg import Array, Matrix, Vector

# Columns whose sd is below this fraction of their root mean square are constant up to rounding.
CONSTANT = 1e-10
CHUNK_ROWS = 4096
"""Rows at a time where a copy of all columns would take as much memory again."""

SELECT = ("bic", "ebic", "cv", "cv1se")
"""What can choose lam on a path."""


@dataclass(frozen=True, eq=False)
class Sparsity:
    """What a term asks of the coefficients of one block.

    Parameters
    ----------
    term : str
        The term as written in the formula, which several blocks may share.
    groups : tuple of int
        Number, within the term, of the group of each coefficient of the block.
    whole : tuple of bool
        Of each coefficient: whether the size of its group is the sd of its effect over the rows,
        the same for any coding of a factor; else columns are standardised one by one.
    lam : float or None
        Penalty per observation (glmnet's lambda); None: chosen on a path.
    depth : int
        D of its gates.
    alpha : float
        Share of the norms in the penalty; the rest goes to half the squares (elastic net).
    l1 : float
        Share of single coefficients in the norms (sparse group lasso).
    select : str
        What chooses lam: "bic", "ebic", "cv" or "cv1se".
    folds : int
        Of the cross-validation.
    refit : bool
        Whether what was selected is fitted again without the penalty.
    joint : bool
        Whether a group is one over all predictors in which the term stands.
    """

    term: str
    groups: tuple[int, ...]
    whole: tuple[bool, ...]
    lam: float | None = None
    depth: int = 2
    alpha: float = 1.0
    l1: float = 0.0
    select: str = "bic"
    folds: int = 10
    refit: bool = False
    joint: bool = False

    def keep(self, kept: Sequence[int]) -> Sparsity:
        """What is asked of some coefficients of the block, (len(kept),)."""
        groups = tuple(self.groups[j] for j in kept)
        return replace(self, groups=groups, whole=tuple(self.whole[j] for j in kept))


@dataclass(frozen=True, eq=False)
class GroupPenalty:
    """A sparse penalty on coefficients c (n_coef,) in groups.

    Parameters
    ----------
    group : Array of int, (n_coef,)
        Group of each coefficient, 0 .. n_groups - 1.
    strength : Vector, (n_groups,)
        Factor of the norm of each group, sum scale.
    l1 : Vector, (n_groups,)
        Factor of the absolute values of its coefficients.
    depth : Array of int, (n_groups,)
    """

    group: Array
    strength: Vector
    l1: Vector
    depth: Array

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.strength)

    @cached_property
    def power(self) -> Vector:
        """2 / D of each group."""
        return np.asarray(2.0 / self.depth)

    @cached_property
    def lasso_strength(self) -> Vector | None:
        """Factor of |c| where every group is one coefficient of D = 2, (n_coef,)."""
        alone = self.n_groups == len(self.group)
        return self.strength + self.l1 if alone and self.convex else None

    def norms(self, c: Vector) -> Vector:
        """|c_g| of each group, (n_groups,)."""
        if self.n_groups == len(self.group):
            return np.asarray(np.abs(c))
        # scaled, so that squares of tiny coefficients do not vanish
        size = float(np.max(np.abs(c), initial=0.0)) or 1.0
        return np.asarray(size * np.sqrt(np.bincount(self.group, (c / size) ** 2, self.n_groups)))

    def value(self, c: Vector) -> float:
        """The penalty at c."""
        if self.lasso_strength is not None:
            return float(np.where(c != 0, self.lasso_strength, 0.0) @ np.abs(c))
        norms = self.norms(c)
        on = norms > 0.0
        value = self.strength[on] @ norms[on] ** self.power[on] + self.l1[self.group] @ np.abs(c)
        return float(value)

    def gates(self, c: Vector) -> Vector:
        """Balanced gates |c_g|^(1/D) of each group, (n_groups,)."""
        return np.asarray(self.norms(c) ** (1.0 / self.depth))

    def weights(self, c: Vector) -> Vector:
        """w with gradient w c where c is not zero: the quadratic penalty 1/2 w c^2 of the gates."""
        gates = self.gates(c)[self.group]
        depth = self.depth[self.group]
        on = (gates > 0) & (c != 0)
        w = np.zeros_like(c)
        w[on] = 2.0 / depth[on] * self.strength[self.group][on] / gates[on] ** (2 * depth[on] - 2)
        w[on] += self.l1[self.group][on] / np.abs(c[on])
        return w

    def gradient(self, c: Vector) -> Vector:
        """Gradient where c is not zero, else 0; (n_coef,)."""
        if self.lasso_strength is not None:
            return np.asarray(np.where(c != 0, np.copysign(self.lasso_strength, c), 0.0))
        return np.asarray(self.weights(c) * c)

    def curvature(self, c: Vector, support: Array) -> Matrix:
        """Hessian over the coefficients `support`, none of which is zero.

        strength q |c_g|^(q - 2) (I - (2 - q) c_g c_g' / |c_g|^2): zero for a group of one at D = 2.
        """
        group, on = self.group[support], c[support]
        norm, power = self.norms(c)[group], self.power[group]
        w = self.strength[group] * power * norm ** (power - 2.0)
        unit = on / norm
        C = np.diag(w * (1.0 - (2.0 - power) * unit**2))
        several = np.flatnonzero(np.bincount(group, minlength=self.n_groups)[group] > 1)
        for g in np.unique(group[several]):
            own = several[group[several] == g]
            q, first = power[own[0]], own[0]
            C[np.ix_(own, own)] = w[first] * (
                np.eye(len(own)) - (2.0 - q) * np.outer(unit[own], unit[own])
            )
        return C

    def prox(self, g: int, z: Vector, step: float) -> Vector:
        """The c that minimises 1/2 |c - z|^2 + step penalty(c) of one group g at D = 2."""
        soft = np.sign(z) * np.maximum(np.abs(z) - step * self.l1[g], 0.0)
        size = float(np.sqrt(soft @ soft))
        kept = size - step * self.strength[g]
        return np.asarray(soft * (kept / size)) if kept > 0.0 else np.zeros_like(soft)

    def violation(self, c: Vector, gradient: Vector) -> Vector:
        """Distance of -gradient of the loss from the subdifferential, largest of each group.

        A zero group of D > 2 is a minimum whatever the gradient is.
        """
        if self.lasso_strength is not None:
            inside = np.maximum(np.abs(gradient) - self.lasso_strength, 0.0)
            return np.asarray(np.where(c != 0, np.abs(gradient + self.gradient(c)), inside))
        soft = np.maximum(np.abs(gradient) - self.l1[self.group], 0.0)
        inside = np.maximum(self.norms(soft) - self.strength, 0.0)
        inside[self.depth > 2] = 0.0
        norm = self.norms(c)
        # a zero coefficient of a group that is not zero is held by its own absolute value only
        each = np.where(c != 0, np.abs(gradient + self.gradient(c)), soft)
        outside = np.zeros(self.n_groups)
        np.maximum.at(outside, self.group, each)
        return np.where(norm > 0, outside, inside)

    def restrict(self, groups: Array) -> GroupPenalty:
        """The penalty of some groups (ascending), renumbered from 0."""
        place = np.full(self.n_groups, -1)
        place[groups] = np.arange(len(groups))
        own = place[self.group]
        return GroupPenalty(
            own[own >= 0], self.strength[groups], self.l1[groups], self.depth[groups]
        )

    def outer_gates(self, c: Vector) -> GroupPenalty:
        """The group lasso that remains when D - 2 gates of each group are held as they are at c.

        Its strengths are 2 / D strength / gamma^(D - 2), infinite for a group that is zero: it has
        the value's gradient at c and lies above it elsewhere.
        """
        with np.errstate(divide="ignore"):
            strength = self.power * self.strength / self.gates(c) ** (self.depth - 2)
        return replace(self, strength=strength, depth=np.full(self.n_groups, 2))

    def lasso(self) -> GroupPenalty:
        """The same strengths with D = 2."""
        return replace(self, depth=np.full(self.n_groups, 2))

    @property
    def convex(self) -> bool:
        """Whether every group has D = 2."""
        return bool(np.all(self.depth == 2))


def lift(c: Vector, depth: int) -> tuple[Vector, Vector]:
    """Balanced factors of one group: main factor omega (n,) and gates gamma (depth - 1,).

    Raises
    ------
    ValueError
        c is zero, a saddle point of the factors from which no descent starts.
    """
    norm = float(np.linalg.norm(c))
    if norm == 0.0:
        raise ValueError("a group of zeros has no factors to start from")
    return c * norm ** (1.0 / depth - 1.0), np.full(depth - 1, norm ** (1.0 / depth))


def collapse(omega: Vector, gamma: Vector) -> Vector:
    """The coefficients of a group from its factors, c = omega prod(gamma)."""
    return np.asarray(omega * np.prod(gamma))


def surrogate(omega: Vector, gamma: Vector) -> float:
    """The smooth penalty (|omega|^2 + |gamma|^2) / D that takes the place of |c|^(2/D)."""
    return float(omega @ omega + gamma @ gamma) / (1 + len(gamma))


def smallest_strength(
    penalty: GroupPenalty, gradient: Vector, *, tolerance: float = 1e-12
) -> Vector:
    """Factor on strength and l1 of each group above which it is zero, (n_groups,).

    The root t of |soft(gradient_g, t l1_g)| = t strength_g, by bisection: its left side falls.
    """
    low = np.zeros(penalty.n_groups)
    total = penalty.strength + penalty.l1
    largest = penalty.norms(gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where(total > 0, largest / np.maximum(penalty.strength, penalty.l1), np.inf)
    high = np.where(largest == 0, 0.0, high)
    finite = np.isfinite(high)
    while np.any(high[finite] - low[finite] > tolerance * high[finite]):
        middle = np.where(finite, (low + high) / 2.0, 0.0)
        soft = np.maximum(np.abs(gradient) - middle[penalty.group] * penalty.l1[penalty.group], 0.0)
        inside = penalty.norms(soft) <= middle * penalty.strength
        high = np.where(finite & inside, middle, high)
        low = np.where(finite & ~inside, middle, low)
    return high


def standardising(X: Matrix, weights: Vector) -> tuple[Matrix, Matrix]:
    """T and R, (p, p) each, with b = T c and c = R b for a group that is taken as a whole.

    |c| is the sd of the effect X b over the rows, weighted, with 1/n. A direction in which nothing
    varies has no coefficient: T is zero there.

    Parameters
    ----------
    X : Matrix, (n_obs, p)
    weights : Vector, (n_obs,)
    """
    share = weights / weights.sum()
    mean = share @ X
    Q = scipy.linalg.qr((X - mean) * np.sqrt(share)[:, None], mode="r")[0][: X.shape[1]]
    _, size, V = scipy.linalg.svd(Q)
    size = np.concatenate([size, np.zeros(len(V) - len(size))])
    varies = size > CONSTANT * np.sqrt(share @ X**2).max()
    inverse = np.divide(1.0, size, out=np.zeros_like(size), where=varies)
    return V.T * inverse, np.where(varies, size, 0.0)[:, None] * V


def column_scales(X: Matrix, weights: Vector) -> tuple[Vector, Vector]:
    """1 / sd and sd of each column, weighted, with 1/n; both zero for a constant one, (p,) each.

    Parameters
    ----------
    X : Matrix, (n_obs, p)
    weights : Vector, (n_obs,)
    """
    share = weights / weights.sum()
    mean, square, variance = share @ X, np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for start in range(0, len(X), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        square += share[rows] @ X[rows] ** 2
        variance += share[rows] @ (X[rows] - mean) ** 2
    sd = np.sqrt(variance)
    varies = sd > CONSTANT * np.sqrt(square)
    inverse = np.divide(1.0, sd, out=np.zeros_like(sd), where=varies)
    return inverse, np.where(varies, sd, 0.0)


@dataclass(frozen=True, eq=False)
class Selected:
    """What the sparse terms of a model came to.

    Parameters
    ----------
    terms : tuple of (str, str)
        Parameter and term as written.
    lam : Vector, (n_terms,)
        Penalty per observation.
    depth : tuple of int
        D of each term.
    n_groups, n_selected : tuple of int
        Groups (coefficients of a lasso) of each term, and those that are not zero.
    active : Array of bool, (n_coef,)
        Coefficients of the model that are not held at zero.
    sparse : Array of bool, (n_coef,)
        Coefficients that have a sparse penalty.
    residual : float
        Distance from the optimality conditions, per observation.
    criterion : str
        What chose lam: "" where it was given.
    refit : bool
        Whether the selected terms were fitted again without the penalty.
    """

    terms: tuple[tuple[str, str], ...]
    lam: Vector
    depth: tuple[int, ...]
    n_groups: tuple[int, ...]
    n_selected: tuple[int, ...]
    active: Array
    sparse: Array
    residual: float
    criterion: str
    refit: bool
