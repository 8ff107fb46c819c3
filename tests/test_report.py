"""A study's report: what is in its table and on its page, whatever became of its runs."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_study import DEMO, MadeStudy, data_of, rows_of, told
from typer.testing import CliRunner

from spelldown.cli import app
from spelldown.errors import StudyError
from spelldown.study.columns import COLUMNS, number, setup
from spelldown.study.folder import Row
from spelldown.study.report.findings import find
from spelldown.study.report.page.images import BUDGET, strips
from spelldown.study.report.page.page import _breakable
from spelldown.study.report.page.spelled import marked, utterances
from spelldown.study.report.report import write_report
from spelldown.study.report.tables import figure

VOID = {"meta", "input", "br", "wbr", "img"}


@pytest.fixture
def made(tmp_path: Path) -> MadeStudy:
    return MadeStudy(tmp_path / "made", ("dev", "test"))


class Balanced(HTMLParser):
    """Holds that every tag is closed, and keeps the addresses that the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        assert tag not in ("link", "base", "iframe", "object")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def test_the_page_is_one_file_that_asks_for_nothing(made: MadeStudy) -> None:
    made.row("base", {"pictures": (1, 3)}, {})
    made.row("worse", {"wrong": 0.5}, {"wrong": 0.5}, values={"kind": "worse"})
    html = write_report(made.done()).html.read_text()
    page = Balanced()
    page.feed(html)
    assert page.open == []
    assert page.asked and all(address.startswith("data:image/png;") for address in page.asked)
    assert re.findall(r"https?://[^\s\"']+", html) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in html and "url(" not in html


def test_the_table_says_what_the_seeds_said_and_more(made: MadeStudy) -> None:
    made.row("base", {"wrong": 0.1}, {"wrong": 0.12}, {"wrong": 0.11})
    published = {"distance": 430.63, "remark": "oscillated"}
    made.row("row 4", {"wrong": 0.8}, {"wrong": 0.7}, {"wrong": 0.75}, published=published)
    report = write_report(made.done())
    lines = report.markdown.read_text().splitlines()
    head = next(line for line in lines if line.startswith("| row"))
    for title in (*COLUMNS, "dev distance", "test WER", "published", "peak memory", "remark"):
        assert f"| {title} " in head
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    line = next(line for line in lines if line.startswith("| row 4"))
    assert "worse: +" in line and "430.63; oscillated" in line and "1.50 M" in line
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(report.csv.read_text()))}
    assert rows["row 4"]["dev wer verdict"] == "worse"
    low, mean, high = (float(rows["base"][f"dev cer{end}"]) for end in (" low", "", " high"))
    assert low < mean < high and mean == pytest.approx(0.11, abs=0.04)


def test_an_axis_of_any_name_has_a_column_of_its_own_in_the_csv(made: MadeStudy) -> None:
    values = {name: f"the {name}" for name in ("row", "batch", "teacher forcing", "dev cer")}
    made.row("base", {}, values=values)
    report = write_report(made.done())
    (line,) = csv.DictReader(io.StringIO(report.csv.read_text()))
    assert {name: line[f"axis {name}"] for name in values} == values
    one = rows_of(made.folder.path)["base"]
    assert line["row"] == "base" and line["batch"] == one.setup["batch"]
    assert float(line["dev cer"]) == one.parts["dev"].measures["cer"].mean


def test_a_run_that_failed_does_not_count_and_says_why(made: MadeStudy) -> None:
    made.row("base", {})
    failed = {"wrong": 0.9, "state": "failed", "reason": "the disk quota is used up", "epochs": 2}
    made.row("row", {"wrong": 0.1}, failed)
    path = made.done()
    row = rows_of(path)["row"]
    assert [seed for seed, _ in row.parts["dev"].measures["cer"].each] == [1]
    assert "Seed 2 failed after 2 epochs: the disk quota is used up." in told(path, "row")


def test_a_row_that_is_the_base_shares_its_runs_and_is_not_held_against_it(made: MadeStudy) -> None:
    base = made.row("base", {}, {})
    made.rows.append(Row(name="kind=location", values={"kind": "location"}, runs=base.runs))
    made.row(
        "kind=dot", {"wrong": 0.5}, {"wrong": 0.6}, values={"kind": "dot"}, changes={"a": [1, 2]}
    )
    path = made.done()
    row = rows_of(path)["kind=location"]
    assert row.as_base and row.parts["dev"].against == {}
    html = write_report(path).html.read_text()
    assert [row["name"] for row in data_of(html)["rows"]] == ["base", "kind=dot"]
    assert "errors against location" in html and "more errors" in html


def test_names_and_texts_cannot_break_the_page(made: MadeStudy) -> None:
    made.row("base", {}, remark="<b>bold</b> & more")
    made.row("</script><script>alert(1)</script>", {"wrong": 0.4}, changes={"a": ["<i>", "|"]})
    report = write_report(made.done(title="<title> & co"))
    html = report.html.read_text()
    Balanced().feed(html)
    assert html.count("</script>") == 2 and "<b>bold" not in html
    assert data_of(html)["rows"][1]["name"] == "</script><script>alert(1)</script>"
    lines = report.markdown.read_text().splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines if line[:1] == "|"}) == 1


