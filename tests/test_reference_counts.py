"""Count models against R: direct maximum likelihood, glm, glm.nb, pscl, glmmTMB and mgcv.

Numbers of data/reference/counts.json (32 families by direct maximum likelihood, pscl's
zeroinfl and hurdle, glmmTMB, mgcv's nb and ziplss) and counts_glm.json (counts.R).
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress.fitted import FittedModel
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
CASES = json.loads((REFERENCE / "counts.json").read_text())["cases"]
GLM = json.loads((REFERENCE / "counts_glm.json").read_text())
TABLES = {"ml_families": "counts", "biochem_zip": "biochemists"}

COEF, SE, LOGLIK = 1e-4, 1e-3, 1e-5
"""Where there is nothing to choose: coefficients in standard errors, standard errors relative,
log-likelihood; the tolerances of the references' own index."""

BIO = "fem + mar + kid5 + phd + ment"
SMOOTH = "fem + mar + kid5 + s(phd, bs='ps') + s(ment, bs='ps')"
NAMES = {"mu": "mean", "theta": "dispersion", "alpha": "dispersion", "pi0": "inflation"}
LOGLOG = {"inflation": "loglog"}


@dataclass(frozen=True)
class Case:
    """A model of R and the same of ours; `signs`: of parameters that R counts the other way."""

    case: str
    model: str
    family: str
    formula: dict[str, str]
    link: dict[str, str] | None = None
    signs: dict[str, int] = field(default_factory=dict)
    method: str = "REML"

    @property
    def expected(self) -> dict:
        return CASES[self.case]["models"][self.model]

    @property
    def id(self) -> str:
        return f"{self.case}-{self.model}"


def direct(model: str, family: str, formula: dict[str, str], **signs: int) -> Case:
    return Case("ml_families", model, family, formula, signs=signs)


def biochem(model: str, family: str, zero: str = BIO, sign: int = 1, link=None) -> Case:
    formula = {"mean": f"art ~ {BIO}", "inflation": f"~ {zero}"}
    return Case("biochem_zip", model, family, formula, link, {"inflation": sign, "dispersion": -1})


def glmm(model: str, family: str, formula: dict[str, str], sign: int = -1) -> Case:
    return Case("glmmtmb_dispersion", model, family, formula, signs={"dispersion": sign})


X = "x1 + x2"
EXACT = [
    direct("poisson", "poisson", {"mean": f"poisson ~ {X}"}),
    direct(
        "negbin",
        "negative_binomial",
        {"mean": f"negbin ~ {X}", "dispersion": "~ x2"},
        dispersion=-1,
    ),
    direct("negbin1", "negbin1", {"mean": f"negbin1 ~ {X}", "dispersion": "~ x2"}),
    direct("zip", "zip", {"mean": f"zip ~ {X}", "inflation": "~ x2"}),
    direct("zinb", "zinb", {"mean": f"zinb ~ {X}", "inflation": "~ x2"}, dispersion=-1),
    direct("geometric", "geometric", {"mean": f"geometric ~ {X}"}),
    direct("binomial10", "binomial", {"prob": "binom10 / n10 ~ x1"}),
    direct("betabinomial10", "betabinomial", {"prob": "betabinom10/n10 ~ x1", "precision": "~ x2"}),
    biochem("zip", "zip"),
    biochem("zip_const", "zip", "1"),
    biochem("zinb", "zinb"),
    biochem("hurdle_poisson", "hurdle", sign=-1),
    biochem("hurdle_nb", "hurdle_negative_binomial", sign=-1),
    biochem("hurdle_poisson_cloglog", "hurdle", sign=-1, link=LOGLOG),
    biochem("ziplss_linear", "hurdle", sign=-1, link=LOGLOG),
    Case("biochem_zip", "poisson_glm", "poisson", {"mean": f"art ~ {BIO}"}),
    glmm("sal_nb2_disp", "negative_binomial", {"mean": "count ~ spp + mined",
                                               "dispersion": "~ spp"}),
    glmm("sal_nb2", "negative_binomial", {"mean": "count ~ spp * mined"}),
    glmm("sal_nb1", "negbin1", {"mean": "count ~ spp + mined"}, sign=1),
    glmm("sal_zip", "zip", {"mean": "count ~ spp + mined", "inflation": "~ mined"}),
    glmm("sal_zinb", "zinb", {"mean": "count ~ spp + mined", "inflation": "~ mined"}),
    glmm("sal_genpois", "generalized_poisson", {"mean": "count ~ spp + mined"}, sign=1),
]  # fmt: skip
SMOOTHS = [
    Case("biochem_zip", "nb_smooth", "negative_binomial", {"mean": f"art ~ {SMOOTH}"}),
    Case("biochem_zip", "ziplss_smooth", "hurdle",
         {"mean": f"art ~ {SMOOTH}", "inflation": f"~ {SMOOTH}"}, LOGLOG, {"inflation": -1}),
    Case("glmmtmb_dispersion", "owls_gam_nb", "negative_binomial",
         {"mean": "neg ~ food*sex + s(arrival, bs='ps') + offset(logBrood) + s(nest, bs='re')"}),
]  # fmt: skip
LAPLACE = [
    Case("glmmtmb_dispersion", "sal_re", "negative_binomial",
         {"mean": "count ~ spp + mined + (1 | site)"}, method="ML"),
    Case("glmmtmb_dispersion", "owls_nb", "negative_binomial",
         {"mean": "neg ~ food*sex + offset(logBrood) + (1 | nest)"}, method="ML"),
    Case("glmmtmb_dispersion", "owls_zinb", "zinb",
         {"mean": "neg ~ food*sex + arrival + offset(logBrood) + (1 | nest)"}, method="ML"),
]  # fmt: skip


