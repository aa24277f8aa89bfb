"""Comparison of nested models by their deviances (METHODS 4).

    deviance   D = sum_i w_i d(y_i, mean_i) of generalised linear models, else -2 loglik
    residual   n - (edf1 + edf2 - edf)      degrees of freedom, as mgcv's anova counts them
    test       (D_a - D_b) / phi ~ chi2(df),  or over df and an estimated phi ~ F(df, residual),

phi of the model with the fewest residual degrees of freedom. The p-values hold for terms that are
not penalised to zero; for random effects they are far too small: test these in one model.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 6.12.2;
Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from deepregress.data import Response
from deepregress.errors import FitError, suggestion
from deepregress.families.base import Family
from deepregress.linalg import Matrix, Vector

TESTS = ("auto", "Chisq", "F")


@dataclass(frozen=True, eq=False)
class Compared:
    """What a comparison needs of a model.

    Parameters
    ----------
    label : str
        Its formulas.
    family : Family
    response : Response
    eta : Matrix, (n_obs, U)
        Predictors of the training rows.
    loglik : float
    df : float
        edf1 + edf2 - edf of all coefficients.
    scale : float or None
        Constant dispersion that was estimated.
    generalized_linear : bool
        Whether it is one up to smooth terms: an exponential family of which the mean is modelled.
    criterion : str
        "REML" or "ML".
    """

    label: str
    family: Family
    response: Response
    eta: Matrix
    loglik: float
    df: float
    scale: float | None
    generalized_linear: bool
    criterion: str

    @property
    def deviance(self) -> float:
        """sum_i w_i d(y_i, mean_i), without the dispersion."""
        rows = self.response.rows()
        if len(rows) == 1:
            d = self.family.unit_deviance(self.response.lower, self.family.mean(self.eta))
        else:
            d = self.family.deviance(rows, self.eta)
        return float(self.response.weights @ d)


def comparison(models: Sequence[Compared], *, test: str | None) -> pd.DataFrame:
    """Table of R's anova for several models, each compared with the one before.

    Parameters
    ----------
    models : sequence of Compared
    test : {"auto", "Chisq", "F"} or None
        "auto": F where a dispersion is estimated.

    Returns
    -------
    DataFrame
        resid_df, resid_dev, df, deviance, and with a test statistic and p_value; the first model
        has no comparison.

    Raises
    ------
    FitError
        The models are of different responses or families, or the test does not fit them.
    """
    _refuse_unlike(models)
    glm = all(model.generalized_linear for model in models)
    largest = min(models, key=lambda model: _residual_df(model, glm))
    phi = (largest.scale or 1.0) if glm else 1.0
    estimated = glm and largest.scale is not None
    chosen = _chosen(test, estimated)
    table = pd.DataFrame(
        {
            "resid_df": [_residual_df(model, glm) for model in models],
            "resid_dev": [m.deviance if glm else -2.0 * m.loglik for m in models],
        },
        index=pd.Index([model.label for model in models], name="model"),
    )
    table["df"] = -table["resid_df"].diff()
    table["deviance"] = -table["resid_dev"].diff()
    if chosen is None:
        return table
    df = table["df"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        # a model with more degrees of freedom that fits worse has a negative statistic: p = 1
        signed = table["deviance"].to_numpy() * np.sign(df) / phi
        if chosen == "F":
            table["statistic"] = signed / np.abs(df)
            residual = _residual_df(largest, glm) if estimated else np.inf
            table["p_value"] = _f_tail(table["statistic"].to_numpy(), np.abs(df), residual)
        else:
            table["statistic"] = signed
            table["p_value"] = scipy.stats.chi2.sf(signed, np.abs(df))
    return table


def _f_tail(statistic: Vector, df: Vector, residual_df: float) -> Vector:
    if np.isinf(residual_df):
        return np.asarray(scipy.stats.chi2.sf(statistic * df, df))
    return np.asarray(scipy.stats.f.sf(statistic, df, residual_df))


def _residual_df(model: Compared, glm: bool) -> float:  # noqa: FBT001
    """Sum of weights minus degrees of freedom; of a dispersion only in a likelihood ratio."""
    constant = 1.0 if glm and model.scale is not None else 0.0
    return float(model.response.weights.sum()) - model.df + constant


def _chosen(test: str | None, estimated: bool) -> str | None:  # noqa: FBT001
    if test is not None and test not in TESTS:
        raise FitError(
            f"anova(test={test!r}): tests are {', '.join(TESTS)} or None{suggestion(test, TESTS)}"
        )
    if test == "F" and not estimated:
        raise FitError("anova(test='F') needs an estimated dispersion; use 'Chisq'")
    return ("F" if estimated else "Chisq") if test == "auto" else test


def _refuse_unlike(models: Sequence[Compared]) -> None:
    first = models[0]
    for other in models[1:]:
        if other.family.name != first.family.name:
            raise FitError(
                f"anova compares models of one family, got {first.family.name!r} and "
                f"{other.family.name!r}"
            )
        if other.response.label != first.response.label:
            raise FitError(
                f"anova compares models of one response, got {first.response.label!r} and "
                f"{other.response.label!r}"
            )
        if other.response.n_obs != first.response.n_obs:
            raise FitError(
                f"anova compares models of the same rows, got {first.response.n_obs} and "
                f"{other.response.n_obs} rows; leave rows with missing values out before the fits"
            )
        if not _same_rows(first.response, other.response):
            raise FitError("anova compares models of the same rows; responses or weights differ")
        if other.criterion != first.criterion:
            raise FitError(
                f"anova compares models with smoothing parameters by one method, got "
                f"{first.criterion} and {other.criterion}"
            )


def _same_rows(first: Response, second: Response) -> bool:
    one, other = first.rows(), second.rows()
    return (
        one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
        and np.array_equal(first.weights, second.weights)
    )
