"""Splines and Gaussian processes of one or more covariates in one unit: `s(x)`, `s(x, z)`.

The basis is any of `basis.registered()`; that of several covariates is isotropic ("tp", "gp"): one
smoothing parameter for all directions (METHODS 2). All smooths take

    by=g, by=z     one smooth per level of g; a smooth times z
    sp=, df=       fixed smoothing parameters, one per penalty; fixed degrees of freedom
    fx=True        no penalty
    select=True    a penalty on the null space too, so that a term can vanish
    id=1           terms of one id share their smoothing parameters (in mgcv also one basis)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepregress.basis import Basis, construct
from deepregress.formula import Call
from deepregress.linalg import Matrix
from deepregress.terms import options
from deepregress.terms.base import check_options, register
from deepregress.terms.smooth import COMMON, Form, Levels, SmoothTerm, term_of


@dataclass(frozen=True)
class Spline(Form):
    """A basis of `basis.construct`, with its options."""

    bs: str
    k: int | None
    m: int | tuple[float, ...] | None
    knots: tuple[Any, ...] | None

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the raw basis from the covariates of the training rows, (n, d)."""
        knots = options.knots(self.knots, label)
        return construct(self.bs, x, k=self.k, m=self.m, knots=knots, label=label)


@register("s")
def spline(call: Call) -> SmoothTerm:
    """Read `s(x, k=10, bs="tp", by=, m=, df=, sp=, knots=, fx=, select=, id=)`."""
    check_options(call, ("k", "bs", *COMMON, "m", "knots"))
    covariates = options.covariates(call, "s(x)")
    form = Spline(
        options.basis_name(call), options.size(call), options.order(call),
        options.sequence(call, "knots"),
    )  # fmt: skip
    return term_of(call, covariates, form)
