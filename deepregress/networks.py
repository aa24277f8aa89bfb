"""Networks of deep terms: how a user writes one and how it is built afresh.

A deep term is  zeta(z) = U(z) gamma:  features U (n_obs, q) of any Keras 3 model whose output is the
feature vector, followed by our linear head gamma (METHODS 5). The user's model is a recipe, never an
object we train: `resolve` reads its configuration into an `Architecture`, which builds any number of
independent copies with fresh weights, each from its own seed. Weights of frozen layers
(`layer.trainable = False`, a pretrained backbone) are copied, not drawn anew.

Weights start as their initialisers say; seeds written into a model are replaced by derived ones, else
all members of an ensemble would start alike.

References: Ruegamer, Kolb, Klein (2023), arXiv 2002.05777; Keras 3 `stateless_call`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.errors import NetworkError
from deepregress.linalg import Array

Shape = tuple[int, ...]
Factory = Callable[[Sequence[Shape]], keras.Model]

BATCHABLE_LAYERS = frozenset(
    "InputLayer Dense Activation ReLU LeakyReLU PReLU ELU Softmax Identity Flatten Reshape Permute "
    "Concatenate Add Subtract Multiply Average Maximum Minimum Dot BatchNormalization "
    "LayerNormalization UnitNormalization Rescaling Normalization Embedding Sequential "
    "Functional".split()
)
"""Keras layers made of operations that batch over ensemble members, with gradients, under XLA."""


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
        Maps input shapes (without the row axis) to a model; several inputs are flattened and joined.

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

    Convolution, 2 x 2 max pooling while the image is larger than one pixel, and so on for each entry
    of `filters`; then flattened and dense. The last hidden layer is the feature vector.

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


@dataclass(frozen=True)
class Signature:
    """One input of a network: its shape without the row axis, and its dtype."""

    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Architecture:
    """Recipe of a network: equal recipes share one compiled training graph.

    Parameters
    ----------
    config : str
        Keras configuration, JSON.
    inputs : tuple of Signature
        What a row of each input array looks like.
    origin : str
        Key of the user's own classes in this process. A recipe read from a file in another process
        finds none: its classes must be importable or registered, and Python code inside it (a
        `Lambda` layer) is refused.
    frozen : dict
        Index among the model's variables -> value, for layers the user froze.
    """

    config: str
    inputs: tuple[Signature, ...]
    origin: str
    frozen: dict[int, Array] = field(default_factory=dict, compare=False, repr=False)

    def build(self, seed: int) -> keras.Model:
        """A new model with weights drawn from `seed`.

        Raises
        ------
        NetworkError
            If the configuration names a class that is not known in this process.
        """
        with _seeded(seed):
            model = self._rebuilt(random.Random(seed))
            call(model, self.example(1))
        for index, value in self.frozen.items():
            model.variables[index].assign(value)
        return model

    def arrange(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Input arrays in the form the network takes: joined or split, in its dtypes.

        Parameters
        ----------
        arrays : sequence of arrays, each (n_obs, ...)
            As `NetworkBlock.evaluate` gives them: columns as one (n_obs, d), other arrays as given.
        """
        if len(arrays) != len(self.inputs):
            widths = [given.shape[0] for given in self.inputs]
            arrays = np.split(np.hstack(list(arrays)), np.cumsum(widths)[:-1], axis=1)
        return tuple(
            np.ascontiguousarray(array, dtype=given.dtype)
            for array, given in zip(arrays, self.inputs, strict=True)
        )

    def example(self, n: int) -> list[Array]:
        """Zero inputs of `n` rows."""
        return [np.zeros((n, *given.shape), given.dtype) for given in self.inputs]

    @property
    def batchable(self) -> bool:
        """Whether members can run as one batched network (else they run side by side)."""
        return all(type(layer).__name__ in BATCHABLE_LAYERS for layer in layers(template(self)))

    @property
    def n_weights(self) -> int:
        """Number of trainable weights of one member, without its head."""
        return int(sum(np.prod(v.shape) for v in template(self).trainable_variables))

    def _rebuilt(self, seeds: random.Random) -> keras.Model:
        config = _reseeded(json.loads(self.config), seeds)
        classes = _classes.get(self.origin, ())
        names = {cls.__name__: cls for cls in classes}
        names |= {keras.saving.get_registered_name(cls): cls for cls in classes}
        try:
            model = keras.saving.deserialize_keras_object(
                config, custom_objects=names, safe_mode=self.origin not in _classes
            )
        except (TypeError, ValueError, ImportError, AttributeError) as error:
            raise NetworkError(
                f"the network {config['class_name']!r} cannot be built from its configuration: "
                f"{_first_line(error)}. Its classes must be importable or registered with "
                "@keras.saving.register_keras_serializable() before a model is loaded, and must "
                "define get_config() when their constructors take arguments"
            ) from error
        return model


