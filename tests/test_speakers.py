"""Frames normalised over all that a speaker says: in training, evaluation and use the same."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from tiny_sound import RATE, Hearing, Samples, bursts, write_sound
from torch import Tensor
from toy_corpus import spell_frames, write_utterance
from trained_run import toy_page

from spelldown.data.augmenting.frames import Augment, AugmentSettings
from spelldown.data.batching import Batches, BatchingSettings
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.frontend import ArraysFrontendSettings, Frontend, MfccSettings
from spelldown.data.loading.mixing import Added
from spelldown.data.loading.speakers import Spread, speaker_in, speakers_of, spreads
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError, RecipeError
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.run import load_run, start
from spelldown.recipe.using.evaluation import evaluate, part_to_score
from spelldown.recipe.using.transcription import transcribe, write_submission
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.joined import Source, heard
from spelldown.search.transcribing.sound.pauses import PauseSettings
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Transcript
from spelldown.training.run.run_folder import RunFolder

WIDTH = 4
COURSE = Vocabulary.course()
Frames = NDArray[np.float32]
OFFSETS = {"19": 5.0, "26": -3.0}  # how much louder a voice is, in every coefficient


def write_voices(root: Path, parts: tuple[str, ...] = ("train", "dev", "test")) -> Path:
    """Two speakers a part, one louder than the other, who say five short things each."""
    random = np.random.default_rng(0)
    for part in parts:
        for speaker, offset in OFFSETS.items():
            for number, text in enumerate(("A", "BEE", "SEA", "DOG", "OFF")):
                frames = spell_frames(text, WIDTH, random) + np.float32(offset)
                write_utterance(root / part, f"{speaker}-1-{number:04}", frames, text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voices(tmp_path / "corpus")


def settings(over: str = "speaker", **more: Any) -> ArraysFrontendSettings:
    return ArraysFrontendSettings.model_validate(
        {"width": WIDTH, "deltas": 1, "normalise_over": over, **more}
    )


def batches_of(
    root: Path,
    frontend: ArraysFrontendSettings | None = None,
    augment: AugmentSettings | None = None,
    training: bool = True,
    added: tuple[Added, ...] = (),
    **limits: Any,
) -> Batches:
    made = Frontend(frontend or settings())
    return Batches(
        read_part(ArraysSettings(root=root, speaker="prefix"), "train").cuts,
        made,
        Augment(augment, made) if augment else None,
        COURSE,
        BatchingSettings(**limits),
        training=training,
        added=added,
    )


def frames_in(batches: Batches, epoch: int = 1) -> dict[str, Tensor]:
    return {
        id: frames[:length]
        for batch in batches.epoch(epoch)
        for id, frames, length in zip(batch.ids, batch.frames, batch.lengths, strict=True)
    }


def recipe_of(page: dict[str, Any], folder: Path) -> Recipe:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(page))
    return read_recipe(path)


def said_by(found: dict[str, Tensor], speaker: str) -> Tensor:
    return torch.cat([frames for id, frames in found.items() if id.startswith(f"{speaker}-")])


# --- how frames are spread


def test_a_spread_is_that_of_all_frames_together() -> None:
    frames = torch.randn(100, 3, generator=torch.Generator().manual_seed(1)) * 7 + 1000
    found = Spread.none(3).plus(frames[:20]).plus(frames[20:21]).plus(frames[21:])
    assert found.count == 100
    torch.testing.assert_close(found.mean, frames.mean(0))
    torch.testing.assert_close(found.deviation, frames.std(0, correction=0))


def test_each_utterance_is_asked_for_once_and_those_of_nobody_not_at_all() -> None:
    asked: list[int] = []

    def frames(place: int) -> Tensor | None:
        asked.append(place)
        return None if place == 3 else torch.full((2, 1), float(place))

    first, nobody, other, unread = spreads(["a", None, "b", "a"], frames)
    assert asked == [0, 2, 3] and nobody is None
    assert first is unread and first is not None and other is not None
    assert (first.count, float(first.mean), float(other.mean)) == (2, 0.0, 2.0)


@pytest.mark.parametrize(
    ("name", "speaker"),
    [("1089-134686-0000", "1089"), ("fcaw-an406-fcaw-b", "fcaw"), ("x", None), ("-x", None)],
)
def test_file_names_tell_who_speaks(name: str, speaker: str | None) -> None:
    assert speaker_in(name) == speaker


# --- in training


def test_frames_are_normalised_over_all_that_their_speaker_says(root: Path) -> None:
    found = frames_in(batches_of(root, utterances=3))
    for speaker in OFFSETS:
        whole = said_by(found, speaker)
        torch.testing.assert_close(whole.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.std(0, correction=0), torch.ones(8), atol=1e-5, rtol=0)
    assert max(float(one.mean(0).abs().max()) for one in found.values()) > 0.3


def test_the_mean_alone_can_be_taken_off(root: Path) -> None:
    found = frames_in(batches_of(root, settings(normalise="mean")))
    torch.testing.assert_close(said_by(found, "19").mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    assert float(said_by(found, "19").std(0)[:WIDTH].min()) > 1.5


def test_workers_keeping_and_a_later_start_change_nothing(root: Path) -> None:
    frames = list(batches_of(root, utterances=3, cache_megabytes=0).epoch(2))
    for other in (
        batches_of(root, utterances=3).epoch(2),
        batches_of(root, utterances=3, workers=1).epoch(2),
    ):
        assert all(
            torch.equal(one.frames, two.frames) for one, two in zip(frames, other, strict=True)
        )
    (last,) = batches_of(root, utterances=3).epoch(2, start=len(frames) - 1)
    assert torch.equal(last.frames, frames[-1].frames)


def test_augmented_frames_are_normalised_as_the_speaker_is_heard_plain(root: Path) -> None:
    hardly = AugmentSettings(
        noise=1e-9, warp=0, speed=None, time_masks=None, frequency_masks=None, band_masks=None
    )
    found = frames_in(batches_of(root, augment=hardly))
    for id, frames in frames_in(batches_of(root)).items():
        torch.testing.assert_close(found[id], frames, atol=1e-4, rtol=0)


def test_speakers_of_another_corpus_are_others_though_called_alike(
    root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_utterance(other / "train", "19-9-0000", np.random.randn(30, WIDTH).astype("f"), "FOX")
    cuts = read_part(ArraysSettings(root=other, speaker="prefix"), "train").cuts
    alone = frames_in(batches_of(root))
    mixed = frames_in(batches_of(root, added=(Added("other", cuts, lambda epoch: 1.0),)))
    assert mixed.keys() == alone.keys() | {"19-9-0000"}
    assert all(torch.equal(mixed[id], frames) for id, frames in alone.items())
    torch.testing.assert_close(mixed["19-9-0000"].mean(0), torch.zeros(8), atol=1e-5, rtol=0)


def test_an_utterance_of_nobody_known_is_normalised_by_itself(root: Path) -> None:
    write_utterance(root / "train", "odd", np.random.randn(30, WIDTH).astype("f"), "FOX")
    found = frames_in(batches_of(root))["odd"]
    torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=1e-5, rtol=0)


def test_a_part_of_which_no_speaker_is_known_is_refused(root: Path) -> None:
    cuts = read_part(ArraysSettings(root=root), "train").cuts
    with pytest.raises(DataError, match=r"of no utterance it is known who speaks.*data\.speaker"):
        speakers_of(cuts, [])


@pytest.mark.parametrize(
    ("data", "frontend", "told"),
    [
        ({}, {"normalise_over": "speaker"}, "of arrays nobody knows who speaks, unless data.speak"),
        (
            {"speaker": "prefix"},
            {"normalise_over": "speaker", "normalise": "none"},
            "nothing is normalised over a speaker",
        ),
    ],
)
def test_what_cannot_be_is_told_by_the_recipe(
    data: dict[str, str], frontend: dict[str, str], told: str, tmp_path: Path, root: Path
) -> None:
    page = toy_page(root)
    page["data"].update(data)
    page["frontend"].update(frontend)
    with pytest.raises(RecipeError) as caught:
        recipe_of(page, tmp_path)
    assert told in " ".join(caught.value.problems)


# --- in use


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    page = toy_page(root, augment=None)
    page["data"]["speaker"] = "prefix"
    page["frontend"]["normalise_over"] = "speaker"
    start(recipe_of(page, tmp_path), RunFolder(tmp_path / "run"))
    return tmp_path / "run"


def heard_by(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The finished frames that a transcriber is given from now on, in order."""
    found: list[Tensor] = []
    plain = Frontend.finish

    def finish(self: Frontend, frames: Tensor, spread: Spread | None = None) -> Tensor:
        found.append(plain(self, frames, spread))
        return found[-1]

    monkeypatch.setattr(Frontend, "finish", finish)
    return found


