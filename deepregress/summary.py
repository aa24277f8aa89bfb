"""Tables of a fitted model, printed as R's `summary.gam` prints them (METHODS 4).

    parametric coefficients   estimate, standard error (Bayesian covariance), z, or t with the
                              residual degrees of freedom where a constant dispersion is estimated
    smooth terms              edf, Ref.df, Chi.sq or F and p-value of module `significance`
    deep terms                multiplier, sd of the effect, cross-fitted score difference
    below them                deviance explained, adjusted R^2 (module `goodness`), -REML, scale, n

A constant dispersion is not tested: R prints it as "Scale est.".
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats

from deepregress.basis.random_effect import RandomEffect
from deepregress.deep.noise import ABOUT
from deepregress.goodness import Fit, Goodness
from deepregress.groups import groups, members
from deepregress.inference.significance import wald_test
from deepregress.inference.term_tests import term_test
from deepregress.inference.variance_components import RESIDUAL, raw_scale
from deepregress.prediction import Deep
from deepregress.printing import LEGEND, printed, short
from deepregress.sparse.tables import SparseTables
from deepregress.terms.smooth import SmoothColumns

INTERCEPT = "(Intercept)"


def parametric_table(model: Fit, weight: float) -> pd.DataFrame:
    """Unpenalised coefficients with standard errors and tests, by (parameter, name)."""
    df = model.test_df(weight)
    estimate, rows = model.predictors.estimate, []
    errors = np.sqrt(estimate.V.diagonal())
    for unit in model.predictors.units:
        if not model.tested(unit):
            continue
        for block, index in unit.blocks.values():
            if block.kind != "parametric":
                continue
            for j, name in enumerate(block.names, start=unit.columns.start + index.start):
                rows.append((unit.parameter, name, estimate.coef[j], errors[j]))
    table = pd.DataFrame(rows, columns=["parameter", "name", "estimate", "std_error"])
    table["statistic"] = table["estimate"] / table["std_error"]
    reference = scipy.stats.norm if df is None else scipy.stats.t(df)
    table["p_value"] = 2.0 * reference.sf(table["statistic"].abs().to_numpy(dtype=float))
    return table.set_index(["parameter", "name"])


def smooth_table(model: Fit, weight: float) -> pd.DataFrame:
    """Effective degrees of freedom and tests of the smooths, by (parameter, term)."""
    df, rows, index = model.test_df(weight), [], []
    for unit in model.predictors.units:
        for block, columns in unit.blocks.values():
            if block.kind != "smooth":
                continue
            place = np.arange(*columns.indices(columns.stop)) + unit.columns.start
            if np.isin(place, model.solution.absent).all():
                continue
            test = term_test(
                model.predictors, model.solution, model.inference, place=place, residual_df=df
            )
            edf = float(model.inference.edf[place].sum())
            rows.append((edf, test.df, test.statistic, test.p_value))
            index.append((unit.parameter, block.label))
    return _table(rows, index, ["edf", "ref_df", "statistic", "p_value"])


def anova_table(model: Fit, weight: float) -> pd.DataFrame:
    """One test per term, by (parameter, term): Wald of linear terms, smooth tests of smooths."""
    residual_df, rows, index = model.test_df(weight), [], []
    test_name = "Chi.sq" if residual_df is None else "F"
    estimate = model.predictors.estimate
    for unit in model.predictors.units:
        smooths = {label for label, (block, _) in unit.blocks.items() if block.kind == "smooth"}
        sparse = {label for label, (block, _) in unit.blocks.items() if block.kind == "sparse"}
        if not model.tested(unit):
            continue
        for label in unit.design.slices:
            place = np.array(unit.places[label])
            absent = np.isin(place, model.solution.absent).all()
            if label == "(Intercept)" or label in sparse or absent:
                continue
            if label in smooths:
                test = term_test(
                    model.predictors,
                    model.solution,
                    model.inference,
                    place=place,
                    residual_df=residual_df,
                )
            else:
                test = wald_test(estimate.coef[place], estimate.block(place), residual_df)
            edf = float(model.inference.edf[place].sum())
            rows.append((edf, test.df, test_name, test.statistic, test.p_value))
            index.append((unit.parameter, label))
    return _table(rows, index, ["edf", "ref_df", "test", "statistic", "p_value"])


def random_effects(model: Fit) -> pd.Series:
    """Standard deviations of the random effects, and of the residuals, by (parameter, term)."""
    found: dict[tuple[str, str], float] = {}
    at = 0
    for unit in model.predictors.units:
        for p in unit.design.penalties:
            lam, at = float(model.solution.lam[at]), at + 1
            recipe = unit.blocks[p.label][0].recipe if p.label in unit.blocks else None
            if isinstance(recipe, SmoothColumns) and isinstance(recipe.basis, RandomEffect):
                found[unit.parameter, p.label] = float(np.sqrt(raw_scale(unit, p) / lam))
    if found and model.scale is not None:
        found[str(model.predictors.family.dispersion), RESIDUAL] = float(np.sqrt(model.scale))
    index = pd.MultiIndex.from_arrays(
        [[parameter for parameter, _ in found], [term for _, term in found]],
        names=["parameter", "term"],
    )
    return pd.Series(list(found.values()), index=index, name="std_dev", dtype=np.float64)


def deep_table(model: Fit, deep: Deep | None, sd: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """Networks: multiplier, sd of the effect, score difference, by (parameter, term)."""
    rows, index = [], []
    for effect, (difference, se) in zip(
        *((deep.effects, deep.scores) if deep else ((), ())), strict=True
    ):
        parameter = model.predictors.units[effect.unit].parameter
        rows.append((effect.multiplier, sd[parameter, effect.label], difference, se))
        index.append((parameter, effect.label))
    return _table(rows, index, ["multiplier", "effect_sd", "score_difference", "score_se"])


def _table(
    rows: Sequence[tuple[object, ...]], index: Sequence[tuple[str, str]], columns: Sequence[str]
) -> pd.DataFrame:
    places = pd.MultiIndex.from_tuples(list(index), names=["parameter", "term"]) if index else None
    if places is None:
        places = pd.MultiIndex.from_arrays([[], []], names=["parameter", "term"])
    return pd.DataFrame(list(rows), index=places, columns=list(columns))


def summarise(
    model: Fit,
    goodness: Goodness,
    deep: Deep | None,
    formula: Mapping[str, str],
    *,
    errors: str = "conditional",
) -> Summary:
    """All tables of a fitted model; `errors`: which uncertainty of networks they hold."""
    statistics = Statistics(
        residual_df=model.test_df(goodness.weight),
        score=None if deep is None else (deep.score_difference, deep.score_se),
        errors=errors,
        criterion=model.solution.criterion,
        reml=model.solution.reml,
        scale=model.scale,
        loglik=model.solution.loglik,
        edf_total=model.edf_total,
        aic=model.aic,
        goodness=goodness,
    )
    family = model.predictors.family
    return Summary(
        family=family.name,
        links={p.name: p.link.name for p in family.parameters},
        formulas=formula,
        parametric=parametric_table(model, goodness.weight),
        smooth=smooth_table(model, goodness.weight),
        deep=deep_table(model, deep, goodness.effect_sd),
        random=random_effects(model),
        statistics=statistics,
        sparse=SparseTables.of(model),
        inputs=selected_inputs(model),
    )


def selected_inputs(model: Fit) -> pd.DataFrame:
    """Of networks that chose among their inputs: each input and whether it stayed."""
    rows: list[tuple[object, ...]] = []
    index: list[tuple[str, str]] = []
    for unit in model.predictors.units:
        for block in (each for each in unit.design.networks if each.selects):
            rows += [(name, True) for name in block.arguments]
            rows += [(name, False) for name in block.left_out]
            index += [(unit.parameter, block.label)] * (len(rows) - len(index))
    return _table(rows, index, ["input", "stays"])


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is printed below the tables.

    Parameters
    ----------
    residual_df : float or None
        Of t and F tests, where a constant dispersion is estimated.
    score : pair or None
        Cross-fitted difference in log score made by the networks, and its standard error.
    errors : str
        Which uncertainty of the networks standard errors hold.
    criterion : {"REML", "ML", "GCV", "UBRE"}
    reml, loglik, edf_total, aic : float
    scale : float or None
        Constant dispersion.
    goodness : Goodness
    """

    residual_df: float | None
    score: tuple[float, float] | None
    errors: str
    criterion: str
    reml: float
    scale: float | None
    loglik: float
    edf_total: float
    aic: float
    goodness: Goodness


