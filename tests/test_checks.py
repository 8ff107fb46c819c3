"""Whatever is wrong with a corpus is named with its file, and the user decides what happens."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import load_part

from spelldown.data.checks import Part, check_part, ctc_frames_needed
from spelldown.data.corpora import ArraysSettings, read_part
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError

BAD = "train-005"


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a file ran code while it was read",))


def left_out(root: Path) -> list[str]:
    """The problems found, one line each; every one of them must be of the utterance BAD."""
    data = ArraysSettings(root=root, problems="leave-out")
    part = load_part(data, "train", Vocabulary.course(), None, lambda n: n // 4, True)
    assert len(part.cuts) == 11
    assert BAD not in {cut.id for cut in part.cuts}
    with pytest.raises(DataError) as caught:
        load_part(
            data.model_copy(update={"problems": "stop"}),
            "train",
            Vocabulary.course(),
            None,
            lambda n: n // 4,
            True,
        )
    assert list(caught.value.problems) == [str(problem) for problem in part.problems]
    return [str(problem) for problem in part.problems]


FRAMES = np.random.default_rng(1).normal(size=(90, 4)).astype(np.float32)
WITH_NAN, WITH_INF, TOO_BIG = FRAMES.copy(), FRAMES.copy(), FRAMES.astype(np.float64)
WITH_NAN[7, 2], WITH_INF[89, 0], TOO_BIG[3, 3] = np.nan, -np.inf, 1e300
CONSTANT = FRAMES.copy()
CONSTANT[:, 1] = 0.25


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (FRAMES[:, 0], r"shape (90,); (frames, coefficients) expected"),
        (FRAMES[None], r"shape (1, 90, 4)"),
        (FRAMES[:0], "an empty array of shape (0, 4)"),
        (FRAMES[:, :0], "an empty array of shape (90, 0)"),
        (FRAMES[:, :3], "3 coefficients a frame where the others have 4"),
        (WITH_NAN, "1 of 360 numbers are not finite, the first in frame 7, coefficient 2: nan"),
        (WITH_INF, "the first in frame 89, coefficient 0: -inf"),
        (TOO_BIG, "the first in frame 3, coefficient 3: 1e+300"),
        (FRAMES[:1], "zero variance: a single frame"),
        (CONSTANT, "zero variance: coefficient 1 is the same in all 90 frames"),
        (np.zeros((90, 4), np.float32), "zero variance: coefficient 0, 1, 2, 3"),
        (FRAMES.astype(np.complex64), "numbers of type complex64"),
        (FRAMES.astype(str), "floating point expected"),
        (FRAMES.astype(object), "Python objects"),
    ],
)
def test_wrong_frames_are_named_with_their_file(
    corpus: Path, frames: np.ndarray[tuple[int, ...], np.dtype[np.generic]], found: str
) -> None:
    np.save(corpus / "train" / "mfcc" / f"{BAD}.npy", frames)
    (problem,) = left_out(corpus)
    assert problem.startswith(f"{corpus}/train/mfcc/{BAD}.npy: ")
    assert found in problem


@pytest.mark.parametrize(
    ("symbols", "found"),
    [
        ([*"AB", "<eos>"], "no <sos> at the start"),
        (["<sos>", *"AB"], "no <eos> at the end"),
        ([*"AB"], "no <sos> at the start; no <eos> at the end"),
        ([], "type float64, shape (0,); a row of single characters expected"),
        (["<sos>", *"Ab1", "<eos>"], "'1' (U+0031), 'b' (U+0062); it has these letters in upper"),
        (["<sos>", "AB", "<eos>"], "not single characters: 'AB'"),
        (["<sos>", "A", "<eos>", "<eos>"], "not single characters: '<eos>'"),
        (["<sos>", "A", "<eos>", "<pad>"], "no <eos> at the end; symbols that"),
        ([["<sos>", "A", "<eos>"]], "shape (1, 3); a row of single characters expected"),
        ([1, 3, 2], "type int64"),
        ("<sos>AB<eos>", "shape (); a row of single characters expected"),
    ],
)
def test_wrong_transcripts_are_named_with_their_file(
    corpus: Path, symbols: object, found: str
) -> None:
    np.save(corpus / "train" / "transcripts" / f"{BAD}.npy", np.array(symbols))
    (problem,) = left_out(corpus)
    assert problem.startswith(f"{corpus}/train/transcripts/{BAD}.npy: ")
    assert found in problem


@pytest.mark.parametrize("folder", ["mfcc", "transcripts"])
@pytest.mark.parametrize("kept", [0, 1, 7, 40, 128, -1])
def test_a_truncated_file_is_named(corpus: Path, folder: str, kept: int) -> None:
    path = corpus / "train" / folder / f"{BAD}.npy"
    path.write_bytes(path.read_bytes()[:kept])
    (problem,) = left_out(corpus)
    assert problem.startswith(f"{path}: ")
    assert ("0 bytes" if kept == 0 else "cut short") in problem


@pytest.mark.parametrize("place", range(0, 140, 3))
def test_a_damaged_file_never_stops_the_check(corpus: Path, place: int) -> None:
    path = corpus / "train" / "mfcc" / f"{BAD}.npy"
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 0x15
    path.write_bytes(damaged)
    part = load_part(ArraysSettings(root=corpus, problems="leave-out"), "train")
    assert len(part.cuts) + len(part.problems) == 12


@pytest.mark.parametrize("folder", ["mfcc", "transcripts"])
def test_nothing_in_a_file_is_run(corpus: Path, folder: str) -> None:
    path = corpus / "train" / folder / f"{BAD}.npy"
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    (problem,) = left_out(corpus)
    assert "could run code" in problem
    path.write_bytes(pickle.dumps(Bomb()))
    (problem,) = left_out(corpus)
    assert "not a whole .npy array" in problem


@pytest.mark.parametrize(("folder", "other"), [("mfcc", "transcripts"), ("transcripts", "mfcc")])
def test_unpaired_files_are_named_and_move_no_others(corpus: Path, folder: str, other: str) -> None:
    (corpus / "train" / folder / f"{BAD}.npy").unlink()
    (problem,) = left_out(corpus)
    assert problem.startswith(f"{corpus}/train/{other}/{BAD}.npy: unpaired")


def test_equal_counts_do_not_hide_unpaired_files(corpus: Path) -> None:
    (corpus / "train" / "mfcc" / "train-000.npy").unlink()
    (corpus / "train" / "transcripts" / "train-011.npy").unlink()
    part = load_part(ArraysSettings(root=corpus, problems="leave-out"), "train")
    assert [cut.id for cut in part.cuts] == [f"train-{n:03}" for n in range(1, 11)]
    assert len(part.problems) == 2


def test_files_of_another_kind_are_named_and_hidden_ones_passed_over(corpus: Path) -> None:
    (corpus / "train" / "mfcc" / ".DS_Store").write_text("hidden")
    (corpus / "train" / "mfcc" / "notes.txt").write_text("not an array")
    part = load_part(ArraysSettings(root=corpus, problems="leave-out"), "train")
    assert len(part.cuts) == 12
    assert [str(p) for p in part.problems] == [f"{corpus}/train/mfcc/notes.txt: not an .npy file"]


def test_a_text_too_long_for_ctc_is_named_with_both_lengths(corpus: Path) -> None:
    np.save(corpus / "train" / "mfcc" / f"{BAD}.npy", FRAMES[:40])
    symbols = np.array(["<sos>", *"SEE BEES", "<eos>"])
    np.save(corpus / "train" / "transcripts" / f"{BAD}.npy", symbols)
    data = ArraysSettings(root=corpus, problems="leave-out")
    for stride, fits in ((4, True), (5, False)):
        part = load_part(data, "train", output_length=lambda n, s=stride: n // s)
        assert (BAD in {cut.id for cut in part.cuts}) is fits
    (problem,) = left_out_of(part, BAD)
    assert "a text of 8 characters needs 10 frames" in problem
    assert "it makes 8 of these 40" in problem


def test_a_text_must_fit_at_the_fastest_speed_too(corpus: Path) -> None:
    np.save(corpus / "train" / "mfcc" / f"{BAD}.npy", FRAMES[:40])
    symbols = np.array(["<sos>", *"SEE BEES", "<eos>"])
    np.save(corpus / "train" / "transcripts" / f"{BAD}.npy", symbols)
    part = read_part(ArraysSettings(root=corpus), "train")

    def checked(fewest_frames: Callable[[int], int]) -> Part:
        return check_part(
            part, "leave-out", output_length=lambda n: n // 4, fewest_frames=fewest_frames
        )

    assert left_out_of(checked(lambda n: n), BAD) == []
    (problem,) = left_out_of(checked(lambda n: n - 1), BAD)
    assert "it makes 9 of these 40, which are 39 at the fastest augment.speed" in problem


def left_out_of(part: Part, utterance: str) -> list[str]:
    return [str(problem) for problem in part.problems if problem.utterance == utterance]


@settings(max_examples=100, deadline=None)
@given(st.text("AB", max_size=7))
def test_the_frames_that_ctc_needs_are_the_fewest_from_which_it_spells(text: str) -> None:
    letters = torch.tensor([[ord(letter) - ord("A") + 1 for letter in text]], dtype=torch.int64)
    length = torch.tensor([len(text)])
    needed = int(ctc_frames_needed(letters, length))
    for frames in range(max(1, needed - 1), needed + 2):
        loss = torch.nn.functional.ctc_loss(
            torch.zeros(frames, 1, 3).log_softmax(-1),
            letters,
            torch.tensor([frames]),
            length,
            reduction="sum",
        )
        assert bool(loss.isfinite()) is (frames >= needed)


def test_two_frames_are_not_taken_for_constant_ones(corpus: Path) -> None:
    np.save(corpus / "train" / "mfcc" / f"{BAD}.npy", FRAMES[:2])
    assert load_part(ArraysSettings(root=corpus), "train").problems == ()


def test_the_width_asked_for_decides_over_the_commonest(corpus: Path) -> None:
    for number in range(8):
        path = corpus / "train" / "mfcc" / f"train-{number:03}.npy"
        np.save(path, np.load(path)[:, :3])
    data = ArraysSettings(root=corpus, problems="leave-out")
    assert len(load_part(data, "train").cuts) == 8
    assert len(load_part(data, "train", width=4).cuts) == 4


def test_a_part_of_which_nothing_is_left_is_an_error_either_way(corpus: Path) -> None:
    with pytest.raises(DataError, match="no utterance of train can be used, of 12") as caught:
        load_part(ArraysSettings(root=corpus, problems="leave-out"), "train", width=13)
    assert "4 coefficients a frame where the recipe's front end takes 13" in str(caught.value)


def test_all_problems_are_reported_at_once(corpus: Path) -> None:
    np.save(corpus / "train" / "mfcc" / "train-000.npy", WITH_NAN)
    np.save(corpus / "train" / "transcripts" / "train-000.npy", np.array([*"AB"]))
    np.save(corpus / "train" / "mfcc" / "train-001.npy", FRAMES[:, :2])
    (corpus / "train" / "mfcc" / "train-002.npy").unlink()
    with pytest.raises(DataError, match="3 of 12 utterances of train") as caught:
        load_part(ArraysSettings(root=corpus), "train")
    assert len(caught.value.problems) == 4
    assert "data.problems: leave-out" in str(caught.value)


def test_a_long_list_of_problems_is_cut_but_counted(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus({"train": 30})
    for path in sorted((root / "train" / "mfcc").iterdir())[:25]:
        np.save(path, WITH_NAN)
    with pytest.raises(DataError, match="and 5 more") as caught:
        load_part(ArraysSettings(root=root), "train")
    assert len(caught.value.problems) == 25
