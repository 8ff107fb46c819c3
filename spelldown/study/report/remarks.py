"""A remark for each row, written from what happened to its runs."""

from collections.abc import Callable, Sequence
from typing import Any

from spelldown.study.folder import counted
from spelldown.study.report.findings import Found
from spelldown.study.report.rows import RowFigures
from spelldown.training.run.tracking import duration

SLOWER = 1.3  # times the base's seconds an epoch from which it is worth a word
LATE = 0.95  # of the epochs: a best one after that says that more epochs would have helped
SPENT = 0.1  # of the highest rate: below that a run has learnt what its schedule foresaw
WORSE = 1.15  # by how much the dev loss must have risen since its lowest to be told


def remark(one: RowFigures, base: RowFigures | None) -> str:
    """What happened to a row, in a few sentences; empty before anything has."""
    told = [
        _states(one),
        _alignment(one),
        _best(one),
        _overfitting(one),
        _mishaps(one),
        _time(one, base),
    ]
    return " ".join(sentence for sentence in told if sentence)


def _states(one: RowFigures) -> str:
    """What is still to come, and what came to an end before its time."""
    told = []
    for run in one.runs:
        state, reason = run.outcome.state, run.outcome.reason.rstrip(".")
        if state == "running":
            told.append(f"{_seed(one, run)}{_at(run)}")
        elif state == "failed":
            told.append(f"{_seed(one, run)}failed after {_epochs(run)}: {reason}")
        elif state == "stopped":
            told.append(f"{_seed(one, run)}was stopped after {_epochs(run)}: {reason}")
        elif state == "waiting" and run.records:
            told.append(f"{_seed(one, run)}waits: {reason or f'{_epochs(run)} are done'}")
    begun = sum(run.outcome.state != "waiting" or bool(run.records) for run in one.runs)
    left = max(len(one.row.runs), len(one.runs)) - begun
    if left:
        told.append("not begun" if not begun else f"{left} of {len(one.row.runs)} not begun")
    return " ".join(map(_sentence, told))


def _at(run: Found) -> str:
    """Where a run is that goes on."""
    if len(run.records) == run.planned:
        return "is being scored"
    return f"is in epoch {len(run.records) + 1} of {run.planned}"


def _seed(one: RowFigures, run: Found) -> str:
    return f"seed {run.seed} " if len(one.row.runs) > 1 else ""


def _epochs(run: Found) -> str:
    return counted(max(run.outcome.epochs, len(run.records)), "epoch")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _alignment(one: RowFigures) -> str:
    """Whether attention aligned, when, and what was wrong where it did not."""
    told = [run for run in one.runs if run.records]
    if not told:
        return ""
    aligned = [run for run in told if run.aligned_epoch is not None]
    lost = [run for run in told if run.alignment == "not aligning"]
    parts = []
    if aligned:
        share = "" if len(aligned) == len(told) else f" in {len(aligned)} of {len(told)} runs"
        # The epoch of a sole seed needs no list.
        epochs = _listed([run.aligned_epoch for run in aligned], "epoch", "epochs")
        parts.append(f"attention aligned{share} in {epochs}")
    # Why a run was stopped has been told already.
    never = [r for r in lost if r.aligned_epoch is None and r.outcome.state != "stopped"]
    if never:
        parts.append(f"attention never aligned{_of(never, told)}: {_symptom(never[0])}")
    apart = [run for run in lost if run.aligned_epoch is not None]
    if apart:
        parts.append(f"it came apart again{_of(apart, told)}")
    young = [r for r in told if r.alignment == "aligning" and r.aligned_epoch is None]
    if young and all(run.outcome.over for run in young):
        parts.append(f"attention had not aligned yet{_of(young, told)}: {_symptom(young[0])}")
    return _sentence("; ".join(parts)) if parts else ""


def _of(some: Sequence[Found], every: Sequence[Found]) -> str:
    return "" if len(some) == len(every) else f" in {len(some)} of {len(every)}"


def _symptom(run: Found) -> str:
    """The verdict's reason without the numbers behind it."""
    return str(run.records[-1]["alignment"]["reason"]).split(" (alignment")[0]


def _listed(numbers: Sequence[int | None], one: str, many: str) -> str:
    """`epoch 5`, `epochs 5 and 7`, `epochs 4 to 9` for more than three."""
    found = sorted({number for number in numbers if number is not None})
    if len(found) == 1:
        return f"{one} {found[0]}"
    if len(found) > 3:
        return f"{many} {found[0]} to {found[-1]}"
    return f"{many} {', '.join(map(str, found[:-1]))} and {found[-1]}"


