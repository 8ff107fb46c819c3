"""One LSTM cell, and its gates quickly.

torch's tanh takes a processor six times as long as its sigmoid, of which it can be made. Near zero
that is exact to the last place of 1 and not of itself, so where gradients are asked for it is
torch's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.precision import exact, product_dtype
from spelldown.model.spelling.products import Product


class Cell(nn.Module):
    """One LSTM cell's weights, gates in the order input, forget, output, candidate.

    One matrix serves input and state together, and one bias (two would always be added).
    """

    def __init__(self, input_width: int, width: int, initial: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4 * width, input_width + width))
        self.bias = nn.Parameter(torch.zeros(4 * width))
        bound = 0.1 if initial == "uniform" else width**-0.5
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The next (hidden, cell), each (B, D), from inputs (B, I)."""
        gates = functional.linear(torch.cat([inputs, hidden.to(inputs.dtype)], 1), self.weight)
        return gated(gates.to(cell.dtype) + self.bias, cell)


@dataclass(frozen=True)
class FirstCell:
    """The first cell as a search of many steps asks it, without gradients.

    table (V, 4 D): what a symbol adds to its gates, bias included. product: of context and state
    (N, C + D) with its weights, laid out once.
    """

    table: Tensor
    product: Product
    dtype: torch.dtype

    @classmethod
    def of(cls, table: Tensor, weight: Tensor) -> FirstCell:
        """From the table, and the weights (4 D, C + D) of context and state."""
        dtype = product_dtype(weight)
        return cls(table, Product(weight.to(dtype)), dtype)

    def __call__(self, symbols: Tensor, context: Tensor, state: Tensor) -> Tensor:
        """Gates (N, 4 D) after symbols (N,), contexts (N, C), with states (N, D)."""
        gates = self.product(torch.cat([context, state], 1).to(self.dtype))
        return self.table.index_select(0, symbols).add_(gates)


def gated(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next (hidden, cell), each (B, D), from gates (B, 4 D), bias included, and the cell."""
    write, keep, show, candidate = gates.chunk(4, 1)
    cell = keep.sigmoid() * cell + write.sigmoid() * tanh(candidate)
    return show.sigmoid() * tanh(cell), cell


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, to 1e-7 where it has no gradient; in float32 at least there."""
    if x.device.type != "cpu" or x.requires_grad:
        return x.tanh()
    return (exact(x) * 2).sigmoid_().mul_(2).sub_(1)
