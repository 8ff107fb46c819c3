"""A run trained for a moment on a toy corpus, for tests of what runs are used for."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from toy_corpus import write_corpus

from spelldown.recipe.recipe import read_recipe
from spelldown.recipe.run import start
from spelldown.training.run.run_folder import RunFolder

WIDTH = 4


@dataclass(frozen=True)
class Trained:
    """A run's folder, and its corpus."""

    run: Path
    corpus: Path


def toy_page(corpus: Path, **sections: Any) -> dict[str, Any]:
    """A recipe of a recognizer so small that it trains in a second."""
    return {
        "name": "tiny",
        "data": {"kind": "arrays", "root": str(corpus)},
        "frontend": {"kind": "arrays", "width": WIDTH},
        "batching": {"utterances": 4},
        "listener": {"blocks": [{"kind": "conv", "widths": [8], "stride": 2}]},
        "attention": {"kind": "dot", "width": 8},
        "speller": {"embedding": 8, "width": 16},
        "ctc": {},
        "loss": {"ctc_weight": 0.3},
        "training": {"epochs": 1, "threads": 1, "pictures_every": 0, "device": "cpu"},
        "search": {"kind": "greedy", "longest": 20},
        **sections,
    }


def write_page(path: Path, corpus: Path, **sections: Any) -> Path:
    """Writes the recipe of a toy, and returns where."""
    path.write_text(yaml.safe_dump(toy_page(corpus, **sections)))
    return path


def train_toy(folder: Path, **sections: Any) -> Trained:
    """Trains a toy in a folder: 8 utterances of train, 4 of dev, 6 of test."""
    corpus = write_corpus(folder / "corpus", {"train": 8, "dev": 4, "test": 6}, WIDTH)
    page = write_page(folder / "toy.yaml", corpus, **sections)
    run = RunFolder(folder / "run")
    start(read_recipe(page), run)
    return Trained(run.path, corpus)


def copied(once: Trained, folder: Path) -> Trained:
    """A copy of a run, to be changed, in a folder; its recipe names the copy of its corpus."""
    run, corpus = folder / "run", once.corpus.with_name(f"corpus-{folder.name}")
    shutil.copytree(once.run, run)
    shutil.copytree(once.corpus, corpus)
    page = run / "recipe.yaml"
    page.write_text(page.read_text().replace(str(once.corpus), str(corpus)))
    return Trained(run, corpus)
