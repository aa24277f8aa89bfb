"""Deep terms: what a network is fed with (METHODS 5, DESIGN 1).

`deep(x1, x2)` feeds a default network, `deep(photo, net="cnn")` or `cnn(photo)` a network of the
user. An argument is a column or an expression, or says itself how it is read:

    C(store)                     a factor, where the column holds numbers
    codes(store)                 a factor as the number of its level, whatever the network is
    tokens(text, max_tokens=5000, length=None)     strings as text
    image(path, size=(64, 64), grey=False)         paths of pictures, read when needed

Otherwise numbers are standardised, factors are what the network reads (`Reading`), and arrays
(n, ...) go to a user's network as they are; the default network takes arrays (n, d) as d numbers.
Which structured columns the network is made orthogonal to is decided by the design, which knows
them. With `select=True` a gate stands before each argument of the default network (module
`input_selection`), or one behind a network of the user (`selection`): what tells nothing leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError, NetworkError, listing, suggestion
from deepregress.formula import Call, Code, expression_variables, nested
from deepregress.gating import Sparsity
from deepregress.linalg import Array
from deepregress.pictures import check_files
from deepregress.reading import AS_COLUMNS, BY_DEFAULT, Reading, TextReading
from deepregress.terms.base import NetworkBlock, Term, check_options, name_option, numbers, register
from deepregress.terms.inputs import (
    AsGiven,
    Codes,
    Input,
    NetworkInputs,
    OneHot,
    PictureFiles,
    Standardised,
    StandardisedArray,
    Tokens,
)
from deepregress.terms.options import flag, gate
from deepregress.vocabulary import FIRST_WORD, Vocabulary, usual_length

READERS: Mapping[str, tuple[str, ...]] = {
    "C": (),
    "codes": (),
    "tokens": ("max_tokens", "length"),
    "image": ("size", "grey"),
}
"""Calls around a column inside a deep term, and their options."""

PICTURE_SIZE = (64, 64)

MOST_COLUMNS = 1_000
"""Strings of more different values, most of them in one row only, are no factor."""


@dataclass(frozen=True)
class Argument:
    """An argument of a deep term.

    Parameters
    ----------
    text : str
        The column or expression.
    reader : str
        One of `READERS`; "" where the column's type and the network say how it is read.
    options : dict
        Of the reader.
    """

    text: str
    reader: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class DeepTerm(Term):
    """`deep(x1, x2, net=, orthogonal_to=)`, or `photo(image, orthogonal_to=)`.

    Parameters
    ----------
    label : str
        The call without its options.
    variables : tuple of str
        Columns of the table that it names.
    arguments : tuple of Argument
    network : str
        Name of the user's network; "" for the default network.
    orthogonal_to : str or None
        The option as text.
    reading : Reading
        How the network reads columns.
    selects : bool
        Whether only inputs stay that the response depends on.
    gate : Sparsity or None
        Of the whole network, where it may leave the model.
    """

    label: str
    variables: tuple[str, ...]
    arguments: tuple[Argument, ...]
    network: str
    orthogonal_to: str | None
    reading: Reading = AS_COLUMNS
    selects: bool = False
    gate: Sparsity | None = None

    def bind(self, frame: Frame) -> tuple[NetworkBlock, ...]:
        """Learn means, standard deviations, levels, vocabularies and shapes from the training rows.

        Raises
        ------
        DataError
            A numeric column is constant, strings are no factor, or files are missing.
        NetworkError
            The default network is given an array.
        """
        inputs = tuple(self._input(frame, each) for each in self.arguments)
        recipe = NetworkInputs(self.label, inputs)
        return (
            NetworkBlock(
                label=self.label,
                variables=self.variables,
                network=self.network,
                recipe=recipe,
                orthogonal_to=self.orthogonal_to,
                gate=self.gate,
                arguments=tuple(each.text for each in self.arguments),
                selects=self.selects,
            ),
        )

    def _input(self, frame: Frame, argument: Argument) -> Input:
        name = argument.text.strip("`")
        if argument.reader:
            return self._read(frame, name, argument)
        if name in frame:
            values = frame[name]
            if isinstance(values, pd.Categorical):
                return (
                    self._tokens(name, values) if self.reading.text else self._factor(frame, name)
                )
            if values.ndim > 1:
                return self._array(name, values)
        return self._number(frame, argument.text)

    def _read(self, frame: Frame, name: str, argument: Argument) -> Input:
        """A column that is read as the formula says."""
        values = frame[name]
        if argument.reader in ("C", "codes"):
            return self._factor(frame, name, as_codes=argument.reader == "codes")
        if not isinstance(values, pd.Categorical):
            raise DataError(
                f"{self.label}: {argument.reader}() reads a column of strings, {name!r} holds "
                f"{values.dtype} values."
            )
        if argument.reader == "tokens":
            return self._tokens(name, values, TextReading(**argument.options))
        used = values.remove_unused_categories().categories
        check_files([str(path) for path in used], self.label)
        channels = 1 if argument.options.get("grey", False) else 3
        return PictureFiles(name, argument.options.get("size", PICTURE_SIZE), channels)

    def _factor(self, frame: Frame, name: str, *, as_codes: bool = False) -> OneHot | Codes:
        values = frame[name]
        if not isinstance(values, pd.Categorical):
            if values.ndim != 1:
                raise DataError(f"{self.label}: {name!r} is an array, no factor.")
            values = pd.Categorical(values)
        levels = tuple(values.categories.tolist())
        if len(levels) > MOST_COLUMNS and 2 * len(levels) > frame.n_obs:
            raise DataError(
                f"{self.label}: column {name!r} has {len(levels)} different values in "
                f"{frame.n_obs} rows, too many for a factor; text is read by networks.text() or as "
                f"tokens({name}), paths of pictures as image({name}, size=(64, 64))."
            )
        above = self.reading.embed_above
        embedded = as_codes or (above is not None and len(levels) > above)
        return Codes(name, levels) if embedded else OneHot(name, levels)

    def _tokens(
        self, name: str, values: pd.Categorical, given: TextReading | None = None
    ) -> Tokens:
        options = given or self.reading.text or TextReading()
        counts = np.bincount(values.codes, minlength=len(values.categories)).tolist()
        texts = [str(text) for text in values.categories]
        vocabulary = Vocabulary.learn(texts, counts, max_tokens=options.max_tokens)
        if not vocabulary.words:
            raise DataError(f"{self.label}: the texts in {name!r} hold no words.")
        return Tokens(name, vocabulary, options.length or usual_length(texts, counts))

    def _number(self, frame: Frame, expression: str) -> Standardised:
        variables = expression_variables(expression)
        x = numbers(frame, expression, variables, label=self.label, error=DataError)
        sd = float(x.std())
        if x.max() == x.min():
            raise DataError(
                f"{self.label}: {expression!r} is constant ({x[0]:g} in all {len(x)} rows)."
            )
        return Standardised(expression, variables, float(x.mean()), sd)

    def _array(self, name: str, values: Array) -> Input:
        if self.network:
            whole = self.reading.text is not None and values.dtype.kind in "iu"
            n_codes = int(values.max(initial=0)) + 1 if whole and values.ndim == 2 else 0
            return AsGiven(name, tuple(values.shape[1:]), n_codes)
        if values.ndim > 2:
            raise NetworkError(
                f"{self.label}: column {name!r} is an array of shape {values.shape}; the default "
                "network takes numbers, factors and arrays (n, d), so give one of your own: "
                "networks={'name': ...} and name(...) in the formula."
            )
        mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        if not sd.any():
            raise DataError(f"{self.label}: all columns of {name!r} are constant.")
        return StandardisedArray(name, mean, np.where(sd > 0, sd, 1.0))


@register("deep")
def deep(call: Call) -> DeepTerm:
    """Read `deep(x1, x2, net="name", orthogonal_to=..., select=True)`; else a user's network."""
    named = call.name != "deep"
    check_options(call, ("orthogonal_to", "select", "lam", *(() if named else ("net",))))
    if not call.args:
        raise call.error(f"{call.name}() needs a column, such as {call.name}(x).")
    network = call.name if named else name_option(call, "net") or ""
    selects = not network and flag(call, "select")
    if not network and "lam" in call.kwargs:
        raise call.error("lam is of the gate of a network of one's own, or of nam().")
    arguments = tuple(_argument(call, each) for each in call.args)
    names = dict.fromkeys(name for each in arguments for name in expression_variables(each.text))
    label = f"{call.name}({','.join(call.args)})"
    return DeepTerm(
        label=label,
        variables=tuple(names),
        arguments=arguments,
        network=network,
        orthogonal_to=_orthogonal_to(call),
        reading=AS_COLUMNS if network else BY_DEFAULT,
        selects=selects,
        gate=gate(call, label) if network else None,
    )


