"""Row derivatives of a likelihood that looks at its many predictors through few numbers per row.

    r_j = sum_k A_jk phi_k(eta_k),   j = 1..m,   l = l(r_1, ..., r_m),   m small

as in ordinal models, where a row sees two of its thresholds, or transformation models, where it
sees the transformation and its slope at one point or two. With B_jk = A_jk phi_k'(eta_k),
C_jk = A_jk phi_k'', D_jk = A_jk phi_k''', M = -d2 l / dr2,

    g_k  = sum_j l_j B_jk
    W_km = sum_jl M_jl B_jk B_lm - [k = m] sum_j l_j C_jk
    v_u  = d/deta_u sum_km S_km W_km
         = sum_p B_pu d/dr_p <M, B S B'> + 2 (C' M B S)_uu + (B' M C diag S)_u - S_uu (D' l_j)_u

so that autodiff compiles a function of m numbers however many predictors there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deepregress.families import kernels
from deepregress.families.kernels import Likelihood, upper_pairs
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class Curves:
    """Derivatives of phi at the predictors, each (n_obs, U)."""

    slope: Matrix
    bend: Matrix
    third: Matrix


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rows see of their predictors.

    Parameters
    ----------
    A : Array, (n_obs, m, U)
    r : Matrix, (n_obs, m)
    curves : Curves or None
        None where all phi are the identity.
    """

    A: Array
    r: Matrix
    curves: Curves | None = None

    @property
    def B(self) -> Array:
        """dr_j / deta_k, (n_obs, m, U)."""
        return self.A if self.curves is None else self.A * self.curves.slope[:, None, :]


def derivatives(
    likelihood: Likelihood, rows: Mapping[str, Array], seen: Seen
) -> tuple[Vector, Matrix, Matrix]:
    """l (n,), gradient (n, U) and packed W (n, U (U + 1) / 2)."""
    value, l_r, packed = kernels.in_chunks(kernels.derivatives, likelihood, rows, (seen.r,))
    B = seen.B
    # a step too far has no finite likelihood: the solver sees that and halves it
    with np.errstate(invalid="ignore", over="ignore"):
        W = np.einsum("njk,njm->nkm", B, _full(packed) @ B)
        gradient = np.einsum("nj,njk->nk", l_r, B)
        if seen.curves is not None:
            every = np.arange(W.shape[1])
            W[:, every, every] -= np.einsum("nj,njk->nk", l_r, seen.A) * seen.curves.bend
    k, m = _places(W.shape[1])
    return value, gradient, W[:, k, m]


def contracted_third(
    likelihood: Likelihood, rows: Mapping[str, Array], seen: Seen, weight: Matrix
) -> Matrix:
    """v (n, U) at weights (n, U (U + 1) / 2), in which off-diagonal pairs count once."""
    B, S = seen.B, _full(weight, once=True)
    SB = S @ B.transpose(0, 2, 1)
    Q = B @ SB
    j, p = _places(Q.shape[1])
    packed = Q[:, j, p] * np.where(j == p, 1.0, 2.0)
    (v_r,) = kernels.in_chunks(kernels.third, likelihood, rows, (seen.r, packed))
    v = np.einsum("np,npu->nu", v_r, B)
    if seen.curves is None:
        return np.asarray(v)
    _, l_r, M = kernels.in_chunks(kernels.derivatives, likelihood, rows, (seen.r,))
    M = _full(M)
    C = seen.A * seen.curves.bend[:, None, :]
    diagonal = np.einsum("nkk->nk", S)
    v += 2.0 * np.einsum("nju,nuj->nu", C, SB @ M)
    v += np.einsum("nju,nj->nu", B, np.einsum("njl,nlk,nk->nj", M, C, diagonal))
    v -= diagonal * np.einsum("nj,nju->nu", l_r, seen.A) * seen.curves.third
    return np.asarray(v)


def _places(size: int) -> tuple[Array, Array]:
    k, m = (np.array(index) for index in zip(*upper_pairs(size), strict=True))
    return k, m


def _full(packed: Matrix, *, once: bool = False) -> Array:
    """Symmetric matrices (n, U, U) of packed ones; halves off the diagonal of those that count."""
    size = int((np.sqrt(8 * packed.shape[1] + 1) - 1) / 2)
    k, m = _places(size)
    full = np.empty((len(packed), size, size))
    full[:, k, m] = packed if not once else packed * np.where(k == m, 1.0, 0.5)
    full[:, m, k] = full[:, k, m]
    return full
