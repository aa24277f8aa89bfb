"""The linear part of a predictor, through formulaic, and offsets (DESIGN 3, step 1).

formulaic codes factors, interactions and transforms; what it learns from the training rows (levels,
and the states of `poly`, `scale`, `bs`, `center`) is kept as plain data, from which the model
matrix of any rows is made again. A column that the others determine is refused: with columns of
unit length, X = Q R, the column j is dependent where

    |R_jj| < 1e-7   (the tolerance of R's lm)

Reference: Golub and Van Loan, "Matrix Computations", 4th ed. 2013, sec. 5.4 (rank by QR).
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS

from deepregress.data import Frame
from deepregress.errors import DataError, DeepRegressError, FormulaError, PredictionError, listing
from deepregress.formula import Call, ParsedPredictor, expression_variables
from deepregress.linalg import Matrix, triangular_factor
from deepregress.terms.base import (
    ColumnBlock,
    Columns,
    OffsetBlock,
    Term,
    check_options,
    codes,
    not_finite,
    numbers,
    register,
)

# R's lm calls a column dependent below this length of its part orthogonal to the earlier ones.
COLLINEAR = 1e-7
INTERCEPT = "(Intercept)"
ONLY_INTERCEPT = "1"
# A function in the formula that has the name of a column gets this prefix for formulaic, which
# would call the column otherwise.
_CALLED = "call_"


@dataclass(frozen=True, eq=False)
class LinearColumns(Columns):
    """Recipe of the linear part: formula, and what formulaic learned.

    Parameters
    ----------
    formula : str
        The linear part as formulaic reads it.
    levels : dict of str to tuple or None
        Column of the table -> its levels, None for numbers.
    names : tuple of str
        Names of the columns of X.
    transform_state : dict
        States of the stateful transforms, by expression.
    categories : dict of str to list
        Levels of coded factors, by expression.
    """

    formula: str
    levels: dict[str, tuple[Any, ...] | None]
    names: tuple[str, ...]
    transform_state: dict[str, Any]
    categories: dict[str, list[Any]]

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the model matrix of the rows, shape (n_obs, n_coef)."""
        if self.formula == ONLY_INTERCEPT:
            return np.ones((frame.n_obs, 1))
        state = {
            expression: (Factor.Kind.CATEGORICAL, {"categories": list(levels)})
            for expression, levels in self.categories.items()
        }
        spec = ModelSpec(
            formula=_formula(self.formula),
            output="numpy",
            na_action="ignore",
            transform_state=copy.deepcopy(self.transform_state),
            encoder_state=state,
        )
        matrix, spec = _materialise(spec, self._table(frame), self.formula, error=PredictionError)
        if _names(spec, self.formula, self.levels) != self.names:
            raise PredictionError(
                f"the linear part {self.formula!r} has other columns than when it was fitted."
            )
        _check_finite(matrix, spec, frame, error=PredictionError)
        return matrix

    def _table(self, frame: Frame) -> pd.DataFrame:
        """Return the columns with the levels of the training rows."""
        table = frame.pandas([name for name, levels in self.levels.items() if levels is None])
        for name, levels in self.levels.items():
            if levels is not None:
                dtype = pd.CategoricalDtype(pd.Index(levels, dtype=object))
                values = pd.Categorical.from_codes(codes(frame, name, levels), dtype=dtype)
                table[name] = values
            elif isinstance(frame[name], pd.Categorical):
                raise PredictionError(
                    f"column {name!r} held numbers when the model was fitted; now it holds "
                    f"strings or factor levels, such as {frame[name][0]!r}."
                )
        for expression, known in self.categories.items():
            _check_levels(table, expression, known)
        return table


