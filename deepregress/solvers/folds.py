"""Which rows networks train on and which judge them (METHODS 5.1).

cross-fitted    K folds, one member for each, which never sees its fold
split           one member; a share of the rows judges it

Rows that depend on each other belong in one fold: a network that has seen one knows the other.
Folds consist of whole groups, `Training(groups=)`, or else of random runs of neighbours in the
table. Where rows are exchangeable these are as good as random rows; where they follow each other in
time they keep together most of what depends on each other (Roberts et al. 2017,
doi:10.1111/ecog.02881).

The rows of a long table on disk are divided window by window, a window being some chunks from
random places: nothing as long as the table is in memory, and an epoch that takes the rows in their
order reads the files chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepregress.disk.scratch import is_stored, temporary_array
from deepregress.errors import FitError
from deepregress.linalg import Array, Vector
from deepregress.solvers.base import Folds, Network, Training

CROSSFIT_ROWS = 50_000
CROSSFIT_WEIGHTS = 1_000_000
"""Cross-fitting is the default below so many rows and weights of a network."""

RUNS = 20
"""Runs of neighbours per fold."""

HELD_OUT_SHARE = 0.15
"""Rows that judge a network which is not cross-fitted."""

WINDOW_ROWS = 1 << 20
CHUNK_ROWS = 1 << 14
"""Rows of data on disk that are shuffled together, and of the chunks that make a window."""


def crossfits(training: Training, networks: Sequence[Network], n_obs: int) -> bool:
    """Whether every row is judged by a member that did not see it."""
    if training.validation is not None:
        return False
    if training.crossfit != "auto":
        return bool(training.crossfit)
    n_weights = max(network.architecture.n_weights for network in networks)
    return n_obs < CROSSFIT_ROWS and n_weights < CROSSFIT_WEIGHTS


def crossfitted(training: Training) -> Training:
    """Training by cross-fitting, which gates need: they judge rows that a network did not see."""
    if training.crossfit is False:
        raise FitError("select=True of networks needs cross-fitting: leave out crossfit=False")
    return replace(training, crossfit=True)


def folds_of(weights: Vector, training: Training, *, crossfit: bool, seed: int) -> Folds:
    """Folds of the rows that count; rows of weight zero are in none.

    Raises
    ------
    FitError
        There are too few rows or groups for the folds.
    """
    rng = np.random.default_rng([seed, 1])
    if len(weights) > WINDOW_ROWS and is_stored(weights):
        return _by_windows(weights, training, crossfit=crossfit, rng=rng)
    rows = np.flatnonzero(weights > 0)
    if len(rows) < 2 * training.folds:
        raise FitError(
            f"{len(rows)} rows with positive weight are too few for {training.folds} folds of at "
            "least 2 rows; choose fewer with Training(folds=...)"
        )
    run = _runs(rows, training)
    folds = _divided(rows, _places(run, rng), training, crossfit=crossfit, rng=rng)
    if not all(len(part) for part in (*folds.train, *folds.held)):
        raise FitError(
            f"Training(groups=...): {run.max() + 1} groups, of which the largest has "
            f"{np.bincount(run).max()} of {len(rows)} rows, leave a fold without rows; choose "
            "fewer with Training(folds=...)"
        )
    return folds


def _divided(
    rows: Array, place: Vector, training: Training, *, crossfit: bool, rng: np.random.Generator
) -> Folds:
    """Folds of rows by their places; the rows of each are in random order, as epochs take them."""
    if crossfit:
        fold = (training.folds * place).astype(np.int64)
    else:
        given = training.validation
        share = given if isinstance(given, float) else HELD_OUT_SHARE
        fold = np.asarray(place > share, dtype=np.int64)
    held = [fold == number for number in range(training.folds if crossfit else 1)]
    return Folds(
        tuple(rng.permutation(rows[~part]) for part in held),
        tuple(rng.permutation(rows[part]) for part in held),
    )


def _runs(rows: Array, training: Training) -> Array:
    """Which rows belong together, as numbers from 0 on."""
    if training.groups is not None:
        return np.unique(np.asarray(training.groups)[rows], return_inverse=True)[1]
    n = len(rows)
    return np.arange(n) * min(RUNS * training.folds, n) // n


def _places(run: Array, rng: np.random.Generator) -> Vector:
    """Runs in random order on a line from 0 to 1: for each row the middle of its run.

    The first run, however long, is at 0: some rows are held out whatever the share.
    """
    size = np.bincount(run)
    order = rng.permutation(len(size))
    middle = np.empty(len(size))
    middle[order] = np.cumsum(size[order]) - size[order] / 2
    middle[order[0]] = 0.0
    return middle[run] / len(run)


def _by_windows(
    weights: Vector, training: Training, *, crossfit: bool, rng: np.random.Generator
) -> Folds:
    """Folds of each window one after the other, their rows in files."""
    n, n_members = len(weights), training.folds if crossfit else 1
    train, held = ([_Growing.of(n) for _ in range(n_members)] for _ in range(2))
    # a group has rows in many windows and one place in all of them
    of_group = None if training.groups is None else _places(_runs(np.arange(n), training), rng)
    starts = rng.permutation(np.arange(0, n, CHUNK_ROWS))
    for window in np.split(starts, range(0, len(starts), WINDOW_ROWS // CHUNK_ROWS)[1:]):
        rows = np.concatenate([np.arange(a, min(a + CHUNK_ROWS, n)) for a in window])
        rows = rows[weights[rows] > 0]
        place = _places(_runs(rows, training), rng) if of_group is None else of_group[rows]
        own = _divided(rows, place, training, crossfit=crossfit, rng=rng)
        for lists, parts in ((train, own.train), (held, own.held)):
            for m, part in enumerate(parts):
                lists[m] = lists[m].extended(part)
    return Folds(tuple(each.rows for each in train), tuple(each.rows for each in held))


@dataclass(frozen=True, eq=False)
class _Growing:
    """Row numbers in a file, of which the first `length` are known."""

    file: Array
    length: int = 0

    @classmethod
    def of(cls, most: int) -> _Growing:
        return cls(temporary_array((most,), np.int32))

    @property
    def rows(self) -> Array:
        return self.file[: self.length]

    def extended(self, rows: Array) -> _Growing:
        stop = self.length + len(rows)
        self.file[self.length : stop] = rows
        return replace(self, length=stop)
