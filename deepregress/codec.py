"""Save and load: frozen dataclasses of this package as JSON and arrays, without pickle.

    encode(value) -> tree (JSON), arrays         decode(tree, arrays) -> equal value, bit for bit
    write(path, tree, arrays, files)             read(path) -> Archive

A file is one zip: `tree.json`, one `.npy` per array (never object arrays, so nothing in it can run
code), and extra files such as network weights. What is saved: None, numbers, strings, arrays,
tuples, lists, dicts, sets, slices, `pandas.Categorical`, and frozen dataclasses of `deepregress`,
which are found again by their names. An array that stands in several places is stored once.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepregress.errors import DataError
from deepregress.linalg import Array

# Raised by one when a file written now could not be read by the version before.
FORMAT = 3
# The key that marks a JSON object as the encoding of something else than a dict.
_KIND = "!"
_PACKAGE = __name__.partition(".")[0]
_TREE, _ARRAYS, _FILES = "tree.json", "arrays/", "files/"

Tree = Any


@dataclass(frozen=True, eq=False)
class Archive:
    """What `read` finds in a file.

    Parameters
    ----------
    tree : JSON
        As given to `write`.
    arrays : dict of str to array
        As given to `write`.
    files : dict of str to bytes
        As given to `write`.
    """

    tree: Tree
    arrays: dict[str, Array]
    files: dict[str, bytes]


@dataclass(eq=False)
class _Store:
    """Arrays met so far; each is kept alive, so that its id stays its own."""

    arrays: dict[str, Array] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)

    def key(self, array: Array) -> str:
        if id(array) not in self.keys:
            self.keys[id(array)] = f"a{len(self.arrays)}"
            self.arrays[self.keys[id(array)]] = array
        return self.keys[id(array)]


def encode(value: object) -> tuple[Tree, dict[str, Array]]:
    """Return a value as a JSON tree and the arrays it refers to.

    Raises
    ------
    TypeError
        The value holds something that cannot be saved.

    Examples
    --------
    >>> tree, arrays = encode({"x": np.arange(3.0), "k": (1, None)})
    >>> decode(tree, arrays)
    {'x': array([0., 1., 2.]), 'k': (1, None)}
    """
    store = _Store()
    return _encode(value, store), store.arrays


def decode(tree: Tree, arrays: Mapping[str, Array]) -> Any:
    """Return the value that `encode` was given.

    Raises
    ------
    DataError
        The tree names something that this version does not have.
    """
    if isinstance(tree, list):
        return [decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind, content = tree[_KIND], tree["of"]
    if kind in _DECODERS:
        return _DECODERS[kind](content, arrays)
    return _decode_instance(kind, content, arrays)


def _encode(value: object, store: _Store) -> Tree:
    if value is None or isinstance(value, (bool, int, str)) and not isinstance(value, np.generic):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_KIND: "float", "of": repr(value)}
    if type(value) is list:
        return [_encode(item, store) for item in value]
    kind, content = _content(value, store)
    return {_KIND: kind, "of": content}


def _content(value: object, store: _Store) -> tuple[str, Tree]:
    """Return kind and content of a value that JSON does not have."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return "array", store.key(value)
    if isinstance(value, np.ndarray):
        return "objects", [list(value.shape), [_encode(each, store) for each in value.ravel()]]
    if isinstance(value, np.generic):
        return "scalar", store.key(np.asarray(value))
    if isinstance(value, pd.Categorical):
        levels = [_encode(level, store) for level in value.categories.tolist()]
        text = value.categories.dtype == object
        return "categorical", [store.key(np.asarray(value.codes)), levels, text, value.ordered]
    if type(value) in (tuple, set, frozenset):
        return type(value).__name__, [_encode(each, store) for each in value]  # type: ignore[attr-defined]
    if isinstance(value, slice):
        return "slice", [_encode(each, store) for each in (value.start, value.stop, value.step)]
    if type(value) is dict:
        return "dict", [[_encode(k, store), _encode(v, store)] for k, v in value.items()]
    if is_dataclass(value) and not isinstance(value, type):
        return _instance(value, store)
    raise TypeError(f"cannot save a {type(value).__qualname__}: {value!r}")


