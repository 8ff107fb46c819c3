"""How fast frames are made from sound, and how long training waits for them.

    python benchmarks/data_speed.py [--minutes 5] [--recipe recipes/demo.yaml] [--updates 60]
                                    [--json] [KEY=VALUE ...]

First: hours of audio an hour, by one processor core (CPU time of one thread, the best of three
rounds), from the file to an example that is ready for a batch, deltas and normalisation included:
by file format, from a cache, and with each kind of augmentation by itself (on WAV). The audio is
made here, in a temporary folder: utterances of 2 to 8 seconds that hum and hiss.

Then: the share of training time that is spent waiting for data, measured by the trainer itself over
the first so many updates of the recipe, with the overrides given: frames made on the fly as they
are needed, by a thread ahead of time, or by a worker; kept in memory, as a small corpus's are from
the second epoch on unless the sound itself changes; and read from a cache. Beside it the CPU time
of training with its data, and of the same batches alone, which tell what the waiting would be if
the processor cores were free: shares of wall time mean little on a machine that is busy otherwise.
Left out with --updates 0, and if the recipe's corpus is not there.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lhotse import CutSet, Recording, SupervisionSegment

from spelldown.data.augmenting.frames import Augment, AugmentSettings
from spelldown.data.batching import Batches, BatchingSettings
from spelldown.data.cache import cached_part
from spelldown.data.frontend import Frontend, FrontendSettings
from spelldown.data.loading.shards import Cached
from spelldown.data.recordings import samples_of
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError
from spelldown.recipe.parts import build_parts, learning_of
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Silent
from spelldown.training.trainer import Trainer

RATE = 16000
ROUNDS = 3
FORMATS: dict[str, dict[str, str]] = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
KEPT = "kept in memory, from the second epoch on"
OFF: dict[str, Any] = {"speed": None, "warp": 0, "time_masks": None, "frequency_masks": None}


@dataclass
class Row:
    """One line of the first table."""

    what: str
    hours_an_hour: float


@dataclass
class Wait:
    """One line of the second table: shares of wall time, and seconds of CPU time."""

    how: str
    waiting_share: float
    updates: int
    seconds: float
    audio_seconds: float
    cpu_seconds: float
    cpu_seconds_of_data_alone: float


def sounds(minutes: float) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Utterances that hum, pulse and hiss, so that they cost an encoder about what speech does."""
    random, left = np.random.default_rng(1), 60 * minutes
    while left > 0:
        time_ = np.arange(round(random.uniform(2, 8) * RATE)) / RATE
        pitch = (
            2 * np.pi * np.cumsum(random.uniform(90, 220) * (1 + 0.1 * np.sin(5 * time_))) / RATE
        )
        hum = sum(np.sin(k * pitch + k) / k for k in range(1, 25))
        pulse = np.clip(np.sin(2 * np.pi * 4 * time_), 0, 1)
        hiss = np.clip(np.sin(2 * np.pi * 4 * time_ + 2), 0, 1) * random.normal(size=len(time_))
        yield (0.08 * hum * pulse + 0.05 * hiss + 0.001 * random.normal(size=len(time_))).astype(
            np.float32
        )
        left -= len(time_) / RATE


def written(folder: Path, minutes: float, kind: str) -> CutSet:
    """The utterances in one format, as cuts."""
    cuts = []
    for number, samples in enumerate(sounds(minutes)):
        path = folder / f"{number:04}.{kind}"
        soundfile.write(path, samples, RATE, **FORMATS[kind])
        cut = Recording.from_file(path).to_cut()
        cut.supervisions = [SupervisionSegment(cut.id, cut.id, 0, cut.duration, text="A HUM")]
        cuts.append(cut)
    return CutSet.from_cuts(cuts)


