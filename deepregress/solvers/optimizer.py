"""One step of an optimiser on the packed weights of all members, inside a compiled graph.

    built-in  m <- .9 m + .1 g,  v <- .999 v + .001 g^2,  theta <- theta - lr_t m / (sqrt(v) + 1e-7)
              kernels <- kernels - kernels lr / (lr_0 tau steps)       tau in epochs, decoupled
    Keras     theta, slots <- optimizer.apply(g)                       any optimiser of Keras 3

The slots are all that an optimiser remembers (moments, iterations); they go in and come out, so a
step is a function. Rules that act on each weight alone take the packed weights (M, n_weights) as
one variable. All others (norms, matrices, names, the user's own) get an optimiser for each member
and a variable for each of its weights, as in a Keras loop over that member.

Networks that compute in float16 take steps of a scaled loss.

References: Kingma & Ba (2015), arXiv 1412.6980; Loshchilov & Hutter (2019), arXiv 1711.05101;
Micikevicius et al. (2018), arXiv 1710.03740 (loss scaling).
"""

from __future__ import annotations

import contextlib
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepregress.architecture import Architecture, layers, template
from deepregress.errors import FitError
from deepregress.predictor import Layout
from deepregress.solvers.base import Training

Tensor = Any
Slots = tuple[Tensor, ...]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

FIRST_SCALE, STEPS_TO_DOUBLE = 2.0**15, 2000
"""Scale of the loss of float16 networks, as Keras begins, and steps after which it doubles."""

ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adamax,
    keras.optimizers.Ftrl,
)
"""Optimisers whose step of a weight depends on the gradients of this weight only."""


class Rule(ABC):
    """Which optimiser: hashable, so that equal rules share one compiled graph."""

    schedules = False
    """Whether the rule has a learning rate schedule of its own."""

    halves = False
    """Whether the learning rate halves when there is no progress."""

    @abstractmethod
    def stepper(self, architectures: tuple[Architecture, ...], n_members: int) -> Stepper:
        """The rule for the packed weights of these networks."""

    def rate_at(self, step: int, rate: float) -> float:
        """Learning rate after so many steps, of which `rate` is the training's."""
        return rate

    def display(self, rate: float) -> keras.optimizers.Optimizer:
        """A Keras optimiser that shows the learning rate to callbacks."""
        return keras.optimizers.Adam(rate, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)


class Stepper(ABC):
    """A rule bound to networks."""

    @property
    @abstractmethod
    def start(self) -> Slots:
        """Slots before the first step."""

    def paced(self, slots: Slots, pace: Tensor) -> Slots:
        """Slots with which steps of each weight are `pace` (n_weights,) times as long.

        Optimisers of users have their own.
        """
        return slots

    def scale(self, slots: Slots) -> Tensor:
        """What the loss is multiplied by before its gradient is taken."""
        return tf.ones((), tf.float64)

    @abstractmethod
    def step(
        self, weights: Tensor, gradient: Tensor, slots: Slots, rates: Tensor
    ) -> tuple[Tensor, Slots]:
        """Weights (M, n_weights) and slots after one step; rates = (lr, decay per step).

        The gradient is that of the scaled loss.
        """


def rule_of(training: Training) -> tuple[Rule, float]:
    """The rule and its first learning rate.

    Raises
    ------
    FitError
        The optimiser is unknown, or keeps averages or scales of its own that nothing here reads.
    """
    given = training.optimizer
    if given is None:
        return DecayedAdam(), training.learning_rate
    try:
        optimizer = keras.optimizers.get(given)
    except (TypeError, ValueError) as error:
        raise FitError(
            f"Training(optimizer={given!r}): needs a Keras optimiser or the name of one, such as "
            "'adam' or 'sgd'"
        ) from error
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise FitError(
            "Training(optimizer=LossScaleOptimizer(...)): give its inner optimiser; "
            "Training(precision='mixed_float16') scales the loss"
        )
    if optimizer.use_ema:
        raise FitError(
            f"Training(optimizer={optimizer.name!r}): use_ema=True is not supported: the "
            "weights of the best epoch are kept, not a moving average"
        )
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise FitError(
            f"Training(optimizer={optimizer.name!r}): exclude_from_weight_decay(var_list=...) "
            "names variables of one model, of which the members are copies; give var_names=..."
        )
    rate = optimizer._learning_rate
    if isinstance(given, str):
        return KerasRule.of(optimizer), training.learning_rate
    schedules = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    return KerasRule.of(optimizer), float(optimizer.learning_rate if schedules else rate)


