"""What is written, when, and what a reader of the file finds."""

import json
from math import inf

import pytest

from bnengine.errors import InputError
from bnengine.lab.bench import NotRun, Report


def test_the_file_has_all_there_is_and_is_replaced_each_time(tmp_path):
    path = tmp_path / "figures.json"
    report = Report({"measured_on": "CPU"}, path=str(path))
    report.pending = ["steps of a", "steps of b"]
    report.write()
    first = json.loads(path.read_text())
    assert first["not_run"] == [{"what": f"steps of {n}", "why": "the run ended before it"} for n in "ab"]
    report.rows.append({"kind": "step", "what": "a", "variant": "highest", "name": "bnengine eager", "void": None})
    report.pending, report.copy_bandwidth = [], {"bytes_per_second": inf}
    report.not_run.append(NotRun("steps of b", "no time was left before the deadline"))
    report.write()
    second = json.loads(path.read_text())
    assert [row["what"] for row in second["rows"]] == ["a"]
    assert second["not_run"] == [{"what": "steps of b", "why": "no time was left before the deadline"}]
    assert second["copy_bandwidth"] == {"bytes_per_second": None}
    assert set(second) == {"environment", "copy_bandwidth", "gemm_rate", "rows", "targets", "not_run"}
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_a_file_that_cannot_be_written_is_told_with_its_cure(tmp_path):
    report = Report(path=str(tmp_path / "missing" / "figures.json"))
    with pytest.raises(
        InputError, match=r"^bench: .*figures\.json cannot be written \(No such file or directory\); give"
    ):
        report.write()


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Report().write()
    assert list(tmp_path.iterdir()) == []
