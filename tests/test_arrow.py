"""Arrow matrices against dense NumPy: products, factor, inverse, traces; columns by level."""

import numpy as np
import pytest
import scipy.linalg

from deepregress.crossproducts import JointColumns
from deepregress.disk import arrow
from deepregress.disk.arrow import Arrow, ArrowFactor, Inverse, Layout
from deepregress.errors import FitError, PredictionError
from deepregress.inference.level_tests import Blocks
from deepregress.model_matrix import LevelColumns, ModelMatrix, Reduced, stacked

SHAPES = [(5, 1, 4), (7, 2, 3), (4, 3, 1), (6, 2, 0)]


def layout(n_levels, q, p, *, absent=0):
    """Level entries scattered over the joint vector; `absent` entries are in neither part."""
    n = n_levels * q + p + absent
    order = np.random.default_rng(n).permutation(n)
    levels = order[: n_levels * q].reshape(n_levels, q)
    return Layout(n, np.sort(order[n_levels * q : n_levels * q + p]), levels)


def positive(n_levels, q, p, *, absent=0, seed=0):
    """A positive definite arrow and the dense matrix that it is."""
    rng = np.random.default_rng(seed)
    own = layout(n_levels, q, p, absent=absent)
    rows = rng.normal(size=(n_levels, 3 * (q + p) + 3, q + p))
    D = np.einsum("lia,lib->lab", rows[:, :, :q], rows[:, :, :q])
    B = np.einsum("lia,lip->lap", rows[:, :, :q], rows[:, :, q:])
    A = np.einsum("lip,lir->pr", rows[:, :, q:], rows[:, :, q:]) + np.eye(p)
    P = Arrow(own, A, B, D)
    dense = np.zeros((own.n_coef, own.n_coef))
    dense[np.ix_(own.dense, own.dense)] = A
    for level, places in enumerate(own.levels):
        dense[np.ix_(places, places)] = D[level]
        dense[np.ix_(places, own.dense)] = B[level]
        dense[np.ix_(own.dense, places)] = B[level].T
    return P, dense


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("absent", [0, 2])
def test_matrix_operations(shape, absent):
    P, dense = positive(*shape, absent=absent)
    rng = np.random.default_rng(1)
    n = len(dense)
    b = rng.normal(size=n)
    np.testing.assert_allclose(P.matrix(), dense)
    np.testing.assert_allclose(P.diagonal(), np.diagonal(dense))
    np.testing.assert_allclose(P.times(b), dense @ b, atol=1e-12)
    rows, columns = rng.permutation(n)[: n // 2], rng.permutation(n)[: n // 3]
    np.testing.assert_allclose(P.block(rows, columns), dense[np.ix_(rows, columns)])
    for entry in P.layout.dense:
        np.testing.assert_allclose(P.column(entry), dense[:, entry])
    other, dense_other = positive(*shape, absent=absent, seed=5)
    np.testing.assert_allclose((P + other).matrix(), dense + dense_other)
    diagonal = np.where(np.isin(np.arange(n), P.layout.places), rng.random(n), 0.0)
    np.testing.assert_allclose(Arrow.of_diagonal(P.layout, diagonal).matrix(), np.diag(diagonal))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("absent", [0, 2])
def test_factor_and_inverse(shape, absent):
    P, dense = positive(*shape, absent=absent)
    inside = np.sort(P.layout.places)
    block = np.ix_(inside, inside)
    expected = np.zeros_like(dense)
    expected[block] = np.linalg.inv(dense[block])
    factor = ArrowFactor.of(P)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(dense[block])[1], rel=1e-12)
    b = np.random.default_rng(2).normal(size=len(dense))
    np.testing.assert_allclose(factor.solve(b), expected @ b, atol=1e-10)
    V = factor.inverse()
    np.testing.assert_allclose(V.matrix(), expected, atol=1e-10)
    np.testing.assert_allclose(V.diagonal(), np.diagonal(expected), atol=1e-10)
    every = np.arange(len(dense))
    some = np.random.default_rng(3).permutation(every)[: len(every) // 2]
    np.testing.assert_allclose(V.block(some, every), expected[some], atol=1e-10)
    for level, places in enumerate(P.layout.levels):
        own = expected[np.ix_(places, places)]
        np.testing.assert_allclose(V.level_blocks()[level], own, atol=1e-10)


def test_what_is_integrated_out():
    P, dense = positive(5, 2, 4)
    U = scipy.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)), mode="economic")[0]
    whole = np.zeros((len(dense), 12))
    whole[P.layout.dense, :2] = U
    whole[P.layout.levels.ravel(), 2:] = np.eye(10)
    inner = whole.T @ dense @ whole
    factor = ArrowFactor.of(P).on(U)
    assert factor.logdet() == pytest.approx(np.linalg.slogdet(inner)[1], rel=1e-12)
    expected = whole @ np.linalg.inv(inner) @ whole.T
    np.testing.assert_allclose(factor.inverse().matrix(), expected, atol=1e-10)


