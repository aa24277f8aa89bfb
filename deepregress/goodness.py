"""How well a model fits its training rows, in single numbers: the last lines of `summary`.

    deviance explained   1 - D / D0,  D = sum_i w_i d_i, d_i = 2 (sup l_i - l_i) over the first
                         predictor; D0 with a constant (and the offset) for the first predictor, all
                         others as fitted: for an exponential family the constant is the mean of y
    adjusted R^2         1 - v / v0, the unbiased variances of y - E(y) (with n - edf degrees of
                         freedom) and of y; where one predictor has terms

Reference: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 3.1.8 and 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.optimize

from deepregress.data import Frame
from deepregress.disk.scratch import PART_ROWS, parts
from deepregress.families.base import Family
from deepregress.groups import group_of
from deepregress.inference.covariance import Inference
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictor, Predictors, chunks
from deepregress.response import Response
from deepregress.solvers.base import Solution


@dataclass(frozen=True, eq=False)
class Fit:
    """What the tables are made of."""

    predictors: Predictors
    solution: Solution
    inference: Inference

    @property
    def edf_total(self) -> float:
        """Effective degrees of freedom of all coefficients and of what the family has learnt.

        A constant dispersion counts one.
        """
        return float(self.inference.edf.sum()) + self.predictors.family.fitted_edf

    @property
    def aic(self) -> float:
        """-2 loglik + 2 edf_total."""
        return -2.0 * self.solution.loglik + 2.0 * self.edf_total

    @property
    def scale(self) -> float | None:
        """Constant dispersion phi, as R prints it."""
        family, d = self.predictors.family, self.solution.dispersion
        if d is None or family.dispersion is None:
            return None
        eta = np.float64(self.solution.coef[d])
        return family.dispersion_of(float(family.parameter(family.dispersion).link.inverse(eta)))

    def residual_df(self, weight: float) -> float:
        """Sum of weights minus effective degrees of freedom, a constant dispersion not counted."""
        edf = self.inference.edf
        d = self.solution.dispersion
        return weight - float(edf.sum()) + (0.0 if d is None else float(edf[d]))

    def test_df(self, weight: float) -> float | None:
        """Residual degrees of freedom where tests are t and F."""
        return None if self.solution.dispersion is None else self.residual_df(weight)

    def tested(self, unit: Predictor) -> bool:
        """Whether a predictor is tested: not where it is a constant dispersion or fixed."""
        return self.solution.dispersion not in unit.index and bool(unit.index)


@dataclass(frozen=True, eq=False)
class Goodness:
    """How well the model fits the training rows.

    Parameters
    ----------
    n_obs : int
    weight : float
        Sum of the rows' weights.
    deviance_explained : float or None
        None for a first group of several predictors, which no constant stands for, and where a
        deviance is not finite.
    r_squared : float or None
        Adjusted R^2 where one predictor has terms and every response is one exact number.
    effect_sd : dict
        (parameter, label) of a deep term -> sd of its effect over the rows.
    """

    n_obs: int
    weight: float
    deviance_explained: float | None
    r_squared: float | None
    effect_sd: dict[tuple[str, str], float]

    @classmethod
    def of(
        cls,
        model: Fit,
        frame: Frame,
        response: Response,
        eta: Matrix,
        offset: Vector | None = None,
    ) -> Goodness:
        """Compare the fit with the constant that fits best.

        Of data on disk `frame` holds some of the rows, from which the sd of deep effects comes, and
        `offset` (n_obs,) is that of the first predictor in all of them.
        """
        if offset is None:
            offset = np.zeros(response.n_obs)
            for block in model.predictors.units[0].design.offsets:
                offset += block.evaluate(frame)
        return cls(
            response.n_obs,
            float(response.weights.sum()),
            deviance_explained(model.predictors.family, response, eta, offset),
            _r_squared(model, response, eta),
            _effect_sd(model.predictors, frame),
        )


def deviance_explained(
    family: Family, response: Response, eta: Matrix, offset: Vector
) -> float | None:
    """Share of the deviance that the first predictor explains beyond a constant and its offset.

    Parameters
    ----------
    family : Family
    response : Response
    eta : Matrix, (n_obs, U)
    offset : Vector, (n_obs,)
        Of the first predictor.
    """
    first = [p for p in family.parameters if group_of(p.name) == family.groups[0]]
    if len(first) > 1 and type(family).deviance is Family.deviance:
        return None
    w, columns = response.weights, response.rows()
    if family.exponential and len(columns) == 1:
        y, null_mean = response.lower, _null_mean(family, response, offset)

        def explained(rows: slice) -> float:
            unit = family.unit_deviance(y[rows], family.mean(eta[rows]))
            return float(w[rows] @ (unit / family.dispersions(eta[rows])))

        def without(rows: slice) -> float:
            unit = family.unit_deviance(y[rows], null_mean(rows))
            return float(w[rows] @ (unit / family.dispersions(eta[rows])))

        deviance, null = _sum(response, explained), _sum(response, without)
    else:
        own = partial(_rows_of, columns)
        deviance = _sum(response, lambda r: float(w[r] @ family.deviance(own(r), eta[r])))
        fitted = _loglik(family, response, lambda r: eta[r])
        null = deviance + 2.0 * (fitted - _null_loglik(family, response, eta, offset))
    if not np.isfinite(deviance) or not np.isfinite(null):
        return None
    return 1.0 - deviance / null if null > 0 else 0.0


def _null_mean(family: Family, response: Response, offset: Vector) -> Callable[[slice], Vector]:
    """Means of the model with an intercept and the offset of the first predictor, of some rows."""
    y, w = response.lower, response.weights
    total = float(w.sum())
    if not np.ptp(offset):
        constant = _sum(response, lambda rows: float(w[rows] @ y[rows])) / total
        return lambda rows: np.full(len(y[rows]), constant)
    start = family.start(response)

    def mean(shift: float, rows: slice) -> Vector:
        moved = np.tile(start, (len(y[rows]), 1))
        moved[:, 0] += offset[rows] + shift
        return family.mean(moved)

    def deviance(shift: float) -> float:
        return _sum(
            response,
            lambda rows: float(w[rows] @ family.unit_deviance(y[rows], mean(shift, rows))),
        )

    centre = -_sum(response, lambda rows: float(w[rows] @ offset[rows])) / total
    found = scipy.optimize.minimize_scalar(deviance, bracket=(centre - 1.0, centre + 1.0))
    return partial(mean, float(found.x))


def _null_loglik(family: Family, response: Response, eta: Matrix, offset: Vector) -> float:
    """Largest log-likelihood with a constant and the offset for the first predictor.

    A first group of several predictors has its intercept-only values.
    """
    w = response.weights
    first = [p for p in family.parameters if group_of(p.name) == family.groups[0]]

    def moved(to: Vector | float, rows: slice) -> Matrix:
        changed = eta[rows].copy()
        changed[:, : len(first)] = to
        if len(first) == 1:
            changed[:, 0] += offset[rows]
        return changed

    if len(first) > 1:
        start = family.start(response)[: len(first)]
        return _loglik(family, response, partial(moved, start))
    left = eta[:PART_ROWS, 0] - offset[:PART_ROWS]
    centre = _sum(response, lambda r: float(w[r] @ (eta[r, 0] - offset[r]))) / float(w.sum())
    width = max(float(np.std(left)), 0.1)

    def loss(constant: float) -> float:
        return -_loglik(family, response, partial(moved, constant))

    found = scipy.optimize.minimize_scalar(loss, bracket=(centre - width, centre + width))
    return -float(found.fun)


def _loglik(family: Family, response: Response, eta: Callable[[slice], Matrix]) -> float:
    w, columns = response.weights, response.rows()
    return _sum(
        response,
        lambda r: float(w[r] @ family.row_log_likelihood(_rows_of(columns, r), eta(r))),
    )


def _rows_of(columns: Mapping[str, Array], rows: slice) -> dict[str, Array]:
    return {name: column[rows] for name, column in columns.items()}


def _sum(response: Response, of_rows: Callable[[slice], float]) -> float:
    """A sum over all rows, which may be in a file."""
    return sum(of_rows(rows) for rows in parts(response.n_obs))


def _r_squared(model: Fit, response: Response, eta: Matrix) -> float | None:
    """Adjusted R^2, None where it has no meaning."""
    family, w = model.predictors.family, response.weights
    tested = [unit for unit in model.predictors.units if model.tested(unit)]
    if len(tested) != 1 or not response.plain or response.lower.ndim > 1:
        return None
    if family.elements:
        return None
    if response.trials is not None or response.levels is not None and not family.takes_levels:
        return None
    y, total = response.lower, float(w.sum())

    def left(rows: slice) -> Vector:
        return y[rows] - family.mean(eta[rows])

    def spread_of(values: Callable[[slice], Vector]) -> float:
        middle = _sum(response, lambda r: float(w[r] @ values(r))) / total
        return _sum(response, lambda r: float(w[r] @ (values(r) - middle) ** 2))

    spread, unexplained = spread_of(lambda rows: y[rows]), spread_of(left)
    left_over = model.residual_df(total)
    if not (spread > 0 and left_over > 0 and np.isfinite(unexplained)):
        return None
    return 1.0 - unexplained * (total - 1.0) / (spread * left_over)


def _effect_sd(predictors: Predictors, frame: Frame) -> dict[tuple[str, str], float]:
    found = {}
    for unit in predictors.units:
        for label in unit.effects:
            others = frozenset(unit.labels) - {label}
            parts = [
                unit.rows(part, others).effects.get(label, np.zeros(part.n_obs))
                for _, part in chunks(frame)
            ]
            found[unit.parameter, label] = float(np.concatenate(parts).std())
    return found
