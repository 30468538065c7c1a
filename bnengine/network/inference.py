"""From raw data to the user's own labels or values, through a loaded network."""

from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..validation import integer
from .sequential import Sequential


class Predictions(NamedTuple):
    """`labels` as the training data had them and `probabilities` (m, classes); or `values` (m, ...) of a regression."""

    labels: Array | None
    probabilities: Array | None
    values: Array | None


def predict(network: Sequential, x: Any, *, batch_size: int = 1024) -> Predictions:
    """Predict from raw data: scaled as the training data were, run in evaluation mode, and told in the user's terms.

    x: (m, ...) as the training data's samples, of any real dtype; NumPy arrays come out. The network must carry its
    preprocessing (one that `load` or a training gave does); without one, `network.predict` takes ready features. A
    single output for two classes is a logit of the second one. Raises InputError or DataError.
    """
    preprocessing = network.preprocessing
    if preprocessing is None:
        raise InputError("predict: the network carries no preprocessing; give ready features to network.predict(x)")
    batch_size = integer("predict", "batch_size", batch_size, least=1)
    rows = len(x)
    if rows == 0:
        raise InputError("predict: the data has no rows; give at least one")
    outputs = []
    for a in range(0, rows, batch_size):
        part = np.arange(a, min(a + batch_size, rows))
        ready = preprocessing.inputs(x[a : a + batch_size], network.dtype, name="predict", rows=part)
        with np.errstate(all="ignore"):  # what is not finite is found below, with its row
            outputs.append(network.backend.to_numpy(network.predict(ready, batch_size=batch_size)))
    logits = np.concatenate(outputs).astype(np.float64)
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=-1)))
        raise InputError(
            f"predict: row {row} gives {logits[row].tolist()}, which says nothing: its features are far outside what "
            "the network was trained on, or its weights are not finite"
        )
    if preprocessing.task == "regression":
        return Predictions(None, None, preprocessing.values(logits))
    probabilities = softmax(
        np.concatenate([np.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
    )
    return Predictions(preprocessing.labels(np.argmax(probabilities, axis=-1)), probabilities, None)


def softmax(logits: Array) -> Array:
    """exp(l) / sum exp(l) along the last axis, NumPy; the largest logit is subtracted first."""
    e = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)
