"""User errors of the design leg: our class, the user's label, before any fitting starts."""

import pickle

import numpy as np
import pandas as pd
import pytest

from deepregress import errors, terms
from deepregress.data import training_set
from deepregress.design import build_designs, variables
from deepregress.errors import (
    DataError,
    DeepRegressError,
    DeepRegressWarning,
    FormulaError,
    NetworkError,
    ResponseError,
    UnknownVariable,
    caret,
    listing,
    suggestion,
)
from deepregress.formula import parse

RNG = np.random.default_rng(2)
N = 60
DATA = {
    "y": RNG.normal(size=N),
    "age": RNG.random(N),
    "x": RNG.random(N),
    "g": RNG.choice(["a", "b"], N),
    "k": np.arange(N) % 4,
    "one": np.full(N, 3.0),
    "zero": np.zeros(N),
    "ga": RNG.random(N),
    "twice": np.zeros(N),
    "same": np.array(["a"] * N),
    "negative": np.linspace(-1, 1, N),
    "image": RNG.random((N, 4, 4)),
    "flat": np.zeros((N, 2)),
    "infinite": np.r_[0.0, np.inf, RNG.random(N - 2)],
    "h": np.where(np.arange(N) < 30, "u", "v"),
    "i": np.where(np.arange(N) < 15, "p", "q"),
}
DATA["twice"] = 2 * DATA["x"]


def build(formula, data=DATA, networks=()):
    parameters = ("loc", "scale")
    parsed = parse(
        formula, "loc", parameters=parameters, terms=terms.registered(), networks=networks
    )
    frame, _ = training_set(
        data,
        variables(parsed),
        response=parsed.response,
        response_variables=parsed.response_variables,
    )
    return build_designs(parsed, frame, parameters)


