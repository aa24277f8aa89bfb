"""Forecasts of series by simulation, step after step (METHODS 8).

    for each step:  lags of every path from its own past,  eta of all rows and paths at once,
                    y ~ f(.; theta(eta)),  which is the past of later steps

A path is a draw from the joint predictive distribution of all steps given the fitted model; its
coefficients are held at their estimates. Rows of several series go side by side.

Reference: Ruegamer, Baumann, Kneib & Hothorn (2023), arXiv:2110.08248, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepregress.data import prediction_frame
from deepregress.errors import PredictionError, listing
from deepregress.formula import expression_variables
from deepregress.frame import Frame
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictors
from deepregress.series.lagged import Rows, Series, lagged, places

LEVELS = (0.95, 0.8, 0.5)
"""Of the bands of a figure."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Simulated paths of the rows that follow those of training; made by `FittedModel.forecast`.

    Parameters
    ----------
    index : DataFrame
        Column of the series, where there is one, and time (or "row" without times) of each row.
    paths : Matrix, (n, n_rows)
        Responses; rows of the array are paths, its columns the rows of `index`.
    past : DataFrame
        The last responses of training, with the same columns and the response.
    response : str
    """

    index: pd.DataFrame
    paths: Matrix
    past: pd.DataFrame
    response: str

    @property
    def mean(self) -> pd.DataFrame:
        """Means over the paths, beside `index`."""
        return self.index.assign(mean=self.paths.mean(axis=0))

    def quantiles(self, at: Sequence[float] = (0.05, 0.5, 0.95)) -> pd.DataFrame:
        """Quantiles of the predictive distribution of each row, beside `index`.

        Parameters
        ----------
        at : sequence of float
            Probabilities.
        """
        found = np.quantile(self.paths, list(at), axis=0)
        return self.index.assign(**{f"{p:g}": row for p, row in zip(at, found, strict=True)})

    def plot(self, *, levels: Sequence[float] = LEVELS, paths: int = 3) -> Figure:
        """Draw median, bands and some paths behind the last responses, a panel for each series.

        Parameters
        ----------
        levels : sequence of float
            Of the central bands.
        paths : int
            Number of paths that are drawn as lines.
        """
        *by, time = self.index.columns
        names = list(dict.fromkeys(self.index[by[0]])) if by else [None]
        figure, axes = plt.subplots(
            len(names),
            1,
            figsize=(7.0, 1.2 + 2.2 * len(names)),
            squeeze=False,
            layout="constrained",
        )
        for name, ax in zip(names, axes[:, 0], strict=True):
            shown = np.full(len(self.index), True) if name is None else self.index[by[0]] == name
            before = self.past if name is None else self.past[self.past[by[0]] == name]
            self._panel(ax, time, np.asarray(shown), before, levels, paths)
            ax.set_title("" if name is None else str(name))
        plt.close(figure)
        return figure

    def _panel(
        self,
        ax: Any,
        time: str,
        shown: Array,
        before: pd.DataFrame,
        levels: Sequence[float],
        n_paths: int,
    ) -> None:
        t, drawn = self.index[time].to_numpy()[shown], self.paths[:, shown]
        for level in levels:
            low, high = np.quantile(drawn, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
            ax.fill_between(t, low, high, color="C0", alpha=0.18, linewidth=0.0)
        ax.plot(t, drawn[:n_paths].T, color="C0", linewidth=0.6, alpha=0.7)
        ax.plot(t, np.median(drawn, axis=0), color="C0", linewidth=2.0)
        ax.plot(before[time], before[self.response], color="black", linewidth=1.2)
        ax.set_xlabel(time)
        ax.set_ylabel(self.response)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a forecast is asked for.

    Parameters
    ----------
    steps : int or None
        Number of steps of each series, where nothing but lags and times is needed.
    newdata : table or None
        The rows to come, with their covariates; their responses are not looked at.
    n : int
        Number of paths.
    seed : int
    """

    steps: int | None
    newdata: Any
    n: int
    seed: int


@dataclass(frozen=True, eq=False)
class Future:
    """Rows to be simulated: series and times, and columns that are needed beside the lags."""

    rows: Rows
    frame: Frame


