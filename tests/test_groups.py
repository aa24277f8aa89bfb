"""Groups of parameters: names, formulas for a group and for its members."""

import numpy as np
import pytest

import deepregress as dr
from deepregress.errors import FamilyError, FormulaError, PredictionError
from deepregress.families import family
from deepregress.formula import expand, parse
from deepregress.groups import group_of, groups, member, members

CLASSES = ("logits[B]", "logits[C]")


def read(formula, parameters=("logits",)):
    return parse(formula, parameters[0], parameters=parameters, terms=["s"])


def test_names():
    assert member("logits", "not work") == "logits[not work]"
    assert [group_of(name) for name in ("loc[1]", "loc", "a[b]c")] == ["loc", "loc", "a[b]c"]
    assert groups(["loc[1]", "loc[2]", "gate[2]", "scale"]) == ("loc", "gate", "scale")
    assert members("loc", ["loc[1]", "scale", "loc[2]"]) == ["loc[1]", "loc[2]"]
    assert members("loc[2]", ["loc[1]", "scale", "loc[2]"]) == ["loc[2]"]
    assert members("lo", ["loc[1]", "loc[2]"]) == []


def test_a_formula_for_the_group_is_one_for_each_member():
    full = expand(read("y ~ x + s(z)"), CLASSES)
    assert list(full.predictors) == list(CLASSES)
    for name, predictor in full.predictors.items():
        assert (predictor.parameter, predictor.linear) == (name, "x")
        assert [call.parameter for call in predictor.calls] == [name]
    assert full.response == "y"


def test_a_formula_for_a_member_wins_over_that_of_its_group():
    given = {"logits": "y ~ x", "logits[C]": "~ s(z)"}
    full = expand(read(given), CLASSES)
    assert [p.linear for p in full.predictors.values()] == ["x", "1"]
    assert [len(p.calls) for p in full.predictors.values()] == [0, 1]
    alone = expand(read({"logits[C]": "y ~ x"}), CLASSES)
    assert [p.linear for p in alone.predictors.values()] == ["1", "x"]
    listed = expand(read(["y ~ x", "logits[C] ~ z"]), CLASSES)
    assert [p.linear for p in listed.predictors.values()] == ["x", "z"]


def test_a_number_fixes_all_members_of_a_group():
    full = expand(read({"loc": "y ~ x", "gate": 0.0}, ("loc", "gate")), ("loc[1]", "gate[2]"))
    assert full.predictors["gate[2]"].fixed == 0.0


@pytest.mark.parametrize(
    ("formula", "match"),
    [
        ({"logits": "y ~ x", "logits[D]": "~ z"}, r"'logits\[D\]' is not a parameter of this"),
        ({"logits": "y ~ x", "logit[C]": "~ z"}, r"'logit\[C\]' is not a parameter"),
    ],
)
def test_unknown_members_are_refused(formula, match):
    with pytest.raises(FormulaError, match=match):
        expand(read(formula), CLASSES)


def test_a_parameter_without_members_has_none():
    with pytest.raises(
        FormulaError, match=r"'loc\[1\]' is not a parameter of this model \(loc, scale\)"
    ):
        expand(read({"loc": "y ~ x", "loc[1]": "~ z"}, ("loc", "scale")), ("loc", "scale"))


def test_a_link_for_the_group_is_one_for_each_member():
    given = dr.mixture("normal", "normal")
    links = family(given, {"scale": "softplus", "loc[2]": "log"}).parameters
    assert {p.name: p.link.name for p in links} == {
        "loc[1]": "identity",
        "loc[2]": "log",
        "scale[1]": "softplus",
        "scale[2]": "softplus",
        "gate[2]": "identity",
    }
    with pytest.raises(FamilyError, match="'scales' is not a parameter of mixture"):
        family(given, {"scales": "log"})


def test_groups_in_a_fit():
    g = np.random.default_rng(0)
    x, y = g.normal(size=300), g.integers(0, 3, 300)
    model = dr.fit("y ~ s(x, k=5, sp=1)", {"y": y, "x": x}, "categorical")
    names = ["logits[1]", "logits[2]"]
    assert list(model.edf.index.get_level_values(0).unique()) == names
    assert list(model.sp.index) == [(name, "s(x)") for name in names]
    assert list(model.predict(which="linear", parameter="logits").columns) == names
    both = model.predict(which="linear", exclude=[("logits", "s(x)")])
    np.testing.assert_allclose(both["logits[2]"], model.coef["logits[2]", "(Intercept)"])
    one = model.predict(which="linear", exclude=[("logits[1]", "s(x)")])
    assert np.ptp(one["logits[1]"]) < 1e-12 < np.ptp(one["logits[2]"])
    with pytest.raises(PredictionError, match=r"parameter 'logit' is not one of .*logits\[1\]"):
        model.predict(which="linear", parameter="logit")
    assert len(model.plot("logits").axes) == 2
