"""Deep terms: what a network is fed with (METHODS 5, DESIGN 1).

`deep(x1, x2)` feeds a default network, `deep(image, net="photo")` or `photo(image)` a network of
the user. One-dimensional columns are joined to one float32 array (n, d):

    numbers   (x - mean) / sd of the training rows
    factors   one column per level, 1 where the row has it

Array columns (n, ...) are passed on to a user's network as they are; the default network takes
arrays (n, d) as d numbers. Which structured columns the network is made
orthogonal to is decided by the design, which knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.errors import DataError, NetworkError, PredictionError
from deepregress.formula import Call, Code, expression_variables
from deepregress.linalg import Array, Vector
from deepregress.terms.base import (
    Inputs,
    NetworkBlock,
    Term,
    check_options,
    codes,
    name_option,
    numbers,
    register,
)


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
class AsGiven:
    """An array column of rows of this shape."""

    variable: str
    shape: tuple[int, ...]


Input = Standardised | StandardisedArray | OneHot | AsGiven


@dataclass(frozen=True, eq=False)
class NetworkInputs(Inputs):
    """Recipe of a network's inputs.

    Parameters
    ----------
    label : str
        The term, for messages.
    inputs : tuple of Standardised, StandardisedArray, OneHot or AsGiven
        One for each argument of the term.
    """

    label: str
    inputs: tuple[Input, ...]

    def evaluate(self, frame: Frame) -> tuple[Array, ...]:
        """Return the joined columns (n_obs, d) where the first of them stands, and the arrays."""
        arrays: list[Array] = []
        columns: list[Array] = []
        place = 0
        for each in self.inputs:
            if isinstance(each, AsGiven):
                arrays.append(self._array(frame, each))
                continue
            if not columns:
                place = len(arrays)
            columns.append(self._columns(frame, each))
        if columns:
            arrays.insert(place, np.concatenate(columns, axis=1, dtype=np.float32))
        return tuple(arrays)

    def _columns(self, frame: Frame, each: Standardised | StandardisedArray | OneHot) -> Array:
        if isinstance(each, OneHot):
            row = codes(frame, each.variable, each.levels)
            return np.equal(row[:, None], np.arange(len(each.levels)))
        if isinstance(each, StandardisedArray):
            values = self._array(frame, AsGiven(each.variable, each.mean.shape))
            return np.asarray((values - each.mean) / each.sd)
        x = numbers(frame, each.expression, each.variables, label=self.label)
        return ((x - each.mean) / each.sd)[:, None]

    def _array(self, frame: Frame, each: AsGiven) -> Array:
        values = frame[each.variable]
        if isinstance(values, pd.Categorical) or values.shape[1:] != each.shape:
            raise PredictionError(
                f"{self.label}: column {each.variable!r} had rows of shape {each.shape} when the "
                f"model was fitted, now they have shape {values.shape[1:]}."
            )
        return np.asarray(values)


@dataclass(frozen=True)
class DeepTerm(Term):
    """`deep(x1, x2, net=, orthogonal_to=)`, or `photo(image, orthogonal_to=)`.

    Parameters
    ----------
    label : str
        The call without its options.
    variables : tuple of str
        Columns of the table that it names.
    expressions : tuple of str
        Its arguments.
    network : str
        Name of the user's network; "" for the default network.
    orthogonal_to : str or None
        The option as text.
    """

    label: str
    variables: tuple[str, ...]
    expressions: tuple[str, ...]
    network: str
    orthogonal_to: str | None

    def bind(self, frame: Frame) -> tuple[NetworkBlock, ...]:
        """Learn means, standard deviations, levels and shapes from the training rows.

        Raises
        ------
        DataError
            A numeric column is constant.
        NetworkError
            The default network is given an array.
        """
        inputs = tuple(self._input(frame, each) for each in self.expressions)
        recipe = NetworkInputs(self.label, inputs)
        return (NetworkBlock(self.label, self.variables, self.network, recipe, self.orthogonal_to),)

    def _input(self, frame: Frame, expression: str) -> Input:
        name = expression.strip("`")
        if name in frame:
            values = frame[name]
            if isinstance(values, pd.Categorical):
                return OneHot(name, tuple(values.categories.tolist()))
            if values.ndim > 1:
                return self._array(name, values)
        variables = expression_variables(expression)
        x = numbers(frame, expression, variables, label=self.label, error=DataError)
        sd = float(x.std())
        if x.max() == x.min():
            raise DataError(
                f"{self.label}: {expression!r} is constant ({x[0]:g} in all {len(x)} rows)."
            )
        return Standardised(expression, variables, float(x.mean()), sd)

    def _array(self, name: str, values: Array) -> Input:
        if self.network:
            return AsGiven(name, tuple(values.shape[1:]))
        if values.ndim > 2:
            raise NetworkError(
                f"{self.label}: column {name!r} is an array of shape {values.shape}; the default "
                "network takes numbers, factors and arrays (n, d), so give one of your own: "
                "networks={'name': ...} and name(...) in the formula."
            )
        mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        if not sd.any():
            raise DataError(f"{self.label}: all columns of {name!r} are constant.")
        return StandardisedArray(name, mean, np.where(sd > 0, sd, 1.0))


@register("deep")
def deep(call: Call) -> DeepTerm:
    """Read `deep(x1, x2, net="name", orthogonal_to=...)`; any other name is a user's network."""
    named = call.name != "deep"
    check_options(call, ("orthogonal_to",) if named else ("net", "orthogonal_to"))
    if not call.args:
        raise call.error(f"{call.name}() needs a column, such as {call.name}(x).")
    network = call.name if named else name_option(call, "net") or ""
    variables = dict.fromkeys(name for each in call.args for name in expression_variables(each))
    return DeepTerm(
        label=f"{call.name}({','.join(call.args)})",
        variables=tuple(variables),
        expressions=call.args,
        network=network,
        orthogonal_to=_orthogonal_to(call),
    )


def _orthogonal_to(call: Call) -> str | None:
    value = call.kwargs.get("orthogonal_to")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Code):
        return value.text
    raise call.error(f"orthogonal_to must be 'all', 'none' or labels of terms, got {value!r}.")
