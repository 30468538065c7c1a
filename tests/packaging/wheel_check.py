"""Build the sdist, the wheel from the sdist, and use the wheel outside the checkout: `make wheel-check`.

All of it as this machine builds it, and as machines would whose C++ compiler is missing, broken, or fails at the
kernels: these give a pure Python package that says why. Needs only the standard library; everything is installed into
new environments, in a temporary folder.
"""

import json
import os
import re
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from tests.packaging.wheel import ROOT, WHEELS, built, environment, pip, run

LARGEST = 3 << 20  # bytes of a wheel
GLIBC = (2, 17)  # the newest version that the library may need: that of manylinux2014
IMPORT_RATIO = 2.5  # `import bnengine` may take this many times `import numpy`.
PAIRS = 15

# Whole numbers: exact in any order.
COMPUTES = """
import numpy as np
from bnengine import ops
from bnengine.fused.cpu import _load
x, W, b = (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for shape in ((37, 19), (19, 21), (21,)))
with ops.using("fused"):
    y = ops.affine(x, W, b)
assert (y == x.astype(np.int64) @ W.astype(np.int64) + b.astype(np.int64)).all(), y
print(_load.path())
"""


def check(condition: bool, message: str) -> None:
    """End the check with `message` unless `condition` holds."""
    if not condition:
        sys.exit(f"wheel check: {message}")


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


def contents() -> dict[str, Path]:
    """What a wheel holds of the checkout: the package, and of the kernels what CuPy compiles where it runs."""
    files = tracked("bnengine", "kernels/rules.h", "kernels/cuda")
    return {name if name.startswith("bnengine/") else f"bnengine/{name}": ROOT / name for name in files}


def check_wheel(path: Path, *, native: bool) -> None:
    """The wheel holds what runs, and nothing else but the library or why there is none."""
    check("-py3-none-" in path.name, f"{path.name} is bound to a version of Python")
    check(path.name.endswith("-any.whl") != native, f"{path.name} has the wrong platform")
    check(path.stat().st_size < LARGEST, f"{path.name} has {path.stat().st_size} bytes")
    made, expected = f"bnengine/fused/cpu/{'_kernels.so' if native else '_unbuilt.txt'}", contents()
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}  # auditwheel has folders, too
        about = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
        check(any(name.endswith("/licenses/LICENSE") for name in about), "the wheel lacks the license")
        check(names - about == {*expected, made}, f"the wheel and the checkout: {(names - about) ^ {*expected, made}}")
        for name, file in expected.items():
            check(archive.read(name) == file.read_bytes(), f"{name} differs from the checkout's {file}")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, {len(names)} files")


def check_library(wheel: Path, folder: Path) -> None:
    """On Linux: the wheel is named for old systems, and its library needs nothing newer, nor carries symbols along."""
    if sys.platform != "linux":
        print(f"the wheel has no name for many systems: this is {sys.platform}")
        return
    named = re.search(r"manylinux_(\d+)_(\d+)_", wheel.name)
    check(named is not None and tuple(map(int, named.groups())) <= GLIBC, f"{wheel.name} is not for glibc 2.17")
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract("bnengine/fused/cpu/_kernels.so", folder)
    needed = re.findall(r"\*UND\*.*\((\w+?)_([\d.]+)\)", run("objdump", "-T", library, cwd=folder))
    check(bool(needed) and all(name == "GLIBC" for name, _ in needed), f"the library needs {sorted(set(needed))}")
    newest = max(tuple(map(int, version.split("."))) for _, version in needed)
    check(newest <= GLIBC, f"the library needs glibc {'.'.join(map(str, newest))}")
    check(not run("nm", library, cwd=folder), "the library is not stripped")
    print(f"the library needs glibc {'.'.join(map(str, newest))}, and nothing else")


def kernels_line(programs: Path, outside: Path, kernels: str) -> str:
    """What `bnengine info` says; its line about the kernels has to match."""
    text = run(programs / "bnengine", "info", cwd=outside)
    (line,) = re.findall(r"^kernels: .*$", text, re.MULTILINE)
    check(re.match(f"kernels: {kernels}", line) is not None, f"bnengine info has {line!r}, not {kernels!r}")
    return text.rstrip()


