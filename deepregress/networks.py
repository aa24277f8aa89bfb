"""Networks of deep terms: how a user writes one and how it is built afresh.

A deep term is  zeta(z) = U(z) gamma:  features U (n_obs, q) of any Keras 3 model whose output is
the feature vector, followed by our linear head gamma (METHODS 5). The user's model is a recipe,
never an object we train: `resolve` reads its configuration into an `Architecture`, from which
members with fresh weights are built. Weights of frozen layers (`layer.trainable = False`, a
pretrained backbone) are copied, not drawn anew.

References: Ruegamer, Kolb, Klein (2023), arXiv 2002.05777.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.architecture import (
    Architecture,
    Shape,
    Signature,
    call,
    first_line,
    layers,
    origin_of,
    template,
)
from deepregress.errors import NetworkError
from deepregress.linalg import Array

Factory = Callable[[Sequence[Shape]], keras.Model]

BASE_ARGUMENTS = frozenset({"name", "dtype", "trainable"})
"""Constructor arguments of every Keras model."""


def mlp(
    hidden: Sequence[int] = (64, 32), *, dropout: float = 0.0, activation: str = "relu"
) -> Factory:
    """Fully connected network; its last hidden layer is the feature vector.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the layers, Glorot uniform weights, zero biases.
    dropout : float
        Share of units switched off after each hidden layer in training.
    activation : str
        Any Keras activation.

    Returns
    -------
    Factory
        Maps input shapes (without the row axis) to a model; inputs are flattened and joined.

    Raises
    ------
    NetworkError
        If there is no hidden layer, a width is not positive or dropout is not in [0, 1).

    Examples
    --------
    >>> from deepregress import networks
    >>> networks.mlp(hidden=(16,))([(3,)]).output.shape
    (None, 16)
    """
    if not hidden or any(not isinstance(width, int) or width < 1 for width in hidden):
        raise NetworkError(f"mlp(hidden={hidden!r}): needs widths >= 1, at least one")
    _check_dropout("mlp", dropout)

    def build(shapes: Sequence[Shape]) -> keras.Model:
        inputs = [keras.Input(shape, name=f"input_{i}") for i, shape in enumerate(shapes)]
        flat = [
            x if len(x.shape) == 2 else keras.layers.Flatten(name=f"flat_{i}")(x)
            for i, x in enumerate(inputs)
        ]
        x = flat[0] if len(flat) == 1 else keras.layers.Concatenate(name="joined")(flat)
        return keras.Model(inputs, _dense(x, hidden, dropout, activation), name="mlp")

    return build


def cnn(
    filters: Sequence[int] = (16, 32),
    *,
    kernel_size: int = 3,
    hidden: Sequence[int] = (32,),
    dropout: float = 0.0,
    activation: str = "relu",
) -> Factory:
    """Convolutional network for images (height, width) or (height, width, channels).

    Convolution, then 2 x 2 max pooling while the image is larger than one pixel, for each entry of
    `filters`; then flattened and dense. The last hidden layer is the feature vector.

    Parameters
    ----------
    filters : sequence of int
        Channels of the convolutions.
    kernel_size : int
        Their height and width in pixels.
    hidden : sequence of int
        Widths of the dense layers.
    dropout : float
        Share of units switched off after each dense layer in training.
    activation : str
        Any Keras activation.

    Raises
    ------
    NetworkError
        If a size is not positive, dropout is not in [0, 1), or the input is no image.
    """
    sizes = (*filters, *hidden, kernel_size)
    if not filters or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise NetworkError(
            f"cnn(filters={filters!r}, kernel_size={kernel_size!r}, hidden={hidden!r}): "
            "needs whole numbers >= 1 and at least one filter"
        )
    _check_dropout("cnn", dropout)

    def build(shapes: Sequence[Shape]) -> keras.Model:
        if len(shapes) != 1 or len(shapes[0]) not in (2, 3):
            raise NetworkError(
                "cnn: needs one image (height, width) or (height, width, channels), "
                f"got inputs of shapes {list(shapes)}"
            )
        image = keras.Input(shapes[0], name="image")
        x = image
        if len(shapes[0]) == 2:
            x = keras.layers.Reshape((*shapes[0], 1), name="one_channel")(x)
        for i, channels in enumerate(filters):
            convolution = keras.layers.Conv2D(
                channels, kernel_size, padding="same", activation=activation, name=f"filter_{i}"
            )
            x = convolution(x)
            if min(x.shape[1:3]) > 1:
                x = keras.layers.MaxPooling2D(name=f"pool_{i}")(x)
        x = keras.layers.Flatten(name="flat")(x)
        return keras.Model(image, _dense(x, hidden, dropout, activation), name="cnn")

    return build


def resolve(
    given: keras.Model | Factory | None, inputs: Sequence[Array], *, label: str
) -> Architecture:
    """The recipe of a network that takes these inputs.

    Parameters
    ----------
    given : keras.Model, factory or None
        As the user wrote it; None is the default network `mlp()`.
    inputs : sequence of arrays, each (n_obs, ...)
        Columns (n_obs, d) are joined or split where the model has one or several inputs.
    label : str
        The term, for messages.

    Raises
    ------
    NetworkError
        If it is no network, cannot be rebuilt, does not fit its inputs or gives no feature vector.
    """
    if keras.backend.backend() != "tensorflow":
        raise NetworkError(
            f"{label}: networks need Keras on TensorFlow, but Keras runs on "
            f"{keras.backend.backend()!r}; set KERAS_BACKEND=tensorflow before Keras is imported"
        )
    arrays = [np.asarray(array) for array in inputs]
    if given is None:
        given = mlp()
    if isinstance(given, keras.Model):
        model = given
    elif callable(given):
        model = given([array.shape[1:] for array in arrays])
        if not isinstance(model, keras.Model):
            raise NetworkError(
                f"{label}: the factory must return a Keras 3 model, got {type(model).__name__}"
            )
    else:
        raise NetworkError(
            f"{label}: a network is a Keras 3 model or a factory such as networks.mlp(), "
            f"got {type(given).__name__}"
        )
    architecture = _read(model, _signatures(model, arrays, label), label)
    _check_features(architecture, label)
    return architecture


# -- reading a user's model ------------------------------------------------------------------------


def _read(model: keras.Model, inputs: tuple[Signature, ...], label: str) -> Architecture:
    """Configuration, classes and frozen weights of a user's model, which stays as it is."""
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
        frozen=_frozen_values(model),
    )