def test_evaluation_hears_what_validation_hears(
    run: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = frames_in(batches_of(root, settings(deltas=0), training=False))
    found = heard_by(monkeypatch)
    scores = evaluate(load_run(run), "train").scores
    assert scores.utterances == len(found) == 10
    for (_, frames), given in zip(sorted(validated.items()), found, strict=True):
        assert torch.equal(frames, given)


def test_files_are_normalised_as_their_names_tell_who_speaks(
    run: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(run)
    part = part_to_score(loaded, "test")
    items = part.items(loaded.transcriber)
    spelled = loaded.transcriber.transcribe(items)
    texts = [one.text for one in spelled if isinstance(one, Transcript)]
    files = [root / "test" / "mfcc"]
    found = heard_by(monkeypatch)
    assert [one.text for one in transcribe(loaded, files)] == texts
    assert write_submission(loaded, files, tmp_path / "hand-in.csv") == 10
    assert all(torch.equal(one, two) for one, two in zip(found[:10], found[10:], strict=True))
    torch.testing.assert_close(torch.cat(found[:5]).mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def hearing(over: str) -> Transcriber:
    frontend = Frontend(
        MfccSettings.model_validate(
            {"width": 5, "filters": 20, "sample_rate": RATE, "normalise_over": over}
        )
    )
    recognizer = Hearing(frontend.output_width, len(COURSE))
    return Transcriber(recognizer, frontend, COURSE, GreedySettings(longest=5), "float32")


SPANS = ((0.5, 2.0), (3.0, 3.4), (4.4, 5.9))
LONG = bursts(*SPANS, seconds=7.0)


class Once:
    """Sound that can be heard but once."""

    rate, seconds, incomplete = RATE, None, ""

    def blocks(self) -> Iterator[Samples]:
        yield LONG


def test_a_recording_is_one_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pauses = write_sound(tmp_path / "long.wav", LONG), PauseSettings(kind="energy")
    found = heard_by(monkeypatch)
    (whole,) = heard(hearing("speaker"), [Source("long", path, "long.wav")], pauses)
    assert len(whole.segments) == len(found) == len(SPANS)
    torch.testing.assert_close(torch.cat(found).mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert max(float(one.mean(0).abs().max()) for one in found) > 0.05
    found.clear()
    once: Callable[[], AbstractContextManager[Once]] = lambda: nullcontext(Once())  # noqa: E731
    (_,) = heard(hearing("speaker"), [Source("said", once, "said")], pauses)
    first, *_, last = found  # each over what was said so far
    torch.testing.assert_close(first.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert float(last.mean(0).abs().max()) > 0.01
    found.clear()
    (_,) = heard(hearing("utterance"), [Source("long", path, "long.wav")], pauses)
    for one in found:
        torch.testing.assert_close(one.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
