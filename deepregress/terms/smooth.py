"""Smooth terms `s(x)`, as mgcv builds them (METHODS 2).

    raw basis B(x) (n, k), penalties S      basis.construct
    S <- S / (|S|_1 / |B|_inf^2)            mgcv's scaling, over all training rows, before centring
    Z with Z' sum_i B(x_i) = 0              sum-to-zero constraint, absorbed: X = B Z, Z' S Z
    X <- diag(by) X                         numeric `by` (not centred unless it is constant)
    X <- diag(g = level) X                  factor `by`: one centred smooth per level, an ordered
                                            factor without its first level

The sums over the training rows are taken in chunks; `SmoothColumns.evaluate` needs the row alone.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.4.1 and 5.6.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.basis import Basis, centre, construct, penalty_scale
from deepregress.data import Frame
from deepregress.errors import DataError, FormulaError
from deepregress.formula import Call, expression_variables
from deepregress.linalg import Matrix, Vector
from deepregress.penalty import Quadratic
from deepregress.terms.base import (
    ColumnBlock,
    Columns,
    PenaltySpec,
    Term,
    codes,
    name_option,
    numbers,
    options,
    register,
)

_OPTIONS = ("k", "bs", "by", "m", "df", "sp", "knots")
# Rows whose raw basis is held at once while sums over the training rows are taken.
_CHUNK_ROWS = 16384


@dataclass(frozen=True, eq=False)
class SmoothColumns(Columns):
    """Recipe of one smooth: basis, constraint and `by`.

    Parameters
    ----------
    label : str
        The term, for messages.
    covariates : tuple of str
        Expressions that are smoothed, such as "age".
    variables : tuple of str
        Columns of the table that they name.
    basis : Basis
        The raw basis.
    Z : Matrix
        Constraint and dropped columns: X = basis(x) Z, shape (k, n_coef).
    by : str
        Column that multiplies the smooth; "" for none.
    levels : tuple or None
        Levels of `by`, where it is a factor.
    level : int
        The level that the smooth is for.
    """

    label: str
    covariates: tuple[str, ...]
    variables: tuple[str, ...]
    basis: Basis
    Z: Matrix
    by: str
    levels: tuple[Any, ...] | None
    level: int

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the columns for the rows of a frame, shape (n_obs, n_coef)."""
        if self.levels is not None:
            rows = codes(frame, self.by, self.levels) == self.level
            X = np.zeros((frame.n_obs, self.Z.shape[1]))
            if rows.any():
                X[rows] = self._smooth(frame.rows(rows))
            return X
        X = self._smooth(frame)
        if self.by:
            X *= numbers(frame, self.by, (self.by,), label=self.label)[:, None]
        return X

    def _smooth(self, frame: Frame) -> Matrix:
        x = [numbers(frame, each, self.variables, label=self.label) for each in self.covariates]
        return self.basis.evaluate(x[0] if len(x) == 1 else np.column_stack(x)) @ self.Z

    def keep(self, columns: list[int]) -> SmoothColumns:
        """Return the recipe of some of the columns."""
        return SmoothColumns(
            self.label,
            self.covariates,
            self.variables,
            self.basis,
            np.ascontiguousarray(self.Z[:, columns]),
            self.by,
            self.levels,
            self.level,
        )


