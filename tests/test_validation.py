"""Validation data: what judges networks, and what never sees it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress import networks
from deepregress.errors import FitError, PredictionError
from deepregress.solvers.folds import crossfits, folds_of

N = 240


def simulated(n, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.uniform(-1, 1, (n, 2)), columns=["x", "z"])
    table["y"] = table["x"] + np.sin(4 * table["z"]) + 0.2 * rng.normal(size=n)
    return table


@pytest.fixture(scope="module")
def tables():
    return simulated(N, 0), simulated(100, 1)


def fitted(table, orthogonalize="posthoc", formula="y ~ x + deep(x, z, net='net')", **choices):
    training = dr.Training(**{"epochs": 25, "learning_rate": 0.01, **choices})
    return dr.fit(
        formula,
        data=table,
        networks={"net": networks.mlp((16,))},
        training=training,
        orthogonalize=orthogonalize,
        seed=1,
        verbose=0,
    )


@pytest.mark.parametrize("orthogonalize", ["posthoc", "cell"])
def test_networks_are_judged_on_the_table(tables, orthogonalize):
    table, validation = tables
    model = fitted(table, orthogonalize, validation=validation, epochs=80, learning_rate=0.03)
    (effect,) = model.deep.effects
    assert len(effect.members.trainable) == 1
    # epoch 0: the structured fit, which knows of its own rows only, in the validation rows
    base = dr.fit("y ~ x", data=table, verbose=0)
    assert model.history["held_out"][0] == pytest.approx(-base.log_score(validation), abs=1e-6)
    best = model.history["held_out"].min()
    gain = (model.history["held_out"][0] - best) * len(validation)
    assert model.deep.score_difference == pytest.approx(gain, rel=1e-4)
    assert gain > 20
    # the refit moves location and scale only a little
    assert -model.log_score(validation) < best + 0.1
    assert model.nobs == N


def test_rows_of_validation_are_in_no_fit(tables):
    """Another response there changes which epoch is best, and nothing before."""
    table, validation = tables
    other = validation.assign(y=-validation["y"])
    one, two = (fitted(table, validation=each, epochs=3) for each in (validation, other))
    assert list(one.history["loss"][:4]) == list(two.history["loss"][:4])
    assert one.history["held_out"][0] != two.history["held_out"][0]


def test_weights_have_no_scale(tables):
    table, validation = tables
    one, two = (
        dr.fit(
            "y ~ x + deep(x, z, net='net')",
            data=table,
            weights=np.full(N, weight),
            networks={"net": networks.mlp((4,))},
            training=dr.Training(epochs=2, validation=validation),
            seed=1,
            verbose=0,
        )
        for weight in (1.0, 8.0)
    )
    # the structured fit takes a weight of 8 for eight rows, which its dispersion shows
    np.testing.assert_allclose(one.history["loss"], two.history["loss"], rtol=1e-3)


def test_two_rounds_and_several_parameters(tables):
    table, validation = tables
    formula = {"loc": "y ~ x + deep(z, net='net')", "scale": "~ deep(x, net='net')"}
    model = fitted(table, formula=formula, validation=validation, epochs=4)
    # twice the networks of both predictors in turn
    assert set(model.history["round"]) == {1, 2, 3, 4}
    assert np.isfinite(model.history["held_out"]).all()


def test_a_share_of_the_rows():
    training = dr.Training(validation=0.3)
    assert not crossfits(training, [], 100)
    folds = folds_of(np.ones(100), training, crossfit=False, seed=1)
    assert [len(rows) for rows in (*folds.train, *folds.held)] == [70, 30]
    default = folds_of(np.ones(100), replace(training, validation=None), crossfit=False, seed=1)
    assert [len(rows) for rows in (*default.train, *default.held)] == [85, 15]


def test_the_table_stays_behind_when_a_model_is_saved(tables, tmp_path):
    table, validation = tables
    model = fitted(table, validation=validation, epochs=1)
    model.save(tmp_path / "model.zip")
    loaded = dr.load(tmp_path / "model.zip")
    assert loaded.settings["training"].validation is None
    assert np.array_equal(loaded.predict(table), model.predict(table))


def test_errors(tables):
    table, validation = tables
    with pytest.raises(FitError, match="crossfit=True, validation=.*choose one"):
        dr.Training(crossfit=True, validation=0.2)
    with pytest.raises(FitError, match="validation=1.5.*between 0 and 1"):
        dr.Training(validation=1.5)
    with pytest.raises(PredictionError, match="no column 'z'"):
        fitted(table, validation=validation.drop(columns="z"))
    with pytest.raises(PredictionError, match="no column 'y'"):
        fitted(table, validation=validation.drop(columns="y"))
