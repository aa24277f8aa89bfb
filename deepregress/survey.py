"""What the terms learn from of a table that is read by the chunk: types, levels and some rows.

Knots, constraints, means and the states of transforms come from a part of the rows, as in mgcv's
`bam`. They are

    SAMPLE_ROWS random rows, without replacement, always the same ones,
    the rows of the smallest and largest number in each column,
    the first row of every level of a factor, and of every combination of levels that a term crosses

in their order. Of a table with no more rows than that they are all, and the fit is that in memory.

Reference: Wood, Goude & Shaw (2015), doi:10.1111/rssc.12068 (sect. 3: bases from a subsample).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.frame import Column, Frame
from deepregress.linalg import Array

SAMPLE_ROWS = 100_000
"""Random rows that terms learn from; with a column of 8 bytes, 0.8 MB."""
SEED = 0
_CELL = 1 << 32


@dataclass(frozen=True, eq=False)
class Kind:
    """The type of a column over all rows.

    Parameters
    ----------
    dtype : numpy.dtype or pandas.CategoricalDtype
        A factor has the levels that occur in rows that can be used.
    """

    dtype: Any

    def column(self, values: Column) -> Column:
        """Some rows of the column as this type."""
        if not isinstance(self.dtype, pd.CategoricalDtype):
            return np.asarray(values).astype(self.dtype, copy=False)
        given = values if isinstance(values, pd.Categorical) else pd.Categorical(values)
        place = self.dtype.categories.get_indexer(given.categories)
        codes = np.append(place, -1)[given.codes]
        return _factor(codes, self.dtype)


def _factor(codes: Array, dtype: pd.CategoricalDtype) -> pd.Categorical:
    factor: Any = pd.Categorical.from_codes(codes, dtype=dtype)
    return factor  # type: ignore[no-any-return]


class Values:
    """Values in the order in which they were first seen; it grows."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}

    def places(self, values: Sequence[Any]) -> Array:
        """Place of each, new ones at the end."""
        known = self.known
        return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)

    def of_rows(self, values: Array) -> tuple[Array, Array]:
        """Place of each row's value, and the first rows of values that are new."""
        codes, unique = pd.factorize(values)
        first = np.empty(len(unique), dtype=np.int64)
        first[codes[::-1]] = np.arange(len(values))[::-1]
        before = len(self.known)
        places = self.places(unique.tolist())
        return places[codes], first[places >= before]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows that may be among those terms learn from; factors as places of their levels."""

    rows: Array
    keys: Array
    needed: Array
    columns: dict[str, Array]

    def take(self, index: Array) -> _Piece:
        columns = {name: values[index] for name, values in self.columns.items()}
        return _Piece(self.rows[index], self.keys[index], self.needed[index], columns)


class Survey:
    """What has been seen of the rows; it grows by chunks.

    Parameters
    ----------
    crossings : sequence of tuple of str
        Columns whose combinations of levels must all be seen.
    coded : sequence of str
        Columns of numbers that terms take as factors.
    size : int
        Number of random rows.
    """

    def __init__(
        self, crossings: Sequence[tuple[str, ...]], coded: Sequence[str], size: int
    ) -> None:
        self.n_obs = 0
        self._crossings, self._coded, self._size = crossings, set(coded), size
        self._random = np.random.default_rng(SEED)
        self._levels: dict[str, Values] = {}
        self._ordered: dict[str, bool] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._cells: dict[tuple[str, ...], Values] = {}
        self._ends: dict[tuple[str, str], tuple[float, int]] = {}
        self._pieces: list[_Piece] = []
        self._most = 2 * size

    def add(self, frame: Frame) -> None:
        """Look at further rows, all of which can be used."""
        columns = {name: self._seen(name, values) for name, values in frame.columns.items()}
        needed = np.zeros(frame.n_obs, dtype=bool)
        for names in dict.fromkeys([*((name,) for name in columns), *self._crossings]):
            needed[self._new_cells(columns, names)] = True
        self._look_at_ends(columns)
        rows = np.arange(self.n_obs, self.n_obs + frame.n_obs)
        keys = self._random.random(frame.n_obs)
        self._pieces.append(_Piece(rows, keys, needed, columns))
        self.n_obs += frame.n_obs
        self._leave_out()

    def kinds(self, texts: Sequence[str]) -> dict[str, Kind]:
        """Type of each column; the levels of `texts` are sorted."""
        found = {name: Kind(dtype) for name, dtype in self._dtypes.items()}
        for name, levels in self._levels.items():
            used = self._cells[name,].known
            known = [level for level, place in levels.known.items() if place in used]
            index = pd.Index(sorted(known) if name in texts else known)
            if all(isinstance(level, str) for level in known):
                index = index.astype(object)
            found[name] = Kind(pd.CategoricalDtype(index, ordered=self._ordered[name]))
        return found

    def sample(self, kinds: dict[str, Kind]) -> tuple[Array, Frame]:
        """The rows that terms learn from: their numbers, and their columns."""
        self._leave_out(always=True)
        (piece,) = self._pieces
        columns = {
            name: kinds[name].column(self._values(name, values))
            for name, values in piece.columns.items()
        }
        return piece.rows, Frame(columns, len(piece.rows))

    def _values(self, name: str, values: Array) -> Column:
        if name not in self._levels:
            return values
        levels = pd.Index(list(self._levels[name].known), dtype=object)
        return _factor(values, pd.CategoricalDtype(levels))

    def _seen(self, name: str, values: Column) -> Array:
        """The column as an array, its levels or type remembered."""
        if isinstance(values, pd.Categorical):
            levels = self._levels.setdefault(name, Values())
            self._ordered[name] = bool(values.ordered)
            places = np.append(levels.places(values.categories.tolist()), -1)
            return np.asarray(places[values.codes])
        known = self._dtypes.get(name, values.dtype)
        # numbers are whole, or true and false, until a chunk has missing values among them
        differ = known != values.dtype
        self._dtypes[name] = np.dtype(np.float64) if differ else known
        return values

    def _new_cells(self, columns: dict[str, Array], names: tuple[str, ...]) -> Array:
        """First rows of combinations of levels that are new."""
        ids: Array | None = None
        first = np.zeros(0, dtype=np.int64)
        prefix: tuple[str, ...] = ()
        for name in names:
            values = columns[name]
            discrete = name in self._levels or name in self._coded or values.dtype == bool
            if not discrete or values.ndim > 1:
                continue
            key = values if ids is None else ids * _CELL + self._cell(values, (name,))[0]
            prefix = (*prefix, name)
            ids, first = self._cell(key, prefix)
        return first

    def _cell(self, values: Array, names: tuple[str, ...]) -> tuple[Array, Array]:
        return self._cells.setdefault(names, Values()).of_rows(values)

    def _look_at_ends(self, columns: dict[str, Array]) -> None:
        for name, values in columns.items():
            if values.ndim > 1 or name in self._levels:
                continue
            for side, sign, row in (
                ("low", -1.0, int(values.argmin())),
                ("high", 1.0, int(values.argmax())),
            ):
                value = sign * float(values[row])
                if value > self._ends.get((name, side), (-np.inf, 0))[0]:
                    self._ends[name, side] = (value, self.n_obs + row)

    def _leave_out(self, *, always: bool = False) -> None:
        """Keep the rows with the smallest keys, and those that are needed."""
        if not always and sum(len(piece.rows) for piece in self._pieces) <= self._most:
            return
        keys = np.concatenate([piece.keys for piece in self._pieces])
        most = np.partition(keys, self._size - 1)[self._size - 1] if len(keys) > self._size else 1.0
        ends = [row for _, row in self._ends.values()]
        kept = [
            piece.take(
                np.flatnonzero((piece.keys <= most) | piece.needed | np.isin(piece.rows, ends))
            )
            for piece in self._pieces
        ]
        self._pieces = [
            _Piece(
                np.concatenate([piece.rows for piece in kept]),
                np.concatenate([piece.keys for piece in kept]),
                np.concatenate([piece.needed for piece in kept]),
                {n: np.concatenate([piece.columns[n] for piece in kept]) for n in kept[0].columns},
            )
        ]
        self._most = 2 * max(self._size, len(self._pieces[0].rows))
