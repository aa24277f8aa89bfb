"""The design of one predictor: blocks, where their columns lie, and what a network must not span.

    eta = X coef + offset + networks,    X = [linear | smooth | smooth ...]  (n_obs, n_coef)

`build_designs` binds the terms of every parameter to the training rows and makes nested terms
identifiable: in the order linear part, smooths of one covariate, of two, ..., a smooth loses the
columns that the intercept and earlier terms of the same variables already span. With columns of
unit length and [X1 X2] = Q R, as many are dropped as pivots of qr(R22) are below 1e-8, and those
that come last among the pivots of the columns as they are: those that mgcv's `gam.side` drops.

`Design.evaluate` is a function of the row alone and goes through the rows in chunks, so its memory
beyond X does not grow with them.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.6.3; DESIGN 2, METHODS 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg

from deepregress.data import Frame
from deepregress.disk.stored import StoredArray
from deepregress.errors import (
    DeepRegressWarning,
    FormulaError,
    listing,
    suggestion,
    warn,
)
from deepregress.formula import ParsedModel, ParsedPredictor
from deepregress.linalg import Array, Matrix, Vector, one_blas_thread, triangular_factor
from deepregress.model_matrix import LevelColumns, ModelMatrix
from deepregress.penalty import PlacedPenalty, joined
from deepregress.reading import Reading
from deepregress.remainder import split_summands
from deepregress.terms import build
from deepregress.terms.base import (
    Block,
    ColumnBlock,
    NetworkBlock,
    OffsetBlock,
    Term,
)
from deepregress.terms.deep import check_networks, read_by
from deepregress.terms.parametric import INTERCEPT, LinearTerm
from deepregress.terms.smooth import SmoothColumns, SmoothTerm, coefficient_names

# Rows evaluated at once: the temporaries of a chunk stay small beside the design.
CHUNK_ROWS = 32768
# Columns of unit length whose part orthogonal to earlier terms is shorter are dependent: the square
# root of the machine precision, as in mgcv.
DEPENDENT = float(np.sqrt(np.finfo(float).eps))


@dataclass(frozen=True, eq=False)
class DesignArrays:
    """The numbers of a design for some rows.

    Parameters
    ----------
    X : Matrix
        Columns that are not kept by level, shape (n_obs, n_dense), C-contiguous.
    offset : Vector
        Sum of the offsets, shape (n_obs,).
    inputs : dict of str to tuple of array
        Network label -> its inputs, each of shape (n_obs, ...).
    """

    X: Matrix
    offset: Vector
    inputs: dict[str, tuple[Array | StoredArray, ...]]
    levels: tuple[LevelColumns, ...] = ()

    @property
    def matrix(self) -> ModelMatrix:
        """All columns, those of factors with many levels by level."""
        return ModelMatrix(self.X, self.levels)


@dataclass(frozen=True, eq=False)
class Design:
    """Recipe of one predictor.

    Parameters
    ----------
    parameter : str
        The parameter of the distribution.
    blocks : tuple of Block
        Linear part first, then smooths, offsets and networks in the order of the formula.
    fixed : float or None
        Value of a parameter that is fixed, on the scale of the parameter; then there are no blocks.
    """

    parameter: str
    blocks: tuple[Block, ...]
    fixed: float | None = None

    @cached_property
    def columns(self) -> tuple[ColumnBlock, ...]:
        """Blocks with coefficients."""
        return tuple(block for block in self.blocks if isinstance(block, ColumnBlock))

    @cached_property
    def networks(self) -> tuple[NetworkBlock, ...]:
        """Blocks that feed networks."""
        return tuple(block for block in self.blocks if isinstance(block, NetworkBlock))

    @cached_property
    def offsets(self) -> tuple[OffsetBlock, ...]:
        """Known parts of eta."""
        return tuple(block for block in self.blocks if isinstance(block, OffsetBlock))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return tuple(name for block in self.columns for name in block.names)

    @property
    def n_coef(self) -> int:
        """Number of coefficients."""
        return len(self.names)

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Columns of the table that the predictor reads."""
        return tuple(dict.fromkeys(name for block in self.blocks for name in block.variables))

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Term label -> its coefficients: "(Intercept)", "x", ..., "s(z)"."""
        found: dict[str, slice] = {}
        for block, start in self.placed():
            for label, index in block.terms.items():
                found[label] = slice(start + index.start, start + index.stop)
            if block.kind != "parametric":
                found[block.label] = slice(start, start + block.n_coef)
        return found

    @cached_property
    def penalties(self) -> tuple[PlacedPenalty, ...]:
        """Penalties with their places in this predictor; several of one term are numbered.

        Penalties that share a smoothing parameter are one, with the label of the first.
        """
        placed: dict[str, PlacedPenalty] = {}
        for block, start in self.placed():
            for number, spec in enumerate(block.penalties, start=1):
                label = block.label if len(block.penalties) == 1 else f"{block.label}{number}"
                index = slice(start, start + block.n_coef)
                S, rank = spec.penalty.S, spec.penalty.rank
                own = PlacedPenalty(label, index, S, rank, spec.sp, spec.df)
                key = spec.shared or label
                placed[key] = joined(placed[key], own) if key in placed else own
        return tuple(placed.values())

    def placed(self) -> Iterator[tuple[ColumnBlock, int]]:
        """Return the blocks with coefficients and the first column of each."""
        start = 0
        for block in self.columns:
            yield block, start
            start += block.n_coef

    def evaluate(self, frame: Frame) -> DesignArrays:
        """Return columns, offset and network inputs for the rows of a frame.

        Raises
        ------
        PredictionError
            The rows do not fit what was learned from the training rows.
        """
        dense = [block for block in self.columns if not block.many_levels]
        X = np.empty((frame.n_obs, sum(block.n_coef for block in dense)))
        offset = np.zeros(frame.n_obs)
        ends = np.cumsum([0, *(block.n_coef for block in dense)]).tolist()
        with one_blas_thread():
            for rows in _chunks(frame.n_obs):
                part = frame.rows(rows) if frame.n_obs > CHUNK_ROWS else frame
                for block, start, stop in zip(dense, ends[:-1], ends[1:], strict=True):
                    X[rows, start:stop] = block.evaluate(part)
                for known in self.offsets:
                    offset[rows] += known.evaluate(part)
            levels = [block.level_columns(start, frame) for block, start in self.placed()]
        inputs = {network.label: network.evaluate(frame) for network in self.networks}
        return DesignArrays(X, offset, inputs, tuple(b for b in levels if b is not None))

    def protected(self, network: str) -> Array:
        """Return the columns of X that a network must be orthogonal to, (m,) int, sorted.

        By default the intercept and every structured term that shares a variable with the network.
        """
        block = next(each for each in self.networks if each.label == network)
        if block.orthogonal_to == "none":
            return np.zeros(0, dtype=np.int64)
        if block.orthogonal_to == "all":
            return np.arange(self.n_coef)
        if block.orthogonal_to is None:
            shared = set(block.variables)
            chosen = [
                label for label, names in self._term_variables().items() if shared & set(names)
            ]
            chosen += [INTERCEPT] if INTERCEPT in self.slices else []
        else:
            chosen = self._named(block, block.orthogonal_to)
        indices = [np.arange(self.n_coef)[self.slices[label]] for label in set(chosen)]
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *indices]))

    def _term_variables(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for block in self.columns:
            if block.kind == "parametric":
                found.update(block.term_variables)
            else:
                found[block.label] = block.variables
        return found

    def _named(self, network: NetworkBlock, text: str) -> list[str]:
        """Return the labels that `orthogonal_to="s(x1) + x2"` names."""
        known = {label.replace(" ", ""): [label] for label in self.slices}
        for block in self.columns:
            if block.kind != "parametric" and block.term != block.label:
                known.setdefault(block.term.replace(" ", ""), []).append(block.label)
        if "1" not in known and INTERCEPT in self.slices:
            known["1"] = [INTERCEPT]
        chosen: list[str] = []
        for part in split_summands(text.replace(" ", "")):
            if part not in known:
                hint = suggestion(part, known)
                raise FormulaError(
                    f"{network.label}: orthogonal_to names {part!r}, which is no structured term "
                    f"of {self.parameter!r} ({listing(self.slices)}){hint}"
                )
            chosen += known[part]
        return chosen


def variables(parsed: ParsedModel) -> dict[str, tuple[str, ...]]:
    """Return what names columns ("the formula for 'scale'") -> the columns, for `training_set`."""
    found: dict[str, tuple[str, ...]] = {}
    for parameter, predictor in parsed.predictors.items():
        names = [name for term in _terms(predictor) for name in term.variables]
        found[f"the formula for {parameter!r}"] = tuple(dict.fromkeys(names))
    return found


def crossings(parsed: ParsedModel) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the columns that terms cross, and those of numbers that they take as factors."""
    terms = [term for predictor in parsed.predictors.values() for term in _terms(predictor)]
    return (
        [names for term in terms for names in term.crossings],
        [name for term in terms for name in term.coded],
    )


