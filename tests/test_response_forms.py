"""What stands on the left side of a formula: the bounds that each form says, and its refusals."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import deepregress as dr
from deepregress.data import training_set
from deepregress.errors import (
    DroppedRowsWarning,
    FormulaError,
    PredictionError,
    ResponseError,
)
from deepregress.formula import expression_variables
from deepregress.response import Response
from deepregress.response_forms import Bounds, register_response

INF = np.inf
NAN = np.nan
DATA = {
    "t": [1.0, 2.0, 3.0, 4.0],
    "d": [1, 0, 0, 1],
    "e": [0.0, 1.0, 0.5, 2.0],
    "lo": [1.0, NAN, 3.0, 2.0],
    "up": [1.0, 2.0, NAN, 5.0],
    "lim": [2.0, 2.0, NAN, 2.0],
    "n": [5, 5, 5, 5],
    "dead": ["no", "yes", "no", "yes"],
    "x": [0.0, 1.0, 2.0, 3.0],
    "my time": [1.0, 2.0, 3.0, 4.0],
}


def read(text, data=DATA, **given):
    _, response = training_set(
        data, {}, response=text, response_variables=expression_variables(text), **given
    )
    return response


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("Surv(t, d)", [1, 2, 3, 4], [1, INF, INF, 4]),
        ("Surv(t)", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("Surv(t, d + 1)", [1, 2, 3, 4], [1, INF, INF, 4]),
        ("Surv(t, d == 0)", [1, 2, 3, 4], [INF, 2, 3, INF]),
        ("Surv(t, dead)", [1, 2, 3, 4], [INF, 2, INF, 4]),
        ("Surv(t, dead == 'no')", [1, 2, 3, 4], [1, INF, 3, INF]),
        ("Surv(t, d, type='left')", [1, -INF, -INF, 4], [1, 2, 3, 4]),
        ("Surv(`my time`, d)", [1, 2, 3, 4], [1, INF, INF, 4]),
        ("Surv(lo, up, type='interval2')", [1, -INF, 3, 2], [1, 2, INF, 5]),
        ("Surv(lo, up, type='interval')", [1, -INF, 3, 2], [1, 2, INF, 5]),
        ("interval(lo, up)", [1, -INF, 3, 2], [1, 2, INF, 5]),
        (
            "interval(log(lo), log(up))",
            [0, -INF, np.log(3), np.log(2)],
            [0, np.log(2), INF, np.log(5)],
        ),
        ("cens(t, lower=2)", [-INF, -INF, 3, 4], [2, 2, 3, 4]),
        ("cens(t, upper=3)", [1, 2, 3, 3], [1, 2, INF, INF]),
        ("cens(t, lower=1, upper=4)", [-INF, 2, 3, 4], [1, 2, 3, INF]),
        ("cens(t, lower=lim)", [-INF, -INF, 3, 4], [2, 2, 3, 4]),
        ("cens(t, lower=-1)", [1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_forms_give_bounds(text, lower, upper):
    response = read(text)
    np.testing.assert_allclose(response.lower, lower)
    np.testing.assert_allclose(response.upper, upper)
    assert response.label == text
    assert response.exact == np.array_equal(lower, upper)


def test_entry_and_truncation_say_between_what_a_row_is_seen():
    late = read("Surv(e, t, d)")
    assert late.entry.tolist() == [0.0, 1.0, 0.5, 2.0]
    assert late.upper.tolist() == [1.0, INF, INF, 4.0]
    cut = read("trunc(t, lower=0, upper=lim + 2)")
    assert cut.entry.tolist() == [0.0] * 4
    assert cut.exit.tolist() == [4.0, 4.0, INF, 4.0]
    assert cut.exact
    assert not cut.plain
    both = read("trunc(cens(t, upper=3), lower=0.5, upper=10)")
    assert both.lower.tolist() == [1.0, 2.0, 3.0, 3.0]
    assert both.upper.tolist() == [1.0, 2.0, 10.0, 10.0]


def test_several_columns_and_counts_of_trials():
    wide = read("cbind(t, x)")
    assert wide.lower.tolist() == [[1, 0], [2, 1], [3, 2], [4, 3]]
    assert wide.trials is None
    successes = read("t / n", known=("trials",))
    assert successes.lower.tolist() == [1, 2, 3, 4]
    assert successes.trials.tolist() == [5, 5, 5, 5]
    failures = read("cbind(t, n - t)", known=("trials",))
    assert failures.trials.tolist() == [5, 5, 5, 5]
    assert read("t / n").lower.tolist() == [0.2, 0.4, 0.6, 0.8]
    plain = read("d", known=("trials",))
    assert plain.trials is None


def test_a_missing_bound_is_open_and_a_missing_time_leaves_the_row_out():
    data = {**DATA, "t": [1.0, NAN, 3.0, 4.0], "d": [1, 0, None, 1]}
    with pytest.warns(DroppedRowsWarning, match=r"2 of 4 rows dropped: .*'Surv\(t, d\)' \(2\)"):
        assert read("Surv(t, d)", data).lower.tolist() == [1.0, 4.0]
    nothing = {**DATA, "lo": [1.0, NAN, 3.0, 2.0], "up": [1.0, NAN, NAN, 5.0]}
    with pytest.warns(DroppedRowsWarning, match="1 of 4 rows"):
        assert read("interval(lo, up)", nothing).upper.tolist() == [1.0, INF, 5.0]
    with pytest.warns(DroppedRowsWarning, match="1 of 4 rows"):
        # a comparison with a missing value is missing, not false
        read("Surv(t, dead == 'yes')", {**DATA, "dead": ["no", None, "no", "yes"]})


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("Surv(t, n)", ResponseError, r"the event n must be 0 \(censored\) and 1.*values 5"),
        ("Surv(t, x)", ResponseError, "it has the values 0, 1, 2, 3"),
        ("Surv(t, d, type='lefft')", FormulaError, "type must be one of right, left"),
        ("Surv(t, d, e, x)", FormulaError, r"4 arguments; write Surv\(time, event\)"),
        ("Surv(t, d, kind='left')", FormulaError, "unknown option kind=; allowed: type="),
        ("Surv(t, type='interval2')", FormulaError, "type 'interval2' takes 2 arguments, got 1"),
        ("Surv(t, e, d)", ResponseError, "t is not before e in 4 of 4 rows, the first is row 0"),
        ("interval(up, t - 1)", ResponseError, "up is above t - 1 in 3 of 4 rows"),
        ("interval(t)", FormulaError, r"1 arguments; write interval\(lower, upper\)"),
        ("cens(t)", FormulaError, "give lower=, upper= or both"),
        ("cens(t, lower=3, upper=2)", ResponseError, "lower limit is not below the upper one"),
        ("cens(dead, lower=0)", ResponseError, "dead is not a column of numbers"),
        ("trunc(t, lower=2)", ResponseError, "not above the lower .* in 2 of 4 rows"),
        ("trunc(cbind(t, x), lower=2)", FormulaError, "cannot be truncated"),
    ],
)
def test_forms_are_refused_with_the_users_words(text, error, match):
    with pytest.raises(error, match=match):
        read(text)


def test_trials_are_checked():
    with pytest.raises(ResponseError, match="more successes than trials in 1 of 4"):
        read("t / n", {**DATA, "n": [5, 1, 5, 5]}, known=("trials",))
    with pytest.raises(ResponseError, match="number of successes is not a count"):
        read("t / n", {**DATA, "t": [0.5, 1, 1, 1]}, known=("trials",))


def test_a_factor_event_needs_two_levels():
    data = {**DATA, "dead": pd.Categorical(["a", "b", "c", "a"])}
    with pytest.raises(ResponseError, match=r"dead has 3 levels \(a, b, c\); it must have two"):
        read("Surv(t, dead)", data)


def test_further_forms_can_be_registered(monkeypatch):
    monkeypatch.setattr("deepregress.response_forms._READERS", {})

    def rounded(call):
        y, digits = call.numbers(0), call.limit("digits", 0.0)
        return Bounds(y - 0.5 * 10.0**-digits, y + 0.5 * 10.0**-digits)

    register_response("rounded", rounded)
    response = read("rounded(t, digits=1)")
    np.testing.assert_allclose(response.upper - response.lower, 0.1)


def test_one_value_stands_for_each_row():
    response = Response(
        np.array([1.0, -INF, 3.0, 2.0]), np.array([1.0, 2.0, INF, 5.0]), np.ones(4), None, "y", None
    )
    assert response.y.tolist() == [1.0, 2.0, 3.0, 3.5]
    assert list(response.rows()) == ["lower", "upper", "exact", "right", "left", "interval"]
    assert response.take(np.array([0, 3])).upper.tolist() == [1.0, 5.0]


# -- what a fitted model says of such rows ---------------------------------------------------------


@pytest.fixture(scope="module")
def survival():
    rng = np.random.default_rng(0)
    x = rng.normal(size=1500)
    t = np.exp(1.0 + 0.5 * x) * rng.weibull(1.5, size=1500)
    c = rng.uniform(0.5, 8.0, size=1500)
    data = {"x": x, "t": np.minimum(t, c), "d": (t <= c).astype(int)}
    return data, dr.fit({"scale": "Surv(t, d) ~ x"}, data, "weibull")


def test_survival_hazard_and_their_kin(survival):
    _, model = survival
    at = np.array([0.5, 1.0, 4.0])
    rows = {"x": [0.0, 1.0]}
    scale = model.predict(rows, which="params", parameter="scale")
    k = np.exp(model.coef["concentration"].iloc[0])
    frozen = scipy.stats.weibull_min(k, scale=scale[:, None])
    survival = model.predict(rows, which="survival", at=at)
    np.testing.assert_allclose(survival, frozen.sf(at), rtol=1e-12)
    np.testing.assert_allclose(model.predict(rows, which="cumhazard", at=at), -np.log(survival))
    hazard = frozen.pdf(at) / frozen.sf(at)
    np.testing.assert_allclose(model.predict(rows, which="hazard", at=at), hazard, rtol=1e-10)
    np.testing.assert_allclose(model.predict(rows, which="median"), frozen.median()[:, 0])
    assert model.predict(rows, which="survival", at=0.0).tolist() == [1.0, 1.0]


def test_hazards_of_counts_are_conditional_probabilities():
    rng = np.random.default_rng(1)
    model = dr.fit("y ~ 1", {"y": rng.poisson(3.0, size=200).astype(float)}, "poisson")
    mean = np.exp(model.coef.iloc[0])
    law = scipy.stats.poisson(mean)
    y = np.arange(6.0)
    hazard = model.predict({"y": [0.0]}, which="hazard", at=y)[0]
    np.testing.assert_allclose(hazard, law.pmf(y) / law.sf(y - 1), rtol=1e-9)
    alive = np.cumprod(1.0 - hazard)
    np.testing.assert_allclose(model.predict({"y": [0.0]}, which="survival", at=y)[0], alive)


def test_residuals_of_censored_rows_are_standard_normal(survival):
    data, model = survival
    z = model.residuals()
    assert scipy.stats.kstest(z, "norm").pvalue > 0.01
    exact = data["d"] == 1
    own = scipy.stats.norm.ppf(model.predict(data, which="cdf"))
    np.testing.assert_allclose(z[exact], own[exact], rtol=1e-8)
    # a draw above what is known of a censored row
    assert np.all(z[~exact] >= own[~exact])
    deviance = model.residuals("deviance")
    assert np.isfinite(deviance).all()
    with pytest.raises(PredictionError, match="has censored or truncated rows"):
        model.residuals("pearson")


def test_residuals_of_truncated_rows_are_standard_normal():
    rng = np.random.default_rng(2)
    y = rng.normal(1.0, 1.0, size=4000)
    y = y[(y > 0.5) & (y < 3.0)]
    model = dr.fit("trunc(y, lower=0.5, upper=3) ~ 1", {"y": y})
    assert model.coef.to_numpy() == pytest.approx([1.0, 0.0], abs=0.2)
    assert scipy.stats.kstest(model.residuals(), "norm").pvalue > 0.01


def test_the_log_score_of_censored_rows_is_their_likelihood(survival):
    data, model = survival
    assert model.log_score() == pytest.approx(model.loglik / 1500, rel=1e-12)
    assert model.log_score(data) == pytest.approx(model.loglik / 1500, rel=1e-12)
    few = {name: column[:3] for name, column in data.items()}
    value = model.predict(few, which="logpdf")
    assert value.shape == (3,)
    with pytest.raises(PredictionError, match="no column 'd' of the response"):
        model.log_score({"x": [1.0], "t": [1.0]})


def test_a_summary_of_a_censored_fit_explains_its_deviance(survival):
    _, model = survival
    assert "Surv(t, d) ~ x" in str(model.summary())
    explained = re.search(r"Deviance explained = ([\d.]+)%", str(model.summary()))
    assert 5 < float(explained[1]) < 60
