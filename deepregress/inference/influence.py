"""What protected covariates say about the means of a model (METHODS 5).

The evaluation model is a generalised linear model of the fitted means m_i, of the same family and
link, with the protected covariates x_i alone:

    h(g0 + x_i' g)  fitted to m_i by quasi-likelihood:
    sum_i a_i (dh_i / V_i) (m_i - h_i) (1, x_i) = 0

At g = 0 all h_i are equal, so g = 0 solves it if and only if  sum_i a_i (x_i - mean(x)) m_i = 0:
the constraint that `solvers.constrained` fits under.

References: Ruegamer, Kolb et al. (2024), ICML, arXiv 2405.02475.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from deepregress.errors import FitError
from deepregress.families.base import Family
from deepregress.linalg import Matrix, Vector
from deepregress.solvers.constrained import slopes

MAX_STEPS = 100
CONVERGED = 1e-10
"""Newton step, relative to the predictor, below which the evaluation model has converged."""


@dataclass(frozen=True, eq=False)
class Protection:
    """Protected covariates of a model, and their influence before and after.

    Parameters
    ----------
    formula : str
        The covariates as the user wrote them.
    names : tuple of str
        Their columns.
    before, after : Vector, (q,)
        Coefficients in the evaluation model of the fit without and with protection.
    multipliers : Vector, (q,)
        Of the constraints: log-likelihood per unit of mean times standard deviation.
    """

    formula: str
    names: tuple[str, ...]
    before: Vector = field(repr=False)
    after: Vector = field(repr=False)
    multipliers: Vector = field(repr=False)

    @property
    def influence(self) -> pd.DataFrame:
        """Before and after by covariate."""
        index = pd.Index(self.names, name="covariate")
        return pd.DataFrame({"before": self.before, "after": self.after}, index=index)


def evaluation_coefficients(
    family: Family, mean: Vector, columns: Matrix, *, weights: Vector, others: Vector
) -> Vector:
    """Coefficients g of the evaluation model, (q,), per unit of each covariate.

    Parameters
    ----------
    family : Family
        A generalised linear model in its first parameter.
    mean : Vector, (n_obs,)
        Fitted values of that parameter.
    columns : Matrix, (n_obs, q)
        Protected covariates, without a constant.
    weights : Vector, (n_obs,)
    others : Vector, (U - 1,)
        Constant values of the family's other predictors.

    Raises
    ------
    FitError
        The evaluation model did not converge: the covariates separate the means, say.
    """
    link = family.parameters[0].link
    centre = np.average(columns, weights=weights, axis=0)
    scale = np.sqrt(np.average((columns - centre) ** 2, weights=weights, axis=0))
    Z = np.column_stack([np.ones(len(mean)), (columns - centre) / scale])
    coef = np.zeros(Z.shape[1])
    coef[0] = float(link.forward(np.float64(np.average(mean, weights=weights))))
    for _ in range(MAX_STEPS):
        eta = np.column_stack([Z @ coef, np.broadcast_to(others, (len(mean), len(others)))])
        fitted, slope, _ = slopes(link, eta[:, 0])
        W = weights * family.fisher_weight(eta)
        score = Z.T @ (W * (mean - fitted) / slope)
        step = np.linalg.lstsq(Z.T @ (W[:, None] * Z), score, rcond=None)[0]
        coef = coef + step
        if not np.isfinite(coef).all():
            break
        if np.abs(step).max() < CONVERGED * (1.0 + np.abs(coef).max()):
            return np.asarray(coef[1:] / scale)
    raise FitError("the evaluation model of the protected covariates did not converge")
