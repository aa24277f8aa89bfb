"""Which inputs of a network stay: a gate before each one, judged out of fold (METHODS 6).

    deep(x1, ..., xp, select=True):   zeta(g_1 x_1, ..., g_p x_p),   g_j in {0, 1}

1. The networks are trained on all inputs by cross-fitting, on top of the structured fit.
2. On the rows that a network did not see, the log-likelihood l falls by some amount where a gate
   closes: columns of numbers and indicators are then at their means, codes, texts and pictures
   those of rows in random order. The weakest gate closes while that costs no more than BIC's
   log(N) / 2 of l, and the others are judged again.
3. 1 and 2 are repeated with the inputs that are left until all stay. The last one always does:
   whether the network is worth anything at all is judged later (`solvers.judgement`).

The model is then fitted to the inputs that stay, as if the others had never been written.

References: Kolb et al. (2025), arXiv:2509.23898 (groups of first-layer weights); Guyon et al.
(2002), doi:10.1023/A:1012487302797 (elimination with networks trained anew).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepregress.design import Design
from deepregress.disk.stored import StoredArray
from deepregress.errors import FitError
from deepregress.linalg import Array, Matrix, Vector
from deepregress.networks import resolve
from deepregress.objective import Objective
from deepregress.predictor import Members, evaluate
from deepregress.solvers.base import Folds, Network, NetworkTrainer, StructuredSolver, Training
from deepregress.solvers.folds import folds_of
from deepregress.solvers.outputs import out_of_fold_of
from deepregress.solvers.parts import NetworkPart
from deepregress.terms.base import NetworkBlock
from deepregress.terms.deep import narrowed, recipe_of

MAX_ROUNDS = 4

Inputs = Mapping[tuple[str, str], tuple[Array | StoredArray, ...]]
"""Arrays of each network by parameter and label."""


def selects(designs: Mapping[str, Design]) -> bool:
    """Whether a network is to choose among its inputs."""
    return any(block.selects for design in designs.values() for block in design.networks)


def select_inputs(
    designs: Mapping[str, Design],
    inputs: Inputs,
    parts: Sequence[NetworkPart],
    objective: Objective,
    *,
    structured: StructuredSolver,
    trainer: NetworkTrainer,
    training: Training,
    seed: int,
) -> tuple[dict[str, Design], dict[tuple[str, str], tuple[Array | StoredArray, ...]]]:
    """Designs and inputs with the inputs that stay.

    Parameters
    ----------
    designs : dict of str to Design
    inputs : dict
        Arrays of all networks.
    parts : sequence of NetworkPart
        In the order of the designs and their networks.
    objective : Objective
        Of the structured terms.
    structured, trainer, training, seed
        As of `solvers.semistructured.solve`.

    Raises
    ------
    FitError
        Without cross-fitting no row is held out from some network.
    """
    if training.crossfit is False or training.validation is not None:
        raise FitError("deep(..., select=True) needs cross-fitting: Training(crossfit='auto')")
    # strong decay keeps networks off inputs they can do without
    training = replace(training, checkpoint=None, callbacks=(), relaxations=0)
    folds = folds_of(objective.response.weights, training, crossfit=True, seed=seed)
    eta = objective.eta(structured(objective).coef)
    designs, inputs, parts = dict(designs), dict(inputs), list(parts)
    for number in range(1, MAX_ROUNDS + 1):
        networks = [
            Network(p.architecture, p.unit, p.architecture.arrange(p.inputs)) for p in parts
        ]
        trained = trainer(
            objective,
            networks,
            eta=eta,
            folds=folds,
            training=training,
            seed=seed,
            round_number=number,
            verbose=0,
        )
        if trained.best_epoch == 0:
            break
        gates = _Gates(objective, eta, folds, tuple(parts), trained.members)
        if not _narrow(designs, inputs, parts, gates):
            break
    return designs, inputs


def _narrow(
    designs: dict[str, Design],
    inputs: dict[tuple[str, str], tuple[Array | StoredArray, ...]],
    parts: list[NetworkPart],
    gates: _Gates,
) -> bool:
    """Take out what is behind closed gates; whether there was anything."""
    places = [(name, block) for name, design in designs.items() for block in design.networks]
    changed = False
    for j, (parameter, block) in enumerate(places):
        kept = gates.open(j, block) if block.selects else []
        if not kept or len(kept) == len(block.arguments):
            continue
        smaller, arrays = narrowed(block, inputs[parameter, block.label], kept)
        blocks = tuple(smaller if each is block else each for each in designs[parameter].blocks)
        designs[parameter] = replace(designs[parameter], blocks=blocks)
        inputs[parameter, block.label] = arrays
        architecture = resolve(None, arrays, label=block.label, n_codes=smaller.recipe.n_codes)
        parts[j] = replace(parts[j], inputs=arrays, architecture=architecture)
        changed = True
    return changed


@dataclass(frozen=True, eq=False)
class _Gates:
    """Trained networks whose inputs can be hidden."""

    objective: Objective
    eta: Matrix
    folds: Folds
    parts: tuple[NetworkPart, ...]
    members: tuple[Members, ...]

    def open(self, j: int, block: NetworkBlock) -> list[int]:
        """Step 2 for part j: numbers of the arguments that stay."""
        others = self.eta.copy()
        for i, part in enumerate(self.parts):
            if i != j:
                others[:, part.unit] += self._output(i, part.inputs)
        rows = np.random.default_rng(0).permutation(self.objective.n_obs)

        def loglik(closed: set[int]) -> float:
            eta = others.copy()
            hidden = recipe_of(block).hidden(self.parts[j].inputs, closed, rows)
            eta[:, self.parts[j].unit] += self._output(j, hidden)
            return float(self.objective.response.weights @ self.objective.row_derivatives(eta)[0])

        least = 0.5 * np.log(self.objective.response.weights.sum())
        closed: set[int] = set()
        now, left = loglik(closed), list(range(len(block.arguments)))
        while len(left) > 1:
            without = {i: loglik({*closed, i}) for i in left}
            weakest = max(left, key=without.__getitem__)
            if now - without[weakest] > least:
                break
            closed.add(weakest)
            left.remove(weakest)
            now = without[weakest]
        return left

    def _output(self, j: int, arrays: Sequence[Array | StoredArray]) -> Vector:
        """Of part j for each row, by the member that did not see it."""
        architecture = self.parts[j].architecture
        D = evaluate(architecture, self.members[j], architecture.arrange(arrays))
        return out_of_fold_of(D, self.folds)
