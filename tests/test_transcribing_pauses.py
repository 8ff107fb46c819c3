"""Where recordings are cut: bursts of noise between pauses of known length."""

import importlib.util
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_sound import RATE, Samples, bursts

from spelldown.errors import AudioError
from spelldown.search.transcribing.sound import activity, pauses
from spelldown.search.transcribing.sound.activity import Detector, Energy, Silero, detector
from spelldown.search.transcribing.sound.pauses import PauseSettings, Segment, segments

needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed"
)
ENERGY = PauseSettings(kind="energy", longest=4.0)
SPANS = ((0.5, 2.0), (2.4, 3.5), (5.0, 5.9), (9.0, 11.5), (12.0, 14.0), (30.0, 31.0), (33.0, 34.5))
SOUND = bursts(*SPANS, seconds=40.0)


def blocks_of(sound: Samples, size: int = RATE) -> Iterator[Samples]:
    for start in range(0, len(sound), size):
        yield sound[start : start + size]


def cut(sound: Samples, settings: PauseSettings = ENERGY, size: int = RATE) -> list[Segment]:
    return list(segments(blocks_of(sound, size), RATE, RATE, settings))


def voice(seconds: float, rate: int = RATE) -> Samples:
    """A hum in syllables for three seconds, silence for three, and again."""
    time = np.arange(round(rate * seconds)) / rate
    hum = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 20))
    sound = 0.05 * hum * (np.sin(2 * np.pi * 4 * time) > 0) * (np.sin(time) > 0)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(sound))
    return (sound + noise).astype(np.float32)


def test_each_stretch_of_speech_is_a_segment_with_a_little_room() -> None:
    found = cut(SOUND)
    assert len(found) == len(SPANS)
    for segment, (start, end) in zip(found, SPANS, strict=True):
        assert start - 0.15 < segment.start < start
        assert end < segment.end < end + 0.15


def test_a_segment_holds_the_samples_of_its_place() -> None:
    for segment in cut(SOUND):
        start = round(segment.start * RATE)
        samples = segment.sound.samples.numpy()
        assert np.array_equal(samples, SOUND[start : start + len(samples)])


@pytest.mark.parametrize("size", [37, 800, 50_000, 10**7])
def test_the_cuts_do_not_depend_on_how_the_sound_comes(size: int) -> None:
    expected = [(one.start, one.end) for one in cut(SOUND)]
    assert [(one.start, one.end) for one in cut(SOUND, size=size)] == expected


@pytest.mark.parametrize("kind", ["energy", pytest.param("silero", marks=needs_silero)])
def test_what_is_said_does_not_depend_on_how_long_the_recording_is(kind: activity.Kind) -> None:
    settings = PauseSettings(kind=kind)
    spans = ((0.3, 2.0), (3.0, 6.0), (7.0, 9.5), (10.3, 12.0), (13.0, 16.0), (17.0, 18.5))
    talk = bursts(*spans, seconds=22.0)
    if kind == "silero":
        talk = np.concatenate((voice(16.0), bursts(seconds=6.0)))
    one, other = (cut(talk[: seconds * RATE], settings) for seconds in (19, 21))
    if kind == "energy":
        assert len(one) == 6
    assert len(one) == len(other) > 1
    for piece, same in zip(one, other, strict=True):
        assert piece.start == pytest.approx(same.start, abs=0.03)
        assert piece.end == pytest.approx(same.end, abs=0.03)


def test_silence_around_a_sentence_is_left_out_but_for_its_edges() -> None:
    (found,) = cut(bursts((2.0, 3.0), seconds=6.0))
    assert found.start == pytest.approx(1.9, abs=0.03)
    assert found.end == pytest.approx(3.1, abs=0.03)
    (close,) = cut(bursts((0.05, 1.0), seconds=1.05))
    assert (close.start, close.end) == (0.0, 1.05)


def test_a_scrap_too_brief_for_a_frame_is_left_for_the_frontend_to_refuse() -> None:
    (found,) = segments(blocks_of(SOUND[:80]), RATE, 16_000, ENERGY)
    assert found.start == 0 and found.sound.sample_rate == RATE
    assert np.array_equal(found.sound.samples.numpy(), SOUND[:80])


def test_a_pause_longer_than_any_segment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a pause of 5 s is longer than the longest segment, 4 s"):
        PauseSettings(pause=5, longest=4)


def test_a_long_recording_comes_at_the_rate_asked_for() -> None:
    found = list(segments(blocks_of(SOUND), RATE, 16_000, ENERGY))
    assert len(found) == len(SPANS)
    assert all(one.sound.sample_rate == 16_000 for one in found)
    assert [one.start for one in found] == pytest.approx(
        [one.start for one in cut(SOUND)], abs=0.03
    )


def test_where_nobody_pauses_the_cut_is_at_the_quietest_place_and_nothing_is_lost() -> None:
    sound = bursts((0.0, 30.0), seconds=40.0)
    syllables = np.where(np.arange(len(sound)) / RATE % 0.3 < 0.1, 0.1, 1.0)
    sound[: 30 * RATE] *= syllables[: 30 * RATE].astype(np.float32)
    for quiet in (3.06, 6.36, 9.06):  # between syllables, too short to be a pause
        sound[round((quiet - 0.06) * RATE) : round((quiet + 0.04) * RATE)] *= 0.3
    found = cut(sound)
    assert [one.end for one in found[:3]] == pytest.approx([3.05, 6.35, 9.05], abs=0.05)
    assert max(one.end - one.start for one in found) <= ENERGY.longest
    assert [one.end for one in found[:-1]] == pytest.approx([one.start for one in found[1:]])
    assert found[0].start == 0 and found[-1].end > 30.0
    assert min(one.end - one.start for one in found) >= 0.5


