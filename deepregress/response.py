"""The response of a model: what is known of y in each row, and the forms that say so.

    lower_i <= y_i <= upper_i      equal for exact rows, open at -inf or +inf
    entry_i < y_i <= exit_i        the row is among the data only because its y lies in between

Which rows are known in which way is said by a form on the left side of the formula
(`response_forms`); a plain expression is exact.

References: Klein & Moeschberger (2003), Survival Analysis, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from deepregress.disk.scratch import beside
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class Response:
    """The response of the training rows, by its bounds.

    Parameters
    ----------
    lower, upper : array
        Bounds of y, shape (n_obs,) or (n_obs, d); equal where y is exact.
    weights : Vector
        Weights of the rows' log-likelihood, shape (n_obs,), positive.
    entry : Vector or None
        Left-truncation times, shape (n_obs,).
    label : str
        The response as the user wrote it.
    levels : tuple of str or None
        Names of the codes 0, 1, ... of a categorical response.
    exit : Vector or None
        Right-truncation times, shape (n_obs,).
    trials : Vector or None
        Number of trials of a binomial count, shape (n_obs,).
    """

    lower: Matrix
    upper: Matrix
    weights: Vector
    entry: Vector | None
    label: str
    levels: tuple[str, ...] | None
    exit: Vector | None = None
    trials: Vector | None = None

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return int(self.lower.shape[0])

    @cached_property
    def exact(self) -> bool:
        """Whether every row is observed exactly."""
        return self.lower is self.upper or bool(np.array_equal(self.lower, self.upper))

    @property
    def plain(self) -> bool:
        """Whether no row is censored or truncated."""
        return self.exact and self.entry is None and self.exit is None

    @property
    def y(self) -> Matrix:
        """One value for each row: y, the middle of an interval, the finite bound of an open one."""
        if self.lower is self.upper:
            return self.lower
        lower = np.where(np.isfinite(self.lower), self.lower, self.upper)
        upper = np.where(np.isfinite(self.upper), self.upper, self.lower)
        return np.asarray(lower + 0.5 * (upper - lower))

    def rows(self) -> Mapping[str, Array]:
        """Return what a family needs of each row to compute its log-likelihood.

        Columns that say nothing are left out: "upper" and the masks of exact, right, left and
        interval-censored rows (1 where a row is so) are there where some row is censored.
        """
        return self._rows

    @cached_property
    def _rows(self) -> Mapping[str, Array]:
        rows: dict[str, Array] = {"lower": self.lower}
        if not self.exact:
            exact = self.lower == self.upper
            left, right = np.isneginf(self.lower), np.isposinf(self.upper)
            masks = {
                "exact": exact,
                "right": right,
                "left": left,
                "interval": ~(exact | left | right),
            }
            rows["upper"] = self.upper
            for name, mask in masks.items():
                if mask.any():
                    rows[name] = beside(self.lower, mask.shape)
                    rows[name][:] = mask
        known = {"entry": self.entry, "exit": self.exit, "trials": self.trials}
        return rows | {name: column for name, column in known.items() if column is not None}

    def take(self, rows: slice | Array) -> Response:
        """Return the response of the rows of an index or mask."""
        changed = {
            each.name: getattr(self, each.name)[rows]
            for each in fields(self)
            if isinstance(getattr(self, each.name), np.ndarray)
        }
        if self.lower is self.upper:
            changed["upper"] = changed["lower"]
        return replace(self, **changed)
