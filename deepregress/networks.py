"""Networks of deep terms: factories, and what a user's own model becomes.

A deep term is  zeta(z) = U(z) gamma:  features U (n_obs, q) of any Keras 3 model whose output is
the feature vector, followed by our linear head gamma (METHODS 5). The factories take any inputs:

    numbers, 0/1 columns    as they are
    codes of a factor       Embedding, min(50, (levels + 1) // 2) numbers for each level
    tokens of a text        Embedding, then the average over the tokens
    arrays                  flattened; pictures by convolutions in `cnn`

joined, and then dense layers, of which the last is the feature vector. `resolve` makes an
`Architecture` of whatever the user gave. `sparsify`, `collapse` and `prune` make any model a small
one (modules `factorised`, `pruning`).

References: Ruegamer, Kolb, Klein (2023), arXiv 2002.05777; Guo & Berkhahn (2016), arXiv 1604.06737.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from deepregress.architecture import Architecture, Signature
from deepregress.disk.stored import StoredArray
from deepregress.errors import NetworkError
from deepregress.factorised import DeepHoyer as DeepHoyer
from deepregress.factorised import SparsitySchedule as SparsitySchedule
from deepregress.factorised import collapse as collapse
from deepregress.factorised import sparse_optimizer as sparse_optimizer
from deepregress.factorised import sparsify as sparsify
from deepregress.factorised import sparsity as sparsity
from deepregress.keras_models import Factory, Pretrained, Shared, dtype_of, read, reading_of_model
from deepregress.linalg import Array
from deepregress.pooling import POOLINGS
from deepregress.pruning import prune as prune
from deepregress.reading import (
    AS_COLUMNS,
    BY_DEFAULT,
    EMBED_ABOVE,
    MAX_TOKENS,
    Reading,
    TextReading,
)
from deepregress.vocabulary import FIRST_WORD

Given = Any
"""What users give: keras.Model, Factory, Pretrained, Shared, or a function of input shapes."""

MOST_DIMENSIONS = 50
"""An embedding has at most so many numbers by default."""

TOKEN_DIMENSION = 32


def mlp(
    hidden: Sequence[int] = (64, 32), *, dropout: float = 0.0, activation: str = "relu"
) -> Factory:
    """Fully connected network; its last hidden layer is the feature vector.

    The default network of deep terms. Factors of more than 8 levels are embedded.

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
    return Factory(_Joined("mlp", _Dense("mlp", hidden, dropout, activation)), BY_DEFAULT)


def embedding(
    dimension: int | None = None,
    *,
    hidden: Sequence[int] = (64, 32),
    dropout: float = 0.0,
    activation: str = "relu",
) -> Factory:
    """Fully connected network to which every factor comes by a learned embedding.

    Parameters
    ----------
    dimension : int or None
        Numbers that stand for a level; None: min(50, (levels + 1) // 2).
    hidden, dropout, activation
        Of the dense layers, as in `mlp`.

    Raises
    ------
    NetworkError
        If a size is not positive or dropout is not in [0, 1).
    """
    if dimension is not None:
        _check_sizes(f"embedding(dimension={dimension!r})", [dimension])
    dense = _Dense("embedding", hidden, dropout, activation)
    joined = _Joined("embedding", dense, dimension=dimension)
    return Factory(joined, Reading(embed_above=0))


def text(
    *,
    max_tokens: int = MAX_TOKENS,
    length: int | None = None,
    dimension: int = TOKEN_DIMENSION,
    filters: Sequence[int] = (),
    kernel_size: int = 3,
    pooling: str = "average",
    hidden: Sequence[int] = (32,),
    dropout: float = 0.0,
    activation: str = "relu",
) -> Factory:
    """Network for raw text, a column of strings, or for tokens, whole numbers (n_obs, length).

    Words in lower case without punctuation, the most frequent ones of the training rows; a vector
    for each, convolutions over neighbouring words where wanted, and the average over the text. A
    factor beside the text is written C(g), more than 8 levels are embedded.

    Parameters
    ----------
    max_tokens : int
        At most so many different tokens, padding (0) and unknown words (1) among them.
    length : int or None
        Words of a text that are read; None: as many as all but 5 % of the training texts have, at
        most 256.
    dimension : int
        Numbers that stand for a word.
    filters : sequence of int
        Channels of convolutions over `kernel_size` neighbouring words; none by default.
    kernel_size : int
        Words that a convolution sees.
    pooling : {"average", "attention"}
        Mean over the words, or weighted by a learned score.
    hidden, dropout, activation
        Of the dense layers, as in `mlp`.

    Raises
    ------
    NetworkError
        If a size is not positive, the pooling is unknown or dropout is not in [0, 1).
    """
    name = f"text(max_tokens={max_tokens!r}, length={length!r}, dimension={dimension!r})"
    _check_sizes(name, [max_tokens - FIRST_WORD, dimension, *([] if length is None else [length])])
    _check_sizes(f"text(filters={filters!r}, kernel_size={kernel_size!r})", [*filters, kernel_size])
    if pooling not in POOLINGS:
        raise NetworkError(f"text(pooling={pooling!r}): needs one of {', '.join(POOLINGS)}")
    tokens = _Tokens(dimension, tuple(filters), kernel_size, pooling, activation)
    joined = _Joined("text", _Dense("text", hidden, dropout, activation), tokens=tokens)
    return Factory(joined, Reading(EMBED_ABOVE, TextReading(max_tokens, length)))


