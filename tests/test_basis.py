"""Bases: one contract for all of them, and mgcv's knots, columns, penalties and fits.

`data/reference/basis_*.json` hold mgcv's numbers, with their origin.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline

from deepregress import basis
from deepregress.basis import base, thinplate
from deepregress.errors import FormulaError

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
CHECK = json.loads((REFERENCE / "basis_check.json").read_text())
MGCV = json.loads((REFERENCE / "basis_mgcv.json").read_text())
SCALES = json.loads((REFERENCE / "basis_scales.json").read_text())
DATA = pd.read_csv(REFERENCE / "basis.csv").assign(w=lambda d: np.sin(7 * d.x + 3 * d.z))
TIMES = pd.read_csv(REFERENCE.parent / "mcycle.csv")["times"].to_numpy()
X, Y = DATA["x"].to_numpy(), DATA["y"].to_numpy()

# Name in messages: (bs, covariates, options). Every registered basis must occur.
CASES = {
    "tp": ("tp", ["x"], {"k": 10}),
    "tp, more coefficients": ("tp", ["x"], {"k": 25}),
    "tp, steps": ("tp", ["x"], {"k": 8, "m": 1}),
    "tp, quintic": ("tp", ["x"], {"k": 8, "m": 3}),
    "tp of two": ("tp", ["x", "z"], {"k": 20}),
    "tp of three": ("tp", ["x", "z", "w"], {"k": 30}),
    "cr": ("cr", ["x"], {"k": 10}),
    "cr, least": ("cr", ["x"], {"k": 3}),
    "ps": ("ps", ["x"], {"k": 10}),
    "ps, first differences": ("ps", ["x"], {"k": 10, "m": (2, 1)}),
    "ps, linear": ("ps", ["x"], {"k": 10, "m": (0, 2)}),
    "ps, ridge": ("ps", ["x"], {"k": 10, "m": (2, 0)}),
    "bs": ("bs", ["x"], {"k": 10}),
    "bs, first derivative": ("bs", ["x"], {"k": 8, "m": (3, 1)}),
    "bs, lines": ("bs", ["x"], {"k": 8, "m": 1}),
    "bs, two penalties": ("bs", ["x"], {"k": 9, "m": (4, 2, 1)}),
    "cc": ("cc", ["x"], {"k": 10}),
    "cc, period": ("cc", ["x"], {"k": 7, "knots": [-1.0, 12.0]}),
    "cp": ("cp", ["x"], {"k": 10}),
    "cp, least": ("cp", ["x"], {"k": 3}),
    "cp, ridge": ("cp", ["x"], {"k": 7, "m": (1, 0)}),
    "ts": ("ts", ["x"], {"k": 10}),
    "ts of two": ("ts", ["x", "z"], {"k": 20}),
    "cs": ("cs", ["x"], {"k": 10}),
    "ad": ("ad", ["x"], {"k": 12}),
    "ad, line": ("ad", ["x"], {"k": 12, "m": 2}),
    "gp": ("gp", ["x"], {"k": 10}),
    "gp, spherical": ("gp", ["x"], {"k": 8, "m": 1}),
    "gp, no trend": ("gp", ["x"], {"k": 8, "m": -4}),
    "gp of two": ("gp", ["x", "z"], {"k": 20}),
}
ON_A_LINE = [name for name, (_, covariates, _) in CASES.items() if covariates == ["x"]]
CYCLIC = [name for name in ON_A_LINE if name.startswith(("cc", "cp"))]
# Outside of the data a line goes on; a period repeats and a Gaussian process returns to its trend.
LINEAR_OUTSIDE = [name for name in ON_A_LINE if not name.startswith(("cc", "cp", "gp"))]
# mgcv's penalty scale sees the units of the trend of gp; knots have the units of x.
# The first penalty of ad, which is the one fitted with here, is about the left end.
UNITS = {"gp", "gp, spherical", "cc, period", "ad"}
WITHOUT_UNITS = [name for name in ON_A_LINE if name not in UNITS]


def covariates(name):
    columns = DATA[CASES[name][1]].to_numpy()
    return columns[:, 0] if columns.shape[1] == 1 else columns


def construct(name, x=None):
    bs, _, options = CASES[name]
    return basis.construct(bs, covariates(name) if x is None else x, label=name, **options)


def penalised_fit(columns, S, y, lam=1.0):
    """Fitted coefficients and edf of min |y - X c|^2 + lam c' S c."""
    gram = columns.T @ columns
    penalised = gram + lam * S
    return np.linalg.solve(penalised, columns.T @ y), np.trace(np.linalg.solve(penalised, gram))


