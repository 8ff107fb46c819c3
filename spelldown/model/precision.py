"""In which precision the matrix products run.

Weights, losses, attention, softmax and cell states stay in float32; only products (and what feeds
them) are rounded to bfloat16 where the processor multiplies it faster.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision that `auto` means on this device: bfloat16 where its products are native."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if _processor_multiplies_bfloat16() else "float32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which the model's products run in the given precision."""
    resolved = resolve_precision(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=resolved == "bfloat16")


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which products with `tensor` run here: autocast's, or the tensor's own."""
    kind = tensor.device.type
    if tensor.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return tensor.dtype


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()


def lend(dtype: torch.dtype, users: int, *weights: Tensor) -> tuple[Tensor, ...]:
    """Weights rounded once for several users, whose gradients are summed in the weights' own types.

    Gives all of them for the first user, then all for the second, and so on. They lie one behind
    the other, as cuDNN wants an LSTM's: else it lays them out anew at every call.
    """
    lent: tuple[Tensor, ...] = _Lent.apply(dtype, users, *weights)
    return lent


class _Lent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, users: int, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.types = [weight.dtype for weight in weights]
        sizes = [weight.numel() for weight in weights]
        block = weights[0].new_empty(sum(sizes), dtype=dtype)
        rounded = [
            room.view_as(weight).copy_(weight)
            for room, weight in zip(block.split(sizes), weights, strict=True)
        ]
        return tuple(each.view_as(each) for _ in range(users) for each in rounded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        totals: list[Tensor | None] = []
        for place, dtype in enumerate(ctx.types):
            first, *others = gradients[place :: len(ctx.types)]
            total = first.to(dtype, copy=True)
            for gradient in others:
                total += gradient
            totals.append(total)
        return (None, None, *totals)


def multiplies_tiles() -> bool:
    """Whether the CPU has AMX: up to 16 rows of bfloat16 are multiplied in the time of one."""
    return "amx_bf16" in _processor_flags()


def _processor_multiplies_bfloat16() -> bool:
    """Whether the CPU names AVX512-BF16, AMX or Arm's bf16 among its flags."""
    flags = _processor_flags()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16 "))


@cache
def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""  # not Linux: float32 is right everywhere
