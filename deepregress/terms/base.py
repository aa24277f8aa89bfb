"""Terms, the blocks they become, and the registry of the names that stand for them (DESIGN 2).

A `Term` is one summand as written; `bind` makes it `Block`s by learning from the training rows what
a prediction needs. Blocks form a closed set,

    ColumnBlock   X (n, p) with coefficients and penalties
    NetworkBlock  inputs of a network
    OffsetBlock   a known part of eta

and their recipes an open one: `recipe.evaluate(frame)` is the only way to make the numbers, in
training and in prediction. A recipe reads the row and what it learned, never the other rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError, PredictionError, listing, suggestion
from deepregress.formula import Call, Code
from deepregress.gating import Sparsity
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import LevelColumns
from deepregress.penalty import Quadratic


class Columns(ABC):
    """Recipe of columns X."""

    @abstractmethod
    def evaluate(self, frame: Frame) -> Matrix:
        """Return X for the rows of a frame, shape (n_obs, n_coef), float64.

        Raises
        ------
        PredictionError
            The rows do not fit what was learned: new levels, values that are not finite.
        """

    def by_level(self, frame: Frame) -> tuple[Array, Matrix] | None:
        """Return level (n_obs,) and values (n_obs, m) of each row where columns are of levels."""
        return None


class Inputs(ABC):
    """Recipe of the inputs of a network."""

    @abstractmethod
    def evaluate(self, frame: Frame) -> tuple[Array | StoredArray, ...]:
        """Return the inputs for the rows of a frame, each of shape (n_obs, ...)."""

    @property
    @abstractmethod
    def n_codes(self) -> tuple[int, ...]:
        """Of each input: how many different whole numbers it can hold, 0 for measurements."""


@dataclass(frozen=True, eq=False)
class PenaltySpec:
    """A penalty on a block's columns and what is fixed of its smoothing parameter.

    Parameters
    ----------
    penalty : Quadratic
        The penalty, in mgcv's scaling.
    sp : float or None
        Smoothing parameter, where the user fixed it.
    df : float or None
        Effective degrees of freedom, where the user fixed them.
    shared : str
        Penalties of one predictor with the same name have one smoothing parameter; "" for none.
    """

    penalty: Quadratic
    sp: float | None = None
    df: float | None = None
    shared: str = ""


@dataclass(frozen=True, eq=False)
class ColumnBlock:
    """Columns of a design: the whole linear part, or one smooth.

    Parameters
    ----------
    label : str
        "linear" or mgcv's label, such as "s(age)" or "s(x):gb".
    kind : str
        "parametric", "smooth" or "sparse".
    names : tuple of str
        Names of the coefficients.
    variables : tuple of str
        Columns of the table that it reads.
    recipe : Columns
        How its columns are made.
    penalties : tuple of PenaltySpec
        Penalties on its coefficients.
    terms : dict of str to slice
        For the linear part: term label -> its columns within the block.
    term_variables : dict of str to tuple of str
        For the linear part: term label -> the columns of the table that it reads.
    term : str
        Label of the term that the block is a part of: "s(x):g" for "s(x):gb".
    sparsity : Sparsity or None
        The sparse penalty on its coefficients.
    """

    label: str
    kind: str
    names: tuple[str, ...]
    variables: tuple[str, ...]
    recipe: Columns
    penalties: tuple[PenaltySpec, ...] = ()
    terms: dict[str, slice] = field(default_factory=dict)
    term_variables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    term: str = ""
    sparsity: Sparsity | None = None

    @property
    def n_coef(self) -> int:
        """Number of columns."""
        return len(self.names)

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the columns for the rows of a frame, shape (n_obs, n_coef)."""
        return self.recipe.evaluate(frame)

    @cached_property
    def many_levels(self) -> bool:
        """Whether its columns are kept by level: many of them, all penalised."""
        diagonals = [spec.penalty.S for spec in self.penalties if spec.penalty.S.ndim == 1]
        return bool(diagonals) and bool((np.sum(diagonals, axis=0) > 0.0).all())

    def level_columns(self, start: int, frame: Frame) -> LevelColumns | None:
        """Return its columns by level, `start` the first in the predictor; None if they are not."""
        by_level = self.recipe.by_level(frame) if self.many_levels else None
        if by_level is None:
            return None
        codes_of_rows, values = by_level
        return LevelColumns(start, self.n_coef // values.shape[1], codes_of_rows, values)


@dataclass(frozen=True, eq=False)
class NetworkBlock:
    """The inputs of a deep term.

    Parameters
    ----------
    label : str
        The term, such as "deep(x1,x2)" or "photo(image)".
    variables : tuple of str
        Columns of the table that it reads.
    network : str
        Name of the user's network; "" for the default network.
    recipe : Inputs
        How its inputs are made.
    orthogonal_to : str or None
        "all", "none", labels of structured terms joined by "+", or None for the structured terms
        that share a variable with it.
    gate : Sparsity or None
        Of its multiplier, where the whole network may leave the model.
    arguments : tuple of str
        Columns and expressions that it is fed with, one for each input of the recipe.
    selects : bool
        Whether only those of them stay that the response depends on.
    left_out : tuple of str
        Those that did not stay.
    """

    label: str
    variables: tuple[str, ...]
    network: str
    recipe: Inputs
    orthogonal_to: str | None = None
    gate: Sparsity | None = None
    arguments: tuple[str, ...] = ()
    selects: bool = False
    left_out: tuple[str, ...] = ()

    def evaluate(self, frame: Frame) -> tuple[Array | StoredArray, ...]:
        """Return the inputs for the rows of a frame, each of shape (n_obs, ...)."""
        return self.recipe.evaluate(frame)


@dataclass(frozen=True, eq=False)
class OffsetBlock:
    """A known part of eta, such as `offset(log(e))`.

    Parameters
    ----------
    label : str
        The term as written.
    variables : tuple of str
        Columns of the table that it reads.
    expression : str
        The expression inside `offset()`.
    levels : tuple of str
        Names of strata: the offset is then the place of a row's stratum among them.
    """

    label: str
    variables: tuple[str, ...]
    expression: str
    levels: tuple[str, ...] = ()

    def evaluate(self, frame: Frame) -> Vector:
        """Return the offset of each row, shape (n_obs,)."""
        if self.levels:
            return self._codes(stratum_names(frame, self.variables))
        return numbers(frame, self.expression, self.variables, label=self.label)

    def _codes(self, names: Array) -> Vector:
        """Places among the levels."""
        levels = np.array(self.levels)
        place = np.searchsorted(levels, names).clip(0, len(levels) - 1)
        new = names[levels[place] != names]
        if new.size:
            raise PredictionError(
                f"{self.label}: {str(new[0])!r} is no stratum of the training rows "
                f"({listing(self.levels)})."
            )
        return place.astype(np.float64)


def stratum_names(frame: Frame, variables: Sequence[str]) -> Array:
    """Levels of some columns as text, joined by ", "; (n_obs,)."""
    columns = []
    for name in variables:
        values = np.asarray(frame[name])
        # 1 and 1.0 are one level
        numeric = values.dtype.kind in "iuf"
        columns.append([f"{value:.15g}" if numeric else str(value) for value in values.tolist()])
    return np.array([", ".join(each) for each in zip(*columns, strict=True)])


Block = ColumnBlock | NetworkBlock | OffsetBlock


class Term(ABC):
    """One summand of a formula as written; it holds no data."""

    label: str
    variables: tuple[str, ...]

    @property
    def crossings(self) -> tuple[tuple[str, ...], ...]:
        """Columns of which `bind` must see every combination of levels, beside every level."""
        return ()

    @property
    def coded(self) -> tuple[str, ...]:
        """Columns of numbers that the term takes as factors."""
        return ()

    @abstractmethod
    def bind(self, frame: Frame) -> tuple[Block, ...]:
        """Learn from the training rows what a prediction needs."""


Builder = Callable[[Call], Term]
B = TypeVar("B", bound=Builder)
_BUILDERS: dict[tuple[str, str], Builder] = {}


def register(name: str, bs: str = "") -> Callable[[B], B]:
    """Make a builder of terms known by the name it is called by in formulas.

    Parameters
    ----------
    name : str
        The name, such as "s".
    bs : str, optional
        The builder is for calls with `bs=` this name only.
    """

    def add(builder: B) -> B:
        _BUILDERS[name, bs] = builder
        return builder

    return add


def registered() -> tuple[str, ...]:
    """Return the names of terms that formulas can call, and the bar of `(x | g)`."""
    return tuple(sorted({name for name, _ in _BUILDERS}))


def build(call: Call) -> Term:
    """Return the term of a call; the name of a user's network stands for a deep term."""
    bs = call.kwargs.get("bs")
    if isinstance(bs, str) and (call.name, bs) in _BUILDERS:
        return _BUILDERS[call.name, bs](call)
    return _BUILDERS[call.name if (call.name, "") in _BUILDERS else "deep", ""](call)


def check_options(call: Call, allowed: Sequence[str]) -> dict[str, Any]:
    """Return the keyword arguments of a call.

    Raises
    ------
    FormulaError
        One of them is not allowed.
    """
    for name in call.kwargs:
        if name not in allowed:
            hint = suggestion(name, allowed)
            known = f"the options of {call.name}() are {listing(allowed)}"
            raise call.error(f"unknown option {name!r}; {known}{hint or '.'}")
    return call.kwargs


def name_option(call: Call, option: str) -> str | None:
    """Return an option that is a name, written as `by=g` or `by="g"`."""
    value = call.kwargs.get(option)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Code):
        return value.text.strip("`")
    raise call.error(f"{option} must be a name, got {value!r}.")


