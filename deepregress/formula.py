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
from dataclasses import dataclass, replace
from typing import Any

from formulaic.parser.types import Token
from formulaic.transforms import TRANSFORMS

from deepregress.errors import FormulaError, NetworkError, caret, listing, suggestion
from deepregress.groups import STRATUM, group_of, members
from deepregress.remainder import expression_variables, linear, tokenise, unquoted

__all__ = [
    "BAR",
    "Call",
    "Code",
    "ParsedModel",
    "ParsedPredictor",
    "expand",
    "expression_variables",
    "nested",
    "parse",
]

# Name of the call that `(x | g)` stands for.
BAR = "|"
# Name of the call that says which rows share a baseline.
STRATA = "strata"


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
    intercept : bool
        Whether the intercept is a column; not where another parameter holds the constant.
    """

    parameter: str
    text: str
    linear: str
    variables: tuple[str, ...]
    calls: tuple[Call, ...]
    fixed: float | None = None
    intercept: bool = True


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
        return frozenset(self.terms) - {BAR} | frozenset(self.networks)


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
        All parameters of the family; a group of them by the name of the group.
    terms : collection of str
        Names of registered terms, such as "s".
    networks : collection of str
        Names of the user's networks, which can stand as terms.

    Returns
    -------
    ParsedModel
        A predictor for every parameter; "~ 1" where no formula was given. Formulas for single
        members of a group follow; `expand` gives each member its own.

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


def expand(
    parsed: ParsedModel, parameters: Sequence[str], *, without_intercept: Collection[str] = ()
) -> ParsedModel:
    """Give each parameter its predictor: its own formula, or else that of its group.

    Parameters
    ----------
    parsed : ParsedModel
        From `parse`, by group.
    parameters : sequence of str
        The parameters that the response asks for, such as `logits[B]`, in their order.
    without_intercept : collection of str
        Those whose constant is held by another parameter.

    Raises
    ------
    FormulaError
        A formula is for a member that the group does not have, or the formula with the response
        stands for none.

    Examples
    --------
    >>> given = {"logits": "y ~ x", "logits[C]": "~ x + z"}
    >>> parsed = parse(given, "logits", parameters=["logits"], terms=[])
    >>> full = expand(parsed, ["logits[B]", "logits[C]"])
    >>> [predictor.linear for predictor in full.predictors.values()]
    ['x', 'x + z']
    """
    for name in parsed.predictors:
        if not members(name, parameters):
            hint = suggestion(name, parameters)
            raise FormulaError(
                f"{name!r} is not a parameter of this model ({listing(parameters)}){hint or '.'}"
            )
    predictors = {}
    for name in parameters:
        given = parsed.predictors.get(name, parsed.predictors[group_of(name)])
        calls = tuple(replace(call, parameter=name) for call in given.calls)
        intercept = name not in without_intercept
        predictors[name] = replace(given, parameter=name, calls=calls, intercept=intercept)
    return replace(parsed, predictors=predictors)


def with_strata(parsed: ParsedModel, first: str, parameters: Sequence[str]) -> ParsedModel:
    """Put `strata()` of the first formula where it belongs.

    Raises
    ------
    FormulaError
        The family has no strata.
    """
    given = parsed.predictors[first]
    found = tuple(call for call in given.calls if call.name == STRATA)
    if not found:
        return parsed
    if STRATUM not in parameters:
        raise found[0].error(
            "strata() is for family='coxph'; in the transformation models a formula for "
            "'transformation' gives each stratum its own."
        )
    rest = tuple(call for call in given.calls if call.name != STRATA)
    own = parsed.predictors[STRATUM]
    moved = {
        first: replace(given, calls=rest),
        STRATUM: replace(own, calls=(*own.calls, *found)),
    }
    return replace(parsed, predictors={**parsed.predictors, **moved})


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
    if group_of(name) not in names.parameters:
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
    tildes = [token.source_start for token in tokenise(text, parameter) if token.token == "~"]
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


def _predictor(
    parameter: str, text: str, right: str, *, start: int, names: _Names
) -> ParsedPredictor:
    """Cut the registered calls out of the right side and check the linear remainder."""
    tokens = tokenise(right, parameter)
    calls: list[Call] = []
    rest = right
    for place in _called(tokens, text, start, parameter=parameter, names=names):
        first, last = tokens[place[0]], tokens[place[1]]
        span = start + first.source_start, start + last.source_end + 1
        if first is last:
            call = _call(text, span, parameter=parameter)
        else:
            call = _bar(tokens[place[0] : place[1] + 1], text, span, parameter=parameter)
        _check_summand(call, tokens, place)
        if call.label in [other.label for other in calls]:
            raise call.error(f"this term stands twice in the formula for {parameter!r}.")
        rest = _blank(rest, tokens, place)
        calls.append(call)
    remainder, variables = linear(rest, text, start, parameter=parameter, calls=names.calls)
    return ParsedPredictor(parameter, text.strip(), remainder, variables, tuple(calls))


def _called(
    tokens: Sequence[Token], text: str, start: int, *, parameter: str, names: _Names
) -> list[tuple[int, int]]:
    """Return the first and last token of each registered call and of each `(x | g)`."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    bars: dict[int, int] = {}
    for index, token in enumerate(tokens):
        if token.token == "(":  # noqa: S105
            opened.append(index)
        elif token.token == ")" and opened:  # noqa: S105
            first = opened.pop()
            if first in bars:
                found.append((first, index))
        elif token.kind is Token.Kind.OPERATOR and "|" in token.token:
            alone = token.token in (BAR, 2 * BAR) and BAR in names.terms
            if not alone or not opened or opened[-1] in bars:
                raise FormulaError(
                    f"in the formula for {parameter!r}: '|' has no meaning here; random effects "
                    f"are written (1 | g).\n{caret(text, start + token.source_start)}"
                )
            bars[opened[-1]] = index
        elif token.kind is Token.Kind.PYTHON and token.token.partition("(")[0] in names.calls:
            found.append((index, index))
    return found


