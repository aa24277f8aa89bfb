"""Lasso, elastic net and group lasso against glmnet and published optima (data/reference).

The reference solutions satisfy the optimality conditions to 1e-15. Ours do to 1e-9 at least, which
leaves the coefficients of these well conditioned problems equal to 1e-7 and objectives to 1e-12.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress.fitted import FittedModel
from deepregress.model import fit

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
LASSO = json.loads((REFERENCE / "lasso.json").read_text())
CASES = [(case, i) for case in LASSO["cases"] for i in range(len(case["fits"]))]
TARGETS = LASSO["targets"]

COEF, OBJECTIVE, RESIDUAL = 1e-7, 1e-12, 1e-9
PRINTED = 1e-6
"""The targets are printed to six decimals."""


@functools.cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / name)


def loss(model: FittedModel, y: np.ndarray, data: pd.DataFrame) -> float:
    """glmnet's: half the mean square, or the mean negative log-likelihood."""
    if model.family.name == "normal":
        return 0.5 * float(np.mean((y - model.predict(data)) ** 2))
    return -model.loglik / len(y)


@pytest.mark.parametrize(("case", "i"), CASES, ids=[f"{case['name']}-{i}" for case, i in CASES])
def test_a_fit_is_that_of_glmnet(case: dict, i: int) -> None:
    data, expected, alpha = table(case["table"]), case["fits"][i], case["alpha"]
    columns, lam = ", ".join(case["columns"]), expected["lambda"]
    term = f"lasso({columns}, lam={lam!r})"
    if alpha < 1:
        term = f"elasticnet({columns}, alpha={alpha}, lam={lam!r})"
    model = fit(f"{case['response']} ~ {term}", data, family=case["family"])
    first = model.family.parameter_names[0]
    intercept, coef = model.coef[first].iloc[0], model.coef[first].iloc[1:].to_numpy()
    np.testing.assert_allclose(coef, expected["coef"], atol=COEF)
    assert intercept == pytest.approx(expected["intercept"], abs=COEF)
    assert np.array_equal(coef != 0, np.array(expected["coef"]) != 0)
    y = data[case["response"]].to_numpy(dtype=float)
    penalty = alpha * np.abs(coef).sum() + (1 - alpha) / 2 * coef @ coef
    objective = loss(model, y, data) + lam * penalty
    assert objective == pytest.approx(expected["objective_value"], rel=OBJECTIVE)
    assert model.solution.selected.residual < RESIDUAL and model.converged


def boston() -> pd.DataFrame:
    data = table(TARGETS["table"])
    return data.assign(medv=data["y"] * TARGETS["sd"] + TARGETS["mean"])


@pytest.mark.parametrize("expected", TARGETS["lasso"], ids=lambda each: f"{each['lambda']}")
def test_lasso_of_house_prices(expected: dict) -> None:
    data = boston()
    columns = [name for name in data if name not in ("y", "medv")]
    model = fit(f"medv ~ lasso({', '.join(columns)}, lam={expected['lambda']})", data)
    coef = model.coef["loc"].iloc[1:]
    y = data["medv"].to_numpy()
    objective = loss(model, y, data) + expected["lambda"] * np.abs(coef).sum()
    assert objective == pytest.approx(expected["objective"], abs=PRINTED)
    assert np.count_nonzero(coef) == expected["n_nonzero"]
    for name, value in expected.get("coef", {}).items():
        assert coef[name] == pytest.approx(value, rel=5e-5)


@pytest.mark.parametrize("expected", TARGETS["group_lasso"], ids=lambda each: f"{each['lambda']}")
def test_group_lasso_of_house_prices(expected: dict) -> None:
    data, groups = boston(), TARGETS["groups"]
    arguments = ", ".join(" + ".join(group) for group in groups)
    model = fit(f"medv ~ grouplasso({arguments}, lam={expected['lambda']})", data)
    coef = model.coef["loc"]
    norms = [float(np.linalg.norm(coef[group])) for group in groups]
    penalty = sum(norm * len(group) ** 0.5 for norm, group in zip(norms, groups, strict=True))
    objective = loss(model, data["medv"].to_numpy(), data) + expected["lambda"] * penalty
    assert objective == pytest.approx(expected["objective"], abs=PRINTED)
    assert np.count_nonzero(norms) == expected["n_groups"]


def test_the_largest_lam_is_that_of_glmnet() -> None:
    """Just below it one coefficient is not zero, at it none."""
    for case in LASSO["cases"]:
        if case["alpha"] == 0:
            continue
        data, columns = table(case["table"]), ", ".join(case["columns"])
        for factor, selected in ((1 + 1e-9, 0), (1 - 1e-6, 1)):
            lam = case["lambda_max"] * factor
            term = f"elasticnet({columns}, alpha={case['alpha']}, lam={lam!r})"
            model = fit(f"{case['response']} ~ {term}", data, family=case["family"])
            assert model.solution.selected.n_selected == (selected,), case["name"]
