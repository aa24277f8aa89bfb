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
    drift     smooths in the location, all columns linear in the log scale, a neural transformation
              of log time; its risk in C is one minus the mean of the survival curve

Printed are means over folds of Harrell's C, Uno's C (G of the test rows) and the integrated Brier
score, on 100 times between the smallest of the test rows and their 95 % quantile, G of the training
rows, as those of baselines.csv, which stand below them.

Times are processor seconds of fits and their ratio to R's of the same run: `cox` and
`coxph` with three smooths beside survival::coxph with three pspline(df=4), whose degrees of freedom
are given, and `ordinal` with a factor of five classes and three covariates beside ordinal::clm.

Measured (cores shared with other work; survival 3.5-3, ordinal 2022.11-16; at 1e5 one fit of `cox`
and of R's coxph after one of 1e4 rows):

                      n = 1e4                        n = 1e5
    coxph     0.37 s, R coxph  0.80 s, 0.47
    cox       0.61 s, R coxph  0.80 s, 0.77    6.46 s, R coxph 10.67 s, 0.61
    ordinal   0.11 s, R clm    0.03 s, 3.11    0.42 s, R clm    0.68 s, 0.62

Ours choose the smoothing parameters, R's are given them; `cox` has eleven parameters of the
baseline beside. Of the 0.1 s of `ordinal` at 1e4 rows a quarter is formula and table, the rest nine
evaluations of the likelihood.

              whas500, 5 folds        rotgbsg                 support
              C      Uno    IBS       C      Uno    IBS       C      Uno    IBS
    linear    .7751  .7698  .1645     .6563  .6566  .1232     .6036  .6075  .2050
    smooth    .7838  .7784  .1627     .6776  .6768  .1202     .6183  .6210  .2015
    cox       .7838  .7792  .1625     .6774  .6766  .1202     .6184  .6210  .2015
    deep      .7838  .7792  .1625     .6774  .6766  .1202     .6214  .6242  .1998
    drift     .7783  .7759  .1632     .6761  .6759  .1206     .6118  .6144  .2022
    coxph     .7751  .7698  .1645     .6563  .6566  .1229     .6036  .6075  .2050  baselines.csv
    pspline   .7780  .7752  .1650     .6817  .6803  .1189     .6185  .6210  .2016  baselines.csv

              gbsg2, 5 folds
    linear    .6659  .6428  .1667
    smooth    .6828  .6610  .1618
    cox       .6821  .6605  .1618
    deep      .6821  .6605  .1618
    drift     .6760  .6524  .1640
    coxph     .6659  .6428  .1667   baselines.csv
    pspline   .6929  .6711  .1603   baselines.csv

              flchain, 5 folds
    linear    .7920  .7794  .0981
    smooth    .7957  .7832  .0972
    cox       .7957  .7832  .0971
    deep      .7957  .7832  .0971
    drift     .7960  .7832  .0970
    coxph     .7904  .7785  .0983   baselines.csv
    pspline   .7953  .7823  .0970   baselines.csv

flchain has all columns but the cause of death, which leaks, in its 6,524 complete rows. In it,
whas500, rotgbsg and gbsg2 no network gained on rows it had not seen, and none stayed. METABRIC is
not among the benchmark sets.

A fit of drift to the 7,098 rows of support takes 48 s of processor time, 34 of them for its network
near the curve: its times are whole days, whose first ones the transformation follows closely. From
new weights, with no curve, one of three starts had not ended after 190 s. In support drift is
behind `smooth` and `cox`: its formula is another one, smooths of the location of log time and lines
in the log scale.

That C of `smooth` is less than that of pspline in gbsg2 and rotgbsg is the choice of the smoothing
parameters, not the basis: with four degrees of freedom for each smooth ours are those of pspline,
by thin plate and by P-splines. Restricted likelihood spends less where two hormone receptors, very
skewed, look like straight lines (edf of pgr 1 and 1.8, of er 2.2 and 1.5 in the first training set;
1 for the size). Ten basis functions in both:

    C            REML, tp   REML, ps   df=4, tp   df=4, ps   pspline
    gbsg2           .6801      .6814      .6928      .6912     .6929
    rotgbsg         .6776      .6773      .6823      .6815     .6817
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
    """A table, its folds, the columns that are no covariates, and its name in baselines.csv."""

    file: str
    known: str
    dropped: tuple[str, ...] = ()
    fold: str = "fold"


SETS = {
    "whas500": Benchmark("surv_whas500/whas500.csv", "surv_whas500", ("los",)),
    "gbsg2": Benchmark("surv_rotterdam/gbsg.csv", "surv_gbsg_686"),
    "rotgbsg": Benchmark("surv_rotgbsg/rotgbsg.csv", "surv_rotgbsg", fold="split"),
    "support": Benchmark("surv_support/support.csv.gz", "surv_support", fold="split"),
    "flchain": Benchmark("surv_flchain/flchain.csv", "surv_flchain", ("chapter",)),
}
MODELS = ("linear", "smooth", "cox", "deep", "drift")
DRIFT = dr.families.drift(base="gumbel_min", outcome="positive")
LEAST_TIME = 0.5
"""Of a row with the time 0, which the full likelihood has no place for: half a day."""


def table(folder: Path, benchmark: Benchmark) -> tuple[pd.DataFrame, pd.Series]:
    """Complete rows and the fold of each; "test" counts as fold 1."""
    data = pd.read_csv(folder / benchmark.file).drop(columns=list(benchmark.dropped)).dropna()
    fold = data[benchmark.fold].map(lambda value: {"train": 0, "test": 1}.get(value, value))
    data["time"] = data["time"].clip(lower=LEAST_TIME)
    return data.drop(columns=[c for c in ("split", "fold") if c in data]), fold


def formula(train: pd.DataFrame, model: str) -> str | dict[str, str]:
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
    first = f"Surv(time, event) ~ {' + '.join(terms)}"
    return {"loc": first, "scale": f"~ {' + '.join(names)}"} if model == "drift" else first


def one(train: pd.DataFrame, test: pd.DataFrame, model: str, seed: int) -> dict[str, float]:
    """Scores of one model on the test rows."""
    start = time.perf_counter()
    partial: str | dr.Family = "coxph" if model in ("linear", "smooth") else "cox"
    family = DRIFT if model == "drift" else partial
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dr.DeepRegressWarning)
        fitted = dr.fit(formula(train, model), train, family, seed=seed, verbose=0)
    y, d = test["time"].to_numpy(float), test["event"].to_numpy(float)
    at = np.linspace(y.min(), np.quantile(y, 0.95), 100)
    survival = fitted.predict(test, which="survival", at=at)
    if model == "drift":
        risk = -np.asarray(survival).mean(axis=1)
    else:
        risk = fitted.predict(test, which="linear").iloc[:, 0].to_numpy()
    G = metrics.censoring_distribution(train["time"], train["event"])
    return {
        "C": metrics.concordance(y, d, risk),
        "Uno": metrics.uno_concordance(y, d, risk),
        "IBS": metrics.integrated_brier(y, d, survival, at, censoring=G),
        "seconds": time.perf_counter() - start,
    }


def known(folder: Path, benchmark: Benchmark) -> None:
    """Print what baselines.csv says of the same split."""
    rows = pd.read_csv(folder / "baselines.csv")
    split = {"fold": "fold5"}.get(benchmark.fold, benchmark.fold)
    own = rows[(rows.dataset == benchmark.known) & (rows.split == split)]
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
        known(folder, benchmark)


# -- times -----------------------------------------------------------------------------------------

R = """
library(survival); suppressMessages(library(ordinal))
d <- read.csv("data.csv"); d$rating <- ordered(d$rating); d$g <- factor(d$g)
timed <- function(code) { code(); min(replicate(3, sum(system.time(code())[1:2]))) }
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
    """Least processor seconds after one call that is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
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
