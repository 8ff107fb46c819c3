"""How well a character model foretells sentences that it is not trained on."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spelldown.data.loading.texts import TextBatches
from spelldown.data.vocabulary import PAD
from spelldown.model.precision import Precision, autocast
from spelldown.model.spelling.character_model import CharacterModel, probabilities
from spelldown.training.language.reader import Reader


@dataclass(frozen=True)
class Foretold:
    """What a validation found: the mean negative log-probability of a symbol, `<eos>` included.

    In nats, with `<pad>` and `<sos>` ruled out as they are in a search.
    """

    loss: float
    symbols: int
    seconds: float

    @property
    def perplexity(self) -> float:
        """Among how many equally likely symbols the model hesitates: e to the loss."""
        return math.exp(min(self.loss, 700.0))  # beyond, a float has no room

    def by(self, measure: str) -> float:
        """The loss, whatever the measure: nothing is spelled."""
        return self.loss


class TextValidation:
    """Reads sentences and adds up how likely each was, the same ones in the same order always."""

    def __init__(self, batches: TextBatches, precision: Precision) -> None:
        self.batches, self.precision = batches, precision

    def run(self, reader: Reader, stop: Callable[[], bool] = lambda: False) -> Foretold | None:
        """Validates the model, which is left in training mode; None if `stop()` came true."""
        began = time.monotonic()
        device = next(reader.parameters()).device
        total = torch.zeros((), dtype=torch.float64, device=device)
        reader.eval()
        try:
            with torch.inference_mode():
                for batch in self.batches.epoch(1):
                    if stop():
                        return None
                    assert batch.symbols is not None
                    with autocast(device, self.precision):
                        total += text_loss(reader.model, batch.symbols.to(device))
        finally:
            reader.train()
        count = self.batches.symbols
        return Foretold(float(total) / count, count, time.monotonic() - began)


def text_loss(model: CharacterModel, symbols: Tensor) -> Tensor:
    """Negative log-probability in nats of all that follows <sos> in texts (B, L), float64."""
    log_probs, targets = probabilities(model(symbols)), symbols[:, 1:]
    each = log_probs.gather(2, targets[:, :, None])[:, :, 0]
    return -each.double().masked_fill(targets == PAD, 0.0).sum()
