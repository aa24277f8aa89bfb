"""Warm start of smoothing selection: extended Fellner-Schall on quadratic models (METHODS 3).

On the quadratic model of the log-likelihood at the current coefficients b,

    lam_j <- lam_j (tr(S^- S_j) - tr(P^-1 S_j)) / (b' S_j b),   b <- maximiser of the model,

a few times without touching the data; then one safeguarded Newton step in b. Repeat until log lam
hardly moves or the marginal likelihood V falls: Fellner-Schall ignores how H moves with b, so that
its limit is near the maximum of V, not at it. It begins on a sample of the rows, one predictor
after the other. A fixed `df` means tr(F) of the term = df; its lam follows by Newton.

Reference: Wood & Fasiolo (2017), doi:10.1111/biom.12666.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deepregress.disk.arrow import Arrow, ArrowFactor
from deepregress.errors import FitError
from deepregress.linalg import Vector
from deepregress.marginal import PenaltyTraces, Point, Problem
from deepregress.solvers.base import Step
from deepregress.solvers.newton import (
    State,
    TotalPenalty,
    curvature,
    evaluate,
    maximise,
    step_towards,
)

LAM_RANGE = 1e9
"""lam_j S_j stays within this factor of H in its block, either way: beyond it a term is its null
space (or free) to nine digits, and H + S loses the digits that tell the difference."""
INNER_UPDATES = 4
"""Updates of lam for each pass over the data."""
LARGEST_UPDATE, LARGEST_ROUND = 10.0, 100.0
"""Largest factor on lam in one update and between two passes over the data."""
WARM_TOLERANCE, WARM_ROUNDS = 0.2, 20
"""Largest move of log lam, and number of rounds, at which the start is warm."""
LARGEST_STEP = 4.0
"""Of log lam and of the predictors of the constants."""
LATER_PREDICTORS = 1e4
"""Factor on the first lam of predictors after the first: a wiggly scale would follow single
residuals of a mean that is not smooth yet, where the likelihood has no upper bound."""
ROUGH_ROWS, ROWS_PER_COEF = 1024, 10
"""Size of the first sample: so many rows, or so many for each coefficient."""
ROUGH_ROUNDS = 3
ROUGH_TOLERANCE = 0.1
"""Log-likelihood that Newton leaves on the table while lam is still far off."""
SLACK = 0.5
"""Fall of V that ends the updates: more than an unfinished Newton fit explains."""
_TINY = float(np.finfo(float).eps)


def warm_start(
    problem: Problem, coef: Vector, trace: list[Step], *, rough: bool, factor: float = 1.0
) -> tuple[Vector, State]:
    """Smoothing parameters and coefficients near the maximum of V.

    Parameters
    ----------
    problem : Problem
    coef : Vector, (n_coef,)
        Where to start.
    trace : list of Step
        Gets the rounds on all rows.
    rough : bool
        Whether these are only intercepts and a sample of the rows should go first.
    factor : float
        On the first smoothing parameters.

    Returns
    -------
    lam : Vector, (n_penalties,)
    state : State

    Raises
    ------
    FitError
        If the likelihood is not finite at the start.
    """
    rows = max(ROUGH_ROWS, ROWS_PER_COEF * problem.objective.n_coef)
    sample = problem.on(problem.objective.sample(rows)) if rough else problem
    state = evaluate(sample.objective, coef)
    if not np.isfinite(state.at.value):
        raise FitError("the log-likelihood is not finite at the start values")
    given = np.array([p.given.sp is not None for p in problem.penalties], dtype=bool)
    lam = start_lam(sample, state) * np.where(given, 1.0, factor)
    if rough:
        lam, state = _rough_fit(sample, lam, state)
        if sample.objective is problem.objective:
            return lam, state
        # a level that the sample separates may lie far from its value on all rows
        start = evaluate(problem.objective, coef)
        state, _ = step_towards(problem.objective, start, state.coef, problem.total(lam))
    return _fellner_schall(problem, lam, state, trace)


def _rough_fit(sample: Problem, lam: Vector, state: State) -> tuple[Vector, State]:
    """Smoothing parameters and coefficients of one predictor after the other.

    The likelihood of several predictors has poor local maxima near the intercept-only model: a
    scale that explains what the mean has not yet. So the first predictor is fitted while the others
    have their intercepts only, then the second joins, and so on.
    """
    slices = sample.objective.slices
    every = [u for u, unit in enumerate(sample.objective.units) if unit.n_coef > 1]
    # the members of the first group are parameters of one kind and enter together
    together = sample.objective.family.n_first
    wanted = [u for u in every if u < together][-1:] + [u for u in every if u >= together]
    for u in wanted[:-1]:
        entered = np.arange(slices[u].stop)
        later = zip(slices[u + 1 :], sample.objective.units[u + 1 :], strict=True)
        intercepts = [s.start for s, unit in later if unit.n_coef and (unit.X[:, 0] == 1.0).all()]
        waiting = np.array(intercepts, dtype=int)
        stage = replace(sample, free=np.setdiff1d(entered, sample.held))
        for _ in range(ROUGH_ROUNDS):
            point = Point.at(stage, lam, state, tolerance=ROUGH_TOLERANCE)
            lam, state, _ = _fellner_schall_step(point)
            penalty = sample.total(lam)
            state = maximise(
                sample.objective, state, penalty, free=waiting, tolerance=ROUGH_TOLERANCE
            ).state
    return _fellner_schall(sample, lam, state, [])


def _fellner_schall(
    problem: Problem, lam: Vector, state: State, trace: list[Step]
) -> tuple[Vector, State]:
    """Alternate updates of lam with Newton in the coefficients and steps of the constants.

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
    H, _ = curvature(problem.objective, state, problem.S(lam), problem.layout)
    inside = problem.layout.places
    working = H.times(state.coef)
    working[inside] += state.at.gradient[inside]
    model = _update(problem, H, working, lam, state.coef)
    state, _ = step_towards(problem.objective, state, model.target, problem.total(model.lam))
    shift = dispersion_step(problem, state, model.edf)
    if shift:
        _refuse_perfect_fit(problem, state, shift)
        coef = state.coef.copy()
        coef[problem.dispersion] += shift
        state = evaluate(problem.objective, coef)
    if problem.extra:
        before = state.coef
        state = _extra_step(problem, state, problem.total(model.lam))
        shift = max(abs(shift), float(np.abs(state.coef - before).max()))
    # a term that is all but straight keeps drifting to infinite lam: moves up count by its edf
    moves = np.log(model.lam / lam)
    moves = np.where(moves > 0.0, moves * np.minimum(1.0, model.penalised_edf), -moves)
    return model.lam, state, float(np.max(moves, initial=abs(shift)))


