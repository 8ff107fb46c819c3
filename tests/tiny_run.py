"""A run small enough for a test: a recognizer and its trainer, for a toy corpus."""

from pathlib import Path
from typing import Any

import torch

from spelldown.data.augmenting.frames import Augment, AugmentSettings
from spelldown.data.batching import Batches, BatchingSettings
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.frontend import ArraysFrontendSettings, Frontend
from spelldown.data.vocabulary import Vocabulary
from spelldown.model.listening.blocks import BiLSTMSettings, ConvSettings
from spelldown.model.listening.listener import ListenerSettings
from spelldown.model.listening.normalisation import Norm
from spelldown.model.recognizer import CTCSettings, Recognizer
from spelldown.model.spelling.attention import LocationSettings
from spelldown.model.spelling.speller import SpellerSettings
from spelldown.search.search import GreedySettings
from spelldown.training.learning.averaging import ExponentialAveraging
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import AdamSettings
from spelldown.training.learning.schedule import PlateauRate
from spelldown.training.learning.settings import Learning, TrainingSettings
from spelldown.training.learning.teacher_forcing import RuleBForcing
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import Tracker
from spelldown.training.trainer import Trainer

WIDTH = 4  # of the toy corpus
VOCABULARY = Vocabulary.course()


def batches_of(root: Path, part: str, seed: int = 1) -> Batches:
    frontend = Frontend(ArraysFrontendSettings(width=WIDTH))
    augment = Augment(AugmentSettings(), frontend)
    cuts = read_part(ArraysSettings(root=root), part).cuts
    settings = BatchingSettings(utterances=3)
    return Batches(cuts, frontend, augment, VOCABULARY, settings, seed, training=part == "train")


def tiny_recognizer(dropout: float = 0.2, norm: Norm = "batch") -> Recognizer:
    """With all that draws by chance or keeps statistics: dropout of every kind, batch norm."""
    torch.manual_seed(1)
    conv = ConvSettings(widths=(8,), stride=2, norm=norm, dropout=dropout)
    return Recognizer(
        ListenerSettings(blocks=(conv, BiLSTMSettings(width=8))),
        LocationSettings(width=8, channels=2, reach=3),
        SpellerSettings(embedding=8, width=16, dropout=dropout, embedding_dropout=dropout),
        CTCSettings(dropout=dropout),
        input_width=WIDTH,
        vocabulary=len(VOCABULARY),
    )


def tiny_learning(**parts: Any) -> Learning:
    """Everything that remembers something between updates, unless other parts are given."""
    training = {"epochs": 3, "device": "cpu", "threads": 1, "pictures_every": 0}
    training |= {"weight_noise": 0.01, **parts.pop("training", {})}
    return Learning(
        **{
            "loss": LossSettings(label_smoothing=0.1, ctc_weight=0.3, ctc_fade=(1, 4)),
            "optimizer": AdamSettings(rate=3e-3),
            "schedule": PlateauRate(warmup=0.5, patience=0),
            "teacher_forcing": RuleBForcing(reading="as-typed", feedback="sample"),
            "averaging": ExponentialAveraging(decay=0.9),
            "training": TrainingSettings(**training),
            **parts,
        }
    )


def tiny_trainer(
    run: Path,
    corpus: Path,
    learning: Learning | None = None,
    tracker: Tracker | None = None,
    train: Batches | None = None,
    recognizer: Recognizer | None = None,
    ranks: Ranks | None = None,
) -> Trainer:
    return Trainer(
        RunFolder(run),
        recognizer or tiny_recognizer(),
        train or batches_of(corpus, "train"),
        batches_of(corpus, "dev"),
        VOCABULARY,
        learning or tiny_learning(),
        GreedySettings(longest=30),
        seed=1,
        tracker=tracker,
        ranks=ranks,
    )


def train_to_the_end(run: Path, corpus: Path, learning: Learning) -> None:
    """Trains, or goes on training: what a child process does that may be killed at any moment."""
    trainer = tiny_trainer(run, corpus, learning)
    trainer.resume()
    trainer.fit()
