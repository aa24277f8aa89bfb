"""Training of networks: one step and one epoch against NumPy and Keras written out by hand."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepregress import families, networks
from deepregress.architecture import call
from deepregress.data import Response
from deepregress.errors import FitError, NetworkWarning
from deepregress.networks import resolve
from deepregress.objective import Objective, Unit
from deepregress.predictor import Layout, evaluate, fresh_members
from deepregress.solvers import epoch as graph
from deepregress.solvers.base import Folds, Network, Training
from deepregress.solvers.epoch_data import capacity, epoch_data
from deepregress.solvers.plan import Plan, batch_size
from deepregress.solvers.stochastic import train

layers = keras.layers


def problem(n=200, seed=0, *, network=None, n_folds=2, weights=None, inputs=None):
    """A normal response whose location depends on z, its networks, predictors and folds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    y = np.tanh(2 * z[:, 0] * z[:, 1]) + 0.3 * rng.normal(size=n)
    weights = np.ones(n) if weights is None else weights
    response = Response(y, y, weights, None, "y", None)
    one = Unit(np.ones((n, 1)), np.zeros(n))
    objective = Objective(families.family("normal"), response, (one, one))
    inputs = z if inputs is None else inputs
    architecture = resolve(network, [inputs], label="deep(z)")
    nets = [Network(architecture, 0, architecture.arrange([inputs]))]
    held = tuple(np.array_split(rng.permutation(n), n_folds))
    folds = Folds(tuple(np.setdiff1d(np.arange(n), rows) for rows in held), held)
    eta = np.column_stack([np.full(n, y.mean()), np.full(n, np.log(y.std()))])
    return objective, nets, eta, folds


def fit(given, **choices):
    objective, nets, eta, folds = given
    seed = choices.pop("seed", 1)
    return train(
        objective, nets, eta=eta, folds=folds, training=Training(**choices), seed=seed, verbose=0
    )


def engine(given, training):
    """The compiled epoch with its initial state and data."""
    objective, nets, eta, folds = given
    plan = Plan.of(nets, objective, folds, training)
    seeds = range(10, 10 + plan.n_members)
    members = [fresh_members(net.architecture, seeds) for net in nets]
    return plan, plan.start(members), epoch_data(objective, nets, eta, folds, plan)


def one_epoch(plan, state, data, *, rate=3e-3, epoch=1):
    decay = 1 / (plan.training.decay_epochs * plan.steps)
    keys = tf.constant([1, epoch], tf.int32)
    rates = tf.constant([rate, decay * rate / plan.training.learning_rate], tf.float32)
    return graph.one_epoch(plan, state, data, keys, rates)[:2]


def nll(y, eta, d):
    return (
        0.5 * np.log(2 * np.pi) + eta[:, 1] + 0.5 * ((y - eta[:, 0] - d) / np.exp(eta[:, 1])) ** 2
    )


@pytest.mark.parametrize("jit", [False, True])
def test_two_steps_are_adam_with_decoupled_decay_in_numpy(jit):
    """Full batches, so that the order of rows does not matter; heads start at one, not at zero."""
    given = problem(60, network=networks.mlp((4,)))
    objective, nets, eta, folds = given
    training = Training(batch_size=1000, jit=jit, decay_epochs=2.0)
    plan, state, data = engine(given, training)
    start = state.weights.numpy().astype(float)
    start[:, -4:] = 1.0
    state = replace(state, weights=tf.constant(start, tf.float32))
    assert plan.steps == 1
    for epoch in (1, 2):
        state, held_out = one_epoch(plan, state, data, epoch=epoch)

    y, z = objective.response.lower, nets[0].inputs[0].astype(float)
    kernel = Layout.of(nets[0].architecture).kernels
    for m, rows in enumerate(folds.train):
        theta, first, second = start[m].copy(), 0.0, 0.0
        for t in (1, 2):
            g = gradient(theta, z[rows], y[rows], eta[rows])
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * g**2
            rate = 3e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            theta = theta - theta * kernel / 2.0 - rate * first / (np.sqrt(second) + 1e-7)
        # Adam divides by sqrt(v): float32 rounding of a small gradient is magnified
        np.testing.assert_allclose(state.weights[m].numpy(), theta, atol=2e-5)
    D = evaluate(nets[0].architecture, unpacked(state, nets), nets[0].inputs)
    total = sum(nll(y[r], eta[r], D[m][r]).sum() for m, r in enumerate(folds.held))
    assert held_out == pytest.approx(total / 60, abs=1e-6)


