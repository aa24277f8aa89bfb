"""What formulas ask for beyond their family and table: lags, and optional parameters (METHODS 8).

    lag(y, 1:3)         columns of the table                                     (`lags`, `series`)
    lag(h(y), 1:3)      parameters autoregression[1], ..., each with a predictor, and responses
                        past[1], ... that they are coefficients of: offsets, without estimates
    {"scale": "~ x"}    a scale in a transformation model

Reference: Ruegamer, Baumann, Kneib & Hothorn (2023), arXiv:2110.08248.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepregress.errors import FormulaError
from deepregress.families.base import Family
from deepregress.families.transformation import OPTIONAL, PAST, Transformation
from deepregress.groups import group_of, member
from deepregress.series import lags
from deepregress.series.lagged import Series, with_lags
from deepregress.series.lags import Formulas, Lags

_NAME = re.compile(r"\s*(\w+)(\[\w+\])?\s*~")


@dataclass(frozen=True, eq=False)
class Asked:
    """Formulas, table and family as a fit takes them, and the series of the lags."""

    formula: Formulas
    data: Any
    family: Family
    series: Series | None


def asked(formula: Formulas, data: Any, family: Family) -> Asked:
    """Lags as columns of the table, and the family with the parameters that formulas name.

    Raises
    ------
    FormulaError, DataError
        The lags cannot be read or have no values, or the family has no autoregression.
    """
    given, found = lags.read(formula)
    series = None
    orders: tuple[int, ...] = ()
    if found is not None:
        _check_transformed(formula, found, family)
        data, series = with_lags(data, found)
        orders = found.transformed
        given = _with_past(given, found, family.groups[0])
    if isinstance(family, Transformation):
        family = family.asked_for(_named(formula) & set(OPTIONAL), orders)
    return Asked(given, data, family, series)


def _check_transformed(formula: Formulas, found: Lags, family: Family) -> None:
    """Refuse lag(h(...)) of something else than the response, or where there is no h."""
    if not found.transformed:
        return
    if not isinstance(family, Transformation):
        raise FormulaError(
            f"lag(h({found.response}), ...): family {family.name!r} has no transformation h; "
            f"lag({found.response}, ...) is for all families."
        )
    responses = [text.partition("~")[0].strip() for text in _texts(formula).values()]
    if found.response not in responses:
        raise FormulaError(
            f"lag(h({found.response}), ...): h is the transformation of the response, which is "
            f"{responses[0] if responses else ''!r}."
        )


def _texts(formula: Formulas) -> dict[str, str]:
    """Texts by what names them; that of the first by ""."""
    if isinstance(formula, str):
        return {"": formula}
    if isinstance(formula, Mapping):
        return {name: text for name, text in formula.items() if isinstance(text, str)}
    first, *others = formula
    found = {"": first}
    for text in others:
        name = _NAME.match(text)
        found[name[1] if name else text] = text
    return found


def _named(formula: Formulas) -> set[str]:
    """Parameters that there are formulas or numbers for."""
    if isinstance(formula, Mapping):
        return {group_of(name) for name in formula}
    if not isinstance(formula, str | Sequence) or not all(isinstance(t, str) for t in formula):
        return set()
    return set(_texts(formula))


def _with_past(formula: Formulas, found: Lags, first: str) -> Formulas:
    """The formulas, and those of past responses."""
    if not found.transformed:
        return formula
    columns = [lag for lag in found.columns if lag.expression == found.response]
    names = {lag.order: lag.name for lag in columns}
    past = {member(PAST, j): f"~ offset(`{names[j]}`)" for j in found.transformed}
    if isinstance(formula, str):
        return {first: formula, **past}
    if isinstance(formula, Mapping):
        return {**formula, **past}
    return [*formula, *(f"{name} {text}" for name, text in past.items())]
