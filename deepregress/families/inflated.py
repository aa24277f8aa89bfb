"""Families of a count with more (or fewer) zeros than a count distribution has (METHODS 9).

    zip, zinb     P(0) = inflation + (1 - inflation) f(0),  P(y) = (1 - inflation) f(y)
    hurdle        P(0) = inflation,  P(y) = (1 - inflation) f(y) / (1 - f(0))

f Poisson or negative binomial with mean `mean`. In an inflated distribution `inflation` is the
probability of an extra zero, in a hurdle model of any zero. The presence part 1 - inflation of R's
`pscl::hurdle` has the negative of our coefficients (logit link); that of `mgcv::ziplss`, with a
complementary log-log link, the negative of ours with `link={"inflation": "loglog"}`.

References: Lambert (1992), doi:10.2307/1269547; Mullahy (1986), doi:10.1016/0304-4076(86)90002-3;
Zeileis, Kleiber & Jackman (2008), doi:10.18637/jss.v027.i08.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Tensor, link, softplus
from deepregress.families.base import Parameter, Value, register
from deepregress.families.counted import (
    EXTREME_PREDICTOR,
    LEAST_DISPERSION,
    LEAST_MEAN,
    NUMERICALLY_ZERO,
    ZeroModified,
    edge,
)
from deepregress.families.counting import Count, log_nonzero
from deepregress.linalg import Matrix, Vector

_MEAN = "mean of the count without the extra zeros"
_UNTRUNCATED = "mean of the count before zeros are cut off"
_DISPERSION = "of the count: (variance - mean) / mean^2"
_EXTRA = "probability of an extra zero"
_ANY = "probability of zero"
_START_SHARES = (0.05, 0.9)
"""Shares of extra zeros between which to start."""
_ROUNDS = 50


class Inflated(ZeroModified):
    """Extra zeros on top of those of the count."""

    def zeros(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        logit, exposure = values["inflation"].logit, self.count(values).exposure
        # log(pi + (1 - pi) exp(-e)), from the larger of its two parts
        mostly_extra = logit + exposure > 0.0
        few = tf.where(mostly_extra, tf.zeros_like(exposure), exposure)
        extra = softplus(-(logit + exposure)) - softplus(-logit)
        own = softplus(logit + few) - few - softplus(logit)
        zero = tf.where(mostly_extra, extra, own)
        return zero, -softplus(logit)

    def boundary(self, eta: Matrix) -> str | None:
        # covariates often leave some rows without extra zeros: that is no edge
        if np.all(self.parameters_at(eta)["inflation"] < NUMERICALLY_ZERO):
            return (
                "the fitted inflation is numerically 0 in all rows: the response has no extra "
                "zeros, so that its coefficients are infinite and their standard errors mean "
                "nothing"
            )
        return None


class Hurdle(ZeroModified):
    """Zeros by a probability of their own, positive counts from the count cut off at zero."""

    def zeros(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        logit = values["inflation"].logit
        return -softplus(-logit), -softplus(logit) - log_nonzero(self.count(values).log_exposure)

    def boundary(self, eta: Matrix) -> str | None:
        # of the predictor: a log-log link has probabilities of 1e-9 at predictors of 3
        extreme = np.abs(eta[:, self.parameter_names.index("inflation")]) > EXTREME_PREDICTOR
        return edge("probabilities of zero numerically 0 or 1", int(extreme.sum()), len(eta))


@register
@dataclass(frozen=True)
class ZeroInflatedPoisson(Inflated):
    """Zero-inflated Poisson distribution.

    P(0) = inflation + (1 - inflation) exp(-mean),  P(y) = (1 - inflation) mean^y exp(-mean) / y!;
    mean (1 - inflation) mean, variance (1 - inflation) mean (1 + inflation mean).
    """

    name: ClassVar[str] = "zip"
    about: ClassVar[str] = "Poisson counts with extra zeros"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), _MEAN),
            Parameter("inflation", link("logit"), _EXTRA),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        zero, mean = _zeros_and_mean(y, weights)
        count = _cut_mean(mean, 0.0)
        return {"mean": count, "inflation": _excess(zero, np.exp(-count))}


@register
@dataclass(frozen=True)
class ZeroInflatedNegativeBinomial(Inflated):
    """Zero-inflated negative binomial distribution.

    P(0) = inflation + (1 - inflation) f(0),  P(y) = (1 - inflation) f(y), f negative binomial of
    mean `mean` and variance mean + dispersion mean^2;  mean (1 - inflation) mean, variance
    (1 - inflation) mean (1 + (dispersion + inflation) mean).
    """

    name: ClassVar[str] = "zinb"
    about: ClassVar[str] = "negative binomial counts with extra zeros"
    extra: ClassVar[tuple[str, ...]] = ("dispersion",)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), _MEAN),
            Parameter("dispersion", link("log"), _DISPERSION),
            Parameter("inflation", link("logit"), _EXTRA),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log, values["dispersion"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        zero, mean = _zeros_and_mean(y, weights)
        count, dispersion = _cut_moments(y, weights, mean)
        at_zero = (1.0 + dispersion * count) ** (-1.0 / dispersion)
        return {
            "mean": count,
            "dispersion": dispersion,
            "inflation": _excess(zero, at_zero),
        }


@register
@dataclass(frozen=True)
class HurdlePoisson(Hurdle):
    """Hurdle model with a Poisson count.

    P(0) = inflation,  P(y) = (1 - inflation) mean^y / (y! (exp(mean) - 1)) for y > 0;
    mean m = (1 - inflation) mean / (1 - exp(-mean)), variance m (1 + mean - m).
    """

    name: ClassVar[str] = "hurdle"
    about: ClassVar[str] = "zeros by themselves, positive counts Poisson"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), _UNTRUNCATED),
            Parameter("inflation", link("logit"), _ANY),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        zero, mean = _zeros_and_mean(y, weights)
        return {"mean": _cut_mean(mean, 0.0), "inflation": zero}


@register
@dataclass(frozen=True)
class HurdleNegativeBinomial(Hurdle):
    """Hurdle model with a negative binomial count.

    P(0) = inflation,  P(y) = (1 - inflation) f(y) / (1 - f(0)) for y > 0, f negative binomial of
    mean `mean` and variance mean + dispersion mean^2;  mean m = (1 - inflation) mean / (1 - f(0)),
    variance m (1 + (1 + dispersion) mean - m).
    """

    name: ClassVar[str] = "hurdle_negative_binomial"
    about: ClassVar[str] = "zeros by themselves, positive counts negative binomial"
    extra: ClassVar[tuple[str, ...]] = ("dispersion",)

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), _UNTRUNCATED),
            Parameter("dispersion", link("log"), _DISPERSION),
            Parameter("inflation", link("logit"), _ANY),
        )

    def count(self, values: Mapping[str, Value]) -> Count:
        return Count(values["mean"].log, values["dispersion"].log)

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        zero, mean = _zeros_and_mean(y, weights)
        count, dispersion = _cut_moments(y, weights, mean)
        return {"mean": count, "dispersion": dispersion, "inflation": zero}


def _zeros_and_mean(y: Vector, weights: Vector) -> tuple[float, float]:
    """Share of zeros and mean of the positive counts, half an observation of each kind added."""
    total, positive = float(weights.sum()), float(weights[y > 0].sum())
    return (total - positive + 0.5) / (total + 1.0), (float(weights @ y) + 0.5) / (positive + 0.5)


def _excess(zero: float, at_zero: float) -> float:
    """inflation of P(0) = zero = inflation + (1 - inflation) at_zero."""
    share = (zero - at_zero) / max(1.0 - at_zero, LEAST_MEAN)
    return float(np.clip(share, *_START_SHARES))


def _cut_mean(positive: float, dispersion: float) -> float:
    """Mean of a count whose mean given that it is positive is `positive` >= 1."""
    mean = positive
    for _ in range(_ROUNDS):
        exposure = np.log1p(dispersion * mean) / dispersion if dispersion else mean
        mean = max(-positive * float(np.expm1(-exposure)), LEAST_MEAN)
    return mean


def _cut_moments(y: Vector, weights: Vector, positive: float) -> tuple[float, float]:
    """Mean and dispersion of a count from the first two moments of its positive values.

    E(y^2 | y > 0) / E(y | y > 0) = 1 + (1 + dispersion) mean.
    """
    w, above = weights * (y > 0), float(weights @ y)
    ratio = float(w @ y**2) / above if above > 0 else 1.0
    mean, dispersion = _cut_mean(positive, 0.0), LEAST_DISPERSION
    for _ in range(_ROUNDS):
        dispersion = float(np.clip((ratio - 1.0) / mean - 1.0, LEAST_DISPERSION, 1.0))
        mean = _cut_mean(positive, dispersion)
    return mean, dispersion
