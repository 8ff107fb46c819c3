"""Many small products with one large weight, as a loop over symbols asks for.

A plain product of a few rows spends a third of its time or more laying the weight out for the
processor, at every step anew. oneDNN can be given a weight that was laid out once. torch reaches
that through operators that its own compiler uses and that carry no promise, so the first use tries
them; where they are missing (a GPU, float64, another build), the plain product does it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from spelldown.model.precision import multiplies_tiles

TILE = 16  # rows that AMX multiplies at once; by multiples of it there are kernels of few shapes


class Product:
    """x (N, I) -> x weight^T (N, O), for a weight (O, I) that does not change meanwhile."""

    def __init__(self, weight: Tensor) -> None:
        packable = weight.device.type == "cpu" and _packs(weight.dtype)
        self.packed = _pack(weight) if packable else None
        self.transposed = weight.t()
        self.multiple = TILE if weight.dtype == torch.bfloat16 and multiplies_tiles() else 1

    def __call__(self, rows: Tensor) -> Tensor:
        if self.packed is None:
            return torch.mm(rows, self.transposed)
        missing = -len(rows) % self.multiple
        if not missing:
            return _multiply(rows, self.packed)
        return _multiply(functional.pad(rows, (0, 0, 0, missing)), self.packed)[:-missing]


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return packed


def _multiply(rows: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this torch multiplies with packed weights of this type, and rightly."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    rows, weight = torch.eye(2, 8, dtype=dtype), torch.arange(32.0).view(4, 8).to(dtype)
    try:
        return torch.equal(_multiply(rows, _pack(weight)), rows @ weight.t())
    except (RuntimeError, AttributeError, TypeError):
        return False
