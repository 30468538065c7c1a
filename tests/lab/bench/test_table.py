"""The guide's table about CPUs is that of the newest run, and the command that makes it keeps what it promises."""

import json
import sys
from pathlib import Path

import pytest

from bnengine.cli.bench_tables import show_cpu
from bnengine.lab.bench.cases import BLAS, COPY, EAGER, JAX, ONE_THREAD, OURS, Case
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.plot import draw
from bnengine.lab.bench.report import cpu_rows
from tests.benchmarks import __main__ as command
from tests.benchmarks import table
from tests.support import require

HAS = {"date": "2026-11-22T10:00:00Z", "processor": "A CPU", "machine": "x86_64", "threads": 2, "isa": "v4",
       "commit": "0123456789abcdef", "peers": {"torch": "2.13.0", "jax": None}}  # fmt: skip
NORM = Case("batch norm (8, 4)", "kernel", (OURS, COPY, EAGER), {}, COPY, best_peer=0.5, by_floor=1.25)
NORM_TIMES = {OURS: [2e-5], COPY: [1e-5], EAGER: [1e-4]}
PRODUCT = Case("product", "product", (ONE_THREAD, BLAS), {"workload": "8-8-3"}, best_peer=1.05)
NAME = "products of 8-8-3, one thread"


def made(case, seconds, void=None):
    return cpu_rows(case, Measured(seconds, void or {}, {}, 3, 1), HAS)


def of_products(*ours):
    return [row for seconds in ours for row in made(PRODUCT, {ONE_THREAD: [seconds], BLAS: [1.0]})]


def test_the_guide_has_what_was_measured():
    text = table.GUIDE.read_text(encoding="utf-8")
    assert table.placed(text, table.section(table.newest())) == text


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (
            made(NORM, NORM_TIMES),
            [("batch norm (8, 4)", "20 µs", "100 µs (PyTorch eager)", "0.20", "0.50", "**2.00**", "1.25")],
        ),
        (made(NORM, {}, {OURS: "no room"}), [("batch norm (8, 4)", "none (no room)", "", "", "0.50", "", "1.25")]),
        (
            of_products(0.5, 1.0),
            [(f"{NAME}, relative to {BLAS}", "2 of 2 within the aim", "", "0.50 to 1.00", "1.05", "", "")],
        ),
        (
            of_products(0.5, 1.0, 3.0),
            [(f"{NAME}, relative to {BLAS}", "2 of 3 within the aim", "", "**0.50 to 3.00**", "1.05", "", "")],
        ),
        (made(PRODUCT, {}, {ONE_THREAD: "no compiler"}), [(NAME, "none", "", "", "", "", "")]),
        (made(Case("step y", "sweep", (OURS, JAX), {}), {OURS: [1.0], JAX: [2.0]}), []),
    ],
    ids=["missed", "not measured", "products", "missed products", "no products", "points of the plot"],
)
def test_a_line_has_ratios_and_targets_or_why_there_are_none(rows, lines):
    assert table.table(rows) == lines


def test_an_older_result_is_shown_and_drawn(tmp_path, capsys):
    _, rows = table.newest()
    show_cpu(rows)
    out = capsys.readouterr().out
    assert all(row["name"] in out for row in rows)
    require("matplotlib")
    draw(rows, str(tmp_path / "figures.png"))


def test_the_newest_run_counts(tmp_path):
    assert "make bench" in table.section(table.newest(tmp_path))
    for name, date in (("b", "2026-11-21"), ("a", "2026-11-22")):
        found = [{**row, "environment": {**HAS, "date": date}} for row in made(NORM, NORM_TIMES)]
        (tmp_path / f"{name}-cpu.json").write_text(json.dumps(found))
    text = table.section(table.newest(tmp_path))
    assert text.startswith("| A CPU, 2 threads | ours | ")
    assert "Measured on 2026-11-22 by `make bench` at 0123456789ab (torch 2.13.0; instruction set v4). 3 t" in text
    assert "1 stayed noisy" in text
    assert table.placed(f"a\n{table.BEGIN}\nold\n{table.END}\n", text) == f"a\n{table.BEGIN}\n\n{text}\n\n{table.END}\n"
    with pytest.raises(SystemExit, match=r"speed\.md has no lines"):
        table.placed("nothing", text)


@pytest.mark.parametrize(("status", "trial"), [(0, False), (1, False), (0, True)])
def test_a_run_that_succeeds_and_is_no_trial_puts_its_figures_into_the_guide(monkeypatch, tmp_path, status, trial):
    calls, written = [], []

    def run(call, **_options):
        calls.append(call)
        return command.subprocess.CompletedProcess(call, status)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command, "write", lambda: written.append(True))
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *(["--out", str(tmp_path), "--quick"] if trial else [])])
    assert command.main() == status
    assert written == [True] * (status == 0 and not trial)
    (call,) = calls
    assert call[2:8] == ["bnengine", "bench", "--backend", "numpy", "--deadline", "470.0"]
    figures, picture = (Path(call[call.index(name) + 1]) for name in ("--json", "--plot"))
    assert figures.parent == (tmp_path if trial else tmp_path / "results")
    assert figures.name.endswith("-cpu.json")
    assert picture == (figures.with_suffix(".png") if trial else table.GUIDE.with_suffix(".png"))
    assert ("--quick" in call) == trial
