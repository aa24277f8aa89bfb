"""A structured fit with sparse terms at given lam (METHODS 6): gates around the same Newton.

1. `solvers.sparse` solves the problem of module `sparse` at given smoothing parameters and
   constants: exact zeros.
2. With the gates held the sparse penalties are quadratic and leave the solution where it is. On the
   coefficients that are not zero, `smoothing.select` chooses the other smoothing parameters and the
   constants of that model by REML. 1 and 2 alternate until nothing moves.
3. P = H + second derivatives of all penalties at the solution gives covariances and degrees of
   freedom tr(P^-1 H), given what was selected: the number of coefficients of a lasso, Vaiter's
   degrees of a group lasso. A constant dispersion is estimated with them, as RSS / (n - edf).

References: Zou, Hastie & Tibshirani (2007), doi:10.1214/009053607000000127; Vaiter et al. (2017),
doi:10.1007/s10463-016-0563-z (degrees of freedom); Poon & Peyre (2023), doi:10.1137/22M1496657.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from deepregress.disk.arrow import Arrow, Inverse
from deepregress.errors import FitError
from deepregress.fellner_schall import dispersion_step
from deepregress.gating import Selected
from deepregress.inference.covariance import Inference
from deepregress.linalg import Matrix, Vector, one_blas_thread
from deepregress.marginal import Problem
from deepregress.objective import Objective
from deepregress.smoothing import Followed, follow, select
from deepregress.solvers.base import Solution, Status
from deepregress.solvers.likelihood import Likelihood, Likelihoods
from deepregress.solvers.newton import evaluate
from deepregress.solvers.sparse import Optimum, State, descend, solve
from deepregress.solvers.vertex import vertex
from deepregress.sparse.model import (
    NEARLY_STRAIGHT,
    STRAIGHT,
    Restricted,
    Setting,
    SparseModel,
    gate_penalties,
    restricted,
    total_penalty,
)
from deepregress.sparse.straight import without_straight

MAX_ROUNDS = 50
SETTLED = 1e-6
"""Change of the log-likelihood, and relative one of coefficients, at which 1 and 2 are done."""
LARGEST_FACTOR = 3.0
"""A fit at one lam comes down from the largest one in steps of at most this factor."""
DISPERSION = 1e-10
"""Move of the dispersion's predictor at which it is done."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A fit at lam (n_terms,): the optimum, the smoothing parameters and constants there."""

    lam: Vector
    optimum: Optimum
    setting: Setting
    status: Status

    @property
    def c(self) -> Vector:
        """Standardised sparse coefficients."""
        return self.optimum.state.c

    def likelihood(self, likelihoods: Likelihoods) -> Likelihood:
        """The likelihood there, evaluated again where the fit is slim."""
        kept = self.optimum.state.likelihood
        return likelihoods.at(kept.b) if kept.is_slim else kept

    def slim(self) -> Fit:
        """The fit without what only a solver needs of the rows."""
        state, none = self.optimum.state, np.zeros(0)
        slim = State(state.likelihood.slim(), state.c, state.loss, none, none)
        return replace(self, optimum=replace(self.optimum, state=slim))


