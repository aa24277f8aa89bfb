"""Checks of a fitted model, printed as R's `gam.check` prints them (METHODS 11).

    optimum       gradient and Hessian of -V at the fit, V the marginal likelihood of the smoothing
                  parameters: the gradient should be zero, the Hessian positive definite
    rank          of P = H + S: less than the number of coefficients where some are not identified
    bases         k', edf, k-index and p-value of each smooth (module `basis_dimension`)
    residuals     QQ plot, residuals against the linear predictor, histogram, response against
                  fitted values

Reference: Wood, "Generalized Additive Models", 2nd ed. 2017, sec. 5.9 and 7.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepregress.assembly import assemble
from deepregress.data import Frame, Response
from deepregress.design import Design
from deepregress.diagnostics import Checks, residuals
from deepregress.errors import PredictionError
from deepregress.families.base import Family
from deepregress.goodness import Fit
from deepregress.inference.basis_dimension import basis_dimensions
from deepregress.linalg import Matrix, Vector, one_blas_thread
from deepregress.marginal import Point, Problem, Slope
from deepregress.plotting import checks_figure
from deepregress.printing import LEGEND, printed
from deepregress.solvers.base import Solution
from deepregress.solvers.newton import evaluate

SINGULAR = float(np.finfo(float).eps)
"""Eigenvalues of P, scaled to a unit diagonal, below this share of the largest count as zero."""
LEAST_STAR = 0.1


@dataclass(frozen=True, eq=False)
class Optimum:
    """Derivatives of -V at the fit, in log lam and, last, the predictors of constant parameters.

    Parameters
    ----------
    gradient : Vector, (n_hyper,)
    eigenvalues : Vector, (n_hyper,)
        Of the Hessian of the quadratic model, ascending.
    """

    gradient: Vector
    eigenvalues: Vector

    @classmethod
    def at(
        cls,
        family: Family,
        response: Response,
        designs: Mapping[str, Design],
        frame: Frame,
        solution: Solution,
    ) -> Optimum:
        """Differentiate the restricted likelihood at a solution; one pass over the data."""
        with one_blas_thread():
            objective, _ = assemble(family, response, designs, frame)
            problem = Problem.of(objective, method="REML")
            state = evaluate(objective, solution.coef)
            slope = Slope.at(Point.at(problem, solution.lam, state))
        return cls(-slope.gradient, np.asarray(np.linalg.eigvalsh(-slope.hessian)))

    def lines(self) -> list[str]:
        """The text of gam.check."""
        low, high = float(self.gradient.min()), float(self.gradient.max())
        least, most = float(self.eigenvalues[0]), float(self.eigenvalues[-1])
        definite = "positive definite" if least > 0 else "not positive definite"
        return [
            f"Gradient range [{low:.3g}, {high:.3g}]",
            f"Hessian {definite}, eigenvalue range [{least:.3g}, {most:.3g}]",
        ]


@dataclass(frozen=True, eq=False)
class ModelCheck:
    """Result of `FittedModel.check`; `print` shows it as R's gam.check, `plot` draws it.

    Parameters
    ----------
    converged : bool
    message : str
        How the solver ended.
    iterations : int
        Outer iterations of the structured solver.
    criterion : {"REML", "ML"}
    score : float
        The criterion at the fit, to be minimised.
    scale : float or None
        Constant dispersion.
    optimum : Optimum or None
        None where no smoothing parameter was chosen by REML, or networks were trained.
    rank, n_coef : int
        Rank of the penalised Hessian and number of coefficients, a constant dispersion excepted.
    table : DataFrame
        k, edf, k_index, p_value by (parameter, term).
    residuals : Checks
        What the pictures show.
    """

    converged: bool
    message: str
    iterations: int
    criterion: str
    score: float
    scale: float | None
    optimum: Optimum | None
    rank: int
    n_coef: int
    table: pd.DataFrame = field(repr=False)
    residuals: Checks = field(repr=False)

    def __str__(self) -> str:
        """Return the text that R would print."""
        return "\n".join([*self._convergence(), "", *self._bases()])

    __repr__ = __str__

    def plot(self) -> Figure:
        """Draw QQ plot, residuals against the linear predictor, histogram, response vs fitted."""
        return checks_figure(self.residuals)

    def _convergence(self) -> list[str]:
        ended = "full convergence" if self.converged else f"no convergence ({self.message})"
        iterations = f"{self.iterations} iteration{'' if self.iterations == 1 else 's'}"
        after = f" after {iterations}." if self.iterations else "."
        scale = "" if self.scale is None else f" & scale {self.scale:.5g}"
        lines = [
            f"Method: {self.criterion}   Optimizer: Newton",
            f"{ended}{after}",
            *([] if self.optimum is None else self.optimum.lines()),
            f"(score {self.score:.6g}{scale}).",
            f"Model rank =  {self.rank} / {self.n_coef}",
        ]
        return lines

    def _bases(self) -> list[str]:
        if not len(self.table):
            return ["No smooth terms."]
        lines = [
            "Basis dimension (k) checking results. Low p-value (k-index<1) may",
            "indicate that k is too low, especially if edf is close to k'.",
            "",
        ]
        several = self.table.index.get_level_values(0).nunique() > 1
        for parameter, part in self.table.groupby(level=0, sort=False):
            lines += [f"--- {parameter} ---"] if several else []
            header = ["k'", "edf", "k-index", "p-value"]
            lines += [*printed(part.droplevel(0), header, joint=0), ""]
        low = (self.table["p_value"] < LEAST_STAR).any()
        return [*lines, *(["---", LEGEND] if low else [])]


@dataclass(frozen=True)
class Trial:
    """How bases are tested: rows at most, shuffles of the residuals, seed.

    Raises
    ------
    PredictionError
        There are too few rows or shuffles.
    """

    subsample: int
    n_rep: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse impossible choices."""
        for name, least in (("subsample", 2), ("n_rep", 1)):
            given = getattr(self, name)
            if not isinstance(given, int | np.integer) or given < least:
                raise PredictionError(f"check({name}={given!r}): needs a whole number >= {least}.")


