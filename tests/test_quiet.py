"""What libsndfile's libraries write to the terminal by themselves is not heard; all else is."""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import soundfile
from lhotse import Recording

from spelldown.data.reading.quiet import hushed
from spelldown.data.recordings import opened, read_audio, read_piece, samples_of
from spelldown.errors import AudioError

Capture = pytest.CaptureFixture[str]

try:
    GLIBC = ctypes.CDLL(None)
    _ = GLIBC.gnu_get_libc_version
except (OSError, AttributeError, TypeError):
    pytest.skip("only glibc lets its standard error be set", allow_module_level=True)


def grumble(word: str) -> None:
    """What a C library writes that is not pleased."""
    GLIBC.perror(word.encode())


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """An MP3 of ten seconds with random bytes in its middle, and its second half missing."""
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.mp3"
    soundfile.write(path, 0.3 * random.normal(size=160_000), 16_000)
    content = bytearray(path.read_bytes())
    content[8000:8400] = random.bytes(400)
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.mark.parametrize("name", ["damaged.mp3", "damaged.wav", "damaged"])
def test_nothing_is_written_of_a_damaged_mp3(damaged: Path, name: str, capfd: Capture) -> None:
    path = damaged.rename(damaged.with_name(name))
    soundfile.read(path)
    assert "Warning: Xing stream size off" in capfd.readouterr().err  # if not, mend the test
    read_audio(path)
    read_piece(path, 0.5, 0.25)
    with opened(path) as file:
        while len(file.read(1000)):
            pass
    assert capfd.readouterr().err == ""


def test_nothing_is_written_where_lhotse_decodes_it(damaged: Path, capfd: Capture) -> None:
    cut = Recording.from_file(damaged).perturb_speed(0.9).to_cut()
    with suppress(Exception):  # as it finds fewer samples than the header says
        cut.load_audio()
    assert "Warning: Xing stream size off" in capfd.readouterr().err  # if not, mend the test
    with suppress(AudioError):
        samples_of(cut)
    assert capfd.readouterr().err == ""


def test_what_python_and_other_programs_write_meanwhile_is_there(capfd: Capture) -> None:
    with hushed():
        grumble("libmpg123")
        os.write(2, b"a thread\n")
        print("a warning", file=sys.__stderr__, flush=True)
        os.system("echo a program >&2")
    told = capfd.readouterr().err.splitlines()
    assert {"a thread", "a program"} <= set(told) and not any("mpg123" in line for line in told)


def test_the_last_thread_out_opens_the_mouth_again(capfd: Capture) -> None:
    inside, first_left, second_told = Barrier(2), Barrier(2), Barrier(2)

    def first() -> None:
        with hushed():
            inside.wait(10)
        first_left.wait(10)
        second_told.wait(10)

    def second() -> None:
        with hushed():
            inside.wait(10)
            first_left.wait(10)
            grumble("still inside")
        grumble("all are out")
        second_told.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(20)
    told = capfd.readouterr().err
    assert "all are out" in told and "still inside" not in told


def test_a_process_that_is_forked_meanwhile_is_not_mute(capfd: Capture) -> None:
    with hushed():
        child = os.fork()
        if not child:
            grumble("a child")
            with hushed():
                grumble("which reads an MP3")
            GLIBC.fflush(None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    told = capfd.readouterr().err
    assert "a child" in told and "which reads" not in told


def test_an_error_within_ends_it(capfd: Capture) -> None:
    with pytest.raises(ValueError, match="odd"), hushed():
        raise ValueError("odd")
    grumble("after it")
    assert "after it" in capfd.readouterr().err
