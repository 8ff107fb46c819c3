"""Changes to recordings: what they do to a sound, that they can be drawn again, and when they
cannot be made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from toy_sound import RATE, hum, write_recordings

from spelldown.data.augmenting.frames import Augment, AugmentSettings
from spelldown.data.augmenting.waveform import (
    NoiseSettings,
    RecordedRoomSettings,
    SimulatedRoomSettings,
    Sound,
    SoundSettings,
    reverberated,
    simulated_room,
    with_noise,
)
from spelldown.data.batching import Batches, BatchingSettings
from spelldown.data.corpora import CutsSettings, read_part
from spelldown.data.frontend import ArraysFrontendSettings, Frontend, LogMelSettings, MfccSettings
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import AudioError, DataError, RecipeError
from spelldown.recipe.recipe import read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
OFF: dict[str, Any] = {"speed": None, "warp": 0, "time_masks": None, "frequency_masks": None}


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    """A folder of noise of several rates, formats, lengths and channels, in folders."""
    folder = tmp_path / "noises"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(1)
    for name, rate, seconds, channels in (
        ("a.wav", 16000, 3.0, 1),
        ("b.flac", 44100, 2.0, 2),
        ("more/c.opus", 48000, 0.2, 1),
        ("more/d.MP3", 22050, 1.0, 1),
    ):
        sound = 0.2 * random.normal(size=(round(seconds * rate), channels))
        kind: dict[str, str] = {
            "b.flac": {"format": "FLAC"},
            "more/c.opus": {"format": "OGG", "subtype": "OPUS"},
            "more/d.MP3": {"format": "MP3"},
        }.get(name, {})
        soundfile.write(folder / name, sound, rate, **kind)
    (folder / "readme.txt").write_text("no sound")
    return folder


def sound_of(**settings: Any) -> Sound:
    return Sound(SoundSettings(**settings), RATE)


def drawn(sound: Sound, samples: NDArray[np.float32], seed: int = 1) -> NDArray[np.float32]:
    out = sound.changed(torch.from_numpy(samples), np.random.default_rng(seed))
    assert out.dtype == torch.float32 and out.shape == samples.shape
    return np.asarray(out.numpy())


def decibels(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(10 * np.log10(np.square(one, dtype=float).sum() / np.square(other).sum()))


# --- speed


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_another_speed_moves_pitch_and_length_alike(speed: float) -> None:
    frontend = Frontend(LogMelSettings(width=80))
    time = np.arange(RATE) / RATE

    def tone(hertz: float) -> torch.Tensor:
        return torch.from_numpy((0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32))

    faster = frontend.of_samples(tone(1500), RATE, speed=speed)
    expected = frontend.of_samples(tone(1500 * speed), RATE)
    assert len(faster) == round(100 / speed)
    assert torch.equal(faster[20:60].argmax(dim=1), expected[20:60].argmax(dim=1))


def test_every_speed_is_drawn_about_as_often() -> None:
    sound = sound_of(speeds=[0.9, 1.0, 1.1])
    found = [sound.speed(np.random.default_rng(seed)) for seed in range(600)]
    assert all(150 < found.count(speed) < 250 for speed in (0.9, 1.0, 1.1))


# --- noise, rooms, volume


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5])
def test_noise_is_as_much_weaker_as_was_asked(snr: float) -> None:
    speech, noise = hum(1.0), hum(1.0, seed=5) * 7
    made = with_noise(speech, noise, snr)
    assert decibels(speech, made - speech) == pytest.approx(snr, abs=0.01)


def test_noise_of_any_rate_format_and_length_is_laid_over_speech(noises: Path) -> None:
    sound = sound_of(noise=NoiseSettings(folder=noises, snr=(10, 10), share=1))
    assert [line.split()[0] for line in sound.files()] == ["a.wav", "b.flac", "c.opus", "d.MP3"]
    speech, different = hum(1.5), set()
    for seed in range(30):
        made = drawn(sound, speech, seed)
        assert decibels(speech, made - speech) == pytest.approx(10, abs=0.05)
        different.add(made.tobytes())
    assert len(different) == 30


def test_silence_gets_no_noise_and_silent_noise_changes_nothing() -> None:
    speech = hum(0.3)
    assert np.array_equal(with_noise(speech, np.zeros_like(speech), 3), speech)
    assert np.array_equal(with_noise(np.zeros_like(speech), speech, 3), np.zeros_like(speech))


def test_a_share_of_utterances_is_changed(noises: Path) -> None:
    speech = hum(0.4)
    for settings in (
        {"noise": NoiseSettings(folder=noises, share=0.3)},
        {"room": SimulatedRoomSettings(share=0.3)},
    ):
        sound = sound_of(**settings)
        changed = sum(not np.array_equal(drawn(sound, speech, seed), speech) for seed in range(200))
        assert 35 < changed < 85


def test_volume_is_drawn_in_decibels() -> None:
    speech = hum(0.3)
    louder = [decibels(drawn(sound_of(volume=(-9, 3)), speech, s), speech) for s in range(200)]
    assert -9 <= min(louder) < -8 and 2 < max(louder) <= 3.001


@pytest.mark.parametrize("t60", [0.2, 0.8])
def test_a_simulated_room_falls_by_60_decibels_in_its_time(t60: float) -> None:
    room = simulated_room(t60, 6.0, RATE, np.random.default_rng(1))
    assert room[0] == 1 and len(room) == round(t60 * RATE)
    assert decibels(room[:1], room[1:]) == pytest.approx(6.0, abs=0.01)
    piece = len(room) // 10
    fall = decibels(room[1 : 1 + piece], room[-piece:])
    assert fall == pytest.approx(60 * 0.9, abs=2)


def test_reverberation_is_convolution_and_keeps_loudness_and_place() -> None:
    speech = hum(0.5)
    room = np.zeros(4000, np.float32)
    room[100], room[2100] = 2.0, 1.0  # the peak comes after 100 samples, an echo 2000 later
    expected = speech.copy()
    expected[2000:] += 0.5 * speech[:-2000]
    made = reverberated(speech, room)
    assert decibels(made, speech) == pytest.approx(0, abs=0.001)
    np.testing.assert_allclose(made / made[500], expected / expected[500], rtol=1e-3, atol=1e-4)


def test_recorded_rooms_of_any_rate_are_used(tmp_path: Path) -> None:
    room = np.zeros(8820)
    room[10], room[4420] = 0.5, 0.25  # half as loud again after a tenth of a second
    soundfile.write(tmp_path / "hall.wav", room, 44100)
    sound = sound_of(room=RecordedRoomSettings(folder=tmp_path, share=1))
    click = np.zeros(RATE, np.float32)
    click[1000] = 1.0
    heard = np.abs(drawn(sound, click))
    assert int(heard.argmax()) == pytest.approx(1000, abs=2)
    echo = 2000 + int(heard[2000:].argmax())
    assert echo == pytest.approx(2600, abs=2)
    assert heard[echo] / heard.max() == pytest.approx(0.5, abs=0.05)


# --- what cannot be


def test_folders_that_cannot_be_used_are_named(noises: Path, tmp_path: Path) -> None:
    def refused(folder: Path) -> DataError:
        with pytest.raises(DataError) as caught:
            sound_of(noise=NoiseSettings(folder=folder))
        return caught.value

    assert "augment.sound.noise.folder" in str(refused(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "list.txt").write_text("")
    assert "no recording in" in str(refused(tmp_path / "empty"))
    (noises / "random.wav").write_bytes(b"RIFF" + bytes(range(200)))
    (noises / "more" / "zero.flac").write_bytes(b"")
    told = refused(noises)
    assert "2 recordings" in told.summary
    assert "zero.flac" in told.problems[0] and "random.wav" in told.problems[1]


def test_noise_that_is_damaged_inside_is_named_when_it_is_drawn(tmp_path: Path) -> None:
    samples = np.full(RATE, np.nan, np.float32)
    soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
    sound = sound_of(noise=NoiseSettings(folder=tmp_path, share=1))
    with pytest.raises(AudioError, match=r"bad\.wav: holds samples that are not finite"):
        drawn(sound, hum(0.2))


def test_ranges_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"speeds": []},
        {"speeds": [0.9, 0.9]},
        {"speeds": [0.1, 1.0]},
        {"volume": [3, -3]},
        {"noise": {"folder": "x", "snr": [20, 5]}},
        {"noise": {"folder": "x", "share": 0}},
        {"room": {"kind": "simulated", "t60": [0, 1]}},
        {"room": {"kind": "recorded"}},
    ]
    for settings in wrong:
        with pytest.raises(ValidationError):
            SoundSettings(**settings)


def test_recordings_cannot_be_changed_where_there_are_none() -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(RECIPES / "an4.yaml", ["augment.sound={speeds: [0.9, 1.0, 1.1]}"])
    (problem,) = caught.value.problems
    assert "augment.sound" in problem and "frontend.kind arrays" in problem
    assert Augment(AugmentSettings(), Frontend(ArraysFrontendSettings())).sound is None


# --- in batches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_recordings(tmp_path / "corpus", {"train": 12, "dev": 3})


def batches_of(
    root: Path, sound: dict[str, Any], training: bool = True, seed: int = 1, **how: Any
) -> Batches:
    frontend = Frontend(MfccSettings(width=8, filters=20))
    settings = AugmentSettings(**{**OFF, **how.pop("augment", {}), "sound": sound})
    return Batches(
        read_part(CutsSettings(root=root), "train" if training else "dev").cuts,
        frontend,
        Augment(settings, frontend),
        Vocabulary.course(),
        BatchingSettings(utterances=4, **how),
        seed,
        training,
    )


def frames_by_name(batches: Batches, epoch: int) -> dict[str, torch.Tensor]:
    return {
        name: frames[:length]
        for batch in batches.epoch(epoch)
        for name, frames, length in zip(batch.ids, batch.frames, batch.lengths, strict=True)
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_sound_is_changed_again_in_the_same_way_and_otherwise_in_another_epoch(
    root: Path, noises: Path, workers: int
) -> None:
    everything = {
        "speeds": [0.9, 1.0, 1.1],
        "room": {"kind": "simulated"},
        "noise": {"folder": noises},
        "volume": [-10, 5],
    }
    first = batches_of(root, everything)
    again = batches_of(root, everything, workers=workers)
    list(again.epoch(1))
    for one, other in zip(first.epoch(2), again.epoch(2), strict=True):
        assert one.ids == other.ids and torch.equal(one.frames, other.frames)
    later = list(again.epoch(2, 2))
    for one, other in zip(list(first.epoch(2))[2:], later, strict=True):
        assert torch.equal(one.frames, other.frames)
    unlike = (frames_by_name(batches_of(root, everything, seed=2), 2), frames_by_name(first, 3))
    here = frames_by_name(first, 2)
    for there in unlike:
        same = [
            n for n in here if here[n].shape == there[n].shape and torch.equal(here[n], there[n])
        ]
        assert len(same) < 3


def test_the_plan_foresees_every_speed_of_sound(root: Path) -> None:
    both: dict[str, Any] = {"augment": {"speed": (0.8, 1.2)}}
    for how in ({}, both):
        batches = batches_of(root, {"speeds": [0.8, 1.0, 1.3]}, **how)
        assert batches.augment is not None
        lengths = batches._lengths(1)
        assert [len(batches.example(i, 1).frames) for i in range(12)] == lengths.tolist()
        assert len({int(length) for length in lengths / batches._frames[1.0] * 100}) > 2
        for own, made in zip(batches._frames[1.0].tolist(), lengths.tolist(), strict=True):
            assert batches.augment.fewest_frames(own) <= made <= batches.augment.most_frames(own)


def test_the_most_and_fewest_frames_hold_for_every_length() -> None:
    frontend = Frontend(MfccSettings())
    augment = Augment(AugmentSettings(**OFF, sound={"speeds": [0.87, 1.13]}), frontend)

    class Cut:
        sampling_rate = 44100

        def __init__(self, samples: int) -> None:
            self.num_samples = samples

    for samples in range(2000, 90000, 37):
        frames = frontend.count(Cut(samples))
        for speed in (0.87, 1.13):
            made = frontend.count(Cut(samples), speed)
            assert augment.fewest_frames(frames) <= made <= augment.most_frames(frames)


def test_sound_is_left_alone_in_validation_and_before_its_first_epoch(root: Path) -> None:
    loud: dict[str, Any] = {"speeds": [0.8], "volume": [20, 20]}
    frontend = Frontend(MfccSettings(width=8, filters=20))
    plain = {
        part: [
            frontend.finish(frontend.static(c))
            for c in read_part(CutsSettings(root=root), part).cuts
        ]
        for part in ("train", "dev")
    }
    dev = batches_of(root, loud, training=False)
    train = batches_of(root, loud, augment={"from_epoch": 3})
    for batches, part, epoch in ((dev, "dev", 5), (train, "train", 2)):
        for index, frames in enumerate(plain[part]):
            assert torch.equal(batches.example(index, epoch).frames, frames)
    assert len(train.example(0, 3).frames) > len(plain["train"][0])


def test_turning_sound_on_draws_the_same_masks(root: Path) -> None:
    masks: dict[str, Any] = {"time_masks": {"count": 1, "width": 9, "share": 0.3}}
    quiet, loud = (batches_of(root, {"volume": [v, v]}, augment=masks) for v in (0, 6))
    for index in range(12):
        hidden = [(b.example(index, 1).frames == 0).all(dim=1) for b in (quiet, loud)]
        assert torch.equal(*hidden)


def test_what_is_heard_at_one_of_few_speeds_is_kept_in_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(root, {"speeds": [0.9, 1.1]})
    for epoch in range(1, 12):
        list(batches.epoch(epoch))
    monkeypatch.setattr(batches.frontend, "static", lambda *_: pytest.fail("made again"))
    list(batches.epoch(12))


def test_other_noise_is_another_corpus_to_a_run_that_goes_on(root: Path, noises: Path) -> None:
    before = batches_of(root, {"noise": {"folder": noises}}).contents()
    assert before == batches_of(root, {"noise": {"folder": noises}}).contents()
    (noises / "a.wav").rename(noises / "e.wav")
    assert before != batches_of(root, {"noise": {"folder": noises}}).contents()
