"""A part is spelled to its end where memory is short: in smaller batches, to the same letters."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_memory_guard import Narrow, error
from tiny_run import VOCABULARY, WIDTH, tiny_recognizer

from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.errors import DoesNotFitError
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Item, Transcript
from spelldown.training.guard.scoring import within_memory

ITEMS = [
    Item(f"utterance-{n}", torch.randn(20 + n, WIDTH, generator=torch.Generator().manual_seed(n)))
    for n in range(9)
]


def tiny_transcriber() -> Transcriber:
    frontend, search = Frontend(ArraysFrontendSettings(width=WIDTH)), GreedySettings(longest=8)
    return Transcriber(tiny_recognizer(), frontend, VOCABULARY, search, "float32")


def test_what_does_not_fit_is_spelled_in_smaller_batches_to_the_same_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transcriber = tiny_transcriber()
    whole = list(transcriber.transcribe(ITEMS))
    narrow = Narrow(transcriber.recognizer, 2, monkeypatch)
    apart = list(within_memory(transcriber, ITEMS))
    assert narrow.failures == 5 and transcriber.batch_utterances == 2  # at 64, 32, 16, 8 and 4
    for one, other in zip(whole, apart, strict=True):
        assert isinstance(one, Transcript) and isinstance(other, Transcript)
        assert (one.id, one.letters) == (other.id, other.letters)
        assert other.score == pytest.approx(one.score, rel=1e-4)


def test_what_was_spelled_before_memory_ran_out_is_not_spelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transcriber = tiny_transcriber()
    transcriber.batch_utterances, transcriber.batch_frames = 2, 4  # pools of about three
    spelled: list[int] = []
    listen = transcriber.recognizer.listener.forward

    def once(frames: torch.Tensor, lengths: torch.Tensor) -> Any:
        if len(spelled) == 4 and len(frames) == 1 and transcriber.batch_utterances == 2:
            raise error()
        spelled.extend([1] * len(frames))
        return listen(frames, lengths)

    monkeypatch.setattr(transcriber.recognizer.listener, "forward", once)
    done = list(within_memory(transcriber, ITEMS))
    assert [one.id for one in done] == [item.id for item in ITEMS]
    assert transcriber.batch_utterances == 1
    assert len(spelled) <= len(ITEMS) + 2  # a pool of which nothing was given yet is begun anew


def test_an_utterance_that_does_not_fit_alone_when_it_is_spelled_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transcriber = tiny_transcriber()
    listen = transcriber.recognizer.listener.forward

    def short(frames: torch.Tensor, lengths: torch.Tensor) -> Any:
        if frames.shape[1] > 24:
            raise error()
        return listen(frames, lengths)

    monkeypatch.setattr(transcriber.recognizer.listener, "forward", short)
    done = []
    with pytest.raises(DoesNotFitError, match="utterance-5: this utterance alone does not fit"):
        for found in within_memory(transcriber, ITEMS):
            done.append(found.id)
    assert done == [item.id for item in ITEMS[:5]]


def test_other_errors_of_a_search_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = tiny_transcriber()

    def broken(*arguments: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(transcriber.recognizer.listener, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(within_memory(transcriber, ITEMS))


REAL = """
import sys; sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.data.vocabulary import Vocabulary
from spelldown.model.listening.blocks import ConvSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.attention import DotSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.search.search import GreedySettings
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Item
from spelldown.training.guard.limit import _held
from spelldown.training.guard.scoring import within_memory
from spelldown.training.memory import hand_back_freed_memory, keep_freed_memory, peak_memory
keep_freed_memory()
torch.manual_seed(1)
recognizer = Recognizer(
    ListenerSettings(blocks=(ConvSettings(widths=(512, 512), stride=2),)),
    DotSettings(width=16), SpellerSettings(embedding=8, width=16), None,
    input_width=2, vocabulary=len(Vocabulary.course()))
frontend = Frontend(ArraysFrontendSettings(width=2))
transcriber = Transcriber(
    recognizer, frontend, Vocabulary.course(), GreedySettings(longest=1), "float32")
transcriber.batch_frames = 80_000
items = [Item(str(n), torch.randn(1600, 2)) for n in range(40)]
list(transcriber.transcribe(items[:1]))  # libraries are read into memory
hand_back_freed_memory()
held = _held()
limit = held["RssAnon"] + held["RssFile"] + 64 * 2**20 + 66 * 2**20
found = list(within_memory(transcriber, items, f"{{limit / 1e6:.0f}}MB"))
peak = peak_memory()
at_once, transcriber.batch_utterances, transcriber.batch_frames = (
    transcriber.batch_utterances, 64, 80_000)
free = list(transcriber.transcribe(items))
assert [one.text for one in found] == [one.text for one in free]
assert peak < limit, (peak, limit)
assert peak_memory() > limit, (peak_memory(), limit)
print(at_once, "at a time")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit")
def test_scoring_keeps_within_a_real_limit() -> None:
    script = REAL.format(tests=str(Path(__file__).parent))
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    assert int(told.stdout.split()[0]) < 64
