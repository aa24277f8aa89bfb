"""Networks whose weights are products, so that plain weight decay makes them sparse (METHODS 6).

A kernel W of a Dense or Conv layer becomes

    weights   W = W_1 * W_2 * ... * W_D                       every weight a group of its own
    inputs    W_g = Omega_g gamma_g1 ... gamma_g,D-1           g: an input, or input channel
    units     the same                                         g: a unit, or filter

with the penalty (lam_g / D) (|Omega|^2 + sum_d |gamma_d|^2), lam_g = lam sqrt(numbers in a group),
whose least value over all factors of the same W is lam_g sum_g |W_g|^(2/D). It is smooth: any
optimiser trains it, best SGD with momentum (`sparse_optimizer`). `collapse` multiplies out.

Factors start with sd sigma^(1/D), sigma the sd of the layer's own start, between eps^(1/D) and
(2 sigma)^(1/D) in size; zero would be a saddle. Cut to these sizes their product has a third of the
sd sigma at D = 4, and after a few layers no signal is left: with start="matched" they are scaled so
that it has all of it. Gates of groups start at 1.

References: Kolb, Weber, Bischl & Ruegamer (2025), "Deep weight factorization", arXiv:2502.02496;
Kolb et al. (2025), "Differentiable sparsity via D-gating", arXiv:2509.23898.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import scipy.special

from deepregress.errors import NetworkError, listing, suggestion
from deepregress.linalg import Array

GROUPS = ("weights", "inputs", "units")
STARTS = ("fresh", "matched", "given")
SMALLEST = 3e-3
"""Least size of a weight at the start."""

ZERO = 1e-6
"""Size, of a weight or the norm of a group, below which training has made it zero."""

RATE, RATE_GROWTH, LARGEST_RATE = 0.1, 2.0, 0.2
"""Learning rate at depth 2, its growth with each further factor, and its bound: at depth 4 training
with 0.4 breaks down (benchmarks/compression.py)."""
LARGEST_STEP = 1.0
"""Norm that a gradient is cut to: that of a product is steep where all factors are large."""


class _Squares(keras.regularizers.Regularizer):  # type: ignore[misc]
    """strength * factor * (sum of squares); the strength is a variable that schedules set."""

    def __init__(self, factor: float, strength: Any) -> None:
        self.factor, self.strength = factor, strength

    def __call__(self, x: Any) -> Any:
        """The penalty of one factor."""
        return self.factor * keras.ops.cast(self.strength, x.dtype) * keras.ops.sum(x * x)


@keras.saving.register_keras_serializable(package="deepregress")
class DeepHoyer(keras.regularizers.Regularizer):  # type: ignore[misc]
    """lam (sum |w|)^2 / sum w^2: counts weights whatever their size; for any layer's regularisers.

    Parameters
    ----------
    lam : float

    References
    ----------
    Yang, Wen & Li (2020), "DeepHoyer", ICLR, arXiv:1908.09979.
    """

    def __init__(self, lam: float) -> None:
        if not lam > 0:
            raise NetworkError(f"DeepHoyer(lam={lam!r}): needs a number > 0")
        self.lam = lam

    def __call__(self, x: Any) -> Any:
        """The penalty of one array of weights; 0 where all are zero."""
        squares = keras.ops.sum(x * x)
        ratio = keras.ops.sum(keras.ops.abs(x)) ** 2 / keras.ops.maximum(squares, 1e-30)
        return self.lam * ratio

    def get_config(self) -> dict[str, Any]:
        """Return its argument."""
        return {"lam": self.lam}


class SparsitySchedule(keras.callbacks.Callback):  # type: ignore[misc]
    """Callback of `model.fit`: the penalty of factorised layers rises, holds, and is off at last.

    Parameters
    ----------
    ramp, hold : int
        Epochs in which lam rises linearly to its value, and stays; afterwards it is zero.

    References
    ----------
    Jacobs, Zhou & Burkholz (2025), "Mirror, mirror of the flow", arXiv:2504.12883.
    """

    def __init__(self, ramp: int, hold: int) -> None:
        super().__init__()
        if ramp < 0 or hold < 0:
            raise NetworkError(f"SparsitySchedule({ramp!r}, {hold!r}): needs epochs >= 0")
        self.ramp, self.hold = ramp, hold

    def share(self, epoch: int) -> float:
        """Share of lam in an epoch, counted from 0."""
        if epoch >= self.ramp + self.hold:
            return 0.0
        return min(1.0, (epoch + 1) / max(self.ramp, 1))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the strength of all factorised layers."""
        for layer in _all_layers(self.model):
            if type(layer) in PLAIN:
                layer.strength.assign(self.share(epoch))


