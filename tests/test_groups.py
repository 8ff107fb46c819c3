"""Utterances in groups by what is known of them."""

import pytest
from lhotse import MonoCut, SupervisionSegment

from spelldown.data.groups import grouped_by
from spelldown.errors import DataError


def cut(number: int, **about: object) -> MonoCut:
    custom = {"age": about.pop("age")} if "age" in about else None
    name = str(number)
    spoken = SupervisionSegment(name, name, 0.0, 1.0, text="A", custom=custom, **about)
    return MonoCut(name, 0.0, 1.0, 0, supervisions=[spoken])


def test_groups_are_by_what_the_corpus_tells() -> None:
    cuts = [cut(0, gender="f"), cut(1, gender="m"), cut(2), cut(3, gender="f")]
    assert grouped_by(cuts, "gender") == {"gender f": [0, 3], "gender m": [1], "no gender": [2]}


def test_a_number_parts_those_below_it_from_the_others() -> None:
    cuts = [cut(0, age=15.5), cut(1, age=16), cut(2), cut(3, age=7)]
    assert list(grouped_by(cuts, "age:16").items()) == [
        ("age under 16", [0, 3]),
        ("age 16 or more", [1]),
        ("no age", [2]),
    ]


def test_several_numbers_part_what_lies_between_them() -> None:
    cuts = [cut(number, age=age) for number, age in enumerate((15.9, 16, 14, 7, 30))]
    assert list(grouped_by(cuts, "age:14,16").items()) == [
        ("age under 14", [3]),
        ("age 14 to under 16", [0, 2]),
        ("age 16 or more", [1, 4]),
    ]


@pytest.mark.parametrize("by", ["age:", "age:old", "age:16,14", "age:14,14", "age:14,", "age:nan"])
def test_numbers_that_part_nothing_are_refused_with_an_example(by: str) -> None:
    with pytest.raises(DataError, match=f"{by}: after the colon .* from low to high .* age:14,16"):
        grouped_by([cut(0, age=3)], by)


def test_what_is_not_known_is_refused_with_what_is() -> None:
    with pytest.raises(DataError, match="'accent'; there are age, speaker"):
        grouped_by([cut(0, age=3, speaker="x")], "accent")
    with pytest.raises(DataError, match="nothing else either"):
        grouped_by([cut(0)], "age:16")
    with pytest.raises(DataError, match="gender:2 parts numbers"):
        grouped_by([cut(0, gender="f")], "gender:2")
