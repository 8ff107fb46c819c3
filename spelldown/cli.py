"""The command line: parse, call one function, print.

Everything heavy is imported inside the commands, so that `spelldown --help` answers at once.
"""

import errno
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spelldown.commands.corpora.preparing import prepare
from spelldown.commands.evaluating import evaluate
from spelldown.commands.language import train_lm
from spelldown.commands.options import FAILED, INTERRUPTED
from spelldown.commands.studies import report, study
from spelldown.commands.transcribing import transcribe
from spelldown.commands.tuning import tune
from spelldown.errors import SpelldownError
from spelldown.terminal import console
from spelldown.writing import FULL


class _Commands(TyperGroup):
    """Commands whose user errors are one message, without a traceback, and status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpelldownError as error:
            message = str(error)
        except KeyboardInterrupt:
            console(stderr=True).print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            message = _of_the_system(error)
            if not message:
                raise
        console(stderr=True).print(message, style="red")
        raise typer.Exit(FAILED) from None


def _of_the_system(error: OSError) -> str:
    """What an error is that the user can mend; nothing for others, and for a reader gone away."""
    if error.errno == errno.EPIPE or (error.filename is None and error.errno not in FULL):
        return ""
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{FULL.get(error.errno or 0, error.strerror)}"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and use speech recognizers that listen, attend and spell.",
    epilog="`spelldown demo` shows everything at once.",
)

RecipePath = Annotated[
    Path | None, typer.Argument(metavar="RECIPE", help="A page such as recipes/an4.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Laid over it: optimizer.rate=5e-4, listener.blocks.0.width=96, augment=null, ...",
    ),
]


@app.command()
def train(
    recipe: RecipePath = None,
    overrides: Overrides = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The new run's folder; else runs/NAME-1, NAME-2, ..."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with this run, by its own recipe.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most that it may hold: 6GB (training.memory)."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHERE", help="tensorboard, wandb or mlflow too; may be given several times."
        ),
    ] = None,
) -> None:
    """Train a recipe, or go on with a run that was stopped or killed.

    On several GPUs or machines: torchrun --nproc-per-node 2 --max-restarts 3 -m -- spelldown train
    RECIPE
    """
    if resume is not None and recipe is not None and "=" in str(recipe):
        raise typer.BadParameter(
            f"{recipe}: a resumed run goes on by its own recipe, unchanged; to train otherwise, "
            f"begin a new one: spelldown train {resume / 'recipe.yaml'} {recipe}"
        )
    if (recipe is None) == (resume is None):
        raise typer.BadParameter(
            "give a recipe to start, or --resume RUN to go on (one of the two)"
        )
    if resume is not None and (overrides or track or run is not None):
        raise typer.BadParameter("a resumed run goes on by its own recipe, in its own folder")
    from spelldown.recipe import together

    if resume is not None:
        trained = together.resume(resume, memory)
    else:
        assert recipe is not None
        limit = [] if memory is None else [f"training.memory='{memory}'"]
        trained = together.train(recipe, [*(overrides or ()), *limit], run, track or ())
    if trained is None:  # not the first of several processes: it only trained along
        return
    folder, outcome = trained.folder, trained.outcome
    if outcome.ending == "interrupted":  # the trainer has said how to go on
        # What watches over several processes would start them again after any other status.
        raise typer.Exit(INTERRUPTED if trained.processes == 1 else 0)
    out = console()
    best = "" if outcome.best is None else f", best epoch {outcome.best_epoch} ({outcome.best:.3f})"
    out.print(f"{outcome.ending} after {outcome.epochs} epochs{best}")
    out.print(f"next: spelldown evaluate {folder}")


app.add_typer(prepare, name="prepare")
app.command()(evaluate)
app.command()(transcribe)
app.command()(tune)
app.command()(train_lm)
app.command()(study)
app.command()(report)


@app.command()
def recipe(
    recipe: RecipePath = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")
    ] = False,
    measure: Annotated[
        bool, typer.Option(help="Read the corpus and measure an update, for time and memory.")
    ] = True,
) -> None:
    """Show a recipe resolved: every key, the model's parts, time and memory of an epoch."""
    if (recipe is None) != schema:
        raise typer.BadParameter("give a recipe to show, or --schema (one of the two)")
    from spelldown.recipe.reading.schema import schema_text
    from spelldown.recipe.recipe import Recipe, read_recipe

    if recipe is None:
        print(schema_text(Recipe), end="")
        return
    from spelldown.recipe.overview import overview
    from spelldown.terminal import show_estimate, show_page, show_parts

    out, err = console(), console(stderr=True)
    asked = read_recipe(recipe, overrides or ())
    show_page(out, asked.as_yaml())
    found = overview(asked, read_corpus=measure)
    out.print()
    show_parts(out, found.parts)
    if measure:
        out.print()
        if found.missing is not None:
            err.print(f"the corpus cannot be used: {found.missing}", style="yellow")
        show_estimate(out, found.estimate(), asked.training.epochs)


@app.command()
def demo(
    again: Annotated[
        bool, typer.Option(help="Train anew, beside what an earlier demo left.")
    ] = False,
) -> None:
    """Make a spoken corpus, train a recognizer on it, and try it: about ten minutes."""
    from spelldown.demo import run_demo

    if run_demo(again=again) is None:
        raise typer.Exit(INTERRUPTED)


def main() -> None:
    """What the command `spelldown` runs."""
    app()


if __name__ == "__main__":
    main()
