"""The likelihood of the coefficients, from designs and a table (METHODS 1; DESIGN 2).

    eta_k = X_k coef_k + offset_k,    objective = sum_i w_i l_i(eta_i) - penalties

Here the two legs meet: designs give columns, offsets and penalties, a family gives l. A parameter
with a fixed value has no columns; its predictor is an offset.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepregress.data import Frame, Response
from deepregress.design import Design
from deepregress.disk.design import stored_arrays
from deepregress.disk.stored import StoredArray
from deepregress.errors import FitError, FormulaError
from deepregress.families.base import Family
from deepregress.groups import STRATUM
from deepregress.linalg import Array
from deepregress.objective import Objective, Unit
from deepregress.penalty import PlacedPenalty, Quadratic
from deepregress.training_rows import TrainingRows


def assemble(
    family: Family,
    response: Response,
    designs: Mapping[str, Design],
    frame: Frame | TrainingRows,
) -> tuple[Objective, dict[tuple[str, str], tuple[Array | StoredArray, ...]]]:
    """Evaluate the designs for the training rows.

    Returns
    -------
    objective : Objective
        The likelihood of the coefficients.
    inputs : dict
        Inputs of the networks by parameter and label, each of shape (n_obs, ...).

    Raises
    ------
    FormulaError
        A parameter cannot be fixed at the value given.
    FitError
        There are too few rows to estimate a dispersion, or a partial likelihood has networks.
    """
    units, inputs = [], {}
    if isinstance(frame, Frame):
        evaluated = {name: design.evaluate(frame) for name, design in designs.items()}
    else:
        evaluated = stored_arrays(designs, frame)
    for parameter in family.parameters:
        design = designs[parameter.name]
        arrays = evaluated[parameter.name]
        if design.fixed is not None:
            np.add(
                arrays.offset,
                _fixed_predictor(family, parameter.name, design.fixed),
                out=arrays.offset,
            )
        units.append(Unit(arrays.X, arrays.offset, design.penalties, arrays.levels))
        inputs.update({(parameter.name, label): given for label, given in arrays.inputs.items()})
    objective = Objective(family, response, tuple(units))
    sparse = any(block.sparsity for design in designs.values() for block in design.columns)
    networks = any(design.networks for design in designs.values())
    if family.partial:
        _refuse_estimated_strata(objective)
        if networks:
            raise FitError(
                f"family {family.name!r} has no likelihood of single rows: networks need "
                "family='cox', the full likelihood, whose effects are log hazard ratios too"
            )
        objective = objective.densely()
    if not sparse and not networks:
        _refuse_saturation(objective)
    return objective, inputs


def _refuse_estimated_strata(objective: Objective) -> None:
    """Strata of a partial likelihood are known.

    Raises
    ------
    FormulaError
        Their formula has terms with coefficients.
    """
    if objective.units[1].n_coef:
        raise FormulaError(
            f"the formula for {STRATUM!r} can hold strata() or an offset only, the code of each row"
        )


def _refuse_saturation(objective: Objective) -> None:
    """As many coefficients without a penalty as rows leave nothing to estimate a scale from.

    Raises
    ------
    FitError
        That is so for all predictors beside a dispersion of one intercept, or for the first
        predictor of a continuous family with further parameters: its density has no maximum.
    """
    family, n_obs = objective.family, objective.response.n_obs
    # a weight of 2 is the row twice: the rows that a dispersion is estimated from add up to this
    weight = float(objective.response.weights.sum())
    few = objective.n_coef > min(n_obs, weight)
    if not few or family.n_units == 1 or family.n_first > 1:
        return
    others, there, what = [family.parameter_names[1]], float(n_obs), f"{n_obs} rows"
    counted = objective.units[:1]
    if family.dispersion is not None:
        place = family.parameter_names.index(family.dispersion)
        if objective.units[place].n_coef == 1:
            others = [family.dispersion]
            counted = tuple(unit for u, unit in enumerate(objective.units) if u != place)
            if weight < n_obs:
                there, what = weight, f"weights that add up to {weight:.3g}"
    elif family.discrete:
        return
    free = sum(_n_free(unit) for unit in counted)
    if free >= there:
        raise FitError(
            f"{what} for {free} coefficients without a penalty: nothing is left to estimate "
            f"the {others[0]} from; leave terms out or fix it."
        )


def _n_free(unit: Unit) -> int:
    """Coefficients of a predictor that no penalty touches."""
    blocks: dict[tuple[int, int], list[PlacedPenalty]] = {}
    for penalty in unit.penalties:
        blocks.setdefault((penalty.index.start, penalty.index.stop), []).append(penalty)
    touched = 0
    for own in blocks.values():
        total = sum(each.S / np.linalg.norm(each.S) for each in own)
        touched += own[0].rank if len(own) == 1 else Quadratic.of(np.asarray(total)).rank
    return unit.n_coef - touched


def _fixed_predictor(family: Family, name: str, value: float) -> float:
    """The predictor at which a parameter has its fixed value."""
    eta = float(family.parameter(name).link.forward(np.float64(value)))
    if not np.isfinite(eta):
        raise FormulaError(
            f"{name!r} of family {family.name!r} cannot be fixed at {value:g}: it is outside the "
            f"range of the link {family.parameter(name).link.name!r}"
        )
    return eta
