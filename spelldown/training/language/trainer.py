"""The trainer, for character models: what judges them is how well they foretell other sentences."""

from typing import Any, cast

from spelldown.data.batching import Batches
from spelldown.data.loading.texts import TextBatches
from spelldown.data.vocabulary import Vocabulary
from spelldown.model.precision import Precision
from spelldown.model.recognizer import Recognizer
from spelldown.model.spelling.character_model import CharacterModel
from spelldown.search.search import GreedySettings, SearchSettings
from spelldown.training.language.reader import Reader
from spelldown.training.language.validation import Foretold, TextValidation
from spelldown.training.learning.settings import Learning
from spelldown.training.run.record import reading_record
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker
from spelldown.training.trainer import Trainer


class ReadingTrainer(Trainer):
    """Trains a character model in a run folder, from the start or from where it stands.

    Everything is as for recognizers, but for what validates: the loss on `dev`, so that
    `learning.training` must judge by loss and draw no pictures. go_on: the command that goes on
    with the run once it was stopped.
    """

    def __init__(
        self,
        run: RunFolder,
        model: CharacterModel,
        train: TextBatches,
        dev: TextBatches,
        vocabulary: Vocabulary,
        learning: Learning,
        *,
        seed: int,
        tracker: Tracker | None = None,
        go_on: str,
    ) -> None:
        if learning.training.judge != "loss" or learning.training.pictures_every:
            raise ValueError("a character model is judged by its loss and has nothing to picture")
        # To the trainer they are what they stand for: something with weights that gives logits
        # for batches, and batches.
        super().__init__(
            run,
            cast(Recognizer, Reader(model)),
            cast(Batches, train),
            cast(Batches, dev),
            vocabulary,
            learning,
            GreedySettings(),  # nothing is searched
            seed=seed,
            tracker=tracker,
        )
        self.go_on = go_on

    @property
    def reader(self) -> Reader:
        """What is trained, on its device."""
        return cast(Reader, self.recognizer)

    def _validation(
        self, dev: Any, vocabulary: Vocabulary, search: SearchSettings, precision: Precision
    ) -> Any:
        return TextValidation(dev, precision)

    def _note(self, validated: Any, best: bool) -> bool:
        """Writes the epoch's line and shows it; there is no attention to align."""
        assert isinstance(validated, Foretold)
        progress = self.progress
        record = reading_record(
            self.sums,
            loss=validated.loss,
            perplexity=validated.perplexity,
            seconds=validated.seconds,
            epoch=progress.epoch,
            updates=progress.updates,
            rate=self._rate(self.train.count(progress.epoch)),
            best=best,
        )
        self.run.append_metrics(record)
        self.tracker.validated(record)
        return False
