"""Callbacks of Keras, told of a training in which an epoch is one compiled graph.

What they find as `model` are the members of all networks: weights are stacked (M, ...) arrays,
`optimizer.learning_rate` can be read and set, `stop_training` ends the training after the epoch,
and `save` and `save_weights` write a checkpoint of ours, whatever the ending of its name, from
which `Training(checkpoint=...)` goes on. As with Keras's `steps_per_execution`, functions of
batches are called once per epoch, with the mean loss of its batches.

The weights that `fit` keeps are those of the least v, whatever callbacks restore at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.architecture import template
from deepregress.errors import FitError
from deepregress.linalg import Array
from deepregress.predictor import Layout
from deepregress.solvers.base import Epoch
from deepregress.solvers.checkpoint import Checkpoint
from deepregress.solvers.plan import Plan
from deepregress.solvers.progress import Progress


class Callbacks:
    """The user's callbacks: objects with any of the functions of `keras.callbacks.Callback`."""

    def __init__(self, plan: Plan, progress: Progress, checkpoint: Checkpoint) -> None:
        self.given = plan.training.callbacks
        if not self.given:
            return
        self.plan = plan
        self.model = MembersModel(plan, progress, checkpoint)
        self._refuse()
        params = {"epochs": plan.training.epochs, "steps": plan.steps, "verbose": 0}
        self._tell("set_params", params)
        self._tell("set_model", self.model)
        self._tell("on_train_begin", {})

    def _refuse(self) -> None:
        """Refuse callbacks that could not do what they are for."""
        scheduling = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
        for callback in self.given:
            name = type(callback).__name__
            if self.plan.rule.schedules and isinstance(callback, scheduling):
                raise FitError(
                    f"Training(callbacks=): {name} cannot set the learning rate of an optimiser "
                    "that has a schedule of its own"
                )
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                raise FitError(f"Training(callbacks=): {name} is Training(checkpoint=path) here")

    def on_epoch_begin(self, progress: Progress) -> Progress:
        """Tell that an epoch begins; they may set its learning rate."""
        if not self.given:
            return progress
        self.model.progress = progress
        shown = self.model.learning_rate
        self._tell("on_epoch_begin", progress.epoch, {})
        self._tell("on_train_batch_begin", 0, {})
        return self._changed(shown)

    def on_epoch_end(self, progress: Progress) -> Progress:
        """Tell what the epoch came to; they may stop, or set learning rate and weights."""
        if not self.given:
            return progress
        epoch = progress.history[-1]
        self.model.progress = progress
        shown = self.model.learning_rate
        self._tell("on_train_batch_end", self.plan.steps - 1, {"loss": epoch.loss})
        self._tell("on_epoch_end", epoch.epoch - 1, _logs(epoch))
        changed = self._changed(shown)
        return changed.stopped("a callback") if self.model.stop_training else changed

    def on_train_end(self, progress: Progress) -> None:
        """Let callbacks close what they opened."""
        if self.given:
            self._tell("on_train_end", _logs(progress.history[-1]))

    def _changed(self, shown: float) -> Progress:
        """The progress as callbacks left it, with the learning rate where they set another."""
        rate = self.model.learning_rate
        progress = self.model.progress
        return progress if rate == shown else replace(progress, rate=rate)

    def _tell(self, function: str, *arguments: Any) -> None:
        for callback in self.given:
            told = getattr(callback, function, None)
            if told is not None:
                told(*arguments)


def _logs(epoch: Epoch) -> dict[str, float]:
    return {
        "loss": epoch.loss,
        "val_loss": epoch.held_out,
        "learning_rate": epoch.learning_rate,
    }


@dataclass(frozen=True, eq=False)
class _Weight:
    """A stacked weight (M, *shape) with the name that TensorBoard shows."""

    path: str
    value: Array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001
        return np.asarray(self.value, dtype=dtype)


class MembersModel:
    """What callbacks find as `model`: the members of all networks in training.

    Parameters
    ----------
    plan : Plan
    progress : Progress
        Replaced after each epoch.
    checkpoint : Checkpoint
        Writes files.
    """

    built = True
    name = "members"
    train_function = None
    history: Any = None
    stop_training = False

    def __init__(self, plan: Plan, progress: Progress, checkpoint: Checkpoint) -> None:
        self._plan, self._checkpoint = plan, checkpoint
        self.optimizer: keras.optimizers.Optimizer = plan.rule.display(plan.rate)
        self.metrics: list[Any] = []
        self.progress = progress

    @property
    def progress(self) -> Progress:
        """How far the training has come."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress) -> None:
        """Set it, with what the optimiser shows."""
        self._progress = progress
        self.optimizer.iterations.assign(progress.epoch * self._plan.steps)
        if not self._plan.rule.schedules:
            self.optimizer.learning_rate = progress.rate

    @property
    def learning_rate(self) -> float:
        """Of the optimiser that callbacks see."""
        return float(self.optimizer.learning_rate.numpy())

    def get_weights(self) -> list[Array]:
        """Weights of all networks, each (M, *shape): trainable ones with the head, then others."""
        state = self.progress.state
        trainable = [weight for _, weights in self._weights() for _, weight in weights]
        return [*trainable, *(np.asarray(value) for own in state.untrained for value in own)]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Replace the weights, in the order of `get_weights`, for the epochs that follow."""
        state = self.progress.state
        n_members = int(state.weights.shape[0])
        n_other = sum(len(own) for own in state.untrained)
        trainable = weights[: len(weights) - n_other]
        packed = np.hstack([np.reshape(weight, (n_members, -1)) for weight in trainable])
        others = [tf.constant(value) for value in weights[len(weights) - n_other :]]
        state = replace(
            state,
            weights=tf.constant(packed, tf.float32),
            untrained=tf.nest.pack_sequence_as(state.untrained, others),
        )
        self._progress = replace(self.progress, state=state)

    @property
    def layers(self) -> list[Any]:
        """One for each network, with its stacked `weights`."""
        return [
            SimpleNamespace(name=name, weights=[_Weight(path, value) for path, value in weights])
            for name, weights in self._weights()
        ]

    def save(self, filepath: str | Path, overwrite: bool = True) -> None:  # noqa: FBT001, FBT002
        """Write a checkpoint of the training."""
        if not overwrite and Path(filepath).exists():
            raise FitError(f"{str(filepath)!r} exists already")
        self._checkpoint.save(self.progress, filepath)

    save_weights = save

    def _weights(self) -> list[tuple[str, list[tuple[str, Array]]]]:
        """Name of each network with paths and stacked values of its weights and its head."""
        networks = [architecture for architecture, _ in self._plan.networks]
        sizes = [sum(Layout.of(each).sizes) for each in networks]
        packed = np.split(np.asarray(self.progress.state.weights), np.cumsum(sizes)[:-1], axis=1)
        found = []
        for j, (architecture, own) in enumerate(zip(networks, packed, strict=True)):
            name = f"network_{j}"
            paths = [variable.path for variable in template(architecture).trainable_variables]
            values = [value.numpy() for value in Layout.of(architecture).unpack(tf.constant(own))]
            labels = [f"{name}/{path}" for path in (*paths, "head")]
            found.append((name, list(zip(labels, values, strict=True))))
        return found
