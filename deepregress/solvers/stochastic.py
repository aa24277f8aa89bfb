"""Training networks in lock-step on top of given predictors (METHODS 5.1).

M members of each network start from their own random weights, see shuffled minibatches of their own
training rows and are judged together on the rows that none of them saw:

    loss_m  = mean over a batch of  w_i NLL_i(eta_i + sum of d_m(z_i))
    Adam    m <- .9 m + .1 g,  v <- .999 v + .001 g^2,  theta <- theta - lr_t m / (sqrt(v) + 1e-7)
    decay   kernels <- kernels - kernels lr / (lr_0 tau steps)          tau in epochs, decoupled
    v       = sum w_i NLL_i(eta_i + d_{m(i)}(z_i)) / sum w_i            m(i): did not see row i

The best v so far is kept (epoch 0: no network), the learning rate halves after patience / 2 epochs
without progress down to an eighth, and training stops after patience epochs.

One compiled graph runs an epoch: shuffling, gathering, steps, judgement. It is compiled once per
(networks, family, members, batch size) and kept in `_compiled_epoch`; the number of rows enters as
data padded to a capacity, so other tables reuse it.

References: Kingma & Ba (2015), arXiv 1412.6980; Loshchilov & Hutter (2019), arXiv 1711.05101.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deepregress.architecture import Architecture
from deepregress.errors import NetworkWarning
from deepregress.families.base import Family
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.predictor import Layout, Members, forward, fresh_members, outside
from deepregress.solvers.base import Epoch, Folds, Network, Status, Trained, Training

Tensor = Any

BATCH_SIZES = ((2_000, 32), (20_000, 128))
LARGEST_BATCH = 256
"""Default rows per step: (up to so many rows, batch size), and above."""

XLA_STEPS = 5_000
"""Steps of a whole training from which compiling by XLA (about a second) pays."""

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
LEARNING_RATE_FLOOR = 1 / 8
SMALLEST_CAPACITY = 64

HELD_BLOCK = 1024
"""Held-out rows of each member judged at a time, which bounds the memory of large networks."""


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
    start = [
        fresh_members(network.architecture, _member_seeds(seed, j, plan.n_members))
        for j, network in enumerate(networks)
    ]
    state = State.start(start)
    data = epoch_data(objective, networks, eta, folds, plan)
    best, history, status = _epochs(
        plan, state, data=data, seed=seed, round_number=round_number, verbose=verbose
    )
    chosen = min(history, key=lambda epoch: (not np.isfinite(epoch.held_out), epoch.held_out))
    return Trained(_unpacked(best, networks), chosen.epoch, history, status)


@dataclass(frozen=True)
class Plan:
    """What is fixed before training starts; its hashable part identifies a compiled graph."""

    training: Training
    networks: tuple[tuple[Architecture, int], ...]
    family: Family
    n_members: int
    batch: int
    steps: int
    n_train: int
    jit: bool

    @classmethod
    def of(
        cls,
        networks: Sequence[Network],
        objective: Objective,
        folds: Folds,
        training: Training,
    ) -> Plan:
        """Batch size, steps per epoch and whether XLA pays."""
        n_train = max(len(rows) for rows in folds.train)
        batch = min(batch_size(training, objective.n_obs), n_train)
        steps = max(1, round(n_train / batch))
        small = all(network.architecture.batchable for network in networks)
        auto = small and steps * training.epochs > XLA_STEPS
        return cls(
            training=training,
            networks=tuple((network.architecture, network.unit) for network in networks),
            family=objective.family,
            n_members=len(folds.train),
            batch=batch,
            steps=steps,
            n_train=n_train,
            jit=auto if training.jit == "auto" else bool(training.jit),
        )

    @property
    def epoch(self) -> Callable[..., Any]:
        """The compiled graph of one epoch."""
        return _compiled_epoch(self.networks, self.family, self.n_members, self.batch, self.jit)


def batch_size(training: Training, n_obs: int) -> int:
    """Rows per step."""
    if isinstance(training.batch_size, int):
        return training.batch_size
    return next((size for most, size in BATCH_SIZES if n_obs <= most), LARGEST_BATCH)


@dataclass(frozen=True)
class State:
    """Weights and moments of Adam, (M, n_weights) over all networks, and the networks' state."""

    weights: Tensor
    first: Tensor
    second: Tensor
    step: Tensor
    untrained: list[list[Tensor]]

    @classmethod
    def start(cls, members: Sequence[Members]) -> State:
        """Initial weights, no moments."""
        weights = tf.constant(np.hstack([each.trainable for each in members]))
        zero = tf.zeros_like(weights)
        untrained = [[tf.constant(value) for value in each.state] for each in members]
        return cls(weights, zero, zero, tf.constant(0.0), untrained)


