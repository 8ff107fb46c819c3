"""Who judges hypotheses in beam search: the speller, language models, and (`ctc_prefix`) CTC.

Their judgements are natural logarithms of probabilities, and are added with weights: shallow
fusion (Gulcehre et al. 2015), from which the speller's own language model may be taken off, where
the text is of another domain than its training (Meng et al. 2021).
"""

from typing import Any, Protocol

from torch import Tensor

from spelldown.search.searching.hypothesis import Sharing


class Judge(Protocol):
    """Says how likely each symbol follows, for all hypotheses at once.

    name and weight: of its part of the score. At every step, `step` is told which symbol each
    hypothesis ends in; between steps, `select` which hypotheses go on, several of them perhaps from
    one. N hypotheses stand utterance by utterance; at first every utterance has one.
    """

    name: str
    weight: float

    def step(self, fed: Tensor) -> Tensor:
        """Natural logarithms (N, V) for what follows the symbols `fed` (N,), the first `<sos>`."""
        ...

    def select(self, rows: Tensor) -> None:
        """Goes on with hypotheses `rows` (M,) alone, in this order."""
        ...

    def forget(self, kept: Tensor) -> None:
        """Drops what is held of all utterances but `kept` (U,), none of which has a hypothesis."""
        ...


class Stepping:
    """Anything with `step(symbols, state)`, from the state that it is in before `<sos>`."""

    def __init__(self, name: str, weight: float, model: Any, state: Any) -> None:
        self.name, self.weight, self.model, self.state = name, weight, model, state

    def step(self, fed: Tensor) -> Tensor:
        log_probs: Tensor
        log_probs, self.state = self.model.step(fed, self.state)
        return log_probs

    def select(self, rows: Tensor) -> None:
        self.state = self.state.select(rows)

    def forget(self, kept: Tensor) -> None:
        if isinstance(self.state, Sharing):
            self.state = self.state.forget(kept)


def speller(model: Any, memory: Any, weight: float, beam: int) -> Stepping:
    """The recognizer as a judge; its state shares what was heard, if it knows how to."""
    state = model.start(memory)
    return Stepping(
        "attention", weight, model, state.share(beam) if isinstance(state, Sharing) else state
    )
