"""What networks can be fed with: factors, texts, pictures by path, several inputs to one."""

import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import deepregress as dr
from deepregress import networks, terms
from deepregress.architecture import Signature, assignment
from deepregress.data import prediction_frame, training_set
from deepregress.design import build_designs, variables
from deepregress.disk.stored import StoredArray
from deepregress.errors import DataError, FormulaError, NetworkError, PredictionError
from deepregress.formula import parse
from deepregress.networks import reading_of, resolve
from deepregress.vocabulary import Vocabulary

layers = keras.layers
N = 60
rng = np.random.default_rng(0)
WORDS = np.array(["sunny", "quiet", "small", "large", "old", "new"])
TABLE = {
    "y": rng.normal(size=N),
    "x": rng.normal(size=N),
    "z": rng.normal(size=N),
    "g": np.array(["a", "b", "c"])[np.arange(N) % 3],
    "many": np.array([f"level {i:02d}" for i in range(12)])[np.arange(N) % 12],
    "store": np.arange(N) % 5 + 100,
    "said": np.array([" ".join(rng.choice(WORDS, 4)) + "." for _ in range(N)]),
    "ids": rng.integers(0, 9, (N, 4)),
    "image": rng.random((N, 6, 6)),
    "bytes": rng.integers(0, 256, (N, 6, 6, 3)).astype(np.uint8),
    "series": rng.normal(size=(N, 5, 2)),
}
FEW = dr.Training(epochs=2, folds=2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    names = []
    for i, pixels in enumerate(TABLE["bytes"]):
        names.append(str(folder / f"{i}.png"))
        Image.fromarray(pixels).save(names[-1])
    return np.array(names)


def bound(term, given=None, data=TABLE):
    """The block of a term, whose network reads columns as `given` does, and its frame."""
    supplied = {} if given is None else {"net": given}
    parsed = parse(
        f"y ~ {term}", "loc", parameters=("loc",), terms=terms.registered(), networks=supplied
    )
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    readings = {name: reading_of(network) for name, network in supplied.items()}
    (block,) = build_designs(parsed, frame, readings=readings)["loc"].networks
    return block, frame


def built(term, given=None, data=TABLE):
    """The recipe of a term's network, and its inputs."""
    block, frame = bound(term, given, data)
    arrays = block.evaluate(frame)
    return resolve(given, arrays, label=block.label, n_codes=block.recipe.n_codes), arrays


# -- factors ---------------------------------------------------------------------------------------


def test_factors_of_many_levels_are_embedded_by_default():
    architecture, (columns, codes) = built("deep(x, g, many)")
    assert columns.shape == (N, 1 + 3)
    assert codes.dtype == np.int32
    assert codes.tolist() == (np.arange(N) % 12).tolist()
    levels = next(each for each in architecture.build(1).layers if each.name.startswith("levels"))
    assert (levels.input_dim, levels.output_dim) == (12, 6)  # (12 + 1) // 2
    assert architecture.arrange([columns, codes])[1].dtype == np.int32


def test_dimension_of_embeddings():
    shapes = [Signature((), "int32", 3), Signature((), "int32", 1000)]
    sizes = [
        each.output_dim
        for each in networks.embedding().build(shapes).layers
        if isinstance(each, layers.Embedding)
    ]
    assert sizes == [2, 50]
    fixed = networks.embedding(7, hidden=(4,)).build(shapes[:1])
    assert fixed.get_layer("levels_0").output_dim == 7


@pytest.mark.parametrize("given", [networks.embedding(), networks.mlp(), None])
def test_which_factors_are_embedded(given):
    block, _ = bound("deep(g, many)" if given is None else "net(g, many)", given)
    embedded = [name for name in ("g", "many") if any(n for n in block.recipe.n_codes)]
    assert embedded
    assert block.recipe.n_codes == ((3, 12) if given and not given.reading.embed_above else (0, 12))


def test_numbers_as_factors():
    block, frame = bound("deep(C(store), x)")
    ((columns),) = block.evaluate(frame)
    np.testing.assert_array_equal(columns[:, :5], np.eye(5)[np.arange(N) % 5])
    block, frame = bound("deep(codes(store), x)")
    codes, _ = block.evaluate(frame)
    assert codes.tolist() == (np.arange(N) % 5).tolist()
    new = prediction_frame({"store": [104, 100], "x": [0.0, 0.0]}, block.variables)
    assert block.evaluate(new)[0].tolist() == [4, 0]


@pytest.mark.parametrize("term", ["deep(many)", "deep(codes(many))", "deep(C(store))"])
def test_a_new_level_is_refused(term):
    block, _ = bound(term)
    new = {"many": ["level 99"], "store": [7]}
    with pytest.raises(PredictionError, match=r"levels that the model was not fitted with"):
        block.evaluate(prediction_frame(new, block.variables))


def test_a_users_network_gets_numbers_of_levels_where_it_takes_whole_numbers():
    columns, levels = keras.Input((1,)), keras.Input((1,), dtype="int32")
    joined = layers.Concatenate()([columns, layers.Flatten()(layers.Embedding(3, 2)(levels))])
    whole = keras.Model([columns, levels], layers.Dense(3)(joined))
    architecture, arrays = built("net(x, g)", whole)
    assert [array.shape for array in architecture.arrange(arrays)] == [(N, 1), (N, 1)]
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    _, (together,) = built("net(x, g)", plain)
    assert together.shape == (N, 4)


def test_strings_that_are_no_factor_are_refused():
    data = {"y": np.zeros(1100), "said": [f"text {i}" for i in range(1100)]}
    with pytest.raises(DataError, match=r"1100 different values .* networks.text\(\) or as tokens"):
        bound("deep(said)", None, data)


# -- text ------------------------------------------------------------------------------------------


def test_text_is_learned_from_the_training_rows():
    block, frame = bound("net(said)", networks.text(max_tokens=6, length=3))
    (tokens,) = block.evaluate(frame)
    expected = Vocabulary.learn(TABLE["said"].tolist(), [1] * N, max_tokens=6)
    assert block.recipe.n_codes == (6,)
    np.testing.assert_array_equal(tokens, expected.encode(TABLE["said"].tolist(), 3))
    new = prediction_frame({"said": ["Unheard of!", "", "SMALL"]}, block.variables)
    word = expected.words.index("small") + 2 if "small" in expected.words else 1
    assert block.evaluate(new)[0].tolist() == [[1, 1, 0], [0, 0, 0], [word, 0, 0]]


def test_tokens_in_the_formula_for_any_network():
    tokens = keras.Input((3,), dtype="int32")
    model = keras.Model(tokens, layers.Flatten()(layers.Embedding(6, 2)(tokens)))
    architecture, arrays = built("net(tokens(said, max_tokens=6, length=3))", model)
    _, (by_factory,) = built("net(said)", networks.text(max_tokens=6, length=3))
    np.testing.assert_array_equal(architecture.arrange(arrays)[0], by_factory)


def test_arrays_of_tokens():
    block, frame = bound("net(ids)", networks.text())
    assert block.recipe.n_codes == (9,)
    with pytest.raises(PredictionError, match=r"column 'ids' holds 9; .* between 0 and 8"):
        block.evaluate(prediction_frame({"ids": np.full((1, 4), 9)}, block.variables))


@pytest.mark.parametrize("pooling", ["average", "attention"])
def test_padding_does_not_matter(pooling):
    model = networks.text(pooling=pooling, hidden=(4,)).build([Signature((None,), "int32", 9)])
    short = np.array([[2, 5, 3], [4, 0, 0]])
    long = np.pad(short, ((0, 0), (0, 4)))
    np.testing.assert_allclose(model([short]), model([long]), atol=1e-6)
    assert np.isfinite(model([np.zeros((1, 3), int)])).all()


def test_an_average_is_the_mean_of_the_words():
    model = networks.text(dimension=3, hidden=(4,)).build([Signature((3,), "int32", 9)])
    vectors = model.get_layer("words_0").embeddings.numpy()
    kernel, bias = (v.numpy() for v in model.get_layer("hidden_0").weights)
    mean = vectors[[2, 5]].mean(axis=0)
    expected = np.maximum(mean @ kernel + bias, 0)
    np.testing.assert_allclose(model([np.array([[2, 5, 0]])])[0], expected, atol=1e-6)


# -- pictures and arrays ---------------------------------------------------------------------------


def test_pictures_by_path_are_read_by_the_chunk(paths, monkeypatch):
    block, frame = bound("net(image(path, size=(6, 6)))", networks.cnn(), {**TABLE, "path": paths})
    (pictures,) = block.evaluate(frame)
    assert isinstance(pictures, StoredArray)
    np.testing.assert_allclose(np.asarray(pictures), TABLE["bytes"] / 255, atol=1e-7)
    read = []
    original = type(pictures).read
    monkeypatch.setattr(
        type(pictures), "read", lambda self: read.append(len(self)) or original(self)
    )
    architecture = resolve(networks.cnn((2,)), [pictures], label="net(path)")
    (arranged,) = architecture.arrange([pictures])
    assert arranged is pictures
    assert not read


def test_bytes_are_scaled_by_cnn():
    architecture, (pixels,) = built("net(bytes)", networks.cnn((2,), hidden=(3,)))
    (arranged,) = architecture.arrange([pixels])
    assert arranged.dtype == np.uint8
    model = architecture.build(1)
    kernel = model.get_layer("filter_0_0")
    inner = keras.Model(model.inputs, kernel.input)
    np.testing.assert_allclose(inner([pixels]), pixels / 255, atol=1e-6)


def test_a_missing_file_is_named_before_training(paths):
    broken = paths.copy()
    broken[3] = "nowhere.png"
    with pytest.raises(DataError, match=r"1 of 60 files do not exist, the first is 'nowhere.png'"):
        bound("net(image(path))", networks.cnn(), {**TABLE, "path": broken})


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("net(image(path, size=64))", r"image\(size=64\): needs \(height, width\) in pixels"),
        ("net(image(path, size=(0, 4)))", "needs .height, width. in pixels"),
        ("net(image(path, gray=True))", "unknown option 'gray'"),
        ("net(image(path, grey=1))", "needs True or False"),
        ("net(tokens(said, length=0))", r"tokens\(length=0\): needs a whole number > 0"),
        ("net(tokens(said, max_tokens=2))", "needs a whole number > 2"),
        ("net(tokens(said + said))", r"tokens\(\) takes one column"),
        ("net(C(store, x))", r"C\(\) takes one column"),
    ],
)
def test_impossible_readers(term, message):
    with pytest.raises(FormulaError, match=message):
        bound(term, networks.cnn())


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("net(tokens(x))", r"tokens\(\) reads a column of strings, 'x' holds float64"),
        ("net(image(x))", r"image\(\) reads a column of strings"),
        ("net(C(image))", "'image' is an array, no factor"),
    ],
)
def test_columns_of_another_kind(term, message):
    with pytest.raises(DataError, match=message):
        bound(term, networks.cnn())


