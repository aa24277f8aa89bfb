"""Whole fits against R: mgcv's `gam` and `glm` on the same tables (results in data/reference).

Tolerances are those that two implementations of one criterion can be held to: R repeats itself to
1e-4 in the linear predictor and 1e-3 in edf and log-likelihood.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress.fitted import FittedModel
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
CASES = json.loads((REFERENCE / "fits.json").read_text())["cases"]

EDF, LOGLIK, EFFECT, SE = 0.1, 0.1, 0.01, 0.02
"""Largest difference in edf, in logLik; in an effect as share of its range; relative in its se."""
EXACT = 1e-6
"""Relative, where there is nothing to choose: no smoothing parameter, or a fixed one."""

BASES = ("tp", "ps", "cr")
BIRTHWT = "low ~ s(age, bs='{bs}') + s(lwt, bs='{bs}') + race + smoke + ptd + ht + ui"
GAMSIM = " + ".join(f"s({name}, bs='{{bs}}')" for name in ("x0", "x1", "x2", "x3"))


@dataclass(frozen=True)
class Case:
    """One model of R and the same model of ours; `renamed`: their term -> our (parameter, term)."""

    case: str
    model: str
    formula: dict[str, str]
    table: str
    family: str = "normal"
    link: str | None = None

    @property
    def expected(self) -> dict:
        return CASES[self.case]["models"][self.model]

    @property
    def id(self) -> str:
        return f"{self.case}-{self.model}"


def cases() -> list[Case]:
    found = []
    for bs in BASES:
        found += [
            Case(
                "mcycle_gaulss",
                bs,
                {
                    "loc": f"accel ~ s(times, k=20, bs='{bs}')",
                    "scale": f"~ s(times, k=10, bs='{bs}')",
                },
                "mcycle",
            ),
            Case("mcycle_gaussian", bs, {"loc": f"accel ~ s(times, k=20, bs='{bs}')"}, "mcycle"),
            Case("gamsim_normal", bs, {"loc": "y ~ " + GAMSIM.format(bs=bs)}, "gamsim1"),
            Case("birthwt_logit", bs, {"prob": BIRTHWT.format(bs=bs)}, "birthwt", "bernoulli"),
            Case(
                "trees_gamma",
                bs,
                {"mean": f"Volume ~ s(Height, bs='{bs}') + s(Girth, bs='{bs}')"},
                "trees",
                "gamma",
            ),
        ]
    found += [
        Case("birthwt_logit", f"ps_{link}", {"prob": BIRTHWT.format(bs="ps")}, "birthwt",
             "bernoulli", link)
        for link in ("probit", "cloglog", "cauchit")
    ]  # fmt: skip
    by = {"fac_tp": "tp", "fac_ps": "ps"}
    found += [
        Case("gamsim_by", name, {"loc": f"y ~ fac + s(x2, by=fac, bs='{bs}') + s(x0, bs='{bs}')"},
             "gamsim4")
        for name, bs in by.items()
    ]  # fmt: skip
    k20 = " + ".join(f"s({name}, k=20, bs='ps')" for name in ("x0", "x1", "x2", "x3"))
    return [
        *found,
        Case("gamsim_by", "num_cr", {"loc": "y ~ s(x2, by=x1, bs='cr')"}, "gamsim3"),
        Case("gamsim_normal", "ps_k20", {"loc": f"y ~ {k20}"}, "gamsim1"),
    ]


FIXED = [
    Case(
        "mcycle_gaulss",
        "ps_fixed_sp",
        {
            "loc": "accel ~ s(times, k=20, bs='ps', sp=0.01)",
            "scale": "~ s(times, k=10, bs='ps', sp=1)",
        },
        "mcycle",
    ),
    Case(
        "mcycle_gaussian", "ps_fixed_sp", {"loc": "accel ~ s(times, k=20, bs='ps', sp=1)"}, "mcycle"
    ),
]
UNPENALISED = [
    Case("mcycle_gaussian", "linear", {"loc": "accel ~ times"}, "mcycle"),
    Case(
        "birthwt_logit",
        "glm_logit",
        {"prob": "low ~ age + lwt + race + smoke + ptd + ht + ui"},
        "birthwt",
        "bernoulli",
    ),
]


def each(given: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", given, ids=lambda case: case.id)


@functools.cache
def table(name: str) -> pd.DataFrame:
    folder = REFERENCE if (REFERENCE / f"{name}.csv").exists() else REFERENCE.parent
    data = pd.read_csv(folder / f"{name}.csv")
    if "race" in data:
        data["race"] = pd.Categorical(data["race"], categories=["white", "black", "other"])
    return data


@functools.cache
def fitted(index: str) -> FittedModel:
    case = next(case for case in (*cases(), *FIXED, *UNPENALISED) if case.id == index)
    return fit(case.formula, table(case.table), case.family, link=case.link)


def our_term(label: str, case: Case) -> tuple[str, str]:
    """Their `s.1(x)` is s(x) of the second parameter."""
    second = label.startswith("s.1(")
    parameters = list(case.formula)
    return parameters[1 if second else 0], label.replace("s.1(", "s(")


def our_name(name: str, case: Case) -> tuple[str, str]:
    """Their `raceblack` is race[T.black], `(Intercept).1` the second parameter's."""
    parameters = [*case.formula, "scale"]
    if name.endswith(".1"):
        return parameters[1], name.removesuffix(".1")
    for factor in ("race", "fac"):
        if name.startswith(factor):
            return parameters[0], f"{factor}[T.{name.removeprefix(factor)}]"
    return parameters[0], name