def scaled_fit(built, x, y, lam=1.0):
    """Fitted values with the penalty on mgcv's scale."""
    columns = built.evaluate(x)
    S = basis.scale_penalty(columns, built.penalties[0])
    return columns @ penalised_fit(columns, S, y, lam)[0]


def test_every_registered_basis_is_in_the_table():
    assert {bs for bs, _, _ in CASES.values()} == set(basis.registered())


@pytest.mark.parametrize("name", CASES)
def test_columns_are_finite_float64_of_full_rank(name):
    built = construct(name)
    columns = built.evaluate(covariates(name))
    assert columns.shape == (len(DATA), built.k)
    assert columns.dtype == np.float64
    assert columns.flags.c_contiguous
    assert np.isfinite(columns).all()
    assert np.linalg.matrix_rank(columns) == built.k


@pytest.mark.parametrize("name", CASES)
def test_penalties_are_symmetric_positive_and_of_the_stated_rank(name):
    built = construct(name)
    total = sum(S / np.abs(S).max() for S in built.penalties)
    np.testing.assert_array_equal(total, total.T)
    eigenvalues = np.linalg.eigvalsh(total)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    assert np.sum(eigenvalues > 1e-10 * eigenvalues[-1]) == built.k - built.null_dim


@pytest.mark.parametrize("name", CASES)
def test_constants_are_in_the_span(name):
    columns = construct(name).evaluate(covariates(name))
    coef = np.linalg.lstsq(columns, np.ones(len(columns)))[0]
    np.testing.assert_allclose(columns @ coef, 1.0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in ON_A_LINE if name != "ps, linear"])
def test_polynomials_of_the_null_space_are_not_penalised(name):
    built = construct(name)
    columns = built.evaluate(X)
    for degree in range(built.null_dim):
        target = (X / 10.0) ** degree
        coef = np.linalg.lstsq(columns, target)[0]
        np.testing.assert_allclose(columns @ coef, target, atol=1e-9)
        for S in built.penalties:
            # Relative to the penalty of a function of the same size that is not a polynomial.
            assert coef @ S @ coef < 1e-12 * np.abs(S).max() * (coef @ coef)


@pytest.mark.parametrize("name", CASES)
def test_a_row_alone_gives_the_same_columns(name):
    built, x = construct(name), covariates(name)
    alone = np.concatenate([built.evaluate(x[i : i + 1]) for i in range(40)])
    # Sums over knots in another order; the knots' values are of order 1.
    np.testing.assert_allclose(alone, built.evaluate(x)[:40], atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_chunks_of_rows_do_not_show(name, monkeypatch):
    built, x = construct(name), covariates(name)
    whole = built.evaluate(x)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 7 * built.k)
    np.testing.assert_allclose(built.evaluate(x), whole, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_order_of_the_rows_does_not_matter(name):
    x = covariates(name)
    order = np.random.default_rng(0).permutation(len(x))
    fit = scaled_fit(construct(name), x, Y)
    permuted = scaled_fit(construct(name, x[order]), x[order], Y[order])
    np.testing.assert_allclose(permuted, fit[order], atol=1e-8)


@pytest.mark.parametrize("name", WITHOUT_UNITS)
@pytest.mark.parametrize(("slope", "shift"), [(1e4, 0.0), (-0.003, 0.0), (1.0, 2e5)])
def test_rescaled_covariate_gives_the_same_fit(name, slope, shift):
    # The penalty on the null space of cs, as mgcv's, starts at the first knot: no mirror image.
    slope = abs(slope) if name == "cs" else slope
    fit = scaled_fit(construct(name), X, Y)
    moved = slope * X + shift
    # At shift 2e5 the covariate itself is only given to 3e-11 of its range.
    np.testing.assert_allclose(scaled_fit(construct(name, moved), moved, Y), fit, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in LINEAR_OUTSIDE if name != "tp, quintic"])
