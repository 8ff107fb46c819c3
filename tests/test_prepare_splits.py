"""Which part an utterance goes to: no speaker in two, shares kept, the same anywhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spelldown.data.preparing.splits import (
    SplitSettings,
    Spoken,
    Voice,
    file_names,
    share_out,
    split,
)
from spelldown.errors import DataError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def corpus(speakers: int, each: int = 10, nameless: int = 0) -> Spoken:
    found = Spoken()
    for number in range(speakers):
        for _ in range(each):
            found.add(2.0, f"s{number}", "mf"[number % 2], 10 if number % 3 == 0 else 30)
    for _ in range(nameless):
        found.add(2.0, None, None, None)
    return found


@given(
    st.dictionaries(st.text(max_size=4), st.floats(0.1, 1000), min_size=3, max_size=60),
    st.integers(0, 5),
)
def test_every_speaker_is_in_one_part_and_no_part_is_empty(
    seconds: dict[str, float], seed: int
) -> None:
    voices = {name: Voice(many) for name, many in seconds.items()}
    parts = share_out(voices, SHARES, seed)
    assert parts.keys() == voices.keys() and set(parts.values()) == set(SHARES)
    assert parts == share_out(dict(reversed(voices.items())), SHARES, seed)


def test_shares_are_of_the_time_and_every_kind_of_speaker_is_in_every_part() -> None:
    voices = corpus(120).voices
    every = Counter(voice.kind for voice in voices.values())
    for seed in range(10):
        parts = share_out(voices, SHARES, seed)
        assert Counter(parts.values()) == {"train": 96, "dev": 12, "test": 12}
        for part, share in SHARES.items():
            there = Counter(voices[name].kind for name, where in parts.items() if where == part)
            assert all(abs(there[kind] - share * count) <= 1 for kind, count in every.items())
    parts = share_out(voices, SHARES, 1)
    assert parts != share_out(voices, SHARES, 2)


def test_a_missing_dev_is_taken_from_the_speakers_of_train() -> None:
    found = split({"train": corpus(20), "test": corpus(5)}, SplitSettings(dev_share=0.2))
    parts = {found.part_of("train", f"s{n}", "x") for n in range(20)}
    assert parts == {"train", "dev"}
    assert {found.part_of("test", f"s{n}", "x") for n in range(5)} == {"test"}
    assert len(found.record["dev_from_train"]["speakers"]["dev"]) == 4
    assert found.record["dev_from_train"]["shares"]["dev"] == 0.2
    kept = split({"train": corpus(20), "test": corpus(5)}, SplitSettings(dev_share=0))
    assert {kept.part_of("train", f"s{n}", "x") for n in range(20)} == {"train"}


@pytest.mark.parametrize("name", ["dev", "dev-clean", "valid", "validation"])
def test_a_dev_that_is_there_is_kept(name: str) -> None:
    found = split({"train": corpus(20), name: corpus(5)}, SplitSettings())
    assert {found.part_of("train", f"s{n}", "x") for n in range(20)} == {"train"}
    assert found.part_of(name, "s1", "x") == name


def test_shares_of_the_users_replace_the_corpus_own_parts() -> None:
    found = split(
        {"train": corpus(20), "test": corpus(20)}, SplitSettings(split={"train": 0.5, "dev": 0.5})
    )
    for n in range(20):  # the same speakers in both of the corpus's parts
        (part,) = {found.part_of(own, f"s{n}", "x") for own in ("train", "test")}
        assert part in ("train", "dev")
    assert "split anew" in found.said[0]


def test_without_speakers_the_name_decides_whatever_else_is_there() -> None:
    found = split({None: corpus(0, nameless=1000)}, SplitSettings())
    parts = {f"u{n}": found.part_of(None, None, f"u{n}") for n in range(5000)}
    counts = Counter(parts.values())
    assert counts["train"] == pytest.approx(4000, abs=120)
    assert counts["dev"] == pytest.approx(500, abs=90)
    again = split({None: corpus(0, nameless=3)}, SplitSettings())
    assert all(again.part_of(None, None, id) == part for id, part in parts.items())


def test_too_few_speakers_are_split_by_name_and_that_is_said() -> None:
    found = split({None: corpus(2)}, SplitSettings())
    assert found.record["by"] == "utterance" and "nothing of new voices" in found.said[0]
    assert "only 1 known speaker: " in split({None: corpus(1)}, SplitSettings()).said[0]
    with pytest.raises(DataError, match="--split-by utterance"):
        split({None: corpus(2)}, SplitSettings(by="speaker"))


def test_voices_that_may_be_in_all_parts_are_told_where_no_speaker_is_known() -> None:
    unknown: dict[str | None, Spoken] = {None: corpus(0, nameless=100)}
    (first, *_) = split(unknown, SplitSettings()).said
    assert first.startswith("no speaker is known: the same voices")
    assert len(split(unknown, SplitSettings(by="utterance")).said) == 1


def test_utterances_without_a_speaker_among_others_are_learnt_from() -> None:
    found = split({None: corpus(20, nameless=5)}, SplitSettings())
    assert found.part_of(None, None, "x") == "train"
    assert "5 utterances have no speaker" in found.said[-1]
    found = split({None: corpus(20, nameless=1)}, SplitSettings())
    assert "1 utterance has no speaker; it is in train" in found.said[-1]


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "dev": -0.5}])
def test_shares_must_be_of_one_whole(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        SplitSettings(split=shares)


def test_speakers_whom_the_corpus_has_in_two_parts_are_counted_and_named() -> None:
    found = split({"train": corpus(20), "dev": corpus(0), "test": corpus(2)}, SplitSettings())
    assert found.record["speakers_in_several_parts"] == 2
    assert "2 speakers are in several" in found.said[1] and "s0: test, train" in found.said[1]
    apart = split({"train": corpus(20), "dev": corpus(0, nameless=3)}, SplitSettings())
    assert apart.record["speakers_in_several_parts"] == 0 and len(apart.said) == 1


@pytest.mark.parametrize("dev_share", [0.0, 0.1])
def test_what_is_in_no_part_is_learnt_from_unless_its_speaker_judges(dev_share: float) -> None:
    found = split(
        {"train": Spoken(), None: corpus(20), "test": corpus(3)}, SplitSettings(dev_share=dev_share)
    )
    for number in range(20):
        part = found.part_of(None, f"s{number}", "x")
        assert (part == "test") == (number < 3)
    assert "s0 in test" in found.said[1]
    learnt = {found.part_of(None, f"s{n}", "x") for n in range(3, 20)}
    assert learnt == ({"train", "dev"} if dev_share else {"train"})


def test_no_dev_is_made_where_its_share_is_nothing() -> None:
    found = split({None: corpus(40)}, SplitSettings(dev_share=0))
    parts = Counter(found.part_of(None, f"s{n}", "x") for n in range(40))
    assert parts == {"train": 36, "test": 4}
    with pytest.raises(DataError, match="leaves nothing to learn from"):
        split({None: corpus(40)}, SplitSettings(dev_share=0.95))
    with pytest.raises(ValidationError, match="leave --dev-share away"):
        SplitSettings(split={"train": 0.5, "dev": 0.5}, dev_share=0)


def test_a_column_that_is_no_part_is_asked_about() -> None:
    many: dict[str | None, Spoken] = {f"part {n}": corpus(1, each=1) for n in range(101)}
    with pytest.raises(DataError, match=r"101 parts .* is the split column right"):
        split(many, SplitSettings())
    assert split(many, SplitSettings(split={"train": 1.0})).part_of("part 1", "s0", "x") == "train"


def test_parts_that_would_be_one_file_are_named() -> None:
    assert file_names(["train", "dev set", "../x"]) == ["train", "dev-set", "x"]
    for one, other in (("a b", "a-b"), ("Train", "train"), ("", "train")):
        with pytest.raises(DataError, match=f"{one!r} and {other!r} would be one file"):
            file_names([one, other])
