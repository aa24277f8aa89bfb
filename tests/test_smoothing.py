"""The structured solver against differences, scipy optimisers, statsmodels and closed forms."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import statsmodels.api as sm

from deepregress import smoothing
from deepregress.basis import centre, construct, scale_penalty
from deepregress.data import Response
from deepregress.errors import FitError
from deepregress.families import family
from deepregress.families.base import CHUNK
from deepregress.inference.covariance import Inference
from deepregress.inference.significance import smooth_test, wald_test, weighted_chi2_sf
from deepregress.marginal import Point, Problem, Slope
from deepregress.objective import Objective, Unit, positive_part
from deepregress.penalty import PlacedPenalty
from deepregress.smoothing import select, start_coef
from deepregress.solvers.newton import evaluate, maximise, stretched


def response(y, weights=None):
    y = np.asarray(y, dtype=float)
    w = np.ones(len(y)) if weights is None else weights
    return Response(lower=y, upper=y, weights=w, entry=None, label="y", levels=None)


def unit(n, linear=(), smooths=()):
    """Intercept, linear columns and P-splines of (x, sp, df)."""
    blocks, penalties = [np.column_stack([np.ones(n), *linear])], []
    at = blocks[0].shape[1]
    for x, sp, df in smooths:
        basis = construct("ps", x, k=8, label="s(x)")
        X = basis.evaluate(x)
        Z = centre(X.sum(axis=0))
        S = Z.T @ scale_penalty(X, basis.penalties[0]) @ Z
        blocks.append(X @ Z)
        penalties.append(PlacedPenalty("s(x)", slice(at, at + 7), S, 6, sp, df))
        at += 7
    return Unit(np.ascontiguousarray(np.hstack(blocks)), np.zeros(n), tuple(penalties))


def data(name, n=300, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.random(n), rng.random(n)
    f = np.sin(6 * x)
    y = {
        "normal": f + np.exp(-1 + z) * rng.normal(size=n),
        "gamma": np.exp(f) * rng.gamma(4.0, 0.25, n),
        "poisson": rng.poisson(np.exp(1 + f)).astype(float),
        "bernoulli": (rng.random(n) < scipy.special.expit(2 * f)).astype(float),
    }[name]
    return x, z, y


def objective(name, kind="full", n=300, weights=None):
    x, z, y = data(name, n)
    first = unit(n, [z], [(x, None, None)])
    fam = family(name)
    if fam.n_units == 1:
        return Objective(fam, response(y, weights), (first,))
    second = unit(n) if kind == "constant" else unit(n, [], [(z, None, None)])
    return Objective(fam, response(y, weights), (first, second))


NAMES = ("normal", "gamma", "poisson", "bernoulli")
KINDS = [(name, "full") for name in NAMES] + [("normal", "constant"), ("gamma", "constant")]


def somewhere(obj):
    rng = np.random.default_rng(1)
    return start_coef(obj) + 0.2 * rng.normal(size=obj.n_coef)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_and_hessian_are_central_differences(name):
    obj = objective(name)
    coef = somewhere(obj)
    at = obj.derivatives(coef)
    step = 1e-5
    for j in range(obj.n_coef):
        e = np.zeros(obj.n_coef)
        e[j] = step
        up, down = obj.derivatives(coef + e), obj.derivatives(coef - e)
        assert (up.value - down.value) / (2 * step) == pytest.approx(
            at.gradient[j], rel=1e-6, abs=1e-4
        )
        np.testing.assert_allclose(
            -(up.gradient - down.gradient) / (2 * step),
            at.H[j],
            rtol=1e-5,
            atol=1e-4 * abs(at.H).max(),
        )


@pytest.mark.parametrize("name", NAMES)
def test_logdet_gradient_is_the_derivative_of_the_weighted_hessian(name):
    obj = objective(name)
    coef = somewhere(obj)
    root = np.random.default_rng(2).normal(size=(obj.n_coef, obj.n_coef))
    V = root @ root.T
    t = obj.logdet_gradient(coef, V)
    step = 1e-5
    for j in range(0, obj.n_coef, 3):
        e = np.zeros(obj.n_coef)
        e[j] = step
        up, down = obj.derivatives(coef + e).H, obj.derivatives(coef - e).H
        expected = np.sum(V * (up - down)) / (2 * step)
        assert t[j] == pytest.approx(expected, rel=1e-5, abs=1e-6 * np.abs(t).max())


def test_statistics_of_chunks_add():
    n = 2 * CHUNK + 100
    obj = objective("normal", n=n)
    coef = somewhere(obj)
    whole = obj.derivatives(coef)
    half = n // 2
    parts = []
    for rows in (slice(0, half), slice(half, n)):
        units = tuple(Unit(u.X[rows], u.offset[rows]) for u in obj.units)
        parts.append(
            Objective(obj.family, response(obj.response.lower[rows]), units).derivatives(coef)
        )
    assert whole.value == pytest.approx(sum(p.value for p in parts), rel=1e-12)
    np.testing.assert_allclose(whole.H, sum(p.H for p in parts), rtol=1e-10, atol=1e-8)
    repeated = obj.derivatives(coef)
    assert repeated.value == whole.value
    np.testing.assert_array_equal(repeated.H, whole.H)


@pytest.mark.parametrize("name", NAMES)
def test_weight_two_is_the_row_twice(name):
    weights = np.random.default_rng(0).integers(1, 4, 300).astype(float)
    weighted = objective(name, weights=weights)
    index = np.repeat(np.arange(300), weights.astype(int))
    units = tuple(
        Unit(np.ascontiguousarray(u.X[index]), u.offset[index], u.penalties) for u in weighted.units
    )
    repeated = Objective(weighted.family, response(weighted.response.lower[index]), units)
    one, two = select(weighted), select(repeated)
    assert one.loglik == pytest.approx(two.loglik, rel=1e-7)
    assert one.reml == pytest.approx(two.reml, rel=1e-7)
    np.testing.assert_allclose(one.coef, two.coef, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_slope_of_the_marginal_likelihood_is_its_difference_quotient(name, kind, method):
    problem = Problem.of(objective(name, kind), method=method)
    state = evaluate(problem.objective, select(problem.objective).coef)
    lam = np.full(len(problem.penalties), 3.0)
    tight = {"free": problem.free, "tolerance": 1e-16, "max_steps": 30}
    point = Point.at(problem, lam, state)
    slope = Slope.at(point)
    step = 1e-4

    def value(shift):
        moved = lam * np.exp(shift[: len(lam)])
        coef = point.state.coef.copy()
        if problem.dispersion is not None:
            coef[problem.dispersion] += shift[-1]
        S = problem.total(moved)
        fit = maximise(problem.objective, evaluate(problem.objective, coef), S, **tight).state
        return Point.at(problem, moved, fit).value

    for j in range(len(slope.gradient)):
        e = np.zeros(len(slope.gradient))
        e[j] = step
        # V is known to 1e-9: the quotient to 1e-5
        assert slope.gradient[j] == pytest.approx((value(e) - value(-e)) / (2 * step), abs=2e-5)


def test_curvature_of_the_marginal_likelihood_is_exact_for_the_normal():
    problem = Problem.of(objective("normal", "constant"))
    state = evaluate(problem.objective, select(problem.objective).coef)
    point = Point.at(problem, np.array([3.0]), state)
    # a step that moves the fit by more than Newton's tolerance; truncation 1e-4
    slope, step = Slope.at(point), 1e-2
    for j in range(2):
        shift = np.zeros(2)
        shift[j] = step
        slopes = []
        for sign in (1, -1):
            coef = point.state.coef.copy()
            coef[problem.dispersion] += sign * shift[1]
            moved = evaluate(problem.objective, coef)
            slopes.append(Slope.at(Point.at(problem, 3.0 * np.exp(sign * shift[:1]), moved)))
        quotient = (slopes[0].gradient - slopes[1].gradient) / (2 * step)
        np.testing.assert_allclose(slope.hessian[j], quotient, rtol=1e-3, atol=1e-3)


def test_normal_with_constant_scale_is_the_closed_form_restricted_likelihood():
    obj = objective("normal", "constant")
    X, y = obj.units[0].X, obj.response.lower
    penalty = obj.units[0].penalties[0]
    n, p = X.shape
    S = np.zeros((p, p))
    S[penalty.index, penalty.index] = penalty.S
    log_det_S = np.log(np.linalg.eigvalsh(penalty.S)[1:]).sum()

    def criterion(log_sp, log_phi):
        """-V of a Gaussian model (Wood 2017, section 6.2.6)."""
        sp, phi = np.exp(log_sp), np.exp(log_phi)
        A = X.T @ X + sp * S
        b = np.linalg.solve(A, X.T @ y)
        deviance = np.sum((y - X @ b) ** 2) + sp * b @ S @ b
        log_dets = np.linalg.slogdet(A)[1] - 6 * log_sp - log_det_S
        return 0.5 * (deviance / phi + (n - (p - 6)) * np.log(2 * np.pi * phi) + log_dets)

    best = scipy.optimize.minimize(lambda v: criterion(*v), [0.0, 0.0], tol=1e-12)
    solution = select(obj)
    assert solution.reml == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(np.log(solution.sp[0]), best.x[0], atol=1e-3)
    edf = Inference.of(solution).edf[:p].sum()
    rss = np.sum((y - X @ solution.coef[:p]) ** 2)
    assert np.exp(2 * solution.coef[-1]) == pytest.approx(rss / (n - edf), rel=1e-4)
    expected = scipy.stats.norm.logpdf(y, X @ solution.coef[:p], np.sqrt(rss / n)).sum()
    assert solution.loglik == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_no_smoothing_parameters_give_a_larger_marginal_likelihood(name, kind):
    obj = objective(name, kind)
    solution = select(obj)
    problem = Problem.of(obj)
    state = evaluate(obj, solution.coef)
    rng = np.random.default_rng(0)
    for _ in range(10):
        lam = solution.lam * np.exp(0.5 * rng.normal(size=len(solution.lam)))
        assert -Point.at(problem, lam, state).value >= solution.reml - 1e-6
    assert solution.status.converged


def test_unpenalised_fits_are_those_of_statsmodels():
    x, z, y = data("bernoulli")
    X = np.column_stack([np.ones(300), x, z])
    logit = sm.GLM(y, X, family=sm.families.Binomial()).fit(tol=1e-12)
    ours = select(Objective(family("bernoulli"), response(y), (unit(300, [x, z]),)))
    np.testing.assert_allclose(ours.coef, logit.params, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(Inference.of(ours).cov)), logit.bse, rtol=1e-6)
    assert ours.loglik == pytest.approx(logit.llf, rel=1e-10)
    _, _, counts = data("poisson")
    poisson = sm.GLM(counts, X, family=sm.families.Poisson()).fit(tol=1e-12)
    ours = select(Objective(family("poisson"), response(counts), (unit(300, [x, z]),)))
    np.testing.assert_allclose(ours.coef, poisson.params, rtol=1e-6)
    _, _, y = data("normal")
    ols = sm.OLS(y, X).fit()
    ours = select(Objective(family("normal"), response(y), (unit(300, [x, z]), unit(300))))
    np.testing.assert_allclose(ours.coef[:3], ols.params, rtol=1e-7)
    assert ours.loglik == pytest.approx(ols.llf, rel=1e-10)
    inference = Inference.of(ours)
    np.testing.assert_allclose(np.sqrt(np.diag(inference.cov))[:3], ols.bse, rtol=1e-6)
    test = wald_test(ours.coef[1:3], inference.cov[1:3, 1:3], ols.df_resid)
    reference = ols.f_test(np.eye(3)[1:])
    assert test.statistic == pytest.approx(float(reference.fvalue), rel=1e-6)
    assert test.p_value == pytest.approx(float(reference.pvalue), rel=1e-5)


def test_fixed_degrees_of_freedom_are_met():
    x, z, y = data("poisson")
    obj = Objective(
        family("poisson"), response(y), (unit(300, [], [(x, None, 4.0), (z, None, None)]),)
    )
    edf = Inference.of(select(obj)).edf
    assert edf[1:8].sum() == pytest.approx(4.0, abs=1e-4)


def test_a_fixed_smoothing_parameter_is_relative_to_a_constant_dispersion():
    x, _, y = data("normal")
    obj = Objective(family("normal"), response(y), (unit(300, [], [(x, 2.5, None)]), unit(300)))
    solution = select(obj)
    X, penalty = obj.units[0].X, obj.units[0].penalties[0]
    S = np.zeros((8, 8))
    S[1:, 1:] = penalty.S
    expected = np.linalg.solve(X.T @ X + 2.5 * S, X.T @ y)
    np.testing.assert_allclose(solution.coef[:8], expected, rtol=1e-4, atol=1e-5)
    assert solution.sp[0] == pytest.approx(2.5, rel=1e-5)


def test_infinite_smoothing_is_the_straight_line():
    rng = np.random.default_rng(4)
    x = rng.random(200)
    y = 1 + 2 * x + rng.normal(size=200)
    smooth = select(
        Objective(family("normal"), response(y), (unit(200, [], [(x, 1e12, None)]), unit(200)))
    )
    line = select(Objective(family("normal"), response(y), (unit(200, [x]), unit(200))))
    assert smooth.loglik == pytest.approx(line.loglik, abs=1e-6)


def test_separated_data_are_reported_not_returned_as_nan():
    x = np.linspace(-1, 1, 40)
    obj = Objective(family("bernoulli"), response((x > 0).astype(float)), (unit(40, [x]),))
    solution = select(obj)
    assert np.isfinite(solution.coef).all()
    assert solution.loglik == pytest.approx(0.0, abs=1e-3)


def test_levels_separated_in_the_sample_of_the_start_do_not_lead_astray():
    rng = np.random.default_rng(0)
    n, levels = 8000, 40
    level = np.where(rng.random(n) < 0.9, 0, rng.integers(1, levels, n))
    x = rng.normal(size=n)
    y = rng.random(n) < scipy.special.expit(-2.0 + 0.5 * x)
    indicators = (level[:, None] == np.arange(1, levels)).astype(float)
    obj = Objective(family("bernoulli"), response(y), (unit(n, [x, *indicators.T]),))
    solution = select(obj)
    reference = sm.Logit(y, sm.add_constant(np.column_stack([x, indicators])))
    reference = reference.fit(method="bfgs", maxiter=1000, disp=False)
    assert reference.llf < solution.loglik < reference.llf + 0.1
    assert solution.coef[1] == pytest.approx(reference.params[1], abs=1e-3)


def test_a_short_step_is_stretched_to_where_the_likelihood_falls():
    obj = objective("poisson")
    before = evaluate(obj, start_coef(obj))
    penalty = Problem.of(obj).total(np.zeros(1))
    full = evaluate(obj, maximise(obj, before, penalty, free=np.arange(2)).state.coef)
    short = evaluate(obj, before.coef + 0.2 * (full.coef - before.coef))
    found = stretched(obj, before, short, penalty)
    moved = (found.coef - before.coef)[0] / (full.coef - before.coef)[0]
    assert 0.5 < moved < 2.0
    assert found.at.value > short.at.value


def test_a_start_without_a_finite_likelihood_is_refused():
    obj = objective("poisson")
    with pytest.raises(FitError, match="not finite at the start"):
        select(obj, np.full(obj.n_coef, 1e6))


def test_a_start_that_leads_nowhere_is_given_up_for_the_usual_one():
    obj = objective("normal")
    scale = np.zeros(obj.n_coef)
    scale[obj.slices[1].start] = 20.0
    usual, found = select(obj), select(obj, scale)
    assert found.status.converged
    assert found.reml == pytest.approx(usual.reml, abs=1e-6)


def test_smoothing_parameters_that_begin_outside_their_bounds_stay_there(monkeypatch):
    obj = objective("normal")
    usual = select(obj)
    monkeypatch.setattr(smoothing, "lam_bounds", lambda *_: (10.0 * usual.lam, 100.0 * usual.lam))
    found = select(obj)
    assert found.status.converged
    assert found.reml == pytest.approx(usual.reml, abs=0.05)


def test_positive_part_is_the_projection_of_each_row():
    W = np.random.default_rng(0).normal(size=(5, 6))
    clamped = positive_part(W)
    for given, got in zip(W, clamped, strict=True):
        full = np.zeros((3, 3))
        full[np.triu_indices(3)] = given
        full = full + np.triu(full, 1).T
        values, vectors = np.linalg.eigh(full)
        expected = (vectors * np.maximum(values, 0)) @ vectors.T
        np.testing.assert_allclose(got, expected[np.triu_indices(3)], atol=1e-12)
    np.testing.assert_array_equal(positive_part(W[:, :1]), np.maximum(W[:, :1], 0))


@pytest.mark.parametrize("x", [0.5, 3.0, 12.0, 45.0, 90.0])
def test_weighted_chi_squared_tails(x):
    np.testing.assert_allclose(
        weighted_chi2_sf(x, np.ones(4), np.ones(4)), scipy.stats.chi2.sf(x, 4), rtol=1e-3
    )
    # an F: chi2(3) > x / 20 chi2(20)
    p = weighted_chi2_sf(0.0, np.array([1.0, -x / 20]), np.array([3.0, 20.0]))
    assert p == pytest.approx(scipy.stats.f.sf(x / 3, 3, 20), rel=1e-3, abs=1e-9)


def test_weighted_chi_squared_tail_is_a_simulated_frequency():
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 1.0, 0.9, 0.4])
    draws = rng.chisquare(1, (400_000, 4)) @ weights
    for x in (2.0, 5.0, 9.0):
        share = np.mean(draws > x)
        assert weighted_chi2_sf(x, weights, np.ones(4)) == pytest.approx(share, abs=0.003)


def test_smooth_test_of_an_unpenalised_term_is_the_wald_test():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    H = root @ root.T + np.eye(5)
    V, coef = np.linalg.inv(H), rng.normal(size=5)
    smooth = smooth_test(coef, V, H, edf1=5.0, residual_df=None)
    wald = wald_test(coef, V, None)
    assert smooth.statistic == pytest.approx(wald.statistic, rel=1e-9)
    assert smooth.p_value == pytest.approx(wald.p_value, rel=1e-9)


def test_standard_errors_of_generalised_linear_models_are_from_the_expected_information():
    x, z, y = data("bernoulli")
    X = np.column_stack([np.ones(300), x, z])
    for link, theirs in (
        ("probit", sm.families.links.Probit()),
        ("cloglog", sm.families.links.CLogLog()),
    ):
        glm = sm.GLM(y, X, family=sm.families.Binomial(theirs)).fit(tol=1e-13)
        ours = select(Objective(family("bernoulli", link), response(y), (unit(300, [x, z]),)))
        np.testing.assert_allclose(ours.coef, glm.params, rtol=1e-5, atol=1e-6)
        errors = np.sqrt(np.diag(Inference.of(ours).cov))
        np.testing.assert_allclose(errors, glm.bse, rtol=1e-5)
