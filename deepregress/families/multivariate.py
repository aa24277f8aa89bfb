"""Families of a vector response, cbind(y, z) or a column of arrays (METHODS 7).

mvn: each marginal mean and standard deviation has a predictor, and each pair of elements one for

    correlation[i,j] = cor(y_i, y_j | y_1, .., y_(i-1)),   i < j,   z = tanh(eta)

the correlation given the elements before i: of the first element with the others the correlation
itself, so for two elements there is nothing else. Any such numbers in (-1, 1) make one correlation
matrix R = L L', whatever the covariates, by

    L_jk = z_kj prod_(m<k) sqrt(1 - z_mj^2),   L_jj = prod_(m<j) sqrt(1 - z_mj^2),
    log f = -sum_j (u_j^2 / 2 + log scale_j + log L_jj + log(2 pi) / 2),   L u = (y - loc) / scale.

References: Lewandowski, Kurowicka & Joe (2009), doi:10.1016/j.jmva.2009.04.008 (partial
correlations); Aitchison (1986), The Statistical Analysis of Compositional Data (Dirichlet).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy.special
import tensorflow as tf
import tensorflow_probability as tfp

from deepregress.bijectors import Tensor, link
from deepregress.errors import ResponseError
from deepregress.families.base import Family, Parameter, Value, register
from deepregress.groups import element_names, member
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

tfd = tfp.distributions

LOG_2PI = math.log(2.0 * math.pi)
SIMPLEX_ROUNDING = 1e-6
"""By how much the shares of a row may miss 1: tables are rounded."""


@dataclass(frozen=True)
class VectorFamily(Family):
    """Distribution of a vector; `for_response` finds its length.

    Attributes
    ----------
    elements : tuple of str
        Names of the elements of the response.
    """

    elements: tuple[str, ...] = ()

    multivariate: ClassVar[bool] = True
    further: ClassVar[Mapping[str, bool]] = {"covariance": False, "correlation": False}

    def for_response(self, response: Response) -> Family:
        if response.lower.ndim != 2 or response.lower.shape[1] < 2:
            raise ResponseError(
                f"{response.label!r} is one number per row; family {self.name!r} needs "
                f"{self.support}"
            )
        names = element_names(response.label, response.lower.shape[1])
        return replace(self, elements=names, parameters=self._of_elements(names))

    def _of_elements(self, names: Sequence[str]) -> tuple[Parameter, ...]:
        """A member of every group for each element."""
        return tuple(
            Parameter(member(group.name, name), group.link, f"{group.about}, of {name}")
            for group in self.parameters
            for name in names
        )

    def _group(self, values: Mapping[str, Value], group: str) -> list[Value]:
        return [values[member(group, name)] for name in self.elements]

    def mean(self, eta: Matrix) -> Matrix:
        return np.asarray(self.distribution(eta).mean().numpy())

    def variance(self, eta: Matrix) -> Matrix:
        return np.asarray(np.einsum("ijj->ij", self.covariance(eta)))

    def covariance(self, eta: Matrix) -> Array:
        """Cov(y), (n_obs, d, d)."""
        return np.asarray(self.distribution(eta).covariance().numpy())

    def further_quantity(self, which: str, eta: Matrix, rows: Mapping[str, Array]) -> Array:
        covariance = self.covariance(eta)
        if which == "covariance":
            return covariance
        sd = np.sqrt(np.einsum("ijj->ij", covariance))
        return np.asarray(covariance / (sd[:, :, None] * sd[:, None, :]))


@register
@dataclass(frozen=True)
class MultivariateNormal(VectorFamily):
    """Multivariate normal distribution by marginal means, standard deviations and correlations.

    y = loc + scale * (L u), u standard normal; mean loc, covariance diag(scale) L L' diag(scale).
    See the module for L and the meaning of the correlations.
    """

    name: ClassVar[str] = "mvn"
    about: ClassVar[str] = "multivariate normal: means, standard deviations, (partial) correlations"
    support: ClassVar[str] = "vectors of two or more numbers, cbind(y, z)"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (
            Parameter("loc", link("identity"), "mean"),
            Parameter("scale", link("log"), "standard deviation"),
            Parameter("correlation", link("atanh"), "correlation given the elements before both"),
        )

    def _of_elements(self, names: Sequence[str]) -> tuple[Parameter, ...]:
        loc, scale, correlation = self.parameters
        means = [
            Parameter(member(group.name, name), group.link, f"{group.about} of {name}")
            for group in (loc, scale)
            for name in names
        ]
        pairs = [
            Parameter(
                member(correlation.name, _pair(names, i, j)),
                correlation.link,
                f"correlation of {names[i]} and {names[j]}"
                + (f" given {', '.join(names[:i])}" if i else ""),
            )
            for i, j in _pairs(len(names))
        ]
        return (*means, *pairs)

    def density(self, values: Mapping[str, Value]) -> Any:
        below, log_diagonal = self._cholesky(values)
        scale = self._stacked([v.value for v in self._group(values, "scale")])
        L = tf.linalg.set_diag(below, tf.exp(log_diagonal))
        loc = self._stacked([v.value for v in self._group(values, "loc")])
        return tfd.MultivariateNormalTriL(loc, scale[:, :, None] * L)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        u, log_diagonal = self._standardised(values, y)
        log_scale = self._stacked([v.log for v in self._group(values, "scale")])
        return -tf.reduce_sum(0.5 * (u * u + LOG_2PI) + log_scale + log_diagonal, axis=1)

    def _standardised(self, values: Mapping[str, Value], y: Tensor) -> tuple[Tensor, Tensor]:
        """u with L u = (y - loc) / scale, independent and standard normal, and log L_jj."""
        below, log_diagonal = self._cholesky(values)
        loc = self._stacked([v.value for v in self._group(values, "loc")])
        log_scale = self._stacked([v.log for v in self._group(values, "scale")])
        rest, inverse = (y - loc) * tf.exp(-log_scale), tf.exp(-log_diagonal)
        u: list[Tensor] = []
        for k in range(len(self.elements)):
            u.append(rest[:, k] * inverse[:, k])
            rest -= below[:, :, k] * u[k][:, None]
        return self._stacked(u), log_diagonal

    def _cholesky(self, values: Mapping[str, Value]) -> tuple[Tensor, Tensor]:
        """L below its diagonal, (n_obs, d, d), and the logarithms of its diagonal, (n_obs, d)."""
        d = len(self.elements)
        pairs = _pairs(d)
        place = np.zeros((len(pairs), d * d))
        place[range(len(pairs)), [j * d + i for i, j in pairs]] = 1.0
        z = [values[member("correlation", _pair(self.elements, *pair))] for pair in pairs]
        square = (-1, d, d)
        below = tf.reshape(self._stacked([each.value for each in z]) @ place, square)
        log_left = tf.reshape(0.5 * self._stacked([each.complement for each in z]) @ place, square)
        # log_left[j, k] = sum over m < k of log sqrt(1 - z_jm^2)
        log_left = log_left @ tf.constant(np.triu(np.ones((d, d)), 1))
        return below * tf.exp(log_left), tf.linalg.diag_part(log_left)

    @staticmethod
    def _stacked(columns: Sequence[Tensor]) -> Tensor:
        return tf.stack(columns, axis=1)

    def in_support(self, y: Array) -> Array:
        return np.asarray(np.isfinite(y).all(axis=1))

    def start_values(self, y: Matrix, weights: Vector) -> Mapping[str, float]:
        covariance = np.cov(y.T, aweights=weights, ddof=0)
        sd = np.sqrt(np.diagonal(covariance))
        found = {member("loc", n): m for n, m in zip(self.elements, weights @ y, strict=True)}
        found = {name: float(total / weights.sum()) for name, total in found.items()}
        found |= {member("scale", n): float(s) for n, s in zip(self.elements, sd, strict=True)}
        L = np.linalg.cholesky(covariance / np.outer(sd, sd))
        for i, j in _pairs(len(sd)):
            left = np.sqrt(1.0 - np.sum(L[j, :i] ** 2))
            found[member("correlation", _pair(self.elements, i, j))] = float(L[j, i] / left)
        return found

    def check(self, response: Response) -> None:
        super().check(response)
        y = response.lower - response.lower.mean(axis=0)
        R = np.corrcoef(y.T)
        if np.linalg.eigvalsh(R)[0] < len(R) * np.finfo(float).eps * 10:
            raise ResponseError(
                f"{response.label!r}: one element is a linear function of the others, so that "
                "their joint distribution has no density; leave one of them out"
            )

    def deviance(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """(y - loc)' Cov^-1 (y - loc), the saturated means being the responses."""
        return np.asarray(np.sum(self.scores(rows["lower"], eta) ** 2, axis=1))

    def scores(self, y: Array, eta: Matrix) -> Matrix:
        """u = L^-1 ((y - loc) / scale), (n_obs, d)."""
        values = self.values(tf.convert_to_tensor(eta, tf.float64))
        u, _ = self._standardised(values, tf.convert_to_tensor(y, tf.float64))
        return np.asarray(u.numpy())


