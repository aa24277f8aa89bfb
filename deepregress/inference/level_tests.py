"""Tests of terms in models whose Hessian is an arrow: factors with many levels (METHODS 4).

The statistic of a term c is T = b_c' M b_c as in module `significance`, with

    M^-1 = [(Q + S)^-1]_cc,   Q = H + H_r S_rr^-1 H_r'   over c and o, the terms that are not random
    C    = V_cc - V_cn S_nn V_nc,                        n = c and o, r the other random effects

the covariance of b_c where the effect is zero and the r are drawn anew: T is sum_i w_i chi2(1), w
the eigenvalues of M C. Dense r enter (Q + S)^-1 as further variables with the block -S_rr, so that
it is an arrow still. For a term of many levels both matrices are a block for each level and a part
of low rank; w are the eigenvalues of the blocks, all but as many as that rank by interlacing, and
their sum, which is known, sets the level of the rest.

References: Wood (2013), doi:10.1093/biomet/ast038; Golub and Van Loan, "Matrix Computations", 4th
ed. 2013, sec. 2.1.4 (Woodbury) and theorem 8.1.8 (interlacing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deepregress.disk.arrow import Arrow, Inverse
from deepregress.errors import FitError
from deepregress.inference.significance import Test, random_effect_test, weighted_chi2_sf
from deepregress.linalg import Array, Factor, Matrix, Vector
from deepregress.solvers.base import Solution

MANY = 1000
"""Coefficients from which on the eigenvalues are those of the blocks of the levels."""
GROUPS = 500
"""Of similar eigenvalues, which count as equal in the tail probability."""
RANK_TOLERANCE = 1e-10
"""Relative information below which a direction counts as one without data."""


@dataclass(frozen=True)
class Blocks:
    """The matrix diag(G_1, ..., G_L) + C W C' over some columns of the levels.

    Parameters
    ----------
    G, C : Array, (n_levels, q, q) and (n_levels, q, p)
    W : Matrix, (p, p)
    """

    G: Array
    C: Array
    W: Matrix

    @cached_property
    def _scaled(self) -> Array:
        return np.asarray(np.linalg.solve(self.G, self.C))

    @cached_property
    def _inner(self) -> Matrix:
        """(W^-1 + C' G^-1 C)^-1."""
        K = np.einsum("lap,laq->pq", self.C, self._scaled)
        return np.asarray(np.linalg.solve(np.eye(len(K)) + self.W @ K, self.W))

    def solve(self, X: Array) -> Array:
        """The inverse times X (n_levels, q, k)."""
        along = self._inner @ np.einsum("lap,lak->pk", self._scaled, X)
        return np.asarray(np.linalg.solve(self.G, X) - self._scaled @ along)

    def solve_blocks(self, K: Array) -> Array:
        """Blocks of the inverse times diag(K_1, ..., K_L), (n_levels, q, q)."""
        low_rank = (self._scaled @ self._inner) @ (self._scaled.transpose(0, 2, 1) @ K)
        return np.asarray(np.linalg.solve(self.G, K) - low_rank)

    def matrix(self) -> Matrix:
        """The matrix, (n_levels q, n_levels q)."""
        n_levels, q, p = self.C.shape
        rows = self.C.reshape(n_levels * q, p)
        out = (rows @ self.W @ rows.T).reshape(n_levels, q, n_levels, q)
        level = np.arange(n_levels)
        out[level, :, level, :] += self.G
        return np.asarray(out.reshape(n_levels * q, -1))


@dataclass(frozen=True)
class LevelTerm:
    """A term without unpenalised directions, in a model with columns by level.

    Parameters
    ----------
    solution : Solution
    V : Inverse
        Bayesian covariance of all coefficients.
    place : Array of int
        The term's coefficients, increasing.
    others : Array of int
        Coefficients of the other random effects, r.
    balanced : Arrow
        Penalties of all other terms, as large as the information of their blocks.
    """

    solution: Solution
    V: Inverse
    place: Array
    others: Array
    balanced: Arrow

    def test(self, residual_df: float | None) -> Test:
        """Test that the term is zero."""
        coef, rank = self.solution.coef[self.place], self.rank()
        if len(self.place) < MANY or not self.by_level:
            own = self.metric_inverse()
            metric = _factor(own.matrix() if isinstance(own, Blocks) else own).inverse()
            if self.by_level:
                at = np.argsort(self._order)
                metric = metric[np.ix_(at, at)]
            return random_effect_test(
                coef, metric, self._null_cov(), rank=rank, residual_df=residual_df
            )
        statistic, weights = self._by_level(coef)
        p_value = _tail(statistic, weights, residual_df)
        shown = statistic if residual_df is None else statistic / max(rank, 1)
        return Test(shown, rank, residual_df, p_value)

    @cached_property
    def by_level(self) -> bool:
        """Whether its columns are those of the levels."""
        return bool((self.V.layout.level_of(self.place)[0] >= 0).all())

    @cached_property
    def _order(self) -> Array:
        """The term's coefficients by level."""
        level, column = self.V.layout.level_of(self.place)
        return np.lexsort((column, level))

    @cached_property
    def _columns(self) -> tuple[Array, Array]:
        """Levels of the term and its columns among those of a level."""
        level, column = self.V.layout.level_of(self.place)
        return np.unique(level), np.unique(column)

    def _own(self, G: Array, C: Array, W: Matrix) -> Blocks:
        rows, a = self._columns
        return Blocks(G[rows][:, a][:, :, a], C[rows][:, a], W)

    def rank(self) -> int:
        """Number of directions that the data tell from the unpenalised ones of all others."""
        H = self.solution.information
        free = H.layout.restrict(np.delete(np.arange(H.layout.n_coef), self.solution.held))
        known = H.diagonal()[self.place] > 0.0
        # a coefficient without data is no direction; what is added keeps its block regular
        regular = np.zeros(H.layout.n_coef)
        regular[self.place[~known]] = 1.0
        P = (H + self.balanced + Arrow.of_diagonal(H.layout, regular)).restrict(free)
        inside = np.isin(free.dense, self.place)
        T = P.schur()
        if T is None:
            return int(known.sum())
        A, o = T, ~inside
        if inside.any():
            factor = Factor.of(T[np.ix_(o, o)])
            A = T[np.ix_(inside, inside)]
            if factor is not None:
                A = A - T[np.ix_(inside, o)] @ factor.solve(T[np.ix_(o, inside)])
        scale = np.diagonal(P.A)[inside if inside.any() else slice(None)]
        d = 1.0 / np.sqrt(np.maximum(scale, np.finfo(float).tiny))
        values = np.linalg.eigvalsh(d[:, None] * A * d)
        return int(known.sum() - np.sum(values <= RANK_TOLERANCE * values.max(initial=1.0)))

    def metric_inverse(self) -> Blocks | Matrix:
        """M^-1 over the term's coefficients, by level where its columns are."""
        H, S = self.solution.information, self.solution.penalty
        layout, s = H.layout, S.diagonal()
        random = np.zeros(layout.n_coef, dtype=bool)
        random[self.others] = True
        at_r = np.flatnonzero(random[layout.dense])
        levels_r = np.flatnonzero(random[layout.levels[0]])
        kept = np.flatnonzero(~random[layout.levels[0]])
        B = np.zeros((*layout.levels.shape, len(layout.dense))) if H.B is None else H.B
        # what random columns of the levels add stays within the levels and the dense part
        share = 1.0 / s[layout.levels[:, levels_r]][:, :, None]
        B_r, D_r = B[:, levels_r], H.D[:, levels_r]
        A = H.A + np.einsum("lap,laq->pq", B_r, share * B_r)
        across = B + np.einsum("lab,lap->lbp", D_r, share * B_r)
        D = H.D + S.D + np.einsum("lab,lac->lbc", D_r, share * D_r)
        A = A + S.A
        A[np.ix_(at_r, at_r)] = -S.A[np.ix_(at_r, at_r)]
        # dense random effects stand for themselves: their columns are those of H
        across[:, :, at_r] = B[:, :, at_r]
        A[:, at_r] = np.where(random[layout.dense][:, None], A[:, at_r], H.A[:, at_r])
        A[at_r] = A[:, at_r].T
        free = ~np.isin(layout.dense, self.solution.held)
        across, D = across[:, kept], D[:, kept][:, :, kept]
        G = np.linalg.inv(D) if len(kept) else D
        C = G @ across
        T = A - np.einsum("lap,laq->pq", across, C)
        W = np.zeros_like(T)
        W[np.ix_(free, free)] = np.linalg.inv(T[np.ix_(free, free)])
        if not self.by_level:
            at = layout.dense_at(self.place)
            return np.asarray(W[np.ix_(at, at)])
        rows, a = self._columns
        own = np.searchsorted(kept, a)
        return Blocks(G[rows][:, own][:, :, own], C[rows][:, own], W)

    def _null_cov(self) -> Matrix:
        """C, (m, m)."""
        every = np.setdiff1d(np.arange(self.V.layout.n_coef), self.others)
        kept = every[self.solution.penalty.diagonal()[every] > 0.0]
        cross = self.V.block(self.place, kept)
        own = self.V.block(self.place, self.place)
        return own - cross @ self.solution.penalty.block(kept, kept) @ cross.T

    def _by_level(self, coef: Vector) -> tuple[float, Vector]:
        """T and the eigenvalues of M C from the blocks of the levels."""
        V, metric = self.V, self.metric_inverse()
        if not isinstance(metric, Blocks):
            raise FitError("the term has no columns by level")
        rows, a = self._columns
        b = coef[self._order].reshape(len(rows), len(a), 1)
        random = np.zeros(V.layout.n_coef, dtype=bool)
        random[self.others] = True
        counted = ~random[V.layout.levels[0]]
        S = self.solution.penalty.D * (counted[:, None] & counted)
        dense = ~random[V.layout.dense]
        T = self.solution.penalty.A * (dense[:, None] & dense)
        T = T + np.einsum("lap,laq->pq", V.C, S @ V.C)
        GS = V.G @ S
        K = (V.G - GS @ V.G)[rows][:, a][:, :, a]
        X = np.concatenate([V.C, GS @ V.C], axis=2)[rows][:, a]
        W = V.V
        Z = np.block([[W - W @ T @ W, -W], [-W, np.zeros_like(W)]])
        total = float(np.einsum("laa->", metric.solve_blocks(K)))
        total += float(np.sum(Z * np.einsum("lap,laq->pq", X, metric.solve(X))))
        roots = np.linalg.cholesky(np.linalg.inv(metric.G))
        blocks = roots.transpose(0, 2, 1) @ K @ roots
        w = np.maximum(np.linalg.eigvalsh((blocks + blocks.transpose(0, 2, 1)) / 2.0), 0.0).ravel()
        statistic = float(np.sum(b * metric.solve(b)))
        return statistic, w * max(total / max(float(w.sum()), np.finfo(float).tiny), 0.0)


def _tail(statistic: float, weights: Vector, residual_df: float | None) -> float:
    """P(sum_i weights_i chi2(1) > statistic) with the weights in groups of similar ones."""
    if not weights.any():
        return 1.0
    groups = np.array_split(np.sort(weights)[::-1], min(GROUPS, len(weights)))
    means = np.array([group.mean() for group in groups])
    counts = np.array([float(len(group)) for group in groups])
    if residual_df is None:
        return weighted_chi2_sf(statistic, means, counts)
    weights = np.append(means, -statistic / residual_df)
    return weighted_chi2_sf(0.0, weights, np.append(counts, residual_df))


def _factor(P: Matrix) -> Factor:
    factor = Factor.of((P + P.T) / 2.0)
    if factor is None:
        raise FitError("a random effect cannot be tested: its covariance is singular")
    return factor
