"""Any univariate `tfd.Distribution` as a family, without a line of code.

`family=tfd.Weibull`, or a function of its parameters that returns a distribution,

    lambda loc, scale: tfd.TruncatedNormal(loc, scale, 0.0, 10.0)

Each parameter gets the link that its constraint asks for: log where it is positive, logit in the
unit interval, the identity where it is free, else the bijector that `tfd` maps to its range by. The
constraints are those of the distribution's `parameter_properties`; of a function's parameters they
are found by trial: which of a negative, a large and a small number the distribution takes.
A class that takes `log_rate` beside `rate`, or `logits` beside `probs`, is given these.

The first parameter, in the order of the signature, is what a single formula models. Start values
maximise the likelihood without covariates from several places.

References: Dillon et al. (2017), arXiv:1711.10604.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Link, link
from deepregress.errors import FamilyError
from deepregress.families.base import Family, Parameter, Value, register_conversion
from deepregress.linalg import Array

tfb = tfp.bijectors
tfd = tfp.distributions

FAR, NEAR = 1e8, 1e-6
"""Where a map from the real line to a range has reached its ends, and how nearly."""
COUNTS = 10_000
"""Counts whose probabilities should add up to one, but for a heavy tail."""
TRIALS = {-1.5: "identity", 1.5: "log", 0.5: "logit"}
"""The first of these values that a distribution takes for a parameter tells its link."""
SPREAD = (1.0, 0.7)
"""Two settings of all predictors: ends of the support that differ depend on the parameters."""


@dataclass(frozen=True)
class OfDistribution(Family):
    """A family made of a class of `tfd` or of a function that returns one of its distributions.

    Attributes
    ----------
    make : callable
        Class or function.
    arguments : tuple of pairs
        Of each parameter the name of the argument and the scale on which it is handed over,
        "value", "log" or "logit".
    options : tuple of pairs
        Further arguments.
    closed : pair of bool
        Whether the ends of the support belong to it.
    """

    make: Callable[..., Any] = tfd.Normal
    arguments: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    name: str = ""  # type: ignore[misc]
    about: str = ""  # type: ignore[misc]
    support: str = "finite numbers"  # type: ignore[misc]
    discrete: bool = False  # type: ignore[misc]
    bounds: tuple[float, float] = (-np.inf, np.inf)  # type: ignore[misc]
    closed: tuple[bool, bool] = (False, False)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        raise FamilyError("give a tfd class or function: family=tfd.Weibull")

    def density(self, values: Mapping[str, Value]) -> Any:
        return self.make(**self._given(values), **dict(self.options))

    def _given(self, values: Mapping[str, Value]) -> dict[str, Any]:
        pairs = zip(self.parameters, self.arguments, strict=True)
        return {argument: getattr(values[p.name], scale) for p, (argument, scale) in pairs}

    def support_bijector(self, values: Mapping[str, Value]) -> Any:
        if not self.discrete and np.isinf(self.bounds).all():
            return self.density(values).experimental_default_event_space_bijector()
        return super().support_bijector(values)

    def in_support(self, y: Array) -> Array:
        least, most = self.bounds
        above = (y > least) | (self.closed[0] & (y == least))
        below = (y < most) | (self.closed[1] & (y == most))
        whole = (y == np.floor(y)) if self.discrete else True
        return np.asarray(np.isfinite(y) & above & below & whole)


@functools.lru_cache(maxsize=64)
def of_distribution(make: Callable[..., Any]) -> OfDistribution:
    """The family of a `tfd` class, or of a function that returns a `tfd.Distribution`.

    Raises
    ------
    FamilyError
        A parameter has no link that could be found, is a vector, or the response is one.

    Examples
    --------
    >>> import tensorflow_probability as tfp
    >>> family = of_distribution(tfp.distributions.Gumbel)
    >>> [(parameter.name, parameter.link.name) for parameter in family.parameters]
    [('loc', 'identity'), ('scale', 'log')]
    """
    own = isinstance(make, type)
    name = f"tfd.{make.__name__}" if own else getattr(make, "__name__", "function")
    found = _of_class(make, name) if own else _of_function(make, name)
    parameters = tuple(Parameter(each, given, "") for each, given, _ in found)
    arguments = tuple(argument for _, _, argument in found)
    takes = inspect.signature(make).parameters
    options = (("dtype", tf.float64),) if own and "dtype" in takes else ()
    bare = OfDistribution(parameters, make=make, arguments=arguments, options=options, name=name)
    return _with_support(bare)


def distribution_class(name: str) -> Any:
    """The class of `tfd` of this name, None where it has none."""
    return getattr(tfd, name, None)


def _of_class(make: Any, name: str) -> list[tuple[str, Link, tuple[str, str]]]:
    """Name, link and argument of each parameter of a class."""
    try:
        properties = make.parameter_properties(dtype=tf.float64)
    except (NotImplementedError, TypeError) as error:
        raise FamilyError(
            f"family={name}: the class does not tell the properties of its parameters; give a "
            "function of its parameters that returns the distribution"
        ) from error
    found, twins = [], set()
    for each, given in properties.items():
        twin = {f"log_{each}": "log", each.replace("probs", "logits"): "logit"}
        other = next((t for t in twin if t in properties and t != each), None)
        constrained = {each.removeprefix("log_"), each.replace("logits", "probs")} - {each}
        if constrained & set(properties):
            continue
        own = _own_link(given, each, name)
        twins |= {each} if other is not None else set()
        found.append((each, own, (each, "value") if other is None else (other, twin[other])))
    required = inspect.signature(make.__init__).parameters
    # arguments without a value are alternatives where `tfd` prefers some of them
    optional = {p[0] for p in found if p[0] in required and required[p[0]].default is None} - twins
    found = [p for p in found if p[0] not in optional or properties[p[0]].is_preferred]
    if not found:
        raise FamilyError(f"family={name}: the class has no parameter that could be modelled")
    missing = [
        each.name
        for each in inspect.signature(make).parameters.values()
        if each.default is inspect.Parameter.empty and each.name not in properties
    ]
    if missing:
        raise FamilyError(
            f"family={name}: {missing[0]!r} is no parameter that could be modelled, and has no "
            f"default; give a function that sets it, such as lambda {found[0][0]}: "
            f"{name}({found[0][0]}, {missing[0]}=...)"
        )
    return found


def _own_link(given: Any, parameter: str, name: str) -> Link:
    """The link that a parameter's constraint asks for."""
    if given.event_ndims != 0:
        raise FamilyError(f"family={name}: the parameter {parameter!r} is not a number")
    try:
        bijector = given.default_constraining_bijector_fn()
    except (NotImplementedError, TypeError) as error:
        raise FamilyError(
            f"family={name}: no link is known for {parameter!r}; give a function of the other "
            f"parameters that sets it, such as lambda loc: {name}(loc, {parameter}=...)"
        ) from error
    ends = np.asarray(bijector.forward(tf.constant([-FAR, FAR], tf.float64)))
    if isinstance(bijector, tfb.Identity):
        return link("identity")
    if abs(ends[0]) < NEAR and ends[1] >= FAR:
        return link("log")
    if abs(ends[0]) < NEAR and abs(ends[1] - 1.0) < NEAR:
        return link("logit")
    return link(bijector)


