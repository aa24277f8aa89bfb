"""What a user asks a fitted model, against statsmodels, SciPy and closed forms."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
import statsmodels.formula.api as smf
import tensorflow_probability as tfp

from deepregress import datasets
from deepregress.data import Frame
from deepregress.errors import DataError, PredictionError
from deepregress.fitted import FittedModel
from deepregress.loading import load
from deepregress.model import fit
from deepregress.solvers.base import Training

ROOT = Path(__file__).resolve().parent.parent
ENGEL = datasets.load("engel")
MCYCLE = datasets.load("mcycle")
GBSG2 = datasets.load("gbsg2")
CHICKS = datasets.load("chickweight")
EXACT = 1e-6
"""Relative to another program's optimum of the same unpenalised likelihood."""


@pytest.fixture(scope="module")
def linear() -> FittedModel:
    return fit("foodexp ~ income", ENGEL)


@pytest.fixture(scope="module")
def mcycle() -> FittedModel:
    return fit({"loc": "accel ~ s(times, k=20)", "scale": "~ s(times, k=10)"}, MCYCLE)


@pytest.fixture(scope="module")
def logit() -> FittedModel:
    return fit("event ~ s(age) + log(nodes) + hormone * menostat + grade", GBSG2, "bernoulli")


@pytest.fixture(scope="module")
def deep() -> FittedModel:
    data = datasets.load("sacramento").assign(price=lambda d: d["price"] / 1000)
    formula = {
        "mean": "price ~ s(sqft) + type + beds + deep(longitude, latitude)",
        "dispersion": "~ s(sqft)",
    }
    return fit(formula, data, "gamma", seed=1, verbose=0, training=Training(epochs=40))


@pytest.fixture(scope="module")
def houses() -> pd.DataFrame:
    return datasets.load("sacramento").assign(price=lambda d: d["price"] / 1000)


# estimates


def test_linear_model_is_least_squares(linear: FittedModel) -> None:
    ols = smf.ols("foodexp ~ income", ENGEL).fit()
    assert linear.coef["loc"].to_numpy() == pytest.approx(ols.params.to_numpy(), rel=EXACT)
    assert linear.std_error["loc"].to_numpy() == pytest.approx(ols.bse.to_numpy(), rel=EXACT)
    assert linear.cov.loc["loc", "loc"].to_numpy() == pytest.approx(
        ols.cov_params().to_numpy(), rel=EXACT
    )
    assert linear.loglik == pytest.approx(ols.llf, rel=EXACT)
    summary = linear.summary()
    assert summary.statistics.scale == pytest.approx(ols.scale, rel=EXACT)
    assert summary.statistics.goodness.r_squared == pytest.approx(ols.rsquared_adj, rel=EXACT)
    assert summary.statistics.goodness.deviance_explained == pytest.approx(ols.rsquared, rel=EXACT)
    table = summary.parametric.loc["loc"]
    assert table["statistic"].to_numpy() == pytest.approx(ols.tvalues.to_numpy(), rel=EXACT)
    assert table["p_value"].to_numpy() == pytest.approx(ols.pvalues.to_numpy(), rel=1e-4)


def test_information_criteria_count_the_scale(linear: FittedModel) -> None:
    ols = smf.ols("foodexp ~ income", ENGEL).fit()
    assert linear.edf_total == pytest.approx(3.0)
    assert linear.aic == pytest.approx(ols.aic + 2.0, rel=EXACT)
    assert linear.bic == pytest.approx(ols.bic + np.log(len(ENGEL)), rel=EXACT)
    assert (linear.nobs, linear.converged) == (235, True)


