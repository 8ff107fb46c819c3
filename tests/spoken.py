"""Synthetic speech for tests: an engine that says every letter as a tone; is eSpeak NG here?"""

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spelldown.data.synthesis.synthetic import SyntheticSettings

# Looked for, not imported: the engine is under the GPL and must stay out of this process.
has_loader = importlib.util.find_spec("espeakng_loader") is not None
needs_loader = pytest.mark.skipif(not has_loader, reason="espeakng-loader is not installed")
needs_espeak = pytest.mark.skipif(
    not has_loader and shutil.which("espeak-ng") is None,
    reason="eSpeak NG is not installed (pip install espeakng-loader)",
)

# Says "TEXT" as a tone of 20 ms a letter, at a pitch for each voice; some words it cannot say.
TONE = """
import sys, wave, math, struct
text, voice, out = sys.argv[1:4]
if "cough" in text.lower():
    print("a frog in the throat", file=sys.stderr); sys.exit(3)
pitch = 200 + 50 * (sum(map(ord, voice)) % 7)
samples = [int(9000 * math.sin(6.283 * pitch * i / 8000)) for i in range(160 * len(text))]
with wave.open(out, "wb") as file:
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(8000)
    file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
"""
LINES = [f"Sentence number {number}, έτσι!" for number in range(12)]


def settings(folder: Path, lines: Sequence[str] = LINES, **changes: Any) -> SyntheticSettings:
    """Settings with an engine that speaks in tones; `changes` by section."""
    script, text = folder / "tone.py", folder / "text.txt"
    script.write_text(TONE)
    text.write_text("\n".join(lines), encoding="utf-8")
    page: dict[str, Any] = {
        "saying": {"text": text},
        "speaking": {
            "engine": "command",
            "command": f"{sys.executable} {script} {{text}} {{voice}} {{out}}",
            "voices": ("anna", "bob", "cleo"),
        },
    }
    for name, change in changes.items():
        page[name] = page.get(name, {}) | change
    return SyntheticSettings.model_validate(page)


def files_of(out: Path) -> dict[str, bytes]:
    """Every file of a made corpus, by its path within it."""
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def command(folder: Path, *more: str) -> list[str]:
    """The command that makes a corpus of it."""
    asked = settings(folder)
    line = ["prepare", "synthetic", "--engine", "command", "--voices", "anna,bob"]
    line += ["--command", str(asked.speaking.command), "--text", str(asked.saying.text), *more]
    return line
