"""Tables on disk: the rows, types and levels that fits read by the chunk are those of memory."""

import dataclasses
import errno
import os
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from deepregress.data import Frame, training_set
from deepregress.disk import scratch, source
from deepregress.disk.source import opened
from deepregress.errors import DataError, DeepRegressError, DroppedRowsWarning, ResponseError
from deepregress.survey import Survey
from deepregress.training_rows import read, stored_training_set

N = 1000


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BATCH_ROWS", 70)


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    return pd.DataFrame(
        {
            "y": x + rng.normal(size=N),
            "x": x,
            "count": rng.poisson(2.0, N),
            "half": pd.array(rng.integers(0, 5, N), dtype="Int64"),
            "yes": rng.random(N) < 0.3,
            "text": rng.choice(["b", "a", "d"], N),
            "size": pd.Categorical(
                rng.choice(["small", "large", "huge"], N),
                categories=["small", "large", "huge", "never"],
                ordered=True,
            ),
            "w": rng.random(N) + 0.1,
        }
    )


NEEDS = {"the formula for 'loc'": ("x", "count", "half", "yes", "text", "size")}


def both(data: pd.DataFrame, folder: Path, **options: object) -> tuple[object, ...]:
    """Rows and response from memory and from disk."""
    path = folder / "table.parquet"
    data.to_parquet(path, row_group_size=150)
    given = {"response": "y", "response_variables": ("y",), **options}
    on_disk = opened(path)
    assert on_disk is not None
    memory = training_set(pd.read_parquet(path), NEEDS, **given)
    return *memory, *stored_training_set(on_disk, NEEDS, **given)


def assert_same_columns(one: Frame, other: Frame) -> None:
    assert one.n_obs == other.n_obs
    for name, column in one.columns.items():
        if isinstance(column, pd.Categorical):
            assert list(column.categories) == list(other[name].categories), name
            assert column.ordered == other[name].ordered
            np.testing.assert_array_equal(column.codes, other[name].codes)
        else:
            assert column.dtype == other[name].dtype, name
            np.testing.assert_array_equal(column, other[name])


def test_columns_response_and_weights_are_those_of_memory(tmp_path: Path) -> None:
    data = table()
    frame, response, rows, stored = both(data, tmp_path, weights="w")
    assert rows.n_obs == N
    assert_same_columns(frame, rows.sample)
    np.testing.assert_array_equal(response.lower, stored.lower)
    np.testing.assert_array_equal(response.weights, stored.weights)
    assert stored.lower is stored.upper
    assert scratch.is_stored(stored.lower) and scratch.is_stored(stored.weights)
    chunks = list(rows.frames(["x", "text"]))
    assert max(part.n_obs for _, part in chunks) <= 70
    np.testing.assert_array_equal(np.concatenate([part["x"] for _, part in chunks]), frame["x"])
    assert chunks[-1][0].stop == N


def test_missing_values_weights_and_unused_levels(tmp_path: Path) -> None:
    data = table()
    data.loc[[3, 500], "x"] = np.nan
    data.loc[[500, 990], "half"] = pd.NA  # whole numbers in the first chunks
    data.loc[7, "w"] = 0.0
    data["text"] = data["text"].where(data.index != 3, "only here")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame, response, rows, stored = both(data, tmp_path, weights="w")
    texts = [str(each.message) for each in caught]
    assert len(texts) == 4 and texts[:2] == texts[2:]
    assert "3 of 1000 rows dropped" in texts[0]
    assert_same_columns(frame, rows.sample)
    assert frame["half"].dtype == np.float64
    assert "only here" not in rows.sample["text"].categories
    np.testing.assert_array_equal(response.lower, stored.lower)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"x": (400, np.nan)}, {"na": "raise"}),
        ({"x": (400, np.inf)}, {}),
        ({"w": (400, -1.0)}, {"weights": "w"}),
        ({}, {"weights": np.ones(N - 1)}),
        ({}, {"weights": "ww"}),
        ({}, {"na": "fill"}),
    ],
)
def test_errors_are_those_of_memory(change, options, tmp_path: Path) -> None:
    data = table()
    for name, (row, value) in change.items():
        data.loc[row, name] = value
    path = tmp_path / "table.parquet"
    data.to_parquet(path)
    given = {"response": "y", "response_variables": ("y",), **options}
    with pytest.raises(DeepRegressError) as memory:
        training_set(data, NEEDS, **given)
    with pytest.raises(type(memory.value)) as disk:
        stored_training_set(opened(path), NEEDS, **given)
    assert str(disk.value).startswith(str(memory.value).removesuffix("."))


