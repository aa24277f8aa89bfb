"""Predictions freed of protected covariates (METHODS 5, non-linear orthogonalisation).

    features (linear, ReLU, tensors)   U - X_c (X_c' W X_c)^-1 X_c' W U, along the rows
    generalised linear model           maximise l(b) - 1/2 b' S b  subject to  X_c' W h(eta(b)) = 0

X_c are the protected covariates, centred. Under the constraint their coefficients vanish in the
evaluation model, a generalised linear model of the fitted means (module `influence`). The model is
refitted with the smoothing parameters of the fit and its networks as they are; what the fit left of
the gradient (the unbiased dispersion, multipliers judged on held-out rows) stays as it is, so that
a constraint that holds already changes nothing.

References: Ruegamer, Kolb et al. (2024), ICML, arXiv 2405.02475.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepregress.assembly import assemble
from deepregress.data import Frame, prediction_frame
from deepregress.disk.arrow import Inverse
from deepregress.errors import ConvergenceWarning, FitError, PredictionError, warn
from deepregress.families.base import Family
from deepregress.fitted import FittedModel
from deepregress.formula import expression_variables
from deepregress.inference.covariance import Inference
from deepregress.inference.influence import Protection, evaluation_coefficients
from deepregress.linalg import Array, Matrix, Vector, one_blas_thread
from deepregress.marginal import Problem
from deepregress.objective import Objective
from deepregress.prediction import Deep, chunks
from deepregress.projection import projection
from deepregress.smoothing import reported_information, reported_loglik
from deepregress.solvers.base import Solution, Status
from deepregress.solvers.constrained import Balance, Constrained, maximise, slopes
from deepregress.solvers.newton import State, evaluate
from deepregress.terms.parametric import LinearTerm

ACTIVATIONS = ("linear", "relu")


def project(
    features: Array,
    protected: Array,
    *,
    activation: str = "linear",
    weights: Vector | None = None,
) -> Array:
    """Features without what protected covariates say linearly; their means stay.

    Parameters
    ----------
    features : array, (n_obs, ...)
        A vector, a matrix or a tensor of features; each of its numbers is projected over the rows.
    protected : array, (n_obs,) or (n_obs, q)
        Protected covariates, numbers; they are centred.
    activation : {"linear", "relu"}
        Applied before the projection: projected afterwards, max(0, u) is orthogonal, the positive
        part of projected features is not.
    weights : Vector, (n_obs,), optional
        Of the rows.

    Returns
    -------
    array, (n_obs, ...)
        X_c' W times it is zero to rounding.

    Raises
    ------
    FitError
        The shapes do not fit, or the activation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from deepregress.orthogonal import project
    >>> project(np.array([1.0, 2.0, 6.0, 7.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    array([3.5, 4.5, 3.5, 4.5])
    """
    if activation not in ACTIVATIONS:
        raise FitError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    U, X = np.asarray(features, dtype=np.float64), np.asarray(protected, dtype=np.float64)
    X = X[:, None] if X.ndim == 1 else X
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if U.ndim == 0 or X.ndim != 2 or not len(U) == len(X) == len(w):
        raise FitError(
            f"features of shape {U.shape}, protected covariates of shape {X.shape} and weights of "
            f"shape {w.shape} do not have the same rows"
        )
    if activation == "relu":
        U = np.maximum(U, 0.0)
    centred = X - np.average(X, axis=0, weights=w)
    flat = U.reshape(len(U), -1)
    mean = np.average(flat, axis=0, weights=w)
    rest = flat - centred @ projection(centred, w, flat - mean)
    return np.asarray(rest.reshape(U.shape))


def influence(model: FittedModel, protected: str | Sequence[str], newdata: Any = None) -> pd.Series:
    """Coefficients of protected covariates in the evaluation model of a model's means.

    Parameters
    ----------
    model : FittedModel
        A generalised linear model, with or without smooths and networks.
    protected : str or sequence of str
        Columns, or expressions of them, as in a formula: "sex", "sex:race".
    newdata : table or dict, optional
        Rows; those of training by default, which have the columns that the model's formulas name.

    Returns
    -------
    Series
        By covariate, on the scale of the first predictor; zero where the means are free of them.

    Raises
    ------
    FitError
        The family's mean is not that of a generalised linear model.
    PredictionError
        A protected column is missing.
    """
    family = _checked(model)
    columns = _Columns.of(model, protected, newdata)
    eta = model._eta(newdata, model._rows(newdata, frozenset()), frozenset())
    weights = np.ones(len(eta)) if newdata is not None else _row_weights(model)
    found = _coefficients(family, eta, columns.X, weights)
    return pd.Series(found, index=pd.Index(columns.names, name="covariate"), name="influence")


def protect(model: FittedModel, protected: str | Sequence[str], *, data: Any = None) -> FittedModel:
    """Refit a model so that its means are free of protected covariates.

    In the training rows the coefficients of the protected covariates in the evaluation model, a
    generalised linear model of the fitted means, are then zero to rounding. Networks are kept as
    they are; coefficients and the networks' multipliers maximise the penalised likelihood under the
    constraint, with the smoothing parameters of the fit. Covariances are those given the
    constraint.

    Parameters
    ----------
    model : FittedModel
        A generalised linear model of linear, smooth and deep terms.
    protected : str or sequence of str
        Columns, or expressions of them, as in a formula: "sex", "sex:race". They need not be terms
        of the model; where they are, the other terms' part of their effect is balanced by them.
    data : table or dict, optional
        The training rows with these columns, where the model's formulas do not name them.

    Returns
    -------
    FittedModel
        With `influence`, a DataFrame before and after by covariate.

    Raises
    ------
    FitError
        The family's mean is not that of a generalised linear model, or the constraint cannot hold.
    PredictionError
        A protected column is missing, or `data` are not the training rows.

    Warns
    -----
    ConvergenceWarning
        The constrained maximum was not reached.

    Examples
    --------
    >>> import deepregress as dr
    >>> data = dr.datasets.load("penguins").dropna()
    >>> model = dr.fit("body_mass_g ~ s(flipper_length_mm) + bill_depth_mm", data)
    >>> fair = dr.orthogonal.protect(model, "sex", data=data)
    >>> bool((fair.influence["after"].abs() < 1e-6).all())
    True

    References
    ----------
    Ruegamer, Kolb et al. (2024), arXiv:2405.02475.
    """
    family = _checked(model)
    columns = _Columns.of(model, protected, data)
    if len(columns.X) != model.nobs:
        raise PredictionError(
            f"data have {len(columns.X)} rows, the model was fitted to {model.nobs} (rows with "
            "missing values or without weight were left out): give the rows of the fit."
        )
    weights = _row_weights(model)
    with one_blas_thread():
        objective = _objective(model)
        found = _maximise(model, objective, _balance(family, columns.X, weights))
        fitted = _refitted(model, objective, found)
    before = _coefficients(family, model._training_eta, columns.X, weights)
    after = _coefficients(family, fitted._training_eta, columns.X, weights)
    told = Protection(columns.formula, columns.names, before, after, found.multipliers)
    return replace(fitted, protection=told)


# -- what is protected -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Columns:
    """Columns X (n_obs, q) of the protected covariates, without a constant."""

    formula: str
    names: tuple[str, ...]
    X: Matrix

    @classmethod
    def of(cls, model: FittedModel, protected: str | Sequence[str], data: Any) -> _Columns:
        """Code them as linear terms beside an intercept."""
        given = (protected,) if isinstance(protected, str) else tuple(protected)
        if not given or not all(isinstance(each, str) and each.strip() for each in given):
            raise FitError(
                f"protected must be names of columns, such as ['sex', 'race'], got {protected!r}"
            )
        variables = tuple(dict.fromkeys(n for each in given for n in expression_variables(each)))
        formula = " + ".join(given)
        term = LinearTerm("protected", formula, variables)
        frame = _frame(model, variables, data)
        block = term.bind(frame)[0]
        return cls(formula, block.names[1:], block.evaluate(frame)[:, 1:])


def _frame(model: FittedModel, variables: Sequence[str], data: Any) -> Frame:
    if data is not None:
        return prediction_frame(data, list(variables))
    frame, _ = model._every_row()
    absent = [name for name in variables if name not in frame]
    if absent:
        raise PredictionError(
            f"{absent[0]!r} is no column that the model's formulas name: give the training rows "
            "with it as data="
        )
    return frame


def _checked(model: FittedModel) -> Family:
    """The family, if its mean is that of a generalised linear model.

    Raises
    ------
    FitError
        It is not.
    """
    family = model.family
    if not (family.exponential or family.exponential_given):
        raise FitError(
            f"family {family.name!r}: protected covariates can be removed from the mean of "
            "generalised linear models, such as normal, bernoulli, binomial, poisson, gamma"
        )
    return family


def _row_weights(model: FittedModel) -> Vector:
    """Weights times trials: what the means of the rows count for in the evaluation model."""
    _, response = model._training()
    return response.weights if response.trials is None else response.weights * response.trials


def _coefficients(family: Family, eta: Matrix, X: Matrix, weights: Vector) -> Vector:
    others = np.average(eta[:, 1 : family.n_units], axis=0, weights=weights)
    mean, _, _ = slopes(family.parameters[0].link, eta[:, 0])
    return evaluation_coefficients(family, mean, X, weights=weights, others=others)


def _balance(family: Family, X: Matrix, weights: Vector) -> Balance:
    centred = X - np.average(X, axis=0, weights=weights)
    scaled = centred / np.sqrt(np.average(centred**2, axis=0, weights=weights))
    return Balance(scaled * (weights / weights.sum())[:, None], family.parameters[0].link)


# -- the constrained fit ---------------------------------------------------------------------------


def _objective(model: FittedModel) -> Objective:
    """The likelihood of the model's coefficients, its networks' effects as columns or offsets."""
    frame, response = model._every_row()
    objective, _ = assemble(model.family, response, model.designs, frame)
    objective = objective.densely()
    coef = model.solution.coef
    for u, unit in enumerate(model._predictors.units):
        effects = _effects(model, u)
        for label, effect in effects.items():
            if label not in unit.multipliers:
                objective = objective.with_offset(u, effect)
        for label, place in unit.multipliers.items():
            column = effects[label] / coef[place] if label in effects else np.zeros(frame.n_obs)
            objective = objective.with_columns(u, column[:, None], ())
    return objective


def _effects(model: FittedModel, u: int) -> dict[str, Vector]:
    """Effects of the networks of one predictor in the training rows, (n_obs,) each."""
    frame, _ = model._training()
    unit = model._predictors.units[u]
    if not unit.networks(frozenset()):
        return {}
    parts = [unit.rows(part).effects for _, part in chunks(frame)]
    return {label: np.concatenate([part[label] for part in parts]) for label in parts[0]}


def _maximise(model: FittedModel, objective: Objective, balance: Balance) -> Constrained:
    """The constrained fit; networks whose multiplier turns negative leave.

    Raises
    ------
    FitError
        The constraint cannot hold.
    """
    solution = model.solution
    if not solution.information.layout.entire:
        raise FitError("a model with a factor of this many levels cannot be protected")
    S, start = solution.S, solution.coef.copy()
    tilt = objective.derivatives(start).gradient - S @ start
    free = np.setdiff1d(np.arange(len(start)), solution.absent)
    places = [p for unit in model._predictors.units for p in unit.multipliers.values()]
    while True:
        found = maximise(objective, start, balance, S=S, tilt=tilt, free=free)
        negative = [place for place in places if found.coef[place] < 0]
        if not negative:
            break
        free = np.setdiff1d(free, negative)
        start[negative] = 0.0
    if not found.feasible:
        raise FitError(
            "no coefficients were found with which the means are free of the protected covariates: "
            "the terms of the model cannot balance them"
        )
    if not found.converged:
        warn(ConvergenceWarning("the constrained maximum was not reached"))
    return found


def _refitted(model: FittedModel, objective: Objective, found: Constrained) -> FittedModel:
    """The model with the constrained coefficients and covariances given the constraint."""
    old, problem = model.solution, Problem.of(objective)
    before, after = evaluate(objective, old.coef), evaluate(objective, found.coef)
    lost = _penalised(before, old) - _penalised(after, old)
    solution = replace(
        old,
        coef=found.coef,
        sp=old.sp * problem.phi(found.coef) / problem.phi(old.coef),
        loglik=reported_loglik(problem, after),
        reml=old.reml + lost,
        information=reported_information(problem, after),
        status=Status(found.converged, "constrained maximum", old.status.warning),
    )
    inference = _given(Inference.of(solution), found.jacobian, solution)
    return replace(
        model,
        solution=solution,
        inference=inference,
        deep=_rescaled(model.deep, old, found.coef, inference.V.matrix()),
        goodness=None,
    )


def _penalised(state: State, solution: Solution) -> float:
    return state.at.value - 0.5 * float(state.coef @ solution.S @ state.coef)


def _given(inference: Inference, J: Matrix, solution: Solution) -> Inference:
    """Covariances and degrees of freedom given J b constant: V - V J' (J V J')^-1 J V."""
    V = inference.V.matrix()
    JV = J @ V
    K = JV.T @ np.linalg.pinv(JV @ J.T, hermitian=True)
    own = V - K @ JV
    F = np.eye(len(V)) - K @ J - own @ solution.S
    F[solution.absent] = 0.0
    edf = np.diagonal(F).copy()
    edf1 = 2.0 * edf - np.sum(F * F.T, axis=1)
    return replace(
        inference, V=Inverse.dense((own + own.T) / 2.0), frequentist=F @ own, edf=edf, edf1=edf1
    )


def _rescaled(deep: Deep | None, old: Solution, coef: Vector, V: Matrix) -> Deep | None:
    """The networks with the multipliers of the constrained fit, V_C carried to its covariance."""
    if deep is None:
        return None
    effects = tuple(
        effect
        if effect.position is None
        else replace(
            effect,
            multiplier=effect.multiplier * float(coef[effect.position] / old.coef[effect.position]),
        )
        for effect in deep.effects
    )
    population = deep.population
    if population is not None:
        # V_C = P^-1 M P^-1 of the fit: its M between the covariances given the constraint
        free = np.delete(np.arange(len(coef)), old.held)
        block, own = np.ix_(free, free), np.zeros_like(V)
        P = (old.H + old.S)[block]
        own[block] = V[block] @ P @ population[block] @ P @ V[block]
        population = own
    return replace(deep, effects=effects, population=population)
