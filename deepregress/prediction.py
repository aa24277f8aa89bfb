"""The predictors of a fitted model: eta and its covariance for any rows (DESIGN 2, the waist).

    eta_u = offset_u + X_u b_u + sum of deep effects d_u                   (n_obs, U)
    Cov(eta_iu, eta_iv) = z_iu' V_uv z_iv,   z_iu = (x_iu, d_iu / c_u)     c: networks' multipliers

V is the Bayesian covariance (METHODS 4), conditional on the networks' weights unless their noise
(module `network_noise`) is added. An excluded term's
columns are zero in X and Z, as in mgcv. A row's predictors depend on that row alone; rows are read
in chunks, so memory beyond the result does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.deep.noise import NetworkNoise
from deepregress.design import CHUNK_ROWS, Design
from deepregress.disk.arrow import Inverse
from deepregress.errors import PredictionError, listing, suggestion
from deepregress.families.base import Family
from deepregress.groups import group_of, members
from deepregress.linalg import Array, Matrix, Vector, one_blas_thread
from deepregress.model_matrix import LevelColumns, ModelMatrix, Reduced
from deepregress.new_levels import priors, variances
from deepregress.predictor import DeepEffect
from deepregress.terms.base import Block, ColumnBlock, NetworkBlock

Labels = frozenset[tuple[str, str]]
"""Terms, each by its parameter and label."""


@dataclass(frozen=True, eq=False)
class Deep:
    """What the semi-structured solver learned beyond the structured part.

    Parameters
    ----------
    effects : tuple of DeepEffect
        The trained networks, made orthogonal to their protected columns.
    score_difference : float
        Cross-fitted log score with the networks minus without them, sum over the rows.
    score_se : float
        Its standard error.
    history : sequence
        One frozen dataclass per epoch of training.
    scores : tuple of pairs
        Difference and standard error of each network, given the others.
    population : Matrix or None, (n_coef, n_coef)
        What to add to the covariance given the networks, for effects of the population.
    """

    effects: tuple[DeepEffect, ...]
    score_difference: float
    score_se: float
    history: Sequence[Any] = ()
    scores: tuple[tuple[float, float], ...] = ()
    population: Matrix | None = None


@dataclass(frozen=True, eq=False)
class UnitRows:
    """One predictor's pieces for some rows.

    Parameters
    ----------
    matrix : ModelMatrix
        Columns; zero for excluded terms.
    offset : Vector, (n_obs,)
    effects : dict of str to Vector
        Label of a deep term -> its effect, (n_obs,).
    """

    matrix: ModelMatrix
    offset: Vector
    effects: dict[str, Vector]
    new_levels: dict[str, Vector]
    """Label of a random effect -> variance of its effects in rows of levels without training."""

    @property
    def X(self) -> Matrix:
        """The columns as an array, (n_obs, n_coef)."""
        return self.matrix.toarray()

    @property
    def new_level_variance(self) -> Vector:
        """What random effects of new levels add to the variance of the predictor, (n_obs,)."""
        return np.asarray(sum(self.new_levels.values(), start=np.zeros(self.matrix.n_obs)))


@dataclass(frozen=True, eq=False)
class Predictor:
    """One predictor: its design, its place among the coefficients, its networks.

    Parameters
    ----------
    design : Design
    columns : slice
        Structured coefficients in the joint vector.
    multipliers : dict of str to int
        Label of a deep term -> place of its multiplier in the joint vector; without those in which
        training found nothing, or that are held as they are.
    effects : dict of str to DeepEffect
    constant : float
        The predictor of a parameter that is fixed; else 0.
    priors : dict of str to Vector
        Label of a random effect -> variances of the effects of a new level, (m,).
    """

    design: Design
    columns: slice
    multipliers: dict[str, int]
    effects: dict[str, DeepEffect]
    constant: float
    priors: dict[str, Vector] = field(default_factory=dict)

    @property
    def parameter(self) -> str:
        """Name of the parameter."""
        return self.design.parameter

    @cached_property
    def index(self) -> list[int]:
        """Places of all coefficients, multipliers last."""
        return [*range(self.columns.start, self.columns.stop), *self.multipliers.values()]

    def positions(self, places: Array) -> Array:
        """Positions in `index` of places in the joint vector."""
        last = np.searchsorted(list(self.multipliers.values()), places) + self.design.n_coef
        return np.where(places < self.columns.stop, places - self.columns.start, last)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients in the order of `index`."""
        return (*self.design.names, *self.multipliers)

    @property
    def penalty_names(self) -> tuple[tuple[str, str], ...]:
        """(parameter, label) of each penalty; those of a term with several are numbered."""
        labels = [*(p.label for p in self.design.penalties), *self.multipliers]
        numbered = [
            label if labels.count(label) == 1 else f"{label}{labels[: j + 1].count(label)}"
            for j, label in enumerate(labels)
        ]
        return tuple((self.parameter, label) for label in numbered)

    @cached_property
    def blocks(self) -> dict[str, tuple[ColumnBlock, slice]]:
        """Label -> block with coefficients and its columns of X."""
        placed, start = {}, 0
        for block in self.design.columns:
            placed[block.label] = (block, slice(start, start + block.n_coef))
            start += block.n_coef
        return placed

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all terms with an effect: parametric ones, smooths, networks, offsets."""
        deep = tuple(network.label for network in self.design.networks)
        return (*self.design.slices, *deep, *(known.label for known in self.design.offsets))

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Label of a term -> places of its coefficients in the joint vector."""
        start = self.columns.start
        found = {
            label: list(range(start + index.start, start + index.stop))
            for label, index in self.design.slices.items()
        }
        for network in self.design.networks:
            multiplier = self.multipliers.get(network.label)
            found[network.label] = [] if multiplier is None else [multiplier]
        return found

    def networks(self, excluded: frozenset[str]) -> list[NetworkBlock]:
        """Network blocks that are not excluded and have an effect."""
        return [
            block
            for block in self.design.networks
            if block.label not in excluded and self.effects[block.label].multiplier != 0
        ]

    def needed(self, excluded: frozenset[str]) -> list[tuple[ColumnBlock, slice]]:
        """Column blocks that the rows' predictors depend on."""
        protected = {
            int(j)
            for network in self.networks(excluded)
            for j in self.effects[network.label].protected
        }
        return [
            (block, index)
            for block, index in self.blocks.values()
            if block.label not in excluded
            and not (block.terms and excluded.issuperset(block.terms))
            or protected.intersection(range(index.start, index.stop))
        ]

    def variables(self, excluded: frozenset[str]) -> list[str]:
        """Columns of the table that the rows' predictors depend on."""
        blocks = [block for block, _ in self.needed(excluded)]
        known = [block for block in self.design.offsets if block.label not in excluded]
        every: tuple[Block, ...] = (*blocks, *known, *self.networks(excluded))
        return list(dict.fromkeys(name for block in every for name in block.variables))

    def rows(self, frame: Frame, excluded: frozenset[str] = frozenset()) -> UnitRows:
        """Evaluate the predictor's pieces for the rows of a frame."""
        matrix = self.matrix(frame, excluded)
        offset = np.full(frame.n_obs, self.constant)
        for known in self.design.offsets:
            if known.label not in excluded:
                offset += known.evaluate(frame)
        effects = {
            block.label: self.effects[block.label].evaluate(block.evaluate(frame), matrix)
            for block in self.networks(excluded)
        }
        for label, columns in self.design.slices.items():
            if label in excluded:
                matrix = matrix.without(columns)
        shown = [block for block, _ in self.needed(excluded) if block.label not in excluded]
        return UnitRows(matrix, offset, effects, variances(shown, self.priors, frame))

    def matrix(self, frame: Frame, excluded: frozenset[str]) -> ModelMatrix:
        """Columns of all terms but excluded ones, and those that networks are protected from."""
        needed = self.needed(excluded)
        dense = [(block, index) for block, index in self.blocks.values() if not block.many_levels]
        X = np.zeros((frame.n_obs, sum(block.n_coef for block, _ in dense)))
        start = 0
        for block, index in dense:
            if (block, index) in needed:
                X[:, start : start + block.n_coef] = block.evaluate(frame)
            start += block.n_coef
        return ModelMatrix(X, self._levels(frame, needed))

    def _levels(
        self, frame: Frame, needed: Sequence[tuple[ColumnBlock, slice]]
    ) -> tuple[LevelColumns, ...]:
        """Columns kept by level; in no level where the predictors do not depend on them."""
        labels = {block.label for block, _ in needed}
        found = []
        for block, index in self.blocks.values():
            if not block.many_levels:
                continue
            columns = block.level_columns(index.start, frame) if block.label in labels else None
            nowhere = np.full(frame.n_obs, -1)
            n = block.n_coef
            none = LevelColumns(index.start, n, nowhere, np.zeros((frame.n_obs, 1)))
            found.append(none if columns is None else columns)
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Coefficients, their covariance and the smoothing parameters lam."""

    coef: Vector
    V: Inverse = field(repr=False)
    lam: Vector = field(repr=False)

    @property
    def cov(self) -> Matrix:
        """The covariance as an array, (n_coef, n_coef)."""
        return self.V.matrix()

    def block(self, places: Sequence[int] | Array) -> Matrix:
        """Covariance of some coefficients."""
        own = np.asarray(places, dtype=np.int64)
        return self.V.block(own, own)


@dataclass(frozen=True, eq=False)
class Predictors:
    """All predictors of a fitted model.

    Parameters
    ----------
    family : Family
    units : tuple of Predictor
        In the order of the family's predictors.
    estimate : Estimate
    noise : NetworkNoise or None
        Uncertainty of the networks, which then is in the covariance V of `estimate` too.
    """

    family: Family
    units: tuple[Predictor, ...]
    estimate: Estimate
    noise: NetworkNoise | None = None

    @classmethod
    def of(
        cls,
        family: Family,
        designs: Mapping[str, Design],
        estimate: Estimate,
        effects: Sequence[DeepEffect],
        noise: NetworkNoise | None = None,
    ) -> Predictors:
        """Place designs and networks in the joint coefficient vector.

        A unit's coefficients are those of its design, then the multipliers of its networks.
        """
        units, start, first = [], 0, 0
        for u, parameter in enumerate(family.parameters):
            design = designs[parameter.name]
            own = {effect.label: effect for effect in effects if effect.unit == u}
            columns = slice(start, start + design.n_coef)
            multipliers = {
                label: effect.position
                for label, effect in own.items()
                if effect.position is not None
            }
            start = columns.stop + len(multipliers)
            constant = 0.0
            if design.fixed is not None:
                constant = float(parameter.link.forward(np.float64(design.fixed)))
            n_lam = len(design.penalties) + len(multipliers)
            prior = priors(design, estimate.lam[first : first + len(design.penalties)])
            first += n_lam
            units.append(Predictor(design, columns, multipliers, own, constant, prior))
        return cls(family, tuple(units), estimate, noise)

    @cached_property
    def coef_index(self) -> pd.MultiIndex:
        """(parameter, name) of each coefficient."""
        pairs = [
            pair
            for unit in self.units
            for pair in zip([unit.parameter] * len(unit.names), unit.names, strict=True)
        ]
        return pd.MultiIndex.from_tuples(pairs, names=["parameter", "name"])

    def of_parameter(self, parameter: str | None) -> list[int]:
        """Numbers of the predictors of a parameter or a group of them; all of None.

        Raises
        ------
        PredictionError
            The family has no such parameter.
        """
        names = self.family.parameter_names
        if parameter is None:
            return list(range(len(names)))
        found = [names.index(name) for name in members(parameter, names)]
        if not found:
            known = dict.fromkeys((*names, *self.family.groups))
            raise PredictionError(
                f"parameter {parameter!r} is not one of {listing(known)}"
                f"{suggestion(str(parameter), known)}"
            )
        return found

    def excluded(self, exclude: str | Sequence[str | tuple[str, str]] | None) -> Labels:
        """Terms by parameter and label, from labels (wherever they stand) or (parameter, label).

        Raises
        ------
        PredictionError
            A label is no term of the model.
        """
        given = [exclude] if isinstance(exclude, str) else list(exclude or ())
        known = {(unit.parameter, label) for unit in self.units for label in unit.labels}
        chosen: set[tuple[str, str]] = set()
        for each in given:
            wanted = each if isinstance(each, tuple) else (None, each)
            found = {
                (parameter, label)
                for parameter, label in known
                if same_label(label, wanted[1])
                and wanted[0] in (None, parameter, group_of(parameter))
            }
            if not found:
                labels = sorted({label for _, label in known})
                raise PredictionError(
                    f"exclude: {each!r} is not a term of the model{suggestion(wanted[1], labels)}; "
                    f"its terms are {listing(labels)}."
                )
            chosen |= found
        return frozenset(chosen)

    def variables(self, excluded: Labels = frozenset()) -> list[str]:
        """Columns that a table must have for a prediction."""
        names = [
            name for unit in self.units for name in unit.variables(_of(excluded, unit.parameter))
        ]
        return list(dict.fromkeys(names))

    def eta(self, frame: Frame, excluded: Labels = frozenset()) -> Matrix:
        """All predictors of the rows of a frame, (n_obs, U)."""
        eta = np.empty((frame.n_obs, len(self.units)))
        with one_blas_thread():
            for rows, part in chunks(frame):
                for u, unit in enumerate(self.units):
                    pieces = unit.rows(part, _of(excluded, unit.parameter))
                    eta[rows, u] = pieces.matrix.times(self.estimate.coef[unit.columns])
                    eta[rows, u] += pieces.offset
                    for effect in pieces.effects.values():
                        eta[rows, u] += effect
        return eta

    def eta_cov(self, frame: Frame, excluded: Labels = frozenset()) -> Matrix:
        """Covariance of the predictors of each row, (n_obs, U, U)."""
        n_units, V = len(self.units), self.conditional
        cov = np.zeros((frame.n_obs, n_units, n_units))
        with one_blas_thread():
            for rows, part in chunks(frame):
                every = [unit.rows(part, _of(excluded, unit.parameter)) for unit in self.units]
                Z = [
                    Reduced.of(self.gradient(unit, pieces), np.array(unit.index, dtype=np.intp), V)
                    for unit, pieces in zip(self.units, every, strict=True)
                ]
                g = [
                    self.noise_of(
                        unit,
                        part,
                        self.gradient(unit, pieces),
                        unit.index,
                        _of(excluded, unit.parameter),
                    )
                    for unit, pieces in zip(self.units, every, strict=True)
                ]
                for u in range(n_units):
                    for v in range(u, n_units):
                        both = Z[u].variance(Z[v], V) + np.einsum("ir,ir->i", g[u], g[v])
                        cov[rows, u, v] = cov[rows, v, u] = both
                    cov[rows, u, u] += every[u].new_level_variance
        return cov

    @property
    def conditional(self) -> Inverse:
        """V given the networks."""
        return self.estimate.V if self.noise is None else self.noise.conditional

    def noise_of(
        self,
        unit: Predictor,
        frame: Frame,
        Z: ModelMatrix,
        places: Sequence[int],
        excluded: frozenset[str],
    ) -> Matrix:
        """Noise of what has the gradient Z in coefficients at `places`, (n_obs, R); R may be 0."""
        if self.noise is None:
            return np.zeros((frame.n_obs, 0))
        return self.noise.directions(unit, frame, Z, places=places, excluded=excluded)

    def gradient(self, unit: Predictor, pieces: UnitRows) -> ModelMatrix:
        """Z = d eta / d coefficients of a predictor, with columns as in `unit.index`."""
        networks = [
            pieces.effects[label] / self.estimate.coef[place]
            if label in pieces.effects
            else np.zeros(pieces.matrix.n_obs)
            for label, place in unit.multipliers.items()
        ]
        if not networks:
            return pieces.matrix
        return ModelMatrix(np.column_stack([pieces.matrix.X, *networks]), pieces.matrix.levels)


def chunks(frame: Frame) -> Iterator[tuple[slice, Frame]]:
    """Slices of the rows of a frame with these rows."""
    if frame.n_obs <= CHUNK_ROWS:
        yield slice(0, frame.n_obs), frame
        return
    for start in range(0, frame.n_obs, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, frame.n_obs))
        yield rows, frame.rows(rows)


def same_label(label: str, given: str) -> bool:
    """Whether a user's label means this one: blanks do not count."""
    return label.replace(" ", "") == str(given).replace(" ", "")


def _of(excluded: Labels, parameter: str) -> frozenset[str]:
    return frozenset(label for name, label in excluded if name == parameter)