def check_use(programs: Path, outside: Path, *, kernels: str) -> None:
    """The installed package imports, reports its backends, trains, evaluates and predicts, outside the checkout."""
    where = run(programs / "python", "-c", "import bnengine; print(bnengine.__file__)", cwd=outside).strip()
    check(Path(where).is_relative_to(programs.parent), f"bnengine was imported from {where}")
    find = "import importlib.util as u; print(u.find_spec('kernels'))"
    check(run(programs / "python", "-c", find, cwd=outside).strip() == "None", "there is a top-level package kernels")
    find = "from bnengine.fused.cuda._load import folder; print(folder())"
    found = Path(run(programs / "python", "-c", find, cwd=outside).strip())
    check(found.is_relative_to(programs.parent), f"the CUDA kernels are those in {found}")
    run(programs / "python", "-m", "pip", "check", cwd=outside)
    print(kernels_line(programs, outside, kernels))
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


def compiler() -> str | None:
    """The C++ compiler that builds the kernels here."""
    named = os.environ.get("CXX", "").split()[:1]
    return next(filter(None, map(shutil.which, named or ("c++", "g++", "clang++"))), None)


def check_native(folder: Path, wheel: Path) -> None:
    """The wheel with the library of this machine."""
    check_wheel(wheel, native=True)
    check_library(wheel, folder)
    programs, outside = environment(folder / "user", wheel), folder / "outside"
    outside.mkdir()
    check_use(programs, outside, kernels="built, instruction set")
    library = Path(run(programs / "python", "-c", COMPUTES, cwd=outside).strip())
    check(library.is_relative_to(programs.parent), f"the kernels are those of {library}")
    check_import_time(programs, outside)


def compilers(folder: Path) -> dict[str, tuple[dict[str, str], str]]:
    """{what is wrong: (environment, the reason that is packaged)} where no library can be built."""

    def program(name: str, text: str) -> dict[str, str]:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return {"CXX": str(path)}

    error = "echo 'In file included from here:' >&2; echo 'x.cpp:1: error: planted' >&2; exit 1"
    (folder / "empty").mkdir()
    nothing = re.escape("no C++ compiler was found")
    # cmake looks in /usr/bin, too; a compiler that is there finds no assembler.
    cases = {
        "named but not there": ({"CXX": "/nowhere/c++"}, nothing),
        "not on the path": ({"CXX": "", "PATH": str(folder / "empty")}, f"{nothing}|.* did not compile them: .*error"),
        "broken": (program("broken", error), ".*broken did not compile them: x.cpp:1: error: planted"),
    }
    if compiler():
        old = f'case "$*" in *BNENGINE_ISA*) {error} ;; esac\nexec {compiler()} "$@"'  # makes programs, no kernels
        cases["too old"] = program("old", old), ".*old did not compile them: x.cpp:1: error: planted"
    return cases


def check_pure(folder: Path, sdist: Path) -> None:
    """What the sdist gives where no library can be built: the same package, on the references."""
    programs, outside, wheels = folder / "pure" / "bin", folder / "pure-outside", folder / "wheels"
    outside.mkdir()
    for what, (variables, reason) in compilers(folder).items():
        print(f"a compiler that is {what}:")
        pip(folder / "builder" / "bin", "wheel", "--no-deps", "-w", wheels / what, sdist, **variables)
        (wheel,) = (wheels / what).glob("*.whl")
        check_wheel(wheel, native=False)
        expected = f"references: no native kernels were built: ({reason})"
        if programs.exists():
            pip(programs, "install", "--force-reinstall", "--no-deps", wheel)
            line = kernels_line(programs, outside, expected)
            print(line[line.index("kernels:") :].partition("\n")[0])
        else:
            environment(programs.parent, wheel)
            check_use(programs, outside, kernels=expected)


def main() -> None:
    """All of the checks, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bnengine-wheel-") as name:
        folder = Path(name)
        shutil.rmtree(WHEELS, ignore_errors=True)
        sdist, wheel = built(folder, WHEELS)
        check_sdist(sdist)
        if compiler():
            check_native(folder, wheel)
        else:
            print("there is no C++ compiler: the wheel with native kernels is not tried")
        check_pure(folder, sdist)


if __name__ == "__main__":
    main()
