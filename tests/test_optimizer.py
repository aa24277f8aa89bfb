"""Optimisers of Keras on packed weights: against a plain Keras loop over each member."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_stochastic import engine, fit, problem

from deepregress import networks
from deepregress.architecture import call
from deepregress.errors import FitError
from deepregress.predictor import Layout
from deepregress.solvers import epoch as graph
from deepregress.solvers.base import Training

optimizers = keras.optimizers
EPOCHS, BATCH = 3, 16

EXPONENTIAL = optimizers.schedules.ExponentialDecay(0.05, decay_steps=3, decay_rate=0.5)


class Doubled(optimizers.SGD):
    """A user's own optimiser: steps of twice the length, of matrices only."""

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) > 1:
            super().update_step(gradient, variable, 2 * learning_rate)


def without_bias_decay():
    adam = optimizers.AdamW(0.01, weight_decay=0.5)
    adam.exclude_from_weight_decay(var_names=["bias"])
    return adam


PACKED = {
    "sgd": lambda: optimizers.SGD(0.05),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "clipped": lambda: optimizers.Adam(0.01, clipvalue=0.1),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.5),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "nadam": lambda: optimizers.Nadam(0.01),
    "lion": lambda: optimizers.Lion(0.01),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adamax": lambda: optimizers.Adamax(0.01),
    "ftrl": lambda: optimizers.Ftrl(0.05, l1_regularization_strength=0.001),
    "schedule": lambda: optimizers.Adam(EXPONENTIAL),
    "accumulated": lambda: optimizers.SGD(0.05, gradient_accumulation_steps=2),
}
BY_VARIABLE = {
    "norm": lambda: optimizers.Adam(0.01, clipnorm=0.05),
    "global norm": lambda: optimizers.SGD(0.05, global_clipnorm=0.1),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "lamb": lambda: optimizers.Lamb(0.01),
    "muon": lambda: optimizers.Muon(0.01),
    "undecayed": without_bias_decay,
    "own": lambda: Doubled(0.02),
}
MADE = PACKED | BY_VARIABLE


def by_keras(given, plan, data, start, made):
    """Weights (M, n_weights) after a plain Keras loop over each member on the same batches."""
    objective, nets, eta, _ = given
    y, z = objective.response.lower, nets[0].inputs[0]
    layout, finals = Layout.of(nets[0].architecture), []
    for m in range(plan.n_members):
        model = nets[0].architecture.build(5)
        head = keras.Variable(np.zeros(layout.sizes[-1], "float32"), name="head")
        variables = [*model.trainable_variables, head]
        pieces = np.split(start[m], np.cumsum(layout.sizes)[:-1])
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(piece.reshape(variable.shape))
        optimizer = made()
        for epoch in range(1, EPOCHS + 1):
            keys = tf.constant([1, epoch], tf.int32)
            order = graph.shuffled(data["train"], data["n_train"], keys).numpy()[m]
            for step in range(plan.steps):
                rows = order[step * plan.batch : (step + 1) * plan.batch]
                with tf.GradientTape() as tape:
                    d = tf.cast(tf.linalg.matvec(call(model, [z[rows]]), head.value), tf.float64)
                    residual = (y[rows] - eta[rows, 0] - d) / np.exp(eta[rows, 1])
                    loss = tf.reduce_mean(0.5 * residual**2)
                gradients = tape.gradient(loss, [v.value for v in variables])
                optimizer.apply(gradients, variables)
        finals.append(np.concatenate([v.numpy().ravel() for v in variables]))
    return np.stack(finals)


@pytest.fixture(scope="module")
def given():
    return problem(60, network=networks.mlp((4,)))


@pytest.mark.parametrize("name", MADE)
def test_steps_are_those_of_keras(given, name):
    plan, state, data = engine(given, Training(optimizer=MADE[name](), batch_size=BATCH))
    start = state.weights.numpy().copy()
    # a head of zeros gives the other weights no gradient in the first step
    start[:, -4:] = np.linspace(-1, 1, 8).reshape(2, 4)
    state = replace(state, weights=tf.constant(start))
    assert plan.rule.elementwise == (name in PACKED)
    for epoch in range(1, EPOCHS + 1):
        keys, rates = tf.constant([1, epoch], tf.int32), tf.constant([plan.rate, 0.0])
        state, _, _ = graph.one_epoch(plan, state, data, keys, rates)
    expected = by_keras(given, plan, data, start, MADE[name])
    # float32 of two graphs; division by small second moments magnifies it
    np.testing.assert_allclose(state.weights.numpy(), expected, atol=5e-5)
    assert np.abs(expected - start).max() > 1e-3


def test_compiled_by_xla():
    given = problem(60, network=networks.mlp((4,)))
    choices = {"optimizer": optimizers.Adam(0.01, clipnorm=0.1), "epochs": 3, "batch_size": BATCH}
    plain, xla = (fit(given, jit=jit, **choices) for jit in (False, True))
    np.testing.assert_allclose(
        [e.held_out for e in xla.history], [e.held_out for e in plain.history], atol=1e-5
    )


def test_names_take_the_learning_rate_and_objects_have_their_own(given):
    named = fit(given, optimizer="sgd", learning_rate=0.25, epochs=1)
    assert named.history[-1].learning_rate == 0.25
    made = fit(given, optimizer=optimizers.SGD(0.125), epochs=1)
    assert made.history[-1].learning_rate == 0.125
    described = keras.optimizers.serialize(optimizers.SGD(0.125))
    again = fit(given, optimizer=described, epochs=1)
    assert again.history == made.history


def test_the_users_object_is_left_alone(given):
    optimizer = optimizers.Adam(0.01)
    first, second = (fit(given, optimizer=optimizer, epochs=2) for _ in range(2))
    assert not optimizer.built
    assert first.history == second.history


def test_the_history_shows_the_schedule(given):
    trained = fit(given, optimizer=optimizers.SGD(EXPONENTIAL), epochs=2, batch_size=10)
    # 30 rows in each half: three steps of ten an epoch
    rates = [epoch.learning_rate for epoch in trained.history]
    assert rates == pytest.approx([0.05, 0.05, 0.025])


def test_the_rate_of_a_keras_optimiser_is_left_to_callbacks(given):
    trained = fit(given, optimizer="adam", epochs=40, patience=6)
    assert {epoch.learning_rate for epoch in trained.history} == {3e-3}


def of_one_model():
    adam = optimizers.AdamW(0.01)
    adam.exclude_from_weight_decay(var_list=[keras.Variable(0.0)])
    return adam


@pytest.mark.parametrize(
    ("choices", "match"),
    [
        ({"optimizer": "adamm"}, "optimizer='adamm'.*needs a Keras optimiser"),
        ({"optimizer": 3}, "optimizer=3.*needs a Keras optimiser"),
        ({"optimizer": optimizers.SGD(), "learning_rate": 0.1}, "learning_rate=0.1"),
        ({"optimizer": "sgd", "decay_epochs": 2.0}, "decay_epochs=2.0"),
        ({"optimizer": optimizers.SGD(use_ema=True)}, "use_ema=True"),
        ({"optimizer": of_one_model()}, "var_list"),
        ({"optimizer": optimizers.LossScaleOptimizer(optimizers.SGD())}, "inner optimiser"),
    ],
)
def test_errors(given, choices, match):
    with pytest.raises(FitError, match=match):
        fit(given, epochs=1, **choices)
