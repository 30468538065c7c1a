"""Build the sdist, the wheel from the sdist, and use the wheel outside the checkout: `make wheel-check`.

Needs only the standard library; everything is installed into environments of its own, in a temporary folder.
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORT_RATIO = 2.5  # `import bnengine` may take this many times `import numpy`.
PAIRS = 15


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed; a failing command ends the check with everything that it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BNENGINE_"))}
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


def check_wheel(path: Path) -> None:
    """The wheel holds bnengine with kernels/ inside it, and nothing beside it."""
    check(path.name.endswith("-py3-none-any.whl"), f"{path.name} is not a pure Python wheel")
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
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(names)} files, top level {sorted(tops)}")


def check_use(programs: Path, outside: Path) -> None:
    """The installed package imports, reports its backends, trains, evaluates and predicts, outside the checkout."""
    where = run(programs / "python", "-c", "import bnengine; print(bnengine.__file__)", cwd=outside).strip()
    check(Path(where).is_relative_to(programs.parent), f"bnengine was imported from {where}")
    find = "import importlib.util as u; print(u.find_spec('kernels'))"
    check(run(programs / "python", "-c", find, cwd=outside).strip() == "None", "there is a top-level package kernels")
    find = "from importlib.resources import files; print((files('bnengine') / 'kernels' / 'README.md').is_file())"
    check(run(programs / "python", "-c", find, cwd=outside).strip() == "True", "bnengine/kernels was not found")
    run(programs / "python", "-m", "pip", "check", cwd=outside)
    print(run(programs / "bnengine", "info", cwd=outside).rstrip())
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


def main() -> None:
    """All of the checks, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bnengine-wheel-") as name:
        folder = Path(name)
        builder = environment(folder / "builder", "build")
        run(builder / "python", "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        programs = environment(folder / "user", wheel)
        outside = folder / "outside"
        outside.mkdir()
        check_use(programs, outside)
        check_import_time(programs, outside)


if __name__ == "__main__":
    main()
