"""Smooths without curvature under a sparse penalty (METHODS 6).

Where a smoothing parameter is very large an infinite one is meant: of the smooth the null space of
its penalty is left. Its other directions are then tiny and not zero, and their gradient, which no
penalty on what is not there can lower, counts in |gradient_g| <= strength_g: the group would be
selected with no degree of freedom. So in the end it is asked whether the group is zero without
them,

    b_g = T_g P c_g,    c_g = P R_g b_g,    P = V V',    V orthonormal, T_g' S_g T_g V = 0,

and if so it leaves. While smoothing parameters are looked for all directions are there, so that a
smooth may bend again.

References: Wood (2017), Generalized Additive Models, 2nd ed., section 5.4.3 (null spaces).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse

from deepregress.linalg import Array, Matrix
from deepregress.solvers.likelihood import Likelihoods
from deepregress.solvers.sparse import Coordinates, Optimum, Penalised, descend
from deepregress.sparse.model import NEARLY_STRAIGHT, Setting, SparseModel, total_penalty

NULL = 1e-8
"""Eigenvalue of a penalty, relative to the largest, that is zero."""


def without_straight(
    model: SparseModel,
    problem: Penalised,
    optimum: Optimum,
    setting: Setting,
    likelihoods: Likelihoods,
) -> Optimum:
    """The optimum where smooths that are zero but for directions of infinite penalty are zero.

    Parameters
    ----------
    model : SparseModel
    problem : Penalised
        At the smoothing parameters of the setting.
    optimum : Optimum
        It is returned as it is where there are no such smooths.
    setting : Setting
    likelihoods : Likelihoods
        Of the model.
    """
    large = setting.lam > NEARLY_STRAIGHT * model.balance
    if not large.any():
        return optimum
    S = total_penalty(model.objective, np.where(large, setting.lam, 0.0))
    at = problem.coordinates
    penalties = scipy.sparse.csr_array(at.T.T @ S[at.index][:, at.index] @ at.T)
    n_groups = problem.sparse.n_groups
    straight = np.bincount(at.group, abs(penalties).sum(axis=0), n_groups) > 0.0
    straight &= problem.sparse.norms(optimum.state.c) > 0.0
    while straight.any():
        found = _without_bends(problem, optimum, penalties, straight, likelihoods)
        kept = straight & (problem.sparse.norms(found.state.c) > 0.0)
        if not kept.any():
            return found
        straight &= ~kept
    return optimum


def _without_bends(
    problem: Penalised,
    optimum: Optimum,
    penalties: scipy.sparse.csr_array,
    straight: Array,
    likelihoods: Likelihoods,
) -> Optimum:
    """The optimum in coordinates of the null spaces of some groups, bool (n_groups,)."""
    at, b, parts = problem.coordinates, optimum.state.b.copy(), []
    for g in range(len(straight)):
        own = np.flatnonzero(at.group == g)
        bends = penalties[own][:, own].toarray()
        parts.append(_null_space(bends) if straight[g] else np.eye(len(own)))
    P = scipy.sparse.csr_array(scipy.sparse.block_diag(parts))
    left = Coordinates(at.index, at.group, at.T @ P, P @ at.R)
    b[at.index] = left.original(left.standardised(b[at.index]))
    return descend(replace(problem, coordinates=left), likelihoods.at(b), likelihoods)


def _null_space(S: Matrix) -> Matrix:
    """The projection on the null space of S (m, m)."""
    values, vectors = np.linalg.eigh(S)
    V = vectors[:, values <= NULL * values[-1]]
    return np.asarray(V @ V.T)
