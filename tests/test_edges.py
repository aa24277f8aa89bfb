"""Data at the edge: each ends in a usable fit, in a warning or in an error of our own class.

A fit is usable when every number that it reports is finite and it can be summarised, checked and
drawn. No warning of NumPy or TensorFlow reaches the user.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deepregress.errors import (
    ConvergenceWarning,
    DataError,
    DeepRegressError,
    DroppedRowsWarning,
    FitError,
    FormulaError,
    ResponseError,
)
from deepregress.fitted import FittedModel
from deepregress.model import fit

RNG = np.random.default_rng(0)
N = 60
X, Z = RNG.uniform(size=(2, N))
G = RNG.choice(list("abc"), N)
Y = np.sin(6 * X) + 0.3 * RNG.normal(size=N)
COUNT = RNG.poisson(np.exp(0.5 + X)).astype(float)
COIN = (RNG.uniform(size=N) < 0.5).astype(float)
TABLE = pd.DataFrame(
    {"x": X, "z": Z, "g": G, "y": Y, "positive": np.exp(Y), "count": COUNT, "coin": COIN}
)
FIRST = np.arange(N) == 0

SEPARATED = "some terms separate the response"
SATURATED = "rows for .* coefficients without a penalty"
EXACT = "terms fit '.*' exactly"
CONSTANT = "is constant .* needs a response that varies"
TOLD_APART = "cannot be told apart"
UNIQUE = "needs at least 10 unique values"


@dataclass(frozen=True)
class Case:
    """A formula, the columns that are changed, and what must come of it."""

    family: str
    formula: str | dict[str, str]
    changed: Mapping[str, Any] = field(default_factory=dict)
    error: type[DeepRegressError] | None = None
    warning: type[Warning] | None = None
    match: str = ""
    rows: int = N
    weights: Any = None

    @property
    def table(self) -> pd.DataFrame:
        return TABLE.assign(**self.changed).head(self.rows)


def refused(
    family: str, formula: Any, error: Any, match: str, rows: int = N, **changed: Any
) -> Case:
    return Case(family, formula, changed, error, None, match, rows)


def warned(family: str, formula: Any, match: str = SEPARATED, **changed: Any) -> Case:
    return Case(family, formula, changed, None, ConvergenceWarning, match)


def fitted(family: str, formula: Any, rows: int = N, **changed: Any) -> Case:
    return Case(family, formula, changed, rows=rows)


SPLIT = (X > 0.5).astype(float)
LOC_SCALE = {"loc": "y ~ s(x)", "scale": "~ s(x)"}

CASES = {
    # separation
    "line separates": warned("bernoulli", "coin ~ x", coin=SPLIT),
    "smooth separates": warned("bernoulli", "coin ~ s(x)", coin=SPLIT),
    "factor separates": warned("bernoulli", "coin ~ g", coin=(G == "a").astype(float)),
    "level separates": warned("bernoulli", "coin ~ g + x", coin=np.where(G == "a", 1.0, COIN)),
    "only zeros": warned("bernoulli", "coin ~ x", coin=0.0 * X),
    "only ones, smooth": warned("bernoulli", "coin ~ s(x)", coin=0.0 * X + 1.0),
    "no counts": warned("poisson", "count ~ x", count=0.0 * X),
    "no counts, smooth": warned("poisson", "count ~ s(x)", count=0.0 * X),
    "no counts in a level": warned("poisson", "count ~ g", count=np.where(G == "a", 0.0, COUNT)),
    "no counts in a random level": fitted(
        "poisson", "count ~ s(g, bs='re')", count=np.where(G == "a", 0.0, COUNT)
    ),
    # perfect fit and no variance
    "line without error": refused("normal", "y ~ x", FitError, EXACT, y=2 * X + 1),
    "curve without error": fitted("normal", "y ~ s(x)", y=np.sin(6 * X)),
    "scale goes to zero": warned(
        "normal", {"loc": "y ~ x", "scale": "~ x"}, "did not reach", y=2 * X + 1
    ),
    "gamma without error": refused(
        "gamma", "positive ~ x", FitError, EXACT, positive=np.exp(2 * X + 1)
    ),
    "gamma curve without error": refused(
        "gamma", "positive ~ s(x)", FitError, EXACT, positive=np.exp(2 * X + 1)
    ),
    "constant": refused("normal", "y ~ x", ResponseError, CONSTANT, y=0 * X + 1),
    "constant, smooth": refused("normal", "y ~ s(x)", ResponseError, CONSTANT, y=0 * X),
    "constant gamma": refused(
        "gamma", "positive ~ s(x)", ResponseError, CONSTANT, positive=0 * X + 2
    ),
    "constant counts": fitted("poisson", "count ~ s(x)", count=0 * X + 4),
    "constant covariate": refused("normal", "y ~ x", DataError, "is constant", x=0 * X + 1),
    "constant smooth": refused("normal", "y ~ s(x)", DataError, "is constant", x=0 * X + 1),
    "by is zero": refused("normal", "y ~ s(x, by=z)", DataError, "is 0 in all rows", z=0 * X),
    "nearly constant": fitted("normal", "y ~ s(x)", x=1 + 1e-13 * X),
    "nearly constant line": refused("normal", "y ~ x", DataError, TOLD_APART, x=1 + 1e-13 * X),
    "one level": refused("normal", "y ~ g", DataError, "one level only", g="a"),
    "one random level": refused("normal", "y ~ s(g, bs='re')", DataError, "one level only", g="a"),
    "no variance between levels": fitted("normal", "y ~ s(x) + s(g, bs='re')"),
    "a level for each row": fitted("normal", "y ~ s(g, bs='re')", g=np.arange(N).astype(str)),
    # duplicated covariates
    "the same twice": refused("normal", "y ~ x + w", DataError, TOLD_APART, w=X),
    "the same in other units": refused("normal", "y ~ x + w", DataError, TOLD_APART, w=3 * X + 1),
    "nearly the same": refused("gamma", "positive ~ x + w", DataError, TOLD_APART, w=X + 1e-9 * Z),
    "the same smooth twice": refused("normal", "y ~ s(x) + s(w)", FitError, TOLD_APART, w=X),
    "line and smooth": refused("bernoulli", "coin ~ s(x) + w", FitError, TOLD_APART, w=X),
    "factor twice": refused("poisson", "count ~ g + w", DataError, TOLD_APART, w=G),
    # k near n, n near and below p
    "n = p": refused("normal", "y ~ x + z", FitError, SATURATED, 3),
    "n < p": refused("normal", "y ~ x + z + g", FitError, SATURATED, 4),
    "n = p, factor": refused(
        "normal", "y ~ g", FitError, SATURATED, g=np.arange(N).astype(str)
    ),
    "n = 2": refused("normal", "y ~ x", FitError, SATURATED, 2),
    "n = 2, counts": fitted("poisson", "count ~ x", 2),
    "n = 1": refused("normal", "y ~ 1", ResponseError, CONSTANT, 1),
    "n < k": refused("normal", "y ~ s(x)", FormulaError, UNIQUE, 7),
    "n = k": fitted("normal", "y ~ s(x)", 10),
    "n = k + 1": fitted("gamma", "positive ~ s(x)", 11),
    "n < k, P-spline": fitted("normal", "y ~ s(x, bs='ps')", 6),
    "n near k, counts": fitted("poisson", "count ~ s(x)", 12),
    "n near k, two parameters": fitted("normal", LOC_SCALE, 12),
    "n < columns": fitted("normal", "y ~ s(x) + s(z)", 15),
    "n < columns, gamma": fitted("gamma", "positive ~ s(x) + s(z)", 15),
    "n < columns, te": fitted("normal", "y ~ te(x, z)", 20),
    "few values": refused("normal", "y ~ s(x)", FormulaError, UNIQUE, x=np.round(3 * X)),
    "as many values as k": fitted("normal", "y ~ s(x, k=4)", x=np.round(3 * X)),
    # units, outliers, gaps, values that are none
    "large units": fitted("normal", "y ~ s(x)", x=1e12 * X, y=1e15 * Y),
    "small units": fitted("normal", "y ~ s(x)", x=1e-12 * X, y=1e-15 * Y),
    "far from zero": fitted("normal", "y ~ s(x) + z", x=1e6 + X, z=1e5 + Z),
    "outlier": fitted("normal", "y ~ s(x)", y=np.where(FIRST, 1e8, Y)),
    "outlier, two parameters": fitted("normal", LOC_SCALE, y=np.where(FIRST, 10.0, Y)),
    "gap": fitted("normal", "y ~ s(x)", x=np.where(X > 0.5, X + 100, X)),
    "large counts": fitted("poisson", "count ~ s(x)", count=np.round(1e9 * np.exp(Y))),
    "one large count": warned("poisson", "count ~ s(x)", count=np.where(FIRST, 1e6, COUNT)),
    "zero in gamma": refused(
        "gamma", "positive ~ s(x)", ResponseError, "row 0 is 0", positive=np.where(FIRST, 0, X)
    ),
    "infinite response": refused(
        "normal", "y ~ x", DataError, "infinite", y=np.where(FIRST, np.inf, Y)
    ),
    "infinite covariate": refused(
        "normal", "y ~ s(x)", DataError, "infinite", x=np.where(FIRST, np.inf, X)
    ),
    "nothing observed": refused("normal", "y ~ x", DataError, "no row is complete", x=np.nan * X),
    "most weights zero": Case(
        "normal", "y ~ x", {}, None, DroppedRowsWarning, "52 of 60 rows",
        weights=(np.arange(N) < 8).astype(float),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_data_at_the_edge(name: str) -> None:
    case = CASES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # of TensorFlow's own imports
        warnings.filterwarnings("ignore", "distutils", DeprecationWarning)
        if case.error is not None:
            with pytest.raises(case.error, match=case.match):
                fit(case.formula, case.table, case.family, weights=case.weights)
        else:
            check_usable(fit(case.formula, case.table, case.family, weights=case.weights))
    wanted = [] if case.warning is None else [case.warning]
    assert [each.category for each in caught] == wanted, [str(each.message) for each in caught]
    assert all(re.search(case.match, str(each.message)) for each in caught)


def check_usable(model: FittedModel) -> None:
    """Every number is finite; summary, check and pictures can be made."""
    for reported in (
        model.coef, model.std_error, model.edf, model.sp, model.loglik, model.reml, model.aic,
        model.predict(), model.predict(which="linear"), model.residuals(),
    ):  # fmt: skip
        assert np.isfinite(np.asarray(reported)).all()
    summary = model.summary()
    assert np.isfinite(summary.parametric.to_numpy(dtype=float)).all()
    assert np.isfinite(summary.smooth.to_numpy(dtype=float)).all()
    for text in (str(summary), str(model.check(n_rep=2))):
        assert "nan" not in text
    model.plot().draw_without_rendering()
    model.plot_diagnostics().draw_without_rendering()