_classes: dict[str, tuple[type, ...]] = {}
"""Origin -> classes of the user's networks in this process."""


def _origin(classes: tuple[type, ...]) -> str:
    """Key of these classes: a new one for a class that was defined anew under its old name."""
    known = {value: key for key, value in _classes.items()}
    if classes not in known:
        known[classes] = secrets.token_hex(16)
        _classes[known[classes]] = classes
    return known[classes]


@functools.lru_cache(maxsize=32)
def template(architecture: Architecture) -> keras.Model:
    """The copy of a network that compiled graphs call with weights from outside."""
    return architecture.build(0)


def call(model: keras.Model, inputs: Sequence[Any]) -> Any:
    """Features (n_obs, q) of the input arrays, one per input; inference mode."""
    return model(argument(model, inputs), training=False)


def argument(model: keras.Model, inputs: Sequence[Any]) -> Any:
    """The single argument of a model's call: its inputs in the structure it was written with."""
    structure = getattr(model, "input", None)
    if structure is not None:
        return keras.tree.pack_sequence_as(structure, list(inputs))
    return inputs[0] if len(inputs) == 1 else list(inputs)


def layers(model: keras.Model) -> list[Any]:
    """All layers of a model, nested ones included."""
    return [layer for layer in model._flatten_layers(include_self=True)]


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


# -- reading a user's model -------------------------------------------------------------------------


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
        text = json.dumps(config, sort_keys=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{label}: {type(model).__name__} cannot be copied: {_first_line(error)}. "
            "Define get_config() so that it can be built again"
        ) from error
    found = [*layers(model), model]
    classes = {type(layer) for layer in found if not _of_keras(type(layer))}
    return Architecture(
        config=text,
        inputs=inputs,
        origin=_origin(tuple(sorted(classes, key=lambda cls: cls.__qualname__))),
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


def _forgets_arguments(cls: type) -> bool:
    """Whether Keras's automatic configuration would lose constructor arguments of a model.

    `keras.Model.__new__` does not pass the arguments on, so the automatic configuration of a
    subclass holds the defaults, whatever the user gave.
    """
    automatic = getattr(cls, "get_config", None) in (keras.Model.get_config, keras.Layer.get_config)
    code = getattr(cls.__init__, "__code__", None)
    if not automatic or code is None:
        return False
    count = code.co_argcount + code.co_kwonlyargcount
    return bool(set(code.co_varnames[1:count]) - {"name", "dtype", "trainable"})


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
            f"axis): {_first_line(error)}"
        ) from error
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 2:
        raise NetworkError(
            f"{label}: the output of a network must be one feature vector per row, (n, q), "
            f"got {'several outputs' if shape is None else tuple(shape)} for 2 rows"
        )


# -- building with seeds ----------------------------------------------------------------------------


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras draws its default seeds from Python's `random`: seed it, and restore it afterwards."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _reseeded(config: Any, seeds: random.Random) -> Any:
    """The configuration with every whole-number "seed" replaced by a derived one."""
    if isinstance(config, dict):
        return {
            key: seeds.randrange(1, 2**30)
            if key == "seed" and isinstance(value, int)
            else _reseeded(value, seeds)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_reseeded(value, seeds) for value in config]
    return config


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


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
