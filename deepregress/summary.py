"""Tables of a fitted model, printed as R's `summary.gam` prints them (METHODS 4).

    parametric coefficients   estimate, standard error (Bayesian covariance), z, or t with the
                              residual degrees of freedom where a constant dispersion is estimated
    smooth terms              edf, Ref.df, Chi.sq or F and p-value of module `significance`
    deep terms                multiplier, sd of the effect, cross-fitted score difference
    deviance explained        1 - D / D0,  D = sum_i w_i d(y_i, mean_i) / phi_i, D0 with one mean

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

from deepregress.data import Frame, Response
from deepregress.families.base import Family
from deepregress.inference import Inference
from deepregress.linalg import Matrix, Vector
from deepregress.prediction import Deep, Predictor, Predictors, chunks, dispersions
from deepregress.significance import wald_test
from deepregress.solvers.base import Solution
from deepregress.term_tests import term_test

DIGITS = 4
"""Significant digits of the smallest number of a column, as in R."""
SMALLEST_P = 2e-16
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


@dataclass(frozen=True, eq=False)
class Goodness:
    """How well the model fits the training rows.

    Parameters
    ----------
    n_obs : int
    weight : float
        Sum of the rows' weights.
    deviance_explained : float
    r_squared : float or None
        Adjusted R^2, of a normal response with constant scale.
    effect_sd : dict
        (parameter, label) of a deep term -> sd of its effect over the rows.
    """

    n_obs: int
    weight: float
    deviance_explained: float
    r_squared: float | None
    effect_sd: dict[tuple[str, str], float]

    @classmethod
    def of(cls, model: Fit, frame: Frame, response: Response, eta: Matrix) -> Goodness:
        """Compare the fitted means with the constant that fits best."""
        family, y, w = model.predictors.family, response.lower, response.weights
        mean = family.mean(eta)
        constant = model.solution.dispersion is not None
        phi = np.ones(len(y)) if constant else dispersions(family, eta)
        deviance = float(np.sum(w * family.unit_deviance(y, mean) / phi))
        offset = np.zeros(len(y))
        for block in model.predictors.units[0].design.offsets:
            offset += block.evaluate(frame)
        null = float(
            np.sum(w * family.unit_deviance(y, _null_mean(family, response, offset)) / phi)
        )
        r_squared = None
        if family.name == "normal" and model.solution.dispersion is not None:
            spread = float(np.sum(w * (y - np.average(y, weights=w)) ** 2))
            unexplained = deviance * (w.sum() - 1.0) / model.residual_df(float(w.sum()))
            r_squared = 1.0 - unexplained / spread if spread > 0 else None
        explained = 1.0 - deviance / null if null > 0 else 0.0
        return cls(
            response.n_obs,
            float(w.sum()),
            explained,
            r_squared,
            _effect_sd(model.predictors, frame),
        )


def _effect_sd(predictors: Predictors, frame: Frame) -> dict[tuple[str, str], float]:
    found = {}
    for unit in predictors.units:
        for label in unit.effects:
            others = frozenset(unit.labels) - {label}
            parts = [
                unit.rows(part, others).effects.get(label, np.zeros(part.n_obs))
                for _, part in chunks(frame)
            ]
            found[unit.parameter, label] = float(np.concatenate(parts).std())
    return found


def _null_mean(family: Family, response: Response, offset: Vector) -> Vector:
    """Means of the model with an intercept and the offset of the first predictor; (n_obs,)."""
    y, w = response.lower, response.weights
    if not np.ptp(offset):
        return np.full(len(y), np.average(y, weights=w))
    eta = np.tile(family.start(response), (len(y), 1))

    def mean(shift: float) -> Vector:
        moved = eta.copy()
        moved[:, 0] += offset + shift
        return family.mean(moved)

    def deviance(shift: float) -> float:
        return float(np.sum(w * family.unit_deviance(y, mean(shift))))

    centre = -float(np.average(offset, weights=w))
    found = scipy.optimize.minimize_scalar(deviance, bracket=(centre - 1.0, centre + 1.0))
    return mean(float(found.x))


@dataclass(frozen=True, eq=False)
class Fit:
    """What the tables are made of."""

    predictors: Predictors
    solution: Solution
    inference: Inference

    @property
    def edf_total(self) -> float:
        """Effective degrees of freedom of all coefficients; a constant dispersion counts one."""
        return float(self.inference.edf.sum())

    @property
    def aic(self) -> float:
        """-2 loglik + 2 edf_total."""
        return -2.0 * self.solution.loglik + 2.0 * self.edf_total

    @property
    def scale(self) -> float | None:
        """Constant dispersion phi, as R prints it."""
        family, d = self.predictors.family, self.solution.dispersion
        if d is None or family.dispersion is None:
            return None
        eta = np.float64(self.solution.coef[d])
        return family.dispersion_of(float(family.parameter(family.dispersion).link.inverse(eta)))

    def residual_df(self, weight: float) -> float:
        """Sum of weights minus effective degrees of freedom, a constant dispersion not counted."""
        edf = self.inference.edf
        d = self.solution.dispersion
        return weight - float(edf.sum()) + (0.0 if d is None else float(edf[d]))

    def test_df(self, weight: float) -> float | None:
        """Residual degrees of freedom where tests are t and F."""
        return None if self.solution.dispersion is None else self.residual_df(weight)

    def tested(self, unit: Predictor) -> bool:
        """Whether a predictor is tested: not where it is a constant dispersion or fixed."""
        return self.solution.dispersion not in unit.index and bool(unit.index)


def parametric_table(model: Fit, weight: float) -> pd.DataFrame:
    """Unpenalised coefficients with standard errors and tests, by (parameter, name)."""
    df = model.test_df(weight)
    estimate, rows = model.predictors.estimate, []
    for unit in model.predictors.units:
        if not model.tested(unit):
            continue
        for block, index in unit.blocks.values():
            if block.kind != "parametric":
                continue
            for j, name in enumerate(block.names, start=unit.columns.start + index.start):
                rows.append((unit.parameter, name, estimate.coef[j], estimate.cov[j, j] ** 0.5))
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
        if not model.tested(unit):
            continue
        for label in unit.design.slices:
            place = np.array(unit.places[label])
            if label == "(Intercept)":
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
                block = np.ix_(place, place)
                test = wald_test(estimate.coef[place], estimate.cov[block], residual_df)
            edf = float(model.inference.edf[place].sum())
            rows.append((edf, test.df, test_name, test.statistic, test.p_value))
            index.append((unit.parameter, label))
    return _table(rows, index, ["edf", "ref_df", "test", "statistic", "p_value"])


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
    model: Fit, goodness: Goodness, deep: Deep | None, formula: Mapping[str, str]
) -> Summary:
    """All tables of a fitted model."""
    statistics = Statistics(
        residual_df=model.test_df(goodness.weight),
        score=None if deep is None else (deep.score_difference, deep.score_se),
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
        statistics=statistics,
    )


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is printed below the tables.

    Parameters
    ----------
    residual_df : float or None
        Of t and F tests, where a constant dispersion is estimated.
    score : pair or None
        Cross-fitted difference in log score made by the networks, and its standard error.
    criterion : {"REML", "ML"}
    reml, loglik, edf_total, aic : float
    scale : float or None
        Constant dispersion.
    goodness : Goodness
    """

    residual_df: float | None
    score: tuple[float, float] | None
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
    statistics : Statistics
    """

    family: str
    links: Mapping[str, str]
    formulas: Mapping[str, str]
    parametric: pd.DataFrame = field(repr=False)
    smooth: pd.DataFrame = field(repr=False)
    deep: pd.DataFrame = field(repr=False)
    statistics: Statistics = field(repr=False)

    @property
    def test_names(self) -> tuple[str, str]:
        """Names of the statistics of coefficients and of smooths."""
        return ("z", "Chi.sq") if self.statistics.residual_df is None else ("t", "F")

    def __str__(self) -> str:
        """Return the text that R would print."""
        lines = self._head()
        for parameter in self.formulas:
            lines += self._section(parameter)
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
        ):
            if len(table):
                shown = _named(table, self.test_names).to_html(float_format=_short, border=0)
                parts.append(f"<b>{title}</b>{shown}")
        return "".join([*parts, f"<pre>{html.escape(chr(10).join(self._foot()))}</pre>"])

    def _head(self) -> list[str]:
        links = ", ".join(f"{name} {link}" for name, link in self.links.items())
        lines = ["", f"Family: {self.family}", f"Links:  {links}", "Formula:"]
        width = max(len(name) for name in self.formulas)
        for name, text in self.formulas.items():
            first = f"  {name + ':':<{width + 1}} "
            lines += textwrap.wrap(
                text, 100, initial_indent=first, subsequent_indent=" " * (len(first) + 4)
            )
        return [*lines, ""]

    def _section(self, parameter: str) -> list[str]:
        z, chi = self.test_names
        lines: list[str] = []
        coefficients = _rows_of(self.parametric, parameter)
        if len(coefficients):
            lines += ["Parametric coefficients:"]
            header = ["Estimate", "Std. Error", f"{z} value", f"Pr(>|{z}|)"]
            lines += [*_printed(coefficients, header, joint=2), ""]
        smooths = _rows_of(self.smooth, parameter)
        if len(smooths):
            lines += ["Approximate significance of smooth terms:"]
            lines += [*_printed(smooths, ["edf", "Ref.df", chi, "p-value"], joint=2), ""]
        deep = _rows_of(self.deep, parameter)
        if len(deep):
            lines += ["Deep terms (scores on rows that the networks were not trained on):"]
            header = ["Multiplier", "SD of effect", "Log score gain", "Std. Error"]
            lines += [*_printed(deep, header, joint=0), ""]
        return [f"--- {parameter} ---", *lines] if lines and len(self.formulas) > 1 else lines

    def _foot(self) -> list[str]:
        s, fit = self.statistics, self.statistics.goodness
        lines = []
        if s.score is not None and not self.deep["multiplier"].any():
            lines += ["No deep effect: training did not improve the score of held-out rows"]
        elif s.score is not None:
            lines += [
                f"Log score of held-out rows with minus without networks: {s.score[0]:.4g} "
                f"(se {s.score[1]:.2g})",
                "Standard errors are given the networks; for the population see cov_population",
            ]
        explained = f"Deviance explained = {100 * round(fit.deviance_explained, 9):.3g}%"
        if fit.r_squared is not None:
            explained = f"R-sq.(adj) = {round(fit.r_squared, 9):.3g}   {explained}"
        scale = "" if s.scale is None else f"  Scale est. = {s.scale:.5g}"
        return [
            *lines,
            explained,
            f"-{s.criterion} = {s.reml:.5g}{scale}  n = {fit.n_obs}",
            f"logLik = {s.loglik:.6g} (edf = {s.edf_total:.4g})  AIC = {s.aic:.6g}",
        ]


def _rows_of(table: pd.DataFrame, parameter: str) -> pd.DataFrame:
    if parameter not in table.index.get_level_values(0):
        return table.iloc[:0]
    return table.loc[[parameter]].droplevel(0)


def _named(table: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    statistic = names[0] if "std_error" in table else names[1]
    return table.rename(columns={"statistic": statistic})


def _printed(table: pd.DataFrame, header: Sequence[str], *, joint: int) -> list[str]:
    """Lines of a table; the first `joint` columns share their decimals, p-values get stars."""
    columns: list[list[str]] = []
    values = [table[name].to_numpy(dtype=float) for name in table]
    shared = np.concatenate(values[:joint]) if joint else None
    for name, column in zip(table, values, strict=True):
        if name == "p_value":
            columns.append([_p_value(p) for p in column])
        elif name in ("edf", "ref_df", "statistic"):
            columns.append([f"{value:.3f}" for value in column])
        else:
            places = _decimals(column if shared is None else shared)
            columns.append([f"{value:.{places}f}" for value in column])
    stars = [_stars(p) for p in table["p_value"]] if "p_value" in table else [""] * len(table)
    labels = [str(label) for label in table.index]
    left = max(len(label) for label in labels)
    widths = [max(len(h), *map(len, c)) for h, c in zip(header, columns, strict=True)]
    top = " " * left + "".join(f"  {h:>{w}}" for h, w in zip(header, widths, strict=True))
    lines = [top]
    for i, label in enumerate(labels):
        cells = "".join(f"  {c[i]:>{w}}" for c, w in zip(columns, widths, strict=True))
        lines.append(f"{label:<{left}}{cells} {stars[i]}".rstrip())
    return lines


def _decimals(values: Vector) -> int:
    """Decimals at which the smallest number keeps DIGITS significant digits, 6 at most."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return 1
    return int(np.clip(DIGITS - 1 - np.floor(np.log10(sizes.min())), 0, 6))


def _p_value(p: float) -> str:
    return "<2e-16" if p < SMALLEST_P else f"{p:.3g}"


def _stars(p: float) -> str:
    return next((stars for bound, stars in STARS if p < bound), "")


def _short(value: float) -> str:
    return f"{value:.4g}"
