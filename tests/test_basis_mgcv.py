"""Further bases: columns, penalties and fits of mgcv, periods, shrinkage, correlations, errors.

`data/reference/bases.json` and `bases_gams.json` hold mgcv's numbers, with their origin. The
contract that every basis runs through is in `test_basis.py`, tensor products in `test_tensor.py`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from scipy.interpolate import CubicSpline
from scipy.spatial.distance import pdist
from scipy.special import gamma, kv

from deepregress import basis
from deepregress.basis import base, bspline, gaussian_process
from deepregress.errors import FormulaError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
MGCV = json.loads((REFERENCE / "bases.json").read_text())
GAMS = json.loads((REFERENCE / "bases_gams.json").read_text())["models"]
AT = pd.DataFrame(MGCV["at"])
DATA = pd.read_csv(REFERENCE / "basis.csv")
X = DATA["x"].to_numpy()
Y = DATA["y"].to_numpy()

# Case of mgcv: (bs, options). Covariate x, and z where the name says two.
CASES = {
    "cc": ("cc", {"k": 10}),
    "cc_least": ("cc", {"k": 4}),
    "cc_period": ("cc", {"k": 6, "knots": [-1.0, 12.0]}),
    "cc_knots": ("cc", {"knots": [-1.0, 2.0, 3.0, 6.0, 9.0, 12.0]}),
    "cp": ("cp", {}),
    "cp_least": ("cp", {"k": 3}),
    "cp_period": ("cp", {"k": 6, "knots": [-1.0, 12.0]}),
    "cp_uneven": ("cp", {"k": 6, "knots": [-1.0, 1.0, 2.0, 5.0, 8.0, 9.0, 12.0]}),
    "cp_quadratic": ("cp", {"k": 7, "m": (1, 1)}),
    "cp_third": ("cp", {"k": 8, "m": (2, 3)}),
    "bs": ("bs", {"m": (3, 2)}),
    "bs_first": ("bs", {"k": 8, "m": (3, 1)}),
    "bs_quadratic": ("bs", {"k": 8, "m": 2}),
    "bs_quintic": ("bs", {"k": 10, "m": (5, 3)}),
    "bs_several": ("bs", {"k": 8, "m": (3, 2, 0)}),
    "bs_range": ("bs", {"k": 8, "knots": [-2.0, 12.0]}),
    "bs_wide": ("bs", {"k": 8, "m": (3, 1), "knots": [-2.0, 0.0, 10.0, 12.0]}),
    "bs_uneven": (
        "bs",
        {"k": 6, "knots": [-4.0, -2.0, -1.0, 0.0, 2.0, 3.0, 10.0, 11.0, 13.0, 14.0]},
    ),
    "cs": ("cs", {"k": 10}),
    "cs_least": ("cs", {"k": 6}),
    "tp": ("tp", {"k": 10}),
    "tp_two": ("tp", {"k": 12}),
    "ts": ("ts", {"k": 10}),
    "ts_two": ("ts", {"k": 20}),
    "gp": ("gp", {"k": 10}),
    "gp_default": ("gp", {}),
    "gp_spherical": ("gp", {"k": 8, "m": (1, 4.0)}),
    "gp_exponential": ("gp", {"k": 8, "m": 2}),
    "gp_power": ("gp", {"k": 8, "m": (2, 3.0, 1.5)}),
    "gp_matern_5_2": ("gp", {"k": 8, "m": 4}),
    "gp_matern_7_2": ("gp", {"k": 8, "m": (5, 2.0)}),
    "gp_stationary": ("gp", {"k": 8, "m": (-3, 2.0)}),
    "gp_knots": ("gp", {"k": 6, "knots": np.linspace(0.0, 10.0, 15)}),
    "gp_two": ("gp", {"k": 20}),
}


def names(case):
    return ["x", "z"] if case.endswith("_two") else ["x"]


def construct(case):
    bs, options = CASES[case]
    return basis.construct(bs, DATA[names(case)].to_numpy(), **options)


@pytest.mark.parametrize("case", CASES)
def test_dimensions_and_penalty_scales_are_those_of_mgcv(case):
    built, expected = construct(case), MGCV["cases"][case]
    columns = built.evaluate(DATA[names(case)].to_numpy())
    scales = [basis.penalty_scale(columns, S) for S in built.penalties]
    assert (built.k, built.null_dim) == (expected["k"], expected["null_dim"])
    # Eigenvectors of the thin plate and Gaussian process knots differ by their rounding errors.
    np.testing.assert_allclose(scales, expected["S_scale"], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_penalised_fits_are_those_of_mgcv_inside_and_outside(case):
    built, expected = construct(case), MGCV["cases"][case]
    columns = built.evaluate(DATA[names(case)].to_numpy())
    lam = 10.0 ** -np.arange(len(built.penalties))
    scaled = (basis.scale_penalty(columns, S) for S in built.penalties)
    S = sum(each * part for each, part in zip(lam, scaled, strict=True))
    gram = columns.T @ columns
    coef = np.linalg.solve(gram + S, columns.T @ Y)
    fitted = built.evaluate(AT[names(case)].to_numpy()) @ coef
    np.testing.assert_allclose(fitted, expected["fitted"], rtol=1e-8, atol=1e-8)
    edf = np.trace(np.linalg.solve(gram + S, gram))
    assert edf == pytest.approx(expected["edf"], abs=1e-8)


@pytest.mark.parametrize("case", [case for case in CASES if "X" in MGCV["cases"][case]])
def test_columns_and_penalties_are_those_of_mgcv(case):
    built, expected = construct(case), MGCV["cases"][case]
    columns = built.evaluate(AT[names(case)].to_numpy())
    # Signs of eigenvectors are arbitrary; the values are sums over 200 knots of size up to 1e3.
    thin = case.startswith("tp")
    signs = np.sign(columns[0] * expected["X"][0]) if thin else np.ones(built.k)
    scale = np.abs(columns).max(axis=0)
    np.testing.assert_allclose(columns / scale, expected["X"] * signs / scale, atol=1e-10)
    for ours, theirs in zip(built.penalties, expected["S"], strict=True):
        theirs = theirs * np.outer(signs, signs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * np.abs(ours).max())


def gam_of_mgcv(model, data, terms, *, atol):
    """Compare an additive model at mgcv's smoothing parameters with what mgcv reports."""
    expected = GAMS[model]
    columns, places, S = [np.ones((len(data), 1))], [], np.zeros((1, 1))
    for name, built, smooth in terms:
        raw = built.evaluate(data[name].to_numpy())
        Z = basis.centre(raw.sum(axis=0))
        places.append(slice(len(S), len(S) + Z.shape[1]))
        scaled = Z.T @ basis.scale_penalty(raw, built.penalties[0]) @ Z * smooth["sp"]
        S = scipy.linalg.block_diag(S, scaled)
        columns.append(raw @ Z)
    whole = np.hstack(columns)
    penalised = whole.T @ whole + S
    coef = np.linalg.solve(penalised, whole.T @ data["y"].to_numpy())
    shares = np.diag(np.linalg.solve(penalised, whole.T @ whole))
    assert coef[0] == pytest.approx(expected["intercept"], rel=1e-10)
    np.testing.assert_allclose((whole @ coef)[:20], expected["fitted"], atol=atol)
    for place, (name, built, smooth) in zip(places, terms, strict=True):
        Z = basis.centre(built.evaluate(data[name].to_numpy()).sum(axis=0))
        grid = np.column_stack([smooth["x"][each] for each in name])
        at = built.evaluate(grid) @ Z
        covariance = expected["scale"] * np.linalg.inv(penalised)[place, place]
        se = np.sqrt(np.einsum("ij,jk,ik->i", at, covariance, at))
        assert shares[place].sum() == pytest.approx(smooth["edf"], abs=atol)
        np.testing.assert_allclose(at @ coef[place], smooth["effect"], atol=atol)
        np.testing.assert_allclose(se, smooth["se"], rtol=max(1e-7, atol))


