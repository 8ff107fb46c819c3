"""Spellers that are small enough to know what search must find over them."""

import math
from dataclasses import dataclass, field, replace

import torch
from pydantic import TypeAdapter
from torch import Tensor

from spelldown.data.vocabulary import EOS, PAD, SOS
from spelldown.model.listening.blocks import BiLSTMSettings, ConvSettings, PyramidSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.recognizer import CTCSettings, Recognizer
from spelldown.model.spelling.attention import AttentionSettings
from spelldown.model.spelling.speller import SpellerSettings

VOCABULARY = 7


@dataclass
class Words:
    """What a toy listener remembers: for each utterance the symbols it holds, padded."""

    symbols: Tensor  # (B, T')
    lengths: Tensor  # (B,)

    def __len__(self) -> int:
        return len(self.lengths)


def words(*utterances: list[int]) -> Words:
    rows = [torch.tensor(utterance) for utterance in utterances]
    lengths = torch.tensor([len(row) for row in rows])
    return Words(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)


@dataclass
class At:
    """How far the toy is; every row carries its own utterance."""

    memory: Words
    step: Tensor  # (B,)
    weights: Tensor  # (B, 1, T')

    def select(self, rows: Tensor) -> "At":
        memory = Words(self.memory.symbols[rows], self.memory.lengths[rows])
        return At(memory, self.step[rows], self.weights[rows])


@dataclass
class Reader:
    """Spells the symbols it finds, attending to one a step, then `<eos>` unless `endless`.

    Log probability of the symbol spelled: -0.5; of `<pad>` and `<sos>`: -0.1, more than any other.
    """

    endless: bool = False
    rows: list[int] = field(default_factory=list)  # rows of every step
    fed: list[list[int]] = field(default_factory=list)

    def start(self, memory: Words) -> At:
        step = torch.zeros(len(memory), dtype=torch.int64)
        return At(memory, step, torch.zeros(len(memory), 1, memory.symbols.shape[1]))

    def step(self, symbols: Tensor, state: At) -> tuple[Tensor, At]:
        self.rows.append(len(symbols))
        self.fed.append(symbols.tolist())
        last = state.memory.lengths - 1
        at = state.step.clamp(max=last)
        chosen = state.memory.symbols.gather(1, at[:, None]).squeeze(1)
        if not self.endless:
            chosen = torch.where(state.step > last, EOS, chosen)
        log_probs = torch.full((len(symbols), VOCABULARY), -9.0)
        log_probs[:, [PAD, SOS]] = -0.1
        log_probs[torch.arange(len(symbols)), chosen] = -0.5
        weights = torch.nn.functional.one_hot(at, state.memory.symbols.shape[1]).float()
        return log_probs, At(state.memory, state.step + 1, weights[:, None])


class Listening(torch.nn.Module):
    """A small recurrent speller with masked attention over float memories, of random weights."""

    @dataclass
    class Heard:
        frames: Tensor  # (B, T', D)
        lengths: Tensor

    @dataclass
    class State:
        memory: "Listening.Heard"
        hidden: Tensor
        weights: Tensor

        def select(self, rows: Tensor) -> "Listening.State":
            memory = Listening.Heard(self.memory.frames[rows], self.memory.lengths[rows])
            return Listening.State(memory, self.hidden[rows], self.weights[rows])

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, width)
        self.cell = torch.nn.GRUCell(2 * width, width)
        self.out = torch.nn.Linear(2 * width, VOCABULARY)
        torch.nn.init.normal_(self.out.weight, std=2.0)

    def start(self, memory: "Listening.Heard") -> "Listening.State":
        batch, frames, width = memory.frames.shape
        return self.State(memory, torch.zeros(batch, width), torch.zeros(batch, 1, frames))

    def step(self, symbols: Tensor, state: "Listening.State") -> tuple[Tensor, "Listening.State"]:
        frames, lengths = state.memory.frames, state.memory.lengths
        real = torch.arange(frames.shape[1]) < lengths[:, None]
        energies = (frames @ state.hidden[..., None]).squeeze(-1)
        weights = energies.masked_fill(~real, -math.inf).softmax(-1)
        context = (weights[:, None] @ frames).squeeze(1)
        hidden = self.cell(torch.cat([self.embedding(symbols), context], -1), state.hidden)
        log_probs = self.out(torch.cat([hidden, context], -1)).log_softmax(-1)
        return log_probs, replace(state, hidden=hidden, weights=weights[:, None])


def recognizer(attention: dict[str, object], ctc: bool = False) -> Recognizer:
    """A small recognizer of random weights that spells with some decision."""
    torch.manual_seed(3)
    blocks = (
        ConvSettings(widths=(12,), stride=2, norm="batch"),
        BiLSTMSettings(width=8),
        PyramidSettings(width=8),
    )
    made = Recognizer(
        ListenerSettings(blocks=blocks),
        TypeAdapter(AttentionSettings).validate_python({"width": 8, "heads": 2, **attention}),
        SpellerSettings(embedding=8, width=16, layers=2, tied=False, dropout=0.2),
        CTCSettings() if ctc else None,
        input_width=5,
        vocabulary=VOCABULARY,
    )
    made.eval()
    for parameter in made.speller.parameters():
        parameter.data *= 5
    # No symbol is likelier than others for all utterances: what is spelled then hangs on them.
    frames, symbols = torch.randn(16, 60, 5), torch.randint(EOS + 1, VOCABULARY, (16, 30))
    logits = made(frames, torch.full((16,), 60), symbols).logits.detach()
    projection = made.speller.distribution.projection
    assert projection is not None
    projection.bias.data -= logits.mean((0, 1))
    return made
