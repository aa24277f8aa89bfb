"""What stands on the left side of a formula besides a plain expression.

    Surv(time, event)   Surv(time, event, type="left")    right (left) censored where event is 0
    Surv(entry, time, event)                              left truncated: seen from entry on
    Surv(lower, upper, type="interval2")                  bounds; missing or infinite ones are open
    Surv(time, upper, code, type="interval")              R's codes 0 right, 1 exact, 2 left, 3 both
    interval(lower, upper)                                as interval2
    cens(y, lower=, upper=)                               values at or beyond a limit are censored
    trunc(y, lower=, upper=)                              lower < y <= upper; others are not seen
    cbind(y1, y2)                                         several responses, (n_obs, d)
    cbind(successes, failures), successes / trials        of a binomial count

Limits are numbers or columns, and `y` in `trunc` may itself be a form. A missing time, event or
entry leaves the row out; a missing bound or limit is open.

References: Klein & Moeschberger (2003), Survival Analysis, section 3; Therneau & Grambsch (2000),
Modeling Survival Data, section 3 (the conventions of `Surv`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import FormulaError, ResponseError, listing
from deepregress.linalg import Array, Matrix, Vector

Evaluate = Callable[[str], Any]
"""From an expression, such as `log(time)`, to its column."""
TRIALS = "trials"
"""What a family of binomial counts knows of each row, beside the response."""
INTERVAL_CODES = {0.0: "right", 1.0: "exact", 2.0: "left", 3.0: "interval"}
SURV_TYPES = ("right", "left", "counting", "interval", "interval2")


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a form says of each row; NaN in `lower` where the row misses something.

    Parameters
    ----------
    lower, upper : array, (n_obs,) or (n_obs, d)
    entry, exit, trials : Vector or None, (n_obs,)
        As in `Response`.
    """

    lower: Matrix
    upper: Matrix
    entry: Vector | None = None
    exit: Vector | None = None
    trials: Vector | None = None

    @property
    def missing(self) -> Array:
        """Which rows miss something, (n_obs,) of bool."""
        rows = self.lower if self.lower.ndim == 1 else self.lower.sum(axis=1)
        return np.asarray(np.isnan(rows))


@dataclass(frozen=True, eq=False)
class Call:
    """A form as written: its arguments are expressions of columns.

    Parameters
    ----------
    text : str
        The whole left side.
    arguments : tuple of str
    options : dict of str to str
    evaluate : callable
        From an expression to its column.
    n_obs : int
    """

    text: str
    arguments: tuple[str, ...]
    options: dict[str, str]
    evaluate: Evaluate
    n_obs: int

    def numbers(self, place: int) -> Vector:
        """An argument as numbers, (n_obs,), NaN where it is missing."""
        return self._numbers(self.arguments[place])

    def option(self, name: str, default: str) -> str:
        """An option that is a word, such as type="interval"."""
        return self.options.get(name, default).strip("\"'")

    def limit(self, name: str, missing: float) -> Vector:
        """An option that is a number or a column, (n_obs,); `missing` where there is none."""
        if name not in self.options:
            return np.full(self.n_obs, missing)
        value = self._numbers(self.options[name])
        return np.where(np.isnan(value), missing, value)

    def check(self, form: str, *, arguments: Sequence[int], options: Sequence[str]) -> None:
        """Refuse a wrong number of arguments and unknown options."""
        unknown = [name for name in self.options if name not in options]
        if unknown:
            allowed = listing(f"{name}=" for name in options) or "none"
            raise FormulaError(f"{self.text}: unknown option {unknown[0]}=; allowed: {allowed}.")
        if len(self.arguments) not in arguments:
            raise FormulaError(f"{self.text}: {len(self.arguments)} arguments; write {form}.")

    def refuse(self, bad: Array, why: str) -> None:
        """Raise for the first of the bad rows."""
        if np.any(bad):
            raise ResponseError(
                f"{self.text}: {why} in {int(np.sum(bad))} of {self.n_obs} rows, the first is row "
                f"{int(np.argmax(bad))} (counting from 0)."
            )

    def _numbers(self, expression: str) -> Vector:
        values = self.evaluate(expression)
        if isinstance(values, pd.Categorical) or np.ndim(values) > 1:
            raise ResponseError(f"{self.text}: {expression} is not a column of numbers.")
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ResponseError(f"{self.text}: {expression} is not a column of numbers.") from error
        return np.asarray(np.broadcast_to(numbers, (self.n_obs,)))


Reader = Callable[[Call], Bounds]
_READERS: dict[str, Reader] = {}


def register_response(name: str, reader: Reader) -> None:
    """Make a call on the left side of formulas known, such as `Surv(time, event)`."""
    _READERS[name] = reader


