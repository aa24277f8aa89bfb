"""How strong the sparse penalty is: a path of lam and what chooses from it (METHODS 6).

    lam_1 = largest lam with an effect, ..., lam_m = ratio lam_1, evenly spaced logarithms

    bic    -2 l + log(N) edf          ebic   bic + 2 gamma log choose(G, k), k of G groups selected
    cv     the least mean loss of K folds held out, cv1se the largest lam within one standard error

Each fit starts from the one before; groups that are zero cost one product with their columns. edf
are the degrees of freedom of `sparse_fit`; where l has a constant dispersion, it is that of maximum
likelihood. The loss of held-out rows is the mean deviance there, else -2 log-likelihood; as in
glmnet, columns are standardised in each fold anew, at the lam of the whole path. Smoothing
parameters of other terms follow the path by one update for each lam; the fit at the chosen lam
settles them. The path of a fit ends where nothing further can be chosen (`fit_path`, until).

References: Friedman, Hastie & Tibshirani (2010), doi:10.18637/jss.v033.i01; Chen & Chen (2008),
doi:10.1093/biomet/asn034.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.special

from deepregress.errors import FitError
from deepregress.linalg import Array, Factor, Matrix, Vector, one_blas_thread
from deepregress.objective import Objective
from deepregress.solvers.likelihood import Likelihoods, is_least_squares
from deepregress.solvers.sparse import State
from deepregress.sparse.fit import Fit, Result, fit_at, result
from deepregress.sparse.model import Placed, SparseModel, gate_penalties, restricted, total_penalty

VALUES = 100
"""Values of lam on a path."""
RATIO, RATIO_WIDE = 1e-4, 1e-2
"""Smallest lam over the largest, where there are more rows than coefficients and where not."""
MOST_EDF, MOST_CHOSEN = 0.8, 0.5
"""Degrees of freedom, as shares of N, at which a path ends and up to which bic and ebic choose."""
PAST, PAST_VALUES = 10.0, 10
"""A path that only serves bic or ebic ends after so many fits in a row that are worse than its best
by this much, a posterior odds of 150 to 1 in Kass & Raftery (1995), doi:10.2307/2291091."""
SATURATED, SATURATED_VALUES = 1e-5, 3
"""Gain of log-likelihood from one lam to the next, as a share of all since the first, and how many
of them in a row end a path that only serves to choose; R's glmnet ends at the first of 1e-5."""
EBIC = 0.5
"""gamma of the extended BIC."""
DISPERSION_STEPS, DISPERSION_STEP = 50, 2e-3
"""Of Newton in a constant dispersion, and the size of the last one: its model is then exact to
about 1e-8 per row."""

Split = Iterable[tuple[Array, Array]]
"""Rows to fit and rows to judge by, fold after fold."""


@dataclass(frozen=True, eq=False)
class LamPath:
    """Fits along a path of lam.

    Parameters
    ----------
    lam : Vector, (n_lam,)
        Descending; of the terms whose lam is not given.
    coef : Matrix, (n_lam, n_coef)
        In the units of the columns.
    edf, loglik, n_selected : Vector, (n_lam,)
        Degrees of freedom, log-likelihood, groups that are not zero.
    bic, ebic : Vector, (n_lam,)
    loss, loss_se : Vector, (n_lam,) or None
        Mean loss of held-out rows and its standard error over the folds.
    fits : tuple of Fit
        Without what only a solver needs.
    """

    lam: Vector
    coef: Matrix = field(repr=False)
    edf: Vector = field(repr=False)
    loglik: Vector = field(repr=False)
    n_selected: Array = field(repr=False)
    bic: Vector = field(repr=False)
    ebic: Vector = field(repr=False)
    loss: Vector | None = field(default=None, repr=False)
    loss_se: Vector | None = field(default=None, repr=False)
    fits: tuple[Fit, ...] = field(default=(), repr=False)

    def chosen(self, select: str, weight: float) -> int:
        """The number of the lam that a criterion chooses.

        Parameters
        ----------
        select : {"bic", "ebic", "cv", "cv1se"}
        weight : float
            N, the sum of the rows' weights.
        """
        if select in ("bic", "ebic"):
            values = self.bic if select == "bic" else self.ebic
            return int(np.argmin(_allowed(values, self.edf, weight)))
        if self.loss is None or self.loss_se is None:
            raise FitError(f"select={select!r} needs a path with cross-validation")
        best = int(np.argmin(self.loss))
        if select == "cv":
            return best
        return int(np.argmax(self.loss <= self.loss[best] + self.loss_se[best]))


