"""What `spelldown demo` runs: the whole of spelldown in small, in about ten minutes.

    1  make a spoken corpus       data/demo
    2  train recipes/demo.yaml    runs/demo
    3  test it on voices and sentences that it never heard
    4  spell one recording
    5  leave a page to look at    runs/demo/attention.html

Started again, it goes on where it was: what is finished is used as it is, and it says so.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spelldown.data.corpora import read_part
from spelldown.data.synthesis import DemoCorpusSettings, make_demo_corpus
from spelldown.errors import RecipeError
from spelldown.recipe import run as runs
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.recipe.run import Run, load_run
from spelldown.recipe.using.evaluation import Evaluation, evaluate, write_page
from spelldown.recipe.using.transcription import transcribe
from spelldown.search.metrics import Utterance
from spelldown.terminal import console, working
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.tracking import duration, tracker_for

PAGE = Path("recipes") / "demo.yaml"
SHOWN = 6  # pairs of what was said and what was spelled


def run_demo(
    again: bool = False,
    overrides: Sequence[str] = (),
    corpus: DemoCorpusSettings | None = None,
    folder: Path = runs.RUNS / "demo",
) -> Evaluation | None:
    """Does all five steps, in the folder that it is called in; None if training was interrupted.

    again: train anew, in a folder beside an earlier demo's. overrides: of the demo's recipe.
    """
    out, began = console(), time.monotonic()
    recipe = read_recipe(_page(), overrides)
    _headline(out, 1, f"a spoken corpus, in {recipe.data.root}")
    make_demo_corpus(recipe.data.root, corpus)
    _headline(out, 2, f"training {PAGE}")
    place = _train(out, recipe, folder, again)
    if place is None:
        return None
    run = load_run(place)
    _headline(out, 3, "testing it on voices and sentences that it never heard")
    evaluation = evaluate(run, "test", working(console(stderr=True)))
    _show_scores(out, evaluation)
    _headline(out, 4, "one recording")
    recording = _recording(recipe)
    for heard in transcribe(run, [recording]):
        out.print(f"spelldown transcribe {place} {recording}\n  {heard.text}")
    _headline(out, 5, "where it looked")
    _leave_page(out, run, evaluation, place)
    out.print(f"\nThe demo took {duration(time.monotonic() - began)}. {_next(place)}")
    return evaluation


def _page() -> Path:
    """The demo's recipe: in this folder, or beside the package's source."""
    for page in (PAGE, Path(__file__).parent.parent / PAGE):
        if page.is_file():
            return page
    raise RecipeError(f"there is no {PAGE} here; call the demo in spelldown's own folder")


def _headline(out: Console, step: int, text: str) -> None:
    out.print(f"\n[{step}/5] {text}", style="bold")


def _train(out: Console, recipe: Recipe, folder: Path, again: bool) -> Path | None:
    """The folder of a trained run of this recipe, or None if training was interrupted."""
    tracker = tracker_for(out)
    place = RunFolder(folder)
    earlier = place.recipe.is_file()
    if earlier and not again and read_recipe(place.recipe) != recipe:
        out.print(f"{folder} was trained by another recipe; training anew beside it")
        again = True
    if earlier and not again:
        out.print(f"{folder} is there from an earlier demo and is used: it goes on if it was")
        out.print("interrupted. (`spelldown demo --again` trains anew.)")
        outcome = runs.resume(folder, tracker)
    else:
        place = runs.new_folder(folder.name, folder.parent) if earlier else runs.free_folder(folder)
        outcome = runs.start(recipe, place, tracker)
    if outcome.ending == "interrupted":
        out.print("interrupted and saved; call the demo again and it goes on from here")
        return None
    out.print(f"trained: {outcome.epochs} epochs, the best was epoch {outcome.best_epoch}")
    return place.path


def _show_scores(out: Console, evaluation: Evaluation) -> None:
    scores = evaluation.scores
    out.print(
        f"{scores.utterances} sentences by unheard voices: {scores.cer:.1%} of the characters and "
        f"{scores.wer:.1%} of the words are wrong\n"
    )
    for one in _some(scores.each):
        out.print(f"  heard    {one.reference}\n  spelled  {one.hypothesis}\n")


def _some(utterances: Sequence[Utterance]) -> list[Utterance]:
    """A handful evenly through the part, which is sorted by voice: good ones and bad ones."""
    step = max(1, len(utterances) // SHOWN)
    return list(utterances[step // 2 :: step][:SHOWN])


def _recording(recipe: Recipe) -> Path:
    """The first recording of the test part."""
    cut = next(iter(read_part(recipe.data, str(recipe.data.test)).cuts))
    return Path(cut.recording.sources[0].source)


def _leave_page(out: Console, run: Run, evaluation: Evaluation, place: Path) -> None:
    page = place / "attention.html"
    write_page(run, evaluation, page)
    out.print(f"{page}: open it in a browser. A bright line from bottom left to top right")
    out.print("means that it listened to each letter's place in turn while it spelled.")


def _next(place: Path) -> str:
    ideas = {
        f"spelldown evaluate {place}": "every number, and the ten worst sentences",
        f"spelldown transcribe {place} YOUR.wav": "your own voice; it knows ninety words",
        "spelldown recipe recipes/demo.yaml": "what it was made of",
        "spelldown train recipes/demo.yaml attention.kind=dot": "an experiment of your own",
        "docs/tour.md": "how it works, one file a station",
    }
    widest = max(map(len, ideas))
    lines = [f"  {command:{widest}}  {what}" for command, what in ideas.items()]
    return "\n".join(["What to try next:", *lines])