def build_designs(
    parsed: ParsedModel,
    frame: Frame,
    parameters: Sequence[str] | None = None,
    *,
    select: bool = False,
    readings: Mapping[str, Reading] | None = None,
) -> dict[str, Design]:
    """Bind the terms of every parameter to the training rows.

    Parameters
    ----------
    parsed : ParsedModel
        The formulas.
    frame : Frame
        The training rows, complete and finite.
    parameters : sequence of str, optional
        The parameters in the order wanted; those of `parsed` by default.
    select : bool
        Whether the null space of every smooth has a penalty too.
    readings : dict of str to Reading, optional
        Name of a network -> how it reads columns; as numbers by default.

    Returns
    -------
    dict of str to Design
        One design per parameter.

    Raises
    ------
    FormulaError, DataError, NetworkError
        A term cannot be built; the message names it.

    Warns
    -----
    DeepRegressWarning
        Columns of a smooth are dropped because another one of the same variables spans them.
    """
    terms = {
        name: [
            read_by(_selected(term) if select else term, readings or {})
            for term in _terms(parsed.predictors[name])
        ]
        for name in parameters or parsed.predictors
    }
    check_networks(terms, parsed.networks)
    designs = {}
    for parameter, summands in terms.items():
        with one_blas_thread():
            blocks = _distinct([block for term in summands for block in term.bind(frame)])
            blocks = _identifiable(blocks, frame, parameter)
        design = Design(parameter, tuple(blocks), parsed.predictors[parameter].fixed)
        for network in design.networks:
            design.protected(network.label)
        designs[parameter] = design
    return designs


