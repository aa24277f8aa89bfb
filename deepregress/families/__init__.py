"""Families of response distributions, by name.

The package can be called: `families()` is the table of all of them.
"""

import sys
from types import ModuleType

from deepregress.families import (
    binomial,
    box_cox,
    catalogue,
    categorical,
    circular,
    continuous,
    counts,
    cox,
    discrete,
    distribution,
    extreme,
    inflated,
    inflated_proportion,
    location_scale,
    mixture,
    multivariate,
    ordinal,
    positive,
    proportion,
    shape,
    transformation,
    tweedie,
)
from deepregress.families.base import Family, Parameter, Value, family, names, register
from deepregress.families.categorical import symmetric_categorical
from deepregress.families.neural import drift

__all__ = [
    "Family",
    "Parameter",
    "Value",
    "binomial",
    "box_cox",
    "catalogue",
    "categorical",
    "circular",
    "continuous",
    "counts",
    "cox",
    "discrete",
    "distribution",
    "drift",
    "extreme",
    "family",
    "inflated",
    "inflated_proportion",
    "location_scale",
    "mixture",
    "multivariate",
    "names",
    "ordinal",
    "positive",
    "proportion",
    "register",
    "shape",
    "symmetric_categorical",
    "transformation",
    "tweedie",
]


class _Families(ModuleType):
    """A module that lists its families when it is called."""

    def __call__(self) -> catalogue.FamilyTable:
        return catalogue.table()


sys.modules[__name__].__class__ = _Families
