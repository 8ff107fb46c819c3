"""Frames kept on disk: the same numbers, never stale, whole or not at all."""

import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from full_disk import files_of_at_most
from lhotse import Recording
from run_outcome import outcome
from toy_sound import RATE, hum, write_recordings

from spelldown.data import cache
from spelldown.data.cache import cached_part
from spelldown.data.corpora import CutsSettings, read_part
from spelldown.data.frontend import (
    ArraysFrontendSettings,
    Frontend,
    FrontendSettings,
    LogMelSettings,
    MfccSettings,
)
from spelldown.data.loading.shards import Shard
from spelldown.data.reading.identity import digest_of
from spelldown.errors import AudioError, DataError, RecipeError
from spelldown.recipe.parts import build_parts
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.run import start
from spelldown.training.run.run_folder import RunFolder

DEMO = Path(__file__).parent.parent / "recipes" / "demo.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "corpus")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def kept(root: Path, folder: Path, settings: FrontendSettings | None = None, **how: Any) -> Shard:
    cuts = read_part(CutsSettings(root=root), "train").cuts
    return cached_part(cuts, Frontend(settings or MfccSettings()), folder, "train", **how)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("settings", [MfccSettings(width=20, deltas=1), LogMelSettings(width=40)])
@pytest.mark.parametrize("speed", [1.0, 0.9])
def test_frames_from_the_cache_are_those_made_on_the_fly(
    root: Path, folder: Path, settings: FrontendSettings, speed: float
) -> None:
    frontend = Frontend(settings)
    shard = kept(root, folder, settings, speed=speed)
    for place, cut in enumerate(read_part(CutsSettings(root=root), "train").cuts):
        made = frontend.static(cut, speed)
        assert torch.equal(shard.frames(place), made)
        assert len(made) == frontend.count(cut, speed)


def test_workers_make_the_same_file(root: Path, folder: Path, tmp_path: Path) -> None:
    alone, helped = kept(root, folder), kept(root, tmp_path / "other", workers=2)
    assert alone.path.read_bytes() == helped.path.read_bytes()


def test_what_is_there_is_not_made_again(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept(root, folder)
    monkeypatch.setattr(Frontend, "static", lambda *_: pytest.fail("made again"))
    assert kept(root, folder).path == first.path
    assert names(folder) == {first.path.name, first.path.with_suffix(".json").name}


def test_deltas_normalisation_and_names_share_the_frames(root: Path, folder: Path) -> None:
    first = kept(root, folder)
    finished = MfccSettings(deltas=2, normalise="mean", normalise_over="speaker")
    assert kept(root, folder, finished).path == first.path
    part = read_part(CutsSettings(root=root), "train")
    for cut in part.cuts:
        cut.id = f"other-{cut.id}"
    assert cached_part(part.cuts, Frontend(MfccSettings()), folder, "train").path == first.path


def test_whatever_changes_the_frames_has_a_cache_of_its_own(root: Path, folder: Path) -> None:
    paths = {kept(root, folder).path}
    for settings in (MfccSettings(width=14), MfccSettings(filters=30), LogMelSettings(width=13)):
        paths.add(kept(root, folder, settings).path)
    paths.add(kept(root, folder, speed=1.1).path)
    paths.add(kept(root, folder, MfccSettings(sample_rate=8000)).path)
    audio = root / "audio" / "train-004.wav"
    samples, rate = soundfile.read(audio)
    soundfile.write(audio, 0.5 * samples, rate)  # as long as before
    paths.add(kept(root, folder).path)
    assert len(paths) == 7
    place = 4
    made = Frontend(MfccSettings()).static(
        list(read_part(CutsSettings(root=root), "train").cuts)[4]
    )
    assert torch.equal(kept(root, folder).frames(place), made)


def test_a_damaged_cache_is_made_anew(root: Path, folder: Path) -> None:
    shard = kept(root, folder)
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[:-1])
    assert kept(root, folder).path.read_bytes() == whole
    shard.path.with_suffix(".json").write_text("{")
    assert kept(root, folder).path.read_bytes() == whole
    shard.path.with_suffix(".json").write_text('{"key": "another"}')
    shard.path.write_bytes(bytes(len(whole)))
    assert kept(root, folder).path.read_bytes() == whole
    shard.path.with_suffix(".json").unlink()
    assert kept(root, folder).path.read_bytes() == whole


