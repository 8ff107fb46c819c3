"""A recipe looked over before it is run: its model's parts, and what an epoch will take."""

from dataclasses import dataclass

import torch
from torch import nn

from spelldown.data.batching import Batches
from spelldown.data.frontend import FRAMES_PER_SECOND, Frontend
from spelldown.data.vocabulary import COURSE
from spelldown.errors import DataError
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.estimate import Estimate, estimate
from spelldown.recipe.parts import build_parts, build_recognizer
from spelldown.recipe.recipe import Recipe

SECONDS = 10  # of speech, by which shapes are shown
LETTERS = 150  # said in that time


@dataclass(frozen=True)
class PartRow:
    """One part: its place in the recipe, its kind, what it gives for 10 s of speech, its weights.

    `output` reads `time x width`.
    """

    name: str
    kind: str
    output: str
    parameters: int


@dataclass(frozen=True)
class Overview:
    """A recipe's model, part by part. `missing` says why the corpus was not read, if it was not."""

    recipe: Recipe
    parts: list[PartRow]
    missing: str | None
    recognizer: Recognizer
    train: Batches | None

    def estimate(self) -> Estimate:
        """Time and memory, measured now; the recognizer is trained by it."""
        return estimate(self.recipe, self.recognizer, self.train)


def overview(recipe: Recipe, read_corpus: bool = True) -> Overview:
    """Builds a recipe's recognizer and, unless told not to, reads its corpus.

    Without the corpus a vocabulary that is counted in it is taken to be as large as the course's.
    """
    missing: str | None = "it was not asked for"
    train = None
    recognizer = None
    if read_corpus:
        try:
            parts = build_parts(recipe, caching=False)
            recognizer, train, missing = parts.recognizer, parts.train, None
        except DataError as error:
            missing = str(error)
    if recognizer is None:
        recognizer = build_recognizer(recipe, len(COURSE))
    rows = outline(recognizer, Frontend(recipe.frontend).output_width)
    return Overview(recipe, rows, missing, recognizer, train)


def outline(recognizer: Recognizer, input_width: int) -> list[PartRow]:
    """The parts in the order in which speech passes through them; no weight is counted twice."""
    rows = [PartRow("frames", "frontend", f"{SECONDS * FRAMES_PER_SECOND} x {input_width}", 0)]
    length = torch.tensor([SECONDS * FRAMES_PER_SECOND])
    for place, block in enumerate(recognizer.listener.blocks):
        length = block.output_lengths(length)  # type: ignore[operator]
        output = f"{int(length)} x {block.output_width}"
        kind = type(block).__name__.lower()
        rows.append(PartRow(f"listener.blocks.{place}", kind, output, _count(block)))
    return rows + _speller_rows(recognizer, int(length))


def _speller_rows(recognizer: Recognizer, heard: int) -> list[PartRow]:
    speller, vocabulary = recognizer.speller, recognizer.vocabulary
    settings, attention = speller.settings, speller.attention.settings
    heads = f", {attention.heads} heads" if attention.heads > 1 else ""
    layers = f"{settings.distribution_layers} tanh" + (", tied" if settings.tied else "")
    rows = [
        PartRow(
            "attention",
            attention.kind + heads,
            f"{LETTERS} x {attention.context_width} of {heard}",
            _count(speller.attention),
        ),
        PartRow(
            "speller.embedding",
            "table",
            f"{LETTERS} x {settings.embedding}",
            _count(speller.embedding),
        ),
        PartRow(
            "speller.cells",
            f"{settings.layers} LSTM",
            f"{LETTERS} x {settings.width}",
            _count(speller.cells),
        ),
        PartRow(
            "speller.distribution",
            layers,
            f"{LETTERS} x {vocabulary}",
            _count(speller.distribution),
        ),
    ]
    if recognizer.ctc is not None:
        rows.append(PartRow("ctc", "linear", f"{heard} x {vocabulary}", _count(recognizer.ctc)))
    return rows


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
