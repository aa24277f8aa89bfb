"""Weight decay that is relaxed while that helps, turns of predictors, units of the response."""

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import FitError
from deepregress.solvers.base import Epoch
from deepregress.solvers.parts import NetworkPart, in_turn
from deepregress.solvers.plan import FASTER, RELAXATION
from deepregress.solvers.progress import Progress


@pytest.fixture(scope="module")
def steps():
    """A response with a step, which strongly decayed weights cannot follow."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame(rng.uniform(-2.0, 2.0, size=(600, 2)), columns=["a", "b"])
    signal = np.where(table["a"] * table["b"] > 0.0, 3.0, -3.0) + np.sin(3.0 * table["a"])
    spread = np.exp(-1.5 + 0.5 * table["b"])
    return table.assign(y=signal + spread * rng.normal(size=600))


def fitted(table, formula="y ~ deep(a, b)", **training):
    return dr.fit(formula, table, "normal", seed=1, verbose=0, training=dr.Training(**training))


def restarts(history):
    """Epochs after which the training began anew: the likelihood is far from its best there."""
    held = history["held_out"].to_numpy()
    first, best = held[0], np.minimum.accumulate(held)
    return [e for e in range(2, len(held)) if held[e] - best[e - 1] > 0.3 * (first - best[e - 1])]


def test_less_decay_follows_a_step(steps):
    train, test = steps[:400], steps[400:]
    strong, relaxed = fitted(train, relaxations=0), fitted(train)
    assert relaxed.predict(test, which="logpdf").mean() > (
        strong.predict(test, which="logpdf").mean() + 0.1
    )
    # the first training is the one without relaxation, epoch for epoch
    shared = len(strong.history)
    np.testing.assert_array_equal(strong.history["held_out"], relaxed.history["held_out"][:shared])
    assert restarts(strong.history) == []
    assert restarts(relaxed.history)[0] == shared


def test_a_relaxation_is_a_training_with_less_decay(steps):
    rows, few = steps[:400], {"patience": 5, "epochs": 12}
    relaxed = fitted(rows, relaxations=1, **few).history["held_out"].to_numpy()
    first = len(fitted(rows, relaxations=0, **few).history)
    less = {"decay_epochs": 6.0 * RELAXATION, "learning_rate": 3e-3 * FASTER, **few}
    weak = fitted(rows, relaxations=0, **less).history
    again = weak["held_out"].to_numpy()[1:]
    assert len(relaxed) == first or len(relaxed) == first + len(again)
    if len(relaxed) > first:
        # the order of rows goes by the number of the epoch: alike, not equal
        np.testing.assert_allclose(relaxed[first:], again, rtol=0.3)


def test_noise_is_not_learned_by_relaxing(steps):
    kept = 0
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(size=300)
        model = fitted(steps[:300].assign(y=noise))
        kept += any(effect.multiplier > 0 for effect in model.deep.effects)
    # a gain of more than one standard error is luck in a few fits of a hundred
    assert kept <= 1


def test_the_scale_is_learned_from_residuals_of_rows_the_mean_did_not_see(steps):
    train, test = steps[:400], steps[400:]
    both = {"loc": "y ~ deep(a, b)", "scale": "~ deep(a, b)"}
    model = fitted(train, both)
    assert sorted(set(model.history["round"])) == [1, 2]
    z = (test["y"] - model.predict(test, which="params")["loc"]) / model.predict(
        test, which="params"
    )["scale"]
    # a scale learned beside the mean is too small: z has a standard deviation of far more than one
    assert 0.7 < z.std() < 1.35


def test_a_relaxation_that_diverges_leaves_what_was_found():
    def epoch(number, held_out):
        return Epoch(1, number, held_out, 3e-3, held_out)

    plan = SimpleNamespace(training=dr.Training(), rule=SimpleNamespace(halves=True))
    progress = Progress("first", "state", "best", (epoch(0, 2.0), epoch(1, 1.0)), 3e-3)
    relaxed = replace(progress, relaxed=1, begun=1).after("new", epoch(2, np.nan), plan)
    assert relaxed.best == "best" and relaxed.status.converged
    assert not progress.after("new", epoch(2, np.nan), plan).status.converged


def test_turns():
    def part(unit, trunk=""):
        return NetworkPart("deep(x)", unit, (), None, np.zeros(0, int), trunk=trunk)

    assert in_turn([part(0), part(1), part(0)], 1) == [[0, 2], [1]]
    assert in_turn([part(1), part(0)], 1) == [[1], [0]]
    # predictors of one kind, and heads of one trunk
    assert in_turn([part(0), part(1), part(2)], 2) == [[0, 1], [2]]
    assert in_turn([part(0, "t"), part(1), part(2, "t")], 1) == [[0, 2], [1]]


def test_relaxations_are_counted():
    with pytest.raises(FitError, match="relaxations"):
        dr.Training(relaxations=-1)


class Stop(keras.callbacks.Callback):
    """The user's Ctrl-C in the third epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_networks_whose_turn_did_not_come_say_nothing(steps):
    both = {"loc": "y ~ deep(a, b)", "scale": "~ deep(a, b)"}
    model = fitted(steps[:200], both, callbacks=(Stop(),))
    assert set(model.history["round"]) == {1}
    loc, scale = model.deep.effects
    assert loc.multiplier > 0
    assert scale.multiplier == 0
    assert np.isfinite(model.predict(which="logpdf")).all()


def test_a_checkpoint_goes_on_in_the_second_turn(steps, tmp_path):
    both = {"loc": "y ~ deep(a, b)", "scale": "~ deep(a, b)"}
    given = {"epochs": 6, "checkpoint": tmp_path / "training"}
    whole = fitted(steps[:200], both, **given)
    again = fitted(steps[:200], both, **given)
    np.testing.assert_array_equal(whole.history["held_out"], again.history["held_out"])
    np.testing.assert_array_equal(whole.predict(steps[200:]), again.predict(steps[200:]))


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_networks_do_not_depend_on_the_unit_of_the_response(steps, unit):
    formula = {"loc": "y ~ b + deep(a, b)", "scale": "~ deep(b)"}
    given = {"epochs": 5, "relaxations": 0}
    one = fitted(steps, formula, **given)
    other = fitted(steps.assign(y=unit * steps["y"]), formula, **given)
    held = other.history["held_out"] - np.log(unit)
    # the rounding of networks, which compute in single precision
    np.testing.assert_allclose(held, one.history["held_out"], atol=2e-3)
    spread = one.predict().std()
    np.testing.assert_allclose(other.predict() / unit, one.predict(), atol=0.02 * spread)
