"""Tests, corrected degrees of freedom, variance components, comparisons: against mgcv.

The numbers are in data/reference/inference.json. Ours and mgcv's fits differ by what convergence
leaves, about 1e-5 in smoothing parameters; statistics and degrees of freedom follow them. mgcv
finds the tail of a weighted sum of chi-squares to 2e-5 only, so p-values of random effects are
compared to that; where it gives 0, ours is below it.
"""

import functools
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress.assembly import assemble
from deepregress.errors import DeepRegressWarning, FitError
from deepregress.estimates import anova
from deepregress.fitted import FittedModel
from deepregress.inference.corrected import CorrectedInference, SmoothingUncertainty
from deepregress.inference.term_tests import random_effects
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
EXPECTED = json.loads((REFERENCE / "inference.json").read_text())
RING = "ABCDEF"
NEAR = {area: [RING[i - 1], RING[(i + 1) % 6]] for i, area in enumerate(RING)}

# name: formulas, family, method
MODELS = {
    "smooth": ("y ~ s(x) + s(z)", "normal", "REML"),
    "smooth_ml": ("y ~ s(x) + s(z)", "normal", "ML"),
    "three": ("y ~ s(x) + s(z) + s(w)", "normal", "REML"),
    "te": ("y ~ te(x, z) + s(w)", "normal", "REML"),
    "by": ("y ~ o + s(x, by=o)", "normal", "REML"),
    "re": ("y ~ s(x) + (1 | g)", "normal", "REML"),
    "re_ml": ("y ~ s(x) + (1 | g)", "normal", "ML"),
    "re_slope": ("y ~ x + (x | g)", "normal", "REML"),
    "re_two": ("y ~ s(x) + (1 | area) + (1 | o)", "normal", "REML"),
    "re_cells": ("y ~ s(z) + s(g, o, bs='re')", "normal", "REML"),
    "re_null": ("w ~ s(g, bs='re') + s(x)", "normal", "REML"),
    "ts": ("y ~ s(x, bs='ts') + s(w, bs='ts')", "normal", "REML"),
    "fs": ("y ~ s(g, x, bs='fs', k=5, m=1)", "normal", "REML"),
    "mrf": (f"y ~ s(x) + s(area, bs='mrf', xt={NEAR})", "normal", "REML"),
    "select": (
        "y ~ s(x, select=True) + s(z, select=True) + s(w, select=True)",
        "normal",
        "REML",
    ),
    "fixed": ("y ~ s(x, sp=2) + s(z)", "normal", "REML"),
    "poisson": ("count ~ s(x) + (1 | g)", "poisson", "REML"),
    "poisson_cells": ("count ~ s(x) + s(g, o, bs='re')", "poisson", "REML"),
    "poisson_smooth": ("count ~ s(x) + s(z)", "poisson", "REML"),
    "binary": ("binary ~ s(x) + (1 | g)", "bernoulli", "REML"),
    "gamma": ("positive ~ s(x) + s(z)", "gamma", "REML"),
    "gamma_re": ("positive ~ s(x) + (1 | g)", "gamma", "REML"),
    "scale": (["y ~ s(x) + s(z)", "scale ~ s(w)"], "normal", "REML"),
    "scale_re": (["spread ~ x + (1 | o)", "scale ~ (1 | g)"], "normal", "REML"),
    "sleep": ("Reaction ~ Days + (Days | Subject)", "normal", "REML"),
    "sleep_int": ("Reaction ~ Days + (1 | Subject)", "normal", "REML"),
}


@functools.cache
def table(name: str) -> pd.DataFrame:
    if name.startswith("sleep"):
        data = pd.read_csv(REFERENCE.parent / "sleepstudy.csv")
        data.columns = [column.capitalize() for column in data]
        return data.astype({"Subject": str})
    data = pd.read_csv(REFERENCE / "terms.csv")
    data["positive"] = np.round(np.exp(data["y"] / 3), 6)
    spread = dict(zip([f"l{i}" for i in range(1, 7)], (0, 0.8, -0.6, 0.4, -0.9, 0.5), strict=True))
    logs = data["g"].map(spread)
    data["spread"] = np.round(data["x"] + data["w"] * np.exp(logs), 6)
    data["part"] = data["count"].clip(upper=12)
    data["rest"] = 12 - data["part"]
    data["binary"] = (data["y"] > 0.5).astype(float)
    return data