def hours_an_hour(cuts: CutSet, work: Callable[[int], object]) -> float:
    """Hours of audio that `work`, called with each utterance's place, does in one of CPU time."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for place in range(len(cuts)):
            work(place)
        best = min(best, time.process_time() - began)
    return float(sum(cut.duration for cut in cuts)) / best


def decoded(cuts: Sequence[Any], place: int) -> torch.Tensor:
    """The samples of the cut at a place."""
    return samples_of(cuts[place])


def examples(
    cuts: CutSet, settings: FrontendSettings, cached: Cached | None = None, **augment: Any
) -> Callable[[int], object]:
    """What makes the example at a place, changed as `augment` says, keeping nothing."""
    frontend = Frontend(settings)
    changes = Augment(AugmentSettings(**{**OFF, **augment}), frontend) if augment else None
    limits = BatchingSettings(cache_megabytes=0)
    made = Batches(cuts, frontend, changes, Vocabulary.course(), limits, cached=cached)
    return lambda place: made.example(place, 1)


def table(folder: Path, minutes: float, settings: FrontendSettings) -> Iterator[Row]:
    """Formats, the cache, and augmentations one by one."""
    corpora: dict[str, CutSet] = {}
    for kind in FORMATS:
        (folder / kind).mkdir()
        cuts = corpora[kind] = written(folder / kind, minutes, kind)
        yield Row(f"{kind}, decoded", hours_an_hour(cuts, partial(decoded, list(cuts))))
        yield Row(f"{kind}, decoded, with frames", hours_an_hour(cuts, examples(cuts, settings)))
    cuts = corpora["wav"]
    shard = cached_part(cuts, Frontend(settings), folder / "cache", "train")
    cached = Cached({1.0: [shard]}, [len(cuts)])
    yield Row("from the cache", hours_an_hour(cuts, examples(cuts, settings, cached)))
    (folder / "noise").mkdir()
    (folder / "rooms").mkdir()
    random = np.random.default_rng(2)
    for name, seconds in (("a", 60), ("b", 30)):
        soundfile.write(
            folder / "noise" / f"{name}.wav", 0.1 * random.normal(size=seconds * RATE), RATE
        )
    room = random.normal(size=RATE // 2) * np.exp(-np.arange(RATE // 2) / 1500)
    soundfile.write(folder / "rooms" / "hall.wav", 0.2 * room, RATE)
    changes: dict[str, dict[str, Any]] = {
        "sound.speeds 0.9, 1.1": {"sound": {"speeds": [0.9, 1.1]}},
        "sound.volume": {"sound": {"volume": [-10, 6]}},
        "sound.noise": {"sound": {"noise": {"folder": folder / "noise", "share": 1}}},
        "sound.room simulated": {"sound": {"room": {"kind": "simulated", "share": 1}}},
        "sound.room recorded": {
            "sound": {"room": {"kind": "recorded", "folder": folder / "rooms", "share": 1}}
        },
        "speed of frames": {"speed": (0.9, 1.1)},
        "time_warp": {"time_warp": 80},
        "warp": {"warp": 0.1},
        "masks": {"time_masks": {"count": 2}, "frequency_masks": {"count": 2}},
    }
    for name, augment in changes.items():
        yield Row(f"wav, {name}", hours_an_hour(cuts, examples(cuts, settings, **augment)))
    both = {"speed": (0.9, 1.1), "warp": 0.1, "time_masks": {"count": 2}}
    rate = hours_an_hour(cuts, examples(cuts, settings, cached, **both))
    yield Row("from the cache, speed, warp, masks", rate)


class Enough(Exception):
    """So many updates were made."""


class StopsAfter(Silent):
    """Ends a training after so many updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    def updated(self, done: int, utterances: int, loss: float) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Enough


def waits(recipe: Sequence[str], page: Path, updates: int, folder: Path) -> Iterator[Wait]:
    """How long training waits for its data, made in each way."""
    ways = {
        "on the fly, nothing ahead, nothing kept": [
            "batching.ahead=0",
            "batching.cache_megabytes=0",
        ],
        "on the fly by a thread, nothing kept": ["batching.cache_megabytes=0"],
        "on the fly by a worker": ["batching.workers=1"],
        KEPT: [],
        "from the cache": ["data.cache=half", f"data.cache_folder={folder / 'kept'}"],
    }
    for number, (how, overrides) in enumerate(ways.items()):
        yield wait(read_recipe(page, [*recipe, *overrides]), how, updates, folder / str(number))


def wait(recipe: Recipe, how: str, updates: int, folder: Path) -> Wait:
    """Trains for so many updates and asks the trainer."""
    parts = build_parts(recipe)
    if how == KEPT:
        for _ in zip(parts.train.epoch(1), range(updates), strict=False):
            pass
    began_cpu = time.process_time()
    trainer = Trainer(
        RunFolder(folder),
        parts.recognizer,
        parts.train,
        parts.dev,
        parts.vocabulary,
        learning_of(recipe),
        recipe.search,
        seed=recipe.seed,
        tracker=StopsAfter(updates),
    )
    with suppress(Enough):
        trainer.fit()
    sums, cpu = trainer.sums, time.process_time() - began_cpu
    alone = build_parts(recipe.model_copy(update={"batching": alone_in(recipe)})).train
    if how == KEPT:
        for _ in zip(alone.epoch(1), range(updates), strict=False):
            pass
    began = time.process_time()
    seconds = 0.0
    for batch, _ in zip(alone.epoch(1), range(updates), strict=False):
        seconds += float(batch.lengths.sum()) / 100
    spent = time.process_time() - began
    share = sums.waiting / sums.seconds
    return Wait(how, share, sums.updates, sums.seconds, seconds, cpu, spent)


def alone_in(recipe: Recipe) -> BatchingSettings:
    """The recipe's batching in this process and thread, so that its CPU time can be told."""
    return recipe.batching.model_copy(update={"workers": 0, "ahead": 0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--minutes", type=float, default=5, help="of audio in each format")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    parser.add_argument("--updates", type=int, default=60, help="0 leaves training out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    recipe = read_recipe(asked.recipe, asked.overrides)
    threads = torch.get_num_threads()
    told: dict[str, Any] = {"recipe": str(asked.recipe), "overrides": asked.overrides}
    with tempfile.TemporaryDirectory() as name:
        torch.set_num_threads(1)
        told["hours_an_hour"] = []
        for row in table(Path(name), asked.minutes, recipe.frontend):
            told["hours_an_hour"].append(vars(row))
            if not asked.json:
                print(f"{row.what:40} {row.hours_an_hour:8,.0f} hours an hour", flush=True)
        torch.set_num_threads(threads)
        told["waiting"] = []
        try:
            ways = waits(asked.overrides, asked.recipe, asked.updates, Path(name) / "runs")
            for one in ways if asked.updates > 0 else ():
                told["waiting"].append(vars(one))
                if not asked.json:
                    print(
                        f"{one.how:42} {one.waiting_share:7.2%} of {one.seconds:.0f} s waiting; "
                        f"{one.cpu_seconds:.0f} s of CPU, its data alone "
                        f"{one.cpu_seconds_of_data_alone:.1f} s",
                        flush=True,
                    )
        except DataError as error:
            told["left_out"] = str(error)
            print(f"waiting was not measured: {error}", file=sys.stderr)
    if asked.json:
        print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
