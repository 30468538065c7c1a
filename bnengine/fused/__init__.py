"""Fused versions of ops, one folder for each kind of device, imported for the first array.

A module of a folder registers its launchers: `@version(ops.affine)`. Besides, a folder may offer `replayer(plan)`,
which runs a recorded step as one, `REPLAYED_AS`, what that is called, `Uploads`, which bring a step's data to the
device while it computes, and `timing`, the device's clock and how much of its memory is taken. One that has
`available()`, why it can do nothing here, offers nothing where that says why.
"""

from collections.abc import Callable
from typing import Any

from ..runtime.op import versions_come_from


def _cpu() -> Any:
    from . import cpu

    return cpu


def _cuda() -> Any:
    from . import cuda

    return cuda


_FOLDERS: dict[str, Callable[[], Any]] = {"numpy": _cpu, "cupy": _cuda}
for _library, _load in _FOLDERS.items():
    versions_come_from(_library, _load)


def backend_feature(backend: str, what: str) -> Any:
    """What the fused code for arrays of a backend offers by this name, None if it does not, or if there is none."""
    if backend not in _FOLDERS:
        return None
    module = _FOLDERS[backend]()
    if hasattr(module, "available") and module.available() is not None:
        return None
    return getattr(module, what, None)


def kernels(backend: str) -> str:
    """The kernels for arrays of a backend, such as "native, AVX2 (x86-64-v3)"; or that references run, and why."""
    if backend not in _FOLDERS:
        return f"references: there are no kernels for {backend}"
    return str(_FOLDERS[backend]().kernels())


def native() -> Any:
    """The library of native kernels: `available()`, `isa()`, its functions; imported on the first call."""
    from .cpu import _load

    return _load


def instruction_set() -> str | None:
    """Which instructions of the processor the native kernels use, in a user's words; None where there are no kernels.

    Raises InputError where BNENGINE_ISA names one that does not run here.
    """
    library = native()
    return None if library.available() else library.INSTRUCTIONS[library.isa()]
