"""Random effects of levels that had no training rows.

Their effect has mean zero and the variance that the model gives to all effects of the term,

    Var(values' b_new) = values' diag(1 / (sum_j lam_j s_j)) values,

s_j the diagonal of S_j at the columns of one level, on the scale of the predictor. Standard errors
of predictions for such levels contain it, as in a mixed model the population's do.

Reference: Skrondal and Rabe-Hesketh (2009), doi:10.1111/j.1467-985X.2009.00587.x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deepregress.basis import LevelBasis
from deepregress.data import Frame
from deepregress.design import Design
from deepregress.linalg import Vector
from deepregress.terms.base import ColumnBlock
from deepregress.terms.smooth import SmoothColumns


def priors(design: Design, lam: Vector) -> dict[str, Vector]:
    """Label of a random effect -> prior variances 1 / (lam S) of the effects of one level."""
    found = {}
    for block, start in design.placed():
        recipe = block.recipe
        if not isinstance(recipe, SmoothColumns) or not isinstance(recipe.basis, LevelBasis):
            continue
        precision = np.zeros(recipe.basis.n_values)
        for p, lam_j in zip(design.penalties, lam, strict=False):
            if p.index.start <= start < p.index.stop:
                S = p.S if p.S.ndim == 1 else np.diagonal(p.S)
                first = start - p.index.start
                precision += lam_j * S[first : first + len(precision)]
        if (precision > 0.0).all():
            found[block.label] = 1.0 / precision
    return found


def variances(
    blocks: Sequence[ColumnBlock], prior: Mapping[str, Vector], frame: Frame
) -> dict[str, Vector]:
    """Label -> variance that effects of new levels add to the predictor of each row, (n_obs,)."""
    found = {}
    for block in blocks:
        by_level = block.recipe.by_level(frame) if block.label in prior else None
        if by_level is not None and (by_level[0] < 0).any():
            new = by_level[0] < 0
            found[block.label] = np.where(new, by_level[1] ** 2 @ prior[block.label], 0.0)
    return found
