"""Networks in proportional hazards models: known signals, pictures, structured effects kept."""

import numpy as np
import pytest

import deepregress as dr
from deepregress.errors import FitError

QUICK = dr.Training(folds=2, epochs=60, learning_rate=0.01)
N = 700


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """Log hazard 0.7 x + 1.2 tanh(2 z) + brightness of a picture; 25 % censored."""
    rng = np.random.default_rng(4)
    picture = rng.uniform(size=(N, 6, 6, 1)).astype(np.float32)
    picture *= rng.uniform(0.2, 1.8, size=(N, 1, 1, 1)).astype(np.float32)
    bright = 2.0 * (picture.mean(axis=(1, 2, 3)) - 0.5)
    x = rng.normal(size=N)
    z = 0.5 * x + rng.normal(size=N)
    effect = 1.2 * np.tanh(2.0 * z)
    event = rng.weibull(1.5, N) * np.exp(-(0.7 * x + effect + bright) / 1.5)
    censored = 3.0 * rng.exponential(size=N)
    time, seen = np.minimum(event, censored), 1.0 * (event <= censored)
    columns = {"x": x, "z": z, "picture": picture, "bright": bright, "effect": effect}
    return {"time": time, "event": seen, **columns}


def test_a_network_finds_the_shape_and_a_picture_its_brightness(data):
    model = dr.fit(
        "Surv(time, event) ~ x + deep(z) + photo(picture)",
        data,
        "cox",
        networks={"photo": dr.networks.cnn(filters=(4,), hidden=(8,))},
        training=QUICK,
        seed=1,
        verbose=0,
    )
    terms = model.predict(which="terms", parameter="shift")
    # cross-fitted networks of 350 rows: much of the signal, shrunk
    assert np.corrcoef(terms["deep(z)"], data["effect"])[0, 1] > 0.9
    assert np.corrcoef(terms["photo(picture)"], data["bright"])[0, 1] > 0.7
    assert model.deep.score_difference > 4.0 * model.deep.score_se
    assert abs(model.coef["shift", "x"] - 0.7) < 3.0 * model.std_error["shift", "x"]
    # the same predictions one row at a time
    some = {name: column[:3] for name, column in data.items()}
    one = {name: column[1:2] for name, column in data.items()}
    at = np.array([0.2, 1.0])
    together = model.predict(some, "survival", at=at, interval=0.95)
    alone = model.predict(one, "survival", at=at, interval=0.95)
    np.testing.assert_allclose(together.to_numpy()[1], alone.to_numpy()[0], rtol=1e-6)


def test_orthogonalisation_keeps_the_structured_coefficient(data):
    """A network of x itself leaves the linear effect of x where it is without the network."""
    formula = "Surv(time, event) ~ x + effect + bright"
    alone = dr.fit(formula, data, "cox")
    both = dr.fit(f"{formula} + deep(x)", data, "cox", training=QUICK, seed=2, verbose=0)
    moved = both.coef["shift", "x"] - alone.coef["shift", "x"]
    assert abs(moved) < 0.5 * alone.std_error["shift", "x"]


def test_the_partial_likelihood_refuses_networks(data):
    with pytest.raises(FitError, match="no likelihood of single rows: networks need"):
        dr.fit("Surv(time, event) ~ x + deep(z)", data, "coxph", verbose=0)
