"""Fits with every kind of smooth term against mgcv (results in data/reference).

Both maximise one criterion over the same parameters, so they agree to what their convergence
leaves: log-likelihoods to 1e-3, and smoothing parameters to 1 % where they matter; above 1e4 the
criterion is flat, the term is its null space, and only that both are large is comparable.
"""

import functools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress.errors import DeepRegressWarning
from deepregress.fitted import FittedModel
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
SIMULATED = json.loads((REFERENCE / "terms.json").read_text())["models"]
ORACLES = json.loads((REFERENCE / "terms_oracles.json").read_text())["cases"]

LOGLIK, EDF, FIT, SE, SP = 2e-3, 2e-3, 2e-4, 2e-4, 0.01
"""In logLik and edf; of the predictor's range; relative in its standard error; relative in sp."""
FLAT = 1e4
CRITERION = 0.01
"""The criterion itself is compared more loosely: mgcv's is evaluated at a rounded scale."""

RING = "ABCDEF"
NEAR = {area: [RING[i - 1], RING[(i + 1) % 6]] for i, area in enumerate(RING)}


@dataclass(frozen=True)
class Case:
    """One model of R and the same model of ours."""

    name: str
    formula: dict[str, str]
    table: str = "terms"
    case: str = ""
    family: str = "normal"

    @property
    def expected(self) -> dict:
        return ORACLES[self.case]["models"][self.name] if self.case else SIMULATED[self.name]

    @property
    def id(self) -> str:
        return f"{self.case or self.table}-{self.name}"


TERMS = {
    "cc": "s(x, bs='cc', k=8, knots=(0, 1))",
    "cp": "s(x, bs='cp', k=9)",
    "bs": "s(x, bs='bs', k=12, m=(3, 2))",
    "bs_two": "s(x, bs='bs', k=12, m=(3, 2, 0))",
    "ts": "s(x, bs='ts') + s(w, bs='ts')",
    "gp": "s(x, bs='gp', m=(3, .5))",
    "gp_2d": "s(x, z, bs='gp', k=30)",
    "tp_2d": "s(x, z, k=25)",
    "tp_m": "s(x, m=3)",
    "te": "te(x, z, k=(6, 4), bs=('ps', 'cr'))",
    "te_tp": "te(x, z, bs='tp')",
    "te_cc": "te(x, z, bs=('cc', 'tp'), k=6, knots=((0, 1), None))",
    "te_d": "te(x, z, w, d=(2, 1), k=(12, 4))",
    "te_by": "o + te(x, z, by=o, k=3)",
    "te_num": "s(x) + te(x, z, by=w, k=4)",
    "ti": "ti(x, k=8) + ti(z) + ti(x, z, k=4)",
    "ti_num": "s(x) + ti(x, z, by=w, k=4)",
    "nested": "s(x) + s(z) + te(x, z)",
    "nested_cr": "s(x, bs='cr', k=5) + s(z, bs='cr', k=5) + te(x, z)",
    "nested_2d": "s(x) + s(z) + s(x, z, k=20)",
    "nested_by": "o + s(x) + s(x, by=oo, k=6)",
    "te_ti": "te(x, z) + ti(x, z, k=6)",
    "fx": "s(x, k=5, fx=True) + s(z)",
    "select": "s(x, select=True) + s(z, select=True) + s(w, select=True)",
    "select_te": "te(x, z, select=True) + s(w, select=True)",
    "re": "s(x) + (1 | g)",
    "re_slope": "x + (x | g)",
    "re_nested": "s(x) + (1 | g/o)",
    "re_by": "s(x) + s(g, by=w, bs='re')",
    "mrf": f"s(x) + s(area, bs='mrf', xt={NEAR})",
    "mrf_k": f"s(x) + s(area, bs='mrf', k=4, xt={NEAR})",
    # with one unpenalised direction; with two, mgcv's penalties hang on an eigendecomposition
    "fs": "s(g, x, bs='fs', k=5, m=1)",
    "te_sp": "te(x, z, sp=(1, 10))",
    "te_id": "o + te(x, z, by=o, k=4, id=1)",
    "select_nested": "s(x, select=True) + s(x, z, k=20, select=True)",
}
# the line of cs has penalties in two directions that mgcv leaves to rounding errors
ROUNDING = Case("cs", {"loc": "y ~ s(x, bs='cs')"})
X = ("x0", "x1", "x2", "x3")
SHARED = {
    "fac_id_cr": {"loc": "y ~ fac + s(x2, by=fac, bs='cr', id=1) + s(x0, bs='cr')"},
}
COUNTS = [Case("re_poisson", {"mean": "count ~ s(x) + (1 | g)"}, family="poisson")]
LARGE = [
    Case("select_1000", {"loc": "y ~ " + " + ".join(f"s({x}, select=True)" for x in X)}, "gamsim1"),
    Case("ts_1000", {"loc": "y ~ " + " + ".join(f"s({x}, bs='ts')" for x in X)}, "gamsim1"),
]
SURFACES = {
    "te_cr": {"loc": "y ~ te(x, z)"},
    "te_cr_k8": {"loc": "y ~ te(x, z, k=8)"},
    "te_ps": {"loc": "y ~ te(x, z, bs='ps', m=((2, 2), (2, 2)), k=8, np=False)"},
    "ti": {"loc": "y ~ ti(x) + ti(z) + ti(x, z)"},
    "tp2d": {"loc": "y ~ s(x, z, k=40)"},
    "gp": {"loc": "y ~ s(x, z, bs='gp', k=40)"},
    "gaulss_te": {"loc": "y ~ te(x, z)", "scale": "~ s(x) + s(z)"},
}
PLANTS = {
    "by_tp": {"loc": "uptake ~ grp + s(conc, by=grp, k=6)"},
    "by_ps": {"loc": "uptake ~ grp + s(conc, by=grp, k=6, bs='ps')"},
    "by_cr": {"loc": "uptake ~ grp + s(conc, by=grp, k=6, bs='cr')"},
    "by_type": {"loc": "uptake ~ Type * Treatment + s(conc, by=Type, k=6)"},
    "by_re": {"loc": "uptake ~ grp + s(conc, by=grp, k=6, bs='cr') + s(Plant, bs='re')"},
    "numeric_by": {"loc": "uptake ~ Type + s(conc, k=6) + s(conc, by=z, k=6)"},
    "ordered_by": {
        "loc": "uptake ~ og + Treatment + s(conc, k=6, bs='cr') + s(conc, by=og, k=6, bs='cr')"
    },
    "gaulss_by": {"loc": "uptake ~ grp + s(conc, by=grp, k=6)", "scale": "~ grp"},
}
SLEEP = {
    "gam_re": {"loc": "Reaction ~ Days + (Days | Subject)"},
    "gam_re_int": {"loc": "Reaction ~ Days + s(Subject, bs='re')"},
    "gaulss_re": {"loc": "Reaction ~ Days + (1 | Subject)", "scale": "~ (1 | Subject)"},
}
CASES = [
    *(Case(name, {"loc": f"y ~ {terms}"}) for name, terms in TERMS.items()),
    *COUNTS,
    *LARGE,
    *(Case(name, formula, "gamsim2", "te_gamsim2") for name, formula in SURFACES.items()),
    *(Case(name, formula, "co2", "co2_by") for name, formula in PLANTS.items()),
    *(Case(name, formula, "gamsim4", "gamsim_by") for name, formula in SHARED.items()),
    *(Case(name, formula, "sleepstudy", "sleepstudy_re") for name, formula in SLEEP.items()),
]


