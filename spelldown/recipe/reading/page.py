"""One YAML page as plain values, each with the file and line that it came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spelldown.errors import RecipeError
from spelldown.recipe.reading.places import KIND, Place, dotted, nearest
from spelldown.recipe.reading.places import Path as Keys

COMMAND_LINE = "command line"
BASE = "base"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a page: its place, what was found and what would be right."""

    path: Keys
    message: str

    def text(self, origins: Mapping[Keys, str]) -> str:
        """`optimizer.rte: unknown key ... (an4.yaml:12)`."""
        start = f"{dotted(self.path)}: " if self.path else ""
        where = next((origins[p] for p in self._upwards() if p in origins), None)
        told = where is None or where in self.message
        return f"{start}{self.message}" + ("" if told else f" ({where})")

    def _upwards(self) -> list[Keys]:
        return [self.path[:end] for end in range(len(self.path), 0, -1)]


@dataclass
class Page:
    """A page's values; `origins` tells `file:line` for each path; `problems` found in reading."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but `1e-3` is a number and dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_PLAIN = {
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")
}


def read_page(path: Path, place: Place) -> Page:
    """The page at `path`, merged over the page that its `base:` names, and that one's base.

    Mappings are merged key by key; lists and values of the upper page replace those below. Where
    the upper page chooses another kind, only keys that the new kind knows are kept, and of a search
    only its limits (`Settings.carried`).
    `place` is the root of what may stand in the page. RecipeError if a file is missing or is not
    YAML; duplicate keys are put into the page's `problems`.
    """
    return _read_chain(path, place, ())


def _read_chain(path: Path, place: Place, above: tuple[Path, ...]) -> Page:
    page = _read_file(path)
    base = page.data.pop(BASE, None)
    if base is None:
        return page
    where = page.origins.get((BASE,), str(path))
    if not isinstance(base, str):
        raise RecipeError(f"{where}: base should be the path of one page, found {base!r}")
    below = path.parent / base
    chain = (*above, path)
    if below.resolve() in [each.resolve() for each in chain]:
        names = " -> ".join(str(each) for each in (*chain, below))
        raise RecipeError(f"{where}: the pages are each other's base: {names}")
    if not below.is_file():
        raise RecipeError(f"{where}: base: no page at {below}{pages_nearby(below, 'recipes')}")
    return merged(_read_chain(below, place, chain), page, place)


def _read_file(path: Path) -> Page:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RecipeError(f"no recipe at {path}{pages_nearby(path, 'recipes')}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text: {error}") from None
    value, page = _parse(text, str(path))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: a recipe is a page of `key: value`, found {_described(value)}")
    page.data = value
    return page


def pages_nearby(path: Path, kind: str) -> str:
    """What page may be meant where there is none at `path`; `kind`: of pages, such as recipes."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f": there is no folder {folder}"
    pages = sorted(each.name for each in folder.glob("*.yaml"))
    close = nearest(path.name, pages, at_least=70)
    if close is not None:
        return f"; did you mean {folder / close}?"
    return f"; {kind} there: {', '.join(pages)}" if pages else ""


def _described(value: Any) -> str:
    return "a list" if isinstance(value, list) else repr(value)


def parse_value(text: str) -> Any:
    """A value as typed on the command line, read as YAML. RecipeError if it is not YAML."""
    value, page = _parse(text, COMMAND_LINE)
    if page.problems:
        raise RecipeError("; ".join(problem.text({}) for problem in page.problems))
    return value


def _parse(text: str, name: str) -> tuple[Any, Page]:
    page = Page()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _Reader(loader, name, page).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise RecipeError(_syntax_error(error, name)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{name}: not YAML: {error}") from None
    return value, page


def _syntax_error(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
    said = ", ".join(part for part in (error.context, error.problem) if part)
    advice = "; YAML is indented with spaces, not tabs" if r"'\t'" in said else ""
    return f"{where}: not YAML: {said}{advice}"


class _Reader:
    """Turns YAML's nodes into plain values, noting each one's line and keys given twice."""

    def __init__(self, loader: _Loader, name: str, page: Page) -> None:
        self.loader, self.name, self.page = loader, name, page
        self.checked: set[int] = set()
        self.open: list[int] = []

    def value(self, node: yaml.Node, path: Keys) -> Any:
        if path:
            self.page.origins[path] = self.where(node)
        if id(node) in self.open:
            raise yaml.MarkedYAMLError(
                problem="a value contains itself", problem_mark=self.at(node)
            )
        self.open.append(id(node))
        try:
            if node.tag not in _PLAIN:
                problem = f"{node.tag} is not a list, a group, text, a number, true, false or null"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.at(node))
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.loader.construct_object(node)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, path: Keys) -> dict[str, Any]:
        if id(node) not in self.checked:
            self.checked.add(id(node))
            self.note_duplicates(node, path)
            self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            found[key] = self.value(value_node, (*path, key))
            self.page.origins[(*path, key)] = self.where(key_node)
        return found

    def note_duplicates(self, node: yaml.MappingNode, path: Keys) -> None:
        first: dict[str, yaml.Node] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a key should be a word"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.at(key_node))
            key = str(key_node.value)
            if key in first:
                lines = sorted({self.where(first[key]), self.where(key_node)})
                problem = f"the key is given twice, at {' and '.join(lines)}"
                self.page.problems.append(Problem((*path, key), problem))
            first.setdefault(key, key_node)

    def at(self, node: yaml.Node) -> yaml.Mark:
        mark: yaml.Mark = node.start_mark
        return mark

    def where(self, node: yaml.Node) -> str:
        if self.name == COMMAND_LINE:
            return COMMAND_LINE
        return f"{self.name}:{self.at(node).line + 1}"


def merged(below: Page, above: Page, place: Place) -> Page:
    """The page `above` laid over the page `below`."""
    data = _merge(below.data, above.data, place)
    origins = {**below.origins, **above.origins}
    return Page(data, origins, [*below.problems, *above.problems])


def _merge(below: Any, above: Any, place: Place | None) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    result = dict(below)
    if KIND in above:
        change_kind(result, above[KIND], place)
    for key, value in above.items():
        result[key] = _merge(result.get(key), value, place and place.below(key, result))
    return result


def change_kind(settings: dict[str, Any], kind: Any, place: Place | None) -> None:
    """Sets the kind, and drops the keys of the kind before that the new one does not take over."""
    for key in dropped_by(settings, kind, place):
        del settings[key]
    settings[KIND] = kind


def dropped_by(settings: Mapping[str, Any], kind: Any, place: Place | None) -> list[str]:
    """The keys that settings lose if they become of another kind."""
    before = settings.get(KIND)
    if place is None or before is None or kind == before or kind not in place.names:
        return []
    known_before, known = place.fields({KIND: before}), place.fields({KIND: kind})
    carried = getattr(place.model({KIND: kind}), "carried", None)
    kept = known.keys() if carried is None else carried | {KIND}
    return [key for key in settings if key in known_before and key not in kept]
