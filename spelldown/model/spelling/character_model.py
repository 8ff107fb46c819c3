"""A character model: which symbol comes next, from the symbols before it alone.

It is a speller without ears. Cells, embedding and character distribution are those of `speller`;
where the context would be, there is nothing, or something that says nothing about any sound:

| context | what stands in its place                     | used for                            |
|---------|----------------------------------------------|-------------------------------------|
| none    | no room for one                              | a language model of its own         |
| zero    | zeros                                        | pre-training; internal language     |
|         |                                              | model (Meng et al. 2021)            |
| random  | normal numbers, new at every symbol while    | pre-training                        |
|         | training; zeros when judged                  |                                     |
| mean    | the mean over training, but for the first    | internal language model             |
|         | input, which is zero as it always is         | (Zeineldeen et al. 2021)            |

Two forms with the same values: `forward` reads whole texts through the fused LSTM of torch, `step`
goes on by one symbol from a state, as the speller does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.precision import exact, lend, product_dtype
from spelldown.model.spelling.cell import Cell, gated
from spelldown.model.spelling.products import Product
from spelldown.model.spelling.speller import CharacterDistribution, Speller, SpellerSettings
from spelldown.model.spelling.unrolled import EOS

TORCHS_GATES = [0, 1, 3, 2]  # ours are input, forget, output, candidate; torch has output last

Context = Literal["none", "zero", "random", "mean"]


@dataclass(frozen=True)
class _Prepared:
    """What all steps from one `start` share.

    tables (V, 4 D): what a symbol adds to the first cell's gates, bias included: before the first
    step, and after it. products: of each cell's state, or of input and state, with its weights.
    """

    tables: tuple[Tensor, Tensor]
    products: tuple[Product, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class CharacterState:
    """Where each of N texts is: hidden and cell (layers, N, D)."""

    prepared: _Prepared
    hidden: Tensor
    cell: Tensor
    begun: bool = False

    def select(self, rows: Tensor) -> CharacterState:
        """The state of texts `rows` (M,), which may repeat, be reordered or be left out."""
        return replace(self, hidden=self.hidden[:, rows], cell=self.cell[:, rows])


class CharacterModel(nn.Module):
    """Embedding, cells and character distribution, with nothing to listen to.

    width: of the context that cells and distribution have room for, 0 for none. mean (C,): the
    context where `context` is mean. deviation: of random contexts. symbols: what ids stand for, for
    callers that must know; may be empty.
    """

    def __init__(
        self,
        settings: SpellerSettings,
        embedding: nn.Embedding,
        cells: nn.ModuleList,
        distribution: CharacterDistribution,
        *,
        context: Context = "none",
        width: int = 0,
        mean: Tensor | None = None,
        deviation: float = 1.0,
        symbols: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        if (context == "none") != (width == 0):
            raise ValueError(f"context {context!r} does not go with a context of width {width}")
        if (context == "mean") != (mean is not None):
            raise ValueError("a mean context is for context='mean', which needs one")
        if mean is not None and mean.shape != (width,):
            raise ValueError(f"the mean context has shape {tuple(mean.shape)}, wanted ({width},)")
        self.settings, self.embedding = settings, embedding
        self.cells, self.distribution = cells, distribution
        self.context, self.width, self.deviation = context, width, deviation
        self.mean: Tensor | None
        self.register_buffer("mean", mean, persistent=False)
        self.symbols = symbols

    @classmethod
    def new(
        cls, settings: SpellerSettings, vocabulary: int, symbols: tuple[str, ...] = ()
    ) -> CharacterModel:
        """A model of its own, with first weights drawn as the speller's are."""
        embedding = nn.Embedding(vocabulary, settings.embedding)
        nn.init.normal_(embedding.weight, std=settings.embedding**-0.5)
        widths = [settings.embedding] + [settings.width] * (settings.layers - 1)
        cells = nn.ModuleList(Cell(i, settings.width, settings.initial) for i in widths)
        distribution = CharacterDistribution(settings, 0, vocabulary)
        return cls(settings, embedding, cells, distribution, symbols=symbols)

    @classmethod
    def of(
        cls,
        speller: Speller,
        context: Context,
        mean: Tensor | None = None,
        deviation: float = 1.0,
    ) -> CharacterModel:
        """A speller without its listener; the weights are the speller's own."""
        return cls(
            speller.settings,
            speller.embedding,
            speller.cells,
            speller.distribution,
            context=context,
            width=speller.attention.context_width,
            mean=mean,
            deviation=deviation,
        )

    # --- whole texts

    def forward(self, symbols: Tensor) -> Tensor:
        """Logits (B, L-1, V) for texts (B, L) from <sos> on: the i-th for symbols[:, i+1].

        Logits where a text has ended mean nothing. In the precision of products here.
        """
        fed = symbols[:, :-1].t()
        inputs = functional.embedding(fed, self._dropped_embedding())  # (L-1, B, E)
        contexts = self._contexts(*fed.shape)
        for layer, cell in enumerate(self._cells()):
            before = contexts if layer == 0 else None
            inputs = self._drop(self._over(cell, inputs, before))
        if self.width:
            spoken = inputs.new_zeros(*fed.shape, self.width) if contexts is None else contexts
            inputs = torch.cat([inputs, spoken.to(inputs.dtype)], 2)
        logits: Tensor = self.distribution(inputs, self.embedding.weight, self.training)
        return logits.transpose(0, 1)

    def _over(self, cell: Cell, inputs: Tensor, contexts: Tensor | None) -> Tensor:
        """A cell's outputs (L, B, D) for inputs (L, B, I) and, in the first, contexts (L, B, C)."""
        width, dtype = self.settings.width, product_dtype(inputs)
        if contexts is not None:  # a step is fed the context of the step before
            before = functional.pad(contexts[:-1], (0, 0, 0, 0, 1, 0))
            inputs = torch.cat([inputs, before.to(inputs.dtype)], 2)
        weight = cell.weight.unflatten(0, (4, width))[TORCHS_GATES].flatten(0, 1)
        bias = cell.bias.unflatten(0, (4, width))[TORCHS_GATES].flatten()
        parts = weight[:, : inputs.shape[2]], weight[:, -width:], bias, torch.zeros_like(bias)
        first = inputs.new_zeros(1, inputs.shape[1], width, dtype=dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            outputs, _, _ = torch.lstm(
                inputs.to(dtype), (first, first), lend(dtype, 1, *parts),
                True, 1, 0.0, self.training, False, False,
            )  # fmt: skip
        return outputs

    def _contexts(self, steps: int, texts: int) -> Tensor | None:
        """What stands where the contexts would be (L, B, C); None for zeros, or for no room."""
        if self.context == "mean" and self.mean is not None:
            return self.mean.expand(steps, texts, -1)
        if self.context == "random" and self.training:
            weight = self.embedding.weight
            drawn = torch.randn(steps, texts, self.width, device=weight.device, dtype=weight.dtype)
            return drawn * self.deviation
        return None

    def _drop(self, outputs: Tensor) -> Tensor:
        """A cell's outputs (L, B, D) with dropout, the same at every step if it is locked."""
        rate = self.settings.dropout
        if not self.training or rate == 0:
            return outputs
        steps = 1 if self.settings.locked else len(outputs)
        kept = outputs.new_empty(steps, *outputs.shape[1:], dtype=torch.float32)
        return outputs * kept.bernoulli_(1 - rate).div_(1 - rate).to(outputs.dtype)

    def _dropped_embedding(self) -> Tensor:
        """The embedding (V, E), some symbols blank while training, as the speller has it."""
        rate, weight = self.settings.embedding_dropout, self.embedding.weight
        if not self.training or rate == 0:
            return weight
        kept = torch.rand(len(weight), 1, device=weight.device) >= rate
        return weight * kept / (1 - rate)

    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    # --- step by step

    @torch.no_grad()
    def start(self, rows: int, device: torch.device | None = None) -> CharacterState:
        """The state of so many texts before <sos> is fed; the model moves to `device`, if told.

        Weights are laid out here for the steps that follow: a state is worth nothing once they have
        changed. Steps carry no gradients.
        """
        if device is not None and device != self.embedding.weight.device:
            self.to(device)
        like = self._cells()[0].bias
        state = like.new_zeros(len(self.cells), rows, self.settings.width)
        return CharacterState(self._prepare(), state, state)

    def _prepare(self) -> _Prepared:
        embedding, first, *above = self.embedding.weight, *self._cells()
        width, dtype = self.settings.width, product_dtype(first.weight)
        with torch.autocast(embedding.device.type, enabled=False):  # small: keep it exact
            table = functional.linear(
                embedding, first.weight[:, : self.settings.embedding], first.bias
            )
            later = table
            if self.mean is not None:
                later = table + first.weight[:, self.settings.embedding : -width] @ self.mean
        weights = [first.weight[:, -width:], *(cell.weight for cell in above)]
        products = tuple(Product(weight.to(dtype)) for weight in weights)
        return _Prepared((table, later), products, dtype)

    @torch.no_grad()
    def step(self, symbols: Tensor, state: CharacterState) -> tuple[Tensor, CharacterState]:
        """Log-probabilities (N, V), float32 at least, of what follows `symbols` (N,).

        <pad> and <sos> have -inf: nothing is followed by them. Also the state after the symbols.
        """
        prepared, real = state.prepared, state.cell.dtype
        hidden, cells = [], []
        outputs = state.hidden[0]  # its place is taken by the first cell's output
        for layer, (cell, product) in enumerate(zip(self._cells(), prepared.products, strict=True)):
            before = state.hidden[layer].to(prepared.dtype)
            if layer == 0:
                bias = prepared.tables[state.begun][symbols]
            else:
                before, bias = torch.cat([outputs.to(prepared.dtype), before], 1), cell.bias
            gates = product(before).to(real) + bias
            outputs, memory = gated(gates, state.cell[layer])
            hidden.append(outputs)
            cells.append(memory)
        if self.width:
            spoken = outputs.new_zeros(self.width) if self.mean is None else self.mean
            outputs = torch.cat([outputs, spoken.expand(len(outputs), -1).to(real)], 1)
        logits = self.distribution(outputs, self.embedding.weight, dropout=False)
        after = CharacterState(prepared, torch.stack(hidden), torch.stack(cells), begun=True)
        return probabilities(logits.to(real)), after


def probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities (..., V) of symbols that can follow: <pad> and <sos> have -inf."""
    never = torch.arange(logits.shape[-1], device=logits.device) < EOS
    return exact(logits).masked_fill(never, -torch.inf).log_softmax(-1)