@dataclass(frozen=True, eq=False)
class Summary:
    """Summary of a fitted model; `print` shows it as R does.

    Parameters
    ----------
    family : str
    links : mapping
        Parameter -> name of its link.
    formulas : mapping
        Parameter -> its formula.
    parametric : DataFrame
        estimate, std_error, statistic, p_value by (parameter, name).
    smooth : DataFrame
        edf, ref_df, statistic, p_value by (parameter, term).
    deep : DataFrame
        multiplier, effect_sd, score_difference, score_se by (parameter, term).
    random : Series
        Standard deviations of random effects and residuals by (parameter, term).
    statistics : Statistics
    sparse : SparseTables or None
    inputs : DataFrame
        Of networks with `select=True`: input, stays; by (parameter, term).
    """

    family: str
    links: Mapping[str, str]
    formulas: Mapping[str, str]
    parametric: pd.DataFrame = field(repr=False)
    smooth: pd.DataFrame = field(repr=False)
    deep: pd.DataFrame = field(repr=False)
    random: pd.Series = field(repr=False)
    statistics: Statistics = field(repr=False)
    sparse: SparseTables | None = field(default=None, repr=False)
    inputs: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def test_names(self) -> tuple[str, str]:
        """Names of the statistics of coefficients and of smooths."""
        return ("z", "Chi.sq") if self.statistics.residual_df is None else ("t", "F")

    def __str__(self) -> str:
        """Return the text that R would print."""
        lines = self._head()
        for group in groups(self.formulas):
            lines += self._group(group)
        lines += ["---", LEGEND, ""] if len(self.parametric) + len(self.smooth) else []
        return "\n".join([*lines, *self._foot()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the summary for a notebook."""
        parts = [f"<pre>{html.escape(chr(10).join(self._head()).strip())}</pre>"]
        for title, table in (
            ("Parametric coefficients", self.parametric),
            ("Smooth terms", self.smooth),
            ("Deep terms", self.deep),
            *(() if self.sparse is None else (("Sparse terms", self.sparse.terms),)),
        ):
            if len(table):
                shown = _named(table, self.test_names).to_html(float_format=short, border=0)
                parts.append(f"<b>{title}</b>{shown}")
        return "".join([*parts, f"<pre>{html.escape(chr(10).join(self._foot()))}</pre>"])

    def _head(self) -> list[str]:
        links = ", ".join(f"{name} {link}" for name, link in _gathered(self.links).items())
        lines = ["", f"Family: {self.family}", f"Links:  {links}", "Formula:"]
        formulas = _gathered(self.formulas)
        width = max(len(name) for name in formulas)
        for name, text in formulas.items():
            first = f"  {name + ':':<{width + 1}} "
            lines += textwrap.wrap(
                text, 100, initial_indent=first, subsequent_indent=" " * (len(first) + 4)
            )
        return [*lines, ""]

    def _group(self, group: str) -> list[str]:
        """Sections of the parameters of a group; one table of thresholds and their like."""
        names = members(group, self.formulas)
        own = {name: _rows_of(self.parametric, name) for name in names}
        others = (self.smooth, self.deep)
        single = len(names) == 1 or group == next(iter(groups(self.formulas)))
        if single or any(len(_rows_of(table, name)) for table in others for name in names):
            return [line for name in names for line in self._section(name)]
        if self.sparse is not None and any(self.sparse.lines(name) for name in names):
            return [line for name in names for line in self._section(name)]
        for name, table in own.items():
            element = name.removeprefix(f"{group}[")[:-1]
            labels = [element if each == INTERCEPT else f"{element} {each}" for each in table.index]
            own[name] = table.set_axis(pd.Index(labels), axis=0)
        whole = pd.concat(own.values())
        return [f"--- {group} ---", *self._coefficients(whole)] if len(whole) else []

    def _coefficients(self, table: pd.DataFrame) -> list[str]:
        z = self.test_names[0]
        header = ["Estimate", "Std. Error", f"{z} value", f"Pr(>|{z}|)"]
        return ["Parametric coefficients:", *printed(table, header, joint=2), ""]

    def _section(self, parameter: str) -> list[str]:
        chi = self.test_names[1]
        lines: list[str] = []
        coefficients = _rows_of(self.parametric, parameter)
        if len(coefficients):
            lines += self._coefficients(coefficients)
        smooths = _rows_of(self.smooth, parameter)
        if len(smooths):
            lines += ["Approximate significance of smooth terms:"]
            lines += [*printed(smooths, ["edf", "Ref.df", chi, "p-value"], joint=2), ""]
        if self.sparse is not None:
            lines += self.sparse.lines(parameter)
        deep = _rows_of(self.deep, parameter)
        if len(deep):
            lines += ["Deep terms (scores on rows that the networks were not trained on):"]
            header = ["Multiplier", "SD of effect", "Log score gain", "Std. Error"]
            lines += [*printed(deep, header, joint=0), *self._kept_inputs(parameter), ""]
        return [f"--- {parameter} ---", *lines] if lines and len(self.formulas) > 1 else lines

    def _kept_inputs(self, parameter: str) -> list[str]:
        """Inputs that stay, one line for each network that chose."""
        lines = []
        for term, own in self.inputs.groupby(level=list(self.inputs.index.names), sort=False):
            if term[0] == parameter:
                names = ", ".join(own.loc[own["stays"], "input"])
                lines.append(f"Inputs of {term[1]} that stay, {own['stays'].sum()} of {len(own)}:")
                lines += textwrap.wrap(names, 96, initial_indent="  ", subsequent_indent="  ")
        return lines

    def _foot(self) -> list[str]:
        s, fit = self.statistics, self.statistics.goodness
        lines = [] if self.sparse is None else self.sparse.foot()
        if s.score is not None and not self.deep["multiplier"].any():
            lines += ["No deep effect: the score of held-out rows did not gain its standard error"]
        elif s.score is not None:
            lines += [
                f"Log score of held-out rows with minus without networks: {s.score[0]:.4g} "
                f"(se {s.score[1]:.2g})",
                f"Standard errors {ABOUT[s.errors]}",
            ]
        if len(self.random):
            several = len({p for p, term in self.random.index if term != RESIDUAL}) > 1
            names = [f"{p}: {term}" if several else term for p, term in self.random.index]
            width = max(map(len, names))
            lines += ["Standard deviations of random effects:"]
            lines += [
                f"  {name:<{width}}  {sd:.4g}" for name, sd in zip(names, self.random, strict=True)
            ]
            lines += [""]
        explained = []
        if fit.r_squared is not None:
            explained = [f"R-sq.(adj) = {round(fit.r_squared, 9):.3g}"]
        if fit.deviance_explained is not None:
            share = 100 * round(fit.deviance_explained, 9)
            explained += [f"Deviance explained = {share:.3g}%"]
        scale = "" if s.scale is None else f"  Scale est. = {s.scale:.5g}"
        sign = "-" if s.criterion in ("REML", "ML") else ""
        return [
            *lines,
            *(["   ".join(explained)] if explained else []),
            f"{sign}{s.criterion} = {s.reml:.5g}{scale}  n = {fit.n_obs}",
            f"logLik = {s.loglik:.6g} (edf = {s.edf_total:.4g})  AIC = {s.aic:.6g}",
        ]


def _rows_of(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    if parameter not in table.index.get_level_values(0):
        return table.iloc[:0]
    return table.loc[[parameter]].droplevel(0)


def _gathered(of: Mapping[str, str]) -> dict[str, str]:
    """What parameters have, by group where all of a group have the same."""
    found: dict[str, str] = {}
    for group in groups(of):
        names = members(group, of)
        same = len({of[name] for name in names}) == 1
        found |= {group: of[names[0]]} if same else {name: of[name] for name in names}
    return found


def _named(table: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    statistic = names[0] if "std_error" in table else names[1]
    return table.rename(columns={"statistic": statistic})