# -- the loop over epochs --------------------------------------------------------------------------


def _epochs(
    plan: Plan,
    state: State,
    *,
    data: Mapping[str, Any],
    seed: int,
    round_number: int,
    verbose: int,
) -> tuple[State, tuple[Epoch, ...], Status]:
    """Early stopping: the best state, one record per epoch, and why it ended."""
    training = plan.training
    rate = training.learning_rate
    decay = 1.0 / (training.decay_epochs * plan.steps)
    before = float(_without_networks(plan, state, data))
    best, history, stalled = state, [Epoch(round_number, 0, before, rate)], 0
    lowest, status = before, Status(True, f"all {training.epochs} epochs ran")
    epochs = range(1, training.epochs + 1)
    bar = tqdm(epochs, desc=f"round {round_number}", disable=not verbose, leave=False)
    callbacks = Callbacks(training)
    try:
        for epoch in bar:
            keys = tf.constant([seed % 2**31, 1_000_003 * round_number + epoch], tf.int32)
            rates = tf.constant([rate, decay * rate / training.learning_rate], tf.float32)
            state, held_out = one_epoch(plan, state, data, keys, rates)
            history.append(Epoch(round_number, epoch, held_out, rate))
            bar.set_postfix(held_out=f"{held_out:.4f}", best=f"{lowest:.4f}", refresh=False)
            stop = callbacks.on_epoch_end(history[-1])
            if held_out < lowest:
                best, lowest, stalled = state, held_out, 0
                if not stop:
                    continue
            stalled += 1
            if stop or np.isnan(held_out) or stalled >= training.patience:
                status = _ending(held_out, epoch, "a callback" if stop else "early stopping")
                break
            if stalled == max(1, training.patience // 2):
                rate = max(rate / 2, training.learning_rate * LEARNING_RATE_FLOOR)
    except KeyboardInterrupt:
        status = Status(False, f"interrupted after {len(history) - 1} epochs; the best one is kept")
    callbacks.on_train_end()
    bar.close()
    return best, tuple(history), status


def _ending(held_out: float, epoch: int, reason: str) -> Status:
    if np.isnan(held_out):
        warnings.warn(
            f"network training diverged in epoch {epoch} (the likelihood is not a number); the "
            "best epoch before is kept. A smaller Training(learning_rate=) may help",
            NetworkWarning,
            stacklevel=4,
        )
        return Status(False, f"diverged in epoch {epoch}")
    return Status(True, f"stopped after epoch {epoch} by {reason}")


def one_epoch(
    plan: Plan, state: State, data: Mapping[str, Any], keys: Tensor, rates: Tensor
) -> tuple[State, float]:
    """The state after one more epoch and its v; rates = (lr, decay per step)."""
    moved = plan.epoch(
        (state.weights, state.first, state.second, state.step, state.untrained), data, keys, rates
    )
    weights, first, second, step, untrained, held_out = moved
    return State(weights, first, second, step, untrained), float(held_out)


def _without_networks(plan: Plan, state: State, data: Mapping[str, Any]) -> Tensor:
    """Held-out v of the initial state: heads are zero, so it needs no network."""
    rows, weights = data["held"], data["held_weights"]
    index = tf.reshape(rows, [-1])
    columns = {name: tf.gather(column, index) for name, column in data["rows"].items()}
    rowwise = plan.family.log_likelihood(columns, tf.gather(data["eta"], index))
    w = tf.reshape(weights, [-1])
    return -tf.reduce_sum(tf.where(w > 0, w * rowwise, 0.0)) / tf.reduce_sum(w)


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


# -- the compiled epoch ----------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _compiled_epoch(
    networks: tuple[tuple[Architecture, int], ...],
    family: Family,
    n_members: int,
    batch: int,
    jit: bool,  # noqa: FBT001
) -> Callable[..., Any]:
    """One epoch as a graph: (state, data, seed, (lr, decay)) -> next state and held-out v."""
    layouts = [Layout.of(architecture) for architecture, _ in networks]
    kernels = tf.constant(np.hstack([layout.kernels for layout in layouts]).astype(np.float32))

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def steps(state: Any, data: Any, order: Tensor, rates: Tensor) -> Any:
        def body(i: Tensor, *current: Any) -> Any:
            rows = tf.slice(order, [0, i * batch], [n_members, batch])
            gradient, step, untrained = _step(networks, family, current, data, rows)
            return (i + 1, *_adam(current, gradient, step, untrained, rates, kernels))

        start = (tf.constant(0), *state)
        end = tf.while_loop(lambda i, *_: i < data["n_steps"], body, start, parallel_iterations=1)
        return (*end[1:], _judgement(networks, family, end[1:], data))

    @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
    def epoch(state: Any, data: Any, seed: Tensor, rates: Tensor) -> Any:
        # outside XLA, which draws other numbers from the same seed: one order for both
        return steps(state, data, _shuffled(data["train"], data["n_train"], seed), rates)

    return epoch  # type: ignore[no-any-return]


