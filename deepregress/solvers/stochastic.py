"""Training networks in lock-step on top of given predictors (METHODS 5.1).

M members of each network start from their own random weights, see shuffled minibatches of their own
training rows (`epoch`), move by one rule (`optimizer`) and are judged together on the rows that
none of them saw. The best v so far is kept, and training stops early (`progress`); it can be
watched and steered (`callbacks`), and go on from a file (`checkpoint`).

References: Kingma & Ba (2015), arXiv 1412.6980; Loshchilov & Hutter (2019), arXiv 1711.05101.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deepregress.errors import NetworkWarning
from deepregress.linalg import Matrix
from deepregress.objective import Objective
from deepregress.predictor import fresh_members
from deepregress.solvers.base import Epoch, Folds, Network, Trained, Training
from deepregress.solvers.callbacks import Callbacks
from deepregress.solvers.checkpoint import Checkpoint
from deepregress.solvers.epoch import MemoryEpoch
from deepregress.solvers.epoch_data import epoch_data
from deepregress.solvers.outputs import working_weights
from deepregress.solvers.plan import Plan
from deepregress.solvers.progress import Progress
from deepregress.solvers.streaming import StreamedEpoch


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
        ],
        units_of(objective, eta),
    )
    data = epoch_data(objective, networks, eta, folds, plan)
    next_epoch = StreamedEpoch(plan, networks, data) if plan.streamed else MemoryEpoch(plan, data)
    if any(data["protected"]):
        state = replace(state, removed=next_epoch.removed((state.weights, state.untrained)))
    held_out, loss = next_epoch.before()
    before = Epoch(round_number, 0, held_out, plan.rate, loss)
    checkpoint = Checkpoint.of(plan, networks, folds, seed, round_number)
    run = checkpoint.resume(Progress.start(state, before))
    run = _epochs(run, next_epoch, checkpoint, seed=seed, verbose=verbose)
    return run.as_trained(networks, training)


def units_of(objective: Objective, eta: Matrix) -> list[float]:
    """Size of what networks can say in each predictor, (U,).

    Where the predictor has the unit of the response (an identity link) two working standard
    deviations 1 / sqrt(mean W_uu), so that a fit does not depend on that unit; 1 elsewhere.
    """
    units = []
    for parameter, W in zip(
        objective.family.parameters, working_weights(objective, eta), strict=True
    ):
        mean = float(W.mean()) / float(objective.response.weights.mean())
        known = parameter.link.name == "identity" and mean > 0.0 and np.isfinite(mean)
        units.append(2.0 / mean**0.5 if known else 1.0)
    return units


def _epochs(
    progress: Progress,
    next_epoch: MemoryEpoch | StreamedEpoch,
    checkpoint: Checkpoint,
    *,
    seed: int,
    verbose: int,
) -> Progress:
    """Epoch after epoch until the last, a stop, or an interruption."""
    plan = next_epoch.plan
    number = progress.history[0].round
    bar = tqdm(
        total=progress.begun + plan.training.epochs,
        initial=progress.epoch,
        desc=f"round {number}",
        disable=not verbose,
        leave=False,
    )
    callbacks = Callbacks(plan, progress, checkpoint)
    try:
        while progress.unfinished(plan.training):
            bar.total = progress.begun + plan.training.epochs
            progress = callbacks.on_epoch_begin(progress)
            progress = _one_more(progress, next_epoch, seed)
            _show(bar, progress)
            progress = callbacks.on_epoch_end(progress)
            checkpoint.save(progress)
    except KeyboardInterrupt:
        pass  # the best epoch so far is the answer
    finally:
        bar.close()
    callbacks.on_train_end(progress)
    _tell_divergence(progress)
    return progress


def _one_more(progress: Progress, next_epoch: MemoryEpoch | StreamedEpoch, seed: int) -> Progress:
    """One epoch: its order of rows depends on seed, round and number only."""
    plan = next_epoch.plan
    round_number, number, rate = progress.history[0].round, progress.epoch + 1, progress.rate
    keys = tf.constant([seed % 2**31, 1_000_003 * round_number + number], tf.int32)
    decay = plan.decay(progress.relaxed) * rate / plan.first_rate(progress.relaxed)
    rates = tf.constant([rate, decay], tf.float32)
    state, held_out, loss = next_epoch(progress.state, keys, rates)
    shown = plan.rule.rate_at(progress.epoch * plan.steps, rate)
    return progress.after(state, Epoch(round_number, number, held_out, shown, loss), plan)


def _show(bar: Any, progress: Progress) -> None:
    """Loss, held-out and best likelihood after an epoch; tqdm adds the time that is left."""
    epoch = progress.history[-1]
    numbers = {"loss": epoch.loss, "held_out": epoch.held_out, "best": progress.lowest}
    bar.set_postfix({name: f"{v:.4f}" for name, v in numbers.items()}, refresh=False)
    bar.update()


def _tell_divergence(progress: Progress) -> None:
    last = progress.history[-1]
    if np.isnan(last.held_out) and not progress.relaxed:
        warnings.warn(
            f"network training diverged in epoch {last.epoch} (the likelihood is not a number); "
            "the best epoch before is kept. A smaller learning rate may help",
            NetworkWarning,
            stacklevel=4,
        )


def _member_seeds(seed: int, network: int, n_members: int) -> list[int]:
    drawn = np.random.SeedSequence([seed, network]).generate_state(n_members)
    return [int(value) % 2**30 + 1 for value in drawn]
