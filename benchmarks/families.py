"""Milliseconds per structured fit of every family, next to mgcv where it has the family.

    python benchmarks/families.py [NAME ...] [--rows 10000] [--no-r]

Each parameter of the family has two P-splines, `~ s(x1) + s(x2)` (k = 10). Responses are drawn from
the family at smooth predictors. Printed are the first fit of the process (it compiles the family's
kernels), the median of three later ones, and mgcv's `gam(method = "REML")`: with the same formulas
where mgcv models every parameter, else (marked "mean only") for the first parameter alone, which
is less work than ours. One BLAS thread in both.

Measured on 2026-11-21: milliseconds of CPU time, which other work on the machine lengthens less
than wall time (two cores under a load of 3 to 6). U formulas; "mean only" compares all of our
predictors with mgcv's of the mean.

    family                   U  first  later   mgcv  ratio
    normal                   2   1185    158   3275   20.7
    gamma                    2   2853    156   2783   17.8
    gumbel                   2    812     72   2743   38.1
    gev                      3   3530    214  11425   53.4
    shash                    4   5263    690  28355   41.1
    tweedie                  3  19568   1063   4118    3.9
    zip                      2   1550    119   1913   16.1
    poisson                  1    465     43    474   10.9
    bernoulli                1   1214     74    258    3.5
    negative_binomial        2  10226    261    262    1.0  mean only
    beta                     2   5577    127    896    7.0  mean only
    student_t                3   5057    209    340    1.6  mean only
    inverse_gaussian         2   1302    102    469    4.6  mean only
    binomial                 1   1995    129   1216    9.4
    ordinal                  1   5787    158    846    5.3
    categorical              1   1767    424   4895   11.5
    mvn                      3   8140   4116   1325     .3  mean only
    betabinomial             2  10947    179
    cauchy                   2   1395    103
    dirichlet                1   4191    401
    exponential              1    491     56
    gumbel_min               2   1126    108
    hurdle_negative_binomial 3  17280    753
    laplace                  2   1514    142
    logistic                 2   1160     98
    loglogistic              2   1163    121
    lognormal                2   1355    119
    mixture                  3  10135   6403
    multinomial              1    276    268
    pareto                   1    853     31
    von_mises                2   5716    176
    weibull                  2   1091     96

Measured a day later, when samples and short data were no longer compiled by XLA (the first fits of
the other rows, measured before, are shorter since: normal 1166, gamma 1789, gev 3188):

    family                   U  first  later
    bccg                     3   6523    353
    generalized_poisson      2   1381    136
    geometric                1    905     58
    gpd                      2   2352    139
    inverse_gamma            2   2271    140
    negbin1                  2   6169    300
    one_inflated_beta        3   7648    286
    zero_inflated_beta       3   5412    299
    zero_one_inflated_beta   4   8450    523
    zinb                     3  12602    706
    skewnormal               3   5100    477

The skewness of skewnormal varies around 2 here. Around 0, where its information is singular, V has
no maximum: the fit ends after 7 s with a warning that says so.
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
    ("skewnormal", "skewness"): (2.0, 0.4),
}

# ours -> mgcv's family, and the left-hand sides of its formulas
MGCV = {
    "normal": ("gaulss(b = 0)", ("y", "")),
    "gamma": ("gammals()", ("y", "")),
    "gumbel": ("gumbls()", ("y", "")),
    "gev": ("gevlss()", ("y", "", "")),
    "shash": ("shash()", ("y", "", "", "")),
    "tweedie": ("twlss()", ("y", "", "")),
    "zip": ("ziplss()", ("y", "")),
    "poisson": ("poisson()", ("y",)),
    "bernoulli": ("binomial()", ("y",)),
    "binomial": ("binomial()", ("cbind(y, trials - y)",)),
    "ordinal": ("ocat(R = 3)", ("y + 1",)),
    "categorical": ("multinom(K = 2)", ("y", "")),
    "mvn": ("mvn(d = 2)", ("y0", "y1")),
    "negative_binomial": ("nb()", ("y",)),
    "beta": ("betar()", ("y",)),
    "student_t": ("scat()", ("y",)),
    "inverse_gaussian": ("inverse.gaussian(link = log)", ("y",)),
}
MEAN_ONLY = ("mvn", "negative_binomial", "beta", "student_t", "inverse_gaussian")
"""mgcv has no formulas for their other parameters."""

TRIALS = ("binomial", "betabinomial")
CLASSES = ("categorical", "multinomial", "ordinal")
VECTORS = ("mvn", "dirichlet")
WITHOUT = ("pareto", "ordinal")
"""Families with a second parameter that takes no covariates."""
NOT_HERE = ("boxcox", "colr", "cotram", "cox", "coxph", "lehmann", "lm", "survreg")
"""Transformation and hazard models: their response is modelled as a whole, not by parameters."""

R_SCRIPT = r"""
suppressMessages(library(mgcv))
a <- commandArgs(TRUE); d <- read.csv(a[1])
family <- eval(parse(text = a[2]))
two <- "s(x1, bs='ps') + s(x2, bs='ps')"
f <- lapply(strsplit(a[3], "|", fixed = TRUE)[[1]], function(y) as.formula(paste(y, "~", two)))
if (length(f) == 1) f <- f[[1]]
t <- system.time(b <- gam(f, family = family, data = d, method = "REML"))
cat(sprintf("%.17g %.17g\n", t[["user.self"]] + t[["sys.self"]], sum(b$edf)))
"""


def simulate(name: str, n: int, seed: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """Covariates and a response drawn at smooth predictors, and a formula for each parameter."""
    rng = np.random.default_rng(seed)
    x1, x2 = rng.uniform(size=(2, n))
    data = pd.DataFrame({"x1": x1, "x2": x2})
    wave = np.sin(2 * np.pi * x1)
    family = family_of(name)
    left, groups = "y", family.groups[: 1 if name in WITHOUT else None]
    if name in TRIALS:
        left, data["trials"] = "y / trials", 10.0
        data["y"] = rng.binomial(10, rng.beta(4 + 2 * wave, 4 - 2 * wave))
    elif name in CLASSES:
        data["y"] = np.clip(np.floor(1.5 + wave + rng.logistic(size=n)), 0, 2)
    elif name in VECTORS:
        mean = np.stack([wave, (x2 - 0.5) ** 2], axis=1)
        drawn = rng.normal(mean) if name == "mvn" else rng.gamma(np.exp(1.0 + 0.4 * mean))
        if name == "dirichlet":
            drawn /= drawn.sum(axis=1, keepdims=True)
        left, data["y0"], data["y1"] = "cbind(y0, y1)", *drawn.T
    else:
        eta = np.empty((n, family.n_units))
        for u, parameter in enumerate(family.parameter_names):
            centre, size = CENTRES.get((name, parameter), (0.0, 0.4))
            eta[:, u] = centre + size * (np.sin(2 * np.pi * x1 + u) + 2 * (x2 - 0.5) ** 2)
        if name == "mixture":
            eta[:, 1] += 2.5
        data["y"] = np.asarray(family.sample(eta, 1, seed=seed + 1))[0]
    return data, {p: f"{left} ~ {SMOOTHS}" if p == groups[0] else f"~ {SMOOTHS}" for p in groups}


def ours(name: str, data: pd.DataFrame, formula: dict[str, str]) -> tuple[float, float, float, str]:
    """First and later seconds, total edf, and what was warned of."""
    seconds, said = [], ""
    for _ in range(4):
        start = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = dr.fit(formula, data, name, verbose=0)
        seconds.append(time.process_time() - start)
        said = "; ".join(sorted({str(w.message)[:60] for w in caught}))
    return seconds[0], statistics.median(seconds[1:]), fitted.edf_total, said


def mgcv(name: str, data: pd.DataFrame) -> tuple[float, float] | None:
    """mgcv's seconds and total edf."""
    with tempfile.TemporaryDirectory() as folder:
        table, script = Path(folder, "data.csv"), Path(folder, "fit.R")
        data.to_csv(table, index=False)
        script.write_text(R_SCRIPT)
        family, left = MGCV[name]
        # strsplit() drops an empty end
        sides = "|".join(side or " " for side in left)
        command = ["Rscript", str(script), str(table), family, sides]
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
    names = asked.names or [name for name in dr.families().index if name not in NOT_HERE]
    with_r = not asked.no_r and shutil.which("Rscript") is not None
    print("| family | predictors | first fit ms | later fits ms | mgcv ms | mgcv / ours | notes |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        data, formula = simulate(name, asked.rows, seed=1)
        try:
            first, later, edf, said = ours(name, data, formula)
        except dr.errors.DeepRegressError as error:
            print(f"| {name} | {len(formula)} | | | | | {error} |", flush=True)
            continue
        reference = mgcv(name, data) if with_r and name in MGCV else None
        cells = [name, str(len(formula)), f"{1e3 * first:.0f}", f"{1e3 * later:.0f}"]
        notes = [f"edf {edf:.1f}", said] if said else [f"edf {edf:.1f}"]
        if reference is None:
            cells += ["", ""]
        else:
            cells += [f"{1e3 * reference[0]:.0f}", f"{reference[0] / later:.1f}"]
            notes.append(f"mgcv's edf {reference[1]:.1f}")
            if name in MEAN_ONLY:
                notes.append("mgcv: mean only")
        print("| " + " | ".join([*cells, "; ".join(notes)]) + " |", flush=True)


if __name__ == "__main__":
    main()