def test_extrapolation_is_linear_and_smooth(name):
    built = construct(name)
    low, high, span = X.min(), X.max(), np.ptp(X)
    for end, away in ((low, -span), (high, span)):
        steps = end + away * np.array([0.01, 0.51, 1.01, 5.01])
        near, half, one, far = built.evaluate(steps)
        np.testing.assert_allclose(half - near, one - half, atol=1e-9)
        np.testing.assert_allclose(far - near, 10.0 * (half - near), atol=1e-8)
        # Continuous across the end of the data.
        across = built.evaluate(end + away * np.array([-1e-9, 1e-9]))
        np.testing.assert_allclose(across[0], across[1], atol=1e-6)


def test_linear_extrapolation_continues_value_and_slope():
    for name in ("tp", "cr", "ps", "bs", "bs, two penalties"):
        built = construct(name)
        end = built.knots[built.degree if name[1] == "s" else 0]
        h = 1e-6
        inside = built.evaluate(np.array([end, end + h, end + 2 * h]))
        slope = (-3 * inside[0] + 4 * inside[1] - inside[2]) / (2 * h)
        outside = built.evaluate(np.array([end - 1.0]))[0]
        # The slope comes from differences of step 1e-6.
        np.testing.assert_allclose(outside, inside[0] - slope, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("ps", "ps"),
        ("ps_m1", "ps, first differences"),
        ("ps_lin", "ps, linear"),
        ("cr", "cr"),
        ("bs", "bs"),
        ("cc", "cc"),
        ("cp", "cp"),
    ],
)
def test_knots_columns_and_penalty_are_those_of_mgcv(case, name):
    built, expected = construct(name), CHECK["models"][case]
    if name in CYCLIC:
        inner = slice(3, -3) if name == "cp" else slice(None)
        np.testing.assert_allclose(built.spline.knots[inner], expected["knots"], atol=1e-10)
    else:
        np.testing.assert_allclose(built.knots, expected["knots"], atol=1e-10)
    at = np.array(expected["at_x"])
    np.testing.assert_allclose(built.evaluate(at), expected["X"], atol=1e-8)
    np.testing.assert_allclose(built.penalties[0], expected["S"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("ps", "ps"),
        ("ps_m1", "ps, first differences"),
        ("ps_lin", "ps, linear"),
        ("cr", "cr"),
        ("tp", "tp"),
        ("bs", "bs"),
        ("cc", "cc"),
        ("cp", "cp"),
    ],
)
def test_penalised_fits_are_those_of_mgcv(case, name):
    built, expected = construct(name), CHECK["models"][case]
    columns, at = built.evaluate(X), built.evaluate(np.array(expected["at_x"]))
    for fit in expected["fits"]:
        coef, edf = penalised_fit(columns, built.penalties[0], Y, fit["lambda"])
        np.testing.assert_allclose(at @ coef, fit["fitted_at_x"], atol=1e-8)
        assert edf == pytest.approx(fit["edf"], abs=1e-8)


def test_smooth_with_intercept_is_the_gam_of_mgcv():
    expected = CHECK["gam_tp"]
    built = construct("tp")
    raw = built.evaluate(X)
    Z = basis.centre(raw.sum(axis=0))
    columns = np.column_stack([np.ones(len(X)), raw @ Z])
    S = np.zeros((built.k, built.k))
    S[1:, 1:] = Z.T @ basis.scale_penalty(raw, built.penalties[0]) @ Z
    coef, edf = penalised_fit(columns, S, Y, expected["sp"])
    at = built.evaluate(np.array(expected["grid"]["x"])) @ Z
    cov = expected["scale"] * np.linalg.inv(columns.T @ columns + expected["sp"] * S)
    se = np.sqrt(np.einsum("ij,jk,ik->i", at, cov[1:, 1:], at))
    assert coef[0] == pytest.approx(expected["intercept"], rel=1e-8)
    assert edf - 1.0 == pytest.approx(expected["edf"], rel=1e-8)
    np.testing.assert_allclose(at @ coef[1:], expected["grid"]["effect"], atol=1e-8)
    np.testing.assert_allclose(se, expected["grid"]["se"], rtol=1e-7)


