"""Fits to a table on disk: equal to those in memory where the terms learn from all rows."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

import deepregress as dr
from deepregress import survey
from deepregress.disk import scratch, source
from deepregress.errors import (
    DataError,
    DroppedRowsWarning,
    FormulaError,
    PredictionError,
    UnknownVariable,
)
from deepregress.solvers import plan
from deepregress.solvers.base import Training

N = 3000


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    x1, x2, x3 = rng.random(N), rng.normal(size=N), rng.normal(size=N)
    g, f = rng.integers(0, 150, N), rng.choice(["b", "a", "c"], N)
    eta = np.sin(6 * x1) + 0.2 * x2**2 + 0.2 * x3 + 0.5 * (f == "c")
    eta += 0.3 * rng.normal(size=150)[g]
    time, limit = np.exp(eta + rng.gumbel(size=N)), rng.exponential(10.0, N)
    table = pd.DataFrame({"x1": x1, "x2": x2, "x3": x3, "g": g, "f": f, "w": rng.random(N) + 0.2})
    table["y"] = eta + 0.5 * rng.normal(size=N)
    table["count"] = rng.poisson(np.exp(0.5 * eta))
    table["time"], table["dead"] = np.minimum(time, limit), (time <= limit).astype(int)
    table["kind"] = np.where(eta > 1, "high", np.where(rng.random(N) < 0.5, "low", "middle"))
    table.loc[::97, "x2"] = np.nan
    table.loc[5, "w"] = 0.0
    return table


@pytest.fixture(scope="module")
def path(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "table.parquet"
    data.to_parquet(path, row_group_size=N)
    return path


def quietly(*arguments: object, **options: object) -> dr.FittedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        return dr.fit(*arguments, verbose=0, **options)


MODELS = {
    "normal": ("y ~ s(x1) + s(x2) + x3 + f + (1 | g)", "normal", "w"),
    "poisson": ("count ~ s(x1) + x2 + C(f):x3 + offset(0.1 * x3)", "poisson", None),
    "location and scale": ({"loc": "y ~ s(x1, by=f) + te(x2, x3, k=4)", "scale": "~ s(x3)"},
                           "normal", "w"),
    "fixed scale": ({"loc": "y ~ s(x1)", "scale": 0.5}, "normal", None),
    "survival": ("Surv(time, dead) ~ s(x1) + x3", "weibull", "w"),
    "classes": ("kind ~ s(x1) + x3", "categorical", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(data: pd.DataFrame, path: Path) -> dict[str, tuple[dr.FittedModel, dr.FittedModel]]:
    """Each model from memory and from disk."""
    return {
        name: tuple(
            quietly(formula, each, family=family, weights=weights) for each in (data, str(path))
        )
        for name, (formula, family, weights) in MODELS.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_fit_in_memory(name: str, pairs: dict) -> None:
    memory, disk = pairs[name]
    assert list(memory.coef.index) == list(disk.coef.index)
    np.testing.assert_allclose(disk.coef, memory.coef, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(disk.std_error, memory.std_error, rtol=1e-8)
    np.testing.assert_allclose(disk.edf, memory.edf, rtol=1e-8)
    for number in ("loglik", "reml", "aic", "bic", "edf_total", "nobs"):
        assert getattr(disk, number) == pytest.approx(getattr(memory, number), rel=1e-10)
    assert str(disk.summary()) == str(memory.summary())


def test_arrays_of_all_rows_are_in_files(pairs: dict) -> None:
    disk = pairs["normal"][1].stored
    assert disk is not None
    units = disk.objective.units
    arrays = [disk.eta, disk.objective.response.lower, disk.objective.response.weights]
    arrays += [array for unit in units for array in (unit.X, unit.offset)]
    arrays += [a for unit in units for each in unit.levels for a in (each.codes, each.values)]
    assert all(scratch.is_stored(array) for array in arrays)
    assert units[0].levels


@pytest.mark.parametrize("name", ["poisson", "location and scale"])
def test_chunks_change_rounding_only(
    name: str, pairs: dict, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coefficients of terms that are all but straight are known by their effects only."""
    monkeypatch.setattr(source, "BATCH_ROWS", 333)
    formula, family, weights = MODELS[name]
    memory, disk = pairs[name][0], quietly(formula, path, family=family, weights=weights)
    new = {"x1": [0.1, 0.5], "x2": [0.0, 1.0], "x3": [0.0, 1.0], "f": ["a", "c"]}
    one, other = (model.predict(new, "params", se=True) for model in (memory, disk))
    np.testing.assert_allclose(other, one, rtol=1e-6)
    assert disk.loglik == pytest.approx(memory.loglik, rel=1e-8)


