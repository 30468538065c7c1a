"""Which version of an op runs, what is reported, and where results go, shown with a toy library."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.ops import REGISTRY, Contract, Example, Out, onto, op, using
from bnengine.runtime.memory import Dispatch, Memory, Outputs
from bnengine.runtime.modes import current_mode
from bnengine.runtime.reasons import Kind, Reason

X = np.asarray([0.0, 3.0])


class Kernels:
    """Fused versions for NumPy that take what `refused` does not name, and remember what was asked and launched."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.asked: list[str] = []
        self.launched = 0

    def refuses(self, x: Any) -> Reason | None:
        self.asked.append(str(x.dtype))
        text = self.refused.get(str(x.dtype))
        return None if text is None else Reason(Kind.ARRAY, text)

    def launch_scaled(self, outputs: Outputs, x: Any, by: float) -> Any:
        self.launched += 1
        out = outputs.array("out", x.shape, x.dtype, x)
        out[...] = out + x * by if outputs.adds("out") else x * by
        return out

    def launch_parted(self, outputs: Outputs, x: Any) -> Any:
        top, rest = (outputs.array(field, x.shape, x.dtype, x) for field in ("top", "rest"))
        top[...] = top + np.maximum(x, 1) if outputs.adds("top") else np.maximum(x, 1)
        rest[...] = x - np.maximum(x, 1)
        return Parts(top, rest)


class Parts(NamedTuple):
    top: Any
    rest: Any


def refuse_negative_by(_x: Any, *, by: float = 2.0) -> None:
    if by < 0:
        raise InputError(f"toy_scaled: by {by!r} is below 0")


def exact(_u: float, *_args: Any, **_options: Any) -> int:
    return 0


def no_examples(_rng: Any, _dtype: str) -> Any:
    yield Example("one", (np.ones(2),))


@pytest.fixture
def libraries():
    """Two sets of kernels."""
    return Kernels(), Kernels()


@pytest.fixture(autouse=True)
def registry():
    """The registry, which is afterwards what it was before."""
    before = dict(REGISTRY)
    yield REGISTRY
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture
def scaled(libraries):
    """An op of one output with two fused versions."""

    @op(accumulates={"out": np.add}, contract=Contract(no_examples, exact, refuse_negative_by))
    def toy_scaled(x: Any, *, by: float = 2.0) -> Any:
        """y = by x."""
        return x * by

    for library in libraries:
        toy_scaled.version("numpy", library.refuses)(library.launch_scaled)
    return toy_scaled


@pytest.fixture
def parted(libraries):
    """An op of two outputs, of which only the first can be added into."""

    @op(accumulates={"top": np.add})
    def toy_parted(x: Any) -> Parts:
        top = np.maximum(x, 1)
        return Parts(top, x - top)

    toy_parted.version("numpy", libraries[0].refuses)(libraries[0].launch_parted)
    return toy_parted


@pytest.fixture
def plain():
    @op()
    def toy_plain(x: Any) -> Any:
        return x + 1

    return toy_plain


def why(memory: Memory) -> list[Any]:
    return [(c.op, c.library, c.dtype, c.why) for c in memory.explain()]


@pytest.mark.parametrize("refusals", [(), ("float32 only",), ("float32 only", "no such device")])
def test_the_first_version_that_takes_the_arrays_runs_and_else_the_reference(scaled, libraries, refusals):
    for library, text in zip(libraries, refusals, strict=False):
        library.refused["float64"] = text
    memory = Memory()
    assert scaled(X, by=3.0, memory=memory).tolist() == [0, 9]
    assert [library.launched for library in libraries] == [len(refusals) == 0, len(refusals) == 1]
    reason = Reason(Kind.ARRAY, "; ".join(refusals)) if len(refusals) == 2 else None
    (choice,) = memory.explain()
    assert choice == Dispatch("toy_scaled", "numpy", "float64", choice.version, reason)
    assert choice.version.endswith("reference" if reason else "launch_scaled")


def test_a_choice_is_made_once_per_memory_op_library_and_dtype(scaled, parted, libraries, require):
    strict = require("array_api_strict").asarray([1.0])
    for library in libraries:
        library.refused["float32"] = "float64 only"
    memory = Memory()
    for _ in range(3):
        scaled(X, memory=memory)
        scaled(X.astype(np.float32), memory=memory)
        parted(X, memory=memory)
        assert type(scaled(strict, memory=memory)) is type(strict)
    assert [libraries[0].asked, libraries[1].asked] == [["float64", "float32", "float64"], ["float32"]]
    both, none = "float64 only", "no fused version exists for array_api_strict"
    of_numpy = ("toy_scaled", "numpy", "float64", ""), ("toy_scaled", "numpy", "float32", both)
    of_strict = "toy_scaled", "array_api_strict", str(strict.dtype), none
    assert why(memory) == [*of_numpy, ("toy_parted", "numpy", "float64", ""), of_strict]
    memory.explain().clear()
    assert len(memory.explain()) == 4
    scaled(X, memory=Memory())
    assert libraries[0].asked[3:] == ["float64"]


