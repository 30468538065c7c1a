"""Launches every instance of every kernel, by the engine's own launchers: what compute-sanitizer examines.

`python -m tests.gpu.every_kernel [--jobs N]` needs CuPy and NumPy, no PyTorch and no pytest. Arrays are taken
from the driver one by one, so that a pool does not hide an access past the end of one. Products of matrices, which
are not ours, are left out. Exit status 1 if an instance of tests/cuda_on_cpu/instances.py was not launched, or one
that is not in it was.
"""

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bnengine.arrays.backend import get_backend
from bnengine.fused.cuda import _launch, _load, dense
from bnengine.fused.cuda.gemm import Multiplied, Product
from bnengine.ops import REGISTRY
from bnengine.runtime.memory import Memory
from bnengine.runtime.plan import Launch
from tests.cuda_on_cpu.instances import INSTANCES
from tests.gpu.calls import FLAT, SIZES, Call, Draw, every_call

Names = set[tuple[str, str]]


class WithoutProducts(Memory):
    """New arrays for every output; what a product would have given is ones."""

    def launch(self, launch: Launch) -> None:
        if isinstance(launch.kernel, Product | Multiplied):
            for out in launch.outputs:
                out.fill(1)
        else:
            launch()


class Device:
    """The current GPU, and the instances that were launched on it."""

    def __init__(self) -> None:
        get_backend("cupy")
        self.cupy: Any = importlib.import_module("cupy")
        if hasattr(self.cupy.cuda, "set_allocator"):
            self.cupy.cuda.set_allocator(None)
        self.launched: Names = set()
        plain = _load.function

        def noted(file: str, expression: str, device: int) -> Any:
            self.launched.add((file, expression))
            return plain(file, expression, device)

        _load.function = noted  # type: ignore[assignment]

    def upload(self, value: Any, odd: bool) -> Any:
        """An array of NumPy's on the device, where `odd` one element after the address that memory begins at."""
        if not isinstance(value, np.ndarray):
            return value
        if not odd or value.size < 2:
            return self.cupy.asarray(value)
        memory = self.cupy.empty((value.size + 1,), dtype=value.dtype)
        memory[1:] = self.cupy.asarray(np.ascontiguousarray(value).reshape(-1))
        return memory[1:].reshape(*value.shape)

    def run(self, call: Call) -> None:
        """The op by its fused version; an op that has none for these arrays is left to `directly`."""
        op = REGISTRY[call.op]
        args = [self.upload(a, call.odd) for a in call.args]
        if op.resolve("auto", args[0])[0] is not None:
            options = {name: self.upload(value, False) for name, value in call.options.items()}
            op(*args, memory=WithoutProducts("fused"), **options)

    def directly(self, name: str) -> bool:
        """Launch an instance that no call of an op takes here; False if it is not known how."""
        kernel, _, given = name.removeprefix("bnengine::").partition("<")
        parameters = given.removesuffix(">").split(", ")
        if kernel not in DIRECT:
            return False
        held = storage_dtypes(parameters[: 2 if kernel == "cast" else 1])
        if held is not None:
            DIRECT[kernel](self, parameters, held)
        return held is not None

    def finish(self) -> None:
        self.cupy.cuda.Device().synchronize()


def _cast(device: Device, parameters: list[str], held: list[Any]) -> None:
    odd = parameters[2] == "1"
    x, y = (device.upload(np.zeros(FLAT, dtype), odd) for dtype in held)
    _launch.kernel(x, "pointwise.cu", "cast", *parameters, grid=(3,))(x, y, *_launch.indices(FLAT))


def _bias(device: Device, parameters: list[str], held: list[Any]) -> None:
    """After a product that could have added the bias itself."""
    draw, odd = Draw(held[0]), parameters[1] == "1"
    rows, width = SIZES[1 if odd else 3]
    b, z = device.upload(draw.wide(width), odd), device.upload(draw.stored(rows, width), odd)
    grid = _launch.sliced_grid(z, rows, width, int(parameters[1]), sums=False)
    to = Memory("fused").outputs({})
    dense.BIAS_ACTIVATION(to, z, *parameters[1:], grid=grid, b=b, z=z, y=z, rows=rows, outputs=width, slope=0.01)


