"""Structured effects beside a network: bias, RMSE and coverage by simulation.

    python benchmarks/effects.py effects --replications 60
    python benchmarks/effects.py attenuation --replications 300
    python benchmarks/effects.py calibration --replications 200

`effects` draws the data of METHODS 5.1 (n = 1000; x1..x4 uniform, z1..z10 normal, cor(z1, x1) = .6)
with the first predictor

    sin(6 x1) + 2 x2^2 - x3 + .5 tanh(z1 z2) + .3 cos(2 z3)

as the location of a normal response (log scale -1 + .8 x4), the log mean of a Poisson or half the
logit of a Bernoulli response, and fits x3 + s(x1) + s(x2) with and without deep(x1, x2, z1..z10).
Of s(x1), centred over the rows, it prints over a grid of 50 points the root mean square of the
bias, the RMSE, and over the rows the coverage of pointwise 95 % bands: from the covariance given
the networks, and from `cov_population`. The network's part has mean zero given x1, so s(x1) is the
effect in the population. A logit without the network's part is another one (it is attenuated).

`attenuation` shows what that does to the structured model alone: coverage of the effect given the
network's part, of the effect of its own model (from a fit to 300,000 rows), and of the first with
the network's true part as an offset. Bernoulli, n = 1000, 300 replications: .896 (.008), .961
(.004) and .963 (.004), with an attenuation of .924: the bands are right, the target is another.

`calibration` has a normal response that depends on x1 alone, n = 400, and prints how often the
network is kept, and how often its score difference exceeds 1.645 standard errors: the one-sided
test at 5 % that the deep part matters.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd

import deepregress as dr
from deepregress.data import prediction_frame

Z = [f"z{j}" for j in range(1, 11)]
STRUCTURED, DEEP = "y ~ x3 + s(x1) + s(x2)", f" + deep(x1, x2, {', '.join(Z)})"
FAMILIES = ("normal", "poisson", "bernoulli")
FACTOR = {"normal": 1.0, "poisson": 1.0, "bernoulli": 2.0}
GRID = np.linspace(0.01, 0.99, 50)
ONE_SIDED = 1.645
LARGE = 300_000


def covariates(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """x1..x4 and z1..z10."""
    x, z = rng.uniform(size=(n, 4)), rng.normal(size=(n, 10))
    z[:, 0] = 0.6 * (x[:, 0] - 0.5) * np.sqrt(12) + 0.8 * z[:, 0]
    return pd.DataFrame(np.hstack([x, z]), columns=["x1", "x2", "x3", "x4", *Z])


def draw(family: str, n: int, seed: int) -> pd.DataFrame:
    """Covariates and a response."""
    rng = np.random.default_rng(seed)
    d = covariates(n, rng)
    eta = np.sin(6 * d.x1) + 2 * d.x2**2 - d.x3
    eta += 0.5 * np.tanh(d.z1 * d.z2) + 0.3 * np.cos(2 * d.z3)
    if family == "normal":
        return d.assign(y=eta + np.exp(-1 + 0.8 * d.x4) * rng.normal(size=n))
    if family == "poisson":
        return d.assign(y=rng.poisson(np.exp(eta)).astype(float))
    return d.assign(y=(rng.random(n) < 1 / (1 + np.exp(-2 * eta))).astype(float))


def formula(family: str, *, deep: bool) -> str | dict[str, str]:
    """With or without the network."""
    first = STRUCTURED + (DEEP if deep else "")
    return {"loc": first, "scale": "~ s(x4)"} if family == "normal" else first


def effect(model: dr.FittedModel, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s(x1) with its standard errors given the networks and in the population."""
    parameter = model.family.parameter_names[0]
    table = model.partial_effect("s(x1)", parameter, grid={"x1": x1})
    unit = model._predictors.units[0]
    index = unit.places["s(x1)"]
    block = next(block for block, _ in unit.blocks.values() if block.label == "s(x1)")
    X = block.evaluate(prediction_frame({"x1": x1}, ["x1"]))
    V = model.cov_population.to_numpy()[np.ix_(index, index)]
    return table["effect"].to_numpy(), table["se"].to_numpy(), np.sqrt(np.sum((X @ V) * X, axis=1))


def one(family: str, n: int, seed: int, *, deep: bool) -> tuple[np.ndarray, float, float, float]:
    """Errors on the grid, coverage by either covariance, and the multiplier."""
    data = draw(family, n, seed)
    model = dr.fit(formula(family, deep=deep), data, family, seed=seed, verbose=0)
    factor, centre = FACTOR[family], np.mean(np.sin(6 * data.x1))
    errors = effect(model, GRID)[0] - factor * (np.sin(6 * GRID) - centre)
    value, se, population = effect(model, data.x1.to_numpy())
    off = np.abs(value - factor * (np.sin(6 * data.x1) - centre))
    multiplier = model.deep.effects[0].multiplier if deep else 0.0
    return (
        errors,
        float(np.mean(off < 1.96 * se)),
        float(np.mean(off < 1.96 * population)),
        multiplier,
    )


