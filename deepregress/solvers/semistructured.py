"""The semi-structured solver: cross-fitted networks between two structured fits (METHODS 5.1).

    0. f = structured fit without networks; offset = its predictors
    1. train K members of each network on top of the offset, member k without the rows of fold k;
       best epoch 0, or a gain within its standard error (module `judgement`): there is no deep
       effect, f stays
    2. C_m = (X'WX)^-1 X'W D_m over all rows and the protected columns X; D_m <- D_m - X C_m
    3. q_i = D_{m(i), i}, m(i) the member that did not see row i, projected once more on X and
       scaled to sd 1: one column each
    4. f = structured fit of [X, q] with a ridge penalty, chosen by REML, on each multiplier c >= 0
    5. 1 to 4 for the networks of the next predictor, on the offset that f is with all q: a scale
       sees residuals of rows that the networks of the mean did not see
    6. offset = structured part of f; a second round from 1 where a term is not projected on shared
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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from deepregress.errors import FitError
from deepregress.linalg import Matrix, one_blas_thread
from deepregress.objective import Objective
from deepregress.predictor import DeepEffect, Members
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
from deepregress.solvers.cell import protecting
from deepregress.solvers.folds import crossfits, folds_of
from deepregress.solvers.judgement import Judgement
from deepregress.solvers.outputs import working_weights
from deepregress.solvers.parts import NetworkPart, in_turn, joined, separated, untrained
from deepregress.solvers.refit import DeepColumns, Refit
from deepregress.solvers.validation import Sample, Validation

NOTHING = ScoreDifference(0.0, 0.0)


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
    networks = tuple(
        Network(part.architecture, part.unit, part.architecture.arrange(part.inputs))
        for part in parts
    )
    crossfit = crossfits(training, networks, objective.n_obs)
    folds = folds_of(objective.response.weights, training, crossfit=crossfit, seed=seed)
    task = _Task(
        objective=objective,
        parts=tuple(parts),
        networks=networks,
        folds=folds,
        base=structured(objective),
        structured=structured,
        train=partial(trainer, training=training, seed=seed, verbose=verbose),
        crossfit=crossfit,
        cell=orthogonalize == "cell",
    )
    turns = in_turn(parts, objective.family.n_first)
    rounds = _rounds(objective, parts)
    reached = task.before(None, validation, ())
    for number in range(rounds * len(turns)):
        if number and number % len(turns) == 0:
            if reached.fit is None or reached.interrupted:
                break
            reached = task.before(reached.fit, reached.validation, reached.history)
        reached = task.after(reached, turns[number % len(turns)], number + 1)
    return task.result(reached)


@dataclass(frozen=True)
class _Reached:
    """How far the trainings of a round have come.

    `start` and `eta` are the predictors without networks and with those that stay; `places` are
    those of the parts trained so far, `networks`, `members` and `scores` theirs, and `staying`
    tells by their numbers which of them stay.
    """

    start: Matrix
    eta: Matrix
    validation: Validation | None
    history: tuple[Epoch, ...]
    places: tuple[int, ...] = ()
    networks: tuple[Network, ...] = ()
    members: tuple[Members, ...] = ()
    scores: tuple[ScoreDifference, ...] = ()
    staying: tuple[int, ...] = ()
    joint: ScoreDifference = NOTHING
    fit: Refit | None = None
    message: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class _Task:
    """Data, networks to train, the structured fit without them, and the solvers."""

    objective: Objective
    parts: tuple[NetworkPart, ...]
    networks: tuple[Network, ...]
    folds: Folds
    base: Solution
    structured: StructuredSolver
    train: Callable[..., Trained]
    crossfit: bool
    cell: bool

    def before(
        self, fit: Refit | None, validation: Validation | None, history: tuple[Epoch, ...]
    ) -> _Reached:
        """The start of a round, on the structured part of a fit."""

        def eta(objective: Objective) -> Matrix:
            return objective.eta(self.base.coef) if fit is None else fit.structured_eta(objective)

        if validation is not None:
            own = eta(validation.objective)
            validation = replace(validation, eta=own, start=own)
        start = eta(self.objective)
        return _Reached(start, start, validation, history)

    def after(self, reached: _Reached, places: Sequence[int], number: int) -> _Reached:
        """Train the networks of some parts, judge them, and fit again with those that stay."""
        objective, eta, validation = self.objective, reached.eta, reached.validation
        parts = [self.parts[place] for place in places]
        networks = [self.networks[place] for place in places]
        if self.cell:
            networks = _with_cells(objective, parts, networks, eta)
        sample: Sample = objective, networks, eta, self.folds
        if validation is not None:
            sample = validation.of(places).pooled(objective, networks, parts, eta)
        trained = self._trained(sample, parts, number, last=reached.interrupted)
        reached = replace(
            reached,
            history=(*reached.history, *trained.history),
            places=(*reached.places, *places),
            networks=(*reached.networks, *networks),
            members=(*reached.members, *trained.members),
            message=trained.status.message,
            interrupted=trained.interrupted or reached.interrupted,
        )
        if trained.best_epoch == 0:
            return replace(reached, scores=(*reached.scores, *[NOTHING] * len(parts)))
        return self._judged(reached, len(reached.places) - len(places))

    def _trained(
        self, sample: Sample, parts: Sequence[NetworkPart], number: int, *, last: bool
    ) -> Trained:
        """Train shared networks as one, and take them apart; after an interruption none is."""
        objective, networks, eta, folds = sample
        joint = joined(networks, parts)
        if last:
            trained = untrained(joint, len(folds.train))
        else:
            trained = self.train(objective, joint, eta=eta, folds=folds, round_number=number)
        return separated(trained, joint, parts)

    def _judged(self, reached: _Reached, first: int) -> _Reached:
        """Steps 2 to 4 with the newly trained parts, from number `first` on."""
        parts = [self.parts[place] for place in reached.places]
        deep = DeepColumns.of(
            self.objective, parts, reached.networks, self.folds, reached.members, reached.start
        )
        own, validation = parts[first:], reached.validation
        if validation is None:
            units, columns = tuple(part.unit for part in own), deep.out_of_fold[:, first:]
            judged = Judgement(
                self.objective, reached.eta, units, columns, deep.held, reached.start
            )
        else:
            networks, members = reached.networks[first:], reached.members[first:]
            judged = validation.of(reached.places[first:]).judgement(networks, own, members)
        reached = replace(reached, scores=(*reached.scores, *judged.each), joint=judged.joint)
        if not judged.staying:
            return reached
        staying = (*reached.staying, *(first + j for j in judged.staying))
        refit = deep.refit if self.crossfit else deep.given
        fit = refit(self.structured, self.base, staying)
        if validation is not None:
            structured = fit.structured_eta(validation.objective)
            effects = [self._effect(place, reached, fit) for place in reached.places]
            validation = validation.with_effects(structured, effects, reached.places)
        eta = fit.objective.eta(fit.solution.coef)
        return replace(reached, staying=staying, fit=fit, eta=eta, validation=validation)

    def _effect(self, place: int, reached: _Reached, fit: Refit | None) -> DeepEffect:
        """The part at a place, in a fit that may not have it."""
        part, j = self.parts[place], reached.places.index(place)
        members = reached.members[j]
        projection, multiplier = np.zeros((len(part.protected), len(members.trainable))), 0.0
        if fit is not None and j < len(fit.multipliers):
            projection, multiplier = fit.deep.projections[j], float(fit.multipliers[j])
        return DeepEffect(
            label=part.label,
            unit=part.unit,
            architecture=part.architecture,
            members=members,
            protected=part.protected,
            projection=projection,
            multiplier=multiplier,
            position=fit.positions.get(j) if fit is not None else None,
        )

    def result(self, reached: _Reached) -> SemiStructured:
        """The last fit; without deep effects the structured one."""
        fit, base = reached.fit, self.base
        message, entire = reached.message, base.information.layout.entire
        if fit is None:
            message = f"no deep effect on held-out rows ({message})"
        nowhere = np.zeros_like(base.H) if entire else None
        return SemiStructured(
            solution=base if fit is None else fit.solution,
            objective=self.objective if fit is None else fit.objective,
            effects=tuple(self._effect(j, reached, fit) for j in range(len(self.parts))),
            score_difference=reached.joint.value,
            score_se=reached.joint.se,
            scores=tuple(reached.scores[reached.places.index(j)] for j in range(len(self.parts))),
            population=nowhere if fit is None else fit.population(),
            history=reached.history,
            message=message,
        )


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
