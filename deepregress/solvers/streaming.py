"""Epochs of rows on disk: tables larger than memory, pictures by path.

An epoch is gone through in stretches of some steps, or of some blocks of held-out rows. What
networks see of the rows of a stretch is read while the stretch before is worked on, in a `tf.data`
pipeline, and then is a small table in memory, on which the graphs of `epoch` work: memory is that
of a few stretches, each of STRETCH_BYTES or, where that is more, of one batch.

Order of rows, steps, what is removed of the features and the judgement on held-out rows are those
of `epoch`. Only tables of more than WINDOW_ROWS rows have their rows shuffled within windows, in a
new order of windows in every epoch, so that the files are read chunk by chunk (`folds`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.disk.scratch import parts
from deepregress.families.base import Family
from deepregress.linalg import Array
from deepregress.solvers.base import Network
from deepregress.solvers.epoch import (
    Networks,
    judgement,
    moments,
    shuffled_positions,
    stepped,
    weighted_nll,
)
from deepregress.solvers.epoch_data import capacity
from deepregress.solvers.folds import WINDOW_ROWS
from deepregress.solvers.optimizer import Rule, stepper_of
from deepregress.solvers.plan import Plan, State

Tensor = Any

AHEAD = 2
"""Stretches that are read before they are needed."""

STRETCH_BYTES = 1 << 23
"""What networks see of the rows of a stretch takes so much, if it is more than one batch."""


class StreamedEpoch:
    """One epoch after the other, of rows that are read by the stretch.

    Parameters
    ----------
    plan : Plan
    networks : sequence of Network
    data : dict
        From `epoch_data`: arrays, some of them in files.
    """

    def __init__(self, plan: Plan, networks: Sequence[Network], data: Mapping[str, Any]) -> None:
        self.plan, self.data = plan, data
        self.dtypes = [[given.dtype for given in each.architecture.inputs] for each in networks]
        self.graphs = _graphs(plan.networks, plan.family, plan.rule, plan.batch, plan.jit)
        self._pipelines: dict[tuple[int, int], Any] = {}
        self._sources: dict[tuple[int, int], Iterator[tuple[Array, Array]]] = {}

    def __call__(self, state: State, keys: Tensor, rates: Tensor) -> tuple[State, float, float]:
        """The state after one more epoch, its v and the mean training loss."""
        plan = self.plan
        weights, slots, untrained = state.weights, state.slots, state.untrained
        total = tf.constant(0.0, tf.float64)
        for table in self._read(lambda size: self._steps(keys, size), plan.steps, plan.batch):
            given = (weights, slots, untrained, state.removed)
            weights, slots, untrained, loss = self.graphs["steps"](given, table, rates)
            total += loss
        removed = self.removed((weights, untrained)) if state.removed else state.removed
        moved = State(weights, slots, untrained, removed)
        return moved, self._judgement(moved), float(total) / (plan.steps * plan.n_members)

    def before(self) -> tuple[float, float]:
        """v and the mean training loss without networks."""
        held, shares = self.data["held"], self.data["held_weights"]
        n_blocks, size = held.shape[1:]
        total = 0.0
        for table in self._read(lambda some: _blocks(held, shares, some), n_blocks, size):
            total += float(self.graphs["before"](table))
        loss, weight = 0.0, 0.0
        for part in parts(self.plan.n_train):
            rows = self.data["train"][:, part].ravel()
            w, eta = self.data["weights"][rows], self.data["eta"][rows]
            columns = {name: column[rows] for name, column in self.data["rows"].items()}
            loss += float(weighted_nll(self.plan.family, columns, eta, w))
            weight += float(w.sum())
        return total, loss / weight

    def removed(self, members: tuple[Tensor, Any]) -> list[list[Tensor]]:
        """C = (X'WX)^-1 X'W U of each head of each network."""
        return [
            [self._coefficients(members, (j, head)) for head in range(len(own))]
            for j, own in enumerate(self.data["protected"])
        ]

    def _coefficients(self, members: tuple[Tensor, Any], place: tuple[int, int]) -> Tensor:
        given, total = self.data["protected"][place[0]][place[1]], 0.0
        rows, weights = given["rows"], given["weights"]
        n_blocks, size = rows.shape[1:]
        for table in self._read(lambda some: _blocks(rows, weights, some), n_blocks, size):
            total += self.graphs["moments"](members, table, place)
        return tf.linalg.matmul(given["inverse"], total)

    def _judgement(self, state: State) -> float:
        members = (state.weights, state.untrained, state.removed)
        held, shares = self.data["held"], self.data["held_weights"]
        n_blocks, size = held.shape[1:]
        total = 0.0
        for table in self._read(lambda some: _blocks(held, shares, some), n_blocks, size):
            total += float(self.graphs["judge"](members, table))
        return total

    # -- reading -----------------------------------------------------------------------------------

    def _steps(self, keys: Tensor, most: int) -> Iterator[tuple[Array, Array]]:
        """Rows (M, most, batch) of so many steps at a time, and which of the steps count."""
        plan, train = self.plan, self.data["train"]
        orders = _orders(plan.n_train, plan.steps * plan.batch, keys)
        left = plan.steps
        for positions in _regrouped(orders, most * plan.batch):
            rows = train[:, positions].reshape(plan.n_members, most, plan.batch)
            yield rows, np.broadcast_to(np.arange(most)[:, None] < left, rows.shape)
            left -= most

    def _read(self, stretches: Callable[[int], Any], n_blocks: int, size: int) -> Any:
        """Tables of what networks see of stretches of n_blocks blocks of rows (M, size)."""
        fit = STRETCH_BYTES // (self.plan.n_members * size * self._row_bytes)
        most = -(-n_blocks // -(-n_blocks // max(1, fit)))  # stretches of nearly equal lengths
        self._sources[most, size] = stretches(most)
        if (most, size) not in self._pipelines:
            self._pipelines[most, size] = self._pipeline(most, size)
        return self._pipelines[most, size]

    def _pipeline(self, most: int, size: int) -> Any:
        """Reads the rows of what is the source then; made once, as making it takes long."""

        def read() -> Iterator[dict[str, Any]]:
            for rows, shares in self._sources[most, size]:
                yield self._table(rows, shares)

        one = np.zeros((1, 1, 1), np.int32)
        shape = (self.plan.n_members, most, size)
        signature = tf.nest.map_structure(
            lambda x: tf.TensorSpec((math.prod(shape), *x.shape[1:]), x.dtype),
            self._table(one, one),
        ) | {"shares": tf.TensorSpec(shape, tf.float64)}
        return tf.data.Dataset.from_generator(read, output_signature=signature).prefetch(AHEAD)

    @functools.cached_property
    def _row_bytes(self) -> int:
        one = np.zeros((1, 1, 1), np.int32)
        return sum(np.asarray(x).nbytes for x in tf.nest.flatten(self._table(one, one)))

    def _table(self, rows: Array, shares: Array) -> dict[str, Any]:
        """What networks see of rows (M, n_blocks, size), member after member."""
        index, data = rows.ravel(), self.data
        return {
            "rows": {name: column[index] for name, column in data["rows"].items()},
            "eta": data["eta"][index],
            "weights": data["weights"][index],
            "inputs": tuple(
                tuple(np.asarray(z[index], dtype) for z, dtype in zip(own, dtypes, strict=True))
                for own, dtypes in zip(data["inputs"], self.dtypes, strict=True)
            ),
            "protected": tuple(
                tuple({"X": each["X"][index]} for each in own) for own in data["protected"]
            ),
            "shares": shares.astype(np.float64),
        }


def _blocks(rows: Array, shares: Array, most: int) -> Iterator[tuple[Array, Array]]:
    """So many blocks (M, most, size) at a time, of (M, n_blocks, size); blocks of no share."""
    for start in range(0, rows.shape[1], most):
        part = rows[:, start : start + most], shares[:, start : start + most]
        missing = ((0, 0), (0, most - part[0].shape[1]), (0, 0))
        yield np.pad(part[0], missing), np.pad(part[1], missing)


def _orders(n_train: int, length: int, keys: Tensor) -> Iterator[Array]:
    """Positions of rows in a new order, window by window, again and again up to a length."""
    if n_train <= WINDOW_ROWS:
        yield shuffled_positions(capacity(max(n_train, length)), n_train, keys).numpy()[:length]
        return
    left = length
    while left > 0:
        rng = np.random.default_rng(keys.numpy())
        for start in rng.permutation(np.arange(0, n_train, WINDOW_ROWS)):
            own = start + rng.permutation(min(WINDOW_ROWS, n_train - start))
            yield own[: max(left, 0)]
            left -= len(own)


def _regrouped(arrays: Iterator[Array], size: int) -> Iterator[Array]:
    """The numbers of all arrays, so many at a time; the last ones are filled with the first."""
    waiting = np.zeros(0, np.int64)
    for array in arrays:
        waiting = np.concatenate([waiting, array])
        for start in range(0, len(waiting) - size + 1, size):
            yield waiting[start : start + size]
        waiting = waiting[len(waiting) // size * size :]
    if len(waiting):
        yield np.pad(waiting, (0, size - len(waiting)), constant_values=waiting[0])


@functools.lru_cache(maxsize=16)
def _graphs(
    networks: Networks,
    family: Family,
    rule: Rule,
    batch: int,
    jit: bool,  # noqa: FBT001
) -> dict[str, Callable[..., Any]]:
    """Steps, judgement and X'W U of a stretch as graphs."""

    def numbered(table: Any) -> Tensor:
        """Rows of the table, (M, n_blocks, size)."""
        shape = table["shares"].shape
        return tf.reshape(tf.range(shape.num_elements()), shape)

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def steps(state: Any, table: Any, rates: Tensor) -> Any:
        rows = numbered(table)
        n_members = int(rows.shape[0])
        stepper = stepper_of(rule, tuple(architecture for architecture, _ in networks), n_members)
        counted = tf.cast(tf.reduce_sum(table["shares"][0, :, 0]), tf.int32)
        of, order = (networks, family, stepper, batch), tf.reshape(rows, [n_members, -1])
        return stepped(of, state, {**table, "n_steps": counted}, order, rates=rates)

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def judge(members: Any, table: Any) -> Tensor:
        held = {"held": numbered(table), "held_weights": table["shares"]}
        return judgement(networks, family, members, {**table, **held})

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def of_heads(members: Any, table: Any, place: Any) -> Tensor:
        own = {"rows": numbered(table), "weights": table["shares"]}
        protected = [[{**head, **own} for head in heads] for heads in table["protected"]]
        return moments(networks, members, {**table, "protected": protected}, place)

    @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
    def before(table: Any) -> Tensor:
        return weighted_nll(family, table["rows"], table["eta"], table["shares"])

    return {"steps": steps, "judge": judge, "moments": of_heads, "before": before}