def lam_sequence(
    model: SparseModel, *, n_values: int = VALUES, ratio: float | None = None
) -> Vector:
    """Descending values of lam from the largest with an effect, (n_values,).

    Raises
    ------
    FitError
        No sparse column is correlated with the response.
    """
    free = np.array([each.lam is None for each in model.terms.given])
    largest = float(np.max(model.largest()[free[model.terms.term]], initial=0.0))
    if not largest > 0.0:
        raise FitError("no column of the sparse terms has any effect, so there is no path of lam")
    if ratio is None:
        wide = model.weight <= len(model.terms.coordinates.index)
        ratio = RATIO_WIDE if wide else RATIO
    return np.asarray(largest * np.geomspace(1.0, ratio, n_values))


def lam_of_terms(model: SparseModel, lam: float) -> Vector:
    """Lam of each term: its own where it is given, else `lam`."""
    return np.array([lam if each.lam is None else each.lam for each in model.terms.given])


def fit_path(model: SparseModel, values: Vector, *, until: str = "") -> LamPath:
    """Fit at each of the descending `values` of lam, each from the one before.

    Parameters
    ----------
    model : SparseModel
    values : Vector, (n_lam,)
    until : {"", "bic", "ebic", "cv", "cv1se"}
        What the path is to choose by, if that is all: it ends where fits are saturated or, with
        bic or ebic, where its minimum lies well behind.
    """
    likelihoods, dispersion = model.likelihoods(on_path=True), Dispersion(model)
    fits: list[Fit] = []
    rows: list[tuple[float, float, int]] = []
    fit = None
    with one_blas_thread():
        for lam in values:
            at = lam_of_terms(model, float(lam))
            near = None
            if len(fits) > 1:
                near = _extrapolated(model, fits[-2], fits[-1], at)
            fit = fit_at(model, at, fit, near=near, likelihoods=likelihoods, on_path=True)
            used = _edf(model, fit, likelihoods)
            if fits and used > MOST_EDF * model.weight:
                break
            norms, _ = model.terms.penalty(fit.lam, 1.0)
            selected = int(np.count_nonzero(norms.norms(fit.c)))
            rows.append((used, dispersion.loglik(fit), selected))
            fits.append(fit.slim())
            if until and _nothing_follows(model, rows, until):
                break
    coef = np.array([fit.setting.b for fit in fits])
    edf, loglik, n_selected = (np.array(column) for column in zip(*rows, strict=True))
    criteria = _criteria(model, edf, loglik, n_selected)
    bic, ebic = criteria["bic"], criteria["ebic"]
    return LamPath(values[: len(fits)], coef, edf, loglik, n_selected, bic, ebic, fits=tuple(fits))


def _extrapolated(model: SparseModel, before: Fit, last: Fit, lam: Vector) -> Vector:
    """Sparse coefficients at lam (n_terms,) on the line through the last two fits, (n_sparse,).

    A lasso path of least squares is made of such lines (Efron et al. 2004,
    doi:10.1214/009053604000000067). Groups that would turn round are zero.
    """
    moved = before.lam - last.lam
    j = np.argmax(moved)
    share = (last.lam - lam)[j] / moved[j] if moved[j] > 0.0 else 0.0
    c, group = last.c + share * (last.c - before.c), model.terms.coordinates.group
    agree = np.bincount(group, c * last.c)
    return np.asarray(np.where(agree[group] > 0.0, c, 0.0))


def _nothing_follows(model: SparseModel, rows: list[tuple[float, float, int]], until: str) -> bool:
    """Whether a path, its edf, log-likelihoods and numbers of groups, need go no further."""
    edf, loglik, n_selected = (np.array(column) for column in zip(*rows, strict=True))
    criteria = _criteria(model, edf, loglik, n_selected)
    if until in criteria and _is_past(_allowed(criteria[until], edf, model.weight)):
        return True
    return _is_saturated(loglik, n_selected)


def _criteria(
    model: SparseModel, edf: Vector, loglik: Vector, n_selected: Array
) -> dict[str, Vector]:
    """-2 loglik + log(N) edf, and with 2 gamma log(number of models of this size)."""
    bic = -2.0 * loglik + np.log(model.weight) * edf
    extra = 2.0 * EBIC * _log_choose(len(model.terms.term), n_selected)
    return {"bic": bic, "ebic": bic + extra}


def _allowed(values: Vector, edf: Vector, weight: float) -> Vector:
    """A criterion (n_lam,), infinite where the degrees of freedom are too many to choose by it."""
    inside = edf <= max(MOST_CHOSEN * weight, float(edf[0]))
    return np.where(inside, values, np.inf)


def _is_saturated(loglik: Vector, n_selected: Array) -> bool:
    """Whether less penalty has ceased to improve the fit, with groups in it."""
    gains = np.diff(loglik)[-SATURATED_VALUES:]
    if len(gains) < SATURATED_VALUES or not n_selected[-SATURATED_VALUES - 1]:
        return False
    return bool(np.all(gains < SATURATED * (loglik[-1] - loglik[0])))


