"""The mean context of a run: what it is, where it is kept, and when it is reckoned anew."""

from pathlib import Path

import pytest
import torch
import yaml
from toy_corpus import write_corpus

from spelldown.data.corpora import read_part
from spelldown.errors import DataError
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.language.internal import learn_mean_context, mean_context
from spelldown.recipe.parts import Parts, build_batches, build_parts, checked_part
from spelldown.recipe.recipe import read_recipe
from spelldown.training.run.run_folder import RunFolder

PAGE = {
    "name": "small",
    "frontend": {"kind": "arrays", "width": 4},
    "listener": {"blocks": [{"kind": "conv", "widths": [6], "stride": 2}]},
    "attention": {"kind": "location", "width": 8, "values": 6, "heads": 2},
    "speller": {"embedding": 6, "width": 12},
    "training": {"precision": "float32", "device": "cpu"},
}


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    corpus = write_corpus(tmp_path / "corpus", {"train": 9, "dev": 2})
    page = tmp_path / "small.yaml"
    page.write_text(yaml.safe_dump({**PAGE, "data": {"kind": "arrays", "root": str(corpus)}}))
    return build_parts(read_recipe(page))


def contexts_step_by_step(parts: Parts, recognizer: Recognizer) -> torch.Tensor:
    """Every context of the training part (N, C), each utterance alone, by the speller's steps."""
    recipe, found = parts.recipe, []
    part = checked_part(recipe, read_part(recipe.data, "train"))
    for batch in build_batches(recipe, part, parts.vocabulary, training=False).epoch(1):
        assert batch.symbols is not None
        for row, symbols in enumerate(batch.symbols):
            length = batch.lengths[row : row + 1]
            state = recognizer.start(
                recognizer.listen(batch.frames[row : row + 1, : int(length)], length)
            )
            for fed in symbols[symbols != 0][:-1]:
                _, state = recognizer.step(fed.view(1), state)
                found.append(state.context[0])
    return torch.stack(found)


def test_it_is_the_mean_over_every_symbol_said(parts: Parts) -> None:
    recognizer = parts.recognizer.eval()
    batches = build_batches(
        parts.recipe,
        checked_part(parts.recipe, read_part(parts.recipe.data, "train")),
        parts.vocabulary,
        training=False,
    )
    with torch.no_grad():
        expected = contexts_step_by_step(parts, recognizer).mean(0)
    assert torch.allclose(mean_context(recognizer, batches.epoch(1)), expected, atol=1e-6)


def test_it_is_kept_in_the_run_for_the_weights_it_belongs_to(parts: Parts) -> None:
    folder = RunFolder(parts.recipe.data.root.parent / "run")
    folder.path.mkdir()
    recognizer = parts.recognizer

    def learnt(state: object) -> torch.Tensor:
        recognizer.mean_context = None
        learn_mean_context(recognizer, parts.recipe, parts.vocabulary, folder, state)
        assert recognizer.mean_context is not None
        return recognizer.mean_context

    first = learnt({"epoch": 1})
    assert recognizer.training
    with torch.no_grad():
        recognizer.speller.attention.value.bias.add_(1)
    assert torch.equal(learnt({"epoch": 1}), first)
    later = learnt({"epoch": 2})
    assert torch.allclose(later, first + 1, atol=0.5) and not torch.equal(later, first)
    (folder.path / "context.safetensors").write_bytes(b"half a fi")
    assert torch.equal(learnt({"epoch": 2}), later)


def test_a_corpus_that_is_gone_is_named_with_what_else_can_be_done(parts: Parts) -> None:
    folder, root = RunFolder(parts.recipe.data.root.parent / "run"), parts.recipe.data.root
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"search\.ilm: mean.*is not a folder.*ilm zero"):
        learn_mean_context(parts.recognizer, parts.recipe, parts.vocabulary, folder, 1)
