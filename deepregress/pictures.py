"""Pictures by path: rows of a network's input that are read from files when they are needed.

A picture is decoded by Pillow, turned as its camera says, resized to one size (bilinear with
antialiasing, proportions given up) and scaled to float32 numbers in [0, 1]: rows of shape
(height, width, 3), or (height, width, 1) in grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError
from deepregress.linalg import Array

WHITE, WHITE_16_BIT = 255.0, 65535.0
"""The largest values of a pixel in a file."""


@dataclass(frozen=True, eq=False)
class Pictures(StoredArray):
    """Pictures in files, of which only those asked for are read.

    Parameters
    ----------
    index : Array of int, (n_obs,)
        Numbers of the rows.
    files : Array of int, (n_all,)
        Number of the file of every row of the table.
    paths : tuple of str
        The files.
    size : tuple of int
        Height and width in pixels.
    channels : int
        3: red, green and blue; 1: grey.
    label : str
        The term, for messages.
    """

    files: Array
    paths: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    label: str

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return (*self.size, self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, as networks take it."""
        return np.dtype(np.float32)

    def read(self) -> Array:
        """Decode the rows' pictures, (n_obs, height, width, channels) in [0, 1].

        Raises
        ------
        DataError
            A file is missing or is no picture.
        """
        pixels = np.empty(self.shape, dtype=np.float32)
        for place, row in enumerate(self.index):
            pixels[place] = self._decoded(int(row))
        return pixels

    def _decoded(self, row: int) -> Array:
        path = self.paths[self.files[row]]
        height, width = self.size
        try:
            with Image.open(path) as picture:
                upright = _eight_bit(ImageOps.exif_transpose(picture))
                colours = upright.convert("L" if self.channels == 1 else "RGB")
                resized = colours.resize((width, height), Image.Resampling.BILINEAR)
        # what Pillow raises for broken files: SyntaxError and ValueError among them
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            what = "does not exist" if isinstance(error, FileNotFoundError) else "is no picture"
            raise DataError(
                f"{self.label}: the file {path!r} of row {row} (counting from 0) {what}."
            ) from error
        return np.asarray(resized, dtype=np.float32).reshape(self.row_shape) / WHITE


def check_files(paths: Sequence[str], label: str) -> None:
    """Refuse paths of no file before anything is trained.

    Raises
    ------
    DataError
        Files are missing.
    """
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise DataError(
            f"{label}: {len(missing)} of {len(paths)} files do not exist, the first is "
            f"{missing[0]!r}; paths are relative to {str(Path.cwd())!r}."
        )


def _eight_bit(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits in grey, which Pillow would cut off at white, with 8."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture, dtype=np.float32) * (WHITE / WHITE_16_BIT)
    return Image.fromarray(values).convert("L")
