"""l of rows that see a neural transformation of their response and the predictors (METHODS 8).

    h = (phi - loc) / scale + sum_k tanh(o_k - flow[k])
    h' = phi' / scale + sum_k (1 - tanh^2(o_k - flow[k])) o_k'

at the points where a row sees h, which module `transformed` makes into its log-likelihood. phi and
o_k are outputs of a network of y (module `flow`). l is a function of few numbers per row, of the
outputs and the predictors, whose derivatives serve the coefficients and, by the chain rule, the
weights of the network; no weight is part of a compiled kernel.

References: Kook et al. (2024), arXiv:2405.05429; Hothorn, Moest & Buehlmann (2018),
doi:10.1111/sjos.12291.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from deepregress.bijectors import Link, Tensor
from deepregress.families.standard import Latent
from deepregress.families.transformed import LOWER, SLOPE, Transformed
from deepregress.linalg import Array


@dataclass(frozen=True, eq=False)
class Seen:
    """Where rows see the network.

    Parameters
    ----------
    joint : Joint
    flags : dict of str to array
        Which ends are open.
    places : dict of str to array, each (n_obs,)
        y at each point.
    """

    joint: Joint
    flags: dict[str, Array]
    places: dict[str, Array]


@dataclass(frozen=True)
class Joint:
    """Row-wise log-likelihood in all that a row sees: the network's outputs, then the predictors.

    Attributes
    ----------
    latent : Latent
        F.
    points : tuple of str
        Where the row sees the network; at `SLOPE` its derivatives in y.
    links : pair of Link
        Of loc and scale.
    units : int
        Number of flow[k].
    """

    latent: Latent
    points: tuple[str, ...]
    links: tuple[Link, Link]
    units: int

    @property
    def n_seen(self) -> int:
        """Number of network outputs among the columns."""
        return len(self.points) * (1 + self.units)

    def log_likelihood(self, rows: Mapping[str, Tensor], seen: Tensor) -> Tensor:
        """l_i, (n_obs,); `rows` as `Transformed` takes them.

        Parameters
        ----------
        rows : mapping of str to tensor
        seen : tensor, (n_obs, n_seen + 2 + units)
            For each point phi, o_1, o_2, ...; then the predictors of loc, scale, flow[1], ...
        """
        values = Values.of(seen[:, self.n_seen :], self.links)
        width = 1 + self.units
        at = {
            name: (seen[:, j * width], seen[:, j * width + 1 : (j + 1) * width])
            for j, name in enumerate(self.points)
        }
        columns = [values.height(*at[name]) for name in self.points if name != SLOPE]
        if SLOPE in at:
            columns.append(values.rise(*at[SLOPE], at[LOWER][1]))
        transformed = Transformed(self.latent, self.points)
        return transformed.log_likelihood(rows, tf.stack(columns, axis=1))


@dataclass(frozen=True)
class Given:
    """The same of the predictors alone, the network's outputs being in `rows["seen"]`."""

    joint: Joint

    def log_likelihood(self, rows: Mapping[str, Tensor], eta: Tensor) -> Tensor:
        """l_i, (n_obs,), at predictors (n_obs, U)."""
        return self.joint.log_likelihood(rows, tf.concat([rows["seen"], eta], axis=1))


@dataclass(frozen=True, eq=False)
class Values:
    """Where the predictors put the network: the h of each row, and its slope."""

    loc: Tensor
    log_scale: Tensor
    flow: Tensor

    @classmethod
    def of(cls, eta: Tensor, links: tuple[Link, Link]) -> Values:
        """From predictors (n_obs, U)."""
        return cls(links[0].inverse(eta[:, 0]), links[1].log_inverse(eta[:, 1]), eta[:, 2:])

    def height(self, phi: Tensor, o: Tensor) -> Tensor:
        """H, (n_obs,), of phi (n_obs,) and o (n_obs, units)."""
        return (phi - self.loc) * tf.exp(-self.log_scale) + self._sum(tf.tanh(o - self.flow))

    def rise(self, slope: Tensor, slopes: Tensor, o: Tensor) -> Tensor:
        """dh / dy, (n_obs,), from the derivatives of phi and o in y."""
        bend = 1.0 - tf.tanh(o - self.flow) ** 2
        return slope * tf.exp(-self.log_scale) + self._sum(bend * slopes)

    def _sum(self, terms: Tensor) -> Tensor:
        return tf.reduce_sum(terms, axis=1) if terms.shape[1] else tf.zeros_like(self.loc)
