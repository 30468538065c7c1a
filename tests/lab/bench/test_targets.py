"""What is aimed at, and when it counts as reached."""

import pytest

from bnengine.lab.bench.targets import TARGETS, Target, judged

NORM = "batch norm (65536, 1024)"


def kernel(share, ratio=None, void=None, peer=None):
    ratio = None if ratio is None else {"median": ratio, "low": 0.0, "high": 9.0, "rounds": 3}
    row = {"kind": "kernel", "what": NORM, "variant": "float32", "name": "bnengine"}
    return {**row, "share": share, "ratio": ratio, "void": void, "peer": peer}


def step(name, **figures):
    row = {"kind": "step", "what": "64-100-100-10", "variant": "highest", "name": name, "void": None, "ratio": None}
    return {**row, "host_seconds": None, **figures}


def of(found, what, figure, by=""):
    (one,) = [
        t for t in found if (t["what"], t["figure"], t["by"]) == (what, figure, by) and t["variant"] != "bfloat16"
    ]
    return one["measured"], one["reached"], one.get("why")


def test_the_targets_are_those_of_the_table():
    figures = {(t.figure, t.sense, t.value) for t in TARGETS}
    assert figures == {
        ("share", "at least", 0.85), ("share", "at least", 0.9), ("ratio", "at least", 1.3), ("ratio", "at least", 5.0),
        ("ratio", "at least", 1.5), ("ratio", "at least", 1.1), ("host_seconds", "at most", 10e-6),
    }  # fmt: skip
    assert len(TARGETS) == len(set(TARGETS)) == 4 * 2 + 1 + 1 + 3 * 2 + 2 + 3 + 2
    assert Target("Adam, 100,000,000 parameters", "float32", "share", "at least", 0.9) in TARGETS


@pytest.mark.parametrize(("share", "reached"), [(0.85, True), (0.91, True), (0.849, False)])
def test_a_share_is_reached_from_its_value_up(share, reached):
    assert of(judged([kernel(share)], True), NORM, "share") == (share, reached, None)


@pytest.mark.parametrize(("seconds", "reached"), [(10e-6, True), (3e-6, True), (11e-6, False)])
def test_host_time_is_reached_from_its_value_down_and_is_that_of_our_graph(seconds, reached):
    rows = [step("bnengine graph", host_seconds={"median": seconds}), step("PyTorch eager", host_seconds={"median": 1})]
    assert of(judged(rows, True), "64-100-100-10", "host_seconds", "bnengine graph") == (seconds, reached, None)


def test_each_peer_has_its_ratio():
    rows = [
        step("bnengine graph"),
        step("PyTorch eager", ratio={"median": 6.0}),
        step("PyTorch compile max-autotune", ratio={"median": 1.4}),
    ]
    found = judged(rows, True)
    assert of(found, "64-100-100-10", "ratio", "PyTorch eager") == (6.0, True, None)
    assert of(found, "64-100-100-10", "ratio", "PyTorch compile max-autotune") == (1.4, False, None)


def test_a_void_row_reaches_nothing_and_says_why():
    found = judged([kernel(None, void="MemoryError: gone")], True)
    assert of(found, NORM, "share") == (None, None, "MemoryError: gone")
    found = judged([kernel(0.9, peer={"void": "ImportError: no compiler"})], True)
    assert of(found, NORM, "share") == (0.9, True, None)
    assert of(found, NORM, "ratio", "PyTorch") == (None, None, "ImportError: no compiler")
    assert of(judged([kernel(0.9)], True), NORM, "ratio", "PyTorch") == (None, None, "it was not measured")


def test_what_was_not_run_has_no_figure():
    assert {(t["measured"], t["reached"], t["why"]) for t in judged([], True)} == {(None, None, "it was not run")}
    assert {t["why"] for t in judged([kernel(0.9)], False)} == {"there is no GPU"}
    assert all(t["device"] == "H200" for t in judged([], False))
