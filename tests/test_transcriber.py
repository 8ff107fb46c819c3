"""Recordings and arrays in, texts out: order, batches, failures, and what is found in folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.frontend import (
    ArraysFrontendSettings,
    Frontend,
    LogMelSettings,
    MfccSettings,
)
from spelldown.data.vocabulary import Vocabulary
from spelldown.model.listening.blocks import BiLSTMSettings, ConvSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.model.spelling.attention import DotSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing import transcriber as room
from spelldown.search.transcribing.inputs import inputs
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Failure, Item, Transcript, Waveform

VOCABULARY = Vocabulary.course()


class Counting(Recognizer):
    """A recognizer of random weights that notes the shape and lengths of every batch."""

    def __init__(self, width: int) -> None:
        torch.manual_seed(2)
        blocks = (ConvSettings(widths=(8, 8), stride=(2, 2)), BiLSTMSettings(width=8))
        super().__init__(
            ListenerSettings(blocks=blocks),
            DotSettings(width=8),
            SpellerSettings(embedding=8, width=16, tied=False, dropout=0.5),
            None,
            input_width=width,
            vocabulary=len(VOCABULARY),
        )
        for parameter in self.speller.parameters():
            parameter.data *= 5
        self.batches: list[list[int]] = []

    def listen(self, frames: Tensor, lengths: Tensor) -> Memory:
        assert not self.training
        self.batches.append(lengths.tolist())
        return super().listen(frames, lengths)


def transcriber(frontend: Frontend | None = None, **limits: Any) -> Transcriber:
    frontend = frontend or Frontend(ArraysFrontendSettings(width=4, deltas=1))
    search = GreedySettings(longest=20)
    recognizer = Counting(frontend.output_width)
    return Transcriber(recognizer, frontend, VOCABULARY, search, "float32", **limits)


def batches_of(made: Transcriber) -> list[list[int]]:
    assert isinstance(made.recognizer, Counting)
    return made.recognizer.batches


def items(*lengths: int) -> list[Item]:
    random = torch.Generator().manual_seed(7)
    return [
        Item(f"u{place}", 5 * torch.randn(length, 4, generator=random))
        for place, length in enumerate(lengths)
    ]


def texts(found: list[Transcript | Failure]) -> list[str]:
    return [one.text if isinstance(one, Transcript) else one.error for one in found]


LENGTHS = (30, 7, 90, 1, 30, 55, 12, 200, 8)


def test_results_come_in_the_order_asked_for_and_as_each_alone() -> None:
    together = list(transcriber().transcribe(items(*LENGTHS)))
    assert [one.id for one in together] == [f"u{place}" for place in range(len(LENGTHS))]
    alone = [next(iter(transcriber().transcribe([item]))) for item in items(*LENGTHS)]
    assert texts(together) == texts(alone)
    assert len(set(texts(together))) > 2
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Transcript) and isinstance(other, Transcript)
        assert one.score == pytest.approx(other.score, abs=1e-3)


def test_batches_hold_like_lengths_within_both_limits() -> None:
    made = transcriber(batch_frames=120, batch_utterances=3)
    list(made.transcribe(items(*LENGTHS)))
    assert batches_of(made) == [[200], [90], [55, 30], [30, 12, 8], [7, 1]]


def test_a_recognizer_trained_without_masks_is_used_without_masks() -> None:
    made = transcriber(batch_frames=120, batch_utterances=3, lengths="padded")
    list(made.transcribe(items(*LENGTHS)))
    assert batches_of(made) == [[200], [90], [55, 55], [30, 30, 30], [7, 7]]


def test_any_number_is_transcribed_a_pool_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POOL_BATCHES", 2)
    made = transcriber(batch_frames=20)
    taken = []

    def stream() -> object:
        for item in items(*[10] * 40):
            taken.append(item.id)
            yield item

    found = made.transcribe(stream())  # type: ignore[arg-type]
    assert next(found).id == "u0"
    assert len(taken) == 4
    assert [one.id for one in found] == [f"u{place}" for place in range(1, 40)]
    taken.clear()
    next(made.transcribe(stream(), pool_batches=3))  # type: ignore[arg-type]
    assert len(taken) == 6


def test_a_transcript_tells_letters_seconds_and_attention() -> None:
    made = transcriber()
    (found,) = made.transcribe(items(90), keep_weights=True)
    assert isinstance(found, Transcript)
    assert "".join(letter for letter in found.letters if letter != "<eos>") == found.text
    assert found.ended == (found.letters[-1] == "<eos>")
    assert found.seconds == pytest.approx(0.9)
    assert found.seconds_per_frame == pytest.approx(0.04)
    assert found.weights is not None
    assert found.weights.shape == (1, len(found.letters), 23)
    (without,) = made.transcribe(items(90))
    assert isinstance(without, Transcript) and without.weights is None


def test_words_are_timed_when_asked_for_and_the_attention_is_let_go() -> None:
    made = transcriber()
    for found in made.transcribe(items(*LENGTHS), times=True):
        assert isinstance(found, Transcript)
        assert found.weights is None
        assert found.words is not None
        assert [word.text for word in found.words] == found.text.split()
        times = [time for word in found.words for time in (word.start, word.end)]
        assert times == sorted(times) and all(0 <= time <= found.seconds for time in times)
    (kept,) = made.transcribe(items(90), keep_weights=True, times=True)
    assert isinstance(kept, Transcript) and kept.weights is not None and kept.words is not None


def test_the_limit_by_seconds_counts_the_listener_s_frames() -> None:
    made = transcriber()
    made.search = GreedySettings(longest=600, longest_per_second=10)
    for one in made.transcribe(items(100, 10, 51)):
        assert isinstance(one, Transcript)
        assert len(one.letters) <= {"u0": 10, "u1": 2, "u2": 6}[one.id]


def test_arrays_in_memory_in_a_file_and_behind_a_cut_give_the_same(corpus: Path) -> None:
    made = transcriber()
    found_here = inputs([corpus / "dev"])
    files = found_here.items
    assert found_here.unknown == []
    cuts = [Item(cut.id, cut) for cut in read_part(ArraysSettings(root=corpus), "dev").cuts]
    loaded = [
        Item(item.id, torch.from_numpy(np.load(item.source)).double())
        for item in files
        if isinstance(item.source, Path)
    ]
    found = [list(made.transcribe(each)) for each in (files, cuts, loaded)]
    assert found[0] == found[1] == found[2]
    assert all(isinstance(one, Transcript) for one in found[0])


@pytest.mark.parametrize("settings", [MfccSettings(width=5, deltas=2), LogMelSettings(width=10)])
def test_audio_files_and_samples_of_any_rate_are_transcribed(
    settings: MfccSettings | LogMelSettings, tmp_path: Path
) -> None:
    samples = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    soundfile.write(tmp_path / "a.wav", samples.numpy(), 8000, subtype="FLOAT")
    made = transcriber(Frontend(settings))
    one, other = made.transcribe(
        [Item("a", tmp_path / "a.wav"), Item("a", Waveform(samples, 8000))]
    )
    assert isinstance(one, Transcript) and isinstance(other, Transcript)
    unrounded = replace(other, score=one.score, log_probs=one.log_probs, parts=one.parts)
    assert unrounded == one
    assert other.score == pytest.approx(one.score, abs=1e-4)
    assert one.seconds == pytest.approx(1.0, abs=0.02)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_broken_utterance_is_told_in_its_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((9, 7), np.float32))
    np.save(tmp_path / "letters.npy", np.array(["<sos>", "A"]))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "big-endian.npy", np.random.default_rng(0).random((9, 4)).astype(">f8"))
    np.save(tmp_path / "huge.npy", np.full((9, 4), 1e300))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "wide.npy").read_bytes()[:100])
    soundfile.write(tmp_path / "sound.wav", np.zeros(16000), 16000)
    (tmp_path / "noise.wav").write_bytes(b"RIFF?")
    names = {
        "wide.npy": "shape (9, 7); (frames, 4) expected",
        "letters.npy": "numbers of type <U5",
        "objects.npy": "could run code",
        "huge.npy": "numbers that are not finite",
        "cut.npy": "not a whole .npy array",
        "sound.wav": "only takes frames that come ready",
        "noise.wav": "not a recording that can be read",
        "gone.npy": "cannot be read",
    }
    broken = [Item(name, tmp_path / name) for name in names]
    bad = torch.ones(5, 4)
    bad[3, 1] = torch.nan
    broken += [Item("nan", bad), Item("empty", torch.zeros(0, 4)), Item("flat", torch.zeros(4))]
    good = [*items(20), Item("big-endian", tmp_path / "big-endian.npy")]
    found = list(transcriber().transcribe([good[0], *broken, good[1]]))
    assert [type(one) for one in found] == [Transcript, *[Failure] * len(broken), Transcript]
    for one, (name, why) in zip(found[1:], names.items(), strict=False):
        assert isinstance(one, Failure)
        assert why in one.error
        assert str(tmp_path / name) in one.error
    told = {one.id: one.error for one in found if isinstance(one, Failure)}
    assert (told["nan"], told["empty"]) == ("numbers that are not finite", "no frames")


def test_samples_that_cannot_be_heard_are_told_by_name() -> None:
    made = transcriber(Frontend(MfccSettings()))
    (found,) = made.transcribe([Item("loud", Waveform(torch.full((8000,), 1e30), 16000))])
    assert isinstance(found, Failure) and found.error.startswith("loud")


def test_nothing_to_transcribe_gives_nothing() -> None:
    assert list(transcriber().transcribe([])) == []


@pytest.mark.data
def test_published_sphere_files_are_transcribed(shared_data: Path) -> None:
    found = inputs([shared_data / "an4-audio"])
    assert len(found.items) == 8
    assert [path.suffix for path in found.unknown] == [""] * len(found.unknown)
    for one in transcriber(Frontend(MfccSettings())).transcribe(found.items):
        assert isinstance(one, Transcript), one
