"""From a study's page to its runs: every row's recipe resolved, checked, and told from the base.

Nothing is trained before every recipe is right and every corpus can be read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spelldown.data.batching import Batches
from spelldown.errors import RecipeError, StudyError, TrainingError
from spelldown.recipe.reading.overrides import change, override
from spelldown.recipe.reading.page import Page, Problem, read_page
from spelldown.recipe.recipe import ROOT, Recipe, recipe_of
from spelldown.study.axes import Choice, OptunaSettings, combinations, values_of
from spelldown.study.columns import setup
from spelldown.study.corpora import corpora_of, corpus_of, epochs_for, unknown_parts
from spelldown.study.folder import Plan, Row, StudyFolder, counted, folder_name
from spelldown.study.identity import identity_of
from spelldown.study.study import RowSettings, Study
from spelldown.training.run.trackers.kinds import hold_installed
from spelldown.training.update import device_for

BASE = "base"


@dataclass
class Planned:
    """A study's rows and runs, with the recipe of each run; Optuna adds rows while it runs.

    base: the recipe that rows are told from; None for a study whose rows each have their own
    """

    study: Study
    plan: Plan
    base: Recipe | None = None
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def each(self) -> dict[str, Recipe]:
        """The recipe of every run by its name; where no run is planned yet, since a sampler thinks
        of all, the base's."""
        if not self.recipes and self.base is not None:
            return {self.base.name: self.base}
        return self.recipes


@dataclass(frozen=True)
class _Wanted:
    """A row before its recipe is known."""

    name: str
    settings: RowSettings = field(default_factory=RowSettings)
    choice: Choice = field(default_factory=Choice)


def plan_study(
    study: Study, folder: StudyFolder, check: Callable[[Iterable[Recipe]], None] | None = None
) -> Planned:
    """All rows of a study, resolved, with the runs that belong to them.

    Runs in `folder` that are of the same identity keep their names. `check` sees the recipes before
    they are runs; by default every corpus is read, and looked through for the parts. Raises
    StudyError with everything that is wrong, row by row, and DataError for corpora that cannot be
    used.
    """
    resolving = Resolving(study)
    wanted = [*_named(study), *_of_axes(study)]
    recipes = resolving.all(wanted)
    base = resolving.base()
    if base is not None and not _is_a_row(base, recipes, study) and study.settings.base_row:
        if BASE in recipes:
            told = "is what the recipe itself is called as a row; give yours another name, or set "
            raise _refused(study, Problem(("rows", BASE), f"{told}base_row: false"))
        wanted.insert(0, _Wanted(BASE))
        recipes = {BASE: base, **recipes}
    compared = _compared(study, base, recipes)
    if check is None:
        trains = corpora_of(recipes.values())
        _hold_parts(study, recipes)
        recipes = {n: resolving.updates(r, trains) for n, r in recipes.items()}
        base = resolving.alike(base, trains)
    else:
        check(recipes.values())
    plan = Plan(
        study.settings.name,
        (),
        compared,
        study.settings.parts,
        {},
        study.settings.title,
        study.settings.budget.minutes,
        study.typed,
    )
    planned = Planned(study, plan, base)
    for one in wanted:
        add_row(planned, folder, _row(one, base, recipes[one.name]), recipes[one.name])
    return planned


def add_row(planned: Planned, folder: StudyFolder, row: Row, recipe: Recipe) -> Row:
    """Puts a row into the plan, with its runs; those of the same identity are shared."""
    settings, plan = planned.study.settings, planned.plan
    names = {identity: name for name, identity in plan.identities.items()}
    for name, outcome in folder.known().items():
        names.setdefault(outcome.identity, name)
    identities, runs = dict(plan.identities), {}
    for seed in settings.every_seed:
        asked = recipe.model_copy(update={"seed": seed})
        identity = identity_of(asked, settings.budget.minutes, row.changes)
        name = names.get(identity) or _free_name(f"{row.name}-seed{seed}", folder, identities)
        names[identity], identities[name], runs[seed] = name, identity, name
        planned.recipes[name] = asked
    row = replace(row, runs=runs)
    planned.plan = replace(plan, rows=(*plan.rows, row), identities=identities)
    return row


