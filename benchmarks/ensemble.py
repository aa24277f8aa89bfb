"""Ensembles of fits: time against one fit, log score gained, coverage of predictors.

python benchmarks/ensemble.py time --rows 1000 10000
python benchmarks/ensemble.py score --rows 1000 --seeds 5
python benchmarks/ensemble.py coverage --rows 1000 --seeds 5

The simulation is that of METHODS 5 (`benchmarks/semistructured.py`). "coverage" is the share of new
rows whose 95 % interval of the location contains the truth: given the networks, and with each kind
of `with_uncertainty`, and of the ensemble.
"""

import argparse
import statistics
import time

import keras
import numpy as np
from semistructured import FORMULA, log_score, simulate

import deepregress as dr

MEMBERS = 5


def seconds_of(n: int, repeats: int) -> tuple[float, float]:
    """Median wall seconds of one fit and of an ensemble, graphs compiled before."""
    one, several = [], []
    for seed in range(repeats + 1):
        table, _, _ = simulate(n, seed)
        start = time.perf_counter()
        dr.fit(FORMULA, table, seed=seed, verbose=0)
        middle = time.perf_counter()
        dr.ensemble(FORMULA, table, members=MEMBERS, seed=seed, verbose=0)
        one.append(middle - start)
        several.append(time.perf_counter() - middle)
    return statistics.median(one[1:]), statistics.median(several[1:])


def times(rows: list[int], repeats: int) -> None:
    """Print seconds and their ratio."""
    for n in rows:
        one, several = seconds_of(n, repeats)
        print(
            f"n = {n}: one fit {one:.2f} s, ensemble of {MEMBERS} {several:.2f} s; "
            f"ratio {several / one:.2f}"
        )


def scores(rows: list[int], seeds: int) -> None:
    """Print excess NLL over the truth: members, their mixture, one network each, their mixture."""
    for n in rows:
        table = []
        for seed in range(seeds):
            data, _, _ = simulate(n, seed)
            test, loc, log_scale = simulate(10_000, 20_000 + seed)
            best = log_score(test["y"].to_numpy(), loc, log_scale)
            row = []
            for crossfit in ("auto", False):
                training = dr.Training(crossfit=crossfit)
                ensemble = dr.ensemble(
                    FORMULA, data, members=MEMBERS, training=training, seed=seed, verbose=0
                )
                each = [model.log_score(test) for model in ensemble.members]
                row += [best - np.mean(each), best - ensemble.log_score(test)]
            table.append(row)
        mean = np.mean(table, axis=0)
        gain = np.array(table)[:, 0::2] - np.array(table)[:, 1::2]
        se = gain.std(axis=0, ddof=1) / np.sqrt(seeds)
        for j, name in enumerate(("cross-fitted", "single networks")):
            print(
                f"n = {n}, {name}: excess NLL of members {mean[2 * j]:.4f}, of the mixture "
                f"{mean[2 * j + 1]:.4f}; gain {gain[:, j].mean():.4f} ({se[j]:.4f})"
            )


def network() -> keras.Model:
    """The default network with Dropout."""
    hidden = []
    for width in (64, 32):
        hidden += [keras.layers.Dense(width, "relu"), keras.layers.Dropout(0.1)]
    return keras.Sequential([keras.Input((12,)), *hidden])


def covered(answer, truth: np.ndarray) -> float:
    """Share of rows whose interval has the truth."""
    return float(np.mean((answer["lower"] <= truth) & (truth <= answer["upper"])))


def coverage(rows: list[int], seeds: int) -> None:
    """Print shares of new rows covered, and mean standard errors, by kind."""
    formula = {name: text.replace("deep(", "net(") for name, text in FORMULA.items()}
    for n in rows:
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            data, _, _ = simulate(n, seed)
            test, loc, _ = simulate(2_000, 20_000 + seed)
            ensemble = dr.ensemble(
                formula, data, members=3, networks={"net": network()}, seed=seed, verbose=0
            )
            first = ensemble.members[0]
            models = {
                kind: first.with_uncertainty(kind)
                for kind in ("conditional", "members", "dropout", "laplace")
            }
            models["ensemble"] = ensemble
            for kind in ("members", "laplace"):
                models[f"ensemble, {kind}"] = ensemble.with_uncertainty(kind)
            for kind, model in models.items():
                answer = model.predict(test, "linear", parameter="loc", se=True, interval=0.95)
                found.setdefault(kind, []).append((covered(answer, loc), answer["se"].mean()))
        for kind, pairs in found.items():
            share, se = np.mean(pairs, axis=0)
            print(f"n = {n}, {kind:17s} coverage {share:.3f}, mean standard error {se:.3f}")


def main() -> None:
    """Read the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["time", "score", "coverage"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.what == "time":
        times(given.rows, given.repeats)
    elif given.what == "score":
        scores(given.rows, given.seeds)
    else:
        coverage(given.rows, given.seeds)


if __name__ == "__main__":
    main()
