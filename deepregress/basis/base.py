"""What every basis of a smooth term is, and how one is asked for by name (METHODS 2).

A smooth is f(x) = sum_j coef_j b_j(x) with the penalties coef' S_l coef. As in mgcv, `construct`
learns knots, basis and penalties from the training rows and `Basis.evaluate` makes the columns for
any rows, in training and in prediction. A constructor registers itself under the name that `bs=`
accepts. `scale_penalty` and `centre` are the steps from a raw basis to a block of the design:

    S / (norm1(S) / normInf(X)^2),    X Z and Z' S Z with Z' (sum of the rows of X) = 0

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.3 and 5.4.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.interpolate import BSpline

from deepregress.errors import FormulaError, suggestion
from deepregress.linalg import Array, Matrix, Vector, null_space

# Rows are evaluated in chunks of about this many array elements, which stay in cache.
CHUNK_ELEMENTS = 1 << 17
# Values closer than this fraction of the range are one value (0.3 and 0.1 + 0.2): as two knots
# they would make a slope out of rounding error.
SEPARATION = 1e-10
# Knots of radial functions: all unique values up to these numbers, else a subset of that size.
MAX_KNOTS_1D = 200
MAX_KNOTS = 2000
# Which rows stand for larger data in more than one dimension must not change between fits.
KNOT_SEED = 0


class Basis(ABC):
    """Basis functions of one smooth term, with the knots learned from the training rows.

    Subclasses are frozen dataclasses of arrays and numbers, so that they can be saved.
    """

    penalties: tuple[Matrix | Vector, ...]
    null_dim: int

    @property
    def k(self) -> int:
        """Number of basis functions."""
        return len(self.penalties[0])

    @abstractmethod
    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k), for x of shape (n,) or (n, d)."""


MANY_COLUMNS = 100
"""Columns of levels from which on they are kept by level and their penalties as diagonals."""