def _bar(group: Sequence[Token], text: str, span: tuple[int, int], *, parameter: str) -> Call:
    """Read `(x | g)` from its tokens, brackets included: the text on both sides of the bar."""
    source = text[slice(*span)]
    bar = next(token for token in group if token.kind is Token.Kind.OPERATOR and "|" in token.token)
    at, after = (place - group[0].source_start for place in (bar.source_start, bar.source_end + 1))
    sides = source[1:at], source[after:-1]
    left, right = (" ".join(side.split()) for side in sides)
    label = f"({left} | {right})"
    return Call(BAR, (left, right), {}, label, span[0], span[1], text, parameter)


def _call(text: str, span: tuple[int, int], *, parameter: str) -> Call:
    """Read the call `name(arguments)` that stands at `span` of the formula."""
    start, stop = span
    source = text[start:stop]
    python, quoted = unquoted(source)
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


def nested(call: Call, argument: str) -> Call:
    """Read a call that stands as an argument of another, such as s(x) in grouplasso(s(x), s(z))."""
    inner = _call(argument, (0, len(argument)), parameter=call.parameter)
    return replace(inner, start=call.start, stop=call.stop, formula=call.formula)


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


def _check_summand(call: Call, tokens: Sequence[Token], place: tuple[int, int]) -> None:
    """Refuse a call that is not a summand of its own: in brackets, subtracted or multiplied."""
    first, last = place
    depth = sum(
        {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.token, 0)
        for token in tokens[:first]
        if token.kind is Token.Kind.CONTEXT
    )
    around = [tokens[i].token for i in (first - 1, last + 1) if 0 <= i < len(tokens)]
    before = tokens[first - 1].token if first else "+"
    if depth or any(token not in ("+", "-") for token in around) or before == "-":
        hint = " (an interaction with a smooth is written s(x, by=z))" if call.name == "s" else ""
        raise call.error(f"a term must be a summand of its own, between '+' signs{hint}.")


def _blank(rest: str, tokens: Sequence[Token], place: tuple[int, int]) -> str:
    """Blank a call and a '+' that joins it and has not gone with another call."""
    first, last = place
    joins = [tokens[i] for i in (first - 1, last + 1) if 0 <= i < len(tokens)]
    plus = [token for token in joins if rest[token.source_start] == "+"]
    spans = [(tokens[first].source_start, tokens[last].source_end + 1)]
    spans += [(token.source_start, token.source_end + 1) for token in plus[:1]]
    for begin, end in spans:
        rest = rest[:begin] + " " * (end - begin) + rest[end:]
    return rest
