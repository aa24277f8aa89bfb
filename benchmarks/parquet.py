"""Memory and time of fits to a parquet file, next to fits of a table in memory.

    python benchmarks/parquet.py --rows 1000000 --model normal poisson deep
    python benchmarks/parquet.py --rows 10000000 --model normal --memory-rows 1000000
    python benchmarks/parquet.py --rows 1000000 --model passes

Writes a file of ten columns of doubles into a temporary folder (0.8 GB for 1e7 rows), fits each
model in a process of its own and prints seconds of CPU and wall clock, and memory: the largest
RssAnon of /proc/self/status during the fit above that before it, which is what a process needs
beside the pages of files that the system can drop. `--memory-rows` rows of the same file are
fitted as a table in memory. The first fit of each process, of 2,000 rows, is not counted: it loads
and compiles. Coefficients of the linear term are compared with the truth, -0.5.

Measured on two busy cores, `deep` with `--epochs 1` (before the fit: 417 MiB, mostly TensorFlow):

    rows    fit_mib     cpu_s
    1e6     193          14
    1e7     196         141      (2.6 GiB before rows were read by the stretch)

`passes` compares one evaluation of the likelihood with its derivatives from columns in files, as
fits do, with evaluating the designs again in each pass.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),  # this checkout, installed or not
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
}
FORMULAS = {
    "normal": ("y ~ s(x1) + s(x2) + x3", "normal"),
    "poisson": ("count ~ s(x1) + s(x2) + x3", "poisson"),
    "deep": ("y ~ s(x1) + x3 + deep(x2, x4)", "normal"),
}
BLOCK = 500_000


def write(path: Path, n_rows: int) -> None:
    """Ten columns: eight covariates, a normal and a Poisson response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    names = [*(f"x{j}" for j in range(1, 9)), "y", "count"]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for start in range(0, n_rows, BLOCK):
            n = min(BLOCK, n_rows - start)
            x = rng.random((n, 8))
            eta = np.sin(6 * x[:, 0]) + 4 * (x[:, 1] - 0.5) ** 2 - 0.5 * x[:, 2]
            y, count = eta + 0.5 * rng.normal(size=n), rng.poisson(np.exp(eta)).astype(float)
            columns = dict(zip(names, [*x.T, y, count], strict=True))
            writer.write_table(pa.table(columns), row_group_size=BLOCK)


def anonymous() -> float:
    """RssAnon in MiB."""
    with open("/proc/self/status") as status:
        (line,) = [each for each in status if each.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


class Peak(threading.Thread):
    """Largest RssAnon while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = anonymous()
        self.running = True

    def run(self) -> None:
        while self.running:
            self.most = max(self.most, anonymous())
            time.sleep(0.02)


def table(path: Path, n_rows: int):
    """The first rows of a file in memory."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    return pa.table(ds.dataset(path).head(n_rows)).to_pandas()


def fit(path: Path, model: str, n_memory: int, epochs: int) -> dict:
    """One fit; of a table in memory where `n_memory` rows are given."""
    import deepregress as dr

    formula, family = FORMULAS[model]
    options = {"verbose": 0, "seed": 1, "training": dr.Training(epochs=epochs)}
    rng = np.random.default_rng(1)
    small = {name: rng.random(2000) for name in ("x1", "x2", "x3", "x4", "y")}
    small["count"] = rng.poisson(1.0, 2000)
    dr.fit(formula, small, family=family, verbose=0, training=dr.Training(epochs=1))
    peak = Peak()
    peak.start()
    data = table(path, n_memory) if n_memory else path
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = dr.fit(formula, data, family=family, **options)
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    peak.running = False
    name = (next(iter(fitted.designs)), "x3")
    return {
        **found,
        "rows": fitted.nobs,
        "fit_mib": peak.most - peak.before,
        "before_mib": peak.before,
        "edf": fitted.edf_total,
        "error_in_se": float((fitted.coef[name] + 0.5) / fitted.std_error[name]),
    }


def passes(path: Path) -> dict:
    """Seconds of CPU of one pass: columns in files against designs evaluated again."""
    from deepregress.disk.source import opened
    from deepregress.model import bind
    from deepregress.training_rows import read

    formula, family = FORMULAS["normal"]
    none = {"link": None, "networks": {}, "weights": None, "na": "drop", "select": False}
    bound = bind(formula, path, family, **none)
    coef = np.zeros(bound.objective.n_coef)
    bound.objective.on_rows(np.arange(10_000)).derivatives(coef)

    def seconds(work) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    def evaluate() -> None:
        for frame in read(opened(path), ["x1", "x2", "x3"]):
            for design in bound.designs.values():
                design.evaluate(frame)

    again = seconds(evaluate)
    stored = min(seconds(lambda: bound.objective.derivatives(coef)) for _ in range(3))
    columns = sum(unit.X.nbytes for unit in bound.objective.units) / 2**20
    return {"derivatives_s": stored, "designs_again_s": again, "columns_mib": columns}


def in_process(arguments: list[str]) -> dict:
    """Run this file in a process of its own and read what it prints last."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print one line for each fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-rows", type=int, default=0)
    parser.add_argument("--model", nargs="+", choices=[*FORMULAS, "passes"], default=["normal"])
    parser.add_argument("--epochs", type=int, default=3, help="of networks")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        path, (model,) = Path(given.inside[0]), given.model
        memory = int(given.inside[1])
        found = passes(path) if model == "passes" else fit(path, model, memory, given.epochs)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        write(path, given.rows)
        print(f"{path.stat().st_size / 2**20:.0f} MiB on disk")
        for model in given.model:
            for memory in dict.fromkeys([0, given.memory_rows]):
                if model == "passes" and memory:
                    continue
                inside = ["--inside", str(path), str(memory), "--epochs", str(given.epochs)]
                found = in_process([*inside, "--model", model])
                where = "memory" if memory else "disk"
                numbers = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
                print(f"{model:8s} {where:7s} {numbers}", flush=True)


if __name__ == "__main__":
    main()
