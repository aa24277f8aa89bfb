"""Ensembles of fits: time against one fit, log score gained, coverage of predictors.

python benchmarks/ensemble.py time --rows 1000 10000
python benchmarks/ensemble.py score --rows 1000 --seeds 5
python benchmarks/ensemble.py coverage --rows 1000 --seeds 5

The simulation is that of METHODS 5 (`benchmarks/semistructured.py`).

"time": members share bound tables, structured fit and compiled graphs, but train one after the
other. Training them beside each other, as the folds of one fit are, would gain nothing on a CPU: on
two (busy) cores an XLA epoch of 25 networks takes 6 times (n = 1000) to 18 times (n = 8000) that of
the 5 of one fit, being bound by arithmetic and then by the cache; of 5 single networks 1.1, 3.8 and
9 times that of one (n = 1000, 8000, 50,000); single networks are the default from 50,000 rows.

"coverage" is about 95 % intervals of the location at the same 1,000 new rows from many tables:
root mean square of the bias, sd of the estimates, mean standard error, and the share of intervals
that hold the mean of the estimates over the tables, and the truth; the latter also with the true
sd in place of standard errors. Measured with the default network in place of the one with Dropout,
24 tables of 1,000 rows and 12 of 4,000:

    n       kind                     bias    sd      se      its mean   the truth   true sd
    1000    one fit, conditional     .163    .131    .068    .714       .492        .774
            one fit, members                         .158    .963       .838
            one fit, laplace                         .079    .782       .553
            ensemble, conditional    .163    .128    .075    .767       .532        .767
            ensemble, members                        .165    .984       .880
            ensemble, laplace                        .085    .821       .584
    4000    ensemble, conditional    .111    .073    .039    .723       .484        .750
            ensemble, members                        .096    .987       .872

Intervals with the true sd miss the truth as often as the bias says. The jackknife of cross-fitted
members is conservative for the mean of the estimator and by that holds the truth more often.
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


def coverage(rows: list[int], seeds: int) -> None:
    """Print bias and sd of predictors at new rows, and what intervals cover, by kind."""
    formula = {name: text.replace("deep(", "net(") for name, text in FORMULA.items()}
    test, loc, _ = simulate(1_000, 20_000)
    for n in rows:
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for seed in range(seeds):
            data, _, _ = simulate(n, seed)
            ensemble = dr.ensemble(
                formula, data, members=3, networks={"net": network()}, seed=seed, verbose=0
            )
            for kind in ("conditional", "members", "dropout", "laplace"):
                own = ensemble.with_uncertainty(kind)
                for name, model in (("one fit", own.members[0]), ("ensemble", own)):
                    answer = model.predict(test, "linear", parameter="loc", se=True)
                    pair = (np.asarray(answer["estimate"]), np.asarray(answer["se"]))
                    found.setdefault(f"{name}, {kind}", []).append(pair)
        for kind, pairs in found.items():
            value, se = map(np.array, zip(*pairs, strict=True))
            print(f"n = {n}, {kind:21s} {described(value, se, loc)}")


def described(value: np.ndarray, se: np.ndarray, truth: np.ndarray) -> str:
    """Bias, sd and standard errors of estimates (n_tables, n_rows), and what 95 % limits hold."""
    mean, sd = value.mean(axis=0), value.std(axis=0, ddof=1)
    bias2 = np.mean((mean - truth) ** 2 - sd**2 / len(value))
    of_mean, of_truth, oracle = (
        np.mean(np.abs(value - target) < 1.96 * error)
        for target, error in ((mean, se), (truth, se), (truth, sd))
    )
    return (
        f"bias {np.sqrt(max(bias2, 0)):.3f}  sd {np.sqrt(np.mean(sd**2)):.3f}  se {se.mean():.3f}  "
        f"covers its mean {of_mean:.3f}, the truth {of_truth:.3f} (true sd: {oracle:.3f})"
    )


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