def numbers(
    frame: Frame,
    expression: str,
    variables: Sequence[str],
    *,
    label: str,
    error: type[DataError] | type[PredictionError] = PredictionError,
) -> Vector:
    """Return a numeric expression of each row, shape (n_obs,), float64.

    Raises
    ------
    DataError or PredictionError
        It is a factor, has another shape, or is not finite.
    """
    values = frame.evaluate(expression, variables)
    if isinstance(values, pd.Categorical):
        levels = listing(str(level) for level in values.categories)
        raise error(f"{label}: {expression!r} is a factor (levels {levels}), not numbers.")
    if values.ndim == 0:
        values = np.full(frame.n_obs, values)
    if values.shape != (frame.n_obs,):
        raise error(
            f"{label}: {expression!r} has shape {values.shape}; one number per row is needed."
        )
    result: Vector = values.astype(np.float64, copy=False)
    finite = np.isfinite(result)
    if not finite.all():
        raise error(f"{label}: {not_finite(frame, finite, variables)}")
    return result


def array(frame: Frame, name: str, size: int) -> Array:
    """Return an array column of the width that it had in training, shape (n_obs, size).

    Raises
    ------
    PredictionError
        It has another shape.
    """
    values: Array = frame[name]
    if values.ndim != 2 or values.shape[1] != size:
        raise PredictionError(
            f"column {name!r} has shape {values.shape}; the model was fitted with "
            f"{size} columns, shape (n_obs, {size})."
        )
    return values


