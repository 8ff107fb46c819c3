"""An engine as a program: requests in, samples out.

Run as a script (`python -P child.py ENGINE`), never imported by the rest: eSpeak NG and Piper are
under the GPL, so they are loaded in this process alone, which talks to ours through pipes. Needs
nothing but the engine's own package and the standard library.

    ENGINE  espeak, hibari or piper
    stdin   one JSON object a line: {"text", "voice", "speed", "pitch", "intonation", "volume",
            "seed"}, for espeak also "rate", its words a minute
    stdout  first a JSON line about the engine: {"version", ...};
            then for each request a JSON line {"samples", "sample_rate"} and so many 16-bit
            little-endian samples, or a JSON line {"error"}
"""

import ctypes
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

Samples = tuple[bytes, int]  # 16-bit little-endian samples, and how many a second


class Speaker(Protocol):
    about: dict[str, Any]

    def speak(self, request: dict[str, Any]) -> Samples: ...


class CannotError(Exception):
    """A request that the engine refuses, with the reason."""


# --- eSpeak NG

# speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, POS_CHARACTER, espeakCHARS_UTF8
SYNCHRONOUS, CHARACTERS, UTF8 = 2, 1, 1
RATE, VOLUME, PITCH, INTONATION = 1, 2, 3, 4


class Voice(ctypes.Structure):
    """espeak_VOICE of speak_lib.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """The library of the `espeakng-loader` package.

    Its waves go on from one utterance to the next, so that the same words sound different after
    others. Where processes can be forked, each utterance is therefore spoken by a copy of one that
    has not spoken yet (a few milliseconds), and a crash of the library costs one utterance.
    """

    def __init__(self) -> None:
        loader: Any = importlib.import_module("espeakng_loader")
        self._library: Any = ctypes.CDLL(loader.get_library_path())
        self._heard: list[bytes] = []
        self._callback = Callback(self._hear)
        data = os.fsencode(loader.get_data_path())
        self._sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.about = {
            "version": self._library.espeak_Info(None).decode(),
            "languages": self._listed(None),
            "variants": [identifier for _, identifier, _ in self._listed(b"variant")],
        }

    def speak(self, request: dict[str, Any]) -> Samples:
        if not hasattr(os, "fork"):
            return self._speak(request), self._sample_rate
        reading, writing = os.pipe()
        copy = os.fork()
        if copy == 0:
            os.close(reading)
            failed = 1
            try:
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(self._speak(request))
                failed = 0
            except CannotError:
                failed = 2
            finally:
                os._exit(failed)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            samples = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if status == 2:
            raise CannotError(f"it cannot use its voice {request['voice']!r}")
        if status != 0:
            raise CannotError(f"it has crashed as {request['voice']!r} (status {status})")
        return samples, self._sample_rate

    def _speak(self, request: dict[str, Any]) -> bytes:
        self._heard.clear()
        if self._library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
            raise CannotError(f"it cannot use its voice {request['voice']!r}")
        settings = {
            RATE: request["rate"],
            VOLUME: request["volume"],
            PITCH: request["pitch"],
            INTONATION: request["intonation"],
        }
        for number, value in settings.items():
            self._library.espeak_SetParameter(number, value, 0)
        self._seed(request["seed"])
        text = request["text"].encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        return b"".join(self._heard)

    def _seed(self, seed: int) -> None:
        """Its flutter and breath are drawn by chance: by its own generator from 1.52 on."""
        if hasattr(self._library, "espeak_ng_SetRandSeed"):
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))

    def _hear(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            self._heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    def _listed(self, language: bytes | None) -> list[tuple[str, str, str]]:
        """(code, identifier, name) of the voices of a language, of all, or of the variants."""
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(Voice))
        wanted = None if language is None else ctypes.byref(Voice(languages=language))
        voices = self._library.espeak_ListVoices(wanted)
        found: list[tuple[str, str, str]] = []
        while voices[len(found)]:
            voice = voices[len(found)].contents
            code = voice.languages[1:].decode()  # the first byte is a priority
            found.append((code, voice.identifier.decode(), voice.name.decode().strip()))
        return found


# --- hibari


class Hibari:
    """The `hibari-tts` package; a model is loaded when its voice is first asked for."""

    def __init__(self) -> None:
        self._package: Any = importlib.import_module("hibari")
        self._voices: Any = importlib.import_module("hibari.voices")
        self._loaded: dict[str, Any] = {}
        self.about = {
            "version": str(self._package.__version__),
            "voices": [
                [name, voice["language"].lower(), self._is_here(name)]
                for name, voice in self._voices.VOICES.items()
            ],
        }

    def _is_here(self, name: str) -> bool:
        try:
            self._voices.voice_path(name, download_missing=False)
        except FileNotFoundError:
            return False
        return True

    def speak(self, request: dict[str, Any]) -> Samples:
        name = request["voice"]
        if name not in self._loaded:
            try:
                self._loaded[name] = self._package.Hibari(voice=name, threads=1)
            except RuntimeError as error:  # it cannot be downloaded
                raise CannotError(str(error)) from error
        samples = self._loaded[name](request["text"], speed=request["speed"], seed=request["seed"])
        return (samples * 32767).clip(-32768, 32767).astype("<i2").tobytes(), 24000


# --- Piper


class Piper:
    """The `piper-tts` package. A voice is the path of its model, `#` and the speaker's number.

    A model draws its noise from one stream as long as it is loaded; it is loaded anew for every
    request (0.2 s, without rewriting its graph), so that an utterance sounds the same whatever was
    said before.
    """

    def __init__(self) -> None:
        self._onnx: Any = importlib.import_module("onnxruntime")
        self._piper: Any = importlib.import_module("piper")
        self._config: Any = importlib.import_module("piper.config")
        self.about = {"version": importlib.metadata.version("piper-tts")}

    def speak(self, request: dict[str, Any]) -> Samples:
        path, _, speaker = request["voice"].partition("#")
        with open(f"{path}.json", encoding="utf-8") as file:
            config = self._config.PiperConfig.from_dict(json.load(file))
        options = self._onnx.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = self._onnx.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._onnx.set_seed(request["seed"])
        session = self._onnx.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        voice = self._piper.PiperVoice(session=session, config=config)
        how = self._piper.SynthesisConfig(
            speaker_id=int(speaker) if speaker else None,
            length_scale=config.length_scale / request["speed"],
        )
        chunks = voice.synthesize(request["text"], how)
        return b"".join(chunk.audio_int16_bytes for chunk in chunks), config.sample_rate


ENGINES: dict[str, Callable[[], Speaker]] = {"espeak": Espeak, "hibari": Hibari, "piper": Piper}


def serve(speaker: Speaker, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more."""
    answers.write(json.dumps(speaker.about).encode() + b"\n")
    answers.flush()
    for line in requests:
        samples = b""
        try:
            samples, rate = speaker.speak(json.loads(line))
            answer: dict[str, Any] = {"samples": len(samples) // 2, "sample_rate": rate}
        except Exception as error:  # the engine's own, of any kind: the next request may go well
            said = (
                str(error) if isinstance(error, CannotError) else f"{type(error).__name__}: {error}"
            )
            answer = {"error": said}
        answers.write(json.dumps(answer).encode() + b"\n" + samples)
        answers.flush()


if __name__ == "__main__":
    # Whatever a library prints must not get between the samples.
    given = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(ENGINES[sys.argv[1]](), sys.stdin.buffer, given)
