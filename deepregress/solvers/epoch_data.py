"""The rows of a training as tensors, padded to capacities.

Tables of similar length share one compiled graph, because every array is as long as the next
capacity: rows beyond the table repeat its first row, and nothing ever points at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.projection import inverse_gram
from deepregress.solvers.base import Folds, Network, Protected
from deepregress.solvers.plan import Plan
from deepregress.stored import StoredArray

SMALLEST_CAPACITY = 64

HELD_BLOCK = 1024
"""Held-out rows of each member judged at a time, which bounds the memory of large networks."""


def epoch_data(
    objective: Objective, networks: Sequence[Network], eta: Matrix, folds: Folds, plan: Plan
) -> dict[str, Any]:
    """Arrays padded to capacities, so that tables of similar length share one compiled graph."""
    n = capacity(objective.n_obs)
    weights = objective.response.weights
    block = min(HELD_BLOCK, plan.batch) if plan.streamed else HELD_BLOCK
    held, held_weights = _blocks(folds.held, weights, block)
    held_weights /= held_weights.sum()
    train = np.stack([np.resize(rows, plan.n_train) for rows in folds.train])
    length = capacity(max(plan.n_train, plan.steps * plan.batch))
    mean = np.concatenate([weights[rows] for rows in folds.held]).mean()
    return {
        "rows": {
            name: tf.constant(_grown(column, n))
            for name, column in objective.response.rows().items()
        },
        "eta": tf.constant(_grown(eta, n)),
        "weights": tf.constant(_grown(weights / mean, n)),
        "inputs": [
            [] if plan.streamed else [tf.constant(_grown(z, n)) for z in network.inputs]
            for network in networks
        ],
        "protected": [
            [_protected(each, folds, n, block) for each in network.protected]
            for network in networks
        ],
        "train": tf.constant(_wide(train, length)),
        "n_train": tf.constant(plan.n_train, tf.int32),
        "n_steps": tf.constant(plan.steps, tf.int32),
        "held": tf.constant(held),
        "held_weights": tf.constant(held_weights),
    }


def _blocks(rows: Sequence[Array], weights: Vector, most: int) -> tuple[Array, Array]:
    """Rows of each member, (M, blocks, size), and their weights; padding has none."""
    longest = capacity(max(len(own) for own in rows))
    size = min(longest, most)
    shape = (len(rows), -(-longest // size) * size)
    padded, padded_weights = np.zeros(shape, dtype=np.int32), np.zeros(shape)
    for m, own in enumerate(rows):
        padded[m, : len(own)] = own
        padded_weights[m, : len(own)] = weights[own]
    blocks = (shape[0], shape[1] // size, size)
    return padded.reshape(blocks), padded_weights.reshape(blocks)


def _protected(given: Protected, folds: Folds, n: int, block: int) -> dict[str, Any]:
    """Columns X and, of each member, blocks of its rows with W and (X'WX)^-1 over them."""
    rows, weights = _blocks(folds.train, given.weights, block)
    inverse = [inverse_gram(given.X[own], given.weights[own]) for own in folds.train]
    return {
        "X": tf.constant(_grown(given.X, n)),
        "rows": tf.constant(rows),
        "weights": tf.constant(weights),
        "inverse": tf.constant(np.stack(inverse)),
    }


def capacity(n: int) -> int:
    """The least length of the form (4, 5, 6, 7) 2^k, at least SMALLEST_CAPACITY, that holds n."""
    if n <= SMALLEST_CAPACITY:
        return SMALLEST_CAPACITY
    unit = 1 << ((n - 1).bit_length() - 3)
    return -(-n // unit) * unit


def _grown(array: Array | StoredArray, n: int) -> Array:
    """Rows up to `n` by repeating the first one; nothing ever points at them."""
    array = np.asarray(array)
    filler = np.broadcast_to(array[:1], (n - len(array), *array.shape[1:]))
    return np.concatenate([array, filler])


def _wide(rows: Array, length: int) -> Array:
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1]))).astype(np.int32)
