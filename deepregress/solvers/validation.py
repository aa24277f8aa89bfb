"""Rows that judge networks in place of those held out: the user's validation data.

One member of each network trains on all rows of the fit and v is its likelihood in the validation
rows, on top of the predictors that the structured part has there. Only networks see these rows
(when to stop, whether they stay): knots, smoothing parameters and coefficients do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from deepregress.data import Response
from deepregress.disk.scratch import beside
from deepregress.disk.stored import StoredArray
from deepregress.errors import FitError
from deepregress.linalg import Array, Matrix
from deepregress.objective import Objective
from deepregress.predictor import DeepEffect, Members, evaluate
from deepregress.projection import product, projection
from deepregress.solvers.base import Folds, Network, Protected
from deepregress.solvers.judgement import Judgement
from deepregress.solvers.parts import NetworkPart

Sample = tuple[Objective, list[Network], Matrix, Folds]
"""What networks train on: family and response, their inputs, predictors without them, rows."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Validation rows, as the fit sees its own.

    Parameters
    ----------
    objective : Objective
        Structured terms and response.
    inputs : sequence of tuples of arrays, each (n_rows, ...)
        Of each deep term.
    eta, start : Matrix, (n_rows, U)
        Predictors with the networks that have been judged, and without any, of the fit at hand.
    """

    objective: Objective = field(repr=False)
    inputs: Sequence[tuple[Array | StoredArray, ...]] = field(repr=False)
    eta: Matrix = field(repr=False)
    start: Matrix = field(repr=False)

    def of(self, places: Sequence[int]) -> Validation:
        """For some of the deep terms."""
        return replace(self, inputs=[self.inputs[place] for place in places])

    def with_effects(
        self, structured: Matrix, effects: Sequence[DeepEffect], places: Sequence[int]
    ) -> Validation:
        """On top of structured predictors (n_rows, U) and of the deep terms at some places."""
        eta = structured.copy()
        for effect, place in zip(effects, places, strict=True):
            X = self.objective.units[effect.unit].matrix
            eta[:, effect.unit] += effect.evaluate(self.inputs[place], X)
        return replace(self, eta=eta)

    def pooled(
        self,
        objective: Objective,
        networks: Sequence[Network],
        parts: Sequence[NetworkPart],
        eta: Matrix,
    ) -> Sample:
        """Rows of the fit, then those of validation: what a trainer needs to know of both."""
        n, more = objective.n_obs, self.objective.n_obs
        own = objective.response
        # the scale of the loss is that of the validation rows, whatever that of the weights is
        scaled = replace(own, weights=own.weights / own.weights.mean())
        response = _stacked(scaled, self.objective.response)
        train = np.flatnonzero(objective.response.weights > 0)
        folds = Folds((train,), (np.arange(n, n + more),))
        both = [
            replace(
                network,
                inputs=tuple(map(_joined, network.inputs, part.architecture.arrange(own))),
                protected=tuple(self._protected(each, part) for each in network.protected),
            )
            for network, part, own in zip(networks, parts, self.inputs, strict=True)
        ]
        sample = Objective(objective.family, response, ())
        return sample, both, _after(eta, self.eta), folds

    def judgement(
        self,
        networks: Sequence[Network],
        parts: Sequence[NetworkPart],
        members: Sequence[Members],
    ) -> Judgement:
        """Trained networks in the validation rows."""
        columns = []
        for network, part, own, given in zip(networks, parts, members, self.inputs, strict=True):
            D = evaluate(part.architecture, own, part.architecture.arrange(given)).T
            for each in network.protected:
                trained = evaluate(part.architecture, own, network.inputs)
                C = projection(each.X, each.weights, trained.T)
                D = D - product(self._columns(part), C)
            columns.append(D.mean(axis=1))
        units = tuple(part.unit for part in parts)
        every = np.arange(self.objective.n_obs)
        stacked = np.column_stack(columns)
        return Judgement(self.objective, self.eta, units, stacked, every, self.start)

    def _protected(self, given: Protected, part: NetworkPart) -> Protected:
        X = _after(given.X, self._columns(part))
        return Protected(X, _after(given.weights, np.zeros(self.objective.n_obs)))

    def _columns(self, part: NetworkPart) -> Matrix:
        return self.objective.units[part.unit].matrix.select(part.protected).X


def _joined(own: Array | StoredArray, more: Array | StoredArray) -> Array:
    if isinstance(own, StoredArray) or isinstance(more, StoredArray):
        raise FitError(
            "Training(validation=table): pictures by path cannot be joined with those of another "
            "table; give a share of the rows, such as validation=0.2"
        )
    return _after(own, more)


def _after(first: Array, second: Array) -> Array:
    """Rows of one array after those of the other, in a file where the first is in one."""
    shape = (len(first) + len(second), *first.shape[1:])
    return np.concatenate([first, second], out=beside(first, shape, np.result_type(first, second)))


def _stacked(first: Response, second: Response) -> Response:
    """Rows of one response after the other."""
    changed: dict[str, Any] = {
        each.name: _after(getattr(first, each.name), getattr(second, each.name))
        for each in fields(first)
        if isinstance(getattr(first, each.name), np.ndarray)
    }
    if first.lower is first.upper and second.lower is second.upper:
        changed["upper"] = changed["lower"]
    return replace(first, **changed)