def unpacked(state, nets):
    return state.members(nets)[0]


def gradient(theta, z, y, eta):
    """Of the mean normal NLL of z -> relu(z K + b) h, by hand."""
    K, b, h = theta[:12].reshape(3, 4), theta[12:16], theta[16:]
    a = z @ K + b
    u = np.maximum(a, 0)
    residual = -(y - eta[:, 0] - u @ h) / np.exp(2 * eta[:, 1]) / len(y)
    back = residual[:, None] * h * (a > 0)
    return np.concatenate([(z.T @ back).ravel(), back.sum(0), u.T @ residual])


@pytest.mark.parametrize("jit", [False, True])
def test_an_epoch_is_a_keras_loop_over_the_same_batches(jit):
    given = problem(150)
    objective, nets, eta, folds = given
    plan, state, data = engine(given, Training(batch_size=16, jit=jit))
    order = graph.shuffled(data["train"], data["n_train"], tf.constant([1, 1])).numpy()
    start = state.weights.numpy()
    state, _ = one_epoch(plan, state, data)
    y, z = objective.response.lower, nets[0].inputs[0]
    layout = Layout.of(nets[0].architecture)
    for m in range(plan.n_members):
        model = nets[0].architecture.build(5)
        head = keras.Variable(np.zeros(32, "float32"))
        variables = [*model.trainable_variables, head]
        pieces = np.split(start[m], np.cumsum(layout.sizes)[:-1])
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(piece.reshape(variable.shape))
        adam = keras.optimizers.Adam(3e-3, epsilon=1e-7)
        for step in range(plan.steps):
            rows = order[m, step * 16 : (step + 1) * 16]
            with tf.GradientTape() as tape:
                d = tf.cast(tf.linalg.matvec(call(model, [z[rows]]), head.value), tf.float64)
                residual = (y[rows] - eta[rows, 0] - d) / np.exp(eta[rows, 1])
                loss = tf.reduce_mean(0.5 * residual**2)
            g = tape.gradient(loss, [v.value for v in variables])
            old = [v.numpy() for v in variables]
            adam.apply(g, variables)
            for v, value in zip(variables, old, strict=True):
                if len(v.shape) > 1 or v is head:
                    v.assign_sub(value / (6 * plan.steps))
        final = np.concatenate([v.numpy().ravel() for v in variables])
        # a few steps of float32: XLA and plain graphs round differently
        np.testing.assert_allclose(state.weights[m].numpy(), final, atol=2e-4)


def test_every_row_once_per_epoch_in_a_new_order():
    given = problem(150)
    plan, _, data = engine(given, Training(batch_size=16))
    seeds = [tf.constant([1, e]) for e in (1, 2)]
    first, second = (graph.shuffled(data["train"], data["n_train"], s).numpy() for s in seeds)
    n = plan.n_train
    for m, rows in enumerate(given[3].train):
        assert np.array_equal(np.sort(first[m, :n]), np.sort(rows))
        # positions beyond the last row start again from the front
        rest = first[m, n:]
        assert np.array_equal(rest, first[m, : len(rest)])
    assert not np.array_equal(first, second)


def test_padding_takes_no_part():
    """Rows beyond the table are copies of row 0: poisoning them changes nothing."""
    given = problem(150)
    plan, state, data = engine(given, Training(batch_size=16))
    assert data["weights"].shape[0] > 150
    poisoned = dict(data)
    for name in ("weights", "eta"):
        values = data[name].numpy()
        values[150:] = np.nan
        poisoned[name] = tf.constant(values)
    clean, poisonous = (one_epoch(plan, state, d) for d in (data, poisoned))
    assert clean[1] == poisonous[1]
    assert np.array_equal(clean[0].weights, poisonous[0].weights)


def test_capacity():
    for n in (1, 64, 65, 80, 81, 1000, 50_000):
        length = capacity(n)
        assert max(n, 64) <= length <= max(1.25 * n, 64)
    assert capacity(1025) == 1280


def test_tables_of_similar_length_share_a_graph():
    fit(problem(500), epochs=2)
    before = graph.compiled_epoch.cache_info().misses
    plan, _, _ = engine(problem(500), Training())
    epoch = graph.compiled_epoch(
        plan.networks, plan.family, plan.n_members, plan.batch, plan.jit, plan.rule
    )
    count = epoch.experimental_get_tracing_count()
    for n in (505, 511):
        fit(problem(n, seed=n), epochs=2)
    assert graph.compiled_epoch.cache_info().misses == before
    assert epoch.experimental_get_tracing_count() == count


