"""Factorised networks: what their penalty is, where training ends, what collapsing keeps."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from deepregress import factorised
from deepregress.errors import NetworkError
from deepregress.factorised import collapse, group_axes, sparse_optimizer, sparsify, sparsity


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1)


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="filters"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="units"),
        ]
    )


def functional():
    a, b = keras.Input((5,)), keras.Input((2,))
    x = keras.layers.Concatenate()([keras.layers.Dense(4, name="left")(a), b])
    return keras.Model([a, b], keras.layers.Dense(2, name="joint")(x))


def inputs_of(model, n=7):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, *x.shape[1:])).astype("float32") for x in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


@pytest.mark.parametrize("make", [convolutional, functional])
@pytest.mark.parametrize("groups", factorised.GROUPS)
@pytest.mark.parametrize("depth", [2, 4])
def test_given_weights_survive_factors_and_collapse(make, groups, depth):
    model = make()
    x = inputs_of(model)
    sparse = sparsify(model, depth=depth, groups=groups, start="given")
    expected = np.asarray(model(x))
    np.testing.assert_allclose(sparse(x), expected, atol=2e-6)
    plain = collapse(sparse)
    assert {type(layer).__name__ for layer in plain.layers} == {
        type(layer).__name__ for layer in model.layers
    }
    np.testing.assert_allclose(plain(x), expected, atol=2e-6)


@pytest.mark.parametrize("groups", factorised.GROUPS)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_balanced_penalty_is_the_sparse_one(groups, depth):
    # (lam / D) sum of squares of balanced factors = lam sum_g sqrt(p_g) |W_g|^(2/D)
    model = convolutional()
    sparse = sparsify(model, depth=depth, lam=0.1, groups=groups, start="given")
    expected = 0.0
    for layer in (model.get_layer("filters"), model.get_layer("units")):
        W = np.asarray(layer.kernel, dtype=np.float64)
        axes = group_axes(W.shape, groups)
        norm = np.sqrt(np.sum(W**2, axis=axes))
        size = W.size / norm.size
        expected += 0.1 * np.sqrt(size) * np.sum(norm ** (2 / depth))
    assert float(sum(sparse.losses)) == pytest.approx(expected, rel=1e-5)


def test_random_factors_are_within_their_bounds_and_differ():
    dense = keras.Sequential([keras.Input((300,)), keras.layers.Dense(200, name="d")])
    sd = float(np.std(np.asarray(dense.get_layer("d").kernel)))
    layer = sparsify(dense, depth=3).get_layer("d")
    factors = [np.asarray(f) for f in (layer._kernel, *layer.gates)]
    for factor in factors:
        assert np.abs(factor).min() >= factorised.SMALLEST ** (1 / 3) * (1 - 1e-5)
        assert np.abs(factor).max() <= (2 * sd) ** (1 / 3) * 1.01
        assert abs(np.mean(np.sign(factor))) < 0.02
    assert abs(np.corrcoef(factors[0].ravel(), factors[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_matched_factors_have_a_product_of_the_size_of_the_weights(depth):
    dense = keras.Sequential([keras.Input((300,)), keras.layers.Dense(200, name="d")])
    sd = float(np.std(np.asarray(dense.get_layer("d").kernel)))
    fresh, matched = (
        float(np.std(np.asarray(sparsify(dense, depth=depth, start=start).get_layer("d").kernel)))
        for start in ("fresh", "matched")
    )
    assert matched == pytest.approx(sd, rel=0.02) and fresh < 0.8 * sd


def test_training_by_gradient_ends_at_the_lasso():
    rng = np.random.default_rng(3)
    n, p, lam = 200, 8, 0.2
    X = rng.normal(size=(n, p))
    y = X[:, :3] @ [2.0, -1.0, 0.5] + rng.normal(size=n)
    expected = Lasso(alpha=lam, fit_intercept=False, tol=1e-10).fit(X, y).coef_
    plain = keras.Sequential([keras.Input((p,)), keras.layers.Dense(1, use_bias=False, name="d")])
    model = sparsify(plain, depth=2, lam=2 * lam)  # mean squares, without the half
    model.compile(sparse_optimizer(2, steps=400), loss="mse", jit_compile=False)
    model.fit(X, y[:, None], epochs=400, batch_size=n, verbose=0)
    found = np.asarray(collapse(model).get_layer("d").kernel)[:, 0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert (found != 0).tolist() == (np.abs(expected) > 0).tolist()
    layer = model.get_layer("d")
    np.testing.assert_allclose(
        np.abs(np.asarray(layer._kernel)), np.abs(np.asarray(layer.gates[0])), atol=1e-3
    )


def test_inputs_vanish_as_a_whole():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(300, 6)).astype("float32")
    y = np.tanh(X[:, 0] + X[:, 1])
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "tanh", name="first"), keras.layers.Dense(1)]
    )
    model = sparsify(plain, depth=3, lam=0.02, groups="inputs", layers=["first"])
    model.compile(sparse_optimizer(3, steps=600), loss="mse", jit_compile=False)
    model.fit(X, y[:, None], epochs=300, batch_size=150, verbose=0)
    kernel = np.asarray(collapse(model).get_layer("first").kernel)
    assert np.any(kernel != 0, axis=1).tolist() == [True, True, False, False, False, False]
    table = sparsity(model)
    assert table.loc["first", "nonzero"] == 16
    assert list(table.index) == ["first", plain.layers[-1].name, "total"]


def test_the_schedule_ramps_holds_and_ends():
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, name="d")])
    model = sparsify(plain, depth=2, lam=1.0)
    full = float(sum(model.losses))
    schedule = factorised.SparsitySchedule(ramp=4, hold=2)
    schedule.set_model(model)
    seen = []
    for epoch in range(8):
        schedule.on_epoch_begin(epoch)
        seen.append(float(sum(model.losses)) / full)
    np.testing.assert_allclose(seen, [0.25, 0.5, 0.75, 1, 1, 1, 0, 0], rtol=1e-6)


def test_hoyer_counts_weights_of_equal_size_whatever_it_is():
    penalty = factorised.DeepHoyer(0.5)
    w = np.zeros(10, dtype="float32")
    w[:4] = [0.01, -0.01, 0.01, 0.01]
    assert float(penalty(keras.ops.convert_to_tensor(w))) == pytest.approx(2.0)
    assert float(penalty(keras.ops.convert_to_tensor(100 * w))) == pytest.approx(2.0)
    assert float(penalty(keras.ops.zeros(3))) == 0.0
    layer = keras.layers.Dense(1, kernel_regularizer=penalty)
    again = keras.layers.Dense.from_config(layer.get_config())
    assert again.kernel_regularizer.lam == 0.5


def test_survives_the_configuration():
    model = sparsify(convolutional(), depth=4, lam=0.5, groups="units")
    config = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(model.get_weights())
    x = inputs_of(model)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(model(x)))
    assert again.get_layer("filters").depth == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "depth=1"),
        ({"lam": 0.0}, "lam=0.0"),
        ({"groups": "unit"}, "did you mean 'units'"),
        ({"layers": ["unit"]}, "no Dense or Conv layer"),
        ({"start": "x"}, "start='x'"),
    ],
)
def test_errors_say_what_is_allowed(options, message):
    with pytest.raises(NetworkError, match=message):
        sparsify(convolutional(), **options)


def test_models_without_kernels_are_refused():
    with pytest.raises(NetworkError, match="has no Dense"):
        sparsify(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
