"""All rows of a model of data on disk, for what needs more than a sample of them.

A model of a table on disk holds the rows that its terms learned from: effects, residuals and
pictures are of those. What is a sum over all rows (deviance, the uncertainty of smoothing
parameters) reads these files, which are there as long as the model is and are not saved with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deepregress.linalg import Matrix, Vector
from deepregress.objective import Objective


@dataclass(frozen=True, eq=False)
class StoredFit:
    """A fit to all rows.

    Parameters
    ----------
    objective : Objective
        Of the structured terms; its arrays are in temporary files.
    eta : Matrix, (n_obs, U)
        Predictors at the fit, deep effects included, in a file too.
    """

    objective: Objective = field(repr=False)
    eta: Matrix = field(repr=False)

    @property
    def offset(self) -> Vector:
        """Offset of the first predictor, (n_obs,)."""
        return self.objective.units[0].offset