def row_of(planned: Planned, name: str, choice: Choice) -> tuple[Row, Recipe]:
    """A row that comes of axes while the study runs. StudyError if it cannot be run."""
    resolving = Resolving(planned.study)
    one = _Wanted(name, choice=choice)
    recipe = resolving.all([one])[name]
    if planned.study.settings.budget.updates:
        recipe = resolving.updates(recipe, corpora_of([recipe]))
    return _row(one, planned.base, recipe), recipe


def differences(base: Recipe | None, recipe: Recipe) -> dict[str, Any]:
    """Places of a recipe that are other than the base's: path -> [there, here].

    Where a component is of another kind, keys that only the base's kind knows are not listed.
    """
    if base is None:
        return {}
    one, other = (each.model_dump(mode="json") for each in (base, recipe))
    found = _differences(one, other, "")
    return {path: both for path, both in found.items() if path not in ("name", "seed")}


def _differences(there: Any, here: Any, path: str) -> dict[str, Any]:
    if there == here:
        return {}
    start = f"{path}." if path else ""
    if isinstance(there, dict) and isinstance(here, dict):
        same_kind = there.get("kind") == here.get("kind")
        keys = [*here, *(key for key in there if key not in here and same_kind)]
        parts = [_differences(there.get(key), here.get(key), f"{start}{key}") for key in keys]
    elif _long(there) and _long(here) and len(there) == len(here):
        parts = [_differences(a, b, f"{start}{n}") for n, (a, b) in enumerate(zip(there, here))]  # noqa: B905 (as long)
    else:
        return {path: [there, here]}
    return {key: both for part in parts for key, both in part.items()}


