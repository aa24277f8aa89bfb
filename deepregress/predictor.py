"""Trained networks as additive parts of a predictor: the waist's float32 side.

    eta = X beta + sum over deep terms of  c * mean_m (d_m(z) - x' C_m),   d_m(z) = U_m(z) gamma_m

Inside networks numbers are float32, everywhere else float64; `outside` is the one cast. The M
members of a network (cross-fitted copies with their own weights) are stacked: all trainable weights
and the head in one (M, n_weights) array, all other variables (BatchNorm statistics, Dropout seeds)
as state.

A prediction is a function of its row alone: rows run in padded chunks of one fixed size, so neither
the batch a row comes in nor its place in it matters.

References: METHODS 5; Ruegamer (2023), arXiv 2306.00522.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from deepregress.architecture import Architecture, call, stateless, template
from deepregress.disk.scratch import beside
from deepregress.disk.stored import StoredArray
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import ModelMatrix

Tensor = Any

LARGEST_CHUNK = 512
CHUNK_NUMBERS = 2**20
"""Rows of one compiled prediction: as many as give CHUNK_NUMBERS inputs, at most LARGEST_CHUNK."""


def outside(network_output: Tensor) -> Tensor:
    """The cast from float32 networks to float64 predictors."""
    return tf.cast(network_output, tf.float64)


@dataclass(frozen=True)
class Members:
    """Weights of the M copies of one network.

    Parameters
    ----------
    trainable : Array, (M, n_weights), float32
        The model's trainable variables one after the other, then the head gamma, (q,); of several
        heads (q, heads).
    state : tuple of Array, each (M, ...)
        The model's other variables.
    """

    trainable: Array = field(repr=False)
    state: tuple[Array, ...] = field(repr=False)


@dataclass(frozen=True)
class Layout:
    """Where each variable of a network lies in the packed weights; which are decayed."""

    shapes: tuple[tuple[int, ...], ...]
    decayed: tuple[bool, ...]

    @classmethod
    def of(cls, architecture: Architecture) -> Layout:
        """Trainable variables in Keras's order, then the head."""
        shapes = [tuple(v.shape) for v in template(architecture).trainable_variables]
        kernels = [len(shape) > 1 and not architecture.pretrained for shape in shapes]
        head = (n_features(architecture), *([architecture.heads] if architecture.heads > 1 else []))
        return cls((*shapes, head), (*kernels, True))

    @property
    def sizes(self) -> list[int]:
        """Numbers in each variable."""
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def kernels(self) -> Array:
        """Which packed weights are kernels (matrices, the head; no biases), (n_weights,) bool.

        None of a pretrained network but the head.
        """
        return np.repeat(self.decayed, self.sizes)

    def unpack(self, trainable: Tensor) -> list[Tensor]:
        """Variables (M, *shape) of packed weights (M, n_weights)."""
        pieces = tf.split(trainable, self.sizes, axis=1)
        n_members = trainable.shape[0]
        return [
            tf.reshape(piece, (n_members, *shape))
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]


@functools.lru_cache(maxsize=64)
def n_features(architecture: Architecture) -> int:
    """Length q of the feature vector."""
    return int(call(template(architecture), architecture.example(1)).shape[-1])


def fresh_members(architecture: Architecture, seeds: Sequence[int]) -> Members:
    """Copies of a network, each with its own initial weights; heads start at zero.

    Parameters
    ----------
    architecture : Architecture
    seeds : sequence of int
        One per member.
    """
    head = np.zeros(Layout.of(architecture).sizes[-1], dtype=np.float32)
    packed, states = [], []
    for seed in seeds:
        model = architecture.build(seed)
        values = [variable.numpy().ravel() for variable in model.trainable_variables]
        packed.append(np.concatenate([*values, head]).astype(np.float32))
        states.append([variable.numpy() for variable in model.non_trainable_variables])
    state = tuple(np.stack(values) for values in zip(*states, strict=True))
    return Members(np.stack(packed), state)


def per_head(architecture: Architecture, members: Members) -> tuple[Members, ...]:
    """Members of one head each from those of a network with several, in their order."""
    *shapes, (q, *_) = Layout.of(architecture).shapes
    trunk, heads = np.split(
        members.trainable, [sum(int(np.prod(shape)) for shape in shapes)], axis=1
    )
    each = heads.reshape(len(heads), q, architecture.heads)
    return tuple(
        Members(np.hstack([trunk, each[:, :, h]]), members.state) for h in range(architecture.heads)
    )


