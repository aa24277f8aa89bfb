"""Ensembles on the transformation scale: the same family, means of coefficients, Jensen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special

import deepregress as dr
from deepregress.errors import FitError

TRAINING = dr.Training(epochs=6, folds=2, crossfit=False)


def table(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, z1, z2 = rng.normal(size=(3, n))
    latent = x + np.tanh(2.0 * z1 * z2) + rng.logistic(size=n)
    return pd.DataFrame(
        {"y": latent, "r": np.digitize(latent, [-2.0, 0.0, 1.0]), "x": x, "z1": z1, "z2": z2}
    )


DATA, NEW = table(250, 0), table(200, 1)


@pytest.fixture(scope="module", params=["ordinal", "colr"])
def ensemble(request: pytest.FixtureRequest) -> dr.Ensemble:
    response = "r" if request.param == "ordinal" else "y"
    return dr.ensemble(
        f"{response} ~ x + deep(z1, z2)",
        DATA,
        request.param,
        members=3,
        average="transformation",
        training=TRAINING,
        seed=5,
        verbose=0,
    )


def test_it_is_the_family_of_its_members_at_their_mean_predictors(ensemble: dr.Ensemble) -> None:
    eta = np.mean([m.predict(NEW, "linear").to_numpy() for m in ensemble.members], axis=0)
    at = [0.0, 1.0]
    # logit P(Y <= y) = threshold - location, or h + shift, by the members' own
    logits = [scipy.special.logit(m.predict(NEW, "cdf", at=at)) for m in ensemble.members]
    assert np.std(logits, axis=0).max() > 0.01
    found = ensemble.predict(NEW, "cdf", at=at)
    np.testing.assert_allclose(found, scipy.special.expit(np.mean(logits, axis=0)), rtol=1e-8)
    np.testing.assert_allclose(ensemble.predict(NEW, "linear"), eta)
    coef = sum(m.coef for m in ensemble.members) / 3
    pd.testing.assert_series_equal(ensemble.coef, coef, check_names=False)
    # still proportional odds: the odds ratio of a step in x is the same at all y and rows
    shift = ensemble.coef.xs("x", level="name").iloc[0]
    moved = scipy.special.logit(ensemble.predict(NEW.assign(x=NEW["x"] + 1.0), "cdf", at=at))
    sign = -1.0 if ensemble.family.name == "ordinal" else 1.0
    np.testing.assert_allclose(moved - scipy.special.logit(found), sign * shift, rtol=1e-6)


def test_its_log_score_is_at_least_the_mean_of_its_members(ensemble: dr.Ensemble) -> None:
    for rows in (None, NEW):
        scores = [member.log_score(rows) for member in ensemble.members]
        assert ensemble.log_score(rows) > np.mean(scores)
    each = np.mean([m.predict(NEW, "logpdf") for m in ensemble.members], axis=0)
    assert np.all(ensemble.predict(NEW, "logpdf") >= each - 1e-12)


def test_limits_draws_and_files(ensemble: dr.Ensemble, tmp_path: Path) -> None:
    limits = ensemble.predict(NEW[:5], "linear", interval=0.9, parameter=ensemble.family.groups[0])
    assert (limits["lower"] < limits["estimate"]).all()
    draws = ensemble.sample(NEW[:2], 4000, seed=1)
    share, expected = (draws <= 0.0).mean(axis=0), ensemble.predict(NEW[:2], "cdf", at=0.0)
    np.testing.assert_allclose(share, expected, atol=0.04)
    ensemble.save(tmp_path / "e.zip", data=False)
    loaded = dr.load(tmp_path / "e.zip")
    assert loaded.average == "transformation"
    np.testing.assert_array_equal(loaded.predict(NEW, "logpdf"), ensemble.predict(NEW, "logpdf"))


def test_what_has_no_average_on_that_scale() -> None:
    with pytest.raises(FitError, match="not 'normal'"):
        dr.ensemble("y ~ x", DATA, members=2, average="transformation")
    with pytest.raises(FitError, match="did you mean 'mixture'"):
        dr.ensemble("y ~ x", DATA, members=2, average="mixtures")
    with pytest.raises(FitError, match="'scale' multiplies"):
        formula = {"location": "r ~ x", "scale": "~ x"}
        dr.ensemble(formula, DATA, "ordinal", members=2, average="transformation")
