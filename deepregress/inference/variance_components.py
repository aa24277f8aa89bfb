"""Smooths and random effects as variance components (METHODS 4).

A quadratic penalty is a normal prior on the coefficients, c ~ N(0, sd^2 S^-), with

    sd_j^2 = phi / sp_j = 1 / lam_j,    log sd_j = (log phi - log sp_j) / 2

for S as the basis has it, before mgcv's rescaling: for random effects S is the identity and sd the
standard deviation of the effects. Limits are symmetric for log sd with V_rho (module `corrected`).

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 6.6 and 7.7 (mgcv's gam.vcomp).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from deepregress.inference.corrected import SmoothingUncertainty
from deepregress.inference.covariance import normal_quantile
from deepregress.linalg import Matrix, Vector
from deepregress.penalty import PlacedPenalty, as_matrix
from deepregress.prediction import Predictor, Predictors
from deepregress.solvers.base import Solution
from deepregress.terms.smooth import SmoothColumns

RESIDUAL = "Residual"
"""Term under which the constant dispersion stands, as in lme4."""
SAME = 1e-8
"""Relative difference up to which a penalty is the raw one times a number."""
SHARE = 1e-3
"""Of a direction in which V is flat, from which on a standard deviation has no limits."""


def variance_components(
    predictors: Predictors, solution: Solution, uncertainty: SmoothingUncertainty, *, level: float
) -> pd.DataFrame:
    """Standard deviations with limits, by (parameter, term): one per penalty, and of residuals.

    Where V is flat the limits are 0 and infinity; a fixed smoothing parameter has the uncertainty
    of the dispersion only. After a fit by ML these are ML estimates, the residual's too.

    Returns
    -------
    DataFrame
        std_dev, lower, upper.
    """
    names = [name for unit in predictors.units for name in unit.penalty_names]
    penalties = [(unit, p) for unit in predictors.units for p in unit.design.penalties]
    scales = np.array([raw_scale(unit, p) for unit, p in penalties])
    std_dev = np.sqrt(scales * uncertainty.phi / solution.sp)
    n_lam, n_est = len(solution.sp), len(uncertainty.estimated)
    weights = np.zeros((n_lam, len(uncertainty.hessian)))
    weights[list(uncertainty.estimated), range(n_est)] = -0.5
    if solution.dispersion is not None:
        names.append((str(predictors.family.dispersion), RESIDUAL))
        std_dev = np.append(std_dev, np.sqrt(uncertainty.phi))
        weights = np.vstack([weights, np.zeros(weights.shape[1])])
        weights[:, n_est] = 0.5
    width = normal_quantile(level) * _log_errors(weights, uncertainty)
    with np.errstate(over="ignore"):
        limits = {"lower": std_dev * np.exp(-width), "upper": std_dev * np.exp(width)}
    index = pd.MultiIndex.from_tuples(names, names=["parameter", "term"])
    return pd.DataFrame({"std_dev": std_dev, **limits}, index=index)


def raw_scale(unit: Predictor, p: PlacedPenalty) -> float:
    """The number by which the penalty as the basis has it exceeds the placed one."""
    for block, index in unit.blocks.values():
        recipe = block.recipe
        if index.start != p.index.start or not isinstance(recipe, SmoothColumns):
            continue
        for raw in recipe.basis.penalties:
            if raw.ndim == 1 and p.S.ndim == 1 and recipe.Z is None:
                S, own = raw, p.S[: block.n_coef]
                scale = float(S.sum() / own.sum())
            else:
                S, own = as_matrix(raw), as_matrix(p.S)[: block.n_coef, : block.n_coef]
                S = S if recipe.Z is None else recipe.Z.T @ S @ recipe.Z
                scale = float(np.trace(S) / np.trace(own))
            if np.abs(S - scale * own).max() <= SAME * np.abs(S).max():
                return scale
    return 1.0


def _log_errors(weights: Matrix, uncertainty: SmoothingUncertainty) -> Vector:
    """Standard errors of weights @ rho; infinite where rho is unknown in such a direction."""
    flat, root = uncertainty.root()
    errors = np.sqrt(np.sum((weights @ root) ** 2, axis=1))
    errors[np.abs(weights @ flat).max(axis=1, initial=0.0) > SHARE] = np.inf
    return np.asarray(errors)
