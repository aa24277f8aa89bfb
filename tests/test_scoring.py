"""Scores against closed forms, comparison and cross-validation against their definitions."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from sklearn.model_selection import GroupKFold, KFold

import deepregress as dr
from deepregress.errors import DataError, PredictionError
from deepregress.scoring import row_scores


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200)
    y = 1 + x + np.exp(-1 + 0.5 * x) * rng.normal(size=200)
    k = rng.poisson(np.exp(1 + x))
    return pd.DataFrame({"x": x, "y": y, "k": k, "g": np.arange(200) % 8})


@pytest.fixture(scope="module")
def line(data):
    return dr.fit("y ~ x", data)


@pytest.fixture(scope="module")
def both(data):
    return dr.fit({"loc": "y ~ x", "scale": "~ x"}, data)


def test_crps_of_a_normal(both, data):
    """sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), Gneiting & Raftery (2007), eq. 21."""
    theta = both.predict(data, "params")
    z = (data["y"] - theta["loc"]) / theta["scale"]
    bracket = z * (2 * st.norm.cdf(z) - 1) + 2 * st.norm.pdf(z) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(row_scores(both, "crps", data), theta["scale"] * bracket, rtol=1e-5)


def test_crps_of_an_exponential(data):
    """|y - mu| form: y + 2 mu exp(-y / mu) - 3 mu / 2."""
    positive = pd.DataFrame({"y": st.expon(scale=2).rvs(100, random_state=1)})
    model = dr.fit("y ~ 1", positive, "exponential")
    mu, y = model.predict(positive), positive["y"]
    expected = y + 2 * mu * np.exp(-y / mu) - 1.5 * mu
    np.testing.assert_allclose(row_scores(model, "crps", positive), expected, rtol=1e-5)


def test_crps_of_a_count(data):
    """E|X - y| - E|X - X'| / 2 over the counts."""
    model = dr.fit("k ~ x", data, "poisson")
    new = data[:15]
    k = np.arange(80)
    mass = st.poisson(model.predict(new)[:, None]).pmf(k)
    first = np.sum(mass * np.abs(k - new["k"].to_numpy()[:, None]), axis=1)
    second = np.einsum("ij,ik,jk->i", mass, mass, np.abs(k[:, None] - k))
    expected = first - second / 2
    np.testing.assert_allclose(row_scores(model, "crps", new), expected, rtol=1e-8)


def test_other_scores(line, data):
    mean = line.predict(data)
    np.testing.assert_allclose(row_scores(line, "squared_error", data), (data["y"] - mean) ** 2)
    np.testing.assert_allclose(row_scores(line, "absolute_error", data), np.abs(data["y"] - mean))
    assert row_scores(line, "log_score", data).mean() == pytest.approx(line.log_score(data))


def test_compare_pairs_the_rows(line, both, data):
    table = dr.compare(line, both, newdata=data, scores=("log_score", "crps"))
    for score in ("log_score", "crps"):
        one, two = (row_scores(model, score, data) for model in (line, both))
        own = table[score].iloc[1]
        assert own["mean"] == pytest.approx(two.mean())
        assert own["se"] == pytest.approx(two.std(ddof=1) / np.sqrt(200))
        assert own["difference"] == pytest.approx((two - one).mean())
        assert own["se_difference"] == pytest.approx((two - one).std(ddof=1) / np.sqrt(200))
    first = table["log_score"].iloc[0]
    assert (first["difference"], first["se_difference"]) == (0.0, 0.0)
    assert table.index[1].startswith("2) loc: y ~ x, scale: ~ x")
    # an ensemble is scored as a model is
    ensemble = dr.Ensemble((line, line))
    again = dr.compare(line, ensemble, newdata=data, scores=("crps",))
    np.testing.assert_allclose(again["crps", "difference"], 0.0, atol=1e-12)


def test_cross_validation_by_hand(data):
    table = dr.cross_validate("y ~ x", data, splitter=4, seed=3)
    rows = []
    for fold, (train, test) in enumerate(
        KFold(4, shuffle=True, random_state=3).split(data), start=1
    ):
        model, held = dr.fit("y ~ x", data.iloc[train]), data.iloc[test]
        rows.append(row_scores(model, "log_score", held))
        assert table.loc[fold, "log_score"] == pytest.approx(rows[-1].mean())
        assert table.loc[fold, "n"] == 50
    every = np.concatenate(rows)
    assert table.loc["mean", "log_score"] == pytest.approx(every.mean())
    assert table.loc["se", "log_score"] == pytest.approx(every.std(ddof=1) / np.sqrt(200))
    assert table.columns.tolist() == ["n", "log_score", "crps"]


def test_cross_validation_by_group_and_of_other_tables(data):
    table = dr.cross_validate(
        "y ~ x", data, splitter=GroupKFold(4), groups="g", scores=("log_score",)
    )
    assert (table["n"].iloc[:4] == 50).all()
    arrays = {name: data[name].to_numpy() for name in data}
    again = dr.cross_validate(
        "y ~ x", arrays, splitter=GroupKFold(4), groups=arrays["g"], scores=("log_score",)
    )
    pd.testing.assert_frame_equal(table, again)


def test_a_better_formula_scores_better(data):
    flat, sloped = (
        dr.cross_validate(formula, data, splitter=5, scores=("crps",)).loc["mean", "crps"]
        for formula in ("y ~ 1", "y ~ x")
    )
    assert sloped < flat


def test_mistakes(line, data):
    with pytest.raises(PredictionError, match="score 'crsp'.*did you mean 'crps'"):
        row_scores(line, "crsp", data)
    with pytest.raises(PredictionError, match="one model at least"):
        dr.compare()
    with pytest.raises(DataError, match="needs from 2 to 200 folds"):
        dr.cross_validate("y ~ x", data, splitter=1)
    with pytest.raises(DataError, match="scikit-learn splitter"):
        dr.cross_validate("y ~ x", data, splitter="five")
    with pytest.raises(DataError, match="'h' is not a column"):
        dr.cross_validate("y ~ x", data, splitter=GroupKFold(2), groups="h")
    with pytest.raises(DataError, match="table in memory"):
        dr.cross_validate("y ~ x", 3.0)
    censored = dr.fit("cens(y, lower=0) ~ x", data)
    with pytest.raises(PredictionError, match="one exact number"):
        row_scores(censored, "crps", data)
