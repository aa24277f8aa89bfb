"""Start of a mixture whose components have covariates: EM with the regressions themselves.

The likelihood of a mixture of regressions has many local maxima, and classes that differ in slopes
rather than in level are not found from a model without covariates. So several runs of

    E   r_im = P(class m | y_i)
    M   each component, and the gate, fitted by a few Newton steps with weights r_im

start from the classes of the model without covariates and from small random subsets of the rows,
one for each component; the best one gives the coefficients. Penalties are of the size of the
information throughout: smoothing selection follows.

References: Dempster, Laird & Rubin (1977), doi:10.1111/j.2517-6161.1977.tb01600.x; Leisch (2004),
doi:10.18637/jss.v011.i08.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from deepregress.families.base import Family, family
from deepregress.families.mixture import EM_ROWS, Mixture
from deepregress.fellner_schall import start_lam
from deepregress.linalg import Matrix, Vector
from deepregress.marginal import Problem
from deepregress.objective import Objective
from deepregress.response import Response
from deepregress.solvers.newton import evaluate, maximise

RANDOM_STARTS = 10
SPARE_ROWS = 2
"""Rows of a random subset beyond one for each coefficient."""
FAINT = 1e-2
"""Weight, for all together, of the rows outside a random subset, in rows of the subset."""
SHORT_STEPS, LONG_STEPS = 6, 40
"""EM steps of every run, and of the best one that goes on."""
NEWTON_STEPS = 3
TOLERANCE = 1e-6
"""Relative gain of the log-likelihood at which EM ends."""


@dataclass(frozen=True)
class _Run:
    """Where a run stands: log-likelihood, coefficients, P(class | y) of the rows (n_obs, M)."""

    loglik: float
    coef: Vector
    share: Matrix


def separated(objective: Objective, coef: Vector) -> Vector | None:
    """Coefficients of a mixture from which Newton should start; None where `coef` will do.

    Parameters
    ----------
    objective : Objective
    coef : Vector, (n_coef,)
        Of the model without covariates.
    """
    mixture = objective.family
    if not isinstance(mixture, Mixture):
        return None
    sizes = [_size(objective, mixture, m) for m in range(mixture.n_classes)]
    if max(sizes) <= max(len(component.parameters) for component in mixture.components):
        return None
    sample = objective.sample(EM_ROWS)
    rng = np.random.default_rng(0)
    shares = [mixture.posterior(sample.response.rows(), sample.eta(coef))[0]]
    shares += [_random_share(rng, sample.n_obs, sizes) for _ in range(RANDOM_STARTS)]
    runs = [run for share in shares if (run := _em(sample, coef, share, SHORT_STEPS))]
    if not runs:
        return None
    best = max(runs, key=lambda run: run.loglik)
    best = _em(sample, best.coef, best.share, LONG_STEPS) or best
    return _ordered(sample, mixture, best.coef)


def _ordered(objective: Objective, mixture: Mixture, coef: Vector) -> Vector:
    """Components that are alike in family and formula, in the order of their first predictor."""
    members = [mixture.units_of(m) for m in range(mixture.n_classes)]
    alike = all(each == mixture.components[0] for each in mixture.components)
    for units in [*zip(*members, strict=True), mixture.gates] if alike else []:
        first = objective.units[units[0]].X
        alike &= all(np.array_equal(objective.units[u].X, first) for u in units)
    if not alike:
        return coef
    slices = objective.slices
    level = objective.eta(coef).mean(axis=0)
    order = np.argsort([level[units[0]] for units in members], kind="stable")
    ordered = coef.copy()
    for m, source in enumerate(order):
        for to, where in zip(members[m], members[source], strict=True):
            ordered[slices[to]] = coef[slices[where]]
    gates = [np.zeros(objective.units[mixture.gates[0]].n_coef)]
    gates += [coef[slices[u]] for u in mixture.gates]
    for u, source in zip(mixture.gates, order[1:], strict=True):
        ordered[slices[u]] = gates[source] - gates[order[0]]
    return ordered


def _size(objective: Objective, mixture: Mixture, m: int) -> int:
    return sum(objective.units[u].n_coef for u in mixture.units_of(m))


def _random_share(rng: np.random.Generator, n: int, sizes: list[int]) -> Matrix:
    """Weight 1 for a small subset of the rows in each class, hardly any for the others."""
    share = np.full((n, len(sizes)), FAINT / n)
    rows = rng.permutation(n)
    start = 0
    for m, size in enumerate(sizes):
        stop = start + min(size + SPARE_ROWS, n // len(sizes))
        share[rows[start:stop], m] = 1.0
        start = stop
    return share


def _em(objective: Objective, coef: Vector, share: Matrix, steps: int) -> _Run | None:
    """The best state of a run of EM; None where its likelihood is not finite from the start."""
    mixture = objective.family
    if not isinstance(mixture, Mixture):
        return None
    best: _Run | None = None
    for _ in range(steps):
        coef = _fitted(objective, mixture, coef, share)
        share, loglik = mixture.posterior(objective.response.rows(), objective.eta(coef))
        run = _Run(float(objective.response.weights @ loglik), coef, share)
        if not np.isfinite(run.loglik):
            break
        if best is not None and run.loglik < best.loglik + TOLERANCE * abs(best.loglik):
            return max(best, run, key=lambda each: each.loglik)
        best = run
    return best


def _fitted(objective: Objective, mixture: Mixture, coef: Vector, share: Matrix) -> Vector:
    """The M step: components and gate, each fitted on its own."""
    weights = objective.response.weights
    coef = coef.copy()
    for m, component in enumerate(mixture.components):
        response = replace(objective.response, weights=weights * share[:, m])
        _move(objective, coef, mixture.units_of(m), component, response)
    names = tuple(str(m + 1) for m in range(mixture.n_classes))
    gate = family("multinomial")
    classes = Response(share, share, weights, None, f"cbind({', '.join(names)})", None)
    _move(objective, coef, mixture.gates, gate.for_response(classes), classes)
    return coef


def _move(
    objective: Objective, coef: Vector, places: list[int], part: Family, response: Response
) -> None:
    """Move the coefficients of some predictors by a few penalised Newton steps, in place."""
    own = Objective(part, response, tuple(objective.units[u] for u in places))
    index = np.concatenate(
        [np.arange(objective.slices[u].start, objective.slices[u].stop) for u in places]
    )
    state = evaluate(own, coef[index])
    if not np.isfinite(state.at.value):
        return
    problem = Problem.of(own)
    every = replace(problem, free=np.arange(own.n_coef), dispersion=None)
    penalty = every.total(start_lam(every, state))
    moved = maximise(own, state, penalty, free=every.free, max_steps=NEWTON_STEPS)
    coef[index] = moved.state.coef
