"""Is an effect on the hazard constant over time? Schoenfeld residuals and a score test (METHODS 8).

    s_m = x_i(m) - A_m                               event m, A_m the mean of x over its risk set
    hazard exp((beta + theta g(t)) x),   U = sum_m g_m c_m s_m,   theta = 0:
    T = U_k' (I_kk - I_kb I_bb^-1 I_bk)^-1 U_k,      I_bb = sum c V_m, I_kb, I_kk with g and g^2

V_m is the variance of x over the risk set, k the columns of a term; T is chi-squared. g is a
function of time, by default 1 - S(t-) of Kaplan & Meier, as in R's cox.zph. A smooth term is tested
by its fitted curve, one column.

References: Grambsch & Therneau (1994), doi:10.1093/biomet/81.3.515; Schoenfeld (1982),
doi:10.1093/biomet/69.1.239; Therneau & Grambsch (2000), Modeling Survival Data, section 6.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.stats

from deepregress.assembly import assemble
from deepregress.errors import PredictionError, suggestion
from deepregress.families.risk_sets import AtRisk, RiskSets
from deepregress.fitted import FittedModel
from deepregress.linalg import Matrix, Vector
from deepregress.response import Response

TIMES = ("km", "rank", "identity", "log")
"""Functions of time by name."""


def proportionality(
    model: FittedModel, *, time: str | Callable[[Vector], Vector] = "km"
) -> pd.DataFrame:
    """Score tests of proportional hazards, of each term and of all.

    Parameters
    ----------
    model : FittedModel
        Of family "coxph".
    time : {"km", "rank", "identity", "log"} or callable
        g, the function of time with which effects might change; "rank" among the times of all rows.

    Returns
    -------
    DataFrame
        chisq, df, p_value by term, the last row "all terms".

    Raises
    ------
    PredictionError
        The model is no partial likelihood or has networks, or there is no such function.

    Examples
    --------
    >>> import deepregress as dr
    >>> model = dr.fit("Surv(time, event) ~ age + prio", dr.datasets.load("rossi"), "coxph")
    >>> dr.proportionality(model).round(3)
               chisq  df  p_value
    age        6.295   1    0.012
    prio       0.644   1    0.422
    all terms  7.209   2    0.027
    """
    columns = _Columns.of(model)
    at, X = columns.at, columns.X
    sets = at.sets
    g = _function(time, columns.response, sets)
    g = g - g.mean()
    A, weights = at.means(X), sets.weights[sets.events]
    U = X[sets.events].T @ (weights * g) - A.T @ (at.c * g)
    I_bb, I_kb, I_kk = at.information(X), at.information(X, g), at.information(X, g**2)
    U = U - I_kb @ np.linalg.solve(I_bb, X.T @ at.gradient)
    V = I_kk - I_kb @ np.linalg.solve(I_bb, I_kb)
    rows = {}
    for label, index in (*columns.terms.items(), ("all terms", slice(0, X.shape[1]))):
        chisq = float(U[index] @ np.linalg.solve(V[index, index], U[index]))
        df = index.stop - index.start
        rows[label] = (chisq, df, float(scipy.stats.chi2.sf(chisq, df)))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["chisq", "df", "p_value"])


def schoenfeld_residuals(model: FittedModel, *, scaled: bool = False) -> pd.DataFrame:
    """Covariates of each event less their mean over those at risk.

    Parameters
    ----------
    model : FittedModel
        Of family "coxph".
    scaled : bool
        Whether they are multiplied with the number of events and the covariance of the
        coefficients, to which these are added: then their mean at a time is the effect there.

    Returns
    -------
    DataFrame
        One column for each coefficient of linear terms and for the curve of a smooth one; one row
        for each event, by stratum and time, which is the index.
    """
    columns = _Columns.of(model)
    at, X = columns.at, columns.X
    sets = at.sets
    count = np.bincount(sets.of_event)
    means = sets.over_events(at.means(X)) / count[:, None]
    s = X[sets.events] - means[sets.of_event]
    if scaled:
        V = np.linalg.inv(at.information(X))
        s = columns.coef + len(s) * (sets.weights[sets.events, None] * s) @ V
    index = pd.Index(sets.times[sets.of_event], name="time")
    return pd.DataFrame(s, index=index, columns=list(columns.names))


@dataclass(frozen=True, eq=False)
class _Columns:
    """Covariates of the training rows: linear columns and fitted curves.

    `terms`: label -> columns; `coef` is 1 for a curve.
    """

    response: Response
    at: AtRisk
    X: Matrix = field(repr=False)
    coef: Vector
    names: tuple[str, ...]
    terms: dict[str, slice]

    @classmethod
    def of(cls, model: FittedModel) -> _Columns:
        if not model.family.partial or model.deep is not None:
            raise PredictionError(
                "tests and residuals of proportional hazards are for family='coxph' without "
                "networks; in the family 'cox' a formula for 'transformation' models an effect "
                "that changes"
            )
        frame, response = model._training()
        objective, _ = assemble(model.family, response, model.designs, frame)
        coef, unit = model.coef.to_numpy(), model._predictors.units[0]
        eta = objective.eta(coef)
        parts, terms, start = [], {}, 0
        penalised = {penalty.label for penalty in unit.design.penalties}
        for label, index in unit.design.slices.items():
            X, own = objective.units[0].X[:, index], coef[index]
            names = unit.names[index]
            if label in penalised:
                X, own, names = (X @ own)[:, None], np.ones(1), (label,)
            parts.append((X, own, names))
            terms[label] = slice(start, start + X.shape[1])
            start += X.shape[1]
        if not parts:
            raise PredictionError("the formula has no terms.")
        columns, values, named = zip(*parts, strict=True)
        at = model.family.risk_sets(response, eta[:, 1]).at(eta[:, 0])
        names = tuple(name for each in named for name in each)
        return cls(response, at, np.hstack(columns), np.concatenate(values), names, terms)


def _function(time: str | Callable[[Vector], Vector], response: Response, sets: RiskSets) -> Vector:
    """g at the time of each event, (M,)."""
    t = sets.times[sets.of_event]
    if callable(time):
        return np.asarray(time(t), dtype=np.float64)
    if time not in TIMES:
        raise PredictionError(
            f"time={time!r}: functions of time are {', '.join(TIMES)}{suggestion(time, TIMES)}"
        )
    if time == "km":
        return _dead_before(response, t)
    if time == "rank":
        y = np.sort(response.lower)
        return np.asarray(
            0.5 * (1 + np.searchsorted(y, t, "left") + np.searchsorted(y, t, "right"))
        )
    return t if time == "identity" else np.log(t)


def _dead_before(response: Response, t: Vector) -> Vector:
    """1 - S(t-) by Kaplan & Meier, of all strata together."""
    n = response.n_obs
    event = response.lower == response.upper
    sets = RiskSets.of(
        response.lower,
        event,
        entry=response.entry,
        strata=np.zeros(n),
        weights=np.ones(n),
        ties="breslow",
    )
    died = sets.over_events(np.ones(len(sets.events))) / sets.over_risk_sets(np.ones(n))
    before = np.concatenate([[1.0], np.cumprod(1.0 - died)])
    return np.asarray(1.0 - before[np.searchsorted(sets.times, t, side="left")])
