"""A table on disk, read by the batch (DESIGN 1: data larger than memory).

A `Source` is a parquet file, a folder of them (with columns in the names of its folders, as in
`g=a/part.parquet`) or any `pyarrow.dataset.Dataset`. Only the columns that are needed are read, in
the order of the rows. Numbers, strings, dictionaries and lists of numbers of one length become
columns as those of a table in memory do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from deepregress.errors import DataError
from deepregress.linalg import Array

BATCH_ROWS = 1 << 17
"""Rows that are read at once."""
READ_AHEAD = 1
"""Batches and files that are read before they are asked for: each takes memory."""


@dataclass(frozen=True, eq=False)
class Source:
    """A table on disk.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
    """

    dataset: Any

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns."""
        return tuple(self.dataset.schema.names)

    def is_text(self, name: str) -> bool:
        """Whether a column holds strings, whose order as levels is the sorted one."""
        kind = self.dataset.schema.field(name).type
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Columns of consecutive rows; each as an arrow array, by its name."""
        for piece in self._pieces():
            schema = {} if piece is self.dataset else {"schema": self.dataset.schema}
            scanner = piece.scanner(
                columns=list(dict.fromkeys(names)),
                batch_size=BATCH_ROWS,
                batch_readahead=READ_AHEAD,
                fragment_readahead=READ_AHEAD,
                fragment_scan_options=self._options(),
                **schema,
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield dict(zip(batch.schema.names, batch.columns, strict=True))

    @property
    def _parquet(self) -> bool:
        kind = getattr(self.dataset, "format", None)
        return isinstance(kind, pa.dataset.ParquetFileFormat)

    def _pieces(self) -> Iterator[Any]:
        """What is read one after the other: row groups of parquet files, else the whole.

        A scan of the whole reads as far ahead as it is faster than what is done with the rows.
        """
        try:
            files = self.dataset.get_fragments() if self._parquet else None
        except ValueError:
            # of a dataset with a filter, which has no files of its own
            files = None
        if files is None:
            yield self.dataset
            return
        for file in files:
            yield from file.split_by_row_group()

    def _options(self) -> Any:
        """How files are read: not whole files ahead, as parquet's are by default."""
        if not self._parquet:
            return None
        return pa.dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)

    def n_rows(self) -> int:
        """Number of rows, from the files' own counts where they have them."""
        return int(self.dataset.count_rows())

    def column(self, name: str) -> Array | pd.Categorical:
        """A whole column, in memory."""
        table = self.dataset.to_table(columns=[name])
        return column(name, table.column(name).unify_dictionaries().combine_chunks())


def opened(data: object) -> Source | None:
    """The table on disk that a path or dataset means; None of other data.

    Raises
    ------
    DataError
        There is no such file, or it is no parquet.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, pa.dataset.Dataset):
        return Source(data)
    if not isinstance(data, str | os.PathLike):
        return None
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"data={str(data)!r}: there is no such file or folder.")
    try:
        found = pa.dataset.dataset(path, format="parquet", partitioning="hive")
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"data={str(data)!r} is no parquet file or folder of them; other formats come as a "
            "pyarrow.dataset.Dataset."
        ) from error
    if not found.schema.names:
        raise DataError(f"data={str(data)!r}: the folder has no parquet file.")
    return Source(found)


def column(name: str, values: Any) -> Array | pd.Categorical:
    """An arrow array as numbers (NaN where they are missing), a factor, or an array (n, d).

    Raises
    ------
    DataError
        Its type is none of these.
    """
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = values.dictionary_encode()
    if pa.types.is_dictionary(values.type):
        return _factor(values, is_text=not pa.types.is_dictionary(kind))
    if pa.types.is_null(kind):
        return np.full(len(values), np.nan)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _rows(name, values)
    if pa.types.is_boolean(kind) and not values.null_count:
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) and not values.null_count:
        return np.asarray(values.to_numpy(), dtype=np.int64)
    if pa.types.is_decimal(kind) or pa.types.is_boolean(kind) or pa.types.is_float16(kind):
        values = values.cast(pa.float32() if pa.types.is_float16(kind) else pa.float64())
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(
            f"column {name!r} is of type {kind}; numbers, strings, factors and lists of numbers "
            "are allowed."
        )
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _factor(values: Any, *, is_text: bool) -> pd.Categorical:
    """A dictionary array as a factor: strings in sorted order, others in that of the dictionary."""
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    given = values.dictionary.to_pylist()
    levels = [level for level in dict.fromkeys(given) if level is not None]
    if is_text:
        levels.sort()
    if levels != given:
        place = {level: code for code, level in enumerate(levels)}
        recoded = np.array([-1 if level is None else place[level] for level in given], np.int64)
        codes = np.where(codes < 0, -1, recoded[codes]) if len(recoded) else codes
    categories = pd.Index(levels, dtype=object if is_text else None)
    return pd.Categorical.from_codes(codes, categories=categories, ordered=values.type.ordered)  # type: ignore[no-any-return, unused-ignore]


def _rows(name: str, values: Any) -> Array:
    """Lists of one length as an array (n, d); NaN in rows without a list."""
    kind = values.type.value_type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(f"column {name!r} holds lists of {kind}; lists of numbers are allowed.")
    present = np.asarray(values.is_valid().to_numpy(zero_copy_only=False))
    flat = values.drop_null().flatten().to_numpy(zero_copy_only=False)
    n = int(present.sum())
    lengths = np.unique(values.drop_null().value_lengths().to_numpy()) if n else np.zeros(1, int)
    if len(lengths) > 1:
        raise DataError(f"column {name!r} holds lists of different lengths.")
    out = np.full((len(present), int(lengths[0])), np.nan)
    out[present] = flat.reshape(n, int(lengths[0]))
    return out
