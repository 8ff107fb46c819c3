"""The speller: writes the sentence symbol by symbol, looking where attention points.

One step (Chan et al. 2016, section 3.2, with the seed's character distribution network):

    s_i = LSTM(s_{i-1}, [embedding(y_{i-1}), c_{i-1}])      a stack of cells
    c_i = attention(s_i, listener's output)
    P(y_i) = softmax(W cdn([s_i, c_i]))                     W may be the embedding itself

A whole reference at once goes through `unrolled`, which gives the same values and gradients as
these steps in a fraction of the time; nothing is kept on the module between calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from spelldown.model.dropout import drop
from spelldown.model.spelling.attention import Attention, AttentionSettings
from spelldown.model.spelling.cell import Cell, FirstCell, gated, tanh
from spelldown.model.spelling.kernels import Kernel
from spelldown.model.spelling.sharing import Projected
from spelldown.model.spelling.unrolled import Loop, unroll
from spelldown.settings import Settings

PAD = 0  # what follows <eos> in a batch


class SpellerSettings(Settings):
    """The speller's sizes and what regularises it."""

    embedding: int = Field(256, ge=1, description="width of a symbol's embedding")
    width: int = Field(512, ge=1, description="width of each LSTM cell")
    layers: int = Field(1, ge=1, description="LSTM cells, one above the other")
    distribution_layers: int = Field(
        1, ge=0, description="tanh layers of the character distribution network"
    )
    tied: bool = Field(True, description="the output projection is the embedding itself")
    dropout: float = Field(0.0, ge=0, lt=1, description="of each cell's output")
    distribution_dropout: float | None = Field(
        None, ge=0, lt=1, description="of each tanh layer's output; as `dropout` if null"
    )
    locked: bool = Field(True, description="cells drop the same units at every step")
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="share of symbols left blank")
    initial: Literal["uniform", "scaled"] = Field(
        "uniform", description="cell weights from (-0.1, 0.1), or scaled by width"
    )


@dataclass(frozen=True)
class Feedback:
    """What the speller is fed while it trains: the reference's symbols, or its own.

    rate: the chance of the true symbol (teacher forcing; 1 = always). coins: one for each
    `utterance` and step, or one a step for the whole `batch` (the seed). draw: the speller's own
    symbol is the likeliest (`argmax`), drawn from its distribution (`sample`, Bengio et al. 2015),
    or a differentiable mixture (`gumbel`, Jang et al. 2017), at this temperature.
    """

    rate: float = 1.0
    coins: Literal["utterance", "batch"] = "utterance"
    draw: Literal["argmax", "sample", "gumbel"] = "argmax"
    temperature: float = 1.0


@dataclass(frozen=True)
class SpellerState:
    """All that one step hands to the next.

    hidden and cell (layers, B, D), context (B, C), weights and past (B, H, T): where attention
    looked in the last step, and what it is told of all steps before. kernel: the listener's output
    as attention uses it, the same at every step. speller: whose state it is. first: its first cell,
    once many steps are to follow.
    """

    kernel: Kernel
    hidden: Tensor
    cell: Tensor
    context: Tensor
    weights: Tensor
    past: Tensor
    speller: Speller
    first: FirstCell | None = None

    def select(self, rows: Tensor) -> SpellerState:
        """The state of hypotheses `rows` (N,), which may repeat, be reordered or be left out."""
        return replace(
            self,
            kernel=self.kernel.select(rows),
            hidden=self.hidden.index_select(1, rows),
            cell=self.cell.index_select(1, rows),
            context=self.context.index_select(0, rows),
            weights=self.weights.index_select(0, rows),
            past=self.past.index_select(0, rows),
        )

    def share(self, most: int) -> SpellerState:
        """The same, where up to `most` hypotheses of an utterance will share what was heard.

        From then on `select` copies none of it; hypotheses of one utterance stay side by side.
        Weights are laid out here for the steps that follow: they carry no gradients, and the state
        is worth nothing once weights have changed.
        """
        return replace(self, kernel=self.kernel.share(most), first=self.speller.first_cell())

    def forget(self, kept: Tensor) -> SpellerState:
        """The same hypotheses, all of utterances `kept` (U,), rising: the others are forgotten."""
        return replace(self, kernel=self.kernel.forget(kept))


class CharacterDistribution(nn.Module):
    """From state and context to logits: tanh layers, then a projection that may be tied.

    The last tanh layer is as wide as the embedding when the projection is tied to it. With no
    tanh layer a plain linear map takes its place.
    """

    def __init__(self, settings: SpellerSettings, context_width: int, vocabulary: int) -> None:
        super().__init__()
        widths = [settings.width + context_width]
        widths += [settings.width] * max(settings.distribution_layers - 1, 0)
        if settings.distribution_layers or settings.tied:
            widths.append(settings.embedding)
        self.layers = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
        self.tanh = settings.distribution_layers > 0
        own = settings.distribution_dropout
        self.dropout = settings.dropout if own is None else own
        self.projection = None if settings.tied else nn.Linear(widths[-1], vocabulary)
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if settings.tied else None

    def forward(self, features: Tensor, embedding: Tensor, dropout: bool) -> Tensor:
        """Logits (..., V) from state and context joined (..., D + C)."""
        for layer in self.layers:
            features = layer(features)
            if self.tanh:
                features = drop(tanh(features), self.dropout, dropout)
        if self.projection is not None:
            return self.projection(features)  # type: ignore[no-any-return]
        return functional.linear(features, embedding, self.bias)


