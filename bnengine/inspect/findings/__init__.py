"""The checks of batch normalization in a network, each a small function."""

from collections.abc import Callable, Iterator

from .collected import dead_gamma, decay_slow, never_collected, not_finite, variance_small
from .evidence import Evidence
from .facts import TrainingFacts
from .finding import SEVERITIES, Finding, Severity
from .signals import cancelled_bias, dead_units, uncentered_inputs
from .steps import batches_small, decay_on_affine, effective_rate
from .structure import decay_swapped, dropout_before_norm, norm_on_output, other_convention

CHECKS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    never_collected, not_finite, decay_slow, variance_small, dead_gamma, dead_units, uncentered_inputs, batches_small,
    norm_on_output, dropout_before_norm, decay_swapped, decay_on_affine, cancelled_bias, effective_rate,
    other_convention,
)  # fmt: skip

__all__ = ["CHECKS", "SEVERITIES", "Evidence", "Finding", "Severity", "TrainingFacts"]