def _terms(predictor: ParsedPredictor) -> tuple[Term, ...]:
    """Return the terms of a predictor, the linear part first."""
    if predictor.fixed is not None:
        return ()
    called = [build(call) for call in predictor.calls]
    labels = [term.label for term in called]
    for index, (term, call) in enumerate(zip(called, predictor.calls, strict=True)):
        # mgcv gives s(x) and s(x, k=20) one label; ours are keys, so the later one is written out
        if term.label in labels[:index]:
            called[index] = replace(term, label=call.label)  # type: ignore[type-var]
    return (LinearTerm.of(predictor), *called)


def _selected(term: Term) -> Term:
    """Return a smooth with a penalty on its null space, unless its smoothness is fixed."""
    fixed = not isinstance(term, SmoothTerm) or term.fx or term.sp or term.df is not None
    return term if fixed else replace(term, select=True)  # type: ignore[type-var]


def _distinct(blocks: list[Block]) -> list[Block]:
    """Return the blocks with the linear part, if it has columns, and refuse equal labels."""
    seen: set[str] = set()
    for block in blocks:
        if block.label in seen:
            raise FormulaError(f"{block.label}: this term stands twice in one formula.")
        seen.add(block.label)
    return [b for b in blocks if not isinstance(b, ColumnBlock) or b.names]


def _identifiable(blocks: list[Block], frame: Frame, parameter: str) -> list[Block]:
    """Drop the columns of smooths that earlier terms of the same variables span."""
    columns = [block for block in blocks if isinstance(block, ColumnBlock)]
    nested = _nested(sorted(columns, key=_order))
    places = np.cumsum([0, *(block.n_coef for block in nested)])
    R = np.zeros((0, int(places[-1])))
    for rows in _chunks(frame.n_obs if nested else 0):
        part = frame.rows(rows)
        R = triangular_factor(np.concatenate([b.evaluate(part) for b in nested], axis=1), R)
    kept: list[int] = []
    result: dict[str, ColumnBlock] = {}
    for block, start in zip(nested, places.tolist(), strict=False):
        own = list(range(start, start + block.n_coef))
        if isinstance(block.recipe, SmoothColumns) and block.recipe.nested:
            dropped = dependent_columns(R[:, [*kept, *own]], block.n_coef)
            if dropped:
                smooths = [result.get(b.label, b) for b in nested[: nested.index(block)]]
                _check_dropped(block, block.recipe, dropped, smooths, parameter)
                result[block.label] = _without(block, block.recipe, dropped)
            own = [start + j for j in range(block.n_coef) if j not in dropped]
        kept += own
    return [result.get(b.label, b) if isinstance(b, ColumnBlock) else b for b in blocks]


def _order(block: ColumnBlock) -> int:
    """Return the place of a block among the nested terms: 0 for the linear part, else its size."""
    recipe = block.recipe
    return len(recipe.covariates) if isinstance(recipe, SmoothColumns) else 0


