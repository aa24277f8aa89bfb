"""Families of response distributions, by name."""

from deepregress.families import (
    box_cox,
    circular,
    continuous,
    discrete,
    extreme,
    location_scale,
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
    "circular",
    "continuous",
    "discrete",
    "extreme",
    "family",
    "location_scale",
    "names",
    "positive",
    "proportion",
    "shape",
    "tweedie",
]
