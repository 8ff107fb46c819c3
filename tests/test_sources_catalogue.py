"""Published corpora: LibriSpeech's layout, lhotse's recipes, and downloads that are broken off."""

import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from sources import found_in, touch, write_audio

from spelldown.data.preparing.sources.catalogue import (
    CatalogueSettings,
    catalogue,
    download,
    entry_of,
    recipes,
)
from spelldown.data.preparing.sources.catalogue.facts import FACTS
from spelldown.data.preparing.sources.catalogue.listing import NO_TEXTS, function_for
from spelldown.errors import DataError

SPEAKERS = """;ID  |SEX| SUBSET           |MINUTES| NAME
14   | F | train-clean-5    | 25.03 | Kristin LeMoine
60   | M | dev-clean-2      | 25.02 | A|B
"""


def corpus(name: str, *parts: str) -> CatalogueSettings:
    return CatalogueSettings(corpus=name, parts=parts)


# --- LibriSpeech's layout


def write_chapter(root: Path, part: str, chapter: str, texts: list[str]) -> Path:
    """A chapter `speaker-chapter` as LibriSpeech has it; gives its folder."""
    speaker, number = chapter.split("-")
    folder = root / part / speaker / number
    for i in range(len(texts)):
        write_audio(folder / f"{chapter}-{i:04d}.flac")
    lines = [f"{chapter}-{i:04d} {text}\n" for i, text in enumerate(texts)]
    (folder / f"{chapter}.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    write_chapter(root, "train-clean-5", "14-208", ["ONE", "TWO IT'S"])
    write_chapter(root, "train-clean-5", "14-212", ["THREE"])
    write_chapter(root, "dev-clean-2", "60-121", ["FOUR"])
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    return root


def test_librispeech_is_read_from_its_own_layout(librispeech: Path) -> None:
    utterances, problems = found_in(librispeech, corpus("mini-librispeech"))
    assert not problems
    assert [(one.id, one.split, one.text) for one in utterances] == [
        ("60-121-0000", "dev-clean-2", "FOUR"),
        ("14-208-0000", "train-clean-5", "ONE"),
        ("14-208-0001", "train-clean-5", "TWO IT'S"),
        ("14-212-0000", "train-clean-5", "THREE"),
    ]
    assert {(one.speaker, one.gender, one.language) for one in utterances} == {
        ("14", "F", "en"),
        ("60", "M", "en"),
    }
    assert utterances[2].audio == librispeech / "train-clean-5/14/208/14-208-0001.flac"
    assert utterances[2].where.endswith("14-208.trans.txt, line 2")


def test_librispeech_is_read_as_lhotse_reads_it(librispeech: Path) -> None:
    prepare = function_for("prepare", "librispeech")
    assert prepare is not None
    theirs = prepare(librispeech)
    ours, _ = found_in(librispeech, corpus("librispeech"))
    want = {
        (part, one.id, one.text, one.speaker)
        for part, manifests in theirs.items()
        for one in manifests["supervisions"]
    }
    assert {(one.split, one.id, one.text, one.speaker) for one in ours} == want


def test_any_part_is_read_from_any_folder_around_it(librispeech: Path) -> None:
    part, _ = found_in(librispeech.parent, corpus("librispeech", "dev-clean-2"))
    assert [one.id for one in part] == ["60-121-0000"]
    alone, _ = found_in(librispeech / "train-clean-5", corpus("librispeech"))
    assert {one.split for one in alone} == {"train-clean-5"}
    assert alone[0].gender == "F"
    with pytest.raises(DataError, match="no part dev-other; there is dev-clean-2, train-clean-5"):
        found_in(librispeech, corpus("librispeech", "dev-other"))
    with pytest.raises(DataError, match="not LibriSpeech's layout"):
        found_in(librispeech / "train-clean-5/14/208", corpus("librispeech"))


def test_what_is_wrong_in_a_chapter_is_named_with_its_line(librispeech: Path) -> None:
    folder = librispeech / "train-clean-5/14/208"
    (folder / "14-208-0001.flac").unlink()
    touch(folder / "14-208-0009.flac")
    with (folder / "14-208.trans.txt").open("ab") as file:
        file.write(b"14-208-0000 AGAIN\n14-208-0002 B\xd6SE\n14-208-0003\n")
    _, problems = found_in(librispeech, corpus("librispeech", "train-clean-5"))
    texts = folder / "14-208.trans.txt"
    assert [(one.utterance, one.file) for one in problems] == [
        ("14-208-0001", f"{texts}, line 2"),
        ("14-208-0000", f"{texts}, line 3"),
        ("14-208-0002", f"{texts}, line 4"),
        ("14-208-0003", f"{texts}, line 5"),
        ("14-208-0009", str(folder / "14-208-0009.flac")),
    ]
    assert problems[0].found == "there is no 14-208-0001.flac beside it"
    assert f"the first is {texts}, line 1" in problems[1].found
    assert "0xD6" in problems[2].found


# --- by lhotse's recipes


def write_yesno(folder: Path) -> Path:
    """Sixty recordings whose names say what is said in them, as yesno has them."""
    for i in range(60):
        write_audio(folder / f"{'_'.join(format(i, '08b'))}.wav")
    return folder


def test_yesno_is_read_through_lhotses_recipe(tmp_path: Path) -> None:
    source = write_yesno(tmp_path / "waves_yesno")
    utterances, problems = found_in(source, corpus("yesno"))
    assert not problems
    assert [one.split for one in utterances] == ["train"] * 30 + ["test"] * 30
    first = utterances[0]
    assert (first.id, first.text) == ("0_0_0_0_0_0_0_0", " ".join(["NO"] * 8))
    assert first.cut is not None
    assert first.cut.recording.sources[0].source == str(source / "0_0_0_0_0_0_0_0.wav")
    assert first.where == "yesno, train"
    train, _ = found_in(source, corpus("yesno", "train"))
    assert len(train) == 30
    with pytest.raises(DataError, match="no part dev; there is train, test"):
        found_in(source, corpus("yesno", "dev"))
    (source / "0_0_0_0_0_0_0_0.wav").unlink()
    # lhotse's assertion says nothing, so its line is quoted
    with pytest.raises(DataError, match=r"AssertionError: at `assert len\(wave_files\) == 60`"):
        found_in(source, corpus("yesno"))


def test_audio_that_a_recipe_writes_is_not_left_in_a_folder_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(corpus_dir: Path, output_dir: Path) -> dict[str, object]:
        made = Recording.from_file(write_audio(output_dir / "made.wav"), recording_id="made")
        said = SupervisionSegment("u", "made", 0.0, made.duration, text="X")
        return {
            "recordings": RecordingSet.from_recordings([made]),
            "supervisions": SupervisionSet.from_segments([said]),
        }

    monkeypatch.setattr(recipes, "function_for", lambda does, name: prepare)
    with pytest.raises(DataError, match="writes audio of its own; name a folder"):
        found_in(tmp_path, corpus("yesno"))
    kept = CatalogueSettings(corpus="yesno", manifests=tmp_path / "kept")
    (one,), _ = found_in(tmp_path, kept)
    assert (one.id, one.split) == ("u", None)


def test_ljspeech_and_common_voice_are_read_as_tables(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("LJ1|1 x|one x\n")
    touch(tmp_path / "wavs/LJ1.wav")
    assert [one.text for one in found_in(tmp_path, corpus("ljspeech"))[0]] == ["one x"]
    for language in ("de", "fr"):
        touch(tmp_path / f"cv/{language}/clips/{language}1.mp3")
        (tmp_path / f"cv/{language}/test.tsv").write_text(
            f"client_id\tpath\tsentence\nx\t{language}1.mp3\tSatz\n"
        )
    french = CatalogueSettings(corpus="commonvoice", language="fr")
    assert [one.id for one in found_in(tmp_path / "cv", french)[0]] == ["fr1"]
    assert [one.id for one in found_in(tmp_path / "cv/fr", french)[0]] == ["fr1"]
    with pytest.raises(DataError, match="there is no folder es in it"):
        found_in(tmp_path / "cv", CatalogueSettings(corpus="commonvoice", language="es"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (corpus("librispech"), "did you mean 'librispeech'"),
        (corpus("musan"), "musan has no texts to learn from"),
        (
            CatalogueSettings(corpus="librispeech", language="en", manifests=Path("x")),
            "librispeech has no use for manifests, language",
        ),
        (
            CatalogueSettings(corpus="librispeech", options={"base_url": "x", "num_jobs": 2}),
            "librispeech takes no num_jobs among its options",
        ),
        (
            CatalogueSettings(corpus="yesno", options={"jobs": 2}),
            r"yesno takes no jobs among its options; .* take target_dir, force_download, url",
        ),
        (CatalogueSettings(corpus="yesno", language="he"), "has no languages to choose from"),
        (corpus("speechcommands"), "needs more than a folder: give speechcommands_version"),
        (CatalogueSettings(corpus="nsc", parts=("a", "b")), "takes one part at a time"),
    ],
)
def test_a_setting_that_would_be_passed_over_is_refused(
    tmp_path: Path, settings: CatalogueSettings, why: str
) -> None:
    with pytest.raises(DataError, match=why):
        found_in(tmp_path, settings)


# --- the list


def test_the_list_holds_what_lhotse_knows_and_no_guesses() -> None:
    entries = {entry.name: entry for entry in catalogue()}
    assert {"librispeech", "mini-librispeech", "commonvoice", "yesno", "ljspeech"} <= set(entries)
    assert len(entries) > 70
    assert set(FACTS) <= set(entries)
    assert not NO_TEXTS & set(entries)
    assert entries["librispeech"].parts[0] == "train-clean-100"
    assert entries["librispeech"].facts.licence == "CC BY 4.0"
    assert entries["yesno"].downloads
    assert not entries["commonvoice"].downloads
    assert entries["cslu-kids"].facts.hours == ""
    unknown = [name for name, entry in entries.items() if not entry.facts.languages]
    assert len(unknown) < 10, unknown  # what a newer lhotse brings
    for name in entries:
        assert function_for("prepare", name) is not None
        assert entry_of(name.replace("-", "_").upper()) == entries[name]


# --- downloads


class Archives(BaseHTTPRequestHandler):
    """Files from memory, from any byte on; the first answers break off after `breaks` bytes."""

    def __init__(self, files: dict[str, bytes], log: list[str], breaks: list[int], *of: object):
        self.files, self.log, self.breaks = files, log, breaks
        super().__init__(*of)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        content = self.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range", "bytes=0-")
        self.log.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.breaks.pop() if self.breaks else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *of: object) -> None:
        pass


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    return out.getvalue()


@pytest.fixture
def served(tmp_path: Path, librispeech: Path) -> Iterator[tuple[str, list[str], list[int]]]:
    """A server with one part of LibriSpeech; what it was asked for; where it breaks off."""
    root = tmp_path / "packing/LibriSpeech"
    root.mkdir(parents=True)
    (librispeech / "dev-clean-2").rename(root / "dev-clean-2")
    archive = packed(root)
    log: list[str] = []
    breaks: list[int] = []
    handler = partial(Archives, {"dev-clean-2.tar.gz": archive}, log, breaks)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", log, breaks
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_is_broken_off_goes_on_where_it_stopped(
    tmp_path: Path, served: tuple[str, list[str], list[int]]
) -> None:
    url, log, breaks = served
    target = tmp_path / "new"
    fetch = partial(
        download, "mini-librispeech", target, ("dev-clean-2",), options={"base_url": url}
    )
    breaks.append(300)
    with pytest.raises(DataError, match=r"cut short or damaged .*; call again to go on"):
        fetch()
    assert (target / "dev-clean-2.tar.gz").stat().st_size == 300
    folder = fetch()
    assert log == ["bytes=0-", "bytes=300-"]
    (one,), problems = found_in(folder, corpus("mini-librispeech"))
    assert not problems
    assert (one.text, one.split) == ("FOUR", "dev-clean-2")
    fetch()
    assert len(log) == 2  # nothing is left to fetch


def test_a_download_that_cannot_be_had_says_what_to_do(
    tmp_path: Path, served: tuple[str, list[str], list[int]]
) -> None:
    url, _, _ = served
    options = {"base_url": url}
    with pytest.raises(DataError, match=r"answers 404 .* name the folder of a copy with --from"):
        download("mini-librispeech", tmp_path / "new", ("train-clean-5",), options=options)
    nobody = {"base_url": "http://127.0.0.1:9"}
    with pytest.raises(DataError, match=r"mini-librispeech cannot be downloaded to .* refused"):
        download("mini-librispeech", tmp_path / "new", ("dev-clean-2",), options=nobody)
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="has no part dev-clean; it has train-clean-5, dev-clean-2"):
        download("mini-librispeech", tmp_path / "new", ("dev-clean",))
    with pytest.raises(DataError, match=r"commonvoice cannot be downloaded: .* with --from"):
        download("commonvoice", tmp_path / "new")
    with pytest.raises(DataError, match="takes no colour among its options"):
        download("yesno", tmp_path / "new", options={"colour": "red"})
