"""Every reference fit of mgcv that our terms and families cover, side by side with ours.

    python benchmarks/oracles.py FOLDER [CASE ...] [--markdown]

FOLDER holds `results/<case>.json` and `data/*.csv` as R wrote them. Each model's R formulas are
translated, fitted with `deepregress.fit`, and compared in what R reports: log-likelihood, -REML,
effective degrees of freedom, coefficients and standard errors, effects on their grids, p-values.
A line per model shows the largest difference of each kind; "ok" means within

    logLik 0.05, -REML 0.01, edf 0.05, coefficients 0.02 se, se 1 %, effects 0.02 sd of the effect
    (or 0.02 se), p-values 0.005

which is tighter than or equal to the grade-2 tolerances that come with the references.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import deepregress as dr

FAMILIES = {
    "gaussian": ("normal", ("loc",)),
    "gaulss": ("normal", ("loc", "scale")),
    "Gamma": ("gamma", ("mean",)),
    "gammals": ("gamma", ("mean", "dispersion")),
    "inverse.gaussian": ("inverse_gaussian", ("mean",)),
    "binomial": ("bernoulli", ("prob",)),
    "poisson": ("poisson", ("mean",)),
    "Negative Binomial": ("negative_binomial", ("mean",)),
    "Beta regression": ("beta", ("mean",)),
    "Scaled t": ("student_t", ("loc",)),
    "Tweedie": ("tweedie", ("mean",)),
    "gumbls": ("gumbel", ("loc", "scale")),
    "gevlss": ("gev", ("loc", "scale", "shape")),
    "shash": ("shash", ("loc", "scale", "skewness", "tail")),
}
"""mgcv's family (without its estimated parameters) -> ours, and the parameters with formulas."""

METHODS = {"REML": "REML", "ML": "ML"}
LIMITS = {
    "logLik": 0.05,
    "REML": 0.01,
    "edf": 0.05,
    "coef/se": 0.02,
    "se": 0.01,
    "effect": 0.02,
    "p": 0.005,
}


@dataclass
class Comparison:
    """Ours against R's for one model."""

    name: str
    logliks: tuple[float, float]
    edfs: tuple[float, float]
    seconds: float
    worst: dict[str, float] = field(default_factory=dict)

    def note(self, kind: str, difference: float) -> None:
        """Keep the largest absolute difference of its kind."""
        self.worst[kind] = max(self.worst.get(kind, 0.0), abs(float(difference)))

    @property
    def beyond(self) -> list[str]:
        """Kinds whose difference is above its limit."""
        return [k for k, v in self.worst.items() if not v <= LIMITS[k]]


def translate(formula: str) -> str:
    """Our formula from R's."""
    text = formula.replace("Solar.R", "Solar_R")
    text = re.sub(r"list\((c\([^)]*\)), (c\([^)]*\))\)", r"[\1, \2]", text)
    text = re.sub(r"\bc\(([^)]*)\)", r"(\1)", text)
    text = re.sub(r"I\((\w+)\^(\d)\)", r"I(\1**\2)", text)
    text = text.replace("factor(", "C(").replace("TRUE", "True").replace("FALSE", "False")
    return re.sub(r"log10\((\w+)\)", r"np.log10(\1)", text)


def table(folder: Path, described: dict[str, Any]) -> pd.DataFrame:
    """The data of a case with R's factor levels."""
    data = pd.read_csv(folder / described["file"])
    data.columns = [name.replace(".", "_") for name in data.columns]
    if described["file"] == "data/co2.csv":  # made in R's script
        data["z"] = (data["Treatment"] == "chilled") * 1.0
        data["og"] = pd.Categorical(data["Type"], ["Quebec", "Mississippi"], ordered=True)
    for name, factor in (described.get("factors") or {}).items():
        data[name] = pd.Categorical(
            data[name], categories=factor["levels"], ordered=factor["ordered"]
        )
    return data


def expressible(model: dict[str, Any]) -> tuple[str, tuple[str, ...]] | None:
    """Our family and the parameters that have formulas, or None."""
    name = re.sub(r"\(.*\)$", "", str(model.get("family")))
    if name not in FAMILIES or model.get("method") not in METHODS or "edf_total" not in model:
        return None
    family, parameters = FAMILIES[name]
    n_formulas = len(model["formula"]) if isinstance(model["formula"], list) else 1
    return (family, parameters) if len(parameters) == n_formulas else None


def fit(
    model: dict[str, Any], data: pd.DataFrame, family: str, parameters: tuple[str, ...]
) -> tuple[Any, float]:
    """Our fit of R's model and its seconds."""
    texts = model["formula"] if isinstance(model["formula"], list) else [model["formula"]]
    links = model.get("link")
    link = links if isinstance(links, str) and links != "identity" else None
    if family == "inverse_gaussian" and links == "1/mu^2":
        link = None
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = dr.fit(
            {name: translate(text) for name, text in zip(parameters, texts, strict=True)},
            data,
            family,
            link=None if link in ("logb", None) else link,
            method=METHODS[model["method"]],
            verbose=0,
        )
    return fitted, time.perf_counter() - start


def squeezed(label: str) -> str:
    """A term's label without blanks and without R's number of the predictor."""
    plain = label.replace(" ", "").replace("Solar.R", "Solar_R")
    return re.sub(r"^(s|te|ti|t2)\.\d\(", r"\1(", plain)


