"""hibari: natural English voices, small and fast (`hibari-tts`, Apache-2.0).

One voice, `heart`, comes with the package; the others are downloaded by it when they are first
asked for by name.
"""

import unicodedata
from collections.abc import Sequence

from spelldown.data.synthesis.engines.speaking import (
    ChildEngine,
    Request,
    Speech,
    Voice,
    unknown,
)
from spelldown.errors import DataError


class HibariEngine(ChildEngine):
    """The `hibari-tts` package, in a child process for many utterances."""

    name = "hibari"
    title = "hibari"
    install = "pip install hibari-tts"

    def speak(self, request: Request) -> Speech:
        strange = [
            c for c in request.text if c.isalpha() and "LATIN" not in unicodedata.name(c, "")
        ]
        if strange:  # it would say the letters' names
            raise DataError(f"hibari speaks English, and cannot read {strange[0]!r}")
        return super().speak(request)

    def cast(self, voices: Sequence[str], languages: Sequence[str]) -> list[Voice]:
        """The voices by name; without names those that are here, so that nothing is downloaded."""
        have = {name: code for name, code, _ in self.about["voices"]}
        wrong = [unknown("voice", one, list(have)) for one in voices if one not in have]
        codes = sorted({"en", *have.values()})
        wrong += [unknown("language", one, codes) for one in languages if one.lower() not in codes]
        if wrong:
            raise DataError("hibari cannot speak so", wrong)
        here = [name for name, _, is_here in self.about["voices"] if is_here]
        wanted = tuple(one.lower() for one in languages)
        chosen = [name for name in voices or here if have[name].startswith(wanted or "en")]
        if not chosen:
            there = ", ".join(name for name in have if have[name].startswith(wanted))
            raise DataError(
                f"hibari's voice for {', '.join(languages)} has to be named, since it is "
                f"downloaded when it is first used (8 MB): --voices {there}"
            )
        return [Voice(f"hibari-{name}", (name,), have[name]) for name in chosen]