def _is_past(values: Vector) -> bool:
    """Whether a criterion's minimum lies well behind."""
    return len(values) > PAST_VALUES and bool(np.all(values[-PAST_VALUES:] > values.min() + PAST))


def _log_choose(n: int, k: Array) -> Vector:
    log_gamma = scipy.special.gammaln
    return np.asarray(log_gamma(n + 1) - log_gamma(k + 1) - log_gamma(n - k + 1))


def _edf(model: SparseModel, fit: Fit, likelihoods: Likelihoods) -> float:
    """tr(P^-1 H) over the coefficients that are not zero, and one for each constant."""
    state, terms = fit.optimum.state, model.terms
    columns = model.active(state.c)
    singles = len(terms.term) == len(terms.coordinates.index)
    if singles and np.all(terms.depth == 2) and np.all(terms.alpha == 1) and not model.smooth.any():
        return float(len(columns))
    moved = np.setdiff1d(columns, np.setdiff1d(model.plain, model.free))
    bends = gate_penalties(model, fit.lam, state, second=True)
    rest = restricted(model.objective, columns, bends)
    lam = np.append(fit.setting.lam, 1.0 / fit.setting.phi)[rest.penalties]  # gates: -1, the last
    S = total_penalty(rest.objective, lam)
    own = np.searchsorted(columns, moved)
    H = likelihoods.products(moved, state.likelihood.curvature)
    factor = Factor.of(H + S[own][:, own].toarray())
    if factor is None:
        return float(len(columns))
    return float(np.sum(factor.inverse() * H)) + len(columns) - len(moved)


class Dispersion:
    """Log-likelihoods along a path at their maxima over a constant dispersion, if there is one."""

    def __init__(self, model: SparseModel) -> None:
        self.objective = model.objective
        family = model.objective.family
        self.unit: int | None = None
        if family.dispersion is not None and model.whole.dispersion is not None:
            self.unit = family.parameter_names.index(family.dispersion)
        n_units = len(model.objective.units)
        self._diagonal = sum(n_units - k for k in range(self.unit or 0))
        self._last: float | None = None
        self._least_squares = is_least_squares(self.objective)

    def loglik(self, fit: Fit) -> float:
        """Newton in the predictor of the dispersion, from the last one."""
        state, u = fit.optimum.state, self.unit
        if u is None:
            return state.loglik
        if self._least_squares:
            return self._at_residual_variance(state, fit.setting.phi)
        weights, eta = self.objective.response.weights, self.objective.eta(state.b)
        if self._last is not None:
            eta[:, u] = self._last
        best = -np.inf
        for _ in range(DISPERSION_STEPS):
            rowwise, g, W = self.objective.row_derivatives(eta)
            gradient, information = weights @ g[:, u], weights @ W[:, self._diagonal]
            best = max(best, float(weights @ rowwise))
            step = gradient / information if information > 0 else np.sign(gradient)
            eta[:, u] += np.clip(step, -1.0, 1.0)
            if abs(step) < DISPERSION_STEP:
                # what a Newton step of this size gains is known without taking it
                best = max(best, float(weights @ rowwise) + 0.5 * float(gradient * step))
                break
        self._last = float(eta[0, u])
        return best

    def _at_residual_variance(self, state: State, phi: float) -> float:
        """The maximum of a normal log-likelihood, from that at the variance phi."""
        weights, y = self.objective.response.weights, self.objective.response.y
        N, unit = weights.sum(), self.objective.units[0]
        mean = unit.X @ state.b[self.objective.slices[0]] + unit.offset
        variance = float(weights @ (y - mean) ** 2 / N)
        return float(state.loglik - 0.5 * N * (np.log(variance / phi) + 1.0 - variance / phi))


# -- cross-validation ------------------------------------------------------------------------------


def cross_validate(
    objective: Objective, found: Sequence[Placed], path: LamPath, split: Split, *, method: str
) -> LamPath:
    """Add the loss of held-out rows to a path.

    Parameters
    ----------
    objective : Objective
    found : sequence of Placed
    path : LamPath
        Of all rows.
    split : iterable of pairs of arrays of int
        Rows to fit and rows to judge by.
    method : {"REML", "ML"}
    """
    losses, sizes = [], []
    for train, held_out in split:
        model = SparseModel.of(objective.on_rows(np.asarray(train)), found, method=method)
        fitted = fit_path(model, path.lam)
        judged = objective.on_rows(np.asarray(held_out))
        # where the rows of a fold allow no longer path, its last fit stands for the rest
        coef = fitted.coef[np.minimum(np.arange(len(path.lam)), len(fitted.lam) - 1)]
        sizes.append(float(judged.response.weights.sum()))
        if objective.risk_sets is None:
            loss = _loss(judged, scaled=Dispersion(model).unit is not None)
        else:
            loss = _partial_loss((objective, model.objective), size=sizes[-1])
        losses.append([loss(b) for b in coef])
    if len(losses) < 2:
        raise FitError("cross-validation needs two folds at least")
    share = np.array(sizes) / np.sum(sizes)
    mean = share @ np.array(losses)
    spread = share @ (np.array(losses) - mean) ** 2
    return replace(path, loss=mean, loss_se=np.sqrt(spread / (len(losses) - 1)))


