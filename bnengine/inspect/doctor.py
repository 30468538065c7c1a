"""Doctor: what is wrong with a network's batch normalisation, each finding with its numbers and its cure."""

from collections.abc import Mapping
from typing import Any

from ..network.sequential import Sequential
from ..storage.saving import Saved
from ..training import Trainer
from .findings import CHECKS, SEVERITIES, Evidence, Finding, Known


def doctor(
    network: Sequential,
    data: Any = None,
    training: Trainer | Saved | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """What the checks of `bnengine.inspect.findings` find, errors first; an empty list for a healthy network.

    - `data`: ready features as for `population`, of which 1,024 rows are looked at; None: inputs are not looked at, nor
      what units make of them. Labels are not needed: gradients are measured on noise.
    - `training`: the Trainer, or what `bnengine.storage.saving.read` returns; None: what depends on steps, batches
      and the optimizer is not looked at, but for what `settings` says by hand: steps, batch_size, accumulate, rows,
      optimizer, learning_rate, recalibrated.

    The network is left as it is. Raises InputError.
    """
    evidence = Evidence(network, data, Known.of(training, settings))
    found = [finding for check in CHECKS for finding in check(evidence)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
