"""The alignment measure on attention whose shape is known, and verdicts over epochs."""

import math

import pytest
import torch
from torch import Tensor

from spelldown.training.alignment import (
    ALIGNED,
    ENOUGH,
    KEPT,
    Alignment,
    Validation,
    Verdict,
    measure,
    verdict,
)
from spelldown.training.remedies import REMEDIES, REMEDY_NAMES, untried

FRAMES, STEPS = 100, 40


def attention(centres: Tensor, width: float = 1.5, frames: int = FRAMES) -> Tensor:
    """Weights (1, L, T') of bells of the given width, in frames, around `centres` (L,)."""
    distance = torch.arange(frames) - centres[:, None]
    return (-0.5 * (distance / width) ** 2).softmax(-1)[None]


def diagonal(first: float = 5, last: float = 94, steps: int = STEPS) -> Tensor:
    return attention(torch.linspace(first, last, steps))


UNIFORM = torch.full((1, STEPS, FRAMES), 1 / FRAMES)
STUCK = attention(torch.full((STEPS,), 30.0))
BACKWARDS = diagonal(94, 5)
TWICE = torch.cat([diagonal(), diagonal()], dim=1)
NOISE = torch.rand(1, STEPS, FRAMES, generator=torch.Generator().manual_seed(1)).softmax(-1)
HALF = diagonal(5, 38)


def test_a_diagonal_is_aligned_in_every_part() -> None:
    found = measure([diagonal()], [True])
    assert found.monotonic == pytest.approx(1.0)
    assert found.coverage == pytest.approx(1.0)
    assert found.peaked > 0.5
    assert (found.ended, found.value, found.failing()) == (1.0, 1.0, [])


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (UNIFORM, ["monotonic", "peaked"]),
        (NOISE, ["monotonic", "peaked"]),
        (STUCK, ["monotonic", "coverage"]),
        (BACKWARDS, ["monotonic"]),
        (TWICE, ["monotonic"]),
        (HALF, ["coverage"]),
    ],
    ids=["uniform", "noise", "stuck", "backwards", "twice", "half"],
)
def test_what_is_not_aligned_fails_in_its_own_parts(weights: Tensor, parts: list[str]) -> None:
    found = measure([weights], [True])
    assert sorted(found.failing()) == sorted(parts)
    assert found.value < ALIGNED


@pytest.mark.parametrize("weights", [UNIFORM, NOISE, STUCK, BACKWARDS])
def test_hopeless_attention_has_a_value_near_nothing(weights: Tensor) -> None:
    assert measure([weights]).value < 0.05


def test_the_parts_say_by_how_much() -> None:
    assert measure([TWICE]).monotonic == pytest.approx(1 / 3, abs=0.01)
    assert measure([STUCK]).coverage == pytest.approx(0.2, abs=0.01)
    assert measure([HALF]).coverage == pytest.approx(0.4, abs=0.05)
    assert measure([UNIFORM]).peaked == pytest.approx(0.0, abs=1e-6)
    assert measure([BACKWARDS]).monotonic == 0.0
    ten = torch.zeros(1, 1, 60)
    ten[..., :10] = 0.1
    assert measure([ten]).peaked == pytest.approx(1 - math.log(10) / math.log(60))


def test_creeping_forward_a_little_is_not_moving_through_the_speech() -> None:
    creeping = measure([diagonal(30, 35)])
    assert creeping.monotonic == pytest.approx(5 / (0.2 * (FRAMES - 1)), abs=0.01)


def test_silence_at_both_ends_and_trembling_are_still_aligned() -> None:
    random = torch.Generator().manual_seed(0)
    trembling = torch.linspace(15, 80, 65) + 0.7 * torch.randn(65, generator=random)
    assert measure([attention(trembling)], [True]).value >= ALIGNED


def test_spaces_that_look_into_silence_do_not_undo_alignment() -> None:
    weights = diagonal().clone()
    weights[:, ::4] = 0
    weights[:, ::4, :10] = 0.1  # every fourth step looks at the silence before the first word
    assert measure([weights], [True]).value >= ALIGNED


def test_a_letter_or_two_can_be_aligned() -> None:
    weights = attention(torch.tensor([8.0, 16.0, 26.0]), frames=30)
    assert measure([weights], [True]).value >= ALIGNED


