"""Bases of smooth terms: raw columns and raw penalties before any constraint (METHODS 2).

Both the parametrisations and the knots are mgcv's, so smoothing parameters agree with it:

    tp  eigenbasis of the thin plate spline on all unique values, any dimension (default)
    cr  cubic regression spline on its values at k knots, S = integral of f''^2
    cs  cr with a penalised null space, and ts, tp with one
    cc  cyclic cubic spline, and cp, cyclic P-spline
    ps  B-splines on evenly spaced knots, S = D'D of differences
    bs  the same B-splines, S = integrals of squared derivatives
    ad  ps with weights of the differences that vary along the covariate
    gp  low-rank Gaussian process, any dimension

`tensor.construct` makes products of them (te, ti), `factor_smooth.construct` curves per level of a
factor (fs), `markov_field.construct` effects of areas (mrf), and `random_effect.construct` those of
levels (re).

A further basis is a module of this folder that registers its constructor, imported here.
"""

from deepregress.basis import (
    bspline,
    cubic,
    cyclic,
    factor_smooth,
    gaussian_process,
    markov_field,
    random_effect,
    shrinkage,
    tensor,
    thinplate,
)
from deepregress.basis.base import (
    Basis,
    BSplines,
    LevelBasis,
    NaturalCubic,
    centre,
    construct,
    penalty_scale,
    registered,
    row_chunks,
    scale_penalty,
)
from deepregress.basis.cyclic import Cyclic
from deepregress.basis.factor_smooth import FactorSmooth
from deepregress.basis.gaussian_process import GaussianProcess
from deepregress.basis.markov_field import MarkovField
from deepregress.basis.random_effect import RandomEffect
from deepregress.basis.tensor import Tensor
from deepregress.basis.thinplate import ThinPlate

__all__ = [
    "BSplines",
    "Basis",
    "Cyclic",
    "FactorSmooth",
    "GaussianProcess",
    "LevelBasis",
    "MarkovField",
    "NaturalCubic",
    "RandomEffect",
    "Tensor",
    "ThinPlate",
    "bspline",
    "centre",
    "construct",
    "cubic",
    "cyclic",
    "factor_smooth",
    "gaussian_process",
    "markov_field",
    "penalty_scale",
    "random_effect",
    "registered",
    "row_chunks",
    "scale_penalty",
    "shrinkage",
    "tensor",
    "thinplate",
]
