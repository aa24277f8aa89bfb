"""Start values: the maximum of the likelihood without covariates.

    eta_0 = argmax sum_i w_i l_i(eta),  one eta (U,) for all rows

by Newton steps on the sums of the row derivatives, H shifted to be positive definite and the step
halved while the likelihood falls. From moments where a family gives them, of the exact values and
the bounds of censored rows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from deepregress.errors import FitError
from deepregress.families.kernels import CHUNK, SHORT, upper_pairs
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

STEPS = 100
HALVINGS = 40
TOLERANCE = 1e-6
"""Gain of a Newton step, relative to the log-likelihood, below which it is a start good enough."""


class Likelihood(Protocol):
    """What is needed of a family."""

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        """l (n,), gradient (n, U) and packed W of each row."""

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        """Moment estimates of the parameters."""

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """l (n,)."""


def intercept_only(family: Likelihood, response: Response, eta: Vector) -> Vector:
    """Predictors (U,) that are best for all rows at once, from `eta` on.

    A sample of the rows is enough for a start: one chunk of them at most.
    """
    response = _sampled(response, CHUNK)
    rows, weights = response.rows(), response.weights
    total = functools.partial(_log_likelihood, family, rows, weights)
    value = total(eta)
    for _ in range(STEPS):
        step = _newton_step(family, rows, weights, eta)
        if not np.isfinite(step).all():
            break
        for _ in range(HALVINGS):
            moved = total(eta + step)
            if moved > value or not np.any(step):
                break
            step = 0.5 * step
        else:
            break
        gain, value, eta = moved - value, moved, eta + step
        if gain < TOLERANCE * (1.0 + abs(value)):
            break
    return eta


def moments(family: Likelihood, response: Response) -> Mapping[str, float]:
    """Moment estimates of the parameters.

    Raises
    ------
    FitError
        They are beyond floating-point numbers.
    """
    try:
        with np.errstate(over="raise"):
            return family.start_values(response.y, response.weights)
    except ArithmeticError as error:
        raise FitError(
            f"{response.label!r}: its moments are no floating-point numbers; change its unit, or "
            "leave out values of another order of magnitude"
        ) from error


def places(y: Vector, links: Sequence[str]) -> list[Vector]:
    """Predictors to try: free ones in the middle of the response, others by its size or spread."""
    free = np.array([name == "identity" for name in links])
    logs = np.array([name == "log" for name in links])
    size, spread = np.mean(np.abs(y)), np.std(y)
    sizes = [np.log(each) for each in (1.0, spread, size) if each > 0.0]
    return [
        np.where(free, middle, np.where(logs, amount, 0.0))
        for middle in (0.0, float(np.median(y)), float(np.mean(y)))
        for amount in (*sizes, *(-each for each in sizes))
    ]


def best_of(family: Likelihood, response: Response, tried: Sequence[Vector]) -> Vector:
    """The predictors (U,) with the largest likelihood of some rows, among several places."""
    response = _sampled(response, SHORT)
    rows, weights = response.rows(), response.weights
    return max(tried, key=functools.partial(_log_likelihood, family, rows, weights))


def _sampled(response: Response, most: int) -> Response:
    """The response at so many random rows at most, always the same ones."""
    if response.n_obs <= most:
        return response
    chosen = np.random.default_rng(0).choice(response.n_obs, most, replace=False)
    return response.take(np.sort(chosen))


def _log_likelihood(
    family: Likelihood, rows: Mapping[str, Array], weights: Vector, eta: Vector
) -> float:
    """Log-likelihood of the rows at one predictor (U,) for all; -inf where it is not finite."""
    rowwise = family.row_log_likelihood(rows, np.tile(eta, (len(weights), 1)))
    return float(weights @ rowwise) if np.isfinite(rowwise).all() else -np.inf


def _newton_step(
    family: Likelihood, rows: Mapping[str, Array], weights: Vector, eta: Vector
) -> Vector:
    """H^-1 g with the eigenvalues of H made positive."""
    _, g, W = family.row_derivatives(rows, np.tile(eta, (len(weights), 1)))
    gradient, packed = weights @ g, weights @ W
    H = np.zeros((len(eta), len(eta)))
    for place, (k, m) in enumerate(upper_pairs(len(eta))):
        H[k, m] = H[m, k] = packed[place]
    if not np.isfinite(H).all() or not np.isfinite(gradient).all():
        return np.full(len(eta), np.nan)
    values, vectors = np.linalg.eigh(H)
    # a flat or convex direction is taken at the pace of the most curved one
    floor = np.sqrt(np.finfo(float).eps) * max(float(np.abs(values).max()), 1.0)
    return np.asarray(vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), floor)))
