"""A model with sparse terms: its coordinates, its parts, and what remains of it (METHODS 6).

    minimise  -l(b) + 1/2 sum_j lam_j b' S_j b + (N / phi) sum_t lam_t penalty_t(c),   b = T c

    penalty_t(c) = sum_g alpha (1 - l1) sqrt(p_g) |c_g|^(2/D) + alpha l1 |c_g|_1
                         + (1 - alpha) / 2 |c_g|^2

N is the sum of the weights, phi the constant dispersion where one is estimated, else 1: lam_t is
glmnet's, also of its "gaussian", where phi does not move the coefficients (as with mgcv's sp).
Columns are standardised here, over the rows of the fit, so that weight 2 is the row twice.

`restricted` makes the objective on the coefficients that are not zero, with the gates' quadratic
penalties in the place of the sparse ones: an ordinary structured model.

References: Friedman, Hastie & Tibshirani (2010), doi:10.18637/jss.v033.i01; Yuan & Lin (2006),
doi:10.1111/j.1467-9868.2005.00532.x; Simon et al. (2013), doi:10.1080/10618600.2012.681250.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse

from deepregress.design import Design
from deepregress.families.base import Family, upper_pairs
from deepregress.families.categorical import ClassLogits
from deepregress.gating import (
    GroupPenalty,
    Sparsity,
    column_scales,
    smallest_strength,
    standardising,
)
from deepregress.linalg import Array, Matrix, Vector, one_blas_thread
from deepregress.marginal import Problem
from deepregress.objective import Objective, Unit
from deepregress.penalty import PlacedPenalty
from deepregress.smoothing import first
from deepregress.solvers.likelihood import Likelihoods
from deepregress.solvers.sparse import Coordinates, Penalised, State, state_at
from deepregress.terms.smooth import check_memory

STRAIGHT = 1e6
"""Largest smoothing parameter, relative to the balance of penalty and information: such a term is
its null space to six digits, and more would cost the sparse solver as many digits."""
NEARLY_STRAIGHT = 1e3
"""Largest smoothing parameter from which another one is looked for, likewise: from further out V,
flat there, would not lead back to a curve."""
LEAST_ALPHA = 1e-3
"""Share of norms that stands for none where the largest lam of interest is asked for, as in R's
glmnet."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A sparse block: its predictor, its first column there, its size and what is asked of it."""

    unit: int
    parameter: str
    start: int
    n_coef: int
    sparsity: Sparsity

    @property
    def key(self) -> tuple[str, str]:
        """What its term is called: by its parameter too, unless it is joint."""
        return "" if self.sparsity.joint else self.parameter, self.sparsity.term


def placed(designs: Mapping[str, Design]) -> tuple[Placed, ...]:
    """The sparse blocks of all predictors, in their order."""
    found = []
    for unit, (name, design) in enumerate(designs.items()):
        start = 0
        for block in design.columns:
            if block.sparsity is not None:
                found.append(Placed(unit, name, start, block.n_coef, block.sparsity))
            start += block.n_coef
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Terms:
    """The sparse terms of a model on its rows.

    Parameters
    ----------
    coordinates : Coordinates
    blocks : tuple of Array of int
        Coefficients whose penalties are kept together: those of each sparse block, or of a joint
        term in all predictors; ascending.
    term : Array of int, (n_groups,)
        Term that each group belongs to.
    weight, alpha, l1 : Vector, (n_groups,)
        sqrt(p_g), p_g the coefficients in one predictor; and the shares in the penalty.
    depth : Array of int, (n_groups,)
    given : tuple of Sparsity
        What each term asks.
    parameters : tuple of tuple of str
        Parameters in which each term stands: several for a joint one.
    """

    coordinates: Coordinates
    blocks: tuple[Array, ...]
    term: Array
    weight: Vector
    alpha: Vector
    l1: Vector
    depth: Array
    given: tuple[Sparsity, ...]
    parameters: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, objective: Objective, found: Sequence[Placed]) -> Terms:
        """Standardise the columns of the sparse blocks over the rows."""
        keys = list(dict.fromkeys(block.key for block in found))
        parts, index, asked, term, blocks = [], [], [], [], []
        for together in _together(found):
            firsts = [objective.slices[block.unit].start + block.start for block in together]
            block = together[0]
            own = np.array(block.sparsity.groups)
            places = [np.arange(first, first + block.n_coef) for first in firsts]
            blocks.append(np.sort(np.concatenate(places)))
            metric = _joint_root(objective.family, len(together))
            X = objective.units[block.unit].X[:, block.start : block.start + block.n_coef]
            inverse, sd = column_scales(X, objective.response.weights)
            for g in dict.fromkeys(block.sparsity.groups):
                members = np.flatnonzero(own == g)
                T, R = np.diag(inverse[members]), np.diag(sd[members])
                if block.sparsity.whole[members[0]]:
                    T, R = standardising(X[:, members], objective.response.weights)
                if len(together) > 1:
                    T = np.kron(np.linalg.inv(metric), T).astype(np.float64)
                    R = np.kron(metric, R).astype(np.float64)
                parts.append((T, R))
                index.append(np.concatenate([first + members for first in firsts]))
                asked.append((block.sparsity, len(members)))
                term.append(keys.index(block.key))
        given = {block.key: block.sparsity for block in found}
        names = {key: dict.fromkeys(b.parameter for b in found if b.key == key) for key in keys}
        return cls(
            coordinates=Coordinates(
                np.concatenate(index),
                np.repeat(np.arange(len(index)), [len(members) for members in index]),
                _block_diagonal([T for T, _ in parts]),
                _block_diagonal([R for _, R in parts]),
            ),
            blocks=tuple(blocks),
            term=np.array(term),
            weight=np.sqrt([size for _, size in asked]),
            alpha=np.array([each.alpha for each, _ in asked]),
            l1=np.array([each.l1 for each, _ in asked]),
            depth=np.array([each.depth for each, _ in asked]),
            given=tuple(given[key] for key in keys),
            parameters=tuple(tuple(names[key]) for key in keys),
        )

    def penalty(self, lam: Vector, scale: float) -> tuple[GroupPenalty, Vector]:
        """Norms, and the ridge of each coefficient (n_sparse,), at lam (n_terms,) times `scale`."""
        factor = scale * lam[self.term]
        norms = GroupPenalty(
            self.coordinates.group,
            factor * self.alpha * (1.0 - self.l1) * self.weight,
            factor * self.alpha * self.l1,
            self.depth,
        )
        return norms, (factor * (1.0 - self.alpha))[self.coordinates.group]


