"""Standard errors of quantiles and probabilities against closed forms and posterior simulation."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from deepregress.errors import PredictionError
from deepregress.families import family
from deepregress.fitted import FittedModel
from deepregress.inference.delta import with_error
from deepregress.model import fit
from deepregress.quantities import Error

BOTH = Error(True, 0.95)
Z = scipy.stats.norm.ppf(0.975)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    x = rng.random(200)
    eta = 0.3 + np.sin(3 * x)
    return pd.DataFrame(
        {
            "x": x,
            "y": eta + np.exp(-1 + 0.5 * x) * rng.normal(size=200),
            "t": rng.gamma(3.0, np.exp(eta) / 3.0),
            "p": rng.beta(4 * x + 1, 3.0),
            "n": rng.poisson(np.exp(eta)),
        }
    )


def eta_and_cov(model: FittedModel, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    linear = model.predict({"x": at}, "linear").to_numpy()
    frame = model._rows({"x": at}, frozenset())
    return linear, model._predictors.eta_cov(frame)


def test_normal_quantiles_have_a_closed_form(rows: pd.DataFrame) -> None:
    """q = mu + z sigma with log sigma the second predictor."""
    model = fit(["y ~ x", "scale ~ x"], rows)
    eta, cov = eta_and_cov(model, np.array([0.1, 0.5, 0.9]))
    sigma = np.exp(eta[:, 1])
    for p in (0.01, 0.5, 0.9, 0.9999):
        z = scipy.stats.norm.ppf(p)
        g = np.column_stack([np.ones(3), z * sigma])
        se = np.sqrt(np.einsum("iu,iuv,iv->i", g, cov, g))
        found = with_error(model.family, "quantile", eta, cov, at=p, error=BOTH)
        np.testing.assert_allclose(found["estimate"], eta[:, 0] + z * sigma, rtol=1e-10)
        np.testing.assert_allclose(found["se"], se, rtol=1e-6)
        np.testing.assert_allclose(found["upper"] - found["lower"], 2 * Z * se, rtol=1e-6)


def test_lognormal_limits_are_those_of_the_log(rows: pd.DataFrame) -> None:
    """log q is normal in the predictors: limits exp(log q -+ z se(log q)), all positive."""
    model = fit(["t ~ x", "scale ~ x"], rows, "lognormal")
    eta, cov = eta_and_cov(model, np.array([0.2, 0.8]))
    z, sigma = scipy.stats.norm.ppf(0.05), np.exp(eta[:, 1])
    g = np.column_stack([np.ones(2), z * sigma])
    log_se = np.sqrt(np.einsum("iu,iuv,iv->i", g, cov, g))
    found = with_error(model.family, "quantile", eta, cov, at=0.05, error=BOTH)
    log_q = eta[:, 0] + z * sigma
    np.testing.assert_allclose(found["lower"], np.exp(log_q - Z * log_se), rtol=1e-6)
    np.testing.assert_allclose(found["upper"], np.exp(log_q + Z * log_se), rtol=1e-6)


@pytest.mark.parametrize(
    ("formulas", "name", "which", "at"),
    [
        (["t ~ x", "dispersion ~ x"], "gamma", "quantile", 0.9),
        (["t ~ x", "dispersion ~ x"], "gamma", "median", 0.5),
        (["t ~ x", "dispersion ~ x"], "gamma", "cdf", 1.5),
        (["p ~ x", "precision ~ x"], "beta", "quantile", 0.3),
    ],
)
def test_errors_are_those_of_posterior_simulation(
    rows: pd.DataFrame, formulas: list[str], name: str, which: str, at: float
) -> None:
    model = fit(formulas, rows, name)
    eta, cov = eta_and_cov(model, np.array([0.3, 0.7]))
    found = with_error(model.family, which, eta, cov, at=at, error=BOTH)
    draws = model.sample_coef(4000, seed=1).to_numpy()
    X = np.column_stack([np.ones(2), [0.3, 0.7]])
    for i in range(2):
        drawn = np.column_stack([draws[:, :2] @ X[i], draws[:, 2:] @ X[i]])
        function = model.family.cdf if which == "cdf" else model.family.quantile
        simulated = function(np.full(4000, at), drawn)
        # the curvature that the delta method leaves out, and the draws: a few per cent
        assert found["se"][i] == pytest.approx(simulated.std(), rel=0.06)
        lower, upper = np.quantile(simulated, [0.025, 0.975])
        width = upper - lower
        assert found["lower"][i] == pytest.approx(lower, abs=0.06 * width)
        assert found["upper"][i] == pytest.approx(upper, abs=0.06 * width)


def test_several_values_stand_below_each_other() -> None:
    normal, eta = family("normal"), np.array([[0.0, 0.0], [1.0, 0.5]])
    cov = np.broadcast_to(0.01 * np.eye(2), (2, 2, 2))
    table = with_error(normal, "quantile", eta, cov, at=np.array([0.1, 0.9]), error=BOTH)
    assert list(table.columns.get_level_values(0).unique()) == ["0.1", "0.9"]
    single = with_error(normal, "quantile", eta, cov, at=0.9, error=BOTH)
    pd.testing.assert_frame_equal(table["0.9"], single)
    own = with_error(normal, "cdf", eta, cov, at=np.array([[0.0], [1.0]]), error=BOTH)
    np.testing.assert_allclose(own["0"]["estimate"], 0.5)
    assert ((own["0"]["lower"] > 0.0) & (own["0"]["upper"] < 1.0)).all()


def test_quantiles_of_counts_have_no_error() -> None:
    with pytest.raises(PredictionError, match="jumps"):
        with_error(family("poisson"), "quantile", np.zeros((1, 1)), np.ones((1, 1, 1)),
                   at=0.5, error=BOTH)  # fmt: skip


def test_predict_gives_them(rows: pd.DataFrame) -> None:
    model = fit(["t ~ s(x)", "dispersion ~ x"], rows, "gamma")
    new = {"x": [0.2, 0.8], "t": [1.0, 2.0]}
    both = model.predict(new, "quantile", at=[0.1, 0.9], se=True, interval=0.9)
    assert list(both["0.1"]) == ["estimate", "se", "lower", "upper"]
    alone = model.predict(new, "quantile", at=0.9, se=True, interval=0.9)
    pd.testing.assert_frame_equal(both["0.9"], alone)
    np.testing.assert_allclose(alone["estimate"], model.predict(new, "quantile", at=0.9))
    median = model.predict(new, "median", se=True)
    pd.testing.assert_frame_equal(median, model.predict(new, "quantile", at=0.5, se=True))
    survival = model.predict(new, "survival", interval=0.95)
    cdf = model.predict(new, "cdf", interval=0.95)
    np.testing.assert_allclose(survival["upper"], 1.0 - cdf["lower"], rtol=1e-6)
    hazard = model.predict(new, "cumhazard", at=[[1.0], [2.0]], se=True)
    np.testing.assert_allclose(hazard["0"]["estimate"], -np.log(survival["estimate"]))
    with pytest.raises(PredictionError, match="needs at="):
        model.predict(new, "quantile", se=True)
    with pytest.raises(PredictionError, match="no se="):
        model.predict(new, "pdf", at=1.0, se=True)
