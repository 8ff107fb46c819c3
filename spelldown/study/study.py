"""A study's file, as settings: what rows there are, how often each is run, and for how long.

    spelldown study recipes/studies/demo.yaml

The page is read like a recipe's: `base:` names a study that it builds on, everything that is wrong
with it is said at once, each with its line. `recipe:` names the recipe that the rows change.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spelldown.errors import RecipeError, StudyError
from spelldown.recipe.reading.checking import check_sections
from spelldown.recipe.reading.overrides import override
from spelldown.recipe.reading.page import COMMAND_LINE, Page, Problem, pages_nearby, read_page
from spelldown.recipe.reading.places import nearest, place_of_model
from spelldown.recipe.reading.whole import Whole
from spelldown.recipe.recipe import NAME, Recipe
from spelldown.settings import Settings
from spelldown.study.axes import (
    TRIAL,
    Axis,
    AxisSettings,
    ExploreSettings,
    GridSettings,
    OptunaSettings,
    key_of,
)
from spelldown.study.folder import counted, folder_name
from spelldown.study.where.local import LocalSettings
from spelldown.study.where.ray import RaySettings
from spelldown.study.where.slurm import SlurmSettings

Changes = dict[str, Any]
"""Places in a recipe by their dotted paths, and what is to stand there. A group is merged with what
is there, as a page is with its base; values and lists replace it; {} stands for the defaults."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class RowSettings(Settings):
    """One row: what it changes of the study's recipe, and what there is to say of it."""

    recipe: str | None = None
    """A recipe of its own in place of the study's; its path relative to the study's page."""
    changes: Changes = Field({}, description="places in the recipe, and what is to stand there")
    remark: str = ""
    """What the report says of the row, beside what happened."""
    published: dict[str, str | float] = Field({})
    """Figures that others gave, for the report: {distance: 20.68, remark: took very long}."""


class BudgetSettings(Settings):
    """How long each run may train; the first limit that is reached ends it."""

    epochs: int | None = Field(None, ge=1)
    """In place of the recipes' training.epochs, which rates and their schedules go by."""
    updates: int | None = Field(None, ge=1)
    """As many whole epochs as come nearest to so many updates, in place of training.epochs."""
    minutes: float | None = Field(None, gt=0)
    """Of training with its validations, over all starts; what a kill has lost does not count.
    Schedules know nothing of it: they go by epochs."""


class StudySettings(Whole):
    """A study, whole."""

    name: str = Field("", pattern=f"{NAME}|^$", examples=["dropout", "an4-norms.2"])
    """What its folder is called: studies/NAME. The file's own name unless told otherwise."""
    title: str = ""
    """The head of the report."""
    recipe: str = ""
    """The recipe that rows and axes change; its path relative to this page."""
    shared: Changes = Field({}, description="changes of every row")
    rows: dict[str, RowSettings] = Field({}, description="rows by their names, in this order")
    axes: dict[str, AxisSettings] = Field({})
    """What is varied of the recipe: a place and its values (`attention.width: [64, 128]`), or a
    name of your own with a group (see study/axes.py)."""
    explore: ExploreSettings = GridSettings()
    """How axes make rows: every combination, one at a time, side by side, drawn or searched for."""
    base_row: bool = True
    """Whether the recipe itself is the first row, `base`, where no row is the recipe unchanged."""
    compare_with: str | None = None
    """The row that the report compares the others with; the one that changes nothing if null."""
    seeds: tuple[Seed, ...] | Annotated[int, Field(ge=1)] = (1,)
    """Of the runs of each row: a list, or how many, counted from 1."""
    budget: BudgetSettings = BudgetSettings()
    """How long each run may train."""
    parts: tuple[str, ...] = Field(("dev", "test"), min_length=1)
    """On which each run is scored at its end: dev, test, train, or a part's own name. One without
    transcripts is noted."""
    on: Literal["local", "ray", "slurm"] = "local"
    """Where runs happen: this machine, a Ray cluster, or Slurm."""
    local: LocalSettings = LocalSettings()
    """How runs share this machine."""
    ray: RaySettings = RaySettings()
    """The Ray cluster of `on: ray`."""
    slurm: SlurmSettings = SlurmSettings()
    """What runs ask Slurm for, `on: slurm`."""

    @property
    def every_seed(self) -> tuple[int, ...]:
        if isinstance(self.seeds, int):
            return tuple(range(1, self.seeds + 1))
        return self.seeds


