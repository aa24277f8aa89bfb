"""Networks with a past or with company: pretrained, with shared trunks, several in a predictor."""

import keras
import numpy as np
import pytest

import deepregress as dr
from deepregress import networks
from deepregress.errors import NetworkError
from deepregress.networks import reading_of, resolve
from deepregress.predictor import Layout, Members, evaluate, fresh_members, per_head
from deepregress.reading import BY_DEFAULT
from deepregress.solvers.base import Folds, Network
from deepregress.solvers.parts import NetworkPart, joined, separated
from deepregress.solvers.stochastic import train

layers = keras.layers
rng = np.random.default_rng(0)
N = 600
X = rng.normal(size=(N, 6))
SIGNAL = np.tanh(X[:, 0] * X[:, 1]) + np.cos(2 * X[:, 2])
FEW = dr.Training(epochs=3, folds=2)


def backbone():
    """A tiny network that knows SIGNAL: trained on other rows."""
    keras.utils.set_random_seed(1)
    other = np.random.default_rng(1).normal(size=(4000, 6))
    inputs = keras.Input((6,))
    features = layers.Dense(8, activation="tanh", name="features")(
        layers.Dense(32, activation="relu", name="first")(inputs)
    )
    whole = keras.Model(inputs, layers.Dense(1)(features))
    whole.compile(keras.optimizers.Adam(0.01), "mse")
    y = np.tanh(other[:, 0] * other[:, 1]) + np.cos(2 * other[:, 2])
    whole.fit(other, y, epochs=15, batch_size=64, verbose=0)
    return keras.Model(inputs, features)


@pytest.fixture(scope="module")
def known():
    return backbone()


def table(y):
    return {"y": y, "m": X.astype(np.float32), "z": rng.normal(size=N)}


# -- pretrained ------------------------------------------------------------------------------------


def test_all_members_start_from_the_given_weights(known):
    architecture = resolve(networks.pretrained(known), [X], label="net(m)")
    members = fresh_members(architecture, [1, 2])
    given = np.concatenate([v.numpy().ravel() for v in known.trainable_variables])
    for packed in members.trainable:
        np.testing.assert_array_equal(packed[: len(given)], given)
    plain = fresh_members(resolve(known, [X], label="net(m)"), [1, 2])
    assert not np.array_equal(plain.trainable[0], plain.trainable[1])


def test_only_the_head_of_a_pretrained_network_is_decayed(known):
    kernels = Layout.of(resolve(networks.pretrained(known), [X], label="net(m)")).kernels
    assert kernels.tolist() == [False] * (len(kernels) - 8) + [True] * 8
    assert Layout.of(resolve(known, [X], label="net(m)")).kernels.sum() > 8


