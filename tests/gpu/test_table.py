"""The guide on speed has the targets, and the newest figures that were measured on such a device."""

import json
from pathlib import Path
from typing import Any

import pytest

from bnengine.lab.bench.targets import MOST, TARGETS
from tests.gpu import table
from tests.support import ROOT

GUIDE = ROOT / "examples" / "guides" / "speed.md"


def test_the_guide_has_the_targets_and_what_was_measured():
    assert f"\n\n{table.table(table.newest())}\n\n" in GUIDE.read_text(encoding="utf-8")


def judged(factor: float) -> list[dict[str, Any]]:
    """Every target, with a figure that is a multiple of it."""
    found = []
    for target in TARGETS:
        value = target.value * factor
        reached = value <= target.value if target.sense == MOST else value >= target.value
        found.append({**target._asdict(), "measured": value, "reached": reached})
    return found


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def one(name: str, began: str, factor: float, device: str = "NVIDIA H200", simulated: bool = False) -> None:
        parts = [{"part": "environment"}, {"part": "bench", "result": {"targets": judged(factor)}}]
        report = {"device": device, "began": began, "simulated": simulated, "parts": parts}
        (tmp_path / f"{name}-bench.json").write_text(json.dumps(report))

    return one


def test_the_newest_run_on_such_a_device_counts(write, tmp_path):
    assert table.newest(tmp_path) is None
    write("a", "2026-11-30T10:00:00Z", 2.0)
    write("b", "2026-12-01T10:00:00Z", 1.0)
    write("c", "2026-12-02T10:00:00Z", 3.0, device="NVIDIA A100")
    write("d", "2026-12-03T10:00:00Z", 3.0, simulated=True)
    assert table.newest(tmp_path) == judged(1.0)


def test_figures_that_fall_short_are_bold():
    lines = {what: cells for what, *cells in table.lines(judged(0.5))}
    adam = next(cells for what, cells in lines.items() if what.startswith("Adam"))
    assert adam == ["at least 90 % of the copy bandwidth", "**45 %**"]
    host = [cells for cells in lines.values() if "host" in cells[0]]
    assert host[0] == ["at most 10 µs of the host a step", "5 µs, 5 µs, 5 µs"]
    ratio = next(c for what, *c in table.lines(judged(2.0)) if "PyTorch eager" in c[0])
    assert ratio[1] == "10, 10, 10"


def test_what_has_no_figure_says_why():
    rows = judged(1.0)
    rows[0] |= {"measured": None, "reached": None, "why": "out of memory"}
    last = [cells[-1] for cells in table.lines(rows)]
    assert last[0].startswith("none (out of memory), 85 %")
    assert table.NOT_YET not in last


def test_every_target_is_in_one_line():
    figures = [cells[-1].split(", ") for cells in table.lines(judged(1.0))]
    assert sum(map(len, figures)) == len(TARGETS)