class LevelBasis(Basis):
    """Basis functions that are the same for every level of a factor, each in its own rows.

    Its penalties are diagonal; those of MANY_COLUMNS columns are given by their diagonals.
    """

    @property
    @abstractmethod
    def n_values(self) -> int:
        """Number of columns of each level."""

    @abstractmethod
    def by_level(self, x: Matrix) -> tuple[Array, Matrix]:
        """Return the level of each row (n,), -1 for none, and its values at x, shape (n, m)."""

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the columns at x (n, d), levels outermost; zero in rows of no level."""
        codes, values = self.by_level(x)
        rows = np.flatnonzero(codes >= 0)
        columns = np.zeros((len(x), self.k // values.shape[1], values.shape[1]))
        columns[rows, codes[rows]] = values[rows]
        return columns.reshape(len(x), -1)


def diagonal_penalty(diagonal: Vector) -> Matrix | Vector:
    """Return a diagonal penalty as a matrix, or as its diagonal where there are many columns."""
    return np.diag(diagonal) if len(diagonal) < MANY_COLUMNS else diagonal


@dataclass(frozen=True, eq=False)
class Request:
    """What a constructor is asked for: the training rows and the options of the term.

    Parameters
    ----------
    bs : str
        Name of the basis, for messages.
    x : Matrix
        Covariates of the training rows, shape (n, d).
    k : int or None
        Number of basis functions; None for the default of the basis.
    m : int, tuple of float or None
        Order of the penalty (and of the basis for some), as in mgcv; numbers that are not whole
        are for `gp` only.
    knots : Matrix or None
        The user's knots, shape (n_knots, d).
    label : str
        The term as the user wrote it; every message starts with it.
    """

    bs: str
    x: Matrix
    k: int | None
    m: int | tuple[float, ...] | None
    knots: Matrix | None
    label: str

    def refuse(self, reason: str) -> FormulaError:
        """Return the error `label: reason`."""
        return FormulaError(f"{self.label}: {reason}" if self.label else reason)

    def size(self, default: int, least: int, why: str) -> int:
        """Return k or its default, at least `least`."""
        k = default if self.k is None else self.k
        if k < least:
            raise self.refuse(f"basis {self.bs!r} needs k >= {least} ({why}), got {k}.")
        return k

    def unique(self, k: int, *, least: int) -> Matrix:
        """Return the sorted unique rows of x, at least `least`, shape (n_unique, d)."""
        values = distinct(self.x)
        if len(values) < least:
            what = "values" if self.x.shape[1] == 1 else "combinations of values"
            raise self.refuse(
                f"basis {self.bs!r} with k = {k} needs at least {least} unique {what}, "
                f"the data have {len(values)}."
            )
        return values

    def points(self, k: int, *, most: int) -> Matrix:
        """Return the knots of radial functions, (n_knots, d): the user's, or at most `most` rows.

        Beyond `most` unique values they are quantiles in one dimension, else a seeded sample.
        """
        if self.knots is not None:
            return self._given_points(self.knots, k)
        unique = self.unique(k, least=k)
        most = max(most, k)
        if len(unique) <= most:
            return unique
        if self.x.shape[1] == 1:
            return np.quantile(unique, np.linspace(0.0, 1.0, most), axis=0)
        chosen = np.random.default_rng(KNOT_SEED).choice(len(unique), most, replace=False)
        return unique[np.sort(chosen)]

    def _given_points(self, knots: Matrix, k: int) -> Matrix:
        d = self.x.shape[1]
        if knots.shape[1] != d:
            raise self.refuse(
                f"basis {self.bs!r} needs knots of shape (n_knots, {d}), got {knots.shape}."
            )
        unique = distinct(knots)
        if len(unique) < k:
            raise self.refuse(f"basis {self.bs!r} with k = {k} needs k knots, got {len(unique)}.")
        return unique

    def sorted_knots(self) -> Vector | None:
        """Return the user's knots on the line, in order and none twice."""
        if self.knots is None:
            return None
        knots = np.sort(self.knots[:, 0])
        if np.any(np.diff(knots) <= 0.0):
            raise self.refuse(f"the knots of basis {self.bs!r} must differ.")
        return knots

    def orders(self, *default: int) -> tuple[int, ...]:
        """Return m or its default as whole numbers."""
        m: tuple[float, ...] = default if self.m is None else as_tuple(self.m)
        if not m or any(number != int(number) for number in m):
            raise self.refuse(f"m of basis {self.bs!r} must be whole numbers, got {self.m}.")
        return tuple(int(number) for number in m)

    def difference_orders(self) -> tuple[int, int]:
        """Return m of a P-spline: order of the basis (degree - 1) and of the differences."""
        m = self.orders(2, 2)
        pair = (*m, *m) if isinstance(self.m, int) else m
        if len(pair) != 2 or min(pair) < 0:
            raise self.refuse(
                f"basis {self.bs!r} needs m = (order of the basis, order of the differences), "
                f"both at least 0, got {self.m}."
            )
        return pair[0], pair[1]

    def line(self) -> Vector:
        """Return the one covariate of a basis that takes only one, shape (n,)."""
        if self.x.shape[1] != 1:
            raise self.refuse(
                f"basis {self.bs!r} takes one covariate, got {self.x.shape[1]}; "
                "bs='tp' takes several."
            )
        return self.x[:, 0]


Constructor = Callable[[Request], Basis]
_C = TypeVar("_C", bound=Constructor)
_CONSTRUCTORS: dict[str, Constructor] = {}


def register(name: str) -> Callable[[_C], _C]:
    """Make a constructor known as `bs=name`."""

    def add(constructor: _C) -> _C:
        _CONSTRUCTORS[name] = constructor
        return constructor

    return add


def registered() -> tuple[str, ...]:
    """Return the names that `bs=` accepts."""
    return tuple(sorted(_CONSTRUCTORS))