def forecast(
    predictors: Predictors, series: Series | None, response: str, wanted: Wanted
) -> Forecast:
    """Simulate paths of the rows of a table, or of some steps of each series.

    Raises
    ------
    PredictionError
        There are no lags, or covariates or lags of some row are not known.
    """
    if series is None:
        raise PredictionError("forecast() is for formulas with lag(); predict() for others.")
    _check_expressions(series, response)
    future = _future(predictors, series, wanted)
    paths = _simulated(predictors, series, response, future, n=wanted.n, seed=wanted.seed)
    last = series.last.take(np.lexsort((series.last.time, series.last.series)))
    y = last.values.get(response, np.full(last.n_obs, np.nan))
    past = _index(series, last).assign(**{response: y})
    return Forecast(_index(series, future.rows), paths, past, response)


def _index(series: Series, rows: Rows) -> pd.DataFrame:
    """Series and times as the user knows them; without times rows are counted from 0."""
    lags = series.lags
    columns: dict[str, Array] = {} if lags.by is None else {lags.by: rows.series}
    time = series.origin + series.step * rows.time
    return pd.DataFrame({**columns, lags.time or "row": time})


def _check_expressions(series: Series, response: str) -> None:
    """Simulated responses can be put into lags of the response as it is written only."""
    names = set(expression_variables(response))
    for expression in series.lags.expressions:
        if expression != response and names & set(expression_variables(expression)):
            raise PredictionError(
                f"forecast() draws {response!r}, from which lag({expression}, ...) is not found; "
                f"write lag({response}, ...)."
            )


def _future(predictors: Predictors, series: Series, wanted: Wanted) -> Future:
    """The rows that are asked for."""
    steps, newdata = wanted.steps, wanted.newdata
    if (steps is None) == (newdata is None):
        raise PredictionError("forecast() needs steps=, or newdata= with the rows to come.")
    lagged_names = {lag.name for lag in series.lags.columns}
    names = [name for name in predictors.variables() if name not in lagged_names]
    if newdata is not None:
        rows = series.rows(newdata)
        return Future(rows, prediction_frame(newdata, names))
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise PredictionError(f"steps must be a whole number >= 1, got {steps!r}.")
    known = {series.lags.by, series.lags.time}
    others = [name for name in names if name not in known]
    if others:
        raise PredictionError(
            f"forecast(steps=): the rows to come need values of {listing(others)}; give newdata=."
        )
    ends = series.ends
    names_of_rows = np.repeat(list(ends), steps)
    time = np.concatenate([end + 1 + np.arange(steps) for end in ends.values()])
    values = {each: np.full(len(time), np.nan) for each in series.lags.expressions}
    rows = Rows(names_of_rows, time, values)
    frame = prediction_frame(_index(series, rows), names) if names else Frame({}, len(time))
    return Future(rows, frame)


def _simulated(
    predictors: Predictors, series: Series, response: str, future: Future, *, n: int, seed: int
) -> Matrix:
    """Paths, (n, n_rows)."""
    rows, lags = future.rows, series.lags
    both = rows.followed_by(series.last)
    known = lagged(rows, lags, series.last)
    own = {
        lag.name: places(rows, both, lag.order)
        for lag in lags.columns
        if lag.expression == response
    }
    # new responses, then those before them: the same in all paths
    y = both.values.get(response, np.empty(both.n_obs)).copy()
    y[: rows.n_obs] = np.nan
    paths = np.repeat(y[:, None], n, axis=1)
    streams = np.random.SeedSequence(seed).generate_state(len(np.unique(rows.time)))
    for time, stream in zip(np.unique(rows.time), streams, strict=True):
        at = np.flatnonzero(rows.time == time)
        columns = {name: np.repeat(values[at], n) for name, values in known.items()}
        columns |= {name: _past(paths, place[at]) for name, place in own.items()}
        _check_known(columns, at, n)
        frame = future.frame.rows(np.repeat(at, n))
        eta = predictors.eta(Frame({**frame.columns, **columns}, len(at) * n))
        paths[at] = predictors.family.sample(eta, 1, seed=int(stream))[0].reshape(len(at), n)
    return np.ascontiguousarray(paths[: rows.n_obs].T)


def _past(paths: Matrix, place: Array) -> Vector:
    """Values of every path at some rows, NaN where there is no row; (n_rows * n,)."""
    return np.where(place[:, None] < 0, np.nan, paths[place]).ravel()


def _check_known(columns: Mapping[str, Vector], at: Array, n: int) -> None:
    for name, values in columns.items():
        if np.isnan(values).any():
            row = int(at[int(np.argmax(np.isnan(values))) // n])
            raise PredictionError(
                f"forecast(): {name} of row {row} (counting from 0) is not known: neither the new "
                "rows nor the last ones of training have it."
            )
