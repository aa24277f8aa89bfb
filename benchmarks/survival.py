"""Survival: test scores on benchmark sets beside R's coxph, and times beside coxph and clm.

    python benchmarks/survival.py ../shared/benchdata
    python benchmarks/survival.py ../shared/benchdata --sets whas500 --folds 5
    python benchmarks/survival.py --time 10000 100000

One rule makes every formula; nothing is tuned for a set. A number of seven and more distinct values
is a smooth of ten basis functions (six where there are less than 600 rows), any other column
linear.

    linear    coxph, all columns linear
    smooth    coxph with smooths, partial likelihood
    cox       the same formula, full likelihood with a smooth baseline
    deep      the same with deep(all columns), full likelihood

Printed are means over folds of Harrell's C, Uno's C (G of the test rows) and the integrated Brier
score, on 100 times between the smallest of the test rows and their 95 % quantile, G of the training
rows, as those of baselines.csv, which stand below them.

Times are elapsed seconds of fits on one thread and their ratio to R's of the same run: `cox` and
`coxph` with three smooths beside survival::coxph with three pspline(df=4), whose degrees of freedom
are given, and `ordinal` with a factor of five classes and three covariates beside ordinal::clm.

Measured (cores shared with other work: seconds are rough; survival 3.5-3, ordinal 2022.11-16):

                      n = 1e4                        n = 1e5
    coxph     0.97 s, R coxph  1.66 s, 0.58    18.9 s, R coxph 40.4 s, 0.47
    cox       6.54 s, R coxph  1.66 s, 3.95     124 s, R coxph 40.4 s, 3.07
    ordinal   0.43 s, R clm    0.12 s, 3.61    1.76 s, R clm   0.59 s, 2.97

Ours choose the smoothing parameters, R's are given them; `cox` has eleven parameters of the
baseline beside. (Since then its basis takes no powers: 27 % less for `cox` of 1e4 rows.)

              whas500, 5 folds        rotgbsg                 support
              C      Uno    IBS       C      Uno    IBS       C      Uno    IBS
    linear    .7751  .7698  .1645     .6563  .6566  .1232     .6036  .6075  .2050
    smooth    .7838  .7784  .1627     .6776  .6768  .1202     .6183  .6210  .2015
    cox       .7838  .7792  .1625     .6774  .6766  .1202     .6184  .6210  .2015
    deep      .7838  .7792  .1625     .6774  .6766  .1202     .6214  .6242  .1998
    coxph     .7751  .7698  .1645     .6563  .6566  .1229     .6036  .6075  .2050  baselines.csv
    pspline   .7780  .7752  .1650     .6817  .6803  .1189     .6185  .6210  .2016  baselines.csv

In whas500 and rotgbsg no network gained on rows it had not seen, and none stayed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

import deepregress as dr
from deepregress import survival_metrics as metrics


@dataclass(frozen=True)
class Benchmark:
    """A table, its folds, and the columns that are no covariates."""

    file: str
    dropped: tuple[str, ...] = ()
    fold: str = "fold"


SETS = {
    "whas500": Benchmark("surv_whas500/whas500.csv", ("los",)),
    "rotgbsg": Benchmark("surv_rotgbsg/rotgbsg.csv", fold="split"),
    "support": Benchmark("surv_support/support.csv.gz", fold="split"),
    "flchain": Benchmark("surv_flchain/flchain.csv", ("chapter",)),
}
MODELS = ("linear", "smooth", "cox", "deep")
LEAST_TIME = 0.5
"""Of a row with the time 0, which the full likelihood has no place for: half a day."""


def table(folder: Path, benchmark: Benchmark) -> tuple[pd.DataFrame, pd.Series]:
    """Complete rows and the fold of each; "test" counts as fold 1."""
    data = pd.read_csv(folder / benchmark.file).drop(columns=list(benchmark.dropped)).dropna()
    fold = data[benchmark.fold].map(lambda value: {"train": 0, "test": 1}.get(value, value))
    data["time"] = data["time"].clip(lower=LEAST_TIME)
    return data.drop(columns=[c for c in ("split", "fold") if c in data]), fold


def formula(train: pd.DataFrame, model: str) -> str:
    """The formula of one model by the rule above."""
    names = [n for n in train if n not in ("time", "event") and train[n].nunique() > 1]
    terms, k = list(names), 6 if len(train) < 600 else 10
    if model != "linear":
        number = {n: pd.api.types.is_numeric_dtype(train[n]) for n in names}
        terms = [
            f"s({n}, k={min(k, train[n].nunique())})"
            if number[n] and train[n].nunique() >= 7
            else n
            for n in names
        ]
    if model == "deep":
        terms.append(f"deep({', '.join(names)})")
    return f"Surv(time, event) ~ {' + '.join(terms)}"


def one(train: pd.DataFrame, test: pd.DataFrame, model: str, seed: int) -> dict[str, float]:
    """Scores of one model on the test rows."""
    start = time.perf_counter()
    family = "coxph" if model in ("linear", "smooth") else "cox"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dr.DeepRegressWarning)
        fitted = dr.fit(formula(train, model), train, family, seed=seed, verbose=0)
    y, d = test["time"].to_numpy(float), test["event"].to_numpy(float)
    at = np.linspace(y.min(), np.quantile(y, 0.95), 100)
    risk = fitted.predict(test, which="linear").iloc[:, 0]
    survival = fitted.predict(test, which="survival", at=at)
    G = metrics.censoring_distribution(train["time"], train["event"])
    return {
        "C": metrics.concordance(y, d, risk),
        "Uno": metrics.uno_concordance(y, d, risk),
        "IBS": metrics.integrated_brier(y, d, survival, at, censoring=G),
        "seconds": time.perf_counter() - start,
    }


def known(folder: Path, name: str, fold: str) -> None:
    """Print what baselines.csv says of the same split."""
    rows = pd.read_csv(folder / "baselines.csv")
    own = rows[(rows.dataset == f"surv_{name}") & (rows.split == {"fold": "fold5"}.get(fold, fold))]
    wide = own.pivot_table(index="model", columns="metric", values="value")
    for model in ("coxph_linear", "coxph_pspline4"):
        C, uno, ibs = wide.loc[model, ["cindex", "cindex_uno", "ibs"]]
        print(f"  {model:16s} C {C:.4f}  Uno {uno:.4f}  IBS {ibs:.4f}   (baselines.csv)")


def scores(folder: Path, names: list[str], models: list[str], n_folds: int) -> None:
    """Run the sets."""
    for name in names:
        benchmark = SETS[name]
        data, fold = table(folder, benchmark)
        numbers = [1] if benchmark.fold == "split" else range(1, n_folds + 1)
        print(f"{name}: {len(data)} rows, {len(numbers)} test sets", flush=True)
        for model in models:
            rows = [one(data[fold != i], data[fold == i], model, i) for i in numbers]
            mean = pd.DataFrame(rows).mean()
            print(
                f"  {model:16s} C {mean.C:.4f}  Uno {mean.Uno:.4f}  IBS {mean.IBS:.4f}"
                f"   {mean.seconds:.1f} s",
                flush=True,
            )
        known(folder, name, benchmark.fold)


# -- times -----------------------------------------------------------------------------------------

R = """
library(survival); suppressMessages(library(ordinal))
d <- read.csv("data.csv"); d$rating <- ordered(d$rating); d$g <- factor(d$g)
timed <- function(code) { code(); min(replicate(3, system.time(code())[["elapsed"]])) }
cat(jsonlite::toJSON(list(
  coxph = timed(function() coxph(Surv(time, event) ~ pspline(x1) + pspline(x2) + pspline(x3), d)),
  clm = timed(function() clm(rating ~ x1 + x2 + x3 + g, data = d))
), auto_unbox = TRUE, digits = 8))
"""


def simulated(n: int) -> pd.DataFrame:
    """Times with three smooth effects, 30 % of them censored, and five ordered classes."""
    rng = np.random.default_rng(1)
    x1, x2, x3 = rng.uniform(size=(3, n))
    g = rng.integers(0, 4, n)
    eta = np.sin(6.0 * x1) + 2.0 * x2**2 - x3
    event, censored = rng.weibull(1.5, n) * np.exp(-eta / 1.5), 2.0 * rng.weibull(1.0, n)
    rating = np.digitize(eta + 0.3 * g + rng.logistic(size=n), [-1.0, 0.0, 1.0, 2.0])
    columns = {"x1": x1, "x2": x2, "x3": x3, "g": [f"g{k}" for k in g], "rating": rating}
    return pd.DataFrame(
        {"time": np.minimum(event, censored), "event": 1 * (event <= censored), **columns}
    )


def timed(function: Callable[[], object], repeats: int) -> float:
    """Shortest elapsed seconds after one call that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def times(n: int) -> None:
    """Fits of n rows, beside R's."""
    data = simulated(n)
    with tempfile.TemporaryDirectory() as folder:
        data.to_csv(Path(folder) / "data.csv", index=False)
        done = subprocess.run(
            ["Rscript", "-e", R], cwd=folder, capture_output=True, text=True, check=True
        )
    theirs = json.loads(done.stdout)
    smooth = "Surv(time, event) ~ s(x1) + s(x2) + s(x3)"
    rated = data.assign(rating=pd.Categorical(data["rating"], ordered=True))
    linear = "rating ~ x1 + x2 + x3 + g"
    ours = {
        ("coxph", "coxph"): lambda: dr.fit(smooth, data, "coxph"),
        ("cox", "coxph"): lambda: dr.fit(smooth, data, "cox"),
        ("ordinal", "clm"): lambda: dr.fit(linear, rated, "ordinal"),
    }
    for (law, beside), function in ours.items():
        seconds, other = timed(function, 2), theirs[beside]
        print(
            f"n = {n:>7d}  {law:8s} {seconds:8.2f} s   R {beside:6s} {other:8.2f} s   "
            f"ratio {seconds / other:6.2f}",
            flush=True,
        )


def main() -> None:
    """Read the command line and run the sets or the timings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--time", nargs="+", type=int, default=[])
    given = parser.parse_args()
    for n in given.time:
        times(n)
    if given.folder is not None:
        scores(given.folder, given.sets, given.models, given.folds)


if __name__ == "__main__":
    main()
