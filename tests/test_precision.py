"""Networks that compute in half precision: policies, the scaled loss, and what they learn."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_stochastic import engine, fit, problem

import deepregress as dr
from deepregress import networks
from deepregress.architecture import call, layers, template
from deepregress.errors import FitError
from deepregress.networks import resolve
from deepregress.solvers.base import Training
from deepregress.solvers.optimizer import FIRST_SCALE, STEPS_TO_DOUBLE, DecayedAdam, stepper_of

HALF = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}


def policies(architecture):
    kinds = {"Dense", "Conv2D", "BatchNormalization"}
    return {
        layer.compute_dtype
        for layer in layers(template(architecture))
        if type(layer).__name__ in kinds
    }


@pytest.mark.parametrize("policy", HALF)
def test_layers_compute_in_the_precision_and_keep_float32_weights(policy):
    z = np.zeros((4, 3))
    architecture = resolve(networks.mlp((4,)), [z], label="deep(z)").in_precision(policy)
    assert policies(architecture) == {HALF[policy]}
    model = template(architecture)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert call(model, [z.astype("float32")]).dtype == HALF[policy]


@pytest.mark.parametrize("policy", HALF)
def test_half_precision_learns_what_float32_learns(policy):
    single = problem(400, network=networks.mlp((32,)))
    objective, nets, eta, folds = single
    half = [
        net.__class__(net.architecture.in_precision(policy), net.unit, net.inputs) for net in nets
    ]
    choices = {"epochs": 30, "learning_rate": 1e-2}
    ours = [e.held_out for e in fit((objective, half, eta, folds), **choices).history]
    theirs = [e.held_out for e in fit(single, **choices).history]
    gain = theirs[0] - min(theirs)
    assert gain > 0.05
    # eight and eleven bits of precision in each product
    assert min(ours) == pytest.approx(min(theirs), abs=0.2 * gain)
    assert ours[1] != theirs[1]


def test_gradients_below_float16_are_scaled_up():
    """A residual of 1e-7: its gradient is zero in float16 unless the loss is scaled."""
    objective, nets, eta, folds = problem(64, network=networks.mlp((4,)))
    eta = eta.copy()
    eta[:, 1] = 8.0
    net = nets[0].__class__(nets[0].architecture.in_precision("mixed_float16"), 0, nets[0].inputs)
    moved = []
    for own in ([net], nets):
        plan, state, data = engine((objective, own, eta, folds), Training(batch_size=1000))
        weights = state.weights.numpy()
        weights[:, -4:] = np.linspace(-1, 1, 8).reshape(2, 4)
        start = state.__class__(tf.constant(weights), state.slots, state.untrained, state.removed)
        gradient = gradient_of(plan, start, data)
        assert np.abs(gradient).max() < 1e-6
        moved.append(gradient)
    np.testing.assert_allclose(moved[0], moved[1], atol=0.02 * np.abs(moved[1]).max())


def gradient_of(plan, state, data):
    """Gradient of all training rows without its scale."""
    from deepregress.solvers.epoch import gathered, loss_gradient

    stepper = stepper_of(plan.rule, tuple(a for a, _ in plan.networks), plan.n_members)
    scale = stepper.scale(state.slots)
    members = (state.weights, state.untrained, state.removed)
    batch = gathered(data, data["train"][:, : plan.n_train])
    gradient, _, _ = loss_gradient(plan.networks, plan.family, members, batch, scale=scale)
    return gradient.numpy() / float(scale)


def scaled():
    architecture = resolve(networks.mlp((4,)), [np.zeros((4, 3))], label="deep(z)")
    return stepper_of(DecayedAdam(), (architecture.in_precision("mixed_float16"),), 2)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale():
    stepper = scaled()
    weights, ones = tf.ones((2, 20)), 1e5 * tf.ones((2, 20))
    gradient = tf.tensor_scatter_nd_update(ones, [[0, 3]], [np.inf])
    rates = tf.constant([0.1, 0.0])
    same, slots = stepper.step(weights, gradient, stepper.start, rates)
    assert np.array_equal(same, weights)
    assert float(slots[0]) == FIRST_SCALE / 2
    assert not np.any(slots[2].numpy())
    moved, slots = stepper.step(weights, ones, slots, rates)
    # Adam's first step is the learning rate, whatever the size of the gradient
    np.testing.assert_allclose(moved, 0.9, atol=1e-3)
    assert int(slots[1]) == 1
    full = (slots[0], tf.constant(STEPS_TO_DOUBLE - 1), *slots[2:])
    _, slots = stepper.step(weights, ones, full, rates)
    assert float(slots[0]) == FIRST_SCALE
    assert int(slots[1]) == 0


def test_policies_of_models_are_kept_and_training_sets_another():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(120, 2)), columns=["x", "z"])
    table["y"] = table["x"] + np.tanh(3 * table["z"]) + 0.2 * rng.normal(size=120)
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, activation="relu", dtype="mixed_bfloat16")]
    )

    def fitted(**choices):
        training = dr.Training(epochs=2, folds=2, **choices)
        given = {"networks": {"net": model}, "training": training, "seed": 1, "verbose": 0}
        return dr.fit("y ~ x + net(z)", data=table, **given)

    own, single = fitted(), fitted(precision="float32")
    assert policies(own.deep.effects[0].architecture) == {"bfloat16"}
    assert policies(single.deep.effects[0].architecture) == {"float32"}
    # one row at a time as all together
    assert float(own.predict(table.iloc[[5]])[0]) == own.predict(table)[5]


def test_unknown_precisions():
    with pytest.raises(FitError, match="precision='float64'.*mixed_bfloat16"):
        Training(precision="float64")
