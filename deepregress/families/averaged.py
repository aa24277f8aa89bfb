"""The distribution of an ensemble: the equally weighted mixture of its members' (METHODS 10).

    f(y) = 1/M sum_m f(y; eta_m),   F(y) = 1/M sum_m F(y; eta_m),   quantiles: the root of F(q) = p

All members are of one family; eta (n_obs, M U) has their predictors next to each other, followed by
what is known of each row. The quantile of the mixture lies between the smallest and the largest of
the members' quantiles, which are its bracket.

    mean E y = 1/M sum_m mu_m         variance 1/M sum_m v_m + 1/M sum_m (mu_m - E y)^2

By Jensen's inequality -log f(y) is at most the mean of the members' -log f_m(y).

Reference: Lakshminarayanan, Pritzel & Blundell (2017), arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import scipy.optimize.elementwise
import scipy.special
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.errors import FamilyError
from deepregress.families import numerical
from deepregress.families.base import Family, Parameter, Value, family
from deepregress.families.ordered import QUANTITIES, of_classes
from deepregress.groups import member
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True)
class Averaged(Family):
    """Equally weighted mixture of M distributions of one family; made by `averaged`.

    Attributes
    ----------
    base : Family
    n_members : int
        M.
    """

    base: Family = field(default_factory=lambda: family("normal"))
    n_members: int = 1

    name: ClassVar[str] = "averaged"
    about: ClassVar[str] = "equally weighted mixture of one family at several predictors"
    support: ClassVar[str] = "that of the family"

    @classmethod
    def default_parameters(cls) -> tuple[Parameter, ...]:
        return family("normal").parameters

    @property
    def discrete(self) -> bool:  # type: ignore[override]
        return self.base.discrete

    @property
    def bounds(self) -> tuple[float, float]:  # type: ignore[override]
        return self.base.bounds

    @property
    def known(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.base.known

    @property
    def multivariate(self) -> bool:  # type: ignore[override]
        return self.base.multivariate

    @property
    def takes_levels(self) -> bool:  # type: ignore[override]
        return self.base.takes_levels

    @property
    def elements(self) -> tuple[str, ...]:
        return self.base.elements

    @property
    def further(self) -> Mapping[str, bool]:  # type: ignore[override]
        return self.base.further

    def classes(self, levels: tuple[str, ...] | None) -> tuple[tuple[str, ...], Vector]:
        return self.base.classes(levels)

    def in_support(self, y: Array) -> Array:
        return self.base.in_support(y)

    # -- all members in one call of the family -----------------------------------------------------

    def _rows(self, eta: Matrix) -> Matrix:
        """Predictors of all members one below the other, with what is known, (M n_obs, ...)."""
        stacked, known = eta[:, : self.n_units], eta[:, self.n_units :]
        each = np.split(stacked, self.n_members, axis=1)
        return np.concatenate([np.column_stack([own, known]) for own in each])

    def _each(self, function: Callable[..., Array], eta: Matrix, *at: Array) -> Array:
        """A function of the family for every member, (M, n_obs, ...)."""
        columns = [np.broadcast_to(np.asarray(a), (len(eta), *np.shape(a)[1:])) for a in at]
        tiled = [np.concatenate([column] * self.n_members) for column in columns]
        value = np.asarray(function(*tiled, self._rows(eta)))
        return value.reshape(self.n_members, len(eta), *value.shape[1:])

    def _log_mean(self, function: Callable[..., Array], eta: Matrix, *at: Array) -> Vector:
        each = self._each(function, eta, *at)
        with np.errstate(divide="ignore"):
            return np.asarray(scipy.special.logsumexp(each, axis=0) - np.log(self.n_members))

    # -- the distribution --------------------------------------------------------------------------

    def mean(self, eta: Matrix) -> Vector:
        return np.asarray(self._each(self.base.mean, eta).mean(axis=0))

    def variance(self, eta: Matrix) -> Vector:
        within = self._each(self.base.variance, eta).mean(axis=0)
        if self.takes_levels and self.elements:  # indicators of classes
            p = self.mean(eta)
            return np.asarray(p * (1.0 - p))
        return np.asarray(within + self._each(self.base.mean, eta).var(axis=0))

    def logpdf(self, y: Array, eta: Matrix) -> Vector:
        return self._log_mean(self.base.logpdf, eta, y)

    def logcdf(self, y: Array, eta: Matrix) -> Vector:
        return self._log_mean(self.base.logcdf, eta, y)

    def logsurvival(self, y: Array, eta: Matrix) -> Vector:
        return self._log_mean(self.base.logsurvival, eta, y)

    def cdf(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(self._each(self.base.cdf, eta, y).mean(axis=0))

    def survival(self, y: Array, eta: Matrix) -> Vector:
        return np.asarray(self._each(self.base.survival, eta, y).mean(axis=0))

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
        each = self._each(self.base.quantile, eta, p)
        low, high = each.min(axis=0), each.max(axis=0)
        rows = np.flatnonzero((low < high) & np.isfinite(low) & np.isfinite(high))
        search = self._smallest_count if self.discrete else self._root
        high[rows] = search(low[rows], high[rows], p[rows], eta[rows])
        return np.asarray(high)

    def _excess(self, y: Vector, p: Vector, eta: Matrix) -> Vector:
        """F(y) - p, from the upper tail where p is there."""
        upper = p > 0.5
        return np.where(upper, (1.0 - p) - self.survival(y, eta), self.cdf(y, eta) - p)

    def _root(self, low: Vector, high: Vector, p: Vector, eta: Matrix) -> Vector:
        """F(y) = p, between members' quantiles; one of them where rounding leaves no bracket."""
        below, above = self._excess(low, p, eta), self._excess(high, p, eta)
        found = np.where(below >= 0.0, low, high)
        rows = np.flatnonzero((below < 0.0) & (above > 0.0))

        def excess(y: Vector, which: Array) -> Vector:
            at = which.ravel()
            return self._excess(y.ravel(), p[at], eta[at]).reshape(y.shape)

        if len(rows):
            bracket = (low[rows], high[rows])
            found[rows] = scipy.optimize.elementwise.find_root(excess, bracket, args=(rows,)).x
        return np.asarray(found)

    def _smallest_count(self, low: Vector, high: Vector, p: Vector, eta: Matrix) -> Vector:
        """Smallest y with F(y) >= p, by bisection of whole numbers."""
        low, high = low - 1.0, high.copy()
        while np.any(high - low > 1.0):
            middle = np.floor(0.5 * (low + high))
            reached = self._excess(middle, p, eta) >= 0.0
            high, low = np.where(reached, middle, high), np.where(reached, low, middle)
        return high

    def sample(self, eta: Matrix, n: int, *, seed: int) -> Array:
        draws = self.base.sample(self._rows(eta), n, seed=seed)
        draws = draws.reshape(n, self.n_members, len(eta), *draws.shape[2:])
        chosen = numerical.generator(seed).integers(self.n_members, size=(n, len(eta)))
        return np.asarray(draws[np.arange(n)[:, None], chosen, np.arange(len(eta))])

    def row_log_likelihood(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """l (n,) of exact, censored and truncated rows: means of P above and below the bar."""
        outside = {name: column for name, column in rows.items() if name not in ("entry", "exit")}
        tiled = {
            name: np.concatenate([column] * self.n_members) for name, column in outside.items()
        }
        each = self.base.row_log_likelihood(tiled, self._rows(eta)).reshape(self.n_members, -1)
        total = np.asarray(scipy.special.logsumexp(each, axis=0) - np.log(self.n_members))
        return total - self._log_observable(rows, eta)

    def _log_observable(self, rows: Mapping[str, Array], eta: Matrix) -> Vector:
        """log P(entry < Y <= exit), (n_obs,)."""
        if "exit" not in rows:
            return self.logsurvival(rows["entry"], eta) if "entry" in rows else np.zeros(len(eta))
        below = self.cdf(rows["entry"], eta) if "entry" in rows else 0.0
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.cdf(rows["exit"], eta) - below))

    def further_quantity(
        self, which: str, eta: Matrix, rows: Mapping[str, Array]
    ) -> Array | dict[str, Vector]:
        if which in ("covariance", "correlation"):
            return self._second_moments(which, eta)
        if which in QUANTITIES:
            return of_classes(which, self.mean(eta), self.base.classes(None), rows)
        if which == "gate_prob":
            return self._weighted(which, eta, rows, np.ones((self.n_members, len(eta))))
        if which == "class_prob":
            each = self._each(self.base.logpdf, eta, rows["lower"])
            return self._weighted(which, eta, rows, np.exp(each - each.max(axis=0)))
        raise FamilyError(
            f"the mixture of an ensemble of family {self.base.name!r} has no {which!r}"
        )

    def _second_moments(self, which: str, eta: Matrix) -> Array:
        def within(rows: Matrix) -> Array:
            return np.asarray(self.base.further_quantity("covariance", rows, {}))

        means = self._each(self.base.mean, eta)
        away = means - means.mean(axis=0)
        between = np.einsum("mij,mik->ijk", away, away) / self.n_members
        covariance = self._each(within, eta).mean(axis=0) + between
        if which == "covariance":
            return np.asarray(covariance)
        sd = np.sqrt(np.einsum("ijj->ij", covariance))
        return np.asarray(covariance / (sd[:, :, None] * sd[:, None, :]))

    def _weighted(
        self, which: str, eta: Matrix, rows: Mapping[str, Array], weights: Matrix
    ) -> dict[str, Vector]:
        """Tables of the members by class, averaged with weights (M, n_obs)."""
        share = weights / weights.sum(axis=0)
        total: dict[str, Vector] = {}
        for m, own in enumerate(np.split(self._rows(eta), self.n_members)):
            for name, column in dict(self.base.further_quantity(which, own, rows)).items():
                total[name] = total.get(name, np.zeros(len(eta))) + share[m] * column
        return total

    # -- as a `tfd.Distribution` -------------------------------------------------------------------

    def _mixed(
        self, function: Callable[..., Tensor], values: Mapping[str, Value], y: Tensor
    ) -> Tensor:
        known = {name: values[name] for name in self.known}
        names = self.base.parameter_names
        parts = [
            function(known | {name: values[member(name, m)] for name in names}, y)
            for m in range(1, self.n_members + 1)
        ]
        return tf.reduce_logsumexp(tf.stack(parts), axis=0) - np.log(self.n_members)

    def log_density(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(self.base.log_density, values, y)

    def log_cdf(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(self.base.log_cdf, values, y)

    def log_survival(self, values: Mapping[str, Value], y: Tensor) -> Tensor:
        return self._mixed(self.base.log_survival, values, y)

    def support_bijector(self, values: Mapping[str, Value]) -> Any:
        own = {name: values[member(name, 1)] for name in self.base.parameter_names}
        return self.base.support_bijector(own | {name: values[name] for name in self.known})


def averaged(base: Family, n_members: int) -> Family:
    """The equally weighted mixture of `n_members` distributions of a family.

    Of one member it is the family itself. A response that is a direction has no mixture here.

    Raises
    ------
    FamilyError
        The response is a direction: means of angles are no angles.
    """
    if n_members == 1:
        return base
    if base.name == "von_mises":
        raise FamilyError("family 'von_mises' has no ensembles: the mean of angles is no direction")
    parameters = tuple(
        replace(p, name=member(p.name, m)) for m in range(1, n_members + 1) for p in base.parameters
    )
    return Averaged(parameters, base, n_members)
