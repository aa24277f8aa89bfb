"""What a fitted distribution is asked for, row by row, for all rows at once.

In closed form where `tfd` has one, else by numbers, to about ten digits:

    quantile   y with F(y) = p: doubling brackets, then Chandrupatla's root finder in z, y = b(z);
               counts by doubling and bisection
    moments    of counts by summation, beyond a thousand counts by panels, to seven digits; else
               the integral of (y - median)^k f(y) dy by the double exponential rule in z,
               z = z(median) + s sinh(pi/2 sinh t), s the distance of the quartiles in z

b maps the real line to the support (`Family.support_bijector`), so that both work alike for any.

References: Chandrupatla (1997), doi:10.1016/S0965-9978(96)00051-8; Takahasi & Mori (1974),
doi:10.2977/prims/1195192451.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import scipy.optimize.elementwise
import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.errors import PredictionError
from deepregress.linalg import Array, Matrix, Vector

STEP = 1.0 / 40.0
NODES = STEP * np.arange(-170, 171)
"""Nodes t of the double exponential rule; z reaches 1e23 scales, beyond any finite variance."""
SEARCH_STEPS = 60
SEARCH_TOLERANCE = 1e-8
"""Of the predictor at the largest likelihood: the likelihood is flat there, exact to the square."""
TINY = 1e-15
"""Probability of the tails of a count that its moments leave out."""
PANELS = np.array([0.0, *0.5 ** np.arange(12.0, -1.0, -1.0)])
"""Ends of the panels in which survival is integrated, in shares of tau: short ones near 0."""
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(12)
SINGLE, GROWTH = 1024, 1.25
"""Counts that are summed one by one, and by what the panels of all others grow."""
LARGEST = 1e100
"""Beyond which no count is looked for."""
AT_ONCE = 2**18
"""Values of the density in one call of a family."""


class Distributions(Protocol):
    """What is needed of a family."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def discrete(self) -> bool:
        """Whether the response takes whole numbers only."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of the support that do not depend on parameters."""

    @property
    def formulated(self) -> bool:
        """Whether there is no `tfd.Distribution` to ask."""

    def values(self, eta: Tensor) -> Any:
        """The parameters at predictors (n_obs, U)."""

    def density(self, values: Any) -> Any:
        """The `tfd.Distribution`."""

    def support_bijector(self, values: Any) -> Any:
        """A `tfb.Bijector` from the real line to the support."""

    def log_density(self, values: Any, y: Tensor) -> Tensor:
        """log f(y), (n_obs,)."""

    def log_cdf(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y <= y), (n_obs,)."""

    def log_survival(self, values: Any, y: Tensor) -> Tensor:
        """log P(Y > y), (n_obs,)."""

    def in_support(self, y: Array) -> Array:
        """Which values the response can take."""

    def quantile(self, probability: Array, eta: Matrix) -> Vector:
        """Smallest y with F(y) >= probability, (n_obs,)."""


def log_density(family: Distributions, y: Array, eta: Matrix) -> Vector:
    """log f(y), (n_obs,); -inf outside the support."""
    y = np.asarray(y, dtype=np.float64)
    value = family.log_density(_values(family, eta), tf.constant(y)).numpy()
    return np.asarray(np.where(family.in_support(y), value, -np.inf))


def log_cdf(family: Distributions, y: Array, eta: Matrix) -> Vector:
    """log P(Y <= y), (n_obs,)."""
    y, below, above = _placed(family, y)
    value = family.log_cdf(_values(family, eta), tf.constant(y)).numpy()
    return np.asarray(np.where(below, -np.inf, np.where(above, 0.0, value)))


def log_survival(family: Distributions, y: Array, eta: Matrix) -> Vector:
    """log P(Y > y), (n_obs,)."""
    y, below, above = _placed(family, y)
    value = family.log_survival(_values(family, eta), tf.constant(y)).numpy()
    return np.asarray(np.where(below, 0.0, np.where(above, -np.inf, value)))


def quantile(family: Distributions, probability: Array, eta: Matrix) -> Vector:
    """Smallest y with F(y) >= probability, (n_obs,); infinite at 1 where the support is."""
    p = np.broadcast_to(np.asarray(probability, dtype=np.float64), (len(eta),))
    if family.discrete:
        return _count_quantile(family, p, eta)
    if family.formulated:
        return _root_quantile(family, p, eta)
    try:
        found = family.density(_values(family, eta)).quantile(tf.constant(p)).numpy()
    except NotImplementedError:
        found = _root_quantile(family, p, eta)
    return np.asarray(found)


def mean(family: Distributions, eta: Matrix) -> Vector:
    """E(y), (n_obs,)."""
    if family.formulated:
        return _moments(family, eta)[0]
    try:
        return np.asarray(family.density(_values(family, eta)).mean().numpy())
    except NotImplementedError:
        return _moments(family, eta)[0]


def variance(family: Distributions, eta: Matrix) -> Vector:
    """Var(y), (n_obs,)."""
    if family.formulated:
        return _moments(family, eta)[1]
    try:
        return np.asarray(family.density(_values(family, eta)).variance().numpy())
    except NotImplementedError:
        return _moments(family, eta)[1]


def restricted_mean(family: Distributions, tau: Array, eta: Matrix) -> Vector:
    """E min(Y, tau) = integral of S from 0 to tau, of a response that is not negative; (n_obs,).

    Of counts it is the sum of S(0), ..., S(tau - 1).

    Raises
    ------
    PredictionError
        The response can be negative.
    """
    if family.bounds[0] < 0.0:
        raise PredictionError(
            f"which='rmst' is for a response that cannot be negative, {family.name!r} can be."
        )
    tau = np.broadcast_to(np.asarray(tau, dtype=np.float64), (len(eta),))
    if family.discrete:
        top = int(tau.max(initial=0.0))
        terms = [np.exp(log_survival(family, np.full(len(tau), float(k)), eta)) for k in range(top)]
        return np.asarray(sum((np.where(k < tau, S, 0.0) for k, S in enumerate(terms)), 0.0 * tau))
    half = 0.5 * np.diff(PANELS)
    share = ((PANELS[:-1] + half)[:, None] + half[:, None] * PANEL_NODES).ravel()
    weight = (half[:, None] * PANEL_WEIGHTS).ravel()
    S = [np.exp(log_survival(family, each * tau, eta)) for each in share]
    return np.asarray(tau * (weight @ np.array(S)))


def sample(family: Distributions, eta: Matrix, n: int, *, seed: int) -> Array:
    """Draws, (n, n_obs)."""
    if family.formulated:
        return _by_quantiles(family, eta, n, seed)
    key = tf.cast(tf.random.experimental.create_rng_state(seed, "threefry")[:2], tf.int32)
    try:
        return np.asarray(family.density(_values(family, eta)).sample(n, seed=key).numpy())
    except (NotImplementedError, tf.errors.InvalidArgumentError):
        # not there, or, as that of DoublesidedMaxwell, for float32 alone
        return _by_quantiles(family, eta, n, seed)


def _by_quantiles(family: Distributions, eta: Matrix, n: int, seed: int) -> Array:
    """Quantiles of uniform numbers."""
    u = generator(seed).uniform(size=(n, len(eta)))
    return family.quantile(u.ravel(), np.tile(eta, (n, 1))).reshape(n, len(eta))


def generator(seed: int) -> np.random.Generator:
    """Random numbers for draws of a response.

    Another kind than `np.random.default_rng`: a user who drew covariates with the same seed would
    get responses that depend on them by their random numbers.
    """
    return np.random.Generator(np.random.PCG64DXSM(seed))


def saturated(family: Any, rows: Mapping[str, Array], eta: Matrix) -> Vector:
    """Largest log-likelihood that each row can have by its first predictor alone, (n_obs,).

    Where the gradient changes its sign, found by steps that double and then halve; the limit where
    it never does, as for a row that is censored on one side.
    """
    eta = eta.copy()

    def gradient() -> Vector:
        return np.asarray(family.row_derivatives(rows, eta)[1][:, 0])

    best = family.row_log_likelihood(rows, eta)
    direction = np.sign(gradient())
    step = direction.copy()
    turned = direction == 0.0
    for _ in range(SEARCH_STEPS):
        eta[:, 0] += step
        value, slope = family.row_derivatives(rows, eta)[:2]
        best = np.fmax(best, value)
        # back and half as far once the top has been passed (or the likelihood has left the floats)
        passed = ~(slope[:, 0] * step > 0.0)
        turned |= passed
        step = np.where(turned, 0.5 * np.abs(step), 2.0 * np.abs(step))
        step *= np.where(np.isfinite(slope[:, 0]), np.sign(slope[:, 0]), -direction)
        if np.all(np.abs(step) < SEARCH_TOLERANCE * np.maximum(1.0, np.abs(eta[:, 0]))):
            break
    return np.asarray(best)


def _values(family: Distributions, eta: Matrix) -> Any:
    return family.values(tf.convert_to_tensor(eta, tf.float64))


def _placed(family: Distributions, y: Array) -> tuple[Array, Array, Array]:
    """Values as the family takes them; which are below and above the whole support."""
    y = np.asarray(y, dtype=np.float64)
    least, most = family.bounds
    y = np.floor(y) if family.discrete else y
    below = (y < least) | (y == -np.inf) if family.discrete else y <= least
    return np.where(np.isfinite(y), y, 0.0), below, y >= most


def _count_quantile(family: Distributions, p: Vector, eta: Matrix) -> Vector:
    """Smallest count y with F(y) >= p, by doubling and bisection on the cdf."""
    # compared in the upper tail there, where 1 - p has digits that F has not
    upper_tail = p > 0.5
    log_p, log_q = _log(p), _log(1.0 - p)

    def enough(y: Vector) -> Array:
        below = log_cdf(family, y, eta) >= log_p
        return np.where(upper_tail, log_survival(family, y, eta) <= log_q, below)

    least = family.bounds[0]
    lower, width = np.full(len(eta), np.maximum(least, 0.0) - 1.0), np.ones(len(eta))
    while least == -np.inf and np.any(low := enough(lower) & (p > 0.0)):
        width = np.where(low, 2.0 * width, width)
        lower = np.where(low, lower - width, lower)
    upper = lower + width
    while np.any(short := ~enough(upper) & (p < 1.0) & (upper < LARGEST)):
        lower = np.where(short, upper, lower)
        width = np.where(short, 2.0 * width, width)
        upper = np.where(short, upper + width, upper)
    # beyond 2^53 the numbers that there are lie further apart than counts
    while np.any((upper - lower > 1.0) & (np.nextafter(lower, np.inf) < upper)):
        middle = np.floor(lower + (upper - lower) / 2.0)
        reached = enough(middle)
        upper, lower = np.where(reached, middle, upper), np.where(reached, lower, middle)
    return np.asarray(np.where(p < 1.0, upper, family.bounds[1]))


def _root_quantile(family: Distributions, p: Vector, eta: Matrix) -> Vector:
    """The root of F(b(z)) = p, in the upper half of S(b(z)) = 1 - p."""
    inside = (p > 0.0) & (p < 1.0)

    def excess(z: Vector, row: Array) -> Vector:
        own, at = p[row], eta[row]
        y = _bijector(family, at).forward(tf.constant(z)).numpy()
        return np.asarray(
            np.where(
                own <= 0.5,
                np.exp(log_cdf(family, y, at)) - own,
                (1.0 - own) - np.exp(log_survival(family, y, at)),
            )
        )

    z = np.full(len(p), np.nan)
    rows = np.flatnonzero(inside)
    if rows.size:
        low, high = _bracket(excess, rows)
        found = scipy.optimize.elementwise.find_root(excess, (low, high), args=(rows,))
        z[rows] = found.x
    y = _bijector(family, eta).forward(tf.constant(z)).numpy()
    least, most = family.bounds
    return np.asarray(np.where(inside, y, np.where(p <= 0.0, least, most)))


def _bracket(excess: Callable[[Vector, Array], Vector], rows: Array) -> tuple[Vector, Vector]:
    """z below and above the root, by steps that double."""
    low, high = np.full(len(rows), -1.0), np.full(len(rows), 1.0)
    while np.any(short := excess(low, rows) > 0.0):
        high = np.where(short, low, high)
        low = np.where(short, 2.0 * low, low)
    while np.any(short := excess(high, rows) < 0.0):
        low = np.where(short, high, low)
        high = np.where(short, 2.0 * high, high)
    return low, high


def _bijector(family: Distributions, eta: Matrix) -> Any:
    return family.support_bijector(_values(family, eta))


def _moments(family: Distributions, eta: Matrix) -> tuple[Vector, Vector]:
    """Mean and variance, of a continuous response by the double exponential rule."""
    if family.discrete:
        return _count_moments(family, eta)
    block = max(1, AT_ONCE // len(NODES))
    parts = [_integrated(family, eta[start : start + block]) for start in range(0, len(eta), block)]
    return np.concatenate([m for m, _ in parts]), np.concatenate([v for _, v in parts])


def _count_moments(family: Distributions, eta: Matrix) -> tuple[Vector, Vector]:
    """Sums over the counts up to a quantile beyond which no probability is left.

    Where P(Y > y) falls as y^-a with a <= 1 there is no mean, with a <= 2 no variance: infinity.
    """
    n = len(eta)
    asked = (TINY, 0.5, 1.0 - 1e3 * TINY, 1.0 - TINY)
    least, centre, far, most = (quantile(family, np.full(n, p), eta) for p in asked)
    with np.errstate(divide="ignore"):
        a = np.log(1e3) / np.log((most + 1.0) / (far + 1.0))
    above, weight = _counts(float(np.max(most - least, initial=0.0)))
    total, square = np.empty(n), np.empty(n)
    block = max(1, AT_ONCE // len(above))
    for start in range(0, n, block):
        rows = slice(start, start + block)
        y = least[rows, None] + above
        repeated = np.repeat(eta[rows], len(above), axis=0)
        mass = np.exp(log_density(family, y.ravel(), repeated)).reshape(y.shape) * weight
        # counts beyond 2^53, which have no neighbours, may have a density that is no number
        mass = np.where((y <= most[rows, None]) & np.isfinite(mass), mass, 0.0)
        away = y - centre[rows, None]
        total[rows] = np.sum(mass * away, axis=1)
        square[rows] = np.sum(mass * away**2, axis=1)
    return np.where(a > 1.0, centre + total, np.inf), np.where(a > 2.0, square - total**2, np.inf)


def _counts(widest: float) -> tuple[Vector, Vector]:
    """Counts 0, ..., widest and their weights in a sum over all: beyond `SINGLE` not every one.

    There the sum is an integral over panels that grow with the count, whose nodes lie between two
    counts.
    """
    single = np.arange(min(widest, SINGLE) + 1.0)
    if widest <= SINGLE:
        return single, np.ones(len(single))
    first = SINGLE + 0.5
    ends = first * GROWTH ** np.arange(np.ceil(np.log(widest / first) / np.log(GROWTH)) + 1.0)
    half = 0.5 * np.diff(ends)[:, None]
    x = (ends[:-1, None] + half + half * PANEL_NODES).ravel()
    weight, below = (half * PANEL_WEIGHTS).ravel(), np.floor(x)
    counts = np.concatenate([single, below, below + 1.0])
    share = x - below
    return counts, np.concatenate([np.ones(len(single)), weight * (1.0 - share), weight * share])


def _integrated(family: Distributions, eta: Matrix) -> tuple[Vector, Vector]:
    n, m = len(eta), len(NODES)
    bijector = _bijector(family, eta)
    quartiles = [quantile(family, np.full(n, p), eta) for p in (0.25, 0.5, 0.75)]
    z = [bijector.inverse(tf.constant(q)).numpy() for q in quartiles]
    inner = 0.5 * np.pi * np.sinh(NODES)
    scale = (z[2] - z[0])[:, None]
    at = z[1][:, None] + scale * np.sinh(inner)
    weight = STEP * scale * np.cosh(inner) * 0.5 * np.pi * np.cosh(NODES)
    repeated = np.repeat(eta, m, axis=0)
    bijector = _bijector(family, repeated)
    flat = tf.constant(at.ravel())
    y = bijector.forward(flat).numpy().reshape(n, m)
    slope = bijector.forward_log_det_jacobian(flat, event_ndims=0).numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        log_mass = (log_density(family, y.ravel(), repeated) + slope).reshape(n, m)
        # beyond the largest float the density is zero
        mass = np.where(np.isfinite(log_mass), np.exp(log_mass) * weight, 0.0)
        distance = np.where(mass > 0.0, y - quartiles[1][:, None], 0.0)
    shift = np.sum(mass * distance, axis=1)
    spread = np.sum(mass * (distance - shift[:, None]) ** 2, axis=1)
    return quartiles[1] + shift, spread


def _log(x: Vector) -> Vector:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))
