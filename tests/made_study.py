"""A study's folder with runs that never were: what the report is tried on."""

import functools
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from toy_corpus import WORDS

from spelldown.recipe.recipe import read_recipe
from spelldown.search.metrics import Scores, score
from spelldown.study.folder import (
    Outcome,
    Plan,
    Row,
    State,
    StudyFolder,
    folder_name,
    write_outcome,
    write_scores,
)
from spelldown.study.report.findings import find
from spelldown.study.report.remarks import remark
from spelldown.study.report.rows import RowFigures, figures
from spelldown.training.run.pictures import attention_png
from spelldown.writing import write_whole

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"
EPOCHS = 6


@functools.cache
def picture() -> bytes:
    """A picture of attention."""
    return attention_png(torch.rand(1, 8, 40), "FOXES IN", 0.04, "u-001")


def spelled(wrong: float, seed: int, utterances: int = 60, said: int = 0) -> Scores:
    """Scores of utterances of which a share `wrong` of the letters is spelled wrongly.

    said: seed of what was said; the same for runs that are to be compared
    """
    text, chance = random.Random(said), random.Random(seed)
    references = [" ".join(text.choices(WORDS, k=text.randint(1, 5))) for _ in range(utterances)]
    hypotheses = [
        "".join("X" if chance.random() < wrong else letter for letter in reference)
        for reference in references
    ]
    return score(references, hypotheses, [f"u-{n:03}" for n in range(utterances)])


def record(epoch: int, wrong: float, aligned: bool, **about: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    verdict = "aligned" if aligned else "not aligning"
    return {
        "epoch": epoch,
        "updates": 10 * epoch,
        "rate": 1e-3,
        "teacher_forcing": 1.0,
        "best": True,
        "seconds": 2.0,
        "train": {"ce": 3.0 / epoch, "utterances_per_second": 20.0, "skipped": 0},
        "dev": {
            "distance": 10 * wrong,
            "cer": wrong,
            "wer": min(2 * wrong, 1.0),
            "loss": 3.2 / epoch,
        },
        "alignment": {
            "value": 1.0 if aligned else 0.1,
            "verdict": verdict,
            "reason": "attention is spread over all frames (alignment 0.10, CER 430%)",
        },
        "memory": {"peak_mib": 512.0, "gpu_peak_mib": None},
        **about,
    }


class MadeStudy:
    """Writes a study's folder row by row; `done` writes its plan."""

    def __init__(self, path: Path, parts: Sequence[str] = ("dev",)) -> None:
        self.folder = StudyFolder(path)
        self.parts = tuple(parts)
        self.rows: list[Row] = []

    def row(self, name: str, *runs: Mapping[str, Any], **about: Any) -> Row:
        """A row with a run for each of `runs` (arguments of `run`), seeds from 1."""
        names = {seed: f"{folder_name(name)}-seed{seed}" for seed in range(1, len(runs) + 1)}
        for (seed, run), what in zip(names.items(), runs, strict=True):
            self.run(run, seed, **what)
        row = Row(name=name, runs=names, **about)
        self.rows.append(row)
        return row

    def run(
        self,
        name: str,
        seed: int,
        wrong: float | None = 0.1,
        state: State = "finished",
        reason: str = "",
        aligned_from: int | None = 2,
        epochs: int = EPOCHS,
        pictures: Sequence[int] = (),
        changes: Sequence[str] = (),
        utterances: int = 60,
    ) -> None:
        """One run's folder. wrong: share of the letters; None for a run that has not begun."""
        if wrong is None:
            return
        folder = self.folder.run(name)
        asked = [f"seed={seed}", f"training.epochs={EPOCHS}", *changes]
        folder.path.mkdir(parents=True)
        folder.recipe.write_text(read_recipe(DEMO, asked).as_yaml())
        for epoch in range(1, epochs + 1):
            aligned = aligned_from is not None and epoch >= aligned_from
            folder.append_metrics(record(epoch, wrong + 1 / epoch - 1 / EPOCHS, aligned))
        for epoch in pictures:
            write_whole(folder.pictures / f"epoch-{epoch:03}-u-001.png", picture())
        scores = {}
        if state != "running":
            for n, part in enumerate(self.parts):
                scores[part] = spelled(wrong, 1000 * n + seed, utterances, said=n)
            write_scores(folder.path, scores)
        outcome = Outcome(
            name=name,
            seed=seed,
            identity=name,
            state=state,
            reason=reason,
            starts=1,
            epochs=epochs,
            best_epoch=epochs,
            weights=1_500_000,
            seconds=2.0 * epochs if state != "running" else 0.0,
            peak_mib=512.0,
        )
        write_outcome(folder.path, outcome)

    def done(self, base: str | None = "base", title: str = "") -> Path:
        """Writes the plan, and returns the study's folder."""
        plan = Plan("made", tuple(self.rows), base, self.parts, {}, title)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.write_plan(plan)
        return self.folder.path


def unfinished_line(metrics: Path) -> None:
    """Leaves a line in metrics.jsonl as a kill does."""
    with metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"epoch": 99})[:-3])


def rows_of(path: Path) -> dict[str, RowFigures]:
    """The figures of every row of the study in a folder, by name."""
    return {one.name: one for one in figures(find(path))}


def told(path: Path, name: str) -> str:
    """The remark on a row, which is held against the row `base`."""
    rows = rows_of(path)
    return remark(rows[name], rows["base"])


def data_of(html: str) -> dict[str, Any]:
    """What the page's script is given."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded
