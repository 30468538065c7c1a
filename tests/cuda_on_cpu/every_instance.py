"""Every kernel instance compiled for every architecture: `python -m tests.cuda_on_cpu.every_instance [FILE ...]`.

Writes compiled.json next to this file: of each kernel on each architecture how many instances there are, the most
registers that one takes and the bytes that are spilled; and of which sources each file's figures are. All files take
eight minutes of one processor at rest and no GPU, a file such as update.cu a minute; `make cuda-proof` does a part of
it. Exit status 1 if an instance spills or goes beyond its ceiling.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.cuda_on_cpu.instances import INSTANCES
from tests.cuda_on_cpu.nvrtc import Compiled, binding, compile_kernels
from tests.cuda_on_cpu.source import kernel_source
from tests.cuda_on_cpu.test_compiles import ARCHITECTURES, complaint, kernel_of

RESULTS = Path(__file__).with_name("compiled.json")
Kernels = dict[str, Compiled]


def sources(file: str) -> str:
    """What identifies the sources of a file's figures: all that the compiler is given, and for which instances."""
    given = f"{file}\n{kernel_source(file)}\n{sorted(INSTANCES[file])}"
    return hashlib.sha256(given.encode()).hexdigest()


def summed_up(found: Kernels) -> dict[str, dict[str, int]]:
    """By kernel: instances, the most registers of one, bytes spilled by all."""
    figures: dict[str, dict[str, int]] = {}
    for name, compiled in found.items():
        entry = figures.setdefault(kernel_of(name), {"instances": 0, "registers": 0, "spilled": 0})
        entry["instances"] += 1
        entry["registers"] = max(entry["registers"], compiled.registers)
        entry["spilled"] += compiled.spilled
    return dict(sorted(figures.items()))


def result(before: dict[str, Any], files: Iterable[str], compiled: dict[int, Kernels]) -> dict[str, Any]:
    """The record with the figures of these files anew, as JSON values."""
    version = ".".join(map(str, binding().nvrtcVersion()[1:]))
    made = {file: {"sha256": sources(file), "nvrtc": version} for file in files}
    known = {kernel_of(name) for names in INSTANCES.values() for name in names}
    kernels = {}
    for a in sorted(compiled):
        old = {kernel: entry for kernel, entry in before["kernels"].get(f"sm_{a}", {}).items() if kernel in known}
        kernels[f"sm_{a}"] = dict(sorted((old | summed_up(compiled[a])).items()))
    return {"sources": dict(sorted((before["sources"] | made).items())), "kernels": kernels}


def complaints(compiled: dict[int, Kernels]) -> Iterable[str]:
    """What is beyond what it may be."""
    for architecture, found in sorted(compiled.items()):
        for name, one in found.items():
            if wrong := complaint(name, one):
                yield f"sm_{architecture}, {name}: {wrong}"


def compiled_one(file: str, architecture: int) -> Kernels:
    return compile_kernels(file, INSTANCES[file], architecture).kernels


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cuda_on_cpu.every_instance", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes that compile  [2]")
    parser.add_argument("files", nargs="*", choices=[*INSTANCES, []], metavar="FILE", help="such as update.cu  [all]")
    options = parser.parse_args()
    files = options.files or list(INSTANCES)
    compiled: dict[int, Kernels] = {a: {} for a in ARCHITECTURES}
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(compiled_one, file, a): (file, a) for a in ARCHITECTURES for file in files}
        for done in as_completed(waiting):
            file, architecture = waiting[done]
            compiled[architecture] |= done.result()
            print(f"sm_{architecture}, {file}: {len(INSTANCES[file])} instances", flush=True)
    before = json.loads(RESULTS.read_text(encoding="utf-8"))
    RESULTS.write_text(json.dumps(result(before, files, compiled), indent=1) + "\n", encoding="utf-8")
    wrong = list(complaints(compiled))
    print(*wrong, f"{len(wrong)} complaints; {RESULTS.name} is written", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
