"""Options of smooth terms as they stand in a formula: read, checked, and refused with a caret.

Every reader takes the call and returns a plain value or None where the option is not given; what is
wrong with it is said in the user's own words. Options that depend on the data, such as a `k` above
the number of values, are checked by the bases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deepregress.errors import FormulaError
from deepregress.formula import Call, expression_variables
from deepregress.gating import SELECT, Sparsity
from deepregress.linalg import Matrix

DEFAULT_SIZE = -1  # mgcv's way to ask for the default k


def covariates(call: Call, example: str) -> tuple[str, ...]:
    """Return the arguments of a smooth, each of which names a column at least."""
    if not call.args:
        raise call.error(f"{call.name}() needs a covariate, such as {example}.")
    for each in call.args:
        if not expression_variables(each):
            raise call.error(f"{each} is not a column; options have names, as in s(x, k=10).")
    return call.args


def columns(expressions: tuple[str, ...], by: str = "") -> tuple[str, ...]:
    """Return the columns that expressions and `by` name, each once."""
    names = [name for each in expressions for name in expression_variables(each)]
    return tuple(dict.fromkeys([*names, *([by] if by else [])]))


def basis_name(call: Call) -> str:
    """Return `bs`, "tp" by default."""
    bs = call.kwargs.get("bs", "tp")
    if not isinstance(bs, str):
        raise call.error(f"bs must be the name of a basis in quotes, got {shown(bs)}.")
    return bs


def size(call: Call) -> int | None:
    """Return `k`; -1 asks for the default."""
    k = call.kwargs.get("k")
    if k is not None and not whole(k):
        raise call.error(f"k must be a whole number, got {shown(k)}.")
    return None if k == DEFAULT_SIZE else k


def order(call: Call) -> int | tuple[float, ...] | None:
    """Return `m`: a number or several."""
    return order_of(call, call.kwargs.get("m"))


def order_of(call: Call, m: object) -> int | tuple[float, ...] | None:
    """Return the order of one basis."""
    if m is None or isinstance(m, int) and not isinstance(m, bool):
        return m
    if isinstance(m, (tuple, list)) and m and all(real(each) for each in m):
        return tuple(m)
    raise call.error(f"m must be a whole number or several, such as (2, 2), got {shown(m)}.")


def per_margin(call: Call, option: str, allowed: Callable[[Any], bool], need: str) -> Any:
    """Return an option of a tensor product: one for all margins, or a tuple with one for each."""
    value = call.kwargs.get(option)
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    for each in entries:
        if each is not None and not allowed(each):
            raise call.error(f"{option} must be {need}, or one per margin, got {shown(value)}.")
    return entries if isinstance(value, (tuple, list)) else value


def sequence(call: Call, option: str) -> tuple[Any, ...] | None:
    """Return an option that is a list of numbers."""
    value = call.kwargs.get(option)
    if value is None:
        return None
    if not isinstance(value, (tuple, list)):
        raise call.error(f"{option} must be a list of numbers, got {shown(value)}.")
    return tuple(value)


def knots(given: tuple[Any, ...] | None, label: str) -> Matrix | None:
    """Return knots as numbers.

    Raises
    ------
    FormulaError
        They are none.
    """
    if given is None:
        return None
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FormulaError(f"{label}: knots must be numbers.") from error


def number(call: Call, option: str, allowed: Callable[[float], bool], need: str) -> float | None:
    """Return an option that is one number."""
    value = call.kwargs.get(option)
    if value is None:
        return None
    if not real(value) or not np.isfinite(value) or not allowed(value):
        raise call.error(f"{option} must be {need}, got {shown(value)}.")
    return float(value)


def smoothing(call: Call) -> tuple[float | None, ...]:
    """Return `sp`: one number, or one per penalty with None for those to be estimated."""
    value = call.kwargs.get("sp")
    if value is None:
        return ()
    several = value if isinstance(value, (tuple, list)) else (value,)
    for each in several:
        free = each is None and several is value
        if not free and not (real(each) and 0 <= each < np.inf):
            need = "a number >= 0" if several is not value else "numbers >= 0 or None"
            raise call.error(f"sp must be {need}, got {shown(value)}.")
    return tuple(None if each is None else float(each) for each in several)


def flag(call: Call, option: str, *, default: bool = False) -> bool:
    """Return an option that is True or False."""
    value = call.kwargs.get(option, default)
    if not isinstance(value, bool):
        raise call.error(f"{option} must be True or False, got {shown(value)}.")
    return value


def expression(text: str) -> bool:
    """Whether a text is one expression of columns, such as x or log(x), and no interaction."""
    try:
        return bool(expression_variables(text))
    except FormulaError:
        return False


def identifier(call: Call) -> str:
    """Return `id`, a number or a text; "" for none."""
    value = call.kwargs.get("id")
    if value is not None and not isinstance(value, str) and not whole(value):
        raise call.error(f"id must be a whole number or a text, got {shown(value)}.")
    return "" if value is None else f"id {value}"


def whole(value: object) -> bool:
    """Whether a value is a whole number, truth values excepted."""
    return isinstance(value, int) and not isinstance(value, bool)


def real(value: object) -> bool:
    """Whether a value is a number, truth values excepted."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Return a value as the user wrote it."""
    return str(getattr(value, "text", repr(value)))


GATE_DEPTH = 3
"""Factors of the gate of a network: the lasso (2) shrinks what matters so much that noise stays."""


def gate(call: Call, label: str) -> Sparsity | None:
    """What `select=` and `lam=` ask of the multipliers of networks: True is "bic"."""
    select = call.kwargs.get("select", False)
    lam = number(call, "lam", lambda value: value >= 0, "a number >= 0")
    if select is False and lam is None:
        return None
    criterion = "bic" if isinstance(select, bool) else select
    if criterion not in SELECT:
        allowed = ", ".join(("True", "False", *SELECT))
        raise call.error(f"select must be one of {allowed}, got {shown(select)}.")
    return Sparsity(label, (0,), (False,), lam, GATE_DEPTH, select=str(criterion), refit=True)
