"""How much memory a batch needs, for the message when there is too little."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TrainingFailed
from ..layers import walk
from ..network.sequential import Sequential

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@contextmanager
def enough_memory(network: Sequential, rows: int, accumulate: int) -> Iterator[None]:
    """Inside, running out of memory is told with what a batch of `rows` rows needs, and the cure: TrainingFailed."""
    try:
        yield
    except MemoryError as error:
        raise TrainingFailed(
            f"fit: out of memory in a batch of {rows} rows, which needs about {estimate(network, rows)}; take a "
            f"smaller batch size and accumulate more micro-batches (accumulate={2 * accumulate} halves it)"
        ) from error


def estimate(network: Sequential, rows: int) -> str:
    """About how many bytes a training step of `rows` rows holds at once: each layer's output and its gradient, the
    working copies of batch normalisation in float64, and four buffers of parameters. As text with a unit."""
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
    raise AssertionError("unreachable")
