"""Neural additive models: `nam(x1, x2, ...)`, a network of its own for each argument (METHODS 6).

    nam(x1, x2, x3)  =  f_1(x1) + f_2(x2) + f_3(x3),      f_j(x) = U_j(x) gamma_j

Each f_j is a deep term "nam(xj)" like `deep(xj)`: projected on structured terms of the same
variable, drawn, tested and predicted by itself. With `select=True` a gate stands before each
network (`sparse`): a sparse penalty on the multipliers of their out-of-fold columns, which say what
a network tells about rows that it did not see; those that tell nothing leave the model, the others
are fitted again without the penalty. Its depth is 3: the lasso (2) shrinks what matters so much
that BIC lets noise in.

References: Agarwal et al. (2021), "Neural additive models", arXiv:2004.13912; Breiman (1995),
doi:10.1080/00401706.1995.10484371 (the garrote).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deepregress.data import Frame
from deepregress.formula import Call
from deepregress.gating import Sparsity
from deepregress.terms.base import NetworkBlock, Term, check_options, register
from deepregress.terms.deep import DeepTerm, deep
from deepregress.terms.options import gate


@dataclass(frozen=True)
class AdditiveNetworks(Term):
    """`nam(x1, x2, select=, lam=, orthogonal_to=)`.

    Parameters
    ----------
    label : str
        The call without its options.
    variables : tuple of str
        Columns of the table that it names.
    parts : tuple of DeepTerm
        One for each argument.
    gate : Sparsity or None
        Of each network's multiplier.
    """

    label: str
    variables: tuple[str, ...]
    parts: tuple[DeepTerm, ...]
    gate: Sparsity | None

    def bind(self, frame: Frame) -> tuple[NetworkBlock, ...]:
        """Learn means, standard deviations and levels from the training rows.

        Raises
        ------
        DataError
            A numeric column is constant.
        """
        blocks = [block for part in self.parts for block in part.bind(frame)]
        return tuple(replace(block, gate=self.gate) for block in blocks)


@register("nam")
def nam(call: Call) -> AdditiveNetworks:
    """Read `nam(x1, x2, select=True, lam=, orthogonal_to=...)`."""
    check_options(call, ("select", "lam", "orthogonal_to"))
    if not call.args:
        raise call.error("nam() needs columns, such as nam(x1, x2).")
    label = f"nam({','.join(call.args)})"
    shared = {key: value for key, value in call.kwargs.items() if key == "orthogonal_to"}
    calls = [replace(call, name="deep", args=(each,), kwargs=shared) for each in call.args]
    parts = tuple(replace(deep(each), label=f"nam({each.args[0]})") for each in calls)
    names = dict.fromkeys(name for part in parts for name in part.variables)
    return AdditiveNetworks(label, tuple(names), parts, gate(call, label))