def _of_function(make: Callable[..., Any], name: str) -> list[tuple[str, Link, tuple[str, str]]]:
    """Name, link and argument of each parameter of a function, its constraint found by trial."""
    given = inspect.signature(make).parameters.values()
    names = [each.name for each in given if each.default is inspect.Parameter.empty]
    if not names:
        raise FamilyError(f"family={name}: the function takes no parameter")
    found = []
    for each in names:
        taken = [value for value in TRIALS if _takes(make, names, each, value, name)]
        if not taken:
            raise FamilyError(
                f"family={name}: the distribution takes none of {list(TRIALS)} for {each!r}, so "
                "that no link can be found for it"
            )
        found.append((each, link(TRIALS[taken[0]]), (each, "value")))
    return found


def _takes(
    make: Callable[..., Any], names: list[str], parameter: str, value: float, name: str
) -> bool:
    """Whether all parameters of the distribution are in their ranges at this value of one."""
    middle = {each: tf.constant([0.5], tf.float64) for each in names}
    made = make(**{**middle, parameter: tf.constant([value], tf.float64)})
    if not isinstance(made, tfd.Distribution):
        raise FamilyError(
            f"family={name}: the function must return a tfd.Distribution, not a "
            f"{type(made).__name__}"
        )
    return _in_range(made)


