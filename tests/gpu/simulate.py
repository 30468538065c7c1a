"""Runs a module with the simulated device in CuPy's place: `python -m tests.gpu.simulate pytest -m gpu tests/fused`."""

import atexit
import runpy
import sys
from types import SimpleNamespace
from typing import Any

from bnengine.arrays import backend
from bnengine.arrays.backend import Backend, BackendReport
from tests.fused import real_cupy, simulated_cupy
from tests.fused.simulated_arrays import Zone

NAME = "simulated device"
MEMORY = 8 << 30


class ForGood:
    """Puts things in their places as pytest's monkeypatch does, and never takes them away again."""

    @staticmethod
    def setitem(where: Any, name: str, value: Any) -> None:
        where[name] = value

    @staticmethod
    def setattr(where: Any, name: str, value: Any, raising: bool = True) -> None:  # noqa: ARG004 -- pytest's name
        setattr(where, name, value)


def probe(_index: int) -> tuple[BackendReport, Backend]:
    """As the backend's own probe of CuPy answers where there is a GPU."""
    report = BackendReport("cupy", simulated_cupy.CUPY.__version__, NAME, True, "simulated: no GPU took part")
    return report, simulated_cupy.backend()


def install() -> None:
    """`import cupy`, and the backend cupy, are the simulated device from now on."""
    simulated_cupy.installed(ForGood)
    properties = {"name": NAME.encode(), "major": 0, "minor": 0, "multiProcessorCount": 3}
    simulated_cupy.CUPY.cuda.runtime = SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda _device: properties,
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 0,
        memGetInfo=lambda: (MEMORY, MEMORY),
    )
    simulated_cupy.CUPY.cuda.nvrtc = SimpleNamespace(getVersion=lambda: (0, 0))
    simulated_cupy.NAMESPACE.cuda = simulated_cupy.CUPY.cuda
    simulated_cupy.DEVICE.compute_capability = "90"
    real_cupy.counted_mallocs = simulated_cupy.counted_mallocs  # by hooks of CuPy's that it has not
    backend._PROBES["cupy"] = backend._probe_cupy = probe
    atexit.register(lambda: delattr(Zone, "__del__"))  # what it counts with is gone when the last arrays go


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(
            "tests.gpu.simulate: no module; give one and its arguments: python -m tests.gpu.simulate bnengine info"
        )
    install()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
