"""Rows and targets, worked out by hand; what is written, when, and what a reader of the file finds."""

import json
from math import inf, nan

import pytest

from bnengine.errors import InputError
from bnengine.lab.bench import NotRun, Report, Workload
from bnengine.lab.bench.cases import COPY, EAGER, JAX, OURS, PRODUCTS, REFERENCE, V3, Case, device_kernels
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.report import CpuReport, Rates, cpu_rows, floors, rated
from bnengine.lab.bench.targets import judged

ROLES = (OURS, V3, REFERENCE, PRODUCTS, EAGER, JAX)
CASE = Case("step x", "step", ROLES, {"batch": 8}, PRODUCTS, best_peer=0.5, by_floor=1.1, v3=0.4)
HAS = {"processor": "P", "threads": 2}
NORM, SMALL = "batch norm (65536, 1024)", "64-100-100-10"
RATES = Rates(1000.0, {"highest": 100.0, "tf32": 1e6, "bfloat16": None}, 1000)


def found(**seconds):
    given = {OURS: [1.0, 2.0, 3.0], V3: [2.0, 2.0, 2.0], REFERENCE: [9.0, 9.0, 9.0], PRODUCTS: [1.0, 1.0, 2.0]}
    given |= {EAGER: [8.0, 5.0, 5.0], JAX: [4.0, 10.0, 4.0], **seconds}
    given = {name: times for name, times in given.items() if times}
    answers = {OURS: {"isa": "v4", "threads": 2, "losses": [3.0, 2.5]}, V3: {"isa": "v3", "threads": 2}}
    return Measured(given, {name: "it is void" for name in ROLES if name not in given}, answers, 5, 1)


def test_a_row_has_medians_and_ratios_round_by_round():
    row, lesser = cpu_rows(CASE, found(), HAS)
    assert row == {
        "name": "step x", "ours_ms": 2000, "reference_ms": 9000, "floor_ms": 1000,
        "peers_ms": {EAGER: 5000, JAX: 4000}, "best_peer": JAX,
        "ratio_to_best_peer": 0.25,  # of 1/4, 2/10, 3/4
        "ratio_to_floor": 1.5,  # of 1/1, 2/1, 3/2
        "threads": 2, "isa": "v4", "rounds": 3, "disturbed": 5, "disturbed_kept": 1,
        "target": {"ratio_to_best_peer": 0.5, "ratio_to_floor": 1.1},
        "reached": {"ratio_to_best_peer": True, "ratio_to_floor": False},
        "loss_at_step_20": 2.5, "void": {}, "kind": "step", "given": {"batch": 8}, "places": {}, "environment": HAS,
        "quartiles_ms": {OURS: [1500, 2500], V3: [2000, 2000], REFERENCE: [9000, 9000], PRODUCTS: [1000, 1500],
                         EAGER: [5000, 6500], JAX: [4000, 7000]},
    }  # fmt: skip
    assert (lesser["name"], lesser["isa"], lesser["ours_ms"]) == ("step x, x86-64-v3", "v3", 2000)
    assert lesser["ratio_to_best_peer"] == 0.5  # of 2/4, 2/10, 2/4
    assert (lesser["target"], lesser["reached"]) == ({"ratio_to_best_peer": 0.4}, {"ratio_to_best_peer": False})
    assert lesser["floor_ms"] is lesser["ratio_to_floor"] is None


def test_without_a_time_there_is_no_ratio_and_the_next_best_peer_counts():
    row, _ = cpu_rows(CASE, found(**{JAX: []}), HAS)
    assert (row["peers_ms"], row["best_peer"], row["void"]) == ({EAGER: 5000, JAX: None}, EAGER, {JAX: "it is void"})
    assert row["ratio_to_best_peer"] == pytest.approx(0.4)  # of 1/8, 2/5, 3/5
    row, _ = cpu_rows(CASE, found(**{OURS: []}), HAS)
    assert row["ours_ms"] is row["ratio_to_best_peer"] is row["ratio_to_floor"] is None
    assert row["reached"] == {"ratio_to_best_peer": None, "ratio_to_floor": None}
    row, _ = cpu_rows(CASE, found(**{PRODUCTS: []}), HAS)
    assert (row["ratio_to_best_peer"], row["ratio_to_floor"], row["void"]) == (0.25, None, {PRODUCTS: "it is void"})


def test_the_floor_of_an_op_is_so_many_copies():
    case = Case("op", "kernel", (OURS, COPY), {}, COPY, passes=2.0)
    (row,) = cpu_rows(case, Measured({OURS: [3.0, 3.0], COPY: [1.0, 1.0]}), HAS)
    assert (row["floor_ms"], row["ratio_to_floor"], row["best_peer"], row["target"]) == (2000, 1.5, None, {})


