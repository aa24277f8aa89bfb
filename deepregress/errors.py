"""
Errors and warnings of the package: what a user can catch.

Every mistake a user can make is answered by a subclass of `DeepRegressError`, which says what is
wrong, what came and what is allowed, with the user's own label (`s(age, k=3): ...`). A condition
that lets the fit go on but changes what it means is a `DeepRegressWarning`, raised once.

`suggestion` and `caret` make the two recurring parts of such messages: the closest known name, and
the formula with a caret under the place.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable
from pathlib import Path


class DeepRegressError(ValueError):
    """A user error: the message says what is wrong, what came and what is allowed."""


class FormulaError(DeepRegressError):
    """The formula cannot be read, or a term in it cannot be built."""


class UnknownVariable(FormulaError):
    """A formula names a variable that is not a column of the data."""


class DataError(DeepRegressError):
    """The table cannot be used: missing or infinite values, constant columns, wrong lengths."""


class ResponseError(DataError):
    """The response is missing, misshapen, or outside the support of the family."""


class FamilyError(DeepRegressError):
    """Unknown family or link, or a parameter the family does not have."""


class NetworkError(DeepRegressError):
    """A network is missing, unused, or does not fit its inputs."""


class FitError(DeepRegressError):
    """The objective has no usable optimum: it is not finite, or the model is not identified."""


class PredictionError(DeepRegressError):
    """New data do not fit the model: missing columns or values, new levels, wrong shapes."""


class DeepRegressWarning(UserWarning):
    """Base of all warnings of this package."""


class ConvergenceWarning(DeepRegressWarning):
    """A solver stopped before its criterion was met."""


class DroppedRowsWarning(DeepRegressWarning):
    """Rows with missing values were dropped; the message counts them and names the columns."""


class ExtrapolationWarning(DeepRegressWarning):
    """A prediction lies outside the range of the training data."""


class NetworkWarning(DeepRegressWarning):
    """A network was trained or used in a way that deserves a look."""


def warn(warning: DeepRegressWarning) -> None:
    """Warn of a condition at the line of the user's that led to it, the first outside the package.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn(ConvergenceWarning("stopped early"))
    >>> caught[0].category.__name__
    'ConvergenceWarning'
    """
    package = str(Path(__file__).parent)
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'age'?" for the known name closest to `name`, or "".

    Examples
    --------
    >>> suggestion("agee", ["age", "height"])
    "; did you mean 'age'?"
    """
    candidates = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(candidates), n=1)
    return f"; did you mean {candidates[close[0]]!r}?" if close else ""


def listing(names: Iterable[str], *, limit: int = 8) -> str:
    """Return names as "a, b, c", shortened after `limit` of them.

    Examples
    --------
    >>> listing("abcd", limit=2)
    'a, b, ... (4 in all)'
    """
    known = list(names)
    if not known:
        return "none"
    shown = ", ".join(known[:limit])
    return shown if len(known) <= limit else f"{shown}, ... ({len(known)} in all)"


def caret(text: str, start: int, stop: int | None = None) -> str:
    """Return `text` on one line and carets under `text[start:stop]` on the next.

    Examples
    --------
    >>> print(caret("y ~ s(x", 4, 5))
      y ~ s(x
          ^
    """
    width = max(1, (stop if stop is not None else start + 1) - start)
    return f"  {text}\n  {' ' * start}{'^' * width}"
