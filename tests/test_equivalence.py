"""Identities that every build must pass (METHODS 12): two ways of saying one thing give one fit."""

import warnings
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.optimize

from deepregress import objective, prediction
from deepregress.errors import (
    DataError,
    DroppedRowsWarning,
    FormulaError,
    PredictionError,
    UnknownVariable,
)
from deepregress.fitted import FittedModel
from deepregress.model import fit
from deepregress.objective import Objective, Unit
from deepregress.solvers.base import Training

SAME = 1e-5
"""Relative: both fits stop where the marginal likelihood is flat to 2e-5 in log lam."""
N = 240


@dataclass(frozen=True)
class Example:
    """A model with a linear, a factor and a smooth part in each family."""

    family: str
    formula: dict[str, str]


EXAMPLES = {
    "normal": Example("normal", {"loc": "y ~ x + g + s(z)", "scale": "~ s(x, k=5)"}),
    "normal-constant": Example("normal", {"loc": "y ~ x + g + s(z, bs='ps')"}),
    "gamma": Example("gamma", {"mean": "y ~ x + g + s(z, bs='cr')", "dispersion": "~ x"}),
    "poisson": Example("poisson", {"mean": "y ~ x + g + s(z)"}),
    "bernoulli": Example("bernoulli", {"prob": "y ~ x + g + s(z)"}),
}
each_example = pytest.mark.parametrize("name", list(EXAMPLES))


