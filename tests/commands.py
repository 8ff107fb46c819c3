"""The command line as a test calls it, in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from spelldown.cli import app

SOURCE = Path(__file__).parent.parent


def spelldown(*words: object) -> Result:
    """What a command prints, and how it ends."""
    return CliRunner().invoke(app, [str(word) for word in words])


def process(*words: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "spelldown", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
