"""Tests of proportionality and of the scale beside R's ordinal, and ONTRAM: networks in the
shift and in the thresholds of an ordinal model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deepregress as dr
from deepregress.errors import FitError

REFERENCE = Path(__file__).resolve().parent.parent / "data" / "reference"
WINE = pd.read_csv(REFERENCE / "wine.csv")


@pytest.fixture(scope="module")
def wine() -> dr.FittedModel:
    return dr.fit("rating ~ temp + contact", WINE, family="ordinal")


def test_nominal_test_is_ordinals(wine: dr.FittedModel) -> None:
    found = dr.nominal_test(wine)
    # R: nominal_test(clm(rating ~ temp + contact, data = wine)), as in the package's vignette
    expected = {"none": (0, -86.492, 184.98), "temp": (3, -84.904, 187.81)}
    expected["contact"] = (3, -86.209, 190.42)
    for term, (df, loglik, aic) in expected.items():
        assert found.loc[term, "df"] == df
        assert found.loc[term, "loglik"] == pytest.approx(loglik, abs=6e-4)
        assert found.loc[term, "aic"] == pytest.approx(aic, abs=6e-3)
    np.testing.assert_allclose(found["lr"].iloc[1:], [3.1750, 0.5667], atol=6e-4)
    np.testing.assert_allclose(found["p_value"].iloc[1:], [0.3654, 0.9040], atol=6e-5)


def test_scale_test_is_ordinals(wine: dr.FittedModel) -> None:
    found = dr.scale_test(wine)
    np.testing.assert_allclose(found["lr"].iloc[1:], [0.10492, 0.27330], atol=6e-5)
    np.testing.assert_allclose(found["p_value"].iloc[1:], [0.7460, 0.6011], atol=6e-5)
    assert found["df"].tolist() == [0, 1, 1]


def hazards(x: np.ndarray, rng: np.random.Generator, *, crossing: bool) -> np.ndarray:
    """Weibull times whose shape depends on x, or not."""
    shape = np.where(crossing & (x > 0), 3.0, 1.0)
    return np.exp(-0.5 * x) * rng.weibull(shape)


def test_proportional_hazards_are_tested_in_transformation_models() -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(0, 2, 400).astype(float)
    for crossing in (False, True):
        data = {"y": hazards(x, rng, crossing=crossing), "x": x}
        p = dr.nominal_test(dr.fit("y ~ x", data, family="cox")).loc["x", "p_value"]
        assert p < 1e-6 if crossing else p > 0.01


def test_what_cannot_be_tested(wine: dr.FittedModel) -> None:
    with pytest.raises(FitError, match="not 'normal'"):
        dr.nominal_test(dr.fit("rating ~ temp", WINE))
    with pytest.raises(FitError, match="no linear term"):
        dr.nominal_test(dr.fit("rating ~ s(response, k=4)", WINE, family="ordinal"))


def test_the_summary_has_one_table_of_thresholds(wine: dr.FittedModel) -> None:
    text = str(wine.summary())
    assert text.count("--- threshold ---") == 1
    assert "threshold[" not in text
    # R: summary(clm(...)), threshold 1|2
    line = next(line for line in text.splitlines() if line.startswith("1|2"))
    assert line.split()[1:4] == ["-1.3444", "0.5171", "-2.600"]
    partial = dr.fit({"location": "rating ~ temp", "threshold": "~ contact"}, WINE, "ordinal")
    assert "4|5 contact[T.yes]" in str(partial.summary())


# -- networks: ONTRAM ------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> dict[str, np.ndarray]:
    """A bright patch whose brightness moves the classes, and a number that does so, too."""
    rng = np.random.default_rng(seed)
    bright, x = rng.normal(size=n), rng.normal(size=n)
    image = 0.3 * rng.normal(size=(n, 6, 6, 1))
    image[:, 2:4, 2:4, 0] += bright[:, None, None]
    latent = bright + x + rng.logistic(size=n)
    return {"y": np.digitize(latent, [-2.0, 2.0]), "image": image, "x": x, "bright": bright}


@pytest.mark.parametrize(
    "formula",
    [
        {"location": "y ~ x + photo(image)"},
        {"location": "y ~ x", "threshold": "~ photo(image)"},
    ],
    ids=["shift", "thresholds"],
)
def test_pictures_in_the_shift_and_in_the_thresholds(formula: dict[str, str]) -> None:
    data = pictures(500, seed=1)
    networks = {"photo": dr.networks.cnn(filters=(4,), hidden=(8,))}
    training = dr.Training(epochs=40, folds=2, learning_rate=5e-3)
    model = dr.fit(
        formula, data, "ordinal", networks=networks, training=training, seed=3, verbose=0
    )
    without = dr.fit("y ~ x", data, "ordinal")
    new = pictures(500, seed=2)
    rows = model.predict(new, "logpdf") - without.predict(new, "logpdf")
    assert rows.mean() > 3.0 * rows.std() / np.sqrt(500)
    p = model.predict(new, "prob")
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-9)
    assert np.corrcoef(p["2"], new["bright"])[0, 1] > 0.5
    # the effect of x keeps its meaning: a log odds ratio, attenuated without the picture
    assert model.coef["location", "x"] > without.coef["location", "x"] + 0.05
