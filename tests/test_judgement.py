"""Which deep parts stay: gains on held-out rows by hand, and the rule of one standard error."""

import numpy as np
import pytest
import scipy.stats

from deepregress import families
from deepregress.data import Response
from deepregress.objective import Objective, Unit
from deepregress.solvers.judgement import Judgement


@pytest.fixture
def given():
    """A normal response with z in its location; columns: z, noise, and z with the wrong sign."""
    rng = np.random.default_rng(0)
    n = 200
    z, noise = rng.normal(size=(2, n))
    y, w = 0.7 * z + rng.normal(size=n), rng.integers(1, 3, n).astype(float)
    unit = Unit(np.ones((n, 1)), np.zeros(n))
    response = Response(y, y, w, None, "y", None)
    objective = Objective(families.family("normal"), response, (unit, unit))
    return objective, np.column_stack([0.7 * z, 0.05 * noise, -0.3 * z]), np.arange(50, n)


def judgement(given, parts, units=None):
    objective, columns, rows = given
    units = (0,) * len(parts) if units is None else units
    nothing = np.zeros((len(columns), 2))
    return Judgement(objective, nothing, units, columns[:, parts], rows, nothing)


def by_hand(given, location, without):
    objective, _, rows = given
    y, w = objective.response.lower, objective.response.weights
    gain = scipy.stats.norm.logpdf(y, location) - scipy.stats.norm.logpdf(y, without)
    gain = (w * gain)[rows]
    return gain.sum(), np.sqrt(len(rows)) * gain.std(ddof=1)


def test_gains_by_hand(given):
    columns = given[1]
    judged = judgement(given, [0, 1])
    both = columns[:, 0] + columns[:, 1]
    value, se = by_hand(given, both, 0.0)
    assert judged.joint.value == pytest.approx(value, rel=1e-12)
    assert judged.joint.se == pytest.approx(se, rel=1e-12)
    value, se = by_hand(given, both, columns[:, 1])
    assert judged.each[0].value == pytest.approx(value, rel=1e-12)
    assert judged.each[0].se == pytest.approx(se, rel=1e-12)
    single = judgement(given, [0])
    assert single.each[0].value == pytest.approx(single.joint.value, rel=1e-12)


def test_those_that_were_judged_before_count_among_all(given):
    objective, columns, rows = given
    nothing = np.zeros((200, 2))
    before = np.column_stack([columns[:, 0], nothing[:, 1]])
    judged = Judgement(objective, before, (0,), columns[:, [1]], rows, nothing)
    value, _ = by_hand(given, columns[:, 0] + columns[:, 1], 0.0)
    assert judged.joint.value == pytest.approx(value, rel=1e-12)
    value, _ = by_hand(given, columns[:, 0] + columns[:, 1], columns[:, 0])
    assert judged.each[0].value == pytest.approx(value, rel=1e-12)


def test_parts_without_a_gain_leave(given):
    assert judgement(given, [0]).staying == (0,)
    assert judgement(given, [1]).staying == ()
    assert judgement(given, [1, 0]).staying == (1,)
    # together the first and the third say .4 z; without the third the first says more
    assert judgement(given, [0, 1, 2]).staying == (0,)
    # the same column is worth nothing in the scale
    assert judgement(given, [0, 0], units=(0, 1)).staying == (0,)


def test_a_network_that_says_nothing_leaves(given):
    objective, columns, rows = given
    zeros = np.zeros((200, 2))
    nothing = Judgement(objective, zeros, (0,), np.zeros((200, 1)), rows, zeros)
    assert nothing.staying == ()
    assert (nothing.joint.value, nothing.joint.se) == (0.0, 0.0)
