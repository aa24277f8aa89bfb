"""Lags in formulas: from `lag(y, 1:3)` to columns of the table (METHODS 8).

    y ~ x + lag(y, 1:3)       ->   y ~ x + `lag(y, 1)` + `lag(y, 2)` + `lag(y, 3)`
    s(lag(y, 1), k=8)         ->   s(`lag(y, 1)`, k=8)
    deep(lag(y, 1:3))         ->   deep(`lag(y, 1)`, `lag(y, 2)`, `lag(y, 3)`)
    lag(h(y), 1:2)            ->   autoregression of the transformed response: parameters, no column

Orders are `2`, `1:3` or `[1, 12]`; 0 is the row itself. `by=` names the column that tells series
apart and `time=` that of their times, for all lags of a model. What is lagged may be an expression,
lag(log(y), 1). The values of the columns are the matter of module `series`.

Reference: Ruegamer, Baumann, Kneib & Hothorn (2023), arXiv:2110.08248.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from formulaic.transforms import TRANSFORMS

from deepregress.errors import FormulaError, caret
from deepregress.remainder import unquoted

_CALL = re.compile(r"`[^`]*`|(?<![\w.])lag\s*\(")
_FUNCTION = re.compile(r"([A-Za-z_]\w*)\s*$")
_TRANSFORMED = re.compile(r"h\((.*)\)")
Formulas = str | Mapping[str, str | float] | Sequence[str]


@dataclass(frozen=True)
class Lag:
    """One column: an expression of the row that lies `order` steps before.

    Examples
    --------
    >>> Lag("log(y)", 2).name
    'lag(log(y), 2)'
    """

    expression: str
    order: int

    @property
    def name(self) -> str:
        """Name of the column."""
        return f"lag({self.expression}, {self.order})"


@dataclass(frozen=True)
class Lags:
    """What the lags of all formulas of a model ask for.

    Parameters
    ----------
    columns : tuple of Lag
    by, time : str or None
        Columns of the series and of their times.
    transformed : tuple of int
        Orders of `lag(h(y), ...)`.
    response : str
        What stands in it, "" where there is none.
    """

    columns: tuple[Lag, ...]
    by: str | None = None
    time: str | None = None
    transformed: tuple[int, ...] = ()
    response: str = ""

    @property
    def expressions(self) -> tuple[str, ...]:
        """What is lagged, each once."""
        return tuple(dict.fromkeys(lag.expression for lag in self.columns))

    @property
    def longest(self) -> int:
        """The highest order."""
        return max(lag.order for lag in self.columns)


@dataclass(frozen=True)
class _Written:
    """One `lag(...)` as it stands in a formula."""

    text: str
    start: int
    stop: int
    expression: str
    orders: tuple[int, ...]
    by: str | None
    time: str | None

    @property
    def transformed(self) -> str:
        """The y of `lag(h(y), ...)`, or ""."""
        found = _TRANSFORMED.fullmatch(self.expression)
        return found[1] if found else ""

    def error(self, message: str) -> FormulaError:
        return _error(self.text, (self.start, self.stop), message)


def read(formula: Formulas) -> tuple[Formulas, Lags | None]:
    """Formulas with columns in place of their lags, and what these are; None without lags.

    Raises
    ------
    FormulaError
        A lag cannot be read; the message shows where.

    Examples
    --------
    >>> read("y ~ lag(y, 1:2) + s(x)")[0]
    'y ~ `lag(y, 1)` + `lag(y, 2)` + s(x)'
    """
    found: list[_Written] = []

    def rewritten(text: str | float) -> str | float:
        if not isinstance(text, str):
            return text
        calls = _calls(text)
        found.extend(calls)
        return _rewritten(text, calls)

    if isinstance(formula, str):
        given: Formulas = str(rewritten(formula))
    elif isinstance(formula, Mapping):
        given = {name: rewritten(text) for name, text in formula.items()}
    elif isinstance(formula, Sequence) and all(isinstance(text, str) for text in formula):
        given = [str(rewritten(text)) for text in formula]
    else:
        return formula, None
    return (given, _together(found)) if found else (formula, None)


def _together(found: Sequence[_Written]) -> Lags:
    places = {}
    for name in ("by", "time"):
        named = [(getattr(each, name), each) for each in found if getattr(each, name) is not None]
        for other, each in named[1:]:
            if other != named[0][0]:
                raise each.error(f"the lags of a model have one {name}=, here is another.")
        places[name] = named[0][0] if named else None
    transformed = [each for each in found if each.transformed]
    for each in transformed[1:]:
        raise each.error("lag(h(...)) can stand once in a model; give all its orders there.")
    columns = dict.fromkeys(
        Lag(each.transformed or each.expression, order) for each in found for order in each.orders
    )
    orders = transformed[0].orders if transformed else ()
    if 0 in orders:
        raise transformed[0].error("the orders of lag(h(...)) begin with 1.")
    response = transformed[0].transformed if transformed else ""
    return Lags(tuple(columns), places["by"], places["time"], orders, response)


# -- reading ---------------------------------------------------------------------------------------


def _calls(text: str) -> list[_Written]:
    """All `lag(...)` of a formula from left to right."""
    found: list[_Written] = []
    for match in _CALL.finditer(text):
        if match[0].startswith("`"):
            continue
        stop = _closing(text, match.end() - 1)
        if found and match.start() < found[-1].stop:
            raise _error(text, (match.start(), stop), "a lag of a lag is a lag of the sum of both.")
        if "~" in text[stop:]:
            raise _error(text, (match.start(), stop), "the response has no lag().")
        found.append(_written(text, match.start(), stop, text[match.end() : stop - 1]))
    return found


def _closing(text: str, opened: int) -> int:
    """Place behind the bracket that closes the one at `opened`."""
    depth = 0
    for place in range(opened, len(text)):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise _error(text, (opened, opened + 1), "a bracket is not closed.")


def _written(text: str, start: int, stop: int, inside: str) -> _Written:
    span = (start, stop)
    arguments = _arguments(inside)
    named = dict(each.split("=", 1) for each in arguments if re.match(r"\w+\s*=[^=]", each))
    options = {name.strip(): value.strip().strip("`") for name, value in named.items()}
    plain = [each for each in arguments if not re.match(r"\w+\s*=[^=]", each)]
    unknown = set(options) - {"by", "time"}
    if not 1 <= len(plain) <= 2 or not plain[0] or unknown:
        raise _error(text, span, "a lag is written lag(y, 1:3), with by= and time= if need be.")
    try:
        expression = ast.unparse(ast.parse(unquoted(plain[0])[0], mode="eval"))
    except SyntaxError as error:
        raise _error(text, span, f"{plain[0]}: {error.msg}.") from error
    if "`" in plain[0]:
        expression = plain[0]
    orders = _orders(plain[1] if len(plain) > 1 else "1")
    if not orders:
        message = "orders are whole numbers from 0 on, such as 2, 1:3 or [1, 12]"
        raise _error(text, span, f"{message}, got {plain[1]!r}.")
    return _Written(text, start, stop, expression, orders, options.get("by"), options.get("time"))


def _arguments(inside: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for sign in inside:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _orders(text: str) -> tuple[int, ...]:
    """The orders that "2", "1:3" or "[1, 12]" stands for; none of anything else."""
    row = re.fullmatch(r"(\d+)\s*:\s*(\d+)", text)
    if row:
        return tuple(range(int(row[1]), int(row[2]) + 1))
    if re.fullmatch(r"\d+|[\[(]\s*\d+(\s*,\s*\d+)*\s*[\])]", text):
        return tuple(dict.fromkeys(int(each) for each in re.findall(r"\d+", text)))
    return ()


# -- writing ---------------------------------------------------------------------------------------


def _rewritten(text: str, calls: Sequence[_Written]) -> str:
    result, done = "", 0
    for call in calls:
        result += text[done : call.start] + _in_place(text, call)
        done = call.stop
    return result + text[done:]


def _in_place(text: str, call: _Written) -> str:
    """What stands in place of a call: columns as summands, or as arguments of a term."""
    function = _enclosing(text[: call.start])
    if call.transformed:
        if function is not None or not _summand(text, call):
            raise call.error("lag(h(...)) is a summand of its own.")
        # the parameters that it stands for have predictors of their own
        return "1"
    names = [f"`{Lag(call.expression, order).name}`" for order in call.orders]
    if function in TRANSFORMS and len(names) > 1:
        raise call.error(f"{function}() takes one order.")
    if function is not None:
        return ", ".join(names)
    return " + ".join(names) if _summand(text, call) else f"({' + '.join(names)})"


def _summand(text: str, call: _Written) -> bool:
    """Whether a call stands between plus signs or ends."""
    before, after = text[: call.start].rstrip()[-1:], text[call.stop :].lstrip()[:1]
    return before in ("", "+", "~", "(") and after in ("", "+", "-", ")")


def _enclosing(before: str) -> str | None:
    """Name of the function in whose brackets the end of a text stands; None outside of any."""
    depth = 0
    for place in range(len(before) - 1, -1, -1):
        depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(before[place], 0)
        if depth < 0:
            found = _FUNCTION.search(before[:place])
            return found[1] if found else None
    return None


def _error(text: str, span: tuple[int, int], message: str) -> FormulaError:
    return FormulaError(f"{text[slice(*span)]}: {message}\n{caret(text, *span)}")
