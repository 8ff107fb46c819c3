"""Hour-long recordings: memory, times at the pauses, error rate, speed.

    python benchmarks/long_recording.py RUN [--corpus data/demo] [--part test] [--minutes 10 60]
                                        [--pauses auto] [--pause 0.3] [--most-memory 1024]
                                        [--most-words-off 0.02] [--json]

Joins the utterances of a prepared part into one recording for each length asked for, in a temporary
folder, with pauses of known lengths between them (0.3 to 2 s, drawn anew each time) and low noise
over all; transcribes each with `spelldown transcribe --json` in a process of its own. Tells

- the process's greatest memory. It rises for the first hours of sound, ever less, since torch keeps
  kernels for the shapes of batches that it has met, up to a limit; try 240 and 480 minutes;
- at each pause, how far the end of the word before it and the start of the word behind it are from
  the truth, and how far the segments' ends are, where one ends there;
- WER and CER of the joined text, beside those of the same utterances transcribed one by one;
- seconds of sound transcribed in a second.

The truth: an utterance begins and ends where it rises above 40 dB below its loudest 10 ms, and is
cut there. A word at a pause that is seconds off was not spelled at all. Ends with status 1, and
says why, if a segment's end at a pause is half a second off, if a larger share of words' ends at
pauses than `--most-words-off` is, or if more than `--most-memory` MiB were needed.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import soundfile
from rapidfuzz.distance import Levenshtein

RATE = 16_000
PAUSES = (0.3, 2.0)  # seconds
NOISE = 1e-3  # of full scale, root mean square: -60 dB
BELOW = 40.0  # dB below the loudest 10 ms at which speech begins and ends
WORST = 0.5  # seconds that a boundary may be off


@dataclass(frozen=True)
class Said:
    """An utterance's text and where it is in the joined recording, in seconds."""

    text: str
    start: float
    end: float


@dataclass
class Report:
    """What was found for one length; differences in seconds as median, 95 % and worst."""

    minutes: float
    utterances: int
    pauses: int
    memory_mib: float
    seconds_of_sound_a_second: float
    words_off: tuple[float, float, float]
    words_at_pauses: int
    words_over_half_a_second: int
    segment_ends_off: tuple[float, float, float]
    pauses_cut: int
    longest_segment: float
    wer: float
    cer: float


def utterances(corpus: Path, part: str) -> list[tuple[str, Any, Path]]:
    """Text, samples from speech's start to its end, and file of each utterance."""
    found = []
    with gzip.open(corpus / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for cut in map(json.loads, lines):
            file = corpus / cut["recording"]["sources"][0]["source"]
            samples, rate = soundfile.read(file, dtype="float32")
            if rate != RATE or samples.ndim != 1:
                raise SystemExit(f"{file}: {RATE} samples a second in one channel expected")
            found.append((cut["supervisions"][0]["text"], speech(samples), file))
    return found


def speech(samples: Any) -> Any:
    """The samples from where it rises above BELOW to where it falls below for good."""
    hop = RATE // 100
    energy = (samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)
    loud = numpy.flatnonzero(energy > energy.max() * 10 ** (-BELOW / 10))
    return samples[loud[0] * hop : (loud[-1] + 1) * hop]


def join(parts: list[tuple[str, Any, Path]], minutes: float, file: Path) -> list[Said]:
    """Writes the joined recording; what was said when."""
    random = numpy.random.default_rng(round(minutes * 60))
    said: list[Said] = []
    at = 0
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16") as out:

        def write(samples: Any) -> None:
            nonlocal at
            noise = random.normal(0, NOISE, len(samples))
            out.write(samples + noise)
            at += len(samples)

        while at < minutes * 60 * RATE:
            for place in random.permutation(len(parts)):
                text, samples, _ = parts[place]
                write(numpy.zeros(round(random.uniform(*PAUSES) * RATE)))
                start = at / RATE
                write(samples)
                said.append(Said(text, start, at / RATE))
                if at >= minutes * 60 * RATE:
                    break
        write(numpy.zeros(RATE))
    return said


def spelled(
    run: Path, inputs: list[str], cutting: list[str]
) -> tuple[list[dict[str, Any]], float, float]:
    """Results of `spelldown transcribe`, its greatest memory in MiB, and its seconds."""
    command = [sys.executable, "-m", "spelldown", "transcribe", str(run), *inputs]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*command, "--json", *cutting], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"transcribing ended with status {process.returncode}")
        out.seek(0)
        found = [json.loads(line) for line in out]
    memory = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return found, memory, time.monotonic() - began


