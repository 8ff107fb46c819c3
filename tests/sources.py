"""What the tests of sources share: reading all of one, and small audio files."""

from pathlib import Path

import numpy as np
import soundfile

from spelldown.data.checks import Problem
from spelldown.data.preparing.sources.kinds import SourceSettings, read_source
from spelldown.data.preparing.utterance import Remark, Utterance

RATE = 16000


def found_in(source: Path, settings: SourceSettings) -> tuple[list[Utterance], list[Problem]]:
    """All utterances of a source and all problems, each in its order; remarks are neither."""
    found = list(read_source(source, settings))
    utterances = [one for one in found if isinstance(one, Utterance)]
    problems = [one for one in found if isinstance(one, Problem) and not isinstance(one, Remark)]
    return utterances, problems


def write_audio(path: Path, seconds: float = 0.1, channels: int = 1) -> Path:
    """A soft noise in a file of the kind that its ending names; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.01, (round(seconds * RATE), channels))
    soundfile.write(path, samples, RATE)
    return path


def touch(*paths: Path) -> None:
    """Files of which only the names count: sources open no audio."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not audio")
