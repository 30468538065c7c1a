"""A nightly part is recorded, whichever way it ends."""

import sys

import pytest

from tests.nightly import __main__ as nightly
from tests.support import ROOT, missing


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Replaces the parts by targets of a Makefile with `recipe`s, and the record by an empty one."""
    if not (ROOT / ".git").exists():
        missing("git", "this is no git checkout")
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "environment").write_text("export WORD=hello\n")
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    monkeypatch.setattr(nightly, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(nightly, "commit", lambda: "0123456789ab")

    def put(**recipes: str) -> None:
        rules = (f"{name}:\n\t@{recipe}\n" for name, recipe in recipes.items())
        (tmp_path / "Makefile").write_text("\n".join(rules))
        monkeypatch.setattr(nightly, "PARTS", {name: [name] for name in recipes})

    return put


def main(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nightly", *arguments])
    return nightly.main()


def test_the_record_keeps_how_each_part_ended(parts, monkeypatch):
    parts(good='test "$$WORD" = hello', bad="exit 3", other="true")
    assert main(monkeypatch, "good", "bad") == 1
    runs = nightly.load()
    assert {part: run.ended for part, run in runs.items()} == {"good": "passed", "bad": "failed, exit status 2"}
    assert {run.commit for run in runs.values()} == {"0123456789ab"}


def test_the_table_has_a_line_for_each_part(parts, monkeypatch, capsys):
    parts(good="true", other="true")
    assert main(monkeypatch, "good") == 0
    assert main(monkeypatch, "--list") == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["part", "good", "other"]
    assert lines[1].split()[2:] == ["0123456789ab", "0.0", "passed"]
    assert lines[2].split() == ["other", "-", "-", "-", "-"]


def test_a_part_that_exceeds_its_limit_is_stopped(parts):
    parts(endless="sleep 60")
    assert nightly.run("endless", limit=0.5).ended.startswith("stopped after")


def test_an_unknown_part_is_refused(parts, monkeypatch, capsys):
    parts(good="true")
    with pytest.raises(SystemExit):
        main(monkeypatch, "godo")
    assert "unknown parts, got godo. Choose among good." in capsys.readouterr().err
