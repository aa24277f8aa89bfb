"""DRIFT beside the classical models it contains, and on the UCI sets and red wine.

    python benchmarks/drift.py simulated
    python benchmarks/drift.py uci ../shared/benchdata --sets airfoil energy --folds 10
    python benchmarks/drift.py wine ../shared/benchdata --splits 20

Simulated, 1,000 rows, scores (mean log density) on 4,000 others; effects in units of scale where
the classical model has none, its error taken as known; `s(z)` is the largest difference of the
curves between -0.95 and 0.95, whose range is 2:

    model               classical    drift   x classical     x drift         s(z)   edf of network
    linear                -1.0587  -1.0588   1.034 (0.038)   1.034 (0.038)   0.002   0.3
    location-scale        -1.0502  -1.0502   1.029 (0.039)   1.029 (0.039)   0.000   0.0
    cox                   -0.6877  -0.6579   1.025 (0.063)   1.019 (0.059)   0.018   0.4
    proportional odds     -1.4841  -1.4837   0.930 (0.101)   0.934 (0.100)   0.004   1.3

Cox loses .030, most of it on early events (.025 on the 158 test rows with t < 0.1): the truth
is Weibull (true score -.6588, `weibull` -.6580, DRIFT's network an edf of .4), and a Bernstein
polynomial in time does not follow log t near 0. The gain is that of the baseline; censored rows
have .004 of it.

UCI, mean negative log density of test rows over ten folds, smaller is better. `normal` and `drift`
have the same formulas, those of uci.py (smooths in loc, linear terms in scale), `auto` chooses the
base by marginal likelihood; `kept` without covariates of ten values or fewer, as in the paper. The
folds are those of baselines.csv, whose `gaulss_add_lin` stands beside; the paper's own could not be
rebuilt. `published` is structured DRIFT; `gain` that of `drift` over `normal`, mean and standard
error over folds and the number of folds with one; `s` processor seconds of a `drift` fit:

    set       covariates  normal  drift   auto   published  gaulss_add_lin   gain              s
    diabetes  all          5.396  5.317  5.317                       5.396   .079 (.010) 10    3
              kept         5.429  5.335  5.335         5.2                   .095 (.010) 10    4
    energy    all          1.414  0.928      -                       1.326   .486 (.045) 10   11
              kept         2.494  2.296      -         2.3                   .199 (.020) 10   38
    airfoil   all          2.809  2.803  2.781                       2.809   .007 (.023)  8    3
              kept         2.940  2.929  2.905         3.1                   .010 (.004)  7    2
    concrete  all = kept   3.124  3.066  3.052         3.3           3.125   .058 (.018)  8   10

Met: airfoil, concrete, and energy, to the one decimal that was published. Not met: diabetes, by
0.13. `auto` takes 1.3 to 3.6 times as long as `drift`. Not measured: `auto` of energy on all folds
(`kept`: fold 1, 2.299 where `drift` has 2.394; fold 2, 2.370 where it has 2.242). naval, fold 1,
has no result after 480 s: its 13 covariates determine each other but for 1e-13, and V goes up and
down by hundreds between rounds; of 2,000 of its rows `drift` has -9.055 on the test rows, `normal`
-8.513, in 94 s. energy's network does not reach the marginal
likelihood of the curve that it starts near, and is looked for from new weights, too: its seconds.

Red wine as ordered classes, five covariates, 20 splits (sd over splits 0.06): `ordinal` 1.1164,
DRIFT with linear terms 1.1165, with smooth terms 1.0992. Published: 1.12 for POLR, 1.11 for DRIFT
with neural basis functions; met.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
from uci import SETS, covariates, formulas, table

import deepregress as dr

KEPT = 10
"""The paper drops covariates with so many distinct values or fewer."""
FIVE = ["fixed_acidity", "volatile_acidity", "citric_acid", "residual_sugar", "chlorides"]

FAMILIES: dict[str, str | dr.Family] = {
    "normal": "normal",
    "drift": "drift",
    "auto": dr.families.drift(base="auto"),
}


def simulated(n: int, seed: int) -> None:
    """Partial effects and test scores on data of each classical model."""
    rng = np.random.default_rng(seed)
    total = n + 4000
    x, z = rng.uniform(-1, 1, total), rng.uniform(-1, 1, total)
    effect = x + np.sin(3 * z)
    data = pd.DataFrame({"x": x, "z": z, "linear": effect + 0.7 * rng.normal(size=total)})
    data["scaled"] = effect + 0.7 * np.exp(0.6 * x) * rng.normal(size=total)
    time_ = np.exp((np.log(rng.exponential(size=total)) - effect) / 1.5)
    data["time"], data["event"] = np.minimum(time_, 2.5), (time_ < 2.5).astype(int)
    cut = np.digitize(effect + rng.logistic(size=total), [-2.0, -0.7, 0.4, 1.5])
    data["rating"] = pd.Categorical(cut, ordered=True)
    train, test = data.iloc[:n], data.iloc[n:]
    drift, right = dr.families.drift, "x + s(z)"
    surv = f"Surv(time, event) ~ {right}"
    cases = {
        "linear": (f"linear ~ {right}", "normal", drift()),
        "location-scale": ({"loc": f"scaled ~ {right}", "scale": "~ x"}, "normal", drift()),
        "cox": (surv, "cox", drift(base="gumbel_min", outcome="positive")),
        "proportional odds": (f"rating ~ {right}", "ordinal", drift(base="logistic")),
    }
    print("model               score classical  drift   x classical (se)   drift (se)  max |s(z)|")
    for name, (formula, classical, family) in cases.items():
        first, second = (dr.fit(formula, train, family=each) for each in (classical, family))
        parameter = first.family.parameter_names[0]
        # effects of drift in units of the scale, and cox's log hazards against log times
        own = "(Intercept)"
        unit = np.exp(-second.coef["scale", own]) if name not in ("linear", "location-scale") else 1
        unit *= -1.0 if name == "cox" else 1.0
        grid = pd.DataFrame({"z": np.linspace(-0.95, 0.95, 60)})
        curves = [
            m.partial_effect("s(z)", parameter=p, grid=grid)["effect"].to_numpy()
            for m, p in ((first, parameter), (second, "loc"))
        ]
        away = np.max(np.abs(unit * curves[1] - curves[0]))
        scores = [m.log_score(test) for m in (first, second)]
        print(
            f"{name:18s}  {scores[0]:13.4f} {scores[1]:8.4f}  "
            f"{first.coef[parameter, 'x']:9.3f} ({first.std_error[parameter, 'x']:.3f})  "
            f"{unit * second.coef['loc', 'x']:8.3f} "
            f"({abs(unit) * second.std_error['loc', 'x']:.3f})  "
            f"{away:8.3f}  edf of the network {second.family.fitted_edf:.1f}"
        )


def uci(given: argparse.Namespace) -> None:
    """Test score of the normal location-scale model and of DRIFT with the same formulas."""
    folder, names, folds = given.folder, given.sets, given.folds
    for name in names:
        benchmark = SETS[name]
        data, fold = table(folder, benchmark)
        kept = [c for c in covariates(data, benchmark.response) if data[c].nunique() > KEPT]
        rows = []
        for number in range(1, folds + 1):
            row: dict[str, float] = {}
            tables = {"all": data, "kept": data[[benchmark.response, *kept]]}
            for label, own in ((each, tables[each]) for each in given.covariates):
                train, test = own[fold != number], own[fold == number]
                written = formulas(train, benchmark, "structured")
                formula = dict(zip(("loc", "scale"), written, strict=True))
                for family in given.families:
                    start = time.process_time()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", dr.DeepRegressWarning)
                        model = dr.fit(formula, train, family=FAMILIES[family], verbose=0)
                    row[f"{label} {family}"] = -float(np.mean(model.predict(test, "logpdf")))
                    row[f"{label} {family} s"] = time.process_time() - start
            rows.append(row)
            print(name, number, {key: round(value, 3) for key, value in row.items()}, flush=True)
        means = pd.DataFrame(rows)
        print(f"{name}: {len(rows)} folds; sd over folds {means.std().round(3).to_dict()}")
        print(means.mean().round(3).to_dict(), flush=True)
        published = pd.read_csv(folder / "published.csv")
        own = published[
            (published.dataset == name) & published.model.str.endswith("structured DRIFT")
        ]
        print("  published:", dict(zip(own.model, own.value, strict=True)))


def wine(folder: Path, splits: int) -> None:
    """Red wine as ordered classes, five covariates: DRIFT with linear and smooth terms, ordinal."""
    data = pd.read_csv(folder / "wine_quality" / "wine_red.csv.gz")
    smooth = " + ".join(f"s({name}, k=6)" for name in FIVE)
    models = {
        "ordinal": (f"quality ~ {' + '.join(FIVE)}", "ordinal"),
        "drift linear": (f"quality ~ {' + '.join(FIVE)}", "drift"),
        "drift smooth": (f"quality ~ {smooth}", "drift"),
    }
    rows = []
    for number in range(splits):
        train, test = data[data[f"test_{number}"] == 0], data[data[f"test_{number}"] == 1]
        row = {}
        for name, (formula, kind) in models.items():
            family = kind
            if kind == "drift":
                family = dr.families.drift(base="logistic", outcome="ordered")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", dr.DeepRegressWarning)
                model = dr.fit(formula, train, family=family, verbose=0)
            row[name] = -float(np.mean(model.predict(test, "logpdf")))
        rows.append(row)
        print(number, {key: round(value, 4) for key, value in row.items()}, flush=True)
    print(pd.DataFrame(rows).agg(["mean", "std"]).round(4))


def main() -> None:
    """Read the command line and run one study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("simulated", "uci", "wine"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--sets", nargs="+", default=["airfoil", "concrete", "diabetes", "energy"])
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--covariates", nargs="+", default=["all", "kept"])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--n", type=int, default=1000)
    given = parser.parse_args()
    if given.study == "simulated":
        simulated(given.n, seed=1)
    elif given.study == "uci":
        uci(given)
    else:
        wine(given.folder, given.splits)


if __name__ == "__main__":
    main()
