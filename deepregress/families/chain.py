"""Row derivatives of a likelihood that looks at its many predictors through few numbers per row.

    r_j = sum_k A_jk eta_k,   j = 1..m,   l = l(r_1, ..., r_m),   m small

as in ordinal models, where a row sees two of its thresholds, or transformation models, where it
sees the transformation and its slope at one point or two. With M = -d2 l / dr2 and weights w_km of
the pairs k <= m,

    g_k  = sum_j l_j A_jk
    W_km = sum_jl A_jk M_jl A_lm
    v_u  = d/deta_u sum_(k <= m) w_km W_km
         = sum_p A_pu d/dr_p sum_jl M_jl T_jl,    T_jl = sum_(k <= m) w_km A_jk A_lm

so that autodiff compiles a function of m numbers however many predictors there are. Rows stand
last, so that all sums run along memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from deepregress.families import kernels
from deepregress.families.kernels import Likelihood, upper_pairs
from deepregress.linalg import Array, Matrix, Vector


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rows see of their predictors.

    Parameters
    ----------
    A : Array, (m, U, n_obs)
    r : Matrix, (n_obs, m)
    """

    A: Array
    r: Matrix

    @classmethod
    def of(cls, A: Array, eta: Matrix) -> Seen:
        """At predictors (n_obs, U)."""
        return cls(A, np.einsum("jkn,kn->jn", A, np.ascontiguousarray(eta.T)).T)


def derivatives(
    likelihood: Likelihood, rows: Mapping[str, Array], seen: Seen
) -> tuple[Vector, Matrix, Matrix]:
    """l (n,), gradient (n, U) and packed W (n, U (U + 1) / 2)."""
    value, l_r, packed = kernels.in_chunks(kernels.derivatives, likelihood, rows, (seen.r,))
    A, W = seen.A, np.empty((len(upper_pairs(seen.A.shape[1])), len(value)))
    # a step too far has no finite likelihood: the solver sees that and halves it
    with np.errstate(invalid="ignore", over="ignore"):
        MA = np.einsum("jln,lkn->jkn", _full(packed), A)
        gradient = np.einsum("jn,jkn->kn", np.ascontiguousarray(l_r.T), A)
        for k, own in _pairs_of(A.shape[1]):
            W[own] = np.einsum("jn,jmn->mn", A[:, k], MA[:, k:])
    return value, gradient.T, W.T


def contracted_third(
    likelihood: Likelihood, rows: Mapping[str, Array], seen: Seen, weight: Matrix
) -> Matrix:
    """v (n, U) at weights (n, U (U + 1) / 2), in which off-diagonal pairs count once."""
    A, w = seen.A, np.ascontiguousarray(weight.T)
    T = np.zeros((len(A), len(A), len(weight)))
    for k, own in _pairs_of(A.shape[1]):
        T += A[:, None, k] * np.einsum("mn,lmn->ln", w[own], A[:, k:])
    places = upper_pairs(len(A))
    packed = np.stack([T[j, p] if j == p else T[j, p] + T[p, j] for j, p in places], axis=1)
    (v_r,) = kernels.in_chunks(kernels.third, likelihood, rows, (seen.r, packed))
    return np.asarray(np.einsum("pn,pun->un", np.ascontiguousarray(v_r.T), A).T)


def _pairs_of(n_units: int) -> Iterator[tuple[int, slice]]:
    """Each unit k, and where its pairs (k, m), m >= k, are among all."""
    start = 0
    for k in range(n_units):
        yield k, slice(start, start + n_units - k)
        start += n_units - k


def _full(packed: Matrix) -> Array:
    """Symmetric matrices (m, m, n_obs) of packed ones (n_obs, m (m + 1) / 2)."""
    size = int((np.sqrt(8 * packed.shape[1] + 1) - 1) / 2)
    full = np.empty((size, size, len(packed)))
    for place, (j, k) in enumerate(upper_pairs(size)):
        full[j, k] = full[k, j] = packed[:, place]
    return full
