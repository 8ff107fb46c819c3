"""An n-gram language model, made in its folder.

language_model.json   kind ngram, its order and symbols, what it was made from, its perplexity
model.arpa            the model, for any toolkit
nodes.safetensors     the same as search reads it, in a moment
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spelldown.errors import LanguageModelError
from spelldown.progress import Progress, quiet
from spelldown.recipe.language.texts import Texts
from spelldown.search.language.arpa import write_arpa
from spelldown.search.language.kneser_ney import Estimated, estimate
from spelldown.search.language.language_model import PAGE, LanguageModel, log_probs_of
from spelldown.search.language.ngram import ARPA, NODES, NGram
from spelldown.search.language.nodes import nodes_of
from spelldown.writing import held, write_whole

ORDER, LONGEST_ORDER = 6, 16
MEMORY = 1 << 30  # bytes
NODE_BYTES = 120  # an n-gram, while nodes are made of it
SCRATCH, LOCK = ".counting", ".lock"
OURS = {SCRATCH, LOCK, ARPA, NODES}  # what one that was killed may have left


def train_ngram(
    texts: Texts,
    folder: Path,
    order: int = ORDER,
    memory: int = MEMORY,
    progress: Progress = quiet,
    tell: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Makes an n-gram model of these texts in a new folder, and gives its page.

    memory: bytes that counting may hold; what is more waits on disk, in the folder. A model too
    large for it is written, but not judged. tell: what is being done, for people.
    Raises DataError for texts that cannot be used, and LanguageModelError for a folder with a
    language model or anything else in it, or one that another process writes into.
    """
    if not 1 <= order <= LONGEST_ORDER:
        raise ValueError(f"order is 1 to {LONGEST_ORDER}, found {order}")
    if (folder / PAGE).exists():
        raise LanguageModelError(f"{folder} holds a language model already; choose another folder")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    if other := sorted(there - OURS):
        raise LanguageModelError(f"{folder} is not an empty folder: {other[0]}; choose another one")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder / LOCK) as ours:
            if not ours:
                raise LanguageModelError(f"{folder}: another process makes a language model there")
            return _made(texts, folder, order, memory, progress, tell)
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)  # a folder without a page is of no use
        raise


def _made(
    texts: Texts,
    folder: Path,
    order: int,
    memory: int,
    progress: Progress,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    scratch, vocabulary = folder / SCRATCH, texts.vocabulary
    shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
    scratch.mkdir()
    try:
        read = progress("reading", texts.lines(), texts.count())
        sentences = map(vocabulary.encode, texts.sentences(read))
        model = estimate(sentences, order, len(vocabulary), scratch, memory, tell)
        tell(f"writing {sum(map(len, model.orders)):,} n-grams")
        write_arpa(scratch / ARPA, model, vocabulary.symbols)
        (scratch / ARPA).replace(folder / ARPA)
        judged: dict[str, Any] = {}
        if sum(map(len, model.orders)) * NODE_BYTES <= memory:
            ngram = NGram(nodes_of(model), vocabulary.symbols, order)
            ngram.keep_nodes(folder)
            judged = perplexity(ngram, texts)
        else:
            (folder / NODES).unlink(missing_ok=True)
            tell("a model of this size is not judged; more --memory would allow it")
        page = {**_page(model, texts), **judged}
        write_whole(folder / PAGE, json.dumps(page, ensure_ascii=False, indent=2) + "\n")
        return page
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def perplexity(model: LanguageModel, texts: Texts, device: str = "cpu") -> dict[str, Any]:
    """The perplexity of a model on the sentences that judge it; empty if there are none.

    A symbol's, and a character's, the end of a sentence counted as one of either.
    """
    if not texts.judging:
        return {}
    judging = [texts.vocabulary.encode(line) for line in texts.judging]
    total = math.fsum(log_probs_of(model, judging, torch.device(device)))
    symbols = sum(map(len, judging)) + len(judging)
    characters = sum(map(len, texts.judging)) + len(judging)
    return {
        "perplexity": math.exp(-total / symbols),
        "perplexity_of_a_character": math.exp(-total / characters),
        "judged_by": {"sentences": len(judging), "symbols": symbols},
    }


def about(texts: Texts) -> dict[str, Any]:
    """What a language model's page tells of its texts, once they have been gone through."""
    met = texts.met
    return {
        "texts": [str(path) for path in texts.settings.text],
        "transcripts": len(texts.transcripts),
        "sentences": met.learnt,
        "characters": met.characters,
        "left_out": met.left_out,
        "unknown_lines": met.odd,
        "sha256": met.digest,
    }


def _page(model: Estimated, texts: Texts) -> dict[str, Any]:
    return {
        "kind": "ngram",
        "symbols": list(texts.vocabulary.symbols),
        "order": len(model.orders),
        "ngrams": [len(order) for order in model.orders],
        "discounts": [list(order.discounts.amounts) for order in model.orders],
        "discounts_fallen_back": [
            length for length, order in enumerate(model.orders, 1) if order.discounts.fallen_back
        ],
        **about(texts),
    }
