"""What can go wrong for a user, as a tree.

    SpelldownError
      RecipeError           a recipe that cannot be run: every problem, with its path in the page
      DataError             features, transcripts, audio or text that cannot be used, by file
        AudioError          a recording that cannot be read or decoded
      RunError              a run folder that is missing, incomplete or of another recipe
        CheckpointError     a checkpoint that is damaged or does not fit the model
      SearchError           a search that cannot be made with this run, or on this machine
      LanguageModelError    a language model that is damaged or of another vocabulary
      TrainingError         training cannot go on
        NonFiniteError      losses or gradients stayed non-finite
        DoesNotFitError     a single utterance, or the optimizer, does not fit into memory
        LostRankError       another process that trained along is gone
      StudyError            a study that cannot be run: every problem, row by row
        NotNowError         a place that takes no runs now, and may take some later

Every message says what was found, where, and what would be right. The command line prints it
without a traceback and ends with status 1; anything that is not a SpelldownError is our own bug.
"""

from collections.abc import Sequence

SHOWN = 20  # problems listed in one message; the rest are counted


class SpelldownError(Exception):
    """The root of all errors that a user can mend."""


class ProblemsError(SpelldownError):
    """An error that lists several problems at once, so that they can be mended in one go."""

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        lines = [summary, *(f"  - {problem}" for problem in self.problems[:SHOWN])]
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN} more")
        super().__init__("\n".join(lines))


class RecipeError(ProblemsError):
    """A recipe that cannot be run."""


class DataError(ProblemsError):
    """Data that cannot be used."""


class AudioError(DataError):
    """A recording that cannot be read or decoded."""


class RunError(SpelldownError):
    """A run folder that is missing, incomplete, or of another recipe."""


class CheckpointError(RunError):
    """A checkpoint that is damaged or does not fit the model."""


class SearchError(SpelldownError):
    """A search that cannot be made with this run, or on this machine."""


class LanguageModelError(ProblemsError):
    """A language model that is damaged, or of another vocabulary."""


class TrainingError(SpelldownError):
    """Training cannot go on."""


class NonFiniteError(TrainingError):
    """Losses or gradients stayed non-finite."""


class DoesNotFitError(TrainingError):
    """A single utterance, or the optimizer, does not fit into memory."""


class LostRankError(TrainingError):
    """Another process that trained along is gone."""


class StudyError(ProblemsError):
    """A study that cannot be run."""


class NotNowError(StudyError):
    """A place that takes no runs now, and may take some later."""
