"""From the user's table to a `Frame` of columns and a `Response` (DESIGN 3, step 2).

What the formulas name is read once, for all parameters together, and cleaned once:

    columns -> finite -> complete rows (na = "drop" or "raise") -> rows of positive weight

A response is stored by its bounds (`response`), with weights w_i >= 0 that multiply the rows'
log-likelihood (weight 2 = the row twice; weight 0 = no row).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from deepregress.errors import (
    DataError,
    DeepRegressError,
    DroppedRowsWarning,
    PredictionError,
    ResponseError,
    UnknownVariable,
    listing,
    suggestion,
    warn,
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
    if na not in ("drop", "raise"):
        raise DataError(f"na must be 'drop' or 'raise', got {na!r}.")
    by_name = (weights,) if isinstance(weights, str) else ()
    _check_known(data, {**needs, "the response": response_variables, "weights": by_name})
    names = [*response_variables, *(name for part in needs.values() for name in part)]
    frame = Frame.read(data, [*names, *by_name])
    if frame.n_obs == 0:
        raise DataError("the data have no rows.")
    weight = _weights(frame, weights)
    bounds = _bounds(frame, response, response_variables, known)
    # a form says itself what its columns' missing and infinite values mean
    judged = frame.columns if bounds is None else {*names[len(response_variables) :], *by_name}
    for name in judged:
        _check_finite(frame, name, DataError)
    masks = {f"{name!r}": _missing(frame[name]) for name in frame.columns if name in judged}
    if bounds is not None:
        masks[f"{response!r}"] = bounds.missing
    if not by_name:
        masks["weights"] = np.isnan(weight)
    keep = _complete(masks, frame.n_obs, na) & _positive(weight)
    full = None if bounds is None else _of_bounds(bounds, weight, response)
    if not keep.all():
        frame, weight = frame.rows(keep), weight[keep]
        full = None if full is None else full.take(keep)
    frame = _drop_unused_levels(frame)
    return frame, full or _response(frame, response, response_variables, weight)


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
        _check_finite(frame, name, PredictionError)
        missing = _missing(frame[name])
        if missing.any():
            rows = listing(str(row) for row in np.flatnonzero(missing))
            raise PredictionError(
                f"column {name!r} of the new data misses values in rows (counting from 0) {rows}; "
                "fill them or leave these rows out."
            )
    return frame


def _check_known(data: object, needs: Mapping[str, Sequence[str]]) -> None:
    known = column_names(data)
    for context, names in needs.items():
        for name in names:
            if name not in known:
                hint = suggestion(name, known) or f"; the columns are {listing(known)}."
                raise UnknownVariable(f"{name!r} in {context} is not a column{hint}")


def _weights(frame: Frame, weights: str | Sequence[float] | Array | None) -> Vector:
    """Return one weight per row, NaN where it is missing."""
    if weights is None:
        return np.ones(frame.n_obs)
    label = f"weights={weights!r}" if isinstance(weights, str) else "weights"
    values = frame[weights] if isinstance(weights, str) else np.asarray(weights)
    if isinstance(values, pd.Categorical) or values.dtype.kind not in "fiub":
        raise DataError(f"{label}: weights must be numbers.")
    if values.shape != (frame.n_obs,):
        raise DataError(f"{label}: shape {values.shape}, but the data have {frame.n_obs} rows.")
    weight = values.astype(np.float64)
    bad = np.isinf(weight) | (weight < 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"{label}: weights must be at least 0, row {row} has {weight[row]}.")
    return weight


def _missing(values: Column) -> Array:
    """Return which rows miss a value, (n,) bool."""
    if isinstance(values, pd.Categorical):
        return np.asarray(values.codes < 0)
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    # a sum is NaN where a row holds one, and needs no array of the size of an image column
    rows = values if values.ndim == 1 else values.reshape(len(values), -1).sum(axis=1)
    return np.asarray(np.isnan(rows))


def _check_finite(frame: Frame, name: str, error: type[DeepRegressError]) -> None:
    values = frame[name]
    if isinstance(values, pd.Categorical) or values.dtype.kind != "f":
        return
    if values.ndim > 1:
        rows = values.reshape(len(values), -1)
        values = rows.max(axis=1, initial=0.0) - rows.min(axis=1, initial=0.0)
    infinite = np.isinf(values)
    if infinite.any():
        count, row = int(infinite.sum()), int(np.argmax(infinite))
        noun = "value" if count == 1 else "values"
        raise error(
            f"column {name!r} has {count} infinite {noun}, the first in row {row} "
            "(counting from 0)."
        )


def _complete(masks: Mapping[str, Array], n_obs: int, na: str) -> Array:
    """Return which rows miss nothing, after the warning or error that `na` asks for."""
    counts = {name: int(mask.sum()) for name, mask in masks.items() if mask.any()}
    keep = np.ones(n_obs, dtype=bool)
    if not counts:
        return keep
    for mask in masks.values():
        keep &= ~mask
    where = listing(f"{name} ({count})" for name, count in counts.items())
    dropped = n_obs - int(keep.sum())
    if na == "raise":
        raise DataError(
            f"{dropped} of {n_obs} rows miss values, in {where}, the first in row "
            f"{int(np.argmin(keep))} (counting from 0); na='drop' leaves them out."
        )
    if dropped == n_obs:
        raise DataError(f"no row is complete: all {dropped} rows miss values, in {where}.")
    warn(DroppedRowsWarning(f"{dropped} of {n_obs} rows dropped: values are missing in {where}."))
    return keep


def _positive(weight: Vector) -> Array:
    """Return which rows have a positive weight, after a warning where some have weight 0."""
    zero = weight == 0
    if zero.all():
        raise DataError("all weights are 0.")
    if zero.any():
        text = f"{int(zero.sum())} of {len(weight)} rows left out: their weight is 0."
        warn(DroppedRowsWarning(text))
    return np.asarray(~zero)


def _drop_unused_levels(frame: Frame) -> Frame:
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
        missing = np.any([_missing(frame[name]) for name in used], axis=0)
        return np.where(missing, np.nan, values) if np.any(missing) else values

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