def stepper_of(rule: Rule, architectures: tuple[Architecture, ...], n_members: int) -> Stepper:
    """The rule for these networks, with a scaled loss where they compute in float16."""
    stepper = rule.stepper(architectures, n_members)
    half = any(
        getattr(layer, "compute_dtype", None) == "float16"
        for architecture in architectures
        for layer in layers(template(architecture))
    )
    return _Scaled(stepper) if half else stepper


# -- the built-in rule -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DecayedAdam(Rule):
    """Adam with decoupled decay of kernels, measured in epochs."""

    halves = True

    def stepper(self, architectures: tuple[Architecture, ...], n_members: int) -> Stepper:
        """Return the step for these networks."""
        return _AdamStepper(tuple(Layout.of(each) for each in architectures), n_members)


@dataclass(frozen=True)
class _AdamStepper(Stepper):
    layouts: tuple[Layout, ...]
    n_members: int

    @property
    def start(self) -> Slots:
        zero = tf.zeros((self.n_members, sum(sum(layout.sizes) for layout in self.layouts)))
        return (zero, zero, tf.constant(0.0), tf.ones(zero.shape[1:]))

    def paced(self, slots: Slots, pace: Tensor) -> Slots:
        return (*slots[:-1], pace)

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Slots, rates: Tensor
    ) -> tuple[Tensor, Slots]:
        kernels = np.hstack([layout.kernels for layout in self.layouts]).astype(np.float32)
        first, second, step, pace = slots
        step = step + 1.0
        first = first + (gradient - first) * (1 - BETA_1)
        second = second + (gradient * gradient - second) * (1 - BETA_2)
        lr = rates[0] * tf.sqrt(1 - tf.pow(BETA_2, step)) / (1 - tf.pow(BETA_1, step))
        shrunk = weights - weights * (kernels * rates[1])
        move = pace * first / (tf.sqrt(second) + EPSILON / pace)
        return shrunk - lr * move, (first, second, step, pace)


# -- the rules of Keras ----------------------------------------------------------------------------


@dataclass(frozen=True)
class KerasRule(Rule):
    """An optimiser of Keras by its class and configuration.

    Parameters
    ----------
    kind : type
    config : str
        JSON, without a constant learning rate, which is the training's to set.
    schedule : LearningRateSchedule or None
    undecayed : str
        Pattern of the names of weights that do not decay.
    """

    kind: type[keras.optimizers.Optimizer]
    config: str
    schedule: Any = field(repr=False)
    undecayed: str = ""

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer) -> KerasRule:
        """Describe the optimiser; its own variables are never touched."""
        rate = optimizer._learning_rate
        scheduled = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        config = optimizer.get_config()
        config.pop("name", None)
        if not scheduled:
            config.pop("learning_rate", None)
        pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        return cls(
            kind=type(optimizer),
            config=json.dumps(config, sort_keys=True),
            schedule=rate if scheduled else None,
            undecayed="" if pattern is None else pattern.pattern,
        )

    @property
    def schedules(self) -> bool:  # type: ignore[override]
        """Whether the rule has a learning rate schedule of its own."""
        return self.schedule is not None

    @property
    def elementwise(self) -> bool:
        """Whether the packed weights of all members can be one variable."""
        config = json.loads(self.config)
        norms = config.get("clipnorm") is not None or config.get("global_clipnorm") is not None
        return self.kind in ELEMENTWISE and not norms and not self.undecayed

    def build(self, rate: float = 0.0) -> keras.optimizers.Optimizer:
        """A new optimiser of this kind."""
        learning_rate = rate if self.schedule is None else self.schedule
        made = self.kind.from_config({**json.loads(self.config), "learning_rate": learning_rate})
        if self.undecayed:
            made.exclude_from_weight_decay(var_names=[self.undecayed])
        return made

    def rate_at(self, step: int, rate: float) -> float:
        """Return the learning rate of the schedule, where there is one."""
        return rate if self.schedule is None else float(self.schedule(step))

    def display(self, rate: float) -> keras.optimizers.Optimizer:
        """Return a Keras optimiser that shows the learning rate to callbacks."""
        return self.build(rate)

    def stepper(self, architectures: tuple[Architecture, ...], n_members: int) -> Stepper:
        """Return the step for these networks."""
        return _keras_stepper(self, architectures, n_members)