# -- several inputs to one network -----------------------------------------------------------------


def test_which_array_goes_where():
    def sources(given, wanted):
        return assignment(
            [Signature(*each) for each in given], [Signature(*each) for each in wanted]
        )

    columns, image, tokens = ((3,), "float32"), ((6, 6), "float64"), ((4,), "int64")
    assert sources([columns, image], [columns, ((6, 6), "float32")]) == [0, 1]
    split = [((1,), "float32"), ((6, 6), "float32"), ((2,), "float32")]
    assert sources([columns, image], split) == [slice(0, 1), 1, slice(1, 3)]
    assert sources([columns, tokens], [((7,), "float32")]) == [slice(0, 7)]
    assert sources([tokens, columns], [((4,), "int32"), columns]) == [0, 1]
    assert sources([tokens, image], [((None,), "int32"), ((None, 6), "float32")]) == [0, 1]
    assert sources([((), "int32")], [((1,), "int32")]) == [0]
    for given, wanted in [
        ([columns], [((4,), "float32")]),
        ([columns], [((3,), "int32")]),
        ([columns, image], [columns]),
        ([image], [image, image]),
        ([columns], [((1,), "string")]),
    ]:
        assert sources(given, wanted) is None


def several(structure):
    """A model of a picture, two numbers and tokens, written as list or dict."""
    picture = keras.Input((6, 6), name="picture")
    first, second = keras.Input((1,), name="first"), keras.Input((1,), name="second")
    words = keras.Input((4,), dtype="int32", name="words")
    joined = layers.Concatenate()(
        [
            layers.Dense(2)(layers.Flatten()(picture)),
            first,
            second,
            layers.Flatten()(layers.Embedding(9, 2)(words)),
        ]
    )
    inputs = [picture, first, second, words]
    if structure is dict:
        inputs = {each.name: each for each in inputs}
    return keras.Model(inputs, layers.Dense(3, name="features")(joined))


