"""Trials of search weights: of which, which come next, and a file that remembers what is done.

The file has a line for each trial, so that a tuning that was stopped goes on. What comes next
follows from the trials that are done and the seed alone (Optuna's tree-structured Parzen estimator:
Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011, with all weights modelled
together): a tuning that was stopped and went on tries what an unbroken one would have.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from spelldown.errors import RecipeError, RunError
from spelldown.search.search import BeamSettings, GreedySettings, RandomSettings, SearchSettings
from spelldown.training.run.run_folder import plain
from spelldown.writing import to_disk

STEPS = 50  # that a range is cut into at least; weights are then numbers such as 0.32
AT_RANDOM = 10  # trials before the estimator has enough to go by

Searched = BeamSettings | RandomSettings
LOOKED_IN = {
    "ctc_weight": (0.0, 0.7),
    "lm_weight": (0.0, 1.0),
    "rescore_weight": (0.0, 1.0),
    "ilm_weight": (0.0, 0.5),
    "length_bonus": (-0.5, 2.5),
    "temperature": (0.1, 1.1),
    "length_power": (0.0, 1.5),
}
"""Where weights are looked for unless told otherwise; wider where the search begins outside."""
NEEDS = {"lm_weight": "lm", "rescore_weight": "rescore_lm", "ilm_weight": "ilm"}
"""What a weight weighs: it means nothing without."""
Judge = Literal["wer", "cer", "distance"]
Origin = Literal["given", "sampled", "line"]


@dataclass(frozen=True)
class Weight:
    """A setting of the search that is tuned, and the range that it is looked for in."""

    name: str
    low: float
    high: float

    @property
    def step(self) -> float:
        """The greatest power of ten that cuts the range into STEPS at least."""
        return float(10.0 ** math.floor(math.log10((self.high - self.low) / STEPS) + 1e-9))

    def rounded(self, value: float) -> float:
        """The nearest number of as many digits as `step` has, within the range."""
        return self.nearest(round(value, max(0, -round(math.log10(self.step)))))

    def nearest(self, value: float) -> float:
        """The number in the range that is nearest to this one; itself, if it lies in the range."""
        return min(max(value, self.low), self.high) + 0.0  # no -0.0

    def spread(self, points: int) -> list[float]:
        """Numbers evenly through the range, both ends included."""
        between = (self.high - self.low) / max(points - 1, 1)
        values = (self.rounded(self.low + between * number) for number in range(points))
        return list(dict.fromkeys(values))


def weights_to_tune(
    search: SearchSettings, has_ctc: bool, given: Mapping[str, tuple[float, float]]
) -> tuple[Weight, ...]:
    """What can be tuned of a search: the weights of all that is there to be weighed.

    given: weights and their ranges instead. Raises RecipeError with all that cannot be tuned: what
    this search does not have, a range out of what the setting may be, or one of no width.
    """
    if isinstance(search, GreedySettings):
        raise RecipeError("greedy search has no weights to tune; choose --search beam or random")
    if not given:
        names = ["ctc_weight", *NEEDS, "length_bonus"]
        if isinstance(search, RandomSettings):
            names = ["temperature", "length_power"]
        wide = {name: (*LOOKED_IN[name], getattr(search, name)) for name in names}
        return tuple(
            Weight(name, min(values), max(values))
            for name, values in wide.items()
            if not _pointless(search, has_ctc, name)
        )
    problems = []
    for name, (low, high) in given.items():
        problem = _pointless(search, has_ctc, name) or _range_problem(search, name, low, high)
        problems += [f"{name}={low:g}:{high:g}: {problem}"] if problem else []
    if problems:
        raise RecipeError("these weights cannot be tuned", problems)
    return tuple(Weight(name, low, high) for name, (low, high) in given.items())


def _pointless(search: Searched, has_ctc: bool, name: str) -> str:
    """Why a weight weighs nothing here; empty if it does."""
    if name == "ctc_weight" and not has_ctc:
        return "the run has no CTC head (`ctc` in its recipe)"
    needed = NEEDS.get(name, "")
    if needed and getattr(search, needed, None) in (None, "none"):
        option = f"--{needed.replace('_', '-')}"
        return f"there is nothing that it would weigh; give it with {option}"
    return ""


def _range_problem(search: Searched, name: str, low: float, high: float) -> str:
    field = type(search).model_fields.get(name)
    if field is None or field.annotation not in (float, float | None):
        known = [n for n, f in type(search).model_fields.items() if f.annotation is float]
        return f"{search.kind} search has no such weight; it has {', '.join(known)}"
    if not low < high:
        return "a range goes from a lower to a higher number"
    for end in (low, high):
        try:
            type(search).model_validate({**search.model_dump(), name: end})
        except ValidationError as error:
            return error.errors()[0]["msg"].lower()
    return ""


def with_weights(search: Searched, weights: Mapping[str, float]) -> SearchSettings:
    """A search with other weights; what would weigh nothing is left out of it."""
    values = {**search.model_dump(), **weights}
    for weight, needed in NEEDS.items():
        if values.get(weight) == 0 and needed in values:
            values[needed] = "none" if needed == "ilm" else None
    return type(search).model_validate(values)


@dataclass(frozen=True)
class Measured:
    """What a search made of the part: the three measures, and utterances that did not end."""

    wer: float
    cer: float
    distance: float
    unended: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """Weights that were tried, why, and what came of it.

    origin: `given` at the start, `sampled` by the estimator, or on a `line` through the best
    """

    weights: Mapping[str, float]
    origin: Origin
    measured: Measured

    def rank(self, judge: Judge) -> tuple[float, ...]:
        """To sort by, the best first: by the judge, then the others, then the smaller weights."""
        found = self.measured
        small = sum(abs(value) for value in self.weights.values())
        return (getattr(found, judge), found.wer, found.cer, found.distance, small)


class Trials:
    """The trials of one tuning, in a file of JSON lines that grows by one after each.

    about: what all of them have in common, written first; a file about something else raises
    RunError. A last line that was not written to its end is passed over.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file, self.about = file, plain(dict(about))
        self.done: list[Trial] = []
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        records = []
        for line in lines:
            with suppress(ValueError):
                records.append(json.loads(line))
        if records and records[0] != self.about:
            raise RunError(f"{file} holds trials of another tuning; move it away to begin anew")
        for record in records[1:]:
            measured = Measured(**record.pop("measured"))
            self.done.append(Trial(record["weights"], record["origin"], measured))
        if len(records) != len(lines) or not records:
            self._rewrite()

    def _rewrite(self) -> None:
        """Begins the file, or takes half a line away, so that the next begins a new one."""
        from spelldown.writing import write_whole

        lines = [self.about, *map(asdict, self.done)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(self.file, text)

    def of(self, weights: Mapping[str, float]) -> Trial | None:
        """The trial of these weights, if there was one."""
        return next((trial for trial in self.done if trial.weights == weights), None)

    def add(self, trial: Trial) -> None:
        """Remembers a trial, safe on disk on return."""
        self.done.append(trial)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(asdict(trial)), ensure_ascii=False) + "\n")
            to_disk(file)


