"""Responses of new rows, in the codes of the training rows, and their log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from deepregress.data import Response, prediction_frame, response_of
from deepregress.errors import PredictionError, listing
from deepregress.families.base import Family
from deepregress.formula import expression_variables
from deepregress.linalg import Matrix, Vector


def response_at(
    newdata: object, text: str, levels: tuple[str, ...] | None, *, known: Sequence[str] = ()
) -> Response:
    """The response `text` of new rows, in the codes of its training `levels`, unit weights.

    Raises
    ------
    PredictionError
        The table lacks it, or it has a level that the training rows had not.
    """
    names = expression_variables(text)
    response = response_of(newdata, text, names, known=known)
    if levels is None:
        return response
    values = prediction_frame(newdata, list(names)).evaluate(text, names)
    given = np.asarray(values).astype(str)
    place = pd.Index(levels).get_indexer(pd.Index(given))
    if (place < 0).any():
        raise PredictionError(
            f"the response {text!r} has the level {str(given[place < 0][0])!r}; "
            f"the model's are {listing(levels)}."
        )
    codes = place.astype(np.float64)
    return replace(response, lower=codes, upper=codes, levels=levels)


def log_likelihood(family: Family, response: Response, eta: Matrix) -> Vector:
    """l_i of rows of any kind, (n_obs,); -inf where the family cannot have the response."""
    if response.plain:
        return family.logpdf(response.lower, family.with_known(eta, response.rows()))
    return family.row_log_likelihood(response.rows(), eta)
