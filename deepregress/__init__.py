"""Semi-structured distributional regression with R-style formulas.

Every parameter of a response distribution is an additive predictor of linear,
smooth and deep terms::

    import deepregress as dr

    model = dr.fit("y ~ s(age) + deep(x)", family="normal", data=df)

Names are loaded on first use (PEP 562), so that ``import deepregress`` costs
milliseconds; TensorFlow is loaded by the first fit.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepregress import datasets as datasets
    from deepregress import errors as errors
    from deepregress import families as families
    from deepregress import networks as networks
    from deepregress import orthogonal as orthogonal
    from deepregress import survival_metrics as survival_metrics
    from deepregress.cross_validation import cross_validate as cross_validate
    from deepregress.deep.ensemble import Ensemble as Ensemble
    from deepregress.deep.ensemble_fit import ensemble as ensemble
    from deepregress.errors import ConvergenceWarning as ConvergenceWarning
    from deepregress.errors import DeepRegressError as DeepRegressError
    from deepregress.errors import DeepRegressWarning as DeepRegressWarning
    from deepregress.estimates import anova as anova
    from deepregress.estimator import DistributionalRegressor as DistributionalRegressor
    from deepregress.families import Family as Family
    from deepregress.families.cox import coxph as coxph
    from deepregress.families.mixture import mixture as mixture
    from deepregress.families.positive import survreg as survreg
    from deepregress.fitted import FittedModel as FittedModel
    from deepregress.loading import load as load
    from deepregress.model import fit as fit
    from deepregress.scoring import compare as compare
    from deepregress.solvers.base import Training as Training
    from deepregress.sparse.path import path as path
    from deepregress.survival.competing_risks import cumulative_incidence as cumulative_incidence
    from deepregress.survival.followup import split_at as split_at
    from deepregress.survival.plotting import plot_calibration as plot_calibration
    from deepregress.survival.plotting import plot_cumulative_incidence as plot_cumulative_incidence
    from deepregress.survival.plotting import plot_survival as plot_survival
    from deepregress.survival.proportional_hazards import proportionality as proportionality
    from deepregress.survival.proportional_hazards import (
        schoenfeld_residuals as schoenfeld_residuals,
    )

__version__ = "0.1.0"

# Public name -> the module that holds it; a name that is a module holds itself.
_HOME = {
    "ConvergenceWarning": "deepregress.errors",
    "DeepRegressError": "deepregress.errors",
    "DeepRegressWarning": "deepregress.errors",
    "DistributionalRegressor": "deepregress.estimator",
    "Ensemble": "deepregress.deep.ensemble",
    "Family": "deepregress.families",
    "FittedModel": "deepregress.fitted",
    "Training": "deepregress.solvers.base",
    "anova": "deepregress.estimates",
    "brant_test": "deepregress.inference.binary_splits",
    "compare": "deepregress.scoring",
    "cross_validate": "deepregress.cross_validation",
    "coxph": "deepregress.families.cox",
    "cumulative_incidence": "deepregress.survival.competing_risks",
    "datasets": "deepregress.datasets",
    "ensemble": "deepregress.deep.ensemble_fit",
    "errors": "deepregress.errors",
    "families": "deepregress.families",
    "fit": "deepregress.model",
    "load": "deepregress.loading",
    "mixture": "deepregress.families.mixture",
    "networks": "deepregress.networks",
    "nominal_test": "deepregress.inference.nominal_effects",
    "orthogonal": "deepregress.orthogonal",
    "path": "deepregress.sparse.path",
    "plot_calibration": "deepregress.survival.plotting",
    "plot_cumulative_incidence": "deepregress.survival.plotting",
    "plot_survival": "deepregress.survival.plotting",
    "proportionality": "deepregress.survival.proportional_hazards",
    "scale_test": "deepregress.inference.nominal_effects",
    "schoenfeld_residuals": "deepregress.survival.proportional_hazards",
    "split_at": "deepregress.survival.followup",
    "survival_metrics": "deepregress.survival_metrics",
    "survreg": "deepregress.families.positive",
}

__all__ = [
    "__version__",
    *sorted(_HOME),
]


def __getattr__(name: str) -> object:
    """Import the module behind a public name at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'deepregress' has no attribute {name!r}")
    home = import_module(_HOME[name])
    value = home if _HOME[name] == f"deepregress.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