OWN = ("depth", "lam", "vanish", "matched")
"""What the configuration of a factorised layer has beside that of the plain one."""


class _Factors:
    """What a factorised layer adds to a Keras layer that has a kernel."""

    depth, lam, vanish, matched = 2, 0.0, "weights", False

    def build(self, input_shape: Any) -> None:
        """Make the kernel as the layer does, then what else it is a product of."""
        super().build(input_shape)  # type: ignore[misc]
        main = self._kernel  # type: ignore[attr-defined]
        shape = tuple(main.shape)
        axes = group_axes(shape, self.vanish)
        numbers = math.prod(shape[i] for i in axes)
        add = self.add_weight  # type: ignore[attr-defined]
        self.strength = add(name="strength", shape=(), initializer="ones", trainable=False)
        penalty = _Squares(self.lam * math.sqrt(numbers) / self.depth, self.strength)
        start: Any = "ones"
        if self.vanish == "weights":
            start = _factor_start(np.std(np.asarray(main)), self.depth, matched=self.matched)
            main.assign(start(shape, main.dtype))
        main.regularizer = penalty
        gate_shape = tuple(1 if i in axes else size for i, size in enumerate(shape))
        self.gates = [
            add(name=f"gate_{d}", shape=gate_shape, initializer=start, regularizer=penalty)
            for d in range(1, self.depth)
        ]

    @property
    def kernel(self) -> Any:
        """The product of the factors."""
        product = self._kernel  # type: ignore[attr-defined]
        for gate in getattr(self, "gates", ()):
            product = keras.ops.multiply(product, gate)
        return product

    def assign_kernel(self, value: Array) -> None:
        """Set the factors to the balanced ones of a kernel: all of one size in each group."""
        norm = self._norms(value)
        gate = norm ** (1.0 / self.depth)
        rest = gate ** (self.depth - 1)
        self._kernel.assign(np.divide(value, rest, out=np.zeros_like(value), where=rest > 0))  # type: ignore[attr-defined]
        for each in self.gates:
            each.assign(gate)

    def sparse_kernel(self) -> Array:
        """The product, with exact zeros where a group is below `ZERO`."""
        value = np.asarray(self.kernel)
        norm = self._norms(value)
        return np.where(norm < ZERO, np.float32(0.0), value)

    def _norms(self, value: Array) -> Array:
        """Norm of each group of a kernel, in the shape of its gates."""
        axes = group_axes(value.shape, self.vanish)
        return np.asarray(np.sqrt(np.sum(value**2, axis=axes, keepdims=True)))

    def get_config(self) -> dict[str, Any]:
        """Return Keras's configuration with depth, lam, what vanishes together and the start."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return {**config, **{name: getattr(self, name) for name in OWN}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make the layer from such a configuration."""
        plain = {name: value for name, value in config.items() if name not in OWN}
        layer = super().from_config(plain)  # type: ignore[misc]
        for name in OWN:
            setattr(layer, name, config.get(name, getattr(cls, name)))
        return layer


@keras.saving.register_keras_serializable(package="deepregress")
class FactorisedDense(_Factors, keras.layers.Dense):  # type: ignore[misc]
    """`keras.layers.Dense` with a factorised kernel (n_inputs, n_units)."""


@keras.saving.register_keras_serializable(package="deepregress")
class FactorisedConv1D(_Factors, keras.layers.Conv1D):  # type: ignore[misc]
    """`keras.layers.Conv1D` with a factorised kernel (length, n_channels, n_filters)."""


@keras.saving.register_keras_serializable(package="deepregress")
class FactorisedConv2D(_Factors, keras.layers.Conv2D):  # type: ignore[misc]
    """`keras.layers.Conv2D` with a factorised kernel (height, width, n_channels, n_filters)."""


