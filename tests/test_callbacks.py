"""Callbacks of Keras in trainings of ours: each of those that people use does what it says."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_stochastic import fit, problem

from deepregress import networks
from deepregress.errors import FitError, NetworkWarning

callbacks = keras.callbacks


@pytest.fixture(scope="module")
def given():
    return problem(60, network=networks.mlp((4,)))


def rates(trained):
    return [epoch.learning_rate for epoch in trained.history[1:]]


def test_logs_have_loss_held_out_loss_and_learning_rate(given):
    seen = []
    told = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, logs)))
    trained = fit(given, epochs=3, callbacks=(told,))
    for (number, logs), epoch in zip(seen, trained.history[1:], strict=True):
        assert number == epoch.epoch - 1
        assert logs["loss"] == epoch.loss
        assert logs["val_loss"] == epoch.held_out
        assert logs["learning_rate"] == pytest.approx(epoch.learning_rate)


def test_the_loss_is_that_of_the_batches(given):
    """One batch of all rows: the loss before the step is the likelihood of the epoch before."""
    objective, _, eta, _ = given
    trained = fit(given, epochs=2, batch_size=60)
    y = objective.response.lower
    nll = 0.5 * np.log(2 * np.pi) + eta[:, 1] + 0.5 * ((y - eta[:, 0]) / np.exp(eta[:, 1])) ** 2
    assert trained.history[0].loss == pytest.approx(nll.mean(), abs=1e-12)
    # the head starts at zero
    assert trained.history[1].loss == pytest.approx(nll.mean(), abs=1e-6)
    assert trained.history[2].loss < nll.mean()


def test_early_stopping_counts_from_its_own_best(given):
    stop = callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=1.0)
    trained = fit(given, epochs=9, callbacks=(stop,))
    assert trained.history[-1].epoch == 2
    assert "a callback" in trained.status.message


def test_early_stopping_may_restore_weights(given):
    stop = callbacks.EarlyStopping(patience=0, min_delta=9.0, restore_best_weights=True)
    trained = fit(given, epochs=9, callbacks=(stop,))
    assert [weights.shape for weights in stop.best_weights] == [(2, 3, 4), (2, 4), (2, 4)]
    assert np.isfinite(trained.members[0].trainable).all()


@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_learning_rate_scheduler(given, optimizer):
    scheduler = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else 0.1)
    trained = fit(given, epochs=4, optimizer=optimizer, callbacks=(scheduler,))
    assert rates(trained) == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_the_rate_that_a_callback_sets_is_used(given):
    """Rate zero from the second epoch: the weights stay."""
    scheduler = callbacks.LearningRateScheduler(lambda epoch: 0.0 if epoch else 0.1)
    trained = fit(given, epochs=3, optimizer="sgd", callbacks=(scheduler,))
    held_out = [epoch.held_out for epoch in trained.history]
    assert held_out[1] != held_out[0]
    assert held_out[1] == held_out[2] == held_out[3]


def test_reduce_on_plateau(given):
    reduce = callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=1, min_delta=9.0)
    trained = fit(given, epochs=4, optimizer="sgd", callbacks=(reduce,))
    assert rates(trained) == pytest.approx([3e-3, 3e-3, 3e-4, 3e-5])


def test_schedules_cannot_be_set(given):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    scheduler = callbacks.LearningRateScheduler(lambda epoch: 0.1)
    with pytest.raises(FitError, match="LearningRateScheduler.*schedule of its own"):
        fit(given, optimizer=keras.optimizers.SGD(schedule), epochs=2, callbacks=(scheduler,))


def test_csv_logger(given, tmp_path):
    path = tmp_path / "log.csv"
    trained = fit(given, epochs=3, callbacks=(callbacks.CSVLogger(str(path)),))
    with path.open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["val_loss"]) for line in lines] == [e.held_out for e in trained.history[1:]]
    assert [float(line["loss"]) for line in lines] == [e.loss for e in trained.history[1:]]


def test_terminate_on_nan(given):
    terminate = callbacks.TerminateOnNaN()
    with pytest.warns(NetworkWarning, match="diverged"):
        trained = fit(given, epochs=9, batch_size=5, learning_rate=1e30, callbacks=(terminate,))
    assert terminate.model.stop_training
    assert np.isfinite(trained.members[0].trainable).all()


def test_tensorboard(given, tmp_path):
    pytest.importorskip("tensorboard")
    board = callbacks.TensorBoard(
        str(tmp_path), histogram_freq=1, write_images=True, write_steps_per_second=True
    )
    trained = fit(given, epochs=2, callbacks=(board,))
    scalars, histograms = {}, set()
    for file in tmp_path.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                if kind == "scalars":
                    key = file.parent.name, value.tag, event.step
                    scalars[key] = float(tf.make_ndarray(value.tensor))
                elif kind == "histograms":
                    histograms.add(value.tag)
    for epoch in trained.history[1:]:
        step = epoch.epoch - 1
        assert scalars["train", "epoch_loss", step] == pytest.approx(epoch.loss, rel=1e-6)
        assert scalars["validation", "epoch_loss", step] == pytest.approx(epoch.held_out, rel=1e-6)
        assert scalars["train", "epoch_learning_rate", step] == pytest.approx(epoch.learning_rate)
    assert any("head" in tag for tag in histograms)


def test_model_checkpoint_writes_files_to_go_on_from(given, tmp_path):
    """Three epochs, the second file of which goes on to the same end."""
    save = callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.keras"))
    trained = fit(given, epochs=3, callbacks=(save,))
    again = fit(given, epochs=3, checkpoint=tmp_path / "2.keras")
    assert again.history == trained.history
    assert np.array_equal(again.members[0].trainable, trained.members[0].trainable)


def test_model_checkpoint_of_the_best_epoch(given, tmp_path):
    path = tmp_path / "best.weights.h5"
    save = callbacks.ModelCheckpoint(str(path), save_best_only=True, save_weights_only=True)
    fit(given, epochs=3, callbacks=(save,))
    assert path.exists()
    with pytest.raises(FitError, match="exists already"):
        save.model.save(path, overwrite=False)


def test_weights_can_be_set(given):
    """A callback that sets every weight to zero: the held-out likelihood is that of no network."""

    class Zero(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.set_weights([0 * weight for weight in self.model.get_weights()])

    trained = fit(given, epochs=2, optimizer="sgd", callbacks=(Zero(),))
    held_out = [epoch.held_out for epoch in trained.history]
    # zero weights have gradients of zero: relu(0) and a head of zero
    assert held_out[1] == pytest.approx(held_out[0], abs=1e-12)


def test_backups_of_keras_are_checkpoints_of_ours(given, tmp_path):
    with pytest.raises(FitError, match=r"BackupAndRestore is Training\(checkpoint=path\)"):
        fit(given, epochs=2, callbacks=(callbacks.BackupAndRestore(tmp_path),))


def test_functions_are_called_in_the_order_of_keras(given):
    told = []

    class Listener(callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append("train begin")

        def on_epoch_begin(self, epoch, logs=None):
            told.append(f"epoch {epoch}")

        def on_train_batch_end(self, batch, logs=None):
            told.append(f"batch {batch}")

        def on_epoch_end(self, epoch, logs=None):
            told.append(f"end of {epoch}")

        def on_train_end(self, logs=None):
            told.append("train end")

    fit(given, epochs=2, batch_size=10, callbacks=(Listener(),))
    epochs = [[f"epoch {e}", "batch 2", f"end of {e}"] for e in (0, 1)]
    assert told == ["train begin", *epochs[0], *epochs[1], "train end"]
