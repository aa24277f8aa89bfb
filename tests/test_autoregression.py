"""Autoregressive transformation models and scale effects, beside least squares and scipy."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import tensorflow as tf

import deepregress as dr
from deepregress.errors import DroppedRowsWarning, FormulaError
from deepregress.families import family, kernels
from deepregress.families.base import upper_pairs
from deepregress.families.transformation import Transformation
from deepregress.linalg import Array, Matrix, Vector
from deepregress.response import Response

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"
LH = pd.read_csv(REFERENCE / "lh.csv")


def least_squares(y: Vector, orders: list[int]) -> tuple[Vector, Vector, float, float]:
    """Conditional least squares of an AR: coefficients, errors, sigma and logLik by ML."""
    p = max(orders)
    X = np.column_stack([np.ones(len(y) - p), *(y[p - j : len(y) - j] for j in orders)])
    b, rss = np.linalg.lstsq(X, y[p:], rcond=None)[:2]
    n = len(X)
    sigma = float(np.sqrt(rss[0] / n))
    se = sigma * np.sqrt(np.diagonal(np.linalg.inv(X.T @ X)))
    return b, se, sigma, float(-0.5 * n * (np.log(2 * np.pi * sigma**2) + 1.0))


@pytest.fixture(scope="module")
def linear() -> dr.FittedModel:
    with pytest.warns(DroppedRowsWarning, match="3 of 48 rows"):
        return dr.fit("lh ~ lag(h(lh), 1:3)", LH, family="lm")


def test_linear_h_and_normal_noise_are_conditional_least_squares(linear: dr.FittedModel) -> None:
    b, se, sigma, loglik = least_squares(LH["lh"].to_numpy(), [1, 2, 3])
    # R: arima(lh, c(3, 0, 0), method = "CSS")
    np.testing.assert_allclose(b[1:], [0.657824, -0.065813, -0.234835], atol=1e-6)
    phi = linear.coef[[f"autoregression[{j}]" for j in (1, 2, 3)]].to_numpy()
    np.testing.assert_allclose(phi, b[1:], atol=1e-5)
    np.testing.assert_allclose(linear.loglik, loglik, atol=1e-8)
    distribution = linear.predict(which="quantile", at=scipy.stats.norm.cdf([0.0, 1.0]))
    fitted = np.column_stack([np.ones(45), *(LH["lh"][3 - j : 48 - j] for j in (1, 2, 3))]) @ b
    np.testing.assert_allclose(distribution[:, 0], fitted, atol=1e-5)
    np.testing.assert_allclose(distribution[:, 1] - distribution[:, 0], sigma, atol=1e-5)
    # the Hessian of phi given h's two coefficients and the normal equations are the same matrix
    own = linear.std_error[[f"autoregression[{j}]" for j in (1, 2, 3)]].to_numpy()
    np.testing.assert_allclose(own, se[1:], rtol=1e-3)


def test_lagged_columns_are_the_same_model(linear: dr.FittedModel) -> None:
    with pytest.warns(DroppedRowsWarning):
        columns = dr.fit("lh ~ lag(lh, 1:3)", LH)
    b = least_squares(LH["lh"].to_numpy(), [1, 2, 3])[0]
    np.testing.assert_allclose(columns.coef["loc"], b, atol=1e-8)
    np.testing.assert_allclose(columns.loglik, linear.loglik, atol=1e-8)


def test_new_rows_go_on_from_the_last_ones(linear: dr.FittedModel, tmp_path: Path) -> None:
    b = least_squares(LH["lh"].to_numpy(), [1, 2, 3])[0]
    y = [*LH["lh"][-3:], 2.5, 2.9]
    expected = [b @ [1.0, *y[t - 3 : t][::-1]] for t in (3, 4, 5)]
    linear.save(tmp_path / "ar.zip", data=False)
    for model in (linear, dr.load(tmp_path / "ar.zip")):
        # R: predict(arima(lh, c(3, 0, 0), method = "CSS"))$pred[1]
        assert model.predict({"lh": [np.nan]})[0] == pytest.approx(2.44932988, abs=1e-5)
        np.testing.assert_allclose(model.predict({"lh": [2.5, 2.9, 0.0]}), expected, atol=1e-5)


# -- derivatives -----------------------------------------------------------------------------------


def eagerly(
    kernel: Callable[..., Any], likelihood: Any, rows: Mapping[str, Array], leading: Sequence[Array]
) -> tuple[Array, ...]:
    """A kernel without its compilation, which takes most of the time of a short test."""
    tensors = {name: tf.constant(column) for name, column in rows.items()}
    found = kernel(likelihood, tensors, *(tf.constant(each) for each in leading))
    return tuple(np.asarray(part) for part in found)


@pytest.mark.parametrize("name", ["boxcox", "cox"])
def test_derivatives_are_central_differences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "in_chunks", eagerly)
    rng = np.random.default_rng(3)
    n = 8
    y = rng.gamma(3.0, 1.0, n)
    upper = np.where(np.arange(n) % 3 == 0, np.inf, y) if name == "cox" else y
    response = Response(y, upper, np.ones(n), None, "y", None)
    given = family(name)
    assert isinstance(given, Transformation)
    model = given.asked_for(["scale"], [1, 3]).for_response(response)
    assert model.parameter_names[-5:] == (
        *("scale", "autoregression[1]", "autoregression[3]", "past[1]", "past[3]"),
    )
    eta = np.tile(model.start(response), (n, 1))
    eta += rng.normal(0.0, 0.2, eta.shape) * np.abs(eta).clip(0.1, 1.0)
    eta[:, -2:] = rng.permutation(y)[:, None] + [0.0, 1.0]
    # the shift, two coefficients of h, the scale, and both of the autoregression
    rows, free = response.rows(), [0, 1, 3, *range(model.n_units - 5, model.n_units - 2)]
    value, gradient, W = model.row_derivatives(rows, eta)
    np.testing.assert_allclose(value, model.row_log_likelihood(rows, eta) - model.row_penalty(eta))
    pairs = list(upper_pairs(model.n_units))
    weight = np.tile(rng.normal(size=len(pairs)), (n, 1))
    weight[:, [max(pair) >= model.n_units - 2 for pair in pairs]] = 0.0
    third = model.contracted_third(rows, eta, weight)
    for u in free:
        step = np.zeros(model.n_units)
        step[u] = 1e-5 * max(1.0, abs(eta[0, u]))
        above, below = (model.row_derivatives(rows, eta + s * step) for s in (1.0, -1.0))
        h = 2.0 * step[u]
        np.testing.assert_allclose(gradient[:, u], (above[0] - below[0]) / h, rtol=1e-5, atol=1e-6)
        for p, (k, m) in enumerate(pairs):
            if k == u and m in free:
                difference = -(above[1][:, m] - below[1][:, m]) / h
                np.testing.assert_allclose(W[:, p], difference, rtol=1e-5, atol=1e-5)
        contracted = np.sum(weight * (above[2] - below[2]), axis=1) / h
        np.testing.assert_allclose(third[:, u], contracted, rtol=1e-4, atol=1e-4)


# -- maximum likelihood by scipy -------------------------------------------------------------------


def bernstein(t: Vector, order: int) -> tuple[Matrix, Matrix]:
    """Cumulated Bernstein polynomials as tails of binomial distributions, and their slopes."""
    k = np.arange(order + 1)
    A = scipy.stats.binom.sf(k - 1, order, t[:, None])
    slope = order * scipy.stats.binom.pmf(k - 1, order - 1, t[:, None])
    return A, slope


def negative_log_likelihood(
    free: Vector, model: Transformation, y: Vector, past: Matrix, x: Vector, scale_by: Vector
) -> float:
    """Of P(Y <= y) = Phi((h(y) - phi h(past) - b x) / exp(c scale_by)), minus the barrier."""
    M = model.order
    g0, rises, b, c = free[0], np.exp(free[1 : M + 1]), free[M + 1], free[M + 2]
    g, phi = np.concatenate([[g0], rises]), free[M + 3 :]
    low, high = model.span
    A, slope = bernstein((y - low) / (high - low), M)
    h = A @ g - b * x
    for j, coefficient in enumerate(phi):
        h = h - coefficient * (bernstein((past[:, j] - low) / (high - low), M)[0] @ g)
    rise = slope @ g / (high - low)
    log_f = scipy.stats.norm.logpdf(h * np.exp(-c * scale_by)) + np.log(rise) - c * scale_by
    r = rises / model.rise
    return float(-np.sum(log_f) + model.barrier * len(y) * np.sum(r - 1.0 - np.log(r)))


def minimum(start: Vector, *known: Any) -> tuple[Vector, float]:
    best = scipy.optimize.minimize(
        negative_log_likelihood, start, known, method="BFGS", options={"gtol": 1e-6}
    )
    return best.x, float(best.fun)


@pytest.fixture(scope="module")
def simulated() -> pd.DataFrame:
    """An AR(1) on a scale that y is the exponential of, with a covariate of shift and scale."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=160)
    z = np.zeros(160)
    for t in range(1, 160):
        z[t] = 0.6 * z[t - 1] + 0.8 * x[t] + np.exp(0.4 * x[t]) * rng.normal()
    return pd.DataFrame({"y": np.exp(0.25 * z), "x": x})