def _shuffled(train: Tensor, n_train: Tensor, seed: Tensor) -> Tensor:
    """Every member's rows in a new order, then again from the start up to the capacity.

    One permutation of positions serves all members: their row lists are in independent orders.
    """
    positions = tf.range(tf.shape(train)[1])
    keys = tf.random.stateless_uniform(tf.shape(positions), seed, alg="philox")
    order = tf.argsort(tf.where(positions < n_train, keys, 2.0), stable=True)
    return tf.gather(train, tf.gather(order, positions % n_train), axis=1)


def _step(
    networks: tuple[tuple[Architecture, int], ...],
    family: Family,
    current: tuple[Any, ...],
    data: Mapping[str, Any],
    rows: Tensor,
) -> tuple[Tensor, Tensor, Any]:
    """Gradient of the sum of the members' losses on rows (M, batch), next step and state."""
    weights, _, _, step, untrained = current
    index = tf.reshape(rows, [-1])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        eta, untrained, penalty = _predictors(networks, (weights, untrained), data, rows, "train")
        columns = {name: tf.gather(column, index) for name, column in data["rows"].items()}
        rowwise = family.log_likelihood(columns, eta) * tf.gather(data["weights"], index)
        loss = outside(penalty) - tf.reduce_sum(rowwise) / rows.shape[1]
    return tape.gradient(loss, weights), step + 1.0, untrained


def _predictors(
    networks: tuple[tuple[Architecture, int], ...],
    members: tuple[Tensor, Any],
    data: Mapping[str, Any],
    rows: Tensor,
    mode: str,
) -> tuple[Tensor, Any, Tensor]:
    """Predictors (M * n_rows, U) at rows (M, n_rows) with the networks added, state, penalty."""
    weights, untrained = members
    sizes = [sum(Layout.of(architecture).sizes) for architecture, _ in networks]
    n_members = int(weights.shape[0])
    columns = tf.unstack(tf.gather(data["eta"], tf.reshape(rows, [-1])), axis=1)
    following, penalty = [], tf.zeros(())
    for j, (architecture, unit) in enumerate(networks):
        own = tf.split(weights, sizes, axis=1)[j] if len(sizes) > 1 else weights
        z = [tf.gather(array, rows) for array in data["inputs"][j]]
        z = [tf.ensure_shape(array, (n_members, rows.shape[1], *array.shape[2:])) for array in z]
        d, state, own_penalty = forward(architecture, (own, untrained[j]), z, mode=mode)
        columns[unit] = columns[unit] + outside(tf.reshape(d, [-1]))
        following.append(state)
        penalty += tf.reduce_sum(own_penalty)
    return tf.stack(columns, axis=1), following, penalty