def test_a_smaller_layout():
    P, dense = positive(6, 3, 4)
    kept = np.sort(np.concatenate([P.layout.dense[[0, 2]], P.layout.levels[:, [0, 2]].ravel()]))
    small = P.layout.restrict(kept)
    expected = np.zeros_like(dense)
    expected[np.ix_(kept, kept)] = dense[np.ix_(kept, kept)]
    np.testing.assert_allclose(P.restrict(small).matrix(), expected)
    assert P.layout.restrict(np.arange(len(dense))) is P.layout
    only_dense = P.layout.restrict(P.layout.dense)
    assert not only_dense.levels.size
    solved = ArrowFactor.of(P.restrict(only_dense)).solve(np.ones(len(dense)))
    np.testing.assert_allclose(solved[P.layout.dense], np.linalg.solve(P.A, np.ones(4)))


def test_what_is_not_positive_definite_is_not_factored():
    P, _ = positive(5, 2, 3)
    for D in (-P.D, np.ones_like(P.D), np.full_like(P.D, np.nan)):
        assert ArrowFactor.of(Arrow(P.layout, P.A, P.B, D)) is None
    factor = ArrowFactor.of(P)
    # the Schur complement is nothing but rounding: as many directions as rows
    singular = Arrow(P.layout, P.A - factor.T, P.B, P.D)
    assert ArrowFactor.of(singular) is None


def test_draws_have_the_covariance():
    P, _ = positive(5, 2, 3)
    V = ArrowFactor.of(P).inverse()
    draws = V.sample(200_000, seed=0)
    expected = V.matrix()
    scale = np.sqrt(np.diagonal(expected))
    error = np.abs(draws.T @ draws / len(draws) - expected) / np.outer(scale, scale)
    # standard error of a correlation from so many draws: 0.002
    assert error.max() < 0.015


def test_large_matrices_are_refused(monkeypatch):
    P, _ = positive(5, 2, 3)
    V = ArrowFactor.of(P).inverse()
    monkeypatch.setattr(arrow, "LARGEST", 13 * 13 * 8 - 1)
    with pytest.raises(PredictionError, match="covariance matrix of these coefficients takes"):
        V.matrix()
    assert V.block(np.arange(12), np.arange(12)).shape == (12, 12)


def test_blocks_and_a_part_of_low_rank():
    P, _ = positive(7, 2, 3)
    V = ArrowFactor.of(P).inverse()
    blocks = Blocks(V.G, V.C, V.V)
    dense = blocks.matrix()
    np.testing.assert_allclose(dense, V.block(V.layout.levels.ravel(), V.layout.levels.ravel()))
    X = np.random.default_rng(0).normal(size=(7, 2, 4))
    expected = np.linalg.solve(dense, X.reshape(14, 4)).reshape(7, 2, 4)
    np.testing.assert_allclose(blocks.solve(X), expected, atol=1e-9)
    K = np.random.default_rng(1).normal(size=(7, 2, 2))
    product = np.linalg.solve(dense, scipy.linalg.block_diag(*K))
    expected = np.stack([product[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] for i in range(7)])
    np.testing.assert_allclose(blocks.solve_blocks(K), expected, atol=1e-9)


