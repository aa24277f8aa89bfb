"""What all smooth terms have in common: from a basis to a block of the design, as in mgcv.

    raw basis B(x) (n, k), penalties S      `Form.construct`, which differs between s(), te(), ...
    S <- S / (|S|_1 / |B|_inf^2)            mgcv's scaling, over all training rows, before centring
    Z with Z' sum_i B(x_i) = 0              sum-to-zero constraint, absorbed: X = B Z, Z' S Z
    S_0 = U U'                              `select=True`: U spans the null space of sum_j Z' S_j Z
    X <- diag(by) X                         numeric `by` (not centred unless it is constant)
    X <- diag(g = level) X                  factor `by`: one centred smooth per level, an ordered
                                            factor without its first level

The sums over the training rows are taken in chunks; `SmoothColumns.evaluate` needs the row alone.
Covariates are numbers, or factors, which a basis sees as positions of levels (-1: none of them).

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.4.1 and 5.6.3; Marra and Wood
2011, doi:10.1016/j.csda.2011.02.004 (`select`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepregress.basis import Basis, LevelBasis, centre, penalty_scale, row_chunks
from deepregress.data import Frame
from deepregress.errors import DataError, FormulaError, PredictionError
from deepregress.formula import Call
from deepregress.linalg import Array, Matrix, Vector
from deepregress.penalty import Quadratic
from deepregress.terms import options
from deepregress.terms.base import (
    ColumnBlock,
    Columns,
    PenaltySpec,
    Term,
    array,
    codes,
    name_option,
    numbers,
)

# Options of every smooth term.
COMMON = ("by", "df", "sp", "fx", "select", "id")
# Largest design of a smooth that has columns for every level of a factor, in bytes.
LARGEST = 2 << 30
# Rows whose raw basis is held at once while sums over the training rows are taken.
_CHUNK_ROWS = 16384
_CHUNK_ELEMENTS = 1 << 24

Levels = tuple[Any, ...]


class Form(ABC):
    """What kind of smooth it is: how its basis is built and what is done to the basis.

    `centred`: whether the sum-to-zero constraint applies. `scaled`: whether penalties are scaled
    as in mgcv. `nested`: whether columns that earlier terms span are dropped. `new_levels`:
    whether rows of levels without training rows are allowed, and have an effect of zero.
    `grouping`: covariates that are factors also where they hold numbers.
    """

    centred: bool = True
    scaled: bool = True
    nested: bool = True
    new_levels: bool = False
    grouping: tuple[str, ...] = ()

    def axes(self, frame: Frame, covariates: Sequence[str], label: str) -> dict[str, Levels | None]:
        """Return the covariates in the order of the basis: levels of factors, None for numbers."""
        return dict.fromkeys(covariates)

    @abstractmethod
    def construct(self, x: Matrix, levels: Sequence[Levels | None], label: str) -> Basis:
        """Construct the raw basis from the covariates of the training rows, (n, d)."""

    def names(
        self, basis: Basis, covariates: Sequence[str], levels: Sequence[Levels | None]
    ) -> tuple[str, ...]:
        """Return what follows the label in the names of the coefficients; () for numbers."""
        return ()


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
    Z : Matrix or None
        Constraint and dropped columns: X = basis(x) Z, shape (k, n_coef); None for the identity.
    by : str
        Column that multiplies the smooth; "" for none.
    levels : tuple or None
        Levels of `by`, where it is a factor.
    level : int
        The level that the smooth is for.
    factors : tuple
        Levels of each covariate that is a factor, None for numbers.
    nested : bool
        Whether columns that earlier terms span are dropped.
    new_levels : bool
        Whether other levels of the covariates are allowed.
    widths : tuple
        Of each variable that is an array: its name and number of columns.
    """

    label: str
    covariates: tuple[str, ...]
    variables: tuple[str, ...]
    basis: Basis
    Z: Matrix | None
    by: str
    levels: Levels | None
    level: int
    factors: tuple[Levels | None, ...]
    nested: bool
    new_levels: bool
    widths: tuple[tuple[str, int], ...] = ()

    @property
    def n_coef(self) -> int:
        """Number of columns."""
        return self.basis.k if self.Z is None else self.Z.shape[1]

    def evaluate(self, frame: Frame) -> Matrix:
        """Return the columns for the rows of a frame, shape (n_obs, n_coef)."""
        if self.levels is not None:
            rows = codes(frame, self.by, self.levels) == self.level
            X = np.zeros((frame.n_obs, self.n_coef))
            if rows.any():
                X[rows] = self._smooth(frame.rows(rows))
            return X
        X = self._smooth(frame)
        if self.by:
            X *= numbers(frame, self.by, (self.by,), label=self.label)[:, None]
        return X

    def _read(self, frame: Frame) -> Matrix:
        for name, width in self.widths:
            array(frame, name, width)
        return read(
            frame, self.covariates, self.factors, self.variables, label=self.label,
            new_levels=self.new_levels,
        )  # fmt: skip

    def _smooth(self, frame: Frame) -> Matrix:
        raw = self.basis.evaluate(self._read(frame))
        return raw if self.Z is None else raw @ self.Z

    def by_level(self, frame: Frame) -> tuple[Array, Matrix] | None:
        """Return level and values of each row of a basis of levels; values are 0 where `by` is."""
        if not isinstance(self.basis, LevelBasis) or self.Z is not None:
            return None
        codes_of_rows, values = self.basis.by_level(self._read(frame))
        if self.levels is not None:
            inside = codes(frame, self.by, self.levels) == self.level
            values = np.where(inside[:, None], values, 0.0)
        elif self.by:
            values = values * numbers(frame, self.by, (self.by,), label=self.label)[:, None]
        return codes_of_rows, values

    def keep(self, columns: list[int]) -> SmoothColumns:
        """Return the recipe of some of the columns."""
        Z = np.eye(self.basis.k) if self.Z is None else self.Z
        return replace(self, Z=np.ascontiguousarray(Z[:, columns]))


