"""Where a term stands, and the values of its covariates at which its effect is shown.

A term of one numeric variable is shown at equidistant points of its training range, of two on a
grid, of factors at their levels, crossed. A network of more variables is shown at the training
rows. All other columns that evaluating the term takes, but that its effect does not depend on, get
a usual value.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame, Response
from deepregress.errors import PredictionError, listing, suggestion
from deepregress.formula import expression_variables
from deepregress.linalg import Vector
from deepregress.prediction import Predictor, Predictors, chunks, same_label
from deepregress.terms.base import NetworkBlock
from deepregress.terms.parametric import INTERCEPT, LinearColumns
from deepregress.terms.smooth import SmoothColumns

Grid = int | pd.DataFrame | Mapping[str, Any] | None
"""A number of points, the values themselves, or None for what suits the term."""
GRID = 100
"""Points of a curve."""
SURFACE = 40
"""Points of each side of a surface."""
MOST_LEVELS = 30
"""A factor of a network with more levels is shown at the rows, as texts and paths are."""


@dataclass(frozen=True, eq=False)
class Profile:
    """What effects need to know of the training rows.

    Parameters
    ----------
    typical : dict
        Column -> a usual value: mean or observed value, first level, zeros for arrays.
    ranges : dict
        Numeric column -> smallest and largest value.
    levels : dict
        Factor or bool column -> its levels.
    coded : dict
        Numeric column that linear terms code as a factor, `C(x)` -> its values.
    centres : dict
        Parameter -> means of its columns of X, (n_coef,).
    response : str
        The response as written.
    response_levels : tuple of str or None
    """

    typical: dict[str, Any]
    ranges: dict[str, tuple[float, float]]
    levels: dict[str, tuple[Any, ...]]
    coded: dict[str, tuple[Any, ...]]
    centres: dict[str, Vector]
    response: str
    response_levels: tuple[str, ...] | None

    @classmethod
    def of(cls, predictors: Predictors, frame: Frame, response: Response) -> Profile:
        """Read it off the training rows."""
        typical: dict[str, Any] = {}
        ranges: dict[str, tuple[float, float]] = {}
        levels: dict[str, tuple[Any, ...]] = {}
        for name, column in frame.columns.items():
            if isinstance(column, pd.Categorical):
                levels[name] = tuple(column.categories)
                typical[name] = levels[name][0]
            elif column.ndim > 1:
                typical[name] = np.zeros(column.shape[1:], dtype=column.dtype)
            elif column.dtype.kind == "b":
                levels[name], typical[name] = (False, True), False
            else:
                ranges[name] = (float(column.min()), float(column.max()))
                typical[name] = float(column.mean())
        coded = _coded(predictors, frame)
        typical |= {name: values[0] for name, values in coded.items()}
        numeric = set(ranges) - set(coded)
        centres = {unit.parameter: _centre(unit, frame, numeric) for unit in predictors.units}
        return cls(typical, ranges, levels, coded, centres, response.label, response.levels)

    def axes(self, place: Place) -> tuple[list[str], dict[str, tuple[Any, ...]]]:
        """Numeric variables of a term, and its factors with their levels."""
        coded = self.coded if place.kind == "linear" else place.coded
        factors = {**self.levels, **coded}
        numeric = [name for name in place.variables if name in self.ranges and name not in factors]
        return numeric, {name: factors[name] for name in place.variables if name in factors}


def _coded(predictors: Predictors, frame: Frame) -> dict[str, tuple[Any, ...]]:
    """Values of numeric columns that a linear part codes as factors."""
    names = {
        name
        for unit in predictors.units
        for block, _ in unit.blocks.values()
        if isinstance(block.recipe, LinearColumns)
        for expression in block.recipe.categories
        for name in expression_variables(expression)
    }
    return {
        name: tuple(np.unique(frame[name]).tolist())
        for name in sorted(names & set(frame.columns))
        if not isinstance(frame[name], pd.Categorical) and frame[name].dtype.kind in "fi"
    }


def _centre(unit: Predictor, frame: Frame, numbers: set[str]) -> Vector:
    """Means over the training rows of the linear columns that are centred, else zero; (n_coef,)."""
    centre = np.zeros(unit.design.n_coef)
    for block, index in unit.blocks.values():
        numeric = [
            label
            for label, names in block.term_variables.items()
            if label != INTERCEPT and numbers.issuperset(names)
        ]
        if not numeric:
            continue
        means = sum(block.evaluate(part).sum(axis=0) for _, part in chunks(frame)) / frame.n_obs
        for label in numeric:
            columns = unit.design.slices[label]
            centre[columns] = means[columns.start - index.start : columns.stop - index.start]
    return centre


@dataclass(frozen=True)
class Place:
    """Where a term stands.

    Parameters
    ----------
    unit : int
        Its predictor.
    labels : tuple of str
        The term's own labels: several for the levels of a factor `by`.
    kind : {"linear", "smooth", "deep"}
    variables : tuple of str
        Columns of the table that the effect depends on, apart from a numeric `by`.
    by : str
        Column that multiplies a smooth; "" for none.
    levels : tuple
        Levels of `by` that have a smooth of their own.
    coded : dict
        Variable that a smooth takes as a factor -> its levels.
    """

    unit: int
    labels: tuple[str, ...]
    kind: str
    variables: tuple[str, ...]
    by: str = ""
    levels: tuple[Any, ...] = ()
    coded: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def find(predictors: Predictors, term: str, parameter: str | None = None) -> Place:
    """Find a term by its label, in a parameter or the first (of a group) that has it.

    Raises
    ------
    PredictionError
        There is no such term or parameter.
    """
    known: list[str] = []
    for u in predictors.of_parameter(parameter):
        for place in places(predictors, u):
            if same_label(place.labels[0], term) and len(place.labels) == 1:
                return place
            known += place.labels
        together = _levels_together(predictors, u, term)
        if together is not None:
            return together
    where = f" of {parameter!r}" if parameter else ""
    raise PredictionError(
        f"{term!r} is not a term{where}{suggestion(str(term), known)}; "
        f"terms with an effect: {listing(known)}."
    )


def places(predictors: Predictors, u: int) -> list[Place]:
    """All terms of a predictor that have an effect of their own, the intercept excepted."""
    unit = predictors.units[u]
    found = []
    for block, _ in unit.blocks.values():
        if block.kind == "parametric":
            found += [
                Place(u, (label,), "linear", block.term_variables[label])
                for label in block.terms
                if label != INTERCEPT
            ]
        elif isinstance(block.recipe, SmoothColumns):
            recipe = block.recipe
            names = tuple(name for name in recipe.variables if name != recipe.by)
            levels = () if recipe.levels is None else (recipe.levels[recipe.level],)
            coded = {
                covariate.strip("`"): values
                for covariate, values in zip(recipe.covariates, recipe.factors, strict=True)
                if values is not None
            }
            found.append(Place(u, (block.label,), "smooth", names, recipe.by, levels, coded))
    found += [
        Place(u, (network.label,), "deep", _deep_variables(unit, network))
        for network in unit.design.networks
    ]
    return found


def chosen(known: Sequence[Place], labels: Sequence[str]) -> list[Place]:
    """The places of some terms, by their labels.

    Raises
    ------
    PredictionError
        There is no such term.
    """
    found: list[Place] = []
    for label in labels:
        own = [place for place in known if any(same_label(each, label) for each in place.labels)]
        if not own:
            names = list(dict.fromkeys(place.labels[0] for place in known))
            raise PredictionError(
                f"{label!r} is not a term with an effect{suggestion(str(label), names)}; "
                f"they are {listing(names)}."
            )
        found += own
    return found


def _deep_variables(unit: Predictor, network: NetworkBlock) -> tuple[str, ...]:
    """Columns of the table that a network reads, or the terms that it is orthogonal to."""
    protected = set(unit.effects[network.label].protected.tolist())
    names = list(network.variables)
    for block, _ in unit.blocks.values():
        own = block.term_variables if block.terms else {block.label: block.variables}
        for label, variables in own.items():
            index = unit.design.slices[label]
            if protected.intersection(range(index.start, index.stop)):
                names += variables
    return tuple(dict.fromkeys(names))


def _levels_together(predictors: Predictors, u: int, term: str) -> Place | None:
    """The smooths of all levels of a factor `by` under the label of their term."""
    blocks = [block for block, _ in predictors.units[u].blocks.values()]
    labels = {block.label for block in blocks if block.term and same_label(block.term, term)}
    parts = [place for place in places(predictors, u) if place.labels[0] in labels]
    if not parts:
        return None
    levels = tuple(level for part in parts for level in part.levels)
    names = tuple(part.labels[0] for part in parts)
    return Place(u, names, "smooth", parts[0].variables, parts[0].by, levels)


def grid_of(place: Place, profile: Profile, points: int | None) -> pd.DataFrame | None:
    """Equidistant values of a term's numeric variables crossed with the levels of its factors.

    Returns
    -------
    DataFrame or None
        None where no grid shows the term: more than two numeric variables, arrays, or strings that
        networks read as text or paths.
    """
    numeric, factors = profile.axes(place)
    strings = place.kind == "deep" and any(len(own) > MOST_LEVELS for own in factors.values())
    if strings or len(numeric) > 2 or len(numeric) + len(factors) < len(place.variables):
        return None
    if place.levels:
        factors[place.by] = place.levels
    size = points or (GRID if len(numeric) < 2 else SURFACE)
    sides = [np.linspace(*profile.ranges[name], size).tolist() for name in numeric]
    rows = list(itertools.product(*factors.values(), *sides))
    table = pd.DataFrame(rows, columns=[*factors, *numeric])
    if place.by and not place.levels:
        table[place.by] = 1.0
    return _with_levels(table, place, profile)


@dataclass(frozen=True, eq=False)
class Shown:
    """Rows at which an effect is shown: their covariates, and all columns that it needs."""

    table: pd.DataFrame
    frame: Frame


def shown_at(
    predictors: Predictors,
    place: Place,
    profile: Profile,
    *,
    training: Frame | None,
    grid: Grid,
) -> Shown:
    """The rows at which an effect is shown: a grid, the user's own, or those of training.

    Raises
    ------
    PredictionError
        The term has too many variables for a grid and nothing else to be shown at.
    """
    table = None
    if not isinstance(grid, int | np.integer | None):
        given: dict[str, Any] = {str(name): column for name, column in grid.items()}
        table = _one_dimensional(given)
        if place.levels and place.by not in given:
            levels = pd.DataFrame({place.by: list(place.levels)})
            table = _with_levels(levels.merge(table, how="cross"), place, profile)
        else:
            return Shown(table, _complete(given, len(table), place, predictors, profile))
    else:
        table = grid_of(place, profile, None if grid is None else int(grid))
    if table is not None:
        columns = {str(name): table[name] for name in table}
        return Shown(table, _complete(columns, len(table), place, predictors, profile))
    if grid is not None or training is None:
        raise PredictionError(
            f"{place.labels[0]}: a function of {listing(place.variables)} has no grid of points; "
            "give values as a table in grid=."
        )
    return Shown(_one_dimensional({n: training[n] for n in place.variables}), training)


def _one_dimensional(columns: Mapping[str, Any]) -> pd.DataFrame:
    """The columns of a table that are no arrays."""
    shown = {name: column for name, column in columns.items() if np.ndim(column) < 2}
    n_obs = max((len(np.atleast_1d(column)) for column in columns.values()), default=0)
    return pd.DataFrame(shown, index=pd.RangeIndex(n_obs)).reset_index(drop=True)


def _with_levels(table: pd.DataFrame, place: Place, profile: Profile) -> pd.DataFrame:
    """The table with factors as Categoricals of the levels of training, or of the term."""
    factors = {
        # a smooth may know levels without training rows, such as areas with neighbours
        name: pd.Categorical(table[name], categories=list(place.coded.get(name, levels)))
        for name, levels in profile.levels.items()
        if name in table and not isinstance(levels[0], bool)
    }
    return table.assign(**factors)


def _complete(
    columns: dict[str, Any], n: int, place: Place, predictors: Predictors, profile: Profile
) -> Frame:
    """A frame of the columns, with usual values for those that the effect does not depend on."""
    unit = predictors.units[place.unit]
    others = frozenset(unit.labels) - set(place.labels)
    for name in unit.variables(others):
        if name in columns:
            continue
        if name == place.by:
            columns[name] = np.ones(n)
        elif name in place.variables:
            raise PredictionError(
                f"grid: the effect of {place.labels[0]!r} depends on {name!r}, "
                f"which is not among its columns {listing(columns)}."
            )
        else:
            columns[name] = _repeated(profile, name, n)
    return Frame.read(columns, list(columns))


def _repeated(profile: Profile, name: str, n: int) -> Any:
    value = profile.typical[name]
    if name in profile.levels and not isinstance(value, bool):
        return pd.Categorical([value] * n, categories=list(profile.levels[name]))
    return np.repeat(np.asarray(value)[None], n, axis=0)
