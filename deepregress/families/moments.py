"""Moments and quantiles of a weighted response: where the start values of families come from."""

from __future__ import annotations

import numpy as np

from deepregress.linalg import Vector


def weighted_moments(y: Vector, weights: Vector) -> tuple[float, float]:
    """Mean and (positive) variance of the response under the row weights."""
    mean = float(np.average(y, weights=weights))
    variance = float(np.average((y - mean) ** 2, weights=weights))
    # a constant response has no scale: start at its magnitude, Newton takes it from there
    return mean, variance if variance > 0 else max(mean**2, 1.0)


def weighted_quantiles(y: Vector, weights: Vector, probabilities: tuple[float, ...]) -> Vector:
    """Quantiles of the response under the row weights, (len(probabilities),)."""
    order = np.argsort(y, kind="stable")
    share = np.cumsum(weights[order])
    middle = (share - 0.5 * weights[order]) / share[-1]
    return np.asarray(np.interp(probabilities, middle, y[order]))


def quartile_location_scale(
    y: Vector, weights: Vector, quartiles: tuple[float, float, float]
) -> tuple[float, float]:
    """Location and scale at which a standard distribution's quartiles are the response's.

    Parameters
    ----------
    y, weights : Vector, (n_obs,)
    quartiles : tuple of float
        Quantiles of the standard distribution at 1/4, 1/2, 3/4.
    """
    low, median, high = weighted_quantiles(y, weights, (0.25, 0.5, 0.75))
    scale = (high - low) / (quartiles[2] - quartiles[0])
    if scale <= 0.0:  # half of the response is one value: its standard deviation is its scale
        scale = np.sqrt(weighted_moments(y, weights)[1])
    return float(median - scale * quartiles[1]), float(scale)


FURTHEST = 30.0
"""Scales below the mode at which a Gumbel density is exp(-1e13): a start has no response beyond."""


def gumbel_start(y: Vector, weights: Vector) -> dict[str, float]:
    """Mode and scale of a Gumbel distribution of maxima by moments, within reach of all rows."""
    mean, variance = weighted_moments(y, weights)
    scale = np.sqrt(6.0 * variance) / np.pi
    scale = max(scale, (mean - float(np.min(y))) / FURTHEST)
    return {"loc": mean - np.euler_gamma * scale, "scale": scale}
