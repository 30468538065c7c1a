"""The native kernels on 64-bit ARM, where there is none: python -m tests.cpu.aarch64 [options of pytest].

A cross compiler builds the library, and the parity tests run on it under qemu-user, by an ARM Python with NumPy's wheel
for ARM. Then every launcher is compared bit for bit with this machine's. Compiler, qemu and Python are packages of
Debian, unpacked into build/aarch64: nothing is installed, and nobody need be root. Where they cannot be had it says so,
and fails only if BNENGINE_REQUIRE names aarch64.
"""

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from bnengine.fused.cpu import _load
from tests.cpu.driver import cmake
from tests.support import ROOT, required

HOME = ROOT / "build" / "aarch64"
TOOLS, SYSTEM, SITE, BUILD = HOME / "tools", HOME / "system", HOME / "site", HOME / "kernels"
PYTHON = SYSTEM / "usr" / "bin" / "python3-by-qemu"
COMPILER, QEMU = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
OF_TESTS = {"pytest", "hypothesis", "array-api-strict", "ml_dtypes", "safetensors"}
# Side by side, each about as long.
TESTS = (
    ("../contracts/test_walk.py",),
    ("test_arrays.py", "test_gemm.py", "test_replay.py", "test_replay_refusals.py"),
)


class Unavailable(Exception):
    """What is needed cannot be had here."""


def run(*command: str | Path, missing: bool = False, **variables: str) -> str:
    """What a command printed; one that fails ends the program, or says that something is `missing`."""
    environment = os.environ | variables
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-4000:]}".strip()
        if missing:
            raise Unavailable(f"{' '.join(map(str, command))}\n{said}")
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{said}")
    return done.stdout


def unpacked(folder: Path, architecture: str, *packages: str) -> None:
    """Debian packages of an architecture, and what they need, in a folder; apt's own state does not change."""
    if (folder / ".made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    state = folder / "apt"
    for part in ("lists/partial", "archives/partial"):
        (state / part).mkdir(parents=True)
    here = "/var/lib/dpkg/status"  # what this machine has need not be fetched
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Dir::State": state,
        "Dir::State::status": "/dev/null" if architecture == "arm64" else here,
        "Dir::Cache": state,
    }
    given = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
    run("apt-get", "-q", "-y", *given, "update", missing=True)
    run("apt-get", "-q", "-y", *given, "--download-only", "install", *packages, missing=True)
    for package in sorted((state / "archives").glob("*.deb")):
        run("dpkg", "-x", package, folder)
    shutil.rmtree(state)
    (folder / ".made").touch()


def tools() -> str:
    """The path on which the cross compiler and qemu-user are found; a machine's own are taken before Debian's."""
    wanted = {COMPILER: "g++-aarch64-linux-gnu", QEMU: "qemu-user-static"}
    if packages := [package for program, package in wanted.items() if not shutil.which(program)]:
        unpacked(TOOLS, "amd64", *packages)
    return f"{os.environ['PATH']}{os.pathsep}{TOOLS / 'usr' / 'bin'}"


def script(path: Path, text: str) -> None:
    """A program of the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def compiled(path: str) -> Path:
    """The library, made by a script with the name g++ that tests take, too."""
    program, compiler = shutil.which(COMPILER, path=path), HOME / "bin" / "g++"
    assert program is not None
    command = f'exec {program} "$@"'
    if Path(program).is_relative_to(TOOLS):
        libraries = TOOLS / "usr" / "lib" / "x86_64-linux-gnu"
        command = f'PATH="$PATH:{TOOLS}/usr/bin" LD_LIBRARY_PATH={libraries} exec {program} --sysroot={TOOLS} "$@"'
    script(compiler, command)
    define = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DBNENGINE_REASON=")
    run(cmake(), "-S", ROOT / "kernels", "-B", BUILD, f"-DCMAKE_CXX_COMPILER={compiler}", *define)
    run(cmake(), "--build", BUILD, "--parallel", "2")
    return BUILD / "_kernels.so"


def python(path: str) -> None:
    """An ARM Python that runs by its path alone, with what the tests import."""
    unpacked(SYSTEM, "arm64", "python3", "libstdc++6")
    script(PYTHON, f'exec {shutil.which(QEMU, path=path)} -0 "$0" -L {SYSTEM} {SYSTEM}/usr/bin/python3 "$@"')
    ask = "import platform, sys; print(*sys.version_info[:2], platform.libc_ver()[1].split('.')[1])"
    major, minor, glibc = run(PYTHON, "-c", ask).split()
    if (SITE / ".made").exists():
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tests = [p for p in project["optional-dependencies"]["test"] if p.partition(">")[0] in OF_TESTS]
    tags = [f"--platform=manylinux_2_{n}_aarch64" for n in range(17, int(glibc) + 1)]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--only-binary=:all:")
    version = (f"--python-version={major}.{minor}", "--implementation=cp", "--platform=manylinux2014_aarch64", *tags)
    run(*pip, *version, "--target", SITE, *project["dependencies"], *tests)
    (SITE / ".made").touch()


def tested(library: Path, path: str, options: list[str]) -> int:
    """Run the tests, and compare results; the exit status is 0 if all are right."""
    arm = os.environ | {
        "PYTHONPATH": str(SITE),
        "BNENGINE_CPU_LIBRARY": str(library),
        "BNENGINE_REQUIRE": "kernels,g++",
        "BNENGINE_WALK": "native",
        "BNENGINE_TESTS_RUN_BY": f"{shutil.which(QEMU, path=path)} -L {SYSTEM}",
        "PATH": f"{HOME / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    pytest = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not sanitizers", *options)
    folder = Path("tests") / "cpu"
    running = [subprocess.Popen([*pytest, *(folder / name for name in names)], env=arm) for names in TESTS]
    status = max([abs(process.wait()) for process in running])
    if reason := _load.available():
        print(f"aarch64: results are not compared with those of this machine: {reason}")
        return status
    written = HOME / "results.pickle"
    run(sys.executable, "-m", "tests.cpu.across", "write", written)
    compared = subprocess.run([PYTHON, "-m", "tests.cpu.across", "compare", written], env=arm, check=False)
    return max(status, compared.returncode)


def main(options: list[str]) -> int:
    """Build, test and compare; the exit status is 0 if all is right, or cannot be tried and need not be."""
    try:
        if platform.machine() != "x86_64" or sys.platform != "linux" or shutil.which("apt-get") is None:
            raise Unavailable(f"{platform.platform()} has no apt-get for amd64")
        path = tools()
    except Unavailable as error:
        print(f"aarch64: the kernels are neither compiled nor run: {error}")
        return int("aarch64" in required())
    library = compiled(path)
    print(f"aarch64: compiled: {library.relative_to(ROOT)}, {library.stat().st_size >> 10} KiB")
    try:
        python(path)
    except Unavailable as error:
        print(f"aarch64: the kernels are compiled only, and not run: {error}")
        return int("aarch64" in required())
    return tested(library, path, options)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
