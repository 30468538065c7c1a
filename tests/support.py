"""What a test may ask for and do without: a library, a data set. CI names those that must be there."""

import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

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
            missing(name, "the folder shared/data/mnist-10k is not beside the checkout")
        return MNIST
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(name, f"{name} is not installed ({error})")