def table(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.random(N), "z": rng.random(N), "g": rng.choice(list("abc"), N)})
    eta = data["x"] + np.sin(6 * data["z"]) + 0.4 * (data["g"] == "b")
    draw = {
        "normal": lambda: eta + np.exp(-1 + data["x"]) * rng.normal(size=N),
        "gamma": lambda: rng.gamma(4.0, np.exp(eta) / 4.0),
        "poisson": lambda: rng.poisson(np.exp(eta)),
        "bernoulli": lambda: (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(int),
    }
    return data.assign(y=draw[EXAMPLES[name].family]())


def model_of(name: str, data: pd.DataFrame, *, weights=None, formula=None) -> FittedModel:
    example = EXAMPLES[name]
    return fit(formula or example.formula, data, example.family, weights=weights)


def assert_same(first, second, *, rows: pd.DataFrame, other=None, tolerance=SAME) -> None:
    """Equal predictors, standard errors, degrees of freedom and likelihoods."""
    ours = first.predict(rows, "linear", se=True)
    theirs = second.predict(rows if other is None else other, "linear", se=True)
    for parameter in first.family.parameter_names:
        for number in ("estimate", "se"):
            a = ours[parameter][number].to_numpy()
            b = theirs[parameter][number].to_numpy()
            scale = max(np.ptp(ours[parameter]["estimate"]), ours[parameter]["se"].max())
            assert np.abs(a - b).max() < tolerance * 10 * scale
    assert second.edf_total == pytest.approx(first.edf_total, rel=1e-3)
    assert second.loglik == pytest.approx(first.loglik, rel=1e-5)


@each_example
def test_weight_two_is_every_row_twice(name: str) -> None:
    data = table(name)
    weighted = model_of(name, data, weights=np.full(N, 2.0))
    doubled = model_of(name, pd.concat([data, data], ignore_index=True))
    assert_same(weighted, doubled, rows=data)
    assert weighted.aic == pytest.approx(doubled.aic, rel=1e-5)
    assert weighted.bic == pytest.approx(doubled.bic, rel=1e-5)
    a, b = weighted.summary(), doubled.summary()
    assert a.smooth["p_value"].to_numpy() == pytest.approx(b.smooth["p_value"], rel=0.01)
    assert a.parametric["p_value"].to_numpy() == pytest.approx(b.parametric["p_value"], rel=0.01)


@each_example
def test_whole_weights_are_repeated_rows(name: str) -> None:
    data = table(name)
    weights = np.random.default_rng(1).integers(1, 4, N)
    weighted = model_of(name, data, weights=weights)
    repeated = model_of(name, data.loc[np.repeat(np.arange(N), weights)].reset_index(drop=True))
    assert_same(weighted, repeated, rows=data)


@each_example
def test_weight_zero_is_no_row(name: str) -> None:
    data = table(name)
    weights = np.where(np.arange(N) % 4 == 0, 0.0, 1.0)
    with pytest.warns(DroppedRowsWarning, match="60 of 240 rows left out"):
        weighted = model_of(name, data, weights=weights)
    assert_same(weighted, model_of(name, data[weights > 0]), rows=data, tolerance=1e-9)


def with_first(name: str, change) -> dict[str, str]:
    """The example's formulas with the first one changed."""
    formula = dict(EXAMPLES[name].formula)
    first = next(iter(formula))
    return {**formula, first: change(formula[first])}


@each_example
def test_an_offset_is_a_known_coefficient(name: str) -> None:
    data = table(name).assign(known=lambda d: 0.7 * d["x"])
    plain = model_of(name, data)
    shifted = model_of(name, data, formula=with_first(name, lambda f: f + " + offset(known)"))
    assert_same(plain, shifted, rows=data)
    first = plain.family.parameter_names[0]
    assert shifted.coef[first, "x"] == pytest.approx(plain.coef[first, "x"] - 0.7, abs=1e-5)


@each_example
def test_a_rescaled_covariate_is_the_same_covariate(name: str) -> None:
    data = table(name)
    rescaled = data.assign(x=100 * data["x"] + 7, z=data["z"] / 1000 - 3)
    assert_same(model_of(name, data), model_of(name, rescaled), rows=data, other=rescaled)


@pytest.mark.parametrize("name", ["normal", "normal-constant"])
def test_a_rescaled_response_is_the_same_response(name: str) -> None:
    data = table(name)
    plain = model_of(name, data)
    scaled = model_of(name, data.assign(y=1000 * data["y"] + 5))
    assert scaled.predict(data) == pytest.approx(1000 * plain.predict(data) + 5, rel=1e-4)
    assert scaled.loglik == pytest.approx(plain.loglik - N * np.log(1000), rel=1e-5)
    assert scaled.edf.to_numpy() == pytest.approx(plain.edf.to_numpy(), abs=1e-3)


def test_a_rescaled_gamma_response_shifts_the_intercept() -> None:
    data = table("gamma")
    plain, scaled = model_of("gamma", data), model_of("gamma", data.assign(y=1000 * data["y"]))
    assert scaled.predict(data) == pytest.approx(1000 * plain.predict(data), rel=1e-4)


@each_example
def test_a_recoded_factor_is_the_same_factor(name: str) -> None:
    data = table(name)
    recoded = data.assign(g=pd.Categorical(data["g"], categories=["c", "a", "b"]))
    assert_same(model_of(name, data), model_of(name, recoded), rows=data, other=recoded)


@each_example
def test_permuted_rows_are_the_same_rows(name: str) -> None:
    data = table(name)
    permuted = data.sample(frac=1.0, random_state=0)
    assert_same(model_of(name, data), model_of(name, permuted), rows=data)


@each_example
def test_chunks_are_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(name)
    whole = model_of(name, data)
    monkeypatch.setattr(objective, "CHUNK", 50)
    monkeypatch.setattr(prediction, "CHUNK_ROWS", 37)
    chunked = model_of(name, data)
    assert_same(whole, chunked, rows=data)
    rows = whole.predict(data, "terms", se=True)
    monkeypatch.undo()
    assert rows.to_numpy() == pytest.approx(whole.predict(data, "terms", se=True).to_numpy())


@each_example
def test_newton_is_where_gradient_descent_would_end(name: str) -> None:
    data = table(name)
    model = model_of(name, data)
    units = []
    for design in model.designs.values():
        arrays = design.evaluate(model.frame)
        units.append(Unit(arrays.X, arrays.offset))
    whole = Objective(model.family, model.response, tuple(units))
    S, d = model.solution.S, model.solution.dispersion
    free = np.delete(np.arange(whole.n_coef), [] if d is None else [d])

    def penalised(free_coef):
        coef = model.solution.coef.copy()
        coef[free] = free_coef
        at = whole.derivatives(coef)
        return 0.5 * coef @ S @ coef - at.value, (S @ coef - at.gradient)[free]

    start = model.solution.coef[free] + 0.05 * np.random.default_rng(0).normal(size=len(free))
    found = scipy.optimize.minimize(
        penalised,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "gtol": 1e-7, "ftol": 0},
    )
    value, gradient = penalised(model.solution.coef[free])
    assert value <= found.fun + 1e-6
    assert np.abs(gradient).max() < 1e-3


