"""Whether the bases of the smooths are large enough (METHODS 11).

With deviance residuals r and pairs (i, j) of neighbours in the covariates of a smooth,

    v = mean over pairs of (r_i - r_j)^2 / 2,      k-index = v / mean(r^2)

v estimates the residual variance without the smooth's help: a k-index well below one says that
neighbours are alike, so that pattern is left. Its p-value is the share of k-indices that are as
small when the residuals are shuffled. Neighbours are next in order for one covariate; for several
the three nearest, for `te` and `ti` after each covariate is multiplied by the mean absolute slope
of the smooth along it. (mgcv multiplies by 1 / range too, which makes its k-index of a tensor
product depend on the units of the covariates.) Random effects are not checked.

References: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.9; Phipson & Smyth (2010),
doi:10.2202/1544-6115.1585 (p-values of permutation tests are never zero).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.spatial

from deepregress.basis.random_effect import RandomEffect
from deepregress.basis.tensor import Tensor
from deepregress.data import Frame
from deepregress.linalg import Array, Matrix, Vector
from deepregress.prediction import Predictors
from deepregress.terms.base import ColumnBlock
from deepregress.terms.smooth import SmoothColumns, read

NEIGHBOURS = 3
STEP = 1e-4
"""Step of a slope, as a share of the covariate's range."""


def basis_dimensions(
    predictors: Predictors,
    edf: Vector,
    frame: Frame,
    residuals: Vector,
    *,
    subsample: int,
    n_rep: int,
    seed: int,
) -> pd.DataFrame:
    """Test each smooth for pattern left in the residuals along its covariates.

    Parameters
    ----------
    predictors : Predictors
    edf : Vector, (n_coef,)
        Effective degrees of freedom of the coefficients.
    frame : Frame
        The training rows.
    residuals : Vector, (n_obs,)
    subsample : int
        Of more rows so many are drawn.
    n_rep : int
        Shuffles of the residuals.
    seed : int
        Of the draw and of the shuffles.

    Returns
    -------
    DataFrame
        k (coefficients, the largest edf there can be), edf, k_index, p_value by (parameter, term);
        the last two are missing for random effects, and where residuals are
        zero or infinite.
    """
    draws = np.random.default_rng(seed)
    kept = np.arange(frame.n_obs)
    if frame.n_obs > subsample:
        kept = np.sort(draws.choice(frame.n_obs, subsample, replace=False))
    part, r = frame.rows(kept), residuals[kept]
    rows, index = [], []
    for parameter, block, place in _smooths(predictors):
        x = _positions(block, part, predictors.estimate.coef[place])
        k_index, p_value = np.nan, np.nan
        if x is not None:
            k_index, p_value = _test(_neighbours(x), r, n_rep, draws)
        rows.append((block.n_coef, float(edf[place].sum()), k_index, p_value))
        index.append((parameter, block.label))
    places = pd.MultiIndex.from_arrays(
        [[parameter for parameter, _ in index], [label for _, label in index]],
        names=["parameter", "term"],
    )
    return pd.DataFrame(rows, index=places, columns=["k", "edf", "k_index", "p_value"])


def _smooths(predictors: Predictors) -> Iterator[tuple[str, ColumnBlock, Array]]:
    """Parameter, block and places of the coefficients of each smooth."""
    for unit in predictors.units:
        for block, columns in unit.blocks.values():
            if block.kind == "smooth":
                yield (
                    unit.parameter,
                    block,
                    np.arange(columns.start, columns.stop) + unit.columns.start,
                )


def _positions(block: ColumnBlock, frame: Frame, coef: Vector) -> Matrix | None:
    """Numeric covariates of a smooth in comparable units, (n_obs, d); None for random effects."""
    recipe = block.recipe
    if not isinstance(recipe, SmoothColumns) or isinstance(recipe.basis, RandomEffect):
        return None
    x = read(
        frame, recipe.covariates, recipe.factors, recipe.variables, label=recipe.label,
        new_levels=recipe.new_levels,
    )  # fmt: skip
    if isinstance(recipe.basis, Tensor):
        return x * _slopes(recipe.basis, coef if recipe.Z is None else recipe.Z @ coef, x)
    numeric = [j for j, levels in enumerate(recipe.factors) if levels is None]
    return x[:, numeric] if numeric else None


def _slopes(basis: Tensor, coef: Vector, x: Matrix) -> Vector:
    """Mean absolute slope of basis(x) coef along each covariate, (d,)."""
    slopes = np.empty(x.shape[1])
    for j in range(x.shape[1]):
        shift = np.zeros(x.shape[1])
        shift[j] = 0.5 * STEP * np.ptp(x[:, j])
        rise = (basis.evaluate(x + shift) - basis.evaluate(x - shift)) @ coef
        slopes[j] = np.abs(rise).mean() / (STEP * np.ptp(x[:, j]))
    return slopes


def _neighbours(x: Matrix) -> Array:
    """Pairs of neighbouring rows, (n_pairs, 2)."""
    n = len(x)
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0], kind="stable")
        return np.column_stack([order[:-1], order[1:]])
    nearest = min(NEIGHBOURS, n - 1)
    _, found = scipy.spatial.KDTree(x).query(x, k=nearest + 1)
    # among rows of one place a row need not be the first of its own neighbours
    own = found == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True
    return np.column_stack([np.repeat(np.arange(n), nearest), found[~own]])


def _test(
    pairs: Array, residuals: Vector, n_rep: int, draws: np.random.Generator
) -> tuple[float, float]:
    """The k-index of some pairs of neighbours and its permutation p-value."""
    total = float(np.mean(residuals**2))
    if total == 0.0 or not np.isfinite(total):
        return np.nan, np.nan

    def difference(r: Vector) -> float:
        return float(np.mean((r[pairs[:, 0]] - r[pairs[:, 1]]) ** 2)) / 2.0

    observed = difference(residuals)
    smaller = sum(difference(draws.permutation(residuals)) <= observed for _ in range(n_rep))
    return observed / total, (1 + smaller) / (1 + n_rep)