def _together(found: Sequence[Placed]) -> list[list[Placed]]:
    """Blocks whose groups are one: a joint term's first block in all predictors, its second, ..."""
    kept: dict[tuple[str, str, int], list[Placed]] = {}
    for i, block in enumerate(found):
        earlier = [b for b in found[:i] if (b.unit, b.key) == (block.unit, block.key)]
        kept.setdefault((*block.key, len(earlier)), []).append(block)
    return list(kept.values())


def _block_diagonal(parts: Sequence[Matrix]) -> scipy.sparse.csr_array:
    """Square blocks in the order of their rows; hundreds of single numbers at once."""
    if all(part.size == 1 for part in parts):
        return scipy.sparse.csr_array(scipy.sparse.diags_array(np.concatenate(parts)[:, 0]))
    return scipy.sparse.csr_array(scipy.sparse.block_diag(parts))


def _joint_root(family: Family, n_units: int) -> Matrix:
    """A with |A theta| the size of the effects theta (n_units,) of a column in some predictors.

    In all logits of a class it is their size, with the reference's 0, about their mean, as in the
    symmetric softmax of glmnet: A'A = I - 11' / K, which is the same for any reference.
    """
    root = np.eye(n_units)
    if isinstance(family, ClassLogits) and n_units > 1 and n_units == len(family.levels) - 1:
        root -= (1.0 - 1.0 / np.sqrt(n_units + 1)) / n_units
    return root


@dataclass(frozen=True, eq=False)
class Setting:
    """Coefficients b (n_coef,), lam (n_penalties,) of the quadratic penalties, dispersion phi."""

    b: Vector
    lam: Vector
    phi: float