@functools.cache
def table(name: str) -> pd.DataFrame:
    folder = REFERENCE if (REFERENCE / f"{name}.csv").exists() else REFERENCE.parent
    data = pd.read_csv(folder / f"{name}.csv")
    if name == "terms":
        data["oo"] = pd.Categorical(data["o"], categories=["low", "mid", "top"], ordered=True)
    if name == "co2":
        data["z"] = (data["Treatment"] == "chilled").astype(float)
        data["og"] = pd.Categorical(
            data["Type"], categories=["Quebec", "Mississippi"], ordered=True
        )
    if name == "sleepstudy":
        data.columns = [column.capitalize() for column in data]
        data["Subject"] = data["Subject"].astype(str)
    return data


@functools.cache
def fitted(index: str) -> FittedModel:
    case = next(case for case in (*CASES, ROUNDING) if case.id == index)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* columns dropped", DeepRegressWarning)
        return fit(case.formula, table(case.table), case.family)


def each(given: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", given, ids=lambda case: case.id)


def our_term(label: str, case: Case) -> tuple[str, str]:
    """Their `s.1(x)` is s(x) of the second parameter."""
    return list(case.formula)[1 if ".1(" in label else 0], label.replace(".1(", "(")


@each(CASES)
def test_loglik_and_edf(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    assert model.converged
    assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    assert model.reml == pytest.approx(
        expected["score"], abs=CRITERION if case.name != "te_sp" else 0.1
    )
    for label, edf in expected["edf"].items():
        assert model.edf[our_term(label, case)] == pytest.approx(edf, abs=EDF)


@each([case for case in CASES if case.name != "te_sp"])
def test_smoothing_parameters(case: Case) -> None:
    ours, theirs = fitted(case.id).sp, case.expected["sp"]
    assert len(ours) == len(theirs)
    for label, wanted in theirs.items():
        value = ours[our_term(label, case)]
        assert value == pytest.approx(wanted, rel=SP) or min(value, wanted) > FLAT


@each(CASES)
def test_predictors_and_their_errors(case: Case) -> None:
    model, expected = fitted(case.id), case.expected
    fits = expected["link_fit"] if case.case else [expected["fit"]]
    errors = expected["link_se"] if case.case else [expected["se"]]
    links = model.predict(table(case.table).head(len(fits[0])), "linear", se=True)
    for parameter, theirs, se in zip(model.family.parameter_names, fits, errors, strict=False):
        whole = model.predict(which="linear", parameter=parameter)
        scale = max(float(np.ptp(whole)), max(se))
        assert np.abs(links[parameter]["estimate"] - theirs).max() < FIT * scale
        assert np.abs(links[parameter]["se"] / se - 1.0).max() < SE


def test_cubic_splines_with_a_shrunk_line_are_as_close_as_rounding_lets_them_be() -> None:
    model, expected = fitted(ROUNDING.id), ROUNDING.expected
    assert model.loglik == pytest.approx(expected["logLik"], abs=0.01)
    assert model.edf["loc", "s(x)"] == pytest.approx(expected["edf"]["s(x)"], abs=0.01)