def start_lam(problem: Problem, state: State) -> Vector:
    """Penalties of the size of the information in their blocks; sp / phi where sp is given."""
    H, _ = curvature(problem.objective, state, None, problem.layout)
    information = H.diagonal()
    phi = problem.phi(state.coef)
    first = problem.objective.slices[problem.objective.family.n_first - 1]
    lam = np.empty(len(problem.penalties))
    for j, p in enumerate(problem.penalties):
        later = 1.0 if p.index.start < first.stop else LATER_PREDICTORS
        lam[j] = later * p.balance(information) if p.given.sp is None else p.given.sp / phi
    return lam


@dataclass(frozen=True)
class _Model:
    """Fellner-Schall on a quadratic model: lam, the maximiser, its edf, those of the penalties."""

    lam: Vector
    target: Vector
    edf: float
    penalised_edf: Vector


def _update(problem: Problem, H: Arrow, working: Vector, lam: Vector, coef: Vector) -> _Model:
    """Update lam for l(b) = working' b - 1/2 b' H b."""
    inside = problem.layout.places
    target = coef.copy()
    low, high = lam_bounds(problem, H.diagonal())
    low, high = np.maximum(low, lam / LARGEST_ROUND), np.minimum(high, lam * LARGEST_ROUND)
    movable = np.isin([p.index.start for p in problem.penalties], inside)
    touched = np.flatnonzero(movable).tolist()
    gained = np.zeros_like(lam)
    edf, previous = 0.0, lam
    for update in range(INNER_UPDATES + 1):
        factor = ArrowFactor.of(H + problem.S(lam).restrict(problem.layout))
        if factor is None:
            # H has negative directions that the present lam no longer covers: stay at the last one
            lam = previous
            break
        target[inside] = factor.solve(working)[inside]
        traces = PenaltyTraces(problem, problem.inner(factor).inverse())
        spent = np.zeros_like(lam)
        spent[touched] = [lam[j] * traces.single(j) for j in touched]
        edf = problem.n_integrated - float(spent.sum())
        if update == INNER_UPDATES or not touched:
            break
        previous = lam
        _, first, _ = problem.log_pseudo_det(lam)
        ratio = np.ones_like(lam)
        for j in touched:
            p = problem.penalties[j]
            if p.estimated:
                gained[j] = max(first[j] - spent[j], _TINY)
                rough = lam[j] * p.roughness(target)
                ratio[j] = gained[j] / max(rough, _TINY)
            elif p.given.df is not None:
                ratio[j] = np.exp(df_step(problem, traces, lam, j))
        moved = lam * np.clip(ratio, 1 / LARGEST_UPDATE, LARGEST_UPDATE)
        lam = np.where(ratio == 1.0, lam, np.clip(moved, low, high))
    return _Model(lam, target, edf, gained)


