"""Transformation models: closed forms, SciPy, lm and coxph of R, and the autodiff of the base.

Coefficients of R stand in the tests with their origin; lung is survival::lung, 227 complete rows.
"""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tensorflow as tf

import deepregress as dr
from deepregress.errors import FamilyError, PredictionError, ResponseError
from deepregress.families import family, kernels, numerical
from deepregress.families.base import Family, upper_pairs
from deepregress.families.bernstein import cumulated
from deepregress.families.transformation import Transformation
from deepregress.response import Response


def eagerly(kernel, family, rows, leading):
    """A kernel without its compilation, which takes most of the time of a short test."""
    tensors = {name: tf.constant(column) for name, column in rows.items()}
    found = kernel(family, tensors, *(tf.constant(each) for each in leading))
    return tuple(np.asarray(part) for part in found)


@pytest.fixture
def eager(monkeypatch):
    monkeypatch.setattr(kernels, "in_chunks", eagerly)


REFERENCE = Path(__file__).parents[1] / "data" / "reference"
NAMES = ("cox", "colr", "boxcox", "lehmann", "lm")
F = {
    "cox": scipy.stats.gumbel_l,
    "colr": scipy.stats.logistic,
    "boxcox": scipy.stats.norm,
    "lehmann": scipy.stats.gumbel_r,
    "lm": scipy.stats.norm,
}


@functools.cache
def bound(name: str) -> Transformation:
    """The family for responses between 1 and 9."""
    y = np.linspace(1.0, 9.0, 129)
    y = np.floor(y) if name == "cotram" else y
    found = family(name).for_response(Response(y, y, np.ones(129), None, "y", None))
    assert isinstance(found, Transformation)
    return found


def draws(name: str, n: int, seed: int) -> np.ndarray:
    """Random predictors (n, U): the rises of the start values times exponential numbers."""
    fam = bound(name)
    y = np.linspace(1.0, 9.0, 129)
    centre = list(fam.start_values(y, np.ones(129)).values())
    rng = np.random.default_rng(seed)
    eta = np.array(centre) * rng.gamma(1.0, size=(n, fam.n_units))
    eta[:, :2] = centre[:2] + rng.normal(size=(n, 2))
    return eta


