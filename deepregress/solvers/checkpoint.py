"""Trainings in a file: where an interrupted `fit` goes on.

After every epoch the file holds weights, what the optimiser remembers, the networks' other
variables, learning rate, best epoch and history of this training and of the finished ones before
it. The same call of `fit` goes on from there and ends with the same numbers, bit for bit, as if it
had never been interrupted: the order of rows depends on seed and epoch only. A file of another
model, of other data or another seed is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress import codec
from deepregress.disk.scratch import parts
from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError, FitError
from deepregress.solvers.base import Epoch, Folds, Network
from deepregress.solvers.plan import Plan, State
from deepregress.solvers.progress import Progress

SAME = 1e-8
"""Relative difference of likelihoods without networks up to which the data are the same."""

FREE = frozenset({"epochs", "callbacks", "checkpoint", "optimizer", "validation"})
"""Choices of a training that may differ when it goes on, or that are looked at elsewhere."""


@dataclass(frozen=True)
class Trainings:
    """What a file holds: one `Progress` per training, of which all but the last are finished.

    `calls` are their digests.
    """

    calls: tuple[str, ...]
    seed: int
    rounds: tuple[Progress, ...] = field(repr=False)


@dataclass(frozen=True)
class Checkpoint:
    """One training of a call of `fit`, and the finished ones before it.

    Parameters
    ----------
    path : str or None
        File that is written after every epoch.
    calls : tuple of str
        Digests of what this training and those before it depend on.
    seed : int
    earlier : tuple of Progress
    found : Progress or None
        Where the training of this round was.
    """

    path: str | None
    calls: tuple[str, ...]
    seed: int
    earlier: tuple[Progress, ...] = field(repr=False)
    found: Progress | None = field(repr=False)

    @classmethod
    def of(
        cls, plan: Plan, networks: Sequence[Network], folds: Folds, seed: int, number: int
    ) -> Checkpoint:
        """Read the file of the plan's training where there is one.

        Raises
        ------
        FitError
            It belongs to another call.
        """
        path = plan.training.checkpoint
        # who wants no file should not wait for a digest
        saved = plan.training.callbacks or path is not None
        call = _digest(plan, networks, folds) if saved else ""
        if path is None or not Path(path).exists():
            return cls(None if path is None else str(path), (call,), seed, (), None)
        held = _read(path)
        before, known = held.calls[: number - 1], held.calls[number - 1 : number]
        if known not in ((), (call,)) or held.seed != seed or len(before) < number - 1:
            raise FitError(
                f"Training(checkpoint={str(path)!r}): the file belongs to another fit (other data, "
                "networks, training or seed); choose another path, or remove it"
            )
        rounds = held.rounds
        found = rounds[number - 1] if len(rounds) >= number else None
        return cls(str(path), (*before, call), seed, rounds[: number - 1], found)

    def resume(self, fresh: Progress) -> Progress:
        """Where the training was, or a fresh one.

        Raises
        ------
        FitError
            The model without networks is not the one that the file began with.
        """
        if self.found is None:
            return fresh
        then, now = self.found.history[0], fresh.history[0]
        if not _same(then, now):
            raise FitError(
                f"Training(checkpoint={self.path!r}): the file belongs to another fit (its "
                f"structured part has {then.held_out:.8g} on held-out rows, this one "
                f"{now.held_out:.8g}); choose another path, or remove it"
            )
        return _with_tensors(self.found)

    def save(self, progress: Progress, path: str | Path | None = None) -> None:
        """Write the file, or another one; a file half written never takes its place."""
        target = self.path if path is None else str(path)
        if target is None:
            return
        rounds = (*self.earlier, _with_arrays(progress))
        tree, arrays = codec.encode(Trainings(self.calls, self.seed, rounds))
        partial = f"{target}.partial"
        codec.write(partial, tree, arrays=arrays)
        os.replace(partial, target)


def seed_in(path: str | Path | None) -> int | None:
    """The seed of the training in a file; None where there is no file."""
    return None if path is None or not Path(path).exists() else _read(path).seed


def _read(path: str | Path) -> Trainings:
    archive = codec.read(path)
    held = codec.decode(archive.tree, archive.arrays)
    if not isinstance(held, Trainings):
        raise DataError(f"{str(path)!r} is not a checkpoint of a training.")
    return held


def _same(then: Epoch, now: Epoch) -> bool:
    pairs = ((then.held_out, now.held_out), (then.loss, now.loss))
    return all(np.isclose(a, b, rtol=SAME, atol=SAME) for a, b in pairs)


def _digest(plan: Plan, networks: Sequence[Network], folds: Folds) -> str:
    """Of networks, training, order of rows and inputs; stored inputs count by their shape."""
    training = {
        each.name: getattr(plan.training, each.name)
        for each in fields(plan.training)
        if each.name not in FREE
    }
    described = [training, plan.rule, plan.rate, plan.family.name, plan.batch, plan.steps]
    for network in networks:
        described += [network.architecture.config, *network.units]
        described += [(z.shape, str(z.dtype)) for z in network.inputs]
    digest = hashlib.sha256(repr(described).encode())
    for rows in (*folds.train, *folds.held):
        for part in parts(len(rows)):
            digest.update(rows[part].astype(np.int64).tobytes())
    for network in networks:
        for z in network.inputs:
            if not isinstance(z, StoredArray):
                for part in parts(len(z)):
                    digest.update(z[part].tobytes())
    return digest.hexdigest()


def _with_arrays(progress: Progress) -> Progress:
    return _mapped(progress, np.asarray)


def _with_tensors(progress: Progress) -> Progress:
    return _mapped(progress, tf.constant)


def _mapped(progress: Progress, to: Callable[[Any], Any]) -> Progress:
    first, state, best = (
        State(*tf.nest.map_structure(to, _parts(each)))
        for each in (progress.first, progress.state, progress.best)
    )
    return replace(progress, first=first, state=state, best=best)


def _parts(state: State) -> tuple[object, ...]:
    return tuple(getattr(state, each.name) for each in fields(state))
