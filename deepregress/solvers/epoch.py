"""One epoch of all members as a compiled graph (METHODS 5.1).

    loss_m  = mean over a batch of  w_i NLL_i(eta_i + sum of d_m(z_i))  + the networks' penalties
    v       = sum w_i NLL_i(eta_i + d_{m(i)}(z_i)) / sum w_i            m(i): did not see row i

One graph shuffles, gathers, steps and judges. It is compiled once per (networks, family, members,
batch size, optimiser) and kept; the number of rows enters as data padded to a capacity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from deepregress.architecture import Architecture
from deepregress.families.base import Family
from deepregress.predictor import Layout, forward, outside
from deepregress.solvers.optimizer import Rule
from deepregress.solvers.plan import Plan, State

Tensor = Any
Networks = tuple[tuple[Architecture, tuple[int, ...]], ...]


def one_epoch(
    plan: Plan, state: State, data: Mapping[str, Any], keys: Tensor, rates: Tensor
) -> tuple[State, float, float]:
    """The state after one more epoch, its v and the mean training loss.

    Parameters
    ----------
    plan : Plan
    state : State
    data : dict
        From `epoch_data`.
    keys : Tensor, (2,) of int32
        Seed of the order of rows.
    rates : Tensor, (2,) of float32
        Learning rate, decay of kernels per step.
    """
    epoch = compiled_epoch(
        plan.networks, plan.family, plan.n_members, plan.batch, plan.jit, plan.rule
    )
    given = (state.weights, state.slots, state.untrained)
    weights, slots, untrained, held_out, loss = epoch(given, data, keys, rates)
    return State(weights, slots, untrained), float(held_out), float(loss)


@functools.lru_cache(maxsize=64)
def compiled_epoch(
    networks: Networks,
    family: Family,
    n_members: int,
    batch: int,
    jit: bool,  # noqa: FBT001
    rule: Rule,
) -> Callable[..., Any]:
    """One epoch as a graph: (state, data, seed, (lr, decay)) -> next state, held-out v, loss."""
    stepper = rule.stepper(tuple(architecture for architecture, _ in networks), n_members)

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def steps(state: Any, data: Any, order: Tensor, rates: Tensor) -> Any:
        def body(i: Tensor, total: Tensor, weights: Tensor, slots: Any, untrained: Any) -> Any:
            rows = tf.slice(order, [0, i * batch], [n_members, batch])
            gradient, untrained, loss = loss_gradient(
                networks, family, (weights, untrained), gathered(data, rows)
            )
            weights, slots = stepper.step(weights, gradient, slots, rates)
            return i + 1, total + loss, weights, slots, untrained

        start = (tf.constant(0), tf.constant(0.0, tf.float64), *state)
        end = tf.while_loop(lambda i, *_: i < data["n_steps"], body, start, parallel_iterations=1)
        _, total, weights, slots, untrained = end
        loss = total / tf.cast(data["n_steps"] * n_members, tf.float64)
        held_out = _judgement(networks, family, (weights, untrained), data)
        return weights, slots, untrained, held_out, loss

    @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
    def epoch(state: Any, data: Any, seed: Tensor, rates: Tensor) -> Any:
        # outside XLA, which draws other numbers from the same seed: one order for both
        return steps(state, data, shuffled(data["train"], data["n_train"], seed), rates)

    return epoch  # type: ignore[no-any-return]


def shuffled(train: Tensor, n_train: Tensor, seed: Tensor) -> Tensor:
    """Every member's rows in a new order, then again from the start up to the capacity.

    One permutation of positions serves all members: their row lists are in independent orders.
    """
    positions = tf.range(tf.shape(train)[1])
    keys = tf.random.stateless_uniform(tf.shape(positions), seed, alg="philox")
    order = tf.argsort(tf.where(positions < n_train, keys, 2.0), stable=True)
    return tf.gather(train, tf.gather(order, positions % n_train), axis=1)


def gathered(data: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """What a step needs of rows (M, n_rows), member after member."""
    index = tf.reshape(rows, [-1])
    return {
        "columns": {name: tf.gather(column, index) for name, column in data["rows"].items()},
        "eta": tf.gather(data["eta"], index),
        "weights": tf.gather(data["weights"], index),
        "inputs": [[_at(array, rows) for array in arrays] for arrays in data["inputs"]],
    }


def _at(array: Tensor, rows: Tensor) -> Tensor:
    taken = tf.gather(array, rows)
    return tf.ensure_shape(taken, (*rows.shape, *array.shape[1:]))


def loss_gradient(
    networks: Networks,
    family: Family,
    members: tuple[Tensor, Any],
    batch: Mapping[str, Any],
) -> tuple[Tensor, Any, Tensor]:
    """Gradient (M, n_weights) of the sum of the members' losses, next state, and that sum."""
    weights, untrained = members
    with tf.GradientTape() as tape:
        tape.watch(weights)
        eta, untrained, penalty = predictors(networks, (weights, untrained), batch, mode="train")
        rowwise = family.log_likelihood(batch["columns"], eta) * batch["weights"]
        n_rows = rowwise.shape[0] // int(weights.shape[0])
        loss = outside(penalty) - tf.reduce_sum(rowwise) / n_rows
    return tape.gradient(loss, weights), untrained, loss


