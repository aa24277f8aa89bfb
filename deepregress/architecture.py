"""Recipes of networks: a Keras configuration, built any number of times, called with given weights.

An `Architecture` builds independent copies of a network with fresh weights, each from its own seed.
Weights start as their initialisers say; seeds written into a model are replaced by derived ones,
else all members of an ensemble would start alike. `stateless` calls a copy as a function

    (trainable weights, other state, inputs) -> (features U (n_rows, q), next state, penalties)

which is what compiled graphs need: equal recipes share one `template` and one graph.

References: Keras 3, `keras.StatelessScope`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.disk.scratch import beside, parts
from deepregress.disk.stored import StoredArray
from deepregress.errors import NetworkError
from deepregress.linalg import Array
from deepregress.pooling import POOLINGS

Shape = tuple[int, ...]

BATCHABLE_LAYERS = frozenset(
    "InputLayer Dense Activation ReLU LeakyReLU PReLU ELU Softmax Identity Flatten Reshape Permute "
    "Concatenate Add Subtract Multiply Average Maximum Minimum Dot BatchNormalization "
    "LayerNormalization UnitNormalization Rescaling Normalization Embedding Sequential "
    "Functional".split()
) | {pooling.__name__ for pooling in POOLINGS.values()}
"""Keras layers made of operations that batch over ensemble members, with gradients, under XLA."""


@dataclass(frozen=True)
class Signature:
    """One input of a network: its shape without the row axis, and its dtype.

    `n_codes` tells factories how many different whole numbers it can hold; 0 for measurements.
    """

    shape: Shape
    dtype: str
    n_codes: int = 0


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
    values : dict
        Index among the model's variables -> value that all members start from: those of layers the
        user froze, or all of a pretrained model.
    pretrained : bool
        Whether all weights are given, so that they are not decayed towards zero.
    heads : int
        Linear heads on its features in training, each for a predictor of its own.
    """

    config: str
    inputs: tuple[Signature, ...]
    origin: str = ""
    values: dict[int, Array] = field(default_factory=dict, compare=False, repr=False)
    pretrained: bool = False
    heads: int = 1

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
        for index, value in self.values.items():
            model.variables[index].assign(value)
        return model

    def arrange(self, arrays: Sequence[Array | StoredArray]) -> tuple[Array | StoredArray, ...]:
        """Input arrays in the form the network takes: joined or split, in its dtypes.

        Stored arrays are not read: who takes rows of them reads them. What is made of arrays in
        files is in files.

        Parameters
        ----------
        arrays : sequence of arrays, each (n_obs, ...)
            As `NetworkBlock.evaluate` gives them: columns as one (n_obs, d), other arrays as given.
        """
        given = [Signature(tuple(array.shape[1:]), str(array.dtype)) for array in arrays]
        sources = assignment(given, self.inputs)
        if sources is None:
            shapes = [each.shape for each in given]
            raise NetworkError(f"inputs of shapes {shapes} are not {self.inputs}")
        places = _columns(given, sources)
        columns = _side_by_side([arrays[j] for j in places])
        return tuple(
            _shaped(arrays[source], signature)
            if isinstance(source, int)
            else _shaped(columns, signature, source)
            for source, signature in zip(sources, self.inputs, strict=True)
        )

    def in_precision(self, policy: str) -> Architecture:
        """The recipe whose layers compute by a policy of Keras, such as "mixed_bfloat16"."""
        return replace(self, config=json.dumps(_with_policy(json.loads(self.config), policy)))

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
                f"{first_line(error)}. Its classes must be importable or registered with "
                "@keras.saving.register_keras_serializable() before a model is loaded, and must "
                "define get_config() when their constructors take arguments"
            ) from error
        return model


Source = int | slice
"""Where an input comes from: one of the arrays, or some of the columns joined."""


def assignment(given: Sequence[Signature], wanted: Sequence[Signature]) -> list[Source] | None:
    """Which arrays go to which inputs of a network.

    One to one where that fits. Else columns, arrays (n_obs, d) of measurements, are joined in their
    order and dealt out by the widths of the inputs, the other arrays in theirs.

    Parameters
    ----------
    given, wanted : sequences of Signature
        Arrays of a term; inputs of a network, whose shapes may have None for any length.

    Returns
    -------
    list of int or slice, or None
        Number of the array or the joined columns of each input; None where they do not fit.
    """
    if len(given) == len(wanted) and all(map(_fits, given, wanted)):
        return list(range(len(given)))
    measured = [j for j, each in enumerate(given) if _is_tabular(each) and "int" not in each.dtype]
    tabular = [j for j, each in enumerate(given) if _is_tabular(each)]
    return _dealt(given, wanted, measured) or _dealt(given, wanted, tabular)


