"""Families of response distributions, by name."""

from deepregress.families import (
    binomial,
    box_cox,
    categorical,
    circular,
    continuous,
    counts,
    discrete,
    extreme,
    inflated,
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
    "binomial",
    "box_cox",
    "categorical",
    "circular",
    "continuous",
    "counts",
    "discrete",
    "extreme",
    "family",
    "inflated",
    "location_scale",
    "multivariate",
    "names",
    "positive",
    "proportion",
    "shape",
    "tweedie",
]
