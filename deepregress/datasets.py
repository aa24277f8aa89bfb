"""Small free tables that come with the package, for examples and tests.

`load(name)` reads one of them: a pandas table whose factors are Categoricals in the documented
order of levels, or, for the images, a dictionary of arrays. Source, licence and the unit of every
column stand in README.md beside the files. The files lie in data/ of a source checkout and in
deepregress/tables/ of an installed package; nothing is fetched from a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, overload

from deepregress.errors import DataError, listing, suggestion

if TYPE_CHECKING:
    import pandas as pd

    from deepregress.linalg import Array

# In the order of the levels as users see them in plots; an empty tuple means sorted.
_SORTED: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """Where a table lies and which of its columns are factors.

    Parameters
    ----------
    file : str
        File name, a comma-separated table with a header row, possibly gzipped.
    factors : mapping of str to tuple of str
        Levels of each factor, the reference level first.
    ordered : frozenset of str
        Factors whose levels are ordered.
    """

    file: str
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    ordered: frozenset[str] = frozenset()


_PARTIES = (
    "strong Democrat",
    "weak Democrat",
    "independent Democrat",
    "independent",
    "independent Republican",
    "weak Republican",
    "strong Republican",
)

_TABLES: Mapping[str, _Table] = MappingProxyType(
    {
        "anes96": _Table(
            "anes96.csv",
            {"pid": _PARTIES, "vote": ("Clinton", "Dole")},
            frozenset({"pid"}),
        ),
        "bikeshare": _Table(
            "bikeshare.csv.gz",
            {"weather": ("clear", "cloudy/misty", "light rain/snow", "heavy rain/snow")},
        ),
        "chickweight": _Table(
            "chickweight.csv",
            {"chick": tuple(str(chick) for chick in range(1, 51)), "diet": ("1", "2", "3", "4")},
        ),
        "diabetes": _Table("diabetes.csv"),
        "digits": _Table("digits.csv.gz"),
        "engel": _Table("engel.csv"),
        "gbsg2": _Table(
            "gbsg2.csv",
            {"hormone": ("no", "yes"), "menostat": ("Pre", "Post"), "grade": ("I", "II", "III")},
            frozenset({"grade"}),
        ),
        "mcycle": _Table("mcycle.csv"),
        "mcycle_boot": _Table("mcycle_boot.csv", {"stratum": ("1", "2", "3")}),
        "penguins": _Table(
            "penguins.csv",
            {
                "species": ("Adelie", "Chinstrap", "Gentoo"),
                "island": ("Biscoe", "Dream", "Torgersen"),
                "sex": ("female", "male"),
            },
        ),
        "rossi": _Table("rossi.csv"),
        "sacramento": _Table(
            "sacramento.csv",
            {
                "city": _SORTED,
                "zip": _SORTED,
                "type": ("Residential", "Condo", "Multi_Family"),
            },
        ),
        "sleepstudy": _Table("sleepstudy.csv", {"subject": _SORTED}),
    }
)

_GREY_LEVELS = 16.0  # the digits' pixels are counts 0..16 of a 4 x 4 block of the scan


def names() -> tuple[str, ...]:
    """Names of the tables that `load` knows, sorted.

    Examples
    --------
    >>> "mcycle" in names()
    True
    """
    return tuple(sorted(_TABLES))


@overload
def load(name: Literal["digits"]) -> dict[str, Array]: ...  # type: ignore[overload-overlap]


@overload
def load(name: str) -> pd.DataFrame: ...


def load(name: str) -> pd.DataFrame | dict[str, Array]:
    """Read one of the tables that come with the package.

    Parameters
    ----------
    name : str
        One of `names()`. Units of the columns, sources and licences are in data/README.md.

    Returns
    -------
    pandas.DataFrame or dict
        A table whose factors are Categoricals. For "digits" a dictionary with "image",
        float32 of shape (1797, 8, 8, 1) in [0, 1], and "label", int64 of shape (1797,).

    Raises
    ------
    DataError
        When no table has this name.

    Examples
    --------
    >>> load("mcycle").columns.tolist()
    ['times', 'accel']
    >>> load("digits")["image"].shape
    (1797, 8, 8, 1)
    """
    if name not in _TABLES:
        raise DataError(
            f"{name!r} is not a data set of deepregress{suggestion(name, _TABLES)}; "
            f"known: {listing(names(), limit=len(_TABLES))}."
        )
    if name == "digits":
        return _images(_read(_TABLES[name]))
    return _read(_TABLES[name])


def _folder() -> Path:
    """Folder of the tables: inside an installed package, else beside a source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "tables"
    return installed if installed.is_dir() else package.parent / "data"


def _read(table: _Table) -> pd.DataFrame:
    """Read a table and turn its factors into Categoricals."""
    import pandas as pd

    texts = dict.fromkeys(table.factors, "str")
    frame = pd.read_csv(_folder() / table.file, dtype=texts)
    for column, levels in table.factors.items():
        known = levels or tuple(sorted(frame[column].dropna().unique()))
        frame[column] = pd.Categorical(
            frame[column], categories=list(known), ordered=column in table.ordered
        )
    return frame


def _images(frame: pd.DataFrame) -> dict[str, Array]:
    """Turn the rows of 64 pixels into images, rows first and one channel last."""
    import numpy as np

    pixels = frame.drop(columns="digit").to_numpy(np.float32)
    return {
        "image": (pixels / np.float32(_GREY_LEVELS)).reshape(-1, 8, 8, 1),
        "label": frame["digit"].to_numpy(np.int64),
    }
