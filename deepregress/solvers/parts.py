"""The deep terms of a model, and the networks to train for them.

    eta_k gets  U(z) gamma_k,   U of its own, or one U for all predictors k that name one trunk

The parts that share a trunk are trained as one `Network` with a head gamma_k for each; its members
are then taken apart into members with one head, so that projection, refit, prediction and saving
know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from deepregress.architecture import Architecture
from deepregress.disk.stored import StoredArray
from deepregress.errors import NetworkError
from deepregress.linalg import Array
from deepregress.predictor import Members, fresh_members, per_head
from deepregress.solvers.base import Network, Status, Trained


@dataclass(frozen=True)
class NetworkPart:
    """One deep term of one predictor, bound to the training rows.

    Parameters
    ----------
    label : str
        The term.
    unit : int
        Index of its predictor.
    inputs : tuple of arrays, each (n_obs, ...)
        As `NetworkBlock.evaluate` gives them.
    architecture : Architecture
    protected : Array of int
        Columns of the predictor's X that it must be orthogonal to.
    trunk : str
        Parts of one trunk share a network, with a head each; "" for a network of its own.
    gated : bool
        Whether a sparse penalty decides if it stays: then its multiplier has no ridge.
    """

    label: str
    unit: int
    inputs: tuple[Array | StoredArray, ...] = field(repr=False)
    architecture: Architecture = field(repr=False)
    protected: Array = field(repr=False)
    trunk: str = ""
    gated: bool = False


def check_trunk(trunk: str, label: str, unit: int, parts: Sequence[NetworkPart]) -> None:
    """Refuse a shared network that is not fed alike, once in each predictor.

    Raises
    ------
    NetworkError
        Naming the term and the other one.
    """
    for other in parts:
        if trunk and other.trunk == trunk and (other.label != label or other.unit == unit):
            raise NetworkError(
                f"{label}: the shared network {trunk!r} stands in {other.label} too; it is fed "
                "alike in all formulas that name it, once in each"
            )


def joined(networks: Sequence[Network], parts: Sequence[NetworkPart]) -> list[Network]:
    """The networks to train, of the networks of the parts alone."""
    together = []
    for places in _groups(parts):
        first, *others = (networks[place] for place in places)
        if others:
            architecture = replace(first.architecture, heads=len(places))
            further = tuple(other.unit for other in others)
            protected = tuple(each for place in places for each in networks[place].protected)
            first = replace(first, architecture=architecture, further=further, protected=protected)
        together.append(first)
    return together


def separated(
    trained: Trained, networks: Sequence[Network], parts: Sequence[NetworkPart]
) -> Trained:
    """What the trainer made of the networks of `joined`, with members for each part."""
    members: dict[int, Members] = {}
    for places, network, own in zip(_groups(parts), networks, trained.members, strict=True):
        heads = per_head(network.architecture, own) if len(places) > 1 else (own,)
        members.update(zip(places, heads, strict=True))
    return replace(trained, members=tuple(members[place] for place in range(len(parts))))


def untrained(networks: Sequence[Network], n_members: int) -> Trained:
    """Networks that say nothing, of a training that was not begun."""
    seeds = range(n_members)
    members = tuple(fresh_members(network.architecture, seeds) for network in networks)
    return Trained(members, 0, (), Status(False, "interrupted before it began"), True)


def in_turn(parts: Sequence[NetworkPart], n_first: int) -> list[list[int]]:
    """Places of the parts that are trained together, in the order of their predictors.

    A scale that is learned while the mean still is follows the residuals of training rows, so each
    predictor waits for those before it. The first `n_first`, of one kind, are one; a shared trunk
    is trained with the first of its predictors.
    """
    turn: dict[object, int] = {}
    for place, part in enumerate(parts):
        own = max(part.unit, n_first - 1)
        turn[part.trunk or place] = min(own, turn.get(part.trunk or place, own))
    turns: dict[int, list[int]] = {}
    for place, part in enumerate(parts):
        turns.setdefault(turn[part.trunk or place], []).append(place)
    return [turns[each] for each in sorted(turns)]


def _groups(parts: Sequence[NetworkPart]) -> list[list[int]]:
    """Places of the parts of each network, in the order of their first ones."""
    groups: dict[object, list[int]] = {}
    for place, part in enumerate(parts):
        groups.setdefault(part.trunk or place, []).append(place)
    return list(groups.values())
