"""Launches of the batch normalisation kernels: which instance, which grid, which arguments in which order."""

from typing import Any

import numpy as np

from bnengine.ops.pointwise import ACTIVATIONS
from tests.cuda_on_cpu.launch import (
    Destination,
    Launch,
    Path,
    arrivals,
    enumerator,
    instance,
    module,
    simulate,
    slices,
    unwritten,
)
from tests.cuda_on_cpu.module import CpuKernel
from tests.cuda_on_cpu.storage import STORAGES

FORWARD, BACKWARD = "batch_norm.cu", "batch_norm_backward.cu"


def _instances(plain: tuple[str, ...], activated: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [(s, v) for s in STORAGES for v in (s.vector, 1)]
    return (
        *(instance(kernel, s.name, v) for kernel in plain for s, v in pairs),
        *(instance(kernel, s.name, v, enumerator(a)) for kernel in activated for s, v in pairs for a in ACTIVATIONS),
    )


INSTANCES = {
    FORWARD: (*_instances(("moments",), ("normalize", "batch_norm")), instance("commit"), instance("merge_statistics")),
    BACKWARD: _instances((), ("batch_norm_sums", "batch_norm_backward")),
}


def kernel(name: str, path: Path | None = None, kind: str | None = None) -> CpuKernel:
    file = BACKWARD if name in ("batch_norm_sums", "batch_norm_backward") else FORWARD
    which = () if path is None else (path.storage.name, path.vector)
    return module(file, INSTANCES[file])(instance(name, *which, *(() if kind is None else (enumerator(kind),))))


def shape_of(x: np.ndarray) -> tuple[int, int]:
    return x.size // x.shape[-1], x.shape[-1]


def moments(path: Path, x: np.ndarray, proposal: np.ndarray | None = None, adds: bool = False) -> list[Any]:
    """(batch, proposal); a proposal of more columns than x has is a buffer whose first ones are this layer's."""
    rows, channels = shape_of(x)
    grid = slices(path, channels), path.splits
    stride = channels if proposal is None else proposal.shape[1]
    launch = Launch(
        kernel("moments", path), grid, (), (x,), (unwritten((3, channels), "f8"), proposal),
        (unwritten((path.splits, 3, channels), "f8"), arrivals(grid[0])), (rows, channels, stride, adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


def normalize(
    path: Path, x: np.ndarray, statistics: np.ndarray, gamma: Any, beta: Any, add: Any = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
) -> Any:  # fmt: skip
    rows, channels = shape_of(x)
    launch = Launch(
        kernel("normalize", path, activation), (slices(path, channels), path.splits),
        (statistics, gamma, beta), (x, add), (unwritten(x.shape, x.dtype),), (),
        (rows, channels, statistics.shape[1], eps, slope),
    )  # fmt: skip
    return simulate(launch, path.offset)[0]


def batch_norm(
    path: Path, x: np.ndarray, gamma: Any, beta: Any, add: Any = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
    proposal: np.ndarray | None = None, adds: bool = False,
) -> list[Any]:  # fmt: skip
    """(batch, proposal, y) in one launch."""
    rows, channels = shape_of(x)
    stride = channels if proposal is None else proposal.shape[1]
    columns = slices(path, channels)
    width = 32 if path.vector == 1 else 8 * path.vector
    launch = Launch(
        kernel("batch_norm", path, activation), (columns,), (gamma, beta), (x, add),
        (unwritten((3, channels), "f8"), proposal, unwritten(x.shape, x.dtype)), (),
        (rows, channels, stride, eps, slope, adds), shared=rows * width * x.itemsize,
    )  # fmt: skip
    return simulate(launch, path.offset)


def normalize_backward(
    path: Path, dy: np.ndarray, x: np.ndarray, y: np.ndarray, statistics: np.ndarray, gamma: Any, beta: Any,
    add: Any = None, *, eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
    batch_statistics: bool = True, into: dict[str, Destination] | None = None, input_gradient: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """dx, dadd, dgamma, dbeta by two launches."""
    (rows, channels), into, storage = shape_of(x), into or {}, path.storage
    per_channel = Destination(unwritten(channels, storage.arithmetic))
    dgamma = None if gamma is None else into.get("dgamma", per_channel)
    dbeta = None if beta is None else into.get("dbeta", Destination(per_channel.array.copy()))
    grid = slices(path, channels), path.splits
    written = [None if d is None else d.array for d in (dgamma, dbeta)]
    common = rows, channels, statistics.shape[1], eps, slope
    first = Launch(
        kernel("batch_norm_sums", path, activation), grid, (statistics, gamma, beta), (dy, x, y, add),
        (*written, unwritten((2, channels), "f8")), (unwritten((path.splits, 2, channels), "f8"), arrivals(grid[0])),
        (*common, dgamma is not None and dgamma.adds, dbeta is not None and dbeta.adds),
    )  # fmt: skip
    new_dgamma, new_dbeta, sums = simulate(first, path.offset)
    dx = into.get("dx", Destination(unwritten(x.shape, x.dtype))) if input_gradient else None
    second = Launch(
        kernel("batch_norm_backward", path, activation), grid,
        (statistics, gamma, beta, sums), (dy, x, y, add),
        (None if dx is None else dx.array, None if add is None else unwritten(x.shape, x.dtype)), (),
        (*common, batch_statistics, dx is not None and dx.adds),
    )  # fmt: skip
    new_dx, dadd = simulate(second, path.offset)
    return {"dx": new_dx, "dadd": dadd, "dgamma": new_dgamma, "dbeta": new_dbeta}
