"""Rows that Optuna thinks of while a study runs, by what the rows before came to.

What it was told is kept in the study's folder, trials.log, so that a study goes on where it was.
"""

import hashlib
import importlib.util
import json
import os
import warnings
from contextlib import suppress
from typing import Any

from spelldown.errors import DataError, StudyError
from spelldown.study.axes import (
    TRIAL,
    Axis,
    AxisSettings,
    Choice,
    ExploreSettings,
    OptunaSettings,
    number,
    values_of,
)
from spelldown.study.folder import Outcome, Row, StudyFolder
from spelldown.study.identity import identity_of
from spelldown.study.plan import Planned, add_row, row_of
from spelldown.study.running.runner import Runner

NEEDED = {"gp": ("scipy",), "cma-es": ("cmaes",), "qmc": ("scipy",)}
"""What samplers need beside Optuna, which says so only when it is asked for a trial."""
SEQUENTIAL = ("gp", "cma-es")
"""Samplers that choose badly without what came before."""


def hold_sampler(explore: ExploreSettings) -> None:
    """Raises StudyError for a sampler of Optuna's that cannot be used here."""
    if not isinstance(explore, OptunaSettings):
        return
    needed = ("optuna", *NEEDED.get(explore.sampler, ()))
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise StudyError(
            f"explore kind optuna with sampler {explore.sampler} needs {' and '.join(missing)}, "
            "not installed here: pip install 'spelldown[tune]'"
        )


def search_name(planned: Planned) -> str:
    """A search's name in trials.log: another one where anything else is searched or measured, since
    what is known of one says nothing of the other."""
    settings, plan = planned.study.settings, planned.plan
    asked = settings.model_dump(mode="json", include={"axes": True, "explore": True})
    del asked["explore"]["trials"]
    assert planned.base is not None
    base = identity_of(planned.base, plan.minutes)
    text = json.dumps([asked, plan.parts[0], settings.every_seed, base], sort_keys=True)
    return f"{plan.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def begun(planned: Planned, folder: StudyFolder) -> "Trials | None":
    """The trials of a study that a folder knows, put into the plan; None, and nothing written, if
    the study searches for nothing, or has not begun to."""
    explore = planned.study.settings.explore
    if not isinstance(explore, OptunaSettings) or not folder.trials.is_file():
        return None
    import optuna

    storage = optuna.storages.JournalStorage(_journal(str(folder.trials)))
    if search_name(planned) not in optuna.get_all_study_names(storage):
        return None
    return Trials(planned, folder)


