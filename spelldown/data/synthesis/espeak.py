"""eSpeak NG as a program: requests in, samples out.

Run as a script, never imported by the rest: eSpeak NG is under the GPL, so it is loaded in this
process alone, from the `espeakng-loader` package, and talks to ours through pipes. Needs nothing
but that package and the standard library.

    stdin   one JSON object a line: {"text", "voice", "rate", "pitch", "intonation",
            "volume"}
    stdout  first a JSON line: {"version", "sample_rate", "voices": [identifiers]};
            then for each request a line with the number of samples, -1 for an unknown voice, and
            so many 16-bit little-endian samples
"""

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

SYNCHRONOUS, CHARACTERS, UTF8 = (
    2,
    1,
    1,
)  # speak_lib.h: AUDIO_OUTPUT_..., POS_CHARACTER, espeakCHARS_
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "intonation": 4}


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


def listed(library: Any, language: bytes) -> list[str]:
    """Identifiers of the voices of a language; language `variant`: of the variants."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(Voice))
    voices = library.espeak_ListVoices(ctypes.byref(Voice(languages=language)))
    found: list[str] = []
    while voices[len(found)]:
        found.append(voices[len(found)].contents.identifier.decode())
    return found


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more."""
    import espeakng_loader

    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    heard: list[bytes] = []

    def hear(samples: Any, count: int, _events: Any) -> int:
        if samples and count:
            heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = Callback(hear)
    data = os.fsencode(espeakng_loader.get_data_path())
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    library.espeak_SetSynthCallback(callback)
    library.espeak_Info.restype = ctypes.c_char_p
    about = {
        "version": library.espeak_Info(None).decode(),
        "sample_rate": sample_rate,
        "voices": listed(library, b"en") + listed(library, b"variant"),
    }
    answers.write(json.dumps(about).encode() + b"\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        heard.clear()
        known = library.espeak_SetVoiceByName(request["voice"].encode()) == 0
        if known:
            for name, number in PARAMETERS.items():
                library.espeak_SetParameter(number, request[name], 0)
            text = request["text"].lower().encode()  # capitals might be spelled
            library.espeak_Synth(text, len(text) + 1, 0, CHARACTERS, 0, UTF8, None, None)
        samples = b"".join(heard)
        answers.write(b"%d\n" % (len(samples) // 2 if known else -1) + samples)
        answers.flush()


if __name__ == "__main__":
    # Whatever the library prints must not get between the samples.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)
