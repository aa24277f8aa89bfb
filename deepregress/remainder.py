"""The text of formulas: tokens, names of columns, and the linear remainder (DESIGN 3, step 1).

What stands on the right side beside the calls of terms is read by formulaic. Here it is checked
before: what formulaic would misread, or answer with an error of its own, is refused with a caret
under the place. Tokens are formulaic's, so both see the same formula; expressions are Python's
(`ast`), where a name in backticks stands for any column.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Factor, Token
from formulaic.transforms import TRANSFORMS

from deepregress.errors import FormulaError, caret, listing, suggestion

# Names that are values inside a transform, as in C(g, Treatment("b")), and no columns.
_VALUES = frozenset({"np", "contr", "Treatment", "Poly", "Sum", "Helmert", "Diff"})
# Transforms of formulaic whose value in a row depends on the other rows of the table.
_ROW_DEPENDENT = frozenset({"lag"})
_MARKED = re.compile("\x1b\\[[0-9;]*m")
_QUOTED = re.compile("`([^`]*)`")


def tokenise(text: str, parameter: str) -> list[Token]:
    """Return formulaic's tokens of a formula.

    Raises
    ------
    FormulaError
        A bracket or quote is not closed, or a sign means nothing.
    """
    try:
        return list(tokenize(text))
    except FormulaicError as error:
        raise syntax_error(error, text, 0, parameter) from error


def syntax_error(error: Exception, text: str, offset: int, parameter: str) -> FormulaError:
    """Return formulaic's error with a caret where it marks the source it repeats."""
    message, _, source = _MARKED.sub("", str(error)).partition("\n\n")
    start, stop = source.find("\u29db"), source.find("\u29da")
    if message.startswith("Formula ended before"):
        message, start, stop = "a bracket or quote is not closed.", source.find("\u29db"), -1
        opened = re.search(r"[(\[{'\"`]", source[start + 1 :])
        start += opened.start() if opened else 0
    stop = offset + stop - 1 if stop > start else offset + start + 1
    where = f"\n{caret(text, offset + start, stop)}" if start >= 0 else ""
    return FormulaError(f"in the formula for {parameter!r}: {message}{where}")


def linear(
    rest: str, text: str, start: int, *, parameter: str, calls: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the linear remainder as formulaic reads it and the columns it names."""
    if not rest.strip():
        return "1", ()
    try:
        terms = Formula(rest)
    except SyntaxError as error:
        offset = max(start, text.find(str(error.text)))
        place = caret(text, offset + max(0, (error.offset or 1) - 1))
        raise FormulaError(f"in the formula for {parameter!r}: {error.msg}.\n{place}") from error
    except FormulaicError as error:
        if "`.` operator" in str(error):
            raise FormulaError(
                f"in the formula for {parameter!r}: '.' is not allowed; name the columns."
            ) from error
        raise syntax_error(error, text, start, parameter) from error
    _check_repeated(rest, text, start, parameter=parameter)
    variables: dict[str, None] = {}
    for factor in (factor for term in terms for factor in term.factors):
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            variables[str(factor.expr)] = None
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            _check_functions(str(factor.expr), (text, start, parameter), calls=calls)
            variables.update(dict.fromkeys(expression_variables(str(factor.expr))))
    return " ".join(rest.split()), tuple(variables)


def _check_repeated(rest: str, text: str, start: int, *, parameter: str) -> None:
    """Refuse a summand that is written twice."""
    seen: set[str] = set()
    summand: list[Token] = []
    depth = 0
    for token in [*tokenise(rest, parameter), Token("+", kind="operator")]:
        if token.kind is Token.Kind.CONTEXT:
            depth += 1 if token.token in "([" else -1
        if depth or token.token not in ("+", "-"):
            summand.append(token)
            continue
        written = " ".join(part.token for part in summand)
        if written in seen - {"", "1", "0"}:
            first, last = summand[0].source_start, summand[-1].source_end + 1
            raise FormulaError(
                f"{written}: this term stands twice in the formula for {parameter!r}.\n"
                f"{caret(text, start + first, start + last)}"
            )
        seen.add(written)
        summand = []


def _check_functions(
    expression: str, place: tuple[str, int, str], *, calls: Collection[str]
) -> None:
    """Refuse unknown functions, terms inside functions, and functions of other rows."""
    text, start, parameter = place
    for node in ast.walk(parse_expression(expression)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            raise _at("^", text, start, f"'^' is no power inside {expression}; write '**'.")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name = node.func.id
        if name in calls:
            raise _at(name, text, start, f"the term {name}() cannot stand inside {expression}.")
        if name in _ROW_DEPENDENT:
            message = f"{name}() depends on other rows, which a prediction does not have."
            raise _at(name, text, start, message)
        if name not in TRANSFORMS:
            hint = suggestion(name, [*calls, *TRANSFORMS])
            message = f"unknown term or function {name!r} in the formula for {parameter!r}"
            hint = hint or f"; the terms are {listing(sorted(calls))}."
            raise _at(name, text, start, message + hint)


def _at(part: str, text: str, start: int, message: str) -> FormulaError:
    """Return an error with carets under `part`, a function or sign on the right side."""
    pattern = rf"\b{part}(?=\s*\()" if part.isidentifier() else re.escape(part)
    found = re.compile(pattern).search(text, start)
    return FormulaError(f"{message}\n{caret(text, *found.span())}" if found else message)


def parse_expression(expression: str) -> ast.expr:
    """Return the syntax tree of an expression, its names in backticks replaced."""
    try:
        return ast.parse(unquoted(expression)[0], mode="eval").body
    except SyntaxError as error:
        raise FormulaError(
            f"{expression}: {error.msg}.\n{caret(expression, max(0, (error.offset or 1) - 1))}"
        ) from error


def unquoted(text: str) -> tuple[str, dict[str, str]]:
    """Replace names in backticks by identifiers of the same length; return text and their names."""
    names: dict[str, str] = {}

    def identifier(match: re.Match[str]) -> str:
        written = "_" + re.sub(r"\W", "_", match[1]) + "_"
        names[written] = match[1]
        return written

    return _QUOTED.sub(identifier, text), names


def expression_variables(expression: str) -> tuple[str, ...]:
    """Return the columns that an expression such as `log(x) + z` names, in order.

    Names that are called, or are values of formulaic such as `np`, are no columns.

    Examples
    --------
    >>> expression_variables("poly(log(x), 2) * z")
    ('z', 'x')
    """
    quoted = unquoted(expression)[1]
    tree = parse_expression(expression)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = dict.fromkeys(
        quoted.get(node.id, node.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in called and node.id not in _VALUES
    )
    return tuple(found)


def split_summands(text: str) -> list[str]:
    """Split "s(x1)+te(x,z)" at the plus signs outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
