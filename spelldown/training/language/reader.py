"""A character model in the place where the trainer expects a recognizer."""

from dataclasses import dataclass

from torch import Tensor, nn

from spelldown.model.precision import exact
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.model.spelling.speller import Feedback


@dataclass(frozen=True)
class ReadLogits:
    """Logits (B, L-1, V) of texts (B, L): the i-th for symbols[:, i+1]."""

    logits: Tensor
    ctc_logits: None = None


class Reader(nn.Module):
    """Reads texts as a recognizer spells along a reference, whatever the frames are.

    There are as many frames as symbols (`data.loading.texts`), and no feedback but the truth.
    """

    def __init__(self, model: CharacterModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: Tensor, lengths: Tensor, symbols: Tensor, feedback: Feedback | None = None
    ) -> ReadLogits:
        """Logits along the symbols (B, L), float32 at least."""
        logits: Tensor = self.model(symbols)
        return ReadLogits(exact(logits))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """The lengths as they are: nothing shortens them."""
        return lengths
