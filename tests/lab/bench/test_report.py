"""Rows of a run on a CPU, worked out by hand; what is written, when, and what a reader of the file finds."""

import json
from math import inf, nan

import pytest

from bnengine.errors import InputError
from bnengine.lab.bench import NotRun, Report
from bnengine.lab.bench.cases import COPY, EAGER, JAX, OURS, PRODUCTS, REFERENCE, V3, Case
from bnengine.lab.bench.cpu_rows import cpu_rows
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.report import CpuReport

ROLES = (OURS, V3, REFERENCE, PRODUCTS, EAGER, JAX)
CASE = Case("step x", "step", ROLES, {"batch": 8}, PRODUCTS, best_peer=0.5, by_floor=1.1, v3=0.4)
HAS = {"processor": "P", "threads": 2}
KEYS = {
    "name", "ours_ms", "reference_ms", "floor_ms", "peers_ms", "ratio_to_best_peer", "ratio_to_floor", "threads", "isa",
    "rounds", "disturbed",
}  # fmt: skip


def found(**seconds):
    given = {OURS: [1.0, 2.0, 3.0], V3: [2.0, 2.0, 2.0], REFERENCE: [9.0, 9.0, 9.0], PRODUCTS: [1.0, 1.0, 2.0]}
    given |= {EAGER: [8.0, 5.0, 5.0], JAX: [4.0, 10.0, 4.0], **seconds}
    given = {name: times for name, times in given.items() if times}
    answers = {OURS: {"isa": "v4", "threads": 2, "losses": [3.0, 2.5]}, V3: {"isa": "v3", "threads": 2}}
    return Measured(given, {name: "it is void" for name in ROLES if name not in given}, answers, 5, 1)


def test_a_row_has_medians_and_ratios_round_by_round():
    row, lesser = cpu_rows(CASE, found(), {"processor": "P", "threads": 2})
    assert set(row) >= KEYS
    assert (row["name"], row["ours_ms"], row["reference_ms"], row["floor_ms"]) == ("step x", 2000, 9000, 1000)
    assert row["peers_ms"] == {EAGER: 5000, JAX: 4000}
    assert row["best_peer"] == JAX
    assert row["ratio_to_best_peer"] == 0.25  # of 1/4, 2/10, 3/4
    assert row["ratio_to_floor"] == 1.5  # of 1/1, 2/1, 3/2
    assert (row["threads"], row["isa"], row["rounds"], row["disturbed"], row["disturbed_kept"]) == (2, "v4", 3, 5, 1)
    assert row["reached"] == {"ratio_to_best_peer": True, "ratio_to_floor": False}
    assert row["loss_at_step_20"] == 2.5
    assert row["quartiles_ms"][OURS] == [1500, 2500]
    assert row["void"] == {}
    assert (lesser["name"], lesser["isa"], lesser["ours_ms"]) == ("step x, x86-64-v3", "v3", 2000)
    assert lesser["ratio_to_best_peer"] == 0.5  # of 2/4, 2/10, 2/4
    assert (lesser["target"], lesser["reached"]) == ({"ratio_to_best_peer": 0.4}, {"ratio_to_best_peer": False})
    assert lesser["floor_ms"] is lesser["ratio_to_floor"] is None


def test_a_peer_without_a_time_is_void_and_the_next_best_is_compared_with():
    row, _ = cpu_rows(CASE, found(**{JAX: []}), HAS)
    assert row["peers_ms"] == {EAGER: 5000, JAX: None}
    assert (row["best_peer"], row["void"]) == (EAGER, {JAX: "it is void"})
    assert row["ratio_to_best_peer"] == pytest.approx(0.4)  # of 1/8, 2/5, 3/5


def test_without_ours_there_is_no_ratio_and_without_a_floor_none_to_it():
    row, _ = cpu_rows(CASE, found(**{OURS: []}), HAS)
    assert row["ours_ms"] is row["ratio_to_best_peer"] is row["ratio_to_floor"] is None
    assert row["reached"] == {"ratio_to_best_peer": None, "ratio_to_floor": None}
    row, _ = cpu_rows(CASE, found(**{PRODUCTS: []}), HAS)
    assert (row["ratio_to_best_peer"], row["ratio_to_floor"], row["void"]) == (0.25, None, {PRODUCTS: "it is void"})


def test_the_floor_of_an_op_is_so_many_copies():
    case = Case("op", "kernel", (OURS, COPY), {}, COPY, passes=2.0)
    (row,) = cpu_rows(case, Measured({OURS: [3.0, 3.0], COPY: [1.0, 1.0]}), HAS)
    assert (row["floor_ms"], row["ratio_to_floor"], row["best_peer"], row["target"]) == (2000, 1.5, None, {})


def test_the_file_has_every_case_from_the_beginning(tmp_path):
    path = tmp_path / "figures.json"
    report = CpuReport(HAS, str(path), pending=[CASE])
    report.write()
    first = json.loads(path.read_text())
    assert [row["name"] for row in first] == ["step x", "step x, x86-64-v3"]
    assert all(set(row) >= KEYS and row["environment"] == HAS for row in first)
    assert [row["void"] for row in first] == [{who: "the run ended before it"} for who in (OURS, V3)]
    report.pending = []
    report.skip(CASE, "no time")
    report.rows += cpu_rows(CASE, found(**{OURS: [nan] * 3}), HAS)
    report.write()
    second = json.loads(path.read_text())
    assert second[0]["void"] == {OURS: "no time"}
    assert second[2]["ours_ms"] is None  # JSON has no NaN
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_on_a_gpu_the_file_has_rows_targets_and_what_was_not_run(tmp_path):
    path = tmp_path / "figures.json"
    report = Report({"measured_on": "CPU"}, str(path), pending=[Case("steps of b", "step", (OURS,), {})])
    report.rows.append({"kind": "step", "what": "a", "variant": "highest", "name": "bnengine eager", "void": None})
    report.copy_bandwidth = {"bytes_per_second": inf}
    report.not_run.append(NotRun("steps of c", "no time was left before the deadline"))
    report.write()
    written = json.loads(path.read_text())
    assert [row["what"] for row in written["rows"]] == ["a"]
    assert written["not_run"] == [
        {"what": "steps of c", "why": "no time was left before the deadline"},
        {"what": "steps of b", "why": "the run ended before it"},
    ]
    assert written["copy_bandwidth"] == {"bytes_per_second": None}
    assert set(written) == {"environment", "copy_bandwidth", "gemm_rate", "rows", "targets", "not_run"}


def test_a_file_that_cannot_be_written_is_an_error_with_its_cure(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^bench: .*\.json cannot be written \(No such file or directory\); give"):
        Report(path=str(tmp_path / "missing" / "figures.json")).write()
    monkeypatch.chdir(tmp_path)
    Report().write()
    assert list(tmp_path.iterdir()) == []
