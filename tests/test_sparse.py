"""Models with sparse terms: identities, mixtures with other terms, paths and what is reported."""

from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import ElasticNet, Lasso, lasso_path
from sklearn.model_selection import KFold

import deepregress as dr
from deepregress.errors import DataError, FitError, FormulaError, PredictionError
from deepregress.fitted import FittedModel
from deepregress.gating import GroupPenalty
from deepregress.model import fit
from deepregress.solvers import likelihood
from deepregress.solvers.quadratic import Model, minimise

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
TIGHT = {"tol": 1e-13, "max_iter": 100_000}
N = 300


def simulated(seed: int = 0) -> dict[str, np.ndarray]:
    """Two smooth effects, a factor, groups of three columns, a random intercept."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 12)) * np.linspace(0.5, 3, 12) + 2
    z, w, v = rng.uniform(size=(3, N))
    g, r = rng.choice(list("abcd"), N), rng.choice([f"r{i:02d}" for i in range(15)], N)
    level = dict(zip(np.unique(r), rng.normal(size=15) * 0.5, strict=True))
    eta = np.sin(6 * z) + 0.5 * X[:, 0] - 0.2 * X[:, 4] + 0.6 * (g == "b")
    eta = eta + np.array([level[each] for each in r])
    return {
        "y": eta + 0.5 * rng.normal(size=N),
        "count": rng.poisson(np.exp(0.5 * eta)),
        "X": X,
        "z": z,
        "w": w,
        "v": v,
        "g": g,
        "r": r,
        **{f"x{j}": X[:, j] for j in range(12)},
    }


DATA = simulated()


def coef(model: FittedModel) -> np.ndarray:
    return model.coef.to_numpy()


# -- the inner problem -----------------------------------------------------------------------------


@pytest.mark.parametrize("l1", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_the_quadratic_minimum_is_that_of_a_general_optimiser(seed: int, l1: float) -> None:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(30, 9)) + rng.normal(size=(30, 1))
    Q, r = A.T @ A, A.T @ rng.normal(size=30) * 3
    group = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3])
    penalty = GroupPenalty(group, np.full(4, 6.0), np.full(4, l1), np.full(4, 2))
    c = minimise(Model(Q, r), penalty, np.zeros(9))
    assert penalty.violation(c, Q @ c - r).max() < 1e-10

    def value(split: np.ndarray) -> float:
        b = split[:9] - split[9:]
        norms = np.sqrt(np.bincount(group, b**2, 4) + 1e-18)
        return 0.5 * b @ Q @ b - r @ b + 6.0 * norms.sum() + l1 * split.sum()

    found = scipy.optimize.minimize(
        value, np.full(18, 0.1), bounds=[(0, None)] * 18, options={"maxiter": 5000, "ftol": 1e-14}
    )
    ours = value(np.concatenate([np.maximum(c, 0), np.maximum(-c, 0)]))
    assert ours <= found.fun + 1e-6


# -- against scikit-learn --------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.5, 0.05, 0.005])
def test_columns_are_standardised_and_coefficients_are_not(lam: float) -> None:
    X, y = DATA["X"], DATA["y"]
    sd = X.std(axis=0)
    expected = Lasso(alpha=lam, **TIGHT).fit((X - X.mean(axis=0)) / sd, y)
    model = fit(f"y ~ lasso(X, lam={lam})", DATA)
    np.testing.assert_allclose(coef(model)[1:13], expected.coef_ / sd, atol=1e-9)
    assert coef(model)[0] == pytest.approx(y.mean() - X.mean(axis=0) @ (expected.coef_ / sd))
    written = ", ".join(f"x{j}" for j in range(12))
    np.testing.assert_allclose(coef(fit(f"y ~ lasso({written}, lam={lam})", DATA)), coef(model))


def test_an_elastic_net_is_that_of_scikit_learn() -> None:
    X, y = DATA["X"], DATA["y"]
    sd = X.std(axis=0)
    expected = ElasticNet(alpha=0.2, l1_ratio=0.3, **TIGHT).fit((X - X.mean(axis=0)) / sd, y)
    model = fit("y ~ elasticnet(X, alpha=0.3, lam=0.2)", DATA)
    np.testing.assert_allclose(coef(model)[1:13], expected.coef_ / sd, atol=1e-9)


def test_more_columns_than_rows() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 150))
    y = X[:, :3].sum(axis=1) + 0.3 * rng.normal(size=60)
    sd = X.std(axis=0)
    expected = Lasso(alpha=0.1, **TIGHT).fit((X - X.mean(axis=0)) / sd, y).coef_ / sd
    model = fit("y ~ lasso(X, lam=0.1)", {"y": y, "X": X})
    np.testing.assert_allclose(coef(model)[1:151], expected, atol=1e-8)


# -- identities ------------------------------------------------------------------------------------

FORMULAS = {
    "lasso": ("y ~ lasso(X, lam=0.1)", "normal"),
    "lasso beside a smooth": ("y ~ s(z, k=6) + lasso(X, lam=0.1)", "normal"),
    "groups of a count": (
        "count ~ grouplasso(C(g), x0 + x1, s(z, k=6), s(w, k=6), lam=0.05)",
        "poisson",
    ),
    "sparse groups": ("y ~ grouplasso(X, groups=3, l1=0.3, lam=0.1)", "normal"),
    "deep gates": ("y ~ grouplasso(X, groups=3, depth=3, lam=0.1)", "normal"),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_weight_of_two_is_the_row_twice(name: str) -> None:
    formula, family = FORMULAS[name]
    weights = np.random.default_rng(1).integers(1, 3, N)
    twice = {key: np.repeat(column, weights, axis=0) for key, column in DATA.items()}
    # knots are quantiles of the rows: with P-splines they are those of the range
    formula = formula.replace("k=6", "k=6, bs='ps'")
    weighted = fit(formula, DATA, family=family, weights=weights.astype(float))
    repeated = fit(formula, twice, family=family)
    eta = weighted.predict(DATA, which="linear"), repeated.predict(DATA, which="linear")
    np.testing.assert_allclose(eta[0], eta[1], atol=2e-5)
    assert weighted.sparse.terms["n_selected"].equals(repeated.sparse.terms["n_selected"])


@pytest.mark.parametrize("name", FORMULAS)
def test_units_of_the_columns_do_not_matter(name: str) -> None:
    formula, family = FORMULAS[name]
    other = {**DATA, "X": DATA["X"] * np.linspace(0.1, 50, 12) - 7, "x0": 100 * DATA["x0"]}
    first, second = fit(formula, DATA, family=family), fit(formula, other, family=family)
    np.testing.assert_allclose(first.predict(DATA), second.predict(other), rtol=1e-6)


def test_a_factor_group_is_the_same_for_any_coding() -> None:
    models = [
        fit(f"y ~ grouplasso({code}, lam=0.05)", DATA)
        for code in ("C(g)", "C(g, contr.sum)", "C(g, contr.treatment('c'))")
    ]
    for other in models[1:]:
        np.testing.assert_allclose(other.predict(DATA), models[0].predict(DATA), atol=1e-8)


def test_units_of_the_response() -> None:
    """lam is in units of the response, as glmnet's: both scaled, the fit scales."""
    first = fit("y ~ lasso(X, lam=0.1)", DATA)
    second = fit("y ~ lasso(X, lam=100)", {**DATA, "y": 1000 * DATA["y"]})
    np.testing.assert_allclose(coef(second)[:13], 1000 * coef(first)[:13], rtol=1e-8, atol=1e-8)


