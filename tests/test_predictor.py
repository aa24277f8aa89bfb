"""Deep effects: packed weights against Keras itself, predictions of a row alone, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepregress import codec, networks
from deepregress.architecture import call
from deepregress.networks import resolve
from deepregress.predictor import (
    DeepEffect,
    Layout,
    Members,
    chunk_rows,
    evaluate,
    forward,
    fresh_members,
    n_features,
)

layers = keras.layers
rng = np.random.default_rng(0)


def stateful():
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(6, activation="relu"),
            layers.BatchNormalization(momentum=0.5),
            layers.Dropout(0.3),
        ]
    )


def recurrent():
    return keras.Sequential([keras.Input((5, 2)), layers.LSTM(4)])


def embedding():
    model = [keras.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten()]
    return keras.Sequential(model)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, activation="tanh")

    def call(self, x):
        return self.first(x)


KINDS = {
    "default": (lambda: None, rng.normal(size=(700, 3))),
    "stateful": (stateful, rng.normal(size=(700, 3))),
    "recurrent": (recurrent, rng.normal(size=(60, 5, 2))),
    "embedding": (embedding, rng.integers(0, 9, size=(60, 4))),
    "subclassed": (Subclassed, rng.normal(size=(60, 3))),
    "image": (lambda: networks.cnn((3,), hidden=(4,)), rng.normal(size=(60, 8, 8))),
}


def built(kind, n_members=3):
    """An architecture, members with random heads, and raw inputs."""
    written, inputs = KINDS[kind]
    architecture = resolve(written(), [inputs], label="deep(x)")
    members = fresh_members(architecture, range(1, n_members + 1))
    q = n_features(architecture)
    trainable = members.trainable.copy()
    trainable[:, -q:] = np.random.default_rng(1).normal(size=(n_members, q))
    return architecture, Members(trainable, members.state), inputs


def effect(kind, protected=(0, 2)):
    architecture, members, inputs = built(kind)
    X = np.random.default_rng(2).normal(size=(len(inputs), 4))
    C = np.random.default_rng(3).normal(size=(len(protected), 3))
    return DeepEffect("deep(x)", 0, architecture, members, np.array(protected), C, 0.7), inputs, X


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_keras_models(kind):
    """Each member alone, in a Keras model with its weights, gives the same output."""
    architecture, members, inputs = built(kind)
    D = evaluate(architecture, members, architecture.arrange([inputs]))
    layout = Layout.of(architecture)
    for m in range(3):
        model = architecture.build(99)
        *variables, head = np.split(members.trainable[m], np.cumsum(layout.sizes)[:-1])
        for variable, value in zip(model.trainable_variables, variables, strict=True):
            variable.assign(value.reshape(variable.shape))
        for variable, value in zip(model.non_trainable_variables, members.state, strict=True):
            variable.assign(value[m])
        features = np.asarray(call(model, architecture.arrange([inputs])), dtype=np.float64)
        # float32 sums of some tens of terms of order one
        np.testing.assert_allclose(D[m], features @ head, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_a_function_of_the_row_alone(kind):
    deep, inputs, X = effect(kind)
    n = min(len(inputs), 60)
    inputs, X = inputs[:n], X[:n]
    whole = deep.evaluate([inputs], X)
    assert whole.dtype == np.float64
    singly = [deep.evaluate([inputs[[i]]], X[[i]])[0] for i in range(n)]
    sevens = [deep.evaluate([inputs[a : a + 7]], X[a : a + 7]) for a in range(0, n, 7)]
    order = np.random.default_rng(4).permutation(n)
    permuted = np.empty(n)
    permuted[order] = deep.evaluate([inputs[order]], X[order])
    for other in (singly, np.concatenate(sevens), permuted):
        np.testing.assert_allclose(other, whole, rtol=0, atol=1e-6)


def test_rows_beyond_one_chunk():
    deep, inputs, X = effect("default")
    assert len(inputs) > chunk_rows(deep.architecture)
    halves = [deep.evaluate([inputs[s]], X[s]) for s in (slice(0, 350), slice(350, 700))]
    np.testing.assert_allclose(deep.evaluate([inputs], X), np.concatenate(halves), atol=1e-6)


def test_chunks_of_large_inputs_are_short():
    pixels = np.zeros((1, 600, 600, 3))
    model = keras.Sequential([keras.Input((600, 600, 3)), layers.GlobalAveragePooling2D()])
    assert chunk_rows(resolve(model, [pixels], label="net(x)")) == 1


def test_the_effect_is_the_mean_of_projected_members():
    deep, inputs, X = effect("default")
    D = evaluate(deep.architecture, deep.members, deep.architecture.arrange([inputs]))
    expected = 0.7 * (D - (X[:, [0, 2]] @ deep.projection).T).mean(axis=0)
    np.testing.assert_allclose(deep.evaluate([inputs], X), expected, atol=1e-12)
    assert deep.member_effects([inputs], X).shape == (3, 700)


def test_no_effect_is_zero():
    deep, inputs, X = effect("default")
    none = DeepEffect(
        deep.label, 0, deep.architecture, deep.members, deep.protected, deep.projection, 0.0
    )
    assert not none.evaluate([inputs], X).any()


def test_heads_start_at_zero_and_members_differ():
    architecture, _, inputs = built("default")
    members = fresh_members(architecture, [1, 2, 1])
    assert not evaluate(architecture, members, architecture.arrange([inputs])).any()
    assert np.array_equal(members.trainable[0], members.trainable[2])
    assert not np.array_equal(members.trainable[0], members.trainable[1])


def test_kernels_are_matrices_and_the_head():
    layout = Layout.of(resolve(networks.mlp((4,)), [np.zeros((2, 3))], label="deep(x)"))
    assert layout.shapes == ((3, 4), (4,), (4,))
    assert layout.kernels.tolist() == [True] * 12 + [False] * 4 + [True] * 4


def test_state_is_stacked_and_threaded():
    """BatchNorm moves towards each member's own batch; Dropout draws anew at each step."""
    architecture, members, _ = built("stateful")
    batches = np.random.default_rng(5).normal(size=(3, 40, 3)).astype(np.float32)
    state = [tf.constant(value) for value in members.state]
    weights = tf.constant(members.trainable)
    first, moved, _ = forward(architecture, (weights, state), [batches], mode="train")
    names = [v.path.rpartition("/")[2] for v in architecture.build(1).non_trainable_variables]
    k, b = (members.trainable[:, :18].reshape(3, 3, 6), members.trainable[:, 18:24])
    hidden = np.maximum(np.einsum("mnd,mdh->mnh", batches, k) + b[:, None], 0)
    expected = 0.5 * hidden.mean(axis=1)
    place = names.index("moving_mean")
    np.testing.assert_allclose(moved[place].numpy(), expected, atol=1e-5)
    second, _, _ = forward(architecture, (weights, moved), [batches], mode="train")
    again, _, _ = forward(architecture, (weights, state), [batches], mode="train")
    assert np.array_equal(first, again)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_effects_predict_bit_for_bit(kind, tmp_path):
    deep, inputs, X = effect(kind)
    tree, arrays = codec.encode(deep)
    codec.write(tmp_path / "effect", tree, arrays=arrays)
    archive = codec.read(tmp_path / "effect")
    again = codec.decode(archive.tree, archive.arrays)
    assert np.array_equal(again.evaluate([inputs], X), deep.evaluate([inputs], X))
