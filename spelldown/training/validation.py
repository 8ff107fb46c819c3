"""How well a recognizer spells utterances it is not trained on, and whether better than ever."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from spelldown.data.batching import Batch, Batches
from spelldown.data.frontend import SECONDS_PER_FRAME
from spelldown.data.vocabulary import EOS, Vocabulary
from spelldown.errors import DataError
from spelldown.model.precision import Precision, autocast
from spelldown.model.recognizer import Memory, Recognizer
from spelldown.model.spelling.speller import Feedback
from spelldown.search.metrics import Scores, score
from spelldown.search.search import Hypothesis, SearchSettings, greedy
from spelldown.training.alignment import Alignment, measure
from spelldown.training.guard.guard import Guard
from spelldown.training.learning.loss import cross_entropy_sums, ctc_sum
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.update import device_of, symbols_spelled

MEASURED = 200
"""Utterances whose attention is measured, evenly over all lengths: enough for a mean, while the
weights of a whole part would take gigabytes."""

Measure = Literal["distance", "cer", "wer", "loss"]


@dataclass(frozen=True)
class Shown:
    """One utterance as it was spelled, for a picture: weights (H, L, T') of its attention, a row
    for each of its L letters, `<eos>` included if it came."""

    id: str
    letters: tuple[str, ...]
    weights: Tensor


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    loss: cross entropy a symbol with teacher forcing and without label smoothing; ctc: the CTC loss
    a symbol, None without a head. Both are comparable between recipes.
    """

    scores: Scores
    loss: float
    ctc: float | None
    alignment: Alignment
    shown: tuple[Shown, ...]
    seconds: float

    def by(self, measure: Measure) -> float:
        """The value of one measure; lower is better."""
        return self.loss if measure == "loss" else float(getattr(self.scores, measure))


@dataclass
class _Findings:
    """Of one batch; `first`: how many utterances the batches before it have."""

    first: int = 0
    ids: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    hypotheses: list[str] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    symbols: int = 0
    ce: float = 0.0
    ctc: float | None = None


class Validation:
    """Spells a part by search and compares, the same utterances in the same order every time."""

    def __init__(
        self,
        batches: Batches,
        vocabulary: Vocabulary,
        search: SearchSettings,
        precision: Precision,
        pictures: int = 0,
        ranks: Ranks | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.ranks, self.guard = ranks or Ranks(), guard or Guard(torch.device("cpu"))
        self.batches, self.vocabulary, self.search = batches, vocabulary, search
        self.precision = precision
        self.measured = spread(batches.utterances, MEASURED)
        self.pictured = spread(batches.utterances, pictures)

    def run(
        self, recognizer: Recognizer, stop: Callable[[], bool] = lambda: False
    ) -> Validated | None:
        """Validates the recognizer, which is left in training mode; None if `stop()` came true.

        Ranks share the batches, and all are given what the first makes of everyone's findings.
        """
        began = time.monotonic()
        recognizer.eval()
        try:
            with torch.inference_mode():
                everyones = self.ranks.everyones(self._findings(recognizer, stop))
        finally:
            recognizer.train()
        stopped = any(findings is None for findings in everyones)
        return None if stopped else self.ranks.from_first(lambda: _validated(everyones, began))

    def _findings(
        self, recognizer: Recognizer, stop: Callable[[], bool]
    ) -> "list[_Findings] | None":
        """What this rank found, batch by batch."""
        found: list[_Findings] = []
        done = 0
        ours = (0, self.ranks.of_batches) if self.ranks.count > 1 else ()
        sizes = map(len, self.batches.plan(1))
        for batch, size in zip(self.batches.epoch(1, *ours), sizes, strict=True):
            if stop():
                return None
            found.append(self._guarded(recognizer, batch, done, len(found)))
            done += size
        return found

    def _guarded(self, recognizer: Recognizer, batch: Batch, first: int, place: int) -> "_Findings":
        """What is found in a batch, in as many parts as memory needs; `place` is the batch's."""
        findings = _Findings(first)

        @contextmanager
        def attempt() -> Iterator[None]:
            nonlocal findings
            findings = _Findings(first)
            yield

        self.guard.now(self.guard.fits.now[0], place)
        self.guard.make(
            [batch], "validating", attempt, lambda part: self._batch(recognizer, part, findings)
        )
        return findings

    def _batch(self, recognizer: Recognizer, batch: Batch, findings: _Findings) -> None:
        if batch.texts is None:
            raise DataError(
                f"utterances {', '.join(batch.ids[:3])} ... are to be validated on, but not all of "
                "them have a transcript"
            )
        device = device_of(recognizer)
        there = batch.to(device)
        with autocast(device, self.precision):
            memory = recognizer.listen(there.frames, there.lengths)
            hypotheses = greedy(
                recognizer,
                memory,
                self.search,
                seconds_per_frame=seconds_per_frame(recognizer),
                keep_weights=True,
            )
            self._losses(recognizer, memory, there, findings)
        findings.symbols += symbols_spelled([batch])
        for id, text, hypothesis in zip(batch.ids, batch.texts, hypotheses, strict=True):
            self._utterance(id, text, hypothesis, findings)

    def _losses(
        self, recognizer: Recognizer, memory: Memory, batch: Batch, findings: _Findings
    ) -> None:
        assert batch.symbols is not None and batch.symbol_lengths is not None
        logits, _, _ = recognizer.speller(memory.frames, memory.lengths, batch.symbols, Feedback())
        findings.ce += float(cross_entropy_sums(logits, batch.symbols[:, 1:])[0])
        ctc_logits = recognizer.ctc_logits(memory)
        if ctc_logits is not None:
            ctc, _ = ctc_sum(ctc_logits, memory.lengths, batch.symbols, batch.symbol_lengths)
            findings.ctc = (findings.ctc or 0.0) + float(ctc)

    def _utterance(self, id: str, text: str, found: Hypothesis, findings: _Findings) -> None:
        place, spelled = findings.first + len(findings.ids), self.vocabulary.decode(found.symbols)
        findings.ids.append(id)
        findings.references.append(text)
        findings.hypotheses.append(spelled)
        assert found.weights is not None
        if place in self.measured:
            findings.weights.append(found.weights)
            findings.ended.append(found.ended)
        if place in self.pictured:
            letters = self.vocabulary.letters(found.symbols)
            letters += [self.vocabulary.symbols[EOS]] * found.ended
            findings.shown.append(Shown(id, tuple(letters), found.weights))


def _validated(everyones: "Sequence[list[_Findings] | None]", began: float) -> Validated:
    """What all ranks found together, in the order of the part's batches."""
    every = sorted(chain.from_iterable(found or () for found in everyones), key=lambda f: f.first)
    every = [findings for findings in every if findings.ids]
    each = 1 / max(sum(findings.symbols for findings in every), 1)
    ctc = [findings.ctc for findings in every if findings.ctc is not None]
    return Validated(
        scores=score(
            [text for findings in every for text in findings.references],
            [text for findings in every for text in findings.hypotheses],
            [id for findings in every for id in findings.ids],
        ),
        loss=sum(findings.ce for findings in every) * each,
        ctc=sum(ctc) * each if ctc else None,
        alignment=measure(
            [weights for findings in every for weights in findings.weights],
            [ended for findings in every for ended in findings.ended],
        ),
        shown=tuple(shown for findings in every for shown in findings.shown),
        seconds=time.monotonic() - began,
    )


def seconds_per_frame(recognizer: Recognizer) -> float:
    """How much speech one of the listener's frames stands for."""
    return float(recognizer.listener.reduction * SECONDS_PER_FRAME)


def draw(
    validated: Validated, run: RunFolder, epoch: int, frame_seconds: float
) -> tuple[Path, ...]:
    """Pictures of the shown utterances' attention, whose paths it gives, and of the run so far, in
    the run's folder."""
    from spelldown.training.run import pictures  # brings matplotlib, which takes a while

    drawn = []
    for shown in validated.shown:
        drawn.append(run.pictures / f"epoch-{epoch:03}-{shown.id.replace('/', '-')}.png")
        pictures.attention_picture(
            drawn[-1], shown.weights, shown.letters, frame_seconds, f"{shown.id}, epoch {epoch}"
        )
    pictures.curves_picture(run.metrics, run.pictures / "curves.png")
    return tuple(drawn)


def spread(count: int, most: int) -> frozenset[int]:
    """At most `most` places out of `count`, evenly spread, none at the very ends if few."""
    chosen = min(count, most)
    return frozenset(int((place + 0.5) * count / chosen) for place in range(chosen))


@dataclass
class Judge:
    """Tells the best validation, and when there has been none better for too long.

    The best is the lowest value; of equal ones, which a small dev part often has, that with the
    lower loss. Patience is counted from the last value that was lower than the one it was counted
    from before by more than `least_improvement`, so that creeping does not keep a run alive.
    """

    patience: int | None
    least_improvement: float
    best: float = math.inf
    best_loss: float = math.inf
    best_epoch: int = 0
    reference: float = math.inf
    waited: int = 0

    def judge(self, epoch: int, value: float, loss: float) -> tuple[bool, bool]:
        """Takes note of an epoch's value: is it the best yet, and is it better by enough?"""
        best = (value, loss) < (self.best, self.best_loss)
        if best:
            self.best, self.best_loss, self.best_epoch = value, loss, epoch
        improved = value < self.reference - self.least_improvement
        if improved:
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        return best, improved

    @property
    def exhausted(self) -> bool:
        """Whether the run should stop: `patience` validations in a row were no better."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know; the settings may change between."""
        return {name: getattr(self, name)
                for name in ("best", "best_loss", "best_epoch", "reference", "waited")}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
