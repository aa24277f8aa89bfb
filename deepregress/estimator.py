"""`DistributionalRegressor`: `fit` as a scikit-learn estimator (DESIGN 1).

The formula is written as for `fit`; X is a table with its columns, or an array whose columns are
called x0, x1, ... A response given as y takes the place of the column on the formula's left side.
Without a formula every column of X has a linear effect on the first parameter.

Reference: Buitinck et al. (2013), API design for machine learning software, arXiv:1309.0238.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import narwhals as nw
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from deepregress.errors import FormulaError
from deepregress.families import Family
from deepregress.linalg import Array, Vector
from deepregress.model import fit
from deepregress.solvers.base import Training

RESPONSE = "y"
"""Name of the response where the formula is not given."""


class DistributionalRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Scikit-learn estimator over `fit`: all arguments are its own.

    Parameters
    ----------
    formula : str, dict or list, optional
        As for `fit`; None: every column of X, linear.
    family, link, networks, method, training, orthogonalize, select : see `fit`
    random_state : int, optional
        Seed of the networks.
    verbose : int

    Attributes
    ----------
    model_ : FittedModel
    n_features_in_ : int
    feature_names_in_ : array of str
        Where X has names.

    Examples
    --------
    >>> import deepregress as dr
    >>> engel = dr.datasets.load("engel")
    >>> estimator = dr.DistributionalRegressor("foodexp ~ s(income)")
    >>> estimator.fit(engel[["income"]], engel["foodexp"]).predict(engel[:2]).shape
    (2,)
    """

    def __init__(
        self,
        formula: str | Mapping[str, str | float] | Sequence[str] | None = None,
        *,
        family: str | Family = "normal",
        link: str | Mapping[str, Any] | None = None,
        networks: Mapping[str, Any] | None = None,
        method: str = "REML",
        training: Training | None = None,
        orthogonalize: str = "posthoc",
        select: bool = False,
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.formula = formula
        self.family = family
        self.link = link
        self.networks = networks
        self.method = method
        self.training = training
        self.orthogonalize = orthogonalize
        self.select = select
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : table or array, (n_obs, n_features)
        y : array, (n_obs,), optional
            The response; without it, a column of X.
        sample_weight : array, (n_obs,), optional
            Weight 2 is the row twice.

        Raises
        ------
        DeepRegressError
            As `fit`.
        """
        columns, y = self._training_columns(X, y)
        formula = self.formula
        if formula is None:
            formula = f"{RESPONSE} ~ {' + '.join(f'`{name}`' for name in columns)}"
        if y is not None:
            columns[_response_name(formula)] = y
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
            if np.any(weights == 0.0):  # as scikit-learn has it: such rows are no rows
                columns, weights = _kept(columns, weights > 0.0), weights[weights > 0.0]
        self.model_ = fit(
            formula,
            columns,
            self.family,
            link=self.link,
            networks=self.networks,
            weights=weights,
            method=self.method,
            training=self.training,
            orthogonalize=self.orthogonalize,
            seed=self.random_state,
            verbose=self.verbose,
            select=self.select,
        )
        return self

    def predict(self, X: Any, which: str = "mean", *, at: Any = None) -> Any:
        """Predict from the distribution of each row; `which` and `at` as in `FittedModel.predict`.

        Parameters
        ----------
        X : table or array, (n_obs, n_features)
        which : str
        at : number or array, optional
        """
        check_is_fitted(self)
        return self.model_.predict(self._columns(X), which, at=at)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log score, natural log, larger is better: that of the whole distribution.

        Parameters
        ----------
        X : table or array, (n_obs, n_features)
        y : array, (n_obs,), optional
            Without it, a column of X.
        sample_weight : array, (n_obs,), optional
        """
        check_is_fitted(self)
        columns = self._columns(X)
        if y is not None:
            columns[self.model_._profile.response] = np.asarray(y)
        rows: Vector = np.asarray(self.model_.predict(columns, "logpdf"))
        return float(np.average(rows, weights=sample_weight))

    def __sklearn_tags__(self) -> Any:
        """A score of densities is no R^2; y may be a column of X."""
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        tags.target_tags.required = self.formula is None
        return tags

    def _training_columns(self, X: Any, y: Any) -> tuple[dict[str, Any], Any]:
        if self.formula is None:
            X, y = validate_data(self, X, y, y_numeric=True, dtype=np.float64, ensure_min_samples=2)
            return _named(X, _names(self)), y
        columns = _table(X)
        self.n_features_in_ = len(columns)
        self.feature_names_in_ = np.array(list(columns), dtype=object)
        return columns, None if y is None else np.asarray(y)

    def _columns(self, X: Any) -> dict[str, Any]:
        if self.formula is None:
            X = validate_data(self, X, reset=False, dtype=np.float64)
            return _named(X, _names(self))
        return _table(X)


def _names(estimator: DistributionalRegressor) -> list[str]:
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return [f"x{j}" for j in range(estimator.n_features_in_)]
    return [str(name) for name in names]


def _named(X: Array, names: Sequence[str]) -> dict[str, Any]:
    return dict(zip(names, np.asarray(X).T, strict=True))


def _kept(columns: Mapping[str, Any], rows: Array) -> dict[str, Any]:
    return {name: np.asarray(column)[rows] for name, column in columns.items()}


def _table(X: Any) -> dict[str, Any]:
    """Columns by name, of a table, a dict or an array."""
    if isinstance(X, Mapping):
        return dict(X)
    if isinstance(X, np.ndarray):
        return _named(np.atleast_2d(X), [f"x{j}" for j in range(X.shape[-1])])
    frame = nw.from_native(X, eager_only=True)
    return {name: frame[name].to_native() for name in frame.columns}


def _response_name(formula: str | Mapping[str, str | float] | Sequence[str]) -> str:
    """The left side of the formula, which must be a column's name where y is given."""
    texts = [formula] if isinstance(formula, str) else formula
    each = texts.values() if isinstance(texts, Mapping) else texts
    sides = [str(text).partition("~")[0].strip() for text in each]
    found = next((side for side in sides if side), RESPONSE)
    if not found.strip("`").isidentifier():
        raise FormulaError(
            f"y is given, but the response {found!r} is no column: leave y out and give what it is "
            "made of in X"
        )
    return found.strip("`")
