"""orthogonalize="cell": features kept orthogonal to the structured columns while networks train.

    U <- U - X C_m,   C_m = (X'WX)^-1 X'W U over all training rows of member m      (METHODS 5)

C is that of the weights at the end of the last epoch and fixed within an epoch: never a batch's, on
which predictions would then depend and by which small batches would wipe the features out. W are
the working weights of the structured fit. After training the exact projection over all rows
follows, as with "posthoc", of which the features here only differ by what X spans.

References: Ruegamer, Kolb, Klein (2023), arXiv 2002.05777.
"""

from __future__ import annotations

from dataclasses import replace

from deepregress.disk import scratch
from deepregress.errors import FitError
from deepregress.linalg import Matrix, Vector
from deepregress.model_matrix import ModelMatrix
from deepregress.projection import product, projection
from deepregress.solvers.base import Folds, Network, Protected


def protecting(network: Network, columns: ModelMatrix, weights: Vector, *, label: str) -> Network:
    """The network with the columns that it is kept orthogonal to, and their weights (n_obs,).

    Raises
    ------
    FitError
        Some of these columns are those of a factor with many levels.
    """
    if columns.levels:
        raise FitError(
            f"orthogonalize='cell': {label} is orthogonal to a factor with too many levels for a "
            "projection in every epoch; use 'posthoc'"
        )
    return replace(network, protected=(Protected(columns.X, weights),))


def as_trained(network: Network, D: Matrix, folds: Folds) -> Matrix:
    """Outputs of members (M, n_obs) as they were judged: D - X C_m where there is a cell."""
    if not network.protected:
        return D
    X, weights = network.protected[0].X, network.protected[0].weights
    kept = scratch.beside(D, D.shape)
    for m, own in enumerate(folds.train):
        C = projection(X[own], weights[own], D[m, own, None])
        for rows in scratch.parts(len(X)):
            kept[m, rows] = D[m, rows] - product(X[rows], C)[:, 0]
    return kept
