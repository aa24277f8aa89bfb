"""A fitted model as a file: its fields through `codec`, without pickle.

The family goes by its name and the names of its links, networks by their configuration and weights;
callbacks of training stay behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepregress import codec
from deepregress.errors import PredictionError
from deepregress.families.base import Family, family
from deepregress.solvers.base import Training


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write the fields of a model.

    Raises
    ------
    PredictionError
        A link is a bijector of the user's, which has no name to be saved by.
    """
    given: Family = content["family"]
    links = {parameter.name: parameter.link.name for parameter in given.parameters}
    custom = [name for name, link in links.items() if link == "custom"]
    if custom:
        raise PredictionError(
            f"cannot save: the link of {custom[0]!r} is a bijector of your own, without a name."
        )
    settings = {
        name: replace(value, callbacks=()) if isinstance(value, Training) else value
        for name, value in content["settings"].items()
    }
    tree, arrays = codec.encode({**content, "family": (given.name, links), "settings": settings})
    codec.write(path, tree, arrays=arrays)


def read(path: str | Path) -> dict[str, Any]:
    """Return the fields that `write` wrote.

    Raises
    ------
    DataError
        The file is not one of ours, or of a later version.
    """
    archive = codec.read(path)
    content: dict[str, Any] = codec.decode(archive.tree, archive.arrays)
    name, links = content["family"]
    return {**content, "family": family(name, links)}