def test_all_rows_spell_the_same_ten_utterances_from_short_to_long(made: MadeStudy) -> None:
    made.row("base", {})
    made.row("row", {"wrong": 0.3, "utterances": 40})
    rows = list(rows_of(made.done()).values())
    shown = utterances(rows, "dev")
    assert len(shown) == 10
    assert [len(one.said) for one in shown] == sorted(len(one.said) for one in shown)
    assert all([line.row for line in one.lines] == ["base", "row"] for one in shown)


@pytest.mark.parametrize(
    ("said", "spelled", "html"),
    [
        ("YES", "YES", "YES"),
        ("CAT", "CUT", 'C<ins title="said: A">U</ins>T'),
        ("CAT", "CT", 'C<del title="left out">A</del>T'),
        ("CT", "C&T", "C<ins>&amp;</ins>T"),
        ("", "", '<span class="soft">(nothing)</span>'),
    ],
)
def test_differences_are_marked(said: str, spelled: str, html: str) -> None:
    assert marked(said, spelled) == html


def test_an_utterance_that_ran_on_is_cut() -> None:
    assert (
        "and so on, 5,000 letters in all" in marked("CAT " * 300, "X" * 5000)
        or len(marked("CAT", "X" * 5000)) < 1500
    )


def test_a_page_carries_no_more_pictures_than_a_phone_can_take(made: MadeStudy) -> None:
    for row in ("base", "two", "three"):
        made.row(row, {"pictures": range(1, 31)})
    rows = list(rows_of(made.done()).values())
    found = strips(rows)
    assert [strip.row for strip in found] == ["base", "two", "three"]
    assert len({tuple(strip.pictures) for strip in found}) == 1
    epochs = list(found[0].pictures)
    assert epochs[0] == 1 and epochs[-1] == 30 and 4 <= len(epochs) <= 24
    assert sum(len(url) for strip in found for url in strip.pictures.values()) < BUDGET


def test_ordinary_runs_are_put_side_by_side_those_of_one_recipe_in_a_row(tmp_path: Path) -> None:
    made = MadeStudy(tmp_path / "made")
    for name, seed in (("demo-1", 1), ("demo-2", 1)):
        made.run(name, seed)
    made.run("other", 1, changes=["optimizer.rate=1e-4"])
    for outcome in made.folder.rows.glob("*/outcome.json"):
        outcome.unlink()
    rows = rows_of(made.folder.rows)
    assert {name: len(one.runs) for name, one in rows.items()} == {"demo": 2, "other": 1}
    assert rows["other"].setup["rate"] == "1e-4"
    assert write_report(made.folder.rows, tmp_path / "into").html.parent == tmp_path / "into"
    assert list(rows_of(made.folder.rows / "other")) == ["other"]


def test_where_there_is_no_study_the_error_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds neither a study"):
        find(tmp_path)
    with pytest.raises(StudyError, match="there is no folder"):
        find(tmp_path / "nowhere")
    page = tmp_path / "seed.yaml"
    page.touch()
    with pytest.raises(StudyError, match=r"is a page.*studies/seed"):
        find(page)


def test_the_command_writes_a_page_and_two_tables(made: MadeStudy) -> None:
    made.row("base", {})
    path = made.done()
    found = CliRunner().invoke(app, ["report", str(path)])
    assert found.exit_code == 0
    for name in ("report.html", "report.md", "report.csv"):
        assert str(path / name) in found.stdout and (path / name).is_file()


def test_the_seeds_rows_read_as_the_seeds_table_had_them() -> None:
    from spelldown.recipe.recipe import read_recipe

    rows = Path(__file__).parents[1] / "recipes" / "seed"
    first, sixth = (
        setup(read_recipe(rows / name).model_dump(mode="json"))
        for name in ("row1.yaml", "row6.yaml")
    )
    assert first["listener"] == "mobile to 256, 3 BiLSTM"
    assert first["blocks"] == "tf_blocks 1, cdn_layers 2"
    assert first["sizes"] == "d 256, projection 128, speller 512, heads 4"
    assert (first["teacher forcing"], first["batch"]) == ("A as typed", "64")
    assert (first["weight decay"], first["rate"]) == ("5e-3", "2e-4")
    assert first["data"] == "train-clean-100"
    assert sixth["listener"] == "conv to 512, 3 pyramids of 3 BiLSTM"
    assert (sixth["batch"], sixth["weight decay"]) == ("32", "1e-6")


def test_a_batch_of_what_fits_says_so() -> None:
    from spelldown.recipe.recipe import read_recipe

    recipe = read_recipe(DEMO, ["batching.frames=auto", "batching.utterances=12"])
    assert setup(recipe.model_dump(mode="json"))["batch"] == "12 / frames that fit"


def test_names_break_after_their_signs_and_no_number_does() -> None:
    assert _breakable("speller.dropout=0.1") == "speller.<wbr>dropout=<wbr>0.1"
    assert _breakable("rule-a_<b>").split("<wbr>") == ["rule-", "a_", "&lt;b&gt;"]


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number(n) for n in (5e-3, 0.3, 1.0, 0, 1e-6)] == ["5e-3", "0.3", "1", "0", "1e-6"]
    assert figure("distance", 20.684) == "20.68" and figure("distance", 430.63) == "430.63"
    assert figure("cer", 0.0934) == "9.3 %" and figure("wer", 43.6) == "4,360 %"
