"""Smoothing selection for structured predictors: a warm start, then Newton on V.

1. Fellner-Schall (module `fellner_schall`) comes near.
2. Newton on the Laplace approximate marginal likelihood V itself (module `marginal`), in log lam
   and the constant parameters, with the exact gradient and step halving on V. What Fellner-Schall
   leaves, up to 0.1 in logLik and edf, is gone then.
3. A fixed `sp` means lam = sp / phi, a fixed `df` tr(F) of the term = df. Both are solved again for
   the new dispersion and coefficients until nothing moves.

References: Wood & Fasiolo (2017), doi:10.1111/biom.12666; Wood, Pya & Saefken (2016),
doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import scipy.linalg

from deepregress import prediction_error
from deepregress.disk.arrow import Arrow, ArrowFactor
from deepregress.disk.scratch import parts
from deepregress.errors import FitError
from deepregress.fellner_schall import (
    LARGEST_STEP,
    df_step,
    dispersion_step,
    lam_bounds,
    warm_start,
)
from deepregress.linalg import Array, Factor, Matrix, Vector, one_blas_thread
from deepregress.marginal import PenaltyTraces, Point, Problem, Slope
from deepregress.objective import Objective, Unit
from deepregress.penalty import PlacedPenalty, as_matrix
from deepregress.separation import separated
from deepregress.solvers.base import Solution, Status, Step
from deepregress.solvers.newton import RIDGE, State, curvature, evaluate

FLAT = 1e-2
"""Curvature of V below which a term is all but straight."""
FLATTEST = 1e-4
"""Least curvature of V assumed in any direction of log lam."""
FIXED_TOLERANCE = 1e-6
STARTS = (1.0, 0.01)
"""Factors on the first lam. V of terms with several smoothing parameters, or of several predictors
of one kind, can have several maxima, and the best of two starts is kept there."""
OTHER_START = 1e-4
"""The factor where these end without a maximum: V has no bound where the penalised fit branches,
H + S being singular there, and from too smooth a start the way up can lead to such a place."""
SOME_ROWS = 200_000
"""Rows from which start values come, and that are looked at for predictors at an edge."""
MAX_ROUNDS = 100
MAX_HALVINGS = 12
TRIAL_STEPS = 30
"""Newton steps of a trial on V: where one from the last point needs more, H + S is all but singular
at the penalised maximum."""


class Accuracy(NamedTuple):
    """How well the maximum of V is found.

    Parameters
    ----------
    gradient : float
        Largest |dV / dlog lam| at which V counts as maximal.
    flat_gradient : float
        That of a term that is all but straight: its edf is known to twice that, while its log lam,
        on the way to infinity, is of no interest.
    last_step : float
        Newton step, in log lam, after which none follows: it leaves a tenth of it at most.
    """

    gradient: float
    flat_gradient: float
    last_step: float


FULL = Accuracy(2e-5, 2e-4, 3e-3)
"""log lam is known to about 1e-4."""
ON_PATH = Accuracy(1e-3, 2e-3, 0.1)
"""log lam is known to about 1e-2, with which V falls by about 1e-4, its curvature."""


def select(objective: Objective, start: Vector | None = None, *, method: str = "REML") -> Solution:
    """Fit structured predictors and choose their smoothing parameters.

    Parameters
    ----------
    objective : Objective
    start : Vector, (n_coef,), optional
        Coefficients to start from; those of the intercept-only model by default.
    method : {"REML", "ML", "GCV"}
        Marginal likelihood of all coefficients, or of the penalised ones; GCV (or UBRE) from there.

    Returns
    -------
    Solution

    Raises
    ------
    FitError
        If the likelihood is not finite at the start, or the model has no GCV.
    """
    with one_blas_thread():
        if method == "GCV":
            return _select(Problem.of(objective), start, criterion=method)
        return _select(Problem.of(objective, method=method), start, criterion=method)


class Followed(NamedTuple):
    """Coefficients (n_coef,) and smoothing parameters (n_penalties,) at a maximum of V."""

    coef: Vector
    lam: Vector
    status: Status


def first(objective: Objective, *, method: str = "REML") -> Followed:
    """What `select` finds, for the first of a sequence of models; without what a fit reports.

    Parameters
    ----------
    objective : Objective
    method : {"REML", "ML"}
    """
    with one_blas_thread():
        point, status, _ = _found(Problem.of(objective, method=method), None, criterion=method)
    return Followed(point.state.coef, point.lam, status)


def follow(objective: Objective, coef: Vector, lam: Vector, *, method: str = "REML") -> Followed:
    """The maximum of V of one of a sequence of models, from that of the last one.

    Parameters
    ----------
    objective : Objective
    coef : Vector, (n_coef,)
    lam : Vector, (n_penalties,)
        Where to start; none may be so large that its term is all but straight.
    method : {"REML", "ML"}
    """
    with one_blas_thread():
        problem = Problem.of(objective, method=method)
        trace: list[Step] = []
        point = Point.at(problem, lam, evaluate(objective, coef))
        fit = _maximise_V(point, trace, ON_PATH)
        if not fit[1].converged:
            fit, trace = _best_start(problem, coef)
        point, status = _with_fixed(*fit, trace, ON_PATH)
    return Followed(point.state.coef, point.lam, status)


def _select(problem: Problem, start: Vector | None, *, criterion: str) -> Solution:
    point, status, trace = _found(problem, start, criterion=criterion)
    if criterion == "GCV" and problem.dispersion is None:
        criterion = "UBRE"
    return _solution(point, status, tuple(trace), criterion)


def _found(
    problem: Problem, start: Vector | None, *, criterion: str
) -> tuple[Point, Status, list[Step]]:
    fit, trace = _best_start(problem, start)
    point, status = _with_fixed(*fit, trace, FULL)
    if criterion == "GCV":
        point = prediction_error.minimise(point, reported_information)
    if criterion != "REML" and problem.dispersion is not None:
        point = _unbiased_dispersion(point)
    return point, status, trace


def _best_start(problem: Problem, start: Vector | None) -> tuple[tuple[Point, Status], list[Step]]:
    """The best end of Newton on V from several starts, and its trace.

    A given one that leads to no maximum is given up for that of the intercept-only model.
    """
    objective, warm = problem.objective, start is not None
    if start is None:
        coef = start_coef(objective)
        start = separated(objective, coef)
    coef = coef if start is None else start
    manifold = any(len(group.members) > 1 for group in problem.groups)
    kin = objective.family.n_first > 1 and len(problem.groups) > 0
    several = start is None and (manifold or kin)
    fits = [
        _from_start(problem, coef, factor, rough=start is None)
        for factor in (STARTS if several else STARTS[:1])
    ]
    if problem.penalties and not any(status.converged for _, status, _ in fits):
        fits.append(_from_start(problem, coef, OTHER_START, rough=start is None))
    if warm and not any(status.converged for _, status, _ in fits):
        fits.append(_from_start(problem, start_coef(objective), STARTS[0], rough=True))
    point, status, trace = max(fits, key=lambda fit: (fit[1].converged, fit[0].value))
    return (point, status), trace


def _with_fixed(
    point: Point, status: Status, trace: list[Step], accuracy: Accuracy
) -> tuple[Point, Status]:
    """Step 3: alternate fixed smoothing parameters with the others until nothing moves."""
    for _ in range(MAX_ROUNDS):
        lam = _fixed_lam(point)
        if np.allclose(np.log(lam), np.log(point.lam), rtol=0, atol=FIXED_TOLERANCE):
            break
        at = Point.at(point.problem, lam, point.state)
        point, status = _maximise_V(at, trace, accuracy)
    return point, status


def _from_start(
    problem: Problem, coef: Vector, factor: float, *, rough: bool
) -> tuple[Point, Status, list[Step]]:
    """Where Newton on V ends from the warm start with a factor on the first lam."""
    trace: list[Step] = []
    lam, state = warm_start(problem, coef, trace, rough=rough, factor=factor)
    return (*_maximise_V(Point.at(problem, lam, state), trace, FULL), trace)


def start_coef(objective: Objective) -> Vector:
    """Coefficients of the intercept-only model: its predictors regressed on the columns."""
    eta = objective.family.start(objective.response.take(objective.some(SOME_ROWS)))
    parts = []
    for unit, eta_u in zip(objective.units, eta, strict=True):
        # where there is an intercept the constant is in the span; the ridge keeps dependent columns
        # apart and moves the constant by its relative size only
        gram = unit.X.T @ unit.X
        _refuse_dependence(unit, gram)
        gram[np.diag_indices_from(gram)] *= 1.0 + RIDGE
        factor = Factor.of(gram)
        own = np.zeros(unit.n_coef)
        if factor is not None:
            own[unit.matrix.dense] = factor.solve(unit.X.sum(axis=0) * (eta_u - unit.offset.mean()))
        parts.append(own)
    return np.concatenate(parts)


def _refuse_dependence(unit: Unit, gram: Matrix) -> None:
    """Columns that determine each other and that no penalty tells apart have no estimate."""
    P = gram.copy()
    placed = {p.label: _dense_places(unit, p) for p in unit.penalties}
    for p in unit.penalties:
        own = np.ix_(placed[p.label], placed[p.label])
        if len(placed[p.label]):
            S = as_matrix(p.S)
            P[own] += np.trace(gram[own]) / np.trace(S) * S
    if not len(P) or Factor.of(P) is not None:
        return
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(P), np.finfo(float).tiny))
    share = np.abs(scipy.linalg.eigh(d[:, None] * P * d)[1][:, 0])
    among = [
        label for label, own in placed.items() if share[own].max(initial=0.0) > 0.1 * share.max()
    ]
    names = ", ".join(dict.fromkeys(among)) or "linear terms"
    raise FitError(
        f"some columns of the terms determine each other, among them those of {names}: their "
        "effects cannot be told apart; leave one of them out"
    )


def _dense_places(unit: Unit, p: PlacedPenalty) -> Array:
    """Columns of X that a penalty is on; none where they are kept by level."""
    places = np.arange(p.index.start, p.index.stop)
    return np.searchsorted(unit.matrix.dense, places[np.isin(places, unit.matrix.dense)])


# -- 2. Newton on V --------------------------------------------------------------------------------


def _maximise_V(point: Point, trace: list[Step], accuracy: Accuracy) -> tuple[Point, Status]:
    """Maximise V over the estimated log lam and the constants."""
    problem = point.problem
    estimated = np.array([p.estimated for p in problem.penalties], dtype=bool)
    if not estimated.any() and not problem.held:
        return point, _status(point, 0.0)
    # H has grown on the way here: what was within the bounds may be outside now
    low, high = lam_bounds(problem, _information(point).diagonal())
    low, high = np.minimum(low, point.lam), np.maximum(high, point.lam)
    n_lam = int(estimated.sum())
    calmest, singular = (point, np.inf), False
    for _ in range(MAX_ROUNDS):
        slope = Slope.at(point)
        if not (np.isfinite(slope.gradient).all() and np.isfinite(slope.hessian).all()):
            return point, _status(point, np.inf)
        log_lam = np.log(point.lam[estimated])
        outward = slope.gradient
        at_bound = np.zeros(len(outward), dtype=bool)
        at_bound[:n_lam] = ((log_lam >= np.log(high[estimated])) & (outward[:n_lam] > 0)) | (
            (log_lam <= np.log(low[estimated])) & (outward[:n_lam] < 0)
        )
        gradient = float(np.max(np.abs(outward[~at_bound]), initial=0.0))
        trace.append(Step("Newton on V", -point.value, gradient))
        if singular and gradient > calmest[1]:
            # V grows without bound towards a singular H + S: the way there leads to no maximum
            return calmest[0], _status(*calmest)
        calmest = min(calmest, (point, gradient), key=itemgetter(1))
        flat = np.abs(np.diagonal(slope.hessian)) < FLAT
        allowed = np.where(flat, accuracy.flat_gradient, accuracy.gradient)
        if np.all(np.abs(outward[~at_bound]) < allowed[~at_bound]):
            return point, _status(point, gradient)
        step = _ascent(slope, ~at_bound)
        better, singular = _search(point, slope, step, (low, high))
        if better is None:
            ended = calmest if singular else (point, gradient)
            return ended[0], _status(*ended)
        point = better
        if np.max(np.abs(step)) < accuracy.last_step:
            # the gradient known is that before this step; what the model leaves of it is nothing
            return point, _status(point, 0.0)
    return point, _status(point, gradient)


def _information(point: Point) -> Arrow:
    """H at a point, or what stands for it where H + S is not positive definite."""
    problem = point.problem
    return curvature(problem.objective, point.state, problem.S(point.lam), problem.layout)[0]


def _ascent(slope: Slope, active: Array) -> Vector:
    """Newton step in the active hyperparameters with the curvature made negative definite."""
    values, vectors = scipy.linalg.eigh(-slope.hessian[np.ix_(active, active)])
    values = np.maximum(np.abs(values), FLATTEST)
    step = np.zeros(len(active))
    # long components are cut short one by one, so that the step goes upwards still
    components = (vectors.T @ slope.gradient[active]) / values
    step[active] = vectors @ np.clip(components, -LARGEST_STEP, LARGEST_STEP)
    # towards a straight term V gains c exp(-log lam) at most: gradient and curvature are then
    # equal, a Newton step is 1, and the way to infinity takes the longest steps there are
    bend = np.abs(np.diagonal(slope.hessian))
    tail = active & (bend < FLAT) & (slope.gradient > 0.5 * bend)
    step[tail] = LARGEST_STEP
    return np.asarray(step / max(1.0, float(np.abs(step).max(initial=0.0)) / LARGEST_STEP))


def _search(
    point: Point, slope: Slope, step: Vector, bounds: tuple[Vector, Vector]
) -> tuple[Point | None, bool]:
    """The point at the longest of step, step / 2, ... that raises V, or None.

    Second, whether a longer one led to where H + S is all but singular.
    """
    problem = point.problem
    estimated = np.array([p.estimated for p in problem.penalties], dtype=bool)
    n_lam = int(estimated.sum())
    rounding = 1e-8 + 1e-12 * abs(point.value)
    singular = False
    for _ in range(MAX_HALVINGS):
        lam = point.lam.copy()
        lam[estimated] = np.clip(
            lam[estimated] * np.exp(step[:n_lam]), bounds[0][estimated], bounds[1][estimated]
        )
        # first-order prediction of the coefficients saves Newton steps; it is no part of the answer
        coef = point.state.coef + slope.coef @ step
        coef[problem.held] = point.state.coef[problem.held] + step[n_lam:]
        state = evaluate(problem.objective, coef)
        if not np.isfinite(state.at.value):
            coef[problem.free] = point.state.coef[problem.free]
            state = evaluate(problem.objective, coef)
        trial = Point.at(problem, lam, state, max_steps=TRIAL_STEPS)
        singular |= trial.exhausted
        finite = np.isfinite(trial.value) and not trial.exhausted
        if finite and trial.value >= point.value - rounding:
            return trial, singular
        step = step / 2.0
    return None, singular


# -- 3. Fixed smoothing parameters and the result -------------------------------------------------


def _fixed_lam(point: Point) -> Vector:
    """lam with sp / phi where sp is given and the root of tr(F_jj) = df where df is given."""
    problem, lam = point.problem, point.lam.copy()
    phi = problem.phi(point.state.coef)
    wanted = [j for j, p in enumerate(problem.penalties) if p.given.df is not None]
    for j, p in enumerate(problem.penalties):
        if p.given.sp is not None:
            lam[j] = p.given.sp / phi
    H = _information(point) if wanted else point.state.at.information
    for _ in range(MAX_ROUNDS if wanted else 0):
        factor = ArrowFactor.of(H + problem.S(lam).restrict(problem.layout))
        if factor is None:
            raise FitError("the penalised Hessian is singular: two terms span the same function")
        traces = PenaltyTraces(problem, factor.inverse())
        steps = np.array([df_step(problem, traces, lam, j) for j in wanted])
        lam[wanted] *= np.exp(steps)
        if np.max(np.abs(steps)) < FIXED_TOLERANCE / 10:
            break
    return lam


def _unbiased_dispersion(point: Point) -> Point:
    """The fit of ML or GCV with RSS / (n - edf) as its dispersion, as in R, at the same sp."""
    problem = point.problem
    sp = point.lam * problem.phi(point.state.coef)
    for _ in range(MAX_ROUNDS):
        edf = PenaltyTraces(problem, point.factor.inverse()).total_edf(point.lam)
        shift = dispersion_step(problem, point.state, edf)
        if abs(shift) < FIXED_TOLERANCE:
            break
        coef = point.state.coef.copy()
        coef[problem.dispersion] += shift
        at = Point.at(problem, sp / problem.phi(coef), evaluate(problem.objective, coef))
        point = replace(at, value=point.value)
    return point


def _status(point: Point, gradient: float) -> Status:
    objective = point.problem.objective
    eta = objective.eta(point.state.coef)[objective.some(SOME_ROWS)]
    for name, values in objective.family.parameters_at(eta).items():
        if not np.isfinite(values).all():
            raise FitError(
                f"the fitted {name} is larger than any number: the likelihood has no maximum, the "
                f"response says nothing about {name}"
            )
    edge = objective.family.boundary(eta)
    if not point.converged:
        return Status(False, "Newton steps did not reach the penalised maximum", edge)
    # where V is flat to rounding the gradient cannot be brought further down
    if gradient > 500 * FULL.gradient:
        return Status(
            False, f"smoothing parameters not converged (|dV/dlog lam| {gradient:.2g})", edge
        )
    return Status(True, "converged", edge)


def _solution(point: Point, status: Status, trace: tuple[Step, ...], criterion: str) -> Solution:
    problem, coef = point.problem, point.state.coef
    return Solution(
        coef=coef,
        sp=point.lam * problem.phi(coef),
        lam=point.lam,
        loglik=reported_loglik(problem, point.state),
        reml=-point.value,
        information=reported_information(problem, point.state),
        penalty=problem.S(point.lam),
        dispersion=problem.dispersion,
        extra=problem.extra,
        status=status,
        trace=trace,
        criterion=criterion,
    )


def reported_information(problem: Problem, state: State) -> Arrow:
    """H, or the expected information where the model is a generalised linear one, as in R."""
    objective, H = problem.objective, state.at.information
    family, plain = objective.family, objective.response.plain
    linear = family.exponential or family.exponential_given
    constant = len(problem.held) + sum(unit.n_coef == 0 for unit in objective.units)
    if not (linear and plain) or constant < family.n_units - 1:
        return H
    expected, first = objective.fisher_information(state.coef), objective.slices[0]
    A = H.A.copy()
    own = np.flatnonzero(H.layout.dense < first.stop)
    A[np.ix_(own, own)] = expected.A[np.ix_(own, own)]
    B = None
    if H.B is not None and expected.B is not None:
        B = H.B.copy()
        B[:, :, own] = expected.B[:, :, own]
    return Arrow(H.layout, A, B, expected.D)


def reported_loglik(problem: Problem, state: State) -> float:
    """The log-likelihood at the dispersion at which R reports it."""
    objective, d = problem.objective, problem.dispersion
    family, response = objective.family, objective.response
    if d is None and not family.penalised:
        return state.at.value
    eta, w, y = objective.eta(state.coef), response.weights, response.lower
    every = list(parts(objective.n_obs))
    if d is None:
        return state.at.value + sum(float(w[r] @ family.row_penalty(eta[r])) for r in every)
    parameter = family.parameter(str(family.dispersion))
    u = family.parameter_names.index(parameter.name)
    theta = float(parameter.link.inverse(np.float64(state.coef[d])))
    # of a part of the rows; what is not the same in all of them is a standard deviation
    reported = [family.reported_dispersion(y[r], w[r], family.mean(eta[r]), theta) for r in every]
    squares = np.average(np.square(reported), weights=[w[r].sum() for r in every])
    eta[:, u] = float(parameter.link.forward(np.sqrt(squares)))
    return sum(float(w[r] @ family.logpdf(y[r], eta[r])) for r in every)