def _nested(columns: Sequence[ColumnBlock]) -> list[ColumnBlock]:
    """Return the smooths that share a variable with another term, those terms and the linear part.

    Smooths that share no variable cannot be nested, and most models have no others.
    """
    found = [
        block
        for block in columns
        if any(
            each.term != block.term and set(each.variables) & set(block.variables)
            for each in columns
            if _takes_part(each)
        )
        and _takes_part(block)
    ]
    linear = [block for block in columns if block.kind == "parametric" and block not in found]
    return [*linear, *found] if found else []


def _takes_part(block: ColumnBlock) -> bool:
    """Whether a block can span or be spanned: random effects are told apart by their penalties."""
    if isinstance(block.recipe, SmoothColumns):
        return block.recipe.nested
    return block.sparsity is None


def _check_dropped(
    block: ColumnBlock,
    recipe: SmoothColumns,
    dropped: Sequence[int],
    earlier: Sequence[ColumnBlock],
    parameter: str,
) -> None:
    """Refuse to drop all columns; warn where another smooth of the same covariates spans them.

    Dropping those of smooths of fewer covariates, s(x) + te(x, z), is how a larger term is meant.
    """
    where = f"{block.label} in the formula for {parameter!r}"
    if len(dropped) == block.n_coef:
        advice = "leave it out"
        if recipe.levels is not None:
            advice = f"make {recipe.by!r} an ordered factor, whose first level is the reference"
        raise FormulaError(f"{where} spans nothing that other terms do not span already; {advice}.")
    for other in earlier:
        if isinstance(other.recipe, SmoothColumns) and (
            other.term != block.term and set(other.recipe.covariates) == set(recipe.covariates)
        ):
            text = (
                f"{where}: {len(dropped)} of its {block.n_coef} columns dropped, because "
                f"{other.label}, a smooth of the same variables, spans them."
            )
            warn(DeepRegressWarning(text))
            return


def dependent_columns(R: Matrix, n_later: int) -> list[int]:
    """Return which of the last columns of X the first ones determine.

    Parameters
    ----------
    R : Matrix
        Any matrix with R'R = X'X for X = [X1 X2], such as its triangular factor, shape
        (m, p1 + p2).
    n_later : int
        p2, the number of columns of X2.

    Returns
    -------
    list of int
        Columns of X2 to drop, sorted.
    """
    length = np.linalg.norm(R, axis=0)
    scaled = R / np.where(length > 0.0, length, 1.0)
    n_first = R.shape[1] - n_later
    # the first columns may depend on each other, so their span comes from an orthonormal basis
    U, size, _ = scipy.linalg.svd(scaled[:, :n_first], full_matrices=False)
    U = U[:, size > DEPENDENT * size.max(initial=0.0)]
    later = scaled[:, n_first:]
    later = later - U @ (U.T @ later)
    rank, order = _pivots(later)
    # as in mgcv the longest parts stay, which decides what the penalty means; unless their lengths
    # differ so much that a part which is rounding error would stay
    _, by_length = _pivots(later * length[n_first:])
    if _pivots(later[:, by_length[:rank]])[0] == rank:
        order = by_length
    return sorted(order[rank:])


def _pivots(X: Matrix) -> tuple[int, list[int]]:
    """Return the rank of X, whose columns were of unit length, and its columns by their pivots."""
    pivoted, order = scipy.linalg.qr(X, mode="r", pivoting=True)
    return int(np.sum(np.abs(np.diagonal(pivoted)) > DEPENDENT)), order.tolist()


def _without(block: ColumnBlock, recipe: SmoothColumns, dropped: Sequence[int]) -> ColumnBlock:
    """Return a smooth without some of its columns."""
    kept = [j for j in range(block.n_coef) if j not in dropped]
    Z = np.eye(block.n_coef)[:, kept]
    projected = [
        replace(spec, penalty=spec.penalty.project(Z))
        for spec in block.penalties
        if np.linalg.norm(spec.penalty.S @ Z) > DEPENDENT * np.linalg.norm(spec.penalty.S)
    ]
    return replace(
        block,
        names=coefficient_names(block.label, len(kept)),
        recipe=recipe.keep(kept),
        penalties=tuple(projected),
        sparsity=None if block.sparsity is None else block.sparsity.keep(kept),
    )


def _chunks(n_obs: int) -> Iterator[slice]:
    for start in range(0, n_obs, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, n_obs))
