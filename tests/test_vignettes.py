"""Every vignette runs from top to bottom, in a process of its own, and writes its picture."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
VIGNETTES = sorted((ROOT / "vignettes").glob("*.py"))
PNG = b"\x89PNG\r\n\x1a\n"


def run(path: Path, folder: Path) -> str:
    """Run a vignette in an empty folder; warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nan" not in done.stdout
    picture = (folder / f"{path.stem}.png").read_bytes()
    assert picture.startswith(PNG)
    assert len(picture) > 20_000
    assert [each.name for each in folder.iterdir()] == [f"{path.stem}.png"]
    return done.stdout


@pytest.mark.parametrize("path", VIGNETTES, ids=lambda path: path.stem)
def test_vignette_runs_and_says_what_its_text_claims(path: Path, tmp_path: Path) -> None:
    text = run(path, tmp_path)
    checks = {
        "quickstart": check_quickstart,
        "custom_family": check_custom_family,
        "survival": check_survival,
        "drift": check_drift,
        "ordinal": check_ordinal,
        "time_series": check_time_series,
    }
    check = checks.get(path.stem)
    assert check is not None, "say here what the vignette claims"
    check(text.splitlines())


def check_quickstart(lines: list[str]) -> None:
    gains = {}
    for line in lines:
        if line.startswith(("with deep()", "written out")) and "(se" in line:
            _, gain, _, se = line[28:].split()
            gains[line[:11]] = (float(gain), float(se.rstrip(")")))
    # both gain, by more than twice their standard errors, and one as much as the other
    (deep, deep_se), (written, written_se) = gains["with deep()"], gains["written out"]
    assert deep > 2 * deep_se and written > 2 * written_se
    assert abs(written - deep) < 2 * written_se
    # the curve of the hour keeps its shape beside the network
    curves = [
        np.array(line[26:].split(), dtype=float) for line in lines if line.startswith("s(hour), ")
    ]
    assert len(curves) == 2
    assert np.corrcoef(*curves)[0, 1] > 0.99
    assert "the same after loading: True" in lines


def check_custom_family(lines: list[str]) -> None:
    values = {line[:26].strip(): line[26:].split() for line in lines}
    # the same distribution in three ways
    assert values["weibull, built in"] == values["tfd.Weibull"]
    assert float(values["gamma by a function"][0]) < 1e-6
    aic = next(line for line in lines if line.startswith("AIC gompertz")).replace(",", "").split()
    # a log hazard that is a straight line fits worse: the hazard rises and falls again
    assert float(aic[2]) > float(aic[4]) + 10
    assert 1.5 < float(values["edf of s(nodes)"][0]) < 6.0
    mean, _, sd = values["residuals: mean"]
    assert abs(float(mean.rstrip(","))) < 0.1
    assert abs(float(sd) - 1.0) < 0.1


def check_drift(lines: list[str]) -> None:
    rows = [line.split() for line in lines if line.startswith(("normal", "gamma", "drift"))]
    aic = {row[0]: float(row[3]) for row in rows if len(row) == 4}
    assert aic["drift"] < aic["gamma"] - 10 < aic["normal"] - 20
    # the gain on patients not seen is above that of the gamma, and above twice its standard error
    gain = {row[0]: (float(row[2]), float(row[4].rstrip(")"))) for row in rows if len(row) == 5}
    assert gain["drift"][0] > 2 * gain["drift"][1]
    assert gain["drift"][0] > gain["gamma"][0]
    # that the spread grows with the body mass index is clear in the normal model only
    cells = next(line for line in lines if line.startswith("scale bmi")).replace("(", " ")
    normal, normal_se, drift, drift_se = (float(each.rstrip(")")) for each in cells.split()[2:])
    assert normal > 2 * normal_se
    assert drift < min(normal, 2 * drift_se)
    used = next(line for line in lines if line.startswith("degrees of freedom of the network"))
    assert 1.5 < float(used.split()[-1]) < 10


def check_survival(lines: list[str]) -> None:
    # of lines with one name the first counts
    values = {line[:14].strip(): line[14:].split() for line in reversed(lines)}
    # Nelson-Aalen and Kaplan-Meier are the same up to 1 / n
    for ours, theirs in zip(values["coxph"], values["Kaplan-Meier"], strict=True):
        assert abs(float(ours) - float(theirs)) < 0.002
    rows = (re.fullmatch(r"(\S+) +[\d.]+ +\d +([\d.]+)", line) for line in lines)
    p = {row[1]: float(row[2]) for row in rows if row}
    assert max(p["grade"], p["s(lpgr)"]) < 0.05 < p["hormone"]
    early, later = (
        float(line.rpartition("(")[0].split()[-1]) for line in lines if "lpgr:C(period)[" in line
    )
    assert early < 2.0 * later < 0.0
    partial, strata, full = (
        float(line.split()[-2])
        for line in lines
        if line.startswith(("partial likelihood", "strata of grade", "full likelihood"))
    )
    assert abs(partial - full) < 0.02
    assert abs(partial - strata) < 0.1
    # curves are better than lines; the network finds much of them alone, and nothing beside them
    C, _, brier, score = (float(v) for v in values["smooth"])
    assert score > float(values["linear"][3]) + 0.05
    assert brier < float(values["linear"][2])
    assert abs(float(values["with deep()"][0]) - C) < 0.02
    assert abs(float(values["deep() alone"][0]) - C) < 0.05


def check_ordinal(lines: list[str]) -> None:
    tests = [line.split() for line in lines if line.startswith(("selflr ", "income "))]
    # the place on the scale is not proportional, income is; both have scale effects
    nominal = {line[0]: float(line[-1]) for line in tests[2:4]}
    assert nominal["selflr"] < 0.001
    assert nominal["income"] > 0.05
    start = next(k for k, line in enumerate(lines) if line.strip().startswith("log odds ratio"))
    ratios = [float(line.split()[-2]) for line in lines[start + 1 : start + 5]]
    assert ratios == sorted(ratios)
    names = ("proportional ", "partial ", "scale ")
    scores = {line.split()[0]: line.split() for line in lines if line.startswith(names)}
    for better in ("partial", "scale"):
        assert float(scores[better][3]) > float(scores["proportional"][3])
        assert float(scores[better][5]) < float(scores["proportional"][5])


def check_time_series(lines: list[str]) -> None:
    scores = {line[:12].strip(): line.split() for line in lines if "one-step" in line}
    none, linear, transformed = (
        float(scores[name][-3]) for name in ("no memory", "linear", "transformed")
    )
    # memory helps, and the scale that the data choose helps more
    assert none < linear < transformed
    assert [int(scores[name][-1]) for name in ("no memory", "linear")] == [1401, 1352]
    hour, day = (float(lines_of(lines, "memory").split()[k].rstrip(",")) for k in (5, 10))
    assert hour > 0.5 > day
    rides = lines_of(lines, "rides").split()
    assert float(rides[8]) < float(rides[12]) < float(rides[10].rstrip(","))


def lines_of(lines: list[str], start: str) -> str:
    """The first line that starts so."""
    return next(line for line in lines if line.startswith(start))
