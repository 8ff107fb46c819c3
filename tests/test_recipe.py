"""Recipes: everything that is wrong is told at once, and nothing is lost between page and run."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field
from recipe_pages import PAGE, extended, one_problem_of, problems_of

from spelldown.recipe.reading.schema import explanations, json_schema, schema_text
from spelldown.recipe.recipe import Recipe, read_recipe
from spelldown.settings import Settings

RECIPES = Path(__file__).parent.parent / "recipes"
PAGES = sorted(page for page in RECIPES.rglob("*.yaml") if page.parent.name != "studies")
SHIPPED = [page for page in PAGES if page.name != "shared.yaml"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(PAGE)
    return path


# --- what ships


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_read_and_its_resolved_page_gives_the_same_recipe(
    path: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(path)
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(recipe.as_yaml())
    assert read_recipe(resolved) == recipe
    assert read_recipe(resolved).as_yaml() == recipe.as_yaml()


def test_the_resolved_recipe_states_every_key(page: Path) -> None:
    resolved = yaml.safe_load(read_recipe(page).as_yaml())
    assert set(resolved) == set(Recipe.model_fields)
    assert resolved["optimizer"]["kind"] == "adamw"
    assert resolved["listener"]["blocks"][1]["dropout"] == 0.0


def test_the_schema_for_editors_is_current() -> None:
    # To bring it up to date: spelldown recipe --schema > recipes/schema.json
    assert (RECIPES / "schema.json").read_text() == schema_text(Recipe)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_shipped_page_tells_editors_where_its_schema_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    _, _, schema = first.partition("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == (RECIPES / "schema.json").resolve()


def test_the_schema_asks_for_nothing_that_a_base_may_state() -> None:
    schema = json_schema(Recipe)
    assert "required" not in schema
    assert "base" in schema["properties"]
    assert "oneOf" not in yaml.safe_dump(schema)


def test_every_key_of_every_component_is_explained_to_editors() -> None:
    components = json_schema(Recipe)["$defs"]
    assert len(components) > 30
    for name, component in components.items():
        keys = component["properties"].items()
        silent = [key for key, about in keys if not about.get("description", "").strip()]
        assert set(silent) <= {"kind"}, f"{name}: {silent}"


def test_keys_are_explained_in_their_components_words_wherever_those_stand() -> None:
    class Inherited(Settings):
        """How much.

        one, two: in the docstring,
            continued.
        three: in the docstring.
        """

        one: int = 1
        two: int = 2

    class Explained(Inherited):
        three: int = 3
        """Under the attribute."""
        four: int = Field(4, description="in its field")
        """Under the attribute."""

    assert explanations(Explained) == {
        "one": "in the docstring, continued.",
        "two": "in the docstring, continued.",
        "three": "Under the attribute.",
        "four": "in its field",
    }


def test_every_key_is_explained_where_it_first_appears() -> None:
    reading_order = [RECIPES / name for name in ("an4.yaml", "demo.yaml", "own_language.yaml")]
    reading_order.append(RECIPES / "seed" / "shared.yaml")
    reading_order += sorted(RECIPES.glob("seed/row*.yaml"))
    known: set[str] = set()
    for path in reading_order:
        before = ""
        for line in path.read_text().splitlines():
            said, _, comment = line.partition("#")
            keys = re.findall(r"\b([a-z_]+): ?", said)
            opens_a_group = re.fullmatch(r"\s*-?\s*[a-z_]+:\s*", said) is not None
            new = [key for key in keys if key not in known]
            explained = comment or before.lstrip().startswith("#") or opens_a_group
            assert explained or not new, f"{path.name}: {new} in {line!r}"
            known.update(keys)
            before = line


# --- everything at once


def test_everything_wrong_is_reported_at_once_with_its_path_line_and_the_nearest_key(
    page: Path,
) -> None:
    page.write_text(
        "name: small\n"
        "data: {kind: arrays, root: somewhere}\n"
        "frontend: {kind: arrays, width: 0}\n"
        "listener:\n"
        "  blocks:\n"
        "    - {kind: conv, widht: [16], stride: 2}\n"
        "    - {kind: bilstmm, width: many}\n"
        "optimiser: {rate: 1e-3}\n"
        "loss: {ctc_weight: 0.3}\n"
        "attention: {kind: dot, widht: 64, heads: 3}\n"
        "optimizer: {rte: 1e-3}\n"
    )
    problems = problems_of(page, "schedule.kind=sqaure")
    for told in (
        f"frontend.width: should be greater than or equal to 1, found 0 ({page}:3)",
        f"listener.blocks.0.widht: unknown key; did you mean 'widths'? ({page}:6)",
        "listener.blocks.1.kind: there is no kind 'bilstmm'; did you mean 'bilstm'? kinds: conv, "
        f"conv2d, mobile, bilstm, pyramid, transformer ({page}:7)",
        f'listener.blocks.1.width: should be a whole number, found "many" ({page}:7)',
        f"optimiser: unknown key; did you mean 'optimizer'? ({page}:8)",
        f"loss.ctc_weight: CTC cannot have a share in the loss of a recognizer without a CTC head; "
        f"add `ctc: {{}}` or set it to 0 ({page}:9)",
        f"attention.widht: unknown key; did you mean 'width'? ({page}:10)",
        f"attention: 3 heads cannot share a width of 64 evenly ({page}:10)",
        f"optimizer.rte: unknown key; did you mean 'rate'? ({page}:11)",
        "schedule.kind: there is no kind 'sqaure'; kinds: constant, plateau, cosine, one-cycle, "
        "noam (command line)",
    ):
        assert told in problems, "\n".join(problems)
    assert len(problems) == 10, "\n".join(problems)


def test_a_mistake_in_a_kind_does_not_hide_the_mistakes_beside_it(page: Path) -> None:
    extended(page, attention={"kind": "locaton", "reach": -1, "widht": 3})
    told = "\n".join(problems_of(page))
    assert "did you mean 'location'" in told
    assert "attention.reach" in told
    assert "did you mean 'width'" in told


def test_only_the_chosen_kinds_errors_are_told(page: Path) -> None:
    extended(page, schedule={"kind": "cosine", "factor": 0.5})
    assert one_problem_of(page).startswith(
        "schedule.factor: kind cosine has no such key, but plateau has; keys here: warmup, floor"
    )


def test_a_key_that_stands_elsewhere_is_shown_its_place(page: Path) -> None:
    extended(page, ctc_weight=0.3)
    assert "there is 'loss.ctc_weight'" in one_problem_of(page)


def test_a_wrong_value_is_not_blamed_for_a_combination_that_it_may_not_have_meant(
    page: Path,
) -> None:
    # The share is wrong, so nobody knows whether the head would be trained.
    extended(page, ctc={}, loss={"ctc_weight": "lots"})
    assert one_problem_of(page).startswith("loss.ctc_weight: should be a number")
    # ctc is wrong, so nobody knows whether there is to be a head.
    extended(page, ctc=3, loss={"ctc_weight": 0.3})
    assert one_problem_of(page).startswith("ctc: should be a group of `key: value`, found 3")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("training.epochs", "yes", "should be a whole number, found true"),
        ("training.epochs", "10.5", "should be a whole number, found 10.5"),
        ("training.epochs", "'10'", 'should be a whole number, found "10"'),
        ("optimizer.rate", "fast", 'should be a number, found "fast"'),
        ("optimizer.rate", "true", "should be a number, found true"),
        ("optimizer.rate", "0", "should be greater than 0, found 0"),
        ("optimizer.rate", "[1]", "should be a number, found [1]"),
        ("optimizer.rate", ".inf", "should be a finite number"),
        ("optimizer.rate", ".nan", "should be a finite number"),
        ("training.judge", "lost", "did you mean 'loss'?"),
        ("seed", "-1", "should be greater than or equal to 0, found -1"),
        ("name", "a/b", "should be written as an4 or"),
        ("name", "3", "should be a string, found 3"),
        ("augment.speed", "[1.1, 0.9]", "[1.1, 0.9] is not [slowest, fastest]"),
        ("listener.blocks", "[]", "at least 1 item"),
        ("listener", "null", "should be a group of `key: value`, found null"),
        ("data.problems", "ignore", "should be 'stop' or 'leave-out', found \"ignore\""),
    ],
)
def test_a_wrong_type_or_range_names_what_would_be_right(
    page: Path, path: str, value: str, told: str
) -> None:
    problem = one_problem_of(page, f"{path}={value}")
    assert problem.startswith(f"{path}: ")
    assert told in problem
    assert problem.endswith("(command line)")


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "loss.ctc_weight": {"loss": {"ctc_weight": 0.3}},
    "loss.ctc_weight_end": {"loss": {"ctc_fade": [1, 5], "ctc_weight_end": 0.3}},
    "ctc": {"ctc": {}},
    "loss.ctc_weight ": {"loss": {"ctc_weight": 1.0}, "ctc": {}},
    "frontend.kind": {"frontend": {"kind": "mfcc"}},
    "listener.blocks.2.heads": {
        "listener": {
            "blocks": [
                {"kind": "conv"},
                {"kind": "bilstm", "width": 5},
                {"kind": "transformer", "heads": 4},
            ]
        }
    },
    "schedule.warmup": {"schedule": {"kind": "cosine", "warmup": 10}, "training": {"epochs": 10}},
    "teacher_forcing.feedback": {"teacher_forcing": {"kind": "constant", "feedback": "gumbel"}},
    "averaging.from_epoch": {
        "averaging": {"kind": "exponential", "from_epoch": 11},
        "training": {"epochs": 10},
    },
    "augment.from_epoch": {"augment": {"from_epoch": 11}, "training": {"epochs": 10}},
    "optimizer.nesterov": {"optimizer": {"kind": "sgd", "nesterov": True, "momentum": 0}},
    "loss.ctc_weight_end ": {"loss": {"ctc_weight": 0.3, "ctc_weight_end": 0.1}, "ctc": {}},
    "loss.ctc_fade": {
        "loss": {"ctc_weight": 0.3, "ctc_fade": [10, 20]},
        "ctc": {},
        "training": {"epochs": 10},
    },
    "teacher_forcing.temperature": {
        "teacher_forcing": {"kind": "constant", "rate": 0.9, "temperature": 0.5}
    },
    "teacher_forcing.patience": {
        "teacher_forcing": {"kind": "staged", "stages": {5: 0.9}, "patience": 4},
    },
    "teacher_forcing.feedback  ": {
        "teacher_forcing": {"kind": "linear", "start": 1, "end": 1, "feedback": "sample"}
    },
    "teacher_forcing.feedback   ": {
        "teacher_forcing": {"kind": "after-alignment", "floor": 1, "feedback": "gumbel"}
    },
    "teacher_forcing.feedback    ": {
        "teacher_forcing": {"kind": "staged", "stages": [1, 1], "feedback": "sample"}
    },
    "teacher_forcing.feedback     ": {
        "teacher_forcing": {"kind": "staged", "stages": {4: 1}, "feedback": "sample"}
    },
    "teacher_forcing.first_epoch": {
        "teacher_forcing": {"kind": "linear", "first_epoch": 10, "last_epoch": 20},
        "training": {"epochs": 10},
    },
    "teacher_forcing.stages": {
        "teacher_forcing": {"kind": "staged", "stages": {11: 0.9, 12: 0.8}},
        "training": {"epochs": 10},
    },
    "batching.shortest_first_epochs": {
        "batching": {"shortest_first_epochs": 11},
        "training": {"epochs": 10},
    },
    "batching.cache_megabytes": {"batching": {"workers": 2, "cache_megabytes": 2000}},
    "augment.time_masks": {
        "frontend": {"kind": "arrays", "normalise": "none"},
        "augment": {"frequency_masks": None},
    },
    "augment.frequency_masks": {
        "frontend": {"kind": "arrays", "normalise": "none"},
        "augment": {"time_masks": None},
    },
    "augment.band_masks": {
        "frontend": {"kind": "arrays", "normalise": "none"},
        "augment": {"time_masks": None, "frequency_masks": None, "band_masks": {"count": 1}},
    },
    "training.weight_noise_from": {
        "training": {"epochs": 10, "weight_noise": 0.1, "weight_noise_from": 11}
    },
}


@pytest.mark.parametrize("path", IMPOSSIBLE)
def test_an_impossible_combination_is_told_at_its_path(page: Path, path: str) -> None:
    extended(page, **IMPOSSIBLE[path])
    assert one_problem_of(page).startswith(f"{path.strip()}: ")


POSSIBLE: list[dict[str, Any]] = [
    {"optimizer": {"kind": "sgd", "nesterov": True}},
    {"loss": {"ctc_weight": 0.3, "ctc_fade": [9, 20]}, "ctc": {}, "training": {"epochs": 10}},
    {"teacher_forcing": {"kind": "linear", "start": 0.9, "end": 1, "feedback": "sample"}},
    {"teacher_forcing": {"kind": "staged", "stages": {4: 0.9}, "feedback": "sample"}},
    {"teacher_forcing": {"kind": "rule-b", "reading": "plain", "feedback": "sample"}},
    {"batching": {"shortest_first_epochs": 10}, "training": {"epochs": 10}},
    {"batching": {"workers": 2}},
    {"batching": {"workers": 2, "cache_megabytes": 0}},
    {"frontend": {"kind": "arrays", "normalise": "mean"}, "augment": {}},
    {
        "frontend": {"kind": "arrays", "normalise": "none"},
        "augment": {"time_masks": None, "frequency_masks": {"count": 0}},
    },
]


@pytest.mark.parametrize("sections", POSSIBLE, ids=str)
def test_what_comes_near_the_impossible_is_possible(page: Path, sections: dict[str, Any]) -> None:
    recipe = read_recipe(extended(page, **sections))
    page.write_text(recipe.as_yaml())
    assert read_recipe(page) == recipe


def test_an_impossible_combination_is_refused_in_python_too(page: Path) -> None:
    recipe = read_recipe(page)
    values = {name: getattr(recipe, name) for name in Recipe.model_fields}
    with pytest.raises(ValueError, match=r"loss\.ctc_weight: CTC cannot"):
        Recipe(**{**values, "loss": {"ctc_weight": 0.3}})


def test_nothing_is_loaded_or_built_before_a_page_is_found_right(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object, **__: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("torch.nn.Module.__init__", built)
    assert read_recipe(page).data.root == Path("somewhere")  # which is not there


def test_a_list_that_is_too_short_is_told_what_it_lacks(page: Path) -> None:
    problem = one_problem_of(page, "optimizer.betas=[0.9]")
    assert problem.startswith("optimizer.betas.1: the list is too short: it needs an entry 1")
