"""Networks as recipes: factories, reading a user's model, building copies from seeds."""

import random

import keras
import numpy as np
import pytest

from deepregress import codec, networks
from deepregress.architecture import Architecture, call, template
from deepregress.errors import NetworkError
from deepregress.networks import resolve

layers = keras.layers
X = np.random.default_rng(0).normal(size=(20, 3))


def sequential():
    return keras.Sequential([keras.Input((3,)), layers.Dense(5, activation="relu")])


def functional():
    x = keras.Input((3,))
    return keras.Model(x, layers.Dense(4)(layers.Dense(5, activation="relu")(x)))


class Scaled(layers.Layer):
    def __init__(self, factor, **rest):
        super().__init__(**rest)
        self.factor = factor

    def build(self, shape):
        self.shift = self.add_weight(shape=(shape[-1],), initializer="glorot_uniform")

    def call(self, x):
        return self.factor * x + self.shift


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(5, activation="relu")
        self.scaled = Scaled(2.0)

    def call(self, x, training=False):
        return self.scaled(self.first(x))


class Described(keras.Model):
    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.first = layers.Dense(width)

    def call(self, x):
        return self.first(x)

    def get_config(self):
        return {"width": self.width}


class Forgetful(keras.Model):
    def __init__(self, width=8):
        super().__init__()
        self.first = layers.Dense(width)

    def call(self, x):
        return self.first(x)


def weights_of(model):
    return [variable.numpy() for variable in model.variables]


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


WRITTEN = {
    "default": lambda: None,
    "factory": lambda: networks.mlp((6,), dropout=0.1),
    "function": lambda: lambda shapes: sequential(),
    "sequential": sequential,
    "functional": functional,
    "subclassed": Subclassed,
    "described": lambda: Described(4),
    "custom layer": lambda: keras.Sequential([keras.Input((3,)), Scaled(3.0)]),
    "without an input": lambda: keras.Sequential([layers.Dense(5)]),
    "lambda": lambda: keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)]),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_every_way_to_write_a_network(written):
    architecture = resolve(WRITTEN[written](), [X], label="deep(x)")
    first, again, other = (architecture.build(seed) for seed in (1, 1, 2))
    assert equal(weights_of(first), weights_of(again))
    if first.trainable_variables:
        assert not equal(weights_of(first), weights_of(other))
    assert call(first, architecture.arrange([X])).shape[0] == 20


def test_default_network_is_64_32_relu_with_glorot_weights():
    model = template(resolve(None, [X], label="deep(x)"))
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    assert shapes == [(3, 64), (64,), (64, 32), (32,)]
    kernel, bias = model.trainable_variables[:2]
    limit = np.sqrt(6 / (3 + 64))
    assert np.abs(kernel.numpy()).max() <= limit
    assert np.abs(kernel.numpy()).max() > 0.9 * limit
    assert not bias.numpy().any()
    assert [layer.activation.__name__ for layer in model.layers if layer.weights] == ["relu"] * 2


def test_arguments_of_the_users_class_survive():
    model = template(resolve(Described(4), [X], label="net(x)"))
    assert call(model, [X.astype("float32")]).shape == (20, 4)


def test_a_class_whose_arguments_keras_would_forget_is_refused():
    with pytest.raises(NetworkError, match=r"net\(x\): Forgetful takes constructor arguments"):
        resolve(Forgetful(3), [X], label="net(x)")


def test_the_users_model_stays_as_it_is():
    model = sequential()
    before = weights_of(model)
    state = random.getstate()
    architecture = resolve(model, [X], label="net(x)")
    template(architecture).variables[0].assign(np.ones((3, 5)))
    architecture.build(5)
    assert equal(before, weights_of(model))
    assert random.getstate() == state
    unbuilt = Subclassed()
    resolve(unbuilt, [X], label="net(x)")
    assert not unbuilt.built


def test_written_seeds_do_not_make_members_equal():
    start = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5, kernel_initializer=start)])
    architecture = resolve(model, [X], label="net(x)")
    assert not equal(weights_of(architecture.build(1)), weights_of(architecture.build(2)))


def test_frozen_layers_keep_the_users_weights():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(5), layers.Dense(2)])
    model.layers[0].trainable = False
    copy = resolve(model, [X], label="net(x)").build(7)
    assert equal(weights_of(model.layers[0]), weights_of(copy.layers[0]))
    assert not equal(weights_of(model.layers[1]), weights_of(copy.layers[1]))
    assert len(copy.trainable_variables) == 2