@pytest.mark.parametrize("structure", [list, dict])
def test_models_of_several_inputs(structure):
    model = several(structure)
    architecture, arrays = built("net(image, x, z, ids)", model)
    arranged = architecture.arrange(arrays)
    copy = architecture.build(1)
    names = [tensor.name for tensor in copy.inputs]
    standard = {"first": TABLE["x"], "second": TABLE["z"]}
    standard = {k: ((v - v.mean()) / v.std())[:, None] for k, v in standard.items()}
    wanted = {"picture": TABLE["image"], "words": TABLE["ids"], **standard}
    for name, array in zip(names, arranged, strict=True):
        np.testing.assert_allclose(array, wanted[name], atol=1e-6)


def test_inputs_that_do_not_fit_are_described():
    with pytest.raises(
        NetworkError, match=r"does not take .* \(1,\) of float32.*its own .*\(6, 6\)"
    ):
        built("net(x)", several(list))
    whole = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(3, 2)])
    with pytest.raises(NetworkError, match=r"whole numbers are given by codes\(factor\)"):
        built("net(x, z)", whole)
    text = keras.Input((1,), dtype="string")
    model = keras.Model(text, layers.TextVectorization(output_mode="count", max_tokens=5)(text))
    with pytest.raises(NetworkError, match=r"text is given as whole numbers: tokens\(column\)"):
        built("net(x)", model)
    with pytest.raises(NetworkError, match=r"cnn: needs one image .* image\(path"):
        built("net(x)", networks.cnn())


