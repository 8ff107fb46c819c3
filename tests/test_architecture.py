"""Nobody looks upward: imports go one way, and every file can be read in one sitting."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "spelldown"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each room may import of ours, besides itself. No room is on both sides of another.
BELOW = {
    "errors": set(),
    "progress": set(),
    "settings": set(),
    "writing": set(),
    "data": {"errors", "progress", "settings", "writing"},
    "model": {"errors", "settings"},
}
BELOW["search"] = {"data", "model"} | BELOW["data"]
BELOW["training"] = {"search"} | BELOW["search"]
BELOW["recipe"] = {"training"} | BELOW["training"]
BELOW["terminal"] = {"recipe"} | BELOW["recipe"]
BELOW["study"] = {"terminal"} | BELOW["terminal"]
BELOW["demo"] = {"study"} | BELOW["study"]
BELOW["commands"] = {"demo"} | BELOW["demo"]
BELOW["cli"] = {"commands"} | BELOW["commands"]
BELOW["__main__"] = {"cli"} | BELOW["cli"]

NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools"}
LONGEST = 350
MOST_FILES = 8  # in a folder, besides its __init__
FOLDERS = sorted({file.parent for file in FILES})


def room(module: str) -> str:
    """`data` for `spelldown.data.batching`."""
    return module.split(".")[1]


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(file: Path) -> Iterator[str]:
    """Our modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from (names if module == "spelldown" else [module])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file: Path) -> None:
    module = module_of(file)
    if module == "spelldown":
        assert not [name for name in imports_of(file) if name.startswith("spelldown")]
        return
    here = room(module)
    for imported in imports_of(file):
        if imported.startswith("spelldown.") and room(imported) != here:
            assert room(imported) in BELOW[here], f"{module} looks upward, at {imported}"


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "recipe" / "reading").glob("*.py")), ids=module_of
)
def test_reading_a_page_knows_no_component(file: Path) -> None:
    ours = {name for name in imports_of(file) if name.startswith("spelldown")}
    known = ("spelldown.recipe.reading", "spelldown.errors", "spelldown.settings")
    assert all(name.startswith(known) for name in ours)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_file_is_read_in_one_sitting_and_named_for_what_is_in_it(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < LONGEST
    assert file.stem not in NAMELESS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_is_taken_in_at_a_glance(folder: Path) -> None:
    files = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(files) <= MOST_FILES


def test_the_command_line_is_there_before_torch_is_loaded() -> None:
    heavy = ("torch", "lhotse", "numpy", "matplotlib", "pydantic")
    code = f"import sys, spelldown.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