def test_poisson_is_glm() -> None:
    data = datasets.load("bikeshare").head(500)
    model = fit("bikers ~ temp + C(weather) + offset(log(humidity))", data, "poisson")
    glm = smf.glm(
        "bikers ~ temp + C(weather)",
        data.assign(weather=data["weather"].cat.remove_unused_categories()),
        family=sm.families.Poisson(),
        offset=np.log(data["humidity"]),
    ).fit(tol=1e-12)
    assert model.coef.to_numpy() == pytest.approx(reorder(glm.params, model), rel=EXACT)
    assert model.loglik == pytest.approx(glm.llf, rel=EXACT)
    explained = 1 - glm.deviance / glm.null_deviance
    assert model.summary().statistics.goodness.deviance_explained == pytest.approx(
        explained, rel=EXACT
    )
    assert model.residuals("deviance") == pytest.approx(glm.resid_deviance.to_numpy(), abs=1e-6)
    assert model.residuals("pearson") == pytest.approx(glm.resid_pearson.to_numpy(), rel=1e-5)
    expected = glm.get_prediction(data.head(5), offset=np.log(data["humidity"].head(5)))
    frame = expected.summary_frame()
    ours = model.predict(data.head(5), se=True, interval=0.95)
    assert ours["estimate"].to_numpy() == pytest.approx(frame["mean"].to_numpy(), rel=EXACT)
    assert ours["se"].to_numpy() == pytest.approx(frame["mean_se"].to_numpy(), rel=1e-5)
    assert ours["lower"].to_numpy() == pytest.approx(frame["mean_ci_lower"].to_numpy(), rel=1e-5)
    assert ours["upper"].to_numpy() == pytest.approx(frame["mean_ci_upper"].to_numpy(), rel=1e-5)


def reorder(params: pd.Series, model: FittedModel) -> np.ndarray:
    """Parameters of statsmodels in the order of our names."""
    names = {"(Intercept)": "Intercept"}
    return params[[names.get(name, name) for _, name in model.coef.index]].to_numpy()


def test_tables_are_indexed_by_parameter(mcycle: FittedModel) -> None:
    assert mcycle.coef.index.names == ["parameter", "name"]
    assert list(mcycle.edf.index) == [
        ("loc", "(Intercept)"), ("loc", "s(times)"),
        ("scale", "(Intercept)"), ("scale", "s(times)"),
    ]  # fmt: skip
    assert list(mcycle.sp.index) == [("loc", "s(times)"), ("scale", "s(times)")]
    assert mcycle.cov.shape == (30, 30)
    assert mcycle.edf.sum() == pytest.approx(mcycle.edf_total)
    assert np.sqrt(np.diag(mcycle.cov)) == pytest.approx(mcycle.std_error.to_numpy())
    assert {"phase", "reml"} <= set(mcycle.history)


# predictions


def test_predictions_of_a_normal_response(mcycle: FittedModel) -> None:
    rows = MCYCLE.iloc[::10]
    theta = mcycle.predict(rows, "params")
    law = scipy.stats.norm(theta["loc"], theta["scale"])
    assert mcycle.predict(rows) == pytest.approx(theta["loc"].to_numpy())
    assert mcycle.predict(rows, "median") == pytest.approx(law.median())
    assert mcycle.predict(rows, "variance") == pytest.approx(law.var())
    assert mcycle.predict(rows, "cdf") == pytest.approx(law.cdf(rows["accel"]))
    assert mcycle.predict(rows, "pdf") == pytest.approx(law.pdf(rows["accel"]))
    assert mcycle.predict(rows, "logpdf") == pytest.approx(law.logpdf(rows["accel"]))
    assert mcycle.predict(rows, "cdf", at=-50.0) == pytest.approx(law.cdf(-50.0))
    levels = [0.05, 0.5, 0.95]
    expected = law.ppf(np.array(levels)[:, None]).T
    assert mcycle.predict(rows, "quantile", at=levels) == pytest.approx(expected)
    own = np.tile(rows["accel"].to_numpy()[:, None], (1, 2))
    assert mcycle.predict(rows, "cdf", at=own)[:, 1] == pytest.approx(law.cdf(rows["accel"]))
    linear = mcycle.predict(rows, "linear")
    assert np.exp(linear["scale"].to_numpy()) == pytest.approx(theta["scale"].to_numpy())
    assert mcycle.log_score(rows) == pytest.approx(law.logpdf(rows["accel"]).mean())
    assert mcycle.log_score() == pytest.approx(mcycle.loglik / mcycle.nobs)


@pytest.mark.parametrize("which", ["mean", "params", "linear", "terms"])
def test_without_new_data_the_training_rows_are_predicted(which: str, mcycle: FittedModel) -> None:
    assert np.array_equal(mcycle.predict(which=which), mcycle.predict(MCYCLE, which))


