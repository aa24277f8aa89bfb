"""Gaussian Markov random field over areas, `bs="mrf"` (METHODS 2).

One coefficient per area; neighbours are alike, by the Laplacian of the neighbourhood graph:

    f(area a) = coef_a,    coef' S coef = sum over neighbours a, b of (coef_a - coef_b)^2
    S_aa = number of neighbours of a,  S_ab = -1 for neighbours, else 0

with one function in the null space for each connected part of the graph. With k below the number of
areas, the k smoothest directions against M, the rows per area (1 where there are none), n = sum M:

    M^(-1/2) S M^(-1/2) = U diag(d) U',    coef = n^(1/2) M^(-1/2) U_k b,    S_b = n diag(d_k)

Areas enter as their positions in the neighbourhood, so an area without rows has an effect too;
other areas cannot be evaluated.

References: Rue and Held, "Gaussian Markov Random Fields", 2005; Wood 2017, sec. 5.4.2 and 5.8.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph

from deepregress.basis.base import Basis, as_rows
from deepregress.errors import FormulaError, suggestion
from deepregress.linalg import Matrix, Vector


@dataclass(frozen=True, eq=False)
class MarkovField(Basis):
    """Effects of areas.

    Parameters
    ----------
    areas : tuple of str
        Areas; x holds positions in it.
    effects : Matrix
        Basis functions at the areas, shape (n_areas, k); the identity for full rank.
    penalties : tuple of Matrix
        Raw penalty (k, k).
    null_dim : int
        Number of connected parts of the graph.
    """

    areas: tuple[str, ...]
    effects: Matrix
    penalties: tuple[Matrix, ...]
    null_dim: int

    def evaluate(self, x: Matrix) -> Matrix:
        """Return the basis functions at positions x (n,) or (n, 1) of areas, shape (n, k)."""
        return self.effects[as_rows(x)[:, 0].astype(np.int64)]


def construct(
    codes: Vector,
    neighbours: Mapping[str, str | Sequence[str]],
    *,
    k: int | None = None,
    label: str = "",
) -> MarkovField:
    """Construct a Markov random field from a neighbourhood and the areas of the training rows.

    Parameters
    ----------
    codes : Vector
        Position of each row's area among the keys of `neighbours`, shape (n,).
    neighbours : mapping
        Neighbours of each area (a list of names, or one name), areas without rows included.
    k : int, optional
        Number of basis functions; the number of areas by default.
    label : str, optional
        The term as the user wrote it, for messages.

    Raises
    ------
    FormulaError
        The neighbourhood is no symmetric graph, or k does not fit it.

    Examples
    --------
    >>> import numpy as np
    >>> field = construct(np.array([0, 2, 2]), {"a": ["b"], "b": ["a", "c"], "c": ["b"]})
    >>> field.evaluate(np.array([2]))
    array([[0., 0., 1.]])
    """
    areas = tuple(neighbours)
    refusal = f"{label}: " if label else ""
    S = _laplacian(neighbours, refusal)
    parts, _ = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(S), directed=False)
    if k is None or k == len(areas):
        return MarkovField(areas, np.eye(len(areas)), (S,), int(parts))
    if not parts < k < len(areas):
        raise FormulaError(
            f"{refusal}basis 'mrf' needs k from {parts + 1} to the {len(areas)} areas, got {k}."
        )
    rows = np.bincount(codes.astype(np.int64), minlength=len(areas))
    weight = np.maximum(rows, 1).astype(np.float64)
    root = np.sqrt(weight)
    d, U = scipy.linalg.eigh(S / np.outer(root, root))
    d[:parts] = 0.0
    n = weight.sum()
    effects = np.ascontiguousarray(np.sqrt(n) * U[:, k - 1 :: -1] / root[:, None])
    return MarkovField(areas, effects, (np.diag(n * d[k - 1 :: -1]),), int(parts))


def _laplacian(neighbours: Mapping[str, str | Sequence[str]], refusal: str) -> Matrix:
    """Return the graph Laplacian in the order of the areas."""
    lists = {area: [near] if isinstance(near, str) else near for area, near in neighbours.items()}
    position = {area: i for i, area in enumerate(lists)}
    pairs = [(area, other) for area, near in lists.items() for other in near]
    for area, other in pairs:
        if other not in position:
            raise FormulaError(
                f"{refusal}{other!r}, a neighbour of {area!r}, is no area of the neighbourhood"
                f"{suggestion(other, tuple(position))}."
            )
    S = np.zeros((len(position), len(position)))
    for area, other in pairs:
        if area not in lists[other]:
            raise FormulaError(
                f"{refusal}{other!r} is a neighbour of {area!r}, but {area!r} is none of {other!r}."
            )
        if other != area:
            S[position[area], position[other]] = -1.0
    S[np.diag_indices_from(S)] = -S.sum(axis=1)
    return S
