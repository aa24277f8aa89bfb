"""Links: the monotone maps between a predictor and a parameter of the response distribution.

Step of the method: theta = h(eta) for each distribution parameter. `Link.inverse` is h,
`Link.forward` its inverse. A link on (0, inf) also knows log h(eta), a link on (0, 1) logit h(eta);
where the link is the logarithm or the logit these are eta itself, so that no density is evaluated
through a rounded exp or sigmoid and no probability needs clipping.

    log:      h = exp(eta)          log h = eta
    logit:    h = 1 / (1 + exp(-eta))      logit h = eta
    probit:   h = Phi(eta)          logit h = log Phi(eta) - log Phi(-eta)
    cloglog:  h = 1 - exp(-exp(eta))
    loglog:   h = exp(-exp(-eta))          1 - h has the cloglog link of -eta
    cauchit:  h = 1/2 + atan(eta) / pi
    logshiftto1:  h = 1 + exp(eta)         parameters above 1, such as degrees of freedom
    logit12:  h = 1 + 1 / (1 + exp(-eta))  between 1 and 2, the power of a Tweedie variance
    tan_half: h = 2 atan(eta)              angles
    atanh:    h = tanh(eta)                log(1 - h^2) without cancellation

References: McCullagh & Nelder (1989), Generalized Linear Models, section 4.3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.errors import FamilyError

tfb = tfp.bijectors
tfd = tfp.distributions

Tensor = Any
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Link:
    """A monotone map h from the real line to the range of a parameter.

    Links compare by identity, which `link` makes unique: a bijector's own hash walks its parts.

    Parameters
    ----------
    name : str
        The name a user writes (`"log"`, `"logit"`, ...), or `"custom"`.
    bijector : tfb.Bijector
        Its `forward` is h (the inverse link), its `inverse` the link.
    log, logit : callable, optional
        log h(eta) and logit h(eta) without cancellation, where h maps to (0, inf) or (0, 1).
    complement : callable, optional
        log(1 - h(eta)^2) without cancellation, where h maps to (-1, 1).
    """

    name: str
    bijector: Any
    log: Map | None = field(default=None, repr=False)
    logit: Map | None = field(default=None, repr=False)
    complement: Map | None = field(default=None, repr=False)

    def inverse(self, eta: Tensor) -> Tensor:
        """h(eta): from the predictor to the parameter."""
        return self.bijector.forward(eta)

    def forward(self, theta: Tensor) -> Tensor:
        """The predictor at which the parameter is `theta`."""
        return self.bijector.inverse(theta)

    def log_inverse(self, eta: Tensor) -> Tensor:
        """log h(eta)."""
        return self.log(eta) if self.log is not None else tf.math.log(self.inverse(eta))

    def logit_inverse(self, eta: Tensor) -> Tensor:
        """log h(eta) - log(1 - h(eta))."""
        if self.logit is not None:
            return self.logit(eta)
        theta = self.inverse(eta)
        return tf.math.log(theta) - tf.math.log1p(-theta)

    def complement_inverse(self, eta: Tensor) -> Tensor:
        """log(1 - h(eta)^2)."""
        if self.complement is not None:
            return self.complement(eta)
        return tf.math.log1p(-tf.square(self.inverse(eta)))


def _same(eta: Tensor) -> Tensor:
    return eta


@tf.custom_gradient  # type: ignore[untyped-decorator]
def softplus(x: Tensor) -> Any:
    """log(1 + exp(x)), differentiable to any order through its derivative, the logistic function.

    TensorFlow's own second derivative contains exp(x), which overflows from 710 on.
    """
    return tf.math.softplus(x), lambda upstream: upstream * tf.sigmoid(x)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def log_normal_cdf(x: Tensor) -> Any:
    """log Phi(x), differentiable to any order through d log Phi / dx = exp(log phi - log Phi).

    TensorFlow would differentiate the piecewise approximation instead, whose third derivative takes
    seconds to compile.
    """

    def gradient(upstream: Tensor) -> Tensor:
        return upstream * tf.exp(-0.5 * x * x - _HALF_LOG_2PI - log_normal_cdf(x))

    return tfd.Normal(tf.zeros([], x.dtype), 1.0).log_cdf(x), gradient


_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def _probit_logit(eta: Tensor) -> Tensor:
    return log_normal_cdf(eta) - log_normal_cdf(-eta)


def _tanh_complement(eta: Tensor) -> Tensor:
    # 1 - tanh(eta)^2 = 4 / ((1 + exp(2 eta)) (1 + exp(-2 eta)))
    return 2.0 * math.log(2.0) - softplus(2.0 * eta) - softplus(-2.0 * eta)


class _Elementwise(tfb.Bijector):  # type: ignore[misc,name-defined]
    """A link given by its formula and the formula of its inverse."""

    def __init__(self, name: str, forward: Map, inverse: Map) -> None:
        self._formula = forward
        self._inverse_formula = inverse
        super().__init__(forward_min_event_ndims=0, name=name)

    def _forward(self, x: Tensor) -> Tensor:
        return self._formula(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._inverse_formula(y)

    def _forward_log_det_jacobian(self, x: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = self._formula(x)
        return tf.math.log(tape.gradient(y, x))


def _cauchit(eta: Tensor) -> Tensor:
    # atan2(1, -eta) / pi = 1/2 + atan(eta) / pi with full relative precision in the lower tail
    return tf.atan2(tf.ones_like(eta), -eta) / math.pi


def _cauchit_logit(eta: Tensor) -> Tensor:
    one = tf.ones_like(eta)
    return tf.math.log(tf.atan2(one, -eta)) - tf.math.log(tf.atan2(one, eta))


def _logit12(theta: Tensor) -> Tensor:
    return tf.math.log(theta - 1.0) - tf.math.log(2.0 - theta)


def _cloglog(eta: Tensor) -> Tensor:
    return -tf.math.expm1(-tf.exp(eta))


def _loglog(eta: Tensor) -> Tensor:
    return tf.exp(-tf.exp(-eta))


def _cloglog_logit(eta: Tensor) -> Tensor:
    # logit(1 - exp(-z)) = log(exp(z) - 1) = z + log(1 - exp(-z)) with z = exp(eta)
    z = tf.exp(eta)
    return z + tf.math.log(-tf.math.expm1(-z))


@functools.cache
def links() -> dict[str, Link]:
    """All named links.

    Returns
    -------
    dict of str to Link
    """
    return {
        "identity": Link("identity", tfb.Identity()),
        "log": Link("log", tfb.Exp(), log=_same),
        "softplus": Link("softplus", _Elementwise("softplus", softplus, tfp.math.softplus_inverse)),
        "logshiftto1": Link(
            "logshiftto1",
            _Elementwise("logshiftto1", lambda x: 1.0 + tf.exp(x), lambda t: tf.math.log(t - 1.0)),
            log=softplus,
        ),
        "sqrt": Link("sqrt", tfb.Square()),
        "inverse": Link("inverse", tfb.Reciprocal()),
        "logit": Link("logit", tfb.Sigmoid(), logit=_same),
        "logit12": Link(
            "logit12",
            _Elementwise("logit12", lambda x: 1.0 + tf.sigmoid(x), _logit12),
        ),
        "tan_half": Link(
            "tan_half",
            _Elementwise("tan_half", lambda x: 2.0 * tf.atan(x), lambda t: tf.tan(0.5 * t)),
        ),
        "probit": Link("probit", tfb.NormalCDF(), logit=_probit_logit),
        "cloglog": Link(
            "cloglog",
            _Elementwise("cloglog", _cloglog, lambda p: tf.math.log(-tf.math.log1p(-p))),
            logit=_cloglog_logit,
        ),
        "loglog": Link(
            "loglog",
            _Elementwise("loglog", _loglog, lambda p: -tf.math.log(-tf.math.log(p))),
            logit=lambda eta: -_cloglog_logit(-eta),
        ),
        "atanh": Link("atanh", tfb.Tanh(), complement=_tanh_complement),
        "cauchit": Link(
            "cauchit",
            _Elementwise("cauchit", _cauchit, lambda p: tf.tan(math.pi * (p - 0.5))),
            logit=_cauchit_logit,
        ),
    }


def link(given: Any) -> Link:
    """A link from its name or from a `tfb.Bijector` whose `forward` is the inverse link.

    Raises
    ------
    FamilyError
        If the name is unknown or the object is no bijector.
    """
    if isinstance(given, Link):
        return given
    if isinstance(given, tfb.Bijector):
        return _custom(given)
    table = links()
    if given not in table:
        raise FamilyError(f"link {given!r} is not known; known links: {', '.join(sorted(table))}")
    return table[given]


@functools.cache
def _custom(bijector: Any) -> Link:
    return Link("custom", bijector)