@dataclass(frozen=True)
class Study:
    """A study's page, read: its settings, where each value was written, and what was typed on the
    command line, all of it and what changes its recipes."""

    settings: StudySettings
    path: Path
    origins: Mapping[tuple[str | int, ...], str] = field(repr=False)
    overrides: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()

    def written(self, *keys: str | int) -> str:
        """`study.yaml:12`, for a place in the page; the page where nobody knows."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.origins:
                return self.origins[keys[:end]]
        return str(self.path)

    def page(self, recipe: str, *keys: str | int) -> Path:
        """The recipe that the page names at a place: relative to the page that names it."""
        where = self.written(*keys)
        page = Path(where.rpartition(":")[0]) if ":" in where else self.path
        folder = Path() if where == COMMAND_LINE else page.parent
        return folder / recipe

    def resolved(self, folder: Path) -> str:
        """The page with every key stated, to stand in a folder, from where it names its recipes; a
        comment tells what was typed to change them."""

        def from_there(recipe: str, *keys: str) -> str:
            return os.path.relpath(self.page(recipe, *keys), folder)

        settings = self.settings
        rows = {
            name: row.model_copy(update={"recipe": from_there(row.recipe, "rows", name, "recipe")})
            for name, row in settings.rows.items()
            if row.recipe is not None
        }
        changed: dict[str, Any] = {"rows": {**settings.rows, **rows}}
        if settings.recipe:
            changed["recipe"] = from_there(settings.recipe, "recipe")
        head = f"# {self.path}, every key stated\n"
        if self.overrides:
            head += f"# Laid over its recipes besides: {shlex.join(self.overrides)}\n"
        return head + settings.model_copy(update=changed).as_yaml()


ROOT = place_of_model(StudySettings)


def read_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """The study in the page at `path`, with `key=value` laid over it.

    Overrides that begin with a key of studies (`budget.epochs=3`, `seeds=[1,2]`) change the study;
    all others (`data.root=...`) are laid over the recipe of every row, under the row's own changes.
    Raises StudyError with everything that is wrong with the page; the recipes that it names are not
    looked at yet (`plan.py`).
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"no study at {path}{pages_nearby(path, 'pages')}")
    try:
        page = read_page(path, ROOT)
    except RecipeError as error:
        raise StudyError(error.summary, error.problems) from None
    _hold_study(page, path)
    ours = [text for text in overrides if _first(text) in StudySettings.model_fields]
    rest = [text for text in overrides if text not in ours]
    for text in ours:
        override(page, text, ROOT)
    checked = check_sections(page.data, StudySettings)
    problems = [*page.problems, *map(_in_words, _telling(checked.problems)), *_astray(rest)]
    broken = {problem.path[0] for problem in problems if problem.path}
    settings = StudySettings(**{"name": _name(path), **_given(checked.sections, page)})
    problems += [clash for clash in _impossible(settings) if not clash.sections & broken]
    if problems:
        told = [problem.text(page.origins) for problem in problems]
        raise StudyError(f"{path} cannot be studied: {counted(len(told), 'problem')}", told)
    return Study(settings, path, page.origins, tuple(rest), tuple(overrides))


def _hold_study(page: Page, path: Path) -> None:
    """Raises StudyError for the page of a recipe, of which every key would be wrong."""
    of_recipes = page.data.keys() & (Recipe.model_fields.keys() - StudySettings.model_fields.keys())
    if of_recipes and not page.data.keys() & {"recipe", "rows", "axes"}:
        raise StudyError(
            f"{path} is a recipe, which `spelldown train {path}` trains; a study names one, as in "
            f"`recipe: {path.name}`, and the `rows` or `axes` that change it"
        )


def _astray(overrides: Sequence[str]) -> list[Problem]:
    """What is wrong with changes of all recipes, as far as a study's page can tell."""
    found, known = [], [*StudySettings.model_fields, *Recipe.model_fields]
    for text in overrides:
        key = _first(text)
        if key and "=" not in text:
            told = "is not KEY=VALUE; names with spaces want quotes, as in --only 'low rate'"
        elif key == "seed":
            told = "`seeds` decides it, as in seeds=[7]"
        elif key and key not in Recipe.model_fields:
            meant = nearest(key, known)
            told = f"neither studies nor recipes have a {key}"
            told += f"; did you mean {meant}?" if meant else ""
        else:
            continue
        found.append(Problem((), f"{text} ({COMMAND_LINE}): {told}"))
    return found


