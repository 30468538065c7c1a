"""Launches of the batch normalisation kernels: which instance, which grid, which arguments in which order."""

from typing import Any

import numpy as np

from tests.cuda_on_cpu.instances import kernel
from tests.cuda_on_cpu.launch import (
    Destination,
    Launch,
    Path,
    arrivals,
    enumerator,
    simulate,
    slice_width,
    slices,
    unwritten,
)


def shape_of(x: np.ndarray) -> tuple[int, int]:
    return x.size // x.shape[-1], x.shape[-1]


def moments(path: Path, x: np.ndarray, proposal: np.ndarray | None = None, adds: bool = False) -> list[Any]:
    """(batch, proposal); a proposal of more columns than x has is a buffer whose first ones are this layer's."""
    rows, channels = shape_of(x)
    grid = slices(path, channels), path.splits
    stride = channels if proposal is None else proposal.shape[1]
    launch = Launch(
        kernel("batch_norm.cu", "moments", *path.which), grid, (), (x,),
        (unwritten((3, channels), "f8"), proposal),
        (unwritten((path.splits, 3, channels), "f8"), arrivals(grid[0])), (rows, channels, stride, adds),
    )  # fmt: skip
    return simulate(launch, path.offset)


def normalize(
    path: Path, x: np.ndarray, statistics: np.ndarray, gamma: Any, beta: Any, add: Any = None, *,
    eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
) -> Any:  # fmt: skip
    rows, channels = shape_of(x)
    launch = Launch(
        kernel("batch_norm.cu", "normalize", *path.which, enumerator(activation)),
        (slices(path, channels), path.splits), (statistics, gamma, beta), (x, add), (unwritten(x.shape, x.dtype),), (),
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
    launch = Launch(
        kernel("batch_norm.cu", "batch_norm", *path.which, enumerator(activation)), (slices(path, channels),),
        (gamma, beta), (x, add),
        (unwritten((3, channels), "f8"), proposal, unwritten(x.shape, x.dtype)), (),
        (rows, channels, stride, eps, slope, adds), shared=rows * slice_width(path) * x.itemsize,
    )  # fmt: skip
    return simulate(launch, path.offset)


def backward_shared(path: Path, rows: int) -> int:
    """Bytes of shared memory that the way back in one launch needs."""
    return rows * slice_width(path) * (path.storage.dtype.itemsize + path.storage.arithmetic.itemsize)


def normalize_backward(
    path: Path, dy: np.ndarray, x: np.ndarray, y: np.ndarray, statistics: np.ndarray, gamma: Any, beta: Any,
    add: Any = None, *, eps: float = 1e-5, activation: str = "identity", slope: float = 0.01,
    batch_statistics: bool = True, into: dict[str, Destination] | None = None, input_gradient: bool = True,
    launches: int = 2,
) -> dict[str, Any]:  # fmt: skip
    """dx, dadd, dgamma, dbeta by one launch or two."""
    (rows, channels), given, storage = shape_of(x), into or {}, path.storage

    def destination(field: str, wanted: bool, shape: Any, dtype: Any) -> Destination:
        return given.get(field, Destination(unwritten(shape, dtype))) if wanted else Destination(None)

    dgamma = destination("dgamma", gamma is not None, channels, storage.arithmetic)
    dbeta = destination("dbeta", beta is not None, channels, storage.arithmetic)
    dx = destination("dx", input_gradient, x.shape, x.dtype)
    dadd = destination("dadd", add is not None, x.shape, x.dtype)
    which = (*path.which, enumerator(activation))
    common = (rows, channels, statistics.shape[1], eps, slope)
    whole, reads = (statistics, gamma, beta), (dy, x, y, add)
    if launches == 1:
        only = Launch(
            kernel("batch_norm_backward.cu", "batch_norm_gradients", *which), (slices(path, channels),), whole, reads,
            (dx.array, dadd.array, dgamma.array, dbeta.array), (),
            (*common, batch_statistics, dx.adds, dgamma.adds, dbeta.adds),
            shared=backward_shared(path, rows),
        )  # fmt: skip
        return dict(zip(("dx", "dadd", "dgamma", "dbeta"), simulate(only, path.offset), strict=True))
    grid = slices(path, channels), path.splits
    first = Launch(
        kernel("batch_norm_backward.cu", "batch_norm_sums", *which), grid, whole, reads,
        (dgamma.array, dbeta.array, unwritten((2, channels), "f8")),
        (unwritten((path.splits, 2, channels), "f8"), arrivals(grid[0])), (*common, dgamma.adds, dbeta.adds),
    )  # fmt: skip
    new_dgamma, new_dbeta, sums = simulate(first, path.offset)
    second = Launch(
        kernel("batch_norm_backward.cu", "batch_norm_backward", *which), grid, (*whole, sums), reads,
        (dx.array, dadd.array), (), (*common, batch_statistics, dx.adds),
    )  # fmt: skip
    new_dx, new_dadd = simulate(second, path.offset)
    return {"dx": new_dx, "dadd": new_dadd, "dgamma": new_dgamma, "dbeta": new_dbeta}
