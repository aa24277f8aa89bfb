"""Epochs of networks whose inputs are on disk: pictures by path, columns of a file.

The rows of each batch are read while the batch before is worked on, in a `tf.data` pipeline, so
memory is that of a few batches. Order of rows, steps, what is removed of the features and the
judgement on held-out rows are those of `epoch`; only each step is a graph of its own here, where
there an epoch is one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.architecture import Signature
from deepregress.families.base import Family
from deepregress.linalg import Array
from deepregress.solvers.base import Network
from deepregress.solvers.epoch import Networks, gathered, judged, loss_gradient, moment, shuffled
from deepregress.solvers.optimizer import Rule, stepper_of
from deepregress.solvers.plan import Plan, State

Tensor = Any

AHEAD = 2
"""Batches that are read before they are needed."""


class StreamedEpoch:
    """One epoch after the other, of networks whose inputs are read by the batch.

    Parameters
    ----------
    plan : Plan
    networks : sequence of Network
        Some of their inputs are stored arrays.
    data : dict
        From `epoch_data`: everything but the inputs.
    """

    def __init__(self, plan: Plan, networks: Sequence[Network], data: Mapping[str, Any]) -> None:
        self.plan, self.data = plan, data
        self.inputs = [
            list(zip(each.inputs, each.architecture.inputs, strict=True)) for each in networks
        ]
        self.graphs = _graphs(plan.networks, plan.family, plan.rule, plan.jit)

    def __call__(self, state: State, keys: Tensor, rates: Tensor) -> tuple[State, float, float]:
        """The state after one more epoch, its v and the mean training loss."""
        plan = self.plan
        order = shuffled(self.data["train"], self.data["n_train"], keys).numpy()
        order = order[:, : plan.steps * plan.batch].reshape(plan.n_members, plan.steps, plan.batch)
        weights, slots, untrained = state.weights, state.slots, state.untrained
        total = tf.constant(0.0, tf.float64)
        for rows, inputs in self._batches(order):
            given = (weights, slots, untrained, state.removed)
            weights, slots, untrained, loss = self.graphs["step"](
                given, self.data, rows, inputs, rates
            )
            total += loss
        removed = self.removed((weights, untrained)) if state.removed else state.removed
        moved = State(weights, slots, untrained, removed)
        return moved, self._judgement(moved), float(total) / (plan.steps * plan.n_members)

    def removed(self, members: tuple[Tensor, Any]) -> list[list[Tensor]]:
        """C = (X'WX)^-1 X'W U of each head of each network."""
        return [
            [self._coefficients(members, j, head) for head in range(len(own))]
            for j, own in enumerate(self.data["protected"])
        ]

    def _coefficients(self, members: tuple[Tensor, Any], j: int, head: int) -> Tensor:
        given, total = self.data["protected"][j][head], 0.0
        for b, (rows, inputs) in enumerate(self._batches(given["rows"].numpy())):
            total += self.graphs["moment"](
                members, self.data, rows, inputs, given["weights"][:, b], (j, head)
            )
        return tf.linalg.matmul(given["inverse"], total)

    def _judgement(self, state: State) -> float:
        members = (state.weights, state.untrained, state.removed)
        total = tf.constant(0.0, tf.float64)
        for b, (rows, inputs) in enumerate(self._batches(self.data["held"].numpy())):
            shares = self.data["held_weights"][:, b]
            total += self.graphs["judge"](members, self.data, rows, inputs, shares)
        return float(total)

    def _batches(self, blocks: Array) -> Any:
        """Rows (M, size) of blocks (M, n_blocks, size) with the inputs of all networks there."""
        n_members, _, size = blocks.shape

        def read() -> Iterator[Any]:
            for b in range(blocks.shape[1]):
                rows = blocks[:, b]
                yield (
                    rows,
                    tuple(tuple(_rows_of(z, to, rows) for z, to in own) for own in self.inputs),
                )

        signature = (
            tf.TensorSpec((n_members, size), tf.int32),
            tuple(
                tuple(tf.TensorSpec((n_members, size, *z.shape[1:]), to.dtype) for z, to in own)
                for own in self.inputs
            ),
        )
        return tf.data.Dataset.from_generator(read, output_signature=signature).prefetch(AHEAD)


def _rows_of(array: Any, to: Signature, rows: Array) -> Array:
    """Rows (M, size) of an input, (M, size, ...), read from the disk where it is stored."""
    taken = np.asarray(array[rows.ravel()], dtype=to.dtype)
    return taken.reshape(*rows.shape, *array.shape[1:])


@functools.lru_cache(maxsize=16)
def _graphs(
    networks: Networks,
    family: Family,
    rule: Rule,
    jit: bool,  # noqa: FBT001
) -> dict[str, Callable[..., Any]]:
    """A step, a block of held-out rows, and a block of X'W U as graphs."""

    def batch_of(data: Any, rows: Tensor, inputs: Any) -> dict[str, Any]:
        return {**gathered(data, rows), "inputs": inputs}

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def step(state: Any, data: Any, rows: Tensor, inputs: Any, rates: Tensor) -> Any:
        weights, slots, untrained, removed = state
        architectures = tuple(architecture for architecture, _ in networks)
        stepper = stepper_of(rule, architectures, int(rows.shape[0]))
        gradient, untrained, loss = loss_gradient(
            networks,
            family,
            (weights, untrained, removed),
            batch_of(data, rows, inputs),
            scale=stepper.scale(slots),
        )
        weights, slots = stepper.step(weights, gradient, slots, rates)
        return weights, slots, untrained, loss

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def judge(members: Any, data: Any, rows: Tensor, inputs: Any, shares: Tensor) -> Tensor:
        return judged(networks, family, members, batch_of(data, rows, inputs), shares)

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def block(
        members: Any, data: Any, rows: Tensor, inputs: Any, weights: Tensor, place: Any
    ) -> Tensor:
        return moment(networks, members, batch_of(data, rows, inputs), weights, place)

    return {"step": step, "judge": judge, "moment": block}