@dataclass(frozen=True)
class SmoothTerm(Term):
    """A smooth function of one or more covariates: `s(x)`, `te(x, z)`, `s(g, bs="re")`, ...

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
    form : Form
        How its basis is built.
    by : str
        Column that multiplies the smooth; "" for none.
    sp : tuple of float or None
        Fixed smoothing parameters, in mgcv's scaling: () for none, else one per penalty.
    df : float or None
        Fixed effective degrees of freedom.
    fx : bool
        Whether it has no penalties.
    select : bool
        Whether its null space has a penalty too.
    shared : str
        mgcv's `id`: terms of one predictor with the same name share their smoothing parameters;
        "" for none.
    """

    label: str
    variables: tuple[str, ...]
    written: str
    covariates: tuple[str, ...]
    form: Form
    by: str = ""
    sp: tuple[float | None, ...] = ()
    df: float | None = None
    fx: bool = False
    select: bool = False
    shared: str = ""

    @property
    def crossings(self) -> tuple[tuple[str, ...], ...]:
        return (self.variables,)

    @property
    def coded(self) -> tuple[str, ...]:
        return tuple(each.strip("`") for each in self.form.grouping)

    def bind(self, frame: Frame) -> tuple[ColumnBlock, ...]:
        """Construct the basis from the training rows; one block, or one per level of `by`.

        Raises
        ------
        FormulaError
            The basis is unknown, or its options do not allow it.
        DataError
            A covariate is no number or constant, or the columns would be too many.
        """
        axes = self.form.axes(frame, self.covariates, self.written)
        x = self._training_rows(frame, axes)
        variables = options.columns(self.covariates)
        basis = self.form.construct(x, tuple(axes.values()), self.written)
        by, constant = self._by(frame)
        sums, widest = _row_statistics(basis, x)
        centred = self.form.centred and (not self.by or isinstance(by, pd.Categorical) or constant)
        Z = centre(sums) if centred else None
        penalties = self._penalties(basis, widest, Z)
        recipe = SmoothColumns(
            label=self.written,
            covariates=tuple(axes),
            variables=variables,
            basis=basis,
            Z=Z,
            by=self.by,
            levels=None,
            level=0,
            factors=tuple(axes.values()),
            nested=self.form.nested,
            new_levels=self.form.new_levels,
            widths=tuple((name, frame[name].shape[1]) for name in variables if _wide(frame, name)),
        )
        blocks = [self._block(recipe, penalties)]
        if isinstance(by, pd.Categorical):
            levels = tuple(by.categories.tolist())
            blocks = [
                self._block(replace(recipe, levels=levels, level=level), penalties)
                for level in range(1 if by.ordered else 0, len(levels))
            ]
        if isinstance(basis, LevelBasis) and not blocks[0].many_levels:
            check_memory(len(x), basis.k, self.written)
        return tuple(blocks)

    def _training_rows(self, frame: Frame, axes: Mapping[str, Levels | None]) -> Matrix:
        variables = options.columns(self.covariates)
        x = read(
            frame, tuple(axes), tuple(axes.values()), variables, label=self.written,
            error=DataError,
        )  # fmt: skip
        for j, (each, levels) in enumerate(axes.items()):
            if levels is None and len(x) and x[:, j].max() == x[:, j].min():
                raise DataError(
                    f"{self.written}: {each!r} is constant ({x[0, j]:g} in all {len(x)} rows); "
                    "a smooth needs values that differ."
                )
        return x

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

    def _penalties(self, basis: Basis, widest: Matrix, Z: Matrix | None) -> tuple[PenaltySpec, ...]:
        if self.fx:
            return ()
        found = []
        for S in basis.penalties:
            scale = penalty_scale(widest, S) if self.form.scaled else 1.0
            one = len(basis.penalties) == 1
            scaled = (
                Quadratic(S / scale, basis.k - basis.null_dim) if one else Quadratic.of(S / scale)
            )
            found.append(scaled if Z is None else scaled.project(Z))
        if self.select:
            found += null_space_penalty(found)
        if self.sp and len(self.sp) != len(found):
            raise FormulaError(
                f"{self.written}: sp needs one value for each of its {len(found)} penalties "
                f"(None where it is to be estimated), got {len(self.sp)}."
            )
        self._check_df(found)
        sp = self.sp or (None,) * len(found)
        return tuple(
            PenaltySpec(S, each, self.df, f"{self.shared}, penalty {j}" if self.shared else "")
            for j, (S, each) in enumerate(zip(found, sp, strict=True), start=1)
            if each != 0.0
        )

    def _check_df(self, penalties: Sequence[Quadratic]) -> None:
        if self.df is None or not penalties:
            return
        if len(penalties) > 1:
            raise FormulaError(
                f"{self.written}: df fixes one smoothing parameter, but this term has "
                f"{len(penalties)}; fix them by sp."
            )
        n_coef = len(penalties[0].S)
        free = n_coef - penalties[0].rank
        if not free < self.df < n_coef:
            raise FormulaError(
                f"{self.written}: df must lie between {free} (its unpenalised part) and "
                f"{n_coef} (all its coefficients), got {self.df:g}."
            )

    def _block(self, recipe: SmoothColumns, penalties: tuple[PenaltySpec, ...]) -> ColumnBlock:
        label = self.label
        if recipe.levels is not None:
            written_out = "" if label.endswith(f":{self.by}") else f":{self.by}"
            label = f"{label}{written_out}{recipe.levels[recipe.level]}"
        named = (
            self.form.names(recipe.basis, recipe.covariates, recipe.factors)
            if recipe.Z is None
            else ()
        )
        return ColumnBlock(
            label=label,
            kind="smooth",
            names=tuple(f"{label}.{name}" for name in named)
            or coefficient_names(label, recipe.n_coef),
            variables=self.variables,
            recipe=recipe,
            penalties=penalties,
            term=self.label,
        )


