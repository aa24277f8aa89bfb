"""Which test each smooth term of a fitted model gets (METHODS 4).

A term whose penalties leave some function free is tested as a smooth, one that they can shrink to
zero as a random effect: `bs="re"`, `"ts"`, `"cs"`, `"fs"`, `"mrf"`, `select=True`. Its statistic is
c' M c, and without it c ~ N(0, C), with

    M = S_c + G_cc - G_co (G_oo + S_o)^-1 G_oc,    G = H + H_r S_r^-1 H_r',
    C = V_e + V_cr S_r V_rc,

r the other random effects (`bs="re"`), o all other terms. Without r, M is the inverse of the block
of V_p and the statistic the likelihood ratio. With r, the ratio would have their marginal
covariance in the place of its inverse in G; G is as in mgcv, whose statistics and p-values these
are. C is right for both, so the size of the test is too.

Reference: Wood (2013), doi:10.1093/biomet/ast038.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deepregress.basis.random_effect import RandomEffect
from deepregress.disk.arrow import Arrow
from deepregress.errors import FitError
from deepregress.inference.covariance import Inference
from deepregress.inference.level_tests import LevelTerm
from deepregress.inference.significance import Test, random_effect_test, smooth_test
from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.penalty import Quadratic, as_matrix
from deepregress.prediction import Predictors
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
    coef = predictors.estimate.coef[place]
    if not shrinks_to_zero(predictors, place):
        return smooth_test(
            coef,
            predictors.estimate.block(place),
            solution.information.block(place, place),
            edf1=float(inference.edf1[place].sum()),
            residual_df=residual_df,
        )
    r = np.setdiff1d(random_effects(predictors), place)
    if not solution.information.layout.entire:
        balanced = balanced_penalties(predictors, solution, place)
        return LevelTerm(solution, inference.V, place, r, balanced).test(residual_df)
    cov = predictors.estimate.block(place)
    null_cov = inference.frequentist_block(place)
    if len(r):
        cross = predictors.estimate.V.block(place, r)
        null_cov = null_cov + cross @ solution.penalty.block(r, r) @ cross.T
    return random_effect_test(
        coef,
        _metric(solution, cov, place, r),
        null_cov,
        rank=informed_directions(predictors, solution, place),
        residual_df=residual_df,
    )


def _metric(solution: Solution, cov: Matrix, place: Array, r: Array) -> Matrix:
    """M, from the term's block of V_p where there are no other random effects r."""
    if not len(r):
        return _factor(cov).inverse()
    G = solution.H + solution.H[:, r] @ _factor(solution.S[np.ix_(r, r)]).solve(solution.H[r])
    o = np.setdiff1d(np.arange(len(G)), [*place, *r, *solution.held, *solution.absent])
    M = solution.S[np.ix_(place, place)] + G[np.ix_(place, place)]
    if len(o):
        P = G[np.ix_(o, o)] + solution.S[np.ix_(o, o)]
        M = M - G[np.ix_(place, o)] @ _factor(P).solve(G[np.ix_(o, place)])
    return np.asarray(M)


def _factor(P: Matrix) -> Factor:
    factor = Factor.of(P)
    if factor is None:
        raise FitError("a random effect cannot be tested: the covariance of the others is singular")
    return factor


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
    total: Matrix | Vector = np.zeros(len(place))
    for index, S in _penalties(predictors):
        if index.start <= place[0] and place[-1] < index.stop:
            at = place - index.start
            own = S[at] if S.ndim == 1 else S[np.ix_(at, at)]
            total = _sum(total, own / np.linalg.norm(own))
    return Quadratic.of(total).rank == len(place)


def _sum(one: Matrix | Vector, other: Matrix | Vector) -> Matrix | Vector:
    """The sum of two matrices, of which each may be given by its diagonal."""
    return one + other if one.ndim == other.ndim else as_matrix(one) + as_matrix(other)


def informed_directions(predictors: Predictors, solution: Solution, place: Array) -> int:
    """Number of directions of a term that the data tell from the unpenalised ones of all others.

    The rank of H_cc - H_co (H_oo + S_o)^-1 H_oc, c the term, o the others. It does not depend on
    the smoothing parameters, so penalties are taken as large as the information of their blocks.
    """
    H, P = solution.H, solution.H.copy()
    for index, S in _penalties(predictors):
        if not index.start <= place[0] < index.stop:
            own = as_matrix(S)
            P[index, index] += own * (np.trace(H[index, index]) / np.trace(own))
    o = np.setdiff1d(np.arange(len(H)), [*place, *solution.held, *solution.absent])
    factor = Factor.of(P[np.ix_(o, o)])
    A = H[np.ix_(place, place)]
    if factor is not None:
        A = A - H[np.ix_(place, o)] @ factor.solve(H[np.ix_(o, place)])
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(H)[place], np.finfo(float).tiny))
    values = np.linalg.eigvalsh(d[:, None] * A * d)
    return int(np.sum(values > RANK_TOLERANCE * values[-1]))


def balanced_penalties(predictors: Predictors, solution: Solution, place: Array) -> Arrow:
    """Penalties of all terms but that at `place`, as large as the information of their blocks."""
    H = solution.information
    layout, information = H.layout, H.diagonal()
    A, weights = np.zeros_like(H.A), np.zeros(layout.n_coef)
    for index, S in _penalties(predictors):
        if index.start <= place[0] < index.stop:
            continue
        size = information[index].sum() / (S if S.ndim == 1 else np.diagonal(S)).sum()
        if S.ndim == 1:
            weights[index] += size * S
        else:
            at = layout.dense_at(np.arange(index.start, index.stop))
            A[np.ix_(at, at)] += size * S
    n_levels, q = layout.levels.shape
    return Arrow(layout, A, None, np.zeros((n_levels, q, q))) + Arrow.of_diagonal(layout, weights)


def _penalties(predictors: Predictors) -> Iterator[tuple[slice, Matrix | Vector]]:
    for unit in predictors.units:
        for p in unit.design.penalties:
            start = unit.columns.start
            yield slice(start + p.index.start, start + p.index.stop), p.S
