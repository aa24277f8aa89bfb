"""Inputs of a network that stay (`deep(..., select=True)`), and networks that leave as a whole."""

import numpy as np
import pytest

import deepregress as dr
from deepregress.data import prediction_frame
from deepregress.errors import FitError, FormulaError
from deepregress.terms.inputs import Codes, NetworkInputs, OneHot, Standardised

QUICK = dr.Training(epochs=60, learning_rate=1e-2, patience=10)
P = 15
NAMES = ", ".join(f"x{j}" for j in range(P))


def table(seed, n=400):
    """x0, x1 and x2 act, x2 together with x0 only; g acts, h does not."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.0, 1.0, size=(n, P))
    g, h = rng.integers(0, 12, size=(2, n))
    level = rng.normal(size=12)
    y = np.sin(3.0 * X[:, 0]) + 2.0 * X[:, 1] ** 2 + 1.5 * X[:, 0] * X[:, 2]
    columns = {f"x{j}": X[:, j] for j in range(P)}
    noise = 0.3 * rng.normal(size=n)
    names = {"g": np.char.add("g", g.astype(str)), "h": np.char.add("h", h.astype(str))}
    return {"y": y + noise, "v": y + level[g] + noise, **columns, **names}


def fitted(seed):
    return dr.fit(
        f"y ~ deep({NAMES}, select=True)", data=table(seed), training=QUICK, seed=seed, verbose=0
    )


@pytest.fixture(scope="module")
def model():
    return fitted(0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exactly_the_inputs_that_act_stay(seed, model):
    inputs = (model if seed == 0 else fitted(seed)).summary().inputs
    assert set(inputs["input"]) == {f"x{j}" for j in range(P)}
    assert set(inputs.loc[inputs["stays"], "input"]) == {"x0", "x1", "x2"}


def test_the_summary_names_the_inputs(model):
    text = str(model.summary())
    assert "that stay, 3 of 15:\n  x0, x1, x2\n" in text


def test_new_rows_need_only_what_stays(model, tmp_path):
    data = table(0)
    few = {name: data[name] for name in ("x0", "x1", "x2")}
    np.testing.assert_array_equal(model.predict(few), model.predict(data))
    model.save(tmp_path / "model.dr")
    again = dr.load(tmp_path / "model.dr")
    np.testing.assert_array_equal(again.predict(few), model.predict(data))
    assert str(again.summary()) == str(model.summary())


def test_factors_by_embedding_beside_structured_terms_and_a_second_parameter():
    data = table(4)
    model = dr.fit(
        {"loc": "v ~ s(x1) + deep(x0, g, x5, h, x2, select=True)", "scale": "~ deep(x6)"},
        data=data,
        training=QUICK,
        seed=1,
        verbose=0,
    )
    inputs = model.summary().inputs
    assert set(inputs.loc[inputs["stays"], "input"]) == {"x0", "g", "x2"}
    assert np.isfinite(model.log_score(data))


def test_hidden_columns_are_at_their_means_and_codes_are_shuffled():
    recipe = NetworkInputs(
        "deep",
        (
            Standardised("a", ("a",), 1.0, 2.0),
            Codes("g", ("u", "v")),
            OneHot("h", ("p", "q")),
            Standardised("b", ("b",), 0.0, 1.0),
        ),
    )
    data = {"a": [1.0, 3.0], "b": [4.0, 6.0], "g": ["u", "v"], "h": ["p", "q"]}
    frame = prediction_frame(data, list(data))
    joined, codes = recipe.evaluate(frame)
    np.testing.assert_allclose(joined, [[0, 1, 0, 4], [1, 0, 1, 6]])
    hidden = recipe.hidden((joined, codes), {1, 2}, np.array([1, 0]))
    np.testing.assert_allclose(hidden[0], [[0, 0.5, 0.5, 4], [1, 0.5, 0.5, 6]])
    np.testing.assert_array_equal(hidden[1], codes[::-1])
    smaller, arrays = recipe.only((joined, codes), [1, 3])
    for ours, expected in zip(arrays, smaller.evaluate(frame), strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_allclose(arrays[1], [[4], [6]])


# -- whole networks --------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [5e-3, 1e-2])
def test_a_picture_of_noise_leaves_and_one_that_tells_stays(learning_rate):
    rng = np.random.default_rng(7)
    useful, noise = rng.normal(size=(2, 300, 4, 4)).astype("float32")
    z = rng.normal(size=300)
    y = 0.5 * z + 2.0 * np.tanh(useful[:, :2, :2].sum(axis=(1, 2))) + 0.3 * rng.normal(size=300)
    networks = {
        "seen": dr.networks.cnn(filters=(4,), hidden=(8,)),
        "unseen": dr.networks.cnn(filters=(4,), hidden=(8,)),
    }
    model = dr.fit(
        "y ~ z + seen(useful, select=True) + unseen(noise, select=True)",
        data={"y": y, "z": z, "useful": useful, "noise": noise},
        networks=networks,
        training=dr.Training(epochs=200, learning_rate=learning_rate),
        seed=1,
        verbose=0,
    )
    kept = {effect.label for effect in model.deep.effects if effect.multiplier > 0}
    assert kept == {"seen(useful)"}
    selected = model.summary().sparse.terms["n_selected"]
    assert selected.to_dict() == {("loc", "seen(useful)"): 1, ("loc", "unseen(noise)"): 0}


def test_a_network_that_leaves_alone_is_in_the_summary():
    rng = np.random.default_rng(200)
    noise, z = rng.normal(size=(300, 4, 4)).astype("float32"), rng.normal(size=300)
    model = dr.fit(
        "y ~ z + unseen(noise, select=True)",
        data={"y": 0.5 * z + rng.normal(size=300), "z": z, "noise": noise},
        networks={"unseen": dr.networks.cnn(filters=(4,), hidden=(8,))},
        training=dr.Training(epochs=20, learning_rate=1e-2),
        seed=0,
        verbose=0,
    )
    sparse = model.summary().sparse
    row = sparse.terms.loc["loc", "unseen(noise)"]
    assert (row["n_groups"], row["n_selected"], row["edf"]) == (1, 0, 0) and np.isnan(row["lam"])
    assert len(sparse.coefficients) == 0 and "lam was not needed" in str(model.summary())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("deep(x0, x1, select='bic')", "select must be True or False"),
        ("deep(x0, x1, lam=0.1)", "lam is of the gate of a network of one's own"),
        ("own(x0, select='aic')", "select must be one of True, False, bic"),
    ],
)
def test_errors_name_the_option(call, message):
    with pytest.raises(FormulaError, match=message):
        dr.fit(f"y ~ {call}", data=table(0), networks={"own": dr.networks.mlp()})


def test_rows_must_be_held_out():
    with pytest.raises(FitError, match="needs cross-fitting"):
        dr.fit("y ~ deep(x0, x1, select=True)", data=table(0), training=dr.Training(crossfit=False))
