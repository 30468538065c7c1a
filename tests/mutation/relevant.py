"""Which tests judge a mutant: those of the mutated file first, then all that rest on it."""

from pathlib import Path

# What the file's own tests are called; a pattern may match nothing.
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
    "bnengine/training/step.py": ("training/test_step*.py",),
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


def stages(path: str, root: Path) -> dict[str, list[str]]:
    """The test files that judge a mutant of `path`, stage by stage, quick ones first."""
    near = _found(NEAR.get(path, ()), root)
    wide = [name for name in _found(WIDE, root) if name not in near]
    return {"near": near, "wide": wide, "peers": _found(PEERS, root)}


def _found(patterns: tuple[str, ...], root: Path) -> list[str]:
    names = [p.relative_to(root).as_posix() for pattern in patterns for p in sorted((root / "tests").glob(pattern))]
    return list(dict.fromkeys(names))
