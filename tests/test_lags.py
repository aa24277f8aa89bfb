"""Lags in formulas and their values: gaps, series, new rows, beside pandas and least squares."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from deepregress.errors import DataError, FormulaError, PredictionError
from deepregress.series import lagged, lags

# -- notation --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("y ~ lag(y, 1:2)", "y ~ `lag(y, 1)` + `lag(y, 2)`"),
        ("y ~ lag(y)", "y ~ `lag(y, 1)`"),
        ("y ~ x*lag(y, [1,12])", "y ~ x*(`lag(y, 1)` + `lag(y, 12)`)"),
        ("y ~ s(lag(y, 1), k=5)", "y ~ s(`lag(y, 1)`, k=5)"),
        ("y ~ deep(x, lag(y, 1:2))", "y ~ deep(x, `lag(y, 1)`, `lag(y, 2)`)"),
        ("y ~ lag(log(y),0:1)", "y ~ `lag(log(y), 0)` + `lag(log(y), 1)`"),
        ("y ~ log(lag(y, 2)) + flag(x)", "y ~ log(`lag(y, 2)`) + flag(x)"),
        ("y ~ `lag(y, 1)` + lag(x, 1, by=g)", "y ~ `lag(y, 1)` + `lag(x, 1)`"),
        ("y ~ x + lag(h(y), 1:3)", "y ~ x + 1"),
    ],
)
def test_lags_become_columns(written: str, read: str) -> None:
    assert lags.read(written)[0] == read
    again = lags.read(read)[0]
    assert again == read


def test_what_lags_ask_for() -> None:
    formulas = {"loc": "y ~ lag(y, 1:2, by=g) + lag(x, 2, time=t)", "scale": "~ lag(y, 1)"}
    found = lags.read(formulas)[1]
    assert found is not None
    assert [lag.name for lag in found.columns] == ["lag(y, 1)", "lag(y, 2)", "lag(x, 2)"]
    assert (found.by, found.time, found.longest) == ("g", "t", 2)
    assert lags.read(["y ~ x", "scale ~ z"]) == (["y ~ x", "scale ~ z"], None)
    transformed = lags.read("y ~ lag(h(y), [1, 4])")[1]
    assert transformed is not None
    assert (transformed.transformed, transformed.response) == ((1, 4), "y")


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ lag(y, -1)", "orders are whole numbers"),
        ("y ~ lag(y, k)", "orders are whole numbers"),
        ("y ~ lag(y, 1, order=2)", "is written lag"),
        ("y ~ lag()", "is written lag"),
        ("y ~ lag(lag(y, 1), 1)", "a lag of a lag"),
        ("lag(y, 1) ~ x", "the response has no lag"),
        ("y ~ lag(y, 1, by=g) + lag(x, 1, by=k)", "have one by="),
        ("y ~ log(lag(y, 1:2))", "takes one order"),
        ("y ~ x * lag(h(y), 1)", "summand of its own"),
        ("y ~ lag(h(y), 0:1)", "begin with 1"),
        ("y ~ lag(y, 1", "not closed"),
    ],
)
def test_lags_that_cannot_be_read(formula: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        lags.read(formula)


# -- values ----------------------------------------------------------------------------------------


def panel(seed: int = 0) -> pd.DataFrame:
    """Two series of 30 times of which some are missing, rows in random order."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"g": np.repeat(["a", "b"], 30), "t": np.tile(np.arange(30), 2)})
    table["y"] = rng.normal(size=60)
    return table.drop(index=[4, 5, 40]).sample(frac=1.0, random_state=seed, ignore_index=True)


def test_values_are_those_of_a_shifted_complete_table() -> None:
    table = panel()
    found, _ = lagged.with_lags(table, lags.read("y ~ lag(y, 1:3, by=g, time=t)")[1])
    whole = pd.MultiIndex.from_product([["a", "b"], range(30)], names=["g", "t"])
    complete = table.set_index(["g", "t"]).reindex(whole)
    rows = pd.MultiIndex.from_frame(table[["g", "t"]])
    for k in (1, 2, 3):
        shifted = complete.groupby("g")["y"].shift(k).loc[rows]
        np.testing.assert_array_equal(found[f"lag(y, {k})"], shifted)


def test_times_may_have_any_unit_and_kinds_of_tables_agree() -> None:
    table = panel(1)
    lag = lags.read("y ~ lag(y, 1:2, by=g, time=t)")[1]
    expected = lagged.with_lags(table, lag)[0]
    quarters = table.assign(t=1990.0 + 0.25 * table["t"])
    for given in (quarters, pl.from_pandas(quarters), quarters.to_dict("list")):
        found = lagged.with_lags(given, lag)[0]
        for name in ("lag(y, 1)", "lag(y, 2)"):
            np.testing.assert_array_equal(np.asarray(found[name]), expected[name])


def test_new_rows_look_in_their_own_table_and_then_in_the_last_rows_of_training() -> None:
    table = panel(2).sort_values(["g", "t"], ignore_index=True)
    lag = lags.read("y ~ lag(y, 1:3, by=g, time=t)")[1]
    whole = lagged.with_lags(table, lag)[0]
    early = table["t"] < 25
    kept = lagged.with_lags(table[early], lag)[1]
    found = kept.extended(table[~early])
    for k in (1, 2, 3):
        np.testing.assert_array_equal(found[f"lag(y, {k})"], whole.loc[~early, f"lag(y, {k})"])
    # a gap between the tables: nothing but the table's own rows
    far = kept.extended(table[table["t"] > 27])
    assert np.isnan(far["lag(y, 3)"]).all()


def test_without_times_new_rows_follow_those_of_training() -> None:
    y = np.arange(10.0)
    lag = lags.read("y ~ lag(y, 1:2)")[1]
    _, kept = lagged.with_lags({"y": y}, lag)
    found = kept.extended({"y": [10.0, 11.0]})
    assert np.asarray(found["lag(y, 1)"]).tolist() == [9.0, 10.0]
    assert np.asarray(found["lag(y, 2)"]).tolist() == [8.0, 9.0]
    with pytest.raises(PredictionError, match="begin as those of training"):
        kept.extended({"y": y[:5]})


def test_tables_that_have_no_lags() -> None:
    lag = lags.read("y ~ lag(y, 1, time=t)")[1]
    with pytest.raises(DataError, match="has the time of another row"):
        lagged.with_lags({"y": [1.0, 2.0, 3.0], "t": [1, 1, 2]}, lag)
    with pytest.raises(DataError, match="not a whole number of steps"):
        lagged.with_lags({"y": [1.0, 2.0, 3.0], "t": [1.0, 2.0, 3.5]}, lag)
    with pytest.raises(DataError, match="time of row 1"):
        lagged.with_lags({"y": [1.0, 2.0, 3.0], "t": [1.0, np.nan, 3.0]}, lag)
    with pytest.raises(DataError, match="'t' is not a column"):
        lagged.with_lags({"y": [1.0, 2.0, 3.0]}, lag)
    with pytest.raises(FormulaError, match="lags are of numbers"):
        lagged.with_lags({"y": ["a", "b"], "t": [1, 2]}, lag)
