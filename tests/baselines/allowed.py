"""The differences from a5dc171 that are meant, all in one place: names that changed, and metadata that may differ."""

import re
from typing import Any

# The new name of an op, a tensor or a key in metadata, and the one that a5dc171 wrote.
RENAMED = {"pending": "proposal", "centered": "centred", "copy16": "shadow", "correct": "hits"}
# The new word that stands as a value in metadata, and the one that a5dc171 wrote.
WORDS: dict[str, str] = {"center": "centre"}
# Entries that may differ, or that only one version has.
METADATA = {
    "metadata.bnengine",  # the version of the package
    *("run.kernels", "data.task", "training.class_weights"),  # settings that a5dc171 did not have
}
# What a5dc171 got wrong, by computation: a changed layer was saved with its old configuration.
CONFIGURATION = {"metadata.network.layers", "predicted after loading"}
REPAIRED: dict[str, set[str]] = dict.fromkeys(
    ("changed: eps", "changed: rate of dropout", "changed: slope"), CONFIGURATION
)
# Sums of more than 256 products are cut into chains, so these have other bits: gradients of weights over that many
# rows, and trainings of that many inputs.
LONG_SUMS = re.compile(r"affine_backward: .*, (300|1030)x\d+x\d+")
WIDE = "layers: wide, "


def compared(run: str, names: set[str]) -> set[str]:
    """The entries of a computation that must be those of a5dc171."""
    if run.startswith(WIDE):
        return set()
    return names - METADATA - REPAIRED.get(run, {"dW"} if LONG_SUMS.match(run) else set())


def old_name(name: str) -> str:
    """The name that a tensor had."""
    return ".".join(RENAMED.get(part, part) for part in name.split("."))


def old_words(value: Any) -> Any:
    """Metadata with the names and words that it had."""
    if isinstance(value, dict):
        return {RENAMED.get(key, key): old_words(item) for key, item in value.items()}
    if isinstance(value, list):
        return [old_words(item) for item in value]
    return WORDS.get(value, value) if isinstance(value, str) else value