@dataclass(frozen=True, eq=False)
class WithoutIntercept(Columns):
    """Linear columns without the first one, the intercept beside which factors were coded."""

    linear: Columns

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the columns for the rows of a frame, shape (n_obs, n_coef)."""
        return self.linear.evaluate(frame)[:, 1:]


@dataclass(frozen=True)
class LinearTerm(Term):
    """The linear part of a parameter's formula, intercept included.

    Parameters
    ----------
    parameter : str
        The parameter, for messages.
    formula : str
        What formulaic reads.
    variables : tuple of str
        Columns that it names.
    penalised : bool
        Whether columns may determine each other, because a penalty tells their effects apart.
    intercept : bool
        Whether the intercept is a column; without it factors are coded as beside one.
    """

    parameter: str
    formula: str
    variables: tuple[str, ...]
    label: str = "linear"
    penalised: bool = False
    intercept: bool = True

    @property
    def crossings(self) -> tuple[tuple[str, ...], ...]:
        return tuple(
            tuple(name for each in term.factors for name in expression_variables(str(each)))
            for term in _formula(self.formula)
        )

    @property
    def coded(self) -> tuple[str, ...]:
        factors = [str(each) for term in _formula(self.formula) for each in term.factors]
        marked = [each for each in factors if re.match(r"C\(", each)]
        return tuple(name for each in marked for name in expression_variables(each))

    @classmethod
    def of(cls, parsed: ParsedPredictor) -> LinearTerm:
        """Return the linear part of a parsed predictor."""
        return cls(parsed.parameter, parsed.linear, parsed.variables, intercept=parsed.intercept)

    def bind(self, frame: Frame) -> tuple[ColumnBlock, ...]:
        """Learn levels and states of transforms from the training rows.

        Raises
        ------
        DataError
            A column is an array, constant, not finite, or determined by the others.
        FormulaError
            A transform cannot be evaluated.
        """
        if self.formula == ONLY_INTERCEPT:
            return (self._intercept(),) if self.intercept else ()
        levels = {name: self._levels(frame, name) for name in self.variables}
        formula = _unshadowed(self.formula, self.variables)
        blank = ModelSpec(formula=_formula(formula), output="numpy", na_action="ignore")
        table = frame.pandas(self.variables)
        matrix, spec = _materialise(blank, table, formula, error=FormulaError)
        _check_finite(matrix, spec, frame, error=DataError)
        names = _names(spec, formula, levels)
        self._check_constant(matrix, names)
        if not self.penalised:
            self._check_collinear(matrix, names)
        categories = {
            str(expression): np.asarray(state["categories"], dtype=object).tolist()
            for expression, (kind, state) in spec.encoder_state.items()
            if kind is Factor.Kind.CATEGORICAL
        }
        states = copy.deepcopy(dict(spec.transform_state))
        recipe = LinearColumns(formula, levels, names, states, categories)
        self._check_row_wise(recipe, matrix, frame)
        terms = _terms(spec)
        block = ColumnBlock(
            label=self.label,
            kind="parametric",
            names=names,
            variables=self.variables,
            recipe=recipe,
            terms=terms,
            term_variables=_term_variables(spec),
            term=self.label,
        )
        return (block if self.intercept else self._without_intercept(block),)

    def _without_intercept(self, block: ColumnBlock) -> ColumnBlock:
        """Return the block without its first column, which stands in another parameter."""
        if INTERCEPT not in block.names:
            raise FormulaError(
                f"the formula for {self.parameter!r} has no intercept of its own, as another "
                "parameter holds the constant; write no 0 or -1."
            )
        return replace(
            block,
            names=block.names[1:],
            recipe=WithoutIntercept(block.recipe),
            terms={
                label: slice(index.start - 1, index.stop - 1)
                for label, index in block.terms.items()
                if label != INTERCEPT
            },
            term_variables={
                label: names for label, names in block.term_variables.items() if label != INTERCEPT
            },
        )

    def _intercept(self) -> ColumnBlock:
        """Return the block of "1", which formulaic would take milliseconds to make."""
        return ColumnBlock(
            label=self.label,
            kind="parametric",
            names=(INTERCEPT,),
            variables=(),
            recipe=LinearColumns(ONLY_INTERCEPT, {}, (INTERCEPT,), {}, {}),
            terms={INTERCEPT: slice(0, 1)},
            term_variables={INTERCEPT: ()},
            term=self.label,
        )

    def _levels(self, frame: Frame, name: str) -> tuple[Any, ...] | None:
        values = frame[name]
        if isinstance(values, pd.Categorical):
            if len(values.categories) < 2:
                raise DataError(
                    f"factor {name!r} in the formula for {self.parameter!r} has one level only: "
                    f"{values.categories[0]!r}."
                )
            return tuple(values.categories.tolist())
        if values.ndim > 1:
            raise DataError(
                f"column {name!r} in the linear part for {self.parameter!r} is an array of shape "
                f"{values.shape}; arrays are inputs of networks, such as deep({name})."
            )
        return None

    def _check_constant(self, matrix: Matrix, names: Sequence[str]) -> None:
        """Refuse constant columns beside an intercept."""
        if INTERCEPT not in names:
            return
        constant = np.flatnonzero(matrix.max(axis=0) == matrix.min(axis=0)).tolist()
        for j in constant:
            if names[j] != INTERCEPT:
                value = matrix[0, j]
                raise DataError(
                    f"{names[j]!r} in the formula for {self.parameter!r} is constant ({value:g} in "
                    f"all {len(matrix)} rows), so the intercept cannot be told from it."
                )

    def _check_collinear(self, matrix: Matrix, names: Sequence[str]) -> None:
        """Refuse a column that earlier columns determine."""
        if not names:
            return
        R = triangular_factor(matrix)
        length = np.linalg.norm(R, axis=0)
        zero = np.flatnonzero(length == 0.0).tolist()
        if zero:
            raise DataError(
                f"{names[zero[0]]!r} in the formula for {self.parameter!r} is zero in all rows."
            )
        R = R / length
        for j in range(R.shape[1]):
            if j < R.shape[0] and abs(R[j, j]) >= COLLINEAR:
                continue
            weight, *_ = scipy.linalg.lstsq(R[:, :j], R[:, j])
            found = np.flatnonzero(np.abs(weight) > 1e-6).tolist()
            others = listing(repr(names[i]) for i in found)
            raise DataError(
                f"{names[j]!r} in the formula for {self.parameter!r} is determined by {others}: "
                "their effects cannot be told apart; leave one of them out."
            )

    def _check_row_wise(self, recipe: LinearColumns, matrix: Matrix, frame: Frame) -> None:
        """Refuse expressions such as `x - np.mean(x)`, whose value depends on the other rows."""
        if "." not in self.formula:
            return
        advice = (
            "its value in a row depends on the other rows, so a prediction would too; use "
            "center(), scale() or poly(), which remember the training rows."
        )
        try:
            alone = recipe.evaluate(frame.rows(slice(0, 1)))[0]
        except PredictionError as error:
            raise FormulaError(f"the linear part {self.formula!r}: {advice}") from error
        scale = np.abs(matrix).max(axis=0)
        differs = np.flatnonzero(np.abs(alone - matrix[0]) > 1e-9 * scale).tolist()
        if differs:
            raise FormulaError(f"{recipe.names[differs[0]]}: {advice}")


@dataclass(frozen=True)
class OffsetTerm(Term):
    """`offset(log(e))`: a known part of eta, with coefficient 1."""

    label: str
    variables: tuple[str, ...]
    expression: str

    def bind(self, frame: Frame) -> tuple[OffsetBlock, ...]:
        """Check that the offset is a finite number in every training row."""
        numbers(frame, self.expression, self.variables, label=self.label, error=DataError)
        return (OffsetBlock(self.label, self.variables, self.expression),)


@register("offset")
def offset(call: Call) -> OffsetTerm:
    """Read `offset(expression)`."""
    check_options(call, ())
    if len(call.args) != 1:
        raise call.error(f"offset() takes one expression, got {len(call.args)}.")
    return OffsetTerm(call.label, expression_variables(call.args[0]), call.args[0])


@lru_cache(maxsize=256)
def _formula(text: str) -> SimpleFormula:
    return Formula(text)


def _unshadowed(text: str, variables: Sequence[str]) -> str:
    """Prefix the functions of a formula that have the name of one of its columns."""
    for name in set(variables) & set(TRANSFORMS):
        text = re.sub(rf"\b{name}(?=\s*\()", f"{_CALLED}{name}", text)
    return text


def _shown(name: str, formula: str, variables: Mapping[str, object] | Sequence[str]) -> str:
    """Return a name of formulaic as users know it."""
    if _CALLED in formula:
        for variable in variables:
            name = name.replace(f"{_CALLED}{variable}(", f"{variable}(")
    return INTERCEPT if name == "Intercept" else name


def _names(
    spec: ModelSpec, formula: str, variables: Mapping[str, object] | Sequence[str]
) -> tuple[str, ...]:
    return tuple(_shown(name, formula, variables) for name in spec.column_names)


def _terms(spec: ModelSpec) -> dict[str, slice]:
    """Return term label -> columns."""
    return {_label(term): index for term, index in spec.term_slices.items()}


def _term_variables(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return term label -> columns of the table that it reads."""
    found: dict[str, tuple[str, ...]] = {}
    for term in spec.terms:
        names: dict[str, None] = {}
        for factor in term.factors:
            if factor.eval_method is Factor.EvalMethod.LOOKUP:
                names[str(factor.expr)] = None
            elif factor.eval_method is Factor.EvalMethod.PYTHON:
                names.update(dict.fromkeys(expression_variables(str(factor.expr))))
        found[_label(term)] = tuple(names)
    return found


