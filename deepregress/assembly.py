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
from deepregress.errors import FormulaError
from deepregress.families.base import Family
from deepregress.linalg import Array
from deepregress.objective import Objective, Unit


def assemble(
    family: Family, response: Response, designs: Mapping[str, Design], frame: Frame
) -> tuple[Objective, dict[tuple[str, str], tuple[Array, ...]]]:
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
    """
    units, inputs = [], {}
    for parameter in family.parameters:
        design = designs[parameter.name]
        arrays = design.evaluate(frame)
        offset = arrays.offset
        if design.fixed is not None:
            offset = offset + _fixed_predictor(family, parameter.name, design.fixed)
        units.append(Unit(arrays.X, offset, design.penalties, arrays.levels))
        inputs.update({(parameter.name, label): given for label, given in arrays.inputs.items()})
    return Objective(family, response, tuple(units)), inputs


def _fixed_predictor(family: Family, name: str, value: float) -> float:
    """The predictor at which a parameter has its fixed value."""
    eta = float(family.parameter(name).link.forward(np.float64(value)))
    if not np.isfinite(eta):
        raise FormulaError(
            f"{name!r} of family {family.name!r} cannot be fixed at {value:g}: it is outside the "
            f"range of the link {family.parameter(name).link.name!r}"
        )
    return eta
