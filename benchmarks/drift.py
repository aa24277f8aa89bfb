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
    proportional odds     -1.4841  -1.4837   0.930 (0.101)   0.934 (0.100)   0.005   1.3

Cox loses .030, most of it on early events (.025 on the 158 test rows with t < 0.1): the truth
is Weibull (true score -.6588, `weibull` -.6580, DRIFT's network an edf of .4), and a Bernstein
polynomial in time does not follow log t near 0. The gain is that of the baseline; censored rows
have .004 of it.

All numbers but those of the table by marginal likelihood are of fits from one first stiffness, 10,
before the fixed points of several were compared.

UCI, mean negative log density of test rows, smaller is better. `normal` and `drift` have the same
formulas, those of uci.py (smooths in loc, linear terms in scale); `kept` without covariates of ten
values or fewer, as in the paper. Few folds, the machine being shared: they are those of
baselines.csv, whose `gaulss_add_lin` is over all ten, but the paper's own could not be rebuilt.

    set        folds   normal   drift   kept: normal   drift   published structured   gaulss_add_lin
    diabetes   1-3      5.401   5.304          5.460   5.344                    5.2            5.396
    energy     1-3      1.042   0.573          2.520   2.404                    2.3            1.326
    airfoil    1-3      2.893   2.937          2.979   2.964                    3.1            2.809
    concrete   1-2      3.084   3.094          3.084   3.094                    3.3            3.125

On these folds met: airfoil and concrete; not met: diabetes (by 0.1) and energy with the paper's two
covariates (by 0.10). Two or three folds of ten do not settle any of it. Naval was not finished in
the time there was: no result. Folds cannot be paired with published_drift_folds.csv: its rows of
`neatls` are the same for all variants of the model, and -5.27 on seven of ten folds of diabetes.

Airfoil fold 3 with all covariates, by base: the loss of 27 (sum over 148 rows) against the normal
model is a loss of 35 on two rows in the middle of the response (121.9, 123.2; slope of phi .90 and
.92), far from the network's tails. Both models predict too small a scale there: the normal model
has them at -5.1 and -5.6 scales, DRIFT, whose scale is smaller, at -7.9 and -8.1. A base with
longer tails loses less; AIC of the training rows takes the logistic one, still behind `normal`.

    airfoil 3    normal   drift: normal   logistic   gumbel   gumbel_min   cauchy
    test          3.013           3.199      3.046    2.817        2.908    2.886
    AIC / 2n          -           2.725      2.699    2.749        2.710    2.724

Fold 1, `kept`, by base (`*`: smallest AIC of the training rows among the four):

    set         normal   drift: normal   logistic   gumbel   gumbel_min
    energy       2.656           2.584      2.478    2.570        2.383*
    airfoil      2.990           2.980      2.932*   3.196        2.994
    diabetes     5.388           5.291      5.381    5.395*       5.295
    concrete     3.053           3.041      3.028*   3.239        3.310

Network and smoothing parameters are found in turn and have several fixed points. By the marginal
likelihood V of network and coefficients (module `flow_fit`), `kept`, means over folds 1-3: from one
stiffness, the best V of those from 10 and 0.3 (fold 1: and 300), and the base with the best V from
10, then the best V of its fixed points; beside it the base by AIC. Chosen on training rows alone:

    set        normal   one start   starts    auto   by AIC   published   auto chooses
    energy      2.520       2.359    2.310   2.312    2.320         2.3   gumbel_min
    airfoil     2.979       2.964    2.964   2.941    2.941         3.1   logistic
    diabetes    5.460       5.344    5.344   5.344    5.379         5.2   normal
    concrete    3.136       3.107    3.106   3.093    3.093         3.3   logistic

With all covariates energy folds 1-2 go from 0.518 to 0.493, airfoil fold 3 from 3.199 to 3.046 by
`auto`, still behind `normal` (3.013). Of the 15 fits nine are better by `auto` than from one start,
three the same, three worse: energy fold 2, 2.274 to 2.414 and 0.526 to 0.540 with all covariates,
and concrete fold 2, 3.147 to 3.157. The starts alone matter on energy fold 1 (2.584 to 2.441). On
these folds met: energy (2.31 against a rounded 2.3), airfoil, concrete; not met: diabetes. All ten
folds were not run: with three starts, 2 to 17 s CPU each, a fit takes about three times as long as
with one, `auto` six times (44 s on energy fold 1).

Red wine as ordered classes, five covariates, splits 0-4 (sd over splits 0.09 to 0.11): `ordinal`
1.1180, DRIFT with linear terms 1.1181, with smooth terms 1.0991. Published over 20 splits: 1.12 for
POLR, 1.11 for DRIFT with neural basis functions; on these five splits met.
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
