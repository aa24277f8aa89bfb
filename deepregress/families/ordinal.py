"""Cumulative link models of an ordered class (METHODS 8).

    P(Y <= r) = F((threshold[r|r+1] - location) / scale),   r = 1..K - 1

F is chosen by `link=`: logit (proportional odds), probit, cloglog (proportional hazards), loglog
or cauchit. A positive effect in `location` makes higher classes more likely, as in R's `clm` and
`polr`. Each threshold has a predictor of its own, by default a constant, so that a formula for
`threshold` gives nominal effects (partial proportional odds) and one for `scale` scale effects;
`location` and `scale` have no intercept, which the thresholds are. A row sees two thresholds only:

    l = log(F(b) - F(a)),   a, b = (threshold below and above the class - location) / scale,

-inf at the ends. A step that would cross them has no likelihood and is halved by the solver, so
that they are in order without a transformation, and their standard errors are direct.

References: McCullagh (1980), doi:10.1111/j.2517-6161.1980.tb01109.x;
Peterson & Harrell (1990), doi:10.2307/2347760 (partial proportional odds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Link, Tensor, link
from deepregress.errors import FamilyError, PredictionError, ResponseError, suggestion
from deepregress.families import chain
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.ordered import QUANTITIES, of_classes, probabilities
from deepregress.families.standard import BY_LINK
from deepregress.groups import member
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

LOCATION, THRESHOLD, SCALE = "location", "threshold", "scale"
SEEN = 4
"""Numbers that a row sees: the thresholds below and above, location, predictor of the scale."""


@dataclass(frozen=True)
class Between:
    """l of rows that see (threshold below, threshold above, location, predictor of the scale).

    Attributes
    ----------
    link : str
        Name of the link.
    scale : Link
        Of the scale.
    """

    link: str
    scale: Link

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """log(F(b) - F(a)), (n_obs,); `rows["first"]`, `rows["last"]` are 1 without a or b."""
        standard = BY_LINK[self.link]
        below, above, location, scale = tf.unstack(eta, axis=1)
        first, last = rows["first"] > 0, rows["last"] > 0
        inverse = tf.exp(-self.scale.log_inverse(scale))
        a, b = (below - location) * inverse, (above - location) * inverse
        return standard.log_probability(a, b, first, last)


@register
@dataclass(frozen=True)
class Ordinal(Family):
    """Ordered classes by thresholds on a latent scale: P(Y <= r) = F((threshold - loc) / scale).

    The classes are those that occur, in the order of the levels or of the numbers. Mean and
    variance are those of the indicators of the classes, p_k and p_k (1 - p_k).
    `predict(which="class")` is the most probable class, `which="rps"` the ranked probability score
    sum_r (P(Y <= r) - [y <= r])^2 of each row, smaller is better.

    Attributes
    ----------
    levels : tuple of str
        Names of the classes.
    codes : tuple of float
        What stands for the classes in the response: 0, 1, ... for a factor, else the numbers.
    cumulative : str
        Name of the link whose inverse is F.
    """

    levels: tuple[str, ...] = ()
    codes: tuple[float, ...] = ()
    cumulative: str = "logit"

    name: ClassVar[str] = "ordinal"
    about: ClassVar[str] = "ordered classes, thresholds on a latent scale"
    support: ClassVar[str] = "ordered classes: a factor or whole numbers"
    discrete: ClassVar[bool] = True
    takes_levels: ClassVar[bool] = True
    further: ClassVar[Mapping[str, bool]] = QUANTITIES

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        identity = link("identity")
        return (
            Parameter(LOCATION, identity, "location of the latent scale", intercept=False),
            Parameter(THRESHOLD, identity, "thresholds between the classes"),
            Parameter(SCALE, link("log"), "scale of the latent scale", intercept=False),
        )

    def with_links(self, given: Mapping[str, Any]) -> Family:
        """The family with another F, the link of `location`, or another link of `scale`."""
        wanted = given.get(LOCATION)
        rest = {name: each for name, each in given.items() if name != LOCATION}
        if any(name.startswith(THRESHOLD) for name in rest):
            raise FamilyError(
                f"link: the thresholds have none; link='probit' or {{{LOCATION!r}: 'probit'}} "
                "chooses the distribution of the latent scale"
            )
        family = super().with_links(rest)
        if wanted is None:
            return family
        if wanted not in BY_LINK:
            raise FamilyError(
                f"link={wanted!r}: family 'ordinal' has the links {', '.join(BY_LINK)}"
                f"{suggestion(str(wanted), BY_LINK)}"
            )
        return replace(self, parameters=family.parameters, cumulative=wanted)

    def for_response(self, response: Response) -> Family:
        levels, codes = _classes(response)
        location, threshold, scale = self.parameters
        thresholds = tuple(
            Parameter(
                member(THRESHOLD, f"{low}|{high}"), threshold.link, f"between {low} and {high}"
            )
            for low, high in zip(levels[:-1], levels[1:], strict=True)
        )
        return replace(self, parameters=(location, *thresholds, scale), levels=levels, codes=codes)

    def check(self, response: Response) -> None:
        super().check(response)
        if response.entry is not None or response.exit is not None:
            raise ResponseError(
                f"{response.label!r}: classes cannot be truncated; family 'ordinal' takes exact "
                "and censored rows"
            )

    def in_support(self, y: Array) -> Array:
        return np.isin(y, self.codes)

    @property
    def elements(self) -> tuple[str, ...]:
        return self.levels

    # -- the likelihood ------------------------------------------------------------------------

    @property
    def _likelihood(self) -> Between:
        return Between(self.cumulative, self.parameters[-1].link)

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        lower = rows["lower"]
        upper = rows.get("upper", lower)
        return self._log_probability(eta, self._number(lower, below=True), self._number(upper))

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_probability(
            _eta(self, values), self._number(y, below=True), self._number(y)
        )

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        passed = self._number(y)
        value = self._log_probability(_eta(self, values), tf.zeros_like(passed), passed)
        return tf.where(passed > 0, value, tf.constant(-np.inf, value.dtype))

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        passed, every = self._number(y), float(len(self.codes))
        value = self._log_probability(_eta(self, values), passed, every * tf.ones_like(passed))
        return tf.where(passed < every, value, tf.constant(-np.inf, value.dtype))

    def _number(self, y: Tensor, *, below: bool = False) -> Tensor:
        """Number of classes up to y, or below it, (n_obs,) of float."""
        codes = tf.constant(self.codes, tf.float64)
        among = codes < y[:, None] if below else codes <= y[:, None]
        return tf.reduce_sum(tf.cast(among, tf.float64), axis=1)

    def _log_probability(self, eta: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """log of the probability of the classes low + 1, ..., high, in their order; (n_obs,)."""
        places = tf.range(1, len(self.codes), dtype=tf.float64)
        thresholds = eta[:, 1:-1]

        def threshold(number: Tensor) -> Tensor:
            chosen = tf.cast(number[:, None] == places, tf.float64)
            return tf.reduce_sum(chosen * thresholds, axis=1)

        seen = tf.stack([threshold(low), threshold(high), eta[:, 0], eta[:, -1]], axis=1)
        ends = {"first": low == 0.0, "last": high == float(len(self.codes))}
        rows = {name: tf.cast(end, tf.float64) for name, end in ends.items()}
        return self._likelihood.log_likelihood(rows, seen)

    def row_derivatives(
        self, rows: Mapping[str, Array], eta: Matrix
    ) -> tuple[Vector, Matrix, Matrix]:
        return chain.derivatives(self._likelihood, *self._seen(rows, eta))

    def contracted_third(self, rows: Mapping[str, Array], eta: Matrix, weight: Matrix) -> Matrix:
        return chain.contracted_third(self._likelihood, *self._seen(rows, eta), weight)

    def _seen(self, rows: Mapping[str, Array], eta: Matrix) -> tuple[dict[str, Array], chain.Seen]:
        """Ends of the rows' classes, and what the rows see of their predictors."""
        codes = np.array(self.codes)
        lower = np.searchsorted(codes, rows["lower"], side="left")
        upper = np.searchsorted(codes, rows.get("upper", rows["lower"]), side="right")
        A = np.zeros((SEEN, self.n_units, len(eta)))
        every = np.arange(len(eta))
        A[0, lower, every] = lower > 0
        inner = upper < len(codes)
        A[1, upper[inner], every[inner]] = 1.0
        A[2, 0] = A[3, -1] = 1.0
        ends = {"first": (lower == 0).astype(float), "last": (~inner).astype(float)}
        return ends, chain.Seen.of(A, eta)

    # -- start, boundary -------------------------------------------------------------------------

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        counts = weights @ self.observed(y)
        # half an observation in a class that only censored rows can have
        counts = np.where(counts > 0, counts, 0.5)
        share = np.cumsum(counts)[:-1] / counts.sum()
        thresholds = BY_LINK[self.cumulative].quantile(share)
        return dict(zip(self.parameter_names, [0.0, *thresholds.tolist(), 1.0], strict=True))

    def start(self, response: Response) -> Vector:
        codes = np.array(self.codes)
        place = np.searchsorted(codes, response.y).clip(0, len(codes) - 1)
        found = list(self.start_values(codes[place], response.weights).values())
        return np.array([*found[:-1], float(self.parameters[-1].link.forward(np.float64(1.0)))])

    def boundary(self, eta: Matrix) -> str | None:
        crossed = np.any(np.diff(eta[:, 1:-1], axis=1) <= 0.0, axis=1)
        if not crossed.any():
            return None
        return (
            f"the thresholds are out of order in {int(crossed.sum())} of {len(eta)} rows, where "
            "classes that were not observed would have negative probabilities; use a simpler "
            "formula for 'threshold'"
        )

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """-2 log P(lower <= Y <= upper), the saturated model being certain of each class."""
        return -2.0 * self.row_log_likelihood(rows, eta)

    # -- predictions ---------------------------------------------------------------------------

    def probabilities(self, eta: Matrix) -> Matrix:
        """P(class), (n_obs, K).

        Raises
        ------
        PredictionError
            Thresholds cross in some row.
        """
        if self.boundary(eta) is not None:
            row = int(np.argmax(np.any(np.diff(eta[:, 1:-1], axis=1) <= 0.0, axis=1)))
            raise PredictionError(
                f"the thresholds are out of order in row {row} of the new data: there the formula "
                "for 'threshold' gives no distribution"
            )
        return probabilities(self.logpdf, np.array(self.codes), eta)

    def mean(self, eta: Matrix) -> Matrix:
        return self.probabilities(eta)

    def variance(self, eta: Matrix) -> Matrix:
        p = self.probabilities(eta)
        return np.asarray(p * (1.0 - p))

    def observed(self, y: Array) -> Matrix:
        """Indicators of the classes, (n_obs, K)."""
        return np.asarray(np.asarray(y)[:, None] == np.array(self.codes), dtype=np.float64)

    def classes(self, levels: tuple[str, ...] | None) -> tuple[tuple[str, ...], Vector]:
        return self.levels, np.array(self.codes)

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        total = np.cumsum(self.probabilities(eta), axis=1)
        place = np.sum(total[:, :-1] < np.asarray(probability)[..., None], axis=1)
        return np.asarray(np.array(self.codes)[place])

    def further_quantity(self, which: str, eta: Matrix, rows: Mapping[str, Array]) -> Array:
        return of_classes(which, self.probabilities(eta), self.classes(None), rows)


def _eta(family: Ordinal, values: Mapping[str, Value]) -> Tensor:
    return tf.stack([values[name].eta for name in family.parameter_names], axis=1)


def _classes(response: Response) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and codes of the classes that occur."""
    if response.lower.ndim > 1:
        raise ResponseError(
            f"{response.label!r} has {response.lower.shape[1]} columns; family 'ordinal' needs "
            f"{Ordinal.support}"
        )
    codes = np.unique(np.concatenate([response.lower, response.upper]))
    codes = codes[np.isfinite(codes)]
    fraction = codes[codes != np.round(codes)]
    if fraction.size:
        raise ResponseError(
            f"{response.label!r}: family 'ordinal' needs {Ordinal.support}; the response has the "
            f"value {fraction[0]:g}"
        )
    if response.levels is None:
        names = tuple(f"{code:g}" for code in codes)
    else:
        names = tuple(response.levels[int(code)] for code in codes)
    if len(names) < 2:
        raise ResponseError(
            f"{response.label!r} has one class only ({', '.join(names)}); family 'ordinal' needs "
            "two at least"
        )
    return names, tuple(codes.tolist())
