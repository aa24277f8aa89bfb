"""Names of parameters that come in groups, such as the logits of the classes.

A parameter with several predictors is a group of parameters, each with one predictor of its own and
the name `group[element]`: `logits[B]` and `logits[C]`, `loc[1]` and `loc[2]`. The name of the group
stands for all its members, that of a parameter without brackets for itself. The elements of a
vector response are named by its columns, `cbind(y, z)`, or numbered.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

STRATUM = "stratum"
"""The parameter that says which rows share a baseline: known, without coefficients."""


def member(group: str, element: object) -> str:
    """Name of one member of a group."""
    return f"{group}[{element}]"


def group_of(name: str) -> str:
    """The group that a parameter belongs to, itself where it is alone."""
    return name.partition("[")[0] if name.endswith("]") else name


def members(given: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that a parameter or group called `given` stands for, in their order."""
    known = list(names)
    return [given] if given in known else [name for name in known if group_of(name) == given]


def groups(names: Iterable[str]) -> tuple[str, ...]:
    """The groups of parameters, each once, in the order of their first members."""
    return tuple(dict.fromkeys(group_of(name) for name in names))


def element_names(response: str, n: int) -> tuple[str, ...]:
    """Names of the n elements of a vector response, from its text in the formula.

    Examples
    --------
    >>> element_names("cbind(y, log(z))", 2), element_names("Y", 2)
    (('y', 'log(z)'), ('1', '2'))
    """
    numbered = tuple(str(k) for k in range(1, n + 1))
    if not response.startswith("cbind("):
        return numbered
    call = ast.parse(response.replace("`", "'"), mode="eval").body
    given = call.args if isinstance(call, ast.Call) else []
    names = [a.value if isinstance(a, ast.Constant) else ast.unparse(a) for a in given]
    return tuple(str(name) for name in names) if len(names) == n else numbered