def test_quantiles_invert_the_distribution(logit: FittedModel, deep: FittedModel, houses) -> None:
    p = deep.predict(houses, "cdf")
    y = deep.predict(houses, "quantile", at=p[:, None])[:, 0]
    assert y == pytest.approx(houses["price"].to_numpy(), rel=1e-6)
    assert set(np.unique(logit.predict(GBSG2, "quantile", at=0.7))) == {0.0, 1.0}


def test_probabilities_of_levels(logit: FittedModel) -> None:
    named = GBSG2.assign(event=pd.Categorical(np.where(GBSG2["event"] == 1, "yes", "no")))
    model = fit("event ~ age", named, "bernoulli")
    table = model.predict(named.head(4), "prob")
    assert list(table) == ["no", "yes"]
    assert table.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert table["yes"].to_numpy() == pytest.approx(model.predict(named.head(4)))
    assert model.predict(named.head(4), "prob", at=1) == pytest.approx(table["yes"].to_numpy())
    chosen = np.where(named["event"].head(4) == "yes", table["yes"], table["no"])
    assert model.predict(named.head(4), "pdf") == pytest.approx(chosen)
    assert logit.predict(GBSG2.head(2), "prob", at=[0, 1]).shape == (2, 2)


def test_standard_errors_of_the_mean_are_those_of_least_squares(linear: FittedModel) -> None:
    rows = ENGEL.iloc[:7]
    ols = smf.ols("foodexp ~ income", ENGEL).fit().get_prediction(rows)
    ours = linear.predict(rows, se=True, interval=0.9)
    assert ours["se"].to_numpy() == pytest.approx(ols.se_mean, rel=1e-5)
    z = scipy.stats.norm.ppf(0.95)
    assert (ours["upper"] - ours["estimate"]).to_numpy() == pytest.approx(z * ols.se_mean, rel=1e-5)
    assert list(linear.predict(rows, interval=0.9)) == ["estimate", "lower", "upper"]


def test_intervals_go_through_the_link(logit: FittedModel) -> None:
    rows = GBSG2.head(9)
    eta = logit.predict(rows, "linear", se=True, interval=0.95)["prob"]
    prob = logit.predict(rows, "params", se=True, interval=0.95, parameter="prob")
    for name in ("estimate", "lower", "upper"):
        assert prob[name].to_numpy() == pytest.approx(scipy.special.expit(eta[name]).to_numpy())
    slope = prob["estimate"] * (1 - prob["estimate"])
    assert prob["se"].to_numpy() == pytest.approx((slope * eta["se"]).to_numpy(), rel=1e-6)
    assert prob.index.equals(rows.index)


def test_a_falling_link_keeps_lower_below_upper() -> None:
    data = pd.DataFrame({"y": [1.0, 1.5, 2.1, 2.4, 3.2], "x": [5.0, 4.0, 3.0, 2.0, 1.0]})
    model = fit("y ~ x", data, "gamma", link="inverse")
    limits = model.predict(data, interval=0.95)
    assert (limits["lower"] < limits["estimate"]).all()
    assert (limits["estimate"] < limits["upper"]).all()


def test_a_mean_of_two_predictors_takes_both_errors() -> None:
    # E y = mean for gamma: its error does not depend on the dispersion, Cov(eta) has a block each
    model = fit({"mean": "weight ~ time", "dispersion": "~ time"}, CHICKS, "gamma")
    rows = CHICKS.head(4)
    eta = model.predict(rows, "linear", se=True)["mean"]
    mean = model.predict(rows, se=True)
    assert mean["se"].to_numpy() == pytest.approx(
        (mean["estimate"] * eta["se"]).to_numpy(), rel=1e-6
    )


# terms and effects


def test_terms_add_up_to_the_predictor(logit, mcycle, deep, houses) -> None:
    for model, data in ((logit, GBSG2), (mcycle, MCYCLE), (deep, houses)):
        linear = model.predict(data.head(50), "linear")
        for name in model.family.parameter_names:
            terms = model.predict(data.head(50), "terms", parameter=name)
            assert terms.sum(axis=1).to_numpy() == pytest.approx(linear[name].to_numpy())