def fit_at(
    model: SparseModel,
    lam: Vector,
    start: Fit | None = None,
    *,
    near: Vector | None = None,
    likelihoods: Likelihoods | None = None,
    on_path: bool = False,
) -> Fit:
    """Fit at lam (n_terms,), the penalties per observation.

    Parameters
    ----------
    model : SparseModel
    lam : Vector, (n_terms,)
    start : Fit, optional
        One that is near.
    near : Vector, (n_sparse,), optional
        Standardised sparse coefficients that are nearer.
    likelihoods : Likelihoods, optional
        Of the model, to be used again.
    on_path : bool
        Whether others follow: steps 1 and 2 come once, the second from the last smoothing
        parameters and less exact, and a non-convex penalty stays in the minimum it is in.
    """
    likelihoods = likelihoods or model.likelihoods()
    with one_blas_thread():
        setting = model.null if start is None else start.setting
        last = None if start is None else start.likelihood(likelihoods)
        first = last or likelihoods.at(setting.b)
        for larger in _approach(model, lam) if start is None else []:
            problem = model.penalised(larger, setting)
            problem = replace(problem, sparse=problem.sparse.lasso())
            first = solve(problem, first, likelihoods).state.likelihood
        problem = model.penalised(lam, setting)
        optimum = solve(problem, first, likelihoods, second_start=last, near=near)
        settled, message = False, ""
        for _ in range(1 if on_path else MAX_ROUNDS):
            proposed, message = _settle(model, lam, optimum, setting, on_path=on_path)
            settled = proposed is None
            if proposed is None:
                break
            before, setting = optimum.state, proposed
            first = likelihoods.at(setting.b)
            problem = model.penalised(lam, setting)
            if on_path:
                optimum = descend(problem, first, likelihoods)
            else:
                optimum = solve(problem, first, likelihoods, second_start=first)
            settled = _near(before, optimum.state)
            if settled:
                break
        optimum = without_straight(model, problem, optimum, setting, likelihoods)
        if not on_path:
            optimum = vertex(problem, optimum, likelihoods)
    status = Status(True, "converged")
    if not optimum.converged:
        status = Status(False, "the sparse terms did not reach their optimum")
    elif not settled and not on_path:
        status = Status(False, "smoothing parameters and sparse terms did not settle")
    elif message:
        status = Status(False, message)
    return Fit(lam, optimum, replace(setting, b=optimum.state.b), status)


def _approach(model: SparseModel, lam: Vector) -> list[Vector]:
    """Values of lam between the one at which all groups are zero and `lam`."""
    wanted = lam[model.terms.term]
    on = wanted > 0
    ratio = float(np.max(model.largest()[on] / wanted[on], initial=1.0))
    steps = int(np.ceil(np.log(ratio) / np.log(LARGEST_FACTOR)))
    return [lam * ratio ** (1.0 - i / steps) for i in range(1, steps)]


def _near(one: State, other: State) -> bool:
    """Whether two solutions differ by nothing that matters."""
    size = np.abs(other.c).max(initial=0.0)
    moved = np.abs(other.c - one.c).max(initial=0.0)
    return abs(other.loglik - one.loglik) < SETTLED and bool(moved <= SETTLED * size)


def _settle(
    model: SparseModel, lam: Vector, optimum: Optimum, setting: Setting, *, on_path: bool
) -> tuple[Setting | None, str]:
    """Step 2: the setting that REML chooses, if it chooses anything, and what went wrong.

    The gates of smooths stay out: their own penalty takes the place, or REML could not tell the
    two apart. The coefficients it returns are where the next step 1 starts. `on_path`: whether the
    setting is that of a model nearby.
    """
    if not model.estimated:
        return None, ""
    b = optimum.state.b.copy()
    rest = _gated(model, lam, optimum.state, setting, smooth=False)
    own = rest.penalties >= 0
    if on_path:
        near = np.full(len(own), 1.0 / setting.phi)
        near[own] = np.minimum(setting.lam, NEARLY_STRAIGHT * model.balance)[rest.penalties[own]]
        fitted = follow(rest.objective, b[rest.columns], near, method=model.method)
    else:
        found = select(rest.objective, b[rest.columns], method=model.method)
        fitted = Followed(found.coef, found.lam, found.status)
    chosen = setting.lam.copy()
    chosen[rest.penalties[own]] = fitted.lam[own]
    chosen = np.minimum(chosen, STRAIGHT * model.balance)
    constants = model.whole.held
    b[constants] = fitted.coef[np.searchsorted(rest.columns, constants)]
    message = "" if fitted.status.converged else fitted.status.message
    return Setting(b, chosen, model.whole.phi(b)), message


