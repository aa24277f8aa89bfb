"""`cross_validate`: scores of a formula on rows that its fits have not seen (METHODS 11).

    for each split (train, test):  fit on train, score each row of test
    mean over all test rows,       se = sd over these rows / sqrt(their number)

Reference: Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import narwhals as nw
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError
from deepregress.families import Family
from deepregress.linalg import Array
from deepregress.model import fit
from deepregress.scoring import row_scores
from deepregress.solvers.base import Training


def cross_validate(
    formula: str | Mapping[str, str | float] | Sequence[str],
    data: Any,
    family: str | Family = "normal",
    *,
    splitter: Any = 5,
    scores: Sequence[str] = ("log_score", "crps"),
    groups: str | Sequence[Any] | Array | None = None,
    link: str | Mapping[str, Any] | None = None,
    networks: Mapping[str, Any] | None = None,
    weights: str | None = None,
    method: str = "REML",
    training: Training | None = None,
    orthogonalize: str = "posthoc",
    seed: int = 0,
    na: Literal["drop", "raise"] = "drop",
    select: bool = False,
) -> pd.DataFrame:
    """Fit and score by cross-validation.

    Parameters
    ----------
    formula, data, family : see `fit`
        Rows to be scored must be complete.
    splitter : int or scikit-learn splitter
        A number of random folds, or anything with `split(X, y, groups)`.
    scores : sequence of str
        Of "log_score" (larger is better), "crps", "squared_error", "absolute_error", "rps".
    groups : str or array, optional
        For splitters by group: a column, or one value per row.
    weights : str, optional
        Column of row weights of the fits; scores are not weighted.
    seed : int
        Of random folds and of the fits' networks.
    link, networks, method, training, orthogonalize, na, select : see `fit`

    Returns
    -------
    DataFrame
        One row per fold with its number of test rows and the means of the scores; then "mean" over
        all test rows and "se", its standard error.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> table = dr.cross_validate("foodexp ~ income", engel)
    >>> table.index.tolist()
    [1, 2, 3, 4, 5, 'mean', 'se']
    """
    table = Rows(data)
    by_row: list[pd.DataFrame] = []
    for fold, (train, test) in enumerate(_splits(table, splitter, groups, seed), start=1):
        model = fit(
            formula,
            table.take(train),
            family,
            link=link,
            networks=networks,
            weights=weights,
            method=method,
            training=training,
            orthogonalize=orthogonalize,
            seed=seed,
            verbose=0,
            na=na,
            select=select,
        )
        held = table.take(test)
        columns = {score: row_scores(model, score, held) for score in scores}
        by_row.append(pd.DataFrame(columns).assign(fold=fold))
    rows = pd.concat(by_row, ignore_index=True)
    return _summary(rows)


def _summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means by fold, over all rows, and standard errors."""
    grouped = rows.groupby("fold")
    folds = grouped.mean()
    folds.insert(0, "n", grouped.size().astype(float))
    every = rows.drop(columns="fold")
    n = float(len(every))
    mean = pd.concat([pd.Series({"n": n}), every.mean()])
    se = pd.concat([pd.Series({"n": n}), every.std(ddof=1) / np.sqrt(n)])
    ends = pd.DataFrame([mean, se], index=pd.Index(["mean", "se"], dtype=object))
    folds.index = folds.index.astype(object)
    return pd.concat([folds, ends]).rename_axis("fold")


def _splits(
    table: Rows, splitter: Any, groups: str | Sequence[Any] | Array | None, seed: int
) -> Iterable[tuple[Array, Array]]:
    """Rows to train on and to test, of each fold."""
    if isinstance(splitter, int):
        if not 2 <= splitter <= table.n:
            raise DataError(f"splitter={splitter}: needs from 2 to {table.n} folds")
        splitter = KFold(splitter, shuffle=True, random_state=seed)
    if isinstance(splitter, str) or not hasattr(splitter, "split"):
        raise DataError(
            f"splitter must be a number of folds or a scikit-learn splitter, got {splitter!r}"
        )
    given = table.column(groups) if isinstance(groups, str) else groups
    found: Iterable[tuple[Array, Array]] = splitter.split(np.arange(table.n), None, given)
    return found


class Rows:
    """A table of any kind, of which some rows can be taken.

    Parameters
    ----------
    data : table or dict of arrays
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self.frame: Any = None
        if not isinstance(data, Mapping):
            try:
                self.frame = nw.from_native(data, eager_only=True)
            except TypeError as error:
                raise DataError(
                    "cross_validate needs a table in memory or a dict of arrays, got "
                    f"{type(data).__name__}"
                ) from error

    @property
    def n(self) -> int:
        """Number of rows."""
        if self.frame is None:
            return len(next(iter(self.data.values())))
        return len(self.frame)

    def column(self, name: str) -> Array:
        """One column."""
        known = self.data if self.frame is None else self.frame.columns
        if name not in known:
            raise DataError(f"{name!r} is not a column of the data")
        return np.asarray(self.data[name] if self.frame is None else self.frame[name].to_numpy())

    def take(self, rows: Array) -> Any:
        """A table of these rows, of the same kind."""
        if self.frame is None:
            return {name: _of(column, rows) for name, column in self.data.items()}
        if isinstance(self.data, pd.DataFrame):
            return self.data.iloc[rows]
        return self.frame[rows].to_native()


def _of(column: Any, rows: Array) -> Any:
    """Rows of a column; of one on disk no others are read."""
    if isinstance(column, np.ndarray | StoredArray):
        return column[rows]
    return np.asarray(column)[rows]
