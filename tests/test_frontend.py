"""Frames: as Kaldi makes them, finite whatever comes in, and the same in training and in use."""

from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
from lhotse import Features, MonoCut, Recording
from lhotse.audio import AudioSource
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from spelldown.data.frontend import (
    LEAST_DEVIATION,
    ArraysFrontendSettings,
    Frontend,
    FrontendSettings,
    LogMelSettings,
    MfccSettings,
    add_deltas,
    normalised,
)
from spelldown.data.recordings import read_audio
from spelldown.errors import AudioError, DataError

RATE = 16000


def speechlike(seconds: float = 0.8, rate: int = RATE) -> Tensor:
    """A gliding, pulsing harmonic sound with some noise, within [-1, 1]."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (120 * time + 20 * time**2)
    sound = sum(np.sin(k * phase) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 4 * time))
    noise = np.random.default_rng(7).normal(size=len(time))
    return torch.from_numpy((0.1 * sound + 0.003 * noise).astype(np.float32))


def recorded(path: Path, samples: Tensor, rate: int = RATE, **settings: Any) -> Any:
    soundfile.write(path, samples.numpy().T, rate, **settings)
    return Recording.from_file(path).to_cut()


def ready_made(folder: Path, frames: Any) -> MonoCut:
    np.save(folder / "u1.npy", frames)
    seconds = len(frames) / 100
    features = Features(
        type="arrays",
        num_frames=len(frames),
        num_features=frames.shape[1],
        frame_shift=0.01,
        sampling_rate=RATE,
        start=0,
        duration=seconds,
        storage_type="numpy_files",
        storage_path=str(folder),
        storage_key="u1.npy",
        channels=0,
    )
    return MonoCut("u1", 0, seconds, 0, features=features)


def kaldi_frames(options: Any, computer: Any, samples: Tensor) -> Tensor:
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.high_freq = -400
    online = computer(options)
    online.accept_waveform(RATE, samples.tolist())
    online.input_finished()
    frames = [torch.tensor(online.get_frame(i)) for i in range(online.num_frames_ready)]
    return torch.stack(frames)


def test_log_mel_is_kaldis() -> None:
    samples = speechlike()
    options = kaldi_native_fbank.FbankOptions()
    options.mel_opts.num_bins = 40
    expected = kaldi_frames(options, kaldi_native_fbank.OnlineFbank, samples)
    frames = Frontend(LogMelSettings(width=40)).of_samples(samples, RATE)
    assert frames.shape == expected.shape
    torch.testing.assert_close(frames, expected, atol=2e-3, rtol=1e-3)


def test_mfcc_are_kaldis() -> None:
    samples = speechlike()
    options = kaldi_native_fbank.MfccOptions()
    options.mel_opts.num_bins = 40
    options.num_ceps = 13
    options.use_energy = False
    expected = kaldi_frames(options, kaldi_native_fbank.OnlineMfcc, samples)
    frames = Frontend(MfccSettings()).of_samples(samples, RATE)
    assert frames.shape == expected.shape
    torch.testing.assert_close(frames, expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("settings", [LogMelSettings(width=40), MfccSettings(width=40)])
def test_frames_do_not_depend_on_the_number_of_threads(settings: Any) -> None:
    frontend, before, found = Frontend(settings), torch.get_num_threads(), []
    try:
        for threads in (1, 3, 4):
            torch.set_num_threads(threads)
            found.append(frontend.of_samples(speechlike(4.0), RATE))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("settings", [LogMelSettings(width=40), MfccSettings()])
def test_half_precision_holds_frames_made_from_sound(settings: Any) -> None:
    frames = Frontend(settings).of_samples(speechlike(), RATE)
    assert frames.dtype == torch.float32 and torch.equal(frames.half().float(), frames)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("speed", [0.9, 1.0, 1.13])
def test_frames_at_any_speed_are_as_many_as_foretold(
    tmp_path: Path, rate: int, speed: float
) -> None:
    cut = recorded(tmp_path / "a.wav", speechlike(0.777, rate), rate)
    frontend = Frontend(MfccSettings())
    assert len(frontend.static(cut, speed)) == frontend.count(cut, speed)


def test_deltas_are_the_regression_slope_with_repeated_edges() -> None:
    frames = torch.randn(9, 3, dtype=torch.float64)
    with_deltas = add_deltas(frames, 2)

    def slope(values: Tensor, t: int) -> Tensor:
        def at(index: int) -> Tensor:
            return values[min(max(index, 0), len(values) - 1)]

        return sum((n * (at(t + n) - at(t - n)) for n in (1, 2)), torch.zeros(3)) / 10

    first = torch.stack([slope(frames, t) for t in range(9)])
    second = torch.stack([slope(first, t) for t in range(9)])
    torch.testing.assert_close(with_deltas, torch.cat((frames, first, second), dim=1))
    ramp = torch.arange(9.0).unsqueeze(1) * 3
    torch.testing.assert_close(add_deltas(ramp, 1)[2:-2, 1], torch.full((5,), 3.0))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_utterances_shorter_than_the_delta_window_have_deltas(length: int) -> None:
    assert add_deltas(torch.randn(length, 4), 2).shape == (length, 12)


def test_every_coefficient_has_mean_zero_and_deviation_one() -> None:
    frames = 5 + torch.tensor([0.1, 1, 10]) * torch.randn(200, 3)
    out = normalised(frames, "mean-variance")
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(dim=0, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)
    centred = normalised(frames, "mean")
    torch.testing.assert_close(centred, frames - frames.mean(dim=0))
    assert normalised(frames, "none") is frames


def test_a_coefficient_that_never_moves_becomes_zero_not_noise() -> None:
    frames = torch.full((300, 2), -15.942385)
    frames[::2, 1] += LEAST_DEVIATION / 100
    out = normalised(frames, "mean-variance")
    assert out.abs().max() < 0.05


@pytest.mark.parametrize("settings", [MfccSettings(deltas=2), LogMelSettings(width=40, deltas=1)])
@pytest.mark.parametrize("level", [0.0, 1e-8, 1e4])
def test_frames_are_finite_for_silence_and_for_overloads(settings: Any, level: float) -> None:
    frontend = Frontend(settings)
    frames = frontend.finish(frontend.of_samples(level * torch.randn(8000), RATE))
    assert frames.shape == (50, frontend.output_width)
    assert torch.isfinite(frames).all()
    assert frames.abs().max() < 20


def test_loudness_does_not_matter_after_normalisation() -> None:
    frontend = Frontend(MfccSettings(deltas=1))
    loud, quiet = (
        frontend.finish(frontend.of_samples(gain * speechlike(), RATE)) for gain in (1, 0.25)
    )
    torch.testing.assert_close(loud, quiet, atol=2e-2, rtol=0)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_a_recording_of_another_rate_gives_the_same_number_of_frames(
    tmp_path: Path, rate: int
) -> None:
    cut = recorded(tmp_path / "a.wav", speechlike(0.8137, rate), rate)
    frontend = Frontend(MfccSettings())
    assert len(frontend.static(cut)) == frontend.count(cut) == 81


def test_resampling_keeps_the_sound() -> None:
    frontend = Frontend(LogMelSettings(width=20))
    time = torch.arange(48000) / 48000
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * time)
    expected = frontend.of_samples(tone[::3], RATE)
    out = frontend.of_samples(tone, 48000)
    assert (out[5:-5].argmax(dim=1) == expected[5:-5].argmax(dim=1)).all()


def test_a_cut_gives_the_frames_of_its_samples(tmp_path: Path) -> None:
    samples = speechlike(1.5)
    frontend = Frontend(MfccSettings())
    cut = recorded(tmp_path / "a.wav", samples, subtype="FLOAT")
    torch.testing.assert_close(frontend.static(cut), frontend.of_samples(samples, RATE))
    part = cut.truncate(offset=0.5, duration=0.6)
    expected = frontend.of_samples(samples[8000:17600], RATE)
    torch.testing.assert_close(frontend.static(part), expected)
    assert frontend.count(part) == len(expected)


def test_channels_are_averaged_unless_the_cut_chooses_one(tmp_path: Path) -> None:
    left = speechlike()
    both = torch.stack((left, torch.zeros_like(left)))
    cut = recorded(tmp_path / "a.wav", both, subtype="FLOAT")
    frontend = Frontend(LogMelSettings(width=20))
    torch.testing.assert_close(frontend.static(cut), frontend.of_samples(left / 2, RATE))
    mono = MonoCut("left", 0, cut.duration, 0, recording=cut.recording)
    torch.testing.assert_close(frontend.static(mono), frontend.of_samples(left, RATE))
    assert read_audio(tmp_path / "a.wav")[0].shape == left.shape


def test_a_channel_that_the_file_has_not_is_told(tmp_path: Path) -> None:
    cut = recorded(tmp_path / "a.wav", torch.stack((speechlike(), speechlike())))
    soundfile.write(tmp_path / "a.wav", speechlike().numpy(), RATE)
    right = MonoCut("right", 0, cut.duration, 1, recording=cut.recording)
    for asked in (right, cut):
        with pytest.raises(AudioError, match=r"a\.wav has 1 channel; .* asks for channel 1"):
            Frontend(MfccSettings()).static(asked)


def test_frames_in_a_mixed_cut_come_through_lhotse(tmp_path: Path) -> None:
    cut = recorded(tmp_path / "a.wav", speechlike(), subtype="FLOAT")
    frontend = Frontend(MfccSettings())
    joined = cut.append(cut)
    assert len(frontend.static(joined)) == frontend.count(joined) == 160


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        ("wav", {}),
        ("flac", {}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
        ("mp3", {}),
        ("sph", {"format": "NIST"}),
    ],
)
def test_common_formats_are_read(tmp_path: Path, suffix: str, settings: dict[str, str]) -> None:
    samples = speechlike()
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples.numpy(), RATE, **settings)
    found, rate = read_audio(path)
    assert rate == RATE and found.dtype == torch.float32
    assert abs(len(found) - len(samples)) < 0.1 * RATE
    count = len(found)
    recording = Recording("a", [AudioSource("file", [0], str(path))], rate, count, count / rate)
    assert len(Frontend(MfccSettings()).static(recording.to_cut())) >= 80


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not sound")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, dtype=np.float32), RATE)
    for path in (text, empty, tmp_path / "missing.wav"):
        with pytest.raises(AudioError, match=path.name):
            read_audio(path)


def test_a_missing_or_short_recording_is_told_with_its_utterance(tmp_path: Path) -> None:
    frontend = Frontend(MfccSettings())
    cut = recorded(tmp_path / "a.wav", torch.zeros(390))
    cut.id = "spk1-utt7"
    with pytest.raises(AudioError, match=r"spk1-utt7 \(.*a\.wav\) is 24\.4 ms long.*25 ms"):
        frontend.static(cut)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(AudioError, match=r"spk1-utt7.*a\.wav: no such recording"):
        frontend.static(cut)


def test_a_recording_shorter_than_its_manifest_says_is_told(tmp_path: Path) -> None:
    cut = recorded(tmp_path / "a.wav", speechlike(1.0))
    soundfile.write(tmp_path / "a.wav", speechlike(0.9).numpy(), RATE)
    with pytest.raises(AudioError, match="14400 samples, its manifest says 16000"):
        Frontend(MfccSettings()).static(cut)


def test_samples_that_are_not_finite_are_told() -> None:
    samples = speechlike()
    samples[100] = torch.nan
    with pytest.raises(AudioError, match="clip holds samples that are not finite"):
        Frontend(MfccSettings()).of_samples(samples, RATE, name="clip")


def test_ready_made_frames_come_as_they_are(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).normal(size=(57, 13))
    cut = ready_made(tmp_path, frames)
    frontend = Frontend(ArraysFrontendSettings(deltas=1))
    static = frontend.static(cut)
    assert static.dtype == torch.float32 and frontend.count(cut) == 57
    torch.testing.assert_close(static.double(), torch.from_numpy(frames), atol=1e-6, rtol=1e-6)
    assert frontend.finish(static).shape == (57, frontend.output_width) == (57, 26)


def test_ready_made_frames_of_another_width_are_told(tmp_path: Path) -> None:
    cut = ready_made(tmp_path, np.zeros((9, 28), dtype=np.float32))
    with pytest.raises(
        DataError, match=r"u1\.npy \(utterance u1\) has frames of shape \(9, 28\).*\(frames, 13\)"
    ):
        Frontend(ArraysFrontendSettings()).static(cut)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_ready_made_frames_that_are_not_finite_are_told_with_their_file(
    tmp_path: Path, wrong: float
) -> None:
    frames = np.ones((9, 13), dtype=np.float32)
    frames[4, 2:4] = wrong
    cut = ready_made(tmp_path, frames)
    with pytest.raises(DataError, match=r"u1\.npy \(utterance u1\): 2 of 117 numbers are not fin"):
        Frontend(ArraysFrontendSettings()).static(cut)


def test_ready_made_frames_that_went_away_or_bad_are_told_with_their_file(tmp_path: Path) -> None:
    cut = ready_made(tmp_path, np.ones((9, 13), dtype=np.float32))
    file = tmp_path / "u1.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"u1\.npy \(utterance u1\): its frames cannot be read"):
        Frontend(ArraysFrontendSettings()).static(cut)
    file.unlink()
    with pytest.raises(DataError, match=r"u1\.npy \(utterance u1\): .* No such file.*npy'$"):
        Frontend(ArraysFrontendSettings()).static(cut)


def test_a_frontend_says_what_it_takes(tmp_path: Path) -> None:
    audio = recorded(tmp_path / "a.wav", speechlike())
    arrays = ready_made(tmp_path, np.zeros((9, 13), dtype=np.float32))
    with pytest.raises(DataError, match="no ready-made frames"):
        Frontend(ArraysFrontendSettings()).static(audio)
    with pytest.raises(DataError, match="no recording"):
        Frontend(MfccSettings()).static(arrays)
    with pytest.raises(AudioError, match=r"only takes frames that come ready"):
        Frontend(ArraysFrontendSettings()).of_samples(speechlike(), RATE)


def test_settings_name_their_kind_and_refuse_nonsense() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(FrontendSettings)
    assert isinstance(adapter.validate_python({"kind": "log-mel"}), LogMelSettings)
    assert adapter.validate_python({"kind": "arrays", "width": 28}).width == 28
    for wrong in ({"kind": "mfcc", "width": 41}, {"kind": "plp"}, {"kind": "mfcc", "deltas": 3}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_mel_bands_lie_where_the_recipe_says() -> None:
    time = torch.arange(16000) / 16000
    low, high = (torch.sin(2 * torch.pi * pitch * time) for pitch in (200.0, 7000.0))
    narrow = Frontend(LogMelSettings(width=20, lowest=300, highest=3400))
    for samples in (low, high):
        heard = Frontend(LogMelSettings(width=20)).of_samples(samples, 16000).max()
        assert narrow.of_samples(samples, 16000).max() < heard - 3  # outside the bands: leakage
    with pytest.raises(ValidationError, match="from 20 to 9000 Hz"):
        LogMelSettings(highest=9000)
    with pytest.raises(ValidationError, match="from 4000 to 3600 Hz"):
        MfccSettings(sample_rate=8000, lowest=4000)


@pytest.mark.data
def test_cepstra_from_sound_are_the_published_ones(shared_data: Path, an4: Path) -> None:
    frontend = Frontend(MfccSettings(lowest=130, highest=6800))
    audio = shared_data / "an4-audio"
    for name in ("an152-mwhw-b", "cen8-fcaw-b"):
        (path,) = an4.glob(f"*/mfcc/*-{name}.npy")
        theirs = normalised(torch.from_numpy(np.load(path)), "mean-variance")
        samples, rate = read_audio(audio / f"{name}.sph")
        early = torch.nn.functional.pad(samples, (rate // 400, 0))  # benchmarks/an4_from_sound.py
        ours = normalised(frontend.of_samples(early, rate)[1 : len(theirs) + 1], "mean-variance")
        alike = (ours * theirs).mean(dim=0)
        assert alike[0] > 0.995 and alike.min() > 0.9