def test_frozen_layers_of_a_pretrained_network_stay(known):
    model = keras.models.clone_model(known)
    model.set_weights(known.get_weights())
    model.get_layer("first").trainable = False
    architecture = resolve(networks.pretrained(model), [X], label="net(m)")
    copy = architecture.build(3)
    assert [v.path.split("/")[0] for v in copy.trainable_variables] == ["features"] * 2
    for ours, theirs in zip(copy.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_a_network_knows_helps(known):
    """Few rows: what the backbone learned elsewhere is most of what can be known."""
    y = SIGNAL + 0.3 * rng.normal(size=N)
    small = {name: values[:150] for name, values in table(y).items()}
    new = np.random.default_rng(5).normal(size=(2000, 6))
    truth = np.tanh(new[:, 0] * new[:, 1]) + np.cos(2 * new[:, 2])
    given = {"pretrained": networks.pretrained(known), "afresh": known}
    error = {}
    for name, network in given.items():
        model = dr.fit(
            "y ~ net(m)",
            data=small,
            networks={"net": network},
            training=dr.Training(epochs=150, folds=3, learning_rate=0.01, relaxations=0),
            seed=1,
            verbose=0,
        )
        error[name] = np.mean((model.predict({"m": new.astype(np.float32)}) - truth) ** 2)
    # the variance of the signal is .78
    assert error["pretrained"] < 0.2
    assert error["pretrained"] < 0.5 * error["afresh"]


def test_no_pretrained_network():
    with pytest.raises(NetworkError, match=r"pretrained\(\): needs a Keras 3 model, got Factory"):
        networks.pretrained(networks.mlp())
    with pytest.raises(NetworkError, match=r"has no weights yet; build or call it once"):
        networks.pretrained(keras.Sequential([layers.Dense(3)]))


# -- shared ----------------------------------------------------------------------------------------


def parts_of(architecture, trunks=("trunk", "trunk", "")):
    none = np.zeros(0, dtype=int)
    return [
        NetworkPart(f"part {i}", i, (X,), architecture, none, trunk)
        for i, trunk in enumerate(trunks)
    ]


def networks_of(parts):
    return [Network(p.architecture, p.unit, p.architecture.arrange(p.inputs)) for p in parts]


def test_parts_of_one_trunk_are_one_network():
    architecture = resolve(networks.mlp((5,)), [X], label="trunk(m)")
    parts = parts_of(architecture)
    first, second = joined(networks_of(parts), parts)
    assert (first.units, second.units) == ((0, 1), (2,))
    assert (first.architecture.heads, second.architecture.heads) == (2, 1)
    assert Layout.of(first.architecture).shapes[-1] == (5, 2)


def test_members_are_taken_apart_head_by_head():
    architecture = resolve(networks.mlp((5,)), [X], label="trunk(m)")
    parts = parts_of(architecture, ("trunk", "trunk"))
    (network,) = joined(networks_of(parts), parts)
    members = fresh_members(network.architecture, [1, 2])
    packed = members.trainable.copy()
    packed[:, -10:] = np.random.default_rng(1).normal(size=(2, 10))
    heads = per_head(network.architecture, Members(packed, members.state))
    model = architecture.build(9)
    for m in range(2):
        kernel, bias = packed[m, :30].reshape(6, 5), packed[m, 30:35]
        features = np.maximum(X @ kernel + bias, 0)
        expected = features @ packed[m, 35:].reshape(5, 2)
        for h, own in enumerate(heads):
            D = evaluate(architecture, own, architecture.arrange((X,)))
            np.testing.assert_allclose(D[m], expected[:, h], atol=1e-5)
    assert len(model.trainable_variables) == 2


def test_fitted_effects_of_a_shared_network_have_one_trunk():
    """Location and log scale depend on one feature; the members of both have the same weights."""
    g = np.maximum(X[:, 0] + X[:, 1], 0) - 0.5
    y = 2 * g + np.exp(-1 + g) * np.random.default_rng(2).normal(size=N)
    fitted = {}
    for name in ("shared", "apart"):
        trunk = networks.mlp((8,))
        fitted[name] = dr.fit(
            {"loc": "y ~ trunk(m)", "scale": "~ trunk(m)"},
            data=table(y),
            networks={"trunk": networks.shared(trunk) if name == "shared" else trunk},
            training=dr.Training(epochs=30, folds=2, learning_rate=0.01),
            seed=1,
            verbose=0,
        )
    loc, scale = fitted["shared"].deep.effects
    assert (loc.unit, scale.unit) == (0, 1)
    q = 8
    np.testing.assert_array_equal(loc.members.trainable[:, :-q], scale.members.trainable[:, :-q])
    assert not np.array_equal(loc.members.trainable[:, -q:], scale.members.trainable[:, -q:])
    loc, scale = fitted["apart"].deep.effects
    assert not np.array_equal(loc.members.trainable[:, :-q], scale.members.trainable[:, :-q])
    predicted = fitted["shared"].predict(table(y), "params")
    assert np.corrcoef(predicted["loc"], g)[0, 1] > 0.9
    assert np.corrcoef(np.log(predicted["scale"]), g)[0, 1] > 0.9


def test_a_shared_model_is_saved(tmp_path):
    model = dr.fit(
        {"loc": "y ~ z + trunk(m)", "scale": "~ trunk(m)"},
        data=table(SIGNAL),
        networks={"trunk": networks.shared()},
        training=FEW,
        seed=1,
        verbose=0,
    )
    model.save(tmp_path / "model")
    new = table(SIGNAL)
    np.testing.assert_array_equal(
        dr.load(tmp_path / "model").predict(new, "params"), model.predict(new, "params")
    )


@pytest.mark.parametrize(
    "formula",
    [
        {"loc": "y ~ trunk(m)", "scale": "~ trunk(m, z)"},
        {"loc": "y ~ trunk(m) + trunk(z)"},
    ],
)
def test_a_shared_network_is_fed_alike(formula):
    with pytest.raises(NetworkError, match=r"shared network 'trunk' stands in trunk\(m\) too"):
        dr.fit(
            formula,
            data=table(SIGNAL),
            networks={"trunk": networks.shared()},
            training=FEW,
            verbose=0,
        )


def test_what_can_be_shared(known):
    assert reading_of(networks.shared()) == BY_DEFAULT
    both = resolve(networks.shared(networks.pretrained(known)), [X], label="trunk(m)")
    assert both.pretrained
    with pytest.raises(NetworkError, match="shared already"):
        networks.shared(networks.shared())


def test_training_of_one_head_is_training_without_sharing():
    """A trunk that only one part names is that part's own network, bit for bit."""
    architecture = resolve(networks.mlp((4,)), [X], label="trunk(m)")
    objective = dr_objective()
    folds = Folds((np.arange(300),), (np.arange(300, N),))
    trained = []
    for name in ("trunk", ""):
        parts = parts_of(architecture, (name,))
        together = joined(networks_of(parts), parts)
        found = train(
            objective,
            together,
            eta=objective.eta(np.zeros(objective.n_coef)),
            folds=folds,
            training=FEW,
            seed=1,
        )
        trained.append(separated(found, together, parts).members[0].trainable)
    np.testing.assert_array_equal(*trained)


def dr_objective():
    from deepregress.model import bind

    return bind(
        "y ~ 1",
        table(SIGNAL),
        "normal",
        link=None,
        networks={},
        weights=None,
        na="drop",
        select=False,
    ).objective


# -- several networks in one predictor -------------------------------------------------------------


def test_several_networks_in_one_predictor(tmp_path):
    a, b = np.maximum(X[:, 0] + X[:, 1], 0), np.abs(X[:, 2])
    data = {"y": a + b + 0.2 * rng.normal(size=N), "u": X[:, :2], "v": X[:, 2:3], "z": X[:, 5]}
    model = dr.fit(
        "y ~ z + first(u) + second(v)",
        data=data,
        networks={"first": networks.mlp((16,)), "second": networks.mlp((16,))},
        training=dr.Training(epochs=60, folds=2, learning_rate=0.01),
        seed=1,
        verbose=0,
    )
    terms = model.predict(data, "terms")
    columns = {name if isinstance(name, str) else name[-1]: terms[name] for name in terms}
    assert np.corrcoef(columns["first(u)"], a)[0, 1] > 0.9
    assert np.corrcoef(columns["second(v)"], b)[0, 1] > 0.95
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(dr.load(tmp_path / "model").predict(data), model.predict(data))
