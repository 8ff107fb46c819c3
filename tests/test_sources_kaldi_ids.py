"""Kaldi folders with whatever wrong lines: no utterance is lost, and none is told twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import found_in, touch

from spelldown.data.preparing.sources.kaldi import KaldiSettings

identifier = st.text("abcxyz019-_", min_size=1, max_size=5)


lines = st.lists(st.tuples(identifier, st.booleans()), max_size=8)  # (id, is there more?)


def named(lines: list[tuple[str, bool]]) -> set[str]:
    return {one for one, _ in lines}


def once(lines: list[tuple[str, bool]]) -> set[str]:
    """The ids that are there once, with something after them."""
    every = [one for one, _ in lines]
    return {one for one, whole in lines if whole and every.count(one) == 1}


@settings(max_examples=60, deadline=None)
@given(heard=lines, said=lines, spoken=lines)
def test_every_id_comes_out_once_as_an_utterance_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory,
    heard: list[tuple[str, bool]],
    said: list[tuple[str, bool]],
    spoken: list[tuple[str, bool]],
) -> None:
    """Whatever lines are doubled, bare or missing, in whichever files."""
    folder = tmp_path_factory.mktemp("kaldi")
    touch(folder / "x.wav")
    files = {"wav.scp": (heard, "x.wav"), "text": (said, "WORDS"), "utt2spk": (spoken, "anna")}
    for name, (lines, rest) in files.items():
        written = [("#", True), *lines]
        content = "".join(f"{one} {rest}\n" if whole else f"{one}\n" for one, whole in written)
        (folder / name).write_text(content)
    utterances, problems = found_in(folder, KaldiSettings())
    misspoken = named(spoken) - once(spoken)
    fit = (once(heard) & once(said)) - misspoken
    assert {one.id: one.speaker for one in utterances if one.id != "#"} == {
        one: "anna" if one in named(spoken) else None for one in fit
    }
    wrong = (named(heard) | named(said) | misspoken) - fit
    assert sorted(one.utterance for one in problems) == sorted(wrong)
