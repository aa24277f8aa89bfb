"""The table of all families: what `dr.families()` shows.

One row per name that `family=` takes: parameters with their links, support of the response, what
the family is, and the reference, which is that of the module in which the family is written.
"""

from __future__ import annotations

import inspect
import sys

import pandas as pd

from deepregress.families.base import Family, names, registered

WIDTH = 44
"""Characters of a column when the table is printed."""


class FamilyTable(pd.DataFrame):
    """A table that prints whole, whatever the width of the terminal."""

    def __repr__(self) -> str:
        """All rows, long texts cut; the whole texts are in the columns."""
        return self.drop(columns="reference").to_string(max_colwidth=WIDTH)


def table() -> FamilyTable:
    """All families by name: parameters, links, support, about, reference.

    Returns
    -------
    DataFrame
        Strings, the families in alphabetical order.

    Examples
    --------
    >>> import deepregress as dr
    >>> dr.families().loc[["gamma", "weibull"], ["parameters", "links", "support"]]
                       parameters     links                  support
    family
    gamma        mean, dispersion  log, log  positive finite numbers
    weibull  scale, concentration  log, log  positive finite numbers
    """
    rows = {name: _row(registered(name)) for name in sorted(names())}
    shown = FamilyTable.from_dict(rows, orient="index")
    shown.index.name = "family"
    return FamilyTable(shown)


def _row(cls: type[Family]) -> dict[str, str]:
    parameters = cls.default_parameters()
    return {
        "parameters": ", ".join(parameter.name for parameter in parameters),
        "links": ", ".join(parameter.link.name for parameter in parameters),
        "support": cls.support,
        "about": cls.about,
        "reference": _reference(cls),
    }


def _reference(cls: type[Family]) -> str:
    """What follows "References:" in the module's docstring, on one line."""
    text = inspect.getdoc(sys.modules[cls.__module__]) or ""
    return " ".join(text.partition("References:")[2].split())