def construct(
    bs: str,
    x: Matrix,
    *,
    k: int | None = None,
    m: int | Sequence[float] | None = None,
    knots: Matrix | Sequence[float] | None = None,
    label: str = "",
) -> Basis:
    """Construct a basis from the training rows.

    Parameters
    ----------
    bs : str
        Name of the basis, one of `registered()`.
    x : Matrix
        Finite covariate values of the training rows, shape (n,) or (n, d).
    k : int, optional
        Number of basis functions, before the centring constraint; for "cc" of knots, one more.
    m : int or sequence of numbers, optional
        Order of the penalty for "tp"; for "ps" and "cp" (order of the basis, order of the
        differences), where order 2 of the basis means cubic B-splines; for "bs" (degree, orders of
        the penalised derivatives); for "gp" (type of correlation, range, power).
    knots : array, optional
        Knots instead of the default ones: k knots for "cr"; the two ends of the range or all
        k + degree + 1 knots for "ps" and "bs"; the two ends of the period or all for "cc" (k) and
        "cp" (k + 1); any points, shape (n_knots, d), for "tp" and "gp".
    label : str, optional
        The term as the user wrote it, for messages.

    Returns
    -------
    Basis
        Its `penalties` are raw: not scaled, not constrained.

    Raises
    ------
    FormulaError
        Unknown basis, or k, m, knots or the data do not allow it.

    Examples
    --------
    >>> import numpy as np
    >>> construct("cr", np.linspace(0.0, 1.0, 50), k=5).evaluate(np.array([0.0, 0.5])).shape
    (2, 5)
    """
    return build(bs, ask(bs, x, k=k, m=m, knots=knots, label=label))


def ask(
    bs: str,
    x: Matrix,
    *,
    k: int | None,
    m: int | Sequence[float] | None,
    knots: Matrix | Sequence[float] | None,
    label: str,
) -> Request:
    """Return the request with the parameters of `construct`."""
    order = None if m is None else (m if isinstance(m, int) else tuple(m))
    points = None if knots is None else as_rows(np.asarray(knots, dtype=np.float64))
    return Request(bs, as_rows(x), k, order, points, label)


def build(bs: str, request: Request) -> Basis:
    """Construct the basis `bs` from a request, which names the term's own basis in messages."""
    if bs not in _CONSTRUCTORS:
        known = ", ".join(repr(name) for name in registered())
        raise request.refuse(f"unknown basis {bs!r}{suggestion(bs, registered())}; known: {known}.")
    return _CONSTRUCTORS[bs](request)


def penalty_scale(X: Matrix, S: Matrix | Vector) -> float:
    """Return mgcv's S.scale = norm1(S) / normInf(X)^2 of a penalty.

    Parameters
    ----------
    X : Matrix
        Raw columns of all training rows, before the centring constraint and before multiplication
        by a `by` variable, shape (n, k).
    S : Matrix or Vector
        Raw penalty, shape (k, k), or its diagonal (k,).

    Returns
    -------
    float
        The factor that S is divided by (1 for a zero penalty).
    """
    size = float((np.abs(S) if S.ndim == 1 else np.abs(S).sum(axis=0)).max())
    rows = max(float(np.abs(X[part]).sum(axis=1).max()) for part in row_chunks(len(X), X.shape[1]))
    return size / rows**2 if size > 0.0 else 1.0


def scale_penalty(X: Matrix, S: Matrix) -> Matrix:
    """Return S / penalty_scale(X, S), the penalty that a smoothing parameter of mgcv multiplies."""
    return S / penalty_scale(X, S)


def centre(column_sums: Vector) -> Matrix:
    """Return Z (k, k - 1), so that the columns X Z sum to zero over the training rows.

    Householder reflection of the sums `X.sum(axis=0)` (k,): Z' column_sums = 0 and Z' Z = I.
    Columns become X Z, penalties Z' S Z.
    """
    return null_space(column_sums[:, None])


def distinct(x: Matrix) -> Matrix:
    """Return the unique rows of x (n, d), sorted; in one dimension without rounding twins."""
    if x.shape[1] > 1:
        return np.unique(x, axis=0)
    values = np.unique(x)
    gaps = np.diff(values, prepend=-np.inf)
    apart: npt.NDArray[np.bool_] = gaps > SEPARATION * (values[-1] - values[0])
    return values[apart][:, None]


def as_tuple(m: int | tuple[float, ...]) -> tuple[float, ...]:
    """Return m as a tuple, also when it is one number."""
    return (m,) if isinstance(m, int) else m


def as_rows(x: Matrix) -> Matrix:
    """Return covariates as a table of shape (n, d)."""
    return x[:, None] if x.ndim == 1 else x


def row_chunks(n: int, width: int) -> Iterator[slice]:
    """Yield slices over n rows, so that an array (rows, width) stays in cache."""
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


