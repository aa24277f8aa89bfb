"""orthogonalize="cell": projections of full data while networks train, exact ones after."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_stochastic import engine, problem

import deepregress as dr
from deepregress import networks
from deepregress.data import Response
from deepregress.errors import FitError
from deepregress.families import family
from deepregress.families.base import upper_pairs
from deepregress.linalg import Array
from deepregress.model_matrix import LevelColumns
from deepregress.networks import resolve
from deepregress.objective import Objective, Unit
from deepregress.predictor import evaluate, forward
from deepregress.smoothing import select
from deepregress.solvers.base import Network, Protected, Training
from deepregress.solvers.cell import as_trained, protecting
from deepregress.solvers.epoch import MemoryEpoch
from deepregress.solvers.folds import folds_of
from deepregress.solvers.semistructured import NetworkPart, solve
from deepregress.solvers.stochastic import train

FAST = Training(epochs=12, folds=3)


def with_cell(given):
    """The problem with features orthogonal to an intercept and the first covariate, weighted."""
    objective, nets, eta, folds = given
    z = np.asarray(nets[0].inputs[0], dtype=float)
    X = np.column_stack([np.ones(len(z)), z[:, 0]])
    protected = Protected(X, np.linspace(0.5, 2, len(z)))
    return objective, [replace(nets[0], protected=(protected,))], eta, folds


def begun(given, training):
    """Plan, first state with C, and data."""
    plan, state, data = engine(given, training)
    weights = state.weights.numpy()
    weights[:, -4:] = np.linspace(-1, 1, 8).reshape(2, 4)
    state = replace(state, weights=tf.constant(weights))
    removed = MemoryEpoch(plan, data).removed((state.weights, state.untrained))
    return plan, replace(state, removed=removed), data


def coefficients(network, state, folds):
    """C of each member over its own training rows, by least squares."""
    protected, found = network.protected[0], []
    z = tf.constant(network.inputs[0])
    tiled = [tf.broadcast_to(z, (len(folds.train), *z.shape))]
    members = (state.weights, state.untrained[0])
    U, _, _ = forward(network.architecture, members, tiled, mode="predict", headless=True)
    for m, rows in enumerate(folds.train):
        root = np.sqrt(protected.weights[rows])[:, None]
        u = U[m].numpy().astype(float)[rows]
        found.append(np.linalg.lstsq(root * protected.X[rows], root * u, rcond=None)[0])
    return np.stack(found), U.numpy().astype(float)


@pytest.fixture(scope="module")
def given():
    return with_cell(problem(150, network=networks.mlp((4,))))


@pytest.mark.parametrize("batch_size", [16, 1000])
def test_what_is_removed_is_of_all_training_rows(given, batch_size):
    """Of the first weights, and after an epoch of its last ones, whatever the batch."""
    objective, nets, eta, folds = given
    plan, state, data = begun(given, Training(batch_size=batch_size))
    for _ in range(2):
        C, U = coefficients(nets[0], state, folds)
        np.testing.assert_allclose(state.removed[0][0].numpy(), C, atol=1e-10)
        keys, rates = tf.constant([1, 1], tf.int32), tf.constant([3e-3, 1e-3])
        state, held_out, _ = MemoryEpoch(plan, data)(state, keys, rates)
    # held-out rows are judged with the C of the same weights
    C, U = coefficients(nets[0], state, folds)
    heads, y, total = state.weights.numpy()[:, -4:].astype(float), objective.response.lower, 0.0
    for m, rows in enumerate(folds.held):
        d = (U[m, rows] - nets[0].protected[0].X[rows] @ C[m]) @ heads[m]
        residual = (y[rows] - eta[rows, 0] - d) / np.exp(eta[rows, 1])
        total += (0.5 * np.log(2 * np.pi) + eta[rows, 1] + 0.5 * residual**2).sum()
    assert held_out == pytest.approx(total / 150, abs=1e-6)


def test_a_step_is_that_of_the_projected_features(given):
    """Full batch, gradient descent: against autodiff of (U - X C) gamma with C held fixed."""
    objective, nets, eta, folds = given
    plan, state, data = begun(given, Training(batch_size=1000, optimizer="sgd"))
    y, X = objective.response.lower, nets[0].protected[0].X
    start, z = state.weights.numpy().astype(float), nets[0].inputs[0].astype(float)
    keys, rates = tf.constant([1, 1], tf.int32), tf.constant([0.1, 0.0])
    moved, _, _ = MemoryEpoch(plan, data)(state, keys, rates)
    for m, rows in enumerate(folds.train):
        theta = tf.Variable(start[m])
        with tf.GradientTape() as tape:
            K, b, head = tf.reshape(theta[:12], (3, 4)), theta[12:16], theta[16:]
            U = tf.nn.relu(z[rows] @ K + b)
            d = tf.linalg.matvec(U - X[rows] @ state.removed[0][0][m], head)
            residual = (y[rows] - eta[rows, 0] - d) / np.exp(eta[rows, 1])
            loss = tf.reduce_mean(0.5 * residual**2)
        expected = start[m] - 0.1 * tape.gradient(loss, theta).numpy()
        np.testing.assert_allclose(moved.weights[m].numpy(), expected, atol=1e-6)


# -- fits ------------------------------------------------------------------------------------------

FAMILIES = {
    "normal": (0, lambda eta, rng: eta + 0.3 * rng.normal(size=len(eta))),
    "poisson": (0, lambda eta, rng: rng.poisson(np.exp(eta)).astype(float)),
    "bernoulli": (0, lambda eta, rng: (rng.uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))) * 1.0),
    "scale": (1, lambda eta, rng: np.exp(eta) * rng.normal(size=len(eta))),
}


def simulated(name, n=300):
    """A predictor x + 1.5 tanh(2 z1 z2) with deep(x, z1, z2), protected from 1 and x."""
    unit, draw = FAMILIES[name]
    rng = np.random.default_rng(2)
    x, z = rng.uniform(-1, 1, n), rng.normal(size=(n, 2))
    y = draw(x + 1.5 * np.tanh(2 * z[:, 0] * z[:, 1]), rng)
    of = family("normal" if name == "scale" else name)
    X = np.column_stack([np.ones(n), x])
    units = [Unit(X[:, :1], np.zeros(n)) for _ in of.parameters]
    units[unit] = Unit(X, np.zeros(n))
    response = Response(y, y, np.ones(n), None, "y", None)
    inputs = np.column_stack([x, z])
    architecture = resolve(networks.mlp((16,)), [inputs], label="deep(x,z)")
    part = NetworkPart("deep(x,z)", unit, (inputs,), architecture, np.array([0, 1]))
    return Objective(of, response, tuple(units)), part


def working_weights(objective, eta, unit) -> Array:
    """-d2 l / d eta^2 of each row in one predictor."""
    _, _, packed = objective.row_derivatives(eta)
    pairs = list(upper_pairs(eta.shape[1]))
    return np.maximum(packed[:, pairs.index((unit, unit))], 0.0)


def solved(objective, part, training=FAST, seed=1, orthogonalize="cell"):
    return solve(
        objective,
        [part],
        structured=select,
        trainer=train,
        training=training,
        seed=seed,
        orthogonalize=orthogonalize,
        verbose=0,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_columns_are_orthogonal_at_rounding(name):
    objective, part = simulated(name, n=600)
    result = solved(objective, part)
    assert result.effects[0].multiplier > 0
    # the multiplier's column is q, orthogonal in the weights of the networks on top of the fit
    q = result.objective.units[part.unit].X[:, -1]
    X = objective.units[part.unit].X
    W = weights_of_projection(objective, part, result)
    assert np.abs(X.T @ (W * q)).max() < 1e-9 * np.abs(X * (W * q)[:, None]).sum(axis=0).max()
    # its C is that of the members over all rows
    inputs = part.architecture.arrange(part.inputs)
    D = evaluate(part.architecture, result.effects[0].members, inputs)
    projected = D - (X @ result.effects[0].projection).T
    scale = np.abs(D).max() * np.abs(X).max() * W.sum()
    assert np.abs(X.T @ (W[:, None] * projected.T)).max() < 1e-11 * scale


def logit_weight(eta):
    return 1.0 / (2.0 + np.exp(eta) + np.exp(-eta))


def weights_of_projection(objective, part, result):
    """W recomputed: expected, of the structured fit; of a scale, with the networks as judged."""
    folds = folds_of(objective.response.weights, FAST, crossfit=True, seed=1)
    eta = objective.eta(select(objective).coef)
    if part.unit == 0:
        expected = {"normal": np.ones_like, "poisson": np.exp, "bernoulli": logit_weight}
        return expected[objective.family.name](eta[:, 0])
    network = Network(part.architecture, part.unit, part.architecture.arrange(part.inputs))
    columns = objective.units[part.unit].matrix
    weights = working_weights(objective, eta, part.unit)
    network = protecting(network, columns, weights, label=part.label)
    D = evaluate(part.architecture, result.effects[0].members, network.inputs)
    judged = as_trained(network, D, folds)
    for m, rows in enumerate(folds.held):
        eta[rows, part.unit] += judged[m, rows]
    return working_weights(objective, eta, part.unit)


def test_networks_train_with_their_cells():
    """Of both heads of a shared network, too: the trainer gets columns and working weights."""
    objective, part = simulated("normal")
    parts = [
        replace(part, trunk="net"),
        replace(part, unit=1, protected=np.array([0]), trunk="net"),
    ]
    seen = []

    def spy(objective, networks, **choices):
        seen.append(networks)
        return train(objective, networks, **choices)

    result = solve(
        objective,
        parts,
        structured=select,
        trainer=spy,
        training=Training(epochs=2, folds=2),
        seed=1,
        orthogonalize="cell",
        verbose=0,
    )
    (network,) = seen[0]
    assert [each.X.shape[1] for each in network.protected] == [2, 1]
    eta = objective.eta(select(objective).coef)
    for unit, each in enumerate(network.protected):
        np.testing.assert_allclose(each.weights, working_weights(objective, eta, unit), rtol=1e-6)
    assert np.isfinite([epoch.held_out for epoch in result.history]).all()


def test_slope_of_the_jss_toy_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    table = pd.DataFrame({"x": x, "y": 2 * x + np.sin(3 * x) + 0.3 * rng.normal(size=1000)})
    model = dr.fit(
        "y ~ x + deep(x)",
        data=table,
        training=Training(epochs=20),
        orthogonalize="cell",
        seed=1,
        verbose=0,
    )
    slope = np.polyfit(x, table["y"], 1)[0]
    assert model.coef["loc", "x"] == pytest.approx(slope, abs=1e-6)
    assert model.deep.effects[0].multiplier > 0
    assert model.settings["orthogonalize"] == "cell"


def test_predictions_are_of_the_row_alone_and_saved(tmp_path):
    rng = np.random.default_rng(3)
    table = pd.DataFrame(rng.normal(size=(200, 2)), columns=["x", "z"])
    table["y"] = table["x"] + np.tanh(3 * table["z"]) + 0.2 * rng.normal(size=200)
    model = dr.fit(
        "y ~ x + deep(x, z)",
        data=table,
        training=FAST,
        orthogonalize="cell",
        networks=None,
        seed=1,
        verbose=0,
    )
    together = model.predict(table)
    alone = [float(model.predict(table.iloc[[i]])[0]) for i in (0, 7, 199)]
    assert alone == list(together[[0, 7, 199]])
    model.save(tmp_path / "model.zip")
    assert np.array_equal(dr.load(tmp_path / "model.zip").predict(table), together)


def test_factors_with_many_levels_are_refused():
    objective, part = simulated("normal")
    codes = np.arange(300) % 150
    levels = LevelColumns(2, 150, codes, np.ones((300, 1)))
    columns = replace(objective.units[0], levels=(levels,)).matrix
    network = Network(part.architecture, 0, part.inputs)
    with pytest.raises(FitError, match=r"deep\(x,z\) is orthogonal to a factor with too many"):
        protecting(network, columns, np.ones(300), label=part.label)