def test_without_a_penalty_it_is_the_linear_model() -> None:
    columns = " + ".join(f"x{j}" for j in range(12))
    model, expected = fit("y ~ lasso(X, lam=0)", DATA), fit(f"y ~ {columns}", DATA)
    np.testing.assert_allclose(coef(model), coef(expected), rtol=1e-6)
    np.testing.assert_allclose(model.std_error, expected.std_error, rtol=1e-6)
    refit = fit("y ~ lasso(X, lam=1e-9, refit=True)", DATA)
    np.testing.assert_allclose(coef(refit), coef(expected), rtol=1e-6)


def test_a_large_lam_leaves_the_model_without_the_terms() -> None:
    model = fit("y ~ s(z) + lasso(X, lam=100) + grouplasso(s(w), lam=100)", DATA)
    expected = fit("y ~ s(z)", DATA)
    assert model.sparse.terms["n_selected"].tolist() == [0, 0]
    np.testing.assert_allclose(model.predict(DATA), expected.predict(DATA), atol=1e-4)
    assert model.edf_total == pytest.approx(expected.edf_total, abs=1e-3)


# -- optimality with other terms -------------------------------------------------------------------


def test_optimality_beside_smooths_in_two_parameters() -> None:
    """Score of each standardised column: N lam sign(b) where b is not zero, less elsewhere."""
    lam = 0.05
    model = fit({"loc": f"y ~ s(z) + lasso(X, lam={lam})", "scale": f"~ lasso(X, lam={lam})"}, DATA)
    eta = model.predict(DATA, which="linear").to_numpy()
    residual = (DATA["y"] - eta[:, 0]) / np.exp(eta[:, 1])
    sd = DATA["X"].std(axis=0)
    for parameter, score in (("loc", residual / np.exp(eta[:, 1])), ("scale", residual**2 - 1)):
        gradient = DATA["X"].T @ score / N / sd
        own = model.coef[parameter]
        b = own[[name for name in own.index if name.startswith("X.")]].to_numpy()
        np.testing.assert_allclose(gradient[b != 0], lam * np.sign(b[b != 0]), atol=1e-8)
        assert np.all(np.abs(gradient[b == 0]) <= lam * (1 + 1e-8))
        assert 0 < np.count_nonzero(b) < 12
        assert score.sum() == pytest.approx(0.0, abs=1e-5)
    assert model.sparse.residual < 1e-8