def test_fused_makes_a_fallback_an_error_with_its_reason(scaled, plain, libraries):
    for library in libraries:
        library.refused["float64"] = "float32 only"
    with using("fused"):
        for run, reason in ((scaled, "float32 only"), (plain, "no fused version exists for numpy")):
            with pytest.raises(InputError) as error:
                run(X)
            text = f"{run.name}: kernels are to be 'fused', but {reason}. Take 'auto' to allow the reference."
            assert str(error.value) == text
        assert scaled(X.astype(np.float32)).tolist() == [0, 6]
    memory = Memory()
    assert plain(X, memory=memory).tolist() == [1, 4]
    none = Reason(Kind.NONE, "no fused version exists for numpy")
    assert memory.explain() == [Dispatch("toy_plain", "numpy", "float64", "reference", none)]


def test_a_memory_keeps_the_mode_that_it_was_made_in(scaled, libraries):
    with using("reference"):
        memory = Memory()
        assert scaled(X).tolist() == [0, 6]
    assert (memory.mode, Memory().mode) == ("reference", "auto")
    assert scaled(X, memory=memory).tolist() == [0, 6]
    assert libraries[0].asked == []
    assert memory.explain()[0][3:] == ("reference", (Kind.MODE, "reference mode requested"))
    with using("reference"):
        scaled(X, memory=Memory("auto"))
    assert libraries[0].launched == 1


def test_modes_nest_and_are_restored_even_after_an_exception():
    with using("fused"):
        with using("reference"):
            assert current_mode() == "reference"
        with pytest.raises(ZeroDivisionError), using("reference"):
            raise ZeroDivisionError
        assert current_mode() == "fused"
        text = r"^using: mode must be 'auto', 'fused' or 'reference', got 'fast'\.$"
        with pytest.raises(InputError, match=text), using("fast"):
            pass
        assert current_mode() == "fused"
    assert current_mode() == "auto"


@pytest.mark.parametrize("mode", ["fused", "reference"])
def test_outputs_go_where_they_are_sent_one_by_one(scaled, parted, plain, mode):
    for adds, expected in ((False, [0, 6]), (True, [10, 26])):
        array = np.asarray([10.0, 20.0])
        with using(mode):
            assert scaled(X, into={"out": Out(array, adds)}) is array
        assert array.tolist() == expected
    top, rest = np.asarray([10.0, 20.0]), np.asarray([10.0, 20.0])
    with using(mode):
        found = parted(X, into={"top": Out(top, adds=True)})
        assert (found.top is top, top.tolist(), found.rest.tolist()) == (True, [11, 23], [-1, 0])
        found = parted(X, into=onto(rest=rest, top=None))
        assert (found.rest is rest, rest.tolist(), found.top.tolist()) == (True, [-1, 0], [1, 3])
        assert not np.shares_memory(parted(X).top, top)
        text = "toy_parted: 'rest' cannot be added into a destination. Of its outputs top can."
        with pytest.raises(InputError) as error:
            parted(X, into={"rest": Out(rest, adds=True)})
        assert (str(error.value), rest.tolist()) == (text, [-1, 0])
        with pytest.raises(InputError, match=r"^toy_plain: 'out' cannot be added .*\. Of its outputs none can\.$"):
            plain(X, into={"out": Out(rest, adds=True)})
        with pytest.raises(InputError, match=r"^toy_parted: no output 'bottom'\. It has top, rest\.$"):
            parted(X, into={"bottom": Out(rest)})


def test_an_op_has_the_name_doc_and_outputs_of_its_reference(scaled, parted, registry):
    assert registry["toy_scaled"] is scaled
    assert (scaled.name, scaled.__doc__, scaled.fields) == ("toy_scaled", "y = by x.", ("out",))
    assert (parted.fields, repr(parted)) == (("top", "rest"), "<op toy_parted>")
    with pytest.raises(InputError, match=r"^op: 'toy_scaled' is registered already\. Give the new op another name\.$"):
        op()(scaled.reference)
    assert registry["toy_scaled"] is scaled


def test_a_users_call_is_checked_and_a_steps_own_memory_is_not(scaled):
    with pytest.raises(InputError, match=r"^toy_scaled: by -1.0 is below 0$"):
        scaled(X, by=-1.0)
    assert scaled(X, by=-1.0, memory=Memory()).tolist() == [0, -3]


def test_a_launcher_has_the_parameters_of_its_op(scaled):
    launch = scaled.versions("numpy")[0].launcher
    to = Memory().outputs({})
    assert launch(to, X).tolist() == launch(to, X, by=2.0).tolist() == launch(to, x=X).tolist() == [0, 6]
    for args, options in (((), {}), ((X, 3.0), {}), ((X,), {"to_by": 3.0}), ((X,), {"x": X})):
        with pytest.raises(TypeError):
            launch(to, *args, **options)
    text = r"^toy_scaled: a fused version takes \['scale'\], the op has x, by\. Rename its arguments\.$"
    with pytest.raises(InputError, match=text):
        scaled.version("numpy")(lambda _to, x, scale: (x, scale))


def test_an_op_has_one_contract(scaled, parted):
    assert (scaled.contract.bound, scaled.contract.check) == (exact, refuse_negative_by)
    with pytest.raises(InputError, match=r"^toy_scaled: the op has a contract already\. Remove one of the two\.$"):
        scaled.contract = Contract(no_examples, exact)
    with pytest.raises(InputError, match=r"^toy_parted: the op has no contract\. Register it with op\(contract="):
        _ = parted.contract
    parted.contract = Contract(no_examples, exact)
    assert parted(X).top.tolist() == [1, 3]