def check_model(
    model: Fit,
    designs: Mapping[str, Design],
    frame: Frame,
    response: Response,
    eta: Matrix,
    trial: Trial,
) -> ModelCheck:
    """Check a fitted model on its training rows, of which `eta` are the predictors (n_obs, U)."""
    solution, family = model.solution, model.predictors.family
    networks = any(design.networks for design in designs.values())
    out = [*solution.absent, *([] if solution.dispersion is None else [solution.dispersion])]
    whole = solution.information + solution.penalty
    P = whole.restrict(whole.layout.restrict(np.delete(np.arange(whole.layout.n_coef), out)))
    # the levels of a factor are penalised, so their blocks have full rank
    T = P.schur()
    # sparse terms and networks are no part of the restricted likelihood
    alone = solution.selected is None and not networks
    chosen = len(solution.trace) > 0 and solution.criterion == "REML" and alone
    return ModelCheck(
        converged=solution.status.converged,
        message=solution.status.message,
        iterations=len(solution.trace),
        criterion=solution.criterion,
        score=solution.reml,
        scale=model.scale,
        optimum=Optimum.at(family, response, designs, frame, solution) if chosen else None,
        rank=0 if T is None else P.layout.levels.size + penalised_rank(T),
        n_coef=P.layout.size,
        table=basis_dimensions(
            model.predictors,
            model.inference.edf,
            frame,
            residuals(family, response, eta, "deviance", seed=trial.seed),
            subsample=trial.subsample,
            n_rep=trial.n_rep,
            seed=trial.seed,
        ),
        residuals=Checks.of(family, response, eta, seed=trial.seed),
    )


def penalised_rank(P: Matrix) -> int:
    """Rank of a penalised Hessian (n_coef, n_coef), scaled to a unit diagonal."""
    if not len(P):
        return 0
    d = 1.0 / np.sqrt(np.maximum(np.diagonal(P), np.finfo(float).tiny))
    values = np.linalg.eigvalsh(d[:, None] * P * d)
    return int(np.sum(values > SINGULAR * values[-1]))
