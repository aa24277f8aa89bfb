"""Time of a path of 100 lam beside scikit-learn's, and the D-gating simulation.

    python benchmarks/sparse.py times        n = 1000, p = 500, normal and bernoulli
    python benchmarks/sparse.py gating       n = p = 200, 40 groups of 5, 7 informative, 20 seeds
    python benchmarks/sparse.py mixtures     sparse terms beside smooth and random ones

Times are CPU times of one process with one BLAS thread, the best of three, ours after a first fit
that compiles the likelihood. Both packages fit the same problem at the same lam, coefficients are
compared.

Measured (2 shared cores): normal 0.17 to 0.20 s with both cores busy, medians of 8 to 12 pairs 5.5
and 5.7 times lasso_path(tol=1e-4), which is 5e-4 off; 0.26 s with six further processes on the two
cores, 6.7 and 6.9 times; 4.5 times lasso_path(tol=1e-8). On the same day, both cores busy, it was
0.30 to 0.32 s and 8.6 to 9.3 times without the cross products of all columns, kept for the path in
the coordinates of the solver, and without a look at the line through the last two fits, which
halves the Cholesky factors, to one for each lam. What limits it now: with 300 columns that factor,
0.3 ms, and a dozen products, which leave the cache; with few, 1 ms a lam of NumPy's calls, where
scikit-learn's compiled loop moves one coefficient at a time; in return every fit meets its
optimality conditions to 1e-10. bernoulli 1.0 s (1.2 s in the same hour with cross products that
were not symmetric for BLAS); almost half is X'WX and the likelihood of three Newton steps for each
lam, and neither of the two new means for normal helps. skglm 0.5 (SparseLogisticRegression,
tol=1e-8, warm starts, compiled before), which is 3e-6 off, took 3.2 s where ours then took 1.6 s.

gating, 20 seeds: test RMSE 2.421 (D = 2), 2.235 (3), 2.221 (4), noise 2; all of the 7 groups are
always found, with 17.15, 0.50 and 0.35 false ones; exactly the 7 in 0, 16 and 18 of 20 seeds.

mixtures (n = 600, p = 20, CPU time with compilation, 2 cores with six processes): mvn 7.0 s,
student_t depth 3 9.7 s, gamma depth 3 7.0 s; bernoulli 17.1 s and poisson 19.4 s with ten folds,
that is 11 paths. (gamma took 3.0 s when its path ended before anything was selected.) A second fit
of poisson, 11 to 14 s: 793 models of 14 ms, each two sparse minima of 2.3 Newton steps and one
update of the smoothing parameters, in ten evaluations of the likelihood of 0.2 to 0.5 ms and
Python around arrays of 500 rows. Optimality conditions to 1e-6 in the folds would save 10 to 20 %.
Four models of this kind before and after smoothing parameters followed the path from the last lam:
mvn 21.5 and 6.2 s, student_t 23.4 and 10.2 s, gamma 24.7 and 11.0 s, poisson with folds 74 and 23
s, with the same lam chosen and log-likelihoods the same to 1e-5.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import threadpoolctl
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, lasso_path

import deepregress as dr

ROWS, COLUMNS, ACTIVE, VALUES = 1000, 500, 20, 100
RATIO = 1e-2
"""Smallest lam over the largest: below it a logistic path of 500 columns separates the classes."""


def simulated(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns with correlations 0.5^|i - j|, a normal and a binary response."""
    rng = np.random.default_rng(seed)
    X = np.empty((ROWS, COLUMNS))
    X[:, 0] = rng.normal(size=ROWS)
    for j in range(1, COLUMNS):
        X[:, j] = 0.5 * X[:, j - 1] + np.sqrt(0.75) * rng.normal(size=ROWS)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    coef = np.zeros(COLUMNS)
    coef[rng.choice(COLUMNS, ACTIVE, replace=False)] = rng.normal(size=ACTIVE)
    eta = X @ coef
    y = eta + 3 * rng.normal(size=ROWS)
    return X, y, (rng.random(ROWS) < 1 / (1 + np.exp(-eta))).astype(float)


def best_of_three(work: Callable[[], object]) -> tuple[float, object]:
    times, result = [], None
    for _ in range(3):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return min(times), result


def normal_times() -> None:
    X, y, _ = simulated()
    ours, found = best_of_three(
        lambda: dr.path("y ~ lasso(X)", {"y": y, "X": X}, n_lam=VALUES, ratio=RATIO)
    )
    centred = y - y.mean()
    for tolerance in (1e-4, 1e-8):
        options = {"alphas": found.lam, "tol": tolerance, "max_iter": 100_000}
        theirs, (_, coef, _) = best_of_three(partial(lasso_path, X, centred, **options))
        gap = np.abs(coef.T - found.coef["loc"].to_numpy()[:, 1:]).max()
        print(
            f"normal, {VALUES} lam, n={ROWS}, p={COLUMNS}: ours {ours:.2f} s, lasso_path(tol="
            f"{tolerance:g}) {theirs:.2f} s, ratio {ours / theirs:.1f}, difference {gap:.1e}"
        )


