"""Which version of an op runs, what is reported, and where results go, shown with a toy library."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from bnengine.errors import InputError
from bnengine.ops import REGISTRY, Contract, Example, Out, onto, op, using
from bnengine.runtime.memory import Dispatch, Memory, Outputs
from bnengine.runtime.modes import current_mode
from bnengine.runtime.reasons import Kind, Reason


class Kernels:
    """Fused versions for NumPy that take what `refused` does not name, and remember what was asked and launched."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refused: dict[str, str] = {}
        self.asked: list[str] = []
        self.launched: list[Any] = []

    def refuses(self, x: Any) -> Reason | None:
        self.asked.append(str(x.dtype))
        text = self.refused.get(str(x.dtype))
        return None if text is None else Reason(Kind.ARRAY, text)

    def launch_scaled(self, outputs: Outputs, x: Any, by: float) -> Any:
        self.launched.append(self.name)
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


def plus(a: Any, b: Any) -> Any:
    return a + b


def refuse_negative_by(_x: Any, *, by: float = 2.0) -> None:
    if by < 0:
        raise InputError(f"toy_scaled: by {by!r} is below 0")


def exact(_u: float, *_args: Any, **_options: Any) -> int:
    return 0


def no_examples(_rng: Any, _dtype: str) -> Any:
    yield Example("one", (np.ones(2),))


@pytest.fixture(autouse=True)
def references():
    """Which version runs is the subject here."""


@pytest.fixture(autouse=True)
def libraries():
    """Two sets of kernels."""
    return [Kernels("toy_first"), Kernels("toy_second")]


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

    @op(accumulates={"out": plus}, contract=Contract(no_examples, exact, refuse_negative_by))
    def toy_scaled(x: Any, *, by: float = 2.0) -> Any:
        """y = by x."""
        return x * by

    for library in libraries:
        toy_scaled.version("numpy", library.refuses)(library.launch_scaled)
    return toy_scaled


@pytest.fixture
def parted(libraries):
    """An op of two outputs, of which only the first can be added into."""

    @op(accumulates={"top": plus})
    def toy_parted(x: Any) -> Parts:
        top = np.maximum(x, 1)
        return Parts(top, x - top)

    toy_parted.version("numpy", libraries[0].refuses)(libraries[0].launch_parted)
    return toy_parted


X = np.asarray([0.0, 3.0])


# -- which version ----------------------------------------------------------------------------------------------------


def test_the_first_fused_version_that_supports_the_arrays_runs(scaled, libraries):
    first, second = libraries
    memory = Memory()
    assert scaled(X, memory=memory).tolist() == [0, 6]
    assert (first.launched, second.launched) == (["toy_first"], [])
    (choice,) = memory.explain()
    assert choice == Dispatch("toy_scaled", "numpy", "float64", choice.version)
    assert choice.version.endswith("launch_scaled")


def test_the_next_one_runs_where_the_first_does_not(scaled, libraries):
    first, second = libraries
    first.refused["float64"] = "float32 only"
    assert scaled(X, by=3.0).tolist() == [0, 9]
    assert (first.launched, second.launched) == ([], ["toy_second"])
    assert (first.asked, second.asked) == (["float64"], ["float64"])


def test_the_reference_runs_where_none_does_and_explain_says_why(scaled, libraries):
    first, second = libraries
    first.refused["float64"], second.refused["float64"] = "float32 only", "no such device"
    memory = Memory()
    assert scaled(X, memory=memory).tolist() == [0, 6]
    assert first.launched == second.launched == []
    why = Reason(Kind.ARRAY, "float32 only; no such device")
    assert memory.explain() == [Dispatch("toy_scaled", "numpy", "float64", "reference", why)]


def test_an_op_without_fused_versions_says_so():
    @op()
    def toy_plain(x: Any) -> Any:
        return x + 1

    memory = Memory()
    assert toy_plain(X, memory=memory).tolist() == [1, 4]
    why = Reason(Kind.NONE, "no fused version exists for numpy")
    assert memory.explain() == [Dispatch("toy_plain", "numpy", "float64", "reference", why)]
    with (
        using("fused"),
        pytest.raises(InputError, match=r"^toy_plain: kernels .* 'fused', but no fused version exists for numpy\. "),
    ):
        toy_plain(X)


