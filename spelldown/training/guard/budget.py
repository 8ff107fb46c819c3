"""The largest frame budget that fits: most padded frames of a batch, whatever its utterances."""

import time
from collections.abc import Callable, Sequence

from spelldown.errors import DoesNotFitError

LONGEST_SEARCH = 60.0
"""Seconds after which what is known by then has to do; the guard mends what it gets wrong."""
SHARE = 0.9
"""Of what just fits: real batches come beside batches made ahead and an average of the weights."""
CLOSE = 8
"""A number of utterances is known well enough within this share of it."""


def largest_budget(
    fits: Callable[[int, int, int], bool],
    shapes: Sequence[tuple[int, int]],
    utterances: int,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """The most padded frames that a batch may have.

    fits:       whether an update of so many utterances, of so many frames and symbols, fits
    shapes:     the longest utterance (frames and symbols) of every class of length
    utterances: the most that a batch may have in any case

    The longest come first, since attention takes memory by frames times symbols: what fits of them
    fits of shorter ones, as a rule, and is then only tried. Raises DoesNotFitError if the longest
    utterance does not fit alone.
    """
    search = _Search(fits, now)
    longest, symbols = max(shapes)
    most = search.most(longest, symbols, utterances)
    if most == 0:
        raise DoesNotFitError(
            f"an utterance of {longest} frames and {symbols} symbols does not fit into memory "
            "alone: give it more (training.memory), leave such long ones out, or take a smaller "
            "recognizer"
        )
    budget, bounded = most * longest, most < utterances
    for frames, symbols in sorted(shapes, reverse=True)[1:]:
        wanted = min(utterances, budget // frames) if bounded else utterances
        found = search.most(frames, symbols, wanted, first=wanted)
        if search.over:
            break
        if found < wanted:
            budget, bounded = min(budget, max(found, 1) * frames), True
    return max(longest, int(SHARE * budget)) if bounded else utterances * longest


class _Search:
    def __init__(self, fits: Callable[[int, int, int], bool], now: Callable[[], float]) -> None:
        self.fits, self.now = fits, now
        self.end = now() + LONGEST_SEARCH
        self.pace = 0.0  # seconds a frame, of the slowest try so far
        self.over = False  # whether there was no time to try what should have been tried

    def most(self, frames: int, symbols: int, utterances: int, first: int = 1) -> int:
        """The most utterances of this shape that are known to fit, up to so many."""
        good, bad, trying = 0, utterances + 1, min(first, utterances)
        while bad - good > max(1, good // CLOSE):
            if self.pace and self.now() + self.pace * trying * frames > self.end:
                self.over = True
                break
            began = self.now()
            well = self.fits(trying, frames, symbols)
            self.pace = max(self.pace, (self.now() - began) / (trying * frames))
            if well:
                good = trying
            else:
                bad = trying
            trying = min(2 * good, utterances) if bad > utterances else (good + bad) // 2
        return good
