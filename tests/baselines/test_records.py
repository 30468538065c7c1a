"""Every op and every small training gives what a5dc171 gave, bit for bit."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import bnengine as bn
from tests.support import missing

from .records import SECTIONS, Recorded, Run, differences, native

# The tables name settings as a5dc171 did: old words that still work.
pytestmark = pytest.mark.filterwarnings("ignore:.* is now .* The old name works:DeprecationWarning")


@cache
def recorded(section: str) -> Recorded:
    return Recorded(section)


@cache
def runs(section: str) -> dict[str, list[Run]]:
    """The computations of a section: those of an op, or the modes of a training."""
    found: dict[str, list[Run]] = {}
    for run in SECTIONS[section]():
        found.setdefault(run.name.split(":")[0] if section == "operations" else run.name, []).append(run)
    return found


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    if reason := native():
        missing("kernels", reason)
    threads = bn.threads.get()
    yield
    bn.threads.set(threads)


def parts(section: str, group: str) -> Iterator[Any]:
    """The computations of a group: first as a step runs them, nightly also launch by launch and op by op."""
    for again in (False, True):
        part = [run for run in runs(section)[group] if (run.mode in ("launches", "ops")) == again]
        if part:
            marks = pytest.mark.slow if again else ()
            yield pytest.param(section, part, id=f"{section}-{group}{' again' * again}", marks=marks)


@pytest.mark.parametrize(
    ("section", "part"), [each for section in SECTIONS for group in runs(section) for each in parts(section, group)]
)
def test_what_was_recorded_comes_out_again(section: str, part: list[Run]) -> None:
    assert list(differences(section, recorded(section), iter(part))) == []


@pytest.mark.parametrize("section", SECTIONS)
def test_everything_that_was_recorded_is_computed(section: str) -> None:
    every = [run for group in runs(section).values() for run in group]
    for kept in ("native", "reference"):
        assert {run.name for run in every if run.kept == kept} == recorded(section).names(kept)
