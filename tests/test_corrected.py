"""Uncertainty of smoothing parameters against brute force: refits around the optimum."""

import numpy as np
import pandas as pd
import pytest

from deepregress.assembly import assemble
from deepregress.errors import FitError, PredictionError
from deepregress.fitted import FittedModel
from deepregress.inference.corrected import CorrectedInference, SmoothingUncertainty
from deepregress.loading import load
from deepregress.model import fit


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    x, z, u = rng.random((3, 150))
    mean = np.exp(0.5 + np.sin(5 * x))
    g = rng.integers(0, 8, 150)
    y = np.sin(5 * x) + 0.4 * z + 0.3 * rng.normal(size=8)[g] + 0.4 * rng.normal(size=150)
    return pd.DataFrame(
        {"x": x, "z": z, "u": u, "g": [f"g{i}" for i in g], "n": rng.poisson(mean), "y": y}
    )


def uncertainty(model: FittedModel) -> SmoothingUncertainty:
    objective, _ = assemble(model.family, model.response, model.designs, model.frame)
    return SmoothingUncertainty.of(objective, model.solution)


def at(formula: str, rows: pd.DataFrame, family: str, log_sp: np.ndarray) -> FittedModel:
    """The model with these smoothing parameters of s(x) and s(z)."""
    sp = np.exp(log_sp)
    return fit(formula.format(*(f", sp={each!r}" for each in sp.tolist())), rows, family)


def test_hessian_and_slope_are_those_of_refits(rows: pd.DataFrame) -> None:
    """Second differences of the printed criterion, first differences of the coefficients."""
    formula = "n ~ s(x, k=6{}) + s(z, k=5{})"
    model = fit(formula.format("", ""), rows, "poisson")
    found, h = uncertainty(model), 0.05
    centre = np.log(model.sp.to_numpy())

    def reml(*shift: float) -> float:
        return at(formula, rows, "poisson", centre + h * np.array(shift)).reml

    here = reml(0, 0)
    diagonal = [
        (reml(1, 0) - 2 * here + reml(-1, 0)) / h**2,
        (reml(0, 1) - 2 * here + reml(0, -1)) / h**2,
    ]
    cross = (reml(1, 1) - reml(1, -1) - reml(-1, 1) + reml(-1, -1)) / (4 * h**2)
    wanted = np.array([[diagonal[0], cross], [cross, diagonal[1]]])
    np.testing.assert_allclose(found.hessian, wanted, rtol=5e-3, atol=1e-3)
    for j, step in enumerate(np.eye(2) * h):
        above, below = (at(formula, rows, "poisson", centre + s * step).coef for s in (1, -1))
        slope = (above - below).to_numpy() / (2 * h)
        np.testing.assert_allclose(found.J[:, j], slope, atol=2e-3 * np.abs(slope).max())


def test_the_spread_is_that_of_the_moving_root(rows: pd.DataFrame) -> None:
    """sum_jk R_j' R_k V_jk with R_j by differences of the inverse Cholesky factor of P."""
    model = fit("n ~ s(x, k=6) + s(z, k=5)", rows, "poisson")
    found = uncertainty(model)
    P = np.linalg.inv(model.inference.cov)

    def root(P: np.ndarray) -> np.ndarray:
        return np.linalg.inv(np.linalg.cholesky(P))

    h = 1e-5
    moves = []
    for index, S in found.penalties:
        step = np.zeros_like(P)
        step[index, index] = h * S
        moves.append((root(P + step) - root(P - step)) / (2 * h))
    prior = np.linalg.inv(found.hessian + found.prior * np.eye(2))
    spread = sum(prior[j, k] * moves[j].T @ moves[k] for j in range(2) for k in range(2))
    wanted = found.J @ np.linalg.inv(found.hessian) @ found.J.T + spread
    added = found.added(model.inference.cov)
    np.testing.assert_allclose(added, wanted, atol=1e-6 * np.abs(wanted).max())


