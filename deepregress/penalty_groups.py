"""Quadratic penalties placed in the joint coefficient vector, and log|S|_+ of their sum.

    S = sum_j lam_j S_j,   log|S|_+ = sum over groups of penalties on the same coefficients

A penalty is a matrix on the coefficients of one term, or the diagonal of one. The pseudo
determinant of several matrices is taken without forming their sum, so that smoothing parameters of
very different size cost no digits.

Reference: Wood (2011), doi:10.1111/j.1467-9868.2010.00749.x, appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from deepregress.linalg import Array, Matrix, Vector
from deepregress.penalty import PlacedPenalty, as_matrix

RANGE_TOLERANCE = 1e-9
"""Eigenvalues of a penalty below this fraction of its largest count as its null space."""


@dataclass(frozen=True)
class Penalty:
    """A quadratic penalty placed in the joint coefficient vector."""

    index: slice
    given: PlacedPenalty
    root: Matrix | Vector
    """E_j with S_j = E_j' E_j, (rank, p), or the roots (p,) of a diagonal S_j."""

    @property
    def estimated(self) -> bool:
        """Whether V chooses its smoothing parameter."""
        return self.given.sp is None and self.given.df is None

    @property
    def diagonal(self) -> bool:
        """Whether S_j is given by its diagonal."""
        return self.given.S.ndim == 1

    def balance(self, information: Vector) -> float:
        """The lam at which penalty and information of the block are of one size.

        `information` (n_coef,) is the diagonal of H.
        """
        own = self.given.S if self.diagonal else np.diagonal(self.given.S)
        return float(information[self.index].sum() / own.sum())

    def times(self, coef: Vector) -> Vector:
        """S_j coef, (n_coef,)."""
        out, own = np.zeros_like(coef), coef[self.index]
        out[self.index] = self.given.S * own if self.diagonal else self.root.T @ (self.root @ own)
        return out

    def roughness(self, coef: Vector) -> float:
        """coef' S_j coef."""
        own = coef[self.index]
        rough = self.root * own if self.diagonal else self.root @ own
        return float(rough @ rough)

    def weights(self, n_coef: int) -> Vector:
        """The diagonal of a diagonal S_j, (n_coef,)."""
        out = np.zeros(n_coef)
        out[self.index] = self.given.S
        return out


@dataclass(frozen=True)
class Group:
    """Penalties on the same coefficients, in an orthonormal basis U of the space they penalise."""

    index: slice
    members: tuple[int, ...]
    basis: Matrix
    """U, (p, rank)."""
    roots: tuple[Matrix, ...]
    """E_j U with S_j = E_j' E_j, (rank of S_j, rank) each."""
    logdet: float
    """log|U' S U| where there is one penalty."""

    @property
    def rank(self) -> int:
        """Dimension of the penalised space."""
        return int(self.basis.shape[1])

    def log_pseudo_det(self, lam: Vector) -> tuple[float, Vector, Matrix]:
        """log|sum_j lam_j S_j|_+ with gradient and Hessian in the members' log lam.

        From Q R, the stacked lam_j^(1/2) E_j U: with Q_j the rows of Q that belong to S_j, the
        derivatives are |Q_j|^2 and -|Q_j Q_k'|^2 (plus |Q_j|^2 for j = k). The sum is never
        formed, so smoothing parameters of very different size cost no digits; the largest rows go
        first, which makes the Householder steps stable by rows.
        """
        if len(self.members) == 1:
            value = self.rank * np.log(lam[self.members[0]]) + self.logdet
            return float(value), np.array([float(self.rank)]), np.zeros((1, 1))
        parts = [np.sqrt(lam[j]) * root for j, root in zip(self.members, self.roots, strict=True)]
        order = np.argsort([-np.abs(part).max() for part in parts])
        stacked = np.concatenate([parts[i] for i in order])
        Q, R, _ = scipy.linalg.qr(stacked, mode="economic", pivoting=True)
        ends = np.cumsum([len(parts[i]) for i in order])[:-1]
        blocks = dict(zip(order.tolist(), np.split(Q, ends), strict=True))
        Qs = [blocks[i] for i in range(len(parts))]
        first = np.array([np.sum(q**2) for q in Qs])
        second = np.diag(first) - np.array([[np.sum((a @ b.T) ** 2) for b in Qs] for a in Qs])
        return 2.0 * float(np.log(np.abs(np.diagonal(R))).sum()), first, second


@dataclass(frozen=True)
class DiagonalGroup:
    """Diagonal penalties on the same coefficients."""

    index: slice
    members: tuple[int, ...]
    diagonals: Matrix
    """Of the members, (n_members, p)."""

    @property
    def penalised(self) -> Array:
        """Which coefficients they penalise, (p,) bool."""
        return np.asarray((self.diagonals > 0.0).any(axis=0))

    @property
    def places(self) -> Array:
        """The penalised coefficients in the joint vector, (rank,)."""
        return np.asarray(self.index.start + np.flatnonzero(self.penalised))

    @property
    def rank(self) -> int:
        """Number of penalised coefficients."""
        return int(self.penalised.sum())

    def log_pseudo_det(self, lam: Vector) -> tuple[float, Vector, Matrix]:
        """log|sum_j lam_j S_j|_+ with gradient and Hessian in the members' log lam."""
        parts = lam[list(self.members), None] * self.diagonals[:, self.penalised]
        total = parts.sum(axis=0)
        shares = parts / total
        first = shares.sum(axis=1)
        return float(np.log(total).sum()), first, np.diag(first) - shares @ shares.T


def root(S: Matrix | Vector) -> Matrix | Vector:
    """E with S = E' E, (rank, p), or the roots (p,) of a diagonal."""
    if S.ndim == 1:
        return np.asarray(np.sqrt(S))
    values, vectors = scipy.linalg.eigh(S)
    positive = values > RANGE_TOLERANCE * max(values[-1], 0.0)
    return np.asarray(np.sqrt(values[positive])[:, None] * vectors[:, positive].T)


def grouped(penalties: Sequence[Penalty]) -> tuple[Group | DiagonalGroup, ...]:
    """The penalties by the coefficients they are on."""
    places: dict[tuple[int, int], list[int]] = {}
    for j, p in enumerate(penalties):
        places.setdefault((p.index.start, p.index.stop), []).append(j)
    groups: list[Group | DiagonalGroup] = []
    for (start, stop), members in places.items():
        own = [penalties[j] for j in members]
        if all(p.diagonal for p in own):
            diagonals = np.stack([p.given.S for p in own])
            groups.append(DiagonalGroup(slice(start, stop), tuple(members), diagonals))
        else:
            groups.append(_group(slice(start, stop), tuple(members), own))
    return tuple(groups)


def _group(index: slice, members: tuple[int, ...], own: Sequence[Penalty]) -> Group:
    matrices = [as_matrix(p.given.S) for p in own]
    joint = sum(S / np.linalg.norm(S) for S in matrices)
    values, vectors = scipy.linalg.eigh(joint)
    U = vectors[:, values > RANGE_TOLERANCE * values[-1]]
    roots = tuple(as_matrix(p.root) @ U for p in own)
    logdet = float(np.linalg.slogdet(U.T @ matrices[0] @ U)[1])
    return Group(index, members, U, roots, logdet)