def each(given: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", given, ids=lambda case: case.id)


@functools.cache
def table(name: str) -> pd.DataFrame:
    data = pd.read_csv(REFERENCE / f"{name}.csv")
    factors = {k: v for case in CASES.values() for k, v in case["factors"].items()}
    for column in set(factors) & set(data):
        data[column] = pd.Categorical(data[column].astype(str), categories=factors[column])
    return data.assign(n10=10)


def table_of(case: Case) -> pd.DataFrame:
    other = "owls" if "owls" in case.model else "salamanders"
    return table(TABLES.get(case.case, other))


@functools.cache
def fitted(index: str) -> FittedModel:
    case = next(case for case in (*EXACT, *SMOOTHS, *LAPLACE) if case.id == index)
    return fit(case.formula, table_of(case), case.family, link=case.link, method=case.method)


def coefficients(case: Case):
    """Each (parameter, name) of ours with R's estimate, in our sign, and standard error."""
    parts = {"coefficients_count": "mean", "coefficients_zero": "inflation",
             "coefficients": "mean", "coefficients_zi": "inflation",
             "coefficients_log_dispersion": "dispersion"}  # fmt: skip
    first = next(iter(case.formula))
    for part, parameter in parts.items():
        for name, row in case.expected.get(part, {}).items():
            key = (first if parameter == "mean" else parameter, our_name(name))
            if case.case == "ml_families":
                symbol, _, own = name.partition(":")
                known = {**NAMES, "prob": "prob", "phi": "precision"}
                key = (first if symbol == "mu" else known[symbol], own)
            elif name == "Log(theta)":
                key = ("dispersion", "(Intercept)")
            elif name.endswith(".1"):
                key = ("inflation", our_name(name.removesuffix(".1")))
            yield key, case.signs.get(key[0], 1) * row["estimate"], row["se"]


def our_name(name: str) -> str:
    """Their `foodSatiated:sexMale` is food[T.Satiated]:sex[T.Male]."""
    factors = ("fem", "mar", "spp", "mined", "food", "sex")

    def coded(part: str) -> str:
        for factor in factors:
            if part.startswith(factor) and part != factor:
                return f"{factor}[T.{part.removeprefix(factor)}]"
        return part

    return ":".join(coded(part) for part in name.split(":"))


@each(EXACT)
def test_maximum_likelihood_is_exact(case: Case) -> None:
    model = fitted(case.id)
    assert model.converged
    assert model.loglik == pytest.approx(case.expected["logLik"], abs=LOGLIK)
    for key, estimate, se in coefficients(case):
        # pscl's standard errors are those of a numerical Hessian
        tolerance = SE
        assert model.coef[key] == pytest.approx(estimate, abs=COEF * se)
        assert model.std_error[key] == pytest.approx(se, rel=tolerance)


@each([case for case in EXACT if case.expected.get("theta")])
def test_a_constant_dispersion_is_one_over_theta(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    theta = np.exp(-model.coef[("dispersion", "(Intercept)")])
    assert theta == pytest.approx(expected["theta"], rel=1e-5)
    se = model.std_error[("dispersion", "(Intercept)")]
    assert se == pytest.approx(expected["se_log_theta"], rel=SE)


@each([case for case in EXACT if case.case == "biochem_zip" and "mean" in case.expected["fitted"]])
def test_fitted_means_and_probabilities(case: Case) -> None:
    model, rows = fitted(case.id), table("biochemists").head(20)
    assert model.predict(rows) == pytest.approx(np.array(case.expected["fitted"]["mean"]), rel=1e-5)
    if "prob_0_to_5" in case.expected:
        ours = np.asarray(model.predict(rows, "prob", at=np.arange(6.0)))
        assert ours == pytest.approx(np.array(case.expected["prob_0_to_5"]), abs=1e-6)


@each([case for case in EXACT if case.family in ("zip", "zinb", "negbin1", "generalized_poisson")])
def test_extra_constants_of_the_glmms(case: Case) -> None:
    if "dispersion_const" not in case.expected or case.family == "zip":
        return
    ours = np.exp(fitted(case.id).coef[("dispersion", "(Intercept)")])
    expected = case.expected["dispersion_const"]
    theirs = {"zinb": 1.0 / expected, "negbin1": expected}.get(case.family, expected - 1.0)
    assert ours == pytest.approx(theirs, rel=1e-4)


@each(SMOOTHS)
def test_smooth_counts_are_those_of_mgcv(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    assert model.loglik == pytest.approx(expected["logLik"], abs=0.01)
    assert model.reml == pytest.approx(expected["score"], abs=0.001)
    for label, edf in expected["edf"].items():
        second = label.startswith("s.1(")
        key = ("inflation" if second else "mean", label.replace("s.1(", "s("))
        assert model.edf[key] == pytest.approx(edf, abs=0.01)
    for key, estimate, se in coefficients(case):
        assert model.coef[key] == pytest.approx(estimate, abs=1e-3 * se)
        assert model.std_error[key] == pytest.approx(se, rel=SE)
    if "family_theta" in expected:
        theta = np.exp(-model.coef[("dispersion", "(Intercept)")])
        assert theta == pytest.approx(float(expected["family_theta"]), rel=1e-3)


@each(LAPLACE)
def test_random_effects_have_the_laplace_likelihood_of_glmmTMB(case: Case) -> None:
    # glmmTMB maximises the Laplace likelihood over the fixed effects too, we (as mgcv) over the
    # hyperparameters only, at the joint mode of the coefficients: 0.02 in the likelihood
    model, expected = fitted(case.id), case.expected
    assert -model.reml == pytest.approx(expected["logLik"], abs=0.05)
    (group,) = expected["sd"].values()
    ours = 1.0 / np.sqrt(model.sp.iloc[0])
    assert ours == pytest.approx(group["(Intercept)"], abs=0.01)
    theta = np.exp(-model.coef[("dispersion", "(Intercept)")])
    assert theta == pytest.approx(expected["dispersion_const"], rel=1e-3)
    for key, estimate, se in coefficients(case):
        assert model.coef[key] == pytest.approx(estimate, abs=0.2 * se)


def test_quine_is_glm_nb() -> None:
    expected = GLM["quine"]
    model = fit("Days ~ Eth + Sex + Age + Lrn", table("quine"), "negative_binomial")
    assert model.loglik == pytest.approx(-546.5755, abs=1e-4)
    assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    theta = np.exp(-model.coef[("dispersion", "(Intercept)")])
    assert theta == pytest.approx(expected["theta"], rel=1e-5)
    for name, row in expected["coefficients"].items():
        ours = name if name.startswith("(") else f"{name[:3]}[T.{name[3:]}]"
        assert model.coef[("mean", ours)] == pytest.approx(row["estimate"], abs=COEF * row["se"])
        # glm.nb's are of the expected information, ours of the observed one
        assert model.std_error[("mean", ours)] == pytest.approx(row["se"], rel=0.1)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_binomial_counts_are_glm(link: str) -> None:
    expected, data = GLM[link], table("counts")
    for response in ("cbind(binom10, n10 - binom10)", "binom10 / n10"):
        model = fit(f"{response} ~ x1 + x2", data, "binomial", link=link)
        assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
        for name, row in expected["coefficients"].items():
            key = ("prob", name)
            assert model.coef[key] == pytest.approx(row["estimate"], abs=COEF * row["se"])
            assert model.std_error[key] == pytest.approx(row["se"], rel=1e-5)
    rows = {"lower": data["binom10"].to_numpy(float), "trials": np.full(len(data), 10.0)}
    eta = model.predict(which="linear", parameter="prob")[:, None]
    deviance = model.family.deviance(rows, eta)
    assert deviance.sum() == pytest.approx(expected["deviance"], rel=1e-8)
    explained = 1.0 - expected["deviance"] / expected["null_deviance"]
    assert model.summary().statistics.goodness.deviance_explained == pytest.approx(explained)