def test_linear_effects_are_centred_and_factors_are_contrasts(logit: FittedModel) -> None:
    terms = logit.predict(which="terms")
    assert terms["log(nodes)"].mean() == pytest.approx(0.0, abs=1e-12)
    assert terms["s(age)"].mean() == pytest.approx(0.0, abs=1e-12)
    effect = logit.partial_effect("grade").set_index("grade")
    assert effect.loc["I", ["effect", "se"]].tolist() == [0.0, 0.0]
    assert effect.loc["III", "effect"] == pytest.approx(logit.coef["prob", "grade[T.III]"])
    assert effect.loc["III", "se"] == pytest.approx(logit.std_error["prob", "grade[T.III]"])
    crossed = logit.partial_effect("hormone:menostat")
    assert (crossed["effect"] != 0).sum() == 1


def test_partial_effects_are_the_terms_of_the_rows(logit, mcycle, deep, houses) -> None:
    for model, data, label, parameter in (
        (logit, GBSG2, "log(nodes)", None),
        (logit, GBSG2, "hormone:menostat", None),
        (mcycle, MCYCLE, "s(times)", "scale"),
        (deep, houses, "deep(longitude, latitude)", None),
        (deep, houses, "s(sqft)", "mean"),
    ):
        effect = model.partial_effect(label, parameter, grid=data)
        first = parameter or model.family.parameter_names[0]
        terms = model.predict(data, "terms", se=True, parameter=first)
        own = terms[label.replace(", ", ",")]
        assert effect["effect"].to_numpy() == pytest.approx(own["estimate"].to_numpy(), abs=1e-9)
        assert effect["se"].to_numpy() == pytest.approx(own["se"].to_numpy(), abs=1e-9)


def test_smooths_by_level_are_one_table_or_several() -> None:
    model = fit("weight ~ diet + s(time, by=diet, k=5)", CHICKS)
    together = model.partial_effect("s(time):diet", grid=4)
    assert list(together) == ["diet", "time", "effect", "se", "lower", "upper"]
    assert len(together) == 16
    second = model.partial_effect("s(time):diet2", grid=4)
    rows = together[together["diet"] == "2"]
    assert second["effect"].to_numpy() == pytest.approx(rows["effect"].to_numpy())
    given = model.partial_effect("s(time):diet2", grid={"time": [0.0, 21.0]})
    assert given["effect"].to_numpy() == pytest.approx(second["effect"].to_numpy()[[0, -1]])


def test_a_numeric_by_is_shown_at_one() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.random(200), "z": rng.normal(size=200)})
    data["y"] = np.sin(6 * data["x"]) * data["z"] + 0.1 * rng.normal(size=200)
    model = fit("y ~ s(x, by=z)", data)
    effect = model.partial_effect("s(x):z", grid=20)
    assert effect["effect"].to_numpy() == pytest.approx(np.sin(6 * effect["x"]).to_numpy(), abs=0.1)


def test_simultaneous_bands_are_wider_and_cover_whole_curves(mcycle: FittedModel) -> None:
    point = mcycle.partial_effect("s(times)", grid=50)
    whole = mcycle.partial_effect("s(times)", grid=50, simultaneous=True)
    ratio = (whole["upper"] - whole["effect"]) / (point["upper"] - point["effect"])
    assert np.ptp(ratio) < 1e-9
    assert 1.3 < ratio.iloc[0] < 2.0
    # an independent count: how many curves drawn from the posterior leave the band
    index = [("loc", name) for name in mcycle.coef["loc"].index if name != "(Intercept)"]
    columns = [list(mcycle.coef.index).index(pair) for pair in index]
    X = mcycle.designs["loc"].columns[1].evaluate(Frame.read(whole, ["times"]))
    assert whole["effect"].to_numpy() == pytest.approx(X @ mcycle.coef.to_numpy()[columns])
    curves = mcycle.sample_coef(2000, seed=3).to_numpy()[:, columns] @ X.T
    inside = ((curves > whole["lower"].to_numpy()) & (curves < whole["upper"].to_numpy())).all(
        axis=1
    )
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


