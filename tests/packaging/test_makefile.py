"""What `make demo` finds out about the machine before it installs anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nightly.__main__ import PARTS
from tests.support import ROOT, missing


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts an nvidia-smi on the path that prints `text` and exits with `status`."""
    if shutil.which("make") is None:
        missing("make", "make is not installed")
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GPU", "PYTHON", "VENV", "ARGS"):
        monkeypatch.delenv(name, raising=False)  # settings of an outer make are not for this one

    def put(text: str, status: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def make(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["make", "--silent", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


HEADER = "| NVIDIA-SMI 580.65    Driver Version: 580.65    CUDA Version: {} |\n| GPU  Name  Version: 99 |"


@pytest.mark.parametrize(
    ("version", "extra"), [("13.0", "cuda13"), ("14.2", "cuda13"), ("12.8", "cuda12"), ("11.8", ""), ("N/A", "")]
)
def test_the_extra_follows_the_drivers_cuda_version(driver, version, extra):
    driver(HEADER.format(version))
    assert make("cuda-extra") == extra


def test_a_driver_that_fails_gives_no_extra(driver):
    driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", status=9)
    assert make("cuda-extra") == ""


@pytest.fixture
def checkout(tmp_path, driver):  # noqa: ARG001 -- make must be there
    """A folder with the Makefile and an environment that counts as installed; its programs only say their names."""
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    library = folder / "bnengine" / "fused" / "cpu" / "_kernels.so"
    library.parent.mkdir(parents=True)
    library.touch()
    for name in ("python", "bnengine"):
        program = folder / ".venv" / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*"\n')
        program.chmod(0o755)
    for stamp in (".made", ".demo"):
        (folder / ".venv" / stamp).touch()
    return folder


def test_the_demo_says_the_size_of_cupy_and_installs_it_once(driver, checkout):
    driver(HEADER.format("13.0"))
    first, second = make("demo", cwd=checkout).splitlines(), make("demo", cwd=checkout).splitlines()
    assert "1.9 GB" in first[0]
    assert first[1].startswith("python -m pip")
    assert first[1].endswith("install --editable .[plot,cuda13]")
    assert first[-1] == "bnengine train digits --seed 0 --out runs/digits-1"
    assert not [line for line in second if "pip" in line]


def test_the_demo_leaves_cupy_out_on_request(driver, checkout):
    driver(HEADER.format("13.0"))
    lines = make("demo", "GPU=0", cwd=checkout).splitlines()
    assert lines[0] == "GPU=0: CuPy is left out"
    assert not [line for line in lines if "pip" in line]


def test_every_demo_has_a_folder_of_its_own(checkout):
    for n in (1, 2):
        assert make("demo", "GPU=0", cwd=checkout).endswith(f"--out runs/digits-{n}")
        (checkout / "runs" / f"digits-{n}").mkdir(parents=True)


def targets_of_ci() -> set[str]:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    return {line.split()[3] for line in lines if line.split()[:1] == ["step"]}


@pytest.mark.parametrize(("target", "rest"), [("test", "test-slow"), ("peers", "peers-slow")])
def test_slow_tests_run_nightly_and_the_others_in_ci(checkout, target, rest):
    for stamp in (".test", ".peers"):
        (checkout / ".venv" / stamp).touch()
    quick, slow = (make(name, cwd=checkout) for name in (target, rest))
    assert quick.startswith("python -m pytest ")
    assert quick.replace(" and not slow", " and slow") == slow != quick
    assert target in targets_of_ci()
    assert rest in {words[-1] for words in PARTS.values()}


def test_every_target_of_ci_and_of_the_nightly_parts_exists():
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets_of_ci() | {word for words in PARTS.values() for word in words if "=" not in word} <= set(rules)


def test_a_python_that_is_too_old_is_an_error_that_says_so(tmp_path, checkout):
    (checkout / ".venv" / ".made").unlink()
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "demo", f"PYTHON={old}"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode != 0
    assert "needs Python 3.11 or later" in done.stdout
    assert "Python 3.9.1" in done.stdout


def test_without_a_compiler_a_line_says_that_references_run(checkout):
    (checkout / "bnengine" / "fused" / "cpu" / "_kernels.so").unlink()
    line = "there is no C++ compiler no-such-compiler: the native kernels are not built, and the references run"
    assert make("kernels", "CXX=no-such-compiler", cwd=checkout) == line
    reason = (checkout / "bnengine" / "fused" / "cpu" / "_unbuilt.txt").read_text()
    assert reason.startswith("no C++ compiler was found by the name no-such-compiler")
    lines = make("demo", "GPU=0", "CXX=no-such-compiler", cwd=checkout).splitlines()
    assert lines[1:3] == [line, "bnengine train digits --seed 0 --out runs/digits-1"]


def test_kernels_are_built_again_when_a_source_has_changed(driver, checkout, tmp_path):
    driver("no driver", status=9)
    library = checkout / "bnengine" / "fused" / "cpu" / "_kernels.so"
    cmake = tmp_path / "cmake"  # where nvidia-smi is: on the path before any other
    cmake.write_text(f'#!/bin/sh\necho "$1" >>calls\n[ "$1" != --install ] || echo built >{library}\n')
    cmake.chmod(0o755)
    sources = [checkout / "kernels" / name for name in ("CMakeLists.txt", "rules.h", "first_error.sh", "cpu/one.cpp")]
    (checkout / "kernels" / "cpu").mkdir(parents=True)
    for source in sources:
        source.touch()
    library.unlink()

    def built(target: str) -> int:
        (checkout / "calls").write_text("")
        make(target, "GPU=0", "CXX=true", cwd=checkout)
        return (checkout / "calls").read_text().count("--install")

    (checkout / ".venv" / ".test").touch()
    assert [built(target) for target in ("demo", "kernels", "test", "demo", "test")] == [1, 0, 0, 0, 0]
    for source in sources:
        later = library.stat().st_mtime + 5
        os.utime(source, (later, later))
        assert built("test") == 1
        os.utime(source, (later - 60, later - 60))
        assert [built("test"), built("demo")] == [0, 0]


def test_kernels_that_do_not_compile_are_an_error_that_shows_why(checkout):
    (checkout / "bnengine" / "fused" / "cpu" / "_kernels.so").unlink()
    (checkout / "kernels").mkdir()
    (checkout / "kernels" / "CMakeLists.txt").write_text('message(FATAL_ERROR "planted")\n')
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        missing("g++", "g++ or cmake is not installed")
    done = subprocess.run(["make", "kernels"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode != 0
    assert "planted" in done.stdout
    assert "the native kernels could not be built: build/kernels.log" in done.stdout
