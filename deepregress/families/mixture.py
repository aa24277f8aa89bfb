"""Mixtures of families: every row belongs to one of M classes, nobody says which (METHODS 9).

    f(y) = sum_m pi_m f_m(y; theta_m),   pi_m = exp(g_m) / sum_j exp(g_j),   g_1 = 0

The parameters of the components come in groups, `loc[1]`, `loc[2]`, ..., and `gate[2]`, ...,
`gate[M]` are the log odds of the classes against the first. All can have covariates. The likelihood
has several local maxima, and none at all where a component shrinks to one observation: fits start
from the best of several runs of the EM algorithm on the response alone, none of them so small, and
components of one family are numbered by their first parameter there.

    posterior   P(class m | y) = pi_m f_m(y) / f(y)
    penalised   l - entropy sum_i H(pi_i),   H(p) = -sum_m p_m log p_m,   where `entropy` > 0

References: McLachlan & Peel (2000), Finite Mixture Models; Dempster, Laird & Rubin (1977),
doi:10.1111/j.2517-6161.1977.tb01600.x; Ruegamer et al. (2020), arXiv:2010.06889 (entropy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link
from deepregress.errors import FamilyError, ResponseError
from deepregress.families import numerical
from deepregress.families.base import Family, Parameter, Value, family, register
from deepregress.groups import member
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

tfd = tfp.distributions

GATE = "gate"
STARTS = 8
"""Random divisions of the rows from which EM starts, beside those by quantile and by distance."""
SHORT_STEPS, EM_STEPS = 8, 60
"""EM steps of every run, and of the best one that goes on."""
EM_TOLERANCE = 1e-5
"""Relative gain of the log-likelihood at which EM is near enough for Newton to take over."""
EM_ROWS = 5_000
LEAST_ROWS = 3.0
"""Number of rows below which a component has collapsed: it then fits single rows."""
COLLAPSED = 1e-3
"""Standard deviation of a component, relative to the largest, that says the same."""
NUMERICALLY_CERTAIN = 1e-8
"""A class of probability 1 to this says that the likelihood rises towards infinite coefficients."""


def _two_normals() -> tuple[Family, ...]:
    return (family("normal"), family("normal"))


@register
@dataclass(frozen=True)
class Mixture(Family):
    """Finite mixture of families; made by `mixture`.

    Attributes
    ----------
    components : tuple of Family
    entropy : float
        Penalty on the entropy of the classes' probabilities, log-likelihood units per row: larger
        values favour few components.
    """

    components: tuple[Family, ...] = field(default_factory=_two_normals)
    entropy: float = 0.0

    name: ClassVar[str] = "mixture"
    about: ClassVar[str] = "mixture of other families, two normals unless mixture(...) says more"
    support: ClassVar[str] = "that of its components"
    penalised: ClassVar[bool] = True
    further: ClassVar[Mapping[str, bool]] = {"class_prob": True, "gate_prob": False}

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return _parameters(_two_normals())

    @property
    def discrete(self) -> bool:  # type: ignore[override]
        return self.components[0].discrete

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        return self.components[0].bounds

    @property
    def circular(self) -> bool:  # type: ignore[override]
        return any(each.circular for each in self.components)

    @property
    def known(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(name for each in self.components for name in each.known))

    @property
    def n_classes(self) -> int:
        """Number of components M."""
        return len(self.components)

    def units_of(self, m: int) -> list[int]:
        """Places of the predictors of component m, in its own order."""
        names = self.parameter_names
        return [names.index(member(p.name, m + 1)) for p in self.components[m].parameters]

    @property
    def gates(self) -> list[int]:
        """Places of the predictors of the gate."""
        names = self.parameter_names
        return [names.index(member(GATE, m)) for m in range(2, self.n_classes + 1)]

    # -- densities ---------------------------------------------------------------------------------

    def _each(self, values: Mapping[str, Value]) -> Iterator[tuple[Family, Mapping[str, Value]]]:
        """The components with their own values."""
        known = {name: values[name] for name in self.known}
        for m, component in enumerate(self.components):
            own = {p.name: values[member(p.name, m + 1)] for p in component.parameters}
            yield component, known | own

    def _log_gate(self, values: Mapping[str, Value]) -> Tensor:
        """log pi, (n_obs, M)."""
        logits = [values[member(GATE, m)].value for m in range(2, self.n_classes + 1)]
        return tf.nn.log_softmax(tf.stack([tf.zeros_like(logits[0]), *logits], axis=1))

    def _mixed(self, values: Mapping[str, Value], logs: Callable[[Family, Any], Tensor]) -> Tensor:
        parts = [logs(component, own) for component, own in self._each(values)]
        return tf.reduce_logsumexp(self._log_gate(values) + tf.stack(parts, axis=1), axis=1)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(values, lambda component, own: component.log_density(own, y))

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(values, lambda component, own: component.log_cdf(own, y))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(values, lambda component, own: component.log_survival(own, y))

    def density(self, values: Mapping[str, Value]) -> Any:
        gate = tfd.Categorical(logits=self._log_gate(values))
        return tfd.Mixture(gate, [component.density(own) for component, own in self._each(values)])

    def support_bijector(self, values: Mapping[str, Value]) -> Any:
        component, own = next(self._each(values))
        return component.support_bijector(own)

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        total = super().log_likelihood(rows, eta)
        if self.entropy == 0.0:
            return total
        log_gate = self._log_gate(self.values(eta, rows))
        return total + self.entropy * tf.reduce_sum(tf.exp(log_gate) * log_gate, axis=1)

    def row_penalty(self, eta: Matrix) -> Vector:
        pi = self.gate_probabilities(eta)
        return np.asarray(self.entropy * np.sum(scipy.special.entr(pi), axis=1))

    def check(self, response: Response) -> None:
        super().check(response)
        if self.circular and not response.plain:
            raise FamilyError("angles within a mixture cannot be censored")

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.all([each.in_support(y) for each in self.components], axis=0))

    # -- what is predicted -------------------------------------------------------------------------

    def gate_probabilities(self, eta: Matrix) -> Matrix:
        """pi, (n_obs, M)."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        return np.asarray(tf.exp(self._log_gate(values)).numpy())

    def mean(self, eta: Matrix) -> Vector:
        return np.asarray(np.sum(self.gate_probabilities(eta) * self._means(eta), axis=1))

    def variance(self, eta: Matrix) -> Vector:
        pi, means = self.gate_probabilities(eta), self._means(eta)
        within = np.column_stack(
            [each.variance(self._own(eta, m)) for m, each in enumerate(self.components)]
        )
        between = (means - np.sum(pi * means, axis=1, keepdims=True)) ** 2
        return np.asarray(np.sum(pi * (within + between), axis=1))

    def _means(self, eta: Matrix) -> Matrix:
        own = [each.mean(self._own(eta, m)) for m, each in enumerate(self.components)]
        return np.column_stack(own)

    def _own(self, eta: Matrix, m: int) -> Matrix:
        """Predictors of one component, with what is known of each row."""
        known = eta[:, self.n_units :] if eta.shape[1] > self.n_units else eta[:, :0]
        return np.column_stack([eta[:, self.units_of(m)], known])

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        draws = np.stack(
            [
                each.sample(self._own(eta, m), n, seed=seed + m)
                for m, each in enumerate(self.components)
            ]
        )
        ends = np.cumsum(self.gate_probabilities(eta), axis=1)[:, :-1]
        u = numerical.generator(seed).uniform(size=(n, len(eta)))
        chosen = np.sum(u[:, :, None] > ends, axis=2)
        return np.asarray(np.take_along_axis(draws, chosen[None], axis=0)[0])

    def posterior(self, rows: Mapping[str, Array], eta: Matrix) -> tuple[Matrix, Vector]:
        """P(class | y), (n_obs, M), and the log-likelihood of each row, (n_obs,)."""
        parts = [
            each.row_log_likelihood(rows, self._own(eta, m))
            for m, each in enumerate(self.components)
        ]
        with np.errstate(divide="ignore"):
            joint = np.log(self.gate_probabilities(eta)) + np.column_stack(parts)
        total = scipy.special.logsumexp(joint, axis=1)
        # a value that no component can take says nothing about the class
        informed = np.isfinite(total)[:, None]
        with np.errstate(invalid="ignore"):
            found = np.where(informed, np.exp(joint - total[:, None]), self.gate_probabilities(eta))
        return np.asarray(found), np.asarray(total)

    def further_quantity(
        self, which: str, eta: Matrix, rows: Mapping[str, Array]
    ) -> Array | dict[str, Vector]:
        found = self.gate_probabilities(eta)
        if which == "class_prob":
            found, _ = self.posterior(rows, eta)
        return {str(m + 1): found[:, m] for m in range(self.n_classes)}

    def boundary(self, eta: Matrix) -> str | None:
        pi = self.gate_probabilities(eta)
        own = [each.variance(self._own(eta, m)) for m, each in enumerate(self.components)]
        sd = np.sqrt(np.mean(own, axis=1))
        narrow = sd < COLLAPSED * sd.max()
        small = pi.sum(axis=0) < LEAST_ROWS
        if not self.discrete and narrow.any() or small.any():
            which = np.flatnonzero(small if self.discrete else small | narrow)
            return (
                f"component {', '.join(str(m + 1) for m in which)} of the mixture has collapsed "
                "onto single observations or tied ones, where the likelihood has no maximum, or is "
                "about to vanish; use fewer components or another family"
            )
        certain = int(np.sum(pi.max(axis=1) > 1.0 - NUMERICALLY_CERTAIN))
        if certain:
            return (
                f"the gate is certain of the class in {certain} of {len(eta)} rows: some of its "
                "coefficients are infinite and their standard errors mean nothing"
            )
        return None

    # -- where fits start --------------------------------------------------------------------------

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        response = Response(y, y, weights, None, "y", None)
        theta = self.start(response)
        links = {p.name: p.link for p in self.parameters}
        return {
            name: float(links[name].inverse(tf.constant(eta, tf.float64)))
            for name, eta in zip(self.parameter_names, theta, strict=True)
        }

    def start(self, response: Response) -> Vector:
        """Predictors (U,) of the best of several EM runs without covariates."""
        if response.n_obs > EM_ROWS:
            rows = np.random.default_rng(0).choice(response.n_obs, EM_ROWS, replace=False)
            response = response.take(np.sort(rows))
        shares = [
            np.eye(self.n_classes)[labels] * 0.9 + 0.1 / self.n_classes
            for labels in self._divisions(response.y)
        ]
        runs = [run for share in shares if (run := self._em(response, share, SHORT_STEPS))]
        if not runs:
            raise ResponseError(
                f"{response.label!r}: no division into {self.n_classes} classes was found in which "
                "each has its own distribution; use fewer components"
            )
        best = max(runs, key=lambda run: run.loglik)
        return self._ordered((self._em(response, best.share, EM_STEPS) or best).eta)

    def _divisions(self, y: Vector) -> Iterator[Array]:
        """First guesses of the class of each row: by quantile, by distance, by random centres."""
        n, M = len(y), self.n_classes
        rank = np.argsort(np.argsort(y, kind="stable"), kind="stable")
        yield rank * M // n
        distance = np.abs(y - np.median(y))
        yield np.argsort(np.argsort(distance, kind="stable"), kind="stable") * M // n
        rng = np.random.default_rng(0)
        values = np.unique(y)
        for _ in range(STARTS if len(values) >= M else 0):
            centres = np.sort(rng.choice(values, M, replace=False))
            yield np.argmin(np.abs(y[:, None] - centres), axis=1)

    def _em(self, response: Response, share: Matrix, steps: int) -> _Run | None:
        """Where EM ends from the classes' probabilities `share`; None where one collapses."""
        w, rows = response.weights, response.rows()
        best: _Run | None = None
        for _ in range(steps):
            size = w @ share
            if np.any(size < LEAST_ROWS * np.mean(w)):
                return best
            eta = np.empty(self.n_units)
            eta[self.gates] = np.log(size[1:] / size[0])
            for m, each in enumerate(self.components):
                part = replace(response, weights=w * share[:, m])
                eta[self.units_of(m)] = each.start(part)
            share, loglik = self.posterior(rows, np.tile(eta, (response.n_obs, 1)))
            run = _Run(float(w @ loglik), eta, share)
            if not np.isfinite(run.loglik):
                return best
            if best is not None and run.loglik < best.loglik + EM_TOLERANCE * abs(best.loglik):
                return max(best, run, key=lambda each: each.loglik)
            best = run
        return best

    def _ordered(self, eta: Vector) -> Vector:
        """Predictors with components of one family in the order of their first parameter."""
        first = self.components[0]
        if any(each != first for each in self.components):
            return eta
        order = np.argsort([eta[self.units_of(m)[0]] for m in range(self.n_classes)], kind="stable")
        logits = np.concatenate([[0.0], eta[self.gates]])[order]
        ordered = eta.copy()
        ordered[self.gates] = logits[1:] - logits[0]
        for m, source in enumerate(order):
            ordered[self.units_of(m)] = eta[self.units_of(int(source))]
        return ordered


