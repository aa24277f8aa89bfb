"""Features of trained networks row by row, plain or thinned by the masks of Dropout.

    U_m(z)              the feature vector of member m, (n_obs, q); its output is U_m(z)' gamma_m
    U_m(z; mask)        with the units that a mask leaves out, the others scaled by 1 / (1 - rate)

A mask of Dropout is one for all rows: it makes a thinned network, a function of the row. Batch
statistics stay as they were learned. So neither the batch nor a row's place in it matters.

Reference: Gal & Ghahramani (2016), arXiv:1506.02142.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.architecture import Architecture, layers, stateless, template
from deepregress.disk.stored import StoredArray
from deepregress.linalg import Array, Matrix
from deepregress.predictor import Layout, Members, chunk_rows, outside, padded

Tensor = Any

SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
"""Layers that leave out whole channels."""


def features(
    architecture: Architecture,
    members: Members,
    inputs: Sequence[Array | StoredArray],
    *,
    member: int,
    mask: Sequence[int] | None = None,
) -> Matrix:
    """Features of one member at all rows, (n_obs, q), float64.

    Parameters
    ----------
    architecture : Architecture
    members : Members
    inputs : sequence of arrays, each (n_obs, ...)
        As `Architecture.arrange` gives them.
    member : int
    mask : sequence of int, optional
        Numbers from which the masks of Dropout are drawn; without them nothing is left out.
    """
    kernel = _kernel(architecture, "plain" if mask is None else "thinned")
    weights = tf.constant(members.trainable[member : member + 1])
    state = [value[member] for value in members.state]
    if mask is not None:
        places = _seed_places(architecture)
        drawn = np.random.SeedSequence([*mask, member]).generate_state(len(places))
        for place, number in zip(places, drawn, strict=True):
            state[place] = np.array([number, 0], dtype=np.uint32)
    size, parts = chunk_rows(architecture), []
    for start in range(0, len(inputs[0]), size):
        chunk = [
            padded(np.asarray(array[start : start + size], dtype=given.dtype), size)
            for array, given in zip(inputs, architecture.inputs, strict=True)
        ]
        parts.append(kernel(weights, [tf.constant(value) for value in state], chunk).numpy())
    return np.concatenate(parts)[: len(inputs[0])]


def has_dropout(architecture: Architecture) -> bool:
    """Whether there is anything that a mask could leave out."""
    return bool(_seed_places(architecture))


@functools.lru_cache(maxsize=64)
def _kernel(architecture: Architecture, kind: str) -> Callable[..., Tensor]:
    """Compiled features of one member; kind "plain" or "thinned"."""
    model = template(architecture) if kind == "plain" else _thinned(architecture)
    layout = Layout.of(architecture)
    dtypes = [variable.dtype for variable in model.trainable_variables]

    @tf.function  # type: ignore[untyped-decorator]
    def kernel(trainable: Tensor, state: list[Tensor], inputs: list[Tensor]) -> Tensor:
        pieces = [piece[0] for piece in layout.unpack(trainable)[:-1]]
        cast = [tf.cast(w, dtype) for w, dtype in zip(pieces, dtypes, strict=True)]
        found, _, _ = stateless(model, cast, state, inputs=inputs, mode="predict")
        return outside(found)

    return kernel  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=32)
def _thinned(architecture: Architecture) -> keras.Model:
    """A copy of a network whose Dropout is always on, with one mask for all rows."""
    model = architecture.build(0)
    for layer in _dropouts(model):
        layer.call = functools.partial(_masked, layer)
    return model


def _masked(layer: Any, inputs: Tensor, training: object = None) -> Tensor:
    """What a Dropout layer does in training, with a mask that is broadcast over rows."""
    if isinstance(layer, SPATIAL):
        kept = [1] * (len(inputs.shape) - 2)
        first = getattr(layer, "data_format", "channels_last") == "channels_first"
        inner = [inputs.shape[1], *kept] if first else [*kept, inputs.shape[-1]]
    else:
        given = layer.noise_shape or (None,) * len(inputs.shape)
        inner = [
            whole if own is None else own
            for own, whole in zip(given[1:], inputs.shape[1:], strict=True)
        ]
    return keras.random.dropout(
        inputs, layer.rate, noise_shape=(1, *inner), seed=layer.seed_generator
    )


def _dropouts(model: keras.Model) -> list[Any]:
    """Layers that leave units out."""
    kinds = (keras.layers.Dropout, *SPATIAL)
    return [each for each in layers(model) if isinstance(each, kinds) and each.rate > 0]


@functools.lru_cache(maxsize=64)
def _seed_places(architecture: Architecture) -> tuple[int, ...]:
    """Places among the other variables of the seeds of these layers."""
    model = _thinned(architecture)
    seeds = {id(layer.seed_generator.state) for layer in _dropouts(model)}
    return tuple(j for j, v in enumerate(model.non_trainable_variables) if id(v) in seeds)