def _dealt(
    given: Sequence[Signature], wanted: Sequence[Signature], columns: Sequence[int]
) -> list[Source] | None:
    others = [j for j in range(len(given)) if j not in columns]
    width, start = sum(given[j].shape[0] for j in columns), 0
    sources: list[Source] = []
    for each in wanted:
        if others and _fits(given[others[0]], each):
            sources.append(others.pop(0))
        elif _is_tabular(each) and "float" in each.dtype and start < width:
            stop = width if each.shape[0] is None else start + each.shape[0]
            sources.append(slice(start, stop))
            start = stop
        else:
            return None
    return None if others or start != width else sources


def _columns(given: Sequence[Signature], sources: Sequence[Source]) -> list[int]:
    """The arrays whose columns are joined."""
    alone = {source for source in sources if isinstance(source, int)}
    return [j for j in range(len(given)) if j not in alone]


def _is_tabular(each: Signature) -> bool:
    return len(each.shape) == 1


def _fits(given: Signature, wanted: Signature) -> bool:
    """Whether an array has the shape and the kind of numbers of an input."""
    shape = given.shape if given.shape or wanted.shape != (1,) else (1,)
    if len(shape) != len(wanted.shape) or ("float" in given.dtype and "float" not in wanted.dtype):
        return False
    same = all(size in (None, own) for own, size in zip(shape, wanted.shape, strict=True))
    return same and wanted.dtype != "string"


def _side_by_side(arrays: Sequence[Array | StoredArray]) -> Array:
    """The columns of all arrays."""
    if not arrays:
        return np.empty((0, 0))
    shape = (len(arrays[0]), sum(array.shape[1] for array in arrays))
    joined = beside(arrays[0], shape, np.result_type(*(array.dtype for array in arrays)))
    for rows in parts(len(joined)):
        np.concatenate([np.asarray(array[rows]) for array in arrays], axis=1, out=joined[rows])
    return joined


def _shaped(
    array: Array | StoredArray, signature: Signature, columns: slice | None = None
) -> Array | StoredArray:
    """An array in the dtype of an input; (n_obs,) as (n_obs, 1) where it wants that.

    Only some of its columns where these are given.
    """
    if isinstance(array, StoredArray):
        return array
    if columns is None and array.dtype == signature.dtype:
        return np.ascontiguousarray(array.reshape(len(array), *signature.shape))
    shaped = beside(array, (len(array), *signature.shape), signature.dtype)
    for rows in parts(len(array)):
        taken = array[rows] if columns is None else array[rows][:, columns]
        shaped[rows] = taken.reshape(-1, *signature.shape)
    return shaped


_classes: dict[str, tuple[type, ...]] = {}
"""Origin -> classes of the user's networks in this process."""


def origin_of(classes: tuple[type, ...]) -> str:
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


def stateless(
    model: keras.Model,
    trainable: Sequence[Any],
    state: Sequence[Any],
    *,
    inputs: Sequence[Any],
    mode: str,
) -> tuple[Any, list[Any], Any]:
    """A model's output with its variables given from outside.

    Like Keras's `stateless_call`, but through `__call__`, which tells layers inside a subclassed
    model whether this is training even where its `call` takes no such argument.

    Parameters
    ----------
    model : keras.Model
    trainable, state : sequences of tensors
        Values of its trainable and its other variables.
    inputs : sequence of tensors, each (n_rows, ...)
    mode : {"train", "predict"}

    Returns
    -------
    tuple
        Features, the next state, and the model's own penalties (regularisers), a scalar.
    """
    values = [
        *zip(model.trainable_variables, trainable, strict=True),
        *zip(model.non_trainable_variables, state, strict=True),
    ]
    with keras.StatelessScope(state_mapping=values, collect_losses=True) as scope:
        features = model(argument(model, inputs), training=mode == "train")
        penalty = tf.add_n([tf.zeros(()), *(tf.cast(loss, tf.float32) for loss in model.losses)])
        current = [scope.get_current_value(v) for v in model.non_trainable_variables]
    following = [old if new is None else new for old, new in zip(state, current, strict=True)]
    return features, following, penalty


def argument(model: keras.Model, inputs: Sequence[Any]) -> Any:
    """The single argument of a model's call: its inputs in the structure it was written with."""
    structure = getattr(model, "input", None)
    if structure is not None:
        return keras.tree.pack_sequence_as(structure, list(inputs))
    return inputs[0] if len(inputs) == 1 else list(inputs)


def layers(model: keras.Model) -> list[Any]:
    """All layers of a model, nested ones included."""
    return list(model._flatten_layers(include_self=True))


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


def _with_policy(config: Any, policy: str) -> Any:
    """The configuration with this policy in place of every other."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": policy}}
        return {key: _with_policy(value, policy) for key, value in config.items()}
    if isinstance(config, list):
        return [_with_policy(value, policy) for value in config]
    return config


def first_line(error: BaseException) -> str:
    """What went wrong, without the traceback Keras adds."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
