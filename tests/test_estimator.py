"""DistributionalRegressor: scikit-learn's own checks, and what it shares with `fit`."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import deepregress as dr
from deepregress.errors import DeepRegressError, FormulaError


@pytest.fixture(scope="module")
def data():
    return dr.datasets.load("engel")


EXACT = "its response is an exact function of the columns, which has no distribution"
REFUSED = {
    "check_sample_weights_shape": EXACT,
    "check_sample_weights_not_overwritten": EXACT,
    "check_regressors_no_decision_function": EXACT,
    "check_sample_weight_equivalence_on_dense_data": "it has more columns than rows of weight",
}
"""Checks of scikit-learn with data that `fit` refuses, and why."""


@parametrize_with_checks(
    [dr.DistributionalRegressor()], expected_failed_checks=lambda estimator: REFUSED
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_it_is_fit(data):
    estimator = dr.DistributionalRegressor({"loc": "foodexp ~ s(income)", "scale": "~ income"})
    estimator.fit(data[["income"]], data["foodexp"])
    model = dr.fit({"loc": "foodexp ~ s(income)", "scale": "~ income"}, data)
    np.testing.assert_allclose(estimator.predict(data), model.predict(data), rtol=1e-10)
    np.testing.assert_allclose(
        estimator.predict(data, "quantile", at=[0.1, 0.9]),
        model.predict(data, "quantile", at=[0.1, 0.9]),
    )
    assert estimator.score(data, data["foodexp"]) == pytest.approx(model.log_score(data))
    assert estimator.score(data) == pytest.approx(model.log_score(data))
    whole = dr.DistributionalRegressor("foodexp ~ income").fit(data)
    assert whole.score(data) == pytest.approx(dr.fit("foodexp ~ income", data).log_score(data))


def test_weights_are_repetitions(data):
    weights = np.arange(len(data)) % 3
    one = dr.DistributionalRegressor("foodexp ~ income")
    two = clone(one).fit(data.loc[data.index.repeat(weights)])
    one.fit(data, sample_weight=weights)
    np.testing.assert_allclose(one.predict(data), two.predict(data), rtol=1e-8)


def test_searches_and_pipelines(data):
    X, y = data[["income"]], data["foodexp"]
    search = GridSearchCV(
        dr.DistributionalRegressor("foodexp ~ income"), {"family": ["normal", "gamma"]}, cv=3
    )
    search.fit(X, y)
    assert search.best_params_["family"] in ("normal", "gamma")
    scores = cross_val_score(dr.DistributionalRegressor(), X.to_numpy(), y.to_numpy(), cv=3)
    assert np.isfinite(scores).all()
    line = make_pipeline(StandardScaler(), dr.DistributionalRegressor("y ~ s(x0)"))
    fitted = line.fit(X.to_numpy(), y.to_numpy()).predict(X.to_numpy())
    expected = dr.fit("foodexp ~ s(income)", data).predict(data)
    np.testing.assert_allclose(fitted, expected, rtol=1e-4)


def test_without_a_formula_all_columns_are_linear():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(50, 2)), columns=["a", "b c"])
    y = X["a"] - X["b c"] + rng.normal(size=50)
    estimator = dr.DistributionalRegressor().fit(X, y)
    design = np.column_stack([np.ones(50), X])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(estimator.predict(X), design @ beta, rtol=1e-8)


def test_mistakes(data):
    with pytest.raises(FormulaError, match=r"'log\(foodexp\)' is no column"):
        dr.DistributionalRegressor("log(foodexp) ~ income").fit(data, data["foodexp"])
    with pytest.raises(DeepRegressError, match="incme"):
        dr.DistributionalRegressor("foodexp ~ incme").fit(data)
