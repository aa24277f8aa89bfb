"""What a predictor is made of: its variance over the training rows, term by term (METHODS 5).

    eta_u = constant + sum_j f_j + sum_k d_k          f: structured terms, d: networks
    Var(v) = sum_i w_i (v_i - mean(v))^2 / sum_i w_i   over the training rows, w their weights

    1 = Var(sum f) / Var(eta) + Var(sum d) / Var(eta) + 2 Cov(sum f, sum d) / Var(eta)
         structured             deep                    shared

The projection moved m_k = c_k mean over members of (X C_m) from network k to the structured part:
what it said about its protected columns X before (module `projection`); c_k is its multiplier.

References: Ruegamer (2023), ICML, arXiv 2306.00522.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepregress.data import Frame
from deepregress.linalg import Matrix, Vector, one_blas_thread
from deepregress.prediction import Predictor, Predictors, UnitRows, chunks
from deepregress.predictor import DeepEffect
from deepregress.terms.parametric import INTERCEPT

COLUMNS = ("kind", "variance", "share", "moved")
STRUCTURED, DEEP, TOTAL = "structured", "deep", "total"


def decomposition(predictors: Predictors, frame: Frame, weights: Vector) -> pd.DataFrame:
    """Variance of each predictor by part.

    Parameters
    ----------
    predictors : Predictors
    frame : Frame
        Training rows.
    weights : Vector, (n_obs,)

    Returns
    -------
    DataFrame
        kind, variance, share, moved by (parameter, part); predictors without variance are left out.
    """
    rows: list[tuple[str, float, float, float]] = []
    index: list[tuple[str, str]] = []
    coef = predictors.estimate.coef
    for unit in predictors.units:
        parts = _Parts.of(unit)
        cov = _covariance(unit, parts, coef[unit.columns], frame, weights)
        for part, row in _of_predictor(parts, cov):
            index.append((unit.parameter, part))
            rows.append(row)
    places = pd.MultiIndex.from_arrays(
        [[parameter for parameter, _ in index], [part for _, part in index]],
        names=["parameter", "part"],
    )
    return pd.DataFrame(rows, index=places, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Parts:
    """Labels of a predictor's structured terms, with its offsets, and of its networks."""

    structured: tuple[str, ...]
    deep: tuple[str, ...]

    @classmethod
    def of(cls, unit: Predictor) -> _Parts:
        """All but the intercept, which has no variance."""
        terms = [label for label in unit.design.slices if label != INTERCEPT]
        known = [block.label for block in unit.design.offsets]
        return cls((*terms, *known), tuple(block.label for block in unit.design.networks))


def _of_predictor(
    parts: _Parts, cov: Matrix
) -> Iterator[tuple[str, tuple[str, float, float, float]]]:
    """Rows of the table from the covariance of terms, networks and what was moved from these."""
    n_terms, n_deep = len(parts.structured), len(parts.deep)
    f = np.arange(n_terms)
    d = n_terms + np.arange(n_deep)
    m = d + n_deep
    every = np.concatenate([f, d])
    total = float(cov[np.ix_(every, every)].sum())
    if not total > 0.0:
        return

    def row(kind: str, variance: float, moved: float = 0.0) -> tuple[str, float, float, float]:
        return kind, float(variance), float(variance) / total, float(moved) / total

    for j, label in enumerate(parts.structured):
        yield label, row(STRUCTURED, cov[j, j])
    for k, label in enumerate(parts.deep):
        yield label, row(DEEP, cov[d[k], d[k]], cov[m[k], m[k]])
    yield STRUCTURED, row(TOTAL, cov[np.ix_(f, f)].sum())
    if n_deep:
        yield DEEP, row(TOTAL, cov[np.ix_(d, d)].sum(), cov[np.ix_(m, m)].sum())
        yield "shared", row(TOTAL, 2.0 * cov[np.ix_(f, d)].sum())
    yield "predictor", row(TOTAL, total)


def _covariance(
    unit: Predictor, parts: _Parts, coef: Vector, frame: Frame, weights: Vector
) -> Matrix:
    """Weighted covariance of the columns of `_values`; their moments add over chunks of rows."""
    n_columns = len(parts.structured) + 2 * len(parts.deep)
    weight, first, second = 0.0, np.zeros(n_columns), np.zeros((n_columns, n_columns))
    # centred at values of the first chunk, so that a large mean takes no digits from the variance
    centre: Vector | None = None
    with one_blas_thread():
        for rows, part in chunks(frame):
            values = _values(unit, parts, coef, part)
            centre = values.mean(axis=0) if centre is None else centre
            values -= centre
            weighted = weights[rows, None] * values
            weight += float(weights[rows].sum())
            first += weighted.sum(axis=0)
            second += weighted.T @ values
    mean = first / weight
    return np.asarray(second / weight - np.outer(mean, mean))


def _values(unit: Predictor, parts: _Parts, coef: Vector, frame: Frame) -> Matrix:
    """Terms and offsets, networks, and what was moved from these, (n_obs, n_terms + 2 n_deep)."""
    pieces = unit.rows(frame)
    known = {block.label: block for block in unit.design.offsets}
    columns = []
    for label in parts.structured:
        if label in known:
            columns.append(known[label].evaluate(frame))
            continue
        index = np.arange(unit.design.n_coef)[unit.design.slices[label]]
        columns.append(pieces.matrix.select(index).times(coef[index]))
    none = np.zeros(frame.n_obs)
    columns += [pieces.effects.get(label, none) for label in parts.deep]
    columns += [_moved(unit.effects, label, pieces) for label in parts.deep]
    return np.column_stack(columns) if columns else np.zeros((frame.n_obs, 0))


def _moved(effects: Mapping[str, DeepEffect], label: str, pieces: UnitRows) -> Vector:
    """c mean_m (X C_m): what the network said about its protected columns, (n_obs,)."""
    effect = effects[label]
    if effect.multiplier == 0.0 or not len(effect.protected):
        return np.zeros(pieces.matrix.n_obs)
    said = pieces.matrix.select(effect.protected).times(effect.projection.mean(axis=1))
    return np.asarray(effect.multiplier * said)
