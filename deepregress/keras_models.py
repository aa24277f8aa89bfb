"""Reading a user's Keras model: an `Architecture` of its configuration, inputs and given weights.

The model is a recipe, never an object we train: members with fresh weights are built from its
configuration. Weights of frozen layers (`layer.trainable = False`, a pretrained backbone) are
copied, not drawn anew; of a `Pretrained` model, all are.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from deepregress.architecture import (
    Architecture,
    Shape,
    Signature,
    assignment,
    call,
    first_line,
    layers,
    origin_of,
    template,
)
from deepregress.disk.stored import StoredArray
from deepregress.errors import NetworkError
from deepregress.linalg import Array
from deepregress.reading import AS_COLUMNS, Reading

BASE_ARGUMENTS = frozenset({"name", "dtype", "trainable"})
"""Constructor arguments of every Keras model."""

ALL_FACTORS = Reading(embed_above=0)
"""A model with inputs of whole numbers: every factor comes as the number of its level."""


@dataclass(frozen=True)
class Factory:
    """A network that is made when its inputs are known.

    Parameters
    ----------
    build : callable
        Sequence of `Signature` -> Keras model.
    reading : Reading
        How it wants columns.
    """

    build: Callable[[Sequence[Signature]], keras.Model]
    reading: Reading

    def __call__(self, shapes: Sequence[Shape]) -> keras.Model:
        """The model for numbers of these shapes (without the row axis)."""
        return self.build([Signature(tuple(shape), "float32") for shape in shapes])


@dataclass(frozen=True)
class Pretrained:
    """A model whose members start from its own weights."""

    model: keras.Model


@dataclass(frozen=True)
class Shared:
    """A network that the predictors which name it have in common, each with its own head."""

    network: Any


def reading_of_model(model: keras.Model) -> Reading:
    """How a user's model wants factors: as numbers of levels where it has integer inputs."""
    whole = any("int" in str(tensor.dtype) for tensor in known_inputs(model))
    return ALL_FACTORS if whole else AS_COLUMNS


def known_inputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Inputs that the model was written with; none of a subclassed one."""
    return list(getattr(model, "inputs", None) or [])


def read(
    given: keras.Model | Pretrained, inputs: Sequence[Array | StoredArray], *, label: str
) -> Architecture:
    """Configuration, classes and given weights of a user's model, which stays as it is.

    Parameters
    ----------
    given : keras.Model or Pretrained
    inputs : sequence of arrays, each (n_obs, ...)
    label : str
        The term, for messages.

    Raises
    ------
    NetworkError
        It cannot be rebuilt, does not fit its inputs or gives no feature vector.
    """
    model = given.model if isinstance(given, Pretrained) else given
    architecture = _copied(model, _signatures(model, inputs, label), label)
    if isinstance(given, Pretrained):
        values = _values(model, {id(weight) for weight in model.weights})
        architecture = replace(architecture, values=values, pretrained=True)
    _check_features(architecture, label)
    return architecture


def _copied(model: keras.Model, inputs: tuple[Signature, ...], label: str) -> Architecture:
    """The recipe with the weights of frozen layers."""
    own = not isinstance(model, keras.Sequential) and type(model) not in _keras_models()
    if own and _forgets_arguments(type(model)):
        raise NetworkError(
            f"{label}: {type(model).__name__} takes constructor arguments but does not define "
            "get_config(); K fresh copies are built from the configuration, so define get_config() "
            "to return all arguments, or give a factory `lambda shapes: ...` of a functional model"
        )
    try:
        config = keras.saving.serialize_keras_object(model)
        for key in ("build_config", "compile_config"):
            config.pop(key, None)
        if own and _is_automatic(type(model)):
            taken = _arguments(type(model))
            config["config"] = {k: v for k, v in config["config"].items() if k in taken}
        text = json.dumps(config, sort_keys=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{label}: {type(model).__name__} cannot be copied: {first_line(error)}. "
            "Define get_config() so that it can be built again"
        ) from error
    found = [*layers(model), model]
    classes = {type(layer) for layer in found if not _of_keras(type(layer))}
    return Architecture(
        config=text,
        inputs=inputs,
        origin=origin_of(tuple(sorted(classes, key=lambda cls: cls.__qualname__))),
        values=_values(model, _frozen(model)),
    )


def _keras_models() -> tuple[type, ...]:
    return (keras.Model, keras.Sequential, type(_tiny_functional()))


@functools.cache
def _tiny_functional() -> keras.Model:
    x = keras.Input((1,))
    return keras.Model(x, keras.layers.Identity()(x))


def _of_keras(cls: type) -> bool:
    return cls.__module__.split(".")[0] in ("keras", "deepregress")


def _is_automatic(cls: type) -> bool:
    """Whether the configuration of a model class is Keras's automatic one."""
    return getattr(cls, "get_config", None) in (keras.Model.get_config, keras.Layer.get_config)


