"""Random small networks: as a plan, op by op and by the references, step by step from the same state."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from bnengine import threads
from bnengine.arrays.backend import get_backend
from bnengine.fused.cpu import _launch, dense, native
from bnengine.fused.cpu.native import NativePlan
from bnengine.lab.verify.certificate import Ledger
from bnengine.lab.verify.steps import make, verify_steps
from bnengine.lab.verify.variants import Variant
from bnengine.training.step import Step
from tests.cpu.random_networks import STEPS, Drawn, drawn
from tests.cpu.same_bits import state

pytestmark = pytest.mark.usefixtures("native")

NUMPY = get_backend("numpy")
NATIVE = [Variant(NUMPY, dtype, "auto") for dtype in ("float32", "float64")]
MORE = 25 if os.environ.get("BNENGINE_FULL") == "1" else 1
MANY = 50
BOUNDED = {
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.explicit, Phase.generate],  # what is drawn is small, and to shrink it would take minutes
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=20 * MORE, **BOUNDED)
@given(drawn())
def test_op_by_op_gives_the_bits_of_the_plan(one: Drawn) -> None:
    for variant in NATIVE:
        plan, eager = made(one, variant), made(one, variant, replay=False)
        for t in range(2 * STEPS):
            batches = one.batches(t % STEPS)
            plan(batches)
            eager(batches)
            assert state(plan) == state(eager), (variant.label, f"step {t + 1}")
        assert {mode.how for mode in plan.modes()} == {"one call"}, plan.modes()


def made(one: Drawn, variant: Variant, **options: Any) -> Step:
    step = make(one.training._replace(options=one.options | options), variant)
    step.schedule([0.01 * 0.9**t for t in range(2 * STEPS)])
    return step


@settings(max_examples=15 * MORE, **BOUNDED)
@given(one=drawn())
def test_small_blocks_on_three_threads_change_no_bit(one: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    for variant in NATIVE:
        threads.set(1)
        expected = states(one, variant, monkeypatch)
        with monkeypatch.context() as cut:
            cut.setattr(_launch, "LINE", 32)  # four doubles: a draw of dropout is for four
            cut.setattr(_launch, "BLOCK_BYTES", 64)
            cut.setattr(dense, "BLOCK_WORK", 64)
            threads.set(3)
            assert _launch.cut_columns(2, 33, 4).blocks > 1
            assert states(one, variant, monkeypatch) == expected, variant.label


def states(one: Drawn, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The state after each step of a plan; then after many replays, between which threads do not sleep."""
    replays = list[NativePlan]()

    class Noted(NativePlan):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            replays.append(self)

    with monkeypatch.context() as noting:
        noting.setattr(native, "NativePlan", Noted)
        plan = made(one, variant)
        found = []
        for t in range(2 * STEPS):
            plan(one.batches(t % STEPS))
            found.append(state(plan))
    assert replays
    for replay in replays:
        for _ in range(MANY):
            replay.timed()  # by all threads, whether or not they pay
        found.append(state(plan))
    return found


@pytest.mark.slow
@settings(max_examples=30 * MORE, **BOUNDED)
@given(drawn())
def test_the_plan_is_within_the_bounds_of_the_references(one: Drawn) -> None:
    ledger = Ledger()
    verify_steps(ledger, NUMPY, NATIVE, one.training, seed=0)
    rows = ledger.rows()
    assert {row.a for row in rows} >= {variant.label for variant in NATIVE}
    assert not [row for row in rows if not row.ok]
