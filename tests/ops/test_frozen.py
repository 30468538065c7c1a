"""Frozen ranges and a skipped step together: what is not frozen stays as well."""

import numpy as np
import pytest

from bnengine.ops import REGISTRY
from bnengine.ops.update import RULES

P, G, ONE = np.asarray([1.0, 2.0, 3.0]), np.asarray([4.0, np.nan, 6.0]), np.ones(1)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
@pytest.mark.parametrize("frozen", [(), ((0, 1),), ((0, 1), (2, 3))])
def test_a_skipped_step_changes_nothing_inside_or_outside_of_frozen_ranges(rule, frozen):
    op, table = REGISTRY[rule.name], [[0.1, *(0.5 for _ in rule.scalars)]]
    state = [np.full(3, 0.5 + i) for i in range(len(rule.slots))]
    counters = np.zeros(5, np.int64)
    for g in (G, np.ones(3)):
        skipped = op(P, g, *state, np.asarray(table), counters, np.asarray([False]), ONE, decay_end=3, frozen=frozen)
        for old, new in zip([P, *state, None], skipped, strict=True):
            assert old is new is None or new.tobytes() == old.tobytes()
    taken = op(P, np.ones(3), *state, np.asarray(table), counters, np.asarray([True]), ONE, decay_end=3, frozen=frozen)
    moved = [not any(a <= i < b for a, b in frozen) for i in range(3)]
    assert (taken.parameters != P).tolist() == moved
