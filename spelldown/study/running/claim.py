"""A study's folder is one study's, one process at a time runs it, and what it holds is not left out
without a word."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from spelldown.errors import RunError, StudyError
from spelldown.study.folder import Plan, StudyFolder, counted
from spelldown.writing import held


@contextmanager
def alone(folder: StudyFolder) -> Iterator[None]:
    """Keeps other processes from running the study in a folder while the context lasts.

    Raises RunError if another does.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with held(folder.lock) as ours:
            if not ours:
                told = "another process runs this study; wait for it, or stop it"
                raise RunError(f"{folder}: {told}")
            yield
    finally:
        with suppress(OSError):  # nothing came of it; else it is not empty
            folder.path.rmdir()


def hold_new(folder: StudyFolder) -> None:
    """Raises StudyError if there is a study in the folder, which is then to be resumed."""
    if not folder.plan.exists():
        if folder.path.exists() and (not folder.path.is_dir() or _holds_other(folder)):
            raise StudyError(f"{folder} is not an empty folder; choose another one with --into")
        return
    plan, known = folder.read_plan(), folder.known()
    over = sum(known[name].over for name in plan.runs if name in known)
    raise StudyError(
        f"{folder} has this study already, {over} of {len(plan.runs)} runs finished. To do what is "
        "missing: --resume; or choose another folder with --into"
    )


def hold_rows(only: Sequence[str], plan: Plan) -> None:
    """Raises StudyError for rows that are asked for, and that a plan does not have."""
    names = [row.name for row in plan.rows]
    if unknown := [name for name in only if name not in names]:
        raise StudyError(f"--only: there is no row {', '.join(unknown)}; rows: {', '.join(names)}")


def left_out(folder: StudyFolder, plan: Plan) -> str:
    """What to say where a plan lacks finished runs that the one in the folder has; else nothing."""
    if not folder.plan.exists():
        return ""
    before, known = folder.read_plan(), folder.known()
    gone = [name for name in before.runs if name not in plan.runs]
    over = [name for name in gone if name in known and known[name].over]
    if not over:
        return ""
    are = "is" if len(over) == 1 else "are"
    told = f"{counted(len(over), 'finished run')} {are} no longer asked for, only kept"
    if before.typed == plan.typed:
        return told
    last, now = (shlex.join(typed) or "nothing" for typed in (before.typed, plan.typed))
    return f"{told}. Typed behind the study was last time: {last}; now: {now}"


def _holds_other(folder: StudyFolder) -> bool:
    """Whether there is more in a folder than what a study leaves that ended before its plan."""
    ours = {folder.lock.name, folder.log.name, folder.settings.name, folder.trials.name}
    there = (path.name for path in folder.path.iterdir())
    return any(name not in ours and not name.endswith(".partial") for name in there)
