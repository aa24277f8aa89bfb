"""What survival analysis asks of a family: risk sets, the baseline they leave, jumps, scales.

Every method has the answer of a family whose likelihood is a sum over rows. A partial likelihood
(module `cox`) is none: it says here who is at risk, and takes up the baseline after the fit.

References: Cox (1972), doi:10.1111/j.2517-6161.1972.tb00899.x.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Protocol, Self

import numpy as np

from deepregress.errors import FamilyError
from deepregress.families import numerical
from deepregress.families.baseline import Baseline
from deepregress.families.risk_sets import AtRisk, RiskSets
from deepregress.families.standard import Latent
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response


class _WithMean(Protocol):
    def mean(self, eta: Matrix) -> Array: ...


class _WithSurvival(Protocol):
    def logsurvival(self, y: Array, eta: Matrix) -> Vector: ...


class Lifetimes(ABC):  # noqa: B024  # every method has a default
    """The part of a family that knows survival.

    Attributes
    ----------
    partial : bool
        Whether its likelihood is a partial one: the first predictor is the log hazard ratio, the
        second, without coefficients, the code of the stratum, and `with_baseline` completes it.
    """

    partial: ClassVar[bool] = False

    def risk_sets(self, response: Response, stratum: Vector) -> RiskSets:
        """Who is at risk when, of a partial likelihood; `stratum` (n_obs,)."""
        raise FamilyError("the likelihood of this family is a sum over rows, without risk sets")

    def with_baseline(self, at: AtRisk, X: Matrix) -> Self:
        """The family after a fit by partial likelihood; X (n_obs, n_coef) of the log hazard."""
        raise FamilyError("this family has no baseline beside its parameters")

    @property
    def known_baseline(self) -> Baseline:
        """The baseline of a model fitted by partial likelihood."""
        raise FamilyError("this family has no baseline beside its parameters")

    def expected_events(self: _WithSurvival, response: Response, eta: Matrix) -> Vector:
        """E, the cumulative hazard of each row from its entry to its end, (n_obs,)."""
        E = 0.0 - self.logsurvival(response.lower, eta)
        if response.entry is not None:
            E += self.logsurvival(response.entry, eta)
        return np.asarray(E)

    @property
    def jumps(self) -> Vector | None:
        """Times at which the distribution function jumps; None of a smooth one."""
        return None

    @property
    def latent_scale(self) -> Latent | None:
        """F of a model P(Y <= y) = F(z) in which z is the natural scale; None where there is none.

        Confidence limits of probabilities are symmetric in z.
        """
        return None

    def restricted_mean(self: numerical.Distributions, tau: Array, eta: Matrix) -> Vector:
        """E min(Y, tau), (n_obs,).

        Raises
        ------
        PredictionError
            The response can be negative.
        """
        return numerical.restricted_mean(self, tau, eta)

    def fitted_values(self: _WithMean, eta: Matrix) -> tuple[str, Array]:
        """What fitted values are, and their values (n_obs,) or (n_obs, d): the mean, as a rule."""
        return "fitted mean", np.asarray(self.mean(eta))
