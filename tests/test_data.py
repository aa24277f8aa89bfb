"""Tables become frames and responses: every kind of table, missing values, weights, bad values."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregress.data import (
    Frame,
    Response,
    column_names,
    prediction_frame,
    training_set,
)
from deepregress.errors import (
    DataError,
    DroppedRowsWarning,
    FormulaError,
    PredictionError,
    ResponseError,
    UnknownVariable,
)

COLUMNS = {
    "y": [1.5, 2.0, 3.0, 4.0],
    "count": [3, 1, 2, 0],
    "flag": [True, False, True, True],
    "g": ["b", "a", "b", "c"],
    "c": ["low", "high", "low", "mid"],
}
LEVELS = ["low", "mid", "high"]


def as_pandas():
    return pd.DataFrame({**COLUMNS, "c": pd.Categorical(COLUMNS["c"], categories=LEVELS)})


TABLES = {
    "pandas": as_pandas,
    "pandas, object strings": lambda: as_pandas().astype({"g": object}),
    "pandas, nullable": lambda: as_pandas().convert_dtypes(),
    "pandas, float32": lambda: as_pandas().astype({"y": "float32"}),
    "polars": lambda: pl.DataFrame(
        {**COLUMNS, "c": pl.Series(COLUMNS["c"], dtype=pl.Enum(LEVELS))}
    ),
    "pyarrow": lambda: pa.Table.from_pandas(as_pandas()),
    "dict of lists": lambda: {
        **COLUMNS,
        "c": pd.Categorical(COLUMNS["c"], categories=LEVELS),
    },
    "dict of arrays": lambda: {
        **{name: np.array(values) for name, values in COLUMNS.items()},
        "c": pd.Categorical(COLUMNS["c"], categories=LEVELS),
    },
    "frame": lambda: Frame.read(as_pandas(), list(COLUMNS)),
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_frame(kind):
    table = TABLES[kind]()
    assert column_names(table) == tuple(COLUMNS)
    frame = Frame.read(table, list(COLUMNS))
    assert frame.n_obs == 4
    assert frame["y"].dtype == np.float64
    assert frame["y"].tolist() == COLUMNS["y"]
    assert frame["count"].dtype == np.int64
    assert frame["flag"].dtype == bool
    assert list(frame["g"].categories) == ["a", "b", "c"]
    assert list(frame["g"]) == COLUMNS["g"]
    assert list(frame["c"].categories) == LEVELS
    assert list(frame["c"]) == COLUMNS["c"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_missing_values_of_every_kind_of_table(make):
    table = make({"y": [1.0, None, 3.0], "k": [1, 2, None], "g": ["a", "b", None]})
    with pytest.warns(DroppedRowsWarning, match=r"2 of 3 rows dropped: .*'k' \(1\), 'g' \(1\)"):
        frame, response = training_set(
            table,
            {"the formula for 'loc'": ("k", "g")},
            response="y",
            response_variables=("y",),
        )
    assert response.lower.tolist() == [1.0]
    assert frame["k"].tolist() == [1.0]
    assert list(frame["g"].categories) == ["a"]


def test_array_columns_stay_as_they_are():
    image = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    frame = Frame.read({"image": image, "x": [1.0, 2.0, 3.0]}, ["image", "x"])
    assert frame["image"] is image
    assert np.shares_memory(frame.rows(slice(1, 3))["image"], image)
    assert frame.rows(np.array([True, False, True])).n_obs == 2
    assert frame.rows(np.array([2, 0, 0]))["x"].tolist() == [3.0, 1.0, 1.0]


def test_arrays_in_the_cells_of_a_table_are_stacked():
    table = pd.DataFrame({"image": [np.eye(2), np.ones((2, 2))]})
    assert Frame.read(table, ["image"])["image"].shape == (2, 2, 2)


def test_a_frame_evaluates_expressions():
    frame = Frame.read({"x": [1.0, np.e], "my x": [2.0, 3.0]}, ["x", "my x"])
    assert frame.evaluate("log(x)", ["x"]).tolist() == [0.0, 1.0]
    assert frame.evaluate("`my x` + x", ["my x", "x"]).tolist() == [3.0, 3.0 + np.e]
    with pytest.raises(FormulaError, match=r"foo\(x\): name 'foo' is not defined"):
        frame.evaluate("foo(x)", ["x"])


def train(data, response="y", names=("x",), **options):
    return training_set(
        data,
        {"the formula for 'scale'": names},
        response=response,
        response_variables=options.pop("response_variables", ("y",)),
        **options,
    )


GOOD = {"y": [1.0, 2.0, 3.0], "x": [1.0, 5.0, 2.0], "w": [1.0, 2.0, 1.0]}


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (GOOD, {"names": ("xx",)}, UnknownVariable, "'xx' in the formula for 'scale' is not a col"),
        ({**GOOD, "age": [1, 2, 3]}, {"names": ("agee",)}, UnknownVariable, "mean 'age'"),
        (GOOD, {"names": ("zzz",)}, UnknownVariable, "the columns are y, x, w"),
        (GOOD, {"response_variables": ("yy",)}, UnknownVariable, "'yy' in the response"),
        ({"y": [], "x": []}, {}, DataError, "the data have no rows"),
        ({**GOOD, "x": [1.0, 2.0]}, {}, DataError, "differ in length: 'y' has 3 rows, 'x' has 2"),
        ({**GOOD, "x": [1, np.inf, -np.inf]}, {}, DataError, "'x' has 2 infinite .* in row 1"),
        ({**GOOD, "x": [None] * 3}, {}, DataError, r"no row is complete: all 3 .* 'x' \(3\)"),
        ({**GOOD, "x": [1, None, 2]}, {"na": "raise"}, DataError, r"1 of 3 .* 'x' \(1\), .* row 1"),
        (
            {**GOOD, "x": np.array([[[0.0]], [[0.0]], [[-np.inf]]])},
            {},
            DataError,
            "'x' has 1 infinite value, the first in row 2",
        ),
        (GOOD, {"na": "ignore"}, DataError, "na must be 'drop' or 'raise', got 'ignore'"),
        (GOOD, {"weights": [1.0, 2.0]}, DataError, r"weights: shape \(2,\), but .* 3 rows"),
        (GOOD, {"weights": [1.0, -2.0, 1.0]}, DataError, "at least 0, row 1 has -2.0"),
        (GOOD, {"weights": [1.0, np.inf, 1.0]}, DataError, "at least 0, row 1 has inf"),
        (GOOD, {"weights": [0, 0, 0]}, DataError, "all weights are 0"),
        (GOOD, {"weights": ["a", "b", "c"]}, DataError, "weights must be numbers"),
        ([1, 2], {}, DataError, "pandas, polars or pyarrow table .*, got list"),
        (pl.LazyFrame({"y": [1.0]}), {}, DataError, "got LazyFrame"),
        ({**GOOD, "x": [1j, 2, 3]}, {}, DataError, "column 'x' is of type complex128"),
        (
            {**GOOD, "x": [object()] * 3},
            {},
            DataError,
            "'x' is neither all numbers nor all strings",
        ),
        (
            {**GOOD, "x": np.array(["a", 1, 2], object)},
            {},
            DataError,
            "'x' is neither all numbers nor all strings",
        ),
        (GOOD, {"weights": "ww"}, UnknownVariable, r"'ww' in weights is not a column; .* 'w'\?"),
        (GOOD, {"response": "foo(y)"}, FormulaError, r"foo\(y\): name 'foo' is not defined"),
        (
            {**GOOD, "x": np.array(["2020-01-01"] * 3, "datetime64[D]")},
            {},
            DataError,
            "column 'x' is of type datetime64",
        ),
        (
            pd.DataFrame([[1.0, 2.0, 3.0]], columns=["y", "x", "x"]),
            {},
            DataError,
            "2 columns called 'x'",
        ),
        (GOOD, {"response": "log(y - 2)"}, ResponseError, "not finite in 2 of 3 rows.*y = 1.0"),
        (
            {**GOOD, "y": np.zeros((3, 2, 2))},
            {},
            ResponseError,
            r"response y: shape \(3, 2, 2\), but one number or vector",
        ),
    ],
)
def test_errors_of_training_data(data, options, error, message):
    with pytest.raises(error, match=message):
        train(data, **options)


def test_the_policy_for_missing_values_spans_response_weights_and_arrays():
    image = np.ones((5, 2, 2))
    image[4, 1, 1] = np.nan
    data = {
        "y": [np.nan, 2.0, 3.0, 4.0, 5.0],
        "x": [1.0, np.nan, 3.0, 4.0, 5.0],
        "image": image,
        "w": [1.0, 1.0, np.nan, 2.0, 1.0],
    }
    with pytest.warns(
        DroppedRowsWarning, match=r"4 of 5 .*'y' \(1\), 'x' \(1\), 'image' \(1\), 'w' \(1\)\.$"
    ):
        frame, response = train(data, names=("x", "image"), weights="w")
    assert frame.n_obs == response.n_obs == 1
    assert response.weights.tolist() == [2.0]


def test_columns_that_no_formula_names_do_not_drop_rows():
    frame, _ = train({**GOOD, "unused": [None, None, np.inf]})
    assert frame.n_obs == 3
    assert "unused" not in frame


def test_rows_of_weight_zero_are_left_out_with_a_warning():
    with pytest.warns(DroppedRowsWarning, match="1 of 3 rows left out: their weight is 0"):
        frame, response = train(GOOD, weights=np.array([1.0, 0.0, 2.0]))
    assert frame["x"].tolist() == [1.0, 2.0]
    assert response.weights.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("weights", ["w", [1.0, 2.0, 1.0], (1, 2, 1), np.array([1, 2, 1])])
def test_weights_by_name_or_as_an_array(weights):
    _, response = train(GOOD, weights=weights)
    assert response.weights.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("y", "codes", "levels"),
    [
        ([True, False, True], [1.0, 0.0, 1.0], ("False", "True")),
        (["no", "yes", "no"], [0.0, 1.0, 0.0], ("no", "yes")),
        (pd.Categorical(["yes", "no", "no"], categories=["yes", "no"]), [0, 1, 1], ("yes", "no")),
        (pd.Categorical([3, 1, 2], ordered=True), [2.0, 0.0, 1.0], ("1", "2", "3")),
        ([0, 1, 1], [0.0, 1.0, 1.0], None),
    ],
)
def test_categorical_responses_become_codes(y, codes, levels):
    _, response = train({**GOOD, "y": y})
    assert response.lower.tolist() == codes
    assert response.levels == levels
    assert response.exact


def test_response_expressions_and_matrices():
    _, response = train(GOOD, response="log(y) / w", response_variables=("y", "w"))
    np.testing.assert_allclose(response.lower, np.log([1.0, 2.0, 3.0]) / [1.0, 2.0, 1.0])
    assert response.label == "log(y) / w"
    _, response = train({**GOOD, "y": np.ones((3, 2))})
    assert response.lower.shape == (3, 2)


def test_missing_truth_values_are_missing_numbers():
    with pytest.warns(DroppedRowsWarning, match=r"1 of 3 rows dropped: .* 'x' \(1\)"):
        frame, _ = train({**GOOD, "x": [True, None, False]})
    assert frame["x"].tolist() == [1.0, 0.0]


def test_levels_of_a_polars_categorical_do_not_depend_on_what_came_before():
    pl.Series(["z", "b", "a"], dtype=pl.Categorical)
    frame = Frame.read(pl.DataFrame({"g": pl.Series(["b", "a"], dtype=pl.Categorical)}), ["g"])
    assert list(frame["g"].categories) == ["a", "b"]


def test_a_response_gives_its_rows():
    _, response = train(GOOD)
    assert list(response.rows()) == ["lower"]
    censored = Response(np.zeros(2), np.ones(2), np.ones(2), np.zeros(2), "y", None)
    assert not censored.exact
    assert list(censored.rows()) == ["lower", "upper", "interval", "entry"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"ages": [1.0], "g": ["a"]}, r"no column 'age' \(.* age, g\); did you mean 'ages'\?"),
        (
            {"age": [1.0, None, 2, None], "g": ["a"] * 4},
            r"'age' .* misses values in rows \(.*\) 1, 3;",
        ),
        ({"age": [1.0, 2.0], "g": ["a", None]}, r"'g' .* misses values in rows \(.*\) 1;"),
        ({"age": [1.0, np.inf], "g": ["a", "b"]}, "'age' has 1 infinite value, the first in row 1"),
        ({"age": [], "g": []}, "the new data have no rows"),
    ],
)
def test_errors_of_new_data(data, message):
    with pytest.raises(PredictionError, match=message):
        prediction_frame(data, ("age", "g"))


def test_new_data_of_one_row_may_be_numbers():
    frame = prediction_frame({"age": 3.0, "g": "a"}, ("age", "g"))
    assert frame.n_obs == 1
    assert frame["age"].tolist() == [3.0]


def test_a_model_without_columns_knows_the_number_of_rows():
    columns = {"a": [1, 2]}
    frame = Frame.read(columns, ["a"])
    for table in (columns, pd.DataFrame(columns), pl.DataFrame(columns), frame):
        assert prediction_frame(table, ()).n_obs == 2


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12),
    st.data(),
)
def test_dropping_rows_commutes_with_taking_them(values, data):
    y = data.draw(
        st.lists(st.floats(-5, 5) | st.none(), min_size=len(values), max_size=len(values))
    )
    keep = [i for i, (g, v) in enumerate(zip(values, y, strict=True)) if None not in (g, v)]
    table = {"y": np.array(y, dtype=float), "x": np.array(values, dtype=object)}
    if not keep:
        with pytest.raises(DataError, match="no row is complete"):
            train(table)
        return
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        frame, response = train(table)
    assert len(raised) == (len(keep) < len(values))
    assert list(frame["x"]) == [values[i] for i in keep]
    assert response.lower.tolist() == [y[i] for i in keep]