def best_of(trials: Sequence[Trial], judge: Judge) -> Trial:
    """The best of some trials; the earlier of equals."""
    return min(trials, key=lambda trial: trial.rank(judge))


def run_trials(
    trials: Trials,
    weights: Sequence[Weight],
    given: Sequence[Mapping[str, float]],
    measure: Callable[[Mapping[str, float]], Measured],
    *,
    judge: Judge,
    count: int,
    line_points: int,
    seed: int,
) -> Iterator[Trial]:
    """Each trial as it gets ready, those done before included.

    First the weights `given`, then as many sampled ones as `count` leaves, and at last a line
    through the best of these `count` along each weight, of `line_points`.
    """

    def tried(asked: Mapping[str, float], origin: Origin) -> Trial:
        known = trials.of(asked)
        if known is None:
            known = Trial(dict(asked), origin, measure(asked))
            trials.add(known)
        return known

    first = [tried(asked, "given") for asked in given[:count]]
    yield from first
    sampled = list(first)
    while len(sampled) < count:
        sampled.append(tried(_next(sampled, weights, judge, seed), "sampled"))
        yield sampled[-1]
    best = best_of(sampled, judge)
    for weight in weights:
        for value in weight.spread(line_points) if line_points else ():
            yield tried({**best.weights, weight.name: value}, "line")


def _next(
    done: Sequence[Trial], weights: Sequence[Weight], judge: Judge, seed: int
) -> dict[str, float]:
    """What to try next, by Optuna; it follows from what is done and the seed alone.

    Optuna is told of no steps: its own begin at a range's low end, which need not be on ours.
    """
    optuna = _optuna()
    ranges = {
        weight.name: optuna.distributions.FloatDistribution(weight.low, weight.high)
        for weight in weights
    }
    sampler = optuna.samplers.TPESampler(
        multivariate=True, n_startup_trials=AT_RANDOM, seed=(seed * 1_000_003 + len(done)) % 2**32
    )
    study = optuna.create_study(sampler=sampler)
    for trial in done:
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial.weights),
                distributions=ranges,
                value=getattr(trial.measured, judge),
            )
        )
    asked = study.ask(ranges).params
    return {weight.name: weight.rounded(asked[weight.name]) for weight in weights}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise RunError(
            "tuning needs Optuna, which is not installed: pip install 'spelldown[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # That modelling weights together is `experimental` is no news for who calls us.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
