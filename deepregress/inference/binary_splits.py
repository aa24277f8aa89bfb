"""Brant's Wald test of proportional odds, from a binary regression at each threshold (METHODS 8).

    P(y > r | x) = G(alpha_r + x'b_r),   r = 1..K - 1,   H0: b_1 = ... = b_(K-1)

Each split is fitted by itself, G(u) = 1 - F(-u) being the model's. Its errors and those of the
others, which see the same rows, have with Z = (1, x), score weights a = g / (G (1 - G)) and
cov(y > r, y > s) = G_s (1 - G_r) for r <= s

    V_rs = I_r^-1 (sum_i w_i a_r a_s G_s (1 - G_r) z_i z_i') I_s^-1,   I_r the case r = s,
    X2   = (D b)' (D V D')^-1 (D b),   D b = (b_1 - b_2, ..., b_1 - b_(K-1)).

Where `nominal_test` refits the model for each term, this needs no model that might not exist with
thresholds in order.

References: Brant (1990), doi:10.2307/2532457.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.stats
import tensorflow as tf

from deepregress.assembly import assemble
from deepregress.errors import FitError
from deepregress.families.ordinal import Ordinal
from deepregress.families.standard import BY_LINK, Latent
from deepregress.fitted import FittedModel
from deepregress.linalg import Array, Matrix, Vector

MAX_STEPS = 50
CONVERGED = 1e-14
"""Log-likelihood that the last step of Fisher's scoring gains."""


def brant_test(model: FittedModel) -> pd.DataFrame:
    """Wald test of proportional odds for each term of the location and for all together.

    Parameters
    ----------
    model : FittedModel
        Of family "ordinal", linear in the location, with constant thresholds and its training rows.

    Returns
    -------
    DataFrame
        chisq, df, p_value by term, the last row "all terms".

    Raises
    ------
    FitError
        The model is another one, or the classes at some threshold are separated.

    Examples
    --------
    >>> import deepregress as dr
    >>> anes = dr.datasets.load("anes96")
    >>> model = dr.fit("pid ~ age + educ", anes, family="ordinal")
    >>> dr.brant_test(model).round(2)
               chisq  df  p_value
    age        20.46   5     0.00
    educ        4.47   5     0.48
    all terms  27.03  10     0.00
    """
    splits, X, terms = _splits(model)
    b = np.array([each.coef[1:] for each in splits])
    K, p = b.shape
    V = np.empty((K, p, K, p))
    for r, low in enumerate(splits):
        for s, high in enumerate(splits[r:], start=r):
            V[r, :, s] = low.covariance(high, X)[1:, 1:]
            V[s, :, r] = V[r, :, s].T
    rows = {}
    for label, index in (*terms.items(), ("all terms", slice(0, p))):
        gap = (b[:1, index] - b[1:, index]).ravel()
        own = V[:, index][..., index]
        spread = own[:1, :, :1] - own[:1, :, 1:] - own[1:, :, :1] + own[1:, :, 1:]
        chisq = float(gap @ np.linalg.solve(spread.reshape(len(gap), len(gap)), gap))
        rows[label] = (chisq, len(gap), float(scipy.stats.chi2.sf(chisq, len(gap))))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["chisq", "df", "p_value"])


@dataclass(frozen=True, eq=False)
class _Split:
    """The binary regression of y > r: coefficients (p + 1,), information, and of each row G and a.

    `ratio` is a of the module docstring, `weights` those of the rows.
    """

    coef: Vector
    information: Matrix = field(repr=False)
    probability: Vector = field(repr=False)
    ratio: Vector = field(repr=False)
    weights: Vector = field(repr=False)

    def covariance(self, other: _Split, Z: Matrix) -> Matrix:
        """Of the coefficients with those of the same or a higher split."""
        joint = other.probability * (1.0 - self.probability)
        meat = Z.T @ ((self.weights * self.ratio * other.ratio * joint)[:, None] * Z)
        left = np.linalg.solve(self.information, meat)
        return np.asarray(np.linalg.solve(other.information, left.T).T)


def _splits(model: FittedModel) -> tuple[list[_Split], Matrix, dict[str, slice]]:
    """The splits, their columns with a constant, and the places of the terms without it.

    Raises
    ------
    FitError
        As `brant_test`.
    """
    family, response = model.family, model.response
    if not isinstance(family, Ordinal) or model.deep is not None:
        raise FitError("Brant's test is for family 'ordinal' without networks.")
    if model.frame is None or response is None or model.stored is not None:
        raise FitError("Brant's test needs the training rows in memory.")
    location, *constants = assemble(family, response, model.designs, model.frame)[0].units
    design = model.designs[family.parameter_names[0]]
    plain = [u.n_coef for u in constants] == [1] * (len(constants) - 1) + [0]
    if design.penalties or not design.slices or not plain or constants[-1].offset.any():
        raise FitError(
            "Brant's test needs linear terms in the location, constant thresholds and no formula "
            "for the scale; `nominal_test` takes other models."
        )
    if not response.exact:
        raise FitError(f"{response.label!r}: Brant's test takes exact rows only.")
    Z = np.column_stack([np.ones(response.n_obs), location.X])
    above = response.lower[:, None] > np.array(family.codes[:-1])
    latent, slope = BY_LINK[family.cumulative], model.coef[family.parameter_names[0]].to_numpy()
    names = [f"{low}|{high}" for low, high in zip(family.levels, family.levels[1:], strict=False)]
    splits = []
    for name, z, threshold in zip(names, above.T, constants[:-1], strict=True):
        offset = location.offset - threshold.offset
        splits.append(_fitted(latent, z, Z, offset, response.weights, slope, name))
    return splits, Z, dict(design.slices)


def _fitted(
    latent: Latent,
    z: Array,
    Z: Matrix,
    offset: Vector,
    weights: Vector,
    slope: Vector,
    name: str,
) -> _Split:
    """Fisher's scoring from the slopes of the ordinal model.

    Raises
    ------
    FitError
        It does not end.
    """
    share = float(np.average(z, weights=weights))
    start = -float(latent.quantile(np.array(1.0 - share))) - np.average(Z[:, 1:] @ slope)
    coef = np.array([start, *slope])
    for _ in range(MAX_STEPS):
        u = tf.constant(-(Z @ coef + offset))
        log_f, log_F = latent.log_density(u).numpy(), latent.log_cdf(u).numpy()
        log_S = latent.log_survival(u).numpy()
        # y > r where the latent error is above u
        up, down = np.exp(log_f - log_S), np.exp(log_f - log_F)
        score = Z.T @ (weights * np.where(z, up, -down))
        information = Z.T @ ((weights * up * down)[:, None] * Z)
        if not np.isfinite(information).all() or np.linalg.cond(information) > 1e14:
            break
        step = np.linalg.solve(information, score)
        coef = coef + step
        if 0.5 * step @ score < CONVERGED:
            ratio = np.exp(log_f - log_F - log_S)
            return _Split(coef, information, np.exp(log_S), ratio, weights)
    raise FitError(
        f"the binary regression at the threshold {name} has no finite coefficients: the covariates "
        "separate its classes."
    )