def test_scale_and_autoregression_maximise_the_likelihood(simulated: pd.DataFrame) -> None:
    with pytest.warns(DroppedRowsWarning):
        model = dr.fit(
            {"shift": "y ~ x + lag(h(y), 1)", "scale": "~ x"}, simulated, family="boxcox"
        )
    given, y, x = model.family, simulated["y"].to_numpy(), simulated["x"].to_numpy()
    assert isinstance(given, Transformation)
    coef = model.coef
    g = coef[[f"transformation[{k}]" for k in range(given.order + 1)]].to_numpy()
    own = [g[0], *np.log(g[1:]), coef["shift", "x"], coef["scale", "x"]]
    own = np.array([*own, coef["autoregression[1]"].iloc[0]])
    known = (given, y[1:], y[:-1, None], x[1:], x[1:])
    at_own = negative_log_likelihood(own, *known)
    best, value = minimum(own + 0.02, *known)
    # not lower than scipy's minimum by more than its tolerance
    assert at_own == pytest.approx(value, abs=1e-4)
    np.testing.assert_allclose(own[-3:], best[-3:], atol=2e-3)
    # the truth: 0.8, 0.4, 0.6; within three standard errors
    names = [("shift", "x"), ("scale", "x"), ("autoregression[1]", "(Intercept)")]
    error = (coef[names] - [0.8, 0.4, 0.6]) / model.std_error[names]
    # effects are on the unit of the noise at x = 0
    assert np.all(np.abs(error) < 3.0)


def test_lags_of_h_need_a_transformation_of_the_response() -> None:
    with pytest.raises(FormulaError, match="'normal' has no transformation"):
        dr.fit("lh ~ lag(h(lh), 1)", LH)
    with pytest.raises(FormulaError, match="which is 'lh'"):
        dr.fit("lh ~ lag(h(t), 1)", LH, family="boxcox")


def test_scale_of_a_linear_transformation_is_that_of_a_normal_model() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=300)
    data = pd.DataFrame({"x": x, "y": 1.0 + np.exp(0.5 * x) * rng.normal(size=300)})
    normal = dr.fit({"loc": "y ~ 1", "scale": "~ x"}, data)
    model = dr.fit({"shift": "y ~ 1", "scale": "~ x"}, data, family="lm")
    assert model.loglik == pytest.approx(normal.loglik, abs=1e-6)
    assert model.coef["scale", "x"] == pytest.approx(normal.coef["scale", "x"], abs=1e-5)
    at = [-2.0, 0.0, 3.0]
    np.testing.assert_allclose(
        model.predict(data[:9], "cdf", at=at), normal.predict(data[:9], "cdf", at=at), atol=1e-5
    )
