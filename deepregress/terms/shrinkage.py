"""Shrinkage of linear effects: `ridge(x1, x2)`, `ridge(X)` of an array's columns (METHODS 2).

    sum_j coef_j (x_j - mean_j),    penalty 1/2 lam sum_j (sd_j coef_j)^2

an identity penalty on the coefficients of standardised columns, with lam estimated like any
smoothing parameter; coefficients stay those of the columns as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepregress.basis import Basis
from deepregress.data import Frame
from deepregress.formula import Call
from deepregress.linalg import Matrix, Vector
from deepregress.terms import options
from deepregress.terms.base import check_options, register
from deepregress.terms.smooth import Form, Levels, SmoothTerm, term_of

_COLUMN = re.compile(r"\[:, (\d+)\]$")


@dataclass(frozen=True, eq=False)
class CentredColumns(Basis):
    """The covariates minus their means over the training rows.

    Parameters
    ----------
    means : Vector
        Shape (d,).
    penalties : tuple of Matrix
        Their variances on the diagonal, (d, d).
    null_dim : int
        Zero.
    """

    means: Vector
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the columns at x (n, d), shape (n, d)."""
        return x - self.means


@dataclass(frozen=True)
class Ridge(Form):
    """Linear effects, centred by their own means."""

    centred = False
    scaled = False
    nested = False

    def axes(self, frame: Frame, covariates: Sequence[str], label: str) -> dict[str, Levels | None]:
        """Return the covariates, of an array (n, d) its columns."""
        found = []
        for each in covariates:
            values = frame.evaluate(each, options.columns((each,)))
            is_array = not isinstance(values, pd.Categorical) and values.ndim == 2
            found += [f"{each}[:, {j}]" for j in range(values.shape[1])] if is_array else [each]
        return dict.fromkeys(found)

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Learn means and variances from the training rows (n, d)."""
        return CentredColumns(x.mean(axis=0), (np.diag(x.var(axis=0)),), null_dim=0)

    def names(
        self, basis: Basis, covariates: Sequence[str], levels: Sequence[Levels | None]
    ) -> tuple[str, ...]:
        """Return the covariates; "X.1" for the first column of an array X."""
        return tuple(
            _COLUMN.sub(lambda place: f".{int(place[1]) + 1}", each) for each in covariates
        )


@register("ridge")
def ridge(call: Call) -> SmoothTerm:
    """Read `ridge(x1, x2, X, df=, sp=)`."""
    check_options(call, ("df", "sp"))
    return term_of(call, options.covariates(call, "ridge(x1, x2)"), Ridge())
