"""Weights of classes, from what users pass: numbers in the order of codes, a mapping by label, "balanced"."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from ..errors import InputError
from ..validation import number


def class_weights(
    weights: Any, classes: Sequence[Any] | None = None, y: Any = None, *, where: str = "class_weights"
) -> tuple[float, ...]:
    """Return the weight of each class, in the order of the codes.

        weights = class_weights("balanced", preprocessing.classes.values, labels)
        loss = SoftmaxCrossEntropy(class_weights=weights)

    Args:
        weights: numbers in the order of the codes; a mapping, or a Series, from each label to its weight; "balanced":
            n / (k n_c) for a class of n_c of the n rows, as in scikit-learn.
        classes: the k labels in the order of their codes; None if the labels are the codes 0 ... k - 1.
        y: (n,) the training labels, for "balanced".
        where: what errors begin with.

    Returns:
        (k,), as floats.

    Raises:
        InputError: a set, whose order means nothing; a class without a weight, or a weight without a class; a weight
            that is negative or not finite; weights that are all 0; "balanced" without `y`, or a class without a row.
    """
    labels = None if classes is None else np.asarray(classes).tolist()
    if isinstance(weights, str):
        numbers = _balanced(where, weights, labels, y)
    elif isinstance(weights, Mapping) or hasattr(weights, "to_dict"):
        numbers = _by_label(where, weights, labels)
    elif isinstance(weights, Set) or not isinstance(weights, Iterable):
        raise InputError(
            f"{where}: class_weights must be numbers in the order of the classes, or a mapping from class to weight, "
            f"got {weights!r}. Pass a list or a dict."
        )
    else:
        numbers = list(weights)
    checked = tuple(number(where, f"class_weights[{k}]", weight, least=0) for k, weight in enumerate(numbers))
    if not any(checked):
        raise InputError(
            f"{where}: at least one of class_weights must be above 0, got {checked!r}. Give each class a weight."
        )
    return checked


def _by_label(where: str, weights: Any, labels: list[Any] | None) -> list[Any]:
    pairs = list(weights.items())
    given = dict(pairs)
    if labels is None:
        labels = list(range(len(pairs)))
    missing, unknown = [k for k in labels if k not in given], [k for k in given if k not in labels]
    if missing or unknown or len(given) != len(pairs):
        problem = f"missing {missing}, unknown {unknown}" if missing or unknown else "a class twice"
        shown = ", ".join(repr(label) for label in labels[:8]) + (", ..." if len(labels) > 8 else "")
        raise InputError(
            f"{where}: the keys of class_weights must be the classes {shown}, got {problem}. Give each one weight."
        )
    return [given[label] for label in labels]


def _balanced(where: str, word: str, labels: list[Any] | None, y: Any) -> list[float]:
    if word != "balanced" or y is None:
        got = "it without the labels y" if word == "balanced" else repr(word)
        raise InputError(
            f"{where}: class_weights as a text must be 'balanced', got {got}. Call class_weights('balanced', classes, "
            "y) of bnengine.losses, and pass its result."
        )
    found, counts = np.unique(np.asarray(y), return_counts=True)
    rows = dict(zip(found.tolist(), counts.tolist(), strict=True))
    labels = found.tolist() if labels is None else labels
    if lacking := [label for label in labels if label not in rows]:
        raise InputError(f"{where}: class_weights='balanced' needs a row of each class, got none of {lacking!r}.")
    total = sum(rows[label] for label in labels)
    return [total / (len(labels) * rows[label]) for label in labels]
