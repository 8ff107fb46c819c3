"""What training makes small: cross entropy of the spelling, and CTC on the listener beside it.

    loss = (1 - w) * cross entropy + w * CTC

w may fade over the epochs (Kim, Hori and Watanabe, "Joint CTC-attention based end-to-end speech
recognition using multi-task learning", ICASSP 2017, keep it constant). Both are sums of negative
log probabilities over the batch; with `reduction: mean` both are divided by the same number, the
symbols spelled (`<eos>` counts, `<sos>` and `<pad>` do not), so that they stay on one scale and the
mean is exactly the sum divided by the symbols. Everything here is float32 or wider.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
import torch.nn.functional as functional
from pydantic import Field, model_validator
from torch import Tensor

from spelldown.data.checks import ctc_frames_needed
from spelldown.data.vocabulary import PAD
from spelldown.settings import Settings


class LossSettings(Settings):
    """How far off a spelling is."""

    reduction: Literal["mean", "sum"] = "mean"
    """`mean` over the symbols of an update, or their `sum` (the seed's rows 1 to 4). A sum grows
    with the batch, so the gradient is nearly always clipped."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target spread evenly over all symbols; 0.1 is usual, 0 the seed."""
    ctc_weight: float = Field(0.0, ge=0, le=1)
    """CTC's share of the loss; 0.2 to 0.5 helps attention to align. Needs a `ctc` head."""
    ctc_fade: tuple[int, int] | None = None
    """[a, b]: the share moves evenly from `ctc_weight` in epoch a to `ctc_weight_end` in epoch b;
    null keeps it."""
    ctc_weight_end: float = Field(0.0, ge=0, le=1)
    """CTC's share from the fade's last epoch on."""

    @model_validator(mode="after")
    def _fade_goes_forward(self) -> Self:
        if self.ctc_fade is not None and not 1 <= self.ctc_fade[0] < self.ctc_fade[1]:
            raise ValueError(
                f"ctc_fade: {list(self.ctc_fade)} must be two epochs, the first at least 1 and "
                "before the second"
            )
        return self

    @model_validator(mode="after")
    def _end_is_reached(self) -> Self:
        if self.ctc_fade is None and self.ctc_weight_end > 0:
            raise ValueError(
                f"ctc_weight_end: {self.ctc_weight_end:g} is never reached without a fade; set "
                "ctc_fade to its first and last epoch, or ctc_weight alone"
            )
        return self

    @property
    def uses_ctc(self) -> bool:
        """Whether CTC has a share in any epoch, so that the recognizer needs its head."""
        return self.ctc_weight > 0 or (self.ctc_fade is not None and self.ctc_weight_end > 0)

    def ctc_weight_in(self, epoch: int) -> float:
        """CTC's share of the loss in an epoch; epochs count from 1."""
        if self.ctc_fade is None:
            return self.ctc_weight
        first, last = self.ctc_fade
        done = min(max((epoch - first) / (last - first), 0.0), 1.0)
        return self.ctc_weight + (self.ctc_weight_end - self.ctc_weight) * done


class SpelledLogits(Protocol):
    """What the loss needs of a forward pass; `spelldown.model.recognizer.Spelled` is one."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def ctc_logits(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Losses:
    """The loss of one batch, all scalars on the batch's device.

    loss:         with its gradient, in the unit of `reduction`
    ce, ctc:      plain sums over the batch, detached; ce without label smoothing, so that it
                  compares with other recipes and with validation; ctc is 0 where it has no share
    ctc_left_out: utterances whose text is too long for CTC to spell in the listener's frames;
                  their CTC loss is infinite and counts as 0
    """

    loss: Tensor
    ce: Tensor
    ctc: Tensor
    ctc_left_out: Tensor


def spelling_loss(
    spelled: SpelledLogits,
    symbols: Tensor,
    symbol_lengths: Tensor,
    memory_lengths: Tensor,
    settings: LossSettings,
    *,
    ctc_weight: float,
    symbols_in_update: int,
) -> Losses:
    """The loss of one batch.

    spelled:           logits (B, L-1, V), ctc_logits (B, T', V) or None
    symbols:           (B, L) int64 `<sos> y.. <eos> <pad>..`; logits[:, i] predict symbols[:, i+1]
    symbol_lengths:    (B,) counting `<sos>` and `<eos>`
    memory_lengths:    (B,) of the listener's frames. Both lengths are best left on the processor,
                       where CTC wants them: from a GPU they would have to be waited for
    ctc_weight:        CTC's share in this epoch (`LossSettings.ctc_weight_in`)
    symbols_in_update: what `mean` divides by: the symbols spelled by all batches of the update,
                       so that batches accumulated weigh exactly what they would in one large batch

    Raises ValueError if CTC has a share and the recognizer has no CTC head.
    """
    smoothed, ce = cross_entropy_sums(spelled.logits, symbols[:, 1:], settings.label_smoothing)
    ctc = left_out = torch.zeros_like(ce)
    total = smoothed
    if ctc_weight > 0:
        if spelled.ctc_logits is None:
            raise ValueError(
                f"loss.ctc_weight is {ctc_weight:g}, but the recognizer has no CTC head"
            )
        ctc, left_out = ctc_sum(spelled.ctc_logits, memory_lengths, symbols, symbol_lengths)
        total = (1 - ctc_weight) * smoothed + ctc_weight * ctc
    if settings.reduction == "mean":
        total = total / symbols_in_update
    return Losses(total, ce.detach(), ctc.detach(), left_out)


def cross_entropy_sums(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross entropy summed over the real symbols: with label smoothing, and without.

    logits (B, L, V), targets (B, L); `<pad>` targets do not count.
    """
    log_probs = torch.log_softmax(_wide(logits), dim=-1)
    real = targets != PAD
    plain = -log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).masked_fill(~real, 0).sum()
    if label_smoothing == 0:
        return plain, plain
    spread = -log_probs.mean(dim=-1).masked_fill(~real, 0).sum()
    return (1 - label_smoothing) * plain + label_smoothing * spread, plain


def ctc_sum(
    logits: Tensor, lengths: Tensor, symbols: Tensor, symbol_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """CTC loss summed over the batch, and how many utterances it cannot spell.

    logits (B, T', V) with the blank at `<pad>`; lengths (B,) of the real frames; symbols (B, L) as
    in a batch, of which CTC spells what stands between `<sos>` and `<eos>`. (Graves et al.,
    "Connectionist temporal classification", ICML 2006.)
    """
    log_probs = torch.log_softmax(_wide(logits), dim=-1).transpose(0, 1)
    texts, text_lengths = symbols[:, 1:], symbol_lengths - 2
    each = functional.ctc_loss(
        log_probs, texts, lengths, text_lengths, blank=PAD, reduction="none", zero_infinity=True
    )
    on_device = lengths.to(texts.device), text_lengths.to(texts.device)
    return each.sum(), (ctc_frames_needed(texts, on_device[1]) > on_device[0]).sum()


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
