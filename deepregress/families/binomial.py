"""Families of a number of successes in a known number of trials (METHODS 7).

    binomial        variance n p (1 - p)
    betabinomial    variance n p (1 - p) (1 + (n - 1) / (1 + precision))

The response is `successes / trials` or `cbind(successes, failures)`; the trials are known for each
training row and 1 where a prediction does not say them, so that a mean is then a probability.

References: McCullagh & Nelder (1989), chapter 4; Skellam (1948) (beta-binomial).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link, softplus
from deepregress.errors import ResponseError
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.families.counted import NUMERICALLY_ZERO, edge, whole
from deepregress.families.counting import Successes, log_choose, log_rising
from deepregress.families.sums import blocks_for, log_tails_by_sums
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

tfd = tfp.distributions

LEAST_PRECISION, LARGEST_PRECISION = 0.1, 100.0
"""Between which to start the precision of a beta-binomial distribution."""


class _Trials(Family):
    """What the two families share: their support and the number of trials."""

    support: ClassVar[str] = "successes in a number of trials (successes / trials)"
    bounds: ClassVar[tuple[float, float]] = (0.0, np.inf)
    known: ClassVar[tuple[str, ...]] = ("trials",)
    discrete: ClassVar[bool] = True

    def in_support(self, y: Array) -> Array:
        return whole(y)

    def check(self, response: Response) -> None:
        super().check(response)
        trials = np.ones(response.n_obs) if response.trials is None else response.trials
        bad = np.flatnonzero(response.lower > trials)
        if bad.size:
            row = bad[0]
            raise ResponseError(
                f"{response.label!r}: family {self.name!r} needs {self.support}; row {row} has "
                f"{response.lower[row]:g} successes in {trials[row]:g} trials "
                f"({bad.size} of {response.n_obs} rows have too many)"
            )

    def boundary(self, eta: Matrix) -> str | None:
        prob = self.parameters_at(eta)["prob"]
        extreme = int(np.sum((prob < NUMERICALLY_ZERO) | (prob > 1.0 - NUMERICALLY_ZERO)))
        return edge("probabilities numerically 0 or 1", extreme, len(eta))

    def start(self, response: Response) -> Vector:
        trials = np.ones(response.n_obs) if response.trials is None else response.trials
        w, y = response.weights, response.lower
        # half a success and half a failure keep the start finite for all or none
        prob = (float(w @ y) + 0.5) / (float(w @ trials) + 1.0)
        theta = {"prob": prob, "precision": self.start_precision(y, trials, w, prob)}
        return np.array(
            [float(p.link.forward(tf.constant(theta[p.name], tf.float64))) for p in self.parameters]
        )

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        total = float(weights.sum())
        prob = (float(weights @ y) + 0.5) / (total + 1.0)
        return {"prob": prob, "precision": 1.0}

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        # all trials succeed at most, also where the probability is 1
        trials = self.values(tf.convert_to_tensor(eta, tf.float64))["trials"].value.numpy()
        return np.asarray(np.minimum(super().quantile(probability, eta), trials))

    @staticmethod
    def start_precision(y: Vector, trials: Vector, weights: Vector, prob: float) -> float:
        """Precision from the Pearson statistic, Var(y) = n p (1 - p) (1 + (n - 1) rho)."""
        ratio = (y - trials * prob) ** 2 / (trials * prob * (1.0 - prob))
        excess = float(weights @ (ratio - 1.0)) / max(float(weights @ (trials - 1.0)), 1.0)
        rho = np.clip(excess, 1.0 / (1.0 + LARGEST_PRECISION), 1.0 / (1.0 + LEAST_PRECISION))
        return float(1.0 / rho - 1.0)


@register
@dataclass(frozen=True)
class Binomial(_Trials):
    """Binomial distribution of the successes in n trials.

    P(y) = n! / (y! (n - y)!) prob^y (1 - prob)^(n - y);  mean n prob, variance n prob (1 - prob).
    """

    name: ClassVar[str] = "binomial"
    about: ClassVar[str] = "successes in a known number of trials"
    exponential: ClassVar[bool] = True

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("prob", link("logit"), "probability of a success"),)

    def density(self, values: Mapping[str, Value]) -> Any:
        return tfd.Binomial(values["trials"].value, logits=values["prob"].logit)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return Successes(values["prob"].logit, values["trials"].value).log_probability(y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return Successes(values["prob"].logit, values["trials"].value).log_tails(y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return Successes(values["prob"].logit, values["trials"].value).log_tails(y)[1]

    def fisher_weight(self, eta: Matrix) -> Vector:
        # the mean is `trials` times the parameter, so its slope and the variance both have them
        trials = self.values(tf.convert_to_tensor(eta, tf.float64))["trials"].value.numpy()
        return np.asarray(super().fisher_weight(eta) * trials**2)

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        if not set(rows) <= {"lower", "trials"}:
            return super().deviance(rows, eta)
        y = rows["lower"]
        n = rows.get("trials", np.ones(len(y)))
        prob = self.parameters_at(eta)["prob"]
        successes = scipy.special.xlogy(y, y / (n * prob))
        failures = scipy.special.xlogy(n - y, (n - y) / (n * (1.0 - prob)))
        return np.asarray(2.0 * (successes + failures))


@register
@dataclass(frozen=True)
class BetaBinomial(_Trials):
    """Beta-binomial distribution: successes whose probability varies as a beta distribution.

    P(y) = n! / (y! (n - y)!) B(y + a, n - y + b) / B(a, b),  a = prob * precision,
    b = (1 - prob) * precision;  mean n prob,
    variance n prob (1 - prob) (1 + (n - 1) / (1 + precision)).
    """

    n_blocks: int = 0
    """Of the sums of a compiled likelihood with censored rows."""

    name: ClassVar[str] = "betabinomial"
    about: ClassVar[str] = "successes in a known number of trials, overdispersed"
    extra: ClassVar[tuple[str, ...]] = ("precision",)

    def for_response(self, response: Response) -> Family:
        return replace(self, n_blocks=blocks_for(response))

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("prob", link("logit"), "mean probability of a success"),
            Parameter("precision", link("log"), "sum of the two shapes of the beta distribution"),
        )

    def density(self, values: Mapping[str, Value]) -> Any:
        prob, precision = values["prob"], values["precision"]
        log_success, log_failure = -softplus(-prob.logit), -softplus(prob.logit)
        return tfd.BetaBinomial(
            values["trials"].value,
            tf.exp(log_success + precision.log),
            tf.exp(log_failure + precision.log),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        logit, log_precision = values["prob"].logit, values["precision"].log
        n = values["trials"].value
        log_success, log_failure = -softplus(-logit), -softplus(logit)
        # rising factorials over their leading powers: the binomial limit loses nothing
        successes = y * log_success + log_rising(y, -log_success - log_precision)
        failures = (n - y) * log_failure + log_rising(n - y, -log_failure - log_precision)
        return log_choose(n, y) + successes + failures - log_rising(n, -log_precision)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[0]

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._log_tails(values, y)[1]

    def _log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        trials, prob = values["trials"].value, values["prob"].value
        spread = 1.0 + (trials - 1.0) / (1.0 + values["precision"].value)
        return log_tails_by_sums(
            self.log_density,
            values,
            y,
            mean=trials * prob,
            variance=trials * prob * (1.0 - prob) * spread,
            most=trials,
            n_blocks=self.n_blocks,
        )
