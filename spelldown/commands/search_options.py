"""How to search, as options of the commands that spell: `--search beam --beam 8 --lm LM`.

They are overrides of the recipe's `search` section with short names. What has no option of its own
is said as `search.key=value`.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "How to search (else as the run's search.yaml says, or its recipe)"
FROM_RECIPE = "The search to begin from (else the recipe's; beam where that is greedy)"
OFF = {
    "lm-weight": ("lm", "lm=null"),
    "rescore-weight": ("rescore-lm", "rescore_lm=null"),
    "ilm-weight": ("ilm", "ilm=none"),
}
"""What a weight of 0 means, unless the option before it is given too: without what it weighs."""


class SearchName(StrEnum):
    """What kinds of search there are; the values of `search.kind`."""

    greedy = "greedy"
    random = "random"
    beam = "beam"


class InternalName(StrEnum):
    """The contexts of the internal language model; the values of `search.ilm`."""

    none = "none"
    zero = "zero"
    mean = "mean"


@dataclass(frozen=True)
class Choice:
    """One option: the key of the recipe's `search` that it sets; the kind that knows it."""

    key: str
    type: Any
    help: str
    kind: SearchName | None = None
    metavar: str | None = None


BEAM, RANDOM = SearchName.beam, SearchName.random
CHOICES: Mapping[str, Choice] = {
    "search": Choice(
        "kind",
        SearchName,
        "greedy: the likeliest letter; random: the best of some drawn by chance; beam: of several "
        "followed at once.",
    ),
    "beam": Choice("beam", int, "Hypotheses followed at once.", BEAM),
    "nbest": Choice("nbest", int, "Hypotheses given of each utterance.", BEAM),
    "ctc": Choice("ctc_weight", float, "The CTC head's share of the score.", BEAM, "WEIGHT"),
    "lm": Choice(
        "lm",
        Path,
        "A language model that joins in at every letter: its folder, or an ARPA file.",
        BEAM,
        "PATH",
    ),
    "lm-weight": Choice("lm_weight", float, "How much it counts.", BEAM, "WEIGHT"),
    "rescore-lm": Choice("rescore_lm", Path, "One that ranks the n-best anew.", BEAM, "PATH"),
    "rescore-weight": Choice("rescore_weight", float, "How much it counts.", BEAM, "WEIGHT"),
    "ilm": Choice(
        "ilm",
        InternalName,
        "Take off what the speller knows of the language, asked with this context.",
        BEAM,
    ),
    "ilm-weight": Choice("ilm_weight", float, "How much of it.", BEAM, "WEIGHT"),
    "length-bonus": Choice("length_bonus", float, "Added for every letter.", BEAM, "NUMBER"),
    "draws": Choice("draws", int, "Transcriptions drawn of each utterance.", RANDOM),
    "temperature": Choice("temperature", float, "How surprising they may be.", RANDOM, "NUMBER"),
}


@dataclass(frozen=True)
class Searching:
    """What was asked for: overrides of the run's search, and whether its search.yaml counts."""

    overrides: tuple[str, ...]
    tuned: bool


def with_search_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has these options too, and is given them as `searching`, a Searching."""
    return _with_options(command, PANEL, untuned=True)


def with_options_of_a_search_to_tune(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that begins from the recipe's search: without --untuned."""
    return _with_options(command, FROM_RECIPE, untuned=False)


def _with_options(command: Callable[..., None], panel: str, untuned: bool) -> Callable[..., None]:
    @functools.wraps(command)
    def wrapped(*words: Any, **given: Any) -> None:
        named = {name: given.pop(_variable(name)) for name in CHOICES}
        tuned = untuned and not given.pop("untuned")
        command(*words, **given, searching=Searching(tuple(_overrides(named)), tuned))

    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.name != "searching"]
    parameters = [*own, *_parameters(panel), *([_untuned(panel)] if untuned else [])]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return wrapped


def _variable(name: str) -> str:
    return f"search_{name.replace('-', '_')}"


def _parameters(panel: str) -> Iterator[Parameter]:
    for name, choice in CHOICES.items():
        option = typer.Option(
            f"--{name}", help=choice.help, metavar=choice.metavar, rich_help_panel=panel
        )
        annotation: Any = Annotated[choice.type | None, option]
        yield Parameter(
            _variable(name), Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )


def _untuned(panel: str) -> Parameter:
    option = typer.Option(
        "--untuned", help="As the recipe says: RUN/search.yaml counts not.", rich_help_panel=panel
    )
    annotation: Any = Annotated[bool, option]
    return Parameter("untuned", Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _overrides(given: Mapping[str, Any]) -> Iterator[str]:
    """`search.key=value` for each option that is given, the kind first.

    An option that only one kind of search knows chooses that kind. Raises typer.BadParameter where
    another was chosen.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    kind = asked.pop("search", None)
    for name in asked:
        needed = CHOICES[name].kind
        if kind is None:
            kind = needed
        elif needed not in (None, kind):
            raise typer.BadParameter(f"--{name} is for --search {needed}, and this is {kind}")
    if kind is not None:
        yield f"search.kind={kind}"
    for name, value in asked.items():
        text = value if isinstance(value, int | float) else _quoted(value)
        yield f"search.{CHOICES[name].key}={text}"
        if value == 0 and name in OFF and OFF[name][0] not in asked:
            yield f"search.{OFF[name][1]}"


def _quoted(value: object) -> str:
    """A text as YAML takes it whatever it looks like: a folder may be called 5."""
    return "'" + str(value).replace("'", "''") + "'"
