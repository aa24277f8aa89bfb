"""Quantities of the predicted response distribution: what `predict` can be asked for.

    mean, variance, median, quantile(p), cdf(y), pdf(y), logpdf(y), prob(level)  of f(y; theta(eta))
    survival S(y) = P(Y > y), cumhazard -log S(y), hazard f(y) / S(y); of counts f(y) / S(y - 1)
    rmst      E min(Y, tau), the integral of S from 0 to tau, of a response that is not negative
    params    theta = h(eta)                linear    eta                terms    its summands

Standard errors come from Cov(eta) by the delta method. Confidence limits of a parameter, and of a
mean that depends on one predictor, are those of the predictor carried through the link; of any
other mean they are symmetric. They are limits for the estimate, not prediction intervals: for these
ask for quantiles.

References: Oehlert (1992), doi:10.2307/2684406 (delta method).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import PredictionError, listing, suggestion
from deepregress.families.base import Family
from deepregress.inference.covariance import normal_quantile
from deepregress.linalg import Array, Matrix, Vector

AT = ("quantile", "cdf", "pdf", "logpdf", "prob", "survival", "hazard", "cumhazard", "rmst")
BY_PARAMETER = ("params", "linear", "terms")
OF_PREDICTORS = ("mean", "params", "linear")
"""What `Answer` gives, with or without errors."""
KINDS = ("mean", "median", "params", "linear", "terms", *AT, "variance")
SMOOTH_AT = ("quantile", "cdf", "survival", "hazard", "cumhazard", "rmst")
"""Of AT: what has standard errors (module `delta`)."""
WITH_ERROR = ("mean", "median", *BY_PARAMETER, *SMOOTH_AT)
AT_ONCE = 2**17
"""Rows times values of `at` in one call of the family."""


def check(
    which: str,
    *,
    at: object,
    uncertain: object,
    parameter: object,  # noqa: D417
    further: Sequence[str] = (),
) -> None:
    """Refuse combinations of `predict`'s arguments that have no meaning.

    `further` names the quantities that only this family has.

    Raises
    ------
    PredictionError
        Naming the argument and what is allowed.
    """
    kinds = (*KINDS, *further)
    if which not in kinds:
        raise PredictionError(
            f"predict(which={which!r}) is not one of {', '.join(kinds)}"
            f"{suggestion(str(which), kinds)}"
        )
    if at is not None and which not in AT:
        raise PredictionError(f"predict(which={which!r}) takes no at=; only {listing(AT)} do.")
    if uncertain and which not in WITH_ERROR:
        raise PredictionError(
            f"predict(which={which!r}) has no se= and interval=; {listing(WITH_ERROR)} have."
        )
    if parameter is not None and which not in BY_PARAMETER:
        raise PredictionError(
            f"predict(which={which!r}) takes no parameter=; only {listing(BY_PARAMETER)} do."
        )


def check_level(level: float | None, argument: str) -> None:
    """Refuse confidence levels outside (0, 1)."""
    if level is not None and not (isinstance(level, float) and 0.0 < level < 1.0):
        raise PredictionError(
            f"{argument} must be a level between 0 and 1, such as 0.95, got {level!r}."
        )


def rowwise(family: Family, which: str, eta: Matrix) -> Array:
    """Mean, median or variance of each row, (n_obs,); mean and variance of a vector (n_obs, d).

    Raises
    ------
    PredictionError
        A vector response has no median.
    """
    if which == "median":
        _refuse_vectors(family, which)
        return family.quantile(np.full(len(eta), 0.5), eta)
    return family.mean(eta) if which == "mean" else family.variance(eta)


def _refuse_vectors(family: Family, which: str) -> None:
    if family.multivariate:
        raise PredictionError(
            f"which={which!r} is for a response of one number; {family.name!r} has a vector."
        )


def further(
    family: Family, which: str, eta: Matrix, rows: Mapping[str, Array]
) -> Array | pd.DataFrame:
    """A quantity that only this family has: an array (n_obs, ...), or a table by column."""
    answer = family.further_quantity(which, eta, rows)
    return pd.DataFrame(answer) if isinstance(answer, dict) else answer


def at_values(family: Family, which: str, eta: Matrix, at: Array) -> Array:
    """Quantiles, probabilities or densities of each row at given values.

    Parameters
    ----------
    family : Family
    which : {"quantile", "cdf", "pdf", "logpdf", "prob", "survival", "hazard", "cumhazard", "rmst"}
    eta : Matrix, (n_obs, U)
    at : array
        A number: result (n_obs,). Shape (m,): the same m values for each row, result (n_obs, m).
        Shape (n_obs, m): values of each row, result (n_obs, m).

    Raises
    ------
    PredictionError
        Shapes that do not fit, probabilities outside [0, 1], "prob" of a continuous response.
    """
    values = _numbers(at)
    if which == "prob" and not family.discrete:
        raise PredictionError(
            f"which='prob' is for a discrete response; {family.name!r} is continuous: "
            "use 'cdf' or 'pdf'."
        )
    if which == "quantile" and (np.any(values < 0.0) or np.any(values > 1.0)):
        raise PredictionError(
            f"which='quantile': at must hold probabilities in [0, 1], got {at!r}."
        )
    n = len(eta)
    if values.ndim > 2 or (values.ndim == 2 and len(values) != n):
        raise PredictionError(
            f"at has shape {values.shape}; give a number, (m,) values, or ({n}, m) of the rows."
        )
    _refuse_vectors(family, which)
    function = _at_functions(family)[which]
    columns = np.broadcast_to(np.atleast_1d(values), (n, *np.atleast_1d(values).shape[-1:]))
    m = columns.shape[1]
    result = np.empty((n, m))
    # several columns in one call: a call costs more than a thousand rows
    width = max(1, AT_ONCE // max(n, 1))
    for start in range(0, m, width):
        block = columns[:, start : start + width]
        repeated = np.repeat(eta, block.shape[1], axis=0)
        result[:, start : start + width] = function(block.ravel(), repeated).reshape(block.shape)
    return result if values.ndim else result[:, 0]


def _numbers(at: Any) -> Array:
    try:
        values = np.asarray(at, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PredictionError(f"at must hold numbers, got {at!r}.") from error
    if np.isnan(values).any():
        raise PredictionError("at holds NaN.")
    return values


def _at_functions(family: Family) -> dict[str, Callable[[Array, Matrix], Vector]]:
    def density(y: Array, eta: Matrix) -> Vector:
        return np.exp(family.logpdf(y, eta))

    def cumulative_hazard(y: Array, eta: Matrix) -> Vector:
        # 0 - x, for a hazard of 0 is not -0
        return 0.0 - family.logsurvival(y, eta)

    def hazard(y: Array, eta: Matrix) -> Vector:
        before = family.logsurvival(y - 1.0 if family.discrete else y, eta)
        over = np.isneginf(before)
        return np.where(over, np.inf, np.exp(family.logpdf(y, eta) - np.where(over, 0.0, before)))

    return {
        "survival": family.survival,
        "cumhazard": cumulative_hazard,
        "rmst": family.restricted_mean,
        "hazard": hazard,
        "quantile": family.quantile,
        "cdf": family.cdf,
        "pdf": density,
        "prob": density,
        "logpdf": family.logpdf,
    }


def level_probabilities(
    family: Family, eta: Matrix, levels: tuple[str, ...] | None
) -> pd.DataFrame:
    """Probability of each level of a response of classes, (n_obs, n_levels).

    Raises
    ------
    PredictionError
        The response is no factor.
    """
    if not family.takes_levels:
        raise PredictionError(
            f"which='prob' of family {family.name!r} needs at=, the values whose probability is "
            "wanted."
            if family.discrete
            else f"which='prob' is for a discrete response; {family.name!r} is continuous: "
            "use 'cdf' or 'pdf'."
        )
    names, codes = family.classes(levels)
    return pd.DataFrame(at_values(family, "prob", eta, codes), columns=list(names))


@dataclass(frozen=True)
class Error:
    """Which uncertainty of an estimate is wanted: standard error, limits of a level, or neither."""

    se: bool
    interval: float | None

    @property
    def wanted(self) -> bool:
        """Whether there is anything beside the estimate."""
        return self.se or self.interval is not None

    def table(self, estimate: Vector, se: Vector, limits: tuple[Vector, Vector]) -> pd.DataFrame:
        """Columns estimate, se, lower, upper, as far as they are wanted."""
        columns = {"estimate": estimate}
        if self.se:
            columns["se"] = se
        if self.interval is not None:
            columns["lower"], columns["upper"] = limits
        return pd.DataFrame(columns)

    def width(self, se: Vector) -> Vector:
        """Half-width of the limits."""
        return normal_quantile(self.interval or 0.0) * se

    def symmetric(self, estimate: Vector, se: Vector) -> tuple[Vector, Vector]:
        """Limits estimate -+ z se."""
        return estimate - self.width(se), estimate + self.width(se)


@dataclass(frozen=True, eq=False)
class Answer:
    """Answers of `predict` at given predictors.

    Parameters
    ----------
    family : Family
    eta : Matrix, (n_obs, U)
    cov : Matrix, (n_obs, U, U), or None
        Covariance of the predictors, where the error is wanted.
    error : Error
    """

    family: Family
    eta: Matrix
    cov: Matrix | None
    error: Error

    def of(self, which: str, units: Sequence[int], parameter: str | None) -> Vector | pd.DataFrame:
        """Mean, median, variance of each row; its parameters or predictors, those of `units`.

        Where `parameter` names a single one the answer is its own, else a table by parameter.
        """
        if which not in BY_PARAMETER:
            return self._shown(lambda eta: rowwise(self.family, which, eta))
        columns: dict[tuple[str, ...], Vector] = {}
        for u in units:
            name = self.family.parameters[u].name
            answer = self._linear(u) if which == "linear" else self._parameter(name)
            if name == parameter:
                return answer
            if isinstance(answer, pd.DataFrame):
                columns |= {(name, str(each)): answer[each].to_numpy() for each in answer}
            else:
                columns[(name,)] = answer
        return by_key(columns)

    def _parameter(self, name: str) -> Vector | pd.DataFrame:
        return self._shown(lambda eta: self.family.parameters_at(eta)[name])

    def _linear(self, u: int) -> Vector | pd.DataFrame:
        estimate = self.eta[:, u]
        if self.cov is None:
            return estimate
        se = np.sqrt(np.maximum(self.cov[:, u, u], 0.0))
        return self.error.table(estimate, se, self.error.symmetric(estimate, se))

    def _shown(self, function: Callable[[Matrix], Vector]) -> Vector | pd.DataFrame:
        estimate = function(self.eta)
        if estimate.ndim > 1:
            return self._by_element(function, estimate.shape[1])
        if self.cov is None:
            return estimate
        slope = gradient(function, self.eta)
        variance = np.einsum("iu,iuv,iv->i", slope, self.cov, slope)
        se = np.sqrt(np.maximum(variance, 0.0))
        limits = self.error.symmetric(estimate, se)
        depends = np.flatnonzero(np.any(slope != 0.0, axis=0))
        if len(depends) == 1:
            limits = self._through_link(function, int(depends[0]))
        return self.error.table(estimate, se, limits)

    def _by_element(self, function: Callable[[Matrix], Matrix], n: int) -> pd.DataFrame:
        """A vector-valued quantity as a table by element."""
        columns: dict[tuple[str, ...], Vector] = {}
        for j, name in zip(range(n), self.family.elements, strict=True):
            answer = self._shown(_column(function, j))
            if isinstance(answer, pd.DataFrame):
                columns |= {(name, str(each)): answer[each].to_numpy() for each in answer}
            else:
                columns[(name,)] = answer
        return by_key(columns)

    def _through_link(self, function: Callable[[Matrix], Vector], u: int) -> tuple[Vector, Vector]:
        """Limits of the one predictor that the function depends on, carried through it."""
        cov = np.zeros(len(self.eta)) if self.cov is None else self.cov[:, u, u]
        width = self.error.width(np.sqrt(np.maximum(cov, 0.0)))
        below, above = self.eta.copy(), self.eta.copy()
        below[:, u] -= width
        above[:, u] += width
        ends = np.sort(np.column_stack([function(below), function(above)]), axis=1)
        return ends[:, 0], ends[:, 1]


def _column(function: Callable[[Matrix], Matrix], j: int) -> Callable[[Matrix], Vector]:
    return lambda eta: function(eta)[:, j]


def by_key(columns: dict[tuple[str, ...], Vector]) -> pd.DataFrame:
    """A table with one level of columns, or several."""
    if all(len(key) == 1 for key in columns):
        return pd.DataFrame({key[0]: column for key, column in columns.items()})
    return pd.DataFrame(columns)


def gradient(function: Callable[[Matrix], Vector], eta: Matrix) -> Matrix:
    """Gradient with respect to the predictors, (n_obs, U), by central differences.

    Steps eps^(1/3) max(1, |eta|) balance rounding and truncation.
    """
    slope = np.empty_like(eta)
    for u in range(eta.shape[1]):
        step = np.cbrt(np.finfo(float).eps) * np.maximum(1.0, np.abs(eta[:, u]))
        above, below = eta.copy(), eta.copy()
        above[:, u] += step
        below[:, u] -= step
        slope[:, u] = (function(above) - function(below)) / (above[:, u] - below[:, u])
    return slope