def rates(references: list[str], hypotheses: list[str]) -> tuple[float, float]:
    """WER and CER over all pairs."""
    pairs = list(zip(references, hypotheses, strict=True))
    words = sum(Levenshtein.distance(a.split(), b.split()) for a, b in pairs)
    letters = sum(Levenshtein.distance(a, b) for a, b in pairs)
    said = sum(len(a.split()) for a, _ in pairs)
    return words / said, letters / sum(len(a) for a, _ in pairs)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile and greatest."""
    if not values:
        return (float("nan"),) * 3
    middle, high = numpy.percentile(values, [50, 95])
    return float(middle), float(high), max(values)


def differences(said: list[Said], pieces: list[dict[str, Any]]) -> list[float]:
    """At each pause: how far off is the end before its middle, and the start behind it."""
    middles = [(piece["start"] + piece["end"]) / 2 for piece in pieces]
    found = []
    for one, other in pairwise(said):
        place = int(numpy.searchsorted(middles, (one.end + other.start) / 2))
        if place:
            found.append(abs(pieces[place - 1]["end"] - one.end))
        if place < len(pieces):
            found.append(abs(pieces[place]["start"] - other.start))
    return found


def ends_at_cuts(said: list[Said], segments: list[dict[str, Any]]) -> tuple[list[float], int]:
    """How far segments' ends are from the truth at pauses that were cut, and how many were."""
    off, cut = [], 0
    for one, other in pairwise(said):
        middle = (one.end + other.start) / 2
        if any(segment["start"] < middle < segment["end"] for segment in segments):
            continue
        cut += 1
        before = [s["end"] for s in segments if one.start < s["end"] <= middle]
        behind = [s["start"] for s in segments if middle <= s["start"] < other.end]
        off += [abs(max(before) - one.end)] if before else []
        off += [abs(min(behind) - other.start)] if behind else []
    return off, cut


def report(
    run: Path, parts: list[tuple[str, Any, Path]], minutes: float, cutting: list[str]
) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "long.wav"
        said = join(parts, minutes, file)
        (found,), memory, seconds = spelled(run, [str(file)], cutting)
    words = differences(said, found["words"])
    ends, cut = ends_at_cuts(said, found["segments"])
    wer, cer = rates([" ".join(one.text for one in said)], [found["text"]])
    return Report(
        minutes=minutes,
        utterances=len(said),
        pauses=len(said) - 1,
        memory_mib=memory,
        seconds_of_sound_a_second=found["seconds"] / seconds,
        words_off=spread(words),
        words_at_pauses=len(words),
        words_over_half_a_second=sum(value > WORST for value in words),
        segment_ends_off=spread(ends),
        pauses_cut=cut,
        longest_segment=max((s["end"] - s["start"] for s in found["segments"]), default=0.0),
        wer=wer,
        cer=cer,
    )


def show(one: Report, wer: float, cer: float) -> None:
    """Prints a report beside the rates of the same utterances one by one."""
    middle, high, worst = one.words_off
    print(
        f"{one.minutes:g} min, {one.utterances} utterances: {one.memory_mib:.0f} MiB at most, "
        f"{one.seconds_of_sound_a_second:.0f} s of sound a second\n"
        f"  words at {one.pauses} pauses: median {middle:.3f} s off, 95 % {high:.3f}, "
        f"worst {worst:.3f}; {one.words_over_half_a_second} of {one.words_at_pauses} over "
        f"{WORST} s\n"
        f"  segments: {one.pauses_cut} pauses cut, ends median {one.segment_ends_off[0]:.3f} s "
        f"off, 95 % {one.segment_ends_off[1]:.3f}, worst {one.segment_ends_off[2]:.3f}; "
        f"the longest is {one.longest_segment:.1f} s\n"
        f"  WER {one.wer:.2%}, CER {one.cer:.2%}; one by one {wer:.2%}, {cer:.2%}"
    )


def failures(reports: list[Report], most_memory: float, most_words_off: float) -> list[str]:
    """What was not as good as asked for, a line each."""
    found = []
    for one in reports:
        off = one.words_over_half_a_second / max(one.words_at_pauses, 1)
        checks = {
            f"{one.memory_mib:.0f} MiB were needed": one.memory_mib > most_memory,
            f"{off:.1%} of words at pauses are over {WORST} s off": off > most_words_off,
            f"a segment's end is {one.segment_ends_off[2]:.2f} s off": (
                one.segment_ends_off[2] > WORST
            ),
        }
        found += [f"{one.minutes:g} min: {what}" for what, wrong in checks.items() if wrong]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path("data/demo"))
    parser.add_argument("--part", default="test")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    parser.add_argument("--pauses", default="auto")
    parser.add_argument("--pause", default="0.3", help="seconds")
    parser.add_argument("--most-words-off", type=float, default=0.02, help="share")
    parser.add_argument("--most-memory", type=float, default=1024.0, help="MiB")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    parts = utterances(asked.corpus, asked.part)
    cutting = ["--pauses", asked.pauses, "--pause", asked.pause]
    alone, _, _ = spelled(asked.run, [str(file) for _, _, file in parts], cutting)
    wer, cer = rates([text for text, _, _ in parts], [found["text"] for found in alone])
    reports = [report(asked.run, parts, minutes, cutting) for minutes in asked.minutes]
    if asked.json:
        one_by_one = {"utterances": len(parts), "wer": wer, "cer": cer}
        found = {"pauses": asked.pauses, "one_by_one": one_by_one}
        print(json.dumps({**found, "reports": [asdict(one) for one in reports]}))
    else:
        print(f"{len(parts)} utterances one by one: WER {wer:.2%}, CER {cer:.2%}")
        for one in reports:
            show(one, wer, cer)
    if wrong := failures(reports, asked.most_memory, asked.most_words_off):
        print("\n".join(wrong), file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
