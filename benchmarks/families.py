"""Milliseconds per structured fit of every family, next to mgcv where it has the family.

    python benchmarks/families.py [NAME ...] [--rows 10000] [--no-r]

Each parameter of the family has two P-splines, `~ s(x1) + s(x2)` (k = 10). Responses are drawn from
the family at smooth predictors. Printed are the first fit of the process (it compiles the family's
kernels), the median of three later ones, and mgcv's `gam(method = "REML")`: with the same formulas
where mgcv models every parameter, else (marked "mean only") for the first parameter alone, which
is less work than ours. One BLAS thread in both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

import deepregress as dr
from deepregress.families import family as family_of

SMOOTHS = "s(x1, bs='ps') + s(x2, bs='ps')"

# centre of each parameter's predictor, and the size of its smooth effects; others are (0, 0.4)
CENTRES = {
    ("poisson", "mean"): (1.0, 0.4),
    ("negative_binomial", "mean"): (1.5, 0.4),
    ("negative_binomial", "dispersion"): (-0.5, 0.3),
    ("student_t", "df"): (1.6, 0.2),
    ("beta", "precision"): (2.0, 0.3),
    ("gamma", "dispersion"): (-1.0, 0.3),
    ("inverse_gaussian", "dispersion"): (-1.0, 0.3),
    ("tweedie", "dispersion"): (-0.5, 0.2),
    ("gev", "scale"): (0.0, 0.3),
    ("gev", "shape"): (0.05, 0.05),
    ("gev", "concentration"): (0.05, 0.05),
    ("gpd", "shape"): (0.1, 0.05),
    ("gpd", "concentration"): (0.1, 0.05),
    ("shash", "skewness"): (0.1, 0.1),
    ("shash", "tail"): (0.0, 0.1),
    ("zip", "mean"): (1.2, 0.3),
    ("zinb", "mean"): (1.5, 0.3),
    ("zip", "inflation"): (-0.7, 0.4),
    ("zinb", "inflation"): (-0.7, 0.4),
    ("inverse_gamma", "concentration"): (1.0, 0.2),
    ("pareto", "concentration"): (1.0, 0.2),
    ("von_mises", "concentration"): (0.7, 0.3),
}

# ours -> mgcv's family, and whether it has a formula for each of our parameters
MGCV = {
    "normal": ("gaulss(b = 0)", 2),
    "gamma": ("gammals()", 2),
    "gumbel": ("gumbls()", 2),
    "gev": ("gevlss()", 3),
    "shash": ("shash()", 4),
    "tweedie": ("twlss()", 3),
    "poisson": ("poisson()", 1),
    "bernoulli": ("binomial()", 1),
    "negative_binomial": ("nb()", 1),
    "beta": ("betar()", 1),
    "student_t": ("scat()", 1),
    "inverse_gaussian": ("inverse.gaussian(link = log)", 1),
    "zip": ("ziplss()", 2),
}

R_SCRIPT = r"""
suppressMessages(library(mgcv))
a <- commandArgs(TRUE); d <- read.csv(a[1]); m <- as.integer(a[3])
family <- eval(parse(text = a[2]))
two <- "s(x1, bs='ps') + s(x2, bs='ps')"
f <- c(list(as.formula(paste("y ~", two))), rep(list(as.formula(paste("~", two))), m - 1))
if (m == 1) f <- f[[1]] else if (grepl("twlss", a[2])) f <- f[c(1, 2, 3)]
t <- system.time(b <- gam(f, family = family, data = d, method = "REML"))[["elapsed"]]
cat(sprintf("%.17g %.17g\n", t, sum(b$edf)))
"""


def simulate(name: str, n: int, seed: int) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Covariates and a response drawn from the family at smooth predictors."""
    rng = np.random.default_rng(seed)
    x1, x2 = rng.uniform(size=(2, n))
    family = family_of(name)
    names = family.parameter_names
    eta = np.empty((n, len(names)))
    for u, parameter in enumerate(names):
        centre, size = CENTRES.get((name, parameter), (0.0, 0.4))
        eta[:, u] = centre + size * (np.sin(2 * np.pi * x1 + u) + 2 * (x2 - 0.5) ** 2)
    y = np.asarray(family.sample(eta, 1, seed=seed))[0]
    return pd.DataFrame({"y": y, "x1": x1, "x2": x2}), names


def ours(name: str, data: pd.DataFrame, names: tuple[str, ...]) -> tuple[float, float, float, str]:
    """First and later seconds, total edf, and what was warned of."""
    formula = {p: ("y ~ " if u == 0 else "~ ") + SMOOTHS for u, p in enumerate(names)}
    seconds, said = [], ""
    for _ in range(4):
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = dr.fit(formula, data, name, verbose=0)
        seconds.append(time.perf_counter() - start)
        said = "; ".join(sorted({str(w.message)[:60] for w in caught}))
    return seconds[0], statistics.median(seconds[1:]), fitted.edf_total, said


def mgcv(name: str, data: pd.DataFrame, n_parameters: int) -> tuple[float, float] | None:
    """mgcv's seconds and total edf."""
    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder, "data.csv"), Path(folder, "fit.R")
        data.to_csv(table, index=False)
        script.write_text(R_SCRIPT)
        command = ["Rscript", str(script), str(table), MGCV[name][0], str(MGCV[name][1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        return None
    seconds, edf = map(float, done.stdout.split())
    return seconds, edf


def main() -> None:
    """Time every family asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--no-r", action="store_true")
    asked = parser.parse_args()
    names = asked.names or list(dr.families().index)
    with_r = not asked.no_r and shutil.which("Rscript") is not None
    print("| family | predictors | first fit ms | later fits ms | mgcv ms | mgcv / ours | notes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        data, parameters = simulate(name, asked.rows, seed=1)
        first, later, edf, said = ours(name, data, parameters)
        reference = mgcv(name, data, len(parameters)) if with_r and name in MGCV else None
        cells = [name, str(len(parameters)), f"{1e3 * first:.0f}", f"{1e3 * later:.0f}"]
        notes = [f"edf {edf:.1f}", said] if said else [f"edf {edf:.1f}"]
        if reference is None:
            cells += ["", ""]
        else:
            cells += [f"{1e3 * reference[0]:.0f}", f"{reference[0] / later:.1f}"]
            notes.append(f"mgcv's edf {reference[1]:.1f}")
            if MGCV[name][1] < len(parameters):
                notes.append("mgcv: mean only")
        print("| " + " | ".join([*cells, "; ".join(notes)]) + " |", flush=True)


if __name__ == "__main__":
    main()
