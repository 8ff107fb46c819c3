"""The loop: update, validate, keep the best, stop early, and go on after any interruption.

What makes a resumed run end with the same weights, bit for bit on a CPU:

- batches are a function of seed, epoch and place; so is all that an update draws by chance
- the learning rate is a function of epoch and place, but for what a plateau remembers
- everything else that later updates depend on is in the checkpoint, which is written whole
"""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch

from spelldown.data.batching import Batch, Batches
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import LostRankError, NonFiniteError
from spelldown.model.precision import Precision, resolve_precision
from spelldown.model.recognizer import Recognizer
from spelldown.search.search import SearchSettings
from spelldown.training import alignment
from spelldown.training.guard.guard import Guard
from spelldown.training.interruption import Interruption
from spelldown.training.learning.averaging import build_averaging
from spelldown.training.learning.optimizer import build_optimizer
from spelldown.training.learning.schedule import build_schedule
from spelldown.training.learning.settings import Learning, TrainingSettings
from spelldown.training.learning.teacher_forcing import Judged, build_teacher_forcing, feedback_at
from spelldown.training.memory import keep_freed_memory
from spelldown.training.parallel.ranks import Ranks
from spelldown.training.remedies import ALL, finite_again
from spelldown.training.run.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest,
    save_checkpoint,
)
from spelldown.training.run.conditions import conditions
from spelldown.training.run.record import Progress, Sums, epoch_record
from spelldown.training.run.run_folder import RunFolder
from spelldown.training.run.standing import Outcome, outcome, remembered, take_up
from spelldown.training.run.tracking import Silent, Tracker
from spelldown.training.update import (
    Manner,
    Updater,
    device_for,
    device_of,
    grouped,
    update_seed,
)
from spelldown.training.validation import (
    Judge,
    Validated,
    Validation,
    draw,
    seconds_per_frame,
)

__all__ = ["Learning", "Outcome", "Trainer", "TrainingSettings"]


