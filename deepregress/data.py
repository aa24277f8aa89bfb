"""From the user's table to a `Frame` of columns and a `Response` (DESIGN 3, step 2).

A table is a pandas, polars or pyarrow table (through narwhals) or a dict of arrays, whose columns
may be arrays (n, ...) such as images. What the formulas name is read once, for all parameters
together, and cleaned once:

    columns -> finite -> complete rows (na = "drop" or "raise") -> rows of positive weight

`Frame` holds float64, int64 or bool columns (n,), `pandas.Categorical` for strings and factors, and
arrays (n, ...) as given. A response is stored by its bounds,

    lower_i <= y_i <= upper_i,   equal for exact rows,

with weights w_i >= 0 that multiply the rows' log-likelihood (weight 2 = the row twice; weight 0 =
no row).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
from formulaic.transforms import TRANSFORMS
from formulaic.utils.stateful_transforms import stateful_eval

from deepregress.errors import (
    DataError,
    DeepRegressError,
    DroppedRowsWarning,
    FormulaError,
    PredictionError,
    ResponseError,
    UnknownVariable,
    listing,
    suggestion,
)
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response as Response

Column = Array | pd.Categorical
Rows = slice | Array
# Reads a left side that is no expression: frame and text -> lower, upper, entry.
ResponseReader = Callable[["Frame", str], tuple[Matrix, Matrix, Vector | None]]
_READERS: dict[str, ResponseReader] = {}


def register_response(name: str, reader: ResponseReader) -> None:
    """Make a call on the left side of formulas known, such as `Surv(time, event)`."""
    _READERS[name] = reader


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns of equal length, read from a table.

    Parameters
    ----------
    columns : dict of str to array or pandas.Categorical
        Arrays of shape (n_obs, ...): float64, int64 or bool where one-dimensional; factors as
        `pandas.Categorical`.
    n_obs : int
        Number of rows.

    Examples
    --------
    >>> frame = Frame.read({"x": [1.0, 2.0], "g": ["a", "b"]}, ["x", "g"])
    >>> frame.n_obs, frame["x"].dtype.name, list(frame["g"].categories)
    (2, 'float64', ['a', 'b'])
    """

    columns: dict[str, Column]
    n_obs: int

    @classmethod
    def read(cls, data: object, names: Sequence[str]) -> Frame:
        """Read the named columns of a table.

        Raises
        ------
        DataError
            The table is of an unknown kind, lacks a column, or its columns differ in length.
        """
        column = _reader(data)
        columns = {name: _column(name, column(name)) for name in dict.fromkeys(names)}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            parts = listing(f"{name!r} has {n} rows" for name, n in lengths.items())
            raise DataError(f"the columns differ in length: {parts}.")
        n_obs = next(iter(lengths.values())) if lengths else _length(data)
        return cls(columns, n_obs)

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def rows(self, index: Rows) -> Frame:
        """Return the rows of a slice (as views), of an index array or of a mask."""
        columns = {name: values[index] for name, values in self.columns.items()}
        if isinstance(index, slice):
            return Frame(columns, len(range(*index.indices(self.n_obs))))
        return Frame(columns, int(index.sum()) if index.dtype == bool else len(index))

    def pandas(self, names: Sequence[str]) -> pd.DataFrame:
        """Return one-dimensional columns as a pandas table, without copying them."""
        columns = {name: self.columns[name] for name in names}
        return pd.DataFrame(columns, index=pd.RangeIndex(self.n_obs), copy=False)

    def evaluate(self, expression: str, names: Sequence[str]) -> Column:
        """Return an expression such as `log(y)` of the named columns.

        Raises
        ------
        FormulaError
            The expression cannot be evaluated.
        """
        if expression.strip("`") in self.columns:
            return self.columns[expression.strip("`")]
        environment = {**TRANSFORMS, **{name: self.columns[name] for name in names}}
        try:
            with np.errstate(all="ignore"):
                value = stateful_eval(expression, environment, None, {}, None)
        except (NameError, TypeError, ValueError, ArithmeticError, SyntaxError) as error:
            raise FormulaError(f"{expression}: {error}.") from error
        return np.asarray(value, dtype=np.float64)