def test_long_tables_are_gone_through_in_parts(
    pairs: dict, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums over the rows for what is reported are those of all rows at once."""
    monkeypatch.setattr("deepregress.disk.scratch.parts.__defaults__", (250,))
    for name in ("normal", "poisson"):
        formula, family, weights = MODELS[name]
        memory, disk = pairs[name][0], quietly(formula, path, family=family, weights=weights)
        assert disk.loglik == pytest.approx(memory.loglik, rel=1e-10)
        one, other = disk._goodness, memory._goodness
        assert one.deviance_explained == pytest.approx(other.deviance_explained, rel=1e-9)
        assert one.r_squared == pytest.approx(other.r_squared, rel=1e-9)


# -- terms that learn from some of the rows --------------------------------------------------------


@pytest.fixture(scope="module")
def sampled(path: Path) -> dr.FittedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "SAMPLE_ROWS", 400)
        patch.setattr(source, "BATCH_ROWS", 500)
        return quietly(*MODELS["normal"][:1], path, weights="w")


def test_sample_gives_the_fit_but_for_its_knots(sampled: dr.FittedModel, pairs: dict) -> None:
    memory = pairs["normal"][0]
    assert sampled.nobs == memory.nobs
    assert 400 <= sampled.frame.n_obs < 700
    assert sampled.edf_total == pytest.approx(memory.edf_total, abs=0.5)
    assert sampled.loglik == pytest.approx(memory.loglik, abs=0.5)
    assert sampled._goodness.deviance_explained == pytest.approx(
        memory._goodness.deviance_explained, abs=1e-3
    )
    new = {"x1": [0.1, 0.5], "x2": [0.0, 1.0], "x3": [0.0, 1.0], "g": [3, 4], "f": ["a", "c"]}
    one = memory.predict(new, se=True)
    np.testing.assert_array_less(np.abs(sampled.predict(new) - one["estimate"]), 0.2 * one["se"])
    assert len(sampled.partial_effect("s(g)")) == 150
    for name in ("x1", "x2", "x3"):
        assert sampled._profile.ranges[name] == memory._profile.ranges[name]


def test_what_a_sample_serves(sampled: dr.FittedModel) -> None:
    n = sampled.frame.n_obs
    assert len(sampled.residuals()) == n
    assert len(sampled.plot().axes) >= 4
    assert sampled.check().table.shape[0] >= 2
    assert re.search(r"n = 2968\b", str(sampled.summary()))


def test_what_needs_all_rows(sampled: dr.FittedModel, path: Path, tmp_path: Path) -> None:
    message = rf"fitted to 2968 rows of a table on disk and holds {sampled.frame.n_obs} of them"
    for asked in (sampled.predict, sampled.log_score, sampled.sample):
        with pytest.raises(PredictionError, match=message):
            asked()
    with pytest.raises(PredictionError, match=message):
        dr.orthogonal.protect(sampled, "x3")
    sampled.save(tmp_path / "model.zip")
    loaded = dr.load(tmp_path / "model.zip")
    assert loaded.nobs == 2968 and loaded.bic == sampled.bic
    assert str(loaded.summary()) == str(sampled.summary())
    for asked in (loaded.predict, loaded.variance_components):
        with pytest.raises(PredictionError, match=message):
            asked()
    new = {"x1": [0.1], "x2": [0.0], "x3": [0.0], "g": [3], "f": ["a"]}
    np.testing.assert_array_equal(loaded.predict(new), sampled.predict(new))


def test_uncertainty_of_smoothing_parameters_and_comparisons(pairs: dict, path: Path) -> None:
    memory, disk = pairs["normal"]
    np.testing.assert_allclose(disk.cov_corrected, memory.cov_corrected, rtol=1e-6, atol=1e-9)
    assert disk.aic_corrected == pytest.approx(memory.aic_corrected, rel=1e-8)
    pd.testing.assert_frame_equal(disk.variance_components(), memory.variance_components())
    smaller = quietly("y ~ s(x1) + s(x2)", path, weights="w")
    table = dr.anova(smaller, disk)
    assert table["p_value"].iloc[1] < 1e-10


def test_new_data_on_disk(pairs: dict, data: pd.DataFrame, tmp_path: Path) -> None:
    new = data.dropna().iloc[:50]
    new.to_parquet(tmp_path / "new.parquet")
    model = pairs["normal"][1]
    np.testing.assert_array_equal(model.predict(tmp_path / "new.parquet"), model.predict(new))
    score = model.log_score(pyarrow.dataset.dataset(tmp_path / "new.parquet"))
    assert score == pytest.approx(model.log_score(new), rel=1e-12)


MEASURE = """
import sys, threading, time
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import deepregress as dr

def anonymous():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024

path, n, formula, rng = sys.argv[1], int(sys.argv[2]), sys.argv[3], np.random.default_rng(0)
options = {"training": dr.Training(epochs=1, crossfit=False), "seed": 1, "verbose": 0}
small = {name: rng.random(2000) for name in ("x", "z", "y")}
dr.fit(formula, small, **options)
with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in small])) as writer:
    for _ in range(0, n, 100_000):
        block = {name: rng.random(100_000) for name in small}
        block["y"] += np.sin(6 * block["x"]) + np.sin(6 * block["z"])
        writer.write_table(pa.table(block))
