"""Low-rank Gaussian processes, `bs="gp"`, in any dimension (METHODS 2).

With knots u (all unique rows up to a cap) and the correlations E_ij = c(|u_i - u_j|), E ~ U D U'
by the eigenpairs largest in magnitude, and T(x) = (1, x) or, without trend, T(x) = 1,

    X = [E(x, u) U, T(x)],    S = diag-block(D, 0)

    m = 1  1 - 1.5 t + 0.5 t^3 for t <= 1, else 0        spherical
        2  exp(-t^power)                                 power exponential, power 1 by default
        3  exp(-t) (1 + t)                               Matern 1.5, the default
        4  exp(-t) (1 + t + t^2 / 3)                     Matern 2.5
        5  exp(-t) (1 + t + 2 t^2 / 5 + t^3 / 15)        Matern 3.5

with t = distance / range, the range by default the largest distance between knots (Kammann and Wand
2003); m = (type, range, power), a negative type for no trend. Far from the data the function goes
back to its trend: extrapolation is linear (or constant) only in the limit.

On a line, where c(t) = exp(-t) (a_0 + .. + a_p t^p) and u_i <= x < u_(i+1), the sums over the knots
to the left and to the right of x are polynomials of degree p in the distances to u_i and u_(i+1),
times exponentials. Their coefficients are kept, and a row costs O(k) whatever the number of knots.

References: Wood 2017, sec. 5.8.2; Kammann and Wand 2003, doi:10.1111/1467-9876.00385.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from scipy.spatial.distance import cdist

from deepregress.basis.base import (
    MAX_KNOTS,
    MAX_KNOTS_1D,
    Basis,
    Request,
    as_rows,
    as_tuple,
    register,
    row_chunks,
)
from deepregress.linalg import Matrix, Vector, extreme_eigenpairs

# Default k is a linear trend, even if there is none, plus this, by dimension, as in mgcv.
DEFAULT_WIGGLY = {1: 10, 2: 30}
DEFAULT_WIGGLY_HIGHER = 100
SPHERICAL, EXPONENTIAL, MATERN_3_2, MATERN_5_2, MATERN_7_2 = 1, 2, 3, 4, 5
# Coefficients of the polynomial that multiplies exp(-t).
FACTORS = {
    EXPONENTIAL: (1.0,),
    MATERN_3_2: (1.0, 1.0),
    MATERN_5_2: (1.0, 1.0, 1.0 / 3.0),
    MATERN_7_2: (1.0, 1.0, 2.0 / 5.0, 1.0 / 15.0),
}


@dataclass(frozen=True, eq=False)
class GaussianProcess(Basis):
    """Correlations with the knots, projected on few eigenvectors, and a trend.

    Parameters
    ----------
    knots : Matrix
        Knots minus `shift`, shape (n_knots, d).
    shift : Vector
        Means of the covariates over the training rows, shape (d,).
    correlation : int
        Type of the correlation function, 1 to 5.
    range : float
        Distance by which distances are divided.
    power : float
        Power of the exponential type.
    radial : Matrix
        Coefficients of the correlations, shape (n_knots, k - null_dim).
    penalties : tuple of Matrix
        Raw penalty (k, k), zero for the trend, which comes last.
    null_dim : int
        Dimension of the trend.
    """

    knots: Matrix
    shift: Vector
    correlation: int
    range: float
    power: float
    radial: Matrix
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        rows = as_rows(x)
        columns = np.ones((len(rows), self.k))
        n_wiggly = self.k - self.null_dim
        for part in row_chunks(len(rows), len(self.knots)):
            shifted = rows[part] - self.shift
            scaled = cdist(shifted, self.knots) / self.range
            columns[part, :n_wiggly] = correlate(scaled, self.correlation, self.power) @ self.radial
            columns[part, n_wiggly + 1 :] = shifted[:, : self.null_dim - 1]
        return columns

    def pieces(self) -> ExponentialPieces:
        """Return the same functions by their pieces between the knots, for d = 1."""
        factors = np.array(FACTORS[self.correlation])
        gaps = (self.knots - self.knots.T) / self.range
        left = _sums(np.tril(np.exp(-np.abs(gaps))), np.abs(gaps), factors, self.radial)
        right = _sums(np.triu(np.exp(-np.abs(gaps))), np.abs(gaps), factors, self.radial)
        return ExponentialPieces(
            self.knots[:, 0] + self.shift[0],
            float(self.shift[0]),
            self.range,
            len(factors),
            np.concatenate([left, right]),
            self.penalties,
            self.null_dim,
        )

    def by_pieces(self) -> bool:
        """Return whether `pieces` exists."""
        exponential = self.correlation >= MATERN_3_2 or self.power == 1.0
        return self.knots.shape[1] == 1 and self.correlation != SPHERICAL and exponential


@dataclass(frozen=True, eq=False)
class ExponentialPieces(Basis):
    """Polynomials times exponentials of the distances to both neighbouring knots, and a trend.

    Parameters
    ----------
    knots : Vector
        Increasing knots, shape (n_knots,).
    shift : float
        Mean of the covariate over the training rows.
    range : float
        Distance by which distances are divided.
    terms : int
        Number of coefficients of each polynomial.
    table : Matrix
        Coefficients, knot by knot, of the functions to the right of each knot and then of those to
        its left, shape (2 n_knots terms, k - null_dim).
    penalties : tuple of Matrix
        Raw penalty (k, k), zero for the trend, which comes last.
    null_dim : int
        Dimension of the trend.
    """

    knots: Vector
    shift: float
    range: float
    terms: int
    table: Matrix
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        points = as_rows(x)[:, 0]
        columns = np.ones((len(points), self.k))
        n_wiggly = self.k - self.null_dim
        for part in row_chunks(len(points), self.k):
            columns[part, :n_wiggly] = self._weights(points[part]) @ self.table
            if self.null_dim == 2:
                columns[part, -1] = points[part] - self.shift
        return columns

    def _weights(self, x: Vector) -> scipy.sparse.csr_array:
        """Return exp(-s) s^l for both neighbours of each row, shape (n, 2 n_knots terms)."""
        last = len(self.knots) - 1
        after = np.searchsorted(self.knots, x, side="right")
        weights = np.empty((len(x), 2, self.terms))
        columns = np.empty((len(x), 2, self.terms), dtype=np.int64)
        for side, knot, exists in ((0, after - 1, after > 0), (1, after, after <= last)):
            knot = np.clip(knot, 0, last)
            s = np.abs(x - self.knots[knot]) / self.range
            weights[:, side, 0] = np.where(exists, np.exp(-s), 0.0)
            columns[:, side, 0] = (knot + side * (last + 1)) * self.terms
            for power in range(1, self.terms):
                weights[:, side, power] = weights[:, side, power - 1] * s
                columns[:, side, power] = columns[:, side, 0] + power
        width = 2 * self.terms
        pointers = np.arange(0, width * len(x) + 1, width)
        shape = (len(x), len(self.table))
        return scipy.sparse.csr_array((weights.ravel(), columns.ravel(), pointers), shape=shape)


@register("gp")
def gaussian_process(request: Request) -> Basis:
    """Construct the Gaussian process smooth of one or several covariates."""
    built = radial_gaussian_process(request)
    return built.pieces() if built.by_pieces() else built


def radial_gaussian_process(request: Request) -> GaussianProcess:
    """Construct the Gaussian process smooth in its radial form, for any dimension and type."""
    d = request.x.shape[1]
    correlation, extent, power, trend = _options(request)
    null_dim = d + 1 if trend else 1
    default = d + 1 + DEFAULT_WIGGLY.get(d, DEFAULT_WIGGLY_HIGHER)
    k = request.size(default, null_dim + 1, f"{null_dim} for the trend")
    shift = request.x.mean(axis=0)
    knots = request.points(k, most=MAX_KNOTS_1D if d == 1 else MAX_KNOTS) - shift
    distances = cdist(knots, knots)
    extent = extent if extent > 0.0 else float(distances.max())
    E = correlate(distances / extent, correlation, power)
    U, D = extreme_eigenpairs(E, k - null_dim)
    S = np.zeros((k, k))
    S[: k - null_dim, : k - null_dim] = np.diag(D[::-1])
    radial = np.ascontiguousarray(U[:, ::-1])
    return GaussianProcess(knots, shift, correlation, extent, power, radial, (S,), null_dim)


def correlate(t: Matrix, correlation: int, power: float) -> Matrix:
    """Return the correlation at the scaled distances t, of any shape."""
    if correlation == SPHERICAL:
        return np.where(t <= 1.0, 1.0 - 1.5 * t + 0.5 * t**3, 0.0)
    if correlation == EXPONENTIAL:
        return np.exp(-(t**power))
    return np.asarray(np.exp(-t) * np.polynomial.polynomial.polyval(t, FACTORS[correlation]))


def _sums(decay: Matrix, gaps: Matrix, factors: Vector, radial: Matrix) -> Matrix:
    """Return the coefficients of s^0, s^1, .. in sum_j exp(-s - t_ij) a(s + t_ij) radial_j.

    `decay` is exp(-t_ij), zero for the knots on the other side; t_ij are the gaps (n_knots,
    n_knots) and a_0, a_1, .. the factors. Shape (n_knots terms, k - null_dim), knot by knot.
    """
    n_terms = len(factors)
    sums = np.zeros((len(radial), n_terms, radial.shape[1]))
    for power, factor in enumerate(factors):
        for low in range(power + 1):
            shares = math.comb(power, low) * gaps ** (power - low)
            sums[:, low] += factor * ((decay * shares) @ radial)
    return sums.reshape(-1, radial.shape[1])


def _options(request: Request) -> tuple[int, float, float, bool]:
    """Return type, range (0 for the default) and power of the correlation, and whether a trend."""
    defaults = (float(MATERN_3_2), 0.0, 1.0)
    m = defaults if request.m is None else as_tuple(request.m)
    kind, extent, power = (*m, *defaults[len(m) :])[:3]
    valid = 1 <= len(m) <= 3 and float(kind).is_integer() and 1 <= abs(kind) <= 5
    if not valid or not 0.0 < power <= 2.0:
        raise request.refuse(
            "basis 'gp' needs m = (type, range, power) with a type from 1 to 5 (negative for no "
            f"trend) and 0 < power <= 2, got {request.m}."
        )
    return abs(int(kind)), extent, power, kind > 0
