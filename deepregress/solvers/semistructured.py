"""The semi-structured solver: cross-fitted networks between two structured fits (METHODS 5.1).

    0. f = structured fit without networks; offset = its predictors
    1. train K members of each network on top of the offset, member k without the rows of fold k;
       best epoch 0, or a gain within its standard error (module `judgement`): there is no deep
       effect, f is the answer
    2. C_m = (X'WX)^-1 X'W D_m over all rows and the protected columns X; D_m <- D_m - X C_m
    3. q_i = D_{m(i), i}, m(i) the member that did not see row i, projected once more on X and
       scaled to sd 1: one column each
    4. f = structured fit of [X, q] with a ridge penalty, chosen by REML, on each multiplier c >= 0
    5. offset = structured part of f; a second round from 1 where a term is not projected on shared
       columns, because the first offset then contains what the network should explain
    deep effect of a new row: c * mean over m of (d_m(z) - x' C_m)

Without cross-fitting there is one network, judged on 15 % of the rows, and step 4 fits the
structured part with D - X C as an offset. Each deep part comes with the score difference it makes
on rows its networks did not see, and the solution with two covariances: conditional on the
networks, and V_C = P^-1 sum_i (s_i s_i') P^-1, s_i = X_i W_i (c q)_i, to be added to it for the
effects of the population.

References: METHODS 5.1; Ruegamer (2023), arXiv 2306.00522; Chernozhukov et al. (2018),
doi:10.1111/ectj.12097 (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepregress.disk import scratch
from deepregress.errors import FitError
from deepregress.linalg import (
    Array,
    Matrix,
    Vector,
    nearest_semidefinite,
    one_blas_thread,
    sandwich,
)
from deepregress.objective import Objective
from deepregress.penalty import PlacedPenalty
from deepregress.predictor import DeepEffect, Members, evaluate
from deepregress.projection import projection
from deepregress.solvers.base import (
    Epoch,
    Folds,
    Network,
    NetworkTrainer,
    ScoreDifference,
    SemiStructured,
    Solution,
    StructuredSolver,
    Trained,
    Training,
)
from deepregress.solvers.cell import as_trained, protecting
from deepregress.solvers.folds import crossfits, folds_of
from deepregress.solvers.judgement import Judgement
from deepregress.solvers.outputs import (
    joined_rows,
    less,
    out_of_fold_of,
    projection_weights,
    side_by_side,
    spread,
    working_weights,
)
from deepregress.solvers.parts import NetworkPart, joined, separated
from deepregress.solvers.validation import Sample, Validation

NO_RIDGE = 1e-8
"""Smoothing parameter of a multiplier of sd 1 that a gate selects: no shrinkage to speak of."""


def solve(
    objective: Objective,
    parts: Sequence[NetworkPart],
    *,
    structured: StructuredSolver,
    trainer: NetworkTrainer,
    training: Training,
    seed: int,
    orthogonalize: str = "posthoc",
    validation: Validation | None = None,
    verbose: int = 1,
) -> SemiStructured:
    """Fit structured and deep terms together.

    Parameters
    ----------
    objective : Objective
        Of the structured terms.
    parts : sequence of NetworkPart
        At least one.
    structured : StructuredSolver
        Fits the structured part (`smoothing.select`).
    trainer : NetworkTrainer
        Trains the networks (`stochastic.train`).
    training : Training
    seed : int
        Folds, initial weights and shuffling.
    orthogonalize : {"posthoc", "cell", "none"}
        "cell": networks are orthogonal to their protected columns while they train, too; "none":
        they keep what these could say.
    validation : Validation, optional
        Rows that judge the networks in place of those held out.
    verbose : int
        0: silent, else a progress bar.

    Raises
    ------
    FitError
        If `orthogonalize` is unknown or there are fewer rows than folds.
    """
    if orthogonalize not in ("posthoc", "cell", "none"):
        raise FitError(f"orthogonalize={orthogonalize!r}: needs 'posthoc', 'cell' or 'none'")
    with one_blas_thread():
        return _solve(
            objective,
            parts,
            structured=structured,
            trainer=trainer,
            training=training,
            seed=seed,
            orthogonalize=orthogonalize,
            validation=validation,
            verbose=verbose,
        )


def _solve(
    objective: Objective,
    parts: Sequence[NetworkPart],
    *,
    structured: StructuredSolver,
    trainer: NetworkTrainer,
    training: Training,
    seed: int,
    orthogonalize: str,
    validation: Validation | None,
    verbose: int,
) -> SemiStructured:
    """The numbered steps of the module's docstring."""
    if orthogonalize == "none":
        parts = [replace(part, protected=part.protected[:0]) for part in parts]
    if training.precision is not None:
        policy = training.precision
        parts = [replace(p, architecture=p.architecture.in_precision(policy)) for p in parts]
    networks = [
        Network(part.architecture, part.unit, part.architecture.arrange(part.inputs))
        for part in parts
    ]
    crossfit = crossfits(training, networks, objective.n_obs)
    folds = folds_of(objective.response.weights, training, crossfit=crossfit, seed=seed)
    base = structured(objective)
    eta = objective.eta(base.coef)
    if validation is not None:
        validation = replace(validation, eta=validation.objective.eta(base.coef))
    history: tuple[Epoch, ...] = ()
    for round_number in range(1, _rounds(objective, parts) + 1):
        if orthogonalize == "cell":
            networks = _with_cells(objective, parts, networks, eta)
        sample: Sample = objective, networks, eta, folds
        if validation is not None:
            sample = validation.pooled(objective, networks, parts, eta)
        trained = _trained(
            trainer, sample, parts, training, seed=seed, number=round_number, verbose=verbose
        )
        history = (*history, *trained.history)
        if trained.best_epoch == 0:
            return _no_effect(objective, base, parts, trained, history, None)
        deep = _Deep.of(objective, parts, networks, folds, trained.members, eta)
        if validation is None:
            units = tuple(part.unit for part in parts)
            judged = Judgement(objective, eta, units, deep.out_of_fold, deep.held)
        else:
            judged = validation.judgement(networks, parts, trained.members)
        if not judged.staying:
            return _no_effect(objective, base, parts, trained, history, judged)
        refit = deep.refit if crossfit else deep.given
        fit = refit(structured, base, judged.staying)
        if trained.interrupted:
            break
        eta = fit.structured_eta(objective)
        if validation is not None:
            validation = replace(validation, eta=fit.structured_eta(validation.objective))
    return fit.result(parts, trained, judged, history)


