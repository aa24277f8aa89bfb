"""Pooling the members of an ensemble by Rubin's rules (METHODS 10).

    estimate   mean over m of q_m
    total      T = mean over m of U_m + (1 + 1/M) B,   B = sum_m (q_m - q)(q_m - q)' / (M - 1)

U_m is the covariance that member m gives for q_m, B the covariance between members: for one member,
and where all agree, T = U. The same rule serves coefficients, effects at the points of a grid and
the predictors of each row. Tests of smooths are those of the median statistic (Bolt et al. 2022).

References: Rubin (1987), Multiple Imputation for Nonresponse in Surveys, section 3.1; Bolt,
MaWhinney, Pattee, Erlandson, Badesch & Peterson (2022), doi:10.1186/s12874-022-01613-w.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from deepregress.effects import Effect, simultaneous_quantile
from deepregress.estimates import Estimates
from deepregress.inference.covariance import normal_quantile
from deepregress.linalg import Array, Matrix, Vector
from deepregress.printing import LEGEND, printed


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of all members, those that a member lacks being zero.

    Parameters
    ----------
    each : Matrix, (M, n_coef)
    within : Matrix, (n_coef, n_coef)
        Mean of the members' covariances.
    index : Index
        (parameter, name).
    """

    each: Matrix
    within: Matrix
    index: pd.Index

    @classmethod
    def of(cls, members: Sequence[Estimates]) -> Coefficients:
        """Align the members by name: a network without effect has no multiplier."""
        index = max((model.coef.index for model in members), key=len)
        for model in members:
            index = index.append(model.coef.index.difference(index, sort=False))
        each = np.stack([model.coef.reindex(index, fill_value=0.0) for model in members])
        within = np.zeros((len(index), len(index)))
        for model in members:
            place = index.get_indexer(model.coef.index)
            within[np.ix_(place, place)] += model.cov.to_numpy() / len(members)
        return cls(each, within, index)

    @property
    def mean(self) -> Vector:
        """Their means, (n_coef,)."""
        return np.asarray(self.each.mean(axis=0))

    @property
    def between(self) -> Matrix:
        """(1 + 1/M) B, (n_coef, n_coef)."""
        away = deviations(self.each)
        return np.asarray(away.T @ away)

    @property
    def total(self) -> Matrix:
        """T, (n_coef, n_coef)."""
        return self.within + self.between


def deviations(each: Array) -> Array:
    """Scaled deviations D (M, ...) of the members' values from their mean: D'D = (1 + 1/M) B."""
    n = len(each)
    if n == 1:
        return np.zeros_like(each)
    return np.asarray((each - each.mean(axis=0)) * np.sqrt((1.0 + 1.0 / n) / (n - 1)))


def total_variance(values: Array, variances: Array) -> Array:
    """T of numbers with their variances, (M, ...) each; the result is (...)."""
    return np.asarray(variances.mean(axis=0) + (deviations(values) ** 2).sum(axis=0))


def total_covariance(eta: Array, covs: Iterable[Array]) -> Array:
    """T of the predictors (M, n_obs, U) of each row, (n_obs, U, U)."""
    away = deviations(eta)
    within = sum(covs, start=np.zeros(())) / len(eta)
    return np.asarray(within + np.einsum("miu,miv->iuv", away, away))


def effect_table(
    table: pd.DataFrame,
    each: Sequence[tuple[Effect, Estimates]],
    *,
    level: float,
    simultaneous: bool,
) -> pd.DataFrame:
    """The covariates of a term with columns effect, se, lower, upper."""
    values = np.stack([effect.value for effect, _ in each])
    given = [(effect, model._predictors.conditional) for effect, model in each]
    variances = np.stack([effect.se(V) ** 2 for effect, V in given])
    se = np.sqrt(total_variance(values, variances))
    width = normal_quantile(level) * se
    if simultaneous:
        roots = [
            effect.root(model._predictors.conditional) / np.sqrt(len(each))
            for effect, model in each
        ]
        root = np.hstack([*roots, deviations(values).T] if len(each) > 1 else roots)
        width = simultaneous_quantile(root, se, level) * se
    value = values.mean(axis=0)
    return table.assign(effect=value, se=se, lower=value - width, upper=value + width)


