"""Where the network of a DRIFT model starts (METHODS 8).

The likelihood sees a function phi of one number. Among curves with a few dozen slopes
(`families.flow_curve`) the best is found in some ten Newton steps, whatever they start from; the
weights of a network take hundreds, and end in one of many places. So phi is found among curves
first, and the network starts near that: with n_j of the rows at place u_j, the weights minimise

    sum_j n_j (log phi'(u_j) - log phi_curve'(u_j))^2 + n_j (phi(u_j) - phi_curve(u_j))^2 / scale^2
        + ridge |w - w_0|^2

by Levenberg-Marquardt on the places alone.

Reference: More (1978), doi:10.1007/BFb0067700 (Levenberg-Marquardt of MINPACK).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.optimize
import scipy.stats
import tensorflow as tf

from deepregress.deep.flow_problem import RIDGE, drift_of, first_weights, places_of
from deepregress.families.flow import WIDTH, Flow
from deepregress.families.flow_curve import Curve
from deepregress.families.flow_likelihood import Values
from deepregress.linalg import Matrix, Vector, one_blas_thread
from deepregress.objective import Objective

KNOTS = 50
EVALUATIONS, CLOSE = 300, 1e-5
"""Most evaluations of a network near a curve, and the relative fall of the sum that ends them."""
FAR = 1e100
"""A distance from the curve that is not a number."""


def with_curve(objective: Objective) -> Objective:
    """The objective with a curve, still straight, as its transformation."""
    family = drift_of(objective)
    places, _ = places_of(objective)
    knots = np.unique(places[np.linspace(0, len(places) - 1, KNOTS).astype(int)])
    own = family.flow
    curve = Curve(
        np.zeros(len(knots)), knots, centre=own.centre, spread=own.spread, anchors=own.anchors
    )
    return replace(objective, family=replace(family, flow=curve))


def with_network(
    objective: Objective, coef: Vector | None = None, *, ridge: float = RIDGE
) -> Objective:
    """The objective with a network: near its curve, at coefficients coef, else of new weights."""
    family = drift_of(objective)
    own, start = family.flow, first_weights(family)
    network = Flow(start, WIDTH, own.outputs, own.centre, own.spread, own.anchors)
    if coef is not None and isinstance(own, Curve):
        eta = tf.constant(objective.eta(coef))
        log_scale = Values.of(eta, family.links).log_scale.numpy()
        network = _near(objective, own, network, float(np.exp(np.median(log_scale))), ridge)
    return replace(objective, family=replace(family, flow=network))


def _near(objective: Objective, curve: Curve, network: Flow, scale: float, ridge: float) -> Flow:
    places, scores = places_of(objective)
    share = scipy.stats.norm.pdf(scores)
    root = np.sqrt(objective.response.weights.sum() * share / share.sum())
    phi, slope = curve.phi(places)
    first, root_ridge = network.free, np.sqrt(ridge)

    def residuals(w: Vector) -> Vector:
        own, steep = network.at(w).phi(places)
        away = [root * np.log(steep / slope), root * (own - phi) / scale, root_ridge * (w - first)]
        # weights too far away for the floats are no better than any others
        return np.asarray(np.nan_to_num(np.concatenate(away), nan=FAR, posinf=FAR, neginf=-FAR))

    def jacobian(w: Vector) -> Matrix:
        moved = network.at(w)
        own, steep = (each[:, 0] for each in moved.jacobian(places))
        of_log = steep / moved.phi(places)[1][:, None]
        rows = [root[:, None] * of_log, root[:, None] / scale * own, root_ridge * np.eye(len(w))]
        return np.asarray(np.nan_to_num(np.vstack(rows), posinf=0.0, neginf=0.0))

    with one_blas_thread(), np.errstate(all="ignore"):
        found = scipy.optimize.least_squares(
            residuals, first, jacobian, method="lm", ftol=CLOSE, max_nfev=EVALUATIONS
        )
    return network.at(found.x)
