"""A tuning over searches that cost nothing, for tests: errors depend on the weights alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from toy_corpus import write_corpus
from trained_run import WIDTH, write_page

from spelldown.data.corpora import read_part
from spelldown.data.vocabulary import Vocabulary
from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.run import Run
from spelldown.recipe.using.trials import Measured, Weight
from spelldown.recipe.using.tuning import Asked, Tuned, tune
from spelldown.search.search import BeamSettings, GreedySettings
from spelldown.search.transcribing.transcriber import Transcriber
from spelldown.search.transcribing.transcript import Item, Transcript
from spelldown.training.run.run_folder import RunFolder

CTC, BONUS = Weight("ctc_weight", 0.0, 0.7), Weight("length_bonus", -0.5, 1.5)
BEST = {"ctc_weight": 0.3, "length_bonus": 0.5}  # of the bowl below


def bowl(weights: Mapping[str, float]) -> Measured:
    """Errors that grow with the distance from BEST, as if a search had made them."""
    error = 0.1 + sum((weights[name] - best) ** 2 for name, best in BEST.items())
    return Measured(error, error / 2, 10 * error, 0, 0.01)


class Fake:
    """A transcriber whose errors depend on the weights alone, as `bowl` has it."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts, self.search = texts, GreedySettings()
        self.recognizer = SimpleNamespace(ctc=True)
        self.searched = self.heard = 0

    def language_models(self, search: Any) -> dict[str, Any]:
        return {}

    def by_speaker(self, items: Sequence[Item], speakers: Sequence[str | None]) -> list[Item]:
        return list(items)

    def listened(self, items: Iterator[Item]) -> Iterator[Sequence[str]]:
        self.heard += 1
        yield [item.id for item in items]

    def spelled(self, ids: Sequence[str], search: Any) -> list[Transcript]:
        self.searched += 1
        wrong = 1.0
        if isinstance(search, BeamSettings):
            wrong = bowl({name: getattr(search, name) for name in BEST}).wer
        right = round(len(ids) * (1 - min(wrong, 1.0)))
        return [
            Transcript(id, self.texts[id] if place < right else "", 0.0, True, 1.0, (), None, 0.01)
            for place, id in enumerate(ids)
        ]


def made_run(folder: Path) -> Run:
    """A run of 40 utterances in dev and 10 in test that searches greedily, all wrong."""
    corpus = write_corpus(folder / "corpus", {"train": 8, "dev": 40, "test": 10}, WIDTH)
    run = RunFolder(folder / "run")
    run.best.mkdir(parents=True)
    (run.best / "model.safetensors").write_bytes(b"weights")
    write_page(run.recipe, corpus)
    recipe = read_recipe(run.recipe)
    cuts = [cut for part in ("dev", "test") for cut in read_part(recipe.data, part).cuts]
    fake = cast(Transcriber, Fake({cut.id: cut.supervisions[0].text for cut in cuts}))
    return Run(run, recipe, Vocabulary.course(), fake, 3, {"epoch": 3})


def tuned(run: Run, trials: int = 20, split: str = "dev", **search: Any) -> Tuned:
    """A tuning of the CTC head's share and the length bonus, with lines of four points."""
    search = {"longest": 20, **search}
    asked = Asked(BeamSettings(**search), (CTC, BONUS), trials=trials, line_points=4)
    return tune(run, asked, split)
