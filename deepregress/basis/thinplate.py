"""Thin plate regression splines, `bs="tp"`, in any dimension (METHODS 2).

With knots u_1..u_n (all unique rows up to a cap), E_ij = eta(|u_i - u_j|) and T the polynomials of
degree < m at the knots, the full spline is E delta + T alpha with T' delta = 0 and wiggliness
delta' E delta. Its best rank-k approximation keeps the k eigenpairs of E largest in magnitude:

    E ~ U D U',    delta = U Z gamma with T' U Z = 0
    X = [E(x, u) U Z, T(x)],    S = diag-block(Z' D Z, 0),    each column of X scaled to RMS 1

Order of the eigenvalues and Householder Z are chosen so that X and S are mgcv's up to signs. In one
dimension with m = 2 the columns are natural cubic splines on the knots and are evaluated as such.

References: Wood 2003, doi:10.1111/1467-9868.00374; Wood 2017, sec. 5.5.1; Duchon 1977.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from deepregress.basis.base import (
    MAX_KNOTS,
    MAX_KNOTS_1D,
    Basis,
    NaturalCubic,
    Request,
    as_rows,
    register,
    row_chunks,
)
from deepregress.linalg import LANCZOS_SIZE as LANCZOS_KNOTS
from deepregress.linalg import Matrix, Vector, extreme_eigenpairs, null_space

# Default k is the null space plus this, by dimension, as in mgcv.
DEFAULT_WIGGLY = {1: 8, 2: 27}
DEFAULT_WIGGLY_HIGHER = 100


@dataclass(frozen=True, eq=False)
class ThinPlate(Basis):
    """Thin plate regression spline as a sum of radial functions and polynomials.

    Parameters
    ----------
    knots : Matrix
        Knots minus `shift`, shape (n_knots, d).
    shift : Vector
        Means of the covariates over the training rows, shape (d,).
    m : int
        Order of the penalised derivatives.
    radial : Matrix
        Coefficients of the radial functions, shape (n_knots, k - null_dim).
    polynomial : Vector
        Factors of the polynomials, shape (null_dim,).
    penalties : tuple of Matrix
        Raw penalty (k, k), zero for the polynomials, which come last.
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    knots: Matrix
    shift: Vector
    m: int
    radial: Matrix
    polynomial: Vector
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        rows = as_rows(x)
        columns = np.empty((len(rows), self.k))
        n_wiggly = self.k - self.null_dim
        for part in row_chunks(len(rows), len(self.knots)):
            shifted = rows[part] - self.shift
            columns[part, :n_wiggly] = radial_functions(shifted, self.knots, self.m) @ self.radial
            columns[part, n_wiggly:] = monomials(shifted, self.m) * self.polynomial
        return columns

    def natural_cubic(self) -> NaturalCubic:
        """Return the same functions by values and curvatures at the knots, for d = 1 and m = 2."""
        n_wiggly = self.k - self.null_dim
        # eta(r) = r^3 / 12, so eta'' = r / 2; the constraint T' delta = 0 makes the sum of
        # |x - u_j| terms zero at both end knots.
        distance = np.abs(self.knots - self.knots.T)
        curvatures = np.zeros((len(self.knots), self.k))
        curvatures[:, :n_wiggly] = 0.5 * distance @ self.radial
        curvatures[[0, -1]] = 0.0
        knots = self.knots[:, 0] + self.shift[0]
        return NaturalCubic(knots, self.evaluate(knots), curvatures, self.penalties, self.null_dim)


@register("tp")
def thin_plate(request: Request) -> Basis:
    """Construct the thin plate regression spline of one or several covariates."""
    spline = radial_thin_plate(request)
    return spline.natural_cubic() if request.x.shape[1] == 1 and spline.m == 2 else spline


