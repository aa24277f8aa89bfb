"""`model.decomposition()` against variances computed by hand from the terms' effects."""

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import PredictionError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = 300
    x, z, v = rng.normal(size=(3, n))
    table = pd.DataFrame({"x": x + 0.5 * z, "z": z, "v": v, "e": rng.uniform(1, 2, n)})
    table["w"] = rng.integers(1, 4, n).astype(float)
    table["y"] = 1 + x + np.sin(z) + np.tanh(2 * v * z) + 0.3 * rng.normal(size=n)
    return table


@pytest.fixture(scope="module")
def model(data):
    return dr.fit(
        {"loc": "y ~ x + s(z, k=6) + deep(x, z, v) + offset(log(e))", "scale": "~ x"},
        data,
        weights="w",
        training=dr.Training(epochs=30, folds=3),
        seed=1,
        verbose=0,
    )


def weighted_cov(a, b, w):
    a, b = np.asarray(a), np.asarray(b)
    return np.average((a - np.average(a, weights=w)) * (b - np.average(b, weights=w)), weights=w)


def test_shares_by_hand(model, data):
    w, terms = data["w"], model.predict(which="terms", parameter="loc")
    eta = model.predict(which="linear", parameter="loc")
    eta = np.asarray(eta).ravel()
    total = weighted_cov(eta, eta, w)
    table = model.decomposition().loc["loc"]
    structured = terms[["x", "s(z)", "offset(log(e))"]]
    deep = terms["deep(x,z,v)"]
    for label in [*structured, "deep(x,z,v)"]:
        own = weighted_cov(terms[label], terms[label], w)
        assert table.loc[label, "variance"] == pytest.approx(own, rel=1e-9)
        assert table.loc[label, "share"] == pytest.approx(own / total, rel=1e-9)
    sums = table[table["kind"] == "total"]["share"]
    joint = structured.sum(axis=1)
    assert sums["structured"] == pytest.approx(weighted_cov(joint, joint, w) / total, rel=1e-9)
    assert sums["deep"] == pytest.approx(weighted_cov(deep, deep, w) / total, rel=1e-9)
    assert sums["shared"] == pytest.approx(2 * weighted_cov(joint, deep, w) / total, abs=1e-9)
    assert sums["structured"] + sums["deep"] + sums["shared"] == pytest.approx(1.0, abs=1e-12)
    assert table.loc["predictor", "variance"] == pytest.approx(total, rel=1e-9)
    assert deep.std() > 0.1


def test_what_the_projection_moved(model, data):
    """X C of the protected columns, from the saved projection and the design by hand."""
    unit, effect = model._predictors.units[0], model.deep.effects[0]
    X = unit.rows(model.frame).X
    moved = effect.multiplier * (X[:, effect.protected] @ effect.projection).mean(axis=1)
    table = model.decomposition().loc["loc"]
    expected = weighted_cov(moved, moved, data["w"]) / table.loc["predictor", "variance"]
    assert table.loc["deep(x,z,v)", "moved"] == pytest.approx(expected, rel=1e-9)
    assert table.loc["deep", "moved"] == pytest.approx(expected, rel=1e-9)
    assert expected > 1e-4
    assert (table.loc[table["kind"] == "structured", "moved"] == 0).all()


def test_chunks_add_up(model, monkeypatch):
    whole = model.decomposition()
    monkeypatch.setattr("deepregress.prediction.CHUNK_ROWS", 37)
    pd.testing.assert_frame_equal(model.decomposition(), whole, rtol=1e-9)


def test_structured_models_have_their_terms_only(data):
    model = dr.fit({"loc": "y ~ x + s(z)", "scale": "~ 1"}, data, weights="w")
    table = model.decomposition()
    # the constant scale has no variance to be shared
    assert list(table.index) == [("loc", p) for p in ("x", "s(z)", "structured", "predictor")]
    assert table.loc[("loc", "structured"), "share"] == pytest.approx(1.0, abs=1e-12)
    slope = model.coef["loc", "x"]
    expected = slope**2 * weighted_cov(data["x"], data["x"], data["w"])
    assert table.loc[("loc", "x"), "variance"] == pytest.approx(expected, rel=1e-9)


def test_large_constants_take_no_digits(data):
    moved = data.assign(x=data["x"] + 1e5)
    tables = [dr.fit("y ~ x + z", given).decomposition() for given in (data, moved)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-7)


def test_it_needs_the_training_rows(data, tmp_path):
    dr.fit("y ~ x", data).save(tmp_path / "model.zip", data=False)
    with pytest.raises(PredictionError, match="saved without its training rows"):
        dr.load(tmp_path / "model.zip").decomposition()
