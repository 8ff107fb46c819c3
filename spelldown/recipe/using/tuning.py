"""`spelldown tune`: the weights of a search that spell a run's development part best.

The listener hears each utterance once, so that a trial is no more than a search. What is found goes
into the run, as search.yaml, and is how the run is evaluated and transcribed with from then on.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from spelldown.errors import RunError
from spelldown.progress import Progress, quiet
from spelldown.recipe.run import Run
from spelldown.recipe.using.evaluation import (
    Evaluation,
    ToScore,
    evaluated,
    part_to_score,
)
from spelldown.recipe.using.landscape import write_landscape
from spelldown.recipe.using.ready import LANDSCAPE, TUNED, language_models_of, make_ready
from spelldown.recipe.using.trained_on import checksums
from spelldown.recipe.using.trials import (
    Judge,
    Measured,
    Searched,
    Trial,
    Trials,
    Weight,
    best_of,
    run_trials,
    with_weights,
)
from spelldown.search.metrics import Interval
from spelldown.search.paired import MeanScores, Verdict
from spelldown.search.search import SearchSettings
from spelldown.search.transcribing.transcriber import Listened
from spelldown.training.run.checkpoint import newest
from spelldown.writing import held, write_whole

ADVISED = 0.3  # the CTC head's share, as docs/search.md has it
IN_VAIN = "landscape-in-vain.html"  # where the run's search has the picture of another tuning


@dataclass(frozen=True)
class Asked:
    """What a tuning is to do.

    search:  what stays as it is; its weights are tried first, or the nearest in their ranges
    weights: what is tuned, and where it is looked for
    judge:   what the best has least of; trials: how many of all weights at once; line_points: how
             many along each weight then, the others as in the best; seed: of what is tried
    """

    search: Searched
    weights: tuple[Weight, ...]
    judge: Judge = "wer"
    trials: int = 60
    line_points: int = 7
    seed: int = 1


@dataclass(frozen=True)
class Tuned:
    """What a tuning found: the best trial, and its scores beside those of the recipe's search.

    written: whether it went into the run: not if the recipe's own search is no worse
    """

    run: Path
    part: str
    asked: Asked
    trials: tuple[Trial, ...]
    best: Trial
    search: SearchSettings
    before: Evaluation
    after: Evaluation
    written: bool
    page: Path
    notes: tuple[str, ...]

    @property
    def difference(self) -> tuple[float, Interval]:
        """How much more of the judge's measure there is than before, with its interval."""
        before, after = (MeanScores((one.scores,)) for one in (self.before, self.after))
        return after.difference(before, self.asked.judge)

    @property
    def verdict(self) -> Verdict:
        """Whether it is better than the recipe's search, by these utterances."""
        before, after = (MeanScores((one.scores,)) for one in (self.before, self.after))
        return after.verdict(before, self.asked.judge)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        difference, ends = self.difference
        return {
            "run": str(self.run),
            "split": self.part,
            "judge": self.asked.judge,
            "weights": dict(self.best.weights),
            "search": self.search.model_dump(mode="json"),
            "before": self.before.scores.as_dict(),
            "after": self.after.scores.as_dict(),
            "difference": difference,
            "difference_interval": [*ends],
            "verdict": self.verdict,
            "written": self.written,
            "page": str(self.page),
            "trials": [asdict(trial) for trial in self.trials],
            "notes": list(self.notes),
        }


def tune(run: Run, asked: Asked, split: str = "dev", progress: Progress = quiet) -> Tuned:
    """Tries weights on a part, draws what came of it, and writes the best into the run.

    `run` searches as its recipe says (`load_run` with tuned=False): that is what the best is held
    against. Trials are kept in the run's tuning folder, and a tuning that was stopped goes on. The
    run's search.yaml is left as it is where the recipe's own search is no worse. Raises RunError if
    another process tunes this run, DataError as `evaluate`, LanguageModelError for a language model
    that is not there or does not fit.
    """
    folder = run.folder.tuning
    make_ready(run, with_weights(asked.search, {one.name: one.high for one in asked.weights}))
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".lock") as ours:
        if not ours:
            raise RunError(f"{folder}: another process is tuning this run; wait for it or stop it")
        part = part_to_score(run, split)
        spell = _Spell(run, part, asked)
        about = _about(run, part, asked)
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]
        trials = Trials(folder / f"trials-{name}.jsonl", about)
        points = sum(len(weight.spread(asked.line_points)) for weight in asked.weights)
        work: Iterable[Trial] = run_trials(
            trials,
            asked.weights,
            _first(asked),
            spell.measure,
            judge=asked.judge,
            count=asked.trials,
            line_points=asked.line_points,
            seed=asked.seed,
        )
        tried = progress("trials", work, asked.trials + points)
        return _finish(run, part, asked, list(tried), spell)


class _Spell:
    """Searches over a part that was listened to once."""

    def __init__(self, run: Run, part: ToScore, asked: Asked) -> None:
        self.run, self.part, self.asked = run, part, asked
        self._pools: list[Listened] = []

    def evaluation(self, search: SearchSettings) -> Evaluation:
        if not self._pools:  # only now: a tuning that is done needs none
            self._pools = list(self.run.transcriber.listened(self.part.items(self.run.transcriber)))
        spelled = self.run.transcriber.spelled
        results = [one for pool in self._pools for one in spelled(pool, search)]
        return evaluated(self.run, self.part, results, search=search)

    def measure(self, weights: Mapping[str, float]) -> Measured:
        began = time.perf_counter()
        found = self.evaluation(with_weights(self.asked.search, weights))
        scores = found.scores
        took = round(time.perf_counter() - began, 3)
        return Measured(scores.wer, scores.cer, scores.distance, found.unended, took)


