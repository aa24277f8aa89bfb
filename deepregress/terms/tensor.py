"""Smooth functions of covariates in different units: `te(x, z)` and `ti(x, z)` (METHODS 2).

    te    products of marginal bases, one penalty per margin; centred
    ti    the same of centred margins: an interaction without its main effects, so that
          ti(x) + ti(z) + ti(x, z) spans what te(x, z) does

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

    `interaction`: margins are centred (ti). `function_values`: mgcv's `np`. The other options are
    those of `basis.tensor.marginals`.
    """

    interaction: bool
    bs: str | tuple[str, ...] | None
    k: int | tuple[int | None, ...] | None
    m: Any
    dims: tuple[int, ...] | None
    knots: tuple[Any, ...] | None
    function_values: bool

    @property
    def centred(self) -> bool:  # type: ignore[override]
        """Whether the sum-to-zero constraint applies: to te; the margins of ti have it."""
        return not self.interaction

    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the raw basis from the covariates of the training rows, (n, d)."""
        knots = None
        if self.knots is not None:
            knots = tuple(options.knots(each, label) for each in self.knots)
        asked = products.marginals(
            x.shape[1], bs=self.bs, k=self.k, m=self.m, knots=knots, dims=self.dims, label=label
        )
        return products.construct(
            x, asked, centred=self.interaction, function_values=self.function_values, label=label
        )


@register("te")
def te(call: Call) -> SmoothTerm:
    """Read `te(x, z, k=5, bs="cr", by=, m=, d=, np=, df=, sp=, knots=, fx=, select=)`."""
    return _product(call, interaction=False)


@register("ti")
def ti(call: Call) -> SmoothTerm:
    """Read `ti(x, z)`, with the options of `te`."""
    return _product(call, interaction=True)


def _product(call: Call, *, interaction: bool) -> SmoothTerm:
    check_options(call, _OPTIONS)
    covariates = options.covariates(call, f"{call.name}(x, z)")
    form = Product(
        interaction,
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
