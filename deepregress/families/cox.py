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
from typing import ClassVar, Self

import numpy as np
import scipy.special

from deepregress.bijectors import link
from deepregress.errors import FamilyError, FitError, PredictionError, ResponseError, suggestion
from deepregress.families.base import Family, Parameter, register
from deepregress.families.baseline import Baseline
from deepregress.families.risk_sets import TIES, AtRisk, RiskSets
from deepregress.families.standard import MINIMUM, Latent
from deepregress.groups import STRATUM
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

LOG_HAZARD = "log_hazard"


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
    partial: ClassVar[bool] = True

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
        return RiskSets.of(
            response.lower,
            response.lower == response.upper,
            entry=response.entry,
            strata=stratum,
            weights=response.weights,
            ties=self.ties,
        )

    def with_baseline(self, at: AtRisk, X: Matrix) -> Self:
        return replace(self, baseline=Baseline.of(at, X))

    def start(self, response: Response) -> Vector:
        return np.zeros(2)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return {LOG_HAZARD: 0.0, STRATUM: 0.0}

    # -- after the fit -----------------------------------------------------------------------------

    @property
    def jumps(self) -> Vector | None:
        return self.known_baseline.times

    @property
    def latent_scale(self) -> Latent | None:
        return MINIMUM

    @property
    def known_baseline(self) -> Baseline:
        if self.baseline is None:
            raise FitError("family 'coxph' has no baseline before it is fitted")
        return self.baseline

    def _cumulative_hazard(self, y: Array, eta: Matrix) -> Vector:
        y = np.asarray(y, dtype=np.float64)
        return np.asarray(self.known_baseline.at(y, eta[:, 1]) * np.exp(eta[:, 0]))

    def expected_events(self, response: Response, eta: Matrix) -> Vector:
        # of training rows: ties of Efron's see a part of the jump that they are in
        expected = self.risk_sets(response, eta[:, 1]).at(eta[:, 0]).expected
        return np.asarray(expected / response.weights)

    def fitted_values(self, eta: Matrix) -> tuple[str, Array]:
        last = float(self.known_baseline.times.max())
        return f"fitted mean of at most {last:g}", self.restricted_mean(np.array(last), eta)

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return 0.0 - self._cumulative_hazard(y, eta)

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        with np.errstate(divide="ignore"):
            return np.log(-np.expm1(self.logsurvival(y, eta)))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        with np.errstate(divide="ignore"):
            height = -np.log1p(-p) * np.exp(-eta[:, 0])
        return self.known_baseline.first(height, eta[:, 1])

    def restricted_mean(self, tau: Array, eta: Matrix) -> Vector:
        tau = np.broadcast_to(np.asarray(tau, dtype=np.float64), (len(eta),))
        total, ratio, baseline = np.zeros(len(eta)), np.exp(eta[:, 0]), self.known_baseline
        for jumps, own in baseline.blocks(eta[:, 1]):
            total[own] = baseline.panels(jumps, ratio[own], tau[own]).sum(axis=1)
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