def test_no_segments_overlap_and_none_is_longer_than_asked_for() -> None:
    random = np.random.default_rng(1)
    edges = np.cumsum(random.uniform(0.05, 3.0, 80))
    spans = [(float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    sound = bursts(*spans, seconds=float(edges[-1]) + 1.0)
    found = cut(sound, PauseSettings(kind="energy", longest=2.0))
    assert all(one.end <= other.start + 1e-9 for one, other in pairwise(found))
    assert max(one.end - one.start for one in found) <= 2.0 + 1e-9
    covered = np.zeros(len(sound), bool)
    for one in found:
        covered[round(one.start * RATE) : round(one.end * RATE)] = True
    for start, end in spans:
        if end - start > 0.2:
            assert covered[round(start * RATE) : round(end * RATE)].mean() > 0.95


@pytest.mark.parametrize("seconds", [1, 3, 60])
@pytest.mark.parametrize("level", [0.0, 1e-4, 1e-3, 0.05])
def test_where_nobody_speaks_there_is_nothing_to_spell(level: float, seconds: int) -> None:
    noise = np.random.default_rng(0).normal(0, level, seconds * RATE).astype(np.float32)
    assert cut(noise) == []


def test_a_hum_that_sways_a_little_is_no_speech() -> None:
    time = np.arange(60 * RATE) / RATE
    hum = bursts((0.0, 60.0), seconds=60.0) * 10 ** (np.sin(time) * 3 / 20)  # 3 dB up and down
    assert cut(hum.astype(np.float32)) == []


def test_a_click_is_no_speech() -> None:
    assert len(cut(bursts((1.0, 2.0), (5.0, 5.01), (8.0, 9.0), seconds=12.0))) == 2


def test_quiet_speakers_are_heard_beside_loud_ones() -> None:
    sound = SOUND.copy()
    sound[: 4 * RATE] *= 0.1  # 20 dB
    assert len(cut(sound)) == len(SPANS)


def test_speech_after_digital_silence_is_found_above_the_noise_around_it() -> None:
    sound = np.concatenate((np.zeros(20 * RATE, np.float32), SOUND))
    assert [one.start - 20 for one in cut(sound)] == pytest.approx(
        [one.start for one in cut(SOUND)], abs=0.05
    )


def test_what_is_held_does_not_grow_with_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    class Watched(pauses._Cutter):
        def push(self, block: Samples) -> Iterator[Segment]:
            yield from super().push(block)
            held.append(sum(map(len, self.held)) / RATE)

    monkeypatch.setattr(pauses, "_Cutter", Watched)
    hour = (block for _ in range(90) for block in blocks_of(SOUND))
    count = sum(1 for _ in segments(hour, RATE, RATE, ENERGY))
    assert count == 90 * len(SPANS)
    assert max(held) < 30.0  # seconds: the detector looks 20 ahead


def test_a_detector_that_is_not_installed_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activity, "MODULE", "a_module_that_is_not_there")
    assert isinstance(detector("auto", RATE), Energy)
    with pytest.raises(AudioError, match=r"pip install 'spelldown\[pauses\]'.*--pauses energy"):
        detector("silero", RATE)


def answers(detector: Detector, sound: Samples, size: int) -> list[bool]:
    found = [detector.push(block) for block in blocks_of(sound, size)]
    return [*np.concatenate([*found, detector.finish()]).tolist()]


@pytest.mark.parametrize("kind", ["energy", pytest.param("silero", marks=needs_silero)])
def test_a_detector_answers_for_all_of_the_sound_however_it_comes(kind: activity.Kind) -> None:
    sound = bursts((2.0, 5.0), seconds=9.013)
    first = answers(detector(kind, RATE), sound, RATE)
    assert len(first) == pytest.approx(len(sound) / RATE / detector(kind, RATE).hop, abs=2)
    sound = np.concatenate((sound, *(bursts((1, 2), seconds=8) * 3**n for n in range(5))))
    first = answers(detector(kind, RATE), sound, RATE)
    assert answers(detector(kind, RATE), sound, 777) == first
    assert answers(detector(kind, RATE), sound, 10**6) == first


@needs_silero
def test_silero_hears_nobody_in_noise_and_leaves_torch_s_threads_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(activity, "_loaded", None)
    for name in [name for name in sys.modules if name.startswith("silero_vad")]:
        monkeypatch.delitem(sys.modules, name)  # so that it is imported here
    torch.set_num_threads(2)
    try:
        made = Silero(16_000)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    noise = np.random.default_rng(0).normal(0, 0.01, 80_000).astype(np.float32)
    assert not any(answers(made, noise, 16_000))


@needs_silero
def test_lanes_beside_each_other_hear_nearly_what_one_stream_hears() -> None:
    class OneLane(Silero):
        LANE, LANES = 250, 1

    sound = voice(8.0, 16_000)
    one, many = (answers(kind(16_000), sound, 16_000) for kind in (OneLane, Silero))
    assert len(one) == len(many)
    assert np.mean(np.array(one) == np.array(many)) > 0.9
    assert any(one)
