"""What the library refuses as a step: plans that cannot be native, groups that cannot be, launches by mistake."""

import ctypes

import numpy as np
import pytest

from bnengine.errors import BackendError, InputError
from bnengine.fused.cpu.native import NativeKernel, replayer
from bnengine.runtime.plan import COLUMNS, CannotReplay, Launch, Plan
from tests.cpu.test_replay import plan_of

pytestmark = pytest.mark.usefixtures("kernels_for_tests")


def test_why_a_plan_cannot_be_native_is_said():
    a = np.zeros(8, np.float32)
    fill = NativeKernel("fill<float>", width=8)
    fixed = np.zeros(8, np.float32)
    fixed.flags.writeable = False
    refused = {
        "is not a native kernel": Launch(np.negative, writes=(a,)),
        "is cut by 8, its launch by 4": Launch(fill, writes=(a[:4],), scalars=(1.0,), split=COLUMNS),
        "scratch in bytes": Launch(fill, writes=(a,), scratch=(a,), scalars=(1.0,), split=COLUMNS),
        "read-only": Launch(fill, writes=(fixed,), scalars=(1.0,), split=COLUMNS),
    }
    for why, launch in refused.items():
        with pytest.raises(CannotReplay, match=why):
            replayer(plan_of(launch))
    with pytest.raises(CannotReplay, match="no launches"):
        replayer(Plan())


GROUP = {"unit": 4, "blocks": 2, "launches": 2, "waits": 1}
COUNTS = {"width": 8, "arrays": 0, "integers": 0, "reals": 0}
REFUSED = {  # (what is other than in a group that can be, what is so in its second launch, scratch, groups)
    "no groups": ({}, {}, 0, 0),
    "less than no scratch": ({}, {}, -1, 1),
    "units of no width": ({"unit": 0}, {}, 0, 1),
    "no blocks": ({"blocks": 0}, {}, 0, 1),
    "more blocks than units": ({"blocks": 3}, {}, 0, 1),
    "as many blocks as are counted in 32 bits": ({"unit": 1, "blocks": 2**31}, {"width": 2**40}, 0, 1),
    "no launches": ({"launches": 0}, {}, 0, 1),
    "no kernel": ({}, {"kernel": None}, 0, 1),
    "a wider launch": ({}, {"width": 9}, 0, 1),
    "a narrower launch": ({}, {"width": 7}, 0, 1),
    **{f"less than none: {name}": ({}, {name: -1}, 0, 1) for name in COUNTS},
}


def planned(native, group, second, scratch=0, groups=1):
    """The status that the library returns in C for a plan with one group of two launches that do nothing."""
    library, outcome = native.library(), ctypes.c_int(-1)
    counts = COUNTS | {"kernel": native.kernel("nothing")}
    first = {"width": second["width"]} if second.get("width", 0) > 2**32 else {}
    launches = (native.Launch * 2)(native.Launch(**counts | first), native.Launch(**counts | second))
    given = (native.Group * 1)(native.Group(**GROUP | group))
    handle = library.bnengine_plan(given, groups, launches, None, None, None, scratch, ctypes.byref(outcome))
    assert (handle is None) == (outcome.value != 0)
    if handle is not None:
        assert library.bnengine_run(handle) == 0
        library.bnengine_plan_free(handle)
    return outcome.value


@pytest.mark.parametrize("what", REFUSED)
def test_a_group_that_cannot_be_is_refused(native, what):
    group, second, scratch, groups = REFUSED[what]
    assert planned(native, group, second, scratch, groups) == 3


@pytest.mark.parametrize(
    ("group", "second"),
    [({}, {}), ({"unit": 7}, {}), ({"blocks": 1}, {"width": 9}), ({"blocks": 1}, {"width": 0}), ({"waits": 0}, {})],
)
def test_a_group_at_the_edge_of_what_can_be_is_not(native, group, second):
    assert planned(native, group, second) == 0


def test_one_launch_is_refused_as_a_group_is(native):
    for group, launch, scratch in (
        ({}, {}, 0),  # of two launches
        ({"launches": 1, "unit": 0}, {}, 0),
        ({"launches": 1}, {"kernel": None}, 0),
        ({"launches": 1}, {}, -1),
    ):
        counts = COUNTS | {"kernel": native.kernel("nothing")} | launch
        given = ctypes.byref(native.Group(**GROUP | group)), ctypes.byref(native.Launch(**counts))
        assert native.library().bnengine_launch_now(*given, None, None, None, scratch) == 3


def test_mistakes_are_named():
    a = np.zeros(8, np.float32)
    with pytest.raises(InputError, match="fill<float>: 'x' is not an array, an int or a float"):
        NativeKernel("fill<float>", 8)(a, "x")
    with pytest.raises(InputError, match="is not an array, an int or a float"):
        NativeKernel("fill<float>", 8)(a, np.float32(1))
    with pytest.raises(BackendError, match="there is no kernel 'fill<int>'"):
        NativeKernel("fill<int>", 8)(a, 1.0)
    for wrong in ({"width": -1}, {"unit": 0}, {"blocks": 0}, {"scratch": -1}):
        with pytest.raises(InputError, match="cannot be"):
            NativeKernel("fill<float>", **wrong)
