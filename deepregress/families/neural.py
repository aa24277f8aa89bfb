"""DRIFT: regression models with a neural transformation of the response (METHODS 8).

    location-scale   P(Y <= y | x) = F((phi(u) - loc(x)) / scale(x))
    general          P(Y <= y | x) = F((phi(u) - loc(x)) / scale(x)
                                       + sum_k tanh(o_k(u) - flow[k](x)))

F is a standard distribution (`base`), u = y, log y or log(1 + y), phi and o_k an increasing neural
network of one number (`families.flow`), loc, scale and flow[k] additive predictors of any terms.
With phi(u) = u it is the location-scale family of F, such as mgcv's gaulss; with F a Gumbel
distribution of minima and u = log y the proportional hazards model whose baseline is exp(phi), and
the Weibull model where phi(u) = u; with classes, a logistic F and a constant scale proportional
odds. In the general model each flow[k](x) moves one unit of a hidden layer that sees y and x, so
that the shape of the distribution changes with x, not only its place and width; all of it
increases in y.

phi is in units of u and leaves two quartiles of the response where they are, which is what makes
loc and scale identified. The density of exact rows, the probabilities of censored ones, of counts
(y - 1, y] and of ordered classes are one likelihood, that of module `transformed`. Weights of the
network are found beside the coefficients (module `flow_fit`).

References: Kook, Kolb, Schiele, Dold, Arpogaus, Fritz, Baumann, Kopper, Pielok, Dorigatti &
Ruegamer (2024), arXiv:2405.05429; Siegfried, Kook & Hothorn (2023),
doi:10.1080/00031305.2023.2203177 (location-scale transformation models).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Link, Tensor, link
from deepregress.errors import FamilyError, ResponseError, suggestion
from deepregress.families import kernels, ordered
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.flow import WIDTH, Flow, Transformation, initial
from deepregress.families.flow_likelihood import Given, Joint, Seen, Values
from deepregress.families.flow_moments import mean_and_variance
from deepregress.families.moments import quartile_location_scale, weighted_moments
from deepregress.families.standard import CAUCHY, LOGISTIC, MAXIMUM, MINIMUM, NORMAL, Latent
from deepregress.families.transformed import (
    COUNT,
    LOWER,
    NUMBER,
    POSITIVE,
    SLOPE,
    Scale,
    inside,
    points_seen,
)
from deepregress.groups import member
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

LOC, SCALE, FLOW = "loc", "scale", "flow"
KINDS = ("location_scale", "general")
BASES = {
    "normal": NORMAL,
    "logistic": LOGISTIC,
    "gumbel": MAXIMUM,
    "gumbel_min": MINIMUM,
    "cauchy": CAUCHY,
}
"""Standard distributions by the names of their location-scale families."""
AUTO, TRIED = "auto", ("normal", "logistic", "gumbel", "gumbel_min")
"""The bases among which a fit chooses: those that have a mean."""
UNITS = 4
"""Hidden units that see x in the general model."""
TIED = 0.1
"""Share of the exact rows at one value from which a density could grow without bound there."""


@dataclass(frozen=True)
class Outcome:
    """A kind of response.

    Parameters
    ----------
    scale : Scale
        u.
    bounds : pair of float
    discrete : bool
    support : str
    """

    scale: Scale
    bounds: tuple[float, float]
    discrete: bool
    support: str


OUTCOMES = {
    "number": Outcome(NUMBER, (-np.inf, np.inf), False, "finite numbers"),
    "positive": Outcome(POSITIVE, (0.0, np.inf), False, "positive finite numbers"),
    "count": Outcome(COUNT, (0.0, np.inf), True, "counts 0, 1, 2, ..."),
    "ordered": Outcome(NUMBER, (0.0, np.inf), True, "ordered classes: a factor or whole numbers"),
}


@register
@dataclass(frozen=True)
class Drift(Family):
    """Location, scale (and shape) of a response under a neural transformation; see `drift`.

    Attributes
    ----------
    base : str
        F, one of `BASES`.
    bases : tuple of str
        Those among which the fit is to choose; empty where F is given or chosen.
    outcome : str
        One of `OUTCOMES`.
    flow : Transformation
        The network; the identity until it has been fitted.
    fixed : bool
        Whether the network is given and stays as it is.
    stiffness : float or None
        Of the penalty on the network; None: by restricted likelihood.
    seed : int
        Of the first weights.
    fitted_edf : float
        Effective degrees of freedom of the network.
    levels : tuple of str
        Names of the classes of a factor.
    """

    base: str = "normal"
    bases: tuple[str, ...] = ()
    outcome: str = "number"
    flow: Transformation = Flow(np.zeros(0))
    fixed: bool = False
    stiffness: float | None = None
    seed: int = 0
    fitted_edf: float = 0.0  # type: ignore[misc]
    levels: tuple[str, ...] = ()
    bounds: tuple[float, float] = (-np.inf, np.inf)  # type: ignore[misc]
    discrete: bool = False  # type: ignore[misc]
    takes_levels: bool = True  # type: ignore[misc]
    support: str = "finite numbers"  # type: ignore[misc]

    name: ClassVar[str] = "drift"
    about: ClassVar[str] = "location and scale of a response under a neural transformation (DRIFT)"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter(LOC, link("identity"), "location of the transformed response"),
            Parameter(SCALE, link("log"), "scale of the transformed response"),
        )

    @property
    def latent(self) -> Latent:
        """F."""
        return BASES[self.base]

    @property
    def units(self) -> int:
        """Number of flow[k]."""
        return len(self.parameters) - 2

    @property
    def links(self) -> tuple[Link, Link]:
        """Links of loc and scale."""
        return self.parameters[0].link, self.parameters[1].link

    @property
    def _scale(self) -> Scale:
        return OUTCOMES[self.outcome].scale

    # -- the response --------------------------------------------------------------------------

    def for_response(self, response: Response) -> Family:
        if response.lower.ndim > 1:
            raise ResponseError(
                f"{response.label!r} has {response.lower.shape[1]} columns; family {self.name!r} "
                f"needs {self.support}"
            )
        family = self
        if response.levels is not None:
            family = replace(self, **_outcome("ordered"), levels=response.levels)
        known = np.concatenate([response.lower, response.upper])
        known = known[np.isfinite(known)]
        if family.outcome == "ordered" and len(known):
            family = replace(family, bounds=(float(known.min()), float(known.max())))
        family = replace(family, takes_levels=family.outcome == "ordered")
        if family.fixed and not family.flow.straight:
            return family
        return replace(family, flow=family._first(response))

    def _first(self, response: Response) -> Transformation:
        """The network before it is fitted: the identity, in the general model random weights.

        The quartiles of the response are its anchors.
        """
        y = response.y
        if self.outcome == "ordered":
            # the network is seen at the upper ends of all classes but the last
            y = np.minimum(y, self.bounds[1] - 1.0)
        known = np.isfinite(y) & inside(y, self.bounds, discrete=self.discrete)
        if not known.any():
            return self.flow
        u, weights = self._scale.u(tf.constant(y[known])).numpy(), response.weights[known]
        # values that occur: the same whether a row has weight 2 or stands there twice
        order = np.argsort(u)
        reached = np.cumsum(weights[order]) / weights.sum()
        low, middle, high = u[order][np.searchsorted(reached, (0.25, 0.5, 0.75))]
        if not high > low:
            low, high = float(u.min()), float(u.max())
        if not high > low:
            return self.flow
        spread = float(np.sqrt(weighted_moments(u, weights)[1]))
        outputs = 1 + self.units
        found = Flow(np.zeros(0), 0, outputs, float(middle), spread, (float(low), float(high)))
        if self.units:
            # units that do not see y cannot be told from loc
            free = initial(np.random.default_rng(self.seed), outputs=outputs)
            found = replace(found, free=free, width=WIDTH)
        return found

    def check(self, response: Response) -> None:
        super().check(response)
        if self.outcome == "ordered" and self.bounds[1] - self.bounds[0] < 2.0:
            raise ResponseError(
                f"{response.label!r} has two classes; a transformation needs three at least: use "
                "family='bernoulli'"
            )
        exact = response.lower == response.upper
        if self.discrete or self.fixed or not exact.any():
            return
        values, place = np.unique(response.lower[exact], return_inverse=True)
        share = np.bincount(place, response.weights[exact]) / response.weights[exact].sum()
        most = int(np.argmax(share))
        if share[most] > TIED and np.sum(place == most) > 1.0 / TIED:
            raise ResponseError(
                f"{response.label!r}: {share[most]:.0%} of the exact rows are {values[most]:g}, "
                "where the density of a flexible transformation has no bound; use "
                "drift(outcome='count') or drift(outcome='ordered') of whole numbers, cens() at a "
                "detection limit, interval() of rounded values, or another family"
            )

    # -- the distribution ------------------------------------------------------------------------

    def outputs(self, u: Any, du: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """(phi, o) at u (n,) and their derivatives in y, du = du / dy: (n,) and (n, units) each."""
        (phi, slope), (o, slopes) = self.flow.phi(u), self.flow.features(u)
        return (phi, o), (slope * du, slopes * du[:, None])

    def _values(self, values: Mapping[str, Value]) -> Values:
        etas = [values[p.name].eta for p in self.parameters]
        return Values.of(tf.stack(etas, axis=1), self.links)

    def transformed(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        """H and dh / dy, each (n_obs,)."""
        at, slopes = self.outputs(self._scale.u(y), self._scale.slope(y))
        own = self._values(values)
        return own.height(*at), own.rise(*slopes, at[1])

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        if not self.discrete:
            h, slope = self.transformed(values, y)
            return self.latent.log_density(h) + tf.math.log(slope)
        first, last = y <= self.bounds[0], y >= self.bounds[1]
        below = self.transformed(values, tf.where(first, y, y - 1.0))[0]
        at = self.transformed(values, tf.where(last, y - 1.0, y))[0]
        return self.latent.log_probability(below, at, first, last)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.latent.log_cdf(self.transformed(values, y)[0])

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.latent.log_survival(self.transformed(values, y)[0])

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        if self.discrete or self.units:
            return super().quantile(probability, eta)
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        within = (p > 0.0) & (p < 1.0)
        at = self._values(self.values(tf.constant(eta[within], tf.float64)))
        z = self.latent.quantile(p[within])
        u = self.flow.inverse(at.loc.numpy() + np.exp(at.log_scale.numpy()) * z)
        y = np.where(p <= 0.0, *self.bounds)
        y[within] = self._scale.y(tf.constant(u)).numpy()
        return np.asarray(y)

    def mean(self, eta: Matrix) -> Vector:
        return self._moments(eta)[0] if self._has_fast_moments else super().mean(eta)

    def variance(self, eta: Matrix) -> Vector:
        return self._moments(eta)[1] if self._has_fast_moments else super().variance(eta)

    @property
    def _has_fast_moments(self) -> bool:
        return self.outcome == "number" and not self.units and self.base != "cauchy"

    def _moments(self, eta: Matrix) -> tuple[Vector, Vector]:
        own = self._values(self.values(tf.constant(eta, tf.float64)))
        loc, scale = own.loc.numpy(), np.exp(own.log_scale.numpy())
        return mean_and_variance(self.flow, self.latent, loc, scale)

    # -- the likelihood and its derivatives --------------------------------------------------------

    def seen(self, rows: Mapping[str, Array]) -> Seen:
        """Where rows see the network."""
        points, flags = points_seen(rows, self.bounds, discrete=self.discrete)
        least = 1.0 if not np.isfinite(self.bounds[0]) else self.bounds[0] + 1.0
        places: dict[str, Array] = {}
        for name, y in points.items():
            # an open end has no h: any number may stand there
            known = np.isfinite(y) & inside(y, self.bounds, discrete=self.discrete)
            same = name == SLOPE and y is points[LOWER]
            places[name] = places[LOWER] if same else np.where(known, y, least)
        return Seen(Joint(self.latent, tuple(places), self.links, self.units), flags, places)

    def seen_outputs(self, seen: Seen) -> Matrix:
        """The network's outputs at all points, (n_obs, n_seen)."""
        columns = []
        for name, y in seen.places.items():
            u, du = self._scale.u(tf.constant(y)).numpy(), self._scale.slope(tf.constant(y)).numpy()
            phi, o = self.outputs(u, du)[int(name == SLOPE)]
            columns += [phi[:, None], o]
        return np.hstack(columns)

    def _at(self, rows: Mapping[str, Array]) -> tuple[Given, dict[str, Array]]:
        seen = self.seen(rows)
        return Given(seen.joint), {**seen.flags, "seen": self.seen_outputs(seen)}

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        found: Vector = kernels.in_chunks(kernels.value, *self._at(rows), (eta,))[0]
        return found

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        return kernels.in_chunks(kernels.derivatives, *self._at(rows), (eta,))

    def contracted_third(self, rows: Mapping[str, Array], eta: Matrix, weight: Matrix) -> Matrix:
        third: Matrix = kernels.in_chunks(kernels.third, *self._at(rows), (eta, weight))[0]
        return third

    # -- start -----------------------------------------------------------------------------------

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        """The quartiles of the response at those of F; units spread over the response."""
        known = inside(y, self.bounds, discrete=self.discrete)
        u = self._scale.u(tf.constant(np.where(known, y, np.min(y[known])), tf.float64))
        first, middle, last = self.latent.quantile(np.array([0.25, 0.5, 0.75])).tolist()
        phi = self.flow.phi(u.numpy())[0]
        loc, scale = quartile_location_scale(phi, weights, (first, middle, last))
        places = np.linspace(-1.0, 1.0, self.units) if self.units > 1 else np.zeros(self.units)
        names = [p.name for p in self.parameters[2:]]
        return {LOC: loc, SCALE: scale, **dict(zip(names, places.tolist(), strict=True))}

    # -- classes ---------------------------------------------------------------------------------

    @property
    def further(self) -> Mapping[str, bool]:  # type: ignore[override]
        return ordered.QUANTITIES if self.outcome == "ordered" else {}

    def further_quantity(self, which: str, eta: Matrix, rows: Mapping[str, Array]) -> Array:
        classes = self.classes(None)
        p = ordered.probabilities(self.logpdf, classes[1], eta)
        return ordered.of_classes(which, p, classes, rows)

    def classes(self, levels: tuple[str, ...] | None) -> tuple[tuple[str, ...], Vector]:
        if self.outcome != "ordered":
            return super().classes(levels)
        if names := levels or self.levels:
            return names, np.arange(len(names), dtype=np.float64)
        codes = np.arange(self.bounds[0], self.bounds[1] + 1.0)
        return tuple(f"{code:g}" for code in codes), codes