# -- fits ------------------------------------------------------------------------------------------


def recurrent():
    return keras.Sequential([keras.Input((5, 2)), layers.LSTM(3)])


def convolved():
    return keras.Sequential(
        [keras.Input((5, 2)), layers.Conv1D(3, 2), layers.GlobalAveragePooling1D()]
    )


FITS = {
    "net(said, x)": lambda: networks.text(dimension=3, hidden=(3,)),
    "net(said, C(many))": lambda: networks.text(
        dimension=3, filters=(2,), pooling="attention", hidden=(3,)
    ),
    "net(g, x)": lambda: networks.embedding(hidden=(3,)),
    "net(image(path, size=(6, 6)), many)": lambda: networks.cnn((2,), hidden=(3,)),
    "net(image, x, z, ids)": lambda: several(dict),
    "net(series)": recurrent,
    "net(series) ": convolved,
}


@pytest.mark.parametrize("term", FITS)
def test_fits_predict_row_by_row_and_are_saved(term, paths, tmp_path):
    data = {**TABLE, "path": paths}
    data["y"] = 0.1 * TABLE["y"] + TABLE["x"] + 3 * (TABLE["g"] == "a")
    model = dr.fit(
        f"y ~ z + {term}",
        data=data,
        networks={"net": FITS[term]()},
        training=FEW,
        seed=1,
        verbose=0,
    )
    whole = model.predict(data)
    assert np.isfinite(whole).all()
    some = {name: values[7:10] for name, values in data.items()}
    np.testing.assert_allclose(model.predict(some), whole[7:10], atol=1e-5)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(dr.load(tmp_path / "model").predict(data), whole)


def test_a_saved_text_model_is_read_in_another_process(tmp_path):
    model = dr.fit(
        "y ~ net(said)",
        data=TABLE | {"y": TABLE["y"] + 5 * np.char.startswith(TABLE["said"], "s")},
        networks={"net": networks.text(hidden=(3,))},
        training=dr.Training(epochs=30, folds=2, learning_rate=0.05, crossfit=False),
        seed=1,
        verbose=0,
    )
    model.save(tmp_path / "model")
    table = pd.DataFrame({"said": ["sunny old", "large", "unheard of"]})
    table.to_csv(tmp_path / "new.csv", index=False)
    script = (
        "import sys, pandas as pd, deepregress as dr; "
        "print(*dr.load(sys.argv[1]).predict(pd.read_csv(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model", tmp_path / "new.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    here = model.predict(table)
    assert np.ptp(here) > 0
    # texts are no levels to make a grid of
    assert model.partial_effect("net(said)")["said"].tolist() == TABLE["said"].tolist()
    np.testing.assert_allclose([float(v) for v in done.stdout.split()], here, atol=1e-12)