def test_equal_networks_are_equal_recipes():
    assert resolve(None, [X], label="a") == resolve(networks.mlp(), [X], label="b")
    model = sequential()
    assert resolve(model, [X], label="a") == resolve(model, [X[:5]], label="b")
    assert resolve(None, [X], label="a") != resolve(networks.mlp((8,)), [X], label="b")


def test_a_class_defined_anew_is_another_recipe():
    def define():
        class Local(keras.Model):
            def __init__(self):
                super().__init__()
                self.first = layers.Dense(2)

            def call(self, x):
                return self.first(x)

        return Local()

    first, second = (resolve(define(), [X], label="net(x)") for _ in range(2))
    assert first != second


def test_inputs_are_joined_and_split_as_the_model_wants():
    a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], layers.Concatenate()([a, b]))
    architecture = resolve(model, [X], label="net(x)")
    assert [z.shape for z in architecture.arrange([X])] == [(20, 1), (20, 2)]
    architecture = resolve(sequential(), [X[:, :1], X[:, 1:]], label="net(x)")
    (joined,) = architecture.arrange([X[:, :1], X[:, 1:]])
    assert np.array_equal(joined, X.astype("float32"))
    named = keras.Model({"a": a, "b": b}, layers.Concatenate()([a, b]))
    architecture = resolve(named, [X[:, :1], X[:, 1:]], label="net(x)")
    assert call(template(architecture), architecture.arrange([X[:, :1], X[:, 1:]])).shape


def test_dtypes():
    token = np.arange(40).reshape(20, 2)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(50, 3)])
    model.add(layers.Flatten())
    architecture = resolve(model, [token], label="net(token)")
    assert architecture.arrange([token])[0].dtype == np.int32
    pixels = np.zeros((20, 8, 8), dtype=np.uint8)
    architecture = resolve(networks.cnn((2,)), [pixels], label="net(image)")
    assert architecture.build(1)
    with pytest.raises(NetworkError, match="inputs must be numbers"):
        resolve(None, [np.array([["a"]])], label="net(x)")


def test_cnn_takes_images_with_and_without_channels():
    for shape in [(8, 8), (8, 8, 3), (1, 1)]:
        assert networks.cnn((2, 4), hidden=(6,))([shape]).output.shape == (None, 6)
    with pytest.raises(NetworkError, match="cnn: needs one image"):
        networks.cnn()([(3,)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: networks.mlp(()), r"mlp\(hidden=\(\)\): needs widths >= 1"),
        (lambda: networks.mlp((0,)), "needs widths >= 1"),
        (lambda: networks.mlp(dropout=1.0), r"mlp\(dropout=1.0\): needs a number in \[0, 1\)"),
        (lambda: networks.cnn(()), "at least one filter"),
        (lambda: networks.cnn(dropout=-0.1), r"cnn\(dropout=-0.1\)"),
    ],
)
def test_impossible_factories(make, message):
    with pytest.raises(NetworkError, match=message):
        make()


def test_no_network():
    with pytest.raises(NetworkError, match=r"net\(x\): a network is a Keras 3 model or a factory"):
        resolve(3, [X], label="net(x)")
    with pytest.raises(NetworkError, match="the factory must return a Keras 3 model, got int"):
        resolve(lambda shapes: 3, [X], label="net(x)")


def test_wrong_inputs_and_outputs():
    with pytest.raises(NetworkError, match=r"net\(x\): the network does not take inputs of shapes"):
        resolve(sequential(), [X[:, :2]], label="net(x)")
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, layers.Conv2D(2, 3)(image))
    with pytest.raises(NetworkError, match="one feature vector per row"):
        resolve(model, [np.zeros((5, 4, 4, 1))], label="net(x)")
    x = keras.Input((3,))
    with pytest.raises(NetworkError, match="several outputs"):
        resolve(keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)]), [X], label="net(x)")


def test_recipes_are_saved():
    for written in ("default", "functional", "subclassed"):
        architecture = resolve(WRITTEN[written](), [X], label="net(x)")
        tree, arrays = codec.encode(architecture)
        again = codec.decode(tree, arrays)
        assert again == architecture
        assert equal(weights_of(again.build(3)), weights_of(architecture.build(3)))


def test_in_another_process_own_classes_must_be_known_and_code_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2)])
    architecture = resolve(model, [X], label="net(x)")
    foreign = Architecture(architecture.config, architecture.inputs, "another process")
    with pytest.raises(NetworkError, match="cannot be built from its configuration"):
        foreign.build(1)

    class Hidden(keras.Model):
        def call(self, x):
            return x

    architecture = resolve(Hidden(), [X], label="net(x)")
    foreign = Architecture(architecture.config, architecture.inputs, "another process")
    with pytest.raises(NetworkError, match="'Hidden' cannot be built.*register_keras_serializable"):
        foreign.build(1)
