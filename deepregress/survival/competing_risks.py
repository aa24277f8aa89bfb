"""Competing risks by cause-specific models: cumulative incidence (METHODS 8).

Each cause has a model of its own, in which the events of the others are censored. With their
cumulative hazards H_k(t | x) and S = exp(-sum_k H_k),

    F_k(t | x) = integral of S dH_k = sum over panels (a, b] of (S(a) - S(b)) share_k,
    share_k = (H_k(b) - H_k(a)) / sum_j (H_j(b) - H_j(a)),

where the share of a cause in the hazard is taken as constant inside a panel. Panels end at the
times at which a baseline jumps, else they are short.

References: Putter, Fiocco & Geskus (2007), doi:10.1002/sim.2712, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import PredictionError
from deepregress.fitted import FittedModel
from deepregress.linalg import Vector

PANELS = 400
"""Panels of a smooth hazard up to the last time asked for."""


def cumulative_incidence(
    models: Mapping[str, FittedModel], newdata: Any, at: Any
) -> dict[str, pd.DataFrame]:
    """P(T <= t and the event is of this cause), of each cause, row and time.

    Parameters
    ----------
    models : mapping of str to FittedModel
        Cause -> model of `Surv(time, cause == this)`.
    newdata : table or dict
    at : array, (m,)
        Times, positive.

    Returns
    -------
    dict of str to DataFrame
        Cause -> probabilities, (n_obs, m), with the times as columns.

    Raises
    ------
    PredictionError
        There is no model, or a time is not positive.

    Examples
    --------
    >>> import deepregress as dr
    >>> rng = np.random.default_rng(1)
    >>> time, relapse = rng.exponential(size=300), 1.0 * (rng.random(300) < 0.7)
    >>> data = {"time": time, "relapse": relapse, "death": 1.0 - relapse}
    >>> causes = ("relapse", "death")
    >>> models = {k: dr.fit(f"Surv(time, {k}) ~ 1", data, "exponential") for k in causes}
    >>> dr.cumulative_incidence(models, {"time": [1.0]}, [50.0])["relapse"].round(2)
       50.0
    0   0.7
    """
    times = np.atleast_1d(np.asarray(at, dtype=float))
    if not models or np.any(times <= 0.0) or not np.isfinite(times).all():
        raise PredictionError("cumulative incidence needs a model per cause and positive times at=")
    grid = _ends(models, times)
    hazards = {k: model.predict(newdata, which="cumhazard", at=grid) for k, model in models.items()}
    total = sum(hazards.values(), np.zeros_like(next(iter(hazards.values()))))
    S = np.exp(-np.column_stack([np.zeros(len(total)), total]))
    risen = np.diff(total, axis=1, prepend=0.0)
    lost = (S[:, :-1] - S[:, 1:]) / np.where(risen > 0.0, risen, 1.0)
    place = np.searchsorted(grid, times)
    return {
        cause: pd.DataFrame(
            np.cumsum(lost * np.diff(H, axis=1, prepend=0.0), axis=1)[:, place], columns=times
        )
        for cause, H in hazards.items()
    }


def _ends(models: Mapping[str, FittedModel], times: Vector) -> Vector:
    """Ends of the panels: the times asked for, and jumps or a fine grid."""
    last = float(times.max())
    ends = [times]
    for model in models.values():
        jumps = model.family.jumps
        if jumps is None:
            ends.append(last * np.linspace(0.0, 1.0, PANELS + 1)[1:] ** 2)
        else:
            ends.append(jumps[jumps <= last])
    return np.unique(np.concatenate(ends))
