"""Launches of the batch normalisation kernels: which instance, which grid, which arguments in which order."""

from typing import Any, NamedTuple

import numpy as np

from tests.cuda_on_cpu.launch import Launch, arrivals, module, simulate, unwritten
from tests.cuda_on_cpu.storage import STORAGES, Storage

ACTIVATIONS = ("identity", "relu", "leaky_relu", "sigmoid", "tanh", "gelu")
FORWARD, BACKWARD = "batch_norm.cu", "batch_norm_backward.cu"


def widths(storage: Storage) -> tuple[int, int]:
    return storage.vector, 1


def instance(kernel: str, storage: Storage, vector: int, activation: str | None = None) -> str:
    given = "" if activation is None else f", bnengine::Activation::{activation}"
    return f"{kernel}<{storage.name}, {vector}{given}>"


def _instances(plain: tuple[str, ...], activated: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [(s, v) for s in STORAGES for v in widths(s)]
    return (
        *(instance(kernel, s, v) for kernel in plain for s, v in pairs),
        *(instance(kernel, s, v, a) for kernel in activated for s, v in pairs for a in ACTIVATIONS),
    )


INSTANCES = {
    FORWARD: (*_instances(("moments",), ("normalize", "batch_norm")), "commit", "merge_statistics"),
    BACKWARD: _instances((), ("batch_norm_sums", "batch_norm_backward")),
}


def kernel(name: str, *which: Any) -> Any:
    file = BACKWARD if name in ("batch_norm_sums", "batch_norm_backward") else FORWARD
    return module(file, INSTANCES[file]).get_function(f"bnengine::{instance(name, *which) if which else name}")


class Path(NamedTuple):
    """How a launch goes about its rows: vector width, splits of the rows, elements off a 16-byte address."""

    storage: Storage
    vector: int
    splits: int = 1
    offset: int = 0

    def slices(self, channels: int) -> int:
        return -(-channels // (32 if self.vector == 1 else 8 * self.vector))


def flat(x: np.ndarray | None) -> np.ndarray | None:
    return None if x is None else x.reshape(-1, x.shape[-1])


def shape_of(x: np.ndarray) -> tuple[int, int]:
    return x.size // x.shape[-1], x.shape[-1]


def moments(path: Path, x: np.ndarray, proposal: np.ndarray | None = None, adds: bool = False) -> list[Any]:
    """(batch, proposal); a proposal of more columns than x has is a buffer whose first ones are this layer's."""
    rows, channels = shape_of(x)
    grid = path.slices(channels), path.splits
    stride = channels if proposal is None else proposal.shape[1]
    launch = Launch(
        kernel("moments", path.storage, path.vector), grid, (), (x,), (unwritten((3, channels), "f8"), proposal),
        (unwritten((path.splits, 3, channels), "f8"), arrivals(grid[0])), (rows, channels, stride, adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


def normalize(
    path: Path, x: np.ndarray, statistics: np.ndarray, gamma: Any, beta: Any, add: Any = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
) -> Any:  # fmt: skip
    rows, channels = shape_of(x)
    launch = Launch(
        kernel("normalize", path.storage, path.vector, activation), (path.slices(channels), path.splits),
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
    slices = path.slices(channels)
    width = 32 if path.vector == 1 else 8 * path.vector
    launch = Launch(
        kernel("batch_norm", path.storage, path.vector, activation), (slices,), (gamma, beta), (x, add),
        (unwritten((3, channels), "f8"), proposal, unwritten(x.shape, x.dtype)), (),
        (rows, channels, stride, eps, slope, adds), shared=rows * width * x.itemsize,
    )  # fmt: skip
    return simulate(launch, path.offset)


class Destination(NamedTuple):
    """What memory holds before, and whether a result is added to it."""

    array: np.ndarray
    adds: bool = False


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
    grid = path.slices(channels), path.splits
    written = [None if d is None else d.array for d in (dgamma, dbeta)]
    common = rows, channels, statistics.shape[1], eps, slope
    first = Launch(
        kernel("batch_norm_sums", storage, path.vector, activation), grid, (statistics, gamma, beta), (dy, x, y, add),
        (*written, unwritten((2, channels), "f8")), (unwritten((path.splits, 2, channels), "f8"), arrivals(grid[0])),
        (*common, dgamma is not None and dgamma.adds, dbeta is not None and dbeta.adds),
    )  # fmt: skip
    new_dgamma, new_dbeta, sums = simulate(first, path.offset)
    dx = into.get("dx", Destination(unwritten(x.shape, x.dtype))) if input_gradient else None
    second = Launch(
        kernel("batch_norm_backward", storage, path.vector, activation), grid,
        (statistics, gamma, beta, sums), (dy, x, y, add),
        (None if dx is None else dx.array, None if add is None else unwritten(x.shape, x.dtype)), (),
        (*common, batch_statistics, dx is not None and dx.adds),
    )  # fmt: skip
    new_dx, dadd = simulate(second, path.offset)
    return {"dx": new_dx, "dadd": dadd, "dgamma": new_dgamma, "dbeta": new_dbeta}
