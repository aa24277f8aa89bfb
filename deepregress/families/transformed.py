"""l of rows that see an increasing transformation of their response at a few points (METHODS 8).

    exact      log f(h(y)) + log h'(y)
    censored   log(F(h(upper)) - F(h(lower)))
    truncated  minus log(F(h(exit)) - F(h(entry)))

f and F are those of a standard distribution. A row's predictors are the numbers it sees: h at its
points, then the slope where rows are exact. Flags say which ends are open. With a scale sigma and
an autoregression, h at the points and h' are

    (h - sum_j phi_j m_j) / sigma,    h' / sigma,    m_j: h at the response j steps before

References: Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from deepregress.bijectors import Link, Map, Tensor
from deepregress.families.standard import Latent
from deepregress.linalg import Array

LOWER, UPPER, ENTRY, EXIT, SLOPE = "lower", "upper", "entry", "exit", "slope"
POINTS = (LOWER, UPPER, ENTRY, EXIT, SLOPE)
SIGMA = "sigma"
MEMORY, PHI = "memory", "phi"
"""Names of m_j and phi_j, which are numbered."""


@dataclass(frozen=True, eq=False)
class Scale:
    """u, the scale of y that is transformed, and du / dy, as tensor functions; y of u."""

    u: Map = field(repr=False)
    slope: Map = field(repr=False)
    y: Map = field(repr=False)


NUMBER = Scale(lambda y: y, tf.ones_like, lambda u: u)
POSITIVE = Scale(tf.math.log, lambda y: 1.0 / y, tf.exp)
COUNT = Scale(tf.math.log1p, lambda y: 1.0 / (1.0 + y), tf.math.expm1)


@dataclass(frozen=True)
class Transformed:
    """Row-wise log-likelihood of h at some points and the slope h'.

    Attributes
    ----------
    latent : Latent
        f and F.
    points : tuple of str
        What the rows see, a part of `POINTS` in its order; then the predictor of the scale, and
        m_j and phi_j of each lag.
    scale : Link or None
        Of the scale, where there is one.
    """

    latent: Latent
    points: tuple[str, ...]
    scale: Link | None = None

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """l_i, (n_obs,).

        Parameters
        ----------
        rows : mapping of str to tensor, each (n_obs,)
            `exact` is 1 where the row is exact; `open_lower` and `open_upper` where there is no
            such bound, or the row is exact; `open_entry` and `open_exit` where there is no
            truncation.
        eta : tensor, (n_obs, number of points)
        """
        seen = self._standardised(dict(zip(self.points, tf.unstack(eta, axis=1), strict=True)))
        below = seen[LOWER]
        value = tf.zeros_like(below)
        if SLOPE in seen:
            exact = rows["exact"] > 0
            slope = tf.where(exact, seen[SLOPE], tf.ones_like(below))
            value = tf.where(exact, self.latent.log_density(below) + tf.math.log(slope), value)
        if "open_lower" in rows:
            value += self._between(rows, below, seen.get(UPPER, below), LOWER, UPPER)
        if ENTRY in seen or EXIT in seen:
            entry = seen.get(ENTRY, below)
            value -= self._between(rows, entry, seen.get(EXIT, entry), ENTRY, EXIT)
        return value

    def _standardised(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """h and h' without what is left of the past, in units of the scale."""
        numbers = [name.removeprefix(PHI) for name in seen if name.startswith(PHI)]
        if numbers:
            past = tf.add_n([seen[PHI + j] * seen[MEMORY + j] for j in numbers])
            seen |= {name: seen[name] - past for name in POINTS[:-1] if name in seen}
        if self.scale is not None:
            inverse = tf.exp(-self.scale.log_inverse(seen[SIGMA]))
            seen |= {name: seen[name] * inverse for name in POINTS if name in seen}
        return seen

    def _between(
        self, rows: Mapping[str, Tensor], a: Tensor, b: Tensor, lower: str, upper: str
    ) -> Tensor:
        return self.latent.log_probability(
            a, b, rows[f"open_{lower}"] > 0, rows[f"open_{upper}"] > 0
        )


def points_seen(
    rows: Mapping[str, Array], bounds: tuple[float, float], *, discrete: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Where rows see h, and which of their ends are open: `points` and `rows` of `Transformed`.

    Parameters
    ----------
    rows : mapping of str to array, each (n_obs,)
        `Response.rows()`.
    bounds : pair of float
        Ends of the support.
    discrete : bool
        Whether y takes whole numbers only; each is then the interval (y - 1, y].
    """
    lower, upper = rows["lower"], rows.get("upper", rows["lower"])
    exact = np.zeros(len(lower), bool) if discrete else lower == upper
    points, flags = {LOWER: lower}, {"exact": exact}
    if discrete:
        # P(lower <= Y) = P(Y > lower - 1)
        points = {LOWER: np.ceil(lower) - 1.0, UPPER: upper}
    elif "left" in rows or "interval" in rows:
        points[UPPER] = upper
    if discrete or "upper" in rows:
        flags["open_lower"] = exact | ~inside(points[LOWER], bounds, discrete=discrete)
        flags["open_upper"] = exact | (upper >= bounds[1])
    if ENTRY in rows or EXIT in rows:
        nowhere = np.full(len(lower), np.inf)
        entry, left = rows.get(ENTRY, -nowhere), rows.get(EXIT, nowhere)
        flags["open_entry"] = ~inside(entry, bounds, discrete=discrete)
        flags["open_exit"] = np.isposinf(left)
        points |= {name: rows[name] for name in (ENTRY, EXIT) if name in rows}
    if not discrete and (exact.any() or "exact" in rows):
        points[SLOPE] = lower
    if discrete:
        points = {name: np.floor(y) for name, y in points.items()}
    return points, {name: each.astype(np.float64) for name, each in flags.items()}


def inside(y: Array, bounds: tuple[float, float], *, discrete: bool) -> Array:
    """Where h is finite, as far as the lower end of the support goes."""
    return np.asarray(y >= bounds[0] if discrete else y > bounds[0])
