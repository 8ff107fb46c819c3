"""A corpus as it lies somewhere -> manifests of cuts that a recipe trains on, and a look at it.

    find    the source is read; what it names goes to disk            .preparing/found.jsonl
    hear    every recording is decoded once, several at a time        .preparing/heard.jsonl
    judge   texts take their form; what cannot be used stops here     .preparing/fit.jsonl
    split   every utterance goes to a part
    write   manifests, figures and the page, put in their places together at the end

Nothing here grows with the sound, and with the number of utterances only by some bytes each.
What was heard stays on disk: a preparation that was interrupted, or is made again with another form
of text or other parts, hears nothing twice.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spelldown.data.checks import Problem
from spelldown.data.loading.ahead import side_by_side
from spelldown.data.preparing.cutting import cut_of
from spelldown.data.preparing.disk.folder import OutFolder, Partial
from spelldown.data.preparing.disk.found import Fit, Found, named, read_fit, read_found
from spelldown.data.preparing.disk.journal import Journal, key_of
from spelldown.data.preparing.hearing import Heard, hear
from spelldown.data.preparing.looking.doubts import Doubt, DoubtSettings, doubts
from spelldown.data.preparing.looking.figures import Figures, rank
from spelldown.data.preparing.looking.page import look_page
from spelldown.data.preparing.splits import Splits, SplitSettings, Spoken, file_names, split
from spelldown.data.preparing.text import TextForm, TextSettings
from spelldown.data.preparing.utterance import PassedOver, Remark, Utterance
from spelldown.errors import DataError
from spelldown.progress import Progress, quiet
from spelldown.settings import Settings
from spelldown.writing import FULL, write_whole

Source = Callable[[], Iterable[Utterance | Problem]]


class PrepareSettings(Settings):
    """All that decides what a prepared corpus is, besides its source."""

    text: TextSettings = TextSettings()
    split: SplitSettings = SplitSettings()
    doubts: DoubtSettings = DoubtSettings()
    channel: int | Literal["mix"] | None = Field(
        None, description="to take of recordings with several; null mixes them, as mix does"
    )


@dataclass(frozen=True)
class Prepared:
    """A corpus that was prepared: its folder, and the record that is in its prepared.json."""

    out: Path
    record: dict[str, Any]


def prepare(
    source: Source,
    about: dict[str, Any],
    out: Path,
    settings: PrepareSettings,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress = quiet,
    say: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Prepares a corpus into the folder `out`; called again, goes on where it was interrupted.

    source: gives the utterances, each time it is called
    about: what the source is, for the record: `kind`, `source` (its path) and its settings
    jobs: recordings that are decoded at the same time
    overwrite: whether another corpus in `out` may be replaced
    say: is told what was decided on the way

    The same source and settings give the same files, byte for byte, interrupted or not. Raises
    DataError for unusable utterances that `settings.doubts.leave_out` does not name, listing them
    all, for a folder that holds another corpus, and for a full disk; nothing is then half-written.
    """
    asked = {**about, "settings": settings.model_dump(mode="json")}
    folder = OutFolder(out)
    try:
        with folder.claim(asked, overwrite) as changes:
            if changes:
                say(f"prepared anew, since this changed: {'; '.join(changes)}")
            work = _Preparation(source, asked, folder, settings, progress, say)
            return work.run(jobs)
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"{error.filename or out}: the disk is full; what was heard is kept, and the same "
                "command goes on"
            ) from error
        raise