@register
@dataclass(frozen=True)
class Dirichlet(VectorFamily):
    """Dirichlet distribution of shares that add up to 1.

    f(y) = Gamma(A) prod_k y_k^(a_k - 1) / Gamma(a_k),  A = sum_k a_k the precision;
    mean a_k / A, variance a_k (A - a_k) / (A^2 (A + 1)).
    """

    name: ClassVar[str] = "dirichlet"
    about: ClassVar[str] = "shares that add up to 1, mean concentration / their sum"
    support: ClassVar[str] = "positive shares that add up to 1, cbind(a, b, c)"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return (Parameter("concentration", link("log"), "concentration"),)

    def density(self, values: Mapping[str, Value]) -> Any:
        given = self._group(values, "concentration")
        return tfd.Dirichlet(tf.stack([a.value for a in given], axis=1))

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        a = tf.stack([each.value for each in self._group(values, "concentration")], axis=1)
        normaliser = tf.math.lgamma(tf.reduce_sum(a, axis=1)) - tf.reduce_sum(
            tf.math.lgamma(a), axis=1
        )
        return normaliser + tf.reduce_sum((a - 1.0) * tf.math.log(y), axis=1)

    def in_support(self, y: Array) -> Array:
        total = np.abs(y.sum(axis=1) - 1.0) <= SIMPLEX_ROUNDING
        return np.asarray(np.isfinite(y).all(axis=1) & (y > 0).all(axis=1) & total)

    def start_values(self, y: Matrix, weights: Vector) -> Mapping[str, float]:
        mean = np.average(y, axis=0, weights=weights)
        variance = np.average((y - mean) ** 2, axis=0, weights=weights)
        # var = m (1 - m) / (A + 1); the elements' values of A in the geometric mean
        precision = np.exp(np.mean(np.log(mean * (1.0 - mean) / variance)))
        a = mean * max(precision - 1.0, 1.0)
        return {
            member("concentration", n): float(a_k) for n, a_k in zip(self.elements, a, strict=True)
        }

    def scores(self, y: Array, eta: Matrix) -> Matrix:
        """Normal scores of y_k / (1 - y_1 - .. - y_(k-1)), independent beta variables; d - 1."""
        a = np.column_stack(list(self.parameters_at(eta).values()))
        # what is left for an element and those after it, from the small end: no cancellation
        left = np.cumsum(y[:, ::-1], axis=1)[:, ::-1]
        rest = np.cumsum(a[:, ::-1], axis=1)[:, ::-1]
        share = y[:, :-1] / left[:, :-1]
        above = left[:, 1:] / left[:, :-1]
        low = scipy.special.betainc(a[:, :-1], rest[:, 1:], share)
        high = scipy.special.betainc(rest[:, 1:], a[:, :-1], above)
        lower_half = low < high
        z = scipy.special.ndtri(np.where(lower_half, low, high))
        return np.asarray(np.where(lower_half, z, -z))


def _pairs(d: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(d) for j in range(i + 1, d)]


def _pair(names: Sequence[str], i: int, j: int) -> str:
    return f"{names[i]},{names[j]}"
