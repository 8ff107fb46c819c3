"""Where a run stands, and an epoch in numbers: its line in metrics.jsonl."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from spelldown.training.alignment import Verdict
from spelldown.training.memory import peak_gpu_memory, peak_memory
from spelldown.training.run.run_folder import plain
from spelldown.training.update import Update
from spelldown.training.validation import Validated

NAMED = 3  # skipped updates whose utterances are kept
SUSPECTS = 12  # utterances that a message names
WAITING_SHARE, WAITING_SECONDS = 0.05, 2.0  # of an epoch's training: more is worth a word


@dataclass
class Progress:
    """Where a run stands: in `epoch` (from 1), before `batch` (from 0), after `updates`.

    Updates count skipped ones too; `skipped_in_row` are the latest skipped without a break.
    """

    epoch: int = 1
    batch: int = 0
    updates: int = 0
    skipped_in_row: int = 0


@dataclass
class Sums:
    """What an epoch's updates told so far, added up; skipped ones only in `skipped`.

    skipped_ids: the utterances of the first few skipped updates, a list each
    seconds: of training, of which `waiting` for batches
    """

    updates: int = 0
    skipped: int = 0
    symbols: int = 0
    utterances: int = 0
    frames: int = 0
    loss: float = 0.0
    ce: float = 0.0
    ctc: float = 0.0
    ctc_left_out: int = 0
    norm: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0
    skipped_ids: list[list[str]] = field(default_factory=list)

    def add(self, update: Update, ids: Iterable[str]) -> None:
        """Adds an update, which was made from the utterances of these ids."""
        if update.skipped:
            self.skipped += 1
            if len(self.skipped_ids) < NAMED:
                self.skipped_ids.append(list(ids))
            return
        self.updates += 1
        self.symbols += update.symbols
        self.utterances += update.utterances
        self.frames += update.frames
        self.loss += update.loss
        self.ce += update.ce
        self.ctc += update.ctc
        self.ctc_left_out += update.ctc_left_out
        self.norm += update.norm

    def suspects(self) -> str:
        """The utterances of the epoch's first few skipped updates, for a message."""
        ids = [id for update in self.skipped_ids for id in update]
        more = ", ..." if len(ids) > SUSPECTS or self.skipped > NAMED else ""
        return f"skipped in this epoch: {', '.join(ids[:SUSPECTS])}{more}"

    def waited(self, seconds: float) -> None:
        """Adds time in which nothing was learnt, for want of a batch."""
        self.waiting += seconds
        self.seconds += seconds

    def wait_worth_telling(self) -> str:
        """What share of the epoch's training went by waiting for data, where it was too much."""
        share = self.waiting / max(self.seconds, 1e-9)
        if share <= WAITING_SHARE or self.waiting < WAITING_SECONDS:
            return ""
        return f"{share:.0%} of this epoch's training went by waiting for data"

    def record(self) -> dict[str, Any]:
        """Losses a symbol (cross entropy plain; loss as trained on), the mean gradient norm before
        clipping, and speeds over all time spent on training, waiting included."""
        each = 1 / self.symbols if self.symbols else float("nan")
        spent = max(self.seconds, 1e-9)
        return {
            "loss": self.loss * each,
            "ce": self.ce * each,
            "ctc": self.ctc * each
            if self.ctc
            else None,  # nothing is reckoned while it has no share
            "ctc_left_out": self.ctc_left_out,
            "gradient_norm": self.norm / self.updates if self.updates else None,
            "skipped": self.skipped,
            "skipped_ids": self.skipped_ids,
            "seconds": self.seconds,
            "utterances_per_second": self.utterances / spent,
            "frames_per_second": self.frames / spent,
            "waiting_share": self.waiting / spent,
        }


def epoch_record(
    sums: Sums, validated: Validated, verdict: Verdict, **about: Any
) -> dict[str, Any]:
    """An epoch's line in metrics.jsonl; `about` says which epoch, at which rates. NaN is None.

    repairs: names of the remedies that the run has begun anew with
    alignment: its parts and their value, 0 to 1, and the verdict with its reason and advice
    memory:    most the process has held so far, in MiB, and on the GPU
    """
    scores, aligned = validated.scores, validated.alignment
    record = {
        **about,
        "seconds": sums.seconds + validated.seconds,
        "train": sums.record(),
        "dev": {
            "distance": scores.distance,
            "cer": scores.cer,
            "wer": scores.wer,
            "loss": validated.loss,
            "ctc": validated.ctc,
            "seconds": validated.seconds,
        },
        "alignment": {
            "value": aligned.value,
            **asdict(aligned),
            "verdict": verdict.state,
            "reason": verdict.reason,
            "advice": list(verdict.advice),
        },
        "memory": _memory(),
    }
    return dict(plain(record))


def reading_record(
    sums: Sums, *, loss: float, perplexity: float, seconds: float, **about: Any
) -> dict[str, Any]:
    """An epoch's line of a model that only reads, its frames being symbols; NaN is None.

    loss, perplexity: a symbol, of sentences that it is not trained on; seconds: that took
    """
    record = {
        **about,
        "seconds": sums.seconds + seconds,
        "train": sums.record(),
        "dev": {"loss": loss, "perplexity": perplexity, "seconds": seconds},
        "memory": _memory(),
    }
    return dict(plain(record))


def _memory() -> dict[str, float | None]:
    return {
        "peak_mib": _mebibytes(peak_memory()),
        "gpu_peak_mib": _mebibytes(peak_gpu_memory()),
    }


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else round(size / 2**20, 1)
