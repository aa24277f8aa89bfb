"""Sparse terms: `lasso(x1, x2)`, `grouplasso(C(g), s(x))`, `elasticnet(x1, x2)` (METHODS 6).

    lasso(x1, C(g), a * b)             every column of the linear terms by itself
    lasso(X)                           every column of an array
    elasticnet(x1, x2, alpha=0.5)      alpha |c| + (1 - alpha) / 2 c^2
    grouplasso(C(g), x1 + x2, s(z))    one group per argument: a factor, columns, a smooth
    grouplasso(X, groups=5)            groups of 5 columns; or a list with the group of each
    grouplasso(..., l1=0.2)            sparse groups: a share of the penalty on single coefficients
    lasso(x1, x2, joint=True)          in several predictors (of classes, of a vector): x1 is in all
                                       or in none of those in which the term stands

Columns are standardised where the penalty is made, coefficients are those of the columns as they
are. A group with the columns of one factor, transform or smooth is measured by the sd of its
effect, which is the same for any coding. A smooth keeps its own penalty and smoothing parameter
beside the sparse one, which decides whether it is in the model (term selection); by a factor it is
one group per level. `lam` is glmnet's lambda; without it a path is fitted and `select` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deepregress.data import Frame
from deepregress.errors import DataError, FormulaError
from deepregress.formula import Call, nested
from deepregress.gating import SELECT, Sparsity
from deepregress.linalg import Matrix
from deepregress.remainder import expression_variables, linear, split_summands
from deepregress.terms import options
from deepregress.terms.base import (
    ColumnBlock,
    Columns,
    Term,
    array,
    build,
    check_options,
    register,
    registered,
)
from deepregress.terms.parametric import INTERCEPT, LinearTerm, WithoutIntercept
from deepregress.terms.smooth import SmoothTerm

_COMMON = ("lam", "select", "refit", "folds", "joint")


@dataclass(frozen=True, eq=False)
class ArrayColumns(Columns):
    """The columns of an array column (n_obs, size) of the table."""

    name: str
    size: int

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the array of the rows of a frame as float64.

        Raises
        ------
        PredictionError
            It has another number of columns than in training.
        """
        return np.asarray(array(frame, self.name, self.size), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class JoinedColumns(Columns):
    """Columns side by side."""

    parts: tuple[Columns, ...]

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the columns for the rows of a frame, shape (n_obs, n_coef)."""
        return np.concatenate([part.evaluate(frame) for part in self.parts], axis=1)


@dataclass(frozen=True)
class SparseTerm(Term):
    """Linear terms, arrays and smooths under one sparse penalty.

    Parameters
    ----------
    label : str
        Such as "lasso(x1,x2)".
    variables : tuple of str
        Columns of the table that it names.
    parameter : str
        The parameter whose formula it stands in.
    arguments : tuple of str or SmoothTerm
        Linear terms (or the name of an array) as text, and smooths.
    grouped : bool
        Whether each argument is a group, or each column.
    groups : tuple of int, int or None
        Groups of the columns of an array.
    penalty : Sparsity
        What is asked, its groups still empty.
    """

    label: str
    variables: tuple[str, ...]
    parameter: str
    arguments: tuple[str | SmoothTerm, ...]
    grouped: bool
    groups: tuple[int, ...] | int | None
    penalty: Sparsity

    def bind(self, frame: Frame) -> tuple[ColumnBlock, ...]:
        """Make one block of the linear columns and one of each smooth.

        Raises
        ------
        DataError
            A column is constant or not finite, or an array has no columns.
        FormulaError
            A term cannot be built, or `groups` does not fit the array.
        """
        parts = [
            self._part(frame, argument) for argument in self.arguments if isinstance(argument, str)
        ]
        blocks = [self._linear(parts)] if parts else []
        for argument in self.arguments:
            if isinstance(argument, SmoothTerm):
                for block in argument.bind(frame):
                    n = block.n_coef
                    asked = replace(self.penalty, groups=(0,) * n, whole=(True,) * n)
                    blocks.append(replace(block, sparsity=asked))
        return tuple(blocks)

    def _part(self, frame: Frame, argument: str) -> tuple[ColumnBlock, bool]:
        """Columns of one argument, and whether they code one effect together."""
        name = argument.strip("`")
        if name in frame and getattr(frame[name], "ndim", 1) > 1:
            return self._array(frame, name), False
        if self.groups is not None:
            raise FormulaError(
                f"{self.label}: groups= is for the columns of an array, and {argument!r} is none; "
                "explicit groups of columns are written as sums, grouplasso(x1 + x2, x3 + x4)."
            )
        variables = expression_variables(argument)
        term = LinearTerm(self.parameter, argument, variables, self.label, penalised=True)
        (block,) = term.bind(frame)
        if INTERCEPT not in block.names:
            raise FormulaError(
                f"{self.label}: write no 0 or -1 inside; the intercept is a term of its own."
            )
        found = replace(block, names=block.names[1:], recipe=WithoutIntercept(block.recipe))
        return found, len(block.terms) == 2 and found.n_coef > 1

    def _array(self, frame: Frame, name: str) -> ColumnBlock:
        values = frame[name]
        if values.ndim != 2 or values.shape[1] == 0:
            raise DataError(
                f"{self.label}: {name!r} has shape {values.shape}; an array with one row of "
                "numbers per observation, shape (n_obs, n_columns), is needed."
            )
        constant = np.flatnonzero(values.max(axis=0) == values.min(axis=0))
        if len(constant):
            raise DataError(
                f"{self.label}: column {constant[0]} of {name!r} (counting from 0) is constant."
            )
        names = tuple(f"{name}.{j + 1}" for j in range(values.shape[1]))
        return ColumnBlock(name, "sparse", names, (name,), ArrayColumns(name, len(names)))

    def _linear(self, parts: Sequence[tuple[ColumnBlock, bool]]) -> ColumnBlock:
        """The block of all linear columns and arrays."""
        names = tuple(name for part, _ in parts for name in part.names)
        groups, whole = list(range(len(names))), [False] * len(names)
        if self.grouped:
            sizes = [part.n_coef for part, _ in parts]
            groups = np.repeat(np.arange(len(parts)), sizes).tolist()
            whole = np.repeat([entire for _, entire in parts], sizes).tolist()
        if self.groups is not None:
            groups = self._array_groups(len(names), len(parts))
        return ColumnBlock(
            label=self.label,
            kind="sparse",
            names=names,
            variables=tuple(dict.fromkeys(v for part, _ in parts for v in part.variables)),
            recipe=JoinedColumns(tuple(part.recipe for part, _ in parts)),
            term=self.label,
            sparsity=replace(self.penalty, groups=tuple(groups), whole=tuple(whole)),
        )

    def _array_groups(self, n_columns: int, n_parts: int) -> list[int]:
        given = self.groups
        if n_parts > 1:
            raise FormulaError(f"{self.label}: groups= is for one array, and here are {n_parts}.")
        if isinstance(given, int):
            if n_columns % given:
                raise FormulaError(
                    f"{self.label}: {n_columns} columns are no groups of {given} each."
                )
            return [j // given for j in range(n_columns)]
        if given is None or len(given) != n_columns:
            raise FormulaError(
                f"{self.label}: groups needs the number of the group of each of the {n_columns} "
                f"columns, got {len(given or ())}."
            )
        return list(given)


@register("lasso")
def lasso(call: Call) -> SparseTerm:
    """Read `lasso(x1, x2, lam=, depth=2, select="bic")`."""
    check_options(call, (*_COMMON, "depth"))
    return _term(call, grouped=False)


@register("elasticnet")
def elasticnet(call: Call) -> SparseTerm:
    """Read `elasticnet(x1, x2, alpha=0.5, lam=, select="bic")`."""
    check_options(call, (*_COMMON, "alpha"))
    alpha = options.number(call, "alpha", lambda a: 0 <= a <= 1, "a number from 0 to 1")
    return _term(call, grouped=False, alpha=0.5 if alpha is None else alpha)


@register("grouplasso")
def grouplasso(call: Call) -> SparseTerm:
    """Read `grouplasso(C(g), x1 + x2, s(z), lam=, depth=2, l1=0, groups=, select="bic")`."""
    check_options(call, (*_COMMON, "depth", "l1", "groups"))
    l1 = options.number(call, "l1", lambda share: 0 <= share <= 1, "a share from 0 to 1")
    return _term(call, grouped=True, l1=l1 or 0.0)


def _term(call: Call, *, grouped: bool, alpha: float = 1.0, l1: float = 0.0) -> SparseTerm:
    if not call.args:
        raise call.error(f"{call.name}() needs terms, such as {call.name}(x1, x2).")
    arguments = tuple(_argument(call, each, grouped=grouped) for each in call.args)
    depth = _depth(call)
    if depth > 2 and l1 > 0:
        raise call.error("depth > 2 and l1 do not go together: l1 is for the group lasso.")
    select = call.kwargs.get("select", "bic")
    if select not in SELECT:
        raise call.error(f"select must be one of {', '.join(SELECT)}, got {options.shown(select)}.")
    folds = call.kwargs.get("folds", 10)
    if not options.whole(folds) or folds < 2:
        raise call.error(f"folds must be a whole number >= 2, got {options.shown(folds)}.")
    lam = options.number(call, "lam", lambda value: value >= 0, "a number >= 0")
    joint = options.flag(call, "joint")
    if joint and l1 > 0:
        raise call.error("joint and l1 do not go together: l1 is for single coefficients.")
    label = f"{call.name}({','.join(each.replace(' ', '') for each in call.args)})"
    names = [name for each in arguments for name in _variables(each)]
    return SparseTerm(
        label=label,
        variables=tuple(dict.fromkeys(names)),
        parameter=call.parameter,
        arguments=arguments,
        grouped=grouped,
        groups=_groups(call),
        penalty=Sparsity(
            term=label,
            groups=(),
            whole=(),
            lam=lam,
            depth=depth,
            alpha=alpha,
            l1=l1,
            select=str(select),
            folds=folds,
            refit=options.flag(call, "refit"),
            joint=joint,
        ),
    )


def _argument(call: Call, text: str, *, grouped: bool) -> str | SmoothTerm:
    """One argument: a smooth if it calls one, else linear terms, which are checked."""
    name = text.partition("(")[0]
    if name not in registered() or len(split_summands(text.replace(" ", ""))) > 1:
        linear(text, call.formula, call.start, parameter=call.parameter, calls=registered())
        if not expression_variables(text):
            raise call.error(f"{text} is not a column; options have names, as in lam=0.1.")
        return text
    inner = build(nested(call, text))
    if not isinstance(inner, SmoothTerm):
        raise call.error(f"{text}: only linear terms and smooths can stand inside.")
    if not grouped:
        raise call.error(f"{text}: the coefficients of a smooth are a group; write grouplasso().")
    if inner.shared:
        raise call.error(f"{text}: id= joins terms that are selected one by one; leave it out.")
    return inner


def _variables(argument: str | SmoothTerm) -> tuple[str, ...]:
    return (
        argument.variables if isinstance(argument, SmoothTerm) else expression_variables(argument)
    )


def _depth(call: Call) -> int:
    depth: Any = call.kwargs.get("depth", 2)
    if not options.whole(depth) or depth < 2:
        raise call.error(f"depth must be a whole number >= 2, got {options.shown(depth)}.")
    return int(depth)


def _groups(call: Call) -> tuple[int, ...] | int | None:
    given = call.kwargs.get("groups")
    if given is None or options.whole(given) and given > 0:
        return given
    if isinstance(given, (list, tuple)) and all(options.whole(each) for each in given):
        return tuple(given)
    raise call.error(
        "groups must be the size of each group or a list with the number of the group of each "
        f"column, got {options.shown(given)}."
    )