# mgcv's two shrunk directions of s(x1) are exchanged there: 0.1 and 0.01 of the least eigenvalue
# on other lines, 1 % of the standard deviation of the noise in the fit.
@pytest.mark.parametrize(("bs", "atol"), [("ts", 1e-8), ("cs", 0.02)])
def test_shrunk_smooths_are_the_gam_of_mgcv(bs, atol):
    data = pd.read_csv(REFERENCE / "gamsim1.csv")
    terms = []
    for smooth in GAMS[bs]["terms"]:
        name = list(smooth["x"])
        x = data[name].to_numpy()
        built = basis.construct(bs, x, k=10, knots=x if bs == "ts" else None)
        terms.append((name, built, smooth))
    gam_of_mgcv(bs, data, terms, atol=atol)


def test_gaussian_process_of_two_is_the_gam_of_mgcv():
    data = pd.read_csv(REFERENCE / "gamsim2.csv")
    built = basis.construct("gp", data[["x", "z"]].to_numpy(), k=40)
    terms = [(["x", "z"], built, GAMS["gp"]["terms"][0])]
    gam_of_mgcv("gp", data, terms, atol=1e-8)


@pytest.mark.parametrize("case", ["cc", "cc_period", "cc_knots", "cp", "cp_period", "cp_third"])
def test_periods_repeat_and_close_smoothly(case):
    built = construct(case)
    at = np.linspace(built.start, built.start + built.period, 50)
    np.testing.assert_allclose(
        built.evaluate(at + 3.0 * built.period), built.evaluate(at), atol=1e-11
    )
    h = 1e-4 * built.period
    near = built.evaluate(built.start + h * np.arange(-2.0, 3.0))
    left, right = near[2] - near[1], near[3] - near[2]
    # One-sided differences of step h, of functions of size 1.
    np.testing.assert_allclose(left / h, right / h, atol=3e3 * h / built.period**2)


