"""`fit`: from formulas and a table to a fitted model (DESIGN 3). Control flow only.

1. Parse the formulas; read and clean the table once for all parameters.
2. Bind the terms to the training rows: a design per parameter.
3. Structured only: penalised Newton with smoothing selection (`smoothing.select`), with sparse
   terms inside the sparse solver (`selection.fit_sparse`).
   Any network: cross-fitted networks between two such fits (`solvers.semistructured`).
4. Covariances and degrees of freedom, and the model that holds it all.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from deepregress.assembly import assemble
from deepregress.data import Frame, Response, prediction_frame, training_set
from deepregress.deep.flow_fit import check_base, further_rounds, joint, learns, refitted
from deepregress.deep.input_selection import select_inputs, selects
from deepregress.design import Design, build_designs, crossings, variables
from deepregress.disk.fit import StoredFit
from deepregress.disk.source import opened
from deepregress.disk.stored import StoredArray
from deepregress.errors import (
    ConvergenceWarning,
    FitError,
    FormulaError,
    NetworkError,
    suggestion,
    warn,
)
from deepregress.families import Family
from deepregress.families import family as family_of
from deepregress.fitted import FittedModel
from deepregress.formula import ParsedModel, expand, parse, with_strata
from deepregress.inference.covariance import Inference
from deepregress.keras_models import Shared
from deepregress.linalg import Array
from deepregress.networks import reading_of, resolve
from deepregress.new_response import response_at
from deepregress.objective import Objective
from deepregress.prediction import Deep
from deepregress.series.autoregression import asked
from deepregress.series.lagged import Series
from deepregress.smoothing import select
from deepregress.solvers.base import StructuredSolver, Training
from deepregress.solvers.checkpoint import seed_in
from deepregress.solvers.folds import crossfitted
from deepregress.solvers.parts import NetworkPart, check_trunk
from deepregress.solvers.semistructured import solve
from deepregress.solvers.stochastic import train
from deepregress.solvers.validation import Validation
from deepregress.sparse.fit import Result
from deepregress.sparse.gates import SparseFits
from deepregress.sparse.model import placed
from deepregress.sparse.selection import fit_sparse
from deepregress.terms import registered
from deepregress.training_rows import TrainingRows, codes_of, stored_training_set

METHODS = ("REML", "ML", "GCV", "fixed")
ORTHOGONALIZATIONS = ("posthoc", "cell", "none")


def fit(
    formula: str | Mapping[str, str | float] | Sequence[str],
    data: Any,
    family: str | Family = "normal",
    *,
    link: str | Mapping[str, Any] | None = None,
    networks: Mapping[str, Any] | None = None,
    weights: str | Sequence[float] | Array | None = None,
    method: str = "REML",
    training: Training | None = None,
    orthogonalize: str = "posthoc",
    seed: int | None = None,
    verbose: int = 1,
    na: Literal["drop", "raise"] = "drop",
    select: bool = False,
) -> FittedModel:
    """Fit a semi-structured distributional regression.

    Each parameter theta_k of the response distribution has an additive predictor,
    `theta_k = h_k(linear + smooth + deep + offset)`. Smoothing parameters maximise the Laplace
    approximate restricted likelihood; networks are trained on the out-of-fold likelihood and kept
    orthogonal to the structured terms they share variables with.

    Parameters
    ----------
    formula : str, dict or list
        "y ~ x + s(z) + deep(w)" for the first parameter; a dict parameter -> formula (or a number
        that fixes the parameter); or a list ["y ~ x", "scale ~ z"].
    data : table, dict of arrays, or path
        pandas, polars or pyarrow table, or a dict whose columns may be arrays (n_obs, ...). For
        data larger than memory the path of a parquet file or a folder of them, or a
        `pyarrow.dataset.Dataset`: read by the chunk, with the design in temporary files (8 bytes
        for each row and coefficient, in the folder that TMPDIR names). Terms learn knots and
        constraints from 100,000 random rows, with all levels and extremes; the model holds these.
    family : str or Family
        Response distribution.
    link : str or dict, optional
        Link of the first parameter, or parameter -> link.
    networks : dict, optional
        Name -> Keras model (its output the feature vector) or factory from `dr.networks`.
    weights : str or array, optional
        Row weights of the log-likelihood: weight 2 is the row twice.
    method : {"REML", "ML", "GCV", "fixed"}
        Marginal likelihood that chooses the smoothing parameters; "GCV": generalised
        cross-validation of a generalised linear model, or UBRE where its dispersion is known;
        "fixed": every smooth has its `sp` or `df`.
    training : Training, optional
        How networks are trained.
    orthogonalize : {"posthoc", "cell", "none"}
        Whether the part of a network that its structured terms span is moved to them after
        training ("cell": removed in training, too).
    seed : int, optional
        Of everything random in the training of networks; the same seed gives the same fit.
    verbose : int
        0: no progress bar.
    na : {"drop", "raise"}
        Rows with missing values: drop them with a warning, or refuse.
    select : bool
        Whether every smooth has a penalty on its null space too, so that a term can vanish; as
        `select=True` does in a single term. Terms with fixed `sp`, `df` or `fx` are left alone.

    Returns
    -------
    FittedModel

    Raises
    ------
    DeepRegressError
        One of its subclasses says what is wrong, what came and what is allowed.

    Examples
    --------
    >>> import deepregress as dr
    >>> model = dr.fit("accel ~ s(times, k=20)", data=dr.datasets.load("mcycle"))
    >>> round(float(model.edf_total), 1)
    14.2

    References
    ----------
    Wood, Pya & Saefken (2016), doi:10.1080/01621459.2016.1180986; Ruegamer, Kolb & Klein (2023),
    doi:10.1080/00031305.2022.2164054; Ruegamer (2023), arXiv:2306.00522.
    """
    check_choices(method, orthogonalize)
    supplied, training = dict(networks or {}), training or Training()
    bound = bind(
        formula,
        data,
        family,
        link=link,
        networks=supplied,
        weights=weights,
        na=na,
        select=select,
        groups=training.groups,
    )
    return fit_bound(
        bound,
        supplied,
        method=method,
        training=training,
        orthogonalize=orthogonalize,
        seed=seed,
        verbose=verbose,
    )


@dataclass(frozen=True, eq=False)
class Bound:
    """Formulas and a table, bound to each other: everything that a solver needs.

    Parameters
    ----------
    formula : dict of str to str
        Formula of each parameter as text.
    frame : Frame
        Complete rows of positive weight.
    designs : dict of str to Design
    objective : Objective
    inputs : dict
        Inputs of the networks by parameter and label.
    chosen : Array or None
        Of data on disk the numbers of the rows that are in `frame`, among all.
    series : Series or None
        Lags, where formulas have any, and the last rows of the table.
    groups : Array or None, (n_obs,)
        Which rows folds of networks keep together.
    """

    formula: dict[str, str]
    frame: Frame
    designs: dict[str, Design]
    objective: Objective
    inputs: dict[tuple[str, str], tuple[Array | StoredArray, ...]]
    chosen: Array | None = None
    series: Series | None = None
    groups: Array | None = None


def bind(
    formula: str | Mapping[str, str | float] | Sequence[str],
    data: Any,
    family: str | Family,
    *,
    link: str | Mapping[str, Any] | None,
    networks: Mapping[str, Any],
    weights: str | Sequence[float] | Array | None,
    na: Literal["drop", "raise"],
    select: bool,
    groups: str | Array | None = None,
) -> Bound:
    """Steps 1 and 2 of `fit`, whose arguments these are; `groups` are those of its training."""
    called = asked(formula, data, family_of(family, link))
    given = called.family
    parsed = parse(
        called.formula,
        given.groups[0],
        parameters=given.groups,
        terms=registered(),
        networks=networks,
    )
    needs = variables(parsed) | ({"groups": (groups,)} if isinstance(groups, str) else {})
    rows, response = _training_rows(called.data, parsed, needs, weights, na, given.known)
    frame = rows if isinstance(rows, Frame) else rows.sample
    parsed = with_strata(parsed, given.groups[0], given.groups)
    given = given.for_response(response)
    given.check(response)
    constant_elsewhere = [p.name for p in given.parameters if not p.intercept]
    parsed = expand(parsed, given.parameter_names, without_intercept=constant_elsewhere)
    readings = {name: reading_of(network) for name, network in networks.items()}
    designs = build_designs(parsed, frame, given.parameter_names, select=select, readings=readings)
    objective, inputs = assemble(given, response, designs, rows)
    chosen = None if isinstance(rows, Frame) else rows.chosen
    codes = None if groups is None else codes_of(groups, rows)
    return Bound(_texts(parsed), frame, designs, objective, inputs, chosen, called.series, codes)


def _training_rows(
    data: Any,
    parsed: ParsedModel,
    needs: Mapping[str, Sequence[str]],
    weights: str | Sequence[float] | Array | None,
    na: Literal["drop", "raise"],
    known: Sequence[str],
) -> tuple[Frame | TrainingRows, Response]:
    """What the formulas need of a table in memory or on disk."""
    read: Callable[..., tuple[Frame | TrainingRows, Response]] = partial(training_set, data)
    source = opened(data)
    if source is not None:
        crossed, coded = crossings(parsed)
        read = partial(stored_training_set, source, crossings=crossed, coded=coded)
    return read(
        needs,
        response=parsed.response,
        response_variables=parsed.response_variables,
        weights=weights,
        na=na,
        known=known,
    )


def fit_bound(
    bound: Bound,
    networks: Mapping[str, Any],
    *,
    method: str,
    training: Training,
    orthogonalize: str,
    seed: int | None,
    verbose: int,
    structured: StructuredSolver | None = None,
) -> FittedModel:
    """Steps 3 and 4 of `fit`, whose arguments these are; `structured` in place of its solver."""
    if method == "fixed":
        _check_fixed(bound.designs)
    structured, sparse = structured or structured_solver(method), bool(placed(bound.designs))
    check_base(bound.objective, sparse=sparse)
    parts = _parts(bound.designs, bound.inputs, networks, bound.objective)
    settings = {"orthogonalize": orthogonalize, "training": training}
    training = replace(training, groups=bound.groups)
    if seed is None and parts:
        kept = seed_in(training.checkpoint)
        seed = secrets.randbits(31) if kept is None else kept
    if selects(bound.designs):
        choose = partial(select_inputs, structured=structured, trainer=train, training=training)
        given = bound.designs, bound.inputs, parts
        designs, inputs = choose(*given, bound.objective, seed=seed or 0)
        bound = replace(bound, designs=designs, inputs=inputs)
        parts = _parts(designs, inputs, networks, bound.objective)
    if learns(bound.objective) and not sparse:
        objective, structured = joint(bound.objective, structured)
        bound = replace(bound, objective=objective)
    solved = partial(
        _solve,
        parts=parts,
        method=method,
        structured=structured,
        training=training,
        seed=seed or 0,
        orthogonalize=orthogonalize,
        verbose=verbose,
    )
    fitted, deep = solved(bound)
    for _ in range(further_rounds(bound.objective, sparse=sparse, networks=bool(parts))):
        eta = (fitted.objective or bound.objective).eta(fitted.solution.coef)
        bound = replace(bound, objective=refitted(bound.objective, eta))
        fitted, deep = solved(bound)
    return fitted_model(bound, fitted, deep, seed=seed, method=method, settings=settings)


def structured_solver(method: str) -> StructuredSolver:
    """Newton with the smoothing parameters of a method of `fit`."""
    return partial(select, method="REML" if method == "fixed" else method)


def fitted_model(
    bound: Bound,
    fitted: Result,
    deep: Deep | None,
    *,
    seed: int | None,
    method: str,
    settings: Mapping[str, Any],
) -> FittedModel:
    """Step 4 of `fit`, and its warnings."""
    status = fitted.solution.status
    if not status.converged:
        warn(ConvergenceWarning(status.message))
    if status.warning is not None:
        warn(ConvergenceWarning(status.warning))
    response, stored = bound.objective.response, None
    solved = fitted.objective or bound.objective
    if bound.chosen is not None:
        stored = StoredFit(bound.objective, solved.eta(fitted.solution.coef))
        response = response.take(bound.chosen)
    return FittedModel(
        formula=bound.formula,
        family=solved.fitted_family(fitted.solution.coef),
        designs=bound.designs,
        frame=bound.frame,
        response=response,
        solution=fitted.solution,
        inference=fitted.inference,
        deep=deep,
        seed=seed,
        method=method,
        settings=settings,
        stored=stored,
        series=bound.series,
    )


def check_choices(method: str, orthogonalize: str) -> None:
    """Refuse unknown choices.

    Raises
    ------
    FitError
        Naming those that there are.
    """
    _check_choice("method", method, METHODS)
    _check_choice("orthogonalize", orthogonalize, ORTHOGONALIZATIONS)


def _check_choice(argument: str, given: object, allowed: Sequence[str]) -> None:
    if given not in allowed:
        hint = suggestion(given, allowed) if isinstance(given, str) else ""
        raise FitError(f"{argument} must be one of {', '.join(allowed)}, got {given!r}{hint}")


def _check_fixed(designs: Mapping[str, Design]) -> None:
    for design in designs.values():
        for penalty in design.penalties:
            if penalty.sp is None and penalty.df is None:
                raise FormulaError(
                    f"method='fixed': {penalty.label} in the formula for {design.parameter!r} "
                    "needs sp= or df="
                )


def _texts(parsed: ParsedModel) -> dict[str, str]:
    """Formula of each parameter."""
    return {name: predictor.text for name, predictor in parsed.predictors.items()}


def _parts(
    designs: Mapping[str, Design],
    inputs: Mapping[tuple[str, str], tuple[Array | StoredArray, ...]],
    supplied: Mapping[str, Any],
    objective: Objective,
) -> list[NetworkPart]:
    """The deep terms of all predictors with their networks, inputs and protected columns."""
    parts: list[NetworkPart] = []
    for unit, (name, design) in enumerate(designs.items()):
        for block in design.networks:
            arrays = inputs[name, block.label]
            if block.network and block.network not in supplied:
                raise NetworkError(
                    f"{block.label}: network {block.network!r} is not in networks="
                    f"{suggestion(block.network, supplied)}"
                )
            trunk = block.network if isinstance(supplied.get(block.network), Shared) else ""
            check_trunk(trunk, block.label, unit, parts)
            parts.append(
                NetworkPart(
                    label=block.label,
                    unit=unit,
                    inputs=arrays,
                    architecture=resolve(
                        supplied.get(block.network),
                        arrays,
                        label=block.label,
                        n_codes=block.recipe.n_codes,
                    ),
                    protected=design.protected(block.label),
                    gated=block.gate is not None,
                    trunk=trunk,
                )
            )
    return parts


def _solve(
    bound: Bound,
    parts: Sequence[NetworkPart],
    *,
    method: str,
    structured: StructuredSolver,
    training: Training,
    seed: int,
    orthogonalize: str,
    verbose: int,
) -> tuple[Result, Deep | None]:
    """Structured, sparse or semi-structured fit, by content."""
    objective, sparse = bound.objective, placed(bound.designs)
    if method == "GCV" and (sparse or parts):
        raise FitError("method='GCV' is for models of linear and smooth terms: use method='REML'")
    known = "REML" if method == "fixed" else method
    if sparse and not parts:
        return fit_sparse(objective.densely(), sparse, method=known), None
    if not parts:
        solution = structured(objective)
        return Result(solution, Inference.of(solution)), None
    fits = SparseFits.of(bound.designs, sparse, known)
    if fits is not None and fits.gates:
        training = crossfitted(training)
    result = solve(
        objective,
        parts,
        structured=fits or structured,
        trainer=train,
        training=training,
        seed=seed,
        orthogonalize=orthogonalize,
        validation=_validation(bound, parts, training.validation),
        verbose=verbose,
    )
    inference = fits.inference(result.solution) if fits else Inference.of(result.solution)
    return Result(result.solution, inference, result.objective), Deep(
        effects=result.effects,
        score_difference=result.score_difference,
        score_se=result.score_se,
        history=result.history,
        scores=tuple((score.value, score.se) for score in result.scores),
        population=result.population,
    )


def _validation(bound: Bound, parts: Sequence[NetworkPart], table: Any) -> Validation | None:
    """The rows of a validation table as the fit sees its own; None for a share of its rows."""
    if table is None or isinstance(table, (int, float)):
        return None
    designs, given = bound.designs, bound.objective
    names = dict.fromkeys(name for design in designs.values() for name in design.variables)
    frame = prediction_frame(table, list(names))
    of, levels = given.response.label, given.response.levels
    response = response_at(table, of, levels, known=given.family.known)
    objective, inputs = assemble(given.family, response, designs, frame)
    parameters = list(designs)
    own = [inputs[parameters[part.unit], part.label] for part in parts]
    eta = objective.eta(np.zeros(objective.n_coef))
    return Validation(objective, own, eta, eta)
