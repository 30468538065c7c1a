"""The table of layers that `Sequential.summary` returns and that reports show."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

from ..arrays.backend import Backend
from ..layers import BatchNorm, Dense, Layer, Placed, walk
from ..layers.activation import applies_none
from ..runtime.flat import Flat, Handle, Parameter, size

HEADER = ("layer", "", "outputs", "parameters", "statistics")


class Summarized(Protocol):
    """The part of a network that a summary reads."""

    backend: Backend
    parameters: Flat
    statistics: Flat
    copy16: Flat | None
    dtype: str
    storage: str
    precision: Any
    inputs: int | None
    cancelled: list[str]

    @property
    def layers(self) -> tuple[Layer, ...]: ...
    @property
    def fused(self) -> tuple[Placed, ...]: ...
    @property
    def parameter_count(self) -> int: ...
    @property
    def cancelled_biases(self) -> int: ...
    def named_handles(self) -> dict[str, Handle]: ...


def summary(network: Summarized) -> str:
    """Return a table with one line a layer (place, layer, output width, parameters, statistics), and totals below."""
    rows = [HEADER, *layer_rows(network)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(lines[1])
    return "\n".join([*lines, *totals(network)])


def layer_rows(network: Summarized) -> list[tuple[str, str, str, str, str]]:
    """Return the cells of each layer's row, under `HEADER`."""
    names, rows = network.named_handles(), []
    width = network.inputs
    for place, layer in walk(network.layers):
        handles = [h for name, h in names.items() if name.rsplit(".", 1)[0] == place]
        parameters = sum(size(h) for h in handles if isinstance(h, Parameter))
        channels = sum(size(h) for h in handles if not isinstance(h, Parameter))
        width = layer.features(width)
        mark = " (bias cancelled)" if f"{place}.b" in network.cancelled else ""
        cells = (str(width or "?"), f"{parameters:,}" if parameters else "-", f"3 x {channels}" if channels else "-")
        rows.append((place, repr(layer) + mark, *cells))
    return rows


def _aligned(row: Sequence[str], widths: list[int]) -> list[str]:
    return [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def totals(network: Summarized) -> list[str]:
    """Return lines about the whole network: parameters, bytes, biases that a BatchNorm cancels."""
    parameters, statistics = network.parameters.array, network.statistics.array
    itemsize = 4 if network.dtype == "float32" else 8
    extra = "" if network.copy16 is None else f" and a copy in {network.storage}"
    extra += "" if network.precision == "highest" else f"; precision {network.precision}"
    nbytes = parameters.shape[0] * itemsize + statistics.shape[0] * statistics.shape[1] * 8
    nbytes += 0 if network.copy16 is None else parameters.shape[0] * 2
    useless = [
        name for name, handle in network.named_handles().items() if handle in set(_cancelled_anyway(network.fused))
    ]
    lines = [
        f"{network.parameter_count:,} parameters in {network.dtype} on {network.backend.name}, {nbytes:,} bytes with "
        f"statistics{extra}",
        f"{network.cancelled_biases:,} biases left out: the next BatchNorm subtracts them "
        f"({', '.join(network.cancelled)})"
        if network.cancelled
        else "no biases cancelled",
    ]
    if useless:
        lines.append(f"kept although the next BatchNorm cancels it: {', '.join(useless)} (bias=True)")
    return lines


def _cancelled_anyway(placed: Sequence[Placed]) -> Iterator[Handle]:
    """Yield the biases that are kept although the BatchNorm directly after them subtracts them."""
    for here, after in pairwise(placed):
        if isinstance(here.layer, Dense) and applies_none(here) and isinstance(after.layer, BatchNorm):
            yield from (handle for name, handle in here.handles().items() if name == "b")
    for here in placed:
        yield from _cancelled_anyway(here.body)
