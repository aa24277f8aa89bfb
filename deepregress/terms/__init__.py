"""Terms of formulas: what `s(x)`, `deep(x)` and the linear part become.

Importing this package registers every name that a formula can call. `terms.base` has the types, one
module per kind of term has how it learns from the training rows and makes its columns (METHODS 2,
5): `parametric`, `deep`, and the smooths, which share `smooth`: `spline`, `tensor`, `random`,
`factor_smooth`, `markov_field`, `shrinkage`; `sparse` selects among others.
"""

from deepregress.terms import (
    additive_networks,
    deep,
    factor_smooth,
    markov_field,
    parametric,
    random,
    shrinkage,
    sparse,
    spline,
    strata,
    tensor,
)
from deepregress.terms.base import build, registered

__all__ = [
    "additive_networks",
    "build",
    "deep",
    "factor_smooth",
    "markov_field",
    "parametric",
    "random",
    "registered",
    "shrinkage",
    "sparse",
    "spline",
    "strata",
    "tensor",
]