def cnn(
    filters: Sequence[int] = (16, 32),
    *,
    kernel_size: int = 3,
    hidden: Sequence[int] = (32,),
    dropout: float = 0.0,
    activation: str = "relu",
) -> Factory:
    """Convolutional network for pictures (height, width) or (height, width, channels).

    Convolution, then 2 x 2 max pooling while the picture is larger than one pixel, for each entry
    of `filters`; then flattened and joined with the other inputs, and dense. Pictures of bytes
    (uint8) are scaled to [0, 1].

    Parameters
    ----------
    filters : sequence of int
        Channels of the convolutions.
    kernel_size : int
        Their height and width in pixels.
    hidden : sequence of int
        Widths of the dense layers; the last is the feature vector.
    dropout : float
        Share of units switched off after each dense layer in training.
    activation : str
        Any Keras activation.

    Raises
    ------
    NetworkError
        If a size is not positive, dropout is not in [0, 1), or no input is a picture.
    """
    if not filters:
        raise NetworkError(f"cnn(filters={filters!r}): needs at least one filter")
    _check_sizes(f"cnn(filters={filters!r}, kernel_size={kernel_size!r})", [*filters, kernel_size])
    pictures = _Pictures(tuple(filters), kernel_size, activation)
    dense = _Dense("cnn", hidden, dropout, activation)
    return Factory(_Joined("cnn", dense, pictures=pictures), BY_DEFAULT)


def pretrained(model: keras.Model) -> Pretrained:
    """A model whose members all start from the weights it has now, and are trained from there.

    A plain model is a recipe: weights are drawn anew for each member, except in frozen layers.
    Here frozen layers (`layer.trainable = False`) stay as they are too, thawed ones start from
    their weights, and only the head is decayed towards zero.

    Parameters
    ----------
    model : keras.Model
        With weights; its output is the feature vector.

    Raises
    ------
    NetworkError
        If it is no Keras model or has no weights yet.
    """
    if not isinstance(model, keras.Model):
        raise NetworkError(f"pretrained(): needs a Keras 3 model, got {type(model).__name__}")
    if not model.weights:
        raise NetworkError(
            f"pretrained(): {model.name!r} has no weights yet; build or call it once"
        )
    return Pretrained(model)


def shared(network: Given | None = None) -> Shared:
    """One network for all formulas that name it, with a linear head for each parameter.

    Without this, `trunk(x)` in the formulas of two parameters are two networks of one architecture,
    each with its own weights. Shared, they are one: `networks={"trunk": shared(cnn())}`.

    Parameters
    ----------
    network : keras.Model, Factory, Pretrained, callable or None
        As in `networks=` of `fit`; None is the default network.

    Raises
    ------
    NetworkError
        If it is shared already.
    """
    if isinstance(network, Shared):
        raise NetworkError("shared(): the network is shared already")
    return Shared(network)