class Trainer:
    """Trains a recognizer in a run folder, from the start or from where it stands.

    Whoever resumes and fits must hold the folder (`RunFolder.held`), the whole time.

    remedies: what to type for those that the recipe does not use yet to make attention align, by
              their names (`spelldown.training.remedies`)
    ranks:    the processes that train together, of which the first alone writes and shows
    """

    def __init__(
        self,
        run: RunFolder,
        recognizer: Recognizer,
        train: Batches,
        dev: Batches,
        vocabulary: Vocabulary,
        learning: Learning,
        search: SearchSettings,
        *,
        seed: int = 1,
        tracker: Tracker | None = None,
        remedies: Mapping[str, str] = ALL,
        ranks: Ranks | None = None,
    ) -> None:
        settings, self.ranks = learning.training, ranks or Ranks()
        keep_freed_memory()
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.run, self.train, self.learning, self.settings = run, train, learning, settings
        self.seed, self.tracker, self.remedies = seed, tracker or Silent(), remedies
        device = device_for(self.ranks.device_name(settings.device))
        self.ranks.use(device)
        precision = resolve_precision(settings.precision, device)
        self.repairs = [repair["remedy"] for repair in run.read_repairs()]
        self.guard = Guard(
            device,
            run.memory if self.ranks.first else run.path / f"memory-{self.ranks.rank}.jsonl",
            settings.memory,
            self.tracker.message,
        )
        self.recognizer = recognizer.to(device).train()
        self.optimizer = build_optimizer(self.recognizer, learning.optimizer)
        self.updater = Updater(
            self.recognizer,
            self.optimizer,
            learning.loss,
            learning.optimizer.clip,
            precision,
            device,
            self.ranks,
            self.guard,
        )
        self.validation = self._validation(dev, vocabulary, search, precision)
        self.schedule = build_schedule(learning.schedule, settings.epochs)
        self.teacher_forcing = build_teacher_forcing(learning.teacher_forcing)
        self.averaging = build_averaging(learning.averaging)
        self.judge = Judge(settings.patience, settings.least_improvement)
        self.history: list[alignment.Validation] = []
        self.progress, self.sums = Progress(), Sums()
        self.conditions = conditions(train, dev, self.ranks)
        self.interruption, self.stopping = Interruption(patient=self.ranks.count > 1), False
        self.go_on = f"spelldown train --resume {run}"
        self.saved_at = time.monotonic()
        self.told_of_waiting = False

    def _validation(
        self, dev: Any, vocabulary: Vocabulary, search: SearchSettings, precision: Precision
    ) -> Any:
        pictures = self.settings.pictures if self.settings.pictures_every else 0
        return Validation(dev, vocabulary, search, precision, pictures, self.ranks, self.guard)

    def resume(self) -> bool:
        """Takes up the run where its last checkpoint left it; False if there is none yet.

        Epochs that metrics.jsonl lists and the checkpoint does not know are taken out of it, since
        they will be repeated. Raises CheckpointError if the checkpoint cannot be used, and RunError
        if the corpus is another than the one that was trained on.
        """
        place, device = self.run.last, device_of(self.recognizer)
        checkpoint = self.ranks.from_first(
            lambda: load_checkpoint(place) if newest(place) else None
        )
        if checkpoint is None:
            return False
        warning = take_up(self, checkpoint, device)
        if warning:
            self.tracker.message(warning)
        if self.ranks.first:
            self.run.forget_epochs_after(self.progress.epoch - 1)
        return True

    def save(self) -> None:
        """Writes all that is needed to go on from here."""
        if not self.ranks.first:
            return
        save_checkpoint(self.run.last, remembered(self))
        self.saved_at = time.monotonic()

    def fit(self) -> Outcome:
        """Trains until the run is over or somebody wishes it to stop.

        Raises NonFiniteError if losses or gradients stay non-finite; what was learnt is saved.
        """
        with self.interruption, self.tracker, self.guard:
            if newest(self.run.last) is None:
                self.save()  # from here on there is always something to go on from
            self.ranks.align(self.recognizer.state_dict().values())
            self._repeat_advice()
            try:
                return self._fit()
            except LostRankError:
                self.save()  # what is lost is only the update that others had a part in
                raise

    def _fit(self) -> Outcome:
        while self.progress.epoch <= self.settings.epochs and not self.judge.exhausted:
            if self._unaligned():
                return outcome(self, "unaligned")
            self._train_epoch()
            if self.stopping or not self._end_epoch():
                self.save()
                self.tracker.message(
                    f"stopped after {self.progress.updates} updates, in epoch "
                    f"{self.progress.epoch}; all is saved. Go on with: {self.go_on}"
                )
                return outcome(self, "interrupted")
        if self.judge.exhausted:
            return outcome(self, "unaligned" if self._unaligned() else "stopped early")
        return outcome(self, "finished")

    def _unaligned(self) -> bool:
        """Whether the run should end here, since its attention does not align."""
        if self.settings.unaligned == "leave" or not self.history:
            return False
        return alignment.verdict(self.history, self.remedies).state == "not aligning"

    def _repeat_advice(self) -> None:
        """Tells a resumed run again what is wrong with attention, if something is."""
        if self.history:
            verdict = alignment.verdict(self.history, self.remedies)
            if verdict.state == "not aligning":
                self.tracker.message(f"attention is {verdict}")

    def _train_epoch(self) -> None:
        """Makes the epoch's updates from where progress stands, until a stop is wished for."""
        progress, minutes = self.progress, self.settings.checkpoint_minutes
        began = time.monotonic()
        batches = self.train.count(progress.epoch)
        self.sums.waited(time.monotonic() - began)
        self.tracker.epoch_begins(progress.epoch, self.settings.epochs, batches, progress.batch)
        for group in self._groups(batches):
            self._update(group, batches)
            self.stopping = self.ranks.any(self.interruption.wished)
            if self.stopping:
                return
            if time.monotonic() - self.saved_at >= 60 * minutes:
                self.save()

    def _update(self, group: list[Batch], batches: int) -> None:
        """One update, and all that takes note of it."""
        progress, began = self.progress, time.monotonic()
        self.guard.now(progress.updates)
        update = self.updater.update(group, self._manner(batches))
        progress.batch += len(group)
        progress.updates += 1
        progress.skipped_in_row = progress.skipped_in_row + 1 if update.skipped else 0
        if not update.skipped:
            self.averaging.updated(self.recognizer, progress.epoch)
        ids = [id for batch in group for id in batch.ids]
        every = self.ranks.everyones(ids) if update.skipped else [ids]
        self.sums.add(update, chain.from_iterable(every))
        self.sums.seconds += time.monotonic() - began
        self.tracker.updated(progress.batch, update.utterances, update.loss / update.symbols)
        if progress.skipped_in_row >= self.settings.nonfinite_patience:
            self._give_up()

    def _groups(self, batches: int) -> Iterator[list[Batch]]:
        """The epoch's batches from where progress stands, an update's worth at a time."""
        if self.progress.batch >= batches:
            return
        ours = (self.ranks.of_utterances,) if self.ranks.count > 1 else ()

        def anew() -> Iterator[list[Batch]]:
            rest = self.train.epoch(self.progress.epoch, self.progress.batch, *ours)
            return grouped(rest, self.learning.optimizer.accumulate)

        groups = self.guard.loading(anew)
        while True:
            began = time.monotonic()
            group = next(groups, None)
            self.sums.waited(time.monotonic() - began)
            if group is None:
                return
            yield group

    def _manner(self, batches: int) -> Manner:
        """How the schedules want the next update to be made."""
        epoch, learning = self.progress.epoch, self.learning
        noisy = epoch >= self.settings.weight_noise_from
        forcing = self.teacher_forcing.rate_in(epoch)
        return Manner(
            rate=self._rate(batches),
            ctc_weight=learning.loss.ctc_weight_in(epoch),
            feedback=feedback_at(learning.teacher_forcing, forcing),
            weight_noise=self.settings.weight_noise if noisy else 0.0,
            seed=update_seed(self.seed, self.progress.updates),
        )

    def _rate(self, batches: int) -> float:
        """The learning rate of the next update, or of the last one at the epoch's end."""
        size = self.learning.optimizer.accumulate
        updates = -(-batches // size)
        place = min(self.progress.batch // size, updates - 1)
        done = self.progress.epoch - 1 + (place + 0.5) / updates
        return self.learning.optimizer.rate * self.schedule.factor(done)

    def _end_epoch(self) -> bool:
        """Validates, keeps the best, tells the schedules, saves; False if it was interrupted."""
        epoch = self.progress.epoch
        self.tracker.validating()
        self.guard.now(self.progress.updates)
        self.averaging.epoch_ended(self.recognizer, epoch)
        with self.averaging.applied(self.recognizer):
            validated = self.validation.run(self.recognizer, lambda: self.interruption.wished)
            if validated is None:
                return False
            value = validated.by(self.settings.judge)
            best, improved = self.judge.judge(epoch, value, validated.loss)
            if best and self.ranks.first:
                about = {"epoch": epoch, "updates": self.progress.updates, "value": value}
                save_checkpoint(self.run.best, Checkpoint(self.recognizer.state_dict(), about))
        aligned = self._note(validated, best)
        every = self.settings.pictures_every
        if every and epoch % every == 0 and self.ranks.first:
            drawn = draw(validated, self.run, epoch, seconds_per_frame(self.recognizer))
            self.tracker.pictured(epoch, drawn)
        self.schedule.validated(value)
        self.teacher_forcing.validated(Judged(epoch, validated.by("distance"), improved, aligned))
        self.progress.epoch, self.progress.batch, self.sums = epoch + 1, 0, Sums()
        self.save()
        return True

    def _note(self, validated: Validated, best: bool) -> bool:
        """Writes the epoch's line and shows it; whether attention has aligned."""
        progress = self.progress
        now = alignment.Validation(
            progress.epoch, progress.updates, validated.alignment, validated.scores.cer
        )
        before = alignment.verdict(self.history, self.remedies).state if self.history else None
        self.history.append(now)
        verdict = alignment.verdict(self.history, self.remedies)
        record = epoch_record(
            self.sums,
            validated,
            verdict,
            epoch=progress.epoch,
            updates=progress.updates,
            rate=self._rate(self.train.count(progress.epoch)),
            teacher_forcing=self.teacher_forcing.rate_in(progress.epoch),
            ctc_weight=self.learning.loss.ctc_weight_in(progress.epoch),
            best=best,
            repairs=self.repairs,
        )
        if self.ranks.first:
            self.run.append_metrics(record)
        self.tracker.validated(record)
        if not self.told_of_waiting and (waited := self.sums.wait_worth_telling()):
            self.told_of_waiting = True  # once is enough
            self.tracker.message(f"{waited}: {self.train.quicker()}")
        if verdict.state != before and before is not None:
            self.tracker.message(f"attention is {verdict}")
        return verdict.state == "aligned"

    def _give_up(self) -> None:
        """Stops a run whose losses or gradients stay non-finite, with advice."""
        skipped, self.progress.skipped_in_row = self.progress.skipped_in_row, 0
        self.save()
        optimizer = self.learning.optimizer
        raise NonFiniteError(
            f"epoch {self.progress.epoch}: {skipped} updates in a row had a loss or gradient that "
            "is not finite and were skipped. The weights from before them are saved in "
            f"{self.run.last}. What to try, in this order: "
            f"{finite_again(optimizer.rate, optimizer.clip)}; a look at the data for values far "
            f"out of range ({self.sums.suspects()})"
        )