class _Preparation:
    """One preparation, step by step."""

    def __init__(
        self,
        source: Source,
        asked: dict[str, Any],
        folder: OutFolder,
        settings: PrepareSettings,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self.source, self.asked, self.folder, self.settings = source, asked, folder, settings
        self.progress, self.say = progress, say
        self.form = TextForm(settings.text)  # before anything else: it may not be possible
        self.total = 0
        self.left_out: Counter[str] = Counter()
        self.hashes = array("Q")  # of each fit utterance's text

    def run(self, jobs: int) -> Prepared:
        with Journal(self.folder.heard) as journal:
            new = self.find(journal)
            if new < self.total and len(journal):
                self.say(f"{self.total - new:,} of {self.total:,} utterances were heard before")
            self.hear(journal, new, jobs)
        with Journal(self.folder.heard) as journal, Partial() as files:
            spoken = self.judge(journal, files)
            splits = split(spoken, self.settings.split)
            for line in splits.said:
                self.say(line)
            record = self.write(splits, files)
        return Prepared(self.folder.path, record)

    def find(self, journal: Journal) -> int:
        """Reads the source; how many of its utterances are still to be heard."""
        new = 0
        with Partial() as files:
            for what in self.progress("reading the source", self.source(), None):
                if isinstance(what, PassedOver):
                    self.say(f"passed over: {what.file}: {what.found}")
                    continue
                if isinstance(what, Remark):
                    self.say(f"{what.file}: {what.found}")
                    continue
                found = Found(what)
                if isinstance(what, Utterance):
                    self.total += 1
                    found = Found(what, key_of(what, self.settings.channel))
                    new += found.key not in journal
                files.write(self.folder.found, found.line())
            files.finish()
        if not self.total:
            problems = [str(one.what) for one in self._found()]
            raise DataError("there is no utterance in the source that can be used", problems)
        return new

    def _found(self) -> Iterator[Found]:
        return read_found(self.folder.found) if self.folder.found.exists() else iter(())

    def hear(self, journal: Journal, new: int, jobs: int) -> None:
        """Decodes what was not heard yet."""
        fresh = (one for one in self._found() if one.key and one.key not in journal)
        heard = _heard(fresh, self.settings.channel, jobs)
        for key, told in self.progress("hearing", heard, new):
            journal.add(key, told)

    def judge(self, journal: Journal, files: Partial) -> dict[str | None, Spoken]:
        """Writes what is fit; what each of the corpus's own parts holds.

        Raises DataError with every utterance that is not and may not be left out.
        """
        spoken: dict[str | None, Spoken] = {}
        stopped: list[str] = []
        reasons: Counter[str] = Counter()
        with Partial() as fits:
            for found in self._found():
                fit, wrong = self._judged(found, journal)
                if fit is not None and not wrong:
                    self._keep(fit, spoken, fits)
                    continue
                asked = [doubt for doubt in wrong if doubt.reason in self._leaves_out]
                unusable = [doubt for doubt in wrong if doubt.unusable and doubt not in asked]
                if unusable:
                    reasons.update(doubt.reason for doubt in unusable)
                    words = "; ".join(doubt.words for doubt in unusable)
                    stopped.append(f"{named(found.what)}: {words}")
                else:
                    self._leave_out(found.what, asked, files)
            fits.finish()
        self._stop(stopped, reasons)
        if not spoken:
            raise DataError("no utterance is left")
        return spoken

    @property
    def _leaves_out(self) -> frozenset[str]:
        return self.settings.doubts.leaves_out

    def _judged(self, found: Found, journal: Journal) -> tuple[Fit | None, list[Doubt]]:
        """An utterance with its text in form, and the doubts for which it is not kept."""
        if isinstance(found.what, Problem):
            return None, [Doubt("source", found.what.found)]
        heard = journal.get(found.key)
        if heard is None:
            raise DataError(f"{self.folder.heard}: changed while it was read; call again")
        text = found.what.text
        said = None if text is None else self.form.said(text)
        every = tuple(doubts(heard, said, self.settings.doubts))
        wrong = [doubt for doubt in every if doubt.unusable or doubt.reason in self._leaves_out]
        return Fit(found.what, heard, said, every), wrong

    def _keep(self, fit: Fit, spoken: dict[str | None, Spoken], fits: Partial) -> None:
        who = fit.utterance
        fits.write(self.folder.fit, fit.line())
        self.hashes.append(_hash(fit.said.text) if fit.said else 0)
        mine = spoken.setdefault(who.split, Spoken())
        mine.add(fit.heard.seconds, who.speaker, who.gender, who.age)

    def _leave_out(self, what: Utterance | Problem, why: list[Doubt], files: Partial) -> None:
        self.left_out.update({why[0].reason: 1})
        words = "; ".join(f"{doubt.reason}: {doubt.words}" for doubt in why)
        files.write(self.folder.left_out, f"{named(what)}: {words}")

    def _stop(self, stopped: list[str], reasons: Counter[str]) -> None:
        if not stopped:
            self.folder.unusable.unlink(missing_ok=True)
            return
        write_whole(self.folder.unusable, "".join(f"{line}\n" for line in stopped))
        raise DataError(
            f"{len(stopped)} of {self.total + reasons['source']} utterances cannot be used (all of "
            f"them are in {self.folder.unusable}). Mend them and call again, or leave them out: "
            f"--leave-out {','.join(reasons)}",
            stopped,
        )

    def write(self, splits: Splits, files: Partial) -> dict[str, Any]:
        """Writes manifests, figures, lists and the page, and puts them in their places."""
        own: dict[str, int] = {}  # the parts as the corpus calls them, with their numbers
        places = array("H")
        for fit in read_fit(self.folder.fit):
            who = fit.utterance
            part = splits.part_of(who.split, who.speaker, who.id)
            places.append(own.setdefault(part, len(own)))
        names = file_names(own)
        for part in set(splits.record.get("shares", ())).difference(names):
            self.say(f"no utterance is in {part}: there are too few for its share")
        repeated = _repeated(self.hashes, places, names)
        figures = Figures()
        total = len(places)
        each = self.progress("writing", read_fit(self.folder.fit), total)
        for number, fit in enumerate(each):
            part, found = names[places[number]], list(fit.doubts)
            if repeated[number] >= 0:
                found.append(Doubt("repeated", f"the same words are in {names[repeated[number]]}"))
                if "repeated" in self._leaves_out:
                    self._leave_out(fit.utterance, found[-1:], files)
                    continue
            self._write_one(part, fit, found, figures, files)
        return self._finish(splits, figures, files)

    def _write_one(
        self, part: str, fit: Fit, found: list[Doubt], figures: Figures, files: Partial
    ) -> None:
        text = None if fit.said is None else fit.said.text
        cut = cut_of(fit.utterance, fit.heard, text, self.folder.path)
        line = json.dumps(cut.to_dict(), ensure_ascii=False)
        files.write(self.folder.manifest(part), line)
        for doubt in found:
            words = f"{part}, {doubt.reason}: {doubt.words}"
            files.write(self.folder.doubtful, f"{named(fit.utterance)}: {words}")
        figures.add(part, fit.utterance, fit.heard, fit.said, found)

    def _finish(self, splits: Splits, figures: Figures, files: Partial) -> dict[str, Any]:
        stale = {self.folder.manifest(part) for part in self.folder.parts_before}
        stale |= {self.folder.doubtful, self.folder.left_out}
        learnt = [part for part in figures.parts if not rank(part)[0]] or list(figures.parts)
        record = {
            **self.asked,
            "splits": {**splits.record, "said": list(splits.said)},
            **figures.as_dict(learnt),
            "left_out": dict(self.left_out),
        }
        files.write(self.folder.look, look_page(record, self.folder.path.absolute().name))
        files.write(self.folder.prepared, json.dumps(record, ensure_ascii=False, indent=1))
        for path in stale.difference(files.finish()):
            path.unlink(missing_ok=True)
        self.folder.clear()
        return record


def _heard(found: Iterable[Found], channel: Any, jobs: int) -> Iterator[tuple[int, Heard]]:
    """What is heard of each, in their order; `jobs` are decoded at the same time.

    By threads: decoding happens outside of Python's lock.
    """

    def listen(one: Found) -> Heard:
        assert isinstance(one.what, Utterance)
        return hear(one.what, channel)

    with ThreadPoolExecutor(jobs) as pool:
        for one, heard in side_by_side(pool, listen, found, jobs):
            yield one.key, heard.result()


def _repeated(hashes: "array[int]", places: "array[int]", names: list[str]) -> NDArray[np.int64]:
    """For each utterance a part that judges it and holds the same words, or -1.

    What is learnt from gives way to what judges: train to dev, and both to test.
    """
    ranks = np.array([rank(name)[0] for name in names], np.int64)
    texts = np.frombuffer(hashes, np.uint64)
    part = np.frombuffer(places, np.uint16).astype(np.int64)
    _, same = np.unique(texts, return_inverse=True)
    highest = np.full(int(same.max()) + 1, -1, np.int64)
    np.maximum.at(highest, same, ranks[part] * len(names) + part)
    found = highest[same]
    other = np.where((found // len(names) > ranks[part]) & (texts != 0), found % len(names), -1)
    return other.astype(np.int64)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") or 1
