"""How far a training has come: early stopping as a value (METHODS 5.1).

    best      state of the least v so far; epoch 0 is the model without networks
    rate      halves after patience / 2 epochs without progress, down to 1 / 8 of the first
    status    set after patience epochs without progress, or when v is not a number
    decay     of the weights; a training that ended by itself and lowered v is followed by one from
              the first weights with less of it and a higher learning rate, because strong decay
              leaves networks no way back

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
    first, state, best : State
        Before the first epoch, after the last one, and of the lowest v.
    history : tuple of Epoch
    rate : float
        Learning rate of the next epoch.
    relaxed : int
        How often the decay has been relaxed.
    begun : int
        The last epoch with more decay.
    stalled : int
        Epochs since the best one with this decay.
    status : Status or None
        Why it ended.
    """

    first: State = field(repr=False)
    state: State = field(repr=False)
    best: State = field(repr=False)
    history: tuple[Epoch, ...] = field(repr=False)
    rate: float
    relaxed: int = 0
    begun: int = 0
    stalled: int = 0
    status: Status | None = None

    @classmethod
    def start(cls, state: State, before: Epoch) -> Progress:
        """Before the first epoch."""
        return cls(state, state, state, (before,), before.learning_rate)

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
        return _lowest(self.history)

    def unfinished(self, training: Training) -> bool:
        """Whether another epoch follows."""
        return self.status is None and self.epoch - self.begun < training.epochs

    def after(self, state: State, epoch: Epoch, plan: Plan) -> Progress:
        """One epoch later, with early stopping."""
        better = epoch.held_out < self.lowest
        # the model without networks is where each decay begins
        own = (self.history[0], *self.history[self.begun + 1 :])
        stalled = 0 if epoch.held_out < _lowest(own) else self.stalled + 1
        moved = replace(
            self,
            state=state,
            best=state if better else self.best,
            history=(*self.history, epoch),
            stalled=stalled,
        )
        if np.isnan(epoch.held_out):
            diverged = Status(False, f"diverged in epoch {epoch.epoch}")
            less = "divergence with less decay"
            return moved.stopped(less) if self.relaxed else replace(moved, status=diverged)
        if stalled >= plan.training.patience:
            return moved._relaxed(plan) or moved.stopped("early stopping")
        if plan.rule.halves and stalled == max(1, plan.training.patience // 2):
            halved = max(self.rate / 2, plan.first_rate(self.relaxed) * LEARNING_RATE_FLOOR)
            # a callback may have set a rate below the floor
            return replace(moved, rate=min(self.rate, halved))
        return moved

    def _relaxed(self, plan: Plan) -> Progress | None:
        """Begin again with less decay; None where that promises nothing."""
        last = not plan.rule.halves or self.relaxed == plan.training.relaxations
        if last or self.best_epoch <= self.begun:
            return None
        return replace(
            self,
            state=self.first,
            rate=plan.first_rate(self.relaxed + 1),
            relaxed=self.relaxed + 1,
            begun=self.epoch,
            stalled=0,
        )

    def stopped(self, by: str) -> Progress:
        """Ended after the last epoch."""
        message = f"stopped after epoch {self.epoch} by {by}"
        return replace(self, status=self.status or Status(True, message))

    def as_trained(self, networks: Sequence[Network], training: Training) -> Trained:
        """The networks at their best epoch; a training without an end was interrupted."""
        status, interrupted = self.status, False
        if status is None and not self.unfinished(training):
            status = Status(True, f"all {training.epochs} epochs ran")
        if status is None:
            message = f"interrupted after {self.epoch} epochs; the best one is kept"
            status, interrupted = Status(False, message), True
        members = self.best.members(networks)
        return Trained(members, self.best_epoch, self.history, status, interrupted)


def _lowest(history: Sequence[Epoch]) -> float:
    return min((e.held_out for e in history if np.isfinite(e.held_out)), default=np.inf)
