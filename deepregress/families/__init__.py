"""Families of response distributions, by name."""

from deepregress.families import categorical, continuous, discrete, multivariate
from deepregress.families.base import Family, Parameter, Value, family, names

__all__ = [
    "Family",
    "Parameter",
    "Value",
    "categorical",
    "continuous",
    "discrete",
    "family",
    "multivariate",
    "names",
]
