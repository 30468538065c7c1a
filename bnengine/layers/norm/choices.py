"""The normalizers that `bnengine train --norm` offers, one row each."""

from collections.abc import Callable
from typing import NamedTuple

from ..base import Layer
from .batch_norm import BatchNorm


class NormChoice(NamedTuple):
    """A normalizer after each hidden Dense.

    Attributes:
        label: what a summary of the network says, "" for nothing.
        make: from (channels, decay) to the layer; None for no layer.
    """

    label: str
    make: Callable[[int, float | None], Layer] | None


NORMS = {
    "batch": NormChoice("batch norm", lambda channels, decay: BatchNorm(channels, decay=decay)),
    "normalize-only": NormChoice(
        "batch norm without gamma and beta",
        lambda channels, decay: BatchNorm(channels, decay=decay, gamma=False, beta=False),
    ),
    "none": NormChoice("", None),
}