@each([*cases(), *FIXED])
def test_loglik_edf_and_scale(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    for label, edf in expected["edf"].items():
        assert model.edf[our_term(label, case)] == pytest.approx(edf, abs=EDF)
    scale = model.summary().statistics.scale
    if "reml_scale" in expected and case in FIXED:
        # R reports RSS / (n - edf) beside the score at another scale
        assert scale == pytest.approx(expected["scale"], rel=1e-3)
    else:
        assert (scale or 1.0) == pytest.approx(expected.get("reml_scale", 1.0), rel=1e-3)
        assert model.reml == pytest.approx(expected["score"], abs=LOGLIK)


@each([*cases(), *FIXED])
def test_effects_and_their_errors(case: Case) -> None:
    model = fitted(case.id)
    for label, grid in case.expected["grid"].items():
        parameter, term = our_term(label, case)
        ours = model.partial_effect(term, parameter, grid=pd.DataFrame(grid["x"]))
        theirs = np.array(grid["effect"])
        # a term shrunk to nothing has no range of its own: then its standard error is the scale
        scale = max(np.ptp(theirs), max(grid["se"]))
        assert np.abs(ours["effect"] - theirs).max() < EFFECT * scale
        # a straight line has no error at its mean; ours keeps up to 0.01 degrees of freedom of
        # curvature there, so half of the largest error counts too
        theirs = np.array(grid["se"])
        assert np.all(np.abs(ours["se"] - theirs) < SE * (theirs + 0.5 * theirs.max()))


@each([*cases(), *FIXED])
def test_predictors_of_the_rows(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    table_of_links = model.predict(table(case.table).head(20), "linear", se=True)
    for u, (link, se) in enumerate(
        zip(expected["link_fit"], expected["link_se"], strict=True)
        if isinstance(expected["link_fit"][0], list)
        else [(expected["link_fit"], expected["link_se"])]
    ):
        ours = table_of_links[model.family.parameter_names[u]]
        spread = float(np.ptp(model.predict(which="linear", parameter=ours_name(model, u))))
        assert np.abs(ours["estimate"] - link).max() < EFFECT * spread
        assert np.abs(ours["se"] / se - 1.0).max() < SE


def ours_name(model: FittedModel, u: int) -> str:
    return model.family.parameter_names[u]


@each(FIXED)
def test_fixed_smoothing_parameters_leave_nothing_to_choose(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    assert model.loglik == pytest.approx(expected["logLik"], abs=1e-3)
    for label, edf in expected["edf"].items():
        # mgcv lifts negative curvatures of gaulss before it counts degrees of freedom
        assert model.edf[our_term(label, case)] == pytest.approx(edf, abs=0.005)


@each(UNPENALISED)
def test_models_without_smooths_are_exact(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    assert model.loglik == pytest.approx(expected["logLik"], rel=EXACT)
    for name, row in expected["coefficients"].items():
        assert model.coef[our_name(name, case)] == pytest.approx(row["estimate"], rel=EXACT)
        # R's glm stops its IRLS at 1e-8 in the deviance
        assert model.std_error[our_name(name, case)] == pytest.approx(row["se"], rel=1e-5)


@each(
    [case for case in cases() if case.case in ("birthwt_logit", "trees_gamma", "mcycle_gaussian")]
)
def test_summary_is_that_of_summary_gam(case: Case) -> None:
    summary, expected = fitted(case.id).summary(), case.expected
    for name, row in expected["coefficients"].items():
        ours = summary.parametric.loc[our_name(name, case)]
        assert ours["estimate"] == pytest.approx(row["estimate"], rel=0.01)
        assert ours["std_error"] == pytest.approx(row["se"], rel=SE)
        assert ours["statistic"] == pytest.approx(row["stat"], rel=SE)
        assert_same_p(ours["p_value"], row["p"])
    for label, row in expected["anova"].items():
        ours = summary.smooth.loc[our_term(label, case)]
        assert ours["ref_df"] == pytest.approx(row["ref_df"], abs=EDF)
        # with a fractional rank the statistic depends on the sign of an eigenvector, its p-value
        # does not
        assert_same_p(ours["p_value"], row["p"])
    explained = 1.0 - expected["deviance"] / expected["null_deviance"]
    goodness = summary.statistics.goodness
    assert goodness.deviance_explained == pytest.approx(explained, abs=1e-3)
    if goodness.r_squared is not None:
        assert goodness.r_squared == pytest.approx(expected["r_sq_adj"], abs=1e-3)


def assert_same_p(ours: float, theirs: float) -> None:
    """Within 5 % of the logarithm: R rounds residual degrees of freedom to whole numbers."""
    least = 1e-15  # R's tail sums are accurate to about this
    assert np.log(max(ours, least)) == pytest.approx(np.log(max(theirs, least)), rel=0.05, abs=0.02)


def test_anova_of_linear_terms_is_that_of_anova_gam() -> None:
    case = next(case for case in cases() if case.id == "birthwt_logit-tp")
    anova = fitted(case.id).anova()
    for term, row in case.expected["anova_parametric"].items():
        ours = anova.loc[("prob", term)]
        assert ours["edf"] == pytest.approx(row["df"])
        assert ours["statistic"] == pytest.approx(row["Chi.sq"], rel=SE)
        assert ours["p_value"] == pytest.approx(row["p-value"], rel=0.05)


@each([case for case in cases() if "AIC_conditional" in case.expected])
def test_aic_is_the_conditional_one(case: Case) -> None:
    # mgcv estimates two parameters of gaussian and Gamma models, like us, and counts the scale
    model = fitted(case.id)
    assert model.aic == pytest.approx(case.expected["AIC_conditional"], abs=2 * (LOGLIK + EDF))


@each([case for case in [*cases(), *FIXED] if case.case == "mcycle_gaulss"])
def test_densities_probabilities_and_quantiles(case: Case) -> None:
    model, expected, rows = fitted(case.id), case.expected, table("mcycle").head(20)
    assert model.predict(rows, "logpdf") == pytest.approx(np.array(expected["logpdf"]), abs=0.01)
    assert model.predict(rows, "cdf") == pytest.approx(np.array(expected["cdf"]), abs=0.005)
    theirs = np.array(expected["predict"]["quantiles"]).T
    ours = model.predict(rows.head(5), "quantile", at=expected["predict"]["probs"])
    assert ours == pytest.approx(theirs, abs=0.05)
    assert model.predict(rows, "params")["scale"].to_numpy() == pytest.approx(
        np.array(expected["fitted"]["sigma"]), rel=0.01
    )