def test_terms_are_selected_with_their_smoothing() -> None:
    terms = "s(z, k=8), s(w, k=8), te(w, v, k=4), C(g), s(v, k=8)"
    model = fit(f"y ~ grouplasso({terms}, lam=0.15) + x0 + x4 + (1 | r)", DATA)
    edf = model.edf["loc"]
    assert edf["s(z)"] > 2 and edf["s(w)"] == edf["s(v)"] == edf["te(w,v)"] == 0
    table = model.summary().smooth
    assert ("loc", "s(z)") in table.index and ("loc", "s(w)") not in table.index
    effect = model.partial_effect("s(w)")
    assert np.all(effect[["effect", "se"]] == 0)
    assert np.isfinite(model.anova().to_numpy()[:, 3].astype(float)).all()


def test_groups_of_nested_smooths_are_the_columns_that_are_left() -> None:
    terms = "grouplasso(s(w, k=8), te(w, v, k=4), s(v, k=8))"
    found = dr.path(f"y ~ {terms} + s(z)", DATA, n_lam=2)
    sizes = {block.label: block.n_coef for block in found.bound.designs["loc"].columns}
    assert sizes["te(w,v)"] < 15
    own = [sizes["s(w)"], sizes["te(w,v)"], sizes["s(v)"]]
    np.testing.assert_array_equal(found.sparse.terms.weight, np.sqrt(own))
    index = found.sparse.terms.coordinates.index
    assert len(np.unique(index)) == len(index) == sum(own)


def test_degrees_of_freedom_of_a_lasso_are_the_coefficients_that_are_not_zero() -> None:
    model = fit("y ~ lasso(X, lam=0.1)", DATA)
    nonzero = np.count_nonzero(coef(model)[1:13])
    assert model.edf_total == pytest.approx(nonzero + 2)
    rss = np.sum((DATA["y"] - model.predict(DATA)) ** 2)
    scale = np.exp(model.coef["scale"].iloc[0])
    assert scale**2 == pytest.approx(rss / (N - nonzero - 1), rel=1e-8)


def test_degrees_of_freedom_of_a_group_lasso_are_the_divergence_of_its_fit() -> None:
    """Stein: the sum of the derivatives of the fitted means in the responses."""
    X = DATA["X"][:40]
    formula = "y ~ grouplasso(X, groups=3, lam=0.3)"
    y = DATA["y"][:40]
    model = fit(formula, {"y": y, "X": X})
    h, divergence = 1e-5, 0.0
    for i in range(40):
        up, down = y.copy(), y.copy()
        up[i] += h
        down[i] -= h
        divergence += (
            fit(formula, {"y": up, "X": X}).predict({"X": X[i : i + 1]})[0]
            - fit(formula, {"y": down, "X": X}).predict({"X": X[i : i + 1]})[0]
        ) / (2 * h)
    assert model.edf["loc"].sum() == pytest.approx(divergence, abs=1e-4)


# -- depth -----------------------------------------------------------------------------------------


def test_the_log_likelihood_of_a_normal_path_is_that_of_its_residual_variance() -> None:
    found = dr.path("y ~ z + lasso(X)", DATA, n_lam=6)
    every = np.column_stack([np.ones(N), DATA["z"], DATA["X"]])
    for coefs, loglik in zip(found.coef["loc"].to_numpy(), found.table["loglik"], strict=True):
        variance = np.mean((DATA["y"] - every @ coefs) ** 2)
        assert loglik == pytest.approx(-0.5 * N * (np.log(2 * np.pi * variance) + 1), rel=1e-10)


