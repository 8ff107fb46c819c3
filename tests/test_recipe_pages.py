"""Pages of recipes: their YAML, what they build on, and what is laid over them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_pages import PAGE, extended, one_problem_of, problems_of

from spelldown.errors import RecipeError
from spelldown.recipe.recipe import read_recipe


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(PAGE)
    return path


# --- pages


def test_yaml_that_cannot_be_read_names_file_line_and_column(page: Path) -> None:
    page.write_text("name: small\ndata: {kind: arrays\nlistener: 3\n")
    with pytest.raises(RecipeError, match=rf"{page}:3:9: not YAML"):
        read_recipe(page)


def test_tabs_are_named_as_the_cause(page: Path) -> None:
    page.write_text("name: small\ndata:\n\troot: x\n")
    with pytest.raises(RecipeError, match=r":3:1: not YAML.*spaces, not tabs"):
        read_recipe(page)


def test_a_key_given_twice_is_an_error_that_names_both_lines(page: Path) -> None:
    page.write_text(PAGE + "optimizer:\n  rate: 1\n  clip: 1\n  rate: 2\n")
    problem = one_problem_of(page)
    assert problem == (f"optimizer.rate: the key is given twice, at {page}:10 and {page}:12")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "3"])
def test_a_page_that_is_no_group_of_keys_is_refused(page: Path, text: str) -> None:
    page.write_text(text)
    with pytest.raises(RecipeError, match="a recipe is a page of `key: value`"):
        read_recipe(page)


def test_an_empty_page_names_what_a_recipe_cannot_do_without(page: Path) -> None:
    page.write_text("# nothing yet\n")
    missing = {problem.split(":")[0] for problem in problems_of(page)}
    assert missing == {"name", "data", "frontend", "listener"}


def test_a_recipe_that_is_not_there_names_the_nearest(page: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe at .*smal\.yaml; did you mean .*small\.yaml"):
        read_recipe(page.with_name("smal.yaml"))


def test_values_that_are_not_plain_are_refused(page: Path) -> None:
    page.write_text(PAGE + "seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(RecipeError, match="not YAML"):
        read_recipe(page)


def test_a_value_that_contains_itself_is_refused(page: Path) -> None:
    page.write_text("data: &a {root: *a}\n")
    with pytest.raises(RecipeError, match="contains itself"):
        read_recipe(page)


def test_a_page_builds_on_its_base_key_by_key_and_replaces_lists(page: Path) -> None:
    above = page.with_name("above.yaml")
    above.write_text(
        "base: small.yaml\nname: above\ndata: {train: other}\n"
        "listener: {blocks: [{kind: conv, widths: [8]}]}\n"
    )
    recipe = read_recipe(above)
    assert recipe.name == "above"
    assert (recipe.data.root, recipe.data.train) == (Path("somewhere"), "other")
    assert len(recipe.listener.blocks) == 1


def test_a_mistake_in_a_base_names_the_bases_file_and_line(page: Path) -> None:
    page.write_text(PAGE + "sed: 3\n")
    above = page.with_name("above.yaml")
    above.write_text("base: small.yaml\n")
    assert f"{page}:9" in one_problem_of(above)


def test_another_kind_keeps_only_what_both_kinds_know(page: Path) -> None:
    extended(page, attention={"kind": "location", "width": 64, "reach": 7})
    above = page.with_name("above.yaml")
    above.write_text("base: small.yaml\nattention: {kind: dot, heads: 2}\n")
    recipe = read_recipe(above)
    assert recipe.attention.model_dump() == {
        "kind": "dot", "width": 64, "heads": 2, "values": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "told"),
    [("above.yaml", "each other's base"), ("gone.yaml", "no page at"), ("[a]", "path of one page")],
)
def test_a_base_that_cannot_be_built_on_is_named_with_its_line(
    page: Path, base: str, told: str
) -> None:
    above = page.with_name("above.yaml")
    above.write_text(f"base: {base}\n")
    with pytest.raises(RecipeError, match=rf"above\.yaml:1: .*{told}"):
        read_recipe(above)


# --- overrides


def test_overrides_reach_into_lists_and_read_their_values_as_yaml(page: Path) -> None:
    recipe = read_recipe(
        page,
        [
            "optimizer.rate=5e-4",
            "listener.blocks.1.width=96",
            "augment={speed: [0.8, 1.2]}",
            "augment.speed.0=0.9",
            "training.patience=null",
            "name=other",
        ],
    )
    assert recipe.optimizer.rate == 5e-4
    assert recipe.listener.blocks[1].width == 96  # type: ignore[union-attr]
    assert recipe.augment is not None
    assert recipe.augment.speed == (0.9, 1.2)
    assert recipe.training.patience is None
    assert recipe.name == "other"


def test_an_override_into_an_absent_section_builds_on_its_default(page: Path) -> None:
    recipe = read_recipe(page, ["attention.reach=7"])
    assert recipe.attention.kind == "location"
    assert recipe.attention.reach == 7


def test_an_override_of_a_kind_keeps_what_both_kinds_know(page: Path) -> None:
    recipe = read_recipe(page, ["attention.width=64", "attention.kind=dot", "attention.heads=4"])
    assert recipe.attention.kind == "dot"
    assert (recipe.attention.width, recipe.attention.heads) == (64, 4)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.rte=1", "there is no optimizer.rte; did you mean optimizer.rate?"),
        ("optimiser.rate=1", "there is no optimiser.rate; did you mean optimizer.rate?"),
        ("rate=1", "there is no rate; did you mean optimizer.rate?"),
        ("listener.block.1.width=3", "did you mean listener.blocks.1.width?"),
        ("listener.blocks.1.widht=3", "did you mean listener.blocks.1.width?"),
        ("listener.blocks.0.width=3", "did you mean listener.blocks.0.widths?"),
        ("listener.blocks.2.width=3", "no entry 2: listener.blocks has 2 entries, 0 to 1"),
        ("listener.blocks.first.width=3", "'first' is not the number of one"),
        ("name.first=3", "name is the value 'small'; nothing stands below it"),
        ("optimizer.rate", "'optimizer.rate' on the command line is not path=value"),
        ("optimizer.rate=", "optimizer.rate: has no value; write optimizer.rate=null"),
        ("optimizer..rate=1", "is not path=value"),
        ("optimizer.rate=[1", "not YAML"),
        ("augment={warp: 0, warp: 1}", "warp: the key is given twice"),
    ],
)
def test_an_override_that_leads_nowhere_names_the_nearest_place(
    page: Path, override: str, told: str
) -> None:
    assert told in one_problem_of(page, override)


def test_all_wrong_overrides_are_told_with_the_pages_own_mistakes(page: Path) -> None:
    page.write_text(PAGE + "sed: 3\n")
    assert len(problems_of(page, "optimizer.rte=1", "listener.blocks.9.width=1")) == 3


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=60))
def test_no_text_makes_reading_fail_in_any_other_way(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError):
        read_recipe(path)


PATHS = ["seed", "augment", "listener.blocks.0", "attention.kind", "teacher_forcing.stages", "ctc"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "width", "speed", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PATHS), VALUES)
def test_no_value_makes_reading_fail_in_any_other_way(page: Path, path: str, value: Any) -> None:
    typed = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n")
    try:
        recipe = read_recipe(page, [f"{path}={typed.strip()}"])
    except RecipeError:
        return
    resolved = page.with_name("resolved.yaml")
    resolved.write_text(recipe.as_yaml(), encoding="utf-8")
    assert read_recipe(resolved) == recipe
