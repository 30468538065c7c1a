"""The pool of threads on its own, plain and under g++'s sanitizers; the cases are in pool_driver.cpp."""

import subprocess

import pytest

from tests.cpu.driver import HERE, compiled, environment
from tests.support import ROOT

CASES = (
    "counts", "trials", "sleeping", "nested", "concurrent", "resize", "forked", "leaving", "scratch", "floating_point",
    "late",
)  # fmt: skip
# No forks under GCC's sanitizers: what locks of their own other threads hold, the child waits for without an end.
ALONE = tuple(case for case in CASES if case != "forked")
CHECKS = [("", case) for case in CASES]
CHECKS += [pytest.param(s, case, marks=pytest.mark.slow) for s in ("thread", "address,undefined") for case in ALONE]


@pytest.mark.parametrize(("sanitize", "case"), CHECKS)
def test_the_pool_keeps_its_word(sanitize, case):
    sources = ROOT / "kernels" / "cpu" / "pool.cpp", HERE / "pool_driver.cpp"
    program = compiled(*sources, name="pool", sanitize=sanitize)
    done = subprocess.run([program, case], env=environment(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_the_thread_sanitizer_sees_a_slot_taken_too_early(tmp_path):
    text = (ROOT / "kernels" / "cpu" / "pool.cpp").read_text()
    waits = "while (slot->gate.load(std::memory_order_acquire)) ++slot;"
    assert text.count(waits) == 1
    planted = tmp_path / "cpu" / "pool.cpp"
    planted.parent.mkdir()
    planted.write_text(text.replace(waits, ""))
    for header in ("pool.h", "trial.h", "sleep.h", "kernel.h", "floating_point.h"):
        (planted.parent / header).write_text((ROOT / "kernels" / "cpu" / header).read_text())
    program = compiled(planted, HERE / "pool_driver.cpp", name="planted", sanitize="thread")
    variables = environment() | {"TSAN_OPTIONS": "halt_on_error=1"}  # after a race a run may never end
    done = subprocess.run([program, "counts"], env=variables, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
