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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.disk.arrow import Inverse
from deepregress.grids import Place, Profile, Shown
from deepregress.inference.covariance import normal_quantile
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model_matrix import ModelMatrix, Reduced, stacked
from deepregress.prediction import Labels, Predictor, Predictors, chunks
from deepregress.quantities import Error, by_key, gradient
from deepregress.terms.parametric import INTERCEPT

DRAWS = 10_000
DRAWS_AT_ONCE = 500
SIMULATION_SEED = 1
"""Simultaneous bands are simulated; the same model gives the same bands."""


@dataclass(frozen=True, eq=False)
class Effect:
    """An effect at some rows.

    Parameters
    ----------
    value : Vector, (n_obs,)
    Z : ModelMatrix
        Its derivative with respect to the term's coefficients, (n_obs, m).
    index : list of int
        Their places in the joint vector.
    new_levels : Vector, (n_obs,)
        Variance of the effects of levels that had no training rows.
    directions : Matrix, (n_obs, R)
        Noise of the networks; no columns for given networks.
    """

    value: Vector
    Z: ModelMatrix
    index: list[int]
    new_levels: Vector
    directions: Matrix

    def se(self, V: Inverse) -> Vector:
        """Standard errors, (n_obs,); V is the covariance given the networks."""
        rows = Reduced.of(self.Z, np.array(self.index, dtype=np.int64), V)
        variance = np.maximum(rows.variance(rows, V), 0.0) + self.new_levels
        return np.asarray(np.sqrt(variance + np.sum(self.directions**2, axis=1)))

    def root(self, V: Inverse) -> Matrix:
        """A factor R (n_obs, m) of the effects' covariance R R', up to that of new levels."""
        index = np.array(self.index, dtype=np.int64)
        values, vectors = np.linalg.eigh(V.block(index, index))
        root = self.Z.toarray() @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return np.hstack([root, self.directions])


def simultaneous_quantile(root: Matrix, se: Vector, level: float) -> float:
    """Quantile `level` of the largest standardised deviation over the rows, by simulation.

    Parameters
    ----------
    root : Matrix, (n_obs, m)
        A factor of the covariance of the effects.
    se : Vector, (n_obs,)
    level : float
    """
    shown = se > 0
    if not shown.any():
        return normal_quantile(level)
    A = root[shown] / se[shown, None]
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
    columns = np.array([j - unit.columns.start for j in index if j < unit.columns.stop], dtype=int)
    values, new_levels, matrices, directions = [], [], [], []
    for _, part in chunks(frame):
        pieces = unit.rows(part, others)
        new_levels.append(pieces.new_level_variance)
        if place.kind == "deep":
            values.append(pieces.effects.get(place.labels[0], np.zeros(part.n_obs)))
            matrices.append(ModelMatrix(values[-1][:, None] / predictors.estimate.coef[index]))
        else:
            own = pieces.matrix.select(columns)
            centre = profile.centres[unit.parameter][columns][own.dense]
            matrices.append(ModelMatrix(own.X - centre, own.levels))
            values.append(matrices[-1].times(predictors.estimate.coef[index]))
        hidden = others if place.kind == "deep" else frozenset(unit.labels)
        directions.append(predictors.noise_of(unit, part, matrices[-1], index, hidden))
    return Effect(
        np.concatenate(values),
        stacked(matrices),
        index,
        np.concatenate(new_levels),
        np.concatenate(directions),
    )


def partial_effect(
    predictors: Predictors,
    place: Place,
    shown: Shown,
    profile: Profile,
    *,
    level: float,
    simultaneous: bool,
) -> pd.DataFrame:
    """The covariates with columns effect, se, lower, upper."""
    at = effect(predictors, place, shown.frame, profile)
    V = predictors.conditional
    se = at.se(V)
    quantile = normal_quantile(level)
    if simultaneous:
        quantile = simultaneous_quantile(at.root(V), se, level)
    width = quantile * se
    return shown.table.assign(
        effect=at.value, se=se, lower=at.value - width, upper=at.value + width
    )


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
    coef, V = predictors.estimate.coef, predictors.conditional
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
        shift = np.zeros(Z.n_coef)
        shift[: len(constant)] = constant
        Z = replace(Z, X=Z.X - shift[Z.dense])
        for label in values:
            if label in known:
                values[label][rows] = known[label].evaluate(part)
                continue
            places = np.array(unit.places.get(label, []), dtype=np.int64)
            own = Z.select(unit.positions(places))
            if label == INTERCEPT:
                own, places = _constants(unit, constant, part.n_obs, label in labels)
                values[label][rows] = unit.constant
            values[label][rows] += own.times(coef[places])
            reduced = Reduced.of(own, places, V)
            variances[label][rows] = np.maximum(reduced.variance(reduced, V), 0.0)
            others = frozenset(unit.labels) - {label}
            noise = predictors.noise_of(unit, part, own, places.tolist(), others)
            variances[label][rows] += np.sum(noise**2, axis=1)
            variances[label][rows] += pieces.new_levels.get(label, 0.0)
    for label in values:
        yield label, values[label], np.sqrt(variances[label])


def _constants(
    unit: Predictor,
    constant: Vector,
    n: int,
    intercept: bool,  # noqa: FBT001
) -> tuple[ModelMatrix, Array]:
    row = constant.copy()
    if intercept:
        row[unit.design.slices[INTERCEPT]] = 1.0
    used = np.flatnonzero(row)
    return ModelMatrix(np.broadcast_to(row[used], (n, len(used)))), used + unit.columns.start


def working_residuals(predictors: Predictors, u: int, eta: Matrix, y: Vector) -> Vector:
    """Residuals of the mean on the scale of one predictor, (y - E y) / (dE y / deta_u), (n_obs,).

    Added to an effect they make the partial residuals; zero where the mean does not depend on it.
    """
    mean = predictors.family.mean
    slope = gradient(mean, eta)[:, u]
    moves = slope != 0
    return np.where(moves, (y - mean(eta)) / np.where(moves, slope, 1.0), 0.0)
