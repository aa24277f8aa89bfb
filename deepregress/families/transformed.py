"""l of rows that see an increasing transformation of their response at a few points (METHODS 8).

    exact      log f(h(y)) + log h'(y)
    censored   log(F(h(upper)) - F(h(lower)))
    truncated  minus log(F(h(exit)) - F(h(entry)))

f and F are those of a standard distribution. A row's predictors are the numbers it sees: h at its
points, then the slope where rows are exact. Flags say which ends are open.

References: Hothorn, Moest & Buehlmann (2018), doi:10.1111/sjos.12291, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from deepregress.bijectors import Tensor
from deepregress.families.standard import Latent

LOWER, UPPER, ENTRY, EXIT, SLOPE = "lower", "upper", "entry", "exit", "slope"
POINTS = (LOWER, UPPER, ENTRY, EXIT, SLOPE)


@dataclass(frozen=True)
class Transformed:
    """Row-wise log-likelihood of h at some points and the slope h'.

    Attributes
    ----------
    latent : Latent
        f and F.
    points : tuple of str
        What the rows see, a part of `POINTS` in its order.
    """

    latent: Latent
    points: tuple[str, ...]

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
        seen = dict(zip(self.points, tf.unstack(eta, axis=1), strict=True))
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

    def _between(
        self, rows: Mapping[str, Tensor], a: Tensor, b: Tensor, lower: str, upper: str
    ) -> Tensor:
        return self.latent.log_probability(
            a, b, rows[f"open_{lower}"] > 0, rows[f"open_{upper}"] > 0
        )