@dataclass(frozen=True)
class SmoothTerm(Term):
    """`s(x, k=, bs=, by=, m=, df=, sp=, knots=)`: a smooth function of one or more covariates.

    Parameters
    ----------
    label : str
        mgcv's label: "s(x)", "s(x):z" with `by=z`.
    variables : tuple of str
        Columns of the table that it names, `by` included.
    written : str
        The term as the user wrote it, for messages.
    covariates : tuple of str
        Expressions that are smoothed.
    by : str
        Column that multiplies the smooth; "" for none.
    bs, k, m, knots
        Options of `basis.construct`.
    sp : float or None
        Fixed smoothing parameter, in mgcv's scaling.
    df : float or None
        Fixed effective degrees of freedom.
    """

    label: str
    variables: tuple[str, ...]
    written: str
    covariates: tuple[str, ...]
    by: str
    bs: str
    k: int | None
    m: int | tuple[int, ...] | None
    knots: tuple[Any, ...] | None
    sp: float | None
    df: float | None

    def bind(self, frame: Frame) -> tuple[ColumnBlock, ...]:
        """Construct the basis from the training rows; one block, or one per level of `by`.

        Raises
        ------
        FormulaError
            The basis is unknown, or k, m, knots or df do not allow it.
        DataError
            A covariate is no number or constant.
        """
        x = self._covariates(frame)
        basis = construct(self.bs, x, k=self.k, m=self.m, knots=self._knots(), label=self.written)
        sums, widest = _row_statistics(basis, x)
        by, constant = self._by(frame)
        centred = not self.by or isinstance(by, pd.Categorical) or constant
        Z = centre(sums) if centred else np.eye(basis.k)
        penalties = self._penalties(basis, widest, Z)
        if not isinstance(by, pd.Categorical):
            return (self._block(basis, Z, penalties, levels=None, level=0),)
        levels = tuple(by.categories.tolist())
        return tuple(
            self._block(basis, Z, penalties, levels=levels, level=level)
            for level in range(1 if by.ordered else 0, len(levels))
        )

    def _covariates(self, frame: Frame) -> Matrix:
        names = [name for name in self.variables if name != self.by or name in self.covariates]
        columns = []
        for each in self.covariates:
            x = numbers(frame, each, names, label=self.written, error=DataError)
            if x.size and x.max() == x.min():
                raise DataError(
                    f"{self.written}: {each!r} is constant ({x[0]:g} in all {len(x)} rows); "
                    "a smooth needs values that differ."
                )
            columns.append(x)
        return columns[0] if len(columns) == 1 else np.column_stack(columns)

    def _knots(self) -> Matrix | None:
        if self.knots is None:
            return None
        try:
            return np.asarray(self.knots, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise FormulaError(f"{self.written}: knots must be numbers.") from error

    def _by(self, frame: Frame) -> tuple[pd.Categorical | Vector | None, bool]:
        """Return the by-variable and whether it is a constant number."""
        if not self.by:
            return None, False
        values = frame[self.by]
        if isinstance(values, pd.Categorical):
            return values, False
        by = numbers(frame, self.by, (self.by,), label=self.written, error=DataError)
        constant = bool(by.max() == by.min())
        if constant and by[0] == 0.0:
            raise DataError(f"{self.written}: by={self.by} is 0 in all rows.")
        return by, constant

    def _penalties(self, basis: Basis, widest: Matrix, Z: Matrix) -> tuple[PenaltySpec, ...]:
        specs = []
        for S in basis.penalties:
            scaled = Quadratic(S / penalty_scale(widest, S), basis.k - basis.null_dim)
            specs.append(PenaltySpec(scaled.project(Z), self.sp, self.df))
        if self.df is not None and specs:
            n_coef = Z.shape[1]
            free = n_coef - specs[0].penalty.rank
            if not free < self.df < n_coef:
                raise FormulaError(
                    f"{self.written}: df must lie between {free} (its unpenalised part) and "
                    f"{n_coef} (all its coefficients), got {self.df:g}."
                )
        return tuple(specs)

    def _block(
        self,
        basis: Basis,
        Z: Matrix,
        penalties: tuple[PenaltySpec, ...],
        *,
        levels: tuple[Any, ...] | None,
        level: int,
    ) -> ColumnBlock:
        label = self.label
        if levels is not None:
            written_out = "" if label.endswith(f":{self.by}") else f":{self.by}"
            label = f"{label}{written_out}{levels[level]}"
        names = tuple(
            dict.fromkeys(name for e in self.covariates for name in expression_variables(e))
        )
        return ColumnBlock(
            label=label,
            kind="smooth",
            names=coefficient_names(label, Z.shape[1]),
            variables=self.variables,
            recipe=SmoothColumns(
                self.written, self.covariates, names, basis, Z, self.by, levels, level
            ),
            penalties=penalties,
            term=self.label,
        )


def coefficient_names(label: str, n_coef: int) -> tuple[str, ...]:
    """Return "s(x).1", "s(x).2", ..."""
    return tuple(f"{label}.{index + 1}" for index in range(n_coef))


def _row_statistics(basis: Basis, x: Matrix) -> tuple[Vector, Matrix]:
    """Return the sums (k,) of the raw columns and the row (1, k) with the largest 1-norm."""
    sums = np.zeros(basis.k)
    widest = np.zeros((1, basis.k))
    for start in range(0, len(x), _CHUNK_ROWS):
        raw = basis.evaluate(x[start : start + _CHUNK_ROWS])
        sums += raw.sum(axis=0)
        size = np.abs(raw).sum(axis=1)
        row = int(np.argmax(size))
        if size[row] > np.abs(widest).sum():
            widest = raw[row : row + 1]
    return sums, widest


@register("s")
def smooth(call: Call) -> SmoothTerm:
    """Read `s(x, k=10, bs="tp", by=, m=, df=, sp=, knots=)`."""
    given = options(call, _OPTIONS)
    if not call.args:
        raise call.error("s() needs a covariate, such as s(x).")
    by = name_option(call, "by") or ""
    bs = given.get("bs", "tp")
    if not isinstance(bs, str):
        raise call.error(f"bs must be the name of a basis in quotes, got {_shown(bs)}.")
    sp = _number(call, "sp", lambda value: value >= 0, "a number >= 0")
    df = _number(call, "df", lambda value: value > 0, "a number > 0")
    if sp is not None and df is not None:
        raise call.error("sp and df both fix the smoothing parameter; give one of them.")
    for each in call.args:
        if not expression_variables(each):
            raise call.error(f"{each} is not a column; options have names, as in s(x, k=10).")
    names = [name for each in call.args for name in expression_variables(each)]
    label = f"s({','.join(call.args)})" + (f":{by}" if by else "")
    return SmoothTerm(
        label=label,
        variables=tuple(dict.fromkeys([*names, *([by] if by else [])])),
        written=call.label,
        covariates=call.args,
        by=by,
        bs=bs,
        k=_size(call),
        m=_order(call),
        knots=_sequence(call, "knots"),
        sp=sp,
        df=df,
    )


def _size(call: Call) -> int | None:
    k = call.kwargs.get("k")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int)):
        raise call.error(f"k must be a whole number, got {_shown(k)}.")
    return None if k == -1 else k  # -1 is mgcv's way to ask for the default


def _order(call: Call) -> int | tuple[int, ...] | None:
    m = call.kwargs.get("m")
    whole = isinstance(m, int) and not isinstance(m, bool)
    several = isinstance(m, (tuple, list)) and all(type(each) is int for each in m)
    if m is not None and not whole and not several:
        raise call.error(f"m must be a whole number or several, such as (2, 2), got {_shown(m)}.")
    return tuple(m) if isinstance(m, (tuple, list)) else m


def _sequence(call: Call, option: str) -> tuple[Any, ...] | None:
    value = call.kwargs.get(option)
    if value is not None and not isinstance(value, (tuple, list)):
        raise call.error(f"{option} must be a list of numbers, got {_shown(value)}.")
    return None if value is None else tuple(value)


def _number(call: Call, option: str, allowed: Callable[[float], bool], need: str) -> float | None:
    value = call.kwargs.get(option)
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or not allowed(value):
        raise call.error(f"{option} must be {need}, got {_shown(value)}.")
    return float(value)


def _shown(value: object) -> str:
    return str(getattr(value, "text", repr(value)))
