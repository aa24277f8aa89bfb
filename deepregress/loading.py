"""Models read from files: what `FittedModel.save` and `Ensemble.save` wrote (DESIGN 1)."""

from __future__ import annotations

from pathlib import Path

from deepregress import saved
from deepregress.deep.ensemble import Ensemble
from deepregress.fitted import FittedModel


def load(path: str | Path) -> FittedModel | Ensemble:
    """Read a model or an ensemble from a file.

    Raises
    ------
    DataError
        The file is not one of ours, or of a later version.

    Examples
    --------
    >>> import deepregress as dr
    >>> dr.fit("foodexp ~ income", dr.datasets.load("engel")).save("engel.zip")
    >>> dr.load("engel.zip").predict({"income": [500.0]}).round(1)
    array([390.1])
    """
    content = saved.read(path)
    if "members" in content:
        members = tuple(FittedModel(**each) for each in content["members"])
        return Ensemble(members, content["average"])
    return FittedModel(**content)