@pytest.mark.parametrize("bs", ["tp", "ps", "cr"])
def test_a_smooth_under_infinite_penalty_is_a_line(bs: str) -> None:
    data = table("normal")
    line = fit("y ~ z", data)
    smooth = fit(f"y ~ s(z, bs='{bs}', sp=1e9)", data)
    # the limit is approached like 1 / sp
    assert smooth.predict(data) == pytest.approx(line.predict(data), abs=1e-5)
    assert smooth.edf["loc", "s(z)"] == pytest.approx(1.0, abs=1e-5)
    assert smooth.loglik == pytest.approx(line.loglik, abs=1e-4)


# networks


def constant_network() -> keras.Model:
    inputs = keras.Input((1,))
    ones = keras.layers.Dense(
        3, kernel_initializer="zeros", bias_initializer="ones", trainable=False
    )(inputs)
    return keras.Model(inputs, ones)


def test_a_network_with_constant_output_is_the_intercept() -> None:
    data = table("normal")
    plain = fit("y ~ x + s(z)", data)
    deep = fit(
        "y ~ x + s(z) + flat(x)",
        data,
        networks={"flat": constant_network()},
        seed=1,
        verbose=0,
        training=Training(epochs=20),
    )
    assert deep.predict(data) == pytest.approx(plain.predict(data), abs=1e-5)


@pytest.fixture(scope="module")
def interaction() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"x": rng.normal(size=600), "z": rng.normal(size=600)})
    return data.assign(
        y=data["x"] + 1.5 * np.tanh(data["x"] * data["z"]) + 0.3 * rng.normal(size=600)
    )


def train(data: pd.DataFrame, formula: str, *, seed: int = 1, **options) -> FittedModel:
    return fit(formula, data, seed=seed, verbose=0, training=Training(epochs=30), **options)


def test_a_deep_effect_says_nothing_that_its_protected_columns_can_say(interaction) -> None:
    model = train(interaction, "y ~ x + deep(x, z)")
    effect = model.predict(which="terms")["loc"]["deep(x,z)"].to_numpy()
    assert effect.std() > 0.3
    X = np.column_stack([np.ones(600), interaction["x"]])
    # float32 networks: orthogonal to six digits
    assert np.abs(X.T @ effect).max() / 600 < 1e-5
    least_squares = np.linalg.lstsq(X, interaction["y"] - effect, rcond=None)[0]
    assert model.coef["loc"].to_numpy()[:2] == pytest.approx(least_squares, abs=1e-3)


def test_projection_moves_effects_and_leaves_the_sum(interaction) -> None:
    deep = train(interaction, "y ~ x + deep(x, z)")
    terms = deep.predict(interaction, "terms", parameter="loc")
    assert terms.sum(axis=1).to_numpy() == pytest.approx(
        deep.predict(interaction, "linear", parameter="loc")
    )
    # unprojected networks leave a slope that is no longer that of least squares
    free = train(interaction, "y ~ x + deep(x, z)", orthogonalize="none")
    effect = free.predict(which="terms")["loc"]["deep(x,z)"].to_numpy()
    assert np.abs(np.corrcoef(effect, interaction["x"])[0, 1]) > 1e-3


def test_the_same_seed_is_the_same_fit(interaction) -> None:
    first = train(interaction, "y ~ x + deep(x, z)", seed=3)
    second = train(interaction, "y ~ x + deep(x, z)", seed=3)
    other = train(interaction, "y ~ x + deep(x, z)", seed=4)
    assert np.array_equal(first.predict(interaction), second.predict(interaction))
    assert np.array_equal(first.coef, second.coef)
    assert not np.array_equal(first.predict(interaction), other.predict(interaction))


