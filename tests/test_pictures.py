"""Pictures and pages: whole files, readable axes, nothing fetched from elsewhere."""

import io
import json
import re
from html import unescape
from pathlib import Path

import matplotlib.image
import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from spelldown.training.run import pictures
from spelldown.training.run.pictures import (
    Shown,
    attention_page,
    attention_picture,
    attention_png,
    curves_picture,
    marked,
)

PNG = b"\x89PNG\r\n\x1a\n"


def size(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def weights(heads: int, letters: int, frames: int) -> torch.Tensor:
    return torch.rand(heads, letters, frames).softmax(-1)


def test_letters_run_to_the_right_and_seconds_upwards() -> None:
    one = torch.zeros(1, 10, 20)
    one[0, 1, 17] = 1.0  # the second letter, near the end of the speech
    png = attention_png(one, [*"ABCDEFGHI", "<eos>"], 0.04)
    pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    yellow = (pixels[..., 0] > 0.9) & (pixels[..., 1] > 0.8) & (pixels[..., 2] < 0.3)
    dark = (pixels[..., 0] < 0.35) & (pixels[..., 1] < 0.05) & (pixels[..., 2] > 0.25)
    rows, columns = numpy.nonzero(dark)
    bright_rows, bright_columns = numpy.nonzero(yellow)
    left, right, top, bottom = columns.min(), columns.max(), rows.min(), rows.max()
    assert (bright_columns.mean() - left) / (right - left) == pytest.approx(0.15, abs=0.02)
    assert (bottom - bright_rows.mean()) / (bottom - top) == pytest.approx(0.875, abs=0.02)


@pytest.mark.parametrize(
    ("heads", "letters", "frames"), [(1, 1, 1), (1, 10, 40), (4, 200, 300), (2, 600, 500)]
)
def test_every_letter_has_room_and_pictures_stay_of_a_size_to_look_at(
    heads: int, letters: int, frames: int, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "picture.png"
    attention_picture(path, weights(heads, letters, frames), ["A"] * letters, 0.04, "said: A $ A")
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = size(content)
    assert 7 * letters < width < 5000
    assert 150 * heads < height < 500 * heads
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_more_letters_than_columns_are_thinned_out() -> None:
    assert size(attention_png(weights(1, 1500, 1250), ["A"] * 1500, 0.04))[0] < 5000


def test_of_a_text_that_runs_away_the_beginning_is_drawn_as_if_it_were_all() -> None:
    for frames, drawn in ((25, 60), (100, 120)):  # of 1 and 4 seconds
        away = size(attention_png(weights(1, 594, frames), ["A"] * 594, 0.04))
        assert away == size(attention_png(weights(1, drawn, frames), ["A"] * drawn, 0.04))


def test_letters_and_weights_that_differ_in_number_are_refused() -> None:
    with pytest.raises(ValueError, match="5 steps, but 4 letters"):
        attention_png(weights(1, 5, 9), "ABCD", 0.04)


def test_a_picture_that_cannot_be_put_in_place_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        attention_picture(path, weights(1, 2, 3), "AB", 0.04)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


@settings(deadline=None)
@given(st.text("AB<&' ", max_size=12), st.text("AB<&' ", max_size=12))
def test_marked_texts_are_the_texts_and_marks_only_where_they_differ(
    said: str, spelled: str
) -> None:
    left, right = marked(said, spelled)
    assert unescape(re.sub("</?del>", "", left)) == said
    assert unescape(re.sub("</?ins>", "", right)) == spelled
    equal = [re.sub(r"<(del|ins)>.*?</\1>", "", one) for one in (left, right)]
    assert equal[0] == equal[1]
    assert ("<del>" in left or "<ins>" in right) == (said != spelled)


def test_a_page_holds_everything_itself(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    items = [
        Shown("u<1>", "HELLO", "HELO", weights(1, 5, 9), [*"HELO", "<eos>"], 0.04),
        Shown("u2", None, "WHO KNOWS"),
    ]
    attention_page(path, items, title="Heard & spelled", summary="CER 20 %")
    page = path.read_text(encoding="utf-8")
    assert re.findall('(?:src|href)="([^"]{10})', page) == ["data:image"]
    assert "http" not in page
    assert "<script" not in page
    assert "Heard &amp; spelled" in page
    assert "u&lt;1&gt; <small>1 of 5 characters wrong</small>" in page
    assert "<del>L</del>" in page
    assert "WHO KNOWS" in page


def test_a_run_s_curves_are_drawn_past_gaps_and_a_broken_last_line(tmp_path: Path) -> None:
    lines = [
        {
            "epoch": epoch,
            "train": {"ce": 3 / epoch},
            "dev": {"loss": None, "cer": 4 / epoch, "wer": 1.0},
            "alignment": {"value": 0.1 * epoch, "verdict": "aligning"},
            "rate": 1e-3,
        }
        for epoch in range(1, 5)
    ]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 5, "tr')
    curves_picture(metrics, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_the_curves_of_a_run_are_those_of_its_numbers() -> None:
    record = {"dev": {"cer": 0.5, "wer": None}, "rate": 0.1, "train": 3}
    assert pictures._number(record, ("dev", "cer")) == 0.5
    assert pictures._number(record, ("rate",)) == 0.1
    for missing in (("dev", "wer"), ("alignment", "value"), ("train", "loss")):
        assert numpy.isnan(pictures._number(record, missing))


def test_each_letter_stands_under_its_column_and_spaces_and_the_end_can_be_seen() -> None:
    panel = Figure().add_subplot()
    pictures._name_letters(panel, ["A", " ", "$", "<eos>"])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["A", "␣", "$", "∎"]
    assert list(panel.get_xticks()) == [0.5, 1.5, 2.5, 3.5]
    pictures._name_letters(panel, [str(place) for place in range(1300)])
    assert [label.get_text() for label in panel.get_xticklabels()][:3] == ["0", "3", "6"]
