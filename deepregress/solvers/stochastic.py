"""Training networks in lock-step on top of given predictors (METHODS 5.1).

M members of each network start from their own random weights, see shuffled minibatches of their own
training rows (`epoch`), move by one rule (`optimizer`) and are judged together on the rows that
none of them saw. The best v so far is kept (epoch 0: no network), the built-in optimiser halves its
learning rate after patience / 2 epochs without progress down to an eighth, and training stops after
patience epochs.

References: Kingma & Ba (2015), arXiv 1412.6980; Loshchilov & Hutter (2019), arXiv 1711.05101.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deepregress.errors import NetworkWarning
from deepregress.linalg import Matrix
from deepregress.objective import Objective
from deepregress.predictor import fresh_members
from deepregress.solvers.base import Epoch, Folds, Network, Status, Trained, Training
from deepregress.solvers.epoch import one_epoch, weighted_nll
from deepregress.solvers.epoch_data import epoch_data
from deepregress.solvers.plan import Plan, State

Tensor = Any

LEARNING_RATE_FLOOR = 1 / 8


def train(
    objective: Objective,
    networks: Sequence[Network],
    *,
    eta: Matrix,
    folds: Folds,
    training: Training,
    seed: int,
    round_number: int = 1,
    verbose: int = 0,
) -> Trained:
    """Train the members of all networks together.

    Parameters
    ----------
    objective : Objective
        Gives family, response and weights.
    networks : sequence of Network
    eta : Matrix, (n_obs, U)
        Predictors without the networks, held fixed.
    folds : Folds
    training : Training
    seed : int
        Equal seeds give equal weights, bit for bit.
    round_number : int
        For the history.
    verbose : int
        0: silent, else a progress bar.

    Returns
    -------
    Trained
    """
    plan = Plan.of(networks, objective, folds, training)
    state = plan.start(
        [
            fresh_members(network.architecture, _member_seeds(seed, j, plan.n_members))
            for j, network in enumerate(networks)
        ]
    )
    data = epoch_data(objective, networks, eta, folds, plan)
    before = Epoch(
        round_number,
        0,
        held_out=_nll(plan, data, data["held"], data["held_weights"]),
        learning_rate=plan.rate,
        loss=_nll(plan, data, *_training_rows(plan, data)),
    )
    run = _epochs(plan, Progress.start(state, before), data=data, seed=seed, verbose=verbose)
    return Trained(run.best.members(networks), run.best_epoch, run.history, run.ended(training))


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Parameters
    ----------
    state, best : State
        After the last epoch, and of the lowest v.
    history : tuple of Epoch
    rate : float
        Learning rate of the next epoch.
    stalled : int
        Epochs since the best one.
    status : Status or None
        Why it ended.
    """

    state: State
    best: State
    history: tuple[Epoch, ...]
    rate: float
    stalled: int = 0
    status: Status | None = None

    @classmethod
    def start(cls, state: State, before: Epoch) -> Progress:
        """Before the first epoch."""
        return cls(state, state, (before,), before.learning_rate)

    @property
    def best_epoch(self) -> int:
        """Zero when no epoch was better than no network at all."""
        finite = [e for e in self.history if np.isfinite(e.held_out)] or [self.history[0]]
        return min(finite, key=lambda epoch: epoch.held_out).epoch

    @property
    def lowest(self) -> float:
        """The least v."""
        return min((e.held_out for e in self.history if np.isfinite(e.held_out)), default=np.inf)

    def after(self, state: State, epoch: Epoch, plan: Plan) -> Progress:
        """One epoch later, with early stopping."""
        better = epoch.held_out < self.lowest
        stalled = 0 if better else self.stalled + 1
        moved = replace(
            self,
            state=state,
            best=state if better else self.best,
            history=(*self.history, epoch),
            stalled=stalled,
        )
        if np.isnan(epoch.held_out):
            return replace(moved, status=Status(False, f"diverged in epoch {epoch.epoch}"))
        if stalled >= plan.training.patience:
            return moved.stopped("early stopping")
        if plan.rule.halves and stalled == max(1, plan.training.patience // 2):
            return replace(moved, rate=max(self.rate / 2, plan.rate * LEARNING_RATE_FLOOR))
        return moved

    def stopped(self, by: str) -> Progress:
        """Ended after the last epoch."""
        message = f"stopped after epoch {self.history[-1].epoch} by {by}"
        return replace(self, status=self.status or Status(True, message))

    def ended(self, training: Training) -> Status:
        """Why it ended."""
        return self.status or Status(True, f"all {training.epochs} epochs ran")


# -- the loop over epochs --------------------------------------------------------------------------


def _epochs(
    plan: Plan, progress: Progress, *, data: Mapping[str, Any], seed: int, verbose: int
) -> Progress:
    """Epoch after epoch until the last, a stop, or an interruption."""
    training, round_number = plan.training, progress.history[0].round
    decay = 1.0 / (training.decay_epochs * plan.steps)
    epochs = range(1, training.epochs + 1)
    bar = tqdm(epochs, desc=f"round {round_number}", disable=not verbose, leave=False)
    callbacks = Callbacks(training)
    try:
        for number in bar:
            keys = tf.constant([seed % 2**31, 1_000_003 * round_number + number], tf.int32)
            rates = tf.constant([progress.rate, decay * progress.rate / plan.rate], tf.float32)
            state, held_out, loss = one_epoch(plan, progress.state, data, keys, rates)
            epoch = Epoch(round_number, number, held_out, progress.rate, loss)
            progress = progress.after(state, epoch, plan)
            if callbacks.on_epoch_end(epoch):
                progress = progress.stopped("a callback")
            bar.set_postfix(
                loss=f"{loss:.4f}",
                held_out=f"{held_out:.4f}",
                best=f"{progress.lowest:.4f}",
                refresh=False,
            )
            if progress.status is not None:
                break
    except KeyboardInterrupt:
        ran = len(progress.history) - 1
        message = f"interrupted after {ran} epochs; the best one is kept"
        progress = replace(progress, status=Status(False, message))
    callbacks.on_train_end()
    bar.close()
    _tell_divergence(progress)
    return progress


def _tell_divergence(progress: Progress) -> None:
    last = progress.history[-1]
    if np.isnan(last.held_out):
        warnings.warn(
            f"network training diverged in epoch {last.epoch} (the likelihood is not a number); "
            "the best epoch before is kept. A smaller learning rate may help",
            NetworkWarning,
            stacklevel=4,
        )


def _nll(plan: Plan, data: Mapping[str, Any], rows: Tensor, shares: Tensor) -> float:
    """Mean negative log-likelihood without networks: heads start at zero, so it needs none."""
    index = tf.reshape(rows, [-1])
    columns = {name: tf.gather(column, index) for name, column in data["rows"].items()}
    w = tf.cast(shares, tf.float64)
    total = weighted_nll(plan.family, columns, tf.gather(data["eta"], index), w)
    return float(total / tf.reduce_sum(w))


def _training_rows(plan: Plan, data: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Rows of all members, (M, n_train), and their weights."""
    rows = data["train"][:, : plan.n_train]
    return rows, tf.gather(data["weights"], rows)


class Callbacks:
    """The user's callbacks, told of each epoch; Keras ones find a `model` that can stop."""

    def __init__(self, training: Training) -> None:
        self.given = training.callbacks
        self.stop_training = False
        for callback in self.given:
            if hasattr(callback, "set_model"):
                callback.set_model(self)
            if hasattr(callback, "on_train_begin"):
                callback.on_train_begin({})

    def on_epoch_end(self, epoch: Epoch) -> bool:
        """Tell every callback; True when one of them wants to stop."""
        for callback in self.given:
            logs = {"val_loss": epoch.held_out, "learning_rate": epoch.learning_rate}
            callback.on_epoch_end(epoch.epoch - 1, logs)
        return self.stop_training

    def on_train_end(self) -> None:
        """Let callbacks close what they opened."""
        for callback in self.given:
            if hasattr(callback, "on_train_end"):
                callback.on_train_end({})


def _member_seeds(seed: int, network: int, n_members: int) -> list[int]:
    drawn = np.random.SeedSequence([seed, network]).generate_state(n_members)
    return [int(value) % 2**30 + 1 for value in drawn]
