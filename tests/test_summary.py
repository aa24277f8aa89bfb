"""The printed summary: layout of R's, numbers of the tables."""

import re

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from deepregress import datasets
from deepregress.model import fit
from deepregress.solvers.base import Training

MCYCLE = datasets.load("mcycle")


def lines_of(model) -> list[str]:
    return str(model.summary()).splitlines()


def numbers(line: str) -> list[float]:
    return [float(x) for x in re.findall(r"(?<![\w\[.])-?\d+\.?\d*(?:e-?\d+)?", line)]


def test_a_linear_model_prints_what_r_prints() -> None:
    data = datasets.load("engel")
    ols = smf.ols("foodexp ~ income", data).fit()
    lines = lines_of(fit("foodexp ~ income", data))
    assert "Family: normal" in lines
    assert "Links:  loc identity, scale log" in lines
    row = next(line for line in lines if line.startswith("income"))
    estimate, se, t = numbers(row)[:3]
    assert estimate == pytest.approx(ols.params["income"], abs=1e-4)
    assert se == pytest.approx(ols.bse["income"], abs=1e-4)
    assert t == pytest.approx(ols.tvalues["income"], abs=1e-3)
    assert row.endswith("<2e-16 ***")
    assert any(f"Scale est. = {ols.scale:.5g}" in line for line in lines)
    explained = (
        f"R-sq.(adj) = {ols.rsquared_adj:.3g}   Deviance explained = {100 * ols.rsquared:.3g}%"
    )
    assert explained in lines
    assert not any(line.startswith("--- scale") for line in lines)


def test_each_parameter_has_its_section() -> None:
    model = fit({"loc": "accel ~ s(times)", "scale": "~ s(times, k=5) + times2"},
                MCYCLE.assign(times2=np.cos(MCYCLE["times"])))  # fmt: skip
    lines = lines_of(model)
    at = [i for i, line in enumerate(lines) if line.startswith("---")]
    assert [lines[i] for i in at[:2]] == ["--- loc ---", "--- scale ---"]
    assert "Approximate significance of smooth terms:" in lines
    table = model.summary().smooth
    printed = [
        numbers(line.removeprefix("s(times)")) for line in lines if line.startswith("s(times)")
    ]
    for row, expected in zip(printed, table.itertuples(), strict=True):
        assert row[:3] == pytest.approx(list(expected)[1:4], abs=1e-3)
    assert list(table) == ["edf", "ref_df", "statistic", "p_value"]
    assert list(table.index) == [("loc", "s(times)"), ("scale", "s(times)")]


def test_columns_stand_below_their_heads() -> None:
    lines = lines_of(fit("accel ~ s(times) + I(times > 30)", MCYCLE))
    head = next(i for i, line in enumerate(lines) if "Estimate" in line)
    for name in ("Estimate", "Std. Error", "t value"):
        end = lines[head].index(name) + len(name)
        for line in lines[head + 1 : head + 3]:
            assert line[end - 1].isdigit()
            assert line[end] == " "


def test_deep_terms_have_a_table() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(rng.normal(size=(300, 3)), columns=["x", "z", "e"])
    data["y"] = data["x"] + np.tanh(3 * data["x"] * data["z"]) + 0.2 * data["e"]
    model = fit("y ~ x + deep(x, z)", data, seed=1, verbose=0, training=Training(epochs=40))
    summary = model.summary()
    row = summary.deep.loc[("loc", "deep(x,z)")]
    assert row["effect_sd"] == pytest.approx(
        model.predict(which="terms")["loc"]["deep(x,z)"].std(ddof=0)
    )
    assert row["score_difference"] == summary.statistics.score[0] > 10
    text = str(summary)
    assert "Deep terms" in text
    assert "Log score of held-out rows with minus without networks" in text
    assert "Standard errors are given the networks" in text
    html = summary._repr_html_()
    assert html.count("<table") == 2
    assert "deep(x,z)" in html


@pytest.mark.parametrize(
    ("formula", "absent"),
    [({"loc": "accel ~ 1", "scale": 1.0}, "scale ---"), ({"loc": "accel ~ 1"}, "smooth terms")],
)
def test_what_is_not_there_is_not_printed(formula, absent: str) -> None:
    text = str(fit(formula, MCYCLE).summary())
    assert absent not in text
    assert "nan" not in text


def test_an_offset_counts_in_the_null_model() -> None:
    data = datasets.load("bikeshare").head(400).assign(h=lambda d: np.log(d["humidity"]))
    model = fit("bikers ~ temp + offset(h)", data, "poisson")
    glm = smf.glm("bikers ~ temp", data, family=sm.families.Poisson(), offset=data["h"]).fit()
    explained = 1 - glm.deviance / glm.null_deviance
    assert model.summary().statistics.goodness.deviance_explained == pytest.approx(
        explained, rel=1e-6
    )


def test_anova_tests_each_term_once() -> None:
    data = datasets.load("chickweight")
    anova = fit("weight ~ diet + s(time, k=5)", data, "gamma").anova()
    assert list(anova.index) == [("mean", "diet"), ("mean", "s(time)")]
    assert anova.loc[("mean", "diet"), "ref_df"] == 3
    assert set(anova["test"]) == {"F"}


def test_training_without_success_is_said_plainly() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame(rng.normal(size=(300, 2)), columns=["x", "y"])
    model = fit("y ~ x + deep(x)", data, seed=1, verbose=0, training=Training(epochs=2))
    assert model.edf["loc", "deep(x)"] == 0.0
    assert "No deep effect" in str(model.summary())
    assert np.ptp(model.predict(which="terms")["loc"]["deep(x)"]) == 0.0