def test_a_user_s_network_is_not_trained_in_place(interaction) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, activation="relu")])
    before = [w.copy() for w in network.get_weights()]
    options = {"networks": {"net": network}}
    first = train(interaction, "y ~ x + net(x, z)", **options)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    second = train(interaction, "y ~ x + net(x, z)", **options)
    assert np.array_equal(first.predict(interaction), second.predict(interaction))


# distributions


@each_example
def test_densities_integrate_to_one(name: str) -> None:
    model = model_of(name, table(name))
    row = table(name).head(1)
    if model.family.discrete:
        total = model.predict(row, "pdf", at=np.arange(200.0 if name == "poisson" else 2.0)).sum()
    else:
        low, high = model.predict(row, "quantile", at=[1e-12, 1 - 1e-12])[0]
        grid = np.linspace(low, high, 20001)
        total = scipy.integrate.simpson(model.predict(row, "pdf", at=grid)[0], x=grid)
    assert total == pytest.approx(1.0, abs=1e-6)


@each_example
def test_quantiles_invert_the_distribution_function(name: str) -> None:
    data = table(name)
    model = model_of(name, data)
    p = np.linspace(0.01, 0.99, 25)
    q = model.predict(data.head(9), "quantile", at=p)
    reached = model.predict(data.head(9), "cdf", at=q)
    if model.family.discrete:
        below = model.predict(data.head(9), "cdf", at=q - 1)
        assert np.all(reached >= p) and np.all(below < p)
    else:
        assert reached == pytest.approx(np.tile(p, (9, 1)), abs=1e-8)


# what tools get wrong


@pytest.mark.parametrize("term", ["poly(x, 2)", "scale(x)", "center(x)", "bs(x, df=5)", "log(x)"])
def test_transforms_remember_the_training_rows(term: str) -> None:
    data = table("normal")
    model = fit(f"y ~ {term}", data)
    alone = [model.predict(data.iloc[[i]])[0] for i in range(5)]
    assert alone == pytest.approx(model.predict(data)[:5], rel=1e-9)


def test_mistakes_are_named_before_fitting() -> None:
    data = table("normal")
    with pytest.raises(UnknownVariable, match="'xx'.*did you mean 'x'"):
        fit("y ~ xx", data)
    with pytest.raises(FormulaError, match="'location' is not a parameter"):
        fit({"location": "y ~ x"}, data)
    with pytest.raises(FormulaError):
        fit(["y ~ x", "scale ~ z", "tail ~ z"], data)
    with pytest.raises(DataError, match="length|rows"):
        fit("y ~ x", {"y": data["y"].to_numpy()[:-1], "x": data["x"].to_numpy()})
    with pytest.raises((DataError, FormulaError), match=r"log\(x\).*not finite"):
        fit("y ~ log(x)", data.assign(x=data["x"] - 0.5))


def test_new_rows_that_do_not_fit_are_named() -> None:
    data = table("normal")
    model = fit("y ~ log(x) + g", data)
    with pytest.raises(PredictionError, match="'d'"):
        model.predict(data.head(2).assign(g=["a", "d"]))
    with pytest.raises(
        PredictionError, match=r"column 'x' of the new data misses values in rows .* 1;"
    ):
        model.predict(data.head(2).assign(x=[0.5, np.nan]))
    with pytest.raises(PredictionError, match=r"log\(x\).*not finite"):
        model.predict(data.head(2).assign(x=[0.5, -1.0]))


def test_missing_values_are_dropped_with_one_warning() -> None:
    data = table("normal")
    holes = data.copy()
    holes.loc[3, "x"] = np.nan
    holes.loc[7, "g"] = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit("y ~ x + g", holes)
    assert [w.category for w in caught] == [DroppedRowsWarning]
    assert model.nobs == N - 2
    assert model.coef.to_numpy() == pytest.approx(
        fit("y ~ x + g", data.drop([3, 7])).coef.to_numpy()
    )
