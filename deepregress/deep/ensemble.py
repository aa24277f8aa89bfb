"""An ensemble of fits that differ in the random numbers of their networks (METHODS 10).

Its response distribution is the equally weighted mixture of the members' (`families.averaged`); its
coefficients and effects are their means, with the variance between members added to the covariance
(`rubin`). The uncertainty of a prediction is that of a common shift of all members' predictors,

    eta_m + delta,  delta ~ N(0, T),  T = mean of Cov(eta_m) + (1 + 1/M) B

so that limits keep the bounds of what they are limits of, and contain the estimate.

A mixture of proportional-odds models is none. With average="transformation" the members' h and
shifts are averaged instead, F((1/M) sum_m h_m(y | x)): their predictors, as h is linear in them.
The ensemble is a model of the same family then, its coefficients the means of the members', and its
log score at least the mean of theirs where F has a log-concave density (Jensen).

References: Lakshminarayanan, Pritzel & Blundell (2017), arXiv:1612.01474; Kook, Goetschi, Baumann,
Hothorn & Sick (2022), arXiv:2205.12729; Rubin (1987).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepregress import effects, grids, quantities, saved
from deepregress.errors import FitError, suggestion
from deepregress.families import Family
from deepregress.families.averaged import averaged
from deepregress.families.ordinal import Ordinal
from deepregress.families.transformation import AUTOREGRESSION, SCALE, Transformation
from deepregress.fitted import Exclude, FittedModel, indexed
from deepregress.groups import members
from deepregress.inference import rubin
from deepregress.linalg import Array, Matrix
from deepregress.prediction import Labels

MIXTURE, TRANSFORMATION = AVERAGES = ("mixture", "transformation")


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members of one formula and one table; made by `dr.ensemble` and `dr.load`.

    Parameters
    ----------
    members : tuple of FittedModel
    average : {"mixture", "transformation"}
        What is averaged: distributions, or transformations and shifts.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> training = dr.Training(epochs=3, folds=2)
    >>> formula = "foodexp ~ income + deep(income)"
    >>> ensemble = dr.ensemble(
    ...     formula, engel, members=2, training=training, seed=1, verbose=0
    ... )
    >>> scores = [member.log_score(engel) for member in ensemble.members]
    >>> bool(ensemble.log_score(engel) >= sum(scores) / 2 - 1e-12)
    True
    """

    members: tuple[FittedModel, ...] = field(repr=False)
    average: str = MIXTURE

    def __post_init__(self) -> None:
        """Refuse an ensemble of nothing, or of different models."""
        if not self.members:
            raise FitError("an ensemble needs one member at least")
        first = self.members[0]
        for model in self.members[1:]:
            if (model.formula, model.family) != (first.formula, first.family):
                raise FitError("the members of an ensemble have one formula and one family")
        if self.average not in AVERAGES:
            hint = suggestion(str(self.average), AVERAGES)
            raise FitError(f"average={self.average!r} is not one of {', '.join(AVERAGES)}{hint}")
        if self.average == TRANSFORMATION:
            _check_linear(first)

    # -- estimates ---------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """Family of each member."""
        return self.members[0].family

    @property
    def formula(self) -> dict[str, str]:
        """Formula of each parameter as text."""
        return dict(self.members[0].formula)

    @property
    def nobs(self) -> int:
        """Number of training rows."""
        return self.members[0].nobs

    @property
    def converged(self) -> bool:
        """Whether the structured solver of every member reached its criterion."""
        return all(model.converged for model in self.members)

    @cached_property
    def coef(self) -> pd.Series:
        """Means of the members' coefficients by (parameter, name)."""
        return pd.Series(self._pooled.mean, index=self._pooled.index, name="coef")

    @cached_property
    def cov(self) -> pd.DataFrame:
        """Total covariance of the coefficients: within members plus between them."""
        return pd.DataFrame(self._pooled.total, self._pooled.index, self._pooled.index)

    @cached_property
    def cov_between(self) -> pd.DataFrame:
        """The share of `cov` that comes from between members, (1 + 1/M) B."""
        return pd.DataFrame(self._pooled.between, self._pooled.index, self._pooled.index)

    @cached_property
    def std_error(self) -> pd.Series:
        """Square roots of the diagonal of `cov`."""
        values = np.sqrt(np.diagonal(self._pooled.total))
        return pd.Series(values, index=self._pooled.index, name="std_error")

    @cached_property
    def edf(self) -> pd.Series:
        """Mean effective degrees of freedom by (parameter, term)."""
        total = sum((model.edf for model in self.members[1:]), start=self.members[0].edf)
        return (total / len(self.members)).rename("edf")

    @property
    def edf_total(self) -> float:
        """Mean of the members' total degrees of freedom."""
        return float(np.mean([model.edf_total for model in self.members]))

    @cached_property
    def history(self) -> pd.DataFrame:
        """Epochs of training of all members; `member` says whose."""
        tables = [model.history.assign(member=m) for m, model in enumerate(self.members)]
        return pd.concat(tables, ignore_index=True)

    def summary(self) -> rubin.EnsembleSummary:
        """Tables of coefficients, smooths and networks, pooled over the members."""
        return rubin.EnsembleSummary.of(self.members, self._pooled)

    def with_uncertainty(
        self, networks: str = "conditional", *, samples: int = 50, seed: int = 0
    ) -> Ensemble:
        """The same ensemble with the uncertainty of its members' networks in their covariances.

        That between members is added to it. Arguments are those of `FittedModel.with_uncertainty`;
        `dr.ensemble` gives cross-fitted members the kind "members", without which intervals of
        predictors are too short (`benchmarks/ensemble.py coverage`).
        """
        return Ensemble(
            tuple(
                model.with_uncertainty(networks, samples=samples, seed=seed)
                for model in self.members
            ),
            self.average,
        )

    def partial_effect(
        self,
        term: str,
        parameter: str | None = None,
        *,
        grid: grids.Grid = None,
        level: float = 0.95,
        simultaneous: bool = False,
    ) -> pd.DataFrame:
        """Mean effect of one term, its variance within members plus that between them.

        Arguments and result are those of `FittedModel.partial_effect`.
        """
        quantities.check_level(level, "level")
        first = self.members[0]
        place = grids.find(first._predictors, term, parameter)
        shown = grids.shown_at(
            first._predictors, place, first._profile, training=first.frame, grid=grid
        )
        each = [
            (effects.effect(model._predictors, place, shown.frame, model._profile), model)
            for model in self.members
        ]
        return rubin.effect_table(shown.table, each, level=level, simultaneous=simultaneous)

    # -- predictions -------------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        which: str = "mean",
        *,
        at: Any = None,
        se: bool = False,
        interval: float | None = None,
        exclude: Exclude = None,
        parameter: str | None = None,
    ) -> Any:
        """Predict from the mixture of the members' distributions, or from the averaged model.

        Arguments and result are those of `FittedModel.predict`. "params", "linear" and "terms" are
        means over the members; standard errors and limits hold the variance between them, and what
        the members' own covariances hold. They are about the mean of the estimator: the bias of
        networks that learned part of what there is, is in no variance.
        """
        first = self.members[0]
        quantities.check(
            which,
            at=at,
            uncertain=se or interval is not None,
            parameter=parameter,
            further=tuple(self.family.further),
        )
        quantities.check_level(interval, "interval")
        excluded = first._predictors.excluded(exclude)
        chosen = first._predictors.of_parameter(parameter)
        error = quantities.Error(se, interval)
        if which == "terms":
            return indexed(self._terms(newdata, chosen, excluded, error), newdata)
        each = self._eta(newdata, excluded)
        cov = self._cov(newdata, each, excluded) if error.wanted else None
        eta = self._joined(each)
        if which in quantities.OF_PREDICTORS:
            answers = [
                quantities.Answer(self.family, one, cov, error).of(which, chosen, parameter)
                for one in (each if self.average == MIXTURE else [eta])
            ]
            return indexed(sum(answers[1:], start=answers[0]) / len(answers), newdata)
        if cov is not None and self.average == MIXTURE:
            cov = np.tile(cov, (1, len(each), len(each)))
        return self._mixed._answer(newdata, which, (eta, cov), at=at, error=error)

    def distribution(self, newdata: Any = None) -> Any:
        """The distribution of each row, a `tfd.Distribution` of batch shape (n_obs,)."""
        return self._mixture.distribution(self._joined(self._eta(newdata, frozenset())))

    def sample(self, newdata: Any = None, n: int = 1, *, seed: int = 0) -> Array:
        """Draws from the distribution of each row, (n, n_obs)."""
        eta = self._joined(self._eta(newdata, frozenset()))
        return self._mixture.sample(eta, n, seed=seed)

    def log_score(self, newdata: Any = None) -> float:
        """Mean log density of the responses under the ensemble, natural log; larger is better.

        Of the training rows (weighted as in the fit) by default.
        """
        eta = self._joined(self._eta(newdata, frozenset()))
        return self._mixed._score(newdata, eta)

    def save(self, path: str | Path, *, data: bool = True) -> None:
        """Write the ensemble to a file; `dr.load` gives the same predictions bit for bit.

        Parameters
        ----------
        path : str or Path
        data : bool
            Whether the training rows, once for all members, go along.
        """
        contents = [model._content(data=data) for model in self.members]
        saved.write_several(path, contents, average=self.average)

    # -- members side by side ----------------------------------------------------------------------

    @cached_property
    def _pooled(self) -> rubin.Coefficients:
        return rubin.Coefficients.of(self.members)

    @cached_property
    def _mixture(self) -> Family:
        """Family of the ensemble, whose predictors are those of `_joined`."""
        if self.average == TRANSFORMATION:
            return self.family
        return averaged(self.family, len(self.members))

    @cached_property
    def _mixed(self) -> FittedModel:
        """The first member with the mixture for its family: it answers for given predictors."""
        first = self.members[0]
        return dataclasses.replace(first, family=self._mixture, profile=first._profile)

    def _eta(self, newdata: Any, excluded: Labels) -> Matrix:
        """Predictors of all members, (M, n_obs, U)."""
        each = self.members
        return np.stack(
            [model._eta(newdata, model._rows(newdata, excluded), excluded) for model in each]
        )

    def _joined(self, each: Matrix) -> Matrix:
        """Predictors of the ensemble: members side by side, or their means."""
        return each.mean(axis=0) if self.average == TRANSFORMATION else np.hstack(list(each))

    def _cov(self, newdata: Any, eta: Matrix, excluded: Labels) -> Matrix:
        """T of each row, (n_obs, U, U)."""
        covs = (
            model._predictors.eta_cov(model._rows(newdata, excluded), excluded)
            for model in self.members
        )
        return rubin.total_covariance(eta, covs)

    def _terms(
        self, newdata: Any, chosen: Sequence[int], excluded: Labels, error: quantities.Error
    ) -> pd.DataFrame:
        own = quantities.Error(error.wanted, None)
        tables = [
            effects.terms_table(
                model._predictors,
                chosen,
                model._rows(newdata, excluded),
                model._profile,
                excluded=excluded,
                error=own,
            )
            for model in self.members
        ]
        if not error.wanted:
            return sum(tables[1:], start=tables[0]) / len(tables)
        columns: dict[tuple[str, ...], Array] = {}
        for label in tables[0].columns:
            *key, kind = tuple(label)
            if kind == "se":
                continue
            values = np.stack([table[(*key, "estimate")] for table in tables])
            variances = np.stack([table[(*key, "se")] ** 2 for table in tables])
            total, value = np.sqrt(rubin.total_variance(values, variances)), values.mean(axis=0)
            table = error.table(value, total, error.symmetric(value, total))
            columns |= {(*key, str(name)): table[name].to_numpy() for name in table}
        return quantities.by_key(columns)


def _check_linear(model: FittedModel) -> None:
    """Refuse an average of transformations that are not linear in the predictors.

    Raises
    ------
    FitError
        The family has no transformation, or a scale or autoregression multiplies it.
    """
    if not isinstance(model.family, Transformation | Ordinal):
        raise FitError(
            f"average={TRANSFORMATION!r} is for family 'ordinal' and transformation models, not "
            f"{model.family.name!r}"
        )
    for name in (SCALE, *members(AUTOREGRESSION, model.designs)):
        design = model.designs.get(name)
        if design is not None and (design.n_coef or design.networks):
            raise FitError(f"average={TRANSFORMATION!r}: {name!r} multiplies the transformation")