@functools.lru_cache(maxsize=16)
def _keras_stepper(
    rule: KerasRule, architectures: tuple[Architecture, ...], n_members: int
) -> Stepper:
    sizes = [size for each in architectures for size in Layout.of(each).sizes]
    if rule.elementwise:
        packed = keras.Variable(np.zeros((n_members, sum(sizes)), np.float32), name="packed")
        return _KerasStepper(rule, [[packed]], [(n_members, sum(sizes))], [sum(sizes)])
    shapes = [shape for each in architectures for shape in Layout.of(each).shapes]
    members = [
        [variable for each in architectures for variable in _variables(each)]
        for _ in range(n_members)
    ]
    return _KerasStepper(rule, members, shapes, sizes)


def _variables(architecture: Architecture) -> list[keras.Variable]:
    """Variables like those of a member, under the names that Keras gives them, and the head's."""
    made = []
    for like in template(architecture).trainable_variables:
        with contextlib.ExitStack() as scopes:
            for scope in like.path.split("/")[:-1]:
                scopes.enter_context(keras.name_scope(scope))
            made.append(keras.Variable(np.zeros(like.shape, np.float32), name=like.name))
    head = Layout.of(architecture).shapes[-1]
    return [*made, keras.Variable(np.zeros(head, np.float32), name="head")]


class _KerasStepper(Stepper):
    """Groups of variables, each with its own optimiser: one packed group, or one per member."""

    def __init__(
        self,
        rule: KerasRule,
        groups: Sequence[Sequence[keras.Variable]],
        shapes: Sequence[tuple[int, ...]],
        sizes: Sequence[int],
    ) -> None:
        self.rule, self.groups, self.shapes, self.sizes = rule, groups, shapes, list(sizes)
        self.optimizers = [rule.build() for _ in groups]
        for optimizer, variables in zip(self.optimizers, groups, strict=True):
            optimizer.build(list(variables))
        self.slots = [variable for each in self.optimizers for variable in each.variables]
        self._start = tuple(tf.constant(variable.numpy()) for variable in self.slots)

    @property
    def start(self) -> Slots:
        return self._start

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Slots, rates: Tensor
    ) -> tuple[Tensor, Slots]:
        for variable, value in zip(self.slots, slots, strict=True):
            variable.assign(value)
        for group, optimizer in enumerate(self.optimizers):
            variables, gradients = self.groups[group], self._pieces(gradient, group)
            if not self.rule.schedules:
                optimizer.learning_rate.assign(rates[0])
            for variable, value in zip(variables, self._pieces(weights, group), strict=True):
                variable.assign(value)
            optimizer.apply(gradients, list(variables))
        moved = [
            tf.concat([tf.reshape(v.value, [-1]) for v in variables], axis=0)
            for variables in self.groups
        ]
        packed = tf.reshape(tf.concat(moved, axis=0), weights.shape)
        return packed, tuple(tf.convert_to_tensor(variable.value) for variable in self.slots)

    def _pieces(self, packed: Tensor, group: int) -> list[Tensor]:
        """The variables of a group from packed numbers (M, n_weights)."""
        if len(self.groups) == 1 and len(self.sizes) == 1:
            return [packed]
        pieces = tf.split(packed[group], self.sizes)
        return [tf.reshape(p, shape) for p, shape in zip(pieces, self.shapes, strict=True)]


# -- float16 ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scaled(Stepper):
    """Dynamic loss scaling: small gradients are numbers in float16 only when they are scaled up.

    A step whose gradient is not finite is left out and halves the scale; STEPS_TO_DOUBLE finite
    ones in a row double it. Its own slots, scale and count, come before those of the rule.
    """

    stepper: Stepper

    @property
    def start(self) -> Slots:
        return (tf.constant(FIRST_SCALE, tf.float64), tf.constant(0), *self.stepper.start)

    def paced(self, slots: Slots, pace: Tensor) -> Slots:
        return (*slots[:2], *self.stepper.paced(slots[2:], pace))

    def scale(self, slots: Slots) -> Tensor:
        return slots[0]

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Slots, rates: Tensor
    ) -> tuple[Tensor, Slots]:
        scale, count, *others = slots
        own = tuple(others)
        finite = tf.reduce_all(tf.math.is_finite(gradient))
        unscaled = tf.where(finite, gradient / tf.cast(scale, gradient.dtype), 0.0)
        moved = self.stepper.step(weights, unscaled, own, rates)
        weights, own = tf.nest.map_structure(
            lambda new, old: tf.where(finite, new, old), moved, (weights, own)
        )
        full = count + 1 >= STEPS_TO_DOUBLE
        grown = tf.where(full, 2.0 * scale, scale)
        scale = tf.where(finite, grown, tf.maximum(scale / 2.0, 1.0))
        count = tf.where(tf.logical_and(finite, tf.logical_not(full)), count + 1, 0)
        return weights, (scale, count, *own)
