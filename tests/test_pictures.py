"""Pictures by path: decoded as Pillow does, row by row, with errors that name the file."""

import numpy as np
import pytest
from PIL import Image

from deepregress.errors import DataError
from deepregress.pictures import Pictures, check_files

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("pictures")
    colours = rng.integers(0, 256, (6, 4, 3)).astype(np.uint8)
    Image.fromarray(colours).save(where / "colour.png")
    Image.fromarray(colours[:, :, 0]).save(where / "grey.png")
    deep = np.linspace(0, 65535, 24).reshape(6, 4).astype(np.uint16)
    Image.fromarray(deep).save(where / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(colours).save(where / "turned.png", exif=exif)
    (where / "broken.png").write_bytes((where / "colour.png").read_bytes()[:60])
    (where / "text.jpg").write_text("no picture")
    np.save(where / "colours.npy", colours)
    return where


def pictures(folder, *names, size=(6, 4), channels=3):
    paths = tuple(str(folder / name) for name in names)
    every = np.arange(len(names))
    return Pictures(every, every, paths, size, channels, "photo(path)")


def test_pixels_are_those_of_the_file(folder):
    colours = np.load(folder / "colours.npy")
    (row,) = np.asarray(pictures(folder, "colour.png"))
    assert row.dtype == np.float32
    np.testing.assert_allclose(row, colours / 255, atol=1e-7)
    (row,) = np.asarray(pictures(folder, "grey.png", channels=1))
    np.testing.assert_allclose(row[:, :, 0], colours[:, :, 0] / 255, atol=1e-7)
    (row,) = np.asarray(pictures(folder, "grey.png"))
    assert row.shape == (6, 4, 3)
    (row,) = np.asarray(pictures(folder, "turned.png", size=(4, 6)))
    np.testing.assert_allclose(row, np.rot90(colours, -1) / 255, atol=1e-7)


def test_sixteen_bits_are_not_cut_off(folder):
    (row,) = np.asarray(pictures(folder, "deep.png", channels=1))
    # eight bits are left
    np.testing.assert_allclose(row.ravel(), np.linspace(0, 1, 24), atol=1 / 255)


def test_resizing_keeps_the_mean(folder):
    flat = np.full((40, 30, 3), 51, np.uint8)
    Image.fromarray(flat).save(folder / "flat.jpg")
    rows = np.asarray(pictures(folder, "flat.jpg", size=(8, 9)))
    assert rows.shape == (1, 8, 9, 3)
    np.testing.assert_allclose(rows, 0.2, atol=0.01)  # jpg


def test_rows_are_read_when_they_are_needed(folder):
    stored = pictures(folder, "colour.png", "text.jpg", "grey.png")
    assert stored.shape == (3, 6, 4, 3)
    some = stored[np.array([2, 0])]
    np.testing.assert_array_equal(np.asarray(some)[1], np.asarray(stored[:1])[0])
    with pytest.raises(DataError, match=r"photo\(path\): the file '.*text.jpg' of row 1 .* is no"):
        np.asarray(stored[1:])


def test_broken_and_missing_files_are_named(folder):
    with pytest.raises(DataError, match=r"broken.png' of row 0 .* is no picture"):
        np.asarray(pictures(folder, "broken.png"))
    with pytest.raises(DataError, match=r"absent.png' of row 0 .* does not exist"):
        np.asarray(pictures(folder, "absent.png"))
    with pytest.raises(DataError, match=r"photo\(p\): 1 of 2 files do not exist, .*absent.png"):
        check_files([str(folder / "grey.png"), str(folder / "absent.png")], "photo(p)")
