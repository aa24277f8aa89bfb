"""Training of networks: epochs against `keras.Model.fit`, and orthogonalisation in training.

    python benchmarks/training.py epoch --rows 10000 100000 --batch 32 256
    python benchmarks/training.py cell --rows 1000 --seeds 10

`epoch` trains the default network (64-32 ReLU, linear head) on as many rows with the same batch
size in one process: one compiled epoch of ours with one member, with all five members, and one
epoch of `keras.Model.fit` (Adam, squared error, no validation) of one network. Our epoch includes
the normal likelihood, weight decay and the judgement on held-out rows; Keras's does not.

`cell` fits the simulation of METHODS 5.1 with orthogonalize="posthoc" and "cell" from equal seeds:
excess test NLL over the truth, RMSE of s(x1), CPU seconds, and their paired differences.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np
import tensorflow as tf
from semistructured import FORMULA, Z, keras_network, log_score, simulate, smooth_error

import deepregress as dr
from deepregress.data import Response
from deepregress.networks import resolve
from deepregress.objective import Objective, Unit
from deepregress.predictor import fresh_members
from deepregress.solvers.base import Folds, Network, Training
from deepregress.solvers.epoch import one_epoch
from deepregress.solvers.epoch_data import epoch_data
from deepregress.solvers.plan import Plan

# -- one epoch -------------------------------------------------------------------------------------


def epoch_seconds(n: int, batch: int, n_members: int, repeats: int, *, jit: bool | str) -> float:
    """Median wall seconds of our compiled epoch; every member trains on n rows."""
    rows = round(n / 0.8) if n_members > 1 else round(n / 0.85)
    table, _, _ = simulate(rows, 0)
    y, z = table["y"].to_numpy(), table[["x1", "x2", *Z]].to_numpy()
    one = Unit(np.ones((rows, 1)), np.zeros(rows))
    response = Response(y, y, np.ones(rows), None, "y", None)
    objective = Objective(dr.families.family("normal"), response, (one, one))
    architecture = resolve(None, [z], label="deep")
    networks = [Network(architecture, 0, architecture.arrange([z]))]
    order = np.random.default_rng(0).permutation(rows)
    held = np.array_split(order, n_members) if n_members > 1 else [order[n:]]
    folds = Folds(tuple(np.setdiff1d(order, part) for part in held), tuple(held))
    plan = Plan.of(networks, objective, folds, Training(batch_size=batch, jit=jit))
    state = plan.start([fresh_members(architecture, range(1, n_members + 1))])
    data = epoch_data(objective, networks, np.zeros((rows, 2)), folds, plan)
    rates = tf.constant([3e-3, 1e-4], tf.float32)
    seconds = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        state, _, _ = one_epoch(plan, state, data, tf.constant([1, repeat]), rates)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def keras_epoch_seconds(n: int, batch: int, repeats: int) -> float:
    """Median wall seconds of an epoch of `keras.Model.fit`, inside one call of it."""
    table, _, _ = simulate(n, 0)
    z, y = table[["x1", "x2", *Z]].to_numpy("float32"), table["y"].to_numpy("float32")
    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seconds.append(-time.perf_counter())

        def on_epoch_end(self, epoch, logs=None):
            seconds[-1] += time.perf_counter()

    network = keras_network(z.shape[1])
    network.fit(z, y, batch_size=batch, epochs=repeats + 1, verbose=0, callbacks=[Clock()])
    return statistics.median(seconds[1:])


def epoch(rows: list[int], batches: list[int], repeats: int) -> None:
    """Print seconds and ratios of one epoch."""
    for n, batch in ((n, batch) for n in rows for batch in batches):
        theirs = keras_epoch_seconds(n, batch, repeats)
        print(
            f"epoch of {n} rows, batch {batch}: keras.Model.fit, one network {theirs * 1e3:.1f} ms"
        )
        for jit, name in ((True, "XLA"), (False, "plain graph")):
            for n_members in (1, 5):
                ours = epoch_seconds(n, batch, n_members, repeats, jit=jit)
                print(
                    f"  ours, {n_members} member(s), {name:11s} {ours * 1e3:7.1f} ms; "
                    f"keras / ours = {theirs / ours:.1f}, "
                    f"per member {n_members * theirs / ours:.1f}"
                )


# -- orthogonalisation in training -----------------------------------------------------------------


def fitted(n: int, seed: int, orthogonalize: str) -> np.ndarray:
    """Excess test NLL, RMSE of s(x1) and CPU seconds of one fit."""
    table, _, _ = simulate(n, seed)
    test, loc, log_scale = simulate(10_000, 20_000 + seed)
    start = time.process_time()
    model = dr.fit(FORMULA, data=table, seed=seed, verbose=0, orthogonalize=orthogonalize)
    cpu = time.process_time() - start
    truth = log_score(test["y"].to_numpy(), loc, log_scale)
    return np.array([truth - model.log_score(test), smooth_error(model), cpu])


def cell(rows: list[int], seeds: int) -> None:
    """Print both ways of orthogonalisation and their differences, with standard errors."""
    for n in rows:
        results = {}
        for name in ("posthoc", "cell"):
            fitted(n, 10_000, name)
            results[name] = np.array([fitted(n, seed, name) for seed in range(seeds)])
        results["cell - posthoc"] = results["cell"] - results["posthoc"]
        for name, values in results.items():
            mean, se = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(seeds)
            cells = [f"{m:.4f} ({s:.4f})" for m, s in zip(mean, se, strict=True)]
            print(f"n = {n}, {name:15s} excess {cells[0]}  RMSE {cells[1]}  CPU s {cells[2]}")


def main() -> None:
    """Read the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["epoch", "cell"])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.what == "epoch":
        epoch(given.rows, given.batch, given.repeats)
    else:
        cell(given.rows, given.seeds)


if __name__ == "__main__":
    main()