@dataclass(frozen=True, eq=False)
class NaturalCubic(Basis):
    """Natural cubic splines b_j, each given by its values and curvatures at common knots.

    Between the knots u_i and u_(i+1) = u_i + h, and linear outside the knots,

        b(x) = a0 v_i + a1 v_(i+1) + c0 g_i + c1 g_(i+1)
        a0 = (u_(i+1) - x) / h,  c0 = h^2 (a0^3 - a0) / 6,  and a1 = 1 - a0, c1 alike

    with the values v = b(u) and the curvatures g = b''(u). So evaluation costs O(n k) whatever
    the number of knots, and the numbers are exact to rounding.

    Parameters
    ----------
    knots : Vector
        Increasing knots, shape (n_knots,).
    values : Matrix
        Basis functions at the knots, shape (n_knots, k).
    curvatures : Matrix
        Their second derivatives at the knots, shape (n_knots, k), zero at the two ends.
    penalties : tuple of Matrix
        Raw penalties, each (k, k).
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    knots: Vector
    values: Matrix
    curvatures: Matrix
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        points = as_rows(x)[:, 0]
        table = np.concatenate([self.values, self.curvatures])
        columns = np.empty((len(points), self.k))
        for part in row_chunks(len(points), self.k):
            columns[part] = self._weights(points[part]) @ table
        return columns

    def _weights(self, x: Vector) -> scipy.sparse.csr_array:
        """Return the weights a0, a1, c0, c1 of each row, shape (n, 2 n_knots)."""
        n_knots = len(self.knots)
        interval = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, n_knots - 2)
        left, h = self.knots[interval], np.diff(self.knots)[interval]
        a1 = (x - left) / h
        a0 = 1.0 - a1
        # Clipped to the interval, the cubic part; beyond it, its slope at the nearest end.
        p1 = np.clip(a1, 0.0, 1.0)
        p0, beyond = 1.0 - p1, a1 - p1
        c0 = h**2 / 6.0 * (p0**3 - p0 + (1.0 - 3.0 * p0**2) * beyond)
        c1 = h**2 / 6.0 * (p1**3 - p1 + (3.0 * p1**2 - 1.0) * beyond)
        data = np.stack([a0, a1, c0, c1], axis=1)
        offsets = np.array([0, 1, n_knots, n_knots + 1])
        indices = interval[:, None] + offsets
        pointers = np.arange(0, 4 * len(x) + 1, 4)
        shape = (len(x), 2 * n_knots)
        return scipy.sparse.csr_array((data.ravel(), indices.ravel(), pointers), shape=shape)


@dataclass(frozen=True, eq=False)
class BSplines(Basis):
    """B-splines of one degree on given knots, continued linearly.

    Parameters
    ----------
    knots : Vector
        All knots, shape (k + degree + 1,).
    degree : int
        Degree of the B-splines, 3 for cubic.
    penalties : tuple of Matrix
        Raw penalties, each (k, k).
    null_dim : int
        Dimension of the functions that no penalty touches.
    """

    knots: Vector
    degree: int
    penalties: tuple[Matrix, ...]
    null_dim: int

    @property
    def k(self) -> int:
        """Number of B-splines."""
        return len(self.knots) - self.degree - 1

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at x, shape (n, k)."""
        points = as_rows(x)[:, 0]
        first, last = self.knots[self.degree], self.knots[self.k]
        columns = np.zeros((len(points), self.k))
        for part in row_chunks(len(points), self.k):
            self._fill(columns[part], np.clip(points[part], first, last))
        ends = BSpline(self.knots, np.eye(self.k), self.degree)
        for end, beyond in ((first, points < first), (last, points > last)):
            if beyond.any():
                columns[beyond] += (points[beyond] - end)[:, None] * ends(end, nu=1)
        return columns

    def _fill(self, columns: Matrix, x: Vector) -> None:
        """Write the degree + 1 B-splines that are not zero at each x, by Cox-de Boor recursion."""
        t, degree = self.knots, self.degree
        interval = np.clip(np.searchsorted(t, x, side="right") - 1, degree, self.k - 1)
        local = np.ones((1, len(x)))
        for order in range(1, degree + 1):
            raised = np.zeros((order + 1, len(x)))
            for j in range(order):
                low, high = t[interval + 1 + j - order], t[interval + 1 + j]
                share = local[j] / (high - low)
                raised[j] += (high - x) * share
                raised[j + 1] += (x - low) * share
            local = raised
        rows = np.arange(len(x))
        for j in range(degree + 1):
            columns[rows, interval - degree + j] = local[j]
