"""Smooths without curvature under a sparse penalty are the linear effects they stand for."""

import numpy as np
import pytest

import deepregress as dr

N = 200


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    """A curve in z, a weak line in x and noise."""
    rng = np.random.default_rng(4)
    x, z = rng.uniform(size=(2, N))
    return {"y": np.sin(6 * z) + 0.3 * x + 0.5 * rng.normal(size=N), "x": x, "z": z}


@pytest.mark.parametrize("depth", [2, 3])
def test_a_straight_smooth_is_the_linear_effect(data, depth):
    """Nine coefficients have a weight of 3, a single one of 1."""
    selected = []
    for lam in (0.005, 0.01, 0.015, 0.02, 0.03):
        asked = f"depth={depth}"
        smooth = dr.fit(f"y ~ grouplasso(s(x, sp=1e12), lam={lam}, {asked}) + s(z, sp=0.1)", data)
        line = dr.fit(f"y ~ grouplasso(x, lam={3 * lam}, {asked}) + s(z, sp=0.1)", data)
        np.testing.assert_allclose(smooth.predict(data), line.predict(data), atol=1e-5)
        names = smooth.coef.index.get_level_values("name").str.startswith("s(x)")
        slope = line.coef["loc", "x"]
        assert np.all((smooth.coef[names] != 0) == (slope != 0))
        assert smooth.sparse.residual < 1e-8
        selected.append(bool(slope))
    assert selected[0] and not selected[-1]


def test_what_is_selected_has_degrees_of_freedom(data):
    rng = np.random.default_rng(1)
    noise = {f"v{j}": rng.uniform(size=N) for j in range(4)}
    term = "grouplasso(s(x), s(z), s(v0), s(v1), s(v2), s(v3))"
    path = dr.path(f"y ~ {term}", data | noise, n_lam=25)
    names = path.coef.columns.get_level_values("name")
    for number in (8, 14, 20):
        model = path.model(path.lam[number])
        on = path.coef.iloc[number] != 0
        assert np.array_equal(on, model.coef != 0)
        for label in ("s(x)", "s(z)", *(f"s(v{j})" for j in range(4))):
            selected = on[names.str.startswith(label)].any()
            assert selected == (model.edf["loc", label] > 1e-3)
