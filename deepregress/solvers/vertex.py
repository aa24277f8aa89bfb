"""Which of several optima of a lasso is taken (METHODS 6).

The fit and the penalty of a lasso are unique. Its coefficients are not where columns on their
bound, |gradient_j| = strength_j, depend on each other: copies of a column, or the classes of a
symmetric multinomial model, whose coefficients may move by the same number while as many are
positive as negative. Where Q v = 0 on these columns, c + t v is an optimum for as long as no
coefficient changes the sign that its gradient allows; at both ends of that interval one is zero.

    the end with the smaller |c|, v from the first column that depends on those before it

That column stays out, and the others are looked at again, until they are independent: so zeros are
as many as can be, covariances exist, and neither the solver's way nor, where such sets of columns
do not overlap, the order of the columns makes a difference.

References: Tibshirani (2013), doi:10.1214/13-EJS815.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from deepregress.linalg import Matrix, Vector, submatrix
from deepregress.solvers.likelihood import Likelihoods
from deepregress.solvers.sparse import Optimum, Penalised, descend, projected, state_at

ON_BOUND = 1e-8
"""Relative distance of a gradient from its bound that is none."""
DEPENDENT = 1e-10
"""Share of a column's square that others do not span, below which they determine it."""


def vertex(problem: Penalised, optimum: Optimum, likelihoods: Likelihoods) -> Optimum:
    """The optimum whose columns are independent; `optimum` itself where it is the only one.

    Parameters
    ----------
    problem : Penalised
        Anything but a lasso, whose groups are single coefficients, is left as it is.
    optimum : Optimum
    likelihoods : Likelihoods
        Of the same objective.
    """
    strength, state = problem.sparse.lasso_strength, optimum.state
    if strength is None:
        return optimum
    bound = np.abs(state.sparse_gradient) >= (1.0 - ON_BOUND) * strength
    among = np.flatnonzero((strength > 0.0) & ((state.c != 0.0) | bound))
    at = projected(problem, state, among, likelihoods)
    signs, c = -np.sign(state.sparse_gradient[among]), state.c[among]
    left = np.arange(len(among))
    while (v := null_vector(submatrix(at.Q, left))) is not None:
        slope = strength[among[left]] * signs[left]
        end = _smaller_end(c[left], v, signs[left])
        if end is None or abs(slope @ v) > ON_BOUND * (np.abs(slope) @ np.abs(v)):
            break
        c[left] = end
        left = np.delete(left, np.flatnonzero((end == 0.0) & (v != 0.0))[0])
    if np.array_equal(c, state.c[among]):
        return optimum
    whole, b = state.c.copy(), state.b.copy()
    whole[among] = c
    b[problem.free] -= at.uu.solve(at.uc @ (c - state.c[among]))
    b[problem.coordinates.index] = problem.coordinates.original(whole)
    moved = state_at(problem, likelihoods.at(b), whole)
    return descend(problem, moved.likelihood, likelihoods)


def null_vector(Q: Matrix) -> Vector | None:
    """v with Q v = 0 of the first column that depends on those before it; None if none does.

    Parameters
    ----------
    Q : Matrix, (k, k)
        Positive semi-definite.
    """
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(Q), np.finfo(float).tiny))
    scaled = d[:, None] * Q * d
    L, failed = scipy.linalg.lapack.dpotrf(scaled, lower=1, clean=1)
    pivots = np.diagonal(L)[: failed - 1] if failed else np.diagonal(L)
    small = np.flatnonzero(pivots**2 < DEPENDENT)
    if not len(small) and not failed:
        return None
    j = int(small[0]) if len(small) else failed - 1
    v = np.zeros(len(Q))
    v[:j] = -scipy.linalg.cho_solve((L[:j, :j], True), scaled[:j, j])
    v[j] = 1.0
    v[np.abs(v) < ON_BOUND] = 0.0
    return np.asarray(d * v)


def _smaller_end(c: Vector, v: Vector, signs: Vector) -> Vector | None:
    """Of both ends of c + t v in the orthant of the signs, the smaller; None where one is missing.

    Coefficients (k,) that are zero at the end are exactly so.
    """
    ends: list[Vector] = []
    for way in (v, -v):
        shrinks = signs * way < 0.0
        if not shrinks.any():
            return None
        t = np.abs(c[shrinks] / way[shrinks])
        end = c + t.min() * way
        end[np.flatnonzero(shrinks)[t <= t.min() + ON_BOUND * np.abs(end).max()]] = 0.0
        ends.append(end)
    first, second = ends
    return second if float(second @ second) < (1.0 - ON_BOUND) * float(first @ first) else first
