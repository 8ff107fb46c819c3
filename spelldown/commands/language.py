"""`spelldown train-lm`: a language model, for search to ask."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spelldown.commands.options import INTERRUPTED, Json
from spelldown.terminal import console, working

if TYPE_CHECKING:
    from spelldown.recipe.language.texts import Texts

FROM, HOW = "What it is made from", "How it is made"


class KindName(StrEnum):
    """What kinds of language model there are."""

    ngram = "ngram"
    lstm = "lstm"


class UnknownName(StrEnum):
    """The values of TextsSettings.unknown."""

    stop = "stop"
    drop_line = "drop-line"
    drop_character = "drop-character"


class FormName(StrEnum):
    """The values of TextsSettings.text_form."""

    as_is = "as-is"
    own = "own"
    librispeech = "librispeech"


def train_lm(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The language model's new folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="data.root=... of the run; for lstm model.width=512, training.epochs=10, ...",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Whose symbols it has, whose transcripts it learns, and whose dev judges it.",
            rich_help_panel=FROM,
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A prepared corpus' transcripts.", rich_help_panel=FROM),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Sentences, one a line; several times.", rich_help_panel=FROM
        ),
    ] = None,
    transcripts: Annotated[
        bool, typer.Option(help="Learn what is said in the run's corpus.", rich_help_panel=FROM)
    ] = True,
    leave_out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Sentences to leave out, such as a test's: lines, Kaldi text, table, manifest, or "
            "a folder of the course's arrays.",
            rich_help_panel=FROM,
        ),
    ] = None,
    unknown: Annotated[
        UnknownName,
        typer.Option(help="Lines with characters that it has no symbol for.", rich_help_panel=FROM),
    ] = UnknownName.stop,
    text_form: Annotated[
        FormName,
        typer.Option(
            help="own: in capitals, without punctuation; librispeech: A-Z and apostrophe alone.",
            rich_help_panel=FROM,
        ),
    ] = FormName.as_is,
    held_out: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="Share of the sentences that judges it, where there is no dev part.",
            rich_help_panel=FROM,
        ),
    ] = 0.02,
    kind: Annotated[
        KindName, typer.Option(help="ngram: in seconds; lstm: in minutes.", rich_help_panel=HOW)
    ] = KindName.ngram,
    order: Annotated[
        int | None,
        typer.Option(
            min=1, max=16, show_default="6", help="Symbols an n-gram has.", rich_help_panel=HOW
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            min=16,
            metavar="MB",
            show_default="1024",
            help="That counting n-grams may take; the rest waits on disk.",
            rich_help_panel=HOW,
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Make a language model of texts, of a corpus' transcripts, or of both.

    `spelldown tune RUN --search beam --lm OUT` finds how much it should count. Without tuning,
    search asks it with `spelldown evaluate RUN --search beam --ctc 0.3 --lm OUT --lm-weight 0.3`.
    """
    given = list(overrides or ())
    of_data = [one for one in given if one.startswith("data.")]
    of_model = [one for one in given if not one.startswith("data.")]
    if kind == KindName.ngram and of_model:
        raise typer.BadParameter(f"an n-gram model has no settings such as {of_model[0]}")
    if kind == KindName.lstm and (order is not None or memory is not None):
        raise typer.BadParameter("--order and --memory are for --kind ngram")
    if of_data and run is None:
        raise typer.BadParameter(f"{of_data[0]}: there is no --run whose data it could move")
    if corpus is not None and not transcripts:
        raise typer.BadParameter("--corpus is there for its transcripts; leave one of the two out")
    if not text and corpus is None and (run is None or not transcripts):
        raise typer.BadParameter("nothing to learn from: give --text, --corpus or --run")
    settings = {
        "text": tuple(text or ()),
        "leave_out": tuple(leave_out or ()),
        "unknown": unknown.value,
        "text_form": text_form.value,
        "held_out": held_out,
    }
    texts = _texts(settings, run, of_data, corpus, transcripts)
    if kind == KindName.ngram:
        _ngram(texts, out, order, memory, json_)
    else:
        _lstm(texts, out, of_model, json_)