def test_a_straight_term_does_not_blow_up_the_covariance(rows: pd.DataFrame) -> None:
    """Its smoothing parameter is at infinity, where nothing depends on it."""
    smooth = fit("y ~ s(x) + s(u, k=5)", rows.assign(y=rows["y"] - rows["y"].mean() + rows["u"]))
    assert smooth.edf["loc", "s(u)"] == pytest.approx(1.0, abs=1e-4)
    assert uncertainty(smooth).root()[0].shape == (3, 1)
    linear = fit("y ~ s(x) + u", rows.assign(y=rows["y"] - rows["y"].mean() + rows["u"]))
    end = {"u": [1.0]}
    ours, theirs = (
        model.corrected().partial_effect(term, grid=end)["se"].iloc[0]
        for model, term in ((smooth, "s(u)"), (linear, "u"))
    )
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert smooth.edf2_total == pytest.approx(linear.edf2_total, abs=1e-3)


def test_without_estimated_smoothing_parameters_nothing_changes(rows: pd.DataFrame) -> None:
    for formula in ("y ~ x + z", "y ~ s(x, df=4)"):
        model = fit(formula, rows)
        pd.testing.assert_frame_equal(model.cov_corrected, model.cov)
        assert model.edf2_total == pytest.approx(model.edf_total)
        assert model.aic_corrected == pytest.approx(model.aic)


def test_degrees_of_freedom_stay_below_edf1(rows: pd.DataFrame) -> None:
    model = fit(["y ~ s(x)", "scale ~ s(z)"], rows)
    found = CorrectedInference.of(uncertainty(model), model.solution, model.inference)
    assert found.edf.sum() <= model.inference.edf1.sum() + 1e-12
    assert np.linalg.eigvalsh(found.cov - model.inference.cov).min() > -1e-12


def test_the_scale_of_a_linear_model_has_limits(rows: pd.DataFrame) -> None:
    """log sigma has the standard error 1 / sqrt(2 (n - p)) under REML."""
    model = fit("y ~ x + z", rows)
    std_dev, lower, upper = model.variance_components().loc["scale", "Residual"]
    width = 1.959964 / np.sqrt(2 * (150 - 3))
    assert std_dev == pytest.approx(model.predict(which="params")["scale"][0])
    np.testing.assert_allclose(np.log([upper / std_dev, std_dev / lower]), width, rtol=1e-3)


def test_limits_widen_with_the_level(rows: pd.DataFrame) -> None:
    model = fit("y ~ s(x) + (1 | g)", rows)
    narrow, wide = (model.variance_components(level=level) for level in (0.8, 0.99))
    assert (wide["upper"] > narrow["upper"]).all()
    assert (wide["lower"] < narrow["lower"]).all()
    with pytest.raises(PredictionError, match="level"):
        model.variance_components(level=95)  # type: ignore[arg-type]


def test_many_levels(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns kept by level give what dense ones do; V_c of too many is refused."""
    dense = fit("y ~ s(x) + (1 | g)", rows)
    monkeypatch.setattr("deepregress.basis.base.MANY_COLUMNS", 5)
    levels = fit("y ~ s(x) + (1 | g)", rows)
    assert levels.solution.information.layout.levels.size
    assert not dense.solution.information.layout.levels.size
    ours, theirs = levels.variance_components(), dense.variance_components()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert levels.edf2_total == pytest.approx(dense.edf2_total, rel=1e-4)
    monkeypatch.setattr("deepregress.inference.corrected.LARGEST", 10)
    with pytest.raises(FitError, match="10 coefficients at most"):
        _ = fit("y ~ s(x) + (1 | g)", rows).cov_corrected


def test_a_model_without_its_rows_says_so(rows: pd.DataFrame, tmp_path) -> None:  # noqa: ANN001
    fit("y ~ s(x)", rows).save(tmp_path / "model.zip", data=False)
    with pytest.raises(PredictionError, match="without its training rows"):
        _ = load(tmp_path / "model.zip").cov_corrected


def test_networks_have_no_correction(rows: pd.DataFrame) -> None:
    model = fit("y ~ s(x) + deep(z, u)", rows, seed=1, verbose=0)
    with pytest.raises(FitError, match="networks"):
        _ = model.edf2_total
