"""Families of a positive response (METHODS 7): survival times, costs, sizes.

    lognormal      log y ~ normal(loc, scale)            mean exp(loc + scale^2 / 2)
    loglogistic    log y ~ logistic(loc, scale)          mean exp(loc) pi scale / sin(pi scale)
    weibull        S(y) = exp(-(y / scale)^concentration)
    exponential    S(y) = exp(-y / scale)                mean scale
    inverse_gaussian   mean, variance dispersion * mean^3
    inverse_gamma      1 / y ~ gamma(concentration, rate = scale)
    pareto             S(y) = (scale / y)^concentration, y >= scale

All are closed under a change of unit: log y of the first four has a location and a scale.

References: Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions, ch. 14 to
21; Jorgensen (1982), Statistical Properties of the Generalized Inverse Gaussian Distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from deepregress.bijectors import Tensor, link, log_normal_cdf, softplus
from deepregress.errors import FamilyError, suggestion
from deepregress.families.base import Family, Parameter, Value, family, register
from deepregress.families.formulated import Continuous, LogLocationScale
from deepregress.families.incomplete_gamma import log_tails
from deepregress.families.moments import quartile_location_scale, weighted_moments
from deepregress.families.special import HALF_LOG_2PI, log1mexp, stirling_remainder
from deepregress.families.standard import LOGISTIC, MINIMUM, NORMAL, Standard
from deepregress.linalg import Array, Matrix, Vector

AT_SCALE = 1e-7
"""Relative distance at which a response is the scale of a Pareto distribution: the predictor of the
start, from columns of the model, is the logarithm of the smallest response to about 1e-8."""
ROUNDING = 1e-13
"""Size of a deviance of numbers of order one that is rounding."""


def _start_of_log(y: Vector, weights: Vector, standard: Any) -> tuple[float, float]:
    quartiles = tuple(standard.ppf((0.25, 0.5, 0.75)))
    return quartile_location_scale(np.log(y), weights, quartiles)


@register
@dataclass(frozen=True)
class LogNormal(LogLocationScale):
    """Lognormal distribution: log y is normal.

    f(y) = exp(-z^2 / 2) / (y scale sqrt(2 pi)),  z = (log y - loc) / scale;  median exp(loc),
    mean exp(loc + scale^2 / 2), variance (exp(scale^2) - 1) mean^2.
    """

    name: ClassVar[str] = "lognormal"
    about: ClassVar[str] = "lognormal, log y normal with mean loc and standard deviation scale"
    error: ClassVar[Standard] = NORMAL

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "mean of log y"),
            Parameter("scale", link("log"), "standard deviation of log y"),
        )

    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["loc"].value, values["scale"].log

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.lognorm(theta["scale"], scale=np.exp(theta["loc"]))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = weighted_moments(np.log(y), weights)
        return {"loc": mean, "scale": np.sqrt(variance)}


@register
@dataclass(frozen=True)
class LogLogistic(LogLocationScale):
    """Log-logistic distribution: log y is logistic.

    f(y) = exp(-z) / (y scale (1 + exp(-z))^2),  z = (log y - loc) / scale;  median exp(loc),
    mean exp(loc) pi scale / sin(pi scale) where scale < 1, variance finite where scale < 1/2.
    """

    name: ClassVar[str] = "loglogistic"
    about: ClassVar[str] = "log-logistic, log y logistic with mean loc and scale"
    error: ClassVar[Standard] = LOGISTIC

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "mean of log y, log of the median"),
            Parameter("scale", link("log"), "scale of log y"),
        )

    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["loc"].value, values["scale"].log

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.fisk(1.0 / theta["scale"], scale=np.exp(theta["loc"]))

    def mean(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        return np.asarray(np.exp(theta["loc"]) * _logistic_moment(theta["scale"]))

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        first, second = (_logistic_moment(k * theta["scale"]) for k in (1.0, 2.0))
        finite = np.isfinite(second)
        spread = np.where(finite, second, np.inf) - np.where(finite, first, 0.0) ** 2
        return np.asarray(np.exp(2.0 * theta["loc"]) * spread)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        loc, scale = _start_of_log(y, weights, scipy.stats.logistic)
        return {"loc": loc, "scale": scale}


def _logistic_moment(x: Vector) -> Vector:
    """E exp(x e) of a standard logistic e: pi x / sin(pi x), infinite from x = 1 on."""
    inside = x < 1.0
    return np.where(inside, 1.0 / np.sinc(np.where(inside, x, 0.0)), np.inf)


@register
@dataclass(frozen=True)
class Weibull(LogLocationScale):
    """Weibull distribution with scale and concentration (shape).

    f(y) = (k / s) (y / s)^(k-1) exp(-(y / s)^k),  s = scale, k = concentration;
    mean s Gamma(1 + 1/k), variance s^2 (Gamma(1 + 2/k) - Gamma(1 + 1/k)^2).
    """

    name: ClassVar[str] = "weibull"
    about: ClassVar[str] = "Weibull, survival exp(-(y / scale)^concentration)"
    error: ClassVar[Standard] = MINIMUM

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("scale", link("log"), "63 % quantile, units of the response"),
            Parameter("concentration", link("log"), "shape: hazard rises above 1, falls below"),
        )

    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["scale"].log, -values["concentration"].log

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.weibull_min(theta["concentration"], scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        loc, scale = _start_of_log(y, weights, scipy.stats.gumbel_l)
        return {"scale": np.exp(loc), "concentration": 1.0 / scale}


@register
@dataclass(frozen=True)
class Exponential(LogLocationScale):
    """Exponential distribution with scale, which is its mean.

    f(y) = exp(-y / scale) / scale;  mean scale, variance scale^2. Standard errors are those of the
    observed information, as in survival analysis (R's survreg), where responses are censored.
    """

    name: ClassVar[str] = "exponential"
    about: ClassVar[str] = "exponential, mean scale"
    error: ClassVar[Standard] = MINIMUM

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("scale", link("log"), "mean, units of the response"),)

    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        log_scale = values["scale"].log
        return log_scale, tf.zeros_like(log_scale)

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.expon(scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        return {"scale": weighted_moments(y, weights)[0]}

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        return np.asarray(2.0 * ((y - mean) / mean - np.log(y / mean)))


@register
@dataclass(frozen=True)
class AcceleratedWeibull(LogLocationScale):
    """Weibull distribution as R's survreg has it: log y = loc + scale e, P(e > z) = exp(-exp(z)).

    loc is the logarithm of the 63 % quantile, 1 / scale the shape: effects are log time ratios,
    log hazard ratios times -scale.
    """

    name: ClassVar[str] = "survreg"
    about: ClassVar[str] = "Weibull as R's survreg, log y = loc + scale e"
    error: ClassVar[Standard] = MINIMUM

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "log of the 63 % quantile"),
            Parameter("scale", link("log"), "scale of log y, 1 / shape"),
        )

    def of_log(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        return values["loc"].value, values["scale"].log

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.weibull_min(1.0 / theta["scale"], scale=np.exp(theta["loc"]))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        loc, scale = _start_of_log(y, weights, scipy.stats.gumbel_l)
        return {"loc": loc, "scale": scale}


ACCELERATED = {
    "weibull": "survreg",
    "exponential": "exponential",
    "lognormal": "lognormal",
    "loglogistic": "loglogistic",
}
"""Names of the families by those of survreg's distributions."""


def survreg(distribution: str = "weibull") -> Family:
    """The family of an accelerated failure time model, log y = x'b + scale e, as R's survreg.

    Coefficients of the first parameter and the log of the scale are survreg's. The exponential
    has the scale 1; its one parameter is called `scale`, with the log link.

    Parameters
    ----------
    distribution : {"weibull", "exponential", "lognormal", "loglogistic"}
        Of y.

    Raises
    ------
    FamilyError
        There is no such distribution.

    Examples
    --------
    >>> import deepregress as dr
    >>> model = dr.fit("y ~ 1", {"y": [1.0, 2.0, 4.0]}, dr.survreg("lognormal"))
    >>> model.coef["loc"].round(3).to_dict()
    {'(Intercept)': 0.693}
    """
    if distribution not in ACCELERATED:
        raise FamilyError(
            f"survreg({distribution!r}): the distributions are {', '.join(ACCELERATED)}"
            f"{suggestion(str(distribution), ACCELERATED)}"
        )
    return family(ACCELERATED[distribution])


@register
@dataclass(frozen=True)
class InverseGaussian(Continuous):
    """Inverse Gaussian distribution with mean and dispersion.

    f(y) = exp(-(y - mean)^2 / (2 dispersion mean^2 y)) / sqrt(2 pi dispersion y^3);
    mean `mean`, variance dispersion * mean^3. SciPy's and R's shape lambda is 1 / dispersion.
    """

    name: ClassVar[str] = "inverse_gaussian"
    about: ClassVar[str] = "inverse Gaussian, variance dispersion * mean^3"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    exponential: ClassVar[bool] = True
    dispersion: ClassVar[str | None] = "dispersion"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, units of the response"),
            Parameter("dispersion", link("log"), "variance / mean^3, 1 / units of the response"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_y, log_mean, log_phi = tf.math.log(y), values["mean"].log, values["dispersion"].log
        # (y - mean)^2 / (mean^2 y) without overflow or cancellation
        distance = 2.0 * tf.sinh(0.5 * (log_y - log_mean)) * tf.exp(-0.5 * (log_mean + log_phi))
        return -HALF_LOG_2PI - 0.5 * (log_phi + 3.0 * log_y) - 0.5 * tf.square(distance)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        a, b, twice = self._normal_arguments(values, y)
        first, second = log_normal_cdf(a), twice + log_normal_cdf(-b)
        return first + softplus(second - first)

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        a, b, twice = self._normal_arguments(values, y)
        first, second = log_normal_cdf(-a), twice + log_normal_cdf(-b)
        return first + log1mexp(first - second)

    @staticmethod
    def _normal_arguments(values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A and b with F = Phi(a) + exp(c) Phi(-b), and c = 2 / (dispersion mean)."""
        log_y, log_mean, log_phi = tf.math.log(y), values["mean"].log, values["dispersion"].log
        root = tf.exp(-0.5 * (log_phi + log_mean))
        half = 0.5 * (log_y - log_mean)
        return 2.0 * root * tf.sinh(half), 2.0 * root * tf.cosh(half), 2.0 * root**2

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        phi = theta["dispersion"]
        return scipy.stats.invgauss(theta["mean"] * phi, scale=1.0 / phi)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean = weighted_moments(y, weights)[0]
        # maximum likelihood: the mean of 1/y less 1 / mean; rounding where y hardly varies
        excess = float(np.average(1.0 / y - 1.0 / mean, weights=weights))
        return {"mean": mean, "dispersion": max(excess, ROUNDING / mean)}

    def dispersion_of(self, theta: float) -> float:
        return theta

    def least_dispersion(self, y: Vector) -> float:
        return float(ROUNDING / np.mean(y))

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        return np.asarray((y - mean) ** 2 / (mean**2 * y))


@register
@dataclass(frozen=True)
class InverseGamma(Continuous):
    """Inverse gamma distribution with scale and concentration: 1 / y is gamma.

    f(y) = s^a y^(-a-1) exp(-s / y) / Gamma(a),  s = scale, a = concentration;
    mean s / (a - 1) where a > 1, variance s^2 / ((a - 1)^2 (a - 2)) where a > 2.
    """

    name: ClassVar[str] = "inverse_gamma"
    about: ClassVar[str] = "inverse gamma, mean scale / (concentration - 1)"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("scale", link("log"), "scale, units of the response"),
            Parameter("concentration", link("log"), "shape: the tail falls as y^-concentration"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        concentration, d = values["concentration"].value, self._log_ratio(values, y)
        # concentration log(scale / y) - scale / y with the logarithm of Stirling's formula in it
        hump = -concentration * (tf.math.expm1(d) - d)
        half_log = 0.5 * values["concentration"].log - HALF_LOG_2PI
        return hump + half_log - stirling_remainder(concentration) - tf.math.log(y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        # Y <= y where the gamma variable scale / Y is at least scale / y
        return log_tails(values["concentration"].value, self._log_ratio(values, y))[1]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log_tails(values["concentration"].value, self._log_ratio(values, y))[0]

    @staticmethod
    def _log_ratio(values: Mapping[str, Value], y: Tensor) -> Tensor:
        return values["scale"].log - tf.math.log(y) - values["concentration"].log

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.invgamma(theta["concentration"], scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        # of 1 / y, which has all moments
        mean, variance = weighted_moments(1.0 / y, weights)
        return {"scale": mean / variance, "concentration": mean**2 / variance}


@register
@dataclass(frozen=True)
class Pareto(Continuous):
    """Pareto distribution (of the first kind) with concentration and scale, the least response.

    f(y) = a s^a / y^(a+1), y >= s,  a = concentration, s = scale;
    mean a s / (a - 1) where a > 1, variance s^2 a / ((a - 1)^2 (a - 2)) where a > 2.

    The likelihood rises with the scale up to the smallest response and has no derivative there:
    the scale takes no covariates. It is the smallest response, its maximum likelihood estimate, or
    the known threshold that is given as a number, `{"concentration": "y ~ x", "scale": 10.0}`. The
    standard error 1 / (a sqrt(n)) of the estimated log scale is an upper bound: it errs by
    1 / (a n).
    """

    name: ClassVar[str] = "pareto"
    about: ClassVar[str] = "Pareto, survival (scale / y)^concentration above the scale"
    support: ClassVar[str] = "positive finite numbers"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("concentration", link("log"), "tail index"),
            Parameter("scale", link("log"), "threshold, units of the response; no covariates"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        excess, concentration = self._log_excess(values, y), values["concentration"]
        log_density = concentration.log - concentration.value * excess - tf.math.log(y)
        # zero, with the curvature of a regular parameter: the scale stays where it starts
        log_scale = values["scale"].log
        moved = concentration.value * (log_scale - tf.stop_gradient(log_scale))
        log_density -= 0.5 * moved * moved
        return tf.where(excess < 0.0, tf.constant(-np.inf, y.dtype), log_density)

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return -values["concentration"].value * tf.maximum(self._log_excess(values, y), 0.0)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return log1mexp(-self.log_survival(values, y))

    @staticmethod
    def _log_excess(values: Mapping[str, Value], y: Tensor) -> Tensor:
        log_scale = tf.stop_gradient(values["scale"].log)
        excess = tf.math.log(y) - log_scale
        at_scale = tf.abs(excess) < AT_SCALE * (1.0 + tf.abs(log_scale))
        return tf.where(at_scale, tf.zeros_like(excess), excess)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y) & (y > 0.0))

    def frozen(self, theta: Mapping[str, Vector]) -> Any:
        return scipy.stats.pareto(theta["concentration"], scale=theta["scale"])

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        least = float(np.min(y[weights > 0.0]))
        return {
            "concentration": 1.0 / float(np.average(np.log(y / least), weights=weights)),
            "scale": least,
        }
