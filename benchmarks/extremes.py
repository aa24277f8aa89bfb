"""Extreme inputs for every family: each ends in a finite fit, in a warning or in an error of ours.

    python benchmarks/extremes.py [NAME ...] [--limit 30]
    python benchmarks/extremes.py tfd.Gumbel tfd.Weibull

Each family gets a response drawn from it and then spoilt (scales, shifts, outliers, values at the
edge of the support, constants, zeros, classes that a covariate separates, censored rows), and
designs at their limits (one row per level, two rows, weights and covariates of any size, smooths
of every parameter). A fit counts as finite if coefficients, standard errors, degrees of freedom,
log-likelihood, REML, parameters, means, medians and residuals are numbers. Outcomes:

    fit       finite, converged, nothing said     FOREIGN   an exception that is not ours
    warned    finite, with a warning of ours      NAN       something that is not a number
    refused   a DeepRegressError                  SLOW      more than --limit CPU seconds

The first three are what is promised. Each family runs in a process of its own.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import tensorflow_probability as tfp

import deepregress as dr
from deepregress.families import Family
from deepregress.families import family as registered

ROWS = 150
FINE = ("fit", "warned", "refused")
CENTRES = {
    ("student_t", "df"): 1.6,
    ("tfd.StudentT", "df"): 1.6,
    ("beta", "precision"): 2.0,
    ("gev", "shape"): 0.05,
    ("gpd", "shape"): 0.1,
    ("tweedie", "power"): 0.0,
    ("inverse_gamma", "concentration"): 1.0,
    ("pareto", "concentration"): 1.0,
}
"""Predictors of responses with moments, where 0.3 is not."""
CLASSES = ("bernoulli", "categorical", "ordinal", "multinomial")
VECTORS = ("mvn", "dirichlet")
TRIALS = ("binomial", "betabinomial")
UNBOUND = ("boxcox", "colr", "cotram", "cox", "lehmann", "lm", "survreg")
"""Transformation models, which have no distribution before they have seen a response."""
CONSTANT = (("pareto", "scale"), ("ordinal", "threshold"))
NO_MEAN = ("cauchy", "von_mises")


@dataclass(frozen=True)
class Input:
    """A response (n, d), a right-hand side, and what else `fit` is given."""

    label: str
    Y: Any
    right: str = "s(x)"
    columns: Mapping[str, Any] = field(default_factory=dict)
    left: str = ""
    every: bool = False
    weights: str | None = None


class _Slow(BaseException):
    """The time limit of one input."""


def given_family(name: str) -> Any:
    """What `fit` is given: a name, or a class of `tfd`."""
    return getattr(tfp.distributions, name[4:]) if name.startswith("tfd.") else name


def family_of(name: str) -> Family:
    """The family."""
    return registered(given_family(name))


def response(name: str, x: Any, rng: np.random.Generator) -> Any:
    """A response drawn from the family at a smooth predictor of x, (n, d)."""
    n = len(x)
    if name in CLASSES:
        return np.clip(np.floor(3 * x + rng.normal(size=n)), 0, 1 if name == "bernoulli" else 2)
    if name == "mvn":
        return np.sin(6 * x)[:, None] + rng.normal(size=(n, 2))
    if name == "dirichlet":
        return rng.dirichlet([2.0, 3.0, 1.0], size=n)
    if name in TRIALS:
        return rng.binomial(10, 1 / (1 + np.exp(-np.sin(6 * x))))
    if name in UNBOUND:
        z = 2.0 + np.sin(6 * x) + 0.5 * rng.logistic(size=n)
        return z if name == "lm" else rng.poisson(np.exp(z)) if name == "cotram" else np.exp(z)
    family = family_of(name)
    eta = np.array([[CENTRES.get((name, p), 0.3) for p in family.parameter_names]] * n)
    eta[:, 0] += 0.5 * np.sin(6 * x)
    if name == "mixture":
        eta[:, 1] += 5.0
    return np.asarray(family.sample(eta, 1, seed=2))[0].astype(float)


def spoilt(name: str, y: Any, x: Any, rng: np.random.Generator) -> Iterator[Input]:
    """Responses that are hard for the family."""
    n, half = len(x), np.arange(len(x)) % 2 == 0
    upper = (x > 0.5) * 1.0
    yield Input("constant response", np.full_like(y, y[0]))
    yield Input("few values", np.repeat(y[:5], n // 5, axis=0))
    if name in CLASSES:
        yield Input("separated by x", upper, "x")
        yield Input("separated by a smooth", upper)
        yield Input("one of its class", np.r_[1.0, np.zeros(n - 1)])
        yield Input("all but one of a class", np.r_[0.0, np.ones(n - 1)])
        return
    if family_of(name).discrete:
        most = 10.0 if name in TRIALS else 1e5
        yield Input("all zero", np.zeros(n))
        yield Input("all zero but one", np.r_[1.0, np.zeros(n - 1)])
        yield Input("all but one at 1e5 or all trials", np.r_[0.0, np.full(n - 1, most)])
        yield Input("zeros and 1e5 or all trials", most * upper)
        yield Input("zeros by level", np.where(half, 0.0, y), "g + s(x)")
        yield Input("separated by x", upper, "x")
        if name in TRIALS:
            tall = {"trials": np.full(n, 1e5)}
            yield Input("1e5 trials", np.round(1e4 * y), columns=tall)
            yield Input("one of 1e5 trials", np.ones(n), columns=tall)
            yield Input("all of 1e5 trials but one", np.full(n, 1e5 - 1.0), columns=tall)
            yield Input("single trials", upper, columns={"trials": np.ones(n)})
        else:
            yield Input("about 1e5", np.round(1e5 * (1 + 0.1 * rng.normal(size=n)) ** 2))
            yield Input("one outlier of 1e5", np.r_[1e5, y[1:]])
            yield Input("a count of 1e9", np.r_[1e9, y[1:]])
        return
    if np.all((y >= 0) & (y <= 1)):
        yield Input("next to 1", 1.0 - 1e-9 * y if y.ndim == 1 else _closed(1e-9 * y[:, 1:]))
        yield Input("next to 0", 1e-9 * y if y.ndim == 1 else _closed(y[:, 1:])[:, ::-1])
        yield Input("smallest and largest floats", np.where(upper > 0, 1e-300, 1.0 - 1e-16))
        if name not in VECTORS:
            yield Input("zeros and ones", upper)
            yield Input("all one", np.ones(n))
            yield Input("all zero", np.zeros(n))
        return
    for size in (1e6, 1e-6, 1e12, 1e-12, 1e150, 1e-150):
        yield Input(f"times {size:g}", size * y)
    outlier = y.copy()
    outlier[0] = 1e4 * np.abs(y).max()
    yield Input("one gross outlier", outlier)
    outlier[0] = 1e12 * np.abs(y).max()
    yield Input("an outlier of 1e12", outlier)
    yield Input("plus 1e6", y + 1e6)
    yield Input("two values", np.quantile(y, np.where(rng.uniform(size=y.shape) > 0.5, 0.3, 0.7)))
    yield Input("nearly constant", np.abs(y[0]) * (1.0 + 1e-12 * rng.normal(size=y.shape)))
    if name in VECTORS:
        yield Input("twice the same", np.column_stack([y[:, 0], y[:, 0]]))
        return
    yield Input("exact function of x", 2.0 + x, "x")
    least = y.copy()
    least[0] = 0.0 if name in ("tweedie", "gpd") else np.sign(y.min()) * 1e-300 or 1e-300
    yield Input("one value at the edge", least)
    if name in ("tweedie", "gpd"):
        yield Input("all zero", np.zeros(n))
        yield Input("all zero but one", np.r_[1.0, np.zeros(n - 1)])


def _closed(shares: Any) -> Any:
    """Shares (n, d - 1), and what is left of one, (n, d)."""
    return np.column_stack([shares, 1.0 - shares.sum(axis=1)])


def designs(name: str, y: Any, x: Any, rng: np.random.Generator) -> Iterator[Input]:
    """Designs that are hard with a response of the family."""
    n = len(x)
    yield Input("plain", y)
    yield Input("smooths of every parameter", y, every=True)
    yield Input("one row per level", y, "id")
    yield Input("one row per level at random", y, "(1 | id)")
    yield Input("two rows", y[:2], "1", {"x": x[:2]})
    yield Input("two rows and a slope", y[:2], "x", {"x": x[:2]})
    yield Input("one row", y[:1], "1", {"x": x[:1]})
    yield Input("12 rows, 10 columns", y[:12], "s(x, k=10)", {"x": x[:12]})
    for size in (1e8, 1e-8):
        yield Input(f"covariates times {size:g}", y, "s(x) + z", {"x": size * x, "z": size * x**2})
        yield Input(f"weights {size:g}", y, "x", {"w": np.full(n, size)}, weights="w")
    yield Input("covariate plus 1e8", y, "x + s(z)", {"x": 1e8 + x})
    yield Input("one weight of 1e6", y, "x", {"w": np.r_[1e6, np.ones(n - 1)]}, weights="w")
    yield Input("weights 1e-6 to 1e6", y, "x", {"w": 10.0 ** rng.uniform(-6, 6, n)}, weights="w")
    outlier = {"z": np.r_[1e6, rng.normal(size=n - 1)]}
    yield Input("covariate with an outlier", y, "s(z)", outlier)
    if name in (*CLASSES, *VECTORS, *TRIALS):
        return
    middle, half = float(np.median(y)), np.arange(n) % 2 == 0
    at = {"low": np.where(half, middle, y), "high": np.where(half, np.inf, y)}
    yield Input("censored: half right at the median", y, columns=at, left="interval(low, high)")
    yield Input("censored: all right", y, columns={"high": y + np.inf}, left="interval(y, high)")
    at = {"low": np.where(half, -np.inf, y), "high": np.where(half, middle, y)}
    yield Input("censored: half left at the median", y, columns=at, left="interval(low, high)")
    at = {"low": np.floor(y), "high": np.floor(y) + 1.0}
    yield Input("censored: all intervals", y, columns=at, left="interval(low, high)")


def run(name: str, given: Input) -> tuple[str, str]:
    """Outcome of one input, and what was said."""
    Y = np.asarray(given.Y, dtype=float)
    n, rng = len(Y), np.random.default_rng(1)
    columns: dict[str, Any] = {"x": rng.uniform(size=n), "z": rng.normal(size=n)}
    columns |= {"g": np.where(np.arange(n) % 2, "a", "b"), "id": [f"l{i}" for i in range(n)]}
    columns |= {"trials": np.full(n, 10.0), **given.columns}
    if Y.ndim == 1:
        columns["y"] = Y
        left = given.left or ("y / trials" if name in TRIALS else "y")
    else:
        columns |= {f"y{k}": Y[:, k] for k in range(Y.shape[1])}
        left = f"cbind({', '.join(f'y{k}' for k in range(Y.shape[1]))})"
    formula: Any = f"{left} ~ {given.right}"
    if given.every:
        groups = family_of(name).groups
        formula = {p: (f"{left} ~ s(x)" if p == groups[0] else "~ s(x)") for p in groups}
        formula = {p: text for p, text in formula.items() if (name, p) not in CONSTANT}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            family, table = given_family(name), pd.DataFrame(columns)
            model = dr.fit(formula, table, family, weights=given.weights, verbose=0)
            lacking = ", ".join(not_numbers(name, model))
        except dr.errors.DeepRegressError as error:
            return "refused", str(error)
        except _Slow:
            return "SLOW", ""
        except Exception as error:  # noqa: BLE001  # what is looked for
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = "" if trace is None else trace.tb_frame.f_code.co_name
            return "FOREIGN", f"{type(error).__name__} in {where}: {error}"
    foreign = [w for w in caught if not issubclass(w.category, dr.errors.DeepRegressWarning)]
    if lacking:
        return "NAN", f"{lacking} ({model.solution.status.message})"
    if foreign:
        return "FOREIGN", f"{foreign[0].category.__name__}: {foreign[0].message}"
    said = "; ".join(sorted({str(w.message) for w in caught}))
    return ("warned" if said or not model.converged else "fit"), said


def not_numbers(name: str, model: Any) -> Iterator[str]:
    """Names of the results that are not numbers."""
    finite = {
        "coef": model.coef,
        "std_error": model.std_error,
        "edf": model.edf,
        "loglik": model.loglik,
        "reml": model.reml,
        "params": model.predict(which="params"),
    }
    for label, value in finite.items():
        if not np.isfinite(np.asarray(value, dtype=float)).all():
            yield label
    others = {"linear with se": model.predict(which="linear", se=True)}
    if name not in NO_MEAN:
        others["mean"] = model.predict()
    if not model.family.multivariate:
        others["median"] = model.predict(which="quantile", at=0.5)
        others["99 %"] = model.predict(which="quantile", at=0.99)
        others["residuals"] = model.residuals()
    elif name not in ("categorical", "multinomial", "mixture"):
        others["residuals"] = model.residuals()
    for label, value in others.items():
        if np.isnan(np.asarray(value, dtype=float)).any():
            yield label
    str(model.summary())


def interrupted(number: int, frame: FrameType | None) -> None:
    """Handler of the alarm."""
    raise _Slow


def trial(name: str, limit: float, wanted: str) -> None:
    """All inputs of one family, a line each."""
    rng = np.random.default_rng(0)
    x = np.random.default_rng(1).uniform(size=ROWS)
    y = response(name, x, rng)
    signal.signal(signal.SIGPROF, interrupted)
    for given in (*designs(name, y, x, rng), *spoilt(name, y, x, rng)):
        if re.search(wanted, given.label) is None:
            continue
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            with np.errstate(all="ignore"):
                outcome, said = run(name, given)
        except _Slow:
            outcome, said = "SLOW", ""
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        seconds = time.process_time() - start
        cells = [name, given.label, outcome, f"{seconds:.1f}", said.replace("|", "/")[:150]]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Try every family asked for and count the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=30.0, help="CPU seconds for one input")
    parser.add_argument("--input", default="", help="pattern of the inputs' labels")
    parser.add_argument("--here", action="store_true", help="one family, in this process")
    asked = parser.parse_args()
    if asked.here:
        trial(asked.names[0], asked.limit, asked.input)
        return
    counts: collections.Counter[str] = collections.Counter()
    print("| family | input | outcome | seconds | said |\n| --- | --- | --- | --- | --- |")
    for name in asked.names or list(dr.families().index):
        command = [sys.executable, __file__, name, "--here", "--limit", str(asked.limit)]
        command += ["--input", asked.input]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                counts[line.split(" | ")[2]] += 1
        if process.returncode:
            counts["process died"] += 1
            print(f"| {name} | process died: {process.returncode} | | | |")
    print(f"\n{sum(counts.values())} inputs:", dict(counts))
    print("as promised" if set(counts) <= set(FINE) else "NOT as promised")


if __name__ == "__main__":
    main()