@dataclass(frozen=True, eq=False)
class SparseModel:
    """An objective with sparse terms, and its fit without their effects.

    Parameters
    ----------
    objective : Objective
    terms : Terms
    plain : Array of int
        Coefficients without a sparse penalty.
    whole : Problem
        What is a constant dispersion or extra parameter, whatever is selected.
    null : Setting
        Where all sparse effects are zero.
    method : {"REML", "ML"}
    balance : Vector, (n_penalties,)
        Smoothing parameters at which penalty and information of a term are of one size.
    """

    objective: Objective
    terms: Terms
    plain: Array
    whole: Problem
    null: Setting
    method: str
    balance: Vector

    @classmethod
    def of(
        cls, objective: Objective, found: Sequence[Placed], *, method: str = "REML"
    ) -> SparseModel:
        """Standardise the columns and fit the model without sparse effects."""
        objective = _without_levels(objective)
        with one_blas_thread():
            terms = Terms.of(objective, found)
            plain = np.setdiff1d(np.arange(objective.n_coef), terms.coordinates.index)
            rest = restricted(objective, plain)
            fitted = first(rest.objective, method=method)
        whole = Problem.of(objective)
        b = np.zeros(objective.n_coef)
        b[plain] = fitted.coef
        phi = whole.phi(b)
        balance = _balance(objective, b)
        lam = np.where(_given(objective) >= 0.0, _given(objective) / phi, balance)
        lam[rest.penalties] = fitted.lam
        null = Setting(b, np.minimum(lam, STRAIGHT * balance), phi)
        return cls(objective, terms, plain, whole, null, method, balance)

    @property
    def weight(self) -> float:
        """Sum of the rows' weights N."""
        return float(self.objective.response.weights.sum())

    def penalised(self, lam: Vector, at: Setting) -> Penalised:
        """The objective at sparse lam (n_terms,) with the smoothing parameters of a setting."""
        norms, ridge = self.terms.penalty(lam, self.weight / at.phi)
        S = total_penalty(self.objective, at.lam) if len(at.lam) else self._no_penalty
        return Penalised(
            self.objective, self.terms.coordinates, norms, ridge, S, self.free, self.sizes
        )

    @cached_property
    def _no_penalty(self) -> scipy.sparse.csr_array:
        return scipy.sparse.csr_array((self.objective.n_coef, self.objective.n_coef))

    def likelihoods(self, *, on_path: bool = False) -> Likelihoods:
        """What evaluates the likelihood where all but the constants moves."""
        moving = np.union1d(self.free, self.terms.coordinates.index)
        return Likelihoods(self.objective, moving, many=on_path and not len(self.balance))

    def largest(self) -> Vector:
        """The lam of each group above which it is zero while all others are, (n_groups,)."""
        one = np.ones(len(self.terms.given))
        null = self.likelihoods().at(self.null.b)
        state = state_at(self.penalised(one, self.null), null)
        terms = replace(self.terms, alpha=np.maximum(self.terms.alpha, LEAST_ALPHA))
        norms, _ = terms.penalty(one, self.weight / self.null.phi)
        return smallest_strength(norms, state.sparse_gradient)

    @cached_property
    def sizes(self) -> Vector:
        """Root mean squares of the columns of the coefficients `free`, (n_free,)."""
        weights, found = self.objective.response.weights, []
        for unit, index in zip(self.objective.units, self.objective.slices, strict=True):
            own = self.free[(self.free >= index.start) & (self.free < index.stop)] - index.start
            found.append(np.sqrt(weights @ unit.X[:, own] ** 2 / self.weight))
        return np.asarray(np.maximum(np.concatenate(found), np.finfo(float).tiny))

    @cached_property
    def free(self) -> Array:
        """Coefficients that move with the sparse ones: all others but the constants."""
        return np.setdiff1d(self.plain, self.whole.held)

    @property
    def estimated(self) -> bool:
        """Whether there is a smoothing parameter to choose."""
        every = (p for unit in self.objective.units for p in unit.penalties)
        return any(p.sp is None for p in every)

    @cached_property
    def smooth(self) -> Array:
        """Which coefficients have a quadratic penalty, (n_coef,) of bool."""
        found = np.zeros(self.objective.n_coef, dtype=bool)
        for unit, index in zip(self.objective.units, self.objective.slices, strict=True):
            for p in unit.penalties:
                found[index.start + p.index.start : index.start + p.index.stop] = True
        return found

    def active(self, c: Vector) -> Array:
        """Coefficients that have no sparse penalty or are not zero, ascending."""
        return np.sort(np.concatenate([self.plain, self.terms.coordinates.index[c != 0]]))


def _without_levels(objective: Objective) -> Objective:
    """The objective with all columns as arrays, which working sets are cut from.

    Raises
    ------
    DataError
        Columns of a factor with very many levels do not fit into memory.
    """
    units = []
    for unit in objective.units:
        if unit.levels:
            check_memory(objective.n_obs, unit.n_coef, "a random effect beside sparse terms")
            X = np.ascontiguousarray(unit.matrix.columns(np.arange(unit.n_coef)))
            unit = Unit(X, unit.offset, unit.penalties)
        units.append(unit)
    return replace(objective, units=tuple(units))


def _balance(objective: Objective, b: Vector) -> Vector:
    """tr(X' W X) / tr(S) of each quadratic penalty, at b; (n_penalties,)."""
    eta = objective.eta(b)
    if objective.risk_sets is None:
        W = objective.row_derivatives(eta)[2] * objective.response.weights[:, None]
    else:
        W = np.zeros((objective.n_obs, len(upper_pairs(len(objective.units)))))
        W[:, 0] = objective.risk_sets.at(eta[:, 0]).expected
    found, diagonal, n_units = [], 0, len(objective.units)
    for u, unit in enumerate(objective.units):
        w = np.maximum(W[:, diagonal], 0.0)
        for p in unit.penalties:
            information = float(w @ (unit.X[:, p.index] ** 2).sum(axis=1))
            size = p.S.sum() if p.S.ndim == 1 else np.trace(p.S)
            found.append(max(information, np.finfo(float).tiny) / size)
        diagonal += n_units - u
    return np.array(found)


