"""The speller pre-trained as a language model: it learns to write before it listens.

A run whose recipe has a `pretraining` section begins with a run within the run, in the folder
`pretraining`: the speller's embedding, cells and character distribution are trained by the same
trainer on sentences alone, and judged by the dev part's transcripts. The weights that were best
there are those that the whole begins with. Attention and listener stay as they were.

It goes on after a kill like any run, and once the whole has a checkpoint of its own it is never
looked at again.
"""

from collections.abc import Iterable
from pathlib import Path

from spelldown.data.loading.texts import TextBatches, TextBatchingSettings
from spelldown.data.synthesis.texts import read_lines
from spelldown.data.vocabulary import Vocabulary, describe_unknown
from spelldown.errors import DataError
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.recipe.parts import Parts
from spelldown.recipe.recipe import Recipe
from spelldown.training.language.settings import PretrainingSettings, ReadingSettings
from spelldown.training.language.trainer import ReadingTrainer
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.schedule import ConstantRate
from spelldown.training.learning.settings import Learning
from spelldown.training.run.checkpoint import load_weights, newest
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker
from spelldown.training.trainer import Outcome

FOLDER = "pretraining"  # in the run's folder


class Pretraining:
    """What comes before the training of a recipe with a `pretraining` section.

    said, judging: transcripts of what is trained on, and of dev. Texts are read here, so that what
    is wrong with them is told before anything is written. Raises DataError for a file that cannot
    be read, for lines that the vocabulary cannot spell, and where nothing is left to read.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: PretrainingSettings,
        vocabulary: Vocabulary,
        said: Iterable[str | None],
        judging: Iterable[str | None],
    ) -> None:
        self.recipe, self.settings, self.vocabulary = recipe, settings, vocabulary
        self.dropped = 0
        batching = TextBatchingSettings(symbols=settings.symbols, sentences=settings.sentences)
        texts = [text for text in said if text] if settings.transcripts else []
        for path in settings.texts:
            texts += self._read(path)
        self.train = TextBatches(map(vocabulary.encode, texts), batching, recipe.seed)
        # What is judged may hold letters that cannot be spelled; only training data is held to it.
        known = [text for text in judging if text and not vocabulary.unknown(text)]
        if not known:
            raise DataError("pretraining: no transcript of the dev part can be spelled to judge it")
        self.dev = TextBatches(map(vocabulary.encode, known), batching, training=False)

    def _read(self, path: Path) -> list[str]:
        """A file's sentences, of which those that cannot be spelled stop it or are dropped."""
        kept, odd = [], []
        for number, line in enumerate(read_lines(path), 1):
            line = " ".join(line.split())
            if not line:
                continue
            if unknown := self.vocabulary.unknown(line):
                odd.append(f"{path}, line {number}: {describe_unknown(unknown, self.vocabulary)}")
            else:
                kept.append(line)
        if odd and self.settings.unknown == "stop":
            raise DataError(
                f"pretraining.texts: {len(odd)} of the {len(odd) + len(kept)} lines of {path} "
                "cannot be spelled; pretraining.unknown: drop-line leaves them out",
                odd,
            )
        self.dropped += len(odd)
        return kept

    def run(self, recognizer: Recognizer, folder: RunFolder, tracker: Tracker) -> Outcome:
        """Pre-trains the recognizer's speller, or goes on with it; its weights are then the best.

        Not if the outcome is "interrupted". To be asked only while the whole has no checkpoint.
        """
        inner, settings = RunFolder(folder.path / FOLDER), self.settings
        dropped = f"; {self.dropped} lines were dropped" if self.dropped else ""
        tracker.message(
            f"pre-training the speller as a language model, context {settings.context}: "
            f"{self.train.utterances:,} sentences of {self.train.symbols:,} symbols{dropped}"
        )
        model = CharacterModel.of(
            recognizer.speller, settings.context, deviation=settings.deviation
        )
        trainer = ReadingTrainer(
            inner, model, self.train, self.dev, self.vocabulary, self.learning(),
            seed=self.recipe.seed, tracker=tracker, go_on=f"spelldown train --resume {folder}",
        )  # fmt: skip
        trainer.resume()
        outcome = trainer.fit()
        if outcome.ending == "interrupted":
            return outcome
        if newest(inner.best) is not None:  # none if no loss was finite: the speller as it began
            load_weights(inner.best, trainer.reader)
        tracker.message(_told(outcome))
        return outcome

    def learning(self) -> Learning:
        """How it learns: as the recipe has it, where the section does not say otherwise."""
        settings, recipe = self.settings, self.recipe
        changed = {
            "epochs": settings.epochs,
            "patience": settings.patience,
            "least_improvement": ReadingSettings().least_improvement,
            "judge": "loss",
            "pictures_every": 0,
            "weight_noise": 0.0,
        }
        return Learning(
            loss=LossSettings(label_smoothing=recipe.loss.label_smoothing),
            optimizer=recipe.optimizer.model_copy(update={"rate": settings.rate, "accumulate": 1}),
            schedule=ConstantRate(warmup=0.5),
            training=recipe.training.model_copy(update=changed),
        )


def pretraining_of(parts: Parts) -> Pretraining | None:
    """The pre-training that a recipe asks for, with what it reads; None if it asks for none."""
    settings = parts.recipe.pretraining
    if settings is None:
        return None
    said, judging = parts.train.said().values(), parts.dev.said().values()
    return Pretraining(parts.recipe, settings, parts.vocabulary, said, judging)


def _told(outcome: Outcome) -> str:
    if outcome.best is None:
        return "pre-training gave no finite loss: the speller begins as it was drawn"
    return (
        f"the speller is pre-trained: {outcome.best:.3f} nats a symbol on dev after epoch "
        f"{outcome.best_epoch}; now it listens"
    )
