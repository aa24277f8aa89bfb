"""Tests of what an ordinal or transformation model assumes of its shift (METHODS 8).

    nominal_test    is the effect of a term the same at all thresholds (proportional odds), or at
                    all values of the response (proportional hazards)?  The model with the term in
                    the formula of the thresholds, or the transformation, instead of the shift
    scale_test      does the latent scale depend on a term?  The model with the term in `scale`, too

    LR = 2 (l1 - l0)  ~  chi^2 with the difference in the number of coefficients

one linear term at a time, as `nominal_test` and `scale_test` of R's ordinal.

References: Christensen (2023), ordinal: regression models for ordinal data, R package;
McCullagh (1980), doi:10.1111/j.2517-6161.1980.tb01109.x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import scipy.stats

from deepregress.errors import FitError
from deepregress.families.ordinal import LOCATION, THRESHOLD, Ordinal
from deepregress.families.transformation import (
    SCALE,
    SHIFT,
    TRANSFORMATION,
    Cotram,
    Transformation,
)
from deepregress.fitted import FittedModel
from deepregress.groups import members
from deepregress.model import fit
from deepregress.remainder import split_summands
from deepregress.terms import registered


def nominal_test(model: FittedModel) -> pd.DataFrame:
    """Likelihood-ratio test of proportionality of each linear term of the shift.

    Parameters
    ----------
    model : FittedModel
        Of family "ordinal" or a transformation model, with its training rows.

    Returns
    -------
    DataFrame
        One row for the model itself, "none", and one per term: df, loglik, aic, lr, p_value.

    Raises
    ------
    FitError
        The model has no shift, no linear term in it, or no training rows.

    Examples
    --------
    >>> import deepregress as dr
    >>> anes = dr.datasets.load("anes96")
    >>> model = dr.fit("pid ~ age + educ", anes, family="ordinal")
    >>> dr.nominal_test(model).index.tolist()
    ['none', 'age', 'educ']
    """
    shift, group = _parameters(model)
    formulas = dict(model.formula)

    def moved(term: str, rest: str) -> dict[str, str]:
        own = {name: f"{formulas[name]} + {term}" for name in members(group, formulas)}
        return {**formulas, shift: rest, **own}

    return _tests(model, shift, moved)


def scale_test(model: FittedModel) -> pd.DataFrame:
    """Likelihood-ratio test of a scale effect of each linear term of the shift.

    Arguments, result and errors are those of `nominal_test`.
    """
    shift, _ = _parameters(model)
    formulas = dict(model.formula)

    def scaled(term: str, rest: str) -> dict[str, str]:
        return {**formulas, SCALE: f"{formulas.get(SCALE, '~ 1')} + {term}"}

    return _tests(model, shift, scaled)


def _parameters(model: FittedModel) -> tuple[str, str]:
    """Names of the shift and of the group that holds the constant.

    Raises
    ------
    FitError
        The model has none, or no training rows in memory.
    """
    if model.frame is None or model.response is None or model.stored is not None:
        raise FitError("tests by refitting need the training rows in memory.")
    if model.deep is not None or model.series is not None:
        raise FitError("tests by refitting are for models without networks and lags.")
    if isinstance(model.family, Ordinal):
        return LOCATION, THRESHOLD
    if isinstance(model.family, Transformation):
        return SHIFT, TRANSFORMATION
    raise FitError(
        f"proportionality is tested in family 'ordinal' and transformation models, not "
        f"{model.family.name!r}."
    )


def _tests(
    model: FittedModel, shift: str, changed: Callable[[str, str], dict[str, str]]
) -> pd.DataFrame:
    left, _, right = model.formula[shift].partition("~")
    summands = [each.strip() for each in split_summands(right)]
    terms = [each for each in summands if _linear(each)]
    if not terms:
        raise FitError(f"the formula for {shift!r} has no linear term to test: {right.strip()!r}.")
    base = (model.loglik, float(len(model.coef)), model.aic)
    rows = {"none": (0.0, base[0], base[2], np.nan, np.nan)}
    for term in terms:
        rest = [each for each in summands if each != term]
        larger = _refitted(model, changed(term, f"{left}~ {' + '.join(rest) or '1'}"))
        df = len(larger.coef) - base[1]
        lr = max(0.0, 2.0 * (larger.loglik - base[0]))
        p = float(scipy.stats.chi2.sf(lr, df)) if df > 0 else np.nan
        rows[term] = (df, larger.loglik, larger.aic, lr, p)
    columns = ["df", "loglik", "aic", "lr", "p_value"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("term")


def _linear(summand: str) -> bool:
    """Whether a summand is read by formulaic, and no constant."""
    called = re.match(r"(\w+)\s*\(", summand)
    return not (
        summand in ("0", "1", "") or summand.startswith("(") or called and called[1] in registered()
    )


def _refitted(model: FittedModel, formula: Mapping[str, str]) -> FittedModel:
    """The model of another formula, of the same rows."""
    family, response = model.family, model.response
    link = {}
    if isinstance(family, Ordinal | Cotram):
        link[family.parameter_names[0]] = family.cumulative
    if SCALE in family.parameter_names and isinstance(family, Ordinal):
        link[SCALE] = family.parameter(SCALE).link.name
    weights = None if response is None else response.weights
    return fit(formula, model.frame, family.name, link=link, weights=weights, method=model.method)
