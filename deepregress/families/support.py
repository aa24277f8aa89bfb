"""Whether a family can have produced a response: checked once, before a fit.

Exact rows lie in the support; a censored row's bounds lie in its closure and leave it a positive
probability; a response that is constant, or censored on one side in all rows, has no finite fit.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from deepregress.disk.scratch import parts
from deepregress.errors import ResponseError
from deepregress.linalg import Array
from deepregress.response import Response


class Supported(Protocol):
    """What is needed of a family."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def support(self) -> str:
        """What responses it takes, in words."""

    @property
    def discrete(self) -> bool:
        """Whether the response takes whole numbers only."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the support that do not depend on parameters."""

    @property
    def multivariate(self) -> bool:
        """Whether the response is a vector."""

    @property
    def circular(self) -> bool:
        """Whether the response is an angle."""

    @property
    def takes_levels(self) -> bool:
        """Whether the response can be a factor."""

    def in_support(self, y: Array) -> Array:
        """Which values the response can take."""

    def varying(self, y: Array) -> Array:
        """Those of its values that must not all be the same."""


def check(family: Supported, response: Response) -> None:
    """Refuse responses outside the support.

    Raises
    ------
    ResponseError
        Naming the response, the support, the first offending row and their number.
    """
    _check_kind(family, response)
    exact = np.full(response.n_obs, True) if response.exact else response.lower == response.upper
    outside = np.zeros(response.n_obs, dtype=bool)
    for rows in parts(response.n_obs):
        own = exact[rows]
        outside[rows][own] = ~family.in_support(response.lower[rows][own])
    _refuse(family, response, outside, "")
    if family.circular:
        _check_arcs(family, response)
    if response.exact:
        _check_varies(family, response)
    else:
        _check_censored(family, response, exact)


def _check_kind(family: Supported, response: Response) -> None:
    if response.levels is not None and not family.takes_levels:
        raise ResponseError(
            f"{response.label!r} has the levels {', '.join(response.levels)}; "
            f"family {family.name!r} needs {family.support}"
        )
    if (response.lower.ndim > 1) != family.multivariate:
        came = f"{response.lower.shape[1:] or 'one'}".strip("(,)")
        raise ResponseError(
            f"{response.label!r} has {came} column(s); family {family.name!r} needs "
            f"{family.support}"
        )
    if family.multivariate and not response.plain:
        raise ResponseError(
            f"{response.label!r}: family {family.name!r} is multivariate; only one number a row "
            "can be censored or truncated"
        )


def _check_arcs(family: Supported, response: Response) -> None:
    """An angle is known to lie between two others, not above or below one."""
    arc = response.upper - response.lower
    if response.entry is not None or response.exit is not None or np.any(arc >= 2.0 * np.pi):
        raise ResponseError(
            f"{response.label!r}: angles have no order, so that those of family {family.name!r} "
            "are neither left nor right censored, nor truncated; give the ends of an arc shorter "
            "than 2 pi, interval(lower, upper)"
        )


def _check_varies(family: Supported, response: Response) -> None:
    values = family.varying(response.lower)
    if len(values) and np.any(np.ptp(values, axis=0) == 0):
        rows = f"{len(values)} rows"
        if len(values) < response.n_obs:
            rows += " that are not at a point mass"
        raise ResponseError(
            f"{response.label!r} is constant ({np.ravel(values)[0]:g} in all {rows}): family "
            f"{family.name!r} needs a response that varies"
        )


def _check_censored(family: Supported, response: Response, exact: Array) -> None:
    least, most = family.bounds
    lower, upper = response.lower, response.upper
    beyond = (np.isfinite(lower) & (lower < least)) | (np.isfinite(upper) & (upper > most))
    _refuse(family, response, beyond & ~exact, "a bound of ")
    empty = (upper < least if family.discrete else upper <= least) | (
        lower > most if family.discrete else lower >= most
    )
    if np.any(empty := empty & ~exact):
        row = int(np.argmax(empty))
        raise ResponseError(
            f"{response.label!r}: row {row} is censored to [{lower[row]:g}, {upper[row]:g}], where "
            f"family {family.name!r} ({family.support}) has no probability "
            f"({int(empty.sum())} of {response.n_obs} rows)"
        )
    for name, side in (
        ("right", np.isposinf(upper)),
        ("left", np.isneginf(lower) | (lower <= least)),
    ):
        if np.all(side & ~exact):
            raise ResponseError(
                f"{response.label!r}: all {response.n_obs} rows are {name} censored; without an "
                "exact or otherwise censored row the likelihood has no maximum"
            )


def _refuse(family: Supported, response: Response, outside: Array, what: str) -> None:
    rows = np.flatnonzero(outside)
    if not rows.size:
        return
    values = response.lower[rows[0]]
    if what:
        pair = (response.lower[rows[0]], response.upper[rows[0]])
        values = [bound for bound in pair if np.isfinite(bound)]
    came = ", ".join(f"{y:g}" for y in np.atleast_1d(values))
    raise ResponseError(
        f"{response.label!r}: family {family.name!r} needs {family.support}; {what}row {rows[0]} "
        f"is {came} ({rows.size} of {response.n_obs} rows are outside)"
    )
