"""The native library of a copy, for one instruction set: what a mutant reaches is compiled, the rest is as it was."""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cpu.build import FLAGS, NEEDS, SETS

LIBRARY = Path("bnengine", "fused", "cpu", "_kernels.so")  # where the package looks for it, in whichever process
FOLDER = Path("kernels", "cpu")
# Little optimized, which is compiled three times as fast: the bits are the same.
OPTIONS = (*(flag for flag in FLAGS if not flag.startswith(("-O", "-I"))), "-O1", "-w", "-fPIC")
STILLBORN = 71  # the compiler refuses it
SAME = 72  # it makes the same code of it


class Refused(Exception):
    """What g++ says of a source that it does not compile."""


def runs() -> list[str]:
    """The instruction sets of this processor that kernels are compiled for here, the narrower first."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    has = set(next((line for line in lines if line.startswith("flags")), "").split())
    return [isa for isa in sorted(NEEDS) if NEEDS[isa] <= has]


class Native:
    """The objects of the unchanged sources in `base`, kept in `home`, and libraries of a copy that link to them."""

    def __init__(self, base: Path, home: Path) -> None:
        self.base, self.home, self.sets = base, home, runs()
        listed = (base / "kernels" / "CMakeLists.txt").read_text(encoding="utf-8")
        found = re.search(r"set\(KERNELS ([\w\s]+)\)", listed)
        assert found, "kernels/CMakeLists.txt has no list of KERNELS"
        self.kernels = [f"{name}.cpp" for name in found[1].split()]
        self.files = sorted(path.name for path in (base / FOLDER).glob("*.cpp"))
        for isa in self.sets:
            (home / isa).mkdir(parents=True)
            tables = [f"SET({isa})", *(f"TABLE({isa}, {file.removesuffix('.cpp')})" for file in self.kernels)]
            (home / isa / "tables.inc").write_text("\n".join(tables) + "\n", encoding="utf-8")

    def build(self, jobs: int) -> None:
        """The library of the unchanged sources, in its place in `base`."""
        with ThreadPoolExecutor(jobs) as pool:
            objects = list(pool.map(lambda file: self._unchanged(self.sets[0], file), self.files))
        _link(objects, self.base / LIBRARY)

    def restore(self, folder: Path) -> None:
        """The library of the unchanged sources, in a copy."""
        (folder / LIBRARY).unlink(missing_ok=True)
        os.link(self.base / LIBRARY, folder / LIBRARY)

    def compile(self, folder: Path, files: Sequence[str]) -> int:
        """The library of a copy in which files are changed, for the first instruction set in which they differ."""
        try:
            for isa in self.sets:
                changed = {file: self._object(folder, isa, file, folder / "build") for file in files}
                if any(path.read_bytes() != self._unchanged(isa, file).read_bytes() for file, path in changed.items()):
                    others = [self._unchanged(isa, file) for file in self.files if file not in changed]
                    _link([*others, *changed.values()], folder / LIBRARY)
                    print(f"compiled for {isa}")
                    return 0
        except Refused as refused:
            print(refused)
            return STILLBORN
        return SAME

    def _unchanged(self, isa: str, file: str) -> Path:
        out = self.home / isa / f"{file}.o"
        return out if out.exists() else self._object(self.base, isa, file, self.home / isa)

    def _object(self, folder: Path, isa: str, file: str, to: Path) -> Path:
        to.mkdir(exist_ok=True)
        out, partial = to / f"{file}.o", to / f"{file}.{os.getpid()}.o"
        name = file.removesuffix(".cpp")
        of_set = (*SETS[isa], f"-DBNENGINE_ISA={isa}", f"-Dbnengine=bnengine_{isa}", f"-Dentries={name}_entries")
        around = f"-I{self.home / isa}", "-pthread", "-include", str(FOLDER / "glibc.h")
        options = of_set if file in self.kernels else around
        _run("-c", *OPTIONS, *options, str(FOLDER / file), "-o", str(partial), folder=folder)
        partial.replace(out)  # at once: another process may be looking for it
        return out


def _link(objects: Iterable[Path], library: Path) -> None:
    partial = library.with_suffix(".partial")
    _run("-shared", *map(str, objects), "-pthread", "-Wl,--as-needed", "-Wl,-z,nodelete", "-o", str(partial))
    partial.replace(library)


def _run(*arguments: str, folder: Path | None = None) -> None:
    done = subprocess.run(["g++", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr[-4000:])
