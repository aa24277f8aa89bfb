"""The predictors of a fitted model: eta and its standard error for any rows (DESIGN 2, the waist).

    eta_u = offset_u + X_u coef_u + sum of deep effects d_u       (n_obs, U)
    se(eta_u)^2 = diag(Z_u V_u Z_u'),  Z_u = [X_u, d_u / c_u]     c: the networks' multipliers

A row's predictors depend on that row alone. Rows are read in chunks, so memory beyond the result does
not grow with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Deep:
    """What the semi-structured solver learned beyond the structured part.

    Parameters
    ----------
    effects : tuple of DeepEffect
        The trained networks, made orthogonal to their protected columns; `label`, `unit`,
        `evaluate(inputs, X)`.
    score_difference : float
        Cross-fitted difference in log score, with minus without the networks, summed over rows.
    score_se : float
        Its standard error.
    history : sequence
        Epochs of training.
    """

    effects: tuple[Any, ...]
    score_difference: float
    score_se: float
    history: Sequence[Any] = ()