@pytest.mark.parametrize("bs", ["tp", "ps", "cr"])
def test_penalty_scale_on_mcycle_is_that_of_mgcv(bs):
    for smooth in SCALES["mcycle_gaulss"][bs]:
        built = basis.construct(bs, TIMES, k=smooth["bs_dim"])
        scale = basis.penalty_scale(built.evaluate(TIMES), built.penalties[0])
        assert scale == pytest.approx(smooth["S_scale"], rel=1e-8)


@pytest.mark.parametrize("bs", ["tp", "ps", "cr"])
def test_penalty_scale_on_gamsim_is_that_of_mgcv(bs):
    data = pd.read_csv(REFERENCE / "gamsim1.csv")
    for smooth in SCALES["gamsim_normal"][bs]:
        x = data[smooth["term"]].to_numpy()
        # mgcv's thin plate spline takes up to 2000 knots, ours 200: give it all of them.
        built = basis.construct(bs, x, k=smooth["bs_dim"], knots=x if bs == "tp" else None)
        scale = basis.penalty_scale(built.evaluate(x), built.penalties[0])
        assert scale == pytest.approx(smooth["S_scale"], rel=1e-8)
        if bs != "tp":
            np.testing.assert_allclose(built.knots, smooth["knots"], atol=1e-10)


@pytest.mark.parametrize(
    ("scale", "names", "options"),
    [
        ("x_m1", ["x"], {"k": 10, "m": 1}),
        ("x_m3", ["x"], {"k": 10, "m": 3}),
        ("x_knots", ["x"], {"k": 6, "knots": np.linspace(0.0, 10.0, 15)}),
        ("xz", ["x", "z"], {"k": 20}),
        ("xz_default", ["x", "z"], {}),
        ("xz_m3", ["x", "z"], {"k": 20, "m": 3}),
        ("xzw", ["x", "z", "w"], {"k": 30}),
    ],
)
def test_thin_plate_scale_is_that_of_mgcv(scale, names, options):
    x = DATA[names].to_numpy()
    built = basis.construct("tp", x, **options)
    ours = basis.penalty_scale(built.evaluate(x), built.penalties[0])
    # The penalised part of the basis depends on eigenvectors whose gaps are small.
    assert ours == pytest.approx(MGCV["scales"][scale], rel=1e-7)


@pytest.mark.parametrize("bs", ["tp", "cr", "ps"])
def test_extrapolated_fits_are_those_of_mgcv(bs):
    built = basis.construct(bs, X, k=6)
    coef, _ = penalised_fit(built.evaluate(X), built.penalties[0], Y)
    outside = built.evaluate(np.array(MGCV["outside"]["x"]))
    np.testing.assert_allclose(outside @ coef, MGCV["outside"]["fitted"][bs], atol=1e-8)


def test_other_knots_of_ps_are_those_of_mgcv():
    ends = basis.construct("ps", X, k=8, knots=[0.0, 12.0])
    np.testing.assert_allclose(ends.knots, MGCV["knots"]["ps_ends"], atol=1e-10)
    m1 = basis.construct("ps", X, k=8, m=1)
    np.testing.assert_allclose(m1.knots, MGCV["knots"]["ps_m1"], atol=1e-10)
    again = basis.construct("ps", X, k=8, knots=ends.knots)
    np.testing.assert_array_equal(again.knots, ends.knots)


def test_constraint_is_that_of_mgcv():
    built = basis.construct("cr", X, k=6)
    columns = built.evaluate(X)
    Z = basis.centre(columns.sum(axis=0))
    S = Z.T @ basis.scale_penalty(columns, built.penalties[0]) @ Z
    np.testing.assert_allclose((columns @ Z)[[0, 99, 199]], MGCV["centred"]["X"], atol=1e-10)
    np.testing.assert_allclose(S, MGCV["centred"]["S"], atol=1e-10)
    np.testing.assert_allclose((columns @ Z).sum(axis=0), 0.0, atol=1e-11)


@pytest.mark.parametrize("k", [4, 10, 40])
def test_thin_plate_by_pieces_is_its_radial_form(k):
    radial = thinplate.radial_thin_plate(base.Request("tp", TIMES[:, None], k, None, None, ""))
    pieces = basis.construct("tp", TIMES, k=k)
    at = np.linspace(-20.0, 90.0, 2001)
    expected = radial.evaluate(at)
    size = np.abs(expected).max(axis=0)
    assert isinstance(pieces, basis.NaturalCubic)
    np.testing.assert_allclose(pieces.evaluate(at) / size, expected / size, atol=1e-10)
    np.testing.assert_array_equal(pieces.penalties[0], radial.penalties[0])


