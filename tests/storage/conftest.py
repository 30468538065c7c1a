"""A checkpoint that the tests try to lose."""

from pathlib import Path

import pytest

from bnengine.storage import checkpoint
from tests.storage.cases import OLD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of OLD, alone in its folder."""
    path = tmp_path / "run" / "model.safetensors"
    path.parent.mkdir()
    checkpoint.write(path, OLD, {"epoch": 1})
    return path