def _in_range(made: Any) -> bool:
    """Whether the parameters of a distribution, and of those inside it, are in their ranges."""
    try:
        properties = type(made).parameter_properties(dtype=tf.float64)
    except (NotImplementedError, TypeError):
        return True
    for each, value in made.parameters.items():
        if isinstance(value, tfd.Distribution):
            if not _in_range(value):
                return False
        elif each in properties and value is not None:
            try:
                bijector = properties[each].default_constraining_bijector_fn()
            except (NotImplementedError, TypeError):
                continue
            free = bijector.inverse(tf.convert_to_tensor(value, tf.float64))
            if not np.isfinite(free).all():
                return False
    return True


def _with_support(bare: OfDistribution) -> OfDistribution:
    """The family with the support that its distribution has, whatever its parameters."""
    values = [bare.values(_setting(bare, spread)) for spread in SPREAD]
    made = [bare.density(each) for each in values]
    if made[0].event_shape.rank != 0:
        raise FamilyError(
            f"family={bare.name}: the response is a vector; only distributions of one number can "
            "be given as they are"
        )
    maps = [each.experimental_default_event_space_bijector() for each in made]
    discrete = replace(bare, options=()).density(values[0]).dtype.is_integer or maps[0] is None
    if discrete:
        bounds, ends = _count_bounds(made[0]), [True, True]
    else:
        bounds = _common_bounds(*(_limits(each) for each in maps))
        at_ends = [made[0].log_prob(tf.constant(end, tf.float64))[0] for end in bounds]
        ends = [bool(np.isfinite(end + at)) for end, at in zip(bounds, at_ends, strict=True)]
    return replace(
        bare,
        about=f"{bare.name} of TensorFlow Probability",
        support=_support_in_words(bounds, ends, discrete=discrete),
        discrete=discrete,
        bounds=bounds,
        closed=(ends[0], ends[1]),
    )


def _setting(bare: OfDistribution, spread: float) -> Any:
    eta = spread * np.linspace(0.1, 0.6, bare.n_units)[None, :]
    return tf.constant(eta, tf.float64)


def _count_bounds(made: Any) -> tuple[float, float]:
    """Where the probabilities of whole numbers add up to one: 0 and 1, the counts, or all."""
    counts = tf.range(0.0, COUNTS, dtype=tf.float64)[:, None]
    # more than 1, if a distribution does not care, is not a probability
    probability = np.exp(np.minimum(made.log_prob(counts).numpy()[:, 0], 1.0))
    if abs(probability[:2].sum() - 1.0) < NEAR:
        return 0.0, 1.0
    return (0.0 if abs(probability.sum() - 1.0) < 0.01 else -np.inf), np.inf


def _limits(bijector: Any) -> Array:
    """Ends of the range of a map from the real line, the smaller one first."""
    far = np.array([[-FAR], [FAR]])
    try:
        return np.sort(np.asarray(bijector.forward(tf.constant(far))).ravel())
    except ValueError:
        # some maps of tfd are float32 whatever the parameters are
        ends = np.asarray(bijector.forward(tf.constant(far, tf.float32)), np.float64)
        return np.sort(ends.ravel())


def _common_bounds(first: Array, second: Array) -> tuple[float, float]:
    """Ends of the support that two settings of the parameters share; else infinite."""
    same = np.isclose(first, second, rtol=0.0, atol=NEAR)
    least = float(np.round(first[0], 6)) if same[0] and first[0] > -0.5 * FAR else -np.inf
    most = float(np.round(first[-1], 6)) if same[-1] and first[-1] < 0.5 * FAR else np.inf
    return least, most


def _support_in_words(
    bounds: tuple[float, float], closed: Sequence[bool], *, discrete: bool
) -> str:
    noun = "whole numbers" if discrete else "numbers"
    signs = (">=" if closed[0] else ">", "<=" if closed[1] else "<")
    ends = [f"{sign} {end:g}" for sign, end in zip(signs, bounds, strict=True) if np.isfinite(end)]
    if not ends:
        return noun if discrete else "finite numbers"
    return f"{noun} {' and '.join(ends)}"


def _converted(given: Any) -> Family | None:
    """A `tfd` class or a function as a family; None of anything else."""
    if isinstance(given, type):
        return of_distribution(given) if issubclass(given, tfd.Distribution) else None
    return of_distribution(given) if inspect.isfunction(given) else None


register_conversion(_converted)
