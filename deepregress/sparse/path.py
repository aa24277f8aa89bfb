"""`path`: a model with sparse terms at every lam (METHODS 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepregress.errors import FitError
from deepregress.families.base import Family
from deepregress.fitted import FittedModel
from deepregress.linalg import Array, Matrix, Vector
from deepregress.model import Bound, bind, fitted_model
from deepregress.sparse.fit import fit_at, result
from deepregress.sparse.model import SparseModel, placed
from deepregress.sparse.plotting import Curves, path_figure
from deepregress.sparse.selection import (
    VALUES,
    LamPath,
    cross_validate,
    fit_path,
    folds,
    lam_of_terms,
    lam_sequence,
    selection_frequency,
)

CRITERIA = ("bic", "ebic", "cv", "cv1se")


class Splitter(Protocol):
    """Any splitter of scikit-learn."""

    def split(self, X: Any) -> Iterable[tuple[Array, Array]]:
        """Yield rows to fit and rows to judge by."""


def path(
    formula: str | Mapping[str, str | float] | Sequence[str],
    data: Any,
    family: str | Family = "normal",
    *,
    link: str | Mapping[str, Any] | None = None,
    weights: str | Sequence[float] | Array | None = None,
    method: str = "REML",
    na: Literal["drop", "raise"] = "drop",
    lam: Sequence[float] | None = None,
    n_lam: int = VALUES,
    ratio: float | None = None,
    folds: int | Splitter | Iterable[tuple[Array, Array]] | None = None,
    halves: int = 0,
    seed: int = 0,
) -> SparsePath:
    """Fit a model with sparse terms at a descending sequence of lam.

    Every fit starts from the one before; those at which a term enters or leaves are not special.
    Terms with a `lam` of their own keep it.

    Parameters
    ----------
    formula, data, family, link, weights, na
        As in `fit`; at least one term is `lasso`, `elasticnet` or `grouplasso` without `lam`.
    method : {"REML", "ML"}
        Marginal likelihood that chooses the smoothing parameters of other terms.
    lam : sequence of float, optional
        Penalties per observation (glmnet's lambda); by default `n_lam` values from the largest with
        an effect down to `ratio` times it, evenly spaced in log(lam).
    n_lam : int
    ratio : float, optional
        1e-4, or 1e-2 where there are more sparse coefficients than observations.
    folds : int, splitter or iterable, optional
        Cross-validation: a number of random folds, a splitter of scikit-learn, or pairs of row
        numbers (to fit, to judge by). None for none.
    halves : int
        Stability selection: so many random halves of the rows are fitted too.
    seed : int
        Of random folds and halves.

    Returns
    -------
    SparsePath

    Raises
    ------
    DeepRegressError
        As `fit`; or no term has a lam to vary.

    Examples
    --------
    >>> import deepregress as dr
    >>> data = dr.datasets.load("diabetes")
    >>> names = ", ".join(data.columns.drop("progression"))
    >>> found = dr.path(f"progression ~ lasso({names})", data)
    >>> round(float(found.model("bic").coef["loc", "bmi"]), 1)
    5.6

    References
    ----------
    Friedman, Hastie & Tibshirani (2010), doi:10.18637/jss.v033.i01.
    """
    if method not in ("REML", "ML"):
        raise FitError(f"method must be one of REML, ML, got {method!r}")
    bound = bind(
        formula, data, family, link=link, networks={}, weights=weights, na=na, select=False
    )
    if any(design.networks for design in bound.designs.values()):
        raise FitError("a path is of models without networks; beside them fit() chooses lam")
    found, objective = placed(bound.designs), bound.objective
    if all(block.sparsity.lam is not None for block in found):
        raise FitError(
            "a path needs a term lasso(), elasticnet() or grouplasso() whose lam is not given"
        )
    model = SparseModel.of(objective, found, method=method)
    values = _values(lam) if lam is not None else _sequence(model, n_lam, ratio)
    fitted = fit_path(model, values)
    if folds is not None:
        split = _split(objective.n_obs, folds, seed)
        fitted = cross_validate(objective, found, fitted, split, method=method)
    frequency = None
    if halves:
        frequency = selection_frequency(
            objective, found, fitted.lam, method=method, samples=halves, seed=seed
        )
    return SparsePath(bound, model, fitted, frequency)


def _values(given: Sequence[float]) -> Vector:
    values = np.sort(np.asarray(given, dtype=np.float64))[::-1]
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values[-1] < 0:
        raise FitError(f"lam must be numbers >= 0, got {given!r}")
    return values


def _sequence(model: SparseModel, n_lam: int, ratio: float | None) -> Vector:
    if n_lam < 2:
        raise FitError(f"n_lam must be a whole number >= 2, got {n_lam!r}")
    if ratio is not None and not 0 < ratio < 1:
        raise FitError(f"ratio must lie between 0 and 1, got {ratio!r}")
    return lam_sequence(model, n_values=n_lam, ratio=ratio)


def _split(
    n_obs: int, given: int | Splitter | Iterable[tuple[Array, Array]], seed: int
) -> Iterable[tuple[Array, Array]]:
    if isinstance(given, int):
        if given < 2:
            raise FitError(f"folds must be a whole number >= 2, got {given}")
        return folds(n_obs, given, seed)
    if hasattr(given, "split"):
        return given.split(np.zeros((n_obs, 1)))
    return given


@dataclass(frozen=True, eq=False)
class SparsePath:
    """Fits of one model along a path of lam; made by `path`.

    Parameters
    ----------
    bound : Bound
    sparse : SparseModel
    fitted : LamPath
    frequency : Matrix or None, (n_lam, n_coef)
        Shares of the random halves in which each coefficient is not zero.
    """

    bound: Bound = field(repr=False)
    sparse: SparseModel = field(repr=False)
    fitted: LamPath = field(repr=False)
    frequency: Matrix | None = field(default=None, repr=False)

    @property
    def lam(self) -> Vector:
        """Penalties per observation, descending, (n_lam,)."""
        return self.fitted.lam

    @cached_property
    def coef(self) -> pd.DataFrame:
        """Coefficients by (parameter, name), one row for each lam."""
        index = pd.Index(self.lam, name="lam")
        return pd.DataFrame(self.fitted.coef, index=index, columns=self._names)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Degrees of freedom, groups selected, log-likelihood and criteria, by lam.

        `loss` and its standard error over the folds are there with cross-validation.
        """
        columns = {
            "edf": self.fitted.edf,
            "n_selected": self.fitted.n_selected,
            "loglik": self.fitted.loglik,
            "bic": self.fitted.bic,
            "ebic": self.fitted.ebic,
        }
        if self.fitted.loss is not None and self.fitted.loss_se is not None:
            columns |= {"loss": self.fitted.loss, "loss_se": self.fitted.loss_se}
        return pd.DataFrame(columns, index=pd.Index(self.lam, name="lam"))

    @cached_property
    def stability(self) -> pd.DataFrame:
        """Share of the random halves in which each sparse coefficient is not zero, by lam.

        Raises
        ------
        FitError
            The path was fitted without halves.
        """
        if self.frequency is None:
            raise FitError("stability needs random halves: path(..., halves=50)")
        own = self.sparse.terms.coordinates.index
        index = pd.Index(self.lam, name="lam")
        return pd.DataFrame(self.frequency[:, own], index=index, columns=self._names[own])

    def best(self, select: str = "bic") -> float:
        """The lam that a criterion chooses.

        Parameters
        ----------
        select : {"bic", "ebic", "cv", "cv1se"}

        Raises
        ------
        FitError
            An unknown criterion, or no cross-validation.
        """
        return float(self.lam[self._number(select)])

    def model(self, at: str | float = "bic", *, refit: Literal["no", "yes"] = "no") -> FittedModel:
        """The fitted model at one lam.

        Parameters
        ----------
        at : str or float
            What chooses lam, or lam itself.
        refit : {"no", "yes"}
            Whether the coefficients that are not zero are fitted again without the penalty.
        """
        if refit not in ("no", "yes"):
            raise FitError(f"refit must be 'no' or 'yes', got {refit!r}")
        if isinstance(at, str):
            number, lam = self._number(at), self.best(at)
        else:
            number, lam = int(np.argmin(np.abs(self.lam - at))), float(at)
        fit = fit_at(self.sparse, lam_of_terms(self.sparse, lam), self.fitted.fits[number])
        criterion = at if isinstance(at, str) else ""
        fitted = result(self.sparse, fit, criterion=criterion, refit=refit == "yes")
        return fitted_model(
            self.bound, fitted, None, seed=None, method=self.sparse.method, settings={}
        )

    def plot(self) -> Figure:
        """Draw the coefficients and the criterion against log(lam)."""
        own = self.sparse.terms.coordinates
        names = self._names[own.index].get_level_values("name")
        chosen = {
            name: self.best(name)
            for name in CRITERIA
            if self.fitted.loss is not None or not name.startswith("cv")
        }
        return path_figure(
            Curves(
                lam=self.lam,
                coef=(own.R @ self.fitted.coef[:, own.index].T).T,
                names=[str(name) for name in names],
                edf=self.fitted.edf,
                criteria={"bic": self.fitted.bic, "ebic": self.fitted.ebic},
                loss=self.fitted.loss,
                loss_se=self.fitted.loss_se,
                chosen=chosen,
            )
        )

    def _number(self, select: str) -> int:
        if select not in CRITERIA:
            raise FitError(f"select must be one of {', '.join(CRITERIA)}, got {select!r}")
        return self.fitted.chosen(select, self.sparse.weight)

    @cached_property
    def _names(self) -> pd.MultiIndex:
        pairs = [
            (parameter, name)
            for parameter, design in self.bound.designs.items()
            for name in design.names
        ]
        return pd.MultiIndex.from_tuples(pairs, names=["parameter", "name"])