def training_set(
    data: object,
    needs: Mapping[str, Sequence[str]],
    *,
    response: str,
    response_variables: Sequence[str],
    weights: str | Sequence[float] | Array | None = None,
    na: Literal["drop", "raise"] = "drop",
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
        What to do with rows that miss a value in any of these columns.

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
    for name in frame.columns:
        _check_finite(frame, name, DataError)
    keep = _complete(frame, weight, na, named=bool(by_name)) & _positive(weight)
    if not keep.all():
        frame, weight = frame.rows(keep), weight[keep]
    frame = _drop_unused_levels(frame)
    return frame, _response(frame, response, response_variables, weight)


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


def column_names(data: object) -> tuple[str, ...]:
    """Return the names of the columns of a table.

    Raises
    ------
    DataError
        The table is of an unknown kind.
    """
    if isinstance(data, Frame):
        return tuple(data.columns)
    if isinstance(data, Mapping | pd.DataFrame):
        return tuple(name for name in data if isinstance(name, str))
    return tuple(_narwhals(data).columns)


def _narwhals(data: object) -> nw.DataFrame[Any]:
    try:
        table: nw.DataFrame[Any] = nw.from_native(data, eager_only=True)
        return table
    except TypeError as error:
        raise DataError(
            "data must be a pandas, polars or pyarrow table or a dict of arrays, "
            f"got {type(data).__name__}."
        ) from error


def _length(data: object) -> int:
    """Return the number of rows of a table of which no column is needed."""
    if isinstance(data, Frame):
        return data.n_obs
    if isinstance(data, Mapping):
        return max((len(np.atleast_1d(values)) for values in data.values()), default=0)
    return len(data) if isinstance(data, pd.DataFrame) else len(_narwhals(data))


def _reader(data: object) -> Callable[[str], object]:
    """Return the function name -> column of a table."""
    if isinstance(data, Frame):
        return data.columns.__getitem__
    if isinstance(data, Mapping | pd.DataFrame):
        return data.__getitem__
    table = _narwhals(data)
    return lambda name: _from_series(table[name])


def _from_series(series: nw.Series[Any]) -> object:
    """Return a column of a table other than pandas as an array or a categorical."""
    ordered = isinstance(series.dtype, nw.Enum) or series.implementation.is_pyarrow()
    if isinstance(series.dtype, (nw.Categorical, nw.Enum)) and ordered:
        levels = series.cat.get_categories().to_list()
        return pd.Categorical(series.to_list(), categories=levels)
    # the order of a Categorical of polars depends on what the process did before
    if isinstance(series.dtype, (nw.String, nw.Categorical)):
        return np.asarray(series.to_list(), dtype=object)
    if series.dtype.is_numeric() and series.null_count() > 0:
        return series.cast(nw.Float64).to_numpy()
    return series.to_numpy()


def _column(name: str, values: object) -> Column:
    """Return a column in the types of a `Frame`."""
    if isinstance(values, pd.DataFrame):
        raise DataError(f"the table has {values.shape[1]} columns called {name!r}.")
    if isinstance(values, pd.Series):
        if isinstance(values.dtype, pd.CategoricalDtype):
            return pd.Categorical(values)  # type: ignore[return-value]
        if isinstance(values.dtype, pd.StringDtype):
            return _factor(np.asarray(values.astype(object).where(values.notna(), None)))
        if pd.api.types.is_numeric_dtype(values.dtype) and values.hasnans:
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        values = values.to_numpy()
    if isinstance(values, pd.Categorical):
        return values
    array = np.asarray(values)
    array = array.reshape(1) if array.ndim == 0 else array
    if array.dtype.kind == "O":
        return _from_objects(name, array)
    if array.dtype.kind in "US":
        return _factor(array)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"column {name!r} is of type {array.dtype}; numbers, strings, factors and arrays of "
            "numbers are allowed."
        )
    if array.ndim > 1 or array.dtype.kind == "b":
        return array
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64, copy=False)


def _from_objects(name: str, array: Array) -> Column:
    """Return an object column: strings become a factor, arrays are stacked, numbers converted."""
    if array.ndim == 1 and pd.api.types.infer_dtype(array, skipna=True) == "string":
        return _factor(array)
    first = next((value for value in array.ravel() if value is not None), None)
    try:
        if isinstance(first, (list, tuple, np.ndarray)) and array.ndim == 1:
            return np.stack([np.asarray(value, dtype=np.float64) for value in array])
        return np.asarray(pd.DataFrame(array.reshape(len(array), -1)), dtype=np.float64).reshape(
            array.shape
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} is neither all numbers nor all strings.") from error


def _factor(values: Array) -> pd.Categorical:
    codes, levels = pd.factorize(values, sort=True)
    return pd.Categorical.from_codes(codes, categories=pd.Index(levels, dtype=object))


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


def _complete(frame: Frame, weight: Vector, na: str, *, named: bool) -> Array:
    """Return which rows miss nothing, after the warning or error that `na` asks for."""
    masks = {f"{name!r}": _missing(values) for name, values in frame.columns.items()}
    if not named:
        masks["weights"] = np.isnan(weight)
    counts = {name: int(mask.sum()) for name, mask in masks.items() if mask.any()}
    keep = np.ones(frame.n_obs, dtype=bool)
    if not counts:
        return keep
    for mask in masks.values():
        keep &= ~mask
    where = listing(f"{name} ({count})" for name, count in counts.items())
    dropped = frame.n_obs - int(keep.sum())
    if na == "raise":
        raise DataError(
            f"{dropped} of {frame.n_obs} rows miss values, in {where}, the first in row "
            f"{int(np.argmin(keep))} (counting from 0); na='drop' leaves them out."
        )
    if dropped == frame.n_obs:
        raise DataError(f"no row is complete: all {dropped} rows miss values, in {where}.")
    warnings.warn(
        f"{dropped} of {frame.n_obs} rows dropped: values are missing in {where}.",
        DroppedRowsWarning,
        stacklevel=3,
    )
    return keep


def _positive(weight: Vector) -> Array:
    """Return which rows have a positive weight, after a warning where some have weight 0."""
    zero = weight == 0
    if zero.all():
        raise DataError("all weights are 0.")
    if zero.any():
        warnings.warn(
            f"{int(zero.sum())} of {len(weight)} rows left out: their weight is 0.",
            DroppedRowsWarning,
            stacklevel=3,
        )
    return np.asarray(~zero)


def _drop_unused_levels(frame: Frame) -> Frame:
    columns = {
        name: values.remove_unused_categories() if isinstance(values, pd.Categorical) else values
        for name, values in frame.columns.items()
    }
    return Frame(columns, frame.n_obs)


def _response(frame: Frame, text: str, names: Sequence[str], weight: Vector) -> Response:
    """Return the response; a factor, string or bool response becomes its codes 0, 1, ..."""
    reader = _READERS.get(text.partition("(")[0].strip())
    if reader is not None:
        lower, upper, entry = reader(frame, text)
        return Response(lower, upper, weight, entry, text, None)
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
