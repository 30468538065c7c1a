"""Build the sdist, the wheel from the sdist, and use the wheel outside the checkout: `make wheel-check`.

All of it twice: as this machine builds it, and as one without a C++ compiler would, which gives a pure Python package.
Needs only the standard library; everything is installed into environments of its own, in a temporary folder.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 3 << 20  # bytes of a wheel
IMPORT_RATIO = 2.5  # `import bnengine` may take this many times `import numpy`.
PAIRS = 15


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What the command printed; a failing command ends the check with everything that it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BNENGINE_"))} | variables
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check(condition: bool, message: str) -> None:
    """End the check with `message` unless `condition` holds."""
    if not condition:
        sys.exit(f"wheel check: {message}")


def environment(folder: Path, *packages: str | Path) -> Path:
    """A new virtual environment with `packages`: the folder of its programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "-q", "--disable-pip-version-check", "install", *packages, cwd=folder.parent)
    return programs


def tracked(*folders: str) -> list[str]:
    """The files of the checkout under `folders`, as git knows them."""
    return run("git", "ls-files", "--", *folders, cwd=ROOT).split("\n")[:-1]


def check_sdist(path: Path) -> None:
    """The sdist holds the package, the kernels and what builds them, under one folder."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {*tracked("bnengine", "kernels"), "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    check(needed <= names, f"the sdist lacks {sorted(needed - names)}")
    strangers = {name.partition("/")[0] for name in names} & {".venv", "runs", "build", "dist", ".git"}
    check(not strangers, f"the sdist carries {sorted(strangers)}")


def check_wheel(path: Path, *, native: bool) -> None:
    """The wheel holds bnengine with kernels/ inside it, and nothing beside it but the library or why there is none."""
    check("-py3-none-" in path.name, f"{path.name} is bound to a version of Python")
    check(path.name.endswith("-any.whl") != native, f"{path.name} has the wrong platform")
    check(path.stat().st_size < LARGEST, f"{path.name} has {path.stat().st_size} bytes")
    made = "bnengine/fused/cpu/_kernels.so" if native else "bnengine/fused/cpu/_unbuilt.txt"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        tops = {name.partition("/")[0] for name in names}
        check(len(tops) == 2 and "bnengine" in tops, f"the wheel's top level is {sorted(tops)}")
        check(
            all(t == "bnengine" or t.endswith(".dist-info") for t in tops), f"the wheel's top level is {sorted(tops)}"
        )
        for name in tracked("bnengine", "kernels"):
            inside = name if name.startswith("bnengine/") else f"bnengine/{name}"
            check(inside in names, f"the wheel lacks {inside}")
            check(archive.read(inside) == (ROOT / name).read_bytes(), f"{inside} differs from the checkout's {name}")
        check(any(name.endswith("/licenses/LICENSE") for name in names), "the wheel lacks the licence")
        others = {name for name in names if name.startswith("bnengine/")} - {
            name if name.startswith("bnengine/") else f"bnengine/{name}" for name in tracked("bnengine", "kernels")
        }
        check(others == {made}, f"beside the checkout's files the wheel holds {sorted(others)}")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(names)} files, top level {sorted(tops)}")


def check_use(programs: Path, outside: Path, *, kernels: str) -> None:
    """The installed package imports, reports its backends, trains, evaluates and predicts, outside the checkout."""
    where = run(programs / "python", "-c", "import bnengine; print(bnengine.__file__)", cwd=outside).strip()
    check(Path(where).is_relative_to(programs.parent), f"bnengine was imported from {where}")
    find = "import importlib.util as u; print(u.find_spec('kernels'))"
    check(run(programs / "python", "-c", find, cwd=outside).strip() == "None", "there is a top-level package kernels")
    find = "from importlib.resources import files; print((files('bnengine') / 'kernels' / 'README.md').is_file())"
    check(run(programs / "python", "-c", find, cwd=outside).strip() == "True", "bnengine/kernels was not found")
    run(programs / "python", "-m", "pip", "check", cwd=outside)
    told = run(programs / "bnengine", "info", cwd=outside)
    print(told.rstrip())
    check(f"kernels: {kernels}" in told, f"bnengine info does not say 'kernels: {kernels}'")
    train = (programs / "bnengine", "train", "digits", "--epochs", "2", "--no-plot", "--json", "--out", "run")
    result = json.loads(run(*train, cwd=outside))
    check(result["valid_accuracy"] > 0.8, f"two epochs on digits gave {result}")
    run(programs / "bnengine", "evaluate", "run", "digits", cwd=outside)
    run(programs / "bnengine", "predict", "run", "digits", "-o", "out.csv", cwd=outside)
    check((outside / "out.csv").stat().st_size > 0, "predict wrote an empty out.csv")
    print(f"two epochs on digits: validation accuracy {result['valid_accuracy']:.4f}")


def check_import_time(programs: Path, outside: Path) -> None:
    """`import bnengine` against `import numpy`, in pairs of fresh processes; the start of Python is taken off both."""

    def seconds(statement: str) -> float:
        started = time.perf_counter()
        run(programs / "python", "-c", statement, cwd=outside)
        return time.perf_counter() - started

    seconds("import bnengine")  # The first import writes the byte code.
    ratios = []
    for _ in range(PAIRS):
        start, numpy, own = seconds("pass"), seconds("import numpy"), seconds("import bnengine")
        ratios.append((own - start) / (numpy - start))
    ratio = statistics.median(ratios)
    print(f"import bnengine: {ratio:.2f} times import numpy (median of {PAIRS}; at most {IMPORT_RATIO})")
    check(ratio <= IMPORT_RATIO, f"import bnengine takes {ratio:.2f} times import numpy")


def check_both(folder: Path, sdist: Path, wheel: Path) -> None:
    """The wheel of this machine, and the one that the sdist gives where there is no compiler."""
    native = shutil.which(os.environ.get("CXX", "g++")) is not None
    if not native:
        print("there is no C++ compiler: the wheel with native kernels is not tried")
    check_wheel(wheel, native=native)
    reason = "references: no native kernels were built: no C++ compiler was found"
    programs, outside = environment(folder / "user", wheel), folder / "outside"
    outside.mkdir()
    check_use(programs, outside, kernels="built, instruction set" if native else reason)
    check_import_time(programs, outside)
    if native:
        install = (programs / "python", "-m", "pip", "-q", "--disable-pip-version-check", "wheel", "--no-deps")
        run(*install, "-w", folder / "pure", sdist, cwd=folder, CXX="/nowhere/c++")
        (pure,) = (folder / "pure").glob("*.whl")
        check_wheel(pure, native=False)
        run(*install[:-2], "install", "--force-reinstall", "--no-deps", pure, cwd=folder)
        check_use(programs, folder / "pure", kernels=reason)


def main() -> None:
    """All of the checks, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bnengine-wheel-") as name:
        folder = Path(name)
        builder = environment(folder / "builder", "build")
        run(builder / "python", "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
        check_sdist(sdist)
        check_both(folder, sdist, wheel)


if __name__ == "__main__":
    main()
