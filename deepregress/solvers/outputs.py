"""What networks say about all rows, by the part of them: in memory, or in files for data on disk.

    out of fold    D_{m(i), i}: of the member m(i) that did not see row i
    less           D - X C, what the protected columns X cannot say
    working        w_i max(W_iuu, 0) of each predictor
    projection     the same, without the networks where W does not depend on the response

Every array with a number for each row lies where the arrays that it is made of lie (`scratch`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepregress.disk import scratch
from deepregress.families.base import upper_pairs
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import ModelMatrix
from deepregress.objective import Objective
from deepregress.projection import product
from deepregress.solvers.base import Folds

CANONICAL = 1e-6
"""Relative difference of observed and expected weights up to which they are the same."""


def out_of_fold_of(D: Matrix, folds: Folds) -> Vector:
    """D_{m(i), i} of outputs (M, n_obs): one network answers for every row."""
    out = scratch.beside(D, D.shape[1:])
    np.mean(D, axis=0, out=out)
    if len(folds.held) > 1:
        for m, rows in enumerate(folds.held):
            for part in scratch.parts(len(rows)):
                out[rows[part]] = D[m, rows[part]]
    return out


def less(D: Matrix, X: ModelMatrix, C: Matrix) -> Matrix:
    """D - X C, (n_obs, m)."""
    out = scratch.beside(D, D.shape)
    for rows in scratch.parts(len(D)):
        out[rows] = D[rows] - product(X.take(rows), C)
    return out


def side_by_side(columns: Sequence[Vector]) -> Matrix:
    """One column each."""
    out = scratch.beside(columns[0], (len(columns[0]), len(columns)))
    for j, column in enumerate(columns):
        out[:, j] = column
    return out


def joined_rows(each: Sequence[Array]) -> Array:
    """Row numbers of all parts one after the other."""
    if len(each) == 1:
        return each[0]
    rows = scratch.beside(each[0], (sum(map(len, each)),), np.int64)
    return np.concatenate(each, out=rows)


def spread(columns: Matrix) -> Vector:
    """Standard deviation of each column, (n_columns,)."""
    if not scratch.is_stored(columns):
        return np.asarray(columns.std(axis=0))
    mean, n = columns.mean(axis=0), len(columns)
    squares = sum(np.sum((columns[rows] - mean) ** 2, axis=0) for rows in scratch.parts(n))
    return np.sqrt(np.asarray(squares) / n)


def with_columns(eta: Matrix, columns: Matrix, units: Sequence[int]) -> Matrix:
    """Predictors (n_obs, U) with each column, (n_obs, m), added to the predictor it is of."""
    added = scratch.beside(eta, eta.shape)
    added[:] = eta
    for j, unit in enumerate(units):
        added[:, unit] += columns[:, j]
    return added


def projection_weights(
    objective: Objective, eta: Matrix, columns: Matrix, units: Sequence[int]
) -> list[Vector]:
    """Weights W of the projection of networks in each predictor.

    In the first predictor of a generalised linear model with its canonical link those at eta, which
    know nothing of the networks: with weights that do, X'W D would not be zero for a D independent
    of X, and its variance would be taken for a mean (in a logit, effects move away from the truth).
    Elsewhere weights depend on the response, hence on what the networks say, whatever they are
    taken at; they are taken at eta and the networks' columns (n_obs, m), the fit they belong to.
    """
    weights = working_weights(objective, with_columns(eta, columns, units))
    family = objective.family
    if objective.response.plain and (family.exponential or family.exponential_given):
        alone = working_weights(objective, eta)[0]
        if all(
            np.allclose(alone[rows], objective.fisher_weights(eta[rows], rows), rtol=CANONICAL)
            for rows in scratch.parts(len(eta))
        ):
            weights[0] = alone
    return weights


def working_weights(objective: Objective, eta: Matrix) -> list[Vector]:
    """Weights w_i max(W_iuu, 0) of each predictor; w_i where all of them vanish."""
    diagonal = [p for p, (k, m) in enumerate(upper_pairs(eta.shape[1])) if k == m]
    w, W = objective.response.weights, scratch.beside(eta, eta.shape[::-1])
    for rows in scratch.parts(len(eta)):
        _, _, packed = objective.row_derivatives(eta[rows], rows)
        W[:, rows] = np.maximum(packed[:, diagonal], 0.0).T * w[rows]
    return [own if own.any() else w for own in W]
