"""Utterances for a DataLoader: made one by one, here or in a worker, and put together."""

from collections.abc import Callable, Sequence

from torch.utils.data import Dataset

from spelldown.data.loading.batch import Batch, Example, Lengths
from spelldown.errors import SpelldownError


class Examples(Dataset[Example | SpelldownError]):
    """The utterance at a place, as DataLoader wants it, or the error of one that cannot be read."""

    def __init__(self, example: Callable[[int], Example]) -> None:
        self.example = example

    def __getitem__(self, index: int) -> Example | SpelldownError:
        try:
            return self.example(index)
        except SpelldownError as error:  # a worker's would come with a traceback in its message
            return error


def together(
    lengths: Lengths, examples: Sequence[Example | SpelldownError]
) -> Batch | SpelldownError:
    """The batch of the examples, or what is wrong with the first that has none."""
    made = [one for one in examples if isinstance(one, Example)]
    wrong = [one for one in examples if isinstance(one, SpelldownError)]
    return wrong[0] if wrong else Batch.of(made, lengths) if made else Batch.empty()
