"""The designs of a table on disk: columns of all rows in temporary files (DESIGN 3, step 3).

Every design is evaluated in one pass over the rows, chunk by chunk, and what it gives is written to
files as large as the arrays would be in memory. A fit goes through the rows some dozens of times:
one pass takes a quarter of the time that it takes where designs are evaluated again
(benchmarks/parquet.py). float32 would save half the disk, but coefficients would be known to six
digits only; inputs of networks, which compute in it, are of that type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregress.design import Design, DesignArrays
from deepregress.disk.scratch import temporary_array
from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError
from deepregress.linalg import Array
from deepregress.training_rows import TrainingRows, located


def stored_arrays(designs: Mapping[str, Design], rows: TrainingRows) -> dict[str, DesignArrays]:
    """Evaluate designs for all rows of a table on disk.

    Raises
    ------
    DataError
        A row does not fit what was learned from the others, or there is no room.
    """
    names = [name for design in designs.values() for name in design.variables]
    whole: dict[str, DesignArrays] = {}
    for at, frame in rows.frames(names):
        for name, design in designs.items():
            with located(at):
                part = design.evaluate(frame)
            if name not in whole:
                whole[name] = _blank(part, rows.n_obs)
            _fill(whole[name], part, at)
    return whole


def _blank(part: DesignArrays, n_obs: int) -> DesignArrays:
    """Arrays for all rows like those of some, to be filled."""
    for label, arrays in part.inputs.items():
        if any(isinstance(each, StoredArray) for each in arrays):
            raise DataError(
                f"{label}: pictures by path cannot be inputs of a model of data on disk; give "
                "their numbers as lists in a column."
            )

    def like(array: Array, dtype: npt.DTypeLike | None = None) -> Array:
        return temporary_array((n_obs, *array.shape[1:]), dtype or array.dtype)

    return DesignArrays(
        like(part.X),
        like(part.offset),
        {
            label: tuple(like(x, _network_dtype(x)) for x in map(np.asarray, given))
            for label, given in part.inputs.items()
        },
        tuple(
            replace(each, codes=like(each.codes), values=like(each.values)) for each in part.levels
        ),
    )


def _network_dtype(array: Array) -> np.dtype[Any]:
    return np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype


def _fill(whole: DesignArrays, part: DesignArrays, rows: slice) -> None:
    whole.X[rows], whole.offset[rows] = part.X, part.offset
    for every, some in zip(whole.levels, part.levels, strict=True):
        every.codes[rows], every.values[rows] = some.codes, some.values
    for label, arrays in whole.inputs.items():
        for every_row, of_rows in zip(arrays, part.inputs[label], strict=True):
            np.asarray(every_row)[rows] = of_rows