def _adam(
    current: tuple[Any, ...],
    gradient: Tensor,
    step: Tensor,
    untrained: Any,
    rates: Tensor,
    kernels: Tensor,
) -> tuple[Any, ...]:
    """Adam with decoupled decay of kernels, rates = (lr, decay per step)."""
    weights, first, second, _, _ = current
    first = first + (gradient - first) * (1 - BETA_1)
    second = second + (gradient * gradient - second) * (1 - BETA_2)
    lr = rates[0] * tf.sqrt(1 - tf.pow(BETA_2, step)) / (1 - tf.pow(BETA_1, step))
    shrunk = weights - weights * (kernels * rates[1])
    return shrunk - lr * first / (tf.sqrt(second) + EPSILON), first, second, step, untrained


def _judgement(
    networks: tuple[tuple[Architecture, int], ...],
    family: Family,
    state: tuple[Any, ...],
    data: Mapping[str, Any],
) -> Tensor:
    """v: mean negative log-likelihood of all held-out rows, each by its own member, in blocks."""
    held, weights = data["held"], data["held_weights"]
    n_members, n_blocks, size = held.shape

    def body(b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        rows, w = held[:, b], tf.reshape(weights[:, b], [-1])
        eta, _, _ = _predictors(networks, (state[0], state[4]), data, rows, "predict")
        index = tf.reshape(rows, [-1])
        columns = {name: tf.gather(column, index) for name, column in data["rows"].items()}
        rowwise = family.log_likelihood(columns, eta)
        return b + 1, total - tf.reduce_sum(tf.where(w > 0, w * rowwise, 0.0))

    start = (tf.constant(0), tf.constant(0.0, tf.float64))
    return tf.while_loop(lambda b, _: b < n_blocks, body, start, maximum_iterations=n_blocks)[1]


# -- data of a graph -------------------------------------------------------------------------------


def epoch_data(
    objective: Objective, networks: Sequence[Network], eta: Matrix, folds: Folds, plan: Plan
) -> dict[str, Any]:
    """Arrays padded to capacities, so that tables of similar length share one compiled graph."""
    n = capacity(objective.n_obs)
    weights = objective.response.weights
    held, held_weights = _held_blocks(folds, weights)
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
        "inputs": [[tf.constant(_grown(z, n)) for z in network.inputs] for network in networks],
        "train": tf.constant(_wide(train, length)),
        "n_train": tf.constant(plan.n_train, tf.int32),
        "n_steps": tf.constant(plan.steps, tf.int32),
        "held": tf.constant(held),
        "held_weights": tf.constant(held_weights),
    }


def _held_blocks(folds: Folds, weights: Vector) -> tuple[Array, Array]:
    """Held-out rows (M, blocks, size) with their shares of the total weight; padding has none."""
    longest = capacity(max(len(rows) for rows in folds.held))
    size = min(longest, HELD_BLOCK)
    shape = (len(folds.held), -(-longest // size) * size)
    held, share = np.zeros(shape, dtype=np.int32), np.zeros(shape)
    for m, rows in enumerate(folds.held):
        held[m, : len(rows)] = rows
        share[m, : len(rows)] = weights[rows]
    share /= share.sum()
    blocks = (shape[0], shape[1] // size, size)
    return held.reshape(blocks), share.reshape(blocks)


def capacity(n: int) -> int:
    """The least length of the form (4, 5, 6, 7) 2^k, at least SMALLEST_CAPACITY, that holds n."""
    if n <= SMALLEST_CAPACITY:
        return SMALLEST_CAPACITY
    unit = 1 << ((n - 1).bit_length() - 3)
    return -(-n // unit) * unit


def _grown(array: Array, n: int) -> Array:
    """Rows up to `n` by repeating the first one; nothing ever points at them."""
    filler = np.broadcast_to(array[:1], (n - len(array), *array.shape[1:]))
    return np.concatenate([array, filler])


def _wide(rows: Array, length: int) -> Array:
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1]))).astype(np.int32)


def _member_seeds(seed: int, network: int, n_members: int) -> list[int]:
    drawn = np.random.SeedSequence([seed, network]).generate_state(n_members)
    return [int(value) % 2**30 + 1 for value in drawn]


def _unpacked(state: State, networks: Sequence[Network]) -> tuple[Members, ...]:
    """The packed weights of all networks, one `Members` for each."""
    sizes = [sum(Layout.of(network.architecture).sizes) for network in networks]
    pieces = np.split(state.weights.numpy(), np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        Members(np.ascontiguousarray(piece), tuple(value.numpy() for value in untrained))
        for piece, untrained in zip(pieces, state.untrained, strict=True)
    )