FACTORISED: dict[Any, Any] = {
    keras.layers.Dense: FactorisedDense,
    keras.layers.Conv1D: FactorisedConv1D,
    keras.layers.Conv2D: FactorisedConv2D,
}
PLAIN = {value: key for key, value in FACTORISED.items()}


def group_axes(shape: Sequence[int], groups: str) -> tuple[int, ...]:
    """Axes of a kernel (..., n_inputs, n_units) that lie within one group."""
    if groups == "weights":
        return ()
    kept = len(shape) - (2 if groups == "inputs" else 1)
    return tuple(i for i in range(len(shape)) if i != kept)


def sparsify(
    model: keras.Model,
    *,
    depth: int = 3,
    lam: float = 1e-3,
    groups: str = "weights",
    layers: Sequence[str] | None = None,
    start: str = "fresh",
) -> keras.Model:
    """A model with factorised weights: trained like any other, it becomes sparse.

    Parameters
    ----------
    model : keras.Model
        Sequential or functional; it stays as it is. Its Dense, Conv1D and Conv2D layers are
        rewritten; their kernel regularisers give way to the penalty.
    depth : int
        Number D of factors of each weight: 2 is the (group) lasso, more is non-convex.
    lam : float
        Strength of the penalty beside the mean loss of a row (glmnet's lambda).
    groups : {"weights", "inputs", "units"}
        What becomes zero together: single weights, all weights of an input (or channel), all
        weights of a unit (or filter).
    layers : sequence of str, optional
        Names of the layers to rewrite; all by default.
    start : {"fresh", "matched", "given"}
        New random factors, scaled so that the weights have the sd of the layer's own start
        ("matched": for several layers at depth 3 and more), or the model's present weights,
        balanced over the factors.

    Returns
    -------
    keras.Model

    Raises
    ------
    NetworkError
        If an argument is impossible, or the model cannot be cloned or has no such layer.

    References
    ----------
    Kolb et al. (2025), arXiv:2502.02496 and arXiv:2509.23898.
    """
    _check(depth, lam, groups, start)
    known = [layer.name for layer in _all_layers(model) if type(layer) in FACTORISED]
    for name in known[:0] if layers is None else layers:
        if name not in known:
            raise NetworkError(
                f"sparsify: {name!r} is no Dense or Conv layer of the model "
                f"({listing(known)}){suggestion(name, known)}"
            )
    chosen = set(known if layers is None else layers)
    if not chosen:
        raise NetworkError("sparsify: the model has no Dense, Conv1D or Conv2D layer")

    def rewritten(layer: Any) -> Any:
        if layer.name not in chosen or type(layer) not in FACTORISED:
            return type(layer).from_config(layer.get_config())
        config = {**layer.get_config(), "kernel_regularizer": None}
        own = {"depth": depth, "lam": lam, "vanish": groups, "matched": start == "matched"}
        return FACTORISED[type(layer)].from_config({**config, **own})

    new = _cloned(model, rewritten)
    if start == "given":
        _copy_weights(model, new)
    return new


def collapse(model: keras.Model) -> keras.Model:
    """The plain model of a factorised one: products as kernels, what training made zero is zero.

    Parameters
    ----------
    model : keras.Model
        As `sparsify` made it, trained. A weight, or a group by its norm, below 1e-6 becomes zero.

    Returns
    -------
    keras.Model
        Of Keras's own layers, with these weights.
    """

    def plain(layer: Any) -> Any:
        config = layer.get_config()
        if type(layer) not in PLAIN:
            return type(layer).from_config(config)
        for name in OWN:
            config.pop(name)
        return PLAIN[type(layer)].from_config(config)

    new = _cloned(model, plain)
    _copy_weights(model, new)
    return new


