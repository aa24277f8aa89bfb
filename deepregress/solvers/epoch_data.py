"""What networks see of the rows while they train, by name.

    rows, eta, weights      response, predictors without networks, weights of mean one, (n_obs, ...)
    inputs, protected       of each network: its inputs, and the columns of each head
    train, held             numbers of each member's rows; of the held-out ones in blocks
    held_weights            their share in v, zero in padding

In memory they are tensors as long as the next capacity, so that tables of similar length share one
compiled graph: rows beyond the table repeat its first row, and nothing ever points at them. Of data
on disk they stay where they are, and `streaming` reads the rows that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.disk.scratch import beside, parts
from deepregress.disk.stored import StoredArray
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.projection import inverse_gram
from deepregress.solvers.base import Folds, Network, Protected
from deepregress.solvers.plan import Plan

SMALLEST_CAPACITY = 64

HELD_BLOCK = 1024
"""Held-out rows of each member judged at a time, which bounds the memory of large networks."""


def epoch_data(
    objective: Objective, networks: Sequence[Network], eta: Matrix, folds: Folds, plan: Plan
) -> dict[str, Any]:
    """What networks see of the rows, (n_obs, ...) each, of a streamed plan as arrays."""
    arrays = _arrays(objective, networks, eta, folds, plan)
    return arrays if plan.streamed else _as_tensors(arrays, plan)


def _arrays(
    objective: Objective, networks: Sequence[Network], eta: Matrix, folds: Folds, plan: Plan
) -> dict[str, Any]:
    """As long as the table is; in files where the response is in files."""
    weights = objective.response.weights
    block = min(HELD_BLOCK, plan.batch) if plan.streamed else HELD_BLOCK
    held, held_weights = _blocks(folds.held, weights, block)
    total = float(held_weights.sum())
    held_weights /= total
    return {
        "rows": objective.response.rows(),
        "eta": eta,
        "weights": _divided(weights, total / sum(len(rows) for rows in folds.held)),
        "inputs": [list(network.inputs) for network in networks],
        "protected": [
            [_protected(each, folds, block) for each in network.protected] for network in networks
        ],
        "train": _train(folds, plan.n_train),
        "held": held,
        "held_weights": held_weights,
    }


def _as_tensors(arrays: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Tensors padded to capacities, with the number of rows and of steps."""
    n = capacity(len(arrays["eta"]))
    length = capacity(max(plan.n_train, plan.steps * plan.batch))

    def grown(array: Array) -> Any:
        return tf.constant(_grown(array, n))

    return {
        "rows": {name: grown(column) for name, column in arrays["rows"].items()},
        "eta": grown(arrays["eta"]),
        "weights": grown(arrays["weights"]),
        "inputs": [[grown(z) for z in own] for own in arrays["inputs"]],
        "protected": [
            [{k: grown(v) if k == "X" else tf.constant(v) for k, v in each.items()} for each in own]
            for own in arrays["protected"]
        ],
        "train": tf.constant(_wide(arrays["train"], length)),
        "n_train": tf.constant(plan.n_train, tf.int32),
        "n_steps": tf.constant(plan.steps, tf.int32),
        "held": tf.constant(arrays["held"]),
        "held_weights": tf.constant(arrays["held_weights"]),
    }


def _train(folds: Folds, n_train: int) -> Array:
    """Rows of each member, (M, n_train); short lists go on from their start."""
    train = beside(folds.train[0], (len(folds.train), n_train), np.int32)
    for own, rows in zip(train, folds.train, strict=True):
        own[: len(rows)], own[len(rows) :] = rows, np.resize(rows, n_train - len(rows))
    return train


def _divided(weights: Vector, mean: float) -> Vector:
    scaled = beside(weights, weights.shape)
    return np.divide(weights, mean, out=scaled)


def _blocks(rows: Sequence[Array], weights: Vector, most: int) -> tuple[Array, Array]:
    """Rows of each member, (M, blocks, size), and their weights; padding has none."""
    longest = capacity(max(len(own) for own in rows))
    size = min(longest, most)
    shape = (len(rows), -(-longest // size) * size)
    padded, padded_weights = beside(rows[0], shape, np.int32), beside(rows[0], shape)
    for m, own in enumerate(rows):
        padded[m, len(own) :], padded_weights[m, len(own) :] = 0, 0.0
        for part in parts(len(own)):
            padded[m, part], padded_weights[m, part] = own[part], weights[own[part]]
    blocks = (shape[0], shape[1] // size, size)
    return padded.reshape(blocks), padded_weights.reshape(blocks)


def _protected(given: Protected, folds: Folds, block: int) -> dict[str, Any]:
    """Columns X and, of each member, blocks of its rows with W and (X'WX)^-1 over them."""
    rows, weights = _blocks(folds.train, given.weights, block)
    inverse = [inverse_gram(given.X, given.weights, own) for own in folds.train]
    return {"X": given.X, "rows": rows, "weights": weights, "inverse": np.stack(inverse)}


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
