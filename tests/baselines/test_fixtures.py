"""Checkpoints, config files and run folders of a5dc171 load, predict and go on, to the same bits."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import bnengine as bn
from tests.support import missing

from . import allowed, cases, fixtures, trainings
from .digests import Digests, numpy_fingerprint
from .records import Recorded, Run, native

EXPECTED: dict[str, Any] = json.loads((fixtures.FOLDER / "expected.json").read_text())
SAME_NUMPY = EXPECTED["fingerprint"] == numpy_fingerprint()

# The tables name settings as a5dc171 did: old words that still work.
pytestmark = pytest.mark.filterwarnings("ignore:.* is now .* The old name works:DeprecationWarning")


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    if reason := native():
        missing("kernels", reason)
    threads = bn.threads.get()
    yield
    bn.threads.set(threads)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the fixtures give here."""
    if native():
        return {}
    with fixtures.within(tmp_path_factory.mktemp("fixtures") / "copy"):
        return fixtures.outputs()


def differing(found: Digests, expected: Digests) -> list[str]:
    """The names of what differs; probabilities come from NumPy's exponentials."""
    names = (found.keys() | expected.keys()) - allowed.METADATA
    names = {name for name in names if SAME_NUMPY or "probabilities" not in name}
    return sorted(name for name in names if found.get(name) != expected.get(name))


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - {"fingerprint", "numpy"}))
def test_what_the_command_line_makes_of_the_fixtures(name: str, outputs: dict[str, Any]) -> None:
    narrow = any(word in name for word in fixtures.NARROW) and not name.startswith("loaded")
    if narrow and not SAME_NUMPY:
        pytest.skip(f"16 bits are computed by NumPy, which computes otherwise here than {EXPECTED['numpy']} did")
    if isinstance(EXPECTED[name], dict):
        assert differing(outputs[name], EXPECTED[name]) == []
    assert isinstance(EXPECTED[name], dict) or outputs[name] == EXPECTED[name]


@pytest.mark.parametrize("name", fixtures.SAVED)
def test_a_saved_training_goes_on_to_what_it_was_without_a_stop(name: str) -> None:
    case, recorded = cases.table()[name], Recorded("trainings")
    mode = "plan" if case.has_kernels else "reference"
    if mode == "reference" and not recorded.same_numpy:
        pytest.skip("16 bits are computed by NumPy, which computes otherwise here")
    found = trainings.outcome(case, mode, resume=fixtures.file_of(name))
    expected = recorded.digests(Run(name, mode, lambda: {}))
    assert differing(found, expected) == []


def test_config_files_name_no_folder_of_a_machine() -> None:
    files = list(fixtures.FOLDER.rglob("*.toml"))
    assert len(files) == len(fixtures.RUNS)
    assert all('path = "data/' in path.read_text() for path in files)
