"""Which tests judge a mutant: those of the mutated file first, then those of its folder or of what it launches."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bnengine.ops.update import RULES

from .kernel_source import KernelSource, users
from .mutants import LAUNCHERS, Mutant

# What runs the kernels of a file on the simulated device, the quick files first. Launchers: what launches them.
KERNELS = {
    "gather.cu": "cuda_on_cpu/test_gather*.py",
    "update.cu": "cuda_on_cpu/test_update*.py",
    "dropout.cu": "cuda_on_cpu/test_pointwise*.py",
    "pointwise.cu": "cuda_on_cpu/test_pointwise*.py",
    "dense.cu": "cuda_on_cpu/test_pointwise*.py",
    "loss.cu": "cuda_on_cpu/test_loss*.py",
    "batch_norm.cu": "cuda_on_cpu/test_batch_norm*.py",
    "batch_norm_backward.cu": "cuda_on_cpu/test_batch_norm*.py",
}
LAUNCHES = ("fused/test_signatures*.py", "fused/test_grids*.py", "fused/test_launchers*.py")
REPLAYS = ("fused/test_layouts*.py", "fused/test_traffic*.py", "fused/test_narrow*.py", "fused/test_step*.py")


# Native kernels and their launchers: the tests of all launchers that are of a family's ops, and files of tests of their
# own, the quick ones first. The library that judges has one instruction set, which cannot be compared with another.
NATIVE = "kernels/cpu/"
NATIVE_LAUNCHERS = "bnengine/fused/cpu/"
ALL = "not avx_512"
NORMALISATION = "moments or normal or batch_norm or merge or commit or statistics or not_a_number"
FAMILIES = {
    "batch_norm": NORMALISATION,
    "batch_norm_backward": "normalize_backward or statistics",
    "dense": "affine or product",
    "gemm": "affine or product",
    "dropout": "dropout",
    "gather": "gather or data_set",
    "gather_raw": "gather_raw or data_set",
    "fill": "scratch_holds or cross_entropy",
    "loss": "cross_entropy or squared_error or correct",
    "pointwise": "activation or total or copied or copies or layouts",
    "update": " or ".join((*RULES, "check_step", "count_step", "average", "add_epoch_sums")),
}
NATIVE_LAUNCHES = ("cpu/test_destinations*.py", "cpu/test_launchers*.py")
NATIVE_OWN = {
    "update": ("cpu/test_update*.py",),
    "loss": ("cpu/test_loss*.py",),
    "gemm": ("cpu/test_gemm*.py",),
    "functions": ("cpu/test_functions*.py",),
    "rules": ("cpu/test_rules*.py",),
    "batch_norm": ("cpu/test_columns*.py",),
    "batch_norm_backward": ("cpu/test_columns*.py",),
    "gather": ("cpu/test_gather_raw*.py",),
    "profile": ("cpu/test_profile*.py",),
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
NATIVE_WIDE = (CUTS, *NATIVE_LAUNCHES, *(f"cpu/test_{name}*.py" for name in ("update", "loss", "replay", "load")))
STEPS = ("runtime/test_replay*.py", "training/test_step.py", "training/test_skips*.py", "network/test_passes*.py")


class Stage(NamedTuple):
    """One part of a judgement: kernel files to compile, or test files to run.

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
        return _in_order(root, {"near": (own, *LAUNCHES), "wide": REPLAYS})
    _, *folders, file = Path(mutant.path).parts
    stem = Path(file).stem.strip("_")
    near = ("/".join((*folders, f"test_*{stem}*.py")),)
    wide = (f"{folders[0]}/**/test_*.py", "contracts/**/test_*.py") if folders else ("test_*.py",)
    return _in_order(root, {"near": near, "wide": wide})


def _of_kernels(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """Each kernel file that what was changed gets into: compiled, then tested; then all that is launched."""
    files = _reached(mutant, texts, list(KERNELS))
    found = []
    for pattern in dict.fromkeys(KERNELS[file] for file in files):
        compiled = tuple(file for file in files if KERNELS[file] == pattern)
        tests = tuple(_found((pattern,), root))
        found += [Stage("compiled", compiled=compiled), Stage("near", tests)]
    return found + _in_order(root, {"wide": (*LAUNCHES, *REPLAYS)})


def _reached(mutant: Mutant, texts: Mapping[str, str], kernels: list[str]) -> list[str]:
    """The kernel files that what was changed gets into."""
    kernel = Path(mutant.path).name
    if kernel in kernels:
        return [kernel]
    changed = {p: mutant.source(t) if p == mutant.path else t for p, t in texts.items() if not p.endswith(".py")}
    sources = {path: KernelSource(path, text) for path, text in changed.items()}
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
    launches = tuple(_found(NATIVE_LAUNCHES, root))
    found += [Stage("near", launches, only=f"({FAMILIES[name]}) and {ALL}") for name in names if name in FAMILIES]
    tests = _found((*first, *(pattern for name in names for pattern in NATIVE_OWN.get(name, ()))), root)
    found += [Stage("near", (test,), only=ALL) for test in tests]
    rest = [test for test in _found(NATIVE_WIDE, root) if test not in tests]
    found += [Stage("wide", tuple(rest), only=ALL), Stage("steps", tuple(_found(STEPS, root)), only=ALL)]
    return found


def _in_order(root: Path, patterns: Mapping[str, tuple[str, ...]]) -> list[Stage]:
    """Stages by name; a test file counts in the first that names it."""
    found: list[Stage] = []
    for name, given in patterns.items():
        before = {test for stage in found for test in stage.tests}
        tests = tuple(test for test in _found(given, root) if test not in before)
        found += [Stage(name, tests)] if tests else []
    return found


def _found(patterns: tuple[str, ...], root: Path) -> list[str]:
    names = [p.relative_to(root).as_posix() for pattern in patterns for p in sorted((root / "tests").glob(pattern))]
    return list(dict.fromkeys(names))
