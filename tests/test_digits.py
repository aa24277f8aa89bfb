"""Pictures beside structured effects, with a known truth: what benchmarks/digits.py prints."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import deepregress as dr

TRAIN = 1397


@pytest.mark.slow
def test_effects_beside_a_network_of_pictures_hold():
    """y = 1 + x / 2 + sin(2 pi z) + g(digit) + .3 eps: effects within 2 se, R2 of the network."""
    rng = np.random.default_rng(2)
    images, digit = load_digits(return_X_y=True)
    order = rng.permutation(len(digit))
    g = rng.normal(size=10)[digit[order]]
    g = (g - g.mean()) / g.std()
    x, z = rng.normal(size=len(g)), rng.random(len(g))
    y = 1 + 0.5 * x + np.sin(2 * np.pi * z) + g + 0.3 * rng.normal(size=len(g))
    pictures = (images[order] / 16).reshape(-1, 8, 8).astype(np.float32)
    table = {"y": y, "x": x, "z": z, "image": pictures}
    train, test = (
        {name: values[rows] for name, values in table.items()}
        for rows in (slice(TRAIN), slice(TRAIN, None))
    )
    model = dr.fit(
        "y ~ x + s(z) + photo(image)",
        data=train,
        networks={"photo": dr.networks.mlp()},
        seed=1,
        verbose=0,
    )
    assert abs(model.coef["loc", "x"] - 0.5) < 2 * model.std_error["loc", "x"]
    curve = model.partial_effect("s(z)", grid={"z": np.linspace(0.05, 0.95, 37)})
    off = (curve["effect"] - np.sin(2 * np.pi * curve["z"])) / curve["se"]
    # 95 % of a curve lie within 2 se across the function; seeds vary by several points
    assert np.mean(np.abs(off) < 2) > 0.8
    deep = model.predict(test, "terms")["loc", "photo(image)"]
    assert np.corrcoef(deep, g[TRAIN:])[0, 1] ** 2 > 0.9 * ATTAINABLE


ATTAINABLE = 0.915
"""R2 of an ensemble of plain Keras CNNs trained on y without its structured part (benchmarks)."""