@functools.cache
def fitted(name: str) -> FittedModel:
    formula, family, method = MODELS[name]
    given = list(formula) if isinstance(formula, list) else formula
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* columns dropped", DeepRegressWarning)
        return fit(given, table(name), family, method=method)


EDF, STATISTIC, TAIL, ERROR, LIMIT = 2e-3, 2e-3, 3e-5, 5e-4, 4e-4
"""Absolute in degrees of freedom, relative in statistics, absolute in p-values of weighted
chi-squares, relative in standard errors and in the limits of standard deviations."""
FLAT = 1e3
"""Limits of a variance component further apart than this factor are those of none at all."""
# mgcv's covariances have another dispersion (Pearson's) than its REML score: edf agree, F not
OTHER_DISPERSION = {"gamma", "gamma_re"}
# the third part of V_c hangs on the order of the columns, which differs from mgcv's here
OTHER_ORDER = {"re_cells", "poisson_cells", "mrf"}
# in families with several predictors mgcv leaves out how random effects move with their variance
LEFT_OUT = {"scale_re"}
# with a fixed sp beside an estimated dispersion the two maximise REML in different ways
FIXED = {"fixed"}
PLAIN = [name for name in MODELS if name not in OTHER_DISPERSION | FIXED]
SAME = [name for name in PLAIN if name not in OTHER_ORDER | LEFT_OUT]


