"""Parts that pass, fail, hang or cannot be run: what is recorded of each, and when."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.gpu import __main__ as gpu
from tests.gpu import outcomes, parts
from tests.gpu.runner import FAILED, LATE, NOT_RUN, PASSED, REFUSED, ROOT, Ended, Outcome, Part, Report, Runner

HANG = "import time; print('so far', flush=True); time.sleep(600)"
WAITING = "import time\nprint('so far', flush=True)\ndef waiting():\n  time.sleep(600)\nwaiting()"
LONG = 30.0  # a deadline that nothing here comes near to


def part(name: str, code: str, seconds: float = LONG, **options) -> Part:
    return Part(name, ("python", "-c", code), seconds, **options)


def run(tmp_path: Path, planned: list[Part], seconds: float = 600, **options) -> tuple[list[dict], dict]:
    """The parts as they were recorded, and the file."""
    report = Report(tmp_path / "results" / "here.json", {"what": "a test"}, [p.name for p in planned])
    Runner(report, seconds, say=lambda _line: None, **options).run(planned)
    return report.parts, json.loads(report.path.read_text())


def test_a_part_that_fails_and_one_that_hangs_leave_the_others(tmp_path):
    planned = [
        part("bad", "raise SystemExit('it is broken')"),
        part("hangs", WAITING, 1.0),
        part("good", "print('fine')"),
    ]
    found, file = run(tmp_path, planned)
    assert [(p["part"], p["status"]) for p in found] == [("bad", FAILED), ("hangs", LATE), ("good", PASSED)]
    why = 'ended at its deadline in "<string>", line 4 in waiting'
    assert [p["why"] for p in found] == ["it is broken", why, "fine"]
    assert file == {"what": "a test", "failed": ["bad", "hangs"], "parts": found}
    assert "so far" in found[1]["output"]
    assert "output" not in found[2]


def test_what_a_part_started_ends_with_it(tmp_path):
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {!r}]); print(p.pid, flush=True)"
    for ending, seconds, status in (("", LONG, PASSED), ("; p.wait()", 1.0, LATE)):
        file = tmp_path / f"pid{seconds}"
        code = child.format(HANG) + f"; open({str(file)!r}, 'w').write(str(p.pid)){ending}"
        found, _ = run(tmp_path, [part("a", code, seconds)])
        assert found[0]["status"] == status
        assert gone(int(file.read_text()))


def gone(process: int) -> bool:
    """Whether a process has ended, or is about to."""
    for _ in range(200):
        try:
            os.kill(process, 0)
            if ") Z " in Path(f"/proc/{process}/stat").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


def test_the_file_is_whole_after_every_part(tmp_path):
    file = tmp_path / "results" / "here.json"
    look = f"import json; print([p['status'] for p in json.load(open({str(file)!r}))['parts']])"
    found, _ = run(tmp_path, [part("a", look), part("b", look), part("c", look)])
    assert [p["why"] for p in found] == [
        str([NOT_RUN, NOT_RUN, NOT_RUN]),
        str([PASSED, NOT_RUN, NOT_RUN]),
        str([PASSED, PASSED, NOT_RUN]),
    ]
    assert [p.name for p in file.parent.iterdir()] == ["here.json"]


def test_what_there_is_no_time_for_is_not_begun(tmp_path):
    found, file = run(tmp_path, [part("a", "print(1)", 600), part("b", "print(2)", 60)], seconds=100)
    assert [p["status"] for p in found] == [NOT_RUN, PASSED]
    assert found[0]["why"] == "100 s were left of the run's 100; its deadline is 600"
    assert file["failed"] == []


def test_failures_are_repeated_at_the_end(tmp_path):
    long, said = "x" * 200, list[str]()
    planned = [part("good", f"print({long!r})"), part("bad", f"raise SystemExit({long!r})")]
    Runner(Report(tmp_path / "here.json", {}, ["good", "bad"]), LONG, say=said.append).run(planned)
    assert [line.count("x") for line in said] == [200, 160]


def test_examining_the_machine_counts_toward_the_deadline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "verify", lambda _dry, _out: [part("a", "print(1)", 70)])
    monkeypatch.setattr(gpu, "stop_on_signals", lambda _runner: None)
    options = gpu.arguments(["verify", "--out", str(tmp_path), "--deadline", "100", "--jobs", "1"])
    report = gpu.run("verify", options, (parts.environment(False), Outcome(PASSED, "a machine", {}), 40.0))
    assert "1 parts, 1 side by side, 60 s at most" in capsys.readouterr().out
    assert [(found["part"], found["status"]) for found in report.parts] == [("environment", PASSED), ("a", PASSED)]
    assert report.parts[0]["seconds"] == 40.0


def test_the_run_s_deadline_ends_a_part_as_its_own_does(tmp_path):
    found, _ = run(tmp_path, [part("a", HANG, 1.0)], seconds=0.75)
    assert found[0]["status"] == LATE


def test_a_part_without_its_modules_is_not_run(tmp_path):
    planned = [part("a", "print(1)", needs=("cupy", "numpy")), part("b", "print(2)", needs=("numpy",))]
    found, _ = run(tmp_path, planned, missing=("cupy",))
    assert [(p["status"], p["why"]) for p in found] == [(NOT_RUN, "cupy cannot be used here"), (PASSED, "2")]


def test_parts_run_side_by_side_but_for_those_that_run_alone(tmp_path):
    meet = (
        "import pathlib, time; f = pathlib.Path({0!r}); (f / {1!r}).touch()\n"
        "while len(list(f.iterdir())) < {2}: time.sleep(0.01)\nprint(len(list(f.iterdir())))"
    )
    folder = tmp_path / "met"
    folder.mkdir()
    planned = [part(n, meet.format(str(folder), n, 2)) for n in "ab"]
    planned.append(part("c", meet.format(str(folder), "c", 3), alone=True))
    found, _ = run(tmp_path, planned, jobs=2)
    assert [(p["status"], p["why"]) for p in found] == [(PASSED, "2"), (PASSED, "2"), (PASSED, "3")]


def test_a_command_that_is_not_there_is_a_failure_with_a_reason(tmp_path):
    found, _ = run(tmp_path, [Part("a", ("/nowhere/program",), LONG)])
    assert found[0]["status"] == FAILED
    assert found[0]["why"].startswith("it cannot be started: ")


# -- compute-sanitizer: a program that prints and exits as it does ---------------------------------------------------

LAUNCHED = "601 of 601 kernels were launched\n"
SUMMARIES = {
    "memcheck": "========= ERROR SUMMARY: {} errors\n",
    "racecheck": "========= RACECHECK SUMMARY: {0} hazards displayed ({0} errors, 0 warnings)\n",
}


@pytest.fixture
def sanitizer(tmp_path, monkeypatch):
    """Puts a compute-sanitizer on the path that prints `text` and exits with `status`: the part that would call it."""

    def put(text: str, status: int = 0) -> Part:
        program = tmp_path / "bin" / "compute-sanitizer"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        return next(p for p in parts.verify(False, tmp_path) if p.name == "racecheck")

    return put


@pytest.mark.parametrize("tool", SUMMARIES)
def test_a_sanitizer_that_finds_nothing_is_a_pass(tool, sanitizer, tmp_path):
    found, _ = run(tmp_path, [sanitizer(f"{LAUNCHED}{SUMMARIES[tool].format(0)}")])
    assert found[0]["status"] == PASSED
    assert found[0]["why"].endswith("; 601 of 601 kernels were launched")


@pytest.mark.parametrize("tool", SUMMARIES)
@pytest.mark.parametrize("count", [1, 10])
def test_what_a_sanitizer_finds_is_a_failure(tool, count, sanitizer, tmp_path):
    found, _ = run(tmp_path, [sanitizer(f"{LAUNCHED}{SUMMARIES[tool].format(count)}", 86)])
    assert (found[0]["status"], found[0]["result"]["launched"]) == (FAILED, LAUNCHED.strip())


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (SUMMARIES["memcheck"].format(0), 0),  # the program said nothing
        (LAUNCHED, 0),  # the sanitizer said nothing
        (f"{LAUNCHED}{SUMMARIES['memcheck'].format(0)}", 1),
        ("", 1),
    ],
)
def test_without_a_clean_summary_there_is_no_pass(text, status, sanitizer, tmp_path):
    found, _ = run(tmp_path, [sanitizer(text, status)])
    assert found[0]["status"] == FAILED


def test_a_refused_sanitizer_neither_passes_nor_fails(sanitizer, tmp_path):
    text = "========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the documentation.\n"
    found, file = run(tmp_path, [sanitizer(f"{text}{SUMMARIES['memcheck'].format(1)}", 86)])
    assert (found[0]["status"], found[0]["why"].split(".")[0]) == (REFUSED, "Error: Device not supported")
    assert file["failed"] == []
    found, _ = run(tmp_path, [sanitizer("RuntimeError: device not supported\n", 1)])
    assert found[0]["status"] == FAILED, "what the program itself says is no refusal"


def test_a_missing_sanitizer_is_a_refusal_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(parts.glob, "glob", lambda _pattern: [])
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    found, _ = run(tmp_path, [p for p in parts.verify(False, tmp_path) if p.name in parts.SANITIZERS])
    assert {(p["status"], p["why"].partition(":")[0]) for p in found} == {
        (REFUSED, "compute-sanitizer is not installed here")
    }
    assert len(found) == 4


def test_a_sanitizer_is_found_in_a_toolkit_off_the_path(tmp_path, monkeypatch):
    program = tmp_path / "cuda" / "bin" / "compute-sanitizer"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert parts.sanitizer() == str(program)


# -- what pytest, the certificate and the benchmark return ----------------------------------------------------------


def pytest_part(tmp_path: Path, text: str, seconds: float = LONG) -> Part:
    file = tmp_path / "test_here.py"
    file.write_text(text)
    command = ("python", "-m", "pytest", "-q", "-p", "tests.gpu.report", "-p", "no:cacheprovider", "--rootdir",
               str(tmp_path), "-c", "/dev/null", str(file))  # fmt: skip
    return Part("tests", command, seconds, outcomes.of_tests)


def test_tests_are_counted_and_failures_named(tmp_path):
    text = "import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2\ndef test_c(): pytest.skip('no GPU')\n"
    found, _ = run(tmp_path, [pytest_part(tmp_path, text)])
    assert found[0]["status"] == FAILED
    assert found[0]["result"]["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert found[0]["result"]["skipped"] == ["no GPU"]
    assert found[0]["why"].startswith("1 failed, 1 passed, 1 skipped; test_here.py::test_b: assert 1 == 2")


def test_a_test_that_hangs_is_named(tmp_path):
    text = "import time\ndef test_a(): pass\ndef test_b(): time.sleep(600)\n"
    found, _ = run(tmp_path, [pytest_part(tmp_path, text, 3.0)])
    assert (found[0]["status"], found[0]["result"]["counts"]) == (LATE, {"passed": 1})
    assert found[0]["why"].startswith("ended at its deadline in test_here.py::test_b; ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no test ran: none was selected"),
        ("import pytest\ndef test_a(): pytest.skip('no GPU')\n", "no test ran: no GPU"),
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
    ],
)
def test_where_no_test_ran_nothing_has_passed(text, why, tmp_path):
    found, _ = run(tmp_path, [pytest_part(tmp_path, text)])
    assert found[0]["status"] == FAILED
    assert why in found[0]["why"]


def test_a_benchmark_that_is_late_keeps_what_it_wrote(tmp_path):
    notes = tmp_path / "notes"
    rows = [{"kind": "kernel", "void": None}, {"kind": "kernel", "void": None}, {"kind": "step", "void": "no memory"}]
    notes.write_text(json.dumps({"rows": rows, "targets": [{"reached": True}, {"reached": None}]}))
    outcome = outcomes.of_benchmark(Ended(None, "running\n", notes))
    why = "3 rows, 1 of them void; 1 of 2 targets reached, 1 not measured"
    assert (outcome.status, outcome.why, outcome.result["rows"]) == (LATE, why, rows)


def test_a_benchmark_that_measured_nothing_is_no_pass(tmp_path):
    notes = tmp_path / "notes"
    notes.write_text(json.dumps({"rows": [{"void": "no memory"}], "targets": []}))
    assert outcomes.of_benchmark(Ended(0, "", notes)).status == FAILED


def test_what_a_part_writes_down_stays_until_it_is_in_the_report(tmp_path):
    notes = tmp_path / "bench.json"
    write = 'import sys; open(sys.argv[1], \'w\').write(\'{"rows": [{"void": null}], "targets": []}\')'
    command = ("python", "-c", write, "{notes}")
    for check_step, left in ((outcomes.of_benchmark, False), (outcomes.by_exit_status, True)):
        found, _ = run(tmp_path, [Part("bench", command, LONG, check_step, notes=notes)])
        assert found[0]["status"] == PASSED
        assert notes.exists() == left


def certificate(tmp_path: Path, status: int, *rows: dict) -> Ended:
    found = {"agreed": all(row["ok"] for row in rows), "environment": {}, "rows": rows, "not_run": []}
    return Ended(status, f"a warning\n{json.dumps(found)}\n", tmp_path / "notes")


def test_a_certificate_keeps_what_disagrees(tmp_path):
    near, far, wrong = (
        {"what": f"op {n}", "a": "cupy", "b": "numpy", "error": error, "bound": 1.0, "ok": error <= 1}
        for n, error in (("x", 0.9), ("y", 0.1), ("z", 3.0))
    )
    outcome = outcomes.of_certificate(certificate(tmp_path, 0, near, far))
    assert (outcome.status, outcome.why) == (PASSED, "2 comparisons agree")
    assert outcome.result | {"environment": 0} == {
        "agreed": True, "environment": 0, "rows": 2, "disagree": [], "nearest": [near], "not_run": []
    }  # fmt: skip
    outcome = outcomes.of_certificate(certificate(tmp_path, 1, wrong, far))
    assert (outcome.status, outcome.why) == (FAILED, "2 comparisons, 1 disagree: op z")
    assert (outcome.result["disagree"], outcome.result["nearest"]) == ([wrong], [far])


def test_a_certificate_of_nothing_is_no_pass(tmp_path):
    assert outcomes.of_certificate(certificate(tmp_path, 0)).status == FAILED
    assert outcomes.of_certificate(Ended(0, "nothing\n", tmp_path / "notes")).why == "it gave no JSON"


SIGNALED = """
import sys
from pathlib import Path
from tests.gpu.__main__ import stop_on_signals
from tests.gpu.runner import Part, Report, Runner
part = Part("hangs", ("python", "-c", {code!r}), 600)
report = Report(Path({file!r}), {{}}, ["hangs", "next"])
runner = Runner(report, 600)
stop_on_signals(runner)
runner.run([part, Part("next", ("python", "-c", "print(1)"), 600)])
"""


def test_an_ended_run_ends_its_part_and_leaves_a_whole_file(tmp_path):
    file, pid = tmp_path / "here.json", tmp_path / "pid"
    code = f"import os, time; open({str(pid)!r} + '~', 'w').write(str(os.getpid())); os.rename({str(pid)!r} + '~', "
    code += f"{str(pid)!r}); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", SIGNALED.format(code=code, file=str(file))], cwd=ROOT)
    while not pid.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(int(pid.read_text()))
    found = json.loads(file.read_text())["parts"]
    assert [(p["part"], p["status"], p["why"]) for p in found] == [
        ("hangs", NOT_RUN, "the run was ended in it"),
        ("next", NOT_RUN, "the run was ended before it"),
    ]
