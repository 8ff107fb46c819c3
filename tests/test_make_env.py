"""The environment: which torch is taken where there is no GPU. No pip runs: a stand-in answers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *install*) echo "$*" >>asked; case "$*" in *"$REFUSED"*) exit 1 ;; esac ;;
    *importlib.metadata*) echo torch==2.9.1 ;;
esac
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or Path("/dev/nvidiactl").exists(),
    reason="another choice is made elsewhere, and with a GPU",
)


def asked_of_pip(folder: Path, refused: str) -> list[str]:
    """What is asked of a pip that has nothing with `refused` in its command, without options."""
    (folder / "scripts").mkdir()
    for name in ("scripts/make_env.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    subprocess.run(
        ["sh", "scripts/make_env.sh"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "REFUSED": refused},
        check=True,
        capture_output=True,
    )
    lines = (folder / "asked").read_text().splitlines()
    return [
        line.split("install -qq ")[1] for line in lines if "torch" in line and "[dev]" not in line
    ]


def test_the_torch_that_we_pin_is_taken_where_it_is_offered(tmp_path: Path) -> None:
    assert asked_of_pip(tmp_path, "nothing") == ["--no-index --no-deps torch==2.13.0"]


def test_another_torch_that_is_offered_is_taken_before_one_is_fetched(tmp_path: Path) -> None:
    assert asked_of_pip(tmp_path, "torch==2.13.0") == [
        "--no-index --no-deps torch==2.13.0",
        "--no-index --no-deps torch>=2.8,<3",
    ]


def test_a_cpu_build_is_fetched_where_none_is_offered(tmp_path: Path) -> None:
    asked = asked_of_pip(tmp_path, "--no-index")
    assert asked[-1].endswith("torch==2.13.0+cpu")
