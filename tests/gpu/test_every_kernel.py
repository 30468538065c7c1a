"""Every kernel of the sources is in the list of instances, and every instance in the list is launched."""

import re
import sys

import numpy as np
import pytest

from bnengine.fused.cuda import _launch, _load
from bnengine.ops.update import RULES
from tests.cuda_on_cpu.instances import INSTANCES
from tests.gpu import every_kernel

BOUNDS = r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)"
KERNEL = re.compile(rf"(?:template\s*<([^;{{]*?)>\s*)?__global__\s+void\s+(?:{BOUNDS}\s*)?(\w+)\s*\(")


def kernels(file: str) -> dict[str, str]:
    """The kernels of a source, with their template parameters."""
    text = re.sub(r"//.*", "", (_load.folder() / "cuda" / file).read_text(encoding="utf-8"))
    found = {m[2]: m[1] or "" for m in KERNEL.finditer(text.replace("\\\n", "\n"))}
    assert len(found) == text.count("__global__")
    if (parameters := found.pop("OP", None)) is not None:  # the kernel that every optimizer is an instance of
        found |= dict.fromkeys(RULES, parameters)
    return found


def test_the_list_has_every_kernel_of_every_source():
    files = {path.name for path in (_load.folder() / "cuda").glob("*.cu")}
    assert set(INSTANCES) == files
    for file in files:
        listed = {re.match(r"bnengine::(\w+)", name)[1] for name in INSTANCES[file]}
        assert listed == set(kernels(file)), file


def test_a_kernel_is_listed_for_each_of_its_storage_types():
    for file, names in INSTANCES.items():
        for kernel, parameters in kernels(file).items():
            given = [re.findall(r"<(\w+)", n)[0] for n in names if n.startswith(f"bnengine::{kernel}<")]
            if not parameters.startswith("class"):
                assert not given
                continue
            assert {"float", "double"} <= set(given), kernel
            assert set(given) in ({"float", "double"}, set(_launch.STORAGES.values())), kernel


def test_missing_launches_and_unlisted_instances_are_reported():
    wanted, launched = {("a.cu", "a"), ("b.cu", "b<__nv_bfloat16>")}, {("a.cu", "a"), ("c.cu", "c")}
    lines = list(every_kernel.complaints(wanted, launched))
    assert lines[0].startswith("not launched: b<__nv_bfloat16>")
    assert lines[1:] == ["not in the list: c"]


@pytest.mark.parametrize("odd", [False, True])
def test_an_odd_array_lies_one_element_off_16_bytes(odd, simulated):  # noqa: ARG001
    device = object.__new__(every_kernel.Device)
    device.cupy = __import__("cupy")
    for dtype in (np.float32, np.float64, np.float16):
        x = np.arange(10, dtype=dtype).reshape(2, 5)
        got = device.upload(x, odd)
        assert got.get().tobytes() == x.tobytes()
        assert got.data.ptr % 16 == (x.itemsize if odd else 0)


def test_a_call_that_fails_is_reported_and_others_are_made(simulated, monkeypatch):  # noqa: ARG001
    calls = [every_kernel.Call("correct", (np.ones((4, 3), np.float32), np.zeros(4, np.int64)), {}, False)] * 2
    monkeypatch.setattr(every_kernel, "every_call", lambda dtype: calls if dtype == np.float32 else [])
    monkeypatch.setattr(every_kernel.Device, "directly", lambda _device, _name: False)
    monkeypatch.setattr(every_kernel, "get_backend", lambda _name: None)
    plain, seen = every_kernel.Device.run, []

    def planted(device: every_kernel.Device, call: every_kernel.Call) -> None:
        seen.append(call)
        if len(seen) == 1:
            raise RuntimeError("an illegal memory access\nand more")
        plain(device, call)

    monkeypatch.setattr(every_kernel.Device, "run", planted)
    with monkeypatch.context() as patched:
        patched.setattr(_load, "function", _load.function)  # which the device puts its own in place of
        device = every_kernel.Device()
        wrong = every_kernel.launch_all(device)
    assert wrong[0] == "correct of float32 raised RuntimeError: an illegal memory access"
    assert len(seen) == 2
    assert device.launched == {("loss.cu", "bnengine::correct<float, long long>")}
    assert len(wrong) == 1 + len(every_kernel.listed()) - 1


@pytest.mark.parametrize("kernel", every_kernel.DIRECT)
def test_a_kernel_that_no_op_may_need_is_launched_directly(kernel, monkeypatch, simulated):
    name = next(n for names in INSTANCES.values() for n in names if n.startswith(f"bnengine::{kernel}<float"))
    with monkeypatch.context() as patched:
        patched.setattr(_load, "function", _load.function)  # what `Device` replaces is put back
        patched.setattr(every_kernel, "get_backend", lambda _name: simulated.backend())
        patched.setitem(sys.modules, "cupy", simulated.CUPY)
        launching = every_kernel.Device()
        assert launching.directly(name)
    assert name in {instance for _, instance in launching.launched}