def _trained(
    trainer: NetworkTrainer,
    sample: Sample,
    parts: Sequence[NetworkPart],
    training: Training,
    *,
    seed: int,
    number: int,
    verbose: int,
) -> Trained:
    """Train the networks of all parts, shared ones as one, and take them apart."""
    objective, networks, eta, folds = sample
    joint = joined(networks, parts)
    trained = trainer(
        objective,
        joint,
        eta=eta,
        folds=folds,
        training=training,
        seed=seed,
        round_number=number,
        verbose=verbose,
    )
    return separated(trained, joint, parts)


# -- preparation -----------------------------------------------------------------------------------


def _with_cells(
    objective: Objective, parts: Sequence[NetworkPart], networks: Sequence[Network], eta: Matrix
) -> list[Network]:
    """Networks that know the columns their features are kept orthogonal to."""
    weights, kept = working_weights(objective, eta), []
    for network, part in zip(networks, parts, strict=True):
        columns = objective.units[part.unit].matrix.select(part.protected)
        kept.append(protecting(network, columns, weights[part.unit], label=part.label))
    return kept


def _rounds(objective: Objective, parts: Sequence[NetworkPart]) -> int:
    """2 where a network is at most centred and the structured part has more than constants."""
    return 2 if any(not _shares_columns(objective, part) for part in parts) else 1


def _shares_columns(objective: Objective, part: NetworkPart) -> bool:
    matrix = objective.units[part.unit].matrix
    own = matrix.select(part.protected)
    varies = bool(own.levels) or bool(np.any(np.ptp(own.X, axis=0) > 0))
    return varies or matrix.n_coef == len(part.protected)


# -- projection and refit --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Deep:
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
    ) -> _Deep:
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

    def refit(self, structured: StructuredSolver, base: Solution, staying: Sequence[int]) -> _Fit:
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
        return _Fit(self, extended, solution, multipliers, positions)

    def given(self, structured: StructuredSolver, base: Solution, staying: Sequence[int]) -> _Fit:
        """The structured part refitted with the projected networks as offsets."""
        extended, multipliers = self.objective, np.zeros(len(self.parts))
        for j in staying:
            extended = extended.with_offset(self.parts[j].unit, self.columns[:, j])
            multipliers[j] = 1.0
        solution = structured(extended, base.coef)
        return _Fit(self, extended, solution, multipliers, {})

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
class _Fit:
    """A structured fit given the networks; `positions`: of the multipliers in its coefficients."""

    deep: _Deep
    objective: Objective
    solution: Solution
    multipliers: Vector
    positions: dict[int, int]

    def structured_eta(self, original: Objective) -> Matrix:
        """Predictors without the deep parts."""
        return original.eta(_structured_coef(original, self.objective, self.solution.coef))

    def result(
        self,
        parts: Sequence[NetworkPart],
        trained: Trained,
        judged: Judgement,
        history: tuple[Epoch, ...],
    ) -> SemiStructured:
        """What `solve` returns."""
        deep = self.deep
        effects = tuple(
            DeepEffect(
                label=part.label,
                unit=part.unit,
                architecture=part.architecture,
                members=deep.members[j],
                protected=part.protected,
                projection=deep.projections[j],
                multiplier=float(self.multipliers[j]),
                position=self.positions.get(j),
            )
            for j, part in enumerate(parts)
        )
        return SemiStructured(
            solution=self.solution,
            objective=self.objective,
            effects=effects,
            score_difference=judged.joint.value,
            score_se=judged.joint.se,
            scores=judged.each,
            population=self._population(),
            history=history,
            message=trained.status.message,
        )

    def _population(self) -> Matrix | None:
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


# -- what is reported ------------------------------------------------------------------------------


def _no_effect(
    objective: Objective,
    base: Solution,
    parts: Sequence[NetworkPart],
    trained: Trained,
    history: tuple[Epoch, ...],
    judged: Judgement | None,
) -> SemiStructured:
    """The structured fit: no epoch of training improved on it, or none of the parts stays."""
    effects = tuple(
        DeepEffect(
            label=part.label,
            unit=part.unit,
            architecture=part.architecture,
            members=members,
            protected=part.protected,
            projection=np.zeros((len(part.protected), len(members.trainable))),
            multiplier=0.0,
            position=None,
        )
        for part, members in zip(parts, trained.members, strict=True)
    )
    none = ScoreDifference(0.0, 0.0)
    joint, each = (none, (none,) * len(parts)) if judged is None else (judged.joint, judged.each)
    return SemiStructured(
        solution=base,
        objective=objective,
        effects=effects,
        score_difference=joint.value,
        score_se=joint.se,
        scores=each,
        population=np.zeros_like(base.H) if base.information.layout.entire else None,
        history=history,
        message=f"no deep effect on held-out rows ({trained.status.message})",
    )
