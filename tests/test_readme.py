"""README.md tells the truth: its examples run, what it names exists, .ci/run installs the same."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def same(line: str, other: str) -> bool:
    """Whether two lines have the same words and, to 0.1 %, the same numbers."""
    number = r"-?\d+\.\d+"
    words, numbers = re.sub(number, "#", line).split(), re.findall(number, line)
    if re.sub(number, "#", other).split() != words:
        return False
    return [float(n) for n in re.findall(number, other)] == pytest.approx(
        [float(n) for n in numbers], rel=1e-3
    )


def test_examples_run_and_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102  (our own text)
    plt.close("all")
    printed = capsys.readouterr().out.splitlines()
    shown = [line for block in blocks("text") for line in block.splitlines()]
    assert shown
    assert [line for line in shown if not any(same(line, other) for other in printed)] == []


def test_paths_exist() -> None:
    shell = [word for block in blocks("bash") for word in block.split() if word.endswith(".py")]
    named = re.findall(r"`((?:[\w.-]+/)+[\w.]*|[A-Z]+\.md)`", README)
    assert shell
    assert [path for path in shell + named if not (ROOT / path).exists()] == []


def test_ci_uses_the_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for words in ("-m venv --without-pip", "-m pip --python", "-m pytest -n 2"):
        assert words in README
        assert words in script
