"""`fit` as a user calls it: choices, refusals, warnings, and what must not change a fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import ConvergenceWarning, FitError, FormulaError, ResponseError


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    n = 200
    x, z = rng.random(n), rng.random(n)
    y = np.sin(6 * x) + np.exp(-1 + z) * rng.normal(size=n)
    return pd.DataFrame({"x": x, "z": z, "y": y, "count": rng.poisson(3, n), "one": 1.0})


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"method": "AIC"}, "method must be one of REML, ML, GCV, fixed, got 'AIC'"),
        ({"orthogonalize": "postoc"}, "got 'postoc'; did you mean 'posthoc'"),
    ],
)
def test_choices_are_checked(table, given, match):
    with pytest.raises(FitError, match=match):
        dr.fit("y ~ x", table, **given)


def test_a_parameter_can_be_fixed(table):
    fixed = dr.fit({"loc": "y ~ x", "scale": 0.5}, table)
    assert (fixed.predict(table, which="params")["scale"] == 0.5).all()
    X = np.column_stack([np.ones(len(table)), table["x"]])
    least_squares = np.linalg.lstsq(X, table["y"], rcond=None)[0]
    np.testing.assert_allclose(fixed.coef["loc"], least_squares, rtol=1e-6)
    errors = 0.5 * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    np.testing.assert_allclose(fixed.std_error["loc"], errors, rtol=1e-6)


def test_a_parameter_cannot_be_fixed_outside_its_range(table):
    with pytest.raises(FormulaError, match="'scale' of family 'normal' cannot be fixed at -1"):
        dr.fit({"loc": "y ~ x", "scale": -1.0}, table)


def test_a_constant_response_is_refused(table):
    with pytest.raises(ResponseError, match=r"'one' is constant \(1 in all 200 rows\)"):
        dr.fit("one ~ x", table)


@pytest.mark.parametrize(
    ("formula", "family"),
    [("y ~ x", "normal"), ("y ~ s(x)", "normal"), ("y ~ x", "gamma")],
)
def test_an_exact_fit_is_refused(table, formula, family):
    exact = table.assign(y=np.exp(table["x"]) if family == "gamma" else 2 * table["x"] + 1)
    with pytest.raises(FitError, match="the terms fit 'y' exactly"):
        dr.fit(formula, exact, family=family)


def test_separation_is_warned_of(table):
    with pytest.warns(ConvergenceWarning, match=r"probabilities numerically 0 or 1 in 200 of 200"):
        model = dr.fit("I(y > 0) ~ one_sided", separated(table), family="bernoulli")
    assert np.isfinite(model.coef).all()
    zero = table.assign(count=np.where(table["x"] < 0.3, 0, table["count"]), low=table["x"] < 0.3)
    with pytest.warns(ConvergenceWarning, match="means numerically 0 in"):
        dr.fit("count ~ low", zero, family="poisson")


def separated(table):
    return table.assign(one_sided=np.where(table["y"] > 0, 1.0, -1.0) * (1 + table["x"]))


@pytest.mark.parametrize("k", [30, 48])
def test_a_basis_as_large_as_the_data_still_fits(table, k):
    model = dr.fit(f"y ~ s(x, k={k})", table.iloc[:50])
    assert model.converged
    assert 1 < model.edf["loc", "s(x)"] < 20


def test_more_coefficients_than_rows_still_fit(table):
    model = dr.fit("y ~ s(x, k=20) + s(z, k=20)", table.iloc[:30])
    assert model.converged
    assert np.isfinite(model.std_error).all()


def test_columns_that_determine_each_other_are_refused(table):
    with pytest.raises(FitError, match=r"among them those of s\(x\), s\(other\)"):
        dr.fit("y ~ s(x) + s(other)", table.assign(other=2 * table["x"] + 1))


def test_scaling_of_response_and_covariates_changes_nothing_but_units(table):
    plain = dr.fit({"loc": "y ~ s(x) + z", "scale": "~ s(z)"}, table)
    scaled = table.assign(y=1e6 * table["y"] + 3e7, x=1e-3 * table["x"], z=1e3 * table["z"])
    other = dr.fit({"loc": "y ~ s(x) + z", "scale": "~ s(z)"}, scaled)
    np.testing.assert_allclose(other.edf, plain.edf, atol=1e-3)
    assert other.loglik == pytest.approx(plain.loglik - 200 * np.log(1e6), rel=1e-7)
    mean = plain.predict(table, which="mean")
    np.testing.assert_allclose(other.predict(scaled, which="mean"), 1e6 * mean + 3e7, rtol=1e-5)


def test_a_structured_fit_is_deterministic(table):
    one, two = (dr.fit({"loc": "y ~ s(x)", "scale": "~ s(z)"}, table) for _ in range(2))
    np.testing.assert_array_equal(one.coef, two.coef)
    assert one.reml == two.reml


def test_maximum_likelihood_is_mgcvs():
    # R 4.2.2, mgcv 1.8-41: gam(accel ~ s(times, k = 20, bs = "ps", m = c(2, 2)), method = "ML")
    model = dr.fit("accel ~ s(times, k=20, bs='ps')", dr.datasets.load("mcycle"), method="ML")
    assert model.reml == pytest.approx(621.950526, abs=1e-5)
    assert "-ML = 621.95" in str(model.summary())
    assert model.loglik == pytest.approx(-597.366143, abs=1e-4)
    assert model.edf["loc", "s(times)"] == pytest.approx(10.986037, abs=1e-3)
    assert model.sp["loc", "s(times)"] == pytest.approx(3.63305867, rel=1e-3)
    assert model.coef["scale", "(Intercept)"] == pytest.approx(np.log(512.610168) / 2, abs=1e-5)


def test_fixed_smoothing_parameters_must_be_given(table):
    with pytest.raises(FormulaError, match=r"method='fixed': s\(z\) in the formula for 'scale'"):
        dr.fit({"loc": "y ~ s(x, sp=1)", "scale": "~ s(z)"}, table, method="fixed")
    model = dr.fit({"loc": "y ~ s(x, sp=1)", "scale": "~ s(z, df=3)"}, table, method="fixed")
    assert model.sp["loc", "s(x)"] == pytest.approx(1.0)
    assert model.edf["scale", "s(z)"] == pytest.approx(3.0, abs=1e-4)


def test_the_better_of_two_maxima_is_found():
    # R 4.2.2, mgcv 1.8-41: gam(y ~ o + te(x, z, by = o, k = 4), method = "REML") on the same table;
    # another maximum has 309.525
    table = pd.read_csv(Path(__file__).parents[1] / "data" / "reference" / "terms.csv")
    model = dr.fit("y ~ o + te(x, z, by=o, k=4)", table)
    assert model.reml == pytest.approx(309.4268, abs=1e-3)


@pytest.mark.parametrize("family", ["student_t", "beta", "lognormal", "weibull"])
def test_a_coefficient_per_row_is_refused(family):
    """The density of a continuous family has no maximum then."""
    y = np.random.default_rng(0).uniform(0.1, 0.9, size=40)
    data = pd.DataFrame({"y": y, "id": [f"row {i}" for i in range(40)]})
    with pytest.raises(dr.errors.FitError, match="40 rows for 40 coefficients"):
        dr.fit("y ~ id", data, family)