def test_excluded_terms_are_left_out(logit: FittedModel, deep: FittedModel, houses) -> None:
    full = logit.predict(GBSG2, "linear", parameter="prob")
    terms = logit.predict(GBSG2, "terms")
    without = logit.predict(GBSG2.drop(columns="age"), "linear", parameter="prob", exclude="s(age)")
    assert without == pytest.approx(full - terms["s(age)"].to_numpy())
    # the network needs no coordinates once it is excluded
    table = houses.drop(columns=["longitude", "latitude"])
    without = deep.predict(table, "linear", exclude=("deep(longitude,latitude)",))["mean"]
    both = deep.predict(houses, "terms")["mean"]
    assert without.to_numpy() == pytest.approx(
        (both.sum(axis=1) - both["deep(longitude,latitude)"]).to_numpy()
    )
    only = deep.predict(houses, "linear", exclude=[("dispersion", "s(sqft)")])
    assert np.ptp(only["dispersion"]) == 0.0
    assert np.ptp(only["mean"]) > 0.0


# rows, files, speed


def test_a_prediction_is_a_function_of_its_row(deep: FittedModel, houses: pd.DataFrame) -> None:
    table = houses.head(60)
    whole = deep.predict(table, "params").to_numpy()
    single = np.vstack([deep.predict(table.iloc[[i]], "params") for i in range(len(table))])
    sevens = np.vstack(
        [deep.predict(table.iloc[i : i + 7], "params") for i in range(0, len(table), 7)]
    )
    order = np.random.default_rng(0).permutation(len(table))
    permuted = np.empty_like(whole)
    permuted[order] = deep.predict(table.iloc[order], "params")
    for other in (single, sevens, permuted):
        assert other == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("data", [True, False])
def test_a_saved_model_predicts_the_same_in_another_process(
    data: bool, deep: FittedModel, houses: pd.DataFrame, tmp_path: Path
) -> None:
    deep.save(tmp_path / "model.zip", data=data)
    houses.to_pickle(tmp_path / "houses.pkl")
    code = (
        "import os, sys, numpy as np, pandas as pd; from deepregress.loading import load;"
        "os.chdir(sys.argv[1]); model = load('model.zip'); houses = pd.read_pickle('houses.pkl');"
        "np.save('p.npy', model.predict(houses, 'params').to_numpy());"
        "print(model.summary())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert np.array_equal(np.load(tmp_path / "p.npy"), deep.predict(houses, "params").to_numpy())
    assert done.stdout == f"{deep.summary()}\n"


def test_a_model_without_its_data_still_answers(mcycle: FittedModel, tmp_path: Path) -> None:
    mcycle.save(tmp_path / "small.zip", data=False)
    model = load(tmp_path / "small.zip")
    assert model.frame is None
    assert model.nobs == 133
    assert model.bic == pytest.approx(mcycle.bic)
    expected = mcycle.partial_effect("s(times)", grid=5)
    pd.testing.assert_frame_equal(model.partial_effect("s(times)", grid=5), expected)
    for ask in (model.predict, model.residuals, model.plot, model.log_score):
        with pytest.raises(PredictionError, match="saved without its training rows"):
            ask()


def test_prediction_memory_is_that_of_a_chunk(mcycle: FittedModel) -> None:
    x = np.random.default_rng(0).uniform(3, 57, 300_000)
    mcycle.predict({"times": x[:10]})
    tracemalloc.start()
    mean = mcycle.predict({"times": x})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(mean).all()
    # all columns at once would be 30 numbers a row
    assert peak < 15 * x.nbytes


def test_the_model_is_immutable(mcycle: FittedModel) -> None:
    with pytest.raises(AttributeError):
        mcycle.seed = 3  # type: ignore[misc]


# distributions and draws


def test_draws_follow_the_distribution(mcycle: FittedModel) -> None:
    rows = MCYCLE.iloc[[10, 60]]
    draws = mcycle.sample(rows, 4000, seed=1)
    theta = mcycle.predict(rows, "params")
    assert draws.shape == (4000, 2)
    for j in range(2):
        law = scipy.stats.norm(theta["loc"].iloc[j], theta["scale"].iloc[j])
        assert scipy.stats.kstest(draws[:, j], law.cdf).pvalue > 0.01
    assert np.array_equal(draws, mcycle.sample(rows, 4000, seed=1))
    assert not np.array_equal(draws, mcycle.sample(rows, 4000, seed=2))
    law = mcycle.distribution(rows)
    assert law.mean().numpy() == pytest.approx(theta["loc"].to_numpy())


def test_drawn_coefficients_have_the_covariance(linear: FittedModel) -> None:
    draws = linear.sample_coef(20_000, seed=1)
    assert list(draws.columns) == list(linear.coef.index)
    scale = np.outer(linear.std_error, linear.std_error)
    # correlations of 2e4 draws have a standard error below 0.01
    assert (draws.cov() / scale).to_numpy() == pytest.approx(
        (linear.cov / scale).to_numpy(), abs=0.04
    )


# errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "meen"}, "is not one of mean, median.*did you mean 'mean'"),
        ({"at": 0.5}, "takes no at="),
        ({"which": "quantile"}, "needs at=, the probabilities"),
        ({"which": "quantile", "at": [0.5, 1.5]}, r"probabilities in \[0, 1\]"),
        ({"which": "quantile", "at": "high"}, "at must hold numbers"),
        ({"which": "cdf", "at": np.ones((3, 2))}, r"at has shape \(3, 2\)"),
        ({"which": "cdf", "at": np.nan}, "at holds NaN"),
        ({"which": "prob"}, "'normal' is continuous"),
        ({"which": "prob", "at": 1}, "'normal' is continuous"),
        ({"which": "variance", "se": True}, "has no se= and interval="),
        ({"interval": 95}, "interval must be a level between 0 and 1"),
        ({"parameter": "loc"}, "takes no parameter="),
        ({"which": "params", "parameter": "sigma"}, "parameter 'sigma' is not one of loc, scale"),
        (
            {"exclude": "s(time)"},
            r"'s\(time\)' is not a term of the model; did you mean 's\(times\)'",
        ),
        ({"exclude": [("scale", "s(x)")]}, "is not a term of the model"),
    ],
)
def test_predict_refuses_what_has_no_meaning(arguments, message, mcycle: FittedModel) -> None:
    with pytest.raises(PredictionError, match=message):
        mcycle.predict(MCYCLE, **arguments)


