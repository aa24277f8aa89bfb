"""Uncertainty of trained networks as noise in the predictors (METHODS 10).

The networks of a predictor are uncertain by directions f_r(z), r = 1..R, of which each row's noise
is a sum with standard normal weights. Each kind is a linear map of what networks give for a row,
made orthogonal to the protected columns x as the effect is, c its multiplier:

    f(z) = c (o(z) - x' A) T
    members    o: outputs of the K members, each without one fold of the rows
               T T' = (K - 1) / K (I - 11' / K), the delete-a-group jackknife
    dropout    o: outputs of networks thinned at random, T T' their sample covariance
    laplace    o: features U_m(z) of each member, T T' = (H + tau I)^-1, H of its head gamma_m

The structured coefficients are refitted to any other network, beta moves by -R = -P f(training
rows), P = (X'WX + S)^-1 X'W their row map; multipliers stay. So a predictor z' beta + f(z) has the
covariance

    z' V z + g g',   g = f - z' R,        and the coefficients  V + R R' = P (W^-1 + Gamma) P'

with Gamma = f f' over the training rows (Dorigatti et al. 2023). Orthogonal networks have R = 0 at
their protected columns. Dropout and Laplace covariances are the mean over the members of theirs.

References: Kott (2001), The delete-a-group jackknife, J. Official Statistics 17; Gal & Ghahramani
(2016), arXiv:1506.02142; Daxberger et al. (2021), arXiv:2106.14806; Dorigatti, Schubert, Bischl &
Ruegamer (2023), Frequentist uncertainty quantification in semi-structured neural networks, AISTATS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from deepregress.deep.features import features
from deepregress.disk.arrow import Inverse
from deepregress.disk.stored import StoredArray
from deepregress.frame import Frame
from deepregress.linalg import Array, Matrix
from deepregress.model_matrix import ModelMatrix
from deepregress.predictor import DeepEffect, evaluate
from deepregress.terms.base import NetworkBlock

KINDS = ("conditional", "population", "members", "dropout", "laplace")
"""What `with_uncertainty` can be asked for; the last three have directions f."""
ABOUT = {
    "conditional": "are given the networks; with_uncertainty() adds that of the networks",
    "population": "are those of effects in the population",
    "members": "hold the jackknife variance of the cross-fitted networks",
    "dropout": "hold the networks' uncertainty by Monte Carlo dropout",
    "laplace": "hold the networks' uncertainty by a last-layer Laplace approximation",
}
"""What standard errors hold, for the last lines of a summary."""


@dataclass(frozen=True)
class Masks:
    """Thinned networks: sample s leaves out units of member s mod K, drawn from (seed, s)."""

    samples: int
    seed: int

    def of_member(self, m: int, n_members: int) -> Array:
        """Samples of one member."""
        return np.arange(m, self.samples, n_members)


def outputs(
    kind: str, effect: DeepEffect, inputs: Sequence[Array | StoredArray], masks: Masks
) -> Matrix:
    """o(z) of all rows, (n_obs, r): what the directions of a kind are made of."""
    arranged = effect.architecture.arrange(inputs)
    if kind == "members":
        return evaluate(effect.architecture, effect.members, arranged).T
    n_members = len(effect.members.trainable)
    if kind == "laplace":
        each = [
            features(effect.architecture, effect.members, arranged, member=m)
            for m in range(n_members)
        ]
        return np.hstack(each)
    columns = []
    for s in range(masks.samples):
        m = s % n_members
        mask = (masks.seed, s)
        U = features(effect.architecture, effect.members, arranged, member=m, mask=mask)
        columns.append(U @ effect.members.trainable[m, -U.shape[1] :].astype(np.float64))
    return np.column_stack(columns)


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions f of one deep effect.

    Parameters
    ----------
    columns : Array of int
        Their places among those of all effects.
    projection : Matrix, (p, r)
        A, coefficients of o on the protected columns.
    mixing : Matrix, (r, R)
        c T.
    """

    columns: Array
    projection: Matrix = field(repr=False)
    mixing: Matrix = field(repr=False)


class Noisy(Protocol):
    """What is needed of a predictor."""

    @property
    def parameter(self) -> str:
        """Name of its parameter."""

    @property
    def effects(self) -> Mapping[str, DeepEffect]:
        """Deep effects by label."""

    def networks(self, excluded: frozenset[str]) -> list[NetworkBlock]:
        """Network blocks that are not excluded and have an effect."""

    def matrix(self, frame: Frame, excluded: frozenset[str]) -> ModelMatrix:
        """Columns, with those that the networks are protected from."""


@dataclass(frozen=True, eq=False)
class NetworkNoise:
    """Noise of all networks of a model.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    masks : Masks
        Of kind "dropout".
    effects : dict of (parameter, label) to Directions
    response : Matrix, (n_coef, R)
        R, by which the coefficients answer.
    conditional : Inverse
        V, given the networks.
    """

    kind: str
    masks: Masks
    effects: dict[tuple[str, str], Directions]
    response: Matrix = field(repr=False)
    conditional: Inverse = field(repr=False)

    def directions(
        self,
        unit: Noisy,
        frame: Frame,
        Z: ModelMatrix,
        *,
        places: Sequence[int],
        excluded: frozenset[str],
    ) -> Matrix:
        """g = f - z' R of each row, (n_obs, R).

        Parameters
        ----------
        unit : Noisy
        frame : Frame
        Z : ModelMatrix, (n_obs, m)
            Gradient of the predictor, or of one effect, in its coefficients.
        places : sequence of int
            Of these coefficients in the joint vector.
        excluded : frozenset of str
            Labels of deep effects that are not part of it.
        """
        answer = self.response[np.asarray(places, dtype=np.int64)]
        g = np.column_stack([Z.times(-column) for column in answer.T]) if answer.any() else None
        total = np.zeros((frame.n_obs, self.response.shape[1])) if g is None else g
        shown = [b for b in unit.networks(excluded) if (unit.parameter, b.label) in self.effects]
        if not shown:
            return total
        X = unit.matrix(frame, excluded)
        for block in shown:
            effect, own = unit.effects[block.label], self.effects[unit.parameter, block.label]
            o = outputs(self.kind, effect, block.evaluate(frame), self.masks)
            # a sum over columns in a fixed order: one row at a time or all at once
            protected = X.columns(effect.protected)
            o = o - np.einsum("ij,jr->ir", protected, own.projection)
            total[:, own.columns] += np.einsum("ir,rd->id", o, own.mixing)
        return total
