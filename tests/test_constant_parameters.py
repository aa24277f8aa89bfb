"""Constant extra parameters of a family are hyperparameters of V (mgcv's extended families)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import link
from deepregress.data import Response
from deepregress.families.base import Family, Parameter, Value
from deepregress.inference.covariance import Inference
from deepregress.marginal import Point, Problem, Slope
from deepregress.model import fit
from deepregress.objective import Objective, Unit
from deepregress.penalty import PlacedPenalty
from deepregress.smoothing import select
from deepregress.solvers.newton import evaluate, maximise

tfd = tfp.distributions


@dataclass(frozen=True)
class Contaminated(Family):
    """(1 - share) N(loc, scale) + share N(loc, 3 scale)."""

    name: ClassVar[str] = "contaminated"
    about: ClassVar[str] = "normal with outliers"
    support: ClassVar[str] = "finite numbers"
    extra: ClassVar[tuple[str, ...]] = ("scale", "share")

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        links = (("loc", "identity"), ("scale", "log"), ("share", "logit"))
        return tuple(Parameter(name, link(of), name) for name, of in links)

    def density(self, values: Mapping[str, Value]) -> Any:
        loc, scale = values["loc"].value, values["scale"].value
        logits = tf.stack([tf.zeros_like(loc), values["share"].logit], axis=1)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits),
            tfd.Normal(loc[:, None], scale[:, None] * tf.constant([1.0, 3.0], tf.float64)),
        )

    def in_support(self, y):
        return np.isfinite(y)

    def start_values(self, y, weights):
        return {"loc": float(np.median(y)), "scale": float(y.std()), "share": 0.1}

    def unit_deviance(self, y, mean):
        return (y - mean) ** 2


FAMILY = Contaminated(Contaminated.default_parameters())


def data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.random(n), rng.random(n)
    return x, z, np.sin(6 * x) + 0.5 * rng.standard_t(4, n)


def objective(scale_columns=None):
    x, z, y = data()
    knots = np.linspace(0.1, 0.9, 6)
    X = np.column_stack([np.ones(300), x, np.maximum(x[:, None] - knots, 0.0) ** 2])
    penalty = PlacedPenalty("s(x)", slice(2, 8), np.eye(6), 6)
    response = Response(lower=y, upper=y, weights=np.ones(300), entry=None, label="y", levels=None)
    constant = np.ones((300, 1))
    scale = constant if scale_columns is None else np.column_stack([constant, z])
    units = (
        Unit(X, np.zeros(300), (penalty,)),
        Unit(scale, np.zeros(300)),
        Unit(constant, np.zeros(300)),
    )
    return Objective(FAMILY, response, units)


def test_constants_are_held_and_others_are_coefficients():
    assert Problem.of(objective()).held == [8, 9]
    assert Problem.of(objective("with z")).held == [10]
    fixed = objective()
    penalty = replace(fixed.units[0].penalties[0], sp=1.0)
    fixed = replace(fixed, units=(replace(fixed.units[0], penalties=(penalty,)), *fixed.units[1:]))
    assert Problem.of(fixed).held == []


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_slope_is_the_central_difference(method):
    problem = Problem.of(objective(), method=method)
    state = evaluate(problem.objective, select(problem.objective).coef)
    shifted = state.coef.copy()
    shifted[problem.held] += [0.2, -0.3]
    point = Point.at(problem, np.array([0.3]), evaluate(problem.objective, shifted))
    slope = Slope.at(point)
    tight = {"free": problem.free, "tolerance": 1e-16, "max_steps": 30}

    def value(shift):
        lam = np.array([0.3]) * np.exp(shift[:1])
        coef = point.state.coef.copy()
        coef[problem.held] += shift[1:]
        at = maximise(
            problem.objective, evaluate(problem.objective, coef), problem.total(lam), **tight
        )
        return Point.at(problem, lam, at.state).value

    for j, e in enumerate(1e-4 * np.eye(3)):
        # V is known to 1e-9: the quotient to 1e-5
        assert slope.gradient[j] == pytest.approx((value(e) - value(-e)) / 2e-4, abs=2e-5)


def test_fit_maximises_the_marginal_likelihood():
    obj = objective()
    solution = select(obj)
    assert solution.status.converged
    assert solution.extra == (8, 9)
    problem = Problem.of(obj)
    state = evaluate(obj, solution.coef)

    def negative(shift):
        coef = solution.coef.copy()
        coef[problem.held] += shift[1:]
        return -Point.at(problem, solution.lam * np.exp(shift[0]), evaluate(obj, coef)).value

    best = scipy.optimize.minimize(negative, np.full(3, 0.1), method="Nelder-Mead", tol=1e-7)
    assert solution.reml == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(best.x, 0.0, atol=2e-3)
    assert np.abs(state.at.gradient[problem.held]).max() > 1e-3, "not the likelihood's maximum"


def test_constants_count_one_degree_of_freedom_each():
    solution = select(objective())
    inference = Inference.of(solution)
    np.testing.assert_allclose(inference.edf[8:], 1.0)
    assert not inference.cov[8:, :8].any()
    # the errors are those of the likelihood in which the other coefficients follow
    P = solution.H + solution.S
    np.testing.assert_allclose(inference.cov[8:, 8:], np.linalg.inv(P)[8:, 8:], rtol=1e-6)


def test_without_smoothing_parameters_they_are_maximum_likelihood_estimates():
    x, z, y = data()
    model = fit("y ~ x", {"x": x, "y": y}, FAMILY)

    def negative(b):
        mean, scale, share = b[0] + b[1] * x, np.exp(b[2]), scipy.special.expit(b[3])
        parts = [scipy.stats.norm.pdf(y, mean, each) for each in (scale, 3.0 * scale)]
        return -np.log((1.0 - share) * parts[0] + share * parts[1]).sum()

    best = scipy.optimize.minimize(negative, [1.0, -1.0, 0.0, -1.0], tol=1e-9)
    assert model.solution.extra == ()
    assert model.loglik == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(model.coef, best.x, atol=1e-3)


def test_a_constant_at_the_edge_of_its_range_leaves_a_fit():
    rng = np.random.default_rng(3)
    x = rng.random(400)
    table = pd.DataFrame({"x": x, "y": np.sin(6 * x) + np.clip(rng.normal(size=400), -2.0, 2.0)})
    model, normal = fit("y ~ s(x)", table, FAMILY), fit("y ~ s(x)", table, "normal")
    assert model.converged
    assert scipy.special.expit(model.coef["share"]).item() < 1e-3
    assert np.isfinite(model.std_error).all()
    assert model.edf["loc", "s(x)"] == pytest.approx(normal.edf["loc", "s(x)"], abs=0.02)