def test_the_choice_is_settled_once_per_op_library_and_dtype(scaled, parted, libraries):
    first, second = libraries
    first.refused["float32"] = second.refused["float32"] = "float64 only"
    memory = Memory()
    for _ in range(3):
        scaled(X, memory=memory)
        scaled(X.astype(np.float32), memory=memory)
        parted(X, memory=memory)
    assert first.asked == ["float64", "float32", "float64"]
    assert second.asked == ["float32"]
    choices = [(c.op, c.library, c.dtype, c.why) for c in memory.explain()]
    assert choices == [
        ("toy_scaled", "numpy", "float64", ""),
        ("toy_scaled", "numpy", "float32", "float64 only"),
        ("toy_parted", "numpy", "float64", ""),
    ]
    memory.explain().clear()
    assert len(memory.explain()) == 3
    scaled(X, memory=Memory())
    assert first.asked[3:] == ["float64"]


def test_arrays_of_another_library_are_settled_on_their_own(scaled, require):
    strict = require("array_api_strict")
    memory = Memory()
    scaled(X, memory=memory)
    y = scaled(strict.asarray([1.0]), memory=memory)
    assert type(y) is type(strict.asarray([1.0]))
    assert [(c.library, c.why != "") for c in memory.explain()] == [("numpy", False), ("array_api_strict", True)]


# -- modes ------------------------------------------------------------------------------------------------------------


def test_fused_makes_a_fallback_an_error_with_its_reason(scaled, libraries):
    for library in libraries:
        library.refused["float64"] = "float32 only"
    with using("fused"), pytest.raises(InputError) as error:
        scaled(X)
    why = "float32 only"
    assert str(error.value) == f"toy_scaled: kernels are to be 'fused', but {why}. Take 'auto' to allow the reference."
    with using("fused"):
        assert scaled(X.astype(np.float32)).tolist() == [0, 6]
    assert libraries[0].launched == ["toy_first"]


def test_reference_asks_no_fused_version(scaled, libraries):
    with using("reference"):
        memory = Memory()
        assert scaled(X).tolist() == scaled(X, memory=memory).tolist() == [0, 6]
    assert libraries[0].asked == libraries[0].launched == []
    assert memory.explain()[0][3:] == ("reference", (Kind.MODE, "reference mode requested"))


def test_a_memory_keeps_the_mode_that_it_was_made_in(scaled, libraries):
    with using("reference"):
        memory = Memory()
    assert memory.mode == "reference"
    scaled(X, memory=memory)
    assert libraries[0].launched == []
    assert Memory().mode == "auto"
    with using("reference"):
        scaled(X, memory=Memory("auto"))
    assert libraries[0].launched == ["toy_first"]


def test_modes_nest_and_are_restored_even_after_an_exception():
    assert current_mode() == "auto"
    with using("fused"):
        with using("reference"):
            assert current_mode() == "reference"
            with using("auto"):
                assert current_mode() == "auto"
        assert current_mode() == "fused"
        with pytest.raises(ZeroDivisionError), using("reference"):
            raise ZeroDivisionError
        assert current_mode() == "fused"
    assert current_mode() == "auto"


def test_an_unknown_mode_is_an_error_and_changes_nothing():
    with (
        pytest.raises(InputError, match=r"^using: mode must be 'auto', 'fused' or 'reference', got 'fast'\.$"),
        using("fast"),
    ):
        pass
    assert current_mode() == "auto"


# -- where results go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fused", "reference"])
@pytest.mark.parametrize("adds", [False, True])
def test_a_destination_gets_the_result_or_has_it_added(scaled, mode, adds):
    array = np.asarray([10.0, 20.0])
    with using(mode):
        result = scaled(X, into={"out": Out(array, adds)})
    assert result is array
    assert array.tolist() == ([10, 26] if adds else [0, 6])
    assert Out(array).adds is False


@pytest.mark.parametrize("mode", ["fused", "reference"])
def test_outputs_go_where_they_are_sent_one_by_one(parted, mode):
    top, rest = np.asarray([10.0, 20.0]), np.asarray([10.0, 20.0])
    with using(mode):
        found = parted(X, into={"top": Out(top, adds=True)})
        assert found.top is top
        assert (top.tolist(), found.rest.tolist()) == ([11, 23], [-1, 0])
        found = parted(X, into={"rest": Out(rest)})
        assert found.rest is rest
        assert (rest.tolist(), found.top.tolist()) == ([-1, 0], [1, 3])
        plain = parted(X)
    assert isinstance(plain, Parts)
    assert plain.top.tolist() == [1, 3]
    assert not np.shares_memory(plain.top, top)


