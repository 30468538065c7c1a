"""Tables as text and on a terminal."""

import io

import pytest

from bnengine.metrics.tables import print_table, table_text

COLUMNS = ("op", "time", "note")
ROWS = [("batch [bold]norm", "1.5", "at :smile: once"), ("b", "10.25", "")]


class Terminal(io.StringIO):
    """Looks like a terminal."""

    def isatty(self) -> bool:
        return True


def test_text_is_aligned_and_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    text = "op                 time  note\nbatch [bold]norm    1.5  at :smile: once\nb                 10.25"
    assert table_text(COLUMNS, ROWS, numbers=(1,)) == text
    print_table(COLUMNS, ROWS, numbers=(1,))
    assert capsys.readouterr().out == f"{text}\n"


def test_text_without_titles_has_no_header_and_never_wraps() -> None:
    assert table_text(("", ""), [("a" * 200, "b"), ("c", "d")]).splitlines() == [
        "a" * 200 + "  b",
        "c" + " " * 201 + "d",
    ]


def test_a_terminal_gets_a_drawn_table_with_emphasized_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", screen)
    print_table(COLUMNS, ROWS, numbers=(1,), emphasize=lambda row: row[0] == "b")
    first, second = (line for line in screen.getvalue().splitlines() if "1.5" in line or "10.25" in line)
    assert "batch [bold]norm" in first
    assert "\x1b[1;31m" in second
    assert "\x1b[1;31m" not in first
