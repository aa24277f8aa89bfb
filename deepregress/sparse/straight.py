"""Smooths without curvature under a sparse penalty (METHODS 6).

Where a smoothing parameter is at its largest value, an infinite one is meant: of the smooth the
null space of its penalty is left. At that value its other directions are 1e-6 and not zero, and
their gradient, which no penalty on what is not there can lower, counts in |gradient_g| <=
strength_g: the group would be selected with no degree of freedom. So a fit ends without them,

    b_g = T_g P c_g,    c_g = P R_g b_g,    P = V V',    V orthonormal, T_g' S_g T_g V = 0,

and the group is zero if what is left of it is. While smoothing parameters are looked for all
directions are there, so that a smooth may bend again.

References: Wood (2017), Generalized Additive Models, 2nd ed., section 5.4.3 (null spaces).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse

from deepregress.linalg import Matrix
from deepregress.solvers.likelihood import Likelihoods
from deepregress.solvers.sparse import Coordinates, Optimum, Penalised, descend
from deepregress.sparse.model import STRAIGHT, Setting, SparseModel, total_penalty

NEAR = 0.1
"""Share of the largest smoothing parameter that counts as it."""
NULL = 1e-8
"""Eigenvalue of a penalty, relative to the largest, that is zero."""


def straightened(
    model: SparseModel,
    problem: Penalised,
    optimum: Optimum,
    setting: Setting,
    likelihoods: Likelihoods,
) -> Optimum:
    """The optimum without directions of infinite penalty in sparse groups.

    Parameters
    ----------
    model : SparseModel
    problem : Penalised
        At the smoothing parameters of the setting.
    optimum : Optimum
        It is returned as it is where no sparse group that is not zero has such directions.
    setting : Setting
    likelihoods : Likelihoods
        Of the model.
    """
    largest = setting.lam >= NEAR * STRAIGHT * model.balance
    if not largest.any():
        return optimum
    S = total_penalty(model.objective, np.where(largest, setting.lam, 0.0))
    at, b = problem.coordinates, optimum.state.b.copy()
    penalties = at.T.T @ S[at.index][:, at.index] @ at.T
    straight = np.bincount(at.group, np.abs(penalties).sum(axis=0)) > 0.0
    if not straight[at.group[optimum.state.c != 0.0]].any():
        return optimum
    parts = []
    for g, own in enumerate(
        np.split(np.arange(len(at.group)), np.flatnonzero(np.diff(at.group)) + 1)
    ):
        parts.append(
            _null_space(penalties[own][:, own].toarray()) if straight[g] else np.eye(len(own))
        )
    P = scipy.sparse.csr_array(scipy.sparse.block_diag(parts))
    left = Coordinates(at.index, at.group, at.T @ P, P @ at.R)
    b[at.index] = left.original(left.standardised(b[at.index]))
    return descend(replace(problem, coordinates=left), likelihoods.at(b), likelihoods)


def _null_space(S: Matrix) -> Matrix:
    """The projection on the null space of S (m, m)."""
    values, vectors = np.linalg.eigh(S)
    V = vectors[:, values <= NULL * values[-1]]
    return np.asarray(V @ V.T)