def sparsity(model: keras.Model) -> pd.DataFrame:
    """Weights of each layer with a kernel, those that are not zero, and their share.

    Parameters
    ----------
    model : keras.Model
        Factorised or plain.

    Returns
    -------
    DataFrame
        Index: layer, and "total"; columns: weights, nonzero, share.
    """
    rows = {}
    for layer in _all_layers(model):
        if type(layer) in PLAIN:
            kernel = layer.sparse_kernel()
        elif type(layer) in FACTORISED:
            kernel = np.asarray(layer.kernel)
        else:
            continue
        rows[layer.name] = (kernel.size, int(np.count_nonzero(kernel)))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["weights", "nonzero"])
    table.loc["total"] = table.sum()
    table["share"] = table["nonzero"] / table["weights"]
    return table.rename_axis("layer")


def sparse_optimizer(depth: int, *, steps: int, momentum: float = 0.9) -> keras.Optimizer:
    """SGD with momentum whose learning rate grows with depth and falls along a cosine to zero.

    Gradients are cut to norm 1. At depth 3 and more zero attracts: let the penalty rise slowly with
    `SparsitySchedule`, over a quarter of the epochs, say.

    Parameters
    ----------
    depth : int
        As of `sparsify`.
    steps : int
        Steps of the whole training: epochs times batches.
    momentum : float
    """
    rate = min(RATE * RATE_GROWTH ** (depth - 2), LARGEST_RATE)
    return keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(rate, steps),
        momentum=momentum,
        global_clipnorm=LARGEST_STEP,
    )


def _check(depth: int, lam: float, groups: str, start: str) -> None:
    if not isinstance(depth, int) or depth < 2:
        raise NetworkError(f"sparsify(depth={depth!r}): needs a whole number >= 2")
    if not lam > 0:
        raise NetworkError(f"sparsify(lam={lam!r}): needs a number > 0")
    for name, given, allowed in (("groups", groups, GROUPS), ("start", start, STARTS)):
        if given not in allowed:
            raise NetworkError(
                f"sparsify({name}={given!r}): needs one of {listing(allowed)}"
                f"{suggestion(str(given), allowed)}"
            )


def _factor_start(sd: Any, depth: int, *, matched: bool) -> Callable[..., Any]:
    """Random factors: normal of sd sigma^(1/D), cut to [eps^(1/D), min(1, (2 sigma)^(1/D))].

    Matched, they are scaled to that sd again: of a standard normal z

        E(z^2 | a < |z| < b) = 1 - (b phi(b) - a phi(a)) / (Phi(b) - Phi(a)).
    """
    scale = sd ** (1.0 / depth)
    low = min(SMALLEST, 0.5 * sd) ** (1.0 / depth)
    high = min(1.0, (2.0 * sd) ** (1.0 / depth))
    ends = np.array([low, high]) / scale
    bounds = scipy.special.ndtr(ends)
    if matched:
        density = np.exp(-0.5 * ends**2) / math.sqrt(2.0 * math.pi)
        scale /= np.sqrt(1.0 - np.diff(ends * density)[0] / np.diff(bounds)[0])

    def start(shape: Sequence[int], dtype: Any = None) -> Any:
        # Keras draws the seeds of its own initialisers from Python's generator too
        rng = np.random.default_rng(random.getrandbits(32))
        share = rng.uniform(bounds[0], bounds[1], size=shape)
        size = scale * scipy.special.ndtri(share)
        return keras.ops.convert_to_tensor(size * rng.choice([-1.0, 1.0], size=shape), dtype)

    return start


def _all_layers(model: keras.Model) -> list[Any]:
    return list(model._flatten_layers(include_self=False))


def _cloned(model: keras.Model, clone: Callable[[Any], Any]) -> keras.Model:
    try:
        return keras.models.clone_model(model, clone_function=clone, recursive=True)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise NetworkError(
            f"{type(model).__name__}: only Sequential and functional models can be rewritten: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Weights of each layer; kernels between plain and factorised ones."""
    for old, new in zip(_all_layers(source), _all_layers(target), strict=True):
        if type(old) in FACTORISED and type(new) in PLAIN:
            new.assign_kernel(np.asarray(old.kernel))
        elif type(old) in PLAIN and type(new) in FACTORISED:
            new._kernel.assign(old.sparse_kernel())
        elif not any(True for _ in getattr(old, "layers", ())):
            new.set_weights(old.get_weights())
            continue
        if getattr(old, "bias", None) is not None:
            new.bias.assign(old.bias)
