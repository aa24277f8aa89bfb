"""Effects of single terms: what `partial_effect`, `predict(which="terms")` and `plot` show.

    f(x) = (z(x) - z0)' b,    se(f(x))^2 = (z(x) - z0)' V (z(x) - z0)

Smooths are centred by their constraint (z0 = 0), except with a numeric `by`; linear terms of
numbers are centred at the mean of the training rows (z0 = their mean), terms with a factor show the
difference from its reference level (z0 = 0). The constants go to the intercept, so that the effects
of a predictor and its constant add up to it. Simultaneous bands replace the normal quantile by that
of max over the grid of |f*(x) - f(x)| / se(f(x)), f* drawn from N(b, V).

References: Marra & Wood (2012), doi:10.1111/j.1467-9469.2011.00760.x; Ruppert, Wand & Carroll
(2003), Semiparametric Regression, section 6.5 (simultaneous bands).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.data import Frame, Response
from deepregress.errors import PredictionError, listing, suggestion
from deepregress.formula import expression_variables
from deepregress.inference import normal_quantile, row_variance
from deepregress.linalg import Matrix, Vector
from deepregress.prediction import Labels, Predictor, Predictors, chunks, same_label
from deepregress.quantities import Error, by_key, gradient
from deepregress.terms.base import NetworkBlock
from deepregress.terms.parametric import INTERCEPT, LinearColumns
from deepregress.terms.smooth import SmoothColumns

GRID = 100
"""Points of a curve."""
SURFACE = 40
"""Points of each side of a surface."""
DRAWS = 10_000
DRAWS_AT_ONCE = 500
SIMULATION_SEED = 1
"""Simultaneous bands are simulated; the same model gives the same bands."""


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
        factors = {**self.levels, **(self.coded if place.kind == "linear" else {})}
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
    """

    unit: int
    labels: tuple[str, ...]
    kind: str
    variables: tuple[str, ...]
    by: str = ""
    levels: tuple[Any, ...] = ()


def find(predictors: Predictors, term: str, parameter: str | None = None) -> Place:
    """Find a term by its label, in one parameter or in the first that has it.

    Raises
    ------
    PredictionError
        There is no such term or parameter.
    """
    units = range(len(predictors.units))
    if parameter is not None:
        units = range(predictors.unit(parameter), predictors.unit(parameter) + 1)
    known: list[str] = []
    for u in units:
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
            found.append(Place(u, (block.label,), "smooth", names, recipe.by, levels))
    found += [
        Place(u, (network.label,), "deep", _deep_variables(unit, network))
        for network in unit.design.networks
    ]
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
        None where no grid shows the term: more than two numeric variables, or arrays.
    """
    numeric, factors = profile.axes(place)
    if len(numeric) > 2 or len(numeric) + len(factors) < len(place.variables):
        return None
    if place.levels:
        factors[place.by] = place.levels
    size = points or (GRID if len(numeric) < 2 else SURFACE)
    sides = [np.linspace(*profile.ranges[name], size).tolist() for name in numeric]
    rows = list(itertools.product(*factors.values(), *sides))
    table = pd.DataFrame(rows, columns=[*factors, *numeric])
    if place.by and not place.levels:
        table[place.by] = 1.0
    return _with_levels(table, profile)


def table_of(
    place: Place,
    profile: Profile,
    frame: Frame | None,
    grid: int | pd.DataFrame | Mapping[str, Any] | None,
) -> pd.DataFrame:
    """The rows at which an effect is shown: a grid, the user's own, or those of training.

    Raises
    ------
    PredictionError
        The term has too many variables for a grid and nothing else to be shown at.
    """
    if not isinstance(grid, int | np.integer | None):
        given = pd.DataFrame(grid).reset_index(drop=True)
        if place.levels and place.by not in given:
            levels = pd.DataFrame({place.by: list(place.levels)})
            return _with_levels(levels.merge(given, how="cross"), profile)
        return given
    table = grid_of(place, profile, None if grid is None else int(grid))
    if table is not None:
        return table
    if grid is not None or frame is None:
        raise PredictionError(
            f"{place.labels[0]}: its {len(place.variables)} variables make no grid of points; "
            "give their values as a table in grid=."
        )
    shown = {
        name: frame[name]
        for name in place.variables
        if isinstance(frame[name], pd.Categorical) or frame[name].ndim == 1
    }
    return pd.DataFrame(shown, index=pd.RangeIndex(frame.n_obs))


def _with_levels(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The table with factors as Categoricals of the training levels."""
    factors = {
        name: pd.Categorical(table[name], categories=list(levels))
        for name, levels in profile.levels.items()
        if name in table and not isinstance(levels[0], bool)
    }
    return table.assign(**factors)