def narrowed(
    block: NetworkBlock, arrays: Sequence[Array | StoredArray], places: Sequence[int]
) -> tuple[NetworkBlock, tuple[Array | StoredArray, ...]]:
    """A block with the arguments at some places alone, and its arrays of the same rows."""
    recipe, kept = recipe_of(block).only(arrays, places)
    arguments = tuple(block.arguments[place] for place in places)
    out = tuple(each for each in block.arguments if each not in arguments)
    names = dict.fromkeys(name for each in arguments for name in expression_variables(each))
    smaller = replace(
        block,
        variables=tuple(names),
        recipe=recipe,
        arguments=arguments,
        left_out=(*block.left_out, *out),
    )
    return smaller, kept


def recipe_of(block: NetworkBlock) -> NetworkInputs:
    """The recipe of a deep term's inputs.

    Raises
    ------
    TypeError
        The block is of another kind of term.
    """
    if not isinstance(block.recipe, NetworkInputs):
        raise TypeError(f"{block.label} has inputs of type {type(block.recipe).__name__}")
    return block.recipe


def read_by(term: Term, readings: Mapping[str, Reading]) -> Term:
    """Return a deep term that reads columns as its network wants them."""
    if not isinstance(term, DeepTerm) or term.network not in readings:
        return term
    return replace(term, reading=readings[term.network])


