"""Mean and variance of a response whose transformation has a location and a scale (METHODS 8).

    Y = phi^-1(loc + scale Z),   E Y = integral of phi^-1(loc + scale z) f(z) dz,   z = sinh(t)

by the trapezoidal rule in t, which is flat at both ends. phi^-1 is one function for all rows: a
piecewise cubic with the values and slopes of phi itself, so that rows cost no network. For F whose
tails are exponential at least; phi is a straight line there, and all moments are finite.

Reference: Trefethen & Weideman (2014), doi:10.1137/130932132 (trapezoidal rule).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.interpolate
import tensorflow as tf

from deepregress.families.flow import Transformation
from deepregress.families.standard import Latent
from deepregress.linalg import Array, Vector

STEP = 1.0 / 32.0
FURTHEST = 45.0
"""z beyond which there is less than 1e-18 of any F with exponential tails."""
PIECES, BEYOND = 4096, 256
"""Of the cubic within `WITHIN` spreads of the centre, and on either side of it."""
WITHIN = 8.0
AT_ONCE = 2**18
"""Values at a time."""


def mean_and_variance(
    flow: Transformation, latent: Latent, loc: Vector, scale: Vector
) -> tuple[Vector, Vector]:
    """Mean and variance of Y, (n_obs,) each.

    Parameters
    ----------
    flow : Transformation
        phi.
    latent : Latent
        F, with tails that fall exponentially or faster.
    loc, scale : Vector, (n_obs,)
    """
    top = np.arcsinh(FURTHEST)
    t = np.arange(-top, top + STEP, STEP)
    z = np.sinh(t)
    mass = np.exp(latent.log_density(tf.constant(z)).numpy()) * np.cosh(t)
    mass /= mass.sum()
    mean, variance = np.full(len(loc), np.nan), np.full(len(loc), np.nan)
    # a row whose predictors have left the floats has none
    known = np.flatnonzero(np.isfinite(loc) & np.isfinite(scale))
    if not known.size:
        return mean, variance
    reach = 1.1 * FURTHEST * scale[known]
    inverse = _inverse(flow, np.min(loc[known] - reach), np.max(loc[known] + reach))
    block = max(1, AT_ONCE // len(z))
    for start in range(0, len(known), block):
        rows = known[start : start + block]
        y = inverse(loc[rows, None] + scale[rows, None] * z)
        mean[rows] = y @ mass
        variance[rows] = (y - mean[rows, None]) ** 2 @ mass
    return mean, variance


def _inverse(flow: Transformation, low: float, high: float) -> Callable[[Array], Array]:
    """phi^-1 between two values of phi and a little beyond."""
    ends = flow.inverse(np.array([low, high]))
    near = flow.centre + WITHIN * flow.spread * np.linspace(-1.0, 1.0, PIECES + 1)
    u: Array = near
    for end, edge in ((ends[0], near[0]), (ends[1], near[-1])):
        # outside the response, pieces as long as they are far away
        far = abs(end - edge) * (1.0 + 1e-6) + flow.spread
        steps = np.geomspace(near[1] - near[0], far, BEYOND)
        u = np.concatenate([u, edge + np.sign(edge - flow.centre) * steps])
    u = np.unique(u)
    value, slope = flow.phi(u)
    # where phi is so flat that it rises by less than rounding one of its places stands for all
    value, first = np.unique(value, return_index=True)
    # in spreads from the centre, as the cube of a large response is too large
    t, w = ((each - flow.centre) / flow.spread for each in (value, u[first]))
    spline = scipy.interpolate.CubicHermiteSpline(t, w, 1.0 / slope[first])
    return lambda v: flow.centre + flow.spread * spline((v - flow.centre) / flow.spread)
