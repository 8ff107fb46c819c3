"""The LSTM language model: a character model of its own, and how it is kept in a folder.

    language_model.json   kind lstm, its sizes (`model`), its symbols, and what it was made from
    weights.safetensors   its weights

`spelldown.recipe.language` trains one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from spelldown.errors import LanguageModelError
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.model.spelling.speller import SpellerSettings

PAGE, WEIGHTS, KIND = "language_model.json", "weights.safetensors", "lstm"


class LSTMSettings(SpellerSettings):
    """The sizes of an LSTM language model, which is built like a speller that hears nothing."""

    embedding: int = Field(128, ge=1, description="width of a symbol's embedding")
    layers: int = Field(2, ge=1, description="LSTM cells, one above the other")
    distribution_layers: int = Field(
        0, ge=0, description="tanh layers between the top cell and the symbols"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="of each cell's output")


def build_lstm(settings: LSTMSettings, symbols: tuple[str, ...], seed: int) -> CharacterModel:
    """A language model with its first weights, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CharacterModel.new(settings, len(symbols), symbols)


def load_lstm(folder: Path) -> CharacterModel:
    """The LSTM language model in a folder, ready to be asked, on the processor.

    `start` takes it to another device. Raises LanguageModelError for a damaged one.
    """
    page = folder / PAGE
    try:
        found: dict[str, Any] = json.loads(page.read_text(encoding="utf-8"))
        settings = LSTMSettings.model_validate(found["model"])
        model = build_lstm(settings, tuple(found["symbols"]), seed=0)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise LanguageModelError(f"{page} is damaged or missing: {error}") from error
    file = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise LanguageModelError(
            f"{file}: these weights are damaged, missing or not of {PAGE} ({error}); make the "
            "language model again with spelldown train-lm"
        ) from error
    return model.eval()