def _telling(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, with what is wrong of seeds told for one of the two that they may be: a list
    or a number."""
    whole = [problem for problem in problems if problem.path == ("seeds",)]
    listed = any(len(problem.path) > 1 and problem.path[0] == "seeds" for problem in problems)
    silent = whole if listed else whole[:-1]
    return [problem for problem in problems if problem not in silent]


def _in_words(problem: Problem) -> Problem:
    """A problem of an unknown key, which pydantic tells otherwise below a name of the user's."""
    models: dict[Any, type[Settings]] = {"rows": RowSettings, "axes": Axis}
    model = models.get(problem.path[0] if problem.path else None)
    if model is None or not problem.message.startswith("Extra inputs"):
        return problem
    meant = nearest(str(problem.path[-1]), list(model.model_fields))
    guess = f"did you mean {meant!r}?" if meant else f"keys here: {', '.join(model.model_fields)}"
    return Problem(problem.path, f"unknown key; {guess}")


def _given(sections: Mapping[str, Any], page: Page) -> dict[str, Any]:
    return {name: value for name, value in sections.items() if name in page.data}


def _first(text: str) -> str:
    return text.partition("=")[0].split(".")[0].strip()


def _name(path: Path) -> str:
    """A page's own name, as a folder can have it."""
    name = folder_name(path.resolve().stem)
    return re.sub(r"[^A-Za-z0-9._-]", "_", name if name[0].isalnum() else f"study-{name}")


@dataclass(frozen=True)
class _Clash(Problem):
    """Settings that are each right but impossible together; `also`: other sections that were looked
    at. What cannot be read makes no clash."""

    also: tuple[str, ...] = ()

    @property
    def sections(self) -> set[str | int]:
        return {self.path[0], *self.also}


def _impossible(settings: StudySettings) -> Iterator[_Clash]:
    if not settings.name:
        yield _Clash(("name",), "is empty; without it, the study is called as its file is")
    if not settings.recipe and not (
        settings.rows and all(r.recipe for r in settings.rows.values())
    ):
        yield _Clash(("recipe",), "is missing: the recipe that the rows change", ("rows",))
    if settings.axes and not settings.recipe:
        yield _Clash(("axes",), "need a recipe that they vary", ("recipe",))
    if not settings.rows and not settings.axes:
        yield _Clash(("rows",), "there are neither rows nor axes: nothing to study", ("axes",))
    if settings.explore != GridSettings() and not settings.axes:
        yield _Clash(("explore",), "there are no axes to explore", ("axes",))
    if settings.budget.epochs and settings.budget.updates:
        yield _Clash(("budget",), "epochs and updates both decide training.epochs: choose one")
    for place, changes in _all_changes(settings):
        for key in changes:
            if key in ("name", "seed"):
                message = "rows are named by the study" if key == "name" else "seeds: decides it"
                yield _Clash((*place, key), f"cannot be changed here: {message}")
    seeds = settings.every_seed
    if not seeds:
        yield _Clash(("seeds",), "is empty: give how many runs each row has, or a list")
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        told = ", ".join(map(str, twice))
        yield _Clash(("seeds",), f"more than once: {told}; the same run would come of it")
    yield from _impossible_axes(settings)


def _impossible_axes(settings: StudySettings) -> Iterator[_Clash]:
    explore, axes = settings.explore, settings.axes
    for name, axis in axes.items():
        for text in axis_problems(axis, settings):
            yield _Clash(("axes", name), text, ("explore",))
    if isinstance(explore, OptunaSettings):
        if explore.sampler == "cma-es" and len(axes) == 1:
            yield _Clash(("explore",), "cma-es needs two axes or more, tpe only one", ("axes",))
        told = f"rows that Optuna thinks of are called {TRIAL}001 and so on; give it another name"
        for name in settings.rows:
            if name.startswith(TRIAL):
                yield _Clash(("rows", name), told)
    first: dict[str, str] = {}
    for name, axis in axes.items() if explore.kind != "one-at-a-time" else ():
        key = key_of(name, axis)
        if key is not None and first.setdefault(key, name) != name:
            told = f"varies {key}, as {first[key]} does, whose values would have no effect"
            yield _Clash(("axes", name), told, ("explore",))


def axis_problems(axis: AxisSettings, settings: StudySettings) -> list[str]:
    """What is wrong with an axis, given how axes are explored."""
    explore = settings.explore
    ranged = not isinstance(axis, list) and axis.values is None
    if isinstance(axis, list) and not axis:
        return ["has no values"]
    if ranged and explore.kind not in ("random", "optuna"):
        return [
            f"a range has no end of values for explore kind {explore.kind}; list "
            "`values`, or choose random or optuna"
        ]
    if not ranged and isinstance(explore, OptunaSettings) and explore.sampler == "cma-es":
        return ["cma-es searches ranges alone: give `low` and `high`, or choose tpe"]
    return []


def _all_changes(settings: StudySettings) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    rows = [(("rows", name, "changes"), row.changes) for name, row in settings.rows.items()]
    return [(("shared",), settings.shared), *rows]