def test_a_stopped_making_goes_on_where_it_was(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = kept(root, tmp_path / "unbroken").path.read_bytes()
    static = Frontend.static
    made: list[str] = []

    def stopped(self: Frontend, cut: Any, speed: float = 1.0) -> Any:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(cut.id)
        return static(self, cut, speed)

    monkeypatch.setattr(cache, "SAFE_EVERY", 1)
    monkeypatch.setattr(Frontend, "static", stopped)
    with pytest.raises(KeyboardInterrupt):
        kept(root, folder)
    assert not list(folder.glob("*.half"))

    def going_on(self: Frontend, cut: Any, speed: float = 1.0) -> Any:
        made.append(cut.id)
        return static(self, cut, speed)

    monkeypatch.setattr(Frontend, "static", going_on)
    assert kept(root, folder).path.read_bytes() == expected
    assert made == [f"train-{number:03}" for number in range(9)]
    assert len(names(folder)) == 2


def test_recordings_that_cannot_be_read_are_all_named_and_nothing_is_left(
    root: Path, folder: Path
) -> None:
    cuts = read_part(CutsSettings(root=root), "train").cuts
    for number in (2, 6):
        audio = root / "audio" / f"train-{number:03}.wav"
        audio.write_bytes(audio.read_bytes()[:2000])
    with pytest.raises(DataError, match="2 recordings of train cannot be read") as caught:
        cached_part(cuts, Frontend(MfccSettings()), folder, "train")
    assert "train-002.wav" in caught.value.problems[0]
    assert "train-006.wav" in caught.value.problems[1]
    assert names(folder) == set()


def damaged_inside(root: Path, *numbers: int) -> list[bytes]:
    """Cuts recordings of train in half, whose headers then still tell the whole length."""
    files = [root / "audio" / f"train-{number:03}.flac" for number in numbers]
    whole = [file.read_bytes() for file in files]
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content[: len(content) // 2])
    return whole


def test_recordings_damaged_inside_are_left_out_where_the_recipe_says_so(tmp_path: Path) -> None:
    root = write_recordings(tmp_path / "corpus", suffix=".flac")
    (whole, _) = damaged_inside(root, 2, 6)
    augment = {"sound": {"speeds": [0.9, 1.0]}}
    leaving = recipe_of(root, augment=augment, data={"cache": "half", "problems": "leave-out"})
    start(leaving, RunFolder(tmp_path / "run"))
    told = (tmp_path / "run" / "left_out.txt").read_text().splitlines()
    assert [f"train-00{n}.flac" in line for n, line in zip((2, 6), told, strict=True)] == [True] * 2
    assert all(line.count("train-00") == 1 for line in told)
    train = build_parts(leaving).train
    kept = [train.example(place, 1).id for place in range(train.utterances)]
    assert kept == [f"train-00{n}" for n in (0, 1, 3, 4, 5, 7, 8)]
    for place in range(7):
        change = {"root": root, "kind": "cuts", "problems": "leave-out"}
        plain = build_parts(recipe_of(root, augment=augment, data=change)).train
        whole_place = place + (place > 1) + (place > 4)
        assert torch.equal(train._static(place, 0.9), plain._static(whole_place, 0.9))
    with pytest.raises(DataError, match="2 recordings of train cannot be read") as caught:
        build_parts(recipe_of(root, augment=augment, data={"cache": "half"}))
    assert "data.problems: leave-out" in caught.value.summary and len(caught.value.problems) == 2
    (root / "audio" / "train-002.flac").write_bytes(whole)
    assert build_parts(leaving).train.utterances == 8


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_recordings(tmp_path / "corpus")
    static = Frontend.static

    def off_line(self: Frontend, cut: Any, speed: float = 1.0) -> Any:
        if cut.id == "train-003":
            raise DataError("the disk is away")
        return static(self, cut, speed)

    with monkeypatch.context() as patched:
        patched.setattr(Frontend, "static", off_line)
        for _ in range(2):
            left = kept(root, tmp_path / "kept", problems="leave-out")
            assert left.unreadable == {3: "the disk is away"}
    assert kept(root, tmp_path / "kept", problems="leave-out").unreadable == {}


def test_without_a_cache_training_says_what_finds_damaged_recordings(tmp_path: Path) -> None:
    root = write_recordings(tmp_path / "corpus", suffix=".flac")
    damaged_inside(root, 4)
    with pytest.raises(AudioError, match=r"train-004\.flac.*spelldown prepare.*data\.cache: half"):
        start(recipe_of(root, data={"problems": "leave-out"}), RunFolder(tmp_path / "run"))


def test_a_part_of_damaged_recordings_alone_is_refused(tmp_path: Path) -> None:
    root = write_recordings(tmp_path / "corpus", suffix=".flac")
    damaged_inside(root, *range(9))
    with pytest.raises(DataError, match="no utterance of train can be used, of 9"):
        build_parts(recipe_of(root, data={"cache": "half", "problems": "leave-out"}))


def test_a_stopped_making_remembers_what_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_recordings(tmp_path / "corpus", suffix=".flac")
    cuts = read_part(CutsSettings(root=root), "train").cuts
    damaged_inside(root, 1)
    static, made = Frontend.static, []

    def stopped(self: Frontend, cut: Any, speed: float = 1.0) -> Any:
        made.append(cut.id)
        if len(made) == 6:
            raise KeyboardInterrupt
        return static(self, cut, speed)

    monkeypatch.setattr(cache, "SAFE_EVERY", 1)
    monkeypatch.setattr(Frontend, "static", stopped)
    how: dict[str, Any] = {"problems": "leave-out"}
    with pytest.raises(KeyboardInterrupt):
        cached_part(cuts, Frontend(MfccSettings()), tmp_path / "kept", "train", **how)
    shard = cached_part(cuts, Frontend(MfccSettings()), tmp_path / "kept", "train", **how)
    assert list(shard.unreadable) == [1] and made.count("train-000") == 1 and len(made) == 10
    monkeypatch.setattr(Frontend, "static", static)
    for place, cut in enumerate(cuts):
        if place != 1:
            assert torch.equal(shard.frames(place), Frontend(MfccSettings()).static(cut))


def test_what_is_done_to_recordings_laid_over_each_other_is_told_apart(
    root: Path, tmp_path: Path
) -> None:
    one, other, *_ = read_part(CutsSettings(root=root), "train").cuts
    room = Recording.from_file(root / "audio" / "train-008.wav")
    over = one.mix(other, snr=5)
    seen = [
        over,
        one.mix(other, snr=6),
        one.mix(other, snr=5, offset_other_by=0.1),
        over.reverb_rir(room),
        over.normalize_loudness(-20, mix_first=True),
        over.normalize_loudness(-30, mix_first=True),
        one.reverb_rir(room).mix(other, snr=5),
        one.append(other),
    ]
    digests = {digest_of({}, [cut]) for cut in seen}
    audio = root / "audio" / "train-008.wav"
    audio.write_bytes(audio.read_bytes()[:-2] + b"ab")  # of the room
    assert digest_of({}, [seen[3]]) not in digests and digest_of({}, [over]) in digests
    assert len(digests) == len(seen)


def test_a_recording_replaced_by_one_of_its_size_and_date_is_noticed(
    root: Path, folder: Path
) -> None:
    first = kept(root, folder).path
    audio = root / "audio" / "train-004.wav"
    before = audio.stat()
    samples, rate = soundfile.read(audio)
    soundfile.write(audio, 0.5 * samples, rate)
    os.utime(audio, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = audio.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert kept(root, folder).path != first


@pytest.mark.parametrize("size", [10, 3000])
def test_a_disk_that_fills_up_is_named_and_nothing_is_left(
    root: Path, folder: Path, size: int
) -> None:
    with files_of_at_most(size), pytest.raises(DataError) as caught:
        kept(root, folder)
    told = str(caught.value)
    assert str(folder) in told and ".half" in told and "cannot be written" in told
    assert "data.cache_folder" in told and "data.cache: null" in told
    assert names(folder) == set()
    kept(root, folder)
    assert len(names(folder)) == 2


def test_a_disk_that_is_too_small_is_told_before_anything_is_made(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(Frontend, "static", lambda *_: pytest.fail("made"))
    with pytest.raises(DataError, match=r"need 0\.0 MiB, and only 0\.0 MiB are free there"):
        kept(root, folder)
    assert names(folder) == set()


def test_a_folder_that_cannot_be_made_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data\.cache_folder") as caught:
        kept(root, tmp_path / "file" / "cache")
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def slowly(root: Path, folder: Path, made: Any) -> None:
    static = Frontend.static

    def slow(self: Frontend, cut: Any, speed: float = 1.0) -> Any:
        made.put(os.getpid())
        time.sleep(0.02)
        return static(self, cut, speed)

    Frontend.static = slow  # type: ignore[method-assign,assignment]
    kept(root, folder)


def test_two_processes_make_the_frames_once(root: Path, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    made: Any = context.SimpleQueue()
    both = [context.Process(target=slowly, args=(root, folder, made)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    makers = []
    while not made.empty():
        makers.append(made.get())
    assert len(makers) == 9 and len(set(makers)) == 1
    assert len(names(folder)) == 2


def test_a_shard_goes_to_a_worker_without_its_frames(root: Path, folder: Path) -> None:
    shard = kept(root, folder)
    frames = shard.frames(3)
    sent = pickle.dumps(shard)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).frames(3), frames)


# --- in a run


def recipe_of(root: Path, **sections: Any) -> Recipe:
    page: dict[str, Any] = {
        "name": "tiny",
        "data": {"kind": "cuts", "root": root, **sections.pop("data", {})},
        "frontend": {"kind": "mfcc", "width": 8, "filters": 20, "deltas": 1},
        "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
        "speller": {"embedding": 8, "width": 8},
        "batching": {"utterances": 4, **sections.pop("batching", {})},
        "training": {"epochs": 2, "device": "cpu", "threads": 1, "pictures_every": 0},
        "search": {"kind": "greedy", "longest": 20},
    }
    return Recipe.model_validate({**page, **sections})


@pytest.mark.parametrize(
    ("augment", "speeds"),
    [
        ({"sound": {"speeds": [0.9, 1.1]}, "time_warp": 10, "from_epoch": 2}, [0.9, 1.0, 1.1]),
        (None, [1.0]),
    ],
)
def test_a_run_with_a_cache_ends_with_the_weights_of_one_without(
    root: Path, tmp_path: Path, augment: Any, speeds: list[float]
) -> None:
    plain = recipe_of(root, augment=augment, batching={"cache_megabytes": 0, "ahead": 0})
    cached = recipe_of(root, augment=augment, data={"cache": "half"})
    for name, recipe in (("plain", plain), ("cached", cached), ("again", cached)):
        start(recipe, RunFolder(tmp_path / name))
        found = [path.name for path in (root / "cache").glob("*.half")] if name != "plain" else []
        assert name == "plain" or len(found) == len(speeds) + 1  # and dev at its own speed
    assert (
        outcome(tmp_path / "plain") == outcome(tmp_path / "cached") == outcome(tmp_path / "again")
    )


def test_looking_at_a_recipe_makes_no_cache(root: Path) -> None:
    from spelldown.recipe.overview import overview

    assert overview(recipe_of(root, data={"cache": "half"})).missing is None
    assert not (root / "cache").exists()


@pytest.mark.parametrize(
    ("overrides", "key", "says"),
    [
        (["data.cache_folder=x"], "data", "add cache: half"),
        (["data.cache=half", "augment.sound={volume: [-6, 6]}"], "augment.sound.volume",
         "set data.cache to null, or this"),
        (["data.cache=half", "augment.sound={room: {kind: simulated}}"], "augment.sound.room",
         "another one each time"),
        (["data.cache=half", "batching.cache_megabytes=9"], "batching.cache_megabytes", "on disk"),
        (["data.cache=half", "frontend={kind: arrays}"], "data.cache", "need no cache"),
        (["data.cache=full"], "data.cache", "half"),
    ],
)  # fmt: skip
def test_a_cache_that_would_be_wrong_is_refused(overrides: list[str], key: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(DEMO, overrides)
    assert any(key in problem and says in problem for problem in caught.value.problems), str(
        caught.value
    )


def test_ready_made_frames_are_not_what_a_cache_is_for() -> None:
    assert not Frontend(ArraysFrontendSettings()).halves
    frames = Frontend(MfccSettings()).of_samples(torch.from_numpy(hum(0.5)), RATE)
    assert torch.equal(frames.half().float(), frames)