def read_form(
    text: str, evaluate: Evaluate, n_obs: int, *, known: Sequence[str] = ()
) -> Bounds | None:
    """What the form on the left side says of each row; None of a plain expression.

    Parameters
    ----------
    text : str
        The left side of a formula.
    evaluate : callable
        From an expression to its column (n_obs, ...).
    n_obs : int
    known : sequence of str
        What the family asks for beside the response: with "trials", a ratio or two columns are a
        binomial count.

    Raises
    ------
    FormulaError
        The form is written in a way that it does not have.
    ResponseError
        Its columns contradict each other.
    """
    call = _parsed(text, evaluate, n_obs)
    if call is not None:
        name = text.partition("(")[0].strip()
        bounds = _READERS[name](call)
        counts = name == "cbind" and TRIALS in known and len(call.arguments) == 2
        return _successes(call, bounds.lower[:, 0], bounds.lower.sum(axis=1)) if counts else bounds
    ratio = _split(text, "/")
    if TRIALS in known and len(ratio) == 2:
        call = Call(text, tuple(ratio), {}, evaluate, n_obs)
        return _successes(call, call.numbers(0), call.numbers(1))
    return None


def _parsed(text: str, evaluate: Evaluate, n_obs: int) -> Call | None:
    """The call of a known form, None of anything else."""
    found = re.fullmatch(r"\s*([A-Za-z_.]\w*)\s*\((.*)\)\s*", text, flags=re.DOTALL)
    if found is None or found[1] not in _READERS:
        return None
    arguments, options = [], {}
    for part in _split(found[2], ","):
        named = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=(?!=)(.*)", part, flags=re.DOTALL)
        if named:
            options[named[1]] = named[2].strip()
        elif part.strip():
            arguments.append(part.strip())
    return Call(text, tuple(arguments), options, evaluate, n_obs)


def _split(text: str, at: str) -> list[str]:
    """Parts of an expression between separators that stand in no bracket or quotation."""
    parts, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'`":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == at and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


# -- the forms -------------------------------------------------------------------------------------


def _surv(call: Call) -> Bounds:
    call.check(
        "Surv(time, event), Surv(entry, time, event) or Surv(lower, upper, type='interval')",
        arguments=(1, 2, 3),
        options=("type",),
    )
    kind = call.option("type", "counting" if len(call.arguments) == 3 else "right")
    if kind not in SURV_TYPES:
        raise FormulaError(f"{call.text}: type must be one of {listing(SURV_TYPES)}, got {kind!r}.")
    if kind in ("interval", "interval2") and len(call.arguments) == 2:
        return _interval(replace(call, options={}))
    needed = {"interval2": 2, "interval": 3, "counting": 3}.get(kind)
    if needed not in (None, len(call.arguments)) or (needed is None and len(call.arguments) == 3):
        raise FormulaError(
            f"{call.text}: type {kind!r} takes {needed or '1 or 2'} arguments, "
            f"got {len(call.arguments)}."
        )
    if kind == "interval":
        return _coded_interval(call)
    if kind == "counting":
        return _counting(call)
    time = call.numbers(0)
    event = _event(call, 1) if len(call.arguments) == 2 else np.where(np.isnan(time), np.nan, 1.0)
    return _one_sided(time, event, kind)


def _one_sided(time: Vector, event: Vector, kind: str) -> Bounds:
    """Bounds of times that are exact where the event is 1, NaN where either is missing."""
    time = np.where(np.isnan(event), np.nan, time)
    if kind == "left":
        return Bounds(np.where(event == 0.0, -np.inf, time), time)
    return Bounds(time, np.where(event == 0.0, np.inf, time))


def _counting(call: Call) -> Bounds:
    entry, time, event = call.numbers(0), call.numbers(1), _event(call, 2)
    call.refuse(entry >= time, f"{call.arguments[0]} is not before {call.arguments[1]}")
    bounds = _one_sided(np.where(np.isnan(entry), np.nan, time), event, "right")
    return replace(bounds, entry=entry)


def _event(call: Call, place: int) -> Vector:
    """1 where the event was seen, 0 where not, NaN where that is missing."""
    name = call.arguments[place]
    values = call.evaluate(name)
    if isinstance(values, pd.Categorical):
        if len(values.categories) != 2:
            raise ResponseError(
                f"{call.text}: the event {name} has {len(values.categories)} levels "
                f"({listing(str(each) for each in values.categories)}); it must have two, the "
                "second of which is the event, or be 0 and 1."
            )
        return np.where(values.codes < 0, np.nan, values.codes).astype(np.float64)
    event = call.numbers(place)
    seen = set(np.unique(event[~np.isnan(event)]).tolist())
    if seen <= {0.0, 1.0}:
        return event
    if seen <= {1.0, 2.0}:
        return event - 1.0
    raise ResponseError(
        f"{call.text}: the event {name} must be 0 (censored) and 1, or 1 (censored) and 2, or a "
        f"factor of two levels; it has the values {listing(f'{each:g}' for each in sorted(seen))}."
    )


