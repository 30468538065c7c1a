"""The doctor: faults of a network's batch normalization, each with its numbers and its cure."""

from collections.abc import Mapping
from typing import Any

from ..network.sequential import Sequential
from ..storage.saving import Saved
from ..training import Trainer
from .findings import CHECKS, SEVERITIES, Evidence, Finding, TrainingFacts


def doctor(
    network: Sequential,
    data: Any = None,
    training: Trainer | Saved | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Run the checks of `bnengine.inspect.findings` and return what they find, errors first; [] for a healthy network.

    The network does not change.

    Args:
        network: the network to check.
        data: ready features as for `population`, of which 1,024 rows are used; None skips the checks of inputs and of
            units on data. Labels are not needed: gradients are measured with noise as the loss.
        training: the Trainer, or the result of `bnengine.storage.saving.read`; None skips the checks of steps, batches
            and optimizer, except for what `settings` says.
        settings: facts given by hand: steps, batch_size, accumulate, rows, optimizer, learning_rate, recalibrated.

    Raises:
        InputError: data that the network cannot take, or unknown settings.
    """
    evidence = Evidence(network, data, TrainingFacts.of(training, settings))
    findings = [finding for check in CHECKS for finding in check(evidence)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
