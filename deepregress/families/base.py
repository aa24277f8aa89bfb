"""Families: from predictors to a response distribution and its row-wise derivatives.

A family says which parameters a distribution has, by which links they hang on their predictors, and
which `tfd.Distribution` they give:

    theta_k = h_k(eta_k)                                      k = 1..U
    log f(y; theta), log F(y; theta), log S(y; theta)         tensor functions of the parameters

From these three follow the log-likelihood of exact, censored and truncated rows (`censoring`), its
derivatives up to the third (`kernels`), and what the distribution is asked for after the fit: mean,
variance, probabilities, quantiles, draws (`numerical`, where there is no closed form).

References: Rigby & Stasinopoulos (2005), doi:10.1111/j.1467-9876.2005.00510.x;
Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link
from deepregress.data import Response
from deepregress.errors import FamilyError
from deepregress.families import censoring, kernels, numerical, start, support
from deepregress.families.dispersion import Dispersed
from deepregress.families.kernels import CHUNK as CHUNK
from deepregress.families.kernels import upper_pairs as upper_pairs
from deepregress.families.lifetimes import Lifetimes
from deepregress.families.parameter import Parameter as Parameter
from deepregress.families.parameter import Value as Value
from deepregress.families.wrapped import Formulated, tail_of
from deepregress.groups import group_of, groups
from deepregress.linalg import Array, Matrix, Vector

tfb = tfp.bijectors


@dataclass(frozen=True)
class Family(Dispersed, Lifetimes):
    """A response distribution whose parameters all have additive predictors.

    Subclasses give `name`, `about`, `support`, `bounds`, `default_parameters`, and `density` or the
    formulas `log_density` and `log_survival` (or `log_cdf`). All else has a default: override
    what is known better (`in_support`, `start_values`) or what `tfd` lacks.

    Attributes
    ----------
    parameters : tuple of Parameter
        The first one is what a single formula models.
    exponential : bool
        Whether the family is an exponential dispersion family in its first parameter, the mean: a
        generalised linear model where nothing else has covariates.
    exponential_given : bool
        Whether it is one given its `extra` parameters, as the negative binomial: where these are
        constants, degrees of freedom and errors are of the expected information, as mgcv's.
    multivariate : bool
        Whether a response is a vector: it then has no cdf and no quantiles.
    circular : bool
        Whether the response is an angle: an interval is the arc from its lower to its upper end.
    penalised : bool
        Whether `log_likelihood` can hold a penalty beside log f(y); see `row_penalty`.
    takes_levels : bool
        Whether levels of a factor are responses as they are.
    further : mapping of str to bool
        Quantities of its own that `predict` can be asked for -> whether they need the response.
    dispersion : str or None
        The parameter whose intercept, when nothing else models it, is estimated with the smoothing
        parameters from the restricted likelihood (the residual scale of a linear model).
    extra : tuple of str
        Further parameters. An intercept alone is estimated with the smoothing parameters, if any,
        from the restricted likelihood (mgcv's extended families), else by maximum likelihood.
    fitted_edf : float
        Degrees of freedom of what the family itself has learnt from the data.
    discrete : bool
        Whether the response takes whole numbers only.
    bounds : pair of float
        Ends of the support, where they do not depend on the parameters.
    atoms : tuple of float
        Points of a continuous response that have a probability of their own, such as exact zeros.
    known : tuple of str
        Quantities of each row that are known, such as the `trials` of a binomial count: columns of
        `Response.rows()` that `density` finds among the values of the parameters.
    """

    parameters: tuple[Parameter, ...]

    name: ClassVar[str]
    about: ClassVar[str]
    support: ClassVar[str]
    discrete: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    atoms: ClassVar[tuple[float, ...]] = ()
    known: ClassVar[tuple[str, ...]] = ()
    exponential: ClassVar[bool] = False
    exponential_given: ClassVar[bool] = False
    multivariate: ClassVar[bool] = False
    circular: ClassVar[bool] = False
    penalised: ClassVar[bool] = False
    takes_levels: ClassVar[bool] = False
    further: ClassVar[Mapping[str, bool]] = {}
    dispersion: ClassVar[str | None] = None
    extra: ClassVar[tuple[str, ...]] = ()
    fitted_edf: ClassVar[float] = 0.0

    @classmethod
    @abstractmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        """The parameters with their default links."""

    def density(self, values: Mapping[str, Value]) -> Any:
        """The `tfd.Distribution` of the response, batch shape (n_obs,)."""
        return Formulated(self, values)

    @property
    def formulated(self) -> bool:
        """Whether the family is given by its formulas rather than by a `tfd.Distribution`."""
        return type(self).density is Family.density

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log f(y), (n_obs,), differentiable three times in the predictors."""
        if self.formulated:
            raise FamilyError(f"family {self.name!r} gives neither density nor log_density")
        return self.density(values).log_prob(y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log P(Y <= y), (n_obs,), differentiable three times in the predictors."""
        if not self.formulated:
            return tail_of(self.density(values), "log_cdf", y)
        if type(self).log_survival is Family.log_survival:
            raise FamilyError(
                f"family {self.name!r} has no distribution function: give it log_cdf or "
                "log_survival for censored rows, probabilities, quantiles and residuals"
            )
        return censoring.log1mexp(self.log_survival(values, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        """log P(Y > y), (n_obs,), differentiable three times in the predictors."""
        if not self.formulated:
            return tail_of(self.density(values), "log_survival_function", y)
        return censoring.log1mexp(self.log_cdf(values, y))

    def log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor] | None:
        """Both, where one costs what both do and no derivative of either is infinite."""
        return None

    def in_support(self, y: Array) -> Array:
        """Which responses the family can take, (n_obs,) of bool: by default inside `bounds`."""
        least, most = self.bounds
        if self.discrete:
            return np.asarray(np.isfinite(y) & (y >= least) & (y <= most) & (y == np.floor(y)))
        return np.asarray(np.isfinite(y) & (y > least) & (y < most))

    def varying(self, y: Array) -> Array:
        """The responses that must not all be the same, for the likelihood to have a maximum."""
        return y[:0] if self.discrete else y

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        """Moment estimates of the parameters (on their own scale) without covariates.

        By default those of the largest likelihood.
        """
        eta = self.start(Response(y, y, weights, None, "y", None))
        return {p.name: float(p.link.inverse(eta[u])) for u, p in enumerate(self.parameters)}

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

    @property
    def n_first(self) -> int:
        """Number of predictors of the first group."""
        return sum(p.units for p in self.parameters if group_of(p.name) == self.groups[0])

    @property
    def elements(self) -> tuple[str, ...]:
        """Names of the elements of the mean, where it is a vector; else none."""
        return ()

    def row_penalty(self, eta: Matrix) -> Vector:
        """What `log_likelihood` has taken off log f(y), where `penalised`; (n_obs,)."""
        return np.zeros(len(eta))

    def observed(self, y: Array) -> Array:
        """What the mean is the expectation of: y, or the indicators of its classes."""
        return y

    def scores(self, y: Array, eta: Matrix) -> Matrix:
        """Quantile residuals of a vector, (n_obs, d): independent and standard normal.

        Raises FamilyError where the family has none.
        """
        raise FamilyError(f"family {self.name!r} has no quantile residuals")

    def columns(self, response: Response) -> Mapping[str, Array]:
        """`Response.rows()`, and what the likelihood else sees of it that no coefficient moves."""
        return response.rows()

    def further_quantity(
        self, which: str, eta: Matrix, rows: Mapping[str, Array]
    ) -> Array | dict[str, Vector]:
        """One quantity of `further`: (n_obs, ...), or columns by name; `rows` of the response."""
        raise FamilyError(f"family {self.name!r} has no {which!r}")

    def classes(self, levels: tuple[str, ...] | None) -> tuple[tuple[str, ...], Vector]:
        """Names of the classes of a response, and the numbers that stand for them."""
        names = levels or ("0", "1")
        return names, np.arange(len(names), dtype=np.float64)

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

    def values(self, eta: Tensor, rows: Mapping[str, Tensor] | None = None) -> dict[str, Value]:
        """Split eta into the named parameters; add what is known of each row.

        Parameters
        ----------
        eta : tensor, (n_obs, U) or (n_obs, U + number of `known`)
            Predictors, followed by the known quantities where they are not in `rows`.
        rows : mapping of str to tensor, optional
            `Response.rows()`. A known quantity that is in neither is 1.
        """
        found = {p.name: Value(eta[:, u], p.link) for u, p in enumerate(self.parameters)}
        for place, name in enumerate(self.known, start=self.n_units):
            column = tf.ones_like(eta[:, 0])
            if rows is not None and name in rows:
                column = rows[name]
            elif eta.shape[1] > place:
                column = eta[:, place]
            found[name] = Value(column, link("identity"))
        return found

    def with_known(self, eta: Matrix, rows: Mapping[str, Array]) -> Matrix:
        """Predictors followed by what `rows` know of each row, as `values` takes them."""
        columns = [rows.get(name, np.ones(len(eta))) for name in self.known]
        return np.column_stack([eta, *columns]) if columns else eta

    def support_bijector(self, values: Mapping[str, Value]) -> Any:
        """A `tfb.Bijector` from the real line to the support of the response."""
        least, most = self.bounds
        if least == -np.inf and most == np.inf:
            return tfb.Identity()
        if most == np.inf:
            return tfb.Chain([tfb.Shift(np.float64(least)), tfb.Exp()])
        if least == -np.inf:
            return tfb.Chain([tfb.Shift(np.float64(most)), tfb.Scale(np.float64(-1.0)), tfb.Exp()])
        return tfb.Sigmoid(np.float64(least), np.float64(most))

    def distribution(self, eta: Tensor) -> Any:
        """The response distribution at predictors eta (n_obs, U)."""
        return self.density(self.values(tf.convert_to_tensor(eta, tf.float64)))

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """l_i(eta_i), shape (n_obs,), natural log; of exact, censored and truncated rows.

        Parameters
        ----------
        rows : mapping
            `Response.rows()`: the bounds of each response.
        eta : tensor, (n_obs, U)
        """
        return censoring.log_likelihood(self, rows, eta)

    def parameters_at(self, eta: Matrix) -> dict[str, Vector]:
        """The parameters on their own scale, each (n_obs,)."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        return {name: value.value.numpy() for name, value in values.items()}

    def check(self, response: Response) -> None:
        """Refuse responses outside the support (`support.check`) with a `ResponseError`."""
        support.check(self, response)

    def boundary(self, eta: Matrix) -> str | None:
        """What to warn of where fitted predictors are at the edge of the parameter space."""
        return None

    def start(self, response: Response) -> Vector:
        """Predictors (U,) of the intercept-only model: by moments, or best where they mislead."""
        if type(self).start_values is Family.start_values:
            links = [parameter.link.name for parameter in self.parameters]
            found = start.best_of(self, response, start.places(response.y, links))
            return start.intercept_only(self, response, found)
        theta, given = start.moments(self, response), self.parameters
        moments = np.array([float(p.link.forward(np.float64(theta[p.name]))) for p in given])
        return moments if response.plain else start.intercept_only(self, response, moments)

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """2 (sup l - l) row by row, the supremum over the first predictor; (n_obs,)."""
        exact = "lower" in rows and len(rows) == 1
        if self.exponential and exact:
            unit = self.unit_deviance(rows["lower"], self.mean(eta))
            return unit / self.dispersions(eta)
        best = numerical.saturated(self, rows, eta)
        return np.asarray(2.0 * np.maximum(best - self.row_log_likelihood(rows, eta), 0.0))

    def dispersions(self, eta: Matrix) -> Vector:
        """Phi of each row, (n_obs,); 1 for a family without a dispersion."""
        if self.dispersion is None:
            return np.ones(len(eta))
        theta = self.parameters_at(eta)[self.dispersion]
        return np.asarray(self.dispersion_of(theta))  # type: ignore[arg-type]  # elementwise

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

    # -- moments, probabilities: NumPy in, NumPy out, (n_obs,) each --------------------------------

    def mean(self, eta: Matrix) -> Vector:
        """E(y), (n_obs,)."""
        return numerical.mean(self, eta)

    def variance(self, eta: Matrix) -> Vector:
        """Var(y), (n_obs,)."""
        return numerical.variance(self, eta)

    def logpdf(self, y: Array, eta: Matrix) -> Vector:
        """log f(y), natural log, (n_obs,); -inf outside the support."""
        return numerical.log_density(self, y, eta)

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        """log P(Y <= y), natural log, (n_obs,)."""
        return numerical.log_cdf(self, y, eta)

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        """log P(Y > y), natural log, (n_obs,)."""
        return numerical.log_survival(self, y, eta)

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        """P(Y <= y), (n_obs,)."""
        return np.asarray(np.exp(self.logcdf(y, eta)))

    def survival(self, y: Array, eta: Matrix) -> Vector:
        """P(Y > y), (n_obs,)."""
        return np.asarray(np.exp(self.logsurvival(y, eta)))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        """Smallest y with F(y) >= probability, (n_obs,)."""
        return numerical.quantile(self, probability, eta)

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        """Draws, (n, n_obs)."""
        return numerical.sample(self, eta, n, seed=seed)

    # -- row derivatives -----------------------------------------------------------------------

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """l (n,) of exact, censored and truncated rows."""
        found: Vector = kernels.in_chunks(kernels.value, self, rows, (eta,))[0]
        return found

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        """l (n,), gradient (n, U) and W, the packed upper triangle of -d2l, (n, U (U + 1) / 2)."""
        return kernels.in_chunks(kernels.derivatives, self, rows, (eta,))

    def contracted_third(self, rows: Mapping[str, Array], eta: Matrix, weight: Matrix) -> Matrix:
        """v_iu = d/deta_iu sum_p weight_ip W_ip, p the upper triangle: each pair once; (n, U)."""
        third: Matrix = kernels.in_chunks(kernels.third, self, rows, (eta, weight))[0]
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


def known(name: str) -> type[Family] | None:
    """The family class of a name, None where there is none."""
    return _registry.get(name)


def registered(name: str) -> type[Family]:
    """The family class of a name.

    Raises
    ------
    FamilyError
        If the name is unknown.
    """
    if name not in _registry:
        close = difflib.get_close_matches(name, _registry, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FamilyError(f"family {name!r} is not known{hint} (known: {', '.join(_registry)})")
    return _registry[name]


Conversion = Callable[[Any], Family | None]
_conversions: list[Conversion] = []


def register_conversion(convert: Conversion) -> None:
    """Make other objects known as families: `convert` returns None of what it does not know."""
    _conversions.append(convert)


def family(given: Any, links: Mapping[str, Any] | str | None = None) -> Family:
    """A family by name, with other links where they are given.

    Parameters
    ----------
    given : str, Family, or what makes one
        A name, a family, a class of families, a `tfd` class or a function that returns one of its
        distributions.
    links : str or mapping, optional
        The link of the first parameter, or parameter -> link; a name or a `tfb.Bijector`.

    Raises
    ------
    FamilyError
        If the family, a parameter or a link is unknown.
    """
    if isinstance(given, str):
        cls = registered(given)
        given = cls(cls.default_parameters())
    if isinstance(given, type) and issubclass(given, Family):
        given = given(given.default_parameters())
    for convert in _conversions:
        if not isinstance(given, Family):
            given = convert(given) or given
    if not isinstance(given, Family):
        raise FamilyError(
            "family must be a name or a Family, or a tfd class or function that makes one, got "
            f"{type(given).__name__}"
        )
    if links is None:
        return given
    named = links if isinstance(links, Mapping) else {given.groups[0]: links}
    return given.with_links(named)