def _forgets_arguments(cls: type[keras.Model]) -> bool:
    """Whether Keras's automatic configuration would lose constructor arguments of a model.

    `keras.Model.__new__` does not pass the arguments on, so the automatic configuration of a
    subclass holds the defaults, whatever the user gave.
    """
    return _is_automatic(cls) and bool(_arguments(cls) - BASE_ARGUMENTS)


def _arguments(cls: type[keras.Model]) -> set[str]:
    """Names that the constructor takes; a `**rest` takes the base class's."""
    named: set[str] = set()
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= BASE_ARGUMENTS
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            named.add(parameter.name)
    return named


def _frozen(model: keras.Model) -> set[int]:
    return {
        id(variable)
        for layer in layers(model)
        if not layer.trainable
        for variable in layer.variables
    }


def _values(model: keras.Model, chosen: set[int]) -> dict[int, Array]:
    return {i: v.numpy() for i, v in enumerate(model.variables) if id(v) in chosen}


def _signatures(
    model: keras.Model, arrays: Sequence[Array | StoredArray], label: str
) -> tuple[Signature, ...]:
    """What the model's inputs look like: its own word where it is built, else the arrays'."""
    given = [Signature(tuple(array.shape[1:]), dtype_of(array, label)) for array in arrays]
    known = known_inputs(model)
    if not known:
        return tuple(given)
    wanted = [Signature(tuple(tensor.shape[1:]), _plain(tensor)) for tensor in known]
    sources = assignment(given, wanted)
    if sources is None:
        raise NetworkError(
            f"{label}: the network does not take inputs of shapes {_listed(given)} (without the "
            f"row axis): its own inputs are {_listed(wanted)}{_hint(given, wanted)}"
        )
    return tuple(
        replace(signature, shape=given[source].shape)
        if isinstance(source, int) and None in signature.shape
        else signature
        for signature, source in zip(wanted, sources, strict=True)
    )


def _plain(tensor: keras.KerasTensor) -> str:
    return "float32" if "float" in str(tensor.dtype) else str(tensor.dtype)


def _listed(inputs: Sequence[Signature]) -> str:
    return ", ".join(f"{each.shape} of {each.dtype}" for each in inputs)


def _hint(given: Sequence[Signature], wanted: Sequence[Signature]) -> str:
    if any(each.dtype == "string" for each in wanted):
        return "; text is given as whole numbers: tokens(column) in the formula"
    missing = any("int" in each.dtype for each in wanted)
    if missing and not any("int" in each.dtype for each in given):
        return "; whole numbers are given by codes(factor), tokens(text) or integer arrays"
    return ""


def dtype_of(array: Array | StoredArray, label: str) -> str:
    """What an array is given to networks as: float32, int32 or, for pictures of bytes, uint8."""
    if array.dtype.kind == "f":
        return "float32"
    if array.dtype == "uint8" and array.ndim > 2:
        return "uint8"
    if array.dtype.kind in "iub":
        return "int32"
    raise NetworkError(f"{label}: network inputs must be numbers, got an array of {array.dtype}")


def _check_features(architecture: Architecture, label: str) -> None:
    shapes = [given.shape for given in architecture.inputs]
    try:
        features = call(template(architecture), architecture.example(2))
    except NetworkError as error:
        raise NetworkError(f"{label}: {error}") from error
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise NetworkError(
            f"{label}: the network does not take inputs of shapes {shapes} (without the row "
            f"axis): {first_line(error)}"
        ) from error
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 2:
        raise NetworkError(
            f"{label}: the output of a network must be one feature vector per row, (n, q), "
            f"got {'several outputs' if shape is None else tuple(shape)} for 2 rows"
        )
