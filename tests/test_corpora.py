from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from pydantic import TypeAdapter, ValidationError
from reading import load_part

from spelldown.data.checks import text_of
from spelldown.data.corpora import (
    AddedSettings,
    ArraysSettings,
    CorpusSettings,
    CutsSettings,
    read_added,
    read_part,
)
from spelldown.data.vocabulary import Vocabulary
from spelldown.errors import DataError


def test_cuts_point_at_the_arrays_where_they_lie(corpus: Path) -> None:
    part = read_part(ArraysSettings(root=corpus), "train")
    assert len(part.cuts) == 12
    for cut in part.cuts:
        path = corpus / "train" / "mfcc" / f"{cut.id}.npy"
        assert cut.features.storage_type == "numpy_files"
        assert Path(cut.features.storage_path) / cut.features.storage_key == path
        np.testing.assert_array_equal(cut.load_features(), np.load(path))
        letters = np.load(corpus / "train" / "transcripts" / f"{cut.id}.npy")
        assert ["<sos>", *str(text_of(cut)), "<eos>"] == letters.tolist()


def test_reading_writes_nothing_into_the_corpus(corpus: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    for cut in read_part(ArraysSettings(root=corpus), "train").cuts:
        cut.load_features()
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before


@pytest.mark.parametrize("frames", [2, 3, 99, 1234])
def test_every_frame_of_any_length_is_loaded(
    tmp_path: Path, frames: int, write_utterance: Callable[..., None]
) -> None:
    array = np.random.default_rng(frames).normal(size=(frames, 3)).astype(np.float32)
    write_utterance(tmp_path / "train", "one", array, "A")
    (cut,) = read_part(ArraysSettings(root=tmp_path), "train").cuts
    assert cut.num_frames == frames
    np.testing.assert_array_equal(cut.load_features(), array)


def test_utterances_are_in_the_order_of_their_file_names(
    tmp_path: Path, write_utterance: Callable[..., None]
) -> None:
    for name in ("b", "a", "a-b", "a.b", "A"):
        write_utterance(tmp_path / "test", name, np.random.rand(5, 2).astype(np.float32))
    ids = [cut.id for cut in read_part(ArraysSettings(root=tmp_path), "test").cuts]
    assert [f"{i}.npy" for i in ids] == sorted(f"{i}.npy" for i in ids)
    assert len(ids) == 5


def test_partitions_are_joined_by_plus(corpus: Path) -> None:
    part = read_part(ArraysSettings(root=corpus), "train+dev")
    assert part.name == "train+dev"
    assert len(part.cuts) == 16
    assert {cut.id for cut in part.cuts} >= {"train-000", "dev-000"}


def test_joined_partitions_with_equal_names_keep_their_utterances_apart(
    tmp_path: Path, write_utterance: Callable[..., None]
) -> None:
    for part, size in (("one", 5), ("two", 7)):
        write_utterance(tmp_path / part, "x", np.random.rand(size, 2).astype(np.float32), "A")
    cuts = read_part(ArraysSettings(root=tmp_path), "one+two").cuts
    assert [(cut.id, cut.num_frames) for cut in cuts] == [("one.x", 5), ("two.x", 7)]


def test_problems_of_joined_partitions_are_kept_apart_as_their_utterances_are(
    tmp_path: Path, write_utterance: Callable[..., None]
) -> None:
    good = np.random.rand(5, 2).astype(np.float32)
    for part in ("one", "two"):
        for name in ("x", "y"):
            write_utterance(tmp_path / part, name, good, "A")
    np.save(tmp_path / "two" / "mfcc" / "x.npy", np.full_like(good, np.nan))
    found = read_part(ArraysSettings(root=tmp_path), "one+two")
    assert [cut.id for cut in found.cuts] == ["one.x", "one.y", "two.y"]
    assert [problem.utterance for problem in found.problems] == ["two.x"]
    with pytest.raises(DataError, match="1 of 4 utterances"):
        load_part(ArraysSettings(root=tmp_path), "one+two")


def test_a_name_is_shared_with_an_unusable_utterance_too(
    tmp_path: Path, write_utterance: Callable[..., None]
) -> None:
    good = np.random.rand(5, 2).astype(np.float32)
    write_utterance(tmp_path / "one", "x", good, "A")
    write_utterance(tmp_path / "two", "x", np.full_like(good, np.nan), "A")
    write_utterance(tmp_path / "two", "y", good, "A")
    with pytest.raises(DataError, match="1 of 3 utterances"):
        load_part(ArraysSettings(root=tmp_path), "one+two")


def test_train_clean_460_is_the_union_of_its_two_parts(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus({"train-clean-100": 2, "train-clean-360": 3})
    assert len(read_part(ArraysSettings(root=root), "train-clean-460").cuts) == 5


def test_a_folder_called_train_clean_460_is_read_itself(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus({"train-clean-100": 2, "train-clean-360": 3, "train-clean-460": 1})
    assert len(read_part(ArraysSettings(root=root), "train-clean-460").cuts) == 1


def test_a_test_part_needs_no_transcripts(corpus: Path) -> None:
    part = load_part(ArraysSettings(root=corpus), "test", Vocabulary.course(), 4, lambda n: n)
    assert len(part.cuts) == 3
    assert part.texts == []
    assert all(text_of(cut) is None for cut in part.cuts)


def test_training_needs_transcripts(corpus: Path) -> None:
    with pytest.raises(DataError, match="no transcript") as caught:
        load_part(ArraysSettings(root=corpus), "test", need_text=True)
    assert len(caught.value.problems) == 3


def test_an_unknown_part_is_refused_with_the_nearest_name(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"no part 'trian'.*did you mean 'train'"):
        read_part(ArraysSettings(root=corpus), "trian")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("dev", "takes one from train with --dev-share 0.1, or data.dev=NAME names another"),
        ("test", "there is train; data.test=NAME names another"),
        ("other", "there is train"),
    ],
)
def test_a_part_that_is_not_there_is_told_with_what_makes_it(
    make_corpus: Callable[..., Path], part: str, told: str
) -> None:
    root = make_corpus({"train": 2})
    with pytest.raises(DataError) as caught:
        read_part(ArraysSettings(root=root), part)
    assert str(caught.value).startswith(f"no part {part!r} in {root}; there is train")
    assert str(caught.value).endswith(told)


def test_a_part_of_an_added_corpus_is_not_looked_for_under_the_own_ones_keys(
    make_corpus: Callable[..., Path],
) -> None:
    root = make_corpus({"train": 2})
    settings = ArraysSettings(root=root, also=(AddedSettings(root=root, part="dev"),))
    with pytest.raises(DataError, match=r"data\.also\.0: no part 'dev' in .*; there is train$"):
        read_added(settings, read_part(settings, "train"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (ArraysSettings(root=Path("nowhere")), "prepare KIND SOURCE nowhere --to arrays` makes it"),
        (CutsSettings(root=Path("nowhere")), "prepare KIND SOURCE nowhere` makes it"),
        (CutsSettings(root=Path("data/demo")), "`spelldown demo` makes it"),
    ],
)
def test_a_missing_root_is_named_with_what_makes_it(
    settings: ArraysSettings | CutsSettings,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read_part(settings, "train")
    assert f"{tmp_path / settings.root} is not a folder" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("part", ["train+train", "train+", "", "+"])
def test_a_part_that_makes_no_sense_is_refused(corpus: Path, part: str) -> None:
    with pytest.raises(DataError, match=r"joined by \+"):
        read_part(ArraysSettings(root=corpus), part)


def test_files_whose_names_differ_are_paired_by_order_only_when_asked(corpus: Path) -> None:
    for path in (corpus / "dev" / "transcripts").iterdir():
        path.rename(path.with_name(path.name.replace("dev", "text")))
    with pytest.raises(DataError, match=r"data\.pairing: order"):
        read_part(ArraysSettings(root=corpus), "dev")
    cuts = read_part(ArraysSettings(root=corpus, pairing="order"), "dev").cuts
    letters = np.load(corpus / "dev" / "transcripts" / "text-002.npy").tolist()
    assert ["<sos>", *str(text_of(cuts[2])), "<eos>"] == letters


def test_unequal_counts_are_never_paired_by_order(corpus: Path) -> None:
    (corpus / "dev" / "transcripts" / "dev-001.npy").unlink()
    with pytest.raises(DataError, match="4 files in mfcc and 3 in transcripts"):
        read_part(ArraysSettings(root=corpus, pairing="order"), "dev")


def test_settings_know_their_kind_and_refuse_other_keys() -> None:
    reader: TypeAdapter[ArraysSettings | CutsSettings] = TypeAdapter(CorpusSettings)
    assert isinstance(reader.validate_python({"kind": "arrays", "root": "x"}), ArraysSettings)
    assert isinstance(reader.validate_python({"kind": "cuts", "root": "x"}), CutsSettings)
    with pytest.raises(ValidationError):
        reader.validate_python({"kind": "cuts", "root": "x", "pairing": "order"})
    with pytest.raises(ValidationError):
        reader.validate_python({"kind": "arrays", "root": "x", "problems": "ignore"})


def write_recordings(root: Path, names: list[str], absolute: bool = False) -> None:
    """A manifest `train` of half-second recordings beside it."""
    cuts = []
    for name in names:
        path = root / f"{name}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 8000), 16000)
        recording = Recording.from_file(path, recording_id=name)
        if not absolute:
            recording.sources[0].source = path.name
        said = SupervisionSegment(name, name, 0.0, recording.duration, text=f"text {name}")
        cuts.append(MonoCut(name, 0.0, recording.duration, 0, [said], recording=recording))
    CutSet.from_cuts(cuts).to_file(root / "train.jsonl.gz")


@pytest.mark.parametrize("absolute", [True, False])
def test_recordings_are_found_from_their_manifest(tmp_path: Path, absolute: bool) -> None:
    write_recordings(tmp_path, ["b", "a"], absolute)
    part = load_part(CutsSettings(root=tmp_path), "train", need_text=True)
    assert [cut.id for cut in part.cuts] == ["a", "b"]
    assert part.texts == ["text a", "text b"]
    assert part.cuts[0].load_audio().shape == (1, 8000)


def test_missing_and_empty_recordings_are_named(tmp_path: Path) -> None:
    write_recordings(tmp_path, ["a", "b", "c"])
    (tmp_path / "a.wav").unlink()
    (tmp_path / "b.wav").write_bytes(b"")
    part = load_part(CutsSettings(root=tmp_path, problems="leave-out"), "train")
    assert [cut.id for cut in part.cuts] == ["c"]
    missing, empty = map(str, part.problems)
    assert "utterance a" in missing and "there is no audio file" in missing
    assert "utterance b" in empty and "an empty file" in empty


def rewritten(path: Path, seconds: float = 0.5, rate: int = 16000) -> None:
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, int(seconds * rate)), rate)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda path: path.write_bytes(b"garbage" * 99), "b.wav: not a recording that can be read"),
        (lambda path: rewritten(path, rate=8000), "b.wav has 8000 samples a second, its manifest"),
        (lambda path: rewritten(path, seconds=0.3), "b.wav is 0.300 s long; its manifest says 0.5"),
    ],
)
def test_a_recording_unlike_its_manifest_is_named_before_training(
    tmp_path: Path, spoil: Callable[[Path], None], found: str
) -> None:
    write_recordings(tmp_path, ["a", "b", "c"])
    spoil(tmp_path / "b.wav")
    part = load_part(CutsSettings(root=tmp_path, problems="leave-out"), "train")
    assert [cut.id for cut in part.cuts] == ["a", "c"]
    (problem,) = map(str, part.problems)
    assert "utterance b" in problem and found in problem
    with pytest.raises(DataError, match="1 of 3 utterances of train cannot be used"):
        load_part(CutsSettings(root=tmp_path), "train")


