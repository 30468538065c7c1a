"""The walk sees a kernel that is wrong in each way that it looks for."""

from typing import Any

import numpy as np
import pytest

from bnengine.ops import REGISTRY, Example
from tests.contracts.cases import Case
from tests.contracts.libraries import Native
from tests.fused import native

X, Y = np.ones((40, 300), np.float32), np.full((40, 300), 2, np.float32)


def off(total: Any) -> Any:
    total[3, 4] *= np.float32(1 + 2.0**-18)
    return total


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda _to, a, b: off(a + b), "total, float32, sum , out: .* allowed are"),
        (lambda _to, a, b: (a + b).astype("f8"), "float64"),
        (lambda _to, a, b: (a + b)[:1], r"\(1, 300\) for \(40, 300\)"),
        (lambda _to, a, b: np.add(a, b, out=a), "total wrote to an argument"),
    ],
)
def test_a_wrong_version_is_seen(wrong, message, monkeypatch):
    library, example = Native(native, "numpy"), Example("sum", (X, Y))
    monkeypatch.setattr(REGISTRY["total"], "_versions", {})
    REGISTRY["total"].version("numpy")(wrong)
    with pytest.raises(AssertionError, match=message):
        Case("total", example, "float32").check(library.outputs("total", example))
