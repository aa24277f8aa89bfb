"""What is saved comes back equal, bit for bit, also in another process."""

import json
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deepregress import codec, terms
from deepregress.data import Frame, Response, training_set
from deepregress.design import build_designs, variables
from deepregress.errors import DataError
from deepregress.formula import parse


def round_trip(value):
    tree, arrays = codec.encode(value)
    return codec.decode(json.loads(json.dumps(tree)), arrays)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children) | st.dictionaries(KEYS, children) | st.lists(children).map(tuple)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip_of_nested_values(value):
    again = round_trip(value)
    assert repr(again) == repr(value)  # nan is not equal to itself
    assert type(again) is type(value)


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(max_dims=3, min_side=0),
    )
)
def test_round_trip_of_arrays(array):
    again = round_trip({"a": array})["a"]
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        slice(1, None, 2),
        {3, 1},
        frozenset("ab"),
        np.float64(0.1),
        np.int64(7),
        np.str_("text"),
        {"!": "dict", "of": 1},
        float("inf"),
        -0.0,
    ],
)
def test_round_trip_of_other_values(value):
    again = round_trip(value)
    assert again == value
    assert type(again) is type(value)


def test_round_trip_of_object_arrays_and_factors():
    objects = np.array([["a", None], [1.5, (2,)]], dtype=object)
    assert (round_trip(objects) == objects).all()
    for levels in (["b", "a"], [3, 1]):
        factor = pd.Categorical([levels[0], None, levels[1]], categories=levels, ordered=True)
        again = round_trip(factor)
        assert again.equals(factor)
        assert again.ordered


def test_an_array_in_several_places_is_stored_once_and_shared_again():
    array = np.arange(5.0)
    tree, arrays = codec.encode([array, (array,)])
    assert len(arrays) == 1
    first, (second,) = codec.decode(tree, arrays)
    assert first is second


def test_round_trip_of_frames_and_responses():
    image = np.arange(8.0).reshape(2, 2, 2)
    frame = Frame.read({"x": [1.0, 2.0], "g": ["a", "b"], "image": image}, ["x", "g", "image"])
    again = round_trip(frame)
    assert again.n_obs == 2
    assert again["x"].tobytes() == frame["x"].tobytes()
    assert again["g"].equals(frame["g"])
    assert (again["image"] == image).all()
    response = Response(np.zeros(2), np.ones(2), np.ones(2), None, "y", ("a", "b"))
    again = round_trip(response)
    assert (again.label, again.levels, again.entry) == ("y", ("a", "b"), None)


class Ours:
    """Not a dataclass."""


@pytest.mark.parametrize("value", [Ours(), len, {"a": object()}, range(3), np.array, 1j])
def test_what_cannot_be_saved_is_refused(value):
    with pytest.raises(TypeError, match="cannot save a|only frozen dataclasses"):
        codec.encode(value)


def test_dataclasses_of_others_are_refused():
    with pytest.raises(TypeError, match="only frozen dataclasses of deepregress"):
        codec.encode(codec._Store())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("os:system", "which is not of deepregress"),
        ("deepregress.data:Nothing", "which this version does not have"),
        ("deepregress.nothing:Frame", "which this version does not have"),
        ("deepregress.data:training_set", "which cannot be loaded"),
    ],
)
def test_a_file_cannot_name_what_is_not_ours(kind, message):
    with pytest.raises(DataError, match=message):
        codec.decode({"!": kind, "of": {}}, {})


def test_write_and_read(tmp_path):
    path = tmp_path / "model.zip"
    tree, arrays = codec.encode({"x": np.arange(3.0)})
    codec.write(path, tree, arrays=arrays, files={"net/weights.h5": b"\x00\x01"})
    archive = codec.read(path)
    assert codec.decode(archive.tree, archive.arrays)["x"].tolist() == [0.0, 1.0, 2.0]
    assert archive.files == {"net/weights.h5": b"\x00\x01"}


def test_object_arrays_never_reach_a_file(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        codec.write(tmp_path / "x", {}, arrays={"a0": np.array([len], dtype=object)})


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "text"
    text.write_text("no zip")
    with pytest.raises(DataError, match="is not a file saved by deepregress"):
        codec.read(text)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(DataError, match="is not a file saved by deepregress"):
        codec.read(other)
    later = tmp_path / "later.zip"
    with zipfile.ZipFile(later, "w") as archive:
        archive.writestr("tree.json", json.dumps({"format": codec.FORMAT + 1, "tree": 0}))
    with pytest.raises(DataError, match="has a format that this version"):
        codec.read(later)


FORMULA = (
    "y ~ poly(z, 2)*g + scale(x1) + center(x2) + C(k, contr.sum):bs(w, df=5) + s(x1)"
    " + s(x2, bs='cr') + s(w, bs='ps', by=g) + s(x1, by=z)"
    " + deep(x1, g, image) + photo(image) + offset(log(w))"
)


def example_designs():
    rng = np.random.default_rng(5)
    n = 300
    data = {name: rng.random(n) for name in ("y", "x1", "x2", "z", "w")}
    data["g"] = rng.choice(["a", "b", "c"], n)
    data["k"] = rng.integers(0, 3, n)
    data["image"] = rng.random((n, 6), dtype=np.float32)
    parsed = parse(
        FORMULA, "loc", parameters=("loc",), terms=terms.registered(), networks=("photo",)
    )
    frame, _ = training_set(data, variables(parsed), response="y", response_variables=("y",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_designs(parsed, frame)["loc"], frame


IN_ANOTHER_PROCESS = """
import sys
import numpy as np
from deepregress import codec
archive = codec.read(sys.argv[1])
saved = codec.decode(archive.tree, archive.arrays)
arrays = saved["design"].evaluate(saved["frame"])
assert arrays.X.tobytes() == saved["X"].tobytes()
assert arrays.offset.tobytes() == saved["offset"].tobytes()
for label, inputs in saved["inputs"].items():
    for again, before in zip(arrays.inputs[label], inputs, strict=True):
        assert again.tobytes() == before.tobytes()
assert saved["design"].protected("photo(image)").tolist() == saved["protected"]
assert "tensorflow" not in sys.modules
"""


def test_a_saved_design_evaluates_to_the_same_bits_in_another_process(tmp_path):
    design, frame = example_designs()
    arrays = design.evaluate(frame)
    assert list(arrays.inputs) == ["deep(x1,g,image)", "photo(image)"]
    saved = {
        "design": design,
        "frame": frame,
        "X": arrays.X,
        "offset": arrays.offset,
        "inputs": arrays.inputs,
        "protected": design.protected("photo(image)").tolist(),
    }
    tree, stored = codec.encode(saved)
    path = tmp_path / "design.zip"
    codec.write(path, tree, arrays=stored)
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(path)], check=True)