def _label(term: object) -> str:
    return INTERCEPT if str(term) == "1" else str(term).replace(_CALLED, "")


def _materialise(
    spec: ModelSpec, table: pd.DataFrame, formula: str, *, error: type[DeepRegressError]
) -> tuple[Matrix, ModelSpec]:
    """Return formulaic's model matrix (n_obs, n_coef) and the spec that made it."""
    context = (
        {f"{_CALLED}{name}": function for name, function in TRANSFORMS.items()}
        if _CALLED in formula
        else {}
    )
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Unknown levels are found by name before this point; a table would go on without them.
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            result = spec.get_model_matrix(table, context=context)
        except (FormulaicError, DataMismatchWarning, ValueError, TypeError) as problem:
            raise error(f"the linear part {formula!r}: {_reason(problem)}") from problem
    matrix = np.ascontiguousarray(result, dtype=np.float64)
    return matrix.reshape(len(table), -1), result.model_spec


def _reason(problem: BaseException) -> str:
    """Return the message inside formulaic's `Unable to evaluate factor ... [TypeError: ...]`."""
    text = str(problem).strip()
    inner = re.search(r"^Unable to evaluate factor `(.*)`\. \[\w+: (.*)\]$", text, re.DOTALL)
    return f"{inner[1]}: {inner[2].rstrip('.')}." if inner else f"{text.rstrip('.')}."


