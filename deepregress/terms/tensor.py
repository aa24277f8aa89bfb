"""Smooth functions of covariates in different units: `te(x, z)` and `ti(x, z)` (METHODS 2).

    te    products of marginal bases, one penalty per margin; centred
    ti    the same of centred margins: an interaction without its main effects, so that
          ti(x) + ti(z) + ti(x, z) spans what te(x, z) does; with mc=(0, 1) only the second margin
          is centred, so that ti(x) + ti(x, z, mc=(0, 1)) does

`basis.tensor` has the products and their penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepregress.basis import Basis
from deepregress.basis import tensor as products
from deepregress.formula import Call
from deepregress.linalg import Matrix
from deepregress.terms import options
from deepregress.terms.base import check_options, register
from deepregress.terms.smooth import COMMON, Form, Levels, SmoothTerm, term_of

_OPTIONS = ("k", "bs", *COMMON, "m", "d", "np", "knots")


@dataclass(frozen=True)
class Product(Form):
    """A tensor product of marginal bases.

    `centred_margins`: whether margins are centred (ti), all or each. `function_values`: mgcv's
    `np`. The other options are those of `basis.tensor.marginals`.
    """

    centred_margins: bool | tuple[bool, ...]
    bs: str | tuple[str, ...] | None
    k: int | tuple[int | None, ...] | None
    m: Any
    dims: tuple[int, ...] | None
    knots: tuple[Any, ...] | None
    function_values: bool

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Whether the sum-to-zero constraint applies: to te; a margin of ti has it."""
        given = self.centred_margins
        return not (given if isinstance(given, bool) else any(given))

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the raw basis from the covariates of the training rows, (n, d)."""
        knots = None
        if self.knots is not None:
            knots = tuple(options.knots(each, label) for each in self.knots)
        asked = products.marginals(
            x.shape[1], bs=self.bs, k=self.k, m=self.m, knots=knots, dims=self.dims, label=label
        )
        return products.construct(
            x,
            asked,
            centred=self.centred_margins,
            function_values=self.function_values,
            label=label,
        )


@register("te")
def te(call: Call) -> SmoothTerm:
    """Read `te(x, z, k=5, bs="cr", by=, m=, d=, np=, df=, sp=, knots=, fx=, select=)`."""
    check_options(call, _OPTIONS)
    return _product(call, centred=False)


@register("ti")
def ti(call: Call) -> SmoothTerm:
    """Read `ti(x, z, mc=)`, with the options of `te`; `mc` says which margins are centred."""
    check_options(call, (*_OPTIONS, "mc"))
    mc = options.sequence(call, "mc")
    if mc is None:
        return _product(call, centred=True)
    if not mc or any(each not in (0, 1) for each in mc):
        raise call.error(f"mc must have 0 or 1 for each margin, got {options.shown(mc)}.")
    return _product(call, centred=tuple(bool(each) for each in mc))


def _product(call: Call, *, centred: bool | tuple[bool, ...]) -> SmoothTerm:
    covariates = options.covariates(call, f"{call.name}(x, z)")
    form = Product(
        centred,
        options.per_margin(call, "bs", lambda each: isinstance(each, str), "a name in quotes"),
        options.per_margin(call, "k", options.whole, "a whole number"),
        _order(call),
        _dims(call),
        options.sequence(call, "knots"),
        options.flag(call, "np", default=True),
    )
    return term_of(call, covariates, form)


def _order(call: Call) -> Any:
    """Return `m`: one whole number for all margins, or an entry per margin, each one or several."""
    m = call.kwargs.get("m")
    if m is None or options.whole(m):
        return m
    entries = m if isinstance(m, (tuple, list)) else (m,)
    return tuple(options.order_of(call, each) for each in entries)


def _dims(call: Call) -> tuple[int, ...] | None:
    """Return `d`: the number of covariates of each margin."""
    d = options.per_margin(call, "d", options.whole, "a whole number")
    return (d,) if isinstance(d, int) else d
