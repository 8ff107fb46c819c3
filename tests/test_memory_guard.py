"""What does not fit into memory is done in parts, and the run goes on as if it had always been."""

import gc
import json
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from run_outcome import Killed, KillsAfter, outcome
from tiny_run import batches_of, tiny_learning, tiny_recognizer, tiny_trainer
from toy_corpus import write_corpus

from spelldown.data.batching import Batch
from spelldown.errors import DoesNotFitError
from spelldown.model.listening.normalisation import Norm
from spelldown.model.spelling.speller import Feedback
from spelldown.training.guard.failing import is_out_of_memory
from spelldown.training.guard.fits import Fits, Lesson
from spelldown.training.guard.guard import Guard
from spelldown.training.guard.limit import Fence
from spelldown.training.learning.loss import LossSettings
from spelldown.training.learning.optimizer import AdamSettings, SgdSettings, build_optimizer
from spelldown.training.update import Manner, Update, Updater
from spelldown.training.validation import Validation

CPU = torch.device("cpu")
MANNER = Manner(1.0, 0.3, Feedback(), 0.0, 0)


def error() -> RuntimeError:
    """What torch says on the processor."""
    return RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("guard") / "corpus")


class Narrow:
    """Room for so many utterances at a time: forward passes over more run out of memory."""

    def __init__(self, recognizer: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most, self.failures, listen = most, 0, recognizer.listener.forward

        def narrow(frames: torch.Tensor, lengths: torch.Tensor) -> Any:
            if len(frames) > self.most:
                self.failures += 1
                raise error()
            return listen(frames, lengths)

        monkeypatch.setattr(recognizer.listener, "forward", narrow)


# Updates


def exact_update(
    batches: Sequence[Batch], most: int, monkeypatch: pytest.MonkeyPatch, norm: Norm = "layer"
) -> tuple[Update, list[torch.Tensor], Narrow]:
    """A plain step along the gradient in float64, without anything drawn by chance."""
    recognizer = tiny_recognizer(dropout=0.0, norm=norm).double()
    narrow = Narrow(recognizer, most, monkeypatch)
    loss = LossSettings(label_smoothing=0.1, ctc_weight=0.3)
    optimizer = build_optimizer(recognizer, SgdSettings(momentum=0, clip=None, weight_decay=0))
    updater = Updater(recognizer, optimizer, loss, None, "float32", CPU)
    wide = [replace(batch, frames=batch.frames.double()) for batch in batches]
    told = updater.update(wide, MANNER)
    return told, [weight.detach() for weight in recognizer.parameters()], narrow


@pytest.mark.parametrize("most", [1, 2])
def test_an_update_in_parts_is_that_of_the_whole(
    corpus: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = list(batches_of(corpus, "train").epoch(1))[:2]
    told, whole, _ = exact_update(batches, 99, monkeypatch)
    told_apart, apart, narrow = exact_update(batches, most, monkeypatch)
    assert narrow.failures > 0
    for one, other in zip(whole, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert told_apart.loss == pytest.approx(told.loss, rel=1e-10)
    assert told_apart.ctc == pytest.approx(told.ctc, rel=1e-10)
    assert told_apart.norm == pytest.approx(told.norm, rel=1e-10)
    assert (told_apart.symbols, told_apart.utterances) == (told.symbols, told.utterances)


def test_with_batch_norm_an_update_in_single_utterances_goes_nearly_the_same_way(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = list(batches_of(corpus, "train").epoch(1))[:2]
    before = [weight.detach() for weight in tiny_recognizer(norm="batch").double().parameters()]
    told, whole, _ = exact_update(batches, 99, monkeypatch, "batch")
    told_apart, apart, narrow = exact_update(batches, 1, monkeypatch, "batch")
    assert narrow.failures > 0
    one, other = (
        torch.cat([(new - old).flatten() for new, old in zip(after, before, strict=True)])
        for after in (whole, apart)
    )
    assert torch.cosine_similarity(one, other, dim=0) > 0.95
    assert told_apart.loss == pytest.approx(told.loss, rel=5e-3)
    assert told_apart.symbols == told.symbols


def test_memory_that_runs_out_in_the_midst_of_a_backward_pass_leaves_no_gradient_behind(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = list(batches_of(corpus, "train").epoch(1))[:2]
    _, whole, _ = exact_update(batches, 99, monkeypatch)
    backward: Any = torch.Tensor.backward
    calls = 0

    def once(self: torch.Tensor, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        backward(self, *arguments)
        if calls == 2:
            raise MemoryError

    monkeypatch.setattr(torch.Tensor, "backward", once)
    _, again, _ = exact_update(batches, 99, monkeypatch)
    assert calls > 3
    for one, other in zip(whole, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["adamw", "radam", "sgd"])
@pytest.mark.parametrize("updates", [0, 2])
def test_a_step_in_which_memory_runs_out_is_made_whole_or_not_at_all(
    kind: str, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(breaking: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        settings: Any = SgdSettings() if kind == "sgd" else AdamSettings(kind=kind)
        optimizer, guard = build_optimizer(model, settings), Guard(CPU)
        for number in range(updates + 1):
            model.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            if breaking and number == updates:
                _break(optimizer, kind, monkeypatch)
            guard.step(optimizer)
        return list(model.parameters())

    for one, other in zip(weights(False), weights(True), strict=True):
        assert torch.equal(one, other)


def _break(optimizer: torch.optim.Optimizer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets memory run out once in the next step: in a fused one for want of room for what it
    remembers of the third weight, in others when all is done."""
    real = optimizer.step
    if kind == "radam":

        def step() -> None:
            real()
            optimizer.step = real  # type: ignore[method-assign]
            raise MemoryError

        optimizer.step = step  # type: ignore[method-assign,assignment]
        return
    for name in ("zeros_like", "empty_like"):
        whole, left = getattr(torch, name), iter([1, 1])

        def scarce(*args: Any, whole: Any = whole, left: Any = left, name: str = name, **kw: Any):  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                monkeypatch.setattr(torch, name, whole)
                raise MemoryError
            return whole(*args, **kw)

        monkeypatch.setattr(torch, name, scarce)


def test_nothing_of_a_failed_try_is_held_when_the_next_begins() -> None:
    held: list[Any] = []
    whole = batch_of(4)

    def make(part: Batch) -> int:
        assert all(each() is None for each in held)
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        if len(part) > 1:
            raise error()
        return len(part)

    gc.disable()
    try:
        assert Guard(CPU).make([whole], "training", nullcontext, make) == [1] * 4
    finally:
        gc.enable()
    assert len(held) > 4


def batch_of(utterances: int, frames: int = 100, symbols: int = 7) -> Batch:
    return Batch(
        tuple(f"utterance-{n}" for n in range(utterances)),
        torch.zeros(utterances, frames, 2),
        torch.full((utterances,), frames),
        torch.ones(utterances, symbols, dtype=torch.int64),
        torch.full((utterances,), symbols),
        None,
    )


def test_a_thread_that_takes_over_from_a_spoilt_one_begins_while_the_limit_is_lifted() -> None:
    """Where there is no memory, a thread dies before it has begun, and is waited for for ever."""
    eased, begun = False, []

    class Easing(Fence):
        @contextmanager
        def eased(self) -> Iterator[None]:
            nonlocal eased
            eased = True
            yield
            eased = False

    def make(part: Batch) -> str:
        if len(part) > 1:
            raise RuntimeError("could not create a primitive")
        return threading.current_thread().name

    guard, start = Guard(CPU), threading.Thread.start
    guard.fence = Easing()

    def started(thread: threading.Thread) -> None:
        begun.append(eased)
        start(thread)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", started)
        names = guard.make([batch_of(2)], "training", nullcontext, make)
    assert begun == [True] and all("spelldown-training" in name for name in names)
    guard._worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit")
def test_within_a_limit_another_thread_works_and_never_ends_once_memory_ran_out_in_it() -> None:
    seen: list[threading.Thread] = []

    def make(most: int, part: Batch) -> int:
        seen.append(threading.current_thread())
        if len(part) > most:
            raise error()
        return len(part)

    for most, ends in ((2, True), (1, False)):
        seen.clear()
        with Guard(CPU, memory="900GB") as guard:
            assert sum(guard.make([batch_of(2)], "training", nullcontext, partial(make, most))) == 2
        assert threading.main_thread() not in seen and seen[0].name == "spelldown-training"
        seen[0].join(10 if ends else 0.2)
        assert seen[0].is_alive() is not ends


def test_an_utterance_that_does_not_fit_alone_is_named() -> None:
    def make(part: Batch) -> None:
        raise error()

    with pytest.raises(DoesNotFitError, match="utterance-0: this utterance of 100 frames and 7"):
        Guard(CPU).make([batch_of(3)], "training", nullcontext, make)


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    def make(part: Batch) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Guard(CPU).make([batch_of(3)], "training", nullcontext, make)
    assert not is_out_of_memory(OSError(28, "No space left on device"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    cudnn = "GET was unable to find an engine to execute this computation"
    assert is_out_of_memory(RuntimeError(cudnn))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("can't start new thread"))


def test_batches_go_on_where_memory_ran_out_while_they_were_loaded() -> None:
    given: list[int] = []

    def anew() -> Iterator[int]:
        for number in range(len(given), 5):
            if number == 3 and len(began) == 1:
                raise MemoryError
            yield number

    began: list[int] = []

    def noted() -> Iterator[int]:
        began.append(len(given))
        return anew()

    for number in Guard(CPU).loading(noted):
        given.append(number)
    assert given == [0, 1, 2, 3, 4] and began == [0, 3]


# What fits


def test_what_fits_is_remembered_by_length(tmp_path: Path) -> None:
    fits = Fits(tmp_path / "memory.jsonl", "processor, 6GB of it")
    fits.failed(batch_of(64, 1000))
    assert fits.most(1000, "training") == 32
    assert fits.most(2000, "training") == 16  # as many frames
    assert fits.most(500, "training") is None  # shorter ones may do
    assert fits.most(1000, "validating") is None
    parts = fits.parts(batch_of(40, 1000))
    assert [len(part) for part in parts] == [20, 20]  # even ones
    assert sum((part.ids for part in parts), ()) == batch_of(40).ids
    assert Fits(tmp_path / "memory.jsonl", "processor, 6GB of it").most(1000, "training") == 32
    assert Fits(tmp_path / "memory.jsonl", "processor, 9GB of it").most(1000, "training") is None


def test_a_lesson_counts_from_the_update_on_that_taught_it() -> None:
    fits = Fits()
    fits.lessons = [Lesson(7, 0, "training", 8, 100, 7, 4, "")]
    for update, most in ((6, None), (7, 4), (8, 4)):
        fits.now = (update, 0)
        assert fits.most(100, "training") == most


def test_a_run_short_of_memory_and_killed_ends_as_the_unbroken_one_and_never_fails_twice(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = tiny_learning(training={"checkpoint_minutes": 0, "epochs": 2})

    def trainer(run: str, *tracker: Any) -> tuple[Any, Narrow]:
        made = tiny_trainer(tmp_path / run, corpus, learning, *tracker)
        return made, Narrow(made.recognizer, 2, monkeypatch)

    unbroken, narrow = trainer("unbroken")
    unbroken.fit()
    failures, lives = narrow.failures, 0
    assert failures > 1
    while True:
        broken, narrow = trainer("run", KillsAfter(1))
        broken.resume()
        try:
            broken.fit()
        except Killed:
            lives, failures = lives + 1, failures - narrow.failures
        else:
            failures -= narrow.failures
            break
    assert lives >= 3 and failures == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "unbroken")
    lines = (tmp_path / "run" / "memory.jsonl").read_text().splitlines()
    assert {json.loads(line)["doing"] for line in lines} == {"training", "validating"}


def test_a_validation_in_parts_finds_what_the_whole_one_does(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = tiny_trainer(tmp_path / "run", corpus)
    validation: Validation = trainer.validation
    whole = validation.run(trainer.recognizer)
    narrow = Narrow(trainer.recognizer, 1, monkeypatch)
    apart = validation.run(trainer.recognizer)
    assert whole is not None and apart is not None and narrow.failures > 0
    assert apart.scores == whole.scores
    assert apart.loss == pytest.approx(whole.loss, rel=1e-5)
    assert apart.alignment.value == pytest.approx(whole.alignment.value, rel=1e-4)