def binary_times() -> None:
    X, _, y = simulated()
    ours, found = best_of_three(
        lambda: dr.path(
            "y ~ lasso(X)", {"y": y, "X": X}, family="bernoulli", n_lam=VALUES, ratio=RATIO
        )
    )
    coef = found.coef["prob"].to_numpy()
    for solver, tolerance in (("liblinear", 1e-4), ("saga", 1e-4)):
        model = LogisticRegression(
            l1_ratio=1.0,
            solver=solver,
            tol=tolerance,
            max_iter=2000,
            warm_start=True,
            intercept_scaling=100.0,
            random_state=0,
        )

        def work(model: LogisticRegression = model) -> np.ndarray:
            rows = []
            for lam in found.lam:
                model.C = 1.0 / (lam * ROWS)
                model.fit(X, y)
                rows.append(np.r_[model.intercept_, model.coef_[0]])
            return np.array(rows)

        start = time.process_time()
        theirs = work()
        seconds = time.process_time() - start
        gap = np.abs(theirs[-1] - coef[-1]).max()
        print(
            f"bernoulli, {VALUES} lam, n={ROWS}, p={COLUMNS}: ours {ours:.2f} s, {solver} "
            f"(tol={tolerance:g}) {seconds:.2f} s, ratio {ours / seconds:.2f}, difference {gap:.1e}"
        )


def gating(n_seeds: int = 20) -> None:
    """Test RMSE and groups found of D = 2, 3, 4 at the lam that is best on a validation set."""
    table = {depth: [] for depth in (2, 3, 4)}
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        coef = np.zeros(200)
        informative = rng.choice(40, 7, replace=False)
        for g in informative:
            coef[5 * g : 5 * g + 5] = rng.normal(size=5)
        X = rng.normal(size=(3, 200, 200))
        y = X @ coef + 2.0 * rng.normal(size=(3, 200))
        for depth, rows in table.items():
            term = f"grouplasso(X, groups=5, depth={depth})"
            found = dr.path(f"y ~ {term}", {"y": y[0], "X": X[0]}, n_lam=50, ratio=0.01)
            path = found.coef["loc"].to_numpy()
            rmse = np.sqrt(((y[:, None] - path[:, 0, None] - path[:, 1:] @ X.mT) ** 2).mean(axis=2))
            best = int(np.argmin(rmse[1]))
            chosen = np.flatnonzero(path[best, 1::5])
            hits = len(np.intersect1d(chosen, informative))
            rows.append((rmse[2, best], hits, len(chosen) - hits))
    for depth, rows in table.items():
        rmse, hits, false = np.mean(rows, axis=0)
        exact = sum(hit == 7 and wrong == 0 for _, hit, wrong in rows)
        print(
            f"D = {depth}: test RMSE {rmse:.3f} (noise 2), found {hits:.2f} of 7 groups, "
            f"{false:.2f} false, exactly the 7 in {exact} of {n_seeds} seeds"
        )


MIXTURES = {
    "mvn": "y ~ lasso(X) + s(z) + (1|r)",
    "student_t": "y ~ grouplasso(X, groups=5, depth=3) + s(z)",
    "gamma": "y ~ lasso(X, depth=3) + s(z) + (1|r)",
    "bernoulli": "y ~ lasso(X, select='cv') + ridge(X0, X1, X2, X3) + s(z)",
    "poisson": "y ~ lasso(X, select='cv') + s(z) + (1|r)",
}
"""Models with smoothing parameters to estimate at every lam of a path (of ten folds, with cv)."""


def mixtures(rows: int = 600, columns: int = 20) -> None:
    """CPU time of a fit that chooses lam, compilation of the likelihood included."""
    rng = np.random.default_rng(0)
    X, z, r = rng.normal(size=(rows, columns)), rng.uniform(size=rows), rng.integers(0, 15, rows)
    eta = X[:, :5] @ [1, -0.8, 0.6, 0.5, -0.4] + np.sin(6 * z) + 0.5 * rng.normal(size=15)[r]
    noise = rng.normal(size=(rows, 2))
    responses = {
        "mvn": np.column_stack([eta, 0.5 * eta]) + noise,
        "student_t": eta + rng.standard_t(4, size=rows),
        "gamma": np.exp(0.5 * eta) * rng.gamma(2, size=rows),
        "bernoulli": (rng.random(rows) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": rng.poisson(np.exp(0.5 * eta)).astype(float),
    }
    others = {f"X{j}": rng.normal(size=rows) for j in range(4)}
    dr.fit("y ~ z", {"y": eta, "z": z})
    for family, formula in MIXTURES.items():
        table = {"y": responses[family], "X": X, "z": z, "r": r.astype(str), **others}
        start = time.process_time()
        model = dr.fit(formula, table, family)
        seconds = time.process_time() - start
        kept = int(np.count_nonzero(model.coef))
        print(f"{family}: {seconds:.1f} s CPU, {kept} coefficients, loglik {model.loglik:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("times", "gating", "mixtures"))
    chosen = parser.parse_args().what
    warnings.simplefilter("ignore", ConvergenceWarning)
    with threadpoolctl.threadpool_limits(1):
        if chosen == "times":
            normal_times()
            binary_times()
        elif chosen == "gating":
            gating()
        else:
            mixtures()


if __name__ == "__main__":
    main()
