"""Which tests judge a mutant: those of the mutated file first, then those of its folder or of what it launches."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bnengine.ops.update import RULES

from .kernel_source import source_of, users
from .mutants import LAUNCHERS, Mutant

# The walk over contracts: each test is of an op, a dtype and a library, of which a stage takes some.
WALK = "contracts/test_walk.py"
NORMALIZATION = "moments or normal or batch_norm or merge or commit or statistics"
LOSSES = "cross_entropy or squared_error or correct or mean_over"
UPDATES = " or ".join((*RULES, "check_step", "count_step", "average", "add_epoch_sums"))
# The ops whose launchers launch the kernels of a file, the quick files first.
KERNELS = {
    "gather.cu": "gather",
    "update.cu": UPDATES,
    "dropout.cu": "dropout",
    "pointwise.cu": "activation or total or dtype",
    "dense.cu": "affine",
    "loss.cu": LOSSES,
    "batch_norm.cu": NORMALIZATION,
    "batch_norm_backward.cu": "normalize_backward",
}
LAUNCHES = ("fused/test_grids*.py", "fused/test_launches*.py")
REPLAYS = ("cuda_on_cpu/test_gather*.py", "fused/test_traffic*.py", "fused/test_step*.py")


# Native kernels and their launchers: the walk over a family's ops, and files of tests of their own, the quick ones
# first. The library that judges has one instruction set, which cannot be compared with another.
NATIVE = "kernels/cpu/"
NATIVE_LAUNCHERS = "bnengine/fused/cpu/"
ALL = "not avx_512"
FAMILIES = {
    "batch_norm": NORMALIZATION,
    "batch_norm_backward": "normalize_backward or statistics",
    "dense": "affine",
    "gemm": "affine",
    "dropout": "dropout",
    "gather": "gather",
    "gather_raw": "gather_raw",
    "fill": "cross_entropy",
    "loss": LOSSES,
    "pointwise": "activation or total or layout",
    "update": UPDATES,
}
NATIVE_OWN = {
    "gemm": ("cpu/test_gemm*.py",),
    "functions": ("cpu/test_functions*.py",),
    "rules": ("cpu/test_rules*.py",),
    "gather": ("cpu/test_gather_raw*.py",),
    "vector": ("cpu/test_gemm*.py", "cpu/test_functions*.py"),
    "fill": ("cpu/test_replay*.py",),
    "pool": ("cpu/test_replay*.py", "cpu/test_pool*.py"),
    "sleep": ("cpu/test_replay*.py", "cpu/test_pool*.py"),
    "replay": ("cpu/test_replay*.py",),
    "native": ("cpu/test_replay*.py",),
    "tables": ("cpu/test_load*.py",),
    "load": ("cpu/test_load*.py", "cpu/test_replay*.py"),
}
CUTS = "cpu/test_blocks*.py"
POOL = "tests/cpu/test_pool.py"
NATIVE_WIDE = (CUTS, *(f"cpu/test_{name}*.py" for name in ("arrays", "replay", "load")))
STEPS = ("runtime/test_replay*.py", "training/test_step.py", "training/test_skips*.py", "network/test_passes*.py")


class Stage(NamedTuple):
    """One part of a mutant's test: kernel files to compile, or test files to run.

    `only`: pytest's -k, which tests of the files. `plugin`: a plugin for pytest; `seconds`: what the tests take of the
    processor, where that is known.
    """

    name: str
    tests: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    only: str = ""
    plugin: object = None
    seconds: float = 0.0


def stages(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """What judges a mutant, stage by stage, quick ones first."""
    if mutant.path.startswith(NATIVE_LAUNCHERS) or any(path.startswith(NATIVE) for path in texts):
        return _of_native(mutant, root, texts)
    if not mutant.path.endswith(".py"):
        return _of_kernels(mutant, root, texts)
    if mutant.path.startswith(LAUNCHERS):
        own = f"fused/test_{Path(mutant.path).stem.lstrip('_').removesuffix('_api')}*.py"
        return _in_order(root, {"near": (own, *LAUNCHES), "wide": REPLAYS}, "simulated")
    _, *folders, file = Path(mutant.path).parts
    stem = Path(file).stem.strip("_")
    near = ("/".join((*folders, f"test_*{stem}*.py")),)
    wide = (f"{folders[0]}/**/test_*.py",) if folders else ("test_*.py",)
    walked = folders and folders[0] in ("contracts", "ops", "runtime")
    return _in_order(root, {"near": near, "wide": wide}, "numpy" if walked else "")


def _walk(library: str, ops: str = "") -> Stage:
    """The walk over these ops on a library."""
    return Stage("near", (f"tests/{WALK}",), only=f"{library} and ({ops})" if ops else library)


def _of_kernels(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """Each kernel file that what was changed gets into: compiled, then tested; then all that is launched."""
    found = []
    for file in _reached(mutant, texts, list(KERNELS)):
        found += [Stage("compiled", compiled=(file,)), _walk("simulated", KERNELS[file])]
    return found + _in_order(root, {"wide": (*LAUNCHES, *REPLAYS)})


def _reached(mutant: Mutant, texts: Mapping[str, str], kernels: list[str]) -> list[str]:
    """The kernel files that what was changed gets into."""
    kernel = Path(mutant.path).name
    if kernel in kernels:
        return [kernel]
    changed = {p: mutant.source(t) if p == mutant.path else t for p, t in texts.items() if not p.endswith(".py")}
    sources = {path: source_of(path, text) for path, text in changed.items()}
    reached = {Path(path).name for path in users(mutant.scope.partition(".")[0], sources)}
    return [file for file in kernels if file in reached] or kernels


def _of_native(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """The kernel files that what was changed gets into, compiled; the tests of their ops; their own; all others."""
    own, found = Path(mutant.path).stem.lstrip("_"), list[Stage]()
    names, first = [own], [CUTS]
    if not mutant.path.endswith(".py"):
        first = []
        kernels = [Path(path).name for path in texts if path.startswith(NATIVE) and path.endswith(".cpp")]
        files = _reached(mutant, texts, kernels)
        names += [Path(file).stem for file in files if Path(file).stem != own]
        found.append(Stage("compiled", compiled=tuple(files)))
    found += [_walk("native", FAMILIES[name]) for name in names if name in FAMILIES]
    tests = _found((*first, *(pattern for name in names for pattern in NATIVE_OWN.get(name, ()))), root)
    found += [Stage("near", (test,), only=ALL) for test in tests]
    rest = [test for test in _found(NATIVE_WIDE, root) if test not in tests]
    found += [_walk("native")._replace(name="wide"), Stage("wide", tuple(rest), only=ALL)]
    return [*found, Stage("steps", tuple(_found(STEPS, root)), only=ALL)]


def _in_order(root: Path, patterns: Mapping[str, tuple[str, ...]], library: str = "") -> list[Stage]:
    """Stages by name; a test file counts in the first that names it. Second is the walk over a library, if any."""
    found: list[Stage] = []
    for name, given in patterns.items():
        before = {test for stage in found for test in stage.tests}
        tests = tuple(test for test in _found(given, root) if test not in before)
        found += [Stage(name, tests)] if tests else []
    walk = [_walk(library)] if library else []
    return [*found[:1], *walk, *found[1:]]


def _found(patterns: tuple[str, ...], root: Path) -> list[str]:
    names = [p.relative_to(root).as_posix() for pattern in patterns for p in sorted((root / "tests").glob(pattern))]
    return list(dict.fromkeys(names))
