"""Tests of random effects against closed forms (tests of smooths: test_smoothing, references)."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from deepregress.inference.significance import random_effect_test
from deepregress.inference.term_tests import informed_directions, random_effects, shrinks_to_zero
from deepregress.model import fit

LEVELS, EACH = 12, 8


@pytest.fixture(scope="module")
def balanced() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(LEVELS), EACH)
    y = 0.35 * rng.normal(size=LEVELS)[g] + rng.normal(size=LEVELS * EACH)
    h = list("ab") * (len(y) // 2)
    return pd.DataFrame({"y": y, "x": rng.random(len(y)), "g": [f"g{i:02d}" for i in g], "h": h})


def test_a_balanced_layout_has_the_F_of_the_one_way_table(balanced: pd.DataFrame) -> None:
    """All weights are equal, so T / w is the sum of squares between levels over phi."""
    model = fit("y ~ 1 + (1 | g)", balanced)
    means = balanced.groupby("g")["y"].mean()
    between = EACH * float(((means - balanced["y"].mean()) ** 2).sum())
    phi = float(model.predict(which="params")["scale"].iloc[0]) ** 2
    residual_df = len(balanced) - float(model.inference.edf[:-1].sum())
    F = between / phi / (LEVELS - 1)
    row = model.anova().loc["loc", "s(g)"]
    assert row["ref_df"] == LEVELS - 1
    assert row["p_value"] == pytest.approx(scipy.stats.f.sf(F, LEVELS - 1, residual_df), rel=1e-6)
    edf = float(model.edf["loc", "s(g)"])
    # the effects are shrunk by edf / (k - 1) in all directions
    assert row["statistic"] * (LEVELS - 1) == pytest.approx(
        between / phi * edf / (LEVELS - 1), rel=1e-6
    )


def test_equal_weights_are_a_chi_squared() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    C = root @ root.T
    coef = rng.normal(size=5)
    test = random_effect_test(coef, 3.0 * np.linalg.inv(C), C, rank=5, residual_df=None)
    wanted = coef @ np.linalg.solve(C, coef)
    assert test.statistic == pytest.approx(3.0 * wanted)
    assert test.p_value == pytest.approx(scipy.stats.chi2.sf(wanted, 5), rel=1e-8)


def test_unequal_weights_are_a_mixture() -> None:
    """Against simulation of the quadratic form, with and without an estimated dispersion."""
    rng = np.random.default_rng(1)
    C, coef = np.diag([1.0, 0.3, 0.02]), np.array([0.9, 0.9, 0.1])
    M = np.array([[1.0, 0.2, 0.0], [0.2, 2.0, 0.1], [0.0, 0.1, 4.0]])
    draws = rng.normal(size=(400_000, 3)) * np.sqrt(np.diagonal(C))
    T = np.einsum("ij,jk,ik->i", draws, M, draws)
    phi = rng.chisquare(20, size=len(T)) / 20
    observed = coef @ M @ coef
    for residual_df, drawn in ((None, T), (20.0, T / phi)):
        test = random_effect_test(coef, M, C, rank=3, residual_df=residual_df)
        share = float((drawn > observed).mean())
        assert test.p_value == pytest.approx(share, abs=4 * np.sqrt(share / len(T)))


def test_a_term_without_data_is_not_significant() -> None:
    test = random_effect_test(np.zeros(2), np.eye(2), np.zeros((2, 2)), rank=0, residual_df=9.0)
    assert (test.statistic, test.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("term", "label", "shrinks"),
    [
        ("s(x, k=6)", "s(x)", False),
        ("s(x, k=6, bs='ts')", "s(x)", True),
        ("s(x, k=6, select=True)", "s(x)", True),
        ("s(x, k=6, fx=True)", "s(x)", False),
        ("(1 | g)", "s(g)", True),
        ("s(x, g, bs='fs', k=4)", "s(x,g)", True),
    ],
)
def test_terms_that_shrink_to_zero(
    balanced: pd.DataFrame, term: str, label: str, shrinks: bool
) -> None:
    predictors = fit(f"y ~ {term}", balanced)._predictors
    place = np.array(predictors.units[0].places[label])
    assert shrinks_to_zero(predictors, place) == shrinks


def test_random_effects_and_what_the_data_say_of_them(balanced: pd.DataFrame) -> None:
    model = fit("y ~ s(x, k=5) + (1 | g) + s(h, bs='re')", balanced)
    places = model._predictors.units[0].places
    assert random_effects(model._predictors).tolist() == [*places["s(g)"], *places["s(h)"]]
    g = np.array(places["s(g)"])
    # the intercept has one direction of them
    assert informed_directions(model._predictors, model.solution, g) == LEVELS - 1
    assert model.anova().loc[("loc", "s(h)"), "ref_df"] == 1
