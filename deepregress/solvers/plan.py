"""What is fixed before networks train, and what changes with every step.

A `Plan` says how many rows a step takes, how many steps an epoch has, by which rule weights move
and whether XLA compiles it; a `State` holds the members' weights, what the optimiser remembers, the
other variables of the networks and, with orthogonalize="cell", what is removed from their features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.architecture import Architecture
from deepregress.disk.scratch import is_stored
from deepregress.disk.stored import StoredArray
from deepregress.families.base import Family
from deepregress.linalg import Vector
from deepregress.objective import Objective
from deepregress.predictor import Layout, Members
from deepregress.solvers.base import Folds, Network, Training
from deepregress.solvers.optimizer import Rule, Slots, rule_of, stepper_of

Tensor = Any

BATCH_SIZES = ((2_000, 32), (20_000, 128))
LARGEST_BATCH = 256
"""Default rows per step: (up to so many rows, batch size), and above."""

IN_MEMORY = 1 << 25
"""Bytes of what networks see of the rows of a table on disk, up to which they are tensors."""

XLA_STEPS = 5_000
"""Steps of a whole training from which compiling by XLA (about a second) pays."""

RELAXATION, FASTER = 6.0, 2.0
"""Factors on the time constant of the decay and on the first learning rate of a relaxed training:
weights that may be larger have a longer way to go."""


@dataclass(frozen=True)
class Plan:
    """What is fixed before training starts; its hashable part identifies a compiled graph."""

    training: Training
    networks: tuple[tuple[Architecture, tuple[int, ...]], ...]
    family: Family
    rule: Rule
    rate: float
    n_members: int
    batch: int
    steps: int
    n_train: int
    jit: bool
    streamed: bool
    """Whether rows, or inputs of networks, are read from the disk while these train."""

    @classmethod
    def of(
        cls,
        networks: Sequence[Network],
        objective: Objective,
        folds: Folds,
        training: Training,
    ) -> Plan:
        """Batch size, steps per epoch, the optimiser and whether XLA pays."""
        n_train = max(len(rows) for rows in folds.train)
        batch = min(batch_size(training, objective.n_obs), n_train)
        steps = max(1, round(n_train / batch))
        small = all(network.architecture.batchable for network in networks)
        auto = small and steps * training.epochs > XLA_STEPS
        rule, rate = rule_of(training)
        return cls(
            training=training,
            networks=tuple((network.architecture, network.units) for network in networks),
            family=objective.family,
            rule=rule,
            rate=rate,
            n_members=len(folds.train),
            batch=batch,
            steps=steps,
            n_train=n_train,
            jit=auto if training.jit == "auto" else bool(training.jit),
            streamed=_streamed(objective, networks),
        )

    def start(self, members: Sequence[Members], units: Sequence[float] | None = None) -> State:
        """Initial weights, with an optimiser that remembers nothing.

        Parameters
        ----------
        members : sequence of Members
            Of each network.
        units : sequence of float, optional
            Size of what networks can say in each predictor: heads are learned in these units.
        """
        architectures = tuple(architecture for architecture, _ in self.networks)
        stepper = stepper_of(self.rule, architectures, self.n_members)
        slots = stepper.start
        if units is not None:
            slots = stepper.paced(slots, tf.constant(self._pace(units), tf.float32))
        return State(
            weights=tf.constant(np.hstack([each.trainable for each in members])),
            slots=slots,
            untrained=[[tf.constant(value) for value in each.state] for each in members],
            removed=[],
        )

    def first_rate(self, relaxed: int) -> float:
        """Learning rate of the first epoch of a training that was relaxed so often."""
        return FASTER**relaxed * self.rate

    def decay(self, relaxed: int) -> float:
        """Share of the weights that a step at the first rate takes away."""
        return 1.0 / (self.training.decay_epochs * RELAXATION**relaxed * self.steps)

    def _pace(self, units: Sequence[float]) -> Vector:
        """One for each packed weight: the unit of its predictor for those of a head."""
        pace = []
        for architecture, own in self.networks:
            *body, head = Layout.of(architecture).sizes
            pace += [np.ones(sum(body)), np.tile([units[u] for u in own], head // len(own))]
        return np.concatenate(pace)


def _streamed(objective: Objective, networks: Sequence[Network]) -> bool:
    """Whether an array is read row by row, or all of them are in files and large."""
    inputs = [z for each in networks for z in each.inputs]
    if any(isinstance(z, StoredArray) for z in inputs):
        return True
    if not is_stored(objective.response.lower):
        return False
    size = sum(math.prod(z.shape) * z.dtype.itemsize for z in inputs)
    # response, weights and predictors are numbers of 8 bytes
    return size + objective.n_obs * 8 * (2 + len(objective.units)) > IN_MEMORY


def batch_size(training: Training, n_obs: int) -> int:
    """Rows per step."""
    if isinstance(training.batch_size, int):
        return training.batch_size
    return next((size for most, size in BATCH_SIZES if n_obs <= most), LARGEST_BATCH)


@dataclass(frozen=True)
class State:
    """What changes with the steps.

    Parameters
    ----------
    weights : Tensor, (M, n_weights)
        Packed, of all networks.
    slots : tuple of Tensor
        What the optimiser remembers.
    untrained : list of list of Tensor, each (M, ...)
        Other variables of each network.
    removed : list of list of Tensor, each (M, p, q)
        With orthogonalize="cell", C of each head of each network: its features are U - X C.
    """

    weights: Tensor
    slots: Slots
    untrained: list[list[Tensor]]
    removed: list[list[Tensor]]

    def members(self, networks: Sequence[Network]) -> tuple[Members, ...]:
        """The packed weights of all networks, one `Members` for each."""
        sizes = [sum(Layout.of(network.architecture).sizes) for network in networks]
        pieces = np.split(self.weights.numpy(), np.cumsum(sizes)[:-1], axis=1)
        return tuple(
            Members(np.ascontiguousarray(piece), tuple(value.numpy() for value in untrained))
            for piece, untrained in zip(pieces, self.untrained, strict=True)
        )
