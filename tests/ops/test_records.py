"""An op may give a record of a single output: it stays a record wherever the output goes."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from bnengine.ops import REGISTRY, Out, op


class Alone(NamedTuple):
    top: Any


@pytest.fixture
def alone():
    """An op with one output whose name is not `out`."""

    @op(accumulates={"top": np.add})
    def toy_alone(x: Any) -> Alone:
        return Alone(2 * x)

    yield toy_alone
    del REGISTRY["toy_alone"]


@pytest.mark.parametrize(("adds", "expected"), [(False, [2, 4]), (True, [102, 104])])
def test_a_record_of_one_output_goes_where_it_is_sent(alone, adds, expected):
    there = np.full(2, 100.0)
    result = alone(np.asarray([1.0, 2.0]), into={"top": Out(there, adds=adds)})
    assert result.top is there
    assert there.tolist() == expected