def predictors(
    networks: Networks,
    members: tuple[Tensor, Any],
    batch: Mapping[str, Any],
    *,
    mode: str,
) -> tuple[Tensor, Any, Tensor]:
    """Predictors (M * n_rows, U) of a batch with the networks added, their state, penalty."""
    weights, untrained = members
    sizes = [sum(Layout.of(architecture).sizes) for architecture, _ in networks]
    columns = tf.unstack(batch["eta"], axis=1)
    following, penalty = [], tf.zeros(())
    for j, (architecture, units) in enumerate(networks):
        own = tf.split(weights, sizes, axis=1)[j] if len(sizes) > 1 else weights
        d, state, own_penalty = forward(
            architecture, (own, untrained[j]), batch["inputs"][j], mode=mode
        )
        for unit, head in zip(units, tf.unstack(tf.reshape(d, [-1, len(units)]), axis=1), strict=True):
            columns[unit] = columns[unit] + outside(head)
        following.append(state)
        penalty += tf.reduce_sum(own_penalty)
    return tf.stack(columns, axis=1), following, penalty


def _judgement(
    networks: Networks,
    family: Family,
    members: tuple[Tensor, Any],
    data: Mapping[str, Any],
) -> Tensor:
    """v: mean negative log-likelihood of all held-out rows, each by its own member, in blocks."""
    held, weights = data["held"], data["held_weights"]
    n_blocks = held.shape[1]

    def body(b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        batch = gathered(data, held[:, b])
        return b + 1, total + judged(networks, family, members, batch, weights[:, b])

    start = (tf.constant(0), tf.constant(0.0, tf.float64))
    return tf.while_loop(lambda b, _: b < n_blocks, body, start, maximum_iterations=n_blocks)[1]


def judged(
    networks: Networks,
    family: Family,
    members: tuple[Tensor, Any],
    batch: Mapping[str, Any],
    shares: Tensor,
) -> Tensor:
    """Part of v of one block of held-out rows, of which `shares` (M, n_rows) are their weights."""
    eta, _, _ = predictors(networks, members, batch, mode="predict")
    return weighted_nll(family, batch["columns"], eta, shares)


def weighted_nll(
    family: Family, columns: Mapping[str, Tensor], eta: Tensor, shares: Tensor
) -> Tensor:
    """Sum of w NLL(eta); rows of weight zero are padding."""
    w = tf.reshape(shares, [-1])
    return -tf.reduce_sum(tf.where(w > 0, w * family.log_likelihood(columns, eta), 0.0))
