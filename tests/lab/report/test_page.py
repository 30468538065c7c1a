"""The page's markup, the folder it is written to, and its tables."""

import csv
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest

from bnengine.errors import InputError
from bnengine.lab.report import Link, Mark, Page, check_folder, write
from bnengine.lab.report.folder import FIGURES, PAGE, SERIES, as_csv
from bnengine.lab.report.page import printed
from bnengine.storage.atomic import replace_file

ADVERSARIAL = "<script>alert('&amp;')</script>\" onload=\"x"


class Markup(HTMLParser):
    """The tags of a page, in order, and its text; what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.open, self.said = list[tuple[str, dict[str, str | None]]](), list[str](), ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def test_no_text_becomes_markup() -> None:
    page = Page(ADVERSARIAL, ADVERSARIAL)
    page.section(ADVERSARIAL, ADVERSARIAL, Mark(ADVERSARIAL, "no"))
    page.paragraph(ADVERSARIAL, ADVERSARIAL)
    page.table(
        ADVERSARIAL,
        [ADVERSARIAL],
        [[ADVERSARIAL], [Mark(ADVERSARIAL, "yes")], [Link(ADVERSARIAL, ADVERSARIAL)]],
        numbers=(0,),
    )
    page.picture(b"\x89PNG\r\n\x1a\n" + bytes(16), ADVERSARIAL)
    markup = Markup(page.html())
    assert "script" not in [tag for tag, _ in markup.tags]
    assert not any("onload" in attributes for _, attributes in markup.tags)
    assert markup.said.count(ADVERSARIAL) == 11
    (image,) = [attributes for tag, attributes in markup.tags if tag == "img"]
    assert image["alt"] == ADVERSARIAL


def test_without_jinja2_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"^test: needs jinja2 .* Install it: pip install 'bnengine\[report\]'$"):
        check_folder("test", tmp_path / "report")


def test_nothing_is_fetched_from_elsewhere() -> None:
    page = Page("title")
    page.picture(b"\x89PNG\r\n\x1a\n" + bytes(16), "a picture", b"\x89PNG\r\n\x1a\n" + bytes(16))
    text = page.html()
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_signs_of_our_own_are_written_as_in_print_and_names_are_left() -> None:
    assert printed("1 +- 2 <= 3 >= 2") == "1 ± 2 ≤ 3 ≥ 2"
    assert "a+-b<=c.npz" in Markup(Page("a+-b<=c.npz").html()).said


def test_a_report_is_written_into_a_new_folder_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "report"
    for title, table in (("first", SERIES), ("second", FIGURES)):
        check_folder("test", folder)
        write("test", folder, {PAGE: Page(title).html(), table: "a\n"})
        assert title in (folder / PAGE).read_text()
        assert sorted(file.name for file in folder.iterdir()) == sorted([table, PAGE])


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_report_that_is_stopped_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: BaseException
) -> None:
    def stops(path: Path, chunks: list[bytes]) -> None:
        if path.name == PAGE:
            raise stopped
        replace_file(path, chunks)

    monkeypatch.setattr("bnengine.lab.report.folder.replace_file", stops)
    files = {PAGE: Page("new").html(), FIGURES: "a\n"}
    with pytest.raises((KeyboardInterrupt, InputError)):
        write("test", tmp_path / "report", files)
    assert not (tmp_path / "report").exists()
    monkeypatch.undo()
    write("test", tmp_path / "report", {PAGE: Page("old").html()})
    monkeypatch.setattr("bnengine.lab.report.folder.replace_file", stops)
    with pytest.raises((KeyboardInterrupt, InputError)):
        write("test", tmp_path / "report", files)
    assert [file.name for file in (tmp_path / "report").iterdir()] == [PAGE]
    assert "old" in (tmp_path / "report" / PAGE).read_text()


@pytest.mark.parametrize("name", ["thesis.tex", "index.html", "figures.csv", ".hidden"])
def test_a_folder_of_somebody_elses_is_refused_and_left(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"^test .*holds other files than a report \({name}\); name a new folder"):
        check_folder("test", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_report_with_a_strangers_file_and_it_is_refused(tmp_path: Path) -> None:
    write("test", tmp_path, {PAGE: Page("ours").html()})
    check_folder("test", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        check_folder("test", tmp_path)


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("mine")
    with pytest.raises(InputError, match="this is a file; name a folder"):
        check_folder("test", tmp_path / "report")
    with pytest.raises(InputError, match=r"the report cannot be written \(.*\); name another folder"):
        write("test", tmp_path / "report", {PAGE: ""})


def test_a_folder_that_cannot_be_made_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"^test .*file/report: .*file is a file; name another folder"):
        check_folder("test", tmp_path / "file" / "report")
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "report"):
        with pytest.raises(InputError, match=rf"^test {folder}: {tmp_path} is not writable; name another folder"):
            check_folder("test", folder)


def test_csv_holds_any_name_and_every_digit() -> None:
    rows = [(ADVERSARIAL, 0.1 + 0.2), ('a,"b"\nc', float("nan"))]
    read = list(csv.reader(StringIO(as_csv(("name", "value"), rows))))
    assert read == [["name", "value"], [ADVERSARIAL, "0.30000000000000004"], ['a,"b"\nc', "nan"]]