def _gated(
    model: SparseModel, lam: Vector, state: State, setting: Setting, *, smooth: bool
) -> Restricted:
    """The structured model of what is not zero, with gates (those of smooths if `smooth`).

    Where all sparse effects on a scale are zero, it counts as a constant dispersion there, by which
    sp is divided, and in the model it does not.
    """
    columns = model.active(state.c)
    phi = Problem.of(restricted(model.objective, columns).objective).phi(state.b[columns])
    gates = [
        (index, G * (phi / setting.phi))
        for index, G in gate_penalties(model, lam, state)
        if smooth or not model.smooth[index].any()
    ]
    sp = setting.lam * phi if smooth else None
    return restricted(model.objective, columns, gates, sp=sp)


# -- 3. The result ---------------------------------------------------------------------------------


class Result(NamedTuple):
    """A fit as the rest of the package knows it: over all coefficients, zeros included."""

    solution: Solution
    inference: Inference
    objective: Objective | None = None
    """What it is the solution of, where networks are among the columns."""


def result(model: SparseModel, fit: Fit, *, criterion: str, refit: bool) -> Result:
    """Covariances and degrees of freedom given what was selected.

    Parameters
    ----------
    model : SparseModel
    fit : Fit
    criterion : str
        What chose lam.
    refit : bool
        Whether the coefficients that are not zero are fitted again without the sparse penalty.

    Raises
    ------
    FitError
        A refit of more coefficients than rows.
    """
    with one_blas_thread():
        if refit:
            rest, solution = _refitted(model, fit)
        else:
            rest, solution = _at_optimum(model, fit)
        inference = Inference.of(solution)
        if not refit:
            solution, inference = _with_dispersion(rest, solution, inference)
    status = solution.status if refit else fit.status
    selected = _selected(model, fit, criterion=criterion, refit=refit)
    whole = replace(_embedded(model, fit, rest, solution), selected=selected, status=status)
    return Result(whole, _whole_inference(model, rest, inference))


def _refitted(model: SparseModel, fit: Fit) -> tuple[Restricted, Solution]:
    """The model of the selected columns, without sparse penalties."""
    columns = model.active(fit.c)
    if len(columns) >= model.objective.n_obs:
        raise FitError(
            f"refit=True: {len(columns)} coefficients were selected, which {model.objective.n_obs} "
            "rows cannot determine without the penalty; choose a larger lam"
        )
    rest = restricted(model.objective, columns)
    return rest, select(rest.objective, method=model.method)


def _at_optimum(model: SparseModel, fit: Fit) -> tuple[Restricted, Solution]:
    """The solution over the coefficients that are not zero, its S the second derivatives."""
    state, setting = fit.optimum.state, fit.setting
    rest = _gated(model, fit.lam, state, setting, smooth=True)
    found = select(rest.objective, state.b[rest.columns], method=model.method)
    coef = state.b[rest.columns]
    if model.whole.dispersion is None:
        found = replace(found, dispersion=None, loglik=state.loglik)
        phi = 1.0
    else:
        # R's conventions for a dispersion are in the log-likelihood that is found
        coef[found.dispersion] = found.coef[found.dispersion]
        phi = Problem.of(rest.objective).phi(coef)
    bends = gate_penalties(model, fit.lam, state, second=True)
    curved = restricted(model.objective, rest.columns, bends)
    sp = np.append(setting.lam * setting.phi, 1.0)  # gates have the number -1, the last
    S = total_penalty(curved.objective, sp[curved.penalties] / phi).toarray()
    own = sp[rest.penalties]
    return rest, replace(found, coef=coef, lam=own / phi, sp=own, penalty=Arrow.dense(S))


