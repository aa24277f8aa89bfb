"""`ensemble`: the same model fitted several times with other random numbers (METHODS 10).

    bind formulas and table once; f0 = structured fit without networks, once
    for each member: folds, initial weights and shuffling from its own seed; networks on top of f0
    cross-fitted members: their covariances hold the jackknife variance of their networks

The last step is for honest errors of predictors: the members differ in their random numbers but
share the rows, so that the variance between them says little of what other rows would have given.
In the simulation of METHODS 5.1 (n = 1000, `benchmarks/ensemble.py coverage`) 95 % intervals of the
location at new rows hold the mean of the estimator over tables in 77 % of the cases without the
jackknife and in 98 % with it; they hold the truth in 53 % and 88 %. The rest is bias, of the size
of the standard error, which no variance shows. `with_uncertainty("conditional")` leaves it out.

All members share the compiled graphs of training. Without networks nothing is random: the members
are one fit.

Reference: Lakshminarayanan, Pritzel & Blundell (2017), arXiv:1612.01474.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from deepregress.deep.ensemble import Ensemble
from deepregress.errors import FitError
from deepregress.families import Family
from deepregress.fitted import FittedModel
from deepregress.linalg import Array, Vector
from deepregress.model import bind, check_choices, fit_bound, structured_solver
from deepregress.objective import Objective
from deepregress.solvers.base import Solution, StructuredSolver, Training

MEMBERS = 10
"""Tells these seeds from others that are derived from the user's."""


def ensemble(
    formula: str | Mapping[str, str | float] | Sequence[str],
    data: Any,
    family: str | Family = "normal",
    *,
    members: int = 5,
    average: str = "mixture",
    link: str | Mapping[str, Any] | None = None,
    networks: Mapping[str, Any] | None = None,
    weights: str | Sequence[float] | Array | None = None,
    method: str = "REML",
    training: Training | None = None,
    orthogonalize: str = "posthoc",
    seed: int | None = None,
    verbose: int = 1,
    na: Literal["drop", "raise"] = "drop",
    select: bool = False,
) -> Ensemble:
    """Fit a deep ensemble: several fits that differ in folds, initial weights and shuffling.

    Predictions are those of the mixture of the members' distributions, effects and coefficients are
    averaged, and the variance between members is added to their covariance. Each member is itself
    cross-fitted where `training` says so, and has then the jackknife variance of its networks in
    its covariance (`with_uncertainty("members")`); `Training(crossfit=False)` makes it a single
    network, whose intervals of predictors are too short.

    Parameters
    ----------
    members : int
        Number of fits.
    average : {"mixture", "transformation"}
        What is averaged: the members' distributions, or the transformations and shifts of ordinal
        and transformation models, whose average is a model of the same family.
    seed : int, optional
        The first member is the fit of this seed, the others have seeds derived from it.
    formula, data, family, link, networks, weights, method, training, orthogonalize : see `fit`
    verbose, na, select : see `fit`

    Returns
    -------
    Ensemble

    Raises
    ------
    DeepRegressError
        As `fit`; `members` is no whole number of at least 1.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> len(dr.ensemble("foodexp ~ s(income)", engel, members=3).members)
    3
    """
    if not isinstance(members, int) or isinstance(members, bool) or members < 1:
        raise FitError(f"members={members!r}: needs a whole number >= 1")
    check_choices(method, orthogonalize)
    supplied, training = dict(networks or {}), training or Training()
    bound = bind(
        formula,
        data,
        family,
        link=link,
        networks=supplied,
        weights=weights,
        na=na,
        select=select,
        groups=training.groups,
    )
    deep = any(design.networks for design in bound.designs.values())
    warm = WarmStart(structured_solver(method), bound.objective)
    each = [
        fit_bound(
            bound,
            supplied,
            method=method,
            training=training,
            orthogonalize=orthogonalize,
            seed=own,
            verbose=verbose,
            structured=warm,
        )
        for own in (member_seeds(seed, members) if deep else [seed])
    ]
    every = tuple(map(_with_jackknife, each)) if deep else tuple(each * members)
    return Ensemble(every, average)


def _with_jackknife(model: FittedModel) -> FittedModel:
    """The model with the variance of its networks, where each of them has several members."""
    effects = model.deep.effects if model.deep is not None else ()
    several = all(len(effect.members.trainable) > 1 for effect in effects)
    if not effects or not several or not model.inference.V.layout.entire:
        return model
    return model.with_uncertainty("members")


def member_seeds(seed: int | None, members: int) -> list[int]:
    """The seed itself, and others derived from it; a random one where it is None."""
    first = secrets.randbits(31) if seed is None else seed
    derived = np.random.SeedSequence([first % 2**63, MEMBERS]).generate_state(members)
    return [first, *(int(value) % 2**31 for value in derived[1:])]


class WarmStart:
    """A structured solver that solves the problem without networks once, for all members."""

    def __init__(self, solver: StructuredSolver, objective: Objective) -> None:
        self.solver = solver
        self.objective = objective
        self.solution: Solution | None = None

    def __call__(self, objective: Objective, start: Vector | None = None) -> Solution:
        """Solve `objective`; the known one without a start has its solution kept."""
        if objective is not self.objective or start is not None:
            return self.solver(objective, start)
        if self.solution is None:
            self.solution = self.solver(objective)
        return self.solution
