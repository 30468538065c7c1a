"""The table that `Sequential.summary` prints."""

from typing import TYPE_CHECKING

from .flat import Parameter, size
from .layers import walk

if TYPE_CHECKING:
    from .network import Sequential


def summary(network: "Sequential") -> str:
    """A line a layer: place, layer, width of the output, parameters, channels of statistics; totals beneath."""
    names = network.named_handles()
    rows = [("layer", "", "outputs", "parameters", "statistics")]
    width = network.inputs
    for place, layer in walk(network.given):
        own = {name: h for name, h in names.items() if name.rsplit(".", 1)[0] == place}
        parameters = sum(size(h) for h in own.values() if isinstance(h, Parameter))
        channels = sum(size(h) for h in own.values() if not isinstance(h, Parameter))
        width = layer.features(width)
        mark = " (bias cancelled)" if f"{place}.b" in network.cancelled else ""
        cells = (str(width or "?"), f"{parameters:,}" if parameters else "-", f"3 x {channels}" if channels else "-")
        rows.append((place, repr(layer) + mark, *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(lines[1])
    return "\n".join([*lines, *_totals(network)])


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]


def _totals(network: "Sequential") -> list[str]:
    parameters, statistics = network.parameters.array, network.statistics.array
    itemsize = 4 if network.dtype == "float32" else 8
    held = parameters.shape[0] * itemsize + statistics.shape[0] * statistics.shape[1] * 8
    kept = [name for name in network.named_parameters() if name.endswith(".b") and _before_batch_norm(network, name)]
    lines = [
        f"{network.parameter_count:,} parameters in {network.dtype} on {network.backend.name}, {held:,} bytes with statistics",
        f"{network.cancelled_biases:,} biases left out: the BatchNorm behind subtracts them ({', '.join(network.cancelled)})"
        if network.cancelled
        else "no biases cancelled",
    ]
    if kept:
        lines.append(f"kept although a BatchNorm behind cancels it: {', '.join(kept)} (bias=True)")
    return lines


def _before_batch_norm(network: "Sequential", name: str) -> bool:
    from .layers import BatchNorm

    places = list(walk(network.given))
    index = next(i for i, (place, _) in enumerate(places) if place == name.rsplit(".", 1)[0])
    return index + 1 < len(places) and isinstance(places[index + 1][1], BatchNorm)
