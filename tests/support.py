"""What a test may ask for and do without: a library, a data set. CI names those that must be there."""

import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bnengine.ops import REGISTRY
from bnengine.runtime.memory import Arena
from bnengine.runtime.op import Launcher

ROOT = Path(__file__).resolve().parents[1]
MNIST = ROOT.parent / "shared" / "data" / "mnist-10k"


def required() -> set[str]:
    """The names in BNENGINE_REQUIRE: what a test must not be skipped for."""
    return {name.strip() for name in os.environ.get("BNENGINE_REQUIRE", "").split(",") if name.strip()}


def missing(name: str, reason: str) -> NoReturn:
    """Skip the test and print why, or fail it where BNENGINE_REQUIRE has `name`."""
    if name in required():
        pytest.fail(f"BNENGINE_REQUIRE names {name!r}, but {reason}", pytrace=False)
    pytest.skip(reason)


def require(name: str) -> Any:
    """The module called `name`, or the folder for "mnist"; else the test is skipped, or fails if it was required."""
    if name == "mnist":
        if not MNIST.is_dir():
            missing(name, "the folder shared/data/mnist-10k is not next to the checkout")
        return MNIST
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(name, f"{name} is not installed ({error})")


def poison(arena: Arena) -> None:
    """Fill all memory of an arena with NaN: nothing may depend on what an earlier step left."""
    for buffer in (*arena.outputs_held._bytes, *arena.worker._bytes):
        buffer[...] = 255


def give_versions(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Launcher | None], *, alone: bool = False, **options: Any
) -> None:
    """Let ops have these launchers for NumPy as their only fused versions, None for no version at all.

    Args:
        given: {op: launcher}.
        alone: Whether the other ops have no fused version.
        options: Of `Op.version`.
    """
    for op in REGISTRY.values():
        for library in ("numpy", "cupy"):
            op.versions(library)  # the engine's own are there before they are replaced
    for name, op in REGISTRY.items():
        if alone or name in given:
            monkeypatch.setattr(op, "_versions", {})
        if (launcher := given.get(name)) is not None:
            op.version("numpy", **options)(launcher)