def terms(fitted: Any, reference: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(R's label, our parameter, our label) of the smooth terms that both have."""
    names = list(dict.fromkeys(fitted.edf.index.get_level_values(0)))
    for label in reference:
        number = re.match(r"^(?:s|te|ti|t2)\.(\d)\(", label)
        parameter = names[int(number[1])] if number and int(number[1]) < len(names) else names[0]
        for ours in fitted.edf[parameter].index if parameter in names else ():
            if squeezed(ours).replace("[", "").replace("]", "") == squeezed(label):
                yield label, parameter, ours


def compare(
    name: str, model: dict[str, Any], data: pd.DataFrame, family: str, parameters: tuple[str, ...]
) -> Comparison:
    """Fit and compare one model."""
    fitted, seconds = fit(model, data, family, parameters)
    found = Comparison(
        name,
        (fitted.loglik, model["logLik"]),
        (fitted.edf_total, model["edf_total"]),
        seconds,
    )
    found.note("logLik", fitted.loglik - model["logLik"])
    if "score" in model:
        found.note("REML", fitted.reml - model["score"])
    labels = list(terms(fitted, model.get("edf") or {}))
    table_ = fitted.anova()
    for label, parameter, ours in labels:
        found.note("edf", fitted.edf[parameter, ours] - model["edf"][label])
        tested = (model.get("anova") or {}).get(label)
        # R prints p = 0 below the smallest number it distinguishes
        if tested is not None and (parameter, ours) in table_.index:
            found.note(
                "p",
                table_.loc[(parameter, ours), "p_value"]
                - tested.get("p-value", tested.get("p", np.nan)),
            )
    if len(labels) < len(model.get("edf") or {}):
        found.note("edf", np.inf)
    every = list(dict.fromkeys(fitted.coef.index.get_level_values(0)))
    for key, values in (model.get("coefficients") or {}).items():
        number = re.search(r"\.(\d)$", key)
        parameter = every[int(number[1])] if number else every[0]
        bare = re.sub(r"\.\d$", "", key)
        own = matching(bare, list(fitted.coef[parameter].index))
        if own is not None:
            coef, se = fitted.coef[parameter, own], fitted.std_error[parameter, own]
            found.note("coef/se", (coef - values["estimate"]) / values["se"])
            found.note("se", se / values["se"] - 1.0)
    for label, grid in (model.get("grid") or {}).items():
        for r_label, parameter, ours in labels:
            if r_label == label:
                effect(fitted, parameter, ours, grid, found)
    return found


def matching(name: str, names: list[str]) -> str | None:
    """Our coefficient name for R's, e.g. C(g)[T.b] or g[T.b] for gb."""
    for ours in names:
        if name in (ours, re.sub(r"\[T\.(.*?)\]", r"\1", ours).replace(" ", "")):
            return ours
    return None


def effect(fitted: Any, parameter: str, label: str, grid: Any, found: Comparison) -> None:
    """Compare an effect and its standard error on R's grid."""
    columns = {name.replace(".", "_"): values for name, values in grid["x"].items()}
    shown = fitted.partial_effect(label, parameter, grid=pd.DataFrame(columns))
    ours, theirs = shown["effect"].to_numpy(), np.asarray(grid["effect"], dtype=float).ravel()
    se = np.asarray(grid["se"], dtype=float).ravel()
    scale = max(float(np.std(theirs)), float(np.mean(se)))
    found.note("effect", np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max() / scale)


def main() -> None:
    """Compare the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--markdown", action="store_true", help="print a table for a note")
    asked = parser.parse_args()
    cases = asked.cases or sorted(p.stem for p in (asked.folder / "results").glob("*.json"))
    ahead, behind = ("| ", " |") if asked.markdown else ("", "")
    header = ["model", "logLik ours / R", "edf ours / R", *LIMITS, "verdict", "s"]
    print(ahead + " | ".join(header) + behind)
    if asked.markdown:
        print("|" + " --- |" * len(header))
    for case in cases:
        found = json.loads((asked.folder / "results" / f"{case}.json").read_text())
        if not found["data"] or case.startswith(("cv_", "timing")):
            continue
        described = found["data"] if isinstance(found["data"], list) else [found["data"]]
        for key, model in found["models"].items():
            covered = expressible(model)
            if covered is None:
                continue
            words = set(re.findall(r"[\w.]+", str(model["formula"])))
            best = max(
                described, key=lambda d: (d["n"] == model["n"], len(words & set(d["columns"])))
            )
            try:
                one = compare(f"{case}/{key}", model, table(asked.folder, best), *covered)
            except dr.errors.DeepRegressError as error:
                print(f"{ahead}{case}/{key} | {type(error).__name__}: {error}{behind}", flush=True)
                continue
            cells = [
                one.name,
                f"{one.logliks[0]:.3f} / {one.logliks[1]:.3f}",
                f"{one.edfs[0]:.3f} / {one.edfs[1]:.3f}",
                *(f"{one.worst[k]:.1e}" if k in one.worst else "" for k in LIMITS),
                "ok" if not one.beyond else ", ".join(one.beyond),
                f"{one.seconds:.2f}",
            ]
            print(ahead + " | ".join(cells) + behind, flush=True)


if __name__ == "__main__":
    main()