@pytest.mark.parametrize(
    ("precision", "cache", "floor"),
    [("highest", 1000, 4.2), ("tf32", 1000, 2.444), ("tf32", 10_000, 4.2e-4), ("tf32", None, 4.2e-4),
     ("bfloat16", None, None)],
)  # fmt: skip
def test_the_floor_is_the_longer_of_multiplying_and_of_moving_what_no_cache_holds(precision, cache, floor):
    row = floors(Workload("4-3-2", (4, 3, 2), 5, rows=20), precision, RATES._replace(cache=cache))
    assert (row["floor_seconds"], row["flops"]) == (floor, 420)
    assert (row["seconds_to_multiply"], row["seconds_to_move"])[precision == "tf32"] == {
        "highest": 4.2, "tf32": 2.444, "bfloat16": None}[precision]  # fmt: skip


def test_the_share_is_the_models_rate_over_the_measured_one():
    (case,) = [case for case in device_kernels() if case.given["op"] == "adam"]
    seconds = {"median": 1e-3, "low": 0.9e-3, "high": 1.1e-3, "rounds": 5}
    row = rated(case, seconds, RATES._replace(bytes=4e12))
    assert row == {"rate": pytest.approx(2.8e12), "share": pytest.approx(0.7), "seconds": seconds}
    assert rated(case, seconds, RATES._replace(bytes=None))["share"] is None


def test_the_file_has_every_case_from_the_beginning(tmp_path):
    path = tmp_path / "figures.json"
    report = CpuReport(HAS, str(path), pending=[CASE])
    report.write()
    first = json.loads(path.read_text())
    assert [row["name"] for row in first] == ["step x", "step x, x86-64-v3"]
    assert [set(row) for row in first] == [set(cpu_rows(CASE, found(), HAS)[0])] * 2
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
    report = Report({}, str(path), pending=[Case("steps of b", "step", (OURS,), {})])
    report.rows.append(step("bnengine eager", what="a"))
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


# -- targets on a GPU


def kernel(share, ratio=None, void=None, peer=None):
    row = {"kind": "kernel", "what": NORM, "variant": "float32", "name": "bnengine"}
    return {**row, "share": share, "ratio": ratio, "void": void, "peer": peer}


def step(name, **figures):
    row = {"kind": "step", "what": SMALL, "variant": "highest", "name": name, "void": None, "ratio": None}
    return {**row, "host_seconds": None, **figures}


@pytest.mark.parametrize(
    ("rows", "target", "judgment"),
    [
        ([kernel(0.85)], (NORM, "share", ""), (0.85, True, None)),
        ([kernel(0.849)], (NORM, "share", ""), (0.849, False, None)),
        ([kernel(None, void="MemoryError: gone")], (NORM, "share", ""), (None, None, "MemoryError: gone")),
        ([kernel(0.9, peer={"void": "no compiler"})], (NORM, "share", ""), (0.9, True, None)),
        ([kernel(0.9, peer={"void": "no compiler"})], (NORM, "ratio", "PyTorch"), (None, None, "no compiler")),
        ([kernel(0.9)], (NORM, "ratio", "PyTorch"), (None, None, "it was not measured")),
        ([], (NORM, "share", ""), (None, None, "it was not run")),
        *(
            (
                [step("bnengine graph", host_seconds={"median": s}), step("PyTorch eager", host_seconds={"median": 1})],
                (SMALL, "host_seconds", "bnengine graph"),
                (s, s <= 10e-6, None),
            )
            for s in (3e-6, 10e-6, 11e-6)
        ),
        *(
            (
                [step("PyTorch eager", ratio={"median": 6.0}), step("bnengine graph"),
                 step("PyTorch compile max-autotune", ratio={"median": 1.4})],
                (SMALL, "ratio", name),
                judgment,
            )
            for name, judgment in (
                ("PyTorch eager", (6.0, True, None)), ("PyTorch compile max-autotune", (1.4, False, None)),
            )
        ),
    ],
)  # fmt: skip
def test_a_target_has_its_figure_and_whether_it_is_reached_or_why_there_is_none(rows, target, judgment):
    (one,) = [t for t in judged(rows) if (t["what"], t["figure"], t["by"]) == target and t["variant"] != "bfloat16"]
    assert (one["measured"], one["reached"], one.get("why")) == judgment
    assert one["device"] == "H200"