def test_utterances_that_do_not_end_lower_the_value() -> None:
    found = measure([diagonal()] * 4, [True, False, False, True])
    assert found.ended == 0.5
    assert found.value == pytest.approx(0.5 / ENOUGH["ended"])
    assert measure([diagonal()]).ended == 1.0


def test_ending_at_once_is_not_aligned() -> None:
    assert measure([attention(torch.tensor([50.0]))] * 3, [True] * 3).value == 0.0


def test_the_best_head_over_the_whole_set_is_taken() -> None:
    sets = [torch.cat([UNIFORM, diagonal(), STUCK]), torch.cat([diagonal(), diagonal(), STUCK])]
    found = measure(sets)
    assert (found.head, found.value) == (1, 1.0)


def test_utterances_count_alike_and_are_averaged() -> None:
    mixed = measure([diagonal(), TWICE])
    assert mixed.monotonic == pytest.approx((1 + 1 / 3) / 2, abs=0.01)


def test_a_single_step_or_frame_says_nothing_and_breaks_nothing() -> None:
    found = measure([diagonal(), torch.ones(1, 1, 1), torch.ones(1, 5, 1)])
    assert found.monotonic == pytest.approx(1.0)
    assert found.peaked == pytest.approx(measure([diagonal()]).peaked)


def test_weights_need_not_be_normalised_nor_float32() -> None:
    plain, scaled = measure([diagonal()]), measure([3 * diagonal().to(torch.bfloat16)])
    assert scaled.monotonic == pytest.approx(plain.monotonic, abs=0.02)
    assert scaled.peaked == pytest.approx(plain.peaked, abs=0.02)


def test_no_utterances_or_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="0 utterances"):
        measure([])
    with pytest.raises(ValueError, match="1 utterances' weights and 2 ends"):
        measure([diagonal()], [True, False])


GOOD = Alignment(0.9, 0.8, 0.6, 1.0)
SPREAD = Alignment(0.3, 0.9, 0.05, 1.0)
WANDERING = Alignment(0.1, 0.9, 0.7, 0.2)


def run(*seen: tuple[Alignment, float], updates: int = 400) -> list[Validation]:
    """A run's validations from epoch 1, `updates` steps an epoch."""
    return [
        Validation(epoch, epoch * updates, alignment, cer)
        for epoch, (alignment, cer) in enumerate(seen, start=1)
    ]


def half(value: float) -> Alignment:
    """An alignment of about `value`."""
    return Alignment(ENOUGH["monotonic"] * value, 1.0, 1.0, 1.0)


def test_a_run_that_aligns_is_told_so_from_the_epoch_on() -> None:
    told = verdict(run((SPREAD, 0.9), (half(0.5), 0.8), (GOOD, 0.3), (GOOD, 0.2)))
    assert told.state == "aligned"
    assert "since epoch 3" in told.reason
    assert told.advice == ()


def test_a_fine_looking_attention_with_babble_is_not_aligned() -> None:
    assert verdict(run(*[(GOOD, 0.85)] * 3)).state == "aligning"
    told = verdict(run(*[(GOOD, 0.85)] * 9))
    assert told.state == "not aligning"
    assert "not what was said" in told.reason


def test_a_young_run_is_given_time_by_epochs_and_by_updates() -> None:
    hopeless = (SPREAD, 4.3)
    assert verdict(run(*[hopeless] * 3)).state == "aligning"
    assert verdict(run(*[hopeless] * 4)).state == "not aligning"
    assert verdict(run(*[hopeless] * 10, updates=30)).state == "aligning"
    assert verdict(run(*[hopeless] * 14, updates=30)).state == "not aligning"


def test_a_value_that_rises_or_a_cer_that_falls_is_aligning() -> None:
    rising = [(half(0.05 * n), 0.95) for n in range(10)]
    falling = [(SPREAD, 0.95 - 0.05 * n) for n in range(10)]
    assert verdict(run(*rising)).state == "aligning"
    assert verdict(run(*falling)).state == "aligning"
    assert verdict(run(*[(half(0.3), 0.9)] * 10)).state == "not aligning"