before, most = anonymous(), [0.0]

def watch():
    while True:
        most[0] = max(most[0], anonymous())
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
model = dr.fit(formula, path, **options)
str(model.summary())
assert model.deep is None or model.deep.effects[0].multiplier > 0
print(sum(unit.X.nbytes for unit in model.stored.objective.units) / 2**20, most[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A design of 1.2 GiB; what a fit holds is a sample of the rows, some batches, some chunks."""
    design, held = measured("y ~ s(x, k=40) + s(z, k=40)", tmp_path)
    assert design > 1200
    assert held < 400


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_of_networks_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """About 190 MiB whatever the rows (benchmarks/parquet.py): no array of all rows is a tensor."""
    _, held = measured("y ~ s(x) + deep(z)", tmp_path)
    assert held < 320


def measured(formula: str, folder: Path) -> list[float]:
    """MiB of the design, and those held by a fit to 2,000,000 rows on disk."""
    arguments = [sys.executable, "-c", MEASURE, str(folder / "t.parquet"), "2000000", formula]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("y ~ s(x11)", UnknownVariable, r"'x11' in the formula for 'loc' is not a column; did you"),
        ("yy ~ x1", UnknownVariable, "'yy' in the response is not a column"),
        ("y ~ s(f)", DataError, r"s\(f\)"),
        ("y ~ x1:x9", UnknownVariable, "'x9'"),
        ("y ~ log(x3)", FormulaError | DataError, r"log\(x3\)"),
        ("count / 0 ~ x1", DataError, "response count / 0: not finite"),
    ],
)
def test_errors_have_the_label(formula, error, message, path: Path) -> None:
    kinds = error.__args__ if hasattr(error, "__args__") else error
    with pytest.raises(kinds, match=message):
        quietly(formula, path)


def test_rows_that_do_not_fit_what_was_learned(
    data: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No term learned from the row in which the difference is zero."""
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 100)
    table = data[["y"]].assign(x=data["x1"], z=data["x1"] + 1.0)
    table.loc[1234, "z"] = table.loc[1234, "x"]
    table.loc[0, "z"] = 0.0
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"1 / \(z - x\).*in rows 0 to 2999 of the data on disk"):
        quietly("y ~ I(1 / (z - x))", tmp_path / "t.parquet")


def test_paths_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data='nowhere.parquet': there is no such file"):
        quietly("y ~ x1", "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DataError, match="is no parquet file"):
        quietly("y ~ x1", tmp_path / "text.parquet")


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crossfit", "in_memory"), [(False, plan.IN_MEMORY), (False, 0), (True, 0)]
)
def test_network_beside_smooths(
    crossfit: bool,
    in_memory: int,
    data: pd.DataFrame,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows and inputs are read by the stretch, or are in memory where they are small."""
    monkeypatch.setattr(plan, "IN_MEMORY", in_memory)
    options = {"training": Training(epochs=2, crossfit=crossfit), "seed": 1}
    formula = "y ~ s(x1) + deep(x1, x3, f)"
    memory, disk = (quietly(formula, each, **options) for each in (data, path))
    np.testing.assert_allclose(disk.coef, memory.coef, rtol=1e-6, atol=1e-8)
    assert disk.loglik == pytest.approx(memory.loglik, rel=1e-8)
    new = data.iloc[:9]
    np.testing.assert_allclose(disk.predict(new), memory.predict(new), rtol=1e-6)
    assert disk.stored is not None and scratch.is_stored(disk.stored.eta)
    if crossfit:  # its predictors are those of the members that did not see the row
        return
    np.testing.assert_allclose(disk.stored.eta, memory._training_eta, rtol=1e-6, atol=1e-8)
