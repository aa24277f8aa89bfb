"""A fitted model as a file: its fields through `codec`, without pickle.

The family goes by its name, its parameters with the names of their links, and its other fields;
networks by their configuration and weights; callbacks of training stay behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from deepregress import codec
from deepregress.bijectors import link
from deepregress.errors import PredictionError
from deepregress.families.base import Family, Parameter, known, registered
from deepregress.families.distribution import (
    OfDistribution,
    distribution_class,
    of_distribution,
)
from deepregress.solvers.base import Training

DISTRIBUTION = "tfd."
"""What the saved name of a family that is a class of `tfd` begins with."""


def write(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write the fields of a model.

    Raises
    ------
    PredictionError
        A link is a bijector of the user's, or the family a function or class of the user's, which
        has no name to be saved by.
    """
    tree, arrays = codec.encode(_storable(content))
    codec.write(path, tree, arrays=arrays)


def write_several(path: str | Path, contents: Sequence[Mapping[str, Any]], *, average: str) -> None:
    """Write the fields of the members of an ensemble; what they share is stored once."""
    members = [_storable(content) for content in contents]
    tree, arrays = codec.encode({"members": members, "average": average})
    codec.write(path, tree, arrays=arrays)


def read(path: str | Path) -> dict[str, Any]:
    """Return the fields that `write` wrote, or "members" and "average" of `write_several`.

    Raises
    ------
    DataError
        The file is not one of ours, or of a later version.
    """
    archive = codec.read(path)
    content: Any = codec.decode(archive.tree, archive.arrays)
    if isinstance(content, list):
        # a file of the time when there was one average only
        content = {"members": content, "average": "mixture"}
    if "members" in content:
        return {**content, "members": [_readable(each) for each in content["members"]]}
    return _readable(content)


def _storable(content: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        name: value.described() if isinstance(value, Training) else value
        for name, value in content["settings"].items()
    }
    return {**content, "family": _described(content["family"]), "settings": settings}


def _readable(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, "family": _made(content["family"])}


@dataclass(frozen=True)
class SavedFamily:
    """A family by names: parameters (name, link, meaning, units, intercept), other fields."""

    name: str
    parameters: tuple[tuple[str, str, str, int, bool], ...]
    options: dict[str, Any]


def _described(value: Any) -> Any:
    """A family, or a tuple that holds some, by names; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(_described(each) for each in value)
    if not isinstance(value, Family):
        return value
    custom = [p.name for p in value.parameters if p.link.name == "custom"]
    if custom:
        raise PredictionError(
            f"cannot save: the link of {custom[0]!r} is a bijector of your own, without a name."
        )
    parameters = tuple(
        (p.name, p.link.name, p.about, p.units, p.intercept) for p in value.parameters
    )
    if isinstance(value, OfDistribution):
        return SavedFamily(_class_name(value), parameters, {})
    if type(value) is not known(value.name):
        raise PredictionError(
            f"cannot save: the family {value.name!r} is a class of your own that is not known by "
            "its name; register it with deepregress.families.register"
        )
    others = [each.name for each in fields(value) if each.name != "parameters"]
    options = {name: _described(getattr(value, name)) for name in others}
    return SavedFamily(value.name, parameters, options)


def _made(value: Any) -> Any:
    """The value that `_described` was given."""
    if isinstance(value, tuple):
        return tuple(_made(each) for each in value)
    if not isinstance(value, SavedFamily):
        return value
    parameters = tuple(
        Parameter(name, link(given), about, units, intercept)
        for name, given, about, units, intercept in value.parameters
    )
    if value.name.startswith(DISTRIBUTION):
        name = value.name.removeprefix(DISTRIBUTION)
        return replace(of_distribution(distribution_class(name)), parameters=parameters)
    options = {name: _made(each) for name, each in value.options.items()}
    return registered(value.name)(parameters, **options)


def _class_name(value: OfDistribution) -> str:
    """The name by which a class of `tfd` is found again."""
    name = getattr(value.make, "__name__", "")
    if not isinstance(value.make, type) or distribution_class(name) is not value.make:
        raise PredictionError(
            f"cannot save: the family {value.name!r} is made by a function or class of your own, "
            "which has no name to be found by; only classes of tensorflow_probability have"
        )
    return f"{DISTRIBUTION}{name}"