ERRORS = [
    # variables
    ({"loc": "y ~ x", "scale": "~ agee"}, UnknownVariable,
     r"^'agee' in the formula for 'scale' is not a column; did you mean 'age'\?$"),
    ("y ~ s(agee)", UnknownVariable, "'agee' in the formula for 'loc' is not a column"),
    ("y ~ s(x, by=gg)", UnknownVariable, "'gg' in the formula for 'loc'"),
    ("y ~ deep(agee)", UnknownVariable, "'agee' in the formula for 'loc'"),
    ("y ~ offset(log(agee))", UnknownVariable, "'agee' in the formula for 'loc'"),
    ("y ~ log(agee)", UnknownVariable, "'agee' in the formula for 'loc'"),
    ("y ~ C(g, foo)", UnknownVariable, "'foo' in the formula for 'loc'"),
    ("log(yy) ~ x", UnknownVariable, r"'yy' in the response is not a column; did you mean 'y'\?"),
    # options of s()
    ("y ~ s(x, kk=4)", FormulaError, r"s\(x, kk=4\): unknown option 'kk'; .* did you mean 'k'\?"),
    ("y ~ s(x, xt=4)", FormulaError, "unknown option 'xt'; the options of s\\(\\) are k, bs, by"),
    ("y ~ s()", FormulaError, r"s\(\) needs a covariate"),
    ("y ~ s(x, 10)", FormulaError, r"10 is not a column; options have names, as in s\(x, k=10\)"),
    ("y ~ s('x')", FormulaError, "'x' is not a column"),
    ("y ~ s(x, bs='zz')", FormulaError, r"s\(x, bs='zz'\): unknown basis 'zz'"),
    ("y ~ s(x, bs=tp)", FormulaError, "bs must be the name of a basis in quotes, got tp"),
    ("y ~ s(age, bs='ps', k=3)", FormulaError, r"s\(age, bs='ps', k=3\): basis 'ps' needs k >= 4"),
    ("y ~ s(x, k=2)", FormulaError, r"s\(x, k=2\): basis 'tp' needs k >= 3"),
    ("y ~ s(x, k=2.5)", FormulaError, "k must be a whole number, got 2.5"),
    ("y ~ s(x, k=True)", FormulaError, "k must be a whole number, got True"),
    ("y ~ s(x, k=k)", FormulaError, "k must be a whole number, got k"),
    ("y ~ s(k)", FormulaError, r"s\(k\): .* at least 10 unique values, the data have 4"),
    ("y ~ s(x, m='a')", FormulaError, "m must be a whole number or several"),
    ("y ~ s(x, knots=3)", FormulaError, "knots must be a list of numbers, got 3"),
    ("y ~ s(x, knots=['a'])", FormulaError, r"s\(x, knots=\['a'\]\): knots must be numbers"),
    ("y ~ s(x, sp=-1)", FormulaError, "sp must be a number >= 0, got -1"),
    ("y ~ s(x, sp=1e999)", FormulaError, "sp must be a number >= 0, got inf"),
    ("y ~ s(x, df=0)", FormulaError, "df must be a number > 0, got 0"),
    ("y ~ s(x, df='a')", FormulaError, "df must be a number > 0, got 'a'"),
    ("y ~ s(x, df=1)", FormulaError, "df must lie between 1 .* and 9 .*, got 1"),
    ("y ~ s(x, df=20)", FormulaError, "df must lie between 1 .* and 9 .*, got 20"),
    ("y ~ s(x, sp=1, df=3)", FormulaError, "sp and df both fix the smoothing parameter"),
    ("y ~ s(x, by=3)", FormulaError, "by must be a name, got 3"),
    ("y ~ s(x) + s(x, k=6)", FormulaError, "spans nothing that other terms .*; leave it out"),
    ("y ~ s(x, by=g) + s(x, by=ga)", FormulaError, r"s\(x\):ga: this term stands twice"),
    ("y ~ s(x) + s(x, by=g)", FormulaError, r"s\(x\):gb .* spans nothing .* ordered factor"),
    # data that a term cannot use
    ("y ~ s(g)", DataError, r"s\(g\): 'g' is a factor \(levels a, b\), not numbers"),
    ("y ~ s(image)", DataError, r"s\(image\): 'image' has shape \(60, 4, 4\)"),
    ("y ~ s(one)", DataError, r"s\(one\): 'one' is constant \(3 in all 60 rows\)"),
    ("y ~ s(log(negative))", DataError, r"s\(log\(negative\)\): not finite in 30 of 60 rows"),
    ("y ~ s(x, by=zero)", DataError, r"s\(x, by=zero\): by=zero is 0 in all rows"),
    ("y ~ s(x, by=image)", DataError, r"s\(x, by=image\): 'image' has shape"),
    ("y ~ one", DataError, r"'one' in the formula for 'loc' is constant \(3 in all 60 rows\)"),
    ({"loc": "y ~ x", "scale": "~ one"}, DataError, "'one' in the formula for 'scale' is constant"),
    ("y ~ same", DataError, "factor 'same' in the formula for 'loc' has one level only: 'a'"),
    ("y ~ x + twice", DataError, "'twice' in the formula for 'loc' is determined by 'x'"),
    ("y ~ x + I(2*x)", DataError, r"'I\(2 \* x\)' in the formula for 'loc' is determined by 'x'"),
    ("y ~ x + scale(x)", DataError, r"'scale\(x\)' .* determined by '\(Intercept\)', 'x'"),
    ("y ~ h:i - 1", DataError, r"'h\[v\]:i\[p\]' in the formula for 'loc' is zero in all rows"),
    ("y ~ image", DataError, "'image' in the linear part .* such as deep\\(image\\)"),
    ("y ~ x:image", DataError, "column 'image' in the linear part for 'loc' is an array"),
    ("y ~ infinite", DataError, "column 'infinite' has 1 infinite value, the first in row 1"),
    ("y ~ log(negative)", DataError, r"log\(negative\): not finite in 30 .* negative = -1.0"),
    ("y ~ offset(log(negative))", DataError, r"offset\(log\(negative\)\): not finite in 30"),
    ("y ~ offset(g)", DataError, r"offset\(g\): 'g' is a factor"),
    ("y ~ deep(one)", DataError, r"deep\(one\): 'one' is constant"),
    ("y ~ deep(flat)", DataError, r"deep\(flat\): all columns of 'flat' are constant"),
    ("log(negative) ~ x", ResponseError, r"response log\(negative\): not finite in 30 of 60 rows"),
    ("foo(y) ~ x", FormulaError, r"foo\(y\): name 'foo' is not defined"),
    # transforms
    ("y ~ I(x - np.mean(x))", FormulaError, r"I\(x - np.mean\(x\)\): its value in a row depends"),
    ("y ~ 0 + np.tri(np.size(x))", FormulaError, r"'0 \+ np.tri.*': its value in a row depends"),
    ("y ~ bs(x, df=1)", FormulaError, r"bs\(x, df=1\): Invalid value for `df`"),
    ("y ~ poly(x, 'a')", FormulaError, r"poly\(x, 'a'\): 'str' object cannot be"),
    ("y ~ np.nothing(x)", FormulaError, "has no attribute 'nothing'"),
    # other terms
    ("y ~ offset()", FormulaError, r"offset\(\) takes one expression, got 0"),
    ("y ~ offset(x, k=1)", FormulaError, "unknown option 'k'; the options of offset"),
    ("y ~ deep()", FormulaError, r"deep\(\) needs a column, such as deep\(x\)"),
    ("y ~ deep(x, nett='a')", FormulaError, r"unknown option 'nett'; .* did you mean 'net'\?"),
    ("y ~ deep(x, net=3)", FormulaError, "net must be a name, got 3"),
    ("y ~ deep(x, orthogonal_to=3)", FormulaError, "orthogonal_to must be 'all', 'none' or labels"),
    ("y ~ deep(x) + deep(x, orthogonal_to='none') + deep(x, orthogonal_to='all')", None, ""),
    ("y ~ deep(image)", NetworkError, "give one of your own"),
    ("y ~ photo(x)", FormulaError, "unknown term or function 'photo'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("formula", "error", "message"), ERRORS, ids=[str(each[0]) for each in ERRORS]
)
def test_user_errors(formula, error, message):
    if error is None:
        assert len(build(formula)["loc"].networks) == 3
        return
    with pytest.raises(error, match=message) as caught:
        build(formula)
    assert type(caught.value) is error
    assert isinstance(caught.value, DeepRegressError)


def test_a_constant_column_is_fine_without_an_intercept():
    assert build("y ~ 0 + one + x")["loc"].names == ("one", "x")


def test_every_class_derives_from_the_two_roots():
    for value in vars(errors).values():
        if isinstance(value, type) and value.__module__ == errors.__name__:
            assert issubclass(value, (DeepRegressError, DeepRegressWarning))
            again = pickle.loads(pickle.dumps(value("message")))  # noqa: S301
            assert (type(again), str(again)) == (value, "message")
    assert issubclass(DeepRegressError, ValueError)
    assert issubclass(DeepRegressWarning, UserWarning)
    assert issubclass(UnknownVariable, FormulaError)
    assert issubclass(ResponseError, DataError)


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("agee", ["age", "height"], "; did you mean 'age'?"),
        ("AGE", ["age"], "; did you mean 'age'?"),
        ("zzz", ["age", "height"], ""),
        ("age", [], ""),
    ],
)
def test_suggestions(name, known, text):
    assert suggestion(name, known) == text


def test_listings_are_short():
    assert listing([]) == "none"
    assert listing("abc") == "a, b, c"
    assert listing(map(str, range(100)), limit=3) == "0, 1, 2, ... (100 in all)"


def test_carets():
    assert caret("y ~ s(x", 4, 7) == "  y ~ s(x\n      ^^^"
    assert caret("y ~ s(x", 4) == "  y ~ s(x\n      ^"
    assert caret("y", 0, 0) == "  y\n  ^"


def test_table_columns_that_are_not_names_are_left_alone():
    table = pd.DataFrame({"y": DATA["y"], "x": DATA["x"], 3: DATA["age"]})
    assert build("y ~ x", table)["loc"].n_coef == 2
