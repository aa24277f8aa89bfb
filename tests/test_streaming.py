"""Networks whose inputs are on disk: the training in memory, read by the batch."""

from dataclasses import dataclass, field, replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_stochastic import fit, problem

import deepregress as dr
from deepregress import networks, solvers
from deepregress.disk import scratch
from deepregress.disk.scratch import temporary_array
from deepregress.disk.stored import StoredArray
from deepregress.linalg import Array
from deepregress.predictor import evaluate
from deepregress.solvers import plan, streaming
from deepregress.solvers.base import Network, Protected, Training
from deepregress.solvers.folds import folds_of
from deepregress.solvers.plan import Plan

layers = keras.layers


@dataclass(frozen=True, eq=False)
class Shelf(StoredArray):
    """Rows of an array in memory that counts how many are read at a time."""

    values: Array = field(repr=False)
    reads: list[int] = field(default_factory=list)

    @property
    def row_shape(self):
        return self.values.shape[1:]

    @property
    def dtype(self):
        return self.values.dtype

    def read(self):
        self.reads.append(len(self.index))
        return self.values[self.index]


def shelved(given):
    """The same problem with the inputs of its networks on disk."""
    objective, nets, eta, folds = given
    stored = [
        replace(net, inputs=tuple(Shelf(np.arange(len(z)), z) for z in net.inputs)) for net in nets
    ]
    return objective, stored, eta, folds


def with_cell(given):
    """The same problem with features orthogonal to the intercept and the first covariate."""
    objective, nets, eta, folds = given
    z = np.asarray(nets[0].inputs[0], dtype=float)
    X = np.column_stack([np.ones(len(z)), z[:, 0]])
    protected = Protected(X, np.linspace(0.5, 2, len(z)))
    return objective, [replace(nets[0], protected=(protected,))], eta, folds


def same(one, other, atol=2e-5):
    assert len(one.history) == len(other.history)
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours.held_out == pytest.approx(theirs.held_out, abs=atol)
        assert ours.loss == pytest.approx(theirs.loss, abs=atol)
    for ours, theirs in zip(one.members, other.members, strict=True):
        # float32 of two graphs over a few epochs
        np.testing.assert_allclose(ours.trainable, theirs.trainable, atol=20 * atol)


NETWORKS = {
    "dense": lambda: networks.mlp((4,)),
    "statistics": lambda: keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization()]
    ),
}


BY_THE_BATCH, SEVERAL, WHOLE = 1, 4 * 2 * 16 * 60, streaming.STRETCH_BYTES


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    ("optimizer", "stretch"), [(None, BY_THE_BATCH), (None, SEVERAL), ("sgd", WHOLE)]
)
def test_streamed_is_in_memory(kind, optimizer, stretch, monkeypatch):
    monkeypatch.setattr(streaming, "STRETCH_BYTES", stretch)
    given = problem(150, network=NETWORKS[kind]())
    choices = {"epochs": 4, "batch_size": 16, "optimizer": optimizer}
    stored = shelved(given)
    same(fit(stored, **choices), fit(given, **choices))
    most = max(stored[1][0].inputs[0].reads)
    if stretch == BY_THE_BATCH:
        assert most <= 32  # two members of sixteen rows
    if stretch == SEVERAL:
        assert 32 < most < 150


@pytest.mark.parametrize("jit", [False, True])
def test_arrays_in_files_train_as_in_memory(jit, monkeypatch):
    """Response, predictors, weights and inputs in files, as of a table on disk."""
    monkeypatch.setattr(streaming, "STRETCH_BYTES", SEVERAL)
    monkeypatch.setattr(plan, "IN_MEMORY", 0)
    weights = np.random.default_rng(3).uniform(0.5, 2, 150)
    given = with_cell(problem(150, network=networks.mlp((4,)), weights=weights))
    objective, nets, eta, folds = given

    def filed(array):
        copy = temporary_array(array.shape, array.dtype)
        copy[:] = array
        return copy

    y = filed(objective.response.lower)
    response = replace(objective.response, lower=y, upper=y, weights=filed(weights))
    protected = replace(nets[0].protected[0], X=filed(nets[0].protected[0].X))
    net = replace(nets[0], inputs=tuple(map(filed, nets[0].inputs)), protected=(protected,))
    stored = replace(objective, response=response), [net], filed(eta), folds
    choices = {"epochs": 3, "batch_size": 16, "jit": jit}
    same(fit(stored, **choices), fit(given, **choices))