@pytest.mark.parametrize("depth", [3, 4])
def test_deep_gates_reach_a_minimum_with_balanced_size(depth: int) -> None:
    """Weights that are not zero have the least size that a stationary point allows."""
    lam = 0.1
    model = fit(f"y ~ lasso(X, lam={lam}, depth={depth})", DATA)
    X = (DATA["X"] - DATA["X"].mean(axis=0)) / DATA["X"].std(axis=0)
    b = coef(model)[1:13] * DATA["X"].std(axis=0)
    gradient = X.T @ (DATA["y"] - coef(model)[0] - DATA["X"] @ coef(model)[1:13]) / N
    power = 2 / depth
    on = b != 0
    expected = lam * power * np.abs(b[on]) ** (power - 1) * np.sign(b[on])
    np.testing.assert_allclose(gradient[on], expected, atol=1e-8)
    least = (2 * lam / (depth * np.abs(X.T @ (DATA["y"] - DATA["y"].mean()) / N).max())) ** (
        depth / (depth - 2)
    )
    assert on.any() and np.abs(b[on]).min() > least


# -- paths -----------------------------------------------------------------------------------------


def test_a_path_is_that_of_scikit_learn() -> None:
    X, y = DATA["X"], DATA["y"]
    sd = X.std(axis=0)
    found = dr.path("y ~ lasso(X)", DATA, n_lam=30)
    Z = (X - X.mean(axis=0)) / sd
    _, expected, _ = lasso_path(Z, y - y.mean(), alphas=found.lam, **TIGHT)
    np.testing.assert_allclose(found.coef["loc"].to_numpy()[:, 1:] * sd, expected.T, atol=1e-8)
    assert found.lam[0] == pytest.approx(np.abs(Z.T @ (y - y.mean())).max() / N)
    assert found.table["n_selected"].iloc[0] == 0 < found.table["n_selected"].iloc[1]


def test_working_sets_and_repeated_lam_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    for term in ("lasso(X)", "elasticnet(X)", "grouplasso(X, groups=3, l1=0.5)"):
        lam = [0.3, 0.3, 0.05, 0.0]
        with monkeypatch.context() as patch:
            patch.setattr(likelihood, "MOST_WHOLE", 0)
            expected = dr.path(f"y ~ {term}", DATA, lam=lam).coef
        np.testing.assert_allclose(dr.path(f"y ~ {term}", DATA, lam=lam).coef, expected, atol=1e-10)


def accelerated_proximal_gradient(
    Z: np.ndarray, y: np.ndarray, strength: float, size: int
) -> np.ndarray:
    """The group lasso |y - Z b|^2 / (2 n) + strength sum |b_g| by FISTA with restarts."""
    n, p = Z.shape
    bound = np.linalg.eigvalsh(Z.T @ Z / n)[-1]
    b = v = np.zeros(p)
    k = 1.0
    for _ in range(5000):
        z = (v - Z.T @ (Z @ v - y) / n / bound).reshape(-1, size)
        norms = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
        new = (z * np.maximum(1.0 - strength / bound / norms, 0.0)).ravel()
        k = 1.0 if (v - new) @ (new - b) > 0 else k
        following = (1.0 + np.sqrt(1.0 + 4.0 * k**2)) / 2.0
        v = new + (k - 1.0) / following * (new - b)
        done = np.abs(new - b).max() < 1e-14
        b, k = new, following
        if done:
            break
    return b


def test_the_path_of_two_gates_is_that_of_the_group_lasso() -> None:
    """The simulation of D-gating: n = p = 200, 40 groups of 5, 7 informative."""
    rng = np.random.default_rng(0)
    coef = np.zeros(200)
    for g in rng.choice(40, 7, replace=False):
        coef[5 * g : 5 * g + 5] = rng.normal(size=5)
    X = rng.normal(size=(200, 200))
    y = X @ coef + 2.0 * rng.normal(size=200)
    found = dr.path("y ~ grouplasso(X, groups=5, depth=2)", {"y": y, "X": X}, n_lam=8, ratio=0.02)
    sd = X.std(axis=0)
    Z, centred = (X - X.mean(axis=0)) / sd, y - y.mean()
    for lam, ours in zip(found.lam, found.coef["loc"].to_numpy()[:, 1:] * sd, strict=True):
        expected = accelerated_proximal_gradient(Z, centred, lam * np.sqrt(5.0), 5)
        np.testing.assert_allclose(ours, expected, atol=1e-10)
        assert np.array_equal(ours != 0, expected != 0)