def columns(n=40, seed=0):
    """Two predictors: dense columns, a factor in both, a slope, and a crossed factor."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 6, n), rng.integers(0, 4, n)
    one = np.ones((n, 1))
    first = ModelMatrix(
        rng.normal(size=(n, 3)),
        (
            LevelColumns(2, 6, g, np.column_stack([one, rng.normal(size=n)])),
            LevelColumns(14, 4, h, one),
        ),
    )
    second = ModelMatrix(rng.normal(size=(n, 2)), (LevelColumns(0, 6, g.copy(), one),))
    return first, second


def test_columns_by_level_are_columns():
    first, _ = columns()
    dense = first.toarray()
    g = first.levels[0]
    expected = np.zeros((40, 6, 2))
    expected[np.arange(40), g.codes] = g.values
    np.testing.assert_array_equal(dense[:, 2:14], expected.reshape(40, 12))
    np.testing.assert_array_equal(dense[:, 2:14], g.toarray())
    rng = np.random.default_rng(1)
    coef, weights = rng.normal(size=19 - 1 + 3), rng.normal(size=40)
    coef = coef[: first.n_coef]
    np.testing.assert_allclose(first.times(coef), dense @ coef)
    np.testing.assert_allclose(g.cross(weights), dense[:, 2:14].T @ weights)
    some = np.array([0, 3, 4, 13, 15, 18])
    np.testing.assert_array_equal(first.columns(some), dense[:, some])
    kept = np.array([1, *range(14, 18)])
    np.testing.assert_array_equal(first.select(kept).toarray(), dense[:, kept])
    without = dense.copy()
    without[:, 2:14] = 0.0
    np.testing.assert_array_equal(first.without(slice(2, 14)).toarray(), without)
    without[:, 0] = 0.0
    np.testing.assert_array_equal(
        first.without(slice(2, 14)).without(slice(0, 1)).toarray(), without
    )
    np.testing.assert_array_equal(
        stacked([first.take(slice(0, 9)), first.take(slice(9, 40))]).toarray(), dense
    )


def test_rows_of_no_level_have_no_effect():
    codes = np.array([0, -1, 2])
    levels = LevelColumns(0, 3, codes, np.array([[1.0], [5.0], [2.0]]))
    np.testing.assert_array_equal(levels.times(np.array([1.0, 2.0, 3.0])), [1.0, 0.0, 6.0])
    np.testing.assert_array_equal(levels.cross(np.ones(3)), [1.0, 0.0, 2.0])
    np.testing.assert_array_equal(levels.toarray()[1], 0.0)


def test_cross_products_of_chunks_are_those_of_dense_columns():
    units = columns()
    joint = JointColumns.of(units)
    assert joint.layout.levels.shape == (6, 3), "the factor of both predictors is set apart"
    W = np.random.default_rng(3).normal(size=(40, 3))
    total = joint.total()
    for rows in (slice(0, 25), slice(25, 40)):
        total.add(joint.rows(rows).products(W[rows]))
    Z = [unit.toarray() for unit in units]
    expected = np.block(
        [
            [Z[0].T @ (W[:, [0]] * Z[0]), Z[0].T @ (W[:, [1]] * Z[1])],
            [Z[1].T @ (W[:, [1]] * Z[0]), Z[1].T @ (W[:, [2]] * Z[1])],
        ]
    )
    np.testing.assert_allclose(total.arrow().matrix(), expected, atol=1e-12)


@pytest.mark.parametrize("held", [False, True])
def test_row_wise_variances(held):
    units = columns()
    joint = JointColumns.of(units)
    n = joint.layout.n_coef
    W = np.tile([1.0, 0.2, 1.0], (40, 1))
    total = joint.total()
    total.add(joint.rows(slice(0, 40)).products(W))
    P = total.arrow() + Arrow.of_diagonal(joint.layout, np.ones(n))
    kept = np.delete(np.arange(n), joint.layout.dense[-1]) if held else np.arange(n)
    V = ArrowFactor.of(P.restrict(joint.layout.restrict(kept))).inverse()
    Z = [unit.toarray() for unit in units]
    places = [np.arange(Z[0].shape[1]), Z[0].shape[1] + np.arange(Z[1].shape[1])]
    rows = [Reduced.of(u, place, V) for u, place in zip(units, places, strict=True)]
    for k, m in ((0, 0), (0, 1), (1, 1)):
        expected = np.einsum("ij,jk,ik->i", Z[k], V.matrix()[np.ix_(places[k], places[m])], Z[m])
        np.testing.assert_allclose(rows[k].variance(rows[m], V), expected, atol=1e-12)


def test_a_crossed_factor_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("deepregress.crossproducts.LARGEST", 1000)
    with pytest.raises(FitError, match="random effects leave 9 coefficients beside the 18"):
        JointColumns.of(columns())


def test_a_dense_matrix_is_an_arrow_without_levels():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    P = root @ root.T + np.eye(8)
    factor = ArrowFactor.of(Arrow.dense(P))
    V = factor.inverse()
    np.testing.assert_allclose(V.matrix(), np.linalg.inv(P), atol=1e-12)
    assert Inverse.dense(P).matrix() is P
    np.testing.assert_allclose(factor.solve(root[0]), np.linalg.solve(P, root[0]), atol=1e-12)
