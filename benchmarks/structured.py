"""Fit times of structured models against mgcv, in the same run on the same data.

    python benchmarks/structured.py --rows 1000 10000 --model prototype
    python benchmarks/structured.py --rows 100000 1000000 --model timing --repeats 1

Each engine runs in a process of its own, with one BLAS thread, and reports the seconds of the
first fit of the process, the median of later ones, CPU seconds, log-likelihood, total edf and peak
memory. Ratios are against the later fits of `deepregress` on the same number of rows. The engines
are mgcv when Rscript and mgcv are there (`gam` with gaulss, REML and optimizer="efs"; `bam` for
the constant-scale model), else pyGAM, else statsmodels, both for the constant-scale model only.

The data come from the MINSTD generator s <- 16807 s mod (2^31 - 1) (Park and Miller 1988), so that
R and Python see the same numbers at any size without a file: its first n draws are x1, then x2, x3,
x4 and the uniforms of the noise. Model `prototype` has three smooths and a linear term on the
location and a smooth on the scale, the truth being functions of Gu and Wahba; `timing` is the same
with larger bases, `study` the simulation of the semi-structured study without its network.
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

MULTIPLIER, MODULUS, SEED = 16807, 2**31 - 1, 20240229
ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),  # this checkout, installed or not
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclass(frozen=True)
class Model:
    """Formulas in the syntax that mgcv and deepregress share, and the truth behind the data."""

    loc: str
    scale: str
    truth: Callable[..., tuple[np.ndarray, np.ndarray]]


def prototype_truth(x1, x2, x3, x4):
    """Mean and log standard deviation of the semi-structured study, structured part."""
    return np.sin(6 * x1) + 2 * x2**2 - x3, -1 + 0.8 * x4


def timing_truth(x1, x2, x3, x4):
    """Mean and log standard deviation on the functions of Gu and Wahba (1991)."""
    bumps = 0.2 * x3**11 * (10 * (1 - x3)) ** 6 + 10 * (10 * x3) ** 3 * (1 - x3) ** 10
    mean = 2 * np.sin(np.pi * x1) + np.exp(2 * x2) + bumps
    return mean, 0.3 + 0.5 * np.sin(2 * np.pi * x1) + 0.8 * (x2 - 0.5)


MODELS = {
    "prototype": Model(
        'y ~ s(x1, k=10, bs="ps") + s(x2, k=10, bs="ps") + s(x3, k=10, bs="ps") + x4',
        '~ s(x1, k=10, bs="ps")',
        timing_truth,
    ),
    "study": Model(
        'y ~ x3 + s(x1, k=10, bs="ps") + s(x2, k=10, bs="ps")',
        '~ s(x4, k=10, bs="ps")',
        prototype_truth,
    ),
    "timing": Model(
        'y ~ s(x1, k=20, bs="ps") + s(x2, k=20, bs="ps") + s(x3, k=20, bs="ps") + x4',
        '~ s(x1, k=10, bs="ps")',
        timing_truth,
    ),
}

# engine -> (has a formula for the scale, rows it can take in reasonable time and memory)
ENGINES = {
    "deepregress": (True, 10**7),
    "mgcv gaulss REML": (True, 10**5),
    "mgcv gaulss efs": (True, 10**5),
    "deepregress, constant scale": (False, 10**7),
    "mgcv bam gaussian": (False, 10**6),
    "mgcv bam gaussian discrete": (False, 10**7),
    "pygam gaussian": (False, 10**5),
    "statsmodels gaussian": (False, 10**4),
}


def minstd(seed: int, n: int) -> np.ndarray:
    """First n uniforms of MINSTD, by doubling: s[m:2m] = 16807^m s[:m] mod 2^31 - 1."""
    state = np.empty(n, dtype=np.int64)
    state[0] = MULTIPLIER * seed % MODULUS
    done = 1
    while done < n:
        more = min(done, n - done)
        state[done : done + more] = state[:more] * pow(MULTIPLIER, done, MODULUS) % MODULUS
        done += more
    return state / MODULUS


def simulate(model: str, n: int) -> dict[str, np.ndarray]:
    """Draw the data of a model."""
    *x, noise = minstd(SEED, 5 * n).reshape(5, n)
    mean, log_sd = MODELS[model].truth(*x)
    y = mean + np.exp(log_sd) * ndtri(noise)
    return {"y": y, "x1": x[0], "x2": x[1], "x3": x[2], "x4": x[3]}


@dataclass
class Timing:
    """What one engine did on one data set; seconds, MiB, sum scale."""

    engine: str
    rows: int
    first: float
    later: float
    cpu: float
    loglik: float
    edf: float
    peak: float = float("nan")
    note: str = ""


def timed(fit: Callable[[], Any], repeats: int) -> tuple[Any, float, float, float]:
    """First and median later seconds of a fit, and the CPU seconds of the last one."""
    elapsed, cpu, result = [], 0.0, None
    for _ in range(1 + repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        result = fit()
        elapsed.append(time.perf_counter() - start)
        cpu = time.process_time() - start_cpu
    later = statistics.median(elapsed[1:] or elapsed)
    return result, elapsed[0], later, cpu


def run_deepregress(engine: str, model: str, n: int, repeats: int) -> Timing:
    """Fit with this package; imports are timed apart."""
    start = time.perf_counter()
    import deepregress as dr

    light = time.perf_counter() - start
    import keras  # noqa: F401
    import tensorflow_probability  # noqa: F401

    heavy = time.perf_counter() - start - light
    dr.fit  # noqa: B018  (the attribute loads the rest of the package)
    rest = time.perf_counter() - start - light - heavy
    chosen, data = MODELS[model], simulate(model, n)
    scale = chosen.scale if ENGINES[engine][0] else "~ 1"
    formula = {"loc": chosen.loc, "scale": scale}
    fitted, first, later, cpu = timed(
        lambda: dr.fit(formula, data, family="normal", verbose=0), repeats
    )
    note = f"imports: deepregress {light:.2f} s, TensorFlow {heavy:.2f} s, all else {rest:.2f} s"
    return Timing(engine, n, first, later, cpu, fitted.loglik, fitted.edf_total, note=note)


R_SCRIPT = r"""
suppressMessages(library(mgcv))
a <- commandArgs(TRUE); n <- as.numeric(a[2]); repeats <- as.numeric(a[3]); engine <- a[4]
m <- matrix(readBin(a[1], "double", 5 * n), n); d <- as.data.frame(m)
names(d) <- c("y", "x1", "x2", "x3", "x4"); rm(m)
loc <- as.formula(a[5]); scale <- as.formula(a[6])
fit <- switch(engine,
  "mgcv gaulss REML" = function() gam(list(loc, scale), family = gaulss(b = 0), data = d,
                                      method = "REML"),
  "mgcv gaulss efs" = function() gam(list(loc, scale), family = gaulss(b = 0), data = d,
                                     method = "REML", optimizer = "efs"),
  "mgcv bam gaussian" = function() bam(loc, data = d, method = "fREML"),
  "mgcv bam gaussian discrete" = function() bam(loc, data = d, method = "fREML",
                                                discrete = TRUE, nthreads = 1))
