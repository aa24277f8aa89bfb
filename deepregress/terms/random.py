"""Random effects: `s(g, bs="re")`, `s(g, x, bs="re")`, and lme4's `(1 | g)`, `(x | g)` (METHODS 2).

    (1 | g)          s(g)                 an intercept per level
    (x | g)          s(g), s(g,x)         and a slope, independent of it: mgcv's two terms, lme4's
                                          (x || g); correlated effects are not estimated
    (0 + x | g)      s(g,x)               the slope alone
    (1 | a/b)        s(a), s(a,b)         b within a: levels of b in different a are different
    (1 | a:b)        s(a,b)               one effect per combination

Effects are independent N(0, sd^2), a ridge penalty with an estimated smoothing parameter. A new
level has the mean effect, zero, and its standard errors contain sd^2 (module `new_levels`). Factors
of many levels have no dense columns: tens of thousands of levels fit (module `arrow`). In `s(...,
bs="re")` strings and Categoricals are factors and numbers are multiplied, as in mgcv; right of a
bar, numbers are factors too, as in lme4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepregress.basis import Basis
from deepregress.basis import random_effect as effects
from deepregress.data import Frame
from deepregress.errors import DataError
from deepregress.formula import BAR, Call
from deepregress.linalg import Matrix
from deepregress.remainder import split_summands
from deepregress.terms import options
from deepregress.terms.base import ColumnBlock, Term, check_options, register
from deepregress.terms.smooth import COMMON, Form, Levels, SmoothTerm, term_of

_COLUMN = re.compile(r"\w+|`[^`]+`")


@dataclass(frozen=True)
class Effects(Form):
    """Effects of the cells of factors, times numbers."""

    grouping: tuple[str, ...] = ()
    centred = False
    nested = False
    new_levels = True

    def axes(self, frame: Frame, covariates: Sequence[str], label: str) -> dict[str, Levels | None]:
        """Return the levels of each covariate that is a factor, None for numbers."""
        return {each: self._levels(frame, each, label) for each in covariates}

    def _levels(self, frame: Frame, covariate: str, label: str) -> Levels | None:
        name = covariate.strip("`")
        values = frame[name] if name in frame else None
        if isinstance(values, pd.Categorical):
            levels = tuple(values.categories.tolist())
        elif covariate in self.grouping and values is not None and values.ndim == 1:
            levels = tuple(np.unique(values).tolist())
        else:
            return None
        if len(levels) < 2:
            raise DataError(
                f"{label}: {name!r} has one level only, {levels[0]!r}; effects that vary between "
                "levels need two at least."
            )
        return levels

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the columns of the cells that occur in the training rows."""
        sizes = [0 if each is None else len(each) for each in levels]
        return effects.construct(x, sizes)

    def names(
        self, basis: Basis, covariates: Sequence[str], levels: Sequence[Levels | None]
    ) -> tuple[str, ...]:
        """Return the levels of each cell, joined by a colon."""
        factors = [each for each in levels if each is not None]
        if not isinstance(basis, effects.RandomEffect) or not factors:
            return ()
        return tuple(
            ":".join(str(factor[place]) for factor, place in zip(factors, cell, strict=True))
            for cell in basis.levels().tolist()
        )


@dataclass(frozen=True)
class BarTerm(Term):
    """`(x | g)`: the random effects that it stands for.

    Parameters
    ----------
    label : str
        The term as written.
    variables : tuple of str
        Columns of the table that it names.
    parts : tuple of SmoothTerm
        One per intercept or slope and grouping.
    """

    label: str
    variables: tuple[str, ...]
    parts: tuple[SmoothTerm, ...]

    @property
    def crossings(self) -> tuple[tuple[str, ...], ...]:
        return tuple(names for part in self.parts for names in part.crossings)

    @property
    def coded(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.coded)

    def bind(self, frame: Frame) -> tuple[ColumnBlock, ...]:
        """Learn the levels from the training rows; one block per part."""
        return tuple(block for part in self.parts for block in part.bind(frame))


@register("s", bs="re")
def random_effect(call: Call) -> SmoothTerm:
    """Read `s(g, bs="re")` and `s(g, x, bs="re", by=, df=, sp=)`."""
    check_options(call, ("bs", *COMMON))
    return term_of(call, options.covariates(call, 's(g, bs="re")'), Effects())


@register(BAR)
def bar(call: Call) -> BarTerm:
    """Read `(x | g)`, whose call has the text on both sides of the bar as its arguments."""
    left, right = call.args
    parts = tuple(
        SmoothTerm(
            label=f"s({','.join([*group, *slope])})",
            variables=options.columns((*group, *slope)),
            written=call.label,
            covariates=(*group, *slope),
            form=Effects(group),
        )
        for group in _groupings(call, right)
        for slope in _slopes(call, left)
    )
    names = dict.fromkeys(name for part in parts for name in part.variables)
    return BarTerm(call.label, tuple(names), parts)


def _slopes(call: Call, text: str) -> list[tuple[str, ...]]:
    """Return () for the intercept and (x,) for each slope left of the bar."""
    summands = [each.strip() for each in split_summands(text)]
    slopes = [each for each in summands if each not in ("0", "1")]
    for each in slopes:
        if not each or not options.expression(each):
            raise call.error(
                f"{text!r} left of the bar must be 1, or columns joined by '+', such as 1 + x."
            )
    found: list[tuple[str, ...]] = [] if "0" in summands else [()]
    found += [(each,) for each in dict.fromkeys(slopes)]
    if not found:
        raise call.error("0 leaves no effect left of the bar.")
    return found


def _groupings(call: Call, text: str) -> list[tuple[str, ...]]:
    """Return the factors of each grouping: (a,) and (a, b) for a/b."""
    nested: list[tuple[str, ...]] = []
    for part in text.split("/"):
        factors = tuple(each.strip() for each in part.split(":"))
        if not all(_COLUMN.fullmatch(each) for each in factors):
            raise call.error(
                f"{text!r} right of the bar must name columns, such as g, a/b or a:b; more "
                "groupings are terms of their own, such as (1 | a) + (1 | b)."
            )
        nested.append((*(nested[-1] if nested else ()), *factors))
    return nested
