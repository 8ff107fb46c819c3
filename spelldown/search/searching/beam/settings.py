"""What beam search may be told.

Every weight is a factor on a natural logarithm of a probability, so that weights of different runs
can be compared. A weight of 0 costs nothing: what it would weigh is not computed.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from spelldown.search.searching.limits import LimitSettings


class BeamSettings(LimitSettings):
    """Follow the best few hypotheses of each utterance at once, and rank them by several judges."""

    kind: Literal["beam"] = "beam"
    beam: int = Field(8, ge=1, le=4096, description="hypotheses followed at once")
    nbest: int = Field(1, ge=1, description="hypotheses given of each utterance, best first")
    prune: float | None = Field(
        None, gt=0, description="drop hypotheses this far below the best open one; null for none"
    )
    shortest_per_second: float = Field(
        0.0, ge=0, description="fewest symbols for each second of speech"
    )
    length_power: float = Field(
        0.0, ge=0, le=2, description="ranked by score / symbols to this power"
    )
    length_bonus: float = Field(0.0, ge=-10, le=10, description="added for each symbol")
    coverage_penalty: float = Field(
        0.0, ge=0, le=10, description="taken off for each listener frame that was never looked at"
    )
    eos_threshold: float | None = Field(
        None, ge=1, description="<eos> only where its log-probability > this x the best symbol's"
    )
    ctc_weight: float = Field(
        0.0, ge=0, le=1, description="the CTC head's share of the score; the speller has the rest"
    )
    lm: str | None = Field(None, description="folder of a language model; null for none")
    lm_weight: float = Field(0.0, ge=0, le=10, description="of its log-probability at every step")
    rescore_lm: str | None = Field(
        None, description="folder of a language model that ranks the n-best anew; null for none"
    )
    rescore_weight: float = Field(0.0, ge=0, le=10, description="of its log-probability at the end")
    ilm: Literal["none", "zero", "mean"] = Field(
        "none", description="the speller's own language model: its context zero, or the mean one"
    )
    ilm_weight: float = Field(0.0, ge=0, le=10, description="of what is taken off for it")
    loops: int | None = Field(
        None,
        ge=2,
        description="symbols repeated more often than this in a row are a loop; null for none",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.nbest > self.beam:
            raise ValueError(f"nbest: {self.nbest} of a beam of {self.beam}; at most the beam")
        return self