def test_cyclic_cubic_is_the_periodic_interpolant():
    built = construct("cc_knots")
    knots, values = built.spline.knots, np.array([1.0, -2.0, 0.5, 3.0, 1.5])
    spline = CubicSpline(knots, np.append(values, values[0]), bc_type="periodic")
    at = np.linspace(-1.0, 12.0, 301)
    np.testing.assert_allclose(built.evaluate(at) @ values, spline(at), atol=1e-12)
    # The second derivative is linear between knots, so Simpson's rule is exact.
    ends, middle = spline(knots, 2), spline(0.5 * (knots[:-1] + knots[1:]), 2)
    pieces = ends[:-1] ** 2 + 4.0 * middle**2 + ends[1:] ** 2
    wiggliness = (np.diff(knots) * pieces / 6.0).sum()
    assert values @ built.penalties[0] @ values == pytest.approx(wiggliness, rel=1e-12)


@pytest.mark.parametrize("bs", ["cc", "cp"])
def test_rows_beyond_the_ends_are_moved_into_the_period(bs):
    hours = np.random.default_rng(1).uniform(0.0, 24.0, 300)
    within = basis.construct(bs, hours, k=8, knots=[0.0, 24.0])
    beyond = basis.construct(bs, hours + 24.0 * (hours > 12.0), k=8, knots=[0.0, 24.0])
    at = np.linspace(0.0, 24.0, 99)
    np.testing.assert_allclose(within.evaluate(at), beyond.evaluate(at), atol=1e-10)


