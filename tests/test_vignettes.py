"""Every vignette runs from top to bottom, in a process of its own, and writes its picture."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VIGNETTES = sorted((ROOT / "vignettes").glob("*.py"))
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("path", VIGNETTES, ids=lambda path: path.stem)
def test_vignette_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    picture = (tmp_path / f"{path.stem}.png").read_bytes()
    assert picture.startswith(PNG) and len(picture) > 20_000
    assert "nan" not in done.stdout


def test_quickstart_says_what_its_text_claims(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "vignettes" / "quickstart.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    gains = {}
    for line in lines:
        if "(se" in line and "Log score" not in line and not line.startswith("additive"):
            name, rest = line[:28].strip(), line[28:].split()
            gains[name] = (float(rest[1]), float(rest[3].rstrip(")")))
    # the network gains, by more than twice its standard error; what is written out gains more
    assert gains["with deep()"][0] > 2 * gains["with deep()"][1]
    assert gains["written out"][0] > gains["with deep()"][0]
    assert "the same after loading: True" in lines
