"""Effects of areas, `s(region, bs="mrf", xt=...)`: neighbours are alike (METHODS 2).

`xt` is a dict area -> its neighbours, written into the formula: a dict of strings (or numbers) and
lists prints as what Python reads, so an f-string does it,

    neighbours = {"north": ["centre"], "centre": ["north", "south"], "south": ["centre"]}
    dr.fit(f"y ~ s(region, bs='mrf', xt={neighbours})", data)

Areas without rows have an effect too; areas that the dict lacks are an error.
`basis.markov_field` has the columns and the penalty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepregress.basis import Basis
from deepregress.basis import markov_field as fields
from deepregress.data import Frame
from deepregress.errors import DataError, FormulaError, suggestion
from deepregress.formula import Call
from deepregress.linalg import Matrix
from deepregress.terms import options
from deepregress.terms.base import check_options, register
from deepregress.terms.smooth import COMMON, Form, Levels, SmoothTerm, term_of


@dataclass(frozen=True)
class Areas(Form):
    """Effects of areas, of the `k` smoothest directions.

    `neighbours`: each area with its neighbours.
    """

    neighbours: tuple[tuple[Any, tuple[Any, ...]], ...]
    k: int | None

    def axes(self, frame: Frame, covariates: Sequence[str], label: str) -> dict[str, Levels | None]:
        """Return the areas of the neighbourhood as the levels of the covariate."""
        if len(covariates) != 1 or covariates[0].strip("`") not in frame:
            raise FormulaError(f"{label}: basis 'mrf' takes one column of areas.")
        areas = tuple(area for area, _ in self.neighbours)
        values = frame[covariates[0].strip("`")]
        factor = isinstance(values, pd.Categorical)
        for area in values.categories.tolist() if factor else np.unique(values).tolist():
            if area not in areas:
                hint = suggestion(str(area), [str(each) for each in areas])
                raise DataError(f"{label}: {area!r} is no area of xt{hint or '.'}")
        return {covariates[0]: areas}

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the field from the positions of the areas of the training rows."""
        neighbours = {str(area): [str(each) for each in near] for area, near in self.neighbours}
        return fields.construct(x[:, 0], neighbours, k=self.k, label=label)


@register("s", bs="mrf")
def markov_field(call: Call) -> SmoothTerm:
    """Read `s(region, bs="mrf", xt={area: [neighbours]}, k=, by=, df=, sp=)`."""
    check_options(call, ("k", "bs", "xt", *COMMON))
    given = call.kwargs.get("xt")
    if not isinstance(given, Mapping) or not all(
        isinstance(near, (list, tuple, set)) for near in given.values()
    ):
        raise call.error(
            "xt must be a dict area -> list of its neighbours, such as "
            "xt={'a': ['b'], 'b': ['a']}; an f-string writes yours into the formula."
        )
    covariates = options.covariates(call, "s(region)")
    neighbours = tuple((area, tuple(near)) for area, near in given.items())
    term = term_of(call, covariates, Areas(neighbours, options.size(call)))
    return replace(term, written=f"s({', '.join(covariates)}, bs='mrf')")