def _first(asked: Asked) -> list[dict[str, float]]:
    """What is tried before anything is drawn: the search as it is, with no weights at all, and with
    the CTC weight that is advised where nothing is tuned."""
    as_it_is = {one.name: one.nearest(_begins_at(asked, one)) for one in asked.weights}
    nothing = {one.name: one.nearest(0.0) for one in asked.weights}
    advised = {
        one.name: one.nearest(ADVISED if one.name == "ctc_weight" else 0.0) for one in asked.weights
    }
    each = {tuple(start.values()): start for start in (as_it_is, nothing, advised)}
    return list(each.values())


def _begins_at(asked: Asked, weight: Weight) -> float:
    """A weight as the search has it; null is a bound that nothing reaches."""
    value = getattr(asked.search, weight.name)
    return math.inf if value is None else float(value)


def _notes(run: Run, part: ToScore, asked: Asked) -> Iterator[str]:
    """What is not as one would take it to be: where the search begins, and the part."""
    for one in asked.weights:
        value = getattr(asked.search, one.name)
        near = one.nearest(_begins_at(asked, one))
        usual = type(asked.search).model_fields[one.name].default
        if value is None or (value != near and value != usual):
            yield (
                f"{one.name} is {'null' if value is None else f'{value:g}'} in the search to begin "
                f"from, which is not within {one.low:g} to {one.high:g}: {near:g} is tried instead"
            )
    if part.name == run.recipe.data.test:
        yield f"the weights are tuned on {part.name}: report the error on another part"


def _about(run: Run, part: ToScore, asked: Asked) -> dict[str, Any]:
    """All that the trials of a tuning depend on, so that only those that fit are gone on with."""
    best = newest(run.folder.best)
    weights = b"" if best is None else (best / "model.safetensors").read_bytes()
    names = {weight.name for weight in asked.weights}
    search = asked.search.model_dump(mode="json", exclude=names)
    paths = [search.get("lm"), search.get("rescore_lm")]
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "part": part.name,
        "utterances": _digest([(cut.id, cut.supervisions[0].text) for cut in part.cuts]),
        "search": search,
        "language_models": [_digest_of_folder(Path(path)) for path in paths if path is not None],
        "ranges": [[one.name, one.low, one.high] for one in asked.weights],
        "judge": asked.judge,
        "seed": asked.seed,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _digest_of_folder(path: Path) -> str:
    """Of a language model's files, by size and date: a large one is not read for this."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return _digest([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _finish(run: Run, part: ToScore, asked: Asked, tried: Sequence[Trial], spell: _Spell) -> Tuned:
    trials = tuple({tuple(trial.weights.values()): trial for trial in tried}.values())
    best = best_of(trials, asked.judge)
    search = with_weights(asked.search, best.weights)
    before, after = spell.evaluation(run.transcriber.search), spell.evaluation(search)
    better = getattr(after.scores, asked.judge) < getattr(before.scores, asked.judge)
    page = run.folder.tuning / (LANDSCAPE if better or not run.folder.search.exists() else IN_VAIN)
    found = Tuned(
        run.folder.path, part.name, asked, trials, best, search, before, after, better, page,
        (*part.notes, *_notes(run, part, asked)),
    )  # fmt: skip
    write_landscape(
        page,
        trials,
        asked.weights,
        best_of(tried[: asked.trials], asked.judge),
        judge=asked.judge,
        before=float(getattr(before.scores, asked.judge)),
        title=f"{run.recipe.name}: {asked.search.kind} search on {part.name}, "
        f"{before.scores.utterances} utterances",
    )
    if better:
        record = {
            "epoch": run.epoch,
            "language_models": language_models_of(found.search),
            "utterances": checksums(part.cuts),
            **found.as_dict(),
        }
        write_whole(run.folder.tuning / TUNED, json.dumps(record, indent=1) + "\n")
        write_whole(run.folder.search, _page(found))
    return found


def _page(found: Tuned) -> str:
    """The run's search.yaml: the whole section, and where it comes from."""
    judge, scores = found.asked.judge, found.after.scores
    before, after = (getattr(one.scores, judge) for one in (found.before, found.after))
    search = found.search.model_dump(mode="json")
    # Whole paths: the run is used from other folders than the one that it was tuned in.
    wholly = {
        key: str(Path(search[key]).absolute()) for key in ("lm", "rescore_lm") if search.get(key)
    }
    section = yaml.safe_dump({"search": search | wholly}, sort_keys=False, allow_unicode=True)
    return (
        f"# Found by `spelldown tune` on {datetime.now(UTC):%Y-%m-%d}: {judge} {after:.4f} on\n"
        f"# {found.part} ({scores.utterances} utterances), and {before:.4f} by the recipe's own "
        f"search; {len(found.trials)} trials.\n"
        "# `evaluate` and `transcribe` search so; --untuned passes this page over, and without it\n"
        f"# the recipe counts.\n{section}"
    )