def test_a_launcher_gets_the_destination_or_new_memory():
    array = np.ones(3)
    outputs = Memory().outputs({"a": Out(array), "b": Out(array, adds=True)})
    assert outputs.array("a", (3,), np.float64, X) is array
    assert outputs.array("b", (3,), np.float64, X) is array
    assert (outputs.adds("a"), outputs.adds("b"), outputs.adds("c")) == (False, True, False)
    new = outputs.array("c", (2, 5), np.float32, X)
    assert (new.shape, new.dtype, type(new)) == ((2, 5), np.float32, np.ndarray)


def test_memory_runs_what_takes_memory() -> None:
    memory = Memory("auto")
    assert memory.run(lambda *args, **options: (args, options), 1, by=2) == ((1,), {"by": 2, "memory": memory})


def test_onto_overwrites_what_is_there() -> None:
    array = np.zeros(2)
    assert onto(a=array, b=None) == {"a": Out(array, adds=False)}


@pytest.mark.parametrize("mode", ["fused", "reference"])
def test_an_output_without_a_rule_cannot_be_added_into(parted, mode):
    array = np.zeros(2)
    with using(mode), pytest.raises(InputError) as error:
        parted(X, into={"rest": Out(array, adds=True)})
    assert str(error.value) == "toy_parted: 'rest' cannot be added into a destination. Of its outputs top can."
    assert array.tolist() == [0, 0]


def test_where_nothing_can_be_added_into_the_error_says_none():
    @op()
    def toy_plain(x: Any) -> Any:
        return x + 1

    with pytest.raises(InputError, match=r"^toy_plain: 'out' cannot be added .*\. Of its outputs none can\.$"):
        toy_plain(X, into={"out": Out(np.zeros(2), adds=True)})


@pytest.mark.parametrize("mode", ["fused", "reference"])
def test_an_output_that_the_op_does_not_have_is_an_error(parted, mode):
    with using(mode), pytest.raises(InputError, match=r"^toy_parted: no output 'bottom'\. It has top, rest\.$"):
        parted(X, into={"bottom": Out(np.zeros(2))})


# -- registering, checking --------------------------------------------------------------------------------------------


def test_an_op_has_the_name_doc_and_outputs_of_its_reference(scaled, parted, registry):
    assert registry["toy_scaled"] is scaled
    assert (scaled.name, scaled.__doc__, scaled.fields) == ("toy_scaled", "y = by x.", ("out",))
    assert (parted.fields, repr(parted)) == (("top", "rest"), "<op toy_parted>")
    assert [version.launcher.__name__ for version in scaled.versions("numpy")] == ["launch_scaled"] * 2


def test_a_name_is_registered_once(scaled, registry):
    with pytest.raises(InputError, match=r"^op: 'toy_scaled' is registered already\. Give the new op another name\.$"):

        @op()
        def toy_scaled(x: Any) -> Any:
            return x

    assert registry["toy_scaled"] is scaled


def test_a_users_call_is_checked_and_a_steps_own_memory_is_not(scaled):
    with pytest.raises(InputError, match=r"^toy_scaled: by -1.0 is below 0$"):
        scaled(X, by=-1.0)
    assert scaled(X, by=-1.0, memory=Memory()).tolist() == [0, -3]
    assert scaled.reference(X, by=-1.0).tolist() == [0, -3]


def test_a_launcher_gets_the_arguments_that_it_names(scaled):
    launch = scaled.versions("numpy")[0].launcher
    to = Memory().outputs({})
    assert launch(to, X).tolist() == launch(to, X, by=2.0).tolist() == launch(to, x=X).tolist() == [0, 6]
    for args, options in (((), {}), ((X, 3.0), {}), ((X,), {"to_by": 3.0}), ((X,), {"x": X})):
        with pytest.raises(TypeError):
            launch(to, *args, **options)


def test_a_launcher_names_no_parameter_that_the_op_does_not_have(scaled):
    with pytest.raises(
        InputError, match=r"^toy_scaled: a fused version takes \['scale'\], the op has x, by\. Rename its arguments\.$"
    ):

        @scaled.version("numpy")
        def launch(to: Outputs, x: Any, scale: float) -> Any:
            return to, x, scale


def test_an_op_has_one_contract(scaled, parted):
    assert (scaled.contract.bound, scaled.contract.check) == (exact, refuse_negative_by)
    with pytest.raises(InputError, match=r"^toy_scaled: the op has a contract already\. Remove one of the two\.$"):
        scaled.contract = Contract(no_examples, exact)
    with pytest.raises(InputError, match=r"^toy_parted: the op has no contract\. Register it with op\(contract="):
        _ = parted.contract
    parted.contract = Contract(no_examples, exact)
    assert parted(X).top.tolist() == [1, 3]


def test_the_real_registry_is_left_as_it_was():
    assert not [name for name in REGISTRY if name.startswith("toy")]
