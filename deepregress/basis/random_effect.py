"""Random effects, `bs="re"`: one coefficient per level of a factor (METHODS 2).

For factors g, h, ... and numbers x, z, ... the columns are those of the interaction g:h:x:z,

    column of the cell (a, b) = x z ... in the rows with g = a and h = b, else 0,    S = I

so coefficients are independent N(0, sigma^2 / sp). Cells without rows have no column: rows of such
a cell, or of a level without rows, have zero columns, the mean of the effects.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.8 and 7.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepregress.basis.base import LevelBasis, diagonal_penalty
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class RandomEffect(LevelBasis):
    """Effects of the cells of factors, times numbers.

    Parameters
    ----------
    sizes : tuple of int
        Number of levels of each covariate that is a factor; 0 for numbers.
    cells : Array
        Cells with rows, counted with the last factor innermost, increasing, shape (k,).
    penalties : tuple
        The identity.
    null_dim : int
        Zero.
    """

    sizes: tuple[int, ...]
    cells: Array
    penalties: tuple[Matrix | Vector, ...]
    null_dim: int

    @property
    def n_values(self) -> int:
        """One column of each cell."""
        return 1

    def by_level(self, x: Matrix) -> tuple[Array, Matrix]:
        """Return the cell of each row and the product of its numbers (n, 1), x of shape (n, d).

        x holds positions of levels and numbers; position -1 is none.
        """
        cell = cells_of(x, self.sizes)
        column = np.minimum(np.searchsorted(self.cells, cell), len(self.cells) - 1)
        is_number = np.array(self.sizes) == 0
        codes = np.where(self.cells[column] == cell, column, -1)
        return codes, x[:, is_number].prod(axis=1, keepdims=True)

    def levels(self) -> Array:
        """Return the position of each cell's level in each factor, shape (k, n_factors)."""
        sizes = [size for size in self.sizes if size]
        return np.stack(np.unravel_index(self.cells, sizes), axis=1) if sizes else np.zeros((1, 0))


def cells_of(x: Matrix, sizes: Sequence[int]) -> Array:
    """Return the cell of each row, -1 where one of its levels is none, shape (n,) int64."""
    cell = np.zeros(len(x), dtype=np.int64)
    unknown = np.zeros(len(x), dtype=bool)
    for j, size in enumerate(sizes):
        if size:
            position = x[:, j].astype(np.int64)
            unknown |= position < 0
            cell = cell * size + position
    cell[unknown] = -1
    return cell


def construct(x: Matrix, sizes: Sequence[int]) -> RandomEffect:
    """Construct the random effects of the cells that occur in the training rows.

    Parameters
    ----------
    x : Matrix
        Positions of levels, and numbers, shape (n, d).
    sizes : sequence of int
        Number of levels of each column that is a factor; 0 for numbers.

    Examples
    --------
    >>> import numpy as np
    >>> effect = construct(np.array([[0, 1.5], [2, 2.0], [0, 0.5]]), (3, 0))
    >>> effect.evaluate(np.array([[2, 4.0], [1, 4.0]]))
    array([[0., 4.],
           [0., 0.]])
    """
    cells = np.unique(cells_of(x, sizes))
    return RandomEffect(tuple(sizes), cells, (diagonal_penalty(np.ones(len(cells))),), null_dim=0)
