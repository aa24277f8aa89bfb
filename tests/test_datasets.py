"""The tables that come with the package: documented, complete, read as documented."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepregress import datasets
from deepregress.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
TABLES = [name for name in datasets.names() if name != "digits"]

# Facts published with the data: rows, columns, and a statistic of one column.
FACTS = {
    "anes96": (944, 10, "age", "mean", 47.04344),
    "bikeshare": (8645, 13, "bikers", "mean", 143.7944),
    "chickweight": (578, 4, "weight", "mean", 121.8183),
    "diabetes": (442, 11, "progression", "mean", 152.1335),
    "engel": (235, 2, "foodexp", "mean", 624.1501),
    "gbsg2": (686, 10, "event", "sum", 299.0),
    "mcycle": (133, 2, "accel", "mean", -25.54586),
    "mcycle_boot": (94, 4, "times", "max", 57.6),
    "penguins": (344, 7, "body_mass_g", "mean", 4201.754),
    "rossi": (432, 9, "event", "sum", 114.0),
    "sacramento": (932, 9, "price", "mean", 246661.6),
    "sleepstudy": (180, 3, "reaction", "mean", 298.5079),
}


def raw(name: str) -> pd.DataFrame:
    """Return the file as it lies in data/, every field a string."""
    (path,) = [p for p in DATA.iterdir() if p.name.split(".")[0] == name]
    return pd.read_csv(path, dtype="str")


def test_every_table_has_facts() -> None:
    assert set(FACTS) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_published_facts(name: str) -> None:
    rows, columns, column, statistic, expected = FACTS[name]
    frame = datasets.load(name)
    assert frame.shape == (rows, columns)
    assert getattr(frame[column], statistic)() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", TABLES)
def test_factors_lose_no_value(name: str) -> None:
    frame, strings = datasets.load(name), raw(name)
    assert not [c for c in frame if frame[c].dtype == object]
    for column in frame.select_dtypes("category"):
        same = frame[column].astype("str").fillna("") == strings[column].fillna("")
        assert same.all(), column
        assert set(frame[column].cat.categories) == set(strings[column].dropna())


@pytest.mark.parametrize("name", datasets.names())
def test_readme_names_every_column(name: str) -> None:
    readme = (DATA / "README.md").read_text()
    assert f"| `{name}` | {len(raw(name))} x {raw(name).shape[1]} |" in readme
    section = re.search(rf"^\*\*{name}\*\*.*?(?=^\*\*|\Z)", readme, re.S | re.M)
    assert section is not None
    columns = set(raw(name)) if name != "digits" else {"px_ij", "digit"}
    assert columns <= set(re.findall(r"`(\w+)`", section.group()))


def test_ordered_factors() -> None:
    assert datasets.load("gbsg2")["grade"].cat.ordered
    assert datasets.load("anes96")["pid"].cat.codes.max() == 6
    assert not datasets.load("bikeshare")["weather"].cat.ordered


def test_digits_are_images() -> None:
    digits = datasets.load("digits")
    image, label = digits["image"], digits["label"]
    assert image.shape == (1797, 8, 8, 1)
    assert image.dtype == np.float32
    assert (image.min(), image.max()) == (0.0, 1.0)
    assert np.bincount(label).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    first = [0, 0, 5, 13, 9, 1, 0, 0]
    np.testing.assert_array_equal(image[0, 0, :, 0] * 16, first)


def test_mcycle_agrees_with_its_free_subset() -> None:
    full, subset = datasets.load("mcycle"), datasets.load("mcycle_boot")
    pairs = set(map(tuple, full.to_numpy()))
    assert set(map(tuple, subset[["times", "accel"]].to_numpy())) <= pairs


def test_unknown_name_is_answered_with_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"'mcycel' is not a data set.*did you mean 'mcycle'\?"):
        datasets.load("mcycel")


@pytest.mark.slow
def test_wheel_carries_the_tables(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        inside = set(archive.namelist())
    tables = {f"deepregress/tables/{p.name}" for p in DATA.iterdir() if p.is_file()}
    assert tables <= inside
    assert not [name for name in inside if "reference" in name]
    code = "from deepregress import datasets as d; print([len(d.load(n)) for n in d.names()])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", check=True, capture_output=True
    )
    expected = [len(datasets.load(name)) for name in datasets.names()]
    assert done.stdout.decode().strip() == str(expected)