def _loss(judged: Objective, *, scaled: bool) -> Callable[[Vector], float]:
    """Mean deviance where the rows' dispersion is constant, else mean -2 log-likelihood."""
    weights, family = judged.response.weights, judged.family

    def loss(b: Vector) -> float:
        eta = judged.eta(b)
        if scaled and judged.response.plain:
            rowwise = family.unit_deviance(judged.response.y, family.mean(eta))
        else:
            rowwise = -2.0 * judged.row_derivatives(eta)[0]
        return float(np.average(rowwise, weights=weights))

    return loss


def _partial_loss(
    every_and_training: tuple[Objective, Objective], *, size: float
) -> Callable[[Vector], float]:
    """What the held-out rows add to -2 log partial likelihood, per row of weight one.

    Verweij & van Houwelingen (1993), doi:10.1002/sim.4780122407: rows held out have hardly any risk
    sets of their own.
    """
    every, training = (Likelihoods(each, np.zeros(0, int)) for each in every_and_training)
    return lambda b: -2.0 * (every.at(b).value - training.at(b).value) / size


def folds(n_obs: int, n_folds: int, seed: int = 0) -> list[tuple[Array, Array]]:
    """Random folds of almost equal size.

    Raises
    ------
    FitError
        There are fewer rows than folds.
    """
    if n_folds > n_obs:
        raise FitError(f"folds={n_folds}: there are only {n_obs} rows")
    order = np.random.default_rng(seed).permutation(n_obs)
    parts = np.array_split(order, n_folds)
    return [(np.sort(np.setdiff1d(order, part)), np.sort(part)) for part in parts]


def selection_frequency(
    objective: Objective,
    found: Sequence[Placed],
    values: Vector,
    *,
    method: str,
    samples: int,
    seed: int,
) -> Matrix:
    """How often each coefficient is not zero in fits to random halves of the rows.

    Stability selection (Meinshausen & Buehlmann 2010, doi:10.1111/j.1467-9868.2010.00740.x): what
    is selected in most halves at some lam of a short path is stable.

    Parameters
    ----------
    objective : Objective
    found : sequence of Placed
    values : Vector, (n_lam,)
        Descending.
    method : {"REML", "ML"}
    samples : int
        Number of halves.
    seed : int

    Returns
    -------
    Matrix, (n_lam, n_coef)
        Shares of the halves.
    """
    rng, half = np.random.default_rng(seed), objective.n_obs // 2
    count = np.zeros((len(values), objective.n_coef))
    for _ in range(samples):
        rows = np.sort(rng.permutation(objective.n_obs)[:half])
        model = SparseModel.of(objective.on_rows(rows), found, method=method)
        coef = fit_path(model, values).coef
        count += coef[np.minimum(np.arange(len(values)), len(coef) - 1)] != 0
    return count / samples


# -- the fit of a model ----------------------------------------------------------------------------


def fit_sparse(objective: Objective, found: Sequence[Placed], *, method: str) -> Result:
    """Fit a model with sparse terms at the lam that is given or chosen.

    Parameters
    ----------
    objective : Objective
    found : sequence of Placed
        Its sparse blocks.
    method : {"REML", "ML"}

    Raises
    ------
    FitError
        Terms ask for different choices of lam.
    """
    model = SparseModel.of(objective, found, method=method)
    given = model.terms.given
    refit = {each.refit for each in given}
    asked = {(each.select, each.folds) for each in given if each.lam is None}
    if len(refit) > 1 or len(asked) > 1:
        raise FitError(
            "all sparse terms of a model have one lam and one way to choose it: give them the same "
            "select=, folds= and refit=, or lam= of their own"
        )
    if not asked:
        fit = fit_at(model, lam_of_terms(model, 0.0))
        return result(model, fit, criterion="", refit=refit.pop())
    select, n_folds = asked.pop()
    path = fit_path(model, lam_sequence(model), until=select)
    if select in ("cv", "cv1se"):
        split = folds(objective.n_obs, n_folds)
        path = cross_validate(objective, found, path, split, method=method)
    best = path.chosen(select, model.weight)
    fit = fit_at(model, lam_of_terms(model, float(path.lam[best])), path.fits[best])
    return result(model, fit, criterion=select, refit=refit.pop())
