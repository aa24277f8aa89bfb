"""`strata(g)`: rows that share a baseline (METHODS 8).

Each combination of levels is a stratum. Its code, the place among those of training, is a known
part of the predictor `stratum` of a partial likelihood.

References: Therneau & Grambsch (2000), Modeling Survival Data, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepregress.formula import STRATA, Call
from deepregress.frame import Frame
from deepregress.terms.base import OffsetBlock, Term, check_options, register, stratum_names


@dataclass(frozen=True)
class StrataTerm(Term):
    """`strata(g, h)`: the stratum of each row."""

    label: str
    variables: tuple[str, ...]

    def bind(self, frame: Frame) -> tuple[OffsetBlock, ...]:
        """Learn which strata there are."""
        levels = tuple(np.unique(stratum_names(frame, self.variables)).tolist())
        return (OffsetBlock(self.label, self.variables, "", levels),)


@register(STRATA)
def strata(call: Call) -> StrataTerm:
    """Read `strata(g)` or `strata(g, h)`, columns of the table."""
    check_options(call, ())
    if not call.args or not all(name.isidentifier() for name in call.args):
        raise call.error("strata() takes the names of columns.")
    return StrataTerm(call.label, call.args)
