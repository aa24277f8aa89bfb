"""Protected covariates: against SLSQP, closed forms and statsmodels' evaluation models."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import statsmodels.api as sm

import deepregress as dr
from deepregress.errors import DataError, FitError, PredictionError
from deepregress.orthogonal import influence, project, protect


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = 400
    sex, race = rng.integers(0, 2, n), rng.choice(list("abc"), n)
    x = rng.normal(size=n) + sex
    z = rng.normal(size=n) + (race == "b")
    table = pd.DataFrame({"sex": sex.astype(float), "race": race, "x": x, "z": z})
    table["w"] = rng.integers(1, 4, n).astype(float)
    eta = -0.5 + 0.8 * x + 0.5 * np.sin(2 * z) + 0.4 * sex
    table["b"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    table["c"] = rng.poisson(np.exp(0.4 * eta)).astype(float)
    table["y"] = eta + rng.normal(size=n)
    return table


def protected_columns(data):
    return np.column_stack([data["sex"], data["race"] == "b", data["race"] == "c"])


def centred(data, weights):
    X = protected_columns(data)
    return X - np.average(X, axis=0, weights=weights)


def by_slsqp(loss, constraint, start):
    """Constrained minimum by SciPy's sequential least squares."""
    found = scipy.optimize.minimize(
        loss,
        start,
        method="SLSQP",
        constraints={"type": "eq", "fun": constraint},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert found.success
    return found


def evaluation(family, mean, data, weights):
    """Coefficients of the protected covariates in statsmodels' model of the means."""
    Z = sm.add_constant(protected_columns(data))
    return sm.GLM(mean, Z, family=family, freq_weights=weights).fit(tol=1e-12).params[1:]


def test_logistic_regression_against_slsqp(data):
    model = dr.fit("b ~ x + z + sex + race", data, "bernoulli")
    fair = protect(model, ["sex", "race"])
    Z = np.column_stack([np.ones(len(data)), data["x"], data["z"], protected_columns(data)])
    y, X = data["b"].to_numpy(), centred(data, None)

    def loss(b):
        return np.mean(np.logaddexp(0.0, Z @ b) - y * (Z @ b))

    def constraint(b):
        return X.T @ (1 / (1 + np.exp(-Z @ b))) / len(y)

    found = by_slsqp(loss, constraint, model.coef.to_numpy())
    assert -fair.loglik / len(y) <= found.fun + 1e-9
    np.testing.assert_allclose(fair.coef, found.x, atol=2e-4)
    assert np.abs(constraint(fair.coef.to_numpy())).max() < 1e-13
    assert fair.converged
    assert fair.loglik < model.loglik - 1.0


def test_influence_is_that_of_the_evaluation_model(data):
    model = dr.fit("b ~ x + s(z, k=5) + race", data, "bernoulli", weights="w")
    fair = protect(model, ["sex", "race"], data=data)
    before = evaluation(sm.families.Binomial(), model.predict(), data, data["w"])
    np.testing.assert_allclose(fair.influence["before"], before, rtol=1e-7)
    assert list(fair.influence.index) == ["sex", "race[T.b]", "race[T.c]"]
    after = evaluation(sm.families.Binomial(), fair.predict(), data, data["w"])
    assert np.abs(after).max() < 1e-9
    assert fair.influence["after"].abs().max() < 1e-9
    assert model.influence is None
    pd.testing.assert_series_equal(
        influence(model, ["sex", "race"], data.assign(w=1.0)),
        influence(model, ["sex", "race"], data),
    )
    # without constraints it is the same model
    np.testing.assert_allclose(protect(fair, ["sex", "race"], data=data).coef, fair.coef, atol=1e-8)


def test_weighted_poisson_smooth_against_slsqp(data):
    """A penalised fit: SLSQP maximises the same penalised likelihood, at the same S."""
    model = dr.fit("c ~ x + s(z, k=5)", data, "poisson", weights="w")
    fair = protect(model, ["race"], data=data)
    Z = model._predictors.units[0].rows(model.frame).X
    w, y, S = data["w"].to_numpy(), data["c"].to_numpy(), model.solution.S
    X = centred(data, w)[:, 1:]

    def loss(b):
        return (w @ (np.exp(Z @ b) - y * (Z @ b)) + 0.5 * b @ S @ b) / w.sum()

    found = by_slsqp(loss, lambda b: X.T @ (w * np.exp(Z @ b)) / w.sum(), model.coef.to_numpy())
    assert loss(fair.coef.to_numpy()) <= found.fun + 1e-9
    np.testing.assert_allclose(fair.coef, found.x, atol=1e-3)
    assert fair.influence["after"].abs().max() < 1e-10
    assert fair.influence["before"].abs().max() > 0.04
    np.testing.assert_allclose(fair.sp, model.sp)


def test_the_linear_model_in_closed_form(data):
    """Least squares under a linear constraint; the dispersion keeps its degrees of freedom."""
    model = dr.fit("y ~ x + z + sex", data)
    fair = protect(model, "sex")
    Z = np.column_stack([np.ones(len(data)), data["x"], data["z"], data["sex"]])
    X = centred(data, None)[:, :1]
    gram, J = Z.T @ Z, X.T @ Z
    V = np.linalg.inv(gram)
    free = V @ Z.T @ data["y"]
    K = V @ J.T @ np.linalg.inv(J @ V @ J.T)
    expected = free - K @ (J @ free)
    np.testing.assert_allclose(fair.coef["loc"], expected, rtol=1e-8)
    rss = np.sum((data["y"] - Z @ expected) ** 2)
    scale = fair.predict(which="params")["scale"].iloc[0]
    # the fit knows its dispersion to about 1e-6
    assert scale**2 == pytest.approx(rss / (len(data) - 4), rel=2e-6)
    cov = scale**2 * (V - K @ J @ V)
    np.testing.assert_allclose(fair.cov.iloc[:4, :4], cov, atol=1e-9)
    # three coefficients are left, and the dispersion
    assert fair.edf_total == pytest.approx(4.0, abs=1e-6)
    np.testing.assert_allclose(project(fair.predict(), data["sex"]), fair.predict(), atol=1e-10)


def test_strong_influence_rare_groups_and_columns_of_any_scale():
    """Far from the free maximum: the conditions of Karush, Kuhn and Tucker, by NumPy alone."""
    rng = np.random.default_rng(5)
    n = 3000
    group = rng.choice(list("abcd"), n, p=[0.6, 0.3, 0.09, 0.01])
    age = rng.uniform(17, 90, n) + 10 * (group == "b")
    status = np.where(rng.random(n) < 0.85, np.where(group == "a", "in", "out"), "else")
    income = 1000 * rng.gamma(2.0, size=n) + 3000 * (group == "d")
    eta = -3 + 0.05 * age + 2.0 * (status == "in") + 4e-4 * income
    table = pd.DataFrame({"group": group, "age": age, "status": status, "income": income})
    table["y"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    model = dr.fit("y ~ age + status + income", table, "bernoulli")
    fair = protect(model, "group", data=table)
    assert fair.converged
    assert fair.influence["before"].abs().max() > 1.0
    assert fair.influence["after"].abs().max() < 1e-9
    Z = np.column_stack([np.ones(n), age, status == "in", status == "out", income])
    Z = Z.astype(float)
    p = fair.predict()
    X = np.column_stack([group == g for g in "bcd"]).astype(float)
    J = ((X - X.mean(axis=0)) * (p * (1 - p))[:, None]).T @ Z
    scale = np.linalg.norm(Z, axis=0)
    score = Z.T @ (table["y"] - p) / scale
    left = score - (J / scale).T @ np.linalg.lstsq((J / scale).T, score, rcond=None)[0]
    assert np.abs(left).max() < 1e-5 * np.abs(score).max()


def test_networks_are_kept_and_their_multiplier_is_refitted(data, tmp_path):
    model = dr.fit(
        "y ~ x + deep(x, z)",
        data,
        training=dr.Training(epochs=40, folds=3),
        seed=1,
        verbose=0,
    )
    assert model.deep.effects[0].multiplier > 0
    fair = protect(model, ["sex", "race"], data=data)
    mean = fair.predict()
    assert np.abs(centred(data, None).T @ mean).max() < 1e-9
    assert fair.influence["before"].abs().max() > 0.1
    ratio = fair.coef["loc", "deep(x,z)"] / model.coef["loc", "deep(x,z)"]
    terms = [m.predict(which="terms", parameter="loc")["deep(x,z)"] for m in (model, fair)]
    np.testing.assert_allclose(terms[1], ratio * terms[0], rtol=1e-6, atol=1e-12)
    # a prediction is a function of its row
    alone = fair.predict(data.iloc[[5]])
    assert alone[0] == pytest.approx(mean[5], abs=1e-12)
    assert np.isfinite(fair.cov_population).all(axis=None)
    fair.save(tmp_path / "fair.zip")
    again = dr.load(tmp_path / "fair.zip")
    np.testing.assert_array_equal(again.predict(data), mean)
    pd.testing.assert_frame_equal(again.influence, fair.influence)


def test_projected_features(data):
    X, w = protected_columns(data), data["w"].to_numpy()
    U = np.random.default_rng(1).normal(size=(len(X), 3, 4)) + X[:, :1, None]
    root = np.sqrt(w)[:, None]
    Xc = X - np.average(X, axis=0, weights=w)
    flat = U.reshape(len(U), -1)
    C = np.linalg.lstsq(root * np.column_stack([np.ones(len(X)), Xc]), root * flat, rcond=None)[0]
    expected = (flat - Xc @ C[1:]).reshape(U.shape)
    np.testing.assert_allclose(project(U, X, weights=w), expected, atol=1e-12)
    np.testing.assert_allclose(
        np.average(project(U, X, weights=w), axis=0, weights=w), np.average(U, axis=0, weights=w)
    )
    np.testing.assert_allclose(project(flat, X)[:, 0], project(flat[:, 0], X), atol=1e-12)
    relu = project(U, X, activation="relu")
    np.testing.assert_allclose(relu, project(np.maximum(U, 0), X), atol=1e-12)
    moment = np.einsum("ij,ikl->jkl", X - X.mean(axis=0), relu)
    assert np.abs(moment).max() < 1e-11
    # the positive part of projected features would not do
    late = np.einsum("ij,ikl->jkl", X - X.mean(axis=0), np.maximum(project(U, X), 0))
    assert np.abs(late).max() > 1.0


def test_projected_features_of_a_network(data):
    """A linear model on projected ReLU features cannot tell the protected covariates."""
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, activation="relu")])
    features = np.asarray(network(data[["x", "z"]].to_numpy("float32")), dtype=np.float64)
    X = protected_columns(data)
    fitted = sm.OLS(data["y"], sm.add_constant(project(features, X))).fit().fittedvalues
    coef = sm.OLS(fitted, sm.add_constant(X)).fit().params[1:]
    assert np.abs(coef).max() < 1e-10


