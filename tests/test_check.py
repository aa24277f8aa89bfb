"""Model criticism against mgcv: `check()` as gam.check and k.check, `summary()` as summary.gam.

References are from data/reference/checks.R. k-indices are compared with the accuracy that two fits
of one model allow; p-values of the permutation test within simulation error.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import datasets
from deepregress.errors import PredictionError
from deepregress.fitted import FittedModel
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "checks.json").read_text())

FITTED = 2e-3
"""Of a k-index: two fits of one model differ by 1e-4 of the linear predictor's range, and by 0.02
in the edf of terms whose likelihood is flat."""
SIMULATION = 0.02
"""Of a p-value: four standard errors of 4,000 shuffles and 20,000 of R's are 0.035 at p = 0.5 and
0.015 at p = 0.05; the fits differ too."""


@functools.cache
def terms() -> pd.DataFrame:
    data = pd.read_csv(REFERENCE / "terms.csv")
    return data.astype({"g": "category", "o": "category"}).assign(pos=np.exp(data["y"]))


CHECKED = {
    "one": ("y ~ s(x, k=6)", "normal"),
    "two": ("y ~ s(x, z, k=12) + s(w, k=4)", "normal"),
    "by": ("y ~ g + s(x, by=g, k=4) + s(g, z, bs='re')", "normal"),
    "fs": ("y ~ s(x, g, bs='fs', k=4, m=1)", "normal"),
    "poisson": ("count ~ s(x, k=5) + s(z, k=5)", "poisson"),
    "location_scale": ({"loc": "y ~ s(x, k=6)", "scale": "~ s(z, k=5)"}, "normal"),
}


@pytest.mark.parametrize("name", list(CHECKED))
def test_basis_dimensions_are_those_of_k_check(name: str) -> None:
    formula, family = CHECKED[name]
    table = fit(formula, terms(), family).check(n_rep=4000).table
    expected = R["bases"][name]
    assert table["k"].tolist() == np.atleast_1d(expected["k"]).tolist()
    assert table["edf"].to_numpy() == pytest.approx(np.atleast_1d(expected["edf"]), abs=0.02)
    for column, tolerance in (("k_index", FITTED), ("p_value", SIMULATION)):
        wanted = np.atleast_1d(np.array(expected[column], dtype=float))
        assert table[column].to_numpy() == pytest.approx(wanted, abs=tolerance, nan_ok=True)


def test_the_k_index_does_not_depend_on_units() -> None:
    data = terms().assign(z100=terms()["z"] * 100)
    here, there = (
        fit(f"y ~ te(x, {z}, k=4)", data).check(n_rep=1).table["k_index"].iloc[0]
        for z in ("z", "z100")
    )
    assert here == pytest.approx(there, abs=1e-6)
    # mgcv's does
    assert abs(R["tensor_units"][0] - R["tensor_units"][1]) > 0.02


def test_a_basis_that_is_too_small_is_found() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(size=400)
    data = pd.DataFrame({"x": x, "y": np.sin(20 * x) + 0.2 * rng.normal(size=400)})
    small, large = (fit(f"y ~ s(x, k={k})", data).check().table.iloc[0] for k in (5, 20))
    assert small["k_index"] < 0.5
    assert small["p_value"] == pytest.approx(1 / 401)
    assert large["p_value"] > 0.1


def test_convergence_is_that_of_gam_check() -> None:
    data = terms()
    model = fit("y ~ o + w + s(x) + s(z)", data)
    check = model.check(n_rep=1)
    assert check.converged
    assert np.abs(check.optimum.gradient).max() < 5e-3
    assert (check.optimum.eigenvalues > 0).all()
    assert check.score == pytest.approx(R["summaries"]["normal"]["score"], abs=1e-3)
    assert check.scale == pytest.approx(R["summaries"]["normal"]["scale"], rel=1e-3)
    assert check.rank == check.n_coef == model.cov.shape[0] - 1
    text = str(check)
    assert "full convergence" in text
    assert "Hessian positive definite" in text
    assert "Model rank =  22 / 22" in text


def test_eigenvalues_are_those_of_r() -> None:
    # one smoothing parameter and a scale: the determinant is free of the parametrisation of the
    # scale up to its Jacobian, dlog phi = 2 dlog scale
    model = fit("y ~ s(x, k=6)", terms())
    eigenvalues = model.check(n_rep=1).optimum.eigenvalues
    wanted = np.linalg.det(np.array(R["optimum"]["hessian"]))
    assert eigenvalues.prod() / 4.0 == pytest.approx(wanted, rel=1e-3)


def straight(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    x = rng.uniform(size=n)
    return pd.DataFrame({"x": x, "y": x + rng.normal(size=n)})


def test_large_tables_are_sampled() -> None:
    data = straight(3000)
    table = fit("y ~ s(x)", data).check(subsample=500, n_rep=200, seed=1).table
    assert table["k_index"].iloc[0] == pytest.approx(1.0, abs=0.2)
    again = fit("y ~ s(x)", data).check(subsample=500, n_rep=200, seed=1).table
    assert table.equals(again)


def test_what_cannot_be_checked_is_refused() -> None:
    model = fit("y ~ s(x)", straight(60))
    with pytest.raises(PredictionError, match=r"check\(n_rep=0\)"):
        model.check(n_rep=0)
    with pytest.raises(PredictionError, match=r"check\(subsample=1\)"):
        model.check(subsample=1)


def test_models_without_smooths_and_with_ml() -> None:
    data = straight(60)
    assert "No smooth terms." in str(fit("y ~ x", data).check())
    check = fit("y ~ s(x)", data, method="ML").check()
    assert check.optimum is None
    assert "Method: ML" in str(check)


def test_a_check_is_drawn() -> None:
    model: FittedModel = fit("accel ~ s(times)", datasets.load("mcycle"))
    figure = model.check(n_rep=1).plot()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[1] == "Quantile residuals against linear predictor"
    drawn = np.asarray(figure.axes[1].collections[0].get_offsets())
    assert drawn[:, 0] == pytest.approx(model.predict(which="linear")["loc"].to_numpy())


SUMMARISED = {
    "normal": ("y ~ o + w + s(x) + s(z)", "terms", "normal"),
    "gamma": ("Volume ~ s(Height) + s(Girth)", "trees", "gamma"),
    "poisson": ("count ~ w + s(x) + s(g, bs='re')", "terms", "poisson"),
    "bernoulli": ("low ~ s(age) + s(lwt) + smoke + race", "birthwt", "bernoulli"),
    "location_scale": ({"loc": "y ~ o + s(x)", "scale": "~ s(z)"}, "terms", "normal"),
    "gamma_scale": ({"mean": "pos ~ s(x)", "dispersion": "~ s(z)"}, "terms", "gamma"),
    "no_smooth": ("y ~ o + w", "terms", "normal"),
    "linear_poisson": ("count ~ w + o", "terms", "poisson"),
}


@functools.cache
def table(name: str) -> pd.DataFrame:
    if name == "terms":
        return terms()
    data = pd.read_csv(REFERENCE / f"{name}.csv")
    if "race" in data:
        data["race"] = pd.Categorical(data["race"], categories=["white", "black", "other"])
    return data


@pytest.mark.parametrize("name", list(SUMMARISED))
def test_every_number_of_the_summary_is_that_of_summary_gam(name: str) -> None:
    formula, data, family = SUMMARISED[name]
    summary = fit(formula, table(data), family).summary()
    expected = R["summaries"][name]
    # R's scale of a Gamma model is Pearson's, in its standard errors too; ours that of the REML
    ours = summary.statistics.scale or 1.0
    ratio = ours / expected["scale"] if name == "gamma" else 1.0
    wanted = np.array([list(row.values())[:4] for row in expected["parametric"]])
    got = summary.parametric.to_numpy()
    assert got[:, 0] == pytest.approx(wanted[:, 0], abs=2e-4)
    assert got[:, 1] == pytest.approx(wanted[:, 1] * np.sqrt(ratio), rel=1e-3)
    assert got[:, 2] == pytest.approx(wanted[:, 2] / np.sqrt(ratio), rel=1e-3, abs=1e-3)
    if ratio == 1.0:
        assert got[:, 3] == pytest.approx(wanted[:, 3], rel=1e-2, abs=1e-5)
    smooth = np.array([list(row.values())[:4] for row in expected["smooth"]]).reshape(-1, 4)
    got = summary.smooth.to_numpy()
    assert got[:, :2] == pytest.approx(smooth[:, :2], abs=2e-3)
    assert got[:, 2] == pytest.approx(smooth[:, 2] / ratio, rel=1e-3, abs=1e-3)
    if ratio == 1.0:
        assert got[:, 3] == pytest.approx(smooth[:, 3], rel=1e-2, abs=1e-4)
    statistics = summary.statistics
    assert statistics.goodness.deviance_explained == pytest.approx(expected["dev_expl"], abs=1e-5)
    r_sq = expected["r_sq"] or None  # R has none for several predictors
    assert statistics.goodness.r_squared == (
        None if r_sq is None else pytest.approx(r_sq, abs=1e-5)
    )
    assert statistics.reml == pytest.approx(expected["score"], abs=1e-4)
    if summary.statistics.scale is not None:
        assert ours == pytest.approx(expected["reml_scale"], rel=1e-4)
    assert statistics.goodness.n_obs == expected["n"]


def test_standard_deviations_of_random_effects_are_those_of_gam_vcomp() -> None:
    summary = fit("y ~ s(x) + (1 + w | g)", terms()).summary()
    _, intercepts, slopes, residual = R["random"]["normal"]
    assert summary.random["loc", "s(g)"] == pytest.approx(intercepts, rel=1e-3)
    assert summary.random["loc", "s(g,w)"] == pytest.approx(slopes, rel=1e-3)
    assert summary.random["scale", "Residual"] == pytest.approx(residual, rel=1e-4)
    lines = str(summary).splitlines()
    at = lines.index("Standard deviations of random effects:")
    assert lines[at + 1].split() == ["s(g)", f"{intercepts:.4g}"]
    assert lines[at + 3].split() == ["Residual", f"{residual:.4g}"]
    assert len(fit("y ~ s(x)", terms()).summary().random) == 0
