"""Settings of a whole page: sections that must be possible together, and how they are written."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import yaml
from pydantic import model_validator

from spelldown.errors import RecipeError
from spelldown.recipe.reading.checking import Clash, check_sections
from spelldown.recipe.reading.page import Page, Problem
from spelldown.settings import Settings


class Whole(Settings):
    """A page of sections. What cannot go together is said by `impossible`."""

    @classmethod
    def impossible(cls, sections: Mapping[str, Any]) -> Iterable[Clash]:
        """The sections' settings that are each right but impossible together; some may be missing,
        since they could not be read."""
        return ()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [f"{clash.path}: {clash.message}" for clash in self.impossible(sections)]
        if found:
            raise ValueError("; ".join(found))
        return self

    @classmethod
    def of_page(cls, page: Page, refused: str) -> Self:
        """The settings that a page makes.

        Raises RecipeError, which begins with `refused`, with everything that is wrong.
        """
        checked = check_sections(page.data, cls)
        problems = [*page.problems, *checked.problems]
        for clash in cls.impossible(checked.sections):
            if checked.trusts(clash):
                keys = (int(key) if key.isdecimal() else key for key in clash.path.split("."))
                problems.append(Problem(tuple(keys), clash.message))
        if problems:
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            texts = [problem.text(page.origins) for problem in problems]
            raise RecipeError(f"{refused}: {count}", texts)
        return cls(**checked.sections)

    def as_yaml(self) -> str:
        """The page with every key stated; it reads back the same."""
        page = self.model_dump(mode="json")
        return yaml.safe_dump(page, sort_keys=False, allow_unicode=True, width=100)
