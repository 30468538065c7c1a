"""All ten claims on every array library: the same seeds give the same states and verdicts, in a short setting of each.

Compared are the parts' states, and each seed's own side of every threshold, which two or three seeds may leave open.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from bnengine import ops
from bnengine.fused.cpu import _load
from bnengine.lab.explain import NAMES, ClaimResult, claim_of, examine
from tests.lab.explain.short import SHORT, short
from tests.support import missing, require

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@cache
def by_kernels(name: str) -> ClaimResult:
    """On NumPy with the native kernels, once for all tests of this file."""
    with ops.using("auto"):
        return examine(claim_of(name), short(name, "numpy"))


@pytest.fixture(params=["reference", "array_api_strict", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """NumPy by the references, and the witnesses; torch on one thread, as these arrays are small."""
    if reason := _load.available():
        missing("kernels", reason)
    if request.param == "reference":
        with ops.using("reference"):
            yield "numpy"
        return
    require(request.param)
    if request.param == "torch":
        request.getfixturevalue("torch")
    yield request.param


# Figures that are rounding errors alone, which Adam and RMSprop divide by their own size: each library has others.
ROUNDING = {"adaptive"}


def judged(finding: ClaimResult) -> dict[str, Any]:
    """The state of each part, and on which side of its threshold each seed is; of rounding whether it holds."""
    found: dict[str, Any] = {}
    for part, figure, state in finding.judged:
        if part.figure in ROUNDING:
            found[part.figure] = state == "holds"
            continue
        right = [v <= part.threshold if part.relation == "<=" else v >= part.threshold for v in figure.values]
        found[part.figure] = (state, right)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_library_comes_to_the_same_verdict(name: str, backend: str) -> None:
    here, there = by_kernels(name), examine(claim_of(name), short(name, backend))
    values = {part.figure: (figure.values, there.figures[part.figure].values) for part, figure, _ in here.judged}
    assert judged(there) == judged(here), values
    assert there.verdict == here.verdict == SHORT[name].verdict
