"""Dead units of a sparse network cut out: a smaller model with the same output (METHODS 6).

Along a chain of layers, unit u of a layer is dead if

    nothing uses it     all weights W[.., u, :] of the next layer are zero, or
    it is constant      all its own weights W[.., :, u] are zero: its output is a(b_u) everywhere,
                        which is added to the biases of the next layer, sum over .. of W[.., u, :].

Cutting one can kill others, so it is repeated until nothing is dead. Convolutions with padding see
zeros beyond the border: there a constant unit leaves only if a(b_u) = 0.

References: Kolb et al. (2025), arXiv:2509.23898, sec. 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deepregress.errors import NetworkError
from deepregress.linalg import Array

_L = keras.layers
WEIGHTED = (_L.Dense, _L.Conv1D, _L.Conv2D)
CHANNELWISE = (
    *(_L.Activation, _L.ReLU, _L.LeakyReLU, _L.ELU, _L.Dropout, _L.Identity, _L.InputLayer),
    *(_L.MaxPooling1D, _L.MaxPooling2D, _L.AveragePooling1D, _L.AveragePooling2D),
    *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D),
    *(_L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D),
)
"""Layers that work on each channel alone and map a constant channel to a constant one."""


@dataclass
class _Stage:
    """One layer with weights: kernel as (places, n_inputs, n_units), and what follows it.

    `repeats` tells how often the previous units stand side by side among its inputs (after
    Flatten), `exact` whether a constant input is the same constant at every place it is used.
    """

    layer: Any
    kernel: Array
    bias: Array
    repeats: int
    exact: bool
    before: list[Any]


def prune(model: keras.Model) -> keras.Model:
    """A model without the dead units and filters of another, with the same output.

    Parameters
    ----------
    model : keras.Model
        A chain of Dense, Conv1D, Conv2D, activation, pooling, dropout, batch normalisation and
        flattening layers, as `collapse` gives it. Its outputs, and its inputs, all stay.

    Returns
    -------
    keras.Sequential

    Raises
    ------
    NetworkError
        If the model is no such chain.
    """
    chain = _chain(model)
    stages, after = _stages(chain)
    if not stages:
        raise NetworkError("prune: the model has no Dense, Conv1D or Conv2D layer")
    alive = [np.ones(stage.kernel.shape[2], dtype=bool) for stage in stages]
    changed = True
    while changed:
        changed = False
        for i in range(len(stages) - 1):
            for unit in np.flatnonzero(alive[i]):
                if _removed(stages, alive, i, int(unit)):
                    alive[i][unit] = False
                    changed = True
    return _rebuilt(model, stages, alive, after)


def _removed(stages: list[_Stage], alive: list[Array], i: int, unit: int) -> bool:
    """Whether a unit is dead; what it adds as a constant has then moved to the next biases.

    One unit of each layer stays, as a layer needs one.
    """
    stage, following = stages[i], stages[i + 1]
    if alive[i].sum() == 1:
        return False
    uses = following.kernel[:, _inputs(following, unit, len(alive[i])), :]
    if not uses[:, :, alive[i + 1]].any():
        return True
    inputs = np.ones(stage.kernel.shape[1], dtype=bool)
    if i:
        inputs = np.tile(alive[i - 1], stage.repeats)
    if stage.kernel[:, inputs, unit].any():
        return False
    value = _constant(stage, following, unit)
    if value is None or not (following.exact or value == 0.0):
        return False
    following.bias = following.bias + value * uses.sum(axis=(0, 1))
    return True


def _inputs(stage: _Stage, unit: int, n_units: int) -> Array:
    """Inputs of a stage that a unit of the previous one feeds."""
    return unit + n_units * np.arange(stage.repeats)


def _constant(stage: _Stage, following: _Stage, unit: int) -> float | None:
    """What the next stage sees of a unit without inputs; None where it cannot be told."""
    value = stage.layer.activation(np.float32(stage.bias[unit]))
    for layer in following.before:
        if isinstance(layer, _L.BatchNormalization):
            gamma = 1.0 if layer.gamma is None else float(layer.gamma[unit])
            beta = 0.0 if layer.beta is None else float(layer.beta[unit])
            sd = np.sqrt(float(layer.moving_variance[unit]) + layer.epsilon)
            value = gamma * (value - float(layer.moving_mean[unit])) / sd + beta
        elif isinstance(layer, _L.Activation):
            value = layer.activation(np.float32(value))
        elif isinstance(layer, (_L.ReLU, _L.LeakyReLU, _L.ELU)):
            value = layer(np.full((1, 1), value, dtype=np.float32))[0, 0]
    value = float(value)
    return value if np.isfinite(value) else None


# -- reading and writing a chain -------------------------------------------------------------------


def _chain(model: keras.Model) -> list[Any]:
    """The layers of a model one after the other."""
    chain: list[Any] = []
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            chain += _chain(layer)
        else:
            chain.append(layer)
    allowed = (*WEIGHTED, *CHANNELWISE, _L.Flatten, _L.BatchNormalization)
    for layer in chain:
        if not isinstance(layer, allowed):
            raise NetworkError(
                f"prune: {layer.name!r} ({type(layer).__name__}) is no Dense, convolution, "
                "activation, pooling, dropout, batch normalisation or flattening layer"
            )
        if len(layer._inbound_nodes) > 1 or len(layer._outbound_nodes) > 1:
            raise NetworkError(f"prune: the model branches at {layer.name!r}: it is no chain")
    if len(getattr(model, "inputs", [0])) != 1:
        raise NetworkError("prune: the model has several inputs: it is no chain")
    return chain


def _stages(chain: list[Any]) -> tuple[list[_Stage], list[Any]]:
    """Layers with weights, each with those before it, and what follows the last."""
    stages: list[_Stage] = []
    before: list[Any] = []
    for layer in chain:
        if not isinstance(layer, WEIGHTED):
            before.append(layer)
            continue
        kernel = np.asarray(layer.kernel)
        kernel = kernel.reshape(-1, *kernel.shape[-2:]).copy()
        bias = np.zeros(kernel.shape[2], np.float32) if layer.bias is None else layer.bias
        n_units = stages[-1].kernel.shape[2] if stages else kernel.shape[1]
        stages.append(
            _Stage(
                layer=layer,
                kernel=kernel,
                bias=np.asarray(bias),
                repeats=kernel.shape[1] // n_units,
                exact=getattr(layer, "padding", "valid") == "valid",
                before=before,
            )
        )
        before = []
    return stages, before


def _rebuilt(
    model: keras.Model, stages: list[_Stage], alive: list[Array], after: list[Any]
) -> keras.Sequential:
    """The chain with the units that are alive."""
    new = keras.Sequential([keras.Input(model.inputs[0].shape[1:])], name=f"{model.name}_pruned")
    kept = np.ones(stages[0].kernel.shape[1], dtype=bool)
    for stage, units in zip(stages, [*alive[:-1], np.ones_like(alive[-1])], strict=True):
        _append(new, stage.before, kept)
        config = stage.layer.get_config()
        config["units" if "units" in config else "filters"] = int(units.sum())
        config["use_bias"] = True
        layer = type(stage.layer).from_config(config)
        new.add(layer)
        kernel = stage.kernel[:, np.tile(kept, stage.repeats), :][:, :, units]
        layer.set_weights([kernel.reshape(layer.kernel.shape), stage.bias[units]])
        kept = units
    _append(new, after, kept)
    return new


def _append(new: keras.Sequential, layers: list[Any], kept: Array) -> None:
    """Layers without units of their own, for the channels that are kept."""
    for old in layers:
        if isinstance(old, _L.InputLayer):
            continue
        layer = type(old).from_config(old.get_config())
        new.add(layer)
        values = old.get_weights()
        if values:
            layer.set_weights([value[kept] for value in values])
