"""The fitted model: what a user holds after `fit` (DESIGN section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deepregress.data import Frame, Response
from deepregress.design import Design
from deepregress.families.base import Family
from deepregress.inference import Inference
from deepregress.prediction import Deep
from deepregress.solvers.base import Solution


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A fitted semi-structured distributional regression.

    Parameters
    ----------
    formula : dict of str to str
        Formula of each parameter as text.
    family : Family
    designs : dict of str to Design
        Recipes of the predictors, in the order of the family's parameters.
    frame : Frame
        Training rows.
    response : Response
    solution : Solution
    inference : Inference
    deep : Deep or None
        Networks, where the formula has any.
    seed : int or None
    method : str
    settings : mapping
        Further arguments of `fit`.
    """

    formula: Mapping[str, str]
    family: Family = field(repr=False)
    designs: dict[str, Design] = field(repr=False)
    frame: Frame = field(repr=False)
    response: Response = field(repr=False)
    solution: Solution = field(repr=False)
    inference: Inference = field(repr=False)
    deep: Deep | None = field(repr=False)
    seed: int | None
    method: str
    settings: Mapping[str, Any] = field(repr=False)
