"""Semi-structured fits: speed against `keras.Model.fit`, and the simulation of METHODS 5.1.

    python benchmarks/semistructured.py fit --rows 1000 10000
    python benchmarks/semistructured.py simulation --rows 1000 10000 --seeds 10
    python benchmarks/semistructured.py noise --rows 1000 --seeds 40

`fit` compares a whole semi-structured `dr.fit` (two structured fits, five cross-fitted networks,
inference) with building, compiling and fitting one Keras network with early stopping.

`simulation` prints excess test NLL over the truth, RMSE of s(x1) and CPU seconds of the second and
later fits in the process, with their standard errors over seeds.
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

import keras
import numpy as np
import pandas as pd

import deepregress as dr

Z = [f"z{j}" for j in range(1, 11)]
FORMULA = {
    "loc": f"y ~ x3 + s(x1) + s(x2) + deep(x1, x2, {', '.join(Z)})",
    "scale": "~ s(x4)",
}
TABLE = {
    1_000: "METHODS 5.1: excess .085, RMSE .049, .4 CPU s (structured only: .176, .048)",
    10_000: "METHODS 5.1: excess .017, RMSE .018, 1.8 CPU s (structured only: .169, .017)",
}


def simulate(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The data of METHODS 5.1 with the true location and log scale."""
    rng = np.random.default_rng(seed)
    x, z = rng.uniform(size=(n, 4)), rng.normal(size=(n, 10))
    z[:, 0] = 0.6 * (x[:, 0] - 0.5) * np.sqrt(12) + 0.8 * z[:, 0]
    loc = np.sin(6 * x[:, 0]) + 2 * x[:, 1] ** 2 - x[:, 2]
    loc += 0.5 * np.tanh(z[:, 0] * z[:, 1]) + 0.3 * np.cos(2 * z[:, 2])
    log_scale = -1 + 0.8 * x[:, 3]
    table = pd.DataFrame(np.hstack([x, z]), columns=["x1", "x2", "x3", "x4", *Z])
    return table.assign(y=loc + np.exp(log_scale) * rng.normal(size=n)), loc, log_scale


def log_score(y: np.ndarray, loc: np.ndarray, log_scale: np.ndarray) -> float:
    """Mean normal log-likelihood."""
    rowwise = -0.5 * ((y - loc) / np.exp(log_scale)) ** 2 - log_scale
    return float(np.mean(rowwise)) - 0.5 * np.log(2 * np.pi)


# -- a Keras network ------------------------------------------------------------------------------


def keras_network(n_inputs: int) -> keras.Model:
    """The default network with its head, as a Keras user writes it."""
    hidden = [keras.layers.Dense(width, activation="relu") for width in (64, 32)]
    network = keras.Sequential([keras.Input((n_inputs,)), *hidden, keras.layers.Dense(1)])
    network.compile(keras.optimizers.Adam(3e-3), loss="mse")
    return network


# -- a whole fit -----------------------------------------------------------------------------------


def keras_fit_seconds(n: int, repeats: int) -> float:
    """Median wall seconds of one Keras network with early stopping, from building to the end."""
    seconds = []
    for seed in range(repeats):
        table, _, _ = simulate(n, seed)
        names = ["x1", "x2", "x3", "x4", *Z]
        z, y = table[names].to_numpy("float32"), table["y"].to_numpy("float32")
        batch = 32 if n <= 2_000 else 128 if n <= 20_000 else 256
        start = time.perf_counter()
        stop = keras.callbacks.EarlyStopping(patience=20, restore_best_weights=True)
        keras_network(len(names)).fit(
            z, y, batch_size=batch, epochs=300, validation_split=0.15, verbose=0, callbacks=[stop]
        )
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def whole_fit(rows: list[int], repeats: int) -> None:
    """Print seconds of whole fits and their ratio."""
    for n in rows:
        seconds = []
        for seed in range(repeats + 1):
            table, _, _ = simulate(n, seed)
            start = time.perf_counter()
            dr.fit(FORMULA, data=table, seed=seed, verbose=0)
            seconds.append(time.perf_counter() - start)
        theirs, ours = keras_fit_seconds(n, repeats), statistics.median(seconds[1:])
        print(
            f"fit of {n} rows: dr.fit {ours:.2f} s (first in the process {seconds[0]:.2f} s), "
            f"one Keras network {theirs:.2f} s; keras / ours = {theirs / ours:.1f}"
        )


# -- simulation ------------------------------------------------------------------------------------


def smooth_error(model: dr.FittedModel) -> float:
    """RMSE of s(x1) over an even grid, both centred."""
    grid = np.linspace(0, 1, 200)
    table = pd.DataFrame(0.5, index=range(200), columns=["x1", "x2", "x3", "x4", *Z])
    terms = model.predict(table.assign(x1=grid), which="terms", parameter="loc")
    error = np.asarray(terms["s(x1)"]) - np.sin(6 * grid)
    return float(np.std(error))


def recovery(n: int, seed: int, formula: dict[str, str] = FORMULA) -> tuple[float, float, float]:
    """Excess test NLL, RMSE of s(x1) and CPU seconds of one fit."""
    table, _, _ = simulate(n, seed)
    test, loc, log_scale = simulate(10_000, 20_000 + seed)
    start = time.process_time()
    model = dr.fit(formula, data=table, seed=seed, verbose=0)
    cpu = time.process_time() - start
    excess = log_score(test["y"].to_numpy(), loc, log_scale) - model.log_score(test)
    return excess, smooth_error(model), cpu


def simulation(rows: list[int], seeds: int) -> None:
    """Print excess NLL, RMSE of s(x1) and CPU seconds, with and without the network."""
    structured = {"loc": "y ~ x3 + s(x1) + s(x2)", "scale": "~ s(x4)"}
    for n in rows:
        for name, formula in (("structured only", structured), ("cross-fitted", FORMULA)):
            recovery(n, 10_000, formula)
            results = [recovery(n, seed, formula) for seed in range(seeds)]
            mean, se = np.mean(results, axis=0), np.std(results, axis=0, ddof=1) / np.sqrt(seeds)
            cells = [f"{m:.4f} ({s:.4f})" for m, s in zip(mean, se, strict=True)]
            print(f"n = {n}, {name:15s} excess {cells[0]}  RMSE {cells[1]}  CPU s {cells[2]}")
        print(f"  {TABLE.get(n, '')}")


def times_dropped(n: int, seeds: int) -> int:
    """Number of fits that drop a deep term which has no effect."""
    dropped = 0
    for seed in range(seeds):
        table, _, _ = simulate(n, 100 + seed)
        rng = np.random.default_rng(seed)
        table["y"] = np.sin(6 * table["x1"]) + 0.5 * rng.normal(size=n)
        formula = f"y ~ s(x1) + deep(x1, x2, {', '.join(Z[:5])})"
        model = dr.fit(formula, data=table, seed=seed, verbose=0)
        dropped += all(effect.multiplier == 0 for effect in model.deep.effects)
    return dropped


def noise(rows: list[int], seeds: int) -> None:
    """Print how often a deep term without effect is dropped."""
    for n in rows:
        dropped = times_dropped(n, seeds)
        print(f"n = {n}: no deep effect in the data, dropped in {dropped} of {seeds} fits")


def main() -> None:
    """Read the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "simulation", "noise"])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.what == "fit":
        whole_fit(given.rows, given.repeats)
    elif given.what == "simulation":
        simulation(given.rows, given.seeds)
    else:
        noise(given.rows, given.seeds)


if __name__ == "__main__":
    main()
