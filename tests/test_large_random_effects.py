"""Factors with many levels: kept by level a fit is that of dense columns, and large ones fit."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from deepregress.basis import base
from deepregress.errors import FitError
from deepregress.inference import level_tests
from deepregress.loading import load
from deepregress.model import fit
from deepregress.networks import mlp
from deepregress.solvers.base import Training

N = 600


def data(n=N, n_levels=40, seed=1):
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, n_levels, n), rng.integers(0, 9, n)
    x, z = rng.random(n), rng.random(n)
    b, c, d = rng.normal(size=n_levels), rng.normal(size=n_levels), rng.normal(size=9)
    eta = np.sin(6 * x) + 0.6 * b[g] + 0.2 * c[g] * z + 0.4 * d[h]
    return pd.DataFrame(
        {
            "x": x,
            "z": z,
            "g": [f"g{i}" for i in g],
            "a": [f"a{i // 5}" for i in g],
            "h": [f"h{i}" for i in h],
            "f": rng.choice(["u", "v"], n),
            "normal": eta + np.exp(-1 + 0.3 * c[g]) * rng.normal(size=n),
            "poisson": rng.poisson(np.exp(0.5 * eta)),
            "bernoulli": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
        }
    )


DATA = data()
MODELS = [
    ("normal", "s(x) + (1 | g)", "REML"),
    ("poisson", "s(x) + (1 | g)", "REML"),
    ("bernoulli", "s(x) + (1 | g)", "REML"),
    ("normal", "s(x) + z + (z | g)", "REML"),
    ("poisson", "s(x) + (1 | a/g)", "REML"),
    ("poisson", "s(x) + (1 | g) + (1 | h)", "REML"),
    ("normal", "s(x) + s(x, h, bs='fs', k=5)", "REML"),
    ("normal", "s(x) + s(g, bs='re', by=f)", "REML"),
    ("poisson", "s(x) + s(g, bs='re', by=z)", "REML"),
    ("normal", "s(x) + s(g, bs='re', id=1) + s(h, bs='re', id=1)", "REML"),
    ("normal", "s(x, select=True) + s(g, bs='re', select=True)", "REML"),
    ("poisson", "s(x) + s(g, bs='re', sp=3)", "REML"),
    ("poisson", "s(x) + s(g, bs='re', df=20)", "REML"),
    ("normal", "s(x) + s(g, bs='re', df=20)", "REML"),
    ("normal", "s(x) + (1 | g)", "ML"),
    ("poisson", "s(x) + (1 | g) + (1 | h)", "ML"),
    ("poisson", "0 + (1 | g)", "REML"),
    ("normal", {"loc": "s(x) + (1 | g)", "scale": "z + (1 | g)"}, "REML"),
]


def both(family, terms, method="REML", table=DATA):
    """The model with dense columns, and with columns by level."""
    formula = (
        f"{family} ~ {terms}"
        if isinstance(terms, str)
        else {k: f"{family if k == 'loc' else ''} ~ {v}" for k, v in terms.items()}
    )
    models = []
    for many in (10**9, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base, "MANY_COLUMNS", many)
            models.append(fit(formula, table, family, method=method, verbose=0))
    return models


@pytest.mark.parametrize(
    ("family", "terms", "method"), MODELS, ids=[f"{m[0]} {m[1]} {m[2]}" for m in MODELS]
)
def test_columns_by_level_give_the_same_fit(family, terms, method):
    dense, level = both(family, terms, method)
    assert dense.solution.information.layout.entire
    assert level.solution.information.layout.levels.size
    # two orders of the same sums and eliminations, at smoothing parameters known to 1e-8
    for name in ("coef", "std_error", "edf"):
        expected = getattr(dense, name)
        pd.testing.assert_series_equal(getattr(level, name), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(np.log(level.sp), np.log(dense.sp), atol=1e-7)
    assert level.reml == pytest.approx(dense.reml, abs=1e-8)
    assert level.loglik == pytest.approx(dense.loglik, abs=1e-7)
    np.testing.assert_allclose(level.cov, dense.cov, atol=1e-8)
    for which in ("cov_frequentist", "edf1"):
        expected = getattr(dense.inference, which)
        np.testing.assert_allclose(getattr(level.inference, which), expected, atol=1e-7)


def test_fixed_degrees_of_freedom_of_dependent_columns_are_met():
    # the dummies of all levels depend on the intercept: without its penalty H is singular
    for family in ("normal", "poisson"):
        for model in both(family, "s(x) + s(g, bs='re', df=20)"):
            edf = model.edf[model.family.parameter_names[0], "s(g)"]
            assert edf == pytest.approx(20.0, abs=1e-3)


@pytest.mark.parametrize(
    "terms",
    ["s(x) + z + (z | g)", "s(x) + (1 | g) + (1 | h)", "s(x) + s(x, h, bs='fs', k=5)"],
)
def test_what_is_shown_is_the_same(terms):
    dense, level = both("poisson", terms)
    new = DATA.head(30).assign(g=["new"] * 10 + DATA["g"].tolist()[10:30])
    for which in ("mean", "linear", "terms"):
        for rows in (None, new):
            expected = dense.predict(rows, which, se=True)
            np.testing.assert_allclose(level.predict(rows, which, se=True), expected, atol=1e-7)
    term = "s(x)"
    for label in (term, dense.edf.index[-1][1]):
        expected = dense.partial_effect(label).select_dtypes("number")
        found = level.partial_effect(label).select_dtypes("number")
        np.testing.assert_allclose(found, expected, atol=1e-7)
    one, other = dense.summary(), level.summary()
    pd.testing.assert_frame_equal(other.parametric, one.parametric, rtol=1e-6)
    pd.testing.assert_frame_equal(other.smooth, one.smooth, rtol=1e-5)
    excluded = level.predict(exclude=level.edf.index[-1][1])
    expected = dense.predict(exclude=dense.edf.index[-1][1])
    np.testing.assert_allclose(excluded, expected, atol=1e-8)


def test_saved_models_predict_the_same(tmp_path):
    _, level = both("poisson", "s(x) + z + (z | g)")
    level.save(tmp_path / "model.zip")
    again = load(tmp_path / "model.zip")
    pd.testing.assert_frame_equal(
        again.predict(DATA.head(50), se=True), level.predict(DATA.head(50), se=True)
    )
    draws = again.sample_coef(20_000)
    np.testing.assert_allclose(draws.mean(), level.coef, atol=0.05)
    np.testing.assert_allclose(draws.std(), level.std_error, rtol=0.05)


def test_a_new_level_has_the_variance_of_its_factor():
    for model in both("normal", "z + (z | g)"):
        new = pd.DataFrame({"z": [0.3], "g": ["nobody"]})
        fixed = [("loc", "(Intercept)"), ("loc", "z")]
        cov = model.cov.loc[fixed, fixed].to_numpy()
        lam = dict(zip(model.sp.index, model.solution.lam, strict=True))
        largest = DATA["z"].max()
        prior = 1 / lam["loc", "s(g)"] + 0.3**2 / (lam["loc", "s(g,z)"] * largest**2)
        row = np.array([1.0, 0.3])
        expected = np.sqrt(row @ cov @ row + prior)
        found = model.predict(new, se=True)["se"].iloc[0]
        assert found == pytest.approx(expected, rel=1e-6)
        left = model.predict(new, se=True, exclude=["s(g)", "s(g,z)"])["se"].iloc[0]
        assert left == pytest.approx(np.sqrt(row @ cov @ row), rel=1e-6)
        terms = model.predict(new, "terms", se=True)
        assert terms["loc", "s(g)", "se"].iloc[0] == pytest.approx(
            lam["loc", "s(g)"] ** -0.5, rel=1e-6
        )


def test_tests_of_many_levels_are_those_of_all_eigenvalues(monkeypatch):
    table = data(2000, 300, seed=4)
    table["weak"] = table["poisson"].sample(frac=1, random_state=3).to_numpy()
    formula = "weak ~ s(x) + z + (z | g)"
    model = fit(formula, table, "poisson", verbose=0)
    exact = model.summary().smooth
    assert model.solution.information.layout.levels.shape == (300, 2)
    monkeypatch.setattr(level_tests, "MANY", 10)
    monkeypatch.setattr(level_tests, "GROUPS", 50)
    blocks = fit(formula, table, "poisson", verbose=0).summary().smooth
    np.testing.assert_allclose(blocks["statistic"], exact["statistic"], rtol=1e-6)
    np.testing.assert_allclose(blocks["p_value"], exact["p_value"], atol=0.01)
    np.testing.assert_array_equal(blocks["ref_df"].iloc[1:], exact["ref_df"].iloc[1:])


def test_ten_thousand_levels_fit_in_little_memory():
    n, n_levels, sd, noise = 50_000, 10_000, 0.8, 0.5
    rng = np.random.default_rng(0)
    g, x = rng.integers(0, n_levels, n), rng.random(n)
    # many levels with one row, few with a hundred
    g[: n // 4] = rng.integers(0, 100, n // 4)
    y = np.sin(6 * x) + sd * rng.normal(size=n_levels)[g] + noise * rng.normal(size=n)
    table = pd.DataFrame({"x": x, "g": g, "y": y})
    tracemalloc.start()
    model = fit("y ~ s(x) + (1 | g)", table, verbose=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # a dense design would take 4 GiB
    assert peak < 400e6
    found = model.solution.lam[1] ** -0.5
    # standard error of a standard deviation from so many levels: about 0.01
    assert found == pytest.approx(sd, abs=0.03)
    assert np.exp(model.coef["scale"]).item() == pytest.approx(noise, abs=0.01)
    assert model.converged
    rows = model.predict(table.head(2000), se=True)
    assert np.isfinite(rows.to_numpy()).all()
    assert model.summary().smooth.loc[("loc", "s(g)"), "p_value"] < 1e-10


def test_two_crossed_factors_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    n = 60_000
    table = {
        "y": rng.normal(size=n),
        "g": np.arange(n) // 2,
        "h": rng.permutation(n) // 3,
    }
    with pytest.raises(FitError, match="random effects leave 20002 coefficients beside the 30000"):
        fit("y ~ (1 | g) + (1 | h)", table, verbose=0)


def test_networks_beside_many_levels():
    training = Training(epochs=30, folds=2, learning_rate=1e-2)
    networks = {"net": mlp(hidden=(16,))}
    for options in ("", ", orthogonal_to='all'"):
        terms = f"s(x) + (1 | g) + net(z, w{options})"
        table = DATA.assign(w=np.random.default_rng(5).normal(size=N))
        table["normal"] += 1.5 * np.abs(table["w"])
        models = []
        for many in (10**9, 2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(base, "MANY_COLUMNS", many)
                models.append(
                    fit(
                        f"normal ~ {terms}",
                        table,
                        networks=networks,
                        training=training,
                        seed=1,
                        verbose=0,
                    )
                )
        dense, level = models
        assert level.deep.effects[0].multiplier > 0
        # networks are trained in float32
        np.testing.assert_allclose(level.coef, dense.coef, atol=2e-4)
        np.testing.assert_allclose(level.predict(table), dense.predict(table), atol=2e-4)
        new = table.head(20).assign(g="new")
        expected = dense.predict(new, se=True)
        np.testing.assert_allclose(level.predict(new, se=True), expected, atol=1e-3)
        eta = level.predict(table, "linear")
        effect = level.predict(table, "terms")["loc", "net(z,w)"].to_numpy()
        assert np.isfinite(eta.to_numpy()).all()
        if options:
            by_level = pd.Series(effect).groupby(table["g"].to_numpy()).mean()
            assert np.abs(by_level).max() < 0.3 * effect.std()


def test_sparse_terms_beside_many_levels():
    rng = np.random.default_rng(0)
    table = DATA.assign(**{f"v{j}": rng.normal(size=N) for j in range(5)})
    table["normal"] += table["v0"]
    models = both("normal", "lasso(v0, v1, v2, v3, v4, lam=0.05) + (1 | g)", table=table)
    np.testing.assert_allclose(models[1].coef, models[0].coef, atol=1e-6)
    new = table.head(20).assign(g=["new"] * 5 + table["g"].tolist()[5:20])
    expected = models[0].predict(new, se=True)
    np.testing.assert_allclose(models[1].predict(new, se=True), expected, atol=1e-6)
