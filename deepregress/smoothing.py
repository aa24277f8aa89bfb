"""Smoothing selection for structured predictors: extended Fellner-Schall, then Newton on V.

1. Fellner-Schall: on the quadratic model of the log-likelihood at the current coefficients b,

    lam_j <- lam_j (tr(S^- S_j) - tr(P^-1 S_j)) / (b' S_j b),   b <- maximiser of the model,

   a few times without touching the data; then one safeguarded Newton step in b. Repeat.
2. Fellner-Schall ignores how H moves with b, which costs up to 0.1 in logLik and edf. So the end is
   Newton on the Laplace approximate restricted likelihood V itself (module `marginal`), in log lam
   and a constant dispersion, with the exact gradient and step halving on V.
3. A fixed `sp` means lam = sp / phi; a fixed `df` means tr(F) of the term = df. Both are solved
again
   for the new dispersion and coefficients until nothing moves.

References: Wood & Fasiolo (2017), doi:10.1111/biom.12666; Wood, Pya & Saefken (2016),
doi:10.1080/01621459.2016.1180986.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from deepregress.errors import FitError
from deepregress.linalg import Factor, Matrix, Vector, one_blas_thread
from deepregress.marginal import Point, Problem, Slope
from deepregress.objective import Objective, Unit
from deepregress.solvers.base import Solution, Status, Step
from deepregress.solvers.newton import (
    RIDGE,
    State,
    curvature,
    evaluate,
    maximise,
    step_towards,
)

LAM_RANGE = 1e9
"""lam_j S_j stays within this factor of H in its block, either way: beyond it a term is its null
space (or free) to nine digits, and H + S loses the digits that tell the difference."""
INNER_UPDATES = 4
"""Fellner-Schall updates for each pass over the data."""
LARGEST_UPDATE, LARGEST_ROUND = 10.0, 100.0
"""Largest factor on lam in one update and between two passes over the data."""
WARM_TOLERANCE, WARM_ROUNDS = 0.2, 20
"""Largest move of log lam, and number of rounds, at which Newton on V takes over."""
GRADIENT = 2e-5
"""Largest |dV / dlog lam| at which V counts as maximal: log lam is then known to about 1e-4."""
LARGEST_STEP = 4.0
FLATTEST = 1e-4
"""Least curvature of V assumed in any direction of log lam."""
FIXED_TOLERANCE = 1e-6
LATER_PREDICTORS = 1e4
"""Factor on the first lam of predictors after the first: a wiggly scale would follow single
residuals of a mean that is not smooth yet, where the likelihood has no upper bound."""
ROUGH_ROWS = 4096
ROUGH_ROUNDS = 3
ROUGH_TOLERANCE = 0.1
"""Log-likelihood that Newton leaves on the table while lam is still far off."""
SLACK = 0.5
"""Fall of V that ends Fellner-Schall: more than an unfinished Newton fit explains."""
MAX_ROUNDS = 100
MAX_HALVINGS = 12


def select(objective: Objective, start: Vector | None = None) -> Solution:
    """Fit structured predictors and choose their smoothing parameters.

    Parameters
    ----------
    objective : Objective
    start : Vector, (n_coef,), optional
        Coefficients to start from; those of the intercept-only model by default.

    Returns
    -------
    Solution

    Raises
    ------
    FitError
        If the likelihood is not finite at the start.
    """
    with one_blas_thread():
        return _select(objective, start)


def _select(objective: Objective, start: Vector | None) -> Solution:
    problem = Problem.of(objective)
    state = evaluate(objective, start_coef(objective) if start is None else start)
    if not np.isfinite(state.at.value):
        raise FitError("the log-likelihood is not finite at the start values")
    trace: list[Step] = []
    lam = _start_lam(problem, state)
    if start is None:
        lam, rough = _rough_fit(problem, lam, state)
        state = rough if np.isfinite(rough.at.value) else state
    if start is not None or objective.n_obs > ROUGH_ROWS:
        lam, state = _fellner_schall(problem, lam, state, trace)
    point, status = _maximise_V(Point.at(problem, lam, state), trace)
    for _ in range(MAX_ROUNDS):
        lam = _fixed_lam(point)
        if np.allclose(np.log(lam), np.log(point.lam), rtol=0, atol=FIXED_TOLERANCE):
            break
        point, status = _maximise_V(Point.at(problem, lam, point.state), trace)
    return _solution(point, status, tuple(trace))


def start_coef(objective: Objective) -> Vector:
    """Coefficients of the intercept-only model: its predictors regressed on the columns."""
    eta = objective.family.start(objective.response)
    parts = []
    for unit, eta_u in zip(objective.units, eta, strict=True):
        # where there is an intercept the constant is in the span; the ridge keeps dependent columns
        # apart and moves the constant by its relative size only
        gram = unit.X.T @ unit.X
        _refuse_dependence(unit, gram)
        gram[np.diag_indices_from(gram)] *= 1.0 + RIDGE
        factor = Factor.of(gram)
        target = unit.X.sum(axis=0) * (eta_u - unit.offset.mean())
        parts.append(np.zeros(unit.n_coef) if factor is None else factor.solve(target))
    return np.concatenate(parts)


def _refuse_dependence(unit: Unit, gram: Matrix) -> None:
    """Columns that determine each other and that no penalty tells apart have no estimate."""
    P = gram.copy()
    for p in unit.penalties:
        size = np.trace(gram[p.index, p.index]) / np.trace(p.S)
        P[p.index, p.index] += size * p.S
    if not len(P) or Factor.of(P) is not None:
        return
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(P), np.finfo(float).tiny))
    share = np.abs(scipy.linalg.eigh(d[:, None] * P * d)[1][:, 0])
    among = [p.label for p in unit.penalties if share[p.index].max() > 0.1 * share.max()]
    names = ", ".join(dict.fromkeys(among)) or "linear terms"
    raise FitError(
        f"some columns of the terms determine each other, among them those of {names}: their "
        "effects cannot be told apart; leave one of them out"
    )


# -- 1. Fellner-Schall -----------------------------------------------------------------------------


def _rough_fit(problem: Problem, lam: Vector, state: State) -> tuple[Vector, State]:
    """Smoothing parameters and coefficients from a few rows, one predictor after the other.

    The likelihood of several predictors has poor local maxima near the intercept-only model: a
    scale that explains what the mean has not yet. So the first predictor is fitted while the others
    have their intercepts only, then the second joins, and so on.
    """
    sample = problem.on(problem.objective.sample(ROUGH_ROWS))
    if sample.objective is not problem.objective:
        state = evaluate(sample.objective, state.coef)
    slices = problem.objective.slices
    wanted = [u for u, unit in enumerate(problem.objective.units) if unit.n_coef > 1]
    for u in wanted[:-1]:
        entered = np.arange(slices[u].stop)
        waiting = np.array(
            [s.start for s, unit in zip(slices[u + 1 :], sample.objective.units[u + 1 :],
            strict=True)
             if unit.n_coef and (unit.X[:, 0] == 1.0).all()],
            dtype=int,
        )  # fmt: skip
        stage = replace(sample, free=np.setdiff1d(entered, [sample.dispersion]))
        for _ in range(ROUGH_ROUNDS):
            point = Point.at(stage, lam, state, tolerance=ROUGH_TOLERANCE)
            lam, state, _ = _fellner_schall_step(point)
            penalty = sample.total(lam)
            state = maximise(
                sample.objective, state, penalty, free=waiting, tolerance=ROUGH_TOLERANCE
            ).state
    lam, state = _fellner_schall(sample, lam, state, [])
    if sample.objective is not problem.objective:
        state = evaluate(problem.objective, state.coef)
    return lam, state


def _fellner_schall(
    problem: Problem, lam: Vector, state: State, trace: list[Step]
) -> tuple[Vector, State]:
    """Alternate updates of lam with Newton in the coefficients and dispersion steps.

    The updates may pass the maximum of V where H moves much with the coefficients: the best point
    is kept, and the first fall of V ends them.
    """
    best: Point | None = None
    for _ in range(WARM_ROUNDS):
        point = Point.at(problem, lam, state, tolerance=ROUGH_TOLERANCE)
        if not point.converged or (best is not None and point.value < best.value - SLACK):
            break
        best = point
        lam, state, change = _fellner_schall_step(point)
        trace.append(Step("Fellner-Schall", -point.value, change))
        if change < WARM_TOLERANCE:
            return lam, state
    return (lam, state) if best is None else (best.lam, best.state)


def _fellner_schall_step(point: Point) -> tuple[Vector, State, float]:
    """One round: lam, the state and the largest move of a log lam that still matters."""
    problem, lam, state = point.problem, point.lam, point.state
    H, _ = curvature(problem.objective, state, problem.total(lam).S, problem.free)
    working = H @ state.coef[problem.free] + state.at.gradient[problem.free]
    model = _update(problem, H, working, lam, state.coef)
    state, _ = step_towards(problem.objective, state, model.target, problem.total(model.lam))
    shift = _dispersion_step(problem, state, model.edf)
    if shift:
        _refuse_perfect_fit(problem, state, shift)
        coef = state.coef.copy()
        coef[problem.dispersion] += shift
        state = evaluate(problem.objective, coef)
    # a term that is all but straight keeps drifting to infinite lam: moves up count by its edf
    moves = np.log(model.lam / lam)
    moves = np.where(moves > 0.0, moves * np.minimum(1.0, model.penalised_edf), -moves)
    return model.lam, state, float(np.max(moves, initial=abs(shift)))


def _start_lam(problem: Problem, state: State) -> Vector:
    """Penalties of the size of the information in their blocks; sp / phi where sp is given."""
    H, _ = curvature(problem.objective, state, np.zeros_like(state.at.H), problem.free)
    H = problem.full(H)
    phi = problem.phi(state.coef)
    first = problem.objective.slices[0]
    lam = np.empty(len(problem.penalties))
    for j, p in enumerate(problem.penalties):
        later = 1.0 if p.index.start < first.stop else LATER_PREDICTORS
        equal = later * np.trace(H[p.index, p.index]) / np.trace(p.given.S)
        lam[j] = equal if p.given.sp is None else p.given.sp / phi
    return lam


@dataclass(frozen=True)
class _Model:
    """Fellner-Schall on a quadratic model: lam, the maximiser, its edf, those of the penalties."""

    lam: Vector
    target: Vector
    edf: float
    penalised_edf: Vector


def _update(problem: Problem, H: Matrix, working: Vector, lam: Vector, coef: Vector) -> _Model:
    """Update lam for l(b) = working' b - 1/2 b' H b."""
    block = np.ix_(problem.free, problem.free)
    target = coef.copy()
    low, high = _lam_bounds(problem, problem.full(H))
    low, high = np.maximum(low, lam / LARGEST_ROUND), np.minimum(high, lam * LARGEST_ROUND)
    touched = [j for j, p in enumerate(problem.penalties) if p.index.start in problem.free]
    gained = np.zeros_like(lam)
    V, previous = np.zeros_like(H), lam
    for update in range(INNER_UPDATES + 1):
        factor = Factor.of(H + problem.total(lam).S[block])
        if factor is None:
            # H has negative directions that the present lam no longer covers: stay at the last one
            lam = previous
            break
        target[problem.free] = factor.solve(working)
        V = factor.inverse()
        if update == INNER_UPDATES or not touched:
            break
        previous = lam
        full_V = problem.full(V)
        _, first, _ = problem.log_pseudo_det(lam)
        ratio = np.ones_like(lam)
        for j in touched:
            p = problem.penalties[j]
            if p.estimated:
                gained[j] = max(first[j] - lam[j] * p.trace(full_V), _TINY)
                rough = lam[j] * p.roughness(target)
                ratio[j] = gained[j] / max(rough, _TINY)
            elif p.given.df is not None:
                ratio[j] = np.exp(_df_step(problem, full_V, problem.full(H), lam, j))
        moved = lam * np.clip(ratio, 1 / LARGEST_UPDATE, LARGEST_UPDATE)
        lam = np.where(ratio == 1.0, lam, np.clip(moved, low, high))
    return _Model(lam, target, float(np.sum(V * H)), gained)


_TINY = float(np.finfo(float).eps)


def _factor(P: Matrix) -> Factor:
    factor = Factor.of(P)
    if factor is None:
        raise FitError("the penalised Hessian is singular: two terms span the same function")
    return factor


def _lam_bounds(problem: Problem, H: Matrix) -> tuple[Vector, Vector]:
    """LAM_RANGE around equal size of penalty and information; none where sp is given."""
    size = np.array(
        [np.trace(H[p.index, p.index]) / np.trace(p.given.S) for p in problem.penalties]
    )
    size = np.maximum(size, np.finfo(float).tiny)
    given = np.array([p.given.sp is not None for p in problem.penalties], dtype=bool)
    return np.where(given, 0.0, size / LAM_RANGE), np.where(given, np.inf, size * LAM_RANGE)


def _df_step(problem: Problem, V: Matrix, H: Matrix, lam: Vector, j: int) -> float:
    """Newton step in log lam_j towards tr(F_jj) = df of the quadratic model."""
    p = problem.penalties[j]
    wanted = np.nan if p.given.df is None else p.given.df
    edf = float(np.sum(V[p.index] * H[:, p.index].T))
    VSV = V[p.index, p.index] @ (lam[j] * p.given.S) @ V[p.index]
    slope = -float(np.sum(VSV * H[:, p.index].T))
    return float(np.clip((wanted - edf) / min(slope, -_TINY), -2.0, 2.0))


def _dispersion_step(problem: Problem, state: State, edf: float) -> float:
    """Move of the dispersion's predictor towards the stationary point of V.

    With H proportional to exp(-kappa eta), dV/deta = l' + kappa edf / 2, and l' is nearly of the
    form c exp(-kappa eta) - constant, whose root is one logarithm away.
    """
    d = problem.dispersion
    if d is None:
        return 0.0
    kappa = problem.kappa(state.coef)
    gradient, information = state.at.gradient[d] + 0.5 * kappa * edf, state.at.H[d, d]
    inside = 1.0 - kappa * gradient / information if information > 0 else 0.0
    if inside <= 0:
        return float(np.sign(gradient))
    return float(np.clip(-np.log(inside) / kappa, -LARGEST_STEP, LARGEST_STEP))


def _refuse_perfect_fit(problem: Problem, state: State, shift: float) -> None:
    """A constant dispersion that runs to zero is no fit: the likelihood has no maximum."""
    moved = state.coef.copy()
    moved[problem.dispersion] += shift
    family, response = problem.objective.family, problem.objective.response
    if problem.phi(moved) < family.least_dispersion(response.lower):
        raise FitError(
            f"the terms fit {response.label!r} exactly: the {family.dispersion} is zero to "
            "rounding, so there is nothing left to infer from"
        )


# -- 2. Newton on V --------------------------------------------------------------------------------


def _maximise_V(point: Point, trace: list[Step]) -> tuple[Point, Status]:
    """Maximise V over the estimated log lam and a constant dispersion."""
    problem = point.problem
    estimated = np.array([p.estimated for p in problem.penalties], dtype=bool)
    if not estimated.any() and problem.dispersion is None:
        return point, _status(point, 0.0)
    low, high = _lam_bounds(problem, problem.full(_information(point)))
    for _ in range(MAX_ROUNDS):
        slope = Slope.at(point)
        n_lam = int(estimated.sum())
        log_lam = np.log(point.lam[estimated])
        outward = slope.gradient.copy()
        at_bound = np.zeros(len(outward), dtype=bool)
        at_bound[:n_lam] = ((log_lam >= np.log(high[estimated])) & (outward[:n_lam] > 0)) | (
            (log_lam <= np.log(low[estimated])) & (outward[:n_lam] < 0)
        )
        gradient = float(np.max(np.abs(outward[~at_bound]), initial=0.0))
        trace.append(Step("Newton on V", -point.value, gradient))
        if gradient < GRADIENT:
            return point, _status(point, gradient)
        step = _ascent(slope, ~at_bound)
        better = _search(point, slope, step, (low, high))
        if better is None:
            return point, _status(point, gradient)
        point = better
    return point, _status(point, gradient)


def _information(point: Point) -> Matrix:
    H, _ = curvature(
        point.problem.objective,
        point.state,
        np.zeros_like(point.state.at.H),
        point.problem.free,
    )
    return H


def _ascent(slope: Slope, active: Vector) -> Vector:
    """Newton step in the active hyperparameters with the curvature made negative definite."""
    values, vectors = scipy.linalg.eigh(-slope.hessian[np.ix_(active, active)])
    values = np.maximum(np.abs(values), FLATTEST)
    step = np.zeros(len(active))
    step[active] = vectors @ ((vectors.T @ slope.gradient[active]) / values)
    return np.clip(step, -LARGEST_STEP, LARGEST_STEP)


def _search(
    point: Point, slope: Slope, step: Vector, bounds: tuple[Vector, Vector]
) -> Point | None:
    """The point at the longest of step, step / 2, ... that raises V, or None."""
    problem = point.problem
    estimated = np.array([p.estimated for p in problem.penalties], dtype=bool)
    n_lam = int(estimated.sum())
    rounding = 1e-8 + 1e-12 * abs(point.value)
    for _ in range(MAX_HALVINGS):
        lam = point.lam.copy()
        lam[estimated] = np.clip(
            lam[estimated] * np.exp(step[:n_lam]), bounds[0][estimated], bounds[1][estimated]
        )
        # first-order prediction of the coefficients saves Newton steps; it is no part of the answer
        coef = point.state.coef + slope.coef @ step
        if problem.dispersion is not None:
            coef[problem.dispersion] = point.state.coef[problem.dispersion] + step[-1]
        state = evaluate(problem.objective, coef)
        if not np.isfinite(state.at.value):
            coef[problem.free] = point.state.coef[problem.free]
            state = evaluate(problem.objective, coef)
        trial = Point.at(problem, lam, state)
        if np.isfinite(trial.value) and trial.value >= point.value - rounding:
            return trial
        step = step / 2.0
    return None


# -- 3. Fixed smoothing parameters and the result -------------------------------------------------


def _fixed_lam(point: Point) -> Vector:
    """lam with sp / phi where sp is given and the root of tr(F_jj) = df where df is given."""
    problem, lam = point.problem, point.lam.copy()
    phi = problem.phi(point.state.coef)
    wanted = [j for j, p in enumerate(problem.penalties) if p.given.df is not None]
    for j, p in enumerate(problem.penalties):
        if p.given.sp is not None:
            lam[j] = p.given.sp / phi
    H = problem.full(_information(point)) if wanted else point.state.at.H
    block = np.ix_(problem.free, problem.free)
    for _ in range(MAX_ROUNDS if wanted else 0):
        V = problem.full(_factor((H + problem.total(lam).S)[block]).inverse())
        steps = np.array([_df_step(problem, V, H, lam, j) for j in wanted])
        lam[wanted] *= np.exp(steps)
        if np.max(np.abs(steps)) < FIXED_TOLERANCE / 10:
            break
    return lam


def _status(point: Point, gradient: float) -> Status:
    if not point.converged:
        return Status(False, "Newton steps did not reach the penalised maximum")
    # where V is flat to rounding the gradient cannot be brought further down
    if gradient > 500 * GRADIENT:
        return Status(False, f"smoothing parameters not converged (|dV/dlog lam| {gradient:.2g})")
    objective = point.problem.objective
    return Status(True, "converged", objective.family.boundary(objective.eta(point.state.coef)))


def _solution(point: Point, status: Status, trace: tuple[Step, ...]) -> Solution:
    problem, coef = point.problem, point.state.coef
    return Solution(
        coef=coef,
        sp=point.lam * problem.phi(coef),
        lam=point.lam,
        loglik=_reported_loglik(problem, point.state),
        reml=-point.value,
        H=_reported_information(problem, point.state),
        S=problem.total(point.lam).S,
        dispersion=problem.dispersion,
        status=status,
        trace=trace,
    )


def _reported_information(problem: Problem, state: State) -> Matrix:
    """H, or the expected information where the model is a generalised linear one, as in R."""
    objective = problem.objective
    family = objective.family
    if not family.exponential or (family.n_units > 1 and problem.dispersion is None):
        return state.at.H
    H, first = state.at.H.copy(), objective.slices[0]
    H[first, first] = objective.fisher_information(state.coef)
    return H


def _reported_loglik(problem: Problem, state: State) -> float:
    """The log-likelihood at the dispersion at which R reports it."""
    objective, d = problem.objective, problem.dispersion
    if d is None:
        return state.at.value
    family, response = objective.family, objective.response
    eta = objective.eta(state.coef)
    parameter = family.parameter(str(family.dispersion))
    u = family.parameter_names.index(parameter.name)
    theta = float(parameter.link.inverse(np.float64(state.coef[d])))
    reported = family.reported_dispersion(response.lower, response.weights, family.mean(eta), theta)
    eta[:, u] = float(parameter.link.forward(np.float64(reported)))
    return float(response.weights @ family.logpdf(response.lower, eta))