def test_new_data_must_fit(mcycle: FittedModel, logit: FittedModel) -> None:
    with pytest.raises(PredictionError, match="no column 'times'"):
        mcycle.predict({"time": [1.0]})
    with pytest.raises(PredictionError, match="no column 'accel' of the response.*at="):
        mcycle.predict({"times": [1.0]}, "cdf")
    with pytest.raises(PredictionError, match="grade.*not fitted with: 'IV'"):
        logit.predict(GBSG2.head(1).assign(grade=["IV"]))
    named = GBSG2.assign(event=np.where(GBSG2["event"] == 1, "yes", "no"))
    model = fit("event ~ age", named, "bernoulli")
    with pytest.raises(PredictionError, match="has the level 'maybe'; the model's are no, yes"):
        model.log_score(named.head(2).assign(event="maybe"))


def test_effects_refuse_what_is_not_there(mcycle: FittedModel, deep: FittedModel) -> None:
    with pytest.raises(
        PredictionError, match=r"'s\(tmes\)' is not a term; did you mean 's\(times\)'"
    ):
        mcycle.partial_effect("s(tmes)")
    with pytest.raises(PredictionError, match="is not a term of 'scale'"):
        mcycle.partial_effect("x", "scale")
    with pytest.raises(PredictionError, match="depends on 'times', which is not among its columns"):
        mcycle.partial_effect("s(times)", grid={"time": [1.0]})
    with pytest.raises(PredictionError, match="level must be"):
        mcycle.partial_effect("s(times)", level=95.0)
    with pytest.raises(PredictionError, match="nothing to plot"):
        fit("accel ~ 1", MCYCLE).plot()
    assert deep.partial_effect("deep(longitude,latitude)", grid=3).shape == (9, 6)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("nothing")
    with pytest.raises(DataError, match="is not a file saved by deepregress"):
        load(tmp_path / "x.zip")


def test_a_link_without_a_name_cannot_be_saved(tmp_path: Path) -> None:
    model = fit("foodexp ~ income", ENGEL, link={"scale": tfp.bijectors.Softplus()})
    with pytest.raises(PredictionError, match="link of 'scale' is a bijector of your own"):
        model.save(tmp_path / "x.zip")
