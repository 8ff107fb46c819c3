"""Batches: little padding, every utterance once, and the same again for a seed and epoch."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from pydantic import ValidationError

from spelldown.data.augmenting.frames import Augment, AugmentSettings
from spelldown.data.batching import Batch, Batches, BatchingSettings, Example
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.data.loading.ahead import ahead
from spelldown.data.loading.buckets import cheapest_cuts
from spelldown.data.loading.mixing import Added, Fading
from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary
from spelldown.errors import DataError

COURSE = Vocabulary.course()


def batches_of(
    root: Path,
    part: str = "train",
    augment: AugmentSettings | None = None,
    seed: int = 1,
    training: bool = True,
    width: int = 4,
    deltas: int = 1,
    **limits: Any,
) -> Batches:
    frontend = Frontend(ArraysFrontendSettings(width=width, deltas=deltas))
    return Batches(
        read_part(ArraysSettings(root=root), part).cuts,
        frontend,
        Augment(augment, frontend) if augment else None,
        COURSE,
        BatchingSettings(**limits),
        seed,
        training,
    )


@pytest.fixture
def root(make_corpus: Callable[..., Path]) -> Path:
    """50 utterances of widely different lengths to train on."""
    return make_corpus({"train": 50, "dev": 7, "test": 3}, words=8)


def assert_same(left: Batch, right: Batch) -> None:
    assert left.ids == right.ids
    assert left.texts == right.texts
    for name in ("frames", "lengths", "symbols", "symbol_lengths"):
        first, second = getattr(left, name), getattr(right, name)
        assert (first is None and second is None) or torch.equal(first, second)


def all_same(left: Iterator[Batch], right: Iterator[Batch]) -> None:
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


def test_an_epoch_holds_every_utterance_once(root: Path) -> None:
    batches = batches_of(root, utterances=8)
    for epoch in (1, 2):
        ids = [name for batch in batches.epoch(epoch) for name in batch.ids]
        assert len(ids) == batches.utterances == 50
        assert len(set(ids)) == 50


def test_a_batch_holds_what_its_utterances_hold_alone(root: Path) -> None:
    batches = batches_of(root, utterances=8)
    by_id = {e.id: e for e in (batches.example(i, 1) for i in range(50))}
    for batch in batches.epoch(1):
        assert batch.symbols is not None
        assert batch.symbol_lengths is not None
        assert batch.texts is not None
        for row, name in enumerate(batch.ids):
            alone = by_id[name]
            assert alone.symbols is not None
            frames, length = batch.frames[row], int(batch.lengths[row])
            assert torch.equal(frames[:length], alone.frames)
            assert not frames[length:].any()
            symbols, length = batch.symbols[row], int(batch.symbol_lengths[row])
            assert torch.equal(symbols[:length], alone.symbols)
            assert (symbols[length:] == PAD).all()
            assert batch.texts[row] == alone.text == COURSE.decode(symbols.tolist())
            assert symbols[0] == SOS and symbols[length - 1] == EOS
        assert batch.lengths.max() == batch.frames.shape[1]
        assert batch.symbol_lengths.max() == batch.symbols.shape[1]
        assert len(batch) == len(batch.ids) == len(batch.frames)


def test_lengths_told_padded_leave_nothing_to_be_masked(root: Path) -> None:
    for training in (True, False):
        real = batches_of(root, utterances=8, training=training).epoch(1)
        seeds = batches_of(root, utterances=8, training=training, lengths="padded").epoch(1)
        some_padding = False
        for one, other in zip(real, seeds, strict=True):
            assert one.ids == other.ids and torch.equal(one.frames, other.frames)
            assert other.lengths.tolist() == [other.frames.shape[1]] * len(other)
            some_padding |= one.lengths.tolist() != other.lengths.tolist()
        assert some_padding


def test_a_batch_is_float32_frames_and_int64_symbols(root: Path) -> None:
    batch = next(batches_of(root).epoch(1))
    assert batch.frames.dtype == torch.float32
    assert batch.frames.shape[2] == 8  # width 4 and its deltas
    for tensor in (batch.lengths, batch.symbols, batch.symbol_lengths):
        assert tensor is not None
        assert tensor.dtype == torch.int64


def test_frames_are_normalised_over_the_utterance_not_the_batch(root: Path) -> None:
    for batch in batches_of(root).epoch(1):
        for frames, length in zip(batch.frames, batch.lengths, strict=True):
            torch.testing.assert_close(frames[:length].mean(0), torch.zeros(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("augment", [None, AugmentSettings()])
def test_the_same_seed_and_epoch_give_the_same_batches(
    root: Path, augment: AugmentSettings | None
) -> None:
    first, second = batches_of(root, augment=augment), batches_of(root, augment=augment)
    list(first.epoch(1))  # whatever was read before
    torch.manual_seed(5)
    np.random.seed(5)
    all_same(first.epoch(3), second.epoch(3))


def test_seeds_and_epochs_differ_in_order_in_company_and_in_numbers(root: Path) -> None:
    batches = batches_of(root, augment=AugmentSettings(), utterances=8)
    other = batches_of(root, augment=AugmentSettings(), utterances=8, seed=2)
    for one, two in ((batches.plan(1), batches.plan(2)), (batches.plan(1), other.plan(1))):
        assert one != two
        assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in two}
    for left, right in ((batches, batches), (batches, other)):
        epochs = (1, 2) if left is right else (1, 1)
        ours, theirs = left.example(0, epochs[0]).frames, right.example(0, epochs[1]).frames
        assert ours.shape != theirs.shape or not torch.equal(ours, theirs)


def test_company_changes_without_augmentation_too(root: Path) -> None:
    batches = batches_of(root, utterances=8, jitter=0.05)
    one, two = ({frozenset(batch) for batch in batches.plan(epoch)} for epoch in (1, 2))
    assert one != two


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_taken_up_at_any_batch_goes_on_as_if_never_left(root: Path, workers: int) -> None:
    unbroken = list(batches_of(root, augment=AugmentSettings(), utterances=8).epoch(2))
    again = batches_of(root, augment=AugmentSettings(), utterances=8, workers=workers)
    for start in range(len(unbroken) + 1) if not workers else (0, 3, len(unbroken)):
        all_same(again.epoch(2, start), iter(unbroken[start:]))


def test_workers_change_nothing_in_the_numbers(root: Path) -> None:
    alone = batches_of(root, augment=AugmentSettings(noise=0.1))
    helped = batches_of(root, augment=AugmentSettings(noise=0.1), workers=2)
    all_same(alone.epoch(1), helped.epoch(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_batches_draws_no_random_numbers_of_others(root: Path, workers: int) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    list(batches_of(root, augment=AugmentSettings(noise=0.1), workers=workers).epoch(1))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]


def test_keeping_frames_in_memory_changes_nothing(root: Path) -> None:
    kept = batches_of(root, augment=AugmentSettings(noise=0.1), deltas=0)
    read = batches_of(root, augment=AugmentSettings(noise=0.1), deltas=0, cache_megabytes=0)
    for epoch in (1, 2, 1):
        all_same(kept.epoch(epoch), read.epoch(epoch))


def test_a_cached_corpus_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(root)
    list(batches.epoch(1))
    monkeypatch.setattr(batches.frontend, "static", lambda cut: pytest.fail(f"read {cut.id} again"))
    list(batches.epoch(2))


def test_the_plan_foresees_every_change_of_speed(root: Path) -> None:
    batches = batches_of(root, augment=AugmentSettings(speed=(0.8, 1.25)), frames=1000)
    for batch in batches.epoch(1):
        assert len(batch) == 1 or batch.frames.shape[0] * batch.frames.shape[1] <= 1000
    padded = sum(b.frames.shape[0] * b.frames.shape[1] for b in batches.epoch(1))
    real = sum(int(b.lengths.sum()) for b in batches.epoch(1))
    assert batches.padding_share(1) == 1 - real / padded
    assert batches.count(1) == len(list(batches.epoch(1)))


def test_augmentation_waits_for_its_first_epoch(root: Path) -> None:
    batches = batches_of(root, augment=AugmentSettings(from_epoch=3))
    plain = batches_of(root)
    all_same(batches.epoch(2), plain.epoch(2))
    changed = batches.example(0, 3).frames
    before = plain.example(0, 3).frames
    assert changed.shape != before.shape or not torch.equal(changed, before)


@pytest.mark.parametrize("wanted", [1, 5])
def test_what_is_made_ahead_comes_in_order_with_its_error(wanted: int) -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise DataError("the twenty-first")

    found = []
    with pytest.raises(DataError, match="twenty-first"):
        for number in ahead(source(), wanted):
            found.append(number)
    assert found == list(range(20))


def test_no_more_is_made_ahead_than_was_asked_and_the_thread_ends_with_its_reader() -> None:
    made: list[int] = []
    threads = threading.active_count()
    reader = ahead((made.append(n) or n for n in range(1000)), 3)  # type: ignore[func-returns-value]
    assert [next(reader), next(reader)] == [0, 1]
    time.sleep(0.2)
    assert len(made) <= 2 + 3 + 1
    assert threading.active_count() == threads + 1
    reader.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_making_ahead_leaves_this_threads_processors_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(ahead(iter([torch.randn(300, 300) @ torch.randn(300, 300)]), 1))
        assert torch.get_num_threads() == 2
        later: list[int] = []
        for _ in range(2):  # of threads that first use torch now
            thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
            thread.start()
            thread.join()
        counts = ahead((torch.get_num_threads() for _ in range(1)), 1)
        assert (later, list(counts)) == ([2, 2], [1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("how", [{"ahead": 0}, {"ahead": 7}, {"ahead": 1, "workers": 1}])
def test_making_ahead_changes_nothing_in_the_numbers(root: Path, how: dict[str, Any]) -> None:
    usual = batches_of(root, augment=AugmentSettings(noise=0.1))
    all_same(usual.epoch(2), batches_of(root, augment=AugmentSettings(noise=0.1), **how).epoch(2))


def test_workers_must_work_ahead() -> None:
    with pytest.raises(ValidationError, match="ahead must be 1 or more"):
        BatchingSettings(workers=1, ahead=0)


@pytest.mark.parametrize("how", [{"ahead": 0}, {"ahead": 2}, {"workers": 1}])
def test_an_utterance_that_cannot_be_read_after_all_is_told_as_it_is(
    root: Path, how: dict[str, Any]
) -> None:
    batches = batches_of(root, **how)
    (root / "train" / "mfcc" / "train-007.npy").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"train-007.*cannot be read") as caught:
        list(batches.epoch(1))
    assert "Traceback" not in str(caught.value)


# --- corpora that are heard too


def mixed(root: Path, *shares: Callable[[int], float], seed: int = 1, **how: Any) -> Batches:
    """The dev part with a share of the train part for each of `shares`."""
    frontend = Frontend(ArraysFrontendSettings(width=4, deltas=1))
    settings = ArraysSettings(root=root)
    more = read_part(settings, "train").cuts
    return Batches(
        read_part(settings, "dev").cuts,
        frontend,
        Augment(AugmentSettings(), frontend),
        COURSE,
        BatchingSettings(utterances=4, **how),
        seed,
        added=[Added(f"corpus {n}", more, share) for n, share in enumerate(shares)],
    )


def heard_in(batches: Batches, epoch: int) -> list[str]:
    return [name for batch in batches.epoch(epoch) for name in batch.ids]


def test_an_epoch_has_all_of_the_own_corpus_and_the_share_of_the_other(root: Path) -> None:
    batches = mixed(root, lambda _: 0.3)
    assert batches.utterances == 57
    drawn = []
    for epoch in (1, 2, 3):
        heard = heard_in(batches, epoch)
        assert len(heard) == len(set(heard)) == 7 + 15
        assert batches.count(epoch) == len(list(batches.epoch(epoch)))
        assert {name for name in heard if name.startswith("dev")} == {
            f"dev-00{n}" for n in range(7)
        }
        hours = sum(batches._cuts[index].duration for index in batches.heard(epoch)) / 3600
        assert batches.hours_in(epoch) == pytest.approx(hours)
        assert hours < batches.hours
        drawn.append(frozenset(heard))
    assert len(set(drawn)) == 3


def test_a_mixture_is_the_same_again_for_a_seed_and_epoch_wherever_it_is_taken_up(
    root: Path,
) -> None:
    first, second = (mixed(root, lambda _: 0.5, lambda _: 0.2) for _ in range(2))
    list(second.epoch(1))
    all_same(first.epoch(3), second.epoch(3))
    all_same(iter(list(first.epoch(3))[2:]), second.epoch(3, 2))
    assert heard_in(first, 3) != heard_in(mixed(root, lambda _: 0.5, lambda _: 0.2, seed=2), 3)


def test_two_added_corpora_are_drawn_apart(root: Path) -> None:
    batches = mixed(root, lambda _: 0.5, lambda _: 0.5)
    heard = batches.heard(1)
    first, second = heard[(heard >= 7) & (heard < 57)] - 7, heard[heard >= 57] - 57
    assert len(first) == len(second) == 25 and set(first) != set(second)


def test_adding_a_corpus_changes_nothing_in_the_own_utterances(root: Path) -> None:
    alone, more = mixed(root), mixed(root, lambda _: 0.5)
    for index in range(7):
        assert torch.equal(alone.example(index, 2).frames, more.example(index, 2).frames)


def test_the_whole_of_a_corpus_can_be_added_and_none_of_it(root: Path) -> None:
    batches = mixed(root, lambda epoch: 1.0 if epoch == 1 else 0.0)
    assert len(heard_in(batches, 1)) == 57
    assert len(heard_in(batches, 2)) == 7
    assert batches.bounds().frames >= max(len(batches.example(i, 1).frames) for i in range(57))


def test_a_share_fades_evenly_and_ends_when_told() -> None:
    fading = [Fading(1.0, 0.2, 5, gone=False)(epoch) for epoch in (1, 3, 5, 6)]
    assert fading == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert [Fading(0.5, 0.5, 2, gone=True)(e) for e in (1, 2, 3)] == [0.5, 0.5, 0.0]
    assert Fading(0.5, 0.1, 1, gone=False)(1) == 0.5


def test_validation_is_sorted_unaugmented_and_always_the_same(root: Path) -> None:
    batches = batches_of(root, augment=AugmentSettings(), training=False, utterances=8)
    plain = batches_of(root, training=False, utterances=8, seed=9)
    all_same(batches.epoch(1), plain.epoch(7))
    lengths = torch.cat([batch.lengths for batch in batches.epoch(1)]).tolist()
    assert lengths == sorted(lengths)


def test_a_curriculum_begins_with_the_shortest(root: Path) -> None:
    batches = batches_of(root, utterances=4, shortest_first_epochs=2)
    for epoch in (1, 2, 3):
        longest = [int(batch.lengths.max()) for batch in batches.epoch(epoch)]
        ordered = all(left <= right * 1.03 for left, right in pairwise(longest))
        assert ordered is (epoch <= 2)
    assert batches.plan(1) != batches.plan(2)


def test_an_utterance_longer_than_the_budget_is_a_batch_of_its_own(root: Path) -> None:
    batches = batches_of(root, frames=200)
    sizes = {batch.ids: tuple(batch.frames.shape[:2]) for batch in batches.epoch(1)}
    assert any(count * frames > 200 for count, frames in sizes.values())
    assert all(count == 1 or count * frames <= 200 for count, frames in sizes.values())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(1, 1500),
    st.sampled_from([1, 150, 1200]),
)
def test_cuts_keep_the_limits_and_lose_nobody(
    lengths: list[int], utterances: int, frames: int, cost: int
) -> None:
    row = np.array(lengths)
    cuts = cheapest_cuts(row, utterances, frames, cost)
    assert [start for start, _ in cuts] == [0, *(end for _, end in cuts[:-1])]
    assert cuts[-1][1] == len(lengths)
    for start, end in cuts:
        size = end - start
        assert 1 <= size <= utterances
        assert size == 1 or size * row[start:end].max() <= frames


def test_cuts_are_the_cheapest_of_all(tmp_path: Path) -> None:
    row = np.array([10, 11, 30, 31, 32, 33, 90, 91])

    def cheapest(start: int) -> int:
        if start == len(row):
            return 0
        return min(
            size * int(row[start : start + size].max()) + 20 + cheapest(start + size)
            for size in range(1, min(4, len(row) - start) + 1)
            if size == 1 or size * row[start : start + size].max() <= 150
        )

    cuts = cheapest_cuts(row, 4, 150, 20)
    assert sum((end - start) * row[start:end].max() + 20 for start, end in cuts) == cheapest(0)


def test_a_part_without_transcripts_has_frames_alone(root: Path) -> None:
    batches = batches_of(root, "test", training=False, padding=1)
    (batch,) = batches.epoch(1)
    assert (batch.symbols, batch.symbol_lengths, batch.texts) == (None, None, None)
    assert len(batch) == 3
    assert batches.bounds().symbols == 0


def test_training_without_transcripts_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="test-000 has no transcript"):
        batches_of(root, "test")


def test_a_part_without_utterances_is_refused() -> None:
    frontend = Frontend(ArraysFrontendSettings(width=4))
    with pytest.raises(DataError, match="without utterances"):
        Batches(CutSet.from_cuts([]), frontend, None, COURSE, BatchingSettings())


def test_bounds_hold_for_every_epoch(root: Path) -> None:
    batches = batches_of(root, augment=AugmentSettings(speed=(0.8, 1.2)))
    bounds = batches.bounds()
    for epoch in range(1, 6):
        for batch in batches.epoch(epoch):
            assert batch.frames.shape[1] <= bounds.frames
            assert batch.symbols is not None
            assert batch.symbols.shape[1] <= bounds.symbols
    assert batches.hours == pytest.approx(sum(batches._frames[1.0]) / 360000)


def test_a_batch_moves_to_a_device_whole(root: Path) -> None:
    batch = next(batches_of(root).epoch(1))
    moved = batch.to("meta")
    for name in ("frames", "lengths", "symbols", "symbol_lengths"):
        assert getattr(moved, name).device.type == "meta"
    assert moved.ids == batch.ids


def test_one_silent_utterance_silences_the_batch() -> None:
    frames = torch.zeros(3, 2)
    spelled = Example("a", frames, torch.tensor([SOS, 3, EOS]), "A")
    batch = Batch.of([spelled, Example("b", frames, None, None)])
    assert (batch.symbols, batch.symbol_lengths, batch.texts) == (None, None, None)


@pytest.mark.data
@pytest.mark.parametrize("augment", [None, AugmentSettings()])
def test_padding_on_an4_is_under_three_percent(an4: Path, augment: AugmentSettings | None) -> None:
    batches = batches_of(an4, augment=augment, width=13)
    assert batches.utterances == 848
    for epoch in range(1, 21):
        assert batches.padding_share(epoch) < 0.03
        assert batches.count(epoch) <= 34  # 27 full batches would hold all
    for part in ("dev", "test"):
        assert batches_of(an4, part, training=False, width=13).padding_share(1) < 0.03
