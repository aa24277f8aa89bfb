"""Gates of networks, `nam()`, and sparse terms beside networks."""

import numpy as np
import pytest

import deepregress as dr
from deepregress.errors import FitError, FormulaError

QUICK = dr.Training(epochs=60, learning_rate=1e-2, patience=10)


def table(n=400, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.0, 1.0, size=(n, p))
    y = np.sin(3.0 * X[:, 0]) + 2.0 * X[:, 1] ** 2 + 0.3 * rng.normal(size=n)
    return {"y": y, **{f"x{j}": X[:, j] for j in range(p)}, "z": rng.normal(size=n)}


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def additive(data):
    formula = "y ~ z + nam(x0, x1, x2, x3, x4, select=True)"
    return dr.fit(formula, data=data, training=QUICK, seed=1, verbose=0)


def test_networks_without_effect_leave(additive):
    kept = {effect.label for effect in additive.deep.effects if effect.multiplier > 0}
    assert kept == {"nam(x0)", "nam(x1)"}
    out = [effect for effect in additive.deep.effects if effect.label not in kept]
    assert [effect.multiplier for effect in out] == [0.0, 0.0, 0.0]
    row = additive.summary().sparse.terms.iloc[0]
    assert (row["n_groups"], row["n_selected"]) == (5, 2)
    assert row["edf"] == pytest.approx(2.0, abs=1e-6)


def test_effects_of_what_stays_are_found(additive):
    effect = additive.partial_effect("nam(x0)", grid=50)
    truth = np.sin(3.0 * effect["x0"])
    assert np.corrcoef(effect["effect"], truth)[0, 1] > 0.95
    assert np.isfinite(effect["se"]).all()


def test_what_left_has_no_part_in_predictions(additive, data):
    moved = {**data, "x3": data["x3"] + 1.0}
    np.testing.assert_array_equal(additive.predict(moved), additive.predict(data))
    one = {name: column[7:8] for name, column in data.items()}
    np.testing.assert_allclose(additive.predict(one), additive.predict(data)[7:8], rtol=1e-12)


def test_standard_errors_are_those_of_the_model_without_the_networks_that_left(additive):
    se = additive.std_error
    assert np.isfinite(se["loc", "z"])
    assert np.isfinite(additive.cov_population.to_numpy()).all()


def test_selection_survives_saving(additive, data, tmp_path):
    additive.save(tmp_path / "model.dr")
    again = dr.load(tmp_path / "model.dr")
    np.testing.assert_array_equal(again.predict(data), additive.predict(data))


def test_without_select_all_networks_stay_in_the_race(data):
    model = dr.fit("y ~ nam(x0, x1)", data=data, training=QUICK, seed=1, verbose=0)
    assert [effect.label for effect in model.deep.effects] == ["nam(x0)", "nam(x1)"]
    assert all(effect.multiplier > 0.5 for effect in model.deep.effects)


def test_lasso_beside_a_network_without_effect_is_the_lasso(data):
    rng = np.random.default_rng(5)
    noise = {**data, "u": rng.permutation(data["z"])}
    alone = dr.fit("y ~ lasso(x0, x2, x3, x4, lam=0.05)", data=noise)
    training = dr.Training(epochs=2, learning_rate=1.0)  # leaps to nowhere: epoch 0 is the best
    beside = dr.fit(
        "y ~ lasso(x0, x2, x3, x4, lam=0.05) + deep(u)",
        data=noise,
        training=training,
        seed=1,
        verbose=0,
    )
    assert beside.deep.effects[0].multiplier == 0.0
    np.testing.assert_allclose(beside.coef, alone.coef, rtol=1e-9)
    np.testing.assert_allclose(beside.std_error, alone.std_error, rtol=1e-9)


def test_lasso_beside_a_network_with_effect(data):
    model = dr.fit(
        "y ~ lasso(x0, x2, x3, x4) + deep(x1)", data=data, training=QUICK, seed=1, verbose=0
    )
    coef = model.coef["loc"]
    assert coef["x0"] > 0.5
    assert model.deep.effects[0].multiplier > 0.5
    assert (coef[["x2", "x3", "x4"]] == 0.0).sum() >= 2
    assert np.isfinite(model.log_score(data))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("nam()", "needs columns"),
        ("nam(x0, select='aic')", "select must be one of True, False, bic"),
        ("nam(x0, lam=-1)", "lam"),
        ("nam(x0, k=3)", "k"),
    ],
)
def test_errors_name_the_option(data, call, message):
    with pytest.raises(FormulaError, match=message):
        dr.fit(f"y ~ {call}", data=data)


def test_gates_need_rows_that_networks_did_not_see(data):
    with pytest.raises(FitError, match="cross-fitting"):
        dr.fit("y ~ nam(x0, select=True)", data=data, training=dr.Training(crossfit=False))