def radial_thin_plate(request: Request) -> ThinPlate:
    """Construct the thin plate regression spline in its radial form, for any dimension and m."""
    d = request.x.shape[1]
    m = _order(request, d)
    null_dim = math.comb(m + d - 1, d)
    default = null_dim + DEFAULT_WIGGLY.get(d, DEFAULT_WIGGLY_HIGHER)
    k = request.size(default, null_dim + 1, f"{null_dim} for the polynomials it does not penalise")
    shift = request.x.mean(axis=0)
    knots = request.points(k, most=MAX_KNOTS_1D if d == 1 else MAX_KNOTS) - shift
    E = radial_functions(knots, knots, m)
    U, D = extreme_eigenpairs(E, k, lanczos=LANCZOS_KNOTS)
    # mgcv counts the columns from the other end.
    Z = np.ascontiguousarray(null_space(U.T @ monomials(knots, m))[:, ::-1])
    radial = U @ Z
    wiggliness = Z.T @ (D[:, None] * Z)
    S = np.zeros((k, k))
    S[: k - null_dim, : k - null_dim] = 0.5 * (wiggliness + wiggliness.T)
    raw = ThinPlate(knots, shift, m, radial, np.ones(null_dim), (S,), null_dim)
    return _unit_rms(raw, request.x)


def radial_functions(x: Matrix, knots: Matrix, m: int) -> Matrix:
    """Return eta(|x_i - u_j|) of the thin plate spline, shape (n, n_knots).

    For odd d eta(r) = c r^(2m-d), for even d eta(r) = c r^(2m-d) log r.
    """
    d = x.shape[1]
    squared = np.zeros((len(x), len(knots)))
    for j in range(d):
        squared += (x[:, j, None] - knots[:, j]) ** 2
    power = (2 * m - d) / 2.0
    factor = _radial_constant(d, m)
    if d % 2:
        return np.asarray(factor * squared**power)
    logs = np.log(squared, out=np.zeros_like(squared), where=squared > 0.0)
    return np.asarray(0.5 * factor * squared**power * logs)


def _radial_constant(d: int, m: int) -> float:
    """Return c of `radial_functions`."""
    if d % 2:
        return float(math.gamma(d / 2 - m) / (4.0**m * math.pi ** (d / 2) * math.gamma(m)))
    sign = -1.0 if (m + 1 + d // 2) % 2 else 1.0
    gammas = math.gamma(m) * math.gamma(m - d // 2 + 1)
    return float(sign / (2.0 ** (2 * m - 1) * math.pi ** (d // 2) * gammas))


def monomials(x: Matrix, m: int) -> Matrix:
    """Return the polynomials of degree < m in d variables, shape (n, comb(m + d - 1, d))."""
    d = x.shape[1]
    powers = sorted(
        (power for power in product(range(m), repeat=d) if sum(power) < m),
        key=lambda power: power[::-1],
    )
    return np.stack([np.prod(x ** np.array(power), axis=1) for power in powers], axis=1)


def _order(request: Request, d: int) -> int:
    """Return m: the user's, or the least with 2 m > d + 1, whose functions look smooth."""
    if request.m is None:
        return (d + 1) // 2 + 1
    m = request.orders()
    if len(m) != 1 or 2 * m[0] <= d:
        raise request.refuse(
            f"basis {request.bs!r} of {d} covariate(s) needs one number m > {d / 2:g}, "
            f"got m = {request.m}."
        )
    return m[0]


def _unit_rms(spline: ThinPlate, x: Matrix) -> ThinPlate:
    """Return the spline with its columns scaled to root mean square 1 over the rows x."""
    n_wiggly = spline.k - spline.null_dim
    wiggly = spline.natural_cubic() if x.shape[1] == 1 and spline.m == 2 else spline
    squares = np.zeros(spline.k)
    for part in row_chunks(len(x), len(spline.knots)):
        squares += (wiggly.evaluate(x[part]) ** 2).sum(axis=0)
    size = np.sqrt(squares / len(x))
    return ThinPlate(
        spline.knots,
        spline.shift,
        spline.m,
        spline.radial / size[:n_wiggly],
        spline.polynomial / size[n_wiggly:],
        (spline.penalties[0] / np.outer(size, size),),
        spline.null_dim,
    )