@pytest.mark.parametrize("name", ["tp", "tp, more coefficients", "cr"])
def test_penalty_is_the_integral_of_the_squared_second_derivative(name):
    built = construct(name)
    h, g = np.diff(built.knots), built.curvatures
    # The curvature is linear between knots, so Simpson's rule is exact.
    middle = 0.5 * (g[:-1] + g[1:])
    ends = [np.einsum("i,ij,ik->jk", h, part, part) for part in (g[:-1], g[1:])]
    integral = (ends[0] + 4.0 * np.einsum("i,ij,ik->jk", h, middle, middle) + ends[1]) / 6.0
    scale = np.abs(integral).max()
    np.testing.assert_allclose(built.penalties[0] / scale, integral / scale, atol=1e-10)


@pytest.mark.parametrize("lam", [0.01, 1.0])
def test_full_thin_plate_is_the_smoothing_spline(lam):
    x = np.unique(np.round(X, 1))
    y = np.sin(x)
    built = basis.construct("tp", x, k=len(x))
    columns = built.evaluate(x)
    coef, _ = penalised_fit(columns, built.penalties[0], y, lam)
    expected = make_smoothing_spline(x, y, lam=lam)(x)
    np.testing.assert_allclose(columns @ coef, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["ps", "ps, linear", "ps, ridge", "bs", "cp", "cp, least"])
def test_b_splines_sum_to_one_also_outside(name):
    at = np.linspace(-30.0, 40.0, 301)
    np.testing.assert_allclose(construct(name).evaluate(at).sum(axis=1), 1.0, atol=1e-12)


def test_cubic_regression_coefficients_are_values_at_the_knots():
    built = construct("cr")
    np.testing.assert_allclose(built.evaluate(built.knots), np.eye(built.k), atol=1e-14)
    expected = np.quantile(np.unique(X), np.linspace(0.0, 1.0, built.k))
    np.testing.assert_array_equal(built.knots, expected)


def test_columns_of_the_thin_plate_have_unit_mean_square():
    for name in (name for name in CASES if name.startswith("tp")):
        columns = construct(name).evaluate(covariates(name))
        np.testing.assert_allclose((columns**2).mean(axis=0), 1.0, rtol=1e-9)


@pytest.mark.parametrize("bs", ["tp", "cr", "ps"])
def test_default_size_is_ten(bs):
    assert basis.construct(bs, X).k == 10


def test_default_size_of_two_dimensions_is_thirty():
    assert basis.construct("tp", DATA[["x", "z"]].to_numpy()).k == 30


def test_thin_plate_of_many_values_is_close_to_the_one_on_all_of_them():
    data = pd.read_csv(REFERENCE / "gamsim1.csv")
    x, y = data["x2"].to_numpy(), data["y"].to_numpy()
    some, every = basis.construct("tp", x, k=10), basis.construct("tp", x, k=10, knots=x)
    assert (len(some.knots), len(every.knots)) == (thinplate.MAX_KNOTS_1D, len(x))
    fits = [scaled_fit(built, x, y) for built in (some, every)]
    # Both are rank 10 approximations of one space: 1 % of the range is the bar of issue 2.
    np.testing.assert_allclose(fits[0], fits[1], atol=0.005 * np.ptp(fits[1]))


def test_thin_plate_of_many_points_takes_the_same_sample_each_time(monkeypatch):
    monkeypatch.setattr(thinplate, "MAX_KNOTS", 50)
    points = DATA[["x", "z"]].to_numpy()
    first, second = (basis.construct("tp", points, k=12) for _ in range(2))
    assert first.knots.shape == (50, 2)
    np.testing.assert_array_equal(first.evaluate(points), second.evaluate(points))


def test_lanczos_and_full_decomposition_agree(monkeypatch):
    fits = []
    for limit in (10, 10_000):
        monkeypatch.setattr(thinplate, "LANCZOS_KNOTS", limit)
        fits.append(scaled_fit(construct("tp"), X, Y))
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-9)


def test_rounding_twins_are_one_knot():
    x = np.concatenate([np.linspace(0.0, 0.3, 13), [0.1 + 0.2, 0.1 * 3]])
    built = basis.construct("tp", x, k=5)
    assert len(built.knots) == 13
    assert np.abs(built.evaluate(np.array([0.6]))).max() < 50.0