def lam_bounds(problem: Problem, information: Vector) -> tuple[Vector, Vector]:
    """LAM_RANGE around equal size of penalty and information; none where sp is given.

    `information` (n_coef,) is the diagonal of H.
    """
    size = np.array([p.balance(information) for p in problem.penalties])
    size = np.maximum(size, np.finfo(float).tiny)
    given = np.array([p.given.sp is not None for p in problem.penalties], dtype=bool)
    return np.where(given, 0.0, size / LAM_RANGE), np.where(given, np.inf, size * LAM_RANGE)


def df_step(problem: Problem, traces: PenaltyTraces, lam: Vector, j: int) -> float:
    """Newton step in log lam_j towards tr(F_jj) = df of the quadratic model, F = I - V S."""
    p = problem.penalties[j]
    wanted = np.nan if p.given.df is None else p.given.df
    spent = lam[j] * traces.single(j)
    edf = p.index.stop - p.index.start - spent
    slope = lam[j] ** 2 * traces.pair(j, j) - spent
    return float(np.clip((wanted - edf) / min(slope, -_TINY), -2.0, 2.0))


def dispersion_step(problem: Problem, state: State, edf: float) -> float:
    """Move of the dispersion's predictor towards the stationary point of V.

    With H proportional to exp(-kappa eta), dV/deta = l' + kappa edf / 2, and l' is nearly of the
    form c exp(-kappa eta) - constant, whose root is one logarithm away.
    """
    d = problem.dispersion
    if d is None:
        return 0.0
    kappa = problem.kappa(state.coef)
    gradient = state.at.gradient[d] + 0.5 * kappa * edf
    information = float(state.at.information.column(d)[d])
    inside = 1.0 - kappa * gradient / information if information > 0 else 0.0
    if inside <= 0:
        return float(np.sign(gradient))
    return float(np.clip(-np.log(inside) / kappa, -LARGEST_STEP, LARGEST_STEP))


def _extra_step(problem: Problem, state: State, penalty: TotalPenalty) -> State:
    """Newton step of the extra parameters on the likelihood in which the others follow them."""
    c = np.array(problem.extra)
    _, factor = curvature(problem.objective, state, penalty.S, problem.layout)
    columns = np.stack([state.at.information.column(j) for j in problem.extra], axis=1)
    follow = np.stack([factor.solve(column) for column in columns.T], axis=1)
    K = columns[c] - columns.T @ follow
    values, vectors = np.linalg.eigh(K)
    slope = vectors.T @ state.at.gradient[c]
    step = vectors @ (slope / np.maximum(np.abs(values), _TINY))
    target = state.coef.copy()
    target[c] += np.clip(step, -LARGEST_STEP, LARGEST_STEP)
    return step_towards(problem.objective, state, target, penalty)[0]


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
