"""What search costs, on any trained run: greedy, beam, beam with CTC and a language model.

    python benchmarks/search_speed.py RUN [--lm FOLDER] [--utterances 128] [--device cuda] [--json]

All kinds search the same utterances of the run's test part, which are listened to once, in one
process. They take turns, and what is reported is the median round: in CPU seconds, so that a busy
moment of the machine does not decide; on a GPU in seconds of wall time. Beside them stands a beam
search as a textbook writes it (`textbook_beam`): one utterance, one path, one step at a time. It is
held to the same results.

`times_greedy` is the cost against greedy search, of the search alone and with listening to the
utterances; `real_time` is seconds of wall time, listening included, for a second of speech;
`peak_mib` is what the search held at most, above what was held before, on a GPU by its tensors.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.corpora import read_part
from spelldown.data.frontend import SECONDS_PER_FRAME
from spelldown.data.vocabulary import EOS, SOS
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.model.spelling.speller import SpellerState
from spelldown.recipe.run import Run, load_run
from spelldown.search.language.language_model import LanguageModel, load_language_model
from spelldown.search.metrics import score
from spelldown.search.search import BeamSettings, GreedySettings, SearchSettings, search
from spelldown.search.transcribing.transcript import Item
from spelldown.training.update import device_of

BEAM = 8
TEXTBOOK = f"textbook beam {BEAM}"


@dataclass
class Heard:
    """Utterances, from long to short: what was heard of each batch, and what was said."""

    batches: list[Memory] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cost: float = 0.0  # in seconds of the clock by which searches are compared
    wall: float = 0.0


@dataclass(frozen=True)
class Clocks:
    """By what searches are compared, and what they took; a GPU is waited for."""

    device: torch.device

    def __call__(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.monotonic(), time.monotonic()
        return time.process_time(), time.monotonic()


def listened(run: Run, count: int, precision: Precision) -> Heard:
    """The listener's output for `count` utterances of the test part, evenly over all lengths."""
    transcriber = run.transcriber
    device = device_of(transcriber.recognizer)
    clocks = Clocks(device)
    part = run.recipe.data.test or run.recipe.data.dev
    cuts = sorted(read_part(run.recipe.data, part).cuts, key=lambda cut: -cut.duration)
    cuts = cuts[:: max(len(cuts) // count, 1)][:count]
    heard = Heard()
    finished = {
        place: transcriber.frontend.finish(transcriber._static(Item(cut.id, cut)))
        for place, cut in enumerate(cuts)
    }
    for places in transcriber._batches(finished):  # as `spelldown transcribe` forms them
        batch, frames = [cuts[place] for place in places], [finished[place] for place in places]
        lengths = torch.tensor([len(one) for one in frames])
        began = clocks()
        with torch.inference_mode(), autocast(device, precision):
            padded = pad_sequence(frames, batch_first=True).to(device)
            heard.batches.append(transcriber.recognizer.listen(padded, lengths.to(device)))
        ended = clocks()
        heard.cost += ended[0] - began[0]
        heard.wall += ended[1] - began[1]
        heard.seconds += float(lengths.sum()) * SECONDS_PER_FRAME
        heard.texts += [" ".join(said.text or "" for said in cut.supervisions) for cut in batch]
    return heard


@torch.inference_mode()
def textbook_beam(recognizer: Recognizer, memory: Memory, limit: int) -> list[tuple[int, ...]]:
    """Beam search over a batch as a textbook writes it; what was heard is projected once each."""
    best: list[tuple[int, ...]] = []
    for frames, length in zip(memory.frames, memory.lengths, strict=True):
        heard = Memory(frames[None, : int(length)], length[None])
        open_: list[tuple[float, tuple[int, ...], SpellerState]]
        open_ = [(0.0, (SOS,), recognizer.start(heard))]
        ended: list[tuple[float, tuple[int, ...]]] = [(-torch.inf, ())]
        for _ in range(limit):
            candidates: list[tuple[float, tuple[int, ...], SpellerState]] = []
            for total, symbols, state in open_:
                log_probs, after = recognizer.step(
                    torch.tensor(symbols[-1:], device=frames.device), state
                )
                for symbol, log_prob in enumerate(log_probs[0].tolist()):
                    if symbol >= EOS:
                        candidates.append((total + log_prob, (*symbols, symbol), after))
            candidates.sort(key=lambda one: -one[0])
            ended += [(total, said) for total, said, _ in candidates[:BEAM] if said[-1] == EOS]
            open_ = [one for one in candidates[:BEAM] if one[1][-1] != EOS]
            open_ = [one for one in open_ if one[0] > max(ended)[0]]
            if not open_:
                break
        best.append(max(ended)[1][1:-1] or (open_[0][1][1:] if open_ else ()))
    return best


def kinds(
    run: Run, lm: LanguageModel | None
) -> dict[str, Callable[[Memory], Sequence[tuple[int, ...]]]]:
    """Each kind of search, from what was heard of a batch to the symbols of each utterance."""
    recognizer = run.transcriber.recognizer
    said = run.recipe.search
    limits: Any = {"longest": said.longest, "longest_per_second": said.longest_per_second}
    beam = BeamSettings(beam=BEAM, **limits)
    chosen: dict[str, SearchSettings] = {
        "greedy": GreedySettings(**limits),
        f"beam {BEAM}": beam,
        f"beam {BEAM}, pruned": beam.model_copy(update={"prune": 5.0}),
    }
    if recognizer.ctc is not None:
        chosen[f"beam {BEAM} + CTC"] = beam.model_copy(update={"ctc_weight": 0.3})
    if lm is not None:
        weights = {"ctc_weight": 0.3 if recognizer.ctc is not None else 0.0, "lm_weight": 0.4}
        chosen[f"beam {BEAM} + CTC + LM"] = beam.model_copy(update=weights)

    def ours(settings: SearchSettings) -> Callable[[Memory], Sequence[tuple[int, ...]]]:
        return lambda memory: [
            found.symbols
            for found in search(
                recognizer,
                memory,
                settings,
                seconds_per_frame=run.transcriber.seconds_per_frame,
                language_model=lm,
            )
        ]

    return {
        **{name: ours(settings) for name, settings in chosen.items()},
        TEXTBOOK: lambda memory: textbook_beam(recognizer, memory, said.longest),
    }


@dataclass
class Cost:
    """What one kind of search took, round by round, and what it found."""

    cost: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    found: list[tuple[int, ...]] = field(default_factory=list)


def measure(run: Run, heard: Heard, lm: LanguageModel | None, args: Any) -> dict[str, Cost]:
    """All kinds in turn, round after round; the textbook once, since it is slow."""
    costs: dict[str, Cost] = {}
    device = device_of(run.transcriber.recognizer)
    clocks = Clocks(device)
    for turn in range(args.rounds + 1):  # the first warms up, and is not counted
        for name, find in kinds(run, lm).items():
            if name == TEXTBOOK and turn != 1:
                continue
            cost = costs.setdefault(name, Cost())
            before = _reset_peak(device)
            began = clocks()
            with autocast(device, args.precision):
                cost.found = [symbols for memory in heard.batches for symbols in find(memory)]
            ended = clocks()
            if turn:
                cost.cost.append(ended[0] - began[0])
                cost.wall.append(ended[1] - began[1])
                cost.peak_mib = max(cost.peak_mib, _peak(device) - before)
    return costs


def _reset_peak(device: torch.device) -> float:
    """Lets the peak begin anew (Linux), and gives what is held now, in MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return _held("VmRSS")


def _peak(device: torch.device) -> float:
    """The most that was held since, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _held("VmHWM")


def _held(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def table(run: Run, heard: Heard, costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """A row for each kind of search."""
    greedy = statistics.median(costs["greedy"].cost)
    book = statistics.median(costs[TEXTBOOK].cost)
    rows = []
    for name, cost in costs.items():
        seconds, wall = statistics.median(cost.cost), statistics.median(cost.wall)
        spelled = [run.vocabulary.decode(symbols) for symbols in cost.found]
        rows.append(
            {
                "search": name,
                "seconds": round(seconds, 3),
                "times_greedy": round(seconds / greedy, 2),
                "times_greedy_with_listening": round(
                    (seconds + heard.cost) / (greedy + heard.cost), 2
                ),
                "faster_than_textbook": round(book / seconds, 1),
                "real_time": round((wall + heard.wall) / heard.seconds, 4),
                "peak_mib": round(cost.peak_mib, 1),
                "same_as_textbook": _share_same(cost.found, costs[TEXTBOOK].found),
                "wer": round(score(heard.texts, spelled, [""] * len(spelled)).wer, 4),
            }
        )
    return rows


def _share_same(found: Sequence[Any], others: Sequence[Any]) -> float:
    same = [a == b for a, b in zip(found, others, strict=True)]
    return same.count(True) / len(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("overrides", nargs="*", help="as data.root=/elsewhere")
    parser.add_argument("--lm", type=Path, help="folder of a language model")
    parser.add_argument("--utterances", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = load_run(args.run, args.overrides)
    run.transcriber.recognizer.to(torch.device(args.device))
    lm = load_language_model(args.lm, run.vocabulary) if args.lm else None
    listened(run, 8, args.precision)  # warms up
    heard = listened(run, args.utterances, args.precision)
    rows = table(run, heard, measure(run, heard, lm, args))
    if args.json:
        print(json.dumps({"speech_seconds": round(heard.seconds, 1), "searches": rows}, indent=2))
        return
    print(f"{len(heard.texts)} utterances, {heard.seconds:.0f} s of speech, {args.threads} threads")
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>{len(key)}}" for key, value in row.items()))


if __name__ == "__main__":
    main()