@settings(deadline=None, max_examples=40)
@given(
    bs=st.sampled_from(["tp", "cr", "ps"]),
    k=st.integers(4, 15),
    n=st.integers(16, 80),
    seed=st.integers(0, 10_000),
)
def test_lines_are_fitted_exactly_at_any_smoothing_parameter(bs, k, n, seed):
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.0, size=n)
    built = basis.construct(bs, x, k=k)
    y = 2.0 - 3.0 * x
    fit = scaled_fit(built, x, y, lam=10.0 ** rng.uniform(-3.0, 3.0))
    np.testing.assert_allclose(fit, y, atol=1e-6 * np.ptp(y))


@pytest.mark.parametrize(
    ("bs", "options", "message"),
    [
        ("ps", {"k": 3}, r"^s\(a\): basis 'ps' needs k >= 4 \(degree \+ 1\), got 3\.$"),
        ("ps", {"k": 4, "m": (0, 4)}, r"needs k > 4 \(order of the differences\), got 4"),
        ("ps", {"m": (2, 2, 2)}, r"needs m = \(order of the basis, .* got \(2, 2, 2\)"),
        ("ps", {"m": -1}, "both at least 0, got -1"),
        ("ps", {"knots": [0.0, 1.0, 2.0]}, r"takes 2 knots .* or all 14 .* got 3"),
        ("ps", {"knots": [1.0, 1.0]}, "knots of basis 'ps' must differ"),
        ("cr", {"k": 2}, r"needs k >= 3 \(two ends and a knot between\), got 2"),
        ("cr", {"k": 4, "knots": [0.0, 1.0, 2.0]}, "with k = 4 needs 4 knots, got 3"),
        ("cr", {"knots": [0.0, 1.0, 1.0]}, "knots of basis 'cr' must differ"),
        ("tp", {"k": 2}, r"needs k >= 3 \(2 for the polynomials .*\), got 2"),
        ("tp", {"k": 300}, "with k = 300 needs at least 300 unique values, the data have 200"),
        ("tp", {"m": 0}, r"needs one number m > 0\.5, got m = 0"),
        ("tp", {"m": (2, 1)}, r"got m = \(2, 1\)"),
        ("tp", {"m": (1.5,)}, r"m of basis 'tp' must be whole numbers, got \(1\.5,\)"),
        ("tp", {"k": 5, "knots": [0.0, 1.0]}, "with k = 5 needs k knots, got 2"),
        ("tp", {"knots": np.ones((20, 2))}, r"needs knots of shape \(n_knots, 1\), got \(20, 2\)"),
        (
            "pp",
            {},
            r"unknown basis 'pp'; .*known: 'ad', 'bs', 'cc', 'cp', 'cr', .*'ps', 'tp', 'ts'",
        ),
    ],
)
def test_user_errors_name_the_term(bs, options, message):
    with pytest.raises(FormulaError, match=message) as caught:
        basis.construct(bs, X, label="s(a)", **options)
    assert str(caught.value).startswith("s(a): ")


@pytest.mark.parametrize("bs", ["cr", "tp", "cc", "cs", "ts"])
def test_too_few_unique_values_are_refused(bs):
    with pytest.raises(FormulaError, match="needs at least 10 unique values, the data have 7"):
        basis.construct(bs, np.arange(70.0) % 7.0)


def test_p_splines_need_two_unique_values_only():
    built = basis.construct("ps", np.arange(70.0) % 7.0)
    assert built.k == 10
    with pytest.raises(FormulaError, match="needs at least 2 unique values, the data have 1"):
        basis.construct("ps", np.ones(20))


@pytest.mark.parametrize("bs", ["cr", "ps", "bs", "cc", "cp", "cs"])
def test_bases_of_a_line_refuse_a_plane(bs):
    with pytest.raises(FormulaError, match="takes one covariate, got 2"):
        basis.construct(bs, DATA[["x", "z"]].to_numpy())


def test_few_unique_points_are_refused():
    points = np.tile(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 0.5]]), (10, 1))
    with pytest.raises(FormulaError, match="30 unique combinations of values, the data have 4"):
        basis.construct("tp", points)