def _bias_backward(device: Device, parameters: list[str], held: list[Any]) -> None:
    draw, odd = Draw(held[0]), parameters[1] == "1"
    rows, width = SIZES[1 if odd else 3]
    dy, y, dz = (device.upload(draw.stored(rows, width), odd) for _ in range(3))
    grid = _launch.sliced_grid(dy, rows, width, int(parameters[1]), sums=True)
    db, partial = device.upload(draw.wide(width), odd), ((grid[1], 1, width), np.float64)
    dense.BIAS_ACTIVATION_BACKWARD(
        Memory("fused").outputs({}), dy, *parameters[1:], grid=grid, groups=grid[0], dy=dy, y=y, dz=dz, db=db,
        partial=partial, rows=rows, outputs=width, slope=0.01, adds_db=True,
    )  # fmt: skip


DIRECT = {"cast": _cast, "bias_activation": _bias, "bias_activation_backward": _bias_backward}


def storage_dtypes(names: Sequence[str] = tuple(_launch.STORAGES.values())) -> list[Any] | None:
    """NumPy's dtypes of storage types; None if there is none for bfloat16, which comes with ml_dtypes."""
    by_name = {cuda: name for name, cuda in _launch.STORAGES.items()}
    found = []
    for name in names:
        if by_name[name] == "bfloat16":
            try:
                found.append(np.dtype(importlib.import_module("ml_dtypes").bfloat16))
            except ImportError:
                return None
        else:
            found.append(np.dtype(by_name[name]))
    return found


def listed() -> Names:
    """Every instance that the tests on a CPU run and compile."""
    return {(file, name) for file, names in INSTANCES.items() for name in names}


def launch_all(device: Device) -> list[str]:
    """Launch them; what is wrong, line by line. A call that fails does not keep the others from being made."""
    wrong = []
    for storage in _launch.STORAGES.values():
        for dtype in storage_dtypes([storage]) or []:
            for call in every_call(dtype):
                try:
                    device.run(call)
                    device.finish()  # so that an error has the name of what it belongs to
                except Exception as error:  # CuPy's own, or a launcher's
                    line = str(error).strip().partition("\n")[0]
                    wrong.append(f"{call.op} of {dtype}{' (odd)' * call.odd} raised {type(error).__name__}: {line}")
    wanted = listed()
    for _, name in sorted(wanted - device.launched):
        device.directly(name)
        device.finish()
    return [*wrong, *complaints(wanted, device.launched)]


def complaints(wanted: Names, launched: Names) -> Iterator[str]:
    """Instances that nobody launched, and such as are not in the list."""
    without = "" if storage_dtypes() else " (ml_dtypes, which brings bfloat16, is not installed)"
    for _, name in sorted(wanted - launched):
        yield f"not launched: {name}{without if 'bfloat16' in name else ''}"
    for _, name in sorted(launched - wanted):
        yield f"not in the list: {name}"


def compile_all(jobs: int) -> None:
    """Fill CuPy's cache on disk, in several processes: a kernel takes the compiler a tenth of a second."""
    command = [sys.executable, "-m", "tests.gpu.every_kernel", "--jobs", str(jobs), "--compile"]
    started = [subprocess.Popen([*command, str(i)]) for i in range(jobs)]
    failed = [process.args for process in started if process.wait()]
    if failed:
        sys.exit(f"every_kernel: {len(failed)} of {jobs} processes could not compile their kernels")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.every_kernel", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that compile first  [1: none]")
    parser.add_argument("--compile", type=int, metavar="I", help="compile every N-th instance from the I-th, and stop")
    options = parser.parse_args()
    if options.compile is not None:
        get_backend("cupy")
        for file, name in sorted(listed())[options.compile :: options.jobs]:
            _load.function(file, name, 0)
        return
    if options.jobs > 1:
        compile_all(options.jobs)
    device = Device()
    wrong = launch_all(device)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    more = f"; {len(wrong)} complaints, the first: {wrong[0]}" if wrong else ""
    print(f"{len(device.launched)} of {len(listed())} kernels were launched{more}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