def each(given: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", given)


@each(PLAIN)
def test_smooths_and_random_effects_are_tested_as_by_mgcv(name: str) -> None:
    ours = fitted(name).summary().smooth.to_numpy()
    theirs = np.array(EXPECTED["models"][name]["table"], dtype=float)
    # the statistic of a variance of zero goes to zero with it, and only the p-value has a limit
    settled = theirs[:, 0] > EDF
    np.testing.assert_allclose(ours[settled, :3], theirs[settled, :3], rtol=STATISTIC)
    np.testing.assert_allclose(ours[~settled, 1], theirs[~settled, 1], rtol=STATISTIC)
    np.testing.assert_allclose(ours[:, 3], theirs[:, 3], atol=TAIL, rtol=STATISTIC)


@each([name for name in MODELS if name not in FIXED])
def test_corrected_degrees_of_freedom_and_aic(name: str) -> None:
    model, expected = fitted(name), EXPECTED["models"][name]
    constant = model.solution.dispersion is not None
    tolerance = 3e-3 if name in OTHER_ORDER else EDF
    assert model.edf_total - constant == pytest.approx(expected["edf"], abs=EDF)
    if name not in LEFT_OUT:
        assert model.edf2_total - constant == pytest.approx(expected["edf2"], abs=tolerance)
        assert model.aic_corrected == pytest.approx(expected["AIC"], abs=2 * tolerance + EDF)
    assert model.edf2.sum() == pytest.approx(model.edf2_total)
    assert model.edf_total - 1e-9 <= model.edf2_total <= model.inference.edf1.sum() + 1e-9


@each(sorted(LEFT_OUT))
def test_what_mgcv_leaves_out_explains_the_difference(name: str) -> None:
    """Random effects held still in J: degrees of freedom are then mgcv's."""
    model, expected = fitted(name), EXPECTED["models"][name]
    objective, _ = assemble(model.family, model.response, model.designs, model.frame)
    uncertainty = SmoothingUncertainty.of(objective, model.solution)
    J = uncertainty.J.copy()
    J[random_effects(model._predictors)] = 0.0
    held = CorrectedInference.of(replace(uncertainty, J=J), model.solution, model.inference)
    assert held.edf.sum() == pytest.approx(expected["edf2"], abs=EDF)
    assert model.edf2_total > held.edf.sum() + 0.05


@each(SAME)
def test_corrected_standard_errors(name: str) -> None:
    model, expected = fitted(name), EXPECTED["models"][name]
    first, rows = model.family.parameter_names[0], table(name).head(10)
    plain = model.predict(rows, "linear", parameter=first, se=True)["se"]
    corrected = model.corrected().predict(rows, "linear", parameter=first, se=True)["se"]
    np.testing.assert_allclose(plain, expected["se"], rtol=ERROR)
    np.testing.assert_allclose(corrected, expected["se_corrected"], rtol=ERROR)


@each([n for n in MODELS if EXPECTED["models"][n]["vcomp"] is not None and n not in FIXED])
def test_variance_components(name: str) -> None:
    ours = fitted(name).variance_components()
    theirs = np.array(EXPECTED["models"][name]["vcomp"], dtype=float)
    assert len(ours) == len(theirs)
    for row, wanted in zip(ours.to_numpy(), theirs, strict=True):
        if np.isnan(wanted).any() or wanted[2] > FLAT * wanted[0]:
            assert row[2] > FLAT * row[0]
            assert row[1] < row[0] / FLAT
        else:
            # in location-scale models our search stops when log sp is known to 3e-3
            np.testing.assert_allclose(row, wanted, rtol=4e-3 if name == "scale" else LIMIT)


def test_variance_components_are_those_of_lme4() -> None:
    components = fitted("sleep").variance_components()["std_dev"]
    # lmer(Reaction ~ Days + (Days || Subject)), lme4 1.1-31
    wanted = {"s(Subject)": 25.0513, "s(Subject,Days)": 5.9882}
    for term, std_dev in wanted.items():
        assert components["loc", term] == pytest.approx(std_dev, rel=1e-4)
    assert components["scale", "Residual"] == pytest.approx(25.5653, rel=1e-4)


COMPARISONS = {
    "gaussian_F": (["y ~ s(x)", "y ~ s(x) + s(z)", "y ~ s(x) + s(z) + g"], "normal"),
    "gaussian_chisq": (["y ~ s(x)", "y ~ s(x) + g"], "normal"),
    "gaussian_down": (["y ~ s(x) + g", "y ~ s(x)"], "normal"),
    "linear_F": (["y ~ x", "y ~ x + g"], "normal"),
    "poisson_chisq": (
        ["count ~ s(x)", "count ~ s(x) + s(z)", "count ~ s(x) + s(z) + g"],
        "poisson",
    ),
    "binomial_chisq": (["cbind(part, rest) ~ s(x)", "cbind(part, rest) ~ s(x) + g"], "binomial"),
    "scale_chisq": (["y ~ s(x)", ["y ~ s(x) + g", "scale ~ s(w)"]], "normal"),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_of_models(name: str) -> None:
    formulas, family = COMPARISONS[name]
    first, *others = (fit(formula, table("terms"), family) for formula in formulas)
    test = "F" if name in ("gaussian_F", "gaussian_down", "linear_F") else "Chisq"
    ours = anova(first, *others, test=test)
    theirs = np.array(EXPECTED["comparisons"][name], dtype=float)
    # our model with a constant scale has its REML estimate, mgcv's gaulss the maximum of the
    # penalised likelihood
    tolerance = 0.05 if name == "scale_chisq" else 3e-3
    np.testing.assert_allclose(ours.to_numpy()[:, :4], theirs[:, :4], atol=tolerance)
    if test == "F":
        np.testing.assert_allclose(ours["statistic"], theirs[:, 4], rtol=1e-4)
    np.testing.assert_allclose(np.log(ours["p_value"]), np.log(theirs[:, -1]), rtol=2e-3)


def test_an_automatic_comparison_is_F_where_a_dispersion_is_estimated() -> None:
    small, large = (fit(formula, table("terms")) for formula in COMPARISONS["linear_F"][0])
    pd.testing.assert_frame_equal(small.anova(large), small.anova(large, test="F"))
    assert list(small.anova(large, test=None)) == ["resid_df", "resid_dev", "df", "deviance"]


def test_models_that_are_not_comparable_are_refused() -> None:
    data = table("terms")
    model = fit("y ~ x", data)
    cases = [
        (fit("count ~ x", data, "poisson"), "one family"),
        (fit("positive ~ x", data), "one response"),
        (fit("y ~ x", data.head(100)), "same rows"),
        (fit("y ~ x", data.assign(y=data["y"] + 1.0)), "responses or weights"),
        (fit("y ~ s(x)", data, method="ML"), "one method"),
    ]
    for other, message in cases:
        with pytest.raises(FitError, match=message):
            model.anova(other)
    with pytest.raises(FitError, match="tests are auto, Chisq, F"):
        model.anova(model, test="chi")
    counts = fit("count ~ x", data, "poisson")
    with pytest.raises(FitError, match="estimated dispersion"):
        counts.anova(counts, test="F")