def test_a_recording_shorter_than_a_window_is_named_before_training(tmp_path: Path) -> None:
    write_recordings(tmp_path, ["a", "b"])
    rewritten(tmp_path / "b.wav", seconds=0.006)
    cuts = [cut for cut in CutSet.from_file(tmp_path / "train.jsonl.gz") if cut.id == "a"]
    short = Recording.from_file(tmp_path / "b.wav", recording_id="b")
    cuts.append(MonoCut("b", 0.0, short.duration, 0, recording=short))
    CutSet.from_cuts(cuts).to_file(tmp_path / "train.jsonl.gz")
    part = load_part(CutsSettings(root=tmp_path, problems="leave-out"), "train")
    assert [cut.id for cut in part.cuts] == ["a"]
    assert "6.0 ms long; frames need at least one window of 25 ms" in str(part.problems[0])


def test_added_corpora_keep_their_utterances_apart(make_corpus: Callable[..., Path]) -> None:
    own = make_corpus({"train": 4, "dev": 2})
    other = own.rename(own.with_name("synthetic"))
    own = make_corpus({"train": 4, "dev": 2}, seed=1)
    settings = ArraysSettings(
        root=own, also=(AddedSettings(root=other), AddedSettings(root=other, part="dev+train"))
    )
    first, second = read_added(settings, read_part(settings, "train"))
    assert first.name == f"train of {other}"
    assert [cut.id for cut in first.cuts][:2] == ["synthetic.train-000", "synthetic.train-001"]
    assert next(cut.id for cut in second.cuts) == "synthetic.1.synthetic.dev-000"
    assert len(second.cuts) == 6
    assert read_added(ArraysSettings(root=own), first) == []