def _given(objective: Objective) -> Vector:
    """The sp that the user fixed, else -1; (n_penalties,)."""
    every = [p for unit in objective.units for p in unit.penalties]
    return np.array([-1.0 if p.sp is None else p.sp for p in every])


def total_penalty(objective: Objective, lam: Vector) -> scipy.sparse.csr_array:
    """sum_j lam_j S_j over the joint coefficient vector."""
    rows, columns, values, number = [], [], [], 0
    for unit, index in zip(objective.units, objective.slices, strict=True):
        for p in unit.penalties:
            S = scipy.sparse.diags(p.S) if p.S.ndim == 1 else p.S
            placed_S = scipy.sparse.coo_array(S)
            rows.append(index.start + p.index.start + placed_S.row)
            columns.append(index.start + p.index.start + placed_S.col)
            values.append(lam[number] * placed_S.data)
            number += 1
    shape = (objective.n_coef, objective.n_coef)
    if not number:
        return scipy.sparse.csr_array(shape)
    places = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array(scipy.sparse.coo_array((np.concatenate(values), places), shape))


# -- what remains when the zeros are left out ------------------------------------------------------

Gates = tuple[Array, Matrix]
"""Coefficients of one of `Terms.blocks` that are not zero, and a quadratic penalty on them in units
of sp."""


def gate_penalties(
    model: SparseModel, lam: Vector, state: State, *, second: bool = False
) -> list[Gates]:
    """What the sparse penalties are while the gates are held; or their second derivatives."""
    at = model.terms.coordinates
    norms, ridge = model.terms.penalty(lam, model.weight)
    on = np.flatnonzero(state.c)
    if not len(on):
        return []
    weights = norms.curvature(state.c, on) if second else np.diag(norms.weights(state.c)[on])
    R = at.R[on][:, on].toarray()
    G, index = R.T @ (weights + np.diag(ridge[on])) @ R, at.index[on]
    found = []
    for block in model.terms.blocks:
        own = np.flatnonzero(np.isin(index, block))
        own = own[np.argsort(index[own])]
        if G[np.ix_(own, own)].any():
            found.append((index[own], G[np.ix_(own, own)]))
    return found


@dataclass(frozen=True, eq=False)
class Restricted:
    """The objective on some coefficients of the joint vector (`columns`, ascending).

    `penalties`: the number of each of its quadratic penalties in the whole model, -1 for gates.
    """

    objective: Objective
    columns: Array
    penalties: Array


def restricted(
    objective: Objective, columns: Array, gates: Sequence[Gates] = (), *, sp: Vector | None = None
) -> Restricted:
    """The objective on `columns` (ascending), with the gates' penalties beside its own.

    Parameters
    ----------
    objective : Objective
    columns : Array of int, (m,)
    gates : sequence of Gates
    sp : Vector, (n_penalties,), optional
        Holds the smoothing parameters at these values.
    """
    units, numbers, number = [], [], 0
    for unit, index in zip(objective.units, objective.slices, strict=True):
        local = columns[(columns >= index.start) & (columns < index.stop)] - index.start
        penalties = []
        for p in unit.penalties:
            place = np.flatnonzero((local >= p.index.start) & (local < p.index.stop))
            if len(place) == p.index.stop - p.index.start:
                held = p if sp is None else replace(p, sp=float(sp[number]), df=None)
                at = slice(int(place[0]), int(place[-1]) + 1)
                penalties.append(replace(held, index=at))
                numbers.append(number)
            number += 1
        for own, G in gates:
            if index.start <= own[0] < index.stop:
                # a joint term's reaches into the predictors that follow
                place = np.searchsorted(columns, own)
                S = np.zeros((place[-1] - place[0] + 1,) * 2)
                S[np.ix_(place - place[0], place - place[0])] = G
                first = int(np.searchsorted(local, own[0] - index.start))
                at = slice(first, first + len(S))
                penalties.append(PlacedPenalty("gates", at, S, len(G), sp=1.0))
                numbers.append(-1)
        X = np.ascontiguousarray(unit.X[:, local])
        units.append(Unit(X, unit.offset, tuple(penalties)))
    rest = replace(objective, units=tuple(units))
    return Restricted(rest, columns, np.array(numbers, dtype=np.int64))