def test_weights_by_row(tmp_path: Path) -> None:
    data = table()
    data.loc[5, "x"] = np.nan
    w = np.arange(1.0, N + 1)
    with pytest.warns(DroppedRowsWarning):
        _, response, _, stored = both(data, tmp_path, weights=w)
    np.testing.assert_array_equal(response.weights, stored.weights)


def test_forms_of_responses(tmp_path: Path) -> None:
    data = table().assign(time=lambda d: np.exp(d.y), dead=lambda d: d.yes.astype(int))
    data.loc[11, "time"] = np.nan
    form = {"response": "Surv(time, dead)", "response_variables": ("time", "dead")}
    with pytest.warns(DroppedRowsWarning):
        _, response, _, stored = both(data, tmp_path, **form)
    np.testing.assert_array_equal(response.lower, stored.lower)
    np.testing.assert_array_equal(response.upper, stored.upper)
    for name, column in response.rows().items():
        np.testing.assert_array_equal(column, stored.rows()[name])
        assert scratch.is_stored(stored.rows()[name])


def test_factor_as_response(tmp_path: Path) -> None:
    form = {"response": "size", "response_variables": ("size",)}
    _, response, _, stored = both(table(), tmp_path, **form)
    assert stored.levels == response.levels == ("small", "large", "huge")
    np.testing.assert_array_equal(response.lower, stored.lower)


def test_response_that_depends_on_other_rows(tmp_path: Path) -> None:
    with pytest.raises(ResponseError, match=r"response center\(y\): .* depends on the other rows"):
        both(table(), tmp_path, response="center(y)")


def test_response_that_is_not_finite_says_where(tmp_path: Path) -> None:
    data = table()
    data["y"] = np.abs(data["y"])
    data.loc[900, "y"] = -1.0
    with pytest.raises(ResponseError, match=r"response log\(y\): .*in rows 8\d\d to 9\d\d of the"):
        stored = tmp_path / "t.parquet"
        data.to_parquet(stored)
        wanted = {"response": "log(y)", "response_variables": ("y",)}
        stored_training_set(opened(stored), NEEDS, **wanted)


# -- what terms learn from -------------------------------------------------------------------------


def surveyed(data: pd.DataFrame, size: int, *, chunk: int = 50, **options) -> tuple:
    seen = Survey(options.get("crossings", ()), options.get("coded", ()), size)
    frame = Frame.read(data, list(data))
    for start in range(0, len(data), chunk):
        seen.add(frame.rows(slice(start, start + chunk)))
    kinds = seen.kinds([])
    return seen.sample(kinds)


def test_sample_has_extremes_levels_and_crossings() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=3000),
            "id": np.r_[rng.integers(0, 3, 2990), np.arange(100, 110)],
            "g": rng.choice(["a", "b"], 3000, p=[0.998, 0.002]),
            "h": rng.choice(["u", "v"], 3000, p=[0.99, 0.01]),
        }
    )
    rows, sample = surveyed(data, 100, crossings=[("g", "h", "x")], coded=["id"])
    expected = data.iloc[rows]
    np.testing.assert_array_equal(sample["x"], expected["x"])
    np.testing.assert_array_equal(np.asarray(sample["g"]), expected["g"])
    assert np.all(np.diff(rows) > 0) and 100 <= len(rows) < 130
    assert sample["x"].min() == data["x"].min() and sample["x"].max() == data["x"].max()
    assert set(sample["id"]) == set(data["id"])
    cells = set(zip(expected["g"], expected["h"], strict=True))
    assert cells == set(zip(data["g"], data["h"], strict=True))


def test_sample_is_random_and_always_the_same() -> None:
    data = pd.DataFrame({"x": np.zeros(20_000), "z": np.arange(20_000.0)})
    rows, _ = surveyed(data, 2000, chunk=317)
    again, _ = surveyed(data, 2000, chunk=317)
    np.testing.assert_array_equal(rows, again)
    # the first and last row are the ends of z; the others are uniform
    share = np.histogram(rows, bins=10, range=(0, 20_000))[0] / len(rows)
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.09 / 2000)


def test_all_rows_where_they_are_few() -> None:
    rows, sample = surveyed(table()[["x", "text"]], N)
    np.testing.assert_array_equal(rows, np.arange(N))
    assert sample.n_obs == N


