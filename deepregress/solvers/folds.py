"""Which rows networks train on and which judge them (METHODS 5.1).

cross-fitted    K random folds, one member for each, which never sees its fold
split           one member; a share of the rows judges it
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepregress.errors import FitError
from deepregress.linalg import Vector
from deepregress.solvers.base import Folds, Network, Training

CROSSFIT_ROWS = 50_000
CROSSFIT_WEIGHTS = 1_000_000
"""Cross-fitting is the default below so many rows and weights of a network."""

HELD_OUT_SHARE = 0.15
"""Rows that judge a network which is not cross-fitted."""


def crossfits(training: Training, networks: Sequence[Network], n_obs: int) -> bool:
    """Whether every row is judged by a member that did not see it."""
    if training.validation is not None:
        return False
    if training.crossfit != "auto":
        return bool(training.crossfit)
    n_weights = max(network.architecture.n_weights for network in networks)
    return n_obs < CROSSFIT_ROWS and n_weights < CROSSFIT_WEIGHTS


def folds_of(weights: Vector, training: Training, *, crossfit: bool, seed: int) -> Folds:
    """Random folds of the rows that count; rows of weight zero are in none."""
    rng = np.random.default_rng([seed, 1])
    rows = rng.permutation(np.flatnonzero(weights > 0))
    if len(rows) < 2 * training.folds:
        raise FitError(
            f"{len(rows)} rows with positive weight are too few for {training.folds} folds of at "
            "least 2 rows; choose fewer with Training(folds=...)"
        )
    if not crossfit:
        given = training.validation
        share = given if isinstance(given, float) else HELD_OUT_SHARE
        cut = max(1, round(share * len(rows)))
        return Folds((rows[cut:],), (rows[:cut],))
    held = np.array_split(rows, training.folds)
    # each member's rows in an order of its own: the training graph shuffles positions
    train = [rng.permutation(np.setdiff1d(rows, part)) for part in held]
    return Folds(tuple(train), tuple(held))
