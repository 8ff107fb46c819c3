"""Dropout of single units."""

import torch
from torch import Tensor
from torch.nn import functional


def drop(units: Tensor, rate: float, training: bool) -> Tensor:
    """Units with a share `rate` of them zero and the others scaled up, while training.

    torch's own on a GPU. On the processor uniform numbers are drawn and compared: torch's Bernoulli
    numbers take three times as long to draw.
    """
    if not training or rate == 0:
        return units
    if units.device.type != "cpu":
        return functional.dropout(units, rate)
    kept = torch.rand(units.shape) >= rate
    return units * kept.to(units.dtype).div_(1 - rate)
