"""The microphone, with a device made for the test."""

import importlib
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_sound import RATE, bursts, hearing_transcriber

from spelldown.errors import AudioError
from spelldown.search.transcribing.joined import Source, heard
from spelldown.search.transcribing.sound.microphone import Microphone
from spelldown.search.transcribing.sound.pauses import PauseSettings

SOUND = bursts((0.5, 2.0), (3.0, 5.0), seconds=6.0)


class PortAudioError(Exception):
    """As sounddevice has it."""


class Device:
    """Plays SOUND into the callback as soon as it is started."""

    overflow, broken, played = False, "", len(SOUND)
    rate = RATE

    def __init__(self, callback: Callable[..., None], **asked: Any) -> None:
        if self.broken:
            raise PortAudioError(self.broken)
        assert asked["samplerate"] == self.rate and asked["channels"] == 1
        self.callback, self.size = callback, asked["blocksize"]
        self.heard_all = threading.Event()
        self.closed = False

    def start(self) -> None:
        threading.Thread(target=self._play, daemon=True).start()

    def _play(self) -> None:
        for start in range(0, self.played, self.size):
            block = SOUND[start : start + self.size, None].copy()
            self.callback(block, len(block), None, SimpleNamespace(input_overflow=self.overflow))
            block[:] = np.nan  # the device uses its memory again
        self.heard_all.set()

    def stop(self) -> None:
        assert self.heard_all.wait(10)

    def close(self) -> None:
        self.closed = True


def device_module(made: type[Device]) -> SimpleNamespace:
    """What stands for sounddevice."""

    def query_devices(kind: str) -> dict[str, float]:
        assert kind == "input"
        if made.broken:
            raise PortAudioError(made.broken)
        return {"default_samplerate": float(made.rate)}

    return SimpleNamespace(
        InputStream=made, PortAudioError=PortAudioError, query_devices=query_devices
    )


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[Device]:
    class Here(Device):
        pass

    module = device_module(Here)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return Here


def test_what_is_said_until_the_end_is_spelled_as_from_a_file(device: type[Device]) -> None:
    microphone = Microphone(lambda: None)
    settings = PauseSettings(kind="energy", longest=4.0)
    source = Source("microphone", lambda: microphone, "the microphone")
    (found,) = heard(hearing_transcriber(), [source], settings)
    assert found.error is None and found.seconds == pytest.approx(6.0)
    assert [round(one.start, 1) for one in found.segments] == [0.4, 2.9]
    assert microphone._stream.closed


def test_all_blocks_come_in_order_and_are_copies(device: type[Device]) -> None:
    with Microphone(lambda: None) as microphone:
        assert np.array_equal(np.concatenate(list(microphone.blocks())), SOUND)
    assert microphone.incomplete == ""


def test_sound_that_was_lost_is_told(device: type[Device]) -> None:
    device.overflow = True
    with Microphone(lambda: None) as microphone:
        list(microphone.blocks())
    assert "some of it is lost" in microphone.incomplete


def test_a_device_is_heard_at_its_own_rate_and_resampled(device: type[Device]) -> None:
    device.rate = 2 * RATE  # so SOUND plays twice as fast
    microphone = Microphone(lambda: None)
    assert microphone.rate == 2 * RATE
    source = Source("microphone", lambda: microphone, "the microphone")
    (found,) = heard(hearing_transcriber(), [source], PauseSettings(kind="energy"))
    assert found.error is None and found.seconds == pytest.approx(3.0)
    assert [round(one.start, 1) for one in found.segments] == [0.1, 1.4]


def test_what_was_said_is_kept_if_waiting_for_the_end_fails(device: type[Device]) -> None:
    def fail() -> None:
        microphone._stream.heard_all.wait(10)  # failing sooner, nothing would have been said
        raise ValueError("I/O operation on closed file")

    microphone = Microphone(fail)
    with microphone:
        list(microphone.blocks())
    assert microphone.incomplete == "listening ended early: I/O operation on closed file"


def test_nothing_recorded_is_an_error(device: type[Device]) -> None:
    device.played = 0
    with Microphone(lambda: None) as microphone, pytest.raises(AudioError, match="nothing"):
        list(microphone.blocks())


def test_a_machine_without_a_microphone_says_so(device: type[Device]) -> None:
    device.broken = "Error querying device -1"
    with pytest.raises(AudioError, match=r"no microphone can be used: Error querying device -1"):
        Microphone()


@pytest.mark.parametrize(
    "error, told",
    [
        (ImportError("No module named 'sounddevice'"), r"pip install 'spelldown\[microphone\]'"),
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_get_it(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(AudioError, match=told):
        Microphone()
