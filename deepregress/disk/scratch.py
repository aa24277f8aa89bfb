"""Arrays in temporary files: as large as the disk, of which memory holds what is being used.

A file has no name: it takes disk until the array and all views of it are gone, and nothing is left
behind when the process ends, however it ends. It lies in Python's folder of temporary files, which
the environment variable TMPDIR names; a folder in memory (tmpfs) would defeat the purpose.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError
from deepregress.linalg import Array

PART_ROWS = 1 << 17
"""Rows of a long array whose temporaries are held at once."""


def temporary_array(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> Array:
    """Zeros in a temporary file.

    Raises
    ------
    DataError
        There is no room for it.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if not size:
        return np.zeros(shape, dtype=kind)
    with tempfile.TemporaryFile(prefix="deepregress-") as file:
        try:
            _reserve(file.fileno(), size)
        except OSError as error:
            raise DataError(
                f"no room for {size / 2**30:.2g} GiB of temporary files in "
                f"{tempfile.gettempdir()!r} ({error.strerror}); the environment variable TMPDIR "
                "names another folder."
            ) from error
        mapped: np.memmap[Any, np.dtype[Any]] = np.memmap(file, kind, mode="r+", shape=shape)
    return mapped.view(np.ndarray)


def _reserve(file: int, size: int) -> None:
    """Make a file of this size; where the system can, blocks and all, so that writing succeeds."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def is_stored(array: Array | StoredArray) -> bool:
    """Whether an array, or what it is a view of, lies in a file."""
    if isinstance(array, StoredArray):
        return True
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            return True
        owner = owner.base
    return False


def beside(
    array: Array | StoredArray, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float64
) -> Array:
    """A new array to be filled: in a file where `array` is in one, else in memory."""
    return temporary_array(shape, dtype) if is_stored(array) else np.empty(shape, dtype)


def parts(n_obs: int, size: int = PART_ROWS) -> Iterator[slice]:
    """Consecutive rows, so many at a time."""
    for start in range(0, n_obs, size):
        yield slice(start, min(start + size, n_obs))
