"""Families: from predictors to a response distribution and its row-wise derivatives.

A family says which parameters a distribution has, by which links they hang on their predictors, and
which `tfd.Distribution` they give. Everything the solvers need follows by automatic differentiation
of l_i(eta_i) = log f(y_i; theta(eta_i)), a function of the U predictors of one row:

    g_i = dl_i / deta_i          (U,)
    W_i = -d2 l_i / deta_i2      (U, U)
    v_i = d <W_i, A_i> / deta_i  (U,)     the third derivatives, contracted with a weight A_i

compiled by XLA for chunks of fixed size: one compilation per family serves every fit of the
process, whatever its number of rows. Rows are independent, so the gradient of a sum over rows is
row-wise.

References: Rigby & Stasinopoulos (2005), doi:10.1111/j.1467-9876.2005.00510.x;
Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

import difflib
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Link, Tensor, link
from deepregress.data import Response
from deepregress.errors import FamilyError, ResponseError
from deepregress.groups import group_of, groups
from deepregress.linalg import Array, Matrix, Vector

tfd = tfp.distributions

CHUNK_SIZES = (1024, 8192)
"""Rows per compiled call: short data pad to the first, all others run in chunks of the last."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a response distribution.

    Parameters
    ----------
    name : str
        As a user writes it in a formula.
    link : Link
    about : str
        What it is, in words.
    units : int
        Number of predictors it takes.
    """

    name: str
    link: Link
    about: str
    units: int = 1


@dataclass(frozen=True)
class Value:
    """A parameter at given predictors: its value and, without cancellation, its log and logit."""

    eta: Tensor
    link: Link

    @property
    def value(self) -> Tensor:
        """theta = h(eta)."""
        return self.link.inverse(self.eta)

    @property
    def log(self) -> Tensor:
        """log theta."""
        return self.link.log_inverse(self.eta)

    @property
    def logit(self) -> Tensor:
        """log theta - log(1 - theta)."""
        return self.link.logit_inverse(self.eta)


@dataclass(frozen=True)
class Family(ABC):
    """A response distribution whose parameters all have additive predictors.

    Subclasses give `name`, `default_parameters`, `support`, `density`, `start_values` and, where
    they exist, closed forms of moments. The row-wise derivatives come from this class.

    Attributes
    ----------
    parameters : tuple of Parameter
        The first one is what a single formula models.
    exponential : bool
        Whether the family is an exponential dispersion family in its first parameter, the mean: a
        generalised linear model where nothing else has covariates.
    dispersion : str or None
        The parameter whose intercept, when nothing else models it, is estimated with the smoothing
        parameters from the restricted likelihood (the residual scale of a linear model).
    extra : tuple of str
        Further parameters whose intercept, when nothing else models them and there are smoothing
        parameters to estimate, is estimated with these from the restricted likelihood (mgcv's
        extended families); without smoothing parameters they are maximum likelihood estimates.
    """

    parameters: tuple[Parameter, ...]

    name: ClassVar[str]
    about: ClassVar[str]
    support: ClassVar[str]
    discrete: ClassVar[bool] = False
    exponential: ClassVar[bool] = False
    dispersion: ClassVar[str | None] = None
    extra: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        """The parameters with their default links."""

    @abstractmethod
    def density(self, values: Mapping[str, Value]) -> Any:
        """The `tfd.Distribution` of the response, batch shape (n_obs,)."""

    @abstractmethod
    def in_support(self, y: Array) -> Array:
        """Which responses the family can take, (n_obs,) of bool."""

    @abstractmethod
    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        """Moment estimates of the parameters (on their own scale) without covariates."""

    # -- what follows holds for every family ---------------------------------------------------

    @property
    def n_units(self) -> int:
        """Number of predictors U."""
        return sum(parameter.units for parameter in self.parameters)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names in the order of the predictors."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names that formulas can be written for: parameters, those of one group together."""
        return groups(self.parameter_names)

    def for_response(self, response: Response) -> Family:
        """The family with the parameters that this response asks for, one logit per class, say.

        Raises
        ------
        ResponseError
            If the response is of the wrong kind.
        """
        return self

    def parameter(self, name: str) -> Parameter:
        """The parameter called `name`."""
        return self.parameters[self.parameter_names.index(name)]

    def with_links(self, given: Mapping[str, Any]) -> Family:
        """The same family with other links.

        Raises
        ------
        FamilyError
            If a name is no parameter of the family or the link is unknown.
        """
        for name in given:
            if name not in (*self.parameter_names, *self.groups):
                raise FamilyError(
                    f"link: {name!r} is not a parameter of {self.name}; "
                    f"its parameters are {', '.join(self.parameter_names)}"
                )
        changed = []
        for p in self.parameters:
            wanted = given.get(p.name, given.get(group_of(p.name)))
            changed.append(p if wanted is None else replace(p, link=link(wanted)))
        return replace(self, parameters=tuple(changed))

    def values(self, eta: Tensor) -> dict[str, Value]:
        """Split eta (n_obs, U) into the named parameters."""
        return {p.name: Value(eta[:, u], p.link) for u, p in enumerate(self.parameters)}

    def distribution(self, eta: Tensor) -> Any:
        """The response distribution at predictors eta (n_obs, U)."""
        return self.density(self.values(tf.convert_to_tensor(eta, tf.float64)))

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """l_i(eta_i), shape (n_obs,), natural log.

        Parameters
        ----------
        rows : mapping
            `Response.rows()`: the bounds of each response.
        eta : tensor, (n_obs, U)
        """
        return self.distribution(eta).log_prob(rows["lower"])

    def parameters_at(self, eta: Matrix) -> dict[str, Vector]:
        """The parameters on their own scale, each (n_obs,)."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        return {name: value.value.numpy() for name, value in values.items()}

    def check(self, response: Response) -> None:
        """Refuse responses outside the support.

        Raises
        ------
        ResponseError
            Naming the response, the support, the first offending row and their number.
        """
        if response.levels is not None and not self.takes_levels:
            raise ResponseError(
                f"{response.label!r} has the levels {', '.join(response.levels)}; "
                f"family {self.name!r} needs {self.support}"
            )
        bad = np.flatnonzero(~self.in_support(response.lower))
        if bad.size:
            raise ResponseError(
                f"{response.label!r}: family {self.name!r} needs {self.support}; row {bad[0]} is "
                f"{response.lower[bad[0]]:g} ({bad.size} of {response.n_obs} rows are outside)"
            )
        if not self.discrete and np.ptp(response.lower) == 0:
            raise ResponseError(
                f"{response.label!r} is constant ({response.lower[0]:g} in all {response.n_obs} "
                f"rows): family {self.name!r} needs a response that varies"
            )

    takes_levels: ClassVar[bool] = False

    def boundary(self, eta: Matrix) -> str | None:
        """What to warn of where fitted predictors are at the edge of the parameter space."""
        return None

    def start(self, response: Response) -> Vector:
        """Predictors (U,) of the intercept-only model by moments."""
        theta = self.start_values(response.lower, response.weights)
        return np.array(
            [float(p.link.forward(tf.constant(theta[p.name], tf.float64))) for p in self.parameters]
        )

    def dispersion_of(self, theta: float) -> float:
        """Phi with variance phi V(mean), of the dispersion parameter's value (mgcv's `scale`)."""
        raise FamilyError(f"family {self.name!r} has no dispersion parameter")

    def least_dispersion(self, y: Vector) -> float:
        """Phi below which a residual is the rounding of an exact fit, in the units of phi."""
        return float(np.finfo(float).tiny)

    def reported_dispersion(self, y: Vector, weights: Vector, mean: Vector, reml: float) -> float:
        """Value of the dispersion parameter at which the log-likelihood is reported, as R does."""
        return reml

    @abstractmethod
    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        """2 phi (l(y; mean = y) - l(y; mean)) row by row, the units of `dispersion_of`."""

    def fisher_weight(self, eta: Matrix) -> Vector:
        """(dmean / deta)^2 / Var(y), (n_obs,): expected curvature in the first predictor."""
        first = tf.constant(eta[:, 0])
        with tf.GradientTape() as tape:
            tape.watch(first)
            mean = self.parameters[0].link.inverse(first)
        slope = tape.gradient(mean, first).numpy()
        variance = self.variance(eta)
        # a distribution that is a point in float64 has no slope either: the limit is 0
        collapsed = variance <= 0
        return np.asarray(np.where(collapsed, 0.0, slope**2 / np.where(collapsed, 1.0, variance)))

    # -- moments, probabilities ----------------------------------------------------------------

    def mean(self, eta: Matrix) -> Vector:
        """E(y), (n_obs,)."""
        return np.asarray(self.distribution(eta).mean().numpy())

    def variance(self, eta: Matrix) -> Vector:
        """Var(y), (n_obs,)."""
        return np.asarray(self.distribution(eta).variance().numpy())

    def logpdf(self, y: Array, eta: Matrix) -> Vector:
        """log f(y), natural log, (n_obs,)."""
        return np.asarray(self.distribution(eta).log_prob(_float(y)).numpy())

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        """P(Y <= y), (n_obs,)."""
        return np.asarray(self.distribution(eta).cdf(_float(y)).numpy())

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        """Smallest y with F(y) >= probability, (n_obs,)."""
        return np.asarray(self.distribution(eta).quantile(_float(probability)).numpy())

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        """Draws, (n, n_obs)."""
        key = tf.random.experimental.create_rng_state(seed, "threefry")[:2]
        return np.asarray(self.distribution(eta).sample(n, seed=tf.cast(key, tf.int32)).numpy())

    # -- row derivatives -----------------------------------------------------------------------

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        """l (n,), gradient (n, U) and W, the packed upper triangle of -d2l, (n, U (U + 1) / 2)."""
        return _in_chunks(_derivatives, self, rows, (eta,))

    def contracted_third(self, rows: Mapping[str, Array], eta: Matrix, weight: Matrix) -> Matrix:
        """v_iu = d/deta_iu sum_p weight_ip W_ip over the upper triangle p, (n, U).

        Off-diagonal pairs of `weight` count once: give them twice the symmetric weight.
        """
        third: Matrix = _in_chunks(_third, self, rows, (eta, weight))[0]
        return third


_F = TypeVar("_F", bound=Family)
_registry: dict[str, type[Family]] = {}


def register(cls: type[_F]) -> type[_F]:
    """Make a family known by its name."""
    _registry[cls.name] = cls
    return cls


def names() -> tuple[str, ...]:
    """Names of the known families."""
    return tuple(_registry)


def family(given: str | Family, links: Mapping[str, Any] | str | None = None) -> Family:
    """A family by name, with other links where they are given.

    Parameters
    ----------
    given : str or Family
    links : str or mapping, optional
        The link of the first parameter, or parameter -> link; a name or a `tfb.Bijector`.

    Raises
    ------
    FamilyError
        If the family, a parameter or a link is unknown.
    """
    if isinstance(given, str):
        if given not in _registry:
            close = difflib.get_close_matches(given, _registry, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise FamilyError(
                f"family {given!r} is not known{hint} (known: {', '.join(_registry)})"
            )
        cls = _registry[given]
        given = cls(cls.default_parameters())
    if not isinstance(given, Family):
        raise FamilyError(f"family must be a name or a Family, got {type(given).__name__}")
    if links is None:
        return given
    named = links if isinstance(links, Mapping) else {given.groups[0]: links}
    return given.with_links(named)


def _float(y: Array) -> Tensor:
    return tf.convert_to_tensor(np.asarray(y, dtype=np.float64))


def upper_pairs(n_units: int) -> tuple[tuple[int, int], ...]:
    """The (k, l) with k <= l, the order of a packed symmetric U x U matrix."""
    return tuple((k, m) for k in range(n_units) for m in range(k, n_units))


def _row_derivatives(
    family: Family, rows: Mapping[str, Tensor], eta: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(eta)
        with tf.GradientTape() as inner:
            inner.watch(eta)
            rowwise = family.log_likelihood(rows, tf.stack(eta, axis=1))
            total = tf.reduce_sum(rowwise)
        gradient = inner.gradient(total, eta, unconnected_gradients="zero")
    hessian = []
    for k in range(len(eta)):
        column = outer.gradient(gradient[k], eta[k:], unconnected_gradients="zero")
        hessian += [-entry for entry in column]
    return rowwise, gradient, hessian


def _derivatives(
    family: Family, rows: Mapping[str, Tensor], eta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    rowwise, gradient, hessian = _row_derivatives(family, rows, tf.unstack(eta, axis=1))
    return rowwise, tf.stack(gradient, axis=1), tf.stack(hessian, axis=1)


def _third(
    family: Family, rows: Mapping[str, Tensor], eta: Tensor, weight: Tensor
) -> tuple[Tensor]:
    parts = tf.unstack(eta, axis=1)
    with tf.GradientTape() as tape:
        tape.watch(parts)
        _, _, hessian = _row_derivatives(family, rows, parts)
        total = tf.reduce_sum(weight * tf.stack(hessian, axis=1))
    return (tf.stack(tape.gradient(total, parts, unconnected_gradients="zero"), axis=1),)


_compiling = threading.Lock()
"""Two threads that ask for a new kernel at once would both compile it."""


@functools.cache
def _kernel(
    formula: Callable[..., Any],
    family: Family,
    names: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> Callable[..., Any]:
    """The compiled `formula` of a family for float64 arguments of these shapes.

    `names` are those of the response's columns, which follow the other arguments.
    """

    def of_columns(*arguments: Tensor) -> Any:
        leading = len(arguments) - len(names)
        rows = dict(zip(names, arguments[leading:], strict=True))
        return formula(family, rows, *arguments[:leading])

    specs = [tf.TensorSpec(shape, tf.float64) for shape in shapes]
    # the concrete function skips the dispatch of tf.function, half the cost of a small chunk
    return tf.function(of_columns, jit_compile=True).get_concrete_function(*specs)  # type: ignore[no-any-return]


def _in_chunks(
    formula: Callable[..., Any],
    family: Family,
    rows: Mapping[str, Array],
    leading: tuple[Matrix, ...],
) -> tuple[Any, ...]:
    """Run a compiled row-wise formula over chunks of fixed size, padding the last with row 0."""
    n = len(leading[0])
    size = next((s for s in CHUNK_SIZES if n <= s), CHUNK_SIZES[-1])
    columns = (*leading, *rows.values())
    shapes = tuple((size, *column.shape[1:]) for column in columns)
    with _compiling:
        kernel = _kernel(formula, family, tuple(rows), shapes)
    pieces = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        chunk = [column[start:stop] for column in columns]
        if stop - start < size:
            chunk = [
                np.concatenate([c, np.broadcast_to(column[:1], (size - len(c), *c.shape[1:]))])
                for c, column in zip(chunk, columns, strict=True)
            ]
        outputs = kernel(*(tf.constant(c) for c in chunk))
        pieces.append([out.numpy()[: stop - start] for out in outputs])
    if len(pieces) == 1:
        return tuple(pieces[0])
    return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))