def term_of(call: Call, covariates: tuple[str, ...], form: Form) -> SmoothTerm:
    """Return the smooth of a call: its label, and the options that all smooths have."""
    by = name_option(call, "by") or ""
    sp = options.smoothing(call)
    df = options.number(call, "df", lambda value: value > 0, "a number > 0")
    fx, select = options.flag(call, "fx"), options.flag(call, "select")
    if sp and df is not None:
        raise call.error("sp and df both fix the smoothing parameter; give one of them.")
    if df is not None and call.kwargs.get("id") is not None:
        raise call.error("df belongs to one term; with id= fix the smoothing parameters by sp.")
    if fx and (sp or df is not None or select):
        raise call.error("fx=True leaves no penalty; give no sp, df or select with it.")
    return SmoothTerm(
        label=f"{call.name}({','.join(covariates)})" + (f":{by}" if by else ""),
        variables=options.columns(covariates, by),
        written=call.label,
        covariates=covariates,
        form=form,
        by=by,
        sp=sp,
        df=df,
        fx=fx,
        select=select,
        shared=options.identifier(call),
    )


def coefficient_names(label: str, n_coef: int) -> tuple[str, ...]:
    """Return "s(x).1", "s(x).2", ..."""
    return tuple(f"{label}.{index + 1}" for index in range(n_coef))