def forward(
    architecture: Architecture,
    members: tuple[Tensor, Sequence[Tensor]],
    inputs: Sequence[Tensor],
    *,
    mode: str,
    headless: bool = False,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Outputs d_m(z) of all members, their next state and penalties: the only call of networks.

    Parameters
    ----------
    architecture : Architecture
    members : tuple
        Packed weights (M, n_weights) and the state, each (M, ...).
    inputs : sequence of tensors, each (M, n_rows, ...)
        Every member has its own rows.
    mode : {"train", "predict"}
        Whether Dropout and batch statistics are on.
    headless : bool
        Whether features U (M, n_rows, q) are wanted in place of d.

    Returns
    -------
    tuple
        d (M, n_rows) in float32, of several heads (M, n_rows, heads), the state, and the users'
        regularisers (M,).
    """
    model, layout = template(architecture), Layout.of(architecture)
    dtypes = [variable.dtype for variable in model.trainable_variables]

    def one(member: tuple[list[Tensor], list[Tensor], list[Tensor]]) -> Any:
        weights, state, z = member
        cast = [tf.cast(w, dtype) for w, dtype in zip(weights[:-1], dtypes, strict=True)]
        features, state, penalty = stateless(model, cast, state, inputs=z, mode=mode)
        if headless:
            return tf.cast(features, tf.float32), state, penalty
        linear = tf.linalg.matvec if architecture.heads == 1 else tf.linalg.matmul
        return linear(tf.cast(features, tf.float32), weights[-1]), state, penalty

    trainable, state = members
    stacked = (layout.unpack(trainable), list(state), list(inputs))
    # a vectorised map over a single member makes XLA compile again for every new order of rows
    if architecture.batchable and n_members_of(trainable) > 1:
        output, state, penalty = tf.vectorized_map(one, stacked)
        return output, list(state), penalty
    count = n_members_of(trainable)
    each = [one(tf.nest.map_structure(lambda x, m=m: x[m], stacked)) for m in range(count)]
    outputs, states, penalties = zip(*each, strict=True)
    state = [tf.stack(values) for values in zip(*states, strict=True)]
    return tf.stack(outputs), state, tf.stack(penalties)


def n_members_of(stacked: Tensor) -> int:
    """Number of members, known when a graph is built."""
    return int(stacked.shape[0])


def chunk_rows(architecture: Architecture) -> int:
    """Rows of one compiled prediction call."""
    numbers = sum(int(np.prod(given.shape)) for given in architecture.inputs)
    return int(np.clip(CHUNK_NUMBERS // max(numbers, 1), 1, LARGEST_CHUNK))


def evaluate(
    architecture: Architecture, members: Members, inputs: Sequence[Array | StoredArray]
) -> Matrix:
    """Outputs of all members for all rows, (M, n_obs), float64.

    Parameters
    ----------
    architecture : Architecture
    members : Members
    inputs : sequence of arrays, each (n_obs, ...)
        Of stored arrays, rows are read by the chunk.
    """
    kernel = _evaluation(architecture)
    weights = tf.constant(members.trainable)
    state = [tf.constant(value) for value in members.state]
    n, size = len(inputs[0]), chunk_rows(architecture)
    shape = (len(members.trainable), n)
    output = beside(inputs[0], shape)
    for start in range(0, n, size):
        stop = min(start + size, n)
        chunk = [
            padded(np.asarray(array[start:stop], dtype=given.dtype), size)
            for array, given in zip(inputs, architecture.inputs, strict=True)
        ]
        output[:, start:stop] = kernel(weights, state, chunk).numpy()[:, : stop - start]
    return output


def padded(rows: Array, size: int) -> Array:
    """Rows up to `size` by repeating the first one."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.broadcast_to(rows[:1], (size - len(rows), *rows.shape[1:]))])


@functools.lru_cache(maxsize=64)
def _evaluation(architecture: Architecture) -> Callable[..., Tensor]:
    """Compiled prediction of one network: one graph per number of members."""

    @tf.function  # type: ignore[untyped-decorator]
    def kernel(trainable: Tensor, state: list[Tensor], inputs: list[Tensor]) -> Tensor:
        n_members = n_members_of(trainable)
        tiled = [tf.broadcast_to(z, (n_members, *z.shape)) for z in inputs]
        output, _, _ = forward(architecture, (trainable, state), tiled, mode="predict")
        return outside(output)

    return kernel  # type: ignore[no-any-return]


@dataclass(frozen=True)
class DeepEffect:
    """A trained deep term of one predictor.

    Parameters
    ----------
    label : str
        The term.
    unit : int
        The predictor it belongs to.
    architecture : Architecture
    members : Members
    protected : Array of int, (p,)
        Columns of the predictor's design that the effect is orthogonal to.
    projection : Matrix, (p, M)
        C: what each member says that those columns can say.
    multiplier : float
        c >= 0; zero when training found no effect.
    position : int or None
        Index among the solution's coefficients of the multiplier of its column of sd 1; None where
        the effect entered as an offset or not at all.
    """

    label: str
    unit: int
    architecture: Architecture = field(repr=False)
    members: Members = field(repr=False)
    protected: Array = field(repr=False)
    projection: Matrix = field(repr=False)
    multiplier: float
    position: int | None = None

    def member_effects(
        self, inputs: Sequence[Array | StoredArray], X: Matrix | ModelMatrix
    ) -> Matrix:
        """c (d_m(z) - x' C_m) of each member, (M, n_obs)."""
        columns = X if isinstance(X, ModelMatrix) else ModelMatrix(X)
        if self.multiplier == 0:
            return np.zeros((len(self.members.trainable), columns.n_obs))
        D = evaluate(self.architecture, self.members, self.architecture.arrange(inputs))
        # one row at a time or all at once: a sum over columns in a fixed order, unlike X @ C
        own = columns.select(self.protected)
        shared = np.einsum("ij,jm->mi", own.X, self.projection[own.dense])
        for each in own.levels:
            shared += np.stack([each.times(C[each.index]) for C in self.projection.T])
        return np.asarray(self.multiplier * (D - shared))

    def evaluate(self, inputs: Sequence[Array | StoredArray], X: Matrix | ModelMatrix) -> Vector:
        """The effect of each row, (n_obs,): a function of the row alone.

        Parameters
        ----------
        inputs : sequence of arrays, each (n_obs, ...)
            As `NetworkBlock.evaluate` gives them.
        X : Matrix or ModelMatrix, (n_obs, n_coef)
            Structured columns of the same predictor.
        """
        return np.asarray(self.member_effects(inputs, X).mean(axis=0))
