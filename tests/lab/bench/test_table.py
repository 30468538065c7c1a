"""The guide's table about CPUs is that of the newest run, and the command that makes it keeps what it promises."""

import json
import sys

import pytest

from bnengine.lab.bench.cases import BLAS, COPY, EAGER, JAX, ONE_THREAD, OURS, Case
from bnengine.lab.bench.measure import Measured
from bnengine.lab.bench.rows import cpu_rows
from tests.benchmarks import __main__ as command
from tests.benchmarks import table

HAS = {"date": "2026-11-22T10:00:00Z", "processor": "A CPU", "machine": "x86_64", "threads": 2, "isa": "v4",
       "commit": "0123456789abcdef", "peers": {"torch": "2.13.0", "jax": None}}  # fmt: skip
NORM = Case("batch norm (8, 4)", "kernel", (OURS, COPY, EAGER), {}, COPY, best_peer=0.5, by_floor=1.25)
NORM_TIMES = {OURS: [2e-5], COPY: [1e-5], EAGER: [1e-4]}
PRODUCT = Case("product", "product", (ONE_THREAD, BLAS), {"workload": "8-8-3"}, best_peer=1.05)


def made(case, seconds, void=None):
    return cpu_rows(case, Measured(seconds, void or {}, {}, 3, 1), HAS)


def test_the_guide_has_what_was_measured():
    text = table.GUIDE.read_text(encoding="utf-8")
    assert table.placed(text, table.section(table.newest())) == text


def test_a_line_has_both_ratios_and_what_is_beyond_its_aim_in_bold():
    (line,) = table.table(made(NORM, NORM_TIMES))
    assert line == ("batch norm (8, 4)", "20 µs", "100 µs (PyTorch eager)", "0.20", "0.50", "**2.00**", "1.25")


def test_what_was_not_measured_says_why():
    (line,) = table.table(made(NORM, {}, {OURS: "no room"}))
    assert line == ("batch norm (8, 4)", "none (no room)", "", "", "0.50", "", "1.25")


def test_products_of_a_network_share_a_line():
    some = made(PRODUCT, {ONE_THREAD: [1.0], BLAS: [2.0]}) + made(PRODUCT, {ONE_THREAD: [1.0], BLAS: [1.0]})
    (line,) = table.table(some)
    assert line[1:] == ("2 of 2 within the aim", "", "0.50 to 1.00", "1.05", "", "")
    (line,) = table.table([*some, *made(PRODUCT, {ONE_THREAD: [3.0], BLAS: [1.0]})])
    assert line[1:4] == ("2 of 3 within the aim", "", "**0.50 to 3.00**")
    (line,) = table.table(made(PRODUCT, {}, {ONE_THREAD: "no compiler"}))
    assert line[:2] == ("products of 8-8-3, one thread", "none")


def test_points_of_the_plot_alone_have_no_line():
    assert table.table(made(Case("step y", "sweep", (OURS, JAX), {}), {OURS: [1.0], JAX: [2.0]})) == []


def test_the_newest_run_counts(tmp_path):
    assert table.newest(tmp_path) is None
    assert "make bench" in table.section(None)
    for name, date in (("b", "2026-11-21"), ("a", "2026-11-22")):
        found = [{**row, "environment": {**HAS, "date": f"{date}T10:00:00Z"}} for row in made(NORM, NORM_TIMES)]
        (tmp_path / f"{name}-cpu.json").write_text(json.dumps(found))
    path, found = table.newest(tmp_path)
    assert path.name == "a-cpu.json"
    text = table.section((path, found))
    assert text.startswith("| A CPU, 2 threads | ours | ")
    assert (
        "Measured on 2026-11-22 by `make bench` at 0123456789ab (torch 2.13.0; instruction set v4). 3 timings" in text
    )
    assert "1 stayed noisy" in text


def test_the_section_is_put_between_its_lines():
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.placed(text, r"new \1") == f"before\n{table.BEGIN}\n\nnew \\1\n\n{table.END}\nafter\n"
    with pytest.raises(SystemExit, match=r"speed\.md has no lines"):
        table.placed("nothing", "new")


def test_files_have_the_processors_name_and_the_date():
    assert command.stem("Intel(R) Xeon(R) CPU @ 2.20GHz", "2026-11-22") == "intel-xeon-cpu-2-20ghz-2026-11-22-cpu"
    assert command.stem(None, "2026-11-22") == "cpu-2026-11-22-cpu"


@pytest.mark.parametrize("status", [0, 1])
def test_a_run_that_succeeds_puts_its_figures_into_the_guide(monkeypatch, tmp_path, status):
    calls, written = [], []

    def run(call, **_options):
        calls.append(call)
        return command.subprocess.CompletedProcess(call, status)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command, "write", lambda: written.append(True))
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert command.main() == status
    assert written == [True] * (status == 0)
    (call,) = calls
    assert call[2:6] == ["bnengine", "bench", "--backend", "numpy"]
    assert call[6:8] == ["--deadline", "470.0"]
    assert call[9].startswith(str(tmp_path / "results"))
    assert call[9].endswith("-cpu.json")
    assert call[11] == str(table.GUIDE.with_suffix(".png"))


def test_a_trial_leaves_the_guide_unchanged(monkeypatch, tmp_path):
    monkeypatch.setattr(
        command.subprocess, "run", lambda call, **_options: command.subprocess.CompletedProcess(call, 0)
    )
    monkeypatch.setattr(command, "write", lambda: pytest.fail("the guide was written"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--out", str(tmp_path), "--quick"])
    assert command.main() == 0
