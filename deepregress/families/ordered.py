"""What is asked of the probabilities of ordered classes, whichever family they come from.

    class   the most probable class
    rps     sum_r (P(Y <= r) - [y <= r])^2, the ranked probability score; smaller is better

Reference: Epstein (1969), doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deepregress.errors import PredictionError
from deepregress.linalg import Array, Matrix, Vector

CLASS, RPS = "class", "rps"
QUANTITIES: Mapping[str, bool] = {CLASS: False, RPS: True}
"""Whether they need the response: `Family.further`."""


def probabilities(logpdf: Callable[[Array, Matrix], Vector], codes: Vector, eta: Matrix) -> Matrix:
    """P(class), (n_obs, K), from the log density of the numbers that stand for the classes."""
    each = [logpdf(np.full(len(eta), code), eta) for code in codes]
    return np.exp(np.column_stack(each))


def of_classes(
    which: str, p: Matrix, classes: tuple[tuple[str, ...], Vector], rows: Mapping[str, Array]
) -> Array:
    """One of `QUANTITIES` of each row, (n_obs,).

    Parameters
    ----------
    which : {"class", "rps"}
    p : Matrix, (n_obs, K)
        P(class), in their order.
    classes : pair
        Names of the classes, and the numbers that stand for them (K,): `Family.classes`.
    rows : mapping of str to array
        `Response.rows()`, of which "rps" needs the response.

    Raises
    ------
    PredictionError
        The score of a censored row.
    """
    names, codes = classes
    if which == CLASS:
        return np.asarray(np.array(names, dtype=object)[p.argmax(axis=1)])
    if "upper" in rows:
        raise PredictionError("which='rps' needs a response without censored rows")
    reached = np.asarray(rows["lower"])[:, None] <= codes
    return np.asarray(np.sum((np.cumsum(p, axis=1) - reached) ** 2, axis=1))