def check_networks(terms: Mapping[str, Sequence[Term]], supplied: Sequence[str]) -> None:
    """Refuse networks that formulas name and nobody gave, or that were given and nobody names.

    Parameters
    ----------
    terms : dict of str to sequence of Term
        Of each parameter.
    supplied : sequence of str
        Names in `networks=`.

    Raises
    ------
    NetworkError
        The message names the network.
    """
    used = {
        term.network: parameter
        for parameter, summands in terms.items()
        for term in summands
        if isinstance(term, DeepTerm) and term.network
    }
    for name, parameter in used.items():
        if name not in supplied:
            hint = suggestion(name, supplied) or f" (which has {listing(supplied)})."
            raise NetworkError(
                f"the formula for {parameter!r} uses the network {name!r}, which is not in "
                f"networks{hint}"
            )
    for name in supplied:
        if name not in used:
            raise NetworkError(
                f"networks[{name!r}] is not used: no formula has the term {name}(...) or "
                f"deep(..., net={name!r})."
            )


def _argument(call: Call, text: str) -> Argument:
    """An argument, which may be a reader around a column."""
    name, bracket, _ = text.partition("(")
    if not bracket or name not in READERS or not text.endswith(")"):
        return Argument(text, "", {})
    inner = nested(call, text)
    options = check_options(inner, READERS[name])
    names = [each.strip("`") for each in inner.args]
    if len(names) != 1 or names != list(expression_variables(inner.args[0])):
        raise call.error(f"{name}() takes one column, such as {name}(x).")
    checked = {key: _option(call, name, key, value) for key, value in options.items()}
    return Argument(inner.args[0], name, checked)


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_whole(v, 1) for v in value)


ALLOWED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "size": ("(height, width) in pixels", _is_pair),
    "grey": ("True or False", lambda grey: isinstance(grey, bool)),
    "max_tokens": (f"a whole number > {FIRST_WORD}", lambda most: _is_whole(most, FIRST_WORD + 1)),
    "length": ("a whole number > 0", lambda length: length is None or _is_whole(length, 1)),
}
"""Option of a reader -> what it must be, and whether a value is."""


def _option(call: Call, reader: str, name: str, value: object) -> Any:
    """An option of a reader, checked."""
    wanted, allowed = ALLOWED[name]
    if not allowed(value):
        shown = value.text if isinstance(value, Code) else repr(value)
        raise call.error(f"{reader}({name}={shown}): needs {wanted}.")
    return value


def _orthogonal_to(call: Call) -> str | None:
    value = call.kwargs.get("orthogonal_to")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Code):
        return value.text
    raise call.error(f"orthogonal_to must be 'all', 'none' or labels of terms, got {value!r}.")
