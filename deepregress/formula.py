"""From the text of formulas to what each parameter's predictor consists of (DESIGN 3, step 1).

    "y ~ x + s(age) + deep(z)"   ->   response "y",  linear "x",  calls s(age), deep(z)

Calls whose names are registered (terms and networks) are cut out of the right side and read with
`ast`; what remains stays with formulaic, which knows coding, interactions and transforms. A cut
leaves blanks, so positions survive and errors show the formula with a caret under the place.

A formula is a string (first parameter), a dict parameter -> formula or number, or a list of
formulas whose left sides name the parameters; the response stands in exactly one of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from formulaic import Formula
from formulaic.errors import FormulaicError
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Factor, Token
from formulaic.transforms import TRANSFORMS

from deepregress.errors import FormulaError, NetworkError, caret, listing, suggestion

# Names that are values inside a transform, as in C(g, Treatment("b")), and no columns.
_VALUES = frozenset({"np", "contr", "Treatment", "Poly", "Sum", "Helmert", "Diff"})
# Transforms of formulaic whose value in a row depends on the other rows of the table.
_ROW_DEPENDENT = frozenset({"lag"})
_MARKED = re.compile("\x1b\\[[0-9;]*m")
_QUOTED = re.compile("`([^`]*)`")


@dataclass(frozen=True)
class Code:
    """An argument that is an expression, such as the column name in `by=g`."""

    text: str


@dataclass(frozen=True)
class Call:
    """One registered call on the right side of a formula, such as `s(age, k=20)`.

    Parameters
    ----------
    name : str
        Name of the term or network.
    args : tuple of str
        Positional arguments as text.
    kwargs : dict
        Keyword arguments: Python literals, or `Code` for other expressions.
    label : str
        The call as the user wrote it, without superfluous blanks.
    start, stop : int
        Where it stands in `formula`.
    formula : str
        The whole formula.
    parameter : str
        The parameter whose formula it is.
    """

    name: str
    args: tuple[str, ...]
    kwargs: dict[str, Any]
    label: str
    start: int
    stop: int
    formula: str
    parameter: str

    def error(self, message: str, kind: type[FormulaError] = FormulaError) -> FormulaError:
        """Return an error that shows the formula with carets under this call."""
        return kind(f"{self.label}: {message}\n{caret(self.formula, self.start, self.stop)}")


@dataclass(frozen=True)
class ParsedPredictor:
    """The right side of one parameter's formula.

    Parameters
    ----------
    parameter : str
        The parameter.
    text : str
        The formula as the user wrote it.
    linear : str
        What formulaic reads: the right side without the calls ("1" when nothing is left).
    variables : tuple of str
        Columns that the linear part names.
    calls : tuple of Call
        Registered calls in order.
    fixed : float or None
        Value of a parameter that is fixed by a number, on the scale of the parameter.
    """

    parameter: str
    text: str
    linear: str
    variables: tuple[str, ...]
    calls: tuple[Call, ...]
    fixed: float | None = None


@dataclass(frozen=True)
class ParsedModel:
    """All formulas of a model: the response and one predictor per parameter."""

    response: str
    response_variables: tuple[str, ...]
    predictors: dict[str, ParsedPredictor]
    networks: tuple[str, ...] = ()


Formulas = str | Mapping[str, str | float] | Sequence[str]


@dataclass(frozen=True)
class _Names:
    """What may stand in the formulas besides columns."""

    parameters: tuple[str, ...]
    terms: tuple[str, ...]
    networks: tuple[str, ...]

    @property
    def calls(self) -> frozenset[str]:
        return frozenset(self.terms) | frozenset(self.networks)


def parse(
    formula: Formulas,
    first: str,
    *,
    parameters: Sequence[str],
    terms: Collection[str],
    networks: Collection[str] = (),
) -> ParsedModel:
    """Read formulas.

    Parameters
    ----------
    formula : str, dict or list
        The formulas as the user gave them.
    first : str
        The parameter that a single formula is for.
    parameters : sequence of str
        All parameters of the family.
    terms : collection of str
        Names of registered terms, such as "s".
    networks : collection of str
        Names of the user's networks, which can stand as terms.

    Returns
    -------
    ParsedModel
        A predictor for every parameter; "~ 1" where no formula was given.

    Raises
    ------
    FormulaError
        The formulas cannot be read; the message says where.

    Examples
    --------
    >>> model = parse("y ~ x + s(z)", "loc", parameters=["loc", "scale"], terms=["s"])
    >>> model.response, model.predictors["loc"].linear, model.predictors["scale"].linear
    ('y', 'x', '1')
    """
    names = _Names(tuple(parameters), tuple(terms), tuple(networks))
    clash = sorted(set(names.networks) & (set(names.terms) | set(TRANSFORMS)))
    if clash:
        raise NetworkError(f"networks: {clash[0]!r} is the name of a term or function already.")
    response: list[tuple[str, str, str]] = []
    predictors = {name: ParsedPredictor(name, "~ 1", "1", (), ()) for name in names.parameters}
    for parameter, text in _per_parameter(formula, first, names):
        if isinstance(text, str):
            text = re.sub(r"\s", " ", text)  # carets need one line
            left, right, start = _sides(text, parameter)
            if left:
                response.append((parameter, left, text))
            predictors[parameter] = _predictor(parameter, text, right, start=start, names=names)
        else:
            value = float(text)
            predictors[parameter] = ParsedPredictor(parameter, f"{value:g}", "0", (), (), value)
    left = _one_response(response, formula)
    return ParsedModel(left, expression_variables(left), predictors, names.networks)


def _per_parameter(formula: Formulas, first: str, names: _Names) -> list[tuple[str, str | float]]:
    """Return (parameter, formula) pairs."""
    if isinstance(formula, str):
        return [(first, formula)]
    if isinstance(formula, Mapping):
        for parameter, text in formula.items():
            _check_parameter(parameter, names)
            if isinstance(text, bool) or not isinstance(text, (str, int, float)):
                raise FormulaError(
                    f"the formula for {parameter!r} must be a string or a number, got {text!r}."
                )
        return list(formula.items())
    if not isinstance(formula, Sequence) or not all(isinstance(text, str) for text in formula):
        raise FormulaError(
            "formula must be a string, a dict parameter -> formula or a list of strings, "
            f"got {type(formula).__name__}."
        )
    return list(_from_list(formula, first, names))


def _from_list(formulas: Sequence[str], first: str, names: _Names) -> list[tuple[str, str]]:
    """Return (parameter, formula) pairs of a list such as ["y ~ x", "scale ~ z"]."""
    pairs: list[tuple[str, str]] = []
    for index, text in enumerate(formulas):
        left, right, start = _sides(text, first)
        if index == 0:
            pairs.append((first, text))
            continue
        if not left:
            raise FormulaError(
                f"formula {index + 1} of the list has no left side: {text!r}; it must name one of "
                f"the parameters {listing(names.parameters)}."
            )
        _check_parameter(left, names)
        if left in [parameter for parameter, _ in pairs]:
            raise FormulaError(f"the list has two formulas for {left!r}.")
        pairs.append((left, " " * (start - 1) + "~" + right))
    return pairs


def _check_parameter(name: str, names: _Names) -> None:
    if name not in names.parameters:
        hint = suggestion(name, names.parameters)
        raise FormulaError(
            f"{name!r} is not a parameter of this family ({listing(names.parameters)}){hint or '.'}"
        )


def _one_response(found: list[tuple[str, str, str]], formula: Formulas) -> str:
    if not found:
        right = formula.replace("~", " ").strip() if isinstance(formula, str) else "x"
        raise FormulaError(
            f"no formula has a response on its left side; write 'y ~ {right or 'x'}'."
        )
    if len(found) > 1:
        where = listing(f"{text!r} (for {parameter!r})" for parameter, _, text in found)
        raise FormulaError(f"the response must stand in one formula only, but stands in {where}.")
    return found[0][1]


def _sides(text: str, parameter: str) -> tuple[str, str, int]:
    """Return the left side, the right side and where the right side starts."""
    tildes = [token.source_start for token in _tokens(text, parameter) if token.token == "~"]
    if not tildes:
        return "", text, 0
    if len(tildes) > 1:
        raise FormulaError(
            f"the formula for {parameter!r} has more than one '~'.\n{caret(text, tildes[1])}"
        )
    start = tildes[0] + 1
    if not text[start:].strip():
        raise FormulaError(
            f"nothing follows '~' in the formula for {parameter!r}; write '~ 1' for an intercept."
            f"\n{caret(text, tildes[0])}"
        )
    return " ".join(text[: start - 1].split()), text[start:], start


def _tokens(text: str, parameter: str) -> list[Token]:
    try:
        return list(tokenize(text))
    except FormulaicError as error:
        raise _syntax_error(error, text, 0, parameter) from error


def _syntax_error(error: Exception, text: str, offset: int, parameter: str) -> FormulaError:
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


def _predictor(
    parameter: str, text: str, right: str, *, start: int, names: _Names
) -> ParsedPredictor:
    """Cut the registered calls out of the right side and check the linear remainder."""
    tokens = _tokens(right, parameter)
    calls: list[Call] = []
    rest = right
    for index, token in enumerate(tokens):
        if token.kind is Token.Kind.OPERATOR and "|" in token.token:
            raise FormulaError(
                f"in the formula for {parameter!r}: '|' has no meaning here."
                f"\n{caret(text, start + token.source_start)}"
            )
        name = token.token.partition("(")[0]
        if token.kind is Token.Kind.PYTHON and name in names.calls:
            first, last = start + token.source_start, start + token.source_end + 1
            call = _call(text, (first, last), parameter=parameter)
            _check_summand(call, tokens, index)
            if call.label in [other.label for other in calls]:
                raise call.error(f"this term stands twice in the formula for {parameter!r}.")
            rest = _blank(rest, tokens, index)
            calls.append(call)
    linear, variables = _linear(rest, text, start, parameter=parameter, names=names)
    return ParsedPredictor(parameter, text.strip(), linear, variables, tuple(calls))


def _call(text: str, span: tuple[int, int], *, parameter: str) -> Call:
    """Read the call `name(arguments)` that stands at `span` of the formula."""
    start, stop = span
    source = text[start:stop]
    python, quoted = _unquoted(source)
    try:
        node = ast.parse(python, mode="eval").body
    except SyntaxError as error:
        place = caret(text, start + max(0, (error.offset or 1) - 1))
        raise FormulaError(f"in the formula for {parameter!r}: {error.msg}.\n{place}") from error
    starred = [each for each in getattr(node, "keywords", ()) if each.arg is None]
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or starred:
        raise FormulaError(
            f"in the formula for {parameter!r}: {source!r} is no term; a term is written "
            f"name(column, option=value).\n{caret(text, start, stop)}"
        )
    kwargs = {str(each.arg): _literal(each.value, quoted) for each in node.keywords}
    args = tuple(_source(arg, quoted) for arg in node.args)
    label = _source(node, quoted)
    return Call(node.func.id, args, kwargs, label, start, stop, text, parameter)


def _source(node: ast.expr, quoted: Mapping[str, str]) -> str:
    """Return the normalised text of a node, with its names in backticks again."""
    text = ast.unparse(node)
    for written, name in quoted.items():
        text = re.sub(rf"\b{written}\b", name if name.isidentifier() else f"`{name}`", text)
    return text


def _literal(node: ast.expr, quoted: Mapping[str, str]) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Code(_source(node, quoted))


def _check_summand(call: Call, tokens: list[Token], index: int) -> None:
    """Refuse a call that is not a summand of its own: in brackets, subtracted or multiplied."""
    depth = sum(
        {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.token, 0)
        for token in tokens[:index]
        if token.kind is Token.Kind.CONTEXT
    )
    around = [tokens[i].token for i in (index - 1, index + 1) if 0 <= i < len(tokens)]
    before = tokens[index - 1].token if index else "+"
    if depth or any(token not in ("+", "-") for token in around) or before == "-":
        hint = " (an interaction with a smooth is written s(x, by=z))" if call.name == "s" else ""
        raise call.error(f"a term must be a summand of its own, between '+' signs{hint}.")


def _blank(rest: str, tokens: list[Token], index: int) -> str:
    """Blank a call and a '+' that joins it and has not gone with another call."""
    joins = [tokens[i] for i in (index - 1, index + 1) if 0 <= i < len(tokens)]
    plus = [token for token in joins if rest[token.source_start] == "+"]
    for token in [tokens[index], *plus[:1]]:
        first, last = token.source_start, token.source_end + 1
        rest = rest[:first] + " " * (last - first) + rest[last:]
    return rest


def _linear(
    rest: str, text: str, start: int, *, parameter: str, names: _Names
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
        raise _syntax_error(error, text, start, parameter) from error
    _check_repeated(rest, text, start, parameter=parameter)
    variables: dict[str, None] = {}
    for factor in (factor for term in terms for factor in term.factors):
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            variables[str(factor.expr)] = None
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            _check_functions(str(factor.expr), (text, start, parameter), names=names)
            variables.update(dict.fromkeys(expression_variables(str(factor.expr))))
    return " ".join(rest.split()), tuple(variables)


def _check_repeated(rest: str, text: str, start: int, *, parameter: str) -> None:
    """Refuse a summand that is written twice."""
    seen: set[str] = set()
    summand: list[Token] = []
    depth = 0
    for token in [*_tokens(rest, parameter), Token("+", kind="operator")]:
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


def _check_functions(expression: str, place: tuple[str, int, str], *, names: _Names) -> None:
    """Refuse unknown functions, terms inside functions, and functions of other rows."""
    text, start, parameter = place
    for node in ast.walk(_parse(expression)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            raise _at("^", text, start, f"'^' is no power inside {expression}; write '**'.")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name = node.func.id
        if name in names.calls:
            raise _at(name, text, start, f"the term {name}() cannot stand inside {expression}.")
        if name in _ROW_DEPENDENT:
            message = f"{name}() depends on other rows, which a prediction does not have."
            raise _at(name, text, start, message)
        if name not in TRANSFORMS:
            hint = suggestion(name, [*names.calls, *TRANSFORMS])
            message = f"unknown term or function {name!r} in the formula for {parameter!r}"
            hint = hint or f"; the terms are {listing(sorted(names.calls))}."
            raise _at(name, text, start, message + hint)


def _at(part: str, text: str, start: int, message: str) -> FormulaError:
    """Return an error with carets under `part`, a function or sign on the right side."""
    pattern = rf"\b{part}(?=\s*\()" if part.isidentifier() else re.escape(part)
    found = re.compile(pattern).search(text, start)
    return FormulaError(f"{message}\n{caret(text, *found.span())}" if found else message)


def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(_unquoted(expression)[0], mode="eval").body
    except SyntaxError as error:
        raise FormulaError(
            f"{expression}: {error.msg}.\n{caret(expression, max(0, (error.offset or 1) - 1))}"
        ) from error


def _unquoted(text: str) -> tuple[str, dict[str, str]]:
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
    quoted = _unquoted(expression)[1]
    tree = _parse(expression)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = dict.fromkeys(
        quoted.get(node.id, node.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in called and node.id not in _VALUES
    )
    return tuple(found)