def resolve(
    given: Given | None,
    inputs: Sequence[Array | StoredArray],
    *,
    label: str,
    n_codes: Sequence[int] = (),
) -> Architecture:
    """The recipe of a network that takes these inputs.

    Parameters
    ----------
    given : keras.Model, Factory, Pretrained, Shared, callable or None
        As the user wrote it; None is the default network `mlp()`.
    inputs : sequence of arrays, each (n_obs, ...)
        Columns (n_obs, d) are joined or split where the model has one or several inputs.
    label : str
        The term, for messages.
    n_codes : sequence of int, optional
        Of each input: how many different whole numbers it can hold, 0 for measurements.

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
    arrays = [each if isinstance(each, StoredArray) else np.asarray(each) for each in inputs]
    wanted = given.network if isinstance(given, Shared) else given
    model: Any = mlp() if wanted is None else wanted
    if isinstance(model, Factory):
        counts = n_codes or [0] * len(arrays)
        signatures = [
            Signature(tuple(array.shape[1:]), dtype_of(array, label), count)
            for array, count in zip(arrays, counts, strict=True)
        ]
        model = model.build(signatures)
    elif callable(model) and not isinstance(model, keras.Model):
        model = model([tuple(array.shape[1:]) for array in arrays])
        if not isinstance(model, keras.Model):
            raise NetworkError(
                f"{label}: the factory must return a Keras 3 model, got {type(model).__name__}"
            )
    if not isinstance(model, keras.Model | Pretrained):
        raise NetworkError(
            f"{label}: a network is a Keras 3 model or a factory such as networks.mlp(), "
            f"got {type(model).__name__}"
        )
    return read(model, arrays, label=label)


def reading_of(given: Given) -> Reading:
    """How a network wants its columns."""
    if isinstance(given, Shared):
        return BY_DEFAULT if given.network is None else reading_of(given.network)
    if isinstance(given, Factory):
        return given.reading
    model: Any = given.model if isinstance(given, Pretrained) else given
    return reading_of_model(model) if isinstance(model, keras.Model) else AS_COLUMNS


# -- what factories are made of --------------------------------------------------------------------


@dataclass(frozen=True)
class _Dense:
    """Dense layers of a factory of this name."""

    factory: str
    hidden: Sequence[int]
    dropout: float
    activation: str

    def __post_init__(self) -> None:
        if not self.hidden or not _are_sizes(self.hidden):
            raise NetworkError(
                f"{self.factory}(hidden={self.hidden!r}): needs widths >= 1, at least one"
            )
        if not 0 <= self.dropout < 1:
            raise NetworkError(
                f"{self.factory}(dropout={self.dropout!r}): needs a number in [0, 1)"
            )

    def __call__(self, x: Any) -> Any:
        # names are fixed: equal networks have equal configurations, hence one compiled graph
        for i, width in enumerate(self.hidden):
            x = keras.layers.Dense(width, activation=self.activation, name=f"hidden_{i}")(x)
            if self.dropout:
                x = keras.layers.Dropout(self.dropout, name=f"dropout_{i}")(x)
        return x


@dataclass(frozen=True)
class _Tokens:
    """Tokens (length,) to a vector."""

    dimension: int = TOKEN_DIMENSION
    filters: tuple[int, ...] = ()
    kernel_size: int = 3
    pooling: str = "average"
    activation: str = "relu"

    def __call__(self, i: int, given: Signature, tokens: Any) -> Any:
        x = keras.layers.Embedding(given.n_codes, self.dimension, name=f"words_{i}")(tokens)
        for j, channels in enumerate(self.filters):
            x = keras.layers.Conv1D(
                channels,
                self.kernel_size,
                padding="same",
                activation=self.activation,
                name=f"phrases_{i}_{j}",
            )(x)
        return POOLINGS[self.pooling](name=f"text_{i}")([x, tokens])


@dataclass(frozen=True)
class _Pictures:
    """A picture to a vector."""

    filters: tuple[int, ...]
    kernel_size: int
    activation: str

    def __call__(self, i: int, given: Signature, picture: Any) -> Any:
        x = picture
        if given.dtype == "uint8":
            x = keras.layers.Rescaling(1 / 255, name=f"scaled_{i}")(x)
        if len(given.shape) == 2:
            x = keras.layers.Reshape((*given.shape, 1), name=f"one_channel_{i}")(x)
        for j, channels in enumerate(self.filters):
            x = keras.layers.Conv2D(
                channels,
                self.kernel_size,
                padding="same",
                activation=self.activation,
                name=f"filter_{i}_{j}",
            )(x)
            if min(x.shape[1:3]) > 1:
                x = keras.layers.MaxPooling2D(name=f"pool_{i}_{j}")(x)
        return keras.layers.Flatten(name=f"flat_{i}")(x)


@dataclass(frozen=True)
class _Joined:
    """Vectors of all inputs, joined, and dense layers."""

    name: str
    dense: _Dense
    dimension: int | None = None
    tokens: _Tokens = _Tokens()
    pictures: _Pictures | None = None

    def __call__(self, inputs: Sequence[Signature]) -> keras.Model:
        if self.pictures is not None and not any(_is_picture(each) for each in inputs):
            raise NetworkError(
                "cnn: needs one image (height, width) or (height, width, channels) at least, "
                f"got inputs of shapes {[each.shape for each in inputs]}; a column of paths is "
                "given as image(path, size=(64, 64)) in the formula"
            )
        tensors = [
            keras.Input(each.shape, dtype=each.dtype, name=f"input_{i}")
            for i, each in enumerate(inputs)
        ]
        vectors = [self._vector(i, inputs[i], tensor) for i, tensor in enumerate(tensors)]
        joined = keras.layers.Concatenate(name="joined")(vectors) if vectors[1:] else vectors[0]
        return keras.Model(tensors, self.dense(joined), name=self.name)

    def _vector(self, i: int, given: Signature, x: Any) -> Any:
        if given.n_codes and given.shape:
            return self.tokens(i, given, x)
        if given.n_codes:
            size = self.dimension or min(MOST_DIMENSIONS, (given.n_codes + 1) // 2)
            return keras.layers.Embedding(given.n_codes, size, name=f"levels_{i}")(x)
        if self.pictures is not None and _is_picture(given):
            return self.pictures(i, given, x)
        if len(given.shape) == 1:
            return x
        return keras.layers.Flatten(name=f"flat_{i}")(x)


def _is_picture(given: Signature) -> bool:
    return len(given.shape) in (2, 3)


def _check_sizes(named: str, sizes: Sequence[object]) -> None:
    if not _are_sizes(sizes):
        raise NetworkError(f"{named}: needs whole numbers >= 1")


def _are_sizes(values: Sequence[object]) -> bool:
    return all(isinstance(value, int) and value >= 1 for value in values)
