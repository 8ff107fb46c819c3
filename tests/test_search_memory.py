"""What of a search fits into memory, and how much of that there is."""

from pathlib import Path

import pytest
import torch
from toy_spellers import VOCABULARY, recognizer

from spelldown.errors import SearchError
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.search.search import BeamSettings, RandomSettings, search
from spelldown.search.searching import memory as room
from spelldown.search.searching.memory import hypothesis_bytes, left_in_groups, utterances_at_once

MIB = 1 << 20


@pytest.fixture
def heard() -> tuple[Recognizer, Memory]:
    speller = recognizer({"kind": "dot"}, ctc=True)
    with torch.inference_mode():
        return speller, speller.listen(torch.randn(4, 60, 5), torch.tensor([60, 50, 40, 30]))


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Lets search take so many bytes."""
    monkeypatch.setattr(room, "free_bytes", lambda device: int(free / room.SHARE) + 1)


def test_more_hypotheses_than_memory_has_room_for_are_refused_with_what_fits(
    heard: tuple[Recognizer, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    speller, memory = heard
    _, frames, width = memory.frames.shape
    leave(monkeypatch, 10.5 * hypothesis_bytes(frames, width, VOCABULARY, steps=9))
    with pytest.raises(SearchError, match=r"100 hypotheses of an utterance.* at most 10 fit"):
        search(speller, memory, BeamSettings(beam=100, longest=9))
    settings = BeamSettings(beam=10, longest=9)
    few = [one.symbols for one in search(speller, memory, settings)]
    monkeypatch.undo()
    assert few == [one.symbols for one in search(speller, memory, settings)]


@pytest.mark.parametrize("settings", [BeamSettings(beam=10), RandomSettings(draws=10)])
def test_attention_that_is_kept_counts_as_far_as_the_search_may_go(
    heard: tuple[Recognizer, Memory],
    monkeypatch: pytest.MonkeyPatch,
    settings: BeamSettings | RandomSettings,
) -> None:
    speller, memory = heard
    _, frames, width = memory.frames.shape
    leave(monkeypatch, 10.5 * hypothesis_bytes(frames, width, VOCABULARY, steps=600))
    search(speller, memory, settings)
    with pytest.raises(SearchError, match=r"in up to 600 steps \(search.longest\) take"):
        search(speller, memory, settings, keep_weights=True)
    search(speller, memory, settings.model_copy(update={"longest": 5}), keep_weights=True)


def test_what_ctc_knows_of_frames_and_of_hypotheses_counts(
    heard: tuple[Recognizer, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    speller, memory = heard
    _, frames, width = memory.frames.shape
    leave(monkeypatch, 10.5 * hypothesis_bytes(frames, width, VOCABULARY, steps=9))
    with pytest.raises(SearchError, match=r"at most [1-9] fit"):
        search(speller, memory, BeamSettings(beam=10, longest=9, ctc_weight=0.3))
    many = torch.zeros(50, 1000, 8)
    leave(monkeypatch, 1000 * hypothesis_bytes(1000, 8, 5000))
    fit = [utterances_at_once(many, 4, 5000, ctc=ctc) for ctc in (False, True)]
    assert fit[0] == 250 and fit[1] < 5


def write(root: Path, **files: object) -> None:
    for name, content in files.items():
        file = root / name.replace("__", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")


def computer(root: Path, groups: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    return root / "sys/fs/cgroup"


def test_a_container_s_limit_is_heeded_and_that_of_the_group_above_it(tmp_path: Path) -> None:
    mount = computer(tmp_path, "0::/jobs/7\n")
    write(mount / "jobs", memory__max=100 * MIB, memory__current=30 * MIB)
    write(mount / "jobs/7", memory__max="max", memory__current=20 * MIB)
    assert list(left_in_groups(tmp_path)) == [70 * MIB]
    told = f"inactive_anon 5\ninactive_file {10 * MIB}"
    write(mount / "jobs/7", memory__max=40 * MIB, memory__current=35 * MIB, memory__stat=told)
    assert sorted(left_in_groups(tmp_path)) == [15 * MIB, 70 * MIB]  # pages can be given back


def test_the_first_version_of_control_groups_is_heeded_too(tmp_path: Path) -> None:
    mount = computer(tmp_path, "5:cpu:/box\n4:memory,hugetlb:/box\n0::/\n") / "memory"
    limits = {"memory__limit_in_bytes": 64 * MIB, "memory__usage_in_bytes": 80 * MIB}
    write(mount / "box", **limits, memory__stat=f"total_inactive_file {2 * MIB}")
    assert list(left_in_groups(tmp_path)) == [0]
    assert list(left_in_groups(tmp_path / "nothing")) == []


def test_the_least_of_what_is_left_is_what_search_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    before = room.free_bytes(torch.device("cpu"))
    monkeypatch.setattr(room, "left_in_groups", lambda root: iter([3 * MIB, 5 * MIB]))
    assert room.free_bytes(torch.device("cpu")) == 3 * MIB < before