def effects(families: list[str], n: int, replications: int) -> None:
    """Print bias, RMSE and coverage."""
    for family in families:
        for deep in (False, True):
            runs = [one(family, n, seed, deep=deep) for seed in range(replications)]
            errors = np.array([run[0] for run in runs])
            bias = errors.mean(axis=0)
            rmse = np.sqrt(np.mean(errors**2, axis=1))
            covered = np.array([run[1:3] for run in runs])
            mc = covered.std(axis=0, ddof=1) / np.sqrt(replications)
            print(
                f"{family:9s} {'with network' if deep else 'structured  '} "
                f"bias {np.sqrt(np.mean(bias**2)):.4f}  "
                f"RMSE {rmse.mean():.4f} ({rmse.std(ddof=1) / np.sqrt(replications):.4f})  "
                f"coverage given networks {covered[:, 0].mean():.3f} ({mc[0]:.3f}), "
                f"population {covered[:, 1].mean():.3f} ({mc[1]:.3f})  "
                f"network kept {np.mean([run[3] > 0 for run in runs]):.2f}",
                flush=True,
            )


def attenuation(families: list[str], n: int, replications: int) -> None:
    """Print coverage by the structured model alone of three effects of x1."""
    for family in families:
        written, x1 = formula(family, deep=False), np.linspace(0, 1, 400)
        known = (
            {**written, "loc": f"{written['loc']} + offset(g)"}
            if isinstance(written, dict)
            else f"{written} + offset(g)"
        )
        large = dr.fit(written, draw(family, LARGE, 987_654), family, verbose=0)
        own, given = effect(large, x1)[0], FACTOR[family] * np.sin(6 * x1)
        given -= given.mean()
        shares = []
        for seed in range(replications):
            d = draw(family, n, seed)
            d["g"] = FACTOR[family] * (0.5 * np.tanh(d.z1 * d.z2) + 0.3 * np.cos(2 * d.z3))
            alone, offset = (dr.fit(text, d, family, verbose=0) for text in (written, known))
            pairs = ((alone, given), (alone, own), (offset, given))
            shares.append([share_within(model, d.x1, np.interp(d.x1, x1, f)) for model, f in pairs])
        mean = np.mean(shares, axis=0)
        error = np.std(shares, axis=0, ddof=1) / np.sqrt(replications)
        names = ("given the network's part", "of its own model", "with that part as offset")
        cells = [f"{name} {m:.3f} ({e:.3f})" for name, m, e in zip(names, mean, error, strict=True)]
        slope = own @ given / (given @ given)
        print(f"{family:9s} attenuation {slope:.3f}; coverage {', '.join(cells)}", flush=True)


def share_within(model: dr.FittedModel, x1: pd.Series, truth: np.ndarray) -> float:
    """Share of the rows in which the 95 % band of s(x1) has the truth, centred over the rows."""
    value, se, _ = effect(model, x1.to_numpy())
    return float(np.mean(np.abs(value - truth + truth.mean()) < 1.96 * se))


def calibration(n: int, replications: int) -> None:
    """Print how often a deep term without effect is kept, and found significant."""
    kept, significant = 0, 0
    for seed in range(replications):
        rng = np.random.default_rng(1000 + seed)
        data = covariates(n, rng)
        data["y"] = np.sin(6 * data.x1) + 0.5 * rng.normal(size=n)
        written = f"y ~ s(x1) + deep(x1, x2, {', '.join(Z[:5])})"
        deep = dr.fit(written, data, seed=seed, verbose=0).deep
        kept += deep.effects[0].multiplier > 0
        significant += deep.score_difference > ONE_SIDED * deep.score_se
    print(
        f"n = {n}, no deep effect: kept in {kept} of {replications} fits, score difference above "
        f"{ONE_SIDED} standard errors in {significant}"
    )


def main() -> None:
    """Read the command line and run one study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["effects", "attenuation", "calibration"])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--replications", type=int, default=60)
    given = parser.parse_args()
    warnings.simplefilter("ignore", dr.DeepRegressWarning)
    if given.what == "effects":
        effects(given.families, given.rows or 1000, given.replications)
    elif given.what == "attenuation":
        attenuation(given.families, given.rows or 1000, given.replications)
    else:
        calibration(given.rows or 400, given.replications)


if __name__ == "__main__":
    main()