def _keras_models() -> tuple[type, ...]:
    return (keras.Model, keras.Sequential, type(_tiny_functional()))


@functools.cache
def _tiny_functional() -> keras.Model:
    x = keras.Input((1,))
    return keras.Model(x, keras.layers.Identity()(x))


def _of_keras(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "keras"


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


def _frozen_values(model: keras.Model) -> dict[int, Array]:
    frozen = {
        id(variable)
        for layer in layers(model)
        if not layer.trainable
        for variable in layer.variables
    }
    return {i: v.numpy() for i, v in enumerate(model.variables) if id(v) in frozen}


def _signatures(model: keras.Model, arrays: Sequence[Array], label: str) -> tuple[Signature, ...]:
    """What the model's inputs look like: its own word where it is built, else the arrays'."""
    known = getattr(model, "inputs", None) or []
    tabular = all(array.ndim == 2 for array in arrays)
    if known and tabular and (len(known) == 1) != (len(arrays) == 1):
        shapes = [tuple(tensor.shape[1:]) for tensor in known]
        if len(known) == 1:
            shapes = [(sum(array.shape[1] for array in arrays),)]
        return tuple(Signature(shape, "float32") for shape in shapes)
    dtypes = [_dtype(array, label) for array in arrays]
    if len(known) == len(arrays):
        wants_float = ["float" in str(tensor.dtype) for tensor in known]
        dtypes = ["float32" if f else d for f, d in zip(wants_float, dtypes, strict=True)]
    return tuple(Signature(a.shape[1:], d) for a, d in zip(arrays, dtypes, strict=True))


def _dtype(array: Array, label: str) -> str:
    if array.dtype.kind == "f":
        return "float32"
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


def _dense(x: Any, hidden: Sequence[int], dropout: float, activation: str) -> Any:
    # names are fixed: equal networks have equal configurations, hence one compiled graph
    for i, width in enumerate(hidden):
        x = keras.layers.Dense(width, activation=activation, name=f"hidden_{i}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout_{i}")(x)
    return x


def _check_dropout(name: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise NetworkError(f"{name}(dropout={dropout!r}): needs a number in [0, 1)")
