"""DRIFT: which of several fixed points, and which base, by the marginal likelihood."""

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.deep import flow_fit
from deepregress.errors import FamilyError, FitError

drift = dr.families.drift


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    x, z = rng.uniform(-2, 2, 300), rng.uniform(-2, 2, 300)
    y = 1.0 + 0.8 * x + np.sin(2 * z) + np.exp(-0.5 + 0.3 * x) * rng.normal(size=300)
    return pd.DataFrame({"x": x, "skew": np.exp(0.5 * y)})


@pytest.fixture
def tried(monkeypatch):
    """(base, stiffness, V) of all fixed points of the fits that follow."""
    seen, marginal = [], flow_fit._marginal

    def kept(objective, solution):
        V = marginal(objective, solution)
        seen.append((objective.family.base, objective.family.stiffness, V))
        return V

    monkeypatch.setattr(flow_fit, "_marginal", kept)
    return seen


def test_the_marginal_likelihood_of_a_straight_network_is_that_of_no_network(tried):
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, 200)
    data = {"x": x, "y": np.sin(3 * x) + 0.5 * rng.normal(size=200)}
    without = dr.fit({"loc": "y ~ s(x, k=6)"}, data, family=drift(flow="identity"))
    dr.fit({"loc": "y ~ s(x, k=6)"}, data, family=drift(stiffness=1e7))
    # an edf of 1e-5 is left of the network, and of its penalties, nearly all the ridge, 0.0254
    assert tried[0][2] == pytest.approx(-without.reml - 0.0254, abs=1e-3)


def test_the_stiffness_found_has_the_largest_marginal_likelihood(tried, data):
    """That of the fixed point edf / R against V, in whose formula neither stands."""
    found = dr.fit({"loc": "skew ~ x"}, data, family="drift").family.stiffness
    tried.clear()
    for factor in (0.1, 1.0, 10.0):
        dr.fit({"loc": "skew ~ x"}, data, family=drift(stiffness=factor * found))
    softer, own, stiffer = (V for *_, V in tried)
    assert own > max(softer, stiffer)


def test_the_fixed_point_with_the_largest_marginal_likelihood_is_taken(tried, monkeypatch, data):
    # from the stiffest start alone, from the usual one alone, and from both in either order
    values = {}
    for starts in ((1e4,), (10.0,), (1e4, 10.0), (10.0, 1e4)):
        monkeypatch.setattr(flow_fit, "FIRST", starts)
        tried.clear()
        model = dr.fit({"loc": "skew ~ x"}, data, family="drift")
        assert len(tried) == len(starts)
        taken = next(V for _, stiffness, V in tried if stiffness == model.family.stiffness)
        assert taken >= max(V for *_, V in tried) - flow_fit.ROUND_GAIN
        values[starts] = taken
    assert values[1e4, 10.0] >= max(values[1e4,], values[10.0,]) - flow_fit.ROUND_GAIN


def test_the_base_is_that_of_the_data(tried):
    rng = np.random.default_rng(9)
    x = rng.uniform(-1, 1, 500)
    table = {"x": x, "y": 3 * x - np.exp(0.7 * x) * rng.gumbel(size=500)}
    model = dr.fit(
        {"loc": "y ~ x", "scale": "~ x"}, table, family=drift(base="auto", stiffness=10.0)
    )
    assert [each for each, *_ in tried] == ["normal", "logistic", "gumbel", "gumbel_min"]
    assert model.family.base == "gumbel_min"
    assert not model.family.bases
    named = drift(base="gumbel_min", stiffness=10.0)
    again = dr.fit({"loc": "y ~ x", "scale": "~ x"}, table, family=named)
    np.testing.assert_allclose(model.coef, again.coef, rtol=1e-12)


def test_what_a_base_cannot_be_chosen_with(data):
    with pytest.raises(FamilyError, match="chosen with the transformation: leave out flow="):
        drift(base="auto", flow="identity")
    with pytest.raises(FitError, match="not chosen beside sparse terms: name a base"):
        dr.fit({"loc": "skew ~ lasso(x)"}, data, family=drift(base="auto"))
