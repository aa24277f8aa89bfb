"""Values of lagged columns, within a table and across the end of the training rows (METHODS 8).

    lag(y, k)_i = y_j  where row j is of the same series and t_j = t_i - k;  missing where none is

Times are whole numbers of steps, the step being the smallest difference of two times of a series;
without `time=` the rows of a series follow each other. A table of new rows looks in its own rows
first and then in the last rows of training, which the model keeps; without times its rows are those
that come after them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepregress.errors import DataError, FormulaError, PredictionError, listing
from deepregress.frame import Column, Frame, column_names, with_columns
from deepregress.linalg import Array, Vector
from deepregress.remainder import expression_variables
from deepregress.series.lags import Lags

KEPT = 50
"""Last steps of each series that a model keeps, if the highest order is not more."""
NEAR = 1e-4
"""Share of a step by which a time may miss a whole number of steps."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of series: the series' name, the time in steps, and what is lagged.

    Parameters
    ----------
    series : Array of str, (n,)
    time : Array of int, (n,)
    values : dict of str to Vector, (n,)
        By expression; NaN where it is missing.
    """

    series: Array
    time: Array
    values: dict[str, Vector]

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self.time)

    def take(self, rows: Array) -> Rows:
        """Some of the rows."""
        values = {name: each[rows] for name, each in self.values.items()}
        return Rows(self.series[rows], self.time[rows], values)

    def followed_by(self, other: Rows) -> Rows:
        """These rows and others behind them."""
        values = {n: np.concatenate([self.values[n], other.values[n]]) for n in self.values}
        series = np.concatenate([self.series, other.series])
        return Rows(series, np.concatenate([self.time, other.time]), values)


@dataclass(frozen=True, eq=False)
class Series:
    """The lags of a fitted model and the last rows of its training table.

    Parameters
    ----------
    lags : Lags
    origin, step : float
        Time 0 and the step, in units of `time=`.
    last : Rows
        The last rows of each series.
    first : dict of str to Vector
        The first values of what is lagged, by which the training rows are known again.
    """

    lags: Lags
    origin: float
    step: float
    last: Rows
    first: dict[str, Vector]

    def extended(self, newdata: object) -> object:
        """New rows with their lags, those as they are that the table has already.

        Raises
        ------
        PredictionError
            Times are missing or between steps, or the rows are those of training.
        """
        known = column_names(newdata)
        if all(lag.name in known for lag in self.lags.columns):
            return newdata
        try:
            rows = self.rows(newdata)
        except DataError as error:
            raise PredictionError(str(error)) from error
        columns = lagged(rows, self.lags, self.last)
        return with_columns(newdata, {n: v for n, v in columns.items() if n not in known})

    def rows(self, newdata: object) -> Rows:
        """The rows of a new table, with times that go on from those of training."""
        frame = _frame(newdata, self.lags)
        series = _names(frame, self.lags)
        values = _values(frame, self.lags)
        if self.lags.time is not None:
            time = _steps(frame[self.lags.time], self.lags.time, self.origin, self.step)
            return Rows(series, time, values)
        self._check_new(values)
        ends = self.ends
        start = np.array([ends.get(name, -1) + 1 for name in series], dtype=np.int64)
        return Rows(series, start + _counted(series), values)

    @property
    def ends(self) -> dict[str, int]:
        """Last time of each series of training."""
        table = pd.Series(self.last.time).groupby(self.last.series).max()
        return {str(name): int(time) for name, time in table.items()}

    def _check_new(self, values: Mapping[str, Vector]) -> None:
        """Without times the rows of training cannot be told from those that follow them."""
        n = min(len(each) for each in self.first.values())
        n = min(n, *(len(each) for each in values.values()))
        same = [np.array_equal(values[e][:n], self.first[e][:n], equal_nan=True) for e in values]
        if n > 1 and all(same):
            raise PredictionError(
                "the new rows begin as those of training: give no new data for these, or time= in "
                "lag(), which tells rows of training from rows that follow them."
            )


def with_lags(data: object, lags: Lags) -> tuple[object, Series]:
    """A training table with its lags, and what new tables need of it.

    Raises
    ------
    DataError
        Times are missing or not equidistant, or two rows of a series have the same.
    FormulaError
        What is lagged has no numbers.
    """
    frame = _frame(data, lags, complete=True)
    series, values = _names(frame, lags), _values(frame, lags)
    origin, step, time = 0.0, 1.0, _counted(series)
    if lags.time is not None:
        origin, step = _scale(frame[lags.time], series, lags.time)
        time = _steps(frame[lags.time], lags.time, origin, step)
    rows = Rows(series, time, values)
    columns = lagged(rows, lags)
    ends = pd.Series(time).groupby(series).transform("max").to_numpy()
    last = rows.take(np.flatnonzero(time > ends - max(lags.longest, KEPT)))
    first = {name: each[: lags.longest + 2] for name, each in values.items()}
    known = column_names(data)
    extended = with_columns(data, {n: v for n, v in columns.items() if n not in known})
    return extended, Series(lags, origin, step, last, first)


def lagged(rows: Rows, lags: Lags, earlier: Rows | None = None) -> dict[str, Vector]:
    """Lagged columns of some rows, NaN where they are missing; by name, (n_obs,).

    Raises
    ------
    DataError
        Two rows of a series have the same time.
    """
    both = rows if earlier is None else rows.followed_by(earlier)
    place = {order: places(rows, both, order) for order in {lag.order for lag in lags.columns}}
    return {
        lag.name: np.where(
            place[lag.order] < 0, np.nan, both.values[lag.expression][place[lag.order]]
        )
        for lag in lags.columns
    }


def places(rows: Rows, among: Rows, order: int) -> Array:
    """Where the rows that lie `order` steps before some rows stand, -1 where nowhere; (n_obs,).

    Parameters
    ----------
    rows, among : Rows
        `among` begins with `rows`; of two with one time the first counts.

    Raises
    ------
    DataError
        Two of the rows of a series have the same time.
    """
    code = pd.factorize(among.series)[0].astype(np.int64)
    low = among.time.min() - order
    key = code * (among.time.max() - low + 1) + (among.time - low)
    _check_times(rows, key[: rows.n_obs])
    by_key = np.argsort(key, kind="stable")
    wanted = key[: rows.n_obs] - order
    found = np.searchsorted(key[by_key], wanted).clip(max=len(key) - 1)
    return np.where(key[by_key][found] == wanted, by_key[found], -1)


def _check_times(rows: Rows, key: Array) -> None:
    again = pd.Series(key).duplicated()
    if again.any():
        row = int(np.argmax(again))
        of = f" of the series {rows.series[row]!r}" if rows.series[row] else ""
        raise DataError(f"lag(): row {row} (counting from 0) has the time of another row{of}.")


def _frame(data: object, lags: Lags, *, complete: bool = False) -> Frame:
    """The columns that lags are made of; of new rows what is lagged may be missing."""
    known = column_names(data)
    places = [name for name in (lags.by, lags.time) if name is not None]
    names = [name for each in lags.expressions for name in expression_variables(each)]
    absent = [name for name in (*places, *names) if name not in known]
    for name in absent if complete else [name for name in places if name in absent]:
        raise DataError(f"lag(): {name!r} is not a column; the columns are {listing(known)}.")
    read = [name for name in (*places, *names) if name in known]
    # without any column of its own the table still has its rows
    frame = Frame.read(data, read or list(known)[:1])
    gaps = {name: np.full(frame.n_obs, np.nan) for name in absent}
    return Frame({**frame.columns, **gaps}, frame.n_obs)


def _names(frame: Frame, lags: Lags) -> Array:
    """Name of each row's series, (n_obs,) of str."""
    if lags.by is None:
        return np.full(frame.n_obs, "")
    values = frame[lags.by]
    given = np.asarray(values)
    if isinstance(values, pd.Categorical) or given.dtype.kind != "f":
        return given.astype(str)
    return np.array([f"{value:g}" for value in given])