@pytest.mark.parametrize(("degree", "order"), [(3, 2), (3, 1), (4, 2), (2, 0), (1, 1)])
def test_derivative_penalty_is_the_integral(degree, order):
    knots = np.array([-3.0, -2.5, -1.0, 0.0, 0.2, 1.0, 2.5, 3.0, 4.0, 4.5, 6.0, 7.0])
    S = bspline.integrated_penalty(knots, degree, order)
    at = np.linspace(knots[degree], knots[-1 - degree], 200_001)
    built = bspline.BSplines(knots, degree, (S,), order)
    derivative = built.evaluate(at)
    for _ in range(order):
        derivative = np.gradient(derivative, at, axis=0)
    integral = np.trapezoid(derivative[:, :, None] * derivative[:, None, :], at, axis=0)
    # Differences at kinks and ends of steps of 4e-5.
    np.testing.assert_allclose(S, integral, atol=2e-3 * np.abs(S).max())


@pytest.mark.parametrize(("bs", "plain"), [("ts", "tp"), ("cs", "cr")])
def test_shrunk_bases_add_to_the_null_space_only(bs, plain):
    shrunk, whole = basis.construct(bs, X, k=8), basis.construct(plain, X, k=8)
    np.testing.assert_array_equal(shrunk.evaluate(X), whole.evaluate(X))
    added = shrunk.penalties[0] - whole.penalties[0]
    least = np.linalg.eigvalsh(whole.penalties[0])[2]
    expected = [0.1, 0.1] if bs == "ts" else [0.01, 0.1]
    values = np.linalg.eigvalsh(added)
    np.testing.assert_allclose(values[-2:] / least, expected, rtol=1e-6)
    assert np.abs(values[:-2]).max() < 1e-9 * np.linalg.norm(whole.penalties[0])
    np.testing.assert_allclose(added @ whole.penalties[0], 0.0, atol=1e-6 * least)


@pytest.mark.parametrize("correlation", [1, 2, 3, 4, 5])
def test_correlations_are_one_at_zero_fall_and_are_positive_definite(correlation):
    t = np.linspace(0.0, 3.0, 301)
    c = gaussian_process.correlate(t, correlation, 1.0)
    assert c[0] == 1.0
    assert (np.diff(c) <= 0.0).all()
    assert c[-1] < 0.5
    E = gaussian_process.correlate(np.abs(t[:, None] - t), correlation, 1.0)
    assert np.linalg.eigvalsh(E)[0] > -1e-10


@pytest.mark.parametrize(("nu", "correlation"), [(1.5, 3), (2.5, 4), (3.5, 5)])
def test_matern_correlations_are_those_of_bessel_functions(nu, correlation):
    t = np.linspace(0.1, 4.0, 40)
    expected = 2.0 ** (1.0 - nu) / gamma(nu) * t**nu * kv(nu, t)
    np.testing.assert_allclose(
        gaussian_process.correlate(t, correlation, 1.0), expected, rtol=1e-12
    )


@pytest.mark.parametrize("m", [2, 3, 4, 5, -3, (3, 0.4), (5, 1.0)])
@pytest.mark.parametrize("x", [X, np.arange(30.0) ** 2], ids=["data", "few"])
def test_gaussian_process_by_pieces_is_its_radial_form(m, x):
    order = m if isinstance(m, int) else tuple(m)
    request = base.Request("gp", x[:, None], 9, order, None, "")
    radial = gaussian_process.radial_gaussian_process(request)
    pieces = basis.construct("gp", x, k=9, m=m)
    at = np.concatenate([np.linspace(x.min() - 20.0, x.max() + 20.0, 2001), x])
    assert isinstance(pieces, gaussian_process.ExponentialPieces)
    np.testing.assert_allclose(pieces.evaluate(at), radial.evaluate(at), atol=1e-12)


def test_range_of_the_gaussian_process_is_the_largest_distance():
    points = DATA[["x", "z"]].to_numpy()
    built = basis.construct("gp", points, k=12)
    assert built.range == pytest.approx(pdist(points).max(), rel=1e-14)
    assert basis.construct("gp", points, k=12, m=(3, 0.7)).range == 0.7


