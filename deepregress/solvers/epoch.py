"""One epoch of all members as a compiled graph (METHODS 5.1).

    loss_m  = mean over a batch of  w_i NLL_i(eta_i + sum of d_m(z_i))  + the networks' penalties
    v       = sum w_i NLL_i(eta_i + d_{m(i)}(z_i)) / sum w_i            m(i): did not see row i

With orthogonalize="cell" the features of a member are U - X C while it trains, C = (X'WX)^-1 X'W U
over all of its training rows with its weights at the end of the epoch before (METHODS 5).

One graph shuffles, gathers, steps and judges. It is compiled once per (networks, family, members,
batch size, optimiser) and kept; the number of rows enters as data padded to a capacity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from deepregress.architecture import Architecture
from deepregress.families.base import Family
from deepregress.predictor import Layout, forward, outside
from deepregress.solvers.optimizer import Rule, Stepper, stepper_of
from deepregress.solvers.plan import Plan, State

Tensor = Any
Stacked = tuple[Tensor, Any, Any]
"""Packed weights, other variables and C of all members."""

Networks = tuple[tuple[Architecture, tuple[int, ...]], ...]


class MemoryEpoch:
    """One epoch after the other, of networks whose inputs are in memory.

    Parameters
    ----------
    plan : Plan
    data : dict
        From `epoch_data`.
    """

    def __init__(self, plan: Plan, data: Mapping[str, Any]) -> None:
        self.plan, self.data = plan, data

    def __call__(self, state: State, keys: Tensor, rates: Tensor) -> tuple[State, float, float]:
        """The state after one more epoch, its v and the mean training loss."""
        return one_epoch(self.plan, state, self.data, keys, rates)

    def before(self) -> tuple[float, float]:
        """v and the mean training loss without networks."""
        data, rows = self.data, self.data["train"][:, : self.plan.n_train]
        return (
            mean_nll(self.plan.family, data, data["held"], data["held_weights"]),
            mean_nll(self.plan.family, data, rows, tf.gather(data["weights"], rows)),
        )

    def removed(self, members: tuple[Tensor, Any]) -> list[list[Tensor]]:
        """C = (X'WX)^-1 X'W U of each head of each network."""
        removed: list[list[Tensor]] = _compiled_removed(self.plan.networks)(members, self.data)
        return removed


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
    given = (state.weights, state.slots, state.untrained, state.removed)
    *moved, held_out, loss = epoch(given, data, keys, rates)
    return State(*moved), float(held_out), float(loss)


@functools.lru_cache(maxsize=16)
def _compiled_removed(networks: Networks) -> Callable[..., Any]:
    @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
    def removed(members: Any, data: Any) -> Any:
        return _removed(networks, members, data)

    return removed  # type: ignore[no-any-return]


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
    stepper = stepper_of(rule, tuple(architecture for architecture, _ in networks), n_members)

    @tf.function(jit_compile=jit, reduce_retracing=False)  # type: ignore[untyped-decorator]
    def steps(state: Any, data: Any, order: Tensor, rates: Tensor) -> Any:
        of, removed = (networks, family, stepper, batch), state[-1]
        weights, slots, untrained, total = stepped(of, state, data, order, rates=rates)
        loss = total / tf.cast(data["n_steps"] * n_members, tf.float64)
        removed = _removed(networks, (weights, untrained), data) if removed else removed
        held_out = judgement(networks, family, (weights, untrained, removed), data)
        return weights, slots, untrained, removed, held_out, loss

    @tf.function(reduce_retracing=False)  # type: ignore[untyped-decorator]
    def epoch(state: Any, data: Any, seed: Tensor, rates: Tensor) -> Any:
        # outside XLA, which draws other numbers from the same seed: one order for both
        return steps(state, data, shuffled(data["train"], data["n_train"], seed), rates)

    return epoch  # type: ignore[no-any-return]


def stepped(
    of: tuple[Networks, Family, Stepper, int],
    state: Any,
    data: Mapping[str, Any],
    order: Tensor,
    *,
    rates: Tensor,
) -> tuple[Tensor, Any, Any, Tensor]:
    """Weights, slots, other variables after the steps through an order of rows; their losses' sum.

    Parameters
    ----------
    of : tuple
        Networks, family, how weights move, and rows of each member per step.
    state : tuple
        Weights, slots, other variables, and what is removed from features.
    data : dict
        Tensors, and the number of steps.
    order : Tensor, (M, n_steps * batch) or longer
    rates : Tensor, (2,)
        As for `one_epoch`.
    """
    networks, family, stepper, batch = of
    *start, removed = state
    n_members = int(order.shape[0])

    def body(i: Tensor, total: Tensor, weights: Tensor, slots: Any, untrained: Any) -> Any:
        rows = tf.slice(order, [0, i * batch], [n_members, batch])
        gradient, untrained, loss = loss_gradient(
            networks,
            family,
            (weights, untrained, removed),
            gathered(data, rows),
            scale=stepper.scale(slots),
        )
        weights, slots = stepper.step(weights, gradient, slots, rates)
        return i + 1, total + loss, weights, slots, untrained

    begin = (tf.constant(0), tf.constant(0.0, tf.float64), *start)
    end = tf.while_loop(lambda i, *_: i < data["n_steps"], body, begin, parallel_iterations=1)
    _, total, weights, slots, untrained = end
    return weights, slots, untrained, total


def shuffled(train: Tensor, n_train: Tensor, seed: Tensor) -> Tensor:
    """Every member's rows in a new order, then again from the start up to the capacity.

    One permutation of positions serves all members: their row lists are in independent orders.
    """
    return tf.gather(train, shuffled_positions(tf.shape(train)[1], n_train, seed), axis=1)


def shuffled_positions(length: Tensor, n_train: Tensor, seed: Tensor) -> Tensor:
    """The first n_train numbers in a new order, then again from the start, (length,)."""
    positions = tf.range(length)
    keys = tf.random.stateless_uniform(tf.shape(positions), seed, alg="philox")
    order = tf.argsort(tf.where(positions < n_train, keys, 2.0), stable=True)
    return tf.gather(order, positions % n_train)


def gathered(data: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """What a step needs of rows (M, n_rows), member after member."""
    index = tf.reshape(rows, [-1])
    return {
        "columns": {name: tf.gather(column, index) for name, column in data["rows"].items()},
        "eta": tf.gather(data["eta"], index),
        "weights": tf.gather(data["weights"], index),
        "inputs": [[_at(array, rows) for array in arrays] for arrays in data["inputs"]],
        "protected": [[_at(each["X"], rows) for each in own] for own in data["protected"]],
    }


def _at(array: Tensor, rows: Tensor) -> Tensor:
    taken = tf.gather(array, rows)
    return tf.ensure_shape(taken, (*rows.shape, *array.shape[1:]))


def loss_gradient(
    networks: Networks,
    family: Family,
    members: Stacked,
    batch: Mapping[str, Any],
    *,
    scale: Tensor,
) -> tuple[Tensor, Any, Tensor]:
    """Gradient (M, n_weights) of scale times the sum of the members' losses, state, that sum."""
    weights, untrained, removed = members
    with tf.GradientTape() as tape:
        tape.watch(weights)
        given = (weights, untrained, removed)
        eta, untrained, penalty = predictors(networks, given, batch, mode="train")
        rowwise = family.log_likelihood(batch["columns"], eta) * batch["weights"]
        n_rows = rowwise.shape[0] // int(weights.shape[0])
        loss = outside(penalty) - tf.reduce_sum(rowwise) / n_rows
        scaled = scale * loss
    return tape.gradient(scaled, weights), untrained, loss


def predictors(
    networks: Networks,
    members: Stacked,
    batch: Mapping[str, Any],
    *,
    mode: str,
) -> tuple[Tensor, Any, Tensor]:
    """Predictors (M * n_rows, U) of a batch with the networks added, their state, penalty."""
    weights, untrained, removed = members
    columns = tf.unstack(batch["eta"], axis=1)
    following, penalty = [], tf.zeros(())
    for j, (architecture, units) in enumerate(networks):
        own = _own(networks, weights, j)
        d, state, own_penalty = forward(
            architecture, (own, untrained[j]), batch["inputs"][j], mode=mode
        )
        for unit, head in zip(
            units, tf.unstack(tf.reshape(d, [-1, len(units)]), axis=1), strict=True
        ):
            columns[unit] = columns[unit] + outside(head)
        if removed:
            given = _spanned(architecture, own, batch["protected"][j], removed[j])
            for unit, part in zip(units, given, strict=True):
                columns[unit] = columns[unit] - part
        following.append(state)
        penalty += tf.reduce_sum(own_penalty)
    return tf.stack(columns, axis=1), following, penalty


def _own(networks: Networks, weights: Tensor, j: int) -> Tensor:
    """Packed weights of one of the networks."""
    sizes = [sum(Layout.of(architecture).sizes) for architecture, _ in networks]
    return tf.split(weights, sizes, axis=1)[j] if len(sizes) > 1 else weights


# -- what structured columns span of the features --------------------------------------------------


def _spanned(
    architecture: Architecture, own: Tensor, X: Sequence[Tensor], removed: Sequence[Tensor]
) -> list[Tensor]:
    """X C gamma of each head at the rows of a batch, (M * n_rows,)."""
    shape = Layout.of(architecture).shapes[-1]
    size = Layout.of(architecture).sizes[-1]
    heads = outside(tf.reshape(own[:, -size:], (own.shape[0], shape[0], -1)))
    each = []
    for h, (x, C) in enumerate(zip(X, removed, strict=True)):
        coef = tf.linalg.matvec(C, heads[:, :, h])
        each.append(tf.reshape(tf.linalg.matvec(x, coef), [-1]))
    return each


def _removed(networks: Networks, members: tuple[Tensor, Any], data: Mapping[str, Any]) -> Any:
    """C = (X'WX)^-1 X'W U of each head of each network, over all training rows of each member."""
    return [
        [
            _coefficients(networks, members, data, j, head)
            for head in range(len(data["protected"][j]))
        ]
        for j in range(len(networks))
    ]


def _coefficients(
    networks: Networks, members: tuple[Tensor, Any], data: Mapping[str, Any], j: int, head: int
) -> Tensor:
    """C (M, p, q) of one head."""
    inverse = data["protected"][j][head]["inverse"]
    return tf.linalg.matmul(inverse, moments(networks, members, data, (j, head)))


def moments(
    networks: Networks, members: tuple[Tensor, Any], data: Mapping[str, Any], place: tuple[int, int]
) -> Tensor:
    """X'W U (M, p, q) of one head, of (network, head), summed over blocks of rows."""
    j, head = place
    given = data["protected"][j][head]
    n_members, n_blocks, _ = given["rows"].shape
    q = Layout.of(networks[j][0]).shapes[-1][0]

    def body(b: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        batch = gathered(data, given["rows"][:, b])
        return b + 1, total + _moment(networks, members, batch, given["weights"][:, b], place)

    start = tf.zeros((n_members, given["X"].shape[1], q), tf.float64)
    condition, most = (lambda b, _: b < n_blocks), n_blocks
    return tf.while_loop(condition, body, (tf.constant(0), start), maximum_iterations=most)[1]


def _moment(
    networks: Networks,
    members: tuple[Tensor, Any],
    batch: Mapping[str, Any],
    weights: Tensor,
    place: tuple[int, int],
) -> Tensor:
    """X'W U (M, p, q) of a block of rows with weights (M, n_rows); of (network, head)."""
    (packed, untrained), (j, head) = members, place
    U, _, _ = forward(
        networks[j][0],
        (_own(networks, packed, j), untrained[j]),
        batch["inputs"][j],
        mode="predict",
        headless=True,
    )
    weighted = batch["protected"][j][head] * weights[:, :, None]
    return tf.linalg.matmul(weighted, outside(U), transpose_a=True)


# -- judgement on held-out rows --------------------------------------------------------------------


def judgement(
    networks: Networks,
    family: Family,
    members: Stacked,
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
    members: Stacked,
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


def mean_nll(family: Family, data: Mapping[str, Any], rows: Tensor, shares: Tensor) -> float:
    """Mean negative log-likelihood without networks: heads start at zero, so it needs none."""
    index = tf.reshape(rows, [-1])
    columns = {name: tf.gather(column, index) for name, column in data["rows"].items()}
    w = tf.cast(shares, tf.float64)
    total = weighted_nll(family, columns, tf.gather(data["eta"], index), w)
    return float(total / tf.reduce_sum(w))