def _interval(call: Call) -> Bounds:
    call.check("interval(lower, upper)", arguments=(2,), options=())
    lower, upper = call.numbers(0), call.numbers(1)
    nothing = np.isnan(lower) & np.isnan(upper)
    lower = np.where(np.isnan(lower), -np.inf, lower)
    upper = np.where(np.isnan(upper), np.inf, upper)
    call.refuse(lower > upper, f"{call.arguments[0]} is above {call.arguments[1]}")
    both = np.isinf(lower) & np.isinf(upper)
    call.refuse(both & ~nothing, "both bounds are infinite")
    return Bounds(np.where(nothing, np.nan, lower), upper)


def _coded_interval(call: Call) -> Bounds:
    """R's type="interval": the second time counts where the code is 3."""
    time, second, code = (call.numbers(place) for place in range(3))
    call.refuse(
        ~np.isin(code, list(INTERVAL_CODES)) & ~np.isnan(code),
        f"{call.arguments[2]} is not 0 (right), 1 (exact), 2 (left) or 3 (interval censored)",
    )
    call.refuse((code == 3) & (time > second), f"{call.arguments[0]} is above {call.arguments[1]}")
    missing = np.isnan(code) | np.isnan(time) | ((code == 3) & np.isnan(second))
    lower = np.where(missing, np.nan, np.where(code == 2, -np.inf, time))
    upper = np.where(code == 0, np.inf, np.where(code == 3, second, time))
    return Bounds(lower, upper)


def _cens(call: Call) -> Bounds:
    call.check("cens(y, lower=, upper=)", arguments=(1,), options=("lower", "upper"))
    if not call.options:
        raise FormulaError(f"{call.text}: give lower=, upper= or both.")
    y = call.numbers(0)
    lower, upper = call.limit("lower", -np.inf), call.limit("upper", np.inf)
    call.refuse(lower >= upper, "the lower limit is not below the upper one")
    low, high = y <= lower, y >= upper
    return Bounds(
        np.where(low, -np.inf, np.where(high, upper, y)),
        np.where(high, np.inf, np.where(low, lower, y)),
    )


def _trunc(call: Call) -> Bounds:
    call.check("trunc(y, lower=, upper=)", arguments=(1,), options=("lower", "upper"))
    if not call.options:
        raise FormulaError(f"{call.text}: give lower=, upper= or both.")
    inner = read_form(call.arguments[0], call.evaluate, call.n_obs)
    if inner is None:
        y = call.numbers(0)
        inner = Bounds(y, y)
    if inner.lower.ndim > 1 or inner.entry is not None or inner.exit is not None:
        raise FormulaError(f"{call.text}: {call.arguments[0]} cannot be truncated.")
    entry, exit_ = call.limit("lower", -np.inf), call.limit("upper", np.inf)
    call.refuse(entry >= exit_, "the lower limit is not below the upper one")
    exact = inner.lower == inner.upper
    outside = np.where(exact, inner.lower <= entry, inner.upper <= entry)
    outside |= np.where(exact, inner.upper > exit_, inner.lower >= exit_)
    call.refuse(outside, "the response is not above the lower and at or below the upper limit")
    # of a censored row only the part inside the limits is possible
    lower = np.where(exact, inner.lower, np.maximum(inner.lower, entry))
    upper = np.where(exact, inner.upper, np.minimum(inner.upper, exit_))
    return Bounds(
        np.where(inner.missing, np.nan, lower),
        upper,
        entry if "lower" in call.options else None,
        exit_ if "upper" in call.options else None,
    )


def _cbind(call: Call) -> Bounds:
    call.check("cbind(y1, y2)", arguments=range(1, 1000), options=())
    columns = []
    for expression in call.arguments:
        values = call.evaluate(expression)
        if isinstance(values, pd.Categorical):
            raise ResponseError(f"{call.text}: {expression} is not a column of numbers.")
        columns.append(np.asarray(values, dtype=np.float64).reshape(call.n_obs, -1))
    y = np.ascontiguousarray(np.hstack(columns))
    call.refuse(np.asarray(np.isinf(y).any(axis=1)), "a response is infinite")
    return Bounds(y, y)


def _successes(call: Call, successes: Vector, trials: Vector) -> Bounds:
    """A binomial count and its number of trials."""
    missing = np.isnan(successes) | np.isnan(trials)
    for name, column in (("successes", successes), ("trials", trials)):
        whole = np.isfinite(column) & (column >= 0.0) & (column == np.floor(column))
        call.refuse(~whole & ~missing, f"the number of {name} is not a count 0, 1, 2, ...")
    call.refuse(successes > trials, "there are more successes than trials")
    y = np.where(missing, np.nan, successes)
    return Bounds(y, y, trials=trials)


_FORMS: Mapping[str, Reader] = {
    "Surv": _surv,
    "interval": _interval,
    "cens": _cens,
    "trunc": _trunc,
    "cbind": _cbind,
}
for _name, _reader in _FORMS.items():
    register_response(_name, _reader)
