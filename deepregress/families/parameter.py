"""Parameters of a response distribution: what they are called, and their values at predictors.

theta = h(eta), and log theta and logit theta without the cancellation of first computing theta.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepregress.bijectors import Link, Tensor


@dataclass(frozen=True)
class Parameter:
    """One parameter of a response distribution.

    Parameters
    ----------
    name : str
        As a user writes it in a formula.
    link : Link
    about : str
        What it is, in words.
    units : int
        Number of predictors it takes.
    intercept : bool
        Whether its formula has an intercept; not where another parameter holds the constant.
    """

    name: str
    link: Link
    about: str
    units: int = 1
    intercept: bool = True


@dataclass(frozen=True)
class Value:
    """A parameter at given predictors: its value and, without cancellation, its log and logit."""

    eta: Tensor
    link: Link

    @property
    def value(self) -> Tensor:
        """theta = h(eta)."""
        return self.link.inverse(self.eta)

    @property
    def log(self) -> Tensor:
        """log theta."""
        return self.link.log_inverse(self.eta)

    @property
    def logit(self) -> Tensor:
        """log theta - log(1 - theta)."""
        return self.link.logit_inverse(self.eta)

    @property
    def complement(self) -> Tensor:
        """log(1 - theta^2)."""
        return self.link.complement_inverse(self.eta)
