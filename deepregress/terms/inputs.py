"""Recipes of a network's inputs: what columns become, in training and prediction (METHODS 5).

Columns are joined to one float32 array (n, d), the others stand on their own:

    Standardised       a number: (x - mean) / sd of the training rows                  joined
    StandardisedArray  an array (n, d): so in each of its columns                      joined
    OneHot             a factor: one column per level, 1 where the row has it          joined
    Codes              a factor: the number of its level, (n,)
    Tokens             a text: numbers of its words, (n, length)
    AsGiven            an array (n, ...) as it is
    PictureFiles       paths: the pictures (n, height, width, channels), read when needed
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.disk.stored import StoredArray
from deepregress.errors import PredictionError
from deepregress.linalg import Array, Vector
from deepregress.pictures import Pictures
from deepregress.terms.base import Inputs, codes, numbers
from deepregress.vocabulary import Vocabulary


@dataclass(frozen=True)
class Standardised:
    """A numeric column: (x - mean) / sd."""

    expression: str
    variables: tuple[str, ...]
    mean: float
    sd: float


@dataclass(frozen=True, eq=False)
class StandardisedArray:
    """An array column (n, d): (x - mean) / sd in each of its columns; sd 1 where it is constant."""

    variable: str
    mean: Vector
    sd: Vector


@dataclass(frozen=True)
class OneHot:
    """A factor: one column per level."""

    variable: str
    levels: tuple[Any, ...]


@dataclass(frozen=True)
class Codes:
    """A factor: the number of the row's level among these."""

    variable: str
    levels: tuple[Any, ...]


@dataclass(frozen=True)
class Tokens:
    """A text: the numbers of its first words."""

    variable: str
    vocabulary: Vocabulary
    length: int


@dataclass(frozen=True)
class AsGiven:
    """An array column of rows of this shape; `n_codes` where it holds numbers below that only."""

    variable: str
    shape: tuple[int, ...]
    n_codes: int = 0


@dataclass(frozen=True)
class PictureFiles:
    """A column of paths: pictures of this size."""

    variable: str
    size: tuple[int, int]
    channels: int


Joined = Standardised | StandardisedArray | OneHot
Single = Codes | Tokens | AsGiven | PictureFiles
Input = Joined | Single