def _long(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


class Resolving:
    """Makes recipes of a study's rows."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def base(self) -> Recipe | None:
        """The recipe that rows change; None for a study whose rows each have their own."""
        return self.recipe(_Wanted(BASE)) if self.study.settings.recipe else None

    def all(self, wanted: Sequence[_Wanted]) -> dict[str, Recipe]:
        """The recipe of every row. Raises StudyError with what is wrong with any of them."""
        found: dict[str, Recipe] = {}
        wrong: dict[str, list[str]] = {}  # a problem of the base is one of every row
        for one in wanted:
            try:
                found[one.name] = self.recipe(one)
            except RecipeError as error:
                for problem in error.problems or (error.summary,):
                    wrong.setdefault(problem, []).append(one.name)
        if wrong:
            told = [f"{_rows_told(rows, len(wanted))}: {text}" for text, rows in wrong.items()]
            count = counted(len(told), "problem")
            raise StudyError(f"{self.study.path}: no run was started, for {count}", told)
        return found

    def recipe(self, one: _Wanted) -> Recipe:
        """One row's recipe, of the seed that its page has."""
        study, settings, row = self.study, self.study.settings, one.settings
        if row.recipe is not None:
            path = study.page(row.recipe, "rows", one.name, "recipe")
        else:
            path = study.page(settings.recipe, "recipe")
        page = read_page(path, ROOT)
        self._change(page, settings.shared, "shared")
        if settings.budget.epochs is not None:
            where = study.written("budget", "epochs")
            change(page, "training.epochs", settings.budget.epochs, ROOT, where)
        for text in study.overrides:
            override(page, text, ROOT)
        self._change(page, row.changes, "rows", one.name, "changes")
        for axis, value in one.choice.values.items():
            self._change(page, value.changes, "axes", axis)
        recipe = recipe_of(page, str(path))
        if recipe.training.device.startswith("cuda:"):
            raise RecipeError(
                f"training.device: {recipe.training.device}, but a study gives each run its GPU; "
                "write cuda or auto, and name those it may use in CUDA_VISIBLE_DEVICES"
            )
        try:  # what would fail every run alike
            hold_installed(recipe.trackers)
            if settings.on == "local":
                device_for(recipe.training.device)
        except TrainingError as error:
            raise RecipeError(str(error)) from None
        return recipe

    def _change(self, page: Page, changes: Mapping[str, Any], *keys: str) -> None:
        for path, value in changes.items():
            change(page, path, value, ROOT, self.study.written(*keys, path))

    def alike(self, base: Recipe | None, trains: Mapping[str, Batches]) -> Recipe | None:
        """The recipe that rows are told from, trained for as many updates; its corpus is read if no
        row has it."""
        if base is None or self.study.settings.budget.updates is None:
            return base
        known = corpus_of(base) in trains
        return self.updates(base, trains if known else corpora_of([base]))

    def updates(self, recipe: Recipe, trains: Mapping[str, Batches]) -> Recipe:
        """The recipe with as many epochs as the budget's updates make, if it counts those."""
        budget = self.study.settings.budget.updates
        if budget is None:
            return recipe
        if recipe.batching.frames == "auto":
            told = (
                "how many updates an epoch has is not known before training where batching.frames "
                "is auto; state either, or budget.epochs"
            )
            raise _refused(self.study, Problem(("budget", "updates"), told))
        epochs = epochs_for(budget, recipe, trains[corpus_of(recipe)])
        page = Page({**recipe.model_dump(mode="json")})
        change(page, "training.epochs", epochs, ROOT, self.study.written("budget", "updates"))
        return recipe_of(page, recipe.name)


def _hold_parts(study: Study, recipes: Mapping[str, Recipe]) -> None:
    """Raises StudyError for parts that the page asks for, and that no row's corpus has."""
    if "parts" in study.settings.model_fields_set:
        wrong = unknown_parts(recipes.values(), study.settings.parts)
        if wrong:
            raise _refused(study, *(Problem(("parts",), text) for text in wrong))


def _named(study: Study) -> list[_Wanted]:
    return [_Wanted(name, row) for name, row in study.settings.rows.items()]


def _of_axes(study: Study) -> list[_Wanted]:
    """Rows of the axes; for Optuna only checked, an end or a value of one axis at a time."""
    axes, explore = study.settings.axes, study.settings.explore
    if isinstance(explore, OptunaSettings):
        alone = [Choice({n: v}) for n, axis in axes.items() for v in values_of(n, axis)]
        Resolving(study).all([_Wanted(choice.name, choice=choice) for choice in alone])
        return []
    try:
        choices = combinations(axes, explore)
    except ValueError as error:
        raise _refused(study, Problem(("axes",), str(error))) from None
    wanted = {choice.name: _Wanted(choice.name, choice=choice) for choice in choices}
    taken = [name for name in wanted if name in study.settings.rows]
    if taken:
        told = "the axes make a row of that name, too"
        raise _refused(study, *(Problem(("rows", name), told) for name in taken))
    return list(wanted.values())


def _row(one: _Wanted, base: Recipe | None, recipe: Recipe) -> Row:
    settings = one.settings
    return Row(
        one.name,
        settings.remark,
        differences(base, recipe),
        one.choice.labels,
        settings.published,
        setup(recipe.model_dump(mode="json")),
    )


def _is_a_row(base: Recipe, recipes: Mapping[str, Recipe], study: Study) -> bool:
    """Whether one of the named rows is the base, unchanged."""
    return any(not differences(base, recipes[name]) for name in study.settings.rows)


def _compared(study: Study, base: Recipe | None, recipes: Mapping[str, Recipe]) -> str | None:
    """The row that others are compared with: the one asked for, or the one that is the base."""
    asked = study.settings.compare_with
    if asked is not None:
        if asked not in recipes:
            told = f"there is no row {asked!r}; rows: {', '.join(recipes)}"
            raise _refused(study, Problem(("compare_with",), told))
        return asked
    same = [name for name, recipe in recipes.items() if base and not differences(base, recipe)]
    return same[0] if same else None


def _refused(study: Study, *problems: Problem) -> StudyError:
    told = [problem.text(study.origins) for problem in problems]
    return StudyError(f"{study.path} cannot be studied: {counted(len(told), 'problem')}", told)


def _rows_told(rows: Sequence[str], all_rows: int) -> str:
    if len(rows) == all_rows > 1:
        return "every row"
    return ("row " if len(rows) == 1 else "rows ") + ", ".join(rows)


def _free_name(wish: str, folder: StudyFolder, taken: Mapping[str, str]) -> str:
    wish = folder_name(wish)
    name, number = wish, 1
    while name in taken or any((folder.rows / name).glob("*")):
        number += 1
        name = f"{wish}-{number}"
    return name