def _with_dispersion(
    rest: Restricted, solution: Solution, inference: Inference
) -> tuple[Solution, Inference]:
    """A constant dispersion re-estimated with the degrees of freedom of the selected model."""
    d = solution.dispersion
    if d is None:
        return solution, inference
    problem = Problem.of(rest.objective)
    edf = float(np.sum(np.delete(inference.edf, d)))
    before, coef = problem.phi(solution.coef), solution.coef.copy()
    while True:
        shift = dispersion_step(problem, evaluate(rest.objective, coef), edf)
        coef[d] += shift
        if abs(shift) < DISPERSION:
            break
    ratio = before / problem.phi(coef)
    H = solution.H * ratio
    H[d, d] = evaluate(rest.objective, coef).at.H[d, d]
    solution = replace(
        solution,
        coef=coef,
        information=Arrow.dense(H),
        penalty=Arrow.dense(solution.S * ratio),
        lam=solution.lam * ratio,
    )
    return solution, Inference.of(solution)


def _embedded(model: SparseModel, fit: Fit, rest: Restricted, solution: Solution) -> Solution:
    """The solution over all coefficients and penalties; a term that is out keeps its last sp."""
    own = rest.penalties >= 0
    lam = fit.setting.lam.copy()
    sp = lam * fit.setting.phi
    sp[rest.penalties[own]], lam[rest.penalties[own]] = solution.sp[own], solution.lam[own]
    coef = np.zeros(model.objective.n_coef)
    coef[rest.columns] = solution.coef
    d = solution.dispersion
    return replace(
        solution,
        coef=coef,
        sp=sp,
        lam=lam,
        information=Arrow.dense(_placed(model, rest, solution.H)),
        penalty=Arrow.dense(_placed(model, rest, solution.S)),
        dispersion=None if d is None else int(rest.columns[d]),
        extra=tuple(int(rest.columns[j]) for j in solution.extra),
    )


def _whole_inference(model: SparseModel, rest: Restricted, inference: Inference) -> Inference:
    edf, edf1 = np.zeros(model.objective.n_coef), np.zeros(model.objective.n_coef)
    edf[rest.columns], edf1[rest.columns] = inference.edf, inference.edf1
    return replace(
        inference,
        V=Inverse.dense(_placed(model, rest, inference.cov)),
        frequentist=_placed(model, rest, inference.cov_frequentist),
        penalty=Arrow.dense(_placed(model, rest, inference.penalty.matrix())),
        edf=edf,
        edf1=edf1,
    )


def _placed(model: SparseModel, rest: Restricted, M: Matrix) -> Matrix:
    """M with zeros for the coefficients that are zero; pages of zeros take no memory."""
    full = np.zeros((model.objective.n_coef, model.objective.n_coef))
    full[np.ix_(rest.columns, rest.columns)] = M
    return full


def _selected(model: SparseModel, fit: Fit, *, criterion: str, refit: bool) -> Selected:
    terms, n_coef = model.terms, model.objective.n_coef
    nonzero = fit.optimum.state.c != 0
    on = np.bincount(terms.coordinates.group, nonzero, len(terms.term)) > 0
    n_terms = len(terms.given)
    sparse, active = np.zeros(n_coef, dtype=bool), np.zeros(n_coef, dtype=bool)
    sparse[terms.coordinates.index] = True
    active[model.active(fit.c)] = True
    # a joint term is listed with each of its parameters
    listed = [t for t, names in enumerate(terms.parameters) for _ in names]
    names = [name for each in terms.parameters for name in each]
    n_groups = np.bincount(terms.term, minlength=n_terms)
    n_selected = np.bincount(terms.term, on, n_terms).astype(int)
    return Selected(
        terms=tuple((name, terms.given[t].term) for name, t in zip(names, listed, strict=True)),
        lam=fit.lam[listed],
        depth=tuple(terms.given[t].depth for t in listed),
        n_groups=tuple(n_groups[listed].tolist()),
        n_selected=tuple(n_selected[listed].tolist()),
        active=active,
        sparse=sparse,
        residual=fit.optimum.residual,
        criterion=criterion,
        refit=refit,
    )
