"""DRIFT: the curve a network starts near, which of several fixed points, and which base.

The curve's derivatives are held against differences, its fit against a plain optimiser; marginal
likelihoods against each other and against the model without a transformation.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import deepregress as dr
from deepregress import model as fitting
from deepregress.deep import flow_fit
from deepregress.deep.flow_problem import RIDGE, Problem, fitted
from deepregress.deep.flow_start import with_curve, with_network
from deepregress.errors import ConvergenceWarning, FamilyError, FitError
from deepregress.families.flow_curve import Curve
from deepregress.solvers.base import Status

drift = dr.families.drift


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    x, z = rng.uniform(-2, 2, 300), rng.uniform(-2, 2, 300)
    y = 1.0 + 0.8 * x + np.sin(2 * z) + np.exp(-0.5 + 0.3 * x) * rng.normal(size=300)
    return pd.DataFrame({"x": x, "skew": np.exp(0.5 * y)})


@pytest.fixture
def tried(monkeypatch):
    """(kind, base, stiffness, V) of all fixed points of the fits that follow."""
    seen, marginal = [], flow_fit._marginal

    def kept(objective, solution):
        V, family = marginal(objective, solution), objective.family
        seen.append((type(family.flow).__name__, family.base, family.stiffness, V))
        return V

    monkeypatch.setattr(flow_fit, "_marginal", kept)
    return seen


# -- the curve -------------------------------------------------------------------------------------


def curve(seed, size=9):
    rng = np.random.default_rng(seed)
    knots = np.sort(rng.uniform(-3.0, 5.0, size))
    return Curve(rng.normal(size=size), knots, centre=1.0, spread=2.0, anchors=(-0.5, 2.5))


def test_a_curve_increases_through_its_anchors_and_its_tails_are_straight():
    grid = np.linspace(-40.0, 40.0, 1000)
    for seed in range(100):
        phi, slope = curve(seed).phi(grid)
        assert np.all(np.diff(phi) > 0) and np.all(slope > 0)
        assert np.ptp(slope[grid < -3.0]) == 0.0 and np.ptp(slope[grid > 5.0]) == 0.0
    np.testing.assert_allclose(curve(3).phi(np.array([-0.5, 2.5]))[0], [-0.5, 2.5], rtol=1e-12)


def test_derivatives_of_a_curve_are_differences():
    own, step = curve(7), 1e-6
    u = np.linspace(-6.1, 8.3, 40)
    difference = (own.phi(u + step)[0] - own.phi(u - step)[0]) / (2 * step)
    np.testing.assert_allclose(own.phi(u)[1], difference, rtol=1e-6)
    value, slope = own.jacobian(u)
    for j in range(len(own.free)):
        move = step * np.eye(len(own.free))[j]
        up, down = own.at(own.free + move).phi(u), own.at(own.free - move).phi(u)
        np.testing.assert_allclose(value[:, 0, j], (up[0] - down[0]) / (2 * step), atol=1e-8)
        np.testing.assert_allclose(slope[:, 0, j], (up[1] - down[1]) / (2 * step), atol=1e-8)


@pytest.fixture(scope="module")
def at_the_start(data):
    """Objective with a straight curve, and coefficients of the structured fit."""
    family = drift(stiffness=3.0)
    settings = {"link": None, "networks": {}, "weights": None, "na": "drop", "select": False}
    bound = fitting.bind({"loc": "skew ~ x"}, data, family, **settings)
    coef = fitting.structured_solver("REML")(bound.objective).coef
    return with_curve(bound.objective), coef


def test_the_fit_of_a_curve_is_a_maximum_whatever_it_starts_from(at_the_start, data):
    objective, coef = at_the_start
    problem = Problem.of(objective, np.zeros((3, 3)))
    state, family = fitted(problem, coef, settling=False)
    own, size = family.flow, len(family.flow.free)
    wild = own.at(np.random.default_rng(1).normal(size=size))
    elsewhere = replace(problem, family=replace(problem.family, flow=wild))
    assert fitted(elsewhere, coef, settling=False)[0].value == pytest.approx(state.value, abs=1e-2)
    X, y = np.column_stack([np.ones(len(data)), data["x"]]), data["skew"].to_numpy()
    places, d = problem.places

    def loss(theta):
        moved = own.at(theta[:size])
        phi, slope = moved.phi(y)
        z = (phi - X @ theta[size:-1]) / np.exp(theta[-1])
        rough = np.diff(np.log(moved.phi(places)[1]))
        fall = 3.0 * np.sum(rough**2 / d) + RIDGE * np.sum(theta[:size] ** 2)
        density = np.log(slope) - theta[-1] - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
        return 0.5 * fall - np.sum(density)

    found = np.r_[state.flow.free, state.coef]
    assert -loss(found) == pytest.approx(state.value, abs=1e-8)
    assert loss(found) - scipy.optimize.minimize(loss, found).fun < 2e-2


def test_a_network_starts_near_the_curve(at_the_start, data):
    objective, coef = at_the_start
    state, family = fitted(Problem.of(objective, np.zeros((3, 3))), coef, settling=False)
    network = with_network(replace(objective, family=family), state.coef).family.flow
    grid = np.quantile(data["skew"], np.linspace(0.02, 0.98, 60))
    (phi, slope), (wanted, steep) = network.phi(grid), family.flow.phi(grid)
    assert np.max(np.abs(np.log(slope / steep))) < 0.3
    assert np.max(np.abs(phi - wanted)) < 0.05 * np.ptp(grid)


# -- marginal likelihoods --------------------------------------------------------------------------


def test_the_marginal_likelihood_of_a_straight_network_is_that_of_no_network(tried):
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, 200)
    data = {"x": x, "y": np.sin(3 * x) + 0.5 * rng.normal(size=200)}
    without = dr.fit({"loc": "y ~ s(x, k=6)"}, data, family=drift(flow="identity"))
    dr.fit({"loc": "y ~ s(x, k=6)"}, data, family=drift(stiffness=1e7))
    (first, *_, V), (then, *_, of_network) = tried
    assert (first, then) == ("Curve", "Flow")
    # the curve is straight at no cost; of the network's penalties the ridge is left, 0.0254
    assert V == pytest.approx(-without.reml, abs=1e-3)
    assert of_network == pytest.approx(-without.reml - 0.0254, abs=1e-3)


def test_the_stiffness_found_has_the_largest_marginal_likelihood(tried, data):
    """That of the fixed point edf / R against V, in whose formula neither stands."""
    found = dr.fit({"loc": "skew ~ x"}, data, family="drift").family.stiffness
    tried.clear()
    for factor in (0.1, 1.0, 10.0):
        dr.fit({"loc": "skew ~ x"}, data, family=drift(stiffness=factor * found))
    softer, own, stiffer = (V for kind, *_, V in tried if kind == "Flow")
    assert own > max(softer, stiffer)


def test_a_network_that_reaches_the_curve_is_all_there_is(tried, data):
    model = dr.fit({"loc": "skew ~ x"}, data, family="drift")
    assert [kind for kind, *_ in tried] == ["Curve", "Flow"]
    assert tried[1][-1] > tried[0][-1] - flow_fit.SHORT
    assert model.family.stiffness == tried[1][2]


def test_where_it_does_not_new_weights_are_tried_and_the_largest_is_taken(tried, monkeypatch, data):
    monkeypatch.setattr(flow_fit, "SHORT", -np.inf)
    model = dr.fit({"loc": "skew ~ x"}, data, family="drift")
    networks = [(stiffness, V) for kind, _, stiffness, V in tried if kind == "Flow"]
    assert len(networks) == len(flow_fit.RIDGES) + len(flow_fit.FIRST)
    taken = next(V for stiffness, V in networks if stiffness == model.family.stiffness)
    assert taken >= max(V for _, V in networks) - flow_fit.ROUND_GAIN


def test_the_base_is_that_of_the_data(tried):
    rng = np.random.default_rng(9)
    x = rng.uniform(-1, 1, 500)
    table = {"x": x, "y": 3 * x - np.exp(0.7 * x) * rng.gumbel(size=500)}
    model = dr.fit(
        {"loc": "y ~ x", "scale": "~ x"}, table, family=drift(base="auto", stiffness=10.0)
    )
    # a curve for each base, a network for the best
    bases = [base for kind, base, *_ in tried if kind == "Curve"]
    assert bases == ["normal", "logistic", "gumbel", "gumbel_min"]
    assert {base for kind, base, *_ in tried if kind == "Flow"} == {"gumbel_min"}
    assert model.family.base == "gumbel_min"
    assert not model.family.bases
    named = drift(base="gumbel_min", stiffness=10.0)
    again = dr.fit({"loc": "y ~ x", "scale": "~ x"}, table, family=named)
    np.testing.assert_allclose(model.coef, again.coef, rtol=1e-12)


def test_what_a_base_cannot_be_chosen_with(data, monkeypatch):
    with pytest.raises(FamilyError, match="chosen with the transformation: leave out flow="):
        drift(base="auto", flow="identity")

    def never(*_, **__):
        raise AssertionError("fitted before it was refused")

    monkeypatch.setattr(fitting, "_solve", never)
    with pytest.raises(FitError, match="not chosen beside sparse terms: name a base"):
        dr.fit({"loc": "skew ~ lasso(x)"}, data, family=drift(base="auto"))


def test_where_the_coefficients_have_no_maximum_there_is_no_fixed_point(data, monkeypatch):
    seen, joint = [], flow_fit.joint

    def watched(objective, structured):
        def lost(objective, start=None):
            seen.append(objective.family.flow)
            solution = structured(objective, start)
            return replace(solution, status=Status(converged=False, message="none"))

        return joint(objective, lost)

    monkeypatch.setattr(fitting, "joint", watched)
    with pytest.warns(ConvergenceWarning):
        dr.fit("skew ~ x", data, "drift")
    assert len(seen) == 2 + flow_fit.LOST
