"""`make gpu` from its first line to its last on the simulated device; and on a machine that lacks what it needs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cuda_on_cpu.launch import need_compiler
from tests.gpu import environment, parts
from tests.gpu.runner import FAILED, NOT_RUN, PASSED, REFUSED
from tests.support import ROOT


def gpu(*arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """`python -m tests.gpu` with its variables, without those of a make or pytest around it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "BNENGINE_", "MAKE"))}
    command = [sys.executable, "-m", "tests.gpu", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**inherited, **variables}, capture_output=True, text=True)
    return done, inherited


def read(folder: Path, what: str) -> dict[str, Any]:
    (path,) = folder.glob(f"*-{what}.json")
    assert re.fullmatch(rf"[a-z0-9-]+-\d{{4}}-\d\d-\d\d-{what}\.json", path.name)
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_part_runs_on_the_simulated_device(tmp_path):
    need_compiler()
    done, _ = gpu("all", "--dry-run", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    verify, bench = read(tmp_path, "verify"), read(tmp_path, "bench")
    assert [part["part"] for part in verify["parts"]] == [
        "environment",
        *(p.name for p in parts.verify(True, tmp_path)),
    ]
    assert {part["status"] for part in verify["parts"] if part["part"] not in parts.SANITIZERS} == {PASSED}
    assert {part["status"] for part in verify["parts"] if part["part"] in parts.SANITIZERS} == {REFUSED}
    assert [part["status"] for part in bench["parts"]] == [PASSED, PASSED]
    for found in (verify, bench):
        assert found["simulated"]
        assert found["device"] == "simulated device"
        assert found["commit"] == environment.commit()
        assert found["failed"] == []
        assert found["environment"]["versions"]["numpy"]
    assert sorted(p.name.rsplit("-", 1)[1] for p in tmp_path.iterdir()) == ["bench.json", "verify.json"]
    by_name = {part["part"]: part for part in verify["parts"]}
    assert all(by_name[name]["result"]["counts"]["passed"] for name in parts.GROUPS)
    assert by_name["verify"]["result"]["agreed"]
    assert bench["parts"][1]["result"]["rows"]
    assert "gpu-verify: " in done.stdout
    assert "refused: memcheck, racecheck, synccheck, initcheck: " in done.stdout


def test_without_cupy_nothing_runs_and_the_cure_is_given(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libnothing.so: cannot open shared object file')\n")
    done, _ = gpu("verify", "--out", str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    first, *others = read(tmp_path, "verify")["parts"]
    assert first["status"] == FAILED
    assert first["why"] == (
        "cupy cannot be used here: ImportError: libnothing.so: cannot open shared object file; "
        "GPU_PYTHON=a Python that has CuPy 14.2 or later and its CUDA libraries"
    )
    assert {part["status"] for part in others} == {NOT_RUN}
    assert first["why"][:100] in done.stdout


def test_a_missing_package_is_reported_with_its_cure(tmp_path):
    for name in ("tomli_w", "array_api_compat"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')\n")
    done, _ = gpu("verify", "--out", str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    cure = "GPU_PYTHONPATH=folder, filled by: python3 -m pip install --target folder array-api-compat tomli-w"
    first, *others = read(tmp_path, "verify")["parts"]
    assert f"array_api_compat, tomli_w cannot be imported here; {cure}" in first["why"]
    assert {part["status"] for part in others} == {NOT_RUN}


def test_every_test_is_in_one_part(tmp_path):
    planned = {p.name: p.command for p in parts.verify(False, tmp_path) if p.name in parts.GROUPS}
    *named, others = (where for where, _, _ in parts.GROUPS.values())
    named = [path for where in named for path in where]
    assert all((ROOT / path).exists() for path in named)
    assert others == ("tests",)
    assert [w for w in planned["tests: others"] if w.startswith("--ignore=")] == [f"--ignore={path}" for path in named]
    for name, command in planned.items():
        assert command[-len(parts.GROUPS[name][0]) :] == parts.GROUPS[name][0]
        assert command[command.index("-m", 2) + 1] == "gpu"
        assert "-k" not in command
