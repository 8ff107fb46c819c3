import math
from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from spelldown.data.checks import ctc_frames_needed
from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.training.learning.loss import (
    Losses,
    LossSettings,
    cross_entropy_sums,
    ctc_sum,
    spelling_loss,
)

SYMBOLS = torch.tensor([[SOS, 3, 4, 4, EOS], [SOS, 5, EOS, PAD, PAD]])
LENGTHS = torch.tensor([5, 3])
SPELLED = 6  # symbols after <sos>, <eos> counted


@dataclass
class Spelled:
    logits: Tensor
    memory_lengths: Tensor
    ctc_logits: Tensor | None


def spelled(frames: int = 7, dtype: torch.dtype = torch.float32) -> Spelled:
    random = torch.Generator().manual_seed(3)
    return Spelled(
        torch.randn(2, 4, 6, generator=random).to(dtype).requires_grad_(),
        torch.tensor([frames, frames - 2]),
        torch.randn(2, frames, 6, generator=random).to(dtype).requires_grad_(),
    )


def loss_of(settings: LossSettings, weight: float, found: Spelled | None = None) -> Losses:
    found = found or spelled()
    return spelling_loss(
        found,
        SYMBOLS,
        LENGTHS,
        found.memory_lengths,
        settings,
        ctc_weight=weight,
        symbols_in_update=SPELLED,
    )


def test_padding_does_not_count() -> None:
    logits = torch.zeros(2, 4, 6)
    logits[1, 2:] = torch.tensor([9.0, -9, 5, 1, 2, 3])  # where there is only padding
    smoothed, plain = cross_entropy_sums(logits, SYMBOLS[:, 1:], 0.1)
    assert plain.item() == pytest.approx(SPELLED * math.log(6))
    assert smoothed.item() == pytest.approx(SPELLED * math.log(6))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    found = spelled()
    ours = loss_of(LossSettings(reduction="sum", label_smoothing=smoothing), 0.0, found)
    theirs = functional.cross_entropy(
        found.logits.flatten(0, 1),
        SYMBOLS[:, 1:].flatten(),
        ignore_index=PAD,
        label_smoothing=smoothing,
        reduction="sum",
    )
    assert ours.loss.item() == pytest.approx(theirs.item())


def test_the_cross_entropy_that_is_told_is_without_label_smoothing() -> None:
    plain = loss_of(LossSettings(), 0.0)
    smoothed = loss_of(LossSettings(label_smoothing=0.3), 0.0)
    assert smoothed.ce == plain.ce
    assert smoothed.loss != plain.loss


def test_the_mean_is_the_sum_divided_by_the_symbols_for_cross_entropy_and_ctc_alike() -> None:
    for weight in (0.0, 0.3, 1.0):
        total = loss_of(LossSettings(reduction="sum"), weight).loss
        mean = loss_of(LossSettings(reduction="mean"), weight).loss
        assert mean.item() == pytest.approx(total.item() / SPELLED)


def test_the_ctc_weight_shares_the_loss_out() -> None:
    found = loss_of(LossSettings(reduction="sum"), 0.3)
    assert found.loss.item() == pytest.approx(0.7 * found.ce.item() + 0.3 * found.ctc.item())


def test_ctc_spells_what_stands_between_sos_and_eos() -> None:
    found = spelled()
    assert found.ctc_logits is not None
    ours, left_out = ctc_sum(found.ctc_logits, found.memory_lengths, SYMBOLS, LENGTHS)
    theirs = [
        functional.ctc_loss(
            found.ctc_logits[row : row + 1, :frames].log_softmax(-1).transpose(0, 1),
            torch.tensor([text]),
            torch.tensor([frames]),
            torch.tensor([len(text)]),
            reduction="sum",
        ).item()
        for row, (text, frames) in enumerate([([3, 4, 4], 7), ([5], 5)])
    ]
    assert ours.item() == pytest.approx(sum(theirs))
    assert left_out == 0


def test_a_text_too_long_for_ctc_is_counted_and_weighs_nothing() -> None:
    # 3 4 4 needs four frames, a blank between the two equal ones; 5 needs one
    found = spelled(frames=3)
    result = loss_of(LossSettings(), 1.0, found)
    assert result.ctc_left_out == 1
    assert math.isfinite(result.loss.item())
    assert found.ctc_logits is not None
    (gradient,) = torch.autograd.grad(result.loss, [found.ctc_logits])
    assert gradient[0].abs().sum() == 0
    assert gradient[1].abs().sum() > 0
    assert loss_of(LossSettings(), 1.0, spelled(frames=4)).ctc_left_out == 0


def test_an_end_without_a_fade_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"ctc_weight_end: 0\.1 is never reached"):
        LossSettings(ctc_weight=0.5, ctc_weight_end=0.1)


def test_equal_neighbours_need_a_frame_more_beyond_the_text_they_do_not() -> None:
    texts = torch.tensor([[3, 3, 3, EOS, PAD, PAD], [3, 4, EOS, EOS, EOS, PAD]])
    assert ctc_frames_needed(texts, torch.tensor([3, 2])).tolist() == [5, 2]


def test_the_loss_is_float32_whatever_the_model_speaks() -> None:
    found = loss_of(LossSettings(label_smoothing=0.1), 0.3, spelled(dtype=torch.bfloat16))
    assert {found.loss.dtype, found.ce.dtype, found.ctc.dtype} == {torch.float32}
    wide = loss_of(LossSettings(label_smoothing=0.1), 0.3, spelled(dtype=torch.float64))
    assert wide.loss.dtype == torch.float64


def test_the_ctc_weight_fades_evenly_between_two_epochs() -> None:
    settings = LossSettings(ctc_weight=0.5, ctc_fade=(3, 7), ctc_weight_end=0.1)
    weights = [settings.ctc_weight_in(epoch) for epoch in (1, 3, 4, 5, 6, 7, 20)]
    assert weights == pytest.approx([0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    assert LossSettings(ctc_weight=0.5).ctc_weight_in(99) == 0.5


def test_a_fade_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ValidationError, match="before the second"):
        LossSettings(ctc_weight=0.5, ctc_fade=(7, 3))


def test_ctc_without_a_head_is_refused() -> None:
    found = spelled()
    found.ctc_logits = None
    with pytest.raises(ValueError, match="no CTC head"):
        loss_of(LossSettings(), 0.3, found)
    assert loss_of(LossSettings(), 0.0, found).ctc == 0
