"""What every language model can do, and how one is found again in its folder.

A language model says which symbol is likely next, having seen the symbols before it and no sound.
It is asked as the speller is: `start`, then `step` for every symbol, the first of them `<sos>`.
Nothing is kept between calls but in the state that goes in and comes out.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spelldown.data.vocabulary import EOS, PAD, SOS, Vocabulary
from spelldown.errors import LanguageModelError

PAGE = "language_model.json"  # what a language model's folder is known by
MADE_OF = ("model.arpa", "weights.safetensors")  # of which the rest can be made
SHOWN = 8  # symbols named where two vocabularies differ


class LMState(Protocol):
    """Where a language model is in each of N texts."""

    def select(self, rows: Tensor, /) -> Self:
        """The state of texts `rows` (M,), which may repeat, be reordered or be left out."""
        ...


class LanguageModel(Protocol):
    """Probabilities of the next symbol after the symbols so far, the same on any device.

    symbols: what the ids 0..V-1 stand for, as `Vocabulary.symbols`
    """

    @property
    def symbols(self) -> tuple[str, ...]: ...

    def start(self, rows: int, device: torch.device) -> Any:
        """The state (an LMState) of `rows` texts before `<sos>` is fed, on this device."""
        ...

    def step(self, symbols: Tensor, state: Any, /) -> tuple[Tensor, Any]:
        """Natural logarithms of probability (N, V) float32 of what follows `symbols` (N,) int64.

        And the state for the next step. `<pad>` and `<sos>` have -inf, since nothing is ever
        followed by them; `<eos>` has the probability that the text ends here. Rows whose text has
        ended may be fed anything; what comes out for them means nothing.
        """
        ...


def log_probs_of(
    model: LanguageModel,
    texts: Sequence[Sequence[int]],
    device: torch.device,
    rows: int = 256,
    ended: Sequence[bool] | None = None,
) -> list[float]:
    """The natural logarithm of the probability of each whole text, that it ends there included.

    texts: symbols without `<sos>` and `<eos>`. rows: how many are read side by side. ended: which
    of them end there; of the others, the probability that they begin so. All if None.
    """
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found = [0.0] * len(texts)
    for start in range(0, len(order), rows):
        places = order[start : start + rows]
        ends = [[EOS] if ended is None or ended[place] else [] for place in places]
        fed = [
            torch.tensor([SOS, *texts[place], *end])
            for place, end in zip(places, ends, strict=True)
        ]
        symbols = pad_sequence(fed, batch_first=True, padding_value=PAD).to(device)
        total = torch.zeros(len(places), dtype=torch.float64, device=device)
        state = model.start(len(places), device)
        for now, following in zip(symbols.T, symbols.T[1:], strict=False):
            log_probs, state = model.step(now, state)
            one = log_probs.gather(1, following[:, None])[:, 0].double()
            total += one.where(following != PAD, 0.0)
        for place, value in zip(places, total.tolist(), strict=True):
            found[place] = value
    return found


def identity(path: Path) -> str:
    """What tells a language model from another at the same place: a hash of what it is made of."""
    files = [path]
    if path.is_dir():
        files = [path / name for name in (PAGE, *MADE_OF) if (path / name).is_file()]
    found = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "blake2b").digest())
    return found.hexdigest()


def load_language_model(path: Path, vocabulary: Vocabulary) -> LanguageModel:
    """The language model in a folder that `spelldown train-lm` made, or in an ARPA file.

    Raises LanguageModelError for a folder without one, a damaged one (an ARPA file's line is
    named), and one of another vocabulary.
    """
    if path.is_file():
        from spelldown.search.language.ngram import NGram

        return NGram.read(path, vocabulary.symbols)
    page = read_page(path)
    hold_symbols(tuple(page["symbols"]), vocabulary.symbols, path)
    if page["kind"] == "ngram":
        from spelldown.search.language.ngram import NGram

        return NGram.of_folder(path, vocabulary.symbols)
    if page["kind"] == "lstm":
        from spelldown.model.language import load_lstm

        return load_lstm(path)
    raise LanguageModelError(f"{path / PAGE}: kind is 'ngram' or 'lstm', found {page['kind']!r}")


def read_page(folder: Path) -> dict[str, Any]:
    """What a language model's folder says of it. Raises LanguageModelError if there is none."""
    file = folder / PAGE
    try:
        page = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        if (folder / "checkpoints").is_dir():
            raise LanguageModelError(
                f"{folder}: this language model's training is not over; the `spelldown train-lm` "
                "that began it goes on where it stopped"
            ) from None
        raise LanguageModelError(
            f"{folder} holds no language model: {file}: {error.strerror}. "
            "`spelldown train-lm` makes one; an ARPA file can be named as it is"
        ) from None
    except ValueError as error:
        raise LanguageModelError(f"{file} is damaged: {error}") from None
    if not isinstance(page, dict) or not {"kind", "symbols"} <= page.keys():
        raise LanguageModelError(f"{file} is damaged: it lacks `kind` or `symbols`")
    return page


def hold_symbols(found: Sequence[str], wanted: Sequence[str], where: Path) -> None:
    """Raises LanguageModelError, naming what differs, unless both vocabularies are the same."""
    if tuple(found) == tuple(wanted):
        return
    problems = []
    for have, lack, says in (
        (found, wanted, "the language model has symbols that the recognizer lacks"),
        (wanted, found, "the recognizer has symbols that the language model lacks"),
    ):
        more = sorted(set(have) - set(lack))
        if more:
            listed = ", ".join(map(repr, more[:SHOWN])) + (", ..." if len(more) > SHOWN else "")
            problems.append(f"{says}, {len(more)} of them: {listed}")
    raise LanguageModelError(
        f"{where} is a language model of another vocabulary: {len(found)} symbols, and the "
        f"recognizer has {len(wanted)}",
        problems
        or [
            "the same symbols in another order: make it with --run RUN, whose symbols it then has; "
            f"an n-gram's {where / 'model.arpa'} fits as it is"
        ],
    )
