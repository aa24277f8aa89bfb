"""Residuals of a fitted model (METHODS 11).

    quantile   r_i = Phi^-1(F(y_i)), randomised for discrete and censored responses
               (`quantile_residuals`). Standard normal when the model is right, whatever the family
    response   y_i - E(y_i)
    pearson    (y_i - E(y_i)) / sd(y_i)
    deviance   sign(y_i - E(y_i)) sqrt(d(y_i, E(y_i)) / phi_i)
    martingale m_i = d_i - H(y_i), events less the cumulative hazard since entry; of right censored
               times. By partial likelihood sign(m_i) sqrt(-2 (m_i + d_i log(d_i - m_i))) are
               the deviance residuals, as R's
Pearson and deviance residuals are divided by the dispersion, unlike R's, so that all but the
response residuals have a variance near one.

References: Dunn & Smyth (1996), doi:10.1080/10618600.1996.10474708; van Buuren & Fredriks (2001),
doi:10.1002/sim.746 (worm plot); McCullagh & Nelder (1989), section 2.4;
Therneau, Grambsch & Fleming (1990), doi:10.1093/biomet/77.1.147 (martingale residuals).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats

from deepregress.data import Response
from deepregress.errors import PredictionError, listing, suggestion
from deepregress.families.base import Family
from deepregress.linalg import Array, Matrix, Vector
from deepregress.quantile_residuals import quantile_residuals

KINDS = ("quantile", "response", "pearson", "deviance", "martingale")


@dataclass(frozen=True, eq=False)
class Checks:
    """What the four diagnostic pictures show.

    Parameters
    ----------
    residuals : Vector, (n_obs,)
        Quantile residuals.
    scores, lower, upper : Vector, (n_obs,)
        Normal scores of the ordered residuals and their pointwise bounds.
    predictor, fitted, response : Vector, (n_obs,)
        First linear predictor, fitted mean and response.
    binary : bool
        Whether the response is 0 or 1.
    labels : tuple of str
        Names of linear predictor, fitted values and response.
    """

    residuals: Vector
    scores: Vector
    lower: Vector
    upper: Vector
    predictor: Vector
    fitted: Vector
    response: Vector
    binary: bool
    labels: tuple[str, str, str]

    @classmethod
    def of(cls, family: Family, response: Response, eta: Matrix, *, seed: int) -> Checks:
        """Residuals of the training rows against what they should be."""
        y = response.y
        z = residuals(family, response, eta, "quantile", seed=seed)
        label, fitted = family.fitted_values(family.with_known(eta, response.rows()))
        predictor = eta[:, 0]
        if z.ndim > 1:  # the elements of vectors one after the other
            k = z.shape[1]
            z, fitted, predictor, y = (
                each[:, :k].ravel() for each in (z, fitted, eta[:, :k], response.lower)
            )
        elif fitted.ndim > 1:  # the probabilities of the classes seen
            fitted = np.sum(fitted * family.observed(y), axis=1)
        lower, upper = order_band(len(z), 0.95)
        first = family.parameters[0]
        link = first.link.name
        scale = first.name if link == "identity" else f"{link}({first.name})"
        return cls(
            residuals=z,
            scores=normal_scores(len(z)),
            lower=lower,
            upper=upper,
            predictor=predictor,
            fitted=fitted,
            response=y,
            binary=family.takes_levels,
            labels=(f"linear predictor, {scale}", label, response.label),
        )


def residuals(family: Family, response: Response, eta: Matrix, kind: str, *, seed: int) -> Array:
    """Residuals of the rows, (n_obs,); of the elements of a vector or class, (n_obs, d).

    Classes have one quantile residual, in the order of the classes; deviance residuals of vectors
    and classes have no sign and are (n_obs,).

    Parameters
    ----------
    family : Family
    response : Response
    eta : Matrix, (n_obs, U)
    kind : {"quantile", "response", "pearson", "deviance", "martingale"}
    seed : int
        Of the draws for a discrete or censored response.

    Raises
    ------
    PredictionError
        The kind is unknown, or a censored or truncated response has none of it.
    """
    if kind not in KINDS:
        raise PredictionError(
            f"residuals(kind={kind!r}): kinds are {listing(KINDS)}{suggestion(str(kind), KINDS)}"
        )
    y, rows = response.y, response.rows()
    if kind == "quantile":
        if family.multivariate:
            return family.scores(y, eta)
        return quantile_residuals(family, response, eta, seed=seed)
    if kind == "martingale" or family.partial and kind == "deviance":
        return _of_events(family, response, eta, kind)
    if not response.plain and kind != "deviance":
        raise PredictionError(
            f"residuals(kind={kind!r}): {response.label!r} has censored or truncated rows, which "
            "have no difference from their mean; use 'quantile' or 'deviance'."
        )
    at = family.with_known(eta, rows)
    mean = family.mean(at)
    if kind == "response":
        return np.asarray(family.observed(y) - mean)
    if kind == "pearson":
        return np.asarray((family.observed(y) - mean) / np.sqrt(family.variance(at)))
    distance = np.sqrt(np.maximum(family.deviance(rows, eta), 0.0))
    if mean.ndim > 1:
        return np.asarray(distance)
    if not response.plain or not np.isfinite(mean).all():
        mean = family.quantile(np.full(len(y), 0.5), at)
    return np.asarray(np.sign(y - mean) * distance)


def _of_events(family: Family, response: Response, eta: Matrix, kind: str) -> Vector:
    """Martingale or deviance residuals of exact and right censored rows, (n_obs,)."""
    d = (response.lower == response.upper).astype(float)
    lost = (d == 0.0) & ~np.isposinf(response.upper)
    if family.multivariate or lost.any() or response.exit is not None:
        raise PredictionError(
            f"residuals(kind={kind!r}): {response.label!r} has rows that are neither exact nor "
            "right censored."
        )
    E = family.expected_events(response, family.with_known(eta, response.rows()))
    if kind == "martingale":
        return np.asarray(d - E)
    distance = 2.0 * (E - d - scipy.special.xlogy(d, np.where(d > 0.0, E, 1.0)))
    return np.asarray(np.sign(d - E) * np.sqrt(np.maximum(distance, 0.0)))


def normal_scores(n: int) -> Vector:
    """Expected positions of n ordered standard normal draws (Blom), (n,)."""
    return np.asarray(scipy.special.ndtri((np.arange(1, n + 1) - 0.375) / (n + 0.25)))


def order_band(n: int, level: float) -> tuple[Vector, Vector]:
    """Pointwise bounds of n ordered standard normal draws, from Beta(i, n + 1 - i); each (n,)."""
    i = np.arange(1, n + 1)
    tail = (1.0 - level) / 2.0
    beta = scipy.stats.beta(i, n + 1 - i)
    return (
        np.asarray(scipy.special.ndtri(beta.ppf(tail))),
        np.asarray(scipy.special.ndtri(beta.ppf(1.0 - tail))),
    )