def drift(
    kind: str = "location_scale",
    *,
    base: str = "normal",
    outcome: str = "number",
    units: int = UNITS,
    flow: Flow | str | None = None,
    stiffness: float | None = None,
    seed: int = 0,
) -> Drift:
    """Distributional regression with a neural transformation of the response (DRIFT).

    Parameters
    ----------
    kind : {"location_scale", "general"}
        "general" adds the parameters `flow[1]`, ..., `flow[units]` (as a group: `flow`), by which
        the shape of the distribution changes with covariates.
    base : {"normal", "logistic", "gumbel", "gumbel_min", "cauchy", "auto"}
        Distribution of the transformed response; "auto": that of the first four with the largest
        marginal likelihood on the training rows, at about twice the time, at most four times.
    outcome : {"number", "positive", "count", "ordered"}
        Of the response: "positive" transforms log y, such as survival times; "count" and "ordered"
        (whole numbers; a factor is ordered in any case) have probabilities in place of densities.
    units : int
        Hidden units that see covariates, where `kind="general"`.
    flow : Flow or "identity", optional
        A transformation that is not fitted.
    stiffness : float, optional
        Of the penalty that draws the transformation to a straight line, log-likelihood units; by
        default that of the restricted likelihood, as smoothing parameters.
    seed : int
        Of the network's first weights.

    Raises
    ------
    FamilyError
        Naming the choices that there are.

    Examples
    --------
    >>> import deepregress as dr
    >>> dr.families.drift(base="logistic").parameter_names
    ('loc', 'scale')
    """
    for argument, given, allowed in (
        ("kind", kind, KINDS),
        ("base", base, (*BASES, AUTO)),
        ("outcome", outcome, OUTCOMES),
    ):
        if given not in allowed:
            raise FamilyError(
                f"drift({argument}={given!r}): must be one of {', '.join(allowed)}"
                f"{suggestion(str(given), allowed)}"
            )
    if not (isinstance(units, int) and units > 0):
        raise FamilyError(f"drift(units={units!r}): needs a whole number > 0")
    if stiffness is not None and not 0.0 < stiffness < np.inf:
        raise FamilyError(f"drift(stiffness={stiffness!r}): needs a number > 0")
    if not (flow is None or flow == "identity" or isinstance(flow, Flow)):
        raise FamilyError(f"drift(flow={flow!r}): needs a Flow or 'identity'")
    if base == AUTO and flow is not None:
        raise FamilyError("drift(base='auto') is chosen with the transformation: leave out flow=")
    parameters = Drift.default_parameters()
    if kind == "general":
        if flow == "identity":
            raise FamilyError("drift(flow='identity'): the general model has no identity")
        identity = link("identity")
        parameters += tuple(
            Parameter(member(FLOW, k + 1), identity, f"place of unit {k + 1} of the network")
            for k in range(units)
        )
    bases = TRIED if base == AUTO else ()
    base = TRIED[0] if base == AUTO else base
    found = Drift(
        parameters, base=base, bases=bases, fixed=flow is not None, stiffness=stiffness, seed=seed
    )
    if isinstance(flow, Flow):
        found = replace(found, flow=flow)
    return replace(found, **_outcome(outcome))


def _outcome(name: str) -> dict[str, Any]:
    """What an outcome says of the family."""
    own = OUTCOMES[name]
    return {
        "outcome": name,
        "bounds": own.bounds,
        "discrete": own.discrete,
        "support": own.support,
    }
