"""Rows of times at risk, cut at some times: for effects that change with time (METHODS 8).

    (start, stop]  ->  (start, c_1], (c_1, c_2], ..., (c_m, stop],   an event in the last one

The likelihood of censored times with entry times does not change. Covariates of the pieces may:
`x:C(period)`, or a product with a function of the time. A hazard that is constant in each period is
a Poisson regression of the pieces:

    log-likelihood = sum (event log(mean) - mean) + constant,   mean = hazard (stop - start)

References: Therneau & Grambsch (2000), Modeling Survival Data, section 3.7;
Holford (1980), doi:10.2307/2529982 (piecewise exponential as Poisson regression).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import DataError


def split_at(
    data: Any,
    cuts: Sequence[float],
    *,
    time: str = "time",
    event: str = "event",
    entry: str = "start",
) -> pd.DataFrame:
    """Rows of a table cut at some times.

    Parameters
    ----------
    data : DataFrame or dict of columns
    cuts : sequence of float
        Times, in the units of `time`.
    time, event : str
        Columns: the end of each row, and 1 or True where it is an event.
    entry : str
        Column of the entry times; made, from 0 on, where the table has none.

    Returns
    -------
    DataFrame
        The columns of the table, `entry`, and `period`, the number of cuts before the piece; pieces
        of a row stand together and keep its index.

    Raises
    ------
    DataError
        A column is missing or a row ends before it begins.

    Examples
    --------
    Effects that differ between the first half year and later:

    >>> import deepregress as dr
    >>> rossi = dr.datasets.load("rossi")
    >>> pieces = dr.split_at(rossi, [26])
    >>> model = dr.fit("Surv(start, time, event) ~ prio + age:C(period)", pieces, "coxph")
    >>> model.coef.round(3).to_list()
    [0.096, -0.012, -0.158]

    A hazard that is constant in each of four periods, as a Poisson regression:

    >>> pieces = dr.split_at(rossi, [13, 26, 39])
    >>> formula = "event ~ C(period) + fin + s(age) + offset(log(time - start))"
    >>> float(round(dr.fit(formula, pieces, "poisson").coef["mean", "fin"], 3))
    -0.33
    """
    table = pd.DataFrame(data)
    missing = [name for name in (time, event) if name not in table]
    if missing:
        raise DataError(f"split_at: the table has no column {missing[0]!r}")
    ends = table[time].to_numpy(dtype=float)
    starts = table[entry].to_numpy(dtype=float) if entry in table else np.zeros(len(table))
    if not np.all(ends > starts):
        row = int(np.argmin(ends > starts))
        raise DataError(f"split_at: row {row} ends at {ends[row]:g}, not after {starts[row]:g}")
    at = np.unique(np.asarray(cuts, dtype=float))
    first = np.searchsorted(at, starts, side="right")
    last = np.searchsorted(at, ends, side="left")
    count = last - first + 1
    rows = np.repeat(np.arange(len(table)), count)
    piece = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    period = first[rows] + piece
    edges = np.concatenate([[-np.inf], at, [np.inf]])
    pieces = table.iloc[rows].copy()
    pieces[entry] = np.maximum(starts[rows], edges[period])
    pieces[time] = np.minimum(ends[rows], edges[period + 1])
    ended = piece == count[rows] - 1
    pieces[event] = np.where(ended, table[event].to_numpy()[rows], 0)
    return pieces.assign(period=period)
