"""Options of smooth terms against mgcv, fit by fit (data/reference/options.R)."""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import basis
from deepregress.errors import FormulaError
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
R = json.loads((REFERENCE / "options.json").read_text())["models"]

SCORE, LOGLIK, EDF, FITTED = 1e-3, 5e-3, 5e-3, 2e-3
"""Absolute: two implementations of one criterion on one basis."""

FITS = {
    "select": ("y ~ s(x) + s(z) + s(w)", {"select": True}),
    "select_te": ("y ~ te(x, z, k=4) + s(w, bs='cr')", {"select": True}),
    "ti_mc": ("y ~ ti(x, k=4) + ti(x, z, k=4, mc=(0, 1))", {}),
    "ti_mc_other": ("y ~ ti(z, k=4) + ti(x, z, k=(5, 4), mc=[True, False])", {}),
    "te_d": ("y ~ te(x, z, v, d=(2, 1), k=(12, 4), bs=('tp', 'cr'))", {}),
    "te_m": ("y ~ te(x, z, bs=('ps', 'ps'), k=(6, 5), m=[(2, 1), (2, 2)])", {}),
    "te_d_ti": ("y ~ ti(x, z, v, d=(2, 1), k=(10, 4), bs=('tp', 'cr'))", {}),
    "te_sp": ("y ~ te(x, z, k=4, sp=(0.5, 20))", {}),
    "ad": ("y ~ s(x, bs='ad', k=20)", {}),
    "ad_three": ("y ~ s(x, bs='ad', k=15, m=3)", {}),
    "ad_two": ("y ~ s(x, bs='ad', k=15, m=2)", {}),
}


@functools.cache
def table() -> pd.DataFrame:
    data = pd.read_csv(REFERENCE / "terms.csv")
    changed = pd.read_csv(REFERENCE / "options.csv")
    return data.assign(y=changed["y"], v=changed["v"])


@pytest.mark.parametrize("name", list(FITS))
def test_options_mean_what_they_mean_in_mgcv(name: str) -> None:
    formula, arguments = FITS[name]
    model = fit(formula, table(), **arguments)
    expected = R[name]
    if "sp=" not in formula:
        # where sp is fixed, mgcv's score is at another scale than the one that it reports
        assert model.reml == pytest.approx(expected["score"], abs=SCORE)
    assert model.loglik == pytest.approx(expected["logLik"], abs=LOGLIK)
    for label, edf in expected["edf"].items():
        assert model.edf["loc", label] == pytest.approx(edf, abs=EDF)
    assert len(model.coef["loc"]) == expected["n_coef"]
    assert model.predict()[:10] == pytest.approx(expected["fitted"], abs=FITTED)


@pytest.mark.parametrize(
    ("name", "k", "m"), [("ad", 20, 5), ("ad_three", 15, 3), ("ad_two", 15, 2)]
)
def test_penalties_of_adaptive_splines_are_those_of_mgcv(name: str, k: int, m: int) -> None:
    x = table()["x"].to_numpy()
    built = basis.construct("ad", x, k=k, m=m)
    X = built.evaluate(x)
    scales = [basis.penalty_scale(X, S) for S in built.penalties]
    assert scales == pytest.approx(np.ravel(R[name]["S_scale"]), rel=1e-10)


def test_adaptive_weights_add_up_to_the_p_spline() -> None:
    x = table()["x"].to_numpy()
    plain = basis.construct("ps", x, k=12).penalties[0]
    assert sum(basis.construct("ad", x, k=12).penalties) == pytest.approx(plain, abs=1e-12)
    assert basis.construct("ad", x, k=12, m=1).penalties[0] == pytest.approx(plain)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("s(x, bs='ad', m=0)", "needs m >= 1"),
        ("s(x, bs='ad', m=(5, 2))", "needs m >= 1"),
        ("s(x, bs='ad', k=6)", "needs k >= 7"),
        ("s(x, z, bs='ad')", "takes one covariate"),
        ("ti(x, z, mc=(0, 1, 1))", "mc needs one entry for each of the 2 margins"),
        ("ti(x, z, mc=(0, 2))", "mc must have 0 or 1"),
        ("te(x, z, mc=(0, 1))", "unknown option 'mc'"),
    ],
)
def test_options_that_cannot_be_are_refused(term: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        fit(f"y ~ {term}", table())