def test_errors(data):
    model = dr.fit("y ~ x", data)
    with pytest.raises(PredictionError, match="'sex' is no column that the model's formulas name"):
        protect(model, "sex")
    with pytest.raises(PredictionError, match="data have 10 rows, the model was fitted to 400"):
        protect(model, "sex", data=data.iloc[:10])
    with pytest.raises(FitError, match="names of columns"):
        protect(model, [])
    with pytest.raises(DataError, match="constant"):
        protect(model, "one", data=data.assign(one=1.0))
    with pytest.raises(FitError, match="activation must be one of linear, relu, got 'tanh'"):
        project(data["x"], data["sex"], activation="tanh")
    with pytest.raises(FitError, match="do not have the same rows"):
        project(data["x"].iloc[:10], data["sex"])
    with pytest.raises(FitError, match="generalised linear models"):
        protect(dr.fit("w ~ x", data, "lognormal"), "sex", data=data)
    fair = protect(model, "sex", data=data)
    with pytest.raises(FitError, match="protected covariates"):
        _ = fair.cov_corrected


def test_what_cannot_be_balanced_stays_constant(data):
    """With one covariate and one constraint only the intercept is left."""
    fair = protect(dr.fit("b ~ x", data, "bernoulli"), "sex", data=data)
    assert fair.coef["prob", "x"] == pytest.approx(0.0, abs=1e-10)
    known = dr.fit("c ~ offset(x)", data, "poisson")
    with pytest.raises(FitError, match="the terms of the model cannot balance them"):
        protect(known, "sex", data=data)