class Trials:
    """The trials of a study: asks for the next, tells what came of those that are over."""

    def __init__(self, planned: Planned, folder: StudyFolder) -> None:
        """Takes up the trials that the folder knows. Raises StudyError where Optuna is missing."""
        settings = planned.study.settings
        assert isinstance(settings.explore, OptunaSettings)
        self.planned, self.folder, self.settings = planned, folder, settings.explore
        self.axes, self.seeds = settings.axes, settings.every_seed
        hold_sampler(self.settings)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        self.study = self._study()
        self._take_up()

    def more(self, runner: Runner) -> bool:
        """Adds the row of the next trial; False while none can be added, or none is left.

        Raises OSError where trials.log cannot be written; what could not be told is told later.
        """
        self._tell(runner.outcomes)
        if self.settings.sampler in SEQUENTIAL and self._under_way(runner.outcomes):
            return False
        while self._left():
            trial = self.study.ask(self._distributions())
            try:
                self._add(trial.number, trial.params)
            except (StudyError, DataError) as error:  # values that are impossible together
                runner.watcher.message(f"{TRIAL}{trial.number + 1:03}: left out: {error}")
                self._tell(runner.outcomes)
            else:
                return True
        return False

    def to_come(self) -> int:
        """Runs of all trials that are left."""
        return self._left() * len(self.seeds)

    def at_once(self) -> int:
        """How many of them may go side by side."""
        left = self._left()
        return len(self.seeds) * (min(left, 1) if self.settings.sampler in SEQUENTIAL else left)

    def _left(self) -> int:
        """Trials that are left. One that a full disk or a kill kept from getting all its values is
        none."""
        trials = self.study.get_trials(deepcopy=False)
        whole = [trial for trial in trials if len(trial.params) == len(self.axes)]
        return max(self.settings.trials - len(whole), 0)

    def _study(self) -> Any:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        storage = self.optuna.storages.JournalStorage(_journal(str(self.folder.trials)))
        name = search_name(self.planned)
        if name in self.optuna.get_all_study_names(storage):
            done = len(self.optuna.load_study(study_name=name, storage=storage).trials)
            sampler = self._sampler(self.settings.seed + done)
            return self.optuna.load_study(study_name=name, storage=storage, sampler=sampler)
        sampler = self._sampler(self.settings.seed)
        return self.optuna.create_study(study_name=name, storage=storage, sampler=sampler)

    def _sampler(self, seed: int) -> Any:
        samplers = self.optuna.samplers
        if self.settings.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)
        if self.settings.sampler == "gp":
            return samplers.GPSampler(seed=seed)
        if self.settings.sampler == "cma-es":
            return samplers.CmaEsSampler(seed=seed)
        if self.settings.sampler == "qmc":
            with warnings.catch_warnings(action="ignore"):  # Optuna holds it for experimental
                return samplers.QMCSampler(seed=self.settings.seed, scramble=True)
        return samplers.RandomSampler(seed=seed)

    def _take_up(self) -> None:
        """Puts the trials of an earlier start back into the plan, as they were."""
        for trial in self.study.trials:
            if trial.state.name != "FAIL" and len(trial.params) == len(self.axes):
                with suppress(StudyError, DataError):  # killed before it was told
                    self._add(trial.number, trial.params)

    def _add(self, trial: int, params: dict[str, Any]) -> None:
        choice = Choice({n: self._value(n, self.axes[n], params[n]) for n in self.axes})
        row, recipe = row_of(self.planned, f"{TRIAL}{trial + 1:03}", choice)
        add_row(self.planned, self.folder, row, recipe)

    def _value(self, name: str, axis: AxisSettings, chosen: Any) -> Any:
        if isinstance(axis, Axis) and axis.values is None:
            return number(name, axis, float(chosen))
        return {value.label: value for value in values_of(name, axis)}[chosen]

    def _distributions(self) -> dict[str, Any]:
        return {name: self._distribution(name, axis) for name, axis in self.axes.items()}

    def _distribution(self, name: str, axis: AxisSettings) -> Any:
        distributions = self.optuna.distributions
        if isinstance(axis, list) or axis.values is not None:
            labels = [value.label for value in values_of(name, axis)]
            return distributions.CategoricalDistribution(labels)
        if axis.whole:
            assert axis.low is not None and axis.high is not None
            return distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)

    def _tell(self, outcomes: dict[str, Outcome]) -> None:
        """Tells what came of trials that are over."""
        rows = {int(row.name.removeprefix(TRIAL)) - 1: row for row in self._rows()}
        state = self.optuna.trial.TrialState
        for trial in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            if trial.number not in rows:  # it cannot be run
                self.study.tell(trial.number, state=state.FAIL)
                continue
            row = rows[trial.number]
            runs = [outcomes[run] for run in row.runs.values() if run in outcomes]
            if len(runs) < len(row.runs) or not all(run.over for run in runs):
                continue
            value = self._came_to(runs)
            if value is None:
                self.study.tell(trial.number, state=state.FAIL)
            else:
                self.study.tell(trial.number, value)

    def _rows(self) -> list[Row]:
        return [row for row in self.planned.plan.rows if row.name.startswith(TRIAL)]

    def _under_way(self, outcomes: dict[str, Outcome]) -> list[Row]:
        ended = ("finished", "stopped", "failed")
        return [
            row for row in self._rows()
            if any(r not in outcomes or outcomes[r].state not in ended for r in row.runs.values())
        ]  # fmt: skip

    def _came_to(self, runs: list[Outcome]) -> float | None:
        """The mean over seeds of what is to be minimised; None where a run has no figure."""
        part = self.planned.plan.parts[0]
        figures = [run.scores.get(part, {}).get(self.settings.minimise) for run in runs]
        known = [float(figure) for figure in figures if figure is not None]
        return sum(known) / len(known) if known and len(known) == len(figures) else None


def _journal(path: str) -> Any:
    """The file that Optuna keeps trials in, whose lines are written whole or not at all.

    Optuna refuses the whole file for one line that a full disk cut short.
    """
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            size = os.path.getsize(path)
            try:
                super().append_logs(logs)
            except OSError:
                os.truncate(path, size)
                raise

    return Journal(path)