def test_names_that_are_not_shared_are_left_as_they_are(make_corpus: Callable[..., Path]) -> None:
    root = make_corpus({"train": 4, "more": 2})
    settings = ArraysSettings(root=root, also=(AddedSettings(root=root, part="more"),))
    (added,) = read_added(settings, read_part(settings, "train"))
    assert [cut.id for cut in added.cuts] == ["more-000", "more-001"]


def test_an_added_corpus_that_is_not_there_is_named_with_its_place(corpus: Path) -> None:
    settings = ArraysSettings(root=corpus, also=(AddedSettings(root=corpus, part="trian"),))
    with pytest.raises(DataError, match=r"data\.also\.0: no part 'trian'.*'train'"):
        read_added(settings, read_part(settings, "train"))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("not json\n")
    with pytest.raises(DataError, match=r"train.jsonl: not a manifest"):
        read_part(CutsSettings(root=tmp_path), "train")


@pytest.mark.data
def test_an4_is_read_whole_and_without_problems(an4: Path) -> None:
    for name, utterances, minutes in (("train", 848, 37.9), ("dev", 100, 4.4), ("test", 130, 5.9)):
        part = load_part(
            ArraysSettings(root=an4), name, Vocabulary.course(), 13, lambda n: -(-n // 4), True
        )
        assert len(part.cuts) == len(part.texts) == utterances
        assert part.problems == ()
        assert round(part.hours * 60, 1) == minutes
