"""Tweedie family: a sum of a Poisson number of gamma variables, with exact zeros (METHODS 7).

Variance dispersion * mean^power, 1 < power < 2. With q = 2 - power, a = q / (power - 1):

    P(0)   = exp(-mean^q / (dispersion q))
    f(y)   = exp(-d(y, mean) / (2 dispersion)) / y * sum_j exp(h_j),   y > 0
    h_j    = -(1 + a) (j log(j / m) - j + m) + 1/2 log a - log 2 pi - R(j) - R(j a),
    m      = y^q / (dispersion q),   d the unit deviance,   R Stirling's remainder

This is Dunn & Smyth's series with the exponential of its largest term taken out in closed form: d
carries it, so that a small dispersion costs no digits. h_j is a bump around j = m of width
s = sqrt(m / (1 + a)). Where few terms matter they are summed one by one; where s is large, a sum
over every k-th j times k equals the whole sum up to exp(-2 pi^2 (s / k)^2) (Poisson summation), so
that no row needs more than MAX_TERMS and most need twenty. The terms j carry no derivative, f is
smooth in all parameters.

References: Dunn & Smyth (2005), doi:10.1007/s11222-005-4070-y; Jorgensen (1997), The Theory of
Dispersion Models, ch. 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.optimize.elementwise
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor, link
from deepregress.families import numerical
from deepregress.families.base import Parameter, Value, register
from deepregress.families.integrated import Integrated
from deepregress.families.moments import weighted_moments
from deepregress.families.special import stirling_derivative, stirling_remainder
from deepregress.linalg import Array, Matrix, Vector

WIDTHS_BELOW, WIDTHS_ABOVE, FEW_TERMS = 9.0, 11.0, 12.0
"""The terms of the series reach so many widths s to both sides of m, and this many beyond: those
left out are below exp(-35) of the largest."""
SMOOTH_FROM, PER_WIDTH = 40.0, 0.5
"""m (1 + a) from which terms are skipped, and the stride in widths: exp(-2 pi^2 4) is lost."""
BLOCK_OF_TERMS, MAX_TERMS = 8, 128.0
SERIES_BELOW, SERIES_TERMS = 0.02, 10
"""Where (1 + d) log(1 + d) - d cancels, and the last power of its series."""
_N_SUMS = 14
_LARGEST_LOG = 150.0
"""log y beyond which the density is taken as zero: the cube of the largest j overflows."""
_LOG_2PI = math.log(2.0 * math.pi)
_MANY = 500.0
_PER_WIDTH = 4.0
"""Rate of the Poisson number from which the distribution function skips numbers, and how many of
them it takes per width of the Poisson and gamma factors: the rest is exp(-2 pi^2 16)."""
_COUNT_WIDTHS = 12.0
"""Standard deviations of the Poisson number that the sum of the distribution function covers."""
_BLOCK = 2**20


@register
@dataclass(frozen=True)
class Tweedie(Integrated):
    """Tweedie distribution with mean, dispersion and power.

    Y = sum of N gamma variables, N ~ Poisson(mean^(2 - p) / (dispersion (2 - p))), p = power;
    P(Y = 0) = exp(-mean^(2 - p) / (dispersion (2 - p)));  mean `mean`,
    variance dispersion * mean^p. The link of the power is logit12, p = 1 + 1 / (1 + exp(-eta)).
    """

    name: ClassVar[str] = "tweedie"
    about: ClassVar[str] = "Tweedie with exact zeros, variance dispersion * mean^power"
    support: ClassVar[str] = "finite numbers >= 0"
    atoms: ClassVar[tuple[float, ...]] = (0.0,)
    exponential_given: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ("dispersion", "power")

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("mean", link("log"), "mean, units of the response"),
            Parameter("dispersion", link("log"), "variance / mean^power"),
            Parameter("power", link("logit12"), "power of the variance, between 1 and 2"),
        )

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        positive = y > 0.0
        log_y = tf.math.log(tf.where(positive, y, tf.ones_like(y)))
        above = self.log_density_on_line(values, log_y) - log_y
        return tf.where(positive, above, self._log_zero(values))

    def on_line(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return tf.math.log(tf.maximum(y, np.finfo(float).tiny))

    def log_density_on_line(self, values: Mapping[str, Value], x: Tensor) -> Tensor:
        log_mean, log_phi = values["mean"].log, values["dispersion"].log
        q = 2.0 - values["power"].value
        scale = tf.exp(q * log_mean - log_phi)
        beyond = x > _LARGEST_LOG
        x = tf.where(beyond, tf.zeros_like(x), x)
        log_density = _log_series(x, log_phi, q) - scale * _deviance_ratio(x - log_mean, q)
        return tf.where(beyond, tf.constant(-np.inf, x.dtype), log_density)

    def hump(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        log_mean, power = values["mean"].log, values["power"].value
        return log_mean, tf.exp(0.5 * (values["dispersion"].log + (power - 2.0) * log_mean))

    @staticmethod
    def _log_zero(values: Mapping[str, Value]) -> Tensor:
        """log P(Y = 0)."""
        q = 2.0 - values["power"].value
        return -tf.exp(q * values["mean"].log - values["dispersion"].log) / q

    def log_tails(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        log_cdf, log_survival = super().log_tails(values, y)
        nothing, all_of_it = tf.constant(-np.inf, y.dtype), tf.zeros_like(y)
        return tf.where(y < 0.0, nothing, log_cdf), tf.where(y < 0.0, all_of_it, log_survival)

    def log_atom(self, values: Mapping[str, Value]) -> Tensor | None:
        return self._log_zero(values)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y) & (y >= 0.0))

    def mean(self, eta: Matrix) -> Vector:
        return self.parameters_at(eta)["mean"]

    def variance(self, eta: Matrix) -> Vector:
        theta = self.parameters_at(eta)
        return np.asarray(theta["dispersion"] * theta["mean"] ** theta["power"])

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return _log(self._probability(y, eta, scipy.special.gammainc, zero=1.0))

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return _log(self._probability(y, eta, scipy.special.gammaincc, zero=0.0))

    def _probability(self, y: Array, eta: Matrix, part: Any, *, zero: float) -> Vector:
        """Sum over N of P(N) P(gamma on one side of y), over every k-th N where both are smooth."""
        y = np.broadcast_to(np.asarray(y, dtype=np.float64), (len(eta),))
        rate, shape, unit = self._compound(eta)
        width = np.sqrt(rate / np.maximum(shape, 1.0))
        stride = np.where(rate > _MANY, np.maximum(width / _PER_WIDTH, 1.0), 1.0)
        spread = np.ceil(_COUNT_WIDTHS * np.sqrt(rate) + 30.0)
        first = np.maximum(np.floor(rate - spread), 1.0)
        count = np.ceil((rate + spread - first) / stride).astype(np.int64) + 1
        total = zero * np.exp(-rate)
        size = 1 << np.ceil(np.log2(count)).astype(np.int64)
        for length in np.unique(size):
            rows = np.flatnonzero(size == length)
            for block in np.array_split(rows, max(1, len(rows) * int(length) // _BLOCK)):
                j = first[block, None] + stride[block, None] * np.arange(length)
                mass = stride[block, None] * _poisson(j, rate[block, None])
                at = np.maximum(y[block, None], 0.0) / unit[block, None]
                total[block] += np.sum(mass * part(j * shape[block, None], at), axis=1)
        # the strided mass sums to 1 up to rounding
        return np.where(y < 0.0, 1.0 - zero, np.minimum(total, 1.0))

    def _compound(self, eta: Matrix) -> tuple[Vector, Vector, Vector]:
        """Rate of the Poisson number, shape and unit of the gamma variables."""
        theta = self.parameters_at(eta)
        mean, phi, power = theta["mean"], theta["dispersion"], theta["power"]
        q = 2.0 - power
        return mean**q / (phi * q), q / (power - 1.0), phi * (power - 1.0) * mean ** (power - 1.0)

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        """The root of F(y) = p in log y, above the mass at zero."""
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        rate, _, _ = self._compound(eta)
        rows = np.flatnonzero((p > np.exp(-rate)) & (p < 1.0))
        found = np.where(p < 1.0, 0.0, np.inf)
        if rows.size:
            own, at = p[rows], eta[rows]
            bracket = self._bracket(own, at)
            root = scipy.optimize.elementwise.find_root(
                functools.partial(self._excess, eta=at), bracket, args=(own, np.arange(len(own)))
            )
            found[rows] = np.exp(root.x)
        return found

    def _bracket(self, p: Vector, eta: Matrix) -> tuple[Vector, Vector]:
        """log y on both sides of the root, by steps that double."""
        mean = self.mean(eta)
        centre, width = np.log(mean), np.sqrt(self.variance(eta)) / mean
        low, high = centre - width, centre + width
        rows, step = np.arange(len(p)), width
        while np.any(short := self._excess(low, p, rows, eta=eta) > 0.0):
            step = 2.0 * step
            low = np.where(short, low - step, low)
        step = width
        while np.any(short := self._excess(high, p, rows, eta=eta) < 0.0):
            step = 2.0 * step
            high = np.where(short, high + step, high)
        return low, high

    def _excess(self, log_y: Vector, p: Vector, row: Array, *, eta: Matrix) -> Vector:
        """F(y) - p, in the upper half from the survival function, where p has its digits."""
        y, at = np.exp(log_y), eta[row]
        return np.where(p <= 0.5, self.cdf(y, at) - p, (1.0 - p) - self.survival(y, at))

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        rate, shape, unit = self._compound(eta)
        generator = numerical.generator(seed)
        number = generator.poisson(rate, size=(n, len(eta)))
        # a gamma variable of shape 0 is the point 0
        return np.asarray(unit * generator.gamma(number * shape))

    def start_values(self, y: Vector, weights: Vector) -> Mapping[str, float]:
        mean, variance = weighted_moments(y, weights)
        return {"mean": mean, "dispersion": variance / mean**1.5, "power": 1.5}

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        """The deviance at power 3/2, 4 (sqrt(y) - sqrt(mean))^2 / sqrt(mean)."""
        return np.asarray(4.0 * (np.sqrt(y) - np.sqrt(mean)) ** 2 / np.sqrt(mean))


def _poisson(j: Array, rate: Array) -> Array:
    """Poisson probabilities at j >= 1, whole or not, without cancellation at large rates."""
    d = (j - rate) / rate
    bump = rate * ((1.0 + d) * np.log1p(d) - d)
    remainder = scipy.special.gammaln(j + 1.0) - (j + 0.5) * np.log(j) + j - 0.5 * _LOG_2PI
    remainder = np.where(j > _MANY, 1.0 / (12.0 * j) - 1.0 / (360.0 * j**3), remainder)
    return np.asarray(np.exp(-bump - remainder) / np.sqrt(2.0 * np.pi * j))


def _deviance_ratio(u: Tensor, q: Tensor) -> Tensor:
    """d(y, mean) / (2 mean^q) at u = log(y / mean)."""
    return (q * tf.math.expm1(u) - tf.math.expm1(q * u)) / (q * (1.0 - q))


def _log_series(log_y: Tensor, log_phi: Tensor, q: Tensor) -> Tensor:
    """log sum_j exp(h_j), (n_obs,)."""
    a = q / (1.0 - q)
    log_peak = q * log_y - log_phi - tf.math.log(q)
    at, shape = tf.stop_gradient(log_peak), tf.stop_gradient(a)
    jet = _log_sum(at, shape)
    x, z = log_peak - at, a - shape
    # products, not powers: the third derivative of tf.pow(x, 2) at 0 is 0 * inf
    by_peak = jet["10"] + x * (0.5 * jet["20"] + x * jet["30"] / 6.0 + 0.5 * z * jet["21"])
    by_shape = jet["01"] + z * (0.5 * jet["02"] + z * jet["03"] / 6.0 + 0.5 * x * jet["12"])
    value = jet["00"] + x * by_peak + z * by_shape + x * z * jet["11"]
    return value + 0.5 * tf.math.log(a) - _LOG_2PI


def _log_sum(log_peak: Tensor, a: Tensor) -> dict[str, Tensor]:
    """L = log sum_j exp(h_j) without the constant of h, and its derivatives; (n_obs,) each.

    "21" is the second derivative in log m and first in a. They are cumulants of the derivatives of
    h under the weights exp(h_j) / sum: a third-order polynomial in the parameters that carries them
    is differentiable three times at a fraction of the cost of differentiating the sum. The sums
    run over blocks of terms, as many as the row with most of them needs, and are centred at the
    row's largest term, so that a sum of one term has cumulants of exactly zero.
    """
    terms = _Terms.of(log_peak, a)
    n_blocks = tf.reduce_max(terms.count) / BLOCK_OF_TERMS
    start = (tf.zeros([], a.dtype), tf.zeros_like(a)[:, None] * tf.zeros([1, _N_SUMS], a.dtype))
    _, sums = tf.while_loop(
        lambda block, _: block < n_blocks,
        lambda block, sums: (block + 1.0, sums + terms.sums(block * BLOCK_OF_TERMS)),
        start,
    )
    total, *moments = tf.unstack(sums, axis=1)
    u, v, uu, uv, vv, uuu, uuv, uvv, vvv, c, cu, cv, d = (m / total for m in moments)
    m, scale = tf.exp(log_peak), 1.0 + a
    # cumulants from moments about the largest term
    var_u, cov, var_v = uu - u * u, uv - u * v, vv - v * v
    return {
        "00": terms.largest + tf.math.log(total) + tf.math.log(terms.stride),
        "10": terms.by_peak + u,
        "01": terms.by_shape + v,
        "20": var_u - scale * m,
        "11": cov + (terms.by_peak + u) / scale,
        "02": var_v + c,
        "30": uuu - 3.0 * u * uu + 2.0 * u**3 - scale * m,
        "21": uuv - v * uu - 2.0 * u * uv + 2.0 * u * u * v + 2.0 * var_u / scale - m,
        "12": uvv - u * vv - 2.0 * v * uv + 2.0 * u * v * v + 2.0 * cov / scale + cu - c * u,
        "03": vvv - 3.0 * v * vv + 2.0 * v**3 + 3.0 * (cv - c * v) + d,
    }


@dataclass(frozen=True)
class _Terms:
    """Terms j of the series of each row and what is summed over them; (n_obs,) each.

    Terms are told by their distance from m, j - m: next to a huge m, j has no digits for it.

    Attributes
    ----------
    log_peak, shape : Tensor
        log m and a.
    lowest, stride, count : Tensor
        The distances are lowest + stride (0, 1, ..., count - 1).
    largest, by_peak, by_shape : Tensor
        h and its derivatives at the term next to m.
    """

    log_peak: Tensor
    shape: Tensor
    lowest: Tensor
    stride: Tensor
    count: Tensor
    largest: Tensor
    by_peak: Tensor
    by_shape: Tensor

    @classmethod
    def of(cls, log_peak: Tensor, a: Tensor) -> _Terms:
        """Where the series of a row begins, ends and is largest."""
        m = tf.exp(log_peak)
        width = tf.sqrt(m / (1.0 + a))
        # with a stride, nothing may be left below the first term
        smooth = m * (1.0 + a) > SMOOTH_FROM
        stride = tf.where(smooth, tf.maximum(PER_WIDTH * width, 1.0), tf.ones_like(m))
        first = tf.maximum(tf.round(m - WIDTHS_BELOW * width), 1.0)
        lowest = tf.where(smooth, tf.maximum(-WIDTHS_BELOW * width, 1.0 - m), first - m)
        highest = WIDTHS_ABOVE * width + FEW_TERMS
        count = tf.minimum(tf.math.ceil((highest - lowest) / stride), MAX_TERMS)
        below = tf.maximum(tf.floor(m), 1.0) - m
        above = below + 1.0
        nearer = _bump(below, log_peak, m) <= _bump(above, log_peak, m)
        centre = tf.where(smooth, tf.zeros_like(m), tf.where(nearer, below, above))
        h, u, v, _, _ = _term(centre, log_peak, m, a)
        return cls(log_peak, a, lowest, stride, count, h, u, v)

    def sums(self, first: Tensor) -> Tensor:
        """Sums over terms first, ..., first + BLOCK_OF_TERMS - 1: of the weights and moments."""
        place = first + tf.range(BLOCK_OF_TERMS, dtype=self.shape.dtype)
        log_peak, a = self.log_peak[:, None], self.shape[:, None]
        distance = self.lowest[:, None] + self.stride[:, None] * place
        h, u, v, c, d = _term(distance, log_peak, tf.exp(log_peak), a)
        inside = place < self.count[:, None]
        weight = tf.exp(tf.where(inside, h - self.largest[:, None], -np.inf))
        u, v = u - self.by_peak[:, None], v - self.by_shape[:, None]
        uu, uv, vv = u * u, u * v, v * v
        columns = (u, v, uu, uv, vv, uu * u, uu * v, u * vv, vv * v, c, c * u, c * v, d)
        moments = [tf.reduce_sum(weight * column, axis=1) for column in columns]
        return tf.stack([tf.reduce_sum(weight, axis=1), *moments], axis=1)


def _term(distance: Tensor, log_m: Tensor, m: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    """h_j without its constant; its derivatives in log m, in a, and twice and thrice in a."""
    bump, j = _bump(distance, log_m, m), m + distance
    at = j * a
    h = -(1.0 + a) * bump - stirling_remainder(j) - stirling_remainder(at)
    by_shape = -bump - j * stirling_derivative(at, 1)
    curved = -(j * j) * stirling_derivative(at, 2)
    third = -(j * j * j) * stirling_derivative(at, 3)
    return h, (1.0 + a) * distance, by_shape, curved, third


def _bump(distance: Tensor, log_m: Tensor, m: Tensor) -> Tensor:
    """j log(j / m) - j + m at j = m + distance, where m > 1 without its cancellation at j = m."""
    small, j = log_m < 0.0, m + distance
    far = j * (tf.math.log(j) - log_m) - distance
    delta = distance / tf.where(small, tf.ones_like(m), m)
    series = tf.zeros_like(delta)
    for k in range(SERIES_TERMS, 1, -1):
        series = (-1.0) ** k / (k * (k - 1.0)) + delta * series
    near = tf.where(
        tf.abs(delta) < SERIES_BELOW,
        delta * delta * series,
        (1.0 + delta) * tf.math.log1p(delta) - delta,
    )
    return tf.where(small, far, m * near)


def _log(x: Vector) -> Vector:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(x, 0.0)))