def test_gaussian_process_returns_to_its_trend():
    built = construct("gp")
    far = built.evaluate(np.array([1e4, 2e4, 3e4]))
    np.testing.assert_allclose(far[:, :-2], 0.0, atol=1e-200)
    np.testing.assert_allclose(np.diff(far[:, -1]), 1e4)
    stationary = construct("gp_stationary").evaluate(np.array([1e4]))
    np.testing.assert_allclose(stationary, [[0.0] * 7 + [1.0]], atol=1e-200)


def test_default_sizes_are_those_of_mgcv():
    plane = DATA[["x", "z"]].to_numpy()
    sizes = {bs: basis.construct(bs, X).k for bs in ("bs", "cp", "cs", "ts", "cc", "gp")}
    assert sizes == {"bs": 10, "cp": 10, "cs": 10, "ts": 10, "cc": 9, "gp": 12}
    assert basis.construct("gp", plane).k == 33
    assert basis.construct("gp", X, m=-3).k == 12
    assert basis.construct("bs", X, m=12).k == 13


@pytest.mark.parametrize(
    ("bs", "options", "message"),
    [
        ("ts", {"k": 2}, r"basis 'ts' needs k >= 3 \(2 for the polynomials .*\), got 2"),
        ("cs", {"k": 4, "knots": [0.0, 1.0, 2.0]}, "basis 'cs' with k = 4 needs 4 knots, got 3"),
        ("bs", {"k": 3}, r"basis 'bs' needs k >= 4 \(degree \+ 1\), got 3"),
        ("bs", {"m": (3, 4)}, r"needs m = \(degree, order .* from 0 to the degree, got \(3, 4\)"),
        ("bs", {"m": 0}, "needs m = .*got 0"),
        ("bs", {"knots": [0.0, 1.0, 2.0]}, r"basis 'bs' .* takes 2 knots .* or all 14 .* got 3"),
        ("bs", {"k": 4, "knots": [0.0, 1.0, 2.0, 3.0]}, "takes 2 knots .* got 4"),
        ("cc", {"k": 3}, r"needs k >= 4 \(three values and the end of the period\), got 3"),
        ("cc", {"k": 5, "knots": [0.0, 1.0, 2.0]}, r"takes 2 knots \(the ends .* or all 5, got 3"),
        ("cc", {"knots": [1.0]}, "takes 2 knots .* got 1"),
        ("cc", {"knots": [1.0, 1.0]}, "knots of basis 'cc' must differ"),
        ("cp", {"k": 2}, r"needs k >= 3 \(degree, and order of differences \+ 1\), got 2"),
        ("cp", {"m": (2, 2, 2)}, "basis 'cp' needs m = .*order of the differences"),
        ("cp", {"k": 5, "knots": [0.0, 1.0, 2.0]}, r"takes 2 knots .* or all 6, got 3"),
        ("gp", {"k": 2}, r"needs k >= 3 \(2 for the trend\), got 2"),
        ("gp", {"m": 6}, r"needs m = \(type, range, power\) with a type from 1 to 5 .* got 6"),
        ("gp", {"m": (2, 1.0, 3.0)}, r"0 < power <= 2, got \(2, 1\.0, 3\.0\)"),
        ("gp", {"m": (2.5,)}, "a type from 1 to 5"),
        ("gp", {"m": (2, 1.0, 1.0, 1.0)}, "needs m = "),
        ("gp", {"k": 5, "knots": [0.0, 1.0]}, "basis 'gp' with k = 5 needs k knots, got 2"),
    ],
)
def test_user_errors_name_the_term(bs, options, message):
    with pytest.raises(FormulaError, match=message) as caught:
        basis.construct(bs, X, label="s(a)", **options)
    assert str(caught.value).startswith("s(a): ")
