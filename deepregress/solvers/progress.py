"""How far a training has come: early stopping as a value (METHODS 5.1).

    best      state of the least v so far; epoch 0 is the model without networks
    rate      halves after patience / 2 epochs without progress, down to 1 / 8 of the first
    status    set after patience epochs without progress, or when v is not a number

Each epoch makes a new `Progress` from the one before, so one that was written to a file goes on as
if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deepregress.solvers.base import Epoch, Network, Status, Trained, Training
from deepregress.solvers.plan import Plan, State

LEARNING_RATE_FLOOR = 1 / 8


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Parameters
    ----------
    state, best : State
        After the last epoch, and of the lowest v.
    history : tuple of Epoch
    rate : float
        Learning rate of the next epoch.
    stalled : int
        Epochs since the best one.
    status : Status or None
        Why it ended.
    """

    state: State = field(repr=False)
    best: State = field(repr=False)
    history: tuple[Epoch, ...] = field(repr=False)
    rate: float
    stalled: int = 0
    status: Status | None = None

    @classmethod
    def start(cls, state: State, before: Epoch) -> Progress:
        """Before the first epoch."""
        return cls(state, state, (before,), before.learning_rate)

    @property
    def epoch(self) -> int:
        """Number of the last epoch."""
        return self.history[-1].epoch

    @property
    def best_epoch(self) -> int:
        """Zero when no epoch was better than no network at all."""
        finite = [e for e in self.history if np.isfinite(e.held_out)] or [self.history[0]]
        return min(finite, key=lambda epoch: epoch.held_out).epoch

    @property
    def lowest(self) -> float:
        """The least v."""
        return min((e.held_out for e in self.history if np.isfinite(e.held_out)), default=np.inf)

    def after(self, state: State, epoch: Epoch, plan: Plan) -> Progress:
        """One epoch later, with early stopping."""
        better = epoch.held_out < self.lowest
        stalled = 0 if better else self.stalled + 1
        moved = replace(
            self,
            state=state,
            best=state if better else self.best,
            history=(*self.history, epoch),
            stalled=stalled,
        )
        if np.isnan(epoch.held_out):
            return replace(moved, status=Status(False, f"diverged in epoch {epoch.epoch}"))
        if stalled >= plan.training.patience:
            return moved.stopped("early stopping")
        if plan.rule.halves and stalled == max(1, plan.training.patience // 2):
            halved = max(self.rate / 2, plan.rate * LEARNING_RATE_FLOOR)
            # a callback may have set a rate below the floor
            return replace(moved, rate=min(self.rate, halved))
        return moved

    def stopped(self, by: str) -> Progress:
        """Ended after the last epoch."""
        message = f"stopped after epoch {self.epoch} by {by}"
        return replace(self, status=self.status or Status(True, message))

    def as_trained(self, networks: Sequence[Network], training: Training) -> Trained:
        """The networks at their best epoch; a training without an end was interrupted."""
        status, interrupted = self.status, False
        if status is None and self.epoch >= training.epochs:
            status = Status(True, f"all {training.epochs} epochs ran")
        if status is None:
            message = f"interrupted after {self.epoch} epochs; the best one is kept"
            status, interrupted = Status(False, message), True
        members = self.best.members(networks)
        return Trained(members, self.best_epoch, self.history, status, interrupted)
