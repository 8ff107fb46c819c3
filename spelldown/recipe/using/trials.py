"""Trials of search weights: which come next, and a file that remembers those that are done.

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

from spelldown.errors import RunError
from spelldown.training.run.run_folder import plain
from spelldown.writing import to_disk

STEPS = 50  # that a range is cut into at least; weights are then numbers such as 0.32
AT_RANDOM = 10  # trials before the estimator has enough to go by

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
        """The nearest number on the range's steps."""
        decimals = max(0, -round(math.log10(self.step)))
        return min(max(round(value, decimals), self.low), self.high) + 0.0  # no -0.0

    def spread(self, points: int) -> list[float]:
        """Numbers evenly through the range, both ends included."""
        between = (self.high - self.low) / max(points - 1, 1)
        values = (self.rounded(self.low + between * number) for number in range(points))
        return list(dict.fromkeys(values))


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

    def best(self, judge: Judge) -> Trial:
        """The best trial so far; the earlier of equals."""
        return min(self.done, key=lambda trial: trial.rank(judge))


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
    through the best of these along each weight, of `line_points`.
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
    best = min(sampled, key=lambda trial: trial.rank(judge))
    for weight in weights:
        for value in weight.spread(line_points) if line_points else ():
            yield tried({**best.weights, weight.name: value}, "line")


def _next(
    done: Sequence[Trial], weights: Sequence[Weight], judge: Judge, seed: int
) -> dict[str, float]:
    """What to try next, by Optuna; it follows from what is done and the seed alone."""
    optuna = _optuna()
    ranges = {
        weight.name: optuna.distributions.FloatDistribution(
            weight.low, weight.high, step=weight.step
        )
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
    # That modelling weights together is `experimental` is no news for who calls us; and that a
    # range is cut into whole steps is what we ask for.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
