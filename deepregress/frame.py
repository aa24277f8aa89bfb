"""A table as a `Frame` of columns: whatever the user brings, in the types that the package takes.

A table is a pandas, polars or pyarrow table (through narwhals), a dict of arrays, whose columns may
be arrays (n, ...) such as images, or one on disk (`source`). `Frame` holds float64, int64 or bool
columns (n,), `pandas.Categorical` for strings and factors, and arrays (n, ...) as given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v1 as nw
import numpy as np
import pandas as pd
from formulaic.transforms import TRANSFORMS
from formulaic.utils.stateful_transforms import stateful_eval

from deepregress.disk.source import opened
from deepregress.errors import DataError, FormulaError, listing
from deepregress.linalg import Array

Column = Array | pd.Categorical
Rows = slice | Array


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
    source = opened(data)
    return tuple(_narwhals(data).columns) if source is None else source.names


def with_columns(data: object, columns: Mapping[str, Array]) -> object:
    """A table in memory with further columns; of another kind than pandas as a dict of columns.

    Raises
    ------
    DataError
        The table is on disk, or of an unknown kind.
    """
    if isinstance(data, pd.DataFrame):
        return data.assign(**{name: np.asarray(values) for name, values in columns.items()})
    if not isinstance(data, Mapping | Frame) and opened(data) is not None:
        raise DataError("data on disk are read by the chunk, in which lag() has no other rows.")
    column = _reader(data)
    return {**{name: column(name) for name in column_names(data)}, **columns}


def _narwhals(data: object) -> nw.DataFrame[Any]:
    try:
        table: nw.DataFrame[Any] = nw.from_native(data, eager_only=True)
        return table
    except TypeError as error:
        raise DataError(
            "data must be a pandas, polars or pyarrow table or a dict of arrays, or the path of a "
            f"parquet file, got {type(data).__name__}."
        ) from error


def _length(data: object) -> int:
    """Return the number of rows of a table of which no column is needed."""
    if isinstance(data, Frame):
        return data.n_obs
    if isinstance(data, Mapping):
        return max((len(np.atleast_1d(values)) for values in data.values()), default=0)
    source = opened(data)
    if source is not None:
        return source.n_rows()
    return len(data) if isinstance(data, pd.DataFrame) else len(_narwhals(data))


def _reader(data: object) -> Callable[[str], object]:
    """Return the function name -> column of a table."""
    if isinstance(data, Frame):
        return data.columns.__getitem__
    if isinstance(data, Mapping | pd.DataFrame):
        return data.__getitem__
    source = opened(data)
    if source is not None:
        return source.column
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