def complete(table: pd.DataFrame, place: Place, predictors: Predictors, profile: Profile) -> Frame:
    """A frame of the grid with usual values for columns that the effect does not depend on."""
    columns: dict[str, Any] = {str(name): table[name] for name in table}
    unit = predictors.units[place.unit]
    others = frozenset(unit.labels) - set(place.labels)
    for name in unit.variables(others):
        if name in columns:
            continue
        if name == place.by:
            columns[name] = np.ones(len(table))
        elif name in place.variables:
            raise PredictionError(
                f"grid: the effect of {place.labels[0]!r} depends on {name!r}, "
                f"which is not among its columns {listing(columns)}."
            )
        else:
            columns[name] = _repeated(profile, name, len(table))
    return Frame.read(columns, list(columns))


def _repeated(profile: Profile, name: str, n: int) -> Any:
    value = profile.typical[name]
    if name in profile.levels and not isinstance(value, bool):
        return pd.Categorical([value] * n, categories=list(profile.levels[name]))
    return np.repeat(np.asarray(value)[None], n, axis=0)


@dataclass(frozen=True, eq=False)
class Effect:
    """An effect at some rows.

    Parameters
    ----------
    value : Vector, (n_obs,)
    Z : Matrix, (n_obs, m)
        Its derivative with respect to the term's coefficients.
    index : list of int
        Their places in the joint vector.
    """

    value: Vector
    Z: Matrix
    index: list[int]

    def se(self, cov: Matrix) -> Vector:
        """Standard errors, (n_obs,)."""
        return np.asarray(np.sqrt(row_variance(self.Z, cov[np.ix_(self.index, self.index)])))

    def critical_value(self, cov: Matrix, level: float) -> float:
        """Quantile `level` of the largest standardised deviation over the rows, by simulation."""
        se = self.se(cov)
        shown = se > 0
        if not shown.any():
            return normal_quantile(level)
        values, vectors = np.linalg.eigh(cov[np.ix_(self.index, self.index)])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        A = (self.Z[shown] / se[shown, None]) @ root
        draws = np.random.default_rng(SIMULATION_SEED)
        largest = [
            np.abs(A @ draws.standard_normal((A.shape[1], DRAWS_AT_ONCE))).max(axis=0)
            for _ in range(DRAWS // DRAWS_AT_ONCE)
        ]
        return float(np.quantile(np.concatenate(largest), level))


def effect(predictors: Predictors, place: Place, frame: Frame, profile: Profile) -> Effect:
    """The effect of a term at the rows of a frame."""
    unit = predictors.units[place.unit]
    others = frozenset(unit.labels) - set(place.labels)
    index = [place_ for label in place.labels for place_ in unit.places[label]]
    columns = [j - unit.columns.start for j in index if j < unit.columns.stop]
    value, Z = np.empty(frame.n_obs), np.empty((frame.n_obs, len(index)))
    for rows, part in chunks(frame):
        pieces = unit.rows(part, others)
        if place.kind == "deep":
            value[rows] = pieces.effects.get(place.labels[0], np.zeros(part.n_obs))
            Z[rows] = value[rows, None] / predictors.estimate.coef[index]
        else:
            Z[rows] = (pieces.X - profile.centres[unit.parameter])[:, columns]
            value[rows] = Z[rows] @ predictors.estimate.coef[index]
    return Effect(value, Z, index)


def partial_effect(
    predictors: Predictors,
    place: Place,
    table: pd.DataFrame,
    profile: Profile,
    *,
    level: float,
    simultaneous: bool,
) -> pd.DataFrame:
    """The grid with columns effect, se, lower, upper."""
    frame = complete(table, place, predictors, profile)
    at = effect(predictors, place, frame, profile)
    cov = predictors.estimate.cov
    se = at.se(cov)
    width = (at.critical_value(cov, level) if simultaneous else normal_quantile(level)) * se
    return table.assign(
        effect=at.value, se=se, lower=at.value - width, upper=at.value + width
    ).reset_index(drop=True)


def terms_table(
    predictors: Predictors,
    units: Sequence[int],
    frame: Frame,
    profile: Profile,
    *,
    excluded: Labels,
    error: Error,
) -> pd.DataFrame:
    """Effects of all terms, by parameter (where there are several), label and kind of number."""
    columns: dict[tuple[str, ...], Vector] = {}
    for u in units:
        parameter = predictors.units[u].parameter
        for label, value, se in _terms(predictors, u, frame, profile, excluded):
            table = error.table(value, se, error.symmetric(value, se))
            for name in table:
                head = (parameter,) if len(units) > 1 else ()
                tail = (str(name),) if error.wanted else ()
                columns[(*head, label, *tail)] = table[name].to_numpy()
    return by_key(columns)


def _terms(
    predictors: Predictors, u: int, frame: Frame, profile: Profile, excluded: Labels
) -> Iterator[tuple[str, Vector, Vector]]:
    """Label, effect and standard error of each term of a predictor; they add up to it.

    The intercept comes with the constants that centre linear terms; offsets have no error.
    """
    unit = predictors.units[u]
    hidden = frozenset(label for name, label in excluded if name == unit.parameter)
    coef, cov = predictors.estimate.coef, predictors.estimate.cov
    centre = profile.centres[unit.parameter]
    labels = [label for label in unit.labels if label not in hidden]
    values = {label: np.zeros(frame.n_obs) for label in labels}
    variances = {label: np.zeros(frame.n_obs) for label in labels}
    known = {block.label: block for block in unit.design.offsets}
    constant = np.zeros(unit.design.n_coef)
    for label, index in unit.design.slices.items():
        if label not in hidden:
            constant[index] = centre[index]
    if constant.any() or unit.constant or INTERCEPT in labels:
        values.setdefault(INTERCEPT, np.zeros(frame.n_obs))
        variances.setdefault(INTERCEPT, np.zeros(frame.n_obs))
    for rows, part in chunks(frame):
        pieces = unit.rows(part, hidden)
        Z = predictors.gradient(unit, pieces)
        Z[:, : unit.design.n_coef] -= constant
        for label in values:
            if label in known:
                values[label][rows] = known[label].evaluate(part)
                continue
            places = unit.places.get(label, [])
            own = Z[:, [unit.index.index(j) for j in places]]
            if label == INTERCEPT:
                own, places = _constants(unit, constant, part.n_obs, label in labels)
                values[label][rows] = unit.constant
            values[label][rows] += own @ coef[places]
            variances[label][rows] = row_variance(own, cov[np.ix_(places, places)])
    for label in values:
        yield label, values[label], np.sqrt(variances[label])


def _constants(
    unit: Predictor,
    constant: Vector,
    n: int,
    intercept: bool,  # noqa: FBT001
) -> tuple[Matrix, list[int]]:
    row = constant.copy()
    if intercept:
        row[unit.design.slices[INTERCEPT]] = 1.0
    return np.broadcast_to(row, (n, len(row))), list(range(unit.columns.start, unit.columns.stop))


def working_residuals(predictors: Predictors, u: int, eta: Matrix, y: Vector) -> Vector:
    """Residuals of the mean on the scale of one predictor, (y - E y) / (dE y / deta_u), (n_obs,).

    Added to an effect they make the partial residuals; zero where the mean does not depend on it.
    """
    mean = predictors.family.mean
    slope = gradient(mean, eta)[:, u]
    moves = slope != 0
    return np.where(moves, (y - mean(eta)) / np.where(moves, slope, 1.0), 0.0)