# -- tables on disk --------------------------------------------------------------------------------


def test_kinds_of_columns(tmp_path: Path) -> None:
    columns = {
        "decimal": pa.array([Decimal("1.5"), None, Decimal("2.5")]),
        "whole": pa.array([1, 2, 3], pa.int8()),
        "gaps": pa.array([1, None, 3], pa.int16()),
        "flags": pa.array([True, None, False]),
        "text": pa.array(["b", None, "a"]),
        "coded": pa.array(["b", None, "a"]).dictionary_encode(),
        "nothing": pa.nulls(3),
        "lists": pa.array([[1.0, 2.0], None, [3.0, 4.0]]),
        "fixed": pa.array([[1, 2], [5, 6], [3, 4]], pa.list_(pa.int32(), 2)),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    frame = Frame.read(str(tmp_path / "t.parquet"), list(columns))
    nan = np.nan
    for name, expected in {
        "decimal": [1.5, nan, 2.5],
        "whole": np.array([1, 2, 3]),
        "gaps": [1.0, nan, 3.0],
        "flags": [1.0, nan, 0.0],
        "nothing": [nan, nan, nan],
        "lists": [[1.0, 2.0], [nan, nan], [3.0, 4.0]],
        "fixed": [[1.0, 2.0], [5.0, 6.0], [3.0, 4.0]],
    }.items():
        np.testing.assert_array_equal(frame[name], expected)
    assert frame["whole"].dtype == np.int64
    assert list(frame["text"].categories) == ["a", "b"]
    assert list(frame["coded"].categories) == ["b", "a"]
    assert frame["text"].codes.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1], pa.timestamp("s")), r"column 'z' is of type timestamp\[s\]"),
        (pa.array([["a"]]), "column 'z' holds lists of string"),
        (pa.array([[1.0], [1.0, 2.0]]), "column 'z' holds lists of different lengths"),
    ],
)
def test_columns_that_cannot_be_used(values: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source.column("z", values)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        opened(tmp_path / "nothing.parquet")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"text.csv' is no parquet file"):
        opened(str(tmp_path / "text.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder has no parquet file"):
        opened(tmp_path / "empty")
    assert opened(table()) is None
    data = pa.dataset.dataset(tmp_path / "text.csv", format="csv")
    assert Frame.read(data, ["b"])["b"].tolist() == [2]


def test_folders_with_values_in_their_names(tmp_path: Path) -> None:
    for level in ("a", "b"):
        (tmp_path / f"g={level}").mkdir()
        pd.DataFrame({"x": [1.0, 2.0]}).to_parquet(tmp_path / f"g={level}" / "part.parquet")
    frame = Frame.read(tmp_path, ["g", "x"])
    assert list(frame["g"]) == ["a", "a", "b", "b"]
    chunks = list(read(opened(tmp_path), ["g", "x"]))
    assert [list(part["g"]) for part in chunks] == [["a", "a"], ["b", "b"]]


def test_datasets_with_a_filter(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "t.parquet", row_group_size=100)
    whole = pa.dataset.dataset(tmp_path / "t.parquet")
    some = opened(whole.filter(pa.dataset.field("count") > 2))
    x = np.concatenate([part["x"] for part in read(some, ["x"])])
    np.testing.assert_array_equal(x, table().query("count > 2")["x"])
    assert some.n_rows() == len(x)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    _, _, rows, _ = both(table(), tmp_path)
    table().iloc[:300].to_parquet(tmp_path / "table.parquet")
    fresh = dataclasses.replace(rows, source=opened(tmp_path / "table.parquet"))
    with pytest.raises(DataError, match="changed while they were read"):
        list(fresh.frames(["x"]))


# -- temporary files -------------------------------------------------------------------------------


def test_temporary_arrays_leave_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = scratch.temporary_array((1000, 3))
    assert not array.any() and scratch.is_stored(array[5:, 1])
    array[:] = 2.0
    assert array.sum() == 6000.0 and type(array) is np.ndarray
    assert os.listdir(tmp_path) == []
    assert scratch.is_stored(scratch.beside(array, (4,)))
    assert not scratch.is_stored(scratch.beside(array.copy(), (4,)))
    assert scratch.temporary_array((0, 3)).shape == (0, 3)


def test_no_room_for_temporary_files(monkeypatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"no room for 0.0?\d+ GiB .* TMPDIR"):
        scratch.temporary_array((1 << 20, 8))
