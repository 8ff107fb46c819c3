"""How many steps an utterance is given, from its own length alone, whatever it is batched with."""

import torch
from pydantic import Field
from torch import Tensor

from spelldown.settings import Settings


class LimitSettings(Settings):
    """What every kind of search stops at."""

    # A kind's weights are its own: `length_power` has one name in two kinds, and another use.
    carried = frozenset({"longest", "longest_per_second"})

    longest: int = Field(600, ge=1)
    """Most steps an utterance is given; the step that ends it counts as one. As in the seed.
    `transcribe` cuts recordings itself and goes by `longest_per_second` alone where that is set."""
    longest_per_second: float | None = Field(None, gt=0)
    """Most steps for each second of speech, none if null (the seed). English is read at 15 letters
    a second and hardly ever over 25, so 40 hurts nothing and stops a recognizer that has not
    aligned yet from spelling 600 letters into one second."""


def step_limits(
    lengths: Tensor, settings: LimitSettings, seconds_per_frame: float | None
) -> Tensor:
    """The most steps each utterance is given, (B,) int64, at least 1.

    lengths (B,) in listener frames, each of which stands for `seconds_per_frame` of speech; needed
    only with `longest_per_second`, and a ValueError without it.
    """
    if settings.longest_per_second is None:
        return torch.full_like(lengths, settings.longest, dtype=torch.int64)
    per_frame = settings.longest_per_second * frame_seconds("longest_per_second", seconds_per_frame)
    return (lengths.double() * per_frame).ceil().long().clamp(min=1, max=settings.longest)


def frame_seconds(key: str, seconds_per_frame: float | None) -> float:
    """`seconds_per_frame`, which the setting `key` cannot do without: ValueError if it is None."""
    if seconds_per_frame is None:
        raise ValueError(
            f"search.{key} needs seconds_per_frame: the seconds of speech that one "
            "of the listener's frames stands for (its reduction x 0.01)"
        )
    return seconds_per_frame