def _instance(value: Any, store: _Store) -> tuple[str, Tree]:
    cls = type(value)
    frozen = cls.__dataclass_params__.frozen
    if not frozen or cls.__module__.partition(".")[0] != _PACKAGE or "." in cls.__qualname__:
        raise TypeError(f"only frozen dataclasses of {_PACKAGE} can be saved, not {cls!r}")
    content = {each.name: _encode(getattr(value, each.name), store) for each in fields(cls)}
    return f"{cls.__module__}:{cls.__qualname__}", content


def _decode_instance(kind: str, content: Tree, arrays: Mapping[str, Array]) -> Any:
    module, _, name = kind.partition(":")
    if module.partition(".")[0] != _PACKAGE:
        raise DataError(f"the file holds a {kind!r}, which is not of {_PACKAGE}.")
    try:
        cls: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DataError(f"the file holds a {kind!r}, which this version does not have.") from error
    if not isinstance(cls, type) or not is_dataclass(cls):
        raise DataError(f"the file holds a {kind!r}, which cannot be loaded.")
    make: Callable[..., Any] = cls
    return make(**{key: decode(each, arrays) for key, each in content.items()})


def _decode_objects(content: Tree, arrays: Mapping[str, Array]) -> Array:
    shape, values = content
    array = np.empty(len(values), dtype=object)
    array[:] = [decode(each, arrays) for each in values]
    return array.reshape(shape)


def _decode_categorical(content: Tree, arrays: Mapping[str, Array]) -> pd.Categorical:
    codes, levels, text, ordered = content
    values = [decode(level, arrays) for level in levels]
    index = pd.Index(values, dtype=object) if text else pd.Index(values)
    return pd.Categorical.from_codes(arrays[codes], categories=index, ordered=ordered)


_DECODERS: dict[str, Callable[[Tree, Mapping[str, Array]], Any]] = {
    "float": lambda content, arrays: float(content),
    "array": lambda content, arrays: arrays[content],
    "objects": _decode_objects,
    "scalar": lambda content, arrays: arrays[content][()],
    "categorical": _decode_categorical,
    "tuple": lambda content, arrays: tuple(decode(each, arrays) for each in content),
    "set": lambda content, arrays: {decode(each, arrays) for each in content},
    "frozenset": lambda content, arrays: frozenset(decode(each, arrays) for each in content),
    "slice": lambda content, arrays: slice(*(decode(each, arrays) for each in content)),
    "dict": lambda content, arrays: {decode(k, arrays): decode(v, arrays) for k, v in content},
}


def write(
    path: str | Path,
    tree: Tree,
    *,
    arrays: Mapping[str, Array],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a tree, its arrays and extra files into one zip file.

    Parameters
    ----------
    path : str or Path
        File to write.
    tree : JSON
        From `encode`.
    arrays : mapping of str to array
        From `encode`; no object arrays.
    files : mapping of str to bytes, optional
        Extra files by name.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(_TREE, json.dumps({"format": FORMAT, "tree": tree}))
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            archive.writestr(f"{_ARRAYS}{key}.npy", buffer.getvalue())
        for name, content in (files or {}).items():
            archive.writestr(f"{_FILES}{name}", content)


def read(path: str | Path) -> Archive:
    """Read a file of `write`.

    Raises
    ------
    DataError
        The file is not one of ours, or was written by a later version.
    FileNotFoundError
        There is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            document = json.loads(archive.read(_TREE))
            arrays = {
                name[len(_ARRAYS) : -len(".npy")]: np.lib.format.read_array(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in names
                if name.startswith(_ARRAYS)
            }
            extra = [name for name in names if name.startswith(_FILES)]
            files = {name[len(_FILES) :]: archive.read(name) for name in extra}
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise DataError(f"{str(path)!r} is not a file saved by deepregress.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DataError(f"{str(path)!r} has a format that this version of deepregress cannot read.")
    return Archive(document["tree"], arrays, files)
