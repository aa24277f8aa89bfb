"""Exponential dispersion families: the dispersion phi with variance phi V(mean).

What such a family says of its dispersion and its deviance; of any other the defaults hold.

References: Jorgensen (1987), doi:10.1111/j.2517-6161.1987.tb01685.x.
"""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

import numpy as np

from deepregress.errors import FamilyError
from deepregress.linalg import Vector


class Dispersed(ABC):  # noqa: B024  # every method has a default
    """The part of a family that knows its dispersion."""

    exponential: ClassVar[bool] = False
    dispersion: ClassVar[str | None] = None

    def dispersion_of(self, theta: float) -> float:
        """Phi with variance phi V(mean), of the dispersion parameter's value (mgcv's `scale`)."""
        raise FamilyError("the family has no dispersion parameter")

    def least_dispersion(self, y: Vector) -> float:
        """Phi below which a residual is the rounding of an exact fit, in the units of phi."""
        return float(np.finfo(float).tiny)

    def reported_dispersion(self, y: Vector, weights: Vector, mean: Vector, reml: float) -> float:
        """Value of the dispersion parameter at which the log-likelihood is reported, as R does."""
        return reml

    def unit_deviance(self, y: Vector, mean: Vector) -> Vector:
        """2 phi (l(y; mean = y) - l(y; mean)) row by row, the units of `dispersion_of`.

        Only of an exponential dispersion family; `deviance` is what all families have.
        """
        raise FamilyError("the family is no exponential dispersion family")
