"""Transformation models: the distribution of y through a transformation found from the data.

    P(Y <= y | x) = F(h(y) + sign shift(x)),   h(y) = g_0 + g_1 A_1(t) + ... + g_M A_M(t),
    t = (u - low) / (high - low),   u = y, log y where y is positive, log(1 + y) of counts

F is a standard distribution, A the cumulated Bernstein polynomials of order M = 10 (6 with fewer
than 100 exact rows), low and high a little beyond the range of the response; outside it h is
linear. h increases where its rises g_1, ..., g_M are positive. The shift has no intercept: g_0 is.

Where formulas ask for them there are a scale and an autoregression (AT(p)) of order p,

    P(Y_t <= y | x, past) = F((h(y) - sum_j phi_j h(y_(t-j)) + sign shift(x)) / scale(x)),

{"scale": "~ x"} and `lag(h(y), 1:p)` in the formula of the shift. The scale divides both h and the
shift, as in `ordinal` and R's `clm`. The phi_j are the parameters autoregression[j], constant where
they have no formula; y_(t-j) stands among the predictors too, as past[j], an offset. With h linear
and F normal (family `lm`) this is the AR(p) of conditional least squares.

The g are a group of parameters: a formula for `transformation` gives each g_k a predictor of its
own, {"transformation": "~ C(stratum)"} a transformation for each stratum, {"transformation": "~ x"}
one that changes with x: an effect that is not proportional. The fit maximises

    l + barrier sum_i w_i sum_k>0 (log r_ik - r_ik + 1),   r_ik = g_ik / rise,

barrier sum_i w_i = 0.01 and `rise` that of the straight line from which it starts. That keeps the
rises of every row positive, costs 0.05 or so for each that wants to be zero, and holds those that
the data say nothing of. l is concave in the predictors but for truncation, so that Newton finds
its maximum from anywhere. A row sees h at its bounds and h' where it is exact, which are linear in
the g (module `chain`).

References: Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291;
Ruegamer, Baumann, Kneib & Hothorn (2023), arXiv:2110.08248 (autoregression);
Kook, Herzog, Hothorn, Duerr & Sick (2022), doi:10.1016/j.patcog.2021.108263.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor, link
from deepregress.disk.scratch import beside, parts
from deepregress.errors import FamilyError, PredictionError, ResponseError, suggestion
from deepregress.families import chain, kernels
from deepregress.families.base import Family, Parameter, Value, register, upper_pairs
from deepregress.families.bernstein import cumulated, solved
from deepregress.families.moments import quartile_location_scale
from deepregress.families.standard import BY_LINK, Latent
from deepregress.families.transformed import (
    COUNT,
    MEMORY,
    NUMBER,
    PHI,
    POSITIVE,
    SIGMA,
    SLOPE,
    Scale,
    Transformed,
    inside,
    points_seen,
)
from deepregress.groups import group_of, member, members
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

SHIFT, TRANSFORMATION = "shift", "transformation"
SCALE, AUTOREGRESSION, PAST = "scale", "autoregression", "past"
OPTIONAL = (SCALE, AUTOREGRESSION, PAST)
"""Parameters that are there where formulas ask for them."""
ORDER, SMALL_ORDER, SMALL = 10, 6, 100
"""Order of the polynomials, and that with fewer than so many exact rows."""
WIDER = 0.05
"""Share of the range of the response that is added at each end."""
BASIS = "basis "  # before the name of a point: a column of `columns`
BARRIER = 0.01
"""Of all rows together, log-likelihood units."""


@dataclass(frozen=True)
class Transformation(Family):
    """A transformation model; subclasses give F, the sign of the shift and the scale of y.

    Attributes
    ----------
    span : pair of float
        low and high, in units of u.
    rise : float
        The g_k, k > 0, of the straight line that the fit starts from.
    barrier : float
        Of a row of weight 1.
    cumulative : str
        Name of the link whose inverse is F.
    """

    span: tuple[float, float] = (0.0, 1.0)
    rise: float = 1.0
    barrier: float = 0.0
    cumulative: str = "probit"

    support: ClassVar[str] = "finite numbers"
    penalised: ClassVar[bool] = True
    scale: ClassVar[Scale] = NUMBER
    sign: ClassVar[float]
    orders: ClassVar[tuple[int, int]] = (ORDER, SMALL_ORDER)
    meaning: ClassVar[str]

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        identity = link("identity")
        return (
            Parameter(SHIFT, identity, cls.meaning, intercept=False),
            Parameter(TRANSFORMATION, identity, "transformation of the response"),
        )

    @property
    def latent(self) -> Latent:
        """F."""
        return BY_LINK[self.cumulative]

    @property
    def latent_scale(self) -> Latent | None:
        return self.latent

    @property
    def order(self) -> int:
        """Order of the polynomials."""
        return sum(group_of(name) == TRANSFORMATION for name in self.parameter_names) - 1

    @property
    def rises(self) -> slice:
        """Units of g_1, ..., g_M."""
        return slice(2, 2 + self.order)

    def _units(self, group: str) -> list[int]:
        names = self.parameter_names
        return [names.index(name) for name in members(group, names)]

    def asked_for(self, names: Collection[str], lags: Sequence[int]) -> Self:
        """The family with the optional parameters of these names, and an autoregression.

        Parameters
        ----------
        names : collection of str
            Parameters that formulas are written for.
        lags : sequence of int
            Orders of the autoregression.
        """
        identity = link("identity")
        about = {AUTOREGRESSION: "coefficient of lag", PAST: "response at lag"}
        optional = [
            Parameter(member(group, j), identity, f"{meaning} {j}", intercept=group != PAST)
            for group, meaning in about.items()
            for j in lags
        ]
        if SCALE in names:
            scale = Parameter(SCALE, link("log"), "scale of the transformed response")
            optional = [replace(scale, intercept=False), *optional]
        return replace(self, parameters=(*self.parameters, *optional))

    def for_response(self, response: Response) -> Family:
        if response.lower.ndim > 1:
            raise ResponseError(
                f"{response.label!r} has {response.lower.shape[1]} columns; family {self.name!r} "
                f"needs {self.support}"
            )
        known = np.concatenate([response.lower, response.upper])
        known = known[np.isfinite(known) & self._inside(known)]
        u = np.unique(self.scale.u(tf.constant(known)).numpy())
        if len(u) < 2:
            return self
        wider = WIDER * (u[-1] - u[0])
        few = np.sum(response.lower == response.upper) < SMALL and not self.discrete
        order = self.orders[int(few)]
        shift, transformation, *optional = self.parameters
        coefficients = tuple(
            Parameter(
                member(TRANSFORMATION, k),
                transformation.link,
                f"coefficient {k} of the transformation",
            )
            for k in range(order + 1)
        )
        found = replace(
            self,
            parameters=(shift, *coefficients, *optional),
            span=(float(u[0] - wider), float(u[-1] + wider)),
            barrier=BARRIER / float(response.weights.sum()) if order > 1 else 0.0,
        )
        return replace(found, rise=float(found.start(response)[1 + order]))

    # -- the distribution ------------------------------------------------------------------------

    def _place(self, y: Tensor) -> Tensor:
        return (self.scale.u(y) - self.span[0]) / (self.span[1] - self.span[0])

    def _basis(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """A(y) and dA / dy, each (n_obs, order + 1)."""
        A, slope = cumulated(self._place(y), self.order)
        return A, slope * (self.scale.slope(y) / (self.span[1] - self.span[0]))[:, None]

    def transformed(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        """h(y) + sign shift and dh / dy, each (n_obs,)."""
        names = self.parameter_names
        g = tf.stack([values[name].eta for name in members(TRANSFORMATION, names)], axis=1)
        A, slope = self._basis(y)
        moved, inverse = self._moved(values)
        h = tf.reduce_sum(A * g, axis=1) + moved
        return h * inverse, tf.reduce_sum(slope * g, axis=1) * inverse

    def _moved(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        """What is added to h, and the inverse of the scale, each (n_obs,)."""
        names = self.parameter_names
        g = tf.stack([values[name].eta for name in members(TRANSFORMATION, names)], axis=1)
        moved = self.sign * values[SHIFT].eta
        for phi, past in zip(members(AUTOREGRESSION, names), members(PAST, names), strict=True):
            memory = tf.reduce_sum(self._basis(values[past].eta)[0] * g, axis=1)
            moved -= values[phi].eta * memory
        return moved, tf.exp(-values[SCALE].log) if SCALE in names else tf.ones_like(moved)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        h, slope = self.transformed(values, y)
        return self.latent.log_density(h) + tf.math.log(slope)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.latent.log_cdf(self.transformed(values, y)[0])

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self.latent.log_survival(self.transformed(values, y)[0])

    def logpdf(self, y: Array, eta: Matrix) -> Vector:
        return super().logpdf(y, self._increasing(eta))

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return super().logcdf(y, self._increasing(eta))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return super().logsurvival(y, self._increasing(eta))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        eta = self._increasing(eta)
        if self.discrete:
            return super().quantile(probability, eta)
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        shift, inverse = self._moved(self.values(tf.constant(eta)))
        with np.errstate(divide="ignore"):
            z = self.latent.quantile(p)
        t = solved(eta[:, 1 : self.rises.stop], z / inverse.numpy() - shift.numpy())
        u = self.span[0] + (self.span[1] - self.span[0]) * t
        return np.asarray(self.scale.y(tf.constant(u)))

    def _increasing(self, eta: Matrix) -> Matrix:
        """Predictors (n_obs, U) whose rises are positive.

        Raises
        ------
        PredictionError
            Some are not: the row is far from those of training.
        """
        wrong = np.any(eta[:, self.rises] <= 0.0, axis=1)
        if wrong.any():
            raise PredictionError(
                f"the transformation does not increase in {int(wrong.sum())} of {len(eta)} rows, "
                f"the first is row {int(np.argmax(wrong))}: the formula for {TRANSFORMATION!r} "
                "gives no distribution so far from the training rows"
            )
        return eta

    # -- the likelihood and its derivatives --------------------------------------------------------

    def row_penalty(self, eta: Matrix) -> Vector:
        r = eta[:, self.rises] / self.rise
        # a step too far has no finite likelihood: the solver sees that and halves it
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.barrier * np.sum(r - 1.0 - np.log(r), axis=1))

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        likelihood, flags, seen = self._seen(rows, eta)
        found: Vector = kernels.in_chunks(kernels.value, likelihood, flags, (seen.r,))[0]
        return found

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        r = eta[:, self.rises]
        if not np.all(r > 0.0):
            # a step too far has no likelihood: the solver halves it
            W = np.full((len(eta), len(upper_pairs(self.n_units))), np.nan)
            return W[:, 0], W[:, : self.n_units], W
        value, gradient, W = chain.derivatives(*self._seen(rows, eta))
        gradient[:, self.rises] += self.barrier * (1.0 / r - 1.0 / self.rise)
        W[:, self._diagonal] += self.barrier / r**2
        return value - self.row_penalty(eta), gradient, W

    def contracted_third(self, rows: Mapping[str, Array], eta: Matrix, weight: Matrix) -> Matrix:
        v = chain.contracted_third(*self._seen(rows, eta), weight)
        r = eta[:, self.rises]
        v[:, self.rises] -= 2.0 * self.barrier * weight[:, self._diagonal] / r**3
        return v

    @property
    def _diagonal(self) -> list[int]:
        """Places of the rises' own pairs among all pairs of units."""
        first, stop = self.rises.start, self.rises.stop
        pairs = enumerate(upper_pairs(self.n_units))
        return [p for p, (k, m) in pairs if k == m and first <= k < stop]

    def _seen(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Transformed, dict[str, Array], chain.Seen]:
        """The likelihood of what rows see, which ends are open, and what they see."""
        points, flags = points_seen(rows, self.bounds, discrete=self.discrete)
        memories = {f"{MEMORY}{j}": eta[:, u] for j, u in enumerate(self._units(PAST))}
        single = {f"{PHI}{j}": u for j, u in enumerate(self._units(AUTOREGRESSION))}
        single |= dict(zip([SIGMA], self._units(SCALE), strict=False))
        names = (*points, *memories, *single)
        known = {name: rows[BASIS + name].T for name in points if BASIS + name in rows}
        new = {name: y for name, y in (points | memories).items() if name not in known}
        A = np.zeros((len(names), self.n_units, len(eta)))
        for name, basis in (known | self._bases(new)).items():
            place = names.index(name)
            A[place, 0] = 0.0 if name in (SLOPE, *memories) else self.sign
            A[place, 1 : self.rises.stop] = basis
        for name, unit in single.items():
            A[names.index(name), unit] = 1.0
        scale = self.parameter(SCALE).link if SIGMA in single else None
        return Transformed(self.latent, names, scale), flags, chain.Seen.of(A, eta)

    def _bases(self, points: Mapping[str, Array]) -> dict[str, Array]:
        """A at each point, at `SLOPE` dA / dy; each (order + 1, n_obs)."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for y in points.values():
            if id(y) not in found:
                # an open end has no h: any number may stand there
                known = np.isfinite(y) & self._inside(y)
                found[id(y)] = self._basis(tf.constant(np.where(known, y, 1.0)))
        return {n: found[id(y)][int(n == SLOPE)].numpy().T for n, y in points.items()}

    def columns(self, response: Response) -> Mapping[str, Array]:
        """`Response.rows()` and the bases at their points, which no coefficient moves."""
        rows, kept = response.rows(), {}
        for part in parts(response.n_obs):
            some = {name: column[part] for name, column in rows.items()}
            points, _ = points_seen(some, self.bounds, discrete=self.discrete)
            for name, basis in self._bases(points).items():
                if BASIS + name not in kept:
                    kept[BASIS + name] = beside(response.lower, (len(basis), response.n_obs)).T
                kept[BASIS + name][part] = basis.T
        return {**rows, **kept}

    def varying(self, y: Array) -> Array:
        return y

    def _inside(self, y: Array) -> Array:
        return inside(y, self.bounds, discrete=self.discrete)

    # -- start -----------------------------------------------------------------------------------

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        """The straight line that takes the quartiles of the response to those of F."""
        u = self.scale.u(tf.constant(y, tf.float64)).numpy()
        first, middle, last = self.latent.quantile(np.array([0.25, 0.5, 0.75])).tolist()
        loc, scale = quartile_location_scale(u, weights, (first, middle, last))
        rise = (self.span[1] - self.span[0]) / (scale * self.order)
        values = [0.0, (self.span[0] - loc) / scale, *[rise] * self.order]
        middle = float(np.median(y))
        optional = {SCALE: 1.0, AUTOREGRESSION: 0.0, PAST: middle}
        values += [optional[group_of(name)] for name in self.parameter_names[len(values) :]]
        return dict(zip(self.parameter_names, values, strict=True))

    def start(self, response: Response) -> Vector:
        y = response.y
        y = np.where(self._inside(y), y, np.min(y[self._inside(y)]))
        found = self.start_values(y, response.weights)
        links = {parameter.name: parameter.link for parameter in self.parameters}
        return np.array([float(links[n].forward(np.float64(v))) for n, v in found.items()])


@register
@dataclass(frozen=True)
class Cox(Transformation):
    """Proportional hazards with a smooth baseline, by the full likelihood.

    P(Y > y | x) = exp(-exp(h(log y) + shift)): h is the log cumulative baseline hazard, effects
    are log hazard ratios.
    """

    cumulative: str = "cloglog"

    name: ClassVar[str] = "cox"
    about: ClassVar[str] = "proportional hazards, smooth baseline, full likelihood"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    scale: ClassVar[Scale] = POSITIVE
    sign: ClassVar[float] = 1.0
    meaning: ClassVar[str] = "log hazard ratio"


@register
@dataclass(frozen=True)
class Colr(Transformation):
    """Continuous outcome logistic regression: logit P(Y <= y | x) = h(y) + shift.

    Effects are log odds ratios of Y <= y, the same for all y.
    """

    cumulative: str = "logit"

    name: ClassVar[str] = "colr"
    about: ClassVar[str] = "continuous outcome logistic regression"
    sign: ClassVar[float] = 1.0
    meaning: ClassVar[str] = "log odds ratio of Y <= y"


@register
@dataclass(frozen=True)
class BoxCox(Transformation):
    """A normal linear model of a transformed response: h(Y) = shift + e, e standard normal.

    Effects are differences of the mean of h(Y).
    """

    name: ClassVar[str] = "boxcox"
    about: ClassVar[str] = "normal linear model of a transformed response"
    sign: ClassVar[float] = -1.0
    meaning: ClassVar[str] = "mean of the transformed response"


@register
@dataclass(frozen=True)
class Lehmann(Transformation):
    """Proportional reverse time hazards: P(Y <= y | x) = exp(-exp(-h(y) + shift)).

    Effects are log ratios of reverse time hazards, f(y) / F(y).
    """

    cumulative: str = "loglog"

    name: ClassVar[str] = "lehmann"
    about: ClassVar[str] = "proportional reverse time hazards"
    sign: ClassVar[float] = -1.0
    meaning: ClassVar[str] = "log ratio of reverse time hazards"


@register
@dataclass(frozen=True)
class LinearTransformation(Transformation):
    """The normal linear model as a transformation model: h is linear, h(Y) = shift + e.

    Effects are those of a linear model divided by its residual standard deviation (by maximum
    likelihood), for which there may be a formula: {"transformation": "~ x"}.
    """

    name: ClassVar[str] = "lm"
    about: ClassVar[str] = "normal linear model, effects over the residual scale"
    sign: ClassVar[float] = -1.0
    orders: ClassVar[tuple[int, int]] = (1, 1)
    meaning: ClassVar[str] = "mean over the residual standard deviation"


@register
@dataclass(frozen=True)
class Cotram(Transformation):
    """Counts by a smooth transformation: P(Y <= y | x) = F(h(log(1 + y)) - shift), y = 0, 1, ...

    `link="logit"` (log odds ratios of Y > y, the default), "cloglog", "loglog", "probit" or
    "cauchit" chooses F. A positive effect makes larger counts more likely.
    """

    cumulative: str = "logit"

    name: ClassVar[str] = "cotram"
    about: ClassVar[str] = "counts by a smooth transformation"
    support: ClassVar[str] = "counts 0, 1, 2, ..."
    discrete: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    scale: ClassVar[Scale] = COUNT
    sign: ClassVar[float] = -1.0
    meaning: ClassVar[str] = "log odds ratio of Y > y"

    def with_links(self, given: Mapping[str, Any]) -> Family:
        """The family with another F, which is the link of `shift`."""
        rest = {name: each for name, each in given.items() if name != SHIFT}
        wanted = given.get(SHIFT, self.cumulative)
        if wanted not in BY_LINK:
            raise FamilyError(
                f"link={wanted!r}: family {self.name!r} has the links {', '.join(BY_LINK)}"
                f"{suggestion(str(wanted), BY_LINK)}"
            )
        return replace(super().with_links(rest), cumulative=wanted)  # type: ignore[call-arg]

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        first = y < 1.0
        below = self.transformed(values, tf.where(first, y, y - 1.0))[0]
        at = self.transformed(values, y)[0]
        return self.latent.log_probability(below, at, first, tf.zeros_like(first))
