"""Which rows can be used: finite, complete and of positive weight; the NA policy of a fit.

    infinite values        an error
    missing values         rows are dropped with a warning, or an error (na = "drop" or "raise")
    weight 0               no row, with a warning

What is wrong is counted in a `Tally`; those of consecutive chunks of rows add up, so that a table
larger than memory is judged as one in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from deepregress.errors import DataError, DeepRegressError, DroppedRowsWarning, listing, warn
from deepregress.frame import Column
from deepregress.linalg import Array, Vector


@dataclass(frozen=True)
class Tally:
    """What is wrong with some rows.

    Parameters
    ----------
    n_obs : int
    infinite : dict
        Column -> number of infinite values and the first row that has one.
    missing : dict
        What misses values -> number of rows.
    first_missing : int or None
        First row that is not complete.
    n_missing : int
        Rows that are not complete.
    n_zero : int
        Rows of weight 0.
    """

    n_obs: int = 0
    infinite: dict[str, tuple[int, int]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    first_missing: int | None = None
    n_missing: int = 0
    n_zero: int = 0

    def __add__(self, other: Tally) -> Tally:
        """The tally of these rows and those that follow them."""
        infinite = dict(self.infinite)
        for name, (count, row) in other.infinite.items():
            known, row_of_all = infinite.get(name, (0, self.n_obs + row))
            infinite[name] = (known + count, row_of_all)
        missing = dict(self.missing)
        for name, count in other.missing.items():
            missing[name] = missing.get(name, 0) + count
        first = self.first_missing
        if first is None and other.first_missing is not None:
            first = self.n_obs + other.first_missing
        return Tally(
            self.n_obs + other.n_obs,
            infinite,
            missing,
            first,
            self.n_missing + other.n_missing,
            self.n_zero + other.n_zero,
        )

    def report(self, na: str) -> None:
        """Raise or warn, as the policy says.

        Raises
        ------
        DataError
            Values are infinite, no row is left, or rows miss values where `na` is "raise".
        """
        for name, (count, row) in self.infinite.items():
            raise DataError(_infinite(name, count, row))
        if self.missing:
            self._report_missing(na)
        if self.n_zero == self.n_obs:
            raise DataError("all weights are 0.")
        if self.n_zero:
            text = f"{self.n_zero} of {self.n_obs} rows left out: their weight is 0."
            warn(DroppedRowsWarning(text))

    def _report_missing(self, na: str) -> None:
        where = listing(f"{name} ({count})" for name, count in self.missing.items())
        of_all = f"{self.n_missing} of {self.n_obs} rows"
        if na == "raise":
            raise DataError(
                f"{of_all} miss values, in {where}, the first in row {self.first_missing} "
                "(counting from 0); na='drop' leaves them out."
            )
        if self.n_missing == self.n_obs:
            raise DataError(
                f"no row is complete: all {self.n_missing} rows miss values, in {where}."
            )
        warn(DroppedRowsWarning(f"{of_all} dropped: values are missing in {where}."))


def judge(
    columns: Mapping[str, Column], masks: Mapping[str, Array], weight: Vector
) -> tuple[Array, Tally]:
    """Which rows can be used, (n_obs,) bool, and what is wrong with the others.

    Parameters
    ----------
    columns : mapping
        Columns that must be finite.
    masks : mapping
        What misses values -> in which rows, (n_obs,) bool.
    weight : Vector, (n_obs,)
    """
    n_obs = len(weight)
    counts = {name: int(mask.sum()) for name, mask in masks.items() if mask.any()}
    complete = np.ones(n_obs, dtype=bool)
    for name in counts:
        complete &= ~masks[name]
    dropped = n_obs - int(complete.sum())
    first = int(np.argmin(complete)) if dropped else None
    found = {name: infinite(values) for name, values in columns.items()}
    bad = {name: where for name, where in found.items() if where is not None}
    zero = weight == 0
    return complete & ~zero, Tally(n_obs, bad, counts, first, dropped, int(zero.sum()))


def missing(values: Column) -> Array:
    """Return which rows miss a value, (n,) bool."""
    if isinstance(values, pd.Categorical):
        return np.asarray(values.codes < 0)
    if values.dtype.kind != "f":
        return np.zeros(len(values), dtype=bool)
    # a sum is NaN where a row holds one, and needs no array of the size of an image column
    rows = values if values.ndim == 1 else values.reshape(len(values), -1).sum(axis=1)
    return np.asarray(np.isnan(rows))


def infinite(values: Column) -> tuple[int, int] | None:
    """Return the number of rows with infinite values and the first of them, None where none has."""
    if isinstance(values, pd.Categorical) or values.dtype.kind != "f":
        return None
    if values.ndim > 1:
        rows = values.reshape(len(values), -1)
        values = rows.max(axis=1, initial=0.0) - rows.min(axis=1, initial=0.0)
    found = np.isinf(values)
    return (int(found.sum()), int(np.argmax(found))) if found.any() else None


def check_finite(name: str, values: Column, error: type[DeepRegressError]) -> None:
    """Refuse infinite values."""
    found = infinite(values)
    if found is not None:
        raise error(_infinite(name, *found))


def _infinite(name: str, count: int, row: int) -> str:
    noun = "value" if count == 1 else "values"
    return f"column {name!r} has {count} infinite {noun}, the first in row {row} (counting from 0)."
