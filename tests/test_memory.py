"""Keeping freed memory, where the C library can be told, and how much was held at the highest."""

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_run import tiny_trainer
from toy_corpus import write_corpus

from spelldown.training import trainer
from spelldown.training.memory import forget_peak, keep_freed_memory, peak_memory

MMAP_THRESHOLD = -3  # glibc's malloc.h


def fake_library(monkeypatch: pytest.MonkeyPatch, largest: int) -> list[tuple[int, int]]:
    """A C library that takes no mmap threshold above `largest`; gives what it was told."""
    told: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        if option == MMAP_THRESHOLD and value > largest:
            return 0
        told.append((option, value))
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    return told


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_glibc_is_told_to_keep_freed_memory() -> None:
    assert keep_freed_memory()


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_no_other_system_is_told_anything(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = fake_library(monkeypatch, 1 << 30)
    monkeypatch.setattr(sys, "platform", system)
    assert not keep_freed_memory()
    assert told == []


def test_a_c_library_without_the_settings_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed_memory()


@pytest.mark.parametrize("largest", [1 << 30, 1 << 25])
def test_every_glibc_gets_the_largest_threshold_that_it_takes(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = fake_library(monkeypatch, largest)
    assert keep_freed_memory()
    assert told[0] == (MMAP_THRESHOLD, largest)
    assert len(told) == 3


def test_nothing_is_set_where_the_threshold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the others alone, every large block would go back to the system even sooner.
    told = fake_library(monkeypatch, 0)
    assert not keep_freed_memory()
    assert told == []


def test_a_trainer_keeps_freed_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(trainer, "keep_freed_memory", lambda: asked.append(True))
    tiny_trainer(tmp_path / "run", write_corpus(tmp_path / "corpus"))
    assert asked == [True]


SHAPES = """
import sys, torch
from spelldown.training.memory import keep_few_kernels, peak_memory
if "few" in sys.argv:
    keep_few_kernels()
torch.set_num_threads(1)
weight = torch.ones(128, 128, dtype=torch.bfloat16)
for rows in range(1, 500):
    torch.nn.functional.linear(torch.ones(rows, 128, dtype=torch.bfloat16), weight)
    before = peak_memory() if rows == 100 else before if rows > 100 else None
print(peak_memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux")
def test_kernels_for_shapes_that_have_been_are_not_kept() -> None:
    # Other tests make recognizers, and so have told this process and its children already.
    untold = {name: value for name, value in os.environ.items() if "CACHE_CAPACITY" not in name}

    def grown(*words: str) -> int:
        asked = [sys.executable, "-c", SHAPES, *words]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, env=untold)
        return int(done.stdout)

    if grown() < 30 << 20:
        pytest.skip("this processor's kernels are small, or none are written")
    assert grown("few") < grown() / 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_memory_is_told_in_bytes_and_since_it_was_forgotten() -> None:
    for large in (True, False):
        forget_peak(torch.device("cpu"))
        before = peak_memory()
        with mmap.mmap(-1, 2**28 if large else 2**20) as block:  # new pages in any case
            block[::4096] = bytes(len(block) // 4096)
        after = peak_memory()
        assert before is not None and after is not None
        assert (after - before > 2**27) == large