@dataclass(frozen=True)
class _Run:
    """Where a run of EM stands: log-likelihood, predictors (U,), P(class | y) (n_obs, M)."""

    loglik: float
    eta: Vector
    share: Matrix


def mixture(*components: str | Family, entropy: float = 0.0) -> Mixture:
    """A mixture of families, for `family=`.

    Parameters
    ----------
    components : str or Family
        Two or more, of one support; the same ones or different ones.
    entropy : float
        Penalty on the entropy of the classes' probabilities, log-likelihood units per row.

    Returns
    -------
    Mixture
        With parameters `loc[1]`, `loc[2]`, ..., those of one name in a group, and `gate[2]`, ...

    Raises
    ------
    FamilyError
        There is one component only, or they do not go together.

    Examples
    --------
    >>> import deepregress as dr
    >>> [parameter.name for parameter in dr.mixture("poisson", "poisson").parameters]
    ['mean[1]', 'mean[2]', 'gate[2]']
    """
    given = tuple(family(each) for each in components)
    if len(given) < 2:
        raise FamilyError(f"a mixture needs two components at least, got {len(given)}")
    for each in given:
        if each.multivariate or each.takes_levels or each.groups != each.parameter_names:
            raise FamilyError(
                f"a mixture cannot have the component {each.name!r}: components are families of "
                "one number with parameters of one predictor"
            )
        if (each.discrete, each.bounds) != (given[0].discrete, given[0].bounds):
            raise FamilyError(
                f"the components {given[0].name!r} and {each.name!r} of a mixture have different "
                "supports"
            )
    if not entropy >= 0.0:
        raise FamilyError(f"entropy must be a number of at least 0, got {entropy!r}")
    return Mixture(_parameters(given), given, float(entropy))


def _parameters(components: tuple[Family, ...]) -> tuple[Parameter, ...]:
    """Parameters by group: those of one name of all components together, then the gate."""
    names = dict.fromkeys(p.name for each in components for p in each.parameters)
    grouped = [
        replace(p, name=member(p.name, m), about=f"{p.about}, of component {m}")
        for name in names
        for m, each in enumerate(components, start=1)
        for p in each.parameters
        if p.name == name
    ]
    logits = [
        Parameter(member(GATE, m), link("identity"), f"log odds of component {m} against 1")
        for m in range(2, len(components) + 1)
    ]
    return (*grouped, *logits)
