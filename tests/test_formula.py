"""The grammar as a table: what formulas mean, and where carets stand when they mean nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregress.errors import FormulaError, NetworkError
from deepregress.formula import Code, expression_variables, parse

PARAMETERS = ("loc", "scale")
TERMS = ("s", "deep", "offset", "|")


def read(formula, networks=()):
    return parse(formula, "loc", parameters=PARAMETERS, terms=TERMS, networks=networks)


# formula -> linear part of loc, its columns, labels of the calls
GRAMMAR = {
    "y ~ 1": ("1", (), ()),
    "y ~ x": ("x", ("x",), ()),
    "y~x+z": ("x+z", ("x", "z"), ()),
    "y ~ x - 1": ("x - 1", ("x",), ()),
    "y ~ 0 + x": ("0 + x", ("x",), ()),
    "y ~ a:b": ("a:b", ("a", "b"), ()),
    "y ~ a*b": ("a*b", ("a", "b"), ()),
    "y ~ C(g)": ("C(g)", ("g",), ()),
    "y ~ C(g, Treatment('b'))": ("C(g, Treatment('b'))", ("g",), ()),
    "y ~ C(g, contr.sum)": ("C(g, contr.sum)", ("g",), ()),
    "y ~ log(x)": ("log(x)", ("x",), ()),
    "y ~ np.log(x)": ("np.log(x)", ("x",), ()),
    "y ~ poly(x, 2)": ("poly(x, 2)", ("x",), ()),
    "y ~ bs(x, df=5)": ("bs(x, df=5)", ("x",), ()),
    "y ~ scale(x)": ("scale(x)", ("x",), ()),
    "y ~ I(x**2)": ("I(x**2)", ("x",), ()),
    "y ~ `my x` + log(`my x`)": ("`my x` + log(`my x`)", ("my x",), ()),
    "y ~ s(x)": ("1", (), ("s(x)",)),
    "y ~ s(x) - 1": ("- 1", (), ("s(x)",)),
    "y ~ s(x) + z - 1": ("z - 1", ("z",), ("s(x)",)),
    "y ~ x + s( age,k = 20 ) + z": ("x + z", ("x", "z"), ("s(age, k=20)",)),
    "y ~ s(x)+a*b+s(z)": ("a*b", ("a", "b"), ("s(x)", "s(z)")),
    "y ~ x + offset(log(e))": ("x", ("x",), ("offset(log(e))",)),
    "y ~ deep(x1, x2, net='a b')": ("1", (), ("deep(x1, x2, net='a b')",)),
    "y ~ x + (1|g)": ("x", ("x",), ("(1 | g)",)),
    "y ~ ( 1 + log(x) | a/b ) + (a+b):x": ("(a+b):x", ("a", "x", "b"), ("(1 + log(x) | a/b)",)),
    "y ~ s(`my x`)": ("1", (), ("s(`my x`)",)),
    # a column with the name of a term or function is told from the call by its bracket
    "y ~ s + s(s)": ("s", ("s",), ("s(s)",)),
    "y ~ log + log(log)": ("log + log(log)", ("log",), ()),
    "y ~ deep:s": ("deep:s", ("deep", "s"), ()),
}


@pytest.mark.parametrize("text", GRAMMAR)
def test_grammar(text):
    linear, variables, labels = GRAMMAR[text]
    predictor = read(text).predictors["loc"]
    assert predictor.linear == linear
    assert predictor.variables == variables
    assert tuple(call.label for call in predictor.calls) == labels
    assert read(text).predictors["scale"].linear == "1"


def test_a_call_knows_its_arguments_and_its_place():
    text = "y ~ x + s(age, bs='cr', by=g, m=(2, 2), sp=-1, knots=[0, 1])"
    (call,) = read(text).predictors["loc"].calls
    assert call.args == ("age",)
    assert call.kwargs == {
        "bs": "cr",
        "by": Code("g"),
        "m": (2, 2),
        "sp": -1,
        "knots": [0, 1],
    }
    assert text[call.start : call.stop] == call.label
    message = str(call.error("wrong"))
    assert message.splitlines()[2].index("^") - 2 == call.start


@pytest.mark.parametrize(
    ("formula", "linear"),
    [
        ("y ~ x", {"loc": "x", "scale": "1"}),
        ({"loc": "y ~ x", "scale": "~ z"}, {"loc": "x", "scale": "z"}),
        ({"scale": "~ z", "loc": "y ~ x"}, {"loc": "x", "scale": "z"}),
        ({"loc": "~ x", "scale": "y ~ z"}, {"loc": "x", "scale": "z"}),
        ({"loc": "y ~ x", "scale": "z"}, {"loc": "x", "scale": "z"}),
        (["y ~ x", "scale ~ z"], {"loc": "x", "scale": "z"}),
        (("y ~ x",), {"loc": "x", "scale": "1"}),
        (["scale ~ x", "scale ~ z"], {"loc": "x", "scale": "z"}),
    ],
)
def test_strings_dicts_and_lists(formula, linear):
    parsed = read(formula)
    assert {name: each.linear for name, each in parsed.predictors.items()} == linear
    assert parsed.response in ("y", "scale")
    assert list(parsed.predictors) == list(PARAMETERS)


def test_a_number_fixes_a_parameter():
    predictor = read({"loc": "y ~ x", "scale": 2}).predictors["scale"]
    assert predictor.fixed == 2.0
    assert predictor.calls == ()


@pytest.mark.parametrize(
    ("left", "variables"),
    [("y", ("y",)), ("log(y)", ("y",)), ("y / n", ("y", "n")), ("log(`my y`)", ("my y",))],
)
def test_response_expressions(left, variables):
    parsed = read(f"{left} ~ x")
    assert (parsed.response, parsed.response_variables) == (left, variables)


def test_a_network_stands_as_a_term():
    parsed = read("y ~ x + photo(image, orthogonal_to='all')", networks=("photo",))
    (call,) = parsed.predictors["loc"].calls
    assert (call.name, call.args, call.kwargs) == ("photo", ("image",), {"orthogonal_to": "all"})
    assert parsed.networks == ("photo",)


# formula -> message, and the part of the formula above the carets
WITH_CARET = {
    "y ~ x +": ("insuffient arguments", "+"),
    "y ~ s(x": ("bracket or quote is not closed", "("),
    "y ~ x + log(x": ("bracket or quote is not closed", "("),
    "y ~ (x": ("context marker", "("),
    "y ~ x ) + z": ("context marker", ")"),
    "y ~ x ~ z": ("more than one '~'", "~"),
    "y ~": ("nothing follows '~'", "~"),
    "y ~ x z": ("Missing operator", "x z"),
    "y ~ x $ z": ("Unknown operator", "$"),
    "y ~ 2*x": ("Numeric literals", "2"),
    "y ~ 'a'": ("String literals", "'a'"),
    "y ~ foo(x) + s(z)": ("unknown term or function 'foo' in the formula for 'loc'", "foo"),
    "y ~ lg(x)": ("did you mean 'log'", "lg"),
    "y ~ x + log(lg(x))": ("did you mean 'log'", "lg"),
    "y ~ log(s(x))": (r"the term s\(\) cannot stand inside", "s"),
    "y ~ s(x):z": ("between '\\+' signs .*by=z", "s(x)"),
    "y ~ x + s(x)*z": ("summand of its own", "s(x)"),
    "y ~ x - s(x)": ("summand of its own", "s(x)"),
    "y ~ (x + s(x))": ("summand of its own", "s(x)"),
    "y ~ z + x + x": ("x: this term stands twice in the formula for 'loc'", "x"),
    "y ~ z + a:b + a:b": ("this term stands twice", "a:b"),
    "y ~ s(x) + s( x )": ("this term stands twice", "s( x )"),
    "y ~ s(x, k=)": ("invalid syntax", ")"),
    "y ~ log(x +)": ("invalid syntax", ")"),
    "y ~ s(**x)": ("is no term", "s(**x)"),
    "y ~ I(x^2)": ("write '\\*\\*'", "^"),
    "y ~ lag(x)": ("depends on other rows", "lag"),
    "y ~ x | g": ("'|' has no meaning here", "|"),
    "y ~ (1 | g | h)": ("'|' has no meaning here; random effects are written", "|"),
    "y ~ ((1 | g) + x)": ("a term must be a summand of its own", "(1 | g)"),
    "y ~ x - (1 | g)": ("a term must be a summand of its own", "(1 | g)"),
    "y ~ (1 | g) + (1|g)": ("this term stands twice", "(1|g)"),
}


@pytest.mark.parametrize("text", WITH_CARET)
def test_errors_point_at_the_place(text):
    message, part = WITH_CARET[text]
    with pytest.raises(FormulaError, match=message) as caught:
        read(text)
    shown, carets = str(caught.value).splitlines()[-2:]
    assert shown[2:] == text
    start, stop = carets.index("^"), carets.rindex("^") + 1
    assert shown[start:stop] == part


def test_a_formula_may_have_several_lines():
    predictor = read("y ~ x +\n    s(z) +\n    w").predictors["loc"]
    assert (predictor.linear, predictor.calls[0].label) == ("x + w", "s(z)")
    with pytest.raises(FormulaError) as caught:
        read("y ~ x +\n  foo(z)")
    shown, carets = str(caught.value).splitlines()[1:]
    assert shown[carets.index("^") :] == "foo(z)"


def test_the_caret_stands_under_the_second_of_two_equal_terms():
    with pytest.raises(FormulaError) as caught:
        read("y ~ x + z + x")
    assert str(caught.value).splitlines()[-1].index("^") - 2 == 12


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("x + z", r"no formula has a response on its left side; write 'y ~ x \+ z'"),
        ("~ x", "no formula has a response"),
        ("", "no formula has a response"),
        ([], "no formula has a response"),
        ({}, "no formula has a response"),
        ("y ~ .", "'.' is not allowed; name the columns"),
        ({"loc": "y ~ x", "scale": "y ~ z"}, "the response must stand in one formula only"),
        ({"loc": "y ~ x", "scal": "~ z"}, r"\(loc, scale\); did you mean 'scale'\?"),
        (["y ~ x", "scal ~ z"], "'scal' is not a parameter of this family"),
        (["y ~ x", "~ z"], "formula 2 of the list has no left side"),
        (["y ~ x", "scale ~ z", "scale ~ x"], "two formulas for 'scale'"),
        (["y ~ x", "loc ~ z"], "two formulas for 'loc'"),
        ({"loc": "y ~ x", "scale": None}, "must be a string or a number, got None"),
        ({"loc": "y ~ x", "scale": True}, "must be a string or a number, got True"),
        (3, "formula must be a string, a dict .*, got int"),
        (["y ~ x", 3], "formula must be a string"),
        ("log(y ~ x", "bracket or quote is not closed"),
        ("log(y +) ~ x", "invalid syntax"),
    ],
)
def test_errors_without_a_place(formula, message):
    with pytest.raises(FormulaError, match=message):
        read(formula)


@pytest.mark.parametrize("name", ["s", "log"])
def test_a_network_cannot_have_the_name_of_a_term_or_function(name):
    with pytest.raises(NetworkError, match=f"{name!r} is the name of a term or function already"):
        read("y ~ x", networks=(name,))


NAMES = st.sampled_from(["x", "z", "age", "s", "log"])
SUMMANDS = st.one_of(
    NAMES.map(lambda name: ("linear", name)),
    NAMES.map(lambda name: ("linear", f"poly({name}, 2)")),
    st.tuples(NAMES, NAMES).map(lambda pair: ("linear", f"{pair[0]}:{pair[1]}")),
    NAMES.map(lambda name: ("call", f"s({name})")),
    NAMES.map(lambda name: ("call", f"deep({name})")),
)


@given(st.lists(SUMMANDS, min_size=1, max_size=6, unique=True), st.sampled_from(["+", " + "]))
def test_every_summand_is_found_once_in_any_order(summands, plus):
    text = "y ~ " + plus.join(text for _, text in summands)
    predictor = read(text).predictors["loc"]
    assert [call.label for call in predictor.calls] == [t for kind, t in summands if kind == "call"]
    linear = [t for kind, t in summands if kind == "linear"]
    found = predictor.linear.replace(" ", "").split("+")
    assert found == [each.replace(" ", "") for each in linear] or (not linear and found == ["1"])
    for call in predictor.calls:
        assert text[call.start : call.stop] == call.label


@pytest.mark.parametrize(
    ("expression", "variables"),
    [
        ("x", ("x",)),
        ("log(x) + z", ("x", "z")),
        ("C(g, Treatment('b'))", ("g",)),
        ("np.sqrt(x)", ("x",)),
        ("`a b` / n", ("a b", "n")),
        ("1", ()),
        ("log(log)", ("log",)),
    ],
)
def test_variables_of_expressions(expression, variables):
    assert set(expression_variables(expression)) == set(variables)