def test_criteria_of_a_path_are_those_of_its_models() -> None:
    found = dr.path("count ~ lasso(X) + s(z, k=6)", DATA, family="poisson", n_lam=15)
    for lam in found.lam[[2, 8, 14]]:
        model = found.model(lam)
        row = found.table.loc[lam]
        assert model.loglik == pytest.approx(row["loglik"], abs=0.02)
        assert model.edf_total == pytest.approx(row["edf"], abs=0.02)
        assert model.bic == pytest.approx(row["bic"], abs=0.1)
    best = found.model("bic")
    assert best.sparse.criterion == "bic" and best.sparse.terms["lam"].iloc[0] == found.best("bic")


def test_cross_validation_is_that_of_scikit_learn() -> None:
    """Mean squared errors of the folds, columns standardised in each."""
    splitter = KFold(4, shuffle=True, random_state=2)
    found = dr.path("y ~ lasso(X)", DATA, lam=[0.3, 0.1, 0.03], folds=splitter)
    errors = []
    for train, test in splitter.split(DATA["X"]):
        X = DATA["X"][train]
        Z, held = ((x - X.mean(axis=0)) / X.std(axis=0) for x in (X, DATA["X"][test]))
        fits = [Lasso(lam, **TIGHT).fit(Z, DATA["y"][train]) for lam in found.lam]
        errors.append([np.mean((each.predict(held) - DATA["y"][test]) ** 2) for each in fits])
    np.testing.assert_allclose(found.table["loss"], np.mean(errors, axis=0), rtol=1e-6)
    se = np.std(errors, axis=0) / np.sqrt(3)
    np.testing.assert_allclose(found.table["loss_se"], se, rtol=1e-6)
    least = found.table["loss"].idxmin()
    assert found.best("cv") == least
    bound = found.table.loc[least, ["loss", "loss_se"]].sum()
    assert found.best("cv1se") == found.table.index[found.table["loss"] <= bound].max()


def test_a_refit_is_the_model_of_what_was_selected() -> None:
    model = fit("y ~ z + lasso(X, lam=0.15, refit=True)", DATA)
    kept = np.flatnonzero(model.coef["loc"].filter(like="X."))
    expected = fit("y ~ z + " + " + ".join(f"x{j}" for j in kept), DATA)
    own = model.coef["loc"] != 0
    np.testing.assert_allclose(model.coef["loc"][own], expected.coef["loc"], rtol=1e-7)
    np.testing.assert_allclose(model.std_error["loc"][own], expected.std_error["loc"], rtol=1e-6)
    text = str(model.summary())
    assert "refitted without the penalty" in text and "given the selection" in text


@pytest.mark.parametrize("select", ["bic", "ebic", "cv", "cv1se"])
def test_fit_chooses_lam(select: str) -> None:
    model = fit(f"y ~ s(z, k=6) + lasso(X, select='{select}', folds=3)", DATA)
    chosen = np.flatnonzero(coef(model)[1:13])
    assert {0, 4} <= set(chosen.tolist()) and model.sparse.criterion == select
    assert f"lam chosen by {select}" in str(model.summary())


def test_stable_columns_are_selected_in_every_half() -> None:
    found = dr.path("y ~ lasso(X)", DATA, n_lam=12, ratio=0.05, halves=8, seed=1)
    share = found.stability.max()
    assert share["loc", "X.1"] == share["loc", "X.5"] == 1.0
    assert found.stability.iloc[0].max() <= 0.75 and share.min() < 1.0


def test_a_path_is_drawn() -> None:
    found = dr.path("y ~ lasso(X)", DATA, n_lam=8)
    left, right = found.plot().axes
    assert len(left.lines) >= 12 and len(right.lines) >= 2
    folded = dr.path("y ~ lasso(X)", DATA, n_lam=8, folds=3)
    assert folded.plot().axes[1].get_ylabel() == "loss of held-out rows"


# -- what is reported ------------------------------------------------------------------------------


def test_the_summary_says_that_it_is_conditional() -> None:
    model = fit("y ~ lasso(X, lam=0.1) + z", DATA)
    text = str(model.summary())
    assert "given the selection and do not allow for it" in text
    assert "lam given, optimality conditions met to" in text
    table = model.sparse.coefficients
    assert len(table) == np.count_nonzero(model.coef["loc"].filter(like="X."))
    zero = model.coef["loc"] == 0
    assert zero.any() and np.all(model.std_error["loc"][zero] == 0)


