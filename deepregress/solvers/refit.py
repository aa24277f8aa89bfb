"""The structured fit given trained networks: their columns, projected, with a multiplier each.

    C_m = (X'WX)^-1 X'W D_m over all rows;  D_m <- D_m - X C_m
    q_i = D_{m(i), i}, projected once more on X and scaled to sd 1: one column each
    fit of [X, q] with a ridge penalty, chosen by REML, on each multiplier c >= 0

Steps 2 to 4 of `semistructured`; networks that no row was held out from are offsets.

References: METHODS 5.1; Ruegamer (2023), arXiv 2306.00522.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepregress.disk import scratch
from deepregress.errors import FitError
from deepregress.linalg import Array, Matrix, Vector, nearest_semidefinite, sandwich
from deepregress.objective import Objective
from deepregress.penalty import PlacedPenalty
from deepregress.predictor import Members, evaluate
from deepregress.projection import projection
from deepregress.solvers.base import Folds, Network, Solution, StructuredSolver
from deepregress.solvers.cell import as_trained
from deepregress.solvers.outputs import (
    joined_rows,
    less,
    out_of_fold_of,
    projection_weights,
    side_by_side,
    spread,
    working_weights,
)
from deepregress.solvers.parts import NetworkPart

NO_RIDGE = 1e-8
"""Smoothing parameter of a multiplier of sd 1 that a gate selects: no shrinkage to speak of."""


@dataclass(frozen=True)
class DeepColumns:
    """Trained networks after the projection.

    `projections` are the C of each part, (p, M), `held` the rows held out by a member,
    `out_of_fold` the outputs as in training and `columns` the projected ones of the member that did
    not see the row, (n_obs, n_parts); rows in no fold get the mean of all members.
    """

    objective: Objective
    parts: Sequence[NetworkPart]
    members: tuple[Members, ...]
    projections: tuple[Matrix, ...]
    held: Array
    out_of_fold: Matrix
    columns: Matrix

    @classmethod
    def of(
        cls,
        objective: Objective,
        parts: Sequence[NetworkPart],
        networks: Sequence[Network],
        folds: Folds,
        members: tuple[Members, ...],
        eta: Matrix,
    ) -> DeepColumns:
        """Evaluate all members on all rows and project them on the protected columns."""
        outputs = [
            evaluate(network.architecture, own, network.inputs)
            for network, own in zip(networks, members, strict=True)
        ]
        judged = [
            as_trained(network, D, folds) for network, D in zip(networks, outputs, strict=True)
        ]
        out_of_fold = side_by_side([out_of_fold_of(D, folds) for D in judged])
        units = [part.unit for part in parts]
        weights = projection_weights(objective, eta, out_of_fold, units)
        projections, columns = [], []
        for part, D in zip(parts, outputs, strict=True):
            X = objective.units[part.unit].matrix.select(part.protected)
            C = projection(X, weights[part.unit], D.T)
            projections.append(C)
            q = out_of_fold_of(less(D.T, X, C).T, folds)[:, None]
            # each member is orthogonal over all rows, the rows of different members together are
            # not: without this the network would move coefficients it must leave alone
            columns.append(less(q, X, projection(X, weights[part.unit], q))[:, 0])
        return cls(
            objective,
            parts,
            members,
            tuple(projections),
            joined_rows(folds.held),
            out_of_fold,
            side_by_side(columns),
        )

    def refit(self, structured: StructuredSolver, base: Solution, staying: Sequence[int]) -> Refit:
        """Steps 3 and 4: structured fit of [X, q]; parts with a negative multiplier leave."""
        scale = spread(self.columns)
        kept = [j for j in staying if scale[j] > 0]
        while True:
            extended, positions = self._extended(kept, scale)
            start = _extended_start(self.objective, base.coef, extended, positions, scale)
            solution = structured(extended, start) if kept else base
            negative = [j for j in kept if solution.coef[positions[j]] < 0]
            if not negative:
                break
            kept = [j for j in kept if j not in negative]
        multipliers = np.zeros(len(self.parts))
        for j in kept:
            multipliers[j] = solution.coef[positions[j]] / scale[j]
        return Refit(self, extended, solution, multipliers, positions)

    def given(self, structured: StructuredSolver, base: Solution, staying: Sequence[int]) -> Refit:
        """The structured part refitted with the projected networks as offsets."""
        extended, multipliers = self.objective, np.zeros(len(self.parts))
        for j in staying:
            extended = extended.with_offset(self.parts[j].unit, self.columns[:, j])
            multipliers[j] = 1.0
        solution = structured(extended, base.coef)
        return Refit(self, extended, solution, multipliers, {})

    def _extended(self, kept: Sequence[int], scale: Vector) -> tuple[Objective, dict[int, int]]:
        """The objective with the columns q of the kept parts, and where their multipliers are."""
        extended = self.objective
        for j in kept:
            part = self.parts[j]
            sp = NO_RIDGE if part.gated else None
            ridge = PlacedPenalty(part.label, slice(0, 1), np.eye(1), rank=1, sp=sp)
            q = scratch.beside(self.columns, (len(self.columns), 1))
            np.divide(self.columns[:, [j]], scale[j], out=q)
            extended = extended.with_columns(part.unit, q, [ridge])
        positions: dict[int, int] = {}
        taken: dict[int, int] = {}
        for j in kept:
            unit = self.parts[j].unit
            place = self.objective.units[unit].n_coef + taken.get(unit, 0)
            positions[j] = extended.slices[unit].start + place
            taken[unit] = taken.get(unit, 0) + 1
        return extended, positions


@dataclass(frozen=True)
class Refit:
    """A structured fit given the networks; `positions`: of the multipliers in its coefficients."""

    deep: DeepColumns
    objective: Objective
    solution: Solution
    multipliers: Vector
    positions: dict[int, int]

    def structured_eta(self, original: Objective) -> Matrix:
        """Predictors without the deep parts."""
        return original.eta(_structured_coef(original, self.objective, self.solution.coef))

    def population(self) -> Matrix | None:
        """V_C = P^-1 (sum_i s_i s_i') P^-1; s_iu = X_iu W_iuu delta_iu, delta: deep parts."""
        objective, solution = self.objective, self.solution
        if not solution.information.layout.entire:
            return None
        weights = working_weights(objective, objective.eta(solution.coef))
        M = np.zeros_like(solution.H)
        for rows in scratch.parts(objective.n_obs):
            delta = np.zeros((rows.stop - rows.start, len(objective.units)))
            for j, part in enumerate(self.deep.parts):
                delta[:, part.unit] += self.multipliers[j] * self.deep.columns[rows, j]
            for u, (unit, index) in enumerate(zip(objective.units, objective.slices, strict=True)):
                s = unit.X[rows] * (weights[u][rows] * delta[:, u])[:, None]
                M[index, index] += s.T @ s
        free = np.delete(np.arange(len(M)), solution.held)
        if solution.selected is not None:
            free = free[solution.selected.active[free]]
        block, V = np.ix_(free, free), np.zeros_like(M)
        H, S = nearest_semidefinite(solution.H[block], solution.S[block]), solution.S[block]
        own = None if H is None else sandwich(H + S, M[block])
        if own is None:
            raise FitError("the penalised Hessian is singular at the solution with its deep terms")
        # constants are estimated apart and get zeros
        V[block] = own
        return V


def _extended_start(
    original: Objective,
    coef: Vector,
    extended: Objective,
    positions: dict[int, int],
    scale: Vector,
) -> Vector:
    """Coefficients of the structured fit; multipliers that leave the networks as they are."""
    start = np.zeros(extended.n_coef)
    for old, new, unit in zip(original.slices, extended.slices, original.units, strict=True):
        start[new.start : new.start + unit.n_coef] = coef[old]
    for j, position in positions.items():
        start[position] = scale[j]
    return start


def _structured_coef(original: Objective, extended: Objective, coef: Vector) -> Vector:
    """Coefficients of the structured columns, without the multipliers."""
    return np.concatenate(
        [
            coef[index.start : index.start + unit.n_coef]
            for index, unit in zip(extended.slices, original.units, strict=True)
        ]
    )