def test_the_basis_is_the_incomplete_beta_function():
    t = np.linspace(0.0, 1.0, 21)
    A, slope = (each.numpy() for each in cumulated(tf.constant(t), 7))
    np.testing.assert_allclose(A[:, 0], 1.0, atol=1e-14)
    for k in range(1, 8):
        np.testing.assert_allclose(A[:, k], scipy.stats.beta.cdf(t, k, 8 - k), atol=1e-14)
        np.testing.assert_allclose(slope[:, k], scipy.stats.beta.pdf(t, k, 8 - k), atol=1e-12)
    beyond, tail = (each.numpy() for each in cumulated(tf.constant([-0.5, 1.5], tf.float64), 7))
    np.testing.assert_allclose(beyond[0, 1:], [-3.5, 0, 0, 0, 0, 0, 0], atol=1e-14)
    np.testing.assert_allclose(beyond[1, 1:], [1, 1, 1, 1, 1, 1, 4.5], atol=1e-14)
    np.testing.assert_allclose(tail[1], [0, 0, 0, 0, 0, 0, 0, 7.0], atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_the_transformation_increases_for_any_coefficients(name):
    fam = bound(name)
    y = np.linspace(0.2, 14.0, 1000)
    eta = np.repeat(draws(name, 100, seed=1), len(y), axis=0)
    h, slope = fam.transformed(fam.values(tf.constant(eta)), tf.constant(np.tile(y, 100)))
    assert np.all(np.diff(h.numpy().reshape(100, -1), axis=1) > 0.0)
    assert np.all(slope.numpy() > 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_densities_integrate_to_the_distribution_function(name):
    fam = bound(name)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    tail = np.geomspace(1e-9, 0.2, 15)
    p = np.concatenate([tail, np.linspace(0.25, 0.75, 9), 1.0 - tail[::-1]])
    for eta in draws(name, 2, seed=2):
        rows = np.tile(eta, (len(p), 1))
        edges = fam.quantile(p, rows)
        np.testing.assert_allclose(fam.cdf(edges, rows), p, rtol=1e-6)
        # where h' bends, at the ends of the span, are edges too
        ends = np.exp(fam.span) if name == "cox" else np.array(fam.span)
        edges = np.sort(np.concatenate([edges, ends[(ends > edges[0]) & (ends < edges[-1])]]))
        half = 0.5 * np.diff(edges)
        at = (edges[:-1] + half)[:, None] + half[:, None] * nodes
        f = np.exp(fam.logpdf(at.ravel(), np.tile(eta, (at.size, 1)))).reshape(at.shape)
        assert (half @ (f @ weights)) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("name", [*NAMES, "cotram"])
@pytest.mark.usefixtures("eager")
def test_probabilities_of_a_partition_sum_to_one(name):
    fam = bound(name)
    cuts = np.array([1.5, 3.0, 3.0 + 1e-9, 5.0, 8.0, 20.0])
    lower, upper = np.append(-np.inf, cuts), np.append(cuts, np.inf)
    if name == "cotram":
        lower, upper = (
            np.append(-np.inf, [1.0, 2.0, 4.0, 9.0]),
            np.array([0.0, 1.0, 3.0, 8.0, np.inf]),
        )
    n = len(lower)
    rows = dict(Response(lower, upper, np.ones(n), None, "y", None).rows())
    for eta in draws(name, 5, seed=3):
        each = np.tile(eta, (n, 1))
        log_p = fam.row_derivatives(rows, each)[0] + fam.row_penalty(each)
        np.testing.assert_allclose(log_p, fam.row_log_likelihood(rows, each), atol=1e-12)
        assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-12)
        # the other path, from the family's cdf: censoring.log_likelihood
        tensors = {key: tf.constant(column) for key, column in rows.items()}
        other = fam.log_likelihood(tensors, tf.constant(each)).numpy()
        np.testing.assert_allclose(other, log_p, rtol=1e-6, atol=1e-9)


def rows_of_all_kinds(truncated: bool) -> dict[str, np.ndarray]:  # noqa: FBT001
    lower = np.array([2.0, 5.0, 3.0, -np.inf, 4.0, 6.0, 10.0])
    upper = np.array([2.0, 5.0, np.inf, 4.0, 6.5, 6.05, np.inf])
    entry = np.array([0.5, 1.0, 2.0, 0.7, 3.0, 2.0, 1.5]) if truncated else None
    return dict(Response(lower, upper, np.ones(7), entry, "y", None).rows())


@pytest.mark.parametrize(
    ("name", "truncated"),
    [("cox", True), ("boxcox", False), ("colr", True), ("lehmann", False), ("cotram", True)],
)
@pytest.mark.usefixtures("eager")
def test_derivatives_by_the_chain_rule_are_central_differences(name, truncated):
    fam, rows = bound(name), rows_of_all_kinds(truncated)
    eta = draws(name, 7, seed=4)
    value, gradient, W = fam.row_derivatives(rows, eta)
    log_likelihood = value + fam.row_penalty(eta)
    np.testing.assert_allclose(
        log_likelihood, fam.row_log_likelihood(rows, eta), rtol=1e-9, atol=1e-11
    )
    pairs = upper_pairs(fam.n_units)
    weight = np.random.default_rng(0).normal(size=W.shape)
    third = fam.contracted_third(rows, eta, weight)
    step = 1e-5
    for u in range(fam.n_units):
        move = np.zeros(fam.n_units)
        move[u] = step
        up, down = fam.row_derivatives(rows, eta + move), fam.row_derivatives(rows, eta - move)
        size = 1.0 + np.abs(value) + np.abs(gradient).max(axis=1) + np.abs(W).max(axis=1)
        slope = (up[0] - down[0]) / (2 * step)
        np.testing.assert_array_less(np.abs(slope - gradient[:, u]), 1e-6 * size)
        for p, (k, m) in enumerate(pairs):
            if u in (k, m):
                other = m if u == k else k
                slope = -(up[1] - down[1])[:, other] / (2 * step)
                np.testing.assert_array_less(np.abs(slope - W[:, p]), 1e-6 * size)
        slope = np.sum(weight * (up[2] - down[2]), axis=1) / (2 * step)
        size += np.abs(third).max(axis=1)
        np.testing.assert_array_less(np.abs(slope - third[:, u]), 3e-6 * size)


@pytest.mark.parametrize("name", ["cox", "cotram"])
@pytest.mark.usefixtures("eager")
def test_derivatives_by_the_chain_rule_are_those_of_autodiff(name):
    fam = replace(bound(name), barrier=0.0)
    y = np.array([2.0, 5.0, 7.0])
    rows = dict(Response(y, y, np.ones(3), None, "y", None).rows())
    eta = draws(name, 3, seed=5)
    for ours, expected in zip(
        fam.row_derivatives(rows, eta), Family.row_derivatives(fam, rows, eta), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["cox", "cotram", "boxcox"])
def test_what_is_kept_of_the_response_changes_nothing(name):
    """Rows of every kind, in pieces: the bases of `columns` are those of the rows themselves."""
    fam = bound(name)
    lower = np.array([2.0, 5.0, 7.0, -np.inf, 3.0, 4.0])
    upper = np.array([2.0, 5.0, np.inf, 6.0, 9.0, 4.0])
    entry = np.array([-np.inf, 1.0, 2.0, -np.inf, -np.inf, 3.0])
    for response in (
        Response(lower, upper, np.ones(6), entry, "y", None),
        Response(lower[:2], lower[:2], np.ones(2), None, "y", None),
    ):
        kept, rows = dict(fam.columns(response)), dict(response.rows())
        assert len(kept) > len(rows)
        eta = draws(name, response.n_obs, seed=5)
        for part in (slice(0, 1), slice(1, 6)):
            with_bases = fam.row_derivatives({n: c[part] for n, c in kept.items()}, eta[part])
            without = fam.row_derivatives({n: c[part] for n, c in rows.items()}, eta[part])
            for ours, expected in zip(with_bases, without, strict=True):
                # a vectorised logarithm may differ in its last digit with the number of rows
                np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_step_against_the_order_has_no_likelihood():
    fam, y = bound("cox"), np.array([2.0, 5.0])
    eta = draws("cox", 2, seed=5)
    eta[1, 3] = -0.1
    for each in fam.row_derivatives(dict(Response(y, y, np.ones(2), None, "y", None).rows()), eta):
        assert np.isnan(each).all()


def test_a_linear_transformation_is_the_linear_model():
    """R: logLik(lm(dist ~ speed, cars)) is -206.57843; tram's effect is coef / sigma (ML)."""
    cars = pd.read_csv(REFERENCE / "cars.csv")
    model = dr.fit("dist ~ speed", cars, "lm")
    line = scipy.stats.linregress(cars.speed, cars.dist)
    sigma = np.std(cars.dist - line.intercept - line.slope * cars.speed)
    assert model.converged
    assert model.loglik == pytest.approx(-206.57843, abs=5e-6)
    assert model.coef["shift", "speed"] == pytest.approx(line.slope / sigma, abs=1e-5)
    new = {"speed": np.array([5.0, 20.0])}
    expected = line.intercept + line.slope * new["speed"]
    np.testing.assert_allclose(model.predict(new, which="median"), expected, rtol=1e-5)
    upper = model.predict(new, which="quantile", at=[0.9])[:, 0]
    np.testing.assert_allclose(upper, expected + 1.2815515655446 * sigma, rtol=1e-5)


def test_log_hazard_ratios_of_lung_are_those_of_the_partial_likelihood():
    """survival::coxph: .011067 -.55261 .46373; the full likelihood has another baseline."""
    data = pd.read_csv(REFERENCE / "lung.csv")
    model = dr.fit("Surv(time, status) ~ age + sex + ecog", data, "cox")
    assert model.converged
    ours = model.coef["shift"].to_numpy()
    np.testing.assert_allclose(ours, [0.011067, -0.55261, 0.46373], atol=0.02)
    # standard errors of coxph: .009267 .16774 .11358 (survival::lung, Efron)
    np.testing.assert_allclose(
        model.std_error["shift"].to_numpy(), [0.009267, 0.16774, 0.11358], rtol=0.02
    )
    S = model.predict(data, which="survival", at=np.linspace(1.0, 1200.0, 50))
    assert np.all(np.diff(S, axis=1) <= 0.0)
    assert np.all((S >= 0.0) & (S <= 1.0))


@pytest.mark.parametrize("name", ["colr", "boxcox", "lehmann", "cox"])
def test_shifts_have_the_signs_that_are_documented(name):
    """Responses drawn from the model itself: h(y) = log y or y - 4, shift 0.8 x."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=800)
    z = F[name].rvs(size=800, random_state=rng)
    sign = bound(name).sign
    h = z - sign * 0.8 * x
    y = np.exp(h) if name == "cox" else h + 4.0
    model = dr.fit("y ~ x", {"x": x, "y": y}, name)
    assert model.converged
    error = model.std_error["shift", "x"]
    assert abs(model.coef["shift", "x"] - 0.8) < 3.5 * error
    grid = {"x": np.zeros(3)}
    at = np.quantile(h, [0.2, 0.5, 0.8])
    cdf = model.predict(grid, which="cdf", at=np.exp(at) if name == "cox" else at + 4.0)[0]
    np.testing.assert_allclose(cdf, F[name].cdf(at), atol=0.05)


def test_strata_have_transformations_of_their_own():
    rng = np.random.default_rng(7)
    n = 1000
    g, x = np.repeat(["a", "b"], n // 2), rng.normal(size=n)
    # Weibull baselines of shapes 1 and 3, log hazard ratio 0.5
    shape = np.where(g == "a", 1.0, 3.0)
    time = (rng.exponential(size=n) * np.exp(-0.5 * x)) ** (1.0 / shape)
    formulas = {"shift": "time ~ x", "transformation": "~ g"}
    model = dr.fit(formulas, {"g": g, "x": x, "time": time}, "cox")
    assert model.converged
    assert abs(model.coef["shift", "x"] - 0.5) < 3.5 * model.std_error["shift", "x"]
    at = np.array([0.5, 0.8, 1.2])
    S = model.predict({"g": np.array(["a", "b"]), "x": np.zeros(2)}, which="survival", at=at)
    np.testing.assert_allclose(S, np.exp(-(at ** np.array([[1.0], [3.0]]))), atol=0.06)


def test_errors_name_what_is_wrong():
    with pytest.raises(ResponseError, match="family 'cox' needs positive finite numbers"):
        dr.fit("y ~ 1", {"y": np.array([-1.0, 1.0, 2.0])}, "cox")
    with pytest.raises(ResponseError, match="has 2 columns; family 'cox' needs positive"):
        dr.fit("cbind(y, y) ~ 1", {"y": np.array([1.0, 2.0])}, "cox")
    with pytest.raises(ResponseError, match="is constant"):
        dr.fit("y ~ 1", {"y": np.ones(4)}, "colr")


def test_rows_in_which_the_transformation_would_fall_are_refused():
    fam = bound("colr")
    eta = draws("colr", 4, seed=8)
    eta[2, 5] = -0.1
    for ask in (fam.logpdf, fam.logcdf, fam.logsurvival, fam.quantile):
        with pytest.raises(PredictionError, match="does not increase in 1 of 4 rows, .* row 2"):
            ask(np.full(4, 0.5), eta)


def test_counts_by_a_transformation_are_the_ordinal_model_of_their_classes():
    """With a free threshold for each count the likelihoods are the same but for the smoothness."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=600)
    y = np.minimum(rng.poisson(np.exp(0.3 + 0.5 * x)), 6).astype(float)
    model = dr.fit("y ~ x", {"x": x, "y": y}, "cotram")
    ordinal = dr.fit("y ~ x", {"x": x, "y": y}, "ordinal")
    assert model.converged
    assert model.coef["shift", "x"] == pytest.approx(ordinal.coef["location", "x"], abs=0.01)
    assert model.std_error["shift", "x"] == pytest.approx(
        ordinal.std_error["location", "x"], rel=0.02
    )
    p = model.predict({"x": np.array([0.0])}, which="prob", at=np.arange(7.0))[0]
    expected = ordinal.predict({"x": np.array([0.0])}, which="prob").to_numpy()[0]
    assert np.all(np.abs(p - expected) < 2.0 * np.sqrt(expected * (1.0 - expected) / 600))
    with pytest.raises(FamilyError, match="family 'cotram' has the links logit"):
        dr.fit("y ~ x", {"x": x, "y": y}, "cotram", link="log")


def test_smooth_terms_and_strata_are_close_to_the_partial_likelihood():
    """mgcv's cox.ph and survival::coxph (coxph.json); the full likelihood has a smooth baseline."""
    expected = json.loads((REFERENCE / "coxph.json").read_text())
    smooths = " + ".join(f"s({x}, bs='ps')" for x in ("age", "nodes", "pgr"))
    gbsg = pd.read_csv(REFERENCE / "gbsg.csv")
    model = dr.fit(f"Surv(rfstime, status) ~ {smooths} + hormon", gbsg, "cox")
    assert model.converged
    for term, edf in expected["gbsg"]["gam_ps"]["edf"].items():
        assert model.edf["shift", term] == pytest.approx(edf, abs=0.1)
    hormon = expected["gbsg"]["gam_ps"]["coefficients"]["hormon"]
    difference = model.coef["shift", "hormon"] - hormon["estimate"]
    assert abs(difference) < 0.05 * hormon["se"]
    veteran = pd.read_csv(REFERENCE / "veteran.csv")
    formulas = {
        "shift": "Surv(time, status) ~ trt + karno + age",
        "transformation": "~ C(celltype)",
    }
    strata = dr.fit(formulas, veteran, "cox")
    assert strata.converged
    for name, each in expected["veteran"]["strata"]["coefficients"].items():
        assert abs(strata.coef["shift", name] - each["estimate"]) < 0.3 * each["se"]


def test_moments_of_counts_with_a_long_tail_need_no_sum_over_all_of_them():
    """E Y is the sum of P(Y > y), of which the rest falls like a power, y^-a."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=300)
    y = rng.poisson(np.exp(1.0 + 0.6 * x + 0.8 * rng.normal(size=300))).astype(float)
    y[0] = 400.0
    model = dr.fit("y ~ x", {"x": x, "y": y}, "cotram")
    new, last = {"x": np.array([-1.0, 0.5])}, 300_000
    at = np.arange(last)
    S = model.predict(new, which="survival", at=at)
    assert np.all(S[:, -1] > 1e-13)
    a = np.log2(S[:, last // 2] / S[:, -1])
    mean = S.sum(axis=1) + last * S[:, -1] / (a - 1.0)
    np.testing.assert_allclose(model.predict(new), mean, rtol=1e-6)


@pytest.mark.parametrize("mean", [3.0, 1e3, 1e6])
def test_panels_of_counts_have_the_moments_of_the_sum(mean):
    poisson = family("poisson")
    found = numerical._count_moments(poisson, np.log([[mean]]))
    np.testing.assert_allclose(np.ravel(found), mean, rtol=1e-7)