def _best(one: RowFigures) -> str:
    """Where the best epochs were, and whether more would have helped."""
    over = [run for run in one.runs if run.outcome.over and run.best and run.planned]
    if not over:
        return ""
    bests = [run.best["epoch"] for run in over if run.best]
    best = _listed(bests, "epoch", "epochs")
    lengths = {len(run.records) for run in over}
    if len(lengths) == 1 and len(bests) == 1 and max(bests) == max(lengths):
        told = f"best at its last epoch, {bests[0]}"
    else:
        told = f"best at {best}" + (f" of {lengths.pop()}" if len(lengths) == 1 else "")
    limit = [run for run in over if _improving(run)]
    early = [r for r in over if r.outcome.state == "finished" and len(r.records) < (r.planned or 0)]
    if len(limit) == len(over):
        told += ": still improving when its epochs were over"
    elif early:
        told += f"; ended early{_of(early, over)}"
        told += f" ({early[0].outcome.reason.rstrip('.')})" if early[0].outcome.reason else ""
    return _sentence(told)


def _improving(run: Found) -> bool:
    """Whether it was better than ever when its epochs were over, and still learning: where the
    rate has come down as its schedule foresaw, the last epochs are the best ones by design."""
    count = len(run.records)
    if run.best is None or not 1 < count == run.planned or run.best["epoch"] <= LATE * count:
        return False
    return bool(run.records[-1]["rate"] > SPENT * max(record["rate"] for record in run.records))


def _overfitting(one: RowFigures) -> str:
    """Whether it went on learning the training part by heart."""
    risen = []
    for run in one.runs:
        losses = [r["dev"]["loss"] for r in run.records if r["dev"]["loss"] is not None]
        if run.outcome.over and losses and losses[-1] > WORSE * min(losses):
            risen.append((losses.index(min(losses)) + 1, losses[-1] / min(losses)))
    if not risen or len(risen) < len(one.runs):
        return ""
    epoch, ratio = sorted(risen, key=lambda each: each[1])[len(risen) // 2]
    return f"The dev loss rose by {ratio - 1:.0%} after epoch {epoch}."


def _mishaps(one: RowFigures) -> str:
    """Skipped updates, out of memory that was survived, and starts after the first."""
    told = []
    skipped = _sum(one, lambda run: sum(r["train"].get("skipped", 0) for r in run.records))
    if skipped:
        told.append(f"{skipped:,} updates were skipped, their gradients not finite")
    outgrown = _sum(one, lambda run: run.outgrown)
    if outgrown:
        often = "once" if outgrown == 1 else f"{outgrown:,} times"
        told.append(f"memory ran out {often}, and batches were done in parts")
    repairs = list(dict.fromkeys(name for run in one.runs for name in run.repairs))
    if repairs:
        repaired = [run for run in one.runs if run.repairs]
        told.append(f"begun anew{_of(repaired, one.runs)} with {', '.join(repairs)}")
    again = _sum(one, lambda run: max(run.outcome.starts - 1, 0))
    if again:
        told.append("taken up again " + ("once" if again == 1 else f"{again} times"))
    return _sentence("; ".join(told)) if told else ""


def _sum(one: RowFigures, count: Callable[[Found], int]) -> int:
    return sum(count(run) for run in one.runs)


def _time(one: RowFigures, base: RowFigures | None) -> str:
    """How an epoch's time compares with the base's, where it has the same utterances."""
    if base is None or base is one or _hears(base) != _hears(one):
        return ""
    ours, theirs = _epoch_seconds(one), _epoch_seconds(base)
    if not ours or not theirs:
        return ""
    if ours > SLOWER * theirs:
        how = f"{ours / theirs:.1f} times as long as the base's"
    elif ours * SLOWER < theirs:
        how = f"{ours / theirs:.0%} of the base's"
    else:
        return ""
    return f"An epoch took {duration(ours)}, {how}."


def _hears(one: RowFigures) -> Any:
    """What a row's runs are trained on, as their recipes say."""
    return next((run.recipe["data"] for run in one.runs if run.recipe), None)


def _epoch_seconds(one: RowFigures) -> float | None:
    each = [record["seconds"] for run in one.runs for record in run.records]
    return sum(each) / len(each) if each else None
