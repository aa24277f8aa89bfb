"""What solvers take and return.

A structured solver maps an `Objective` to a `Solution`; the semi-structured solver receives one,
and a `NetworkTrainer`, as arguments and alternates them (METHODS 5.1). `Training` holds all choices
of the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from deepregress.architecture import Architecture
from deepregress.disk.arrow import Arrow
from deepregress.disk.scratch import parts
from deepregress.disk.stored import StoredArray
from deepregress.errors import FitError
from deepregress.gating import Selected
from deepregress.linalg import Array, Matrix, Vector
from deepregress.objective import Objective
from deepregress.predictor import DeepEffect, Members


@dataclass(frozen=True)
class Status:
    """Whether a solver got where it wanted, in words, and what to warn of at that place."""

    converged: bool
    message: str
    warning: str | None = None


@dataclass(frozen=True)
class Step:
    """One outer iteration of a structured fit: -V and its largest gradient (or move of log lam)."""

    phase: str
    reml: float
    gradient: float


@dataclass(frozen=True)
class Solution:
    """A structured fit.

    Parameters
    ----------
    coef : Vector, (n_coef,)
        All units, one after the other.
    sp : Vector, (n_penalties,)
        Smoothing parameters in mgcv's scaling, in the order of units and their penalties.
    lam : Vector, (n_penalties,)
        lam = sp / phi where a constant dispersion phi is estimated, else sp.
    loglik : float
        Unpenalised log-likelihood, sum scale, with R's conventions for a constant dispersion.
    reml : float
        Negative Laplace approximate (restricted) marginal likelihood; smaller is better.
    information : Arrow
        Negative Hessian H of the log-likelihood at `coef`; the expected one for a generalised
        linear model (a mean with covariates, at most a constant dispersion beside it), as in R.
    penalty : Arrow
        Total penalty S = sum_j lam_j S_j.
    dispersion : int or None
        Index of the coefficient that is a constant dispersion, estimated with the smoothing
        parameters; its row and column in P = H + S count as independent of the others.
    status : Status
    trace : tuple of Step
    criterion : {"REML", "ML", "GCV", "UBRE"}
        What `reml` is; GCV and UBRE as such, the others as minus the log-likelihood.
    extra : tuple of int
        Indices of the family's constant extra parameters, estimated with the smoothing parameters;
        independent of the other coefficients too.
    selected : Selected or None
        What sparse terms came to; covariances and degrees of freedom are given that.
    """

    coef: Vector
    sp: Vector
    lam: Vector
    loglik: float
    reml: float
    information: Arrow = field(repr=False)
    penalty: Arrow = field(repr=False)
    dispersion: int | None
    status: Status
    trace: tuple[Step, ...] = field(default=(), repr=False)
    criterion: str = "REML"
    extra: tuple[int, ...] = ()
    selected: Selected | None = None

    @property
    def H(self) -> Matrix:
        """The information as an array, (n_coef, n_coef)."""
        return self.information.matrix()

    @property
    def S(self) -> Matrix:
        """The total penalty as an array, (n_coef, n_coef)."""
        return self.penalty.matrix()

    @property
    def held(self) -> list[int]:
        """Coefficients estimated with the smoothing parameters: a dispersion, extra parameters."""
        return [*([] if self.dispersion is None else [self.dispersion]), *self.extra]

    @property
    def absent(self) -> Array:
        """Coefficients that sparse terms hold at zero."""
        if self.selected is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(~self.selected.active)


class StructuredSolver(Protocol):
    """Anything that fits the structured part."""

    def __call__(self, objective: Objective, start: Vector | None = None) -> Solution:
        """Fit `objective`, from `start` (n_coef,) where it is given."""


PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
"""Policies of Keras in which networks can train."""


@dataclass(frozen=True)
class Training:
    """How networks are trained (METHODS 5.1).

    Parameters
    ----------
    epochs : int
        At most so many passes over the data with each decay.
    batch_size : int or "auto"
        Rows per step; "auto": 32 up to 2,000 rows, 128 up to 20,000, 256 above.
    learning_rate : float
        At the start; an optimiser given as an object has its own.
    decay_epochs : float
        Time constant of the decoupled weight decay of the built-in optimiser, in epochs.
    relaxations : int
        How often, at most, networks are trained anew with a sixth of the decay and twice the
        learning rate; this goes on while it improves the out-of-fold likelihood. 0: never.
    patience : int
        Epochs without progress of the out-of-fold likelihood before training stops.
    folds : int
        Members of the cross-fitted ensemble.
    groups : str or array, optional
        Column, or values of the rows, that says which rows depend on each other, as those of a
        patient or a day: no network is judged in rows of a group that it has seen. Without it the
        folds are made of runs of neighbours in the table.
    crossfit : bool or "auto"
        False: one network on an 85/15 split; "auto": cross-fitted below 50,000 rows.
    jit : bool or "auto"
        Compile training with XLA; "auto": above 5,000 steps.
    callbacks : sequence
        Keras callbacks, or objects with some of their functions; `logs` has "loss", "val_loss"
        (held-out rows) and "learning_rate". The weights of the best epoch are kept in any case.
    optimizer : keras.optimizers.Optimizer, str, dict or None
        A Keras optimiser, its name (which takes `learning_rate`) or its configuration. None: Adam
        with weight decay counted in epochs, whose learning rate halves when there is no progress;
        the learning rate of the others is left to their schedules and to callbacks.
    checkpoint : str or Path, optional
        File that is written after every epoch. The same call of `fit` goes on from there, and ends
        with the same numbers as if it had not been interrupted; with `seed=None` it takes the seed
        of the file. Callbacks start anew.
    validation : float or table, optional
        What networks are judged on, in place of cross-fitting: one member of each trains on the
        other rows. A share of the rows, which the structured part still fits; or a table of other
        rows, complete and with the response, of which only the networks know.
    precision : {"float32", "mixed_float16", "mixed_bfloat16"}, optional
        In what the layers of networks compute; None: as their own policies say, for default
        networks `keras.config.dtype_policy()`. Weights, heads and likelihood are never of less
        than float32. Layers that a model of your own class makes by itself keep theirs.
    """

    epochs: int = 300
    batch_size: int | str = "auto"
    learning_rate: float = 3e-3
    decay_epochs: float = 6.0
    relaxations: int = 2
    patience: int = 20
    folds: int = 5
    groups: Any = None
    crossfit: bool | str = "auto"
    jit: bool | str = "auto"
    callbacks: Sequence[Any] = ()
    optimizer: Any = None
    checkpoint: str | Path | None = None
    precision: str | None = None
    validation: Any = None

    def __post_init__(self) -> None:
        """Refuse impossible choices."""
        for name, least in (("epochs", 1), ("patience", 1), ("folds", 2), ("relaxations", 0)):
            given = getattr(self, name)
            if not isinstance(given, int) or given < least:
                raise FitError(f"Training({name}={given!r}): needs a whole number >= {least}")
        for name in ("learning_rate", "decay_epochs"):
            given = getattr(self, name)
            if not given > 0:
                raise FitError(f"Training({name}={given!r}): needs a number > 0")
        if self.batch_size != "auto" and not (
            isinstance(self.batch_size, int) and self.batch_size > 0
        ):
            raise FitError(f"Training(batch_size={self.batch_size!r}): needs 'auto' or an int > 0")
        for name in ("crossfit", "jit"):
            if getattr(self, name) not in (True, False, "auto"):
                raise FitError(
                    f"Training({name}={getattr(self, name)!r}): needs True, False or 'auto'"
                )
        if self.precision not in (None, *PRECISIONS):
            raise FitError(
                f"Training(precision={self.precision!r}): needs None, {', '.join(PRECISIONS)}"
            )
        self._check_optimizer()
        self._check_validation()

    def described(self) -> Training:
        """Without callbacks and validation table, the optimiser by its configuration."""
        optimizer = self.optimizer
        if not (optimizer is None or isinstance(optimizer, (str, dict))):
            optimizer = keras.optimizers.serialize(optimizer)
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        groups = self.groups if isinstance(self.groups, str) else None
        share = self.validation if isinstance(self.validation, (int, float)) else None
        return replace(
            self,
            callbacks=(),
            optimizer=optimizer,
            checkpoint=checkpoint,
            validation=share,
            groups=groups,
        )

    def _check_validation(self) -> None:
        """Refuse shares that are none, and cross-fitting beside validation."""
        given = self.validation
        if given is not None and self.crossfit is True:
            raise FitError("Training(crossfit=True, validation=...): choose one of them")
        if isinstance(given, (int, float)) and not 0 < given < 1:
            raise FitError(
                f"Training(validation={given!r}): needs a share between 0 and 1, or a table"
            )

    def _check_optimizer(self) -> None:
        """Refuse choices that the optimiser makes itself."""
        if self.optimizer is None:
            return
        defaults = {each.name: each.default for each in fields(self)}
        taken = ["decay_epochs"] + ([] if isinstance(self.optimizer, str) else ["learning_rate"])
        for name in taken:
            if getattr(self, name) != defaults[name]:
                raise FitError(
                    f"Training({name}={getattr(self, name)!r}, optimizer=...): the optimiser has "
                    f"its own; {name} is for the built-in one"
                )


@dataclass(frozen=True, eq=False)
class Protected:
    """Columns that features of a network are kept orthogonal to while it trains.

    Parameters
    ----------
    X : Matrix, (n_obs, p)
    weights : Vector, (n_obs,)
        Working weights of the rows: orthogonal means X'W U = 0.
    """

    X: Matrix = field(repr=False)
    weights: Vector = field(repr=False)


@dataclass(frozen=True)
class Network:
    """One network to train: what it is, the predictors it adds to, and its inputs.

    Parameters
    ----------
    architecture : Architecture
    unit : int
        Index of the predictor of its head.
    inputs : tuple of arrays, each (n_obs, ...)
        As `Architecture.arrange` gives them.
    further : tuple of int
        Indices of the predictors of further heads on the same features.
    protected : tuple of Protected
        With orthogonalize="cell", the columns of the predictor of each head.
    """

    architecture: Architecture
    unit: int
    inputs: tuple[Array | StoredArray, ...] = field(repr=False)
    further: tuple[int, ...] = ()
    protected: tuple[Protected, ...] = ()

    @property
    def units(self) -> tuple[int, ...]:
        """Indices of the predictors of all heads."""
        return (self.unit, *self.further)


@dataclass(frozen=True)
class Folds:
    """Which rows each member trains on and which it is judged on.

    Parameters
    ----------
    train, held : tuple of Array of int
        Row numbers, one array per member; no row is held out by two members.
    """

    train: tuple[Array, ...] = field(repr=False)
    held: tuple[Array, ...] = field(repr=False)


@dataclass(frozen=True)
class Epoch:
    """One pass over the data.

    Parameters
    ----------
    round, epoch : int
        Training after a structured fit, of the networks of one predictor or of several that train
        together, and pass of it; epoch 0 is the model without these networks.
    held_out : float
        v: mean negative log-likelihood of the rows held out.
    learning_rate : float
    loss : float
        Mean loss of the batches: negative log-likelihood and the networks' own penalties.
    """

    round: int
    epoch: int
    held_out: float
    learning_rate: float
    loss: float


@dataclass(frozen=True)
class Trained:
    """Networks at their best epoch.

    Parameters
    ----------
    members : tuple of Members
        One per network.
    best_epoch : int
        Zero when no epoch was better than no network at all.
    history : tuple of Epoch
        Epoch 0 is the model without networks.
    status : Status
    interrupted : bool
        Whether the user ended it.
    """

    members: tuple[Members, ...] = field(repr=False)
    best_epoch: int
    history: tuple[Epoch, ...] = field(repr=False)
    status: Status
    interrupted: bool = False


class NetworkTrainer(Protocol):
    """Anything that trains networks on top of given predictors."""

    def __call__(
        self,
        objective: Objective,
        networks: Sequence[Network],
        *,
        eta: Matrix,
        folds: Folds,
        training: Training,
        seed: int,
        round_number: int,
        verbose: int,
    ) -> Trained:
        """Train with eta (n_obs, U) as offset; members of one fold never see its held-out rows."""


@dataclass(frozen=True)
class ScoreDifference:
    """What a deep part gains on rows its networks did not see.

    Parameters
    ----------
    value : float
        Sum over rows of log-likelihood with minus without it, natural log.
    se : float
        Standard error: sqrt(n) times the sd of the rows' differences.
    """

    value: float
    se: float

    @classmethod
    def of(cls, rowwise: Vector) -> ScoreDifference:
        """From the rows' weighted differences (n,)."""
        n, value = len(rowwise), float(rowwise.sum())
        squares = sum(float(np.sum((rowwise[rows] - value / n) ** 2)) for rows in parts(n))
        return cls(value, float(np.sqrt(n / (n - 1) * squares)) if n > 1 else np.nan)


@dataclass(frozen=True)
class SemiStructured:
    """A structured solution with its deep effects.

    Parameters
    ----------
    solution : Solution
        Of `objective`; the multipliers c are the last coefficients of each predictor.
    objective : Objective
        The original one with the networks' columns (or offsets).
    effects : tuple of DeepEffect
        One per part; its multiplier is zero where there is no effect.
    score_difference, score_se : float
        Of all deep parts together.
    scores : tuple of ScoreDifference
        Of each part, given the others.
    population : Matrix or None, (n_coef, n_coef)
        V_C, to be added to the conditional covariance for effects of the population; None without
        deep effects, and where coefficients are kept by level.
    history : tuple of Epoch
    message : str
        How the last training ended.
    """

    solution: Solution
    objective: Objective = field(repr=False)
    effects: tuple[DeepEffect, ...]
    score_difference: float
    score_se: float
    scores: tuple[ScoreDifference, ...]
    population: Matrix | None = field(repr=False)
    history: tuple[Epoch, ...] = field(repr=False)
    message: str
