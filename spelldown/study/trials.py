"""Rows that Optuna thinks of while a study runs, by what the rows before came to.

What it was told is kept in the study's folder, trials.log, so that a study goes on where it was.
"""

from typing import Any

from spelldown.errors import DataError, StudyError
from spelldown.study.axes import Axis, AxisSettings, Choice, OptunaSettings, number, values_of
from spelldown.study.folder import Outcome, Row, StudyFolder
from spelldown.study.plan import Planned, add_row, row_of
from spelldown.study.running.runner import Runner

NAME = "trial-"


class Trials:
    """The trials of a study: asks for the next, tells what came of those that are over."""

    def __init__(self, planned: Planned, folder: StudyFolder) -> None:
        """Takes up the trials that the folder knows. Raises StudyError where Optuna is missing."""
        settings = planned.study.settings
        assert isinstance(settings.explore, OptunaSettings)
        self.planned, self.folder, self.settings = planned, folder, settings.explore
        self.axes = settings.axes
        try:
            import optuna
        except ImportError:
            raise StudyError(
                "explore kind optuna needs Optuna: pip install 'spelldown[tune]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        self.study = self._study()
        self._take_up()

    def more(self, runner: Runner) -> bool:
        """Adds the row of the next trial; False while none can be added, or none is left."""
        self._tell(runner.outcomes)
        if self.settings.sampler in ("gp", "cma-es") and self._under_way(runner.outcomes):
            return False  # these choose badly without what came before
        while len(self.study.trials) < self.settings.trials:
            trial = self.study.ask(self._distributions())
            try:
                self._add(trial.number, trial.params)
            except (StudyError, DataError) as error:  # values that are impossible together
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                runner.watcher.message(f"{NAME}{trial.number + 1:03}: left out: {error}")
            else:
                return True
        return False

    def _study(self) -> Any:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder.path.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(self.folder.trials)))
        name = self.planned.plan.name
        known = {summary.study_name for summary in self.optuna.get_all_study_summaries(storage)}
        done = len(self.optuna.load_study(study_name=name, storage=storage).trials) if (
            name in known
        ) else 0  # fmt: skip
        return self.optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=self._sampler(self.settings.seed + done),
            load_if_exists=True,
        )

    def _sampler(self, seed: int) -> Any:
        samplers = self.optuna.samplers
        try:
            if self.settings.sampler == "tpe":
                return samplers.TPESampler(seed=seed, constant_liar=True)
            if self.settings.sampler == "gp":
                return samplers.GPSampler(seed=seed)
            if self.settings.sampler == "cma-es":
                return samplers.CmaEsSampler(seed=seed)
        except ImportError as error:
            raise StudyError(f"explore.sampler {self.settings.sampler}: {error}") from None
        if self.settings.sampler == "qmc":
            return samplers.QMCSampler(seed=self.settings.seed, scramble=True)
        return samplers.RandomSampler(seed=seed)

    def _take_up(self) -> None:
        """Puts the trials of an earlier start back into the plan, as they were."""
        for trial in self.study.trials:
            if trial.state.name != "FAIL":
                self._add(trial.number, trial.params)

    def _add(self, trial: int, params: dict[str, Any]) -> None:
        choice = Choice({n: self._value(n, self.axes[n], params[n]) for n in self.axes})
        row, recipe = row_of(self.planned, f"{NAME}{trial + 1:03}", choice)
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
        open_trials = {t.number for t in self.study.trials if t.state.name == "RUNNING"}
        for row in self.planned.plan.rows:
            if not row.name.startswith(NAME):
                continue
            trial = int(row.name.removeprefix(NAME)) - 1
            if trial not in open_trials:
                continue
            runs = [outcomes[run] for run in row.runs.values() if run in outcomes]
            if len(runs) < len(row.runs) or not all(run.over for run in runs):
                continue
            value = self._came_to(runs)
            state = self.optuna.trial.TrialState
            if value is None:
                self.study.tell(trial, state=state.FAIL)
            else:
                self.study.tell(trial, value)

    def _under_way(self, outcomes: dict[str, Outcome]) -> list[Row]:
        rows = [row for row in self.planned.plan.rows if row.name.startswith(NAME)]
        ended = ("finished", "stopped", "failed")
        return [
            row for row in rows
            if any(r not in outcomes or outcomes[r].state not in ended for r in row.runs.values())
        ]  # fmt: skip

    def _came_to(self, runs: list[Outcome]) -> float | None:
        """The mean over seeds of what is to be minimised; None where a run has no figure."""
        part = self.planned.plan.parts[0]
        figures = [run.scores.get(part, {}).get(self.settings.minimise) for run in runs]
        known = [float(figure) for figure in figures if figure is not None]
        return sum(known) / len(known) if known and len(known) == len(figures) else None