def test_long_tables_are_divided_and_shuffled_by_windows(monkeypatch):
    """Every row once: in a fold, and in an epoch; a window holds rows from all over the table."""
    monkeypatch.setattr(solvers.folds, "WINDOW_ROWS", 200)
    monkeypatch.setattr(solvers.folds, "CHUNK_ROWS", 20)
    monkeypatch.setattr(streaming, "WINDOW_ROWS", 200)
    weights = temporary_array((1010,))
    weights[:] = 1.0
    weights[::101] = 0.0
    kept = np.flatnonzero(weights)
    for crossfit, n_members, share in ((False, 1, 0.15), (True, 5, 0.2)):
        folds = folds_of(weights, Training(), crossfit=crossfit, seed=1)
        assert len(folds.train) == n_members
        assert scratch.is_stored(folds.train[0])
        for train, held in zip(folds.train, folds.held, strict=True):
            np.testing.assert_array_equal(np.sort([*train, *held]), kept)
            assert len(held) == pytest.approx(share * len(kept), abs=6)
            assert np.ptp(train[:100]) > 500
        if crossfit:
            np.testing.assert_array_equal(np.sort(np.concatenate(folds.held)), kept)
    keys = [tf.constant([1, epoch]) for epoch in (1, 2)]
    first, second = (np.concatenate(list(streaming._orders(1010, 1024, key))) for key in keys)
    np.testing.assert_array_equal(np.sort(first[:1010]), np.arange(1010))
    np.testing.assert_array_equal(first[1010:], first[:14])
    assert np.ptp(first[:150]) < 200  # a window after the other
    assert not np.array_equal(first, second)
    again = np.concatenate(list(streaming._orders(1010, 1024, keys[0])))
    np.testing.assert_array_equal(first, again)


def test_streamed_is_in_memory_with_cells():
    given = with_cell(problem(150, network=networks.mlp((4,))))
    choices = {"epochs": 4, "batch_size": 16}
    same(fit(shelved(given), **choices), fit(given, **choices))


def test_several_networks_some_of_them_stored():
    objective, nets, eta, folds = problem(100, network=networks.mlp((4,)))
    other = Network(nets[0].architecture, 1, nets[0].inputs)
    given = objective, [*nets, other], eta, folds
    half = objective, [*shelved(given)[1][:1], other], eta, folds
    choices = {"epochs": 3, "batch_size": 16}
    same(fit(half, **choices), fit(given, **choices))


def test_streamed_trainings_go_on_from_files(tmp_path):
    given = shelved(problem(60, network=networks.mlp((4,))))
    whole = fit(given, epochs=4)
    fit(given, epochs=2, checkpoint=tmp_path / "t")
    again = fit(given, epochs=4, checkpoint=tmp_path / "t")
    assert again.history == whole.history
    assert np.array_equal(again.members[0].trainable, whole.members[0].trainable)


def test_outputs_are_read_by_the_chunk():
    given = shelved(problem(1300, network=networks.mlp((4,))))
    trained = fit(given, epochs=1)
    z = given[1][0].inputs[0]
    z.reads.clear()
    architecture = given[1][0].architecture
    D = evaluate(architecture, trained.members[0], [z])
    assert np.array_equal(D, evaluate(architecture, trained.members[0], [z.values]))
    assert max(z.reads) <= 512


def test_a_fit_to_pictures_on_disk_is_that_in_memory(tmp_path, monkeypatch):
    """Pictures by path: streamed, and as an array that has been read before."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    x = rng.uniform(size=80)
    pixels = rng.integers(0, 256, size=(80, 6, 6), dtype=np.uint8)
    y = x + 6 * (pixels[:, :3].mean(axis=(1, 2)) / 255 - 0.5) + 0.1 * rng.normal(size=80)
    table = {"x": x, "y": y, "photo": [str(tmp_path / f"{i}.png") for i in range(80)]}
    for path, picture in zip(table["photo"], pixels, strict=True):
        image.fromarray(picture).save(path)

    def fitted():
        return dr.fit(
            "y ~ x + net(image(photo, size=(6, 6), grey=True))",
            data=table,
            networks={"net": networks.cnn((2,), hidden=(4,))},
            training=dr.Training(epochs=3, folds=2),
            seed=1,
            verbose=0,
        )

    streamed = fitted()
    before = Plan.of.__func__

    def in_memory(cls, nets, *others):
        for net in nets:
            read = tuple(np.asarray(z, dtype="float32") for z in net.inputs)
            object.__setattr__(net, "inputs", read)
        return before(cls, nets, *others)

    monkeypatch.setattr(Plan, "of", classmethod(in_memory))
    memory = fitted()
    assert len(streamed.history) == 4
    np.testing.assert_allclose(streamed.history["held_out"], memory.history["held_out"], atol=1e-4)
    np.testing.assert_allclose(streamed.predict(table), memory.predict(table), atol=1e-3)