def _check_levels(table: pd.DataFrame, expression: str, known: Sequence[object]) -> None:
    """Refuse new values of a column that is coded by `C()`."""
    variables = [name for name in expression_variables(expression) if name in table]
    if len(variables) != 1 or isinstance(table[variables[0]].dtype, pd.CategoricalDtype):
        return
    if not re.fullmatch(rf"(call_)?C\(\s*`?{re.escape(variables[0])}`?\s*(,.*)?\)", expression):
        return
    new = ~table[variables[0]].isin(known)
    if new.any():
        levels = listing(repr(level) for level in table[variables[0]][new].unique().tolist())
        raise PredictionError(
            f"column {variables[0]!r} has levels that the model was not fitted with: {levels}; "
            f"its levels are {listing(str(level) for level in known)}."
        )


def _check_finite(
    matrix: Matrix, spec: ModelSpec, frame: Frame, *, error: type[DeepRegressError]
) -> None:
    if np.isfinite(matrix).all():
        return
    column = int(np.argmin(np.isfinite(matrix).all(axis=0)))
    variables = _term_variables(spec)
    for label, index in _terms(spec).items():
        if index.start <= column < index.stop:
            finite = np.isfinite(matrix[:, column])
            raise error(f"{label}: {not_finite(frame, finite, variables[label])}")