def not_finite(frame: Frame, finite: Array, variables: Sequence[str]) -> str:
    """Return how many rows are not finite and what the first of them holds."""
    row = int(np.argmin(finite))
    came = listing(f"{name} = {frame[name][row]}" for name in variables if frame[name].ndim == 1)
    return f"not finite in {int((~finite).sum())} of {frame.n_obs} rows, the first has {came}."


def codes(frame: Frame, name: str, levels: Sequence[object], *, unknown: bool = False) -> Array:
    """Return a factor's codes in the levels of the training rows, shape (n_obs,).

    Parameters
    ----------
    frame : Frame
        The rows.
    name : str
        The column; numbers are looked up where the levels are numbers.
    levels : sequence
        The levels of the training rows.
    unknown : bool
        Give other levels the code -1.

    Raises
    ------
    PredictionError
        The column holds other levels, or is no factor now.
    """
    values = frame[name]
    known = listing(str(level) for level in levels)
    text = any(isinstance(level, str) for level in levels)
    if not isinstance(values, pd.Categorical) and not text and values.ndim == 1:
        values = pd.Categorical(values)
    if not isinstance(values, pd.Categorical):
        raise PredictionError(
            f"column {name!r} was a factor (levels {known}) when the model was fitted; "
            f"now it holds {values.dtype} values."
        )
    if list(values.categories) == list(levels):
        return np.asarray(values.codes)
    place = {level: code for code, level in enumerate(levels)}
    recoded = np.array([place.get(level, -1) for level in values.categories])
    result = recoded[values.codes]
    if not unknown and (result < 0).any():
        levels_of_rows = values[result < 0].remove_unused_categories().categories.tolist()
        new = listing(repr(level) for level in levels_of_rows)
        raise PredictionError(
            f"column {name!r} has levels that the model was not fitted with: {new}; "
            f"its levels are {known}."
        )
    return np.asarray(result)
