"""Arrays whose rows are read when they are needed: pictures by path, columns of a file.

A `StoredArray` has the shape and dtype of the array (n_obs, ...) it stands for. Indexing rows gives
another one and reads nothing; `np.asarray` reads the rows. So code that takes rows by the chunk or
the batch works on it as on an array, and holds no more than these rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepregress.linalg import Array


@dataclass(frozen=True, eq=False)
class StoredArray(ABC):
    """An array (n_obs, ...) on disk, of which only some rows are read at a time.

    Parameters
    ----------
    index : Array of int, (n_obs,)
        Numbers of its rows in the store.
    """

    index: Array

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""

    @abstractmethod
    def read(self) -> Array:
        """The rows, (n_obs, *row_shape), in the order of `index`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array it stands for."""
        return (len(self.index), *self.row_shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.index)

    def __getitem__(self, rows: slice | Array) -> StoredArray:
        """Return some of the rows without reading them."""
        return replace(self, index=self.index[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001
        """Read the rows."""
        if copy is False:
            raise ValueError("rows in a store cannot be had without copying them")
        return np.asarray(self.read(), dtype=dtype)