times <- NULL
for (r in seq_len(1 + repeats)) { t <- system.time(b <- fit())
  times <- rbind(times, c(t[["elapsed"]], t[["user.self"]] + t[["sys.self"]])) }
blas <- basename(extSoftVersion()[["BLAS"]]); if (blas == "") blas <- basename(La_library())
cat(sprintf("%.17g", c(times[1, 1], median(times[if (repeats > 0) -1 else 1, 1]),
  times[nrow(times), 2], as.numeric(logLik(b)), sum(b$edf))), "\n")
cat(sprintf("R %s.%s, mgcv %s, %s\n", R.version$major, R.version$minor,
  packageVersion("mgcv"), dirname(extSoftVersion()[["BLAS"]])), "\n")
"""


def run_mgcv(engine: str, model: str, n: int, repeats: int) -> Timing:
    """Fit with R; the data go through a binary file."""
    with tempfile.TemporaryDirectory() as folder:
        columns, script = Path(folder, "columns"), Path(folder, "fit.R")
        np.stack(list(simulate(model, n).values())).tofile(columns)
        script.write_text(R_SCRIPT)
        arguments = [columns, n, repeats, engine, MODELS[model].loc, MODELS[model].scale]
        command = ["Rscript", str(script), *map(str, arguments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    numbers, version = done.stdout.strip().splitlines()[:2]
    return Timing(engine, n, *map(float, numbers.split()), note=version.strip())


def smooth_and_linear(model: str) -> tuple[list[int], list[int]]:
    """Columns of the location that are smooth and linear, for engines without formulas."""
    smooth = [i for i in range(4) if f"s(x{i + 1}" in MODELS[model].loc]
    linear = [i for i in range(4) if f"x{i + 1}" in MODELS[model].loc and i not in smooth]
    return smooth, linear


def run_pygam(engine: str, model: str, n: int, repeats: int) -> Timing:
    """Fit with pyGAM, one common smoothing parameter by its default grid search."""
    import pygam

    y, *x = simulate(model, n).values()
    X = np.stack(x, axis=1)
    smooth, linear = smooth_and_linear(model)
    k = 20 if "k=20" in MODELS[model].loc else 10
    parts = [pygam.s(i, n_splines=k) for i in smooth] + [pygam.l(i) for i in linear]
    terms = sum(parts[1:], parts[0])
    fitted, first, later, cpu = timed(
        lambda: pygam.LinearGAM(terms).gridsearch(X, y, progress=False), repeats
    )
    statistic = fitted.statistics_
    return Timing(
        engine, n, first, later, cpu, float(statistic["loglikelihood"]), float(statistic["edof"])
    )


def run_statsmodels(engine: str, model: str, n: int, repeats: int) -> Timing:
    """Fit with statsmodels, smoothing parameters by GCV."""
    from statsmodels.gam.api import BSplines, GLMGam

    y, *x = simulate(model, n).values()
    smooth, linear = smooth_and_linear(model)
    k = 20 if "k=20" in MODELS[model].loc else 10
    columns = np.stack([x[i] for i in smooth], axis=1)
    exog = np.stack([np.ones(n), *[x[i] for i in linear]], axis=1)

    def fit() -> Any:
        basis = BSplines(columns, df=[k] * len(smooth), degree=[3] * len(smooth))
        start = GLMGam(y, exog=exog, smoother=basis, alpha=[1.0] * len(smooth))
        start.fit()  # the search for the weights reads its scale
        chosen, *_ = start.select_penweight(disp=False)
        return GLMGam(y, exog=exog, smoother=basis, alpha=list(chosen)).fit()

    fitted, first, later, cpu = timed(fit, repeats)
    return Timing(engine, n, first, later, cpu, float(fitted.llf), float(np.sum(fitted.edf)))


def work(engine: str, model: str, n: int, repeats: int) -> Timing:
    """Run one engine in this process and measure its memory."""
    by_prefix = {
        "deepregress": run_deepregress,
        "mgcv": run_mgcv,
        "pygam": run_pygam,
        "statsmodels": run_statsmodels,
    }
    (run,) = [run for prefix, run in by_prefix.items() if engine.startswith(prefix)]
    timing = run(engine, model, n, repeats)
    who = resource.RUSAGE_CHILDREN if engine.startswith("mgcv") else resource.RUSAGE_SELF
    timing.peak = resource.getrusage(who).ru_maxrss / 1024
    return timing


def available() -> list[str]:
    """Engines that this machine has: mgcv, else pyGAM, else statsmodels, beside our own."""
    own = [name for name in ENGINES if name.startswith("deepregress")]
    check = ["Rscript", "-e", "library(mgcv)"]
    if shutil.which("Rscript") and subprocess.run(check, capture_output=True).returncode == 0:
        others = [name for name in ENGINES if name.startswith("mgcv")]
    elif importlib.util.find_spec("pygam"):
        others = ["pygam gaussian"]
    else:
        others = ["statsmodels gaussian"]
    return [name for name in ENGINES if name in own + others]


def measure(engine: str, model: str, n: int, repeats: int) -> Timing | None:
    """Run one engine in a fresh process."""
    arguments = ["--worker", engine, "--model", model, "--rows", str(n), "--repeats", str(repeats)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(f"{n:>8} {engine}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return Timing(**json.loads(done.stdout.strip().splitlines()[-1]))


def show(timing: Timing, own: Timing | None) -> None:
    """Print one line of the table."""
    ratio = timing.later / own.later if own is not None else float("nan")
    print(
        f"{timing.rows:>8} {timing.engine:<28} {timing.first:>8.2f} {timing.later:>8.3f}"
        f" {timing.cpu:>8.2f} {ratio:>8.2f} {timing.loglik:>14.3f} {timing.edf:>8.3f}"
        f" {timing.peak:>7.0f}  {timing.note}",
        flush=True,
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--model", choices=MODELS, default="prototype")
    parser.add_argument("--repeats", type=int, default=3, help="fits after the first")
    parser.add_argument("--engines", nargs="+", help=f"of: {', '.join(ENGINES)}")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run every engine on every number of rows and print times and ratios."""
    arguments = parse()
    if arguments.worker:
        (n,) = arguments.rows
        print(json.dumps(asdict(work(arguments.worker, arguments.model, n, arguments.repeats))))
        return
    model = MODELS[arguments.model]
    print(f"{model.loc}; {model.scale}. {os.cpu_count()} cores, one BLAS thread")
    print(
        f"{'rows':>8} {'engine':<28} {'first s':>8} {'later s':>8} {'cpu s':>8} {'ratio':>8}"
        f" {'loglik':>14} {'edf':>8} {'MiB':>7}"
    )
    for n in arguments.rows:
        own: dict[bool, Timing] = {}
        for engine in arguments.engines or available():
            has_scale, limit = ENGINES[engine]
            timing = measure(engine, arguments.model, n, arguments.repeats) if n <= limit else None
            if timing is not None:
                if engine.startswith("deepregress"):
                    own[has_scale] = timing
                show(timing, own.get(has_scale))


if __name__ == "__main__":
    main()
