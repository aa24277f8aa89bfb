"""The proportional hazards model by the partial likelihood, as R's coxph (METHODS 8).

    hazard(y | x) = baseline(y) exp(log_hazard(x)),   a baseline for each stratum

The partial likelihood (module `risk_sets`) has no baseline and is no sum over rows: the objective
asks for its risk sets. After the fit the family holds the cumulative baseline hazard, a step
function with jumps sum c / Z at the times of events, from which survival probabilities and
quantiles come. A smooth baseline, hazards, densities and censoring of other kinds than on the right
are those of the family `cox`.

References: Cox (1972), doi:10.1111/j.2517-6161.1972.tb00899.x; Breslow (1974), doi:10.2307/2529620.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import scipy.special

from deepregress.bijectors import link
from deepregress.errors import FamilyError, FitError, PredictionError, ResponseError, suggestion
from deepregress.families.base import Family, Parameter, register
from deepregress.families.risk_sets import TIES, AtRisk, RiskSets
from deepregress.groups import STRATUM
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

LOG_HAZARD = "log_hazard"


@dataclass(frozen=True, eq=False)
class Baseline:
    """Cumulative baseline hazards of all strata, one after the other.

    Parameters
    ----------
    strata, times, cumulative : Vector, (K,)
        Stratum, time and height after each jump.
    """

    strata: Vector
    times: Vector
    cumulative: Vector

    @classmethod
    def of(cls, at: AtRisk) -> Baseline:
        """From the jumps of a partial likelihood."""
        sets, cumulative = at.sets, np.cumsum(at.increments)
        first = np.searchsorted(sets.strata, sets.strata)
        before = np.concatenate([[0.0], cumulative])[first]
        return cls(sets.strata, sets.times, cumulative - before)

    def at(self, y: Vector, stratum: Vector) -> Vector:
        """Height at y, (n,)."""
        value = np.zeros(len(y))
        for s, own in self._parts(stratum):
            heights = np.concatenate([[0.0], self.cumulative[self.strata == s]])
            value[own] = heights[np.searchsorted(self.times[self.strata == s], y[own], "right")]
        return value

    def first(self, height: Vector, stratum: Vector) -> Vector:
        """The first time at which a height is reached, (n,); infinite where it never is."""
        y = np.full(len(height), np.inf)
        for s, own in self._parts(stratum):
            times = np.append(self.times[self.strata == s], np.inf)
            # a height that is a jump's but for rounding is reached there
            reached = self.cumulative[self.strata == s] * (1.0 + 1e-12)
            y[own] = times[np.searchsorted(reached, height[own], side="left")]
        return y

    def _parts(self, stratum: Vector) -> list[tuple[float, Array]]:
        known = np.unique(self.strata)
        new = np.setdiff1d(stratum, known)
        if new.size:
            raise PredictionError(
                f"the stratum {new[0]:g} had no event in training; there are "
                f"{', '.join(f'{s:g}' for s in known)}"
            )
        return [(float(s), np.flatnonzero(stratum == s)) for s in known]


@register
@dataclass(frozen=True)
class CoxPH(Family):
    """Proportional hazards by the partial likelihood, with the baseline as a step function.

    Effects are log hazard ratios. A term `strata(g)` gives each level of g a baseline of its own.
    Rows may be right censored and have an entry time.

    Attributes
    ----------
    ties : {"efron", "breslow"}
    baseline : Baseline or None
        None before the fit.
    """

    ties: str = "efron"
    baseline: Baseline | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "coxph"
    about: ClassVar[str] = "proportional hazards, partial likelihood"
    support: ClassVar[str] = "finite numbers, right censored"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        identity = link("identity")
        return (
            Parameter(LOG_HAZARD, identity, "log hazard ratio", intercept=False),
            Parameter(STRATUM, identity, "code of the stratum", intercept=False),
        )

    def check(self, response: Response) -> None:
        super().check(response)
        rows = response.rows()
        if "left" in rows or "interval" in rows or response.exit is not None:
            raise ResponseError(
                f"{response.label!r}: the partial likelihood takes exact and right censored rows "
                "with entry times; family 'cox' takes rows of every kind"
            )
        if not np.any(response.lower == response.upper):
            raise ResponseError(f"{response.label!r} has no event")

    def risk_sets(self, response: Response, stratum: Vector) -> RiskSets:
        """Who is at risk when."""
        return RiskSets.of(
            response.lower,
            response.lower == response.upper,
            entry=response.entry,
            strata=stratum,
            weights=response.weights,
            ties=self.ties,
        )

    def fitted(self, response: Response, eta: Matrix) -> Family:
        """The family with the baseline at fitted predictors (n_obs, 2)."""
        at = self.risk_sets(response, eta[:, 1]).at(eta[:, 0])
        return replace(self, baseline=Baseline.of(at))

    def start(self, response: Response) -> Vector:
        return np.zeros(2)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return {LOG_HAZARD: 0.0, STRATUM: 0.0}

    # -- after the fit -----------------------------------------------------------------------------

    @property
    def _known(self) -> Baseline:
        if self.baseline is None:
            raise FitError(
                "family 'coxph' has no likelihood of single rows: networks and sparse terms need "
                "family='cox', the full likelihood"
            )
        return self.baseline

    def _cumulative_hazard(self, y: Array, eta: Matrix) -> Vector:
        y = np.asarray(y, dtype=np.float64)
        return np.asarray(self._known.at(y, eta[:, 1]) * np.exp(eta[:, 0]))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return 0.0 - self._cumulative_hazard(y, eta)

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log(-np.expm1(self.logsurvival(y, eta)))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        with np.errstate(divide="ignore"):
            height = -np.log1p(-p) * np.exp(-eta[:, 0])
        return self._known.first(height, eta[:, 1])

    def restricted_mean(self, tau: Array, eta: Matrix) -> Vector:
        tau = np.broadcast_to(np.asarray(tau, dtype=np.float64), (len(eta),))
        times = np.unique(self._known.times[self._known.times > 0.0])
        ends = np.concatenate([[0.0], times, [np.inf]])
        total = np.zeros(len(eta))
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            reached = start < tau
            if not reached.any():
                break
            S = np.exp(self.logsurvival(np.full(len(eta), start), eta))
            total += np.where(reached, S * (np.minimum(tau, end) - start), 0.0)
        return total

    def logpdf(self, y: Array, eta: Matrix) -> Vector:
        raise PredictionError(
            "the baseline of family 'coxph' is a step function, without hazard and density; "
            "family='cox' has a smooth one"
        )

    def mean(self, eta: Matrix) -> Vector:
        raise PredictionError(
            "the mean of family 'coxph' is not known beyond the last time; ask for "
            "which='linear', 'survival', 'median' or 'rmst'"
        )

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        """Of the likelihood of each row given the baseline, a Poisson likelihood of its events."""
        value = self.row_log_likelihood(rows, eta)
        W, gradient = np.zeros((len(eta), 3)), np.zeros((len(eta), 2))
        W[:, 0] = self._exposure(rows, eta)
        gradient[:, 0] = _events(rows) - W[:, 0]
        return value, gradient, W

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """d eta - E, (n_obs,), which lacks the logarithms of the jumps."""
        return np.asarray(_events(rows) * eta[:, 0] - self._exposure(rows, eta))

    def _exposure(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        hazard = self._cumulative_hazard(rows["lower"], eta)
        if "entry" in rows:
            hazard -= self._cumulative_hazard(rows["entry"], eta)
        return hazard

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """2 (E - d - d log(E / d)): squared deviance residuals of a count d with the mean E."""
        d, expected = _events(rows), self._exposure(rows, eta)
        return np.asarray(2.0 * (expected - d - scipy.special.xlogy(d, np.where(d, expected, 1.0))))


def coxph(ties: str = "efron") -> CoxPH:
    """The family of R's coxph, with another way to treat ties.

    Parameters
    ----------
    ties : {"efron", "breslow"}

    Raises
    ------
    FamilyError
        There is no such way.
    """
    if ties not in TIES:
        raise FamilyError(f"ties={ties!r}: one of {', '.join(TIES)}{suggestion(str(ties), TIES)}")
    return CoxPH(CoxPH.default_parameters(), ties=ties)


def _events(rows: Mapping[str, Array]) -> Vector:
    """1 where a row is exact."""
    return np.asarray(rows["exact"]) if "upper" in rows else np.ones(len(rows["lower"]))
