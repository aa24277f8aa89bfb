"""Trainings in a file: interrupted ones end as if they had not been, bit for bit."""

import keras
import numpy as np
import pandas as pd
import pytest
from test_stochastic import Recorder, fit, problem

import deepregress as dr
from deepregress import networks
from deepregress.errors import DataError, FitError
from deepregress.networks import mlp

layers = keras.layers
NETWORKS = {
    "dense": (networks.mlp((4,)), None),
    "statistics and dropout": (
        keras.Sequential(
            [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2)]
        ),
        "adam",
    ),
}


def interrupted(given, path, at, **choices):
    """A training that the user ends in epoch `at`."""
    recorder = Recorder(at=at, error=KeyboardInterrupt())
    return fit(given, checkpoint=path, callbacks=(recorder,), **choices)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_resumed_training_is_the_uninterrupted_one(kind, tmp_path):
    network, optimizer = NETWORKS[kind]
    given, path = problem(60, network=network), tmp_path / "training"
    choices = {"epochs": 9, "batch_size": 16, "optimizer": optimizer}
    whole = fit(given, **choices)
    first = interrupted(given, path, 4, **choices)
    assert "interrupted" in first.status.message
    second = fit(given, checkpoint=path, **choices)
    assert second.history == whole.history
    assert second.status == whole.status
    for own, other in zip(second.members, whole.members, strict=True):
        assert np.array_equal(own.trainable, other.trainable)
        assert all(map(np.array_equal, own.state, other.state))


def test_early_stopping_goes_on_where_it_was(tmp_path):
    inputs = np.random.default_rng(9).normal(size=(100, 3))
    given = problem(100, network=networks.mlp((4,)), inputs=inputs)
    choices = {"patience": 6, "learning_rate": 1e-2}
    whole = fit(given, **choices)
    last = whole.history[-1].epoch
    interrupted(given, tmp_path / "t", last - 3, **choices)
    again = fit(given, checkpoint=tmp_path / "t", **choices)
    assert again.history == whole.history
    assert "early stopping" in again.status.message


def test_a_finished_training_is_taken_from_the_file_and_may_be_longer(tmp_path):
    given, path = problem(60, network=networks.mlp((4,))), tmp_path / "t"
    first = fit(given, epochs=3, checkpoint=path)
    recorder = Recorder()
    again = fit(given, epochs=3, checkpoint=path, callbacks=(recorder,))
    assert recorder.logs == []
    assert again.history == first.history
    assert np.array_equal(again.members[0].trainable, first.members[0].trainable)
    longer = fit(given, epochs=5, checkpoint=path)
    assert longer.history == fit(given, epochs=5).history


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"batch_size": 8}, {"optimizer": "sgd"}, {"patience": 3}]
)
def test_files_of_other_fits_are_refused(change, tmp_path):
    given, path = problem(60, network=networks.mlp((4,))), tmp_path / "t"
    fit(given, epochs=1, checkpoint=path)
    with pytest.raises(FitError, match=r"Training\(checkpoint='.*another fit"):
        fit(given, epochs=1, checkpoint=path, **change)


def test_files_of_other_data_are_refused(tmp_path):
    given, path = problem(60, network=networks.mlp((4,))), tmp_path / "t"
    fit(given, epochs=1, checkpoint=path)
    objective, nets, eta, folds = given
    with pytest.raises(FitError, match="its structured part has"):
        fit((objective, nets, eta + 0.01, folds), epochs=1, checkpoint=path)
    with pytest.raises(FitError, match="another fit"):
        fit(problem(60, seed=3, network=networks.mlp((4,))), epochs=1, checkpoint=path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "t"
    path.write_text("no archive")
    with pytest.raises(DataError):
        fit(problem(60, network=networks.mlp((4,))), epochs=1, checkpoint=path)


# -- through fit -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x, z = rng.uniform(size=(2, 120))
    y = x + np.sin(5 * z) + 0.2 * rng.normal(size=120)
    return pd.DataFrame({"x": x, "z": z, "y": y})


def fitted(table, seed=1, **choices):
    """Two rounds: the network shares no variable with the structured part."""
    training = dr.Training(**{"epochs": 6, "folds": 2, **choices})
    return dr.fit(
        "y ~ x + deep(z, net='net')",
        data=table,
        networks={"net": mlp((8,))},
        training=training,
        seed=seed,
        verbose=0,
    )


class InSecondRound:
    """Interrupts the eighth epoch, which is the second of the second round."""

    def __init__(self):
        self.count = 0

    def on_epoch_end(self, epoch, logs):
        self.count += 1
        if self.count == 8:
            raise KeyboardInterrupt


def test_a_resumed_fit_is_the_uninterrupted_one(table, tmp_path):
    whole = fitted(table, learning_rate=0.02)
    path = str(tmp_path / "t")
    first = fitted(table, learning_rate=0.02, checkpoint=path, callbacks=(InSecondRound(),))
    assert len(whole.history) == 14
    assert len(first.history) == 10
    # without a seed it takes that of the file
    second = fitted(table, seed=None, learning_rate=0.02, checkpoint=path)
    assert second.seed == 1
    pd.testing.assert_frame_equal(second.history, whole.history, check_exact=True)
    assert np.array_equal(second.coef, whole.coef)
    assert np.array_equal(second.predict(table), whole.predict(table))


def test_an_interrupted_fit_is_a_model(table, tmp_path):
    recorder = Recorder(at=3, error=KeyboardInterrupt())
    model = fitted(table, learning_rate=0.02, callbacks=(recorder,))
    assert np.isfinite(model.predict(table)).all()
    # there is no second round
    assert list(model.history["epoch"]) == [0, 1, 2, 3, 4]
    path = tmp_path / "model.zip"
    model.save(path)
    assert np.array_equal(dr.load(path).predict(table), model.predict(table))


def test_trainings_are_saved_with_the_model(table, tmp_path):
    optimizer = keras.optimizers.Adam(0.01)
    checkpoint = tmp_path / "t"
    model = fitted(table, epochs=2, optimizer=optimizer, checkpoint=checkpoint)
    model.save(tmp_path / "model.zip")
    training = dr.load(tmp_path / "model.zip").settings["training"]
    assert training.optimizer == keras.optimizers.serialize(optimizer)
    assert training.checkpoint == str(checkpoint)
    again = fitted(table, epochs=2, optimizer=training.optimizer)
    assert np.array_equal(again.coef, model.coef)
