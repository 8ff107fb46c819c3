"""The one way in which every component states its settings."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Typed, frozen settings that refuse unknown keys and numbers that are not finite.

    Each component subclasses this beside its own code, so that its ranges, its error messages
    and its part of the JSON schema come from one place.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    # The keys that a page keeps when it chooses these settings in place of another kind's; all that
    # both kinds know if None.
    carried: ClassVar[frozenset[str] | None] = None
