"""Estimate the memory of a training step, for the error when there is too little."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TrainingFailed
from ..layers import walk
from ..network.sequential import Sequential

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@contextmanager
def explain_oom(network: Sequential, rows: int, accumulate: int) -> Iterator[None]:
    """Convert MemoryError into TrainingFailed, with an estimate of the memory that a batch of `rows` rows needs."""
    try:
        yield
    except MemoryError as error:
        raise TrainingFailed(
            f"fit: out of memory in a batch of {rows} rows, which needs about {estimate(network, rows)}. Take a "
            f"smaller batch size and accumulate more micro-batches (accumulate={2 * accumulate} halves it)."
        ) from error


def estimate(network: Sequential, rows: int) -> str:
    """Estimate the memory of a training step of `rows` rows, as text with a unit.

    It counts each layer's output and its gradient, the float64 buffers of batch normalization, and four buffers of
    parameters.
    """
    itemsize, stored = BYTES[network.dtype], BYTES[network.storage]
    width, values = network.inputs or 0, network.inputs or 0
    for _, layer in walk(network.layers):
        width = layer.features(width) or width
        values += width
    size: float = (
        rows * values * (2 * stored) + rows * (network.inputs or width) * 8 + 4 * network.parameter_count * itemsize
    )
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable.")
