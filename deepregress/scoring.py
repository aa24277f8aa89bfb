"""Scores of predicted distributions at new rows (METHODS 11).

    log_score        log f(y)                                            larger is better
    crps             int (F(x) - 1[x >= y])^2 dx                         smaller is better
                     = 2 int_0^1 (1[y < q(p)] - p) (q(p) - y) dp         q: quantile function
    squared_error    (y - E y)^2,     absolute_error   |y - median|      smaller is better
    rps              sum_r (P(Y <= r) - 1[y <= r])^2 of ordered classes  smaller is better

The CRPS of a continuous response is integrated on both sides of p = F(y), where the integrand has
its kink, by Gauss-Legendre in a variable that is flat at the ends; that of counts is the sum over
them. All are proper: the expectation is best for the true distribution.

`compare` pairs the rows: the standard error of a difference is that of the rows' differences.

References: Gneiting & Raftery (2007), doi:10.1198/016214506000001437; Laio & Tamea (2007),
doi:10.5194/hess-11-1267-2007 (quantile form of the CRPS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deepregress.deep.ensemble import Ensemble
from deepregress.errors import PredictionError, suggestion
from deepregress.fitted import FittedModel
from deepregress.linalg import Matrix, Vector

Model = FittedModel | Ensemble

POINTS = 40
"""Nodes on either side of F(y)."""
TAIL = 1e-12
"""Probability of the counts that a CRPS leaves out."""


def compare(
    *models: Model, newdata: Any = None, scores: Sequence[str] = ("log_score",)
) -> pd.DataFrame:
    """Scores of several models at the same rows, with standard errors of their differences.

    Parameters
    ----------
    *models : FittedModel or Ensemble
        Of the same response.
    newdata : table or dict, optional
        Rows to score; those of training by default, which favours the larger model.
    scores : sequence of str
        Of "log_score", "crps", "squared_error", "absolute_error", "rps".

    Returns
    -------
    DataFrame
        One row per model, by (score, quantity): mean, its se, difference to the first model, and
        the standard error of this difference over paired rows.

    Raises
    ------
    PredictionError
        A score is unknown or has no meaning for the response.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> line = dr.fit("foodexp ~ income", engel)
    >>> both = dr.fit({"loc": "foodexp ~ income", "scale": "~ income"}, engel)
    >>> table = dr.compare(line, both, newdata=engel)
    >>> bool(table["log_score", "difference"].iloc[1] > 0)
    True
    """
    if not models:
        raise PredictionError("compare() needs one model at least")
    columns: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        rows = [row_scores(model, score, newdata) for model in models]
        for values in rows:
            apart = values - rows[0]
            found = dict(zip(("mean", "se"), _mean_and_se(values), strict=True))
            found |= dict(zip(("difference", "se_difference"), _mean_and_se(apart), strict=True))
            for name, number in found.items():
                columns.setdefault((score, name), []).append(number)
    labels = [", ".join(f"{name}: {text}" for name, text in m.formula.items()) for m in models]
    numbered = [f"{j + 1}) {label}" for j, label in enumerate(labels)]
    return pd.DataFrame(columns, index=pd.Index(numbered, name="model"))


def _mean_and_se(values: Vector) -> tuple[float, float]:
    n = len(values)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def row_scores(model: Model, score: str, newdata: Any = None) -> Vector:
    """One score of each row, (n_obs,).

    Raises
    ------
    PredictionError
        The score is unknown or has no meaning for the response.
    """
    if score not in _SCORES:
        raise PredictionError(
            f"score {score!r} is not one of {', '.join(_SCORES)}{suggestion(score, _SCORES)}"
        )
    return _SCORES[score](model, newdata)


def _observed(model: Model, newdata: Any) -> Vector:
    """Responses of the rows: exact numbers."""
    first = model.members[0] if isinstance(model, Ensemble) else model
    response = first._response(newdata)
    if not response.plain or response.lower.ndim > 1:
        raise PredictionError(
            f"{response.label!r}: this score needs a response of one exact number; log_score takes "
            "any"
        )
    return response.lower


def _log_score(model: Model, newdata: Any) -> Vector:
    return np.asarray(model.predict(newdata, "logpdf"))


def _squared_error(model: Model, newdata: Any) -> Vector:
    return np.asarray((_observed(model, newdata) - model.predict(newdata)) ** 2)


def _absolute_error(model: Model, newdata: Any) -> Vector:
    return np.asarray(np.abs(_observed(model, newdata) - model.predict(newdata, "median")))


def _rps(model: Model, newdata: Any) -> Vector:
    return np.asarray(model.predict(newdata, "rps"))


def _crps(model: Model, newdata: Any) -> Vector:
    y = _observed(model, newdata)
    return (
        _crps_of_counts(model, newdata, y) if model.family.discrete else _crps_of(model, newdata, y)
    )


def _crps_of(model: Model, newdata: Any, y: Vector) -> Vector:
    """2 int (1[y < q] - p) (q - y) dp below and above p = F(y)."""
    F = np.asarray(model.predict(newdata, "cdf", at=y[:, None]))[:, 0]
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    t = 0.5 * (nodes + 1.0)
    # p = F u(t) and 1 - p = (1 - F) u(t), u flat at both ends, where the quantiles may be steep
    share, w = t**3 * (10.0 - 15.0 * t + 6.0 * t**2), 0.5 * weights * 30.0 * (t * (1.0 - t)) ** 2
    below = F[:, None] * share
    above = 1.0 - (1.0 - F[:, None]) * share
    q = np.asarray(model.predict(newdata, "quantile", at=np.hstack([below, above])))
    left, right = y[:, None] - q[:, :POINTS], q[:, POINTS:] - y[:, None]
    lower, upper = F * _sum(below * left, w), (1.0 - F) * _sum((1.0 - above) * right, w)
    return np.asarray(2.0 * (lower + upper))


def _sum(values: Matrix, weights: Vector) -> Vector:
    """Weighted sums over the nodes, (n_obs,); a probability of 0 takes its infinite quantile."""
    return np.asarray(np.where(np.isfinite(values), values, 0.0) @ weights)


def _crps_of_counts(model: Model, newdata: Any, y: Vector) -> Vector:
    """sum_k (F(k) - 1[k >= y])^2 over the counts that have probability, and up to y."""
    ends = np.asarray(model.predict(newdata, "quantile", at=[TAIL, 1.0 - TAIL]))
    low, high = min(ends[:, 0].min(), y.min()), max(ends[:, 1].max(), y.max())
    k = np.arange(low, high + 1.0)
    F = np.asarray(model.predict(newdata, "cdf", at=k))
    return np.asarray(np.sum((F - (k >= y[:, None])) ** 2, axis=1))


_SCORES: dict[str, Callable[[Model, Any], Vector]] = {
    "log_score": _log_score,
    "crps": _crps,
    "squared_error": _squared_error,
    "absolute_error": _absolute_error,
    "rps": _rps,
}