@pytest.mark.parametrize("jit", [False, True])
def test_seeds(jit):
    given = problem()
    first, again, other = (fit(given, epochs=5, seed=s, jit=jit) for s in (1, 1, 2))
    assert np.array_equal(first.members[0].trainable, again.members[0].trainable)
    assert first.history == again.history
    assert not np.array_equal(first.members[0].trainable, other.members[0].trainable)


def test_training_finds_what_is_there_and_keeps_the_best_epoch():
    given = problem(400)
    trained = fit(given, epochs=60)
    values = [epoch.held_out for epoch in trained.history]
    assert trained.best_epoch == int(np.argmin(values))
    assert values[trained.best_epoch] < values[0] - 0.2
    objective, nets, eta, folds = given
    y = objective.response.lower
    D = evaluate(nets[0].architecture, trained.members[0], nets[0].inputs)
    total = sum(nll(y[r], eta[r], D[m][r]).sum() for m, r in enumerate(folds.held))
    assert values[trained.best_epoch] == pytest.approx(total / 400, abs=1e-6)
    assert values[0] == pytest.approx(nll(y, eta, 0.0).mean(), abs=1e-12)


def test_members_never_see_their_fold():
    """Another response in the rows of fold 0 leaves the member of fold 0 as it is."""
    objective, nets, eta, folds = problem()
    y = objective.response.lower.copy()
    y[folds.held[0]] += 10.0
    response = Response(y, y, objective.response.weights, None, "y", None)
    changed = Objective(objective.family, response, objective.units), nets, eta, folds
    weights = []
    for given in ((objective, nets, eta, folds), changed):
        plan, state, data = engine(given, Training(batch_size=16))
        state, _ = one_epoch(plan, state, data)
        weights.append(state.weights.numpy())
    assert np.array_equal(weights[0][0], weights[1][0])
    assert not np.array_equal(weights[0][1], weights[1][1])


def test_early_stopping_and_learning_rate():
    given = problem(100, inputs=np.random.default_rng(9).normal(size=(100, 3)))
    trained = fit(given, patience=8, learning_rate=1e-2, relaxations=0)
    last = trained.history[-1].epoch
    assert last == trained.best_epoch + 8
    assert "early stopping" in trained.status.message
    rates = [epoch.learning_rate for epoch in trained.history]
    assert min(rates) >= 1e-2 / 8
    # halved in the middle of the last eight epochs without progress, unless it is at the floor
    assert rates[-1] in (rates[-5] / 2, 1e-2 / 8)


def test_no_signal_keeps_epoch_zero():
    rng = np.random.default_rng(3)
    given = problem(150, inputs=rng.normal(size=(150, 3)))
    trained = fit(given, learning_rate=0.1, patience=3)
    assert trained.best_epoch == 0
    assert not trained.members[0].trainable[:, -32:].any()


@pytest.mark.parametrize("jit", [False, True])
def test_weights_are_repetitions(jit):
    """Weight 2 is the row twice in the held-out likelihood; weight 0 is no row."""
    weights = np.random.default_rng(4).integers(0, 3, size=200).astype(float)
    given = problem(200, weights=weights)
    plan, state, data = engine(given, Training(jit=jit))
    _, held_out = one_epoch(plan, state, data)
    objective, nets, eta, folds = given
    after, _ = one_epoch(plan, state, data)
    D = evaluate(nets[0].architecture, unpacked(after, nets), nets[0].inputs)
    y = objective.response.lower
    rowwise = np.empty(200)
    for m, rows in enumerate(folds.held):
        rowwise[rows] = nll(y[rows], eta[rows], D[m][rows])
    assert held_out == pytest.approx(np.repeat(rowwise, weights.astype(int)).mean(), abs=1e-6)


