"""Which test each smooth term of a fitted model gets (METHODS 4).

A term whose penalties leave some function free is tested as a smooth, one that they can shrink to
zero as a random effect: `bs="re"`, `"ts"`, `"cs"`, `"fs"`, `"mrf"`, `select=True`. Of the other
terms the random effects (`bs="re"`) count as such in the distribution without the effect, the rest
as functions that are there, which is how mgcv tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deepregress.basis.random_effect import RandomEffect
from deepregress.inference import Inference
from deepregress.linalg import Array, Factor, Matrix
from deepregress.penalty import Quadratic
from deepregress.prediction import Predictors
from deepregress.significance import OtherEffects, Test, random_effect_test, smooth_test
from deepregress.solvers.base import Solution
from deepregress.terms.smooth import SmoothColumns

RANK_TOLERANCE = 1e-10
"""Relative information below which a direction counts as one without data."""


def term_test(
    predictors: Predictors,
    solution: Solution,
    inference: Inference,
    *,
    place: Array,
    residual_df: float | None,
) -> Test:
    """Test that the smooth term with the coefficients at `place` of the joint vector is zero."""
    cov, own = predictors.estimate.cov, np.ix_(place, place)
    coef = predictors.estimate.coef[place]
    if not shrinks_to_zero(predictors, place):
        return smooth_test(
            coef,
            cov[own],
            solution.H[own],
            edf1=float(inference.edf1[place].sum()),
            residual_df=residual_df,
        )
    r = np.setdiff1d(random_effects(predictors), place)
    others = OtherEffects(cov[np.ix_(place, r)], cov[np.ix_(r, r)], solution.S[np.ix_(r, r)])
    return random_effect_test(
        coef,
        cov[own],
        inference.cov_frequentist[own],
        others=others if len(r) else None,
        rank=informed_directions(predictors, solution.H, place),
        residual_df=residual_df,
    )


def random_effects(predictors: Predictors) -> Array:
    """Places of the coefficients of all random effects in the joint vector."""
    places = [
        np.arange(index.start, index.stop) + unit.columns.start
        for unit in predictors.units
        for block, index in unit.blocks.values()
        if isinstance(block.recipe, SmoothColumns) and isinstance(block.recipe.basis, RandomEffect)
    ]
    return np.concatenate(places) if places else np.zeros(0, dtype=int)


def shrinks_to_zero(predictors: Predictors, place: Array) -> bool:
    """Whether the penalties of the term at `place` of the joint vector leave nothing free."""
    total = np.zeros((len(place), len(place)))
    for index, S in _penalties(predictors):
        if index.start == place[0] and len(S) == len(place):
            total += S / np.linalg.norm(S)
    return Quadratic.of(total).rank == len(place)


def informed_directions(predictors: Predictors, H: Matrix, place: Array) -> int:
    """Number of directions of a term that the data tell from the unpenalised ones of all others.

    The rank of H_cc - H_co (H_oo + S_o)^-1 H_oc, c the term, o the others. It does not depend on
    the smoothing parameters, so penalties are taken as large as the information of their blocks.
    """
    P = H.copy()
    for index, S in _penalties(predictors):
        if index.start != place[0]:
            P[index, index] += S * (np.trace(H[index, index]) / np.trace(S))
    o = np.setdiff1d(np.arange(len(H)), place)
    factor = Factor.of(P[np.ix_(o, o)])
    A = H[np.ix_(place, place)]
    if factor is not None:
        A = A - H[np.ix_(place, o)] @ factor.solve(H[np.ix_(o, place)])
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(H)[place], np.finfo(float).tiny))
    values = np.linalg.eigvalsh(d[:, None] * A * d)
    return int(np.sum(values > RANK_TOLERANCE * values[-1]))


def _penalties(predictors: Predictors) -> Iterator[tuple[slice, Matrix]]:
    for unit in predictors.units:
        for p in unit.design.penalties:
            start = unit.columns.start
            yield slice(start + p.index.start, start + p.index.stop), p.S
