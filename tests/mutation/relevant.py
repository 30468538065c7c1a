"""Which tests judge a mutant: those of the mutated file first, then all that rest on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .cuda_source import CudaSource, users
from .mutants import LAUNCHERS, Mutant

# What the file's own tests are called, where the name does not tell; a pattern may match nothing.
NEAR = {
    "bnengine/ops/_op.py": (
        "ops/test_*op*.py",
        "ops/test_dispatch*.py",
        "ops/test_records*.py",
        "ops/test_contracts.py",
    ),
    "bnengine/ops/batch_norm.py": ("ops/test_batch_norm*.py", "ops/test_contracts.py", "ops/test_derivatives.py"),
    "bnengine/ops/statistics.py": ("ops/test_batch_norm*.py", "ops/test_contracts.py", "ops/test_derivatives.py"),
    "bnengine/ops/dense.py": ("ops/test_dense*.py", "ops/test_contracts.py", "ops/test_derivatives.py"),
    "bnengine/ops/dropout.py": ("ops/test_dropout*.py", "ops/test_contracts.py", "ops/test_derivatives.py"),
    "bnengine/ops/loss.py": (
        "ops/test_loss*.py",
        "ops/test_hits.py",
        "ops/test_contracts.py",
        "ops/test_derivatives.py",
    ),
    "bnengine/ops/pointwise.py": ("ops/test_pointwise*.py", "ops/test_contracts.py", "ops/test_derivatives.py"),
    "bnengine/ops/special.py": ("ops/test_special*.py", "ops/test_contracts.py"),
    "bnengine/ops/update.py": (
        "ops/test_update*.py",
        "ops/test_judge.py",
        "ops/test_contracts.py",
        "test_optimizer*.py",
    ),
    "bnengine/layers/batch_norm.py": ("layers/test_batch_norm*.py",),
    "bnengine/optimizers.py": ("test_optimizer*.py", "training/test_step.py"),
    "bnengine/training/step.py": ("training/test_step*.py", "plan/test_replay*.py"),
}
WIDE = (
    "ops/test_*.py",
    "layers/test_*.py",
    "training/test_step*.py",
    "training/test_averag*.py",
    "training/test_skips*.py",
)
WIDE += ("training/test_rates*.py", "network/test_*.py", "test_loss*.py", "test_optimizer*.py", "test_flat*.py")
PEERS = ("peers/test_layers.py", "peers/test_losses.py", "peers/test_optimizers.py")


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


class Stage(NamedTuple):
    """One part of a judgement: kernel files to compile, or test files to run, perhaps under g++'s sanitizers."""

    name: str
    tests: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    sanitized: bool = False


def stages(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """What judges a mutant, stage by stage, quick ones first."""
    if not mutant.path.endswith(".py"):
        return _of_kernels(mutant, root, texts)
    if mutant.path.startswith(LAUNCHERS):
        own = f"fused/test_{Path(mutant.path).stem.lstrip('_').removesuffix('_api')}*.py"
        return _in_order(root, {"near": (own, *LAUNCHES), "wide": REPLAYS})
    own = (f"ops/test_{Path(mutant.path).stem}*.py", "ops/test_contracts.py")
    return _in_order(root, {"near": NEAR.get(mutant.path, own), "wide": WIDE, "peers": PEERS})


def _of_kernels(mutant: Mutant, root: Path, texts: Mapping[str, str]) -> list[Stage]:
    """Each kernel file that what was changed gets into: compiled, then tested; then all that is launched; sanitized."""
    kernel = Path(mutant.path).name
    changed = {p: mutant.source(t) if p == mutant.path else t for p, t in texts.items() if not p.endswith(".py")}
    sources = {path: CudaSource(path, text) for path, text in changed.items()}
    reached = {Path(path).name for path in users(mutant.scope.partition(".")[0], sources)}
    files = [kernel] if kernel in KERNELS else [file for file in KERNELS if file in reached] or list(KERNELS)
    found = []
    for pattern in dict.fromkeys(KERNELS[file] for file in files):
        compiled = tuple(file for file in files if KERNELS[file] == pattern)
        tests = tuple(_found((pattern,), root))
        found += [Stage("compiled", compiled=compiled), Stage("near", tests)]
    found += _in_order(root, {"wide": (*LAUNCHES, *REPLAYS)})
    return [*found, *(Stage("sanitized", stage.tests, sanitized=True) for stage in found if stage.name == "near")]


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