class Speller(nn.Module):
    """Cells, attention and character distribution."""

    def __init__(
        self,
        settings: SpellerSettings,
        attention: AttentionSettings,
        listener_width: int,
        vocabulary: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.embedding = nn.Embedding(vocabulary, settings.embedding)
        nn.init.normal_(self.embedding.weight, std=settings.embedding**-0.5)
        self.attention = Attention(attention, listener_width, settings.width)
        context = self.attention.context_width
        first = [settings.embedding + context]
        inputs = first + [settings.width] * (settings.layers - 1)
        self.cells = nn.ModuleList(Cell(i, settings.width, settings.initial) for i in inputs)
        self.distribution = CharacterDistribution(settings, context, vocabulary)

    def start(self, frames: Tensor, lengths: Tensor) -> SpellerState:
        """The state before the first symbol, for listener frames (B, T, D)."""
        return self._start(self.attention.project(frames, lengths))

    def _start(self, projected: Projected) -> SpellerState:
        batch, heads, frames, _ = projected.keys.shape
        like = self._cells()[0].bias
        state = like.new_zeros(len(self.cells), batch, self.settings.width)
        context = like.new_zeros(batch, self.attention.context_width)
        weights = like.new_zeros(batch, heads, frames)
        kernel = self.attention.kernel(projected)
        return SpellerState(kernel, state, state, context, weights, weights, self)

    @torch.no_grad()
    def first_cell(self) -> FirstCell:
        """The first cell as a search of many steps asks it."""
        return FirstCell.of(self._table(), self._cells()[0].weight[:, self.settings.embedding :])

    def step(self, symbols: Tensor, state: SpellerState) -> tuple[Tensor, SpellerState]:
        """Log-probabilities (B, V) of the next symbol after `symbols` (B,), and the new state."""
        if state.first is None:
            top, state = self._advance(self.embedding(symbols), state, None)
        else:
            gates = state.first(symbols, state.context, state.hidden[0])
            below = gated(gates, state.cell[0])
            top, state = self._ascend([below], state, None)
        features = torch.cat([top, state.context.to(top.dtype)], 1)
        logits = self.distribution(features, self.embedding.weight, dropout=False)
        return logits.to(state.cell.dtype).log_softmax(1), state

    def _advance(
        self, embedded: Tensor, state: SpellerState, masks: Tensor | None
    ) -> tuple[Tensor, SpellerState]:
        """One step of cells and attention: the top cell's output (B, D) and the new state.

        `masks` (layers, B, D) are this step's dropout, already scaled.
        """
        inputs = torch.cat([embedded, state.context.to(embedded.dtype)], 1)
        first = self.cells[0](inputs, state.hidden[0], state.cell[0])
        return self._ascend([first], state, masks)

    def _ascend(
        self, done: list[tuple[Tensor, Tensor]], state: SpellerState, masks: Tensor | None
    ) -> tuple[Tensor, SpellerState]:
        """The rest of a step, after the first cell: `done` has its (hidden, cell)."""
        inputs = done[0][0] if masks is None else done[0][0] * masks[0]
        for layer, cell in enumerate(self._cells()[1:], 1):
            done.append(cell(inputs, state.hidden[layer], state.cell[layer]))
            inputs = done[-1][0] if masks is None else done[-1][0] * masks[layer]
        hidden, cells = (torch.stack(each) for each in zip(*done, strict=True))
        query = self.attention.query(inputs)
        context, weights = state.kernel.attend(query, state.past)
        past = state.past + weights if self.attention.past == "all" else weights
        return inputs, replace(
            state, hidden=hidden, cell=cells, context=context, weights=weights, past=past
        )

    def forward(
        self, frames: Tensor, lengths: Tensor, symbols: Tensor, feedback: Feedback
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Spell along a whole reference.

        frames (B, T, D) with lengths (B,), symbols (B, L) from <sos> on, <pad> after <eos>.
        Gives logits (B, L-1, V), the i-th for symbols[:, i+1], zero where a sentence has ended;
        attention weights (B, H, L-1, T), without gradient; and the symbols that were fed
        (B, L-1). What weights and fed symbols hold where a sentence has ended means nothing.
        """
        steps = (symbols[:, 1:] != PAD).sum(1)
        order = steps.argsort(descending=True, stable=True)  # so that ended ones come last
        projected = self.attention.project(frames, lengths).select(order)
        loop = self.loop(symbols[order, :-1], steps[order], feedback)
        soft = feedback.draw == "gumbel" and feedback.rate < 1
        logits, weights, fed = (
            self.stepwise(projected, loop) if soft else self.fast(projected, loop)
        )
        back = order.argsort()
        return logits[:, back].transpose(0, 1), weights[:, back].permute(1, 2, 0, 3), fed.t()[back]

    def fast(self, projected: Projected, loop: Loop) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (L, B, V), weights (L, B, H, T) and fed symbols (L, B), as one function."""
        cells = [(cell.weight, cell.bias) for cell in self._cells()]
        states, contexts, weights, fed = unroll(
            loop, self.attention, projected, self._table(), cells
        )
        return self._distribute(torch.cat([states, contexts], 1), loop), weights, fed

    def _distribute(self, features: Tensor, loop: Loop) -> Tensor:
        """Logits (L, B, V) of the features (N, D + C) of every symbol spelled, zero elsewhere."""
        rows = self.distribution(features, self.embedding.weight, self.training)
        return loop.spelled.frames(rows)

    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def _table(self) -> Tensor:
        """What each symbol adds to the first cell's gates (V, 4 D): embedding times weights.

        The vocabulary is shorter than a batch of sentences, so one small product serves all
        steps. With embedding dropout whole symbols go blank (Gal and Ghahramani 2016).
        """
        embedding, first = self._dropped_embedding(), self._cells()[0]
        columns = first.weight[:, : self.settings.embedding]
        with torch.autocast(embedding.device.type, enabled=False):  # small: keep it exact
            return functional.linear(embedding, columns, first.bias)

    def _dropped_embedding(self) -> Tensor:
        rate = self.settings.embedding_dropout
        weight = self.embedding.weight
        if not self.training or rate == 0:
            return weight
        kept = torch.rand(len(weight), 1, device=weight.device) >= rate
        return weight * kept / (1 - rate)

    def loop(self, symbols: Tensor, counts: Tensor, feedback: Feedback) -> Loop:
        """One pass over the reference (B, L), all that is drawn by chance settled.

        counts (B,): how many symbols of each sentence are spelled; longest first.
        """
        batch, steps = symbols.shape
        device = symbols.device
        weight = self.embedding.weight
        forced = torch.ones(steps, batch, dtype=torch.bool, device=device)
        noise = None
        if feedback.rate < 1:
            tossed = batch if feedback.coins == "utterance" else 1
            forced = (torch.rand(steps, tossed, device=device) < feedback.rate).expand(-1, batch)
            forced = forced.clone()
            forced[0] = True  # there is nothing of its own to feed before the first step
            if feedback.draw != "argmax":
                uniform = torch.rand(steps, batch, len(weight), device=device)
                noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        masks = None
        if self.training and self.settings.dropout > 0:
            spans = 1 if self.settings.locked else steps
            shape = (spans, len(self.cells), batch, self.settings.width)
            keep = 1 - self.settings.dropout
            masks = weight.new_empty(shape).bernoulli_(keep).div_(keep).expand(steps, -1, -1, -1)
        soft = feedback.draw == "gumbel"
        active = (counts[:, None] > torch.arange(steps, device=device)).sum(0).tolist()
        return Loop(
            symbols.t(), active, forced, noise, feedback.temperature, masks, self._logits, soft
        )

    def _logits(self, top: Tensor, context: Tensor) -> Tensor:
        """Logits (B, V) from which a symbol is drawn: without dropout, the speller's best."""
        features = torch.cat([top, context.to(top.dtype)], 1)
        logits: Tensor = self.distribution(features, self.embedding.weight, dropout=False)
        return logits

    def stepwise(self, projected: Projected, loop: Loop) -> tuple[Tensor, Tensor, Tensor]:
        """The same as `forward`, one step at a time under autograd.

        The path of differentiable feedback, and the yardstick that the fast path is tested by.
        """
        embedding = self._dropped_embedding()
        state = self._start(projected)
        outputs: list[Tensor] = []
        weights: list[Tensor] = []
        fed: list[Tensor] = []
        drawn, own = loop.symbols[0], embedding[loop.symbols[0]]
        always = loop.forced.all(1).tolist()  # one transfer, not one a step
        for i, forced in enumerate(loop.forced):
            truth = embedding[loop.symbols[i]]
            embedded = torch.where(forced[:, None], truth, own.to(truth.dtype))
            fed.append(torch.where(forced, loop.symbols[i], drawn))
            masks = None if loop.masks is None else loop.masks[i]
            top, state = self._advance(embedded, state, masks)
            outputs.append(torch.cat([top, state.context.to(top.dtype)], 1))
            weights.append(state.weights.detach())
            if i + 1 < len(always) and not always[i + 1]:
                soft, drawn = loop.draw(i + 1, self._logits(top, state.context))
                own = soft.to(embedding.dtype) @ embedding if loop.soft else embedding[drawn]
        logits = self._distribute(loop.spelled.rows(torch.stack(outputs)), loop)
        return logits, torch.stack(weights), torch.stack(fed)
