"""Sparse terms beside networks, and networks that may leave (METHODS 6).

    eta = X b + sum_m a_m u_m        u_m  output of network m in rows that it has not seen

The multiplier a_m of a network with a gate is a coefficient with a penalty like a lasso; the lam
of all sparse terms, of these and of those of the structured part, is chosen in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from deepregress.design import Design
from deepregress.gating import Sparsity
from deepregress.inference.covariance import Inference
from deepregress.linalg import Vector
from deepregress.objective import Objective
from deepregress.smoothing import select as smooth
from deepregress.solvers.base import Solution
from deepregress.sparse.fit import Result
from deepregress.sparse.model import Placed
from deepregress.sparse.selection import fit_sparse


@dataclass(eq=False)
class SparseFits:
    """A structured solver (`StructuredSolver`) for sparse terms beside networks.

    The multiplier of a network's column is one more coefficient, which a gate may hold at zero.

    Parameters
    ----------
    sparse : sequence of Placed
        The sparse blocks of the designs.
    gates : dict
        (Number of the predictor, label) of the networks that may leave -> what is asked.
    parameters : sequence of str
        Of each predictor.
    n_coef : sequence of int
        Coefficients of each predictor without networks.
    method : {"REML", "ML"}
    """

    sparse: Sequence[Placed]
    gates: Mapping[tuple[int, str], Sparsity]
    parameters: Sequence[str]
    n_coef: Sequence[int]
    method: str
    results: list[Result] = field(default_factory=list)

    @classmethod
    def of(
        cls, designs: Mapping[str, Design], sparse: Sequence[Placed], method: str
    ) -> SparseFits | None:
        """The solver for these designs; None where nothing is sparse and every network stays."""
        gates = {
            (unit, block.label): block.gate
            for unit, design in enumerate(designs.values())
            for block in design.networks
            if block.gate is not None
        }
        if not sparse and not gates:
            return None
        if sparse:
            # one way to choose lam for all
            asked = sparse[0].sparsity
            gates = {
                key: replace(gate, select=asked.select, folds=asked.folds, refit=asked.refit)
                for key, gate in gates.items()
            }
        n_coef = [design.n_coef for design in designs.values()]
        return cls(sparse, gates, tuple(designs), n_coef, method)

    def __call__(self, objective: Objective, start: Vector | None = None) -> Solution:
        """Fit `objective`, whose units have the networks' columns after those of the designs."""
        found = [*self.sparse, *self._placed(objective)]
        if not found:
            return smooth(objective, start, method=self.method)
        fitted = fit_sparse(objective.densely(), found, method=self.method)
        self.results.append(fitted)
        return fitted.solution

    def inference(self, solution: Solution) -> Inference:
        """Covariances and degrees of freedom of a solution that it found."""
        own = (each.inference for each in self.results if each.solution is solution)
        return next(own, None) or Inference.of(solution)

    def _placed(self, objective: Objective) -> list[Placed]:
        """The gated columns: their penalties bear the labels of the networks."""
        return [
            Placed(u, self.parameters[u], penalty.index.start, 1, self.gates[u, penalty.label])
            for u, unit in enumerate(objective.units)
            for penalty in unit.penalties
            if penalty.index.start >= self.n_coef[u] and (u, penalty.label) in self.gates
        ]