def read(
    frame: Frame,
    covariates: Sequence[str],
    factors: Sequence[Levels | None],
    variables: Sequence[str],
    *,
    label: str,
    new_levels: bool = False,
    error: type[DataError] | type[PredictionError] = PredictionError,
) -> Matrix:
    """Return covariates, numbers and positions of levels, shape (n_obs, d), float64."""
    x = np.empty((frame.n_obs, len(covariates)))
    for j, (each, levels) in enumerate(zip(covariates, factors, strict=True)):
        if levels is None:
            x[:, j] = numbers(frame, each, variables, label=label, error=error)
        else:
            x[:, j] = codes(frame, each.strip("`"), levels, unknown=new_levels)
    return x


def check_memory(n_obs: int, n_columns: int, label: str) -> None:
    """Refuse designs with a column per level that do not fit into memory.

    Raises
    ------
    DataError
        `n_obs * n_columns` numbers take more than 2 GiB.
    """
    if n_obs * n_columns * 8 > LARGEST:
        raise DataError(
            f"{label}: {n_obs} rows with {n_columns} columns for the levels take "
            f"{n_obs * n_columns * 8 / 2**30:.1f} GiB; {LARGEST / 2**30:g} GiB are the limit."
        )


def null_space_penalty(penalties: Sequence[Quadratic]) -> list[Quadratic]:
    """Return the penalty U U' of the null space of all penalties, or nothing where there is none.

    U (n_coef, dimension of the null space) has orthonormal columns.
    """
    wiggly = [each.S / np.linalg.norm(each.S) for each in penalties if each.rank]
    if not wiggly or all(S.ndim == 1 for S in wiggly) and (np.sum(wiggly, axis=0) > 0.0).all():
        return []
    total: Matrix = np.sum(wiggly, axis=0)
    null_dim = len(total) - Quadratic.of(total).rank
    U = np.linalg.eigh(total)[1][:, :null_dim]
    return [Quadratic(U @ U.T, null_dim)] if null_dim else []


def _wide(frame: Frame, name: str) -> bool:
    """Whether a column is an array with several numbers per row."""
    return getattr(frame[name], "ndim", 1) == 2


def _row_statistics(basis: Basis, x: Matrix) -> tuple[Vector, Matrix]:
    """Return the sums (k,) of the raw columns and the row (1, k) with the largest 1-norm.

    Of a basis of levels only that row's values are wanted: it has no constraint.
    """
    if isinstance(basis, LevelBasis):
        largest = [_largest_row(basis.by_level(x[part])[1]) for part in row_chunks(len(x), 10)]
        return np.zeros(0), _largest_row(np.concatenate(largest))
    sums = np.zeros(basis.k)
    widest = np.zeros((1, basis.k))
    step = max(1, min(_CHUNK_ROWS, _CHUNK_ELEMENTS // basis.k))
    for start in range(0, len(x), step):
        raw = basis.evaluate(x[start : start + step])
        sums += raw.sum(axis=0)
        widest = _largest_row(np.concatenate([widest, _largest_row(raw)]))
    return sums, widest


def _largest_row(X: Matrix) -> Matrix:
    """Return the first row (1, k) with the largest 1-norm."""
    row = int(np.argmax(np.abs(X).sum(axis=1)))
    return X[row : row + 1]