def test_attention_that_spells_what_is_said_is_never_called_hopeless() -> None:
    nearly = (half(0.85), 0.0)
    told = verdict(run(*[nearly] * 12))
    assert told.state == "aligning" and "what was said is spelled, but attention" in told.reason
    assert verdict(run(*[(half(0.85), 0.3)] * 12)).state == "not aligning"
    assert verdict(run(*[(half(0.5), 0.0)] * 12)).state == "not aligning"


def test_having_said_nothing_at_first_is_not_held_against_a_falling_cer() -> None:
    cers = [1.0] * 5 + [5.1] * 5 + [3.5, 1.7, 1.1]
    assert verdict(run(*[(SPREAD, cer) for cer in cers])).state == "aligning"
    assert verdict(run(*[(SPREAD, cer) for cer in cers[:-3]])).state == "not aligning"


def test_above_all_wrong_only_a_falling_cer_is_hope() -> None:
    rising = [(half(0.05 * n), 4.3) for n in range(10)]
    falling = [(SPREAD, 4.3 - 0.3 * n) for n in range(10)]
    assert verdict(run(*rising)).state == "not aligning"
    assert verdict(run(*falling)).state == "aligning"


def test_ends_that_come_now_and_then_are_not_a_falling_cer() -> None:
    cers = [10.7, 9.1, 5.8, 9.0, 8.9, 1.0]  # the seed's first row on AN4
    assert verdict(run(*[(SPREAD, 12.0)] * 10, *[(SPREAD, cer) for cer in cers])).state == (
        "not aligning"
    )


def test_a_bad_validation_does_not_unalign_but_a_lost_attention_does() -> None:
    wobble = half((ALIGNED + KEPT) / 2)
    assert verdict(run((GOOD, 0.2), (wobble, 0.25))).state == "aligned"
    assert verdict(run((GOOD, 0.2), (SPREAD, 1.2))).state == "aligning"
    told = verdict(run((GOOD, 0.2), *[(SPREAD, 1.2)] * 3))
    assert told.state == "not aligning"
    assert "came apart" in told.reason
    assert "best checkpoint" in told.advice[0]


def advised(alignment: Alignment, in_use: frozenset[str] = frozenset()) -> Verdict:
    left = {remedy.name: remedy.typed for remedy in untried(in_use)}
    return verdict(run(*[(alignment, 4.3)] * 8), left)


def test_advice_is_for_the_part_that_fails() -> None:
    before = [remedy.name for remedy in REMEDIES]
    in_use = frozenset({"teacher-forcing", *before[: before.index("reduction")]})
    spread = advised(SPREAD, in_use)
    assert spread.reason.startswith("attention is spread over all frames")
    assert "fewer frames" in spread.advice[0]
    wandering = advised(WANDERING, in_use | {"shortest-first"})
    assert wandering.reason.startswith("attention does not move forwards")
    assert "attention.kind=location" in wandering.advice[0]
    assert "blocks.N.norm=layer" in advised(WANDERING, in_use - {"norm"}).advice[0]
    endless = advised(Alignment(0.9, 0.9, 0.9, 0.0), frozenset({"teacher-forcing"}))
    assert endless.reason.startswith("<eos> does not come")
    assert not any("ctc" in advice for advice in endless.advice)


def test_what_a_run_does_already_is_not_advised() -> None:
    for remedy in REMEDIES:
        told = advised(SPREAD, frozenset({remedy.name})).advice
        assert not any(advice.startswith(remedy.text) for advice in told)
    assert "look at the data" in advised(SPREAD, REMEDY_NAMES).advice[-1]
    with pytest.raises(ValueError, match="unknown remedies"):
        verdict(run((SPREAD, 4.3)), {"prayer": "pray"})


def test_more_ctc_is_advised_only_where_there_is_some() -> None:
    def advises(*in_use: str) -> bool:
        return any("let CTC lead" in advice for advice in advised(SPREAD, frozenset(in_use)).advice)

    measured = ("norm", "convolutions", "dropout", "late-augment")
    assert not advises(*measured)
    assert advises(*measured, "ctc")
    assert not advises("ctc", "leading-ctc")


def test_a_verdict_prints_its_advice_line_by_line() -> None:
    lines = str(advised(SPREAD)).splitlines()
    assert lines[0].startswith("not aligning: attention is spread")
    assert all(line.startswith("  try: ") for line in lines[1:])
    assert 1 <= len(lines) - 1 <= 4
