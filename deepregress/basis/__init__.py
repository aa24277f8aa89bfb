"""Bases of smooth terms: raw columns and raw penalties before any constraint (METHODS 2).

Both the parametrisations and the knots are mgcv's, so smoothing parameters agree with it:

    tp  eigenbasis of the thin plate spline on all unique values, any dimension (default)
    cr  cubic regression spline on its values at k knots, S = integral of f''^2
    ps  B-splines on evenly spaced knots, S = D'D of differences

A further basis is a module of this folder that registers its constructor, imported here.
"""

from deepregress.basis import bspline, cubic, thinplate
from deepregress.basis.base import (
    Basis,
    BSplines,
    NaturalCubic,
    centre,
    construct,
    penalty_scale,
    registered,
    scale_penalty,
)
from deepregress.basis.thinplate import ThinPlate

__all__ = [
    "BSplines",
    "Basis",
    "NaturalCubic",
    "ThinPlate",
    "bspline",
    "centre",
    "construct",
    "cubic",
    "penalty_scale",
    "registered",
    "scale_penalty",
    "thinplate",
]