def _texts(
    settings: dict[str, Any],
    run: Path | None,
    overrides: list[str],
    corpus: Path | None,
    transcripts: bool,
) -> "Texts":
    from spelldown.data.vocabulary import Vocabulary
    from spelldown.errors import DataError
    from spelldown.recipe.language.sources import said_in_corpus, said_in_run, vocabulary_of
    from spelldown.recipe.language.texts import Texts, TextsSettings

    learnt: list[str] = []
    judging: list[str] = []
    vocabulary = Vocabulary.course() if run is None else vocabulary_of(run)
    if run is not None:
        try:
            said = said_in_run(run, overrides)
            judging += said.dev
            learnt += said.train if transcripts else ()
        except DataError as error:
            if transcripts or overrides:
                raise
            console(stderr=True).print(
                f"the run's dev part cannot judge the model ({error.summary}): a share of the "
                "texts does, unless data.root=... says where it lies",
                style="yellow",
            )
    if corpus is not None:
        said = said_in_corpus(corpus)
        learnt += said.train
        judging += said.dev
    return Texts(TextsSettings(**settings), vocabulary, learnt, judging)


def _ngram(texts: "Texts", out: Path, order: int | None, memory: int | None, json_: bool) -> None:
    from spelldown.recipe.language.ngram import MEMORY, ORDER, train_ngram

    err = console(stderr=True)
    page = train_ngram(
        texts,
        out,
        order or ORDER,
        MEMORY if memory is None else memory << 20,
        working(err),
        lambda message: err.print(message),
    )
    if json_:
        print(json.dumps(page, ensure_ascii=False))
        return
    _tell(texts, page)
    counts = ", ".join(f"{count:,}" for count in page["ngrams"])
    say = console().print
    say(f"n-grams of 1 to {page['order']} symbols: {counts}")
    if "perplexity" in page:
        say(
            f"perplexity {page['perplexity']:.3f} a symbol on {page['judged_by']['sentences']:,} "
            "sentences that it has not learnt"
        )
    say(_next(out))


def _lstm(texts: "Texts", out: Path, overrides: list[str], json_: bool) -> None:
    from spelldown.errors import DataError
    from spelldown.recipe.language.lstm import train_lstm
    from spelldown.recipe.language.ngram import about
    from spelldown.recipe.language.recipe import read_language_recipe

    recipe = read_language_recipe(None, overrides)
    sentences = list(texts.sentences())
    if not texts.judging:
        raise DataError(
            "an LSTM is judged after every epoch, and there is no sentence to judge it by: give "
            "--held-out a larger share (of few sentences, 0.02 may be none), or a --run with a dev "
            "part"
        )
    outcome = train_lstm(
        recipe, sentences, texts.judging, texts.vocabulary, out, about=about(texts)
    )
    if outcome.ending == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if json_:
        from spelldown.search.language.language_model import read_page

        print(json.dumps(read_page(out), ensure_ascii=False))
        return
    _tell(texts, about(texts))
    console().print(_next(out))


def _next(out: Path) -> str:
    return (
        f"next: spelldown tune RUN --search beam --lm {out}, which finds how much it should count"
    )


def _tell(texts: "Texts", page: dict[str, Any]) -> None:
    """What became of the texts."""
    say = console().print
    say(f"{page['sentences']:,} sentences of {page['characters']:,} characters")
    if texts.settings.leave_out:
        say(f"{page['left_out']:,} sentences left out, since they occur in --leave-out")
    if page["unknown_lines"]:
        dropped = "left out" if texts.settings.unknown == "drop-line" else "had them taken away"
        often = ", ".join(f"{c!r} {n:,}" for c, n in texts.met.unknown.most_common(8))
        say(
            f"{page['unknown_lines']:,} lines with characters that the vocabulary lacks {dropped} "
            f"({often} times)"
        )