NETWORKS = {
    "batch statistics and dropout": (
        lambda: keras.Sequential(
            [keras.Input((3,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.2)]
        ),
        (120, 3),
    ),
    "recurrent": (lambda: keras.Sequential([keras.Input((4, 3)), layers.LSTM(3)]), (120, 4, 3)),
    "image": (lambda: networks.cnn((2,), hidden=(4,)), (120, 6, 6)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_any_network_trains(kind):
    written, shape = NETWORKS[kind]
    inputs = np.random.default_rng(5).normal(size=shape)
    given = problem(120, network=written(), inputs=inputs)
    trained = fit(given, epochs=3, batch_size=32)
    assert np.isfinite([epoch.held_out for epoch in trained.history]).all()
    again = fit(given, epochs=3, batch_size=32)
    assert np.array_equal(trained.members[0].trainable, again.members[0].trainable)


def test_embeddings_train():
    token = np.random.default_rng(6).integers(0, 9, size=(200, 2))
    embedding = [keras.Input((2,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten()]
    given = problem(200, network=keras.Sequential(embedding), inputs=token)
    plan, state, data = engine(given, Training(batch_size=200))
    moved, _ = one_epoch(plan, state, data)
    moved, _ = one_epoch(plan, moved, data)
    assert not np.allclose(moved.weights[:, :27], state.weights[:, :27] * (1 - 1 / 6) ** 2)


def test_regularisers_of_the_users_network_count():
    def penalised(factor):
        l2 = keras.regularizers.L2(factor)
        return keras.Sequential([keras.Input((3,)), layers.Dense(4, kernel_regularizer=l2)])

    sizes = []
    for factor in (0.0, 10.0):
        plan, state, data = engine(problem(network=penalised(factor)), Training(batch_size=16))
        for epoch in range(20):
            state, _ = one_epoch(plan, state, data, epoch=epoch, rate=3e-2)
        sizes.append(float(tf.reduce_sum(state.weights[:, :12] ** 2)))
    assert sizes[1] < 0.2 * sizes[0]


def test_several_networks_in_several_predictors():
    objective, nets, eta, folds = problem(300)
    other = resolve(networks.mlp((4,)), [nets[0].inputs[0]], label="deep(z)")
    both = [nets[0], Network(other, 1, nets[0].inputs)]
    trained = fit((objective, both, eta, folds), epochs=30)
    assert [m.trainable.shape[1] for m in trained.members] == [
        sum(Layout.of(net.architecture).sizes) for net in both
    ]
    assert trained.members[1].trainable[:, -4:].any()


class Recorder:
    def __init__(self, at=None, error=None):
        self.logs, self.at, self.error = [], at, error

    def on_epoch_end(self, epoch, logs):
        self.logs.append((epoch, logs["val_loss"]))
        if epoch == self.at:
            raise self.error


def test_callbacks_see_every_epoch():
    recorder = Recorder()
    trained = fit(problem(), epochs=3, callbacks=(recorder,))
    assert recorder.logs == [(e.epoch - 1, e.held_out) for e in trained.history[1:]]


def test_keras_callbacks_can_stop():
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=100.0)
    trained = fit(problem(), epochs=9, callbacks=(stop,))
    assert len(trained.history) - 1 == 2
    assert "a callback" in trained.status.message


def test_interruption_returns_the_best_so_far():
    recorder = Recorder(at=4, error=KeyboardInterrupt())
    trained = fit(problem(), epochs=50, callbacks=(recorder,))
    assert not trained.status.converged
    assert "interrupted" in trained.status.message
    assert trained.history[-1].epoch == 5
    assert 0 < trained.best_epoch <= 5


def test_divergence_is_told():
    with pytest.warns(NetworkWarning, match="diverged"):
        trained = fit(problem(), learning_rate=1e30, epochs=20)
    assert np.isfinite(trained.members[0].trainable).all()


def test_batch_sizes_and_xla():
    sizes = [batch_size(Training(), n) for n in (2_000, 2_001, 20_000, 20_001)]
    assert sizes == [32, 128, 128, 256]
    assert batch_size(Training(batch_size=7), 2_000) == 7
    objective, nets, _, folds = problem(2_000)
    assert Plan.of(nets, objective, folds, Training()).jit
    assert not Plan.of(nets, objective, folds, Training(epochs=50)).jit
    assert not Plan.of(nets, objective, folds, Training(jit=False)).jit
    assert Plan.of(nets, objective, folds, Training(epochs=1, jit=True)).jit


def test_progress_bar(capsys):
    objective, nets, eta, folds = problem()
    training = Training(epochs=2)
    train(objective, nets, eta=eta, folds=folds, training=training, seed=1, verbose=1)
    assert "round 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "choice",
    [
        {"epochs": 0},
        {"folds": 1},
        {"patience": 1.5},
        {"learning_rate": 0.0},
        {"decay_epochs": -1.0},
        {"batch_size": "large"},
        {"crossfit": "maybe"},
        {"jit": 3},
    ],
)
def test_impossible_choices(choice):
    (name,) = choice
    with pytest.raises(FitError, match=rf"Training\({name}="):
        Training(**choice)