def _values(frame: Frame, lags: Lags) -> dict[str, Vector]:
    found = {}
    for expression in lags.expressions:
        values = frame.evaluate(expression, expression_variables(expression))
        if isinstance(values, pd.Categorical) or np.shape(values) != (frame.n_obs,):
            raise FormulaError(f"lag({expression}): lags are of numbers, one for each row.")
        found[expression] = np.asarray(values, dtype=np.float64)
    return found


def _counted(series: Array) -> Array:
    """Number of each row within its series, from 0."""
    return np.asarray(pd.Series(series).groupby(series).cumcount(), dtype=np.int64)


def _scale(values: Array, series: Array, name: str) -> tuple[float, float]:
    """Origin and step of times."""
    times = _times(values, name)
    order = np.lexsort((times, series))
    apart = np.diff(times[order])
    apart = apart[(series[order][1:] == series[order][:-1]) & (apart > 0.0)]
    return float(times.min()), float(apart.min()) if len(apart) else 1.0


def _steps(values: Array, name: str, origin: float, step: float) -> Array:
    steps = (_times(values, name) - origin) / step
    whole = np.round(steps)
    if np.any(np.abs(steps - whole) > NEAR * np.maximum(1.0, np.abs(whole)) ** 0.5):
        row = int(np.argmax(np.abs(steps - whole)))
        raise DataError(
            f"lag(time={name}): the time {values[row]:g} of row {row} (counting from 0) is not a "
            f"whole number of steps of {step:g} from {origin:g}; number the times."
        )
    return np.asarray(whole, dtype=np.int64)


def _times(values: Column, name: str) -> Vector:
    if isinstance(values, pd.Categorical) or values.dtype.kind not in "fiu":
        raise DataError(f"lag(time={name}): times are numbers; number the dates, such as months.")
    times = np.asarray(values, dtype=np.float64)
    if not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise DataError(f"lag(time={name}): the time of row {row} (counting from 0) is missing.")
    return times
