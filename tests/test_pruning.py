"""Pruned networks: the same output from fewer units."""

import keras
import numpy as np
import pytest

from deepregress.errors import NetworkError
from deepregress.pruning import prune


def dense():
    return [
        keras.Input((5,)),
        keras.layers.Dense(6, activation="relu", name="a"),
        keras.layers.Dense(4, name="b"),
        keras.layers.BatchNormalization(name="n"),
        keras.layers.Activation("tanh"),
        keras.layers.Dense(3, use_bias=False, name="c"),
    ]


def convolutional(padding):
    return [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(5, 3, padding=padding, activation="relu", name="a"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(4, 2, padding=padding, activation="sigmoid", name="b"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, name="c"),
    ]


def build(layers):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(layers)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        size = np.abs if "variance" in variable.name else np.asarray
        variable.assign(size(rng.normal(size=variable.shape)).astype("float32"))
    return model


def zero(model, name, *, inputs=(), units=()):
    layer = model.get_layer(name)
    kernel = np.asarray(layer.kernel).copy()
    kernel[..., list(inputs), :] = 0.0
    kernel[..., :, list(units)] = 0.0
    layer._kernel.assign(kernel)


def same_output(model, smaller):
    x = np.random.default_rng(1).normal(size=(9, *model.inputs[0].shape[1:])).astype("float32")
    np.testing.assert_allclose(np.asarray(smaller(x)), np.asarray(model(x)), atol=2e-5)


def widths(model):
    return [layer.kernel.shape[-1] for layer in model.layers if hasattr(layer, "kernel")]


def test_unused_and_constant_units_leave():
    model = build(dense())
    zero(model, "b", inputs=[1, 2])
    zero(model, "a", units=[4])
    zero(model, "b", units=[0])
    smaller = prune(model)
    assert widths(smaller) == [3, 3, 3]
    same_output(model, smaller)


def test_what_only_dead_units_used_leaves_too():
    model = build(dense())
    zero(model, "c", inputs=[0, 1, 2])
    kernel = np.asarray(model.get_layer("b").kernel).copy()
    kernel[2:, 3] = 0.0
    model.get_layer("b")._kernel.assign(kernel)
    smaller = prune(model)
    assert widths(smaller) == [2, 1, 3]
    same_output(model, smaller)


@pytest.mark.parametrize(("padding", "expected"), [("valid", [3, 3, 3]), ("same", [4, 3, 3])])
def test_filters_leave_through_pooling_and_flattening(padding, expected):
    model = build(convolutional(padding))
    model.get_layer("a").bias.assign([1.0, -1.0, 1.0, 1.0, 1.0])
    zero(model, "a", units=[0, 1])  # constant 1, which borders would show, and constant 0
    zero(model, "b", units=[2])
    smaller = prune(model)
    assert widths(smaller) == expected
    same_output(model, smaller)


def test_a_network_without_weights_is_its_bias():
    model = build(dense())
    for name in "abc":
        zero(model, name, units=range(model.get_layer(name).units))
    smaller = prune(model)
    assert widths(smaller) == [1, 1, 3]
    same_output(model, smaller)


def test_nothing_dead_nothing_changes():
    model = build(convolutional("same"))
    smaller = prune(model)
    assert widths(smaller) == widths(model)
    same_output(model, smaller)


def test_other_models_are_refused():
    x = keras.Input((3,))
    a = keras.layers.Dense(2)(x)
    branch = keras.Model(x, keras.layers.Dense(2)(keras.layers.Concatenate()([a, x])))
    with pytest.raises(NetworkError, match="branches"):
        prune(branch)
    normalised = [keras.Input((3,)), keras.layers.Dense(2), keras.layers.LayerNormalization()]
    with pytest.raises(NetworkError, match="LayerNormalization"):
        prune(keras.Sequential(normalised))
    with pytest.raises(NetworkError, match="has no Dense"):
        prune(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    shared = keras.layers.Dense(3)
    with pytest.raises(NetworkError, match="branches"):
        prune(keras.Model(x, shared(shared(x))))