# -- summary ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EnsembleSummary:
    """Summary of an ensemble; `print` shows its tables.

    Parameters
    ----------
    head : str
        Family, formulas, number of members.
    parametric : DataFrame
        estimate, std_error (of T), statistic, p_value, and the share of T between members, by
        (parameter, name).
    smooth : DataFrame
        Mean edf, and median ref_df, statistic and p_value, by (parameter, term).
    deep : DataFrame
        Means of multiplier, effect_sd, score_difference and score_se, by (parameter, term).
    test_names : pair of str
        Names of the statistics of coefficients and of smooths.
    """

    head: str
    parametric: pd.DataFrame
    smooth: pd.DataFrame
    deep: pd.DataFrame
    test_names: tuple[str, str]

    @classmethod
    def of(cls, members: Sequence[Estimates], pooled: Coefficients) -> EnsembleSummary:
        """Pool the members' tables."""
        each = [model.summary() for model in members]
        df = [own.statistics.residual_df for own in each]
        residual_df = None if None in df else float(np.mean([x for x in df if x is not None]))
        lines = [f"Ensemble of {len(members)} fits, family {members[0].family.name}"]
        lines += [f"  {name}: {text}" for name, text in members[0].formula.items()]
        return cls(
            "\n".join(lines),
            _parametric(each[0].parametric.index, pooled, residual_df),
            _over_members([own.smooth for own in each], {"edf": "mean"}, "median"),
            _over_members([own.deep for own in each], {}, "mean"),
            each[0].test_names,
        )

    def __str__(self) -> str:
        """Return the tables as text."""
        z, chi = self.test_names
        lines = ["", self.head]
        if len(self.parametric):
            header = ["Estimate", "Std. Error", f"{z} value", "Between", f"Pr(>|{z}|)"]
            table = self.parametric[["estimate", "std_error", "statistic", "between", "p_value"]]
            lines += ["", "Parametric coefficients:", *printed(_flat(table), header, joint=2)]
        if len(self.smooth):
            header = ["edf", "Ref.df", chi, "p-value"]
            lines += ["", "Smooth terms (medians of the members' tests):"]
            lines += printed(_flat(self.smooth), header, joint=2)
        if len(self.deep):
            header = ["Multiplier", "SD of effect", "Log score gain", "Std. Error"]
            lines += ["", "Deep terms (means of the members):"]
            lines += printed(_flat(self.deep), header, joint=0)
        total = "Standard errors hold the variance within and between members (Rubin's rules);"
        return "\n".join([*lines, "---", LEGEND, total, "'Between' is the latter's share of it."])

    __repr__ = __str__


def _parametric(index: pd.Index, pooled: Coefficients, residual_df: float | None) -> pd.DataFrame:
    place = pooled.index.get_indexer(index)
    variance = np.diagonal(pooled.total)[place]
    table = pd.DataFrame(
        {"estimate": pooled.mean[place], "std_error": np.sqrt(variance)}, index=index
    )
    table["statistic"] = table["estimate"] / table["std_error"]
    reference = scipy.stats.norm if residual_df is None else scipy.stats.t(residual_df)
    table["p_value"] = 2.0 * reference.sf(table["statistic"].abs())
    table["between"] = np.diagonal(pooled.between)[place] / variance
    return table


def _over_members(
    tables: Sequence[pd.DataFrame], how: dict[str, str], otherwise: str
) -> pd.DataFrame:
    """Tables of one shape, pooled column by column."""
    joined = pd.concat([table.astype(float) for table in tables])
    grouped = joined.groupby(level=["parameter", "term"], sort=False)
    return pd.DataFrame(
        {name: grouped[name].agg(how.get(name, otherwise)) for name in map(str, tables[0])}
    )


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by one label; that of the parameter first, where there are several."""
    several = table.index.get_level_values(0).nunique() > 1
    labels = [f"{parameter}: {term}" if several else term for parameter, term in table.index]
    return table.set_axis(pd.Index(labels), axis=0)