@dataclass(frozen=True, eq=False)
class NetworkInputs(Inputs):
    """Recipe of a network's inputs.

    Parameters
    ----------
    label : str
        The term, for messages.
    inputs : tuple of Input
        One for each argument of the term.
    """

    label: str
    inputs: tuple[Input, ...]

    def evaluate(self, frame: Frame) -> tuple[Array | StoredArray, ...]:
        """Return the joined columns (n_obs, d) where the first of them stands, and the others."""
        columns = [self._columns(frame, each) for each in self.inputs if isinstance(each, Joined)]
        joined = np.concatenate(columns, axis=1, dtype=np.float32) if columns else np.empty(0)
        return tuple(
            joined if each is None else self._single(frame, each) for each in self._arranged()
        )

    def hidden(
        self, arrays: Sequence[Array | StoredArray], places: Collection[int], rows: Array
    ) -> tuple[Array | StoredArray, ...]:
        """Its arrays with the inputs at some places hidden.

        Joined columns are at their means, other arrays those of `rows`, a permutation.
        """
        found = []
        for array, own in zip(arrays, self._of_arrays(), strict=True):
            closed = [place for place in own if place in places]
            if closed and isinstance(self.inputs[own[0]], Joined):
                array = np.array(array)
                for place in closed:
                    columns = self._width(own, place)
                    array[:, columns] = array[:, columns].mean(axis=0)
            elif closed:
                array = np.asarray(array[rows])
            found.append(array)
        return tuple(found)

    def only(
        self, arrays: Sequence[Array | StoredArray], places: Sequence[int]
    ) -> tuple[NetworkInputs, tuple[Array | StoredArray, ...]]:
        """The recipe with the inputs at some places alone, and its arrays of the same rows."""
        found = {}
        for array, own in zip(arrays, self._of_arrays(), strict=True):
            kept = [place for place in own if place in places]
            if kept and isinstance(self.inputs[own[0]], Joined):
                columns = np.concatenate([np.r_[self._width(own, place)] for place in kept])
                array = np.ascontiguousarray(np.asarray(array[:])[:, columns])
            found.update(dict.fromkeys(kept, array))
        smaller = NetworkInputs(self.label, tuple(self.inputs[place] for place in places))
        return smaller, tuple(found[places[own[0]]] for own in smaller._of_arrays())

    def _of_arrays(self) -> list[list[int]]:
        """Places of the inputs that each array holds."""
        joined = [j for j, each in enumerate(self.inputs) if isinstance(each, Joined)]
        alone = [[j] for j in range(len(self.inputs)) if j not in joined]
        return sorted([joined, *alone] if joined else alone)

    def _width(self, joined: Sequence[int], place: int) -> slice:
        """Columns of an input among the joined ones."""
        sizes = [_n_columns(self.inputs[j]) for j in joined]
        ends = np.cumsum([0, *sizes])
        j = list(joined).index(place)
        return slice(int(ends[j]), int(ends[j + 1]))

    @property
    def n_codes(self) -> tuple[int, ...]:
        """Of each array: how many different whole numbers it can hold, 0 for measurements."""
        return tuple(_n_codes(each) for each in self._arranged())

    def _arranged(self) -> tuple[Single | None, ...]:
        """The single inputs in order, None for the joined columns."""
        found: list[Single | None] = []
        for each in self.inputs:
            if not isinstance(each, Joined):
                found.append(each)
            elif None not in found:
                found.append(None)
        return tuple(found)

    def _columns(self, frame: Frame, each: Joined) -> Array:
        if isinstance(each, OneHot):
            row = codes(frame, each.variable, each.levels)
            return np.equal(row[:, None], np.arange(len(each.levels)))
        if isinstance(each, StandardisedArray):
            values = self._array(frame, each.variable, each.mean.shape)
            return np.asarray((values - each.mean) / each.sd)
        x = numbers(frame, each.expression, each.variables, label=self.label)
        return ((x - each.mean) / each.sd)[:, None]

    def _single(self, frame: Frame, each: Single) -> Array | StoredArray:
        if isinstance(each, Codes):
            return codes(frame, each.variable, each.levels).astype(np.int32)
        if isinstance(each, AsGiven):
            values = self._array(frame, each.variable, each.shape)
            if each.n_codes:
                self._check_codes(values, each)
            return values
        strings = self._strings(frame, each.variable)
        used, row = np.unique(strings.codes, return_inverse=True)
        distinct = [str(text) for text in strings.categories[used]]
        if isinstance(each, Tokens):
            return np.asarray(each.vocabulary.encode(distinct, each.length)[row])
        every = np.arange(frame.n_obs)
        return Pictures(every, row, tuple(distinct), each.size, each.channels, self.label)

    def _array(self, frame: Frame, name: str, shape: tuple[int, ...]) -> Array:
        values = frame[name]
        if isinstance(values, pd.Categorical) or values.shape[1:] != shape:
            raise PredictionError(
                f"{self.label}: column {name!r} had rows of shape {shape} when the "
                f"model was fitted, now they have shape {values.shape[1:]}."
            )
        return values  # type: ignore[no-any-return]

    def _check_codes(self, values: Array, each: AsGiven) -> None:
        largest, least = int(np.max(values, initial=0)), int(np.min(values, initial=0))
        if largest >= each.n_codes or least < 0:
            raise PredictionError(
                f"{self.label}: column {each.variable!r} holds "
                f"{least if least < 0 else largest}; when the model was fitted its numbers were "
                f"between 0 and {each.n_codes - 1}."
            )

    def _strings(self, frame: Frame, name: str) -> pd.Categorical:
        values = frame[name]
        if not isinstance(values, pd.Categorical):
            raise PredictionError(
                f"{self.label}: column {name!r} held strings when the model was fitted; "
                f"now it holds {values.dtype} values."
            )
        return values


def _n_columns(each: Input) -> int:
    """Of the joined array."""
    if isinstance(each, OneHot):
        return len(each.levels)
    return len(each.mean) if isinstance(each, StandardisedArray) else 1


def _n_codes(each: Single | None) -> int:
    if isinstance(each, Codes):
        return len(each.levels)
    if isinstance(each, Tokens):
        return each.vocabulary.n_tokens
    return each.n_codes if isinstance(each, AsGiven) else 0
