"""Families of response distributions, by name."""

from deepregress.families import (
    box_cox,
    categorical,
    circular,
    continuous,
    discrete,
    extreme,
    location_scale,
    multivariate,
    positive,
    proportion,
    shape,
    tweedie,
)
from deepregress.families.base import Family, Parameter, Value, family, names

__all__ = [
    "Family",
    "Parameter",
    "Value",
    "box_cox",
    "categorical",
    "circular",
    "continuous",
    "discrete",
    "extreme",
    "family",
    "location_scale",
    "multivariate",
    "names",
    "positive",
    "proportion",
    "shape",
    "tweedie",
]
