"""Arrays that are not as a kernel wants them: strides and dtypes change no bit, addresses nothing beyond the bound."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bnengine.fused.cuda import _launch
from bnengine.ops import REGISTRY, Example, Out, using
from bnengine.runtime.memory import Arena, Memory
from bnengine.runtime.plan import name_of
from tests.cuda_on_cpu.cases import Case, fields
from tests.cuda_on_cpu.launch import Path
from tests.cuda_on_cpu.storage import FLOAT

NAMES = sorted(REGISTRY.keys() - {"gather_raw"})  # which reads the host's memory
LEADING = {
    "affine_backward": 1,
    "check_step": 1,
    "normalize_backward": 1,
}  # whose dtype the others take; else the first
OTHER = {"float32": "float64", "int64": "int32", "int32": "int16", "bool": "uint8"}


def examples(name: str) -> Iterator[Example]:
    return REGISTRY[name].contract.examples(np.random.default_rng(0), "float32")


def outputs(device: Any, name: str, args: list[Any], options: dict[str, Any], into: Any = None) -> dict[str, Any]:
    given = {key: device.on_device(v) if isinstance(v, np.ndarray) else v for key, v in options.items()}
    with using("fused"):
        result = REGISTRY[name](*args, memory=Memory(), into=into, **given)
    return fields(REGISTRY[name], device.off_device(result))


def uploaded(device: Any, args: Any) -> list[Any]:
    return [device.on_device(a) if isinstance(a, np.ndarray) else a for a in args]


def spread(device: Any, a: np.ndarray) -> Any:
    """The same array as every second element of a larger one."""
    memory = device.on_device(np.repeat(np.ascontiguousarray(a), 2, axis=-1))
    memory[..., 1::2] = device.on_device(np.zeros_like(a))
    return memory[..., ::2]


def same(name: str, expected: dict[str, Any], got: dict[str, Any], what: str) -> None:
    for field, value in expected.items():
        assert (got[field] is None) == (value is None), f"{name}, {what}: {field}"
        if value is not None:
            assert got[field].dtype == value.dtype, f"{name}, {what}: {field} is {got[field].dtype}"
            assert got[field].tobytes() == value.tobytes(), f"{name}, {what}: {field} differs"


@pytest.mark.parametrize("name", NAMES)
def test_arrays_with_gaps_between_their_elements_give_the_same_bytes(name, device):
    for example in examples(name):
        expected = outputs(device, name, uploaded(device, example.args), example.options)
        for i, a in enumerate(example.args):
            if isinstance(a, np.ndarray) and a.ndim:
                args = uploaded(device, example.args)
                args[i] = spread(device, a)
                got = outputs(device, name, args, example.options)
                same(name, expected, got, f"{example.label}, argument {i} with gaps")


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_another_dtype_give_the_same_bytes(name, device):
    for example in examples(name):
        expected = outputs(device, name, uploaded(device, example.args), example.options)
        for i, a in enumerate(example.args):
            other = OTHER.get(a.dtype.name) if isinstance(a, np.ndarray) and i != LEADING.get(name, 0) else None
            if other is None or not np.array_equal(a.astype(other), a, equal_nan=a.dtype.kind == "f"):
                continue
            args = uploaded(device, example.args)
            args[i] = device.on_device(a.astype(other))
            got = outputs(device, name, args, example.options)
            same(name, expected, got, f"{example.label}, argument {i} as {other}")


def shifted(device: Any, like: np.ndarray) -> Any:
    """Memory of the same shape and dtype that begins one element off a 16-byte address."""
    return device.fresh((like.size + 1,), like.dtype)[1:].reshape(*like.shape)


@pytest.mark.parametrize("name", NAMES)
def test_destinations_off_16_bytes_are_written_within_the_bound(name, device):
    for example in examples(name):
        case = Case(name, Path(FLOAT, 1), example)
        for field in [field for field, value in case.expected.items() if value is not None]:
            plain = outputs(device, name, uploaded(device, example.args), example.options)[field]
            target = shifted(device, plain)
            got = outputs(device, name, uploaded(device, example.args), example.options, {field: Out(target)})
            assert target.get().tobytes() == got[field].tobytes()
            for other in case.bound:
                if case.expected[other] is not None:
                    case.check(other, got[other])


def test_a_mask_off_four_bytes_is_written_and_read_byte_by_byte(device, rng):
    x = rng.standard_normal((6, 8)).astype(np.float32)
    args, options = (x, np.asarray([3]), np.arange(6)), {"seed": 1, "layer": 2, "rate": 0.4}
    plain = outputs(device, "dropout", uploaded(device, args), options)
    mask = shifted(device, plain["keep"])
    same("dropout", plain, outputs(device, "dropout", uploaded(device, args), options, {"keep": Out(mask)}), "mask")
    assert mask.get().tobytes() == plain["keep"].tobytes()
    back = outputs(device, "dropout_backward", uploaded(device, (x, plain["keep"])), {"rate": 0.4})
    same("dropout_backward", back, outputs(device, "dropout_backward", [device.on_device(x), mask], {"rate": 0.4}), "")


DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_a_contiguous_array_is_brought_into_another_dtype_by_a_kernel_of_our_own(source, target, device, require, rng):
    require("ml_dtypes")
    before, after = (device.backend().dtype(name) for name in (source, target))
    for shape in ((3, 5), (40, 64)):
        x = (rng.standard_normal(shape) * 100).astype(np.float32).astype(before)
        for given in (device.on_device(x), shifted(device, x), spread(device, x)):
            given[...] = device.on_device(x)
            memory = Arena("fused")
            with memory.recording([given]) as plan:
                got = _launch.ready(memory.outputs({}), given, after)
            assert got.dtype == after
            assert got.get().tobytes() == x.astype(after).tobytes()
            launched = [name_of(launch.kernel).partition("<")[0] for launch in plan.launches]
            gaps = not given.flags.c_contiguous
            assert launched == (["copied"] if gaps else ["bnengine::cast"] * (source != target))
