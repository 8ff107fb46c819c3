"""What several commands share: exit statuses, and options that mean the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

FAILED, INTERRUPTED = 1, 130  # exit statuses; wrong usage is 2

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/an4-1.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, and nothing else.")]
