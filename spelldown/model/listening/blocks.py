"""The listener's blocks: (frames, lengths) -> (frames, lengths).

Every block promises the silence of padding: what it makes of an utterance does not depend on what
it was padded with or to. Frames come in zero beyond their length and go out zero beyond it.

To add a block: one class with its settings, in a file of its family, and one name in the union
here. Its schema, its error messages and its contract tests come by themselves.
"""

from typing import Annotated

from pydantic import Field

from spelldown.model.listening.convolution import ConvSettings, MobileSettings
from spelldown.model.listening.image import Conv2dSettings
from spelldown.model.listening.recurrence import BiLSTMSettings, PyramidSettings
from spelldown.model.listening.transformer import TransformerSettings

__all__ = [
    "BiLSTMSettings",
    "BlockSettings",
    "Conv2dSettings",
    "ConvSettings",
    "MobileSettings",
    "PyramidSettings",
    "TransformerSettings",
]

BlockSettings = Annotated[
    ConvSettings
    | Conv2dSettings
    | MobileSettings
    | BiLSTMSettings
    | PyramidSettings
    | TransformerSettings,
    Field(discriminator="kind"),
]
