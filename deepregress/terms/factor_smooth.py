"""Random curves, `s(x, g, bs="fs")`: one smooth per level of a factor (METHODS 2).

All levels share their smoothing parameters, one for the wiggliness and one for each direction that
is not wiggly (the constant, the slope), and every curve is shrunk to zero. So beside a smooth of
all rows, `s(x) + s(x, g, bs="fs")`, a level of few rows keeps near the common curve, and a new
level has it. `basis.factor_smooth` has the columns and penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from deepregress.basis import Basis
from deepregress.basis import factor_smooth as curves
from deepregress.data import Frame
from deepregress.errors import FormulaError, listing
from deepregress.formula import Call
from deepregress.linalg import Matrix
from deepregress.terms import options
from deepregress.terms.base import check_options, register
from deepregress.terms.smooth import COMMON, Form, Levels, SmoothTerm, term_of


@dataclass(frozen=True)
class Curves(Form):
    """One smooth per level, of a basis with its options."""

    bs: str
    k: int | None
    m: int | tuple[float, ...] | None
    knots: tuple[Any, ...] | None
    centred = False
    nested = False
    new_levels = True

    def axes(self, frame: Frame, covariates: Sequence[str], label: str) -> dict[str, Levels | None]:
        """Return the covariates, then the factor with its levels."""
        columns = {each: frame[each.strip("`")] for each in covariates if each.strip("`") in frame}
        factors = [name for name, each in columns.items() if isinstance(each, pd.Categorical)]
        if len(factors) != 1 or len(covariates) < 2:
            raise FormulaError(
                f"{label}: basis 'fs' takes numbers and one factor (strings or a Categorical), "
                f"such as s(x, g, bs='fs'); factors here: {listing(factors)}."
            )
        axes: dict[str, Levels | None] = {each: None for each in covariates if each not in factors}
        return axes | {factors[0]: tuple(columns[factors[0]].categories.tolist())}

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the raw basis from the covariates and the positions of levels, (n, d + 1)."""
        n_levels = len(levels[-1] or ())
        return curves.construct(
            x[:, :-1],
            n_levels,
            bs=self.bs,
            k=self.k,
            m=self.m,
            knots=options.knots(self.knots, label),
            label=label,
        )

    def names(
        self, basis: Basis, covariates: Sequence[str], levels: Sequence[Levels | None]
    ) -> tuple[str, ...]:
        """Return the level of each column and its number within the level."""
        factor = levels[-1] or ()
        size = basis.k // len(factor)
        return tuple(f"{level}.{number + 1}" for level in factor for number in range(size))


@register("s", bs="fs")
def factor_smooth(call: Call) -> SmoothTerm:
    """Read `s(x, g, bs="fs", k=10, m=, xt="tp", by=, sp=, knots=)`; `xt` is the basis of x."""
    check_options(call, ("k", "bs", *COMMON, "m", "knots", "xt"))
    bs = call.kwargs.get("xt", "tp")
    if not isinstance(bs, str):
        raise call.error(f"xt must be the name of a basis in quotes, got {options.shown(bs)}.")
    form = Curves(bs, options.size(call), options.order(call), options.sequence(call, "knots"))
    return term_of(call, options.covariates(call, 's(x, g, bs="fs")'), form)
