"""Families of response distributions, by name."""

from deepregress.families import continuous, discrete
from deepregress.families.base import Family, Parameter, Value, family, names

__all__ = ["Family", "Parameter", "Value", "continuous", "discrete", "family", "names"]
