"""Predict labels or values from raw data."""

from typing import Any, NamedTuple

import numpy as np

from .._typing import Array
from ..errors import InputError
from ..validation import integer
from .sequential import Sequential


class Predictions(NamedTuple):
    """What `predict` returns.

    Attributes:
        labels: (m,), as in the training data; None for a regression.
        probabilities: (m, classes), in the order of the sorted labels; None for a regression.
        values: (m,) or (m, targets), in the training data's units; None for a classification.
    """

    labels: Array | None
    probabilities: Array | None
    values: Array | None


def predict(network: Sequential, x: Any, *, batch_size: int = 1024) -> Predictions:
    """Predict from raw data: scale it as in training, run the network in evaluation mode, return labels or values.

    A single output for two classes is the logit of the second class.

    Args:
        network: a network with its preprocessing, as a training leaves it and `load` returns it. For ready features
            call `network.predict(x)` instead.
        x: (m, ...), samples as in the training data, of any real dtype. The columns of a DataFrame go by their names.
        batch_size: rows that run at once.

    Returns:
        NumPy arrays.

    Raises:
        InputError: the network has no preprocessing, x has no rows, or an output is not finite.
        DataError: samples of another shape, or a value that is not finite.
    """
    preprocessing = network.preprocessing
    if preprocessing is None:
        raise InputError("predict: the network has no preprocessing. Pass ready features to network.predict(x).")
    batch_size = integer("predict", "batch_size", batch_size, least=1)
    x = preprocessing.arranged(x, "predict")
    rows = len(x)
    if rows == 0:
        raise InputError("predict: the data has no rows. Pass at least one.")
    outputs = []
    for a in range(0, rows, batch_size):
        part = np.arange(a, min(a + batch_size, rows))
        ready = preprocessing.inputs(x[a : a + batch_size], network.dtype, name="predict", rows=part)
        with np.errstate(all="ignore"):  # the check below names the row of a value that is not finite
            outputs.append(network.backend.to_numpy(network.predict(ready, batch_size=batch_size)))
    logits = np.concatenate(outputs).astype(np.float64)
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=-1)))
        raise InputError(
            f"predict: row {row} gives {logits[row].tolist()}, which is not finite. Check that its features are in the "
            "range of the training data, and that the network's weights are finite."
        )
    if preprocessing.task == "regression":
        return Predictions(None, None, preprocessing.values(logits))
    probabilities = softmax(
        np.concatenate([np.zeros_like(logits), logits], axis=-1) if logits.shape[-1] == 1 else logits
    )
    return Predictions(preprocessing.labels(np.argmax(probabilities, axis=-1)), probabilities, None)


def softmax(logits: Array) -> Array:
    """Return exp(l) / sum exp(l) along the last axis, after subtracting the largest logit."""
    with np.errstate(under="ignore"):  # whatever the caller has set
        e = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
        return e / np.sum(e, axis=-1, keepdims=True)
