"""Orthogonalisation of deep terms: which part of a network belongs to the structured columns.

    post hoc (PHO):  C = (X'WX)^-1 X'W D       projection coefficients, (n_columns, n_members)
                     D <- D - X C,  beta <- beta + C
                     zeta(x*) = D(x*) - x*' C  for a new row: a function of the row alone

X are the protected columns (the intercept and the structured columns a network must leave alone), W
the working weights of the predictor at the fit and D what the network says about the training rows.
X'WX and X'WD are sums over rows, so they accumulate over chunks of any size; eta is unchanged.

References: Ruegamer (2023), ICML, arXiv 2306.00522; Ruegamer, Kolb, Klein (2023), arXiv 2002.05777.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from deepregress.crossproducts import JointColumns
from deepregress.disk.arrow import Arrow, ArrowFactor
from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.model_matrix import ModelMatrix

ROWS_PER_CHUNK = 8192
"""Rows whose weighted columns are held at a time."""

LIFT, PASSES = 1e-9, 4
"""Of the diagonal of X'WX where a factor's levels are among the columns, and passes after it."""

DEPENDENT = 1e-10
"""Share of the largest eigenvalue of the scaled X'WX below which columns count as dependent."""


def projection(X: Matrix | ModelMatrix, weights: Vector, D: Matrix) -> Matrix:
    """C = (X'WX)^-1 X'W D, the coefficients of the projection of D on the columns of X.

    Parameters
    ----------
    X : Matrix or ModelMatrix, (n_obs, p)
        Protected columns; dependent ones share their part (minimum norm after scaling).
    weights : Vector, (n_obs,)
        Diagonal of W, not negative.
    D : Matrix, (n_obs, m)
        One column per member of the network.

    Returns
    -------
    Matrix, (p, m)
        X'W (D - X C) = 0 to working precision.
    """
    if isinstance(X, ModelMatrix):
        if X.levels:
            return _projection_by_level(X, weights, D)
        X = X.X
    if X.shape[1] == 0:
        return np.zeros((0, D.shape[1]))
    gram = _gram(X, weights, _chunks(len(X)))
    C = np.zeros((X.shape[1], D.shape[1]))
    # the second pass removes the rounding that the normal equations leave
    for _ in range(2):
        moment = np.zeros_like(C)
        for rows in _chunks(len(X)):
            moment += X[rows].T @ (weights[rows, None] * (D[rows] - X[rows] @ C))
        C += _solve(gram, moment)
    return C


def inverse_gram(X: Matrix, weights: Vector, rows: Array) -> Matrix:
    """(X'WX)^-1 of some rows, generalised where columns are dependent: C = inverse X'W D.

    Parameters
    ----------
    X : Matrix, (n_obs, p)
    weights : Vector, (n_obs,)
        Diagonal of W, not negative.
    rows : Array of int
        Their numbers.

    Returns
    -------
    Matrix, (p, p)
    """
    p = X.shape[1]
    some = (rows[part] for part in _chunks(len(rows)))
    return _solve(_gram(X, weights, some), np.eye(p)) if p else np.zeros((0, 0))


def _gram(X: Matrix, weights: Vector, parts: Iterable[slice | Array]) -> Matrix:
    gram = np.zeros((X.shape[1], X.shape[1]))
    for rows in parts:
        own = X[rows]
        gram += own.T @ (weights[rows][:, None] * own)
    return gram


def product(X: Matrix | ModelMatrix, C: Matrix) -> Matrix:
    """X C, (n_obs, m)."""
    if isinstance(X, ModelMatrix) and X.levels:
        return np.column_stack([X.times(c) for c in C.T])
    return np.asarray((X.X if isinstance(X, ModelMatrix) else X) @ C)


def _projection_by_level(X: ModelMatrix, weights: Vector, D: Matrix) -> Matrix:
    """C where the columns of a factor's levels are among those of X.

    An intercept depends on them: X'WX is lifted by LIFT of its diagonal, and each pass reduces what
    that leaves of the moment by as much in every direction that is one.
    """
    joint = JointColumns.of([X])
    total = joint.total()
    for rows in _chunks(X.n_obs):
        total.add(joint.rows(rows).products(weights[rows, None]))
    gram = total.arrow()
    size = np.maximum(gram.diagonal(), np.finfo(float).tiny)
    lift, factor = LIFT, None
    while factor is None:
        factor = ArrowFactor.of(gram + Arrow.of_diagonal(gram.layout, lift * size))
        lift *= 10.0
    C = np.zeros((X.n_coef, D.shape[1]))
    for _ in range(PASSES):
        left = weights[:, None] * (D - product(X, C))
        C += np.column_stack([factor.solve(X.cross(each)) for each in left.T])
    return C


def post_hoc(
    beta: Vector, X: Matrix, *, weights: Vector, zeta: Vector
) -> tuple[Vector, Vector, Vector]:
    """Move the part of a deep term that the columns of X can express into their coefficients.

    Parameters
    ----------
    beta : Vector, (p,)
        Coefficients of X.
    X : Matrix, (n_obs, p)
    weights : Vector, (n_obs,)
    zeta : Vector, (n_obs,)
        The deep term.

    Returns
    -------
    tuple
        beta + alpha (p,), zeta - X alpha (n_obs,) and alpha (p,), with X beta + zeta unchanged.
    """
    alpha = projection(X, weights, zeta[:, None])[:, 0]
    return beta + alpha, zeta - X @ alpha, alpha


def _chunks(n: int) -> Iterator[slice]:
    return (slice(a, min(a + ROWS_PER_CHUNK, n)) for a in range(0, n, ROWS_PER_CHUNK))


def _solve(gram: Matrix, moment: Matrix) -> Matrix:
    factor = Factor.of(gram)
    # a pivot that is all but rounding would leave the shares of dependent columns to chance
    if factor is not None and np.diagonal(factor.L).min() ** 2 > DEPENDENT:
        return np.asarray(factor.solve(moment))
    diagonal = np.diagonal(gram)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(scale[:, None] * gram * scale)
    kept = values > DEPENDENT * max(values[-1], 0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return np.asarray(scale[:, None] * (inverse @ (scale[:, None] * moment)))
