"""Augmentation: drawn anew from a generator, within its limits, and off where it is off."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from spelldown.data.augmenting.frames import (
    Augment,
    AugmentSettings,
    MaskSettings,
    TimeMaskSettings,
    at_speed,
    warped_in_time,
)
from spelldown.data.frontend import (
    ArraysFrontendSettings,
    Frontend,
    LogMelSettings,
    MfccSettings,
)

OFF: dict[str, Any] = {"speed": None, "warp": 0, "time_masks": None, "frequency_masks": None}
CEPSTRA = Frontend(ArraysFrontendSettings(width=13, deltas=2))
LOG_MEL = Frontend(LogMelSettings(width=40))


def only(frontend: Frontend = CEPSTRA, **settings: Any) -> Augment:
    return Augment(AugmentSettings(**{**OFF, **settings}), frontend)


def draws(count: int = 50) -> list[np.random.Generator]:
    return [np.random.default_rng((3, index)) for index in range(count)]


def tone(frontend: Frontend, hertz: float) -> Tensor:
    time = torch.arange(16000) / 16000
    return frontend.of_samples(0.3 * torch.sin(2 * torch.pi * hertz * time), 16000)


@pytest.mark.parametrize("frontend", [CEPSTRA, LOG_MEL])
def test_the_same_generator_gives_the_same_frames_and_another_gives_others(
    frontend: Frontend,
) -> None:
    augment = Augment(
        AugmentSettings(noise=0.2, band_masks=MaskSettings(count=1, width=5)), frontend
    )
    static = torch.randn(150, frontend.width)

    def augmented(seed: int) -> Tensor:
        random = np.random.default_rng((1, seed))
        return augment.mask(frontend.finish(augment.perturb(static, random)), random)

    torch.testing.assert_close(augmented(5), augmented(5), rtol=0, atol=0)
    other = augmented(6)
    assert other.shape != augmented(5).shape or not torch.equal(other, augmented(5))
    assert other.shape[1] == frontend.output_width and other.dtype == torch.float32


def test_nothing_changes_when_all_is_off() -> None:
    static, random = torch.randn(30, 13), np.random.default_rng(1)
    augment = only()
    assert torch.equal(augment.perturb(static, random), static)
    assert torch.equal(augment.mask(static.repeat(1, 3), random), static.repeat(1, 3))


def test_augmentation_leaves_what_it_is_given_untouched() -> None:
    static = torch.randn(80, 13)
    kept = static.clone()
    augment = Augment(AugmentSettings(noise=0.1), CEPSTRA)
    augment.perturb(static, np.random.default_rng(1))
    frames = CEPSTRA.finish(static)
    kept_frames = frames.clone()
    augment.mask(frames, np.random.default_rng(1))
    assert torch.equal(static, kept) and torch.equal(frames, kept_frames)


def test_augmentation_is_off_before_its_first_epoch() -> None:
    augment = only(from_epoch=3)
    assert [augment.active(epoch) for epoch in (1, 2, 3, 4)] == [False, False, True, True]


def test_speed_changes_the_length_within_its_range_and_keeps_the_ends() -> None:
    static = torch.randn(200, 13)
    augment = only(speed=(0.8, 1.25))
    lengths = [len(augment.perturb(static, random)) for random in draws(200)]
    assert 160 <= min(lengths) < 170 and 240 < max(lengths) <= 250
    stretched = at_speed(static, 0.8)
    torch.testing.assert_close(stretched[0], static[0])
    torch.testing.assert_close(stretched[-1], static[-1])


def test_a_ramp_stays_a_ramp_at_any_speed() -> None:
    ramp = torch.linspace(0, 1, 100).unsqueeze(1)
    out = at_speed(ramp, 1.6)
    torch.testing.assert_close(out, torch.linspace(0, 1, len(out)).unsqueeze(1))


def test_warping_in_time_moves_one_frame_and_stretches_the_rest_evenly() -> None:
    ramp = torch.arange(101.0).unsqueeze(1)
    moves = set()
    for random in draws(300):
        out = warped_in_time(ramp, 20, random).squeeze(1)
        assert len(out) == 101 and out[0] == 0 and out[-1] == 100
        steps = out.diff()
        assert (steps > 0).all()
        before, after = float(steps[0]), float(steps[-1])  # two lines that meet in one frame
        assert sum(abs(step - before) > 1e-3 and abs(step - after) > 1e-3 for step in steps) <= 1
        moves.add(round(float((ramp.squeeze(1) - out).abs().max())))
    assert max(moves) <= 19 and min(moves) == 0 and len(moves) > 15


def test_warping_in_time_is_part_of_what_happens_to_frames() -> None:
    static = torch.randn(120, 13)
    out = [only(time_warp=40).perturb(static, random) for random in draws(20)]
    assert all(one.shape == static.shape for one in out)
    assert sum(torch.equal(one, static) for one in out) < 3
    assert torch.equal(only().perturb(static, np.random.default_rng(1)), static)


def test_changes_do_not_depend_on_the_number_of_threads() -> None:
    frontend = Frontend(MfccSettings(width=40))  # of a size whose products kernels share out
    augment = only(frontend, warp=0.2, band_masks=MaskSettings(), time_warp=20)
    static = 10 * torch.randn(300, 40)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 4):
            torch.set_num_threads(threads)
            found.append(augment.perturb(static, np.random.default_rng(1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_very_short_utterances_survive(length: int) -> None:
    augment = Augment(
        AugmentSettings(
            speed=(0.5, 2), time_warp=80, noise=1, band_masks=MaskSettings(count=3, width=50)
        ),
        CEPSTRA,
    )
    for random in draws():
        frames = CEPSTRA.finish(augment.perturb(torch.randn(length, 13), random))
        frames = augment.mask(frames, random)
        assert len(frames) >= 1 and torch.isfinite(frames).all()


@pytest.mark.parametrize("speed", [(0.9, 1.1), None])
def test_the_length_is_foretold_by_the_same_draw(speed: Any) -> None:
    augment = only(speed=speed, warp=0.1)
    for length in (1, 7, 333):
        for seed in range(20):
            foretold = augment.frames_after(length, np.random.default_rng(seed))
            static = augment.perturb(torch.randn(length, 13), np.random.default_rng(seed))
            assert len(static) == foretold
            assert augment.fewest_frames(length) <= foretold <= augment.most_frames(length)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_warping_moves_a_tone_to_its_frequency_times_the_factor(factor: float) -> None:
    frontend = Frontend(LogMelSettings(width=80))
    warped = tone(frontend, 1500) @ torch.from_numpy(only(frontend)._warping(factor)).float()
    expected = tone(frontend, 1500 * factor)
    difference = warped[50].argmax() - expected[50].argmax()
    assert abs(int(difference)) <= 1
    assert abs(int(expected[50].argmax()) - int(tone(frontend, 1500)[50].argmax())) >= 2


@pytest.mark.parametrize("width", [23, 40, 80])
def test_ready_made_log_mel_frames_of_any_width_are_warped(width: int) -> None:
    made = Frontend(ArraysFrontendSettings(width=width, content="log-mel"))
    ours = Frontend(LogMelSettings(width=width))
    frames = torch.randn(30, width)
    settings: dict[str, Any] = {"warp": 0.2, "band_masks": MaskSettings(count=1, width=5)}
    torch.testing.assert_close(
        only(made, **settings).perturb(frames, np.random.default_rng(1)),
        only(ours, **settings).perturb(frames, np.random.default_rng(1)),
    )


def test_no_warping_is_no_change() -> None:
    for frontend in (CEPSTRA, LOG_MEL, Frontend(MfccSettings())):
        augment = only(frontend, warp=1e-9)
        static = torch.randn(20, frontend.width)
        out = augment.perturb(static, np.random.default_rng(1))
        torch.testing.assert_close(out, static, atol=1e-4, rtol=1e-4)


def test_warped_cepstra_are_the_cepstra_of_the_warped_spectrum() -> None:
    """With as many cepstra as bands nothing is lost, so both ways must agree."""
    bands = Frontend(LogMelSettings(width=40))
    cepstra = Frontend(MfccSettings(width=40, filters=40))
    samples = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(1))
    band_frames, frames = (f.of_samples(samples, 16000) for f in (bands, cepstra))
    transform = torch.linalg.lstsq(band_frames, frames).solution
    warped = only(bands, warp=0.2).perturb(band_frames, np.random.default_rng(4))
    expected = warped @ transform
    out = only(cepstra, warp=0.2).perturb(frames, np.random.default_rng(4))
    torch.testing.assert_close(out, expected, atol=8e-2, rtol=1e-2)  # of frames rounded to halves
    assert not torch.allclose(out, frames, atol=0.5)


def test_a_hidden_band_is_its_mean_after_normalisation() -> None:
    augment = only(LOG_MEL, band_masks=MaskSettings(count=1, width=8))
    static = 3 + torch.randn(60, 40)
    hidden = set()
    for random in draws():
        frames = LOG_MEL.finish(augment.perturb(static, random))
        still = (frames.abs().max(dim=0).values == 0).sum()
        assert still <= 8
        hidden.add(int(still))
    assert hidden == set(range(9))


def test_hidden_bands_reach_cepstra() -> None:
    augment = only(band_masks=MaskSettings(count=2, width=10))
    static = torch.randn(60, 13)
    changed = sum(not torch.allclose(augment.perturb(static, r), static) for r in draws(20))
    assert changed > 10


def test_time_masks_stay_within_their_width_and_their_share() -> None:
    masks = TimeMaskSettings(count=2, width=30, share=0.2)
    augment = only(time_masks=masks)
    for length, most in ((1000, 60), (100, 20), (7, 0)):
        hidden = []
        for random in draws(100):
            frames = augment.mask(torch.ones(length, 39), random)
            silent = (frames == 0).all(dim=1)
            assert torch.equal(silent, (frames == 0).any(dim=1))
            hidden.append(int(silent.sum()))
        assert max(hidden) <= most
        assert max(hidden) >= 0.8 * most


def test_a_frequency_mask_hides_a_coefficient_and_its_deltas_together() -> None:
    augment = only(frequency_masks=MaskSettings(count=1, width=4))
    hidden = set()
    for random in draws(200):
        frames = augment.mask(torch.ones(20, 39), random)
        static, delta, second = ((frames[:, i : i + 13] == 0).all(dim=0) for i in (0, 13, 26))
        assert torch.equal(static, delta) and torch.equal(static, second)
        assert static.sum() <= 4
        hidden.update(static.nonzero().flatten().tolist())
    assert hidden == set(range(13))


def test_noise_has_the_deviation_asked_for() -> None:
    frames = only(noise=0.3).mask(torch.zeros(500, 39), np.random.default_rng(1))
    assert frames.std() == pytest.approx(0.3, rel=0.02)


def test_ranges_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"speed": (1.1, 0.9)},
        {"speed": (0.1, 1.0)},
        {"warp": 0.9},
        {"noise": -1},
        {"time_masks": {"share": 0}},
        {"from_epoch": 0},
        {"masks": 2},
    ]
    for settings in wrong:
        with pytest.raises(ValidationError):
            AugmentSettings(**settings)
