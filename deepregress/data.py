"""From the user's table to a `Frame` of columns and a `Response` (DESIGN 3, step 2).

What the formulas name is read once, for all parameters together, and cleaned once:

    columns -> finite -> complete rows (na = "drop" or "raise") -> rows of positive weight

A response is stored by its bounds (`response`), with weights w_i >= 0 that multiply the rows'
log-likelihood (weight 2 = the row twice; weight 0 = no row).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from deepregress.complete_rows import Tally, check_finite, judge, missing
from deepregress.errors import (
    DataError,
    PredictionError,
    ResponseError,
    UnknownVariable,
    listing,
    suggestion,
)
from deepregress.frame import Column
from deepregress.frame import Frame as Frame
from deepregress.frame import column_names as column_names
from deepregress.linalg import Array, Vector
from deepregress.response import Response as Response
from deepregress.response_forms import Bounds, read_form


def training_set(
    data: object,
    needs: Mapping[str, Sequence[str]],
    *,
    response: str,
    response_variables: Sequence[str],
    weights: str | Sequence[float] | Array | None = None,
    na: Literal["drop", "raise"] = "drop",
    known: Sequence[str] = (),
) -> tuple[Frame, Response]:
    """Read and clean what the formulas need, once for all parameters.

    Parameters
    ----------
    data : table or dict of arrays
        The user's data.
    needs : mapping
        What names columns ("the formula for 'scale'") -> their names.
    response : str
        Left side of the formula.
    response_variables : sequence of str
        The columns it names.
    weights : str or array, optional
        Name of a column or one weight per row, at least 0; rows of weight 0 are left out.
    na : {"drop", "raise"}
        What to do with rows that miss a value in any of these columns; what a response form such
        as `Surv(lower, upper, type="interval")` says itself of missing bounds goes first.
    known : sequence of str
        What the family asks for beside the response, such as "trials".

    Returns
    -------
    frame : Frame
        Complete rows of positive weight; factors keep the levels that occur.
    response : Response
        The response of the same rows.

    Raises
    ------
    UnknownVariable, DataError, ResponseError
        See the messages.
    """
    wanted = Wanted.of(
        column_names(data),
        needs,
        response=response,
        response_variables=response_variables,
        weights=weights,
        na=na,
        known=known,
    )
    frame = Frame.read(data, wanted.names)
    if frame.n_obs == 0:
        raise DataError("the data have no rows.")
    given = wanted.judged(frame)
    given.tally.report(na)
    return given.rows(drop_unused_levels)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What the formulas ask for of a table.

    Parameters
    ----------
    names : tuple of str
        Columns, those of the response first.
    response : str
        Left side of the formula.
    response_variables : tuple of str
        The columns it names.
    judged_names : tuple of str
        The other columns, whose missing and infinite values mean what they say.
    weights : str, array or None
        Name of a column, or one weight per row of the table.
    known : tuple of str
        What the family asks for beside the response.
    """

    names: tuple[str, ...]
    response: str
    response_variables: tuple[str, ...]
    judged_names: tuple[str, ...]
    weights: str | Array | None
    known: tuple[str, ...]

    @classmethod
    def of(
        cls,
        columns: Sequence[str],
        needs: Mapping[str, Sequence[str]],
        *,
        response: str,
        response_variables: Sequence[str],
        weights: str | Sequence[float] | Array | None,
        na: str,
        known: Sequence[str],
    ) -> Wanted:
        """Check that a table with these columns has what is asked for.

        Raises
        ------
        UnknownVariable, DataError
            A name is no column, or `na` no policy.
        """
        if na not in ("drop", "raise"):
            raise DataError(f"na must be 'drop' or 'raise', got {na!r}.")
        by_name = (weights,) if isinstance(weights, str) else ()
        _check_known(columns, {**needs, "the response": response_variables, "weights": by_name})
        others = [*(name for part in needs.values() for name in part), *by_name]
        return cls(
            tuple(dict.fromkeys((*response_variables, *others))),
            response,
            tuple(response_variables),
            tuple(dict.fromkeys(others)),
            weights if isinstance(weights, str | None) else np.asarray(weights),
            tuple(known),
        )

    def judged(self, frame: Frame, first: int = 0) -> Judged:
        """Which rows can be used; `first` is the number of the first one in the table."""
        weight = _weights(frame, self.weights, first)
        bounds = _bounds(frame, self.response, self.response_variables, self.known)
        # a form says itself what its columns' missing and infinite values mean
        explained = () if bounds is None else set(self.response_variables) - set(self.judged_names)
        columns = {n: frame[n] for n in frame.columns if n not in explained}
        masks = {f"{name!r}": missing(values) for name, values in columns.items()}
        if bounds is not None:
            masks[f"{self.response!r}"] = bounds.missing
        if not isinstance(self.weights, str):
            masks["weights"] = np.isnan(weight)
        keep, tally = judge(columns, masks, weight)
        return Judged(self, frame, weight, bounds, keep, tally)


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows as they came, and which of them can be used."""

    wanted: Wanted
    frame: Frame
    weight: Vector
    bounds: Bounds | None
    keep: Array
    tally: Tally

    def rows(self, prepare: Callable[[Frame], Frame]) -> tuple[Frame, Response]:
        """The rows that can be used, their columns prepared, and their response."""
        frame, weight, text = self.frame, self.weight, self.wanted.response
        full = None if self.bounds is None else _of_bounds(self.bounds, weight, text)
        if not self.keep.all():
            frame, weight = frame.rows(self.keep), weight[self.keep]
            full = None if full is None else full.take(self.keep)
        frame = prepare(frame)
        return frame, full or _response(frame, text, self.wanted.response_variables, weight)


def response_of(
    data: object, text: str, variables: Sequence[str], *, known: Sequence[str] = ()
) -> Response:
    """Read the response of new rows, unit weights; a plain one in the codes of the levels it has.

    Raises
    ------
    PredictionError
        A column is missing, or a row misses what its response needs.
    """
    absent = [name for name in variables if name not in column_names(data)]
    if absent:
        raise PredictionError(
            f"the new data have no column {absent[0]!r} of the response {text!r}; "
            "give values with at=."
        )
    frame = Frame.read(data, variables)
    bounds = _bounds(frame, text, variables, known)
    if bounds is None:
        frame = prediction_frame(data, variables)
        return _response(frame, text, variables, np.ones(frame.n_obs))
    if bounds.missing.any():
        raise PredictionError(
            f"the response {text!r} of the new data misses something in row "
            f"{int(np.argmax(bounds.missing))} (counting from 0)."
        )
    return _of_bounds(bounds, np.ones(frame.n_obs), text)


def prediction_frame(data: object, names: Sequence[str]) -> Frame:
    """Read the columns a fitted model needs; new data must be complete and finite.

    Raises
    ------
    PredictionError
        A column is missing, there are no rows, or values are missing or infinite.
    """
    absent = [name for name in names if name not in column_names(data)]
    if absent:
        hint = suggestion(absent[0], column_names(data))
        raise PredictionError(
            f"the new data have no column {absent[0]!r} (the model needs {listing(names)}){hint}"
        )
    frame = Frame.read(data, names)
    if frame.n_obs == 0:
        raise PredictionError("the new data have no rows.")
    for name in frame.columns:
        check_finite(name, frame[name], PredictionError)
        gaps = missing(frame[name])
        if gaps.any():
            rows = listing(str(row) for row in np.flatnonzero(gaps))
            raise PredictionError(
                f"column {name!r} of the new data misses values in rows (counting from 0) {rows}; "
                "fill them or leave these rows out."
            )
    return frame


def _check_known(known: Sequence[str], needs: Mapping[str, Sequence[str]]) -> None:
    for context, names in needs.items():
        for name in names:
            if name not in known:
                hint = suggestion(name, known) or f"; the columns are {listing(known)}."
                raise UnknownVariable(f"{name!r} in {context} is not a column{hint}")


def _weights(frame: Frame, weights: str | Array | None, first: int) -> Vector:
    """Return one weight per row, NaN where it is missing."""
    if weights is None:
        return np.ones(frame.n_obs)
    label = f"weights={weights!r}" if isinstance(weights, str) else "weights"
    values = frame[weights] if isinstance(weights, str) else weights
    if isinstance(values, pd.Categorical) or values.dtype.kind not in "fiub":
        raise DataError(f"{label}: weights must be numbers.")
    if values.shape != (frame.n_obs,):
        raise DataError(f"{label}: shape {values.shape}, but the data have {frame.n_obs} rows.")
    weight = values.astype(np.float64)
    bad = np.isinf(weight) | (weight < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{label}: weights must be at least 0, row {first + row} has {weight[row]}."
        )
    return weight


def drop_unused_levels(frame: Frame) -> Frame:
    """Leave the levels that occur to every factor."""
    columns = {
        name: values.remove_unused_categories() if isinstance(values, pd.Categorical) else values
        for name, values in frame.columns.items()
    }
    return Frame(columns, frame.n_obs)


def _response(frame: Frame, text: str, names: Sequence[str], weight: Vector) -> Response:
    """Return the response; a factor, string or bool response becomes its codes 0, 1, ..."""
    values = frame.evaluate(text, names)
    levels: tuple[str, ...] | None = None
    if isinstance(values, pd.Categorical):
        levels = tuple(str(level) for level in values.categories)
        values = np.asarray(values.codes)
    elif values.dtype == bool:
        levels = ("False", "True")
    y = np.ascontiguousarray(values, dtype=np.float64)
    if y.ndim not in (1, 2) or len(y) != frame.n_obs:
        raise ResponseError(
            f"response {text}: shape {y.shape}, but one number or vector for each of the "
            f"{frame.n_obs} rows is needed."
        )
    bad = ~np.isfinite(y if y.ndim == 1 else y.sum(axis=1))
    if bad.any():
        row = int(np.argmax(bad))
        came = listing(f"{name} = {frame[name][row]}" for name in names)
        raise ResponseError(
            f"response {text}: not finite in {int(bad.sum())} of {frame.n_obs} rows, "
            f"first where {came}."
        )
    return Response(y, y, weight, None, text, levels)


def _bounds(frame: Frame, text: str, names: Sequence[str], known: Sequence[str]) -> Bounds | None:
    """Return what a response form says of the rows, None of a plain expression."""

    def evaluate(expression: str) -> Column:
        values = frame.evaluate(expression, names)
        if isinstance(values, pd.Categorical) or values.shape[:1] != (frame.n_obs,):
            return values
        # a comparison such as `status == "dead"` is false, not missing, where status is missing
        used = [
            name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", expression)
        ]
        absent = np.any([missing(frame[name]) for name in used], axis=0)
        return np.where(absent, np.nan, values) if np.any(absent) else values

    return read_form(text, evaluate, frame.n_obs, known=known)


def _of_bounds(bounds: Bounds, weight: Vector, text: str) -> Response:
    return Response(
        bounds.lower,
        bounds.upper,
        weight,
        bounds.entry,
        text,
        None,
        exit=bounds.exit,
        trials=bounds.trials,
    )
