"""Tensor products: the contract of every combination of margins, and mgcv's `te` and `ti`.

`data/reference/bases.json` and `bases_gams.json` hold mgcv's numbers, with their origin.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

from deepregress import basis
from deepregress.basis import base, tensor
from deepregress.errors import FormulaError
from deepregress.penalty import Quadratic

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
MGCV = json.loads((REFERENCE / "bases.json").read_text())
RAW = json.loads((REFERENCE / "basis_check.json").read_text())["models"]["te_raw"]
GAMS = json.loads((REFERENCE / "bases_gams.json").read_text())["models"]
AT = pd.DataFrame(MGCV["at"])
DATA = pd.read_csv(REFERENCE / "basis.csv").assign(w=lambda d: np.sin(7 * d.x + 3 * d.z))
SURFACE = pd.read_csv(REFERENCE / "gamsim2.csv")
Y = DATA["y"].to_numpy()
PS = {"bs": "ps"}

# Case of mgcv: (covariates, options of the margins, options of the product).
CASES = {
    "te": ("xz", {}, {}),
    "te_sizes": ("xz", {"bs": ("ps", "cr"), "k": (6, 4)}, {}),
    "te_ps": ("xz", PS, {"function_values": False}),
    "te_m": ("xz", {"bs": "ps", "k": 6, "m": ((2, 1), (1, 2))}, {}),
    "te_tp": ("xz", {"bs": "tp", "k": (6, 5)}, {}),
    "te_bs": ("xz", {"bs": "bs"}, {}),
    "te_cc": ("xz", {"bs": ("cc", "cr"), "k": (6, 4), "knots": ([0.0, 12.0], None)}, {}),
    "te_cp": ("xz", {"bs": ("cp", "ps"), "k": (6, 5)}, {}),
    "te_shrunk": ("xz", {"bs": "ts"}, {}),
    "te_gp": ("xz", {"bs": "gp"}, {}),
    "te_one": ("x", {"k": 6}, {}),
    "te_three": ("xzw", {"k": 3}, {}),
    "te_two_and_one": ("xzw", {"dims": (2, 1), "k": (12, 4)}, {}),
    "te_gp_and_one": ("xwz", {"dims": (2, 1), "bs": ("gp", "ps"), "k": (12, 5)}, {}),
    "ti": ("xz", {}, {"centred": True}),
    "ti_ps": ("xz", {"bs": "ps", "k": (6, 5)}, {"centred": True}),
    "ti_tp": ("xz", {"bs": ("tp", "cr"), "k": (6, 5)}, {"centred": True}),
    "ti_cc": ("xz", {"bs": ("cc", "cr"), "k": (7, 5)}, {"centred": True}),
    "ti_cp": ("xz", {"bs": ("cp", "bs"), "k": (6, 5)}, {"centred": True}),
    "ti_shrunk": ("xz", {"bs": ("ts", "cr"), "k": (6, 5)}, {"centred": True}),
    "ti_gp": ("xz", {"bs": ("gp", "ps"), "k": (6, 5)}, {"centred": True}),
    "ti_plain": ("xz", PS, {"centred": True, "function_values": False}),
    "ti_one": ("x", {"k": 6}, {"centred": True}),
    "ti_two_and_one": ("xzw", {"dims": (2, 1), "k": (12, 4)}, {"centred": True}),
    "ti_three": ("xzw", {"k": (4, 3, 3)}, {"centred": True}),
}
WHOLE = [case for case in CASES if case.startswith("te")]
CENTRED = [case for case in CASES if case.startswith("ti")]


def covariates(case, data=DATA):
    return data[list(CASES[case][0])].to_numpy()


def construct(case, x=None):
    letters, margins, product = CASES[case]
    asked = tensor.marginals(len(letters), **margins)
    return tensor.construct(covariates(case) if x is None else x, asked, label=case, **product)


def scaled_penalty(built, columns, lam):
    scaled = [basis.scale_penalty(columns, S) for S in built.penalties]
    return sum(each * S for each, S in zip(lam, scaled, strict=True))


def scaled_fit(built, x, y):
    columns = built.evaluate(x)
    S = scaled_penalty(built, columns, 10.0 ** -np.arange(len(built.penalties)))
    gram = columns.T @ columns
    coef = np.linalg.solve(gram + S, columns.T @ y)
    return coef, np.trace(np.linalg.solve(gram + S, gram))


def test_every_basis_is_a_margin_in_the_table():
    used = {"cr"}
    for _, margins, _ in CASES.values():
        bs = margins.get("bs", "cr")
        used |= {bs} if isinstance(bs, str) else set(bs)
    # cs differs from cr in the numbers of its penalty only; ad has several penalties.
    assert used == set(basis.registered()) - {"cs", "ad"}


@pytest.mark.parametrize("case", CASES)
def test_columns_are_finite_float64_of_full_rank(case):
    built = construct(case)
    columns = built.evaluate(covariates(case))
    assert columns.shape == (len(DATA), built.k)
    assert columns.dtype == np.float64
    assert columns.flags.c_contiguous
    assert np.isfinite(columns).all()
    assert np.linalg.matrix_rank(columns) == built.k


@pytest.mark.parametrize("case", CASES)
def test_penalties_are_symmetric_positive_and_of_the_stated_rank(case):
    built, expected = construct(case), MGCV["cases"][case]
    assert len(built.penalties) == len(built.margins)
    for S, rank in zip(built.penalties, np.atleast_1d(expected["rank"]), strict=True):
        np.testing.assert_allclose(S, S.T, atol=1e-14)
        # Each margin's penalty was divided by its largest eigenvalue.
        eigenvalues = np.linalg.eigvalsh(S)
        assert eigenvalues[-1] == pytest.approx(1.0, abs=1e-12)
        assert eigenvalues[0] > -1e-12
        assert Quadratic(S, built.k - built.null_dim).project(np.eye(built.k)).rank == rank
    total = np.linalg.eigvalsh(sum(built.penalties))
    assert np.sum(total > 1e-10) == built.k - built.null_dim


@pytest.mark.parametrize("case", CASES)
def test_rows_alone_and_in_chunks_give_the_same_columns(case, monkeypatch):
    built, x = construct(case), covariates(case)
    whole = built.evaluate(x)
    alone = np.concatenate([built.evaluate(x[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, whole[:20], atol=1e-11)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 7 * built.k)
    np.testing.assert_allclose(built.evaluate(x), whole, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_order_of_the_rows_does_not_matter(case):
    x = covariates(case)
    order = np.random.default_rng(0).permutation(len(x))
    fit = construct(case).evaluate(x) @ scaled_fit(construct(case), x, Y)[0]
    permuted = construct(case, x[order])
    again = permuted.evaluate(x) @ scaled_fit(permuted, x[order], Y[order])[0]
    np.testing.assert_allclose(again, fit, atol=1e-8)


@pytest.mark.parametrize("case", ["te", "te_ps", "te_tp", "te_bs", "ti", "ti_ps"])
def test_rescaled_covariates_give_the_same_fit(case):
    x = covariates(case)
    moved = x * [1e3, 0.02] + [50.0, -3.0]
    fit = construct(case).evaluate(x) @ scaled_fit(construct(case), x, Y)[0]
    rescaled = construct(case, moved)
    again = rescaled.evaluate(moved) @ scaled_fit(rescaled, moved, Y)[0]
    np.testing.assert_allclose(again, fit, atol=1e-8)


@pytest.mark.parametrize("case", WHOLE)
def test_constants_and_main_effects_are_in_the_span_of_te(case):
    built, x = construct(case), covariates(case)
    columns = built.evaluate(x)
    for target in (np.ones(len(x)), *(m.evaluate(p)[:, 0] for m, p in _parts(built, x))):
        coef = np.linalg.lstsq(columns, target)[0]
        np.testing.assert_allclose(columns @ coef, target, atol=1e-9 * np.abs(target).max())


@pytest.mark.parametrize("case", CENTRED)
def test_margins_of_ti_are_centred(case):
    built, x = construct(case), covariates(case)
    for margin, part in _parts(built, x):
        columns = margin.evaluate(part)
        np.testing.assert_allclose(columns.mean(axis=0), 0.0, atol=1e-12 * np.abs(columns).max())


def test_ti_spans_no_main_effect_on_a_grid():
    values = np.linspace(0.0, 1.0, 12)
    x = np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)
    columns = tensor.construct(x, tensor.marginals(2), centred=True).evaluate(x)
    for main in (x[:, 0], np.sin(5.0 * x[:, 1]), np.ones(len(x))):
        np.testing.assert_allclose(columns.T @ main, 0.0, atol=1e-10)


def _parts(built, x):
    start = 0
    for margin in built.margins:
        yield margin, x[:, start : start + margin.dim]
        start += margin.dim


@pytest.mark.parametrize("case", ["te_sizes", "te_tp", "te_bs", "te_gp", "te_shrunk", "ti_ps"])
def test_coefficients_are_values_at_a_grid(case):
    built, x = construct(case), covariates(case)
    axes = []
    for margin, part in _parts(built, x):
        k = margin.transform.shape[1]
        of_values = isinstance(margin.basis, basis.NaturalCubic) and k == 4
        axes.append(margin.basis.knots if of_values else np.linspace(part.min(), part.max(), k))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    # The condition of the margins at these points is up to 5e3.
    np.testing.assert_allclose(built.evaluate(grid), np.eye(built.k), atol=1e-9)


@pytest.mark.parametrize("case", ["te", "te_ps", "te_tp", "te_bs", "te_three"])
def test_extrapolation_is_linear_along_each_covariate(case):
    built, x = construct(case), covariates(case)
    for j in range(x.shape[1]):
        steps = np.tile(x.mean(axis=0), (3, 1))
        steps[:, j] = x[:, j].max() + np.ptp(x[:, j]) * np.array([0.5, 1.0, 1.5])
        near, middle, far = built.evaluate(steps)
        np.testing.assert_allclose(middle - near, far - middle, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_mgcv(case):
    built, expected = construct(case), MGCV["cases"][case]
    columns = built.evaluate(covariates(case))
    scales = [basis.penalty_scale(columns, S) for S in built.penalties]
    # The thin plate margins of mgcv carry the rounding errors of its eigenvectors, and the shrunk
    # ones the least eigenvalue of a penalty to 1e-8 of itself.
    rtol = 1e-7 if case == "te_shrunk" else 1e-10
    np.testing.assert_allclose(scales, np.atleast_1d(expected["S_scale"]), rtol=rtol)
    assert (built.k, built.null_dim) == (expected["k"], expected["null_dim"])
    at = built.evaluate(covariates(case, AT))
    coef, edf = scaled_fit(built, covariates(case), Y)
    np.testing.assert_allclose(at @ coef, expected["fitted"], rtol=1e-8, atol=2e-8)
    assert edf == pytest.approx(expected["edf"], abs=5e-8)
    if "X" in expected:
        np.testing.assert_allclose(at, expected["X"], atol=5e-9)
        for ours, theirs in zip(built.penalties, _matrices(expected["S"]), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-10)


def _matrices(stored):
    array = np.asarray(stored)
    return array if array.ndim == 3 else array[None]


def test_raw_product_is_the_oracle():
    x = DATA[["x", "z"]].to_numpy()
    built = tensor.construct(x, tensor.marginals(2, bs="ps"), function_values=False)
    at = np.column_stack([RAW["at"]["x"], RAW["at"]["z"]])
    np.testing.assert_allclose(built.evaluate(at), RAW["X"], atol=1e-12)
    for S, diagonal in zip(built.penalties, (RAW["S1_diag"], RAW["S2_diag"]), strict=True):
        np.testing.assert_allclose(np.diag(S), diagonal, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        ("te_cr", [("xz", {}, {})]),
        ("te_cr_k8", [("xz", {"k": 8}, {})]),
        ("te_ps", [("xz", {"bs": "ps", "k": 8}, {"function_values": False})]),
        ("ti", [(each, {}, {"centred": True}) for each in ("x", "z", "xz")]),
    ],
)
def test_tensor_smooths_are_the_gam_of_mgcv(model, terms):
    expected = GAMS[model]
    columns, penalties, parts = [np.ones((len(SURFACE), 1))], [np.zeros((1, 1))], []
    for (letters, margins, product), smooth in zip(terms, expected["terms"], strict=True):
        x = SURFACE[list(letters)].to_numpy()
        built = tensor.construct(x, tensor.marginals(len(letters), **margins), **product)
        raw = built.evaluate(x)
        scales = [basis.penalty_scale(raw, S) for S in built.penalties]
        np.testing.assert_allclose(scales, np.atleast_1d(smooth["S_scale"]), rtol=1e-12)
        Z = np.eye(built.k) if product.get("centred") else basis.centre(raw.sum(axis=0))
        S = scaled_penalty(built, raw, np.atleast_1d(smooth["sp"]))
        grid = np.column_stack([np.atleast_1d(smooth["x"][name]) for name in letters])
        columns.append(raw @ Z)
        penalties.append(Z.T @ S @ Z)
        parts.append(built.evaluate(grid) @ Z)
    X, S = np.hstack(columns), scipy.linalg.block_diag(*penalties)
    gram = X.T @ X
    coef = np.linalg.solve(gram + S, X.T @ SURFACE["y"].to_numpy())
    shares = np.diag(np.linalg.solve(gram + S, gram))
    covariance = expected["scale"] * np.linalg.inv(gram + S)
    np.testing.assert_allclose((X @ coef)[:20], expected["fitted"], atol=1e-10)
    start = 1
    for at, smooth in zip(parts, expected["terms"], strict=True):
        place = slice(start, start + at.shape[1])
        start += at.shape[1]
        se = np.sqrt(np.einsum("ij,jk,ik->i", at, covariance[place, place], at))
        assert shares[place].sum() == pytest.approx(smooth["edf"], abs=1e-9)
        np.testing.assert_allclose(at @ coef[place], smooth["effect"], atol=1e-10)
        np.testing.assert_allclose(se, smooth["se"], rtol=1e-9)


def test_options_are_spread_over_the_margins():
    asked = tensor.marginals(3, bs=("tp", "cc"), k=(None, 7), m=2, dims=(2, 1))
    assert [(each.bs, each.k, each.m, each.dim) for each in asked] == [
        ("tp", None, 2, 2),
        ("cc", 7, 2, 1),
    ]
    built = tensor.construct(DATA[["x", "z", "w"]].to_numpy(), asked)
    assert [margin.basis.k for margin in built.margins] == [25, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": (5, 5, 5)}, r"^te\(a, b\): k needs one entry for each of the 2 margins, got \(5, 5"),
        ({"bs": ("cr",)}, "bs needs one entry for each of the 2 margins"),
        ({"m": [(2, 2)]}, "m needs one entry for each of the 2 margins"),
        ({"knots": np.zeros(3)}, "knots needs one entry for each of the 2 margins"),
        ({"dims": (2, 1)}, r"d must be counts that sum to the 2 covariates, got \(2, 1\)"),
        ({"dims": (2, 0)}, "d must be counts that sum to the 2 covariates"),
        ({"k": 2}, r"^te\(a, b\): basis 'cr' needs k >= 3"),
        ({"bs": "xx"}, "unknown basis 'xx'"),
        ({"bs": "cr", "dims": (2,)}, "basis 'cr' takes one covariate, got 2"),
        ({"bs": "bs", "k": 6, "m": [(3, 2, 1), 3]}, r"one penalty; m = \(3, 2, 1\) .* asks for 2"),
    ],
)
def test_user_errors_name_the_term(options, message):
    x = DATA[["x", "z"]].to_numpy()
    with pytest.raises(FormulaError, match=message) as caught:
        asked = tensor.marginals(2, label="te(a, b)", **options)
        tensor.construct(x, asked, label="te(a, b)")
    assert str(caught.value).startswith("te(a, b): ")