def test_a_saved_model_is_itself(tmp_path: Path) -> None:
    model = fit("y ~ grouplasso(C(g), x0 + x1, s(z), s(w), lam=0.05) + lasso(X, lam=0.1)", DATA)
    model.save(tmp_path / "model.zip")
    again = dr.load(tmp_path / "model.zip")
    assert again.predict(DATA).tobytes() == model.predict(DATA).tobytes()
    assert str(again.summary()) == str(model.summary())


@pytest.mark.parametrize(
    ("formula", "kind", "message"),
    [
        ("y ~ lasso()", FormulaError, "lasso\\(\\) needs terms"),
        ("y ~ lasso(X, lam=-1)", FormulaError, "lam must be a number >= 0"),
        ("y ~ lasso(X, depth=1)", FormulaError, "depth must be a whole number >= 2"),
        ("y ~ lasso(X, select='aic')", FormulaError, "select must be one of bic, ebic, cv, cv1se"),
        ("y ~ lasso(X, folds=1)", FormulaError, "folds must be a whole number >= 2"),
        ("y ~ lasso(s(z))", FormulaError, "coefficients of a smooth are a group"),
        ("y ~ grouplasso(deep(z))", FormulaError, "only linear terms and smooths can stand inside"),
        ("y ~ grouplasso(s(z, id=1))", FormulaError, "id= joins terms"),
        ("y ~ grouplasso(X, groups=5)", FormulaError, "12 columns are no groups of 5"),
        ("y ~ grouplasso(X, groups=[1, 2])", FormulaError, "each of the 12 columns, got 2"),
        ("y ~ grouplasso(x0 + x1, groups=2)", FormulaError, "is for the columns of an array"),
        ("y ~ grouplasso(X, groups='a')", FormulaError, "groups must be the size of each group"),
        ("y ~ grouplasso(C(g), depth=3, l1=0.5)", FormulaError, "do not go together"),
        ("y ~ grouplasso(X, joint=True, l1=0.5)", FormulaError, "joint and l1 do not go together"),
        ("y ~ elasticnet(X, alpha=2)", FormulaError, "alpha must be a number from 0 to 1"),
        ("y ~ lasso(x0 - 1)", FormulaError, "write no 0 or -1 inside"),
        ("y ~ lasso(1)", FormulaError, "1 is not a column"),
        ("y ~ lasso(constant)", DataError, "constant"),
        ("y ~ lasso(C)", DataError, "column 1 of 'C' .* is constant"),
        ("y ~ lasso(cube)", DataError, "one row of numbers per observation"),
        ("y ~ lasso(X) + lasso(x0, select='cv')", FitError, "one way to choose it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(formula: str, kind: type[Exception], message: str) -> None:
    C = np.column_stack([DATA["z"], np.ones(N)])
    data = {**DATA, "constant": np.ones(N), "C": C, "cube": np.zeros((N, 2, 2))}
    with pytest.raises(kind, match=message):
        fit(formula, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_lam": 1}, "n_lam must be a whole number >= 2"),
        ({"ratio": 2.0}, "ratio must lie between 0 and 1"),
        ({"lam": [-1.0]}, "lam must be numbers >= 0"),
        ({"folds": 1}, "folds must be a whole number >= 2"),
        ({"folds": 1000}, "there are only 300 rows"),
        ({"method": "fixed"}, "method must be one of REML, ML"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(options: dict, message: str) -> None:
    with pytest.raises(FitError, match=message):
        dr.path("y ~ lasso(X)", DATA, **options)


def test_a_path_needs_what_it_is_asked_for() -> None:
    with pytest.raises(FitError, match="whose lam is not given"):
        dr.path("y ~ lasso(X, lam=1)", DATA)
    with pytest.raises(FitError, match="a path is of models without networks"):
        dr.path("y ~ lasso(X) + deep(z)", DATA)
    found = dr.path("y ~ lasso(X)", DATA, n_lam=3)
    with pytest.raises(FitError, match="needs a path with cross-validation"):
        found.best("cv")
    with pytest.raises(FitError, match="select must be one of"):
        found.model("aic")
    with pytest.raises(FitError, match="stability needs random halves"):
        _ = found.stability
    with pytest.raises(FitError, match="refit must be"):
        found.model(refit="maybe")


def test_new_rows_need_as_many_columns() -> None:
    model = fit("y ~ lasso(X, lam=0.1)", DATA)
    with pytest.raises(PredictionError, match="12 columns"):
        model.predict({"X": np.zeros((3, 5))})
